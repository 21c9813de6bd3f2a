//! A tensor's memory in cudarc's types and back, without a copy.

use crate::{Cuda, words};
use cudarc::driver::CudaSlice;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;
use whittle_tensor::{Device, DevicePtr, Element, Result, Tensor};

/// A tensor's elements as cudarc's slice. The tensor keeps the memory; all earlier work on it has finished.
#[derive(Debug)]
pub struct View<'a, T> {
    slice: ManuallyDrop<CudaSlice<T>>,
    // The view ends before the tensor does.
    _tensor: &'a Tensor,
}

impl<T> Deref for View<'_, T> {
    type Target = CudaSlice<T>;

    fn deref(&self) -> &CudaSlice<T> {
        &self.slice
    }
}

impl<T> Drop for View<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the slice is taken once, here, and `self` is not used after it.
        let slice = unsafe { ManuallyDrop::take(&mut self.slice) };
        // Gives back the slice's events and stream, and not the memory.
        slice.leak();
    }
}

impl Cuda {
    /// The elements of a contiguous tensor of this driver as cudarc's slice, after all work of this driver.
    ///
    /// # Errors
    /// [`Error::Device`](whittle_tensor::Error::Device) for a tensor that is elsewhere,
    /// [`Error::DType`](whittle_tensor::Error::DType) and [`Error::Layout`](whittle_tensor::Error::Layout) for one of another type
    /// or with gaps, [`Error::Driver`](whittle_tensor::Error::Driver) for one without elements or where a launch failed.
    pub fn view<'a, T: Element>(self: &Arc<Self>, tensor: &'a Tensor) -> Result<View<'a, T>> {
        let address = self.address_of::<T>(tensor)?;
        // SAFETY: the tensor has as many elements of T at that address and keeps them alive for longer than the view, which never
        // frees them. Any bytes are a valid T, as Element says.
        let slice = unsafe { self.stream().upgrade_device_ptr(address, tensor.len()) };
        Ok(View {
            slice: ManuallyDrop::new(slice),
            _tensor: tensor,
        })
    }

    /// The address of a contiguous tensor of this driver with at least one element of `T`, after all work of this driver.
    ///
    /// # Errors
    /// Those of [`view`](Self::view).
    pub fn address_of<T: Element>(self: &Arc<Self>, tensor: &Tensor) -> Result<u64> {
        let here = Device::Gpu(self.clone());
        if tensor.device() != &here {
            return Err(whittle_tensor::Error::Device {
                op: "view",
                expected: format!("a tensor on {}", here.name()),
                found: tensor.device().name(),
            });
        }
        if tensor.dtype() != T::DTYPE {
            return Err(whittle_tensor::Error::DType {
                op: "view",
                expected: T::DTYPE.to_string(),
                found: tensor.dtype(),
            });
        }
        if tensor.is_empty() {
            return Err(self.error("view", "the tensor has no elements".to_owned()));
        }
        let address = tensor.device_ptr()?.address();
        let waited = self.stream().synchronize();
        waited.map_err(|error| self.error("view", words(error)))?;
        Ok(address)
    }

    /// Takes a slice of cudarc's without a copy, after all work on its stream. [`free`](whittle_tensor::Driver::free) drops it.
    ///
    /// # Errors
    /// [`Error::Driver`](whittle_tensor::Error::Driver) for a slice of another context, without elements, or where a launch on its
    /// stream failed.
    pub fn adopt_slice<T: Element>(&self, slice: CudaSlice<T>) -> Result<DevicePtr> {
        if slice.context().cu_ctx() != self.context().cu_ctx() {
            let reason = "the slice belongs to another context".to_owned();
            return Err(self.error("adopt", reason));
        }
        let waited = slice.stream().synchronize();
        waited.map_err(|error| self.error("adopt", words(error)))?;
        let bytes = slice.num_bytes();
        let (address, _) = cudarc::driver::DevicePtr::device_ptr(&slice, self.stream());
        // SAFETY: the slice owns `bytes` bytes of this context at that address, its stream has finished, and it moves to the driver,
        // so that nobody else can put work on it. The allocator's addresses are multiples of 256.
        unsafe { self.adopt(address, bytes, slice) }
    }
}
