//! Products of slices.

use crate::oracle::{epsilon, size};
use proptest::prelude::*;
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{DType, product};

fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut random = Philox4x32::new(seed, 1);
    (0..len).map(|_| random.next_normal()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rows_by_rows_agrees_with_f64_and_leaves_the_gaps_alone(m in size(), n in size(), k in size(), gap in 0usize..3, seed: u64) {
        let (x, w) = (numbers(m * k, seed), numbers(n * k, seed ^ 1));
        let stride = n + gap;
        let mut out = vec![f32::MAX; m * stride];
        product::rows_by_rows(&x, m, &w, n, k, &mut out, stride);
        for i in 0..m {
            for j in 0..n {
                let terms = || (0..k).map(|l| f64::from(x[i * k + l]) * f64::from(w[j * k + l]));
                let bound = (k + 1) as f64 * epsilon(DType::F32) * terms().map(f64::abs).sum::<f64>();
                let found = f64::from(out[i * stride + j]);
                prop_assert!((found - terms().sum::<f64>()).abs() <= bound, "at {i}, {j}: {found}");
            }
            prop_assert!(out[i * stride + n..(i + 1) * stride].iter().all(|&x| x == f32::MAX));
        }
    }

    #[test]
    fn a_row_of_few_is_dot_to_the_bit(m in 1usize..=product::FEW_ROWS, n in size(), k in size(), seed: u64) {
        let (x, w) = (numbers(m * k, seed), numbers(n * k, seed ^ 1));
        let mut out = vec![0.0; m * n];
        product::rows_by_rows(&x, m, &w, n, k, &mut out, n);
        for i in 0..m {
            for j in 0..n {
                let dot = product::dot(&x[i * k..][..k], &w[j * k..][..k]);
                prop_assert_eq!(out[i * n + j].to_bits(), dot.to_bits());
            }
        }
    }
}

#[test]
fn large_products_on_several_threads_equal_the_small_ones() {
    // Beyond the threshold of `par`, so that pieces are cut.
    let (m, n, k) = (2, 1031, 67);
    let (x, w) = (numbers(m * k, 1), numbers(n * k, 2));
    let mut out = vec![0.0; m * n];
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    pool.install(|| product::rows_by_rows(&x, m, &w, n, k, &mut out, n));
    for (at, value) in out.iter().enumerate() {
        let dot = product::dot(&x[at / n * k..][..k], &w[at % n * k..][..k]);
        assert_eq!(value.to_bits(), dot.to_bits(), "at {at}");
    }
}
