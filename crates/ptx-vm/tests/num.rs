//! The rules of PTX arithmetic, each by name, against slow references.

#[path = "num/reference.rs"]
mod reference;

use reference::{Exact, Random};
use whittle_ptx_vm::layout::{self, Mma};
use whittle_ptx_vm::num::approx::{self, Approx, Function};
use whittle_ptx_vm::num::convert::{self, Byte, How};
use whittle_ptx_vm::num::float::{self, Extremum, Mode};
use whittle_ptx_vm::num::half::{self, Bf16, F16, Half};
use whittle_ptx_vm::num::integer::{self, Int, Prmt};
use whittle_ptx_vm::num::mma::{self, Integers};
use whittle_ptx_vm::num::shuffle::{self, Redux, Shuffle};
use whittle_ptx_vm::num::{self, Lanes, exact, map1};
use whittle_ptx_vm::op::{Compare, Rounding, Type};

/// Rows `found => expected;`.
macro_rules! equal {
    ($($found:expr => $expected:expr;)*) => {$(assert_eq!($found, $expected, "{}", stringify!($found));)*};
}

const DIRECTIONS: [Rounding; 4] = [Rounding::Rn, Rounding::Rz, Rounding::Rm, Rounding::Rp];
const RN: Mode = Mode::RN;
const FTZ: Mode = Mode { ftz: true, ..RN };
const SAT: Mode = Mode { sat: true, ..RN };
const PLAIN: half::Mode = half::Mode::PLAIN;

/// Zeros, ones, neighbours of powers of two, the ends of the ranges of normal and subnormal numbers, infinity, NaN, both signs.
fn special() -> Vec<u32> {
    let positive = [
        0u32, 1, 2, 0x007fffff, 0x00800000, 0x00800001, 0x2b000001, 0x33800000, 0x3f7fffff,
        0x3f800000, 0x3f800001, 0x3fc00000, 0x40400000, 0x4b800000, 0x46c2c200, 0x44284000,
        0x7f7fffff, 0x7f800000, 0x7fc00001,
    ];
    positive.iter().flat_map(|&x| [x, x | 1 << 31]).collect()
}

/// All pairs of `values`.
fn pairs<T: Copy>(values: &[T]) -> impl Iterator<Item = (T, T)> {
    let second = move |&a| values.iter().map(move |&b| (a, b));
    values.iter().flat_map(second)
}

/// The exact result rounded, or what f64 says where there is nothing to round.
fn rounded(inexact: f64, exact: Exact, rounding: Rounding) -> u32 {
    if inexact == 0.0 || !inexact.is_finite() {
        return float::canonical(inexact as f32);
    }
    exact.round(32, rounding) as u32
}

fn fma_reference(a: u32, b: u32, c: u32, rounding: Rounding) -> u32 {
    let [x, y, z] = [a, b, c].map(|x| f64::from(f32::from_bits(x)));
    if x * y == -z && z.is_finite() {
        // The sum is exactly zero: of one sign if both summands have it, else of the direction's.
        let [p, z] = [x * y, z].map(f64::is_sign_negative);
        let negative = if p == z { p } else { rounding == Rounding::Rm };
        return u32::from(negative) << 31;
    }
    rounded(x * y + z, Exact::Fma(x, y, z), rounding)
}

#[test]
fn fma_rounds_once_in_every_direction() {
    let special = special();
    for rounding in DIRECTIONS {
        for (a, b) in pairs(&special) {
            let step = if rounding == Rounding::Rn { 1 } else { 3 };
            for &c in special.iter().step_by(step) {
                let found = float::fma(a, b, c, Mode { rounding, ..RN });
                let expected = fma_reference(a, b, c, rounding);
                assert_eq!(found, expected, "{a:x} {b:x} {c:x} {rounding:?}");
            }
        }
    }
}

#[test]
fn fma_by_two_sums_is_fma_by_hardware() {
    let mut random = Random(1);
    for round in 0..20_000 {
        let (a, b, mut c) = (random.lanes(), random.lanes(), random.lanes());
        for lane in 0..32 {
            // Addends near the product, or near half a unit of its last place.
            let product = f32::from_bits(a[lane]) * f32::from_bits(b[lane]);
            match round % 4 {
                0 => c[lane] = (-product).to_bits().wrapping_add(c[lane] % 3),
                1 => c[lane] = (product * 2f32.powi(-24)).to_bits() ^ c[lane] & 1,
                _ => {}
            }
        }
        for mode in [RN, FTZ, SAT] {
            let found = float::fma_lanes(&a, &b, &c, mode);
            assert_eq!(found, float::fma_portable(&a, &b, &c, mode));
            for lane in 0..32 {
                let [x, y, z] = [a, b, c].map(|x| mode.input(x[lane]));
                assert_eq!(found[lane], mode.output(x.mul_add(y, z)));
            }
        }
    }
}

#[test]
fn trap_3_fma_is_fused_and_does_not_go_through_f64() {
    let [a, b, c] = [24929f32, 673.0, 2f32.powi(-40)].map(f32::to_bits);
    let fused = 16_777_218f32.to_bits();
    let bf16 = half::narrow::<Bf16>;
    let tiny = 2f64.powi(-70);
    equal! {
        (24929f64 * 673.0 + 2f64.powi(-40)) as f32 => 16_777_216.0;
        float::fma(a, b, c, RN) => fused;
        float::fma_lanes(&[a; 32], &[b; 32], &[c; 32], RN) => [fused; 32];
        bf16(1.015625 * 1.25 + tiny) => bf16(1.265625);
        half::fma::<Bf16>(bf16(1.015625), bf16(1.25), bf16(tiny), PLAIN) => bf16(1.2734375);
    }
}

#[test]
fn add_sub_mul_div_sqrt_rcp_round_in_every_direction() {
    let one = 1f32.to_bits();
    for rounding in DIRECTIONS {
        let mode = Mode { rounding, ..RN };
        for (a, b) in pairs(&special()) {
            let [x, y] = [a, b].map(|x| f64::from(f32::from_bits(x)));
            let product = rounded(x * y, Exact::Fma(x, y, 0.0), rounding);
            let quotient = rounded(x / y, Exact::Div(x, y), rounding);
            let root = rounded(x.sqrt(), Exact::Sqrt(x), rounding);
            equal! {
                (float::add(a, b, mode), mode, a, b) => (fma_reference(a, one, b, rounding), mode, a, b);
                (float::sub(a, b, mode), mode, a, b) => (fma_reference(a, one, b ^ 1 << 31, rounding), mode, a, b);
                (float::mul(a, b, mode), mode, a, b) => (product, mode, a, b);
                (float::div(a, b, mode), mode, a, b) => (quotient, mode, a, b);
                (float::sqrt(a, mode), mode, a) => (root, mode, a);
                float::rcp(a, mode) => float::div(one, a, mode);
            }
        }
    }
}

