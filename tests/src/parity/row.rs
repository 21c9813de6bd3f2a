//! Softmax and norms: operations on rows.

use super::number::{
    FLOATS, Tol, U, close, decoded, halves_around_one, normal, off_tie, output, rounded,
    rounds_to_nearest, same, upload,
};
use super::twin::{block, ex2_ftz, lg2, rsqrt, shares};
use super::{Body, Shape};
use std::sync::OnceLock;
use whittle_tensor::gpu::{kernels, norm, softmax};
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{DType, Driver};

/// Rows and columns, how far x and out lie off an aligned address, threads of a block, whether the row stays in shared memory.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    cols: usize,
    shifts: [usize; 2],
    threads: u32,
    resident: bool,
}

impl Case {
    const fn new(
        rows: usize,
        cols: usize,
        shifts: [usize; 2],
        threads: u32,
        resident: bool,
    ) -> Self {
        Self {
            rows,
            cols,
            shifts,
            threads,
            resident,
        }
    }

    /// Bytes of dynamic shared memory, and the kernels' flag for it.
    fn kept(&self, dtype: DType) -> (u32, u32) {
        match self.resident {
            true => ((self.cols * dtype.size_in_bytes()) as u32, 1),
            false => (0, 0),
        }
    }

    /// Whether row `r` of x and of out has vectors.
    fn is_aligned(&self, r: usize, others: &[usize]) -> bool {
        let rows = self.shifts.iter().map(|shift| shift + r * self.cols);
        rows.chain(others.iter().copied())
            .all(|start| start % 4 == 0)
    }
}

/// One warp and eight; rows shorter than a block, as long, and longer; vectors, tails, and neither; rows kept and read again.
const CASES: [Case; 16] = [
    Case::new(2, 1, [0, 0], 32, true),
    Case::new(2, 5, [0, 0], 32, false),
    Case::new(96, 4, [0, 0], 32, true),
    Case::new(96, 64, [1, 1], 32, true),
    Case::new(3, 33, [0, 0], 32, true),
    Case::new(12, 128, [0, 0], 32, true),
    Case::new(2, 256, [0, 0], 32, false),
    Case::new(2, 64, [1, 0], 64, true),
    Case::new(2, 64, [0, 1], 32, false),
    Case::new(8, 260, [0, 0], 64, true),
    Case::new(2, 515, [0, 0], 128, true),
    Case::new(16, 256, [0, 0], 256, true),
    Case::new(8, 1024, [0, 0], 256, true),
    Case::new(1, 1027, [0, 0], 256, false),
    Case::new(1, 2068, [0, 0], 256, true),
    Case::new(2, 600, [3, 1], 256, true),
];

/// So many elements that a rounding of f32 shows through that of a half.
fn many(dtype: DType) -> Vec<Case> {
    let rows = match dtype {
        DType::F16 => 48,
        DType::BF16 => 192,
        _ => return Vec::new(),
    };
    vec![
        Case::new(rows, 1024, [0, 0], 256, true),
        Case::new(rows / 4, 1023, [1, 1], 256, true),
    ]
}

/// What a thread of a softmax block has seen: the greatest element, and the sum of e^(x − greatest).
#[derive(Clone, Copy, Debug)]
struct Seen {
    maximum: f32,
    sum: f32,
}

const NONE: Seen = Seen {
    maximum: f32::MIN,
    sum: 0.0,
};

/// `e^-distance`
fn power(distance: f32) -> f32 {
    ex2_ftz(distance * -std::f32::consts::LOG2_E)
}

impl Seen {
    fn join(self, x: f32) -> Self {
        let distance = x - self.maximum;
        let power = power(distance.abs());
        Self {
            sum: if distance > 0.0 {
                self.sum.mul_add(power, 1.0)
            } else {
                self.sum + power
            },
            maximum: self.maximum.max(x),
        }
    }

    /// What becomes of an element.
    fn result(self, x: f32, is_log: bool) -> f32 {
        let is_infinite = self.maximum == f32::INFINITY;
        let sum = if is_infinite { f32::NAN } else { self.sum };
        if is_log {
            x - self.maximum - lg2(sum) * std::f32::consts::LN_2
        } else {
            power(self.maximum - x) * (1.0 / sum)
        }
    }

