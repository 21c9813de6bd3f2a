//! Tile kernels of attention with online softmax, shared by every key/value cache.
//!
//! A cache walks over its tokens in tiles, in any form it likes to keep them, and hands each tile over as f32: keys as
//! `[head_dim, width]` (one lane a token), values as `[tokens, head_dim]` (one lane a channel). Three steps fold a tile into the
//! running state of a few query rows: [`scores`], [`weigh`], [`accumulate`]. Tiles of different workers meet in
//! [`Partial::merge`].
//!
//! Every output is one chain of fused multiply-adds in ascending order, so a query row gets the same bits whatever other
//! rows stand beside it, however many threads run, and whichever instruction set is found at run time.
//!
//! Source: online softmax of Milakov and Gimelshein, *Online normalizer calculation for softmax*, 2018, arXiv 1805.02867.

use half::f16;

/// A tile's `width` is a multiple of this.
pub const LANES: usize = 16;

/// Running state `(m, l, o)` of the online softmax for some query rows.
#[derive(Clone, Debug)]
pub struct Partial {
    head_dim: usize,
    /// `[rows]`: largest score so far, `-inf` before the first.
    max: Vec<f32>,
    /// `[rows]`: sum of `e^(score - max)`.
    sum: Vec<f32>,
    /// `[rows, head_dim]`: sum of `e^(score - max) · value`.
    out: Vec<f32>,
}

impl Partial {
    /// The state before any tile.
    ///
    /// # Panics
    /// If memory cannot hold `rows · head_dim` numbers.
    pub fn new(rows: usize, head_dim: usize) -> Self {
        Self {
            head_dim,
            max: vec![f32::NEG_INFINITY; rows],
            sum: vec![0.0; rows],
            // A product beyond usize is beyond memory too, and `vec!` says so.
            out: vec![0.0; rows.saturating_mul(head_dim)],
        }
    }

    /// Query rows.
    pub fn rows(&self) -> usize {
        self.max.len()
    }

    /// `[rows, head_dim]`: the weighted values, to be divided by the sum of the weights; after [`finish`](Self::finish) the
    /// attention output.
    pub fn out(&mut self) -> &mut [f32] {
        &mut self.out
    }

    /// Adds what another worker found for the same rows over later tokens: `M = max(m, m')`, both sides weighted by
    /// `e^(m - M)`.
    ///
    /// # Panics
    /// If the two differ in shape.
    pub fn merge(&mut self, later: &Self) {
        assert_eq!(
            (self.rows(), self.head_dim),
            (later.rows(), later.head_dim),
            "partials of one set of rows"
        );
        for r in 0..self.rows() {
            if later.max[r] == f32::NEG_INFINITY {
                continue;
            }
            let max = self.max[r].max(later.max[r]);
            let (here, there) = (exp(self.max[r] - max), exp(later.max[r] - max));
            self.sum[r] = self.sum[r] * here + later.sum[r] * there;
            self.max[r] = max;
            let row = r * self.head_dim..(r + 1) * self.head_dim;
            for (o, l) in self.out[row.clone()].iter_mut().zip(&later.out[row]) {
                *o = *o * here + *l * there;
            }
        }
    }

    /// Divides by the sum of the weights. A row that saw no token becomes zero.
    pub fn finish(&mut self) {
        // Rows without channels have nothing to divide; a chunk has at least one element all the same.
        let rows = self.out.chunks_exact_mut(self.head_dim.max(1));
        for (row, &sum) in rows.zip(&self.sum) {
            let factor = if sum > 0.0 || sum.is_nan() {
                1.0 / sum
            } else {
                0.0
            };
            row.iter_mut().for_each(|o| *o *= factor);
        }
    }
}

/// `out[r, t] = bias[r] + Σ_d q[r, d] · keys[d, t]`, `d` ascending, one fused multiply-add each.
///
/// `q` is `[rows, head_dim]`, `keys` `[head_dim, width]`, `bias` `[rows]`, `out` `[rows, width]`.
///
/// # Panics
/// If a slice is shorter than its shape or `width` is no multiple of [`LANES`].
pub fn scores(
    q: &[f32],
    rows: usize,
    head_dim: usize,
    keys: &[f32],
    width: usize,
    bias: &[f32],
    out: &mut [f32],
) {
    assert!(
        width.is_multiple_of(LANES),
        "width {width} is a multiple of {LANES}"
    );
    assert!(
        holds(q, rows, head_dim) && holds(keys, head_dim, width),
        "q and keys fill their shapes"
    );
    assert!(
        bias.len() >= rows && holds(out, rows, width),
        "bias and out fill their shapes"
    );
    simd::scores(q, rows, head_dim, keys, width, bias, out);
}

