//! One test for each trap that other implementations fell into (`trap_<n>`); those of the quantiser alone stand in
//! `quantize.rs`, those that count bytes in `memory.rs`.

mod naive;

use naive::{Naive, rows};
use whittle_kivi::{
    Cache, Config, Error, GroupSize, HeadDim, Policy, Prefill, SequenceId, Shape, Span, TokenCodes,
    Truncated, Window,
};
use whittle_tensor::{Device, Tensor};

const HEAD_DIM: usize = 32;

fn shape(layers: usize, kv_heads: usize, group: usize) -> Shape {
    Shape {
        layers,
        query_heads: kv_heads * group,
        kv_heads,
        head_dim: HeadDim::new(HEAD_DIM).unwrap(),
    }
}

fn cache(shape: Shape, config: Config) -> Cache {
    Cache::new(shape, Policy::uniform(config), &Device::Cpu).unwrap()
}

fn streaming_kivi_2() -> Config {
    Config::kivi_2().with_prefill(Prefill::Streaming)
}

/// All keys, values and queries of one sequence; any part of it can be fed.
struct Source {
    shape: Shape,
    k: Vec<f32>,
    v: Vec<f32>,
    q: Vec<f32>,
}

impl Source {
    fn new(shape: Shape, seed: u64, tokens: usize) -> Self {
        Self {
            shape,
            k: rows(seed, tokens, shape.kv_heads, HEAD_DIM),
            v: rows(seed + 1, tokens, shape.kv_heads, HEAD_DIM),
            q: rows(seed + 2, tokens, shape.query_heads, HEAD_DIM),
        }
    }

    fn part(of: &[f32], heads: usize, tokens: std::ops::Range<usize>) -> &[f32] {
        &of[tokens.start * heads * HEAD_DIM..tokens.end * heads * HEAD_DIM]
    }

    /// Appends the tokens to every layer and attends to them; the output of the last layer.
    fn feed(
        &self,
        cache: &mut Cache,
        sequence: SequenceId,
        tokens: std::ops::Range<usize>,
    ) -> Vec<f32> {
        let spans = [Span {
            sequence,
            tokens: tokens.len(),
        }];
        let kv_heads = self.shape.kv_heads;
        let (k, v) = (
            Self::part(&self.k, kv_heads, tokens.clone()),
            Self::part(&self.v, kv_heads, tokens.clone()),
        );
        let q = Self::part(&self.q, self.shape.query_heads, tokens);
        let mut out = vec![0.0; q.len()];
        for layer in 0..self.shape.layers {
            cache.append_rows(layer, &spans, k, v).unwrap();
            cache.attend_rows(layer, &spans, q, 0.2, &mut out).unwrap();
        }
        out
    }
}

