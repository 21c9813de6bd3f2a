//! f32 and f64 arithmetic: every direction of rounding, flushing, saturation, canonical NaN, comparison.

use super::exact::{self, Format};
use super::{Lanes, WideLanes, map2, map3};
use crate::op::{Compare, Rounding};

/// The canonical NaN of f32.
pub const NAN: u32 = 0x7fff_ffff;

/// Modifiers of an arithmetic instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Direction of rounding.
    pub rounding: Rounding,
    /// Subnormal inputs and outputs become zeros of their sign.
    pub ftz: bool,
    /// The result is clamped to [0, 1], NaN to +0.
    pub sat: bool,
}

impl Mode {
    /// `.rn` and nothing else.
    pub const RN: Self = Self {
        rounding: Rounding::Rn,
        ftz: false,
        sat: false,
    };

    /// The f32 in a register, flushed where asked.
    #[inline(always)]
    pub fn input(self, bits: u32) -> f32 {
        f32::from_bits(flush(bits, self.ftz))
    }

    /// The register of a result: canonical NaN, flushed and clamped where asked.
    #[inline(always)]
    pub fn output(self, x: f32) -> u32 {
        let bits = flush(canonical(x), self.ftz);
        if self.sat {
            saturate(f32::from_bits(bits)).to_bits()
        } else {
            bits
        }
    }

    /// A result rounded by [`exact`].
    #[inline(never)]
    fn directed(self, f: fn(f64, f64, Format, Rounding) -> u64, a: f32, b: f32) -> u32 {
        let bits = f(a.into(), b.into(), Format::F32, self.rounding);
        self.output(f32::from_bits(bits as u32))
    }
}

/// A subnormal becomes a zero of its sign if `ftz`.
#[inline(always)]
pub fn flush(bits: u32, ftz: bool) -> u32 {
    if ftz && bits & 0x7f80_0000 == 0 {
        bits & 0x8000_0000
    } else {
        bits
    }
}

/// The bits of `x`, [`NAN`] for every NaN.
#[inline(always)]
pub fn canonical(x: f32) -> u32 {
    if x.is_nan() { NAN } else { x.to_bits() }
}

/// `x` clamped to [0, 1]; NaN and −0 give +0.
#[inline(always)]
pub fn saturate(x: f32) -> f32 {
    if x > 0.0 {
        if x < 1.0 { x } else { 1.0 }
    } else {
        0.0
    }
}

/// `add.f32`.
#[inline(always)]
pub fn add(a: u32, b: u32, mode: Mode) -> u32 {
    let (a, b) = (mode.input(a), mode.input(b));
    match mode.rounding {
        Rounding::Rn => mode.output(a + b),
        _ => mode.directed(exact::add, a, b),
    }
}

/// `sub.f32`.
#[inline(always)]
pub fn sub(a: u32, b: u32, mode: Mode) -> u32 {
    let (a, b) = (mode.input(a), mode.input(b));
    match mode.rounding {
        Rounding::Rn => mode.output(a - b),
        _ => mode.directed(exact::sub, a, b),
    }
}

/// `mul.f32`.
#[inline(always)]
pub fn mul(a: u32, b: u32, mode: Mode) -> u32 {
    let (a, b) = (mode.input(a), mode.input(b));
    match mode.rounding {
        Rounding::Rn => mode.output(a * b),
        _ => mode.directed(exact::mul, a, b),
    }
}

/// `div.rnd.f32`.
#[inline(always)]
pub fn div(a: u32, b: u32, mode: Mode) -> u32 {
    let (a, b) = (mode.input(a), mode.input(b));
    match mode.rounding {
        Rounding::Rn => mode.output(a / b),
        _ => mode.directed(exact::div, a, b),
    }
}

/// `rcp.rnd.f32`.
#[inline(always)]
pub fn rcp(a: u32, mode: Mode) -> u32 {
    div(1f32.to_bits(), a, mode)
}

/// `sqrt.rnd.f32`.
#[inline(always)]
pub fn sqrt(a: u32, mode: Mode) -> u32 {
    let a = mode.input(a);
    match mode.rounding {
        Rounding::Rn => mode.output(a.sqrt()),
        _ => mode.directed(
            |a, _, format, rounding| exact::sqrt(a, format, rounding),
            a,
            a,
        ),
    }
}

