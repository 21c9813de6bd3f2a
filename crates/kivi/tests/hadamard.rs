//! The Walsh–Hadamard transform against its matrix.

use proptest::prelude::*;
use whittle_kivi::hadamard::hadamard_on;
use whittle_kivi::simd::Isa;
use whittle_kivi::{HeadDim, hadamard};

const HEAD_DIMS: [usize; 8] = [16, 32, 48, 64, 80, 128, 256, 1024];

fn rows() -> impl Strategy<Value = (usize, Vec<f32>)> {
    (prop::sample::select(&HEAD_DIMS[..]), 0..4usize).prop_flat_map(|(head_dim, rows)| {
        (
            Just(head_dim),
            prop::collection::vec(-8.0..8.0f32, rows * head_dim),
        )
    })
}

fn block(head_dim: usize) -> usize {
    1 << head_dim.trailing_zeros()
}

/// `Σ_j (−1)^popcount(i & j) x_j / √n` for one block, in f64.
fn oracle(x: &[f32]) -> Vec<f64> {
    let size = x.len();
    let sign = |i: usize, j: usize| {
        if (i & j).count_ones().is_multiple_of(2) {
            1.0
        } else {
            -1.0
        }
    };
    (0..size)
        .map(|i| {
            (0..size).map(|j| sign(i, j) * f64::from(x[j])).sum::<f64>() / (size as f64).sqrt()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_block_is_multiplied_by_the_orthonormal_matrix((head_dim, x) in rows()) {
        let mut found = x.clone();
        hadamard(&mut found, HeadDim::new(head_dim)?);
        let size = block(head_dim);
        for (found, x) in found.chunks_exact(size).zip(x.chunks_exact(size)) {
            let norm: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            for (found, expected) in found.iter().zip(oracle(x)) {
                // Ten stages of sums and one product, each off by half an ulp of at most the norm of the block.
                let tolerance = 11.0 * norm * f64::from(f32::EPSILON);
                prop_assert!((f64::from(*found) - expected).abs() <= tolerance, "{found} against {expected}");
            }
        }
    }

    #[test]
    fn twice_gives_back_the_input((head_dim, x) in rows()) {
        let mut found = x.clone();
        hadamard(&mut found, HeadDim::new(head_dim)?);
        hadamard(&mut found, HeadDim::new(head_dim)?);
        for (found, x) in found.chunks_exact(head_dim).zip(x.chunks_exact(head_dim)) {
            let norm: f32 = x.iter().map(|x| x * x).sum::<f32>().sqrt();
            for (found, x) in found.iter().zip(x) {
                // Twice the eleven roundings of one transform.
                prop_assert!((found - x).abs() <= 22.0 * norm * f32::EPSILON);
            }
        }
    }

    #[test]
    fn every_instruction_set_follows_the_order_of_butterflies_to_the_bit((head_dim, x) in rows()) {
        let size = block(head_dim);
        let mut expected = x.clone();
        for block in expected.chunks_exact_mut(size) {
            let mut stride = 1;
            while stride < size {
                for i in (0..size).filter(|i| i & stride == 0) {
                    let (low, high) = (block[i], block[i + stride]);
                    block[i] = low + high;
                    block[i + stride] = low - high;
                }
                stride *= 2;
            }
            block.iter_mut().for_each(|x| *x *= (1.0 / (size as f64).sqrt()) as f32);
        }
        let expected: Vec<u32> = expected.iter().map(|x| x.to_bits()).collect();
        for isa in Isa::available() {
            let mut found = x.clone();
            hadamard_on(isa, &mut found, HeadDim::new(head_dim)?);
            let found: Vec<u32> = found.iter().map(|x| x.to_bits()).collect();
            prop_assert_eq!(&found, &expected, "{}", isa.name());
        }
    }
}

#[test]
fn a_channel_that_stands_out_is_spread_over_its_block() {
    let mut x = [0.0; 80];
    x[17] = 4.0;
    hadamard(&mut x, HeadDim::new(80).expect("a valid head_dim"));
    let expected = |i: usize| match (16..32).contains(&i) {
        true if i.is_multiple_of(2) => 1.0,
        true => -1.0,
        false => 0.0,
    };
    (0..80).for_each(|i| assert_eq!(x[i], expected(i), "{i}"));
}

#[test]
fn numbers_after_the_last_whole_row_stay() {
    let mut x = [1.0; 40];
    hadamard(&mut x, HeadDim::new(32).expect("a valid head_dim"));
    assert!(x[0] != 1.0);
    assert_eq!(x[32..], [1.0; 8]);
}
