//! Branches, and where the paths behind them meet again.

use super::form::Form;
use super::{Decoder, Jump, Symbol};
use crate::ast::Value;
use crate::error::Result;
use crate::op::{Instruction, NEVER, Op, Pc, Type};
use crate::parse::limit;

/// The most targets of all branches of a kernel. Indexed branches can share a list, so its length does not bound them.
const TARGETS: u64 = 1 << 20;

impl<'a> Decoder<'_, 'a> {
    /// `bra`, `brx`, `exit`, `ret`, `trap`, and what has no effect here.
    pub(super) fn flow(&mut self, form: &mut Form<'a>) -> Result<Op> {
        match form.tree.name {
            "bra" => {
                form.flag("uni");
                form.arity(1, 1)?;
                let operand = form.operand(0);
                let Value::Name(label, None) = operand.value else {
                    return Err(operand.expected("a label"));
                };
                self.jump(form, vec![label])?;
                Ok(Op::Bra {
                    target: NEVER,
                    meet: NEVER,
                })
            }
            "brx" => {
                form.need(&[("idx", ())])?;
                form.flag("uni");
                form.arity(2, 2)?;
                let index = self.src(form, 0, Type::U32)?;
                let operand = form.operand(1);
                let labels = match operand.value {
                    Value::Name(name, None) => self.names.find(name),
                    _ => None,
                };
                let Some(Symbol::Targets(labels)) = labels else {
                    return Err(operand.expected("the name of `.branchtargets`"));
                };
                self.jump(form, labels.to_vec())?;
                let targets = Box::default();
                Ok(Op::BrxIdx {
                    index,
                    targets,
                    meet: NEVER,
                })
            }
            "ret" => {
                form.flag("uni");
                form.arity(0, 0)?;
                Ok(Op::Exit)
            }
            "exit" => form.arity(0, 0).map(|()| Op::Exit),
            "trap" => form.arity(0, 0).map(|()| Op::Trap),
            "nanosleep" => {
                self.since(form, 70, (6, 2))?;
                form.ty(&[Type::U32])?;
                form.arity(1, 1)?;
                self.src(form, 0, Type::U32)?;
                Ok(Op::Nop)
            }
            _ => {
                form.flag("mask");
                form.arity(1, 1)?;
                let operand = form.operand(0);
                match operand.value {
                    Value::Integer(_) => Ok(Op::Nop),
                    _ => Err(operand.expected("a constant")),
                }
            }
        }
    }

    fn jump(&mut self, form: &Form<'a>, labels: Vec<&'a str>) -> Result<()> {
        self.targets += labels.len() as u64;
        limit("branch targets", TARGETS, self.targets)?;
        self.jumps.push(Jump {
            at: self.entry.code.len(),
            scope: self.names.current(),
            span: form.operand(form.tree.operands.len() - 1).span,
            labels,
        });
        Ok(())
    }
}

/// Sets in every branch where its paths meet again: its immediate post-dominator, the first instruction that all paths from it to
/// the end go through.
pub(super) fn join(code: &mut [Instruction]) {
    let graph = Graph::new(code);
    let meet = graph.post_dominators();
    for (at, instruction) in code.iter_mut().enumerate() {
        if let Op::Bra { meet: to, .. } | Op::BrxIdx { meet: to, .. } = &mut instruction.op {
            *to = meet[graph.block[at] as usize].map_or(NEVER, |block| graph.first[block as usize]);
        }
    }
}

/// Runs of instructions without branches, and the edges between them turned round. Block 0 stands for the end of the kernel.
struct Graph {
    /// The block of each instruction.
    block: Vec<u32>,
    /// The first instruction of each block.
    first: Vec<Pc>,
    /// The blocks from which each block is entered: those it leads to when edges are turned round.
    before: Vec<Vec<u32>>,
}

impl Graph {
    fn new(code: &[Instruction]) -> Self {
        let mut leads = vec![false; code.len() + 1];
        let mut next: Vec<Pc> = Vec::new();
        for at in 0..code.len() {
            if successors(code, at, &mut next) {
                leads[at + 1] = true;
                for &to in next.iter().filter(|&&to| to != NEVER) {
                    leads[to as usize] = true;
                }
            }
        }
        let (mut block, mut first) = (Vec::with_capacity(code.len()), vec![NEVER]);
        leads[0] = true;
        for (at, leads) in leads[..code.len()].iter().enumerate() {
            if *leads {
                first.push(at as Pc);
            }
            block.push((first.len() - 1) as u32);
        }
        let mut before = vec![Vec::new(); first.len()];
        for at in 0..code.len() {
            if at + 1 == code.len() || block[at] != block[at + 1] {
                successors(code, at, &mut next);
                for &to in &next {
                    let to = if to == NEVER { 0 } else { block[to as usize] };
                    before[to as usize].push(block[at]);
                }
            }
        }
        Self {
            block,
            first,
            before,
        }
    }

