//! Softmax and its logarithm.

use crate::dtype::DType;
use crate::real::Real;
use crate::storage::zeroed;
use crate::{Device, Result, Tensor, gpu, par, simd};

impl Tensor {
    /// `e^(x_i − max) / Σ_j e^(x_j − max)` along dimension `dim`.
    ///
    /// An element of −∞ gets weight 0. A row in which every element is −∞ has no distribution and gives NaN, and so does a row with
    /// +∞ or NaN: the whole row, as in PyTorch.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension that isn't there, [`Error::DType`](crate::Error::DType) for integers,
    /// [`Error::Memory`](crate::Error::Memory); on a device whatever its driver says.
    pub fn softmax(&self, dim: usize) -> Result<Self> {
        self.along("softmax", dim, &softmax_f32, &softmax_f64)
    }

    /// `x_i − max − ln Σ_j e^(x_j − max)` along dimension `dim`; NaN for the rows for which [`softmax`](Self::softmax) is NaN.
    ///
    /// # Errors
    /// Those of [`softmax`](Self::softmax).
    pub fn log_softmax(&self, dim: usize) -> Result<Self> {
        self.along("log_softmax", dim, &log_softmax_f32, &log_softmax_f64)
    }

    fn along(
        &self,
        op: &'static str,
        dim: usize,
        f32_row: Row<'_, f32>,
        f64_row: Row<'_, f64>,
    ) -> Result<Self> {
        self.check_float(op)?;
        self.layout().check_dim(op, dim)?;
        if let Device::Gpu(_) = self.device() {
            return gpu::softmax::softmax(op, &self.moved_last(dim)?)?.moved_back(dim);
        }
        match self.dtype() {
            DType::F64 => self.by_rows(op, dim, f64_row),
            DType::F32 => self.by_rows(op, dim, f32_row),
            _ => self.through_f32(|wide| wide.by_rows(op, dim, f32_row)),
        }
    }

    fn by_rows<T: Real>(&self, op: &'static str, dim: usize, f: Row<'_, T>) -> Result<Self> {
        let x = self.moved_last(dim)?;
        let values = x.contiguous_slice::<T>(op)?;
        let mut out = zeroed::<T>(op, values.len())?;
        let len = self.shape()[dim];
        par::rows(&mut out, len, COST * values.len(), |row, out| {
            f(&values[row * len..][..len], out)
        });
        Self::from_vec(out, x.shape())?.moved_back(dim)
    }
}

type Row<'a, T> = &'a (dyn Fn(&[T], &mut [T]) + Send + Sync);

/// What an element costs in the simple operations of [`par`]: a comparison, an exponential, a product.
const COST: usize = 4;

fn softmax_f32(x: &[f32], out: &mut [f32]) {
    let sum = simd::shifted_exp(x, simd::max(x), out);
    let factor = 1.0 / sum;
    out.iter_mut().for_each(|out| *out *= factor);
}

fn log_softmax_f32(x: &[f32], out: &mut [f32]) {
    let max = simd::max(x);
    let log_sum = simd::shifted_exp(x, max, out).ln();
    // `out` held the exponentials for their sum alone.
    out.iter_mut()
        .zip(x)
        .for_each(|(out, x)| *out = x - max - log_sum);
}

fn softmax_f64(x: &[f64], out: &mut [f64]) {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    out.iter_mut()
        .zip(x)
        .for_each(|(out, x)| *out = (x - max).exp());
    let sum: f64 = out.iter().sum();
    out.iter_mut().for_each(|out| *out /= sum);
}

fn log_softmax_f64(x: &[f64], out: &mut [f64]) {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = x.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
    out.iter_mut()
        .zip(x)
        .for_each(|(out, x)| *out = x - max - log_sum);
}
