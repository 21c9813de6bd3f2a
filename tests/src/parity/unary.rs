//! Functions of one element.

use super::number::{FLOATS, Tol, U, close, output, rounded, rounds_to_nearest, same, upload};
use super::twin::{ex2, ex2_ftz, lg2};
use super::{Body, Shape};
use half::{bf16, f16};
use std::f64::consts::{LN_2, PI};
use std::ops::Range;
use std::sync::OnceLock;
use whittle_tensor::gpu::{kernels, unary};
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{DType, DevicePtr, Driver};

/// One function: its name, the formula in f64, the kernel's operations in f32, and how far f32 may be from the formula.
struct Function {
    op: &'static str,
    /// The second operand of `add_scalar` and `mul_scalar`.
    value: Option<f32>,
    oracle: fn(f64) -> f64,
    twin: fn(f32) -> f32,
    /// Whether the twin has the bits on every device.
    is_exact: bool,
    tol: fn(f64, f64) -> Tol,
}

const VALUE: f32 = -1.7;
const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// The error of e^t by ex2.approx: 2 ulp, and the rounding of t log2 e, which the exponential turns into a relative one.
fn power(t: f64) -> f64 {
    (1.25 * t.abs() + 5.0) * U
}

fn one_rounding(_: f64, y: f64) -> Tol {
    Tol::of(y.abs() * U + 2f64.powi(-150), "one rounding")
}

const FUNCTIONS: [Function; 12] = [
    Function {
        op: "neg",
        value: None,
        oracle: |x| -x,
        twin: |x| -x,
        is_exact: true,
        tol: |_, _| Tol::of(0.0, "a sign"),
    },
    Function {
        op: "exp",
        value: None,
        oracle: f64::exp,
        twin: |x| ex2(x * LOG2_E),
        is_exact: false,
        tol: |x, y| {
            Tol::of(
                y * power(x) + 2f64.powi(-147),
                "ex2.approx of a rounded product",
            )
        },
    },
    Function {
        op: "ln",
        value: None,
        oracle: f64::ln,
        twin: ln,
        is_exact: false,
        tol: |x, y| match () {
            () if (x - 1.0).abs() < f64::from(EDGE) => {
                Tol::of(4.0 * U * y.abs(), "four terms of atanh")
            }
            () if x > 0.5 && x < 2.0 => Tol::of(4.0 * U * LN_2 + 2.0 * U * y.abs(), "lg2.approx"),
            () => Tol::of(6.0 * U * y.abs(), "lg2.approx, a product"),
        },
    },
    Function {
        op: "sqrt",
        value: None,
        oracle: f64::sqrt,
        twin: f32::sqrt,
        is_exact: true,
        tol: one_rounding,
    },
    Function {
        op: "tanh",
        value: None,
        oracle: f64::tanh,
        twin: tanh,
        is_exact: false,
        tol: |_, y| {
            Tol::of(
                16.0 * U * y.abs(),
                "a quarter of the error of e^2x, four terms of a series",
            )
        },
    },
    Function {
        op: "sigmoid",
        value: None,
        oracle: |x| 1.0 / (1.0 + (-x).exp()),
        twin: |x| 1.0 / (1.0 + ex2_ftz(x * -LOG2_E)),
        is_exact: false,
        tol: |x, y| {
            Tol::of(
                y * (power(x) + 3.0 * U) + 2f64.powi(-126),
                "e^-x, a sum, a quotient",
            )
        },
    },
    Function {
        op: "silu",
        value: None,
        oracle: silu_f64,
        twin: silu,
        is_exact: false,
        tol: |x, y| {
            Tol::of(
                y.abs() * (power(x) + 3.0 * U) + x.abs() * 2f64.powi(-127) + 2f64.powi(-149),
                "e^-x, a sum, a quotient",
            )
        },
    },
    Function {
        op: "relu",
        value: None,
        oracle: |x| if x < 0.0 { 0.0 } else { x },
        twin: |x| if x < 0.0 { 0.0 } else { x },
        is_exact: true,
        tol: |_, _| Tol::of(0.0, "a choice"),
    },
    Function {
        op: "gelu_erf",
        value: None,
        oracle: |x| x * normal_cdf(x),
        twin: gelu_erf,
        is_exact: false,
        tol: |x, y| {
            let error = y.abs() * (1.5 * x * x + 24.0) * U;
            Tol::of(
                error + x.abs() * 2f64.powi(-125) + 2f64.powi(-149),
                "a polynomial, e^(-x²/2), four products, a difference from 1",
            )
        },
    },
    Function {
        op: "gelu_tanh",
        value: None,
        oracle: |x| silu_f64_of(x, 2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)),
        twin: gelu_tanh,
        is_exact: false,
        tol: |x, y| {
            let argument = 2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x);
            let error = (4.0 * argument.abs() + 8.0) * U;
            Tol::of(
                y.abs() * error + x.abs() * 2f64.powi(-127) + 2f64.powi(-149),
                "e^-u of three roundings, a sum, a quotient",
            )
        },
    },
    Function {
        op: "add_scalar",
        value: Some(VALUE),
        oracle: |x| x + f64::from(VALUE),
        twin: |x| x + VALUE,
        is_exact: true,
        tol: one_rounding,
    },
    Function {
        op: "mul_scalar",
        value: Some(VALUE),
        oracle: |x| x * f64::from(VALUE),
        twin: |x| x * VALUE,
        is_exact: true,
        tol: one_rounding,
    },
];

