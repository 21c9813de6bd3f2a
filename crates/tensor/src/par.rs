//! Threads, behind one threshold: small work stays on the calling thread, larger work goes to the current rayon pool.

use rayon::prelude::*;

/// Work, in simple operations on one element, below which waking another thread costs more than it saves.
pub const THRESHOLD: usize = 1 << 15;

/// Whether `work` simple operations are worth more than one thread, and the pool has more than one.
pub fn worthwhile(work: usize) -> bool {
    work >= THRESHOLD && rayon::current_num_threads() > 1
}

/// Calls `f(row, values)` for each row of `row_len` elements of `out`; `work` is the cost of all rows in simple operations.
///
/// Elements behind the last whole row are left alone. The result does not depend on the number of threads as long as `f` depends
/// on its arguments alone.
pub fn rows<T: Send>(
    out: &mut [T],
    row_len: usize,
    work: usize,
    f: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    if row_len == 0 {
        return;
    }
    if worthwhile(work) {
        let count = out.len() / row_len;
        // Few rows a task lets the pool even out rows of different cost, too few drown in bookkeeping.
        let least = (count * (THRESHOLD / 4) / work).max(1);
        out.par_chunks_exact_mut(row_len)
            .enumerate()
            .with_min_len(least)
            .for_each(|(row, values)| f(row, values));
    } else {
        out.chunks_exact_mut(row_len)
            .enumerate()
            .for_each(|(row, values)| f(row, values));
    }
}

/// Calls `f(start, values)` for pieces of `out` of any length that together are all of it; `work` is the cost of all elements.
///
/// The result must not depend on where the pieces are cut.
pub fn pieces<T: Send>(out: &mut [T], work: usize, f: impl Fn(usize, &mut [T]) + Send + Sync) {
    if !worthwhile(work) {
        return f(0, out);
    }
    let tasks = (work / (THRESHOLD / 4)).min(4 * rayon::current_num_threads());
    let len = out.len().div_ceil(tasks).max(1);
    out.par_chunks_mut(len)
        .enumerate()
        .for_each(|(piece, values)| f(piece * len, values));
}
