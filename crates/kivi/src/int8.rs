//! The integer path: the scale is folded into the query (or the weight), which is then rounded to two digits of 8 bits, so that a
//! dot product with codes is two sums of small integers. One digit alone costs up to 3 in 100 of the output on white noise
//! (`docs/decisions/0006`).
//!
//! Those sums stay far below 2^24, where f32 holds every integer, so the f32 kernels compute them without an error: given equal
//! digits they are equal to the bit to the i32 sums of a processor with integer dot products.

use whittle_tensor::attention;

/// 1.5·2^23: a sum with it has no digits behind the point, as f32 rounds it, half to even.
const INTEGERS: f32 = 12_582_912.0;

/// The nearest integer, of halves the even one, for `|x| < 2^22`.
fn round(x: f32) -> f32 {
    (x + INTEGERS) - INTEGERS
}

/// `(a, x', x'')` with `a = max |x|`, `x' = round_half_even(127·x / a)` and the rest `x'' = round_half_even(254·(127·x / a − x'))`:
/// two digits of 8 bits, so that `x ≈ (a/127)·(x' + x''/254)` to 1 in 64,516 of `a`; all zero where `a` is. `x` becomes `x'`.
fn fold(x: &mut [f32], rest: &mut [f32]) -> f32 {
    let a = x.iter().fold(0.0f32, |a, x| a.max(x.abs()));
    for (x, rest) in x.iter_mut().zip(rest) {
        let exact = if a > 0.0 { 127.0 * (*x / a) } else { 0.0 };
        *x = round(exact);
        *rest = round(254.0 * (exact - *x));
    }
    a
}

/// `out[r, t] = (a/127)·Σ_d (q' + q''/254)[r, d]·codes[d, t] + Σ_d q[r, d]·min[d]`, with `(a, q', q'')` of `q[r, d]·scale[d]`.
///
/// `q` is `[rows, head_dim]`, `codes` `[head_dim, width]`, `out` `[rows, width]`, of which the first `q` rows are written.
pub(crate) fn scores(
    q: &[f32],
    scale: &[f32],
    min: &[f32],
    codes: &[f32],
    width: usize,
    out: &mut [f32],
) {
    let head_dim = scale.len();
    let rows = q.len() / head_dim;
    let mut digits: Vec<f32> = q
        .chunks_exact(head_dim)
        .flat_map(|q| q.iter().zip(scale).map(|(q, s)| q * s))
        .collect();
    let mut rest = vec![0.0; digits.len()];
    let largest: Vec<f32> = digits
        .chunks_exact_mut(head_dim)
        .zip(rest.chunks_exact_mut(head_dim))
        .map(|(digits, rest)| fold(digits, rest))
        .collect();
    let none = vec![0.0; rows];
    let mut low = vec![0.0; rows * width];
    attention::scores(&digits, rows, head_dim, codes, width, &none, out);
    attention::scores(&rest, rows, head_dim, codes, width, &none, &mut low);
    let rows = q
        .chunks_exact(head_dim)
        .zip(&largest)
        .zip(out.chunks_exact_mut(width).zip(low.chunks_exact(width)));
    for ((q, a), (out, low)) in rows {
        let bias: f32 = q.iter().zip(min).map(|(q, m)| q * m).sum();
        out.iter_mut()
            .zip(low)
            .for_each(|(sum, low)| *sum = a / 127.0 * (*sum + low / 254.0) + bias);
    }
}

