//! Softmax of rows.

use super::launch::{count, resident, row_block};
use super::{driver, kernels, output};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::{Result, Tensor};

/// Launches `softmax` or `log_softmax` on `[rows, cols]`; `bytes` is the size of an element.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) from 2^31 rows or columns on, and what the driver says.
pub fn rows(
    kernel: &Kernel,
    driver: &dyn Driver,
    x: DevicePtr,
    out: DevicePtr,
    [rows, cols]: [usize; 2],
    bytes: u32,
) -> Result<()> {
    let [rows, cols] = [count(kernel, rows)?, count(kernel, cols)?];
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let (shared, flag) = resident(cols, bytes);
    let args = [Arg::Ptr(x), Arg::Ptr(out), Arg::U32(cols), Arg::U32(flag)];
    kernel.launch(driver, [rows, 1, 1], row_block(cols), shared, &args)
}

/// `op` along the last dimension, which is there.
pub(crate) fn softmax(op: &'static str, x: &Tensor) -> Result<Tensor> {
    let kernel = kernels::of(op, x.dtype()).ok_or_else(|| x.no_kernel(op))?;
    let x = &x.contiguous()?;
    let out = output(op, x, x.shape(), x.dtype())?;
    rows(
        kernel,
        &**driver(op, x)?,
        x.device_ptr()?,
        out.device_ptr()?,
        rows_and_cols(x.shape()),
        x.dtype().size_in_bytes() as u32,
    )?;
    Ok(out)
}

/// A shape as rows of its last dimension.
pub(crate) fn rows_and_cols(shape: &[usize]) -> [usize; 2] {
    let cols = shape.last().copied().unwrap_or(1);
    [
        shape[..shape.len().saturating_sub(1)].iter().product(),
        cols,
    ]
}