    fn merge(self, other: Self) -> Self {
        let maximum = self.maximum.max(other.maximum);
        let sum = self.sum * power(maximum - self.maximum);
        Self {
            maximum,
            sum: other.sum.mul_add(power(maximum - other.maximum), sum),
        }
    }
}

/// The kernel's own operations in its own order.
fn softmax_twin(x: &[f32], is_aligned: bool, threads: u32, is_log: bool) -> Vec<f32> {
    let shares = shares(x.len(), is_aligned, threads as usize);
    let seen: Vec<Seen> = shares
        .iter()
        .map(|share| share.iter().fold(NONE, |seen, &i| seen.join(x[i])))
        .collect();
    let mut out = vec![0.0; x.len()];
    for (share, seen) in shares.iter().zip(block(&seen, NONE, Seen::merge)) {
        for &i in share {
            out[i] = seen.result(x[i], is_log);
        }
    }
    out
}

/// The formula, and how far f32 may be from it.
fn softmax_oracle(x: &[f32], is_log: bool) -> Vec<(f64, Tol)> {
    let wide = || x.iter().map(|x| f64::from(*x));
    let nan = wide().any(f64::is_nan);
    let maximum = wide().fold(f64::NEG_INFINITY, f64::max);
    let least = wide().filter(|x| x.is_finite()).fold(maximum, f64::min);
    let sum: f64 = if nan {
        f64::NAN
    } else {
        wide().map(|x| (x - maximum).exp()).sum()
    };
    // A running sum is rescaled by e^-distance, with an error of the distance's size, and has a chain of additions.
    let steps = 40.0 + (x.len() as f64).log2();
    wide()
        .map(|x| {
            let distance = maximum - x;
            if is_log {
                let y = -distance - sum.ln();
                let error = 1.25 * sum.ln().abs().max(1.0) + y.abs() + steps + 8.0;
                return (
                    y,
                    Tol::of(
                        error * U,
                        "a sum of exponentials, lg2.approx, two differences",
                    ),
                );
            }
            let y = (-distance).exp() / sum;
            let spread = if distance.is_finite() { distance } else { 0.0 };
            let error = y * (1.25 * spread + 0.1 * (maximum - least).min(200.0) + steps) * U;
            (
                y,
                Tol::of(
                    error + 2f64.powi(-126),
                    "an exponential, a sum of them, a product",
                ),
            )
        })
        .collect()
}

/// Four elements, one between 1 and 2, the others below, whose differences from it are rounded; of a half, such that a result is
/// beside a tie and shows the last digit of what it is computed from.
fn fours(dtype: DType, is_log: bool) -> &'static [[f32; 4]] {
    static FOURS: [OnceLock<Vec<[f32; 4]>>; 6] = [const { OnceLock::new() }; 6];
    let of = FLOATS.iter().position(|float| *float == dtype).unwrap();
    FOURS[2 * of + usize::from(is_log)].get_or_init(|| {
        let mut random = Philox4x32::new(23, of as u64);
        let mut found = Vec::new();
        // Those of f32 cost nothing to find.
        let count = if dtype == DType::F32 { 256 } else { 64 };
        while found.len() < count {
            let mut four = [0.0; 4];
            // The difference from a much smaller one is rounded.
            let least = if dtype == DType::F32 { 8 } else { 17 };
            four.fill_with(|| {
                let scale = 2f32.powi(-((random.next_u32() % least) as i32));
                rounded(dtype, (0.1 + 0.4 * random.next_uniform()) * scale)
            });
            let greatest = rounded(dtype, 1.0 + 0.25 * random.next_uniform());
            four[random.next_u32() as usize % 4] = greatest;
            let seen = four.iter().fold(NONE, |seen, x| seen.join(*x));
            let shows = |x: &f32| off_tie(dtype, seen.result(*x, is_log)) <= 1;
            if four.iter().any(shows) {
                found.push(four);
            }
        }
        found
    })
}

