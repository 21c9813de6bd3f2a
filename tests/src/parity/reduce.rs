//! Reductions of rows and of columns.

use super::memory::Buffer;
use super::number::{FLOATS, Tol, U, close, decoded, normal, output, rounded, same, upload};
use super::twin::{block, shares};
use super::{Body, Shape};
use half::bf16;
use whittle_tensor::gpu::{kernels, reduce};
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{DType, Driver, Element};

/// Rows, columns, how far x lies off an aligned address, threads.
type Rows = (usize, usize, usize, u32);

const ROWS: [Rows; 10] = [
    (2, 1, 0, 32),
    (3, 5, 0, 32),
    (2, 33, 1, 32),
    (2, 128, 0, 32),
    (2, 256, 0, 32),
    (2, 260, 0, 64),
    (1, 515, 3, 128),
    (2, 1024, 0, 256),
    (1, 1027, 0, 256),
    (3, 256, 2, 256),
];

/// `[outer, len, inner]`.
const COLUMNS: [[usize; 3]; 6] = [
    [1, 1, 1],
    [2, 3, 5],
    [1, 7, 256],
    [3, 4, 100],
    [1, 2, 300],
    [2, 33, 17],
];

/// A sum of f64 divided and rounded once.
fn finish(dtype: DType, sum: f64, divisor: usize) -> f32 {
    let y = sum / divisor as f64;
    match dtype {
        DType::F16 => half::f16::from_double(y).to_f32(),
        DType::BF16 => bf16::from_double(y).to_f32(),
        _ => y as f32,
    }
}

/// Terms of different magnitudes, some of which cancel.
fn terms(dtype: DType, len: usize) -> Vec<f32> {
    let x = normal(dtype, len, 300);
    (0..len)
        .map(|i| {
            let scale = [1.0, 1e-3, 50.0, -50.0][i % 4];
            rounded(
                dtype,
                if i % 4 == 3 {
                    x[i - 1] * scale
                } else {
                    x[i] * scale
                },
            )
        })
        .collect()
}

fn compare_sum(kernel: &Kernel, dtype: DType, x: &[f32], divisor: usize, twin: f64, found: f32) {
    let context = || format!("{} of {} terms / {divisor}", kernel.entry(), x.len());
    same(context, found, finish(dtype, twin, divisor));
    let exact = x.iter().map(|x| f64::from(*x)).sum::<f64>() / divisor as f64;
    let magnitude: f64 = x.iter().map(|x| f64::from(x.abs())).sum();
    let error = exact.abs() * U + magnitude * x.len() as f64 * 2f64.powi(-52) + 2f64.powi(-150);
    let tol = Tol::of(error, "one rounding; sums in f64").rounded_to(dtype, exact);
    close(context, dtype, found, exact, tol);
}

fn sum_rows(kernel: &Kernel, driver: &dyn Driver, dtype: DType) {
    let special = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, 1e-41];
    for (case, (rows, cols, shift, threads)) in ROWS.into_iter().enumerate() {
        let mut x = terms(dtype, rows * cols);
        if cols == 5 {
            x[0] = rounded(dtype, special[case]);
            x[5] = f32::INFINITY;
            x[7] = f32::NEG_INFINITY;
            x[10..15].fill(0.0);
        }
        let divisor = [1, cols][case % 2];
        let memory = upload(driver, dtype, &x, shift);
        let out = output(driver, dtype, rows, 0);
        let args = [
            Arg::Ptr(memory.pointer()),
            Arg::Ptr(out.pointer()),
            Arg::U32(cols as u32),
            Arg::U32(divisor as u32),
        ];
        let (grid, threads_of) = ([rows as u32, 1, 1], [threads, 1, 1]);
        kernel.launch(driver, grid, threads_of, 0, &args).unwrap();
        let found = decoded(dtype, &out.bytes());
        for (r, (x, found)) in x.chunks_exact(cols).zip(found).enumerate() {
            let shares = shares(cols, (shift + r * cols) % 4 == 0, threads as usize);
            let add = |sum: f64, i: &usize| sum + f64::from(x[*i]);
            let sums: Vec<f64> = shares
                .iter()
                .map(|share| share.iter().fold(0.0, add))
                .collect();
            let twin = block(&sums, 0.0, |a, b, _| a + b)[0];
            compare_sum(kernel, dtype, x, divisor, twin, found);
        }
    }
    rounds_once(kernel, driver, dtype, |x, out, divisor| {
        reduce::rows(kernel, driver, x, out, [1, TIE.len()], Some(divisor)).unwrap();
    });
    sum_ties(kernel, driver, dtype);
}

