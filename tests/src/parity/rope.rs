//! Rotary position embedding.

use super::memory::Buffer;
use super::number::{FLOATS, Tie, Tol, U, close, decoded, normal, output, rounded, same, upload};
use super::{Body, Shape};
use whittle_tensor::gpu::{kernels, rope};
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::{DType, Driver, Pairing, Tensor};

const BASE: f32 = 10_000.0;

/// Tokens, heads, head_dim, how far x and out lie off an aligned address, and a grid other than the launcher's.
type Case = ([usize; 3], [usize; 2], Option<[u32; 3]>);

const CASES: [Case; 8] = [
    ([1, 1, 2], [0, 0], None),
    ([2, 3, 6], [0, 0], None),
    ([3, 9, 64], [0, 0], None),
    ([2, 17, 66], [0, 0], Some([2, 2, 1])),
    ([2, 16, 128], [0, 0], Some([2, 2, 1])),
    ([2, 5, 64], [1, 0], None),
    ([2, 5, 64], [0, 1], None),
    ([300, 1, 4], [0, 0], None),
];

/// Where pair `i` of a head stands.
fn pair(pairing: Pairing, i: usize, head_dim: usize) -> [usize; 2] {
    match pairing {
        Pairing::Interleaved => [2 * i, 2 * i + 1],
        Pairing::HalfSplit => [i, i + head_dim / 2],
    }
}

fn check(kernel: &Kernel, driver: &dyn Driver, dtype: DType, pairing: Pairing) {
    for (sizes, shifts, grid) in CASES {
        let [tokens, heads, head_dim] = sizes;
        let x = normal(dtype, tokens * heads * head_dim, 400);
        let positions: Vec<u32> = (0..tokens as u32).map(|t| t * t * 977 % 100_003).collect();
        let memory = upload(driver, dtype, &x, shifts[0]);
        let turns = Buffer::of(driver, &rope::turns(&positions, head_dim, BASE), 0);
        let out = output(driver, dtype, x.len(), shifts[1]);
        let pointers = [memory.pointer(), turns.pointer(), out.pointer()];
        match grid {
            None => {
                let [x, turns, out] = pointers;
                rope::heads(kernel, driver, x, turns, out, sizes).unwrap();
            }
            Some(grid) => {
                let mut args = pointers.map(Arg::Ptr).to_vec();
                args.extend([heads, head_dim / 2].map(|size| Arg::U32(size as u32)));
                kernel.launch(driver, grid, [32, 8, 1], 0, &args).unwrap();
            }
        }
        let found = decoded(dtype, &out.bytes());
        // The CPU's operation has the bits.
        let cpu = Tensor::from_vec(x.clone(), &sizes).unwrap();
        let cpu = cpu
            .rope(&positions, BASE, pairing)
            .unwrap()
            .to_vec::<f32>()
            .unwrap();
        for (at, (&found, cpu)) in found.iter().zip(cpu).enumerate() {
            let context = || format!("{} at {at} of {sizes:?}", kernel.entry());
            same(context, found, rounded(dtype, cpu));
        }
        for head in 0..tokens * heads {
            for i in 0..head_dim / 2 {
                let exponent = -2.0 * i as f64 / head_dim as f64;
                let angle = f64::from(positions[head / heads]) * f64::from(BASE).powf(exponent);
                let [first, second] = pair(pairing, i, head_dim).map(|at| head * head_dim + at);
                let (a, b) = (f64::from(x[first]), f64::from(x[second]));
                let turned = [
                    a * angle.cos() - b * angle.sin(),
                    a * angle.sin() + b * angle.cos(),
                ];
                for (at, expected) in [first, second].into_iter().zip(turned) {
                    let tol = Tol::of(
                        4.0 * (a.abs() + b.abs()) * U,
                        "a turn rounded, two products, a sum",
                    );
                    let context = || format!("{} at {at} of {sizes:?}", kernel.entry());
                    close(
                        context,
                        dtype,
                        found[at],
                        expected,
                        tol.rounded_to(dtype, expected),
                    );
                }
            }
        }
    }
    let nothing = whittle_tensor::DevicePtr::new(0);
    rope::heads(kernel, driver, nothing, nothing, nothing, [0, 4, 8]).unwrap();
}

