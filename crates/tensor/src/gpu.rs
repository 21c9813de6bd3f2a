//! Operations on a device: the kernels, and the functions that launch them.
//!
//! An operation of [`Tensor`] checks its operands in one way for every device and then branches: on [`Device::Cpu`] into the
//! loops beside it, on [`Device::Gpu`] into the launcher of the same name here. A launcher takes checked tensors of one device,
//! makes them contiguous where its kernel asks for that, and returns a new, contiguous tensor there. Where no kernel serves, it
//! returns [`Error::Device`], which names operation, type and device. Nothing is ever computed on the host instead.
//!
//! | operations | launcher |
//! |---|---|
//! | `contiguous` | `copy::contiguous(x)` |
//! | `cat` | `copy::cat(tensors, dim, shape)` |
//! | `to_dtype` | `cast::to_dtype(x, dtype)` |
//! | `zeros`, `full` | `fill::full(op, shape, value, dtype, driver)` |
//! | `neg` … `gelu_tanh`, `add_scalar`, `mul_scalar` | `unary::unary(op, x, value)`, `value: Option<f32>` |
//! | `add`, `sub`, `mul`, `div`, `silu_mul` | `binary::binary(op, a, b)` of views broadcast to one shape |
//! | `softmax`, `log_softmax` | `softmax::softmax(op, x)` along the last dimension |
//! | `rms_norm`, `layer_norm` | `norm::rms_norm(x, weight, eps)`, `norm::layer_norm(x, weight, bias, eps)` |
//! | `rope` | `rope::rope(x, positions, base, pairing)` |
//! | `sum`, `mean`, `max`, `min`, `argmax` | `reduce::reduce(op, x, dim, shape)` |
//! | `gather` | `gather::gather(table, index, shape)`, `index` checked and on the device |
//! | `scatter_add` | `spmm::scatter_add(x, index, added)` |
//! | `Csr::spmm` | `spmm::spmm(csr, dense)` |
//! | `rand`, `randn` | `random::drawn(op, kernel, shape, [seed, stream], driver)` |
//! | `matmul`, `matvec` | `matmul::matmul(lhs, rhs, shape)` |

use crate::{DType, Device, Driver, Error, Result, Tensor};
use std::sync::Arc;

pub mod binary;
pub mod cast;
pub mod copy;
pub mod fill;
pub mod gather;
pub mod kernels;
mod launch;
pub mod matmul;
pub mod norm;
pub mod random;
pub mod reduce;
pub mod rope;
pub mod softmax;
pub mod spmm;
pub mod strided;
pub mod unary;

/// The driver of a tensor that is on a device.
pub(crate) fn driver<'a>(op: &'static str, x: &'a Tensor) -> Result<&'a Arc<dyn Driver>> {
    match x.device() {
        Device::Gpu(driver) => Ok(driver),
        Device::Cpu => Err(Error::Device {
            op,
            expected: "a tensor on a device".to_owned(),
            found: Device::Cpu.name(),
        }),
    }
}

/// A new tensor on the device of `like`, of which a kernel will write every element.
pub(crate) fn output(
    op: &'static str,
    like: &Tensor,
    shape: &[usize],
    dtype: DType,
) -> Result<Tensor> {
    Tensor::unwritten(op, shape, dtype, driver(op, like)?)
}
