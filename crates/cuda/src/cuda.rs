//! The driver: one device, one stream.

use crate::device::{Properties, attribute_of, driver_version};
use crate::memory::{self, Allocation, Allocations, Owner, Pool};
use crate::module::{Function, Modules, Resources};
use crate::staging::Staging;
use crate::words;
use cudarc::driver::sys::CUdevice_attribute::*;
use cudarc::driver::{CudaContext, CudaStream, result};
use std::any::Any;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use whittle_tensor::device::Info;
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::{DevicePtr, Driver, Error, Result};

/// The oldest driver whose PTX compiler takes every kernel of the project, as CUDA version: R535.
const OLDEST_DRIVER: u32 = 12020;

/// Shared memory that every block can have without asking, in bytes.
const SHARED_UNASKED: u32 = 48 << 10;

/// A GPU, opened by [`open`](crate::open): its primary context, which every user of the process shares, and a stream of our own.
#[derive(Debug)]
pub struct Cuda {
    // Fields are dropped in this order: what the device reads, the pool, the stream, the context.
    state: Mutex<State>,
    pool: Option<Pool>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    info: Info,
    properties: Properties,
}

/// What calls share. The lock is held while work is put into the stream, so that no other thread frees what it uses in between.
#[derive(Debug)]
struct State {
    modules: Modules,
    staging: Staging,
    allocations: Allocations,
}

