//! Matrix products of plain f32 slices, for callers that hold their weights themselves.

use crate::gemm::{self, Strided};
use crate::{par, simd};

/// `Σ a[i]·b[i]`, over four times sixteen interleaved sums that are added up as a tree: the same bits on every processor.
///
/// # Panics
/// If the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "dot: lengths differ");
    simd::dot(a, b)
}

/// `out[i·out_stride + j] = Σ_k x[i, k] · w[j, k]` for `x` `[m, k]` and `w` `[n, k]`, both row-major: a linear layer without bias.
///
/// Up to [`FEW_ROWS`] rows of `x` are multiplied by a kernel that reads each weight once, every element by the additions of
/// [`dot`]; more rows by the `gemm` crate. Both run on the threads of the current rayon pool, whose number does not change the
/// result.
///
/// # Panics
/// If a slice is too short for its shape, or `out_stride < n` with more than one row. An empty product touches no slice.
pub fn rows_by_rows(
    x: &[f32],
    m: usize,
    w: &[f32],
    n: usize,
    k: usize,
    out: &mut [f32],
    out_stride: usize,
) {
    let lhs = Strided {
        data: x,
        rows: m,
        cols: k,
        row_stride: k,
        col_stride: 1,
    };
    let rhs = Strided {
        data: w,
        rows: k,
        cols: n,
        row_stride: 1,
        col_stride: k,
    };
    product(lhs, rhs, out, out_stride);
}

/// Rows up to which a product is a handful of dot products with each row of weights: so few that packing the weights for a blocked
/// product costs more than it saves.
pub const FEW_ROWS: usize = 16;

/// The product of two strided matrices by the kernel that suits them.
pub(crate) fn product(
    lhs: Strided<'_, f32>,
    rhs: Strided<'_, f32>,
    out: &mut [f32],
    out_stride: usize,
) {
    // The kernels below would notice a slice that is too short late or, where rows of `out` are missing, not at all.
    gemm::check(lhs, rhs, out.len(), out_stride);
    if lhs.rows == 0 || rhs.cols == 0 {
        return;
    }
    let rows_lie_whole = lhs.col_stride == 1 && rhs.row_stride == 1;
    if lhs.rows > FEW_ROWS || !rows_lie_whole || lhs.cols == 0 {
        return gemm::product(lhs, rhs, out, out_stride);
    }
    let (m, n, k) = (lhs.rows, rhs.cols, lhs.cols);
    let work = m.saturating_mul(n).saturating_mul(k);
    let weights = |j: usize| &rhs.data[j * rhs.col_stride..][..k];
    if m == 1 {
        return par::pieces(&mut out[..n], work, |start, piece| {
            piece
                .iter_mut()
                .zip(start..)
                .for_each(|(out, j)| *out = simd::dot(&lhs.data[..k], weights(j)));
        });
    }
    // Threads share out the rows of weights, so that each is read once; that makes the result's columns, to be turned round.
    let mut columns = vec![0.0; n * m];
    par::rows(&mut columns, m, work, |j, column| {
        simd::rows_dot(weights(j), lhs.data, lhs.row_stride, column);
    });
    for (i, out) in out.chunks_mut(out_stride).take(m).enumerate() {
        out[..n]
            .iter_mut()
            .zip(columns[i..].iter().step_by(m))
            .for_each(|(out, &value)| *out = value);
    }
}
