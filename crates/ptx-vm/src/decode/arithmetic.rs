//! Arithmetic, logic and bits: a result, then what it is made from.

use super::Decoder;
use super::form::{Form, op};
use crate::ast::Value;
use crate::error::Result;
use crate::op::{
    Carry, Extremum, Float2, Function, HalfMode, Integer1, Integer2, Integer3, Logic, Mode, Op,
    Prmt, Rounding, Testp, Type,
};
use Type::*;

/// 16 to 64 bits.
pub(super) const INTEGERS: &[Type] = &[U16, U32, U64, S16, S32, S64];
const LONG: &[Type] = &[U32, U64, S32, S64];
const WORDS: &[Type] = &[B16, B32, B64];
const FLOATS: &[Type] = &[F32, F64, F16, F16x2, Bf16, Bf16x2];

/// Directions of rounding of results.
pub(super) const ROUNDINGS: &[(&str, Rounding)] = &[
    ("rn", Rounding::Rn),
    ("rz", Rounding::Rz),
    ("rm", Rounding::Rm),
    ("rp", Rounding::Rp),
];

/// Which part of a product.
const PARTS: &[(&str, Part)] = &[("lo", Part::Lo), ("hi", Part::Hi), ("wide", Part::Wide)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Lo,
    Hi,
    Wide,
}

/// The type of twice the width.
fn wide(ty: Type) -> Type {
    match ty {
        U16 => U32,
        S16 => S32,
        U32 => U64,
        _ => S64,
    }
}

pub(super) fn is_half(ty: Type) -> bool {
    matches!(ty, F16 | F16x2) || is_brain(ty)
}

pub(super) fn is_brain(ty: Type) -> bool {
    matches!(ty, Bf16 | Bf16x2)
}

