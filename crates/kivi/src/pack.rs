//! How the codes of a block lie in memory.
//!
//! A block holds the keys and the values of `G` tokens of one layer and head. It is one run of bytes in this order: key low
//! plane, key high plane, key scales, key minima, value low plane, value high plane, value scales, value minima.
//!
//! # Planes
//! A plane is made of 64-byte chunks, sixteen little-endian 32-bit words. Each word belongs to one *lane*, each bit to one
//! index along the *depth*, the axis that attention contracts over:
//!
//! | | lane | depth |
//! |---|---|---|
//! | keys | token | channel |
//! | values | channel | token |
//!
//! With `lane = 16·a + l` (`l < 16`), the three kinds of plane are
//!
//! | plane | holds | depth index | chunk | byte in the chunk | bits in the byte |
//! |---|---|---|---|---|---|
//! | low | `code & 3` | `16·b + 4·p + j` (`p, j < 4`) | `a·⌈depth/16⌉ + b` | `4·l + j` | `2p, 2p+1` |
//! | high, 4-bit codes | `code >> 2` | `16·b + 4·p + j` (`p, j < 4`) | `a·⌈depth/16⌉ + b` | `4·l + j` | `2p, 2p+1` |
//! | high, 3-bit codes | `code >> 2` | `32·b + 4·p + j` (`p < 8`, `j < 4`) | `a·⌈depth/32⌉ + b` | `4·l + j` | `p` |
//!
//! so that for keys byte `4·t+j` of chunk `[token tile][channel tile]` holds channels `4p+j` of token `t`, and for values byte
//! `4·d+j` of chunk `[channel tile][token tile]` holds tokens `4p+j` of channel `d`. One shift and one mask yield 64 codes, whose
//! 32-bit words are what `vpdpbusd`, `dp4a` and `mma` take. A chunk of a 3-bit code's high plane that reaches beyond the depth is
//! padded with zeros. 2-bit codes have no high plane.
//!
//! # Scales and minima
//! f16: keys `scale[D]`, `min[D]`; values `scale[G][D/Gv]`, `min[G][D/Gv]`, with the `Gv` of
//! [`value_group`].
//!
//! All planes, and a block as a whole, are multiples of 64 bytes long.

use std::ops::Range;

use half::f16;

use crate::config::{Bits, value_group};
use crate::error::{Error, Result};
use crate::shape::{GroupSize, HeadDim};
use crate::simd::{Isa, Kernel, Lanes};

/// Where everything lies in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    head_dim: usize,
    group_size: usize,
    value_groups: usize,
    keys: Planes,
    values: Planes,
    ranges: Ranges,
}

/// The byte ranges of the parts of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// Low two bits of the key codes.
    pub key_low: Range<usize>,
    /// Other bits of the key codes, empty for 2-bit codes.
    pub key_high: Range<usize>,
    /// f16 `[head_dim]`.
    pub key_scale: Range<usize>,
    /// f16 `[head_dim]`.
    pub key_min: Range<usize>,
    /// Low two bits of the value codes.
    pub value_low: Range<usize>,
    /// Other bits of the value codes, empty for 2-bit codes.
    pub value_high: Range<usize>,
    /// f16 `[group_size][head_dim / value_group]`.
    pub value_scale: Range<usize>,
    /// f16 `[group_size][head_dim / value_group]`.
    pub value_min: Range<usize>,
}

impl BlockLayout {
    /// The layout of a block of `group_size` tokens.
    #[must_use]
    pub fn new(head_dim: HeadDim, group_size: GroupSize, key_bits: Bits, value_bits: Bits) -> Self {
        let value_groups = head_dim.get() / value_group(head_dim, group_size);
        let (head_dim, group_size) = (head_dim.get(), group_size.get());
        let mut end = 0;
        let mut part = |bytes: usize| {
            let start = end;
            end += bytes;
            start..end
        };
        let keys = Planes::new(group_size, head_dim, key_bits, &mut part);
        let (key_scale, key_min) = (part(2 * head_dim), part(2 * head_dim));
        let values = Planes::new(head_dim, group_size, value_bits, &mut part);
        let metadata = 2 * group_size * value_groups;
        let (value_scale, value_min) = (part(metadata), part(metadata));
        let ranges = Ranges {
            key_low: keys.low.clone(),
            key_high: keys.high.clone(),
            key_scale,
            key_min,
            value_low: values.low.clone(),
            value_high: values.high.clone(),
            value_scale,
            value_min,
        };
        Self {
            head_dim,
            group_size,
            value_groups,
            keys,
            values,
            ranges,
        }
    }