/// `x / (1 + e^-u)`; 0 and not NaN where `x` is −∞.
fn silu_f64_of(x: f64, u: f64) -> f64 {
    let sum = 1.0 + (-u).exp();
    x / sum
}

fn silu_f64(x: f64) -> f64 {
    silu_f64_of(x, x)
}

pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + ex2_ftz(x * -LOG2_E))
}

/// How far from 1 the series for the logarithm goes.
const EDGE: f32 = 241.0 / 1024.0;

/// ln x by lg2, near 1 by 2 atanh((x − 1) / (x + 1)).
fn ln(x: f32) -> f32 {
    let above = x - 1.0;
    let near = log_series(above / (x + 1.0));
    if above.abs() < EDGE {
        near
    } else {
        lg2(x) * std::f32::consts::LN_2
    }
}

/// `2 atanh s` by its first four terms.
pub(super) fn log_series(s: f32) -> f32 {
    let square = s * s;
    let series = square.mul_add(2.0 / 7.0, 0.4);
    let series = square.mul_add(series, 2.0 / 3.0);
    s * square.mul_add(series, 2.0)
}

fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let power = ex2_ftz(size * (2.0 * LOG2_E)) + 1.0;
    let far = -2.0 / power + 1.0;
    let square = size * size;
    let series = square.mul_add(-17.0 / 315.0, 2.0 / 15.0);
    let series = square.mul_add(series, -1.0 / 3.0);
    let near = (square * size).mul_add(series, size);
    if size < 0.25 { near } else { far }.copysign(x)
}

fn gelu_tanh(x: f32) -> f32 {
    let linear = f32::from_bits(0xC013_5761);
    let cubic = f32::from_bits(0xBDD2_D3E8);
    x / (1.0 + ex2_ftz((x * x).mul_add(cubic, linear) * x))
}

fn gelu_erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / size.mul_add(0.3 * std::f32::consts::FRAC_1_SQRT_2, 1.0);
    let shifted = (t - 0.620_481_9) * 2.634_920_6;
    let mut tail = shifted.mul_add(-5.634_747e-5, -1.783_180_7e-4);
    for c in [
        6.001_702e-4,
        6.563_232_7e-3,
        0.028_257_053,
        0.081_620_71,
        0.177_170_29,
        0.300_998_7,
        0.405_024_52,
    ] {
        tail = shifted.mul_add(tail, c);
    }
    tail = tail * t * ex2_ftz(size * size * (-0.5 * LOG2_E)) * 0.5;
    x * if x < 0.0 { tail } else { -tail + 1.0 }
}

