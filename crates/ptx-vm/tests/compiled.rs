//! The kernels of tests/compiled as NVIDIA's compiler writes them: the right results, and no fault, under every schedule.
//!
//! `cargo xtask test --full` compiles them, and names their folder in `WHITTLE_COMPILED_PTX`. Without it the tests skip loudly.

mod machine;

use half::{bf16, f16};
use machine::{Machine, schedules};
use std::fs;
use std::io::Write;
use std::path::Path;
use whittle_ptx_vm::{Limits, Size};
use whittle_tensor::device::{DevicePtr, Driver};
use whittle_tensor::kernel::Arg;

/// One, primes, and one more than a power of two.
const LENGTHS: [usize; 7] = [1, 2, 31, 33, 127, 257, 1025];

/// Rounding to nearest moves a f32 by this part of it at most.
const HALF_ULP: f64 = f32::EPSILON as f64 / 2.0;

/// A compiled module.
struct Compiled {
    name: &'static str,
    text: String,
}

/// An argument of a kernel.
enum Value {
    /// A pointer to these bytes.
    Bytes(Vec<u8>),
    /// A pointer to so many bytes that nobody wrote.
    Empty(usize),
    Int(usize),
    U32(u32),
    U64(u64),
    F32(f32),
}

use Value::{Empty, F32, Int, U32, U64};

/// The module `name`; nothing, and a line on stderr, where kernels were not compiled.
fn kernel(name: &'static str) -> Option<Compiled> {
    let Some(folder) = std::env::var_os("WHITTLE_COMPILED_PTX") else {
        // Written past the capture of test output, or a run that skipped would look like one that passed.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED {name}: needs what NVIDIA's compiler makes of it; run `cargo xtask test --full`"
        );
        return None;
    };
    let path = Path::new(&folder).join(format!("{name}.ptx"));
    match fs::read_to_string(&path) {
        Ok(text) => Some(Compiled { name, text }),
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

impl Compiled {
    /// Launches the kernel under every schedule. Gives the bytes of its arrays, in the order of its arguments, which must be the
    /// same under all.
    fn launch(
        &self,
        grid: [u32; 3],
        block: [u32; 3],
        shared: usize,
        values: &[Value],
    ) -> Vec<Vec<u8>> {
        let size = Size {
            grid,
            block,
            shared: shared as u32,
        };
        let mut first = None;
        for schedule in schedules() {
            let machine = Machine::with(Limits {
                schedule,
                ..Limits::checked(80)
            });
            let (args, arrays) = place(&machine, values);
            self.run(&machine, self.name, size, &args);
            let found: Vec<Vec<u8>> = arrays
                .iter()
                .map(|&(array, bytes)| download(&machine, array, bytes))
                .collect();
            let first = first.get_or_insert_with(|| found.clone());
            assert!(
                *first == found,
                "{}: other results under {schedule:?}, {size:?}",
                self.name
            );
        }
        first.expect("schedules")
    }

    fn run(&self, machine: &Machine, entry: &str, size: Size, args: &[Arg]) {
        let file = format!("{}.ptx", self.name);
        let outcome = machine.vm.run(&self.text, &file, entry, size, args);
        if let Err(error) = outcome {
            panic!("{size:?} under {:?}: {error}", machine.vm.limits().schedule);
        }
    }
}

/// The arguments in the machine's memory, and the arrays among them.
fn place(machine: &Machine, values: &[Value]) -> (Vec<Arg>, Vec<(DevicePtr, usize)>) {
    let mut arrays = Vec::new();
    let mut array = |bytes: usize| {
        let pointer = machine.empty(bytes);
        arrays.push((pointer, bytes));
        pointer
    };
    let args = values.iter().map(|value| match value {
        Value::Bytes(bytes) => {
            let pointer = array(bytes.len());
            machine.vm.upload(pointer, bytes).unwrap();
            Arg::Ptr(pointer)
        }
        &Empty(bytes) => Arg::Ptr(array(bytes)),
        &Int(value) => Arg::I32(value as i32),
        &U32(value) => Arg::U32(value),
        &U64(value) => Arg::U64(value),
        &F32(value) => Arg::F32(value),
    });
    (args.collect(), arrays)
}

fn download(machine: &Machine, array: DevicePtr, bytes: usize) -> Vec<u8> {
    let mut found = vec![0; bytes];
    machine.vm.download(array, &mut found).unwrap();
    found
}

/// An array of these numbers.
fn array<T: Copy, const N: usize>(values: &[T], bytes: fn(T) -> [u8; N]) -> Value {
    Value::Bytes(values.iter().flat_map(|&value| bytes(value)).collect())
}

fn floats(values: &[f32]) -> Value {
    array(values, f32::to_le_bytes)
}

/// The numbers in these bytes.
fn read<T, const N: usize>(bytes: &[u8], number: fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&part| number(part))
        .collect()
}

