//! Attention against f64: every head size, group, number of queries and configuration.

mod naive;

use naive::{Naive, rows};
use proptest::prelude::*;
use whittle_kivi::{
    Arithmetic, Cache, Config, HeadDim, Policy, Prefill, SequenceId, Shape, Span, Window,
};
use whittle_tensor::{Device, random::Philox4x32};

fn shape(head_dim: usize, kv_heads: usize, group: usize) -> Shape {
    Shape {
        layers: 1,
        query_heads: kv_heads * group,
        kv_heads,
        head_dim: HeadDim::new(head_dim).unwrap(),
    }
}

fn configs() -> Vec<(&'static str, Config)> {
    vec![
        ("kivi_2", Config::kivi_2().with_prefill(Prefill::Streaming)),
        ("kivi_4", Config::kivi_4().with_prefill(Prefill::Streaming)),
        ("small", Config::small()),
        ("compact", Config::compact()),
        ("balanced", Config::balanced()),
        ("safe", Config::safe()),
    ]
}

/// Largest difference over the largest magnitude.
fn relative(found: &[f32], expected: &[f64]) -> f64 {
    let scale = expected.iter().fold(0.0f64, |a, x| a.max(x.abs()));
    let worst = found
        .iter()
        .zip(expected)
        .fold(0.0f64, |a, (&f, e)| a.max((f64::from(f) - e).abs()));
    assert_eq!(found.len(), expected.len());
    if scale > 0.0 { worst / scale } else { worst }
}

struct Pair {
    cache: Cache,
    naive: Naive,
    sequence: SequenceId,
    shape: Shape,
    seed: u64,
    /// Channels of keys, values and queries differ in size and offset; off for standard normal rows.
    loud: bool,
}

impl Pair {
    fn new(shape: Shape, config: Config, seed: u64) -> Self {
        let mut cache = Cache::new(shape, Policy::uniform(config), &Device::Cpu).unwrap();
        let sequence = cache.sequence().unwrap();
        Self {
            cache,
            naive: Naive::new(shape, config),
            sequence,
            shape,
            seed,
            loud: true,
        }
    }

