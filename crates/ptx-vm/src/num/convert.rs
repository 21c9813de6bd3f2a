//! Conversions: `cvt` between all scalar types, into packed pairs, and `cvt.pack`.

use super::exact::{self, Format};
use super::float::{self, Mode};
use super::half::{self, Bf16, F16, Half};
use super::integer::Int;
use crate::op::{Rounding, Type};

/// Modifiers of `cvt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Direction, of the last place or, for conversions to integers and with `integral`, of the integer.
    pub rounding: Rounding,
    /// `.rni` and its like between floating-point types: the result is an integer.
    pub integral: bool,
    /// f32 subnormals, read or written, become zeros of their sign.
    pub ftz: bool,
    /// Integers are clamped to the type, floating-point numbers to [0, 1].
    pub sat: bool,
    /// A negative result becomes +0.
    pub relu: bool,
}

/// `cvt`: the low bits of a register of type `from` as `to`. An integer result is extended to 64 bits by zeros or, for a signed
/// type, by its sign, of which a register keeps what fits.
#[inline(always)]
pub fn cvt(bits: u64, from: Type, to: Type, how: How) -> u64 {
    match (integer(bits, from), to.is_integer()) {
        (Some(value), true) => int_to_int(value, to, how.sat),
        (Some(value), false) => int_to_float(value, to, how),
        (None, true) => float_to_int(float(bits, from, how.ftz), from, to, how.rounding),
        (None, false) => {
            let x = float(bits, from, how.ftz);
            match how.integral {
                true => float_to_float(integral(x, how.rounding), to, how),
                false => float_to_float(x, to, how),
            }
        }
    }
}

/// The value of an integer register; none if the type is floating-point.
#[inline(always)]
fn integer(bits: u64, of: Type) -> Option<i128> {
    Some(match of {
        Type::U8 => u8::from_bits(bits).value(),
        Type::S8 => i8::from_bits(bits).value(),
        Type::U16 => u16::from_bits(bits).value(),
        Type::S16 => i16::from_bits(bits).value(),
        Type::U32 => u32::from_bits(bits).value(),
        Type::S32 => i32::from_bits(bits).value(),
        Type::U64 => bits.value(),
        Type::S64 => i64::from_bits(bits).value(),
        _ => return None,
    })
}

/// The value of a floating-point register.
#[inline(always)]
fn float(bits: u64, of: Type, ftz: bool) -> f64 {
    match of {
        Type::F16 => F16::widen(bits as u16).into(),
        Type::Bf16 => Bf16::widen(bits as u16).into(),
        Type::F64 => f64::from_bits(bits),
        _ => f32::from_bits(float::flush(bits as u32, ftz)).into(),
    }
}

/// The integer next to `x` in a direction.
#[inline(always)]
fn integral(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Rn => x.round_ties_even(),
        Rounding::Rna => x.round(),
        Rounding::Rz => x.trunc(),
        Rounding::Rm => x.floor(),
        Rounding::Rp => x.ceil(),
    }
}

#[inline(always)]
fn int_to_int(value: i128, to: Type, sat: bool) -> u64 {
    macro_rules! to {
        ($t:ty) => {
            (if sat {
                <$t>::saturate(value)
            } else {
                <$t>::wrap(value)
            }) as i64 as u64
        };
    }
    match to {
        Type::U8 => to!(u8),
        Type::S8 => to!(i8),
        Type::U16 => to!(u16),
        Type::S16 => to!(i16),
        Type::U32 => to!(u32),
        Type::S32 => to!(i32),
        Type::S64 => to!(i64),
        _ => to!(u64),
    }
}

#[inline(always)]
fn float_to_int(x: f64, from: Type, to: Type, rounding: Rounding) -> u64 {
    let wide = matches!(to, Type::U64 | Type::S64);
    if x.is_nan() {
        // Zero, or the bit of the sign where the source is f64 or the destination has 64 bits.
        let width = match to {
            Type::U8 | Type::S8 => 8,
            Type::U16 | Type::S16 => 16,
            Type::U32 | Type::S32 => 32,
            _ => 64,
        };
        let sign = if wide || from == Type::F64 {
            1 << (width - 1)
        } else {
            0
        };
        return int_to_int(sign, to, false);
    }
    let x = integral(x, rounding);
    // `as` saturates.
    match to {
        Type::U64 => x as u64,
        _ => int_to_int((x as i64).into(), to, true),
    }
}

#[inline(always)]
fn int_to_float(value: i128, to: Type, how: How) -> u64 {
    if how.sat {
        return float_to_float(value.clamp(0, 1) as f64, to, how);
    }
    match (to, how.rounding) {
        // The primitive conversions round to nearest even, once.
        (Type::F32, Rounding::Rn) => match i64::try_from(value) {
            Ok(value) => (value as f32).to_bits().into(),
            Err(_) => (value as u64 as f32).to_bits().into(),
        },
        (Type::F64, Rounding::Rn) => (value as f64).to_bits(),
        _ => format(to).round(value < 0, value.unsigned_abs(), 0, how.rounding),
    }
}