/// Turns the first `visible` scores of a row into weights `e^(score - max)`, the others into 0, and folds their sum and the new
/// maximum into row `r` of `partial` (whose `out` is rescaled).
///
/// # Panics
/// If `visible` exceeds the scores, their number is no multiple of [`LANES`], or `r` is no row.
pub fn weigh(partial: &mut Partial, r: usize, scores: &mut [f32], visible: usize) {
    assert!(
        visible <= scores.len() && scores.len().is_multiple_of(LANES),
        "visible scores of a whole tile"
    );
    scores[visible..].fill(f32::NEG_INFINITY);
    let before = partial.max[r];
    let (max, sum) = simd::weigh(scores, before);
    if max > before {
        let factor = exp(before - max);
        partial.max[r] = max;
        partial.sum[r] *= factor;
        let row = r * partial.head_dim..(r + 1) * partial.head_dim;
        partial.out[row].iter_mut().for_each(|o| *o *= factor);
    }
    partial.sum[r] += sum;
}

/// `out[r, d] += Σ_t weights[r, t] · values[t, d]`, `t` ascending below `tokens`, one fused multiply-add each.
///
/// `weights` is `[rows, width]` (of the last row the first `tokens` suffice), `values` `[tokens, head_dim]`, `out`
/// `[rows, head_dim]`.
///
/// # Panics
/// If a slice is shorter than its shape, `tokens` exceeds `width`, or `head_dim` is no multiple of [`LANES`]: see
/// [`accumulate_any`].
pub fn accumulate(
    weights: &[f32],
    rows: usize,
    width: usize,
    values: &[f32],
    tokens: usize,
    head_dim: usize,
    out: &mut [f32],
) {
    assert!(
        head_dim.is_multiple_of(LANES),
        "head_dim {head_dim} is a multiple of {LANES}"
    );
    check_accumulate(weights, rows, width, values, tokens, head_dim, out);
    simd::accumulate(weights, rows, width, values, tokens, head_dim, out);
}

/// [`accumulate`] for a `head_dim` that is no multiple of [`LANES`] (tiny test models), without vectors.
///
/// # Panics
/// If a slice is shorter than its shape or `tokens` exceeds `width`.
pub fn accumulate_any(
    weights: &[f32],
    rows: usize,
    width: usize,
    values: &[f32],
    tokens: usize,
    head_dim: usize,
    out: &mut [f32],
) {
    if head_dim.is_multiple_of(LANES) {
        return accumulate(weights, rows, width, values, tokens, head_dim, out);
    }
    check_accumulate(weights, rows, width, values, tokens, head_dim, out);
    for r in 0..rows {
        for (&weight, value) in weights[r * width..r * width + tokens]
            .iter()
            .zip(values.chunks_exact(head_dim))
        {
            for (o, &v) in out[r * head_dim..(r + 1) * head_dim].iter_mut().zip(value) {
                *o = weight.mul_add(v, *o);
            }
        }
    }
}

/// What the safety of [`accumulate`] rests on.
fn check_accumulate(
    weights: &[f32],
    rows: usize,
    width: usize,
    values: &[f32],
    tokens: usize,
    head_dim: usize,
    out: &[f32],
) {
    let needed = match rows.checked_sub(1) {
        Some(before) => before
            .checked_mul(width)
            .and_then(|n| n.checked_add(tokens)),
        None => Some(0),
    };
    assert!(
        tokens <= width && needed.is_some_and(|n| weights.len() >= n),
        "weights fill their shape up to the last token"
    );
    assert!(
        holds(values, tokens, head_dim) && holds(out, rows, head_dim),
        "values and out fill their shapes"
    );
}

/// Whether a slice has room for `[rows, cols]`; a product that overflows fits nowhere.
fn holds(x: &[f32], rows: usize, cols: usize) -> bool {
    rows.checked_mul(cols).is_some_and(|n| x.len() >= n)
}

/// `e^x` as the vector kernels compute it, relative error below 2 ulp; 0 below -87.3.
pub fn exp(x: f32) -> f32 {
    simd::exp_one(x)
}

/// `out[i] = x[i]`, exactly: tiles that are kept in f16.
///
/// # Panics
/// If the lengths differ.
pub fn widen(x: &[f16], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "as many numbers as places");
    simd::widen(x, out);
}

/// Vector kernels for AVX-512, AVX2 with FMA, and plain Rust, one body for all.
mod simd {
    #![allow(unsafe_code)]

    use super::LANES;
    use half::f16;

    /// Sixteen f32 lanes of some instruction set.
    ///
    /// # Safety
    /// Callers of the methods run on a processor that has the instruction set; pointers are valid for 16 f32.
    trait Lanes: Copy {
        unsafe fn splat(x: f32) -> Self;
        unsafe fn load(from: *const f32) -> Self;
        /// As `load`, from a pointer that is valid for 16 f16.
        unsafe fn widen(from: *const f16) -> Self;
        unsafe fn store(self, to: *mut f32);
        unsafe fn add(self, b: Self) -> Self;
        unsafe fn sub(self, b: Self) -> Self;
        unsafe fn max(self, b: Self) -> Self;
        /// `self · b + c`, rounded once.
        unsafe fn fma(self, b: Self, c: Self) -> Self;
        /// To the nearest integer, ties to even.
        unsafe fn round(self) -> Self;
        /// `self · 2^n` for integral `n` in -126..=127, and 0 where `x < floor`.
        unsafe fn scale(self, n: Self, x: Self, floor: f32) -> Self;
    }

