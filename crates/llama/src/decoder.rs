//! The Llama decoder: RMSNorm, rotary attention with grouped heads, SwiGLU.
//!
//! One definition of the model serves every use. What keeps the keys and values is a [`KvStore`], what computes the linears a
//! [`Project`], what computes the feed-forward blocks an [`Mlp`]; a decoder as loaded uses the file's weights for both.

use std::collections::HashSet;
use std::sync::Arc;

use whittle_tensor::{Device, Pairing, Tensor};

use crate::cache::CacheShape;
use crate::gguf::{Gguf, TensorView, Value};
use crate::mlp::{FeedForward, Mlp};
use crate::project::{Dense, Group, Project, ProjectGroup, outputs};
use crate::{Adapter, Error, Folder, KvStore, Matrix, Result, SequenceId, Span, Visible, Weights};

/// Sizes and constants of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Transformer blocks.
    pub layers: usize,
    /// Channels of the residual stream.
    pub width: usize,
    /// Channels inside a feed-forward block.
    pub feed_forward: usize,
    /// Query heads of a layer, a multiple of `kv_heads`.
    pub query_heads: usize,
    /// Key and value heads of a layer.
    pub kv_heads: usize,
    /// Channels of a head, even.
    pub head_dim: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Positions that the model was trained for; more are refused.
    pub context: usize,
    /// Base of the rotary angles.
    pub rope_base: f32,
    /// Which channels the rotary embedding turns together. GGUF files of architecture `llama` have their query and key
    /// rows permuted for [`Pairing::Interleaved`]; with the other pairing such a file still writes fluent text, and only
    /// its perplexity shows the mistake.
    pub pairing: Pairing,
    /// Added to the mean square inside each RMSNorm.
    pub norm_eps: f32,
    /// The token that ends a text.
    pub eos: Option<u32>,
}

impl Config {
    /// Reads the metadata of a file of architecture `llama`.
    ///
    /// # Errors
    /// Another architecture, a missing key, a value that no such model can have, a scaled rotary embedding.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let architecture = gguf.string("general.architecture")?;
        if architecture != "llama" {
            return Err(bad_key(gguf, "general.architecture", "llama", architecture));
        }
        if let Some(scaling) = gguf.metadata("llama.rope.scaling.type")
            && *scaling != Value::from("none")
        {
            return Err(bad_key(
                gguf,
                "llama.rope.scaling.type",
                "none",
                format!("{scaling:?}"),
            ));
        }
        // The older key of the same scaling.
        let key = "llama.rope.scale_linear";
        if gguf.metadata(key).is_some() {
            let scale = gguf.f32(key)?;
            if scale != 1.0 {
                return Err(bad_key(gguf, key, "1", scale));
            }
        }
        let width = size(gguf, "llama.embedding_length")?;
        let query_heads = size(gguf, "llama.attention.head_count")?;
        let kv_heads = size_or(gguf, "llama.attention.head_count_kv", query_heads)?;
        if !query_heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of the {query_heads} query heads");
            return Err(bad_key(
                gguf,
                "llama.attention.head_count_kv",
                expected,
                kv_heads,
            ));
        }
        let head_dim = match gguf.metadata("llama.attention.key_length") {
            Some(_) => size(gguf, "llama.attention.key_length")?,
            None if width.is_multiple_of(query_heads) => width / query_heads,
            None => {
                let expected = format!("a divisor of the width {width}");
                return Err(bad_key(
                    gguf,
                    "llama.attention.head_count",
                    expected,
                    query_heads,
                ));
            }
        };
        if !head_dim.is_multiple_of(2) {
            return Err(bad_key(
                gguf,
                "llama.attention.key_length",
                "an even number",
                head_dim,
            ));
        }
        for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
            let found = size_or(gguf, key, head_dim)?;
            if found != head_dim {
                return Err(bad_key(
                    gguf,
                    key,
                    format!("the {head_dim} channels of a key head"),
                    found,
                ));
            }
        }
        let tokens = gguf.tensor("token_embd.weight")?;
        let vocab = tokens.info().shape.first().copied().unwrap_or(0);
        if vocab == 0 || u32::try_from(vocab).is_err() {
            let found = format!("shape {:?}", tokens.info().shape);
            return Err(gguf.error("tensor \"token_embd.weight\"", "1 to 2^32 - 1 rows", found));
        }
        let stated = size_or(gguf, "llama.vocab_size", vocab)?;
        if stated != vocab {
            let expected = format!("the {vocab} rows of token_embd.weight");
            return Err(bad_key(gguf, "llama.vocab_size", expected, stated));
        }
        let norm_eps = gguf.f32("llama.attention.layer_norm_rms_epsilon")?;
        if !(norm_eps.is_finite() && norm_eps >= 0.0) {
            return Err(bad_key(
                gguf,
                "llama.attention.layer_norm_rms_epsilon",
                "at least 0",
                norm_eps,
            ));
        }
        let rope_base = match gguf.metadata("llama.rope.freq_base") {
            Some(_) => gguf.f32("llama.rope.freq_base")?,
            None => 10_000.0,
        };
        if !(rope_base.is_finite() && rope_base > 0.0) {
            return Err(bad_key(gguf, "llama.rope.freq_base", "above 0", rope_base));
        }
        let key = "tokenizer.ggml.eos_token_id";
        let eos = gguf.metadata(key).map(|_| gguf.u32(key)).transpose()?;
        if let Some(token) = eos.filter(|&token| token as usize >= vocab) {
            return Err(bad_key(gguf, key, format!("below {vocab}"), token));
        }
        Ok(Self {
            layers: size(gguf, "llama.block_count")?,
            width,
            feed_forward: size(gguf, "llama.feed_forward_length")?,
            query_heads,
            kv_heads,
            head_dim,
            vocab,
            context: size(gguf, "llama.context_length")?,
            rope_base,
            pairing: Pairing::Interleaved,
            norm_eps,
            eos,
        })
    }

    /// The sizes that fix the form of this model's cache.
    pub fn cache_shape(&self) -> CacheShape {
        CacheShape {
            layers: self.layers,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
        }
    }
}