#[test]
fn f64_rounds_in_every_direction() {
    const ONE: u64 = 0x3ff << 52;
    const INFINITY: u64 = 0x7ff << 52;
    let mut random = Random(2);
    let mut values = vec![0, 1, (1 << 52) - 1, 1 << 52, ONE, ONE + 1, INFINITY - 1];
    values.extend((0..4).map(|_| random.next() % INFINITY));
    values.extend((0..4).map(|_| ONE + random.next() % (1 << 54)));
    let values: Vec<u64> = values.iter().flat_map(|&x| [x, x | 1 << 63]).collect();
    for rounding in [Rounding::Rz, Rounding::Rm, Rounding::Rp] {
        for (a, b) in pairs(&values) {
            let [x, y] = [a, b].map(f64::from_bits);
            let near = |inexact: f64, found: u64, exact: Exact| {
                if inexact != 0.0 && !inexact.is_nan() && (y != 0.0 || inexact.is_finite()) {
                    assert_eq!(found, exact.round(64, rounding), "{exact:?} {rounding:?}");
                }
            };
            let less_one = [(-1f64).to_bits(); 32];
            let fma = float::fma_f64_lanes(&[a; 32], &[b; 32], &less_one, rounding)[0];
            near(x + y, float::add_f64(a, b, rounding), Exact::Fma(x, 1.0, y));
            let difference = Exact::Fma(x, 1.0, -y);
            near(x - y, float::sub_f64(a, b, rounding), difference);
            near(x.sqrt(), float::sqrt_f64(a, rounding), Exact::Sqrt(x));
            if x != 0.0 && y != 0.0 {
                near(1.0, float::mul_f64(a, b, rounding), Exact::Fma(x, y, 0.0));
                near(1.0, float::div_f64(a, b, rounding), Exact::Div(x, y));
            }
            near(x.mul_add(y, -1.0), fma, Exact::Fma(x, y, -1.0));
        }
    }
    // y² + 7 is a multiple of 2^53: its root lies 2^-104 above y, where only the remainder tells.
    let y = (3..54).fold(1u64, |y, bit| {
        y | (((y.wrapping_mul(y) + 7) >> bit) & 1) << (bit - 1)
    });
    let y = (y % (1 << 53)).max((1 << 53) - y % (1 << 53));
    let square = (u128::from(y) * u128::from(y) + 7) as f64;
    let root = |rounding| f64::from_bits(float::sqrt_f64(square.to_bits(), rounding)) as u64;
    equal! {
        [Rounding::Rz, Rounding::Rp].map(root) => [y, y + 1];
        float::rcp_f64(3f64.to_bits(), Rounding::Rp) => (1.0f64 / 3.0).next_up().to_bits();
        float::sub_f64(0, 0, Rounding::Rm) => 1 << 63;
        float::add_f64(INFINITY, 1, Rounding::Rz) => INFINITY;
        float::mul_f64(INFINITY, 1 << 63 | 1, Rounding::Rz) => INFINITY | 1 << 63;
    }
}

#[test]
fn ftz_flushes_inputs_and_outputs_to_signed_zero() {
    let (minus_tiny, least, half_one) = (1 << 31 | 1, 0x0080_0000, 0.5f32.to_bits());
    let ftz = half::Mode { ftz: true, ..PLAIN };
    equal! {
        float::add(minus_tiny, minus_tiny, FTZ) => 1 << 31;
        float::mul(least, half_one, FTZ) => 0;
        float::mul(least | 1 << 31, half_one, FTZ) => 1 << 31;
        float::mul(least, half_one, RN) => least / 2;
        // An input is flushed although the output would not be subnormal.
        float::mul(1, 2f32.powi(100).to_bits(), FTZ) => 0;
        float::lanes2(&[1; 32], &[0; 32], FTZ, float::add) => [0; 32];
        float::lanes2(&[1; 32], &[0; 32], RN, float::add) => [1; 32];
        float::abs(minus_tiny, true) => 0;
        float::neg(minus_tiny, true) => 0;
        float::neg(minus_tiny, false) => 1;
        float::extremum(1, 0, MAX, true) => 0;
        float::extremum(1, 0, MAX, false) => 1;
        half::add::<F16>(0x8001, 0x8001, ftz) => 0x8000;
        half::add::<F16>(0x8001, 0x8001, PLAIN) => 0x8002;
        half::mul::<F16>(0x0400, 0x3800, ftz) => 0;
    }
}

#[test]
fn sat_clamps_to_one_and_turns_nan_into_zero() {
    let of = |x: f32| f32::from_bits(float::add(x.to_bits(), 0, SAT));
    let sat = half::Mode { sat: true, ..PLAIN };
    let half_of = |x: u16| half::add::<F16>(x, 0x8000, sat);
    equal! {
        [-1.0, 0.25, 1.0, 1.5, f32::INFINITY].map(of) => [0.0, 0.25, 1.0, 1.0, 1.0];
        [float::NAN, 0, 1 << 31].map(|x| float::add(x, 1 << 31, SAT)) => [0; 3];
        [0xbc00, 0x3400, 0x3c00, 0x3e00, 0x7c00, 0xfc00].map(half_of) => [0, 0x3400, 0x3c00, 0x3c00, 0x3c00, 0];
        [0x7fff, 0x7c01, 0xffff, 0x8000].map(half_of) => [0; 4];
    }
}

#[test]
fn nan_is_canonical() {
    let (odd, infinity) = (0xffc0_1234, f32::INFINITY.to_bits());
    equal! {
        float::add(odd, 0, RN) => 0x7fff_ffff;
        float::sub(infinity, infinity, RN) => 0x7fff_ffff;
        float::fma_lanes(&[odd; 32], &[0; 32], &[0; 32], RN) => [0x7fff_ffff; 32];
        float::neg(odd, false) => 0x7fff_ffff;
        half::add::<F16>(0xfe01, 0, PLAIN) => 0x7fff;
        half::neg::<Bf16>(0xffc1, false) => 0x7fff;
        half::abs::<F16>(0xfc01, false) => 0x7fff;
    }
}

const MAX: Extremum = Extremum {
    max: true,
    nan: false,
    xorsign_abs: false,
};
const MIN: Extremum = Extremum { max: false, ..MAX };

#[test]
fn min_and_max_return_the_other_operand_unless_nan_is_asked() {
    for (a, b) in pairs(&special()) {
        let [x, y] = [a, b].map(f32::from_bits);
        for how in [MIN, MAX] {
            let expected = match (x.is_nan(), y.is_nan()) {
                (true, true) => float::NAN,
                (true, _) => b,
                (_, true) => a,
                _ if x.total_cmp(&y).is_gt() == how.max => a,
                _ => b,
            };
            let unordered = x.is_nan() || y.is_nan();
            let propagated = if unordered { float::NAN } else { expected };
            let [wide_a, wide_b] = [x, y].map(|x| f64::from(x).to_bits());
            let wide = f64::from_bits(float::extremum_f64(wide_a, wide_b, how)) as f32;
            let halves = [x, y].map(|x| half::narrow::<Bf16>(x.into()));
            let half_expected = half::narrow::<Bf16>(f32::from_bits(expected).into());
            equal! {
                float::extremum(a, b, how, false) => expected;
                float::extremum(a, b, Extremum { nan: true, ..how }, false) => propagated;
                float::canonical(wide) => expected;
                half::extremum::<Bf16>(halves[0], halves[1], how, false) => half_expected;
            }
        }
    }
    let [minus_three, minus_two, two] = [-3f32, -2.0, 2.0].map(f32::to_bits);
    equal! {
        float::extremum(minus_three, two, Extremum { xorsign_abs: true, ..MAX }, false) => minus_three;
        float::extremum(minus_three, two, Extremum { xorsign_abs: true, ..MIN }, false) => minus_two;
        half::extremum::<F16>(0xc000, 0x3c00, MAX, false) => 0x3c00;
        half::extremum::<F16>(0x7c01, 0x3c00, MAX, false) => 0x3c00;
        half::extremum::<F16>(0x7c01, 0x3c00, Extremum { nan: true, ..MAX }, false) => half::NAN;
    }
}

