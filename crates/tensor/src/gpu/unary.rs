//! Operations on one tensor, element by element.

use super::launch::{BLOCK, count};
use super::{driver, kernels, output};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::{Result, Tensor};

/// Launches a kernel that makes `n` elements of `out` from those of `x`: a function of one element, a cast, a copy.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) from 2^31 elements on, and what the driver says.
pub fn map(
    kernel: &Kernel,
    driver: &dyn Driver,
    x: DevicePtr,
    out: DevicePtr,
    n: usize,
) -> Result<()> {
    let n = count(kernel, n)?;
    if n == 0 {
        return Ok(());
    }
    let args = [Arg::Ptr(x), Arg::Ptr(out), Arg::U32(n)];
    kernel.launch(driver, vector_grid(n), [BLOCK, 1, 1], 0, &args)
}

/// Launches [`map`]'s kind of kernel with a number beside: `add_scalar`, `mul_scalar`.
///
/// # Errors
/// Those of [`map`].
pub fn map_with(
    kernel: &Kernel,
    driver: &dyn Driver,
    x: DevicePtr,
    out: DevicePtr,
    value: f32,
    n: usize,
) -> Result<()> {
    let n = count(kernel, n)?;
    if n == 0 {
        return Ok(());
    }
    let args = [Arg::Ptr(x), Arg::Ptr(out), Arg::F32(value), Arg::U32(n)];
    kernel.launch(driver, vector_grid(n), [BLOCK, 1, 1], 0, &args)
}

/// Blocks for `n` elements, four a thread, as long as there are not too many: then threads go on a whole grid further.
pub(crate) fn vector_grid(n: u32) -> [u32; 3] {
    [n.div_ceil(4 * BLOCK).min(1 << 16), 1, 1]
}

/// `op` of each element; `value` is the second operand of `add_scalar` and `mul_scalar`.
pub(crate) fn unary(op: &'static str, x: &Tensor, value: Option<f32>) -> Result<Tensor> {
    let kernel = kernels::of(op, x.dtype()).ok_or_else(|| x.no_kernel(op))?;
    let x = &x.contiguous()?;
    let out = output(op, x, x.shape(), x.dtype())?;
    let driver = &**driver(op, x)?;
    let (from, to) = (x.device_ptr()?, out.device_ptr()?);
    match value {
        Some(value) => map_with(kernel, driver, from, to, value, x.len())?,
        None => map(kernel, driver, from, to, x.len())?,
    }
    Ok(out)
}
