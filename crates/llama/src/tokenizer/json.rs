//! Tokenizers as Hugging Face writes them: `tokenizer.json`.
//!
//! The typed reader keeps what a byte-level BPE needs, in a few times the memory of the text. What the file asks for beyond that, and
//! would change the tokens of a text, is an error.

use super::{ByteLevelModel, Kind, Model, Tokenizer, twice};
use crate::gguf::Strings;
use crate::json_file::shown;
use crate::{Error, Result};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::{byte_level::ByteLevel, digits::Digits};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

/// Length limit of the file; the largest published ones have about 33 MB.
pub(super) const MAX_LENGTH: u64 = 1 << 26;
/// Tokens of a vocabulary, and twice as many merges; published ones have up to 262,144.
const MAX_TOKENS: usize = 1 << 20;
/// Steps of a pre-tokeniser; published ones have up to four.
const MAX_STEPS: usize = 16;
/// Bytes of a pattern; published ones have about 150.
const MAX_PATTERN: usize = 4096;

/// The file, as far as it is kept.
#[derive(Deserialize)]
struct File {
    added_tokens: Option<AtMost<Added, MAX_TOKENS>>,
    normalizer: Option<Typed>,
    pre_tokenizer: Option<Step>,
    decoder: Option<Typed>,
    model: Bpe,
}

/// A token beside the model's vocabulary, or one of it that is marked.
#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

/// A part of which only the kind is read.
#[derive(Deserialize)]
struct Typed {
    r#type: String,
}

/// A pre-tokeniser: the keys of all kinds that are served.
#[derive(Deserialize)]
struct Step {
    r#type: String,
    pretokenizers: Option<AtMost<Step, MAX_STEPS>>,
    individual_digits: Option<bool>,
    add_prefix_space: Option<bool>,
    use_regex: Option<bool>,
    pattern: Option<SplitPattern>,
    behavior: Option<SplitDelimiterBehavior>,
    invert: Option<bool>,
}

/// A list that ends with an error where it would get longer.
struct AtMost<T, const N: usize>(Vec<T>);

#[derive(Deserialize)]
struct Bpe {
    r#type: Option<String>,
    dropout: Option<f32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    vocab: Option<Ids>,
    merges: Option<Merges>,
}

/// Tokens and their ids, in the order of the file.
#[derive(Default)]
struct Ids {
    tokens: Strings,
    ids: Vec<u32>,
}

/// The left and the right part of each merge, one after the other.
#[derive(Default)]
struct Merges(Strings);

