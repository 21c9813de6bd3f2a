//! Views and layouts.

use crate::oracle::{ALL, Tol, array, assert_close, assert_error, shape, strided};
use ndarray::{ArrayD, IxDyn, Slice};
use proptest::prelude::*;
use whittle_tensor::{DType, Layout, Tensor};

/// A tensor whose element `i` in storage order is `i`, and the same as an array.
fn counted(shape: &[usize]) -> (Tensor, ArrayD<f64>) {
    let len: usize = shape.iter().product();
    let tensor = Tensor::from_vec((0..len).map(|i| i as f64).collect(), shape).unwrap();
    (
        tensor,
        ArrayD::from_shape_vec(IxDyn(shape), (0..len).map(|i| i as f64).collect()).unwrap(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_chain_of_views_shows_what_ndarray_shows(shape in shape(1..=4), steps in prop::collection::vec((0u8..5, any::<u32>(), any::<u32>()), 0..6)) {
        let (mut tensor, mut expected) = counted(&shape);
        let storage = tensor.clone();
        for (kind, a, b) in steps {
            let (rank, a, b) = (tensor.rank(), a as usize, b as usize);
            match kind {
                0 => {
                    tensor = tensor.transpose(a % rank, b % rank).unwrap();
                    expected.swap_axes(a % rank, b % rank);
                }
                1 => {
                    let size = tensor.shape()[a % rank];
                    let start = b % (size + 1);
                    let len = (size - start).min(a % 7);
                    tensor = tensor.narrow(a % rank, start, len).unwrap();
                    expected.slice_axis_inplace(ndarray::Axis(a % rank), Slice::from(start..start + len));
                }
                2 if rank < 6 => {
                    tensor = tensor.unsqueeze(a % (rank + 1)).unwrap();
                    expected = expected.insert_axis(ndarray::Axis(a % (rank + 1)));
                }
                3 if tensor.shape()[a % rank] == 1 => {
                    let mut wide = tensor.shape().to_vec();
                    wide[a % rank] = b % 4;
                    tensor = tensor.broadcast_to(&wide).unwrap();
                    expected = expected.broadcast(IxDyn(&wide)).unwrap().to_owned();
                }
                _ => {
                    let order: Vec<usize> = (0..rank).map(|dim| (dim + a) % rank).collect();
                    tensor = tensor.permute(&order).unwrap();
                    expected = expected.permuted_axes(order);
                }
            }
            prop_assert!(tensor.shares_storage(&storage));
            assert_close(&tensor, &expected, &Tol::EXACT);
            prop_assert_eq!(tensor.layout().is_empty(), tensor.is_empty());
            let copy = tensor.contiguous().unwrap();
            prop_assert!(copy.layout().is_contiguous());
            assert_close(&copy, &expected, &Tol::EXACT);
        }
    }

    #[test]
    fn reshape_keeps_the_order_of_the_elements(shape in shape(0..=4), seed: u64, cut in 1usize..9) {
        let x = strided(&shape, DType::F32, seed);
        let flat = x.reshape(&[x.len()]).unwrap();
        prop_assert_eq!(flat.to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
        if x.len().is_multiple_of(cut) {
            let cut_shape = [cut, 1, x.len() / cut];
            let reshaped = x.reshape(&cut_shape).unwrap();
            prop_assert_eq!(reshaped.shape(), cut_shape);
            prop_assert_eq!(reshaped.to_vec::<f32>().unwrap(), flat.to_vec::<f32>().unwrap());
        }
        prop_assert_eq!(flat.reshape(&shape).unwrap().to_vec::<f32>().unwrap(), flat.to_vec::<f32>().unwrap());
    }
}

#[test]
fn reshape_copies_only_where_strides_cannot_say_it() {
    let (x, _) = counted(&[4, 6, 5]);
    let shared = |view: &Tensor, shape: &[usize]| view.reshape(shape).unwrap().shares_storage(&x);
    assert!(shared(&x, &[2, 2, 30]));
    assert!(
        shared(&x.narrow(1, 1, 3).unwrap(), &[2, 2, 15]),
        "dimensions on either side of a gap"
    );
    assert!(
        !shared(&x.narrow(1, 1, 3).unwrap(), &[12, 5]),
        "a dimension across a gap"
    );
    assert!(shared(&x.transpose(0, 1).unwrap(), &[3, 2, 4, 5]));
    assert!(!shared(&x.transpose(0, 1).unwrap(), &[24, 5]));
    assert!(shared(&x.narrow(2, 0, 1).unwrap(), &[24]), "one even step");
    assert!(shared(
        &x.narrow(2, 0, 1).unwrap().broadcast_to(&[4, 6, 3]).unwrap(),
        &[24, 3]
    ));
    assert!(shared(
        &x.narrow(2, 0, 1).unwrap().unsqueeze(0).unwrap(),
        &[8, 1, 3]
    ));
}

#[test]
fn contiguous_and_to_vec_take_every_dtype_and_copy_nothing_that_lies_well() {
    for dtype in ALL {
        let x = Tensor::from_vec((0..24).map(f64::from).collect(), &[4, 6])
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        let rows = x.narrow(0, 1, 2).unwrap();
        assert!(rows.contiguous().unwrap().shares_storage(&x));
        let columns = x.narrow(1, 1, 2).unwrap();
        let copy = columns.contiguous().unwrap();
        assert!(!copy.shares_storage(&x));
        assert_eq!(array(&copy), array(&columns));
        assert_eq!(copy.storage_bytes(), 8 * dtype.size_in_bytes());
    }
}

#[test]
fn errors_name_the_operation_and_the_shape() {
    let (x, _) = counted(&[4, 6]);
    assert_error(x.narrow(0, 3, 2), &["narrow", "[4, 6]", "3 + 2"]);
    assert_error(x.narrow(0, usize::MAX, 2), &["narrow", "[4, 6]"]);
    assert_error(x.narrow(2, 0, 0), &["narrow", "[4, 6]", "2"]);
    assert_error(x.transpose(0, 2), &["transpose", "[4, 6]", "2"]);
    assert_error(x.permute(&[0, 0]), &["permute", "[4, 6]", "[0, 0]"]);
    assert_error(x.permute(&[0]), &["permute", "[4, 6]", "[0]"]);
    assert_error(
        x.broadcast_to(&[4, 7]),
        &["broadcast_to", "[4, 6]", "[4, 7]"],
    );
    assert_error(x.broadcast_to(&[6]), &["broadcast_to", "[4, 6]", "[6]"]);
    assert_error(
        x.broadcast_to(&[usize::MAX, 4, 6]),
        &["broadcast_to", "usize"],
    );
    assert_error(x.reshape(&[5, 5]), &["reshape", "24", "[4, 6]", "[5, 5]"]);
    assert_error(x.unsqueeze(3), &["unsqueeze", "[4, 6]", "3"]);
    assert_error(x.squeeze(0), &["squeeze", "[4, 6]", "0"]);
    assert_error(x.squeeze(2), &["squeeze", "[4, 6]", "2"]);
    assert_error(Layout::contiguous(&[usize::MAX, 0, 2]), &["usize"]);
}
