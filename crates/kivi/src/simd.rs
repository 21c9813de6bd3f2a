//! Instruction sets, and sixteen f32 at a time on each of them.
//!
//! A kernel is written once; [`Isa`] compiles it for every instruction set and runs the one that it names. All give the same bits:
//! operations are single IEEE operations, rounded to nearest even, except where a fused product or a reciprocal is proven to give
//! the same result.
//!
//! Closures inside a kernel inherit the instruction set only as far as the compiler inlines them. What a hot loop calls with
//! vectors is therefore a function marked `#[inline(always)]`.
#![allow(unsafe_code)]

use half::f16;

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Level {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// No vectors beyond what the target has anyway.
    pub const SCALAR: Self = Self(Level::Scalar);

    /// The widest instruction set of this machine.
    #[must_use]
    #[inline]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx512() {
                return Self(Level::Avx512);
            }
            if has_avx2() {
                return Self(Level::Avx2);
            }
        }
        Self::SCALAR
    }

    /// All instruction sets of this machine, the widest last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx2() {
                all.push(Self(Level::Avx2));
            }
            if has_avx512() {
                all.push(Self(Level::Avx512));
            }
        }
        all
    }

    /// `"scalar"`, `"avx2"` or `"avx512"`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
        }
    }

    /// Runs the kernel, compiled for this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Level::Scalar => kernel.run::<Scalar>(),
            // SAFETY: an `Isa` of this level is made only by `detect` and `available`, and only where `has_avx2` saw every
            // feature that `run_avx2` is compiled for.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { x86::run_avx2(kernel) },
            // SAFETY: as above, with `has_avx512` and `run_avx512`.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { x86::run_avx512(kernel) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// Code that is compiled for each instruction set.
pub(crate) trait Kernel {
    type Output;

    /// Implementations are `#[inline(always)]`, so that they take on the instruction set of the caller.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Sixteen f32. Each method is one IEEE operation per lane, rounded to nearest even, unless it says otherwise.
pub(crate) trait Lanes: Copy {
    fn splat(x: f32) -> Self;
    fn load(x: &[f32; 16]) -> Self;
    /// Exact.
    fn load_f16(x: &[f16; 16]) -> Self;
    fn store(self, to: &mut [f32; 16]);
    /// Stores lanes that are integers from 0 to 255.
    fn store_u8(self, to: &mut [u8; 16]);
    /// Stores lanes rounded to f16.
    fn store_f16(self, to: &mut [f16; 16]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `if self < other { self } else { other }`
    fn min(self, other: Self) -> Self;
    /// `if self > other { self } else { other }`
    fn max(self, other: Self) -> Self;
    /// `self · factor + term`, rounded once or twice. The same to the bit wherever the product is exact in f32.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// A divisor for [`quotient`](Self::quotient): an f16 above 0 or a power of two.
    fn divisor(self) -> [Self; 2];
    /// `self / divisor`. Its last bit may differ between instruction sets, but up to 16 it stands on the same side of each `k + 1/2`
    /// as the correctly rounded quotient, and on it where that does, so both round to the same integer. `self` is 0 or neither
    /// huge nor tiny, as differences of f16 are.
    fn quotient(self, divisor: [Self; 2]) -> Self;
    /// To the nearest f16.
    fn round_f16(self) -> Self;
    /// `other` where `self` is 0.
    fn or_where_zero(self, other: Self) -> Self;
    /// The first of the smallest lanes.
    fn first_min(self) -> usize;
    /// Smallest lane; which of two zeros is not defined.
    fn reduce_min(self) -> f32;
    /// Largest lane; which of two zeros is not defined.
    fn reduce_max(self) -> f32;
}

/// [`Lanes`] in plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Scalar([f32; 16]);

impl Scalar {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Scalar {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; 16])
    }

    #[inline(always)]
    fn load(x: &[f32; 16]) -> Self {
        Self(*x)
    }