fn codes(cache: &Cache, sequence: SequenceId) -> Vec<TokenCodes> {
    let shape = *cache.shape();
    let mut all = vec![];
    for layer in 0..shape.layers {
        for head in 0..shape.kv_heads {
            for token in 0..cache.len(sequence).unwrap() {
                all.push(cache.codes(layer, sequence, head, token).unwrap());
            }
        }
    }
    all
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn trap_1_several_queries_after_a_cache_give_the_right_rows_to_the_bit() {
    for config in [streaming_kivi_2(), Config::compact(), Config::balanced()] {
        let shape = shape(1, 2, 3);
        let source = Source::new(shape, 1, 400);
        let mut one = cache(shape, config);
        let sequence = one.sequence().unwrap();
        let single: Vec<f32> = (0..400)
            .flat_map(|t| source.feed(&mut one, sequence, t..t + 1))
            .collect();
        for steps in [
            &[400][..],
            &[1, 399],
            &[129, 1, 16, 254],
            &[128, 128, 128, 16],
            &[7; 57],
        ] {
            let mut many = cache(shape, config);
            let sequence = many.sequence().unwrap();
            let mut at = 0;
            let mut chunked = vec![];
            for &tokens in steps {
                chunked.extend(source.feed(&mut many, sequence, at..at + tokens));
                at += tokens;
            }
            assert_eq!(bits(&chunked), bits(&single[..chunked.len()]), "{steps:?}");
        }
    }
}

#[test]
fn trap_2_grouped_queries_decode_after_prompts_around_the_residual_length() {
    for prefill in [Prefill::Exact, Prefill::Streaming] {
        for prompt in [1, 2, 31, 127, 128, 129, 130, 160, 255, 256, 257, 300] {
            let shape = shape(1, 1, 4);
            let config = Config::kivi_2().with_prefill(prefill);
            let mut cache = cache(shape, config);
            let sequence = cache.sequence().unwrap();
            let mut naive = Naive::new(shape, config);
            let source = Source::new(shape, 2, prompt + 3);
            for tokens in [
                0..prompt,
                prompt..prompt + 1,
                prompt + 1..prompt + 2,
                prompt + 2..prompt + 3,
            ] {
                let out = source.feed(&mut cache, sequence, tokens.clone());
                naive.append(
                    Source::part(&source.k, 1, tokens.clone()),
                    Source::part(&source.v, 1, tokens.clone()),
                );
                let q = Source::part(&source.q, 4, tokens.clone());
                let expected = naive.attend(q, tokens.len(), 0.2);
                for (x, e) in out.iter().zip(&expected) {
                    assert!(
                        (f64::from(*x) - e).abs() < 2e-3,
                        "{prefill:?}, prompt {prompt}, tokens {tokens:?}: {x}, not {e}"
                    );
                }
                let keys = tokens.end / 128 * 128;
                let values = tokens.end.saturating_sub(128);
                let found = cache.quantised(0, sequence).unwrap();
                assert_eq!(
                    found,
                    (keys, values),
                    "{prefill:?}, prompt {prompt}, {tokens:?}"
                );
            }
        }
    }
}

#[test]
fn trap_3_a_ragged_batch_equals_each_sequence_alone_to_the_bit() {
    for config in [streaming_kivi_2(), Config::compact(), Config::small()] {
        let shape = shape(1, 2, 2);
        // Three sequences, three steps; one sequence rests in the second.
        let steps = [[150, 3, 77], [1, 0, 64], [5, 200, 1]];
        let sources: Vec<Source> = (0..3)
            .map(|s| Source::new(shape, 10 * s + 5, 400))
            .collect();
        let mut together = cache(shape, config);
        let sequences: Vec<SequenceId> = (0..3).map(|_| together.sequence().unwrap()).collect();
        let mut alone: Vec<(Cache, SequenceId)> = (0..3)
            .map(|_| {
                let mut cache = cache(shape, config);
                let sequence = cache.sequence().unwrap();
                (cache, sequence)
            })
            .collect();
        let mut at = [0; 3];
        for step in steps {
            let spans: Vec<Span> = (0..3)
                .map(|s| Span {
                    sequence: sequences[s],
                    tokens: step[s],
                })
                .collect();
            let gather = |of: fn(&Source) -> &[f32], heads: usize| -> Vec<f32> {
                (0..3)
                    .flat_map(|s| {
                        Source::part(of(&sources[s]), heads, at[s]..at[s] + step[s]).to_vec()
                    })
                    .collect()
            };
            let (k, v, q) = (
                gather(|s| &s.k, 2),
                gather(|s| &s.v, 2),
                gather(|s| &s.q, 4),
            );
            let mut out = vec![0.0; q.len()];
            together.append_rows(0, &spans, &k, &v).unwrap();
            together.attend_rows(0, &spans, &q, 0.2, &mut out).unwrap();
            let mut expected = vec![];
            for s in 0..3 {
                let (cache, sequence) = &mut alone[s];
                expected.extend(sources[s].feed(cache, *sequence, at[s]..at[s] + step[s]));
                at[s] += step[s];
            }
            assert_eq!(bits(&out), bits(&expected));
        }
        for s in 0..3 {
            assert_eq!(
                codes(&together, sequences[s]),
                codes(&alone[s].0, alone[s].1)
            );
        }
    }
}

#[test]
fn trap_4_codes_do_not_depend_on_how_tokens_were_chunked() {
    for config in [
        streaming_kivi_2(),
        Config::compact().with_window(Window::Sliding { residual_len: 0 }),
    ] {
        let shape = shape(2, 2, 1);
        let source = Source::new(shape, 3, 340);
        let mut expected: Option<Vec<TokenCodes>> = None;
        for steps in [
            vec![340],
            vec![1; 340],
            vec![40, 300],
            vec![33, 1, 128, 178],
            vec![64; 5],
        ] {
            let mut cache = cache(shape, config);
            let sequence = cache.sequence().unwrap();
            let mut at = 0;
            for tokens in steps {
                source.feed(&mut cache, sequence, at..at + tokens);
                at += tokens;
            }
            source.feed(&mut cache, sequence, at..340);
            let found = codes(&cache, sequence);
            assert!(found.iter().filter(|codes| codes.key.is_some()).count() >= 4 * 256);
            assert_eq!(&found, expected.get_or_insert_with(|| found.clone()));
        }
    }
}

#[test]
fn trap_5_tokens_that_age_are_quantised_in_whole_groups_and_the_window_stays_small() {
    for config in [
        streaming_kivi_2(),
        Config::compact(),
        Config::small(),
        Config::safe(),
    ] {
        let shape = shape(1, 1, 1);
        let source = Source::new(shape, 4, 700);
        let mut cache = cache(shape, config);
        let sequence = cache.sequence().unwrap();
        source.feed(&mut cache, sequence, 0..10);
        let (group, residual) = (config.group_size.get(), config.window.residual_len());
        for t in 10..700 {
            source.feed(&mut cache, sequence, t..t + 1);
            let (keys, values) = cache.quantised(0, sequence).unwrap();
            assert!(keys % group == 0, "{keys} keys are no whole groups");
            let window = t + 1 - config.sink_len.min(t + 1) - keys.min(values);
            assert!(
                window < residual + group + 1,
                "token {t}: {window} tokens in 16 bits"
            );
        }
        // A group of one would hold its token without an error: several codes must occur in one channel.
        let column = |d: usize| {
            let mut seen: Vec<u8> = (0..group)
                .map(|t| {
                    cache
                        .codes(0, sequence, 0, config.sink_len + t)
                        .unwrap()
                        .key
                        .unwrap()
                        .codes[d]
                })
                .collect();
            seen.sort_unstable();
            seen.dedup();
            seen.len()
        };
        assert!(
            (0..HEAD_DIM).all(|d| column(d) >= 3),
            "an aged channel has hardly any codes"
        );
    }
}

#[test]
fn trap_7_codes_are_frozen() {
    for config in [streaming_kivi_2(), Config::balanced()] {
        let shape = shape(1, 2, 1);
        let source = Source::new(shape, 6, 600);
        let mut cache = cache(shape, config);
        let sequence = cache.sequence().unwrap();
        source.feed(&mut cache, sequence, 0..200);
        let before = codes(&cache, sequence);
        assert!(
            before
                .iter()
                .any(|codes| codes.key.is_some() && codes.value.is_some())
        );
        for t in 200..600 {
            source.feed(&mut cache, sequence, t..t + 1);
        }
        let after = codes(&cache, sequence);
        for (i, TokenCodes { key: k, value: v }) in before.iter().enumerate() {
            let now = &after[i / 200 * 600 + i % 200];
            assert!(k.is_none() || k == &now.key, "keys of token {}", i % 200);
            assert!(
                v.is_none() || v == &now.value,
                "values of token {}",
                i % 200
            );
        }
    }
}

#[test]
fn trap_8_values_that_16_bits_cannot_hold_are_errors_that_name_the_place_and_change_nothing() {
    let shape = shape(1, 2, 1);
    for config in [Config::compact(), streaming_kivi_2()] {
        let source = Source::new(shape, 7, 150);
        let mut cache = cache(shape, config);
        let sequence = cache.sequence().unwrap();
        source.feed(&mut cache, sequence, 0..149);
        let (before, bytes) = (codes(&cache, sequence), cache.bytes());
        let good = vec![0.5; 3 * 2 * HEAD_DIM];
        let spans = [Span {
            sequence,
            tokens: 3,
        }];
        for (bad, what) in [
            (f32::NAN, "NaN"),
            (f32::INFINITY, "inf"),
            (1e6, "1000000"),
            (-65_536.0, "-65536"),
        ] {
            for of_values in [false, true] {
                if of_values && config.rotate_values && bad == -65_536.0 {
                    // Spread over all channels by the rotation, it fits.
                    continue;
                }
                let mut rows = good.clone();
                rows[2 * HEAD_DIM + HEAD_DIM + 5] = bad;
                let (k, v) = if of_values {
                    (&good, &rows)
                } else {
                    (&rows, &good)
                };
                let error = cache.append_rows(0, &spans, k, v).unwrap_err();
                let text = error.to_string();
                let side = if of_values { "values" } else { "keys" };
                for part in [side, "layer 0", "token 150", "head 1"] {
                    assert!(text.contains(part), "{text}");
                }
                // The rotation spreads a value that is too large over its channels; all else is named exactly.
                if !(of_values && config.rotate_values && bad.is_finite()) {
                    assert!(text.contains("channel 5") && text.contains(what), "{text}");
                }
                assert!(matches!(
                    error,
                    Error::NonFinite { .. } | Error::OutOfRange { .. }
                ));
                assert_eq!(cache.len(sequence).unwrap(), 149);
                assert_eq!((&codes(&cache, sequence), cache.bytes()), (&before, bytes));
            }
        }
        let mut out = vec![0.0; 2 * HEAD_DIM];
        let one = [Span {
            sequence,
            tokens: 1,
        }];
        let q = vec![f32::NAN; 2 * HEAD_DIM];
        assert!(matches!(
            cache.attend_rows(0, &one, &q, 0.2, &mut out),
            Err(Error::NonFinite { .. })
        ));
    }
}

#[test]
fn trap_8_constant_and_extreme_channels_stay_finite_and_exact_where_they_can() {
    let shape = shape(1, 1, 1);
    for config in [
        Config::compact(),
        streaming_kivi_2(),
        Config::safe().with_rotate_values(true),
    ] {
        for constant in [0.0, 1.5, -65_504.0 / 16.0, 6e-8] {
            let mut cache = cache(shape, config);
            let sequence = cache.sequence().unwrap();
            let rows = vec![constant; 200 * HEAD_DIM];
            let spans = [Span {
                sequence,
                tokens: 200,
            }];
            let mut out = vec![0.0; 200 * HEAD_DIM];
            cache.append_rows(0, &spans, &rows, &rows).unwrap();
            cache
                .attend_rows(0, &spans, &vec![0.1; 200 * HEAD_DIM], 0.2, &mut out)
                .unwrap();
            // A rotated constant is one loud channel: its f16 minimum and three f16 scales add up to 4 in 1,000.
            let tolerance = f64::from(constant.abs()) * 4e-3 + 1e-7;
            for &x in &out {
                assert!(
                    (f64::from(x) - f64::from(constant)).abs() <= tolerance,
                    "{constant} became {x}"
                );
            }
        }
    }
}

#[test]
fn trap_10_bytes_read_do_not_grow_with_the_query_group() {
    let read = |group: usize, config: Config| {
        let shape = shape(1, 2, group);
        let source = Source::new(shape, 8, 401);
        let mut cache = cache(shape, config);
        let sequence = cache.sequence().unwrap();
        source.feed(&mut cache, sequence, 0..400);
        let before = cache.bytes_read();
        source.feed(&mut cache, sequence, 400..401);
        cache.bytes_read() - before
    };
    for config in [streaming_kivi_2(), Config::compact(), Config::balanced()] {
        let one = read(1, config);
        assert!(one > 0);
        for group in [2, 3, 8] {
            assert_eq!(read(group, config), one, "{group} query heads a kv head");
        }
    }
}

#[test]
fn trap_13_what_can_not_be_served_is_an_error() {
    let shape = shape(1, 1, 1);
    assert!(HeadDim::new(8).unwrap_err().to_string().contains('8'));
    assert!(GroupSize::new(24).is_err());
    let bad = Config::kivi_2().with_window(Window::SawTooth { residual_len: 100 });
    assert!(Cache::new(shape, Policy::uniform(bad), &Device::Cpu).is_err());
    let mut cache = cache(shape, Config::kivi_2());
    let sequence = cache.sequence().unwrap();
    let source = Source::new(shape, 9, 8);
    source.feed(&mut cache, sequence, 0..4);
    let rows = vec![0.0; 2 * HEAD_DIM];
    let two = [Span {
        sequence,
        tokens: 2,
    }];
    let error = cache.append_rows(0, &two, &rows, &rows).unwrap_err();
    assert!(
        matches!(
            error,
            Error::ExactPrefill {
                tokens: 2,
                len: 4,
                ..
            }
        ),
        "{error}"
    );

    let tensor =
        |shape: &[usize]| Tensor::from_vec(vec![0.0f32; shape.iter().product()], shape).unwrap();
    let one = [Span {
        sequence,
        tokens: 1,
    }];
    let good = tensor(&[1, 1, HEAD_DIM]);
    for wrong in [
        tensor(&[1, HEAD_DIM]),
        tensor(&[2, 1, HEAD_DIM]),
        tensor(&[1, 1, 16]),
    ] {
        let error = cache
            .append(0, &one, &wrong, &good)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("append") && error.contains("[1, 1, 32]"),
            "{error}"
        );
        assert!(cache.attend(0, &one, &wrong, 0.1).is_err());
    }
    assert!(matches!(
        cache.append(1, &one, &good, &good),
        Err(Error::UnknownLayer { layer: 1, .. })
    ));
    let other = [Span {
        sequence: SequenceId(7),
        tokens: 1,
    }];
    assert!(matches!(
        cache.append(0, &other, &good, &good),
        Err(Error::UnknownSequence { sequence: 7, .. })
    ));
    let twice = [one[0], one[0]];
    let two = tensor(&[2, 1, HEAD_DIM]);
    assert!(matches!(
        cache.append(0, &twice, &two, &two),
        Err(Error::RepeatedSequence { .. })
    ));
    let many = [Span {
        sequence,
        tokens: 5,
    }];
    assert!(
        cache
            .attend(0, &many, &tensor(&[5, 1, HEAD_DIM]), 0.1)
            .is_err(),
        "more queries than tokens"
    );
    assert!(cache.truncate(sequence, 5).is_err());
    cache.free(sequence).unwrap();
    assert!(cache.len(sequence).is_err());
}

