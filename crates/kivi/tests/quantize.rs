//! The quantiser against its definition, on every instruction set of this machine.

use half::f16;
use proptest::prelude::*;
use whittle_kivi::quantize::{
    Rows, Scheme, dequantize_keys, dequantize_values, quantize_group, quantize_keys,
    quantize_keys_on, quantize_values, quantize_values_on,
};
use whittle_kivi::simd::Isa;
use whittle_kivi::{Bits, Error, Rounding};

const BITS: [Bits; 3] = [Bits::Two, Bits::Three, Bits::Four];

fn native(bits: Bits) -> Scheme {
    Scheme {
        bits,
        clip_search: false,
        rounding: Rounding::Native,
    }
}

fn clipped(bits: Bits) -> Scheme {
    Scheme {
        clip_search: true,
        ..native(bits)
    }
}

fn half(bits: Bits) -> Scheme {
    Scheme {
        rounding: Rounding::Half,
        ..native(bits)
    }
}

fn schemes() -> impl Iterator<Item = Scheme> {
    BITS.into_iter()
        .flat_map(|bits| [native(bits), clipped(bits), half(bits)])
}

/// A group as the definition gives it: codes, and the bits of scale and minimum.
#[derive(Debug, PartialEq)]
struct Quantised {
    codes: Vec<u8>,
    scale: u16,
    min: u16,
}

/// The definition, in the arithmetic of `half` and of f32, written without a look at the crate.
fn oracle(scheme: Scheme, group: &[f16]) -> Quantised {
    let top = scheme.bits.max_code();
    let x: Vec<f32> = group.iter().map(|x| x.to_f32()).collect();
    let (low, high) = (
        x.iter().copied().fold(f32::MAX, f32::min),
        x.iter().copied().fold(f32::MIN, f32::max),
    );
    let finite = |x: f16| x.clamp(f16::MIN, f16::MAX);
    let code = |quotient: f32| -> u8 {
        let integers: Vec<u8> = (0..=top).collect();
        // The nearest integer; of two equally near the even one.
        let key = |k: &u8| (f64::from(*k) - f64::from(quotient)).abs();
        let nearest = integers.iter().map(key).fold(f64::MAX, f64::min);
        let near: Vec<u8> = integers.into_iter().filter(|k| key(k) == nearest).collect();
        if near.len() == 1 {
            near[0]
        } else {
            *near.iter().find(|k| **k % 2 == 0).unwrap_or(&0)
        }
    };
    if scheme.rounding == Rounding::Half {
        let (low, high) = (f16::from_f32(low), f16::from_f32(high));
        let scale = finite(high - low) / f16::from_f32(f32::from(top)) + f16::ZERO;
        let quotients = group.iter().map(|x| finite(*x - low) / scale);
        return Quantised {
            codes: quotients
                .map(|q| {
                    if q == f16::INFINITY {
                        top
                    } else {
                        code(q.to_f32())
                    }
                })
                .collect(),
            scale: scale.to_bits(),
            min: (low + f16::ZERO).to_bits(),
        };
    }
    let candidate = |lo: f32, hi: f32| {
        let scale = finite(f16::from_f32((hi - lo) / f32::from(top))) + f16::ZERO;
        let min = f16::from_f32(lo) + f16::ZERO;
        let codes: Vec<u8> = x
            .iter()
            .map(|x| match scale.to_f32() {
                0.0 => 0,
                scale => code((x - min.to_f32()) / scale),
            })
            .collect();
        let mut error = 0.0f32;
        for (x, code) in x.iter().zip(&codes) {
            let product = f32::from(*code) * scale.to_f32();
            let difference = x - (product + min.to_f32());
            error += difference * difference;
        }
        let (scale, min) = (scale.to_bits(), min.to_bits());
        (error, Quantised { codes, scale, min })
    };
    if !scheme.clip_search {
        return candidate(low, high).1;
    }
    let mut candidates = Vec::new();
    for a in [0.0, 0.1, 0.2, 0.3f32] {
        for c in [0.0, 0.1, 0.2, 0.3f32] {
            let range = high - low;
            candidates.push(candidate(low + a * range, high - c * range));
        }
    }
    let least = candidates
        .iter()
        .map(|(error, _)| *error)
        .fold(f32::MAX, f32::min);
    let mut candidates = candidates.into_iter();
    candidates
        .find(|(error, _)| *error == least)
        .expect("the least is one of them")
        .1
}

