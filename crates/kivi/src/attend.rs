//! Fused attention over sinks, packed blocks and window, with online softmax.
//!
//! The work is cut by sequence, kv head and block of queries. A task walks over its tokens in tiles of `group_size`: the sinks,
//! the pages, then the window on the same grid. A tile of codes is unpacked once, into a scratch of one tile, for all query
//! heads of the group and all queries of the task; nothing larger than a tile is ever widened. Splits of [`SPLIT`] tokens are
//! merged in order, and each query sees the same tiles in the same order however it was batched, so its output has the same
//! bits for any chunking, batch and number of threads.

use crate::{
    Arithmetic, Result,
    cache::{Cache, Span},
    decode::decode,
    hadamard, int8,
    page::PageEntry,
    sequence::{Boundary, Sequence, Side},
};
use half::f16;
use rayon::prelude::*;
use std::ops::Range;
use whittle_tensor::attention::{Partial, accumulate, scores, weigh, widen};

/// Tokens of a split, before it is merged with the others.
const SPLIT: usize = 512;
/// Queries of a task.
const QUERIES: usize = 32;

/// Attention of the newest tokens of each span; returns the bytes of codes and metadata that it read.
///
/// All arguments were checked by [`Cache::attend_rows`].
pub(crate) fn attend(
    cache: &Cache,
    layer: usize,
    spans: &[Span],
    q: &[f32],
    scale: f32,
    out: &mut [f32],
) -> Result<u64> {
    let mut tasks = vec![];
    let mut row = 0;
    for span in spans {
        let sequence = cache.get("attend", span.sequence)?;
        let first = sequence.layers[layer].len - span.tokens;
        for start in (0..span.tokens).step_by(QUERIES) {
            let queries = QUERIES.min(span.tokens - start);
            tasks.extend((0..cache.shape().kv_heads).map(|head| Task {
                cache,
                sequence,
                layer,
                head,
                row: row + start,
                first: first + start,
                queries,
            }));
        }
        row += span.tokens;
    }
    // Long tasks come last in a causal chunk; few of them would leave threads idle, so they split further.
    let few = tasks.len() < 2 * rayon::current_num_threads();
    let done = tasks
        .par_iter()
        .map(|task| task.run(q, scale, few))
        .collect::<Result<Vec<_>>>()?;

    let (head_dim, group) = (cache.shape().head_dim.get(), cache.shape().group());
    let mut read = 0;
    for (task, (mut partial, bytes)) in tasks.iter().zip(done) {
        read += bytes;
        for (r, from) in partial.out().chunks_exact(head_dim).enumerate() {
            let at = task.query_row(r / group, r % group);
            out[at * head_dim..(at + 1) * head_dim].copy_from_slice(from);
        }
    }
    Ok(read)
}

/// The queries of one block of tokens, for all query heads that share a kv head.
struct Task<'a> {
    cache: &'a Cache,
    sequence: &'a Sequence,
    layer: usize,
    head: usize,
    /// First row in the batch.
    row: usize,
    /// Position of the first query.
    first: usize,
    queries: usize,
}

/// A run of tokens that is folded in at once.
#[derive(Clone)]
struct Tile<'a> {
    tokens: Range<usize>,
    source: Source<'a>,
}

#[derive(Clone)]
enum Source<'a> {
    Sinks,
    Page(&'a PageEntry),
    Window,
}

/// Buffers of one worker: nothing here is larger than a tile times the rows of a task.
struct Scratch {
    /// `[head_dim, group_size]`.
    keys: Vec<f32>,
    /// `[group_size, head_dim]`.
    values: Vec<f32>,
    /// `[rows, group_size]`.
    scores: Vec<f32>,
    /// `[rows]`, zero.
    bias: Vec<f32>,
    /// Scales, then minima of a block.
    metadata: Vec<f32>,
    /// `[head_dim]`: one key before it becomes a column.
    key: Vec<f32>,
}

impl<'a> Task<'a> {
    /// Row of `q` and `out` `[queries, query_heads]` that belongs to a query and one of its heads.
    fn query_row(&self, query: usize, head: usize) -> usize {
        let shape = self.cache.shape();
        (self.row + query) * shape.query_heads + self.head * shape.group() + head
    }

