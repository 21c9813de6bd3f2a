//! A model as a Hugging Face folder: `config.json`, `model.safetensors` or its shards, `tokenizer.json`.

use crate::gguf::TensorView;
use crate::json_file::{self, JsonFile};
use crate::{Config, Error, Result, Safetensors, Tokenizer};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use whittle_tensor::Pairing;

/// Length limit of `model.safetensors.index.json`; the largest published ones have about 10 MiB.
const MAX_INDEX: u64 = 1 << 24;
/// Files that an index may name.
const MAX_SHARDS: usize = 1024;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const INDEX: &str = "model.safetensors.index.json";

/// An open folder: the sizes of the model, and its weights behind memory maps.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    config: Config,
    tied: bool,
    bos: Option<u32>,
    shards: Vec<Safetensors>,
    /// The shard of each tensor.
    places: BTreeMap<String, usize>,
}

impl Folder {
    /// Opens and checks the folder of a model of type `llama` with weights in F32, F16 or BF16.
    ///
    /// The weights are those of `model.safetensors` or, where there is none, of the files that `model.safetensors.index.json` names. As
    /// with [`Safetensors::open`], nobody may shorten them while the folder is open.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that is missing or can't be read, [`Error::Json`] for a `config.json` or an index that this crate can't
    /// serve, [`Error::Safetensors`] for bad contents of the others.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let json = JsonFile::read(&path.join(CONFIG))?;
        let config = config_of(&json)?;
        let tied = tied(&json)?;
        let bos = token(&json, "bos_token_id", config.vocab)?;
        let single = path.join(WEIGHTS);
        let (shards, places) = if single.exists() || !path.join(INDEX).exists() {
            let shard = Safetensors::open(single)?;
            let places = shard
                .tensors()
                .map(|entry| (entry.name.clone(), 0))
                .collect();
            (vec![shard], places)
        } else {
            shards(path)?
        };
        Ok(Self {
            path: path.to_owned(),
            config,
            tied,
            bos,
            shards,
            places,
        })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sizes and constants, as `config.json` gives them. The pairing is [`Pairing::Interleaved`]: the folder's query and key rows are
    /// in the order for half-split pairs, and a [`Decoder`](crate::Decoder) takes them in the order of GGUF files. Of several tokens
    /// that may end a text, `eos` is the first.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the embedding serves as output matrix too.
    pub fn tied(&self) -> bool {
        self.tied
    }

