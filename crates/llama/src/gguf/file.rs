//! An open file: metadata by key, tensors by name.

use super::{
    Array, Strings, TensorInfo, TensorView, Value,
    read::{self, Contents},
};
use crate::file_bytes::{FileBytes, Format};
use crate::{Error, Result};
use std::{fmt, path::Path, sync::Arc};

/// An open GGUF file. Clones share the bytes.
#[derive(Clone)]
pub struct Gguf {
    file: Arc<FileBytes>,
    contents: Arc<Contents>,
}

impl Gguf {
    /// Opens and checks a file. Its bytes stay in the file, behind a memory map.
    ///
    /// While it is open, nobody may shorten the file: a read beyond its new end would end the process. Writers that replace a
    /// file by renaming, as [`Writer::write`](super::write::Writer::write) does, are safe.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that can't be mapped, [`Error::Gguf`] and [`Error::UnsupportedType`] for bad contents.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(FileBytes::open(Format::Gguf, path.as_ref())?)
    }

    /// Checks a file that is in memory. `name` stands for it in errors.
    ///
    /// # Errors
    /// [`Error::Gguf`] and [`Error::UnsupportedType`] for bad contents.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self> {
        Self::new(FileBytes::owned(Format::Gguf, name.into(), bytes))
    }

    fn new(file: FileBytes) -> Result<Self> {
        let contents = read::contents(file.name(), file.bytes())?;
        Ok(Self {
            file: Arc::new(file),
            contents: Arc::new(contents),
        })
    }

    /// The file's path, or the name given to [`from_bytes`](Self::from_bytes).
    pub fn name(&self) -> &str {
        self.file.name()
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.file.bytes()
    }

    /// The value of a metadata key.
    pub fn metadata(&self, key: &str) -> Option<&Value> {
        self.contents.metadata.get(key)
    }

    /// All metadata, keys in byte order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.contents
            .metadata
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.contents.tensors.iter()
    }

    /// Whether the file has a tensor of that name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.contents.by_name.contains_key(name)
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::Gguf`] where there is none.
    pub fn tensor(&self, name: &str) -> Result<TensorView> {
        match self.contents.by_name.get(name) {
            Some(&index) => Ok(self.view(index)),
            None => Err(self.error(format!("tensor {name:?}"), "a tensor", "none")),
        }
    }

    /// Checks that every weight of every tensor is a finite number.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for the first one that is not.
    pub fn check_finite(&self) -> Result<()> {
        (0..self.contents.tensors.len()).try_for_each(|index| self.view(index).check_finite())
    }

    /// The U32 of a key.
    ///
    /// # Errors
    /// [`Error::Gguf`] where the key is missing or has another type.
    pub fn u32(&self, key: &str) -> Result<u32> {
        match self.metadata(key) {
            Some(Value::U32(value)) => Ok(*value),
            other => Err(self.mismatch(key, "U32", other)),
        }
    }

    /// The F32 of a key.
    ///
    /// # Errors
    /// [`Error::Gguf`] where the key is missing or has another type.
    pub fn f32(&self, key: &str) -> Result<f32> {
        match self.metadata(key) {
            Some(Value::F32(value)) => Ok(*value),
            other => Err(self.mismatch(key, "F32", other)),
        }
    }

    /// The Bool of a key.
    ///
    /// # Errors
    /// [`Error::Gguf`] where the key is missing or has another type.
    pub fn bool(&self, key: &str) -> Result<bool> {
        match self.metadata(key) {
            Some(Value::Bool(value)) => Ok(*value),
            other => Err(self.mismatch(key, "Bool", other)),
        }
    }

    /// The String of a key.
    ///
    /// # Errors
    /// [`Error::Gguf`] where the key is missing or has another type.
    pub fn string(&self, key: &str) -> Result<&str> {
        match self.metadata(key) {
            Some(Value::String(value)) => Ok(value),
            other => Err(self.mismatch(key, "String", other)),
        }
    }

    /// The String array of a key.
    ///
    /// # Errors
    /// [`Error::Gguf`] where the key is missing or has another type.
    pub fn strings(&self, key: &str) -> Result<&Strings> {
        match self.metadata(key) {
            Some(Value::Array(Array::String(values))) => Ok(values),
            other => Err(self.mismatch(key, "Array of String", other)),
        }
    }

    /// The F32 array of a key.
    ///
    /// # Errors
    /// [`Error::Gguf`] where the key is missing or has another type.
    pub fn f32s(&self, key: &str) -> Result<&[f32]> {
        match self.metadata(key) {
            Some(Value::Array(Array::F32(values))) => Ok(values),
            other => Err(self.mismatch(key, "Array of F32", other)),
        }
    }

    /// The I32 array of a key.
    ///
    /// # Errors
    /// [`Error::Gguf`] where the key is missing or has another type.
    pub fn i32s(&self, key: &str) -> Result<&[i32]> {
        match self.metadata(key) {
            Some(Value::Array(Array::I32(values))) => Ok(values),
            other => Err(self.mismatch(key, "Array of I32", other)),
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

    fn view(&self, index: usize) -> TensorView {
        TensorView::new(self.file.clone(), self.contents.tensors[index].clone())
    }

    fn mismatch(&self, key: &str, expected: &str, found: Option<&Value>) -> Error {
        self.error(
            key,
            expected,
            found.map_or_else(|| "no such key".to_owned(), Value::describe),
        )
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("name", &self.name())
            .field("bytes", &self.bytes().len())
            .field("metadata", &self.contents.metadata.len())
            .field("tensors", &self.contents.tensors.len())
            .finish()
    }
}
