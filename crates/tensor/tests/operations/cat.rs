//! Concatenation.

use crate::oracle::{ALL, Tol, array, assert_close, assert_error, shape, strided};
use ndarray::{Axis, concatenate};
use proptest::prelude::*;
use whittle_tensor::{DType, Error, Tensor};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn cat_joins_any_layouts_along_any_dimension(shape in shape(1..=4), dim in 0usize..4, sizes in prop::collection::vec(0usize..5, 1..4), seed: u64, dtype in prop::sample::select(ALL.to_vec())) {
        let dim = dim % shape.len();
        let parts: Vec<Tensor> = sizes
            .iter()
            .enumerate()
            .map(|(i, &size)| {
                let mut shape = shape.clone();
                shape[dim] = size;
                strided(&shape, dtype, seed ^ i as u64)
            })
            .collect();
        let arrays: Vec<_> = parts.iter().map(array).collect();
        let expected = concatenate(Axis(dim), &arrays.iter().map(|x| x.view()).collect::<Vec<_>>()).unwrap();
        assert_close(&Tensor::cat(&parts.iter().collect::<Vec<_>>(), dim).unwrap(), &expected, &Tol::EXACT);
    }
}

#[test]
fn errors_name_the_operation_and_both_shapes_or_types() {
    let x = strided(&[2, 3], DType::F32, 0);
    assert_error(Tensor::cat(&[], 0), &["cat", "tensors"]);
    assert_error(
        Tensor::cat(&[&x, &strided(&[2, 4], DType::F32, 0)], 0),
        &["cat", "[2, 3]", "[2, 4]"],
    );
    assert_error(
        Tensor::cat(&[&x, &strided(&[2], DType::F32, 0)], 0),
        &["cat", "[2, 3]", "[2]"],
    );
    assert_error(
        Tensor::cat(&[&x, &strided(&[2, 3], DType::F16, 0)], 0),
        &["cat", "f32", "f16"],
    );
    assert_error(Tensor::cat(&[&x], 2), &["cat", "[2, 3]", "2"]);
}

#[test]
fn a_result_beyond_memory_is_an_error() {
    // A broadcast view takes no room; 2^50 bytes are beyond the address space of a process.
    let x = Tensor::scalar(0f32).broadcast_to(&[1 << 47]).unwrap();
    let error = Tensor::cat(&[&x, &x], 0).unwrap_err();
    assert_eq!(
        error,
        Error::Memory {
            op: "cat",
            bytes: 1 << 50
        }
    );
}
