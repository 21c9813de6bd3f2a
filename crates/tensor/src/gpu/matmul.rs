//! Matrix products.

use super::launch::count;
use super::{driver, kernels, output};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::{Result, Tensor};

/// Launches a `gemv` kernel: `y = w · x` for `w` `[n, k]` with rows `row_stride` elements apart.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for sizes and strides from 2^31 on, and what the driver says.
pub fn gemv(
    kernel: &Kernel,
    driver: &dyn Driver,
    [w, x, y]: [DevicePtr; 3],
    [n, k]: [usize; 2],
    row_stride: usize,
) -> Result<()> {
    let [n, k] = [count(kernel, n)?, count(kernel, k)?];
    if n == 0 {
        return Ok(());
    }
    let args = [
        Arg::Ptr(w),
        Arg::Ptr(x),
        Arg::Ptr(y),
        Arg::U32(n),
        Arg::U32(k),
        Arg::U32(count(kernel, row_stride)?),
    ];
    kernel.launch(driver, [n.div_ceil(4), 1, 1], [128, 1, 1], 0, &args)
}

/// Matrices of one shape on a device, distances in elements.
#[derive(Clone, Copy, Debug)]
pub struct Matrices {
    /// Address of the first.
    pub first: DevicePtr,
    /// From row to row.
    pub stride: usize,
    /// From matrix to matrix; 0 where all are one.
    pub batch_stride: usize,
    /// Bytes of an element.
    pub bytes: usize,
}

impl Matrices {
    /// Whether every row of `batch` matrices begins at a multiple of 16 bytes, as the `gemm_mma` kernels want it.
    pub fn lie_on_vectors(&self, batch: usize) -> bool {
        let steps = self.stride | if batch > 1 { self.batch_stride } else { 0 };
        self.first.address().is_multiple_of(16) && (steps * self.bytes).is_multiple_of(16)
    }

    fn at(&self, matrix: usize) -> DevicePtr {
        let elements = matrix * self.batch_stride;
        self.first.byte_offset((elements * self.bytes) as u64)
    }
}

/// The form of a matrix product's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Rows and columns of the tile that a block makes.
    pub side: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// The tiles of `gemm`.
pub const PLAIN: Tiles = Tiles {
    side: 64,
    threads: 64,
    shared: 0,
};

/// The tiles of `gemm_mma`.
pub const MMA: Tiles = Tiles {
    side: 128,
    threads: 256,
    shared: 3 << 15,
};

/// Blocks that a grid can have in y.
const MOST_BATCHES: usize = 65_535;

/// Launches a `gemm` or `gemm_mma` kernel: `c = a · b` for `batch` pairs of matrices, `c` `[batch, m, n]` contiguous.
///
/// # Errors
/// Those of [`gemv`].
pub fn gemm(
    kernel: &Kernel,
    driver: &dyn Driver,
    tiles: Tiles,
    [a, b]: [Matrices; 2],
    c: DevicePtr,
    [batch, m, n, k]: [usize; 4],
) -> Result<()> {
    let of_c = Matrices {
        first: c,
        stride: n,
        batch_stride: m * n,
        bytes: a.bytes,
    };
    let [m, n, k] = [count(kernel, m)?, count(kernel, n)?, count(kernel, k)?];
    let blocks = m.div_ceil(tiles.side) as usize * n.div_ceil(tiles.side) as usize;
    if blocks == 0 {
        return Ok(());
    }
    for first in (0..batch).step_by(MOST_BATCHES) {
        let args = [
            Arg::Ptr(a.at(first)),
            Arg::Ptr(b.at(first)),
            Arg::Ptr(of_c.at(first)),
            Arg::U32(m),
            Arg::U32(n),
            Arg::U32(k),
            Arg::U32(count(kernel, a.stride)?),
            Arg::U32(count(kernel, b.stride)?),
            Arg::U64(a.batch_stride as u64),
            Arg::U64(b.batch_stride as u64),
        ];
        let here = (batch - first).min(MOST_BATCHES);
        let grid = [count(kernel, blocks)?, count(kernel, here)?, 1];
        kernel.launch(driver, grid, [tiles.threads, 1, 1], tiles.shared, &args)?;
    }
    Ok(())
}

const OP: &str = "matmul";

