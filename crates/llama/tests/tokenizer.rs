//! The tokenizer against published vocabularies, and against bad ones.

use proptest::prelude::*;
use std::fs;
use whittle_llama::{
    Error, Gguf, Tokenizer,
    gguf::{Strings, Value, write::Writer},
};
use whittle_tests::data;

fn open(test: &str, file: &str) -> Option<Tokenizer> {
    let gguf = Gguf::open(data(test, file)?).unwrap();
    Some(Tokenizer::from_gguf(&gguf).unwrap())
}

const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const STORIES: &str = "stories260K.gguf";

#[test]
fn wikitext_gives_the_golden_tokens() {
    let test = "wikitext_gives_the_golden_tokens";
    let Some(tokenizer) = open(test, SMOLLM2) else {
        return;
    };
    let Some(text) = data(test, "wikitext2/test.txt") else {
        return;
    };
    let Some(golden) = data(test, "smollm2_golden/wikitext2_test_first8192.u16") else {
        return;
    };
    let text: String = fs::read_to_string(text)
        .unwrap()
        .chars()
        .take(60_000)
        .collect();
    let golden = fs::read(golden).unwrap();
    let (golden, _) = golden.as_chunks();
    let golden: Vec<u32> = golden
        .iter()
        .map(|&word| u32::from(u16::from_le_bytes(word)))
        .collect();
    assert_eq!(golden.len(), 8192);
    assert_eq!(tokenizer.encode(&text).unwrap()[..8192], golden);
}

#[test]
fn the_golden_prompt_gives_the_golden_ids() {
    let test = "the_golden_prompt_gives_the_golden_ids";
    let Some(tokenizer) = open(test, SMOLLM2) else {
        return;
    };
    let ids = [504, 3575, 282, 4649, 314];
    assert_eq!(tokenizer.encode("The capital of France is").unwrap(), ids);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "The capital of France is");
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    assert_eq!(tokenizer.vocab_size(), 49_152);
}

/// A whole book: line ends become LF, the byte order mark at its start stays.
#[test]
fn a_book_has_its_known_number_of_tokens_and_comes_back() {
    let test = "a_book_has_its_known_number_of_tokens_and_comes_back";
    let Some(tokenizer) = open(test, SMOLLM2) else {
        return;
    };
    let Some(book) = data(test, "eighty.txt") else {
        return;
    };
    let book = fs::read_to_string(book).unwrap().replace("\r\n", "\n");
    assert!(book.starts_with('\u{feff}'));
    let ids = tokenizer.encode(&book).unwrap();
    assert_eq!(ids.len(), 101_752);
    assert_eq!(tokenizer.decode(&ids).unwrap(), book);
}

#[test]
fn control_tokens_are_parsed_only_where_asked_for() {
    let Some(tokenizer) = open("control_tokens_are_parsed_only_where_asked_for", SMOLLM2) else {
        return;
    };
    let turn = "<|im_start|>user\nHi<|im_end|>\n";
    let parsed = tokenizer.encode_special(turn).unwrap();
    assert_eq!(parsed[0], 1);
    assert_eq!(parsed[parsed.len() - 2], 2);
    assert_eq!(
        parsed[1..parsed.len() - 2],
        tokenizer.encode("user\nHi").unwrap()
    );
    let text = tokenizer.encode(turn).unwrap();
    assert!(
        text.iter().all(|&id| id > 16),
        "a control token came out of plain text"
    );
    assert_eq!(tokenizer.decode(&text).unwrap(), turn);
    // Control tokens have no text of their own.
    assert_eq!(tokenizer.decode(&parsed).unwrap(), "user\nHi\n");
}

#[test]
fn digits_stand_alone() {
    let Some(tokenizer) = open("digits_stand_alone", SMOLLM2) else {
        return;
    };
    let ids = tokenizer.encode("In 2018 12345").unwrap();
    let spelled: Vec<&str> = ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect();
    assert_eq!(
        spelled,
        ["In", "Ġ", "2", "0", "1", "8", "Ġ", "1", "2", "3", "4", "5"]
    );
}

