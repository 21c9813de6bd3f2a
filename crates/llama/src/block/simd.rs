//! Loops over blocks for this processor's vectors. All instruction sets give the same bits.
#![allow(unsafe_code)]

use super::super_block::{self, GROUPS, Groups};
use super::{LANES, LEN, Q4_0, Q4_1, Q8_0, widen, widen_bf16};
use crate::gguf::GgmlType;
use half::f16;

/// Sixteen f32 of some instruction set.
///
/// # Safety
/// Callers of the methods run on a processor that has the instruction set.
trait Lanes: Copy {
    unsafe fn zero() -> Self;
    unsafe fn load(from: &[f32; LANES]) -> Self;
    /// The number in all lanes.
    unsafe fn splat(number: f32) -> Self;
    /// A little-endian f16 in all lanes.
    unsafe fn half(bytes: [u8; 2]) -> Self;
    /// Two little-endian f16, each in all lanes.
    #[inline(always)]
    unsafe fn halves([a0, a1, b0, b1]: [u8; 4]) -> [Self; 2] {
        // SAFETY: the caller's contract is that of `half`.
        unsafe { [Self::half([a0, a1]), Self::half([b0, b1])] }
    }
    unsafe fn low_nibbles(codes: &[u8; LANES]) -> Self;
    unsafe fn high_nibbles(codes: &[u8; LANES]) -> Self;
    /// The bytes as signed numbers.
    unsafe fn signed(codes: &[u8; LANES]) -> Self;
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    /// `self · b + c`, rounded once.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    unsafe fn to_array(self) -> [f32; LANES];
    /// Asks for the memory some way behind `block`, which the next blocks will come from. A mapped file has small pages, and the
    /// processor by itself doesn't look beyond the end of one.
    unsafe fn prefetch(block: &[u8]) {
        let _ = block;
    }
}

/// Bytes that lie between a block and what is asked for beside it: what arrives while a line of memory is on its way.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4096;

/// Plain Rust: the twin that the others are tested against.
#[derive(Clone, Copy)]
struct Plain([f32; LANES]);

