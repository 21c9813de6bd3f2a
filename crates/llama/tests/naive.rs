//! The decoder against plain loops in f64 that are written down from the model's definition.

use std::ops::Range;
use whittle_llama::cache::PlainStore;
use whittle_llama::tiny::{self, FEED_FORWARD, HEAD_DIM, HEADS, KV_HEADS, LAYERS, VOCAB, WIDTH};
use whittle_llama::{Decoder, Gguf, KvStore, Span, Visible, Weights};
use whittle_tensor::Pairing;

fn weights(gguf: &Gguf, name: &str) -> Vec<f64> {
    let weights = gguf.tensor(&format!("{name}.weight")).unwrap().dequantize();
    weights.unwrap().iter().map(|&w| f64::from(w)).collect()
}

/// `w · x` with a matrix `[rows, x.len()]`.
fn product(w: &[f64], x: &[f64]) -> Vec<f64> {
    let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum();
    w.chunks_exact(x.len()).map(dot).collect()
}

fn norm(x: &[f64], gain: &[f64]) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + 1e-5).sqrt();
    x.iter()
        .zip(gain)
        .map(|(x, gain)| x * scale * gain)
        .collect()
}

/// Turns the channel pairs of each head by `position · 10000^(-2i / HEAD_DIM)`.
fn rope(rows: &mut [f64], position: usize, pairing: Pairing) {
    for head in rows.chunks_exact_mut(HEAD_DIM) {
        for i in 0..HEAD_DIM / 2 {
            let (a, b) = match pairing {
                Pairing::Interleaved => (2 * i, 2 * i + 1),
                Pairing::HalfSplit => (i, i + HEAD_DIM / 2),
            };
            let angle = position as f64 * 10_000f64.powf(-2.0 * i as f64 / HEAD_DIM as f64);
            let (x, y) = (head[a], head[b]);
            head[a] = x * angle.cos() - y * angle.sin();
            head[b] = x * angle.sin() + y * angle.cos();
        }
    }
}

/// Logits of every token, `[tokens, VOCAB]`.
fn forward(gguf: &Gguf, tokens: &[u32], pairing: Pairing) -> Vec<f64> {
    let embedding = weights(gguf, "token_embd");
    let row = |&token: &u32| embedding[token as usize * WIDTH..][..WIDTH].to_vec();
    let mut x: Vec<Vec<f64>> = tokens.iter().map(row).collect();
    for layer in 0..LAYERS {
        let w = |part: &str| weights(gguf, &format!("blk.{layer}.{part}"));
        let [q, k, v, o] = ["attn_q", "attn_k", "attn_v", "attn_output"].map(w);
        let [gate, up, down] = ["ffn_gate", "ffn_up", "ffn_down"].map(w);
        let [attention_norm, feed_forward_norm] = ["attn_norm", "ffn_norm"].map(w);
        let (mut keys, mut values) = (vec![], vec![]);
        for (position, x) in x.iter_mut().enumerate() {
            let normed = norm(x, &attention_norm);
            let (mut query, mut key) = (product(&q, &normed), product(&k, &normed));
            rope(&mut query, position, pairing);
            rope(&mut key, position, pairing);
            keys.push(key);
            values.push(product(&v, &normed));
            let mut attended = vec![0.0; HEADS * HEAD_DIM];
            for head in 0..HEADS {
                let channels =
                    |head: usize| -> Range<usize> { head * HEAD_DIM..(head + 1) * HEAD_DIM };
                let (mine, kv) = (channels(head), channels(head / (HEADS / KV_HEADS)));
                let scores: Vec<f64> = keys
                    .iter()
                    .map(|key| product(&key[kv.clone()], &query[mine.clone()])[0])
                    .map(|dot| (dot / (HEAD_DIM as f64).sqrt()).exp())
                    .collect();
                let total: f64 = scores.iter().sum();
                for (score, value) in scores.iter().zip(&values) {
                    for (out, v) in attended[mine.clone()].iter_mut().zip(&value[kv.clone()]) {
                        *out += score / total * v;
                    }
                }
            }
            x.iter_mut()
                .zip(product(&o, &attended))
                .for_each(|(x, y)| *x += y);

            let normed = norm(x, &feed_forward_norm);
            let inner: Vec<f64> = product(&gate, &normed)
                .iter()
                .zip(product(&up, &normed))
                .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                .collect();
            assert_eq!(inner.len(), FEED_FORWARD);
            x.iter_mut()
                .zip(product(&down, &inner))
                .for_each(|(x, y)| *x += y);
        }
    }
    let gain = weights(gguf, "output_norm");
    x.iter()
        .flat_map(|x| product(&embedding, &norm(x, &gain)))
        .collect()
}

#[test]
fn logits_are_those_of_the_naive_f64_forward_in_both_pairings() {
    let gguf = Gguf::from_bytes("tiny.gguf", tiny::gguf(7)).unwrap();
    let tokens: Vec<u32> = (0..41)
        .map(|i| (i * 7919 + i * i * 31) % VOCAB as u32)
        .collect();
    let forwards = [Pairing::Interleaved, Pairing::HalfSplit].map(|pairing| {
        let expected = forward(&gguf, &tokens, pairing);
        for form in [Weights::F32, Weights::Blocks] {
            let decoder = Decoder::load(&gguf, form).unwrap().with_pairing(pairing);
            let mut store = PlainStore::<f32>::new(decoder.config().cache_shape()).unwrap();
            let span = Span {
                sequence: store.sequence().unwrap(),
                tokens: tokens.len(),
            };
            let hidden = decoder.forward(&mut store, &[span], &tokens, Visible::Causal);
            let found = decoder
                .logits(&hidden.unwrap())
                .unwrap()
                .into_vec::<f32>()
                .unwrap();
            assert_eq!(found.len(), expected.len());
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                // Sums of 128 products of rows of mean square 1, after some thousand roundings of 2^-24 each.
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-3,
                    "{pairing:?}, {form:?}, token {}, logit {}: {found}, not {expected}",
                    at / VOCAB,
                    at % VOCAB
                );
            }
        }
        expected
    });
    // The two pairings are two models, so that each comparison is one of its own.
    let apart = |(a, b): (&f64, &f64)| (a - b).abs() > 0.1;
    assert!(forwards[0].iter().zip(&forwards[1]).any(apart));
}
