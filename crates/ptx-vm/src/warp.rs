//! A warp: 32 lanes that execute one instruction at a time, part on different paths and meet again.
//!
//! Paths form a tree. A branch that divides the lanes makes the frame wait at the place where its paths meet, the immediate
//! post-dominator, and gives each path a frame of its own; a frame that has arrived there hands its lanes back. One path runs
//! until it arrives, leaves or waits for lanes of another at a `.sync` instruction.

use crate::access::{Elements, Site, hold, reach};
use crate::alu;
use crate::fault::{FaultKind, Trap};
use crate::launch::{CHECKED_AFTER, Context};
use crate::memory::Written;
use crate::num::{Lanes, map1, mma, shuffle};
use crate::op::{
    self, Accumulator, File, Instruction, NEVER, Op, Pc, Predicate, Slot, Special, Vote,
};
use crate::registers::{FULL, Registers, lanes};

/// A path yields to its siblings, and the warp to others, after so many backward branches: what it spins on may be theirs.
const PATIENCE: u32 = 10_000;

/// Why a warp stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It waits, or was counted, at the barrier at this instruction; these lanes take part.
    Barrier(usize, u32),
    /// Others may run.
    Yield,
    /// All its lanes have left.
    Done,
}

/// A path of some lanes.
#[derive(Clone, Copy, Debug)]
struct Frame {
    pc: Pc,
    mask: u32,
    /// Where it hands its lanes to its parent.
    meet: Pc,
    parent: Option<usize>,
    /// Paths that have not come back yet; it runs once there are none.
    children: u32,
    /// Lanes that wait for others at a `.sync` instruction.
    waiting: u32,
    live: bool,
}

/// A warp of the current block.
#[derive(Debug)]
pub(crate) struct Warp {
    pub(crate) index: usize,
    pub(crate) registers: Registers,
    /// Local memory, lane after lane.
    pub(crate) local: Vec<u8>,
    pub(crate) local_written: Written,
    /// Lanes that the block has threads for and that have not exited.
    pub(crate) alive: u32,
    frames: Vec<Frame>,
    current: usize,
    branches: u32,
}

impl Warp {
    pub(crate) fn new(cx: &Context, index: usize) -> Self {
        let local = 32 * cx.program.local_bytes() as usize;
        Self {
            index,
            registers: Registers::new(cx.program.entry),
            local: vec![0; local],
            local_written: Written::new(local),
            alive: 0,
            frames: Vec::new(),
            current: 0,
            branches: 0,
        }
    }

    /// Another block begins.
    pub(crate) fn begin(&mut self, cx: &Context) {
        let threads = cx.threads as usize - 32 * self.index;
        self.alive = if threads >= 32 {
            FULL
        } else {
            (1 << threads) - 1
        };
        self.registers.forget(cx.program.entry);
        self.local_written.clear(0, self.local.len());
        self.frames.clear();
        self.frames.push(Frame {
            pc: 0,
            mask: self.alive,
            meet: NEVER,
            parent: None,
            children: 0,
            waiting: 0,
            live: true,
        });
        (self.current, self.branches) = (0, 0);
    }

    /// The thread of a lane, by its number in the block.
    pub(crate) fn thread(&self, lane: usize) -> u32 {
        (32 * self.index + lane) as u32
    }

    /// Runs until the warp has a reason to stop.
    pub(crate) fn run(&mut self, cx: &mut Context) -> Result<Stop, Box<Trap>> {
        let code: &[Instruction] = cx.program.entry.code();
        while self.alive != 0 {
            if !self.pick() {
                return Err(self.stuck(code));
            }
            let frame = self.frames[self.current];
            let (mut pc, mask, meet) = (frame.pc as usize, frame.mask, frame.meet);
            loop {
                if pc == meet as usize {
                    self.arrive(mask);
                    break;
                }
                let Some(instruction) = code.get(pc) else {
                    self.exit(mask);
                    break;
                };
                let next = self.step(cx, instruction, pc, mask).map_err(|mut trap| {
                    trap.pc.get_or_insert(pc);
                    trap
                })?;
                match next {
                    Next::Step => pc += 1,
                    Next::Jump(target) => {
                        if target as usize <= pc {
                            self.branches += 1;
                            if self.branches >= PATIENCE {
                                self.branches = 0;
                                self.frames[self.current].pc = target;
                                self.rotate();
                                return Ok(Stop::Yield);
                            }
                        }
                        pc = target as usize;
                    }
                    Next::Switch => break,
                    Next::Stop(stop) => {
                        if stop == Stop::Yield {
                            self.frames[self.current].pc = pc as Pc + 1;
                        }
                        return Ok(stop);
                    }
                }
            }
        }
        Ok(Stop::Done)
    }

