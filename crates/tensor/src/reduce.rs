//! Reductions along one dimension.

use crate::dtype::{Element, with_element};
use crate::layout::check_len;
use crate::sort::compare;
use crate::storage::zeroed;
use crate::{Device, Error, Result, Tensor, gpu, par};
use std::cmp::Ordering;

impl Tensor {
    /// Sum along dimension `dim`, which disappears. Added up in f64 for every type and rounded once; 0 along a dimension of size 0.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that isn't there, [`Error::DType`] for integers, [`Error::Memory`]; on a
    /// device whatever its driver says.
    pub fn sum(&self, dim: usize) -> Result<Self> {
        self.check_float("sum")?;
        self.folded("sum", dim, 0.0, |sum, x| sum + x, |sum, _| sum)
    }

    /// Mean along dimension `dim`, which disappears. Added up in f64; NaN along a dimension of size 0.
    ///
    /// # Errors
    /// Those of [`sum`](Self::sum).
    pub fn mean(&self, dim: usize) -> Result<Self> {
        self.check_float("mean")?;
        self.folded(
            "mean",
            dim,
            0.0,
            |sum, x| sum + x,
            |sum, len| sum / len as f64,
        )
    }

    /// Greatest element along dimension `dim`, which disappears; NaN where there is one. Takes every dtype.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that isn't there, [`Error::Shape`] for one of size 0, [`Error::Device`] for a
    /// type without a kernel on the device, [`Error::Memory`]; on a device whatever its driver says.
    pub fn max(&self, dim: usize) -> Result<Self> {
        self.check_some("max", dim)?;
        let greater = |max: f64, x: f64| if x > max || x.is_nan() { x } else { max };
        self.folded("max", dim, f64::NEG_INFINITY, greater, |max, _| max)
    }

    /// Least element along dimension `dim`, which disappears; NaN where there is one. Takes every dtype.
    ///
    /// # Errors
    /// Those of [`max`](Self::max).
    pub fn min(&self, dim: usize) -> Result<Self> {
        self.check_some("min", dim)?;
        let less = |min: f64, x: f64| if x < min || x.is_nan() { x } else { min };
        self.folded("min", dim, f64::INFINITY, less, |min, _| min)
    }

    /// Position of the greatest element along dimension `dim`, which disappears, as U32: the first of equals. NaN counts as greater
    /// than any number. Takes every dtype.
    ///
    /// # Errors
    /// Those of [`max`](Self::max).
    pub fn argmax(&self, dim: usize) -> Result<Self> {
        self.check_some("argmax", dim)?;
        if let Device::Gpu(_) = self.device() {
            return gpu::reduce::reduce("argmax", self, dim, &self.without(dim));
        }
        with_element!(self.dtype(), T => self.argmax_of::<T>(dim))
    }

    fn argmax_of<T: Element>(&self, dim: usize) -> Result<Self> {
        const OP: &str = "argmax";
        let rows = self.positions_along(OP, dim)?;
        let values = rows.contiguous_slice::<T>(OP)?;
        let len = self.shape()[dim];
        let mut out = zeroed::<u32>(OP, values.len() / len)?;
        par::rows(&mut out, 1, values.len(), |row, out| {
            let row = &values[row * len..][..len];
            let greatest = (1..len).fold(0, |best, i| {
                if compare(row[i], row[best]) == Ordering::Greater {
                    i
                } else {
                    best
                }
            });
            // `positions_along` has checked that every position fits.
            out[0] = greatest as u32;
        });
        Self::from_vec(out, &rows.shape()[..self.rank() - 1])
    }

    fn check_some(&self, op: &'static str, dim: usize) -> Result<()> {
        self.layout().check_dim(op, dim)?;
        if self.shape()[dim] > 0 {
            return Ok(());
        }
        Err(Error::shape(
            op,
            format!("at least one element in dimension {dim}"),
            format!("{:?}", self.shape()),
        ))
    }

    /// The shape without dimension `dim`, which is there.
    fn without(&self, dim: usize) -> Vec<usize> {
        let mut shape = self.shape().to_vec();
        shape.remove(dim);
        shape
    }

    fn folded(
        &self,
        op: &'static str,
        dim: usize,
        start: f64,
        step: impl Fn(f64, f64) -> f64 + Send + Sync,
        finish: impl Fn(f64, usize) -> f64 + Send + Sync,
    ) -> Result<Self> {
        self.layout().check_dim(op, dim)?;
        if let Device::Gpu(_) = self.device() {
            return gpu::reduce::reduce(op, self, dim, &self.without(dim));
        }
        with_element!(self.dtype(), T => self.folded_as::<T>(op, dim, start, step, finish))
    }

    fn folded_as<T: Element>(
        &self,
        op: &'static str,
        dim: usize,
        start: f64,
        step: impl Fn(f64, f64) -> f64 + Send + Sync,
        finish: impl Fn(f64, usize) -> f64 + Send + Sync,
    ) -> Result<Self> {
        let x = self.contiguous()?;
        let x = x.contiguous_slice::<T>(op)?;
        let len = self.shape()[dim];
        let shape = self.without(dim);
        let inner: usize = shape[dim..].iter().product();
        let mut out = zeroed::<T>(op, check_len(op, &shape)?)?;
        if inner == 1 {
            par::rows(&mut out, 1, x.len(), |row, out| {
                out[0] =
                    T::from_double(finish(fold_row(&x[row * len..][..len], start, &step), len));
            });
        } else {
            par::pieces(&mut out, x.len(), |first, piece| {
                let mut done = 0;
                while done < piece.len() {
                    let (outer, column) = ((first + done) / inner, (first + done) % inner);
                    let take = (inner - column).min(piece.len() - done);
                    let mut folds = vec![start; take];
                    for row in 0..len {
                        let values = &x[(outer * len + row) * inner + column..][..take];
                        folds
                            .iter_mut()
                            .zip(values)
                            .for_each(|(fold, x)| *fold = step(*fold, x.to_double()));
                    }
                    let out = &mut piece[done..done + take];
                    out.iter_mut()
                        .zip(folds)
                        .for_each(|(out, fold)| *out = T::from_double(finish(fold, len)));
                    done += take;
                }
            });
        }
        Self::from_vec(out, &shape)
    }
}

/// Folds a row in eight interleaved chains, which then are folded by the same step: sums, maxima and minima allow that.
fn fold_row<T: Element>(row: &[T], start: f64, step: impl Fn(f64, f64) -> f64) -> f64 {
    let mut chains = [start; 8];
    let (blocks, tail) = row.as_chunks::<8>();
    for block in blocks {
        chains
            .iter_mut()
            .zip(block)
            .for_each(|(chain, x)| *chain = step(*chain, x.to_double()));
    }
    chains
        .iter_mut()
        .zip(tail)
        .for_each(|(chain, x)| *chain = step(*chain, x.to_double()));
    chains.into_iter().fold(start, step)
}
