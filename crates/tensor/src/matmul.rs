//! Matrix products of tensors.

use crate::dtype::{DType, Element};
use crate::gemm::{self, Strided};
use crate::layout::{Layout, broadcast_shapes, check_len};
use crate::real::Half;
use crate::storage::zeroed;
use crate::walk::Walk;
use crate::{Device, Error, Result, Tensor, gpu, par, product};

/// Rows and columns of the tiles in which halves are widened: two f32 tiles of a 1536-wide operand fit a second-level cache's
/// order of magnitude, and widening costs 1/512 of the multiply-adds.
const TILE: usize = 512;

impl Tensor {
    /// `[…, m, k] × […, k, n] → […, m, n]`; the outer dimensions broadcast. Strides go to the product, views are not copied.
    ///
    /// F16 and BF16 are widened tile by tile, summed up in f32, and rounded once. A few f32 rows times the transposed view of
    /// contiguous rows (`x.matmul(&w.transpose(0, 1)?)`) take the kernel of [`product::rows_by_rows`](crate::product::rows_by_rows).
    /// On a device views whose rows or columns lie whole are read in place, others are copied there first.
    ///
    /// # Errors
    /// [`Error::Shape`] for ranks below 2, inner sizes that differ or outer ones that don't broadcast; [`Error::DType`] for integers
    /// or two types; [`Error::Device`] for two devices; [`Error::Memory`]; on a device whatever its driver says.
    pub fn matmul(&self, rhs: &Self) -> Result<Self> {
        const OP: &str = "matmul";
        self.check_float(OP)?;
        self.check_alike(OP, rhs)?;
        let (a, b) = (self.shape(), rhs.shape());
        let ([a_batch @ .., m, k], [b_batch @ .., b_k, n]) = (a, b) else {
            return Err(Error::shape(
                OP,
                "[…, m, k] × […, k, n]",
                format!("{a:?} × {b:?}"),
            ));
        };
        if k != b_k {
            return Err(Error::shape(
                OP,
                "[…, m, k] × […, k, n] of one k",
                format!("{a:?} × {b:?}"),
            ));
        }
        let batch = broadcast_shapes(OP, a_batch, b_batch)?;
        let views = Batches {
            lhs: self
                .layout()
                .broadcast_for(OP, &[&batch[..], &[*m, *k]].concat())?,
            rhs: rhs
                .layout()
                .broadcast_for(OP, &[&batch[..], &[*k, *n]].concat())?,
            shape: [&batch[..], &[*m, *n]].concat(),
        };
        if let Device::Gpu(_) = self.device() {
            let (lhs, rhs) = (self.view(views.lhs), rhs.view(views.rhs));
            return gpu::matmul::matmul(&lhs, &rhs, &views.shape);
        }
        match self.dtype() {
            DType::F64 => views.multiply(self.buffer::<f64>(OP)?, rhs.buffer(OP)?, gemm::product),
            DType::F32 => {
                views.multiply(self.buffer::<f32>(OP)?, rhs.buffer(OP)?, product::product)
            }
            DType::F16 => views.multiply(
                self.buffer::<half::f16>(OP)?,
                rhs.buffer(OP)?,
                product_widened,
            ),
            _ => views.multiply(
                self.buffer::<half::bf16>(OP)?,
                rhs.buffer(OP)?,
                product_widened,
            ),
        }
    }

    /// `[n, k] × [k] → [n]`. For f32 rows that lie one behind the other: a row-parallel kernel that reads each weight once.
    ///
    /// # Errors
    /// As [`matmul`](Self::matmul), [`Error::Shape`] for other ranks.
    pub fn matvec(&self, vector: &Self) -> Result<Self> {
        let (&[n, k], &[len]) = (self.shape(), vector.shape()) else {
            return Err(Error::shape(
                "matvec",
                "[n, k] × [k]",
                format!("{:?} × {:?}", self.shape(), vector.shape()),
            ));
        };
        if k != len {
            return Err(Error::shape(
                "matvec",
                "[n, k] × [k] of one k",
                format!("{:?} × {:?}", self.shape(), vector.shape()),
            ));
        }
        vector
            .reshape(&[1, k])?
            .matmul(&self.transpose(0, 1)?)?
            .reshape(&[n])
    }
}

