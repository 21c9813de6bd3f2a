//! Values of the float types as f32, and their comparison.

use half::{bf16, f16};
use whittle_ptx_vm::num::approx::{self, Approx, Function};
use whittle_tensor::kernels;
use whittle_tensor::{DType, Driver, random::Philox4x32};

use super::memory::Buffer;
use whittle_tensor::kernel::Arg;

/// The unit of rounding of f32, 2^-24: the greatest relative error of one operation.
pub(super) const U: f64 = 1.0 / (1 << 24) as f64;

/// The three float types that devices have.
pub(super) const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// The value of the type that is nearest, as f32.
pub(super) fn rounded(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::BF16 => bf16::from_f32(x).to_f32(),
        _ => x,
    }
}

/// Values as they lie in memory.
pub(super) fn encoded(dtype: DType, values: &[f32]) -> Vec<u8> {
    match dtype {
        DType::F16 => {
            let halves: Vec<f16> = values.iter().map(|x| f16::from_f32(*x)).collect();
            bytemuck::cast_slice(&halves).to_vec()
        }
        DType::BF16 => {
            let halves: Vec<bf16> = values.iter().map(|x| bf16::from_f32(*x)).collect();
            bytemuck::cast_slice(&halves).to_vec()
        }
        _ => bytemuck::cast_slice(values).to_vec(),
    }
}

/// Values from memory.
pub(super) fn decoded(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let half = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
    match dtype {
        DType::F16 => bytes
            .chunks_exact(2)
            .map(|bytes| f16::from_bits(half(bytes)).to_f32())
            .collect(),
        DType::BF16 => bytes
            .chunks_exact(2)
            .map(|bytes| bf16::from_bits(half(bytes)).to_f32())
            .collect(),
        _ => bytemuck::pod_collect_to_vec(bytes),
    }
}

/// An array of a float type on a device, `shift` elements behind an aligned address.
pub(super) fn upload<'a>(
    driver: &'a dyn Driver,
    dtype: DType,
    values: &[f32],
    shift: usize,
) -> Buffer<'a> {
    Buffer::filled(
        driver,
        &encoded(dtype, values),
        shift * dtype.size_in_bytes(),
    )
}

/// Poisoned memory for `len` values.
pub(super) fn output<'a>(
    driver: &'a dyn Driver,
    dtype: DType,
    len: usize,
    shift: usize,
) -> Buffer<'a> {
    let bytes = dtype.size_in_bytes();
    match bytes {
        2 => Buffer::poisoned::<u16>(driver, len, shift),
        _ => Buffer::poisoned::<u32>(driver, len, shift),
    }
}

/// Normal numbers, rounded to the type.
pub(super) fn normal(dtype: DType, len: usize, stream: u64) -> Vec<f32> {
    let mut random = Philox4x32::new(7, stream);
    (0..len)
        .map(|_| rounded(dtype, random.next_normal()))
        .collect()
}

/// A number in the middle between two halves, of which the upper one is even, and what turns the balance by less than a half can see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tie {
    /// The tie in f32, `1 + rest`.
    pub(super) value: f32,
    /// What a tie is above 1, a half itself.
    pub(super) rest: f32,
    /// A half so small that f32 rounds the tie less it to the tie, and cuts it to less.
    pub(super) tiny: f32,
    /// Three times this is less than a tie between 1 and 2, by so little that the product rounds to it.
    pub(super) product: f32,
    /// Three times this less ½ is less than a tie between ½ and 1, and the product rounds to that tie and ½.
    pub(super) fused: f32,
}

impl Tie {
    /// None for f32, which sees everything.
    pub(super) fn of(dtype: DType) -> Option<Self> {
        let (digits, tiny) = match dtype {
            DType::F16 => (11, 2f32.powi(-24)),
            DType::BF16 => (8, 2f32.powi(-40)),
            _ => return None,
        };
        // Every other tie has an even neighbour above.
        let ties = |unit: f64| (0..).map(move |k| 1.0 + f64::from(4 * k + 3) * unit);
        let unit = 2f64.powi(-digits);
        Some(Self {
            value: (1.0 + 3.0 * unit) as f32,
            rest: (3.0 * unit) as f32,
            tiny,
            product: ties(unit).find_map(|tie| third_of(tie, 2f64.powi(-25)))?,
            fused: ties(unit / 2.0).find_map(|tie| third_of(tie, 2f64.powi(-24)))?,
        })
    }
}

