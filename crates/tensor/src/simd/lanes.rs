//! Sixteen f32 at once, for loops whose sums the compiler may not reorder and therefore would not vectorise.

use super::LANES;

/// An instruction set. A value of an implementing type is the proof that the running processor has it, so that the methods are safe.
pub(crate) trait Simd: Copy {
    /// Sixteen f32.
    type Lanes: Copy;

    fn splat(self, x: f32) -> Self::Lanes;
    fn load(self, from: &[f32; LANES]) -> Self::Lanes;
    fn to_array(self, x: Self::Lanes) -> [f32; LANES];
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
    /// The greater one; `b` where either is NaN.
    fn max(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
}

/// What the build was told to assume: the twin that the others are tested against.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Simd for Plain {
    type Lanes = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Lanes {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::Lanes {
        *from
    }

    #[inline(always)]
    fn to_array(self, x: Self::Lanes) -> [f32; LANES] {
        x
    }

    #[inline(always)]
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|l| a[l] + b[l])
    }

    #[inline(always)]
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|l| a[l] - b[l])
    }

    #[inline(always)]
    fn fma(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|l| a[l].mul_add(b[l], c[l]))
    }

    #[inline(always)]
    fn max(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|l| if a[l] > b[l] { a[l] } else { b[l] })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Simd};
    use std::arch::x86_64::*;

    /// AVX2 with FMA: sixteen lanes are two registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(());

    impl Avx2 {
        /// # Safety
        /// The running processor has AVX2 and FMA.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            Self(())
        }
    }

    impl Simd for Avx2 {
        type Lanes = [__m256; 2];

        #[inline(always)]
        fn splat(self, x: f32) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX2.
            [unsafe { _mm256_set1_ps(x) }; 2]
        }

        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX2; both loads of 8 lie inside the 16 elements.
            unsafe {
                [
                    _mm256_loadu_ps(from.as_ptr()),
                    _mm256_loadu_ps(from.as_ptr().add(8)),
                ]
            }
        }

        #[inline(always)]
        fn to_array(self, x: Self::Lanes) -> [f32; LANES] {
            let mut to = [0.0f32; LANES];
            // SAFETY: `self` exists, so the processor has AVX2; both stores of 8 lie inside the 16 elements.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), x[1]);
            }
            to
        }

        #[inline(always)]
        fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn fma(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX2 and FMA.
            unsafe {
                [
                    _mm256_fmadd_ps(a[0], b[0], c[0]),
                    _mm256_fmadd_ps(a[1], b[1], c[1]),
                ]
            }
        }

        #[inline(always)]
        fn max(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
        }
    }

    /// AVX-512 F: sixteen lanes are one register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(());

    impl Avx512 {
        /// # Safety
        /// The running processor has AVX-512 F.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            Self(())
        }
    }

    impl Simd for Avx512 {
        type Lanes = __m512;

        #[inline(always)]
        fn splat(self, x: f32) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX-512 F.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX-512 F; the load is the 16 elements.
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }

        #[inline(always)]
        fn to_array(self, x: Self::Lanes) -> [f32; LANES] {
            let mut to = [0.0f32; LANES];
            // SAFETY: `self` exists, so the processor has AVX-512 F; the store is the 16 elements.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) };
            to
        }

        #[inline(always)]
        fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX-512 F.
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX-512 F.
            unsafe { _mm512_sub_ps(a, b) }
        }

        #[inline(always)]
        fn fma(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX-512 F.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn max(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            // SAFETY: `self` exists, so the processor has AVX-512 F.
            unsafe { _mm512_max_ps(a, b) }
        }
    }
}
