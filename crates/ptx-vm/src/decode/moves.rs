//! Moves between registers, and from variables' addresses and special registers.

use super::form::{Form, op};
use super::memory::untyped;
use super::{Decoder, Symbol};
use crate::ast::{Operand as Tree, Value};
use crate::error::Result;
use crate::op::{Address, Op, Operand, Slot, Space, Special, Type};
use Type::*;

/// Special registers.
#[rustfmt::skip]
const SPECIALS: &[(&str, Special, Type)] = &[
    ("%tid.x", Special::Tid(0), U32), ("%tid.y", Special::Tid(1), U32), ("%tid.z", Special::Tid(2), U32),
    ("%ntid.x", Special::Ntid(0), U32), ("%ntid.y", Special::Ntid(1), U32), ("%ntid.z", Special::Ntid(2), U32),
    ("%ctaid.x", Special::Ctaid(0), U32), ("%ctaid.y", Special::Ctaid(1), U32), ("%ctaid.z", Special::Ctaid(2), U32),
    ("%nctaid.x", Special::Nctaid(0), U32), ("%nctaid.y", Special::Nctaid(1), U32), ("%nctaid.z", Special::Nctaid(2), U32),
    ("%laneid", Special::LaneId, U32), ("%warpid", Special::WarpId, U32), ("%nwarpid", Special::NwarpId, U32),
    ("%smid", Special::SmId, U32), ("%nsmid", Special::NsmId, U32), ("%gridid", Special::GridId, U64),
    ("%lanemask_eq", Special::LanemaskEq, U32), ("%lanemask_lt", Special::LanemaskLt, U32),
    ("%lanemask_le", Special::LanemaskLe, U32), ("%lanemask_gt", Special::LanemaskGt, U32),
    ("%lanemask_ge", Special::LanemaskGe, U32), ("%clock", Special::Clock, U32), ("%clock_hi", Special::ClockHi, U32),
    ("%clock64", Special::Clock64, U64), ("%globaltimer", Special::GlobalTimer, U64),
    ("%globaltimer_lo", Special::GlobalTimerLo, U32), ("%globaltimer_hi", Special::GlobalTimerHi, U32),
    ("%dynamic_smem_size", Special::DynamicSharedSize, U32), ("%total_smem_size", Special::TotalSharedSize, U32),
];

/// Beginnings of special registers that have no meaning here.
const UNKNOWN: &[&str] = &[
    "%envreg",
    "%pm",
    "%cluster",
    "%ncluster",
    "%is_explicit_cluster",
    "%aggr_smem_size",
    "%reserved_smem",
    "%current_graph_exec",
];

