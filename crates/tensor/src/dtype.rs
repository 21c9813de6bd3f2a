//! Element types.

use crate::storage::Host;
use half::{bf16, f16};
use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 double precision; CPU only (oracles, gradient checks, solvers).
    F64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision; arithmetic is done in f32.
    F16,
    /// The upper half of an f32; arithmetic is done in f32.
    BF16,
    /// Unsigned 32-bit integer: indices and tokens.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// Byte: packed codes.
    U8,
    /// Signed byte.
    I8,
}

impl DType {
    /// Bytes of one element.
    pub const fn size_in_bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 | Self::U32 | Self::I32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 | Self::I8 => 1,
        }
    }

    /// The type's name as in Rust, `"f32"` for example.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::U8 => "u8",
            Self::I8 => "i8",
        }
    }

    /// Whether arithmetic operations take the type.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that can be a tensor's element. The eight types of [`DType`] implement it; it is sealed.
pub trait Element:
    bytemuck::Pod + PartialOrd + fmt::Debug + fmt::Display + Send + Sync + sealed::Stored
{
    /// The type as a value.
    const DTYPE: DType;

    /// The value in double precision, exact for every element type. (The halves' own `to_f64` would hide a method of that name.)
    fn to_double(self) -> f64;

    /// The nearest value of this type, ties to even. Integers cut the fraction off and saturate; NaN becomes 0 there.
    fn from_double(value: f64) -> Self;
}

/// How an element type gets into and out of a [`Host`] buffer.
pub(crate) mod sealed {
    use super::Host;

    pub trait Stored: Sized {
        fn into_host(values: Vec<Self>) -> Host;
        fn slice(host: &Host) -> Option<&[Self]>;
        fn into_vec(host: Host) -> Result<Vec<Self>, Host>;
    }
}

macro_rules! element {
    ($($type:ty, $variant:ident, $value:ident => $to:expr, $from:expr;)*) => {$(
        impl sealed::Stored for $type {
            fn into_host(values: Vec<Self>) -> Host {
                Host::$variant(values)
            }

            fn slice(host: &Host) -> Option<&[Self]> {
                match host {
                    Host::$variant(values) => Some(values),
                    _ => None,
                }
            }

            fn into_vec(host: Host) -> Result<Vec<Self>, Host> {
                match host {
                    Host::$variant(values) => Ok(values),
                    other => Err(other),
                }
            }
        }

        impl Element for $type {
            const DTYPE: DType = DType::$variant;

            #[inline]
            fn to_double(self) -> f64 {
                let $value = self;
                $to
            }

            #[inline]
            fn from_double($value: f64) -> Self {
                $from
            }
        }
    )*};
}

element! {
    f64, F64, x => x, x;
    f32, F32, x => f64::from(x), x as f32;
    f16, F16, x => f64::from(x), f16::from_f32(f32_to_odd(x));
    bf16, BF16, x => f64::from(x), bf16::from_f32(f32_to_odd(x));
    u32, U32, x => f64::from(x), x as u32;
    i32, I32, x => f64::from(x), x as i32;
    u8, U8, x => f64::from(x), x as u8;
    i8, I8, x => f64::from(x), x as i8;
}

/// Rounds towards zero, and to the odd one of two neighbours: a later rounding to a type with at least two bits less gives what
/// rounding the f64 itself would (Boldo and Melquiond, 2008). `half` drops the lower 32 bits of an f64, which is not to nearest.
fn f32_to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    let towards_zero = nearest.to_bits() - u32::from(f64::from(nearest).abs() > x.abs());
    f32::from_bits(towards_zero | u32::from(f64::from(nearest) != x))
}

/// Runs a block with a type alias for the Rust type of a [`DType`].
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            $crate::DType::U32 => {
                type $T = u32;
                $body
            }
            $crate::DType::I32 => {
                type $T = i32;
                $body
            }
            $crate::DType::U8 => {
                type $T = u8;
                $body
            }
            $crate::DType::I8 => {
                type $T = i8;
                $body
            }
        }
    };
}
pub(crate) use with_element;
