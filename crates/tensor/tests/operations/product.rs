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

/// A product of exactly fitting slices from which `short` elements of `x`, `w` and `out` have been taken.
fn product_short_of(m: usize, short: [usize; 3]) {
    let (n, k, stride) = (5, 7, 6);
    let (x, w) = (vec![1.0; m * k - short[0]], vec![1.0; n * k - short[1]]);
    let mut out = vec![0.0; (m - 1) * stride + n - short[2]];
    product::rows_by_rows(&x, m, &w, n, k, &mut out, stride);
}

#[test]
fn slices_need_not_go_beyond_the_last_element() {
    for m in [1, 2, 16, 17] {
        product_short_of(m, [0; 3]);
    }
}

/// For one number of rows, hence one kernel: a test for each slice that is an element too short, or a whole row of `out`.
macro_rules! short_slices_panic {
    ($($name:ident: $m:literal;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            #[should_panic(expected = "lhs of a matrix product is too short")]
            fn short_x_panics() {
                product_short_of($m, [1, 0, 0]);
            }

            #[test]
            #[should_panic(expected = "rhs of a matrix product is too short")]
            fn short_w_panics() {
                product_short_of($m, [0, 1, 0]);
            }

            #[test]
            #[should_panic(expected = "out of a matrix product is too short")]
            fn short_out_panics() {
                product_short_of($m, [0, 0, 1]);
            }

            #[test]
            #[should_panic(expected = "out of a matrix product is too short")]
            fn missing_row_of_out_panics() {
                product_short_of($m, [0, 0, 5]);
            }

            #[test]
            #[should_panic(expected = "lhs of a matrix product is too short")]
            fn size_that_wraps_panics() {
                // A row of 2^63 elements: twice that is 0 to arithmetic that wraps.
                product::rows_by_rows(&[], $m, &[], 1, 1 << 63, &mut [0.0; $m], 1);
            }
        }
    )*};
}

short_slices_panic! {
    one_row: 1;
    a_few_rows: 2;
    many_rows: 17;
}