/// A loaded model. A clone shares the weights.
#[derive(Clone)]
pub struct Decoder {
    config: Config,
    model: Arc<Model>,
    project: Arc<dyn Project>,
    mlp: Arc<dyn Mlp>,
}

struct Model {
    embedding: Matrix,
    blocks: Vec<Block>,
    output_norm: Tensor,
    /// Absent where the embedding serves as output too.
    output: Option<Matrix>,
}

struct Block {
    attention_norm: Tensor,
    query: Matrix,
    key: Matrix,
    value: Matrix,
    attention_output: Matrix,
    feed_forward_norm: Tensor,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

/// In which order a file keeps the query and key rows of a head.
#[derive(Clone, Copy)]
enum Rotary {
    Interleaved,
    Halves,
}

impl Block {
    fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self {
            attention_norm: self.attention_norm.to_device(device)?,
            query: self.query.to_device(device)?,
            key: self.key.to_device(device)?,
            value: self.value.to_device(device)?,
            attention_output: self.attention_output.to_device(device)?,
            feed_forward_norm: self.feed_forward_norm.to_device(device)?,
            gate: self.gate.to_device(device)?,
            up: self.up.to_device(device)?,
            down: self.down.to_device(device)?,
        })
    }
}

impl Decoder {
    /// Loads a file of architecture `llama`.
    ///
    /// # Errors
    /// What [`Config::from_gguf`] refuses; a tensor that is missing, has another shape than the metadata say, isn't finite,
    /// or that this decoder doesn't know and would have to ignore.
    pub fn load(gguf: &Gguf, weights: Weights) -> Result<Self> {
        let config = Config::from_gguf(gguf)?;
        let output = gguf.has_tensor("output.weight");
        let mut known = HashSet::new();
        let mut tensor = |name: &str| {
            let tensor = gguf.tensor(name)?;
            known.insert(name.to_owned());
            Ok(tensor)
        };
        let decoder = Self::assemble(config, weights, output, Rotary::Interleaved, &mut tensor)?;
        match gguf.tensors().find(|tensor| !known.contains(&tensor.name)) {
            None => Ok(decoder),
            Some(other) => {
                let expected = "no tensor that this decoder would have to ignore";
                Err(gguf.error(format!("tensor {:?}", other.name), expected, "one"))
            }
        }
    }

