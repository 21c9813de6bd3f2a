//! Copies, constants, views and transposes.

use super::binary::{places, reach};
use super::memory::Buffer;
use super::unary::{CASES, PRIME, WHOLE};
use super::{Body, Shape};
use whittle_tensor::Driver;
use whittle_tensor::gpu::strided::View;
use whittle_tensor::gpu::{copy, fill, kernels, unary};
use whittle_tensor::kernel::{Arg, Kernel};

/// Bytes that tell elements apart.
fn counted(bytes: usize) -> Vec<u8> {
    (0..bytes as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// A shape, the strides of `x` and of `out`.
type Views = (&'static [usize], [&'static [usize]; 2]);

const VIEWS: [Views; 8] = [
    (&[1], [&[1], &[1]]),
    (&[257], [&[3], &[1]]),
    (&[5, 67], [&[1, 5], &[67, 1]]),
    (&[5, 67], [&[70, 1], &[67, 1]]),
    (&[5, 67], [&[67, 1], &[140, 2]]),
    (&[4, 64], [&[0, 1], &[64, 1]]),
    (&[3, 5, 7], [&[1, 3, 15], &[35, 7, 1]]),
    (&[2, 3, 5, 2, 3], [&[1, 2, 6, 30, 60], &[90, 30, 6, 3, 1]]),
];

fn views(kernel: &Kernel, driver: &dyn Driver, bytes: usize) {
    for (shape, strides) in VIEWS {
        let x = counted(bytes * reach(shape, strides[0]));
        let mut expected = vec![0xA5; bytes * reach(shape, strides[1])];
        for (from, to) in places(shape, strides[0])
            .into_iter()
            .zip(places(shape, strides[1]))
        {
            expected[bytes * to..][..bytes].copy_from_slice(&x[bytes * from..][..bytes]);
        }
        let memory = Buffer::filled(driver, &x, bytes);
        let out = Buffer::filled(driver, &vec![0xA5; expected.len()], 0);
        let view = |pointer, stride| View {
            pointer,
            stride,
            bytes,
        };
        let (x, to) = (
            view(memory.pointer(), strides[0]),
            view(out.pointer(), strides[1]),
        );
        copy::copy_views(kernel, driver, shape, x, to).unwrap();
        assert_eq!(
            out.bytes(),
            expected,
            "{} {shape:?} {strides:?}",
            kernel.entry()
        );
    }
}

fn transposes(kernel: &Kernel, driver: &dyn Driver, bytes: usize) {
    let sizes = [
        [1, 1, 1],
        [1, 1, 33],
        [1, 33, 1],
        [1, 10, 20],
        [1, 20, 10],
        [1, 27, 26],
        [1, 31, 64],
        [2, 32, 32],
        [2, 65, 37],
        [3, 8, 96],
    ];
    for [batch, rows, cols] in sizes {
        let x = counted(bytes * batch * rows * cols);
        let places = places(&[batch, cols, rows], &[rows * cols, 1, cols]);
        let element = |place: usize| &x[bytes * place..][..bytes];
        let expected: Vec<u8> = places.into_iter().flat_map(element).copied().collect();
        let memory = Buffer::filled(driver, &x, bytes);
        let out = Buffer::filled(driver, &vec![0xA5; x.len()], bytes);
        let sizes = [batch, rows, cols];
        copy::transpose(kernel, driver, memory.pointer(), out.pointer(), sizes).unwrap();
        assert_eq!(out.bytes(), expected, "{} {sizes:?}", kernel.entry());
    }
}

fn fills(kernel: &Kernel, driver: &dyn Driver, bytes: usize) {
    let pattern = [0xC3D2_E1F0, 0xC3D2_C3D2, 0xC3C3_C3C3][match bytes {
        4 => 0,
        2 => 1,
        _ => 2,
    }];
    for (n, shift, _, blocks) in CASES {
        let out = Buffer::filled(driver, &vec![0xA5; n * bytes], shift * bytes);
        match blocks {
            None => fill::fill(kernel, driver, out.pointer(), pattern, n).unwrap(),
            Some(blocks) => {
                let args = [
                    Arg::Ptr(out.pointer()),
                    Arg::U32(pattern),
                    Arg::U32(n as u32),
                ];
                let (grid, block) = ([blocks, 1, 1], [256, 1, 1]);
                kernel.launch(driver, grid, block, 0, &args).unwrap();
            }
        }
        let element = &u32::to_le_bytes(pattern)[..bytes];
        let expected = element.repeat(n);
        assert_eq!(out.bytes(), expected, "{} {n} elements", kernel.entry());
    }
}

fn copies(kernel: &Kernel, driver: &dyn Driver) {
    for (n, x_shift, out_shift, blocks) in CASES {
        let x = counted(4 * n);
        let memory = Buffer::filled(driver, &x, 4 * x_shift);
        let out = Buffer::filled(driver, &vec![0xA5; 4 * n], 4 * out_shift);
        let (from, to) = (memory.pointer(), out.pointer());
        match blocks {
            None => unary::map(kernel, driver, from, to, n).unwrap(),
            Some(blocks) => {
                let args = [Arg::Ptr(from), Arg::Ptr(to), Arg::U32(n as u32)];
                let (grid, block) = ([blocks, 1, 1], [256, 1, 1]);
                kernel.launch(driver, grid, block, 0, &args).unwrap();
            }
        }
        assert_eq!(out.bytes(), x, "{} {n} words", kernel.entry());
    }
}

fn of_bytes(op: &str, bytes: usize) -> &'static Kernel {
    kernels::of_bytes(op, bytes).expect("a kernel for each size")
}

