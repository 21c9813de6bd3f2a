//! Codes in the int32 words of the paper's reference implementation, and its f16 arithmetic.
//!
//! A word holds `32/b` codes along the axis that shares a scale, code `i` of a word in bits `i·b` and up, the first lowest. With
//! `heads = batch · kv_heads`:
//!
//! | | codes (i32) | scale and min (f16) |
//! |---|---|---|
//! | keys | `[heads, head_dim, tokens·b/32]` | `[heads, head_dim, tokens/group_size]` |
//! | values | `[heads, tokens, head_dim·b/32]` | `[heads, tokens, head_dim/group_size]` |
//!
//! 8-bit codes can be packed, unpacked and dequantised; the quantiser has 2 and 4 bits.
//!
//! Two inputs leave the reference: a minimum of -0 is stored as +0, and a range beyond the largest f16, which the reference turns
//! into an infinite scale, saturates at 65504. A constant group, there 0/0, gives code 0.

use half::f16;

use crate::config::{Bits, Rounding};
use crate::error::{Error, Result};
use crate::quantize::{Rows, Scheme, quantize_keys, quantize_values};
use crate::shape::{GroupSize, HeadDim};

/// Bits of a code in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WordBits {
    /// Sixteen codes a word.
    Two,
    /// Eight codes a word.
    Four,
    /// Four codes a word.
    Eight,
}

impl WordBits {
    /// The number of bits.
    #[must_use]
    pub const fn get(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// Codes of a word.
    #[must_use]
    pub const fn codes(self) -> usize {
        32 / self.get()
    }
}

/// Sizes of the arrays of keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Batch times heads of keys and values.
    pub heads: usize,
    /// Tokens of each head.
    pub tokens: usize,
    /// Channels of a head.
    pub head_dim: HeadDim,
    /// Elements that share a scale: tokens of keys, of which it divides the number, or channels of values, likewise.
    pub group_size: GroupSize,
    /// Bits of a code.
    pub bits: WordBits,
}

/// Quantised keys or values of the reference, in the layout of this module.
#[derive(Clone, Debug, PartialEq)]
pub struct Int32 {
    /// Packed codes.
    pub codes: Vec<i32>,
    /// Distance between neighbouring codes.
    pub scale: Vec<f16>,
    /// What code 0 stands for.
    pub min: Vec<f16>,
}

/// Quantises keys `[heads, tokens, head_dim]` as the reference does.
///
/// # Errors
/// [`Error::Shape`] for keys of another length, [`Error::Argument`] for tokens that the group size does not divide or that fill no
/// whole words, [`Error::Unsupported`] for 8 bits.
pub fn quantize_keys_int32(extent: Extent, keys: &[f16]) -> Result<Int32> {
    let scheme = extent.scheme("quantize_keys_int32")?;
    extent.check_keys("quantize_keys_int32", keys.len())?;
    let (head_dim, group) = (extent.head_dim.get(), extent.group_size.get());
    let groups = extent.tokens / group;
    let mut codes = vec![0; keys.len()];
    let mut scale = vec![f16::ZERO; keys.len() / group];
    let mut min = scale.clone();
    let mut block_scale = vec![f16::ZERO; head_dim];
    let mut block_min = block_scale.clone();
    let blocks = keys
        .chunks_exact(group * head_dim)
        .zip(codes.chunks_exact_mut(group * head_dim));
    for (index, (data, codes)) in blocks.enumerate() {
        let rows = Rows {
            data,
            tokens: group,
            head_dim,
            stride: head_dim,
        };
        quantize_keys(scheme, rows, codes, &mut block_scale, &mut block_min)?;
        for channel in 0..head_dim {
            let at = (index / groups * head_dim + channel) * groups + index % groups;
            scale[at] = block_scale[channel];
            min[at] = block_min[channel];
        }
    }
    Ok(Int32 {
        codes: keys_to_int32(extent, &codes)?,
        scale,
        min,
    })
}