#[test]
fn a_fork_does_not_change_codes_and_the_two_go_their_own_ways() {
    for config in [streaming_kivi_2(), Config::compact()] {
        let shape = shape(2, 1, 2);
        let (a, b) = (Source::new(shape, 11, 500), Source::new(shape, 12, 500));
        let mut cache = cache(shape, config);
        let first = cache.sequence().unwrap();
        a.feed(&mut cache, first, 0..300);
        let second = cache.fork(first).unwrap();
        assert_eq!(codes(&cache, first), codes(&cache, second));
        let shared = cache.memory().pages;
        let out_a = a.feed(&mut cache, first, 300..301);
        b.feed(&mut cache, second, 300..380);
        a.feed(&mut cache, first, 301..350);
        assert!(cache.memory().pages < 2 * shared, "full pages are shared");

        let mut alone = self::cache(shape, config);
        let sequence = alone.sequence().unwrap();
        a.feed(&mut alone, sequence, 0..300);
        assert_eq!(bits(&a.feed(&mut alone, sequence, 300..301)), bits(&out_a));
        a.feed(&mut alone, sequence, 301..350);
        assert_eq!(codes(&alone, sequence), codes(&cache, first));
        alone.truncate(sequence, 0).unwrap();
        a.feed(&mut alone, sequence, 0..300);
        b.feed(&mut alone, sequence, 300..380);
        assert_eq!(codes(&alone, sequence), codes(&cache, second));
        cache.free(first).unwrap();
        assert_eq!(codes(&alone, sequence), codes(&cache, second));
    }
}