    /// Channels of a head, `D`.
    #[must_use]
    pub const fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Tokens of a block, `G`.
    #[must_use]
    pub const fn group_size(&self) -> usize {
        self.group_size
    }

    /// Groups of values of one token, `D/Gv`.
    #[must_use]
    pub const fn value_groups(&self) -> usize {
        self.value_groups
    }

    /// The byte ranges of the parts.
    #[must_use]
    pub const fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Bytes of a block, a multiple of 64.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.ranges.value_min.end
    }

    /// Bytes of a block that belong to keys.
    #[must_use]
    pub const fn key_bytes(&self) -> usize {
        self.ranges.key_min.end
    }

    /// Bytes of a block that belong to values.
    #[must_use]
    pub const fn value_bytes(&self) -> usize {
        self.bytes() - self.key_bytes()
    }

    /// Where bit `bit` of a key's code lies: an index into the bits of the block, lowest bit of a byte first. `None` outside the
    /// block or the code.
    #[must_use]
    pub fn key_bit(&self, token: usize, channel: usize, bit: usize) -> Option<usize> {
        self.keys.bit(token, channel, bit)
    }

    /// Where bit `bit` of a value's code lies: an index into the bits of the block, lowest bit of a byte first. `None` outside
    /// the block or the code.
    #[must_use]
    pub fn value_bit(&self, token: usize, channel: usize, bit: usize) -> Option<usize> {
        self.values.bit(channel, token, bit)
    }

    /// The code of one key. `None` outside the block.
    #[must_use]
    pub fn key_code(&self, block: &[u8], token: usize, channel: usize) -> Option<u8> {
        self.keys.code(block, token, channel)
    }

    /// The code of one value. `None` outside the block.
    #[must_use]
    pub fn value_code(&self, block: &[u8], token: usize, channel: usize) -> Option<u8> {
        self.values.code(block, channel, token)
    }

    /// Writes the key codes `[tokens, head_dim]`, `tokens ≤ group_size`, of a block. Codes of the tokens beyond become 0.
    ///
    /// # Errors
    /// [`Error::Shape`] for slices of other lengths.
    pub fn pack_keys(&self, codes: &[u8], block: &mut [u8]) -> Result<()> {
        self.check_block("pack_keys", block)?;
        if !codes.len().is_multiple_of(self.head_dim)
            || codes.len() > self.group_size * self.head_dim
        {
            return Err(Error::Shape {
                op: "pack_keys",
                expected: format!("codes [at most {}, {}]", self.group_size, self.head_dim),
                found: format!("{} codes", codes.len()),
            });
        }
        Isa::detect().run(PackByLane {
            planes: &self.keys,
            codes,
            block,
        });
        Ok(())
    }

    /// Writes the value codes `[head_dim]` of one token of a block, whatever stood there before.
    ///
    /// # Errors
    /// [`Error::Shape`] for slices of other lengths, [`Error::Argument`] for a token outside the block.
    pub fn pack_value(&self, token: usize, codes: &[u8], block: &mut [u8]) -> Result<()> {
        self.check_block("pack_value", block)?;
        if codes.len() != self.head_dim {
            return Err(Error::Shape {
                op: "pack_value",
                expected: format!("codes [{}]", self.head_dim),
                found: format!("{} codes", codes.len()),
            });
        }
        if token >= self.group_size {
            return Err(Error::Argument {
                argument: "token",
                expected: format!("below group_size = {}", self.group_size),
                found: token.to_string(),
            });
        }
        Isa::detect().run(PackDepth {
            planes: &self.values,
            depth: token,
            codes,
            block,
        });
        Ok(())
    }

    /// All key codes as f32 `[head_dim, group_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for slices of other lengths.
    pub fn unpack_keys(&self, block: &[u8], out: &mut [f32]) -> Result<()> {
        self.unpack_keys_on(Isa::detect(), block, out)
    }

    /// All value codes as f32 `[group_size, head_dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for slices of other lengths.
    pub fn unpack_values(&self, block: &[u8], out: &mut [f32]) -> Result<()> {
        self.unpack_values_on(Isa::detect(), block, out)
    }

    #[doc(hidden)]
    pub fn unpack_keys_on(&self, isa: Isa, block: &[u8], out: &mut [f32]) -> Result<()> {
        self.unpack(isa, "unpack_keys", &self.keys, block, out)
    }

    #[doc(hidden)]
    pub fn unpack_values_on(&self, isa: Isa, block: &[u8], out: &mut [f32]) -> Result<()> {
        self.unpack(isa, "unpack_values", &self.values, block, out)
    }

    /// Scales and minima of the keys, `[head_dim]` each.
    ///
    /// # Errors
    /// [`Error::Shape`] for a block of another length, [`Error::Argument`] for one that is not aligned to 2 bytes.
    pub fn key_metadata<'a>(&self, block: &'a [u8]) -> Result<(&'a [f16], &'a [f16])> {
        self.check_block("key_metadata", block)?;
        Ok((
            halves(&block[self.ranges.key_scale.clone()])?,
            halves(&block[self.ranges.key_min.clone()])?,
        ))
    }

    /// Scales and minima of the keys, `[head_dim]` each, to be written.
    ///
    /// # Errors
    /// [`Error::Shape`] for a block of another length, [`Error::Argument`] for one that is not aligned to 2 bytes.
    pub fn key_metadata_mut<'a>(
        &self,
        block: &'a mut [u8],
    ) -> Result<(&'a mut [f16], &'a mut [f16])> {
        self.check_block("key_metadata_mut", block)?;
        split_halves(&mut block[self.ranges.key_scale.start..self.ranges.key_min.end])
    }

    /// Scales and minima of the values, `[group_size, value_groups]` each.
    ///
    /// # Errors
    /// [`Error::Shape`] for a block of another length, [`Error::Argument`] for one that is not aligned to 2 bytes.
    pub fn value_metadata<'a>(&self, block: &'a [u8]) -> Result<(&'a [f16], &'a [f16])> {
        self.check_block("value_metadata", block)?;
        Ok((
            halves(&block[self.ranges.value_scale.clone()])?,
            halves(&block[self.ranges.value_min.clone()])?,
        ))
    }

    /// Scales and minima of the values, `[group_size, value_groups]` each, to be written.
    ///
    /// # Errors
    /// [`Error::Shape`] for a block of another length, [`Error::Argument`] for one that is not aligned to 2 bytes.
    pub fn value_metadata_mut<'a>(
        &self,
        block: &'a mut [u8],
    ) -> Result<(&'a mut [f16], &'a mut [f16])> {
        self.check_block("value_metadata_mut", block)?;
        split_halves(&mut block[self.ranges.value_scale.start..self.ranges.value_min.end])
    }

    fn check_block(&self, op: &'static str, block: &[u8]) -> Result<()> {
        if block.len() == self.bytes() {
            Ok(())
        } else {
            Err(Error::Shape {
                op,
                expected: format!("a block of {} bytes", self.bytes()),
                found: format!("{} bytes", block.len()),
            })
        }
    }

    fn unpack(
        &self,
        isa: Isa,
        op: &'static str,
        planes: &Planes,
        block: &[u8],
        out: &mut [f32],
    ) -> Result<()> {
        self.check_block(op, block)?;
        if out.len() != planes.lanes * planes.depth {
            return Err(Error::Shape {
                op,
                expected: format!("out [{}, {}]", planes.depth, planes.lanes),
                found: format!("{} elements", out.len()),
            });
        }
        isa.run(Unpack { planes, block, out });
        Ok(())
    }
}