    /// Makes `current` a frame that can run: itself, else the one that divided last.
    fn pick(&mut self) -> bool {
        let ready = |frame: &Frame| frame.live && frame.children == 0 && frame.waiting == 0;
        if !self.frames.get(self.current).is_some_and(ready) {
            match self.frames.iter().rposition(ready) {
                Some(frame) => self.current = frame,
                None => return false,
            }
        }
        true
    }

    /// Lets another path run, if there is one.
    fn rotate(&mut self) {
        let ready = |frame: &Frame| frame.live && frame.children == 0 && frame.waiting == 0;
        let n = self.frames.len();
        let others = (1..n).map(|i| (self.current + n - i) % n);
        if let Some(other) = others.into_iter().find(|&frame| ready(&self.frames[frame])) {
            self.current = other;
        }
    }

    /// The fault when every path waits for another.
    fn stuck(&self, code: &[Instruction]) -> Box<Trap> {
        let waits = |frame: &&Frame| frame.live && frame.waiting != 0;
        let frame = self.frames.iter().find(waits).copied();
        let (pc, waiting) = frame.map_or((0, 1), |frame| (frame.pc as usize, frame.waiting));
        let lane = waiting.trailing_zeros();
        let mask = match code
            .get(pc)
            .and_then(|instruction| sync_mask(&instruction.op))
        {
            Some(slot) => self.registers.narrow(slot)[lane as usize],
            None => FULL,
        };
        let missing = mask & self.alive & !waiting;
        let kind = match code.get(pc).map(|instruction| &instruction.op) {
            Some(Op::Barrier { .. }) => FaultKind::BarrierDivergence,
            _ => FaultKind::SyncMask,
        };
        let what = format!(
            "the mask {mask:#010x} names lane {}, which does not come here",
            missing.trailing_zeros() & 31
        );
        let mut trap = Trap::new(kind, lane, what);
        trap.pc = Some(pc);
        trap
    }

    /// The current frame's lanes have come to where they meet their siblings.
    fn arrive(&mut self, mask: u32) {
        let frame = &mut self.frames[self.current];
        frame.live = false;
        if let Some(parent) = frame.parent {
            self.frames[parent].mask |= mask;
            self.leave(parent);
        }
        self.trim();
    }

    /// A child of `parent` is gone.
    fn leave(&mut self, mut parent: usize) {
        loop {
            let frame = &mut self.frames[parent];
            frame.children -= 1;
            if frame.children > 0 {
                return;
            }
            if frame.mask != 0 {
                self.current = parent;
                return;
            }
            frame.live = false;
            match frame.parent {
                Some(above) => parent = above,
                None => return,
            }
        }
    }

    fn trim(&mut self) {
        while self.frames.last().is_some_and(|frame| !frame.live) {
            self.frames.pop();
        }
    }

    /// Lanes leave the kernel.
    fn exit(&mut self, exec: u32) {
        self.alive &= !exec;
        // Whoever waits for them looks again.
        self.frames.iter_mut().for_each(|frame| frame.waiting = 0);
        let frame = &mut self.frames[self.current];
        frame.mask &= !exec;
        if frame.mask == 0 {
            frame.live = false;
            if let Some(parent) = frame.parent {
                self.leave(parent);
            }
            self.trim();
        }
    }

