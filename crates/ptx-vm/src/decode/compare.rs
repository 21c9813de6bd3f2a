//! Comparison and selection.

use super::Decoder;
use super::arithmetic::{INTEGERS, is_brain, is_half};
use super::form::{Form, op};
use crate::ast::Value;
use crate::error::Result;
use crate::op::{Compare, Logic, Op, Type};
use Type::*;

/// The types that a comparison takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Equal,
    Ordered,
    Unsigned,
    Float,
}

const COMPARISONS: &[(&str, (Class, Compare))] = &[
    ("eq", (Class::Equal, Compare::Eq)),
    ("ne", (Class::Equal, Compare::Ne)),
    ("lt", (Class::Ordered, Compare::Lt)),
    ("le", (Class::Ordered, Compare::Le)),
    ("gt", (Class::Ordered, Compare::Gt)),
    ("ge", (Class::Ordered, Compare::Ge)),
    ("lo", (Class::Unsigned, Compare::Lt)),
    ("ls", (Class::Unsigned, Compare::Le)),
    ("hi", (Class::Unsigned, Compare::Gt)),
    ("hs", (Class::Unsigned, Compare::Ge)),
    ("equ", (Class::Float, Compare::Equ)),
    ("neu", (Class::Float, Compare::Neu)),
    ("ltu", (Class::Float, Compare::Ltu)),
    ("leu", (Class::Float, Compare::Leu)),
    ("gtu", (Class::Float, Compare::Gtu)),
    ("geu", (Class::Float, Compare::Geu)),
    ("num", (Class::Float, Compare::Num)),
    ("nan", (Class::Float, Compare::Nan)),
];

impl<'a> Decoder<'_, 'a> {
    /// `setp` and `set`.
    pub(super) fn compare(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let (class, how) = form.need(COMPARISONS)?;
        let join = form.one(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)]);
        let types = form.types();
        let (to, ty) = match (form.tree.name, &types[..]) {
            ("set", &[to, ty]) => (Some(to), ty),
            ("setp", &[ty]) => (None, ty),
            _ => return Err(form.fail("the type of what is compared")),
        };
        let fits = match ty {
            B16 | B32 | B64 => class == Class::Equal,
            U16 | U32 | U64 => class != Class::Float,
            S16 | S32 | S64 => matches!(class, Class::Equal | Class::Ordered),
            F32 | F64 | F16 | F16x2 | Bf16 | Bf16x2 => class != Class::Unsigned,
            _ => false,
        };
        form.check(fits, "a comparison of this type")?;
        let ftz = ty.is_float() && ty != F64 && !is_brain(ty) && form.flag("ftz");
        if is_brain(ty) {
            self.since(form, 90, (7, 8))?;
        }
        let count = 3 + usize::from(join.is_some());
        form.arity(count, count)?;
        let (a, b) = (self.src(form, 1, ty)?, self.src(form, 2, ty)?);
        let join = match join {
            Some(f) => Some((f, self.predicate(form, 3)?)),
            None => None,
        };
        if let Some(to) = to {
            let fits = match ty {
                F16 | Bf16 => matches!(to, U16 | S16 | U32 | S32) || to == ty,
                F16x2 | Bf16x2 => matches!(to, U32 | S32) || to == ty,
                _ => matches!(to, U32 | S32 | F32),
            };
            form.check(fits, "another type of the result")?;
            if is_half(ty) && to.is_integer() {
                self.since(form, 70, (6, 5))?;
            }
            let d = self.dst(form, 0, to)?;
            return Ok(Op::Set {
                how,
                ftz,
                to,
                ty,
                d,
                a,
                b,
                join,
            });
        }
        let operand = form.operand(0);
        let (p, q) = match operand.value {
            Value::Name(p, None) => (p, "_"),
            Value::Pair(p, q) if p != "_" || q != "_" => (p, q),
            _ => return Err(operand.expected("one or two predicates")),
        };
        let d = self.dst_or_sink(operand.span, p, Pred)?;
        if matches!(ty, F16x2 | Bf16x2) {
            let q = self.dst_or_sink(operand.span, q, Pred)?;
            return Ok(Op::SetpPacked {
                how,
                ftz,
                ty,
                d,
                q,
                a,
                b,
                join,
            });
        }
        let q = match q {
            "_" => None,
            q => Some(self.dst_name(operand.span, q, Pred)?),
        };
        Ok(Op::Setp {
            how,
            ftz,
            ty,
            d,
            q,
            a,
            b,
            join,
        })
    }

    /// `selp` and `slct`.
    pub(super) fn select(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let allowed = [&[B16, B32, B64, F32, F64], INTEGERS].concat();
        if form.tree.name == "selp" {
            let ty = form.ty(&allowed)?;
            form.arity(4, 4)?;
            let (a, b) = (self.src(form, 1, ty)?, self.src(form, 2, ty)?);
            let p = self.predicate(form, 3)?;
            let d = self.dst(form, 0, ty)?;
            return Ok(Op::Selp { ty, d, a, b, p });
        }
        let types = form.types();
        let &[ty, by @ (S32 | F32)] = &types[..] else {
            return Err(form.fail("a type, then S32 or F32"));
        };
        form.check(allowed.contains(&ty), "a type of 16 to 64 bits")?;
        let ftz = by == F32 && form.flag("ftz");
        op!(self, form, Slct { ty, by, ftz }, d: ty, a: ty, b: ty, c: by)
    }
}