fn read_floats(bytes: &[u8]) -> Vec<f32> {
    read(bytes, f32::from_le_bytes)
}

/// Numbers of 64 random bits: SplitMix64.
fn random(n: usize, seed: u64) -> Vec<u64> {
    let mix = |i: u64| {
        let x = (i + seed * 1_000_003).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    };
    (1..=n as u64).map(mix).collect()
}

fn random_words(n: usize, seed: u64) -> Vec<u32> {
    random(n, seed).iter().map(|&x| (x >> 32) as u32).collect()
}

/// Numbers in [-1, 1).
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let unit = |&x: &u32| (x >> 8) as f32 / (1 << 23) as f32 - 1.0;
    random_words(n, seed).iter().map(unit).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

/// Each number within its tolerance of what is expected, both f64.
fn check(what: &str, found: &[f64], expected: impl IntoIterator<Item = (f64, f64)>) {
    let mut checked = 0;
    for (i, (&found, (expected, tolerance))) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(
            difference <= tolerance,
            "{what}, at {i}: expected {expected} within {tolerance}, found {found}"
        );
        checked += 1;
    }
    assert_eq!(checked, found.len(), "{what}");
}

/// The sum of `terms`, and how far n additions and products in f32, fused or not, in any order, may be from it.
fn sum(terms: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let magnitude: f64 = terms.clone().map(f64::abs).sum();
    let n = terms.clone().count() as f64 + 1.0;
    (terms.sum(), 1.01 * n * HALF_ULP * magnitude)
}

fn blocks(n: usize, of: usize) -> u32 {
    n.div_ceil(of) as u32
}

/// A product [m, k] [k, n] with the tolerance of each element.
fn product(a: &[f64], b: &[f64], [m, n, k]: [usize; 3]) -> Vec<(f64, f64)> {
    let element = |i: usize| sum((0..k).map(move |j| a[i / n * k + j] * b[j * n + i % n]));
    (0..m * n).map(element).collect()
}

/// Rounds to the nearest half, ties to even; halves are then exact.
fn round_half(x: f64) -> f16 {
    let exponent = (x.abs().to_bits() >> 52) as i32 - 1023;
    let unit = 2f64.powi(exponent.max(-14) - 10);
    f16::from_f64((x / unit).round_ties_even() * unit)
}

#[test]
fn every_source_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compiled");
    let mut sources = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let call = format!("kernel(\"{name}\")");
        assert!(include_str!("compiled.rs").contains(&call), "{call}");
        sources += 1;
    }
    assert!(sources >= 12, "{sources}");
}

#[test]
fn vectors_are_added() {
    let Some(kernel) = kernel("vector_add") else {
        return;
    };
    for n in LENGTHS {
        let (x, y) = (noise(n, 1), noise(n, 2));
        let values = [floats(&x), floats(&y), Empty(4 * n), Int(n)];
        let found = kernel.launch([2, 1, 1], [96, 1, 1], 0, &values);
        let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        assert_eq!(read_floats(&found[2]), expected, "{n}");
    }
}