/// Φ(x) by Gauss's rule with five points in each of 64 panels of the density over the lower tail: no series, no fraction.
fn normal_cdf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let root = |sign: f64| (5.0 + sign * 2.0 * (10.0f64 / 7.0).sqrt()).sqrt() / 3.0;
    let weight = |sign: f64| (322.0 + sign * 13.0 * 70f64.sqrt()) / 900.0;
    let points = [
        (0.0, 128.0 / 225.0),
        (root(-1.0), weight(1.0)),
        (-root(-1.0), weight(1.0)),
        (root(1.0), weight(-1.0)),
        (-root(1.0), weight(-1.0)),
    ];
    let half = 12.0 / 128.0;
    let start = -x.abs().min(1e3) - 12.0;
    let panel = |centre: f64| -> f64 {
        let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * PI).sqrt();
        points
            .iter()
            .map(|(point, weight)| weight * density(centre + half * point))
            .sum::<f64>()
            * half
    };
    let tail: f64 = (0..64)
        .map(|i| panel(start + f64::from(2 * i + 1) * half))
        .sum();
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// Numbers around every threshold, over all magnitudes and, more densely, where the function's own series matter most.
fn inputs(op: &str) -> Vec<f32> {
    let mut values = vec![
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        1e-40,
        -1e-40,
        f32::from_bits(1),
    ];
    for edge in [
        0.25f32,
        1.0 - EDGE,
        1.0,
        1.0 + EDGE,
        2.0,
        14.8,
        87.5,
        88.5,
        103.5,
    ] {
        for bits in [edge.to_bits() - 1, edge.to_bits(), edge.to_bits() + 1] {
            values.extend([f32::from_bits(bits), -f32::from_bits(bits)]);
        }
    }
    let mut random = Philox4x32::new(11, 0);
    let mut uniform = |low: f32, high: f32| low + (high - low) * random.next_uniform();
    values.extend((0..500).map(|_| uniform(-1.0, 1.0)));
    values.extend((0..500).map(|_| uniform(0.0, 2.5)));
    values.extend((0..500).map(|_| uniform(-16.0, 16.0)));
    values.extend((0..500).map(|_| uniform(-104.0, 104.0)));
    values.extend((0..1000).map(|_| uniform(1.0, 2.0) * uniform(-140.0, 127.0).floor().exp2()));
    values.extend(revealing(op).iter().map(|bits| f32::from_bits(*bits)));
    let dense = match op {
        "ln" => [(0.764_7, 0.82), (1.18, 1.235_3)],
        "tanh" => [(-0.25, -0.18), (0.18, 0.25)],
        "gelu_erf" => [(-4.0, 0.0), (-12.0, -4.0)],
        _ => [(-104.0, 104.0), (-4.0, 4.0)],
    };
    for (low, high) in dense {
        values.extend((0..1000).map(|_| uniform(low, high)));
    }
    // Whole vectors, so that every value comes into each of their places.
    values.truncate(values.len() / 4 * 4);
    values
}

/// Inputs at which another rounding, or another last digit of a constant, in a single operation of the function's series shows in its
/// result, as bits. Such inputs are rare; these were found by search.
fn revealing(op: &str) -> &'static [u32] {
    match op {
        "ln" => &[
            0x3f44_04c2,
            0x3f44_7b33,
            0x3f45_594b,
            0x3f49_558c,
            0x3f49_c82c,
            0x3f4a_6a08,
            0x3f4b_945b,
            0x3f4c_5570,
            0x3f4c_87f2,
            0x3f4c_967f,
        ],
        "tanh" => &[
            0x3e45_2bf0,
            0x3e54_49e1,
            0x3e54_affb,
            0x3e5d_ccfc,
            0x3e67_50e2,
            0x3e69_32b0,
            0x3e70_4178,
            0x3e73_9599,
            0x3e7a_0e8b,
            0x3e7b_751e,
            0x3e7b_b3bc,
            0x3e80_0000,
        ],
        "gelu_erf" => &[
            0xbbfe_6800,
            0xbc42_ea00,
            0xbcb7_bd00,
            0xbd48_5d00,
            0xbde6_1980,
            0xbe0a_2ba0,
            0xbe3f_66c0,
            0xbe63_2020,
            0xbe84_1580,
            0xbf0d_ffa0,
            0xbf10_7770,
            0xbf48_bf78,
            0xbfa8_f77a,
            0xbfae_af62,
            0xbfbe_9498,
            0xbfd5_bedc,
            0xbff4_18d6,
            0xc060_5510,
            0xc07a_a605,
            0xc083_ed2b,
            0xc14f_9576,
        ],
        _ => &[],
    }
}

/// Every value of a half, or the numbers above.
fn values(op: &str, dtype: DType) -> Vec<f32> {
    match dtype {
        DType::F16 => (0..=u16::MAX)
            .map(|bits| f16::from_bits(bits).to_f32())
            .collect(),
        DType::BF16 => (0..=u16::MAX)
            .map(|bits| bf16::from_bits(bits).to_f32())
            .collect(),
        _ => inputs(op),
    }
}

/// A length, how many elements `x` and `out` lie off an aligned address, and a number of blocks other than the launcher's.
type Case = (usize, usize, usize, Option<u32>);

/// Whole vectors and tails, several trips of both loops, and exactly as many elements as threads.
pub(super) const CASES: [Case; 12] = [
    (1, 0, 0, None),
    (4, 0, 0, None),
    (7, 0, 0, None),
    (1023, 0, 0, None),
    (1024, 0, 0, None),
    (2051, 0, 0, Some(1)),
    (2048, 0, 0, Some(1)),
    (2600, 0, 0, Some(2)),
    (5, 1, 1, None),
    (512, 1, 0, Some(1)),
    (600, 0, 1, Some(1)),
    (257, 3, 3, Some(1)),
];

