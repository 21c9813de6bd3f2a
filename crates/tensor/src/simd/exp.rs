//! The exponential function of f32, without branches.

use super::lanes::Simd;
use super::multiversion;

multiversion! {
    /// `out[i] = e^x[i]` over the shorter length, to 1 unit in the last place.
    pub(crate) fn exp, exp_at = exp_slice(x: &[f32], out: &mut [f32])
}

#[inline(always)]
fn exp_slice<S: Simd>(_: S, x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = exp_body(x);
    }
}

/// `e^x`. With `n = round(x / ln 2)` and `r = x − n ln 2` it is `2^n · e^r`; on `|r| ≤ ½ ln 2` the Taylor series to the seventh power
/// has an error below 2^-27. Infinity, zero, denormals and NaN come out as they should.
#[inline(always)]
pub(crate) fn exp_body(x: f32) -> f32 {
    // ln 2 in two parts: the first has 9 trailing zero bits, so that its product with n is exact.
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    // 1.5 · 2^23: added, it rounds to an integer that stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // Beyond these the result is infinity or 0 whatever the rest says. NaN passes both comparisons.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = 1.0 / 5040.0;
    p = r.mul_add(p, 1.0 / 720.0);
    p = r.mul_add(p, 1.0 / 120.0);
    p = r.mul_add(p, 1.0 / 24.0);
    p = r.mul_add(p, 1.0 / 6.0);
    p = r.mul_add(p, 0.5);
    p = r.mul_add(p, 1.0);
    p = r.mul_add(p, 1.0);
    // 2^n in two factors, because n reaches from -150 to 128 and one factor from -126 to 127. For NaN any factors will do.
    let n = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    p * power(half) * power(n.wrapping_sub(half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Level;

    /// Distance of a computed f32 from an exact value, in units of the last place of the exact value.
    fn ulps(found: f32, exact: f64) -> f64 {
        let near = exact as f32;
        let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
        (f64::from(found) - exact).abs() / unit
    }

    #[test]
    fn exp_is_within_one_ulp_over_its_whole_range() {
        let mut worst = 0.0f64;
        for step in 0..=2_000_000 {
            let x = -104.0 + 192.7 * (step as f32 / 2e6);
            worst = worst.max(ulps(exp_body(x), f64::from(x).exp()));
        }
        assert!(worst <= 1.0, "{worst} ulp");
    }

    #[test]
    fn exp_treats_special_values_as_the_function_does() {
        assert_eq!(exp_body(0.0), 1.0);
        assert_eq!(exp_body(-0.0), 1.0);
        assert_eq!(exp_body(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp_body(89.0), f32::INFINITY);
        assert_eq!(exp_body(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_body(-104.0), 0.0);
        assert!(exp_body(f32::NAN).is_nan());
        assert!(exp_body(-f32::NAN).is_nan());
        assert!(exp_body(-100.0) > 0.0, "denormal results are kept");
    }

    #[test]
    fn every_level_gives_the_bits_of_the_plain_body() {
        let x: Vec<f32> = (0..1001).map(|i| (i as f32 - 500.0) * 0.21).collect();
        let expected: Vec<u32> = x.iter().map(|&x| exp_body(x).to_bits()).collect();
        for level in Level::available() {
            let mut found = vec![0.0; x.len()];
            exp_at(level, &x, &mut found);
            assert!(
                found
                    .iter()
                    .map(|v| v.to_bits())
                    .eq(expected.iter().copied()),
                "{level:?}"
            );
        }
    }
}
