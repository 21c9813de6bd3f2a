//! The block formats: from weights to bytes and back, bit for bit as ggml defines them.
//!
//! | format | weights | bytes of a block |
//! |---|---|---|
//! | F32 | 1 | f32 |
//! | F16 | 1 | f16 |
//! | BF16 | 1 | the upper half of an f32 |
//! | Q8_0 | 32 | f16 scale `d`, 32 × i8 `q`; weight `d · q` |
//! | Q4_0 | 32 | f16 scale `d`, 16 bytes of `q` as in Q4_1; weight `d · (q − 8)` |
//! | Q4_1 | 32 | f16 scale `d`, f16 minimum `m`, 16 bytes whose low nibbles are `q` of weights 0 to 15 and whose high nibbles are `q` of weights 16 to 31; weight `d · q + m` |
//! | Q4_K | 256 | f16 `d`, f16 `m`, 12 bytes of 6-bit scales and minimums for eight groups of 32, 128 bytes of 4-bit `q`; weight `d · scale · q − m · minimum` |
//! | Q5_K | 256 | as Q4_K, with 32 bytes of fifth bits before the 128 bytes |
//! | Q6_K | 256 | 128 bytes of lower and 64 of upper bits of `q`, 16 × i8 scales for groups of 16, f16 `d`; weight `d · scale · (q − 32)` |
//!
//! All numbers are little-endian. The last three are ggml's super-blocks; their products of scale and code fit into the 24 bits of an
//! f32, so a weight is rounded at most once, whatever the order of its operations.

mod simd;
mod super_block;

use crate::{Error, Result, gguf::GgmlType};
use half::{bf16, f16};

const LEN: usize = 32;
const Q8_0: usize = GgmlType::Q8_0.block_bytes();
const Q4_0: usize = GgmlType::Q4_0.block_bytes();
const Q4_1: usize = GgmlType::Q4_1.block_bytes();

/// Room for `len` weights of a tensor. A file may hold more than the memory that is left does, so the allocation may fail.
pub(crate) fn zeros(operation: &'static str, tensor: &str, len: usize) -> Result<Vec<f32>> {
    let mut weights = Vec::new();
    weights.try_reserve_exact(len).map_err(|_| Error::Memory {
        operation,
        part: format!("tensor {tensor:?}"),
        expected: len,
    })?;
    weights.resize(len, 0.0);
    Ok(weights)
}

/// Weights of whole blocks, as f32. `bytes` holds the blocks of `out.len()` weights.
///
/// # Errors
/// [`Error::Argument`] where the two lengths don't belong together.
pub fn dequantize(kind: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    check("dequantize", kind, bytes.len(), out.len())?;
    simd::dequantize(kind, bytes, out);
    Ok(())
}

/// Product of one row of blocks with `x`, dequantised on the way: no weight is written to memory.
///
/// Sums are f32, in 16 lanes that are added up at the end; the order depends on the lengths alone, so equal arguments give
/// equal bits. Weights without a number in `x`, and numbers without a weight, count as zero.
pub fn dot(kind: GgmlType, bytes: &[u8], x: &[f32]) -> f32 {
    simd::dot(kind, bytes, x)
}