#[test]
fn a_byte_that_the_vocabulary_lacks_is_an_error() {
    let Some(tokenizer) = open("a_byte_that_the_vocabulary_lacks_is_an_error", SMOLLM2) else {
        return;
    };
    let error = tokenizer.encode("ab\u{4}").unwrap_err();
    assert_eq!(
        error.to_string(),
        "encode: expected bytes that the vocabulary has, found byte 0x04 at offset 2"
    );
    assert!(tokenizer.encode_special("<|im_start|>\u{13}").is_err());
}

#[test]
fn stories_are_merged_by_score() {
    let Some(tokenizer) = open("stories_are_merged_by_score", STORIES) else {
        return;
    };
    let ids = tokenizer.encode("Once upon a time").unwrap();
    assert_eq!(ids, [403, 407, 261, 378]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "Once upon a time");
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()),
        (Some(1), Some(2), 512)
    );
    assert!(tokenizer.encode("").unwrap().is_empty());
    assert_eq!(
        tokenizer.encode_special("<s> a</s>").unwrap().first(),
        Some(&1)
    );
}

#[test]
fn stories_spell_unknown_characters_by_their_bytes() {
    let Some(tokenizer) = open("stories_spell_unknown_characters_by_their_bytes", STORIES) else {
        return;
    };
    let ids = tokenizer.encode("a\u{4e2d}").unwrap();
    // Byte tokens begin with id 3.
    assert_eq!(ids[ids.len() - 3..], [0xe4 + 3, 0xb8 + 3, 0xad + 3]);
    assert_eq!(tokenizer.piece(0xe4 + 3).unwrap(), [0xe4]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "a\u{4e2d}");
    // A character that is cut shows as the replacement character.
    assert_eq!(
        tokenizer.decode(&ids[..ids.len() - 1]).unwrap(),
        "a\u{fffd}"
    );
}

/// The rule written plainly: look through all pairs, merge the best, again.
fn merged_plainly(tokens: &[(&str, f32)], text: &str) -> Vec<String> {
    let mut parts: Vec<String> = format!("\u{2581}{}", text.replace(' ', "\u{2581}"))
        .chars()
        .map(String::from)
        .collect();
    loop {
        let mut best: Option<(f32, usize)> = None;
        for at in 1..parts.len() {
            let whole = format!("{}{}", parts[at - 1], parts[at]);
            if let Some((_, score)) = tokens.iter().find(|(token, _)| *token == whole)
                && best.is_none_or(|(highest, _)| *score > highest)
            {
                best = Some((*score, at));
            }
        }
        let Some((_, at)) = best else { return parts };
        let right = parts.remove(at);
        parts[at - 1].push_str(&right);
    }
}

const SCORED: [(&str, f32); 14] = [
    ("\u{2581}", -1.0),
    ("a", -1.0),
    ("b", -1.0),
    ("c", -1.0),
    ("ab", -2.0),
    ("bc", -2.0),
    ("aa", -3.0),
    ("abc", -1.5),
    ("bb", -2.5),
    ("aab", -0.5),
    ("\u{2581}a", -2.0),
    ("\u{2581}ab", -4.0),
    ("caa", -2.25),
    ("bca", -0.25),
];

