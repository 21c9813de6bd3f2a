//! `tokenizer.json`: the tokens of the GGUF file and of the crate that defines the format, and errors for bad files.

use crate::model::{Temporary, both};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs;
use whittle_llama::gguf::GgmlType;
use whittle_llama::{Error, Folder, Gguf, Tokenizer, tiny};
use whittle_tests::data;

const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const GOLDEN: &str = "smollm2_golden/tokenizer.json";

/// The pattern of Llama 3: words with up to one character before them, numbers of up to three digits, marks, spaces.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn sequence(steps: &[Value]) -> Value {
    json!({"type": "Sequence", "pretokenizers": steps})
}

fn split(pattern: Value, behavior: &str) -> Value {
    json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": false})
}

/// Pre-tokenisers in the ways of SmolLM, GPT-2, Llama 3, and some that nobody published.
fn splits() -> [Value; 6] {
    [
        sequence(&[
            json!({"type": "Digits", "individual_digits": true}),
            byte_level(true),
        ]),
        byte_level(true),
        sequence(&[
            split(json!({"Regex": LLAMA3}), "Isolated"),
            byte_level(false),
        ]),
        sequence(&[
            split(json!({"String": "e"}), "MergedWithPrevious"),
            byte_level(true),
        ]),
        sequence(&[
            split(json!({"Regex": "[aeiou]"}), "MergedWithNext"),
            json!({"type": "Digits", "individual_digits": false}),
            byte_level(false),
        ]),
        byte_level(false),
    ]
}

/// The tiny model's vocabulary in Hugging Face's form.
fn tiny_json() -> Value {
    let gguf = Gguf::from_bytes("tiny.gguf", tiny::gguf(5)).unwrap();
    let tokens = gguf.strings("tokenizer.ggml.tokens").unwrap();
    let types = gguf.i32s("tokenizer.ggml.token_type").unwrap();
    let vocab: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.to_owned(), id.into()))
        .collect();
    let added: Vec<Value> = tokens
        .iter()
        .zip(types)
        .enumerate()
        .filter(|(_, (_, kind))| **kind == 3)
        .map(|(id, (token, _))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let merges: Vec<&str> = gguf
        .strings("tokenizer.ggml.merges")
        .unwrap()
        .iter()
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": splits()[0],
        "post_processor": null,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges,
        },
    })
}

fn read(json: &Value) -> whittle_llama::Result<Tokenizer> {
    Tokenizer::from_json("tokenizer.json", &json.to_string())
}

/// The tokens that the defining crate gives.
fn reference(json: &Value) -> tokenizers::Tokenizer {
    json.to_string().parse().unwrap()
}

