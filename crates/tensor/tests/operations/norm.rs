//! Normalisation of rows.

use crate::oracle::{FLOATS, Tol, array, assert_close, assert_error, epsilon, shape, strided};
use ndarray::{ArrayD, Axis};
use proptest::prelude::*;
use whittle_tensor::DType;

const EPS: f32 = 1e-5;

fn norm(x: &ArrayD<f64>, weight: &ArrayD<f64>, bias: &ArrayD<f64>, centre: bool) -> ArrayD<f64> {
    let mut out = x.clone();
    for mut row in out.lanes_mut(Axis(x.ndim() - 1)) {
        let len = row.len() as f64;
        let mean = if centre { row.sum() / len } else { 0.0 };
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / len;
        let scale = (variance + f64::from(EPS)).sqrt();
        row.iter_mut()
            .zip(weight)
            .zip(bias)
            .for_each(|((x, w), b)| *x = (*x - mean) / scale * w + b);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn norms_of_any_layout_agree_with_f64(shape in shape(1..=3), seeds: (u64, u64, u64), dtype in prop::sample::select(FLOATS.to_vec())) {
        let d = shape[shape.len() - 1];
        let x = strided(&shape, dtype, seeds.0);
        let (weight, bias) = (strided(&[d], dtype, seeds.1), strided(&[d], dtype, seeds.2));
        let (x_values, w, b) = (array(&x), array(&weight), array(&bias));
        let halves = matches!(dtype, DType::F16 | DType::BF16);
        let work = if halves { DType::F32 } else { dtype };

        let expected = norm(&x_values, &w, &b.mapv(|_| 0.0), false);
        let tol = Tol::roundings(if halves { 1.01 } else { 16.0 }, dtype).because("a mean of positive terms, a root, a quotient, two products");
        assert_close(&x.rms_norm(&weight, EPS).unwrap(), &expected, &tol);

        // Where a row hardly varies (one element, or a broadcast dimension), x − mean is rounding noise over √eps.
        let expected = norm(&x_values, &w, &b, true);
        let tol = Tol::roundings(if halves { 1.01 } else { 16.0 }, dtype).plus(5e4 * epsilon(work));
        assert_close(&x.layer_norm(&weight, &bias, EPS).unwrap(), &expected, &tol.because("a difference of up to 10 is divided by at least √eps"));
    }
}

#[test]
fn a_wide_row_of_model_size_is_as_accurate_as_a_short_one() {
    let (x, weight, bias) = (
        strided(&[7, 576], DType::F32, 2),
        strided(&[576], DType::F32, 3),
        strided(&[576], DType::F32, 5),
    );
    let expected = norm(&array(&x), &array(&weight), &array(&bias), true);
    let tol = Tol::roundings(8.0, DType::F32).plus(16.0 * epsilon(DType::F32));
    assert_close(
        &x.layer_norm(&weight, &bias, EPS).unwrap(),
        &expected,
        &tol.because("elements and bias of a few units cancel"),
    );
}

#[test]
fn errors_name_the_operation_and_both_shapes_or_types() {
    let x = strided(&[2, 3], DType::F32, 0);
    let right = strided(&[3], DType::F32, 0);
    assert_error(
        x.rms_norm(&strided(&[4], DType::F32, 0), EPS),
        &["rms_norm", "[2, 3]", "[4]"],
    );
    assert_error(
        x.rms_norm(&strided(&[3], DType::F16, 0), EPS),
        &["rms_norm", "f32", "f16"],
    );
    assert_error(
        x.layer_norm(&right, &strided(&[2], DType::F32, 0), EPS),
        &["layer_norm", "[2, 3]", "[2]"],
    );
    assert_error(
        strided(&[], DType::F32, 0).rms_norm(&right, EPS),
        &["rms_norm", "[]"],
    );
    assert_error(
        strided(&[3], DType::I32, 0).rms_norm(&right, EPS),
        &["rms_norm", "i32"],
    );
}