/// f16 of many kinds: plain numbers, a large offset, few distinct values (ties), subnormal, extreme, any finite bits.
fn group(len: usize) -> impl Strategy<Value = Vec<f16>> {
    let plain = (-4.0..4.0f32).prop_map(f16::from_f32);
    let offset = (100.0..101.0f32).prop_map(f16::from_f32);
    let few = (0..13i32).prop_map(|i| f16::from_f32(i as f32 / 2.0 - 3.0));
    let subnormal = (0..20u16).prop_map(f16::from_bits);
    let zeros = any::<bool>().prop_map(|sign| if sign { f16::NEG_ZERO } else { f16::ZERO });
    let extreme = prop_oneof![
        Just(f16::MAX),
        Just(f16::MIN),
        Just(f16::ZERO),
        (-6e4..6e4f32).prop_map(f16::from_f32)
    ];
    let any_finite = any::<u16>().prop_map(|bits| {
        f16::from_bits(if bits & 0x7c00 == 0x7c00 {
            bits & !0x4000
        } else {
            bits
        })
    });
    prop_oneof![
        4 => prop::collection::vec(plain, len),
        1 => prop::collection::vec(offset, len),
        2 => prop::collection::vec(few, len),
        1 => prop::collection::vec(subnormal, len),
        1 => prop::collection::vec(zeros, len),
        1 => prop::collection::vec(extreme, len),
        2 => prop::collection::vec(any_finite, len),
    ]
}

fn wide(group: &[f16]) -> Vec<f32> {
    group.iter().map(|x| x.to_f32()).collect()
}

fn quantise(scheme: Scheme, group: &[f16]) -> Quantised {
    let mut codes = vec![99; group.len()];
    let found = quantize_group(scheme, &wide(group), &mut codes).expect("a valid group");
    Quantised {
        codes,
        scale: found.scale.to_bits(),
        min: found.min.to_bits(),
    }
}

/// Sixteen channels of keys, one of them `group`, its neighbours the same numbers rotated.
fn rotations(group: &[f16]) -> Vec<f16> {
    let tokens = group.len();
    (0..tokens * 16)
        .map(|i| group[(i / 16 + i % 16) % tokens])
        .collect()
}