impl Lanes for Plain {
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: &[f32; LANES]) -> Self {
        Self(*from)
    }
    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        Self([number; LANES])
    }
    #[inline(always)]
    unsafe fn half(bytes: [u8; 2]) -> Self {
        Self([f16::from_le_bytes(bytes).to_f32(); LANES])
    }
    #[inline(always)]
    unsafe fn low_nibbles(codes: &[u8; LANES]) -> Self {
        Self(codes.map(|code| f32::from(code & 15)))
    }
    #[inline(always)]
    unsafe fn high_nibbles(codes: &[u8; LANES]) -> Self {
        Self(codes.map(|code| f32::from(code >> 4)))
    }
    #[inline(always)]
    unsafe fn signed(codes: &[u8; LANES]) -> Self {
        Self(codes.map(|code| f32::from(code as i8)))
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + b.0[lane]))
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * b.0[lane]))
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            self.0[lane].mul_add(b.0[lane], c.0[lane])
        }))
    }
    #[inline(always)]
    unsafe fn to_array(self) -> [f32; LANES] {
        self.0
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{AHEAD, LANES, Lanes};
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub struct Avx512(__m512);

    impl Lanes for Avx512 {
        // SAFETY (all methods): the trait's contract says that the processor has AVX-512F; every array that is loaded or
        // stored has as many bytes as the register.
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn load(from: &[f32; LANES]) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
        }
        #[inline(always)]
        unsafe fn splat(number: f32) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_set1_ps(number) })
        }
        #[inline(always)]
        unsafe fn half(bytes: [u8; 2]) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes(bytes))) })
        }
        #[inline(always)]
        unsafe fn halves(bytes: [u8; 4]) -> [Self; 2] {
            // SAFETY: see above.
            unsafe {
                let both = _mm512_cvtph_ps(_mm256_set1_epi32(i32::from_le_bytes(bytes)));
                [
                    Self(_mm512_moveldup_ps(both)),
                    Self(_mm512_movehdup_ps(both)),
                ]
            }
        }
        #[inline(always)]
        unsafe fn low_nibbles(codes: &[u8; LANES]) -> Self {
            // SAFETY: see above.
            unsafe {
                let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.as_ptr().cast()));
                Self(_mm512_cvtepi32_ps(_mm512_and_si512(
                    codes,
                    _mm512_set1_epi32(15),
                )))
            }
        }
        #[inline(always)]
        unsafe fn high_nibbles(codes: &[u8; LANES]) -> Self {
            // SAFETY: see above.
            unsafe {
                let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.as_ptr().cast()));
                Self(_mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(codes)))
            }
        }
        #[inline(always)]
        unsafe fn signed(codes: &[u8; LANES]) -> Self {
            // SAFETY: see above.
            Self(unsafe {
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(codes.as_ptr().cast())))
            })
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_add_ps(self.0, b.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_mul_ps(self.0, b.0) })
        }
        #[inline(always)]
        unsafe fn fma(self, b: Self, c: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        unsafe fn to_array(self) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(array.as_mut_ptr(), self.0) };
            array
        }
        #[inline(always)]
        unsafe fn prefetch(block: &[u8]) {
            // SAFETY: a prefetch reads nothing that the program sees, whatever the address is.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(AHEAD).cast()) };
        }
    }

    #[derive(Clone, Copy)]
    pub struct Avx2(__m256, __m256);

    impl Avx2 {
        /// The sixteen bytes as two registers of 32-bit numbers without sign.
        ///
        /// # Safety
        /// The processor has AVX2.
        #[inline(always)]
        unsafe fn unsigned(codes: &[u8; LANES]) -> [__m256i; 2] {
            // SAFETY: the array has the 16 bytes that are loaded.
            unsafe {
                let codes = _mm_loadu_si128(codes.as_ptr().cast());
                [
                    _mm256_cvtepu8_epi32(codes),
                    _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(codes)),
                ]
            }
        }
    }

    impl Lanes for Avx2 {
        // SAFETY (all methods): the trait's contract says that the processor has AVX2, FMA and F16C; every array that is loaded or
        // stored has as many bytes as the registers.
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_setzero_ps(), _mm256_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn load(from: &[f32; LANES]) -> Self {
            // SAFETY: see above.
            unsafe {
                Self(
                    _mm256_loadu_ps(from.as_ptr()),
                    _mm256_loadu_ps(from.as_ptr().add(8)),
                )
            }
        }
        #[inline(always)]
        unsafe fn splat(number: f32) -> Self {
            // SAFETY: see above.
            let all = unsafe { _mm256_set1_ps(number) };
            Self(all, all)
        }
        #[inline(always)]
        unsafe fn half(bytes: [u8; 2]) -> Self {
            // SAFETY: see above.
            let all = unsafe { _mm256_cvtph_ps(_mm_set1_epi16(i16::from_le_bytes(bytes))) };
            Self(all, all)
        }
        #[inline(always)]
        unsafe fn low_nibbles(codes: &[u8; LANES]) -> Self {
            // SAFETY: see above.
            unsafe {
                let [a, b] =
                    Self::unsigned(codes).map(|c| _mm256_and_si256(c, _mm256_set1_epi32(15)));
                Self(_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b))
            }
        }
        #[inline(always)]
        unsafe fn high_nibbles(codes: &[u8; LANES]) -> Self {
            // SAFETY: see above.
            unsafe {
                let [a, b] = Self::unsigned(codes).map(|c| _mm256_srli_epi32::<4>(c));
                Self(_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b))
            }
        }
        #[inline(always)]
        unsafe fn signed(codes: &[u8; LANES]) -> Self {
            // SAFETY: see above.
            unsafe {
                let codes = _mm_loadu_si128(codes.as_ptr().cast());
                let [a, b] = [codes, _mm_srli_si128::<8>(codes)].map(|c| _mm256_cvtepi8_epi32(c));
                Self(_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b))
            }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
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
        unsafe fn to_array(self) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            // SAFETY: see above.
            unsafe {
                _mm256_storeu_ps(array.as_mut_ptr(), self.0);
                _mm256_storeu_ps(array.as_mut_ptr().add(8), self.1);
            }
            array
        }
        #[inline(always)]
        unsafe fn prefetch(block: &[u8]) {
            // SAFETY: a prefetch reads nothing that the program sees, whatever the address is.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(AHEAD).cast()) };
        }
    }
}

/// `Σ_b d_b · Σ_i q_i · x_i` over blocks `b` of Q8_0.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn dot_q8_0<L: Lanes>(bytes: &[u8], x: &[f32]) -> f32 {
    // SAFETY: the caller's contract is the trait's.
    unsafe {
        let mut lanes = L::zero();
        for ([d0, d1, codes @ ..], x) in bytes
            .as_chunks::<Q8_0>()
            .0
            .iter()
            .zip(x.as_chunks::<LEN>().0)
        {
            L::prefetch(codes);
            let (codes, x) = (codes.as_chunks().0, x.as_chunks().0);
            let low = L::signed(&codes[0]).mul(L::load(&x[0]));
            let both = L::signed(&codes[1]).fma(L::load(&x[1]), low);
            lanes = L::half([*d0, *d1]).fma(both, lanes);
        }
        sum(lanes.to_array())
    }
}

