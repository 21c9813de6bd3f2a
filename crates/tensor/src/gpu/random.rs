//! Counter-based random numbers.

use super::kernels;
use super::launch::{BLOCK, count};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::{DType, Error, Result, Tensor};
use std::sync::Arc;

/// Launches a `philox` kernel: the first `n` numbers of a seed's stream.
///
/// # Errors
/// [`Error::Shape`] from 2^31 numbers on, and what the driver says.
pub fn philox(
    kernel: &Kernel,
    driver: &dyn Driver,
    out: DevicePtr,
    seed: u64,
    stream: u64,
    n: usize,
) -> Result<()> {
    let n = count(kernel, n)?;
    if n == 0 {
        return Ok(());
    }
    let args = [Arg::Ptr(out), Arg::U64(seed), Arg::U64(stream), Arg::U32(n)];
    kernel.launch(
        driver,
        [n.div_ceil(4 * BLOCK), 1, 1],
        [BLOCK, 1, 1],
        0,
        &args,
    )
}

/// F32 numbers by the kernel of that name.
pub(crate) fn drawn(
    op: &'static str,
    name: &str,
    shape: &[usize],
    [seed, stream]: [u64; 2],
    driver: &Arc<dyn Driver>,
) -> Result<Tensor> {
    let kernel =
        kernels::named(name).ok_or_else(|| Error::argument(op, "name", "a kernel", name))?;
    let out = Tensor::unwritten(op, shape, DType::F32, driver)?;
    philox(
        kernel,
        &**driver,
        out.device_ptr()?,
        seed,
        stream,
        out.len(),
    )?;
    Ok(out)
}