/// Rows of different kinds, in turn.
fn softmax_row(dtype: DType, r: usize, cols: usize, kind: usize, is_log: bool) -> Vec<f32> {
    let mut x = normal(dtype, cols, 100 + r as u64);
    x.iter_mut().for_each(|x| *x = rounded(dtype, 5.0 * *x));
    match kind {
        // Masked, and the greatest element twice.
        1 => {
            x.iter_mut().step_by(3).for_each(|x| *x = f32::NEG_INFINITY);
            x[cols / 2] = 20.0;
            x[cols - 1] = 20.0;
        }
        2 => x.fill(f32::NEG_INFINITY),
        3 => x[cols - 1] = f32::NAN,
        4 => x[cols / 2] = f32::INFINITY,
        // Differences beyond what f32 holds, and sums of many equals.
        5 => x
            .iter_mut()
            .step_by(2)
            .for_each(|x| *x = rounded(dtype, -30_000.0)),
        6 => x.fill(0.0),
        7 => x
            .iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x = rounded(dtype, i as f32 * 0.25)),
        8 => x.fill(rounded(dtype, f32::MIN / 2.0)),
        9 => x[cols / 3] = rounded(dtype, f32::MAX),
        // Four elements alone, so that the rounding of each shows: in one thread's vectors, in its singles, in two lanes or warps.
        10.. => {
            let other = if kind < 12 { 1 } else { 4 << (kind - 12) };
            let places: &[usize] = match kind {
                10 => &[0, 1, 2, 3, 128, 129, 130, 131],
                11 => &[0, 32, 64, 96],
                _ => &[0, 1, other, other + 1],
            };
            x.fill(f32::NEG_INFINITY);
            let fours = fours(dtype, is_log);
            let mut values = fours[r * fours.len() / 256 % fours.len()].to_vec();
            if dtype == DType::F32 && kind >= 12 {
                // Two of them, in two lanes or warps, weigh more.
                values.sort_by(f32::total_cmp);
                values = vec![values[r % 3], values[3]];
            }
            let places = if values.len() == 2 {
                &[0, other]
            } else {
                places
            };
            for (j, value) in values.into_iter().enumerate() {
                x[places[(r / 8 + j) % places.len()]] = value;
            }
        }
        _ => {}
    }
    x
}

fn check_softmax(kernel: &Kernel, driver: &dyn Driver, dtype: DType, is_log: bool) {
    let has_twin = rounds_to_nearest(driver);
    // The last ones have a row of each kind, and many of two elements.
    let special = [
        Case::new(10, 70, [0, 0], 32, true),
        Case::new(128, 256, [0, 0], 32, true),
        Case::new(128, 128, [1, 0], 32, true),
        Case::new(256, 1024, [0, 0], 256, true),
    ];
    let many = many(dtype);
    for (at, case) in CASES.into_iter().chain(special).chain(many).enumerate() {
        let Case { rows, cols, .. } = case;
        let kind = |r: usize| match (rows, cols) {
            (10, _) => r,
            (128, 256) => 10,
            (128, 128) => 11,
            (256, _) => 12 + r % 8,
            _ => (at + r) % 2 * 7,
        };
        let x: Vec<Vec<f32>> = (0..rows)
            .map(|r| softmax_row(dtype, r, cols, kind(r), is_log))
            .collect();
        let memory = upload(driver, dtype, &x.concat(), case.shifts[0]);
        let out = output(driver, dtype, rows * cols, case.shifts[1]);
        let (shared, flag) = case.kept(dtype);
        let args = [
            Arg::Ptr(memory.pointer()),
            Arg::Ptr(out.pointer()),
            Arg::U32(cols as u32),
            Arg::U32(flag),
        ];
        let (grid, threads) = ([rows as u32, 1, 1], [case.threads, 1, 1]);
        kernel.launch(driver, grid, threads, shared, &args).unwrap();
        let found = decoded(dtype, &out.bytes());
        compare_softmax(kernel, dtype, &x, &found, case, is_log, has_twin);
    }
    // The launcher's own choices, with a row too long to stay.
    for cols in [100, 24_600] {
        let x = softmax_row(dtype, 0, cols, 0, is_log);
        let memory = upload(driver, dtype, &x, 0);
        let out = output(driver, dtype, cols, 0);
        let bytes = dtype.size_in_bytes() as u32;
        let (from, to) = (memory.pointer(), out.pointer());
        softmax::rows(kernel, driver, from, to, [1, cols], bytes).unwrap();
        softmax::rows(kernel, driver, from, to, [0, cols], bytes).unwrap();
        let threads = cols.div_ceil(4).next_power_of_two().clamp(32, 256) as u32;
        let case = Case::new(1, cols, [0, 0], threads, false);
        let found = decoded(dtype, &out.bytes());
        compare_softmax(kernel, dtype, &[x], &found, case, is_log, has_twin);
    }
}

