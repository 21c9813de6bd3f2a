//! Conversions between dtypes.

use crate::oracle::{ALL, Tol, array, assert_close, shape, strided};
use proptest::prelude::*;
use whittle_tensor::{DType, Tensor};

/// The nearest number with `digits` binary digits, none below `2^least`, ties to even: by division and multiplication, both exact.
fn nearest(x: f64, digits: i32, least: i32, greatest: f64) -> f64 {
    let exponent = if x == 0.0 {
        least
    } else {
        (x.abs().log2().floor() as i32 + 1 - digits).max(least)
    };
    let unit = 2f64.powi(exponent);
    let rounded = (x / unit).round_ties_even() * unit;
    if rounded.abs() > greatest {
        f64::INFINITY.copysign(x)
    } else {
        rounded
    }
}

/// What one number becomes.
fn converted(x: f64, to: DType) -> f64 {
    match to {
        DType::F64 => x,
        DType::F32 => f64::from(x as f32),
        DType::F16 => nearest(x, 11, -24, 65_504.0),
        DType::BF16 => nearest(x, 8, -133, f64::from(f32::MAX)),
        DType::U32 => f64::from(x as u32),
        DType::I32 => f64::from(x as i32),
        DType::U8 => f64::from(x as u8),
        DType::I8 => f64::from(x as i8),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_pair_of_types_converts_any_layout(shape in shape(0..=3), seed: u64) {
        for from in ALL {
            let x = strided(&shape, from, seed);
            for to in ALL {
                let found = x.to_dtype(to).unwrap();
                prop_assert_eq!(found.dtype(), to);
                assert_close(&found, &array(&x).mapv(|x| converted(x, to)), &Tol::EXACT);
            }
        }
    }
}

#[test]
fn integers_saturate_and_nan_becomes_zero() {
    let x = Tensor::from_vec(
        vec![
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            300.7,
            -300.7,
            -0.9,
        ],
        &[6],
    )
    .unwrap();
    let of = |dtype| {
        array(&x.to_dtype(dtype).unwrap())
            .into_raw_vec_and_offset()
            .0
    };
    assert_eq!(of(DType::U8), [0.0, 255.0, 0.0, 255.0, 0.0, 0.0]);
    assert_eq!(of(DType::I8), [0.0, 127.0, -128.0, 127.0, -128.0, 0.0]);
    assert_eq!(
        of(DType::U32),
        [0.0, f64::from(u32::MAX), 0.0, 300.0, 0.0, 0.0]
    );
    assert_eq!(
        of(DType::I32),
        [
            0.0,
            f64::from(i32::MAX),
            f64::from(i32::MIN),
            300.0,
            -300.0,
            0.0
        ]
    );
}

#[test]
fn halves_keep_special_values_and_overflow_to_infinity() {
    let x = Tensor::from_vec(
        vec![
            f32::NAN,
            f32::INFINITY,
            -f32::INFINITY,
            1e30,
            65_520.0,
            1e-8,
            f32::MAX,
        ],
        &[7],
    )
    .unwrap();
    let f16 = array(&x.to_dtype(DType::F16).unwrap())
        .into_raw_vec_and_offset()
        .0;
    assert!(f16[0].is_nan());
    assert_eq!(
        f16[1..],
        [
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::INFINITY,
            f64::INFINITY,
            0.0,
            f64::INFINITY
        ]
    );
    let bf16 = array(&x.to_dtype(DType::BF16).unwrap())
        .into_raw_vec_and_offset()
        .0;
    assert!(bf16[0].is_nan());
    assert_eq!(bf16[1..3], [f64::INFINITY, f64::NEG_INFINITY]);
    assert_eq!(bf16[6], f64::INFINITY);
}

#[test]
fn f64_to_half_is_rounded_once() {
    // A hair beyond the tie between two neighbours: rounded to f32 first, it would be the tie itself and go down to even.
    for (dtype, digits) in [(DType::F16, 11), (DType::BF16, 8)] {
        let unit = 2f64.powi(1 - digits);
        for hair in [-2f64.powi(-50), 0.0, 2f64.powi(-50)] {
            let x = Tensor::from_vec(
                vec![1.0 + 0.5 * unit + hair, -1.0 - 1.5 * unit - hair],
                &[2],
            )
            .unwrap();
            let expected = if hair > 0.0 {
                [1.0 + unit, -1.0 - 2.0 * unit]
            } else {
                [1.0, -1.0 - 2.0 * unit]
            };
            let expected = if hair < 0.0 {
                [1.0, -1.0 - unit]
            } else {
                expected
            };
            assert_eq!(
                array(&x.to_dtype(dtype).unwrap())
                    .into_raw_vec_and_offset()
                    .0,
                expected,
                "{dtype} {hair}"
            );
        }
    }
}

#[test]
fn a_tensor_of_the_wanted_type_is_itself() {
    for dtype in ALL {
        let x = strided(&[3, 5], dtype, 4);
        assert!(x.to_dtype(dtype).unwrap().shares_storage(&x));
        assert_eq!(dtype.to_string(), dtype.name());
    }
}