impl<'a> Decoder<'_, 'a> {
    /// `mov`.
    pub(super) fn mov(&mut self, form: &mut Form<'a>) -> Result<Op> {
        form.no_vectors()?;
        let ty = form.ty(&[Pred, B16, B32, B64, U16, U32, U64, S16, S32, S64, F32, F64])?;
        form.arity(2, 2)?;
        if ty == Pred {
            let a = self.predicate(form, 1)?;
            let d = self.dst(form, 0, ty)?;
            return Ok(Op::PredicateMov { d, a });
        }
        match (&form.operand(0).value, &form.operand(1).value) {
            (Value::Vector(parts), _) => self.unpack(form, ty, parts),
            (_, Value::Vector(parts)) => self.pack(form, ty, parts),
            (_, &Value::Name(name, member)) => {
                if let Some((from, own)) = self.special(name, member) {
                    return self.mov_special(form, ty, from, own);
                }
                let declared = self.names.register(name).is_some();
                let unknown = UNKNOWN.iter().any(|unknown| name.starts_with(unknown));
                if member == Some("w") && self.special(name, Some("x")).is_some() {
                    // The fourth element of an index is always 0.
                    let a = self.constant(ty.file(), 0)?;
                    let d = self.dst(form, 0, ty)?;
                    return Ok(Op::Mov { ty, d, a });
                }
                if unknown && !declared {
                    let span = form.operand(1).span;
                    return Err(span.unsupported(format!("special register {name}")));
                }
                match declared || member.is_some() {
                    true => self.mov_register(form, ty),
                    false => self.mov_address(form, ty, name, 0),
                }
            }
            (_, &Value::Sum(name, offset)) => self.mov_address(form, ty, name, offset),
            _ => self.mov_register(form, ty),
        }
    }

    fn mov_register(&mut self, form: &Form<'a>, ty: Type) -> Result<Op> {
        op!(self, form, Mov { ty }, d: ty, a: ty)
    }

    fn mov_special(&mut self, form: &Form<'a>, ty: Type, from: Special, own: Type) -> Result<Op> {
        // Old texts read 32-bit indices into 16 bits, and the grid's index into 32.
        let cut = match from {
            Special::Tid(_) | Special::Ntid(_) | Special::Ctaid(_) | Special::Nctaid(_) => 16,
            Special::GridId => 32,
            _ => own.bits(),
        };
        let fits = !matches!(ty, F32 | F64) && (ty.bits() == own.bits() || ty.bits() == cut);
        form.check(fits, &format!("a type of {} bits", own.bits()))?;
        let wide = ty == U64 || ty.bits() == 64;
        let d = self.dst(form, 0, ty)?;
        Ok(Op::Special { d, wide, from })
    }

    fn mov_address(&mut self, form: &Form<'a>, ty: Type, name: &'a str, offset: i64) -> Result<Op> {
        let span = form.operand(1).span;
        if matches!(self.names.find(name), Some(Symbol::Entry)) {
            return Err(span.unsupported("address of a kernel"));
        }
        if self.names.register(name).is_some() {
            return Err(span.unsupported("sum of a register and a constant"));
        }
        let mut space = Space::Generic;
        let base = self.variable_of(span, name, &mut space)?;
        let wide = ty.bits() == 64;
        let fits = !ty.is_float() && (wide || ty.bits() == 32 && space != Space::Global);
        form.check(fits, "a type of an address")?;
        let d = self.dst(form, 0, ty)?;
        let address = Address { base, offset };
        Ok(Op::AddressOf {
            d,
            wide,
            address,
            space,
            generic: false,
        })
    }

    /// Checks a vector of equal parts of a word; the width of a part.
    fn parts(form: &Form<'_>, ty: Type, parts: &[Tree<'_>]) -> Result<u32> {
        let bits = ty.bits() / parts.len() as u32;
        let fits = ty.is_untyped() && matches!(parts.len(), 1 | 2 | 4) && bits >= 8;
        form.check(fits, "2 or 4 parts of a `.b16`, `.b32` or `.b64`")?;
        Ok(bits)
    }

    fn unpack(&mut self, form: &Form<'a>, ty: Type, parts: &'a [Tree<'a>]) -> Result<Op> {
        let bits = Self::parts(form, ty, parts)?;
        let operand = form.operand(1);
        if let Value::Name(name, _) | Value::Sum(name, _) = operand.value
            && self.names.register(name).is_none()
            && (name.starts_with('%') || matches!(self.names.find(name), Some(Symbol::Variable(_))))
        {
            return Err(operand
                .span
                .unsupported("parts of an address or special register"));
        }
        let a = self.src(form, 1, ty)?;
        let mut d = [Slot(0); 4];
        let named = parts
            .iter()
            .any(|part| !matches!(part.value, Value::Name("_", None)));
        form.check(named, "a register among the parts")?;
        for (slot, part) in d.iter_mut().zip(parts) {
            let Value::Name(name, None) = part.value else {
                return Err(part.expected("a register"));
            };
            *slot = self.dst_or_sink(part.span, name, untyped(bits))?;
        }
        let (n, bits) = (parts.len() as u8, bits as u8);
        Ok(Op::Unpack { bits, n, d, a })
    }

    fn pack(&mut self, form: &Form<'a>, ty: Type, parts: &'a [Tree<'a>]) -> Result<Op> {
        let bits = Self::parts(form, ty, parts)?;
        let mut a = [Slot(0); 4];
        for (slot, part) in a.iter_mut().zip(parts) {
            *slot = self.element(part, untyped(bits))?;
        }
        let d = self.dst(form, 0, ty)?;
        let (n, bits) = (parts.len() as u8, bits as u8);
        Ok(Op::Pack { bits, n, d, a })
    }

    /// A special register and its type, unless the name is declared.
    pub(super) fn special(
        &mut self,
        name: &'a str,
        member: Option<&str>,
    ) -> Option<(Special, Type)> {
        if self.names.register(name).is_some() {
            return None;
        }
        let find = |of: &str| SPECIALS.iter().find(|(own, ..)| *own == of);
        let found = match member {
            None => find(name),
            Some(axis) => find(&format!("{name}.{axis}")),
        };
        found.map(|&(_, special, ty)| (special, ty))
    }

    /// Reads a 32-bit special register into a register of its own, in an instruction of its own.
    pub(super) fn special_temporary(&mut self, from: Special, line: u32) -> Result<Operand> {
        let file = U32.file();
        let slot = self.allot(file, "")?;
        let (d, wide) = (slot, false);
        self.writes.push(Operand { file, slot });
        self.push(Op::Special { d, wide, from }, None, line)?;
        Ok(Operand { file, slot })
    }
}