/// `fma.f32` (and `mad.f32`) without hardware: rounded once.
#[inline(always)]
pub fn fma(a: u32, b: u32, c: u32, mode: Mode) -> u32 {
    let (a, b, c) = (mode.input(a), mode.input(b), mode.input(c));
    match mode.rounding {
        Rounding::Rn => mode.output(odd_fma(a.into(), b.into(), c.into()) as f32),
        _ => {
            let bits = exact::fma(a.into(), b.into(), c.into(), Format::F32, mode.rounding);
            mode.output(f32::from_bits(bits as u32))
        }
    }
}

/// `a · b + c` as an f64 with the last bit set where it is inexact (rounded to odd), which any narrower format can then be
/// rounded from once. The product must be exact in f64: operands have 26 bits or fewer.
#[inline(always)]
pub(super) fn odd_fma(a: f64, b: f64, c: f64) -> f64 {
    let p = a * b;
    let s = p + c;
    let from_c = s - p;
    let e = (p - (s - from_c)) + (c - from_c);
    let bits = s.to_bits();
    // An even last bit moves one place towards the error; an infinity has none, its error is NaN.
    let outward = (e.to_bits() ^ bits) >> 63 == 0;
    let odd = if outward {
        bits.wrapping_add(1)
    } else {
        bits.wrapping_sub(1)
    };
    let inexact = e.abs() > 0.0 && bits & 1 == 0;
    f64::from_bits(if inexact { odd } else { bits })
}

/// Applies a two-operand function of this module to a warp; the loop for `.rn` has no calls and vectorises.
#[inline(always)]
pub fn lanes2(a: &Lanes, b: &Lanes, mode: Mode, f: impl Fn(u32, u32, Mode) -> u32) -> Lanes {
    let rn = Mode {
        rounding: Rounding::Rn,
        ..mode
    };
    match mode.rounding {
        Rounding::Rn if mode.ftz => map2(a, b, |a, b| f(a, b, Mode { ftz: true, ..rn })),
        Rounding::Rn => map2(a, b, |a, b| f(a, b, Mode { ftz: false, ..rn })),
        _ => map2(a, b, |a, b| f(a, b, mode)),
    }
}

/// `fma.f32` on a warp, by hardware where the processor has it. Both ways give the same bits.
pub fn fma_lanes(a: &Lanes, b: &Lanes, c: &Lanes, mode: Mode) -> Lanes {
    if mode.rounding != Rounding::Rn {
        return map3(a, b, c, |a, b, c| fma(a, b, c, mode));
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code)]
        // SAFETY: the processor has FMA and AVX2.
        return unsafe { fma_hardware(a, b, c, mode) };
    }
    if cfg!(target_arch = "aarch64") {
        return fma_native(a, b, c, mode);
    }
    fma_portable(a, b, c, mode)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "fma,avx2")]
fn fma_hardware(a: &Lanes, b: &Lanes, c: &Lanes, mode: Mode) -> Lanes {
    fma_native(a, b, c, mode)
}

#[inline(always)]
fn fma_native(a: &Lanes, b: &Lanes, c: &Lanes, mode: Mode) -> Lanes {
    let plain =
        |a, b, c| canonical(f32::from_bits(a).mul_add(f32::from_bits(b), f32::from_bits(c)));
    match mode {
        // The common case, without the tests for modifiers.
        Mode {
            ftz: false,
            sat: false,
            ..
        } => map3(a, b, c, plain),
        _ => map3(a, b, c, |a, b, c| {
            mode.output(mode.input(a).mul_add(mode.input(b), mode.input(c)))
        }),
    }
}

/// `fma.rn.f32` on a warp by two-sums: what a processor without FMA runs.
pub fn fma_portable(a: &Lanes, b: &Lanes, c: &Lanes, mode: Mode) -> Lanes {
    map3(a, b, c, |a, b, c| fma(a, b, c, mode))
}

/// `add.f64`.
#[inline(always)]
pub fn add_f64(a: u64, b: u64, rounding: Rounding) -> u64 {
    wide(a, b, rounding, |a, b| a + b, exact::add)
}

/// `sub.f64`.
#[inline(always)]
pub fn sub_f64(a: u64, b: u64, rounding: Rounding) -> u64 {
    wide(a, b, rounding, |a, b| a - b, exact::sub)
}

/// `mul.f64`.
#[inline(always)]
pub fn mul_f64(a: u64, b: u64, rounding: Rounding) -> u64 {
    wide(a, b, rounding, |a, b| a * b, exact::mul)
}

/// `div.rnd.f64`.
#[inline(always)]
pub fn div_f64(a: u64, b: u64, rounding: Rounding) -> u64 {
    wide(a, b, rounding, |a, b| a / b, exact::div)
}