#[test]
fn blocks_are_summed_by_shuffles() {
    let Some(kernel) = kernel("block_sum") else {
        return;
    };
    for (n, threads) in LENGTHS.into_iter().zip([32, 64, 96, 128, 256, 512, 1024]) {
        let x = noise(3 * n, 3);
        let values = [floats(&x), Empty(12), Int(n)];
        let found = kernel.launch([3, 1, 1], [threads, 1, 1], 0, &values);
        // Shuffles go by way of 32 lanes and 32 warps, most of them zeros.
        let expected = x.chunks(n).map(|row| sum(row.iter().map(|&x| x.into())));
        check("block_sum", &wide(&read_floats(&found[1])), expected);
    }
}

#[test]
fn rows_become_probabilities() {
    let Some(kernel) = kernel("softmax") else {
        return;
    };
    for n in LENGTHS {
        // In two of the rows one number stands out so far that less than it for a maximum overflows.
        let mut x: Vec<f32> = noise(3 * n, 4).iter().map(|x| 5.0 * x).collect();
        (1..3).for_each(|row| x[row * n + row * n / 3] += 100.0);
        let values = [floats(&x), Empty(12 * n), Int(n)];
        let found = kernel.launch([3, 1, 1], [128, 1, 1], 4 * n, &values);
        // The exponent is below 128 and rounded once, the power is within two ulps; then n additions and a quotient.
        let relative = (n + 64 + 8) as f64 * HALF_ULP;
        let expected = x.chunks(n).flat_map(|row| {
            let most = row.iter().copied().fold(f32::MIN, f32::max);
            let power = move |&x: &f32| (f64::from(x) - f64::from(most)).exp();
            let sum: f64 = row.iter().map(power).sum();
            row.iter().map(move |x| {
                let share = power(x) / sum;
                (share, relative * share + f64::from(f32::MIN_POSITIVE))
            })
        });
        check("softmax", &wide(&read_floats(&found[1])), expected);
    }
}

/// Rows, columns, and the length of the sums.
const PRODUCTS: [[usize; 3]; 8] = [
    [1, 1, 1],
    [16, 16, 16],
    [27, 22, 40],
    [44, 12, 18],
    [17, 31, 33],
    [2, 65, 17],
    [33, 7, 65],
    [65, 33, 2],
];

#[test]
fn matrices_are_multiplied_by_tiles() {
    let Some(kernel) = kernel("matmul") else {
        return;
    };
    for [m, n, k] in PRODUCTS {
        let (a, b) = (noise(m * k, 5), noise(k * n, 6));
        let values = [
            floats(&a),
            floats(&b),
            Empty(4 * m * n),
            Int(m),
            Int(n),
            Int(k),
        ];
        let found = kernel.launch([blocks(n, 16), blocks(m, 16), 1], [16, 16, 1], 0, &values);
        let expected = product(&wide(&a), &wide(&b), [m, n, k]);
        check("matmul", &wide(&read_floats(&found[2])), expected);
    }
}

#[test]
fn bytes_are_counted_by_atomics() {
    let Some(kernel) = kernel("histogram") else {
        return;
    };
    for n in LENGTHS {
        // Few values, so that threads of a warp meet.
        let x: Vec<u8> = random(n, 7).iter().map(|x| (x % 7 * 37) as u8).collect();
        let values = [
            Value::Bytes(x.clone()),
            array(&[1; 256], u32::to_le_bytes),
            Int(n),
        ];
        let found = kernel.launch([3, 1, 1], [96, 1, 1], 0, &values);
        let mut expected = [1; 256];
        x.iter().for_each(|&x| expected[usize::from(x)] += 1);
        assert_eq!(read(&found[1], u32::from_le_bytes), expected, "{n}");
    }
}