    /// Divides the current frame into paths.
    fn divide(&mut self, paths: &[(Pc, u32)], meet: Pc) {
        let frame = self.frames[self.current];
        let (parent, child_meet, first) = if meet == frame.meet || meet == NEVER {
            (frame.parent, frame.meet, Some(self.current))
        } else {
            let frame = &mut self.frames[self.current];
            (frame.pc, frame.mask) = (meet, 0);
            (Some(self.current), meet, None)
        };
        let mut reuse = first;
        for &(pc, mask) in paths {
            if pc == child_meet {
                if let Some(parent) = parent {
                    self.frames[parent].mask |= mask;
                }
                continue;
            }
            let path = Frame {
                pc,
                mask,
                meet: child_meet,
                parent,
                children: 0,
                waiting: 0,
                live: true,
            };
            match reuse.take() {
                Some(frame) => self.frames[frame] = path,
                None => {
                    if let Some(parent) = parent {
                        self.frames[parent].children += 1;
                    }
                    self.frames.push(path);
                    self.current = self.frames.len() - 1;
                }
            }
        }
    }

    fn branch(&mut self, mut paths: Vec<(Pc, u32)>, meet: Pc) -> Next {
        paths.retain(|&(_, mask)| mask != 0);
        if let [(target, _)] = paths[..] {
            return Next::Jump(target);
        }
        self.divide(&paths, meet);
        Next::Switch
    }

    /// Executes one instruction in the lanes of `mask`.
    #[inline(always)]
    fn step(
        &mut self,
        cx: &mut Context,
        instruction: &Instruction,
        pc: usize,
        mask: u32,
    ) -> Result<Next, Box<Trap>> {
        let exec = match instruction.guard {
            None => mask,
            Some(guard) => {
                let missing = mask & !self.registers.written(File::Predicate, guard.slot);
                if missing != 0 {
                    return Err(self.uninit(cx, File::Predicate, guard.slot, missing));
                }
                mask & self.registers.predicate(guard)
            }
        };
        let counts = &mut cx.counts[pc];
        counts.instructions += 1;
        counts.lanes += u64::from(exec.count_ones());
        if cx.left == 0 {
            let what = format!("more than {} warp instructions", cx.limit);
            return Err(Trap::new(
                FaultKind::InstructionLimit,
                mask.trailing_zeros(),
                what,
            ));
        }
        cx.left -= 1;
        if cx.left.is_multiple_of(CHECKED_AFTER) && cx.is_late() {
            let what = "the launch runs longer than its limit";
            return Err(Trap::new(FaultKind::TimeLimit, mask.trailing_zeros(), what));
        }
        if let Op::Bra { target, meet } = instruction.op {
            return Ok(match exec {
                0 => Next::Step,
                _ if exec == mask => Next::Jump(target),
                _ => self.branch(vec![(pc as Pc + 1, mask & !exec), (target, exec)], meet),
            });
        }
        if exec == 0 {
            return Ok(Next::Step);
        }
        let mut written = FULL;
        for &mark in &cx.program.uses[pc] {
            written &= self.registers.written[mark as usize];
        }
        if exec & !written != 0 {
            return Err(self.uninit_use(cx, pc, exec));
        }
        self.execute(cx, &instruction.op, pc, mask, exec)
    }

    #[cold]
    fn uninit_use(&self, cx: &Context, pc: usize, exec: u32) -> Box<Trap> {
        for &mark in &cx.program.uses[pc] {
            let missing = exec & !self.registers.written[mark as usize];
            if missing != 0 {
                let op::Operand { file, slot } = cx.program.operand(mark);
                return self.uninit(cx, file, slot, missing);
            }
        }
        Trap::new(FaultKind::UninitRegister, 0, "a register was not written")
    }

    #[cold]
    pub(crate) fn uninit(&self, cx: &Context, file: File, slot: Slot, missing: u32) -> Box<Trap> {
        let name = cx.program.entry.register(op::Operand { file, slot });
        Trap::new(
            FaultKind::UninitRegister,
            missing.trailing_zeros(),
            format!("{name} was not written"),
        )
    }

