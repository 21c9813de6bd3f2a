//! What comes from Hugging Face: folders of weights, tokenizers, and adapters.

mod adapter;
mod folder;
mod model;
mod tokenizer;

/// Held by a test that has more than one copy of a whole model in f32: two of those at a time would take 4 GB.
static WHOLE_MODELS: std::sync::Mutex<()> = std::sync::Mutex::new(());