#[test]
fn rows_are_normalised() {
    let Some(kernel) = kernel("rms_norm") else {
        return;
    };
    for (rows, groups) in [(1, 1), (5, 7), (3, 33), (7, 129)] {
        let n = 4 * groups;
        let (x, weight) = (noise(rows * n, 8), noise(n, 9));
        let values = [
            floats(&x),
            floats(&weight),
            Empty(4 * rows * n),
            Int(rows),
            Int(groups),
            F32(1e-5),
        ];
        let found = kernel.launch([blocks(rows, 4), 1, 1], [32, 4, 1], 0, &values);
        // n squares and additions, half of whose error the root keeps; rsqrt.approx within 2^-22.9, and some single operations.
        let relative = (n / 2 + 8) as f64 * HALF_ULP;
        let expected = x.chunks(n).flat_map(|row| {
            let squares: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
            let scale = (squares / n as f64 + f64::from(1e-5f32)).sqrt();
            row.iter().zip(&weight).map(move |(&x, &weight)| {
                let value = f64::from(x) / scale * f64::from(weight);
                (value, relative * value.abs())
            })
        });
        check("rms_norm", &wide(&read_floats(&found[2])), expected);
    }
}

#[test]
fn prefixes_are_summed() {
    let Some(kernel) = kernel("inclusive_scan") else {
        return;
    };
    for n in LENGTHS {
        let x = random_words(n, 10);
        let values = [array(&x, u32::to_le_bytes), Empty(4 * n), Int(n)];
        let found = kernel.launch([1; 3], [256, 1, 1], 0, &values);
        let mut sum = 0u32;
        let expected = x.iter().map(|&x| {
            sum = sum.wrapping_add(x);
            sum
        });
        assert_eq!(
            read(&found[1], u32::from_le_bytes),
            expected.collect::<Vec<_>>()
        );
    }
}

/// Philox 4x32-10 with `key` at the counter (`i`, 0, 0, 0).
fn philox(i: u32, key: [u32; 2]) -> [u32; 4] {
    let halves = |x: u32, by: u32| {
        let product = u64::from(x) * u64::from(by);
        ((product >> 32) as u32, product as u32)
    };
    let [mut key_0, mut key_1] = key;
    let mut c = [i, 0, 0, 0];
    for _ in 0..10 {
        let (high_0, low_0) = halves(c[0], 0xd251_1f53);
        let (high_1, low_1) = halves(c[2], 0xcd9e_8d57);
        c = [high_1 ^ c[1] ^ key_0, low_1, high_0 ^ c[3] ^ key_1, low_0];
        key_0 = key_0.wrapping_add(0x9e37_79b9);
        key_1 = key_1.wrapping_add(0xbb67_ae85);
    }
    c
}

#[test]
fn random_numbers_are_those_of_philox() {
    let Some(kernel) = kernel("philox") else {
        return;
    };
    // The known answer for zeros that the authors publish with their code.
    let known = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
    assert_eq!(philox(0, [0; 2]), known);
    for (n, key) in LENGTHS
        .into_iter()
        .zip([[0, 0], [1, 0], [0, 1]].into_iter().cycle())
    {
        let values = [Empty(16 * n), U32(key[0]), U32(key[1]), Int(n)];
        let found = kernel.launch([blocks(n, 64), 1, 1], [64, 1, 1], 0, &values);
        let expected: Vec<u32> = (0..n as u32).flat_map(|i| philox(i, key)).collect();
        assert_eq!(read(&found[0], u32::from_le_bytes), expected, "{n}");
    }
}

#[test]
fn matrices_are_multiplied_by_mma() {
    let Some(kernel) = kernel("mma_gemm") else {
        return;
    };
    let halves = |n, seed| -> Vec<f16> { noise(n, seed).into_iter().map(f16::from_f32).collect() };
    let exact = |x: &[f16]| -> Vec<f64> { x.iter().map(|&x| x.into()).collect() };
    for [m, n, k] in PRODUCTS {
        let (a, b) = (halves(m * k, 11), halves(k * n, 12));
        let values = [
            array(&a, f16::to_le_bytes),
            array(&b, f16::to_le_bytes),
            Empty(4 * m * n),
            Int(m),
            Int(n),
            Int(k),
        ];
        let found = kernel.launch([blocks(n, 16), blocks(m, 32), 1], [64, 1, 1], 0, &values);
        let expected = product(&exact(&a), &exact(&b), [m, n, k]);
        check("mma_gemm", &wide(&read_floats(&found[2])), expected);
    }
}

