//! Passkey retrieval: five digits hidden in a novel, asked for at its end. Recall is not divergence; both are reported.

use whittle_kivi::Prefill;
use whittle_llama::{Decoder, Error, KvStore, Result, SequenceId, Span, Tokenizer, Visible};
use whittle_tensor::Tensor;
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

    /// What comes before the key at a depth; the same for all keys.
    fn before(&self, depth: f64) -> Vec<u32> {
        let at = (self.haystack.len() as f64 * depth) as usize;
        [&self.introduction, &self.haystack[..at]].concat()
    }

    /// The key and what comes behind it at a depth.
    fn rest(&self, depth: f64) -> Vec<u32> {
        let at = (self.haystack.len() as f64 * depth) as usize;
        [&self.needle, &self.haystack[at..], &self.question].concat()
    }

    /// Whether all digits are right, judged in one pass behind a fork: every query sees what it would see while decoding.
    fn answer_at_once(
        &self,
        decoder: &Decoder,
        store: &mut dyn KvStore,
        trunk: SequenceId,
        depth: f64,
    ) -> Result<bool> {
        let branch = store.fork(trunk)?;
        let mut rest = self.rest(depth);
        rest.extend(&self.digits[..self.digits.len() - 1]);
        let hidden = forward(decoder, store, branch, &rest)?;
        let last = hidden.narrow(0, rest.len() - self.digits.len(), self.digits.len())?;
        store.free(branch)?;
        Ok(decoder.logits(&last)?.argmax(1)?.to_vec::<u32>()? == self.digits)
    }

    /// Whether all digits are right after a prefill of the whole prompt.
    fn answer_one_by_one(
        &self,
        decoder: &Decoder,
        store: &mut dyn KvStore,
        depth: f64,
    ) -> Result<bool> {
        let prompt = [self.before(depth), self.rest(depth)].concat();
        let branch = store.sequence()?;
        let mut answered = vec![];
        // Digits that are right so far are what greedy decoding would have fed itself.
        for tokens in std::iter::once(&prompt[..]).chain(self.digits[..4].chunks(1)) {
            let hidden = forward(decoder, store, branch, tokens)?;
            let last = hidden.narrow(0, tokens.len() - 1, 1)?;
            answered.extend(decoder.logits(&last)?.argmax(1)?.to_vec::<u32>()?);
        }
        store.free(branch)?;
        Ok(answered == self.digits)
    }
}

fn forward(
    decoder: &Decoder,
    store: &mut dyn KvStore,
    sequence: SequenceId,
    tokens: &[u32],
) -> Result<Tensor> {
    let spans = [Span {
        sequence,
        tokens: tokens.len(),
    }];
    decoder.forward(store, &spans, tokens, Visible::Causal)
}

/// Whether greedy decoding answers with all five digits: for each case, for each of [`DEPTHS`].
///
/// The text before the key is the same for all keys, and at a depth the beginning of what it is at the next, so under
/// [`Prefill::Streaming`] it passes through the decoder once and each prompt goes on from a fork; an exact prefill takes each
/// prompt whole.
///
/// # Errors
/// As [`Decoder::forward`]; cases of different lengths.
pub fn answers(
    cases: &[Case],
    decoder: &Decoder,
    store: &mut dyn KvStore,
    prefill: Prefill,
) -> Result<Vec<Vec<bool>>> {
    let mut answers = vec![vec![]; cases.len()];
    let trunk = store.sequence()?;
    let mut grown = 0;
    for depth in DEPTHS {
        let before = cases
            .first()
            .map_or_else(Vec::new, |case| case.before(depth));
        if prefill == Prefill::Streaming && grown < before.len() {
            forward(decoder, store, trunk, &before[grown..])?;
            grown = before.len();
        }
        for (case, answers) in cases.iter().zip(&mut answers) {
            answers.push(match prefill {
                Prefill::Streaming if case.before(depth) == before => {
                    case.answer_at_once(decoder, store, trunk, depth)?
                }
                Prefill::Streaming => {
                    return Err(Error::Argument {
                        operation: "passkey",
                        argument: "cases",
                        expected: "the same text before every key".into(),
                        found: "another".into(),
                    });
                }
                Prefill::Exact => case.answer_one_by_one(decoder, store, depth)?,
            });
        }
    }
    store.free(trunk)?;
    Ok(answers)
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