    /// Appends and attends to `tokens` rows; the relative error.
    fn step(&mut self, tokens: usize) -> f64 {
        let Shape {
            query_heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        let head_dim = head_dim.get();
        self.seed += 3;
        let rows = |seed: u64, heads: usize| {
            if self.loud {
                return rows(seed, tokens, heads, head_dim);
            }
            let mut random = Philox4x32::new(seed, 1);
            (0..tokens * heads * head_dim)
                .map(|_| random.next_normal())
                .collect()
        };
        let (k, v) = (rows(self.seed, kv_heads), rows(self.seed + 1, kv_heads));
        let q = rows(self.seed + 2, query_heads);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let spans = [Span {
            sequence: self.sequence,
            tokens,
        }];
        let mut out = vec![0.0; q.len()];
        self.cache.append_rows(0, &spans, &k, &v).unwrap();
        self.cache
            .attend_rows(0, &spans, &q, scale, &mut out)
            .unwrap();
        self.naive.append(&k, &v);
        let expected = self.naive.attend(&q, tokens, scale);
        let (keys, values) = self.cache.quantised(0, self.sequence).unwrap();
        assert_eq!((keys, values), self.naive.coded(), "tokens with codes");
        relative(&out, &expected)
    }
}

#[test]
fn the_f32_path_is_within_a_thousandth_of_f64_for_every_shape_and_configuration() {
    for head_dim in [32, 64, 80, 96, 128, 256] {
        for group in [1, 3, 4, 8] {
            for (name, config) in configs() {
                let mut pair =
                    Pair::new(shape(head_dim, 1, group), config, (head_dim * group) as u64);
                // Long enough that every configuration has coded blocks; then each number of queries of a step in turn.
                for tokens in [
                    131, 1, 2, 3, 16, 7, 5, 11, 13, 4, 1, 8, 9, 6, 10, 12, 14, 15,
                ] {
                    let error = pair.step(tokens);
                    assert!(
                        error <= 1e-3,
                        "{name}, D {head_dim}, g {group}, {tokens} queries: {error}"
                    );
                }
                assert!(
                    pair.cache.quantised(0, pair.sequence).unwrap().0 > 0,
                    "{name} never quantised"
                );
            }
        }
    }
}

/// Standard normal rows are the hard case: their attention output is a mean of unrelated values, as small as it can be beside them.
#[test]
fn the_integer_path_is_within_a_hundredth_of_f64_and_is_not_the_f32_path() {
    for head_dim in [32, 64, 80, 96, 128, 256] {
        for group in [1, 3, 4, 8] {
            for (name, config) in configs() {
                for loud in [false, true] {
                    let config = config.with_arithmetic(Arithmetic::Int8);
                    let mut pair =
                        Pair::new(shape(head_dim, 1, group), config, (head_dim * group) as u64);
                    pair.loud = loud;
                    let mut worst = 0.0f64;
                    for tokens in [171, 1, 2, 16, 7, 5, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15] {
                        worst = worst.max(pair.step(tokens));
                    }
                    assert!(
                        worst <= 1e-2,
                        "{name}, D {head_dim}, g {group}, {loud}: {worst}"
                    );
                    assert!(
                        worst > 1e-5,
                        "{name}, D {head_dim}, g {group}, {loud}: the integer path was not taken"
                    );
                }
            }
        }
    }
}

#[test]
fn sinks_longer_than_a_tile_and_windows_of_zero_and_of_no_whole_group_work() {
    for (sinks, residual) in [(0, 0), (1, 1), (33, 0), (40, 17), (4, 31), (64, 33)] {
        for prefill in [Prefill::Streaming, Prefill::Exact] {
            let config = Config::compact()
                .with_sink_len(sinks)
                .with_window(Window::Sliding {
                    residual_len: residual,
                })
                .with_prefill(prefill);
            let mut pair = Pair::new(shape(32, 2, 2), config, 5);
            if prefill == Prefill::Exact {
                // The naive cache streams; an exact prompt of one token is the same thing.
                pair.step(1);
            }
            for tokens in [1; 150] {
                let error = pair.step(tokens);
                assert!(
                    error <= 1e-3,
                    "sinks {sinks}, window {residual}, {prefill:?}: {error}"
                );
            }
        }
    }
}

#[test]
fn the_prompt_of_an_exact_prefill_attends_to_itself_in_16_bits_and_is_quantised_after_it() {
    for config in [
        Config::kivi_2(),
        Config::compact().with_prefill(Prefill::Exact),
    ] {
        let shape = shape(64, 2, 3);
        let tokens = 300;
        let mut cache = Cache::new(shape, Policy::uniform(config), &Device::Cpu).unwrap();
        let sequence = cache.sequence().unwrap();
        let (k, v) = (rows(1, tokens, 2, 64), rows(2, tokens, 2, 64));
        let q = rows(3, tokens, 6, 64);
        let mut out = vec![0.0; q.len()];
        let spans = [Span { sequence, tokens }];
        cache.append_rows(0, &spans, &k, &v).unwrap();
        assert_eq!(cache.quantised(0, sequence).unwrap(), (0, 0));
        cache.attend_rows(0, &spans, &q, 0.125, &mut out).unwrap();
        // A window longer than the prompt quantises nothing.
        let exact = config
            .with_window(Window::Sliding { residual_len: 1000 })
            .with_sink_len(0);
        let mut naive = Naive::new(shape, exact);
        naive.append(&k, &v);
        assert!(relative(&out, &naive.attend(&q, tokens, 0.125)) <= 1e-3);
        let (keys, values) = cache.quantised(0, sequence).unwrap();
        assert!(
            keys >= 128 && values >= 128,
            "{keys} keys and {values} values after the prompt"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_chunking_of_any_shape_equals_the_f64_oracle(
        head_dim in prop::sample::select(vec![16usize, 32, 48, 64, 80]),
        kv_heads in 1usize..3,
        group in 1usize..4,
        which in 0usize..6,
        sinks in 0usize..6,
        seed in 0u64..1000,
        chunks in prop::collection::vec(1usize..90, 1..7),
    ) {
        let (name, config) = configs()[which];
        let mut pair = Pair::new(shape(head_dim, kv_heads, group), config.with_sink_len(sinks), seed);
        for tokens in chunks {
            let error = pair.step(tokens);
            prop_assert!(error <= 1e-3, "{name}: {error}");
        }
    }
}
