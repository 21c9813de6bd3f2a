//! Plain caches: every key and value as it came, in f32 or f16.
//!
//! They are the reference that other caches are measured against, so they are exact (up to the rounding of the storage
//! type), serve everything that [`KvStore`] asks for, and attend at the speed of memory.
//!
//! A page holds [`TILE`] tokens of one layer. In it each kv head has its keys as `[head_dim, TILE]` and its values as
//! `[TILE, head_dim]`, which is what the kernels of [`whittle_tensor::attention`] read: attention widens a tile, if at all,
//! and never transposes it. Pages are counted references: [`fork`](KvStore::fork) shares them, and the first write to a
//! shared page copies it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use whittle_tensor::attention::{LANES, Partial, accumulate_any, scores, weigh, widen};
use whittle_tensor::{Element, Tensor, par};

use crate::sequences::{self, Rows, Sequences};
use crate::{Error, KvStore, Result, SequenceId, Span, Truncated, Visible};

/// Tokens of a page.
pub const TILE: usize = 32;

/// Query tokens that share one pass over the keys and values.
const QUERIES: usize = 32;

/// Tokens of a split: each is attended to on its own and the results are merged in order, so the output does not depend on
/// the number of threads.
const SPLIT: usize = 16 * TILE;

/// Multiply-adds of the vector kernels that take as long as one simple operation of [`par`].
const AT_ONCE: usize = 8;

const _: () = assert!(
    TILE.is_multiple_of(LANES),
    "the kernels take whole vectors of tokens"
);

/// What a plain cache stores: `f32` or [`half::f16`].
pub trait Stored: Element + sealed::Sealed {
    /// The largest magnitude that can be stored.
    const LARGEST: f32;

    /// Rounds to the nearest value, ties to even.
    fn narrow(values: &[f32]) -> Cow<'_, [Self]>;

    /// The stored values as f32, in `scratch` where they are not f32 already.
    ///
    /// # Panics
    /// If `scratch` is needed and shorter than `stored`.
    fn widen<'a>(stored: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32];
}

impl Stored for f32 {
    const LARGEST: f32 = f32::MAX;

    fn narrow(values: &[f32]) -> Cow<'_, [Self]> {
        Cow::Borrowed(values)
    }

    fn widen<'a>(stored: &'a [Self], _: &'a mut [f32]) -> &'a [f32] {
        stored
    }
}

impl Stored for f16 {
    const LARGEST: f32 = 65504.0;

    fn narrow(values: &[f32]) -> Cow<'_, [Self]> {
        let mut narrow = vec![f16::ZERO; values.len()];
        narrow.convert_from_f32_slice(values);
        Cow::Owned(narrow)
    }

    fn widen<'a>(stored: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32] {
        let wide = &mut scratch[..stored.len()];
        widen(stored, wide);
        wide
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
}

/// Sizes of a model that fix the form of its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Transformer blocks.
    pub layers: usize,
    /// Key (and value) heads of a layer.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

impl CacheShape {
    /// Refuses a size of 0.
    pub(crate) fn check(&self, operation: &'static str) -> Result<()> {
        for (argument, size) in [
            ("layers", self.layers),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim),
        ] {
            if size == 0 {
                return Err(Error::argument(operation, argument, "at least 1", "0"));
            }
        }
        Ok(())
    }
}

/// A [`KvStore`] that keeps every key and value in `T`.
#[derive(Clone, Debug)]
pub struct PlainStore<T: Stored> {
    shape: CacheShape,
    sequences: Sequences<Layer<T>>,
}

/// The rows of one layer of one sequence.
#[derive(Clone, Debug)]
struct Layer<T> {
    tokens: usize,
    pages: Vec<Arc<[T]>>,
}

impl<T: Stored> Rows for Layer<T> {
    fn tokens(&self) -> usize {
        self.tokens
    }
}

