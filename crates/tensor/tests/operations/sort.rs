//! Arg-sort and top-k.

use crate::oracle::{ALL, array, assert_error, shape, strided};
use ndarray::{ArrayD, Axis, IxDyn};
use proptest::prelude::*;
use whittle_tensor::{DType, Order, Tensor};

/// Few different values, so that there are ties.
fn with_ties(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    let coarse = strided(shape, DType::F32, seed)
        .to_dtype(DType::I8)
        .unwrap();
    let view = strided(shape, DType::F32, seed);
    if seed.is_multiple_of(2) {
        coarse.to_dtype(dtype).unwrap()
    } else {
        view.to_dtype(dtype).unwrap()
    }
}

/// Positions by insertion, one after the other: stable by construction.
fn sorted(lane: &[f64], order: Order) -> Vec<u32> {
    let mut out: Vec<u32> = Vec::new();
    for (i, &x) in lane.iter().enumerate() {
        let before = |&j: &u32| match order {
            Order::Ascending => lane[j as usize] <= x,
            Order::Descending => lane[j as usize] >= x,
        };
        let at = out.iter().rposition(before).map_or(0, |j| j + 1);
        out.insert(at, i as u32);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn arg_sort_is_stable_along_any_dimension(shape in shape(1..=3), dim in 0usize..3, seed: u64, dtype in prop::sample::select(ALL.to_vec())) {
        let x = with_ties(&shape, dtype, seed);
        let dim = dim % shape.len();
        for order in [Order::Ascending, Order::Descending] {
            let found = x.arg_sort(dim, order).unwrap();
            prop_assert_eq!(found.shape(), &shape[..]);
            let found = ArrayD::from_shape_vec(IxDyn(&shape), found.to_vec::<u32>().unwrap()).unwrap();
            let values = array(&x);
            for (positions, lane) in found.lanes(Axis(dim)).into_iter().zip(values.lanes(Axis(dim))) {
                prop_assert_eq!(positions.to_vec(), sorted(&lane.to_vec(), order));
            }
        }
    }

    #[test]
    fn top_k_is_the_head_of_the_descending_sort(shape in shape(1..=3), k in 0usize..70, seed: u64, dtype in prop::sample::select(ALL.to_vec())) {
        let x = with_ties(&shape, dtype, seed);
        let len = shape[shape.len() - 1];
        let k = k.min(len);
        let (values, positions) = x.top_k(k).unwrap();
        prop_assert_eq!((values.dtype(), positions.dtype()), (dtype, DType::U32));
        let expected = x.arg_sort(shape.len() - 1, Order::Descending).unwrap().narrow(shape.len() - 1, 0, k).unwrap();
        prop_assert_eq!(positions.shape(), expected.shape());
        prop_assert_eq!(positions.to_vec::<u32>().unwrap(), expected.to_vec::<u32>().unwrap());
        let (values, rows) = (array(&values), array(&x));
        let found = values.lanes(Axis(shape.len() - 1)).into_iter().zip(positions.to_vec::<u32>().unwrap().chunks(k.max(1)).map(<[u32]>::to_vec).collect::<Vec<_>>());
        for ((values, positions), row) in found.zip(rows.lanes(Axis(shape.len() - 1))) {
            prop_assert!(values.iter().zip(positions).all(|(&value, at)| value == row[at as usize]));
        }
    }
}

#[test]
fn nan_is_greater_than_any_number() {
    let x = Tensor::from_vec(
        vec![1f32, f32::NAN, f32::INFINITY, f32::NAN, -0.0, 0.0],
        &[6],
    )
    .unwrap();
    assert_eq!(
        x.arg_sort(0, Order::Ascending)
            .unwrap()
            .to_vec::<u32>()
            .unwrap(),
        [4, 5, 0, 2, 1, 3]
    );
    assert_eq!(
        x.arg_sort(0, Order::Descending)
            .unwrap()
            .to_vec::<u32>()
            .unwrap(),
        [1, 3, 2, 0, 4, 5]
    );
    assert_eq!(x.top_k(4).unwrap().1.to_vec::<u32>().unwrap(), [1, 3, 2, 0]);
}

#[test]
fn top_k_finds_the_last_of_a_long_ascending_row() {
    // Every element replaces a kept one: the worst case of passing over.
    let x = Tensor::from_vec((0..10_000u32).collect(), &[10_000]).unwrap();
    let (values, positions) = x.top_k(3).unwrap();
    assert_eq!(values.to_vec::<u32>().unwrap(), [9999, 9998, 9997]);
    assert_eq!(positions.to_vec::<u32>().unwrap(), [9999, 9998, 9997]);
}

#[test]
fn errors_name_the_operation_and_the_shape() {
    let x = strided(&[2, 3], DType::F32, 0);
    assert_error(x.top_k(4), &["top_k", "[2, 3]", "4"]);
    assert_error(Tensor::scalar(0f32).top_k(0), &["top_k", "[]"]);
    assert_error(
        x.arg_sort(2, Order::Ascending),
        &["arg_sort", "[2, 3]", "2"],
    );
}