/// Distance of neighbouring f16 at `x`.
fn ulp(x: f32) -> f32 {
    let exponent = x.abs().max(f16::MIN_POSITIVE.to_f32()).log2().floor();
    (exponent - 10.0).exp2()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn one_group_follows_the_definition_to_the_bit(x in (1..=128usize).prop_flat_map(group)) {
        for scheme in schemes() {
            prop_assert_eq!(quantise(scheme, &x), oracle(scheme, &x), "{:?}", scheme);
        }
    }

    #[test]
    fn keys_equal_one_group_per_channel_on_every_instruction_set(x in (1..=128usize).prop_flat_map(group)) {
        let (tokens, data) = (x.len(), rotations(&x));
        let rows = Rows { data: &data, tokens, head_dim: 16, stride: 16 };
        for scheme in schemes() {
            let expected: Vec<Quantised> = (0..16)
                .map(|channel| quantise(scheme, &data.iter().skip(channel).step_by(16).copied().collect::<Vec<_>>()))
                .collect();
            for isa in Isa::available() {
                let mut codes = vec![99; data.len()];
                let (mut scale, mut min) = ([f16::NAN; 16], [f16::NAN; 16]);
                quantize_keys_on(isa, scheme, rows, &mut codes, &mut scale, &mut min)?;
                for (channel, expected) in expected.iter().enumerate() {
                    let found = Quantised {
                        codes: codes.iter().skip(channel).step_by(16).copied().collect(),
                        scale: scale[channel].to_bits(),
                        min: min[channel].to_bits(),
                    };
                    prop_assert_eq!(&found, expected, "{} {:?} channel {}", isa.name(), scheme, channel);
                }
            }
        }
    }

    #[test]
    fn values_equal_one_group_at_a_time_on_every_instruction_set(
        (group_len, data) in (1..=8usize, 1..=3usize, 1..=7usize)
            .prop_flat_map(|(tiles, groups, tokens)| (Just(16 * tiles), group(16 * tiles * groups * tokens), Just(groups)))
            .prop_map(|(group_len, data, groups)| ((group_len, groups), data)),
    ) {
        let (group_len, groups) = group_len;
        let head_dim = group_len * groups;
        let rows = Rows { data: &data, tokens: data.len() / head_dim, head_dim, stride: head_dim };
        for scheme in schemes() {
            for isa in Isa::available() {
                let mut codes = vec![99; data.len()];
                let mut scale = vec![f16::NAN; data.len() / group_len];
                let mut min = scale.clone();
                quantize_values_on(isa, scheme, rows, &mut codes, &mut scale, &mut min)?;
                for (i, group) in data.chunks_exact(group_len).enumerate() {
                    let found = Quantised {
                        codes: codes[i * group_len..][..group_len].to_vec(),
                        scale: scale[i].to_bits(),
                        min: min[i].to_bits(),
                    };
                    prop_assert_eq!(found, quantise(scheme, group), "{} {:?} group {}", isa.name(), scheme, i);
                }
            }
        }
    }

    #[test]
    fn without_clip_search_the_error_keeps_its_bound(x in (1..=128usize).prop_flat_map(group)) {
        for bits in BITS {
            let found = quantise(native(bits), &x);
            let (scale, min) = (f16::from_bits(found.scale).to_f32(), f16::from_bits(found.min).to_f32());
            let bound = scale / 2.0 + ulp(min) / 2.0 + f32::from(bits.max_code()) * ulp(scale) / 2.0;
            for (x, code) in x.iter().zip(&found.codes) {
                prop_assert!(*code <= bits.max_code());
                let exact = (f64::from(*code) * f64::from(scale) + f64::from(min) - x.to_f64()).abs();
                // The code comes from an f32 quotient, whose last bit may turn a tie.
                prop_assert!(exact <= f64::from(bound) * (1.0 + 1e-6), "|{x} - deq| = {exact} > {bound}");
            }
        }
    }

    #[test]
    fn clip_search_never_raises_the_squared_error(x in (1..=128usize).prop_flat_map(group)) {
        for bits in BITS {
            let error = |scheme| {
                let found = quantise(scheme, &x);
                let (scale, min) = (f16::from_bits(found.scale).to_f32(), f16::from_bits(found.min).to_f32());
                x.iter().zip(&found.codes).fold(0.0f32, |sum, (x, code)| {
                    let error = x.to_f32() - (f32::from(*code) * scale + min);
                    sum + error * error
                })
            };
            prop_assert!(error(clipped(bits)) <= error(native(bits)));
        }
    }

    #[test]
    fn keys_of_a_matrix_are_values_of_its_transpose(
        (tokens, head_dim, data) in (1..=8usize, 1..=5usize)
            .prop_flat_map(|(t, d)| (Just(16 * t), Just(16 * d), group(256 * t * d))),
    ) {
        let transposed: Vec<f16> = (0..data.len()).map(|i| data[i % tokens * head_dim + i / tokens]).collect();
        for scheme in schemes() {
            let (mut codes, mut transposed_codes) = (vec![0; data.len()], vec![0; data.len()]);
            let mut metadata = [(); 4].map(|()| vec![f16::NAN; head_dim]);
            let [scale, min, value_scale, value_min] = &mut metadata;
            let rows = Rows { data: &data, tokens, head_dim, stride: head_dim };
            quantize_keys(scheme, rows, &mut codes, scale, min)?;
            let rows = Rows { data: &transposed, tokens: head_dim, head_dim: tokens, stride: tokens };
            quantize_values(scheme, rows, &mut transposed_codes, value_scale, value_min)?;
            prop_assert_eq!(&scale, &value_scale);
            prop_assert_eq!(&min, &value_min);
            for (i, code) in transposed_codes.iter().enumerate() {
                prop_assert_eq!(*code, codes[i % tokens * head_dim + i / tokens]);
            }
        }
    }
}

