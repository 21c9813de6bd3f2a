//! The orthonormal Walsh–Hadamard transform of the channels of a head.
//!
//! `y = H x / √n` with `H[i][j] = (−1)^popcount(i & j)`. It is its own inverse, keeps dot products, and spreads a channel that
//! stands out over all of them, which is what a shared scale wants.
//!
//! A `head_dim` that is no power of two is cut into blocks of the largest power of two that divides it, each transformed alone.

use crate::shape::HeadDim;
use crate::simd::{Isa, Kernel, Lanes};

/// Transforms each row of `rows`, `[…, head_dim]`, in place. Numbers beyond the last whole row stay as they are.
///
/// The order is fixed, so the result is the same to the bit on every instruction set: butterflies of stride 1, 2, 4, … in f32, then
/// one product with `1/√n` rounded to f32.
pub fn hadamard(rows: &mut [f32], head_dim: HeadDim) {
    hadamard_on(Isa::detect(), rows, head_dim);
}

#[doc(hidden)]
pub fn hadamard_on(isa: Isa, rows: &mut [f32], head_dim: HeadDim) {
    let whole = rows.len() / head_dim.get() * head_dim.get();
    let size = 1 << head_dim.get().trailing_zeros();
    isa.run(Transform {
        rows: &mut rows[..whole],
        size,
    });
}

struct Transform<'a> {
    rows: &'a mut [f32],
    size: usize,
}

impl Kernel for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let factor = (1.0 / (self.size as f64).sqrt()) as f32;
        for block in self.rows.chunks_exact_mut(self.size) {
            for sixteen in block.as_chunks_mut::<16>().0 {
                butterflies::<1>(sixteen);
                butterflies::<2>(sixteen);
                butterflies::<4>(sixteen);
                butterflies::<8>(sixteen);
            }
            let mut stride = 16;
            while stride < self.size {
                for pair in block.chunks_exact_mut(2 * stride) {
                    let (low, high) = pair.split_at_mut(stride);
                    for (low, high) in low.iter_mut().zip(high) {
                        (*low, *high) = (*low + *high, *low - *high);
                    }
                }
                stride *= 2;
            }
            for x in block {
                *x *= factor;
            }
        }
    }
}

#[inline(always)]
fn butterflies<const STRIDE: usize>(x: &mut [f32; 16]) {
    let from = *x;
    for (i, to) in x.iter_mut().enumerate() {
        let (low, high) = (from[i & !STRIDE], from[i | STRIDE]);
        *to = if i & STRIDE == 0 {
            low + high
        } else {
            low - high
        };
    }
}