const fn format(of: Type) -> Format {
    match of {
        Type::F16 => Format::F16,
        Type::Bf16 => Format::BF16,
        Type::Tf32 => Format::TF32,
        Type::F64 => Format::F64,
        _ => Format::F32,
    }
}

#[inline(always)]
fn float_to_float(x: f64, to: Type, how: How) -> u64 {
    let x = match () {
        () if how.sat && x > 0.0 => x.min(1.0),
        () if how.sat || how.relu && x <= 0.0 => 0.0,
        () => x,
    };
    match (to, how.rounding) {
        (Type::F64, _) => x.to_bits(),
        (Type::F16, Rounding::Rn) => half::narrow::<F16>(x).into(),
        (Type::Bf16, Rounding::Rn) => half::narrow::<Bf16>(x).into(),
        (Type::F32, Rounding::Rn) => {
            let mode = Mode {
                ftz: how.ftz,
                ..Mode::RN
            };
            mode.output(x as f32).into()
        }
        (Type::F32, _) => {
            let bits = exact::convert(x, Format::F32, how.rounding);
            float::flush(bits as u32, how.ftz).into()
        }
        (Type::Tf32, _) if x.is_nan() => float::NAN.into(),
        (Type::Tf32, _) => exact::convert(x, Format::TF32, how.rounding) << 13,
        _ => exact::convert(x, format(to), how.rounding),
    }
}

/// `cvt.rnd.f16x2.f32 d, a, b` and `cvt.rnd.bf16x2.f32 d, a, b`: `a` goes into the upper half. `to` is the type of a half.
#[inline(always)]
pub fn cvt_pair(a: u32, b: u32, to: Type, how: How) -> u32 {
    let half = |x: u32| cvt(x.into(), Type::F32, to, how) as u16;
    half::pack(half(b), half(a))
}

/// An 8-bit floating-point format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Byte {
    /// 4 bits of exponent, 3 of fraction, no infinity.
    E4m3,
    /// 5 bits of exponent, 2 of fraction.
    E5m2,
}

impl Byte {
    const fn format(self) -> Format {
        match self {
            Self::E4m3 => Format::E4M3,
            Self::E5m2 => Format::E5M2,
        }
    }

    /// `x` rounded to nearest even, beyond the largest number clamped to it; NaN is 0x7f.
    fn narrow(self, x: f64, relu: bool) -> u32 {
        let format = self.format();
        let x = if relu && x <= 0.0 { 0.0 } else { x };
        if x.is_nan() {
            return format.nan as u32;
        }
        let bits = exact::convert(x, format, Rounding::Rn);
        (bits & 0x80 | (bits & 0x7f).min(format.max)) as u32
    }

    /// The value as an f16, which holds it exactly.
    fn widen(self, bits: u8) -> u16 {
        let format = self.format();
        let magnitude = u16::from(bits & 0x7f);
        match self {
            Self::E5m2 if u64::from(magnitude) > format.max + 1 => half::NAN,
            Self::E5m2 => u16::from(bits) << 8,
            Self::E4m3 if magnitude == 0x7f => half::NAN,
            Self::E4m3 => {
                // The same fraction one place lower, and 2^8 for the difference of the biases.
                let scaled = F16::widen(magnitude << 7) * 256.0;
                half::narrow::<F16>(scaled.into()) | u16::from(bits & 0x80) << 8
            }
        }
    }
}

/// `cvt.rn.satfinite.e4m3x2.f32 d, a, b` and its like: `a` goes into the upper byte.
pub fn cvt_bytes(a: u32, b: u32, to: Byte, relu: bool) -> u16 {
    let of = |x: u32| to.narrow(f32::from_bits(x).into(), relu);
    (of(a) << 8 | of(b)) as u16
}

/// `cvt.rn.satfinite.e4m3x2.f16x2` and its like.
pub fn cvt_halves_to_bytes(a: u32, to: Byte, relu: bool) -> u16 {
    let of = |x: u32| to.narrow(F16::widen(x as u16).into(), relu);
    (of(a >> 16) << 8 | of(a)) as u16
}

/// `cvt.rn.f16x2.e4m3x2` and its like.
pub fn cvt_bytes_to_halves(a: u16, from: Byte, relu: bool) -> u32 {
    let of = |x: u8| {
        let half = from.widen(x);
        if relu { half::relu(half) } else { half }
    };
    half::pack(of(a as u8), of((a >> 8) as u8))
}

/// `cvt.pack.sat.{u16,s16}.s32 d, a, b`: both clamped, `a` in the upper half.
pub fn cvt_pack_16(a: i32, b: i32, signed: bool) -> u32 {
    let to = if signed { Type::S16 } else { Type::U16 };
    let of = |x: i32| int_to_int(x.into(), to, true) as u16;
    half::pack(of(b), of(a))
}

/// `cvt.pack.sat.{u8,s8}.s32.b32 d, a, b, c`: `c` moved up by two bytes, below it `a` and `b` clamped.
pub fn cvt_pack_8(a: i32, b: i32, c: u32, signed: bool) -> u32 {
    let to = if signed { Type::S8 } else { Type::U8 };
    let of = |x: i32| int_to_int(x.into(), to, true) as u32 & 0xff;
    c << 16 | of(a) << 8 | of(b)
}
