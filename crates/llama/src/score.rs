//! How likely a model finds given tokens.

use whittle_tensor::Device;

use crate::decoder::{chunks, unknown_token};
use crate::{Decoder, Error, KvStore, Result, SequenceId, Span, Visible};

/// Rows whose logits are held at once.
const ROWS: usize = 64;

/// Appends tokens to a sequence, `chunk` at a time, and returns `ln p(tokens[i + 1] | all tokens before it)` in nats for each
/// `i`: one value less than there are tokens.
///
/// `progress` is called with the tokens done after each chunk.
///
/// # Errors
/// A chunk of 0, or as [`Decoder::forward`], where the chunks before the failed one stay appended.
pub fn score(
    decoder: &Decoder,
    store: &mut dyn KvStore,
    sequence: SequenceId,
    tokens: &[u32],
    chunk: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f32>> {
    let mut scores = Vec::with_capacity(tokens.len());
    let mut done = 0;
    for part in chunks("score", tokens, chunk)? {
        let span = Span {
            sequence,
            tokens: part.len(),
        };
        let hidden = decoder.forward(store, &[span], part, Visible::Causal)?;
        // The last token of all has no successor to be scored.
        let targets = &tokens[done + 1..tokens.len().min(done + part.len() + 1)];
        for (block, targets) in targets.chunks(ROWS).enumerate() {
            let rows = hidden.narrow(0, block * ROWS, targets.len())?;
            let log_p = decoder.logits(&rows)?.log_softmax(1)?;
            let log_p = log_p.to_device(&Device::Cpu)?;
            let vocab = log_p.shape()[1];
            for (row, &target) in log_p.as_slice::<f32>()?.chunks_exact(vocab).zip(targets) {
                let score = row.get(target as usize).copied();
                scores.push(score.ok_or_else(|| unknown_token("score", target, vocab))?);
            }
        }
        done += part.len();
        progress(done);
    }
    Ok(scores)
}

/// Mean negative log-likelihoods of a text's chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct Perplexity {
    /// In nats, one a chunk.
    pub chunks: Vec<f64>,
}

impl Perplexity {
    /// Perplexity of each chunk.
    pub fn each(&self) -> impl Iterator<Item = f64> {
        self.chunks.iter().map(|nats| nats.exp())
    }

    /// Perplexity of all chunks, each with the same weight.
    pub fn mean(&self) -> f64 {
        (self.chunks.iter().sum::<f64>() / self.chunks.len() as f64).exp()
    }
}

/// Scores a text in whole chunks of `context` tokens, each in a fresh sequence and without a start token: a chunk's first
/// token has no score. Tokens after the last whole chunk are left out.
///
/// # Errors
/// [`Error::Argument`] where `context` is below 2 or the text is shorter than it, or as [`score`].
pub fn perplexity(
    decoder: &Decoder,
    store: &mut dyn KvStore,
    tokens: &[u32],
    context: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Perplexity> {
    if context < 2 || tokens.len() < context {
        return Err(Error::argument(
            "perplexity",
            "context",
            format!("at least 2, at most the {} tokens", tokens.len()),
            context,
        ));
    }
    let mut chunks = Vec::new();
    for (i, chunk) in tokens.chunks_exact(context).enumerate() {
        let sequence = store.sequence()?;
        let scores = score(decoder, store, sequence, chunk, context, &mut |done| {
            progress(i * context + done)
        });
        // Where both fail, the first error is the cause.
        let freed = store.free(sequence);
        let scores = scores?;
        freed?;
        chunks.push(-scores.iter().map(|&x| f64::from(x)).sum::<f64>() / scores.len() as f64);
    }
    Ok(Perplexity { chunks })
}