/// The planes of the keys or of the values of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Planes {
    lanes: usize,
    depth: usize,
    bits: Bits,
    low: Range<usize>,
    high: Range<usize>,
}

/// Bytes of a chunk.
const CHUNK: usize = 64;
/// Lanes of a chunk, which are its 32-bit words.
const TILE: usize = 16;

impl Planes {
    fn new(
        lanes: usize,
        depth: usize,
        bits: Bits,
        part: &mut impl FnMut(usize) -> Range<usize>,
    ) -> Self {
        let tiles = lanes / TILE;
        let low = part(tiles * (depth / 16) * CHUNK);
        let high = part(match bits {
            Bits::Two => 0,
            Bits::Three => tiles * depth.div_ceil(32) * CHUNK,
            Bits::Four => tiles * (depth / 16) * CHUNK,
        });
        Self {
            lanes,
            depth,
            bits,
            low,
            high,
        }
    }

    /// Start of the chunk of the low plane that holds lanes `16·a…` and depth `16·b…`.
    #[inline(always)]
    fn low_chunk(&self, a: usize, b: usize) -> usize {
        self.low.start + CHUNK * (a * (self.depth / 16) + b)
    }

    /// Start of the chunk of the high plane that holds lanes `16·a…` and depth `16·b…`; for 3-bit codes the lower or upper half of
    /// each of its bytes.
    #[inline(always)]
    fn high_chunk(&self, a: usize, b: usize) -> usize {
        self.high.start
            + CHUNK
                * match self.bits {
                    Bits::Two => 0,
                    Bits::Three => a * self.depth.div_ceil(32) + b / 2,
                    Bits::Four => a * (self.depth / 16) + b,
                }
    }

