//! Copies of views.

use super::launch::{count, product};
use super::strided::{self, Dimensions, View};
use super::{driver, kernels, output};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::{Result, Tensor};

/// Launches a kernel of the `copy_strided` kind, which copies a view to another of the same shape.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for sizes, strides and positions from 2^31 on, and what the driver says.
pub fn copy_views(
    kernel: &Kernel,
    driver: &dyn Driver,
    shape: &[usize],
    x: View<'_>,
    out: View<'_>,
) -> Result<()> {
    let dimensions = Dimensions::merged(shape, [x.stride, out.stride]);
    strided::launch(kernel, driver, &dimensions, |[at_x, at_out], _| {
        vec![Arg::Ptr(x.at(at_x)), Arg::Ptr(out.at(at_out))]
    })
}

/// Launches a kernel of the `transpose` kind: `[batch, rows, cols]` to `[batch, cols, rows]`, both contiguous.
///
/// # Errors
/// Those of [`copy_views`], for the product of the sizes.
pub fn transpose(
    kernel: &Kernel,
    driver: &dyn Driver,
    x: DevicePtr,
    out: DevicePtr,
    [batch, rows, cols]: [usize; 3],
) -> Result<()> {
    if product(kernel, &[batch, rows, cols])? == 0 {
        return Ok(());
    }
    let [batch, rows, cols] = [
        count(kernel, batch)?,
        count(kernel, rows)?,
        count(kernel, cols)?,
    ];
    let grid = [cols.div_ceil(TILE), rows.div_ceil(TILE), batch];
    let args = [Arg::Ptr(x), Arg::Ptr(out), Arg::U32(rows), Arg::U32(cols)];
    kernel.launch(driver, grid, [TILE, TILE_LINES, 1], 0, &args)
}

const TILE: u32 = 32;
const TILE_LINES: u32 = 8;
/// The greatest grid in y and z.
const MOST_BLOCKS: usize = 65_535;

/// `[batch, rows, cols]` where the view is a contiguous tensor of that shape with its last dimensions swapped, and a grid can have it.
fn swapped(dimensions: &Dimensions) -> Option<[usize; 3]> {
    let (sizes, strides) = (&dimensions.shape[..], &dimensions.stride[0][..]);
    let (batch, [cols, rows], [col_step, row_step]) = match (sizes, strides) {
        (&[cols, rows], &[col_step, row_step]) => (1, [cols, rows], [col_step, row_step]),
        (&[batch, cols, rows], &[step, col_step, row_step]) if step == rows * cols => {
            (batch, [cols, rows], [col_step, row_step])
        }
        _ => return None,
    };
    let fits = batch <= MOST_BLOCKS && rows.div_ceil(TILE as usize) <= MOST_BLOCKS;
    (col_step == 1 && row_step == cols && fits).then_some([batch, rows, cols])
}

/// Copies a view to a contiguous `out`, or to any other.
pub(crate) fn copy(op: &'static str, x: &Tensor, out: View<'_>, is_contiguous: bool) -> Result<()> {
    let driver = &**driver(op, x)?;
    let find = |name: &str| kernels::of_bytes(name, out.bytes).ok_or_else(|| x.no_kernel(op));
    let view = View::of(op, x)?;
    if is_contiguous
        && let Some(sizes) = swapped(&Dimensions::merged(x.shape(), [view.stride, out.stride]))
    {
        return transpose(find("transpose")?, driver, view.pointer, out.pointer, sizes);
    }
    copy_views(find("copy_strided")?, driver, x.shape(), view, out)
}

pub(crate) fn contiguous(x: &Tensor) -> Result<Tensor> {
    const OP: &str = "contiguous";
    let out = output(OP, x, x.shape(), x.dtype())?;
    copy(OP, x, View::of(OP, &out)?, true)?;
    Ok(out)
}

pub(crate) fn cat(tensors: &[&Tensor], dim: usize, shape: &[usize]) -> Result<Tensor> {
    const OP: &str = "cat";
    let out = output(OP, tensors[0], shape, tensors[0].dtype())?;
    let mut start = 0;
    for tensor in tensors {
        let len = tensor.shape()[dim];
        let part = out.narrow(dim, start, len)?;
        copy(
            OP,
            tensor,
            View::of(OP, &part)?,
            part.layout().is_contiguous(),
        )?;
        start += len;
    }
    Ok(out)
}
