//! An instruction's modifiers and operands, taken one by one.

use super::Decoder;
use crate::ast::{self, Value};
use crate::error::{Error, Result};
use crate::lexer::Span;
use crate::op::{Address, Base, File, Operand, Predicate, Slot, Space, Type};
use crate::parse;

/// Decodes an instruction whose operands are a result and then what is read, each of a type: checks their number, looks them up
/// and puts them behind the fields that are given.
macro_rules! op {
    ($self:ident, $form:ident, $op:ident { $($field:ident),* }, $d:ident: $to:expr $(, $s:ident: $ty:expr)*) => {{
        let count = 1 + [$(stringify!($s)),*].len();
        $form.arity(count, count)?;
        let mut at = 0..count;
        at.next();
        $(let $s = $self.src($form, at.next().unwrap_or(0), $ty)?;)*
        let $d = $self.dst($form, 0, $to)?;
        Ok(Op::$op { $($field,)* $d $(, $s)* })
    }};
}
pub(super) use op;

/// Modifiers come in any order; each is taken once, and one that is left is an error.
pub(super) struct Form<'a> {
    pub(super) tree: &'a ast::Instruction<'a>,
    taken: u32,
}

impl<'a> Form<'a> {
    pub(super) fn new(tree: &'a ast::Instruction<'a>) -> Self {
        Self { tree, taken: 0 }
    }

    /// Takes a modifier.
    pub(super) fn flag(&mut self, word: &str) -> bool {
        self.one(&[(word, ())]).is_some()
    }

    /// Takes the first modifier that the table knows.
    pub(super) fn one<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        for (at, word) in self.tree.modifiers.iter().enumerate() {
            if self.taken >> at & 1 == 0
                && let Some(&(_, value)) = table.iter().find(|(name, _)| name == word)
            {
                self.taken |= 1 << at;
                return Some(value);
            }
        }
        None
    }

    /// Takes a modifier that must be there.
    pub(super) fn need<T: Copy>(&mut self, table: &[(&str, T)]) -> Result<T> {
        self.one(table).ok_or_else(|| {
            let words: Vec<_> = table.iter().map(|(word, _)| format!("`.{word}`")).collect();
            self.fail(words.join(" or "))
        })
    }

    /// An error if there is `.v2` or `.v4`.
    pub(super) fn no_vectors(&self) -> Result<()> {
        let at = self
            .tree
            .modifiers
            .iter()
            .position(|word| matches!(*word, "v2" | "v4"));
        at.map_or(Ok(()), |at| Err(self.unsupported(at)))
    }

    /// Takes all types.
    pub(super) fn types(&mut self) -> Vec<Type> {
        let mut types = Vec::new();
        for (at, word) in self.tree.modifiers.iter().enumerate() {
            if self.taken >> at & 1 == 0
                && let Some(ty) = parse::scalar(word)
            {
                self.taken |= 1 << at;
                types.push(ty);
            }
        }
        types
    }

    /// Takes the one type, one of these.
    pub(super) fn ty(&mut self, allowed: &[Type]) -> Result<Type> {
        match self.types()[..] {
            [ty] if allowed.contains(&ty) => Ok(ty),
            _ => Err(self.fail(format!("a type of {allowed:?}"))),
        }
    }

    /// An error about the instruction as a whole.
    pub(super) fn fail(&self, expected: impl Into<String>) -> Error {
        self.tree.span.expected(expected, self.tree.title())
    }

    /// An error unless the condition holds.
    pub(super) fn check(&self, holds: bool, expected: &str) -> Result<()> {
        if holds {
            Ok(())
        } else {
            Err(self.fail(expected))
        }
    }

    /// An error if there is a modifier that no instruction here has.
    pub(super) fn check_known(&self) -> Result<()> {
        let known = |word: &&str| {
            parse::scalar(word).is_some() || KNOWN.split(' ').any(|known| known == *word)
        };
        let types = self
            .tree
            .modifiers
            .iter()
            .filter(|word| parse::scalar(word).is_some());
        // Assemblers overlook `.pred` beside another type.
        let spare = |word: &&str| *word == "pred" && types.clone().count() > 1;
        match self
            .tree
            .modifiers
            .iter()
            .position(|word| !known(word) || spare(word))
        {
            Some(at) => Err(self.unsupported(at)),
            None => Ok(()),
        }
    }

    fn unsupported(&self, modifier: usize) -> Error {
        let word = self.tree.modifiers[modifier];
        self.tree
            .span
            .unsupported(format!("modifier .{word} of {}", self.tree.title()))
    }

    /// An error if modifiers are left.
    pub(super) fn finish(&self) -> Result<()> {
        let left = (0..self.tree.modifiers.len()).find(|at| self.taken >> at & 1 == 0);
        match left {
            None => Ok(()),
            Some(at) => Err(self.unsupported(at)),
        }
    }

    /// Checks the number of operands.
    pub(super) fn arity(&self, least: usize, most: usize) -> Result<()> {
        let found = self.tree.operands.len();
        if (least..=most).contains(&found) {
            return Ok(());
        }
        let count = if least == most {
            least.to_string()
        } else {
            format!("{least} to {most}")
        };
        Err(self.tree.span.expected(
            format!("{count} operands of {}", self.tree.title()),
            found.to_string(),
        ))
    }

    pub(super) fn operand(&self, at: usize) -> &'a ast::Operand<'a> {
        &self.tree.operands[at]
    }

    /// The elements of a vector operand of this length.
    pub(super) fn vector(&self, at: usize, length: usize) -> Result<&'a [ast::Operand<'a>]> {
        match &self.operand(at).value {
            Value::Vector(parts) if parts.len() == length => Ok(parts),
            other => Err(self
                .operand(at)
                .span
                .expected(format!("a vector of {length}"), other.describe())),
        }
    }
}