/// Reads a tokenizer; `name` stands for it in errors.
pub(super) fn tokenizer(name: String, text: &str) -> Result<Tokenizer> {
    let error = |field: &str, expected: &str, found: String| Error::Json {
        file: name.clone(),
        field: field.to_owned(),
        expected: expected.to_owned(),
        found,
    };
    if text.len() as u64 > MAX_LENGTH {
        let expected = format!("at most {MAX_LENGTH} bytes");
        return Err(error("text", &expected, text.len().to_string()));
    }
    let file: File = serde_json::from_str(text)
        .map_err(|source| error("text", "a tokenizer with a BPE", source.to_string()))?;
    let refuse =
        |field: &str, expected: &str, found: &str| Err(error(field, expected, shown(found)));
    if let Some(Typed { r#type }) = &file.normalizer {
        return refuse("normalizer", "null", r#type);
    }
    if let Some(Typed { r#type }) = file
        .decoder
        .as_ref()
        .filter(|part| part.r#type != "ByteLevel")
    {
        return refuse("decoder: type", "\"ByteLevel\"", r#type);
    }
    let model = file.model;
    if let Some(other) = model.r#type.as_ref().filter(|kind| *kind != "BPE") {
        return refuse("model: type", "\"BPE\"", other);
    }
    if let Some(dropout) = model.dropout.filter(|dropout| *dropout != 0.0) {
        return Err(error("model: dropout", "null or 0", dropout.to_string()));
    }
    for (key, affix) in [
        (
            "model: continuing_subword_prefix",
            &model.continuing_subword_prefix,
        ),
        ("model: end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
            return refuse(key, "null or empty", affix);
        }
    }
    if model.byte_fallback == Some(true) {
        return Err(error("model: byte_fallback", "false", "true".into()));
    }
    let splits = match &file.pre_tokenizer {
        Some(step) => splits(step).map_err(|problem| {
            error(
                &format!("pre_tokenizer: {}", problem.field),
                &problem.expected,
                problem.found,
            )
        })?,
        None => {
            return Err(error(
                "pre_tokenizer",
                "one that ends with ByteLevel",
                "null".into(),
            ));
        }
    };

    let Ids {
        mut tokens,
        mut ids,
    } = model.vocab.unwrap_or_default();
    let mut control = vec![false; ids.len()];
    for Added {
        id,
        content,
        special,
        single_word,
        lstrip,
        rstrip,
    } in file.added_tokens.into_iter().flat_map(|added| added.0)
    {
        if !special || single_word || lstrip || rstrip {
            let found = match special {
                false => "special: false",
                true => "single_word, lstrip or rstrip",
            };
            let field = format!("added_tokens: {}", shown(&content));
            let expected = "a special token that takes no text around it";
            return Err(error(&field, expected, found.to_owned()));
        }
        tokens.push(&content);
        ids.push(id);
        control.push(true);
    }
    let (tokens, control) = ordered(&tokens, &ids, &control)
        .map_err(|(expected, found)| error("model: vocab", &expected, found))?;
    // The tables of the BPE need several times the memory of the text, so they come after the cheap checks.
    if let Some((first, second)) = twice(&tokens) {
        let token = shown(tokens.get(second).unwrap_or_default());
        let found = format!("token {second} {token}, which is token {first} too");
        return Err(error("model: vocab", "tokens that differ", found));
    }
    let kinds: Vec<Kind> = control
        .iter()
        .map(|&control| if control { Kind::Control } else { Kind::Text })
        .collect();
    // What looks like a control token is text, so none may come out of the model.
    let vocab: Vocab = (0..)
        .zip(tokens.iter().zip(&kinds))
        .filter(|(_, (_, kind))| **kind == Kind::Text)
        .map(|(id, (token, _))| (token.to_owned(), id))
        .collect();
    let merges = merges(&model.merges.unwrap_or_default(), &vocab).map_err(|found| {
        error(
            "model: merges",
            "two tokens that together are a token",
            found,
        )
    })?;
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(model.ignore_merges.unwrap_or(false))
        .build()
        .map_err(|source| {
            error(
                "model: merges",
                "merges of the vocabulary",
                source.to_string(),
            )
        })?;
    let model = ByteLevelModel::new(bpe, splits, &tokens, &kinds);
    let model = Model::ByteLevel(Box::new(model));
    Ok(Tokenizer::assemble(tokens, kinds, model, None, None))
}

/// Tokens in the order of their ids, which begin with 0 and have no holes, and whether each is a control token.
fn ordered(
    tokens: &Strings,
    ids: &[u32],
    control: &[bool],
) -> Result<(Strings, Vec<bool>), (String, String)> {
    let token = |at: u32| tokens.get(at as usize).unwrap_or_default();
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_unstable_by_key(|&at| (ids[at as usize], token(at), control[at as usize]));
    let mut sorted = Strings::default();
    let mut kinds: Vec<bool> = Vec::new();
    for at in order {
        let (id, mark) = (ids[at as usize], control[at as usize]);
        // A token of the vocabulary that is marked beside it stands in both places.
        if let Some(kind @ false) = kinds.last_mut()
            && mark
            && sorted.len() == id as usize + 1
            && sorted.get(id as usize) == Some(token(at))
        {
            *kind = true;
            continue;
        }
        if id as usize != sorted.len() {
            let expected = format!("one token of id {}", sorted.len().min(id as usize));
            let found = format!("{} of id {id}", shown(token(at)));
            return Err((expected, found));
        }
        sorted.push(token(at));
        kinds.push(mark);
    }
    match sorted.is_empty() {
        true => Err(("at least one token".into(), "none".into())),
        false => Ok((sorted, kinds)),
    }
}

/// The merges whose parts and results are all tokens, or else the first other one.
fn merges(merges: &Merges, vocab: &Vocab) -> Result<Vec<(String, String)>, String> {
    let mut checked = Vec::new();
    let mut parts = merges.0.iter();
    while let (Some(left), Some(right)) = (parts.next(), parts.next()) {
        let whole = format!("{left}{right}");
        if ![left, right, &whole]
            .iter()
            .all(|part| vocab.contains_key(*part))
        {
            let (left, right) = (shown(left), shown(right));
            return Err(format!("{left} and {right} at {}", checked.len()));
        }
        checked.push((left.to_owned(), right.to_owned()));
    }
    Ok(checked)
}

/// What is wrong with a pre-tokeniser.
struct Problem {
    field: &'static str,
    expected: String,
    found: String,
}

fn problem(field: &'static str, expected: &str, found: &str) -> Problem {
    Problem {
        field,
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

/// The steps of a pre-tokeniser, of which the last has to be `ByteLevel`: before it a text is text, after it characters are bytes.
fn splits(root: &Step) -> Result<Vec<PreTokenizerWrapper>, Problem> {
    let steps = match (&*root.r#type, &root.pretokenizers) {
        ("Sequence", Some(steps)) => &steps.0[..],
        _ => std::slice::from_ref(root),
    };
    let mut splits = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let last = i + 1 == steps.len();
        splits.push(match (&*step.r#type, last) {
            ("ByteLevel", true) => {
                if step.add_prefix_space != Some(false) {
                    return Err(problem("add_prefix_space", "false", "true"));
                }
                ByteLevel::new(false, true, step.use_regex.unwrap_or(true)).into()
            }
            ("Digits", false) => Digits::new(step.individual_digits.unwrap_or(false)).into(),
            ("Split", false) => split(step)?.into(),
            (other, _) => {
                let expected = "Split or Digits before a last ByteLevel";
                return Err(problem("type", expected, &shown(other)));
            }
        });
    }
    match splits.is_empty() {
        true => Err(problem("pretokenizers", "ByteLevel", "none")),
        false => Ok(splits),
    }
}

fn split(step: &Step) -> Result<Split, Problem> {
    let (pattern, text) = match &step.pattern {
        Some(pattern @ (SplitPattern::Regex(text) | SplitPattern::String(text))) => (pattern, text),
        None => return Err(problem("pattern", "a pattern", "none")),
    };
    if text.len() > MAX_PATTERN {
        let expected = format!("at most {MAX_PATTERN} bytes");
        return Err(problem("pattern", &expected, &text.len().to_string()));
    }
    let behavior = match step.behavior {
        Some(SplitDelimiterBehavior::Removed) | None => {
            let expected = "a behaviour that keeps all text";
            return Err(problem("behavior", expected, "Removed or none"));
        }
        Some(behavior) => behavior,
    };
    Split::new(pattern.clone(), behavior, step.invert.unwrap_or(false)).map_err(|source| {
        let found = source.to_string();
        problem("pattern", "a regular expression", &shown(&found))
    })
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for AtMost<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Elements<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
            type Value = AtMost<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {N}")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut sequence: A,
            ) -> std::result::Result<AtMost<T, N>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = sequence.next_element()? {
                    if elements.len() == N {
                        return Err(de::Error::invalid_length(N + 1, &self));
                    }
                    elements.push(element);
                }
                Ok(AtMost(elements))
            }
        }
        deserializer.deserialize_seq(Elements::<T, N>(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ids;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of at most {MAX_TOKENS} ids")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Ids, A::Error> {
                let mut vocab = Ids::default();
                while let Some((token, id)) = map.next_entry::<String, u32>()? {
                    if vocab.ids.len() == MAX_TOKENS {
                        return Err(de::Error::invalid_length(MAX_TOKENS + 1, &self));
                    }
                    vocab.tokens.push(&token);
                    vocab.ids.push(id);
                }
                Ok(vocab)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {} merges", 2 * MAX_TOKENS)
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut sequence: A,
            ) -> std::result::Result<Merges, A::Error> {
                let mut merges = Strings::default();
                while let Some(Merge(left, right)) = sequence.next_element()? {
                    if merges.len() == 4 * MAX_TOKENS {
                        return Err(de::Error::invalid_length(2 * MAX_TOKENS + 1, &self));
                    }
                    merges.push(&left);
                    merges.push(&right);
                }
                Ok(Merges(merges))
            }
        }
        deserializer.deserialize_seq(Pairs)
    }
}

/// One merge, in either of the two forms that are in use: `"a b"` and `["a", "b"]`.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens, with one space between or in an array")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Merge, E> {
                match text
                    .split_once(' ')
                    .filter(|(_, right)| !right.contains(' '))
                {
                    Some((left, right)) => Ok(Merge(left.to_owned(), right.to_owned())),
                    None => Err(E::invalid_value(
                        de::Unexpected::Other("another text"),
                        &self,
                    )),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut sequence: A,
            ) -> std::result::Result<Merge, A::Error> {
                let mut part = |at| {
                    let part = sequence.next_element::<String>()?;
                    part.ok_or_else(|| de::Error::invalid_length(at, &Either))
                };
                let merge = Merge(part(0)?, part(1)?);
                match sequence.next_element::<de::IgnoredAny>()? {
                    Some(_) => Err(de::Error::invalid_length(3, &self)),
                    None => Ok(merge),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}
