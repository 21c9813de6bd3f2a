//! The tensor: a view of shared storage.

use crate::device::{Device, DevicePtr, Driver};
use crate::dtype::{DType, Element, with_element};
use crate::layout::{Layout, check_len};
use crate::real::Half;
use crate::storage::{DeviceBuffer, Storage, zeroed};
use crate::walk::Walk;
use crate::{Error, Result, gpu, par};
use half::{bf16, f16};
use std::fmt;
use std::sync::Arc;

/// An n-dimensional array of one element type: a [`Layout`] over storage that clones and views share.
///
/// Tensors don't change. Operations on the CPU return new, contiguous tensors; views ([`narrow`](Self::narrow),
/// [`transpose`](Self::transpose) …) share the storage and cost nothing.
#[derive(Clone)]
pub struct Tensor {
    storage: Arc<Storage>,
    layout: Layout,
}

impl Tensor {
    /// A tensor on the CPU that takes over `data`, in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] where `shape` does not have `data.len()` elements.
    pub fn from_vec<T: Element>(data: Vec<T>, shape: &[usize]) -> Result<Self> {
        let layout = Layout::for_op("from_vec", shape)?;
        if layout.len() != data.len() {
            return Err(Error::shape(
                "from_vec",
                format!("a shape of {} elements", data.len()),
                format!("{shape:?}"),
            ));
        }
        Ok(Self::owned(data, layout))
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Memory`] for a shape that memory can't hold; on a device [`Error::DType`] for F64 and whatever
    /// its driver says.
    pub fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Result<Self> {
        if let Device::Gpu(driver) = device {
            return gpu::fill::full("zeros", shape, 0.0, dtype, driver);
        }
        let len = check_len("zeros", shape)?;
        with_element!(dtype, T => Self::from_vec(zeroed::<T>("zeros", len)?, shape))
    }

    /// A tensor whose elements are all the `dtype`'s nearest to `value`.
    ///
    /// # Errors
    /// Those of [`zeros`](Self::zeros).
    pub fn full(shape: &[usize], value: f64, dtype: DType, device: &Device) -> Result<Self> {
        if let Device::Gpu(driver) = device {
            return gpu::fill::full("full", shape, value, dtype, driver);
        }
        let len = check_len("full", shape)?;
        with_element!(dtype, T => {
            let mut data = zeroed::<T>("full", len)?;
            data.fill(T::from_double(value));
            Self::from_vec(data, shape)
        })
    }

    /// A tensor of rank 0 on the CPU.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self::owned(vec![value], Layout::row_major(&[]))
    }

    /// Sizes of the dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.layout.rank()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.layout.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.layout.is_empty()
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.storage.dtype()
    }

    /// Where the elements are.
    pub fn device(&self) -> &Device {
        self.storage.device()
    }

    /// Shape, strides and offset.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether both tensors are views of the same storage.
    pub fn shares_storage(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
    }

    /// Bytes of the whole storage that this tensor keeps alive, however little of it the view shows.
    pub fn storage_bytes(&self) -> usize {
        self.storage.len() * self.dtype().size_in_bytes()
    }

    /// The elements of a contiguous tensor on the CPU.
    ///
    /// # Errors
    /// [`Error::DType`] where they are of another type, [`Error::Layout`] for a view with gaps, [`Error::Device`] off the CPU.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        self.contiguous_slice("as_slice")
    }

    /// A copy of the elements in row-major order, from any layout and device.
    ///
    /// # Errors
    /// [`Error::DType`] where they are of another type; on a device whatever its driver says.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.check_dtype::<T>("to_vec")?;
        match &*self.storage {
            Storage::Host(_) => self.gathered("to_vec"),
            Storage::Device(_) => self.to_device(&Device::Cpu)?.gathered("to_vec"),
        }
    }

    /// The elements in row-major order; without a copy where this tensor is all of its storage and the only one that has it.
    ///
    /// # Errors
    /// Those of [`to_vec`](Self::to_vec).
    pub fn into_vec<T: Element>(self) -> Result<Vec<T>> {
        self.check_dtype::<T>("into_vec")?;
        let whole = self.layout.is_contiguous()
            && self.layout.offset() == 0
            && self.len() == self.storage.len();
        if !whole {
            return self.to_vec();
        }
        let Self { storage, layout } = self;
        match Arc::try_unwrap(storage) {
            Ok(Storage::Host(host)) => {
                T::into_vec(host).map_err(|host| dtype_error::<T>("into_vec", host.dtype()))
            }
            Ok(storage) => Self {
                storage: Arc::new(storage),
                layout,
            }
            .to_vec(),
            Err(storage) => Self { storage, layout }.to_vec(),
        }
    }

    /// The only element of a tensor that has one.
    ///
    /// # Errors
    /// [`Error::Shape`] where there are more or none, and those of [`to_vec`](Self::to_vec).
    pub fn to_scalar<T: Element>(&self) -> Result<T> {
        match self.to_vec::<T>()?[..] {
            [value] => Ok(value),
            _ => Err(Error::shape(
                "to_scalar",
                "one element",
                format!("{:?}", self.shape()),
            )),
        }
    }

    /// The device address of the first element of a contiguous tensor, for kernel launches.
    ///
    /// # Errors
    /// [`Error::Device`] on the CPU, [`Error::Layout`] for a view with gaps.
    pub fn device_ptr(&self) -> Result<DevicePtr> {
        let first = self.first_ptr("device_ptr")?;
        self.check_contiguous("device_ptr")?;
        Ok(first)
    }

    /// The tensor on `device`, itself if it is there already. The copy holds what the view shows and no more.
    ///
    /// # Errors
    /// [`Error::DType`] for F64 to a device, and whatever the drivers say.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if self.device() == device {
            return Ok(self.clone());
        }
        let Device::Gpu(driver) = device else {
            let Storage::Device(buffer) = &*self.storage else {
                return Ok(self.clone());
            };
            let whole = with_element!(self.dtype(), T => Self::from_vec(buffer.download::<T>("to_device")?, &[buffer.len()]))?;
            return whole.view(self.layout.clone()).compact("to_device");
        };
        if self.dtype() == DType::F64 {
            return Err(Error::dtype(
                "to_device",
                "other than f64 on a device",
                DType::F64,
            ));
        }
        let host = self.to_device(&Device::Cpu)?.compact("to_device")?;
        let Storage::Host(values) = &*host.storage else {
            return Err(host.no_kernel("to_device"));
        };
        let buffer = DeviceBuffer::upload(driver, values.as_bytes(), values.dtype())?;
        Ok(Self {
            storage: Arc::new(Storage::Device(buffer)),
            layout: host.layout,
        })
    }

    /// The tensor with its elements one behind the other: itself if they are, a copy if not.
    ///
    /// # Errors
    /// [`Error::Memory`] for a broadcast view that memory can't hold, on a device whatever its driver says.
    pub fn contiguous(&self) -> Result<Self> {
        if self.layout.is_contiguous() {
            return Ok(self.clone());
        }
        if let Device::Gpu(_) = self.device() {
            return gpu::copy::contiguous(self);
        }
        self.copied("contiguous")
    }

    /// The elements as type `dtype`: itself if they are. Floats become integers by cutting off the fraction and saturating (NaN
    /// becomes 0); between floats the nearest value is taken, ties to even.
    ///
    /// # Errors
    /// [`Error::DType`] for F64 on a device, [`Error::Memory`]; on a device whatever its driver says.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        if let Device::Gpu(_) = self.device() {
            if dtype == DType::F64 {
                return Err(Error::dtype(
                    "to_dtype",
                    "other than f64 on a device",
                    dtype,
                ));
            }
            return gpu::cast::to_dtype(self, dtype);
        }
        match (self.dtype(), dtype) {
            (DType::F16, DType::F32) => self.converted_by(f16::widen),
            (DType::BF16, DType::F32) => self.converted_by(bf16::widen),
            (DType::F32, DType::F16) => self.converted_by(f16::narrow),
            (DType::F32, DType::BF16) => self.converted_by(bf16::narrow),
            (from, to) => with_element!(from, From => with_element!(to, To => {
                self.converted_by(|values: &[From], out: &mut [To]| {
                    out.iter_mut().zip(values).for_each(|(out, value)| *out = To::from_double(value.to_double()));
                })
            })),
        }
    }

    /// A tensor over data of the layout's length.
    pub(crate) fn owned<T: Element>(data: Vec<T>, layout: Layout) -> Self {
        Self {
            storage: Arc::new(Storage::Host(T::into_host(data))),
            layout,
        }
    }

    /// A tensor in new memory of a device, of which a kernel will write every element.
    pub(crate) fn unwritten(
        op: &'static str,
        shape: &[usize],
        dtype: DType,
        driver: &Arc<dyn Driver>,
    ) -> Result<Self> {
        let layout = Layout::for_op(op, shape)?;
        let bytes = layout.len().saturating_mul(dtype.size_in_bytes());
        let buffer = DeviceBuffer::unwritten(driver, bytes, dtype)?;
        Ok(Self {
            storage: Arc::new(Storage::Device(buffer)),
            layout,
        })
    }

    /// The device address of the first element of any view.
    pub(crate) fn first_ptr(&self, op: &'static str) -> Result<DevicePtr> {
        let Storage::Device(buffer) = &*self.storage else {
            return Err(Error::Device {
                op,
                expected: "a tensor on a device".to_owned(),
                found: self.device().name(),
            });
        };
        let bytes = self.layout.offset() * self.dtype().size_in_bytes();
        Ok(buffer.pointer().byte_offset(bytes as u64))
    }

    pub(crate) fn view(&self, layout: Layout) -> Self {
        Self {
            storage: self.storage.clone(),
            layout,
        }
    }

    /// All elements of the storage; positions of the layout count from its start.
    pub(crate) fn buffer<T: Element>(&self, op: &'static str) -> Result<&[T]> {
        match &*self.storage {
            Storage::Host(host) => T::slice(host).ok_or_else(|| dtype_error::<T>(op, host.dtype())),
            Storage::Device(_) => Err(self.no_kernel(op)),
        }
    }

    /// [`as_slice`](Self::as_slice) with another operation's name in the errors.
    pub(crate) fn contiguous_slice<T: Element>(&self, op: &'static str) -> Result<&[T]> {
        let buffer = self.buffer(op)?;
        self.check_contiguous(op)?;
        Ok(&buffer[self.layout.offset()..][..self.len()])
    }

    pub(crate) fn no_kernel(&self, op: &'static str) -> Error {
        Error::Device {
            op,
            expected: format!(
                "a device with a kernel for {} (the CPU has one)",
                self.dtype()
            ),
            found: self.device().name(),
        }
    }

    pub(crate) fn check_host(&self, op: &'static str) -> Result<()> {
        if *self.device() == Device::Cpu {
            Ok(())
        } else {
            Err(self.no_kernel(op))
        }
    }

    /// Whether arithmetic takes the tensor: floats.
    pub(crate) fn check_float(&self, op: &'static str) -> Result<()> {
        if self.dtype().is_float() {
            Ok(())
        } else {
            Err(Error::dtype(op, "f64, f32, f16 or bf16", self.dtype()))
        }
    }

    /// Whether `other` has the dtype and the device of this tensor.
    pub(crate) fn check_alike(&self, op: &'static str, other: &Self) -> Result<()> {
        if self.dtype() != other.dtype() {
            return Err(Error::dtype(
                op,
                format!("{} of both operands", self.dtype()),
                other.dtype(),
            ));
        }
        if self.device() != other.device() {
            return Err(Error::Device {
                op,
                expected: self.device().name(),
                found: other.device().name(),
            });
        }
        Ok(())
    }

    /// Runs an operation on halves in f32: widened before, narrowed after.
    pub(crate) fn through_f32(&self, op: impl FnOnce(&Self) -> Result<Self>) -> Result<Self> {
        op(&self.to_dtype(DType::F32)?)?.to_dtype(self.dtype())
    }

    fn check_dtype<T: Element>(&self, op: &'static str) -> Result<()> {
        if self.dtype() == T::DTYPE {
            Ok(())
        } else {
            Err(dtype_error::<T>(op, self.dtype()))
        }
    }

    fn check_contiguous(&self, op: &'static str) -> Result<()> {
        if self.layout.is_contiguous() {
            return Ok(());
        }
        Err(Error::Layout {
            op,
            expected: "a contiguous tensor",
            found: self.layout.clone(),
        })
    }

    /// Itself where it is all of its storage, else a copy.
    fn compact(&self, op: &'static str) -> Result<Self> {
        if self.layout.is_contiguous()
            && self.layout.offset() == 0
            && self.len() == self.storage.len()
        {
            return Ok(self.clone());
        }
        self.copied(op)
    }

    fn copied(&self, op: &'static str) -> Result<Self> {
        with_element!(self.dtype(), T => Self::from_vec(self.gathered::<T>(op)?, self.shape()))
    }

    fn gathered<T: Element>(&self, op: &'static str) -> Result<Vec<T>> {
        self.mapped(
            op,
            |values: &[T], out: &mut [T]| out.copy_from_slice(values),
            |value| value,
        )
    }

    fn converted_by<From: Element, To: Element>(
        &self,
        run: impl Fn(&[From], &mut [To]) + Sync + Send,
    ) -> Result<Self> {
        let one = |value: From| To::from_double(value.to_double());
        Self::from_vec(self.mapped("to_dtype", run, one)?, self.shape())
    }

    /// One result an element, in row-major order: by `run` where elements lie one behind the other, by `one` where they don't.
    fn mapped<T: Element, U: Element>(
        &self,
        op: &'static str,
        run: impl Fn(&[T], &mut [U]) + Sync + Send,
        one: impl Fn(T) -> U + Sync + Send,
    ) -> Result<Vec<U>> {
        let buffer = self.buffer::<T>(op)?;
        let mut out = zeroed::<U>(op, self.len())?;
        let walk = Walk::new([&self.layout]);
        let [step] = walk.steps();
        par::pieces(&mut out, self.len(), |start, piece| {
            walk.segments(start, piece.len(), |range, [at]| {
                let out = &mut piece[range];
                if step == 1 {
                    run(&buffer[at..at + out.len()], out);
                } else {
                    out.iter_mut()
                        .enumerate()
                        .for_each(|(i, out)| *out = one(buffer[at + i * step]));
                }
            });
        });
        Ok(out)
    }
}

/// Type, shape and device, not the elements.
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tensor {{ {}, {:?}, {} }}",
            self.dtype(),
            self.layout,
            self.device().name()
        )
    }
}

fn dtype_error<T: Element>(op: &'static str, found: DType) -> Error {
    Error::dtype(op, T::DTYPE.name(), found)
}
