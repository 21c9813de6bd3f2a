//! Functions of two elements, of arrays and of views.

use super::number::{
    FLOATS, Tol, U, close, decoded, normal, output, rounded, rounds_to_nearest, same, upload,
};
use super::ops::{Ops, telling};
use super::twin::ex2_ftz;
use super::unary::{PRIME, WHOLE};
use super::{Body, Shape};
use whittle_tensor::gpu::strided::View;
use whittle_tensor::gpu::{binary, kernels};
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{DType, Driver};

struct Function {
    op: &'static str,
    oracle: fn(f64, f64) -> f64,
    twin: fn(f32, f32) -> f32,
    is_exact: bool,
}

const FUNCTIONS: [Function; 5] = [
    Function {
        op: "add",
        oracle: |a, b| a + b,
        twin: |a, b| a + b,
        is_exact: true,
    },
    Function {
        op: "sub",
        oracle: |a, b| a - b,
        twin: |a, b| a - b,
        is_exact: true,
    },
    Function {
        op: "mul",
        oracle: |a, b| a * b,
        twin: |a, b| a * b,
        is_exact: true,
    },
    Function {
        op: "div",
        oracle: |a, b| a / b,
        twin: |a, b| a / b,
        is_exact: true,
    },
    Function {
        op: "silu_mul",
        oracle: |a, b| a / (1.0 + (-a).exp()) * b,
        twin: |a, b| silu_mul(&Ops::default(), a, b),
        is_exact: false,
    },
];

impl Function {
    fn tol(&self, a: f64, y: f64) -> Tol {
        let relative = if self.is_exact {
            U
        } else {
            (1.25 * a.abs() + 9.0) * U
        };
        let tiny = if self.is_exact {
            2f64.powi(-150)
        } else {
            2f64.powi(-120)
        };
        Tol::of(
            y.abs() * relative + tiny,
            "one rounding; of silu e^-a, a sum, a quotient and a product",
        )
    }

    fn check(&self, entry: &str, dtype: DType, has_twin: bool, a: f32, b: f32, found: f32) {
        let context = || format!("{entry} of {a:e} and {b:e}");
        if has_twin {
            same(context, found, rounded(dtype, (self.twin)(a, b)));
        }
        let expected = (self.oracle)(f64::from(a), f64::from(b));
        let tol = self.tol(f64::from(a), expected).rounded_to(dtype, expected);
        close(context, dtype, found, expected, tol);
    }
}

/// Operands of all magnitudes, and pairs of special values.
fn operands(dtype: DType, len: usize) -> (Vec<f32>, Vec<f32>) {
    let special = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        1e-40,
        -1.0,
    ];
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for x in special {
        for y in special {
            a.push(rounded(dtype, x));
            b.push(rounded(dtype, y));
        }
    }
    let (more_a, more_b) = (normal(dtype, len, 1), normal(dtype, len, 2));
    for (i, (x, y)) in more_a.into_iter().zip(more_b).enumerate() {
        // From 2^-12 to 2^11 of each other.
        let scale = 2f32.powi((i * 7 % 24) as i32 - 12);
        a.push(rounded(dtype, 3.0 * x));
        b.push(rounded(dtype, y * scale));
    }
    a.truncate(len);
    b.truncate(len);
    (a, b)
}

fn launch(
    kernel: &Kernel,
    driver: &dyn Driver,
    dtype: DType,
    (a, b): (&[f32], &[f32]),
    shifts: [usize; 3],
    blocks: Option<u32>,
) -> Vec<f32> {
    let n = a.len();
    let a_memory = upload(driver, dtype, a, shifts[0]);
    let b_memory = upload(driver, dtype, b, shifts[1]);
    let out = output(driver, dtype, n, shifts[2]);
    let pointers = [a_memory.pointer(), b_memory.pointer(), out.pointer()];
    match blocks {
        None => binary::zip(kernel, driver, pointers[0], pointers[1], pointers[2], n).unwrap(),
        Some(blocks) => {
            let mut args = pointers.map(Arg::Ptr).to_vec();
            args.push(Arg::U32(n as u32));
            kernel
                .launch(driver, [blocks, 1, 1], [256, 1, 1], 0, &args)
                .unwrap();
        }
    }
    decoded(dtype, &out.bytes())
}

