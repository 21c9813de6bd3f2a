//! The decoder on a tiny seeded model: what it promises whatever the weights are.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::f16;
use whittle_llama::cache::PlainStore;
use whittle_llama::gguf::write::Writer;
use whittle_llama::gguf::{GgmlType, Value};
use whittle_llama::mlp::{FeedForward, Mlp};
use whittle_llama::project::{Group, Project, ProjectGroup};
use whittle_llama::sample::{Sampler, generate};
use whittle_llama::score::{perplexity, score};
use whittle_llama::tiny::{self, Kinds};
use whittle_llama::{
    Decoder, Error, Gguf, KvStore, Result, SequenceId, Span, Truncated, Visible, Weights,
};
use whittle_tensor::{Pairing, Tensor};

/// Largest difference of hidden rows that two orders of the same f32 sums may leave: rows have a mean square of about 1 after the
/// last norm, and a few thousand roundings of 2^-24 lie behind each.
const CLOSE: f32 = 1e-4;

fn gguf() -> Gguf {
    Gguf::from_bytes("tiny.gguf", tiny::gguf(7)).unwrap()
}

fn decoder() -> Decoder {
    Decoder::load(&gguf(), Weights::F32).unwrap()
}

fn store(decoder: &Decoder) -> PlainStore<f32> {
    PlainStore::new(decoder.config().cache_shape()).unwrap()
}

fn text(decoder: &Decoder, len: usize, seed: usize) -> Vec<u32> {
    (0..len)
        .map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % decoder.config().vocab) as u32)
        .collect()
}

/// Hidden rows of one sequence that is appended in chunks.
fn hidden(decoder: &Decoder, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let mut store = store(decoder);
    let sequence = store.sequence().unwrap();
    append(decoder, &mut store, sequence, tokens, chunk)
}

fn append(
    decoder: &Decoder,
    store: &mut dyn KvStore,
    sequence: SequenceId,
    tokens: &[u32],
    chunk: usize,
) -> Vec<f32> {
    let rows = |part: &[u32]| {
        let span = Span {
            sequence,
            tokens: part.len(),
        };
        decoder
            .forward(store, &[span], part, Visible::Causal)
            .unwrap()
            .into_vec::<f32>()
            .unwrap()
    };
    tokens.chunks(chunk).flat_map(rows).collect()
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32, context: &str) {
    assert_eq!(a.len(), b.len(), "{context}");
    let worst = a
        .iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst <= tolerance, "{context}: differs by {worst}");
    assert!(a.iter().any(|x| x.abs() > 0.1), "{context}: all zero");
}

#[test]
fn chunks_of_any_size_give_the_hidden_rows_of_one_token_at_a_time() {
    let decoder = decoder();
    let tokens = text(&decoder, 67, 1);
    let single = hidden(&decoder, &tokens, 1);
    for chunk in [2, 5, 33, 67] {
        assert_close(
            &hidden(&decoder, &tokens, chunk),
            &single,
            CLOSE,
            &format!("chunks of {chunk}"),
        );
    }
}

#[test]
fn a_ragged_batch_gives_each_sequence_what_it_gets_alone() {
    let decoder = decoder();
    let width = decoder.config().width;
    let texts: Vec<Vec<u32>> = [1, 40, 0, 9]
        .iter()
        .enumerate()
        .map(|(i, &len)| text(&decoder, len, i))
        .collect();
    let mut store = store(&decoder);
    // Two rounds, so that the second starts at different lengths.
    let sequences: Vec<SequenceId> = texts.iter().map(|_| store.sequence().unwrap()).collect();
    let mut rows = vec![vec![]; texts.len()];
    for round in 0..2 {
        let parts: Vec<&[u32]> = texts
            .iter()
            .map(|text| [&text[..text.len() / 3], &text[text.len() / 3..]][round])
            .collect();
        let spans: Vec<Span> = sequences
            .iter()
            .zip(&parts)
            .map(|(&sequence, part)| Span {
                sequence,
                tokens: part.len(),
            })
            .collect();
        let out = decoder
            .forward(&mut store, &spans, &parts.concat(), Visible::Causal)
            .unwrap();
        let mut out = &out.into_vec::<f32>().unwrap()[..];
        for (rows, part) in rows.iter_mut().zip(&parts) {
            let (mine, rest) = out.split_at(part.len() * width);
            rows.extend_from_slice(mine);
            out = rest;
        }
    }
    for (i, (rows, text)) in rows
        .iter()
        .zip(&texts)
        .enumerate()
        .filter(|(_, (rows, _))| !rows.is_empty())
    {
        assert_close(
            rows,
            &hidden(&decoder, text, 1),
            CLOSE,
            &format!("sequence {i}"),
        );
    }
}