/// `rcp.rnd.f64`.
#[inline(always)]
pub fn rcp_f64(a: u64, rounding: Rounding) -> u64 {
    div_f64(1f64.to_bits(), a, rounding)
}

/// `sqrt.rnd.f64`.
#[inline(always)]
pub fn sqrt_f64(a: u64, rounding: Rounding) -> u64 {
    wide(
        a,
        a,
        rounding,
        |a, _| a.sqrt(),
        |a, _, format, rounding| exact::sqrt(a, format, rounding),
    )
}

#[inline(always)]
fn wide(
    a: u64,
    b: u64,
    rounding: Rounding,
    nearest: impl Fn(f64, f64) -> f64,
    directed: fn(f64, f64, Format, Rounding) -> u64,
) -> u64 {
    let (a, b) = (f64::from_bits(a), f64::from_bits(b));
    match rounding {
        Rounding::Rn => nearest(a, b).to_bits(),
        _ => directed(a, b, Format::F64, rounding),
    }
}

/// `fma.f64` on a warp.
pub fn fma_f64_lanes(a: &WideLanes, b: &WideLanes, c: &WideLanes, rounding: Rounding) -> WideLanes {
    let of = f64::from_bits;
    map3(a, b, c, |a, b, c| match rounding {
        Rounding::Rn => of(a).mul_add(of(b), of(c)).to_bits(),
        _ => exact::fma(of(a), of(b), of(c), Format::F64, rounding),
    })
}

/// Which of two numbers `min` and `max` choose, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extremum {
    /// `max`, not `min`.
    pub max: bool,
    /// `.NaN`: one NaN makes the result NaN; otherwise the other operand is the result.
    pub nan: bool,
    /// `.xorsign.abs`: magnitudes are compared, the signs are multiplied.
    pub xorsign_abs: bool,
}

macro_rules! choose {
    ($name:ident, $t:ident, $signed:ident) => {
        /// Chooses among sign-and-magnitude numbers, of which those above `infinity` are NaN. +0 is above −0.
        #[inline(always)]
        pub(super) fn $name(self, a: $t, b: $t, infinity: $t, nan: $t) -> $t {
            let most = $t::MAX >> 1;
            let (nan_a, nan_b) = (a & most > infinity, b & most > infinity);
            let (x, y) = match self.xorsign_abs {
                true => (a & most, b & most),
                false => (a, b),
            };
            // Two's complement of the same order.
            let key = |x: $t| (x ^ (x as $signed >> ($t::BITS - 1)) as $t >> 1) as $signed;
            let first = (key(x) < key(y)) != self.max;
            let chosen = if nan_b || first && !nan_a { x } else { y };
            let sign = if self.xorsign_abs { (a ^ b) & !most } else { 0 };
            let is_nan = nan_a && nan_b || self.nan && (nan_a || nan_b);
            if is_nan { nan } else { chosen | sign }
        }
    };
}

impl Extremum {
    choose!(choose, u32, i32);
    choose!(choose_wide, u64, i64);
}

/// `min.f32` and `max.f32`.
#[inline(always)]
pub fn extremum(a: u32, b: u32, how: Extremum, ftz: bool) -> u32 {
    how.choose(flush(a, ftz), flush(b, ftz), 0x7f80_0000, NAN)
}

/// `min.f64` and `max.f64`.
#[inline(always)]
pub fn extremum_f64(a: u64, b: u64, how: Extremum) -> u64 {
    how.choose_wide(a, b, 0x7ff << 52, f64::NAN.to_bits())
}

/// `abs.f32`.
#[inline(always)]
pub fn abs(a: u32, ftz: bool) -> u32 {
    flush(canonical(f32::from_bits(a & 0x7fff_ffff)), ftz)
}

/// `neg.f32`.
#[inline(always)]
pub fn neg(a: u32, ftz: bool) -> u32 {
    flush(canonical(f32::from_bits(a ^ 0x8000_0000)), ftz)
}

/// `testp`-like comparison of `setp` and `set`: the plain forms are false on a NaN, those that end in `u` true.
#[inline(always)]
pub fn compare<F: PartialOrd>(how: Compare, a: F, b: F) -> bool {
    let unordered = a.partial_cmp(&b).is_none();
    match how {
        Compare::Eq => a == b,
        Compare::Ne => a != b && !unordered,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
        Compare::Equ => a == b || unordered,
        Compare::Neu => a != b,
        Compare::Ltu => a < b || unordered,
        Compare::Leu => a <= b || unordered,
        Compare::Gtu => a > b || unordered,
        Compare::Geu => a >= b || unordered,
        Compare::Num => !unordered,
        Compare::Nan => unordered,
    }
}