/// Blocks of `weights`, rounded as ggml's reference rounds them.
///
/// # Errors
/// [`Error::Unsupported`] for a format outside [`GgmlType::QUANTIZES`]; [`Error::Argument`] where the weights are no whole number
/// of blocks or not all finite, or where a scale is too large for f16.
pub fn quantize(kind: GgmlType, weights: &[f32]) -> Result<Vec<u8>> {
    if !GgmlType::QUANTIZES.contains(&kind) {
        return Err(Error::Unsupported {
            operation: "quantize",
            expected: GgmlType::QUANTIZES.map(|kind| kind.to_string()).join(", "),
            found: kind.to_string(),
        });
    }
    let bytes = weights.len() / kind.block_len() * kind.block_bytes();
    check("quantize", kind, bytes, weights.len())?;
    let refuse = |block: usize, part: &str, found: f32| Error::Argument {
        operation: "quantize",
        argument: "weights",
        expected: format!("a finite {part} in {kind}"),
        found: format!("{found} in block {block}"),
    };
    if let Some(at) = weights.iter().position(|weight| !weight.is_finite()) {
        return Err(refuse(at / kind.block_len(), "weight", weights[at]));
    }
    let mut out = Vec::with_capacity(bytes);
    match kind {
        GgmlType::F32 => weights
            .iter()
            .for_each(|weight| out.extend(weight.to_le_bytes())),
        GgmlType::F16 => weights
            .iter()
            .for_each(|&weight| out.extend(f16::from_f32(weight).to_le_bytes())),
        GgmlType::BF16 => weights
            .iter()
            .for_each(|&weight| out.extend(bf16::from_f32(weight).to_le_bytes())),
        GgmlType::Q8_0 => weights
            .as_chunks()
            .0
            .iter()
            .for_each(|block| quantize_q8_0(block, &mut out)),
        GgmlType::Q4_0 => weights
            .as_chunks()
            .0
            .iter()
            .for_each(|block| quantize_q4_0(block, &mut out)),
        GgmlType::Q4_1 => weights
            .as_chunks()
            .0
            .iter()
            .for_each(|block| quantize_q4_1(block, &mut out)),
        // Refused above.
        GgmlType::Q4_K | GgmlType::Q5_K | GgmlType::Q6_K => {}
    }
    match find_not_finite(kind, &out) {
        None => Ok(out),
        Some((block, part, found)) => Err(refuse(block, part, found)),
    }
}

/// The first number of blocks that is NaN or infinite: block, which number, its value.
pub(crate) fn find_not_finite(kind: GgmlType, bytes: &[u8]) -> Option<(usize, &'static str, f32)> {
    let bad = |(block, part, number): (usize, &'static str, f32)| {
        (!number.is_finite()).then_some((block, part, number))
    };
    match kind {
        GgmlType::F32 => {
            let numbers = bytes.as_chunks().0.iter().enumerate();
            numbers
                .map(|(i, word)| (i, "weight", f32::from_le_bytes(*word)))
                .find_map(bad)
        }
        GgmlType::F16 => {
            let numbers = bytes.as_chunks().0.iter().enumerate();
            numbers
                .map(|(i, word)| (i, "weight", widen(*word)))
                .find_map(bad)
        }
        GgmlType::BF16 => {
            let numbers = bytes.as_chunks().0.iter().enumerate();
            numbers
                .map(|(i, word)| (i, "weight", widen_bf16(*word)))
                .find_map(bad)
        }
        GgmlType::Q8_0 | GgmlType::Q4_0 | GgmlType::Q6_K => {
            let place = if kind == GgmlType::Q6_K {
                super_block::Q6_K - 2
            } else {
                0
            };
            let blocks = bytes.chunks_exact(kind.block_bytes()).enumerate();
            blocks
                .map(|(i, block)| (i, "scale", half_at(block, place)))
                .find_map(bad)
        }
        GgmlType::Q4_1 | GgmlType::Q4_K | GgmlType::Q5_K => {
            let blocks = bytes.chunks_exact(kind.block_bytes()).enumerate();
            blocks
                .flat_map(|(i, block)| {
                    [
                        (i, "scale", half_at(block, 0)),
                        (i, "minimum", half_at(block, 2)),
                    ]
                })
                .find_map(bad)
        }
    }
}

const LANES: usize = 16;

fn check(operation: &'static str, kind: GgmlType, bytes: usize, weights: usize) -> Result<()> {
    let blocks = weights / kind.block_len();
    if !weights.is_multiple_of(kind.block_len()) || bytes != blocks * kind.block_bytes() {
        return Err(Error::Argument {
            operation,
            argument: "weights",
            expected: format!(
                "{kind} blocks of {} weights and {} bytes",
                kind.block_len(),
                kind.block_bytes()
            ),
            found: format!("{weights} weights and {bytes} bytes"),
        });
    }
    Ok(())
}

