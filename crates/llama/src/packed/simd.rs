//! Loops over repacked weights for this processor's vectors. All instruction sets give the same bits.
#![allow(unsafe_code)]

use super::{Format, LEN, Q8, ROWS, TILE};
use half::f16;

/// An instruction set. A value of an implementing type is the proof that the running processor has it, so that the methods are
/// safe.
pub(super) trait Isa: Copy {
    /// Sixteen f32, one a row of weights.
    type Lanes: Copy;

    fn splat(self, x: f32) -> Self::Lanes;
    fn halves(self, from: &[f16; ROWS]) -> Self::Lanes;
    fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
    fn to_array(self, x: Self::Lanes) -> [f32; ROWS];
    /// `Σ q·c` of each row of weights with each row of activations, the codes `q` being nibbles as Q4_1 orders them.
    fn nibbles<const M: usize>(self, codes: &[[[u8; 4]; ROWS]; 4], x: [&Q8; M])
    -> [Self::Lanes; M];
    /// The same for codes of a byte, stored as `q + 128`.
    fn bytes<const M: usize>(self, codes: &[[[u8; 4]; ROWS]; 8], x: [&Q8; M]) -> [Self::Lanes; M];
    /// Asks for the memory some way behind `block`, which the next blocks will come from: the processor by itself doesn't look
    /// beyond the end of a page.
    #[inline(always)]
    fn prefetch<T>(self, block: &T) {
        let _ = block;
    }
}

/// Bytes that lie between a block and what is asked for beside it: what arrives while a line of memory is on its way.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4096;

/// Plain Rust: the twin that the others are tested against.
#[derive(Clone, Copy)]
struct Plain;

impl Plain {
    /// The four codes of a word.
    #[inline(always)]
    fn codes(word: i32) -> [i32; 4] {
        word.to_ne_bytes().map(|code| i32::from(code as i8))
    }
}

impl Isa for Plain {
    type Lanes = [f32; ROWS];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Lanes {
        [x; ROWS]
    }

    #[inline(always)]
    fn halves(self, from: &[f16; ROWS]) -> Self::Lanes {
        from.map(f16::to_f32)
    }

