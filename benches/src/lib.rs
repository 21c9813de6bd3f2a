//! What `cargo xtask bench` runs: one module a system, and what they share.

pub mod kivi;
pub mod machine;
pub mod passkey;
pub mod peers;
pub mod quality;
pub mod report;
pub mod work;
