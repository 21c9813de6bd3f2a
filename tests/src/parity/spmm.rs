//! Sparse products and scatter-add.

use super::memory::Buffer;
use super::number::{FLOATS, Tie, Tol, U, close, decoded, normal, output, rounded, same, upload};
use super::{Body, Shape};
use whittle_tensor::gpu::{kernels, spmm};
use whittle_tensor::kernel::Kernel;
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{Csr, DType, Driver, Tensor};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Spmm,
    Ones,
    ScatterAdd,
}

const OPS: [(&str, Op); 3] = [
    ("spmm", Op::Spmm),
    ("spmm_ones", Op::Ones),
    ("scatter_add", Op::ScatterAdd),
];

/// Entries of each row, and columns.
struct Case {
    entries: &'static [usize],
    cols: usize,
}

const CASES: [Case; 8] = [
    Case {
        entries: &[1],
        cols: 1,
    },
    Case {
        entries: &[0],
        cols: 3,
    },
    Case {
        entries: &[3, 0, 32, 1, 33, 64, 0, 65, 2],
        cols: 37,
    },
    Case {
        entries: &[2, 32],
        cols: 70,
    },
    Case {
        entries: &[0, 3],
        cols: 100,
    },
    Case {
        entries: &[2, 5],
        cols: 128,
    },
    Case {
        entries: &[4, 0, 31],
        cols: 129,
    },
    Case {
        entries: &[1, 1, 1, 1, 1, 1, 1, 1],
        cols: 300,
    },
];

/// Rows of what is added up: few, so that some are named often. The first never is, and holds NaN.
const NAMED: usize = 11;

fn check(kernel: &Kernel, driver: &dyn Driver, dtype: DType, op: Op) {
    for case in &CASES {
        let (n, cols) = (case.entries.len(), case.cols);
        let mut indptr = vec![0usize];
        case.entries
            .iter()
            .for_each(|count| indptr.push(indptr[indptr.len() - 1] + count));
        let entries = indptr[n];
        let named = if op == Op::ScatterAdd { entries } else { NAMED };
        let mut random = Philox4x32::new(19, 0);
        // Scatter-add names each row of what it adds once, in any order of the targets.
        let index: Vec<u32> = match op {
            Op::ScatterAdd => (0..entries as u32).rev().collect(),
            _ => (0..entries)
                .map(|_| 1 + random.next_u32() % (NAMED - 1) as u32)
                .collect(),
        };
        let values: Vec<f32> = (0..entries).map(|_| random.next_normal()).collect();
        let mut dense = normal(dtype, named.max(1) * cols, 500);
        if op != Op::ScatterAdd || entries == 0 {
            dense[..cols].fill(f32::NAN);
        }
        let x = normal(dtype, n * cols, 501);

        let narrow: Vec<u32> = indptr.iter().map(|at| *at as u32).collect();
        let indptr_memory = Buffer::of(driver, &narrow, 0);
        let index_memory = Buffer::of(driver, &index, 0);
        let values_memory = Buffer::of(driver, &values, 0);
        let dense_memory = upload(driver, dtype, &dense, 1);
        let x_memory = upload(driver, dtype, &x, 1);
        let out = output(driver, dtype, n * cols, 1);
        let mut inputs = vec![indptr_memory.pointer(), index_memory.pointer()];
        match op {
            Op::Spmm => inputs.push(values_memory.pointer()),
            Op::Ones => {}
            Op::ScatterAdd => inputs.insert(0, x_memory.pointer()),
        }
        inputs.push(dense_memory.pointer());
        spmm::rows(kernel, driver, &inputs, out.pointer(), [n, cols]).unwrap();
        let found = decoded(dtype, &out.bytes());

        let cpu = on_cpu(op, &indptr, &index, &values, &dense, &x, cols);
        for (at, (&found, cpu)) in found.iter().zip(cpu).enumerate() {
            let (row, col) = (at / cols, at % cols);
            let context = || format!("{} at [{row}, {col}] of {n}x{cols}", kernel.entry());
            same(context, found, rounded(dtype, cpu));
            let start = if op == Op::ScatterAdd {
                f64::from(x[at])
            } else {
                0.0
            };
            let terms = || {
                (indptr[row]..indptr[row + 1]).map(|e| {
                    let weight = if op == Op::Spmm {
                        f64::from(values[e])
                    } else {
                        1.0
                    };
                    weight * f64::from(dense[index[e] as usize * cols + col])
                })
            };
            let expected = start + terms().sum::<f64>();
            let magnitude = start.abs() + terms().map(f64::abs).sum::<f64>();
            let tol = Tol::of(
                magnitude * (terms().count() + 1) as f64 * U,
                "a rounding an entry",
            );
            close(
                context,
                dtype,
                found,
                expected,
                tol.rounded_to(dtype, expected),
            );
        }
    }
}