#[test]
fn each_path_of_a_tree_gets_the_hidden_rows_of_a_sequence_of_its_own() {
    let decoder = decoder();
    let width = decoder.config().width;
    let prefix = text(&decoder, 37, 0);
    let tree = text(&decoder, 6, 5);
    let parents = [None, Some(0), Some(0), Some(1), None, Some(4)];
    let paths: [&[usize]; 6] = [&[0], &[0, 1], &[0, 2], &[0, 1, 3], &[4], &[4, 5]];

    let mut store = store(&decoder);
    let root = store.sequence().unwrap();
    append(&decoder, &mut store, root, &prefix, 64);
    let forks: Vec<SequenceId> = paths.iter().map(|_| store.fork(root).unwrap()).collect();
    let span = Span {
        sequence: root,
        tokens: tree.len(),
    };
    let out = decoder
        .forward(&mut store, &[span], &tree, Visible::Tree(&parents))
        .unwrap();
    let out = out.as_slice::<f32>().unwrap();
    for (i, (path, &fork)) in paths.iter().zip(&forks).enumerate() {
        let tokens: Vec<u32> = path.iter().map(|&row| tree[row]).collect();
        let alone = append(&decoder, &mut store, fork, &tokens, 64);
        let last = &alone[alone.len() - width..];
        assert_close(
            &out[i * width..(i + 1) * width],
            last,
            CLOSE,
            &format!("path {path:?}"),
        );
    }

    // The accepted path goes on as the sequence of its own does.
    store.retain(root, prefix.len(), paths[3]).unwrap();
    let next = text(&decoder, 4, 9);
    let kept = append(&decoder, &mut store, root, &next, 1);
    let alone = append(&decoder, &mut store, forks[3], &next, 1);
    assert_close(&kept, &alone, CLOSE, "after retain");
}

#[test]
fn forks_and_truncated_sequences_go_on_as_if_nothing_else_had_come() {
    let decoder = decoder();
    let tokens = text(&decoder, 50, 1);
    let other = text(&decoder, 30, 2);
    let mut store = store(&decoder);
    let sequence = store.sequence().unwrap();
    append(&decoder, &mut store, sequence, &tokens[..40], 16);
    let fork = store.fork(sequence).unwrap();
    append(&decoder, &mut store, fork, &other, 16);
    assert_eq!(store.truncate(fork, 20).unwrap(), Truncated::Exact);
    let expected = hidden(&decoder, &tokens, 1);
    let width = decoder.config().width;
    let rest = append(&decoder, &mut store, sequence, &tokens[40..], 1);
    assert_close(&rest, &expected[40 * width..], CLOSE, "the original");
    let rest = append(&decoder, &mut store, fork, &tokens[20..], 1);
    assert_close(&rest, &expected[20 * width..], CLOSE, "the fork");
}

#[test]
fn weights_left_in_their_blocks_give_the_logits_of_widened_ones() {
    for kinds in [Kinds::F32, Kinds::Mixed] {
        let gguf =
            Gguf::from_bytes("tiny.gguf", tiny::writer(7, kinds).to_bytes().unwrap()).unwrap();
        let [blocks, dense] = [Weights::Blocks, Weights::F32].map(|weights| {
            let decoder = Decoder::load(&gguf, weights).unwrap();
            // Chunks on both sides of the limit between dot products and dequantised panels.
            [1, 3, 25].map(|chunk| {
                let rows = hidden(&decoder, &text(&decoder, 25, 3), chunk);
                let rows = Tensor::from_vec(rows, &[25, decoder.config().width]).unwrap();
                decoder.logits(&rows).unwrap().into_vec::<f32>().unwrap()
            })
        });
        for (blocks, dense) in blocks.iter().zip(&dense) {
            assert_close(blocks, dense, 10.0 * CLOSE, &format!("{kinds:?}"));
        }
    }
}