/// All modifiers that are no types.
const KNOWN: &str = "rn rz rm rp rna rni rzi rmi rpi ftz sat satfinite relu approx full cc lo hi wide NaN xorsign abs \
    and or xor not eq ne lt le gt ge ls hs equ neu ltu leu gtu geu num nan finite infinite number notanumber normal subnormal \
    wrap clamp shiftamt l r f4e b4e rc8 ecl ecr rc16 pack to global shared shared::cta local const param param::entry \
    weak volatile relaxed acquire release acq_rel sc cta cluster gpu gl sys nc ca cg cs lu cv wb wt v2 v4 \
    L1 L2 L1::evict_normal L1::evict_unchanged L1::evict_first L1::evict_last L1::no_allocate L2::64B L2::128B L2::256B \
    L2::cache_hint L2::evict_last L2::evict_normal L2::evict_first L2::evict_unchanged fractional \
    add min max inc dec exch cas noftz async commit_group wait_group wait_all sync aligned up down bfly idx all any uni ballot \
    popc warp arrive red mask m8n8 x1 x2 x4 trans m16n8k4 m16n8k8 m16n8k16 m16n8k32 m16n8k64 row col s4 u4";

/// Whether a register of a type can be the operand of an instruction of a type.
fn fits(register: Type, ty: Type) -> bool {
    register.bits() == ty.bits() && kinds_fit(register, ty)
}

/// Whether the kinds agree, apart from width.
fn kinds_fit(register: Type, ty: Type) -> bool {
    match ty {
        Type::Bf16 | Type::Bf16x2 | Type::Tf32 | Type::E4m3x2 | Type::E5m2x2 => {
            register.is_untyped()
        }
        _ => {
            register == ty
                || register.is_integer() && ty.is_integer()
                || register != Type::Pred
                    && ty != Type::Pred
                    && (register.is_untyped() || ty.is_untyped())
        }
    }
}

/// The same for the operands of loads, stores and conversions, whose registers may be wider.
fn fits_wider(register: Type, ty: Type) -> bool {
    register.bits() >= ty.bits() && kinds_fit(register, ty)
}