#[test]
fn setp_ne_is_false_on_nan_and_neu_is_true() {
    use Compare::{Eq, Equ, Ge, Geu, Gt, Gtu, Le, Leu, Lt, Ltu, Nan, Ne, Neu, Num};
    let of = |how| {
        [(1.0, 2.0), (-0.0, 0.0), (2.0, 1.0), (1.0, f32::NAN)]
            .map(|(a, b)| u8::from(float::compare(how, a, b)))
    };
    let [lanes, zeros] = [std::array::from_fn(|lane| lane as u32 % 3), [1; 32]];
    let mask = num::mask2(&lanes, &zeros, |a, b| float::compare(Lt, a, b));
    assert_eq!(mask, 0x4924_9249);
    // Below, equal, above, unordered.
    equal! {
        of(Eq) => [0, 1, 0, 0];  of(Equ) => [0, 1, 0, 1];
        of(Ne) => [1, 0, 1, 0];  of(Neu) => [1, 0, 1, 1];
        of(Lt) => [1, 0, 0, 0];  of(Ltu) => [1, 0, 0, 1];
        of(Le) => [1, 1, 0, 0];  of(Leu) => [1, 1, 0, 1];
        of(Gt) => [0, 0, 1, 0];  of(Gtu) => [0, 0, 1, 1];
        of(Ge) => [0, 1, 1, 0];  of(Geu) => [0, 1, 1, 1];
        of(Num) => [1, 1, 1, 0]; of(Nan) => [0, 0, 0, 1];
    }
}

#[test]
fn halves_convert_as_defined_for_all_bits() {
    for bits in 0..=u16::MAX {
        let (f16, bf16) = (::half::f16::from_bits(bits), ::half::bf16::from_bits(bits));
        equal! {
            float::canonical(F16::widen(bits)) => float::canonical(f16.to_f32());
            float::canonical(Bf16::widen(bits)) => float::canonical(bf16.to_f32());
            half::narrow::<F16>(f16.into()) => if f16.is_nan() { half::NAN } else { bits };
            half::narrow::<Bf16>(bf16.into()) => if bf16.is_nan() { half::NAN } else { bits };
        }
        halfway::<F16>(bits, exact::Format::F16);
        halfway::<Bf16>(bits, exact::Format::BF16);
    }
    assert_eq!(half::narrow::<F16>(65_519.999), 0x7bff);
    assert_eq!(half::narrow::<F16>(-65_520.0), 0xfc00);
}

/// Narrows the number halfway between `bits` and the next, and its neighbours in f64.
fn halfway<H: Half>(bits: u16, format: exact::Format) {
    let [here, next] = [bits, bits.wrapping_add(1)].map(|x| f64::from(H::widen(x)));
    if !here.is_finite() || !next.is_finite() {
        return;
    }
    let middle = (here + next) / 2.0;
    for x in [middle, middle.next_up(), middle.next_down()] {
        let beyond = u16::from((x > middle) == (next > here));
        let up = if x == middle { bits & 1 } else { beyond };
        assert_eq!(half::narrow::<H>(x), bits + up, "{x:e}");
        let found = exact::convert(x, format, Rounding::Rn);
        assert_eq!(found, u64::from(bits + up));
    }
}

#[test]
fn half_arithmetic_rounds_once() {
    fn check<H: Half>(a: u16, b: u16, c: u16, format: exact::Format) {
        let [x, y, z] = [a, b, c].map(|x| f64::from(H::widen(x)));
        let rn = Rounding::Rn;
        equal! {
            u64::from(half::fma::<H>(a, b, c, PLAIN)) => exact::fma(x, y, z, format, rn);
            u64::from(half::add::<H>(a, b, PLAIN)) => exact::add(x, y, format, rn);
            u64::from(half::sub::<H>(a, b, PLAIN)) => exact::sub(x, y, format, rn);
            u64::from(half::mul::<H>(a, b, PLAIN)) => exact::mul(x, y, format, rn);
        }
    }
    let mut random = Random(3);
    for _ in 0..200_000 {
        let [a, b, c] = [(); 3].map(|()| random.next() as u16);
        check::<F16>(a, b, c, exact::Format::F16);
        check::<Bf16>(a, b, c, exact::Format::BF16);
        // On sm_80 a bf16 sum is fma(a, 1, b), a product fma(a, b, −0).
        equal! {
            half::add::<Bf16>(a, b, PLAIN) => half::fma::<Bf16>(a, 0x3f80, b, PLAIN);
            half::mul::<Bf16>(a, b, PLAIN) => half::fma::<Bf16>(a, b, 0x8000, PLAIN);
        }
    }
    let relu = half::Mode {
        relu: true,
        ..PLAIN
    };
    let fma = |a, b, c| half::fma::<F16>(a, b, c, PLAIN);
    equal! {
        [0xbc00, 0x7e00, 0x3c00].map(|a| half::fma::<F16>(a, 0x3c00, 0, relu)) => [0, half::NAN, 0x3c00];
        // Both halves of a pair, each from its own operands.
        half::packed1(0x3c00_8000, |a| half::neg::<F16>(a, false)) => 0xbc00_0000;
        half::packed2(0x3c00_4000, 0x4000_3c00, |a, b| half::sub::<F16>(a, b, PLAIN)) => 0xbc00_3c00;
        half::packed3(0x3c00_0000, 0x4000_0000, 0x3c00_4000, fma) => 0x4200_4000;
    }
}

const NEAREST: How = How {
    rounding: Rounding::Rn,
    integral: false,
    ftz: false,
    sat: false,
    relu: false,
};
const SATURATING: How = How {
    sat: true,
    ..NEAREST
};

fn how(rounding: Rounding) -> How {
    How {
        rounding,
        ..NEAREST
    }
}

fn of_f32(x: f32, to: Type, how: How) -> i64 {
    convert::cvt(x.to_bits().into(), Type::F32, to, how) as i64
}