#[test]
fn rows_further_apart_give_the_same_codes() -> Result<(), Error> {
    let (tokens, head_dim, stride) = (37, 48, 101);
    let data: Vec<f16> = (0..tokens * head_dim)
        .map(|i| f16::from_f32((i * i % 1009) as f32 / 50.0 - 9.0))
        .collect();
    let mut apart = vec![f16::NAN; (tokens - 1) * stride + head_dim];
    for (row, from) in apart.chunks_mut(stride).zip(data.chunks_exact(head_dim)) {
        row[..head_dim].copy_from_slice(from);
    }
    for scheme in schemes() {
        let run = |data: &[f16], stride| {
            let rows = Rows {
                data,
                tokens,
                head_dim,
                stride,
            };
            let (mut keys, mut values) = (vec![0; tokens * head_dim], vec![0; tokens * head_dim]);
            let (mut scale, mut min) = (vec![f16::ZERO; head_dim], vec![f16::ZERO; head_dim]);
            let (mut value_scale, mut value_min) =
                (vec![f16::ZERO; tokens * 3], vec![f16::ZERO; tokens * 3]);
            quantize_keys(scheme, rows, &mut keys, &mut scale, &mut min)?;
            quantize_values(scheme, rows, &mut values, &mut value_scale, &mut value_min)?;
            Ok::<_, Error>((keys, scale, min, values, value_scale, value_min))
        };
        assert_eq!(run(&data, head_dim)?, run(&apart, stride)?, "{scheme:?}");
    }
    Ok(())
}

#[test]
fn trap_8_constant_groups_nan_inf_extremes_and_subnormal_scales() {
    for scheme in schemes() {
        // A constant group comes back exactly, a zero of either sign as +0.
        for x in [
            f16::ZERO,
            f16::NEG_ZERO,
            f16::ONE,
            f16::from_f32(-3.3),
            f16::MAX,
            f16::MIN,
            f16::from_bits(1),
        ] {
            let found = quantise(scheme, &[x; 32]);
            assert_eq!(
                (found.codes, found.scale),
                (vec![0; 32], 0),
                "{scheme:?} {x}"
            );
            assert_eq!(found.min, (x + f16::ZERO).to_bits(), "{scheme:?} {x}");
        }
        // The widest range there is keeps a finite scale.
        let widest = quantise(scheme, &[f16::MIN, f16::MAX, f16::ZERO]);
        assert!(f16::from_bits(widest.scale).is_finite(), "{scheme:?}");
        // A range of one subnormal step has a scale that rounds to 0.
        let tiny = quantise(scheme, &[f16::ZERO, f16::from_bits(1)]);
        let top = match scheme.rounding {
            Rounding::Native => 0,
            Rounding::Half => scheme.bits.max_code(),
        };
        assert_eq!(
            (tiny.codes, tiny.scale, tiny.min),
            (vec![0, top], 0, 0),
            "{scheme:?}"
        );
        // What is not finite is for the cache to refuse; here it must do no harm.
        for bad in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
            for isa in Isa::available() {
                let mut data = vec![f16::ONE; 16 * 16];
                data[5 * 16 + 3] = bad;
                let rows = Rows {
                    data: &data,
                    tokens: 16,
                    head_dim: 16,
                    stride: 16,
                };
                let mut codes = vec![0; 256];
                let (mut scale, mut min) = ([f16::ZERO; 16], [f16::ZERO; 16]);
                quantize_keys_on(isa, scheme, rows, &mut codes, &mut scale, &mut min)
                    .expect("valid shapes");
                assert!(
                    codes.iter().all(|code| *code <= scheme.bits.max_code()),
                    "{scheme:?} {bad}"
                );
                let others = (0..16).filter(|channel| *channel != 3);
                assert!(
                    others
                        .clone()
                        .all(|channel| min[channel] == f16::ONE && scale[channel] == f16::ZERO)
                );
                quantize_values_on(isa, scheme, rows, &mut codes, &mut scale, &mut min)
                    .expect("valid shapes");
                assert!(
                    codes.iter().all(|code| *code <= scheme.bits.max_code()),
                    "{scheme:?} {bad}"
                );
            }
            let mut codes = [0; 2];
            quantize_group(scheme, &[bad.to_f32(), 1.0], &mut codes).expect("a valid group");
        }
    }
}

