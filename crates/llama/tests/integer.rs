//! Integer products against an f64 product of the dequantised weights with the dequantised activations.

use proptest::prelude::*;
use whittle_llama::gguf::GgmlType;
use whittle_llama::gguf::write::Writer;
use whittle_llama::{Gguf, Matrix, Weights};
use whittle_tensor::{Tensor, random::Philox4x32};

/// The formats whose weights are integer codes.
const KINDS: [GgmlType; 3] = [GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q8_0];

const LEN: usize = 32;

/// Numbers whose blocks of 32 differ in size by up to `2^spread`.
fn numbers(seed: u64, stream: u64, len: usize, spread: u32) -> Vec<f32> {
    let mut random = Philox4x32::new(seed, stream);
    let mut numbers = Vec::with_capacity(len);
    while numbers.len() < len {
        let size = (random.next_u32() % (spread + 1)) as i32 - spread as i32 / 2;
        let rest = LEN.min(len - numbers.len());
        numbers.extend((0..rest).map(|_| random.next_normal() * 2f32.powi(size)));
    }
    numbers
}

fn file(kind: GgmlType, rows: usize, cols: usize, seed: u64) -> Gguf {
    // Away from zero on the mean, so that minimums count.
    let weights = numbers(seed, 0, rows * cols, 4)
        .iter()
        .map(|w| (w + 0.3) * 0.05)
        .collect();
    let writer = Writer::new().tensor("w", kind, &[rows, cols], weights);
    Gguf::from_bytes("w.gguf", writer.to_bytes().unwrap()).unwrap()
}

fn matrix(gguf: &Gguf, weights: Weights) -> Matrix {
    Matrix::new(gguf.tensor("w").unwrap(), weights).unwrap()
}

fn product(matrix: &Matrix, x: &[f32]) -> Vec<f32> {
    let n = x.len() / matrix.cols();
    let x = Tensor::from_vec(x.to_vec(), &[n, matrix.cols()]).unwrap();
    let out = matrix.product(&x).unwrap();
    assert_eq!(out.shape(), [n, matrix.rows()]);
    out.into_vec::<f32>().unwrap()
}

/// What the codes of a row stand for, and half a step of each.
fn rounded(x: &[f32]) -> Vec<(f64, f64)> {
    x.chunks(LEN)
        .flat_map(|x| {
            let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let scale = largest / 127.0;
            x.iter().map(move |x| {
                if scale < f32::MIN_POSITIVE {
                    return (0.0, f64::from(largest));
                }
                let code = (x * (1.0 / scale)).round_ties_even();
                assert!(code.abs() <= 127.0);
                (f64::from(scale) * f64::from(code), 0.5 * f64::from(scale))
            })
        })
        .collect()
}