/// Quantises values `[heads, tokens, head_dim]` as the reference does.
///
/// # Errors
/// [`Error::Shape`] for values of another length, [`Error::Argument`] for channels that the group size does not divide,
/// [`Error::Unsupported`] for 8 bits.
pub fn quantize_values_int32(extent: Extent, values: &[f16]) -> Result<Int32> {
    let scheme = extent.scheme("quantize_values_int32")?;
    extent.check_values("quantize_values_int32", values.len())?;
    let head_dim = extent.head_dim.get();
    let mut codes = vec![0; values.len()];
    let mut scale = vec![f16::ZERO; values.len() / extent.group_size.get()];
    let mut min = scale.clone();
    let rows = Rows {
        data: values,
        tokens: extent.heads * extent.tokens,
        head_dim,
        stride: head_dim,
    };
    quantize_values(scheme, rows, &mut codes, &mut scale, &mut min)?;
    Ok(Int32 {
        codes: values_to_int32(extent, &codes)?,
        scale,
        min,
    })
}

/// The keys `[heads, tokens, head_dim]` of quantised ones: `code·scale + min`, the product and the sum each rounded to f16.
///
/// # Errors
/// [`Error::Shape`] for arrays of other lengths, [`Error::Argument`] as for [`quantize_keys_int32`].
pub fn dequantize_keys_int32(extent: Extent, keys: &Int32) -> Result<Vec<f16>> {
    let codes = keys_from_int32(extent, &keys.codes)?;
    extent.check_metadata("dequantize_keys_int32", keys)?;
    let (tokens, head_dim, group) = (
        extent.tokens,
        extent.head_dim.get(),
        extent.group_size.get(),
    );
    let at = |i: usize| {
        let (head, token, channel) = (i / head_dim / tokens, i / head_dim % tokens, i % head_dim);
        (head * head_dim + channel) * (tokens / group) + token / group
    };
    Ok(dequantize(&codes, keys, at))
}

/// The values `[heads, tokens, head_dim]` of quantised ones: `code·scale + min`, the product and the sum each rounded to f16.
///
/// # Errors
/// [`Error::Shape`] for arrays of other lengths, [`Error::Argument`] as for [`quantize_values_int32`].
pub fn dequantize_values_int32(extent: Extent, values: &Int32) -> Result<Vec<f16>> {
    let codes = values_from_int32(extent, &values.codes)?;
    extent.check_metadata("dequantize_values_int32", values)?;
    Ok(dequantize(&codes, values, |i| i / extent.group_size.get()))
}

/// Packs key codes `[heads, tokens, head_dim]` into words `[heads, head_dim, tokens·b/32]`.
///
/// # Errors
/// [`Error::Shape`] for codes of another length, [`Error::Argument`] for codes beyond the bits, or an extent as for
/// [`quantize_keys_int32`].
pub fn keys_to_int32(extent: Extent, codes: &[u8]) -> Result<Vec<i32>> {
    extent.check_keys("keys_to_int32", codes.len())?;
    extent.check_codes(codes)?;
    let (head_dim, per_word) = (extent.head_dim.get(), extent.bits.codes());
    let words = extent.tokens / per_word;
    let mut packed = vec![0; codes.len() / per_word];
    for (index, row) in codes.chunks_exact(head_dim).enumerate() {
        let (head, token) = (index / extent.tokens, index % extent.tokens);
        for (channel, code) in row.iter().enumerate() {
            let word = &mut packed[(head * head_dim + channel) * words + token / per_word];
            *word |= i32::from(*code) << (token % per_word * extent.bits.get());
        }
    }
    Ok(packed)
}

/// Key codes `[heads, tokens, head_dim]` of words `[heads, head_dim, tokens·b/32]`.
///
/// # Errors
/// [`Error::Shape`] for words of another length, [`Error::Argument`] for an extent as for [`quantize_keys_int32`].
pub fn keys_from_int32(extent: Extent, words: &[i32]) -> Result<Vec<u8>> {
    let (head_dim, tokens) = (extent.head_dim.get(), extent.tokens);
    let codes = extent.unpack("keys_from_int32", words)?;
    extent.check_keys("keys_from_int32", codes.len())?;
    let mut transposed = vec![0; codes.len()];
    for (i, to) in transposed.iter_mut().enumerate() {
        let (head, token, channel) = (i / head_dim / tokens, i / head_dim % tokens, i % head_dim);
        *to = codes[(head * head_dim + channel) * tokens + token];
    }
    Ok(transposed)
}