/// `out[r, d] += (a/127)·Σ_t (p' + p''/254)[r, t]·codes[t, d] + Σ_t p[r, t]·min[t, h]`, with `(a, p', p'')` of
/// `p[r, t]·scale[t, h]`, for each channel group `h` of `group` channels.
///
/// `weights` is `[rows, width]`, of which the first `tokens` of each row count, `scale` and `min` `[tokens, head_dim / group]`,
/// `codes` `[tokens, head_dim]`, `out` `[rows, head_dim]`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn values(
    weights: &[f32],
    rows: usize,
    width: usize,
    tokens: usize,
    (scale, min): (&[f32], &[f32]),
    codes: &[f32],
    group: usize,
    out: &mut [f32],
) {
    let head_dim = out.len() / rows;
    let groups = head_dim / group;
    let mut of_group = Vec::with_capacity(tokens * group);
    let mut digits = vec![0.0; rows * tokens];
    let mut rest = digits.clone();
    let mut low = vec![0.0; rows * group];
    let mut sums = low.clone();
    let mut folded = Vec::with_capacity(rows);
    for h in 0..groups {
        of_group.clear();
        for codes in codes[..tokens * head_dim].chunks_exact(head_dim) {
            of_group.extend_from_slice(&codes[h * group..][..group]);
        }
        folded.clear();
        let digits_and_rest = digits
            .chunks_exact_mut(tokens)
            .zip(rest.chunks_exact_mut(tokens));
        for (r, (digits, rest)) in digits_and_rest.enumerate() {
            let mut bias = 0.0;
            for (t, digit) in digits.iter_mut().enumerate() {
                let p = weights[r * width + t];
                *digit = p * scale[t * groups + h];
                bias += p * min[t * groups + h];
            }
            folded.push((fold(digits, rest), bias));
        }
        sums.fill(0.0);
        low.fill(0.0);
        let sum = attention::accumulate_any;
        sum(&digits, rows, tokens, &of_group, tokens, group, &mut sums);
        sum(&rest, rows, tokens, &of_group, tokens, group, &mut low);
        for (r, (a, bias)) in folded.iter().enumerate() {
            let out = &mut out[r * head_dim + h * group..][..group];
            let (sums, low) = (&sums[r * group..][..group], &low[r * group..][..group]);
            for ((o, sum), low) in out.iter_mut().zip(sums).zip(low) {
                *o += a / 127.0 * (sum + low / 254.0) + bias;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_keeps_the_largest_and_rounds_halves_to_even() {
        let (mut x, mut rest) = ([254.0, -1.0, 3.0, -5.0, 0.5], [9.0; 5]);
        assert_eq!(fold(&mut x, &mut rest), 254.0);
        assert_eq!(x, [127.0, 0.0, 2.0, -2.0, 0.0]);
        // -0.5, 1.5 - 2, -2.5 + 2 and 0.25 times 254, the last halfway between 63 and 64.
        assert_eq!(rest, [0.0, -127.0, -127.0, -127.0, 64.0]);
        let mut zero = [0.0, -0.0];
        assert_eq!(fold(&mut zero, &mut rest), 0.0);
        assert_eq!((zero, &rest[..2]), ([0.0, 0.0], &[0.0, 0.0][..]));
        for quarters in -130 * 4..130 * 4 {
            let x = quarters as f32 / 4.0;
            assert_eq!(round(x), x.round_ties_even());
        }
    }

    #[test]
    fn sums_in_f32_are_the_integer_sums() {
        let (head_dim, width) = (256, 32);
        let q: Vec<f32> = (0..head_dim)
            .map(|d| if d % 7 == 3 { -1.0 } else { 1.0 })
            .collect();
        let codes: Vec<f32> = (0..head_dim * width).map(|i| (i * 7 % 16) as f32).collect();
        let mut out = vec![0.0; width];
        scores(
            &q,
            &vec![1.0; head_dim],
            &vec![0.0; head_dim],
            &codes,
            width,
            &mut out,
        );
        for (t, &out) in out.iter().enumerate() {
            let sum: i32 = (0..head_dim)
                .map(|d| 127 * q[d] as i32 * codes[d * width + t] as i32)
                .sum();
            assert_eq!(out, 1.0f32 / 127.0 * sum as f32);
        }
    }

    /// What two digits leave of a number, at most, in parts of the largest.
    const DIGITS: f64 = 0.5 / 254.0 / 127.0;

    /// Deterministic numbers in -1..1.
    fn wave(seed: f32, len: usize) -> Vec<f32> {
        (0..len)
            .map(|i| ((i as f32 + seed) * 0.731).sin())
            .collect()
    }

    #[test]
    fn scores_are_within_the_bound_that_the_rounding_implies() {
        let (head_dim, width, rows) = (64, 32, 3);
        let (q, min) = (wave(0.1, rows * head_dim), wave(0.2, head_dim));
        let scale: Vec<f32> = wave(0.3, head_dim).iter().map(|x| x.abs()).collect();
        let codes: Vec<f32> = (0..head_dim * width).map(|i| (i * 7 % 4) as f32).collect();
        let mut out = vec![0.0; rows * width];
        scores(&q, &scale, &min, &codes, width, &mut out);
        let mut far = 0.0f64;
        for r in 0..rows {
            let q = &q[r * head_dim..(r + 1) * head_dim];
            let a = q
                .iter()
                .zip(&scale)
                .fold(0.0f32, |a, (q, s)| a.max((q * s).abs()));
            for t in 0..width {
                let code = |d: usize| f64::from(codes[d * width + t]);
                let exact: f64 = (0..head_dim)
                    .map(|d| f64::from(q[d]) * (code(d) * f64::from(scale[d]) + f64::from(min[d])))
                    .sum();
                let bound = f64::from(a) * DIGITS * (0..head_dim).map(code).sum::<f64>() + 1e-5;
                let error = (f64::from(out[r * width + t]) - exact).abs();
                assert!(error <= bound, "row {r}, token {t}: {error} above {bound}");
                far = far.max(error);
            }
        }
        assert!(far > 2e-5, "nothing was rounded");
    }

    #[test]
    fn weighted_values_are_within_the_bound_that_the_rounding_implies() {
        let (tokens, head_dim, group) = (30, 64, 32);
        let weights: Vec<f32> = wave(0.4, tokens).iter().map(|x| x.abs()).collect();
        let scale: Vec<f32> = wave(0.5, tokens * 2).iter().map(|x| x.abs()).collect();
        let min = wave(0.6, tokens * 2);
        let codes: Vec<f32> = (0..tokens * head_dim)
            .map(|i| (i * 5 % 16) as f32)
            .collect();
        let mut out = wave(0.7, head_dim);
        let before = out.clone();
        let metadata = (&scale[..], &min[..]);
        values(
            &weights, 1, tokens, tokens, metadata, &codes, group, &mut out,
        );
        for d in 0..head_dim {
            let h = d / group;
            let at = |of: &[f32], t: usize| f64::from(of[t * 2 + h]);
            let code = |t: usize| f64::from(codes[t * head_dim + d]);
            let exact: f64 = (0..tokens)
                .map(|t| f64::from(weights[t]) * (code(t) * at(&scale, t) + at(&min, t)))
                .sum();
            let a = (0..tokens).fold(0.0f64, |a, t| a.max(f64::from(weights[t]) * at(&scale, t)));
            let bound = a * DIGITS * (0..tokens).map(code).sum::<f64>() + 1e-5;
            let error = (f64::from(out[d]) - f64::from(before[d]) - exact).abs();
            assert!(error <= bound, "channel {d}: {error} above {bound}");
        }
    }
}