#[test]
fn integer_products_change_logits_by_the_rounding_of_activations_only() {
    let writer = tiny::writer(7, Kinds::Mixed);
    let gguf = Gguf::from_bytes("tiny.gguf", writer.to_bytes().unwrap()).unwrap();
    let [integer, dense] = [Weights::Integer, Weights::F32].map(|weights| {
        let decoder = Decoder::load(&gguf, weights).unwrap();
        [1, 25].map(|chunk| {
            let rows = hidden(&decoder, &text(&decoder, 25, 3), chunk);
            let rows = Tensor::from_vec(rows, &[25, decoder.config().width]).unwrap();
            decoder.logits(&rows).unwrap().into_vec::<f32>().unwrap()
        })
    });
    let distance =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    for (integer, dense) in integer.iter().zip(&dense) {
        // Each linear rounds its input to steps of 1/127 of the largest of 32, about 0.5 in 100 of the whole; there are nine in a
        // row.
        let error = (distance(integer, dense) / distance(dense, &vec![0.0; dense.len()])).sqrt();
        assert!((1e-4..3e-2).contains(&error), "{error}");
    }
}

#[test]
fn an_f16_cache_changes_hidden_rows_by_its_rounding_only() {
    let decoder = decoder();
    let tokens = text(&decoder, 60, 1);
    let mut half = PlainStore::<f16>::new(decoder.config().cache_shape()).unwrap();
    let sequence = half.sequence().unwrap();
    let rows = append(&decoder, &mut half, sequence, &tokens, 16);
    let exact = hidden(&decoder, &tokens, 16);
    // f16 keeps 11 bits; 2^-11 of rows near 1 passes through two layers.
    assert_close(&rows, &exact, 1e-2, "f16 cache");
    assert!(rows != exact, "the cache rounds");
    assert!(
        store_bytes(&decoder, &tokens) > half.bytes(),
        "and takes less memory"
    );
}

fn store_bytes(decoder: &Decoder, tokens: &[u32]) -> usize {
    let mut store = store(decoder);
    let sequence = store.sequence().unwrap();
    append(decoder, &mut store, sequence, tokens, 16);
    store.bytes()
}

#[test]
fn the_other_pairing_is_another_model() {
    let decoder = decoder();
    let tokens = text(&decoder, 20, 1);
    let interleaved = hidden(&decoder, &tokens, 20);
    assert_eq!(decoder.config().pairing, Pairing::Interleaved);
    let decoder = decoder.with_pairing(Pairing::HalfSplit);
    let half_split = hidden(&decoder, &tokens, 20);
    let width = decoder.config().width;
    assert_close(
        &half_split[..width],
        &interleaved[..width],
        0.0,
        "position 0, which isn't turned",
    );
    let differs = half_split
        .iter()
        .zip(&interleaved)
        .any(|(a, b)| (a - b).abs() > 100.0 * CLOSE);
    assert!(differs, "later positions");
}

/// Adds `0.5 · x · aᵀ · bᵀ` of rank 1 to the query projections of one layer.
struct LowRank {
    layer: usize,
    a: Tensor,
    b: Tensor,
    calls: Arc<AtomicUsize>,
}

impl Project for LowRank {
    fn project(&self, group: &ProjectGroup<'_>) -> Result<Vec<Tensor>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut outputs = group.dense()?;
        if group.layer == self.layer && group.group == Group::Qkv {
            let delta = group.x.matmul(&self.a)?.matmul(&self.b)?.mul_scalar(0.5)?;
            outputs[0] = outputs[0].add(&delta)?;
        }
        Ok(outputs)
    }
}

