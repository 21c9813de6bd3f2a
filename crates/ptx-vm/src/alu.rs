//! Instructions from registers to registers, a whole warp at a time.

use crate::fault::{FaultKind, Trap};
use crate::num::approx::{self, Approx};
use crate::num::half::{Bf16, F16, Half};
use crate::num::integer::{self, Int};
use crate::num::{Lanes, WideLanes, convert, float, half, map1, map2, map3, mask2};
use crate::op::{
    Compare, File, Float2, Integer1, Integer2, Integer3, Logic, Mode, Op, Predicate, Rounding,
    Slot, Testp, Type,
};
use crate::registers::{Registers, cut, lanes};

type Outcome = Result<(), Box<Trap>>;

/// Runs `$body` with `$T` the Rust type of an integer or untyped PTX type.
macro_rules! by_integer {
    ($ty:expr, $T:ident => $body:expr) => {
        match $ty {
            Type::U8 | Type::B8 => {
                type $T = u8;
                $body
            }
            Type::S8 => {
                type $T = i8;
                $body
            }
            Type::U16 | Type::B16 => {
                type $T = u16;
                $body
            }
            Type::S16 => {
                type $T = i16;
                $body
            }
            Type::S32 => {
                type $T = i32;
                $body
            }
            Type::U64 | Type::B64 => {
                type $T = u64;
                $body
            }
            Type::S64 => {
                type $T = i64;
                $body
            }
            _ => {
                type $T = u32;
                $body
            }
        }
    };
}

/// Runs `$body` with `$H` the format of halves, single or packed.
macro_rules! by_half {
    ($ty:expr, $H:ident => $body:expr) => {
        match $ty {
            Type::Bf16 | Type::Bf16x2 => {
                type $H = Bf16;
                $body
            }
            _ => {
                type $H = F16;
                $body
            }
        }
    };
}

const fn packed(ty: Type) -> bool {
    matches!(ty, Type::F16x2 | Type::Bf16x2)
}

