//! Scopes of names: registers, variables, labels.

use super::duplicate;
use crate::error::Result;
use crate::lexer::Span;
use crate::op::{Pc, Slot, Type};
use std::collections::HashMap;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Symbol<'a> {
    /// A register, and its slot once it is used.
    Register(Type, Option<Slot>),
    /// A variable by its index in the module.
    Variable(u16),
    /// A kernel.
    Entry,
    /// Labels of an indexed branch.
    Targets(&'a [&'a str]),
}

/// One pair of braces.
#[derive(Debug, Default)]
struct Scope<'a> {
    parent: usize,
    symbols: HashMap<&'a str, Symbol<'a>>,
    /// `name<count>` by name.
    ranges: HashMap<&'a str, (Type, u32)>,
    /// The least number behind each name that a declared name starts with.
    numbered: HashMap<&'a str, u32>,
    labels: HashMap<&'a str, Pc>,
}

/// All scopes of an entry, the outermost first.
#[derive(Debug)]
pub(super) struct Names<'m, 'a> {
    globals: &'m HashMap<&'a str, Symbol<'a>>,
    scopes: Vec<Scope<'a>>,
    current: usize,
}

impl<'m, 'a> Names<'m, 'a> {
    pub(super) fn new(globals: &'m HashMap<&'a str, Symbol<'a>>) -> Self {
        Self {
            globals,
            scopes: vec![Scope::default()],
            current: 0,
        }
    }

    pub(super) fn current(&self) -> usize {
        self.current
    }

    pub(super) fn open(&mut self) {
        self.scopes.push(Scope {
            parent: self.current,
            ..Scope::default()
        });
        self.current = self.scopes.len() - 1;
    }

    pub(super) fn close(&mut self) {
        self.current = self.scopes[self.current].parent;
    }

    pub(super) fn declare(&mut self, span: Span, name: &'a str, symbol: Symbol<'a>) -> Result<()> {
        let scope = &mut self.scopes[self.current];
        if scope.register_of_range(name).is_some()
            || scope.labels.contains_key(name)
            || scope.symbols.insert(name, symbol).is_some()
        {
            return Err(duplicate(span, name));
        }
        for split in splits(name) {
            if let Some(number) = number(name, split) {
                let least = scope.numbered.entry(&name[..split]).or_insert(number);
                *least = number.min(*least);
            }
        }
        Ok(())
    }

    pub(super) fn range(&mut self, span: Span, name: &'a str, ty: Type, count: u32) -> Result<()> {
        let scope = &mut self.scopes[self.current];
        let clash = scope.numbered.get(name).is_some_and(|&least| least < count);
        if clash || scope.ranges.insert(name, (ty, count)).is_some() {
            return Err(duplicate(span, name));
        }
        Ok(())
    }

    pub(super) fn label(&mut self, span: Span, name: &'a str, pc: Pc) -> Result<()> {
        let scope = &mut self.scopes[self.current];
        if scope.symbols.contains_key(name) || scope.labels.insert(name, pc).is_some() {
            return Err(duplicate(span, name));
        }
        Ok(())
    }

    /// The innermost symbol of this name, registers of ranges left out.
    pub(super) fn find(&self, name: &str) -> Option<Symbol<'a>> {
        let scoped = self
            .path(self.current)
            .find_map(|scope| self.scopes[scope].symbols.get(name));
        scoped.or_else(|| self.globals.get(name)).copied()
    }

    /// A register of this name.
    pub(super) fn register(&mut self, name: &'a str) -> Option<(Type, Option<Slot>)> {
        let found = self.path(self.current).find_map(|at| {
            let scope = &self.scopes[at];
            match scope.symbols.get(name) {
                Some(&symbol) => Some((at, symbol)),
                None => {
                    let ty = scope.register_of_range(name)?;
                    Some((at, Symbol::Register(ty, None)))
                }
            }
        });
        match found? {
            (_, Symbol::Register(ty, slot)) => Some((ty, slot)),
            _ => None,
        }
    }

    /// Gives the register of this name its slot.
    pub(super) fn set_slot(&mut self, name: &'a str, slot: Slot) {
        let at = self.path(self.current).find(|&at| {
            let scope = &self.scopes[at];
            scope.symbols.contains_key(name) || scope.register_of_range(name).is_some()
        });
        let scope = &mut self.scopes[at.unwrap_or(0)];
        let ty = match scope.symbols.get(name) {
            Some(&Symbol::Register(ty, _)) => Some(ty),
            _ => scope.register_of_range(name),
        };
        if let Some(ty) = ty {
            scope.symbols.insert(name, Symbol::Register(ty, Some(slot)));
        }
    }

    pub(super) fn find_label(&self, scope: usize, name: &str) -> Option<Pc> {
        self.path(scope)
            .find_map(|scope| self.scopes[scope].labels.get(name))
            .copied()
    }

    /// A scope and those around it.
    fn path(&self, scope: usize) -> impl Iterator<Item = usize> {
        let mut next = Some(scope);
        std::iter::from_fn(move || {
            let at = next?;
            next = (at != 0).then(|| self.scopes[at].parent);
            Some(at)
        })
    }
}

impl Scope<'_> {
    fn register_of_range(&self, name: &str) -> Option<Type> {
        splits(name).find_map(|split| {
            let &(ty, count) = self.ranges.get(&name[..split])?;
            number(name, split).filter(|&n| n < count).map(|_| ty)
        })
    }
}

/// Where a name can be cut before a number of at most ten digits.
fn splits(name: &str) -> impl Iterator<Item = usize> {
    let digits = name
        .bytes()
        .rev()
        .take(10)
        .take_while(u8::is_ascii_digit)
        .count();
    name.len() - digits..name.len()
}

/// The number behind the first `split` bytes of a name.
fn number(name: &str, split: usize) -> Option<u32> {
    name.get(split..)?.parse().ok()
}
