//! The quantiser: a group of numbers becomes codes of 2, 3 or 4 bits, a scale and a minimum.
//!
//! A group is `G` consecutive tokens of one channel for keys and `Gv` consecutive channels of one token for values. With `b` bits,
//! `scale = (max − min)/(2^b − 1)`, `code = clamp(round_half_even((x − min)/scale), 0, 2^b − 1)` and the number that comes back is
//! `code·scale + min`. Scale and minimum are f16. (Liu et al. 2024, section 3, equation 1.)
//!
//! # [`Rounding::Native`]
//! f32 arithmetic without fused products. Scale and minimum are rounded to f16 first, and the codes come from the *rounded* pair by
//! one subtraction and one division, so every device gives the same codes. A scale that rounds to 0 gives code 0. Without clip
//! search, `|x − (code·scale + min)| ≤ scale/2 + ulp(min)/2 + (2^b − 1)·ulp(scale)/2` with the ulps of f16.
//!
//! *Clip search* tries sixteen ranges, `lo = min + a·(max − min)` for `a` = 0, 0.1, 0.2, 0.3 (outer loop) and
//! `hi = max − c·(max − min)` for `c` = 0, 0.1, 0.2, 0.3 (inner loop), in f32. Each gives a pair `scale = (hi − lo)/(2^b − 1)`,
//! `min = lo`, rounded to f16, and an error: the sum of `(x − (code·scale + min))²`, added up in the order of the group, in f32.
//! The pair of least error is kept, the first of equals.
//!
//! # [`Rounding::Half`]
//! Bit-equal to the reference implementation of the paper, which computes in f16: `max − min`, the division by `2^b − 1`,
//! `x − min` and the division by `scale` are each rounded to f16. The quotient 0/0 of a constant group, NaN there, is code 0.
//!
//! # At the edges
//! In f16 arithmetic a difference beyond 65504, the largest f16, is taken as 65504 and not as infinity. In f32 arithmetic no f16
//! input gets that far, and a scale or minimum of larger input becomes ±65504. A scale or minimum of zero is stored as
//! +0. Infinite and NaN
//! elements give arbitrary codes and metadata, never a panic; a cache refuses them.

use half::f16;

use crate::config::{Bits, Rounding};
use crate::error::{Error, Result};
use crate::simd::{Isa, Kernel, Lanes};

/// How a group is quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Bits of a code.
    pub bits: Bits,
    /// Whether sixteen clipped ranges are tried. Needs [`Rounding::Native`].
    pub clip_search: bool,
    /// Precision of the arithmetic.
    pub rounding: Rounding,
}

impl Scheme {
    /// # Errors
    /// [`Error::Argument`] for clip search in f16 arithmetic, for which the reference defines none.
    pub fn validate(&self) -> Result<()> {
        if self.clip_search && self.rounding == Rounding::Half {
            return Err(Error::Argument {
                argument: "clip_search",
                expected: "false with Rounding::Half".into(),
                found: "true".into(),
            });
        }
        Ok(())
    }
}

/// What a group's codes are relative to: `x ≈ code·scale + min`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Distance between neighbouring codes.
    pub scale: f16,
    /// What code 0 stands for.
    pub min: f16,
}

/// The most elements of a group.
pub const MAX_GROUP: usize = 128;

/// `tokens` rows of `head_dim` numbers, the start of each `stride` elements after that of the one before.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// From the first number of the first row to at least the last of the last.
    pub data: &'a [f16],
    /// Number of rows.
    pub tokens: usize,
    /// Channels of a row, a multiple of 16.
    pub head_dim: usize,
    /// From row to row, at least `head_dim`.
    pub stride: usize,
}

