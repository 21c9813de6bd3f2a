//! Quantiser, append and attention of the 2-bit cache, in SmolLM2's and Llama-3.1-8B's shapes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use std::hint::black_box;
use whittle_kivi::{
    Bits, Cache, Config, HeadDim, Policy, Rounding, Rows, Scheme, Shape, Span, quantize_keys,
    quantize_values,
};
use whittle_tensor::{Device, random::Philox4x32};

fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut random = Philox4x32::new(seed, 0);
    (0..len).map(|_| random.next_normal()).collect()
}

/// A block of 32 tokens of 64 channels; bytes are those of the f16 input.
fn quantise(c: &mut Criterion) {
    let mut group = c.benchmark_group("quantise");
    let (tokens, head_dim) = (32, 64);
    let data: Vec<f16> = noise(1, tokens * head_dim)
        .into_iter()
        .map(f16::from_f32)
        .collect();
    let rows = Rows {
        data: &data,
        tokens,
        head_dim,
        stride: head_dim,
    };
    let mut codes = vec![0; tokens * head_dim];
    let mut metadata = [vec![f16::ZERO; head_dim], vec![f16::ZERO; head_dim]];
    group.throughput(Throughput::Bytes(data.len() as u64 * 2));
    for clip_search in [false, true] {
        let scheme = Scheme {
            bits: Bits::Two,
            clip_search,
            rounding: Rounding::Native,
        };
        let [scale, min] = &mut metadata;
        group.bench_function(BenchmarkId::new("keys", clip_search), |b| {
            b.iter(|| quantize_keys(scheme, black_box(rows), &mut codes, scale, min));
        });
        group.bench_function(BenchmarkId::new("values", clip_search), |b| {
            b.iter(|| quantize_values(scheme, black_box(rows), &mut codes, scale, min));
        });
    }
    group.finish();
}

/// One layer at 4,096 tokens.
fn cache(shape: Shape, config: Config) -> (Cache, Span) {
    let policy = Policy::uniform(config);
    let mut cache = Cache::new(shape, policy, &Device::Cpu).expect("a valid shape");
    let sequence = cache.sequence().expect("room for a sequence");
    let width = shape.kv_heads * shape.head_dim.get();
    let rows = noise(2, 512 * width);
    for _ in 0..8 {
        let span = Span {
            sequence,
            tokens: 512,
        };
        cache
            .append_rows(0, &[span], &rows, &rows)
            .expect("finite rows");
        cache.commit(sequence).expect("a known sequence");
    }
    (
        cache,
        Span {
            sequence,
            tokens: 1,
        },
    )
}

/// One decoding step: append of one token, and attention; bytes are those of the packed codes.
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, query_heads, kv_heads, head_dim) in [("9/3/64", 9, 3, 64), ("32/8/128", 32, 8, 128)]
    {
        let head_dim = HeadDim::new(head_dim).expect("a multiple of 16");
        let shape = Shape {
            layers: 1,
            query_heads,
            kv_heads,
            head_dim,
        };
        let (k, q) = (
            noise(3, kv_heads * head_dim.get()),
            noise(4, query_heads * head_dim.get()),
        );
        let mut out = vec![0.0; q.len()];
        for (preset, config) in [
            ("compact", Config::compact()),
            ("balanced", Config::balanced()),
        ] {
            let (mut cache, span) = cache(shape, config);
            group.throughput(Throughput::Bytes(cache.memory().pages as u64));
            group.bench_function(BenchmarkId::new(format!("attend {preset}"), name), |b| {
                b.iter(|| cache.attend_rows(0, &[span], black_box(&q), 0.1, &mut out));
            });
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(format!("append {preset}"), name), |b| {
                b.iter(|| {
                    cache.append_rows(0, &[span], black_box(&k), &k)?;
                    cache.commit(span.sequence)?;
                    // Back to where it was, or a long run would measure a longer cache.
                    let len = cache.len(span.sequence)?;
                    if len > 5000 {
                        cache.truncate(span.sequence, 4096).map(|_| ())
                    } else {
                        Ok(())
                    }
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, quantise, decode);
criterion_main!(benches);