    #[inline(always)]
    fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|row| a[row] * b[row])
    }

    #[inline(always)]
    fn fma(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|row| a[row].mul_add(b[row], c[row]))
    }

    #[inline(always)]
    fn to_array(self, x: Self::Lanes) -> [f32; ROWS] {
        x
    }

    #[inline(always)]
    fn nibbles<const M: usize>(
        self,
        codes: &[[[u8; 4]; ROWS]; 4],
        x: [&Q8; M],
    ) -> [Self::Lanes; M] {
        x.map(|x| {
            let mut sums = [0i32; ROWS];
            for (j, codes) in codes.iter().enumerate() {
                let (low, high) = (Self::codes(x.words[j]), Self::codes(x.words[4 + j]));
                for (sum, codes) in sums.iter_mut().zip(codes) {
                    for k in 0..4 {
                        *sum += i32::from(codes[k] & 15) * low[k];
                        *sum += i32::from(codes[k] >> 4) * high[k];
                    }
                }
            }
            sums.map(|sum| sum as f32)
        })
    }

    #[inline(always)]
    fn bytes<const M: usize>(self, codes: &[[[u8; 4]; ROWS]; 8], x: [&Q8; M]) -> [Self::Lanes; M] {
        x.map(|x| {
            let mut sums = [0i32; ROWS];
            for (codes, &word) in codes.iter().zip(&x.words) {
                let word = Self::codes(word);
                for (sum, codes) in sums.iter_mut().zip(codes) {
                    for k in 0..4 {
                        *sum += (i32::from(codes[k]) - 128) * word[k];
                    }
                }
            }
            sums.map(|sum| sum as f32)
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{AHEAD, Isa, Q8, ROWS};
    use half::f16;
    use std::arch::x86_64::*;

    /// Asks for the memory [`AHEAD`] of a block, line by line.
    #[inline(always)]
    fn prefetch<T>(block: &T) {
        let start = std::ptr::from_ref(block).cast::<i8>();
        for line in (0..size_of::<T>()).step_by(64) {
            // SAFETY: a prefetch reads nothing that the program sees, whatever the address is; every x86-64 processor has it.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(AHEAD + line)) };
        }
    }

    /// AVX-512 F, BW and VNNI: sixteen lanes are one register, and one instruction adds the products of 64 pairs of bytes.
    #[derive(Clone, Copy)]
    pub(super) struct Vnni(());

    impl Vnni {
        /// # Safety
        /// The running processor has AVX-512 F, BW and VNNI.
        #[inline(always)]
        pub(super) unsafe fn new() -> Self {
            Self(())
        }
    }

    impl Isa for Vnni {
        type Lanes = __m512;

        #[inline(always)]
        fn splat(self, x: f32) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX-512 F.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        fn halves(self, from: &[f16; ROWS]) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX-512 F; the load is the 16 elements.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
        }

        #[inline(always)]
        fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX-512 F.
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        fn fma(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX-512 F.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn to_array(self, x: Self::Lanes) -> [f32; ROWS] {
            let mut to = [0.0; ROWS];
            // SAFETY: `self` exists, so the processor has AVX-512 F; the store is the 16 elements.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) };
            to
        }

        #[inline(always)]
        fn nibbles<const M: usize>(
            self,
            codes: &[[[u8; 4]; ROWS]; 4],
            x: [&Q8; M],
        ) -> [Self::Lanes; M] {
            // SAFETY: `self` exists, so the processor has AVX-512 F, BW and VNNI; each load is the 64 bytes of sixteen rows.
            unsafe {
                let nibble = _mm512_set1_epi8(15);
                let mut sums = [_mm512_setzero_si512(); M];
                for (j, codes) in codes.iter().enumerate() {
                    let codes = _mm512_loadu_si512(codes.as_ptr().cast());
                    let low = _mm512_and_si512(codes, nibble);
                    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
                    for i in 0..M {
                        let (first, second) = (x[i].words[j], x[i].words[4 + j]);
                        sums[i] = _mm512_dpbusd_epi32(sums[i], low, _mm512_set1_epi32(first));
                        sums[i] = _mm512_dpbusd_epi32(sums[i], high, _mm512_set1_epi32(second));
                    }
                }
                let mut lanes = [_mm512_setzero_ps(); M];
                for i in 0..M {
                    lanes[i] = _mm512_cvtepi32_ps(sums[i]);
                }
                lanes
            }
        }

        #[inline(always)]
        fn bytes<const M: usize>(
            self,
            codes: &[[[u8; 4]; ROWS]; 8],
            x: [&Q8; M],
        ) -> [Self::Lanes; M] {
            // SAFETY: `self` exists, so the processor has AVX-512 F, BW and VNNI; each load is the 64 bytes of sixteen rows.
            unsafe {
                let mut sums = [_mm512_setzero_si512(); M];
                for (j, codes) in codes.iter().enumerate() {
                    let codes = _mm512_loadu_si512(codes.as_ptr().cast());
                    for i in 0..M {
                        let word = _mm512_set1_epi32(x[i].words[j]);
                        sums[i] = _mm512_dpbusd_epi32(sums[i], codes, word);
                    }
                }
                // Codes are stored plus 128. All numbers here are integers below 2^24, so that nothing is rounded.
                let offset = _mm512_set1_ps(-128.0);
                let mut lanes = [_mm512_setzero_ps(); M];
                for i in 0..M {
                    let sum = _mm512_cvtepi32_ps(sums[i]);
                    lanes[i] = _mm512_fmadd_ps(_mm512_set1_ps(x[i].sum), offset, sum);
                }
                lanes
            }
        }

        #[inline(always)]
        fn prefetch<T>(self, block: &T) {
            prefetch(block);
        }
    }

    /// AVX2 with FMA and F16C: sixteen lanes are two registers.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(());

    impl Avx2 {
        /// # Safety
        /// The running processor has AVX2, FMA and F16C.
        #[inline(always)]
        pub(super) unsafe fn new() -> Self {
            Self(())
        }
    }

    impl Isa for Avx2 {
        type Lanes = [__m256; 2];

        #[inline(always)]
        fn splat(self, x: f32) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX2.
            [unsafe { _mm256_set1_ps(x) }; 2]
        }

        #[inline(always)]
        fn halves(self, from: &[f16; ROWS]) -> Self::Lanes {
            let from = from.as_ptr().cast::<__m128i>();
            // SAFETY: `self` exists, so the processor has F16C; the two loads of 8 are the 16 elements.
            unsafe {
                [
                    _mm256_cvtph_ps(_mm_loadu_si128(from)),
                    _mm256_cvtph_ps(_mm_loadu_si128(from.add(1))),
                ]
            }
        }

        #[inline(always)]
        fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn fma(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has FMA.
            unsafe {
                [
                    _mm256_fmadd_ps(a[0], b[0], c[0]),
                    _mm256_fmadd_ps(a[1], b[1], c[1]),
                ]
            }
        }

        #[inline(always)]
        fn to_array(self, x: Self::Lanes) -> [f32; ROWS] {
            let mut to = [0.0; ROWS];
            // SAFETY: `self` exists, so the processor has AVX2; the two stores of 8 are the 16 elements.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), x[1]);
            }
            to
        }

        #[inline(always)]
        fn nibbles<const M: usize>(
            self,
            codes: &[[[u8; 4]; ROWS]; 4],
            x: [&Q8; M],
        ) -> [Self::Lanes; M] {
            // SAFETY: `self` exists, so the processor has AVX2; each load is the 32 bytes of eight of the sixteen rows.
            unsafe {
                let nibble = _mm256_set1_epi8(15);
                let mut lanes = [[_mm256_setzero_ps(); 2]; M];
                for half in 0..2 {
                    // A lane of 16 bits takes in sixteen products of at most 15 · 127, which is below 2^15.
                    let mut pairs = [_mm256_setzero_si256(); M];
                    for (j, codes) in codes.iter().enumerate() {
                        let codes = _mm256_loadu_si256(codes.as_ptr().add(8 * half).cast());
                        let low = _mm256_and_si256(codes, nibble);
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble);
                        for (pairs, x) in pairs.iter_mut().zip(x) {
                            let (first, second) = (x.words[j], x.words[4 + j]);
                            let first = _mm256_maddubs_epi16(low, _mm256_set1_epi32(first));
                            let second = _mm256_maddubs_epi16(high, _mm256_set1_epi32(second));
                            *pairs = _mm256_add_epi16(*pairs, _mm256_add_epi16(first, second));
                        }
                    }
                    for (lanes, pairs) in lanes.iter_mut().zip(pairs) {
                        let sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                        lanes[half] = _mm256_cvtepi32_ps(sums);
                    }
                }
                lanes
            }
        }

        #[inline(always)]
        fn bytes<const M: usize>(
            self,
            codes: &[[[u8; 4]; ROWS]; 8],
            x: [&Q8; M],
        ) -> [Self::Lanes; M] {
            // SAFETY: `self` exists, so the processor has AVX2; each load is the 32 bytes of eight of the sixteen rows.
            unsafe {
                let offset = _mm256_set1_epi8(-128);
                let mut lanes = [[_mm256_setzero_ps(); 2]; M];
                for half in 0..2 {
                    let mut sums = [_mm256_setzero_si256(); M];
                    for (j, codes) in codes.iter().enumerate() {
                        let codes = _mm256_loadu_si256(codes.as_ptr().add(8 * half).cast());
                        let codes = _mm256_xor_si256(codes, offset);
                        // |q| · (sign(q)·c): two products of at most 128 · 127 are below 2^15, while two of q + 128 are not.
                        let sizes = _mm256_abs_epi8(codes);
                        for (sums, x) in sums.iter_mut().zip(x) {
                            let word = _mm256_sign_epi8(_mm256_set1_epi32(x.words[j]), codes);
                            let pairs = _mm256_maddubs_epi16(sizes, word);
                            let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                            *sums = _mm256_add_epi32(*sums, fours);
                        }
                    }
                    for (lanes, sums) in lanes.iter_mut().zip(sums) {
                        lanes[half] = _mm256_cvtepi32_ps(sums);
                    }
                }
                lanes
            }
        }

        #[inline(always)]
        fn prefetch<T>(self, block: &T) {
            prefetch(block);
        }
    }
}

