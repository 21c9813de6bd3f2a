//! What `whittle-gpu` checks and measures on a machine with a GPU. Each part runs on any driver, so that the virtual machine can
//! stand in where there is none; its times are then the host's and say nothing about a GPU.

pub mod agreement;
pub mod approx;
pub mod bandwidth;
pub mod form;
pub mod library;
pub mod machine;
pub mod report;
pub mod resources;
pub mod sanitizer;
