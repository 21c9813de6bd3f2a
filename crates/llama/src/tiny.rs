//! A tiny Llama model, made from a seed: for tests, examples and documentation.
//!
//! Two layers of width 128, four query heads and two key-value heads of 32, a feed-forward width of 256, tied embeddings, and
//! a byte-level BPE vocabulary of all 256 bytes, the most common English pairs and three control tokens. It speaks
//! no language, but every part of a real model is there.

use crate::{
    gguf::{GgmlType, Strings, write::Writer},
    tokenizer::character_of,
};
use whittle_tensor::random::Philox4x32;

/// Tensor formats of a tiny model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// All F32: 1.3 MB.
    F32,
    /// Q8_0 embeddings, Q4_1 projections, F16 values, F32 norms, in 0.25 MB.
    Mixed,
}

/// Width of the hidden rows.
pub const WIDTH: usize = 128;
/// Number of layers.
pub const LAYERS: usize = 2;
/// Number of query heads.
pub const HEADS: usize = 4;
/// Number of key-value heads.
pub const KV_HEADS: usize = 2;
/// Width of a head.
pub const HEAD_DIM: usize = 32;
/// Width inside the feed-forward block.
pub const FEED_FORWARD: usize = 256;
/// Number of tokens.
pub const VOCAB: usize = CONTROL.len() + 256 + MERGES.len();
/// Longest text that the metadata allows.
pub const CONTEXT: u32 = 2048;

/// Ids 0 to 2. A text begins with the first and ends with the last.
const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Pairs of tokens in the order in which they merge; `Ġ` is the space of the byte-level alphabet.
const MERGES: [(&str, &str); 29] = [
    ("Ġ", "t"),
    ("h", "e"),
    ("Ġ", "a"),
    ("i", "n"),
    ("r", "e"),
    ("o", "n"),
    ("Ġt", "he"),
    ("e", "r"),
    ("Ġ", "s"),
    ("a", "t"),
    ("Ġ", "o"),
    ("n", "d"),
    ("Ġ", "w"),
    ("i", "t"),
    ("Ġ", "c"),
    ("e", "s"),
    ("Ġo", "f"),
    ("i", "s"),
    ("in", "g"),
    ("Ġa", "nd"),
    ("e", "d"),
    ("Ġ", "in"),
    ("o", "u"),
    ("Ġ", "p"),
    ("a", "l"),
    ("Ġt", "o"),
    ("Ġ", "f"),
    ("l", "l"),
    ("Ġ", "b"),
];

/// The bytes of an F32 model.
pub fn gguf(seed: u64) -> Vec<u8> {
    writer(seed, Kinds::F32)
        .to_bytes()
        .expect("no seed makes a shape, a name or a weight that the writer refuses")
}

/// The model before it is written. One seed gives the same weights for all kinds, up to the rounding of the formats.
pub fn writer(seed: u64, kinds: Kinds) -> Writer {
    let [embedding, projection, value] = match kinds {
        Kinds::F32 => [GgmlType::F32; 3],
        Kinds::Mixed => [GgmlType::Q8_0, GgmlType::Q4_1, GgmlType::F16],
    };
    let stream = &mut Philox4x32::new(seed, 0);
    let mut writer = metadata().tensor(
        "token_embd.weight",
        embedding,
        &[VOCAB, WIDTH],
        // The logits of a normed row are then spread enough for the greatest one to stand out.
        normals(stream, VOCAB * WIDTH, 0.0, 0.2),
    );
    for layer in 0..LAYERS {
        let norms = ["attn_norm", "ffn_norm"];
        for part in norms {
            writer = writer.tensor(
                name(layer, part),
                GgmlType::F32,
                &[WIDTH],
                normals(stream, WIDTH, 1.0, 0.1),
            );
        }
        let matrices = [
            ("attn_q", projection, HEADS * HEAD_DIM, WIDTH),
            ("attn_k", projection, KV_HEADS * HEAD_DIM, WIDTH),
            ("attn_v", value, KV_HEADS * HEAD_DIM, WIDTH),
            ("attn_output", projection, WIDTH, HEADS * HEAD_DIM),
            ("ffn_gate", projection, FEED_FORWARD, WIDTH),
            ("ffn_up", projection, FEED_FORWARD, WIDTH),
            ("ffn_down", projection, WIDTH, FEED_FORWARD),
        ];
        for (part, kind, rows, columns) in matrices {
            let weights = normals(stream, rows * columns, 0.0, 1.0 / (columns as f32).sqrt());
            writer = writer.tensor(name(layer, part), kind, &[rows, columns], weights);
        }
    }
    writer.tensor(
        "output_norm.weight",
        GgmlType::F32,
        &[WIDTH],
        normals(stream, WIDTH, 1.0, 0.1),
    )
}

fn name(layer: usize, part: &str) -> String {
    format!("blk.{layer}.{part}.weight")
}

fn metadata() -> Writer {
    let mut tokens: Strings = CONTROL.iter().collect();
    (0..=255).for_each(|byte| tokens.push(character_of(byte).encode_utf8(&mut [0; 4])));
    MERGES
        .iter()
        .for_each(|(left, right)| tokens.push(&format!("{left}{right}")));
    // 3 marks a control token, 1 an ordinary one.
    let types: Vec<i32> = (0..VOCAB)
        .map(|id| if id < CONTROL.len() { 3 } else { 1 })
        .collect();
    let merges: Strings = MERGES
        .iter()
        .map(|(left, right)| format!("{left} {right}"))
        .collect();
    Writer::new()
        .metadata("general.architecture", "llama")
        .metadata("general.name", "tiny")
        .metadata("llama.block_count", LAYERS as u32)
        .metadata("llama.context_length", CONTEXT)
        .metadata("llama.embedding_length", WIDTH as u32)
        .metadata("llama.feed_forward_length", FEED_FORWARD as u32)
        .metadata("llama.attention.head_count", HEADS as u32)
        .metadata("llama.attention.head_count_kv", KV_HEADS as u32)
        .metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
        .metadata("llama.rope.freq_base", 10_000.0_f32)
        .metadata("llama.rope.dimension_count", HEAD_DIM as u32)
        .metadata("llama.vocab_size", VOCAB as u32)
        .metadata("tokenizer.ggml.model", "gpt2")
        .metadata("tokenizer.ggml.pre", "smollm")
        .metadata("tokenizer.ggml.tokens", tokens)
        .metadata("tokenizer.ggml.token_type", types)
        .metadata("tokenizer.ggml.merges", merges)
        .metadata("tokenizer.ggml.bos_token_id", 0_u32)
        .metadata("tokenizer.ggml.eos_token_id", CONTROL.len() as u32 - 1)
}

/// The next `len` normal numbers of a stream.
fn normals(stream: &mut Philox4x32, len: usize, mean: f32, deviation: f32) -> Vec<f32> {
    (0..len)
        .map(|_| mean + deviation * stream.next_normal())
        .collect()
}
