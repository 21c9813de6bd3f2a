//! How far a cache moves a model's predictions: teacher forcing over a window of text, against the same model with an f16 cache.

use serde::{Deserialize, Serialize};
use whittle_llama::{Decoder, KvStore, Result, Span, Visible};
use whittle_tensor::{Tensor, random::Philox4x32};

/// Tokens that pass through the decoder at once: many, so that each weight is packed for the matrix product few times.
const CHUNK: usize = 768;
/// Rows whose logits are held at once.
const ROWS: usize = 64;
/// Tokens of a segment of the bootstrap.
const SEGMENT: usize = 64;
/// Draws of the bootstrap.
const DRAWS: usize = 1000;

/// Predictions of the reference, from position [`Window::from`] on.
pub struct Reference {
    /// `[positions, vocab]`: natural logarithms of probabilities.
    log_p: Vec<f32>,
    vocab: usize,
}

/// The tokens that are judged.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    /// All tokens of the pass.
    pub tokens: &'a [u32],
    /// Predictions made at positions before this one are not judged: they see too little context.
    pub from: usize,
}

impl Window<'_> {
    /// Judged predictions: those of the next token, at positions `from..tokens.len() - 1`.
    pub fn predictions(&self) -> usize {
        self.tokens.len().saturating_sub(self.from + 1)
    }
}

/// One figure for each judged position, over one window or more.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Positions {
    /// `-ln p` of the token that came, in nats.
    pub surprise: Vec<f32>,
    /// Kullback–Leibler divergence from the reference's prediction to this one, in nats.
    pub kl: Vec<f32>,
    /// Whether the likeliest token is the reference's.
    pub same_top: Vec<bool>,
    /// The windows that the positions come from.
    pub windows: Vec<Judgement>,
}

/// One window.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Judgement {
    /// Tokens of the pass.
    pub tokens: usize,
    /// Judged predictions.
    pub predictions: usize,
    /// Bytes of the cache at its end.
    pub bytes: usize,
}

impl Positions {
    /// Joins the positions of another window.
    pub fn extend(&mut self, other: Self) {
        self.surprise.extend(other.surprise);
        self.kl.extend(other.kl);
        self.same_top.extend(other.same_top);
        self.windows.extend(other.windows);
    }

    /// Perplexity.
    pub fn perplexity(&self) -> f64 {
        mean(&self.surprise).exp()
    }

    /// Perplexity of each window.
    pub fn perplexities(&self) -> Vec<f64> {
        self.by_window(&self.surprise)
            .map(|surprise| mean(surprise).exp())
            .collect()
    }

    fn by_window<'s>(&'s self, mut figures: &'s [f32]) -> impl Iterator<Item = &'s [f32]> {
        self.windows.iter().map(move |window| {
            let (own, rest) = figures.split_at(window.predictions);
            figures = rest;
            own
        })
    }

    /// Mean divergence in nats.
    pub fn mean_kl(&self) -> f64 {
        mean(&self.kl)
    }

    /// 99th percentile of the divergence in nats.
    pub fn p99_kl(&self) -> f64 {
        let mut sorted = self.kl.clone();
        sorted.sort_by(f32::total_cmp);
        sorted
            .get(sorted.len().saturating_sub(1) * 99 / 100)
            .map_or(f64::NAN, |&x| f64::from(x))
    }

    /// Share of positions with the reference's likeliest token.
    pub fn top_1(&self) -> f64 {
        self.same_top.iter().filter(|&&same| same).count() as f64 / self.same_top.len() as f64
    }

    /// 95 % confidence interval of the mean divergence: bootstrap over segments of 64 tokens, 1,000 draws, seed 0.
    pub fn kl_interval(&self) -> (f64, f64) {
        let segments: Vec<(f64, usize)> = self
            .by_window(&self.kl)
            .flat_map(|window| window.chunks(SEGMENT))
            .map(|segment| (segment.iter().map(|&x| f64::from(x)).sum(), segment.len()))
            .collect();
        let mut random = Philox4x32::new(0, 0);
        let mut means: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let drawn = (0..segments.len())
                    .map(|_| segments[random.next_u32() as usize % segments.len()]);
                let (sum, len) = drawn.fold((0.0, 0), |(sum, len), (s, l)| (sum + s, len + l));
                sum / len as f64
            })
            .collect();
        means.sort_by(f64::total_cmp);
        (means[DRAWS / 40], means[DRAWS - 1 - DRAWS / 40])
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64
}