#[test]
fn held_tokens_are_taken_back_as_if_they_had_never_come() {
    for config in [streaming_kivi_2(), Config::compact(), Config::small()] {
        let shape = shape(2, 2, 2);
        let (a, b) = (Source::new(shape, 21, 600), Source::new(shape, 22, 600));
        for (prompt, rejected, kept) in [(300, 8, 3), (300, 200, 0), (255, 130, 65), (100, 1, 0)] {
            let mut cache = cache(shape, config);
            let sequence = cache.sequence().unwrap();
            a.feed(&mut cache, sequence, 0..prompt);
            let plain = cache.fork(sequence).unwrap();
            cache.hold(sequence).unwrap();
            a.feed(&mut cache, sequence, prompt..prompt + kept);
            b.feed(&mut cache, sequence, prompt + kept..prompt + rejected);
            assert_eq!(
                cache.truncate(sequence, prompt + kept).unwrap(),
                Truncated::Exact
            );
            cache.commit(sequence).unwrap();
            a.feed(&mut cache, plain, prompt..prompt + kept);
            assert_eq!(
                codes(&cache, sequence),
                codes(&cache, plain),
                "{prompt} {rejected} {kept}"
            );
            let next = prompt + kept..prompt + kept + 150;
            let (x, y) = (
                a.feed(&mut cache, sequence, next.clone()),
                a.feed(&mut cache, plain, next),
            );
            assert_eq!(bits(&x), bits(&y));
            assert_eq!(codes(&cache, sequence), codes(&cache, plain));
        }
    }
}

