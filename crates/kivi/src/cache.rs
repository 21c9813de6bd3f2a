//! [`Cache`]: sequences of quantised keys and values.

use crate::{
    Config, Error, Policy, Prefill, Result, Shape,
    encode::Encoder,
    hadamard,
    page::{Page, PageEntry, PageLayout},
    sequence::{Boundary, Sequence, Side, boundary, committed},
};
use half::{f16, slice::HalfFloatSliceExt};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use whittle_tensor::{Device, Tensor};

/// Names one sequence of a [`Cache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub usize);

/// `tokens` rows of one sequence inside a ragged batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The sequence that the rows belong to.
    pub sequence: SequenceId,
    /// How many rows, may be 0.
    pub tokens: usize,
}

/// What [`Cache::truncate`] left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncated {
    /// The sequence is as if the dropped tokens had never come.
    Exact,
    /// Tokens from `from` on are quantised already that would still be in 16 bits, had the dropped tokens never come.
    Quantised {
        /// The first such token.
        from: usize,
    },
}

/// One token of one layer and kv head as its codes keep it; `None` where only 16-bit values exist yet.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenCodes {
    /// Its key.
    pub key: Option<CodedRow>,
    /// Its value, rotated if the configuration rotates values.
    pub value: Option<CodedRow>,
}

/// A quantised row, `[head_dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CodedRow {
    /// The codes.
    pub codes: Vec<u8>,
    /// What they stand for: `code · scale + min`.
    pub decoded: Vec<f32>,
}

/// Bytes of a [`Cache`], by what they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Packed codes with their scales and minima; shared pages count once.
    pub pages: usize,
    /// 16-bit rows: sinks and windows.
    pub rows: usize,
    /// Page tables, layer tables, layouts.
    pub tables: usize,
}

impl Bytes {
    /// All of them.
    pub fn total(&self) -> usize {
        self.pages + self.rows + self.tables
    }
}

/// A quantised key/value cache for many sequences of one model.
///
/// Keys are quantised per channel over `group_size` tokens, values per token over groups of channels; the first `sink_len` and
/// the newest tokens stay in 16 bits (Liu et al. 2024, arXiv 2402.02750, and the switches of [`Config`]). Keys are expected
/// *after* the position embedding.
#[derive(Debug)]
pub struct Cache {
    shape: Shape,
    config: Config,
    /// The configuration of each layer; they differ in their bits at most.
    layers: Vec<Config>,
    layout: PageLayout,
    /// By ascending number; a number is never given twice.
    sequences: Vec<(usize, Sequence)>,
    next: usize,
    read: AtomicU64,
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// A shape or config that contradicts itself, a policy for another number of layers, a device other than the CPU.
    pub fn new(shape: Shape, policy: Policy, device: &Device) -> Result<Self> {
        shape.validate()?;
        policy.validate(&shape)?;
        if !matches!(device, Device::Cpu) {
            return Err(Error::Unsupported {
                op: "Cache::new",
                why: format!("no kernels for {device:?} yet, only for the CPU"),
            });
        }
        let layers: Vec<Config> = (0..shape.layers)
            .filter_map(|layer| policy.layer(layer))
            .collect();
        let layout = PageLayout::new(&shape, &layers);
        let config = *policy.config();
        Ok(Self {
            shape,
            config,
            layers,
            layout,
            sequences: vec![],
            next: 0,
            read: AtomicU64::new(0),
        })
    }

    /// The model's shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What the cache does with its tokens.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Starts an empty sequence.
    ///
    /// # Errors
    /// None today; a bounded cache will say when it is full.
    pub fn sequence(&mut self) -> Result<SequenceId> {
        Ok(self.insert(Sequence::new(self.shape.layers, &self.config)))
    }

    /// A second sequence with the same tokens. Full pages are shared, sinks and windows are copied.
    ///
    /// # Errors
    /// Unknown sequence, or one in the middle of a step.
    pub fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId> {
        let original = self.get("fork", sequence)?;
        original.even_len("fork", sequence)?;
        let copy = original.clone();
        Ok(self.insert(copy))
    }

    /// Drops a sequence and all pages that only it used.
    ///
    /// # Errors
    /// Unknown sequence.
    pub fn free(&mut self, sequence: SequenceId) -> Result<()> {
        let at = self.position("free", sequence)?;
        self.sequences.remove(at);
        Ok(())
    }

