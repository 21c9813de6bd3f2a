//! Halves (f16), brain floats (bf16) and pairs of them.
//!
//! Each operation is computed in f64 rounded to odd, then rounded once to 16 bits: for bf16, whose exponents span more than f64's
//! significand, going through f64 to nearest would round twice.

use super::float::{Extremum, odd_fma};

/// A 16-bit format.
pub trait Half {
    /// Bits of the significand, the hidden one included.
    const PRECISION: u32;
    /// The least exponent of a normal number.
    const LEAST: i32;
    /// The bits of infinity.
    const INFINITY: u16;
    /// The value in f32, which holds it exactly.
    fn widen(bits: u16) -> f32;
}

/// Half precision: 5 bits of exponent, 11 of significand.
#[derive(Clone, Copy, Debug)]
pub struct F16;

/// Brain float: 8 bits of exponent, 8 of significand.
#[derive(Clone, Copy, Debug)]
pub struct Bf16;

impl Half for F16 {
    const PRECISION: u32 = 11;
    const LEAST: i32 = -14;
    const INFINITY: u16 = 0x7c00;

    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        let magnitude = u32::from(bits & 0x7fff) << 13;
        // 2^112 moves the exponent's bias from 15 to 127; it makes subnormals normal too.
        let scaled = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
        let value = if bits & 0x7fff >= Self::INFINITY {
            magnitude | 0x7f80_0000
        } else {
            scaled
        };
        f32::from_bits(value | u32::from(bits & 0x8000) << 16)
    }
}

impl Half for Bf16 {
    const PRECISION: u32 = 8;
    const LEAST: i32 = -126;
    const INFINITY: u16 = 0x7f80;

    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }
}

/// The canonical NaN of both formats.
pub const NAN: u16 = 0x7fff;

/// `x` rounded to nearest even. An `x` that was rounded to odd gives what the exact number would.
#[inline(always)]
pub fn narrow<H: Half>(x: f64) -> u16 {
    let bias = 1023;
    let most = 1 - H::LEAST;
    // Beyond the largest number everything is the same infinity.
    let clamped = x.clamp(
        -f64::from_bits(((most + 1 + bias) as u64) << 52),
        f64::from_bits(((most + 1 + bias) as u64) << 52),
    );
    let field = (clamped.to_bits() >> 52 & 0x7ff) as i64;
    let field = field.max((H::LEAST + bias) as i64);
    // Adding 1.5 · 2^52 units of the last place rounds at that place and leaves the count of units in the low bits.
    let magic = ((field + 53 - H::PRECISION as i64) as u64) << 52 | 1 << 51;
    let sum = clamped + f64::from_bits(magic);
    let units = (sum.to_bits() as i64)
        .wrapping_sub(magic as i64)
        .unsigned_abs();
    let exponent = (field - (H::LEAST + bias) as i64) as u64;
    let bits = (exponent << (H::PRECISION - 1)) + units;
    let bits = bits.min(H::INFINITY.into()) as u16;
    let sign = (x.to_bits() >> 48) as u16 & 0x8000;
    if x.is_nan() { NAN } else { sign | bits }
}

/// Modifiers of an arithmetic instruction on halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Subnormal inputs and outputs become zeros of their sign (f16 only).
    pub ftz: bool,
    /// The result is clamped to [0, 1], NaN to +0.
    pub sat: bool,
    /// A negative result becomes +0; NaN stays.
    pub relu: bool,
}

impl Mode {
    /// No modifier.
    pub const PLAIN: Self = Self {
        ftz: false,
        sat: false,
        relu: false,
    };

    #[inline(always)]
    fn input<H: Half>(self, bits: u16) -> f64 {
        H::widen(flush::<H>(bits, self.ftz)).into()
    }

    #[inline(always)]
    fn output<H: Half>(self, x: f64) -> u16 {
        let bits = flush::<H>(narrow::<H>(x), self.ftz);
        let one = narrow::<H>(1.0);
        match self {
            // As unsigned integers, bits above those of 1.0 are more than one, NaN or negative.
            Self { sat: true, .. } if bits > H::INFINITY => 0,
            Self { sat: true, .. } => bits.min(one),
            Self { relu: true, .. } => relu(bits),
            _ => bits,
        }
    }
}

/// A subnormal becomes a zero of its sign if `ftz`.
#[inline(always)]
pub fn flush<H: Half>(bits: u16, ftz: bool) -> u16 {
    if ftz && bits & H::INFINITY == 0 {
        bits & 0x8000
    } else {
        bits
    }
}

/// A negative number becomes +0; NaN is canonical.
#[inline(always)]
pub fn relu(bits: u16) -> u16 {
    if bits & 0x8000 != 0 { 0 } else { bits }
}

/// `add`.
#[inline(always)]
pub fn add<H: Half>(a: u16, b: u16, mode: Mode) -> u16 {
    mode.output::<H>(odd_fma(mode.input::<H>(a), 1.0, mode.input::<H>(b)))
}

/// `sub`.
#[inline(always)]
pub fn sub<H: Half>(a: u16, b: u16, mode: Mode) -> u16 {
    add::<H>(a, b ^ 0x8000, mode)
}

/// `mul`.
#[inline(always)]
pub fn mul<H: Half>(a: u16, b: u16, mode: Mode) -> u16 {
    mode.output::<H>(mode.input::<H>(a) * mode.input::<H>(b))
}

/// `fma`.
#[inline(always)]
pub fn fma<H: Half>(a: u16, b: u16, c: u16, mode: Mode) -> u16 {
    mode.output::<H>(odd_fma(
        mode.input::<H>(a),
        mode.input::<H>(b),
        mode.input::<H>(c),
    ))
}

/// `min` and `max`.
#[inline(always)]
pub fn extremum<H: Half>(a: u16, b: u16, how: Extremum, ftz: bool) -> u16 {
    let high = |x: u16| u32::from(x) << 16;
    let (a, b) = (flush::<H>(a, ftz), flush::<H>(b, ftz));
    (how.choose(high(a), high(b), high(H::INFINITY), high(NAN)) >> 16) as u16
}

/// `neg`.
#[inline(always)]
pub fn neg<H: Half>(a: u16, ftz: bool) -> u16 {
    flush::<H>(canonical::<H>(a ^ 0x8000), ftz)
}

/// `abs`.
#[inline(always)]
pub fn abs<H: Half>(a: u16, ftz: bool) -> u16 {
    flush::<H>(canonical::<H>(a & 0x7fff), ftz)
}

/// `bits`, [`NAN`] for every NaN.
#[inline(always)]
fn canonical<H: Half>(bits: u16) -> u16 {
    if bits & 0x7fff > H::INFINITY {
        NAN
    } else {
        bits
    }
}

/// Applies a function to both halves of packed registers.
#[inline(always)]
pub fn packed1(a: u32, f: impl Fn(u16) -> u16) -> u32 {
    pack(f(a as u16), f((a >> 16) as u16))
}

/// Applies a function to both halves of packed registers.
#[inline(always)]
pub fn packed2(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    pack(f(a as u16, b as u16), f((a >> 16) as u16, (b >> 16) as u16))
}

/// Applies a function to both halves of packed registers.
#[inline(always)]
pub fn packed3(a: u32, b: u32, c: u32, f: impl Fn(u16, u16, u16) -> u16) -> u32 {
    pack(
        f(a as u16, b as u16, c as u16),
        f((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16),
    )
}

/// Two halves in a register.
#[inline(always)]
pub const fn pack(low: u16, high: u16) -> u32 {
    low as u32 | (high as u32) << 16
}
