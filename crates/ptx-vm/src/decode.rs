//! From the tree to checked, dense instructions: names, types, variables, branch targets.

mod arithmetic;
mod compare;
mod convert;
mod flow;
mod form;
mod memory;
mod moves;
mod names;
mod warp;

use crate::ast;
use crate::error::Result;
use crate::lexer::Span;
use crate::module::{Constants, Entry, Module, Parameter, Pointer, Variable};
use crate::op::{File, Instruction, NEVER, Op, Operand, Pc, Predicate, Slot, Space, Type};
use crate::parse::limit;
use form::Form;
use names::{Names, Symbol};
use std::collections::{HashMap, HashSet};

/// The most bytes of initial values, and of parameters of an entry.
const DATA: u64 = 1 << 20;
const PARAMETERS: u64 = 32_764;

/// The most static shared memory of a kernel, in bytes.
const SHARED: u64 = 48 << 10;

/// The most registers of one file, and variables of a module.
const REGISTERS: u64 = 65_535;

/// Checks and decodes a file.
pub(crate) fn module(tree: &ast::Module<'_>) -> Result<Module> {
    let mut variables = Vec::new();
    let mut globals: HashMap<&str, Symbol<'_>> = HashMap::new();
    let mut entries: Vec<Entry> = Vec::new();
    let mut data = 0;
    for item in &tree.items {
        let (span, name) = match item {
            ast::Item::Variable(variable) => (variable.span, variable.name),
            ast::Item::Entry(entry) => (entry.span, entry.name),
        };
        if globals.contains_key(name) {
            return Err(duplicate(span, name));
        }
        match item {
            ast::Item::Variable(tree) => {
                let names = |name: &str| match globals.get(name) {
                    Some(&Symbol::Variable(at)) => Some(at),
                    _ => None,
                };
                let variable = self::variable(tree, names, &variables, &mut data)?;
                globals.insert(
                    name,
                    Symbol::Variable(push_variable(&mut variables, variable)?),
                );
            }
            ast::Item::Entry(entry) => {
                globals.insert(name, Symbol::Entry);
                let decoder = Decoder::new(tree, entry, &globals, &mut variables, &mut data)?;
                entries.push(decoder.entry()?);
            }
        }
    }
    Ok(Module {
        version: tree.version,
        target: tree.target,
        variables,
        entries,
    })
}

fn duplicate(span: Span, name: &str) -> crate::Error {
    span.expected("a new name", format!("`{name}` again"))
}

fn push_variable(variables: &mut Vec<Variable>, variable: Variable) -> Result<u16> {
    let at = variables.len();
    limit("variables of a module", REGISTERS, at as u64 + 1)?;
    variables.push(variable);
    Ok(at as u16)
}

/// Sizes a variable and encodes its initial values.
fn variable(
    tree: &ast::Variable<'_>,
    names: impl Fn(&str) -> Option<u16>,
    variables: &[Variable],
    total: &mut u64,
) -> Result<Variable> {
    let size = u64::from(tree.ty.bytes());
    let bytes = tree.elements.unwrap_or(0).saturating_mul(size);
    limit("bytes of a variable", 1 << 36, bytes)?;
    *total += tree.init.len() as u64 * size;
    limit("bytes of initial values", DATA, *total)?;
    if tree.init.len() as u64 * size > bytes {
        return Err(tree.span.expected(
            format!("initial values for {bytes} bytes"),
            tree.init.len().to_string(),
        ));
    }
    let (mut data, mut pointers) = (Vec::new(), Vec::new());
    for value in &tree.init {
        let bits = match value.value {
            ast::Value::Name(name, None) | ast::Value::Sum(name, _) | ast::Value::Generic(name) => {
                let of = names(name);
                let of = of.ok_or_else(|| value.expected("a variable"))?;
                if size != 8 || !tree.ty.is_integer() && !tree.ty.is_untyped() {
                    return Err(value.span.unsupported("address of other than 8 bytes"));
                }
                if !matches!(
                    variables[usize::from(of)].space,
                    Space::Global | Space::Const
                ) {
                    let what = "an initial address in other than global and constant memory";
                    return Err(value.span.unsupported(what));
                }
                pointers.push(Pointer {
                    at: data.len() as u64,
                    variable: of,
                    offset: match value.value {
                        ast::Value::Sum(_, offset) => offset,
                        _ => 0,
                    },
                });
                0
            }
            _ => form::constant(value, tree.ty)?,
        };
        data.extend_from_slice(&bits.to_le_bytes()[..size as usize]);
    }
    Ok(Variable {
        name: tree.name.to_owned(),
        space: tree.space,
        align: tree.align,
        bytes,
        offset: 0,
        data,
        pointers,
        dynamic: tree.space == Space::Shared && tree.elements.is_none(),
        line: tree.span.line,
    })
}

