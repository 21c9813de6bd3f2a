#![doc = include_str!("../README.md")]
//!
//! Autograd will be `tensor::tape`: a module of its own on top of these operations.

#[cfg(feature = "ndarray")]
mod array;
pub mod attention;
mod cat;
mod csr;
pub mod device;
mod dtype;
mod elementwise;
mod erf;
mod error;
mod gather;
mod gemm;
pub mod gpu;
pub mod kernel;
mod layout;
mod matmul;
mod norm;
pub mod par;
pub mod product;
pub mod random;
mod real;
mod reduce;
mod rope;
mod simd;
mod softmax;
mod sort;
mod storage;
mod tensor;
mod view;
mod walk;

pub use csr::Csr;
pub use device::{Device, DevicePtr, Driver};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use layout::Layout;
pub use rope::Pairing;
pub use sort::Order;
pub use tensor::Tensor;
