//! Safetensors files: reading through a memory map.
//!
//! The format: <https://huggingface.co/docs/safetensors>. Eight bytes with the length of the header, the header, which is a JSON
//! object from names to types, shapes and offsets, and then the tensors' bytes, without holes. Every length, count and offset is
//! checked against the length of the file before it is used, so a hostile file gives an [`Error`](crate::Error) and neither a panic nor
//! a request for memory larger than twice the file, plus 1 MiB.

mod dtype;
mod file;
mod read;

pub use crate::tensor_view::{TensorInfo, TensorView};
pub use dtype::Dtype;
pub use file::{Entry, Safetensors};
