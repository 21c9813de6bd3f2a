//! Reductions along one dimension.

use super::launch::{BLOCK, count, product, row_block};
use super::{driver, fill, kernels, output};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::{DType, Result, Tensor};

/// Launches a reduction of the rows of `[rows, cols]`: `max_rows`, `min_rows`, `argmax_rows`, and `sum_rows` with its divisor.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) from 2^31 rows or columns on, and what the driver says.
pub fn rows(
    kernel: &Kernel,
    driver: &dyn Driver,
    x: DevicePtr,
    out: DevicePtr,
    [rows, cols]: [usize; 2],
    divisor: Option<u32>,
) -> Result<()> {
    let [rows, cols] = [count(kernel, rows)?, count(kernel, cols)?];
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let mut args = vec![Arg::Ptr(x), Arg::Ptr(out), Arg::U32(cols)];
    args.extend(divisor.map(Arg::U32));
    kernel.launch(driver, [rows, 1, 1], row_block(cols), 0, &args)
}

/// Launches a reduction of the middle dimension of `[outer, len, inner]`: `max_columns`, `min_columns`, and `sum_columns` with its
/// divisor.
///
/// # Errors
/// Those of [`rows`], for `outer · inner` and `len`.
pub fn columns(
    kernel: &Kernel,
    driver: &dyn Driver,
    x: DevicePtr,
    out: DevicePtr,
    [outer, len, inner]: [usize; 3],
    divisor: Option<u32>,
) -> Result<()> {
    let n = product(kernel, &[outer, inner])?;
    let [len, inner] = [count(kernel, len)?, count(kernel, inner)?];
    if n == 0 || len == 0 {
        return Ok(());
    }
    let mut args = vec![
        Arg::Ptr(x),
        Arg::Ptr(out),
        Arg::U32(n),
        Arg::U32(len),
        Arg::U32(inner),
    ];
    args.extend(divisor.map(Arg::U32));
    kernel.launch(driver, [n.div_ceil(BLOCK), 1, 1], [BLOCK, 1, 1], 0, &args)
}

/// `op` along dimension `dim`, which is there; `shape` is that of the result.
pub(crate) fn reduce(op: &'static str, x: &Tensor, dim: usize, shape: &[usize]) -> Result<Tensor> {
    // Bytes have no kernels of their own; wide integers hold them exactly.
    let wide = match x.dtype() {
        DType::U8 => Some(DType::U32),
        DType::I8 => Some(DType::I32),
        _ => None,
    };
    if let Some(wide) = wide {
        let out = reduce(op, &x.to_dtype(wide)?, dim, shape)?;
        return if op == "argmax" {
            Ok(out)
        } else {
            out.to_dtype(x.dtype())
        };
    }
    let len = x.shape()[dim];
    let inner: usize = shape[dim..].iter().product();
    let driver = driver(op, x)?;
    if len == 0 {
        let value = if op == "mean" { f64::NAN } else { 0.0 };
        return fill::full(op, shape, value, x.dtype(), driver);
    }
    let (stem, dtype, divisor) = match op {
        "sum" => ("sum", x.dtype(), Some(1)),
        "mean" => ("sum", x.dtype(), u32::try_from(len).ok()),
        "argmax" => (op, DType::U32, None),
        _ => (op, x.dtype(), None),
    };
    // A thread goes down a column: a few long ones are laid along rows first. argmax goes along rows alone.
    let is_tall = shape.iter().product::<usize>() < FEW && len > LONG;
    let moves = inner != 1 && (op == "argmax" || is_tall);
    let x = if moves {
        x.moved_last(dim)?
    } else {
        x.contiguous()?
    };
    let form = if moves || inner == 1 {
        "rows"
    } else {
        "columns"
    };
    let find = kernels::of(&format!("{stem}_{form}"), x.dtype());
    let kernel = find.ok_or_else(|| x.no_kernel(op))?;
    let out = output(op, &x, shape, dtype)?;
    let (from, to) = (x.device_ptr()?, out.device_ptr()?);
    if form == "rows" {
        rows(kernel, &**driver, from, to, [out.len(), len], divisor)?;
    } else {
        let outer = shape[..dim].iter().product();
        columns(kernel, &**driver, from, to, [outer, len, inner], divisor)?;
    }
    Ok(out)
}

/// Columns that do not keep a device busy.
const FEW: usize = 4096;
/// Rows from which laying the columns along rows pays.
const LONG: usize = 256;