impl Cuda {
    /// Opens a device; the driver's library is there.
    pub(crate) fn new(ordinal: usize) -> Result<Self, String> {
        result::init().map_err(words)?;
        let version = driver_version()?;
        if version < OLDEST_DRIVER {
            return Err(format!(
                "expected a driver for CUDA 12.2 (R535) or newer, found one for CUDA {}.{}",
                version / 1000,
                version % 1000 / 10
            ));
        }
        let devices = CudaContext::device_count().map_err(words)?.unsigned_abs() as usize;
        if ordinal >= devices {
            return Err(format!("the driver has {devices} devices, no {ordinal}"));
        }
        let context = CudaContext::new(ordinal).map_err(words)?;
        let (major, minor) = context.compute_capability().map_err(words)?;
        let properties = Properties::read(&context)?;
        let info = Info {
            name: format!("cuda:{ordinal} {}", properties.name),
            capability: (major.unsigned_abs(), minor.unsigned_abs()),
            multiprocessors: attribute_of(&context, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            memory: context.total_mem().map_err(words)? as u64,
            shared_memory: attribute_of(
                &context,
                CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
        };
        let stream = context.new_stream().map_err(words)?;
        Ok(Self {
            state: Mutex::new(State {
                modules: Modules::default(),
                staging: Staging::new(&stream)?,
                allocations: Allocations::default(),
            }),
            pool: Pool::new(&context)?,
            stream,
            context,
            info,
            properties,
        })
    }

    /// The device's primary context, for code that uses cudarc beside this crate.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The stream that all work of this driver is in.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// What the device is, beyond [`Driver::info`].
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// What the driver's compiler made of a kernel; loads it where it is new.
    ///
    /// # Errors
    /// [`Error::Driver`]: the text can't be loaded or has no such entry.
    pub fn resources(&self, kernel: &Kernel) -> Result<Resources> {
        Ok(self.function("resources", kernel)?.resources)
    }

    /// Blocks of `threads` threads and `shared` bytes of dynamic shared memory that one multiprocessor holds at a time, by the
    /// driver's own count.
    ///
    /// # Errors
    /// Those of [`resources`](Self::resources), and a block that the device can't hold at all.
    pub fn occupancy(&self, kernel: &Kernel, threads: u32, shared: u32) -> Result<u32> {
        let function = self.function("occupancy", kernel)?;
        self.attempt("occupancy", |_| {
            self.allow_shared(&function, shared)?;
            function.occupancy(threads, shared)
        })
    }

    /// Takes memory that somebody else allocated on this device, without a copy. [`Driver::free`] drops `owner`, after all work of
    /// this driver has finished.
    ///
    /// # Errors
    /// [`Error::Driver`]: no bytes, or a range that overlaps an allocation of this driver.
    ///
    /// # Safety
    /// `bytes` bytes at `address` are memory of this device's primary context that lives until `owner` is dropped, aligned to 16
    /// bytes; no work of another stream uses it in the meantime, and earlier work on it has finished.
    pub unsafe fn adopt(
        &self,
        address: u64,
        bytes: usize,
        owner: impl Any + Send,
    ) -> Result<DevicePtr> {
        if bytes == 0 || !address.is_multiple_of(16) {
            let found =
                format!("expected bytes at a multiple of 16, found {bytes} at {address:#x}");
            return Err(self.error("adopt", found));
        }
        // `owner` is dropped on an error, and by then the lock is free: its drop may call this driver.
        self.attempt("adopt", |state| state.allocations.vacant(address, bytes))?;
        let owner = Owner::Guest(Box::new(owner));
        self.state()
            .allocations
            .insert(address, Allocation { bytes, owner });
        Ok(DevicePtr::new(address))
    }

    pub(crate) fn error(&self, op: &'static str, reason: String) -> Error {
        Error::Driver {
            driver: self.info.name.clone(),
            op,
            reason,
        }
    }

    /// The state, also after a panic in another thread: every change of it is one step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` on the driver's context; its error becomes one of `op`.
    fn attempt<T>(
        &self,
        op: &'static str,
        work: impl FnOnce(&mut State) -> Result<T, String>,
    ) -> Result<T> {
        let bound = self.context.bind_to_thread().map_err(words);
        bound
            .and_then(|()| work(&mut self.state()))
            .map_err(|reason| self.error(op, reason))
    }

    fn function(&self, op: &'static str, kernel: &Kernel) -> Result<Function> {
        self.attempt(op, |state| state.modules.function(kernel, &self.context))
    }

    /// Checks a launch and puts it into the stream.
    fn put(
        &self,
        state: &State,
        function: &Function,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[Arg],
    ) -> Result<(), String> {
        check_shape(grid, block, function.resources.threads_max)?;
        function.signature.check(args)?;
        for arg in args {
            // An empty tensor has the address 0, which its kernel does not read.
            if let Arg::Ptr(pointer) = arg
                && pointer.address() != 0
            {
                state.allocations.check(pointer.address(), 0)?;
            }
        }
        self.allow_shared(function, shared)?;
        let mut values: Vec<u64> = args.iter().map(bits).collect();
        let pointer = |value| std::ptr::from_mut::<u64>(value).cast::<c_void>();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(pointer).collect();
        let (grid, block) = (grid.into(), block.into());
        let stream = self.stream.cu_stream();
        // SAFETY: the function is loaded; there are as many arguments as the entry has parameters, each at least as wide, and the
        // driver copies them before the call returns. What the kernel does with the addresses is the kernel's affair; they are of
        // live allocations, which the lock keeps live until the launch is in the stream.
        unsafe { result::launch_kernel(function.raw(), grid, block, shared, stream, &mut pointers) }
            .map_err(words)
    }

    /// Checks `shared` bytes of dynamic shared memory against the device and asks for them.
    fn allow_shared(&self, function: &Function, shared: u32) -> Result<(), String> {
        let fixed = function.resources.shared_bytes;
        let limit = self.info.shared_memory;
        let whole = fixed.saturating_add(shared);
        if whole > limit {
            return Err(format!(
                "expected at most {limit} bytes of shared memory, found {fixed} static and {shared} dynamic"
            ));
        }
        if whole > SHARED_UNASKED {
            function.allow_shared(shared)?;
        }
        Ok(())
    }

    /// Frees what has left the table of allocations.
    fn give_back(&self, address: u64, allocation: Allocation) -> Result<(), String> {
        match allocation.owner {
            // SAFETY: the address came from `alloc`, which chose by the same field, and nobody else has it: it left the table.
            Owner::Driver => unsafe { memory::free(address, self.pool.is_some(), &self.stream) },
            Owner::Guest(owner) => {
                let waited = self.stream.synchronize().map_err(words);
                drop(owner);
                waited
            }
        }
    }
}

impl Driver for Cuda {
    fn alloc(&self, bytes: usize) -> Result<DevicePtr> {
        self.attempt("alloc", |state| {
            if bytes == 0 {
                return Err("expected at least one byte".to_owned());
            }
            let address = match &self.pool {
                Some(pool) => pool.alloc(bytes, &self.stream),
                // SAFETY: the contents are undefined, which the trait says.
                None => unsafe { result::malloc_sync(bytes) }.map_err(words),
            };
            let address = address.map_err(|reason| format!("{bytes} bytes: {reason}"))?;
            let owner = Owner::Driver;
            state
                .allocations
                .insert(address, Allocation { bytes, owner });
            Ok(DevicePtr::new(address))
        })
    }

    fn free(&self, pointer: DevicePtr) -> Result<()> {
        let address = pointer.address();
        let allocation = self.attempt("free", |state| state.allocations.remove(address))?;
        // Without the lock: the drop of a guest's owner may call this driver.
        self.give_back(address, allocation)
            .map_err(|reason| self.error("free", reason))
    }

    fn upload(&self, dst: DevicePtr, src: &[u8]) -> Result<()> {
        self.attempt("upload", |state| {
            state.allocations.check(dst.address(), src.len())?;
            // SAFETY: the range is inside a live allocation, and the lock keeps it live until the copy is in the stream.
            unsafe { state.staging.send(dst.address(), src) }
        })
    }

    fn download(&self, src: DevicePtr, dst: &mut [u8]) -> Result<()> {
        self.attempt("download", |state| {
            state.allocations.check(src.address(), dst.len())?;
            // SAFETY: the range is inside a live allocation, and the lock keeps it live until the copy is in the stream. `dst` stays
            // borrowed until the synchronisation below, or is not written where the call failed.
            unsafe { result::memcpy_dtoh_async(dst, src.address(), self.stream.cu_stream()) }
                .map_err(words)
        })?;
        let waited = self.stream.synchronize();
        waited.map_err(|error| self.error("download", words(error)))
    }

    fn copy(&self, src: DevicePtr, dst: DevicePtr, bytes: usize) -> Result<()> {
        let (src, dst) = (src.address(), dst.address());
        self.attempt("copy", |state| {
            state.allocations.check(src, bytes)?;
            state.allocations.check(dst, bytes)?;
            if src < dst.saturating_add(bytes as u64) && dst < src.saturating_add(bytes as u64) {
                return Err(format!("{bytes} bytes at {src:#x} and at {dst:#x} overlap"));
            }
            // SAFETY: both ranges are inside live allocations, and the lock keeps them live until the copy is in the stream.
            unsafe { result::memcpy_dtod_async(dst, src, bytes, self.stream.cu_stream()) }
                .map_err(words)
        })
    }

    fn launch(
        &self,
        kernel: &Kernel,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[Arg],
    ) -> Result<()> {
        let function = self.function("launch", kernel)?;
        self.attempt("launch", |state| {
            self.put(state, &function, grid, block, shared, args)
                .map_err(|reason| {
                    let entry = kernel.entry();
                    format!("{entry} on grid {grid:?} of blocks {block:?}: {reason}")
                })
        })
    }

    fn synchronize(&self) -> Result<()> {
        let waited = self.stream.synchronize();
        waited.map_err(|error| self.error("synchronize", words(error)))
    }

    fn info(&self) -> Info {
        self.info.clone()
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        let live: Vec<_> = self.state().allocations.drain().collect();
        // A drop has nobody to tell. What the driver refuses here belongs to a context that is dead already.
        let _ = self.context.bind_to_thread();
        for (address, allocation) in live {
            let _ = self.give_back(address, allocation);
        }
        let _ = self.stream.synchronize();
    }
}

/// The limits of every device, and the block's of this kernel.
fn check_shape(grid: [u32; 3], block: [u32; 3], threads_max: u32) -> Result<(), String> {
    let grid_max = [i32::MAX.unsigned_abs(), 65_535, 65_535];
    if grid.iter().zip(grid_max).any(|(&n, max)| n > max) {
        return Err(format!("expected a grid of at most {grid_max:?}"));
    }
    let block_max = [1024, 1024, 64];
    let threads = block.iter().try_fold(1u32, |n, &side| n.checked_mul(side));
    let fits = block.iter().zip(block_max).all(|(&n, max)| n <= max);
    if !fits || threads.is_none_or(|threads| threads > threads_max) {
        return Err(format!(
            "expected a block of at most {block_max:?} and {threads_max} threads"
        ));
    }
    Ok(())
}

/// The argument in the first bytes of a little-endian word: the driver reads as many as the parameter has.
fn bits(arg: &Arg) -> u64 {
    match *arg {
        Arg::Ptr(pointer) => pointer.address(),
        Arg::U32(value) => value.into(),
        Arg::I32(value) => value.cast_unsigned().into(),
        Arg::U64(value) => value,
        Arg::F32(value) => value.to_bits().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_and_blocks_beyond_the_limits_are_refused() {
        let check = |grid, block| check_shape(grid, block, 512);
        assert_eq!(check([i32::MAX as u32, 65_535, 65_535], [8, 1, 64]), Ok(()));
        assert!(check([1 << 31, 1, 1], [1; 3]).unwrap_err().contains("grid"));
        assert!(check([1, 65_536, 1], [1; 3]).unwrap_err().contains("grid"));
        for block in [[513, 1, 1], [1, 1, 65], [u32::MAX; 3], [32, 32, 1]] {
            assert!(check([1; 3], block).unwrap_err().contains("512 threads"));
        }
    }

    #[test]
    fn arguments_lie_in_the_first_bytes_of_their_word() {
        for (arg, bytes) in [
            (Arg::Ptr(DevicePtr::new(0x0102_0304_0506_0708)), 8),
            (Arg::U64(u64::MAX - 1), 8),
            (Arg::U32(0xdead_beef), 4),
            (Arg::I32(-2), 4),
            (Arg::F32(-1.5), 4),
        ] {
            let word = bits(&arg).to_le_bytes();
            let expected: Vec<u8> = match arg {
                Arg::Ptr(pointer) => pointer.address().to_le_bytes().to_vec(),
                Arg::U64(value) => value.to_le_bytes().to_vec(),
                Arg::U32(value) => value.to_le_bytes().to_vec(),
                Arg::I32(value) => value.to_le_bytes().to_vec(),
                Arg::F32(value) => value.to_le_bytes().to_vec(),
            };
            assert_eq!(word[..bytes], expected);
        }
    }
}
