//! A cache of tensors, on whatever device the decoder runs.
//!
//! Keys and values stay as they came, f32, `[tokens, kv_heads, head_dim]` a layer; attention is made of tensor operations alone, so it
//! runs wherever they do. An append writes the layer's rows anew, which costs about as much as the attention that reads them.
//! On the CPU the caches of [`cache`](crate::cache) are faster; this one serves devices, and checks against them on the CPU.

use std::collections::HashMap;

use whittle_tensor::{DType, Device, Tensor};

use crate::cache::CacheShape;
use crate::sequences::{Rows, Sequences, View};
use crate::{Error, KvStore, Result, SequenceId, Span, Truncated, Visible};

/// A [`KvStore`] of f32 tensors on one device.
///
/// It serves everything that the trait asks for. Values are not looked at, which would need them on the host: what is not finite
/// is not refused, it spreads.
#[derive(Clone, Debug)]
pub struct TensorStore {
    shape: CacheShape,
    device: Device,
    sequences: Sequences<Layer>,
}

/// The rows of one layer of one sequence, `[tokens, kv_heads, head_dim]`.
#[derive(Clone, Debug)]
struct Layer {
    k: Tensor,
    v: Tensor,
}

impl Rows for Layer {
    fn tokens(&self) -> usize {
        self.k.shape()[0]
    }
}

impl Layer {
    fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            k: f(&self.k)?,
            v: f(&self.v)?,
        })
    }
}

impl TensorStore {
    /// An empty store on `device`.
    ///
    /// # Errors
    /// [`Error::Argument`] where a size is 0.
    pub fn new(shape: CacheShape, device: &Device) -> Result<Self> {
        shape.check("TensorStore::new")?;
        Ok(Self {
            shape,
            device: device.clone(),
            sequences: Sequences::new(shape.layers),
        })
    }

    /// Checks rows `[rows, a multiple of kv_heads, head_dim]`, and returns how many heads a kv head has.
    fn group(
        &self,
        operation: &'static str,
        argument: &'static str,
        tensor: &Tensor,
        rows: usize,
    ) -> Result<usize> {
        let CacheShape {
            kv_heads, head_dim, ..
        } = self.shape;
        match *tensor.shape() {
            [r, heads, d]
                if (r, d) == (rows, head_dim) && heads > 0 && heads.is_multiple_of(kv_heads) =>
            {
                Ok(heads / kv_heads)
            }
            _ => Err(Error::argument(
                operation,
                argument,
                format!("shape [{rows}, a multiple of {kv_heads}, {head_dim}]"),
                format!("{:?}", tensor.shape()),
            )),
        }
    }
}

impl KvStore for TensorStore {
    fn sequence(&mut self) -> Result<SequenceId> {
        let CacheShape {
            kv_heads, head_dim, ..
        } = self.shape;
        let none = Tensor::zeros(&[0, kv_heads, head_dim], DType::F32, &self.device)?;
        self.sequences.start(Layer {
            k: none.clone(),
            v: none,
        })
    }

    fn append(&mut self, layer: usize, spans: &[Span], k: &Tensor, v: &Tensor) -> Result<()> {
        const OP: &str = "append";
        let CacheShape {
            kv_heads, head_dim, ..
        } = self.shape;
        let rows = self.sequences.batch_rows(OP, layer, spans)?;
        for (argument, tensor) in [("k", k), ("v", v)] {
            if *tensor.shape() != [rows, kv_heads, head_dim] {
                return Err(Error::argument(
                    OP,
                    argument,
                    format!("shape {:?}", [rows, kv_heads, head_dim]),
                    format!("{:?}", tensor.shape()),
                ));
            }
        }
        let mut row = 0;
        let mut grown = Vec::with_capacity(spans.len());
        for span in spans {
            let held = &self.sequences.layers(OP, span.sequence)?[layer];
            let longer = |held: &Tensor, new: &Tensor| -> Result<Tensor> {
                Ok(Tensor::cat(&[held, &new.narrow(0, row, span.tokens)?], 0)?)
            };
            grown.push(Layer {
                k: longer(&held.k, k)?,
                v: longer(&held.v, v)?,
            });
            row += span.tokens;
        }
        for (span, grown) in spans.iter().zip(grown) {
            self.sequences.layers_mut(OP, span.sequence)?[layer] = grown;
        }
        Ok(())
    }

    fn attend(
        &mut self,
        layer: usize,
        spans: &[Span],
        q: &Tensor,
        scale: f32,
        visible: Visible<'_>,
    ) -> Result<Tensor> {
        const OP: &str = "attend";
        let rows = self.sequences.batch_rows(OP, layer, spans)?;
        let group = self.group(OP, "q", q, rows)?;
        let views = self.sequences.views(layer, spans, scale, visible)?;
        let q = q.mul_scalar(f64::from(scale))?;
        let mut outputs = Vec::with_capacity(spans.len());
        for (span, view) in spans.iter().zip(&views).filter(|(span, _)| span.tokens > 0) {
            outputs.push(attend(view, &q.narrow(0, view.row, span.tokens)?, group)?);
        }
        match outputs[..] {
            [] => Ok(q),
            [ref output] => Ok(output.clone()),
            _ => Ok(Tensor::cat(&outputs.iter().collect::<Vec<_>>(), 0)?),
        }
    }