/// Executes an instruction of arithmetic, logic, comparison, conversion or movement in the lanes of `exec`.
// A table: a line for each instruction.
#[rustfmt::skip]
pub(crate) fn execute(op: &Op, r: &mut Registers, exec: u32, approx: Approx) -> Outcome {
    match *op {
        Op::Mov { ty, d, a } => mov(r, exec, ty, d, a),
        Op::Pack { bits, n, d, a } => pack(r, exec, bits, &a[..n as usize], d),
        Op::Unpack { bits, n, d, a } => unpack(r, exec, bits, &d[..n as usize], a),
        Op::Selp { ty, d, a, b, p } => selp(r, exec, ty, d, [a, b], p),
        Op::Slct { ty, by, ftz, d, a, b, c } => {
            let first = lanes_where(|lane| match by {
                Type::F32 => f32::from_bits(float::flush(r.narrow(c)[lane], ftz)) >= 0.0,
                _ => r.narrow(c)[lane] as i32 >= 0,
            });
            choose(r, exec, ty, d, [a, b], first);
        }
        Op::Integer1 { f, ty, d, a } => integer1(r, exec, f, ty, d, a),
        Op::Integer2 { f, ty, d, a, b } => return by_integer!(ty, T => integer2::<T>(r, exec, f, d, a, b)),
        Op::Integer3 { f, ty, d, a, b, c } => by_integer!(ty, T => integer3::<T>(r, exec, f, d, a, b, c)),
        Op::AddCarry { subtract, carry, ty, d, a, b } => {
            let carry_in = carry_in(r, exec, carry.reads)?;
            let f = if subtract { integer::sub_borrow::<u64> } else { integer::add_carry::<u64> };
            let g = if subtract { integer::sub_borrow::<u32> } else { integer::add_carry::<u32> };
            let mut out = 0;
            if ty.bits() == 64 {
                let v = by_lane(|lane| {
                    let (v, c) = f(r.wide(a)[lane], r.wide(b)[lane], carry_in >> lane & 1 == 1);
                    out |= u32::from(c) << lane;
                    v
                });
                r.set_wide(d, exec, &v);
            } else {
                let v = by_lane(|lane| {
                    let (v, c) = g(r.narrow(a)[lane], r.narrow(b)[lane], carry_in >> lane & 1 == 1);
                    out |= u32::from(c) << lane;
                    v
                });
                r.set_narrow(d, exec, &v);
            }
            carry_out(r, exec, carry.writes, out);
        }
        Op::MadCarry { high, carry, ty, d, a, b, c } => {
            let carry_in = carry_in(r, exec, carry.reads)?;
            let mut out = 0;
            by_integer!(ty, T => {
                let file = ty.file();
                let of = |r: &Registers, slot, lane| T::from_bits(r.value(crate::op::Operand { file, slot }, lane));
                let v: WideLanes = by_lane(|lane| {
                    let (a, b, c) = (of(r, a, lane), of(r, b, lane), of(r, c, lane));
                    let product = if high { integer::mul_hi(a, b) } else { a.mul(b) };
                    let (v, carry) = integer::add_carry(product, c, carry_in >> lane & 1 == 1);
                    out |= u32::from(carry) << lane;
                    v.bits()
                });
                set(r, exec, ty.bits() as u8, d, &v);
            });
            carry_out(r, exec, carry.writes, out);
        }
        Op::PredicateMov { d, a } => {
            let (v, mark) = (r.predicate(a), r.written(File::Predicate, a.slot));
            r.set_predicate(d, exec, v);
            r.set_mark(File::Predicate, d, exec, mark);
        }
        Op::PredicateLogic { f, d, a, b } => {
            let v = join(f, r.predicate(a), r.predicate(b));
            r.set_predicate(d, exec, v);
        }
        Op::Logic { f, ty, d, a, b } => match ty.file() {
            File::Wide => {
                let (a, b) = (r.wide(a), r.wide(b));
                let v = match f {
                    Logic::And => map2(a, b, |a, b| a & b),
                    Logic::Or => map2(a, b, |a, b| a | b),
                    Logic::Xor => map2(a, b, |a, b| a ^ b),
                };
                r.set_wide(d, exec, &v);
            }
            _ => {
                let (a, b) = (r.narrow(a), r.narrow(b));
                let v = match f {
                    Logic::And => map2(a, b, |a, b| a & b),
                    Logic::Or => map2(a, b, |a, b| a | b),
                    Logic::Xor => map2(a, b, |a, b| a ^ b),
                };
                r.set_narrow(d, exec, &v);
            }
        },
        Op::Lop3 { table, d, a, b, c, predicate } => {
            let v = map3(r.narrow(a), r.narrow(b), r.narrow(c), |a, b, c| integer::lop3(a, b, c, table));
            r.set_narrow(d, exec, &v);
            if let Some((p, f, q)) = predicate {
                let v = join(f, lanes_where(|lane| v[lane] != 0), r.predicate(q));
                r.set_predicate(p, exec, v);
            }
        }
        Op::Prmt { f, d, a, b, c } => narrow3(r, exec, d, a, b, c, |a, b, c| integer::prmt(a, b, c, f)),
        Op::Shf { left, wrap, d, a, b, c } => match left {
            true => narrow3(r, exec, d, a, b, c, |a, b, c| integer::shf_l(a, b, c, wrap)),
            false => narrow3(r, exec, d, a, b, c, |a, b, c| integer::shf_r(a, b, c, wrap)),
        },
        Op::Bfi { ty, d, a, b, pos, len } => {
            let (pos, len) = (r.narrow(pos), r.narrow(len));
            if ty.bits() == 64 {
                let (a, b) = (r.wide(a), r.wide(b));
                let v = by_lane(|lane| integer::bfi(a[lane], b[lane], pos[lane], len[lane]));
                r.set_wide(d, exec, &v);
            } else {
                let (a, b) = (r.narrow(a), r.narrow(b));
                let v = by_lane(|lane| integer::bfi(a[lane], b[lane], pos[lane], len[lane]));
                r.set_narrow(d, exec, &v);
            }
        }
        Op::Bmsk { wrap, d, a, b } => narrow2(r, exec, d, a, b, |a, b| integer::bmsk(a, b, wrap)),
        Op::Szext { wrap, signed, d, a, b } => {
            narrow2(r, exec, d, a, b, |a, b| integer::szext(a, b, signed, wrap));
        }
        Op::Dp4a { a_signed, b_signed, d, a, b, c } => {
            narrow3(r, exec, d, a, b, c, |a, b, c| integer::dp4a(a, b, c, a_signed, b_signed));
        }
        Op::Dp2a { a_signed, b_signed, high, d, a, b, c } => {
            narrow3(r, exec, d, a, b, c, |a, b, c| integer::dp2a(a, b, c, a_signed, b_signed, high));
        }
        Op::Float2 { f, ty: Type::F64, mode, d, a, b } => {
            let g = match f {
                Float2::Add => float::add_f64,
                Float2::Sub => float::sub_f64,
                Float2::Mul => float::mul_f64,
                Float2::Div => float::div_f64,
            };
            let v = map2(r.wide(a), r.wide(b), |a, b| g(a, b, mode.rounding));
            r.set_wide(d, exec, &v);
        }
        Op::Float2 { f, mode, d, a, b, .. } => {
            let (a, b) = (r.narrow(a), r.narrow(b));
            let v = match f {
                Float2::Add => float::lanes2(a, b, mode, float::add),
                Float2::Sub => float::lanes2(a, b, mode, float::sub),
                Float2::Mul => float::lanes2(a, b, mode, float::mul),
                Float2::Div => float::lanes2(a, b, mode, float::div),
            };
            r.set_narrow(d, exec, &v);
        }
        Op::Fma { ty: Type::F64, mode, d, a, b, c } => {
            let v = float::fma_f64_lanes(r.wide(a), r.wide(b), r.wide(c), mode.rounding);
            r.set_wide(d, exec, &v);
        }
        Op::Fma { mode, d, a, b, c, .. } => {
            let v = float::fma_lanes(r.narrow(a), r.narrow(b), r.narrow(c), mode);
            r.set_narrow(d, exec, &v);
        }
        Op::Rcp { ty: Type::F64, mode, d, a } => wide1(r, exec, d, a, |a| float::rcp_f64(a, mode.rounding)),
        Op::Rcp { mode, d, a, .. } => narrow1(r, exec, d, a, |a| float::rcp(a, mode)),
        Op::Sqrt { ty: Type::F64, mode, d, a } => wide1(r, exec, d, a, |a| float::sqrt_f64(a, mode.rounding)),
        Op::Sqrt { mode, d, a, .. } => narrow1(r, exec, d, a, |a| float::sqrt(a, mode)),
        Op::Half2 { f, ty, mode, d, a, b } => by_half!(ty, H => match f {
            Float2::Add => half2(r, exec, ty, d, a, b, |a, b| half::add::<H>(a, b, mode)),
            Float2::Sub => half2(r, exec, ty, d, a, b, |a, b| half::sub::<H>(a, b, mode)),
            Float2::Mul | Float2::Div => half2(r, exec, ty, d, a, b, |a, b| half::mul::<H>(a, b, mode)),
        }),
        Op::HalfFma { ty, mode, d, a, b, c } => by_half!(ty, H => {
            let f = |a, b, c| half::fma::<H>(a, b, c, mode);
            if packed(ty) {
                narrow3(r, exec, d, a, b, c, |a, b, c| half::packed3(a, b, c, f));
            } else {
                narrow3(r, exec, d, a, b, c, |a, b, c| f(a as u16, b as u16, c as u16).into());
            }
        }),
        Op::Extremum { how, ftz, ty, d, a, b } => match ty {
            Type::F64 => {
                let v = map2(r.wide(a), r.wide(b), |a, b| float::extremum_f64(a, b, how));
                r.set_wide(d, exec, &v);
            }
            Type::F32 => narrow2(r, exec, d, a, b, |a, b| float::extremum(a, b, how, ftz)),
            _ => by_half!(ty, H => half2(r, exec, ty, d, a, b, |a, b| half::extremum::<H>(a, b, how, ftz))),
        },
        Op::FloatAbs { ftz, ty, d, a } => match ty {
            Type::F64 => wide1(r, exec, d, a, |a| a & (u64::MAX >> 1)),
            Type::F32 => narrow1(r, exec, d, a, |a| float::abs(a, ftz)),
            _ => by_half!(ty, H => half1(r, exec, ty, d, a, |a| half::abs::<H>(a, ftz))),
        },
        Op::FloatNeg { ftz, ty, d, a } => match ty {
            Type::F64 => wide1(r, exec, d, a, |a| a ^ 1 << 63),
            Type::F32 => narrow1(r, exec, d, a, |a| float::neg(a, ftz)),
            _ => by_half!(ty, H => half1(r, exec, ty, d, a, |a| half::neg::<H>(a, ftz))),
        },
        Op::Approx { f, ftz, ty, d, a } => match ty {
            Type::F32 => {
                let v = approx::unary_lanes(f, r.narrow(a), ftz, approx);
                r.set_narrow(d, exec, &v);
            }
            Type::F64 => wide1(r, exec, d, a, |a| approx_f64(f, a)),
            _ => by_half!(ty, H => half1(r, exec, ty, d, a, |a| approx::unary_half::<H>(f, a, ftz, approx))),
        },
        Op::DivApprox { full, ftz, d, a, b } => {
            let v = approx::div_lanes(r.narrow(a), r.narrow(b), full, ftz, approx);
            r.set_narrow(d, exec, &v);
        }
        Op::Copysign { ty: Type::F64, d, a, b } => {
            let v = map2(r.wide(a), r.wide(b), |a, b| a & 1 << 63 | b & (u64::MAX >> 1));
            r.set_wide(d, exec, &v);
        }
        Op::Copysign { d, a, b, .. } => narrow2(r, exec, d, a, b, |a, b| a & 1 << 31 | b & (u32::MAX >> 1)),
        Op::Testp { f, ty, d, a } => {
            let v = lanes_where(|lane| match ty {
                Type::F64 => testp(f, f64::from_bits(r.wide(a)[lane]).classify()),
                _ => testp(f, f32::from_bits(r.narrow(a)[lane]).classify()),
            });
            r.set_predicate(d, exec, v);
        }
        Op::Setp { how, ftz, ty, d, q, a, b, join: with } => {
            let t = compare(r, how, ftz, ty, a, b);
            let joined = |t| with.map_or(t, |(f, c)| join(f, t, r.predicate(c)));
            let (v, w) = (joined(t), joined(!t));
            r.set_predicate(d, exec, v);
            if let Some(q) = q {
                r.set_predicate(q, exec, w);
            }
        }
        Op::SetpPacked { how, ftz, ty, d, q, a, b, join: with } => {
            let joined = |t| with.map_or(t, |(f, c)| join(f, t, r.predicate(c)));
            let [low, high] = [0, 16].map(|shift| joined(compare_half(r, how, ftz, ty, a, b, shift)));
            r.set_predicate(d, exec, low);
            r.set_predicate(q, exec, high);
        }
        Op::Set { how, ftz, to, ty, d, a, b, join: with } => {
            let joined = |t| with.map_or(t, |(f, c)| join(f, t, r.predicate(c)));
            let (one, halves): (u64, _) = match to {
                Type::F64 => (1f64.to_bits(), false),
                Type::F32 => (1f32.to_bits().into(), false),
                Type::F16 => (0x3c00, false),
                Type::Bf16 => (0x3f80, false),
                Type::F16x2 => (0x3c00, true),
                Type::Bf16x2 => (0x3f80, true),
                _ => (u64::MAX >> (64 - to.bits()), packed(ty)),
            };
            let v: WideLanes = if packed(ty) {
                let [low, high] = [0, 16].map(|shift| joined(compare_half(r, how, ftz, ty, a, b, shift)));
                let one = if halves { one & 0xffff } else { one };
                by_lane(|lane| ((low >> lane & 1) as u64 * one) | (((high >> lane & 1) as u64 * one) << 16))
            } else {
                let t = joined(compare(r, how, ftz, ty, a, b));
                by_lane(|lane| u64::from(t >> lane & 1) * one)
            };
            set(r, exec, to.bits() as u8, d, &v);
        }
        Op::Cvt { to, from, how, bits, d, a } => cvt(r, exec, [from, to], how, bits, d, a),
        Op::CvtPair { to, how, d, a, b } => match (to, how.rounding) {
            (Type::F16x2, Rounding::Rn) => {
                let how = convert::How { rounding: Rounding::Rn, ..how };
                narrow2(r, exec, d, a, b, |a, b| convert::cvt_pair(a, b, Type::F16, how));
            }
            (Type::Bf16x2, Rounding::Rn) => {
                let how = convert::How { rounding: Rounding::Rn, ..how };
                narrow2(r, exec, d, a, b, |a, b| convert::cvt_pair(a, b, Type::Bf16, how));
            }
            (Type::F16x2, _) => narrow2(r, exec, d, a, b, |a, b| convert::cvt_pair(a, b, Type::F16, how)),
            _ => narrow2(r, exec, d, a, b, |a, b| convert::cvt_pair(a, b, Type::Bf16, how)),
        },
        Op::CvtBytes { to, relu, d, a, b } => {
            narrow2(r, exec, d, a, b, |a, b| convert::cvt_bytes(a, b, to, relu).into());
        }
        Op::CvtHalvesToBytes { to, relu, d, a } => {
            narrow1(r, exec, d, a, |a| convert::cvt_halves_to_bytes(a, to, relu).into());
        }
        Op::CvtBytesToHalves { from, relu, d, a } => {
            narrow1(r, exec, d, a, |a| convert::cvt_bytes_to_halves(a as u16, from, relu));
        }
        Op::CvtPack16 { signed, d, a, b } => {
            narrow2(r, exec, d, a, b, |a, b| convert::cvt_pack_16(a as i32, b as i32, signed));
        }
        Op::CvtPack8 { signed, d, a, b, c } => {
            narrow3(r, exec, d, a, b, c, |a, b, c| convert::cvt_pack_8(a as i32, b as i32, c, signed));
        }
        // The warp and its memory execute the others.
        _ => {}
    }
    Ok(())
}

