//! A Llama-family decoder over GGUF files, with seams for caches, projections and feed-forward blocks.
//!
#![doc = include_str!("../README.md")]

pub mod block;
pub mod cache;
pub mod decoder;
mod error;
pub mod gguf;
pub mod matrix;
pub mod mlp;
mod packed;
pub mod project;
pub mod sample;
pub mod score;
mod sequences;
pub mod store;
pub mod tensor_store;
pub mod tiny;
pub mod tokenizer;

pub use decoder::{Config, Decoder};
pub use error::{Error, Result};
pub use gguf::Gguf;
pub use matrix::{Matrix, Weights};
pub use store::{KvStore, SequenceId, Span, Truncated, Visible};
pub use tokenizer::Tokenizer;