    #[inline(always)]
    fn execute(
        &mut self,
        cx: &mut Context,
        op: &Op,
        pc: usize,
        mask: u32,
        exec: u32,
    ) -> Result<Next, Box<Trap>> {
        let site = Site { pc, exec };
        match op {
            Op::Load {
                space,
                ty,
                n,
                bits,
                d,
                address,
                order,
                noncoherent,
                ..
            } => {
                let elements = Elements::new(*ty, *bits, &d[..*n as usize]);
                self.load(cx, site, *space, elements, address, (*order, *noncoherent))?;
                Ok(cx.after_access())
            }
            Op::Store {
                space,
                ty,
                n,
                bits,
                a,
                address,
                order,
                scope,
            } => {
                let elements = Elements::new(*ty, *bits, &a[..*n as usize]);
                self.store(cx, site, *space, elements, address, (*order, *scope))?;
                Ok(cx.after_access())
            }
            Op::Atomic { .. } => {
                self.atomic(cx, site, op)?;
                Ok(cx.after_access())
            }
            Op::CpAsync { .. } => {
                self.copy_async(cx, site, op)?;
                Ok(cx.after_access())
            }
            Op::CpAsyncCommit => {
                self.commit_async(cx, exec);
                Ok(Next::Step)
            }
            Op::CpAsyncWait { groups } => self
                .wait_async(cx, exec, pc, Some(*groups))
                .map(|()| Next::Step),
            Op::CpAsyncWaitAll => self.wait_async(cx, exec, pc, None).map(|()| Next::Step),
            Op::Prefetch { address } => self.prefetch(cx, exec, address).map(|()| Next::Step),
            Op::Fence { scope, .. } => {
                for lane in lanes(exec) {
                    cx.spaces.order.fence(self.thread(lane), reach(*scope));
                    hold(cx, lane)?;
                }
                Ok(Next::Step)
            }
            Op::AddressOf { .. } => {
                self.address_of(cx, exec, op);
                Ok(Next::Step)
            }
            Op::Special { d, wide, from } => {
                self.special(cx, exec, *d, *wide, *from);
                Ok(Next::Step)
            }
            Op::Cvta {
                space,
                back,
                wide,
                d,
                a,
            } => {
                if *wide {
                    let base = crate::program::generic(*space, 0);
                    let base = if *back { base.wrapping_neg() } else { base };
                    let v = map1(self.registers.wide(*a), |a| a.wrapping_add(base));
                    self.registers.set_wide(*d, exec, &v);
                } else {
                    let v = *self.registers.narrow(*a);
                    self.registers.set_narrow(*d, exec, &v);
                }
                Ok(Next::Step)
            }
            Op::IsSpace { space, wide, d, a } => {
                let base = crate::program::generic(*space, 0);
                let v = alu::lanes_where(|lane| {
                    let address = if *wide {
                        self.registers.wide(*a)[lane]
                    } else {
                        self.registers.narrow(*a)[lane].into()
                    };
                    let base_of = crate::memory::window(address);
                    let is_global = base_of != crate::program::generic(op::Space::Shared, 0)
                        && base_of != crate::program::generic(op::Space::Local, 0);
                    if base == 0 {
                        is_global
                    } else {
                        base_of == base
                    }
                });
                self.registers.set_predicate(*d, exec, v);
                Ok(Next::Step)
            }
            Op::ActiveMask { d } => {
                self.registers.set_narrow(*d, exec, &[mask; 32]);
                Ok(Next::Step)
            }
            Op::BrxIdx {
                index,
                targets,
                meet,
            } => {
                let mut paths: Vec<(Pc, u32)> = Vec::new();
                for lane in lanes(exec) {
                    let index = self.registers.narrow(*index)[lane];
                    let Some(&target) = targets.get(index as usize) else {
                        let what = format!("index {index} of {} targets", targets.len());
                        return Err(Trap::new(FaultKind::OutOfBounds, lane as u32, what));
                    };
                    match paths.iter_mut().find(|(pc, _)| *pc == target) {
                        Some((_, lanes)) => *lanes |= 1 << lane,
                        None => paths.push((target, 1 << lane)),
                    }
                }
                match paths.iter_mut().find(|&&mut (to, _)| to == pc as Pc + 1) {
                    Some((_, lanes)) => *lanes |= mask & !exec,
                    None => paths.push((pc as Pc + 1, mask & !exec)),
                }
                Ok(self.branch(paths, *meet))
            }
            Op::Exit => {
                self.exit(exec);
                if mask == exec {
                    return Ok(Next::Switch);
                }
                self.frames[self.current].pc = pc as Pc + 1;
                Ok(Next::Switch)
            }
            Op::Trap => Err(Trap::new(FaultKind::Trap, exec.trailing_zeros(), "trap")),
            Op::Nop | Op::Bra { .. } => Ok(Next::Step),
            Op::Barrier { aligned, .. } => {
                let exec = if *aligned || exec == self.alive {
                    exec
                } else {
                    match self.gather(pc, exec, |_| FULL)? {
                        Some(exec) => exec,
                        None => return Ok(Next::Switch),
                    }
                };
                if exec != self.alive {
                    let missing = (self.alive & !exec).trailing_zeros();
                    let what = format!("lane {missing} of the warp does not execute the barrier");
                    return Err(Trap::new(
                        FaultKind::BarrierDivergence,
                        exec.trailing_zeros(),
                        what,
                    ));
                }
                cx.counts[pc].barriers += 1;
                self.frames[self.current].pc = pc as Pc + 1;
                Ok(Next::Stop(Stop::Barrier(pc, exec)))
            }
            Op::Ldmatrix { .. } | Op::Movmatrix { .. } | Op::Mma { .. } => {
                let exec = if exec == FULL {
                    Some(exec)
                } else {
                    self.gather(pc, exec, |_| FULL)?
                };
                match exec {
                    None => return Ok(Next::Switch),
                    Some(FULL) => {}
                    Some(exec) => {
                        let what = format!("lane {} does not take part", (!exec).trailing_zeros());
                        return Err(Trap::new(FaultKind::SyncMask, exec.trailing_zeros(), what));
                    }
                }
                self.matrix(cx, op, pc)?;
                Ok(Next::Step)
            }
            op => match sync_mask(op) {
                None => {
                    alu::execute(op, &mut self.registers, exec, cx.approx)?;
                    Ok(Next::Step)
                }
                Some(slot) => {
                    let masks = *self.registers.narrow(slot);
                    match self.gather(pc, exec, |lane| masks[lane])? {
                        None => Ok(Next::Switch),
                        Some(exec) => {
                            self.exchange(cx, op, exec, &masks)?;
                            Ok(Next::Step)
                        }
                    }
                }
            },
        }
    }

