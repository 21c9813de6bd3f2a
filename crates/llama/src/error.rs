//! What can go wrong, with what was expected and what was found.

use std::io;

use crate::SequenceId;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("{operation} {file}: {source}")]
    Io {
        /// What was tried: open, map, write, rename.
        operation: &'static str,
        /// The file's path.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A GGUF file breaks its format, or a metadata value is not what the reader needs.
    #[error("{file}: {field}: expected {expected}, found {found}")]
    Gguf {
        /// The file's path or the name given for its bytes.
        file: String,
        /// The metadata key, the tensor, or the part of the header.
        field: String,
        /// What the format or the reader asks for.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// A safetensors file breaks its format, or a tensor is not what the reader needs.
    #[error("{file}: {field}: expected {expected}, found {found}")]
    Safetensors {
        /// The file's path or the name given for its bytes.
        file: String,
        /// The tensor, or the part of the header.
        field: String,
        /// What the format or the reader asks for.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// A JSON file of a Hugging Face folder is not what the reader needs: `config.json`, `model.safetensors.index.json`,
    /// `tokenizer.json` or `adapter_config.json`.
    #[error("{file}: {field}: expected {expected}, found {found}")]
    Json {
        /// The file's path or the name given for its text.
        file: String,
        /// The key, with the keys around it.
        field: String,
        /// What the reader asks for.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// A tensor has a block type that this crate does not read.
    #[error(
        "{file}: tensor {tensor:?}: expected type F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q5_K or Q6_K, found {found}"
    )]
    UnsupportedType {
        /// The file's path or the name given for its bytes.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// The type's name, where it is known, and its number.
        found: String,
    },
    /// A weight, or a block's scale or minimum, is NaN or infinite.
    #[error("{file}: tensor {tensor:?}: block {block}: expected a finite {part}, found {found}")]
    NotFinite {
        /// The file's path or the name given for its bytes.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// Index of the block in the tensor; F32, F16 and BF16 have blocks of one weight.
        block: usize,
        /// Which number of the block: `weight`, `scale` or `minimum`.
        part: &'static str,
        /// The number.
        found: f32,
    },
    /// Text or token ids that the tokenizer can't turn into the other.
    #[error("{operation}: expected {expected}, found {found}")]
    Tokenizer {
        /// `encode` or `decode`.
        operation: &'static str,
        /// What the vocabulary allows.
        expected: String,
        /// What came.
        found: String,
    },
    /// An argument is out of its domain.
    #[error("{operation}: {argument}: expected {expected}, found {found}")]
    Argument {
        /// The function that was called.
        operation: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// Its domain.
        expected: String,
        /// Its value.
        found: String,
    },
    /// A key or a value that a cache can't hold, or a query that it can't attend with.
    #[error(
        "{operation}: {argument} of layer {layer}, {sequence:?}, row {row}, head {head}, channel {channel}: expected a magnitude of at most {limit}, found {found}"
    )]
    Value {
        /// `append` or `attend`.
        operation: &'static str,
        /// `k`, `v` or `q`.
        argument: &'static str,
        /// Layer, from 0.
        layer: usize,
        /// The sequence.
        sequence: SequenceId,
        /// Row within the sequence's span.
        row: usize,
        /// Key and value head, or query head.
        head: usize,
        /// Channel of the head.
        channel: usize,
        /// The largest magnitude that can be stored, or computed with.
        limit: f32,
        /// The value.
        found: f32,
    },
    /// The system has not the memory for an array whose length a file gives.
    #[error("{operation}: {part}: expected memory for {expected} numbers, found too little")]
    Memory {
        /// The function that was called.
        operation: &'static str,
        /// The tensor's name, or what else the array holds.
        part: String,
        /// Numbers of the array.
        expected: usize,
    },
    /// A sequence would grow beyond what the model was trained for.
    #[error("forward: {sequence:?}: expected at most {context} positions, found {needed}")]
    Context {
        /// The sequence.
        sequence: SequenceId,
        /// Positions that the model has.
        context: usize,
        /// Positions that the new rows need.
        needed: usize,
    },
    /// A model or a store does not serve what was asked of it.
    #[error("{operation}: supported is {expected}, asked was {found}")]
    Unsupported {
        /// The function that was called.
        operation: &'static str,
        /// What is served.
        expected: String,
        /// What was asked.
        found: String,
    },
    /// A [`KvStore`](crate::store::KvStore) of another crate failed.
    #[error("{operation}: {source}")]
    Store {
        /// The method that was called.
        operation: &'static str,
        /// The store's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] whittle_tensor::Error),
}

impl Error {
    pub(crate) fn argument(
        operation: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Argument {
            operation,
            argument,
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}
