//! The alternatives that a user would pick instead, and null baselines, as caches behind the decoder's `KvStore` seam.
//!
//! They serve quality measurements alone: each keeps every token twice, as 16-bit values and as what its codes decode to, and
//! reads the one or the other by its rule. Speed and memory of these stores mean nothing.

use half::f16;
use whittle_kivi::{Bits, GroupSize, HeadDim, Rounding, Scheme, hadamard, quantize_group};
use whittle_llama::{Error, KvStore, Result, SequenceId, Span, Truncated, Visible};
use whittle_tensor::{
    Tensor,
    attention::{Partial, accumulate, scores, weigh},
    random::Philox4x32,
};

/// Tokens of a tile, and of a block of the schemes that quantise blocks of tokens.
const TILE: usize = 32;

/// How a token's key or value is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Blocks of 32 along the channels, `d = max|x| / 127`.
    Q8_0,
    /// Blocks of 32 along the channels, `d` = the signed extreme / -8, codes 0…15.
    Q4_0,
    /// [`Codec::Q4_0`] of the Walsh–Hadamard transform.
    Q4_0Hadamard,
    /// Scale and minimum for each token and 64 channels: the axis that KIVI uses for values, for keys too.
    PerToken(Bits),
    /// KIVI's scales and minima (keys per channel, values per token), but random 2-bit codes.
    RandomCodes,
}

impl Codec {
    /// Bits of an element, metadata included.
    pub fn bits(self) -> f64 {
        match self {
            Self::Q8_0 => 8.5,
            Self::Q4_0 | Self::Q4_0Hadamard => 4.5,
            Self::PerToken(bits) => bits.get() as f64 + 0.5,
            Self::RandomCodes => 3.0,
        }
    }
}

/// Which tokens query `t` reads from codes, and which not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All, its own included: how llama.cpp's quantised caches work.
    Everything,
    /// KIVI's saw-tooth for keys, the newest `residual_len` for values.
    SawTooth {
        /// Tokens of the window.
        residual_len: usize,
    },
    /// Four sinks stay in 16 bits, and at least the newest `residual_len` tokens; blocks of 32.
    SlidingWithSinks {
        /// Tokens of the window.
        residual_len: usize,
    },
    /// Nothing is coded: four sinks and as many of the newest tokens as fit in the bytes of a quantised cache (3-bit elements,
    /// four sinks, a sliding window of 64) at the same position; the history between is dropped.
    Drop,
}

const SINKS: usize = 4;

impl Rule {
    /// Keys `SINKS..n`, or `0..n`, come from codes for query `t`.
    fn coded(self, t: usize) -> (usize, usize, usize) {
        match self {
            Self::Everything => (0, t + 1, t + 1),
            Self::SawTooth { residual_len } => (
                0,
                t / residual_len * residual_len,
                t.saturating_sub(residual_len),
            ),
            Self::SlidingWithSinks { residual_len } => {
                let n = SINKS + (t + 1).saturating_sub(SINKS + residual_len) / TILE * TILE;
                (SINKS, n, n)
            }
            Self::Drop => (SINKS, SINKS, SINKS),
        }
    }

    /// Bits of an element after `tokens` tokens, when codes cost `bits` and all other tokens 16.
    pub fn bits_at(self, tokens: usize, bits: f64) -> f64 {
        let (from, keys, values) = self.coded(tokens.saturating_sub(1));
        let coded = (keys.saturating_sub(from) + values.saturating_sub(from)) as f64 / 2.0;
        let dropped = self.dropped(tokens.saturating_sub(1)).saturating_sub(SINKS) as f64;
        (coded * bits + (tokens as f64 - coded - dropped) * 16.0) / tokens as f64
    }

    /// Query `t` does not see tokens `SINKS..n`.
    fn dropped(self, t: usize) -> usize {
        match self {
            Self::Drop => {
                let (_, coded, _) = Self::SlidingWithSinks { residual_len: 64 }.coded(t);
                // Bytes in units of a 16-bit token: codes cost 3 of 16 bits.
                let tokens = (coded - SINKS) * 3 / 16 + (t + 1).saturating_sub(coded);
                (t + 1 - tokens).max(SINKS)
            }
            _ => 0,
        }
    }
}

