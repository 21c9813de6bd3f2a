//! What comes from Hugging Face: folders of weights.

mod folder;
mod model;
