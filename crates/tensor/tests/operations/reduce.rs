//! Reductions.

use crate::oracle::{ALL, FLOATS, Tol, array, assert_close, assert_error, shape, strided};
use ndarray::{ArrayD, Axis};
use proptest::prelude::*;
use whittle_tensor::{DType, Tensor};

fn along(x: &ArrayD<f64>, dim: usize, f: impl Fn(&[f64]) -> f64) -> ArrayD<f64> {
    x.map_axis(Axis(dim), |lane| f(&lane.to_vec()))
}

/// The first position of the greatest.
fn argmax(lane: &[f64]) -> f64 {
    let greatest = lane.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    lane.iter().position(|&x| x == greatest).unwrap() as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn sums_and_means_of_any_dimension_agree_with_f64(shape in shape(1..=4), dim in 0usize..4, seed: u64, dtype in prop::sample::select(FLOATS.to_vec())) {
        let x = strided(&shape, dtype, seed);
        let dim = dim % shape.len();
        // The f64 sums of test and crate differ in order; 1e-12 is 100 roundings of a sum of 65 numbers below 10.
        let tol = Tol::roundings(1.01, dtype).plus(1e-12).because("added up in f64 and rounded once");
        assert_close(&x.sum(dim).unwrap(), &along(&array(&x), dim, |lane| lane.iter().sum()), &tol);
        let mean = along(&array(&x), dim, |lane| lane.iter().sum::<f64>() / lane.len() as f64);
        assert_close(&x.mean(dim).unwrap(), &mean, &tol);
    }

    #[test]
    fn extremes_of_any_dimension_are_exact(shape in shape(1..=4), dim in 0usize..4, seed: u64, dtype in prop::sample::select(ALL.to_vec())) {
        let x = strided(&shape, dtype, seed);
        let dim = dim % shape.len();
        if shape[dim] == 0 {
            assert_error(x.max(dim), &["max", &format!("{shape:?}")]);
            assert_error(x.min(dim), &["min", &format!("{shape:?}")]);
            assert_error(x.argmax(dim), &["argmax", &format!("{shape:?}")]);
            return Ok(());
        }
        let values = array(&x);
        let max = along(&values, dim, |lane| lane.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        let min = along(&values, dim, |lane| lane.iter().copied().fold(f64::INFINITY, f64::min));
        assert_close(&x.max(dim).unwrap(), &max, &Tol::EXACT);
        assert_close(&x.min(dim).unwrap(), &min, &Tol::EXACT);
        let found = x.argmax(dim).unwrap();
        prop_assert_eq!(found.dtype(), DType::U32);
        assert_close(&found, &along(&values, dim, argmax), &Tol::EXACT);
    }
}

#[test]
fn nan_is_the_greatest_and_the_least() {
    let x = Tensor::from_vec(vec![1f32, f32::NAN, 3.0, f32::NAN, 2.0, 0.0], &[2, 3]).unwrap();
    for dim in [0, 1] {
        let (max, min) = (x.max(dim).unwrap(), x.min(dim).unwrap());
        let lanes = array(&x).map_axis(Axis(dim), |lane| lane.iter().any(|x| x.is_nan()));
        assert_eq!(array(&max).mapv(f64::is_nan), lanes);
        assert_eq!(array(&min).mapv(f64::is_nan), lanes);
    }
    assert_eq!(x.argmax(1).unwrap().to_vec::<u32>().unwrap(), [1, 0]);
}

#[test]
fn a_long_sum_is_rounded_once() {
    // One chain of f32 additions would stop at 2^24.
    let ones = Tensor::scalar(1f32).broadcast_to(&[1 << 25, 1]).unwrap();
    assert_eq!(
        ones.sum(0).unwrap().to_vec::<f32>().unwrap(),
        [(1u32 << 25) as f32]
    );
}

#[test]
fn an_empty_sum_is_zero_and_an_empty_mean_nan() {
    let x = Tensor::from_vec(Vec::<f32>::new(), &[2, 0]).unwrap();
    assert_eq!(x.sum(1).unwrap().to_vec::<f32>().unwrap(), [0.0, 0.0]);
    assert!(
        x.mean(1)
            .unwrap()
            .to_vec::<f32>()
            .unwrap()
            .iter()
            .all(|x| x.is_nan())
    );
    assert_eq!(x.max(0).unwrap().shape(), [0]);
}

#[test]
fn errors_name_the_operation_and_the_shape() {
    assert_error(
        strided(&[2, 3], DType::F32, 0).sum(2),
        &["sum", "[2, 3]", "2"],
    );
    assert_error(strided(&[2, 3], DType::I8, 0).mean(0), &["mean", "i8"]);
    assert_error(
        strided(&[2, 3], DType::I8, 0).argmax(5),
        &["argmax", "[2, 3]", "5"],
    );
}