    /// The token that begins a text, where `config.json` names one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokenizer that `tokenizer.json` describes, with the tokens that begin and end a text from `config.json`.
    ///
    /// # Errors
    /// As [`Tokenizer::open_json`], and [`Error::Json`] where it has more tokens than the model.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let path = self.path.join(TOKENIZER);
        let tokenizer = Tokenizer::open_json(&path)?;
        // Models often have rows for tokens that do not exist, never tokens without a row.
        if tokenizer.vocab_size() > self.config.vocab {
            return Err(Error::Json {
                file: path.display().to_string(),
                field: "model: vocab".into(),
                expected: format!("at most the {} tokens of the model", self.config.vocab),
                found: tokenizer.vocab_size().to_string(),
            });
        }
        let known = |id: &u32| (*id as usize) < tokenizer.vocab_size();
        let (bos, eos) = (self.bos.filter(known), self.config.eos.filter(known));
        Ok(tokenizer.with_ends(bos, eos))
    }

    /// Names of all tensors, in byte order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::Safetensors`] where there is none, or as [`Safetensors::tensor`].
    pub fn tensor(&self, name: &str) -> Result<TensorView> {
        match self.places.get(name) {
            Some(&shard) => self.shards[shard].tensor(name),
            None => Err(self.error(format!("tensor {name:?}"), "a tensor", "none")),
        }
    }

    /// An error about the weights of this folder.
    pub(crate) fn error(
        &self,
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::Safetensors {
            file: self.path.display().to_string(),
            field: field.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// What the index says, as it is written. A typed reader keeps nothing else, however much the file may hold.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens the files that the index names, and checks that each has the tensors which the index puts there and no others.
fn shards(folder: &Path) -> Result<(Vec<Safetensors>, BTreeMap<String, usize>)> {
    let path = folder.join(INDEX);
    let text = json_file::read(&path, MAX_INDEX)?;
    let error = |field: &str, expected: String, found: String| Error::Json {
        file: path.display().to_string(),
        field: field.to_owned(),
        expected,
        found,
    };
    let Index { weight_map: map } = serde_json::from_str(&text).map_err(|source| {
        let expected = "an object whose weight_map gives each tensor a file name";
        error("text", expected.into(), source.to_string())
    })?;
    let field = |tensor: &str| format!("weight_map: {tensor:?}");
    let mut names = BTreeSet::new();
    for (tensor, name) in &map {
        // A name with a path in it could lead anywhere.
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !plain || name.starts_with('.') || !name.ends_with(".safetensors") {
            let expected = "a file of this folder, of letters, digits, '-', '_' and '.', that ends with .safetensors";
            return Err(error(&field(tensor), expected.into(), format!("{name:?}")));
        }
        names.insert(name.as_str());
    }
    if names.is_empty() || names.len() > MAX_SHARDS {
        let expected = format!("1 to {MAX_SHARDS} files");
        return Err(error("weight_map", expected, names.len().to_string()));
    }
    let mut shards = Vec::new();
    let mut places = BTreeMap::new();
    for name in names {
        let shard = Safetensors::open(folder.join(name))?;
        for entry in shard.tensors() {
            if map.get(&entry.name).map(String::as_str) != Some(name) {
                let found = map
                    .get(&entry.name)
                    .map_or("no entry".into(), |other| format!("{other:?}"));
                let expected = format!("{name:?}, which has the tensor");
                return Err(error(&field(&entry.name), expected, found));
            }
            places.insert(entry.name.clone(), shards.len());
        }
        shards.push(shard);
    }
    match map.iter().find(|(name, _)| !places.contains_key(*name)) {
        Some((name, file)) => Err(error(
            &field(name),
            "a file that has the tensor".into(),
            format!("{file:?}"),
        )),
        None => Ok((shards, places)),
    }
}

/// A token, or the first of several.
fn token(json: &JsonFile, key: &str, vocab: usize) -> Result<Option<u32>> {
    let first = match json.get(key) {
        None => return Ok(None),
        Some(Value::Array(tokens)) if tokens.is_empty() => return Ok(None),
        Some(Value::Array(tokens)) => &tokens[0],
        Some(token) => token,
    };
    match first.as_u64().and_then(|token| u32::try_from(token).ok()) {
        Some(token) if (token as usize) < vocab => Ok(Some(token)),
        _ => Err(json.mismatch(key, format!("a token below {vocab}"), Some(first))),
    }
}

/// Whether the embedding serves as output too; published models of this type say so where it does.
fn tied(json: &JsonFile) -> Result<bool> {
    match json.get("tie_word_embeddings") {
        None => Ok(false),
        Some(Value::Bool(tied)) => Ok(*tied),
        other => Err(json.mismatch("tie_word_embeddings", "a truth value", other)),
    }
}

/// The model that `config.json` describes.
fn config_of(json: &JsonFile) -> Result<Config> {
    if json.get("model_type") != Some(&Value::from("llama")) {
        return Err(json.mismatch("model_type", "\"llama\"", json.raw("model_type")));
    }
    // What would make it another model.
    json.only("hidden_act", "silu")?;
    json.only("attention_bias", false)?;
    json.only("mlp_bias", false)?;
    json.only("rope_interleaved", false)?;
    if let Some(part) = json.get("partial_rotary_factor")
        && part.as_f64() != Some(1.0)
    {
        return Err(json.mismatch("partial_rotary_factor", "1", Some(part)));
    }
    for key in ["rope_scaling", "quantization_config", "sliding_window"] {
        if let Some(found) = json.get(key) {
            return Err(json.mismatch(key, "null", Some(found)));
        }
    }
    let width = json.size("hidden_size")?;
    let query_heads = json.size("num_attention_heads")?;
    let kv_heads = json.size_or("num_key_value_heads", query_heads)?;
    if !query_heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of the {query_heads} query heads");
        return Err(json.error("num_key_value_heads", expected, kv_heads.to_string()));
    }
    let head_dim = match json.get("head_dim") {
        Some(_) => json.size("head_dim")?,
        None if width.is_multiple_of(query_heads) => width / query_heads,
        None => {
            let expected = format!("a divisor of the width {width}");
            return Err(json.error("num_attention_heads", expected, query_heads.to_string()));
        }
    };
    if !head_dim.is_multiple_of(2) {
        return Err(json.error("head_dim", "an even number", head_dim.to_string()));
    }
    let norm_eps = json.number("rms_norm_eps")?;
    if norm_eps < 0.0 {
        return Err(json.error("rms_norm_eps", "at least 0", norm_eps.to_string()));
    }
    let rope_base = match (json.get("rope_parameters"), json.get("rope_theta")) {
        // The newer form of the same keys.
        (Some(rope), _) => {
            let kind = rope.get("rope_type").filter(|kind| !kind.is_null());
            if kind.is_some_and(|kind| kind != "default") {
                return Err(json.mismatch("rope_parameters: rope_type", "\"default\"", kind));
            }
            json.finite("rope_parameters: rope_theta", rope.get("rope_theta"))?
        }
        (None, None) => 10_000.0,
        (None, theta) => json.finite("rope_theta", theta)?,
    };
    if rope_base <= 0.0 {
        return Err(json.error("rope_theta", "above 0", rope_base.to_string()));
    }
    let vocab = json.size("vocab_size")?;
    Ok(Config {
        layers: json.size("num_hidden_layers")?,
        width,
        feed_forward: json.size("intermediate_size")?,
        query_heads,
        kv_heads,
        head_dim,
        vocab,
        context: json.size("max_position_embeddings")?,
        rope_base,
        pairing: Pairing::Interleaved,
        norm_eps,
        eos: token(json, "eos_token_id", vocab)?,
    })
}
