//! Operations on two tensors, element by element.

use super::launch::{BLOCK, count};
use super::strided::{self, Dimensions, View};
use super::unary::vector_grid;
use super::{driver, kernels, output};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::{Result, Tensor};

/// Launches a kernel that makes `n` elements of `out` from those of `a` and `b`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) from 2^31 elements on, and what the driver says.
pub fn zip(
    kernel: &Kernel,
    driver: &dyn Driver,
    a: DevicePtr,
    b: DevicePtr,
    out: DevicePtr,
    n: usize,
) -> Result<()> {
    let n = count(kernel, n)?;
    if n == 0 {
        return Ok(());
    }
    let args = [Arg::Ptr(a), Arg::Ptr(b), Arg::Ptr(out), Arg::U32(n)];
    kernel.launch(driver, vector_grid(n), [BLOCK, 1, 1], 0, &args)
}

/// Launches a kernel of the `strided` kind, which makes a contiguous `out` of `shape` from two views of it.
///
/// # Errors
/// Those of [`zip`], for any of the sizes, strides and positions.
pub fn zip_views(
    kernel: &Kernel,
    driver: &dyn Driver,
    shape: &[usize],
    a: View<'_>,
    b: View<'_>,
    out: DevicePtr,
) -> Result<()> {
    let dimensions = Dimensions::merged(shape, [a.stride, b.stride]);
    strided::launch(kernel, driver, &dimensions, |[at_a, at_b], done| {
        let out = out.byte_offset((done * a.bytes) as u64);
        vec![Arg::Ptr(a.at(at_a)), Arg::Ptr(b.at(at_b)), Arg::Ptr(out)]
    })
}

/// `op` of the elements of two views of one shape, dtype and device.
pub(crate) fn binary(op: &'static str, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let out = output(op, a, a.shape(), a.dtype())?;
    let driver = &**driver(op, a)?;
    let find = |kernel: &str| kernels::of(kernel, a.dtype()).ok_or_else(|| a.no_kernel(op));
    let to = out.device_ptr()?;
    if a.layout().is_contiguous() && b.layout().is_contiguous() {
        zip(
            find(op)?,
            driver,
            a.device_ptr()?,
            b.device_ptr()?,
            to,
            a.len(),
        )?;
    } else {
        let kernel = find(&format!("{op}_strided"))?;
        zip_views(
            kernel,
            driver,
            a.shape(),
            View::of(op, a)?,
            View::of(op, b)?,
            to,
        )?;
    }
    Ok(out)
}