/// f16 to f32 without a branch, so that loops over it become vector code: the exponent is moved from the bias 15 to the bias 127
/// by a product, which is exact, and an exponent of ones is filled up.
#[inline(always)]
fn widen(bytes: [u8; 2]) -> f32 {
    const BIAS: f32 = f32::from_bits((254 - 15) << 23);
    const INFINITY: u32 = 31 << 23;
    let bits = u32::from(u16::from_le_bytes(bytes));
    let magnitude = (bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * BIAS).to_bits();
    let all = if magnitude >= INFINITY {
        magnitude | 0xff << 23
    } else {
        finite
    };
    f32::from_bits(all | (bits & 0x8000) << 16)
}

/// bf16 to f32, which is exact.
#[inline(always)]
fn widen_bf16([low, high]: [u8; 2]) -> f32 {
    f32::from_le_bytes([0, 0, low, high])
}

/// The f16 at a place of a block.
#[inline(always)]
fn half_at(block: &[u8], place: usize) -> f32 {
    f16::from_le_bytes([block[place], block[place + 1]]).to_f32()
}

fn quantize_q8_0(weights: &[f32; LEN], out: &mut Vec<u8>) {
    let largest = weights
        .iter()
        .fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    out.extend(f16::from_f32(scale).to_le_bytes());
    out.extend(
        weights
            .iter()
            .map(|weight| (weight * inverse).round() as i8 as u8),
    );
}

fn quantize_q4_0(weights: &[f32; LEN], out: &mut Vec<u8>) {
    // The weight of the largest magnitude becomes code 0; of equals the first, whose sign then decides.
    let extreme = weights.iter().fold(0.0_f32, |extreme, &weight| {
        if weight.abs() > extreme.abs() {
            weight
        } else {
            extreme
        }
    });
    let scale = extreme / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    out.extend(f16::from_f32(scale).to_le_bytes());
    let code = |weight: f32| ((weight * inverse + 8.5) as u8).min(15);
    let (low, high) = weights.split_at(LEN / 2);
    out.extend(
        low.iter()
            .zip(high)
            .map(|(&low, &high)| code(low) | code(high) << 4),
    );
}

fn quantize_q4_1(weights: &[f32; LEN], out: &mut Vec<u8>) {
    let minimum = weights.iter().copied().fold(f32::INFINITY, f32::min);
    let maximum = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = (maximum - minimum) / 15.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    out.extend(f16::from_f32(scale).to_le_bytes());
    out.extend(f16::from_f32(minimum).to_le_bytes());
    // The cast saturates, so the code stays below 16 after the minimum.
    let code = |weight: f32| (((weight - minimum) * inverse + 0.5) as u8).min(15);
    let (low, high) = weights.split_at(LEN / 2);
    out.extend(
        low.iter()
            .zip(high)
            .map(|(&low, &high)| code(low) | code(high) << 4),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_precision_number_widens_exactly() {
        for bits in 0..=u16::MAX {
            let exact = f16::from_bits(bits).to_f32();
            let widened = widen(bits.to_le_bytes());
            assert!(
                widened.to_bits() == exact.to_bits() || (widened.is_nan() && exact.is_nan()),
                "{bits:#06x}"
            );
        }
    }

    #[test]
    fn memory_that_there_is_not_is_an_error() {
        assert_eq!(zeros("widen", "w", 3).unwrap(), [0.0; 3]);
        // The first length is beyond what an allocation may have at all, the second beyond any machine's memory.
        for len in [usize::MAX, isize::MAX as usize / size_of::<f32>()] {
            let error = zeros("widen", "w", len).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("widen: tensor \"w\": expected memory for {len} numbers, found too little")
            );
        }
    }
}