    /// Loads a Hugging Face folder. The decoder is the one that a GGUF file of the same weights gives, to the bit: its matrices have
    /// the names of GGUF files, and the query and key rows of each head are read in the order for interleaved rotary pairs.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape than `config.json` says, isn't finite, or that this decoder doesn't know and would
    /// have to ignore.
    pub fn load_folder(folder: &Folder, weights: Weights) -> Result<Self> {
        let config = folder.config().clone();
        let mut known = HashSet::new();
        let mut tensor = |name: &str| {
            let name = folder_name(name);
            let tensor = folder.tensor(&name)?;
            known.insert(name);
            Ok(tensor)
        };
        let halves = Rotary::Halves;
        let decoder = Self::assemble(config, weights, !folder.tied(), halves, &mut tensor)?;
        // Older files carry the rotary frequencies, which follow from the base.
        let other = folder
            .tensors()
            .find(|name| !known.contains(*name) && !name.ends_with(".rotary_emb.inv_freq"));
        match other {
            None => Ok(decoder),
            Some(other) => {
                let expected = "no tensor that this decoder would have to ignore";
                Err(folder.error(format!("tensor {other:?}"), expected, "one"))
            }
        }
    }

    /// Puts a model together from tensors that `tensor` finds by their names in GGUF files.
    fn assemble(
        config: Config,
        weights: Weights,
        output: bool,
        rotary: Rotary,
        tensor: &mut dyn FnMut(&str) -> Result<TensorView>,
    ) -> Result<Self> {
        let Config {
            width,
            feed_forward,
            vocab,
            head_dim,
            ..
        } = config;
        let query = config.query_heads * head_dim;
        let kv = config.kv_heads * head_dim;
        let mut tensor = |name: &str, shape: &[usize]| {
            let tensor = tensor(name)?;
            if tensor.info().shape != shape {
                return Err(tensor.bad_shape(format!("shape {shape:?}")));
            }
            Ok(tensor)
        };
        let mut blocks = Vec::new();
        for layer in 0..config.layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let mut norm = |part: &str| vector(tensor(&name(part), &[width])?);
            let attention_norm = norm("attn_norm")?;
            let feed_forward_norm = norm("ffn_norm")?;
            let mut matrix = |part: &str, shape: &[usize]| {
                let name = name(part);
                Ok::<_, Error>(Matrix::new(tensor(&name, shape)?, weights)?.named(name))
            };
            let value = matrix("attn_v", &[kv, width])?;
            let attention_output = matrix("attn_output", &[width, query])?;
            let gate = matrix("ffn_gate", &[feed_forward, width])?;
            let up = matrix("ffn_up", &[feed_forward, width])?;
            let down = matrix("ffn_down", &[width, feed_forward])?;
            let mut turned = |part: &str, rows: usize| {
                let name = name(part);
                let tensor = tensor(&name, &[rows, width])?;
                let matrix = match rotary {
                    Rotary::Interleaved => Matrix::new(tensor, weights),
                    Rotary::Halves => Matrix::interleaved(tensor, weights, head_dim),
                };
                Ok::<_, Error>(matrix?.named(name))
            };
            blocks.push(Block {
                attention_norm,
                query: turned("attn_q", query)?,
                key: turned("attn_k", kv)?,
                value,
                attention_output,
                feed_forward_norm,
                gate,
                up,
                down,
            });
        }
        let output_norm = vector(tensor("output_norm.weight", &[width])?)?;
        let mut matrix = |name: &str| {
            let tensor = tensor(name, &[vocab, width])?;
            Ok::<_, Error>(Matrix::new(tensor, weights)?.named(name))
        };
        let model = Model {
            embedding: matrix("token_embd.weight")?,
            blocks,
            output_norm,
            output: output.then(|| matrix("output.weight")).transpose()?,
        };
        Ok(Self {
            config,
            model: Arc::new(model),
            project: Arc::new(Dense),
            mlp: Arc::new(Dense),
        })
    }

    /// Sizes and constants, as the file gives them.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same weights with another [`Config::pairing`], for files whose query and key rows are not permuted.
    pub fn with_pairing(mut self, pairing: Pairing) -> Self {
        self.config.pairing = pairing;
        self
    }

    /// The same weights with another [`Project`].
    pub fn with_project(self, project: impl Project + 'static) -> Self {
        Self {
            project: Arc::new(project),
            ..self
        }
    }

    /// The same weights, and beside them an adapter, whose share each projection adds to what it gave before: to the decoder's
    /// [`Project`], and to the adapters that are there already. The adapter's matrices go to where the weights are, and its query and key
    /// rows into the order of this decoder's [`Config::pairing`], so those two are set first. An [`Mlp`] has to compute its linears by the
    /// decoder's [`Project`], or an adapter of the feed-forward blocks does nothing.
    ///
    /// # Errors
    /// An adapter of a model of other sizes, with the tensor that does not fit.
    pub fn with_adapter(self, adapter: &Adapter) -> Result<Self> {
        let device = self.model.output_norm.device();
        let adapted = adapter.beside(self.project.clone(), &self, device)?;
        Ok(self.with_project(adapted))
    }

    /// The same weights with another [`Mlp`].
    pub fn with_mlp(self, mlp: impl Mlp + 'static) -> Self {
        Self {
            mlp: Arc::new(mlp),
            ..self
        }
    }

    /// The same model with its weights on `device`, where every operation then runs; the [`KvStore`] has to be there too, as
    /// [`TensorStore`](crate::tensor_store::TensorStore) can. Off the CPU all weights are f32: blocks are widened once, at the
    /// upload. Only token numbers, positions and masks go to the device in a step, and logits come back.
    ///
    /// # Errors
    /// As [`Matrix::to_device`].
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let Model {
            embedding,
            blocks,
            output_norm,
            output,
        } = &*self.model;
        let model = Model {
            embedding: embedding.to_device(device)?,
            blocks: blocks
                .iter()
                .map(|block| block.to_device(device))
                .collect::<Result<_>>()?,
            output_norm: output_norm.to_device(device)?,
            output: output
                .as_ref()
                .map(|output| output.to_device(device))
                .transpose()?,
        };
        Ok(Self {
            model: Arc::new(model),
            ..self.clone()
        })
    }

    /// A weight matrix by its name in a GGUF file, for example `blk.0.attn_q.weight`, wherever the model was loaded from.
    ///
    /// # Errors
    /// [`Error::Argument`] where the decoder has no such matrix.
    pub fn matrix(&self, name: &str) -> Result<&Matrix> {
        let Model {
            embedding,
            blocks,
            output,
            ..
        } = &*self.model;
        let blocks = blocks.iter().flat_map(|block| {
            let Block {
                query,
                key,
                value,
                attention_output,
                gate,
                up,
                down,
                ..
            } = block;
            [query, key, value, attention_output, gate, up, down]
        });
        std::iter::once(embedding)
            .chain(output)
            .chain(blocks)
            .find(|matrix| matrix.name() == name)
            .ok_or_else(|| {
                Error::argument(
                    "Decoder::matrix",
                    "name",
                    "the name of a matrix of this decoder",
                    format!("{name:?}"),
                )
            })
    }

    /// Runs new tokens of some sequences through all blocks.
    ///
    /// `tokens` are the spans' tokens, one span after the other. Positions continue where the store's sequences end; in a
    /// [`Visible::Tree`] a row stands as many positions after the last row before its span as it has ancestors, plus one.
    /// Returns the hidden rows `[tokens, width]` after the last norm, to be handed to [`logits`](Self::logits) as far as
    /// logits are wanted.
    ///
    /// # Errors
    /// Token numbers outside the vocabulary, more positions than the context has, what the store or a seam refuses. The
    /// sequences are then cut back to the tokens that they had.
    pub fn forward(
        &self,
        store: &mut dyn KvStore,
        spans: &[Span],
        tokens: &[u32],
        visible: Visible<'_>,
    ) -> Result<Tensor> {
        let before = spans
            .iter()
            .map(|span| store.len(span.sequence))
            .collect::<Result<Vec<_>>>()?;
        let positions = self.positions(spans, &before, tokens.len(), visible)?;
        let x = self.model.embedding.gather(tokens)?;
        let hidden = self.blocks(store, spans, &positions, x, visible);
        if hidden.is_err() {
            for (span, &len) in spans.iter().zip(&before) {
                // A store that can't do this either leaves the caller with the first error, which is the cause.
                let _ = store.truncate(span.sequence, len);
            }
        }
        hidden
    }

    /// Logits `[rows, vocab]` of hidden rows `[rows, width]`.
    ///
    /// # Errors
    /// Another shape.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.model
            .output
            .as_ref()
            .unwrap_or(&self.model.embedding)
            .product(hidden)
    }

    /// Appends a prompt in chunks of at most `chunk` tokens, calls `progress` with the tokens done after each, and returns
    /// the hidden row `[1, width]` of the last token.
    ///
    /// # Errors
    /// No tokens, a chunk of 0, or as [`forward`](Self::forward), where the chunks before the failed one stay appended.
    pub fn prefill(
        &self,
        store: &mut dyn KvStore,
        sequence: SequenceId,
        tokens: &[u32],
        chunk: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Tensor> {
        let mut last = None;
        let mut done = 0;
        for part in chunks("prefill", tokens, chunk)? {
            let span = Span {
                sequence,
                tokens: part.len(),
            };
            let hidden = self.forward(store, &[span], part, Visible::Causal)?;
            last = Some(hidden.narrow(0, part.len() - 1, 1)?);
            done += part.len();
            progress(done);
        }
        last.ok_or_else(|| Error::argument("prefill", "tokens", "at least 1", "0"))
    }

    /// Appends one token to each of some sequences and returns the logits `[sequences, vocab]` of what follows.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn step(&self, store: &mut dyn KvStore, batch: &[(SequenceId, u32)]) -> Result<Tensor> {
        let spans: Vec<Span> = batch
            .iter()
            .map(|&(sequence, _)| Span {
                sequence,
                tokens: 1,
            })
            .collect();
        let tokens: Vec<u32> = batch.iter().map(|&(_, token)| token).collect();
        self.logits(&self.forward(store, &spans, &tokens, Visible::Causal)?)
    }

    /// Position of each row, checked against the context.
    fn positions(
        &self,
        spans: &[Span],
        before: &[usize],
        tokens: usize,
        visible: Visible<'_>,
    ) -> Result<Vec<u32>> {
        let rows = spans
            .iter()
            .fold(0usize, |rows, span| rows.saturating_add(span.tokens));
        let count = |argument, found: usize| {
            Error::argument(
                "forward",
                argument,
                format!("{rows}, the sum of the spans"),
                found,
            )
        };
        if rows != tokens {
            return Err(count("tokens", tokens));
        }
        if let Visible::Tree(parents) = visible
            && parents.len() != rows
        {
            return Err(count("visible", parents.len()));
        }
        let mut positions = Vec::with_capacity(rows);
        for (span, &before) in spans.iter().zip(before) {
            let first = positions.len();
            for row in 0..span.tokens {
                let position = match visible {
                    Visible::Causal => before + row,
                    Visible::Tree(parents) => match parents[first + row] {
                        None => before,
                        Some(parent) if parent < row => positions[first + parent] as usize + 1,
                        Some(parent) => {
                            return Err(Error::argument(
                                "forward",
                                "visible",
                                format!("a parent before row {row} of its span"),
                                parent,
                            ));
                        }
                    },
                };
                if position >= self.config.context {
                    return Err(Error::Context {
                        sequence: span.sequence,
                        context: self.config.context,
                        needed: position + 1,
                    });
                }
                positions.push(u32::try_from(position).unwrap_or(u32::MAX));
            }
        }
        Ok(positions)
    }

    fn blocks(
        &self,
        store: &mut dyn KvStore,
        spans: &[Span],
        positions: &[u32],
        mut x: Tensor,
        visible: Visible<'_>,
    ) -> Result<Tensor> {
        let Config {
            query_heads,
            kv_heads,
            head_dim,
            rope_base,
            pairing,
            norm_eps,
            ..
        } = self.config;
        let project = &*self.project;
        let rows = positions.len();
        let scale = 1.0 / (head_dim as f32).sqrt();
        for (layer, block) in self.model.blocks.iter().enumerate() {
            let normed = &x.rms_norm(&block.attention_norm, norm_eps)?;
            let weights = &[&block.query, &block.key, &block.value];
            let [q, k, v] = outputs(
                project,
                &ProjectGroup {
                    layer,
                    group: Group::Qkv,
                    x: normed,
                    weights,
                },
            )?;
            let q = q
                .reshape(&[rows, query_heads, head_dim])?
                .rope(positions, rope_base, pairing)?;
            let k = k
                .reshape(&[rows, kv_heads, head_dim])?
                .rope(positions, rope_base, pairing)?;
            let v = v.reshape(&[rows, kv_heads, head_dim])?;
            store.append(layer, spans, &k, &v)?;
            let attended = store.attend(layer, spans, &q, scale, visible)?;
            let attended = &attended.reshape(&[rows, query_heads * head_dim])?;
            let weights = &[&block.attention_output];
            let [attended] = outputs(
                project,
                &ProjectGroup {
                    layer,
                    group: Group::Output,
                    x: attended,
                    weights,
                },
            )?;
            x = x.add(&attended)?;

            let normed = &x.rms_norm(&block.feed_forward_norm, norm_eps)?;
            let Block { gate, up, down, .. } = block;
            x = x.add(&self.mlp.feed_forward(&FeedForward {
                layer,
                x: normed,
                gate,
                up,
                down,
                project,
            })?)?;
        }
        Ok(x.rms_norm(&self.model.output_norm, norm_eps)?)
    }
}