/// One layer and kv head of one sequence.
#[derive(Clone, Debug, Default)]
struct Head {
    tokens: usize,
    /// Keys in tiles `[head_dim, TILE]`, 16-bit values and decoded codes.
    keys: [Vec<f32>; 2],
    /// Values `[tokens, head_dim]`, the same two forms.
    values: [Vec<f32>; 2],
}

/// A cache that simulates a scheme.
pub struct PeerStore {
    layers: usize,
    kv_heads: usize,
    head_dim: HeadDim,
    codec: Codec,
    rule: Rule,
    sequences: Vec<Option<Vec<Head>>>,
}

impl PeerStore {
    /// An empty cache of `layers` layers.
    pub fn new(
        layers: usize,
        kv_heads: usize,
        head_dim: HeadDim,
        codec: Codec,
        rule: Rule,
    ) -> Self {
        Self {
            layers,
            kv_heads,
            head_dim,
            codec,
            rule,
            sequences: vec![],
        }
    }

    fn get(&self, sequence: SequenceId) -> Result<&Vec<Head>> {
        self.sequences
            .get(sequence.0)
            .and_then(Option::as_ref)
            .ok_or_else(|| unknown(sequence))
    }

    fn get_mut(&mut self, sequence: SequenceId) -> Result<&mut Vec<Head>> {
        self.sequences
            .get_mut(sequence.0)
            .and_then(Option::as_mut)
            .ok_or_else(|| unknown(sequence))
    }
}

fn unknown(sequence: SequenceId) -> Error {
    Error::Argument {
        operation: "simulated cache",
        argument: "sequence",
        expected: "a sequence of this store".into(),
        found: format!("{sequence:?}"),
    }
}

fn unsupported(operation: &'static str) -> Error {
    Error::Unsupported {
        operation,
        expected: "a simulated cache that only grows".into(),
        found: operation.into(),
    }
}

/// What one row decodes to.
fn decode(codec: Codec, head_dim: HeadDim, row: &mut [f32]) -> Result<()> {
    match codec {
        Codec::Q8_0 => row.chunks_mut(32).for_each(|block| {
            let d = block.iter().fold(0.0f32, |a, x| a.max(x.abs())) / 127.0;
            let stored = f16::from_f32(d).to_f32();
            block.iter_mut().for_each(|x| {
                *x = if d > 0.0 {
                    (*x / d).round() * stored
                } else {
                    0.0
                }
            });
        }),
        Codec::Q4_0 => row.chunks_mut(32).for_each(|block| {
            let extreme = block
                .iter()
                .fold(0.0f32, |a, &x| if x.abs() > a.abs() { x } else { a });
            let d = extreme / -8.0;
            let stored = f16::from_f32(d).to_f32();
            block.iter_mut().for_each(|x| {
                *x = if d == 0.0 {
                    0.0
                } else {
                    ((*x / d + 8.5).floor().clamp(0.0, 15.0) - 8.0) * stored
                };
            });
        }),
        Codec::Q4_0Hadamard => {
            hadamard(row, head_dim);
            decode(Codec::Q4_0, head_dim, row)?;
            hadamard(row, head_dim);
        }
        Codec::PerToken(bits) => row.chunks_mut(64).try_for_each(|group| -> Result<()> {
            let (scale, min, codes) = quantise(bits, group)?;
            group
                .iter_mut()
                .zip(&codes)
                .for_each(|(x, &code)| *x = f32::from(code) * scale + min);
            Ok(())
        })?,
        Codec::RandomCodes => {}
    }
    Ok(())
}