#[test]
fn a_project_put_in_place_of_the_default_computes_every_linear_of_the_blocks() {
    let decoder = decoder();
    let tokens = text(&decoder, 12, 1);
    let config = decoder.config().clone();
    let query = config.query_heads * config.head_dim;
    let a: Vec<f32> = (0..config.width).map(|i| (i as f32).sin()).collect();
    let b: Vec<f32> = (0..query).map(|i| (i as f32).cos()).collect();
    let calls = Arc::new(AtomicUsize::new(0));
    let low_rank = |layer| LowRank {
        layer,
        a: Tensor::from_vec(a.clone(), &[config.width, 1]).unwrap(),
        b: Tensor::from_vec(b.clone(), &[1, query]).unwrap(),
        calls: calls.clone(),
    };
    let plain = hidden(&decoder, &tokens, 12);
    let same = hidden(&decoder.clone().with_project(low_rank(99)), &tokens, 12);
    assert!(plain == same, "a project that adds nothing changes nothing");
    assert_eq!(calls.load(Ordering::Relaxed), 4 * config.layers);

    // The delta folded into the weights of another file is the same model.
    let name = "blk.1.attn_q.weight";
    let mut folded = parts();
    for (row, b) in folded.weights(name).chunks_exact_mut(config.width).zip(&b) {
        row.iter_mut().zip(&a).for_each(|(w, a)| *w += 0.5 * a * b);
    }
    let folded = hidden(&folded.decoder(), &tokens, 12);
    let adapted = hidden(&decoder.clone().with_project(low_rank(1)), &tokens, 12);
    assert_close(&adapted, &folded, CLOSE, "adapter and folded weights");
    assert!(
        adapted
            .iter()
            .zip(&plain)
            .any(|(a, b)| (a - b).abs() > 10.0 * CLOSE),
        "the adapter has an effect"
    );
    assert_eq!(decoder.matrix(name).unwrap().rows(), query);
}

/// A block that is left out of one layer.
struct Skip(usize);

impl Mlp for Skip {
    fn feed_forward(&self, block: &FeedForward<'_>) -> Result<Tensor> {
        let out = block.dense()?;
        if block.layer == self.0 {
            Ok(out.mul_scalar(0.0)?)
        } else {
            Ok(out)
        }
    }
}

#[test]
fn an_mlp_put_in_place_of_the_default_computes_every_feed_forward_block() {
    let decoder = decoder();
    let tokens = text(&decoder, 12, 1);
    let plain = hidden(&decoder, &tokens, 12);
    assert!(plain == hidden(&decoder.clone().with_mlp(Skip(99)), &tokens, 12));
    let skipped = hidden(&decoder.clone().with_mlp(Skip(0)), &tokens, 12);
    let mut cut = parts();
    cut.weights("blk.0.ffn_down.weight").fill(0.0);
    let cut = hidden(&cut.decoder(), &tokens, 12);
    assert_close(&skipped, &cut, CLOSE, "skipped block and zeroed weights");
    assert!(
        skipped
            .iter()
            .zip(&plain)
            .any(|(a, b)| (a - b).abs() > 10.0 * CLOSE),
        "the block has an effect"
    );
}

/// Gives too few outputs in one group of the last layer, when the layers before have taken their rows.
struct Short(usize);

impl Project for Short {
    fn project(&self, group: &ProjectGroup<'_>) -> Result<Vec<Tensor>> {
        let mut outputs = group.dense()?;
        if group.layer == self.0 && group.group == Group::Output {
            outputs.clear();
        }
        Ok(outputs)
    }
}

#[test]
fn a_failed_step_leaves_the_sequences_as_they_were() {
    let decoder = decoder();
    let tokens = text(&decoder, 20, 1);
    let mut store = store(&decoder);
    let sequence = store.sequence().unwrap();
    append(&decoder, &mut store, sequence, &tokens[..10], 10);
    let span = Span {
        sequence,
        tokens: 2,
    };
    for layer in 0..decoder.config().layers {
        let failing = decoder.clone().with_project(Short(layer));
        let error = failing
            .forward(&mut store, &[span], &tokens[..2], Visible::Causal)
            .err();
        assert!(
            matches!(
                error,
                Some(Error::Argument {
                    operation: "Project::project",
                    ..
                })
            ),
            "{error:?}"
        );
        assert_eq!(store.len(sequence).unwrap(), 10);
    }
    let rest = append(&decoder, &mut store, sequence, &tokens[10..], 10);
    let expected = hidden(&decoder, &tokens, 20);
    assert_close(
        &rest,
        &expected[10 * decoder.config().width..],
        CLOSE,
        "after the failures",
    );
}