/// `Σ_b d_b · Σ_i (q_i − 8) · x_i` over blocks `b` of Q4_0.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn dot_q4_0<L: Lanes>(bytes: &[u8], x: &[f32]) -> f32 {
    // SAFETY: the caller's contract is the trait's.
    unsafe {
        let mut lanes = L::zero();
        let zero_point = L::splat(-8.0);
        for ([d0, d1, codes @ ..], x) in bytes
            .as_chunks::<Q4_0>()
            .0
            .iter()
            .zip(x.as_chunks::<LEN>().0)
        {
            L::prefetch(codes);
            let x = x.as_chunks().0;
            let low = L::low_nibbles(codes).add(zero_point).mul(L::load(&x[0]));
            let high = L::high_nibbles(codes).add(zero_point);
            let both = high.fma(L::load(&x[1]), low);
            lanes = L::half([*d0, *d1]).fma(both, lanes);
        }
        sum(lanes.to_array())
    }
}

/// `Σ_b (d_b · Σ_i q_i · x_i + m_b · Σ_i x_i)` over blocks `b` of Q4_1.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn dot_q4_1<L: Lanes>(bytes: &[u8], x: &[f32]) -> f32 {
    // SAFETY: the caller's contract is the trait's.
    unsafe {
        // Two sums: one would be a chain of two fused multiply-adds a block.
        let (mut scaled, mut shifted) = (L::zero(), L::zero());
        for ([d0, d1, m0, m1, codes @ ..], x) in bytes
            .as_chunks::<Q4_1>()
            .0
            .iter()
            .zip(x.as_chunks::<LEN>().0)
        {
            L::prefetch(codes);
            let x = x.as_chunks().0;
            let (x_low, x_high) = (L::load(&x[0]), L::load(&x[1]));
            let [scale, minimum] = L::halves([*d0, *d1, *m0, *m1]);
            let low = L::low_nibbles(codes).mul(x_low);
            let both = L::high_nibbles(codes).fma(x_high, low);
            scaled = scale.fma(both, scaled);
            shifted = minimum.fma(x_low.add(x_high), shifted);
        }
        sum(scaled.add(shifted).to_array())
    }
}

/// `Σ_g (s_g · Σ_i q_i · x_i − m_g · Σ_i x_i)` over the groups `g` of super-blocks of `N` bytes; `SHIFTED` says that there are
/// minimums `m`.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn dot_groups<L: Lanes, const N: usize, const SHIFTED: bool>(
    bytes: &[u8],
    x: &[f32],
    take_apart: impl Fn(&[u8; N]) -> Groups,
) -> f32 {
    // SAFETY: the caller's contract is the trait's.
    unsafe {
        let (mut scaled, mut shifted) = (L::zero(), L::zero());
        let rows = x.as_chunks::<{ LANES * GROUPS }>().0;
        for (block, x) in bytes.as_chunks::<N>().0.iter().zip(rows) {
            for line in block.chunks(64) {
                L::prefetch(line);
            }
            let groups = take_apart(block);
            for (group, x) in x.as_chunks().0.iter().enumerate() {
                let x = L::load(x);
                let product = L::signed(&groups.codes[group]).mul(x);
                scaled = L::splat(groups.scales[group]).fma(product, scaled);
                if SHIFTED {
                    shifted = L::splat(-groups.minimums[group]).fma(x, shifted);
                }
            }
        }
        sum(scaled.add(shifted).to_array())
    }
}

/// The lanes halved again and again, which vector registers do in four steps.
#[inline(always)]
fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn dot_body<L: Lanes>(kind: GgmlType, bytes: &[u8], x: &[f32]) -> f32 {
    match kind {
        GgmlType::F32 => dot_words(bytes.as_chunks().0, x, f32::from_le_bytes),
        GgmlType::F16 => dot_words(bytes.as_chunks().0, x, widen),
        GgmlType::BF16 => dot_words(bytes.as_chunks().0, x, widen_bf16),
        // SAFETY: the caller's contract is that of all.
        GgmlType::Q8_0 => unsafe { dot_q8_0::<L>(bytes, x) },
        // SAFETY: as above.
        GgmlType::Q4_0 => unsafe { dot_q4_0::<L>(bytes, x) },
        // SAFETY: as above.
        GgmlType::Q4_1 => unsafe { dot_q4_1::<L>(bytes, x) },
        // SAFETY: as above.
        GgmlType::Q4_K => unsafe { dot_groups::<L, _, true>(bytes, x, super_block::q4_k) },
        // SAFETY: as above.
        GgmlType::Q5_K => unsafe { dot_groups::<L, _, true>(bytes, x, super_block::q5_k) },
        // SAFETY: as above.
        GgmlType::Q6_K => unsafe { dot_groups::<L, _, false>(bytes, x, super_block::q6_k) },
    }
}

