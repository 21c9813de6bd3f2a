//! The one place that calls the `gemm` crate.
#![allow(unsafe_code)]

use crate::real::Real;

/// A strided matrix: element `(i, j)` is `data[i·row_stride + j·col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a, T> {
    pub data: &'a [T],
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

/// Multiply-adds below which a product stays on the calling thread.
const PARALLEL: usize = 1 << 18;

/// `out[i·out_stride + j] = Σ_k lhs[i, k] · rhs[k, j]`.
///
/// # Panics
/// If the inner sizes differ, or a matrix reaches beyond its slice. Callers have checked both; the asserts are what the safety of
/// this function rests on.
pub(crate) fn product<T: Real>(
    lhs: Strided<'_, T>,
    rhs: Strided<'_, T>,
    out: &mut [T],
    out_stride: usize,
) {
    let (m, k, n) = (lhs.rows, lhs.cols, rhs.cols);
    check(lhs, rhs, out.len(), out_stride);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        (0..m).for_each(|i| out[i * out_stride..][..n].fill(T::ZERO));
        return;
    }
    let threads = rayon::current_num_threads();
    let parallelism = if threads > 1 && m.saturating_mul(n).saturating_mul(k) >= PARALLEL {
        gemm::Parallelism::Rayon(threads)
    } else {
        gemm::Parallelism::None
    };
    // SAFETY: `gemm` reads `lhs` at i·row_stride + j·col_stride for i < m, j < k, and `rhs` likewise for k × n; it writes `out` at
    // i·out_stride + j for i < m, j < n and does not read it, since `read_dst` is false. `reach` computed the greatest of
    // these positions without overflow and `check` found them inside the slices; a position inside a slice fits
    // isize, and so does a stride that is multiplied by at least 1 (one that is multiplied by 0 alone is never used to move a
    // pointer, whatever its value as isize). `out` is borrowed mutably, so the operands don't alias it, and its rows
    // don't overlap. `T` is f32 or f64 (`Real` is sealed to them), which `gemm` implements.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            false,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            T::ZERO,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Asserts that the operands and an `out` of `len` elements hold what the product touches. An empty product touches nothing.
///
/// # Panics
/// As [`product`].
pub(crate) fn check<T>(lhs: Strided<'_, T>, rhs: Strided<'_, T>, len: usize, out_stride: usize) {
    let (m, n) = (lhs.rows, rhs.cols);
    assert_eq!(rhs.rows, lhs.cols, "inner sizes of a matrix product");
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        m == 1 || out_stride >= n,
        "rows of a matrix product overlap"
    );
    assert!(
        reach(m, n, out_stride, 1).is_some_and(|last| last < len),
        "out of a matrix product is too short"
    );
    for (name, matrix) in [("lhs", &lhs), ("rhs", &rhs)] {
        if matrix.rows == 0 || matrix.cols == 0 {
            continue;
        }
        let last = reach(
            matrix.rows,
            matrix.cols,
            matrix.row_stride,
            matrix.col_stride,
        );
        assert!(
            last.is_some_and(|last| last < matrix.data.len()),
            "{name} of a matrix product is too short"
        );
    }
}

/// Greatest position of a non-empty strided matrix.
fn reach(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Option<usize> {
    (rows - 1)
        .checked_mul(row_stride)?
        .checked_add((cols - 1).checked_mul(col_stride)?)
}
