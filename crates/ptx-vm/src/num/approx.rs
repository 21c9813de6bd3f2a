//! The approximate functions: nearest results, or results anywhere within the manual's error bounds.

use super::float::Mode;
use super::half::{self, Half};
use super::{Lanes, map1, map2};
use std::f64::consts::{LN_2, PI};

/// What an approximate function returns. Hardware is allowed any result within a bound; a kernel must do with all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approx {
    /// The exact value, computed in f64 and rounded once.
    Nearest,
    /// The exact value with an error anywhere within the bound, a hash of the seed and the operands.
    Perturb(u64),
}

/// A function of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// 2^x.
    Ex2,
    /// log₂ x.
    Lg2,
    /// 1 / x.
    Rcp,
    /// 1 / √x.
    Rsqrt,
    /// √x.
    Sqrt,
    /// sin x, x in radians.
    Sin,
    /// cos x, x in radians.
    Cos,
    /// tanh x.
    Tanh,
}

/// An error bound of the manual, less the half unit that rounding itself may add.
#[derive(Clone, Copy)]
enum Bound {
    /// Units in the last place of f32.
    Ulps(f64),
    /// Relative to the result, minus 2^−24.
    Relative(f64),
    /// Absolute, minus 2^−25.
    Absolute(f64),
}

impl Function {
    fn exact(self, x: f64) -> f64 {
        match self {
            Self::Ex2 => exp2(x),
            Self::Lg2 => x.log2(),
            Self::Rcp => 1.0 / x,
            // −0 has the reciprocal −∞, as its square root is −0.
            Self::Rsqrt => 1.0 / x.sqrt(),
            Self::Sqrt => x.sqrt(),
            Self::Sin => x.sin(),
            Self::Cos => x.cos(),
            Self::Tanh => x.tanh(),
        }
    }

    fn bound(self, x: f64) -> Bound {
        match self {
            Self::Ex2 => Bound::Ulps(2.0),
            Self::Lg2 if x > 0.5 && x < 2.0 => Bound::Absolute(2f64.powi(-22)),
            Self::Lg2 => Bound::Relative(2f64.powi(-22)),
            Self::Rcp => Bound::Ulps(1.0),
            Self::Rsqrt => Bound::Relative(2f64.powf(-22.9)),
            Self::Sqrt => Bound::Relative(2f64.powi(-23)),
            Self::Sin | Self::Cos if x.abs() <= 2.0 * PI => Bound::Absolute(2f64.powf(-20.5)),
            // The manual's bound up to 100π.
            Self::Sin | Self::Cos => Bound::Absolute(2f64.powf(-14.7)),
            Self::Tanh => Bound::Relative(2f64.powi(-11)),
        }
    }

    /// Whether the manual's table of special values gives the result for `x`, so that no error is allowed.
    fn is_special(self, x: f64) -> bool {
        x == 0.0 || !x.is_finite() || self == Self::Ex2 && x.abs() < f32::MIN_POSITIVE.into()
    }
}

impl Approx {
    /// `exact` with an error within `bound`; `key` tells operands and functions apart.
    #[inline(always)]
    fn within(self, exact: f64, bound: impl FnOnce() -> Bound, key: u64) -> f64 {
        let Self::Perturb(seed) = self else {
            return exact;
        };
        if exact == 0.0 || !exact.is_finite() {
            return exact;
        }
        let u = uniform(seed, key);
        match bound() {
            Bound::Ulps(n) => {
                // One f32 unit in the last place of the result, the least subnormal at least.
                let field = (exact.to_bits() >> 52 & 0x7ff).max(1023 - 126);
                let y = exact + u * (n - 0.5) * f64::from_bits((field - 23) << 52);
                // No result has the wrong sign.
                if (y > 0.0) == (exact > 0.0) { y } else { 0.0 }
            }
            Bound::Relative(r) => exact * (1.0 + u * (r - 2f64.powi(-24))),
            Bound::Absolute(d) => exact + u * (d - 2f64.powi(-25)),
        }
    }
}

/// A number in [−1, 1] from a hash (SplitMix64) of the seed and a key.
fn uniform(seed: u64, key: u64) -> f64 {
    let mut z = seed.wrapping_add(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z as i64 as f64) / 2f64.powi(63)
}

