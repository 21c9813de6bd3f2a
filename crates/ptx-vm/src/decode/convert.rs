//! Conversion.

use super::Decoder;
use super::arithmetic::ROUNDINGS;
use super::form::{Form, op};
use crate::ast::Value;
use crate::error::Result;
use crate::op::{Byte, How, Op, Rounding, Type};
use Type::*;

/// Directions of rounding to integers.
const INTEGRAL: &[(&str, Rounding)] = &[
    ("rni", Rounding::Rn),
    ("rzi", Rounding::Rz),
    ("rmi", Rounding::Rm),
    ("rpi", Rounding::Rp),
];

impl<'a> Decoder<'_, 'a> {
    /// `cvt`.
    pub(super) fn cvt(&mut self, form: &mut Form<'a>) -> Result<Op> {
        if form.flag("pack") {
            return self.cvt_pack(form);
        }
        let types = form.types();
        let &[to, from] = &types[..] else {
            return Err(form.fail("two types"));
        };
        match (to, from) {
            (F16x2 | Bf16x2, F32) => self.cvt_pair(form, to),
            (E4m3x2 | E5m2x2, F32 | F16x2) | (F16x2, E4m3x2 | E5m2x2) => {
                self.cvt_bytes(form, to, from)
            }
            _ => self.cvt_scalar(form, to, from),
        }
    }

    fn cvt_scalar(&mut self, form: &mut Form<'a>, to: Type, from: Type) -> Result<Op> {
        let scalar = |ty: Type| ty.is_integer() || matches!(ty, F16 | Bf16 | F32 | F64);
        form.check(
            scalar(from) && (scalar(to) || (to, from) == (Tf32, F32)),
            "types that convert",
        )?;
        let rounding = match (to.is_float(), from.is_float()) {
            (false, false) => None,
            (false, true) => Some(form.need(INTEGRAL)?),
            (true, false) => Some(form.need(ROUNDINGS)?),
            (true, true) if to == from => form.one(INTEGRAL),
            (true, true) if to == Tf32 => Some(form.need(&[
                ("rna", Rounding::Rna),
                ("rn", Rounding::Rn),
                ("rz", Rounding::Rz),
            ])?),
            // Optional, and without effect where the result is exact.
            (true, true) if to == Bf16 && from == F16 || from == Bf16 => form.one(ROUNDINGS),
            (true, true) if to.bits() < from.bits() => Some(form.need(ROUNDINGS)?),
            (true, true) => None,
        };
        let how = How {
            rounding: rounding.unwrap_or(Rounding::Rn),
            integral: to == from && rounding.is_some(),
            ftz: (to == F32 || from == F32 && to != Tf32) && form.flag("ftz"),
            sat: form.flag("sat"),
            relu: to.is_float() && from == F32 && form.flag("relu"),
        };
        self.cvt_since(form, to, from, how)?;
        form.arity(2, 2)?;
        let exact = matches!(to, Bf16 | Tf32);
        let operand = form.operand(1);
        let a = match operand.value {
            Value::Name(name, member) => match self.special(name, member) {
                Some((special, own)) if own == U32 && from.is_integer() && from.bits() == 32 => {
                    let temporary = self.special_temporary(special, form.tree.span.line)?;
                    self.reads.push(temporary);
                    temporary.slot
                }
                _ => self.src_wider(operand, from)?.1,
            },
            _ => self.src_wider(operand, from)?.1,
        };
        let (own, d) = match exact {
            true => (to, self.dst(form, 0, to)?),
            false => self.dst_wider(form.operand(0), to)?,
        };
        let bits = own.bits() as u8;
        Ok(Op::Cvt {
            to,
            from,
            how,
            bits,
            d,
            a,
        })
    }

    /// Checks modifiers of scalar conversions and what target they need.
    fn cvt_since(&self, form: &Form<'_>, to: Type, from: Type, how: How) -> Result<()> {
        // All values of the one are values of the other.
        let holds = to == from || to.bits() > from.bits() && (to.is_signed() || !from.is_signed());
        let clamps = match (to.is_integer(), from.is_integer()) {
            (true, true) => !holds,
            _ => !matches!(to, Bf16 | Tf32) && from != Bf16,
        };
        form.check(clamps || !how.sat, "no `.sat` between these types")?;
        form.check(
            !how.relu || !how.sat && !how.ftz,
            "`.relu` without `.sat` and `.ftz`",
        )?;
        form.check(
            [to, from].iter().all(|ty| *ty != Bf16) || [to, from].iter().all(|ty| ty.bits() > 8),
            "a wider integer",
        )?;
        if how.relu {
            form.check(
                matches!(to, F16 | Bf16 | Tf32),
                "`.relu` to f16, bf16 or tf32",
            )?;
            form.check(
                matches!(how.rounding, Rounding::Rn | Rounding::Rz),
                "`.rn` or `.rz` with `.relu`",
            )?;
            self.since(form, 80, (7, 0))?;
        }
        match (to, from) {
            (Tf32, _) if how.rounding == Rounding::Rna => self.since(form, 80, (7, 0)),
            (Tf32, _) => self.since(form, 90, (7, 8)),
            (Bf16, F32) => self.since(form, 80, (7, 0)),
            (F32, Bf16) if !how.ftz && !how.sat => self.since(form, 80, (7, 1)),
            (Bf16, _) | (_, Bf16) => self.since(form, 90, (7, 8)),
            _ => Ok(()),
        }
    }

    fn cvt_pair(&mut self, form: &mut Form<'a>, to: Type) -> Result<Op> {
        self.since(form, 80, (7, 0))?;
        let how = How {
            rounding: form.need(&ROUNDINGS[..2])?,
            integral: false,
            ftz: false,
            sat: false,
            relu: form.flag("relu"),
        };
        form.arity(3, 3)?;
        let (a, b) = (self.src(form, 1, F32)?, self.src(form, 2, F32)?);
        let d = match to {
            F16x2 => self.dst_wider(form.operand(0), to)?.1,
            _ => self.dst(form, 0, to)?,
        };
        Ok(Op::CvtPair { to, how, d, a, b })
    }

    fn cvt_bytes(&mut self, form: &mut Form<'a>, to: Type, from: Type) -> Result<Op> {
        self.since(form, 89, if self.target < 90 { (8, 1) } else { (7, 8) })?;
        form.need(&[("rn", ())])?;
        let byte = |ty| if ty == E4m3x2 { Byte::E4m3 } else { Byte::E5m2 };
        if to == F16x2 {
            let relu = form.flag("relu");
            let (ty, from) = (from, byte(from));
            return op!(self, form, CvtBytesToHalves { from, relu }, d: to, a: ty);
        }
        form.need(&[("satfinite", ())])?;
        let (relu, ty, to) = (form.flag("relu"), to, byte(to));
        if from == F16x2 {
            return op!(self, form, CvtHalvesToBytes { to, relu }, d: ty, a: from);
        }
        op!(self, form, CvtBytes { to, relu }, d: ty, a: F32, b: F32)
    }

    fn cvt_pack(&mut self, form: &mut Form<'a>) -> Result<Op> {
        self.since(form, 75, (6, 5))?;
        form.need(&[("sat", ())])?;
        if form.flag("u4") || form.flag("s4") {
            return Err(form.tree.span.unsupported(form.tree.title()));
        }
        let types = form.types();
        match types[..] {
            [to @ (U16 | S16), S32] => {
                let signed = to == S16;
                op!(self, form, CvtPack16 { signed }, d: U32, a: S32, b: S32)
            }
            [to @ (U8 | S8), S32, B32] => {
                let signed = to == S8;
                op!(self, form, CvtPack8 { signed }, d: U32, a: S32, b: S32, c: B32)
            }
            _ => Err(form.fail("`.u16.s32`, `.s16.s32`, `.u8.s32.b32` or `.s8.s32.b32`")),
        }
    }
}