    /// Plain Rust: the twin that the other two are tested against.
    #[derive(Clone, Copy)]
    struct Plain([f32; LANES]);

    impl Plain {
        fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
            Self(std::array::from_fn(|i| f(self.0[i], b.0[i])))
        }
    }

    impl Lanes for Plain {
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Self([x; LANES])
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's pointer is valid for 16 f32.
            Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
        }
        #[inline(always)]
        unsafe fn widen(from: *const f16) -> Self {
            // SAFETY: the caller's pointer is valid for 16 f16.
            Self(unsafe { from.cast::<[f16; LANES]>().read_unaligned() }.map(f16::to_f32))
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's pointer is valid for 16 f32.
            unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            self.zip(b, |a, b| a + b)
        }
        #[inline(always)]
        unsafe fn sub(self, b: Self) -> Self {
            self.zip(b, |a, b| a - b)
        }
        #[inline(always)]
        unsafe fn max(self, b: Self) -> Self {
            // As the x86 instruction: the second operand where the comparison is false.
            self.zip(b, |a, b| if a > b { a } else { b })
        }
        #[inline(always)]
        unsafe fn fma(self, b: Self, c: Self) -> Self {
            Self(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            Self(self.0.map(f32::round_ties_even))
        }
        #[inline(always)]
        unsafe fn scale(self, n: Self, x: Self, floor: f32) -> Self {
            Self(std::array::from_fn(|i| {
                let power = f32::from_bits(((n.0[i] as i32).wrapping_add(127) as u32) << 23);
                if x.0[i] < floor {
                    0.0
                } else {
                    self.0[i] * power
                }
            }))
        }
    }

    #[cfg(target_arch = "x86_64")]
    mod x86 {
        use super::Lanes;
        use half::f16;
        use std::arch::x86_64::*;

        #[derive(Clone, Copy)]
        pub struct Avx512(__m512);

        impl Lanes for Avx512 {
            // SAFETY (all methods): the trait's contract says that the processor has AVX-512F and that pointers are valid.
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                // SAFETY: see above.
                Self(unsafe { _mm512_set1_ps(x) })
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: see above.
                Self(unsafe { _mm512_loadu_ps(from) })
            }
            #[inline(always)]
            unsafe fn widen(from: *const f16) -> Self {
                // SAFETY: see above.
                Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: see above.
                unsafe { _mm512_storeu_ps(to, self.0) }
            }
            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { _mm512_add_ps(self.0, b.0) })
            }
            #[inline(always)]
            unsafe fn sub(self, b: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { _mm512_sub_ps(self.0, b.0) })
            }
            #[inline(always)]
            unsafe fn max(self, b: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { _mm512_max_ps(self.0, b.0) })
            }
            #[inline(always)]
            unsafe fn fma(self, b: Self, c: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
            }
            #[inline(always)]
            unsafe fn round(self) -> Self {
                // SAFETY: see above. Immediate 8: round to nearest even, no exceptions, no fraction bits.
                Self(unsafe { _mm512_roundscale_ps::<8>(self.0) })
            }
            #[inline(always)]
            unsafe fn scale(self, n: Self, x: Self, floor: f32) -> Self {
                // SAFETY: see above.
                unsafe {
                    let power = _mm512_slli_epi32::<23>(_mm512_add_epi32(
                        _mm512_cvtps_epi32(n.0),
                        _mm512_set1_epi32(127),
                    ));
                    let keep = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, _mm512_set1_ps(floor));
                    Self(_mm512_maskz_mul_ps(
                        keep,
                        self.0,
                        _mm512_castsi512_ps(power),
                    ))
                }
            }
        }

        #[derive(Clone, Copy)]
        pub struct Avx2(__m256, __m256);

        impl Lanes for Avx2 {
            // SAFETY (all methods): the trait's contract says that the processor has AVX2, FMA and F16C and that pointers are valid.
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                // SAFETY: see above.
                unsafe { Self(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: see above.
                unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
            }
            #[inline(always)]
            unsafe fn widen(from: *const f16) -> Self {
                // SAFETY: see above.
                unsafe {
                    let [low, high] = [from, from.add(8)]
                        .map(|from| _mm256_cvtph_ps(_mm_loadu_si128(from.cast())));
                    Self(low, high)
                }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: see above.
                unsafe {
                    _mm256_storeu_ps(to, self.0);
                    _mm256_storeu_ps(to.add(8), self.1);
                }
            }
            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                // SAFETY: see above.
                unsafe { Self(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
            }
            #[inline(always)]
            unsafe fn sub(self, b: Self) -> Self {
                // SAFETY: see above.
                unsafe { Self(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1)) }
            }
            #[inline(always)]
            unsafe fn max(self, b: Self) -> Self {
                // SAFETY: see above.
                unsafe { Self(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
            }
            #[inline(always)]
            unsafe fn fma(self, b: Self, c: Self) -> Self {
                // SAFETY: see above.
                unsafe {
                    Self(
                        _mm256_fmadd_ps(self.0, b.0, c.0),
                        _mm256_fmadd_ps(self.1, b.1, c.1),
                    )
                }
            }
            #[inline(always)]
            unsafe fn round(self) -> Self {
                // SAFETY: see above.
                unsafe { Self(_mm256_round_ps::<8>(self.0), _mm256_round_ps::<8>(self.1)) }
            }
            #[inline(always)]
            unsafe fn scale(self, n: Self, x: Self, floor: f32) -> Self {
                /// One half of the sixteen lanes.
                ///
                /// # Safety
                /// As the method around it.
                #[inline(always)]
                unsafe fn half(a: __m256, n: __m256, x: __m256, floor: f32) -> __m256 {
                    // SAFETY: see above.
                    unsafe {
                        let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(
                            _mm256_cvtps_epi32(n),
                            _mm256_set1_epi32(127),
                        ));
                        let keep = _mm256_cmp_ps::<_CMP_NLT_UQ>(x, _mm256_set1_ps(floor));
                        _mm256_and_ps(keep, _mm256_mul_ps(a, _mm256_castsi256_ps(power)))
                    }
                }
                // SAFETY: see above.
                unsafe { Self(half(self.0, n.0, x.0, floor), half(self.1, n.1, x.1, floor)) }
            }
        }
    }

    /// `e^x`: `x = n·ln2 + r`, a polynomial of degree 6 for `e^r`, and the exponent put back.
    ///
    /// # Safety
    /// As [`Lanes`].
    #[inline(always)]
    unsafe fn exp<L: Lanes>(x: L) -> L {
        const FLOOR: f32 = -87.3;
        // SAFETY: the caller's contract is the trait's.
        unsafe {
            // Keeps n above the smallest normal exponent; what lies below the floor becomes 0 at the end.
            let clamped = L::splat(FLOOR).max(x);
            let n = clamped
                .fma(L::splat(std::f32::consts::LOG2_E), L::splat(0.0))
                .round();
            let r = n.fma(L::splat(-0.693_359_4), clamped);
            let r = n.fma(L::splat(2.121_944_4e-4), r);
            let mut p = L::splat(1.0 / 720.0);
            for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
                p = p.fma(r, L::splat(c));
            }
            p.scale(n, x, FLOOR)
        }
    }

    /// The lanes halved again and again: a short chain of operations, where one lane after the other would be a long one.
    #[inline(always)]
    fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut half = LANES / 2;
        while half > 0 {
            for l in 0..half {
                lanes[l] = f(lanes[l], lanes[l + half]);
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The maximum of `before` and the scores, and the sum of the weights that the scores are turned into. Where all are -inf the
    /// weights are 0.
    ///
    /// # Safety
    /// As [`Lanes`]; `scores` is a multiple of 16 long.
    #[inline(always)]
    unsafe fn weigh_body<L: Lanes>(scores: &mut [f32], before: f32) -> (f32, f32) {
        // SAFETY: the caller's contract is that of both.
        unsafe {
            let max = max_body::<L>(scores, before);
            if max == f32::NEG_INFINITY {
                scores.fill(0.0);
                return (max, 0.0);
            }
            (max, exp_sum_body::<L>(scores, max))
        }
    }

    /// # Safety
    /// As [`Lanes`]; `scores` is a multiple of 16 long.
    #[inline(always)]
    unsafe fn max_body<L: Lanes>(scores: &[f32], start: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        // SAFETY: every load lies inside a chunk of 16, the store inside `lanes`.
        unsafe {
            let mut max = L::splat(start);
            for chunk in scores.chunks_exact(LANES) {
                max = L::load(chunk.as_ptr()).max(max);
            }
            max.store(lanes.as_mut_ptr());
        }
        // As the vector instruction, so that this stays one.
        fold(lanes, |a, b| if a > b { a } else { b })
    }

    /// # Safety
    /// As [`Lanes`]; `scores` is a multiple of 16 long.
    #[inline(always)]
    unsafe fn exp_sum_body<L: Lanes>(scores: &mut [f32], max: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        // SAFETY: every load and store lies inside a chunk of 16 or inside `lanes`.
        unsafe {
            let mut sum = L::splat(0.0);
            for chunk in scores.chunks_exact_mut(LANES) {
                let e = exp(L::load(chunk.as_ptr()).sub(L::splat(max)));
                e.store(chunk.as_mut_ptr());
                sum = sum.add(e);
            }
            sum.store(lanes.as_mut_ptr());
        }
        fold(lanes, |a, b| a + b)
    }

    /// # Safety
    /// As [`Lanes`].
    #[inline(always)]
    unsafe fn exp_one_body<L: Lanes>(x: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        // SAFETY: `lanes` holds 16 f32.
        unsafe { exp(L::splat(x)).store(lanes.as_mut_ptr()) };
        lanes[0]
    }

    /// # Safety
    /// As [`Lanes`].
    #[inline(always)]
    unsafe fn widen_body<L: Lanes>(x: &[f16], out: &mut [f32]) {
        let (chunks, tail) = x.as_chunks::<LANES>();
        let (out_chunks, out_tail) = out.as_chunks_mut::<LANES>();
        for (x, out) in chunks.iter().zip(out_chunks) {
            // SAFETY: both are 16 elements.
            unsafe { L::widen(x.as_ptr()).store(out.as_mut_ptr()) };
        }
        out_tail
            .iter_mut()
            .zip(tail)
            .for_each(|(out, x)| *out = x.to_f32());
    }

    /// Scores of `R` rows against `16·W` tokens from token `t` on.
    ///
    /// # Safety
    /// As [`Lanes`]; `q` has `R·head_dim` elements, `keys` `head_dim·width`, `bias` `R`, `out` `R·width`; `t + 16·W <= width`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn scores_block<L: Lanes, const R: usize, const W: usize>(
        q: *const f32,
        head_dim: usize,
        keys: *const f32,
        width: usize,
        t: usize,
        bias: *const f32,
        out: *mut f32,
    ) {
        // SAFETY: all indices stay below the lengths that the contract gives.
        unsafe {
            let mut acc = [[L::splat(0.0); W]; R];
            for (r, row) in acc.iter_mut().enumerate() {
                *row = [L::splat(*bias.add(r)); W];
            }
            for d in 0..head_dim {
                let mut lanes = [L::splat(0.0); W];
                for (w, lane) in lanes.iter_mut().enumerate() {
                    *lane = L::load(keys.add(d * width + t + w * LANES));
                }
                for (r, row) in acc.iter_mut().enumerate() {
                    let q = L::splat(*q.add(r * head_dim + d));
                    for (a, &k) in row.iter_mut().zip(&lanes) {
                        *a = q.fma(k, *a);
                    }
                }
            }
            for (r, row) in acc.iter().enumerate() {
                for (w, a) in row.iter().enumerate() {
                    a.store(out.add(r * width + t + w * LANES));
                }
            }
        }
    }

    /// Rows that are taken together: six hide the latency of a fused multiply-add, three are one group of query heads of many models.
    #[inline(always)]
    fn block(rows: usize) -> usize {
        match rows {
            6.. => 6,
            3.. => 3,
            _ => 1,
        }
    }

    /// # Safety
    /// As [`Lanes`]; slices fill the shapes of [`super::scores`].
    #[inline(always)]
    unsafe fn scores_body<L: Lanes>(
        q: &[f32],
        rows: usize,
        head_dim: usize,
        keys: &[f32],
        width: usize,
        bias: &[f32],
        out: &mut [f32],
    ) {
        let (q, keys, bias, out) = (q.as_ptr(), keys.as_ptr(), bias.as_ptr(), out.as_mut_ptr());
        let pairs = width - width % (2 * LANES);
        let mut r = 0;
        while r < rows {
            let step = block(rows - r);
            // SAFETY: `r + step <= rows` and `t + lanes <= width`, so all stays inside the shapes.
            unsafe {
                let (q, bias, out) = (q.add(r * head_dim), bias.add(r), out.add(r * width));
                for t in (0..pairs).step_by(2 * LANES) {
                    match step {
                        6 => scores_block::<L, 6, 2>(q, head_dim, keys, width, t, bias, out),
                        3 => scores_block::<L, 3, 2>(q, head_dim, keys, width, t, bias, out),
                        _ => scores_block::<L, 1, 2>(q, head_dim, keys, width, t, bias, out),
                    }
                }
                if pairs < width {
                    match step {
                        6 => scores_block::<L, 6, 1>(q, head_dim, keys, width, pairs, bias, out),
                        3 => scores_block::<L, 3, 1>(q, head_dim, keys, width, pairs, bias, out),
                        _ => scores_block::<L, 1, 1>(q, head_dim, keys, width, pairs, bias, out),
                    }
                }
            }
            r += step;
        }
    }

    /// Adds the weighted values of `R` rows and `16·W` channels from channel `c` on.
    ///
    /// # Safety
    /// As [`Lanes`]; `weights` has `(R-1)·width + tokens` elements, `values` `tokens·head_dim`, `out` `R·head_dim`; `c + 16·W <= head_dim`,
    /// `tokens <= width`.
    #[inline(always)]
    unsafe fn accumulate_block<L: Lanes, const R: usize, const W: usize>(
        weights: *const f32,
        width: usize,
        values: *const f32,
        tokens: usize,
        head_dim: usize,
        c: usize,
        out: *mut f32,
    ) {
        // SAFETY: all indices stay below the lengths that the contract gives.
        unsafe {
            let mut acc = [[L::splat(0.0); W]; R];
            for (r, row) in acc.iter_mut().enumerate() {
                for (w, a) in row.iter_mut().enumerate() {
                    *a = L::load(out.add(r * head_dim + c + w * LANES));
                }
            }
            for t in 0..tokens {
                let mut lanes = [L::splat(0.0); W];
                for (w, lane) in lanes.iter_mut().enumerate() {
                    *lane = L::load(values.add(t * head_dim + c + w * LANES));
                }
                for (r, row) in acc.iter_mut().enumerate() {
                    let weight = L::splat(*weights.add(r * width + t));
                    for (a, &v) in row.iter_mut().zip(&lanes) {
                        *a = weight.fma(v, *a);
                    }
                }
            }
            for (r, row) in acc.iter().enumerate() {
                for (w, a) in row.iter().enumerate() {
                    a.store(out.add(r * head_dim + c + w * LANES));
                }
            }
        }
    }

    /// # Safety
    /// As [`Lanes`]; slices fill the shapes of [`super::accumulate`].
    #[inline(always)]
    unsafe fn accumulate_body<L: Lanes>(
        weights: &[f32],
        rows: usize,
        width: usize,
        values: &[f32],
        tokens: usize,
        head_dim: usize,
        out: &mut [f32],
    ) {
        let (weights, values, out) = (weights.as_ptr(), values.as_ptr(), out.as_mut_ptr());
        let pairs = head_dim - head_dim % (2 * LANES);
        let mut r = 0;
        while r < rows {
            let step = block(rows - r);
            // SAFETY: `r + step <= rows` and `c + lanes <= head_dim`, so all stays inside the shapes.
            unsafe {
                let (weights, out) = (weights.add(r * width), out.add(r * head_dim));
                for c in (0..pairs).step_by(2 * LANES) {
                    match step {
                        6 => accumulate_block::<L, 6, 2>(
                            weights, width, values, tokens, head_dim, c, out,
                        ),
                        3 => accumulate_block::<L, 3, 2>(
                            weights, width, values, tokens, head_dim, c, out,
                        ),
                        _ => accumulate_block::<L, 1, 2>(
                            weights, width, values, tokens, head_dim, c, out,
                        ),
                    }
                }
                if pairs < head_dim {
                    match step {
                        6 => accumulate_block::<L, 6, 1>(
                            weights, width, values, tokens, head_dim, pairs, out,
                        ),
                        3 => accumulate_block::<L, 3, 1>(
                            weights, width, values, tokens, head_dim, pairs, out,
                        ),
                        _ => accumulate_block::<L, 1, 1>(
                            weights, width, values, tokens, head_dim, pairs, out,
                        ),
                    }
                }
            }
            r += step;
        }
    }

    /// One function for each kernel that picks the instruction set at run time. The slices' shapes are asserted by the
    /// callers, the wrappers of this file's public part.
    macro_rules! dispatch {
        ($name:ident, $body:ident, ($($argument:ident: $kind:ty),*) $(-> $result:ty)?) => {
            pub fn $name($($argument: $kind),*) $(-> $result)? {
                #[cfg(target_arch = "x86_64")]
                {
                    #[target_feature(enable = "avx512f")]
                    unsafe fn avx512($($argument: $kind),*) $(-> $result)? {
                        // SAFETY: this function runs only where AVX-512F was found.
                        unsafe { $body::<x86::Avx512>($($argument),*) }
                    }
                    #[target_feature(enable = "avx2,fma,f16c")]
                    unsafe fn avx2($($argument: $kind),*) $(-> $result)? {
                        // SAFETY: this function runs only where AVX2, FMA and F16C were found.
                        unsafe { $body::<x86::Avx2>($($argument),*) }
                    }
                    if std::arch::is_x86_feature_detected!("avx512f") {
                        // SAFETY: AVX-512F was found just now.
                        return unsafe { avx512($($argument),*) };
                    }
                    if std::arch::is_x86_feature_detected!("avx2")
                        && std::arch::is_x86_feature_detected!("fma")
                        && std::arch::is_x86_feature_detected!("f16c")
                    {
                        // SAFETY: AVX2, FMA and F16C were found just now.
                        return unsafe { avx2($($argument),*) };
                    }
                }
                // SAFETY: plain Rust needs no instruction set.
                unsafe { $body::<Plain>($($argument),*) }
            }
        };
    }

    dispatch!(weigh, weigh_body, (scores: &mut [f32], before: f32) -> (f32, f32));
    dispatch!(exp_one, exp_one_body, (x: f32) -> f32);
    dispatch!(widen, widen_body, (x: &[f16], out: &mut [f32]));
    dispatch!(scores, scores_body,
        (q: &[f32], rows: usize, head_dim: usize, keys: &[f32], width: usize, bias: &[f32], out: &mut [f32]));
    dispatch!(accumulate, accumulate_body,
        (weights: &[f32], rows: usize, width: usize, values: &[f32], tokens: usize, head_dim: usize, out: &mut [f32]));

    #[cfg(test)]
    mod tests {
        use super::*;

        fn noise(seed: u32, len: usize) -> Vec<f32> {
            let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
            (0..len)
                .map(|_| {
                    x ^= x << 13;
                    x ^= x >> 17;
                    x ^= x << 5;
                    (x as f32 / u32::MAX as f32 - 0.5) * 4.0
                })
                .collect()
        }

        /// Bits of everything the four kernels compute.
        #[allow(clippy::type_complexity)]
        fn run<L: Lanes>(rows: usize, head_dim: usize, width: usize) -> Vec<u32> {
            let (q, k, v, b) = (
                noise(1, rows * head_dim),
                noise(2, head_dim * width),
                noise(3, width * head_dim),
                noise(4, rows),
            );
            let mut s = vec![0.0; rows * width];
            let mut o = noise(5, rows * head_dim);
            let mut bits = vec![];
            // SAFETY: the caller found the instruction set; the slices have the shapes named above.
            unsafe {
                scores_body::<L>(&q, rows, head_dim, &k, width, &b, &mut s);
                for row in s.chunks_exact_mut(width) {
                    row[1] = f32::NEG_INFINITY;
                    let (max, sum) = weigh_body::<L>(&mut row.to_vec(), -3.0);
                    bits.push(sum.to_bits());
                    bits.push(max.to_bits());
                    row[0] = f32::NEG_INFINITY;
                    bits.push(exp_sum_body::<L>(row, max).to_bits());
                }
                accumulate_body::<L>(&s, rows, width, &v, width, head_dim, &mut o);
                let halves: Vec<f16> = k.iter().copied().map(f16::from_f32).collect();
                let mut wide = vec![0.0; k.len()];
                widen_body::<L>(&halves, &mut wide);
                bits.extend(wide.iter().map(|x| x.to_bits()));
                bits.push(exp_one_body::<L>(k[0]).to_bits());
            }
            bits.extend(s.iter().chain(&o).map(|x| x.to_bits()));
            bits
        }

        #[test]
        #[cfg(target_arch = "x86_64")]
        fn every_instruction_set_gives_the_bits_of_plain_rust() {
            for rows in [0, 1, 2, 5, 6, 7, 13, 25] {
                for head_dim in [16, 32, 48, 64, 80, 128] {
                    for width in [16, 32, 48, 128] {
                        let plain = run::<Plain>(rows, head_dim, width);
                        if std::arch::is_x86_feature_detected!("avx512f") {
                            assert_eq!(
                                run::<x86::Avx512>(rows, head_dim, width),
                                plain,
                                "AVX-512 {rows} {head_dim} {width}"
                            );
                        }
                        if std::arch::is_x86_feature_detected!("fma") {
                            assert_eq!(
                                run::<x86::Avx2>(rows, head_dim, width),
                                plain,
                                "AVX2 {rows} {head_dim} {width}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_of_f64() {
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x).exp();
            let got = f64::from(exp(x));
            assert!(
                (got - exact).abs() <= 2.0 * exact * f64::from(f32::EPSILON),
                "exp({x}) = {got}, not {exact}"
            );
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    /// Attention of one query row over `k`, `v` `[tokens, head_dim]` in f64.
    fn oracle(q: &[f32], k: &[f32], v: &[f32], head_dim: usize) -> Vec<f64> {
        let scores: Vec<f64> = k
            .chunks_exact(head_dim)
            .map(|k| {
                k.iter()
                    .zip(q)
                    .map(|(&a, &b)| f64::from(a) * f64::from(b))
                    .sum()
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        (0..head_dim)
            .map(|d| {
                weights
                    .iter()
                    .zip(v.chunks_exact(head_dim))
                    .map(|(w, v)| w * f64::from(v[d]))
                    .sum::<f64>()
                    / sum
            })
            .collect()
    }

    fn attend(q: &[f32], k: &[f32], v: &[f32], head_dim: usize, tile: usize) -> Partial {
        let tokens = k.len() / head_dim;
        let mut partial = Partial::new(1, head_dim);
        for start in (0..tokens).step_by(tile) {
            let here = tile.min(tokens - start);
            let mut keys = vec![0.0; head_dim * tile];
            for t in 0..here {
                for d in 0..head_dim {
                    keys[d * tile + t] = k[(start + t) * head_dim + d];
                }
            }
            let mut s = vec![0.0; tile];
            scores(q, 1, head_dim, &keys, tile, &[0.0], &mut s);
            weigh(&mut partial, 0, &mut s, here);
            accumulate_any(
                &s,
                1,
                tile,
                &v[start * head_dim..],
                here,
                head_dim,
                partial.out(),
            );
        }
        partial
    }

    #[test]
    fn tiles_and_merged_partials_equal_the_f64_oracle() {
        for head_dim in [8, 16, 64, 80] {
            for tokens in [1, 2, 15, 16, 17, 31, 33, 97] {
                let wave = |f: f32, len: usize| {
                    (0..len)
                        .map(|i| (i as f32 * f).sin() * 1.5)
                        .collect::<Vec<_>>()
                };
                let (q, k, v) = (
                    wave(0.7, head_dim),
                    wave(0.31, tokens * head_dim),
                    wave(0.53, tokens * head_dim),
                );
                let expected = oracle(&q, &k, &v, head_dim);
                let mut whole = attend(&q, &k, &v, head_dim, 32);
                whole.finish();
                let cut = tokens / 2 * head_dim;
                let mut merged = attend(&q, &k[..cut], &v[..cut], head_dim, 16);
                merged.merge(&attend(&q, &k[cut..], &v[cut..], head_dim, 16));
                merged.finish();
                for (d, e) in expected.iter().enumerate() {
                    for got in [whole.out()[d], merged.out()[d]] {
                        assert!(
                            (f64::from(got) - e).abs() < 2e-5,
                            "head_dim {head_dim}, {tokens} tokens: {got}, not {e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_that_sees_nothing_is_zero() {
        let mut partial = Partial::new(2, 16);
        let mut s = vec![3.0; 16];
        weigh(&mut partial, 1, &mut s, 0);
        assert!(s.iter().all(|&x| x == 0.0));
        let nothing = partial.clone();
        partial.merge(&nothing);
        partial.finish();
        assert!(partial.out().iter().all(|&x| x == 0.0));
    }

    /// Sixteen times this is 2^64, which is 0 to arithmetic that wraps.
    const WRAPS: usize = 1 << 60;

    #[test]
    #[should_panic(expected = "q and keys fill their shapes")]
    fn scores_refuse_a_shape_whose_size_wraps() {
        scores(&[], 16, WRAPS, &[], 16, &[0.0; 16], &mut [0.0; 256]);
    }

    #[test]
    #[should_panic(expected = "bias and out fill their shapes")]
    fn scores_refuse_an_out_whose_size_wraps() {
        scores(&[], WRAPS, 0, &[], 16, &[0.0; 16], &mut []);
    }

    #[test]
    #[should_panic(expected = "values and out fill their shapes")]
    fn accumulate_refuses_a_shape_whose_size_wraps() {
        accumulate(&[0.0; 256], 16, 16, &[], 16, WRAPS, &mut []);
    }

    #[test]
    #[should_panic(expected = "weights fill their shape")]
    fn accumulate_refuses_weights_whose_size_wraps() {
        accumulate(&[], 17, WRAPS, &[], 0, 0, &mut []);
    }

    #[test]
    #[should_panic(expected = "weights fill their shape")]
    fn accumulate_wants_the_last_row_up_to_the_last_token() {
        accumulate(&[0.0; 18], 2, 16, &[0.0; 48], 3, 16, &mut [0.0; 32]);
    }

    #[test]
    fn accumulate_wants_no_more_of_the_last_row() {
        let mut out = [0.0; 32];
        accumulate(&[1.0; 19], 2, 16, &[1.0; 48], 3, 16, &mut out);
        assert_eq!(out, [3.0; 32]);
        accumulate(&[], 0, 16, &[1.0; 48], 3, 16, &mut out);
        assert_eq!(out, [3.0; 32]);
    }

    #[test]
    #[should_panic(expected = "values and out fill their shapes")]
    fn accumulate_any_refuses_short_values() {
        accumulate_any(&[0.0; 16], 1, 16, &[0.0; 23], 3, 8, &mut [0.0; 8]);
    }

    #[test]
    fn rows_without_channels_are_folded_and_finished() {
        let mut partial = Partial::new(2, 0);
        let mut s = vec![1.0; 16];
        scores(&[], 1, 0, &[], 16, &[0.5], &mut s);
        assert_eq!(s, [0.5; 16]);
        weigh(&mut partial, 0, &mut s, 5);
        accumulate_any(&s, 1, 16, &[], 5, 0, partial.out());
        partial.merge(&Partial::new(2, 0));
        partial.finish();
        assert_eq!((partial.rows(), partial.out().len()), (2, 0));
    }

    #[test]
    #[should_panic(expected = "capacity overflow")]
    fn a_partial_beyond_memory_is_refused() {
        Partial::new(16, WRAPS);
    }
}