fn launch(
    kernel: &Kernel,
    driver: &dyn Driver,
    dtype: DType,
    x: &[f32],
    value: Option<f32>,
    (n, x_shift, out_shift, blocks): Case,
) -> Vec<f32> {
    let memory = upload(driver, dtype, &x[..n], x_shift);
    let out = output(driver, dtype, n, out_shift);
    let (from, to) = (memory.pointer(), out.pointer());
    match (blocks, value) {
        (None, None) => unary::map(kernel, driver, from, to, n).unwrap(),
        (None, Some(value)) => unary::map_with(kernel, driver, from, to, value, n).unwrap(),
        (Some(blocks), value) => {
            let mut args = vec![Arg::Ptr(from), Arg::Ptr(to)];
            args.extend(value.map(Arg::F32));
            args.push(Arg::U32(n as u32));
            let (grid, block) = ([blocks, 1, 1], [256, 1, 1]);
            kernel.launch(driver, grid, block, 0, &args).unwrap();
        }
    }
    super::number::decoded(dtype, &out.bytes())
}

pub(super) fn bodies() -> Vec<Body> {
    let mut bodies = Vec::new();
    for function in &FUNCTIONS {
        for dtype in FLOATS {
            let kernel = kernels::of(function.op, dtype).expect(function.op);
            // Computed once, for all drivers: an oracle can be slow.
            let expected = OnceLock::new();
            bodies.push(Body::new(kernel, move |driver| {
                let expected = expected.get_or_init(|| Expected::of(function, dtype));
                expected.check(kernel, driver, function.value);
            }));
        }
    }
    bodies
}

/// What a kernel must make of all values of a type.
struct Expected {
    dtype: DType,
    is_exact: bool,
    x: Vec<f32>,
    twin: Vec<f32>,
    oracle: Vec<(f64, Tol)>,
}

impl Expected {
    fn of(function: &Function, dtype: DType) -> Self {
        let x = values(function.op, dtype);
        let twin = |x: &f32| rounded(dtype, (function.twin)(*x));
        let oracle = |x: &f32| {
            let expected = (function.oracle)(f64::from(*x));
            let tol = (function.tol)(f64::from(*x), expected);
            (expected, tol.rounded_to(dtype, expected))
        };
        Self {
            dtype,
            is_exact: function.is_exact,
            twin: x.iter().map(twin).collect(),
            oracle: x.iter().map(oracle).collect(),
            x,
        }
    }

    fn check(&self, kernel: &Kernel, driver: &dyn Driver, value: Option<f32>) {
        let has_twin = self.is_exact || rounds_to_nearest(driver);
        let len = self.x.len();
        let run = |range: Range<usize>, case: Case| {
            let at = |place: usize| (range.start + place) % len;
            let x: Vec<f32> = (0..range.len()).map(|place| self.x[at(place)]).collect();
            let found = launch(kernel, driver, self.dtype, &x, value, case);
            for (place, found) in found.into_iter().enumerate() {
                let at = at(place);
                let context = || format!("{} of {:e}, {case:?}", kernel.entry(), self.x[at]);
                if has_twin {
                    same(context, found, self.twin[at]);
                }
                let (expected, tol) = self.oracle[at];
                close(context, self.dtype, found, expected, tol);
            }
        };
        // The short ones first, in which a wrong kernel shows soonest.
        for case in CASES {
            run(0..case.0, case);
        }
        // Every value in every place of a vector, and behind vectors: what then computes the same is the same function.
        for first in 0..4 {
            run(first..first + len, (len, 0, 0, None));
        }
        run(0..len, (len, 1, 1, None));
        // Nothing is launched for nothing.
        let nowhere = DevicePtr::new(0);
        unary::map(kernel, driver, nowhere, nowhere, 0).unwrap();
    }
}

/// Elements of a whole shape.
pub(super) const WHOLE: usize = 1 << 16;
/// A shape with a tail.
pub(super) const PRIME: usize = 1009;

pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for function in &FUNCTIONS {
        for dtype in FLOATS {
            let kernel = kernels::of(function.op, dtype).expect(function.op);
            for n in [WHOLE, PRIME] {
                let floor = (n == WHOLE).then_some(2 * n * dtype.size_in_bytes());
                shapes.push(Shape::new(kernel, n.to_string(), n, floor, move |driver| {
                    let x = super::number::normal(dtype, n, 1);
                    launch(kernel, driver, dtype, &x, function.value, (n, 0, 0, None));
                }));
            }
        }
    }
    shapes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_as_near_to_their_oracles_as_kernels_must_be() {
        for function in &FUNCTIONS {
            for dtype in FLOATS {
                let all = Expected::of(function, dtype);
                for ((x, twin), (expected, tol)) in all.x.iter().zip(&all.twin).zip(&all.oracle) {
                    let context = || format!("{} of {x:e} in {dtype}", function.op);
                    close(context, dtype, *twin, *expected, *tol);
                }
            }
        }
    }
}
