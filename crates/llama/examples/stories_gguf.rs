//! Converts a llama2.c model and its vocabulary to GGUF:
//! `cargo run --example stories_gguf -- stories260K.bin tok512.bin stories260K.gguf`.
//!
//! The model file (version 0) holds seven i32 (width, feed-forward width, layers, query heads, key-value heads, vocabulary,
//! context), then f32 weights, each kind for all layers in turn. The vocabulary file holds the length of the longest token, then
//! for each token a score, a length and the bytes. Both pair the dimensions of a head interleaved, as GGUF does for the
//! architecture `llama`, so no row moves.

use std::{error::Error, fs, process::ExitCode};
use whittle_llama::gguf::{GgmlType, Strings, write::Writer};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, vocabulary, out] = &arguments[..] else {
        eprintln!("usage: stories_gguf <model.bin> <tokenizer.bin> <out.gguf>");
        return ExitCode::from(2);
    };
    match convert(model, vocabulary, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn convert(model: &str, vocabulary: &str, out: &str) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(model).map_err(|error| format!("{model}: {error}"))?;
    let mut file = Words {
        file: model,
        rest: &bytes,
    };
    let mut header = || file.size();
    let [width, feed_forward, layers, heads, kv_heads, vocab, context] = [
        header()?,
        header()?,
        header()?,
        header()?,
        header()?,
        header()?,
        header()?,
    ];
    if heads == 0 || width % heads != 0 {
        return Err(
            format!("{model}: expected a width that {heads} heads divide, found {width}").into(),
        );
    }
    let head_dim = width / heads;
    let kv_width = head_dim * kv_heads;

    let writer = Writer::new()
        .metadata("general.architecture", "llama")
        .metadata("general.name", "stories260K")
        .metadata("llama.block_count", layers as u32)
        .metadata("llama.context_length", context as u32)
        .metadata("llama.embedding_length", width as u32)
        .metadata("llama.feed_forward_length", feed_forward as u32)
        .metadata("llama.attention.head_count", heads as u32)
        .metadata("llama.attention.head_count_kv", kv_heads as u32)
        .metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
        .metadata("llama.rope.freq_base", 10_000.0_f32)
        .metadata("llama.rope.dimension_count", head_dim as u32)
        .metadata("llama.vocab_size", vocab as u32);
    let mut writer = tokenizer(writer, vocabulary, vocab)?;

    let kind = GgmlType::F32;
    writer = writer.tensor(
        "token_embd.weight",
        kind,
        &[vocab, width],
        file.floats(vocab * width)?,
    );
    let parts: [(&str, &[usize]); 9] = [
        ("attn_norm", &[width]),
        ("attn_q", &[width, width]),
        ("attn_k", &[kv_width, width]),
        ("attn_v", &[kv_width, width]),
        ("attn_output", &[width, width]),
        ("ffn_norm", &[width]),
        ("ffn_gate", &[feed_forward, width]),
        ("ffn_down", &[width, feed_forward]),
        ("ffn_up", &[feed_forward, width]),
    ];
    for (part, shape) in parts {
        for layer in 0..layers {
            let weights = file.floats(shape.iter().product())?;
            writer = writer.tensor(format!("blk.{layer}.{part}.weight"), kind, shape, weights);
        }
    }
    writer = writer.tensor("output_norm.weight", kind, &[width], file.floats(width)?);
    // Sines and cosines of the positions follow, which a reader computes for itself.
    let tables = context * head_dim * 4;
    if file.rest.len() != tables {
        return Err(format!(
            "{model}: expected {tables} bytes of tables at the end, found {}",
            file.rest.len()
        )
        .into());
    }
    Ok(writer.write(out)?)
}

fn tokenizer(writer: Writer, file: &str, vocab: usize) -> Result<Writer, Box<dyn Error>> {
    let bytes = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let mut words = Words { file, rest: &bytes };
    words.size()?;
    let (mut tokens, mut scores, mut types) = (Strings::default(), Vec::new(), Vec::new());
    for id in 0..vocab {
        scores.extend(words.floats(1)?);
        let len = words.size()?;
        let token = std::str::from_utf8(words.take(len)?)
            .map_err(|error| format!("{file}: token {id}: {error}"))?;
        // The numbers of GGUF: 1 ordinary, 2 unknown, 3 control, 6 byte.
        types.push(match id {
            0 => 2,
            1 | 2 => 3,
            _ if token.len() == 6 && token.starts_with("<0x") => 6,
            _ => 1,
        });
        match id {
            0 => tokens.push("<unk>"),
            1 => tokens.push("<s>"),
            2 => tokens.push("</s>"),
            _ => tokens.push(&token.replace(' ', "\u{2581}")),
        }
    }
    Ok(writer
        .metadata("tokenizer.ggml.model", "llama")
        .metadata("tokenizer.ggml.tokens", tokens)
        .metadata("tokenizer.ggml.scores", scores)
        .metadata("tokenizer.ggml.token_type", types)
        .metadata("tokenizer.ggml.bos_token_id", 1_u32)
        .metadata("tokenizer.ggml.eos_token_id", 2_u32)
        .metadata("tokenizer.ggml.unknown_token_id", 0_u32)
        .metadata("tokenizer.ggml.add_bos_token", true)
        .metadata("tokenizer.ggml.add_space_prefix", true))
}

/// Little-endian words of a file.
struct Words<'a> {
    file: &'a str,
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(format!(
                "{}: expected {len} more bytes, found {}",
                self.file,
                self.rest.len()
            ));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn floats(&mut self, len: usize) -> Result<Vec<f32>, String> {
        let bytes = self.take(len.saturating_mul(4))?;
        Ok(bytes
            .as_chunks()
            .0
            .iter()
            .map(|word| f32::from_le_bytes(*word))
            .collect())
    }

    /// A size of the header: small enough that products of four of them don't overflow.
    fn size(&mut self) -> Result<usize, String> {
        let bytes = self.take(4)?;
        let word = bytes
            .first_chunk()
            .map_or(-1, |word| i32::from_le_bytes(*word));
        match usize::try_from(word) {
            Ok(size) if size <= 65_535 => Ok(size),
            _ => Err(format!(
                "{}: expected a size from 0 to 65535, found {word}",
                self.file
            )),
        }
    }
}
