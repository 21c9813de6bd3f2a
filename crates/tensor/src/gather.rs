//! Rows by index: gather and its transpose, scatter-add.

use crate::dtype::{DType, Element, with_element};
use crate::layout::check_len;
use crate::real::Real;
use crate::storage::zeroed;
use crate::{Device, Error, Result, Tensor, gpu, par};

impl Tensor {
    /// `out[i] = self[index[i]]` for rows of dimension 0: `[n, …]` and U32 `[m]` give `[m, …]`. Takes every dtype.
    ///
    /// On a device the index may be there or on the CPU. It is checked on the CPU, so an index on the device is read back first.
    ///
    /// # Errors
    /// [`Error::Argument`] for an index that isn't there, [`Error::Shape`] for a tensor of rank 0 or an index of another rank than 1,
    /// [`Error::DType`] for an index that is not U32, [`Error::Device`] for two devices, [`Error::Memory`]; on a device whatever its
    /// driver says.
    pub fn gather(&self, index: &Self) -> Result<Self> {
        let rows = self.row_index("gather", index)?;
        if let Device::Gpu(_) = self.device() {
            let shape = [&[rows.len()], &self.shape()[1..]].concat();
            return gpu::gather::gather(self, &index.to_device(self.device())?, &shape);
        }
        with_element!(self.dtype(), T => self.gather_rows::<T>(&rows))
    }

    /// `out = self`, then `out[index[i]] += rows[i]` for each `i` in order: `[n, …]`, U32 `[m]` and `[m, …]` give `[n, …]`.
    ///
    /// The order is fixed, so that the result is the same on any number of threads. Halves are summed up in f32 and rounded once.
    ///
    /// # Errors
    /// Those of [`gather`](Self::gather); [`Error::Shape`] where `rows` does not fit, [`Error::DType`] for integers or two types.
    pub fn scatter_add(&self, index: &Self, rows: &Self) -> Result<Self> {
        const OP: &str = "scatter_add";
        self.check_float(OP)?;
        self.check_alike(OP, rows)?;
        let index = self.row_index(OP, index)?;
        let expected = [&[index.len()], &self.shape()[1..]].concat();
        if rows.shape() != expected {
            return Err(Error::shape(
                OP,
                format!("rows of shape {expected:?} for {:?}", self.shape()),
                format!("{:?}", rows.shape()),
            ));
        }
        if let Device::Gpu(_) = self.device() {
            return gpu::spmm::scatter_add(self, &index, rows);
        }
        match self.dtype() {
            DType::F64 => self.scatter_rows::<f64>(&index, rows),
            DType::F32 => self.scatter_rows::<f32>(&index, rows),
            _ => self
                .through_f32(|wide| wide.scatter_rows::<f32>(&index, &rows.to_dtype(DType::F32)?)),
        }
    }

    /// The checked index of an operation on rows of dimension 0.
    fn row_index(&self, op: &'static str, index: &Self) -> Result<Vec<u32>> {
        let (Some(&n), [_]) = (self.shape().first(), index.shape()) else {
            return Err(Error::shape(
                op,
                "[n, …] and an index [m]",
                format!("{:?} and {:?}", self.shape(), index.shape()),
            ));
        };
        if index.dtype() != DType::U32 {
            return Err(Error::dtype(op, "u32", index.dtype()));
        }
        if index.device() != &Device::Cpu && index.device() != self.device() {
            return Err(Error::Device {
                op,
                expected: format!("an index on the cpu or on {}", self.device().name()),
                found: index.device().name(),
            });
        }
        let index = index.to_vec::<u32>()?;
        match index.iter().find(|&&i| i as usize >= n) {
            Some(i) => Err(Error::argument(
                op,
                "index",
                format!("below {n}"),
                i.to_string(),
            )),
            None => Ok(index),
        }
    }

    fn gather_rows<T: Element>(&self, index: &[u32]) -> Result<Self> {
        const OP: &str = "gather";
        let buffer = self.buffer::<T>(OP)?;
        let shape = [&[index.len()], &self.shape()[1..]].concat();
        let mut out = zeroed::<T>(OP, check_len(OP, &shape)?)?;
        let row = self.shape()[1..].iter().product::<usize>();
        let work = out.len();
        if row > 0
            && self
                .narrow(0, 0, 1.min(self.shape()[0]))?
                .layout()
                .is_contiguous()
        {
            // The rows are whole, wherever they are: an embedding table is not copied for the few rows taken from it.
            let (start, stride) = (self.layout().offset(), self.layout().stride()[0]);
            par::rows(&mut out, row, work, |i, out| {
                out.copy_from_slice(&buffer[start + index[i] as usize * stride..][..row]);
            });
        } else {
            let table = self.contiguous()?;
            let table = table.contiguous_slice::<T>(OP)?;
            par::rows(&mut out, row, work, |i, out| {
                out.copy_from_slice(&table[index[i] as usize * row..][..row])
            });
        }
        Self::from_vec(out, &shape)
    }

    fn scatter_rows<T: Real>(&self, index: &[u32], rows: &Self) -> Result<Self> {
        const OP: &str = "scatter_add";
        let mut out = self.to_vec::<T>()?;
        let rows = rows.contiguous()?;
        let rows = rows.contiguous_slice::<T>(OP)?;
        let row = self.shape()[1..].iter().product::<usize>();
        par::pieces(&mut out, rows.len(), |start, piece| {
            // Each piece goes through the whole list and takes what falls into it, so that every element keeps its order.
            for (i, &to) in index.iter().enumerate() {
                let to = to as usize * row;
                let (from, until) = (to.max(start), (to + row).min(start + piece.len()));
                if from < until {
                    let values = &rows[i * row + (from - to)..i * row + (until - to)];
                    piece[from - start..until - start]
                        .iter_mut()
                        .zip(values)
                        .for_each(|(to, &from)| *to += from);
                }
            }
        });
        Self::from_vec(out, self.shape())
    }
}