/// Quantises one group of 1 to [`MAX_GROUP`] numbers: the definition, one number after the other, that the faster forms equal
/// to the bit. With [`Rounding::Half`] the numbers are rounded to f16 first.
///
/// # Errors
/// [`Error::Argument`] for a scheme that is not valid, [`Error::Shape`] for another number of values, or of codes than values.
pub fn quantize_group(scheme: Scheme, values: &[f32], codes: &mut [u8]) -> Result<Group> {
    scheme.validate()?;
    if !(1..=MAX_GROUP).contains(&values.len()) || codes.len() != values.len() {
        return Err(Error::Shape {
            op: "quantize_group",
            expected: format!("1 to {MAX_GROUP} values, and as many codes"),
            found: format!("{} values, {} codes", values.len(), codes.len()),
        });
    }
    let step = |x: f32| match scheme.rounding {
        Rounding::Half => f16::from_f32(x.clamp(-LIMIT, LIMIT)).to_f32(),
        Rounding::Native => x,
    };
    let values = values.iter().map(|&x| step(x));
    let (min, max) = values
        .clone()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), x| {
            (if x < min { x } else { min }, if x > max { x } else { max })
        });
    let top = f32::from(scheme.bits.max_code());
    // Adding 0 turns −0 into +0.
    let stored = |x: f32| f16::from_f32(f16::from_f32(x.clamp(-LIMIT, LIMIT)).to_f32() + 0.0);
    let round = |scale: f32, min: f32| Group {
        scale: stored(scale),
        min: stored(min),
    };
    let code = |group: Group, x: f32| {
        let scale = group.scale.to_f32();
        let quotient = match scheme.rounding {
            Rounding::Native if scale == 0.0 => 0.0,
            _ => step(step(x - group.min.to_f32()) / scale),
        };
        // `max` makes 0 of NaN.
        quotient.max(0.0).min(top).round_ties_even()
    };
    let mut best = round(step(step(max - min) / top), min);
    if scheme.clip_search {
        let range = max - min;
        let mut least = f32::INFINITY;
        for low_shrink in SHRINK {
            for high_shrink in SHRINK {
                let (low, high) = (min + low_shrink * range, max - high_shrink * range);
                let group = round((high - low) / top, low);
                let error = values.clone().fold(0.0, |sum, x| {
                    let error = x - (code(group, x) * group.scale.to_f32() + group.min.to_f32());
                    sum + error * error
                });
                if error < least {
                    (best, least) = (group, error);
                }
            }
        }
    }
    for (to, x) in codes.iter_mut().zip(values) {
        *to = code(best, x) as u8;
    }
    Ok(best)
}

/// Quantises keys, each channel over 1 to [`MAX_GROUP`] tokens: `codes` is `[tokens, head_dim]`, `scale` and `min` are
/// `[head_dim]`.
///
/// # Errors
/// [`Error::Argument`] for a scheme that is not valid, [`Error::Shape`] for slices of other lengths.
pub fn quantize_keys(
    scheme: Scheme,
    rows: Rows<'_>,
    codes: &mut [u8],
    scale: &mut [f16],
    min: &mut [f16],
) -> Result<()> {
    quantize_keys_on(Isa::detect(), scheme, rows, codes, scale, min)
}

/// Quantises values, each token in groups of 16 to [`MAX_GROUP`] channels: `codes` is `[tokens, head_dim]`, `scale` and `min` are
/// `[tokens, groups]`, whose length says how many groups a token has. The number of channels of a group is a multiple of 16.
///
/// # Errors
/// [`Error::Argument`] for a scheme that is not valid, [`Error::Shape`] for slices of other lengths.
pub fn quantize_values(
    scheme: Scheme,
    rows: Rows<'_>,
    codes: &mut [u8],
    scale: &mut [f16],
    min: &mut [f16],
) -> Result<()> {
    quantize_values_on(Isa::detect(), scheme, rows, codes, scale, min)
}

