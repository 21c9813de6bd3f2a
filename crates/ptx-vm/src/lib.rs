//! A virtual machine that runs PTX kernels on the CPU and finds their faults.
//!
#![doc = include_str!("../README.md")]

mod access;
mod alu;
mod ast;
mod block;
pub mod counters;
mod decode;
pub mod driver;
pub mod error;
pub mod fault;
mod launch;
pub mod layout;
mod lexer;
pub mod limits;
mod memory;
pub mod module;
pub mod num;
pub mod op;
mod order;
mod parse;
mod program;
mod registers;
mod shadow;
mod warp;

pub use counters::{Class, Counts, Report};
pub use driver::{Size, Vm, open};
pub use error::{Error, Result};
pub use fault::{Fault, FaultKind};
pub use limits::{Limits, Schedule};
pub use module::{Entry, Module};
pub use num::approx::Approx;
