//! What can go wrong, from the text to the launch.

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of reading and running PTX.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not PTX that an assembler accepts.
    #[error("line {line}, column {column}: expected {expected}, found {found}")]
    Parse {
        /// Line, from 1.
        line: u32,
        /// Column, from 1, in characters.
        column: u32,
        /// What could stand here.
        expected: String,
        /// What stands here.
        found: String,
    },
    /// An instruction, modifier or directive that this machine does not know. An assembler may.
    #[error("line {line}: unsupported {what}")]
    Unsupported {
        /// Line, from 1.
        line: u32,
        /// The instruction with its modifiers, or the directive.
        what: String,
    },
    /// A file or launch beyond a limit.
    #[error("{what}: the limit is {limit}, found {found}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The most that is allowed.
        limit: u64,
        /// What was asked for.
        found: u64,
    },
    /// A kernel that is not in the module, or whose parameters are not the declared ones.
    #[error("kernel {kernel}: expected {expected}, found {found}")]
    Signature {
        /// The kernel's name.
        kernel: String,
        /// The declaration.
        expected: String,
        /// What the module holds.
        found: String,
    },
    /// What a kernel did wrong.
    #[error(transparent)]
    Fault(Box<crate::fault::Fault>),
}