    /// The lanes that execute a `.sync` instruction together: these and those that wait at it. None if more must come; then the
    /// frame waits.
    fn gather(
        &mut self,
        pc: usize,
        exec: u32,
        mask_of: impl Fn(usize) -> u32,
    ) -> Result<Option<u32>, Box<Trap>> {
        if exec == self.alive
            && lanes(exec).fold(FULL, |all, lane| all & mask_of(lane)) & exec == exec
        {
            return Ok(Some(exec));
        }
        for lane in lanes(exec) {
            let mask = mask_of(lane);
            if mask >> lane & 1 == 0 {
                let what = format!(
                    "the mask {mask:#010x} lacks lane {lane}, which executes the instruction"
                );
                return Err(Trap::new(FaultKind::SyncMask, lane as u32, what));
            }
        }
        let here = |frame: &Frame| frame.live && frame.waiting != 0 && frame.pc as usize == pc;
        let together = self
            .frames
            .iter()
            .filter(|frame| here(frame))
            .fold(exec, |all, frame| all | frame.waiting);
        let wanted = lanes(together).fold(0, |all, lane| all | mask_of(lane)) & self.alive;
        if wanted & !together != 0 {
            let frame = &mut self.frames[self.current];
            (frame.pc, frame.waiting) = (pc as Pc, exec);
            return Ok(None);
        }
        for lane in lanes(together) {
            let mask = mask_of(lane) & self.alive;
            if let Some(other) = lanes(mask).find(|&other| mask_of(other) & self.alive != mask) {
                let what = format!("lanes {lane} and {other} name each other in different masks");
                return Err(Trap::new(FaultKind::SyncMask, lane as u32, what));
            }
        }
        for frame in self.frames.iter_mut().filter(|frame| here(frame)) {
            (frame.pc, frame.waiting) = (pc as Pc + 1, 0);
        }
        Ok(Some(together))
    }

