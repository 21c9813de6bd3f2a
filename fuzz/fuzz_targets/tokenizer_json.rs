//! Any text as a `tokenizer.json`. What is accepted turns texts into ids and back. Nothing may panic.
//!
//! `cargo +nightly fuzz run tokenizer_json -- -max_total_time=600 -max_len=4096 -rss_limit_mb=2048 -malloc_limit_mb=64 -dict=fuzz/tokenizer_json.dict`
#![no_main]

use libfuzzer_sys::fuzz_target;
use whittle_llama::Tokenizer;

fuzz_target!(|text: &str| {
    let Ok(tokenizer) = Tokenizer::from_json("fuzz", text) else {
        return;
    };
    assert!(tokenizer.vocab_size() <= text.len());
    for text in [
        "",
        "the end, in 1872\n",
        "<|im_start|> \u{feff}\u{1f600}",
        "aab ba",
    ] {
        for ids in [tokenizer.encode(text), tokenizer.encode_special(text)]
            .into_iter()
            .flatten()
        {
            tokenizer
                .decode(&ids)
                .expect("the ids are the tokenizer's own");
        }
    }
});
