//! The plain caches against a naive f64 attention over rows that are kept one by one.

use half::f16;
use proptest::prelude::*;
use whittle_llama::cache::{CacheShape, PlainStore, Stored, TILE};
use whittle_llama::tensor_store::TensorStore;
use whittle_llama::{Error, KvStore, SequenceId, Span, Truncated, Visible};
use whittle_tensor::{Device, Tensor};

const SHAPE: CacheShape = CacheShape {
    layers: 2,
    kv_heads: 2,
    head_dim: 16,
};

fn plain<T: Stored>(shape: CacheShape) -> Box<dyn KvStore> {
    Box::new(PlainStore::<T>::new(shape).unwrap())
}

fn tensors(shape: CacheShape) -> Box<dyn KvStore> {
    Box::new(TensorStore::new(shape, &Device::Cpu).unwrap())
}

/// Numbers in -2..2 that depend on all arguments, so that no two rows look alike.
fn noise(seed: usize, len: usize) -> Vec<f32> {
    let mut x = (seed as u32).wrapping_mul(2_654_435_761) ^ 0x9e37_79b9;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        (x as f32 / u32::MAX as f32 - 0.5) * 4.0
    };
    // The first numbers of nearby seeds are alike.
    (0..8).for_each(|_| {
        next();
    });
    (0..len).map(|_| next()).collect()
}

fn tensor(values: &[f32], heads: usize, head_dim: usize) -> Tensor {
    Tensor::from_vec(
        values.to_vec(),
        &[values.len() / (heads * head_dim), heads, head_dim],
    )
    .unwrap()
}

/// One row of keys, or of values, of one token in one layer.
fn row(shape: CacheShape, token: usize, layer: usize, what: usize) -> Vec<f32> {
    noise(
        token * 64 + layer * 2 + what,
        shape.kv_heads * shape.head_dim,
    )
}

/// Appends tokens, known by number, to all layers.
fn append(store: &mut dyn KvStore, shape: CacheShape, batch: &[(SequenceId, &[usize])]) {
    let spans: Vec<Span> = batch
        .iter()
        .map(|&(sequence, tokens)| Span {
            sequence,
            tokens: tokens.len(),
        })
        .collect();
    for layer in 0..shape.layers {
        let rows = |what| -> Vec<f32> {
            batch
                .iter()
                .flat_map(|batch| batch.1)
                .flat_map(|&token| row(shape, token, layer, what))
                .collect()
        };
        let k = tensor(&rows(0), shape.kv_heads, shape.head_dim);
        let v = tensor(&rows(1), shape.kv_heads, shape.head_dim);
        store.append(layer, &spans, &k, &v).unwrap();
    }
}