#[test]
fn wikitext_has_the_tokens_of_the_gguf_file_and_of_the_defining_crate() {
    let test = "wikitext_has_the_tokens_of_the_gguf_file_and_of_the_defining_crate";
    let (Some(gguf), Some(file)) = (data(test, SMOLLM2), data(test, GOLDEN)) else {
        return;
    };
    let expected = Tokenizer::from_gguf(&Gguf::open(gguf).unwrap()).unwrap();
    let found = Tokenizer::open_json(&file).unwrap();
    assert_eq!(found.vocab_size(), expected.vocab_size());
    for id in 0..found.vocab_size() as u32 {
        assert_eq!(found.token(id), expected.token(id));
        assert_eq!(
            found.piece(id).unwrap(),
            expected.piece(id).unwrap(),
            "{id}"
        );
    }
    assert_eq!((found.bos(), found.eos()), (None, None));
    let whole: tokenizers::Tokenizer = fs::read_to_string(&file).unwrap().parse().unwrap();
    if let Some(text) = data(test, "wikitext2/test.txt") {
        let text = fs::read_to_string(text).unwrap();
        let ids = found.encode(&text).unwrap();
        assert!(ids.len() > 200_000);
        assert!(ids == expected.encode(&text).unwrap());
        assert_eq!(found.decode(&ids).unwrap(), text);
        // The defining crate is slow on a text in one piece, and slower than the others on all of it.
        for text in text.split_inclusive(" = = \n").take(200) {
            let whole = whole.encode(text, false).unwrap();
            assert!(found.encode(text).unwrap() == whole.get_ids(), "{text}");
        }
        println!("WikiText-2: {} equal tokens", ids.len());
    }
    let turn = "<|im_start|>user\nHi 12<|im_end|>\n";
    let special = found.encode_special(turn).unwrap();
    assert_eq!(special, expected.encode_special(turn).unwrap());
    assert_eq!(special, whole.encode(turn, false).unwrap().get_ids());
    assert_eq!(found.encode(turn).unwrap(), expected.encode(turn).unwrap());
    assert_eq!(found.decode(&special).unwrap(), "user\nHi 12\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_has_the_tokens_of_the_defining_crate(texts in prop::collection::vec(prop_oneof![".{0,60}", "[ a-z0-9'\n]{0,80}", "(the|and|ing| to| of|\u{1f600}|é| ){0,30}"], 1..20)) {
        for (i, splits) in splits().into_iter().enumerate() {
            let mut json = tiny_json();
            json["pre_tokenizer"] = splits;
            json["model"]["ignore_merges"] = json!(i % 2 == 1);
            let (found, expected) = (read(&json).unwrap(), reference(&json));
            for text in texts.iter().filter(|text| !text.contains("<|")) {
                let ids = found.encode(text).unwrap();
                let expected = expected.encode(&**text, false).unwrap();
                prop_assert_eq!(&ids[..], expected.get_ids(), "{:?} {}", text, i);
                prop_assert_eq!(&found.decode(&ids).unwrap(), text);
            }
        }
    }

    /// A good file with some bytes changed.
    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<usize>(), 32_u8..127), 1..5)) {
        let mut bytes = tiny_json().to_string().into_bytes();
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(tokenizer) = Tokenizer::from_json("flipped", &text)
            && let Ok(ids) = tokenizer.encode("the end, in 1872\n")
        {
            tokenizer.decode(&ids).unwrap();
        }
    }
}

#[test]
fn merges_have_two_forms() {
    let mut json = tiny_json();
    let found = read(&json).unwrap();
    let merges = json["model"]["merges"].as_array().unwrap();
    let pairs: Vec<Value> = merges
        .iter()
        .map(|merge| json!(merge.as_str().unwrap().split(' ').collect::<Vec<_>>()))
        .collect();
    json["model"]["merges"] = json!(pairs);
    let pairs = read(&json).unwrap();
    let text = "the rain and the other thing";
    let ids = found.encode(text).unwrap();
    assert_eq!(ids, pairs.encode(text).unwrap());
    assert!(ids.len() < text.len());
    let gguf = Gguf::from_bytes("tiny.gguf", tiny::gguf(5)).unwrap();
    let expected = Tokenizer::from_gguf(&gguf).unwrap();
    assert_eq!(ids, expected.encode(text).unwrap());
}

#[test]
fn tokens_beside_the_vocabulary_are_control_tokens() {
    let mut json = tiny_json();
    let added = json["added_tokens"].as_array_mut().unwrap();
    // One of a higher id, as Llama 3 has them.
    let mut last = added[0].clone();
    last["id"] = json!(tiny::VOCAB);
    last["content"] = json!("<|eot_id|>");
    added.push(last);
    let found = read(&json).unwrap();
    assert_eq!(found.vocab_size(), tiny::VOCAB + 1);
    let ids = found.encode_special("a<|eot_id|><|im_end|>").unwrap();
    assert_eq!(ids[1..], [tiny::VOCAB as u32, 2]);
    assert_eq!(
        ids,
        reference(&json)
            .encode("a<|eot_id|><|im_end|>", false)
            .unwrap()
            .get_ids()
    );
    assert!(
        !found
            .encode("a<|eot_id|>")
            .unwrap()
            .contains(&(tiny::VOCAB as u32))
    );
}

