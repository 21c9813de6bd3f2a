//! Normalisation of rows.

use super::launch::{count, resident, row_block};
use super::softmax::rows_and_cols;
use super::{driver, kernels, output};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::{Result, Tensor};

/// Launches `rms_norm` (`parameters` are the weights) or `layer_norm` (weights and biases) on `[rows, cols]`; `bytes` is the size of
/// an element.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) from 2^31 rows or columns on, and what the driver says.
#[allow(clippy::too_many_arguments)]
pub fn rows(
    kernel: &Kernel,
    driver: &dyn Driver,
    x: DevicePtr,
    parameters: &[DevicePtr],
    out: DevicePtr,
    [rows, cols]: [usize; 2],
    eps: f32,
    bytes: u32,
) -> Result<()> {
    let [rows, cols] = [count(kernel, rows)?, count(kernel, cols)?];
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let (shared, flag) = resident(cols, bytes);
    let mut args = vec![Arg::Ptr(x)];
    args.extend(parameters.iter().copied().map(Arg::Ptr));
    args.extend([Arg::Ptr(out), Arg::U32(cols), Arg::F32(eps), Arg::U32(flag)]);
    kernel.launch(driver, [rows, 1, 1], row_block(cols), shared, &args)
}

pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    norm("rms_norm", x, &[weight], eps)
}

pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    norm("layer_norm", x, &[weight, bias], eps)
}

fn norm(op: &'static str, x: &Tensor, parameters: &[&Tensor], eps: f32) -> Result<Tensor> {
    let kernel = kernels::of(op, x.dtype()).ok_or_else(|| x.no_kernel(op))?;
    let x = &x.contiguous()?;
    let mut whole = Vec::new();
    for parameter in parameters {
        whole.push(parameter.contiguous()?);
    }
    let mut pointers = Vec::new();
    for parameter in &whole {
        pointers.push(parameter.device_ptr()?);
    }
    let out = output(op, x, x.shape(), x.dtype())?;
    rows(
        kernel,
        &**driver(op, x)?,
        x.device_ptr()?,
        &pointers,
        out.device_ptr()?,
        rows_and_cols(x.shape()),
        eps,
        x.dtype().size_in_bytes() as u32,
    )?;
    Ok(out)
}