/// Operands whose outer dimensions have been broadcast to those of the result.
struct Batches {
    lhs: Layout,
    rhs: Layout,
    shape: Vec<usize>,
}

impl Batches {
    fn multiply<T: Element>(
        &self,
        lhs: &[T],
        rhs: &[T],
        product: impl Fn(Strided<'_, T>, Strided<'_, T>, &mut [T], usize) + Send + Sync,
    ) -> Result<Tensor> {
        let mut out = zeroed::<T>("matmul", check_len("matmul", &self.shape)?)?;
        let [.., m, n] = self.shape[..] else {
            return Tensor::from_vec(out, &self.shape);
        };
        let k = self.lhs.shape()[self.lhs.rank() - 1];
        let batches = Walk::new([&self.lhs.outer(), &self.rhs.outer()]);
        let work = out.len().saturating_mul(k);
        par::rows(&mut out, m * n, work, |batch, out| {
            batches.segments(batch, 1, |_, [lhs_start, rhs_start]| {
                product(
                    matrix(lhs, &self.lhs, lhs_start),
                    matrix(rhs, &self.rhs, rhs_start),
                    out,
                    n,
                );
            });
        });
        Tensor::from_vec(out, &self.shape)
    }
}

/// The innermost two dimensions of a view whose matrix begins at `start`.
fn matrix<'a, T>(data: &'a [T], layout: &Layout, start: usize) -> Strided<'a, T> {
    let rank = layout.rank();
    Strided {
        data: data.get(start..).unwrap_or_default(),
        rows: layout.shape()[rank - 2],
        cols: layout.shape()[rank - 1],
        row_stride: layout.stride()[rank - 2],
        col_stride: layout.stride()[rank - 1],
    }
}

fn product_widened<T: Half>(
    lhs: Strided<'_, T>,
    rhs: Strided<'_, T>,
    out: &mut [T],
    out_stride: usize,
) {
    let (m, k, n) = (lhs.rows, lhs.cols, rhs.cols);
    let mut tile = vec![0.0; m.min(TILE) * n.min(TILE)];
    let (mut wide_lhs, mut wide_rhs) = (Vec::new(), Vec::new());
    for top in (0..m).step_by(TILE) {
        let rows = (m - top).min(TILE);
        let lhs = widened(lhs, [top, 0], [rows, k], &mut wide_lhs);
        for left in (0..n).step_by(TILE) {
            let cols = (n - left).min(TILE);
            let rhs = widened(rhs, [0, left], [k, cols], &mut wide_rhs);
            gemm::product(lhs, rhs, &mut tile, cols);
            for (i, values) in tile.chunks_exact(cols).take(rows).enumerate() {
                T::narrow(values, &mut out[(top + i) * out_stride + left..][..cols]);
            }
        }
    }
}

/// The part of `matrix` that begins at `start`, in f32; in `buffer`, its rows or its columns one behind the other as they are
/// in memory.
fn widened<'a, T: Half>(
    matrix: Strided<'_, T>,
    start: [usize; 2],
    [rows, cols]: [usize; 2],
    buffer: &'a mut Vec<f32>,
) -> Strided<'a, f32> {
    let by_columns = matrix.row_stride < matrix.col_stride;
    let (outer, inner) = if by_columns {
        (cols, rows)
    } else {
        (rows, cols)
    };
    let (outer_stride, step) = match by_columns {
        true => (matrix.col_stride, matrix.row_stride),
        false => (matrix.row_stride, matrix.col_stride),
    };
    let first = start[0] * matrix.row_stride + start[1] * matrix.col_stride;
    buffer.resize(outer * inner, 0.0);
    for (i, out) in buffer.chunks_exact_mut(inner.max(1)).enumerate() {
        let values = matrix
            .data
            .get(first + i * outer_stride..)
            .unwrap_or_default();
        if step == 1 {
            T::widen(&values[..inner], out);
        } else {
            out.iter_mut()
                .enumerate()
                .for_each(|(j, out)| *out = values[j * step].to_double() as f32);
        }
    }
    let (row_stride, col_stride) = if by_columns { (1, rows) } else { (cols, 1) };
    Strided {
        data: buffer,
        rows,
        cols,
        row_stride,
        col_stride,
    }
}
