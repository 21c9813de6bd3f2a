//! The block formats: exact values, round trips and products.

use half::{bf16, f16};
use proptest::prelude::*;
use whittle_llama::{Error, Gguf, block, gguf::GgmlType};

/// A row of blocks with all codes, from a counter. Their numbers are about as large as a model's.
fn row(kind: GgmlType, blocks: usize, seed: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in 0..blocks {
        let scale = 0.01 + block as f32 * 0.003;
        let half = |number: f32| f16::from_f32(number).to_le_bytes();
        let number = scale * f32::from(seed) - 1.0;
        // What stands before the codes, and after them.
        let (head, tail) = match kind {
            GgmlType::F32 => (number.to_le_bytes().to_vec(), vec![]),
            GgmlType::F16 => (half(number).to_vec(), vec![]),
            GgmlType::BF16 => (bf16::from_f32(number).to_le_bytes().to_vec(), vec![]),
            GgmlType::Q4_0 | GgmlType::Q8_0 => (half(scale).to_vec(), vec![]),
            GgmlType::Q4_1 => ([half(scale), half(-7.0 * scale)].concat(), vec![]),
            GgmlType::Q4_K | GgmlType::Q5_K => ([half(scale), half(7.0 * scale)].concat(), vec![]),
            GgmlType::Q6_K => (vec![], half(scale).to_vec()),
        };
        let codes = kind.block_bytes() - head.len() - tail.len();
        bytes.extend(head);
        bytes.extend((0..codes).map(|i| (i as u8).wrapping_mul(37).wrapping_add(seed)));
        bytes.extend(tail);
    }
    bytes
}

/// The committed file of random blocks, which `tests/golden/blocks.py` writes with the PyPI package `gguf`.
fn golden() -> Gguf {
    Gguf::open(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/blocks.gguf"
    ))
    .unwrap()
}

fn bits(weights: &[f32]) -> Vec<u32> {
    weights.iter().map(|weight| weight.to_bits()).collect()
}

#[test]
fn random_blocks_are_dequantised_to_the_bits_of_the_gguf_package() {
    let gguf = golden();
    gguf.check_finite().unwrap();
    for kind in GgmlType::ALL {
        let blocks = gguf.tensor(&format!("blocks.{kind}")).unwrap();
        let expected = gguf.tensor(&format!("expected.{kind}")).unwrap();
        assert_eq!(
            (blocks.info().kind, &blocks.info().shape[..]),
            (kind, &[2, 512][..])
        );
        let (found, expected) = (blocks.dequantize().unwrap(), expected.dequantize().unwrap());
        assert_eq!(bits(&found), bits(&expected), "{kind}");
        // Zeros, or the same weight again and again, would compare equal too easily.
        let mut different = bits(&expected);
        different.sort_unstable();
        different.dedup();
        assert!(
            different.len() > 200,
            "{kind}: {} different weights",
            different.len()
        );
    }
}

#[test]
fn random_weights_are_quantised_to_the_bytes_of_the_gguf_package() {
    let gguf = golden();
    for kind in GgmlType::QUANTIZES
        .into_iter()
        .filter(|&kind| kind != GgmlType::F32)
    {
        let weights = gguf
            .tensor(&format!("weights.{kind}"))
            .unwrap()
            .dequantize()
            .unwrap();
        let expected = gguf.tensor(&format!("quantized.{kind}")).unwrap();
        assert_eq!(
            block::quantize(kind, &weights).unwrap(),
            expected.bytes(),
            "{kind}"
        );
    }
}

#[test]
fn formats_that_are_only_read_are_refused_by_name() {
    for kind in [GgmlType::Q4_K, GgmlType::Q5_K, GgmlType::Q6_K] {
        assert_eq!(
            block::quantize(kind, &[0.0; 256]).unwrap_err().to_string(),
            format!("quantize: supported is F32, F16, BF16, Q4_0, Q4_1, Q8_0, asked was {kind}")
        );
    }
}

#[test]
fn q4_1_keeps_the_first_sixteen_weights_in_the_low_nibbles() {
    let mut bytes = [
        f16::from_f32(0.5).to_le_bytes(),
        f16::from_f32(-3.0).to_le_bytes(),
    ]
    .concat();
    bytes.extend((0..16).map(|i: u8| i | (15 - i) << 4));
    let mut weights = [0.0; 32];
    block::dequantize(GgmlType::Q4_1, &bytes, &mut weights).unwrap();
    for i in 0..16 {
        assert_eq!(weights[i], 0.5 * i as f32 - 3.0);
        assert_eq!(weights[i + 16], 0.5 * (15 - i) as f32 - 3.0);
    }
}