/// Results beside ties of a half, on whose side a single rounding of f32 decides: the pair, its cosine and sine.
fn check_ties(kernel: &Kernel, driver: &dyn Driver, dtype: DType, pairing: Pairing) {
    let Some(tie) = Tie::of(dtype) else {
        return;
    };
    let (t, p) = (tie.value, tie.product);
    let cases = [
        ([3.0, 0.0], [p, 0.0]),
        ([0.0, 3.0], [p, 0.0]),
        ([3.0, 0.0], [0.0, p]),
        ([0.0, -3.0], [0.0, p]),
        ([1.0, 1.0], [t, tie.tiny]),
        ([-1.0, 1.0], [t, tie.tiny]),
    ];
    let head_dim = 2 * cases.len();
    let (mut x, mut turns, mut expected) = (vec![0.0; head_dim], Vec::new(), vec![0.0; head_dim]);
    for (i, ([a, b], [cosine, sine])) in cases.into_iter().enumerate() {
        let [first, second] = pair(pairing, i, head_dim);
        (x[first], x[second]) = (a, b);
        turns.extend([cosine, sine]);
        expected[first] = rounded(dtype, a * cosine - b * sine);
        expected[second] = rounded(dtype, a * sine + b * cosine);
    }
    for shift in [0, 1] {
        let memory = upload(driver, dtype, &x, shift);
        let turns = Buffer::of(driver, &turns, 0);
        let out = output(driver, dtype, head_dim, 0);
        let (from, turns, to) = (memory.pointer(), turns.pointer(), out.pointer());
        rope::heads(kernel, driver, from, turns, to, [1, 1, head_dim]).unwrap();
        for (at, found) in decoded(dtype, &out.bytes()).into_iter().enumerate() {
            let context = || format!("{} beside a tie, at {at}", kernel.entry());
            same(context, found, expected[at]);
        }
    }
}

const PAIRINGS: [(&str, Pairing); 2] = [
    ("rope_interleaved", Pairing::Interleaved),
    ("rope_half_split", Pairing::HalfSplit),
];

pub(super) fn bodies() -> Vec<Body> {
    let mut bodies = Vec::new();
    for (op, pairing) in PAIRINGS {
        for dtype in FLOATS {
            let kernel = kernels::of(op, dtype).expect(op);
            bodies.push(Body::new(kernel, move |driver| {
                check(kernel, driver, dtype, pairing);
                check_ties(kernel, driver, dtype, pairing);
            }));
        }
    }
    bodies
}

pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (op, _) in PAIRINGS {
        for dtype in FLOATS {
            let kernel = kernels::of(op, dtype).expect(op);
            let bytes = dtype.size_in_bytes();
            // Decoding, prefilling, and a head of a prime number of pairs.
            for sizes in [[1, 32, 128], [256, 8, 64], [3, 5, 62]] {
                let [tokens, heads, head_dim] = sizes;
                let n = tokens * heads * head_dim;
                // Each head's threads read their turn where there are few tokens, 8 heads' share it where there are many.
                let readers = if tokens < 256 { heads } else { heads.min(8) };
                let floor =
                    (head_dim != 62).then_some(2 * n * bytes + readers * tokens * head_dim * 4);
                let name = format!("{tokens}x{heads}x{head_dim}");
                shapes.push(Shape::new(kernel, name, n, floor, move |driver| {
                    let positions: Vec<u32> = (0..tokens as u32).collect();
                    let x = upload(driver, dtype, &normal(dtype, n, 1), 0);
                    let turns = Buffer::of(driver, &rope::turns(&positions, head_dim, BASE), 0);
                    let out = output(driver, dtype, n, 0);
                    let (x, turns, out) = (x.pointer(), turns.pointer(), out.pointer());
                    rope::heads(kernel, driver, x, turns, out, sizes).unwrap();
                }));
            }
        }
    }
    shapes
}
