//! The block formats: exact values, round trips and products.

use half::f16;
use proptest::prelude::*;
use whittle_llama::{Error, block, gguf::GgmlType};

/// A row of blocks with all codes, from a counter.
fn row(kind: GgmlType, blocks: usize, seed: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in 0..blocks {
        let scale = 0.01 + block as f32 * 0.003;
        match kind {
            GgmlType::F32 => bytes.extend((scale * f32::from(seed) - 1.0).to_le_bytes()),
            GgmlType::F16 => {
                bytes.extend(f16::from_f32(scale * f32::from(seed) - 1.0).to_le_bytes())
            }
            GgmlType::Q8_0 | GgmlType::Q4_1 => {
                bytes.extend(f16::from_f32(scale).to_le_bytes());
                if kind == GgmlType::Q4_1 {
                    bytes.extend(f16::from_f32(-7.0 * scale).to_le_bytes());
                }
                let codes = kind.block_bytes() - if kind == GgmlType::Q4_1 { 4 } else { 2 };
                bytes.extend((0..codes).map(|i| (i as u8).wrapping_mul(37).wrapping_add(seed)));
            }
        }
    }
    bytes
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
    for kind in GgmlType::ALL {
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
        let mut weights = vec![0.0; kind.block_len() * 2];
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
        if kind.block_len() > 1 {
            assert!(
                block::dequantize(kind, &vec![0; kind.block_bytes()], &mut weights[..31]).is_err()
            );
            assert!(block::quantize(kind, &[0.0; 33]).is_err());
        }
        assert!(block::dequantize(kind, &[], &mut []).is_ok());
    }
}

#[test]
fn weights_that_a_format_can_not_hold_are_errors() {
    for kind in GgmlType::ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = [1.0; 64];
            weights[40] = bad;
            // A NaN takes no part in the largest weight; in Q8_0 and Q4_1 it must not become an ordinary code.
            let result = block::quantize(kind, &weights);
            assert!(
                matches!(result, Err(Error::Argument { .. })),
                "{kind} {bad}"
            );
        }
    }
    assert!(block::quantize(GgmlType::F16, &[65_520.0]).is_err());
    assert!(block::quantize(GgmlType::F16, &[65_504.0]).is_ok());
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
            // Q4_1 sums codes and minimums apart, which together are up to about three times the size of the weights; each of
            // the ⌈n/16⌉ + 16 steps rounds by 2^-24 of a partial sum.
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
        for kind in GgmlType::ALL {
            let bytes = block::quantize(kind, &weights).unwrap();
            prop_assert_eq!(bytes.len(), 32 / kind.block_len() * kind.block_bytes());
            let mut back = vec![0.0; 32];
            block::dequantize(kind, &bytes, &mut back).unwrap();
            // Half a step, plus 2^-11 for each f16 that scales the largest code.
            let error = match kind {
                GgmlType::F32 => 0.0,
                GgmlType::F16 => largest / 2048.0,
                GgmlType::Q8_0 => largest / 127.0 * 0.5 + largest / 2048.0,
                GgmlType::Q4_1 => (high - low) / 15.0 * 0.5 + (high - low) / 2048.0 + largest / 2048.0,
            };
            for (weight, back) in weights.iter().zip(&back) {
                prop_assert!((weight - back).abs() <= error * 1.001, "{}: {} for {}", kind, back, weight);
            }
        }
    }
}
