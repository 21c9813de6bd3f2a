//! Conversions between element types.

use super::unary::map;
use super::{driver, kernels, output};
use crate::kernel::Kernel;
use crate::{DType, Result, Tensor};

/// The kernel from one type to another. None for F64 and from a type to itself.
pub fn kernel(from: DType, to: DType) -> Option<&'static Kernel> {
    kernels::of(&format!("cast_{from}"), to)
}

pub(crate) fn to_dtype(x: &Tensor, dtype: DType) -> Result<Tensor> {
    const OP: &str = "to_dtype";
    let kernel = kernel(x.dtype(), dtype).ok_or_else(|| x.no_kernel(OP))?;
    let x = &x.contiguous()?;
    let out = output(OP, x, x.shape(), dtype)?;
    map(
        kernel,
        &**driver(OP, x)?,
        x.device_ptr()?,
        out.device_ptr()?,
        x.len(),
    )?;
    Ok(out)
}