    fn bit(&self, lane: usize, depth: usize, bit: usize) -> Option<usize> {
        if lane >= self.lanes || depth >= self.depth || bit >= self.bits.get() {
            return None;
        }
        let (a, b, j) = (lane / TILE, depth / 16, depth % 4);
        let (chunk, in_byte) = match (bit, self.bits) {
            (0 | 1, _) => (self.low_chunk(a, b), 2 * (depth % 16 / 4) + bit),
            (_, Bits::Three) => (self.high_chunk(a, b), depth % 32 / 4),
            (_, _) => (self.high_chunk(a, b), 2 * (depth % 16 / 4) + bit - 2),
        };
        Some(8 * (chunk + 4 * (lane % TILE) + j) + in_byte)
    }

    fn code(&self, block: &[u8], lane: usize, depth: usize) -> Option<u8> {
        let mut code = 0;
        for bit in 0..self.bits.get() {
            let at = self.bit(lane, depth, bit)?;
            code |= (block.get(at / 8)? >> (at % 8) & 1) << bit;
        }
        Some(code)
    }
}

/// Writes codes `[lanes, depth]`, the lanes beyond as 0.
struct PackByLane<'a> {
    planes: &'a Planes,
    codes: &'a [u8],
    block: &'a mut [u8],
}

impl Kernel for PackByLane<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self {
            planes,
            codes,
            block,
        } = self;
        block[planes.low.clone()].fill(0);
        block[planes.high.clone()].fill(0);
        for (lane, row) in codes.chunks_exact(planes.depth).enumerate() {
            let (a, l) = (lane / TILE, lane % TILE);
            for (b, row) in row.as_chunks::<16>().0.iter().enumerate() {
                let words: [u32; 4] = bytemuck::cast(*row);
                let words = words.map(u32::from_le);
                let low = words.map(|w| w & 0x0303_0303);
                put(block, planes.low_chunk(a, b) + 4 * l, interleave(low, 2));
                let high = words.map(|w| w >> 2 & 0x0303_0303);
                let at = planes.high_chunk(a, b) + 4 * l;
                match planes.bits {
                    Bits::Two => {}
                    Bits::Three => put(block, at, interleave(high, 1) << (4 * (b % 2))),
                    Bits::Four => put(block, at, interleave(high, 2)),
                }
            }
        }
    }
}

/// Byte `j` of the result holds byte `j` of word `p` from bit `step·p` on.
#[inline(always)]
fn interleave(words: [u32; 4], step: usize) -> u32 {
    words[0] | words[1] << step | words[2] << (2 * step) | words[3] << (3 * step)
}

#[inline(always)]
fn put(block: &mut [u8], at: usize, word: u32) {
    for (byte, new) in block[at..at + 4].iter_mut().zip(word.to_le_bytes()) {
        *byte |= new;
    }
}