    /// Tokens that all layers of a sequence hold.
    ///
    /// # Errors
    /// Unknown sequence.
    pub fn len(&self, sequence: SequenceId) -> Result<usize> {
        Ok(self
            .get("len", sequence)?
            .layers
            .iter()
            .map(|layer| layer.len)
            .min()
            .unwrap_or(0))
    }

    /// Whether a sequence holds no token.
    ///
    /// # Errors
    /// Unknown sequence.
    pub fn is_empty(&self, sequence: SequenceId) -> Result<bool> {
        Ok(self.len(sequence)? == 0)
    }

    /// Tokens of `layer` that are quantised, as `(keys, values)`; sinks are not among them.
    ///
    /// # Errors
    /// Unknown sequence or layer.
    pub fn quantised(&self, layer: usize, sequence: SequenceId) -> Result<(usize, usize)> {
        self.check_layer("quantised", layer)?;
        let layer = &self.get("quantised", sequence)?.layers[layer];
        Ok((
            layer.keys.coded - self.config.sink_len,
            layer.values.coded - self.config.sink_len,
        ))
    }

    /// Bytes of all buffers that the cache keeps alive: what the allocator was asked for.
    pub fn bytes(&self) -> usize {
        self.memory().total()
    }

    /// [`bytes`](Self::bytes), by what they hold.
    pub fn memory(&self) -> Bytes {
        let mut pages: Vec<*const Page> = vec![];
        let mut bytes = Bytes {
            tables: self.layout.heap_bytes()
                + self.layers.capacity() * size_of::<Config>()
                + self.sequences.capacity() * size_of::<(usize, Sequence)>(),
            ..Bytes::default()
        };
        for (_, sequence) in &self.sequences {
            pages.extend(sequence.pages.iter().map(|entry| Arc::as_ptr(&entry.page)));
            let (rows, tables) = sequence.heap_bytes();
            bytes.rows += rows;
            bytes.tables += tables;
        }
        pages.sort_unstable();
        pages.dedup();
        bytes.pages = pages.len() * Page::heap_bytes(&self.layout);
        bytes
    }

    /// Bytes of packed codes and metadata that [`attend`](Self::attend) has read since the cache was made.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Appends rows to one layer: `k` and `v` are `[rows, kv_heads, head_dim]`, F32, the rows of the spans one after the other.
    ///
    /// # Errors
    /// Unknown layer or sequence, a sequence that stands twice, wrong shapes, a value that is not finite or beyond 16 bits, a
    /// second prompt under [`Prefill::Exact`]. The cache is then as before.
    pub fn append(&mut self, layer: usize, spans: &[Span], k: &Tensor, v: &Tensor) -> Result<()> {
        let shape = [
            tokens("append", spans)?,
            self.shape.kv_heads,
            self.shape.head_dim.get(),
        ];
        for (tensor, expected) in [
            (k, "k [tokens, kv_heads, head_dim]"),
            (v, "v [tokens, kv_heads, head_dim]"),
        ] {
            check_shape("append", expected, tensor, &shape)?;
        }
        let (k, v) = (k.contiguous()?, v.contiguous()?);
        self.append_rows(layer, spans, k.as_slice()?, v.as_slice()?)
    }