#[test]
fn trap_8_numbers_beyond_f16_saturate() {
    for bits in BITS {
        for scheme in [native(bits), clipped(bits)] {
            let mut codes = [0; 2];
            let group = quantize_group(scheme, &[-1e30, 1e30], &mut codes).expect("a valid group");
            assert_eq!((group.scale, group.min), (f16::MAX, f16::MIN), "{scheme:?}");
        }
    }
}

#[test]
fn trap_12_keys_are_quantised_per_channel_and_values_per_token() -> Result<(), Error> {
    let (tokens, head_dim) = (32, 64);
    let plain: Vec<f16> = (0..tokens * head_dim)
        .map(|i| f16::from_f32((i * 37 % 101) as f32 / 101.0))
        .collect();
    let (token, channel) = (11, 40);
    let mut outlier = plain.clone();
    outlier[token * head_dim + channel] = f16::from_f32(100.0);
    for scheme in schemes() {
        let run = |data: &[f16]| {
            let rows = Rows {
                data,
                tokens,
                head_dim,
                stride: head_dim,
            };
            let mut codes = vec![0; data.len()];
            let (mut scale, mut min) = (vec![f16::ZERO; head_dim], vec![f16::ZERO; head_dim]);
            quantize_keys(scheme, rows, &mut codes, &mut scale, &mut min)?;
            let (mut value_scale, mut value_min) =
                (vec![f16::ZERO; tokens * 2], vec![f16::ZERO; tokens * 2]);
            quantize_values(scheme, rows, &mut codes, &mut value_scale, &mut value_min)?;
            Ok::<_, Error>((scale, value_scale))
        };
        let ((keys, values), (outlier_keys, outlier_values)) = (run(&plain)?, run(&outlier)?);
        let changed =
            |a: &[f16], b: &[f16]| (0..a.len()).filter(|i| a[*i] != b[*i]).collect::<Vec<_>>();
        assert_eq!(changed(&keys, &outlier_keys), [channel]);
        assert_eq!(
            changed(&values, &outlier_values),
            [token * 2 + channel / 32]
        );
    }
    Ok(())
}

#[test]
fn dequantised_codes_are_multiples_of_the_scale_above_the_minimum() -> Result<(), Error> {
    let (scale, min) = (
        [f16::from_f32(0.5), f16::from_f32(2.0)],
        [f16::from_f32(-1.0), f16::from_f32(10.0)],
    );
    let codes = [0, 1, 2, 3];
    let mut out = [0.0; 4];
    dequantize_keys(&codes, &scale, &min, &mut out)?;
    assert_eq!(out, [-1.0, 12.0, 0.0, 16.0]);
    dequantize_values(&codes, &scale, &min, &mut out)?;
    assert_eq!(out, [-1.0, -0.5, 14.0, 16.0]);
    Ok(())
}

