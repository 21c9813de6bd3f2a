//! Buffers: vectors on the host, allocations of a driver.

use crate::device::{Device, DevicePtr, Driver};
use crate::dtype::{DType, Element};
use crate::{Error, Result};
use half::{bf16, f16};
use std::sync::Arc;

/// What tensors share.
pub(crate) enum Storage {
    Host(Host),
    Device(DeviceBuffer),
}

impl Storage {
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Host(host) => host.dtype(),
            Self::Device(buffer) => buffer.dtype,
        }
    }

    pub(crate) fn device(&self) -> &Device {
        match self {
            Self::Host(_) => &Device::Cpu,
            Self::Device(buffer) => &buffer.device,
        }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Host(host) => host.as_bytes().len() / host.dtype().size_in_bytes(),
            Self::Device(buffer) => buffer.len(),
        }
    }
}

/// A vector of one of the element types; public in a private module, for the sealed half of [`Element`].
pub enum Host {
    F64(Vec<f64>),
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    I8(Vec<i8>),
}

impl Host {
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::F64(_) => DType::F64,
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::BF16(_) => DType::BF16,
            Self::U32(_) => DType::U32,
            Self::I32(_) => DType::I32,
            Self::U8(_) => DType::U8,
            Self::I8(_) => DType::I8,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::F64(values) => bytemuck::cast_slice(values),
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::F16(values) => bytemuck::cast_slice(values),
            Self::BF16(values) => bytemuck::cast_slice(values),
            Self::U32(values) => bytemuck::cast_slice(values),
            Self::I32(values) => bytemuck::cast_slice(values),
            Self::U8(values) => values,
            Self::I8(values) => bytemuck::cast_slice(values),
        }
    }
}

/// Memory of a driver, given back on drop.
pub(crate) struct DeviceBuffer {
    device: Device,
    driver: Arc<dyn Driver>,
    pointer: DevicePtr,
    bytes: usize,
    dtype: DType,
}

impl DeviceBuffer {
    /// New memory of `driver` for `bytes` bytes, contents undefined. Nothing is asked for where there is nothing to hold.
    pub(crate) fn unwritten(driver: &Arc<dyn Driver>, bytes: usize, dtype: DType) -> Result<Self> {
        let pointer = match bytes {
            0 => DevicePtr::new(0),
            _ => driver.alloc(bytes)?,
        };
        Ok(Self {
            device: Device::Gpu(driver.clone()),
            driver: driver.clone(),
            pointer,
            bytes,
            dtype,
        })
    }

    /// Copies `bytes` to new memory of `driver`.
    pub(crate) fn upload(driver: &Arc<dyn Driver>, bytes: &[u8], dtype: DType) -> Result<Self> {
        // From here on an error drops `buffer`, and with it the allocation.
        let buffer = Self::unwritten(driver, bytes.len(), dtype)?;
        if !bytes.is_empty() {
            driver.upload(buffer.pointer, bytes)?;
        }
        Ok(buffer)
    }

    /// Copies everything to a new vector.
    pub(crate) fn download<T: Element>(&self, op: &'static str) -> Result<Vec<T>> {
        let mut values = zeroed::<T>(op, self.bytes / size_of::<T>())?;
        if self.bytes > 0 {
            self.driver
                .download(self.pointer, bytemuck::cast_slice_mut(&mut values))?;
        }
        Ok(values)
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.bytes / self.dtype.size_in_bytes()
    }

    pub(crate) fn pointer(&self) -> DevicePtr {
        self.pointer
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // A drop has nobody to tell. A driver that refuses has lost the memory already (a dead context, say).
            let _ = self.driver.free(self.pointer);
        }
    }
}

/// A vector of zeros, or an error where the allocator has no room: shapes come from callers, and a broadcast view can have far
/// more elements than memory.
pub(crate) fn zeroed<T: Element>(op: &'static str, len: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(len).map_err(|()| Error::Memory {
        op,
        bytes: len.saturating_mul(size_of::<T>()),
    })
}