/// The f32 of which three times is `target`, between 1 and 2, less exactly `missing`.
fn third_of(target: f64, missing: f64) -> Option<f32> {
    let third = ((target - missing) / 3.0) as f32;
    (3.0 * f64::from(third) == target - missing).then_some(third)
}

/// How many units in the last place of f32 a number is from the nearest tie between two halves; none for f32.
pub(super) fn off_tie(dtype: DType, y: f32) -> u32 {
    let (mask, tie) = match dtype {
        DType::F16 => (0x1fff, 0x1000),
        DType::BF16 => (0xffff, 0x8000),
        _ => return 0,
    };
    (y.to_bits() & mask).abs_diff(tie)
}

/// How far a result may be from the oracle's, in absolute terms, and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tol {
    absolute: f64,
    reason: &'static str,
}

impl Tol {
    /// An error of so much.
    pub(super) fn of(absolute: f64, reason: &'static str) -> Self {
        Self { absolute, reason }
    }

    /// And the rounding of `expected` to the type, of which f32's own is counted already.
    pub(super) fn rounded_to(self, dtype: DType, expected: f64) -> Self {
        let rounding = match dtype {
            // Below 2^-14 the places of f16 are 2^-24 wide, below 2^-126 those of bf16 2^-133.
            DType::F16 => expected.abs() * 2f64.powi(-11) + 2f64.powi(-25),
            DType::BF16 => expected.abs() * 2f64.powi(-8) + 2f64.powi(-134),
            _ => 0.0,
        };
        Self {
            absolute: self.absolute * 1.01 + rounding * 1.01,
            ..self
        }
    }
}

/// Asserts that a value is what the oracle says; beyond the type's range that is infinity.
#[track_caller]
pub(super) fn close(
    context: impl FnOnce() -> String,
    dtype: DType,
    found: f32,
    expected: f64,
    tol: Tol,
) {
    let found = f64::from(found);
    let greatest = match dtype {
        DType::F16 => 65_504.0,
        DType::BF16 => f64::from(bf16::MAX.to_f32()),
        _ => f64::from(f32::MAX),
    };
    let overflows = found.abs() == f64::INFINITY
        && found.signum() == expected.signum()
        && expected.abs() + tol.absolute >= greatest;
    assert!(
        found == expected
            || found.is_nan() && expected.is_nan()
            || overflows
            || (found - expected).abs() <= tol.absolute,
        "{}: {found:e} for {expected:e}, off by {:e} where {:e} is allowed: {}",
        context(),
        (found - expected).abs(),
        tol.absolute,
        tol.reason
    );
}

/// Asserts equal bits. NaN are equal: their signs and payloads are nobody's promise.
#[track_caller]
pub(super) fn same(context: impl FnOnce() -> String, found: f32, expected: f32) {
    assert!(
        found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
        "{}: {found:e} ({:#010x}) where the twin has {expected:e} ({:#010x})",
        context(),
        found.to_bits(),
        expected.to_bits()
    );
}

kernels! {
    module "probe" in include_str!("probe.ptx");

    /// `out = ex2.approx x`.
    PROBE = "probe"(x: Ptr, out: Ptr);
}

/// Whether the driver rounds approximate functions to nearest: then twins have their bits. Told by 256 values of ex2.
pub(super) fn rounds_to_nearest(driver: &dyn Driver) -> bool {
    let x: Vec<f32> = (0..256).map(|i| (i as f32 - 128.0) * 0.173).collect();
    let x_memory = Buffer::of(driver, &x, 0);
    let out = Buffer::poisoned::<f32>(driver, 256, 0);
    let args = [Arg::Ptr(x_memory.pointer()), Arg::Ptr(out.pointer())];
    PROBE.launch(driver, [1; 3], [256, 1, 1], 0, &args).unwrap();
    let exact = |x: &f32| approx::unary(Function::Ex2, x.to_bits(), false, Approx::Nearest);
    out.read::<u32>().into_iter().eq(x.iter().map(exact))
}
