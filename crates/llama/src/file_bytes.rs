//! The bytes of an open file, mapped or in memory, and the name that errors give it.

use crate::{Error, Result, mmap};
use memmap2::Mmap;
use std::path::Path;

/// An open file of one of the two formats for weights.
pub(crate) struct FileBytes {
    format: Format,
    name: String,
    bytes: Bytes,
}

/// What a file is, which decides the kind of its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Gguf,
    Safetensors,
}

enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl FileBytes {
    pub(crate) fn open(format: Format, path: &Path) -> Result<Self> {
        Ok(Self {
            format,
            name: path.display().to_string(),
            bytes: Bytes::Mapped(mmap::map(path)?),
        })
    }

    pub(crate) fn owned(format: Format, name: String, bytes: Vec<u8>) -> Self {
        Self {
            format,
            name,
            bytes: Bytes::Owned(bytes),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// An error about this file.
    pub(crate) fn error(
        &self,
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        let file = self.name.clone();
        let (field, expected, found) = (field.into(), expected.into(), found.into());
        match self.format {
            Format::Gguf => Error::Gguf {
                file,
                field,
                expected,
                found,
            },
            Format::Safetensors => Error::Safetensors {
                file,
                field,
                expected,
                found,
            },
        }
    }
}