/// Splits tokens into chunks, of which the last may be shorter.
pub(crate) fn chunks<'a>(
    operation: &'static str,
    tokens: &'a [u32],
    chunk: usize,
) -> Result<std::slice::Chunks<'a, u32>> {
    if chunk == 0 {
        return Err(Error::argument(operation, "chunk", "at least 1", "0"));
    }
    Ok(tokens.chunks(chunk))
}

pub(crate) fn unknown_token(operation: &'static str, token: u32, vocab: usize) -> Error {
    Error::argument(operation, "token", format!("below {vocab}"), token)
}

/// The name in a Hugging Face folder of a tensor that GGUF files call `name`.
fn folder_name(name: &str) -> String {
    match name {
        "token_embd.weight" => "model.embed_tokens.weight".into(),
        "output_norm.weight" => "model.norm.weight".into(),
        "output.weight" => "lm_head.weight".into(),
        _ => {
            let block = name
                .strip_prefix("blk.")
                .and_then(|rest| rest.split_once('.'));
            let (layer, part) = block.unwrap_or(("", name));
            let part = match part {
                "attn_norm.weight" => "input_layernorm.weight",
                "attn_q.weight" => "self_attn.q_proj.weight",
                "attn_k.weight" => "self_attn.k_proj.weight",
                "attn_v.weight" => "self_attn.v_proj.weight",
                "attn_output.weight" => "self_attn.o_proj.weight",
                "ffn_norm.weight" => "post_attention_layernorm.weight",
                "ffn_gate.weight" => "mlp.gate_proj.weight",
                "ffn_up.weight" => "mlp.up_proj.weight",
                "ffn_down.weight" => "mlp.down_proj.weight",
                other => other,
            };
            format!("model.layers.{layer}.{part}")
        }
    }
}

/// The weights of a norm.
fn vector(tensor: TensorView) -> Result<Tensor> {
    tensor.check_finite()?;
    Ok(Tensor::from_vec(
        tensor.dequantize()?,
        &tensor.info().shape,
    )?)
}

/// A size of at least 1.
fn size(gguf: &Gguf, key: &str) -> Result<usize> {
    match gguf.u32(key)? {
        0 => Err(bad_key(gguf, key, "at least 1", 0)),
        size => Ok(size as usize),
    }
}

fn size_or(gguf: &Gguf, key: &str, default: usize) -> Result<usize> {
    match gguf.metadata(key) {
        Some(_) => size(gguf, key),
        None => Ok(default),
    }
}

fn bad_key(gguf: &Gguf, key: &str, expected: impl Into<String>, found: impl ToString) -> Error {
    gguf.error(key, expected, found.to_string())
}
