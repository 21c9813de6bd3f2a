//! Views of a device's memory in kernels: sizes and strides of at most three dimensions a launch.

use super::launch::{BLOCK, count, product};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::{Result, Tensor};

/// The first element of a view and the distances between neighbours of each dimension, in elements.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Address of the first element.
    pub pointer: DevicePtr,
    /// One a dimension; 0 where it is broadcast.
    pub stride: &'a [usize],
    /// Bytes of an element.
    pub bytes: usize,
}

/// Dimensions of two views that kernels walk over in step, neighbours merged where both step through them evenly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dimensions {
    /// Sizes, outermost first; none of them 1.
    pub shape: Vec<usize>,
    /// Strides of both views.
    pub stride: [Vec<usize>; 2],
}

impl Dimensions {
    /// Merges the dimensions of two views of one shape.
    pub fn merged(shape: &[usize], views: [&[usize]; 2]) -> Self {
        let mut merged = Self {
            shape: Vec::new(),
            stride: [Vec::new(), Vec::new()],
        };
        for (dim, &size) in shape.iter().enumerate().filter(|(_, size)| **size != 1) {
            let steps = views.map(|stride| stride[dim]);
            let outer = [0, 1].map(|view| merged.stride[view].last().copied());
            let follows = (0..2).all(|view| outer[view] == steps[view].checked_mul(size));
            match merged.shape.last_mut() {
                Some(last) if follows => *last *= size,
                _ => {
                    merged.shape.push(size);
                    merged.stride.iter_mut().for_each(|stride| stride.push(0));
                }
            }
            for (stride, step) in merged.stride.iter_mut().zip(steps) {
                if let Some(last) = stride.last_mut() {
                    *last = step;
                }
            }
        }
        merged
    }
}

/// Division by `size` as a product, for numerators below 2^31: `n / size = (mulhi(n, magic) + n) >> shift` (Granlund and Montgomery,
/// "Division by Invariant Integers using Multiplication", 1994).
pub fn division(size: u32) -> (u32, u32) {
    let shift = size.max(1).next_power_of_two().trailing_zeros();
    let excess = (1u64 << shift) - u64::from(size.max(1));
    let magic = (excess << 32) / u64::from(size.max(1)) + 1;
    // Below 2^32, because the excess is less than the size.
    (magic as u32, shift)
}

/// Launches a kernel on views: `before` are its arguments up to `n`, `views` those whose strides it takes. Dimensions beyond three
/// are launches of their own; `before` gets the distances, in elements, of this launch's views from the whole ones, and how many
/// elements of a contiguous result come before.
pub(crate) fn launch(
    kernel: &Kernel,
    driver: &dyn Driver,
    dimensions: &Dimensions,
    before: impl Fn([usize; 2], usize) -> Vec<Arg>,
) -> Result<()> {
    let rank = dimensions.shape.len();
    let split = rank.saturating_sub(3);
    let inner = &dimensions.shape[split..];
    let n = product(kernel, inner)?;
    let outer: usize = dimensions.shape[..split].iter().product();
    if n == 0 || outer == 0 {
        return Ok(());
    }
    // Missing outer dimensions have size 1.
    let at = |values: &[usize], d: usize, missing: usize| -> Result<u32> {
        let skipped = 3 - inner.len();
        let value = d
            .checked_sub(skipped)
            .map_or(missing, |d| values[split + d]);
        count(kernel, value)
    };
    let mut tail = vec![Arg::U32(n)];
    for d in [1, 2] {
        let size = at(&dimensions.shape, d, 1)?;
        let (magic, shift) = division(size);
        tail.extend([size, magic, shift].map(Arg::U32));
    }
    for stride in &dimensions.stride {
        for d in 0..3 {
            tail.push(Arg::U32(at(stride, d, 0)?));
        }
    }
    let grid = [n.div_ceil(BLOCK), 1, 1];
    for index in 0..outer {
        let mut rest = index;
        let mut start = [0; 2];
        for dim in (0..split).rev() {
            let i = rest % dimensions.shape[dim];
            rest /= dimensions.shape[dim];
            for (start, stride) in start.iter_mut().zip(&dimensions.stride) {
                *start += i * stride[dim];
            }
        }
        let mut args = before(start, index * n as usize);
        args.extend(&tail);
        kernel.launch(driver, grid, [BLOCK, 1, 1], 0, &args)?;
    }
    Ok(())
}

impl<'a> View<'a> {
    /// All of a tensor on a device.
    pub(crate) fn of(op: &'static str, tensor: &'a Tensor) -> Result<Self> {
        Ok(Self {
            pointer: tensor.first_ptr(op)?,
            stride: tensor.layout().stride(),
            bytes: tensor.dtype().size_in_bytes(),
        })
    }

    /// The address `elements` further on.
    pub(crate) fn at(&self, elements: usize) -> DevicePtr {
        self.pointer.byte_offset((elements * self.bytes) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_divide() {
        let sizes = [
            1,
            2,
            3,
            5,
            7,
            31,
            32,
            33,
            641,
            65_535,
            65_537,
            (1 << 30) + 1,
            i32::MAX as u32,
        ];
        for size in sizes {
            let (magic, shift) = division(size);
            let near = |n: u64| [n.saturating_sub(1), n, n + 1];
            let numerators = (0..64)
                .chain(near(u64::from(size)))
                .chain((1..50).flat_map(|k| near(k * u64::from(size))))
                .chain(near((1 << 31) - 2));
            for n in numerators.filter(|n| *n < 1 << 31) {
                let high = (n * u64::from(magic)) >> 32;
                assert_eq!((high + n) >> shift, n / u64::from(size), "{n} / {size}");
                assert!(high + n < 1 << 32, "{n} / {size}: the sum fits");
            }
        }
    }

    #[test]
    fn neighbours_merge_where_both_views_step_evenly() {
        let of = |shape: &[usize], a: &[usize], b: &[usize]| Dimensions::merged(shape, [a, b]);
        let whole = of(&[2, 3, 4], &[12, 4, 1], &[12, 4, 1]);
        assert_eq!((whole.shape, whole.stride), (vec![24], [vec![1], vec![1]]));
        let row = of(&[2, 3, 4], &[12, 4, 1], &[0, 0, 1]);
        assert_eq!(
            (row.shape, row.stride),
            (vec![6, 4], [vec![4, 1], vec![0, 1]])
        );
        let swapped = of(&[3, 1, 2], &[1, 9, 3], &[2, 2, 1]);
        assert_eq!(
            (swapped.shape, swapped.stride),
            (vec![3, 2], [vec![1, 3], vec![2, 1]])
        );
        assert_eq!(of(&[1, 1], &[1, 1], &[1, 1]).shape, Vec::<usize>::new());
    }
}
