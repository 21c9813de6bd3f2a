//! A Llama-family decoder over GGUF files and Hugging Face folders, with seams for caches, projections and feed-forward blocks.
//!
#![doc = include_str!("../README.md")]

pub mod block;
pub mod cache;
pub mod decoder;
mod error;
mod file_bytes;
pub mod folder;
pub mod gguf;
mod json_file;
pub mod lora;
pub mod matrix;
pub mod mlp;
mod mmap;
mod packed;
pub mod project;
pub mod safetensors;
pub mod sample;
pub mod score;
mod sequences;
pub mod store;
pub mod tensor_store;
mod tensor_view;
pub mod tiny;
pub mod tokenizer;

pub use decoder::{Config, Decoder};
pub use error::{Error, Result};
pub use folder::Folder;
pub use gguf::Gguf;
pub use lora::Adapter;
pub use matrix::{Matrix, Weights};
pub use safetensors::Safetensors;
pub use store::{KvStore, SequenceId, Span, Truncated, Visible};
pub use tokenizer::Tokenizer;