#[test]
fn wrong_arguments_of_forward_are_errors() {
    let decoder = decoder();
    let (vocab, context) = (decoder.config().vocab as u32, decoder.config().context);
    let mut store = store(&decoder);
    let sequence = store.sequence().unwrap();
    let span = |tokens| Span { sequence, tokens };
    let mut forward = |spans: &[Span], tokens: &[u32], visible: Visible<'_>| {
        decoder.forward(&mut store, spans, tokens, visible).err()
    };
    assert!(matches!(
        forward(&[span(2)], &[1], Visible::Causal),
        Some(Error::Argument { .. })
    ));
    assert!(matches!(
        forward(&[span(1)], &[vocab], Visible::Causal),
        Some(Error::Argument { .. })
    ));
    assert!(matches!(
        forward(&[span(2)], &[1, 1], Visible::Tree(&[None])),
        Some(Error::Argument { .. })
    ));
    assert!(matches!(
        forward(&[span(2)], &[1, 1], Visible::Tree(&[None, Some(1)])),
        Some(Error::Argument { .. })
    ));
    let stranger = Span {
        sequence: SequenceId(99),
        tokens: 1,
    };
    assert!(forward(&[stranger], &[1], Visible::Causal).is_some());
    assert!(matches!(
        forward(&[span(context + 1)], &vec![1; context + 1], Visible::Causal),
        Some(Error::Context { needed, .. }) if needed == context + 1
    ));
    assert!(matches!(
        decoder.prefill(&mut store, sequence, &[], 8, &mut |_| ()),
        Err(Error::Argument {
            argument: "tokens",
            ..
        })
    ));
    assert!(matches!(
        decoder.prefill(&mut store, sequence, &[1], 0, &mut |_| ()),
        Err(Error::Argument {
            argument: "chunk",
            ..
        })
    ));
    assert!(matches!(
        decoder.matrix("blk.0.attn_x.weight"),
        Err(Error::Argument { .. })
    ));
    assert_eq!(store.len(sequence).unwrap(), 0);
    // A tree as wide as it likes fits where its depth does.
    let filled = text(&decoder, context - 1, 0);
    append(&decoder, &mut store, sequence, &filled, 256);
    let wide = Visible::Tree(&[None, None, None]);
    assert!(
        decoder
            .forward(&mut store, &[span(3)], &[1, 2, 3], wide)
            .is_ok()
    );
}

#[test]
fn prefill_reports_progress_and_returns_the_last_row() {
    let decoder = decoder();
    let tokens = text(&decoder, 23, 1);
    let mut store = store(&decoder);
    let sequence = store.sequence().unwrap();
    let mut done = vec![];
    let last = decoder
        .prefill(&mut store, sequence, &tokens, 10, &mut |tokens| {
            done.push(tokens)
        })
        .unwrap();
    assert_eq!(done, [10, 20, 23]);
    let rows = hidden(&decoder, &tokens, 1);
    let width = decoder.config().width;
    assert_close(
        last.as_slice().unwrap(),
        &rows[22 * width..],
        CLOSE,
        "last row",
    );
}

#[test]
fn scores_are_the_log_softmax_of_the_logits_before_each_token() {
    let decoder = decoder();
    let tokens = text(&decoder, 150, 1);
    let rows =
        Tensor::from_vec(hidden(&decoder, &tokens, 1), &[150, decoder.config().width]).unwrap();
    let logits = decoder.logits(&rows).unwrap().into_vec::<f32>().unwrap();
    let expected: Vec<f64> = logits
        .chunks_exact(decoder.config().vocab)
        .zip(&tokens[1..])
        .map(|(row, &next)| {
            let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            f64::from(row[next as usize]) - sum.ln()
        })
        .collect();
    for chunk in [1, 64, 70, 149, 150, 1000] {
        let mut store = store(&decoder);
        let sequence = store.sequence().unwrap();
        let mut done = 0;
        let scores = score(
            &decoder,
            &mut store,
            sequence,
            &tokens,
            chunk,
            &mut |tokens| done = tokens,
        )
        .unwrap();
        assert_eq!((scores.len(), done), (149, 150));
        for (i, (score, expected)) in scores.iter().zip(&expected).enumerate() {
            assert!(
                (f64::from(*score) - expected).abs() < 1e-3,
                "chunk {chunk}, token {i}: {score}, not {expected}"
            );
        }
    }
    let mut store = store(&decoder);
    let found = perplexity(&decoder, &mut store, &tokens, 50, &mut |_| ()).unwrap();
    assert_eq!(found.chunks.len(), 3);
    let first = -expected[..49].iter().sum::<f64>() / 49.0;
    assert!(
        (found.chunks[0] - first).abs() < 1e-4,
        "{} is not {first}",
        found.chunks[0]
    );
    let mean = found.chunks.iter().sum::<f64>() / 3.0;
    assert!((found.mean().ln() - mean).abs() < 1e-12);
    assert_eq!(store.bytes(), 0, "each chunk's sequence is freed");
    for context in [0, 1, 151] {
        assert!(perplexity(&decoder, &mut store, &tokens, context, &mut |_| ()).is_err());
    }
}

