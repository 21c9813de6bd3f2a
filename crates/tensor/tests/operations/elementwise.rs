//! Operations element by element.

use crate::oracle::{FLOATS, Tol, array, assert_close, assert_error, shape, strided};
use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;
use whittle_tensor::{DType, Result, Tensor};

type Unary = (fn(&Tensor) -> Result<Tensor>, fn(f64) -> f64);
type Binary = (fn(&Tensor, &Tensor) -> Result<Tensor>, fn(f64, f64) -> f64);

const UNARY: [Unary; 13] = [
    (Tensor::neg, |x| -x),
    (Tensor::exp, f64::exp),
    (Tensor::ln, f64::ln),
    (Tensor::sqrt, f64::sqrt),
    (Tensor::tanh, f64::tanh),
    (Tensor::sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
    (Tensor::silu, |x| x / (1.0 + (-x).exp())),
    (Tensor::relu, |x| x.max(0.0)),
    (Tensor::gelu_erf, |x| x * normal_cdf(x)),
    (Tensor::gelu_tanh, |x| {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
    }),
    (|x| x.add_scalar(0.5), |x| x + 0.5),
    (|x| x.mul_scalar(-3.0), |x| x * -3.0),
    (|x| x.mul_scalar(0.0), |x| x * 0.0),
];

const BINARY: [Binary; 4] = [
    (Tensor::add, |a, b| a + b),
    (Tensor::sub, |a, b| a - b),
    (Tensor::mul, |a, b| a * b),
    (Tensor::div, |a, b| a / b),
];

/// Φ(x) as the integral of the density over the lower tail (the upper by symmetry), by Gauss's rule with five points in each of
/// 64 panels: no series, no fraction.
fn normal_cdf(x: f64) -> f64 {
    let root = |sign: f64| (5.0 + sign * 2.0 * (10.0f64 / 7.0).sqrt()).sqrt() / 3.0;
    let weight = |sign: f64| (322.0 + sign * 13.0 * 70f64.sqrt()) / 900.0;
    let points = [
        (0.0, 128.0 / 225.0),
        (root(-1.0), weight(1.0)),
        (-root(-1.0), weight(1.0)),
        (root(1.0), weight(-1.0)),
        (-root(1.0), weight(-1.0)),
    ];
    let half = 12.0 / 128.0;
    let panel = |centre: f64| -> f64 {
        let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
        points
            .iter()
            .map(|(point, weight)| weight * density(centre + half * point))
            .sum::<f64>()
            * half
    };
    let tail: f64 = (0..64)
        .map(|i| panel(-x.abs() - 12.0 + f64::from(2 * i + 1) * half))
        .sum();
    if x < 0.0 { tail } else { 1.0 - tail }
}

fn tolerance(dtype: DType) -> Tol {
    let halves = matches!(dtype, DType::F16 | DType::BF16);
    // The absolute part is for 1 + tanh of the oracle's own formula, which cancels in the negative tail of gelu_tanh.
    Tol::roundings(if halves { 1.01 } else { 32.0 }, dtype)
        .plus(if halves {
            1e-6
        } else {
            4.0 * crate::oracle::epsilon(dtype)
        })
        .because(
            "e^x to 1 ulp, its argument rounded, and a few operations; halves are rounded once",
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn functions_of_one_element_agree_with_f64(shape in shape(0..=3), seed: u64, dtype in prop::sample::select(FLOATS.to_vec())) {
        let x = strided(&shape, dtype, seed);
        for (op, oracle) in UNARY {
            let found = op(&x).unwrap();
            prop_assert_eq!(found.dtype(), dtype);
            prop_assert!(found.layout().is_contiguous());
            assert_close(&found, &array(&x).mapv(oracle), &tolerance(dtype));
        }
    }

    #[test]
    fn operands_broadcast_as_in_ndarray(
        shape in shape(0..=4),
        masks: (u8, u8),
        drop in 0usize..4,
        seeds: (u64, u64),
        dtype in prop::sample::select(FLOATS.to_vec()),
    ) {
        let ones = |mask: u8| -> Vec<usize> {
            shape.iter().enumerate().map(|(dim, &size)| if mask >> dim & 1 == 1 { 1 } else { size }).collect()
        };
        let a = strided(&ones(masks.0), dtype, seeds.0);
        // The second operand also lacks outer dimensions.
        let b_shape = ones(masks.1);
        let b = strided(&b_shape[drop.min(shape.len())..], dtype, seeds.1);
        let (a_values, b_values) = (array(&a), array(&b));
        for (op, oracle) in BINARY {
            let found = op(&a, &b).unwrap();
            let whole = IxDyn(found.shape());
            let (wide_a, wide_b) = (a_values.broadcast(whole.clone()).unwrap(), b_values.broadcast(whole.clone()).unwrap());
            let in_range = |x: f64| if dtype == DType::F16 && x.abs() >= 65_520.0 { f64::INFINITY.copysign(x) } else { x };
            let expected: Vec<f64> = wide_a.iter().zip(&wide_b).map(|(&a, &b)| in_range(oracle(a, b))).collect();
            let expected = ArrayD::from_shape_vec(whole, expected).unwrap();
            assert_close(&found, &expected, &Tol::roundings(1.01, dtype).because("one rounding (in halves after one in f32)"));
        }
    }
}

#[test]
fn the_relative_error_of_f32_functions_is_a_few_ulp_over_their_whole_range() {
    let x: Vec<f32> = (-140_000..=140_000).map(|i| i as f32 * 1e-4).collect();
    let x = Tensor::from_vec(x, &[280_001]).unwrap();
    // gelu_erf in steps of a hundred: its oracle is an integral.
    let coarse: Vec<f32> = (-1400..=1400).map(|i| i as f32 * 0.009_7).collect();
    let coarse = Tensor::from_vec(coarse, &[2801]).unwrap();
    let cases: [(&Tensor, Unary, f64, &str); 5] = [
        (&x, UNARY[1], 2.0, "1 ulp is up to two roundings"),
        (
            &x,
            UNARY[4],
            4.0,
            "a difference of 1 and a quotient that is above one half",
        ),
        (&x, UNARY[5], 4.0, "exponential, sum and quotient"),
        (&x, UNARY[6], 4.0, "exponential, sum and quotient"),
        (
            &coarse,
            UNARY[8],
            16.0,
            "a polynomial to 2.5e-8, an exponential of a rounded square, four products",
        ),
    ];
    for (x, (op, oracle), roundings, reason) in cases {
        let tol = Tol::roundings(roundings, DType::F32).because(reason);
        // Results that are denormal in f32 have fewer digits.
        assert_close(
            &op(x).unwrap(),
            &array(x).mapv(oracle),
            &tol.plus(f64::from(f32::MIN_POSITIVE)),
        );
    }
}

#[test]
fn special_values_go_through_as_in_ieee_754() {
    let x = Tensor::from_vec(
        vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0],
        &[5],
    )
    .unwrap();
    for dtype in FLOATS {
        let x = x.to_dtype(dtype).unwrap();
        let values =
            |op: fn(&Tensor) -> Result<Tensor>| array(&op(&x).unwrap()).into_raw_vec_and_offset().0;
        assert!(
            UNARY.iter().all(|(op, _)| values(*op)[0].is_nan()),
            "NaN stays NaN in {dtype}"
        );
        assert_eq!(values(Tensor::exp)[1..], [f64::INFINITY, 0.0, 1.0, 1.0]);
        assert_eq!(values(Tensor::tanh)[1..], [1.0, -1.0, 0.0, 0.0]);
        assert!(values(Tensor::tanh)[4].is_sign_negative());
        assert_eq!(values(Tensor::sigmoid)[1..], [1.0, 0.0, 0.5, 0.5]);
        assert_eq!(values(Tensor::relu)[1..], [f64::INFINITY, 0.0, 0.0, 0.0]);
        assert_eq!(values(Tensor::silu)[1], f64::INFINITY);
        assert_eq!(values(Tensor::gelu_erf)[1], f64::INFINITY);
        assert_eq!(values(Tensor::ln)[3], f64::NEG_INFINITY);
    }
}

#[test]
fn errors_name_the_operation_and_both_shapes_or_types() {
    let a = strided(&[2, 3], DType::F32, 1);
    assert_error(
        a.add(&strided(&[2, 4], DType::F32, 1)),
        &["add", "[2, 3]", "[2, 4]"],
    );
    assert_error(
        a.mul(&strided(&[2, 3], DType::F16, 1)),
        &["mul", "f32", "f16"],
    );
    assert_error(strided(&[2], DType::U8, 1).silu(), &["silu", "u8"]);
    assert_error(
        strided(&[2], DType::I32, 1).div(&strided(&[2], DType::I32, 1)),
        &["div", "i32"],
    );
    let long = Tensor::scalar(1f32).broadcast_to(&[1 << 40, 1]).unwrap();
    assert_error(
        long.add(&Tensor::scalar(1f32).broadcast_to(&[1 << 40]).unwrap()),
        &["add", "1099511627776"],
    );
}
