//! The types in which arithmetic is done, and those that are widened for it.

use crate::Element;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// f32 and f64. Halves are widened to f32 and narrowed again by the operations that take them.
pub(crate) trait Real:
    Element
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    const ZERO: Self;
    const ONE: Self;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

/// f16 and bf16: stored in two bytes, computed with in f32.
pub(crate) trait Half: Element {
    /// `out[i] = x[i]`, exactly; the lengths are equal.
    fn widen(x: &[Self], out: &mut [f32]);

    /// `out[i]` is the value nearest to `x[i]`, ties to even; the lengths are equal.
    fn narrow(x: &[f32], out: &mut [Self]);
}

impl Half for f16 {
    fn widen(x: &[Self], out: &mut [f32]) {
        x.convert_to_f32_slice(out);
    }

    fn narrow(x: &[f32], out: &mut [Self]) {
        out.convert_from_f32_slice(x);
    }
}

impl Half for bf16 {
    fn widen(x: &[Self], out: &mut [f32]) {
        x.convert_to_f32_slice(out);
    }

    fn narrow(x: &[f32], out: &mut [Self]) {
        for (out, x) in out.iter_mut().zip(x) {
            let bits = x.to_bits();
            // Half of the last place, and one less where the place is even; NaN must not be rounded to infinity.
            let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
            *out = Self::from_bits(
                ((if x.is_nan() {
                    bits | 0x0040_0000
                } else {
                    rounded
                }) >> 16) as u16,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_rounded_to_nearest_with_ties_to_even() {
        // Every upper half with lower halves around the tie.
        for high in 0..=u32::from(u16::MAX) {
            let x =
                [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| f32::from_bits(high << 16 | low));
            let mut found = [bf16::ZERO; 6];
            bf16::narrow(&x, &mut found);
            assert_eq!(
                found.map(bf16::to_bits),
                x.map(|x| bf16::from_f32(x).to_bits()),
                "upper half {high:#x}"
            );
        }
    }
}
