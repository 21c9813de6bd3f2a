//! Weight matrices in every form against an f64 product over the dequantised weights.

use half::f16;
use whittle_llama::gguf::GgmlType;
use whittle_llama::gguf::write::Writer;
use whittle_llama::{Error, Gguf, Matrix, Weights};
use whittle_tensor::Tensor;

/// A file with one tensor `w`, whose weights are below 0.1 or, where blocks are made from a counter, about that.
fn file(kind: GgmlType, shape: &[usize]) -> Gguf {
    let len: usize = shape.iter().product();
    let writer = if GgmlType::QUANTIZES.contains(&kind) {
        let weights = (0..len)
            .map(|i| ((i * 7919 % 10_007) as f32 / 10_007.0 - 0.5) * 0.2)
            .collect();
        Writer::new().tensor("w", kind, shape, weights)
    } else {
        let size = len / kind.block_len() * kind.block_bytes();
        let mut bytes: Vec<u8> = (0..size).map(|i| (i * 7919 % 10_007) as u8).collect();
        for block in bytes.chunks_exact_mut(kind.block_bytes()) {
            // Codes times scales are up to 15 · 63, 31 · 63 and 32 · 128.
            let (at, scale) = match kind {
                GgmlType::Q4_K => (0, 1e-4),
                GgmlType::Q5_K => (0, 5e-5),
                _ => (208, 2.5e-5),
            };
            block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
            if kind != GgmlType::Q6_K {
                block[2..4].copy_from_slice(&f16::from_f32(7e-4).to_le_bytes());
            }
        }
        Writer::new().blocks("w", kind, shape, bytes)
    };
    Gguf::from_bytes("w.gguf", writer.to_bytes().unwrap()).unwrap()
}

#[test]
fn products_equal_the_f64_product_of_the_dequantised_weights() {
    // One, a kernel's width and one more of rows; a matrix of several dequantised panels, the last of them short.
    let shapes: [[usize; 2]; 7] = [
        [1, 32],
        [64, 32],
        [65, 64],
        [131, 4096],
        [7, 288],
        [1, 256],
        [67, 512],
    ];
    for [rows, cols] in shapes {
        let whole = |kind: &GgmlType| cols.is_multiple_of(kind.block_len());
        for kind in GgmlType::ALL.into_iter().filter(whole) {
            let gguf = file(kind, &[rows, cols]);
            let weights = gguf.tensor("w").unwrap().dequantize().unwrap();
            for n in [0, 1, 2, 4, 5, 17, 33] {
                let x: Vec<f32> = (0..n * cols).map(|i| (i as f32 * 0.37).sin()).collect();
                let expected: Vec<f64> = x
                    .chunks_exact(cols)
                    .flat_map(|x| {
                        weights.chunks_exact(cols).map(move |w| {
                            w.iter()
                                .zip(x)
                                .map(|(&w, &x)| f64::from(w) * f64::from(x))
                                .sum()
                        })
                    })
                    .collect();
                let x = Tensor::from_vec(x, &[n, cols]).unwrap();
                for form in [Weights::Blocks, Weights::F32] {
                    let matrix = Matrix::new(gguf.tensor("w").unwrap(), form).unwrap();
                    let found = matrix.product(&x).unwrap();
                    assert_eq!(found.shape(), [n, rows]);
                    for (found, expected) in found.as_slice::<f32>().unwrap().iter().zip(&expected)
                    {
                        // Sums of at most 4,096 products below 0.1, each rounded to 24 bits.
                        let difference = (f64::from(*found) - expected).abs();
                        assert!(
                            difference < 1e-4,
                            "{kind} {form:?} {rows}x{cols}, {n} rows: {difference}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn products_do_not_depend_on_the_number_of_threads() {
    let gguf = file(GgmlType::Q4_1, &[1031, 576]);
    let matrix = Matrix::new(gguf.tensor("w").unwrap(), Weights::Blocks).unwrap();
    for n in [1, 3, 40] {
        let x = (0..n * 576).map(|i| (i as f32 * 0.37).sin()).collect();
        let x = Tensor::from_vec(x, &[n, 576]).unwrap();
        let [one, three] = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| matrix.product(&x).unwrap().into_vec::<f32>().unwrap())
        });
        assert!(one == three, "{n} rows");
    }
}

#[test]
fn gathered_rows_are_those_of_the_widened_matrix() {
    for kind in GgmlType::ALL {
        let cols = kind.block_len().max(64);
        let gguf = file(kind, &[37, cols]);
        let blocks = Matrix::new(gguf.tensor("w").unwrap(), Weights::Blocks).unwrap();
        let dense = Matrix::new(gguf.tensor("w").unwrap(), Weights::F32).unwrap();
        assert_eq!(
            (blocks.rows(), blocks.cols(), blocks.name()),
            (37, cols, "w")
        );
        let all = blocks.widen().unwrap().into_vec::<f32>().unwrap();
        assert_eq!(all, gguf.tensor("w").unwrap().dequantize().unwrap());
        for indices in [&[][..], &[36], &[0, 5, 5, 36, 1]] {
            let expected: Vec<f32> = indices
                .iter()
                .flat_map(|&i| &all[i as usize * cols..][..cols])
                .copied()
                .collect();
            for matrix in [&blocks, &dense] {
                let found = matrix.gather(indices).unwrap();
                assert_eq!(found.shape(), [indices.len(), cols]);
                assert_eq!(found.into_vec::<f32>().unwrap(), expected);
            }
        }
        for matrix in [&blocks, &dense] {
            assert!(matches!(matrix.gather(&[37]), Err(Error::Argument { .. })));
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let gguf = file(GgmlType::F32, &[2, 3, 4]);
    let error = Matrix::new(gguf.tensor("w").unwrap(), Weights::Blocks);
    assert!(matches!(error, Err(Error::Gguf { .. })));
    let gguf = file(GgmlType::F32, &[6, 4]);
    for form in [Weights::Blocks, Weights::F32] {
        let matrix = Matrix::new(gguf.tensor("w").unwrap(), form).unwrap();
        for shape in [&[2, 6][..], &[8], &[1, 2, 4]] {
            let x = Tensor::from_vec(vec![0.0f32; shape.iter().product()], shape).unwrap();
            assert!(
                matches!(matrix.product(&x), Err(Error::Argument { .. })),
                "{shape:?}"
            );
        }
        let doubles = Tensor::from_vec(vec![0.0f64; 8], &[2, 4]).unwrap();
        assert!(matrix.product(&doubles).is_err());
        // A view is as good as a copy, up to the order in which its kernel adds up.
        let x: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let x = Tensor::from_vec(x, &[4, 6])
            .unwrap()
            .transpose(0, 1)
            .unwrap();
        let view = matrix.product(&x).unwrap().into_vec::<f32>().unwrap();
        let copy = matrix
            .product(&x.contiguous().unwrap())
            .unwrap()
            .into_vec::<f32>()
            .unwrap();
        assert!(view.iter().zip(&copy).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
