//! Rotary position embedding.

use super::launch::{count, product};
use super::{driver, kernels, output};
use crate::device::{DevicePtr, Driver};
use crate::kernel::{Arg, Kernel};
use crate::rope::frequencies;
use crate::{Pairing, Result, Tensor};

/// Cosine and sine of each token's and pair's angle, `[tokens, head_dim / 2, 2]`: what the kernels turn by. Made in f64 like the CPU's.
pub fn turns(positions: &[u32], head_dim: usize, base: f32) -> Vec<f32> {
    let frequencies = frequencies(base, head_dim);
    let angle = |position: u32, frequency: f64| f64::from(position) * frequency;
    positions
        .iter()
        .flat_map(|&position| {
            frequencies
                .iter()
                .map(move |&frequency| angle(position, frequency))
        })
        .flat_map(|angle| [angle.cos() as f32, angle.sin() as f32])
        .collect()
}

/// Launches `rope_interleaved` or `rope_half_split` on `[tokens, heads, head_dim]` with the [`turns`] of its tokens.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) from 2^31 elements on, and what the driver says.
pub fn heads(
    kernel: &Kernel,
    driver: &dyn Driver,
    x: DevicePtr,
    turns: DevicePtr,
    out: DevicePtr,
    [tokens, heads, head_dim]: [usize; 3],
) -> Result<()> {
    if product(kernel, &[tokens, heads, head_dim])? == 0 {
        return Ok(());
    }
    let [tokens, heads, half] = [
        count(kernel, tokens)?,
        count(kernel, heads)?,
        count(kernel, head_dim / 2)?,
    ];
    // With few tokens the heads go to blocks of their own, with many a thread keeps its turn for all of them.
    let groups = if tokens < FEW_TOKENS {
        heads.div_ceil(BLOCK[1])
    } else {
        1
    };
    let grid = [tokens, half.div_ceil(BLOCK[0]), groups];
    let args = [
        Arg::Ptr(x),
        Arg::Ptr(turns),
        Arg::Ptr(out),
        Arg::U32(heads),
        Arg::U32(half),
    ];
    kernel.launch(driver, grid, BLOCK, 0, &args)
}

const BLOCK: [u32; 3] = [32, 8, 1];
const FEW_TOKENS: u32 = 256;

pub(crate) fn rope(x: &Tensor, positions: &[u32], base: f32, pairing: Pairing) -> Result<Tensor> {
    const OP: &str = "rope";
    let name = match pairing {
        Pairing::Interleaved => "rope_interleaved",
        Pairing::HalfSplit => "rope_half_split",
    };
    let kernel = kernels::of(name, x.dtype()).ok_or_else(|| x.no_kernel(OP))?;
    let &[tokens, count, head_dim] = x.shape() else {
        return Err(x.no_kernel(OP));
    };
    let x = &x.contiguous()?;
    let turns = Tensor::from_vec(turns(positions, head_dim, base), &[tokens, head_dim / 2, 2])?
        .to_device(x.device())?;
    let out = output(OP, x, x.shape(), x.dtype())?;
    heads(
        kernel,
        &**driver(OP, x)?,
        x.device_ptr()?,
        turns.device_ptr()?,
        out.device_ptr()?,
        [tokens, count, head_dim],
    )?;
    Ok(out)
}