/// A branch whose label is not known yet.
struct Jump<'a> {
    at: usize,
    scope: usize,
    span: Span,
    labels: Vec<&'a str>,
}

/// One entry on its way.
struct Decoder<'m, 'a> {
    version: (u32, u32),
    target: u32,
    tree: &'a ast::Entry<'a>,
    names: Names<'m, 'a>,
    variables: &'m mut Vec<Variable>,
    data: &'m mut u64,
    entry: Entry,
    /// Constants already given a register.
    narrow: HashMap<u32, Slot>,
    wide: HashMap<u64, Slot>,
    truths: HashMap<bool, Slot>,
    /// The variables in `entry.variables`.
    used: HashSet<u16>,
    jumps: Vec<Jump<'a>>,
    /// The labels in `jumps`.
    targets: u64,
    reads: Vec<Operand>,
    writes: Vec<Operand>,
}

impl<'m, 'a> Decoder<'m, 'a> {
    fn new(
        module: &ast::Module<'_>,
        tree: &'a ast::Entry<'a>,
        globals: &'m HashMap<&'a str, Symbol<'a>>,
        variables: &'m mut Vec<Variable>,
        data: &'m mut u64,
    ) -> Result<Self> {
        let entry = Entry {
            name: tree.name.to_owned(),
            line: tree.span.line,
            parameters: Vec::new(),
            code: Vec::new(),
            operands: Vec::new(),
            narrow: Vec::new(),
            wide: Vec::new(),
            predicates: Vec::new(),
            constants: Constants::default(),
            variables: Vec::new(),
            max_threads: tree.max_threads,
            required_threads: tree.required_threads,
        };
        Ok(Self {
            version: module.version,
            target: module.target,
            tree,
            names: Names::new(globals),
            variables,
            data,
            entry,
            narrow: HashMap::new(),
            wide: HashMap::new(),
            truths: HashMap::new(),
            used: HashSet::new(),
            jumps: Vec::new(),
            targets: 0,
            reads: Vec::new(),
            writes: Vec::new(),
        })
    }

    fn entry(mut self) -> Result<Entry> {
        self.parameters()?;
        for statement in &self.tree.body {
            self.statement(statement)?;
        }
        // Code that runs off its end ends there.
        let line = self
            .entry
            .code
            .last()
            .map_or(self.entry.line, |last| last.line);
        self.push(Op::Exit, None, line)?;
        self.resolve()?;
        flow::join(&mut self.entry.code);
        self.check_shared()?;
        Ok(self.entry)
    }

    fn parameters(&mut self) -> Result<()> {
        let mut end = 0u64;
        for tree in &self.tree.parameters {
            let mut variable = variable(tree, |_| None, &[], self.data)?;
            let offset = end.next_multiple_of(u64::from(variable.align));
            end = offset.saturating_add(variable.bytes);
            limit("bytes of parameters", PARAMETERS, end)?;
            variable.offset = offset as u32;
            self.entry.parameters.push(Parameter {
                name: variable.name.clone(),
                ty: tree.ty,
                bytes: variable.bytes as u32,
                offset: variable.offset,
            });
            self.declare_variable(tree.span, tree.name, variable)?;
        }
        Ok(())
    }

