//! Inner loops, compiled once per instruction set and chosen at run time.
//!
//! A loop is written once, as an `#[inline(always)]` body in safe Rust: element by element with explicit [`f32::mul_add`], or, where
//! it adds up, over the sixteen lanes of [`lanes::Simd`]. [`multiversion!`] compiles the body for AVX-512, for AVX2 and for the
//! build's own baseline. Order of additions and rounding are those of the body, so that all versions give the same bits; the
//! tests of this module hold them to that.
#![allow(unsafe_code)]

mod activation;
mod dot;
mod exp;
mod lanes;
mod norm;
mod softmax;

pub(crate) use activation::{gelu_erf, gelu_tanh, sigmoid, silu, tanh};
pub(crate) use dot::{add_scaled, dot, rows_dot};
pub(crate) use exp::{exp, exp_body};
pub(crate) use norm::{layer_norm, rms_norm};
pub(crate) use softmax::{max, shifted_exp};

/// Elements that a loop body treats as one: an AVX-512 register of f32, two AVX2 registers.
pub(crate) const LANES: usize = 16;

/// An instruction set for which the loops are compiled; each level has all that the ones before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Level {
    /// What the build was told to assume: SSE2 on x86-64, NEON on aarch64.
    Baseline,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best level of this processor.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn detect() -> Self {
        use std::sync::OnceLock;
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match (avx2, avx512) {
                (true, true) => Self::Avx512,
                (true, false) => Self::Avx2,
                _ => Self::Baseline,
            }
        })
    }

    /// The best level of this processor.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    pub(crate) fn detect() -> Self {
        Self::Baseline
    }

    /// Every level that this processor can run.
    #[cfg(test)]
    pub(crate) fn available() -> Vec<Self> {
        let levels = [
            Self::Baseline,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512,
        ];
        levels
            .into_iter()
            .filter(|&level| level <= Self::detect())
            .collect()
    }
}

/// `name, at = body(arguments)`: `name` runs `body` compiled for the best level of this processor, `at` (for tests) for a given
/// one. The body gets the instruction set as its first argument. The module that uses the macro allows `unsafe_code`.
macro_rules! multiversion {
    ($(#[$attribute:meta])* $vis:vis fn $name:ident, $at:ident = $body:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)?) => {
        $(#[$attribute])*
        #[inline]
        $vis fn $name($($argument: $type),*) $(-> $output)? {
            $at($crate::simd::Level::detect(), $($argument),*)
        }

        #[inline]
        fn $at(level: $crate::simd::Level, $($argument: $type),*) $(-> $output)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $output)? {
                // SAFETY: whoever calls this function has AVX2 and FMA.
                $body(unsafe { $crate::simd::lanes::Avx2::new() }, $($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($argument: $type),*) $(-> $output)? {
                // SAFETY: whoever calls this function has AVX-512 F.
                $body(unsafe { $crate::simd::lanes::Avx512::new() }, $($argument),*)
            }

            match level {
                $crate::simd::Level::Baseline => $body($crate::simd::lanes::Plain, $($argument),*),
                // SAFETY: the function is safe but for its instruction set, and the only sources of this level,
                // `Level::detect` and `Level::available`, give it after finding AVX2 and FMA in the running processor.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: as above, after finding AVX2, FMA and AVX-512 F, BW, DQ and VL in the running processor.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx512 => unsafe { avx512($($argument),*) },
            }
        }
    };
}
pub(crate) use multiversion;
