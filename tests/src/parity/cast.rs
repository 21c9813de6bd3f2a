//! Conversions between element types.

use super::memory::Buffer;
use super::unary::{CASES, PRIME, WHOLE};
use super::{Body, Shape};
use whittle_tensor::gpu::{cast, unary};
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::random::Philox4x32;
use whittle_tensor::{DType, Driver, Tensor};

const ALL: [DType; 7] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::U32,
    DType::I32,
    DType::U8,
    DType::I8,
];

/// Values of a type that conversions treat differently, as a tensor on the CPU: all there are of the small types.
fn values(dtype: DType) -> Tensor {
    let mut random = Philox4x32::new(13, 0);
    let vector = |len| [len];
    match dtype {
        DType::F32 => {
            let mut x = vec![
                0.0,
                -0.0,
                f32::INFINITY,
                f32::NEG_INFINITY,
                f32::NAN,
                f32::MAX,
                f32::MIN,
                1e-40,
                -1e-40,
                65_504.0,
                65_519.0,
                65_520.0,
                2f32.powi(-25),
                3.0 * 2f32.powi(-25),
            ];
            // Around the ends of the integer types, and halves between integers.
            for edge in [127.0f32, 128.0, 255.0, 256.0, 2147483648.0, 4294967296.0] {
                let bits = edge.to_bits();
                for bits in bits - 2..bits + 3 {
                    x.extend([f32::from_bits(bits), -f32::from_bits(bits)]);
                }
                x.extend([edge + 0.5, edge - 0.5, -edge - 0.5, 0.5 - edge]);
            }
            // Ties of both halves, and their neighbours.
            for high in 0..512u32 {
                let bits = high.wrapping_mul(0x0101_2345) & 0xffff_0000;
                x.extend([0x7fff, 0x8000, 0x8001].map(|low| f32::from_bits(bits | low)));
                let bits = high.wrapping_mul(0x0003_2345) & 0x007f_e000 | 0x3f80_0000;
                x.extend([0x0fff, 0x1000, 0x1001].map(|low| f32::from_bits(bits | low)));
            }
            x.extend((0..1000).map(|_| f32::from_bits(random.next_u32())));
            x.extend((0..1000).map(|_| 300.0 * random.next_normal()));
            let len = x.len();
            Tensor::from_vec(x, &vector(len)).unwrap()
        }
        DType::F16 | DType::BF16 => {
            let bits: Vec<u16> = (0..=u16::MAX).collect();
            if dtype == DType::F16 {
                let halves: Vec<half::f16> = bytemuck::cast_vec(bits);
                Tensor::from_vec(halves, &[1 << 16]).unwrap()
            } else {
                let halves: Vec<half::bf16> = bytemuck::cast_vec(bits);
                Tensor::from_vec(halves, &[1 << 16]).unwrap()
            }
        }
        DType::U8 => Tensor::from_vec((0..=u8::MAX).collect(), &[256]).unwrap(),
        DType::I8 => Tensor::from_vec((i8::MIN..=i8::MAX).collect(), &[256]).unwrap(),
        _ => {
            let mut x: Vec<u32> = (0..600).chain(u32::MAX - 600..=u32::MAX).collect();
            for shift in 8..32 {
                let power = 1u32 << shift;
                x.extend(power - 3..=power + 3);
                // Ties of bf16, one below, one above; ties of f32 in the widest numbers.
                let half = power | power >> 8;
                x.extend([half - 1, half, half + 1, half | power >> 7]);
                x.extend([power | power >> 24, power | power >> 24 | power >> 23]);
            }
            x.extend((0..1000).map(|_| random.next_u32() >> (random.next_u32() % 32)));
            let len = x.len();
            if dtype == DType::U32 {
                Tensor::from_vec(x, &[len]).unwrap()
            } else {
                Tensor::from_vec(bytemuck::cast_vec::<u32, i32>(x), &[len]).unwrap()
            }
        }
    }
}

