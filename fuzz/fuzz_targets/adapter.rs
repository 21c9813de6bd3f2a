//! Any bytes as a LoRA adapter: the text of its configuration, a zero byte, and the header of its weights. What is accepted is put beside a
//! tiny model and runs one token. Nothing may panic.
//!
//! `cargo +nightly fuzz run adapter -- -max_total_time=600 -max_len=4096 -rss_limit_mb=2048 -malloc_limit_mb=64 -dict=fuzz/adapter.dict`
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use whittle_llama::cache::PlainStore;
use whittle_llama::{Adapter, Decoder, Gguf, KvStore, Result, Safetensors, Weights, tiny};

static DECODER: LazyLock<Decoder> = LazyLock::new(|| {
    let gguf = Gguf::from_bytes("tiny", tiny::gguf(5)).expect("the tiny model is a good file");
    Decoder::load(&gguf, Weights::Blocks).expect("the tiny model is a good model")
});

/// The factors of rank 1 of the query projection.
const DATA: usize = 1024;

fuzz_target!(|bytes: &[u8]| {
    let at = bytes.iter().position(|&byte| byte == 0);
    let (config, header) = bytes.split_at(at.unwrap_or(bytes.len()));
    let header = header.get(1..).unwrap_or_default();
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header);
    weights.extend((0..DATA).map(|i| (i * 31) as u8 & 0x3f));
    if let Ok(config) = std::str::from_utf8(config) {
        // Most inputs are no adapter; what counts is that the error is one.
        let _ = run(config, weights);
    }
});

fn run(config: &str, weights: Vec<u8>) -> Result<()> {
    let weights = Safetensors::from_bytes("fuzz", weights)?;
    let adapter = Adapter::new("fuzz", config, &weights)?;
    assert!(adapter.scale().is_finite());
    let adapted = DECODER.clone().with_adapter(&adapter)?;
    let mut store = PlainStore::<f32>::new(adapted.config().cache_shape())?;
    let sequence = store.sequence()?;
    let logits = adapted.step(&mut store, &[(sequence, 7)])?;
    assert_eq!(logits.shape(), [1, tiny::VOCAB]);
    Ok(())
}