#[test]
fn cvt_of_floats_to_integers_saturates() {
    let rz = |x, to| of_f32(x, to, how(Rounding::Rz));
    let integral = |rounding| How {
        integral: true,
        ..how(rounding)
    };
    let directions = |x, to| DIRECTIONS.map(|rounding| of_f32(x, to, integral(rounding)));
    equal! {
        rz(1e20, Type::S32) => i32::MAX.into();       rz(-1e20, Type::S32) => i32::MIN.into();
        rz(-1.5, Type::U32) => 0;                     rz(3e9, Type::U32) => 3_000_000_000;
        rz(1e20, Type::U64) => -1;                    rz(f32::INFINITY, Type::S64) => i64::MAX;
        rz(300.0, Type::U8) => 255;                   rz(-300.0, Type::S8) => -128;
        rz(-40_000.0, Type::S16) => -32_768;          rz(2.9, Type::U16) => 2;
        directions(-2.5, Type::S32) => [-2, -2, -3, -2];
        directions(3.5, Type::S32) => [4, 3, 3, 4];
        directions(2.5, Type::F32) => [2f32, 2.0, 2.0, 3.0].map(|x| x.to_bits().into());
        of_f32(-0.25, Type::F32, integral(Rounding::Rn)) => 1 << 31;
        // Without a direction, equal types only pass the modifiers on.
        of_f32(2.5, Type::F32, NEAREST) => 2.5f32.to_bits().into();
        of_f32(2.5, Type::F32, SATURATING) => 1f32.to_bits().into();
    }
    for bits in 0..=u16::MAX {
        let (f16, bf16) = (F16::widen(bits), Bf16::widen(bits));
        for (from, x) in [(Type::F16, f16), (Type::Bf16, bf16)] {
            for (to, least, most) in [(Type::S16, -32_768.0, 32_767.0), (Type::U8, 0.0, 255.0)] {
                let expected = f64::from(x).clamp(least, most).round_ties_even() as i64;
                let found = convert::cvt(bits.into(), from, to, NEAREST) as i64;
                assert_eq!(found, expected, "{x} to {to:?}");
            }
        }
    }
}

#[test]
fn cvt_of_nan_is_zero_or_the_sign_bit() {
    let of_f64 = |to| convert::cvt(f64::NAN.to_bits(), Type::F64, to, NEAREST);
    let of_f32 = |to| of_f32(f32::NAN, to, NEAREST) as u64;
    equal! {
        [Type::S32, Type::U32, Type::U16, Type::S8].map(of_f32) => [0; 4];
        [Type::S64, Type::U64].map(of_f32) => [1 << 63; 2];
        [Type::S64, Type::U64].map(of_f64) => [1 << 63; 2];
        [Type::S32, Type::U32].map(|to| of_f64(to) as u32) => [1 << 31; 2];
        of_f64(Type::S16) as u16 => 1 << 15;
    }
}

#[test]
fn cvt_of_integers_wraps_or_saturates() {
    let cvt = |x: i64, from, to, how| convert::cvt(x as u64, from, to, how) as i64;
    let wrap = |x, from, to| cvt(x, from, to, NEAREST);
    let sat = |x, from, to| cvt(x, from, to, SATURATING);
    equal! {
        wrap(0x1ff, Type::U32, Type::U8) => 0xff;           wrap(0x1ff, Type::U32, Type::S8) => -1;
        wrap(-1, Type::S32, Type::U32) => 0xffff_ffff;      wrap(-1, Type::S32, Type::S64) => -1;
        wrap(-1, Type::U32, Type::S64) => 0xffff_ffff;      wrap(0x1_0080, Type::S8, Type::S32) => -128;
        sat(-1, Type::S32, Type::U32) => 0;                 sat(300, Type::S32, Type::U8) => 255;
        sat(-300, Type::S32, Type::S8) => -128;             sat(-1, Type::U64, Type::S64) => i64::MAX;
    }
    for bits in 0..=u16::MAX {
        let x = i64::from(bits);
        equal! {
            sat(x, Type::S16, Type::S8) => i64::from(bits as i16).clamp(-128, 127);
            sat(x, Type::U16, Type::S8) => x.min(127);
            wrap(x, Type::S16, Type::U8) => x & 0xff;
        }
    }
}

#[test]
fn cvt_of_integers_to_floats_rounds_in_every_direction() {
    let cvt = |x: i64, from, to, direction| convert::cvt(x as u64, from, to, how(direction));
    let directions = |x, from| {
        DIRECTIONS.map(|rounding| f32::from_bits(cvt(x, from, Type::F32, rounding) as u32))
    };
    let (two_24, rn) = (16_777_216.0, Rounding::Rn);
    equal! {
        directions((1 << 24) + 1, Type::S32) => [two_24, two_24, two_24, two_24 + 2.0];
        directions(-(1 << 24) - 1, Type::S64) => [-two_24, -two_24, -two_24 - 2.0, -two_24];
        cvt(-1, Type::U64, Type::F32, rn) => u64::from((u64::MAX as f32).to_bits());
        cvt(-1, Type::U64, Type::F32, Rounding::Rz) => 0x5f7f_ffff;
        cvt(-1, Type::U64, Type::F64, rn) => (u64::MAX as f64).to_bits();
        cvt(0, Type::S32, Type::F32, Rounding::Rm) => 0;
        cvt(-2049, Type::S32, Type::F16, rn) => 0xe800;  cvt(-2049, Type::S32, Type::F16, Rounding::Rm) => 0xe801;
        cvt(70_000, Type::U32, Type::F16, rn) => 0x7c00; cvt(70_000, Type::U32, Type::F16, Rounding::Rz) => 0x7bff;
    }
    for x in 0..=u16::MAX {
        let found = cvt(x.into(), Type::U16, Type::F16, rn);
        assert_eq!(found, ::half::f16::from_f32(x.into()).to_bits().into());
    }
}

#[test]
fn cvt_between_floats_rounds_once_and_saturates() {
    let cvt = |x: f64, to, rounding| convert::cvt(x.to_bits(), Type::F64, to, how(rounding));
    let (mut ftz, mut relu) = (NEAREST, NEAREST);
    (ftz.ftz, relu.relu) = (true, true);
    equal! {
        cvt(1.0 + 2f64.powi(-11) + 2f64.powi(-50), Type::F16, Rounding::Rn) => 0x3c01;
        DIRECTIONS.map(|rounding| cvt(0.1, Type::F32, rounding) & 0xff) => [0xcd, 0xcc, 0xcc, 0xcd];
        cvt(1e300, Type::F32, Rounding::Rz) => 0x7f7f_ffff;
        cvt(-1e300, Type::F32, Rounding::Rp) => 0xff7f_ffff;
        cvt(-1e-300, Type::F32, Rounding::Rm) => 0x8000_0001;
        cvt(f64::NAN, Type::F32, Rounding::Rz) => 0x7fff_ffff;
        convert::cvt(1, Type::F32, Type::F64, ftz) => 0;
        convert::cvt(1, Type::F16, Type::F32, ftz) => u64::from(2f32.powi(-24).to_bits());
        convert::cvt(2f64.powi(-140).to_bits(), Type::F64, Type::F32, ftz) => 0;
        [-1.0, 0.5, 2.0, f32::NAN].map(|x| of_f32(x, Type::F16, SATURATING)) => [0, 0x3800, 0x3c00, 0];
        [-1.0, 0.5, -0.0, f32::NAN].map(|x| of_f32(x, Type::Bf16, relu)) => [0, 0x3f00, 0, 0x7fff];
    }
}

#[test]
fn cvt_to_tf32_drops_thirteen_bits() {
    let cvt = |bits, rounding| convert::cvt(bits, Type::F32, Type::Tf32, how(rounding));
    equal! {
        cvt(0x3f80_1000, Rounding::Rna) => 0x3f80_2000;  cvt(0x3f80_1000, Rounding::Rn) => 0x3f80_0000;
        cvt(0x3f80_3000, Rounding::Rn) => 0x3f80_4000;   cvt(0xbf80_1fff, Rounding::Rz) => 0xbf80_0000;
        cvt(0x7f7f_ffff, Rounding::Rna) => 0x7f80_0000;  cvt(0xffc0_0001, Rounding::Rna) => 0x7fff_ffff;
    }
}