/// Terms whose sum lies beside a tie between two halves by less than f32 can tell.
const TIE: [f32; 3] = [1.0, 1.0 / 2048.0, 1.0 / (1 << 24) as f32];
/// And what f64 rounds away or cuts to less.
const BF16_TIES: [[f32; 3]; 2] = [
    [1.0, 1.0 / 256.0, 1.0 / (1u64 << 40) as f32],
    [1.0, 3.0 / 256.0, -1.0 / (1u64 << 60) as f32],
];
/// A tie of f32, and what f64 rounds away or cuts to less.
const F32_TIE: [f32; 3] = [1.0, 3.0 / (1 << 24) as f32, -1.0 / (1u64 << 60) as f32];

/// A second rounding would fall back to the even one.
fn rounds_once(
    kernel: &Kernel,
    driver: &dyn Driver,
    dtype: DType,
    launch: impl Fn(whittle_tensor::DevicePtr, whittle_tensor::DevicePtr, u32),
) {
    let ties: &[[f32; 3]] = match dtype {
        DType::F16 => &[TIE],
        DType::BF16 => &BF16_TIES,
        _ => &[F32_TIE],
    };
    for x in ties {
        let memory = upload(driver, dtype, x, 0);
        let out = output(driver, dtype, 1, 0);
        launch(memory.pointer(), out.pointer(), 1);
        let sum = x.iter().fold(0.0, |sum, x| sum + f64::from(*x));
        let found = decoded(dtype, &out.bytes())[0];
        compare_sum(kernel, dtype, x, 1, sum, found);
    }
}

/// Rows of a block of 256 threads whose sums lie beside a tie of the type, so that one rounding of f64 or one half of a word decides,
/// in each place where something is added.
fn sum_ties(kernel: &Kernel, driver: &dyn Driver, dtype: DType) {
    let rest = match dtype {
        DType::F16 => 3.0 * 2f32.powi(-11),
        DType::BF16 => 3.0 * 2f32.powi(-8),
        _ => 3.0 * 2f32.powi(-24),
    };
    // Sums of f16 are exact in f64.
    let tiny = if dtype == DType::F16 {
        2f32.powi(-24)
    } else {
        2f32.powi(-80)
    };
    let small = if dtype == DType::BF16 {
        2f32.powi(-40)
    } else {
        2f32.powi(-24)
    };
    let lanes = [1, 2, 4, 8, 16, 32, 64, 128];
    // The tie stands in thread 0's first vector, what turns it beside, in its second one, or in another lane or warp.
    let places = [2, 3, 1024, 1025]
        .into_iter()
        .chain(lanes.map(|lane| 4 * lane));
    let mut rows: Vec<Vec<(usize, f32)>> = places
        .map(|place| vec![(0, 1.0), (1, rest), (place, -tiny)])
        .collect();
    // Both words of a lane's sum count.
    rows.extend(lanes.map(|lane| {
        let there = [(4 * lane, 256.0), (4 * lane + 1, small)];
        // The lower neighbour of this tie is the even one.
        let here = [(0, -256.0), (1, 1.0), (2, rest / 3.0)];
        here.into_iter().chain(there).collect()
    }));
    compare_rows(kernel, driver, dtype, &rows, 2048, 0);
    // A thread's single elements.
    let rows = [vec![(0, 1.0), (256, rest), (512, -tiny)]];
    compare_rows(kernel, driver, dtype, &rows, 768, 1);
}

