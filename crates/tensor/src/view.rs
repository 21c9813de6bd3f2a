//! Views: other shapes of the same storage.

use crate::{Result, Tensor};

impl Tensor {
    /// The same elements in row-major order under another shape: a view where strides can say it, else a copy.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where the numbers of elements differ; those of [`contiguous`](Self::contiguous) where it
    /// has to copy.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        match self.layout().reshape(shape)? {
            Some(layout) => Ok(self.view(layout)),
            None => self.contiguous()?.reshape(shape),
        }
    }

    /// The elements `start..start + len` of dimension `dim`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension or a range that isn't there.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self> {
        Ok(self.view(self.layout().narrow(dim, start, len)?))
    }

    /// Dimensions `a` and `b` swapped.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension that isn't there.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        Ok(self.view(self.layout().transpose(a, b)?))
    }

    /// Dimension `i` of the result is dimension `dims[i]` of this tensor.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where `dims` is not a permutation of the dimensions.
    pub fn permute(&self, dims: &[usize]) -> Result<Self> {
        Ok(self.view(self.layout().permute(dims)?))
    }

    /// Dimensions of size 1, and new outer ones, repeated to `shape`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where the shapes don't fit.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Self> {
        Ok(self.view(self.layout().broadcast_to(shape)?))
    }

    /// A dimension of size 1 put in before dimension `dim`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for `dim` beyond the rank.
    pub fn unsqueeze(&self, dim: usize) -> Result<Self> {
        Ok(self.view(self.layout().unsqueeze(dim)?))
    }

    /// Dimension `dim`, of size 1, taken out.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension that isn't there or has another size.
    pub fn squeeze(&self, dim: usize) -> Result<Self> {
        Ok(self.view(self.layout().squeeze(dim)?))
    }

    /// Dimension `dim`, which is there, moved to the end, contiguous.
    pub(crate) fn moved_last(&self, dim: usize) -> Result<Self> {
        let order: Vec<usize> = (0..self.rank())
            .filter(|&d| d != dim)
            .chain([dim])
            .collect();
        self.permute(&order)?.contiguous()
    }

    /// The way back from [`moved_last`](Self::moved_last).
    pub(crate) fn moved_back(&self, dim: usize) -> Result<Self> {
        let last = self.rank() - 1;
        let order: Vec<usize> = (0..dim).chain([last]).chain(dim..last).collect();
        self.permute(&order)?.contiguous()
    }
}
