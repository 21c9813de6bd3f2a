//! The sequences of a store: which there are, what their layers hold, and what a batch may ask of them.

use std::collections::{BTreeMap, HashSet};

use crate::{Error, Result, SequenceId, Span, Visible};

/// What a store keeps of one layer of one sequence.
pub(crate) trait Rows: Clone {
    /// Tokens that it holds.
    fn tokens(&self) -> usize;
}

/// The layers of each sequence.
#[derive(Clone, Debug)]
pub(crate) struct Sequences<L> {
    layers: usize,
    by_id: BTreeMap<SequenceId, Vec<L>>,
    next: usize,
}

impl<L: Rows> Sequences<L> {
    /// None yet, each with `layers` layers, at least 1.
    pub(crate) fn new(layers: usize) -> Self {
        Self {
            layers,
            by_id: BTreeMap::new(),
            next: 0,
        }
    }

    /// A new sequence, every layer of which is `empty`.
    pub(crate) fn start(&mut self, empty: L) -> Result<SequenceId> {
        let mut layers = Vec::new();
        layers
            .try_reserve_exact(self.layers)
            .map_err(|_| Error::Memory {
                operation: "sequence",
                part: "layers".into(),
                expected: self.layers,
            })?;
        layers.resize(self.layers, empty);
        Ok(self.insert(layers))
    }

    pub(crate) fn layers(&self, operation: &'static str, sequence: SequenceId) -> Result<&Vec<L>> {
        self.by_id
            .get(&sequence)
            .ok_or_else(|| unknown(operation, sequence))
    }

    pub(crate) fn layers_mut(
        &mut self,
        operation: &'static str,
        sequence: SequenceId,
    ) -> Result<&mut Vec<L>> {
        self.by_id
            .get_mut(&sequence)
            .ok_or_else(|| unknown(operation, sequence))
    }

    /// The layers of all sequences.
    pub(crate) fn all(&self) -> impl Iterator<Item = &L> {
        self.by_id.values().flatten()
    }

    /// Tokens that all layers hold.
    pub(crate) fn len(&self, sequence: SequenceId) -> Result<usize> {
        let layers = self.layers("len", sequence)?;
        Ok(layers.iter().map(Rows::tokens).min().unwrap_or(0))
    }

    /// Tokens of a sequence between two steps, when all layers hold the same.
    fn settled(&self, operation: &'static str, sequence: SequenceId) -> Result<usize> {
        let layers = self.layers(operation, sequence)?;
        let tokens = layers[0].tokens();
        match layers.iter().find(|layer| layer.tokens() != tokens) {
            None => Ok(tokens),
            Some(layer) => Err(Error::argument(
                operation,
                "sequence",
                format!("{sequence:?} with {tokens} tokens in all layers"),
                format!(
                    "a layer with {} tokens: a step is under way",
                    layer.tokens()
                ),
            )),
        }
    }

    /// A new sequence of the same layers.
    pub(crate) fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId> {
        self.settled("fork", sequence)?;
        let layers = self.layers("fork", sequence)?.clone();
        Ok(self.insert(layers))
    }

    /// Checks that `truncate` may keep `len` tokens.
    pub(crate) fn check_truncate(&self, sequence: SequenceId, len: usize) -> Result<()> {
        let held = self.len(sequence)?;
        if len <= held {
            return Ok(());
        }
        Err(Error::argument(
            "truncate",
            "len",
            format!("at most the {held} tokens of {sequence:?}"),
            len,
        ))
    }

    /// Checks that `retain` may keep these rows, which are offsets from `from`.
    pub(crate) fn check_retain(
        &self,
        sequence: SequenceId,
        from: usize,
        rows: &[usize],
    ) -> Result<()> {
        let held = self.settled("retain", sequence)?;
        let ascending = rows.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = from <= held && rows.last().is_none_or(|&row| row < held - from);
        if ascending && inside {
            return Ok(());
        }
        Err(Error::argument(
            "retain",
            "rows",
            format!("ascending offsets from {from}, below the {held} tokens of {sequence:?}"),
            format!("{rows:?}"),
        ))
    }

    pub(crate) fn free(&mut self, sequence: SequenceId) -> Result<()> {
        self.by_id
            .remove(&sequence)
            .map(|_| ())
            .ok_or_else(|| unknown("free", sequence))
    }

