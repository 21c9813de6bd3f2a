//! Philox streams.

use super::memory::Buffer;
use super::number::{Tol, close, rounds_to_nearest, same};
use super::twin::{cos, lg2, sin};
use super::unary::{PRIME, WHOLE, log_series};
use super::{Body, Shape};
use whittle_tensor::gpu::{kernels, random};
use whittle_tensor::kernel::Kernel;
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{DType, Driver};

const SEED: u64 = 0x0123_4567_89ab_cdef;
const STREAM: u64 = 0x1122_3344_5566_7788;

/// The kernel's own operations on the words of a pair.
fn pair(first: u32, second: u32) -> [f32; 2] {
    let below = !first as f32 * -(2f32.powi(-32));
    let near = log_series(below / (below + 1.0 + 1.0));
    let far = lg2((first as f32 + 1.0) * 2f32.powi(-32)) * std::f32::consts::LN_2;
    let log = if first >= 0xC000_0000 { near } else { far };
    let radius = (log * -2.0).sqrt();
    let angle = second as i32 as f32 * f32::from_bits(0x30C9_0FDB);
    [cos(angle) * radius, sin(angle) * radius]
}

/// Numbers, and elements between an allocation's start and them.
const CASES: [(usize, usize); 8] = [
    (1, 0),
    (2, 0),
    (3, 4),
    (4, 0),
    (7, 0),
    (1024, 0),
    (1026, 4),
    (300_000, 0),
];

/// Seeds whose first four words show how the series of the logarithm rounds, found by a search through all seeds.
const TELLING: [u64; 3] = [180_836, 317_117, 1_571_750];

fn check(kernel: &Kernel, driver: &dyn Driver) {
    let has_twin = rounds_to_nearest(driver);
    let launch = |seed: u64, stream: u64, (n, shift): (usize, usize)| {
        let out = Buffer::poisoned::<u32>(driver, n, shift);
        random::philox(kernel, driver, out.pointer(), seed, stream, n).unwrap();
        let expected = Philox4x32::new(seed, stream);
        compare(kernel, &expected, &out.read::<u32>(), has_twin);
    };
    for case in CASES {
        launch(SEED, STREAM, case);
        launch(case.0 as u64, u64::MAX, case);
    }
    for seed in TELLING {
        launch(seed, STREAM, (4, 0));
    }
    random::philox(kernel, driver, whittle_tensor::DevicePtr::new(0), 0, 0, 0).unwrap();
}

fn compare(kernel: &Kernel, random: &Philox4x32, found: &[u32], has_twin: bool) {
    for (i, &found) in (0..).zip(found) {
        let context = || format!("{} number {i}", kernel.entry());
        match kernel.entry() {
            "philox_bits" => assert_eq!(found, random.u32_at(i), "{}", context()),
            "philox_uniform" => same(context, f32::from_bits(found), random.uniform_at(i)),
            _ => {
                let found = f32::from_bits(found);
                let [first, second] = [i & !1, i | 1].map(|i| random.u32_at(i));
                if has_twin {
                    same(context, found, pair(first, second)[(i % 2) as usize]);
                }
                let u = (f64::from(first) + 1.0) / 2f64.powi(32);
                let tol = (-2.0 * u.ln()).sqrt() * 2f64.powf(-19.5);
                let tol = Tol::of(tol, "sin.approx and cos.approx of a rounded angle");
                close(
                    context,
                    DType::F32,
                    found,
                    f64::from(random.normal_at(i)),
                    tol,
                );
            }
        }
    }
}

const KERNELS: [&Kernel; 3] = [
    &kernels::PHILOX_BITS,
    &kernels::PHILOX_UNIFORM,
    &kernels::PHILOX_NORMAL,
];

pub(super) fn bodies() -> Vec<Body> {
    let of = |kernel| Body::new(kernel, move |driver| check(kernel, driver));
    KERNELS.map(of).to_vec()
}

pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for kernel in KERNELS {
        for n in [WHOLE, PRIME] {
            let floor = (n == WHOLE).then_some(4 * n);
            shapes.push(Shape::new(kernel, n.to_string(), n, floor, move |driver| {
                let out = Buffer::poisoned::<u32>(driver, n, 0);
                random::philox(kernel, driver, out.pointer(), SEED, STREAM, n).unwrap();
            }));
        }
    }
    shapes
}
