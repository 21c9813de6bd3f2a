//! Weight matrices, dense or as the blocks that the file holds.

use std::sync::Arc;

use rayon::prelude::*;
use whittle_tensor::{Device, Tensor, par, product};

use crate::gguf::{GgmlType, TensorView};
use crate::packed::Packed;
use crate::{Error, Result, block};

/// Rows of `x` up to which weights are multiplied straight from their blocks. With more, dequantising a panel once for all rows
/// is cheaper.
const FEW: usize = 4;

/// Weights of a dequantised panel, at most: with the rows of `x` that pass by, it stays in the second-level cache.
const PANEL: usize = 1 << 18;

/// A panel's rows are a multiple of this, the width of the widest product kernel.
const KERNEL: usize = 64;

/// How a decoder keeps its weight matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// As blocks in the mapped file, dequantised piece by piece in every product: a model takes the memory of its file.
    Blocks,
    /// Widened to f32 at load: faster products of many rows, four bytes a weight.
    F32,
    /// As codes that are multiplied as integers: 4-bit weights with 8-bit activations (W4A8) for Q4_0 and Q4_1, W8A8 for Q8_0. The
    /// fastest, and the only form that rounds activations.
    ///
    /// Each block of 32 activations is rounded on the fly to `a · c` with `a = max |x| / 127` and `c` the integer next to
    /// `x · (1 / a)`, halves to even; a block whose `a` would not be a normal f32 counts as zero. All the rest is exact up to the f32
    /// sum over blocks. A row of `x` with a NaN or an infinity gives a row of NaN.
    ///
    /// The codes are repacked at load, sixteen rows side by side, which takes the memory of the file once more. Matrices of
    /// other kinds (F32, F16, BF16, the K formats) are as under [`Weights::Blocks`].
    Integer,
}

/// A weight matrix `[rows, cols]` that maps inputs of `cols` channels to outputs of `rows` channels.
#[derive(Clone, Debug)]
pub struct Matrix {
    name: String,
    rows: usize,
    cols: usize,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    Dense(Tensor),
    Blocks(Rows),
    /// The blocks give single rows and whole matrices, the repacked ones give products.
    Integer(Rows, Arc<Packed>),
}

/// The rows of a tensor, in the order in which the matrix has them.
#[derive(Clone, Debug)]
struct Rows {
    view: TensorView,
    /// Rows of a head that the tensor keeps for half-split pairs and the matrix for interleaved ones.
    halves: Option<usize>,
}

impl Rows {
    fn bytes(&self, row: usize) -> &[u8] {
        let row = match self.halves {
            None => row,
            Some(head) => {
                let (first, at) = (row / head * head, row % head);
                first + at % 2 * (head / 2) + at / 2
            }
        };
        let len = self.view.info().row_bytes();
        &self.view.bytes()[row * len..(row + 1) * len]
    }

    fn kind(&self) -> GgmlType {
        self.view.info().kind
    }
}

impl Matrix {
    /// The matrix that a tensor of a file holds, `[rows, cols]`, with all weights finite.
    ///
    /// # Errors
    /// [`Error::Gguf`] or [`Error::Safetensors`] for a tensor that has not two dimensions, [`Error::NotFinite`], memory that the chosen
    /// form doesn't fit into.
    pub fn new(tensor: TensorView, weights: Weights) -> Result<Self> {
        Self::load(tensor, weights, None)
    }

    /// The query or key matrix `[heads · head_dim, cols]` of a file that has its rows for half-split rotary pairs (channels `i` and
    /// `i + head_dim / 2` of a head turn together), with its rows in the order for interleaved pairs (`2i` and `2i + 1`): row
    /// `2i + j` of a head is the tensor's row `i + j · head_dim / 2`. No weight is copied for that.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Argument`] where `head_dim` is odd or does not divide the rows.
    pub fn interleaved(tensor: TensorView, weights: Weights, head_dim: usize) -> Result<Self> {
        let rows = tensor.info().shape.first().copied().unwrap_or(0);
        if head_dim == 0 || !head_dim.is_multiple_of(2) || !rows.is_multiple_of(head_dim) {
            return Err(Error::argument(
                "Matrix::interleaved",
                "head_dim",
                format!("an even divisor of the {rows} rows"),
                head_dim,
            ));
        }
        Self::load(tensor, weights, Some(head_dim))
    }