#[test]
fn q4_0_counts_its_codes_from_eight() {
    let mut bytes = f16::from_f32(-0.5).to_le_bytes().to_vec();
    bytes.extend((0..16).map(|i: u8| i | (15 - i) << 4));
    let mut weights = [0.0; 32];
    block::dequantize(GgmlType::Q4_0, &bytes, &mut weights).unwrap();
    for i in 0..16 {
        assert_eq!(weights[i], -0.5 * (i as f32 - 8.0));
        assert_eq!(weights[i + 16], -0.5 * (7.0 - i as f32));
    }
}

/// The layout of a super-block written down weight by weight, as ggml's description of the format gives it.
#[test]
fn super_blocks_keep_each_weight_where_the_format_says() {
    let half = |number: f32| f16::from_f32(number).to_le_bytes();
    for kind in [GgmlType::Q4_K, GgmlType::Q5_K, GgmlType::Q6_K] {
        let mut weights = [0.0; 256];
        for at in 0..256 {
            // All codes are zero but the one of weight `at`; every group has a scale and a minimum of its own.
            let mut bytes = vec![0; kind.block_bytes()];
            let (pair, group, lane) = (at / 64, at / 32, at % 32);
            let expected = if kind == GgmlType::Q6_K {
                let (part, inner) = (at / 128, at % 128);
                let code: u8 = 1 | 2 << 4;
                bytes[part * 64 + inner % 64] = (code & 15) << (inner / 64 * 4);
                bytes[128 + part * 32 + inner % 32] = (code >> 4) << (inner / 32 * 2);
                for (i, scale) in bytes[192..208].iter_mut().enumerate() {
                    *scale = (3 * i as i8 - 20) as u8;
                }
                bytes[208..].copy_from_slice(&half(0.25));
                let scale = 0.25 * (3.0 * (at / 16) as f32 - 20.0);
                (scale * (33.0 - 32.0), scale * -32.0)
            } else {
                bytes[..2].copy_from_slice(&half(0.25));
                bytes[2..4].copy_from_slice(&half(0.5));
                let (scales, minimums) = (
                    [1, 17, 33, 63, 2, 18, 47, 60],
                    [62, 3, 40, 16, 5, 61, 31, 32],
                );
                for i in 0..4 {
                    bytes[4 + i] = scales[i] | scales[i + 4] >> 4 << 6;
                    bytes[8 + i] = minimums[i] | minimums[i + 4] >> 4 << 6;
                    bytes[12 + i] = scales[i + 4] & 15 | (minimums[i + 4] & 15) << 4;
                }
                let codes = kind.block_bytes() - 128;
                bytes[codes + pair * 32 + lane] = 11 << (group % 2 * 4);
                let mut code = 11.0;
                if kind == GgmlType::Q5_K {
                    bytes[16 + lane] = 1 << group;
                    code += 16.0;
                }
                let minimum = 0.5 * f32::from(minimums[group]);
                (0.25 * f32::from(scales[group]) * code - minimum, -minimum)
            };
            block::dequantize(kind, &bytes, &mut weights).unwrap();
            assert_eq!(weights[at], expected.0, "{kind}: weight {at}");
            // A neighbour in the same group has code zero.
            assert_eq!(weights[at ^ 1], expected.1, "{kind}: beside weight {at}");
        }
    }
}

#[test]
fn q8_0_codes_are_signed() {
    let mut bytes = f16::from_f32(0.25).to_le_bytes().to_vec();
    bytes.extend((0..32).map(|i| (i * 8 - 128) as i8 as u8));
    let mut weights = [0.0; 32];
    block::dequantize(GgmlType::Q8_0, &bytes, &mut weights).unwrap();
    let expected: Vec<f32> = (0..32).map(|i| 0.25 * (i * 8 - 128) as f32).collect();
    assert_eq!(weights, expected[..]);
}

