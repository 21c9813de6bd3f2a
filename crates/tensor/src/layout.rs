//! Which element of a buffer stands where in a tensor.

use crate::{Error, Result};
use std::fmt;

/// Shape, strides and offset of a view; strides and offset count elements, dimension 0 is the outermost.
///
/// A layout can only be made contiguous and then narrowed, permuted, broadcast or reshaped, so that whatever holds for the
/// first one holds for all: every index lies in the buffer that the first one described.
#[derive(Clone, PartialEq, Eq)]
pub struct Layout {
    shape: Vec<usize>,
    stride: Vec<usize>,
    offset: usize,
}

impl Layout {
    /// Row-major layout from the start of a buffer.
    ///
    /// # Errors
    /// [`Error::Shape`] where the number of elements does not fit `usize`, dimensions of size 0 counted as 1.
    pub fn contiguous(shape: &[usize]) -> Result<Self> {
        Self::for_op("layout", shape)
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Distances between neighbours of each dimension, in elements; 0 where a dimension is broadcast.
    pub fn stride(&self) -> &[usize] {
        &self.stride
    }

    /// Position of the first element in the buffer.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Whether the elements lie one behind the other in row-major order, from [`offset`](Self::offset) on.
    pub fn is_contiguous(&self) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut expected = 1;
        for (&size, &stride) in self.shape.iter().zip(&self.stride).rev() {
            if size != 1 && stride != expected {
                return false;
            }
            expected *= size;
        }
        true
    }

