//! Writes the tiny model of seed 0: `cargo run --example tiny_gguf -- tiny.gguf [mixed]`.
//!
//! With `mixed` the tensors are Q8_0, Q4_1, F16 and F32 instead of F32 alone.

use std::process::ExitCode;
use whittle_llama::tiny::{self, Kinds};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (path, kinds) = match arguments[..] {
        [path] => (path, Kinds::F32),
        [path, "mixed"] => (path, Kinds::Mixed),
        _ => {
            eprintln!("usage: tiny_gguf <out.gguf> [mixed]");
            return ExitCode::from(2);
        }
    };
    match tiny::writer(0, kinds).write(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