#[test]
fn generated_texts_repeat_with_their_seed_and_only_with_it() {
    let decoder = decoder();
    let prompt = text(&decoder, 5, 1);
    let write = |sampler: &Sampler, max_new: usize| {
        let mut store = store(&decoder);
        let sequence = store.sequence().unwrap();
        let mut seen = vec![];
        let tokens = generate(
            &decoder,
            &mut store,
            sequence,
            &prompt,
            max_new,
            sampler,
            &mut |token| {
                seen.push(token);
                ControlFlow::Continue(())
            },
        )
        .unwrap();
        assert_eq!(tokens, seen, "every token is handed on");
        tokens
    };
    let sampler = |seed| Sampler::new(1.5, Some(40), Some(0.95), seed).unwrap();
    let text = write(&sampler(1), 24);
    assert_eq!(text, write(&sampler(1), 24));
    assert_eq!(
        text[..7],
        write(&sampler(1), 7),
        "a shorter text is the start of the longer one"
    );
    assert_ne!(text, write(&sampler(2), 24));
    assert!(write(&sampler(1), 0).is_empty());

    // Greedy tokens are the largest logits of one pass over the whole text.
    let greedy = write(&Sampler::greedy(), 10);
    assert_eq!(
        greedy,
        write(&Sampler::new(0.0, None, None, 3).unwrap(), 10)
    );
    let whole = [&prompt[..], &greedy].concat();
    let rows = hidden(&decoder, &whole, whole.len());
    let rows = Tensor::from_vec(rows, &[whole.len(), decoder.config().width]).unwrap();
    let logits = decoder.logits(&rows).unwrap().into_vec::<f32>().unwrap();
    let largest = |row: &[f32]| {
        (0..row.len())
            .max_by(|&a, &b| row[a].total_cmp(&row[b]))
            .unwrap() as u32
    };
    let best: Vec<u32> = logits
        .chunks_exact(decoder.config().vocab)
        .map(largest)
        .collect();
    assert_eq!(greedy, best[prompt.len() - 1..whole.len() - 1]);
}