/// An instruction set that the running processor has. That nothing outside this module can make one but through
/// [`Level::detect`] and [`Level::available`] is what the calls below rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level(Set);

/// The instruction sets for which the loops are compiled; each has all that the ones before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Set {
    /// What the build was told to assume.
    Plain,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW and VNNI.
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Level {
    /// The best level of this processor.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let vnni = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni");
            match (avx2, vnni) {
                (true, true) => return Self(Set::Vnni),
                (true, false) => return Self(Set::Avx2),
                _ => {}
            }
        }
        Self(Set::Plain)
    }

    /// Every level that this processor can run, the plain one first.
    #[cfg(test)]
    pub(super) fn available() -> Vec<Self> {
        let sets = [
            Set::Plain,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2,
            #[cfg(target_arch = "x86_64")]
            Set::Vnni,
        ];
        let Self(best) = Self::detect();
        let sets = sets.into_iter().filter(|&set| set <= best);
        sets.map(Self).collect()
    }
}

/// Rounds the whole blocks of `x`.
pub(super) fn round(level: Level, x: &[f32], out: &mut [Q8]) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn avx2(x: &[f32], out: &mut [Q8]) {
        round_body(x, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vnni")]
    fn vnni(x: &[f32], out: &mut [Q8]) {
        round_body(x, out);
    }

    match level.0 {
        Set::Plain => round_body(x, out),
        // SAFETY: the function is safe but for its instruction set, and the only sources of a level, `Level::detect` and
        // `Level::available`, give this one after finding AVX2, FMA and F16C in the running processor.
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => unsafe { avx2(x, out) },
        // SAFETY: as above, after finding AVX-512 F, BW and VNNI too.
        #[cfg(target_arch = "x86_64")]
        Set::Vnni => unsafe { vnni(x, out) },
    }
}

/// Products of sixteen rows of weights, block after block, with each row of `x`: as many blocks a row.
pub(super) fn product<F: Format>(level: Level, panel: &[F], x: &[Q8], out: &mut [[f32; ROWS]]) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn avx2<F: Format>(panel: &[F], x: &[Q8], out: &mut [[f32; ROWS]]) {
        // SAFETY: whoever calls this function has AVX2, FMA and F16C.
        product_body(unsafe { x86::Avx2::new() }, panel, x, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vnni")]
    fn vnni<F: Format>(panel: &[F], x: &[Q8], out: &mut [[f32; ROWS]]) {
        // SAFETY: whoever calls this function has AVX-512 F, BW and VNNI.
        product_body(unsafe { x86::Vnni::new() }, panel, x, out);
    }

    match level.0 {
        Set::Plain => product_body(Plain, panel, x, out),
        // SAFETY: the function is safe but for its instruction set, and the only sources of a level, `Level::detect` and
        // `Level::available`, give this one after finding AVX2, FMA and F16C in the running processor.
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => unsafe { avx2(panel, x, out) },
        // SAFETY: as above, after finding AVX-512 F, BW and VNNI too.
        #[cfg(target_arch = "x86_64")]
        Set::Vnni => unsafe { vnni(panel, x, out) },
    }
}

#[inline(always)]
fn round_body(x: &[f32], out: &mut [Q8]) {
    // 1.5 · 2^23: added, it rounds to an integer that stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    for (x, out) in x.as_chunks::<LEN>().0.iter().zip(out) {
        // Without their sign, floats are ordered as their bits are; NaN comes last.
        let largest = x
            .iter()
            .fold(0u32, |largest, x| largest.max(x.abs().to_bits()));
        let largest = f32::from_bits(largest);
        *out = Q8::default();
        if !largest.is_finite() {
            out.scale = f32::NAN;
            continue;
        }
        let scale = largest / 127.0;
        if scale < f32::MIN_POSITIVE {
            continue;
        }
        let inverse = 1.0 / scale;
        let codes: &mut [i8; LEN] = bytemuck::cast_mut(&mut out.words);
        let mut sum = 0;
        for (x, code) in x.iter().zip(codes) {
            *code = (x * inverse + ROUND).to_bits() as i8;
            sum += i32::from(*code);
        }
        out.scale = scale;
        out.sum = sum as f32;
    }
}

#[inline(always)]
fn product_body<I: Isa, F: Format>(isa: I, panel: &[F], x: &[Q8], out: &mut [[f32; ROWS]]) {
    let blocks = panel.len();
    let (tiles, rest) = out.as_chunks_mut::<TILE>();
    let (x_tiles, x_rest) = x.split_at(tiles.len() * TILE * blocks);
    for (out, x) in tiles.iter_mut().zip(x_tiles.chunks_exact(TILE * blocks)) {
        *out = tile(isa, panel, x);
    }
    let (fours, rest) = rest.as_chunks_mut::<4>();
    let (x_fours, x_rest) = x_rest.split_at(fours.len() * 4 * blocks);
    for (out, x) in fours.iter_mut().zip(x_fours.chunks_exact(4 * blocks)) {
        *out = tile(isa, panel, x);
    }
    for (out, x) in rest.iter_mut().zip(x_rest.chunks_exact(blocks)) {
        [*out] = tile(isa, panel, x);
    }
}

/// Products with `M` rows of `x`. Each is a chain of its own: it doesn't depend on `M`.
#[inline(always)]
fn tile<I: Isa, F: Format, const M: usize>(isa: I, panel: &[F], x: &[Q8]) -> [[f32; ROWS]; M] {
    let rows: [&[Q8]; M] = std::array::from_fn(|i| &x[i * panel.len()..][..panel.len()]);
    let mut totals = [isa.splat(0.0); M];
    for (b, block) in panel.iter().enumerate() {
        block.add(isa, rows.map(|row| &row[b]), &mut totals);
    }
    let mut out = [[0.0; ROWS]; M];
    for i in 0..M {
        out[i] = isa.to_array(totals[i]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Q4_1x16, Q8_0x16};
    use super::*;
    use whittle_tensor::random::Philox4x32;

    const PLAIN: Level = Level(Set::Plain);

    fn codes(block: &Q8) -> [i8; LEN] {
        bytemuck::cast(block.words)
    }

    /// A block of activations as it comes out on every level.
    fn rounded(x: [f32; LEN]) -> Q8 {
        let mut out = [Q8::default()];
        for level in Level::available() {
            let mut found = [Q8 {
                words: [-1; LEN / 4],
                scale: 9.0,
                sum: 9.0,
            }];
            round(level, &x, &mut found);
            if level == PLAIN {
                out = found;
            }
            assert_eq!(bits(&found), bits(&out), "{level:?}");
        }
        let [out] = out;
        let sum: i32 = codes(&out).iter().map(|&code| i32::from(code)).sum();
        assert_eq!(out.sum, sum as f32);
        out
    }

    fn bits(blocks: &[Q8]) -> Vec<([i32; LEN / 4], u32, u32)> {
        let bits = |block: &Q8| (block.words, block.scale.to_bits(), block.sum.to_bits());
        blocks.iter().map(bits).collect()
    }

    #[test]
    fn activations_are_rounded_to_the_nearest_code_and_halves_to_even() {
        let mut x = [0.0; LEN];
        x[..9].copy_from_slice(&[-127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 0.51, -0.51]);
        let found = rounded(x);
        assert_eq!(found.scale, 1.0);
        assert_eq!(codes(&found)[..9], [-127, 0, 2, 2, 0, -2, 126, 1, -1]);
        assert_eq!(codes(&found)[9..], [0; LEN - 9]);

        x[31] = 254.0;
        let found = rounded(x);
        assert_eq!((found.scale, codes(&found)[0]), (2.0, -64));
        assert_eq!(codes(&found)[31], 127);
    }

    #[test]
    fn blocks_at_the_ends_of_the_range_have_a_finite_scale_or_count_as_zero() {
        for largest in [f32::MAX, 1e38, 1.0, f32::MIN_POSITIVE * 127.0] {
            let mut x = [-largest; LEN];
            x[7] = largest * 0.5;
            let found = rounded(x);
            assert_eq!(found.scale, largest / 127.0);
            assert_eq!(codes(&found)[0], -127, "{largest}");
            assert!([63, 64].contains(&codes(&found)[7]), "{largest}");
        }
        for largest in [
            0.0,
            f32::from_bits(1),
            f32::MIN_POSITIVE,
            f32::MIN_POSITIVE * 126.9,
        ] {
            let found = rounded([-largest; LEN]);
            assert_eq!(
                (found.scale.to_bits(), found.words, found.sum),
                (0, [0; LEN / 4], 0.0)
            );
        }
    }

    #[test]
    fn a_number_that_is_not_finite_marks_its_block() {
        for bad in [
            f32::NAN,
            -f32::NAN,
            f32::from_bits(0x7f80_0001),
            f32::INFINITY,
            f32::NEG_INFINITY,
        ] {
            let mut x = [1.0; LEN];
            x[19] = bad;
            let found = rounded(x);
            assert!(found.scale.is_nan());
            assert_eq!(found.words, [0; LEN / 4]);
        }
    }

    #[test]
    fn every_level_rounds_alike() {
        let mut random = Philox4x32::new(1, 0);
        for blocks in [0, 1, 2, 3, 17] {
            let x: Vec<f32> = (0..blocks * LEN)
                .map(|i| random.next_normal() * 2f32.powi((i / LEN) as i32 * 7 - 50))
                .collect();
            let mut expected = vec![Q8::default(); blocks];
            round(PLAIN, &x, &mut expected);
            for level in Level::available() {
                let mut found = vec![Q8::default(); blocks];
                round(level, &x, &mut found);
                assert_eq!(bits(&found), bits(&expected), "{level:?}");
            }
        }
    }

    /// Blocks of sixteen rows with any code and small scales of both signs.
    fn panel<F: Format>(random: &mut Philox4x32, blocks: usize) -> Vec<F> {
        let mut panel = vec![F::ZERO; blocks];
        for block in &mut panel {
            for row in 0..ROWS {
                let mut bytes: Vec<u8> = (0..F::BYTES).map(|_| random.next_u32() as u8).collect();
                // What is the minimum of one format are two codes of the other.
                for half in bytes[..4].as_chunks_mut::<2>().0 {
                    *half = f16::from_f32(random.next_normal() * 0.1).to_le_bytes();
                }
                block.put(row, &bytes);
            }
        }
        panel
    }

    fn activations(random: &mut Philox4x32, blocks: usize) -> Vec<Q8> {
        let x: Vec<f32> = (0..blocks * LEN).map(|_| random.next_normal()).collect();
        let mut out = vec![Q8::default(); blocks];
        round(PLAIN, &x, &mut out);
        out
    }

    fn every_level_multiplies_alike<F: Format>() {
        let mut random = Philox4x32::new(2, 0);
        for blocks in [1, 2, 3, 18] {
            let panel: Vec<F> = panel(&mut random, blocks);
            for n in (0..=TILE + 5).chain([2 * TILE + 7]) {
                let x = activations(&mut random, n * blocks);
                let mut expected = vec![[f32::NAN; ROWS]; n];
                product(PLAIN, &panel, &x, &mut expected);
                assert!(expected.as_flattened().iter().all(|x| x.is_finite()));
                for level in Level::available() {
                    let mut found = vec![[f32::NAN; ROWS]; n];
                    product(level, &panel, &x, &mut found);
                    let [found, expected] =
                        [&found, &expected].map(|x| x.as_flattened().iter().map(|x| x.to_bits()));
                    assert!(found.eq(expected), "{level:?}, {blocks} blocks, {n} rows");
                }
            }
        }
    }

    #[test]
    fn every_level_multiplies_q4_1_alike() {
        every_level_multiplies_alike::<Q4_1x16>();
    }

    #[test]
    fn every_level_multiplies_q8_0_alike() {
        every_level_multiplies_alike::<Q8_0x16>();
    }

    #[test]
    fn the_largest_codes_overflow_nothing() {
        for sign in [1.0, -1.0] {
            // All codes 127 of one sign, and with scale 1.
            let x = [rounded([sign * 127.0; LEN])];
            let one = f16::ONE.to_le_bytes();
            let minimum = f16::from_f32(-7.5).to_le_bytes();
            for level in Level::available() {
                let mut out = [[0.0; ROWS]];
                let mut block = Q4_1x16::ZERO;
                let bytes = [&one[..], &minimum, &[0xff; 16]].concat();
                (0..ROWS).for_each(|row| block.put(row, &bytes));
                product(level, &[block], &x, &mut out);
                assert_eq!(
                    out,
                    [[sign * 32.0 * 127.0 * (15.0 - 7.5); ROWS]],
                    "{level:?}"
                );
                for code in [-128i8, -127, 127] {
                    let mut block = Q8_0x16::ZERO;
                    let bytes = [&one[..], &[code as u8; LEN]].concat();
                    (0..ROWS).for_each(|row| block.put(row, &bytes));
                    product(level, &[block], &x, &mut out);
                    let expected = sign * 32.0 * 127.0 * f32::from(code);
                    assert_eq!(out, [[expected; ROWS]], "{level:?}, {code}");
                }
            }
        }
    }
}
