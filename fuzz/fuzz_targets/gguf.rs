//! Any bytes as a GGUF file: the reader, all tensors, the tokenizer, and of small files the decoder. Nothing may panic or ask for memory beyond the file's length.
//!
//! A good file to start from comes from `cargo run -p whittle-llama --example tiny_gguf -- fuzz/corpus/gguf/tiny.gguf mixed`, then
//! `cargo +nightly fuzz run gguf -- -max_total_time=300 -rss_limit_mb=2048 -malloc_limit_mb=64`
#![no_main]

use libfuzzer_sys::fuzz_target;
use whittle_llama::cache::PlainStore;
use whittle_llama::{Config, Decoder, Gguf, KvStore, Result, Tokenizer, Weights};

/// Files below this length are run as models too.
const SMALL: usize = 1 << 16;

/// Products of sizes up to which a model is run: a file may state sizes far beyond its own.
const WEIGHTS: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes("fuzz", bytes.to_vec()) else {
        return;
    };
    for (key, value) in gguf.entries() {
        assert_eq!(
            gguf.metadata(key).map(|value| value.describe()),
            Some(value.describe())
        );
    }
    let finite = gguf.check_finite().is_ok();
    for info in gguf.tensors() {
        let view = gguf.tensor(&info.name).expect("a listed tensor is found");
        assert_eq!(view.bytes().len(), info.rows() * info.row_bytes());
        assert_eq!(info.shape.iter().product::<usize>(), info.len());
        if info.len() <= 1 << 16 {
            let weights = view.dequantize().expect("a view has whole blocks");
            assert!(!finite || weights.iter().all(|weight| weight.is_finite()));
        }
    }
    if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) {
        for text in ["", "the end, in 1872\n", "<|im_start|> \u{feff}\u{1f600}"] {
            for ids in [tokenizer.encode(text), tokenizer.encode_special(text)]
                .into_iter()
                .flatten()
            {
                tokenizer
                    .decode(&ids)
                    .expect("the ids are the tokenizer's own");
            }
        }
    }
    if bytes.len() < SMALL {
        // Most files are no model; what counts is that the error is one.
        let _ = run(&gguf);
    }
});

/// Loads a model and runs one token through it.
fn run(gguf: &Gguf) -> Result<()> {
    let config = Config::from_gguf(gguf)?;
    let decoder = Decoder::load(gguf, Weights::Blocks)?;
    let small = [
        [config.vocab, config.width, 1],
        [config.feed_forward, config.width, config.layers],
        [config.query_heads, config.head_dim, config.layers],
        [config.query_heads * config.head_dim, config.width, 1],
    ]
    .iter()
    .all(|sizes| {
        sizes
            .iter()
            .fold(1usize, |len, &size| len.saturating_mul(size))
            < WEIGHTS
    });
    if small {
        let mut store = PlainStore::<f32>::new(config.cache_shape())?;
        let sequence = store.sequence()?;
        let logits = decoder.step(&mut store, &[(sequence, 0)])?;
        assert_eq!(logits.shape(), [1, config.vocab]);
    }
    Ok(())
}