/// A word that is spelled like a control token is text, even where whole words are looked up.
#[test]
fn no_control_token_comes_out_of_text() {
    let mut json = tiny_json();
    json["model"]["ignore_merges"] = json!(true);
    json["pre_tokenizer"] = byte_level(false);
    for text in ["<|im_start|>", "<|im_end|>", "<|endoftext|>"] {
        let ids = read(&json).unwrap().encode(text).unwrap();
        assert!(ids.iter().all(|&id| id > 2), "{text}: {ids:?}");
    }
}

#[test]
fn a_folders_tokenizer_knows_where_texts_begin_and_end() {
    let temporary = Temporary::new("tokenizer");
    let (_, model) = both(GgmlType::BF16, true);
    model.write(&temporary.0, 1);
    let folder = Folder::open(&temporary.0).unwrap();
    let error = folder.tokenizer().unwrap_err();
    assert!(matches!(
        error,
        Error::Io {
            operation: "open",
            ..
        }
    ));
    let path = temporary.0.join("tokenizer.json");
    fs::write(&path, tiny_json().to_string()).unwrap();
    let tokenizer = folder.tokenizer().unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), Some(2)));
    let mut json = tiny_json();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    vocab.insert("one more".into(), tiny::VOCAB.into());
    fs::write(&path, json.to_string()).unwrap();
    let error = folder.tokenizer().unwrap_err().to_string();
    let words = format!(
        "tokenizer.json: model: vocab: expected at most the {} tokens of the model, found {}",
        tiny::VOCAB,
        tiny::VOCAB + 1
    );
    assert!(error.ends_with(&words), "{error}");
}

