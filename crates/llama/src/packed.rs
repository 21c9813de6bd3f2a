//! Weights repacked for integer products, sixteen rows side by side, and the activations that they are multiplied with.
//!
//! Activations are rounded to 8 bits as they come, in blocks of 32 as the weights are: `a = max |x| / 127`, `c = x · (1 / a)`
//! rounded to the nearest integer (halves to even), and `C = Σ c`. With a weight `d · q + m` a product is then
//!
//! ```text
//! y = Σ_b a_b · (d_b · Σ_i q_i·c_i + m_b · C_b)
//! ```
//!
//! over blocks `b` in ascending order. The inner sums are integers below 2^24, exact in i32 and in f32. What is left is one
//! product and two fused multiply-adds a block, the same ones on every instruction set, so that all of them give the same bits.
//! That `C` sums the rounded activations, not the given ones, is on purpose: the minimums of a block lie near `-8 · d`, so that the
//! rounding errors of both terms cancel.
//!
//! Side by side, each row is a lane of a register: no sum crosses lanes, and scales are applied to sixteen rows at once.

mod simd;

use half::f16;
use rayon::prelude::*;
use simd::{Isa, Level};
use whittle_tensor::par;

use crate::gguf::GgmlType;
use crate::{Error, Result};

/// Weights, and activations, of a block.
const LEN: usize = 32;

/// Rows of weights side by side.
const ROWS: usize = 16;

/// Rows of `x` that are multiplied with a weight at a time.
const TILE: usize = 8;

/// Rows of `x`, at most, that a task multiplies with all weights: they stay in the second-level cache.
const HEIGHT: usize = 32;

/// Products of integers that cost as much as a simple operation on one element.
const PRODUCTS: usize = 8;

/// A weight matrix `[rows, cols]`, repacked.
#[derive(Debug)]
pub(crate) struct Packed {
    rows: usize,
    cols: usize,
    panels: Panels,
}

/// Block after block of the first sixteen rows, then of the next; rows beyond the last are zero.
#[derive(Debug)]
enum Panels {
    Q4_0(Vec<Q4_0x16>),
    Q4_1(Vec<Q4_1x16>),
    Q8_0(Vec<Q8_0x16>),
}

impl Packed {
    /// Repacks the rows of the tensor `name`, or `None` for a format without integer codes. `bytes` are whole rows.
    ///
    /// # Errors
    /// [`Error::Memory`]: the repacked weights take the memory of the tensor once more.
    pub(crate) fn new(
        name: &str,
        kind: GgmlType,
        bytes: &[u8],
        rows: usize,
        cols: usize,
    ) -> Result<Option<Self>> {
        let panels = match kind {
            // The super-blocks of the K formats have another scale every 16 or 32 weights; nobody packs them yet.
            GgmlType::F32
            | GgmlType::F16
            | GgmlType::BF16
            | GgmlType::Q4_K
            | GgmlType::Q5_K
            | GgmlType::Q6_K => return Ok(None),
            GgmlType::Q4_0 if !has_minimums(bytes) => return Ok(None),
            GgmlType::Q4_0 => Panels::Q4_0(pack(name, bytes, rows, cols)?),
            GgmlType::Q4_1 => Panels::Q4_1(pack(name, bytes, rows, cols)?),
            GgmlType::Q8_0 => Panels::Q8_0(pack(name, bytes, rows, cols)?),
        };
        Ok(Some(Self { rows, cols, panels }))
    }

    /// `x · wᵀ`, `[n, rows]`, for `x` `[n, cols]`. A row of the result depends on its row of `x` alone; where that holds a NaN or
    /// an infinity, all of it is NaN.
    pub(crate) fn product(&self, x: &[f32], n: usize) -> Vec<f32> {
        let level = Level::detect();
        let blocks = self.cols / LEN;
        let mut rounded = vec![Q8::default(); n * blocks];
        par::rows(&mut rounded, blocks, x.len(), |row, out| {
            simd::round(level, &x[row * self.cols..][..self.cols], out);
        });
        match &self.panels {
            Panels::Q4_0(panels) => product(level, panels, self.rows, &rounded, n),
            Panels::Q4_1(panels) => product(level, panels, self.rows, &rounded, n),
            Panels::Q8_0(panels) => product(level, panels, self.rows, &rounded, n),
        }
    }
}

/// A block of activations, `x ≈ scale · c`.
#[derive(Clone, Copy, Debug, Default)]
struct Q8 {
    /// The codes `c`, -127 to 127, four in a word in the order of memory.
    words: [i32; LEN / 4],
    /// Zero where it would not be a normal number, and the codes with it; NaN where an activation is no finite number.
    scale: f32,
    /// Of all codes: an integer.
    sum: f32,
}

