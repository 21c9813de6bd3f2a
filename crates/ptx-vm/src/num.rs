//! What PTX instructions compute: pure functions on register bits.
//!
//! Scalar functions take and return the bits of one lane. The forms on [`Lanes`] do a whole warp and are what the interpreter's
//! loops use; the value of a lane that does not execute is computed too and ignored.

pub mod approx;
pub mod convert;
pub mod exact;
pub mod float;
pub mod half;
pub mod integer;
pub mod mma;
pub mod shuffle;

/// One 32-bit (or narrower) register of a warp.
pub type Lanes = [u32; 32];

/// One 64-bit register of a warp.
pub type WideLanes = [u64; 32];

/// Applies `f` lane by lane.
#[inline(always)]
pub fn map1<A: Copy, R: Copy + Default>(a: &[A; 32], f: impl Fn(A) -> R) -> [R; 32] {
    let mut d = [R::default(); 32];
    for (d, &a) in d.iter_mut().zip(a) {
        *d = f(a);
    }
    d
}

/// Applies `f` lane by lane.
#[inline(always)]
pub fn map2<A: Copy, B: Copy, R: Copy + Default>(
    a: &[A; 32],
    b: &[B; 32],
    f: impl Fn(A, B) -> R,
) -> [R; 32] {
    let mut d = [R::default(); 32];
    for ((d, &a), &b) in d.iter_mut().zip(a).zip(b) {
        *d = f(a, b);
    }
    d
}

/// Applies `f` lane by lane.
#[inline(always)]
pub fn map3<A: Copy, B: Copy, C: Copy, R: Copy + Default>(
    a: &[A; 32],
    b: &[B; 32],
    c: &[C; 32],
    f: impl Fn(A, B, C) -> R,
) -> [R; 32] {
    let mut d = [R::default(); 32];
    for (((d, &a), &b), &c) in d.iter_mut().zip(a).zip(b).zip(c) {
        *d = f(a, b, c);
    }
    d
}

/// The lanes where `f` holds, as a mask.
#[inline(always)]
pub fn mask2<A: Copy, B: Copy>(a: &[A; 32], b: &[B; 32], f: impl Fn(A, B) -> bool) -> u32 {
    let truth: [u8; 32] = map2(a, b, |a, b| u8::from(f(a, b)));
    let mut mask = 0;
    for (i, eight) in truth.as_chunks().0.iter().enumerate() {
        // The factor brings bit 0 of byte i to bit 56 + i.
        let byte = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= (byte as u32) << (8 * i);
    }
    mask
}