#[inline(always)]
fn dot_words<const N: usize>(words: &[[u8; N]], x: &[f32], widen: impl Fn([u8; N]) -> f32) -> f32 {
    let len = words.len().min(x.len());
    let (words, rest_words) = words[..len].as_chunks::<LANES>();
    let (x, rest_x) = x[..len].as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for (words, x) in words.iter().zip(x) {
        for lane in 0..LANES {
            lanes[lane] += widen(words[lane]) * x[lane];
        }
    }
    for ((lane, &word), x) in lanes.iter_mut().zip(rest_words).zip(rest_x) {
        *lane += widen(word) * x;
    }
    sum(lanes)
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn dequantize_body<L: Lanes>(kind: GgmlType, bytes: &[u8], out: &mut [f32]) {
    match kind {
        GgmlType::F32 => copy_words(bytes.as_chunks().0, out, f32::from_le_bytes),
        GgmlType::F16 => copy_words(bytes.as_chunks().0, out, widen),
        GgmlType::BF16 => copy_words(bytes.as_chunks().0, out, widen_bf16),
        // SAFETY: the caller's contract is that of all.
        GgmlType::Q8_0 => unsafe { dequantize_q8_0::<L>(bytes, out) },
        // SAFETY: as above.
        GgmlType::Q4_0 => unsafe { dequantize_q4_0::<L>(bytes, out) },
        // SAFETY: as above.
        GgmlType::Q4_1 => unsafe { dequantize_q4_1::<L>(bytes, out) },
        // SAFETY: as above.
        GgmlType::Q4_K => unsafe { dequantize_groups::<L, _, true>(bytes, out, super_block::q4_k) },
        // SAFETY: as above.
        GgmlType::Q5_K => unsafe { dequantize_groups::<L, _, true>(bytes, out, super_block::q5_k) },
        // SAFETY: as above.
        GgmlType::Q6_K => unsafe {
            dequantize_groups::<L, _, false>(bytes, out, super_block::q6_k)
        },
    }
}

#[inline(always)]
fn copy_words<const N: usize>(words: &[[u8; N]], out: &mut [f32], widen: impl Fn([u8; N]) -> f32) {
    out.iter_mut()
        .zip(words)
        .for_each(|(out, &word)| *out = widen(word));
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn dequantize_q8_0<L: Lanes>(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.as_chunks::<Q8_0>().0;
    for ([d0, d1, codes @ ..], out) in blocks.iter().zip(out.as_chunks_mut::<LEN>().0) {
        for (codes, out) in codes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
            // SAFETY: the caller's contract is the trait's.
            *out = unsafe { L::signed(codes).mul(L::half([*d0, *d1])).to_array() };
        }
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn dequantize_q4_1<L: Lanes>(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.as_chunks::<Q4_1>().0;
    for ([d0, d1, m0, m1, codes @ ..], out) in blocks.iter().zip(out.as_chunks_mut::<LEN>().0) {
        let out = out.as_chunks_mut().0;
        // SAFETY: the caller's contract is the trait's.
        unsafe {
            let [scale, minimum] = L::halves([*d0, *d1, *m0, *m1]);
            out[0] = L::low_nibbles(codes).mul(scale).add(minimum).to_array();
            out[1] = L::high_nibbles(codes).mul(scale).add(minimum).to_array();
        }
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn dequantize_q4_0<L: Lanes>(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.as_chunks::<Q4_0>().0;
    for ([d0, d1, codes @ ..], out) in blocks.iter().zip(out.as_chunks_mut::<LEN>().0) {
        let out = out.as_chunks_mut().0;
        // SAFETY: the caller's contract is the trait's.
        unsafe {
            let (scale, zero_point) = (L::half([*d0, *d1]), L::splat(-8.0));
            out[0] = L::low_nibbles(codes).add(zero_point).mul(scale).to_array();
            out[1] = L::high_nibbles(codes).add(zero_point).mul(scale).to_array();
        }
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn dequantize_groups<L: Lanes, const N: usize, const SHIFTED: bool>(
    bytes: &[u8],
    out: &mut [f32],
    take_apart: impl Fn(&[u8; N]) -> Groups,
) {
    let rows = out.as_chunks_mut::<{ LANES * GROUPS }>().0;
    for (block, out) in bytes.as_chunks::<N>().0.iter().zip(rows) {
        let groups = take_apart(block);
        for (group, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            // SAFETY: the caller's contract is the trait's.
            *out = unsafe {
                let scale = L::splat(groups.scales[group]);
                let codes = L::signed(&groups.codes[group]);
                let minimum = L::splat(-groups.minimums[group]);
                if SHIFTED {
                    codes.fma(scale, minimum)
                } else {
                    codes.mul(scale)
                }
                .to_array()
            };
        }
    }
}

/// One function for each loop that picks the instruction set at run time.
macro_rules! dispatch {
    ($(#[$attribute:meta])* $name:ident, $body:ident, ($($argument:ident: $kind:ty),*) $(-> $result:ty)?) => {
        $(#[$attribute])*
        pub(super) fn $name($($argument: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx2,fma,f16c")]
                unsafe fn avx512($($argument: $kind),*) $(-> $result)? {
                    // SAFETY: this function runs only where AVX-512F was found.
                    unsafe { $body::<x86::Avx512>($($argument),*) }
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                unsafe fn avx2($($argument: $kind),*) $(-> $result)? {
                    // SAFETY: this function runs only where AVX2, FMA and F16C were found.
                    unsafe { $body::<x86::Avx2>($($argument),*) }
                }
                let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                if found && is_x86_feature_detected!("f16c") {
                    if is_x86_feature_detected!("avx512f") {
                        // SAFETY: AVX-512F, AVX2, FMA and F16C were found just now.
                        return unsafe { avx512($($argument),*) };
                    }
                    // SAFETY: AVX2, FMA and F16C were found just now.
                    return unsafe { avx2($($argument),*) };
                }
            }
            // SAFETY: plain Rust needs no instruction set.
            unsafe { $body::<Plain>($($argument),*) }
        }
    };
}

dispatch!(
    /// [`dequantize`](super::dequantize), for lengths that belong together.
    dequantize, dequantize_body, (kind: GgmlType, bytes: &[u8], out: &mut [f32]));
dispatch!(
    /// [`dot`](super::dot).
    dot, dot_body, (kind: GgmlType, bytes: &[u8], x: &[f32]) -> f32);

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits of what both loops compute.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn run<L: Lanes>(kind: GgmlType, bytes: &[u8], x: &[f32]) -> Vec<u32> {
        let mut weights = vec![0.0; x.len()];
        // SAFETY: the caller's contract is the trait's.
        let product = unsafe {
            dequantize_body::<L>(kind, bytes, &mut weights);
            dot_body::<L>(kind, bytes, x)
        };
        weights
            .iter()
            .chain([&product])
            .map(|x| x.to_bits())
            .collect()
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_plain_rust() {
        for kind in GgmlType::ALL {
            for blocks in [0, 1, 2, 3, 17, 18, 48] {
                let len = blocks * kind.block_len();
                // Any bits, with the exponents that make a number infinite left out: every second byte stays below 0x40.
                let bytes: Vec<u8> = (0..blocks * kind.block_bytes())
                    .map(|i| (i * 151 % 253) as u8 & if i % 2 == 1 { 0x3f } else { 0xff })
                    .collect();
                assert!(super::super::find_not_finite(kind, &bytes).is_none());
                let x: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7).sin()).collect();
                // SAFETY: plain Rust needs no instruction set.
                let plain = unsafe { run::<Plain>(kind, &bytes, &x) };
                #[cfg(target_arch = "x86_64")]
                {
                    if is_x86_feature_detected!("avx512f") {
                        // SAFETY: AVX-512F was found just now.
                        let found = unsafe { run::<x86::Avx512>(kind, &bytes, &x) };
                        assert_eq!(found, plain, "AVX-512 {kind} {blocks}");
                    }
                    let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                    if found && is_x86_feature_detected!("f16c") {
                        // SAFETY: AVX2, FMA and F16C were found just now.
                        let found = unsafe { run::<x86::Avx2>(kind, &bytes, &x) };
                        assert_eq!(found, plain, "AVX2 {kind} {blocks}");
                    }
                }
            }
        }
    }
}