/// The keys of codes `[tokens, head_dim]`: `code·scale + min` in f32, `scale` and `min` being `[head_dim]`, into `out`,
/// `[tokens, head_dim]`.
///
/// # Errors
/// [`Error::Shape`] for slices of other lengths.
pub fn dequantize_keys(codes: &[u8], scale: &[f16], min: &[f16], out: &mut [f32]) -> Result<()> {
    let head_dim = scale.len();
    if min.len() != head_dim
        || out.len() != codes.len()
        || codes.len().checked_rem(head_dim) != Some(0)
    {
        return Err(Error::Shape {
            op: "dequantize_keys",
            expected: "codes and out [tokens, head_dim], scale and min [head_dim]".into(),
            found: lengths(codes, scale, min, out),
        });
    }
    for (codes, out) in codes
        .chunks_exact(head_dim)
        .zip(out.chunks_exact_mut(head_dim))
    {
        let metadata = scale.iter().zip(min);
        for ((out, code), (scale, min)) in out.iter_mut().zip(codes).zip(metadata) {
            *out = f32::from(*code) * scale.to_f32() + min.to_f32();
        }
    }
    Ok(())
}

/// The values of codes `[tokens, head_dim]`: `code·scale + min` in f32, `scale` and `min` being `[tokens, groups]`, into `out`,
/// `[tokens, head_dim]`.
///
/// # Errors
/// [`Error::Shape`] for slices of other lengths.
pub fn dequantize_values(codes: &[u8], scale: &[f16], min: &[f16], out: &mut [f32]) -> Result<()> {
    let group = codes.len().checked_div(scale.len()).unwrap_or(0);
    if min.len() != scale.len() || out.len() != codes.len() || scale.len() * group != codes.len() {
        return Err(Error::Shape {
            op: "dequantize_values",
            expected: "codes and out [tokens, head_dim], scale and min [tokens, groups]".into(),
            found: lengths(codes, scale, min, out),
        });
    }
    for (i, (out, code)) in out.iter_mut().zip(codes).enumerate() {
        *out = f32::from(*code) * scale[i / group].to_f32() + min[i / group].to_f32();
    }
    Ok(())
}

fn lengths(codes: &[u8], scale: &[f16], min: &[f16], out: &[f32]) -> String {
    format!(
        "codes [{}], scale [{}], min [{}], out [{}]",
        codes.len(),
        scale.len(),
        min.len(),
        out.len()
    )
}

#[doc(hidden)]
pub fn quantize_keys_on(
    isa: Isa,
    scheme: Scheme,
    rows: Rows<'_>,
    codes: &mut [u8],
    scale: &mut [f16],
    min: &mut [f16],
) -> Result<()> {
    let op = "quantize_keys";
    scheme.validate()?;
    rows.check(op, codes)?;
    if !(1..=MAX_GROUP).contains(&rows.tokens)
        || scale.len() != rows.head_dim
        || min.len() != rows.head_dim
    {
        return Err(Error::Shape {
            op,
            expected: format!("1 to {MAX_GROUP} tokens, scale and min [{}]", rows.head_dim),
            found: format!(
                "{} tokens, scale [{}], min [{}]",
                rows.tokens,
                scale.len(),
                min.len()
            ),
        });
    }
    isa.run(Keys {
        scheme,
        rows,
        codes,
        scale,
        min,
    });
    Ok(())
}

#[doc(hidden)]
pub fn quantize_values_on(
    isa: Isa,
    scheme: Scheme,
    rows: Rows<'_>,
    codes: &mut [u8],
    scale: &mut [f16],
    min: &mut [f16],
) -> Result<()> {
    let op = "quantize_values";
    scheme.validate()?;
    rows.check(op, codes)?;
    if codes.is_empty() && scale.is_empty() && min.is_empty() {
        return Ok(());
    }
    let group = codes.len().checked_div(scale.len()).unwrap_or(0);
    if !(16..=MAX_GROUP).contains(&group)
        || !group.is_multiple_of(16)
        || !rows.head_dim.is_multiple_of(group)
        || scale.len() * group != codes.len()
        || min.len() != scale.len()
    {
        return Err(Error::Shape {
            op,
            expected: format!(
                "scale and min [{}, groups] with groups of a multiple of 16 channels up to {MAX_GROUP} in {}",
                rows.tokens, rows.head_dim
            ),
            found: format!("scale [{}], min [{}]", scale.len(), min.len()),
        });
    }
    isa.run(Values {
        scheme,
        rows,
        group,
        codes,
        scale,
        min,
    });
    Ok(())
}