fn compare_softmax(
    kernel: &Kernel,
    dtype: DType,
    x: &[Vec<f32>],
    found: &[f32],
    case: Case,
    is_log: bool,
    has_twin: bool,
) {
    for (r, (x, found)) in x.iter().zip(found.chunks_exact(case.cols)).enumerate() {
        let twin = softmax_twin(x, case.is_aligned(r, &[]), case.threads, is_log);
        let oracle = softmax_oracle(x, is_log);
        for (i, &found) in found.iter().enumerate() {
            let context = || format!("{} at [{r}, {i}] of {case:?}", kernel.entry());
            if has_twin {
                same(context, found, rounded(dtype, twin[i]));
            }
            let (expected, tol) = oracle[i];
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

const EPS: f32 = 1e-5;

/// The sum of what `f` makes of each element, as a block adds it up.
fn block_sum(shares: &[Vec<usize>], f: impl Fn(f32, usize) -> f32) -> f32 {
    let sums: Vec<f32> = shares
        .iter()
        .map(|share| share.iter().fold(0.0, |sum, &i| f(sum, i)))
        .collect();
    block(&sums, 0.0, |a, b| a + b)[0]
}

/// A row's mean (0 where it is not taken) and the factor of its elements, in the kernel's own operations and order.
fn statistics(x: &[f32], centres: bool, shares: &[Vec<usize>]) -> (f32, f32) {
    let count = x.len() as f32;
    if !centres {
        let square = block_sum(shares, |sum, i| x[i].mul_add(x[i], sum));
        return (0.0, rsqrt(square / count + EPS));
    }
    let mean = block_sum(shares, |sum, i| sum + x[i]) / count;
    let square = block_sum(shares, |sum, i| (x[i] - mean).mul_add(x[i] - mean, sum));
    (mean, rsqrt(square / count + EPS))
}

/// What the kernel makes of an element, its weight and its bias.
fn normed(x: f32, (mean, factor): (f32, f32), weight: f32, bias: Option<f32>) -> f32 {
    match bias {
        None => x * factor * weight,
        Some(bias) => ((x - mean) * factor).mul_add(weight, bias),
    }
}

fn norm_oracle(x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<(f64, Tol)> {
    let len = x.len() as f64;
    let wide = || x.iter().map(|x| f64::from(*x));
    let mean = if bias.is_some() {
        wide().sum::<f64>() / len
    } else {
        0.0
    };
    let magnitude = wide().map(f64::abs).sum::<f64>() / len;
    let variance = wide().map(|x| (x - mean) * (x - mean)).sum::<f64>() / len;
    let scale = (variance + f64::from(EPS)).sqrt();
    // The chain of a thread and the butterflies; the mean's error counts for the elements and for the variance.
    let steps = 24.0 + len / 32.0 / 8.0;
    wide()
        .enumerate()
        .map(|(i, x)| {
            let w = f64::from(weight[i]);
            let b = bias.map_or(0.0, |bias| f64::from(bias[i]));
            let product = (x - mean) / scale * w;
            let lost = bias.map_or(0.0, |_| {
                steps * magnitude / scale * w.abs() * (1.0 + product.abs())
            });
            let error = (steps * product.abs() + b.abs() + lost) * U;
            (
                product + b,
                Tol::of(
                    error,
                    "sums, a quotient, rsqrt.approx, products, a difference",
                ),
            )
        })
        .collect()
}

/// What a norm is launched with.
struct Norm<'a> {
    dtype: DType,
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    /// How far weight and bias lie off an aligned address.
    shifts: [usize; 2],
}

impl Norm<'_> {
    fn launch(&self, kernel: &Kernel, driver: &dyn Driver, case: Case) -> Vec<f32> {
        let dtype = self.dtype;
        let x = upload(driver, dtype, self.x, case.shifts[0]);
        let out = output(driver, dtype, self.x.len(), case.shifts[1]);
        let weight = upload(driver, dtype, self.weight, self.shifts[0]);
        let bias = self
            .bias
            .map(|bias| upload(driver, dtype, bias, self.shifts[1]));
        let (shared, flag) = case.kept(dtype);
        let mut args = vec![Arg::Ptr(x.pointer()), Arg::Ptr(weight.pointer())];
        args.extend(bias.iter().map(|bias| Arg::Ptr(bias.pointer())));
        args.extend([
            Arg::Ptr(out.pointer()),
            Arg::U32(case.cols as u32),
            Arg::F32(EPS),
            Arg::U32(flag),
        ]);
        let (grid, threads) = ([case.rows as u32, 1, 1], [case.threads, 1, 1]);
        kernel.launch(driver, grid, threads, shared, &args).unwrap();
        decoded(dtype, &out.bytes())
    }

    /// The kernel's own operations on row `r`.
    fn twin(&self, case: Case, r: usize) -> Vec<f32> {
        let others = &self.shifts[..1 + usize::from(self.bias.is_some())];
        let is_aligned = case.is_aligned(r, others);
        let shares = shares(case.cols, is_aligned, case.threads as usize);
        let x = &self.x[r * case.cols..][..case.cols];
        let row = statistics(x, self.bias.is_some(), &shares);
        let bias = |i: usize| self.bias.map(|bias| bias[i]);
        (0..case.cols)
            .map(|i| normed(x[i], row, self.weight[i], bias(i)))
            .collect()
    }
}

fn check_norm(kernel: &Kernel, driver: &dyn Driver, dtype: DType, centres: bool) {
    let has_twin = rounds_to_nearest(driver);
    for case in CASES.into_iter().chain(many(dtype)) {
        let Case { rows, cols, .. } = case;
        let shift = 0.3 * f32::from(u8::from(centres));
        let mut x = normal(dtype, rows * cols, 200);
        x.iter_mut().for_each(|x| *x = rounded(dtype, *x + shift));
        if cols == 33 {
            // Rows without variance, and of zeros.
            x[..33].fill(rounded(dtype, 0.7));
            x[33..66].fill(0.0);
        }
        let weight = normal(dtype, cols, 201);
        let bias = centres.then(|| normal(dtype, cols, 202));
        let norm = Norm {
            dtype,
            x: &x,
            weight: &weight,
            bias: bias.as_deref(),
            // The parameters' own alignment, each in turn.
            shifts: [usize::from(cols == 260), usize::from(cols == 515)],
        };
        let found = norm.launch(kernel, driver, case);
        for (r, found) in found.chunks_exact(cols).enumerate() {
            let twin = norm.twin(case, r);
            let oracle = norm_oracle(&x[r * cols..][..cols], &weight, bias.as_deref());
            for (i, &found) in found.iter().enumerate() {
                let context = || format!("{} at [{r}, {i}] of {case:?}", kernel.entry());
                if has_twin {
                    same(context, found, rounded(dtype, twin[i]));
                }
                let (expected, tol) = oracle[i];
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
    if has_twin && dtype != DType::F32 {
        norm_beside_ties(kernel, driver, dtype, centres);
    }
}

/// Rows whose weights put every result as near to a tie of the half as can be, so that it shows the last digit of what it is computed
/// from.
fn norm_beside_ties(kernel: &Kernel, driver: &dyn Driver, dtype: DType, centres: bool) {
    let weights = halves_around_one(dtype);
    let cases = [
        Case::new(1, 1024, [0, 0], 256, true),
        Case::new(1, 1023, [1, 1], 256, true),
    ];
    for (stream, case) in (300..).zip(cases.repeat(6)) {
        let x = normal(dtype, case.cols, stream);
        let bias = centres.then(|| normal(dtype, case.cols, stream + 50));
        let is_aligned = case.is_aligned(0, &[]);
        let shares = shares(case.cols, is_aligned, case.threads as usize);
        let row = statistics(&x, centres, &shares);
        let weight: Vec<f32> = (0..case.cols)
            .map(|i| {
                let bias = bias.as_ref().map(|bias| bias[i]);
                let off = |weight: &f32| off_tie(dtype, normed(x[i], row, *weight, bias));
                weights.iter().copied().min_by_key(off).unwrap()
            })
            .collect();
        let norm = Norm {
            dtype,
            x: &x,
            weight: &weight,
            bias: bias.as_deref(),
            shifts: [0, 0],
        };
        let found = norm.launch(kernel, driver, case);
        for (i, (found, twin)) in found.into_iter().zip(norm.twin(case, 0)).enumerate() {
            let context = || format!("{} beside a tie, at {i} of {case:?}", kernel.entry());
            same(context, found, rounded(dtype, twin));
        }
    }
}

const SOFTMAX: [(&str, bool); 2] = [("softmax", false), ("log_softmax", true)];
const NORMS: [(&str, bool); 2] = [("rms_norm", false), ("layer_norm", true)];

pub(super) fn bodies() -> Vec<Body> {
    let mut bodies = Vec::new();
    for dtype in FLOATS {
        for (op, is_log) in SOFTMAX {
            let kernel = kernels::of(op, dtype).expect(op);
            bodies.push(Body::new(kernel, move |driver| {
                check_softmax(kernel, driver, dtype, is_log);
            }));
        }
        for (op, centres) in NORMS {
            let kernel = kernels::of(op, dtype).expect(op);
            bodies.push(Body::new(kernel, move |driver| {
                check_norm(kernel, driver, dtype, centres);
            }));
        }
    }
    bodies
}

pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for dtype in FLOATS {
        let bytes = dtype.size_in_bytes();
        // A row that stays in shared memory, one that is read again, one with a tail.
        for (rows, cols, resident) in [(16, 4096, true), (2, 32_768, false), (3, 131, true)] {
            let name = format!("{rows}x{cols}");
            let n = rows * cols;
            let floor = |passes: usize| (cols > 131).then_some(passes * n * bytes);
            for (op, _) in SOFTMAX {
                let kernel = kernels::of(op, dtype).expect(op);
                let floor = floor(if resident { 2 } else { 3 });
                shapes.push(Shape::new(kernel, name.clone(), n, floor, move |driver| {
                    let x = upload(driver, dtype, &normal(dtype, n, 1), 0);
                    let out = output(driver, dtype, n, 0);
                    let (x, out) = (x.pointer(), out.pointer());
                    softmax::rows(kernel, driver, x, out, [rows, cols], bytes as u32).unwrap();
                }));
            }
            for (op, centres) in NORMS {
                let kernel = kernels::of(op, dtype).expect(op);
                let floor = floor(match (centres, resident) {
                    (false, true) => 3,
                    (false, false) | (true, true) => 4,
                    (true, false) => 6,
                });
                shapes.push(Shape::new(kernel, name.clone(), n, floor, move |driver| {
                    let x = upload(driver, dtype, &normal(dtype, n, 1), 0);
                    let weight = upload(driver, dtype, &normal(dtype, cols, 2), 0);
                    let out = output(driver, dtype, n, 0);
                    let parameters = vec![weight.pointer(); 1 + usize::from(centres)];
                    let (x, out) = (x.pointer(), out.pointer());
                    norm::rows(
                        kernel,
                        driver,
                        x,
                        &parameters,
                        out,
                        [rows, cols],
                        EPS,
                        bytes as u32,
                    )
                    .unwrap();
                }));
            }
        }
    }
    shapes
}