    fn declare_variable(&mut self, span: Span, name: &'a str, variable: Variable) -> Result<()> {
        let at = push_variable(self.variables, variable)?;
        self.used.insert(at);
        self.entry.variables.push(at);
        self.names.declare(span, name, Symbol::Variable(at))
    }

    fn statement(&mut self, statement: &'a ast::Statement<'a>) -> Result<()> {
        match statement {
            ast::Statement::Open => self.names.open(),
            ast::Statement::Close => self.names.close(),
            ast::Statement::Label(span, name) => {
                self.names.label(*span, name, self.entry.code.len() as Pc)?;
            }
            ast::Statement::Targets(span, name, labels) => {
                self.names.declare(*span, name, Symbol::Targets(labels))?;
            }
            ast::Statement::Register {
                span,
                ty,
                name,
                count,
            } => match count {
                None => self
                    .names
                    .declare(*span, name, Symbol::Register(*ty, None))?,
                Some(count) => self.names.range(*span, name, *ty, *count)?,
            },
            ast::Statement::Variable(tree) => {
                let names = |name: &str| match self.names.find(name) {
                    Some(Symbol::Variable(at)) => Some(at),
                    _ => None,
                };
                let variable = variable(tree, names, self.variables, self.data)?;
                self.declare_variable(tree.span, tree.name, variable)?;
            }
            ast::Statement::Instruction(tree) => self.instruction(tree)?,
        }
        Ok(())
    }

    fn instruction(&mut self, tree: &'a ast::Instruction<'a>) -> Result<()> {
        let guard = match tree.guard {
            None => None,
            Some((span, name, negated)) => Some(Predicate {
                slot: self.predicate_register(span, name)?,
                negated,
            }),
        };
        let mut form = Form::new(tree);
        form.check_known()?;
        self.check_vectors(&form)?;
        let op = self.op(&mut form)?;
        form.finish()?;
        self.push(op, guard, tree.span.line)
    }

    /// Appends an instruction with the registers that were named since the last one.
    fn push(&mut self, op: Op, guard: Option<Predicate>, line: u32) -> Result<()> {
        let start = self.entry.operands.len() as u32;
        let middle = start + self.reads.len() as u32;
        let end = middle + self.writes.len() as u32;
        self.entry.operands.append(&mut self.reads);
        self.entry.operands.append(&mut self.writes);
        self.entry.code.push(Instruction {
            op,
            guard,
            line,
            reads: start..middle,
            writes: middle..end,
        });
        Ok(())
    }

    fn op(&mut self, form: &mut Form<'a>) -> Result<Op> {
        match form.tree.name {
            "mov" => self.mov(form),
            "cvt" => self.cvt(form),
            "setp" | "set" => self.compare(form),
            "selp" | "slct" => self.select(form),
            "ld" | "ldu" => self.load(form),
            "st" => self.store(form),
            "atom" | "red" => self.atomic(form),
            "cvta" | "isspacep" => self.spaces(form),
            "prefetch" | "prefetchu" | "createpolicy" => self.cache(form),
            "cp" => self.copy_async(form),
            "fence" | "membar" => self.fence(form),
            "shfl" | "vote" | "match" | "redux" | "activemask" => self.exchange(form),
            "bar" | "barrier" => self.barrier(form),
            "ldmatrix" | "movmatrix" | "mma" => self.matrix(form),
            "bra" | "brx" | "exit" | "ret" | "trap" | "nanosleep" | "pmevent" => self.flow(form),
            _ => self.arithmetic(form),
        }
    }

