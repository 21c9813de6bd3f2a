//! From cust's context to the driver.

use cust::context::ContextHandle;
use cust::device::Device;
use cust::sys;
use std::sync::Arc;
use whittle_cuda::Cuda;
use whittle_tensor::{Error, Result};

/// Opens whittle's driver on the device of a cust context. The driver holds the device's primary context itself and may outlive
/// `context`.
///
/// # Errors
/// [`Error::Driver`]: a legacy context, which is not the device's primary one, and those of [`whittle_cuda::open`].
pub fn from_cust(context: &impl ContextHandle) -> Result<Arc<Cuda>> {
    let ordinal = ordinal_of(context).map_err(error)?;
    let cuda = whittle_cuda::open(ordinal)?;
    // Two crates, two names of the driver's type: the handles are compared as addresses.
    if cuda.context().cu_ctx().addr() != context.get_inner().addr() {
        return Err(error(format!(
            "expected the primary context of device {ordinal} (cust::context::Context), found another, legacy one"
        )));
    }
    Ok(cuda)
}

/// The device of a context as cust counts devices, which is the driver's order.
fn ordinal_of(context: &impl ContextHandle) -> Result<usize, String> {
    let mut device = 0;
    // SAFETY: the context is alive as long as its handle is borrowed. It is current only between the two calls around the query,
    // and popped whatever that returned; both pointers are to live values.
    let result = unsafe {
        succeed(sys::cuCtxPushCurrent_v2(context.get_inner()))?;
        let result = sys::cuCtxGetDevice(&mut device);
        let mut popped = std::ptr::null_mut();
        succeed(sys::cuCtxPopCurrent_v2(&mut popped))?;
        result
    };
    succeed(result)?;
    let mut devices = Device::devices().map_err(|error| error.to_string())?;
    devices
        .position(|found| found.is_ok_and(|found| found.as_raw() == device))
        .ok_or_else(|| format!("cust lists no device {device}"))
}

fn succeed(result: sys::CUresult) -> Result<(), String> {
    match result {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn error(reason: String) -> Error {
    Error::Driver {
        driver: "cust".to_owned(),
        op: "open",
        reason,
    }
}
