//! Grids, blocks and sizes of launches.

use crate::kernel::Kernel;
use crate::{Error, Result};

/// Threads of a block where a kernel leaves the choice open.
pub(crate) const BLOCK: u32 = 256;

/// A size as kernels count: they keep sums of two sizes in 32 bits.
///
/// # Errors
/// [`Error::Shape`] from 2^31 on.
pub(crate) fn count(kernel: &Kernel, size: usize) -> Result<u32> {
    match i32::try_from(size) {
        Ok(size) => Ok(size.unsigned_abs()),
        Err(_) => Err(Error::shape(
            kernel.entry(),
            "sizes below 2^31 on a device",
            size.to_string(),
        )),
    }
}

/// The product of sizes, checked like each of them.
pub(crate) fn product(kernel: &Kernel, sizes: &[usize]) -> Result<u32> {
    let product = sizes
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
    count(kernel, product.unwrap_or(usize::MAX))
}

/// Threads of a block that works on one row: a vector of four for each where the row is short, all there are where it is long.
pub(crate) fn row_block(cols: u32) -> [u32; 3] {
    [cols.div_ceil(4).next_power_of_two().clamp(32, BLOCK), 1, 1]
}

/// Dynamic shared memory that keeps a row of so many bytes between passes, and the kernels' flag for it. Longer rows are read again.
pub(crate) fn resident(cols: u32, bytes: u32) -> (u32, u32) {
    match cols.checked_mul(bytes) {
        Some(row) if row <= MOST_KEPT => (row, 1),
        _ => (0, 0),
    }
}

/// What every device gives a block without being asked twice, less the kernels' own 64 bytes.
const MOST_KEPT: u32 = (48 << 10) - 64;