/// A block of each of sixteen rows, in some format.
trait Format: Copy + Send + Sync {
    /// Bytes of a row's block.
    const BYTES: usize;
    /// Weights of which each is zero.
    const ZERO: Self;

    /// Takes over the block of a row as the file has it, [`Format::BYTES`] long.
    fn put(&mut self, row: usize, block: &[u8]);

    /// Adds the products with a block of each of some rows of `x` to the totals of those rows.
    fn add<I: Isa, const M: usize>(&self, isa: I, x: [&Q8; M], totals: &mut [I::Lanes; M]);
}

/// Sixteen blocks of Q4_1, five lines of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Q4_1x16 {
    scales: [f16; ROWS],
    minimums: [f16; ROWS],
    /// Four bytes of each row, then the next four: low nibbles are weights 0 to 15, high ones 16 to 31.
    codes: [[[u8; 4]; ROWS]; 4],
}

impl Format for Q4_1x16 {
    const BYTES: usize = GgmlType::Q4_1.block_bytes();
    const ZERO: Self = Self {
        scales: [f16::ZERO; ROWS],
        minimums: [f16::ZERO; ROWS],
        codes: [[[0; 4]; ROWS]; 4],
    };

    fn put(&mut self, row: usize, block: &[u8]) {
        let words = block.as_chunks::<4>().0;
        let [d0, d1, m0, m1] = words[0];
        self.scales[row] = f16::from_le_bytes([d0, d1]);
        self.minimums[row] = f16::from_le_bytes([m0, m1]);
        for (codes, word) in self.codes.iter_mut().zip(&words[1..]) {
            codes[row] = *word;
        }
    }

    #[inline(always)]
    fn add<I: Isa, const M: usize>(&self, isa: I, x: [&Q8; M], totals: &mut [I::Lanes; M]) {
        isa.prefetch(self);
        let sums = isa.nibbles(&self.codes, x);
        let (scales, minimums) = (isa.halves(&self.scales), isa.halves(&self.minimums));
        for i in 0..M {
            let shift = isa.mul(minimums, isa.splat(x[i].sum));
            let dot = isa.fma(scales, sums[i], shift);
            totals[i] = isa.fma(isa.splat(x[i].scale), dot, totals[i]);
        }
    }
}

/// Sixteen blocks of Q4_0, `d · (q - 8)`: as Q4_1 with the minimum `-8 · d`, which is exact.
#[derive(Clone, Copy, Debug)]
struct Q4_0x16(Q4_1x16);

/// Whether `-8 · d` of every block of Q4_0 is a number that an f16 has.
fn has_minimums(bytes: &[u8]) -> bool {
    bytes
        .chunks_exact(GgmlType::Q4_0.block_bytes())
        .all(|block| {
            let scale = f16::from_le_bytes([block[0], block[1]]);
            f16::from_f32(-8.0 * scale.to_f32()).is_finite()
        })
}

impl Format for Q4_0x16 {
    const BYTES: usize = GgmlType::Q4_0.block_bytes();
    const ZERO: Self = Self(Q4_1x16::ZERO);

    fn put(&mut self, row: usize, block: &[u8]) {
        let scale = f16::from_le_bytes([block[0], block[1]]);
        self.0.scales[row] = scale;
        self.0.minimums[row] = f16::from_f32(-8.0 * scale.to_f32());
        let words = block[2..].as_chunks::<4>().0;
        for (codes, word) in self.0.codes.iter_mut().zip(words) {
            codes[row] = *word;
        }
    }

    #[inline(always)]
    fn add<I: Isa, const M: usize>(&self, isa: I, x: [&Q8; M], totals: &mut [I::Lanes; M]) {
        self.0.add(isa, x, totals);
    }
}

/// Sixteen blocks of Q8_0.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
struct Q8_0x16 {
    scales: [f16; ROWS],
    /// Four codes of each row, then the next four, each plus 128: processors multiply bytes without sign by bytes with one.
    codes: [[[u8; 4]; ROWS]; 8],
}

impl Format for Q8_0x16 {
    const BYTES: usize = GgmlType::Q8_0.block_bytes();
    const ZERO: Self = Self {
        scales: [f16::ZERO; ROWS],
        codes: [[[0; 4]; ROWS]; 8],
    };

    fn put(&mut self, row: usize, block: &[u8]) {
        self.scales[row] = f16::from_le_bytes([block[0], block[1]]);
        let words = block[2..].as_chunks::<4>().0;
        for (codes, word) in self.codes.iter_mut().zip(words) {
            codes[row] = word.map(|code| code ^ 0x80);
        }
    }