#[test]
fn copies_run_ahead_of_sums() {
    let Some(kernel) = kernel("pipeline") else {
        return;
    };
    // The last piece ends in each quarter.
    for n in LENGTHS.into_iter().chain([401, 449]) {
        for grid in [1, 3] {
            let x = noise(n, 13);
            let values = [floats(&x), Empty(4 * n), Int(n)];
            let found = kernel.launch([grid, 1, 1], [64, 1, 1], 0, &values);
            let at = |i: usize| x.get(i).copied().unwrap_or(0.0);
            let expected: Vec<f32> = (0..n).map(|i| at(i) + at(i ^ 255)).collect();
            assert_eq!(read_floats(&found[1]), expected, "{n}");
        }
    }
}

#[test]
fn matrices_are_transposed() {
    let Some(kernel) = kernel("transpose") else {
        return;
    };
    for (rows, columns) in [
        (1, 1),
        (1, 257),
        (11, 19),
        (19, 11),
        (27, 45),
        (33, 31),
        (65, 2),
    ] {
        let n = rows * columns;
        let x = random_words(n, 14);
        let values = [
            array(&x, u32::to_le_bytes),
            Empty(4 * n),
            Int(rows),
            Int(columns),
        ];
        let grid = [blocks(columns, 32), blocks(rows, 32), 1];
        let found = kernel.launch(grid, [32, 8, 1], 0, &values);
        let expected: Vec<u32> = (0..n).map(|i| x[i % rows * columns + i / rows]).collect();
        assert_eq!(read(&found[1], u32::from_le_bytes), expected);
    }
}

#[test]
fn pairs_of_halves_are_rounded_once() {
    let Some(kernel) = kernel("half_pairs") else {
        return;
    };
    for n in LENGTHS {
        // Across the whole range, subnormal halves and overflowing products among them.
        let halves = |seed| -> Vec<f16> {
            let scale = |(i, x): (usize, f32)| f16::from_f32(x * 2f32.powi(i as i32 / 2 % 26 - 16));
            noise(2 * n, seed)
                .into_iter()
                .enumerate()
                .map(scale)
                .collect()
        };
        let (x, y) = (halves(15), halves(16));
        let values = [
            array(&x, f16::to_le_bytes),
            array(&y, f16::to_le_bytes),
            Empty(24 * n),
            Int(n),
        ];
        let found = kernel.launch([blocks(n, 64), 1, 1], [64, 1, 1], 0, &values);
        let mut expected = Vec::new();
        let mut each = |result: fn(f64, f64) -> f64| {
            let pairs = x.iter().zip(&y);
            expected.extend(pairs.map(|(&x, &y)| round_half(result(x.into(), y.into())).to_bits()));
        };
        each(|x, y| x + y);
        each(|x, y| x * y);
        each(|x, y| x * y + x);
        each(f64::max);
        expected.extend(
            x.chunks(2)
                .zip(y.chunks(2))
                .flat_map(|(x, y)| [x[1].to_bits(), y[0].to_bits()]),
        );
        let above = |(x, y): (&f16, &f16)| f16::from_f32(f32::from(u8::from(x > y))).to_bits();
        expected.extend(x.iter().zip(&y).map(above));
        assert_eq!(read(&found[2], u16::from_le_bytes), expected, "{n}");
    }
}

