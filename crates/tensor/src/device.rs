//! Where tensors live: the CPU, or a driver that runs PTX kernels.

use crate::Result;
use crate::kernel::{Arg, Kernel};
use std::fmt::Debug;
use std::sync::Arc;

/// Where a tensor's elements are.
#[derive(Clone, Debug)]
pub enum Device {
    /// The host's memory.
    Cpu,
    /// Memory of a driver: a GPU, or the PTX virtual machine that stands in for one.
    Gpu(Arc<dyn Driver>),
}

impl Device {
    /// A name for messages: `cpu`, or what the driver calls itself.
    pub fn name(&self) -> String {
        match self {
            Self::Cpu => "cpu".to_owned(),
            Self::Gpu(driver) => driver.info().name,
        }
    }
}

/// Two devices are equal when they are the CPU or the same driver object.
impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cpu, Self::Cpu) => true,
            (Self::Gpu(a), Self::Gpu(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            _ => false,
        }
    }
}

impl Eq for Device {}

/// An address on a device. What it means is the driver's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevicePtr(u64);

impl DevicePtr {
    /// The address as the driver gave it.
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The address as a number.
    pub const fn address(self) -> u64 {
        self.0
    }

    /// The address `bytes` further on, modulo 2^64: a wrong one is for the driver to refuse.
    #[must_use]
    pub const fn byte_offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

/// What a driver says of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Driver and device, for messages.
    pub name: String,
    /// Compute capability, major and minor: `(8, 0)` takes PTX of `.target sm_80` and older.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// The most shared memory that one block can ask for, in bytes.
    pub shared_memory: u32,
}

/// Memory and launches of one device. Work is in one stream: what a later call sees, an earlier one has finished.
///
/// Every method returns [`Error::Driver`](crate::Error::Driver) for what the device refuses: an address it did not give out or
/// has taken back, a range beyond an allocation, no memory left.
pub trait Driver: Send + Sync + Debug {
    /// Memory for `bytes` bytes, aligned to 256, contents undefined.
    ///
    /// # Errors
    /// No room, or `bytes` is 0.
    fn alloc(&self, bytes: usize) -> Result<DevicePtr>;

    /// Gives an allocation back.
    ///
    /// # Errors
    /// `pointer` is not the start of a live allocation.
    fn free(&self, pointer: DevicePtr) -> Result<()>;

    /// Copies from the host. The bytes of `src` may change once this returns.
    ///
    /// # Errors
    /// The range is not inside a live allocation.
    fn upload(&self, dst: DevicePtr, src: &[u8]) -> Result<()>;

    /// Copies to the host, after all earlier work has finished.
    ///
    /// # Errors
    /// The range is not inside a live allocation; an earlier launch failed.
    fn download(&self, src: DevicePtr, dst: &mut [u8]) -> Result<()>;

    /// Copies `bytes` bytes inside the device; the ranges do not overlap.
    ///
    /// # Errors
    /// A range is not inside a live allocation.
    fn copy(&self, src: DevicePtr, dst: DevicePtr, bytes: usize) -> Result<()>;

    /// Starts a kernel: `grid` blocks of `block` threads, `shared` bytes of dynamic shared memory a block.
    ///
    /// The driver loads [`Kernel::ptx`] when it first meets it and looks up [`Kernel::entry`] in it. Call it through
    /// [`Kernel::launch`], which checks the arguments against the declaration first.
    ///
    /// # Errors
    /// The text can't be loaded or has no such entry, or the launch is beyond the device's limits.
    fn launch(
        &self,
        kernel: &Kernel,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[Arg],
    ) -> Result<()>;

    /// Waits for all work.
    ///
    /// # Errors
    /// A launch failed.
    fn synchronize(&self) -> Result<()>;

    /// What the device is.
    fn info(&self) -> Info;
}
