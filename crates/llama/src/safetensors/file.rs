//! An open file: tensors by name.

use super::{
    Dtype, TensorInfo, TensorView,
    read::{self, Contents},
};
use crate::file_bytes::{FileBytes, Format};
use crate::{Error, Result};
use std::{fmt, ops::Range, path::Path, sync::Arc};

/// An open safetensors file. Clones share the bytes.
#[derive(Clone)]
pub struct Safetensors {
    file: Arc<FileBytes>,
    contents: Arc<Contents>,
}

/// What a file says about one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name, unique in the file.
    pub name: String,
    /// Number type.
    pub dtype: Dtype,
    /// Shape, row-major: outermost dimension first. A single number has no dimensions; a dimension may be 0.
    pub shape: Vec<usize>,
    /// Where the bytes are, counted from the start of the file.
    pub range: Range<usize>,
}

impl Safetensors {
    /// Opens and checks a file. Its bytes stay in the file, behind a memory map.
    ///
    /// While it is open, nobody may shorten the file: a read beyond its new end would end the process. Writers that replace a file by
    /// renaming are safe.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that can't be mapped, [`Error::Safetensors`] for bad contents.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(FileBytes::open(Format::Safetensors, path.as_ref())?)
    }

    /// Checks a file that is in memory. `name` stands for it in errors.
    ///
    /// # Errors
    /// [`Error::Safetensors`] for bad contents.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self> {
        Self::new(FileBytes::owned(Format::Safetensors, name.into(), bytes))
    }

    fn new(file: FileBytes) -> Result<Self> {
        let contents = read::contents(&file)?;
        Ok(Self {
            file: Arc::new(file),
            contents: Arc::new(contents),
        })
    }

    /// The file's path, or the name given to [`from_bytes`](Self::from_bytes).
    pub fn name(&self) -> &str {
        self.file.name()
    }

    /// The value of a key of the file's free-form metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.contents.metadata.get(key).map(String::as_str)
    }

    /// All tensors, in the order of their bytes.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.contents.tensors.iter()
    }

    /// Whether the file has a tensor of that name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.contents.by_name.contains_key(name)
    }

    /// The bytes of the tensor of that name, whatever its type. They start at no particular alignment.
    ///
    /// # Errors
    /// [`Error::Safetensors`] where there is none.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        Ok(&self.file.bytes()[self.entry(name)?.range.clone()])
    }

    /// The tensor of that name as a model's weights.
    ///
    /// # Errors
    /// [`Error::Safetensors`] where there is none, where its type is not F32, F16 or BF16, or where it has not one to four dimensions of
    /// at least 1.
    pub fn tensor(&self, name: &str) -> Result<TensorView> {
        let entry = self.entry(name)?;
        let Some(kind) = entry.dtype.weights() else {
            return Err(self.error(
                format!("tensor {name:?}: dtype"),
                "F32, F16 or BF16",
                entry.dtype.name(),
            ));
        };
        if !(1..=4).contains(&entry.shape.len()) || entry.shape.contains(&0) {
            return Err(self.error(
                format!("tensor {name:?}: shape"),
                "one to four dimensions of at least 1",
                format!("{:?}", entry.shape),
            ));
        }
        let info = TensorInfo {
            name: entry.name.clone(),
            kind,
            shape: entry.shape.clone(),
            range: entry.range.clone(),
        };
        Ok(TensorView::new(self.file.clone(), info))
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        match self.contents.by_name.get(name) {
            Some(&index) => Ok(&self.contents.tensors[index]),
            None => Err(self.error(format!("tensor {name:?}"), "a tensor", "none")),
        }
    }

    /// An error about this file.
    pub(crate) fn error(
        &self,
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        self.file.error(field, expected, found)
    }
}

impl fmt::Debug for Safetensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Safetensors")
            .field("name", &self.name())
            .field("tensors", &self.contents.tensors.len())
            .finish()
    }
}
