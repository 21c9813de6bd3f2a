//! What comes from Hugging Face: folders of weights, and adapters.

mod adapter;
mod folder;
mod model;