#[test]
fn files_that_would_give_other_tokens_are_errors_that_name_the_key() {
    let good = tiny_json();
    let with = |path: &str, value: Value| {
        let mut json = good.clone();
        *json.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        json
    };
    let bad = [
        (
            with("/normalizer", json!({"type": "NFC"})),
            "normalizer: expected null, found \"NFC\"",
        ),
        (
            with("/decoder", json!({"type": "WordPiece"})),
            "decoder: type: expected \"ByteLevel\", found \"WordPiece\"",
        ),
        (
            with("/pre_tokenizer", json!(null)),
            "pre_tokenizer: expected one that ends with ByteLevel, found null",
        ),
        (
            with("/pre_tokenizer", json!({"type": "BertPreTokenizer"})),
            "pre_tokenizer: type: expected Split or Digits before a last ByteLevel, found \"BertPreTokenizer\"",
        ),
        (
            with("/pre_tokenizer", json!({"type": "Sequence"})),
            "pre_tokenizer: type",
        ),
        (
            with("/pre_tokenizer", sequence(&[])),
            "pre_tokenizer: pretokenizers: expected ByteLevel, found none",
        ),
        (
            with(
                "/pre_tokenizer",
                sequence(&[byte_level(true), byte_level(true)]),
            ),
            "pre_tokenizer: type",
        ),
        (
            with("/pre_tokenizer", sequence(&[sequence(&[byte_level(true)])])),
            "pre_tokenizer: type",
        ),
        (
            with(
                "/pre_tokenizer",
                json!({"type": "ByteLevel", "add_prefix_space": true}),
            ),
            "pre_tokenizer: add_prefix_space: expected false, found true",
        ),
        (
            with(
                "/pre_tokenizer",
                sequence(&[split(json!({"Regex": "("}), "Isolated"), byte_level(false)]),
            ),
            "pre_tokenizer: pattern: expected a regular expression",
        ),
        (
            with(
                "/pre_tokenizer",
                sequence(&[
                    split(json!({"Regex": "a".repeat(5000)}), "Isolated"),
                    byte_level(false),
                ]),
            ),
            "pre_tokenizer: pattern: expected at most 4096 bytes, found 5000",
        ),
        (
            with(
                "/pre_tokenizer",
                sequence(&[split(json!({"String": " "}), "Removed"), byte_level(false)]),
            ),
            "pre_tokenizer: behavior",
        ),
        (
            with(
                "/pre_tokenizer",
                sequence(&vec![json!({"type": "Digits"}); 17]),
            ),
            "text: expected a tokenizer with a BPE, found invalid length 17",
        ),
        (
            with("/model/type", json!("Unigram")),
            "model: type: expected \"BPE\", found \"Unigram\"",
        ),
        (
            with("/model/dropout", json!(0.5)),
            "model: dropout: expected null or 0, found 0.5",
        ),
        (
            with("/model/continuing_subword_prefix", json!("##")),
            "model: continuing_subword_prefix",
        ),
        (
            with("/model/end_of_word_suffix", json!("</w>")),
            "model: end_of_word_suffix",
        ),
        (
            with("/model/byte_fallback", json!(true)),
            "model: byte_fallback: expected false, found true",
        ),
        (
            with("/model/vocab", json!({})),
            "model: merges: expected two tokens",
        ),
        (
            with("/model/vocab", json!([])),
            "text: expected a tokenizer with a BPE, found invalid type: sequence",
        ),
        (
            with("/model/vocab/a", json!(-1)),
            "text: expected a tokenizer with a BPE, found invalid value",
        ),
        (
            with("/model/vocab/a", json!(u32::MAX)),
            "model: vocab: expected one token of id",
        ),
        (
            with("/model/vocab/a", json!(70)),
            "model: vocab: expected one token of id",
        ),
        (
            with("/model/merges/3", json!("a")),
            "found invalid value: another text, expected two tokens",
        ),
        (
            with("/model/merges/3", json!("a b c")),
            "found invalid value: another text, expected two tokens",
        ),
        (
            with("/model/merges/3", json!(["a"])),
            "found invalid length 1",
        ),
        (
            with("/model/merges/3", json!(["a", "b", "c"])),
            "found invalid length 3",
        ),
        (
            with("/model/merges/3", json!("q q")),
            "model: merges: expected two tokens that together are a token, found \"q\" and \"q\" at 3",
        ),
        (
            with("/model/merges/3", json!("qq q")),
            "model: merges: expected two tokens",
        ),
        (
            with("/added_tokens/0/special", json!(false)),
            "added_tokens: \"<|endoftext|>\": expected a special token that takes no text around it, found special: false",
        ),
        (
            with("/added_tokens/0/lstrip", json!(true)),
            "added_tokens: \"<|endoftext|>\"",
        ),
        (
            with("/added_tokens/0/content", json!("a")),
            "model: vocab: expected one token of id",
        ),
        (
            with("/added_tokens/0/id", json!(tiny::VOCAB)),
            "model: vocab: expected tokens that differ",
        ),
        (json!([]), "text: expected a tokenizer with a BPE, found"),
        (json!({}), "missing field `model`"),
        (
            json!({"pre_tokenizer": byte_level(true), "model": {}}),
            "model: vocab: expected at least one token, found none",
        ),
    ];
    for (json, words) in bad {
        let error = read(&json).expect_err(words);
        assert!(matches!(error, Error::Json { .. }), "{error}");
        let error = error.to_string();
        assert!(error.starts_with("tokenizer.json: "), "{error}");
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_tokenizer_of_another_kind_is_an_error_that_names_the_key() {
    let wordpiece = json!({
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "a": 1}},
    });
    let error = read(&wordpiece).unwrap_err().to_string();
    assert_eq!(
        error,
        "tokenizer.json: normalizer: expected null, found \"BertNormalizer\""
    );
}

#[test]
fn a_byte_without_a_token_is_an_error() {
    let mut json = tiny_json();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    // Its id goes to another token.
    let id = vocab.remove("q").unwrap();
    vocab.insert("qqq".into(), id);
    let error = read(&json).unwrap().encode("a quick").unwrap_err();
    assert_eq!(
        error.to_string(),
        "encode: expected bytes that the vocabulary has, found byte 0x71 at offset 2"
    );
}
