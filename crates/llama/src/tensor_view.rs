//! Tensors of a file, whichever format it has.

use crate::{Error, Result, block, file_bytes::FileBytes, gguf::GgmlType};
use std::{fmt, ops::Range, sync::Arc};

/// What a file says about one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the file.
    pub name: String,
    /// Number format.
    pub kind: GgmlType,
    /// Shape, row-major: outermost dimension first, which is the reverse of the order in a GGUF file. One to four dimensions, each
    /// at least 1; the last is a whole number of blocks.
    pub shape: Vec<usize>,
    /// Where the bytes are, counted from the start of the file.
    pub range: Range<usize>,
}

/// One tensor together with the file that keeps its bytes.
#[derive(Clone)]
pub struct TensorView {
    file: Arc<FileBytes>,
    info: TensorInfo,
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
    /// `info` was checked against this very file.
    pub(crate) fn new(file: Arc<FileBytes>, info: TensorInfo) -> Self {
        Self { file, info }
    }

    /// Name, format, shape and place.
    pub fn info(&self) -> &TensorInfo {
        &self.info
    }

    /// The file's path, or the name that was given for its bytes.
    pub fn file(&self) -> &str {
        self.file.name()
    }

    /// An error about the tensor's shape.
    pub(crate) fn bad_shape(&self, expected: impl Into<String>) -> Error {
        let found = format!("shape {:?}", self.info.shape);
        self.file
            .error(format!("tensor {:?}", self.info.name), expected, found)
    }

    /// The bytes as they stand in the file, [`TensorInfo::rows`] rows of [`TensorInfo::row_bytes`] each. They start at no
    /// particular alignment.
    pub fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.info.range.clone()]
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
                file: self.file().to_owned(),
                tensor: self.info().name.clone(),
                block,
                part,
                found,
            }),
        }
    }
}

impl fmt::Debug for TensorView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorView")
            .field("file", &self.file())
            .field("info", &self.info)
            .finish()
    }
}
