//! Rotary position embedding.

use crate::oracle::{FLOATS, Tol, array, assert_close, assert_error, epsilon, strided};
use proptest::prelude::*;
use whittle_tensor::{DType, Pairing};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_pairings_agree_with_a_rotation_of_complex_numbers(
        tokens in 0usize..9, heads in 0usize..4, half in prop::sample::select(vec![0usize, 1, 3, 16, 32, 33]),
        first in prop::sample::select(vec![0u32, 1, 4095, 1_000_000]), seed: u64,
        base in prop::sample::select(vec![1e4f32, 5e5]), dtype in prop::sample::select(FLOATS.to_vec()),
    ) {
        let x = strided(&[tokens, heads, 2 * half], dtype, seed);
        let positions: Vec<u32> = (0..tokens as u32).map(|i| first + 3 * i).collect();
        let values = array(&x);
        for pairing in [Pairing::Interleaved, Pairing::HalfSplit] {
            let mut expected = values.clone();
            for (t, &position) in positions.iter().enumerate() {
                for h in 0..heads {
                    for i in 0..half {
                        let (a, b) = match pairing {
                            Pairing::Interleaved => (2 * i, 2 * i + 1),
                            Pairing::HalfSplit => (i, i + half),
                        };
                        let (re, im) = (values[[t, h, a]], values[[t, h, b]]);
                        let angle = f64::from(position) / f64::from(base).powf(i as f64 / half as f64);
                        // (re + i·im)·e^(i·angle)
                        expected[[t, h, a]] = re * angle.cos() - im * angle.sin();
                        expected[[t, h, b]] = im * angle.cos() + re * angle.sin();
                    }
                }
            }
            let halves = matches!(dtype, DType::F16 | DType::BF16);
            // 10 bounds the elements, 1e-9 the angle: a position of a million times an error of 1e-16, twice.
            let absolute = if halves { 1e-5 } else { 40.0 * epsilon(dtype) + 1e-8 };
            let tol = Tol::roundings(1.01, dtype).plus(absolute).because("two products of rounded sines, which may cancel");
            assert_close(&x.rope(&positions, base, pairing).unwrap(), &expected, &tol);
        }
    }
}

#[test]
fn a_rotated_product_depends_on_the_distance_alone() {
    let q = strided(&[1, 1, 64], DType::F64, 1);
    let k = strided(&[1, 1, 64], DType::F64, 2);
    let score = |p: u32, r: u32, pairing| -> f64 {
        let (q, k) = (
            q.rope(&[p], 1e4, pairing).unwrap(),
            k.rope(&[r], 1e4, pairing).unwrap(),
        );
        q.mul(&k).unwrap().sum(2).unwrap().to_vec::<f64>().unwrap()[0]
    };
    for pairing in [Pairing::Interleaved, Pairing::HalfSplit] {
        assert!(
            (score(7, 2, pairing) - score(1005, 1000, pairing)).abs() < 1e-10,
            "the distance is 5 both times"
        );
        assert!(
            (score(7, 2, pairing) - score(8, 2, pairing)).abs() > 1e-3,
            "another distance gives another score"
        );
    }
    assert_ne!(
        score(7, 2, Pairing::Interleaved),
        score(7, 2, Pairing::HalfSplit)
    );
}

#[test]
fn position_zero_changes_nothing() {
    let x = strided(&[1, 3, 8], DType::F32, 1);
    let turned = x.rope(&[0], 1e4, Pairing::Interleaved).unwrap();
    assert_eq!(turned.to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
}

#[test]
fn errors_name_the_operation_and_the_shape() {
    let rope = |shape: &[usize], dtype, positions: &[u32]| {
        strided(shape, dtype, 0).rope(positions, 1e4, Pairing::HalfSplit)
    };
    assert_error(rope(&[2, 3], DType::F32, &[0, 1]), &["rope", "[2, 3]"]);
    assert_error(
        rope(&[2, 3, 5], DType::F32, &[0, 1]),
        &["rope", "[2, 3, 5]", "even"],
    );
    assert_error(
        rope(&[2, 3, 4], DType::F32, &[0]),
        &["rope", "[2, 3, 4]", "1 positions"],
    );
    assert_error(rope(&[2, 3, 4], DType::U32, &[0, 1]), &["rope", "u32"]);
}

#[test]
fn a_base_that_is_no_finite_number_above_zero_is_an_error() {
    for dtype in FLOATS {
        let x = strided(&[1, 2, 4], dtype, 0);
        for base in [0.0, -0.0, -1e4, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_error(
                x.rope(&[1], base, Pairing::HalfSplit),
                &["rope", "base", "finite", &base.to_string()],
            );
        }
        assert!(x.rope(&[1], f32::MIN_POSITIVE, Pairing::HalfSplit).is_ok());
    }
}