    fn load(view: TensorView, weights: Weights, halves: Option<usize>) -> Result<Self> {
        let [rows, cols] = view.info().shape[..] else {
            return Err(view.bad_shape("two dimensions"));
        };
        view.check_finite()?;
        let name = view.info().name.clone();
        // The kinds that have integer codes are of GGUF files, whose rows are in order.
        let packed = match (weights, halves) {
            (Weights::Integer, None) => {
                Packed::new(&name, view.info().kind, view.bytes(), rows, cols)?
            }
            _ => None,
        };
        let view = Rows { view, halves };
        let matrix = Self {
            name,
            rows,
            cols,
            values: match packed {
                Some(packed) => Values::Integer(view, Arc::new(packed)),
                None => Values::Blocks(view),
            },
        };
        match weights {
            Weights::Blocks | Weights::Integer => Ok(matrix),
            Weights::F32 => Ok(Self {
                values: Values::Dense(matrix.widen()?),
                ..matrix
            }),
        }
    }

    /// The same matrix under another name.
    pub(crate) fn named(self, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..self
        }
    }

    /// The name: the tensor's in its file; in a [`Decoder`](crate::Decoder) the one that GGUF files use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Output channels.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input channels.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// `x · wᵀ`: `[n, cols]` to `[n, rows]`, F32, summed in f32. With [`Weights::Integer`], `x` rounded to 8 bits is what is
    /// multiplied, and a row of the result depends on its row of `x` alone, to the bit.
    ///
    /// # Errors
    /// Another shape or type of `x`.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        let n = match *x.shape() {
            [n, cols] if cols == self.cols => n,
            _ => {
                let (expected, found) = (
                    format!("shape [rows, {}]", self.cols),
                    format!("{:?}", x.shape()),
                );
                return Err(Error::argument("Matrix::product", "x", expected, found));
            }
        };
        match &self.values {
            Values::Dense(weights) => Ok(x.matmul(&weights.transpose(0, 1)?)?),
            Values::Blocks(weights) => {
                let x = x.contiguous()?;
                let x = x.as_slice::<f32>()?;
                let out = if n <= FEW {
                    self.few(weights, x, n)
                } else {
                    self.many(weights, x, n)?
                };
                Ok(Tensor::from_vec(out, &[n, self.rows])?)
            }
            Values::Integer(_, packed) => {
                let x = x.contiguous()?;
                let out = packed.product(x.as_slice::<f32>()?, n);
                Ok(Tensor::from_vec(out, &[n, self.rows])?)
            }
        }
    }

    /// The rows of these numbers, `[indices, cols]`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a number that is no row.
    pub fn gather(&self, indices: &[u32]) -> Result<Tensor> {
        if let Some(index) = indices.iter().find(|&&index| index as usize >= self.rows) {
            return Err(Error::argument(
                "Matrix::gather",
                "indices",
                format!("below the {} rows of {}", self.rows, self.name),
                index,
            ));
        }
        match &self.values {
            Values::Dense(weights) => {
                Ok(weights.gather(&Tensor::from_vec(indices.to_vec(), &[indices.len()])?)?)
            }
            Values::Blocks(rows) | Values::Integer(rows, _) => {
                let len = indices.len().saturating_mul(self.cols);
                let mut out = block::zeros("Matrix::gather", &self.name, len)?;
                for (out, &index) in out.chunks_exact_mut(self.cols).zip(indices) {
                    block::dequantize(rows.kind(), rows.bytes(index as usize), out)?;
                }
                Ok(Tensor::from_vec(out, &[indices.len(), self.cols])?)
            }
        }
    }

    /// All weights, `[rows, cols]`, F32.
    ///
    /// # Errors
    /// Memory that the weights don't fit into.
    pub fn widen(&self) -> Result<Tensor> {
        match &self.values {
            Values::Dense(weights) => Ok(weights.clone()),
            Values::Blocks(rows) | Values::Integer(rows, _) => {
                let mut out = block::zeros("Matrix::widen", &self.name, self.rows * self.cols)?;
                self.dequantize(rows, 0, &mut out)?;
                Ok(Tensor::from_vec(out, &[self.rows, self.cols])?)
            }
        }
    }

    /// The same matrix on `device`. Off the CPU all weights are f32 there, whatever blocks the file has: widened here and uploaded
    /// once.
    ///
    /// # Errors
    /// Memory that the weights don't fit into, here or there.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let values = match (&self.values, device) {
            (Values::Blocks(_) | Values::Integer(..), Device::Cpu) => self.values.clone(),
            _ => Values::Dense(self.widen()?.to_device(device)?),
        };
        Ok(Self {
            name: self.name.clone(),
            values,
            ..*self
        })
    }

    /// The rows from `first` on that fill `out`, spread over the threads.
    fn dequantize(&self, rows: &Rows, first: usize, out: &mut [f32]) -> Result<()> {
        out.par_chunks_exact_mut(self.cols)
            .enumerate()
            .with_min_len(par::THRESHOLD.div_ceil(self.cols))
            .try_for_each(|(row, out)| block::dequantize(rows.kind(), rows.bytes(first + row), out))
    }

    /// Dot products straight from the blocks, `[n, rows]`. Each weight is read once for all rows of `x`.
    fn few(&self, weights: &Rows, x: &[f32], n: usize) -> Vec<f32> {
        let mut columns = vec![0.0; self.rows * n];
        par::rows(&mut columns, n, self.rows * self.cols * n, |row, out| {
            let bytes = weights.bytes(row);
            for (out, x) in out.iter_mut().zip(x.chunks_exact(self.cols)) {
                *out = block::dot(weights.kind(), bytes, x);
            }
        });
        match n {
            0 | 1 => columns,
            _ => (0..n)
                .flat_map(|i| columns[i..].iter().step_by(n).copied())
                .collect(),
        }
    }

    /// Products with one dequantised panel of output channels after the other, `[n, rows]`.
    fn many(&self, weights: &Rows, x: &[f32], n: usize) -> Result<Vec<f32>> {
        let height = panel_height(self.rows, self.cols);
        let mut panel = block::zeros("Matrix::product", &self.name, height * self.cols)?;
        let mut out = vec![0.0; n * self.rows];
        for first in (0..self.rows).step_by(height) {
            let height = height.min(self.rows - first);
            let panel = &mut panel[..height * self.cols];
            self.dequantize(weights, first, panel)?;
            product::rows_by_rows(x, n, panel, height, self.cols, &mut out[first..], self.rows);
        }
        Ok(out)
    }
}

