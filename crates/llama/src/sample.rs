//! Choosing the next token, and writing texts with it.

use std::ops::ControlFlow;

use whittle_tensor::Device;
use whittle_tensor::random::Philox4x32;

use crate::{Decoder, Error, KvStore, Result, SequenceId};

/// Prompt tokens that [`generate`] runs through the decoder at once.
const CHUNK: usize = 512;

/// Chooses a token from logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    temperature: f32,
    top_k: Option<usize>,
    top_p: Option<f32>,
    seed: u64,
}

impl Sampler {
    /// The likeliest token, the lowest number on ties.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: None,
            seed: 0,
        }
    }

    /// Draws from `softmax(logits / temperature)`, cut to the `top_k` likeliest tokens and then to the fewest of them that
    /// hold the share `top_p` of the probability that is left. A temperature of 0 is [`greedy`](Self::greedy).
    ///
    /// # Errors
    /// [`Error::Argument`]: a temperature that is negative or not finite, `top_k` 0, `top_p` outside (0, 1].
    pub fn new(
        temperature: f32,
        top_k: Option<usize>,
        top_p: Option<f32>,
        seed: u64,
    ) -> Result<Self> {
        let bad = |argument, expected: &str, found: String| {
            Err(Error::argument("Sampler::new", argument, expected, found))
        };
        if !(temperature.is_finite() && temperature >= 0.0) {
            return bad("temperature", "at least 0", temperature.to_string());
        }
        if top_k == Some(0) {
            return bad("top_k", "at least 1", "0".into());
        }
        if let Some(p) = top_p
            && !(p > 0.0 && p <= 1.0)
        {
            return bad("top_p", "above 0, at most 1", p.to_string());
        }
        Ok(Self {
            temperature,
            top_k,
            top_p,
            seed,
        })
    }

    /// Chooses the token of draw `draw`. The random number is a function of the seed and `draw` alone, so a text can be
    /// continued later, or one of its tokens drawn again.
    ///
    /// # Errors
    /// [`Error::Argument`] where `logits` is empty or holds NaN or +inf.
    pub fn choose(&self, logits: &[f32], draw: u64) -> Result<u32> {
        let bad = |expected: &str, found: String| {
            Error::argument("Sampler::choose", "logits", expected, found)
        };
        let best = logits
            .iter()
            .enumerate()
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .ok_or_else(|| bad("at least one", "none".into()))?;
        if let Some(at) = logits
            .iter()
            .position(|&x| x.is_nan() || x == f32::INFINITY)
        {
            return Err(bad(
                "numbers below infinity",
                format!("{} of token {at}", logits[at]),
            ));
        }
        let max = *best.1;
        if self.temperature == 0.0 || max == f32::NEG_INFINITY {
            return Ok(best.0 as u32);
        }
        let weight = |token: usize| f64::from((logits[token] - max) / self.temperature).exp();
        let mut tokens: Vec<(usize, f64)> = (0..logits.len())
            .map(|token| (token, weight(token)))
            .collect();
        if self.top_k.is_some() || self.top_p.is_some() {
            tokens.sort_by(|a, b| b.1.total_cmp(&a.1));
            tokens.truncate(self.top_k.unwrap_or(usize::MAX));
        }
        let mut total: f64 = tokens.iter().map(|token| token.1).sum();
        if let Some(p) = self.top_p {
            let mut sum = 0.0;
            let enough = tokens.iter().position(|token| {
                sum += token.1;
                sum >= f64::from(p) * total
            });
            tokens.truncate(enough.map_or(tokens.len(), |last| last + 1));
            total = tokens.iter().map(|token| token.1).sum();
        }
        let mut left = uniform(self.seed, draw) * total;
        for &(token, weight) in &tokens {
            if left < weight {
                return Ok(token as u32);
            }
            left -= weight;
        }
        // Rounding may leave a remainder behind the last token.
        Ok(best.0 as u32)
    }
}

/// In [0, 1), from the upper 53 bits of the seed's numbers `2 · draw` and `2 · draw + 1`: f32 would be coarse beside 50,000 tokens.
fn uniform(seed: u64, draw: u64) -> f64 {
    let stream = Philox4x32::new(seed, 0);
    let first = draw.wrapping_mul(2);
    let (high, low) = (stream.u32_at(first), stream.u32_at(first.wrapping_add(1)));
    ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Appends `prompt` to a sequence and continues it by at most `max_new` tokens, which are returned. Each is handed to
/// `on_token` as soon as it is chosen; the text ends there if that breaks, and before the model's end-of-text token.
///
/// The newest token is chosen but not appended: to go on, make it the first of the next prompt. The draw of a token is numbered
/// with its position in the sequence, so a text that is continued so is the text that one call would have written.
///
/// # Errors
/// An empty prompt, or as [`Decoder::forward`] and [`Sampler::choose`].
pub fn generate(
    decoder: &Decoder,
    store: &mut dyn KvStore,
    sequence: SequenceId,
    prompt: &[u32],
    max_new: usize,
    sampler: &Sampler,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Vec<u32>> {
    let hidden = decoder.prefill(store, sequence, prompt, CHUNK, &mut |_| ())?;
    let mut tokens = Vec::new();
    if max_new == 0 {
        return Ok(tokens);
    }
    let mut logits = decoder.logits(&hidden)?;
    loop {
        let draw = store.len(sequence)? as u64;
        let token = sampler.choose(logits.to_device(&Device::Cpu)?.as_slice::<f32>()?, draw)?;
        if decoder.config().eos == Some(token) {
            return Ok(tokens);
        }
        tokens.push(token);
        if on_token(token).is_break() || tokens.len() == max_new {
            return Ok(tokens);
        }
        logits = decoder.step(store, &[(sequence, token)])?;
    }
}
