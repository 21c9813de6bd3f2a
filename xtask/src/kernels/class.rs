//! Header classes: what a kernel may ask of its device, and the targets it is assembled for.

use serde::Deserialize;

/// A row of the table of headers. Drivers of the R535 branch load `.version` up to 8.2, so no class goes beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Every device since Volta.
    Plain,
    /// `mma`, `ldmatrix`, `cp.async`, bf16: every device since Ampere.
    Tensor,
    /// Only compute capability 9.0, beside a portable twin.
    Hopper,
}

impl Class {
    /// The `.version` lines that the class allows.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["7.0"],
            Self::Tensor => &["7.0", "7.1"],
            Self::Hopper => &["8.0", "8.1", "8.2"],
        }
    }

    /// The `.target` lines that the class allows.
    pub fn targets(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["sm_70"],
            Self::Tensor => &["sm_80"],
            Self::Hopper => &["sm_90", "sm_90a"],
        }
    }

    /// The architectures that a text of the class with this `.target` is assembled for. Each assembler takes those it knows.
    pub fn architectures(self, target: &str) -> &'static [&'static str] {
        match self {
            Self::Plain => &["70", "75", "80", "86", "89", "90", "100", "120"],
            Self::Tensor => &["80", "86", "89", "90", "100", "120"],
            Self::Hopper if target == "sm_90a" => &["90a"],
            Self::Hopper => &["90", "90a"],
        }
    }

    /// The architecture whose figures stand for the class in tables and whose machine code is counted.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Plain | Self::Tensor => "80",
            Self::Hopper => "90a",
        }
    }
}
