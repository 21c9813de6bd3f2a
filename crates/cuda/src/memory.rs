//! Which addresses belong to the driver, and the pool that they come from.

use crate::words;
use cudarc::driver::{CudaContext, CudaStream, result, sys};
use std::any::Any;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Live allocations by their first address.
#[derive(Debug, Default)]
pub struct Allocations(BTreeMap<u64, Allocation>);

/// One live allocation.
#[derive(Debug)]
pub struct Allocation {
    pub bytes: usize,
    pub owner: Owner,
}

/// Who gives the memory back.
#[derive(Debug)]
pub enum Owner {
    /// The driver.
    Driver,
    /// An object of somebody else's, which does it when it is dropped.
    Guest(Box<dyn Any + Send>),
}

impl Allocations {
    /// Adds an allocation.
    pub fn insert(&mut self, address: u64, allocation: Allocation) {
        self.0.insert(address, allocation);
    }

    /// Whether `bytes` bytes at `address` overlap nothing that lives.
    pub fn vacant(&self, address: u64, bytes: usize) -> Result<(), String> {
        let end = address
            .checked_add(bytes as u64)
            .ok_or("the range wraps around the address space")?;
        let before = self.0.range(..end).next_back();
        if let Some((&start, other)) = before
            && start + other.bytes as u64 > address
        {
            return Err(format!(
                "{bytes} bytes at {address:#x} overlap the allocation of {} bytes at {start:#x}",
                other.bytes
            ));
        }
        Ok(())
    }

    /// Takes the allocation that starts at `address`.
    pub fn remove(&mut self, address: u64) -> Result<Allocation, String> {
        self.0
            .remove(&address)
            .ok_or_else(|| format!("{address:#x} is not the start of a live allocation"))
    }

    /// Whether `bytes` bytes at `address` lie inside one allocation.
    pub fn check(&self, address: u64, bytes: usize) -> Result<(), String> {
        let inside = self
            .0
            .range(..=address)
            .next_back()
            .is_some_and(|(start, allocation)| {
                let offset = address - start;
                offset
                    .checked_add(bytes as u64)
                    .is_some_and(|end| end <= allocation.bytes as u64)
            });
        if inside {
            return Ok(());
        }
        Err(format!(
            "expected a range inside a live allocation, found {bytes} bytes at {address:#x}"
        ))
    }

    /// Takes all allocations.
    pub fn drain(&mut self) -> impl Iterator<Item = (u64, Allocation)> {
        std::mem::take(&mut self.0).into_iter()
    }
}

/// A memory pool of our own, which keeps what is freed for the next allocation: the device's default pool gives it back to the
/// system at each synchronisation, and mapping it again is slow. Other users of the process keep their settings.
#[derive(Debug)]
pub struct Pool {
    pool: sys::CUmemoryPool,
    context: Arc<CudaContext>,
}

// SAFETY: a pool's handle may be used from every thread, by the driver's documentation.
unsafe impl Send for Pool {}
// SAFETY: as above; every call is one call of the driver, which locks where it must.
unsafe impl Sync for Pool {}

