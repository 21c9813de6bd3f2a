//! The text as a tree, before names and types mean anything.

use crate::error::Error;
use crate::lexer::Span;
use crate::op::{Space, Type};

/// A file.
#[derive(Debug)]
pub(crate) struct Module<'a> {
    pub(crate) version: (u32, u32),
    pub(crate) target: u32,
    pub(crate) items: Vec<Item<'a>>,
}

/// What a file holds.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    Variable(Variable<'a>),
    Entry(Entry<'a>),
}

/// A kernel.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) span: Span,
    pub(crate) name: &'a str,
    pub(crate) parameters: Vec<Variable<'a>>,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required_threads: Option<[u32; 3]>,
    pub(crate) body: Vec<Statement<'a>>,
}

/// A variable or parameter.
#[derive(Debug)]
pub(crate) struct Variable<'a> {
    pub(crate) span: Span,
    pub(crate) space: Space,
    pub(crate) align: u32,
    pub(crate) ty: Type,
    pub(crate) name: &'a str,
    /// Elements of `ty`; none if the size is left open.
    pub(crate) elements: Option<u64>,
    pub(crate) init: Vec<Operand<'a>>,
}

/// A line of a kernel.
#[derive(Debug)]
pub(crate) enum Statement<'a> {
    /// `{`
    Open,
    /// `}`
    Close,
    Label(Span, &'a str),
    /// `name: .branchtargets a, b;`
    Targets(Span, &'a str, Vec<&'a str>),
    Register {
        span: Span,
        ty: Type,
        name: &'a str,
        /// Of `name<count>`.
        count: Option<u32>,
    },
    Variable(Variable<'a>),
    Instruction(Instruction<'a>),
}

/// An instruction.
#[derive(Debug)]
pub(crate) struct Instruction<'a> {
    pub(crate) span: Span,
    /// `@p`, and whether negated.
    pub(crate) guard: Option<(Span, &'a str, bool)>,
    pub(crate) name: &'a str,
    pub(crate) modifiers: Vec<&'a str>,
    pub(crate) operands: Vec<Operand<'a>>,
}

impl Instruction<'_> {
    /// Mnemonic and modifiers, for messages.
    pub(crate) fn title(&self) -> String {
        self.modifiers
            .iter()
            .fold(self.name.to_owned(), |title, word| title + "." + word)
    }
}

/// An operand.
#[derive(Debug)]
pub(crate) struct Operand<'a> {
    pub(crate) span: Span,
    pub(crate) value: Value<'a>,
}

impl Operand<'_> {
    /// An error about this operand.
    pub(crate) fn expected(&self, expected: impl Into<String>) -> Error {
        self.span.expected(expected, self.value.describe())
    }
}

/// What an operand is.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    /// A name, with `.x` if it has a member.
    Name(&'a str, Option<&'a str>),
    /// `!name`
    Not(&'a str),
    /// `name + offset`
    Sum(&'a str, i64),
    Integer(u64),
    /// Bits of an f32.
    Single(u32),
    /// Bits of an f64.
    Double(u64),
    /// `[name + offset]`, `[name]` or `[offset]`.
    Address(Option<&'a str>, i64),
    /// `{a, …}`
    Vector(Vec<Operand<'a>>),
    /// `a|b`
    Pair(&'a str, &'a str),
    /// `generic(name)` among initial values.
    Generic(&'a str),
}

impl Value<'_> {
    /// The operand as messages quote it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Name(name, None) | Self::Generic(name) => format!("`{name}`"),
            Self::Name(name, Some(member)) => format!("`{name}.{member}`"),
            Self::Not(name) => format!("`!{name}`"),
            Self::Sum(name, offset) => format!("`{name} + {offset}`"),
            Self::Integer(value) => format!("the integer {value}"),
            Self::Single(bits) => format!("the f32 {}", f32::from_bits(*bits)),
            Self::Double(bits) => format!("the number {}", f64::from_bits(*bits)),
            Self::Address(..) => "an address".to_owned(),
            Self::Vector(parts) => format!("a vector of {}", parts.len()),
            Self::Pair(a, b) => format!("`{a}|{b}`"),
        }
    }
}