#[test]
fn cvt_pairs_put_the_first_operand_in_the_upper_half() {
    let [one, two] = [1f32, 2.0].map(f32::to_bits);
    equal! {
        convert::cvt_pair(one, two, Type::F16, NEAREST) => 0x3c00_4000;
        convert::cvt_pair(one, two, Type::Bf16, NEAREST) => 0x3f80_4000;
        convert::cvt_bytes(one, two, Byte::E4m3, false) => 0x3840;
        convert::cvt_pack_16(70_000, -5, false) => 0xffff_0000;
        convert::cvt_pack_16(70_000, -5, true) => 0x7fff_fffb;
        convert::cvt_pack_8(300, -5, 0xabcd_1234, false) => 0x1234_ff00;
        convert::cvt_pack_8(300, -5, 0x1234, true) => 0x1234_7ffb;
    }
}

#[test]
fn eight_bit_floats_round_trip_and_saturate() {
    for (format, fraction, bias) in [(Byte::E4m3, 3, 7), (Byte::E5m2, 2, 15)] {
        for bits in 0..=255u8 {
            let magnitude = i32::from(bits & 0x7f);
            let (field, rest) = (magnitude >> fraction, magnitude & ((1 << fraction) - 1));
            let hidden = i32::from(field > 0) << fraction;
            let value = f64::from(rest | hidden) * 2f64.powi(field.max(1) - bias - fraction);
            let sign = u16::from(bits & 0x80) << 8;
            let half = convert::cvt_bytes_to_halves(bits.into(), format, false) as u16;
            let back = convert::cvt_halves_to_bytes(half.into(), format, false) as u8;
            let expected = match (format, magnitude) {
                (Byte::E4m3, 0x7f) | (Byte::E5m2, 0x7d..) => (half::NAN, 0x7f),
                (Byte::E5m2, 0x7c) => (u16::from(bits) << 8, bits & 0x80 | 0x7b),
                _ => (half::narrow::<F16>(value) | sign, bits),
            };
            assert_eq!((half, back), expected, "{format:?} {bits:x}");
        }
    }
    let of = |x: f32, format| convert::cvt_bytes(0, x.to_bits(), format, false);
    equal! {
        of(1e9, Byte::E4m3) => 0x7e;            of(-1e9, Byte::E5m2) => 0xfb;
        of(f32::INFINITY, Byte::E4m3) => 0x7e;  of(f32::NAN, Byte::E5m2) => 0x7f;
        of(1.0625, Byte::E4m3) => 0x38;         of(1.1875, Byte::E4m3) => 0x3a;
        convert::cvt_bytes(0, (-1f32).to_bits(), Byte::E4m3, true) => 0;
        convert::cvt_bytes_to_halves(0xb838, Byte::E4m3, true) => 0x3c00;
    }
}

#[test]
fn approx_nearest_is_exact_and_perturb_stays_within_the_bound() {
    use Function::{Cos, Ex2, Lg2, Rcp, Rsqrt, Sin, Sqrt, Tanh};
    /// A function, its f64, and where to look.
    type Row = (Function, fn(f64) -> f64, f64, f64);
    let rows: [Row; 8] = [
        (Ex2, f64::exp2, -148.0, 127.9),
        (Lg2, f64::log2, 1e-44, 3e38),
        (Rcp, |x| 1.0 / x, 1e-38, 1e38),
        (Rsqrt, |x| 1.0 / x.sqrt(), 1e-44, 3e38),
        (Sqrt, f64::sqrt, 1e-44, 3e38),
        (Sin, f64::sin, -6.25, 6.25),
        (Cos, f64::cos, -6.25, 6.25),
        (Tanh, f64::tanh, -9.0, 9.0),
    ];
    for (f, exact, least, most) in rows {
        let (mut random, mut worst) = (Random(f as u64), 0f64);
        for _ in 0..20_000 {
            let u = random.next() as f64 / 2f64.powi(64);
            let x = match least > 0.0 {
                true => least * (most / least).powf(u),
                false => least + u * (most - least),
            } as f32;
            let y = exact(x.into());
            let nearest = approx::unary(f, x.to_bits(), false, Approx::Nearest);
            assert_eq!(nearest, (y as f32).to_bits(), "{f:?} {x:e}");
            let found = approx::unary(f, x.to_bits(), false, Approx::Perturb(7));
            let error = (f64::from(f32::from_bits(found)) - y).abs();
            let nearest = f32::from_bits(nearest & !(1 << 31));
            let ulp = f64::from(nearest.next_up() - nearest);
            let bound = match f {
                Ex2 => 2.0 * ulp,
                Rcp => ulp,
                Lg2 if x > 0.5 && x < 2.0 => 2f64.powi(-22),
                Lg2 => 2f64.powi(-22) * y.abs(),
                Rsqrt => 2f64.powf(-22.9) * y,
                Sqrt => 2f64.powi(-23) * y,
                Sin | Cos => 2f64.powf(-20.5),
                Tanh => 2f64.powi(-11) * y.abs(),
            };
            assert!(error <= bound, "{f:?} {x:e}: {error:e} > {bound:e}");
            worst = worst.max(error / bound);
        }
        assert!(worst > 0.9, "{f:?} uses {worst} of its bound");
    }
}

#[test]
fn approx_special_values_are_exact_in_both_modes() {
    use Function::{Cos, Ex2, Lg2, Rcp, Rsqrt, Sin, Sqrt, Tanh};
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for approx in [Approx::Nearest, Approx::Perturb(3)] {
        let of = |f, x: [f32; 4]| {
            x.map(|x| {
                let found = approx::unary(f, x.to_bits(), false, approx);
                let warp = approx::unary_lanes(f, &[x.to_bits(); 32], false, approx);
                assert_eq!(warp, [found; 32]);
                found
            })
        };
        let bits = |x: [f32; 4]| x.map(float::canonical);
        let div = |x: f32, y: f32, full| {
            f32::from_bits(approx::div(x.to_bits(), y.to_bits(), full, false, approx))
        };
        equal! {
            of(Ex2, [-inf, inf, 0.0, -1e-40]) => bits([0.0, inf, 1.0, 1.0]);
            of(Rcp, [0.0, -0.0, inf, -inf]) => bits([inf, -inf, 0.0, -0.0]);
            of(Rsqrt, [0.0, -0.0, inf, -1.0]) => bits([inf, -inf, 0.0, nan]);
            of(Sqrt, [0.0, -0.0, inf, -1.0]) => bits([0.0, -0.0, inf, nan]);
            of(Lg2, [0.0, -0.0, inf, -1.0]) => bits([-inf, -inf, inf, nan]);
            of(Sin, [0.0, -0.0, inf, -inf]) => bits([0.0, -0.0, nan, nan]);
            of(Cos, [0.0, -0.0, inf, -inf]) => bits([1.0, 1.0, nan, nan]);
            of(Tanh, [0.0, -0.0, inf, -inf]) => bits([0.0, -0.0, 1.0, -1.0]);
            [Ex2, Rcp, Rsqrt, Sqrt, Lg2, Sin, Cos, Tanh].map(|f| of(f, [nan; 4])[0]) => [float::NAN; 8];
            // Flushed inputs and outputs.
            approx::unary(Rcp, 1 << 31 | 1, true, approx) => (-inf).to_bits();
            approx::unary(Ex2, (-130f32).to_bits(), true, approx) => 0;
            approx::unary(Lg2, 1, true, approx) => (-inf).to_bits();
            div(1.0, 2f32.powi(127), false) => 0.0;
            div(1.0, 0.0, true) => inf;
            div(1.0, inf, true) => 0.0;
            div(inf, 2f32.powi(127), false).is_nan() => true;
            div(1.0, 2f32.powi(127), true) > 0.0 => true;
            (f64::from(div(1.0, 3.0, true)) * 3.0 - 1.0).abs() < 2.5 * 2f64.powi(-23) => true;
        }
    }
    let [one, three, third] = [1.0, 3.0, 1.0 / 3.0].map(|x: f32| [x.to_bits(); 32]);
    let found = approx::div_lanes(&one, &three, true, false, Approx::Nearest);
    assert_eq!(found, third);
}

