//! Text to token ids and back, from a file's metadata or a `tokenizer.json`.
//!
//! Two models: `gpt2`, a byte-level BPE with merges (from metadata with the pre-tokeniser `smollm`: digits one by one, then GPT-2's
//! pattern), and `llama`, a SentencePiece BPE with scores and byte fallback, which only metadata can describe.

mod json;

use crate::{
    Error, Result,
    gguf::{Gguf, Strings},
    json_file,
};
use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    path::Path,
};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper,
    models::bpe::{BPE, Vocab},
    pre_tokenizers::{byte_level::ByteLevel, digits::Digits},
};

/// The space of the `llama` model.
const SPACE: &str = "\u{2581}";

/// Turns text into token ids and back.
pub struct Tokenizer {
    tokens: Strings,
    kinds: Vec<Kind>,
    /// Control tokens by their first byte, longest first.
    special: HashMap<u8, Vec<u32>>,
    model: Model,
    bos: Option<u32>,
    eos: Option<u32>,
}

/// What the file's `token_type` says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ordinary text.
    Text,
    /// Marks a turn, the beginning, the end: no text of its own.
    Control,
    /// One byte, which the `llama` model writes `<0xNN>`.
    Byte(u8),
    /// Stands for what the vocabulary lacks, or for nothing.
    Unused,
}

enum Model {
    ByteLevel(Box<ByteLevelModel>),
    Scored(Box<ScoredModel>),
}

struct ByteLevelModel {
    bpe: BPE,
    /// How a text is split into the pieces within which tokens merge; the last step spells bytes as characters.
    splits: Vec<PreTokenizerWrapper>,
    /// Whether a token stands for the byte alone.
    has_byte: [bool; 256],
}

struct ScoredModel {
    ids: HashMap<String, u32>,
    scores: Vec<f32>,
    bytes: [Option<u32>; 256],
    space_prefix: bool,
}

impl Tokenizer {
    /// The tokenizer that the metadata `tokenizer.ggml.*` describes.
    ///
    /// # Errors
    /// [`Error::Gguf`] for a missing or wrong key, a model or pre-tokeniser that this crate does not know, arrays of different
    /// lengths, a token given twice, merges whose parts or result are no tokens, and ids outside the vocabulary.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        let tokens = gguf.strings(TOKENS)?.clone();
        if tokens.is_empty() || u32::try_from(tokens.len()).is_err() {
            return Err(gguf.error(
                TOKENS,
                format!("1 to {} tokens", u32::MAX),
                tokens.len().to_string(),
            ));
        }
        // The table of ids needs several times the memory of the file's strings, so it comes after the cheap check.
        if let Some((first, second)) = twice(&tokens) {
            let found = format!(
                "token {second} {:?}, which is token {first} too",
                tokens.get(second).unwrap_or_default()
            );
            return Err(gguf.error(TOKENS, "tokens that differ", found));
        }
        let ids: HashMap<String, u32> = tokens.iter().map(str::to_owned).zip(0..).collect();
        let kinds = kinds(gguf, &tokens)?;
        let model = match gguf.string("tokenizer.ggml.model")? {
            "gpt2" => Model::ByteLevel(Box::new(ByteLevelModel::from_gguf(
                gguf, &tokens, &kinds, &ids,
            )?)),
            "llama" => Model::Scored(Box::new(ScoredModel::from_gguf(gguf, &kinds, ids)?)),
            other => {
                return Err(gguf.error(
                    "tokenizer.ggml.model",
                    "\"gpt2\" or \"llama\"",
                    format!("{other:?}"),
                ));
            }
        };
        let id = |key: &str| match gguf.metadata(key) {
            None => Ok(None),
            Some(_) => match gguf.u32(key)? {
                id if (id as usize) < tokens.len() => Ok(Some(id)),
                id => Err(gguf.error(key, format!("an id below {}", tokens.len()), id.to_string())),
            },
        };
        let (bos, eos) = (
            id("tokenizer.ggml.bos_token_id")?,
            id("tokenizer.ggml.eos_token_id")?,
        );

