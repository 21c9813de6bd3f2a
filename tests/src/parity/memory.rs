//! Memory of a driver, exactly as long as what is put there, so that an access beyond it is one beyond the allocation.

use bytemuck::Pod;
use whittle_tensor::{DevicePtr, Driver};

/// An allocation with an array at its end.
pub(super) struct Buffer<'a> {
    driver: &'a dyn Driver,
    base: DevicePtr,
    /// Bytes before the array, which nobody may touch.
    before: usize,
    /// Bytes of the array.
    bytes: usize,
}

/// What stands where nothing has been written.
const POISON: u8 = 0xA5;

impl<'a> Buffer<'a> {
    /// An array that starts `shift` elements behind an address that is aligned to everything.
    pub(super) fn of<T: Pod>(driver: &'a dyn Driver, values: &[T], shift: usize) -> Self {
        Self::filled(driver, bytemuck::cast_slice(values), shift * size_of::<T>())
    }

    /// Poisoned memory for `len` elements.
    pub(super) fn poisoned<T: Pod>(driver: &'a dyn Driver, len: usize, shift: usize) -> Self {
        Self::filled(
            driver,
            &vec![POISON; len * size_of::<T>()],
            shift * size_of::<T>(),
        )
    }

    /// The bytes at the end of an allocation, poison before them.
    pub(super) fn filled(driver: &'a dyn Driver, bytes: &[u8], before: usize) -> Self {
        let mut whole = vec![POISON; before];
        whole.extend(bytes);
        // No allocation is empty.
        let base = driver.alloc(whole.len().max(1)).unwrap();
        if !whole.is_empty() {
            driver.upload(base, &whole).unwrap();
        }
        Self {
            driver,
            base,
            before,
            bytes: bytes.len(),
        }
    }

    /// The array's address.
    pub(super) fn pointer(&self) -> DevicePtr {
        self.base.byte_offset(self.before as u64)
    }

    /// The array; what stands before it must be as it was.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut whole = vec![0; self.before + self.bytes];
        if !whole.is_empty() {
            self.driver.download(self.base, &mut whole).unwrap();
        }
        assert!(
            whole[..self.before].iter().all(|byte| *byte == POISON),
            "written before the array"
        );
        whole.split_off(self.before)
    }

    /// [`bytes`](Self::bytes) as elements.
    pub(super) fn read<T: Pod>(&self) -> Vec<T> {
        bytemuck::pod_collect_to_vec(&self.bytes())
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // The driver of a launch that failed may refuse; the failure has been reported then.
        let _ = self.driver.free(self.base);
    }
}