#[inline(always)]
fn by_lane<T>(f: impl FnMut(usize) -> T) -> [T; 32] {
    std::array::from_fn(f)
}

/// The lanes where `f` holds.
#[inline(always)]
pub(crate) fn lanes_where(f: impl Fn(usize) -> bool) -> u32 {
    (0..32).fold(0, |mask, lane| mask | u32::from(f(lane)) << lane)
}

const fn join(f: Logic, a: u32, b: u32) -> u32 {
    match f {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

#[inline(always)]
fn narrow1(r: &mut Registers, exec: u32, d: Slot, a: Slot, f: impl Fn(u32) -> u32) {
    let v = map1(r.narrow(a), f);
    r.set_narrow(d, exec, &v);
}

#[inline(always)]
fn narrow2(r: &mut Registers, exec: u32, d: Slot, a: Slot, b: Slot, f: impl Fn(u32, u32) -> u32) {
    let v = map2(r.narrow(a), r.narrow(b), f);
    r.set_narrow(d, exec, &v);
}

#[inline(always)]
fn narrow3(
    r: &mut Registers,
    exec: u32,
    d: Slot,
    a: Slot,
    b: Slot,
    c: Slot,
    f: impl Fn(u32, u32, u32) -> u32,
) {
    let v = map3(r.narrow(a), r.narrow(b), r.narrow(c), f);
    r.set_narrow(d, exec, &v);
}

#[inline(always)]
fn wide1(r: &mut Registers, exec: u32, d: Slot, a: Slot, f: impl Fn(u64) -> u64) {
    let v = map1(r.wide(a), f);
    r.set_wide(d, exec, &v);
}

#[inline(always)]
fn half1(r: &mut Registers, exec: u32, ty: Type, d: Slot, a: Slot, f: impl Fn(u16) -> u16) {
    if packed(ty) {
        narrow1(r, exec, d, a, |a| half::packed1(a, &f));
    } else {
        narrow1(r, exec, d, a, |a| f(a as u16).into());
    }
}

#[inline(always)]
fn half2(
    r: &mut Registers,
    exec: u32,
    ty: Type,
    d: Slot,
    a: Slot,
    b: Slot,
    f: impl Fn(u16, u16) -> u16,
) {
    if packed(ty) {
        narrow2(r, exec, d, a, b, |a, b| half::packed2(a, b, &f));
    } else {
        narrow2(r, exec, d, a, b, |a, b| f(a as u16, b as u16).into());
    }
}

/// Writes a register of `bits` bits.
fn set(r: &mut Registers, exec: u32, bits: u8, d: Slot, v: &WideLanes) {
    if bits == 64 {
        r.set_wide(d, exec, v);
    } else {
        r.set_narrow(d, exec, &map1(v, |v| cut(v, bits)));
    }
}

fn carry_in(r: &Registers, exec: u32, reads: bool) -> Result<u32, Box<Trap>> {
    let missing = exec & !r.carry_written;
    match reads {
        true if missing != 0 => Err(Trap::new(
            FaultKind::UninitRegister,
            missing.trailing_zeros(),
            "the carry flag was not written",
        )),
        true => Ok(r.carry),
        false => Ok(0),
    }
}

fn carry_out(r: &mut Registers, exec: u32, writes: bool, out: u32) {
    if writes {
        r.carry = r.carry & !exec | out & exec;
        r.carry_written |= exec;
    }
}

fn mov(r: &mut Registers, exec: u32, ty: Type, d: Slot, a: Slot) {
    let file = ty.file();
    let mark = r.written(file, a);
    match file {
        File::Narrow => {
            let v = *r.narrow(a);
            r.set_narrow(d, exec, &v);
        }
        File::Wide => {
            let v = *r.wide(a);
            r.set_wide(d, exec, &v);
        }
        // The decoder makes it `PredicateMov`.
        File::Predicate => {}
    }
    if mark & exec != exec {
        r.set_mark(file, d, exec, mark);
    }
}

fn selp(r: &mut Registers, exec: u32, ty: Type, d: Slot, of: [Slot; 2], p: Predicate) {
    let first = r.predicate(p);
    choose(r, exec, ty, d, of, first);
}

/// `a` in the lanes of `first`, `b` in the others, with their marks.
fn choose(r: &mut Registers, exec: u32, ty: Type, d: Slot, [a, b]: [Slot; 2], first: u32) {
    let file = ty.file();
    let mark = r.written(file, a) & first | r.written(file, b) & !first;
    if file == File::Wide {
        let (a, b) = (r.wide(a), r.wide(b));
        let v = by_lane(|lane| {
            if first >> lane & 1 == 1 {
                a[lane]
            } else {
                b[lane]
            }
        });
        r.set_wide(d, exec, &v);
    } else {
        let (a, b) = (r.narrow(a), r.narrow(b));
        let v = by_lane(|lane| {
            if first >> lane & 1 == 1 {
                a[lane]
            } else {
                b[lane]
            }
        });
        r.set_narrow(d, exec, &v);
    }
    if mark & exec != exec {
        r.set_mark(file, d, exec, mark);
    }
}

const fn file_of(bits: u32) -> File {
    if bits == 64 { File::Wide } else { File::Narrow }
}

fn pack(r: &mut Registers, exec: u32, bits: u8, a: &[Slot], d: Slot) {
    let whole = bits * a.len() as u8;
    let (from, to) = (file_of(bits.into()), file_of(whole.into()));
    let mark = a
        .iter()
        .fold(u32::MAX, |mark, &a| mark & r.written(from, a));
    let v: WideLanes = by_lane(|lane| {
        let piece = |(i, &a): (usize, &Slot)| u64::from(r.narrow(a)[lane]) << (i * bits as usize);
        a.iter()
            .enumerate()
            .map(piece)
            .fold(0, |whole, piece| whole | piece)
    });
    set(r, exec, whole, d, &v);
    r.set_mark(to, d, exec, mark);
}

fn unpack(r: &mut Registers, exec: u32, bits: u8, d: &[Slot], a: Slot) {
    let from = file_of(u32::from(bits) * d.len() as u32);
    let mark = r.written(from, a);
    let whole: WideLanes = match from {
        File::Wide => *r.wide(a),
        _ => map1(r.narrow(a), u64::from),
    };
    for (i, &d) in d.iter().enumerate() {
        let v = map1(&whole, |whole| cut(whole >> (i * bits as usize), bits));
        r.set_narrow(d, exec, &v);
        r.set_mark(File::Narrow, d, exec, mark);
    }
}

fn unary<T: Int>(r: &mut Registers, exec: u32, d: Slot, a: Slot, f: impl Fn(T) -> T) {
    if T::BITS == 64 {
        wide1(r, exec, d, a, |a| f(T::from_bits(a)).bits());
    } else {
        narrow1(r, exec, d, a, |a| f(T::from_bits(a.into())).bits() as u32);
    }
}

fn count<T: Int>(r: &mut Registers, exec: u32, d: Slot, a: Slot, f: impl Fn(T) -> u32) {
    let v = if T::BITS == 64 {
        map1(r.wide(a), |a| f(T::from_bits(a)))
    } else {
        map1(r.narrow(a), |a| f(T::from_bits(a.into())))
    };
    r.set_narrow(d, exec, &v);
}

#[inline(always)]
fn binary<T: Int>(r: &mut Registers, exec: u32, d: Slot, a: Slot, b: Slot, f: impl Fn(T, T) -> T) {
    if T::BITS == 64 {
        let v = map2(r.wide(a), r.wide(b), |a, b| {
            f(T::from_bits(a), T::from_bits(b)).bits()
        });
        r.set_wide(d, exec, &v);
    } else {
        narrow2(r, exec, d, a, b, |a, b| {
            f(T::from_bits(a.into()), T::from_bits(b.into())).bits() as u32
        });
    }
}

#[inline(always)]
fn ternary<T: Int>(
    r: &mut Registers,
    exec: u32,
    d: Slot,
    a: Slot,
    b: Slot,
    c: Slot,
    f: impl Fn(T, T, T) -> T,
) {
    if T::BITS == 64 {
        let of = T::from_bits;
        let v = map3(r.wide(a), r.wide(b), r.wide(c), |a, b, c| {
            f(of(a), of(b), of(c)).bits()
        });
        r.set_wide(d, exec, &v);
    } else {
        let of = |x: u32| T::from_bits(x.into());
        narrow3(r, exec, d, a, b, c, |a, b, c| {
            f(of(a), of(b), of(c)).bits() as u32
        });
    }
}

fn integer1(r: &mut Registers, exec: u32, f: Integer1, ty: Type, d: Slot, a: Slot) {
    by_integer!(ty, T => match f {
        Integer1::Abs => unary(r, exec, d, a, integer::abs::<T>),
        Integer1::Neg => unary(r, exec, d, a, |a: T| T::ZERO.sub(a)),
        Integer1::Not => unary(r, exec, d, a, |a: T| T::from_bits(!a.bits())),
        Integer1::Cnot => unary(r, exec, d, a, |a: T| T::from_bits((a == T::ZERO).into())),
        Integer1::Brev => unary(r, exec, d, a, integer::brev::<T>),
        Integer1::Popc => count(r, exec, d, a, integer::popc::<T>),
        Integer1::Clz => count(r, exec, d, a, integer::clz::<T>),
        Integer1::Bfind => count(r, exec, d, a, |a: T| integer::bfind(a, false)),
        Integer1::BfindShift => count(r, exec, d, a, |a: T| integer::bfind(a, true)),
    });
}

/// The value of the low 24 bits, with their sign for signed types.
fn low_24<T: Int>(a: T) -> i64 {
    let up = a.bits() << 40;
    if T::SIGNED {
        up as i64 >> 40
    } else {
        (up >> 40) as i64
    }
}

fn integer2<T: Int>(
    r: &mut Registers,
    exec: u32,
    f: Integer2,
    d: Slot,
    a: Slot,
    b: Slot,
) -> Outcome {
    match f {
        Integer2::Add => binary(r, exec, d, a, b, T::add),
        Integer2::Sub => binary(r, exec, d, a, b, T::sub),
        Integer2::AddSat => narrow2(r, exec, d, a, b, |a, b| {
            integer::add_sat(a as i32, b as i32) as u32
        }),
        Integer2::SubSat => narrow2(r, exec, d, a, b, |a, b| {
            integer::sub_sat(a as i32, b as i32) as u32
        }),
        Integer2::MulLo => binary(r, exec, d, a, b, T::mul),
        Integer2::MulHi => binary(r, exec, d, a, b, integer::mul_hi::<T>),
        Integer2::MulWide => {
            let of = |x: u32| T::from_bits(x.into());
            let v = map2(r.narrow(a), r.narrow(b), |a, b| {
                integer::mul_wide(of(a), of(b))
            });
            set(r, exec, 2 * T::BITS as u8, d, &v);
        }
        Integer2::Mul24Lo => binary(r, exec, d, a, b, |a: T, b| {
            T::from_bits((low_24(a) * low_24(b)) as u64)
        }),
        Integer2::Mul24Hi => binary(r, exec, d, a, b, |a: T, b| {
            T::from_bits(((low_24(a) * low_24(b)) >> 16) as u64)
        }),
        Integer2::Min => binary(r, exec, d, a, b, |a: T, b| a.min(b)),
        Integer2::Max => binary(r, exec, d, a, b, |a: T, b| a.max(b)),
        Integer2::Shl | Integer2::Shr => {
            let left = f == Integer2::Shl;
            let shift = |a: T, count| {
                if left {
                    integer::shl(a, count)
                } else {
                    integer::shr(a, count)
                }
            };
            if T::BITS == 64 {
                let v = map2(r.wide(a), r.narrow(b), |a, b| {
                    shift(T::from_bits(a), b).bits()
                });
                r.set_wide(d, exec, &v);
            } else {
                narrow2(r, exec, d, a, b, |a, b| {
                    shift(T::from_bits(a.into()), b).bits() as u32
                });
            }
        }
        Integer2::Div | Integer2::Rem => {
            let zero = lanes_where(|lane| match T::BITS {
                64 => r.wide(b)[lane] == 0,
                _ => r.narrow(b)[lane] == 0,
            });
            if let Some(lane) = lanes(zero & exec).next() {
                return Err(Trap::new(
                    FaultKind::DivisionByZero,
                    lane as u32,
                    "the divisor is 0",
                ));
            }
            match f {
                Integer2::Div => binary(r, exec, d, a, b, |a: T, b| {
                    integer::div(a, b).unwrap_or(T::ZERO)
                }),
                _ => binary(r, exec, d, a, b, |a: T, b| {
                    integer::rem(a, b).unwrap_or(T::ZERO)
                }),
            }
        }
    }
    Ok(())
}

fn integer3<T: Int>(r: &mut Registers, exec: u32, f: Integer3, d: Slot, a: Slot, b: Slot, c: Slot) {
    let of = |x: u32| T::from_bits(x.into());
    match f {
        Integer3::MadLo => ternary(r, exec, d, a, b, c, |a: T, b, c| a.mul(b).add(c)),
        Integer3::MadHi => ternary(r, exec, d, a, b, c, |a: T, b, c| {
            integer::mul_hi(a, b).add(c)
        }),
        Integer3::MadHiSat => narrow3(r, exec, d, a, b, c, |a, b, c| {
            integer::mad_hi_sat(a as i32, b as i32, c as i32) as u32
        }),
        Integer3::MadWide if T::BITS == 32 => {
            let v = by_lane(|lane| {
                let product = integer::mul_wide(of(r.narrow(a)[lane]), of(r.narrow(b)[lane]));
                product.wrapping_add(r.wide(c)[lane])
            });
            r.set_wide(d, exec, &v);
        }
        Integer3::MadWide => narrow3(r, exec, d, a, b, c, |a, b, c| {
            (integer::mul_wide(of(a), of(b)) as u32).wrapping_add(c)
        }),
        Integer3::Mad24Lo => ternary(r, exec, d, a, b, c, |a: T, b, c| {
            T::from_bits((low_24(a) * low_24(b)) as u64).add(c)
        }),
        Integer3::Mad24Hi => ternary(r, exec, d, a, b, c, |a: T, b, c| {
            T::from_bits(((low_24(a) * low_24(b)) >> 16) as u64).add(c)
        }),
        Integer3::Mad24HiSat => narrow3(r, exec, d, a, b, c, |a, b, c| {
            (((low_24(a as i32) * low_24(b as i32)) >> 16) as i32).saturating_add(c as i32) as u32
        }),
        Integer3::Sad => ternary(r, exec, d, a, b, c, |a: T, b, c| {
            a.max(b).sub(a.min(b)).add(c)
        }),
        Integer3::Bfe if T::BITS == 64 => {
            let v = by_lane(|lane| {
                integer::bfe(
                    T::from_bits(r.wide(a)[lane]),
                    r.narrow(b)[lane],
                    r.narrow(c)[lane],
                )
                .bits()
            });
            r.set_wide(d, exec, &v);
        }
        Integer3::Bfe => narrow3(r, exec, d, a, b, c, |a, b, c| {
            integer::bfe(of(a), b, c).bits() as u32
        }),
    }
}

fn approx_f64(f: crate::op::Function, a: u64) -> u64 {
    // rcp.approx.ftz.f64 and its like read and give the upper word only.
    let x = f64::from_bits(a & !0xffff_ffff);
    let y = match f {
        crate::op::Function::Rsqrt => 1.0 / x.sqrt(),
        _ => 1.0 / x,
    };
    y.to_bits() & !0xffff_ffff
}

fn testp(f: Testp, class: std::num::FpCategory) -> bool {
    use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal};
    match f {
        Testp::Finite => !matches!(class, Infinite | Nan),
        Testp::Infinite => class == Infinite,
        Testp::Number => class != Nan,
        Testp::NotANumber => class == Nan,
        Testp::Normal => class == Normal,
        Testp::Subnormal => class == Subnormal,
    }
}

/// The lanes where a comparison holds.
fn compare(r: &Registers, how: Compare, ftz: bool, ty: Type, a: Slot, b: Slot) -> u32 {
    fn ordered<T: Copy, F: PartialOrd>(
        how: Compare,
        a: &[T; 32],
        b: &[T; 32],
        of: impl Fn(T) -> F,
    ) -> u32 {
        match how {
            Compare::Eq => mask2(a, b, |a, b| of(a) == of(b)),
            Compare::Lt => mask2(a, b, |a, b| of(a) < of(b)),
            Compare::Le => mask2(a, b, |a, b| of(a) <= of(b)),
            Compare::Gt => mask2(a, b, |a, b| of(a) > of(b)),
            Compare::Ge => mask2(a, b, |a, b| of(a) >= of(b)),
            how => mask2(a, b, |a, b| float::compare(how, of(a), of(b))),
        }
    }
    match ty {
        Type::F64 => ordered(how, r.wide(a), r.wide(b), f64::from_bits),
        Type::F32 if ftz => {
            let of = |x| f32::from_bits(float::flush(x, true));
            ordered(how, r.narrow(a), r.narrow(b), of)
        }
        Type::F32 => ordered(how, r.narrow(a), r.narrow(b), f32::from_bits),
        Type::F16 | Type::Bf16 | Type::F16x2 | Type::Bf16x2 => {
            compare_half(r, how, ftz, ty, a, b, 0)
        }
        Type::U64 | Type::B64 => ordered(how, r.wide(a), r.wide(b), |x| x),
        Type::S64 => ordered(how, r.wide(a), r.wide(b), |x| x as i64),
        Type::S32 => ordered(how, r.narrow(a), r.narrow(b), |x| x as i32),
        Type::S16 => ordered(how, r.narrow(a), r.narrow(b), |x| x as i16),
        _ => ordered(how, r.narrow(a), r.narrow(b), |x| x),
    }
}

/// The lanes where a comparison of the halves from bit `shift` on holds.
fn compare_half(
    r: &Registers,
    how: Compare,
    ftz: bool,
    ty: Type,
    a: Slot,
    b: Slot,
    shift: u32,
) -> u32 {
    by_half!(ty, H => {
        let of = |x: u32| <H as Half>::widen(half::flush::<H>((x >> shift) as u16, ftz));
        mask2(r.narrow(a), r.narrow(b), |a, b| float::compare(how, of(a), of(b)))
    })
}

fn cvt(
    r: &mut Registers,
    exec: u32,
    [from, to]: [Type; 2],
    how: convert::How,
    bits: u8,
    d: Slot,
    a: Slot,
) {
    /// A loop for one pair of types, which the compiler then knows.
    macro_rules! pair {
        ($from:ident, $to:ident) => {{
            let v: Lanes = map1(r.narrow(a), |a| {
                convert::cvt(a.into(), Type::$from, Type::$to, how) as u32
            });
            r.set_narrow(d, exec, &v);
        }};
    }
    let plain = !how.sat && !how.relu && !how.ftz && how.rounding == Rounding::Rn;
    match (from, to) {
        (Type::U32, Type::U64 | Type::S64) if !how.sat => {
            let v = map1(r.narrow(a), u64::from);
            r.set_wide(d, exec, &v);
        }
        (Type::S32, Type::U64 | Type::S64) if !how.sat => {
            let v = map1(r.narrow(a), |a| a as i32 as u64);
            r.set_wide(d, exec, &v);
        }
        (Type::U64 | Type::S64, Type::U32 | Type::S32) if !how.sat && bits == 32 => {
            let v = map1(r.wide(a), |a| a as u32);
            r.set_narrow(d, exec, &v);
        }
        (Type::F32, Type::F16) if plain => pair!(F32, F16),
        (Type::F32, Type::Bf16) if plain => pair!(F32, Bf16),
        (Type::F16, Type::F32) if plain => pair!(F16, F32),
        (Type::Bf16, Type::F32) if plain => pair!(Bf16, F32),
        (Type::U32, Type::F32) if plain => pair!(U32, F32),
        (Type::S32, Type::F32) if plain => pair!(S32, F32),
        _ => {
            let v: WideLanes = match from.file() {
                File::Wide => map1(r.wide(a), |a| convert::cvt(a, from, to, how)),
                _ => map1(r.narrow(a), |a| convert::cvt(a.into(), from, to, how)),
            };
            set(r, exec, bits, d, &v);
        }
    }
}

/// f32 addition as atomics do it: to nearest, with subnormals as zeros.
pub(crate) fn atomic_add_f32(a: u32, b: u32) -> u32 {
    float::add(
        a,
        b,
        Mode {
            ftz: true,
            ..Mode::RN
        },
    )
}
