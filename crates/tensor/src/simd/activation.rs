//! Activation functions that need an exponential.

use super::lanes::Simd;
use super::{exp_body, multiversion};

multiversion! {
    /// `out[i] = 1 / (1 + e^-x[i])` over the shorter length.
    pub(crate) fn sigmoid, sigmoid_at = sigmoid_slice(x: &[f32], out: &mut [f32])
}

multiversion! {
    /// `out[i] = x[i] / (1 + e^-x[i])` over the shorter length.
    pub(crate) fn silu, silu_at = silu_slice(x: &[f32], out: &mut [f32])
}

multiversion! {
    /// `out[i] = x[i] · Φ(x[i])`, Φ the normal distribution function, over the shorter length.
    pub(crate) fn gelu_erf, gelu_erf_at = gelu_erf_slice(x: &[f32], out: &mut [f32])
}

multiversion! {
    /// `out[i] = ½x(1 + tanh(√(2/π)(x + 0.044715x³)))` at `x = x[i]`, over the shorter length.
    pub(crate) fn gelu_tanh, gelu_tanh_at = gelu_tanh_slice(x: &[f32], out: &mut [f32])
}

multiversion! {
    /// `out[i] = tanh(x[i])` over the shorter length.
    pub(crate) fn tanh, tanh_at = tanh_slice(x: &[f32], out: &mut [f32])
}

#[inline(always)]
fn sigmoid_slice<S: Simd>(_: S, x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = 1.0 / (1.0 + exp_body(-x));
    }
}

#[inline(always)]
fn silu_slice<S: Simd>(_: S, x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = x / (1.0 + exp_body(-x));
    }
}

#[inline(always)]
fn gelu_erf_slice<S: Simd>(_: S, x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = x * normal_cdf(x);
    }
}

/// Φ(x) = ½ erfc(−x/√2). The scaled tail `e^(z²) erfc(z)` is `t · P(t)` with `t = 1 / (1 + 0.3z)` and a polynomial of degree 8,
/// interpolated at the Chebyshev nodes of `0 ≤ z ≤ 10.5`; its relative error is 2.5e-8. Beyond, the tail is below the least f32.
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    let a = x.abs();
    let a = if a > 14.8 { 14.8 } else { a };
    let t = 1.0 / (0.3 * std::f32::consts::FRAC_1_SQRT_2).mul_add(a, 1.0);
    let u = (t - 0.620_481_9) * 2.634_920_6;
    let mut p = -5.634_747e-5;
    p = u.mul_add(p, -1.783_180_7e-4);
    p = u.mul_add(p, 6.001_702e-4);
    p = u.mul_add(p, 6.563_232_7e-3);
    p = u.mul_add(p, 0.028_257_053);
    p = u.mul_add(p, 0.081_620_71);
    p = u.mul_add(p, 0.177_170_29);
    p = u.mul_add(p, 0.300_998_7);
    p = u.mul_add(p, 0.405_024_52);
    // a² in two parts, because e^(-a²/2) turns an absolute error of the exponent into a relative one.
    let high = a * a;
    let low = a.mul_add(a, -high);
    let tail = 0.5 * t * p * (exp_body(-0.5 * high) * (-0.5f32).mul_add(low, 1.0));
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// `1 − 2 / (e^2x + 1)` where that loses nothing, the Taylor series to the 15th power below `|x| = ½`.
#[inline(always)]
fn tanh_slice<S: Simd>(_: S, x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        let a = x.abs();
        let far = 1.0 - 2.0 / (exp_body(2.0 * a) + 1.0);
        let square = x * x;
        let mut p = -929_569.0 / 638_512_875.0;
        p = square.mul_add(p, 21_844.0 / 6_081_075.0);
        p = square.mul_add(p, -1_382.0 / 155_925.0);
        p = square.mul_add(p, 62.0 / 2_835.0);
        p = square.mul_add(p, -17.0 / 315.0);
        p = square.mul_add(p, 2.0 / 15.0);
        p = square.mul_add(p, -1.0 / 3.0);
        let near = (square * a).mul_add(p, a);
        *out = if a < 0.5 { near } else { far }.copysign(x);
    }
}

#[inline(always)]
fn gelu_tanh_slice<S: Simd>(_: S, x: &[f32], out: &mut [f32]) {
    // ½(1 + tanh u) = 1 / (1 + e^-2u), and 2√(2/π) = 1.5957691.
    for (out, &x) in out.iter_mut().zip(x) {
        let u2 = 1.595_769_2 * (0.044_715 * x * x).mul_add(x, x);
        *out = x / (1.0 + exp_body(-u2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Level;

    #[test]
    fn every_level_gives_the_bits_of_the_plain_body() {
        type At = fn(Level, &[f32], &mut [f32]);
        let functions: [At; 5] = [sigmoid_at, tanh_at, silu_at, gelu_erf_at, gelu_tanh_at];
        let x: Vec<f32> = (0..1001).map(|i| (i as f32 - 500.0) * 0.037).collect();
        for (i, at) in functions.into_iter().enumerate() {
            let [mut expected, mut found] = [vec![0.0; x.len()], vec![0.0; x.len()]];
            at(Level::Baseline, &x, &mut expected);
            for level in Level::available() {
                at(level, &x, &mut found);
                assert!(
                    found
                        .iter()
                        .zip(&expected)
                        .all(|(a, b)| a.to_bits() == b.to_bits()),
                    "function {i}, {level:?}"
                );
            }
        }
    }
}