/// 2^x for an x of f32 or shorter: x = n + f with |f| ≤ ½, and the Taylor series of e^(f ln 2), whose first omitted term is 4e-18.
#[inline(always)]
fn exp2(x: f64) -> f64 {
    // Beyond these bounds f32 has 0 or infinity.
    let clamped = x.clamp(-200.0, 200.0);
    // Adding 1.5 · 2^52 leaves the nearest integer in the low bits.
    let shifter = 1.5 * 2f64.powi(52);
    let shifted = clamped + shifter;
    let z = (clamped - (shifted - shifter)) * LN_2;
    let mut p = 1.0 / 6_227_020_800.0;
    for c in [
        479_001_600.0,
        39_916_800.0,
        3_628_800.0,
        362_880.0,
        40_320.0,
        5_040.0,
        720.0,
        120.0,
        24.0,
        6.0,
        2.0,
        1.0,
        1.0,
    ] {
        p = p * z + 1.0 / c;
    }
    let n = shifted.to_bits().wrapping_sub(shifter.to_bits());
    p * f64::from_bits(n.wrapping_add(1023) << 52)
}

/// `ex2.approx.f32` and its like for one lane.
#[inline(always)]
pub fn unary(f: Function, x: u32, ftz: bool, approx: Approx) -> u32 {
    let mode = Mode { ftz, ..Mode::RN };
    let input = f64::from(mode.input(x));
    let exact = f.exact(input);
    let value = if f.is_special(input) {
        exact
    } else {
        let key = (f as u64) << 32 | u64::from(x);
        approx.within(exact, || f.bound(input), key)
    };
    mode.output(value as f32)
}

/// [`unary`] on a warp.
pub fn unary_lanes(f: Function, x: &Lanes, ftz: bool, approx: Approx) -> Lanes {
    match (f, approx) {
        // The common case, a loop without calls.
        (Function::Ex2, Approx::Nearest) => {
            let mode = Mode { ftz, ..Mode::RN };
            map1(x, |x| mode.output(exp2(mode.input(x).into()) as f32))
        }
        _ => map1(x, |x| unary(f, x, ftz, approx)),
    }
}

/// `div.approx.f32`, or `div.full.f32`: `a / b` within 2 units in the last place. For |b| above 2^126 `div.approx` gives 0, or NaN
/// if `a` is infinite.
#[inline(always)]
pub fn div(a: u32, b: u32, full: bool, ftz: bool, approx: Approx) -> u32 {
    let mode = Mode { ftz, ..Mode::RN };
    let (x, y) = (mode.input(a), mode.input(b));
    let exact = f64::from(x) / f64::from(y);
    let scale = if !full && y.abs() > 2f32.powi(126) && y.is_finite() {
        0.0
    } else {
        1.0
    };
    let key = u64::from(a) << 32 | u64::from(b);
    let value = approx.within(exact, || Bound::Ulps(2.0), key);
    mode.output((value * scale) as f32)
}

/// [`div`] on a warp.
pub fn div_lanes(a: &Lanes, b: &Lanes, full: bool, ftz: bool, approx: Approx) -> Lanes {
    map2(a, b, |a, b| div(a, b, full, ftz, approx))
}

/// `ex2.approx` and `tanh.approx` of a half. Bounds of the manual: ex2 2^−9.9 relative (bf16 2^−7), tanh 2^−10.987 absolute (bf16
/// 2^−8 relative).
#[inline(always)]
pub fn unary_half<H: Half>(f: Function, x: u16, ftz: bool, approx: Approx) -> u16 {
    let input = f64::from(H::widen(half::flush::<H>(x, ftz)));
    let exact = f.exact(input);
    // Rounding to the format may take half a unit of its own.
    let own = 2f64.powi(-(H::PRECISION as i32));
    let bound = || match (f, H::PRECISION) {
        (Function::Tanh, 11) => Bound::Absolute(2f64.powf(-10.987) - own / 2.0),
        (Function::Tanh, _) => Bound::Relative(2f64.powi(-8) - own),
        (_, 11) => Bound::Relative(2f64.powf(-9.9) - own),
        _ => Bound::Relative(2f64.powi(-7) - own),
    };
    let value = if f.is_special(input) {
        exact
    } else {
        approx.within(exact, bound, (f as u64) << 32 | u64::from(x))
    };
    half::flush::<H>(half::narrow::<H>(value), ftz)
}