/// The CPU's operation on the same values in f32, whose bits the kernels have.
fn on_cpu(
    op: Op,
    indptr: &[usize],
    index: &[u32],
    values: &[f32],
    dense: &[f32],
    x: &[f32],
    cols: usize,
) -> Vec<f32> {
    let n = indptr.len() - 1;
    let dense_rows = dense.len() / cols;
    if op == Op::ScatterAdd {
        // The rows in the order in which the CPU meets them.
        let mut targets = vec![0u32; index.len()];
        for row in 0..n {
            index[indptr[row]..indptr[row + 1]]
                .iter()
                .for_each(|&e| targets[e as usize] = row as u32);
        }
        let (order_indptr, order) = spmm::by_target(&targets, n);
        assert!(
            order_indptr
                .iter()
                .map(|at| *at as usize)
                .eq(indptr.iter().copied())
        );
        assert_eq!(order.len(), index.len());
        let mut out = x.to_vec();
        for row in 0..n {
            for &e in &index[indptr[row]..indptr[row + 1]] {
                for col in 0..cols {
                    out[row * cols + col] += dense[e as usize * cols + col];
                }
            }
        }
        return out;
    }
    let values = (op == Op::Spmm).then(|| values.to_vec());
    let csr = Csr::new(dense_rows, indptr.to_vec(), index.to_vec(), values).unwrap();
    let dense = Tensor::from_vec(dense.to_vec(), &[dense_rows, cols]).unwrap();
    csr.spmm(&dense).unwrap().to_vec::<f32>().unwrap()
}

/// Sums beside a tie of a half, on whose side a single rounding of f32 decides: `(weights, x)` of the entries of a row.
fn ties(dtype: DType, op: Op) -> Vec<(Vec<f32>, Vec<f32>)> {
    let Some(tie) = Tie::of(dtype) else {
        return Vec::new();
    };
    if op != Op::Spmm {
        // The tie is a sum of halves itself.
        return vec![(vec![1.0; 3], vec![1.0, tie.rest, -tie.tiny])];
    }
    vec![
        (vec![tie.value, -tie.tiny], vec![1.0, 1.0]),
        (vec![-0.5, tie.fused], vec![1.0, 3.0]),
        (vec![tie.product], vec![3.0]),
    ]
}

/// A row of one entry after the other, in every place of a warp's 128 columns.
fn check_ties(kernel: &Kernel, driver: &dyn Driver, dtype: DType, op: Op) {
    for (weights, x) in ties(dtype, op) {
        let (cols, entries) = (128, x.len());
        let dense: Vec<f32> = x.iter().flat_map(|x| [*x; 128]).collect();
        // Scatter-add starts from the first.
        let skipped = usize::from(op == Op::ScatterAdd);
        let start = upload(driver, dtype, &dense[..cols], 0);
        let indptr = Buffer::of(driver, &[0u32, (entries - skipped) as u32], 0);
        let index: Vec<u32> = (skipped as u32..entries as u32).collect();
        let index = Buffer::of(driver, &index, 0);
        let values = Buffer::of(driver, &weights, 0);
        let dense = upload(driver, dtype, &dense, 0);
        let out = output(driver, dtype, cols, 0);
        let mut inputs = vec![indptr.pointer(), index.pointer()];
        match op {
            Op::Spmm => inputs.push(values.pointer()),
            Op::Ones => {}
            Op::ScatterAdd => inputs.insert(0, start.pointer()),
        }
        inputs.push(dense.pointer());
        spmm::rows(kernel, driver, &inputs, out.pointer(), [1, cols]).unwrap();
        let expected = weights
            .iter()
            .zip(&x)
            .fold(0.0f32, |sum, (w, x)| w.mul_add(*x, sum));
        for found in decoded(dtype, &out.bytes()) {
            let context = || format!("{} of {x:?} by {weights:?}", kernel.entry());
            same(context, found, rounded(dtype, expected));
        }
    }
}

pub(super) fn bodies() -> Vec<Body> {
    let mut bodies = Vec::new();
    for (name, op) in OPS {
        for dtype in FLOATS {
            let kernel = kernels::of(name, dtype).expect(name);
            bodies.push(Body::new(kernel, move |driver| {
                check(kernel, driver, dtype, op);
                check_ties(kernel, driver, dtype, op);
            }));
        }
    }
    bodies
}

pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (name, op) in OPS {
        for dtype in FLOATS {
            let kernel = kernels::of(name, dtype).expect(name);
            let bytes = dtype.size_in_bytes();
            for (n, each, cols) in [(128, 32, 128), (13, 5, 37)] {
                let entries = n * each;
                let per_entry = bytes * cols + if op == Op::Spmm { 8 } else { 4 };
                let per_row = bytes * cols * if op == Op::ScatterAdd { 2 } else { 1 } + 64;
                let floor = (cols == 128).then_some(entries * per_entry + n * per_row);
                let shape = format!("{n}x{cols}, {each} entries a row");
                shapes.push(Shape::new(kernel, shape, n * cols, floor, move |driver| {
                    let indptr: Vec<u32> = (0..=n).map(|r| (r * each) as u32).collect();
                    let index: Vec<u32> = (0..entries as u32).collect();
                    let indptr = Buffer::of(driver, &indptr, 0);
                    let index = Buffer::of(driver, &index, 0);
                    let values = Buffer::of(driver, &vec![1f32; entries], 0);
                    let dense = upload(driver, dtype, &vec![1.0; entries * cols], 0);
                    let x = upload(driver, dtype, &vec![1.0; n * cols], 0);
                    let out = output(driver, dtype, n * cols, 0);
                    let mut inputs = vec![indptr.pointer(), index.pointer()];
                    match op {
                        Op::Spmm => inputs.push(values.pointer()),
                        Op::Ones => {}
                        Op::ScatterAdd => inputs.insert(0, x.pointer()),
                    }
                    inputs.push(dense.pointer());
                    spmm::rows(kernel, driver, &inputs, out.pointer(), [n, cols]).unwrap();
                }));
            }
        }
    }
    shapes
}
