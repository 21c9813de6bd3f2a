//! GGUF files, versions 2 and 3, little-endian: reading through a memory map and writing.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Every count, length, dimension and offset is
//! checked against the length of the file before it is used, so a hostile file gives an [`Error`](crate::Error) and neither a
//! panic nor an allocation larger than the file.

mod file;
mod kind;
mod read;
mod value;
pub mod write;

pub use crate::tensor_view::{TensorInfo, TensorView};
pub use file::Gguf;
pub use kind::GgmlType;
pub use value::{Array, Strings, Value};
