//! Normalisation of rows.

use crate::dtype::DType;
use crate::real::Real;
use crate::storage::zeroed;
use crate::{Device, Error, Result, Tensor, gpu, par, simd};

impl Tensor {
    /// RMSNorm (Zhang and Sennrich, 2019) over the last dimension: `x · weight / √(mean(x²) + eps)`; `weight` is `[d]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where `weight` is not as long as the rows, [`Error::DType`] for integers or two types, [`Error::Device`]
    /// for two devices, [`Error::Memory`]; on a device whatever its driver says.
    pub fn rms_norm(&self, weight: &Self, eps: f32) -> Result<Self> {
        const OP: &str = "rms_norm";
        self.check_rows(OP, &[weight])?;
        if let Device::Gpu(_) = self.device() {
            return gpu::norm::rms_norm(self, weight, eps);
        }
        match self.dtype() {
            DType::F64 => self.normed(OP, [weight], |x: &[f64], [weight], out| {
                let square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
                let factor = 1.0 / (square + f64::from(eps)).sqrt();
                out.iter_mut()
                    .zip(x)
                    .zip(weight)
                    .for_each(|((out, x), w)| *out = x * factor * w);
            }),
            DType::F32 => self.normed(OP, [weight], |x, [weight], out| {
                simd::rms_norm(x, weight, eps, out)
            }),
            _ => self.through_f32(|wide| wide.rms_norm(&weight.to_dtype(DType::F32)?, eps)),
        }
    }

    /// LayerNorm (Ba et al., 2016) over the last dimension: `(x − mean) · weight / √(var + eps) + bias`, the variance with divisor
    /// `d`; `weight` and `bias` are `[d]`.
    ///
    /// # Errors
    /// Those of [`rms_norm`](Self::rms_norm).
    pub fn layer_norm(&self, weight: &Self, bias: &Self, eps: f32) -> Result<Self> {
        const OP: &str = "layer_norm";
        self.check_rows(OP, &[weight, bias])?;
        if let Device::Gpu(_) = self.device() {
            return gpu::norm::layer_norm(self, weight, bias, eps);
        }
        match self.dtype() {
            DType::F64 => self.normed(OP, [weight, bias], |x: &[f64], [weight, bias], out| {
                let mean = x.iter().sum::<f64>() / x.len() as f64;
                let variance =
                    x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / x.len() as f64;
                let factor = 1.0 / (variance + f64::from(eps)).sqrt();
                for (((out, x), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                    *out = (x - mean) * factor * w + b;
                }
            }),
            DType::F32 => self.normed(OP, [weight, bias], |x, [weight, bias], out| {
                simd::layer_norm(x, weight, bias, eps, out)
            }),
            _ => self.through_f32(|wide| {
                wide.layer_norm(
                    &weight.to_dtype(DType::F32)?,
                    &bias.to_dtype(DType::F32)?,
                    eps,
                )
            }),
        }
    }

    fn check_rows(&self, op: &'static str, parameters: &[&Self]) -> Result<()> {
        self.check_float(op)?;
        let Some(&len) = self.shape().last() else {
            return Err(Error::shape(op, "at least one dimension", "[]"));
        };
        for parameter in parameters {
            self.check_alike(op, parameter)?;
            if parameter.shape() != [len] {
                return Err(Error::shape(
                    op,
                    format!("[{len}] beside {:?}", self.shape()),
                    format!("{:?}", parameter.shape()),
                ));
            }
        }
        Ok(())
    }

    fn normed<T: Real, const N: usize>(
        &self,
        op: &'static str,
        parameters: [&Self; N],
        f: impl Fn(&[T], [&[T]; N], &mut [T]) + Send + Sync,
    ) -> Result<Self> {
        let x = self.contiguous()?;
        let x = x.contiguous_slice::<T>(op)?;
        let mut owned = Vec::with_capacity(N);
        for parameter in parameters {
            owned.push(parameter.contiguous()?);
        }
        let mut rows: [&[T]; N] = [&[]; N];
        for (row, parameter) in rows.iter_mut().zip(&owned) {
            *row = parameter.contiguous_slice::<T>(op)?;
        }
        let mut out = zeroed::<T>(op, x.len())?;
        let len = self.shape()[self.rank() - 1];
        par::rows(&mut out, len, COST * x.len(), |row, out| {
            f(&x[row * len..][..len], rows, out)
        });
        Self::from_vec(out, self.shape())
    }
}

/// What an element costs in the simple operations of [`par`]: two passes.
const COST: usize = 2;