    /// The elements `start..start + len` of dimension `dim`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension or a range that isn't there.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self> {
        self.check_dim("narrow", dim)?;
        if start
            .checked_add(len)
            .is_none_or(|end| end > self.shape[dim])
        {
            return Err(Error::argument(
                "narrow",
                "start + len",
                format!(
                    "at most {} in dimension {dim} of {:?}",
                    self.shape[dim], self.shape
                ),
                format!("{start} + {len}"),
            ));
        }
        let mut out = self.clone();
        out.shape[dim] = len;
        // An empty view starts nowhere; leaving its offset alone keeps every offset inside the buffer.
        if !out.is_empty() {
            out.offset += start * self.stride[dim];
        }
        Ok(out)
    }

    /// Dimensions `a` and `b` swapped.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that isn't there.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        self.check_dim("transpose", a)?;
        self.check_dim("transpose", b)?;
        let mut out = self.clone();
        out.shape.swap(a, b);
        out.stride.swap(a, b);
        Ok(out)
    }

    /// Dimension `i` of the result is dimension `dims[i]` of this layout.
    ///
    /// # Errors
    /// [`Error::Argument`] where `dims` is not a permutation of the dimensions.
    pub fn permute(&self, dims: &[usize]) -> Result<Self> {
        let mut seen = vec![false; self.rank()];
        let valid = dims.len() == self.rank()
            && dims
                .iter()
                .all(|&dim| dim < seen.len() && !std::mem::replace(&mut seen[dim], true));
        if !valid {
            return Err(Error::argument(
                "permute",
                "dims",
                format!(
                    "a permutation of the {} dimensions of {:?}",
                    self.rank(),
                    self.shape
                ),
                format!("{dims:?}"),
            ));
        }
        Ok(Self {
            shape: dims.iter().map(|&dim| self.shape[dim]).collect(),
            stride: dims.iter().map(|&dim| self.stride[dim]).collect(),
            offset: self.offset,
        })
    }

    /// Dimensions of size 1, and new outer ones, repeated to `shape` with stride 0.
    ///
    /// # Errors
    /// [`Error::Shape`] where a dimension has another size than 1 or the wanted one, or where the number of elements does not fit
    /// `usize`.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Self> {
        self.broadcast_for("broadcast_to", shape)
    }

    /// The same elements in the same order under another shape, or `None` where no strides can express it without a copy.
    ///
    /// # Errors
    /// [`Error::Shape`] where the numbers of elements differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Option<Self>> {
        let target = Self::for_op("reshape", shape)?;
        if target.len() != self.len() {
            return Err(Error::shape(
                "reshape",
                format!("a shape of {} elements for {:?}", self.len(), self.shape),
                format!("{shape:?}"),
            ));
        }
        if self.is_contiguous() {
            return Ok(Some(Self {
                offset: self.offset,
                ..target
            }));
        }
        Ok(self.restride(shape).map(|stride| Self {
            shape: shape.to_vec(),
            stride,
            offset: self.offset,
        }))
    }

    /// A dimension of size 1 put in before dimension `dim`.
    ///
    /// # Errors
    /// [`Error::Argument`] for `dim` beyond the rank.
    pub fn unsqueeze(&self, dim: usize) -> Result<Self> {
        if dim > self.rank() {
            return Err(Error::argument(
                "unsqueeze",
                "dim",
                format!("at most {} for {:?}", self.rank(), self.shape),
                dim.to_string(),
            ));
        }
        let mut out = self.clone();
        out.shape.insert(dim, 1);
        out.stride.insert(dim, 1);
        Ok(out)
    }

    /// Dimension `dim`, of size 1, taken out.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that isn't there or has another size.
    pub fn squeeze(&self, dim: usize) -> Result<Self> {
        self.check_dim("squeeze", dim)?;
        if self.shape[dim] != 1 {
            return Err(Error::argument(
                "squeeze",
                "dim",
                format!("a dimension of size 1 in {:?}", self.shape),
                dim.to_string(),
            ));
        }
        let mut out = self.clone();
        out.shape.remove(dim);
        out.stride.remove(dim);
        Ok(out)
    }

    pub(crate) fn for_op(op: &'static str, shape: &[usize]) -> Result<Self> {
        check_len(op, shape)?;
        Ok(Self::row_major(shape))
    }

    /// The layout of a shape whose number of elements is known to fit, sizes 0 counted as 1.
    pub(crate) fn row_major(shape: &[usize]) -> Self {
        let mut stride = vec![1; shape.len()];
        for dim in (1..shape.len()).rev() {
            stride[dim - 1] = stride[dim] * shape[dim].max(1);
        }
        Self {
            shape: shape.to_vec(),
            stride,
            offset: 0,
        }
    }

    pub(crate) fn broadcast_for(&self, op: &'static str, shape: &[usize]) -> Result<Self> {
        check_len(op, shape)?;
        let error = || {
            Error::shape(
                op,
                format!("a shape that broadcasts to {shape:?}"),
                format!("{:?}", self.shape),
            )
        };
        let new = shape.len().checked_sub(self.rank()).ok_or_else(error)?;
        let mut stride = vec![0; shape.len()];
        for (dim, (&size, &step)) in self.shape.iter().zip(&self.stride).enumerate() {
            if size == shape[new + dim] {
                stride[new + dim] = step;
            } else if size != 1 {
                return Err(error());
            }
        }
        Ok(Self {
            shape: shape.to_vec(),
            stride,
            offset: self.offset,
        })
    }

    /// The layout without its two innermost dimensions, which it has.
    pub(crate) fn outer(&self) -> Self {
        let rank = self.rank() - 2;
        Self {
            shape: self.shape[..rank].to_vec(),
            stride: self.stride[..rank].to_vec(),
            offset: self.offset,
        }
    }

    pub(crate) fn check_dim(&self, op: &'static str, dim: usize) -> Result<()> {
        if dim < self.rank() {
            return Ok(());
        }
        Err(Error::argument(
            op,
            "dim",
            format!("below the rank {} of {:?}", self.rank(), self.shape),
            dim.to_string(),
        ))
    }

    /// Strides under which `shape`, of as many elements, reads this non-empty view in the same order.
    fn restride(&self, shape: &[usize]) -> Option<Vec<usize>> {
        let old: Vec<(usize, usize)> = self
            .shape
            .iter()
            .copied()
            .zip(self.stride.iter().copied())
            .filter(|&(size, _)| size != 1)
            .collect();
        let mut stride = vec![1; shape.len()];
        let (mut first, mut new_first) = (0, 0);
        while first < old.len() {
            // The smallest groups of old and new dimensions that hold equally many elements.
            let (mut last, mut new_last) = (first + 1, new_first);
            let (mut count, mut new_count) = (old[first].0, 1);
            while count != new_count {
                if new_count < count {
                    new_count *= *shape.get(new_last)?;
                    new_last += 1;
                } else {
                    count *= old.get(last)?.0;
                    last += 1;
                }
            }
            // The old group has to be one run of equal steps.
            if (first + 1..last).any(|dim| old[dim - 1].1 != old[dim].1 * old[dim].0) {
                return None;
            }
            let mut step = old[last - 1].1;
            for dim in (new_first..new_last).rev() {
                stride[dim] = step;
                step *= shape[dim];
            }
            (first, new_first) = (last, new_last);
        }
        Some(stride)
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "shape {:?} stride {:?} offset {}",
            self.shape, self.stride, self.offset
        )
    }
}

/// The shape to which two shapes broadcast: aligned at the innermost dimension, size 1 gives way.
pub(crate) fn broadcast_shapes(op: &'static str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], dim: usize| {
        (dim + shape.len())
            .checked_sub(rank)
            .map_or(1, |dim| shape[dim])
    };
    (0..rank)
        .map(|dim| match (size(a, dim), size(b, dim)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(Error::shape(
                op,
                "shapes that broadcast to each other",
                format!("{a:?} and {b:?}"),
            )),
        })
        .collect()
}

/// Number of elements; an error where it does not fit `usize` even with the empty dimensions left out.
pub(crate) fn check_len(op: &'static str, shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .try_fold(1usize, |len, &size| len.checked_mul(size.max(1)))
        .map(|len| if shape.contains(&0) { 0 } else { len })
        .ok_or_else(|| {
            Error::shape(
                op,
                "a number of elements that fits usize",
                format!("{shape:?}"),
            )
        })
}
