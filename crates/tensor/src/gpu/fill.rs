//! Constant tensors.

use super::kernels;
use super::launch::{BLOCK, count};
use super::unary::vector_grid;
use crate::device::{DevicePtr, Driver};
use crate::dtype::with_element;
use crate::kernel::{Arg, Kernel};
use crate::{DType, Element, Error, Result, Tensor};
use std::sync::Arc;

/// Launches a kernel that writes `n` elements, each the lower bytes of `pattern`, which repeats them up to four bytes.
///
/// # Errors
/// [`Error::Shape`] from 2^31 elements on, and what the driver says.
pub fn fill(
    kernel: &Kernel,
    driver: &dyn Driver,
    out: DevicePtr,
    pattern: u32,
    n: usize,
) -> Result<()> {
    let n = count(kernel, n)?;
    if n == 0 {
        return Ok(());
    }
    let args = [Arg::Ptr(out), Arg::U32(pattern), Arg::U32(n)];
    kernel.launch(driver, vector_grid(n), [BLOCK, 1, 1], 0, &args)
}

/// The bytes of the type's nearest to `value`, repeated to four.
fn pattern(value: f64, dtype: DType) -> u32 {
    with_element!(dtype, T => {
        let element = T::from_double(value);
        let bytes = bytemuck::bytes_of(&element);
        u32::from_le_bytes(std::array::from_fn(|i| bytes[i % bytes.len()]))
    })
}

/// A tensor whose elements are all the type's nearest to `value`.
pub(crate) fn full(
    op: &'static str,
    shape: &[usize],
    value: f64,
    dtype: DType,
    driver: &Arc<dyn Driver>,
) -> Result<Tensor> {
    let kernel = kernels::of_bytes("fill", dtype.size_in_bytes())
        .ok_or_else(|| Error::dtype(op, "other than f64 on a device", dtype))?;
    let out = Tensor::unwritten(op, shape, dtype, driver)?;
    fill(
        kernel,
        &**driver,
        out.device_ptr()?,
        pattern(value, dtype),
        out.len(),
    )?;
    Ok(out)
}
