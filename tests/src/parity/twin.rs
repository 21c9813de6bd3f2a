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

/// The state of every thread of a block after butterflies within warps, and one over the warps' lane 0.
pub(super) fn block<T: Copy>(states: &[T], neutral: T, merge: impl Fn(T, T) -> T) -> Vec<T> {
    let butterfly = |states: Vec<T>, distance: usize| -> Vec<T> {
        (0..states.len())
            .map(|lane| merge(states[lane], states[lane ^ distance]))
            .collect()
    };
    let warps: Vec<Vec<T>> = states
        .chunks(32)
        .map(|warp| [16, 8, 4, 2, 1].into_iter().fold(warp.to_vec(), butterfly))
        .collect();
    let partial: Vec<T> = (0..8)
        .map(|warp| warps.get(warp).map_or(neutral, |lanes| lanes[0]))
        .collect();
    let lanes: Vec<T> = (0..32).map(|lane| partial[lane % 8]).collect();
    let lanes = [4, 2, 1].into_iter().fold(lanes, butterfly);
    (0..states.len()).map(|thread| lanes[thread % 32]).collect()
}