/// Scale, minimum and codes of one group.
fn quantise(bits: Bits, group: &[f32]) -> Result<(f32, f32, Vec<u8>)> {
    let mut codes = vec![0; group.len()];
    let scheme = Scheme {
        bits,
        clip_search: false,
        rounding: Rounding::Native,
    };
    let metadata = quantize_group(scheme, group, &mut codes).map_err(|source| Error::Store {
        operation: "append",
        source: Box::new(source),
    })?;
    Ok((metadata.scale.to_f32(), metadata.min.to_f32(), codes))
}

/// Random 2-bit codes under the true scale and minimum of a group.
fn randomise(random: &mut Philox4x32, group: &mut [f32]) -> Result<()> {
    let (scale, min, _) = quantise(Bits::Two, group)?;
    group
        .iter_mut()
        .for_each(|x| *x = (random.next_u32() & 3) as f32 * scale + min);
    Ok(())
}

impl Head {
    fn push(
        &mut self,
        codec: Codec,
        dim: HeadDim,
        layer_head: u64,
        k: &[f32],
        v: &[f32],
    ) -> Result<()> {
        let head_dim = dim.get();
        let round = |row: &[f32]| {
            row.iter()
                .map(|&x| f16::from_f32(x).to_f32())
                .collect::<Vec<_>>()
        };
        let (lane, tile) = (self.tokens % TILE, self.tokens / TILE);
        let (key, value) = (round(k), round(v));
        let (mut coded_key, mut coded_value) = (key.clone(), value.clone());
        decode(codec, dim, &mut coded_key)?;
        decode(codec, dim, &mut coded_value)?;
        if codec == Codec::RandomCodes {
            let mut random = Philox4x32::new(self.tokens as u64, 2 * layer_head);
            coded_value
                .chunks_mut(GroupSize::G32.get())
                .try_for_each(|group| randomise(&mut random, group))?;
        }
        for (keys, key) in self.keys.iter_mut().zip([&key, &coded_key]) {
            keys.resize((tile + 1) * head_dim * TILE, 0.0);
            let columns = &mut keys[tile * head_dim * TILE..];
            key.iter()
                .enumerate()
                .for_each(|(d, &x)| columns[d * TILE + lane] = x);
        }
        self.values[0].extend(&value);
        self.values[1].extend(&coded_value);
        self.tokens += 1;
        // Blocks of keys start behind the sinks, as KIVI's do here.
        if codec == Codec::RandomCodes
            && self.tokens > SINKS
            && (self.tokens - SINKS).is_multiple_of(TILE)
        {
            let start = self.tokens - TILE;
            let mut random = Philox4x32::new(start as u64, 2 * layer_head + 1);
            let at = |t: usize, d: usize| (t / TILE * head_dim + d) * TILE + t % TILE;
            for d in 0..head_dim {
                let mut group: Vec<f32> = (start..self.tokens)
                    .map(|t| self.keys[0][at(t, d)])
                    .collect();
                randomise(&mut random, &mut group)?;
                (start..self.tokens)
                    .zip(group)
                    .for_each(|(t, x)| self.keys[1][at(t, d)] = x);
            }
        }
        Ok(())
    }