#[test]
fn the_last_block_adds_what_the_others_left() {
    let Some(kernel) = kernel("last_block") else {
        return;
    };
    // Blocks without a number, of one, and full ones.
    for (n, grid) in [
        (1, 1),
        (31, 2),
        (127, 3),
        (1025, 33),
        (4099, 65),
        (8209, 129),
    ] {
        let x = noise(n, 17);
        let values = [
            floats(&x),
            Empty(4 * grid),
            array(&[0], u32::to_le_bytes),
            Empty(4),
            Int(n),
        ];
        let found = kernel.launch([grid as u32, 1, 1], [64, 1, 1], 0, &values);
        assert_eq!(found[2], [0; 4], "the counter wraps");
        let expected = sum(x.iter().map(|&x| x.into()));
        check("last_block", &wide(&read_floats(&found[3])), [expected]);
    }
}

#[test]
fn products_of_doubles_carry_their_errors() {
    let Some(kernel) = kernel("dot_double") else {
        return;
    };
    for n in LENGTHS {
        // Whole numbers whose products take 62 bits: inexact in f64, exact in i128. The second half undoes the first almost.
        let whole =
            |seed| -> Vec<i64> { random(n, seed).iter().map(|&x| x as i64 >> 32).collect() };
        let (mut x, mut y) = (whole(18), whole(19));
        for i in n.div_ceil(2)..n {
            (x[i], y[i]) = (x[n - 1 - i] + i as i64 % 5, -y[n - 1 - i]);
        }
        let doubles = |x: &[i64]| {
            let x: Vec<f64> = x.iter().map(|&x| x as f64).collect();
            array(&x, f64::to_le_bytes)
        };
        let values = [doubles(&x), doubles(&y), Empty(8), Int(n)];
        let found = kernel.launch([1; 3], [64, 1, 1], 0, &values);
        let products = x
            .iter()
            .zip(&y)
            .map(|(&x, &y)| i128::from(x) * i128::from(y));
        let exact = products.clone().sum::<i128>() as f64;
        // One rounding at the end, and n^2 of second order.
        let magnitude = products.map(i128::abs).sum::<i128>() as f64;
        let second = (n as f64 * f64::EPSILON).powi(2) * magnitude;
        let tolerance = f64::EPSILON * exact.abs() + second;
        check(
            "dot_double",
            &read(&found[2], f64::from_le_bytes),
            [(exact, tolerance)],
        );
    }
}

#[test]
fn powers_are_taken_in_64_bits() {
    let Some(kernel) = kernel("power_mod") else {
        return;
    };
    for (n, modulus) in LENGTHS
        .into_iter()
        .zip([1, 2, 65_537, 4_294_967_291].into_iter().cycle())
    {
        let x = random(n, 20);
        let values = [
            array(&x, u64::to_le_bytes),
            Empty(16 * n),
            U64(modulus),
            Int(n),
        ];
        let found = kernel.launch([blocks(n, 64), 1, 1], [64, 1, 1], 0, &values);
        let power = |(i, &x): (usize, &u64)| {
            let (mut power, mut base, mut exponent) = (1 % modulus, x % modulus, x >> (i % 64));
            while exponent > 0 {
                if exponent % 2 == 1 {
                    power = power * base % modulus;
                }
                base = base * base % modulus;
                exponent /= 2;
            }
            power
        };
        let rest = |&x: &u64| {
            let high = ((u128::from(x) * u128::from(x)) >> 64) as u64;
            high.wrapping_sub((x as i64 / 7) as u64)
        };
        let powers = x.iter().enumerate().map(power);
        let expected: Vec<u64> = powers.chain(x.iter().map(rest)).collect();
        assert_eq!(read(&found[1], u64::from_le_bytes), expected, "{n}");
    }
}