#[test]
fn a_continued_text_is_the_text_of_one_call() {
    let decoder = parts().set("tokenizer.ggml.eos_token_id", None).decoder();
    let prompt = text(&decoder, 5, 1);
    let sampler = Sampler::new(1.5, None, None, 3).unwrap();
    let mut store = store(&decoder);
    let [once, twice] = [(); 2].map(|()| store.sequence().unwrap());
    let mut write = |sequence, prompt: &[u32], max_new| {
        generate(
            &decoder,
            &mut store,
            sequence,
            prompt,
            max_new,
            &sampler,
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap()
    };
    let whole = write(once, &prompt, 20);
    let first = write(twice, &prompt, 10);
    let second = write(twice, &first[9..], 10);
    assert_eq!(whole, [first, second].concat());
    assert_eq!(whole.len(), 20);
}

/// A store that fails both while a text is scored and when the sequence is given back.
struct Failing(PlainStore<f32>);

impl KvStore for Failing {
    fn sequence(&mut self) -> Result<SequenceId> {
        self.0.sequence()
    }

    fn append(&mut self, layer: usize, spans: &[Span], k: &Tensor, v: &Tensor) -> Result<()> {
        self.0.append(layer, spans, k, v)
    }

    fn attend(
        &mut self,
        _: usize,
        _: &[Span],
        _: &Tensor,
        _: f32,
        _: Visible<'_>,
    ) -> Result<Tensor> {
        Err(failure("attend"))
    }

    fn len(&self, sequence: SequenceId) -> Result<usize> {
        self.0.len(sequence)
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId> {
        self.0.fork(sequence)
    }

    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<Truncated> {
        self.0.truncate(sequence, len)
    }

    fn retain(&mut self, sequence: SequenceId, from: usize, rows: &[usize]) -> Result<()> {
        self.0.retain(sequence, from, rows)
    }

    fn hold(&mut self, sequence: SequenceId) -> Result<()> {
        self.0.hold(sequence)
    }

    fn commit(&mut self, sequence: SequenceId) -> Result<()> {
        self.0.commit(sequence)
    }

    fn free(&mut self, _: SequenceId) -> Result<()> {
        Err(failure("free"))
    }
}

fn failure(operation: &'static str) -> Error {
    Error::Store {
        operation,
        source: "the store is gone".into(),
    }
}

#[test]
fn a_sequence_that_is_not_freed_does_not_hide_why_scoring_failed() {
    let decoder = decoder();
    let mut store = Failing(store(&decoder));
    let error = perplexity(&decoder, &mut store, &[1; 20], 10, &mut |_| ()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Store {
                operation: "attend",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn generation_stops_before_the_end_token_and_when_it_is_told_to() {
    const EOS: &str = "tokenizer.ggml.eos_token_id";
    let decoder = parts().set(EOS, None).decoder();
    let prompt = text(&decoder, 5, 1);
    let write = |decoder: &Decoder, on_token: &mut dyn FnMut(u32) -> ControlFlow<()>| {
        let mut store = store(decoder);
        let sequence = store.sequence().unwrap();
        let tokens = generate(
            decoder,
            &mut store,
            sequence,
            &prompt,
            8,
            &Sampler::greedy(),
            on_token,
        )
        .unwrap();
        (tokens, store.len(sequence).unwrap())
    };
    let (free, _) = write(&decoder, &mut |_| ControlFlow::Continue(()));
    assert_eq!(free.len(), 8);
    let (told, len) = write(&decoder, &mut |_| ControlFlow::Break(()));
    assert_eq!((told.as_slice(), len), (&free[..1], prompt.len()));
    let decoder = parts().set(EOS, Some(free[0].into())).decoder();
    assert!(
        write(&decoder, &mut |_| ControlFlow::Continue(()))
            .0
            .is_empty()
    );
}

/// The tiny model taken apart, to be changed and put together again.
struct Parts {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

fn parts() -> Parts {
    let gguf = gguf();
    let metadata = gguf
        .entries()
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect();
    let weights = |name: &str| gguf.tensor(name).unwrap().dequantize().unwrap();
    let tensors = gguf
        .tensors()
        .map(|info| (info.name.clone(), info.shape.clone(), weights(&info.name)))
        .collect();
    Parts { metadata, tensors }
}

impl Parts {
    fn set(mut self, key: &str, value: Option<Value>) -> Self {
        self.metadata.retain(|entry| entry.0 != key);
        self.metadata
            .extend(value.map(|value| (key.to_owned(), value)));
        self
    }

    fn weights(&mut self, name: &str) -> &mut Vec<f32> {
        &mut self
            .tensors
            .iter_mut()
            .find(|tensor| tensor.0 == name)
            .unwrap()
            .2
    }

    fn gguf(self) -> Gguf {
        let writer = self
            .metadata
            .into_iter()
            .fold(Writer::new(), |w, (key, value)| w.metadata(key, value));
        let writer = self
            .tensors
            .into_iter()
            .fold(writer, |w, (name, shape, weights)| {
                w.tensor(name, GgmlType::F32, &shape, weights)
            });
        Gguf::from_bytes("parts.gguf", writer.to_bytes().unwrap()).unwrap()
    }

    fn decoder(self) -> Decoder {
        Decoder::load(&self.gguf(), Weights::F32).unwrap()
    }
}

#[test]
fn metadata_that_no_such_model_can_have_are_named_in_the_error() {
    let width = decoder().config().width as u32;
    let bad: [(&str, Option<Value>); 23] = [
        ("general.architecture", Some("gpt2".into())),
        ("general.architecture", None),
        ("llama.block_count", Some(0u32.into())),
        ("llama.block_count", None),
        ("llama.embedding_length", Some(0u32.into())),
        ("llama.embedding_length", Some(2.0f32.into())),
        ("llama.feed_forward_length", Some(0u32.into())),
        ("llama.context_length", Some(0u32.into())),
        ("llama.attention.head_count", Some(0u32.into())),
        ("llama.attention.head_count", Some((width - 2).into())),
        ("llama.attention.head_count_kv", Some(0u32.into())),
        ("llama.attention.head_count_kv", Some(3u32.into())),
        (
            "llama.attention.layer_norm_rms_epsilon",
            Some((-1.0f32).into()),
        ),
        (
            "llama.attention.layer_norm_rms_epsilon",
            Some(f32::NAN.into()),
        ),
        ("llama.attention.layer_norm_rms_epsilon", None),
        ("llama.rope.freq_base", Some(0.0f32.into())),
        ("llama.rope.dimension_count", Some(2u32.into())),
        ("llama.vocab_size", Some(2u32.into())),
        ("tokenizer.ggml.eos_token_id", Some(100_000u32.into())),
        // Scaled rotary embeddings would be another model.
        ("llama.rope.scaling.type", Some("linear".into())),
        ("llama.rope.scale_linear", Some(0.5f32.into())),
        ("llama.rope.scale_linear", Some(f32::NAN.into())),
        ("llama.rope.scale_linear", Some(1u32.into())),
    ];
    for (key, value) in bad {
        match Decoder::load(&parts().set(key, value.clone()).gguf(), Weights::F32).err() {
            Some(Error::Gguf { field, .. }) => assert_eq!(field, key, "{value:?}"),
            other => panic!("{key} = {value:?}: {other:?}"),
        }
    }
}

#[test]
fn metadata_that_the_file_leaves_out_have_their_defaults() {
    let config = parts()
        .set("llama.rope.freq_base", None)
        .set("tokenizer.ggml.eos_token_id", None)
        .decoder()
        .config()
        .clone();
    assert_eq!((config.rope_base, config.eos), (10_000.0, None));
    let same = parts()
        .set("llama.rope.scaling.type", Some("none".into()))
        .set("llama.rope.scale_linear", Some(1.0f32.into()))
        .decoder()
        .config()
        .clone();
    assert_eq!(same, *decoder().config());
}

#[test]
fn tensors_that_do_not_fit_the_metadata_are_named_in_the_error() {
    let victims = [
        "blk.1.attn_k.weight",
        "blk.0.ffn_norm.weight",
        "output_norm.weight",
        "token_embd.weight",
    ];
    for victim in victims {
        let mut shape = parts();
        let (_, dimensions, weights) = shape
            .tensors
            .iter_mut()
            .find(|tensor| tensor.0 == victim)
            .unwrap();
        let last = dimensions.last_mut().unwrap();
        weights.truncate(weights.len() / *last * (*last - 1));
        *last -= 1;
        let mut missing = parts();
        missing.tensors.retain(|tensor| tensor.0 != victim);
        let gguf = gguf();
        let mut bytes = gguf.bytes().to_vec();
        let start = gguf.tensor(victim).unwrap().info().range.start + 12;
        bytes[start..start + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        let infinite = Gguf::from_bytes("infinite.gguf", bytes).unwrap();
        for (what, gguf) in [
            ("shape", shape.gguf()),
            ("missing", missing.gguf()),
            ("infinite", infinite),
        ] {
            let error = Decoder::load(&gguf, Weights::Blocks)
                .err()
                .map(|error| error.to_string());
            assert!(
                error.as_ref().is_some_and(|error| error.contains(victim)),
                "{what} {victim}: {error:?}"
            );
        }
    }
    // A bias, or any other tensor that would be ignored, makes it another model.
    let mut bias = parts();
    bias.tensors
        .push(("blk.0.attn_q.bias".into(), vec![4], vec![1.0; 4]));
    let error = Decoder::load(&bias.gguf(), Weights::F32).err();
    assert!(error.is_some_and(|error| error.to_string().contains("blk.0.attn_q.bias")));
}

#[test]
fn an_output_matrix_of_its_own_replaces_the_embedding() {
    let base = decoder();
    let mut untied = parts();
    let output = untied
        .weights("token_embd.weight")
        .iter()
        .map(|x| 2.0 * x)
        .collect();
    untied.tensors.push((
        "output.weight".into(),
        vec![base.config().vocab, base.config().width],
        output,
    ));
    let untied = untied.decoder();
    let rows = Tensor::from_vec(hidden(&base, &[1, 2, 3], 3), &[3, base.config().width]).unwrap();
    let twice = base
        .logits(&rows)
        .unwrap()
        .mul_scalar(2.0)
        .unwrap()
        .into_vec::<f32>()
        .unwrap();
    assert_close(
        untied.logits(&rows).unwrap().as_slice().unwrap(),
        &twice,
        10.0 * CLOSE,
        "logits",
    );
}