impl Rows<'_> {
    fn check(&self, op: &'static str, codes: &[u8]) -> Result<()> {
        let needed = match self.tokens {
            0 => Some(0),
            tokens => (tokens - 1)
                .checked_mul(self.stride)
                .and_then(|start| start.checked_add(self.head_dim)),
        };
        let fits = needed.is_some_and(|needed| needed <= self.data.len());
        if fits
            && self.stride >= self.head_dim
            && self.head_dim.is_multiple_of(16)
            && self.tokens.checked_mul(self.head_dim) == Some(codes.len())
        {
            return Ok(());
        }
        Err(Error::Shape {
            op,
            expected: format!(
                "rows and codes [{}, {}], a multiple of 16 channels, rows at least that far apart",
                self.tokens, self.head_dim
            ),
            found: format!(
                "{} numbers with a stride of {}, {} codes",
                self.data.len(),
                self.stride,
                codes.len()
            ),
        })
    }
}

/// The largest f16.
const LIMIT: f32 = 65504.0;

/// The parts of its range that clip search takes off either end of a group.
const SHRINK: [f32; 4] = [0.0, 0.1, 0.2, 0.3];

struct Keys<'a> {
    scheme: Scheme,
    rows: Rows<'a>,
    codes: &'a mut [u8],
    scale: &'a mut [f16],
    min: &'a mut [f16],
}

impl Kernel for Keys<'_> {
    type Output = ();

    /// Sixteen channels at a time, a lane each.
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Rows {
            data,
            tokens,
            head_dim,
            stride,
        } = self.rows;
        let mut tile = [[0.0; 16]; MAX_GROUP];
        let tile = &mut tile[..tokens];
        for channel in (0..head_dim).step_by(16) {
            let (mut min, mut max) = (L::splat(f32::INFINITY), L::splat(f32::NEG_INFINITY));
            for (token, row) in tile.iter_mut().enumerate() {
                let x = L::load_f16(sixteen(data, token * stride + channel));
                min = x.min(min);
                max = x.max(max);
                x.store(row);
            }
            let grid = if self.scheme.clip_search {
                clip(
                    self.scheme.bits,
                    16,
                    |lane| tile.iter().map(move |row| row[lane]),
                    min,
                    max,
                )
            } else {
                Grid::new(self.scheme, min, max)
            };
            grid.scale.store_f16(sixteen_mut(self.scale, channel));
            grid.min.store_f16(sixteen_mut(self.min, channel));
            let divisor = grid.divisor(self.scheme.rounding);
            for (token, row) in tile.iter().enumerate() {
                code(self.scheme, L::load(row), grid.min, divisor)
                    .store_u8(sixteen_mut(self.codes, token * head_dim + channel));
            }
        }
    }
}

struct Values<'a> {
    scheme: Scheme,
    rows: Rows<'a>,
    group: usize,
    codes: &'a mut [u8],
    scale: &'a mut [f16],
    min: &'a mut [f16],
}