        Ok(Self::assemble(tokens, kinds, model, bos, eos))
    }

    /// Opens a `tokenizer.json`, the form in which Hugging Face's `tokenizers` saves a tokenizer. It names no token that begins or ends a
    /// text; [`Folder::tokenizer`](crate::Folder::tokenizer) takes those from `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that can't be read, or as [`from_json`](Self::from_json).
    pub fn open_json(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = json_file::read(path, json::MAX_LENGTH)?;
        Self::from_json(path.display().to_string(), &text)
    }

    /// The tokenizer that the text of a `tokenizer.json` describes; `name` stands for it in errors. What the file says of templates,
    /// truncation and padding is not followed: nothing is added to a text, and nothing cut.
    ///
    /// # Errors
    /// [`Error::Json`] for anything but a byte-level BPE without normaliser, ids with holes, tokens given twice, merges whose parts or
    /// result are no tokens, and patterns that are no regular expressions.
    pub fn from_json(name: impl Into<String>, text: &str) -> Result<Self> {
        json::tokenizer(name.into(), text)
    }

    /// The same tokenizer with other tokens that begin and end a text.
    pub(crate) fn with_ends(self, bos: Option<u32>, eos: Option<u32>) -> Self {
        Self { bos, eos, ..self }
    }

    fn assemble(
        tokens: Strings,
        kinds: Vec<Kind>,
        model: Model,
        bos: Option<u32>,
        eos: Option<u32>,
    ) -> Self {
        let mut special: HashMap<u8, Vec<u32>> = HashMap::new();
        let spelling = |id: &u32| tokens.get(*id as usize).unwrap_or_default();
        for (id, (token, kind)) in (0..).zip(tokens.iter().zip(&kinds)) {
            if let (Kind::Control, Some(&first)) = (kind, token.as_bytes().first()) {
                special.entry(first).or_default().push(id);
            }
        }
        for ids in special.values_mut() {
            ids.sort_by_key(|id| std::cmp::Reverse(spelling(id).len()));
        }
        Self {
            tokens,
            kinds,
            special,
            model,
            bos,
            eos,
        }
    }

    /// Token ids of a text. Nothing is added before or after, and what looks like a control token is text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the text has a byte for which the vocabulary has no token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.encode_text(text, &mut ids)?;
        Ok(ids)
    }

    /// Token ids of a text in which control tokens, such as `<|im_start|>`, are written out: the longest one wins where several
    /// begin at the same place. For chat templates; never for text that a stranger wrote.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_special(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let candidates = self
                .special
                .get(&text.as_bytes()[at])
                .map_or(&[][..], Vec::as_slice);
            // A token begins with the first byte of a character, so the place where it matches is a character's boundary.
            let mut spellings = candidates
                .iter()
                .filter_map(|&id| Some((id, self.token(id)?)));
            match spellings.find(|(_, token)| text.as_bytes()[at..].starts_with(token.as_bytes())) {
                Some((id, token)) => {
                    self.encode_text(&text[start..at], &mut ids)?;
                    ids.push(id);
                    at += token.len();
                    start = at;
                }
                None => at += 1,
            }
        }
        self.encode_text(&text[start..], &mut ids)?;
        Ok(ids)
    }

    /// The text of token ids. Control tokens have none; bytes that are no UTF-8 become U+FFFD. With the `llama` model the space
    /// that [`encode`](Self::encode) put in front is taken away.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut bytes = Vec::new();
        for &id in ids {
            self.put_piece(id, &mut bytes)?;
        }
        if let Model::Scored(model) = &self.model
            && model.space_prefix
            && bytes.first() == Some(&b' ')
        {
            bytes.remove(0);
        }
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The bytes of one token, for streaming: a character may be spread over several tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an id outside the vocabulary.
    pub fn piece(&self, id: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.put_piece(id, &mut bytes)?;
        Ok(bytes)
    }

    /// The token that begins a text, where the file names one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, where the file names one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// A token as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize)
    }

    fn encode_text(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        match &self.model {
            Model::ByteLevel(model) => model.encode(text, ids),
            Model::Scored(model) => model.encode(text, ids),
        }
    }

    fn put_piece(&self, id: u32, out: &mut Vec<u8>) -> Result<()> {
        let Some((token, kind)) = self
            .tokens
            .get(id as usize)
            .zip(self.kinds.get(id as usize))
        else {
            return Err(Error::Tokenizer {
                operation: "decode",
                expected: format!("ids below {}", self.tokens.len()),
                found: id.to_string(),
            });
        };
        match (kind, &self.model) {
            (Kind::Control | Kind::Unused, _) => {}
            (Kind::Byte(byte), _) => out.push(*byte),
            // A character outside the byte alphabet is no byte's, so it can only stand for itself.
            (Kind::Text, Model::ByteLevel(_)) => {
                token
                    .chars()
                    .for_each(|character| match byte_of(character) {
                        Some(byte) => out.push(byte),
                        None => out.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
                    })
            }
            (Kind::Text, Model::Scored(_)) => out.extend(token.replace(SPACE, " ").as_bytes()),
        }
        Ok(())
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("tokens", &self.tokens.len())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

/// Ids of two equal tokens, where there are any.
fn twice(tokens: &Strings) -> Option<(usize, usize)> {
    let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
    order.sort_unstable_by_key(|&id| (tokens.get(id as usize), id));
    let pair = order
        .windows(2)
        .find(|pair| tokens.get(pair[0] as usize) == tokens.get(pair[1] as usize))?;
    Some((pair[0] as usize, pair[1] as usize))
}

/// Reads `tokenizer.ggml.token_type`; without it every token is text.
fn kinds(gguf: &Gguf, tokens: &Strings) -> Result<Vec<Kind>> {
    const KEY: &str = "tokenizer.ggml.token_type";
    if gguf.metadata(KEY).is_none() {
        return Ok(vec![Kind::Text; tokens.len()]);
    }
    let types = gguf.i32s(KEY)?;
    if types.len() != tokens.len() {
        return Err(gguf.error(
            KEY,
            format!("one type for each of {} tokens", tokens.len()),
            types.len().to_string(),
        ));
    }
    let kind = |(token, &number): (&str, &i32)| match number {
        // Normal, and user-defined.
        1 | 4 => Ok(Kind::Text),
        3 => Ok(Kind::Control),
        // Unknown, and unused.
        2 | 5 => Ok(Kind::Unused),
        6 => match token
            .strip_prefix("<0x")
            .and_then(|rest| rest.strip_suffix('>'))
            // The parser alone would take a sign or a single digit.
            .filter(|hex| hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .map(|hex| u8::from_str_radix(hex, 16))
        {
            Some(Ok(byte)) => Ok(Kind::Byte(byte)),
            _ => Err(gguf.error(KEY, "<0xNN> for a token of type 6", format!("{token:?}"))),
        },
        other => Err(gguf.error(
            KEY,
            "types from 1 to 6",
            format!("{other} for token {token:?}"),
        )),
    };
    tokens.iter().zip(types).map(kind).collect()
}

impl ByteLevelModel {
    fn from_gguf(
        gguf: &Gguf,
        tokens: &Strings,
        kinds: &[Kind],
        ids: &HashMap<String, u32>,
    ) -> Result<Self> {
        const PRE: &str = "tokenizer.ggml.pre";
        const MERGES: &str = "tokenizer.ggml.merges";
        let pre = gguf.string(PRE)?;
        if pre != "smollm" {
            return Err(gguf.error(PRE, "\"smollm\"", format!("{pre:?}")));
        }
        let mut merges = Vec::new();
        for (rank, merge) in gguf.strings(MERGES)?.iter().enumerate() {
            let whole = |left: &str, right: &str| format!("{left}{right}");
            let parts = merge.split_once(' ').filter(|(left, right)| {
                [*left, *right, &whole(left, right)]
                    .iter()
                    .all(|token| ids.contains_key(*token))
                    && !right.contains(' ')
            });
            let Some((left, right)) = parts else {
                let expected = "two tokens with a space between, which together are a token";
                return Err(gguf.error(MERGES, expected, format!("{merge:?} at {rank}")));
            };
            merges.push((left.to_owned(), right.to_owned()));
        }
        let splits = vec![
            Digits::new(true).into(),
            ByteLevel::new(false, true, true).into(),
        ];
        let vocab: Vocab = ids.iter().map(|(token, id)| (token.clone(), *id)).collect();
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .build()
            .map_err(|error| gguf.error(MERGES, "merges of the vocabulary", error.to_string()))?;
        Ok(Self::new(bpe, splits, tokens, kinds))
    }

    fn new(bpe: BPE, splits: Vec<PreTokenizerWrapper>, tokens: &Strings, kinds: &[Kind]) -> Self {
        let mut has_byte = [false; 256];
        let text = tokens
            .iter()
            .zip(kinds)
            .filter(|(_, kind)| **kind == Kind::Text);
        for (token, _) in text {
            let mut characters = token.chars();
            if let (Some(character), None) = (characters.next(), characters.next())
                && let Some(byte) = byte_of(character)
            {
                has_byte[usize::from(byte)] = true;
            }
        }
        Self {
            bpe,
            splits,
            has_byte,
        }
    }

    fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        use tokenizers::Model;
        // The BPE would drop such a byte without a word.
        if let Some(at) = text
            .bytes()
            .position(|byte| !self.has_byte[usize::from(byte)])
        {
            return Err(missing_byte(text, at));
        }
        let fail = |error: tokenizers::Error| Error::Tokenizer {
            operation: "encode",
            expected: "text that the pre-tokeniser can split".into(),
            found: error.to_string(),
        };
        let mut pieces = PreTokenizedString::from(text);
        for split in &self.splits {
            split.pre_tokenize(&mut pieces).map_err(fail)?;
        }
        for (piece, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            ids.extend(
                self.bpe
                    .tokenize(piece)
                    .map_err(fail)?
                    .iter()
                    .map(|token| token.id),
            );
        }
        Ok(())
    }
}

/// The characters of the byte-level alphabet, by byte: printable Latin-1 stands for itself, and U+0100 and what follows for the
/// other bytes in ascending order.
const ALPHABET: [char; 256] = {
    let mut alphabet = ['\0'; 256];
    let (mut byte, mut other) = (0_u8, 0x100_u16);
    loop {
        alphabet[byte as usize] = if is_printable(byte) {
            byte as char
        } else {
            other += 1;
            match char::from_u32(other as u32 - 1) {
                Some(character) => character,
                None => char::REPLACEMENT_CHARACTER,
            }
        };
        if byte == u8::MAX {
            break alphabet;
        }
        byte += 1;
    }
};

const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The character that stands for a byte.
pub(crate) fn character_of(byte: u8) -> char {
    ALPHABET[usize::from(byte)]
}

/// The byte that a character stands for.
fn byte_of(character: char) -> Option<u8> {
    match u8::try_from(character) {
        Ok(byte) => is_printable(byte).then_some(byte),
        Err(_) => ALPHABET
            .iter()
            .position(|&other| other == character)
            .map(|byte| byte as u8),
    }
}

fn missing_byte(text: &str, at: usize) -> Error {
    Error::Tokenizer {
        operation: "encode",
        expected: "bytes that the vocabulary has".into(),
        found: format!("byte {:#04x} at offset {at}", text.as_bytes()[at]),
    }
}

impl ScoredModel {
    fn from_gguf(gguf: &Gguf, kinds: &[Kind], ids: HashMap<String, u32>) -> Result<Self> {
        const SCORES: &str = "tokenizer.ggml.scores";
        const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
        let scores = gguf.f32s(SCORES)?.to_vec();
        if scores.len() != kinds.len() {
            let expected = format!("one score for each of {} tokens", kinds.len());
            return Err(gguf.error(SCORES, expected, scores.len().to_string()));
        }
        if let Some(id) = scores.iter().position(|score| !score.is_finite()) {
            return Err(gguf.error(
                SCORES,
                "finite scores",
                format!("{} for token {id}", scores[id]),
            ));
        }
        let mut bytes = [None; 256];
        for (id, kind) in (0..).zip(kinds) {
            if let Kind::Byte(byte) = kind {
                bytes[usize::from(*byte)] = Some(id);
            }
        }
        let ids = ids
            .into_iter()
            .filter(|(_, id)| kinds[*id as usize] == Kind::Text)
            .collect();
        let space_prefix = gguf
            .metadata(SPACE_PREFIX)
            .map_or(Ok(true), |_| gguf.bool(SPACE_PREFIX))?;
        Ok(Self {
            ids,
            scores,
            bytes,
            space_prefix,
        })
    }

    /// Merges neighbours, the pair whose token has the highest score first and of equals the leftmost, until no pair is a token.
    fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let prefix = if self.space_prefix { SPACE } else { "" };
        let spelled = format!("{prefix}{}", text.replace(' ', SPACE));
        let mut symbols: Vec<Symbol> = Vec::new();
        for (start, character) in spelled.char_indices() {
            let index = symbols.len();
            symbols.push(Symbol {
                start,
                end: start + character.len_utf8(),
                before: index.checked_sub(1),
                after: Some(index + 1),
            });
        }
        if let Some(last) = symbols.last_mut() {
            last.after = None;
        }

        let mut queue = BinaryHeap::new();
        let pair = |symbols: &[Symbol], left: usize| {
            let right = symbols[left].after?;
            let range = symbols[left].start..symbols[right].end;
            let id = *self.ids.get(&spelled[range.clone()])?;
            Some(Pair {
                score: self.scores[id as usize],
                left,
                end: range.end,
            })
        };
        queue.extend((0..symbols.len()).filter_map(|left| pair(&symbols, left)));
        while let Some(Pair { left, end, .. }) = queue.pop() {
            // A pair is stale once one of its symbols has grown or has become part of another.
            let Some(right) = symbols[left]
                .after
                .filter(|&right| symbols[right].end == end)
            else {
                continue;
            };
            symbols[left].end = end;
            symbols[left].after = symbols[right].after.take();
            if let Some(after) = symbols[left].after {
                symbols[after].before = Some(left);
            }
            queue.extend(pair(&symbols, left));
            queue.extend(
                symbols[left]
                    .before
                    .and_then(|before| pair(&symbols, before)),
            );
        }

        let mut next = Some(0);
        while let Some(index) = next {
            let symbol = &symbols[index];
            next = symbol.after;
            let spelling = &spelled[symbol.start..symbol.end];
            if let Some(&id) = self.ids.get(spelling) {
                ids.push(id);
                continue;
            }
            // No merge made this symbol, so it is one character: its bytes as they were before spaces were spelled.
            for (offset, byte) in spelling.bytes().enumerate() {
                match self.bytes[usize::from(byte)] {
                    Some(id) => ids.push(id),
                    None => return Err(missing_byte(&spelled, symbol.start + offset)),
                }
            }
        }
        Ok(())
    }
}

/// A piece of text between its neighbours.
struct Symbol {
    start: usize,
    end: usize,
    before: Option<usize>,
    after: Option<usize>,
}

/// Two neighbours that together are a token.
struct Pair {
    score: f32,
    left: usize,
    end: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then_with(|| (other.left, other.end).cmp(&(self.left, self.end)))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}