impl<T: Stored> PlainStore<T> {
    /// An empty store.
    ///
    /// # Errors
    /// [`Error::Argument`] where a size is 0, or one page of every layer is more than an address space holds.
    pub fn new(shape: CacheShape) -> Result<Self> {
        shape.check("PlainStore::new")?;
        let CacheShape {
            layers,
            kv_heads,
            head_dim,
        } = shape;
        let sizes = [
            layers,
            kv_heads,
            head_dim,
            2 * TILE,
            size_of::<T>().max(size_of::<Layer<T>>()),
        ];
        let bytes = sizes
            .iter()
            .try_fold(1usize, |bytes, &size| bytes.checked_mul(size));
        if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
            return Err(Error::argument(
                "PlainStore::new",
                "shape",
                "pages of an address space's size at most",
                format!("{shape:?}"),
            ));
        }
        Ok(Self {
            shape,
            sequences: Sequences::new(layers),
        })
    }

    /// The sizes that it was made for.
    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Refuses the first of some rows' values `[rows, heads, head_dim]` that is NaN or of a magnitude above `limit`.
    fn check_values(
        &self,
        (operation, argument): (&'static str, &'static str),
        layer: usize,
        spans: &[Span],
        values: &[f32],
        heads: usize,
        limit: f32,
    ) -> Result<()> {
        let Some(at) = values.iter().position(|x| x.is_nan() || x.abs() > limit) else {
            return Ok(());
        };
        let head_dim = self.shape.head_dim;
        let (mut row, head, channel) = (
            at / (heads * head_dim),
            at / head_dim % heads,
            at % head_dim,
        );
        let mut sequence = SequenceId(0);
        for span in spans {
            sequence = span.sequence;
            if row < span.tokens {
                break;
            }
            row -= span.tokens;
        }
        Err(Error::Value {
            operation,
            argument,
            layer,
            sequence,
            row,
            head,
            channel,
            limit,
            found: values[at],
        })
    }

    /// Elements of a page.
    fn page_len(&self) -> usize {
        self.shape.kv_heads * 2 * TILE * self.shape.head_dim
    }
}

impl<T: Stored> KvStore for PlainStore<T> {
    fn sequence(&mut self) -> Result<SequenceId> {
        self.sequences.start(Layer {
            tokens: 0,
            pages: Vec::new(),
        })
    }

    fn append(&mut self, layer: usize, spans: &[Span], k: &Tensor, v: &Tensor) -> Result<()> {
        const OP: &str = "append";
        let CacheShape {
            kv_heads, head_dim, ..
        } = self.shape;
        let rows = self.sequences.batch_rows(OP, layer, spans)?;
        let (k, v) = (k.contiguous()?, v.contiguous()?);
        let k = values(OP, "k", &k, [rows, kv_heads, head_dim])?;
        let v = values(OP, "v", &v, [rows, kv_heads, head_dim])?;
        for (argument, values) in [("k", k), ("v", v)] {
            self.check_values((OP, argument), layer, spans, values, kv_heads, T::LARGEST)?;
        }

        let (k, v) = (T::narrow(k), T::narrow(v));
        let row_len = kv_heads * head_dim;
        let page_len = self.page_len();
        let mut rows = k.chunks_exact(row_len).zip(v.chunks_exact(row_len));
        for span in spans {
            let layer = &mut self.sequences.layers_mut(OP, span.sequence)?[layer];
            let mut rows = rows.by_ref().take(span.tokens).peekable();
            while rows.peek().is_some() {
                let slot = layer.tokens % TILE;
                if slot == 0 {
                    layer
                        .pages
                        .push(std::iter::repeat_n(T::zeroed(), page_len).collect());
                }
                let page = Arc::make_mut(&mut layer.pages[layer.tokens / TILE]);
                for (slot, (k, v)) in (slot..TILE).zip(rows.by_ref()) {
                    write_row(page, slot, head_dim, k, v);
                    layer.tokens += 1;
                }
            }
        }
        Ok(())
    }