#[test]
fn a_cut_block_keeps_its_codes_stays_short_and_new_blocks_follow_it() {
    for config in [streaming_kivi_2(), Config::compact()] {
        let shape = shape(1, 1, 1);
        let source = Source::new(shape, 31, 900);
        for len in [300, 150, 101, 100, 37, 36, 4, 3, 0] {
            let mut cache = cache(shape, config);
            let sequence = cache.sequence().unwrap();
            source.feed(&mut cache, sequence, 0..400);
            let before = codes(&cache, sequence);
            let coded = cache.quantised(0, sequence).unwrap().0 + config.sink_len;
            let done = cache.truncate(sequence, len).unwrap();
            assert_eq!(
                matches!(done, Truncated::Quantised { .. }),
                len < coded && len > config.sink_len,
                "{len}"
            );
            assert_eq!(codes(&cache, sequence), before[..len]);
            source.feed(&mut cache, sequence, 400..800);
            let after = codes(&cache, sequence);
            for (t, (was, is)) in before[..len].iter().zip(&after).enumerate() {
                assert!(
                    was.key.is_none() || was.key == is.key,
                    "keys of token {t} after a cut at {len}"
                );
                assert!(
                    was.value.is_none() || was.value == is.value,
                    "values of token {t} after a cut at {len}"
                );
            }
            let (keys, _) = cache.quantised(0, sequence).unwrap();
            assert!(
                len + 400 - keys - config.sink_len < 128 + 128,
                "new tokens age: {keys}"
            );
        }
    }
}