    /// `shfl`, `vote`, `match`, `redux` and `bar.warp` among the lanes of `exec`.
    fn exchange(
        &mut self,
        cx: &mut Context,
        op: &Op,
        exec: u32,
        masks: &Lanes,
    ) -> Result<(), Box<Trap>> {
        let r = &mut self.registers;
        // Lanes that name the same mask.
        let mut rest = exec;
        let groups = std::iter::from_fn(|| {
            let group = masks[rest.trailing_zeros() as usize & 31] & rest;
            rest &= !group;
            (group != 0).then_some(group)
        });
        match *op {
            Op::Shfl {
                how, d, p, a, b, c, ..
            } => {
                let (values, mark) = (*r.narrow(a), r.written(File::Narrow, a));
                let (mut v, mut ok, mut marked) = (values, 0, mark);
                for lane in lanes(exec) {
                    let (from, in_range) =
                        shuffle::source(how, lane as u32, r.narrow(b)[lane], r.narrow(c)[lane]);
                    let from = from as usize;
                    if in_range && (exec & masks[lane]) >> from & 1 == 0 {
                        let what = format!("it reads lane {from}, which does not take part");
                        return Err(Trap::new(FaultKind::SyncMask, lane as u32, what));
                    }
                    v[lane] = values[from];
                    ok |= u32::from(in_range) << lane;
                    marked = marked & !(1 << lane) | (mark >> from & 1) << lane;
                }
                r.set_narrow(d, exec, &v);
                r.set_mark(File::Narrow, d, exec, marked);
                if let Some(p) = p {
                    r.set_predicate(p, exec, ok);
                }
            }
            Op::Vote { how, d, a, .. } => {
                let holds = r.predicate(a);
                for group in groups {
                    let answer = match how {
                        Vote::Ballot => {
                            r.set_narrow(d, group, &[shuffle::ballot(holds, group); 32]);
                            continue;
                        }
                        Vote::All => shuffle::all(holds, group),
                        Vote::Any => shuffle::any(holds, group),
                        Vote::Uni => shuffle::uniform(holds, group),
                    };
                    r.set_predicate(d, group, if answer { FULL } else { 0 });
                }
            }
            Op::Match {
                all, wide, d, p, a, ..
            } => {
                let values = if wide {
                    *r.wide(a)
                } else {
                    map1(r.narrow(a), u64::from)
                };
                for group in groups {
                    if all {
                        let (same, answer) = shuffle::match_all(&values, group);
                        r.set_narrow(d, group, &[same; 32]);
                        if let Some(p) = p {
                            r.set_predicate(p, group, if answer { FULL } else { 0 });
                        }
                    } else {
                        let v =
                            std::array::from_fn(|lane| shuffle::match_any(&values, group, lane));
                        r.set_narrow(d, group, &v);
                    }
                }
            }
            Op::Redux {
                how, signed, d, a, ..
            } => {
                let values = *r.narrow(a);
                for group in groups {
                    r.set_narrow(d, group, &[shuffle::redux(how, signed, &values, group); 32]);
                }
            }
            _ => {
                for group in groups.collect::<Vec<_>>() {
                    cx.spaces
                        .order
                        .warp_sync(self.index, group, group == self.alive);
                }
            }
        }
        Ok(())
    }

