//! What lanes of a warp and threads of a block do together.

use super::Decoder;
use super::form::Form;
use crate::ast::Value;
use crate::error::Result;
use crate::layout::Mma;
use crate::op::{Accumulator, Barrier, Integers, Logic, Op, Redux, Shuffle, Slot, Type, Vote};
use Type::*;

impl<'a> Decoder<'_, 'a> {
    /// `shfl`, `vote`, `match`, `redux`, `activemask`.
    pub(super) fn exchange(&mut self, form: &mut Form<'a>) -> Result<Op> {
        if form.tree.name == "activemask" {
            self.since(form, 70, (6, 2))?;
            form.ty(&[B32])?;
            form.arity(1, 1)?;
            let d = self.dst(form, 0, B32)?;
            return Ok(Op::ActiveMask { d });
        }
        if !form.flag("sync") {
            let before = self.version < (6, 4) && matches!(form.tree.name, "shfl" | "vote");
            form.check(before, "`.sync`")?;
            return Err(form.tree.span.unsupported(form.tree.title()));
        }
        match form.tree.name {
            "shfl" => self.shfl(form),
            "vote" => self.vote(form),
            "match" => self.matching(form),
            _ => self.redux(form),
        }
    }

    /// A result with a predicate beside it, `d|p`, or without.
    fn pair(&mut self, form: &Form<'a>, ty: Type) -> Result<(Slot, Option<Slot>)> {
        let operand = form.operand(0);
        let Value::Pair(d, p) = operand.value else {
            return Ok((self.dst(form, 0, ty)?, None));
        };
        let d = self.dst_or_sink(operand.span, d, ty)?;
        let p = match p {
            "_" => None,
            p => Some(self.dst_name(operand.span, p, Pred)?),
        };
        Ok((d, p))
    }

    fn shfl(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let how = form.need(&[
            ("up", Shuffle::Up),
            ("down", Shuffle::Down),
            ("bfly", Shuffle::Bfly),
            ("idx", Shuffle::Idx),
        ])?;
        form.ty(&[B32])?;
        form.arity(5, 5)?;
        let (a, b, c) = (
            self.src(form, 1, B32)?,
            self.src(form, 2, B32)?,
            self.src(form, 3, B32)?,
        );
        let mask = self.src(form, 4, B32)?;
        form.check(
            !matches!(form.operand(0).value, Value::Pair("_", _)),
            "a register for the result",
        )?;
        let (d, p) = self.pair(form, B32)?;
        Ok(Op::Shfl {
            how,
            d,
            p,
            a,
            b,
            c,
            mask,
        })
    }

    fn vote(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let how = form.need(&[
            ("all", Vote::All),
            ("any", Vote::Any),
            ("uni", Vote::Uni),
            ("ballot", Vote::Ballot),
        ])?;
        let to = if how == Vote::Ballot { B32 } else { Pred };
        form.ty(&[to])?;
        form.arity(3, 3)?;
        let a = self.predicate(form, 1)?;
        let mask = self.src(form, 2, U32)?;
        let d = self.dst(form, 0, to)?;
        Ok(Op::Vote { how, d, a, mask })
    }

    fn matching(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let all = form.need(&[("any", false), ("all", true)])?;
        let ty = form.ty(&[B32, B64])?;
        form.arity(3, 3)?;
        let a = self.src(form, 1, ty)?;
        let mask = self.src(form, 2, U32)?;
        let (d, p) = match all {
            true => self.pair(form, U32)?,
            false => (self.dst(form, 0, U32)?, None),
        };
        let wide = ty == B64;
        Ok(Op::Match {
            all,
            wide,
            d,
            p,
            a,
            mask,
        })
    }

    fn redux(&mut self, form: &mut Form<'a>) -> Result<Op> {
        self.since(form, 80, (7, 0))?;
        let numbers: &[Type] = &[U32, S32];
        let (how, types) = form.need(&[
            ("add", (Redux::Add, numbers)),
            ("min", (Redux::Min, numbers)),
            ("max", (Redux::Max, numbers)),
            ("and", (Redux::And, &[B32])),
            ("or", (Redux::Or, &[B32])),
            ("xor", (Redux::Xor, &[B32])),
        ])?;
        let ty = form.ty(types)?;
        form.arity(3, 3)?;
        let (a, mask) = (self.src(form, 1, ty)?, self.src(form, 2, U32)?);
        let d = self.dst(form, 0, ty)?;
        let signed = ty == S32;
        Ok(Op::Redux {
            how,
            signed,
            d,
            a,
            mask,
        })
    }

    /// `bar` and `barrier`.
    pub(super) fn barrier(&mut self, form: &mut Form<'a>) -> Result<Op> {
        if form.tree.name == "bar" && form.flag("warp") {
            form.need(&[("sync", ())])?;
            form.arity(1, 1)?;
            let mask = self.src(form, 0, U32)?;
            return Ok(Op::BarWarp { mask });
        }
        if form.flag("cluster") {
            return Err(form.tree.span.unsupported(form.tree.title()));
        }
        if form.flag("cta") {
            self.since(form, 70, (7, 8))?;
        }
        let aligned = form.tree.name == "bar" || form.flag("aligned");
        let kind = form.need(&[("sync", 0), ("arrive", 1), ("red", 2)])?;
        if kind == 2 {
            return self.barrier_reduce(form, aligned);
        }
        form.arity(1 + kind, 2)?;
        let (id, threads) = self.barrier_operands(form, 0, form.tree.operands.len() == 2)?;
        let f = if kind == 0 {
            Barrier::Sync
        } else {
            Barrier::Arrive
        };
        Ok(Op::Barrier {
            f,
            id,
            threads,
            aligned,
        })
    }

    fn barrier_operands(
        &mut self,
        form: &Form<'a>,
        at: usize,
        counted: bool,
    ) -> Result<(Slot, Option<Slot>)> {
        let operand = form.operand(at);
        if let Value::Integer(id) = operand.value
            && id > 15
        {
            return Err(operand
                .span
                .expected("a barrier from 0 to 15", id.to_string()));
        }
        let id = self.src(form, at, U32)?;
        if !counted {
            return Ok((id, None));
        }
        let operand = form.operand(at + 1);
        if let Value::Integer(threads) = operand.value
            && threads % 32 != 0
        {
            return Err(operand
                .span
                .expected("a multiple of 32", threads.to_string()));
        }
        Ok((id, Some(self.src(form, at + 1, U32)?)))
    }

    fn barrier_reduce(&mut self, form: &mut Form<'a>, aligned: bool) -> Result<Op> {
        let how = form.need(&[
            ("popc", None),
            ("and", Some(Logic::And)),
            ("or", Some(Logic::Or)),
        ])?;
        let to = if how.is_none() { U32 } else { Pred };
        form.ty(&[to])?;
        form.arity(3, 4)?;
        let count = form.tree.operands.len();
        let (id, threads) = self.barrier_operands(form, 1, count == 4)?;
        let a = self.predicate(form, count - 1)?;
        let d = self.dst(form, 0, to)?;
        let f = match how {
            None => Barrier::Popc { d, a },
            Some(f) => Barrier::Reduce { f, d, a },
        };
        Ok(Op::Barrier {
            f,
            id,
            threads,
            aligned,
        })
    }

    /// `ldmatrix`, `movmatrix`, `mma`.
    pub(super) fn matrix(&mut self, form: &mut Form<'a>) -> Result<Op> {
        form.need(&[("sync", ())])?;
        form.need(&[("aligned", ())])?;
        if form.tree.name == "mma" {
            return self.mma(form);
        }
        form.need(&[("m8n8", ())])?;
        form.ty(&[B16])?;
        form.arity(2, 2)?;
        if form.tree.name == "movmatrix" {
            self.since(form, 75, (7, 8))?;
            form.need(&[("trans", ())])?;
            let a = self.src(form, 1, B32)?;
            let d = self.dst(form, 0, B32)?;
            return Ok(Op::Movmatrix { d, a });
        }
        self.since(form, 75, (6, 5))?;
        let n = form.need(&[("x1", 1), ("x2", 2), ("x4", 4)])?;
        let trans = form.flag("trans");
        let (address, space) = self.matrix_address(form)?;
        let mut d = [Slot(0); 4];
        for (slot, part) in d.iter_mut().zip(form.vector(0, n)?) {
            let Value::Name(name, None) = part.value else {
                return Err(part.expected("a register"));
            };
            *slot = self.dst_name(part.span, name, B32)?;
        }
        let n = n as u8;
        Ok(Op::Ldmatrix {
            n,
            trans,
            d,
            address,
            space,
        })
    }

    fn mma(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let shape = form.need(&[
            ("m16n8k4", 4),
            ("m16n8k8", 8),
            ("m16n8k16", 16),
            ("m16n8k32", 32),
            ("m16n8k64", 64),
        ])?;
        let layouts = [("row", "row"), ("col", "col")];
        let layouts = (form.need(&layouts)?, form.need(&layouts)?);
        form.check(layouts == ("row", "col"), "`.row.col`")?;
        let mut words = [""; 4];
        for word in &mut words {
            *word = form.need(ELEMENTS)?;
        }
        let shape = match (shape, words[1]) {
            (4, "tf32") => Mma::M16n8k4Tf32,
            (8, "tf32") => Mma::M16n8k8Tf32,
            (8, "f16") => Mma::M16n8k8F16,
            (16, "f16") => Mma::M16n8k16F16,
            (8, "bf16") => Mma::M16n8k8Bf16,
            (16, "bf16") => Mma::M16n8k16Bf16,
            (16, "s8" | "u8") => Mma::M16n8k16S8,
            (32, "s8" | "u8") => Mma::M16n8k32S8,
            (32, "s4" | "u4") => Mma::M16n8k32S4,
            (64, "s4" | "u4") => Mma::M16n8k64S4,
            _ => return Err(form.fail("a shape of these elements")),
        };
        let (element, accumulator, sum) = match words {
            ["f32", "f16", "f16", "f32"] => (F16x2, Accumulator::F32, F32),
            ["f16", "f16", "f16", "f16"] => (F16x2, Accumulator::F16, F16x2),
            ["f32", "bf16", "bf16", "f32"] => (Bf16x2, Accumulator::F32, F32),
            ["f32", "tf32", "tf32", "f32"] => (Tf32, Accumulator::F32, F32),
            ["s32", a, b, "s32"] if a.len() == 2 && a[1..] == b[1..] => {
                let integers = Integers {
                    a_signed: a.starts_with('s'),
                    b_signed: b.starts_with('s'),
                    satfinite: form.flag("satfinite"),
                };
                (B32, Accumulator::S32(integers), S32)
            }
            _ => return Err(form.fail("types of a matrix product")),
        };
        match shape {
            Mma::M16n8k8F16 => self.since(form, 75, (6, 5))?,
            _ => self.since(form, 80, (7, 0))?,
        }
        form.arity(4, 4)?;
        let sums = if accumulator == Accumulator::F16 {
            2
        } else {
            4
        };
        let (mut d, mut a, mut b, mut c) = ([Slot(0); 4], [Slot(0); 4], [Slot(0); 2], [Slot(0); 4]);
        self.fragment(form, 1, shape.a_registers(), element, &mut a)?;
        self.fragment(form, 2, shape.b_registers(), element, &mut b)?;
        self.fragment(form, 3, sums, sum, &mut c)?;
        for (slot, part) in d.iter_mut().zip(form.vector(0, sums)?) {
            let Value::Name(name, None) = part.value else {
                return Err(part.expected("a register"));
            };
            *slot = self.dst_name(part.span, name, sum)?;
        }
        Ok(Op::Mma {
            shape,
            accumulator,
            d,
            a,
            b,
            c,
        })
    }

    fn fragment(
        &mut self,
        form: &Form<'a>,
        at: usize,
        count: usize,
        ty: Type,
        slots: &mut [Slot],
    ) -> Result<()> {
        for (slot, part) in slots.iter_mut().zip(form.vector(at, count)?) {
            if ty == Tf32 && !matches!(part.value, Value::Name(..)) {
                return Err(part.span.unsupported("a constant in a fragment of tf32"));
            }
            *slot = self.element(part, ty)?;
        }
        Ok(())
    }
}

/// Element types of matrices.
const ELEMENTS: &[(&str, &str)] = &[
    ("f16", "f16"),
    ("bf16", "bf16"),
    ("tf32", "tf32"),
    ("f32", "f32"),
    ("s32", "s32"),
    ("s8", "s8"),
    ("u8", "u8"),
    ("s4", "s4"),
    ("u4", "u4"),
];