/// The bits of a constant as a type.
pub(super) fn constant(operand: &ast::Operand<'_>, ty: Type) -> Result<u64> {
    let bits = match (&operand.value, ty) {
        (&Value::Integer(value), _) if ty.is_integer() || ty.is_untyped() => Some(value),
        (&Value::Integer(value), Type::Pred) => Some(u64::from(value != 0)),
        (&Value::Single(bits), Type::F32 | Type::B32) => Some(bits.into()),
        (&Value::Single(bits), Type::F64) => Some(f64::from(f32::from_bits(bits)).to_bits()),
        (&Value::Double(bits), Type::F64 | Type::B64) => Some(bits),
        (&Value::Double(bits), Type::F32) => Some((f64::from_bits(bits) as f32).to_bits().into()),
        _ => None,
    };
    let bits = bits.ok_or_else(|| operand.expected(format!("an operand of type {ty:?}")))?;
    Ok(match ty.bits() {
        64 => bits,
        width => bits & ((1 << width) - 1),
    })
}

impl<'a> Decoder<'_, 'a> {
    /// Checks that the elements of each vector are of one kind: integers or one floating-point type, with untyped ones among them.
    pub(super) fn check_vectors(&mut self, form: &Form<'a>) -> Result<()> {
        for operand in &form.tree.operands {
            let Value::Vector(parts) = &operand.value else {
                continue;
            };
            let mut kind = None;
            for part in parts {
                let own = match part.value {
                    Value::Name(name, None) => self.names.register(name).map(|(ty, _)| ty),
                    Value::Integer(_) => Some(Type::S64),
                    Value::Single(_) | Value::Double(_) => Some(Type::F32),
                    _ => None,
                };
                let Some(own) = own.filter(|own| !own.is_untyped()) else {
                    continue;
                };
                if own == Type::Pred {
                    return Err(part.span.unsupported("a predicate in a vector"));
                }
                let kind = *kind.get_or_insert(own);
                if kind != own && !(kind.is_integer() && own.is_integer()) {
                    return Err(part.expected(format!("an element of type {kind:?}")));
                }
            }
        }
        Ok(())
    }

    /// A register or constant that is read.
    pub(super) fn src(&mut self, form: &Form<'a>, at: usize, ty: Type) -> Result<Slot> {
        self.source(form.operand(at), ty, fits)
            .map(|(_, slot)| slot)
    }

    /// A register, at least as wide as the type, or constant that is read, and its own type.
    pub(super) fn src_wider(
        &mut self,
        operand: &'a ast::Operand<'a>,
        ty: Type,
    ) -> Result<(Type, Slot)> {
        self.source(operand, ty, fits_wider)
    }

    /// A register or constant that is read.
    pub(super) fn element(&mut self, operand: &'a ast::Operand<'a>, ty: Type) -> Result<Slot> {
        self.source(operand, ty, fits).map(|(_, slot)| slot)
    }

    fn source(
        &mut self,
        operand: &'a ast::Operand<'a>,
        ty: Type,
        fits: fn(Type, Type) -> bool,
    ) -> Result<(Type, Slot)> {
        if let Value::Name(name, None) = operand.value {
            return match self.register(name)? {
                Some((own, register)) if fits(own, ty) => {
                    self.reads.push(register);
                    Ok((own, register.slot))
                }
                found => Err(mismatch(operand, ty, found)),
            };
        }
        let bits = constant(operand, ty)?;
        Ok((ty, self.constant(ty.file(), bits)?))
    }

    /// A register that is written.
    pub(super) fn dst(&mut self, form: &Form<'a>, at: usize, ty: Type) -> Result<Slot> {
        let operand = form.operand(at);
        match operand.value {
            Value::Name(name, None) => self.dst_name(operand.span, name, ty),
            _ => Err(operand.expected("a register for the result")),
        }
    }

    /// A register that is written, by name; `_` is not one.
    pub(super) fn dst_name(&mut self, span: Span, name: &'a str, ty: Type) -> Result<Slot> {
        match self.register(name)? {
            Some((own, register)) if fits(own, ty) => {
                self.writes.push(register);
                Ok(register.slot)
            }
            Some((own, _)) => Err(span.expected(
                format!("a register of type {ty:?}"),
                format!("`{name}` of type {own:?}"),
            )),
            None => Err(span.expected(format!("a register of type {ty:?}"), format!("`{name}`"))),
        }
    }

    /// A register that is written, at least as wide as the type, and its own type.
    pub(super) fn dst_wider(
        &mut self,
        operand: &'a ast::Operand<'a>,
        ty: Type,
    ) -> Result<(Type, Slot)> {
        if let Value::Name(name, None) = operand.value {
            match self.register(name)? {
                Some((own, register)) if fits_wider(own, ty) => {
                    self.writes.push(register);
                    return Ok((own, register.slot));
                }
                found => return Err(mismatch(operand, ty, found)),
            }
        }
        Err(operand.expected("a register for the result"))
    }

    /// A register that is written, or `_`, for which a scratch register stands.
    pub(super) fn dst_or_sink(&mut self, span: Span, name: &'a str, ty: Type) -> Result<Slot> {
        match name {
            "_" => self.allot(ty.file(), ""),
            _ => self.dst_name(span, name, ty),
        }
    }

    /// A register whose result may be discarded with `_`.
    pub(super) fn dst_or_none(
        &mut self,
        form: &Form<'a>,
        at: usize,
        ty: Type,
    ) -> Result<Option<Slot>> {
        match form.operand(at).value {
            Value::Name("_", None) => Ok(None),
            _ => self.dst(form, at, ty).map(Some),
        }
    }

    /// A predicate that is read: `p`, `!p` or a constant.
    pub(super) fn predicate(&mut self, form: &Form<'a>, at: usize) -> Result<Predicate> {
        let operand = form.operand(at);
        let (name, negated) = match operand.value {
            Value::Name(name, None) => (name, false),
            Value::Not(name) => (name, true),
            _ => {
                let slot = self.element(operand, Type::Pred)?;
                return Ok(Predicate {
                    slot,
                    negated: false,
                });
            }
        };
        let slot = self.predicate_register(operand.span, name)?;
        self.reads.push(Operand {
            file: File::Predicate,
            slot,
        });
        Ok(Predicate { slot, negated })
    }

    /// An address in a state space. A variable moves a generic access into its own space.
    pub(super) fn address(
        &mut self,
        form: &Form<'a>,
        at: usize,
        space: &mut Space,
    ) -> Result<Address> {
        let operand = form.operand(at);
        let Value::Address(name, offset) = operand.value else {
            return Err(operand.expected("an address"));
        };
        let Some(name) = name else {
            if *space == Space::Local {
                return Ok(Address {
                    base: Base::Zero,
                    offset,
                });
            }
            return Err(operand
                .span
                .expected("a register or variable", "a constant address"));
        };
        if let Some((ty, register)) = self.register(name)? {
            if !ty.is_integer() && !ty.is_untyped() {
                return Err(operand.span.expected(
                    "an address of an integer type",
                    format!("`{name}` of type {ty:?}"),
                ));
            }
            self.reads.push(register);
            let base = match register.file {
                File::Wide => Base::Wide(register.slot),
                _ if matches!(space, Space::Generic | Space::Global) => {
                    return Err(operand
                        .span
                        .expected("an address of 64 bits", format!("`{name}` of type {ty:?}")));
                }
                _ => Base::Narrow(register.slot),
            };
            return Ok(Address { base, offset });
        }
        let generic = *space == Space::Generic;
        let base = self.variable_of(operand.span, name, space)?;
        if generic && matches!(space, Space::Const | Space::Param) {
            return Err(operand
                .span
                .expected("the state space of the variable", form.tree.title()));
        }
        Ok(Address { base, offset })
    }

    /// A variable, which lies in this space.
    pub(super) fn variable_of(
        &mut self,
        span: Span,
        name: &'a str,
        space: &mut Space,
    ) -> Result<Base> {
        let Some(super::Symbol::Variable(at)) = self.names.find(name) else {
            return Err(span.expected("a register or variable", format!("`{name}`")));
        };
        let own = self.variables[usize::from(at)].space;
        if *space != Space::Generic && *space != own {
            return Err(span.expected(
                format!("a variable in {space:?} space"),
                format!("`{name}` in {own:?} space"),
            ));
        }
        *space = own;
        self.use_variable(at);
        Ok(Base::Variable(at))
    }
}

fn mismatch(operand: &ast::Operand<'_>, ty: Type, found: Option<(Type, Operand)>) -> Error {
    let found = match found {
        Some((own, _)) => format!("{} of type {own:?}", operand.value.describe()),
        None => format!("{}, no register", operand.value.describe()),
    };
    operand
        .span
        .expected(format!("an operand of type {ty:?}"), found)
}