    #[inline(always)]
    fn load_f16(x: &[f16; 16]) -> Self {
        Self(x.map(f16::to_f32))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; 16]) {
        *to = self.0;
    }

    #[inline(always)]
    fn store_u8(self, to: &mut [u8; 16]) {
        *to = self.0.map(|x| x as u8);
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [f16; 16]) {
        *to = self.0.map(f16::from_f32);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        self.mul(factor).add(term)
    }

    #[inline(always)]
    fn divisor(self) -> [Self; 2] {
        [self; 2]
    }

    #[inline(always)]
    fn quotient(self, divisor: [Self; 2]) -> Self {
        self.div(divisor[0])
    }

    #[inline(always)]
    fn round_f16(self) -> Self {
        Self(self.0.map(|x| f16::from_f32(x).to_f32()))
    }

    #[inline(always)]
    fn or_where_zero(self, other: Self) -> Self {
        self.zip(other, |a, b| if a == 0.0 { b } else { a })
    }

    #[inline(always)]
    fn first_min(self) -> usize {
        let mut first = 0;
        for (i, x) in self.0.iter().enumerate() {
            if *x < self.0[first] {
                first = i;
            }
        }
        first
    }

    #[inline(always)]
    fn reduce_min(self) -> f32 {
        self.0
            .into_iter()
            .fold(self.0[0], |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn reduce_max(self) -> f32 {
        self.0
            .into_iter()
            .fold(self.0[0], |a, b| if a > b { a } else { b })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Lanes, f16};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx2>()
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx512>()
    }

    /// `1/s` as the sum of two f32, up to a relative error of `2^-47`: the first is off by `ε ≤ 2^-24`, the fused product gives
    /// `−ε` exactly, and `(1 + ε)(1 − ε) = 1 − ε²`. Needs a `mul_add` that rounds once.
    #[inline(always)]
    fn reciprocal<L: Lanes>(s: L) -> [L; 2] {
        let one = L::splat(1.0);
        let high = one.div(s);
        let rest = L::splat(0.0).sub(high).mul_add(s, one);
        [high, rest.mul(high)]
    }

    /// `x/s` without a division per number, for [`Lanes::quotient`].
    ///
    /// Why it stands where the division does relative to `h = k + 1/2`, `k` an integer below 16: let `u(y)` be the distance of f32
    /// from `y` up. `h·s` has at most 16 significant bits, so it is an f32, and the sum below, before it is rounded, is `x/s` up to
    /// a relative error of `2^-46`.
    /// * `x = h·s`: the sum is `h` up to that error and rounds to `h`, as the division does.
    /// * otherwise `x` is at least `u(h·s)` away from `h·s` (or half of that, below a power of two, but then `h` and `s` are powers
    ///   of two and nothing is rounded at all). As `s` has 11 significant bits, `s ≤ (2 − 2^-10)·2^e` with `2^e ≤ s`, and
    ///   `|x/s − h| ≥ u(h·s)/s ≥ (1 + 2^-11)·u(h)/2`. The sum errs by far less than the `2^-11` part, so like the division it rounds
    ///   to a neighbour of `h` or beyond, on the side of `x/s`.
    #[inline(always)]
    fn divide<L: Lanes>(x: L, [high, low]: [L; 2]) -> L {
        x.mul_add(high, x.mul(low))
    }

    /// Two registers of eight. Named only by `run_avx2`, so its methods run only where AVX2, FMA and F16C are.
    #[derive(Clone, Copy)]
    struct Avx2(__m256, __m256);

    impl Avx2 {
        #[inline(always)]
        fn zip(self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
            Self(f(self.0, other.0), f(self.1, other.1))
        }

        /// Each value rounded to f16.
        #[inline(always)]
        fn to_f16(self) -> [__m128i; 2] {
            // SAFETY: F16C is present, see the type.
            unsafe {
                [
                    _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0),
                    _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1),
                ]
            }
        }
    }

    impl Lanes for Avx2 {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: AVX is present, see the type.
            let x = unsafe { _mm256_set1_ps(x) };
            Self(x, x)
        }

        #[inline(always)]
        fn load(x: &[f32; 16]) -> Self {
            // SAFETY: AVX is present, see the type; both unaligned loads of eight f32 lie inside the sixteen of `x`.
            unsafe {
                Self(
                    _mm256_loadu_ps(x.as_ptr()),
                    _mm256_loadu_ps(x.as_ptr().add(8)),
                )
            }
        }

        #[inline(always)]
        fn load_f16(x: &[f16; 16]) -> Self {
            let x = x.as_ptr().cast::<__m128i>();
            // SAFETY: F16C is present, see the type; both unaligned loads of eight f16 lie inside the sixteen of `x`.
            unsafe {
                Self(
                    _mm256_cvtph_ps(_mm_loadu_si128(x)),
                    _mm256_cvtph_ps(_mm_loadu_si128(x.add(1))),
                )
            }
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; 16]) {
            // SAFETY: AVX is present, see the type; both unaligned stores of eight f32 lie inside the sixteen of `to`.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), self.0);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
            }
        }

        #[inline(always)]
        fn store_u8(self, to: &mut [u8; 16]) {
            // SAFETY: AVX2 is present, see the type; the unaligned store of sixteen bytes fills `to`.
            unsafe {
                // Packing works within halves of 128 bits, which the permutation puts in order.
                let words =
                    _mm256_packus_epi32(_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
                let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
                let bytes = _mm_packus_epi16(
                    _mm256_castsi256_si128(words),
                    _mm256_extracti128_si256::<1>(words),
                );
                _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
            }
        }

        #[inline(always)]
        fn store_f16(self, to: &mut [f16; 16]) {
            let [low, high] = self.to_f16();
            let to = to.as_mut_ptr().cast::<__m128i>();
            // SAFETY: SSE2 is always present on x86-64; both unaligned stores of eight f16 lie inside the sixteen of `to`.
            unsafe {
                _mm_storeu_si128(to, low);
                _mm_storeu_si128(to.add(1), high);
            }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: AVX is present, see the type.
            self.zip(other, |a, b| unsafe { _mm256_add_ps(a, b) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: AVX is present, see the type.
            self.zip(other, |a, b| unsafe { _mm256_sub_ps(a, b) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: AVX is present, see the type.
            self.zip(other, |a, b| unsafe { _mm256_mul_ps(a, b) })
        }

        #[inline(always)]
        fn div(self, other: Self) -> Self {
            // SAFETY: AVX is present, see the type.
            self.zip(other, |a, b| unsafe { _mm256_div_ps(a, b) })
        }

        #[inline(always)]
        fn min(self, other: Self) -> Self {
            // SAFETY: AVX is present, see the type.
            self.zip(other, |a, b| unsafe { _mm256_min_ps(a, b) })
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: AVX is present, see the type.
            self.zip(other, |a, b| unsafe { _mm256_max_ps(a, b) })
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: FMA is present, see the type.
            unsafe {
                Self(
                    _mm256_fmadd_ps(self.0, factor.0, term.0),
                    _mm256_fmadd_ps(self.1, factor.1, term.1),
                )
            }
        }

        #[inline(always)]
        fn divisor(self) -> [Self; 2] {
            reciprocal(self)
        }

        #[inline(always)]
        fn quotient(self, divisor: [Self; 2]) -> Self {
            divide(self, divisor)
        }

        #[inline(always)]
        fn round_f16(self) -> Self {
            let [low, high] = self.to_f16();
            // SAFETY: F16C is present, see the type.
            unsafe { Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)) }
        }

        #[inline(always)]
        fn or_where_zero(self, other: Self) -> Self {
            self.zip(other, |a, b| {
                // SAFETY: AVX is present, see the type.
                unsafe {
                    _mm256_blendv_ps(a, b, _mm256_cmp_ps::<_CMP_EQ_OQ>(a, _mm256_setzero_ps()))
                }
            })
        }

        #[inline(always)]
        fn first_min(self) -> usize {
            let min = Self::splat(self.reduce_min());
            // SAFETY: AVX is present, see the type.
            let equal =
                |a, b| unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(a, b)) as u32 };
            let mask = equal(self.0, min.0) | equal(self.1, min.1) << 8;
            // No lane is equal where a lane is NaN; 32 becomes 0.
            mask.trailing_zeros() as usize % 16
        }

        #[inline(always)]
        fn reduce_min(self) -> f32 {
            // SAFETY: AVX is present, see the type.
            unsafe {
                let x = _mm256_min_ps(self.0, self.1);
                let x = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let x = _mm_min_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_min_ss(x, _mm_movehdup_ps(x)))
            }
        }

        #[inline(always)]
        fn reduce_max(self) -> f32 {
            // SAFETY: AVX is present, see the type.
            unsafe {
                let x = _mm256_max_ps(self.0, self.1);
                let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
            }
        }
    }

    /// One register of sixteen. Named only by `run_avx512`, so its methods run only where AVX-512 F, BW, DQ and VL are.
    #[derive(Clone, Copy)]
    struct Avx512(__m512);

    impl Lanes for Avx512 {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: AVX-512 is present, see the type.
            Self(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        fn load(x: &[f32; 16]) -> Self {
            // SAFETY: AVX-512 is present, see the type; the unaligned load reads the sixteen f32 of `x`.
            Self(unsafe { _mm512_loadu_ps(x.as_ptr()) })
        }

        #[inline(always)]
        fn load_f16(x: &[f16; 16]) -> Self {
            // SAFETY: AVX-512 is present, see the type; the unaligned load reads the sixteen f16 of `x`.
            Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) })
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; 16]) {
            // SAFETY: AVX-512 is present, see the type; the unaligned store fills `to`.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
        }

        #[inline(always)]
        fn store_u8(self, to: &mut [u8; 16]) {
            // SAFETY: AVX-512 is present, see the type; the unaligned store of sixteen bytes fills `to`.
            unsafe {
                let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0));
                _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
            }
        }

        #[inline(always)]
        fn store_f16(self, to: &mut [f16; 16]) {
            // SAFETY: AVX-512 is present, see the type; the unaligned store fills the sixteen f16 of `to`.
            unsafe {
                let half = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0);
                _mm256_storeu_si256(to.as_mut_ptr().cast(), half);
            }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: AVX-512 is present, see the type.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: AVX-512 is present, see the type.
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: AVX-512 is present, see the type.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn div(self, other: Self) -> Self {
            // SAFETY: AVX-512 is present, see the type.
            Self(unsafe { _mm512_div_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn min(self, other: Self) -> Self {
            // SAFETY: AVX-512 is present, see the type.
            Self(unsafe { _mm512_min_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: AVX-512 is present, see the type.
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: AVX-512 is present, see the type.
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
        }

        #[inline(always)]
        fn divisor(self) -> [Self; 2] {
            reciprocal(self)
        }

        #[inline(always)]
        fn quotient(self, divisor: [Self; 2]) -> Self {
            divide(self, divisor)
        }

        #[inline(always)]
        fn round_f16(self) -> Self {
            // SAFETY: AVX-512 is present, see the type.
            Self(unsafe { _mm512_cvtph_ps(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)) })
        }

        #[inline(always)]
        fn or_where_zero(self, other: Self) -> Self {
            // SAFETY: AVX-512 is present, see the type.
            unsafe {
                let zero = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, _mm512_setzero_ps());
                Self(_mm512_mask_blend_ps(zero, self.0, other.0))
            }
        }

        #[inline(always)]
        fn first_min(self) -> usize {
            let min = Self::splat(self.reduce_min());
            // SAFETY: AVX-512 is present, see the type.
            let mask = unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, min.0) };
            // No lane is equal where a lane is NaN; 32 becomes 0.
            u32::from(mask).trailing_zeros() as usize % 16
        }

        #[inline(always)]
        fn reduce_min(self) -> f32 {
            // SAFETY: AVX-512 is present, see the type.
            unsafe { _mm512_reduce_min_ps(self.0) }
        }

        #[inline(always)]
        fn reduce_max(self) -> f32 {
            // SAFETY: AVX-512 is present, see the type.
            unsafe { _mm512_reduce_max_ps(self.0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Quotients<'a> {
        numerators: &'a [[f32; 16]],
        divisors: &'a [[f32; 16]],
        out: &'a mut [[f32; 16]],
    }

    impl Kernel for Quotients<'_> {
        type Output = ();

        #[inline(always)]
        fn run<L: Lanes>(self) {
            for ((x, s), out) in self.numerators.iter().zip(self.divisors).zip(self.out) {
                L::load(x).quotient(L::load(s).divisor()).store(out);
            }
        }
    }

    #[test]
    fn quotients_stand_where_division_does_relative_to_every_half_integer() {
        let (mut boundaries, mut numerators, mut divisors) = (vec![], vec![], vec![]);
        for scale in 1..f16::INFINITY.to_bits() {
            let scale = f16::from_bits(scale).to_f32();
            for boundary in (0..16).map(|k| k as f32 + 0.5) {
                let tie = boundary * scale;
                for x in [tie.next_down(), tie, tie.next_up()] {
                    boundaries.push(boundary);
                    numerators.push(x);
                    divisors.push(scale);
                }
            }
        }
        for isa in Isa::available() {
            let mut found = vec![[0.0; 16]; numerators.len() / 16];
            isa.run(Quotients {
                numerators: numerators.as_chunks().0,
                divisors: divisors.as_chunks().0,
                out: &mut found,
            });
            for (i, found) in found.as_flattened().iter().enumerate() {
                let exact = numerators[i] / divisors[i];
                assert_eq!(
                    found.total_cmp(&boundaries[i]),
                    exact.total_cmp(&boundaries[i]),
                    "{}: {} / {} is {exact}, found {found}",
                    isa.name(),
                    numerators[i],
                    divisors[i],
                );
            }
        }
    }

    struct RoundF16<'a>(&'a [[f32; 16]], &'a mut [[f32; 16]]);

    impl Kernel for RoundF16<'_> {
        type Output = ();

        #[inline(always)]
        fn run<L: Lanes>(self) {
            for (from, to) in self.0.iter().zip(self.1) {
                L::load(from).round_f16().store(to);
            }
        }
    }

    #[test]
    fn rounding_to_f16_takes_ties_to_even_on_every_instruction_set() {
        let mut from = Vec::new();
        for bits in 0..f16::MAX.to_bits() {
            let (low, high) = (
                f16::from_bits(bits).to_f32(),
                f16::from_bits(bits + 1).to_f32(),
            );
            let tie = f32::midpoint(low, high);
            from.extend([
                low,
                tie.next_down(),
                tie,
                tie.next_up(),
                -low,
                -tie.next_down(),
                -tie,
                -tie.next_up(),
            ]);
        }
        from.extend([f32::MIN_POSITIVE; 8]);
        let expected: Vec<u32> = from
            .iter()
            .map(|x| f16::from_f32_const(*x).to_f32_const().to_bits())
            .collect();
        for isa in Isa::available() {
            let mut to = vec![[0.0; 16]; from.len() / 16];
            isa.run(RoundF16(from.as_chunks().0, &mut to));
            let found: Vec<u32> = to.as_flattened().iter().map(|x| x.to_bits()).collect();
            assert!(found == expected[..found.len()], "{}", isa.name());
        }
    }
}