impl Kernel for Values<'_> {
    type Output = ();

    /// Sixteen groups at a time, a lane each for what is done once per group; the channels of a group are lanes for the rest.
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Rows {
            data,
            tokens,
            head_dim,
            stride,
        } = self.rows;
        let group = self.group;
        let rows = data.chunks(stride).take(tokens);
        let mut groups = rows.flat_map(|row| row[..head_dim].chunks_exact(group));
        let mut tile = [[0.0; 16]; MAX_GROUP];
        let metadata = self.scale.chunks_mut(16).zip(self.min.chunks_mut(16));
        for (codes, (to_scale, to_min)) in self.codes.chunks_mut(16 * group).zip(metadata) {
            let tile = &mut tile[..codes.len() / 16];
            let (mut mins, mut maxs) = ([0.0; 16], [0.0; 16]);
            let loads = tile.chunks_exact_mut(group / 16).zip(&mut groups);
            for (lane, (values, from)) in loads.enumerate() {
                let (mut min, mut max) = (L::splat(f32::INFINITY), L::splat(f32::NEG_INFINITY));
                for (x16, from) in values.iter_mut().zip(from.as_chunks().0) {
                    let x = L::load_f16(from);
                    min = x.min(min);
                    max = x.max(max);
                    x.store(x16);
                }
                (mins[lane], maxs[lane]) = (min.reduce_min(), max.reduce_max());
            }
            let (min, max) = (L::load(&mins), L::load(&maxs));
            let grid = if self.scheme.clip_search {
                let values = |lane| {
                    tile[lane * group / 16..][..group / 16]
                        .as_flattened()
                        .iter()
                        .copied()
                };
                clip(self.scheme.bits, to_scale.len(), values, min, max)
            } else {
                Grid::new(self.scheme, min, max)
            };
            let mut half = [f16::ZERO; 16];
            grid.scale.store_f16(&mut half);
            to_scale.copy_from_slice(&half[..to_scale.len()]);
            grid.min.store_f16(&mut half);
            to_min.copy_from_slice(&half[..to_min.len()]);
            grid.min.store(&mut mins);
            let mut divisors = [[0.0; 16]; 2];
            for (part, to) in grid.divisor(self.scheme.rounding).iter().zip(&mut divisors) {
                part.store(to);
            }
            let groups = tile
                .chunks_exact(group / 16)
                .zip(codes.chunks_exact_mut(group));
            for (lane, (values, codes)) in groups.enumerate() {
                let min = L::splat(mins[lane]);
                let divisor = [L::splat(divisors[0][lane]), L::splat(divisors[1][lane])];
                for (x16, codes) in values.iter().zip(codes.as_chunks_mut::<16>().0) {
                    code(self.scheme, L::load(x16), min, divisor).store_u8(codes);
                }
            }
        }
    }
}

/// Scales and minima of sixteen groups, or of sixteen candidates for one, already rounded to f16.
#[derive(Clone, Copy)]
struct Grid<L> {
    scale: L,
    min: L,
}

impl<L: Lanes> Grid<L> {
    /// The whole range of each group.
    #[inline(always)]
    fn new(scheme: Scheme, min: L, max: L) -> Self {
        let range = match scheme.rounding {
            Rounding::Half => max.sub(min).min(L::splat(LIMIT)).round_f16(),
            Rounding::Native => max.sub(min),
        };
        Self::rounded(range.div(top(scheme.bits)), min)
    }

    #[inline(always)]
    fn rounded(scale: L, min: L) -> Self {
        Self {
            scale: stored(scale),
            min: stored(min),
        }
    }

    /// The divisor of each group, for [`code`].
    #[inline(always)]
    fn divisor(self, rounding: Rounding) -> [L; 2] {
        match rounding {
            Rounding::Half => [self.scale; 2],
            // A scale of 0 divides as 2^60, so that every quotient rounds to 0.
            Rounding::Native => self
                .scale
                .or_where_zero(L::splat((1u64 << 60) as f32))
                .divisor(),
        }
    }
}

/// Scales or minima as f16 holds them.
#[inline(always)]
fn stored<L: Lanes>(x: L) -> L {
    let limit = L::splat(LIMIT);
    let x = x.min(limit).max(L::splat(-LIMIT)).round_f16();
    // Turns −0 into +0.
    x.add(L::splat(0.0))
}