#[test]
fn layers_that_stand_at_different_lengths_or_commits_are_cut_to_one_state() {
    let shape = shape(2, 2, 1);
    for config in [streaming_kivi_2(), Config::compact()] {
        for len in [200, 150, 90, 77, 40, 3] {
            let source = Source::new(shape, 41, 900);
            let mut cache = cache(shape, config);
            let sequence = cache.sequence().unwrap();
            let feed_one =
                |cache: &mut Cache, layer: usize, tokens: std::ops::Range<usize>, attends: bool| {
                    let spans = [Span {
                        sequence,
                        tokens: tokens.len(),
                    }];
                    let k = Source::part(&source.k, 2, tokens.clone());
                    let v = Source::part(&source.v, 2, tokens.clone());
                    let q = Source::part(&source.q, 2, tokens);
                    cache.append_rows(layer, &spans, k, v).unwrap();
                    if attends {
                        cache
                            .attend_rows(layer, &spans, q, 0.2, &mut vec![0.0; q.len()])
                            .unwrap();
                    }
                };
            // Layer 0 goes on alone, as when layer 1 meets a bad value; layer 1 never attended, so it never committed.
            feed_one(&mut cache, 0, 0..300, true);
            feed_one(&mut cache, 1, 0..200, false);
            assert_eq!(cache.len(sequence).unwrap(), 200);
            assert!(matches!(
                cache.fork(sequence),
                Err(Error::LayersDiffer { .. })
            ));
            cache.truncate(sequence, len).unwrap();
            let after = cache.quantised(0, sequence).unwrap();
            assert_eq!(cache.quantised(1, sequence).unwrap(), after, "cut at {len}");
            source.feed(&mut cache, sequence, 300..600);
            let fork = cache.fork(sequence).unwrap();
            // What the cache attends to now is what its codes and 16-bit rows say, in both layers.
            let out = source.feed(&mut cache, fork, 600..601);
            assert!(out.iter().all(|x| x.is_finite()));
            assert_eq!(
                cache.quantised(0, sequence).unwrap(),
                cache.quantised(1, sequence).unwrap()
            );
            for token in config.sink_len..cache.quantised(1, sequence).unwrap().0 {
                let key = cache.codes(1, sequence, 1, token).unwrap().key.unwrap();
                let from = if token < len {
                    token
                } else {
                    300 + token - len
                };
                let exact = &Source::part(&source.k, 2, from..from + 1)[HEAD_DIM..];
                let error = key
                    .decoded
                    .iter()
                    .zip(exact)
                    .map(|(a, b)| (a - b).powi(2))
                    .sum::<f32>();
                let size = exact.iter().map(|x| x * x).sum::<f32>();
                assert!(
                    error < 0.7 * size,
                    "token {token} after a cut at {len}: {error} of {size}"
                );
            }
        }
    }
}