    /// [`append`](Self::append) for callers with tensors of their own: `k` and `v` are `[rows, kv_heads, head_dim]`, row-major.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_rows(
        &mut self,
        layer: usize,
        spans: &[Span],
        k: &[f32],
        v: &[f32],
    ) -> Result<()> {
        self.check_layer("append", layer)?;
        self.check_spans("append", spans)?;
        let (width, tokens) = (self.width(), tokens("append", spans)?);
        check_len("append", "k", tokens, width, k.len())?;
        check_len("append", "v", tokens, width, v.len())?;
        if self.config.prefill == Prefill::Exact {
            for span in spans.iter().filter(|span| span.tokens > 1) {
                let len = self.get("append", span.sequence)?.layers[layer].len;
                if len > 0 {
                    return Err(Error::ExactPrefill {
                        sequence: span.sequence.0,
                        tokens: span.tokens,
                        len,
                    });
                }
            }
        }
        let mut at = 0;
        let mut before = vec![];
        for span in spans {
            let rows = at * width..(at + span.tokens) * width;
            at += span.tokens;
            before.push((
                span.sequence,
                self.get("append", span.sequence)?.layers[layer].extent(),
            ));
            if let Err(error) = self.push(layer, *span, &k[rows.clone()], &v[rows]) {
                for (sequence, extent) in before {
                    self.get_mut("append", sequence)?.layers[layer].restore(extent, width);
                }
                return Err(error);
            }
        }
        for span in spans {
            self.code_due(layer, *span)?;
        }
        Ok(())
    }

    /// Attention output of the newest tokens: `softmax(scale · q·kᵀ)·v`, causal.
    ///
    /// `q` and the result are `[queries, query_heads, head_dim]`, F32; a span's queries are its sequence's newest tokens, any
    /// number of them. At its end the tokens that have left the window lose their 16-bit rows, unless the sequence is
    /// [held](Self::hold): a second attend to the same tokens, or one after [`commit`](Self::commit), reads them from codes.
    ///
    /// # Errors
    /// Unknown layer or sequence, a sequence that stands twice, wrong shapes, more queries than tokens, a query that is not finite.
    pub fn attend(
        &mut self,
        layer: usize,
        spans: &[Span],
        q: &Tensor,
        scale: f32,
    ) -> Result<Tensor> {
        let shape = [
            tokens("attend", spans)?,
            self.shape.query_heads,
            self.shape.head_dim.get(),
        ];
        check_shape("attend", "q [queries, query_heads, head_dim]", q, &shape)?;
        let q = q.contiguous()?;
        let mut out = vec![0.0; shape.iter().product()];
        self.attend_rows(layer, spans, q.as_slice()?, scale, &mut out)?;
        Ok(Tensor::from_vec(out, &shape)?)
    }

    /// [`attend`](Self::attend) for callers with tensors of their own: `q` and `out` are `[queries, query_heads, head_dim]`,
    /// row-major.
    ///
    /// # Errors
    /// As [`attend`](Self::attend).
    pub fn attend_rows(
        &mut self,
        layer: usize,
        spans: &[Span],
        q: &[f32],
        scale: f32,
        out: &mut [f32],
    ) -> Result<()> {
        self.check_layer("attend", layer)?;
        self.check_spans("attend", spans)?;
        let tokens = tokens("attend", spans)?;
        let width = self.shape.query_heads * self.shape.head_dim.get();
        check_len("attend", "q", tokens, width, q.len())?;
        check_len("attend", "out", tokens, width, out.len())?;
        for span in spans {
            let len = self.get("attend", span.sequence)?.layers[layer].len;
            if span.tokens > len {
                return Err(Error::Argument {
                    argument: "spans",
                    expected: format!("at most {len} queries for sequence {}", span.sequence.0),
                    found: span.tokens.to_string(),
                });
            }
        }
        self.check_queries(layer, spans, q, scale)?;
        let read = crate::attend::attend(self, layer, spans, q, scale, out)?;
        self.read.fetch_add(read, Ordering::Relaxed);
        for span in spans {
            if !self.get("attend", span.sequence)?.held {
                self.commit_layer(layer, span.sequence)?;
            }
        }
        Ok(())
    }

    /// From now on nothing loses its 16-bit form, so that [`truncate`](Self::truncate) can take tokens back as if they had never
    /// come: speculative decoding.
    ///
    /// # Errors
    /// Unknown sequence.
    pub fn hold(&mut self, sequence: SequenceId) -> Result<()> {
        self.get_mut("hold", sequence)?.held = true;
        Ok(())
    }

    /// Ends [`hold`](Self::hold); what has left the window is then kept as codes alone.
    ///
    /// # Errors
    /// Unknown sequence.
    pub fn commit(&mut self, sequence: SequenceId) -> Result<()> {
        self.get_mut("commit", sequence)?.held = false;
        for layer in 0..self.shape.layers {
            self.commit_layer(layer, sequence)?;
        }
        Ok(())
    }

    /// Keeps the first `len` tokens, also in the middle of a step, where layers hold different numbers of them: what a decoder
    /// needs after an error. A block that the cut divides keeps the codes of the tokens that stay, is never quantised again and
    /// stays short; later tokens form new blocks after it.
    ///
    /// # Errors
    /// Unknown sequence, or `len` beyond what all layers hold.
    pub fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<Truncated> {
        let now = self.len(sequence)?;
        if len > now {
            return Err(Error::Argument {
                argument: "len",
                expected: format!("at most {now}"),
                found: len.to_string(),
            });
        }
        let (config, width) = (self.config, self.width());
        let sink_len = config.sink_len;
        let state = self.get_mut("truncate", sequence)?;
        // Below an earlier cut the blocks lie on the first grid.
        let base = if len < state.base {
            sink_len
        } else {
            state.base
        };
        let natural = committed(&config, base, len);
        let mut from = usize::MAX;
        let mut coded = Boundary {
            keys: sink_len,
            values: sink_len,
        };
        for layer in &mut state.layers {
            layer.len = len;
            for (side, rule) in [
                (&mut layer.keys, natural.keys),
                (&mut layer.values, natural.values),
            ] {
                side.sinks.truncate(len * width);
                side.window.truncate(len, sink_len, width);
                // Codes of tokens that still have their 16-bit rows go, as far as the rule would not have made them yet.
                side.coded = side
                    .coded
                    .min(rule)
                    .max(side.window.start)
                    .min(len.max(sink_len));
                if side.coded > rule {
                    from = from.min(rule);
                }
            }
            coded.keys = coded.keys.max(layer.keys.coded);
            coded.values = coded.values.max(layer.values.coded);
        }
        let end = coded.keys.max(coded.values);
        state.pages.retain(|page| page.start < end);
        if let Some(last) = state.pages.last_mut()
            && coded.keys < last.end()
            && coded.keys > last.start
        {
            last.len = coded.keys - last.start;
            state.base = coded.keys;
        }
        state.base = state.base.min(coded.keys);
        // Layers that had not come as far follow, so that all stand on one grid again; a cut block of theirs is quantised short.
        for layer in 0..self.shape.layers {
            self.code(layer, sequence, coded)?;
        }
        Ok(if from == usize::MAX {
            Truncated::Exact
        } else {
            Truncated::Quantised { from }
        })
    }

    /// The codes of one token, for inspection.
    ///
    /// # Errors
    /// Unknown sequence or layer, `token` or `kv_head` out of range.
    pub fn codes(
        &self,
        layer: usize,
        sequence: SequenceId,
        kv_head: usize,
        token: usize,
    ) -> Result<TokenCodes> {
        self.check_layer("codes", layer)?;
        let sequence = self.get("codes", sequence)?;
        let rows = &sequence.layers[layer];
        for (argument, found, limit) in [
            ("kv_head", kv_head, self.shape.kv_heads),
            ("token", token, rows.len),
        ] {
            if found >= limit {
                return Err(Error::Argument {
                    argument,
                    expected: format!("below {limit}"),
                    found: found.to_string(),
                });
            }
        }
        let coded = |side: &Side| token >= self.config.sink_len && token < side.coded;
        let at = sequence.page_of(token);
        let layout = self.layout.block(layer);
        let head_dim = self.shape.head_dim.get();
        let row = |code: &dyn Fn(usize) -> Option<u8>, group: usize, scale: &[f16], min: &[f16]| {
            let codes: Vec<u8> = (0..head_dim).filter_map(code).collect();
            let decoded = codes
                .iter()
                .enumerate()
                .map(|(d, &c)| f32::from(c) * scale[d / group].to_f32() + min[d / group].to_f32())
                .collect();
            CodedRow { codes, decoded }
        };
        let (mut key, mut value) = (None, None);
        if let Some(entry) = sequence.pages.get(at) {
            let block = &entry.page.bytes()[self.layout.range(layer, kv_head)];
            let token = token.wrapping_sub(entry.start);
            if coded(&rows.keys) {
                let (scale, min) = layout.key_metadata(block)?;
                key = Some(row(&|d| layout.key_code(block, token, d), 1, scale, min));
            }
            if coded(&rows.values) {
                let groups = layout.value_groups();
                let (scale, min) = layout.value_metadata(block)?;
                let own = token * groups..(token + 1) * groups;
                let (scale, min) = (&scale[own.clone()], &min[own]);
                value = Some(row(
                    &|d| layout.value_code(block, token, d),
                    head_dim / groups,
                    scale,
                    min,
                ));
            }
        }
        Ok(TokenCodes { key, value })
    }

    pub(crate) fn layout(&self) -> &PageLayout {
        &self.layout
    }

    pub(crate) fn get(&self, op: &'static str, sequence: SequenceId) -> Result<&Sequence> {
        let at = self.position(op, sequence)?;
        Ok(&self.sequences[at].1)
    }

    fn get_mut(&mut self, op: &'static str, sequence: SequenceId) -> Result<&mut Sequence> {
        let at = self.position(op, sequence)?;
        Ok(&mut self.sequences[at].1)
    }

    fn position(&self, op: &'static str, sequence: SequenceId) -> Result<usize> {
        self.sequences
            .binary_search_by_key(&sequence.0, |(number, _)| *number)
            .map_err(|_| Error::UnknownSequence {
                op,
                sequence: sequence.0,
            })
    }

    fn insert(&mut self, sequence: Sequence) -> SequenceId {
        let number = self.next;
        self.next += 1;
        self.sequences.push((number, sequence));
        SequenceId(number)
    }

    /// Values of one token's keys in one layer.
    fn width(&self) -> usize {
        self.shape.kv_heads * self.shape.head_dim.get()
    }

    fn check_layer(&self, op: &'static str, layer: usize) -> Result<()> {
        if layer < self.shape.layers {
            return Ok(());
        }
        Err(Error::UnknownLayer {
            op,
            layer,
            layers: self.shape.layers,
        })
    }

    fn check_spans(&self, op: &'static str, spans: &[Span]) -> Result<()> {
        for (i, span) in spans.iter().enumerate() {
            self.get(op, span.sequence)?;
            if spans[..i]
                .iter()
                .any(|other| other.sequence == span.sequence)
            {
                return Err(Error::RepeatedSequence {
                    op,
                    sequence: span.sequence.0,
                });
            }
        }
        Ok(())
    }

    /// A query that is not finite, or becomes so by the scale, would silently make all of its head's output so.
    fn check_queries(&self, layer: usize, spans: &[Span], q: &[f32], scale: f32) -> Result<()> {
        if !scale.is_finite() {
            return Err(Error::Argument {
                argument: "scale",
                expected: "a finite number".into(),
                found: scale.to_string(),
            });
        }
        let Some(at) = q.iter().position(|x| !(x * scale).is_finite()) else {
            return Ok(());
        };
        let (heads, head_dim) = (self.shape.query_heads, self.shape.head_dim.get());
        let mut row = at / (heads * head_dim);
        for span in spans {
            if row < span.tokens {
                let len = self.get("attend", span.sequence)?.layers[layer].len;
                return Err(Error::NonFinite {
                    what: "queries",
                    layer,
                    sequence: span.sequence.0,
                    token: len - span.tokens + row,
                    head: at / head_dim % heads,
                    channel: at % head_dim,
                    found: q[at] * scale,
                });
            }
            row -= span.tokens;
        }
        Ok(())
    }

    /// 16-bit rows that a layer keeps room for, so that decoding does not reallocate.
    fn window_capacity(&self) -> usize {
        self.config.window.residual_len() + self.config.group_size.get()
    }

    /// Checks and stores the rows of one span; after an error the caller takes them back.
    fn push(&mut self, layer: usize, span: Span, k: &[f32], v: &[f32]) -> Result<()> {
        let (heads, head_dim) = (self.shape.kv_heads, self.shape.head_dim.get());
        let (config, keep, shape_dim) = (self.config, self.window_capacity(), self.shape.head_dim);
        let width = heads * head_dim;
        let sequence = self.get_mut("append", span.sequence)?;
        let rows = &mut sequence.layers[layer];
        let len = rows.len;
        let first_error = {
            let mut rotated = vec![0.0; head_dim];
            let mut failure = None;
            for (what, side, from, rotate) in [
                ("keys", &mut rows.keys, k, false),
                ("values", &mut rows.values, v, config.rotate_values),
            ] {
                let to_sinks = config.sink_len.saturating_sub(len).min(span.tokens);
                side.sinks.reserve_exact(to_sinks * width);
                if span.tokens > to_sinks {
                    side.window.reserve(span.tokens - to_sinks, width, keep);
                }
                for (i, values) in from.chunks_exact(head_dim).enumerate() {
                    let (token, head) = (len + i / heads, i % heads);
                    let values = if rotate {
                        rotated.copy_from_slice(values);
                        hadamard(&mut rotated, shape_dim);
                        &rotated
                    } else {
                        values
                    };
                    let rows = if token < config.sink_len {
                        &mut side.sinks
                    } else {
                        &mut side.window.rows
                    };
                    let start = rows.len();
                    rows.resize(start + head_dim, f16::ZERO);
                    rows[start..].convert_from_f32_slice(values);
                    if failure.is_none()
                        && let Some(channel) = rows[start..].iter().position(|x| !x.is_finite())
                    {
                        // The rotation spreads a bad value over all channels: name the one that came in.
                        let source = &from[i * head_dim..(i + 1) * head_dim];
                        failure = Some(match source.iter().position(|x| !x.is_finite()) {
                            Some(channel) => Error::NonFinite {
                                what,
                                layer,
                                sequence: span.sequence.0,
                                token,
                                head,
                                channel,
                                found: source[channel],
                            },
                            None => Error::OutOfRange {
                                what,
                                layer,
                                sequence: span.sequence.0,
                                token,
                                head,
                                channel,
                                limit: f16::MAX.to_f32(),
                                found: values[channel],
                            },
                        });
                    }
                }
            }
            failure
        };
        rows.len += span.tokens;
        first_error.map_or(Ok(()), Err)
    }

    /// Makes the codes that the newest query of a streaming append may read.
    fn code_due(&mut self, layer: usize, span: Span) -> Result<()> {
        let sequence = self.get("append", span.sequence)?;
        let len = sequence.layers[layer].len;
        let prompt = len == span.tokens;
        if span.tokens == 0 || (prompt && self.config.prefill == Prefill::Exact) {
            return Ok(());
        }
        let due = boundary(&self.config, sequence.base, len - 1);
        self.code(layer, span.sequence, due)
    }

    /// Makes the codes of all tokens before the boundary that have none, key blocks first.
    fn code(&mut self, layer: usize, sequence: SequenceId, due: Boundary) -> Result<()> {
        let at = self.position("append", sequence)?;
        let sequence = &mut self.sequences[at].1;
        let mut encoder = Encoder::new(&self.shape, &self.layers[layer], &self.layout, layer);
        let group = self.config.group_size.get();
        while sequence.layers[layer].keys.coded < due.keys {
            let start = sequence.layers[layer].keys.coded;
            let at = entry_for(sequence, start, group, &self.layout);
            let end = sequence.pages[at].end();
            let page = Arc::make_mut(&mut sequence.pages[at].page);
            let keys = &mut sequence.layers[layer].keys;
            encoder.keys(&keys.window, start..end, page.bytes_mut())?;
            keys.coded = end;
        }
        while sequence.layers[layer].values.coded < due.values {
            let start = sequence.layers[layer].values.coded;
            let at = entry_for(sequence, start, group, &self.layout);
            let entry = &mut sequence.pages[at];
            let (offset, end) = (entry.start, entry.end().min(due.values));
            let page = Arc::make_mut(&mut entry.page);
            let values = &mut sequence.layers[layer].values;
            encoder.values(&values.window, start..end, start - offset, page.bytes_mut())?;
            values.coded = end;
        }
        Ok(())
    }

    /// Codes what the next query will read from codes and drops its 16-bit rows.
    fn commit_layer(&mut self, layer: usize, sequence: SequenceId) -> Result<()> {
        let (width, keep) = (
            self.shape.kv_heads * self.shape.head_dim.get(),
            self.window_capacity(),
        );
        let state = self.get("commit", sequence)?;
        let due = committed(&self.config, state.base, state.layers[layer].len);
        self.code(layer, sequence, due)?;
        let rows = &mut self.get_mut("commit", sequence)?.layers[layer];
        for side in [&mut rows.keys, &mut rows.values] {
            side.window.drop_before(side.coded, width, keep);
        }
        Ok(())
    }
}

