//! Order: arg-sort and top-k.

use crate::dtype::{Element, with_element};
use crate::layout::check_len;
use crate::storage::zeroed;
use crate::{Error, Result, Tensor, par};
use std::cmp::Ordering;

/// Which element comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// The least.
    Ascending,
    /// The greatest.
    Descending,
}

impl Tensor {
    /// The positions along dimension `dim` in the order of their elements, as U32. Equal elements keep their order in both
    /// directions; NaN counts as greater than any number. Takes every dtype.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that isn't there, [`Error::Device`] off the CPU, [`Error::Memory`].
    pub fn arg_sort(&self, dim: usize, order: Order) -> Result<Self> {
        self.layout().check_dim("arg_sort", dim)?;
        with_element!(self.dtype(), T => self.sorted_positions::<T>(dim, order))
    }

    /// The `k` greatest elements along the last dimension and their positions (U32), greatest first, the lower position first among
    /// equals: `[…, n]` gives two tensors `[…, k]`. NaN counts as greater than any number. Takes every dtype.
    ///
    /// # Errors
    /// [`Error::Shape`] for rank 0, [`Error::Argument`] for `k` beyond the last dimension, [`Error::Device`] off the CPU,
    /// [`Error::Memory`].
    pub fn top_k(&self, k: usize) -> Result<(Self, Self)> {
        let Some(&len) = self.shape().last() else {
            return Err(Error::shape("top_k", "at least one dimension", "[]"));
        };
        if k > len {
            return Err(Error::argument(
                "top_k",
                "k",
                format!("at most {len} for {:?}", self.shape()),
                k.to_string(),
            ));
        }
        with_element!(self.dtype(), T => self.greatest::<T>(k))
    }

    fn sorted_positions<T: Element>(&self, dim: usize, order: Order) -> Result<Self> {
        const OP: &str = "arg_sort";
        let rows = self.positions_along(OP, dim)?;
        let values = rows.contiguous_slice::<T>(OP)?;
        let mut out = zeroed::<u32>(OP, values.len())?;
        let len = self.shape()[dim];
        par::rows(&mut out, len, COST * values.len(), |row, out| {
            let row = &values[row * len..][..len];
            out.iter_mut().zip(0..).for_each(|(out, i)| *out = i);
            let key = |i: u32| row[i as usize];
            match order {
                Order::Ascending => out.sort_by(|&a, &b| compare(key(a), key(b))),
                Order::Descending => out.sort_by(|&a, &b| compare(key(b), key(a))),
            }
        });
        Self::from_vec(out, rows.shape())?.moved_back(dim)
    }

    /// Dimension `dim` moved to the end, contiguous, on the CPU; its positions fit u32.
    pub(crate) fn positions_along(&self, op: &'static str, dim: usize) -> Result<Self> {
        self.check_host(op)?;
        if u32::try_from(self.shape()[dim]).is_err() {
            return Err(Error::shape(
                op,
                "positions that fit u32",
                format!("{:?}", self.shape()),
            ));
        }
        self.moved_last(dim)
    }

    fn greatest<T: Element>(&self, k: usize) -> Result<(Self, Self)> {
        const OP: &str = "top_k";
        let rows = self.positions_along(OP, self.rank() - 1)?;
        let values = rows.contiguous_slice::<T>(OP)?;
        let mut shape = self.shape().to_vec();
        let len = shape.pop().unwrap_or(0);
        shape.push(k);
        let mut positions = zeroed::<u32>(OP, check_len(OP, &shape)?)?;
        par::rows(&mut positions, k, values.len(), |row, out| {
            greatest_positions(&values[row * len..][..len], out);
        });
        let mut greatest = zeroed::<T>(OP, positions.len())?;
        par::rows(&mut greatest, k, positions.len(), |row, out| {
            let (values, positions) = (&values[row * len..][..len], &positions[row * k..][..k]);
            out.iter_mut()
                .zip(positions)
                .for_each(|(out, &at)| *out = values[at as usize]);
        });
        Ok((
            Self::from_vec(greatest, &shape)?,
            Self::from_vec(positions, &shape)?,
        ))
    }
}

/// The positions of the `out.len()` greatest elements, at least one and at most all. Few elements are ever kept: whoever is not
/// greater than the least of the greatest so far is passed over.
fn greatest_positions<T: Element>(row: &[T], out: &mut [u32]) {
    let k = out.len();
    let order = |&a: &u32, &b: &u32| compare(row[b as usize], row[a as usize]).then(a.cmp(&b));
    let mut kept: Vec<u32> = Vec::new();
    let mut least = None;
    // `positions_along` has checked that every position fits.
    // The row is asked first: a step of the range beyond its end would overflow.
    for (&x, i) in row.iter().zip(0..) {
        if least.is_some_and(|least| compare(x, least) != Ordering::Greater) {
            continue;
        }
        kept.push(i);
        if kept.len() == 2 * k {
            kept.select_nth_unstable_by(k - 1, order);
            kept.truncate(k);
            least = Some(row[kept[k - 1] as usize]);
        }
    }
    kept.sort_unstable_by(order);
    out.copy_from_slice(&kept[..k]);
}

/// What an element costs in the simple operations of [`par`]: a dozen comparisons.
const COST: usize = 16;

/// The numbers' order with NaN at its end, all NaN equal.
pub(crate) fn compare<T: Element>(a: T, b: T) -> Ordering {
    let nan = |x: T| x.partial_cmp(&x).is_none();
    a.partial_cmp(&b).unwrap_or_else(|| nan(a).cmp(&nan(b)))
}
