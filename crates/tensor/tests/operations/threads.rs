//! Work that is large enough for several threads gives the bits that one thread gives, and the one that the oracle checks on
//! small inputs.

use crate::oracle::{array, strided};
use whittle_tensor::{Csr, DType, Order, Pairing, Result, Tensor};

type Operation = Box<dyn Fn() -> Result<Tensor> + Send + Sync>;

/// Every operation that may go to several threads, on inputs beyond the threshold in odd sizes and with gaps.
fn operations() -> Vec<(&'static str, Operation)> {
    // Seeds whose layouts have gaps and permuted dimensions.
    let layout = |shape: &[usize], mut seed: u64| loop {
        let x = strided(shape, DType::F32, seed);
        if !x.layout().is_contiguous() {
            return x;
        }
        seed += 1;
    };
    let x = layout(&[131, 517], 1);
    let y = layout(&[131, 517], 50);
    let row = layout(&[517], 100);
    let heads = x.narrow(1, 0, 512).unwrap().reshape(&[131, 8, 64]).unwrap();
    let index: Vec<u32> = (0..1000).map(|i| i * 37 % 131).collect();
    let index = Tensor::from_vec(index, &[1000]).unwrap();
    let rows = layout(&[1000, 517], 150);
    let graph = Csr::new(
        131,
        (0..=500).map(|i| 2 * i).collect(),
        index.to_vec().unwrap(),
        None,
    )
    .unwrap();
    let positions: Vec<u32> = (0..131).collect();
    let batch = layout(&[33, 40, 50], 200);
    macro_rules! operation {
        ($name:literal, [$($captured:ident),*], $body:expr) => {{
            $(let $captured = $captured.clone();)*
            ($name, Box::new(move || $body) as Operation)
        }};
    }
    vec![
        operation!("contiguous", [x], x.contiguous()),
        operation!("to_dtype", [x], x.to_dtype(DType::BF16)),
        operation!("add", [x, y], x.add(&y)),
        operation!("mul a row", [x, row], x.mul(&row)),
        operation!("silu", [x], x.silu()),
        operation!("softmax", [x], x.softmax(1)),
        operation!("softmax of columns", [x], x.softmax(0)),
        operation!("log_softmax", [x], x.log_softmax(1)),
        operation!("rms_norm", [x, row], x.rms_norm(&row, 1e-5)),
        operation!("layer_norm", [x, row], x.layer_norm(&row, &row, 1e-5)),
        operation!(
            "rope",
            [heads, positions],
            heads.rope(&positions, 1e4, Pairing::HalfSplit)
        ),
        operation!("gather", [x, index], x.gather(&index)),
        operation!(
            "scatter_add",
            [x, index, rows],
            x.scatter_add(&index, &rows)
        ),
        operation!("sum of rows", [x], x.sum(1)),
        operation!("sum of columns", [x], x.sum(0)),
        operation!("sum in the middle", [batch], batch.sum(1)),
        operation!("argmax", [x], x.argmax(0)),
        operation!("arg_sort", [x], x.arg_sort(1, Order::Descending)),
        operation!("top_k", [x], x.top_k(9).map(|(values, _)| values)),
        operation!("spmm", [graph, x], graph.spmm(&x)),
        operation!("matmul", [x, y], x.matmul(&y.transpose(0, 1)?)),
        operation!(
            "matmul of few rows",
            [x, y],
            x.narrow(0, 0, 3)?.matmul(&y.contiguous()?.transpose(0, 1)?)
        ),
        operation!(
            "batched matmul",
            [batch],
            batch.matmul(&batch.transpose(1, 2)?)
        ),
        operation!("matvec", [x, row], x.matvec(&row)),
    ]
}

#[test]
fn the_number_of_threads_does_not_change_a_bit_of_any_operation() {
    let with = |threads: usize, f: &Operation| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(|| f().unwrap())
    };
    for (name, operation) in operations() {
        let (one, three) = (with(1, &operation), with(3, &operation));
        assert_eq!(one.shape(), three.shape(), "{name}");
        let same = array(&one)
            .iter()
            .zip(&array(&three))
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{name}");
    }
}