/// Rows of zeros but for some elements, summed by 256 threads.
fn compare_rows(
    kernel: &Kernel,
    driver: &dyn Driver,
    dtype: DType,
    rows: &[Vec<(usize, f32)>],
    cols: usize,
    shift: usize,
) {
    let mut x = vec![0.0; rows.len() * cols];
    for (row, values) in rows.iter().enumerate() {
        values
            .iter()
            .for_each(|(i, value)| x[row * cols + i] = *value);
    }
    let memory = upload(driver, dtype, &x, shift);
    let out = output(driver, dtype, rows.len(), 0);
    let (from, to) = (memory.pointer(), out.pointer());
    reduce::rows(kernel, driver, from, to, [rows.len(), cols], Some(1)).unwrap();
    for (x, found) in x.chunks_exact(cols).zip(decoded(dtype, &out.bytes())) {
        let shares = shares(cols, shift == 0, 256);
        let add = |sum: f64, i: &usize| sum + f64::from(x[*i]);
        let sums: Vec<f64> = shares
            .iter()
            .map(|share| share.iter().fold(0.0, add))
            .collect();
        let twin = block(&sums, 0.0, |a, b, _| a + b)[0];
        let terms: Vec<f32> = x.iter().copied().filter(|x| *x != 0.0).collect();
        compare_sum(kernel, dtype, &terms, 1, twin, found);
    }
}

fn sum_columns(kernel: &Kernel, driver: &dyn Driver, dtype: DType) {
    for (case, [outer, len, inner]) in COLUMNS.into_iter().enumerate() {
        let mut x = terms(dtype, outer * len * inner);
        if len == 3 {
            x[1] = f32::NAN;
        }
        let divisor = [1, len][case % 2];
        let memory = upload(driver, dtype, &x, 0);
        let out = output(driver, dtype, outer * inner, 0);
        let sizes = [outer, len, inner];
        let (from, to) = (memory.pointer(), out.pointer());
        reduce::columns(kernel, driver, from, to, sizes, Some(divisor as u32)).unwrap();
        let found = decoded(dtype, &out.bytes());
        for (i, found) in found.into_iter().enumerate() {
            let column = column(&x, sizes, i);
            let twin = column.iter().fold(0.0, |sum, x| sum + f64::from(*x));
            compare_sum(kernel, dtype, &column, divisor, twin, found);
        }
    }
    rounds_once(kernel, driver, dtype, |x, out, divisor| {
        reduce::columns(kernel, driver, x, out, [1, TIE.len(), 1], Some(divisor)).unwrap();
    });
}

/// Column `i` of `[outer, inner]`.
fn column<T: Copy>(x: &[T], [_, len, inner]: [usize; 3], i: usize) -> Vec<T> {
    let start = i / inner * len * inner + i % inner;
    (0..len).map(|r| x[start + r * inner]).collect()
}

/// An element type of `max`, `min` and `argmax`: its values' order, NaN above all numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ordered {
    Float(DType),
    U32,
    I32,
}

impl Ordered {
    const ALL: [Self; 5] = [
        Self::Float(DType::F32),
        Self::Float(DType::F16),
        Self::Float(DType::BF16),
        Self::U32,
        Self::I32,
    ];

    fn dtype(self) -> DType {
        match self {
            Self::Float(dtype) => dtype,
            Self::U32 => DType::U32,
            Self::I32 => DType::I32,
        }
    }