    /// Attention of the queries `first..first + queries`, `q` `[queries·group, head_dim]` already scaled.
    fn attend(
        &self,
        rule: Rule,
        head_dim: usize,
        group: usize,
        first: usize,
        q: &[f32],
    ) -> Partial {
        let rows = q.len() / head_dim;
        let queries = rows / group;
        let (bias, mut both) = (
            vec![0.0; rows],
            [vec![0.0; rows * TILE], vec![0.0; rows * TILE]],
        );
        let mut partial = Partial::new(rows, head_dim);
        let end = first + queries;
        for start in (0..end).step_by(TILE) {
            let tile = start..(start + TILE).min(end);
            for (form, out) in both.iter_mut().enumerate() {
                let used = (first..end).any(|t| {
                    let (from, keys, _) = rule.coded(t);
                    tile.clone()
                        .any(|j| j <= t && ((from..keys).contains(&j)) == (form == 1))
                });
                if used {
                    let keys = &self.keys[form][start * head_dim..];
                    scores(q, rows, head_dim, keys, TILE, &bias, out);
                }
            }
            let [exact, coded] = &mut both;
            for r in 0..rows {
                let t = first + r / group;
                let row = r * TILE..(r + 1) * TILE;
                let (exact, coded) = (&mut exact[row.clone()], &mut coded[row]);
                let (from, keys, values) = rule.coded(t);
                for (i, j) in tile.clone().enumerate() {
                    if (from..keys).contains(&j) {
                        exact[i] = coded[i];
                    }
                    if (SINKS..rule.dropped(t)).contains(&j) {
                        exact[i] = f32::NEG_INFINITY;
                    }
                }
                weigh(
                    &mut partial,
                    r,
                    exact,
                    (t + 1).clamp(tile.start, tile.end) - tile.start,
                );
                for (i, j) in tile.clone().enumerate() {
                    coded[i] = 0.0;
                    if (from..values).contains(&j) {
                        coded[i] = std::mem::take(&mut exact[i]);
                    }
                }
            }
            for (form, weights) in both.iter().enumerate() {
                let values = &self.values[form][start * head_dim..];
                accumulate(
                    weights,
                    rows,
                    TILE,
                    values,
                    tile.len(),
                    head_dim,
                    partial.out(),
                );
            }
        }
        partial.finish();
        partial
    }
}

impl KvStore for PeerStore {
    fn sequence(&mut self) -> Result<SequenceId> {
        self.sequences
            .push(Some(vec![Head::default(); self.layers * self.kv_heads]));
        Ok(SequenceId(self.sequences.len() - 1))
    }

