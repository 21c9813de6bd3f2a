//! Rotary position embedding.

use crate::dtype::DType;
use crate::real::Real;
use crate::storage::zeroed;
use crate::{Device, Error, Result, Tensor, gpu, par};

/// Which two elements of a head rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// `2i` and `2i + 1`, as in the paper and in Llama checkpoints converted to GGUF.
    Interleaved,
    /// `i` and `i + d/2`, as in checkpoints of the `transformers` library.
    HalfSplit,
}

impl Tensor {
    /// RoPE (Su et al., 2021) of `[tokens, heads, head_dim]`: pair `i` of a token at position `p` is turned by the angle
    /// `p · base^(−2i / head_dim)`, computed in f64.
    ///
    /// The wrong pairing still writes fluent text: check against a known perplexity.
    ///
    /// # Errors
    /// [`Error::Shape`] for another rank, an odd `head_dim` or as many positions as there are not tokens; [`Error::DType`] for
    /// integers; [`Error::Argument`] for a `base` that is no finite number above 0; [`Error::Memory`]; on a device whatever its
    /// driver says.
    pub fn rope(&self, positions: &[u32], base: f32, pairing: Pairing) -> Result<Self> {
        const OP: &str = "rope";
        self.check_float(OP)?;
        if !(base.is_finite() && base > 0.0) {
            return Err(Error::argument(
                OP,
                "base",
                "a finite number above 0",
                base.to_string(),
            ));
        }
        let &[tokens, heads, head_dim] = self.shape() else {
            return Err(Error::shape(
                OP,
                "[tokens, heads, head_dim]",
                format!("{:?}", self.shape()),
            ));
        };
        if head_dim % 2 != 0 {
            return Err(Error::shape(
                OP,
                "an even head_dim",
                format!("{:?}", self.shape()),
            ));
        }
        if positions.len() != tokens {
            return Err(Error::shape(
                OP,
                format!("{tokens} positions for {:?}", self.shape()),
                format!("{} positions", positions.len()),
            ));
        }
        if let Device::Gpu(_) = self.device() {
            return gpu::rope::rope(self, positions, base, pairing);
        }
        let row = [heads, head_dim];
        match self.dtype() {
            DType::F64 => self.turned::<f64>(row, positions, base, pairing),
            DType::F32 => self.turned::<f32>(row, positions, base, pairing),
            _ => self.through_f32(|wide| wide.turned::<f32>(row, positions, base, pairing)),
        }
    }

    fn turned<T: Real>(
        &self,
        [heads, head_dim]: [usize; 2],
        positions: &[u32],
        base: f32,
        pairing: Pairing,
    ) -> Result<Self> {
        const OP: &str = "rope";
        let x = self.contiguous()?;
        let x = x.contiguous_slice::<T>(OP)?;
        let frequencies = frequencies(base, head_dim);
        let mut out = zeroed::<T>(OP, x.len())?;
        let row = heads * head_dim;
        par::rows(&mut out, row, COST * x.len(), |token, out| {
            let turns: Vec<(T, T)> = frequencies
                .iter()
                .map(|frequency| {
                    let (sin, cos) = (f64::from(positions[token]) * frequency).sin_cos();
                    (T::from_double(sin), T::from_double(cos))
                })
                .collect();
            let x = &x[token * row..][..row];
            for (x, out) in x.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
                turn(x, &turns, pairing, out);
            }
        });
        Self::from_vec(out, self.shape())
    }
}

/// The angle between two positions for each pair of a head: `base^(−2i / head_dim)`.
pub(crate) fn frequencies(base: f32, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2)
        .map(|i| f64::from(base).powf(-2.0 * i as f64 / head_dim as f64))
        .collect()
}

/// What an element costs in the simple operations of [`par`], its share of sine and cosine included.
const COST: usize = 8;

fn turn<T: Real>(x: &[T], turns: &[(T, T)], pairing: Pairing, out: &mut [T]) {
    match pairing {
        Pairing::Interleaved => {
            for ((x, out), &(sin, cos)) in x.chunks_exact(2).zip(out.chunks_exact_mut(2)).zip(turns)
            {
                out[0] = x[0] * cos - x[1] * sin;
                out[1] = x[0] * sin + x[1] * cos;
            }
        }
        Pairing::HalfSplit => {
            let (low, high) = x.split_at(turns.len());
            let (out_low, out_high) = out.split_at_mut(turns.len());
            for (i, &(sin, cos)) in turns.iter().enumerate() {
                out_low[i] = low[i] * cos - high[i] * sin;
                out_high[i] = low[i] * sin + high[i] * cos;
            }
        }
    }
}