fn arrays(kernel: &Kernel, driver: &dyn Driver, function: &Function, dtype: DType) {
    let has_twin = function.is_exact || rounds_to_nearest(driver);
    let cases = [
        (1, [0, 0, 0], None),
        (7, [0, 0, 0], None),
        (1024, [0, 0, 0], None),
        (2051, [0, 0, 0], Some(1)),
        (2048, [0, 0, 0], Some(1)),
        (3000, [0, 0, 0], None),
        (512, [1, 0, 0], Some(1)),
        (600, [0, 1, 0], Some(1)),
        (257, [0, 0, 1], Some(1)),
        (5, [1, 1, 1], None),
        (8000, [0, 0, 0], None),
        (40_000, [0, 0, 0], None),
    ];
    for (n, shifts, blocks) in cases {
        let (a, b) = operands(dtype, n);
        let found = launch(kernel, driver, dtype, (&a, &b), shifts, blocks);
        for ((a, b), found) in a.into_iter().zip(b).zip(found) {
            function.check(kernel.entry(), dtype, has_twin, a, b, found);
        }
    }
    if has_twin && !function.is_exact && dtype != DType::F32 {
        telling_pairs(kernel, driver, function, dtype);
    }
}

/// `silu(a) · b` as the kernel computes it.
fn silu_mul(ops: &Ops, a: f32, b: f32) -> f32 {
    let power = ex2_ftz(ops.mul(0, a, -std::f32::consts::LOG2_E));
    let silu = ops.div(2, a, ops.add(1, power, 1.0));
    ops.mul(3, silu, b)
}

/// Pairs that show each rounding, in every place of a vector and one by one.
fn telling_pairs(kernel: &Kernel, driver: &dyn Driver, function: &Function, dtype: DType) {
    let mut random = Philox4x32::new(31, 0);
    let draw = || {
        // Far below 0 the power is what counts.
        let scale = [1.0, 6.0][random.next_u32() as usize % 2];
        let pair = [scale * random.next_normal(), random.next_normal()];
        pair.map(|x| rounded(dtype, x)).to_vec()
    };
    let name = format!("silu_mul {dtype:?}");
    let pairs = telling(name, dtype, 16_000_000, draw, |ops, pair| {
        vec![silu_mul(ops, pair[0], pair[1])]
    });
    let four = |at: usize| -> Vec<f32> { pairs.iter().flat_map(|pair| [pair[at]; 4]).collect() };
    let (a, b) = (four(0), four(1));
    for shift in [0, 1] {
        let found = launch(kernel, driver, dtype, (&a, &b), [shift, 0, 0], None);
        for ((a, b), found) in a.iter().zip(&b).zip(found) {
            function.check(kernel.entry(), dtype, true, *a, *b, found);
        }
    }
}

/// A shape, and the strides of both operands.
type Views = (&'static [usize], [&'static [usize]; 2]);

/// Rows, columns, single elements and whole views broadcast; transposed; more dimensions than a launch has; one element.
const VIEWS: [Views; 10] = [
    (&[1], [&[1], &[1]]),
    (&[300], [&[1], &[0]]),
    (&[5, 67], [&[67, 1], &[0, 1]]),
    (&[5, 67], [&[0, 1], &[67, 1]]),
    (&[5, 67], [&[1, 0], &[67, 1]]),
    (&[7, 3], [&[1, 7], &[3, 1]]),
    (&[3, 5, 17], [&[17, 0, 1], &[0, 17, 1]]),
    (&[2, 3, 4, 5], [&[1, 2, 6, 24], &[60, 20, 5, 1]]),
    (&[2, 3, 2, 3, 2], [&[0, 2, 0, 1, 0], &[1, 0, 2, 0, 4]]),
    (&[2, 128], [&[128, 1], &[1, 2]]),
];

