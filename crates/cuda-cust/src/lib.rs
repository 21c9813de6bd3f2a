//! The driver of whittle's PTX kernels over a context of the `cust` crate.
//!
#![doc = include_str!("../README.md")]
// The crate is the border to a C library; each block carries its proof.
#![allow(unsafe_code)]

#[cfg(feature = "cust")]
mod context;
#[cfg(feature = "cust")]
mod memory;

#[cfg(feature = "cust")]
pub use context::from_cust;
#[cfg(feature = "cust")]
pub use cust;
#[cfg(feature = "cust")]
pub use memory::{View, adopt, view};
