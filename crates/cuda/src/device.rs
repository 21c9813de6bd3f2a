//! What a device is.

use crate::words;
use cudarc::driver::CudaContext;
use cudarc::driver::sys::{self, CUdevice_attribute::*};

/// Properties of a device that [`Info`](whittle_tensor::device::Info) leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// The device's name, as the driver has it.
    pub name: String,
    /// The CUDA version that the driver supports: 12020 for 12.2.
    pub driver_version: u32,
    /// Peak clock of the multiprocessors in kHz.
    pub clock_khz: u32,
    /// Peak clock of the memory in kHz.
    pub memory_clock_khz: u32,
    /// Width of the memory's bus in bits.
    pub memory_bus_bits: u32,
    /// Size of the L2 cache in bytes.
    pub l2_bytes: u32,
    /// Threads that a multiprocessor holds at most.
    pub multiprocessor_threads: u32,
    /// Blocks that a multiprocessor holds at most.
    pub multiprocessor_blocks: u32,
    /// 32-bit registers of a multiprocessor.
    pub multiprocessor_registers: u32,
    /// Shared memory of a multiprocessor in bytes.
    pub multiprocessor_shared: u32,
    /// Shared memory that the driver keeps of each block, in bytes.
    pub block_reserved_shared: u32,
}

impl Properties {
    pub(crate) fn read(context: &CudaContext) -> Result<Self, String> {
        let of = |attribute| attribute_of(context, attribute);
        Ok(Self {
            name: context.name().map_err(words)?,
            driver_version: driver_version()?,
            clock_khz: of(CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
            memory_clock_khz: of(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?,
            memory_bus_bits: of(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?,
            l2_bytes: of(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
            multiprocessor_threads: of(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
            multiprocessor_blocks: of(CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR)?,
            multiprocessor_registers: of(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR)?,
            multiprocessor_shared: of(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
            block_reserved_shared: of(CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK)?,
        })
    }
}

/// The CUDA version that the driver supports, before any context is made: 12020 for 12.2.
pub fn driver_version() -> Result<u32, String> {
    let mut version = 0;
    // SAFETY: the pointer is to a live integer.
    let result = unsafe { sys::cuDriverGetVersion(&mut version) };
    result.result().map_err(words)?;
    Ok(version.unsigned_abs())
}

/// One attribute of the context's device. All that are asked for here are counts and sizes.
pub fn attribute_of(
    context: &CudaContext,
    attribute: sys::CUdevice_attribute,
) -> Result<u32, String> {
    let value = context.attribute(attribute).map_err(words)?;
    Ok(value.unsigned_abs())
}