#[test]
fn quantising_rounds_as_the_reference_does() {
    // The largest weight is 127, so the scale is 1 and codes are the weights rounded, halves away from zero.
    let mut weights = [0.0; 32];
    weights[..6].copy_from_slice(&[127.0, 0.5, -0.5, 1.4, -127.0, 2.5]);
    let bytes = block::quantize(GgmlType::Q8_0, &weights).unwrap();
    assert_eq!(bytes[..2], f16::ONE.to_le_bytes());
    assert_eq!(bytes[2..8], [127, 1, -1_i8 as u8, 1, -127_i8 as u8, 3]);
    // From -2 to 13 the scale is 1 and the minimum -2; halves go up.
    let mut weights = [-2.0; 32];
    weights[..4].copy_from_slice(&[13.0, -1.5, 0.4, 3.0]);
    weights[16] = 12.0;
    let bytes = block::quantize(GgmlType::Q4_1, &weights).unwrap();
    assert_eq!(
        bytes[..4],
        [f16::ONE.to_le_bytes(), f16::from_f32(-2.0).to_le_bytes()].concat()
    );
    assert_eq!(bytes[4..8], [15 | 14 << 4, 1, 2, 5]);
    assert!(bytes[8..].iter().all(|&code| code == 0));
}

#[test]
fn constant_and_zero_blocks_come_back_exactly() {
    for kind in GgmlType::QUANTIZES {
        for value in [0.0, 1.5, -2.0] {
            let bytes = block::quantize(kind, &[value; 64]).unwrap();
            let mut weights = [f32::NAN; 64];
            block::dequantize(kind, &bytes, &mut weights).unwrap();
            for weight in weights {
                // Q8_0 rounds its scale value/127 to 11 bits.
                let slack = if kind == GgmlType::Q8_0 {
                    value.abs() / 2048.0
                } else {
                    0.0
                };
                assert!(
                    (weight - value).abs() <= slack,
                    "{kind}: {weight} for {value}"
                );
            }
        }
    }
}

#[test]
fn lengths_that_do_not_belong_together_are_errors() {
    for kind in GgmlType::ALL {
        let len = kind.block_len();
        let mut weights = vec![0.0; len * 2];
        for bytes in [
            0,
            kind.block_bytes() * 2 - 1,
            kind.block_bytes() * 2 + 1,
            kind.block_bytes() * 3,
        ] {
            let result = block::dequantize(kind, &vec![0; bytes], &mut weights);
            assert!(
                matches!(result, Err(Error::Argument { .. })),
                "{kind} {bytes}"
            );
        }
        if len > 1 {
            for ragged in [1, len - 1, len + 1] {
                for blocks in 0..3 {
                    let bytes = vec![0; blocks * kind.block_bytes()];
                    let error =
                        block::dequantize(kind, &bytes, &mut weights[..ragged]).unwrap_err();
                    let expected = format!(
                        "dequantize: weights: expected {kind} blocks of {len} weights and {} bytes, found {ragged} weights and {} bytes",
                        kind.block_bytes(),
                        bytes.len()
                    );
                    assert_eq!(error.to_string(), expected);
                }
                assert!(block::quantize(kind, &vec![0.0; ragged]).is_err());
            }
        }
        assert!(block::dequantize(kind, &[], &mut []).is_ok());
    }
}

#[test]
fn weights_that_a_format_can_not_hold_are_errors() {
    for kind in GgmlType::QUANTIZES {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = [1.0; 64];
            weights[40] = bad;
            // A NaN takes no part in the largest weight; in blocks of codes it must not become an ordinary code.
            let result = block::quantize(kind, &weights);
            assert!(
                matches!(result, Err(Error::Argument { .. })),
                "{kind} {bad}"
            );
        }
    }
    assert!(block::quantize(GgmlType::F16, &[65_520.0]).is_err());
    assert!(block::quantize(GgmlType::F16, &[65_504.0]).is_ok());
    assert!(block::quantize(GgmlType::BF16, &[f32::MAX]).is_err());
    assert!(block::quantize(GgmlType::BF16, &[3.38e38]).is_ok());
    assert!(block::quantize(GgmlType::Q4_0, &[8.0 * 65_520.0; 32]).is_err());
    assert!(block::quantize(GgmlType::Q4_0, &[8.0 * 65_504.0; 32]).is_ok());
}

