//! Warp-wide matrix products.
//!
//! Hardware's order and rounding of the sums are not specified. Here products are exact, sums start from c and run in f64 along
//! K, and the result is rounded once; integers are exact.

use super::float::canonical;
use super::half::{self, Bf16, F16, Half};
use super::{Lanes, map1};
use crate::layout::{self, Mma};

/// A product of floating-point fragments: D = A·B + C. `half` says that C and D are f16 in two registers, otherwise they are f32
/// in four. Registers beyond those of the shape are not read, and are zero in the result.
///
/// Integer shapes give zeros; they belong to [`integer`].
pub fn float(mma: Mma, half: bool, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> [Lanes; 4] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        #[allow(unsafe_code)]
        // SAFETY: the processor has AVX2 and FMA.
        return unsafe { float_avx2(mma, half, a, b, c) };
    }
    float_portable(mma, half, a, b, c)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn float_avx2(mma: Mma, half: bool, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> [Lanes; 4] {
    float_with(mma, half, a, b, c, |x, y, sum| x.mul_add(y, sum))
}

/// [`float`] on any processor. Both give the same bits: where the product is exact, a fused sum is rounded as a separate one.
pub fn float_portable(mma: Mma, half: bool, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> [Lanes; 4] {
    float_with(mma, half, a, b, c, |x, y, sum| x * y + sum)
}

#[inline(always)]
fn float_with(
    mma: Mma,
    half: bool,
    a: &[Lanes],
    b: &[Lanes],
    c: &[Lanes],
    fma: impl Fn(f64, f64, f64) -> f64,
) -> [Lanes; 4] {
    let of_f16 = |x: u32, h: usize| F16::widen((x >> (16 * h)) as u16);
    let of_bf16 = |x: u32, h: usize| Bf16::widen((x >> (16 * h)) as u16);
    let of_tf32 = |x: u32, _| f32::from_bits(x & !0x1fff);
    // A constant shape lets the loops unroll.
    macro_rules! product {
        ($shape:ident, $element:expr) => {
            product::<{ Mma::$shape as usize }>(half, a, b, c, $element, fma)
        };
    }
    match mma {
        Mma::M16n8k8F16 => product!(M16n8k8F16, of_f16),
        Mma::M16n8k16F16 => product!(M16n8k16F16, of_f16),
        Mma::M16n8k8Bf16 => product!(M16n8k8Bf16, of_bf16),
        Mma::M16n8k16Bf16 => product!(M16n8k16Bf16, of_bf16),
        Mma::M16n8k4Tf32 => product!(M16n8k4Tf32, of_tf32),
        Mma::M16n8k8Tf32 => product!(M16n8k8Tf32, of_tf32),
        _ => [[0; 32]; 4],
    }
}

/// The product for the shape `Mma::ALL[SHAPE]`, which is of floating-point numbers.
#[inline(always)]
fn product<const SHAPE: usize>(
    half: bool,
    a: &[Lanes],
    b: &[Lanes],
    c: &[Lanes],
    element: impl Fn(u32, usize) -> f32,
    fma: impl Fn(f64, f64, f64) -> f64,
) -> [Lanes; 4] {
    const { assert!(Mma::ALL[SHAPE].k() <= 16 && Mma::ALL[SHAPE].per_register() <= 2) };
    let mma = Mma::ALL[SHAPE];
    // Elements stay in the order of registers, elements and lanes, so that they are widened a vector at a time.
    let mut left = [[[0f64; 32]; 2]; 4];
    for (wide, lanes) in left.iter_mut().zip(a).take(mma.a_registers()) {
        for (h, wide) in wide.iter_mut().enumerate().take(mma.per_register()) {
            *wide = map1(lanes, |x| element(x, h).into());
        }
    }
    let mut right = [[0f64; 8]; 16];
    for (reg, lanes) in b.iter().enumerate().take(mma.b_registers()) {
        for h in 0..mma.per_register() {
            let wide = map1(lanes, |x| f64::from(element(x, h)));
            for (lane, x) in wide.into_iter().enumerate() {
                let (k, n) = layout::b(mma, lane, reg, h);
                right[k][n] = x;
            }
        }
    }
    let mut sums = [[0f64; 32]; 4];
    for (reg, sums) in sums.iter_mut().enumerate() {
        *sums = if half {
            map1(&c[reg / 2], |x| {
                F16::widen((x >> (16 * (reg % 2))) as u16).into()
            })
        } else {
            map1(&c[reg], |x| f32::from_bits(x).into())
        };
    }
    // Four rows at a time keep their sums in registers.
    for first in (0..16).step_by(4) {
        let mut tile = [[0f64; 8]; 4];
        for (i, row) in tile.iter_mut().enumerate() {
            for (n, sum) in row.iter_mut().enumerate() {
                let (lane, reg) = layout::place_c(first + i, n);
                *sum = sums[reg][lane];
            }
        }
        for (k, right) in right.iter().enumerate().take(mma.k()) {
            for (i, row) in tile.iter_mut().enumerate() {
                let (lane, reg, h) = layout::place_a(mma, first + i, k);
                let x = left[reg][h][lane];
                for (sum, &y) in row.iter_mut().zip(right) {
                    *sum = fma(x, y, *sum);
                }
            }
        }
        for (i, row) in tile.iter().enumerate() {
            for (n, &sum) in row.iter().enumerate() {
                let (lane, reg) = layout::place_c(first + i, n);
                sums[reg][lane] = sum;
            }
        }
    }
    let mut d = [[0; 32]; 4];
    for (reg, sums) in sums.iter().enumerate() {
        if half {
            for (d, &sum) in d[reg / 2].iter_mut().zip(sums) {
                *d |= u32::from(half::narrow::<F16>(sum)) << (16 * (reg % 2));
            }
        } else {
            d[reg] = map1(sums, |sum| canonical(sum as f32));
        }
    }
    d
}

/// How an integer product reads its operands and ends its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Integers {
    /// A's elements have a sign.
    pub a_signed: bool,
    /// B's elements have a sign.
    pub b_signed: bool,
    /// Sums are clamped to s32; otherwise they wrap.
    pub satfinite: bool,
}

/// A product of integer fragments: D = A·B + C in s32. Shapes of floating-point elements give zeros; they belong to [`float`].
pub fn integer(mma: Mma, how: Integers, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> [Lanes; 4] {
    match mma {
        Mma::M16n8k16S8 => integer_product::<{ Mma::M16n8k16S8 as usize }>(how, a, b, c),
        Mma::M16n8k32S8 => integer_product::<{ Mma::M16n8k32S8 as usize }>(how, a, b, c),
        Mma::M16n8k32S4 => integer_product::<{ Mma::M16n8k32S4 as usize }>(how, a, b, c),
        Mma::M16n8k64S4 => integer_product::<{ Mma::M16n8k64S4 as usize }>(how, a, b, c),
        _ => [[0; 32]; 4],
    }
}

/// The product for the shape `Mma::ALL[SHAPE]`, which is of integers.
fn integer_product<const SHAPE: usize>(
    how: Integers,
    a: &[Lanes],
    b: &[Lanes],
    c: &[Lanes],
) -> [Lanes; 4] {
    let mma = Mma::ALL[SHAPE];
    let bits = 32 / mma.per_register() as u32;
    let element = |x: u32, h: usize, signed: bool| {
        let top = x << (32 - bits * (h as u32 + 1));
        if signed {
            top as i32 >> (32 - bits)
        } else {
            (top >> (32 - bits)) as i32
        }
    };
    let mut left = [[[0i32; 32]; 8]; 4];
    for (wide, lanes) in left.iter_mut().zip(a).take(mma.a_registers()) {
        for (h, wide) in wide.iter_mut().enumerate().take(mma.per_register()) {
            *wide = map1(lanes, |x| element(x, h, how.a_signed));
        }
    }
    let mut right = [[0i32; 8]; 64];
    for (reg, lanes) in b.iter().enumerate().take(mma.b_registers()) {
        for h in 0..mma.per_register() {
            for (lane, &x) in lanes.iter().enumerate() {
                let (k, n) = layout::b(mma, lane, reg, h);
                right[k][n] = element(x, h, how.b_signed);
            }
        }
    }
    let mut d = [[0; 32]; 4];
    for row in 0..16 {
        // At most 64 products below 2^16 each: no overflow before c.
        let mut sums = [0i32; 8];
        for (k, right) in right.iter().enumerate().take(mma.k()) {
            let (lane, reg, h) = layout::place_a(mma, row, k);
            let x = left[reg][h][lane];
            for (sum, y) in sums.iter_mut().zip(right) {
                *sum += x * y;
            }
        }
        for (n, sum) in sums.into_iter().enumerate() {
            let (lane, reg) = layout::place_c(row, n);
            let c = c[reg][lane] as i32;
            let cell = if how.satfinite {
                c.saturating_add(sum)
            } else {
                c.wrapping_add(sum)
            };
            d[reg][lane] = cell as u32;
        }
    }
    d
}