    /// Checks layer and spans of a batch and returns its rows.
    pub(crate) fn batch_rows(
        &self,
        operation: &'static str,
        layer: usize,
        spans: &[Span],
    ) -> Result<usize> {
        if layer >= self.layers {
            return Err(Error::argument(
                operation,
                "layer",
                format!("below {}", self.layers),
                layer,
            ));
        }
        let mut seen = HashSet::new();
        let mut rows = 0usize;
        for span in spans {
            self.layers(operation, span.sequence)?;
            if !seen.insert(span.sequence) {
                return Err(Error::argument(
                    operation,
                    "spans",
                    "each sequence once",
                    format!("{:?} twice", span.sequence),
                ));
            }
            rows = rows.saturating_add(span.tokens);
        }
        Ok(rows)
    }

    /// What each span's queries look at in a layer, with the arguments of `attend` checked.
    pub(crate) fn views(
        &self,
        layer: usize,
        spans: &[Span],
        scale: f32,
        visible: Visible<'_>,
    ) -> Result<Vec<View<'_, L>>> {
        const OP: &str = "attend";
        let rows = self.batch_rows(OP, layer, spans)?;
        if !scale.is_finite() {
            return Err(Error::argument(OP, "scale", "a finite number", scale));
        }
        if let Visible::Tree(parents) = visible
            && parents.len() != rows
        {
            return Err(Error::argument(
                OP,
                "visible",
                format!("a parent for each of {rows} rows"),
                parents.len(),
            ));
        }
        let mut row = 0;
        let mut views = Vec::with_capacity(spans.len());
        for span in spans {
            let stored = &self.layers(OP, span.sequence)?[layer];
            let before = stored.tokens().checked_sub(span.tokens).ok_or_else(|| {
                Error::argument(
                    OP,
                    "spans",
                    format!(
                        "at most the {} rows of {:?} in layer {layer}",
                        stored.tokens(),
                        span.sequence
                    ),
                    format!("{} queries", span.tokens),
                )
            })?;
            let tree = match visible {
                Visible::Causal => None,
                Visible::Tree(parents) => Some(ancestors(&parents[row..row + span.tokens])?),
            };
            views.push(View {
                stored,
                row,
                before,
                tree,
            });
            row += span.tokens;
        }
        Ok(views)
    }

    fn insert(&mut self, layers: Vec<L>) -> SequenceId {
        let id = SequenceId(self.next);
        self.next += 1;
        self.by_id.insert(id, layers);
        id
    }
}

/// What the queries of a span look at.
pub(crate) struct View<'a, L> {
    pub(crate) stored: &'a L,
    /// The span's first row in the batch.
    pub(crate) row: usize,
    /// Tokens before the span.
    pub(crate) before: usize,
    /// [`ancestors`] where the span is a tree.
    tree: Option<Vec<bool>>,
}

impl<L: Rows> View<'_, L> {
    /// Whether row `query` of the span sees token `token` of the sequence, among those that are not after it.
    pub(crate) fn sees(&self, query: usize, token: usize) -> bool {
        let Some(tree) = &self.tree else { return true };
        let tokens = self.stored.tokens() - self.before;
        token < self.before || tree[query * tokens + token - self.before]
    }

    /// Whether every row of the span sees all tokens that are not after it.
    pub(crate) fn sees_all(&self) -> bool {
        self.tree.is_none()
    }
}

fn unknown(operation: &'static str, sequence: SequenceId) -> Error {
    Error::argument(
        operation,
        "sequence",
        "a sequence of this store",
        format!("{sequence:?}"),
    )
}

/// Which rows of a span each of its rows sees, `[tokens, tokens]`.
fn ancestors(parents: &[Option<usize>]) -> Result<Vec<bool>> {
    let tokens = parents.len();
    let mut sees = vec![false; tokens * tokens];
    for (i, &parent) in parents.iter().enumerate() {
        if let Some(parent) = parent {
            if parent >= i {
                return Err(Error::argument(
                    "attend",
                    "visible",
                    format!("a parent before row {i} of its span"),
                    parent,
                ));
            }
            sees.copy_within(parent * tokens..(parent + 1) * tokens, i * tokens);
        }
        sees[i * tokens + i] = true;
    }
    Ok(sees)
}
