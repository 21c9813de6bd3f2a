//! [`KiviStore`]: a [`Cache`] behind whittle-llama's `KvStore` seam.

use crate::{Cache, Error, SequenceId, Span, Truncated};
use whittle_llama::{self as llama, KvStore, Visible};
use whittle_tensor::Tensor;

/// A [`Cache`] that a whittle-llama decoder can run on.
///
/// Tree visibility and `retain` are errors: packed blocks can't be attended to through a mask of parents yet, and their tokens
/// can't change places.
#[derive(Debug)]
pub struct KiviStore(
    /// The cache.
    pub Cache,
);

fn spans(spans: &[llama::Span]) -> Vec<Span> {
    spans
        .iter()
        .map(|span| Span {
            sequence: id(span.sequence),
            tokens: span.tokens,
        })
        .collect()
}

fn id(sequence: llama::SequenceId) -> SequenceId {
    SequenceId(sequence.0)
}

fn failed(operation: &'static str) -> impl Fn(Error) -> llama::Error {
    move |source| llama::Error::Store {
        operation,
        source: Box::new(source),
    }
}

fn unsupported(operation: &'static str, expected: &str, found: &str) -> llama::Error {
    llama::Error::Unsupported {
        operation,
        expected: expected.into(),
        found: found.into(),
    }
}

impl KvStore for KiviStore {
    fn sequence(&mut self) -> llama::Result<llama::SequenceId> {
        self.0
            .sequence()
            .map(|id| llama::SequenceId(id.0))
            .map_err(failed("sequence"))
    }

    fn append(
        &mut self,
        layer: usize,
        batch: &[llama::Span],
        k: &Tensor,
        v: &Tensor,
    ) -> llama::Result<()> {
        self.0
            .append(layer, &spans(batch), k, v)
            .map_err(failed("append"))
    }

    fn attend(
        &mut self,
        layer: usize,
        batch: &[llama::Span],
        q: &Tensor,
        scale: f32,
        visible: Visible<'_>,
    ) -> llama::Result<Tensor> {
        match visible {
            Visible::Causal => self
                .0
                .attend(layer, &spans(batch), q, scale)
                .map_err(failed("attend")),
            Visible::Tree(_) => Err(unsupported("attend", "Visible::Causal", "Visible::Tree")),
        }
    }

    fn len(&self, sequence: llama::SequenceId) -> llama::Result<usize> {
        self.0.len(id(sequence)).map_err(failed("len"))
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn fork(&mut self, sequence: llama::SequenceId) -> llama::Result<llama::SequenceId> {
        self.0
            .fork(id(sequence))
            .map(|id| llama::SequenceId(id.0))
            .map_err(failed("fork"))
    }

    fn truncate(
        &mut self,
        sequence: llama::SequenceId,
        len: usize,
    ) -> llama::Result<llama::Truncated> {
        let done = self
            .0
            .truncate(id(sequence), len)
            .map_err(failed("truncate"))?;
        Ok(match done {
            Truncated::Exact => llama::Truncated::Exact,
            Truncated::Quantised { from } => llama::Truncated::Quantised { from },
        })
    }

    fn retain(&mut self, _: llama::SequenceId, _: usize, _: &[usize]) -> llama::Result<()> {
        Err(unsupported(
            "retain",
            "a cache whose tokens can move",
            "packed blocks",
        ))
    }

    fn hold(&mut self, sequence: llama::SequenceId) -> llama::Result<()> {
        self.0.hold(id(sequence)).map_err(failed("hold"))
    }

    fn commit(&mut self, sequence: llama::SequenceId) -> llama::Result<()> {
        self.0.commit(id(sequence)).map_err(failed("commit"))
    }

    fn free(&mut self, sequence: llama::SequenceId) -> llama::Result<()> {
        self.0.free(id(sequence)).map_err(failed("free"))
    }
}