pub(super) fn bodies() -> Vec<Body> {
    let mut bodies = vec![Body::new(&kernels::COPY_B32, |driver| {
        copies(&kernels::COPY_B32, driver);
    })];
    for bytes in [4, 2, 1] {
        let kernel = of_bytes("copy_strided", bytes);
        bodies.push(Body::new(kernel, move |driver| {
            views(kernel, driver, bytes)
        }));
        let kernel = of_bytes("transpose", bytes);
        bodies.push(Body::new(kernel, move |driver| {
            transposes(kernel, driver, bytes)
        }));
        let kernel = of_bytes("fill", bytes);
        bodies.push(Body::new(kernel, move |driver| {
            fills(kernel, driver, bytes)
        }));
    }
    bodies
}

pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    let kernel = &kernels::COPY_B32;
    for n in [WHOLE, PRIME] {
        let floor = (n == WHOLE).then_some(8 * n);
        shapes.push(Shape::new(kernel, n.to_string(), n, floor, move |driver| {
            let x = Buffer::of(driver, &vec![1u32; n], 0);
            let out = Buffer::of(driver, &vec![0u32; n], 0);
            unary::map(kernel, driver, x.pointer(), out.pointer(), n).unwrap();
        }));
    }
    for bytes in [4, 2, 1] {
        let kernel = of_bytes("fill", bytes);
        for n in [WHOLE, PRIME] {
            let floor = (n == WHOLE).then_some(bytes * n);
            shapes.push(Shape::new(kernel, n.to_string(), n, floor, move |driver| {
                let out = Buffer::of(driver, &vec![0u8; n * bytes], 0);
                fill::fill(kernel, driver, out.pointer(), 0, n).unwrap();
            }));
        }
        let (heads, tokens, dim) = (8, 32, 128);
        let n = heads * tokens * dim;
        let kernel = of_bytes("copy_strided", bytes);
        let name = format!("heads of {tokens}x{heads}x{dim} apart");
        shapes.push(Shape::new(kernel, name, n, 2 * bytes * n, move |driver| {
            let x = Buffer::of(driver, &vec![1u8; n * bytes], 0);
            let out = Buffer::of(driver, &vec![0u8; n * bytes], 0);
            let view = |pointer, stride| View {
                pointer,
                stride,
                bytes,
            };
            let strides = [[dim, heads * dim, 1], [tokens * dim, dim, 1]];
            let apart = view(x.pointer(), &strides[0]);
            let whole = view(out.pointer(), &strides[1]);
            copy::copy_views(kernel, driver, &[heads, tokens, dim], apart, whole).unwrap();
        }));
        let kernel = of_bytes("transpose", bytes);
        for size in [256, 131] {
            let floor = (size == 256).then_some(2 * bytes * size * size);
            let name = format!("{size}x{size}");
            shapes.push(Shape::new(
                kernel,
                name,
                size * size,
                floor,
                move |driver| {
                    let x = Buffer::of(driver, &vec![1u8; size * size * bytes], 0);
                    let out = Buffer::of(driver, &vec![0u8; size * size * bytes], 0);
                    let sizes = [1, size, size];
                    copy::transpose(kernel, driver, x.pointer(), out.pointer(), sizes).unwrap();
                },
            ));
        }
    }
    shapes
}