fn scored() -> Writer {
    let tokens: Strings = SCORED.iter().map(|(token, _)| token).collect();
    Writer::new()
        .metadata("tokenizer.ggml.model", "llama")
        .metadata("tokenizer.ggml.tokens", tokens)
        .metadata(
            "tokenizer.ggml.scores",
            SCORED.iter().map(|(_, score)| *score).collect::<Vec<f32>>(),
        )
        .metadata("tokenizer.ggml.token_type", vec![1_i32; SCORED.len()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_merge_loop_takes_the_highest_score_and_of_equals_the_leftmost(text in "[abc ]{1,40}") {
        let tokenizer = Tokenizer::from_gguf(&Gguf::from_bytes("m", scored().to_bytes().unwrap()).unwrap()).unwrap();
        let ids = tokenizer.encode(&text).unwrap();
        let spelled: Vec<String> = ids.iter().map(|&id| tokenizer.token(id).unwrap().to_owned()).collect();
        prop_assert_eq!(spelled, merged_plainly(&SCORED, &text));
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

fn bytes_and_merges(tokens: &[&str], merges: &[&str]) -> Writer {
    Writer::new()
        .metadata("tokenizer.ggml.model", "gpt2")
        .metadata("tokenizer.ggml.pre", "smollm")
        .metadata("tokenizer.ggml.tokens", tokens.iter().collect::<Strings>())
        .metadata("tokenizer.ggml.merges", merges.iter().collect::<Strings>())
}

#[track_caller]
fn refused(writer: &Writer, field: &str, expected: &str, found: &str) {
    let gguf = Gguf::from_bytes("bad.gguf", writer.to_bytes().unwrap()).unwrap();
    let error = Tokenizer::from_gguf(&gguf).expect_err("a bad vocabulary was accepted");
    assert_eq!(
        error.to_string(),
        format!("bad.gguf: {field}: expected {expected}, found {found}")
    );
    assert!(matches!(error, Error::Gguf { .. }));
}

#[test]
fn unknown_models_and_pre_tokenisers_are_errors() {
    let model = |name: &str| {
        Writer::new()
            .metadata("tokenizer.ggml.model", name)
            .metadata("tokenizer.ggml.tokens", ["a"].iter().collect::<Strings>())
    };
    refused(
        &model("bert"),
        "tokenizer.ggml.model",
        "\"gpt2\" or \"llama\"",
        "\"bert\"",
    );
    refused(
        &model("gpt2"),
        "tokenizer.ggml.pre",
        "String",
        "no such key",
    );
    let pre = model("gpt2").metadata("tokenizer.ggml.pre", "qwen2");
    refused(&pre, "tokenizer.ggml.pre", "\"smollm\"", "\"qwen2\"");
}

#[test]
fn missing_keys_and_wrong_types_are_errors() {
    refused(
        &Writer::new(),
        "tokenizer.ggml.tokens",
        "Array of String",
        "no such key",
    );
    let wrong = Writer::new().metadata("tokenizer.ggml.tokens", vec![1_i32]);
    refused(
        &wrong,
        "tokenizer.ggml.tokens",
        "Array of String",
        "Array of 1 I32",
    );
    let wrong = Writer::new().metadata("tokenizer.ggml.tokens", Strings::default());
    refused(
        &wrong,
        "tokenizer.ggml.tokens",
        "1 to 4294967295 tokens",
        "0",
    );
    let wrong = bytes_and_merges(&["a"], &[]).metadata("tokenizer.ggml.token_type", vec![1.0_f32]);
    refused(
        &wrong,
        "tokenizer.ggml.token_type",
        "Array of I32",
        "Array of 1 F32",
    );
    let wrong = bytes_and_merges(&["a"], &[]).metadata("tokenizer.ggml.eos_token_id", "a");
    refused(&wrong, "tokenizer.ggml.eos_token_id", "U32", "String");
}

#[test]
fn arrays_of_different_lengths_are_errors() {
    let types =
        bytes_and_merges(&["a", "b"], &[]).metadata("tokenizer.ggml.token_type", vec![1_i32]);
    refused(
        &types,
        "tokenizer.ggml.token_type",
        "one type for each of 2 tokens",
        "1",
    );
    let scores = Writer::new()
        .metadata("tokenizer.ggml.model", "llama")
        .metadata(
            "tokenizer.ggml.tokens",
            ["a", "b"].iter().collect::<Strings>(),
        )
        .metadata("tokenizer.ggml.scores", vec![0.0_f32; 3]);
    refused(
        &scores,
        "tokenizer.ggml.scores",
        "one score for each of 2 tokens",
        "3",
    );
}

#[test]
fn tokens_given_twice_are_errors() {
    let twice = bytes_and_merges(&["a", "b", "a"], &[]);
    refused(
        &twice,
        "tokenizer.ggml.tokens",
        "tokens that differ",
        "token 2 \"a\", which is token 0 too",
    );
}

#[test]
fn merges_of_what_is_no_token_are_errors() {
    for merge in ["a", "a b", "b a", "a  b", "", " ", "c d", "ab c"] {
        // "ab" is missing as a result, "c" as a part.
        let writer = bytes_and_merges(&["a", "b", "d", "cd", "abc"], &[merge]);
        let expected = "two tokens with a space between, which together are a token";
        refused(
            &writer,
            "tokenizer.ggml.merges",
            expected,
            &format!("{merge:?} at 0"),
        );
    }
}

#[test]
fn ids_outside_the_vocabulary_are_errors() {
    for key in ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"] {
        for id in [2, 3, u32::MAX] {
            let writer = bytes_and_merges(&["a", "b"], &[]).metadata(key, id);
            refused(&writer, key, "an id below 2", &id.to_string());
        }
    }
    let gguf =
        Gguf::from_bytes("m", bytes_and_merges(&["a", "b"], &[]).to_bytes().unwrap()).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    assert_eq!(
        tokenizer.decode(&[1, 2]).unwrap_err().to_string(),
        "decode: expected ids below 2, found 2"
    );
    assert_eq!(tokenizer.token(2), None);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, None));
}

#[test]
fn token_types_out_of_range_are_errors() {
    let typed =
        |number| bytes_and_merges(&["a"], &[]).metadata("tokenizer.ggml.token_type", vec![number]);
    for number in [0, 7, -1, i32::MAX] {
        let found = format!("{number} for token \"a\"");
        refused(
            &typed(number),
            "tokenizer.ggml.token_type",
            "types from 1 to 6",
            &found,
        );
    }
    refused(
        &typed(6),
        "tokenizer.ggml.token_type",
        "<0xNN> for a token of type 6",
        "\"a\"",
    );
    for token in [
        "<0x>", "<0x1>", "<0x+1>", "<0x-1>", "<0x041>", "<0x 1>", "<0xg1>", "<0xé>",
    ] {
        let typed = bytes_and_merges(&[token], &[]).metadata("tokenizer.ggml.token_type", vec![6]);
        refused(
            &typed,
            "tokenizer.ggml.token_type",
            "<0xNN> for a token of type 6",
            &format!("{token:?}"),
        );
    }
}

#[test]
fn scores_that_are_no_numbers_are_errors() {
    for (score, name) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
    ] {
        let writer = Writer::new()
            .metadata("tokenizer.ggml.model", "llama")
            .metadata(
                "tokenizer.ggml.tokens",
                ["a", "b"].iter().collect::<Strings>(),
            )
            .metadata("tokenizer.ggml.scores", vec![0.0, score]);
        refused(
            &writer,
            "tokenizer.ggml.scores",
            "finite scores",
            &format!("{name} for token 1"),
        );
    }
}

#[test]
fn the_longest_control_token_wins() {
    let writer = bytes_and_merges(&["a", "<", "<a", "<aa", "\u{e9}"], &[])
        .metadata("tokenizer.ggml.token_type", vec![1_i32, 1, 3, 3, 3]);
    let gguf = Gguf::from_bytes("m", writer.to_bytes().unwrap()).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    assert_eq!(
        tokenizer.encode_special("<aaa<a<<aa\u{e9}a").unwrap(),
        [3, 0, 2, 1, 3, 4, 0]
    );
    assert_eq!(tokenizer.encode("<aa").unwrap(), [1, 0, 0]);
}

#[test]
fn without_a_space_prefix_none_is_put_or_taken_away() {
    let writer = scored().metadata("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    let tokenizer =
        Tokenizer::from_gguf(&Gguf::from_bytes("m", writer.to_bytes().unwrap()).unwrap()).unwrap();
    for text in ["ab", " ab", "  "] {
        assert_eq!(
            tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(),
            text
        );
    }
    assert_eq!(tokenizer.encode("ab").unwrap(), [4]);
}
