//! Concatenation.

use crate::dtype::{Element, with_element};
use crate::layout::check_len;
use crate::storage::zeroed;
use crate::{Device, Error, Result, Tensor, gpu};

impl Tensor {
    /// The tensors one behind the other along dimension `dim`; the other dimensions are equal.
    ///
    /// # Errors
    /// [`Error::Argument`] for no tensors or a dimension that isn't there, [`Error::Shape`] and [`Error::DType`] where one does not
    /// fit the first, [`Error::Device`] for two devices, [`Error::Memory`]; on a device whatever its driver says.
    pub fn cat(tensors: &[&Self], dim: usize) -> Result<Self> {
        let Some((&first, rest)) = tensors.split_first() else {
            return Err(Error::argument(
                "cat",
                "tensors",
                "at least one tensor",
                "none",
            ));
        };
        first.layout().check_dim("cat", dim)?;
        let mut shape = first.shape().to_vec();
        for tensor in rest {
            first.check_alike("cat", tensor)?;
            let fits = tensor.rank() == shape.len()
                && (0..shape.len()).all(|d| d == dim || tensor.shape()[d] == shape[d]);
            if !fits {
                return Err(Error::shape(
                    "cat",
                    format!("{:?} but for dimension {dim}", first.shape()),
                    format!("{:?}", tensor.shape()),
                ));
            }
            // A broadcast view can be as long as usize allows; the sum then fails the check of the length below.
            shape[dim] = shape[dim].saturating_add(tensor.shape()[dim]);
        }
        if let Device::Gpu(_) = first.device() {
            return gpu::copy::cat(tensors, dim, &shape);
        }
        with_element!(first.dtype(), T => concatenate::<T>(tensors, dim, &shape))
    }
}

fn concatenate<T: Element>(tensors: &[&Tensor], dim: usize, shape: &[usize]) -> Result<Tensor> {
    let mut out = zeroed::<T>("cat", check_len("cat", shape)?)?;
    let inner: usize = shape[dim + 1..].iter().product();
    let row = shape[dim] * inner;
    let mut start = 0;
    for tensor in tensors {
        let len = tensor.shape()[dim] * inner;
        let tensor = tensor.contiguous()?;
        let values = tensor.contiguous_slice::<T>("cat")?;
        if len > 0 && row > 0 {
            for (out, values) in out.chunks_exact_mut(row).zip(values.chunks_exact(len)) {
                out[start..start + len].copy_from_slice(values);
            }
        }
        start += len;
    }
    Tensor::from_vec(out, shape)
}