#[test]
fn approx_of_halves_is_exact_for_all_bits_and_perturbed_within_the_bound() {
    fn check<H: Half>(f: Function, exact: fn(f64) -> f64, bound: impl Fn(f64) -> f64) {
        for bits in 0..=u16::MAX {
            let y = exact(H::widen(bits).into());
            let nearest = half::narrow::<H>(y);
            let found = approx::unary_half::<H>(f, bits, false, Approx::Nearest);
            assert_eq!(found, nearest, "{f:?} {bits:x}");
            let near = approx::unary_half::<H>(f, bits, false, Approx::Perturb(5));
            let error = f64::from(H::widen(near)) - y;
            let is_normal = y.abs() >= 2f64.powi(H::LEAST) && H::widen(nearest).is_finite();
            let is_near = error.abs() <= bound(y.abs()) || error.is_infinite();
            assert!(!is_normal || is_near, "{f:?} {bits:x}");
        }
    }
    check::<F16>(Function::Ex2, f64::exp2, |y| y * 2f64.powf(-9.9));
    check::<Bf16>(Function::Ex2, f64::exp2, |y| y * 2f64.powi(-7));
    check::<F16>(Function::Tanh, f64::tanh, |_| 2f64.powf(-10.987));
    check::<Bf16>(Function::Tanh, f64::tanh, |y| y * 2f64.powi(-8));
}

#[test]
fn trap_4_prmt_bit_3_replicates_the_sign() {
    let prmt = |selector| integer::prmt(0x8180_7f01, 0x1020_30f0, selector, Prmt::Index);
    let (a, b) = (0x3322_1100, 0x7766_5544);
    let of = |mode| [0, 1, 2, 3].map(|selector| integer::prmt(a, b, selector, mode));
    equal! {
        prmt(0x3210) => 0x8180_7f01;  prmt(0x7654) => 0x1020_30f0;  prmt(0x4321) => 0xf081_807f;
        prmt(0xba98) => 0xffff_0000;  prmt(0xfedc) => 0x0000_00ff;
        of(Prmt::F4e) => [0x3322_1100, 0x4433_2211, 0x5544_3322, 0x6655_4433];
        of(Prmt::B4e) => [0x5566_7700, 0x6677_0011, 0x7700_1122, 0x0011_2233];
        of(Prmt::Rc8) => [0, 0x1111_1111, 0x2222_2222, 0x3333_3333];
        of(Prmt::Ecl) => [0x3322_1100, 0x3322_1111, 0x3322_2222, 0x3333_3333];
        of(Prmt::Ecr) => [0, 0x1111_1100, 0x2222_1100, 0x3322_1100];
        of(Prmt::Rc16) => [0x1100_1100, 0x3322_3322, 0x1100_1100, 0x3322_3322];
    }
}

#[test]
fn trap_5_shift_counts_clamp() {
    for count in [32, 33, 64, 255, u32::MAX] {
        equal! {
            integer::shl(1u32, count) => 0;       integer::shr(u32::MAX, count) => 0;
            integer::shr(i32::MIN, count) => -1;  integer::shr(i32::MAX, count) => 0;
        }
    }
    equal! {
        integer::shl(1u16, 16) => 0;   integer::shr(-1i16, 16) => -1;  integer::shl(1u16, 15) => 1 << 15;
        integer::shl(1u64, 64) => 0;   integer::shl(1u64, 63) => 1 << 63;  integer::shr(i64::MIN, 70) => -1;
        integer::shr(-8i32, 1) => -4;  integer::shr(8u32, 1) => 4;
    }
}

#[test]
fn shf_wraps_or_clamps() {
    let (low, high) = (0x89ab_cdef, 0x0123_4567);
    equal! {
        integer::shf_l(low, high, 8, true) => 0x2345_6789;   integer::shf_r(low, high, 8, true) => 0x6789_abcd;
        integer::shf_l(low, high, 32, true) => high;         integer::shf_l(low, high, 32, false) => low;
        integer::shf_r(low, high, 32, true) => low;          integer::shf_r(low, high, 32, false) => high;
        integer::shf_l(low, high, 40, true) => 0x2345_6789;  integer::shf_l(low, high, 40, false) => low;
    }
}

/// The manual's pseudocode of `bfe` and `bfi`, bit by bit.
fn bits_reference<T: Int>(a: T, b: T, pos: u32, len: u32) -> (u64, u64) {
    let (pos, len, msb) = (pos & 0xff, len & 0xff, T::BITS - 1);
    let bit = |x: T, at: u32| x.bits() >> at & 1;
    let has_sign = T::SIGNED && len != 0;
    let top = (pos + len).saturating_sub(1).min(msb);
    let sign = if has_sign { bit(a, top) } else { 0 };
    let (mut extracted, mut inserted) = (0, b.bits());
    for i in 0..=msb {
        let inside = i < len && pos + i <= msb;
        extracted |= if inside { bit(a, pos + i) } else { sign } << i;
        if inside {
            inserted = inserted & !(1 << (pos + i)) | bit(a, i) << (pos + i);
        }
    }
    (extracted, inserted)
}

#[test]
fn bfe_and_bfi_use_the_low_eight_bits_of_position_and_length() {
    fn check<T: Int>(a: u64, b: u64, pos: u32, len: u32) {
        let (a, b) = (T::from_bits(a), T::from_bits(b));
        let (extracted, inserted) = (integer::bfe(a, pos, len), integer::bfi(a, b, pos, len));
        let found = (extracted.bits(), inserted.bits());
        assert_eq!(found, bits_reference(a, b, pos, len), "{pos} {len}");
    }
    let mut random = Random(4);
    let edges = [0, 1, 5, 16, 31, 32, 33, 63, 64, 65, 200, 255, 256, 257, 999];
    for (pos, len) in pairs(&edges).chain(pairs(&edges)) {
        let (a, b) = (random.next(), random.next());
        check::<u32>(a, b, pos, len);
        check::<i32>(a, b, pos, len);
        check::<u64>(a, b, pos, len);
        check::<i64>(a, b, pos, len);
    }
}