/// Passes the window through the decoder and hands each judged row of log-probabilities to `judge`, with its index. Returns the
/// bytes of the cache at the end.
fn pass(
    decoder: &Decoder,
    store: &mut dyn KvStore,
    window: Window<'_>,
    mut judge: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<usize> {
    let sequence = store.sequence()?;
    let last = window.tokens.len().saturating_sub(1);
    let mut done = 0;
    for chunk in window.tokens.chunks(CHUNK) {
        let spans = [Span {
            sequence,
            tokens: chunk.len(),
        }];
        let hidden = decoder.forward(store, &spans, chunk, Visible::Causal)?;
        let judged = window.from.max(done)..last.min(done + chunk.len());
        for start in judged.clone().step_by(ROWS) {
            let rows = ROWS.min(judged.end - start);
            let log_p = decoder
                .logits(&hidden.narrow(0, start - done, rows)?)?
                .log_softmax(1)?;
            let vocab = log_p.shape()[1];
            for (i, row) in log_p.as_slice::<f32>()?.chunks_exact(vocab).enumerate() {
                judge(start + i - window.from, row)?;
            }
        }
        done += chunk.len();
    }
    let bytes = store.bytes();
    store.free(sequence)?;
    Ok(bytes)
}

/// The reference's predictions.
///
/// # Errors
/// As [`Decoder::forward`].
pub fn reference(
    decoder: &Decoder,
    store: &mut dyn KvStore,
    window: Window<'_>,
) -> Result<(Reference, Positions)> {
    let vocab = decoder.config().vocab;
    let mut log_p = Vec::with_capacity(window.predictions() * vocab);
    let mut positions = Positions::default();
    let bytes = pass(decoder, store, window, |i, row| {
        log_p.extend_from_slice(row);
        positions
            .surprise
            .push(-row[window.tokens[window.from + i + 1] as usize]);
        positions.kl.push(0.0);
        positions.same_top.push(true);
        Ok(())
    })?;
    let (tokens, predictions) = (window.tokens.len(), window.predictions());
    positions.windows.push(Judgement {
        tokens,
        predictions,
        bytes,
    });
    Ok((Reference { log_p, vocab }, positions))
}

/// What a cache makes of the window.
///
/// # Errors
/// As [`Decoder::forward`].
pub fn judge(
    decoder: &Decoder,
    store: &mut dyn KvStore,
    window: Window<'_>,
    reference: &Reference,
) -> Result<Positions> {
    let mut positions = Positions::default();
    let bytes = pass(decoder, store, window, |i, row| {
        let expected = &reference.log_p[i * reference.vocab..(i + 1) * reference.vocab];
        let p = Tensor::from_vec(expected.to_vec(), &[reference.vocab])?.exp()?;
        positions
            .surprise
            .push(-row[window.tokens[window.from + i + 1] as usize]);
        positions.kl.push(divergence(p.as_slice()?, expected, row));
        positions.same_top.push(top(expected) == top(row));
        Ok(())
    })?;
    let (tokens, predictions) = (window.tokens.len(), window.predictions());
    positions.windows.push(Judgement {
        tokens,
        predictions,
        bytes,
    });
    Ok(positions)
}

/// Decodes `tokens` tokens greedily after a prompt.
///
/// # Errors
/// As [`Decoder::forward`].
pub fn greedy(
    decoder: &Decoder,
    store: &mut dyn KvStore,
    prompt: &[u32],
    tokens: usize,
) -> Result<Vec<u32>> {
    let sequence = store.sequence()?;
    let mut decoded: Vec<u32> = vec![];
    let mut hidden = decoder.prefill(store, sequence, prompt, CHUNK, &mut |_| ())?;
    loop {
        let best = decoder.logits(&hidden)?.argmax(1)?.to_vec::<u32>()?;
        decoded.extend(&best);
        if decoded.len() >= tokens {
            return Ok(decoded);
        }
        hidden = decoder.forward(
            store,
            &[Span {
                sequence,
                tokens: 1,
            }],
            &best,
            Visible::Causal,
        )?;
    }
}

/// `Σ p·(ln p - ln q)`, summed in sixteen lanes.
fn divergence(p: &[f32], log_p: &[f32], log_q: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    let mut add = |p: &[f32], log_p: &[f32], log_q: &[f32]| {
        for (((sum, p), log_p), log_q) in sums.iter_mut().zip(p).zip(log_p).zip(log_q) {
            *sum += p * (log_p - log_q);
        }
    };
    let chunks = p
        .chunks_exact(LANES)
        .zip(log_p.chunks_exact(LANES))
        .zip(log_q.chunks_exact(LANES));
    chunks.for_each(|((p, log_p), log_q)| add(p, log_p, log_q));
    let rest = p.len() / LANES * LANES;
    add(&p[rest..], &log_p[rest..], &log_q[rest..]);
    sums.iter().map(|&x| f64::from(x)).sum::<f64>() as f32
}

fn top(row: &[f32]) -> usize {
    row.iter()
        .enumerate()
        .fold(0, |best, (i, &x)| if x > row[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_zero_for_equal_rows_and_known_for_two_coins() {
        let ln = |p: &[f64]| p.iter().map(|p| p.ln() as f32).collect::<Vec<_>>();
        let (fair, bent) = (ln(&[0.5, 0.5]), ln(&[0.9, 0.1]));
        assert_eq!(divergence(&[0.5, 0.5], &fair, &fair), 0.0);
        let expected = 0.5 * (0.5f64 / 0.9).ln() + 0.5 * (0.5f64 / 0.1).ln();
        assert!((f64::from(divergence(&[0.5, 0.5], &fair, &bent)) - expected).abs() < 1e-6);
    }

    #[test]
    fn the_interval_of_a_constant_is_the_constant() {
        let windows = vec![
            Judgement {
                predictions: 500,
                ..Judgement::default()
            };
            2
        ];
        let positions = Positions {
            kl: vec![0.25; 1000],
            windows,
            ..Positions::default()
        };
        let (low, high) = positions.kl_interval();
        assert!((low - 0.25).abs() < 1e-12 && (high - 0.25).abs() < 1e-12);
        assert_eq!(positions.p99_kl(), 0.25);
    }
}