#[test]
fn wrong_lengths_and_schemes_are_errors_that_name_the_operation() {
    let data = vec![f16::ONE; 32 * 32];
    let rows = Rows {
        data: &data,
        tokens: 32,
        head_dim: 32,
        stride: 32,
    };
    let keys = |rows, codes: usize, scale: usize, min: usize| {
        let (mut codes, mut scale, mut min) =
            (vec![0; codes], vec![f16::ZERO; scale], vec![f16::ZERO; min]);
        quantize_keys(native(Bits::Two), rows, &mut codes, &mut scale, &mut min)
    };
    let values = |rows, codes: usize, scale: usize, min: usize| {
        let (mut codes, mut scale, mut min) =
            (vec![0; codes], vec![f16::ZERO; scale], vec![f16::ZERO; min]);
        quantize_values(native(Bits::Two), rows, &mut codes, &mut scale, &mut min)
    };
    assert!(keys(rows, 1024, 32, 32).is_ok());
    assert!(values(rows, 1024, 32, 32).is_ok());
    assert!(values(rows, 1024, 64, 64).is_ok());
    let long = vec![f16::ONE; 129 * 16];
    let bad = |tokens, head_dim, stride, data| Rows {
        data,
        tokens,
        head_dim,
        stride,
    };
    for (result, op) in [
        (keys(rows, 1023, 32, 32), "quantize_keys"),
        (keys(rows, 1024, 31, 32), "quantize_keys"),
        (keys(rows, 1024, 32, 33), "quantize_keys"),
        (keys(bad(0, 32, 32, &data), 0, 32, 32), "quantize_keys"),
        (
            keys(bad(129, 16, 16, &long), 129 * 16, 16, 16),
            "quantize_keys",
        ),
        (keys(bad(32, 32, 33, &data), 1024, 32, 32), "quantize_keys"),
        (keys(bad(32, 32, 31, &data), 1024, 32, 32), "quantize_keys"),
        (keys(bad(32, 24, 32, &data), 768, 24, 24), "quantize_keys"),
        (
            keys(bad(2, 32, usize::MAX, &data), 64, 32, 32),
            "quantize_keys",
        ),
        (values(rows, 1024, 0, 0), "quantize_values"),
        (values(rows, 1024, 128, 128), "quantize_values"),
        (values(rows, 1024, 32, 64), "quantize_values"),
        (values(rows, 1024, 16, 16), "quantize_values"),
        (values(rows, 1024, 33, 33), "quantize_values"),
    ] {
        match result {
            Err(Error::Shape { op: found, .. }) => assert_eq!(found, op),
            other => panic!("{op}: {other:?}"),
        }
    }
    for (values, codes) in [(0, 0), (129, 129), (3, 2)] {
        let result = quantize_group(native(Bits::Two), &vec![0.0; values], &mut vec![0; codes]);
        assert!(matches!(
            result,
            Err(Error::Shape {
                op: "quantize_group",
                ..
            })
        ));
    }
    let half_clip = Scheme {
        clip_search: true,
        ..half(Bits::Two)
    };
    let result = quantize_group(half_clip, &[1.0], &mut [0]);
    assert!(matches!(
        result,
        Err(Error::Argument {
            argument: "clip_search",
            ..
        })
    ));
    for (codes, scale, min, out) in [(4, 0, 0, 4), (4, 2, 1, 4), (4, 2, 2, 3), (5, 2, 2, 5)] {
        let (codes, mut out) = (vec![0; codes], vec![0.0; out]);
        let (scale, min) = (vec![f16::ONE; scale], vec![f16::ONE; min]);
        assert!(dequantize_keys(&codes, &scale, &min, &mut out).is_err());
        assert!(dequantize_values(&codes, &scale, &min, &mut out).is_err());
    }
}

#[test]
fn no_values_are_no_groups() -> Result<(), Error> {
    let rows = Rows {
        data: &[],
        tokens: 0,
        head_dim: 64,
        stride: 64,
    };
    quantize_values(native(Bits::Two), rows, &mut [], &mut [], &mut [])
}