#[test]
fn a_cut_below_an_earlier_cut_says_what_stays_quantised() {
    let shape = shape(1, 1, 1);
    let source = Source::new(shape, 51, 400);
    let mut cache = cache(shape, Config::compact());
    let sequence = cache.sequence().unwrap();
    source.feed(&mut cache, sequence, 0..400);
    assert_eq!(
        cache.truncate(sequence, 300).unwrap(),
        Truncated::Quantised { from: 228 }
    );
    assert_eq!(
        cache.truncate(sequence, 280).unwrap(),
        Truncated::Quantised { from: 196 }
    );
    assert_eq!(cache.truncate(sequence, 3).unwrap(), Truncated::Exact);
}

#[test]
fn a_batch_whose_second_sequence_is_bad_leaves_both_as_they_were() {
    let shape = shape(1, 1, 1);
    let mut cache = cache(shape, Config::compact());
    let (a, b) = (cache.sequence().unwrap(), cache.sequence().unwrap());
    let empty = cache.bytes();
    let spans = [
        Span {
            sequence: a,
            tokens: 200,
        },
        Span {
            sequence: b,
            tokens: 1,
        },
    ];
    let mut rows = vec![0.5; 201 * HEAD_DIM];
    rows[200 * HEAD_DIM] = f32::NAN;
    let good = vec![0.5; 201 * HEAD_DIM];
    for (k, v) in [(&rows, &good), (&good, &rows)] {
        let error = cache.append_rows(0, &spans, k, v).unwrap_err().to_string();
        assert!(
            error.contains("sequence 1") && error.contains("token 0"),
            "{error}"
        );
        assert_eq!((cache.len(a).unwrap(), cache.len(b).unwrap()), (0, 0));
        assert_eq!(cache.bytes(), empty);
    }
    let huge = [
        Span {
            sequence: a,
            tokens: usize::MAX,
        },
        Span {
            sequence: b,
            tokens: 2,
        },
    ];
    assert!(matches!(
        cache.append_rows(0, &huge, &[], &[]),
        Err(Error::Shape { .. })
    ));
    let huge = [Span {
        sequence: a,
        tokens: usize::MAX / 2,
    }];
    assert!(matches!(
        cache.append_rows(0, &huge, &[], &[]),
        Err(Error::Shape { .. })
    ));
    cache.free(b).unwrap();
    assert_ne!(
        cache.sequence().unwrap(),
        b,
        "a number is never given twice"
    );
}

