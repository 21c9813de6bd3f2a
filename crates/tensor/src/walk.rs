//! The order in which an operation reads its operands when it writes a row-major result.

use crate::Layout;
use std::ops::Range;

/// Walks `N` views of one shape in step. Dimensions that every view steps through evenly are merged first, so that contiguous
/// operands become one long run.
pub(crate) struct Walk<const N: usize> {
    shape: Vec<usize>,
    strides: [Vec<usize>; N],
    offsets: [usize; N],
}

impl<const N: usize> Walk<N> {
    /// The layouts have one shape.
    pub(crate) fn new(layouts: [&Layout; N]) -> Self {
        let mut shape: Vec<usize> = Vec::new();
        let mut strides: [Vec<usize>; N] = std::array::from_fn(|_| Vec::new());
        for (dim, &size) in layouts[0].shape().iter().enumerate() {
            if size == 1 {
                continue;
            }
            let merges = !shape.is_empty()
                && (0..N).all(|i| {
                    strides[i].last().copied() == layouts[i].stride()[dim].checked_mul(size)
                });
            if merges {
                // The check above says that the outer step is the inner one times the inner size.
                if let Some(last) = shape.last_mut() {
                    *last *= size;
                }
                for i in 0..N {
                    if let Some(last) = strides[i].last_mut() {
                        *last = layouts[i].stride()[dim];
                    }
                }
            } else {
                shape.push(size);
                for i in 0..N {
                    strides[i].push(layouts[i].stride()[dim]);
                }
            }
        }
        if shape.is_empty() {
            shape.push(1);
            strides.iter_mut().for_each(|stride| stride.push(1));
        }
        Self {
            shape,
            strides,
            offsets: layouts.map(Layout::offset),
        }
    }

    /// Steps of the views inside a segment.
    pub(crate) fn steps(&self) -> [usize; N] {
        std::array::from_fn(|i| self.strides[i][self.shape.len() - 1])
    }

    /// Cuts the elements `start..start + len` of the result into segments of even steps. `visit` gets the segment's range,
    /// counted from `start`, and where each view's elements begin.
    pub(crate) fn segments(
        &self,
        start: usize,
        len: usize,
        mut visit: impl FnMut(Range<usize>, [usize; N]),
    ) {
        if len == 0 {
            return;
        }
        let inner = self.shape.len() - 1;
        let mut index = vec![0; self.shape.len()];
        let mut offsets = self.offsets;
        let mut rest = start;
        for dim in (0..=inner).rev() {
            index[dim] = rest % self.shape[dim];
            rest /= self.shape[dim];
            for (offset, stride) in offsets.iter_mut().zip(&self.strides) {
                *offset += index[dim] * stride[dim];
            }
        }
        let mut done = 0;
        while done < len {
            let take = (self.shape[inner] - index[inner]).min(len - done);
            visit(done..done + take, offsets);
            done += take;
            if done == len {
                return;
            }
            // On to the next row: back to its start, then count the outer dimensions up by one.
            for (offset, stride) in offsets.iter_mut().zip(&self.strides) {
                *offset -= index[inner] * stride[inner];
            }
            index[inner] = 0;
            for dim in (0..inner).rev() {
                index[dim] += 1;
                for (offset, stride) in offsets.iter_mut().zip(&self.strides) {
                    *offset += stride[dim];
                }
                if index[dim] < self.shape[dim] {
                    break;
                }
                for (offset, stride) in offsets.iter_mut().zip(&self.strides) {
                    *offset -= index[dim] * stride[dim];
                }
                index[dim] = 0;
            }
        }
    }
}
