//! Tensors of a file.

use super::{GgmlType, Gguf};
use crate::{Error, Result, block};
use std::ops::Range;

/// What a file says about one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the file.
    pub name: String,
    /// Number format.
    pub kind: GgmlType,
    /// Shape, row-major: outermost dimension first, which is the reverse of the order in the file. One to four dimensions, each
    /// at least 1; the last is a whole number of blocks.
    pub shape: Vec<usize>,
    /// Where the bytes are, counted from the start of the file.
    pub range: Range<usize>,
}

/// One tensor together with the file that keeps its bytes.
#[derive(Clone, Debug)]
pub struct TensorView {
    pub(super) gguf: Gguf,
    pub(super) index: usize,
}

impl TensorInfo {
    /// Number of weights.
    pub fn len(&self) -> usize {
        self.range.len() / self.kind.block_bytes() * self.kind.block_len()
    }

    /// Whether there are no weights; a tensor of a file has at least one.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Weights of one row: the last dimension.
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_len() / self.kind.block_len() * self.kind.block_bytes()
    }

    /// Number of rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.len() / self.row_len()
    }
}

impl TensorView {
    /// Name, format, shape and place.
    pub fn info(&self) -> &TensorInfo {
        self.gguf.info(self.index)
    }

    /// The file.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// The bytes as they stand in the file, [`TensorInfo::rows`] rows of [`TensorInfo::row_bytes`] each. They start at no
    /// particular alignment.
    pub fn bytes(&self) -> &[u8] {
        &self.gguf.bytes()[self.info().range.clone()]
    }

    /// The weights as f32, row-major.
    ///
    /// # Errors
    /// [`Error::Memory`] where the weights don't fit into memory.
    pub fn dequantize(&self) -> Result<Vec<f32>> {
        let info = self.info();
        let mut weights = block::zeros("dequantize", &info.name, info.len())?;
        block::dequantize(info.kind, self.bytes(), &mut weights)?;
        Ok(weights)
    }

    /// Checks that every weight is a finite number, by the scales and minimums of the blocks.
    ///
    /// # Errors
    /// [`Error::NotFinite`], with the tensor and the block.
    pub fn check_finite(&self) -> Result<()> {
        match block::find_not_finite(self.info().kind, self.bytes()) {
            None => Ok(()),
            Some((block, part, found)) => Err(Error::NotFinite {
                file: self.gguf.name().to_owned(),
                tensor: self.info().name.clone(),
                block,
                part,
                found,
            }),
        }
    }
}
