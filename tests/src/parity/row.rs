//! Softmax and norms: operations on rows.

use super::number::{
    FLOATS, Tol, U, close, decoded, normal, output, rounded, rounds_to_nearest, same, upload,
};
use super::ops::{Ops, search, telling};
use super::twin::{block, ex2_ftz, lg2, rsqrt, shares};
use super::{Body, Shape};
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

/// Where rows of norms are searched that tell of each instruction: vectors of one warp, elements one by one, vectors of five warps.
const TELLING: [Case; 3] = [
    Case::new(1, 132, [0, 0], 32, true),
    Case::new(1, 67, [1, 1], 32, true),
    Case::new(1, 520, [0, 0], 256, true),
];

/// How many rows are drawn to find those that tell.
const fn trials(dtype: DType, cols: usize) -> usize {
    let elements = match dtype {
        DType::BF16 => 12_000_000,
        DType::F16 => 3_000_000,
        _ => 60_000,
    };
    elements / cols
}

/// Which instruction meets an element: that of its place in a vector, or that of the elements one by one.
fn place(i: usize, cols: usize, is_aligned: bool) -> usize {
    if is_aligned && i < cols / 4 * 4 {
        i % 4
    } else {
        4
    }
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
fn power(ops: &Ops, site: usize, distance: f32) -> f32 {
    ex2_ftz(ops.mul(site, distance, -std::f32::consts::LOG2_E))
}

// Sites of softmax, eight for each of five places that join, eight butterflies, five places of results, and one more.
const MERGE: usize = 40;
const RESULT: usize = MERGE + 64;
const FACTOR: usize = RESULT + 40;

impl Seen {
    fn join(self, ops: &Ops, place: usize, x: f32) -> Self {
        let site = 8 * place;
        let distance = ops.sub(site, x, self.maximum);
        let power = power(ops, site + 1, distance.abs());
        let grown = ops.fma(site + 2, self.sum, power, 1.0);
        let added = ops.add(site + 3, self.sum, power);
        Self {
            sum: if distance > 0.0 { grown } else { added },
            maximum: self.maximum.max(x),
        }
    }

    /// What results are made with: the factor of e^(x − maximum), or what is taken from x − maximum.
    fn last(self, ops: &Ops, is_log: bool) -> f32 {
        let is_infinite = self.maximum == f32::INFINITY;
        let sum = if is_infinite { f32::NAN } else { self.sum };
        match is_log {
            true => ops.mul(FACTOR, lg2(sum), std::f32::consts::LN_2),
            false => ops.div(FACTOR, 1.0, sum),
        }
    }

    /// What becomes of an element.
    fn result(self, ops: &Ops, place: usize, x: f32, last: f32, is_log: bool) -> f32 {
        let site = RESULT + 8 * place;
        if is_log {
            return ops.sub(site + 1, ops.sub(site, x, self.maximum), last);
        }
        let distance = ops.sub(site, self.maximum, x);
        ops.mul(site + 2, power(ops, site + 1, distance), last)
    }

    fn merge(self, ops: &Ops, butterfly: usize, other: Self) -> Self {
        let site = MERGE + 8 * butterfly;
        let maximum = self.maximum.max(other.maximum);
        let own = power(ops, site + 1, ops.sub(site, maximum, self.maximum));
        let sum = ops.mul(site + 2, self.sum, own);
        let others = power(ops, site + 4, ops.sub(site + 3, maximum, other.maximum));
        Self {
            maximum,
            sum: ops.fma(site + 5, other.sum, others, sum),
        }
    }
}

/// The kernel's own operations in its own order.
fn softmax_twin(ops: &Ops, x: &[f32], is_aligned: bool, threads: u32, is_log: bool) -> Vec<f32> {
    let shares = shares(x.len(), is_aligned, threads as usize);
    let place = |i: usize| place(i, x.len(), is_aligned);
    let seen: Vec<Seen> = shares
        .iter()
        .map(|share| (share.iter()).fold(NONE, |seen, &i| seen.join(ops, place(i), x[i])))
        .collect();
    let merge = |a: Seen, b: Seen, butterfly: usize| a.merge(ops, butterfly, b);
    let mut out = vec![0.0; x.len()];
    for (share, seen) in shares.iter().zip(block(&seen, NONE, merge)) {
        if share.is_empty() {
            continue;
        }
        let last = seen.last(ops, is_log);
        for &i in share {
            out[i] = seen.result(ops, place(i), x[i], last, is_log);
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

/// Where softmax rows are searched that tell of each instruction: vectors of one warp, elements one by one, and all warps.
const SPARSE: [Case; 3] = [
    Case::new(1, 512, [0, 0], 32, true),
    Case::new(1, 131, [1, 1], 32, true),
    Case::new(1, 1024, [0, 0], 256, true),
];

/// The thread that meets an element.
const fn thread_of(i: usize, is_aligned: bool, threads: usize) -> usize {
    if is_aligned {
        i / 4 % threads
    } else {
        i % threads
    }
}

/// What [`softmax_twin`] computes where all but a few elements, of at most two threads, are −∞: those leave everything as it is.
fn sparse_twin(ops: &Ops, row: &[f32], case: Case, is_log: bool) -> Vec<f32> {
    let is_aligned = case.is_aligned(0, &[]);
    let threads = case.threads as usize;
    let elements = || row.chunks_exact(2).map(|of| (of[0] as usize, of[1]));
    let mut states = [(0, NONE); 2];
    let first = elements()
        .next()
        .map_or(0, |(i, _)| thread_of(i, is_aligned, threads));
    states[0].0 = first;
    for (i, x) in elements() {
        let thread = thread_of(i, is_aligned, threads);
        let state = &mut states[usize::from(thread != first)];
        state.0 = thread;
        state.1 = state.1.join(ops, place(i, case.cols, is_aligned), x);
    }
    let [(a, of_a), (b, of_b)] = states;
    let last = |thread: usize| {
        if of_b.sum == 0.0 {
            return of_a;
        }
        // The lane that gives the warp's state, or the one of eight that gives the block's.
        let (distance, of, own) = match (a / 32, b / 32) {
            (of_a, of_b) if of_a == of_b => (a ^ b, 0, a % 32),
            (of_a, of_b) => (of_a ^ of_b, thread % 8, of_a),
        };
        let in_warp = a / 32 == b / 32;
        let butterfly = if in_warp { 4 } else { 7 } - distance.ilog2() as usize;
        match (of ^ own) & distance {
            0 => of_a.merge(ops, butterfly, of_b),
            _ => of_b.merge(ops, butterfly, of_a),
        }
    };
    elements()
        .map(|(i, x)| {
            let seen = last(thread_of(i, is_aligned, threads));
            let factor = seen.last(ops, is_log);
            seen.result(ops, place(i, case.cols, is_aligned), x, factor, is_log)
        })
        .collect()
}

/// Rows on which every rounding shows: a few elements, of one thread or of two that meet in a butterfly, one of them greater than the
/// others, in some rows by so much that differences from it are rounded. Each is a list of places and elements in turn.
fn sparse_search(dtype: DType, case: Case, is_log: bool) -> Vec<Vec<f32>> {
    let Case { cols, threads, .. } = case;
    let threads = threads as usize;
    let wide = if case.is_aligned(0, &[]) { 4 } else { 1 };
    let mut random = Philox4x32::new(23, cols as u64);
    let draw = || {
        let mut below = |n: usize| random.next_u32() as usize % n;
        let thread = below(threads);
        let partner = thread ^ (below(4).min(1) << below(threads.ilog2() as usize));
        let mut places: Vec<usize> = (0..3 + below(3))
            .map(|_| {
                let thread = [thread, partner][below(2)];
                let round = below(cols / wide / threads);
                wide * (round * threads + thread) + below(wide)
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        let greatest = below(places.len());
        let least = [0, below(8), 8 + below(14)][below(3)];
        let (scale, range) = (below(4), 1 + below(8));
        let mut row = Vec::new();
        for (at, place) in places.into_iter().enumerate() {
            let (size, power) = match at == greatest {
                true => (1.0, scale as i32),
                false => (0.3, -((least + below(range)) as i32)),
            };
            let uniform = below(1 << 24) as f32 / (1 << 24) as f32;
            let x = (1.0 + uniform) * size * 2f32.powi(power);
            row.extend([place as f32, rounded(dtype, x)]);
        }
        row
    };
    let trials = match dtype {
        DType::BF16 => 50_000_000,
        DType::F16 => 10_000_000,
        _ => 100_000,
    };
    search(dtype, trials, draw, |ops, row| {
        sparse_twin(ops, row, case, is_log)
    })
}

/// What stands before a row of the file that [`softmax_rows`] makes.
fn label(dtype: DType, case: Case, is_log: bool) -> String {
    format!("{dtype:?}\t{is_log}\t{}\t", case.cols)
}

/// The file `softmax.tsv`: a line for each row, with the type, whether the logarithm is taken, columns, and places with elements.
pub fn softmax_rows() -> String {
    let mut text = String::new();
    for dtype in FLOATS {
        for (case, is_log) in SPARSE
            .into_iter()
            .flat_map(|case| [(case, false), (case, true)])
        {
            for row in sparse_search(dtype, case, is_log) {
                let of = |of: &[f32]| format!("{}:{:e}", of[0], of[1]);
                let row: Vec<String> = row.chunks_exact(2).map(of).collect();
                text += &format!("{}{}\n", label(dtype, case, is_log), row.join(" "));
            }
        }
    }
    text
}

/// The file's rows of a kernel and case.
fn sparse_rows(dtype: DType, case: Case, is_log: bool) -> Vec<Vec<f32>> {
    let label = label(dtype, case, is_log);
    let number = |text: &str| text.parse::<f32>().expect("a number");
    include_str!("softmax.tsv")
        .lines()
        .filter_map(|line| line.strip_prefix(&label))
        .map(|row| row.split([' ', ':']).map(number).collect())
        .collect()
}

/// Whole rows of those few elements.
fn softmax_telling(dtype: DType, case: Case, is_log: bool) -> Vec<Vec<f32>> {
    let whole = |row: Vec<f32>| {
        let mut x = vec![f32::NEG_INFINITY; case.cols];
        row.chunks_exact(2).for_each(|of| x[of[0] as usize] = of[1]);
        x
    };
    let rows = sparse_rows(dtype, case, is_log);
    assert!(
        rows.len() > 10,
        "softmax.tsv: {dtype:?} of {case:?}: {} rows",
        rows.len()
    );
    rows.into_iter().map(whole).collect()
}

/// Rows of different kinds, in turn.
fn softmax_row(dtype: DType, r: usize, cols: usize, kind: usize) -> Vec<f32> {
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
        _ => {}
    }
    x
}

fn check_softmax(kernel: &Kernel, driver: &dyn Driver, dtype: DType, is_log: bool) {
    let has_twin = rounds_to_nearest(driver);
    let launch = |case: Case, x: &[Vec<f32>]| {
        let memory = upload(driver, dtype, &x.concat(), case.shifts[0]);
        let out = output(driver, dtype, case.rows * case.cols, case.shifts[1]);
        let (shared, flag) = case.kept(dtype);
        let args = [
            Arg::Ptr(memory.pointer()),
            Arg::Ptr(out.pointer()),
            Arg::U32(case.cols as u32),
            Arg::U32(flag),
        ];
        let (grid, threads) = ([case.rows as u32, 1, 1], [case.threads, 1, 1]);
        kernel.launch(driver, grid, threads, shared, &args).unwrap();
        let found = decoded(dtype, &out.bytes());
        compare_softmax(kernel, dtype, x, &found, case, is_log, has_twin);
    };
    // The last one has a row of each kind.
    let special = Case::new(10, 70, [0, 0], 32, true);
    for (at, case) in CASES.into_iter().chain([special]).enumerate() {
        let kind = |r: usize| match case.rows {
            10 => r,
            _ => (at + r) % 2 * 7,
        };
        let x: Vec<Vec<f32>> = (0..case.rows)
            .map(|r| softmax_row(dtype, r, case.cols, kind(r)))
            .collect();
        launch(case, &x);
    }
    for case in SPARSE {
        let x = softmax_telling(dtype, case, is_log);
        let rows = x.len();
        // Rows that are not all vectors lie as the first one does.
        if case.cols % 4 == 0 {
            launch(Case { rows, ..case }, &x);
        } else {
            x.chunks(1).for_each(|x| launch(case, x));
        }
    }
    // The launcher's own choices, with a row too long to stay.
    for cols in [100, 24_600] {
        let x = softmax_row(dtype, 0, cols, 0);
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
        let is_aligned = case.is_aligned(r, &[]);
        let twin = softmax_twin(&Ops::default(), x, is_aligned, case.threads, is_log);
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

// Sites of norms: for each of five places a few, then butterflies of both sums, then what a row has once.
const SQUARE: usize = 5;
const OUT: usize = 15;
const BUTTERFLY: usize = 30;
const ROW: usize = 46;

/// The sum of what `f` makes of each element, as a block adds it up.
fn block_sum(ops: &Ops, site: usize, shares: &[Vec<usize>], f: impl Fn(f32, usize) -> f32) -> f32 {
    let sums: Vec<f32> = shares
        .iter()
        .map(|share| share.iter().fold(0.0, |sum, &i| f(sum, i)))
        .collect();
    block(&sums, 0.0, |a, b, butterfly| {
        ops.add(site + butterfly, a, b)
    })[0]
}

/// A row's results in the kernel's own operations and order.
fn norm_twin(
    ops: &Ops,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    is_aligned: bool,
    threads: u32,
) -> Vec<f32> {
    let (count, cols) = (x.len() as f32, x.len());
    let shares = shares(cols, is_aligned, threads as usize);
    let place = |i: usize| place(i, cols, is_aligned);
    let mean = bias.map(|_| {
        let sum = block_sum(ops, BUTTERFLY, &shares, |sum, i| {
            ops.add(place(i), sum, x[i])
        });
        ops.div(ROW, sum, count)
    });
    let square = block_sum(ops, BUTTERFLY + 8, &shares, |sum, i| {
        let site = SQUARE + 2 * place(i);
        let difference = mean.map_or(x[i], |mean| ops.sub(site, x[i], mean));
        ops.fma(site + 1, difference, difference, sum)
    });
    let factor = rsqrt(ops.add(ROW + 2, ops.div(ROW + 1, square, count), EPS));
    let out = |i: usize| {
        let site = OUT + 3 * place(i);
        match (mean, bias) {
            (Some(mean), Some(bias)) => {
                let product = ops.mul(site + 1, ops.sub(site, x[i], mean), factor);
                ops.fma(site + 2, product, weight[i], bias[i])
            }
            _ => ops.mul(site + 1, ops.mul(site, x[i], factor), weight[i]),
        }
    };
    (0..cols).map(out).collect()
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
    fn twin(&self, ops: &Ops, case: Case, r: usize) -> Vec<f32> {
        let others = &self.shifts[..1 + usize::from(self.bias.is_some())];
        let is_aligned = case.is_aligned(r, others);
        let x = &self.x[r * case.cols..][..case.cols];
        norm_twin(ops, x, self.weight, self.bias, is_aligned, case.threads)
    }
}

/// Rows on which every rounding shows.
fn norm_telling(dtype: DType, case: Case, weight: &[f32], bias: Option<&[f32]>) -> Vec<Vec<f32>> {
    let Case { cols, threads, .. } = case;
    let mut random = Philox4x32::new(29, cols as u64);
    let draw = || {
        let (scale, shift) = (0.5 + random.next_uniform(), 2.0 * random.next_normal());
        let shift = if bias.is_some() { shift } else { 0.0 };
        // Sums of halves are exact where they are all of a size.
        let has_small = random.next_u32().is_multiple_of(2);
        (0..cols)
            .map(|_| {
                let power = random.next_u32() % 32;
                let x = match has_small && power < 16 {
                    true => random.next_normal() * 2f32.powi(-(power as i32)),
                    false => scale * random.next_normal() + shift,
                };
                rounded(dtype, x)
            })
            .collect()
    };
    let is_aligned = case.is_aligned(0, &[]);
    let name = format!("norm {dtype:?} {} {cols}", bias.is_some());
    telling(name, dtype, trials(dtype, cols), draw, |ops, x| {
        norm_twin(ops, x, weight, bias, is_aligned, threads)
    })
}

fn check_norm(kernel: &Kernel, driver: &dyn Driver, dtype: DType, centres: bool) {
    let has_twin = rounds_to_nearest(driver);
    for case in CASES {
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
            let twin = norm.twin(&Ops::default(), case, r);
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
    if !has_twin {
        return;
    }
    for case in TELLING {
        let weight = normal(dtype, case.cols, 203);
        let bias = centres.then(|| normal(dtype, case.cols, 204));
        for x in norm_telling(dtype, case, &weight, bias.as_deref()) {
            let norm = Norm {
                dtype,
                x: &x,
                weight: &weight,
                bias: bias.as_deref(),
                shifts: [0, 0],
            };
            let found = norm.launch(kernel, driver, case);
            let twin = norm.twin(&Ops::default(), case, 0);
            for (i, (found, twin)) in found.into_iter().zip(twin).enumerate() {
                let context = || format!("{} beside a tie, at {i} of {case:?}", kernel.entry());
                same(context, found, rounded(dtype, twin));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_row_computes_what_the_whole_one_does() {
        for dtype in FLOATS {
            for (case, is_log) in SPARSE
                .into_iter()
                .flat_map(|case| [(case, false), (case, true)])
            {
                let rows = sparse_rows(dtype, case, is_log);
                let whole = softmax_telling(dtype, case, is_log);
                for (row, x) in rows.iter().zip(whole) {
                    let sparse = sparse_twin(&Ops::default(), row, case, is_log);
                    let is_aligned = case.is_aligned(0, &[]);
                    let whole = softmax_twin(&Ops::default(), &x, is_aligned, case.threads, is_log);
                    for (of, y) in row.chunks_exact(2).zip(sparse) {
                        assert_eq!(whole[of[0] as usize], y, "{case:?} {row:?}");
                    }
                }
            }
        }
    }
}
