//! Rows by index.

use crate::oracle::{ALL, FLOATS, Tol, array, assert_close, assert_error, epsilon, shape, strided};
use ndarray::Axis;
use proptest::prelude::*;
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{DType, Tensor};

fn index(m: usize, n: usize, seed: u64) -> Tensor {
    let mut random = Philox4x32::new(seed, 3);
    let m = if n == 0 { 0 } else { m };
    Tensor::from_vec((0..m).map(|_| random.next_u32() % n as u32).collect(), &[m]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn gather_takes_the_rows_of_every_dtype_and_layout(shape in shape(1..=3), m in 0usize..70, seed: u64, dtype in prop::sample::select(ALL.to_vec())) {
        let x = strided(&shape, dtype, seed);
        let index = index(m, shape[0], seed);
        let rows: Vec<usize> = index.to_vec::<u32>().unwrap().iter().map(|&i| i as usize).collect();
        let expected = array(&x).select(Axis(0), &rows);
        assert_close(&x.gather(&index).unwrap(), &expected, &Tol::EXACT);
    }

    #[test]
    fn scatter_add_adds_each_row_where_it_belongs(shape in shape(1..=3), m in 0usize..70, seed: u64, dtype in prop::sample::select(FLOATS.to_vec())) {
        let x = strided(&shape, dtype, seed);
        let index = index(m, shape[0], seed);
        let rows = strided(&[&[index.len()], &shape[1..]].concat(), dtype, seed ^ 1);
        let mut expected = array(&x);
        let mut magnitude = expected.mapv(f64::abs);
        for (row, &to) in array(&rows).outer_iter().zip(&index.to_vec::<u32>().unwrap()) {
            let mut out = expected.index_axis_mut(Axis(0), to as usize);
            out += &row;
            let mut out = magnitude.index_axis_mut(Axis(0), to as usize);
            out += &row.mapv(f64::abs);
        }
        let work = if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype };
        let worst = magnitude.iter().copied().fold(0.0, f64::max);
        let tol = Tol::roundings(1.01, dtype).plus(m as f64 * epsilon(work) * worst);
        assert_close(&x.scatter_add(&index, &rows).unwrap(), &expected, &tol.because("m additions of the sum of absolute values"));
    }
}

#[test]
fn scatter_add_on_threads_gives_the_bits_of_one_thread() {
    let (n, d) = (37, 65);
    let index = index(1000, n, 1);
    let (x, rows) = (
        strided(&[n, d], DType::F32, 1),
        strided(&[1000, d], DType::F32, 2),
    );
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            x.scatter_add(&index, &rows)
                .unwrap()
                .to_vec::<f32>()
                .unwrap()
        })
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn gather_reads_rows_of_a_table_without_copying_it() {
    // Every row of this view is the same memory: a copy of the table would not fit.
    let table = Tensor::from_vec(vec![1f32, 2.0, 3.0], &[3])
        .unwrap()
        .broadcast_to(&[1 << 40, 3])
        .unwrap();
    let index = Tensor::from_vec(vec![0u32, u32::MAX], &[2]).unwrap();
    assert_eq!(
        table.gather(&index).unwrap().to_vec::<f32>().unwrap(),
        [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
    );
}

#[test]
fn errors_name_the_operation_and_what_was_found() {
    let x = strided(&[4, 3], DType::F32, 0);
    let at = |values: Vec<u32>| Tensor::from_vec(values, &[2]).unwrap();
    assert_error(x.gather(&at(vec![0, 4])), &["gather", "index", "4"]);
    assert_error(
        x.gather(&at(vec![0, 1]).to_dtype(DType::I32).unwrap()),
        &["gather", "u32", "i32"],
    );
    assert_error(
        x.gather(&at(vec![0, 1]).unsqueeze(0).unwrap()),
        &["gather", "[4, 3]", "[1, 2]"],
    );
    assert_error(
        Tensor::scalar(0f32).gather(&at(vec![0, 0])),
        &["gather", "[]"],
    );
    assert_error(
        x.scatter_add(&at(vec![0, 1]), &strided(&[3, 3], DType::F32, 0)),
        &["scatter_add", "[4, 3]", "[3, 3]"],
    );
    assert_error(
        x.scatter_add(&at(vec![0, 9]), &strided(&[2, 3], DType::F32, 0)),
        &["scatter_add", "index", "9"],
    );
    assert_error(
        x.scatter_add(&at(vec![0, 1]), &strided(&[2, 3], DType::F64, 0)),
        &["scatter_add", "f32", "f64"],
    );
    assert_error(
        strided(&[4, 3], DType::U8, 0).scatter_add(&at(vec![0, 1]), &x),
        &["scatter_add", "u8"],
    );
}
