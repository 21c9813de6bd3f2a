//! Sums and normalisation of one row.

use super::dot::tree_sum;
use super::lanes::Simd;
use super::{LANES, dot, multiversion};

multiversion! {
    /// `Σ x[i]` in [`LANES`] interleaved sums.
    pub(crate) fn sum, sum_at = sum_body(x: &[f32]) -> f32
}

multiversion! {
    /// `Σ (x[i] − mean)²` in [`LANES`] interleaved sums.
    pub(crate) fn centred_squares, centred_squares_at = centred_squares_body(x: &[f32], mean: f32) -> f32
}

multiversion! {
    /// `out[i] = x[i] · factor · weight[i]` over the shortest length.
    fn scale, scale_at = scale_body(x: &[f32], factor: f32, weight: &[f32], out: &mut [f32])
}

multiversion! {
    /// `out[i] = (x[i] − mean) · factor · weight[i] + bias[i]` over the shortest length.
    fn affine, affine_at = affine_body(x: &[f32], mean: f32, factor: f32, weight: &[f32], bias: &[f32], out: &mut [f32])
}

/// `out = x · weight / √(mean(x²) + eps)`.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let factor = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    scale(x, factor, weight, out);
}

/// `out = (x − mean(x)) · weight / √(var(x) + eps) + bias`, the variance with divisor `x.len()`.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let len = x.len() as f32;
    let mean = sum(x) / len;
    let factor = 1.0 / (centred_squares(x, mean) / len + eps).sqrt();
    affine(x, mean, factor, weight, bias, out);
}

#[inline(always)]
pub(super) fn sum_body<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (blocks, tail) = x.as_chunks::<LANES>();
    let mut sums = simd.splat(0.0);
    for block in blocks {
        sums = simd.add(sums, simd.load(block));
    }
    let mut sums = simd.to_array(sums);
    for (sum, x) in sums.iter_mut().zip(tail) {
        *sum += x;
    }
    tree_sum(sums)
}

#[inline(always)]
fn centred_squares_body<S: Simd>(simd: S, x: &[f32], mean: f32) -> f32 {
    let (blocks, tail) = x.as_chunks::<LANES>();
    let means = simd.splat(mean);
    let mut sums = simd.splat(0.0);
    for block in blocks {
        let difference = simd.sub(simd.load(block), means);
        sums = simd.fma(difference, difference, sums);
    }
    let mut sums = simd.to_array(sums);
    for (sum, x) in sums.iter_mut().zip(tail) {
        let difference = x - mean;
        *sum = difference.mul_add(difference, *sum);
    }
    tree_sum(sums)
}

#[inline(always)]
fn scale_body<S: Simd>(_: S, x: &[f32], factor: f32, weight: &[f32], out: &mut [f32]) {
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * factor * weight;
    }
}

#[inline(always)]
fn affine_body<S: Simd>(
    _: S,
    x: &[f32],
    mean: f32,
    factor: f32,
    weight: &[f32],
    bias: &[f32],
    out: &mut [f32],
) {
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = ((x - mean) * factor).mul_add(*weight, *bias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Philox4x32;
    use crate::simd::Level;

    #[test]
    fn every_level_gives_the_bits_of_the_plain_body() {
        for len in [0, 1, 15, 16, 17, 63, 65, 576] {
            let mut random = Philox4x32::new(9, len as u64);
            let mut row = || -> Vec<f32> { (0..len).map(|_| random.next_normal()).collect() };
            let (x, weight, bias) = (row(), row(), row());
            let results = |level| {
                let [mut scaled, mut affine] = [vec![0.0; len], vec![0.0; len]];
                scale_at(level, &x, 1.7, &weight, &mut scaled);
                affine_at(level, &x, 0.3, 1.7, &weight, &bias, &mut affine);
                (
                    sum_at(level, &x).to_bits(),
                    centred_squares_at(level, &x, 0.3).to_bits(),
                    scaled,
                    affine,
                )
            };
            for level in Level::available() {
                assert_eq!(
                    results(level),
                    results(Level::Baseline),
                    "{level:?} length {len}"
                );
            }
        }
    }
}
