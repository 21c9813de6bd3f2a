//! Passkey retrieval: five digits hidden in a novel, asked for at its end. Recall is not divergence; both are reported.

use whittle_kivi::Prefill;
use whittle_llama::{Decoder, Error, KvStore, Result, Span, Tokenizer, Visible};
use whittle_tensor::random::Philox4x32;

/// Token offset of the novel's part that the passkey hides in; fixed before any configuration was tuned.
const HAYSTACK: usize = 50_000;
/// Depths of the passkey, as shares of the haystack.
pub const DEPTHS: [f64; 5] = [0.1, 0.3, 0.5, 0.7, 0.9];

const INTRODUCTION: &str = "A pass key is hidden in the story below. Remember it; you will be asked for it at the end.\n\n";
const QUESTION: &str =
    "\n\nThe story ends here. What was the pass key of the story?\nThe pass key is ";

/// One passkey at all depths.
pub struct Case {
    introduction: Vec<u32>,
    haystack: Vec<u32>,
    needle: Vec<u32>,
    question: Vec<u32>,
    digits: Vec<u32>,
}

impl Case {
    /// Case `number` of about `tokens` tokens in all.
    ///
    /// # Errors
    /// A novel shorter than the haystack needs, or a vocabulary without single digits.
    pub fn new(tokenizer: &Tokenizer, novel: &[u32], tokens: usize, number: u64) -> Result<Self> {
        let key = 10_000 + Philox4x32::new(number, 0).next_u32() % 90_000;
        let introduction = tokenizer.encode(INTRODUCTION)?;
        let needle = tokenizer.encode(&format!(
            "\n\nThe pass key is {key}. Remember it: {key} is the pass key.\n\n"
        ))?;
        let question = tokenizer.encode(QUESTION)?;
        let digits = tokenizer.encode(&key.to_string())?;
        if digits.len() != 5 {
            return Err(Error::Tokenizer {
                operation: "passkey",
                expected: "one token a digit".into(),
                found: format!("{} tokens for {key}", digits.len()),
            });
        }
        let others = introduction.len() + needle.len() + question.len() + digits.len();
        let haystack = novel
            .get(HAYSTACK..HAYSTACK + tokens.saturating_sub(others))
            .ok_or_else(|| Error::Argument {
                operation: "passkey",
                argument: "text",
                expected: format!("at least {} tokens", HAYSTACK + tokens),
                found: novel.len().to_string(),
            })?;
        Ok(Self {
            introduction,
            haystack: haystack.to_vec(),
            needle,
            question,
            digits,
        })
    }

    /// Whether greedy decoding answers with all five digits, for each of [`DEPTHS`].
    ///
    /// The text before the passkey is the same at all depths, so under [`Prefill::Streaming`] it passes through the decoder once
    /// and each depth goes on from a fork; an exact prefill takes each prompt whole.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn answers(
        &self,
        decoder: &Decoder,
        store: &mut dyn KvStore,
        prefill: Prefill,
    ) -> Result<Vec<bool>> {
        let trunk = store.sequence()?;
        let mut grown = 0;
        let mut answers = vec![];
        for depth in DEPTHS {
            let at = (self.haystack.len() as f64 * depth) as usize;
            let before: Vec<u32> = self
                .introduction
                .iter()
                .chain(&self.haystack[..at])
                .copied()
                .collect();
            let mut rest: Vec<u32> = self
                .needle
                .iter()
                .chain(&self.haystack[at..])
                .chain(&self.question)
                .copied()
                .collect();
            let answered = match prefill {
                Prefill::Streaming => {
                    let spans = [Span {
                        sequence: trunk,
                        tokens: before.len() - grown,
                    }];
                    decoder.forward(store, &spans, &before[grown..], Visible::Causal)?;
                    grown = before.len();
                    // Every query sees what it would see while decoding, so all digits are judged in one pass.
                    let branch = store.fork(trunk)?;
                    rest.extend(&self.digits[..self.digits.len() - 1]);
                    let spans = [Span {
                        sequence: branch,
                        tokens: rest.len(),
                    }];
                    let hidden = decoder.forward(store, &spans, &rest, Visible::Causal)?;
                    let last =
                        hidden.narrow(0, rest.len() - self.digits.len(), self.digits.len())?;
                    store.free(branch)?;
                    decoder.logits(&last)?.argmax(1)?.to_vec::<u32>()?
                }
                Prefill::Exact => {
                    rest.splice(0..0, before);
                    let branch = store.sequence()?;
                    let mut answered = vec![];
                    // Digits that are right so far are what greedy decoding would have fed itself.
                    for tokens in std::iter::once(&rest[..]).chain(self.digits[..4].chunks(1)) {
                        let spans = [Span {
                            sequence: branch,
                            tokens: tokens.len(),
                        }];
                        let hidden = decoder.forward(store, &spans, tokens, Visible::Causal)?;
                        let last = hidden.narrow(0, tokens.len() - 1, 1)?;
                        answered.extend(decoder.logits(&last)?.argmax(1)?.to_vec::<u32>()?);
                    }
                    store.free(branch)?;
                    answered
                }
            };
            answers.push(answered == self.digits);
        }
        store.free(trunk)?;
        Ok(answers)
    }
}

/// Two-sided exact McNemar test of paired answers: the probability of a split at least this uneven among the cases that only one
/// of the two answers, if both were equally good.
pub fn mcnemar(a: &[bool], b: &[bool]) -> f64 {
    let only = |x: &[bool], y: &[bool]| x.iter().zip(y).filter(|(x, y)| **x && !**y).count();
    let (only_a, only_b) = (only(a, b), only(b, a));
    let (n, k) = (only_a + only_b, only_a.min(only_b));
    let mut term = 0.5f64.powi(n as i32);
    let mut tail = 0.0;
    for i in 0..=k {
        tail += term;
        term *= (n - i) as f64 / (i + 1) as f64;
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcnemar_knows_small_cases() {
        assert_eq!(mcnemar(&[true; 4], &[true; 4]), 1.0);
        assert_eq!(mcnemar(&[true; 5], &[false; 5]), 2.0 / 32.0);
        assert_eq!(mcnemar(&[true, false], &[false, true]), 1.0);
    }
}
