//! The number formats of tensors.

use std::fmt;

/// How a tensor's weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "these are the format's own names")]
pub enum GgmlType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an IEEE single precision number.
    BF16,
    /// 32 weights `scale · (q − 8)` with 4-bit `q` and an f16 scale: 18 bytes.
    Q4_0,
    /// 32 weights `scale · q + minimum` with 4-bit `q`, f16 scale and f16 minimum: 20 bytes.
    Q4_1,
    /// 32 weights `scale · q` with 8-bit signed `q` and an f16 scale: 34 bytes.
    Q8_0,
    /// 256 weights `scale · s · q − minimum · m` with 4-bit `q`, f16 scale and f16 minimum, and for each 32 weights a 6-bit `s` and a
    /// 6-bit `m`: 144 bytes.
    Q4_K,
    /// As [`Q4_K`](Self::Q4_K) with 5-bit `q`: 176 bytes.
    Q5_K,
    /// 256 weights `scale · s · (q − 32)` with 6-bit `q`, an f16 scale, and for each 16 weights an 8-bit signed `s`: 210 bytes.
    Q6_K,
}

impl GgmlType {
    /// All formats that this crate reads.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// The formats that [`quantize`](crate::block::quantize) makes from weights. The others are read, and written as blocks that
    /// some other program made.
    pub const QUANTIZES: [Self; 6] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q8_0,
    ];

    /// Weights in one block; a row is a whole number of blocks.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// The number that stands for the format in a file.
    pub const fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 8,
            Self::Q4_K => 12,
            Self::Q5_K => 13,
            Self::Q6_K => 14,
            Self::BF16 => 30,
        }
    }

    /// The format of a number in a file, or `None` for one that this crate does not read.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// Name and number of any format, also those that this crate does not read, for error messages.
    pub(super) fn describe(id: u32) -> String {
        const NAMES: [&str; 31] = [
            "F32", "F16", "Q4_0", "Q4_1", "", "", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K",
            "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL",
            "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16",
        ];
        match NAMES.get(id as usize) {
            Some(name) if !name.is_empty() => format!("{name} ({id})"),
            _ => format!("unknown type {id}"),
        }
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