/// Packs value codes `[heads, tokens, head_dim]` into words `[heads, tokens, head_dim·b/32]`.
///
/// # Errors
/// [`Error::Shape`] for codes of another length, [`Error::Argument`] for codes beyond the bits, or an extent as for
/// [`quantize_values_int32`].
pub fn values_to_int32(extent: Extent, codes: &[u8]) -> Result<Vec<i32>> {
    extent.check_values("values_to_int32", codes.len())?;
    extent.check_codes(codes)?;
    let words = codes.chunks_exact(extent.bits.codes());
    Ok(words
        .map(|codes| {
            let places = codes.iter().enumerate();
            places.fold(0, |word, (i, code)| {
                word | i32::from(*code) << (i * extent.bits.get())
            })
        })
        .collect())
}

/// Value codes `[heads, tokens, head_dim]` of words `[heads, tokens, head_dim·b/32]`.
///
/// # Errors
/// [`Error::Shape`] for words of another length, [`Error::Argument`] for an extent as for [`quantize_values_int32`].
pub fn values_from_int32(extent: Extent, words: &[i32]) -> Result<Vec<u8>> {
    let codes = extent.unpack("values_from_int32", words)?;
    extent.check_values("values_from_int32", codes.len())?;
    Ok(codes)
}

fn dequantize(codes: &[u8], from: &Int32, metadata: impl Fn(usize) -> usize) -> Vec<f16> {
    let codes = codes.iter().enumerate();
    codes
        .map(|(i, code)| {
            let at = metadata(i);
            let product = f16::from_f32(f32::from(*code) * from.scale[at].to_f32());
            f16::from_f32(product.to_f32() + from.min[at].to_f32())
        })
        .collect()
}

impl Extent {
    fn scheme(&self, op: &'static str) -> Result<Scheme> {
        Ok(Scheme {
            bits: match self.bits {
                WordBits::Two => Bits::Two,
                WordBits::Four => Bits::Four,
                WordBits::Eight => {
                    return Err(Error::Unsupported {
                        op,
                        why: "8-bit codes can be packed, unpacked and dequantised only".into(),
                    });
                }
            },
            clip_search: false,
            rounding: Rounding::Half,
        })
    }

    fn check_keys(&self, op: &'static str, found: usize) -> Result<()> {
        // A group of 16, 32, 64 or 128 tokens fills whole words at every number of bits.
        self.check_groups("tokens", self.tokens)?;
        self.check_len(op, found)
    }

    fn check_values(&self, op: &'static str, found: usize) -> Result<()> {
        self.check_groups("head_dim", self.head_dim.get())?;
        self.check_len(op, found)
    }

    fn check_groups(&self, argument: &'static str, found: usize) -> Result<()> {
        if found.is_multiple_of(self.group_size.get()) {
            return Ok(());
        }
        Err(Error::Argument {
            argument,
            expected: format!("a multiple of group_size = {}", self.group_size.get()),
            found: found.to_string(),
        })
    }

    fn check_len(&self, op: &'static str, found: usize) -> Result<()> {
        let expected = self
            .heads
            .checked_mul(self.tokens)
            .and_then(|rows| rows.checked_mul(self.head_dim.get()));
        if expected == Some(found) {
            return Ok(());
        }
        Err(Error::Shape {
            op,
            expected: format!(
                "[{}, {}, {}] elements",
                self.heads,
                self.tokens,
                self.head_dim.get()
            ),
            found: format!("{found} elements"),
        })
    }

    fn check_codes(&self, codes: &[u8]) -> Result<()> {
        let limit = (1 << self.bits.get()) - 1;
        match codes.iter().find(|code| i32::from(**code) > limit) {
            None => Ok(()),
            Some(code) => Err(Error::Argument {
                argument: "codes",
                expected: format!("at most {limit}"),
                found: code.to_string(),
            }),
        }
    }

    fn check_metadata(&self, op: &'static str, from: &Int32) -> Result<()> {
        let expected = from.codes.len() * self.bits.codes() / self.group_size.get();
        if from.scale.len() == expected && from.min.len() == expected {
            return Ok(());
        }
        Err(Error::Shape {
            op,
            expected: format!("scale and min [{expected}]"),
            found: format!("scale [{}], min [{}]", from.scale.len(), from.min.len()),
        })
    }

    /// The codes of all words, one after the other.
    fn unpack(&self, op: &'static str, words: &[i32]) -> Result<Vec<u8>> {
        let codes = words.len().saturating_mul(self.bits.codes());
        self.check_len(op, codes)?;
        let bits = self.bits.get();
        let mask = (1 << bits) - 1;
        Ok(words
            .iter()
            .flat_map(|word| (0..self.bits.codes()).map(move |i| (word >> (i * bits) & mask) as u8))
            .collect())
    }
}