    /// Values as f64, which holds all of them; `kind` chooses what is special about them.
    fn values(self, len: usize, kind: usize) -> Vec<f64> {
        let mut random = Philox4x32::new(17, kind as u64);
        let mut x: Vec<f64> = (0..len)
            .map(|_| match self {
                // Few different values, so that there are equals.
                Self::Float(dtype) => {
                    f64::from(rounded(dtype, (random.next_normal() * 8.0).round() / 4.0))
                }
                Self::U32 => f64::from(random.next_u32() >> 24),
                Self::I32 => f64::from(random.next_u32() as i32 >> 24),
            })
            .collect();
        match (kind % 7, self) {
            (1, Self::Float(_)) => x.fill(f64::NEG_INFINITY),
            (1, Self::U32) => x.fill(0.0),
            (1, Self::I32) => x.fill(f64::from(i32::MIN)),
            (2, Self::Float(_)) => x.fill(f64::INFINITY),
            (2, Self::U32) => x.fill(f64::from(u32::MAX)),
            (2, Self::I32) => x.fill(f64::from(i32::MAX)),
            (3, Self::Float(_)) => x[len / 2] = f64::NAN,
            (4, Self::Float(_)) => {
                x.iter_mut()
                    .for_each(|x| *x = [-0.0, 0.0][random.next_u32() as usize % 2]);
            }
            (5, Self::Float(_)) => x.iter_mut().for_each(|x| *x = -x.abs() - 1.0),
            (6, Self::Float(_)) => {
                x.iter_mut().for_each(|x| *x = -x.abs() - 1.0);
                x.iter_mut().step_by(821).for_each(|x| *x = 0.0);
            }
            _ => {}
        }
        x
    }

    /// What every element is at least as good as.
    fn worst(self, is_max: bool) -> f64 {
        match (self, is_max) {
            (Self::Float(_), true) => f64::NEG_INFINITY,
            (Self::Float(_), false) => f64::INFINITY,
            (Self::U32, true) => 0.0,
            (Self::U32, false) => f64::from(u32::MAX),
            (Self::I32, true) => f64::from(i32::MIN),
            (Self::I32, false) => f64::from(i32::MAX),
        }
    }

    fn encoded(self, x: &[f64]) -> Vec<u8> {
        match self {
            Self::Float(dtype) => {
                let x: Vec<f32> = x.iter().map(|x| *x as f32).collect();
                super::number::encoded(dtype, &x)
            }
            Self::U32 => x.iter().flat_map(|x| (*x as u32).to_le_bytes()).collect(),
            Self::I32 => x.iter().flat_map(|x| (*x as i32).to_le_bytes()).collect(),
        }
    }

    fn decoded(self, bytes: &[u8]) -> Vec<f64> {
        match self {
            Self::Float(dtype) => decoded(dtype, bytes).into_iter().map(f64::from).collect(),
            Self::U32 => bytemuck::pod_collect_to_vec::<u8, u32>(bytes)
                .into_iter()
                .map(f64::from)
                .collect(),
            Self::I32 => bytemuck::pod_collect_to_vec::<u8, i32>(bytes)
                .into_iter()
                .map(f64::from)
                .collect(),
        }
    }
}

/// Asserts that a result is the oracle's number and the twin's zero.
#[track_caller]
fn agrees(context: impl Fn() -> String, found: f64, expected: f64, twin: f64) {
    let is_nan = found.is_nan() && expected.is_nan();
    assert!(
        found == expected || is_nan,
        "{}: {found} for {expected}",
        context()
    );
    let has_sign = found.is_sign_negative() == twin.is_sign_negative();
    assert!(
        has_sign || is_nan,
        "{}: {found:?} where the twin has {twin:?}",
        context()
    );
}

/// The kernels' choice between the best so far and another element.
fn better(best: f64, x: f64, is_max: bool) -> f64 {
    let is_better = if is_max { x > best } else { x < best };
    if is_better || x.is_nan() { x } else { best }
}

/// The greatest or the least; NaN where there is one.
fn extremum(x: &[f64], is_max: bool) -> f64 {
    let better = |a: f64, b: f64| if is_max { a > b } else { a < b };
    x.iter()
        .copied()
        .reduce(|best, x| {
            if better(x, best) || x.is_nan() {
                x
            } else {
                best
            }
        })
        .unwrap()
}

