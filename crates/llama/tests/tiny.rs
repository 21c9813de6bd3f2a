//! The tiny model: one seed, one model.

use proptest::prelude::*;
use whittle_llama::{
    Gguf, Tokenizer,
    gguf::GgmlType,
    tiny::{self, Kinds},
};

fn tokenizer() -> Tokenizer {
    Tokenizer::from_gguf(&Gguf::from_bytes("tiny.gguf", tiny::gguf(0)).unwrap()).unwrap()
}

#[test]
fn a_seed_makes_one_model_and_another_seed_another() {
    assert_eq!(tiny::gguf(5), tiny::gguf(5));
    assert_ne!(tiny::gguf(5), tiny::gguf(6));
}

#[test]
fn the_mixed_model_has_four_formats_and_the_same_weights() {
    let open =
        |kinds| Gguf::from_bytes("tiny.gguf", tiny::writer(9, kinds).to_bytes().unwrap()).unwrap();
    let (exact, mixed) = (open(Kinds::F32), open(Kinds::Mixed));
    mixed.check_finite().unwrap();
    for kind in [GgmlType::F32, GgmlType::F16, GgmlType::Q4_1, GgmlType::Q8_0] {
        assert!(mixed.tensors().any(|info| info.kind == kind), "{kind}");
    }
    assert!(exact.tensors().all(|info| info.kind == GgmlType::F32));
    for info in exact.tensors() {
        let weights = |gguf: &Gguf| gguf.tensor(&info.name).unwrap().dequantize().unwrap();
        let (exact, mixed) = (weights(&exact), weights(&mixed));
        let largest = exact
            .iter()
            .fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
        for (exact, mixed) in exact.iter().zip(&mixed) {
            // Half a step of Q4_1, whose 15 steps span at most twice the largest weight, and the f16 of its scale.
            assert!(
                (exact - mixed).abs() <= largest * (1.0 / 15.0 + 1.0 / 500.0),
                "{}",
                info.name
            );
        }
    }
}

#[test]
fn the_shapes_are_those_that_the_metadata_promises() {
    let gguf = Gguf::from_bytes("tiny.gguf", tiny::gguf(0)).unwrap();
    let shape = |name: &str| gguf.tensor(name).unwrap().info().shape.clone();
    assert_eq!(shape("token_embd.weight"), [tiny::VOCAB, tiny::WIDTH]);
    assert_eq!(
        shape("blk.1.attn_k.weight"),
        [tiny::KV_HEADS * tiny::HEAD_DIM, tiny::WIDTH]
    );
    assert_eq!(
        shape("blk.1.ffn_down.weight"),
        [tiny::WIDTH, tiny::FEED_FORWARD]
    );
    assert_eq!(gguf.u32("llama.vocab_size").unwrap() as usize, tiny::VOCAB);
    assert_eq!(tokenizer().vocab_size(), tiny::VOCAB);
    assert!(!gguf.has_tensor("output.weight"), "the embeddings are tied");
}

#[test]
fn merges_and_control_tokens_are_at_work() {
    let tokenizer = tokenizer();
    let spelled = |ids: Vec<u32>| {
        ids.iter()
            .map(|&id| tokenizer.token(id).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        spelled(tokenizer.encode("in the end 42").unwrap()),
        ["in", "Ġthe", "Ġ", "e", "nd", "Ġ", "4", "2"]
    );
    assert_eq!(tokenizer.encode_special("<|im_start|>").unwrap(), [1]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), Some(2)));
}

proptest! {
    #[test]
    fn every_text_comes_back(text in any::<String>()) {
        thread_local! {
            static TOKENIZER: Tokenizer = tokenizer();
        }
        TOKENIZER.with(|tokenizer| {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert!(ids.iter().all(|&id| (3..tiny::VOCAB as u32).contains(&id)));
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            Ok(())
        })?;
    }
}
