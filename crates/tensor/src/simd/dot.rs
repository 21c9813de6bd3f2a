//! Dot products and their transpose.

use super::lanes::Simd;
use super::{LANES, multiversion};

/// Independent sums: enough to hide the latency of a fused multiply-add on both levels.
const SUMS: usize = 4;

multiversion! {
    /// `Σ a[i]·b[i]` over the shorter length: `SUMS · LANES` interleaved sums, added up as a tree.
    pub(crate) fn dot, dot_at = dot_body(a: &[f32], b: &[f32]) -> f32
}

multiversion! {
    /// `out[j] = Σ x[i]·rows[j·stride + i]`, each by the same additions as [`dot`].
    pub(crate) fn rows_dot, rows_dot_at = rows_dot_body(x: &[f32], rows: &[f32], stride: usize, out: &mut [f32])
}

multiversion! {
    /// `out[i] += factor · x[i]` over the shorter length, rounded once.
    pub(crate) fn add_scaled, add_scaled_at = add_scaled_body(factor: f32, x: &[f32], out: &mut [f32])
}

#[inline(always)]
fn dot_body<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let len = a.len().min(b.len());
    let (a, a_tail) = a[..len].as_chunks::<LANES>();
    let (b, b_tail) = b[..len].as_chunks::<LANES>();
    let mut sums = [simd.splat(0.0); SUMS];
    let (a, a_rest) = a.as_chunks::<SUMS>();
    let (b, b_rest) = b.as_chunks::<SUMS>();
    for (a, b) in a.iter().zip(b) {
        for s in 0..SUMS {
            sums[s] = simd.fma(simd.load(&a[s]), simd.load(&b[s]), sums[s]);
        }
    }
    for ((a, b), sum) in a_rest.iter().zip(b_rest).zip(&mut sums) {
        *sum = simd.fma(simd.load(a), simd.load(b), *sum);
    }
    let total = simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]));
    let mut total = simd.to_array(total);
    for ((lane, a), b) in total.iter_mut().zip(a_tail).zip(b_tail) {
        *lane = a.mul_add(*b, *lane);
    }
    tree_sum(total)
}

#[inline(always)]
fn rows_dot_body<S: Simd>(simd: S, x: &[f32], rows: &[f32], stride: usize, out: &mut [f32]) {
    for (j, value) in out.iter_mut().enumerate() {
        *value = dot_body(simd, x, &rows[j * stride..j * stride + x.len()]);
    }
}

#[inline(always)]
fn add_scaled_body<S: Simd>(_: S, factor: f32, x: &[f32], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = factor.mul_add(*x, *out);
    }
}

/// The sum of the lanes, halved again and again: the order in which vector registers are folded.
#[inline(always)]
pub(super) fn tree_sum(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Philox4x32;
    use crate::simd::Level;

    #[test]
    fn every_level_gives_the_bits_of_the_plain_body() {
        for len in [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 576, 1537] {
            let mut random = Philox4x32::new(7, len as u64);
            let x: Vec<f32> = (0..len).map(|_| random.next_normal()).collect();
            let rows: Vec<f32> = (0..3 * (len + 2)).map(|_| random.next_normal()).collect();
            let results = |level| {
                let mut dots = [0.0; 3];
                rows_dot_at(level, &x, &rows, len + 2, &mut dots);
                let mut sums = rows[..len].to_vec();
                add_scaled_at(level, 0.7, &x, &mut sums);
                (
                    dot_at(level, &x, &rows).to_bits(),
                    dots.map(f32::to_bits),
                    sums,
                )
            };
            let expected = results(Level::Baseline);
            assert_eq!(
                expected.0, expected.1[0],
                "a row's dot product does not depend on its neighbours"
            );
            for level in Level::available() {
                assert_eq!(results(level), expected, "{level:?} length {len}");
            }
        }
    }
}