fn argmax(x: &[f64]) -> usize {
    (1..x.len()).fold(0, |best, i| {
        let greater = x[i] > x[best] || x[i].is_nan() && !x[best].is_nan();
        if greater { i } else { best }
    })
}

/// What is made of a row's elements.
#[derive(Clone, Copy, Debug)]
enum Op {
    Extremum(bool),
    Argmax,
}

fn best_of_rows(kernel: &Kernel, driver: &dyn Driver, ty: Ordered, op: Op) {
    let bytes = ty.dtype().size_in_bytes();
    let out_bytes = if matches!(op, Op::Argmax) { 4 } else { bytes };
    // Every shape, then all kinds of values in short rows.
    let kinds = (0..7).map(|kind| (2, 37, 0, 32, kind));
    // Zeros of both signs and equals in every place where a choice is made.
    let equals = [
        (8, 2048, 0, 256, 4),
        (8, 801, 1, 256, 4),
        (8, 2048, 0, 256, 0),
        (16, 821, 0, 256, 6),
        (16, 820, 0, 256, 6),
    ];
    let shapes = ROWS.into_iter().enumerate();
    let shapes =
        shapes.map(|(i, (rows, cols, shift, threads))| (rows, cols, shift, threads, 7 * i));
    for (rows, cols, shift, threads, kind) in shapes.chain(kinds).chain(equals) {
        let x = ty.values(rows * cols, kind);
        let memory = Buffer::filled(driver, &ty.encoded(&x), shift * bytes);
        let out = Buffer::filled(driver, &vec![0xA5; rows * out_bytes], 0);
        let args = [
            Arg::Ptr(memory.pointer()),
            Arg::Ptr(out.pointer()),
            Arg::U32(cols as u32),
        ];
        let (grid, threads_of) = ([rows as u32, 1, 1], [threads, 1, 1]);
        kernel.launch(driver, grid, threads_of, 0, &args).unwrap();
        for (r, x) in x.chunks_exact(cols).enumerate() {
            let (found, expected, twin) = match op {
                Op::Argmax => {
                    let expected = argmax(x) as f64;
                    (f64::from(out.read::<u32>()[r]), expected, expected)
                }
                Op::Extremum(is_max) => {
                    let shares = shares(cols, (shift + r * cols) % 4 == 0, threads as usize);
                    let best: Vec<f64> = shares
                        .iter()
                        .map(|share| {
                            share
                                .iter()
                                .fold(ty.worst(is_max), |best, &i| better(best, x[i], is_max))
                        })
                        .collect();
                    let lanes = block(&best, ty.worst(is_max), |a, b, _| better(a, b, is_max));
                    (ty.decoded(&out.bytes())[r], extremum(x, is_max), lanes[0])
                }
            };
            let context = || {
                format!(
                    "{} row {r} of {rows}x{cols}, kind {kind}, {threads} threads",
                    kernel.entry()
                )
            };
            agrees(context, found, expected, twin);
        }
    }
    let nothing = whittle_tensor::DevicePtr::new(0);
    reduce::rows(kernel, driver, nothing, nothing, [0, 5], None).unwrap();
}

fn best_of_columns(kernel: &Kernel, driver: &dyn Driver, ty: Ordered, is_max: bool) {
    let bytes = ty.dtype().size_in_bytes();
    let kinds = (0..7).map(|kind| ([2, 5, 7], kind));
    let shapes = COLUMNS
        .into_iter()
        .enumerate()
        .map(|(i, sizes)| (sizes, 7 * i));
    for (sizes, kind) in shapes.chain(kinds) {
        let [outer, len, inner] = sizes;
        let x = ty.values(outer * len * inner, kind);
        let memory = Buffer::filled(driver, &ty.encoded(&x), 0);
        let out = Buffer::filled(driver, &vec![0xA5; outer * inner * bytes], bytes);
        let (from, to) = (memory.pointer(), out.pointer());
        reduce::columns(kernel, driver, from, to, sizes, None).unwrap();
        for (i, found) in ty.decoded(&out.bytes()).into_iter().enumerate() {
            let column = column(&x, sizes, i);
            let twin = column
                .iter()
                .fold(ty.worst(is_max), |best, x| better(best, *x, is_max));
            let context = || format!("{} column {i} of {sizes:?}, kind {kind}", kernel.entry());
            agrees(context, found, extremum(&column, is_max), twin);
        }
    }
}

