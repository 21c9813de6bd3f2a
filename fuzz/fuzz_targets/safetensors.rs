//! Any bytes as a safetensors file: the header, every tensor's bytes, and of small tensors the weights. Nothing may panic, overlap or
//! lie outside the file.
//!
//! `cargo +nightly fuzz run safetensors -- -max_total_time=600 -max_len=4096 -rss_limit_mb=2048 -malloc_limit_mb=64 -dict=fuzz/safetensors.dict`
#![no_main]

use libfuzzer_sys::fuzz_target;
use whittle_llama::safetensors::Safetensors;

fuzz_target!(|bytes: &[u8]| {
    check(bytes.to_vec());
    // The same bytes as a header of their own, or most inputs would end at its length.
    let mut framed = (bytes.len() as u64).to_le_bytes().to_vec();
    framed.extend(bytes);
    framed.extend([0; 64]);
    check(framed);
});

fn check(bytes: Vec<u8>) {
    let len = bytes.len();
    let Ok(file) = Safetensors::from_bytes("fuzz", bytes) else {
        return;
    };
    let mut end = None;
    for entry in file.tensors() {
        // One after the other, from the end of the header to the end of the file.
        assert!(end.is_none_or(|end| end == entry.range.start));
        end = Some(entry.range.end);
        let elements: usize = entry.shape.iter().product();
        assert_eq!(elements * entry.dtype.bytes(), entry.range.len());
        let bytes = file.bytes(&entry.name).expect("a listed tensor is found");
        assert_eq!(bytes.len(), entry.range.len());
        if let Ok(view) = file.tensor(&entry.name) {
            let weights = view.dequantize().expect("a view has whole numbers");
            assert_eq!(weights.len(), elements);
            let finite = view.check_finite().is_ok();
            assert_eq!(finite, weights.iter().all(|weight| weight.is_finite()));
        }
    }
    assert!(end.is_none_or(|end| end == len));
}