impl<'a> Decoder<'_, 'a> {
    /// Everything that no other family takes.
    pub(super) fn arithmetic(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let name = form.tree.name;
        match name {
            "add" | "sub" if form.flag("cc") => self.add_carry(form, false, true),
            "addc" | "subc" => {
                let writes = form.flag("cc");
                self.add_carry(form, true, writes)
            }
            "add" | "sub" => self.sum(form),
            "mul" | "mad" | "madc" => self.product(form),
            "mul24" | "mad24" => self.product_24(form),
            "fma" => self.fma(form, FLOATS),
            "div" => self.quotient(form),
            "rem" => self.integer2(form, Integer2::Rem, INTEGERS),
            "rcp" | "sqrt" => self.root(form),
            "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" => self.approximate(form),
            "min" | "max" => self.extremum(form),
            "abs" | "neg" => self.sign(form),
            "copysign" => {
                let ty = form.ty(&[F32, F64])?;
                op!(self, form, Copysign { ty }, d: ty, a: ty, b: ty)
            }
            "testp" => {
                let f = form.need(&[
                    ("finite", Testp::Finite),
                    ("infinite", Testp::Infinite),
                    ("number", Testp::Number),
                    ("notanumber", Testp::NotANumber),
                    ("normal", Testp::Normal),
                    ("subnormal", Testp::Subnormal),
                ])?;
                let ty = form.ty(&[F32, F64])?;
                op!(self, form, Testp { f, ty }, d: Pred, a: ty)
            }
            "sad" => {
                let (f, ty) = (Integer3::Sad, form.ty(INTEGERS)?);
                op!(self, form, Integer3 { f, ty }, d: ty, a: ty, b: ty, c: ty)
            }
            "and" | "or" | "xor" => self.logic(form),
            "not" => self.not(form),
            "cnot" => self.integer1(form, Integer1::Cnot, WORDS),
            "brev" => self.integer1(form, Integer1::Brev, &[B32, B64]),
            "popc" => self.integer1(form, Integer1::Popc, &[B32, B64]),
            "clz" => self.integer1(form, Integer1::Clz, &[B32, B64]),
            "bfind" if form.flag("shiftamt") => self.integer1(form, Integer1::BfindShift, LONG),
            "bfind" => self.integer1(form, Integer1::Bfind, LONG),
            "shl" => self.integer2(form, Integer2::Shl, WORDS),
            "shr" => self.integer2(form, Integer2::Shr, &[WORDS, INTEGERS].concat()),
            _ => self.bits(form),
        }
    }

    fn integer1(&mut self, form: &mut Form<'a>, f: Integer1, types: &[Type]) -> Result<Op> {
        use Integer1::{Bfind, BfindShift, Clz, Popc};
        let ty = form.ty(types)?;
        let to = if matches!(f, Popc | Clz | Bfind | BfindShift) {
            U32
        } else {
            ty
        };
        op!(self, form, Integer1 { f, ty }, d: to, a: ty)
    }

    fn integer2(&mut self, form: &mut Form<'a>, f: Integer2, types: &[Type]) -> Result<Op> {
        let ty = form.ty(types)?;
        let by = if matches!(f, Integer2::Shl | Integer2::Shr) {
            U32
        } else {
            ty
        };
        op!(self, form, Integer2 { f, ty }, d: ty, a: ty, b: by)
    }

    fn mode(form: &mut Form<'_>, rounding: Rounding, ty: Type, sat: bool) -> Mode {
        Mode {
            rounding,
            ftz: ty == F32 && form.flag("ftz"),
            sat: ty == F32 && sat && form.flag("sat"),
        }
    }

    fn half_mode(form: &mut Form<'_>, ty: Type, relu: bool) -> HalfMode {
        HalfMode {
            ftz: !is_brain(ty) && form.flag("ftz"),
            sat: !is_brain(ty) && form.flag("sat"),
            relu: relu && form.flag("relu"),
        }
    }

    fn sum(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let add = form.tree.name == "add";
        let ty = form.ty(&[INTEGERS, FLOATS].concat())?;
        if ty.is_float() {
            return self.float2(form, if add { Float2::Add } else { Float2::Sub }, ty);
        }
        let f = match (add, ty == S32 && form.flag("sat")) {
            (true, false) => Integer2::Add,
            (true, true) => Integer2::AddSat,
            (false, false) => Integer2::Sub,
            (false, true) => Integer2::SubSat,
        };
        op!(self, form, Integer2 { f, ty }, d: ty, a: ty, b: ty)
    }

    /// `add`, `sub` and `mul` of floating-point numbers.
    fn float2(&mut self, form: &mut Form<'a>, f: Float2, ty: Type) -> Result<Op> {
        if is_half(ty) {
            if is_brain(ty) {
                self.since(form, 90, (7, 8))?;
            }
            form.flag("rn");
            let mode = Self::half_mode(form, ty, false);
            return op!(self, form, Half2 { f, ty, mode }, d: ty, a: ty, b: ty);
        }
        let rounding = form.one(ROUNDINGS).unwrap_or(Rounding::Rn);
        let mode = Self::mode(form, rounding, ty, true);
        op!(self, form, Float2 { f, ty, mode }, d: ty, a: ty, b: ty)
    }

    /// The type of an instruction with a carry; 16 bits only read it, and are not known here.
    fn carry_type(form: &mut Form<'a>, writes: bool) -> Result<Type> {
        let ty = form.ty(INTEGERS)?;
        match ty.bits() {
            16 if writes => Err(form.fail("a type of 32 or 64 bits")),
            16 => Err(form.tree.span.unsupported(form.tree.title())),
            _ => Ok(ty),
        }
    }

    fn add_carry(&mut self, form: &mut Form<'a>, reads: bool, writes: bool) -> Result<Op> {
        let ty = Self::carry_type(form, writes)?;
        let subtract = form.tree.name.starts_with("sub");
        let carry = Carry { reads, writes };
        op!(self, form, AddCarry { subtract, carry, ty }, d: ty, a: ty, b: ty)
    }

    /// `mul`, `mad` and `madc`.
    fn product(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let sum = form.tree.name != "mul";
        let reads = form.tree.name == "madc";
        let part = match form.one(if reads { &PARTS[..2] } else { PARTS }) {
            Some(part) => part,
            None if reads => return Err(form.fail("`.lo` or `.hi`")),
            None if sum => return self.fma(form, &[F32, F64]),
            None => {
                let ty = form.ty(FLOATS)?;
                return self.float2(form, Float2::Mul, ty);
            }
        };
        let writes = sum && part != Part::Wide && form.flag("cc");
        if reads || writes {
            let ty = Self::carry_type(form, writes)?;
            let (high, carry) = (part == Part::Hi, Carry { reads, writes });
            return op!(self, form, MadCarry { high, carry, ty }, d: ty, a: ty, b: ty, c: ty);
        }
        let ty = form.ty(INTEGERS)?;
        form.check(
            part != Part::Wide || ty.bits() < 64,
            "a type of 16 or 32 bits",
        )?;
        let to = if part == Part::Wide { wide(ty) } else { ty };
        if sum {
            let f = match part {
                Part::Lo => Integer3::MadLo,
                Part::Hi if ty == S32 && form.flag("sat") => Integer3::MadHiSat,
                Part::Hi => Integer3::MadHi,
                Part::Wide => Integer3::MadWide,
            };
            return op!(self, form, Integer3 { f, ty }, d: to, a: ty, b: ty, c: to);
        }
        let f = match part {
            Part::Lo => Integer2::MulLo,
            Part::Hi => Integer2::MulHi,
            Part::Wide => Integer2::MulWide,
        };
        op!(self, form, Integer2 { f, ty }, d: to, a: ty, b: ty)
    }

    fn product_24(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let hi = form.need(&PARTS[..2])? == Part::Hi;
        let ty = form.ty(&[U32, S32])?;
        if form.tree.name == "mul24" {
            let f = if hi {
                Integer2::Mul24Hi
            } else {
                Integer2::Mul24Lo
            };
            return op!(self, form, Integer2 { f, ty }, d: ty, a: ty, b: ty);
        }
        let f = match (hi, hi && ty == S32 && form.flag("sat")) {
            (false, _) => Integer3::Mad24Lo,
            (true, false) => Integer3::Mad24Hi,
            (true, true) => Integer3::Mad24HiSat,
        };
        op!(self, form, Integer3 { f, ty }, d: ty, a: ty, b: ty, c: ty)
    }

    /// `fma`, and `mad` of floating-point numbers.
    fn fma(&mut self, form: &mut Form<'a>, types: &[Type]) -> Result<Op> {
        let ty = form.ty(types)?;
        if !is_half(ty) {
            let rounding = form.need(ROUNDINGS)?;
            let mode = Self::mode(form, rounding, ty, true);
            return op!(self, form, Fma { ty, mode }, d: ty, a: ty, b: ty, c: ty);
        }
        form.need(&ROUNDINGS[..1])?;
        let mode = Self::half_mode(form, ty, true);
        form.check(!(mode.relu && mode.sat), "one of `.relu` and `.sat`")?;
        if is_brain(ty) || mode.relu {
            self.since(form, 80, (7, 0))?;
        }
        op!(self, form, HalfFma { ty, mode }, d: ty, a: ty, b: ty, c: ty)
    }

    fn quotient(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let ty = form.ty(&[INTEGERS, &[F32, F64]].concat())?;
        if ty.is_integer() {
            let f = Integer2::Div;
            return op!(self, form, Integer2 { f, ty }, d: ty, a: ty, b: ty);
        }
        let approximate = [("approx", false), ("full", true)];
        if let Some(full) = form.one(&approximate[..if ty == F32 { 2 } else { 0 }]) {
            let ftz = form.flag("ftz");
            return op!(self, form, DivApprox { full, ftz }, d: ty, a: ty, b: ty);
        }
        let (f, rounding) = (Float2::Div, form.need(ROUNDINGS)?);
        let mode = Self::mode(form, rounding, ty, false);
        op!(self, form, Float2 { f, ty, mode }, d: ty, a: ty, b: ty)
    }

    /// `rcp` and `sqrt`, rounded or approximate.
    fn root(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let rcp = form.tree.name == "rcp";
        let ty = form.ty(&[F32, F64])?;
        if (ty == F32 || rcp) && form.flag("approx") {
            let ftz = form.flag("ftz");
            form.check(ty == F32 || ftz, "`.ftz`")?;
            let f = if rcp { Function::Rcp } else { Function::Sqrt };
            return op!(self, form, Approx { f, ftz, ty }, d: ty, a: ty);
        }
        let rounding = form.need(ROUNDINGS)?;
        let mode = Self::mode(form, rounding, ty, false);
        if rcp {
            return op!(self, form, Rcp { ty, mode }, d: ty, a: ty);
        }
        op!(self, form, Sqrt { ty, mode }, d: ty, a: ty)
    }

    fn approximate(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let half = [F32, F16, F16x2, Bf16, Bf16x2];
        let (f, types) = match form.tree.name {
            "rsqrt" => (Function::Rsqrt, &[F32, F64][..]),
            "sin" => (Function::Sin, &half[..1]),
            "cos" => (Function::Cos, &half[..1]),
            "lg2" => (Function::Lg2, &half[..1]),
            "ex2" => (Function::Ex2, &half[..]),
            _ => (Function::Tanh, &half[..]),
        };
        let tanh = f == Function::Tanh;
        form.need(&[("approx", ())])?;
        let ty = form.ty(types)?;
        let ftz = !tanh && !matches!(ty, F16 | F16x2) && form.flag("ftz");
        if is_brain(ty) {
            form.check(ftz || tanh, "`.ftz`")?;
            self.since(form, 90, (7, 8))?;
        } else if is_half(ty) || tanh {
            self.since(form, 75, (7, 0))?;
        }
        op!(self, form, Approx { f, ftz, ty }, d: ty, a: ty)
    }

    fn extremum(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let max = form.tree.name == "max";
        let ty = form.ty(&[INTEGERS, FLOATS].concat())?;
        if ty.is_integer() {
            let f = if max { Integer2::Max } else { Integer2::Min };
            return op!(self, form, Integer2 { f, ty }, d: ty, a: ty, b: ty);
        }
        let ftz = ty != F64 && !is_brain(ty) && form.flag("ftz");
        let nan = ty != F64 && form.flag("NaN");
        let xorsign_abs = ty != F64 && form.flag("xorsign");
        if xorsign_abs {
            form.need(&[("abs", ())])?;
            self.since(form, 86, (7, 2))?;
        } else if nan || is_half(ty) {
            self.since(form, 80, (7, 0))?;
        }
        let how = Extremum {
            max,
            nan,
            xorsign_abs,
        };
        op!(self, form, Extremum { how, ftz, ty }, d: ty, a: ty, b: ty)
    }

    /// `abs` and `neg`.
    fn sign(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let abs = form.tree.name == "abs";
        let ty = form.ty(&[&INTEGERS[3..], FLOATS].concat())?;
        if ty.is_integer() {
            let f = if abs { Integer1::Abs } else { Integer1::Neg };
            return op!(self, form, Integer1 { f, ty }, d: ty, a: ty);
        }
        match ty {
            Bf16 | Bf16x2 => self.since(form, 80, (7, 0))?,
            F16 | F16x2 if abs => self.since(form, 70, (6, 5))?,
            _ => {}
        }
        let ftz = ty != F64 && !is_brain(ty) && form.flag("ftz");
        if abs {
            return op!(self, form, FloatAbs { ftz, ty }, d: ty, a: ty);
        }
        op!(self, form, FloatNeg { ftz, ty }, d: ty, a: ty)
    }

    fn logic(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let f = match form.tree.name {
            "and" => Logic::And,
            "or" => Logic::Or,
            _ => Logic::Xor,
        };
        let ty = form.ty(&[Pred, B16, B32, B64])?;
        if ty != Pred {
            return op!(self, form, Logic { f, ty }, d: ty, a: ty, b: ty);
        }
        form.arity(3, 3)?;
        let (a, b) = (self.predicate(form, 1)?, self.predicate(form, 2)?);
        let d = self.dst(form, 0, ty)?;
        Ok(Op::PredicateLogic { f, d, a, b })
    }

    fn not(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let (f, ty) = (Integer1::Not, form.ty(&[Pred, B16, B32, B64])?);
        if ty != Pred {
            return op!(self, form, Integer1 { f, ty }, d: ty, a: ty);
        }
        form.arity(2, 2)?;
        let mut a = self.predicate(form, 1)?;
        a.negated = !a.negated;
        let d = self.dst(form, 0, ty)?;
        Ok(Op::PredicateMov { d, a })
    }

    /// Instructions on bits and bytes.
    fn bits(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let wraps = [("wrap", true), ("clamp", false)];
        match form.tree.name {
            "lop3" => self.lop3(form),
            "prmt" => {
                let f = form.one(&[
                    ("f4e", Prmt::F4e),
                    ("b4e", Prmt::B4e),
                    ("rc8", Prmt::Rc8),
                    ("ecl", Prmt::Ecl),
                    ("ecr", Prmt::Ecr),
                    ("rc16", Prmt::Rc16),
                ]);
                let f = f.unwrap_or(Prmt::Index);
                form.ty(&[B32])?;
                op!(self, form, Prmt { f }, d: B32, a: B32, b: B32, c: B32)
            }
            "shf" => {
                let left = form.need(&[("l", true), ("r", false)])?;
                let wrap = form.need(&wraps)?;
                form.ty(&[B32])?;
                op!(self, form, Shf { left, wrap }, d: B32, a: B32, b: B32, c: U32)
            }
            "bfe" => {
                Self::field(form, 2)?;
                let (f, ty) = (Integer3::Bfe, form.ty(LONG)?);
                op!(self, form, Integer3 { f, ty }, d: ty, a: ty, b: U32, c: U32)
            }
            "bfi" => {
                Self::field(form, 3)?;
                let ty = form.ty(&[B32, B64])?;
                op!(self, form, Bfi { ty }, d: ty, a: ty, b: ty, pos: U32, len: U32)
            }
            "bmsk" => {
                self.since(form, 70, (7, 6))?;
                let wrap = form.need(&wraps)?;
                form.ty(&[B32])?;
                op!(self, form, Bmsk { wrap }, d: B32, a: B32, b: B32)
            }
            "szext" => {
                self.since(form, 70, (7, 6))?;
                let wrap = form.need(&wraps)?;
                let ty = form.ty(&[U32, S32])?;
                let signed = ty == S32;
                op!(self, form, Szext { wrap, signed }, d: ty, a: ty, b: U32)
            }
            "dp4a" | "dp2a" => self.dot(form),
            name => Err(form.tree.span.unsupported(format!("instruction {name}"))),
        }
    }

    /// Checks that position and length of a bit field, the operands from `at` on, are below 256 if they are constants.
    fn field(form: &Form<'a>, at: usize) -> Result<()> {
        for operand in form.tree.operands.iter().skip(at) {
            if matches!(operand.value, Value::Integer(256..)) {
                return Err(operand.expected("0 to 255"));
            }
        }
        Ok(())
    }

    fn dot(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let high = match form.tree.name {
            "dp2a" => Some(form.need(&PARTS[..2])? == Part::Hi),
            _ => None,
        };
        let types = form.types();
        let &[at @ (U32 | S32), bt @ (U32 | S32)] = &types[..] else {
            return Err(form.fail("two types of U32 and S32"));
        };
        let (a_signed, b_signed) = (at == S32, bt == S32);
        let sum = if a_signed || b_signed { S32 } else { U32 };
        if let Some(high) = high {
            return op!(self, form, Dp2a { a_signed, b_signed, high }, d: sum, a: at, b: bt, c: sum);
        }
        op!(self, form, Dp4a { a_signed, b_signed }, d: sum, a: at, b: bt, c: sum)
    }

    fn lop3(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let join = form.one(&[("and", Logic::And), ("or", Logic::Or)]);
        form.ty(&[B32])?;
        let count = 5 + usize::from(join.is_some());
        form.arity(count, count)?;
        let a = self.src(form, 1, B32)?;
        let b = self.src(form, 2, B32)?;
        let c = self.src(form, 3, B32)?;
        let Value::Integer(table) = form.operand(4).value else {
            return Err(form.operand(4).expected("a constant table"));
        };
        let table = table as u8;
        let (d, predicate) = match join {
            None => (self.dst(form, 0, B32)?, None),
            Some(f) => {
                self.since(form, 70, (8, 2))?;
                let q = self.predicate(form, 5)?;
                let operand = form.operand(0);
                let Value::Pair(word, p) = operand.value else {
                    return Err(operand.expected("`d|p`"));
                };
                let d = self.dst_or_sink(operand.span, word, B32)?;
                let p = self.dst_name(operand.span, p, Pred)?;
                (d, Some((p, f, q)))
            }
        };
        Ok(Op::Lop3 {
            table,
            d,
            a,
            b,
            c,
            predicate,
        })
    }
}