#[test]
fn sizes_that_no_machine_has_are_errors() {
    let good = shape(1, 1, 1);
    for config in [
        Config::compact().with_sink_len(usize::MAX),
        Config::compact().with_window(Window::Sliding {
            residual_len: usize::MAX,
        }),
        Config::kivi_2().with_window(Window::SawTooth {
            residual_len: usize::MAX / 32 * 32,
        }),
    ] {
        assert!(Cache::new(good, Policy::uniform(config), &Device::Cpu).is_err());
    }
    for shape in [
        Shape {
            layers: usize::MAX,
            ..good
        },
        Shape {
            kv_heads: 1 << 40,
            query_heads: 1 << 40,
            ..good
        },
        Shape { layers: 0, ..good },
    ] {
        let policy = Policy::uniform(Config::compact());
        assert!(Cache::new(shape, policy, &Device::Cpu).is_err());
    }
}

#[test]
fn output_does_not_depend_on_the_number_of_threads() {
    let shape = shape(1, 2, 2);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let source = Source::new(shape, 61, 1801);
            let mut cache = cache(shape, Config::compact());
            let sequence = cache.sequence().unwrap();
            let mut out = source.feed(&mut cache, sequence, 0..1800);
            out.extend(source.feed(&mut cache, sequence, 1800..1801));
            bits(&out)
        })
    };
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(5), one);
}

#[test]
fn random_operations_equal_a_naive_cache() {
    use whittle_tensor::random::Philox4x32;
    let shape = shape(1, 1, 2);
    for (c, config) in [
        streaming_kivi_2(),
        Config::compact(),
        Config::small(),
        Config::safe(),
    ]
    .into_iter()
    .enumerate()
    {
        let config = match config.window {
            Window::SawTooth { .. } => config.with_window(Window::SawTooth { residual_len: 64 }),
            Window::Sliding { .. } => config.with_window(Window::Sliding { residual_len: 40 }),
        };
        let mut random = Philox4x32::new(c as u64, 77);
        let mut cache = cache(shape, config);
        let mut live: Vec<(SequenceId, Naive)> = vec![];
        let mut seed = 1000;
        for step in 0..1000 {
            let mut draw = |n: usize| random.next_u32() as usize % n;
            if live.is_empty() || (live.len() < 4 && draw(12) == 0) {
                live.push((cache.sequence().unwrap(), Naive::new(shape, config)));
                continue;
            }
            let at = draw(live.len());
            match draw(16) {
                0 if live.len() < 4 => {
                    let fork = cache.fork(live[at].0).unwrap();
                    let twin = live[at].1.clone();
                    live.push((fork, twin));
                }
                1 if live.len() > 2 => {
                    let (sequence, _) = live.swap_remove(at);
                    cache.free(sequence).unwrap();
                }
                2 | 3 => {
                    let (sequence, naive) = &mut live[at];
                    let len = naive.len() - draw(naive.len().min(90) + 1);
                    cache.truncate(*sequence, len).unwrap();
                    naive.truncate(len);
                }
                4 => {
                    let (sequence, naive) = &mut live[at];
                    cache.hold(*sequence).unwrap();
                    naive.held = true;
                }
                5 => {
                    let (sequence, naive) = &mut live[at];
                    cache.commit(*sequence).unwrap();
                    naive.commit();
                }
                _ => {
                    let (sequence, naive) = &mut live[at];
                    if naive.len() > 300 {
                        cache.truncate(*sequence, 20).unwrap();
                        naive.truncate(20);
                    }
                    let tokens = 1 + draw(if step % 3 == 0 { 70 } else { 4 });
                    seed += 3;
                    let source = Source::new(shape, seed, tokens);
                    let out = source.feed(&mut cache, *sequence, 0..tokens);
                    naive.append(&source.k, &source.v);
                    let expected = naive.attend(&source.q, tokens, 0.2);
                    for (x, e) in out.iter().zip(&expected) {
                        assert!(
                            (f64::from(*x) - e).abs() < 2e-3,
                            "config {c}, step {step}: {x}, not {e}"
                        );
                    }
                }
            }
            for (sequence, naive) in &live {
                assert_eq!(cache.len(*sequence).unwrap(), naive.len());
                assert_eq!(
                    cache.quantised(0, *sequence).unwrap(),
                    naive.coded(),
                    "config {c}, step {step}"
                );
            }
        }
    }
}
