//! Rows by index.

use super::launch::{BLOCK, count};
use super::{driver, kernels, output};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::{Result, Tensor};

/// Bytes of the longest piece that a `gather` kernel can move, where rows are `row_bytes` long, those of the table `stride_bytes` apart.
pub fn piece(row_bytes: usize, stride_bytes: usize, x: DevicePtr, out: DevicePtr) -> usize {
    let places = [
        x.address(),
        out.address(),
        row_bytes as u64,
        stride_bytes as u64,
    ];
    [16, 4, 2]
        .into_iter()
        .find(|&piece| {
            places
                .iter()
                .all(|place| place.is_multiple_of(piece as u64))
        })
        .unwrap_or(1)
}

/// Launches a `gather` kernel: rows of `units` of its pieces, those of the table `stride` pieces apart. Every index has a row.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) from 2^31 rows or pieces on, and what the driver says.
pub fn rows(
    kernel: &Kernel,
    driver: &dyn Driver,
    x: DevicePtr,
    index: DevicePtr,
    out: DevicePtr,
    [rows, units, stride]: [usize; 3],
) -> Result<()> {
    let [rows, units, stride] = [
        count(kernel, rows)?,
        count(kernel, units)?,
        count(kernel, stride)?,
    ];
    if rows == 0 || units == 0 {
        return Ok(());
    }
    // Short rows share a block.
    let wide = units.next_power_of_two().min(BLOCK);
    let block = [wide, BLOCK / wide, 1];
    let grid = [rows.div_ceil(block[1]), units.div_ceil(wide), 1];
    let args = [
        Arg::Ptr(x),
        Arg::Ptr(index),
        Arg::Ptr(out),
        Arg::U32(rows),
        Arg::U32(units),
        Arg::U32(stride),
    ];
    kernel.launch(driver, grid, block, 0, &args)
}

/// Rows of `table` by a checked index on its device; `shape` is that of the result.
pub(crate) fn gather(table: &Tensor, index: &Tensor, shape: &[usize]) -> Result<Tensor> {
    const OP: &str = "gather";
    // Whole rows are taken from where they are.
    let is_whole = table
        .narrow(0, 0, 1.min(table.shape()[0]))?
        .layout()
        .is_contiguous();
    let table = &if is_whole {
        table.clone()
    } else {
        table.contiguous()?
    };
    let index = &index.contiguous()?;
    let out = output(OP, table, shape, table.dtype())?;
    let bytes = table.dtype().size_in_bytes();
    let row_bytes = shape[1..].iter().product::<usize>() * bytes;
    let stride_bytes = table.layout().stride()[0] * bytes;
    let (from, to) = (table.first_ptr(OP)?, out.device_ptr()?);
    let piece = piece(row_bytes, stride_bytes, from, to);
    let kernel = kernels::of_bytes(OP, piece).ok_or_else(|| table.no_kernel(OP))?;
    let sizes = [index.len(), row_bytes / piece, stride_bytes / piece];
    rows(
        kernel,
        &**driver(OP, table)?,
        from,
        index.device_ptr()?,
        to,
        sizes,
    )?;
    Ok(out)
}