    #[inline(always)]
    fn add<I: Isa, const M: usize>(&self, isa: I, x: [&Q8; M], totals: &mut [I::Lanes; M]) {
        isa.prefetch(self);
        let sums = isa.bytes(&self.codes, x);
        let scales = isa.halves(&self.scales);
        for i in 0..M {
            let dot = isa.mul(scales, sums[i]);
            totals[i] = isa.fma(isa.splat(x[i].scale), dot, totals[i]);
        }
    }
}

fn pack<F: Format>(name: &str, bytes: &[u8], rows: usize, cols: usize) -> Result<Vec<F>> {
    let blocks = cols / LEN;
    let len = rows.div_ceil(ROWS).saturating_mul(blocks);
    let mut panels = Vec::new();
    panels.try_reserve_exact(len).map_err(|_| Error::Memory {
        operation: "Matrix::new",
        part: format!("tensor {name:?}"),
        expected: rows.saturating_mul(cols),
    })?;
    panels.resize(len, F::ZERO);
    par::rows(&mut panels, blocks, bytes.len(), |panel, out| {
        let rows = bytes.chunks_exact(blocks * F::BYTES);
        for (row, bytes) in rows.skip(panel * ROWS).take(ROWS).enumerate() {
            for (out, block) in out.iter_mut().zip(bytes.chunks_exact(F::BYTES)) {
                out.put(row, block);
            }
        }
    });
    Ok(panels)
}

/// `[n, rows]` for `x` `[n, blocks]`.
fn product<F: Format>(level: Level, panels: &[F], rows: usize, x: &[Q8], n: usize) -> Vec<f32> {
    let count = rows.div_ceil(ROWS);
    let blocks = panels.len() / count;
    let mut out = vec![0.0; n * rows];
    let threads = rayon::current_num_threads();
    if n < 2 * TILE * threads {
        // Threads share out the weights, so that each is read once. That makes panel after panel, to be turned round.
        let work = (panels.len() * ROWS * LEN / PRODUCTS).saturating_mul(n);
        let mut lanes = vec![[0.0; ROWS]; count * n];
        par::rows(&mut lanes, n, work, |panel, lanes| {
            simd::product(level, &panels[panel * blocks..][..blocks], x, lanes);
        });
        par::rows(&mut out, rows, n * rows, |i, out| {
            for (out, lanes) in out.chunks_mut(ROWS).zip(lanes[i..].iter().step_by(n)) {
                out.copy_from_slice(&lanes[..out.len()]);
            }
        });
        return out;
    }
    // Threads share out the rows of `x`, so that each writes where its results belong.
    let height = n.div_ceil(threads).next_multiple_of(TILE).min(HEIGHT);
    out.par_chunks_mut(height * rows)
        .zip(x.par_chunks(height * blocks))
        .for_each(|(out, x)| {
            let mut lanes = [[0.0; ROWS]; HEIGHT];
            let lanes = &mut lanes[..x.len() / blocks];
            for (panel, first) in panels.chunks_exact(blocks).zip((0..).step_by(ROWS)) {
                simd::product(level, panel, x, lanes);
                for (out, lanes) in out.chunks_exact_mut(rows).zip(&*lanes) {
                    let len = ROWS.min(rows - first);
                    out[first..first + len].copy_from_slice(&lanes[..len]);
                }
            }
        });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_there_is_not_is_an_error() {
        let error = pack::<Q4_1x16>("w", &[], isize::MAX as usize, LEN).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("Matrix::new: tensor \"w\": expected memory for ")
        );
    }

    #[test]
    fn rows_beyond_the_last_are_zero() {
        let bytes: Vec<u8> = vec![0x3c; 17 * 2 * Q8_0x16::BYTES];
        let panels = pack::<Q8_0x16>("w", &bytes, 17, 2 * LEN).unwrap();
        assert_eq!(panels.len(), 4);
        for (i, block) in panels.iter().enumerate() {
            for row in 0..ROWS {
                let scale = if i / 2 * ROWS + row < 17 { 0x3c3c } else { 0 };
                assert_eq!(block.scales[row].to_bits(), scale, "block {i}, row {row}");
            }
        }
    }

    #[test]
    fn scales_of_q4_0_whose_minimum_no_f16_has_stay_blocks() {
        let mut block = [0u8; GgmlType::Q4_0.block_bytes()];
        for (scale, is_packed) in [(8000.0, true), (-8000.0, true), (8200.0, false)] {
            block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
            let packed = Packed::new("w", GgmlType::Q4_0, &block, 1, LEN).unwrap();
            assert_eq!(packed.is_some(), is_packed, "{scale}");
        }
    }

    #[test]
    fn formats_without_integer_codes_are_left_alone() {
        let has_codes =
            |kind: &GgmlType| matches!(kind, GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q8_0);
        for kind in GgmlType::ALL.into_iter().filter(|kind| !has_codes(kind)) {
            assert!(Packed::new("w", kind, &[0; 4], 1, 1).unwrap().is_none());
        }
    }
}