    fn attend(
        &mut self,
        layer: usize,
        spans: &[Span],
        q: &Tensor,
        scale: f32,
        visible: Visible<'_>,
    ) -> Result<Tensor> {
        const OP: &str = "attend";
        let CacheShape {
            kv_heads, head_dim, ..
        } = self.shape;
        let rows = self.sequences.batch_rows(OP, layer, spans)?;
        let query_heads = match *q.shape() {
            [_, heads, _] if heads > 0 && heads % kv_heads == 0 => heads,
            _ => {
                return Err(Error::argument(
                    OP,
                    "q",
                    format!("shape [{rows}, a multiple of {kv_heads}, {head_dim}]"),
                    format!("{:?}", q.shape()),
                ));
            }
        };
        let q = q.contiguous()?;
        let q = values(OP, "q", &q, [rows, query_heads, head_dim])?;
        self.check_values((OP, "q"), layer, spans, q, query_heads, f32::MAX)?;
        let views = self.sequences.views(layer, spans, scale, visible)?;

        let group = query_heads / kv_heads;
        let mut tasks = Vec::new();
        let mut work = 0usize;
        for (index, (span, view)) in spans.iter().zip(&views).enumerate() {
            for first in (0..span.tokens).step_by(QUERIES) {
                let queries = QUERIES.min(span.tokens - first);
                work += queries * query_heads * head_dim * (view.before + first + queries);
                tasks.extend((0..kv_heads).map(|head| Task {
                    span: index,
                    head,
                    row: view.row + first,
                    first,
                    queries,
                }));
            }
        }

        let parallel = par::worthwhile(work / AT_ONCE);
        let run = |task: &Task| {
            let view = &views[task.span];
            let mut block = Vec::with_capacity(task.queries * group * head_dim);
            for i in 0..task.queries {
                let start = ((task.row + i) * query_heads + task.head * group) * head_dim;
                block.extend(q[start..start + group * head_dim].iter().map(|x| x * scale));
            }
            attend(view, task, &block, group, head_dim, parallel)
        };
        let partials: Vec<Partial> = if parallel {
            tasks.par_iter().map(run).collect()
        } else {
            tasks.iter().map(run).collect()
        };
        let mut out = vec![0.0; rows * query_heads * head_dim];
        for (task, mut partial) in tasks.iter().zip(partials) {
            for (i, block) in partial.out().chunks_exact(group * head_dim).enumerate() {
                let start = ((task.row + i) * query_heads + task.head * group) * head_dim;
                out[start..start + block.len()].copy_from_slice(block);
            }
        }
        Ok(Tensor::from_vec(out, &[rows, query_heads, head_dim])?)
    }

    fn len(&self, sequence: SequenceId) -> Result<usize> {
        self.sequences.len(sequence)
    }

    /// Distinct pages, their reference counts included, and the page tables.
    fn bytes(&self) -> usize {
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for layer in self.sequences.all() {
            bytes += layer.pages.capacity() * size_of::<Arc<[T]>>();
            for page in &layer.pages {
                if seen.insert(Arc::as_ptr(page).cast::<T>()) {
                    bytes += 2 * size_of::<usize>() + size_of_val::<[T]>(page);
                }
            }
        }
        bytes
    }

    fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId> {
        self.sequences.fork(sequence)
    }

    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<Truncated> {
        self.sequences.check_truncate(sequence, len)?;
        for layer in self.sequences.layers_mut("truncate", sequence)? {
            layer.tokens = len;
            layer.pages.truncate(len.div_ceil(TILE));
        }
        Ok(Truncated::Exact)
    }

    fn retain(&mut self, sequence: SequenceId, from: usize, rows: &[usize]) -> Result<()> {
        let CacheShape {
            kv_heads, head_dim, ..
        } = self.shape;
        self.sequences.check_retain(sequence, from, rows)?;
        let row_len = kv_heads * head_dim;
        let (mut k, mut v) = (vec![T::zeroed(); row_len], vec![T::zeroed(); row_len]);
        for layer in self.sequences.layers_mut("retain", sequence)? {
            for (to, source) in (from..).zip(rows.iter().map(|row| from + row)) {
                if to != source {
                    read_row(
                        &layer.pages[source / TILE],
                        source % TILE,
                        head_dim,
                        &mut k,
                        &mut v,
                    );
                    write_row(
                        Arc::make_mut(&mut layer.pages[to / TILE]),
                        to % TILE,
                        head_dim,
                        &k,
                        &v,
                    );
                }
            }
            layer.tokens = from + rows.len();
            layer.pages.truncate(layer.tokens.div_ceil(TILE));
        }
        Ok(())
    }

    /// Changes nothing: rows of this store can always be taken back.
    fn hold(&mut self, sequence: SequenceId) -> Result<()> {
        self.sequences.layers("hold", sequence).map(|_| ())
    }

    /// Changes nothing: see [`hold`](Self::hold).
    fn commit(&mut self, sequence: SequenceId) -> Result<()> {
        self.sequences.layers("commit", sequence).map(|_| ())
    }

    fn free(&mut self, sequence: SequenceId) -> Result<()> {
        self.sequences.free(sequence)
    }
}

/// The f32 values of a contiguous tensor of this shape.
fn values<'a>(
    operation: &'static str,
    argument: &'static str,
    tensor: &'a Tensor,
    shape: [usize; 3],
) -> Result<&'a [f32]> {
    if tensor.shape() != shape {
        let (expected, found) = (format!("shape {shape:?}"), format!("{:?}", tensor.shape()));
        return Err(Error::argument(operation, argument, expected, found));
    }
    Ok(tensor.as_slice::<f32>()?)
}