/// Rows of a dequantised panel, at most those of the matrix. A matrix of more than [`KERNEL`] rows is cut into two panels or
/// more, so that no product holds all its weights as f32; one of fewer rows may be a single panel.
fn panel_height(rows: usize, cols: usize) -> usize {
    let cached = PANEL / cols / KERNEL * KERNEL;
    let half = rows.div_ceil(2).next_multiple_of(KERNEL);
    cached.min(half).max(KERNEL).min(rows)
}

#[cfg(test)]
mod tests {
    use super::{KERNEL, PANEL, panel_height};

    #[test]
    fn no_panel_is_a_whole_matrix_of_more_rows_than_the_kernel_is_wide() {
        for cols in [1, 32, 576, 1536, 4096, PANEL - 1, PANEL, 2 * PANEL] {
            for rows in (1..1100).chain([1536, 4096, 49_152, 1 << 20]) {
                let height = panel_height(rows, cols);
                assert!((1..=rows).contains(&height), "{rows}x{cols}: {height}");
                assert!(
                    rows <= KERNEL || height < rows,
                    "{rows}x{cols}: all {height} rows at once"
                );
                assert!(
                    rows <= KERNEL || height.is_multiple_of(KERNEL),
                    "{rows}x{cols}: {height}"
                );
                assert!(
                    height <= KERNEL || height * cols <= PANEL,
                    "{rows}x{cols}: {height}"
                );
            }
        }
        // The key projection of a small model is cut; the panels of large matrices fill the cache as they did.
        assert_eq!(panel_height(192, 576), 128);
        assert_eq!(panel_height(1536, 576), 448);
        assert_eq!(panel_height(49_152, 576), 448);
    }
}
