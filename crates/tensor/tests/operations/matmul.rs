//! Matrix products.

use crate::oracle::{FLOATS, array, assert_error, epsilon, size, strided};
use ndarray::{Array2, ArrayD, Ix2, IxDyn};
use proptest::prelude::*;
use whittle_tensor::{DType, Device, Tensor};

/// Batched product of arrays that have been broadcast, by three loops.
fn product(a: &ArrayD<f64>, b: &ArrayD<f64>, shape: &[usize]) -> ArrayD<f64> {
    let mut out = ArrayD::zeros(IxDyn(shape));
    let rank = shape.len();
    let wide = |x: &ArrayD<f64>| {
        let matrix = &x.shape()[x.ndim() - 2..];
        x.broadcast(IxDyn(&[&shape[..rank - 2], matrix].concat()))
            .unwrap()
            .to_owned()
    };
    let (a, b) = (wide(a), wide(b));
    let k = a.shape()[rank - 1];
    for (at, value) in out.indexed_iter_mut() {
        let (mut left, mut right) = (at.clone(), at);
        *value = (0..k)
            .map(|i| {
                left[rank - 1] = i;
                right[rank - 2] = i;
                a[&left] * b[&right]
            })
            .sum();
    }
    out
}

/// A sum of k products has an error of at most k + 1 roundings of the sum of their absolute values, in any order of additions;
/// a half is rounded once more.
fn assert_product(found: &Tensor, a: &Tensor, b: &Tensor) {
    let (a_values, b_values) = (array(a), array(b));
    let expected = product(&a_values, &b_values, found.shape());
    let magnitude = product(
        &a_values.mapv(f64::abs),
        &b_values.mapv(f64::abs),
        found.shape(),
    );
    let k = a.shape()[a.rank() - 1] as f64;
    let halves = matches!(a.dtype(), DType::F16 | DType::BF16);
    let (sum, last) = if halves {
        (DType::F32, epsilon(a.dtype()))
    } else {
        (a.dtype(), 0.0)
    };
    for ((at, &expected), &found) in expected.indexed_iter().zip(&array(found)) {
        let bound = (k + 1.0) * epsilon(sum) * magnitude[&at]
            + 1.01 * last * expected.abs()
            + 2f64.powi(-25) * f64::from(u8::from(halves));
        assert!(
            (found - expected).abs() <= bound,
            "at {at:?}: {found:e} for {expected:e}, k {k}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn products_of_any_layout_agree_with_f64(
        m in size(), k in size(), n in size(),
        batch in prop::sample::select(vec![(vec![], vec![]), (vec![3], vec![]), (vec![], vec![2]), (vec![2, 1], vec![3]), (vec![0], vec![1])]),
        seeds: (u64, u64),
        dtype in prop::sample::select(FLOATS.to_vec()),
    ) {
        // Two batch dimensions of 65³ products would be slow in three loops.
        let m = if batch.0.is_empty() && batch.1.is_empty() { m } else { m.min(8) };
        let a = strided(&[&batch.0[..], &[m, k]].concat(), dtype, seeds.0);
        let b = strided(&[&batch.1[..], &[k, n]].concat(), dtype, seeds.1);
        let found = a.matmul(&b).unwrap();
        prop_assert_eq!(found.dtype(), dtype);
        assert_product(&found, &a, &b);
        // Weights as they are stored: rows of outputs.
        let w = strided(&[&batch.1[..], &[n, k]].concat(), dtype, seeds.1);
        let w = w.transpose(w.rank() - 2, w.rank() - 1).unwrap();
        assert_product(&a.matmul(&w).unwrap(), &a, &w);
    }

    #[test]
    fn matvec_is_matmul_with_one_column(n in size(), k in size(), seeds: (u64, u64), dtype in prop::sample::select(FLOATS.to_vec())) {
        let (w, x) = (strided(&[n, k], dtype, seeds.0), strided(&[k], dtype, seeds.1));
        let found = w.matvec(&x).unwrap();
        prop_assert_eq!(found.shape(), [n]);
        assert_product(&found.reshape(&[n, 1]).unwrap(), &w, &x.reshape(&[k, 1]).unwrap());
    }
}

/// Plainly contiguous f32 operands, by layout: `'n'` as it is, `'t'` as the transposed view.
fn operands(m: usize, k: usize, n: usize, layouts: (char, char)) -> (Tensor, Tensor) {
    let matrix = |rows, cols, layout, seed| {
        if layout == 'n' {
            return Tensor::randn(&[rows, cols], seed, 0, &Device::Cpu).unwrap();
        }
        Tensor::randn(&[cols, rows], seed, 0, &Device::Cpu)
            .unwrap()
            .transpose(0, 1)
            .unwrap()
    };
    (matrix(m, k, layouts.0, 1), matrix(k, n, layouts.1, 2))
}

#[test]
fn awkward_sizes_in_every_layout_agree_with_f64() {
    let sizes = [
        (1, 1, 1),
        (2, 1, 63),
        (63, 2, 10),
        (4, 17, 64),
        (16, 3, 1),
        (17, 16, 1),
        (64, 64, 0),
        (0, 64, 4),
        (64, 0, 4),
        (15, 127, 129),
        (16, 128, 128),
        (17, 129, 127),
        (256, 255, 257),
        (1, 576, 1536),
        (33, 1025, 3),
        (2, 2049, 65),
    ];
    for (m, k, n) in sizes {
        for layouts in [('n', 'n'), ('n', 't'), ('t', 'n'), ('t', 't')] {
            let (a, b) = operands(m, k, n, layouts);
            let found = a.matmul(&b).unwrap();
            let matrix =
                |x: &Tensor| -> Array2<f64> { array(x).into_dimensionality::<Ix2>().unwrap() };
            let (a, b) = (matrix(&a), matrix(&b));
            let expected = a.dot(&b);
            let magnitude = a.mapv(f64::abs).dot(&b.mapv(f64::abs));
            for ((at, &expected), &found) in expected.indexed_iter().zip(&array(&found)) {
                let bound = (k + 1) as f64 * epsilon(DType::F32) * magnitude[at];
                assert!(
                    (found - expected).abs() <= bound,
                    "{m} × {k} × {n} {layouts:?} at {at:?}: {found} for {expected}"
                );
            }
        }
    }
}

#[test]
fn a_long_thin_product_agrees_with_f64_where_it_is_sampled() {
    // The oracle would take 4096 × 4096 sums; a few hundred of them show a wrong block as well.
    let (m, k, n) = (4096, 4, 4096);
    for layouts in [('n', 't'), ('t', 'n')] {
        let (a, b) = operands(m, k, n, layouts);
        let found = a.matmul(&b).unwrap();
        let found = found.as_slice::<f32>().unwrap();
        let (a, b) = (array(&a), array(&b));
        for sample in 0..500 {
            let (i, j) = (sample * 8191 % m, sample * 4093 % n);
            let terms = || (0..k).map(|l| a[[i, l]] * b[[l, j]]);
            let bound = 5.0 * epsilon(DType::F32) * terms().map(f64::abs).sum::<f64>();
            assert!(
                (f64::from(found[i * n + j]) - terms().sum::<f64>()).abs() <= bound,
                "at {i}, {j}, {layouts:?}"
            );
        }
    }
}

#[test]
fn halves_wider_than_a_tile_agree_with_f64() {
    for dtype in [DType::F16, DType::BF16] {
        let a = Tensor::randn(&[513, 9], 1, 0, &Device::Cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        let b = Tensor::randn(&[9, 515], 2, 0, &Device::Cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        assert_product(&a.matmul(&b).unwrap(), &a, &b);
        let flipped = (b.transpose(0, 1).unwrap(), a.transpose(0, 1).unwrap());
        assert_product(
            &flipped.0.matmul(&flipped.1).unwrap(),
            &flipped.0,
            &flipped.1,
        );
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let a = Tensor::randn(&[3, 70, 300], 1, 0, &Device::Cpu).unwrap();
    let b = Tensor::randn(&[400, 300], 2, 0, &Device::Cpu)
        .unwrap()
        .transpose(0, 1)
        .unwrap();
    let with = |threads: usize, rows: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            a.narrow(1, 0, rows)
                .unwrap()
                .matmul(&b)
                .unwrap()
                .to_vec::<f32>()
                .unwrap()
        })
    };
    for rows in [1, 5, 16, 17, 70] {
        let one = with(1, rows);
        assert!(
            with(3, rows)
                .iter()
                .zip(&one)
                .all(|(a, b)| a.to_bits() == b.to_bits()),
            "{rows} rows"
        );
    }
}

#[test]
fn errors_name_the_operation_and_both_shapes() {
    let a = strided(&[2, 3], DType::F32, 0);
    assert_error(
        a.matmul(&strided(&[4, 5], DType::F32, 0)),
        &["matmul", "[2, 3]", "[4, 5]"],
    );
    assert_error(
        a.matmul(&strided(&[3], DType::F32, 0)),
        &["matmul", "[2, 3]", "[3]"],
    );
    assert_error(
        a.matmul(&strided(&[3, 5], DType::F64, 0)),
        &["matmul", "f32", "f64"],
    );
    assert_error(
        strided(&[2, 2], DType::U8, 0).matmul(&strided(&[2, 2], DType::U8, 0)),
        &["matmul", "u8"],
    );
    let (a, b) = (
        strided(&[2, 2, 3], DType::F32, 0),
        strided(&[4, 3, 5], DType::F32, 0),
    );
    assert_error(a.matmul(&b), &["matmul", "[2]", "[4]"]);
    assert_error(
        strided(&[2, 3], DType::F32, 0).matvec(&strided(&[2], DType::F32, 0)),
        &["matvec", "[2, 3]", "[2]"],
    );
    assert_error(
        strided(&[2], DType::F32, 0).matvec(&strided(&[2], DType::F32, 0)),
        &["matvec", "[2]"],
    );
}
