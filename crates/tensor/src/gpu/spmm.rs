//! Sums of rows that an index names: products of sparse matrices, and scatter-add.

use super::launch::count;
use super::{driver, kernels, output};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::{Csr, Error, Result, Tensor};

/// Launches a kernel whose row `r` of `[n, cols]` adds up the rows that entries `indptr[r]..indptr[r + 1]` name. `inputs` are the
/// pointers up to `out`: `indptr, index, values, dense` of `spmm`, `indptr, index, dense` of `spmm_ones`, `x, indptr, index, rows` of
/// `scatter_add`.
///
/// # Errors
/// [`Error::Shape`] from 2^31 rows or columns on, and what the driver says.
pub fn rows(
    kernel: &Kernel,
    driver: &dyn Driver,
    inputs: &[DevicePtr],
    out: DevicePtr,
    [n, cols]: [usize; 2],
) -> Result<()> {
    let [n, cols] = [count(kernel, n)?, count(kernel, cols)?];
    if n == 0 || cols == 0 {
        return Ok(());
    }
    let mut args: Vec<Arg> = inputs.iter().copied().map(Arg::Ptr).collect();
    args.extend([Arg::Ptr(out), Arg::U32(n), Arg::U32(cols)]);
    let grid = [n.div_ceil(WARPS), cols.div_ceil(COLUMNS), 1];
    kernel.launch(driver, grid, [32 * WARPS, 1, 1], 0, &args)
}

/// Warps of a block, a row each.
const WARPS: u32 = 8;
/// Columns of a warp.
const COLUMNS: u32 = 128;

/// For scatter-add to `n` rows: where each row's entries begin, and the entries by the row that they are added to, in their order.
/// Each index is below `n`.
pub fn by_target(index: &[u32], n: usize) -> (Vec<u32>, Vec<u32>) {
    let mut indptr = vec![0u32; n + 1];
    index.iter().for_each(|&row| indptr[row as usize + 1] += 1);
    for row in 0..n {
        indptr[row + 1] += indptr[row];
    }
    let mut next = indptr.clone();
    let mut order = vec![0u32; index.len()];
    for (entry, &row) in (0..).zip(index) {
        order[next[row as usize] as usize] = entry;
        next[row as usize] += 1;
    }
    (indptr, order)
}

pub(crate) fn spmm(csr: &Csr, dense: &Tensor) -> Result<Tensor> {
    const OP: &str = "spmm";
    let name = if csr.values().is_some() {
        "spmm"
    } else {
        "spmm_ones"
    };
    let kernel = kernels::of(name, dense.dtype()).ok_or_else(|| dense.no_kernel(OP))?;
    check_entries(OP, csr.indices().len())?;
    let dense = &dense.contiguous()?;
    let device = dense.device();
    // `check_entries` says that every position fits.
    let indptr: Vec<u32> = csr.indptr().iter().map(|&at| at as u32).collect();
    let indptr = vector(indptr)?.to_device(device)?;
    let index = vector(csr.indices().to_vec())?.to_device(device)?;
    let mut inputs = vec![indptr.device_ptr()?, index.device_ptr()?];
    let values = csr
        .values()
        .map(|values| vector(values.to_vec())?.to_device(device));
    let values = values.transpose()?;
    if let Some(values) = &values {
        inputs.push(values.device_ptr()?);
    }
    inputs.push(dense.device_ptr()?);
    let shape = [csr.rows(), dense.shape()[1]];
    let out = output(OP, dense, &shape, dense.dtype())?;
    rows(
        kernel,
        &**driver(OP, dense)?,
        &inputs,
        out.device_ptr()?,
        shape,
    )?;
    Ok(out)
}

/// `x`, and each of `added` added to the row of `x` that its index names, in their order. The index is checked.
pub(crate) fn scatter_add(x: &Tensor, index: &[u32], added: &Tensor) -> Result<Tensor> {
    const OP: &str = "scatter_add";
    let kernel = kernels::of(OP, x.dtype()).ok_or_else(|| x.no_kernel(OP))?;
    check_entries(OP, index.len())?;
    let (x, added) = (&x.contiguous()?, added.contiguous()?);
    let n = x.shape()[0];
    let (indptr, order) = by_target(index, n);
    let indptr = vector(indptr)?.to_device(x.device())?;
    let order = vector(order)?.to_device(x.device())?;
    let out = output(OP, x, x.shape(), x.dtype())?;
    let inputs = [
        x.device_ptr()?,
        indptr.device_ptr()?,
        order.device_ptr()?,
        added.device_ptr()?,
    ];
    let cols = x.shape()[1..].iter().product();
    rows(
        kernel,
        &**driver(OP, x)?,
        &inputs,
        out.device_ptr()?,
        [n, cols],
    )?;
    Ok(out)
}

fn vector<T: crate::Element>(values: Vec<T>) -> Result<Tensor> {
    let len = values.len();
    Tensor::from_vec(values, &[len])
}

fn check_entries(op: &'static str, entries: usize) -> Result<()> {
    match i32::try_from(entries) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::shape(
            op,
            "fewer than 2^31 entries on a device",
            entries.to_string(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::by_target;

    #[test]
    fn entries_keep_their_order_within_a_row() {
        let (indptr, order) = by_target(&[2, 0, 2, 2, 0], 4);
        assert_eq!((indptr, order), (vec![0, 2, 2, 5, 5], vec![1, 4, 0, 2, 3]));
        assert_eq!(by_target(&[], 2), (vec![0, 0, 0], vec![]));
    }
}
