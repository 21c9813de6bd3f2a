//! What the twins of kernels are made of: approximate functions rounded to nearest, and the order in which a block adds up.

use whittle_ptx_vm::num::approx::{self, Approx, Function};

fn nearest(f: Function, x: f32, ftz: bool) -> f32 {
    f32::from_bits(approx::unary(f, x.to_bits(), ftz, Approx::Nearest))
}

/// `ex2.approx.f32`
pub(super) fn ex2(x: f32) -> f32 {
    nearest(Function::Ex2, x, false)
}

/// `ex2.approx.ftz.f32`
pub(super) fn ex2_ftz(x: f32) -> f32 {
    nearest(Function::Ex2, x, true)
}

/// `lg2.approx.f32`
pub(super) fn lg2(x: f32) -> f32 {
    nearest(Function::Lg2, x, false)
}

/// `rsqrt.approx.f32`
pub(super) fn rsqrt(x: f32) -> f32 {
    nearest(Function::Rsqrt, x, false)
}

/// `sin.approx.f32`
pub(super) fn sin(x: f32) -> f32 {
    nearest(Function::Sin, x, false)
}

/// `cos.approx.f32`
pub(super) fn cos(x: f32) -> f32 {
    nearest(Function::Cos, x, false)
}

/// Which elements of a row each thread of a block meets, in its order: vectors of four, then what is behind them.
pub(super) fn shares(cols: usize, is_aligned: bool, threads: usize) -> Vec<Vec<usize>> {
    let vectors = if is_aligned { cols / 4 } else { 0 };
    (0..threads)
        .map(|thread| {
            let whole = (thread..vectors).step_by(threads);
            let tail = (4 * vectors + thread..cols).step_by(threads);
            whole
                .flat_map(|vector| 4 * vector..4 * vector + 4)
                .chain(tail)
                .collect()
        })
        .collect()
}

/// The state of every thread of a block after butterflies within warps, and over the warps' lane 0. `merge` is told which of these
/// eight it is.
pub(super) fn block<T: Copy>(states: &[T], neutral: T, merge: impl Fn(T, T, usize) -> T) -> Vec<T> {
    let butterfly = |states: Vec<T>, (number, distance): (usize, usize)| -> Vec<T> {
        (0..states.len())
            .map(|lane| merge(states[lane], states[lane ^ distance], number))
            .collect()
    };
    let of_lanes = || [(0, 16), (1, 8), (2, 4), (3, 2), (4, 1)].into_iter();
    let warps: Vec<Vec<T>> = states
        .chunks(32)
        .map(|warp| of_lanes().fold(warp.to_vec(), butterfly))
        .collect();
    let partial: Vec<T> = (0..8)
        .map(|warp| warps.get(warp).map_or(neutral, |lanes| lanes[0]))
        .collect();
    // 32 lanes hold the eight of them four times.
    let lanes = [(5, 4), (6, 2), (7, 1)]
        .into_iter()
        .fold(partial, butterfly);
    (0..states.len()).map(|thread| lanes[thread % 8]).collect()
}
