//! Device memory, handed over without a copy.

use cust::memory::{DeviceBuffer, DeviceCopy, DevicePointer, DeviceSlice};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;
use whittle_cuda::Cuda;
use whittle_cuda::cudarc::driver::DriverError;
use whittle_cuda::cudarc::driver::sys::{self, CUpointer_attribute as Attribute};
use whittle_tensor::{DevicePtr, Element, Error, Result, Tensor};

/// A cust buffer as an address for kernel launches, after all work of its context. The driver holds `buffer` until
/// [`free`](whittle_tensor::Driver::free); with a clone of the Arc the caller may read it again after
/// [`synchronize`](whittle_tensor::Driver::synchronize).
///
/// # Errors
/// [`Error::Driver`]: a buffer of another context or without elements, one that the driver holds already, or a launch that failed.
pub fn adopt<T: Element + DeviceCopy>(
    cuda: &Cuda,
    buffer: Arc<DeviceBuffer<T>>,
) -> Result<DevicePtr> {
    let failed = |reason: String| Error::Driver {
        driver: "cust".to_owned(),
        op: "adopt",
        reason,
    };
    let driver = |error: DriverError| failed(error.to_string());
    if buffer.is_empty() {
        return Err(failed("the buffer has no elements".to_owned()));
    }
    let address = buffer.as_device_ptr().as_raw();
    // Cust's streams are the caller's; this waits for all of them.
    cuda.context().synchronize().map_err(driver)?;
    let mut context: sys::CUcontext = std::ptr::null_mut();
    // SAFETY: the attribute is a context handle, and `context` has room for one; a wrong address is an error of the driver.
    let asked = unsafe {
        sys::cuPointerGetAttribute(
            std::ptr::from_mut(&mut context).cast(),
            Attribute::CU_POINTER_ATTRIBUTE_CONTEXT,
            address,
        )
    };
    asked.result().map_err(driver)?;
    if context != cuda.context().cu_ctx() {
        let reason = "expected a buffer of the device's primary context, found one of another";
        return Err(failed(reason.to_owned()));
    }
    let bytes = buffer.len() * size_of::<T>();
    // SAFETY: the buffer has `bytes` bytes of this context at that address, which the allocator aligns to 256; they live until the
    // Arc is dropped. All earlier work has finished, and what the caller does on other streams is ordered by the documentation.
    unsafe { cuda.adopt(address, bytes, buffer) }
}

/// A tensor's elements as cust's slice. The tensor keeps the memory; all earlier work of its driver has finished.
#[derive(Debug)]
pub struct View<'a, T: DeviceCopy> {
    buffer: ManuallyDrop<DeviceBuffer<T>>,
    // The view ends before the tensor does.
    _tensor: &'a Tensor,
}

impl<T: DeviceCopy> Deref for View<'_, T> {
    type Target = DeviceSlice<T>;

    fn deref(&self) -> &DeviceSlice<T> {
        &self.buffer
    }
}

/// The elements of a contiguous tensor of the driver as cust's slice, after all work of the driver.
///
/// # Errors
/// Those of [`Cuda::address_of`].
pub fn view<'a, T: Element + DeviceCopy>(
    cuda: &Arc<Cuda>,
    tensor: &'a Tensor,
) -> Result<View<'a, T>> {
    let address = DevicePointer::from_raw(cuda.address_of::<T>(tensor)?);
    // SAFETY: the tensor has that many elements of T there and keeps them for longer than the view lives. The buffer is never
    // dropped, so that it frees nothing; any bytes are a valid T, as Element says.
    let buffer = unsafe { DeviceBuffer::from_raw_parts(address, tensor.len()) };
    Ok(View {
        buffer: ManuallyDrop::new(buffer),
        _tensor: tensor,
    })
}
