//! What the cache says of its bytes against what the allocator was asked for, and what a step allocates.
//!
//! Each thread counts for itself, and each test runs whole in a pool of one thread.

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use whittle_kivi::{Cache, Config, HeadDim, Policy, Prefill, SequenceId, Shape, Span};
use whittle_tensor::Device;

/// Counts live, peak and all bytes that this thread ever asked for.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator unchanged; the counters are plain cells without destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + layout.size());
        // What another thread gave away may be dropped here: the difference of two readings is right all the same.
        LIVE.set(LIVE.get().wrapping_add(layout.size()));
        PEAK.set(PEAK.get().max(LIVE.get()));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get().wrapping_sub(layout.size()));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a test in a pool of one thread, whose own buffers were allocated before.
fn alone(test: impl FnOnce() + Send) {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    pool.install(|| {
        let mut cache =
            Cache::new(shape(1), Policy::uniform(Config::compact()), &Device::Cpu).unwrap();
        let sequence = cache.sequence().unwrap();
        feed(&mut cache, sequence, 700);
        drop(cache);
        LIVE.set(1 << 20);
        test();
    });
}

fn shape(layers: usize) -> Shape {
    Shape {
        layers,
        query_heads: 9,
        kv_heads: 3,
        head_dim: HeadDim::new(64).unwrap(),
    }
}

/// Feeds tokens to all layers.
fn feed(cache: &mut Cache, sequence: SequenceId, tokens: usize) {
    let shape = *cache.shape();
    let spans = [Span { sequence, tokens }];
    let rows: Vec<f32> = (0..tokens * 192).map(|i| (i as f32 * 0.37).sin()).collect();
    let q: Vec<f32> = (0..tokens * 576).map(|i| (i as f32 * 0.11).cos()).collect();
    let mut out = vec![0.0; q.len()];
    for layer in 0..shape.layers {
        cache.append_rows(layer, &spans, &rows, &rows).unwrap();
        cache
            .attend_rows(layer, &spans, &q, 0.125, &mut out)
            .unwrap();
    }
}

fn configs() -> [Config; 4] {
    let stock = Config::kivi_2().with_prefill(Prefill::Streaming);
    [
        stock,
        Config::compact(),
        Config::balanced(),
        Config::small(),
    ]
}

#[test]
fn trap_6_bytes_are_what_the_allocator_was_asked_for() {
    alone(|| {
        for config in configs() {
            let before = LIVE.get();
            let mut cache = Cache::new(shape(2), Policy::uniform(config), &Device::Cpu).unwrap();
            let live = || LIVE.get() - before;
            assert_eq!(cache.bytes(), live(), "empty");
            let a = cache.sequence().unwrap();
            for tokens in [1, 2, 3, 100, 1, 200, 1, 1, 64] {
                feed(&mut cache, a, tokens);
                assert_eq!(cache.bytes(), live(), "{tokens} more tokens");
            }
            let b = cache.fork(a).unwrap();
            assert_eq!(cache.bytes(), live(), "forked");
            feed(&mut cache, b, 77);
            assert_eq!(cache.bytes(), live(), "grown after a fork");
            cache.truncate(b, 111).unwrap();
            assert_eq!(cache.bytes(), live(), "truncated");
            cache.free(a).unwrap();
            assert_eq!(cache.bytes(), live(), "freed");
            let memory = cache.memory();
            assert_eq!(memory.pages + memory.rows + memory.tables, cache.bytes());
            drop(cache);
            assert_eq!(LIVE.get(), before);
        }
    });
}

#[test]
fn smollm2_at_8192_tokens_takes_at_most_38_mb_with_compact() {
    alone(|| {
        let before = LIVE.get();
        let mut cache =
            Cache::new(shape(30), Policy::uniform(Config::compact()), &Device::Cpu).unwrap();
        let sequence = cache.sequence().unwrap();
        let rows: Vec<f32> = (0..512 * 192).map(|i| (i as f32 * 0.37).sin()).collect();
        for _ in 0..8192 / 512 {
            for layer in 0..30 {
                cache
                    .append_rows(
                        layer,
                        &[Span {
                            sequence,
                            tokens: 512,
                        }],
                        &rows,
                        &rows,
                    )
                    .unwrap();
                // An attend without queries lets the window go.
                cache
                    .attend_rows(
                        layer,
                        &[Span {
                            sequence,
                            tokens: 0,
                        }],
                        &[],
                        0.125,
                        &mut [],
                    )
                    .unwrap();
            }
        }
        assert_eq!(cache.len(sequence).unwrap(), 8192);
        assert_eq!(cache.bytes(), LIVE.get() - before - rows.capacity() * 4);
        let f16 = 2 * 2 * 8192 * 30 * 192;
        assert!(cache.bytes() <= 38_000_000, "{} bytes", cache.bytes());
        assert!(
            f16 >= 188_700_000 && cache.bytes() * 5 < f16 + f16 / 100,
            "{} of {f16} bytes",
            cache.bytes()
        );
    });
}

#[test]
fn a_prefill_peaks_at_the_final_cache_and_one_chunk_or_one_layer() {
    alone(|| {
        let (layers, tokens, row) = (8, 2048, 2 * 2 * 192);
        // Scratch of the task in flight: queries, scores and tiles.
        let scratch = 1 << 20;
        for (prefill, chunk) in [(Prefill::Streaming, 256), (Prefill::Exact, tokens)] {
            let rows: Vec<f32> = (0..chunk * 192).map(|i| (i as f32 * 0.37).sin()).collect();
            let q: Vec<f32> = (0..chunk * 576).map(|i| (i as f32 * 0.11).cos()).collect();
            let mut out = vec![0.0; q.len()];
            let before = LIVE.get();
            let config = Config::compact().with_prefill(prefill);
            let mut cache =
                Cache::new(shape(layers), Policy::uniform(config), &Device::Cpu).unwrap();
            let sequence = cache.sequence().unwrap();
            PEAK.set(LIVE.get());
            for _ in 0..tokens / chunk {
                for layer in 0..layers {
                    let spans = [Span {
                        sequence,
                        tokens: chunk,
                    }];
                    cache.append_rows(layer, &spans, &rows, &rows).unwrap();
                    cache
                        .attend_rows(layer, &spans, &q, 0.125, &mut out)
                        .unwrap();
                }
            }
            let (peak, last) = (PEAK.get() - before, cache.bytes());
            // The chunk's (or the layer's) 16-bit rows, and the attention output of the call before it is handed over.
            let limit = last + chunk * row + chunk * 576 * 4 + scratch;
            assert!(
                peak <= limit,
                "{prefill:?}: peak {peak}, final {last}, limit {limit}"
            );
        }
    });
}

#[test]
fn trap_11_a_decoding_step_copies_nothing_that_grows_with_the_context() {
    alone(|| {
        for config in configs() {
            let mut cache = Cache::new(shape(1), Policy::uniform(config), &Device::Cpu).unwrap();
            let sequence = cache.sequence().unwrap();
            let mut asked = vec![];
            for _ in 0..2 {
                feed(&mut cache, sequence, 2048);
                // A whole group of steps, so that one commit is among them.
                let before = ASKED.get();
                (0..128).for_each(|_| feed(&mut cache, sequence, 1));
                asked.push(ASKED.get() - before);
            }
            let copied = 128 * 2048 * 192 * 2 * 2;
            assert!(
                asked[1] - asked[0] < copied / 4,
                "a copy of the cache would be {copied}, found {asked:?}"
            );
        }
    });
}