    /// The immediate post-dominator of each block, by the method of Lengauer and Tarjan (1979) from the end of the kernel. Blocks
    /// that never reach the end have none, nor have those that only meet there.
    fn post_dominators(&self) -> Vec<Option<u32>> {
        let n = self.first.len();
        // Depth-first order of the turned graph.
        let (mut number, mut order) = (vec![u32::MAX; n], Vec::with_capacity(n));
        let mut parent = vec![0u32; n];
        let mut stack = vec![(0u32, 0u32)];
        while let Some((at, from)) = stack.pop() {
            if number[at as usize] != u32::MAX {
                continue;
            }
            number[at as usize] = order.len() as u32;
            parent[order.len()] = number[from as usize];
            order.push(at);
            stack.extend(self.before[at as usize].iter().map(|&to| (to, at)));
        }
        // The edges into each number.
        let mut into = vec![Vec::new(); order.len()];
        for (from, &at) in order.iter().enumerate() {
            for &to in &self.before[at as usize] {
                into[number[to as usize] as usize].push(from as u32);
            }
        }
        let mut forest = Forest::new(order.len());
        let mut dominator = vec![0u32; order.len()];
        let mut bucket = vec![Vec::new(); order.len()];
        for w in (1..order.len() as u32).rev() {
            for &v in &into[w as usize] {
                let u = forest.least(v);
                let semi = forest.semi[u as usize];
                forest.semi[w as usize] = forest.semi[w as usize].min(semi);
            }
            bucket[forest.semi[w as usize] as usize].push(w);
            let above = parent[w as usize];
            forest.ancestor[w as usize] = Some(above);
            for v in std::mem::take(&mut bucket[above as usize]) {
                let u = forest.least(v);
                let closer = forest.semi[u as usize] < forest.semi[v as usize];
                dominator[v as usize] = if closer { u } else { above };
            }
        }
        for w in 1..order.len() {
            if dominator[w] != forest.semi[w] {
                dominator[w] = dominator[dominator[w] as usize];
            }
        }
        let mut meet = vec![None; n];
        for w in 1..order.len() {
            if dominator[w] != 0 {
                meet[order[w] as usize] = Some(order[dominator[w] as usize]);
            }
        }
        meet
    }
}

/// Trees of numbers in which the least semidominator above each is found.
struct Forest {
    semi: Vec<u32>,
    ancestor: Vec<Option<u32>>,
    label: Vec<u32>,
    path: Vec<u32>,
}

impl Forest {
    fn new(n: usize) -> Self {
        Self {
            semi: (0..n as u32).collect(),
            ancestor: vec![None; n],
            label: (0..n as u32).collect(),
            path: Vec::new(),
        }
    }

    /// The number of the least semidominator on the path from `v` to below its root; the path gets shorter.
    fn least(&mut self, v: u32) -> u32 {
        let mut at = v;
        while let Some(above) = self.ancestor[at as usize] {
            self.path.push(at);
            at = above;
        }
        // The topmost of the path keeps its root.
        let root = at;
        let mut best = self.path.pop();
        while let Some(below) = self.path.pop() {
            if let Some(above) = best {
                let (a, b) = (self.label[above as usize], self.label[below as usize]);
                if self.semi[a as usize] < self.semi[b as usize] {
                    self.label[below as usize] = a;
                }
            }
            self.ancestor[below as usize] = Some(root);
            best = Some(below);
        }
        self.label[v as usize]
    }
}

/// Where control can go from an instruction; `NEVER` is the end. Whether the instruction ends a run.
fn successors(code: &[Instruction], at: usize, next: &mut Vec<Pc>) -> bool {
    next.clear();
    let follows = at as Pc + 1;
    let ends = match &code[at].op {
        Op::Bra { target, .. } => {
            next.push(*target);
            true
        }
        Op::BrxIdx { targets, .. } => {
            next.extend(targets);
            true
        }
        Op::Exit | Op::Trap => {
            next.push(NEVER);
            true
        }
        _ => false,
    };
    if (!ends || code[at].guard.is_some()) && (follows as usize) < code.len() {
        next.push(follows);
    }
    ends
}