/// Splits a page into kv heads, each with its keys `[head_dim, TILE]` and its values `[TILE, head_dim]`.
fn heads_mut<T>(page: &mut [T], head_dim: usize) -> impl Iterator<Item = (&mut [T], &mut [T])> {
    page.chunks_exact_mut(2 * TILE * head_dim)
        .map(move |head| head.split_at_mut(TILE * head_dim))
}

/// Writes the key and the value row `[kv_heads, head_dim]` of one token.
fn write_row<T: Copy>(page: &mut [T], slot: usize, head_dim: usize, k: &[T], v: &[T]) {
    let rows = k.chunks_exact(head_dim).zip(v.chunks_exact(head_dim));
    for ((keys, values), (k, v)) in heads_mut(page, head_dim).zip(rows) {
        for (lanes, &x) in keys.chunks_exact_mut(TILE).zip(k) {
            lanes[slot] = x;
        }
        values[slot * head_dim..][..head_dim].copy_from_slice(v);
    }
}

/// Reads what [`write_row`] wrote.
fn read_row<T: Copy>(page: &[T], slot: usize, head_dim: usize, k: &mut [T], v: &mut [T]) {
    let rows = k
        .chunks_exact_mut(head_dim)
        .zip(v.chunks_exact_mut(head_dim));
    for (head, (k, v)) in page.chunks_exact(2 * TILE * head_dim).zip(rows) {
        let (keys, values) = head.split_at(TILE * head_dim);
        for (lanes, x) in keys.chunks_exact(TILE).zip(k) {
            *x = lanes[slot];
        }
        v.copy_from_slice(&values[slot * head_dim..][..head_dim]);
    }
}

/// A block of query tokens of one span against one kv head.
struct Task {
    span: usize,
    head: usize,
    /// Row of the batch that the block starts at.
    row: usize,
    /// The same row within its span.
    first: usize,
    queries: usize,
}

type View<'a, T> = sequences::View<'a, Layer<T>>;

/// Attention output of a task whose scaled queries are `q` `[queries · group, head_dim]`.
fn attend<T: Stored>(
    view: &View<'_, T>,
    task: &Task,
    q: &[f32],
    group: usize,
    head_dim: usize,
    parallel: bool,
) -> Partial {
    let end = view.before + task.first + task.queries;
    let splits = 0..end.div_ceil(SPLIT);
    let run = |split: usize| {
        let pages = split * SPLIT / TILE..end.min((split + 1) * SPLIT).div_ceil(TILE);
        attend_pages(view, task, q, group, head_dim, pages)
    };
    let partials: Vec<Partial> = if parallel {
        splits.into_par_iter().map(run).collect()
    } else {
        splits.map(run).collect()
    };
    let mut all = Partial::new(task.queries * group, head_dim);
    partials.iter().for_each(|partial| all.merge(partial));
    all.finish();
    all
}

fn attend_pages<T: Stored>(
    view: &View<'_, T>,
    task: &Task,
    q: &[f32],
    group: usize,
    head_dim: usize,
    pages: std::ops::Range<usize>,
) -> Partial {
    let rows = task.queries * group;
    let tile_len = TILE * head_dim;
    let mut partial = Partial::new(rows, head_dim);
    let mut wide = vec![0.0; 2 * tile_len];
    let mut weights = vec![0.0; rows * TILE];
    let bias = vec![0.0; rows];
    for page in pages {
        let start = page * TILE;
        let head = &view.stored.pages[page][task.head * 2 * tile_len..][..2 * tile_len];
        let (keys, values) = T::widen(head, &mut wide).split_at(tile_len);
        scores(q, rows, head_dim, keys, TILE, &bias, &mut weights);
        for (r, row) in weights.chunks_exact_mut(TILE).enumerate() {
            let query = task.first + r / group;
            let visible = (view.before + query + 1).saturating_sub(start).min(TILE);
            hide(view, query, start, &mut row[..visible]);
            weigh(&mut partial, r, row, visible);
        }
        let tokens = (view.before + task.first + task.queries - start).min(TILE);
        accumulate_any(
            &weights,
            rows,
            TILE,
            values,
            tokens,
            head_dim,
            partial.out(),
        );
    }
    partial
}

/// Sets the scores of the rows that a tree hides from `query` to -inf; the first score is that of token `start`.
fn hide<T: Stored>(view: &View<'_, T>, query: usize, start: usize, scores: &mut [f32]) {
    if view.sees_all() {
        return;
    }
    for (token, score) in (start..).zip(scores) {
        if !view.sees(query, token) {
            *score = f32::NEG_INFINITY;
        }
    }
}