/// Index of the page that token `start` goes to; a new one where the sequence has none yet.
fn entry_for(sequence: &mut Sequence, start: usize, group: usize, layout: &PageLayout) -> usize {
    let at = sequence.page_of(start);
    if at == sequence.pages.len() {
        let start = sequence.pages_end();
        sequence.pages.push(PageEntry {
            page: Arc::new(Page::new(layout)),
            start,
            len: group,
        });
    }
    at
}

/// Rows of a batch.
fn tokens(op: &'static str, spans: &[Span]) -> Result<usize> {
    spans
        .iter()
        .try_fold(0usize, |sum, span| sum.checked_add(span.tokens))
        .ok_or(Error::Shape {
            op,
            expected: format!("at most {} tokens in all spans", usize::MAX),
            found: "more".into(),
        })
}

fn check_len(
    op: &'static str,
    what: &str,
    tokens: usize,
    width: usize,
    found: usize,
) -> Result<()> {
    if tokens.checked_mul(width) == Some(found) {
        return Ok(());
    }
    Err(Error::Shape {
        op,
        expected: format!("{what} of {tokens} tokens × {width} values"),
        found: format!("{found} values"),
    })
}

fn check_shape(op: &'static str, expected: &str, tensor: &Tensor, shape: &[usize]) -> Result<()> {
    if tensor.shape() == shape {
        return Ok(());
    }
    Err(Error::Shape {
        op,
        expected: format!("{expected} = {shape:?}"),
        found: format!("{:?}", tensor.shape()),
    })
}