#[test]
fn products_are_those_of_the_dequantised_rows() {
    for kind in GgmlType::ALL {
        for blocks in [0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65] {
            let bytes = row(kind, blocks, 91);
            let mut weights = vec![0.0; blocks * kind.block_len()];
            block::dequantize(kind, &bytes, &mut weights).unwrap();
            let x: Vec<f32> = (0..weights.len())
                .map(|i| ((i * 29 % 23) as f32 - 11.0) * 0.3)
                .collect();
            let exact: f64 = weights
                .iter()
                .zip(&x)
                .map(|(&w, &x)| f64::from(w) * f64::from(x))
                .sum();
            let size: f64 = weights
                .iter()
                .zip(&x)
                .map(|(&w, &x)| f64::from(w * x).abs())
                .sum();
            // Q4_1, Q4_K and Q5_K sum codes and minimums apart, which together are up to about three times the size of the weights;
            // each of the ⌈n/16⌉ + 16 steps rounds by 2^-24 of a partial sum.
            let tolerance = 3.0 * size * (weights.len() as f64 / 16.0 + 20.0) * 2_f64.powi(-24);
            let found = f64::from(block::dot(kind, &bytes, &x));
            assert!(
                (found - exact).abs() <= tolerance,
                "{kind} × {blocks}: {found} for {exact}"
            );
        }
    }
}

#[test]
fn a_product_ends_with_the_shorter_of_its_arguments() {
    for kind in GgmlType::ALL {
        let bytes = row(kind, 3, 17);
        let x = vec![0.7; 3 * kind.block_len()];
        let short = block::dot(
            kind,
            &bytes[..2 * kind.block_bytes()],
            &x[..2 * kind.block_len()],
        );
        assert_eq!(block::dot(kind, &bytes, &x[..2 * kind.block_len()]), short);
        assert_eq!(
            block::dot(kind, &bytes[..2 * kind.block_bytes()], &x),
            short
        );
        assert_eq!(
            block::dot(kind, &bytes[..3 * kind.block_bytes() - 1], &x),
            short
        );
    }
}

proptest! {
    #[test]
    fn a_weight_comes_back_within_half_a_step(weights in prop::collection::vec(-8.0_f32..8.0, 32..=32)) {
        let low = weights.iter().copied().fold(f32::INFINITY, f32::min);
        let high = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let largest = low.abs().max(high.abs());
        for kind in GgmlType::QUANTIZES {
            let bytes = block::quantize(kind, &weights).unwrap();
            prop_assert_eq!(bytes.len(), 32 / kind.block_len() * kind.block_bytes());
            let mut back = vec![0.0; 32];
            block::dequantize(kind, &bytes, &mut back).unwrap();
            // Half a step, plus 2^-11 for each f16 that scales the largest code.
            let error = match kind {
                GgmlType::F32 => 0.0,
                GgmlType::F16 => largest / 2048.0,
                GgmlType::BF16 => largest / 256.0,
                // Codes reach from -8 to 7 times the scale: the extreme weight has code -8, and one as large of the other sign is cut
                // by a whole step.
                GgmlType::Q4_0 => largest / 8.0 + largest / 2048.0,
                GgmlType::Q8_0 => largest / 127.0 * 0.5 + largest / 2048.0,
                GgmlType::Q4_1 => (high - low) / 15.0 * 0.5 + (high - low) / 2048.0 + largest / 2048.0,
                other => panic!("{other} is new: say how far its weights come back"),
            };
            for (weight, back) in weights.iter().zip(&back) {
                prop_assert!((weight - back).abs() <= error * 1.001, "{}: {} for {}", kind, back, weight);
            }
        }
    }

    /// Rows one after the other are what each row is alone, in any number and of any length, whatever the bits of the codes are.
    #[test]
    fn rows_do_not_know_of_each_other(
        kind in prop::sample::select(&GgmlType::ALL),
        rows in 1_usize..6,
        blocks in 1_usize..4,
        seed in any::<u8>(),
    ) {
        let bytes = row(kind, rows * blocks, seed);
        let len = blocks * kind.block_len();
        let mut all = vec![f32::NAN; rows * len];
        block::dequantize(kind, &bytes, &mut all).unwrap();
        let x: Vec<f32> = (0..len).map(|i| ((i * 31 + usize::from(seed)) as f32 * 0.61).sin()).collect();
        for (bytes, expected) in bytes.chunks_exact(blocks * kind.block_bytes()).zip(all.chunks_exact(len)) {
            let mut alone = vec![f32::NAN; len];
            block::dequantize(kind, bytes, &mut alone).unwrap();
            prop_assert_eq!(bits(&alone), bits(expected));
            let exact: f64 = expected.iter().zip(&x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            let size: f64 = expected.iter().zip(&x).map(|(&w, &x)| f64::from(w * x).abs()).sum();
            let found = f64::from(block::dot(kind, bytes, &x));
            // Codes and minimums are summed apart; 1e-5 is about a hundred roundings of their size.
            prop_assert!((found - exact).abs() <= 1e-5 * size + 1e-6, "{}: {} for {}", kind, found, exact);
        }
    }
}