impl Pool {
    /// A pool on the context's device, or `None` where the device has none.
    pub fn new(context: &Arc<CudaContext>) -> Result<Option<Self>, String> {
        if !context.has_async_alloc() {
            return Ok(None);
        }
        let properties = sys::CUmemPoolProps {
            allocType: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location: sys::CUmemLocation {
                type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
                id: context.cu_device(),
            },
            win32SecurityAttributes: std::ptr::null_mut(),
            maxSize: 0,
            reserved: [0; 56],
        };
        let mut pool = MaybeUninit::uninit();
        // SAFETY: both pointers are to live values of the types that the call expects; success writes the handle.
        let pool = unsafe {
            sys::cuMemPoolCreate(pool.as_mut_ptr(), &properties)
                .result()
                .map_err(words)?;
            pool.assume_init()
        };
        let this = Self {
            pool,
            context: context.clone(),
        };
        let mut keep = u64::MAX;
        // SAFETY: the attribute's value is a u64, read before the call returns.
        let set = unsafe {
            sys::cuMemPoolSetAttribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                std::ptr::from_mut(&mut keep).cast(),
            )
        };
        set.result().map_err(words)?;
        Ok(Some(this))
    }

    /// Memory that work on `stream` may use from here on.
    pub fn alloc(&self, bytes: usize, stream: &CudaStream) -> Result<u64, String> {
        let mut address = MaybeUninit::uninit();
        // SAFETY: pool and stream live as long as `self` and the borrow; success writes the address.
        unsafe {
            let result = sys::cuMemAllocFromPoolAsync(
                address.as_mut_ptr(),
                bytes,
                self.pool,
                stream.cu_stream(),
            );
            result.result().map_err(words)?;
            Ok(address.assume_init())
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.context.record_err(self.context.bind_to_thread());
        // SAFETY: nobody else has the handle. What was allocated from the pool and still lives, lives on until it is freed.
        let destroyed = unsafe { sys::cuMemPoolDestroy(self.pool) };
        self.context.record_err(destroyed.result());
    }
}

/// Gives `address` back once earlier work on `stream` has finished.
///
/// # Safety
/// The address came from a [`Pool`] (`pooled`) or from [`result::malloc_sync`] of the stream's context and was not freed.
pub unsafe fn free(address: u64, pooled: bool, stream: &CudaStream) -> Result<(), String> {
    if pooled {
        // SAFETY: the caller's promise; later work can't have the address, it is no allocation any more.
        return unsafe { result::free_async(address, stream.cu_stream()) }.map_err(words);
    }
    stream.synchronize().map_err(words)?;
    // SAFETY: the caller's promise, and nothing on the stream uses the memory any more.
    unsafe { result::free_sync(address) }.map_err(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: usize) -> Allocation {
        Allocation {
            bytes,
            owner: Owner::Driver,
        }
    }

    #[test]
    fn only_ranges_inside_one_live_allocation_pass() {
        let mut live = Allocations::default();
        live.insert(0x1000, of(256));
        live.insert(0x1100, of(16));
        for (address, bytes, inside) in [
            (0x1000, 256, true),
            (0x1010, 240, true),
            (0x1100, 16, true),
            (0x1110, 0, true),
            // Over the end, though the neighbour begins there.
            (0x1000, 257, false),
            (0x1010, 241, false),
            (0x0fff, 1, false),
            (0x1111, 0, false),
            (u64::MAX, usize::MAX, false),
        ] {
            assert_eq!(live.check(address, bytes).is_ok(), inside, "{address:#x}");
        }
        live.remove(0x1000).unwrap();
        assert!(live.check(0x1000, 1).unwrap_err().contains("0x1000"));
    }

    #[test]
    fn an_allocation_is_given_back_once_and_by_its_start() {
        let mut live = Allocations::default();
        live.insert(0x1000, of(256));
        assert!(live.remove(0x1008).unwrap_err().contains("0x1008"));
        assert_eq!(live.remove(0x1000).unwrap().bytes, 256);
        assert!(live.remove(0x1000).is_err());
    }

    #[test]
    fn overlapping_guests_are_refused() {
        let mut live = Allocations::default();
        live.insert(0x1000, of(256));
        for (address, bytes) in [(0x1000, 1), (0x10ff, 1), (0x0f00, 0x101), (0x0f00, 0x1000)] {
            let error = live.vacant(address, bytes).unwrap_err();
            assert!(error.contains("overlap"), "{error}");
        }
        assert!(live.vacant(u64::MAX, 2).unwrap_err().contains("wraps"));
        assert_eq!(live.vacant(0x0f00, 0x100), Ok(()));
        assert_eq!(live.vacant(0x1100, 1), Ok(()));
        assert_eq!(live.drain().count(), 1);
        assert!(live.check(0x1000, 1).is_err());
    }
}