    fn append(&mut self, layer: usize, spans: &[Span], k: &Tensor, v: &Tensor) -> Result<()> {
        let (kv_heads, head_dim, codec) = (self.kv_heads, self.head_dim, self.codec);
        let (k, v) = (k.contiguous()?, v.contiguous()?);
        let width = head_dim.get();
        let rows = k
            .as_slice::<f32>()?
            .chunks_exact(width)
            .zip(v.as_slice::<f32>()?.chunks_exact(width));
        let mut rows = rows.enumerate();
        for span in spans {
            let heads = &mut self.get_mut(span.sequence)?[layer * kv_heads..(layer + 1) * kv_heads];
            for (i, (k, v)) in rows.by_ref().take(span.tokens * kv_heads) {
                let layer_head = (layer * kv_heads + i % kv_heads) as u64;
                heads[i % kv_heads].push(codec, head_dim, layer_head, k, v)?;
            }
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
        if visible != Visible::Causal {
            return Err(unsupported("attend to a tree"));
        }
        let shape = q.shape().to_vec();
        let (head_dim, group) = (self.head_dim.get(), shape[1] / self.kv_heads);
        let scaled: Vec<f32> = q.to_vec::<f32>()?.iter().map(|x| x * scale).collect();
        let mut out = vec![0.0; scaled.len()];
        let mut start = 0;
        for span in spans {
            let heads =
                &self.get(span.sequence)?[layer * self.kv_heads..(layer + 1) * self.kv_heads];
            for block in (0..span.tokens).step_by(TILE) {
                let queries = TILE.min(span.tokens - block);
                for (h, head) in heads.iter().enumerate() {
                    let at = |r: usize| {
                        ((start + block + r / group) * shape[1] + h * group + r % group) * head_dim
                    };
                    let q: Vec<f32> = (0..queries * group)
                        .flat_map(|r| scaled[at(r)..at(r) + head_dim].to_vec())
                        .collect();
                    let first = head.tokens - span.tokens + block;
                    let mut partial = head.attend(self.rule, head_dim, group, first, &q);
                    for (r, row) in partial.out().chunks_exact(head_dim).enumerate() {
                        out[at(r)..at(r) + head_dim].copy_from_slice(row);
                    }
                }
            }
            start += span.tokens;
        }
        Ok(Tensor::from_vec(out, &shape)?)
    }

    fn len(&self, sequence: SequenceId) -> Result<usize> {
        Ok(self
            .get(sequence)?
            .iter()
            .map(|head| head.tokens)
            .min()
            .unwrap_or(0))
    }

    fn bytes(&self) -> usize {
        let floats = |head: &Head| {
            head.keys
                .iter()
                .chain(&head.values)
                .map(Vec::capacity)
                .sum::<usize>()
        };
        self.sequences
            .iter()
            .flatten()
            .flatten()
            .map(floats)
            .sum::<usize>()
            * size_of::<f32>()
    }

    fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId> {
        let copy = self.get(sequence)?.clone();
        self.sequences.push(Some(copy));
        Ok(SequenceId(self.sequences.len() - 1))
    }

    fn truncate(&mut self, _: SequenceId, _: usize) -> Result<Truncated> {
        Err(unsupported("truncate"))
    }

    fn retain(&mut self, _: SequenceId, _: usize, _: &[usize]) -> Result<()> {
        Err(unsupported("retain"))
    }

    fn hold(&mut self, _: SequenceId) -> Result<()> {
        Err(unsupported("hold"))
    }

    fn commit(&mut self, _: SequenceId) -> Result<()> {
        Err(unsupported("commit"))
    }

    fn free(&mut self, sequence: SequenceId) -> Result<()> {
        self.get(sequence)?;
        self.sequences[sequence.0] = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_dim() -> HeadDim {
        HeadDim::new(32).unwrap()
    }

    #[test]
    fn q4_0_is_the_signed_extreme_over_minus_eight() {
        let mut row: Vec<f32> = (0..32).map(|i| i as f32 / 4.0 - 3.0).collect();
        row[5] = -16.0;
        let exact = row.clone();
        decode(Codec::Q4_0, head_dim(), &mut row).unwrap();
        // d = -16 / -8 = 2: codes floor(x/2 + 8.5), the extreme is kept exactly.
        for (x, &e) in row.iter().zip(&exact) {
            assert_eq!(*x, ((e / 2.0 + 8.5).floor().clamp(0.0, 15.0) - 8.0) * 2.0);
        }
        assert_eq!(row[5], -16.0);
        let mut zero = vec![0.0; 32];
        decode(Codec::Q4_0, head_dim(), &mut zero).unwrap();
        assert_eq!(zero, vec![0.0; 32]);
    }

    #[test]
    fn q8_0_is_the_largest_over_127() {
        let mut row: Vec<f32> = (0..32).map(|i| (i as f32 - 10.0) * 127.0 / 21.0).collect();
        let exact = row.clone();
        decode(Codec::Q8_0, head_dim(), &mut row).unwrap();
        // d = 1: whole numbers.
        for (x, e) in row.iter().zip(&exact) {
            assert_eq!(*x, e.round());
        }
    }

    #[test]
    fn per_token_codes_have_four_values_a_group_and_hadamard_keeps_the_norm() {
        let mut row: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
        let exact = row.clone();
        decode(Codec::PerToken(Bits::Two), head_dim(), &mut row).unwrap();
        let mut seen = row.clone();
        seen.sort_by(f32::total_cmp);
        seen.dedup();
        assert_eq!(seen.len(), 4);
        let mut rotated = exact.clone();
        decode(Codec::Q4_0Hadamard, head_dim(), &mut rotated).unwrap();
        let error = |x: &[f32]| {
            x.iter()
                .zip(&exact)
                .map(|(x, e)| (x - e).powi(2))
                .sum::<f32>()
        };
        assert!(error(&rotated) < error(&row) && error(&rotated) > 0.0);
    }

    #[test]
    fn rules_split_tokens_as_their_names_say() {
        assert_eq!(Rule::Everything.coded(9), (0, 10, 10));
        assert_eq!(
            Rule::SawTooth { residual_len: 128 }.coded(256),
            (0, 256, 128)
        );
        let sliding = Rule::SlidingWithSinks { residual_len: 128 };
        assert_eq!(sliding.coded(162), (4, 4, 4));
        assert_eq!(sliding.coded(163), (4, 36, 36));
    }

    #[test]
    fn the_null_has_the_bytes_of_compact_at_every_position() {
        for t in 0..3000 {
            let (from, coded, _) = Rule::SlidingWithSinks { residual_len: 64 }.coded(t);
            let compact =
                (coded - from) as f64 * 3.0 / 16.0 + (t + 1).saturating_sub(coded - from) as f64;
            let seen = (t + 1 - Rule::Drop.dropped(t).saturating_sub(SINKS)) as f64;
            assert!(
                (seen - compact).abs() <= 1.0,
                "query {t} sees {seen}, compact pays for {compact}"
            );
        }
    }

    #[test]
    fn random_codes_stay_in_the_range_of_their_group_and_differ_from_it() {
        let mut random = Philox4x32::new(1, 2);
        let exact: Vec<f32> = (0..32).map(|i| (i as f32 * 0.3).cos()).collect();
        let mut group = exact.clone();
        randomise(&mut random, &mut group).unwrap();
        let (low, high) = exact
            .iter()
            .fold((1f32, -1f32), |(l, h), &x| (l.min(x), h.max(x)));
        assert!(group.iter().all(|&x| x >= low - 1e-3 && x <= high + 1e-2));
        assert_ne!(group, exact);
    }

    /// Without codes a simulated cache is exact attention; with a rule that reads everything from codes it is not.
    #[test]
    fn attention_reads_the_form_that_the_rule_names() {
        let (kv_heads, tokens, dim) = (1, 70, 32);
        let rows =
            |f: f32, n: usize| -> Vec<f32> { (0..n * dim).map(|i| (i as f32 * f).sin()).collect() };
        let (k, v, q) = (rows(0.37, tokens), rows(0.73, tokens), rows(0.11, tokens));
        let tensor = |x: &[f32]| Tensor::from_vec(x.to_vec(), &[x.len() / dim, 1, dim]).unwrap();
        let run = |codec, rule, steps: &[usize]| {
            let mut store = PeerStore::new(1, kv_heads, head_dim(), codec, rule);
            let sequence = store.sequence().unwrap();
            let (mut at, mut out) = (0, vec![]);
            for &n in steps {
                let part = |x: &[f32]| tensor(&x[at * dim..(at + n) * dim]);
                let spans = [Span {
                    sequence,
                    tokens: n,
                }];
                store.append(0, &spans, &part(&k), &part(&v)).unwrap();
                let y = store
                    .attend(0, &spans, &part(&q), 0.3, Visible::Causal)
                    .unwrap();
                out.extend(y.to_vec::<f32>().unwrap());
                at += n;
            }
            out
        };
        let exact = Rule::SlidingWithSinks { residual_len: 1000 };
        let plain = run(Codec::Q4_0, exact, &[70]);
        for t in 0..tokens {
            let dot =
                |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let query = &q[t * dim..(t + 1) * dim];
            let weights: Vec<f64> = k
                .chunks(dim)
                .take(t + 1)
                .map(|k| (0.3 * dot(query, k)).exp())
                .collect();
            let sum: f64 = weights.iter().sum();
            for d in 0..dim {
                let e: f64 = weights
                    .iter()
                    .enumerate()
                    .map(|(j, w)| w / sum * f64::from(v[j * dim + d]))
                    .sum();
                assert!((f64::from(plain[t * dim + d]) - e).abs() < 2e-3);
            }
        }
        assert_eq!(run(Codec::Q4_0, exact, &[1, 40, 29]), plain);
        let coded = run(Codec::Q4_0, Rule::Everything, &[70]);
        assert!(coded.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 1e-2));
        let dropped = run(Codec::Q4_0, Rule::Drop, &[70]);
        assert!(
            dropped
                .iter()
                .zip(&plain)
                .all(|(a, b)| (a - b).abs() < 1e-6),
            "70 tokens fit in the window"
        );
    }
}
