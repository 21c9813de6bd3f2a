//! Sparse matrices in compressed rows, and their product with dense ones.

use crate::dtype::DType;
use crate::layout::check_len;
use crate::real::Real;
use crate::storage::zeroed;
use crate::{Device, Error, Result, Tensor, gpu, par, simd};

/// A sparse matrix `[rows, cols]`: row `r` has the entries `indptr[r]..indptr[r + 1]` of `indices` (columns) and `values`.
///
/// A column may stand more than once in a row; the entries add up. Without values every entry is 1: a graph's adjacency.
#[derive(Clone, Debug, PartialEq)]
pub struct Csr {
    cols: usize,
    indptr: Vec<usize>,
    indices: Vec<u32>,
    values: Option<Vec<f32>>,
}

impl Csr {
    /// A matrix of `indptr.len() − 1` rows.
    ///
    /// # Errors
    /// [`Error::Argument`] where `indptr` does not rise from 0 to the number of entries, a column is not below `cols`, or there are
    /// not as many values as indices.
    pub fn new(
        cols: usize,
        indptr: Vec<usize>,
        indices: Vec<u32>,
        values: Option<Vec<f32>>,
    ) -> Result<Self> {
        const OP: &str = "Csr::new";
        if indptr.first() != Some(&0) || indptr.last() != Some(&indices.len()) {
            return Err(Error::argument(
                OP,
                "indptr",
                format!("from 0 to {}", indices.len()),
                format!("from {:?} to {:?}", indptr.first(), indptr.last()),
            ));
        }
        if let Some(row) = indptr.windows(2).position(|pair| pair[0] > pair[1]) {
            return Err(Error::argument(
                OP,
                "indptr",
                "ascending",
                format!("{} before {} at row {row}", indptr[row], indptr[row + 1]),
            ));
        }
        if let Some(column) = indices.iter().find(|&&column| column as usize >= cols) {
            return Err(Error::argument(
                OP,
                "indices",
                format!("below {cols}"),
                column.to_string(),
            ));
        }
        if let Some(values) = &values
            && values.len() != indices.len()
        {
            return Err(Error::argument(
                OP,
                "values",
                format!("{} values", indices.len()),
                values.len().to_string(),
            ));
        }
        Ok(Self {
            cols,
            indptr,
            indices,
            values,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.indptr.len() - 1
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Where each row's entries begin, and where the last row's end.
    pub fn indptr(&self) -> &[usize] {
        &self.indptr
    }

    /// Columns of the entries, row by row.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Values of the entries, row by row; `None` where each is 1.
    pub fn values(&self) -> Option<&[f32]> {
        self.values.as_deref()
    }

    /// `[rows, cols] × [cols, d] → [rows, d]`. Entries are added in their order, so that the result is the same on any number of
    /// threads; halves are added in f32.
    ///
    /// # Errors
    /// [`Error::Shape`] where `dense` is not `[cols, d]`, [`Error::DType`] for integers, [`Error::Memory`]; on a
    /// device whatever its driver says.
    pub fn spmm(&self, dense: &Tensor) -> Result<Tensor> {
        dense.check_float("spmm")?;
        if !matches!(dense.shape(), &[rows, _] if rows == self.cols) {
            return Err(self.shape_error(dense));
        }
        if let Device::Gpu(_) = dense.device() {
            return gpu::spmm::spmm(self, dense);
        }
        match dense.dtype() {
            DType::F64 => self.product::<f64>(dense, |value, x, out| {
                out.iter_mut().zip(x).for_each(|(out, x)| *out += value * x);
            }),
            DType::F32 => self.product(dense, simd::add_scaled),
            _ => dense.through_f32(|wide| self.spmm(wide)),
        }
    }

    fn product<T: Real>(
        &self,
        dense: &Tensor,
        add_scaled: impl Fn(T, &[T], &mut [T]) + Send + Sync,
    ) -> Result<Tensor> {
        const OP: &str = "spmm";
        let &[_, d] = dense.shape() else {
            return Err(self.shape_error(dense));
        };
        let dense = dense.contiguous()?;
        let dense = dense.contiguous_slice::<T>(OP)?;
        let shape = [self.rows(), d];
        let mut out = zeroed::<T>(OP, check_len(OP, &shape)?)?;
        par::rows(
            &mut out,
            d,
            self.indices.len().saturating_mul(d),
            |row, out| {
                for entry in self.indptr[row]..self.indptr[row + 1] {
                    let value = self
                        .values
                        .as_ref()
                        .map_or(T::ONE, |values| T::from_double(f64::from(values[entry])));
                    add_scaled(value, &dense[self.indices[entry] as usize * d..][..d], out);
                }
            },
        );
        Tensor::from_vec(out, &shape)
    }

    fn shape_error(&self, dense: &Tensor) -> Error {
        Error::shape(
            "spmm",
            format!(
                "[{}, d] beside the sparse [{}, {}]",
                self.cols,
                self.rows(),
                self.cols
            ),
            format!("{:?}", dense.shape()),
        )
    }
}