/// The codes of sixteen numbers.
#[inline(always)]
fn code<L: Lanes>(scheme: Scheme, x: L, min: L, divisor: [L; 2]) -> L {
    let offset = x.sub(min);
    let quotient = match scheme.rounding {
        Rounding::Half => offset
            .min(L::splat(LIMIT))
            .round_f16()
            .div(divisor[0])
            .round_f16(),
        Rounding::Native => offset.quotient(divisor),
    };
    // Between 2^23 and 2^24 an f32 is an integer, so the sum rounds to the nearest, halves to even. `max` makes 0 of NaN.
    let integers = L::splat((1u32 << 23) as f32);
    quotient
        .max(L::splat(0.0))
        .min(top(scheme.bits))
        .add(integers)
        .sub(integers)
}

#[inline(always)]
fn top<L: Lanes>(bits: Bits) -> L {
    L::splat(f32::from(bits.max_code()))
}

/// The best range of each of the first `groups` lanes by clip search. For each group, a candidate is a lane.
#[inline(always)]
fn clip<L: Lanes, V: Iterator<Item = f32>>(
    bits: Bits,
    groups: usize,
    values: impl Fn(usize) -> V,
    min: L,
    max: L,
) -> Grid<L> {
    let scheme = Scheme {
        bits,
        clip_search: true,
        rounding: Rounding::Native,
    };
    let low_shrink: [f32; 16] = std::array::from_fn(|i| SHRINK[i / 4]);
    let high_shrink: [f32; 16] = std::array::from_fn(|i| SHRINK[i % 4]);
    let (mut mins, mut maxs) = ([0.0; 16], [0.0; 16]);
    min.store(&mut mins);
    max.store(&mut maxs);
    // Three loops instead of one, so that the long latencies of one group hide behind the work of the others.
    let mut candidates = [Grid {
        scale: L::splat(0.0),
        min: L::splat(0.0),
    }; 16];
    for ((candidates, min), max) in candidates[..groups].iter_mut().zip(mins).zip(maxs) {
        let range = L::splat(max - min);
        let low = L::splat(min).add(L::load(&low_shrink).mul(range));
        let high = L::splat(max).sub(L::load(&high_shrink).mul(range));
        *candidates = Grid::rounded(high.sub(low).div(top(bits)), low);
    }
    let mut divisors = [[L::splat(0.0); 2]; 16];
    for (divisor, candidates) in divisors[..groups].iter_mut().zip(candidates) {
        *divisor = candidates.divisor(scheme.rounding);
    }
    let mut errors = [L::splat(0.0); 16];
    for group in 0..groups {
        let (Grid { scale, min }, divisor) = (candidates[group], divisors[group]);
        let mut sum = L::splat(0.0);
        for x in values(group) {
            let x = L::splat(x);
            // A product of 4 and 11 significant bits is exact.
            let error = x.sub(code(scheme, x, min, divisor).mul_add(scale, min));
            sum = sum.add(error.mul(error));
        }
        errors[group] = sum;
    }
    let (mut best_scales, mut best_mins) = ([0.0; 16], [0.0; 16]);
    for group in 0..groups {
        let best = errors[group].first_min();
        let (mut scales, mut mins) = ([0.0; 16], [0.0; 16]);
        candidates[group].scale.store(&mut scales);
        candidates[group].min.store(&mut mins);
        best_scales[group] = scales[best];
        best_mins[group] = mins[best];
    }
    Grid {
        scale: L::load(&best_scales),
        min: L::load(&best_mins),
    }
}

#[inline(always)]
fn sixteen<T>(from: &[T], at: usize) -> &[T; 16] {
    let (sixteen, _) = from[at..]
        .split_first_chunk()
        .expect("lengths are checked before a kernel runs");
    sixteen
}

#[inline(always)]
fn sixteen_mut<T>(from: &mut [T], at: usize) -> &mut [T; 16] {
    let (sixteen, _) = from[at..]
        .split_first_chunk_mut()
        .expect("lengths are checked before a kernel runs");
    sixteen
}