    fn run(&self, q: &[f32], scale: f32, few: bool) -> Result<(Partial, u64)> {
        let (head_dim, group) = (
            self.cache.shape().head_dim.get(),
            self.cache.shape().group(),
        );
        let rows = self.queries * group;
        let mut scaled = Vec::with_capacity(rows * head_dim);
        for r in 0..rows {
            let at = self.query_row(r / group, r % group) * head_dim;
            scaled.extend(q[at..at + head_dim].iter().map(|x| x * scale));
        }
        let boundaries: Vec<Boundary> = (self.first..self.first + self.queries)
            .map(|t| self.sequence.boundary(self.cache.config(), self.layer, t))
            .collect();
        let splits = self.splits();
        let scratch = || self.scratch(rows);
        let fold = |scratch: &mut Scratch, tiles: &Vec<Tile<'_>>| {
            let mut partial = Partial::new(rows, head_dim);
            let mut read = 0;
            for tile in tiles {
                read += self.fold(tile, &scaled, &boundaries, scratch, &mut partial)?;
            }
            Ok((partial, read))
        };
        let mut partial = Partial::new(rows, head_dim);
        let mut read = 0;
        let mut merge = |(next, more): (Partial, u64)| {
            partial.merge(&next);
            read += more;
        };
        if few {
            let parts = splits
                .par_iter()
                .map_init(scratch, fold)
                .collect::<Result<Vec<_>>>()?;
            parts.into_iter().for_each(&mut merge);
        } else {
            let mut scratch = scratch();
            for tiles in &splits {
                merge(fold(&mut scratch, tiles)?);
            }
        }
        partial.finish();
        if self.cache.config().rotate_values {
            hadamard(partial.out(), self.cache.shape().head_dim);
        }
        Ok((partial, read))
    }

    /// Tiles of all tokens that the last query sees: sinks and the first [`SPLIT`] tokens, then [`SPLIT`] tokens each.
    fn splits(&self) -> Vec<Vec<Tile<'a>>> {
        let (sink_len, group) = (
            self.cache.config().sink_len,
            self.cache.config().group_size.get(),
        );
        let end = self.first + self.queries;
        let mut splits = vec![vec![]];
        for start in (0..sink_len.min(end)).step_by(group) {
            let tokens = start..(start + group).min(sink_len).min(end);
            splits[0].push(Tile {
                tokens,
                source: Source::Sinks,
            });
        }
        let pages = self
            .sequence
            .pages
            .iter()
            .take_while(|page| page.start < end);
        let pages = pages.map(|page| Tile {
            tokens: page.start..page.end(),
            source: Source::Page(page),
        });
        let grid = (self.sequence.pages_end()..end).step_by(group);
        let window = grid.map(|start| Tile {
            tokens: start..start + group,
            source: Source::Window,
        });
        for (i, tile) in pages.chain(window).enumerate() {
            if i > 0 && i % (SPLIT / group) == 0 {
                splits.push(vec![]);
            }
            splits[i / (SPLIT / group)].push(tile);
        }
        splits
    }

    fn scratch(&self, rows: usize) -> Scratch {
        let (head_dim, group) = (
            self.cache.shape().head_dim.get(),
            self.cache.config().group_size.get(),
        );
        let layout = self.cache.layout().block(self.layer);
        let metadata = 2 * head_dim.max(layout.group_size() * layout.value_groups());
        Scratch {
            keys: vec![0.0; head_dim * group],
            values: vec![0.0; group * head_dim],
            scores: vec![0.0; rows * group],
            bias: vec![0.0; rows],
            metadata: vec![0.0; metadata],
            key: vec![0.0; head_dim],
        }
    }

    /// Folds one tile into `partial` and returns the bytes of codes and metadata read.
    fn fold(
        &self,
        tile: &Tile<'_>,
        q: &[f32],
        boundaries: &[Boundary],
        scratch: &mut Scratch,
        partial: &mut Partial,
    ) -> Result<u64> {
        let (head_dim, group) = (
            self.cache.shape().head_dim.get(),
            self.cache.shape().group(),
        );
        let width = self.cache.config().group_size.get();
        let Range { start, end } = tile.tokens;
        let layout = self.cache.layout().block(self.layer);
        let int8 = self.cache.config().arithmetic == Arithmetic::Int8;
        let block = match tile.source {
            Source::Page(entry) => {
                Some(&entry.page.bytes()[self.cache.layout().range(self.layer, self.head)])
            }
            Source::Sinks | Source::Window => None,
        };
        let visible = |i: usize| (self.first + i + 1).min(end) - start;
        let mut read = 0;

        // Queries before `seeing` stand before the tile; those from `coded` on read its keys from codes.
        let seeing = start.saturating_sub(self.first).min(self.queries);
        let coded = match block {
            Some(_) => boundaries.partition_point(|b| b.keys < end).max(seeing),
            None => self.queries,
        };
        if seeing == self.queries {
            return Ok(0);
        }
        let rows = &self.sequence.layers[self.layer];
        if seeing < coded {
            self.fill_keys(&rows.keys, tile, visible(coded - 1), scratch);
            let r = seeing * group..coded * group;
            let (q, out) = (
                &q[r.start * head_dim..],
                &mut scratch.scores[r.start * width..],
            );
            scores(
                q,
                r.len(),
                head_dim,
                &scratch.keys,
                width,
                &scratch.bias,
                out,
            );
        }
        if let Some(block) = block
            && coded < self.queries
        {
            read += layout.key_bytes() as u64;
            let r = coded * group..self.queries * group;
            let (q, out) = (
                &q[r.start * head_dim..r.end * head_dim],
                &mut scratch.scores[r.start * width..],
            );
            let (scale, min) = metadata(layout.key_metadata(block)?, &mut scratch.metadata);
            layout.unpack_keys(block, &mut scratch.keys)?;
            if int8 {
                int8::scores(q, scale, min, &scratch.keys, width, out);
            } else {
                decode(&mut scratch.keys, width, scale, min);
                scores(
                    q,
                    r.len(),
                    head_dim,
                    &scratch.keys,
                    width,
                    &scratch.bias,
                    out,
                );
            }
        }
        for i in seeing..self.queries {
            for r in i * group..(i + 1) * group {
                weigh(
                    partial,
                    r,
                    &mut scratch.scores[r * width..(r + 1) * width],
                    visible(i),
                );
            }
        }

        // Values: of each query the first `n(i)` tokens of the tile come from codes, the others from 16 bits.
        let n = |i: usize| match block {
            Some(_) => boundaries[i].values.clamp(start, end) - start,
            None => 0,
        };
        let last = self.queries - 1;
        if let Some(block) = block
            && n(last) > 0
        {
            read += layout.value_bytes() as u64;
            let (scale, min) = metadata(layout.value_metadata(block)?, &mut scratch.metadata);
            layout.unpack_values(block, &mut scratch.values)?;
            let value_group = head_dim / layout.value_groups();
            if int8 {
                for run in runs(seeing, self.queries, n).filter(|run| n(run.start) > 0) {
                    let r = run.start * group..run.end * group;
                    int8::values(
                        &scratch.scores[r.start * width..],
                        r.len(),
                        width,
                        n(run.start),
                        (scale, min),
                        &scratch.values,
                        value_group,
                        &mut partial.out()[r.start * head_dim..r.end * head_dim],
                    );
                }
            } else {
                decode(&mut scratch.values, value_group, scale, min);
                for run in runs(seeing, self.queries, n) {
                    let r = run.start * group;
                    let out = &mut partial.out()[r * head_dim..];
                    let weights = &scratch.scores[r * width..];
                    accumulate(
                        weights,
                        run.len() * group,
                        width,
                        &scratch.values,
                        n(run.start),
                        head_dim,
                        out,
                    );
                }
            }
        }
        if visible(last) > n(seeing) {
            self.fill_values(&rows.values, tile, visible(last), &mut scratch.values);
            for run in runs(seeing, self.queries, n) {
                let (r, from, to) = (run.start * group, n(run.start), visible(run.end - 1));
                if from < to {
                    let out = &mut partial.out()[r * head_dim..];
                    let (weights, values) = (
                        &scratch.scores[r * width + from..],
                        &scratch.values[from * head_dim..],
                    );
                    accumulate(
                        weights,
                        run.len() * group,
                        width,
                        values,
                        to - from,
                        head_dim,
                        out,
                    );
                }
            }
        }
        Ok(read)
    }

    /// The 16-bit row of one token and this kv head.
    fn row<'r>(&self, side: &'r Side, tile: &Tile<'_>, token: usize) -> &'r [f16] {
        let head_dim = self.cache.shape().head_dim.get();
        let width = self.cache.shape().kv_heads * head_dim;
        let row = match tile.source {
            Source::Sinks => &side.sinks[token * width..(token + 1) * width],
            Source::Page(_) | Source::Window => side.window.row(token, width),
        };
        &row[self.head * head_dim..(self.head + 1) * head_dim]
    }

    /// 16-bit keys of the tile's first `visible` tokens as `[head_dim, group_size]`, zero beyond.
    fn fill_keys(&self, side: &Side, tile: &Tile<'_>, visible: usize, scratch: &mut Scratch) {
        let width = self.cache.config().group_size.get();
        scratch.keys.fill(0.0);
        for t in 0..visible {
            widen(
                self.row(side, tile, tile.tokens.start + t),
                &mut scratch.key,
            );
            for (column, &x) in scratch.keys[t..]
                .iter_mut()
                .step_by(width)
                .zip(&scratch.key)
            {
                *column = x;
            }
        }
    }

    /// 16-bit values of the tile's first `visible` tokens as `[group_size, head_dim]`; zero where they exist as codes only, and
    /// beyond.
    fn fill_values(&self, side: &Side, tile: &Tile<'_>, visible: usize, out: &mut [f32]) {
        let head_dim = self.cache.shape().head_dim.get();
        for (t, value) in out.chunks_exact_mut(head_dim).enumerate() {
            let token = tile.tokens.start + t;
            let kept = matches!(tile.source, Source::Sinks) || token >= side.window.start;
            if t < visible && kept {
                widen(self.row(side, tile, token), value);
            } else {
                value.fill(0.0);
            }
        }
    }
}

/// Runs of equal `n` over `from..to`.
fn runs(from: usize, to: usize, n: impl Fn(usize) -> usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = from;
    std::iter::from_fn(move || {
        if start == to {
            return None;
        }
        let end = (start + 1..to).find(|&i| n(i) != n(start)).unwrap_or(to);
        let run = start..end;
        start = end;
        Some(run)
    })
}

/// Scales and minima as f32.
fn metadata<'s>((scale, min): (&[f16], &[f16]), out: &'s mut [f32]) -> (&'s [f32], &'s [f32]) {
    let (first, rest) = out.split_at_mut(scale.len());
    let second = &mut rest[..min.len()];
    widen(scale, first);
    widen(min, second);
    (first, second)
}