/// Holds a product against f64: to 1e-5 of the sizes of its terms with the rounded activations, and to half a step of each
/// activation with the given ones.
fn check(gguf: &Gguf, x: &[f32], found: &[f32]) -> Result<(), TestCaseError> {
    let view = gguf.tensor("w").unwrap();
    let (weights, cols) = (view.dequantize().unwrap(), view.info().row_len());
    let rows = view.info().rows();
    for (x, found) in x.chunks_exact(cols).zip(found.chunks_exact(rows)) {
        let codes = rounded(x);
        for (row, (w, &found)) in weights.chunks_exact(cols).zip(found).enumerate() {
            let found = f64::from(found);
            let (mut sum, mut size, mut exact, mut bound) = (0.0, 0.0, 0.0, 0.0);
            for ((&w, &x), (code, half)) in w.iter().zip(x).zip(&codes) {
                let w = f64::from(w);
                sum += w * code;
                size += (w * code).abs();
                exact += w * f64::from(x);
                // The inverse of the scale is rounded, so that half a step may be a little more.
                bound += w.abs() * half * 1.0001;
            }
            prop_assert!(
                (found - sum).abs() <= 1e-5 * size + 1e-30,
                "row {row}: {found}, not {sum} of size {size}"
            );
            prop_assert!(
                (found - exact).abs() <= bound + 1e-5 * size + 1e-30,
                "row {row}: {found}, not {exact} to {bound}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_are_those_of_the_rounded_activations(
        kind in prop::sample::select(&KINDS[..]),
        rows in 1usize..50,
        blocks in 1usize..6,
        n in 0usize..40,
        spread in 0u32..40,
        seed in any::<u64>(),
    ) {
        let gguf = file(kind, rows, blocks * LEN, seed);
        let x = numbers(seed, 1, n * blocks * LEN, spread);
        let found = product(&matrix(&gguf, Weights::Integer), &x);
        check(&gguf, &x, &found)?;
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours_or_the_threads(
        kind in prop::sample::select(&KINDS[..]),
        rows in 1usize..40,
        blocks in 1usize..4,
        n in 1usize..80,
        seed in any::<u64>(),
    ) {
        let gguf = file(kind, rows, blocks * LEN, seed);
        let matrix = matrix(&gguf, Weights::Integer);
        let x = numbers(seed, 1, n * blocks * LEN, 8);
        let alone: Vec<f32> = x.chunks_exact(blocks * LEN).flat_map(|x| product(&matrix, x)).collect();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let together = pool.install(|| product(&matrix, &x));
            prop_assert_eq!(&together, &alone, "{} threads", threads);
        }
    }
}

#[test]
fn awkward_shapes_are_right_in_every_way_that_the_threads_share_them() {
    // One row, a panel and its neighbours, several panels that threads share; a long row; rows of `x` around the tiles, and so
    // many that threads share them instead.
    for (rows, blocks) in [(1, 1), (15, 2), (16, 3), (17, 1), (131, 18), (7, 128)] {
        for kind in KINDS {
            let gguf = file(kind, rows, blocks * LEN, 5);
            let matrix = matrix(&gguf, Weights::Integer);
            for n in [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 31, 33, 96, 131] {
                let x = numbers(6, n as u64, n * blocks * LEN, 3);
                let found = product(&matrix, &x);
                check(&gguf, &x, &found)
                    .unwrap_or_else(|error| panic!("{kind} {rows}x{blocks}, {n}: {error}"));
            }
        }
    }
}

#[test]
fn products_on_threads_are_those_on_one() {
    // So many weights that panels are shared out with one row of `x` too.
    for kind in KINDS {
        let gguf = file(kind, 1031, 576, 7);
        let matrix = matrix(&gguf, Weights::Integer);
        for n in [1, 3, 40, 200] {
            let x = numbers(8, n as u64, n * 576, 3);
            let [one, three] = [1, 3].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| product(&matrix, &x))
            });
            assert!(one == three, "{kind}, {n} rows");
        }
    }
}

#[test]
fn zeros_give_zeros_and_numbers_too_small_for_a_scale_count_as_zeros() {
    for kind in KINDS {
        let gguf = file(kind, 19, 96, 1);
        let matrix = matrix(&gguf, Weights::Integer);
        for value in [0.0, -0.0, f32::from_bits(1), -f32::MIN_POSITIVE * 100.0] {
            assert_eq!(product(&matrix, &[value; 96]), [0.0; 19], "{value:e}");
        }
        // The block beside them is not touched.
        let mut x = [f32::from_bits(1); 96];
        x[40] = 2.0;
        let mut alone = [0.0; 96];
        alone[40] = 2.0;
        let found = product(&matrix, &x);
        assert_eq!(found, product(&matrix, &alone));
        let weights = matrix.widen().unwrap().into_vec::<f32>().unwrap();
        for (y, weights) in found.iter().zip(weights.chunks_exact(96)) {
            assert_eq!(*y != 0.0, weights[40] != 0.0);
        }
        assert!(found.iter().any(|&y| y != 0.0));
    }
}