/// The tensor's bytes, NaN made one.
fn bytes(x: &Tensor) -> Vec<u8> {
    match x.dtype() {
        DType::F32 => bytemuck::cast_slice(&x.to_vec::<f32>().unwrap()).to_vec(),
        DType::F16 => bytemuck::cast_slice(&x.to_vec::<half::f16>().unwrap()).to_vec(),
        DType::BF16 => bytemuck::cast_slice(&x.to_vec::<half::bf16>().unwrap()).to_vec(),
        DType::U32 => bytemuck::cast_slice(&x.to_vec::<u32>().unwrap()).to_vec(),
        DType::I32 => bytemuck::cast_slice(&x.to_vec::<i32>().unwrap()).to_vec(),
        DType::U8 => x.to_vec::<u8>().unwrap(),
        _ => bytemuck::cast_slice(&x.to_vec::<i8>().unwrap()).to_vec(),
    }
}

/// Whether the bytes of an element are a NaN.
fn is_nan(dtype: DType, bytes: &[u8]) -> bool {
    match *bytes {
        [a, b, c, d] if dtype == DType::F32 => f32::from_le_bytes([a, b, c, d]).is_nan(),
        [a, b] if dtype == DType::F16 => half::f16::from_le_bytes([a, b]).is_nan(),
        [a, b] if dtype == DType::BF16 => half::bf16::from_le_bytes([a, b]).is_nan(),
        _ => false,
    }
}

fn check(kernel: &Kernel, driver: &dyn Driver, from: DType, to: DType) {
    let x = values(from);
    let expected = bytes(&x.to_dtype(to).unwrap());
    let x = bytes(&x);
    let (wide, narrow) = (from.size_in_bytes(), to.size_in_bytes());
    let len = x.len() / wide;
    let whole = [(len, 0, 0, None), (len, 1, 1, None)];
    for (n, x_shift, out_shift, blocks) in CASES.into_iter().chain(whole) {
        let x: Vec<u8> = x.iter().copied().cycle().take(n * wide).collect();
        let expected: Vec<u8> = expected.iter().copied().cycle().take(n * narrow).collect();
        let memory = Buffer::filled(driver, &x, x_shift * wide);
        let out = Buffer::filled(driver, &vec![0xA5; n * narrow], out_shift * narrow);
        let (source, target) = (memory.pointer(), out.pointer());
        match blocks {
            None => unary::map(kernel, driver, source, target, n).unwrap(),
            Some(blocks) => {
                let args = [Arg::Ptr(source), Arg::Ptr(target), Arg::U32(n as u32)];
                let (grid, block) = ([blocks, 1, 1], [256, 1, 1]);
                kernel.launch(driver, grid, block, 0, &args).unwrap();
            }
        }
        let found = out.bytes();
        let pairs = found
            .chunks_exact(narrow)
            .zip(expected.chunks_exact(narrow));
        for (at, (found, expected)) in pairs.enumerate() {
            let both_nan = is_nan(to, found) && is_nan(to, expected);
            assert!(
                found == expected || both_nan,
                "{} of {:x?}: {found:x?} where the CPU has {expected:x?}",
                kernel.entry(),
                &x[at * wide..][..wide]
            );
        }
    }
}

fn pairs() -> impl Iterator<Item = (DType, DType)> {
    ALL.into_iter()
        .flat_map(|from| ALL.map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
}

pub(super) fn bodies() -> Vec<Body> {
    pairs()
        .map(|(from, to)| {
            let kernel = cast::kernel(from, to).expect("every pair has a kernel");
            Body::new(kernel, move |driver| check(kernel, driver, from, to))
        })
        .collect()
}

pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (from, to) in pairs() {
        let kernel = cast::kernel(from, to).expect("every pair has a kernel");
        let (wide, narrow) = (from.size_in_bytes(), to.size_in_bytes());
        for n in [WHOLE, PRIME] {
            let floor = (n == WHOLE).then_some(n * (wide + narrow));
            shapes.push(Shape::new(kernel, n.to_string(), n, floor, move |driver| {
                let x = Buffer::of(driver, &vec![1u8; n * wide], 0);
                let out = Buffer::of(driver, &vec![0u8; n * narrow], 0);
                unary::map(kernel, driver, x.pointer(), out.pointer(), n).unwrap();
            }));
        }
    }
    shapes
}
