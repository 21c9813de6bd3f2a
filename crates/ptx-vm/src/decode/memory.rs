//! Loads, stores, atomics, fences and asynchronous copies.

use super::Decoder;
use super::form::{Form, op};
use crate::ast::{Operand as Tree, Value};
use crate::error::Result;
use crate::op::{Address, Atomic, Op, Order, Scope, Slot, Space, Type};
use Type::*;

/// Types of memory.
const MEMORY: &[Type] = &[
    B8, B16, B32, B64, U8, U16, U32, U64, S8, S16, S32, S64, F32, F64,
];

const SPACES: [Space; 6] = [
    Space::Generic,
    Space::Global,
    Space::Shared,
    Space::Local,
    Space::Const,
    Space::Param,
];

const SCOPES: &[(&str, Scope)] = &[
    ("cta", Scope::Block),
    ("cluster", Scope::Cluster),
    ("gpu", Scope::Device),
    ("sys", Scope::System),
];

/// The untyped type of a width.
pub(super) fn untyped(bits: u32) -> Type {
    match bits {
        8 => B8,
        16 => B16,
        32 => B32,
        _ => B64,
    }
}

impl<'a> Decoder<'_, 'a> {
    /// The state space of a memory access, generic if none is named.
    fn space(&self, form: &mut Form<'_>, allowed: &[Space]) -> Result<Space> {
        let plain = form.one(&[
            ("global", Space::Global),
            ("shared", Space::Shared),
            ("local", Space::Local),
            ("const", Space::Const),
            ("param", Space::Param),
        ]);
        let space = match plain {
            Some(space) => space,
            None if form.flag("shared::cta") => {
                self.since(form, 70, (7, 8))?;
                Space::Shared
            }
            None if form.flag("param::entry") => {
                self.since(form, 70, (8, 3))?;
                Space::Param
            }
            None => Space::Generic,
        };
        form.check(
            allowed.contains(&space),
            &format!("a state space of {allowed:?}"),
        )?;
        Ok(space)
    }

    /// Ordering and scope of a load or store.
    fn order(
        &self,
        form: &mut Form<'_>,
        strong: (&str, Order),
        space: Space,
    ) -> Result<(Order, Scope)> {
        let order = form.one(&[
            ("weak", Order::Weak),
            ("volatile", Order::Volatile),
            ("relaxed", Order::Relaxed),
            strong,
        ]);
        let order = order.unwrap_or(Order::Weak);
        let shareable = order == Order::Weak || SPACES[..3].contains(&space);
        form.check(shareable, "generic, global or shared space")?;
        if matches!(order, Order::Weak | Order::Volatile) {
            return Ok((order, Scope::System));
        }
        Ok((order, self.scope(form)?))
    }

    fn scope(&self, form: &mut Form<'_>) -> Result<Scope> {
        let scope = form.need(SCOPES)?;
        if scope == Scope::Cluster {
            self.since(form, 90, (7, 8))?;
        }
        Ok(scope)
    }

    /// Takes cache hints, which change nothing here; the operands that they add.
    fn hints(
        &self,
        form: &mut Form<'_>,
        cache: &[&str],
        prefetch: bool,
        plain: bool,
    ) -> Result<usize> {
        let words: Vec<_> = cache.iter().map(|&word| (word, ())).collect();
        let cached = plain && form.one(&words).is_some();
        let level1 = form.one(&[
            ("L1::evict_normal", ()),
            ("L1::evict_unchanged", ()),
            ("L1::evict_first", ()),
            ("L1::evict_last", ()),
            ("L1::no_allocate", ()),
        ]);
        if level1.is_some() {
            self.since(form, 70, (7, 4))?;
            form.check(!cached, "one cache operator")?;
        }
        if prefetch
            && let Some(target) = form.one(&[("L2::64B", 75), ("L2::128B", 75), ("L2::256B", 80)])
        {
            self.since(form, target, (7, 4))?;
        }
        if form.flag("L2::cache_hint") {
            self.since(form, 80, (7, 4))?;
            return Ok(1);
        }
        Ok(0)
    }

    /// Checks the operand of a cache hint behind the others.
    fn hint_operand(&mut self, form: &Form<'a>, hints: usize) -> Result<()> {
        if hints > 0 {
            self.src(form, form.tree.operands.len() - 1, B64)?;
        }
        Ok(())
    }

    /// Elements of a memory access.
    fn elements(form: &mut Form<'_>, ty: Type) -> Result<usize> {
        let n = form.one(&[("v2", 2), ("v4", 4)]).unwrap_or(1);
        form.check(n * ty.bytes() as usize <= 16, "at most 16 bytes")?;
        Ok(n)
    }

    /// The operands of a vector access, or the one of a scalar access.
    fn list(form: &Form<'a>, at: usize, n: usize) -> Result<&'a [Tree<'a>]> {
        match n {
            1 if matches!(form.operand(at).value, Value::Vector(_)) => form.vector(at, 0),
            1 => Ok(std::slice::from_ref(form.operand(at))),
            n => form.vector(at, n),
        }
    }

    /// `ld`.
    pub(super) fn load(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let spaces = if form.tree.name == "ldu" { 2 } else { 6 };
        let mut space = self.space(form, &SPACES[..spaces])?;
        let (order, scope) = self.order(form, ("acquire", Order::Acquire), space)?;
        let noncoherent = form.flag("nc");
        form.check(
            !noncoherent || space == Space::Global && order == Order::Weak,
            "weak global loads",
        )?;
        let caches = if noncoherent {
            &["ca", "cg", "cs"][..]
        } else {
            &["ca", "cg", "cs", "lu", "cv"]
        };
        let hints = self.hints(form, caches, true, order == Order::Weak)?;
        let ty = form.ty(MEMORY)?;
        let n = Self::elements(form, ty)?;
        form.arity(2 + hints, 2 + hints)?;
        let address = self.address(form, 1, &mut space)?;
        self.hint_operand(form, hints)?;
        let (mut d, mut bits) = ([Slot(0); 4], 0);
        for (slot, part) in d.iter_mut().zip(Self::list(form, 0, n)?) {
            if n > 1 && matches!(part.value, Value::Name("_", None)) {
                *slot = Slot(u16::MAX);
                continue;
            }
            let (own, register) = self.dst_wider(part, ty)?;
            form.check(bits == 0 || bits == own.bits(), "registers of one width")?;
            (bits, *slot) = (own.bits(), register);
        }
        form.check(bits > 0, "a register to load into")?;
        for slot in &mut d[..n] {
            if *slot == Slot(u16::MAX) {
                *slot = self.allot(untyped(bits).file(), "")?;
            }
        }
        let (n, bits) = (n as u8, bits as u8);
        Ok(Op::Load {
            space,
            ty,
            n,
            bits,
            d,
            address,
            order,
            scope,
            noncoherent,
        })
    }

    /// `st`.
    pub(super) fn store(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let mut space = self.space(form, &SPACES[..4])?;
        let (order, scope) = self.order(form, ("release", Order::Release), space)?;
        let hints = self.hints(form, &["wb", "cg", "cs", "wt"], false, order == Order::Weak)?;
        let ty = form.ty(MEMORY)?;
        let n = Self::elements(form, ty)?;
        form.arity(2 + hints, 2 + hints)?;
        let address = self.address(form, 0, &mut space)?;
        form.check(
            space != Space::Const && space != Space::Param,
            "a space that can be written",
        )?;
        self.hint_operand(form, hints)?;
        let parts = Self::list(form, 1, n)?;
        // Constants have the width of the registers beside them.
        let mut bits = 0;
        for part in parts {
            if let Value::Name(name, None) = part.value
                && let Some((own, _)) = self.register(name)?
            {
                form.check(bits == 0 || bits == own.bits(), "registers of one width")?;
                bits = own.bits();
            }
        }
        let bits = if bits == 0 { ty.bits() } else { bits };
        let mut a = [Slot(0); 4];
        for (slot, part) in a.iter_mut().zip(parts) {
            *slot = match part.value {
                Value::Name(..) => self.src_wider(part, ty)?.1,
                _ => {
                    let value = super::form::constant(part, ty)?;
                    self.constant(untyped(bits).file(), value)?
                }
            };
        }
        let (n, bits) = (n as u8, bits as u8);
        Ok(Op::Store {
            space,
            ty,
            n,
            bits,
            a,
            address,
            order,
            scope,
        })
    }

    /// `atom` and `red`.
    pub(super) fn atomic(&mut self, form: &mut Form<'a>) -> Result<Op> {
        form.no_vectors()?;
        let red = form.tree.name == "red";
        let mut space = self.space(form, &SPACES[..3])?;
        let orders = [
            ("relaxed", Order::Relaxed),
            ("release", Order::Release),
            ("acquire", Order::Acquire),
            ("acq_rel", Order::AcqRel),
        ];
        let order = form
            .one(if red { &orders[..2] } else { &orders })
            .unwrap_or(Order::Relaxed);
        let scope = form.one(SCOPES).unwrap_or(Scope::Device);
        if scope == Scope::Cluster {
            self.since(form, 90, (7, 8))?;
        }
        let sums = &[U32, S32, U64, F32, F64, F16, F16x2, Bf16, Bf16x2];
        let functions: &[(&str, (Atomic, &[Type]))] = &[
            ("add", (Atomic::Add, sums)),
            ("min", (Atomic::Min, &[U32, S32, U64, S64])),
            ("max", (Atomic::Max, &[U32, S32, U64, S64])),
            ("inc", (Atomic::Inc, &[U32])),
            ("dec", (Atomic::Dec, &[U32])),
            ("and", (Atomic::And, &[B32, B64])),
            ("or", (Atomic::Or, &[B32, B64])),
            ("xor", (Atomic::Xor, &[B32, B64])),
            ("exch", (Atomic::Exch, &[B32, B64])),
            ("cas", (Atomic::Cas, &[B32, B64, B16])),
        ];
        let (f, types) = form.need(if red { &functions[..8] } else { functions })?;
        let ty = form.ty(types)?;
        match ty {
            F16 | F16x2 => {
                form.need(&[("noftz", ())])?;
                self.since(form, 70, if ty == F16 { (6, 3) } else { (6, 2) })?;
            }
            B16 => self.since(form, 70, (6, 3))?,
            Bf16 | Bf16x2 => {
                form.need(&[("noftz", ())])?;
                self.since(form, 90, (7, 8))?;
            }
            _ => {}
        }
        let hints = usize::from(form.flag("L2::cache_hint"));
        if hints > 0 {
            self.since(form, 80, (7, 4))?;
        }
        let first = usize::from(!red);
        let count = first + 2 + usize::from(f == Atomic::Cas) + hints;
        form.arity(count, count)?;
        let address = self.address(form, first, &mut space)?;
        form.check(SPACES[..3].contains(&space), "global or shared space")?;
        let b = self.src(form, first + 1, ty)?;
        let c = if f == Atomic::Cas {
            self.src(form, first + 2, ty)?
        } else {
            b
        };
        self.hint_operand(form, hints)?;
        let d = if red {
            None
        } else {
            self.dst_or_none(form, 0, ty)?
        };
        Ok(Op::Atomic {
            f,
            space,
            ty,
            d,
            address,
            b,
            c,
            order,
            scope,
        })
    }

    /// `cvta` and `isspacep`.
    pub(super) fn spaces(&mut self, form: &mut Form<'a>) -> Result<Op> {
        let back = form.tree.name == "cvta" && form.flag("to");
        let mut space = self.space(form, &SPACES[1..])?;
        if space == Space::Param {
            self.since(form, 70, (7, 7))?;
        }
        form.arity(2, 2)?;
        if form.tree.name == "isspacep" {
            let (wide, a) = match self.src(form, 1, U64) {
                Ok(a) => (true, a),
                Err(_) => (false, self.src(form, 1, U32)?),
            };
            let d = self.dst(form, 0, Pred)?;
            return Ok(Op::IsSpace { space, wide, d, a });
        }
        form.ty(&[U64])?;
        let operand = form.operand(1);
        let variable = match operand.value {
            Value::Name(name, None) if self.names.register(name).is_none() => Some((name, 0)),
            Value::Sum(name, offset) => Some((name, offset)),
            _ => None,
        };
        if let Value::Sum(name, _) = operand.value
            && (back || self.names.register(name).is_some())
        {
            return Err(operand.span.unsupported("cvta of a sum"));
        }
        if let (false, Some((name, offset))) = (back, variable) {
            let base = self.variable_of(operand.span, name, &mut space)?;
            let d = self.dst(form, 0, U64)?;
            let address = Address { base, offset };
            return Ok(Op::AddressOf {
                d,
                wide: true,
                address,
                space,
                generic: true,
            });
        }
        let wide = true;
        op!(self, form, Cvta { space, back, wide }, d: U64, a: U64)
    }

    /// `prefetch`, `prefetchu` and `createpolicy`.
    pub(super) fn cache(&mut self, form: &mut Form<'a>) -> Result<Op> {
        if form.tree.name == "createpolicy" {
            return self.policy(form);
        }
        let level = form.need(&[
            ("L1", false),
            ("L2", false),
            ("L2::evict_last", true),
            ("L2::evict_normal", true),
        ])?;
        let mut space = self.space(form, &[Space::Generic, Space::Global, Space::Local])?;
        if level {
            self.since(form, 80, (7, 4))?;
            form.check(space == Space::Global, "global space")?;
        }
        form.arity(1, 1)?;
        let address = self.address(form, 0, &mut space)?;
        Ok(match space {
            Space::Local => Op::Nop,
            _ => Op::Prefetch { address },
        })
    }

    /// A cache policy is a number that hints take and nothing else reads.
    fn policy(&mut self, form: &mut Form<'a>) -> Result<Op> {
        self.since(form, 80, (7, 4))?;
        form.need(&[("fractional", ())])?;
        let first = [
            ("L2::evict_last", ()),
            ("L2::evict_normal", ()),
            ("L2::evict_first", ()),
            ("L2::evict_unchanged", ()),
        ];
        form.need(&first)?;
        form.one(&[first[2], first[3]]);
        form.ty(&[B64])?;
        form.arity(1, 2)?;
        if form.tree.operands.len() > 1 {
            self.src(form, 1, F32)?;
        }
        let a = self.constant(B64.file(), 0)?;
        let d = self.dst(form, 0, B64)?;
        Ok(Op::Mov { ty: B64, d, a })
    }

    /// `fence` and `membar`.
    pub(super) fn fence(&mut self, form: &mut Form<'a>) -> Result<Op> {
        form.arity(0, 0)?;
        if form.tree.name == "membar" {
            let levels = [
                ("cta", Scope::Block),
                ("gl", Scope::Device),
                ("sys", Scope::System),
            ];
            let scope = form.need(&levels)?;
            return Ok(Op::Fence { sc: true, scope });
        }
        let sc = form
            .one(&[("sc", true), ("acq_rel", false)])
            .unwrap_or(false);
        let scope = self.scope(form)?;
        Ok(Op::Fence { sc, scope })
    }

    /// `cp.async`.
    pub(super) fn copy_async(&mut self, form: &mut Form<'a>) -> Result<Op> {
        form.need(&[("async", ())])?;
        self.since(form, 80, (7, 0))?;
        if form.flag("commit_group") {
            form.arity(0, 0)?;
            return Ok(Op::CpAsyncCommit);
        }
        if form.flag("wait_all") {
            form.arity(0, 0)?;
            return Ok(Op::CpAsyncWaitAll);
        }
        if form.flag("wait_group") {
            form.arity(1, 1)?;
            let operand = form.operand(0);
            let Value::Integer(groups) = operand.value else {
                return Err(operand.expected("a constant"));
            };
            let groups = groups.min(u32::MAX.into()) as u32;
            return Ok(Op::CpAsyncWait { groups });
        }
        let bypass = form.need(&[("ca", false), ("cg", true)])?;
        form.need(&[("global", ())])?;
        // Here the longer name of the space came with the instruction.
        let mut to = Space::Shared;
        form.need(&[("shared", ()), ("shared::cta", ())])?;
        let hints = self.hints(form, &[], true, false)?;
        form.arity(3 + hints, 4 + hints)?;
        let dst = self.address(form, 0, &mut to)?;
        let src = self.address(form, 1, &mut Space::Global.clone())?;
        let operand = form.operand(2);
        let bytes = match operand.value {
            Value::Integer(bytes @ (4 | 8 | 16)) if bytes == 16 || !bypass => bytes as u8,
            _ => {
                let expected = if bypass { "16" } else { "4, 8 or 16" };
                return Err(operand.expected(expected));
            }
        };
        let (mut src_bytes, mut ignore) = (None, None);
        if form.tree.operands.len() > 3 + hints {
            let operand = form.operand(3);
            let is_predicate = match operand.value {
                Value::Not(_) => true,
                Value::Name(name, None) => matches!(self.register(name)?, Some((Pred, _))),
                _ => false,
            };
            if is_predicate {
                self.since(form, 80, (7, 5))?;
                ignore = Some(self.predicate(form, 3)?);
            } else {
                if let Value::Integer(value) = operand.value
                    && value > u64::from(bytes)
                {
                    return Err(operand
                        .span
                        .expected(format!("at most {bytes}"), value.to_string()));
                }
                src_bytes = Some(self.src(form, 3, U32)?);
            }
        }
        self.hint_operand(form, hints)?;
        Ok(Op::CpAsync {
            bytes,
            dst,
            src,
            src_bytes,
            ignore,
        })
    }

    /// An address for `ldmatrix`.
    pub(super) fn matrix_address(&mut self, form: &mut Form<'a>) -> Result<(Address, Space)> {
        let mut space = self.space(form, &[Space::Generic, Space::Shared])?;
        // Assemblers take 32 bits of a generic address; what that means is not stated.
        if let (Space::Generic, Value::Address(Some(name), _)) = (space, &form.operand(1).value)
            && let Some((ty, _)) = self.register(name)?
            && (ty.is_integer() || ty.is_untyped())
            && ty.bits() < 64
        {
            return Err(form.tree.span.unsupported("a generic address of 32 bits"));
        }
        let address = self.address(form, 1, &mut space)?;
        form.check(space != Space::Global, "shared space")?;
        Ok((address, space))
    }
}
