//! Sparse matrices.

use crate::oracle::{FLOATS, Tol, array, assert_close, assert_error, epsilon, size, strided};
use ndarray::{Array2, Ix2};
use proptest::prelude::*;
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{Csr, DType};

/// About two entries a row, columns repeated now and then, rows without entries.
fn graph(rows: usize, cols: usize, valued: bool, seed: u64) -> (Csr, Array2<f64>) {
    let mut random = Philox4x32::new(seed, 5);
    let mut dense = Array2::zeros((rows, cols));
    let (mut indptr, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
    for row in 0..rows {
        let degree = if cols == 0 { 0 } else { random.next_u32() % 5 };
        for _ in 0..degree {
            let column = random.next_u32() % cols as u32;
            let value = if valued { random.next_normal() } else { 1.0 };
            indices.push(column);
            values.push(value);
            dense[[row, column as usize]] += f64::from(value);
        }
        indptr.push(indices.len());
    }
    (
        Csr::new(cols, indptr, indices, valued.then_some(values)).unwrap(),
        dense,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn spmm_is_the_product_with_the_dense_matrix(rows in size(), cols in size(), d in size(), valued: bool, seed: u64, dtype in prop::sample::select(FLOATS.to_vec())) {
        let (sparse, dense) = graph(rows, cols, valued, seed);
        let x = strided(&[cols, d], dtype, seed);
        let expected = dense.dot(&array(&x).into_dimensionality::<Ix2>().unwrap()).into_dyn();
        let work = if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype };
        let tol = Tol::roundings(1.01, dtype).plus(200.0 * epsilon(work)).because("at most 4 products of at most 40");
        assert_close(&sparse.spmm(&x).unwrap(), &expected, &tol);
        prop_assert_eq!((sparse.rows(), sparse.cols()), (rows, cols));
        prop_assert_eq!(sparse.values().is_some(), valued);
        prop_assert_eq!(sparse.indptr().last(), Some(&sparse.indices().len()));
    }
}

#[test]
fn malformed_matrices_are_errors() {
    assert_error(Csr::new(3, vec![], vec![], None), &["Csr::new", "indptr"]);
    assert_error(
        Csr::new(3, vec![1, 1], vec![0], None),
        &["Csr::new", "indptr"],
    );
    assert_error(
        Csr::new(3, vec![0, 2], vec![0], None),
        &["Csr::new", "indptr", "2"],
    );
    assert_error(
        Csr::new(3, vec![0, 2, 1], vec![0], None),
        &["Csr::new", "indptr", "2", "1"],
    );
    assert_error(
        Csr::new(3, vec![0, 1], vec![3], None),
        &["Csr::new", "indices", "3"],
    );
    assert_error(
        Csr::new(3, vec![0, 1], vec![2], Some(vec![])),
        &["Csr::new", "values", "0"],
    );
}

#[test]
fn errors_name_the_operation_and_both_shapes() {
    let (sparse, _) = graph(4, 3, true, 1);
    assert_error(
        sparse.spmm(&strided(&[4, 2], DType::F32, 0)),
        &["spmm", "[4, 3]", "[4, 2]"],
    );
    assert_error(
        sparse.spmm(&strided(&[3], DType::F32, 0)),
        &["spmm", "[4, 3]", "[3]"],
    );
    assert_error(
        sparse.spmm(&strided(&[3, 1], DType::U8, 0)),
        &["spmm", "u8"],
    );
}