#[test]
fn bf16_goes_through_tanh() {
    let Some(kernel) = kernel("gelu_bf16") else {
        return;
    };
    for n in LENGTHS {
        let x: Vec<bf16> = noise(n, 21)
            .iter()
            .map(|x| bf16::from_f32(8.0 * x))
            .collect();
        let values = [array(&x, bf16::to_le_bytes), Empty(2 * n), Int(n)];
        let found = kernel.launch([blocks(n, 64), 1, 1], [64, 1, 1], 0, &values);
        let found: Vec<f64> = read(&found[1], |bytes| bf16::from_le_bytes(bytes).into());
        let expected = x.iter().map(|&x| {
            let x = f64::from(x);
            let inner = 0.797_884_560_8 * (x + 0.044715 * x.powi(3));
            let value = x / 2.0 * (1.0 + inner.tanh());
            // Half an ulp of bf16; before it, 1 + tanh of a negative number cancels down to a few ulps of one.
            (
                value,
                value.abs() / 250.0 + 8.0 * 4.0 * f64::from(f32::EPSILON),
            )
        });
        check("gelu_bf16", &found, expected);
    }
}

/// Programs for the stack machine, each filled up to 16 bytes with ends.
const PROGRAMS: [&[u8]; 5] = [
    &[1],
    &[1, 3, 6, 2, 4],
    &[2, 1, 5, 7],
    &[1, 2, 1, 2, 1, 2, 1, 2, 4, 5, 6, 4, 5, 6, 8],
    &[2, 3, 3, 3, 4, 6, 1, 8, 4],
];

#[test]
fn threads_of_a_warp_run_different_programs() {
    let Some(kernel) = kernel("stack_machine") else {
        return;
    };
    let mut code = vec![0; 16 * PROGRAMS.len()];
    for (place, program) in code.chunks_mut(16).zip(PROGRAMS) {
        place[..program.len()].copy_from_slice(program);
    }
    let result = |i: usize, x: u32| {
        let mut stack = vec![];
        for op in PROGRAMS[i % PROGRAMS.len()] {
            let top = stack.last().copied().unwrap_or(0u32);
            if matches!(op, 4..=8) {
                stack.pop();
            }
            let below = if matches!(op, 4 | 5 | 6 | 8) {
                stack.pop()
            } else {
                None
            };
            let below = below.unwrap_or(0);
            stack.push(match op {
                1 => x,
                2 => i as u32,
                3 | 8 => top,
                4 => below.wrapping_add(top),
                5 => below.wrapping_sub(top),
                6 => below.wrapping_mul(top),
                _ => top.reverse_bits(),
            });
        }
        stack[stack.len() - 1]
    };
    for n in LENGTHS {
        let x = random_words(n, 22);
        let values = [
            Value::Bytes(code.clone()),
            array(&x, u32::to_le_bytes),
            Empty(4 * n),
            Int(PROGRAMS.len()),
            Int(n),
        ];
        let found = kernel.launch([blocks(n, 96), 1, 1], [96, 1, 1], 0, &values);
        let expected: Vec<u32> = x.iter().enumerate().map(|(i, &x)| result(i, x)).collect();
        assert_eq!(read(&found[2], u32::from_le_bytes), expected, "{n}");
    }
}

#[test]
fn keys_are_sorted_with_their_places() {
    let Some(kernel) = kernel("bitonic_sort") else {
        return;
    };
    for n in LENGTHS {
        let mut keys: Vec<u32> = random(n, 23).iter().map(|x| (x % 100) as u32).collect();
        keys[n / 2] = u32::MAX;
        let values = [array(&keys, u32::to_le_bytes), Empty(2 * n), Int(n)];
        let found = kernel.launch([blocks(n, 256), 1, 1], [128, 1, 1], 0, &values);
        let mut expected = Vec::new();
        for block in keys.chunks(256) {
            let mut pairs: Vec<(u32, u16)> = block.iter().copied().zip(0..).collect();
            pairs.sort_unstable();
            expected.extend(pairs);
        }
        let places = read(&found[1], u16::from_le_bytes);
        let found = read(&found[0], u32::from_le_bytes);
        assert_eq!(
            found.into_iter().zip(places).collect::<Vec<_>>(),
            expected,
            "{n}"
        );
    }
}

/// CRC-32 bit by bit.
fn crc32(text: &[u8]) -> u32 {
    let byte = |crc: u32, &byte: &u8| {
        let bit = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
        (0..8).fold(crc ^ u32::from(byte), bit)
    };
    !text.iter().fold(!0, byte)
}