#[test]
fn numbers_at_the_ends_of_the_range_are_numbers_like_others() {
    for kind in KINDS {
        let gguf = file(kind, 5, 64, 2);
        let integer = matrix(&gguf, Weights::Integer);
        let small = numbers(3, 0, 64, 0);
        let expected = product(&integer, &small);
        for exponent in [-100, -60, 60, 118] {
            // A power of two changes no code.
            let factor = 2f32.powi(exponent);
            let x: Vec<f32> = small.iter().map(|x| x * factor).collect();
            let found = product(&integer, &x);
            let expected: Vec<f32> = expected.iter().map(|y| y * factor).collect();
            assert_eq!(found, expected, "{kind} 2^{exponent}");
        }
        // The largest numbers that there are, where the weights are small enough for the result.
        let mut x = [0.0; 64];
        x[3] = f32::MAX;
        x[37] = -f32::MAX;
        let found = product(&integer, &x);
        assert!(found.iter().all(|y| y.is_finite()), "{kind}: {found:?}");
        check(&gguf, &x, &found).unwrap();
    }
}

#[test]
fn a_row_with_a_number_that_is_not_finite_is_nan_and_no_other_row_is() {
    for kind in KINDS {
        let gguf = file(kind, 21, 96, 3);
        let matrix = matrix(&gguf, Weights::Integer);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for n in [1, 2, 9, 70] {
                let mut x = numbers(4, 0, n * 96, 0);
                let expected = product(&matrix, &x);
                x[(n / 2) * 96 + 50] = bad;
                for (i, (found, expected)) in product(&matrix, &x)
                    .chunks_exact(21)
                    .zip(expected.chunks_exact(21))
                    .enumerate()
                {
                    if i == n / 2 {
                        assert!(found.iter().all(|y| y.is_nan()), "{bad}, {n}");
                    } else {
                        assert_eq!(found, expected, "{bad}, {n}");
                    }
                }
            }
        }
    }
}

#[test]
fn all_but_products_is_as_with_blocks() {
    // Nothing here writes the K formats.
    let written = GgmlType::ALL
        .into_iter()
        .filter(|kind| kind.block_len() <= LEN);
    for kind in written {
        let gguf = file(kind, 37, 256, 9);
        let [integer, blocks] = [Weights::Integer, Weights::Blocks].map(|form| matrix(&gguf, form));
        assert_eq!(
            (integer.rows(), integer.cols(), integer.name()),
            (37, 256, "w")
        );
        let all = |matrix: &Matrix| matrix.widen().unwrap().into_vec::<f32>().unwrap();
        assert_eq!(all(&integer), all(&blocks));
        let rows = |matrix: &Matrix| {
            matrix
                .gather(&[0, 36, 5])
                .unwrap()
                .into_vec::<f32>()
                .unwrap()
        };
        assert_eq!(rows(&integer), rows(&blocks));
        // On the CPU a matrix keeps its form.
        let copy = integer.to_device(&whittle_tensor::Device::Cpu).unwrap();
        let x = numbers(1, 1, 3 * 256, 0);
        assert_eq!(product(&copy, &x), product(&integer, &x));
        // Formats without integer codes are multiplied as with blocks, the others are not.
        let same = product(&integer, &x) == product(&blocks, &x);
        assert_eq!(same, !KINDS.contains(&kind), "{kind}");
    }
}

#[test]
fn a_view_is_as_good_as_a_copy() {
    let gguf = file(GgmlType::Q4_1, 20, 64, 4);
    let matrix = matrix(&gguf, Weights::Integer);
    let x = Tensor::from_vec(numbers(2, 0, 64 * 6, 0), &[64, 6]).unwrap();
    let view = x.transpose(0, 1).unwrap();
    let copy = view.contiguous().unwrap();
    let [view, copy] = [&view, &copy].map(|x| {
        let out = matrix.product(x).unwrap();
        out.into_vec::<f32>().unwrap()
    });
    assert_eq!(view, copy);
}