#[test]
fn bmsk_and_szext_wrap_or_clamp() {
    let (wrap, clamp) = (true, false);
    equal! {
        integer::bmsk(4, 8, clamp) => 0xff0;              integer::bmsk(28, 8, clamp) => 0xf000_0000;
        integer::bmsk(36, 8, clamp) => 0;                 integer::bmsk(36, 8, wrap) => 0xff0;
        integer::bmsk(4, 32, clamp) => 0xffff_fff0;       integer::bmsk(4, 32, wrap) => 0;
        integer::szext(0x1ff, 8, true, clamp) => !0;      integer::szext(0x17f, 8, true, clamp) => 0x7f;
        integer::szext(0x1ff, 8, false, clamp) => 0xff;   integer::szext(0x1ff, 40, false, clamp) => 0x1ff;
        integer::szext(0x1ff, 40, false, wrap) => 0xff;   integer::szext(!0, 0, true, clamp) => 0;
        integer::szext(!0, 32, true, wrap) => 0;          integer::szext(!0, 32, true, clamp) => !0;
    }
}

#[test]
fn lop3_index_is_a_b_c() {
    let (a, b, c) = (0xf0f0_1234, 0xcccc_5678, 0xaaaa_9abc);
    equal! {
        integer::lop3(a, b, c, 0xf0) => a;
        integer::lop3(a, b, c, 0xcc) => b;
        integer::lop3(a, b, c, 0xaa) => c;
        integer::lop3(a, b, c, 0xf0 & 0xcc ^ 0xaa) => a & b ^ c;
        integer::lop3(a, b, c, (0xf0 | 0xcc) & !0xaa) => (a | b) & !c;
    }
    for table in 0..=255u8 {
        assert_eq!(integer::lop3(0xf0, 0xcc, 0xaa, table) as u8, table);
    }
}

#[test]
fn products_quotients_sums_and_carries_are_exact() {
    fn check<T: Int>(a: u64, b: u64) {
        let (a, b) = (T::from_bits(a), T::from_bits(b));
        if T::BITS < 64 {
            let (product, mask) = (a.value() * b.value(), u64::MAX >> (64 - 2 * T::BITS));
            let high = T::wrap(product >> T::BITS);
            assert_eq!(integer::mul_hi(a, b).bits(), high.bits());
            assert_eq!(integer::mul_wide(a, b), product as u64 & mask);
        }
        match (integer::div(a, b), integer::rem(a, b)) {
            (Some(quotient), Some(rest)) => assert_eq!(quotient.mul(b).add(rest).bits(), a.bits()),
            none => assert!(none == (None, None) && b == T::ZERO),
        }
    }
    let mut random = Random(5);
    let mut word = || random.next();
    for _ in 0..20_000 {
        let (a, b) = (word(), word() >> (word() & 63));
        check::<u16>(a, b);
        check::<i16>(a, b);
        check::<u32>(a, b);
        check::<i32>(a, b);
        check::<u64>(a, b);
        check::<i64>(a, b);
        // Products of 128 bits, sums and differences by two words.
        let high = (u128::from(a) * u128::from(b)) >> 64;
        assert_eq!(integer::mul_hi(a, b), high as u64);
        let (a_signed, b_signed) = (a as i64, b as i64);
        let high = (i128::from(a_signed) * i128::from(b_signed)) >> 64;
        assert_eq!(integer::mul_hi(a_signed, b_signed), high as i64);
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        let (c, d) = (word(), word());
        let (low, carry) = integer::add_carry(a, b, false);
        let (high, _) = integer::add_carry(c, d, carry);
        assert_eq!(wide(high, low), wide(c, a).wrapping_add(wide(d, b)));
        let (low, borrow) = integer::sub_borrow(a, b, false);
        let (high, under) = integer::sub_borrow(c, d, borrow);
        assert_eq!(wide(high, low), wide(c, a).wrapping_sub(wide(d, b)));
        assert_eq!(under, wide(c, a) < wide(d, b));
    }
    equal! {
        integer::add_carry(u32::MAX, 0, true) => (0, true);   integer::sub_borrow(0u32, u32::MAX, true) => (0, true);
        integer::add_sat(i32::MAX, 1) => i32::MAX;            integer::sub_sat(i32::MIN, 1) => i32::MIN;
        integer::mad_hi_sat(i32::MIN, i32::MIN, i32::MAX) => i32::MAX;
        integer::div(i32::MIN, -1) => Some(i32::MIN);         integer::rem(i32::MIN, -1) => Some(0);
        integer::div(-7i32, 2) => Some(-3);                   integer::rem(-7i32, 2) => Some(-1);
        integer::abs(i32::MIN) => i32::MIN;                   integer::abs(-3i16) => 3;
    }
}

#[test]
fn bits_are_counted_found_and_reversed() {
    equal! {
        integer::popc(u64::MAX) => 64;     integer::popc(-1i32) => 32;
        integer::clz(0u32) => 32;          integer::clz(1u32) => 31;          integer::clz(1u64) => 63;
        integer::brev(1u32) => 1 << 31;    integer::brev(6u64) => 3 << 61;
        integer::bfind(0u32, false) => !0; integer::bfind(-1i32, false) => !0; integer::bfind(0u64, true) => !0;
        integer::bfind(9u32, false) => 3;  integer::bfind(9u32, true) => 28;
        integer::bfind(-9i32, false) => 3; integer::bfind(i64::MIN, false) => 62; integer::bfind(1u64, true) => 63;
    }
}

#[test]
fn dp4a_and_dp2a_mix_signs() {
    let (a, b) = (0x80ff_017f, 0x02ff_80fe);
    equal! {
        integer::dp4a(a, b, 10, true, true) as i32 => 10 + -128 * 2 + 1 - 128 + 127 * -2;
        integer::dp4a(a, b, 10, false, false) => 10 + 128 * 2 + 255 * 255 + 128 + 127 * 254;
        integer::dp4a(a, b, 0, false, true) as i32 => 128 * 2 - 255 - 128 - 127 * 2;
        integer::dp2a(a, b, 1, true, true, false) as i32 => 1 + 0x17f * -2 + (0x80ff - 0x10000) * -128;
        integer::dp2a(a, b, 1, false, false, true) => 1 + 0x17f * 0xff + 0x80ff * 2;
    }
}

#[test]
fn shfl_finds_the_lane_within_its_segment() {
    for i in 0..6 * 1024 {
        let (width, lane, b) = (1 << (i / 1024), i / 32 % 32, i % 32);
        let c = (32 - width) << 8;
        let (first, at) = (lane / width * width, lane % width);
        let or_own = |ok, source| if ok { (source, true) } else { (lane, false) };
        equal! {
            shuffle::source(Shuffle::Up, lane, b, c) => or_own(b <= at, lane.wrapping_sub(b));
            shuffle::source(Shuffle::Down, lane, b, c | 31) => or_own(at + b < width, lane + b);
            shuffle::source(Shuffle::Bfly, lane, b, c | 31) => or_own(lane ^ b < first + width, lane ^ b);
            shuffle::source(Shuffle::Idx, lane, b + 32, c | 31) => (first + b % width, true);
        }
    }
    // A clamp below the segment's end puts later lanes out of range.
    assert_eq!(shuffle::source(Shuffle::Down, 6, 2, 7), (6, false));
    assert_eq!(shuffle::source(Shuffle::Down, 5, 2, 7), (7, true));
}

