//! The two passes of softmax over one row.

use super::lanes::Simd;
use super::norm::sum_body;
use super::{LANES, exp_body, multiversion};

multiversion! {
    /// The greatest element, NaN passed over; −∞ for an empty row.
    pub(crate) fn max, max_at = max_body(x: &[f32]) -> f32
}

multiversion! {
    /// `out[i] = e^(x[i] − shift)` over the shorter length, and the sum of all of them.
    pub(crate) fn shifted_exp, shifted_exp_at = shifted_exp_body(x: &[f32], shift: f32, out: &mut [f32]) -> f32
}

#[inline(always)]
fn max_body<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (blocks, tail) = x.as_chunks::<LANES>();
    let mut lanes = simd.splat(f32::NEG_INFINITY);
    for block in blocks {
        lanes = simd.max(simd.load(block), lanes);
    }
    simd.to_array(lanes)
        .iter()
        .chain(tail)
        .fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max })
}

#[inline(always)]
fn shifted_exp_body<S: Simd>(simd: S, x: &[f32], shift: f32, out: &mut [f32]) -> f32 {
    let len = x.len().min(out.len());
    // A block at a time, so that the sum finds the exponentials in the first-level cache.
    let mut sum = 0.0;
    for (x, out) in x[..len].chunks(BLOCK).zip(out[..len].chunks_mut(BLOCK)) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = exp_body(x - shift);
        }
        sum += sum_body(simd, out);
    }
    sum
}

/// Elements of a row whose exponentials are added up together.
const BLOCK: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Philox4x32;
    use crate::simd::Level;

    #[test]
    fn every_level_gives_the_bits_of_the_plain_body() {
        for len in [0, 1, 15, 16, 17, 63, 65, 257, BLOCK + 1] {
            let mut random = Philox4x32::new(8, len as u64);
            let mut x: Vec<f32> = (0..len).map(|_| 5.0 * random.next_normal()).collect();
            if len > 20 {
                x.iter_mut().step_by(11).for_each(|x| *x = f32::NAN);
                x[19] = f32::NEG_INFINITY;
            }
            let results = |level| {
                let max = max_at(level, &x);
                let mut exponentials = vec![0.0; len];
                let sum = shifted_exp_at(level, &x, max, &mut exponentials);
                // A NaN's sign and payload are not part of the promise.
                let bits = |x: f32| {
                    if x.is_nan() {
                        f32::NAN.to_bits()
                    } else {
                        x.to_bits()
                    }
                };
                (
                    bits(max),
                    bits(sum),
                    exponentials.into_iter().map(bits).collect::<Vec<_>>(),
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
