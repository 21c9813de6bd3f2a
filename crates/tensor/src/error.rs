//! The one error type of the crate.

use crate::{DType, Layout};

/// What a fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in which operation, what it wanted and what it got.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Operands whose shapes don't fit the operation or each other, or a shape with more elements than memory can hold.
    #[error("{op}: expected {expected}, found {found}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The shape that it wants, in words and numbers.
        expected: String,
        /// The shape or shapes that it got.
        found: String,
    },
    /// A tensor of a type that the operation doesn't take.
    #[error("{op}: expected dtype {expected}, found {found}")]
    DType {
        /// The operation.
        op: &'static str,
        /// The types that it takes.
        expected: String,
        /// The type that it got.
        found: DType,
    },
    /// A view where the operation wants elements that lie one behind the other.
    #[error("{op}: expected {expected}, found {found:?}")]
    Layout {
        /// The operation.
        op: &'static str,
        /// The layout that it wants, in words.
        expected: &'static str,
        /// The layout that it got.
        found: Layout,
    },
    /// A tensor on a device on which the operation does not exist, or operands on different devices.
    #[error("{op}: expected {expected}, found {found}")]
    Device {
        /// The operation.
        op: &'static str,
        /// The device that it wants, in words.
        expected: String,
        /// The device that it got.
        found: String,
    },
    /// Any other argument that the operation refuses.
    #[error("{op}: expected {argument} to be {expected}, found {found}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// What it has to be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A launch whose arguments are not those that the kernel declares.
    #[error("launch of {kernel}: expected {expected}, found {found}")]
    Launch {
        /// The kernel's entry.
        kernel: &'static str,
        /// The declared arguments, or grid and block in words.
        expected: String,
        /// What the launch was given.
        found: String,
    },
    /// A driver could not do what it was asked for.
    #[error("{driver}: {op} failed: {reason}")]
    Driver {
        /// The driver and device, as [`Info::name`](crate::device::Info::name) has it.
        driver: String,
        /// What was asked for: `alloc`, `upload`, `launch` …
        op: &'static str,
        /// The driver's own words.
        reason: String,
    },
    /// The allocator refused memory.
    #[error("{op}: expected memory for {bytes} bytes, the allocator has none")]
    Memory {
        /// The operation.
        op: &'static str,
        /// How much it asked for.
        bytes: usize,
    },
}

impl Error {
    pub(crate) fn shape(
        op: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Shape {
            op,
            expected: expected.into(),
            found: found.into(),
        }
    }

    pub(crate) fn dtype(op: &'static str, expected: impl Into<String>, found: DType) -> Self {
        Self::DType {
            op,
            expected: expected.into(),
            found,
        }
    }

    pub(crate) fn argument(
        op: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Argument {
            op,
            argument,
            expected: expected.into(),
            found: found.into(),
        }
    }
}