    /// An error unless target and version are high enough for what the instruction uses.
    fn since(&self, form: &Form<'_>, target: u32, version: (u32, u32)) -> Result<()> {
        let span = form.tree.span;
        if self.target < target {
            return Err(span.expected(
                format!("`.target sm_{target}` or higher for {}", form.tree.title()),
                format!("sm_{}", self.target),
            ));
        }
        if self.version < version {
            let ((a, b), (c, d)) = (version, self.version);
            return Err(span.expected(
                format!("`.version {a}.{b}` or later for {}", form.tree.title()),
                format!("{c}.{d}"),
            ));
        }
        Ok(())
    }

    /// A register, by its name.
    fn register(&mut self, name: &'a str) -> Result<Option<(Type, Operand)>> {
        let Some((ty, slot)) = self.names.register(name) else {
            return Ok(None);
        };
        let slot = match slot {
            Some(slot) => slot,
            None => {
                let slot = self.allot(ty.file(), name)?;
                self.names.set_slot(name, slot);
                slot
            }
        };
        Ok(Some((
            ty,
            Operand {
                file: ty.file(),
                slot,
            },
        )))
    }

    /// A new register of a file.
    fn allot(&mut self, file: File, name: &str) -> Result<Slot> {
        let names = match file {
            File::Narrow => &mut self.entry.narrow,
            File::Wide => &mut self.entry.wide,
            File::Predicate => &mut self.entry.predicates,
        };
        limit("registers of one file", REGISTERS, names.len() as u64 + 1)?;
        names.push(name.to_owned());
        Ok(Slot((names.len() - 1) as u16))
    }

    fn predicate_register(&mut self, span: Span, name: &'a str) -> Result<Slot> {
        match self.register(name)? {
            Some((Type::Pred, operand)) => Ok(operand.slot),
            _ => Err(span.expected("a predicate", format!("`{name}`"))),
        }
    }

    /// The register of a constant.
    fn constant(&mut self, file: File, bits: u64) -> Result<Slot> {
        let known = match file {
            File::Narrow => self.narrow.get(&(bits as u32)),
            File::Wide => self.wide.get(&bits),
            File::Predicate => self.truths.get(&(bits != 0)),
        };
        if let Some(&slot) = known {
            return Ok(slot);
        }
        let slot = self.allot(file, "")?;
        let constants = &mut self.entry.constants;
        match file {
            File::Narrow => {
                self.narrow.insert(bits as u32, slot);
                constants.narrow.push((slot, bits as u32));
            }
            File::Wide => {
                self.wide.insert(bits, slot);
                constants.wide.push((slot, bits));
            }
            File::Predicate => {
                self.truths.insert(bits != 0, slot);
                constants.predicates.push((slot, bits != 0));
            }
        }
        Ok(slot)
    }

    /// Puts targets into branches.
    fn resolve(&mut self) -> Result<()> {
        for jump in &self.jumps {
            let mut found = jump.labels.iter().map(|label| {
                self.names.find_label(jump.scope, label).ok_or_else(|| {
                    jump.span
                        .expected("a label of this kernel", format!("`{label}`"))
                })
            });
            match &mut self.entry.code[jump.at].op {
                Op::BrxIdx { targets, .. } => *targets = found.collect::<Result<_>>()?,
                Op::Bra { target, .. } => *target = found.next().unwrap_or(Ok(NEVER))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn check_shared(&self) -> Result<()> {
        let mut end = 0u64;
        for &at in &self.entry.variables {
            let variable = &self.variables[usize::from(at)];
            if variable.space == Space::Shared {
                end = end.next_multiple_of(u64::from(variable.align)) + variable.bytes;
            }
        }
        limit("bytes of static shared memory", SHARED, end)
    }

    /// Notes that the entry uses a variable of the module.
    fn use_variable(&mut self, at: u16) {
        let space = self.variables[usize::from(at)].space;
        if space == Space::Shared && self.used.insert(at) {
            self.entry.variables.push(at);
        }
    }
}
