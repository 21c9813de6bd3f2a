//! Blocks of 256 weights, taken apart into sixteen groups of sixteen codes with a scale, and for two formats a minimum, each.

use super::half_at;
use crate::gguf::GgmlType;

pub(super) const Q4_K: usize = GgmlType::Q4_K.block_bytes();
pub(super) const Q5_K: usize = GgmlType::Q5_K.block_bytes();
pub(super) const Q6_K: usize = GgmlType::Q6_K.block_bytes();

/// Weights of a group, and groups of a block.
pub(super) const GROUPS: usize = 16;

/// One block: weight `i` of group `g` is `scales[g] · codes[g][i] − minimums[g]`.
pub(super) struct Groups {
    /// Signed numbers of at most six bits.
    pub(super) codes: [[u8; GROUPS]; GROUPS],
    pub(super) scales: [f32; GROUPS],
    /// Zero in Q6_K, which has none.
    pub(super) minimums: [f32; GROUPS],
}

#[inline(always)]
pub(super) fn q4_k(block: &[u8; Q4_K]) -> Groups {
    let mut codes = [[0; GROUPS]; GROUPS];
    nibbles(&block[16..], &mut codes);
    with_minimums(block, codes)
}

#[inline(always)]
pub(super) fn q5_k(block: &[u8; Q5_K]) -> Groups {
    let mut codes = [[0; GROUPS]; GROUPS];
    nibbles(&block[48..], &mut codes);
    // Bit `b` of the 32 bytes belongs to the weights from 32b to 32b + 31.
    let fifth = block[16..48].as_chunks::<GROUPS>().0;
    for (bit, pair) in codes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        for (codes, fifth) in pair.iter_mut().zip(fifth) {
            for (code, byte) in codes.iter_mut().zip(fifth) {
                *code |= (byte >> bit & 1) << 4;
            }
        }
    }
    with_minimums(block, codes)
}

#[inline(always)]
pub(super) fn q6_k(block: &[u8; Q6_K]) -> Groups {
    let mut codes = [[0; GROUPS]; GROUPS];
    let (lower, upper) = (&block[..128], &block[128..192]);
    // Each half of the block has 128 weights: 64 in the low nibbles of its 64 lower bytes, then 64 in the high ones. Their upper two
    // bits lie in 32 bytes, bits 0 and 1 for the first 32 weights, then 2 and 3 and so on.
    let lower = lower.as_chunks::<64>().0.iter();
    let upper = upper.as_chunks::<32>().0.iter();
    for (codes, (lower, upper)) in codes
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .zip(lower.zip(upper))
    {
        let (lower, upper) = (lower.as_chunks::<GROUPS>().0, upper.as_chunks::<GROUPS>().0);
        for (group, codes) in codes.iter_mut().enumerate() {
            let (nibble, bits) = (group / 4 * 4, group / 2 * 2);
            let bytes = lower[group % 4].iter().zip(&upper[group % 2]);
            for (code, (lower, upper)) in codes.iter_mut().zip(bytes) {
                let unsigned = lower >> nibble & 15 | (upper >> bits & 3) << 4;
                *code = unsigned.wrapping_sub(32);
            }
        }
    }
    let scale = half_at(block, 208);
    let scales: [u8; GROUPS] = std::array::from_fn(|group| block[192 + group]);
    Groups {
        codes,
        scales: scales.map(|s| scale * f32::from(s as i8)),
        minimums: [0.0; GROUPS],
    }
}

/// Four times 32 bytes: the low nibbles are the next 32 weights, the high ones the 32 after these.
#[inline(always)]
fn nibbles(bytes: &[u8], codes: &mut [[u8; GROUPS]; GROUPS]) {
    let bytes = bytes.as_chunks::<GROUPS>().0.as_chunks::<2>().0;
    for (codes, bytes) in codes.as_chunks_mut::<4>().0.iter_mut().zip(bytes) {
        let [low_0, low_1, high_0, high_1] = codes;
        *low_0 = bytes[0].map(|byte| byte & 15);
        *low_1 = bytes[1].map(|byte| byte & 15);
        *high_0 = bytes[0].map(|byte| byte >> 4);
        *high_1 = bytes[1].map(|byte| byte >> 4);
    }
}

/// The head that Q4_K and Q5_K share: two f16, then eight scales and eight minimums of six bits in twelve bytes. Bytes 0 to 3 and
/// 4 to 7 have scales and minimums 0 to 3 in their lower six bits; bytes 8 to 11 have the lower four bits of scales and of minimums 4
/// to 7, whose upper two bits are the upper bits of bytes 0 to 7.
#[inline(always)]
fn with_minimums(block: &[u8], codes: [[u8; GROUPS]; GROUPS]) -> Groups {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let packed: [u8; 12] = std::array::from_fn(|i| block[4 + i]);
    let [mut scales, mut minimums] = [[0.0; GROUPS]; 2];
    for group in 0..GROUPS {
        let (s, m) = match group / 2 {
            i @ ..4 => (packed[i] & 63, packed[i + 4] & 63),
            i => (
                packed[i + 4] & 15 | packed[i - 4] >> 6 << 4,
                packed[i + 4] >> 4 | packed[i] >> 6 << 4,
            ),
        };
        scales[group] = scale * f32::from(s);
        minimums[group] = minimum * f32::from(m);
    }
    Groups {
        codes,
        scales,
        minimums,
    }
}
