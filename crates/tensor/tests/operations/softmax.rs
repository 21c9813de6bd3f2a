//! Softmax and its logarithm.

use crate::oracle::{FLOATS, Tol, array, assert_close, assert_error, shape, strided};
use ndarray::{ArrayD, Axis};
use proptest::prelude::*;
use whittle_tensor::{DType, Tensor};

/// Along an axis, by the definition without a shift: the test's values are small.
fn softmax(x: &ArrayD<f64>, dim: usize) -> ArrayD<f64> {
    let mut out = x.mapv(f64::exp);
    for mut lane in out.lanes_mut(Axis(dim)) {
        let sum = lane.sum();
        lane.mapv_inplace(|x| x / sum);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_dimension_of_any_layout_agrees_with_f64(shape in shape(1..=3), dim in 0usize..3, seed: u64, dtype in prop::sample::select(FLOATS.to_vec())) {
        let x = strided(&shape, dtype, seed);
        let dim = dim % shape.len();
        let expected = softmax(&array(&x), dim);
        let halves = matches!(dtype, DType::F16 | DType::BF16);
        let roundings = if halves { 1.01 } else { 24.0 };
        let tol = Tol::roundings(roundings, dtype).because("a difference up to 16, its exponential, a sum of a few dozen");
        let found = x.softmax(dim).unwrap();
        prop_assert!(found.layout().is_contiguous());
        assert_close(&found, &expected, &tol);
        let tol = Tol::roundings(roundings, dtype).plus(if halves { 1e-5 } else { 24.0 * crate::oracle::epsilon(dtype) });
        assert_close(&x.log_softmax(dim).unwrap(), &expected.mapv(f64::ln), &tol.because("the logarithm of a sum near 1 has an absolute error"));
    }

    #[test]
    fn a_shift_of_the_whole_row_changes_nothing_even_where_exponentials_overflow(len in 1usize..70, shift in prop::sample::select(vec![-1e4f32, 1e4]), seed: u64) {
        // Multiples of 1/16 stay exact when shifted.
        let x = strided(&[len], DType::F32, seed).mul_scalar(16.0).unwrap().to_dtype(DType::I32).unwrap();
        let x = x.to_dtype(DType::F32).unwrap().mul_scalar(1.0 / 16.0).unwrap();
        let shifted = x.add_scalar(f64::from(shift)).unwrap();
        prop_assert_eq!(shifted.softmax(0).unwrap().to_vec::<f32>().unwrap(), x.softmax(0).unwrap().to_vec::<f32>().unwrap());
    }
}

#[test]
fn minus_infinity_is_a_weight_of_zero_and_rows_without_a_distribution_are_nan() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for dtype in FLOATS {
        for len in [2, 17, 65] {
            let row = |first: [f32; 2], rest: f32| {
                let values = first
                    .into_iter()
                    .chain(std::iter::repeat_n(rest, len - 2))
                    .collect();
                Tensor::from_vec(values, &[len])
                    .unwrap()
                    .to_dtype(dtype)
                    .unwrap()
            };
            let masked = row([0.0, -inf], -inf);
            let expected: Vec<f64> = std::iter::once(1.0)
                .chain(std::iter::repeat_n(0.0, len - 1))
                .collect();
            assert_eq!(
                array(&masked.softmax(0).unwrap())
                    .into_raw_vec_and_offset()
                    .0,
                expected
            );
            let logs = array(&masked.log_softmax(0).unwrap());
            assert!(logs[0] == 0.0 && logs.iter().skip(1).all(|&x| x == f64::NEG_INFINITY));
            for bad in [
                row([-inf, -inf], -inf),
                row([nan, 0.0], 1.0),
                row([inf, 0.0], 1.0),
            ] {
                for result in [bad.softmax(0).unwrap(), bad.log_softmax(0).unwrap()] {
                    assert!(
                        array(&result)
                            .iter()
                            .skip(1)
                            .all(|x| x.is_nan() || *x == f64::NEG_INFINITY)
                    );
                    assert!(array(&result)[0].is_nan(), "{dtype} {len}");
                }
                assert!(
                    array(&bad.softmax(0).unwrap()).iter().all(|x| x.is_nan()),
                    "the whole row, {dtype} {len}"
                );
            }
        }
    }
}

#[test]
fn vocabulary_sized_rows_sum_to_one() {
    let x = strided(&[3, 49_152], DType::F32, 5);
    let sums = x.softmax(1).unwrap().sum(1).unwrap();
    // Two roundings each of 49152 terms partly cancel; a millionth is a tenth of what a sum in one chain would lose.
    assert!(
        sums.to_vec::<f32>()
            .unwrap()
            .iter()
            .all(|sum| (sum - 1.0).abs() < 1e-6),
        "{sums:?}"
    );
}

#[test]
fn errors_name_the_operation_and_the_shape() {
    assert_error(
        strided(&[2, 3], DType::F32, 0).softmax(2),
        &["softmax", "[2, 3]", "2"],
    );
    assert_error(
        strided(&[], DType::F32, 0).log_softmax(0),
        &["log_softmax", "[]"],
    );
    assert_error(strided(&[2], DType::I8, 0).softmax(0), &["softmax", "i8"]);
}