    fn len(&self, sequence: SequenceId) -> Result<usize> {
        self.sequences.len(sequence)
    }

    /// The memory behind the rows, once where sequences share it.
    fn bytes(&self) -> usize {
        let mut distinct: HashMap<usize, Vec<&Tensor>> = HashMap::new();
        for tensor in self.sequences.all().flat_map(|layer| [&layer.k, &layer.v]) {
            let alike = distinct.entry(tensor.storage_bytes()).or_default();
            if !alike.iter().any(|other| other.shares_storage(tensor)) {
                alike.push(tensor);
            }
        }
        distinct
            .iter()
            .map(|(bytes, tensors)| bytes * tensors.len())
            .sum()
    }

    fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId> {
        self.sequences.fork(sequence)
    }

    /// The memory of the dropped rows is given back by the next append.
    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<Truncated> {
        self.sequences.check_truncate(sequence, len)?;
        for layer in self.sequences.layers_mut("truncate", sequence)? {
            *layer = layer.map(|rows| Ok(rows.narrow(0, 0, len)?))?;
        }
        Ok(Truncated::Exact)
    }

    fn retain(&mut self, sequence: SequenceId, from: usize, rows: &[usize]) -> Result<()> {
        self.sequences.check_retain(sequence, from, rows)?;
        let kept = self
            .sequences
            .layers("retain", sequence)?
            .iter()
            .map(|layer| {
                layer.map(|held| {
                    let mut parts = vec![held.narrow(0, 0, from)?];
                    for row in rows {
                        parts.push(held.narrow(0, from + row, 1)?);
                    }
                    Ok(Tensor::cat(&parts.iter().collect::<Vec<_>>(), 0)?)
                })
            })
            .collect::<Result<Vec<_>>>()?;
        *self.sequences.layers_mut("retain", sequence)? = kept;
        Ok(())
    }

    /// Changes nothing: rows of this store can always be taken back.
    fn hold(&mut self, sequence: SequenceId) -> Result<()> {
        self.sequences.layers("hold", sequence).map(|_| ())
    }

    /// Changes nothing: see [`hold`](Self::hold).
    fn commit(&mut self, sequence: SequenceId) -> Result<()> {
        self.sequences.layers("commit", sequence).map(|_| ())
    }

    fn free(&mut self, sequence: SequenceId) -> Result<()> {
        self.sequences.free(sequence)
    }
}

/// `softmax(q·kᵀ)·v` of the scaled queries `[tokens, kv_heads · group, head_dim]` of one span.
fn attend(view: &View<'_, Layer>, q: &Tensor, group: usize) -> Result<Tensor> {
    let &[tokens, heads, head_dim] = q.shape() else {
        return Err(Error::argument("attend", "q", "three dimensions", q.rank()));
    };
    let (kv_heads, held) = (heads / group, view.stored.tokens());
    // All queries of a kv head as rows of one matrix: [kv_heads, group · tokens, head_dim].
    let q = q
        .reshape(&[tokens, kv_heads, group, head_dim])?
        .permute(&[1, 2, 0, 3])?
        .reshape(&[kv_heads, group * tokens, head_dim])?;
    let mut scores = q.matmul(&view.stored.k.permute(&[1, 2, 0])?)?;
    if tokens > 1 || !view.sees_all() {
        scores = scores
            .reshape(&[kv_heads, group, tokens, held])?
            .add(&mask(view, tokens, q.device())?)?
            .reshape(&[kv_heads, group * tokens, held])?;
    }
    let out = scores
        .softmax(2)?
        .matmul(&view.stored.v.permute(&[1, 0, 2])?)?;
    Ok(out
        .reshape(&[kv_heads, group, tokens, head_dim])?
        .permute(&[2, 0, 1, 3])?
        .reshape(&[tokens, heads, head_dim])?)
}

/// What is added to the scores of a span, `[tokens, held]`: 0 for a row that a query sees, -inf for one that it doesn't.
fn mask(view: &View<'_, Layer>, tokens: usize, device: &Device) -> Result<Tensor> {
    let held = view.stored.tokens();
    let mask = (0..tokens * held)
        .map(|i| {
            let (query, token) = (i / held, i % held);
            if token <= view.before + query && view.sees(query, token) {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        })
        .collect::<Vec<_>>();
    Ok(Tensor::from_vec(mask, &[tokens, held])?.to_device(device)?)
}