#[test]
fn tables_are_constant_and_variables_outlive_a_launch() {
    let Some(kernel) = kernel("crc32") else {
        return;
    };
    // The check value of the catalogues.
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    for n in LENGTHS {
        let lengths = random(n, 24);
        let mut starts = vec![0u32];
        for length in lengths {
            starts.push(starts[starts.len() - 1] + (length % 23) as u32);
        }
        let bytes = starts[n] as usize + 1;
        let text: Vec<u8> = random(bytes, 25).iter().map(|&x| x as u8).collect();
        let values = [
            Value::Bytes(text.clone()),
            array(&starts, u32::to_le_bytes),
            Empty(4 * n),
            Int(n),
        ];
        let size = |n| Size {
            grid: [blocks(n, 64), 1, 1],
            block: [64.min(n as u32), 1, 1],
            shared: 0,
        };
        for schedule in schedules() {
            let machine = Machine::with(Limits {
                schedule,
                ..Limits::checked(80)
            });
            let (args, arrays) = place(&machine, &values);
            kernel.run(&machine, "crc32", size(n), &args);
            let found = download(&machine, arrays[2].0, 4 * n);
            let expected: Vec<u32> = starts
                .windows(2)
                .map(|ends| crc32(&text[ends[0] as usize..ends[1] as usize]))
                .collect();
            assert_eq!(
                read(&found, u32::from_le_bytes),
                expected,
                "{n} {schedule:?}"
            );
            let total = machine.empty(8);
            kernel.run(&machine, "bytes_in_all", size(1), &[Arg::Ptr(total)]);
            let total = download(&machine, total, 8);
            assert_eq!(read(&total, u64::from_le_bytes), [u64::from(starts[n])]);
        }
    }
}

#[test]
fn rows_of_any_length_are_summed_by_a_warp() {
    let Some(kernel) = kernel("spmv") else {
        return;
    };
    let columns_in_all = 131;
    for lengths in [
        &[1][..],
        &[0, 1, 2, 3, 4, 5, 7, 17, 31, 32, 33],
        &[200, 0, 65, 129, 1],
    ] {
        let mut starts = vec![0u32];
        for length in lengths {
            starts.push(starts[starts.len() - 1] + length);
        }
        let rows = lengths.len();
        let n = starts[rows] as usize;
        let columns: Vec<u16> = random(n, 26)
            .iter()
            .map(|x| (x % columns_in_all) as u16)
            .collect();
        let (a, x) = (noise(n, 27), noise(columns_in_all as usize, 28));
        let values = [
            array(&starts, u32::to_le_bytes),
            array(&columns, u16::to_le_bytes),
            floats(&a),
            floats(&x),
            Empty(4 * rows),
            Int(rows),
        ];
        let found = kernel.launch([blocks(rows, 4), 1, 1], [128, 1, 1], 0, &values);
        let expected = starts.windows(2).map(|ends| {
            let terms = (ends[0] as usize..ends[1] as usize)
                .map(|i| f64::from(a[i]) * f64::from(x[usize::from(columns[i])]));
            sum(terms)
        });
        check("spmv", &wide(&read_floats(&found[4])), expected);
    }
}

#[test]
fn the_largest_is_found_by_compare_and_swap() {
    let Some(kernel) = kernel("largest") else {
        return;
    };
    for n in LENGTHS {
        let x: Vec<f64> = noise(n, 29).iter().map(|&x| f64::from(x) / 3.0).collect();
        for start in [f64::NEG_INFINITY, 0.3, 7.0] {
            let values = [
                array(&x, f64::to_le_bytes),
                array(&[start], f64::to_le_bytes),
                Int(n),
            ];
            let found = kernel.launch([blocks(n, 96), 1, 1], [96, 1, 1], 0, &values);
            let expected = x.iter().copied().fold(start, f64::max);
            assert_eq!(read(&found[1], f64::from_le_bytes), [expected], "{n}");
        }
    }
}