/// Writes the codes `[lanes]` of one depth index.
struct PackDepth<'a> {
    planes: &'a Planes,
    depth: usize,
    codes: &'a [u8],
    block: &'a mut [u8],
}

impl Kernel for PackDepth<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self {
            planes,
            depth,
            codes,
            block,
        } = self;
        let (b, j) = (depth / 16, depth % 4);
        let low_shift = 8 * j + 2 * (depth % 16 / 4);
        for (a, codes) in codes.as_chunks::<TILE>().0.iter().enumerate() {
            let codes = codes.map(u32::from);
            overwrite(
                block,
                planes.low_chunk(a, b),
                codes.map(|c| c & 3),
                3,
                low_shift,
            );
            let high = codes.map(|c| c >> 2);
            let at = planes.high_chunk(a, b);
            match planes.bits {
                Bits::Two => {}
                Bits::Three => overwrite(block, at, high, 1, 8 * j + depth % 32 / 4),
                Bits::Four => overwrite(block, at, high, 3, low_shift),
            }
        }
    }
}

/// Puts `bits[l] & mask` into bits `shift…` of word `l` of a chunk.
#[inline(always)]
fn overwrite(block: &mut [u8], chunk: usize, bits: [u32; TILE], mask: u32, shift: usize) {
    let mut words = load(block, chunk);
    for (word, bits) in words.iter_mut().zip(bits) {
        *word = *word & !(mask << shift) | (bits & mask) << shift;
    }
    let words = words.map(u32::to_le);
    block[chunk..chunk + CHUNK].copy_from_slice(bytemuck::bytes_of(&words));
}

#[inline(always)]
fn load(block: &[u8], chunk: usize) -> [u32; TILE] {
    let mut words = [0u32; TILE];
    bytemuck::bytes_of_mut(&mut words).copy_from_slice(&block[chunk..chunk + CHUNK]);
    words.map(u32::from_le)
}

/// Reads all codes as `[depth, lanes]`.
struct Unpack<'a> {
    planes: &'a Planes,
    block: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        match self.planes.bits {
            Bits::Two => self.tiles::<0>(),
            Bits::Three => self.tiles::<1>(),
            Bits::Four => self.tiles::<2>(),
        }
    }
}

impl Unpack<'_> {
    /// `HIGH` is the number of bits of a code in the high plane.
    #[inline(always)]
    fn tiles<const HIGH: usize>(self) {
        let Self { planes, block, out } = self;
        for (b, rows) in out.chunks_exact_mut(16 * planes.lanes).enumerate() {
            for a in 0..planes.lanes / TILE {
                let mut low = load(block, planes.low_chunk(a, b));
                let mut high = match HIGH {
                    0 => [0; TILE],
                    1 => load(block, planes.high_chunk(a, b)).map(|w| w >> (4 * (b % 2))),
                    _ => load(block, planes.high_chunk(a, b)),
                };
                for rows in rows.chunks_exact_mut(4 * planes.lanes) {
                    for j in 0..4 {
                        let row = &mut rows[j * planes.lanes + TILE * a..][..TILE];
                        for (l, out) in row.iter_mut().enumerate() {
                            let high = high[l] >> (8 * j) & ((1 << HIGH) - 1);
                            *out = (low[l] >> (8 * j) & 3 | high << 2) as f32;
                        }
                    }
                    low = low.map(|w| w >> 2);
                    high = high.map(|w| w >> HIGH);
                }
            }
        }
    }
}

fn halves(bytes: &[u8]) -> Result<&[f16]> {
    bytemuck::try_cast_slice(bytes).map_err(|error| misaligned(&error))
}

fn split_halves(bytes: &mut [u8]) -> Result<(&mut [f16], &mut [f16])> {
    let all: &mut [f16] =
        bytemuck::try_cast_slice_mut(bytes).map_err(|error| misaligned(&error))?;
    let middle = all.len() / 2;
    Ok(all.split_at_mut(middle))
}

fn misaligned(error: &bytemuck::PodCastError) -> Error {
    Error::Argument {
        argument: "block",
        expected: "memory aligned to 2 bytes".into(),
        found: error.to_string(),
    }
}
