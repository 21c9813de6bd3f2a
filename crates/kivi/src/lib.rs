//! A key/value cache of 2 to 4 bits for language models, and attention over its packed codes.
//!
#![doc = include_str!("../README.md")]

mod attend;
pub mod cache;
pub mod compat;
pub mod config;
mod decode;
mod encode;
pub mod error;
pub mod hadamard;
mod int8;
#[cfg(feature = "llama")]
pub mod llama;
pub mod pack;
mod page;
pub mod quantize;
mod sequence;
pub mod shape;
#[doc(hidden)]
pub mod simd;

pub use cache::{Bytes, Cache, CodedRow, SequenceId, Span, TokenCodes, Truncated};
pub use config::{
    Arithmetic, Bits, Config, LayerBits, Policy, Prefill, Rounding, Window, value_group,
};
pub use error::{Error, Result};
pub use hadamard::hadamard;
pub use quantize::{
    Group, MAX_GROUP, Rows, Scheme, dequantize_keys, dequantize_values, quantize_group,
    quantize_keys, quantize_values,
};
pub use shape::{GroupSize, HeadDim, Shape};
