//! Rows by index.

use super::memory::Buffer;
use super::{Body, Shape};
use whittle_tensor::Driver;
use whittle_tensor::gpu::{gather, kernels};
use whittle_tensor::kernel::Kernel;

/// Rows of the table, rows taken, pieces of a row, pieces between rows.
const CASES: [[usize; 4]; 8] = [
    [1, 1, 1, 1],
    [5, 7, 1, 1],
    [9, 300, 1, 3],
    [7, 5, 33, 33],
    [4, 9, 32, 40],
    [3, 2, 256, 256],
    [3, 4, 300, 300],
    [6, 3, 513, 520],
];

fn check(kernel: &Kernel, driver: &dyn Driver, bytes: usize) {
    for case in CASES {
        let [table_rows, rows, units, stride] = case;
        let table: Vec<u8> = (0..((table_rows - 1) * stride + units) * bytes)
            .map(|i| (i * i % 251) as u8)
            .collect();
        let index: Vec<u32> = (0..rows).map(|r| (r * r * 5 % table_rows) as u32).collect();
        let x = Buffer::filled(driver, &table, bytes);
        let index_memory = Buffer::of(driver, &index, 1);
        let out = Buffer::filled(driver, &vec![0xA5; rows * units * bytes], bytes);
        let (from, to) = (x.pointer(), out.pointer());
        let sizes = [rows, units, stride];
        gather::rows(kernel, driver, from, index_memory.pointer(), to, sizes).unwrap();
        let expected: Vec<u8> = index
            .iter()
            .flat_map(|&row| &table[row as usize * stride * bytes..][..units * bytes])
            .copied()
            .collect();
        assert!(out.bytes() == expected, "{} {case:?}", kernel.entry());
    }
    let nothing = whittle_tensor::DevicePtr::new(0);
    gather::rows(kernel, driver, nothing, nothing, nothing, [0, 4, 4]).unwrap();
}

fn kernel(bytes: usize) -> &'static Kernel {
    kernels::of_bytes("gather", bytes).expect("a kernel for each piece")
}

const PIECES: [usize; 4] = [16, 4, 2, 1];

pub(super) fn bodies() -> Vec<Body> {
    let of = |bytes| {
        let kernel = kernel(bytes);
        Body::new(kernel, move |driver| check(kernel, driver, bytes))
    };
    PIECES.map(of).to_vec()
}

pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for bytes in PIECES {
        let kernel = kernel(bytes);
        for (rows, units) in [(64, 512), (13, 37)] {
            // Warps of 32 pieces read their row's index.
            let floor = (units == 512).then_some(2 * rows * units * bytes + 32 * rows * units / 32);
            let name = format!("{rows}x{units}");
            shapes.push(Shape::new(
                kernel,
                name,
                rows * units,
                floor,
                move |driver| {
                    let x = Buffer::filled(driver, &vec![1; 8 * units * bytes], 0);
                    let index: Vec<u32> = (0..rows).map(|r| (r % 8) as u32).collect();
                    let index = Buffer::of(driver, &index, 0);
                    let out = Buffer::filled(driver, &vec![0; rows * units * bytes], 0);
                    let (x, index, out) = (x.pointer(), index.pointer(), out.pointer());
                    gather::rows(kernel, driver, x, index, out, [rows, units, units]).unwrap();
                },
            ));
        }
    }
    shapes
}
