//! What comes from Hugging Face: folders of weights, tokenizers, and adapters.

mod adapter;
mod folder;
mod model;
mod tokenizer;