    fn matrix(&mut self, cx: &mut Context, op: &Op, pc: usize) -> Result<(), Box<Trap>> {
        match op {
            Op::Ldmatrix {
                n,
                trans,
                d,
                address,
                space,
            } => {
                self.load_matrix(cx, pc, *trans, &d[..*n as usize], *space, address)?;
            }
            Op::Movmatrix { d, a } => {
                let a = *self.registers.narrow(*a);
                let half = |row: usize, column: usize| {
                    (a[4 * row + column / 2] >> (16 * (column % 2))) as u16
                };
                let v = std::array::from_fn(|lane| {
                    let (row, column) = (lane / 4, 2 * (lane % 4));
                    crate::num::half::pack(half(column, row), half(column + 1, row))
                });
                self.registers.set_narrow(*d, FULL, &v);
            }
            Op::Mma {
                shape,
                accumulator,
                d,
                a,
                b,
                c,
            } => {
                let of = |slot: &Slot| *self.registers.narrow(*slot);
                let a: [Lanes; 4] = std::array::from_fn(|i| of(&a[i.min(shape.a_registers() - 1)]));
                let b: [Lanes; 2] = std::array::from_fn(|i| of(&b[i.min(shape.b_registers() - 1)]));
                let n = if *accumulator == Accumulator::F16 {
                    2
                } else {
                    4
                };
                let c: [Lanes; 4] = std::array::from_fn(|i| of(&c[i.min(n - 1)]));
                let (a, b) = (&a[..shape.a_registers()], &b[..shape.b_registers()]);
                let v = match accumulator {
                    Accumulator::S32(how) => mma::integer(*shape, *how, a, b, &c),
                    half => mma::float(*shape, *half == Accumulator::F16, a, b, &c[..n]),
                };
                for (slot, v) in d.iter().zip(&v).take(n) {
                    self.registers.set_narrow(*slot, FULL, v);
                }
                cx.counts[pc].mma_flops += 2 * (op::Mma::M * op::Mma::N * shape.k()) as u64;
            }
            _ => {}
        }
        Ok(())
    }

    fn special(&mut self, cx: &Context, exec: u32, d: Slot, wide: bool, from: Special) {
        let tid = |axis: u8, thread: u32| {
            let [x, y, _] = cx.block;
            match axis {
                0 => thread % x,
                1 => thread / x % y,
                _ => thread / x / y,
            }
        };
        let clock = cx.limit - cx.left;
        let v: [u64; 32] = std::array::from_fn(|lane| {
            let (bit, thread) = (1u32 << lane, self.thread(lane));
            let value = match from {
                Special::Tid(axis) => tid(axis, thread),
                Special::Ntid(axis) => cx.block[axis as usize],
                Special::Ctaid(axis) => cx.block_index[axis as usize],
                Special::Nctaid(axis) => cx.grid[axis as usize],
                Special::LaneId => lane as u32,
                Special::WarpId => self.index as u32,
                Special::NwarpId => cx.threads.div_ceil(32),
                Special::LanemaskEq => bit,
                Special::LanemaskLt => bit - 1,
                Special::LanemaskLe => bit | (bit - 1),
                Special::LanemaskGt => !(bit | (bit - 1)),
                Special::LanemaskGe => !(bit - 1),
                Special::NsmId => 1,
                Special::DynamicSharedSize => cx.dynamic_shared,
                Special::TotalSharedSize => cx.shared_bytes,
                Special::SmId | Special::GridId => 0,
                Special::Clock | Special::GlobalTimerLo => clock as u32,
                Special::ClockHi | Special::GlobalTimerHi => (clock >> 32) as u32,
                Special::Clock64 | Special::GlobalTimer => return clock,
            };
            value.into()
        });
        match wide {
            true => self.registers.set_wide(d, exec, &v),
            false => self.registers.set_narrow(d, exec, &map1(&v, |v| v as u32)),
        }
    }

    /// Gives a waiting warp the result of a barrier's reduction.
    pub(crate) fn answer(&mut self, barrier: op::Barrier, exec: u32, count: u32, holds: bool) {
        match barrier {
            op::Barrier::Popc { d, .. } => self.registers.set_narrow(d, exec, &[count; 32]),
            op::Barrier::Reduce { d, .. } => {
                self.registers
                    .set_predicate(d, exec, if holds { FULL } else { 0 })
            }
            op::Barrier::Sync | op::Barrier::Arrive => {}
        }
    }

    /// The lanes of `exec` in which a predicate holds.
    pub(crate) fn holds(&self, predicate: Predicate, exec: u32) -> u32 {
        self.registers.predicate(predicate) & exec
    }
}

/// What a warp does next.
pub(crate) enum Next {
    Step,
    Jump(Pc),
    /// Another frame may be current.
    Switch,
    Stop(Stop),
}

/// The mask of a `.sync` instruction that names its lanes.
const fn sync_mask(op: &Op) -> Option<Slot> {
    match op {
        Op::Shfl { mask, .. }
        | Op::Vote { mask, .. }
        | Op::Match { mask, .. }
        | Op::Redux { mask, .. }
        | Op::BarWarp { mask } => Some(*mask),
        _ => None,
    }
}