/// How far from its start a view reaches, plus 1.
pub(super) fn reach(shape: &[usize], stride: &[usize]) -> usize {
    1 + shape
        .iter()
        .zip(stride)
        .map(|(size, stride)| (size - 1) * stride)
        .sum::<usize>()
}

/// The places of a view's elements in row-major order.
pub(super) fn places(shape: &[usize], stride: &[usize]) -> Vec<usize> {
    let mut places = vec![0];
    for (&size, &stride) in shape.iter().zip(stride) {
        places = places
            .into_iter()
            .flat_map(|place| (0..size).map(move |i| place + i * stride))
            .collect();
    }
    places
}

fn views(kernel: &Kernel, driver: &dyn Driver, function: &Function, dtype: DType) {
    let bytes = dtype.size_in_bytes();
    for (shape, strides) in VIEWS {
        let (a, _) = operands(dtype, reach(shape, strides[0]));
        let (_, b) = operands(dtype, reach(shape, strides[1]));
        let [a_places, b_places] = strides.map(|stride| places(shape, stride));
        let a_memory = upload(driver, dtype, &a, 1);
        let b_memory = upload(driver, dtype, &b, 0);
        let out = output(driver, dtype, a_places.len(), 0);
        let view = |pointer, stride| View {
            pointer,
            stride,
            bytes,
        };
        binary::zip_views(
            kernel,
            driver,
            shape,
            view(a_memory.pointer(), strides[0]),
            view(b_memory.pointer(), strides[1]),
            out.pointer(),
        )
        .unwrap();
        let found = decoded(dtype, &out.bytes());
        for ((a_at, b_at), found) in a_places.into_iter().zip(b_places).zip(found) {
            function.check(kernel.entry(), dtype, true, a[a_at], b[b_at], found);
        }
    }
}

pub(super) fn bodies() -> Vec<Body> {
    let mut bodies = Vec::new();
    for function in &FUNCTIONS {
        for dtype in FLOATS {
            let kernel = kernels::of(function.op, dtype).expect(function.op);
            bodies.push(Body::new(kernel, move |driver| {
                arrays(kernel, driver, function, dtype);
            }));
            let strided = kernels::of(&format!("{}_strided", function.op), dtype);
            bodies.extend(strided.map(|kernel| {
                Body::new(kernel, move |driver| views(kernel, driver, function, dtype))
            }));
        }
    }
    bodies
}

pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for function in &FUNCTIONS {
        for dtype in FLOATS {
            let kernel = kernels::of(function.op, dtype).expect(function.op);
            let bytes = dtype.size_in_bytes();
            for n in [WHOLE, PRIME] {
                let floor = (n == WHOLE).then_some(3 * n * bytes);
                shapes.push(Shape::new(kernel, n.to_string(), n, floor, move |driver| {
                    let (a, b) = operands(dtype, n);
                    launch(kernel, driver, dtype, (&a, &b), [0; 3], None);
                }));
            }
            let Some(kernel) = kernels::of(&format!("{}_strided", function.op), dtype) else {
                continue;
            };
            let (rows, cols) = (64, 1024);
            let floor = 3 * rows * cols * bytes;
            let name = format!("{rows}x{cols} and a row");
            shapes.push(Shape::new(
                kernel,
                name,
                rows * cols,
                floor,
                move |driver| {
                    let a = upload(driver, dtype, &normal(dtype, rows * cols, 1), 0);
                    let b = upload(driver, dtype, &normal(dtype, cols, 2), 0);
                    let out = output(driver, dtype, rows * cols, 0);
                    let view = |pointer, stride| View {
                        pointer,
                        stride,
                        bytes,
                    };
                    let strides = [[cols, 1], [0, 1]];
                    let a = view(a.pointer(), &strides[0]);
                    let b = view(b.pointer(), &strides[1]);
                    binary::zip_views(kernel, driver, &[rows, cols], a, b, out.pointer()).unwrap();
                },
            ));
        }
    }
    shapes
}
