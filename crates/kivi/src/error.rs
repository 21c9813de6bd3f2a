//! The one error type of this crate.

/// Result of a function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument outside what the function accepts.
    #[error("{argument}: expected {expected}, found {found}")]
    Argument {
        /// The argument or field.
        argument: &'static str,
        /// What it may be.
        expected: String,
        /// What it was.
        found: String,
    },
    /// A key, value or query that is infinite or not a number.
    #[error(
        "{what} of layer {layer}, sequence {sequence}, token {token}, head {head}, channel {channel}: \
         expected a finite number, found {found}"
    )]
    NonFinite {
        /// `"keys"`, `"values"` or `"queries"`.
        what: &'static str,
        /// Layer of the model.
        layer: usize,
        /// The sequence's number.
        sequence: usize,
        /// Position in the sequence, from 0.
        token: usize,
        /// Head of keys and values, or of queries.
        head: usize,
        /// Channel of the head.
        channel: usize,
        /// The number.
        found: f32,
    },
    /// A key or value beyond the largest finite f16, 65504.
    #[error(
        "{what} of layer {layer}, sequence {sequence}, token {token}, head {head}, channel {channel}: \
         expected at most {limit} in magnitude, found {found}"
    )]
    OutOfRange {
        /// `"keys"` or `"values"`.
        what: &'static str,
        /// Layer of the model.
        layer: usize,
        /// The sequence's number.
        sequence: usize,
        /// Position in the sequence, from 0.
        token: usize,
        /// Head of keys and values.
        head: usize,
        /// Channel of the head.
        channel: usize,
        /// The largest magnitude that 16 bits hold: 65504.
        limit: f32,
        /// The number.
        found: f32,
    },
    /// A sequence that the cache does not hold: never made, or freed.
    #[error("{op}: the cache holds no sequence {sequence}")]
    UnknownSequence {
        /// The operation.
        op: &'static str,
        /// The sequence's number.
        sequence: usize,
    },
    /// A layer that the model does not have.
    #[error("{op}: expected a layer below {layers}, found {layer}")]
    UnknownLayer {
        /// The operation.
        op: &'static str,
        /// The layer asked for.
        layer: usize,
        /// Layers of the cache.
        layers: usize,
    },
    /// An array or tensor of another shape.
    #[error("{op}: expected {expected}, found {found}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The shape or length it takes.
        expected: String,
        /// The shape or length it was given.
        found: String,
    },
    /// A combination that is not implemented. There is no silent fall-back.
    #[error("{op}: {why}")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// What it can't do.
        why: String,
    },
    /// An operation between steps, called while the layers of a sequence hold different numbers of tokens.
    #[error(
        "{op}: layers of sequence {sequence} differ in length: layer 0 holds {first} tokens, layer {layer} holds {found}"
    )]
    LayersDiffer {
        /// The operation.
        op: &'static str,
        /// The sequence's number.
        sequence: usize,
        /// Tokens of layer 0.
        first: usize,
        /// The first layer of another length.
        layer: usize,
        /// Tokens of that layer.
        found: usize,
    },
    /// A sequence stands in a batch more than once.
    #[error("{op}: expected each sequence once in a batch, found sequence {sequence} again")]
    RepeatedSequence {
        /// The operation.
        op: &'static str,
        /// The sequence's number.
        sequence: usize,
    },
    /// [`Prefill::Exact`](crate::Prefill::Exact) takes a prompt as one append to an empty sequence.
    #[error(
        "append: Prefill::Exact expects a prompt as one append to an empty sequence and single tokens after it, found {tokens} \
         tokens for sequence {sequence}, which holds {len}; Prefill::Streaming takes chunks"
    )]
    ExactPrefill {
        /// The sequence's number.
        sequence: usize,
        /// Tokens of the append.
        tokens: usize,
        /// Tokens that the sequence holds.
        len: usize,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] whittle_tensor::Error),
}
