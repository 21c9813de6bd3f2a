//! The seam between a decoder and whatever keeps its keys and values.
//!
//! A [`KvStore`] holds the keys and values of many sequences. The decoder appends the rows of one layer and at once asks
//! for the attention output of the newest rows; it never sees how they are kept. The plain f32 and f16 caches of this crate,
//! whittle-kivi's 2-bit cache and tree scoring all live behind this trait. What a store can't serve is
//! [`Error::Unsupported`](crate::Error::Unsupported), never a silent fall-back.

use crate::Result;
use whittle_tensor::Tensor;

/// Names one sequence of a [`KvStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub usize);

/// `tokens` new rows of one sequence inside a ragged batch.
///
/// A batch is a slice of spans; the rows of the tensors that go with it are the spans' rows, one span after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The sequence that the rows belong to.
    pub sequence: SequenceId,
    /// How many rows, may be 0.
    pub tokens: usize,
}

/// Which of the newest rows a query row may see. Every query sees all rows before the newest ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visible<'a> {
    /// Row `i` of a span sees rows `0..=i` of that span.
    Causal,
    /// One entry a query row, over all spans: the index *within its span* of the row's parent, or `None` for a child of the
    /// last row before the span. A row sees its ancestors and itself. A parent stands before its children.
    Tree(&'a [Option<usize>]),
}

/// What [`KvStore::truncate`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncated {
    /// The sequence is as if the dropped tokens had never come.
    Exact,
    /// Tokens before the cut stay quantised that would not be yet, had the dropped tokens never come: from token `from` on.
    Quantised {
        /// First token whose stored form differs from that of a sequence that never grew past the cut.
        from: usize,
    },
}

/// Keeps keys and values, and attends to them.
///
/// Shapes: `k` and `v` are `[rows, kv_heads, head_dim]`, `q` and the output are `[rows, query_heads, head_dim]`, all F32;
/// `rows` is the sum of the spans' tokens. A sequence stands at most once in a batch. For each step the decoder calls, layer by
/// layer, `append` and then `attend` with the same spans.
pub trait KvStore {
    /// Starts an empty sequence.
    ///
    /// # Errors
    /// Where the store has no room for another one.
    fn sequence(&mut self) -> Result<SequenceId>;

    /// Appends the rows of one layer. On an error the store is unchanged.
    ///
    /// # Errors
    /// Unknown sequence or layer, wrong shapes, values that the store can't hold.
    fn append(&mut self, layer: usize, spans: &[Span], k: &Tensor, v: &Tensor) -> Result<()>;

    /// Attention output of the newest rows of each sequence: `softmax(scale · q·kᵀ)·v` over what `visible` allows.
    ///
    /// # Errors
    /// Unknown sequence or layer, wrong shapes, more queries than rows, a `visible` that the store can't serve.
    fn attend(
        &mut self,
        layer: usize,
        spans: &[Span],
        q: &Tensor,
        scale: f32,
        visible: Visible<'_>,
    ) -> Result<Tensor>;

    /// Tokens of a sequence that all layers hold.
    ///
    /// # Errors
    /// Unknown sequence.
    fn len(&self, sequence: SequenceId) -> Result<usize>;

    /// Bytes of all buffers that the store keeps alive.
    fn bytes(&self) -> usize;

    /// A new sequence with the same tokens; the two go their own ways from here.
    ///
    /// # Errors
    /// Unknown sequence, or one whose layers have different lengths (in the middle of a step).
    fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId>;

    /// Keeps the first `len` tokens.
    ///
    /// # Errors
    /// Unknown sequence, or `len` beyond its length.
    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<Truncated>;

    /// Of the rows from `from` on keeps those listed (offsets from `from`, ascending): the accepted path of a scored tree.
    ///
    /// # Errors
    /// Unknown sequence, rows out of range or not ascending, a store that can't move rows.
    fn retain(&mut self, sequence: SequenceId, from: usize, rows: &[usize]) -> Result<()>;

    /// Until [`commit`](Self::commit), rows may be taken back by [`truncate`](Self::truncate) as if they had never come.
    ///
    /// # Errors
    /// Unknown sequence.
    fn hold(&mut self, sequence: SequenceId) -> Result<()>;

    /// Ends [`hold`](Self::hold).
    ///
    /// # Errors
    /// Unknown sequence.
    fn commit(&mut self, sequence: SequenceId) -> Result<()>;

    /// Drops a sequence and all that only it kept alive.
    ///
    /// # Errors
    /// Unknown sequence.
    fn free(&mut self, sequence: SequenceId) -> Result<()>;
}