#[test]
fn votes_matches_and_reductions_see_only_the_lanes_of_the_mask() {
    let mask = 0xff00;
    let keys: [u64; 32] = std::array::from_fn(|lane| (lane as u64 % 3) << 40);
    let values: Lanes = std::array::from_fn(|lane| (lane as u32).wrapping_sub(10));
    let redux = |how, signed| shuffle::redux(how, signed, &values, mask) as i32;
    equal! {
        [0xffff, 0x7fff].map(|p| shuffle::all(p, mask)) => [true, false];
        [0x0100, 0xff].map(|p| shuffle::any(p, mask)) => [true, false];
        [0xff, 0xff00, 0x100].map(|p| shuffle::uniform(p, mask)) => [true, true, false];
        shuffle::ballot(0x1234, mask) => 0x1200;
        shuffle::match_any(&keys, mask, 9) => 1 << 9 | 1 << 12 | 1 << 15;
        shuffle::match_all(&keys, mask) => (0, false);
        shuffle::match_all(&keys, 1 << 9 | 1 << 12) => (1 << 9 | 1 << 12, true);
        redux(Redux::Add, true) => 12;   redux(Redux::Min, true) => -2;  redux(Redux::Max, true) => 5;
        redux(Redux::Min, false) => 0;   redux(Redux::Max, false) => -1; redux(Redux::And, false) => 0;
        redux(Redux::Or, false) => -1;   redux(Redux::Xor, false) => 0;
    }
}

/// Reads an element of a register.
type Element<'a> = &'a dyn Fn(u32, usize) -> f64;

/// A·B by the maps of the layout, and Σ|ab|: for each element of D its lane, register, row and column.
fn product(
    mma: Mma,
    a: &[Lanes],
    b: &[Lanes],
    element: [Element; 2],
) -> Vec<(usize, usize, f64, f64)> {
    let (mut left, mut right) = ([[0f64; 64]; 16], [[0f64; 8]; 64]);
    for i in 0..32 * mma.per_register() {
        let (lane, h) = (i % 32, i / 32);
        for (reg, a) in a.iter().enumerate().take(mma.a_registers()) {
            let (row, k) = layout::a(mma, lane, reg, h);
            left[row][k] = element[0](a[lane], h);
        }
        for (reg, b) in b.iter().enumerate().take(mma.b_registers()) {
            let (k, n) = layout::b(mma, lane, reg, h);
            right[k][n] = element[1](b[lane], h);
        }
    }
    let cell = |i: usize| {
        let (lane, reg) = (i % 32, i / 32);
        let (row, n) = layout::c(lane, reg);
        let terms = (0..mma.k()).map(|k| left[row][k] * right[k][n]);
        (lane, reg, terms.clone().sum(), terms.map(f64::abs).sum())
    };
    (0..128).map(cell).collect()
}

#[test]
fn mma_of_floats_sums_exact_products_and_rounds_once() {
    let f16 = |x: u32, h: usize| f64::from(F16::widen((x >> (16 * h)) as u16));
    let bf16 = |x: u32, h: usize| f64::from(Bf16::widen((x >> (16 * h)) as u16));
    let tf32 = |x: u32, _: usize| f64::from(f32::from_bits(x & 0xffff_e000));
    let elements: [Element; 6] = [&f16, &f16, &bf16, &bf16, &tf32, &tf32];
    let mut random = Random(6);
    for (&mma, element) in Mma::ALL.iter().zip(elements) {
        for _ in 0..50 {
            // Exponents near that of one, so that no sum overflows.
            let near_one = |x| x & 0xbfff_bfff | 0x3c00_3800;
            let [a, b, c] = [(); 3].map(|()| [(); 4].map(|()| map1(&random.lanes(), near_one)));
            let found = mma::float(mma, false, &a, &b, &c);
            assert_eq!(found, mma::float_portable(mma, false, &a, &b, &c));
            let found_half = mma::float(mma, true, &a, &b, &c);
            for (lane, reg, sum, magnitude) in product(mma, &a, &b, [element; 2]) {
                let start = f64::from(f32::from_bits(c[reg][lane]));
                let error = f64::from(f32::from_bits(found[reg][lane])) - (sum + start);
                let bound = 2f64.powi(-23) * (magnitude + start.abs());
                assert!(error.abs() <= bound, "{mma:?} {lane} {reg}");
                let expected = half::narrow::<F16>(sum + f16(c[reg / 2][lane], reg % 2));
                let found = (found_half[reg / 2][lane] >> (16 * (reg % 2))) as u16;
                assert!(found.abs_diff(expected) <= 1, "{mma:?} {lane} {reg}");
            }
        }
    }
    let all = |x: u32| [[x; 32]; 4];
    let of = |x: f32| all(x.to_bits());
    let quarter = all(0x3400_3400);
    equal! {
        // One rounding at the end: sixteen products of 2^-4 onto 2^24 are one, which a sum in f32 would lose.
        mma::float(Mma::M16n8k16F16, false, &quarter, &quarter, &of(2f32.powi(24) + 2.0))[0][0] => (2f32.powi(24) + 4.0).to_bits();
        // The low 13 bits of tf32 do not count.
        mma::float(Mma::M16n8k8Tf32, false, &all(0x3f80_1fff), &of(1.0), &of(1.0))[3][31] => 9f32.to_bits();
    }
}

#[test]
fn mma_of_integers_is_exact_and_wraps_unless_satfinite() {
    let mut random = Random(7);
    for &mma in &Mma::ALL[6..] {
        let bits = 32 / mma.per_register();
        let unsigned = |x: u32, h: usize| f64::from(x >> (bits * h) & ((1 << bits) - 1));
        let signed = |x: u32, h: usize| {
            let x = unsigned(x, h);
            let whole = f64::from(1 << bits);
            if x >= whole / 2.0 { x - whole } else { x }
        };
        let elements: [Element; 2] = [&unsigned, &signed];
        for i in 0..8 {
            let [a_signed, b_signed, satfinite] = [1, 2, 4].map(|bit| i & bit != 0);
            let [a, b, mut c] = [(); 3].map(|()| [(); 4].map(|()| random.lanes()));
            (c[0], c[1]) = ([i32::MAX as u32; 32], [i32::MIN as u32; 32]);
            let how = Integers {
                a_signed,
                b_signed,
                satfinite,
            };
            let found = mma::integer(mma, how, &a, &b, &c);
            let of = [a_signed, b_signed].map(|signed| elements[usize::from(signed)]);
            for (lane, reg, sum, _) in product(mma, &a, &b, of) {
                let sum = sum as i64 + i64::from(c[reg][lane] as i32);
                let clamped = sum.clamp(i32::MIN.into(), i32::MAX.into());
                let expected = if satfinite { clamped } else { sum } as u32;
                assert_eq!(found[reg][lane], expected, "{mma:?} {lane} {reg} {how:?}");
            }
        }
    }
}