/// Attention of query row `q` `[heads, head_dim]` over tokens known by number, in f64, with values rounded as `T` does.
fn oracle<T: Stored>(
    shape: CacheShape,
    layer: usize,
    tokens: &[usize],
    q: &[f32],
    scale: f32,
) -> Vec<f64> {
    let CacheShape {
        kv_heads, head_dim, ..
    } = shape;
    let group = q.len() / head_dim / kv_heads;
    let rounded = |token: usize, what: usize| -> Vec<f64> {
        let row = row(shape, token, layer, what);
        let mut scratch = vec![0.0; row.len()];
        T::widen(&T::narrow(&row), &mut scratch)
            .iter()
            .map(|&x| f64::from(x))
            .collect()
    };
    let keys: Vec<_> = tokens.iter().map(|&token| rounded(token, 0)).collect();
    let values: Vec<_> = tokens.iter().map(|&token| rounded(token, 1)).collect();
    q.chunks_exact(head_dim)
        .enumerate()
        .flat_map(|(head, q)| {
            let at = head / group * head_dim;
            let weights: Vec<f64> = keys
                .iter()
                .map(|k| {
                    q.iter()
                        .zip(&k[at..])
                        .map(|(&q, k)| f64::from(q) * k)
                        .sum::<f64>()
                        * f64::from(scale)
                })
                .map(f64::exp)
                .collect();
            let sum: f64 = weights.iter().sum();
            (0..head_dim)
                .map(|d| {
                    weights
                        .iter()
                        .zip(&values)
                        .map(|(w, v)| w * v[at + d])
                        .sum::<f64>()
                        / sum
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Attention output of the newest `queries` rows of one sequence.
fn attend(
    store: &mut dyn KvStore,
    layer: usize,
    sequence: SequenceId,
    q: &[f32],
    heads: usize,
    head_dim: usize,
    visible: Visible<'_>,
) -> Vec<f32> {
    let q = tensor(q, heads, head_dim);
    let span = Span {
        sequence,
        tokens: q.shape()[0],
    };
    store
        .attend(layer, &[span], &q, 0.25, visible)
        .unwrap()
        .into_vec()
        .unwrap()
}

fn assert_close(found: &[f32], expected: &[f64], context: &str) {
    assert_eq!(found.len(), expected.len(), "{context}");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        // Scores are sums of up to 128 products below 4, values are below 2: a few hundred roundings of 2^-24 each.
        assert!(
            (f64::from(found) - expected).abs() < 3e-5,
            "{context}: element {i} is {found}, not {expected}"
        );
    }
}

fn equals_the_oracle<T: Stored>(store: fn(CacheShape) -> Box<dyn KvStore>) {
    for (kv_heads, group, head_dim) in [(1, 1, 2), (2, 3, 16), (1, 4, 80), (3, 3, 64)] {
        let shape = CacheShape {
            layers: 1,
            kv_heads,
            head_dim,
        };
        let heads = kv_heads * group;
        for (before, queries) in [
            (0, 1),
            (0, 31),
            (1, 32),
            (31, 2),
            (0, 33),
            (63, 65),
            (510, 3),
            (600, 1),
            (1030, 2),
        ] {
            let tokens: Vec<usize> = (0..before + queries).collect();
            let store = &mut *store(shape);
            let sequence = store.sequence().unwrap();
            append(store, shape, &[(sequence, &tokens)]);
            let q = noise(7, queries * heads * head_dim);
            let out = attend(store, 0, sequence, &q, heads, head_dim, Visible::Causal);
            let row_len = heads * head_dim;
            for (i, (q, out)) in q
                .chunks_exact(row_len)
                .zip(out.chunks_exact(row_len))
                .enumerate()
            {
                let expected = oracle::<T>(shape, 0, &tokens[..=before + i], q, 0.25);
                assert_close(
                    out,
                    &expected,
                    &format!("{kv_heads}x{group}x{head_dim}, {before} + row {i}"),
                );
            }
        }
    }
}

#[test]
fn attention_of_the_f32_cache_equals_the_f64_oracle() {
    equals_the_oracle::<f32>(plain::<f32>);
}

#[test]
fn attention_of_tensors_equals_the_f64_oracle() {
    equals_the_oracle::<f32>(tensors);
}

#[test]
fn attention_of_the_f16_cache_equals_the_f64_oracle_on_rounded_rows() {
    equals_the_oracle::<f16>(plain::<f16>);
}

#[test]
fn rows_come_out_the_same_to_the_bit_in_any_chunks_batch_and_number_of_threads() {
    let heads = 4;
    let lengths = [700, 1, 65];
    let row_len = heads * SHAPE.head_dim;
    let tokens: Vec<Vec<usize>> = lengths
        .iter()
        .enumerate()
        .map(|(i, &len)| (i * 1000..i * 1000 + len).collect())
        .collect();
    let queries: Vec<Vec<f32>> = lengths
        .iter()
        .enumerate()
        .map(|(i, len)| noise(i, len * row_len))
        .collect();

    // Each sequence alone, a token at a time, on one thread.
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let expected: Vec<Vec<f32>> = one.install(|| {
        let mut store = PlainStore::<f16>::new(SHAPE).unwrap();
        let alone = |(tokens, q): (&Vec<usize>, &Vec<f32>)| {
            let sequence = store.sequence().unwrap();
            let rows = tokens.iter().zip(q.chunks_exact(row_len));
            rows.flat_map(|(&token, q)| {
                append(&mut store, SHAPE, &[(sequence, &[token])]);
                attend(
                    &mut store,
                    1,
                    sequence,
                    q,
                    heads,
                    SHAPE.head_dim,
                    Visible::Causal,
                )
            })
            .collect()
        };
        tokens.iter().zip(&queries).map(alone).collect()
    });

    // All together, at once, on three threads.
    let three = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    let out: Vec<f32> = three.install(|| {
        let mut store = PlainStore::<f16>::new(SHAPE).unwrap();
        let batch: Vec<(SequenceId, &[usize])> = tokens
            .iter()
            .map(|tokens| (store.sequence().unwrap(), &tokens[..]))
            .collect();
        append(&mut store, SHAPE, &batch);
        let spans: Vec<Span> = batch
            .iter()
            .map(|&(sequence, tokens)| Span {
                sequence,
                tokens: tokens.len(),
            })
            .collect();
        let q = tensor(&queries.concat(), heads, SHAPE.head_dim);
        store
            .attend(1, &spans, &q, 0.25, Visible::Causal)
            .unwrap()
            .into_vec()
            .unwrap()
    });
    assert!(out == expected.concat());
}

#[test]
fn a_tree_row_sees_the_prefix_its_ancestors_and_itself() {
    // 0 - 1 - 3        and a second root 4 - 5
    //  \- 2
    let parents = [None, Some(0), Some(0), Some(1), None, Some(4)];
    let paths: [&[usize]; 6] = [&[0], &[0, 1], &[0, 2], &[0, 1, 3], &[4], &[4, 5]];
    let heads = 6;
    let row_len = heads * SHAPE.head_dim;
    let stores = [plain::<f32>, tensors];
    for (before, store) in [0, 1, 29, 32, 520]
        .into_iter()
        .flat_map(|before| stores.map(|store| (before, store)))
    {
        let store = &mut *store(SHAPE);
        let sequence = store.sequence().unwrap();
        let prefix: Vec<usize> = (100..100 + before).collect();
        append(store, SHAPE, &[(sequence, &prefix)]);
        append(store, SHAPE, &[(sequence, &[0, 1, 2, 3, 4, 5])]);
        let q = noise(3, parents.len() * row_len);
        let out = attend(
            store,
            1,
            sequence,
            &q,
            heads,
            SHAPE.head_dim,
            Visible::Tree(&parents),
        );
        for (i, (q, out)) in q
            .chunks_exact(row_len)
            .zip(out.chunks_exact(row_len))
            .enumerate()
        {
            let seen: Vec<usize> = prefix.iter().chain(paths[i]).copied().collect();
            let expected = oracle::<f32>(SHAPE, 1, &seen, q, 0.25);
            assert_close(out, &expected, &format!("row {i} after {before}"));
        }
    }
}

#[test]
fn retain_leaves_what_the_accepted_rows_alone_would_have_left() {
    let prefix: Vec<usize> = (0..TILE + 30).collect();
    let mut store = PlainStore::<f16>::new(SHAPE).unwrap();
    let tree = store.sequence().unwrap();
    append(&mut store, SHAPE, &[(tree, &prefix)]);
    let fork = store.fork(tree).unwrap();
    append(&mut store, SHAPE, &[(tree, &[500, 501, 502, 503, 504])]);
    store.retain(tree, prefix.len(), &[0, 2, 4]).unwrap();
    append(&mut store, SHAPE, &[(tree, &[600])]);
    append(&mut store, SHAPE, &[(fork, &[500, 502, 504, 600])]);
    assert_eq!(store.len(tree).unwrap(), prefix.len() + 4);
    let q = noise(1, 2 * SHAPE.head_dim);
    let outs = [tree, fork].map(|sequence| {
        [0, 1].map(|layer| {
            attend(
                &mut store,
                layer,
                sequence,
                &q,
                2,
                SHAPE.head_dim,
                Visible::Causal,
            )
        })
    });
    assert_eq!(outs[0], outs[1]);
}

/// One change of a store, its numbers taken modulo what is possible.
#[derive(Clone, Debug)]
enum Change {
    Start,
    Append {
        sequence: usize,
        tokens: usize,
    },
    Fork {
        sequence: usize,
    },
    Truncate {
        sequence: usize,
        len: usize,
    },
    Retain {
        sequence: usize,
        from: usize,
        mask: u64,
    },
    Free {
        sequence: usize,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let n = 0..1000usize;
    prop_oneof![
        Just(Change::Start),
        (n.clone(), 0..80usize).prop_map(|(sequence, tokens)| Change::Append { sequence, tokens }),
        (n.clone(), 0..80usize).prop_map(|(sequence, tokens)| Change::Append { sequence, tokens }),
        n.clone().prop_map(|sequence| Change::Fork { sequence }),
        (n.clone(), n.clone()).prop_map(|(sequence, len)| Change::Truncate { sequence, len }),
        (n.clone(), n.clone(), any::<u64>()).prop_map(|(sequence, from, mask)| Change::Retain {
            sequence,
            from,
            mask
        }),
        n.prop_map(|sequence| Change::Free { sequence }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_course_of_changes_leaves_the_tokens_of_a_naive_list(changes in prop::collection::vec(change(), 1..24)) {
        for mut store in [plain::<f32>(SHAPE), tensors(SHAPE)] {
            let store = &mut *store;
            let mut model: Vec<(SequenceId, Vec<usize>)> = vec![];
            let mut token = 0;
            for change in &changes {
                let len = model.len();
                if len == 0 || matches!(change, Change::Start) {
                    model.push((store.sequence().unwrap(), vec![]));
                    continue;
                }
                match *change {
                    Change::Start => {}
                    Change::Append { sequence, tokens } => {
                        let (id, held) = &mut model[sequence % len];
                        let new: Vec<usize> = (token..token + tokens).collect();
                        token += tokens;
                        append(store, SHAPE, &[(*id, &new)]);
                        held.extend(new);
                    }
                    Change::Fork { sequence } => {
                        let (id, held) = model[sequence % len].clone();
                        model.push((store.fork(id).unwrap(), held));
                    }
                    Change::Truncate { sequence, len: to } => {
                        let (id, held) = &mut model[sequence % len];
                        let to = to % (held.len() + 1);
                        prop_assert_eq!(store.truncate(*id, to).unwrap(), Truncated::Exact);
                        held.truncate(to);
                    }
                    Change::Retain { sequence, from, mask } => {
                        let (id, held) = &mut model[sequence % len];
                        let from = from % (held.len() + 1);
                        let rows: Vec<usize> = (0..held.len() - from).filter(|i| mask >> (i % 64) & 1 == 1).collect();
                        store.retain(*id, from, &rows).unwrap();
                        let kept: Vec<usize> = rows.iter().map(|row| held[from + row]).collect();
                        held.truncate(from);
                        held.extend(kept);
                    }
                    Change::Free { sequence } => {
                        let (id, _) = model.swap_remove(sequence % len);
                        store.free(id).unwrap();
                        prop_assert!(store.len(id).is_err());
                    }
                }
            }
            for (id, held) in &model {
                prop_assert_eq!(store.len(*id).unwrap(), held.len());
                if held.is_empty() {
                    continue;
                }
                let q = noise(9, 4 * SHAPE.head_dim);
                for layer in 0..SHAPE.layers {
                    let out = attend(store, layer, *id, &q, 4, SHAPE.head_dim, Visible::Causal);
                    assert_close(&out, &oracle::<f32>(SHAPE, layer, held, &q, 0.25), "after all changes");
                }
            }
            for (id, _) in model {
                store.free(id).unwrap();
            }
            prop_assert_eq!(store.bytes(), 0);
        }
    }
}

#[test]
fn bytes_count_each_page_once_and_grow_by_whole_pages() {
    let page =
        SHAPE.kv_heads * 2 * TILE * SHAPE.head_dim * size_of::<f16>() + 2 * size_of::<usize>();
    let mut store = PlainStore::<f16>::new(SHAPE).unwrap();
    let sequence = store.sequence().unwrap();
    assert_eq!(store.bytes(), 0);
    let pages = |bytes: usize| bytes / page;
    append(&mut store, SHAPE, &[(sequence, &[0])]);
    assert_eq!(pages(store.bytes()), SHAPE.layers);
    let more: Vec<usize> = (1..TILE).collect();
    append(&mut store, SHAPE, &[(sequence, &more)]);
    assert_eq!(pages(store.bytes()), SHAPE.layers);
    append(&mut store, SHAPE, &[(sequence, &[TILE])]);
    assert_eq!(pages(store.bytes()), 2 * SHAPE.layers);
    // A fork shares all pages until one side writes to the last.
    let fork = store.fork(sequence).unwrap();
    assert_eq!(pages(store.bytes()), 2 * SHAPE.layers);
    append(&mut store, SHAPE, &[(fork, &[7])]);
    assert_eq!(pages(store.bytes()), 3 * SHAPE.layers);
    store.free(sequence).unwrap();
    assert_eq!(pages(store.bytes()), 2 * SHAPE.layers);
}

#[test]
fn a_value_that_does_not_fit_is_named_and_leaves_the_store_as_it_was() {
    let row_len = SHAPE.kv_heads * SHAPE.head_dim;
    let mut store = PlainStore::<f16>::new(SHAPE).unwrap();
    let first = store.sequence().unwrap();
    let second = store.sequence().unwrap();
    let spans = [
        Span {
            sequence: first,
            tokens: 2,
        },
        Span {
            sequence: second,
            tokens: 3,
        },
    ];
    let good = tensor(&noise(0, 5 * row_len), SHAPE.kv_heads, SHAPE.head_dim);
    for found in [f32::NAN, f32::INFINITY, -65505.0, 65519.0] {
        let mut bad = noise(0, 5 * row_len);
        bad[3 * row_len + SHAPE.head_dim + 5] = found;
        let bad = tensor(&bad, SHAPE.kv_heads, SHAPE.head_dim);
        for (argument, k, v) in [("k", &bad, &good), ("v", &good, &bad)] {
            match store.append(1, &spans, k, v) {
                Err(Error::Value {
                    argument: name,
                    layer: 1,
                    sequence,
                    row: 1,
                    head: 1,
                    channel: 5,
                    found: x,
                    ..
                }) => {
                    assert_eq!(
                        (name, sequence, x.to_bits()),
                        (argument, second, found.to_bits())
                    );
                }
                other => panic!("{argument} with {found}: {other:?}"),
            }
        }
    }
    assert_eq!(store.bytes(), 0);
    // What f16 refuses for its size, f32 takes.
    let mut store = PlainStore::<f32>::new(SHAPE).unwrap();
    let sequence = store.sequence().unwrap();
    let span = [Span {
        sequence,
        tokens: 1,
    }];
    let large = tensor(&vec![1e30; row_len], SHAPE.kv_heads, SHAPE.head_dim);
    store.append(0, &span, &large, &large).unwrap();
    let nan = tensor(&vec![f32::NAN; row_len], SHAPE.kv_heads, SHAPE.head_dim);
    assert!(matches!(
        store.append(0, &span, &nan, &nan),
        Err(Error::Value { .. })
    ));
}

#[test]
fn a_query_or_a_scale_that_is_not_finite_is_an_error() {
    let mut store = PlainStore::<f16>::new(SHAPE).unwrap();
    let [first, second] = [(); 2].map(|()| store.sequence().unwrap());
    append(&mut store, SHAPE, &[(first, &[0, 1]), (second, &[2, 3, 4])]);
    let spans = [(first, 2), (second, 3)].map(|(sequence, tokens)| Span { sequence, tokens });
    // Four query heads on two key heads: the error counts query heads.
    let row_len = 4 * SHAPE.head_dim;
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut q = noise(0, 5 * row_len);
        q[4 * row_len + 3 * SHAPE.head_dim + 7] = bad;
        let error = store
            .attend(1, &spans, &tensor(&q, 4, 16), 0.25, Visible::Causal)
            .unwrap_err();
        match error {
            Error::Value {
                operation: "attend",
                argument: "q",
                layer: 1,
                sequence,
                row: 2,
                head: 3,
                channel: 7,
                found,
                ..
            } => assert_eq!((sequence, found.to_bits()), (second, bad.to_bits())),
            other => panic!("{bad}: {other}"),
        }
        let q = tensor(&noise(0, 5 * row_len), 4, 16);
        let error = store.attend(1, &spans, &q, bad, Visible::Causal);
        assert_eq!(
            error.unwrap_err().to_string(),
            format!("attend: scale: expected a finite number, found {bad}")
        );
        assert!(store.attend(1, &spans, &q, 0.25, Visible::Causal).is_ok());
    }
    // A query is not stored, so it may be larger than what f16 holds.
    let large = tensor(&vec![1e6; 5 * row_len], 4, 16);
    assert!(
        store
            .attend(1, &spans, &large, 0.25, Visible::Causal)
            .is_ok()
    );
}

#[test]
fn shapes_beyond_any_memory_are_errors() {
    let most = usize::MAX;
    for [layers, kv_heads, head_dim] in [
        [most, 1, 1],
        [1, most, 1],
        [1, 1, most],
        [most, most, most],
        [1, 1 << 32, 1 << 32],
        [1 << 20, 1 << 20, 1 << 20],
        [1, 1, isize::MAX as usize / 128],
    ] {
        let shape = CacheShape {
            layers,
            kv_heads,
            head_dim,
        };
        for error in [
            PlainStore::<f32>::new(shape).err(),
            PlainStore::<f16>::new(shape).err(),
        ] {
            assert!(
                matches!(
                    error,
                    Some(Error::Argument {
                        operation: "PlainStore::new",
                        argument: "shape",
                        ..
                    })
                ),
                "{shape:?}: {error:?}"
            );
        }
    }
    // Below that bound the sequence itself finds that there is no room.
    let shape = CacheShape {
        layers: 1 << 50,
        kv_heads: 1,
        head_dim: 1,
    };
    let mut store = PlainStore::<f32>::new(shape).unwrap();
    assert!(matches!(store.sequence(), Err(Error::Memory { .. })));
}

#[test]
fn bad_arguments_are_errors() {
    let zero = CacheShape {
        kv_heads: 0,
        ..SHAPE
    };
    assert!(PlainStore::<f32>::new(zero).is_err());
    let row_len = SHAPE.kv_heads * SHAPE.head_dim;
    let mut store = PlainStore::<f32>::new(SHAPE).unwrap();
    let sequence = store.sequence().unwrap();
    let span = |tokens| Span { sequence, tokens };
    let rows = |n: usize| tensor(&noise(n, n * row_len), SHAPE.kv_heads, SHAPE.head_dim);
    let (one, two) = (rows(1), rows(2));
    let stranger = SequenceId(99);

    store.append(0, &[span(2)], &two, &two).unwrap();
    let causal = Visible::Causal;
    // In the middle of a step: layer 1 has no rows yet.
    assert_eq!(store.len(sequence).unwrap(), 0);
    assert!(store.fork(sequence).is_err());
    assert!(store.retain(sequence, 0, &[]).is_err());
    store.append(1, &[span(2)], &two, &two).unwrap();

    let refused = [
        store.append(2, &[span(2)], &two, &two).err(),
        store.append(0, &[span(1)], &two, &two).err(),
        store.append(0, &[span(2)], &two, &one).err(),
        store.append(0, &[span(1), span(1)], &two, &two).err(),
        store
            .append(
                0,
                &[Span {
                    sequence: stranger,
                    tokens: 2,
                }],
                &two,
                &two,
            )
            .err(),
        store
            .append(0, &[span(2)], &two.reshape(&[2, 1, row_len]).unwrap(), &two)
            .err(),
        store.attend(2, &[span(2)], &two, 1.0, causal).err(),
        store.attend(0, &[span(1)], &two, 1.0, causal).err(),
        store.attend(0, &[span(3)], &rows(3), 1.0, causal).err(),
        store
            .attend(
                0,
                &[span(2)],
                &two.reshape(&[2, 1, row_len]).unwrap(),
                1.0,
                causal,
            )
            .err(),
        store
            .attend(
                0,
                &[span(2)],
                &two.reshape(&[4, 1, SHAPE.head_dim]).unwrap(),
                1.0,
                causal,
            )
            .err(),
        store
            .attend(0, &[span(2)], &two, 1.0, Visible::Tree(&[None]))
            .err(),
        store
            .attend(0, &[span(2)], &two, 1.0, Visible::Tree(&[Some(1), None]))
            .err(),
        store
            .attend(0, &[span(2)], &two, 1.0, Visible::Tree(&[Some(0), None]))
            .err(),
        store.truncate(sequence, 3).err(),
        store.retain(sequence, 0, &[1, 0]).err(),
        store.retain(sequence, 1, &[1]).err(),
        store.retain(sequence, 3, &[]).err(),
        store.len(stranger).err(),
        store.fork(stranger).err(),
        store.hold(stranger).err(),
        store.commit(stranger).err(),
        store.free(stranger).err(),
    ];
    for (i, error) in refused.into_iter().enumerate() {
        assert!(
            matches!(error, Some(Error::Argument { .. })),
            "call {i}: {error:?}"
        );
    }
    assert_eq!(store.len(sequence).unwrap(), 2);
}
