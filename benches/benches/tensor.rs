//! The tensor operations that a decoder spends its time in.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use whittle_tensor::{
    Device, Pairing, Tensor,
    attention::{Partial, accumulate, scores, weigh},
};

fn noise(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::randn(shape, seed, 0, &Device::Cpu).expect("a small shape")
}

/// `[m, k] × [n, k]ᵀ`: `m` = 1 is the decoder's matrix-vector product.
fn matmul(c: &mut Criterion) {
    let mut group = c.benchmark_group("matmul");
    for (m, n, k) in [
        (1, 576, 576),
        (1, 1536, 576),
        (1, 49152, 576),
        (256, 576, 576),
        (256, 1536, 576),
    ] {
        let (x, w) = (noise(1, &[m, k]), noise(2, &[n, k]));
        let transposed = w.transpose(0, 1).expect("a matrix");
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{m}x{n}x{k}")), |b| {
            b.iter(|| black_box(&x).matmul(&transposed));
        });
    }
    group.finish();
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("256 rows");
    let (x, weight) = (noise(3, &[256, 576]), noise(4, &[576]));
    group.throughput(Throughput::Elements(256 * 576));
    group.bench_function("rms_norm", |b| {
        b.iter(|| black_box(&x).rms_norm(&weight, 1e-5))
    });
    group.bench_function("silu", |b| b.iter(|| black_box(&x).silu()));
    group.bench_function("softmax", |b| b.iter(|| black_box(&x).softmax(1)));
    let (heads, positions) = (noise(5, &[256, 9, 64]), (0..256).collect::<Vec<u32>>());
    group.bench_function("rope", |b| {
        b.iter(|| black_box(&heads).rope(&positions, 1e5, Pairing::Interleaved));
    });
    group.finish();
}

/// One tile of 32 tokens for the query rows of a decoding step (3) and of a prefill (96).
fn attention_tile(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention tile");
    let (head_dim, width) = (64, 32);
    let tile = noise(6, &[head_dim * width]).to_vec::<f32>().expect("f32");
    for rows in [3, 96] {
        let q = noise(7, &[rows * head_dim]).to_vec::<f32>().expect("f32");
        let (bias, mut weights) = (vec![0.0; rows], vec![0.0; rows * width]);
        group.throughput(Throughput::Elements(4 * (rows * head_dim * width) as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |b| {
            b.iter(|| {
                let mut partial = Partial::new(rows, head_dim);
                scores(
                    black_box(&q),
                    rows,
                    head_dim,
                    &tile,
                    width,
                    &bias,
                    &mut weights,
                );
                for (r, row) in weights.chunks_exact_mut(width).enumerate() {
                    weigh(&mut partial, r, row, width);
                }
                accumulate(&weights, rows, width, &tile, width, head_dim, partial.out());
                partial
            });
        });
    }
    group.finish();
}

criterion_group!(benches, matmul, rows, attention_tile);
criterion_main!(benches);