const EXTREMA: [(&str, bool); 2] = [("max", true), ("min", false)];

pub(super) fn bodies() -> Vec<Body> {
    let mut bodies = Vec::new();
    for dtype in FLOATS {
        let kernel = kernels::of("sum_rows", dtype).expect("sum_rows");
        bodies.push(Body::new(kernel, move |driver| {
            sum_rows(kernel, driver, dtype)
        }));
        let kernel = kernels::of("sum_columns", dtype).expect("sum_columns");
        bodies.push(Body::new(kernel, move |driver| {
            sum_columns(kernel, driver, dtype)
        }));
    }
    for ty in Ordered::ALL {
        for (op, is_max) in EXTREMA {
            let kernel = kernels::of(&format!("{op}_rows"), ty.dtype()).expect(op);
            bodies.push(Body::new(kernel, move |driver| {
                best_of_rows(kernel, driver, ty, Op::Extremum(is_max));
            }));
            let kernel = kernels::of(&format!("{op}_columns"), ty.dtype()).expect(op);
            bodies.push(Body::new(kernel, move |driver| {
                best_of_columns(kernel, driver, ty, is_max);
            }));
        }
        let kernel = kernels::of("argmax_rows", ty.dtype()).expect("argmax_rows");
        bodies.push(Body::new(kernel, move |driver| {
            best_of_rows(kernel, driver, ty, Op::Argmax);
        }));
    }
    bodies
}

pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    let mut stems = vec!["sum", "max", "min", "argmax"];
    for dtype in Ordered::ALL.map(Ordered::dtype) {
        let bytes = dtype.size_in_bytes();
        for stem in &mut stems {
            let divisor = (*stem == "sum").then_some(1);
            let out_bytes = if *stem == "argmax" { 4 } else { bytes };
            if let Some(kernel) = kernels::of(&format!("{stem}_rows"), dtype) {
                for (rows, cols) in [(16, 4096), (3, 131)] {
                    let floor = (cols == 4096).then_some(rows * cols * bytes + 32 * rows);
                    let name = format!("{rows}x{cols}");
                    shapes.push(Shape::new(
                        kernel,
                        name,
                        rows * cols,
                        floor,
                        move |driver| {
                            let x = Buffer::filled(driver, &vec![0; rows * cols * bytes], 0);
                            let out = Buffer::filled(driver, &vec![0; rows * out_bytes], 0);
                            let (x, out) = (x.pointer(), out.pointer());
                            reduce::rows(kernel, driver, x, out, [rows, cols], divisor).unwrap();
                        },
                    ));
                }
            }
            if let Some(kernel) = kernels::of(&format!("{stem}_columns"), dtype) {
                for (len, inner) in [(64, 1024), (7, 131)] {
                    let floor = (inner == 1024).then_some((len + 1) * inner * bytes);
                    let name = format!("{len}x{inner}");
                    shapes.push(Shape::new(
                        kernel,
                        name,
                        len * inner,
                        floor,
                        move |driver| {
                            let x = Buffer::filled(driver, &vec![0; len * inner * bytes], 0);
                            let out = Buffer::filled(driver, &vec![0; inner * bytes], 0);
                            let (x, out) = (x.pointer(), out.pointer());
                            reduce::columns(kernel, driver, x, out, [1, len, inner], divisor)
                                .unwrap();
                        },
                    ));
                }
            }
        }
    }
    shapes
}