/// `[…, m, k] × […, k, n] → shape`, which is `[…, m, n]`; the operands' outer dimensions are those of the result.
///
/// A vector beside one matrix goes to the kernel that reads the matrix once, everything else to tiles: those of the tensor cores
/// where the device has them, the elements are halves and every row lies on 16 bytes.
pub(crate) fn matmul(lhs: &Tensor, rhs: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let find = |name: &str| kernels::named(name).ok_or_else(|| lhs.no_kernel(OP));
    let dtype = lhs.dtype();
    let gemv_kernel = kernels::of("gemv", dtype).ok_or_else(|| lhs.no_kernel(OP))?;
    let out = output(OP, lhs, shape, dtype)?;
    let (&[.., m, n], Some(&k)) = (shape, lhs.shape().last()) else {
        return Ok(out);
    };
    if out.is_empty() {
        return Ok(out);
    }
    let batch = out.len() / (m * n);
    let driver = &**driver(OP, &out)?;
    let c = out.device_ptr()?;
    // The copies of operands, where there are any, live until the launch.
    let (a, _a) = in_rows(lhs)?;
    let (b, _b, form) = match columns(rhs)? {
        Some(b) => (b, rhs.clone(), "nk"),
        None => {
            let (b, copy) = in_rows(rhs)?;
            (b, copy, "kn")
        }
    };
    if batch == 1 && m == 1 && form == "nk" {
        gemv(gemv_kernel, driver, [b.first, a.first, c], [n, k], b.stride)?;
    } else if batch == 1 && n == 1 && (form == "nk" || b.stride == 1) {
        gemv(gemv_kernel, driver, [a.first, b.first, c], [m, k], a.stride)?;
    } else {
        let info = driver.info();
        let on_tensor_cores = kernels::named(&format!("gemm_mma_{dtype}_{form}")).filter(|_| {
            info.capability >= (8, 0)
                && info.shared_memory >= MMA.shared
                && a.lie_on_vectors(batch)
                && b.lie_on_vectors(batch)
        });
        let (kernel, tiles) = match on_tensor_cores {
            Some(kernel) => (kernel, MMA),
            None => (find(&format!("gemm_{dtype}_{form}"))?, PLAIN),
        };
        gemm(kernel, driver, tiles, [a, b], c, [batch, m, n, k])?;
    }
    Ok(out)
}

/// A view's matrices where their rows lie whole, else those of a copy; and the tensor that holds them.
fn in_rows(x: &Tensor) -> Result<(Matrices, Tensor)> {
    if let Some(matrices) = rows(x)? {
        return Ok((matrices, x.clone()));
    }
    let copy = x.contiguous()?;
    let matrices = rows(&copy)?.ok_or_else(|| x.no_kernel(OP))?;
    Ok((matrices, copy))
}

/// The matrices of a view whose rows lie whole, one and the same distance apart.
fn rows(x: &Tensor) -> Result<Option<Matrices>> {
    let ([outer @ .., _, cols], [strides @ .., stride, step]) = (x.shape(), x.layout().stride())
    else {
        return Ok(None);
    };
    let batch_stride = even_step(outer, strides).filter(|_| *cols <= 1 || *step == 1);
    let Some(batch_stride) = batch_stride else {
        return Ok(None);
    };
    Ok(Some(Matrices {
        first: x.first_ptr(OP)?,
        stride: *stride,
        batch_stride,
        bytes: x.dtype().size_in_bytes(),
    }))
}

/// The matrices of a view whose columns lie whole, as those of its transpose.
fn columns(x: &Tensor) -> Result<Option<Matrices>> {
    let last = x.rank() - 1;
    rows(&x.transpose(last - 1, last)?)
}

/// The one distance between neighbours along some dimensions taken together, 0 where each has size 1.
fn even_step(shape: &[usize], strides: &[usize]) -> Option<usize> {
    let dimensions = shape.iter().zip(strides).rev();
    let mut dimensions = dimensions.filter(|(size, _)| **size != 1);
    let Some((&size, &step)) = dimensions.next() else {
        return Some(0);
    };
    let mut span = step.checked_mul(size)?;
    for (&size, &stride) in dimensions {
        if stride != span {
            return None;
        }
        span = span.checked_mul(size)?;
    }
    Some(step)
}

#[cfg(test)]
mod tests {
    use super::even_step;

    #[test]
    fn outer_dimensions_are_one_where_they_step_evenly() {
        assert_eq!(even_step(&[], &[]), Some(0));
        assert_eq!(even_step(&[1, 1], &[7, 9]), Some(0));
        assert_eq!(even_step(&[3], &[10]), Some(10));
        assert_eq!(even_step(&[2, 3], &[30, 10]), Some(10));
        assert_eq!(even_step(&[2, 1, 3], &[30, 5, 10]), Some(10));
        assert_eq!(even_step(&[2, 3], &[40, 10]), None);
        // Broadcast: all the same matrix, or one for each of the outer dimension.
        assert_eq!(even_step(&[2, 3], &[0, 0]), Some(0));
        assert_eq!(even_step(&[2, 3], &[10, 0]), None);
    }
}
