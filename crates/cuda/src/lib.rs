//! A driver for NVIDIA GPUs that opens `libcuda` at run time and runs whittle's PTX kernels.
//!
#![doc = include_str!("../README.md")]
// The crate is the border to a C library; each block carries its proof.
#![allow(unsafe_code)]

mod cuda;
mod device;
mod library;
mod memory;
mod module;
mod signature;
mod staging;
mod timer;
mod view;

pub use cuda::Cuda;
pub use cudarc;
pub use device::Properties;
pub use module::Resources;
pub use timer::Timer;
pub use view::View;

use cudarc::driver::DriverError;
use std::sync::Arc;
use whittle_tensor::{Error, Result};

/// Opens the GPU of that ordinal, from 0, on its primary context.
///
/// # Errors
/// [`Error::Driver`]: no NVIDIA driver was found (the reason lists what was looked for), the driver is older than CUDA 12.2
/// (R535), it has no such device, or the device can't be used.
pub fn open(ordinal: usize) -> Result<Arc<Cuda>> {
    let opened = library::find().and_then(|()| Cuda::new(ordinal));
    opened.map(Arc::new).map_err(|reason| Error::Driver {
        driver: format!("cuda:{ordinal}"),
        op: "open",
        reason,
    })
}

/// The driver's name of an error and what it says of it, `CUDA_ERROR_OUT_OF_MEMORY: out of memory`.
fn words(error: DriverError) -> String {
    let text = |found: Result<&std::ffi::CStr, DriverError>| {
        found.map_or_else(
            |_| format!("error {}", error.0 as u32),
            |text| text.to_string_lossy().into_owned(),
        )
    };
    format!(
        "{}: {}",
        text(error.error_name()),
        text(error.error_string())
    )
}
