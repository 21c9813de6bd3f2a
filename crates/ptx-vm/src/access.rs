//! How a warp reaches memory: loads, stores, atomics, `cp.async`, `ldmatrix`, with every check.

use crate::alu::atomic_add_f32;
use crate::counters::Counts;
use crate::fault::{self, Access, FaultKind, Trap};
use crate::launch::Context;
use crate::layout;
use crate::memory::{LOCAL_WINDOW, Memory, Reach, Refusal, Region, SHARED_WINDOW, Written, window};
use crate::module::Parameter;
use crate::num::half::{self, Bf16, F16, Mode as HalfMode};
use crate::num::{Lanes, WideLanes, float, map1};
use crate::op::{
    Address, Atomic, Base, Op, Operand, Order as Ordering, Rounding, Scope, Slot, Space, Type,
};
use crate::order::{self, Order, Stamp};
use crate::program::{Array, Program, generic, register};
use crate::registers::{FULL, Registers, cut, lanes};
use crate::warp::Warp;

type Outcome = Result<(), Box<Trap>>;

/// A `cp.async` on its way.
#[derive(Clone, Copy, Debug)]
struct Copy {
    lane: u32,
    /// How many groups the lane had committed before.
    group: u32,
    bytes: u32,
    src_bytes: u32,
    dst: u64,
    src: u64,
    stamp: Stamp,
}

/// Global and shared memory, and the order of what happens to them.
#[derive(Debug)]
pub(crate) struct Spaces<'a> {
    pub(crate) memory: &'a mut Memory,
    pub(crate) shared: Region,
    pub(crate) order: Order,
    /// Destinations of copies on their way.
    poison: Written,
    copies: Vec<Vec<Copy>>,
    committed: Vec<[u32; 32]>,
    pending: usize,
    /// Bytes of registers, local and shared memory of the block that runs.
    state_bytes: u64,
}

/// One access of neighbouring lanes to neighbouring places.
#[derive(Clone, Copy, Debug)]
struct Place {
    shared: bool,
    address: u64,
    log_width: u32,
    lanes: usize,
    stamp: Stamp,
    access: Access,
    /// The bytes are read.
    loads: bool,
    noncoherent: bool,
}

impl Place {
    /// One lane's place.
    const fn new(shared: bool, address: u64, log_width: u32, stamp: Stamp, access: Access) -> Self {
        Self {
            shared,
            address,
            log_width,
            lanes: 1,
            stamp,
            access,
            loads: !matches!(access, Access::Write),
            noncoherent: false,
        }
    }
}

/// Why a [`Place`] is out of reach.
#[derive(Debug)]
struct Denied {
    kind: FaultKind,
    other: Option<(Stamp, Access)>,
}

/// Has the notes that an ordering instruction of a lane left counted.
pub(crate) fn hold(cx: &mut Context, lane: usize) -> Outcome {
    cx.spaces.hold().ok_or_else(|| {
        let what = "notes on the order of accesses";
        Trap::new(FaultKind::MemoryLimit, lane as u32, what)
    })
}

impl<'a> Spaces<'a> {
    pub(crate) fn new(
        memory: &'a mut Memory,
        program: &Program,
        warps: usize,
        state_bytes: u64,
    ) -> Self {
        let shared_bytes = program.shared_bytes() as usize;
        Self {
            memory,
            shared: Region::shared(shared_bytes),
            order: Order::new(program.fences),
            poison: Written::new(shared_bytes),
            copies: vec![Vec::new(); warps],
            committed: vec![[0; 32]; warps],
            pending: 0,
            state_bytes,
        }
    }

    /// Counts the block's state and the notes of [`Order`], which fences and atomics let grow.
    pub(crate) fn hold(&mut self) -> Option<()> {
        let bytes = self.state_bytes.saturating_add(self.order.bytes());
        self.memory.budget.hold(bytes)
    }

    pub(crate) fn begin_block(&mut self, block: u32) {
        self.order.begin_block(block, self.copies.len());
        self.shared.forget();
        for copy in self.copies.iter_mut().flat_map(|copies| copies.drain(..)) {
            self.poison.clear(copy.dst as usize, copy.bytes as usize);
        }
        self.committed.fill([0; 32]);
        self.pending = 0;
    }

    /// The place in its region, with the access noted, or what forbids it.
    #[inline(always)]
    fn admit(&mut self, arrays: &[Array], place: &Place) -> Result<(&mut Region, usize), Denied> {
        let deny = |kind| Denied { kind, other: None };
        let bytes = place.lanes << place.log_width;
        if place.address & ((1 << place.log_width) - 1) != 0 {
            return Err(deny(FaultKind::Misaligned));
        }
        let (region, budget, offset, view) = if place.shared {
            let end = place.address.saturating_add(bytes as u64);
            let inside =
                |array: &Array| array.range.start <= place.address && end <= array.range.end;
            if !arrays.iter().any(inside) {
                return Err(deny(FaultKind::OutOfBounds));
            }
            let offset = place.address as usize;
            if self.pending > 0 && self.poison.any(offset, bytes) {
                let hit = |copy: &&Copy| {
                    copy.dst < end && place.address < copy.dst + u64::from(copy.bytes)
                };
                let other = self
                    .copies
                    .iter()
                    .flatten()
                    .find(hit)
                    .map(|copy| (copy.stamp, Access::Write));
                return Err(Denied {
                    kind: FaultKind::AsyncBeforeWait,
                    other,
                });
            }
            (
                &mut self.shared,
                &mut self.memory.budget,
                offset,
                self.order.shared_view(),
            )
        } else {
            let (region, budget, offset) =
                self.memory.resolve(place.address, bytes).map_err(deny)?;
            (region, budget, offset, self.order.global_view())
        };
        if region.read_only && place.access != Access::Read {
            return Err(deny(FaultKind::ReadOnly));
        }
        if place.loads && region.written.missing(offset, bytes).is_some() {
            return Err(deny(FaultKind::UninitMemory));
        }
        if !region.read_only {
            let reach = Reach {
                offset,
                log_width: place.log_width,
                lanes: place.lanes,
                stamp: place.stamp,
                view,
                shared: place.shared,
            };
            let race = if place.shared {
                FaultKind::SharedRace
            } else {
                FaultKind::GlobalRace
            };
            if place.noncoherent {
                match region.writer(&reach, budget) {
                    Ok(None) => {}
                    Ok(Some(by)) => {
                        return Err(Denied {
                            kind: FaultKind::NonCoherentRead,
                            other: Some((by.other, by.access)),
                        });
                    }
                    Err(_) => return Err(deny(FaultKind::MemoryLimit)),
                }
            }
            match region.touch(place.access, &reach, &self.order, budget) {
                Ok(()) => {}
                Err(Refusal::Memory) => return Err(deny(FaultKind::MemoryLimit)),
                Err(Refusal::Race(by)) => {
                    return Err(Denied {
                        kind: race,
                        other: Some((by.other, by.access)),
                    });
                }
            }
        }
        Ok((region, offset))
    }

    /// Ends the copies of a lane that satisfy `done`, in the order of their issue. An error comes with the destination.
    fn complete(
        &mut self,
        arrays: &[Array],
        warp: usize,
        lane: u32,
        now: Stamp,
        done: impl Fn(&Copy) -> bool,
    ) -> Result<(), (Denied, u64)> {
        let mut copies = std::mem::take(&mut self.copies[warp]);
        let mut outcome = Ok(());
        copies.retain(|copy| {
            if outcome.is_err() || copy.lane != lane || !done(copy) {
                return true;
            }
            self.poison.clear(copy.dst as usize, copy.bytes as usize);
            self.pending -= 1;
            let mut bytes = [0; 16];
            if copy.src_bytes > 0
                && let Ok((region, _, offset)) =
                    self.memory.resolve(copy.src, copy.src_bytes as usize)
            {
                let src = &region.bytes[offset..offset + copy.src_bytes as usize];
                bytes[..src.len()].copy_from_slice(src);
            }
            // The instruction and thread of the copy, at the time of the wait.
            let stamp = now & !0xffff_ffff | copy.stamp & 0xffff_ffff;
            let width = copy.bytes.ilog2();
            let place = Place::new(true, copy.dst, width, stamp, Access::Write);
            match self.admit(arrays, &place) {
                Ok((region, offset)) => {
                    region.bytes[offset..offset + copy.bytes as usize]
                        .copy_from_slice(&bytes[..copy.bytes as usize]);
                    region.written.set(offset, copy.bytes as usize);
                }
                Err(denied) => outcome = Err((denied, copy.dst)),
            }
            false
        });
        self.copies[warp] = copies;
        outcome
    }
}

/// An instruction and the lanes that execute it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) pc: usize,
    pub(crate) exec: u32,
}

/// How the addresses of a warp lie.
enum Pattern {
    /// One behind the other, in the first lanes.
    Run(usize),
    /// All the same.
    Same,
    Scattered,
}

fn pattern(at: &WideLanes, exec: u32, log_width: u32) -> Pattern {
    let first = at[exec.trailing_zeros() as usize & 31];
    let (mut run, mut same) = (0, 0);
    if exec == FULL {
        for (lane, &address) in at.iter().enumerate() {
            run |= address ^ first.wrapping_add((lane as u64) << log_width);
            same |= address ^ first;
        }
        return match (run, same) {
            (0, _) => Pattern::Run(32),
            (_, 0) => Pattern::Same,
            _ => Pattern::Scattered,
        };
    }
    for lane in lanes(exec) {
        run |= at[lane] ^ first.wrapping_add((lane as u64) << log_width);
        same |= at[lane] ^ first;
    }
    match (run, same) {
        (0, _) if exec & exec.wrapping_add(1) == 0 => Pattern::Run(exec.count_ones() as usize),
        (_, 0) => Pattern::Same,
        _ => Pattern::Scattered,
    }
}

/// How many different numbers there are, at most 32.
fn distinct(values: impl Iterator<Item = u64>) -> u64 {
    let (mut seen, mut n, mut greatest) = ([0; 32], 0, 0);
    for value in values {
        if n == 0 || value > greatest {
            greatest = value;
        } else if value == greatest || seen[..n].contains(&value) {
            continue;
        }
        seen[n] = value;
        n += 1;
    }
    n as u64
}

fn count_sectors(
    counts: &mut Counts,
    at: &WideLanes,
    exec: u32,
    log_width: u32,
    pattern: &Pattern,
) {
    let (sectors, bytes) = match *pattern {
        Pattern::Run(n) => {
            let bytes = (n as u64) << log_width;
            ((at[0] % 32 + bytes).div_ceil(32), bytes)
        }
        Pattern::Same => (1, 1),
        Pattern::Scattered => {
            let sectors = distinct(lanes(exec).map(|lane| at[lane] >> 5));
            (
                sectors,
                distinct(lanes(exec).map(|lane| at[lane])) << log_width,
            )
        }
    };
    counts.global_sectors += sectors;
    counts.global_sectors_min += bytes.div_ceil(32);
}

/// Passes over the banks: a warp's accesses of 8 bytes go by halves, those of 16 by quarters.
fn count_wavefronts(
    counts: &mut Counts,
    at: &WideLanes,
    exec: u32,
    log_width: u32,
    pattern: &Pattern,
) {
    let group = match log_width {
        ..=2 => 32,
        3 => 16,
        _ => 8,
    };
    for first in (0..32).step_by(group) {
        let members = exec & (((1u64 << group) - 1) << first) as u32;
        if members == 0 {
            continue;
        }
        counts.shared_wavefronts_min += 1;
        counts.shared_wavefronts += match pattern {
            Pattern::Scattered => wavefronts(at, members, log_width),
            _ => 1,
        };
    }
}

fn wavefronts(at: &WideLanes, members: u32, log_width: u32) -> u64 {
    const NONE: u64 = u64::MAX;
    let mut words = [[NONE; 32]; 32];
    let mut depth = [0u8; 32];
    for lane in lanes(members) {
        for word in at[lane] >> 2..(at[lane] >> 2) + (1u64 << log_width.saturating_sub(2)) {
            let bank = word as usize % 32;
            let n = depth[bank] as usize;
            if !words[bank][..n].contains(&word) {
                words[bank][n] = word;
                depth[bank] += 1;
            }
        }
    }
    depth.into_iter().max().unwrap_or(0).into()
}

/// The addresses of an operand, in its space.
fn addresses(r: &Registers, program: &Program, address: &Address, space: Space) -> WideLanes {
    match address.base {
        Base::Zero => [address.offset as u64; 32],
        Base::Narrow(slot) => map1(r.narrow(slot), |base| {
            base.wrapping_add(address.offset as u32).into()
        }),
        Base::Wide(slot) => map1(r.wide(slot), |base| {
            base.wrapping_add_signed(address.offset)
        }),
        Base::Variable(index) => {
            let start = program.addresses[index as usize];
            let start = match space {
                Space::Generic => generic(program.space(index), start),
                _ => start,
            };
            [start.wrapping_add_signed(address.offset); 32]
        }
    }
}

/// An element of memory, extended to 64 bits.
#[inline(always)]
fn element(bytes: &[u8], ty: Type) -> u64 {
    let value = match ty.bytes() {
        1 => bytes[0].into(),
        2 => u16::from_le_bytes([bytes[0], bytes[1]]).into(),
        4 => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into(),
        _ => bytes
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes)),
    };
    if ty.is_signed() {
        let up = 64 - ty.bits();
        ((value << up) as i64 >> up) as u64
    } else {
        value
    }
}

/// What a load or store moves: `n` elements of type `ty` for each lane, in registers of `bits` bits.
#[derive(Clone, Copy)]
pub(crate) struct Elements<'a> {
    ty: Type,
    bits: u8,
    slots: &'a [Slot],
}

impl<'a> Elements<'a> {
    pub(crate) const fn new(ty: Type, bits: u8, slots: &'a [Slot]) -> Self {
        Self { ty, bits, slots }
    }

    fn log_width(&self) -> u32 {
        (self.ty.bytes() as usize * self.slots.len()).ilog2()
    }

    /// Loads the first `n` lanes from neighbouring places.
    #[inline(always)]
    fn load_run(&self, r: &mut Registers, exec: u32, n: usize, bytes: &[u8]) {
        let size = self.ty.bytes() as usize;
        let width = size * self.slots.len();
        if let ([slot], 4, 32) = (self.slots, size, self.bits) {
            let register = r.fill_narrow(*slot, exec);
            for (register, bytes) in register.iter_mut().take(n).zip(bytes.as_chunks::<4>().0) {
                *register = u32::from_le_bytes(*bytes);
            }
            return;
        }
        for (i, &slot) in self.slots.iter().enumerate() {
            let places = bytes.chunks_exact(width);
            if self.bits == 64 {
                for (register, bytes) in r.fill_wide(slot, exec).iter_mut().zip(places) {
                    *register = element(&bytes[i * size..], self.ty);
                }
                continue;
            }
            let register = r.fill_narrow(slot, exec);
            if size == 4 {
                for (register, bytes) in register.iter_mut().zip(places) {
                    *register = element(&bytes[4 * i..], Type::B32) as u32;
                }
            } else {
                for (register, bytes) in register.iter_mut().zip(places) {
                    *register = cut(element(&bytes[i * size..], self.ty), self.bits);
                }
            }
        }
    }

    fn load_lane(&self, r: &mut Registers, lane: usize, bytes: &[u8]) {
        let size = self.ty.bytes() as usize;
        for (i, &slot) in self.slots.iter().enumerate() {
            r.set_lane(slot, self.bits, lane, element(&bytes[i * size..], self.ty));
        }
    }

    /// Stores the first lanes to neighbouring places.
    #[inline(always)]
    fn store_run(&self, r: &Registers, bytes: &mut [u8]) {
        if let ([slot], 4, 32) = (self.slots, self.ty.bytes(), self.bits) {
            for (bytes, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(r.narrow(*slot)) {
                *bytes = value.to_le_bytes();
            }
            return;
        }
        for (lane, bytes) in bytes.chunks_exact_mut(1 << self.log_width()).enumerate() {
            self.store_lane(r, lane, bytes);
        }
    }

    /// Puts a lane's elements into its bytes.
    #[inline(always)]
    fn store_lane(&self, r: &Registers, lane: usize, bytes: &mut [u8]) {
        let size = self.ty.bytes() as usize;
        for (&slot, bytes) in self.slots.iter().zip(bytes.chunks_exact_mut(size)) {
            let value = match self.bits {
                64 => r.wide(slot)[lane],
                _ => r.narrow(slot)[lane].into(),
            }
            .to_le_bytes();
            match size {
                1 => bytes[0] = value[0],
                2 => bytes.copy_from_slice(&value[..2]),
                4 => bytes.copy_from_slice(&value[..4]),
                _ => bytes.copy_from_slice(&value),
            }
        }
    }

    /// One lane's bytes.
    fn lane(&self, r: &Registers, lane: usize) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.store_lane(r, lane, &mut bytes[..1 << self.log_width()]);
        bytes
    }
}

/// Splits the lanes of generic addresses by the space they point to, with their addresses there.
fn by_space(
    at: &WideLanes,
    exec: u32,
    space: Space,
) -> impl Iterator<Item = (Space, u32, WideLanes)> {
    let of = |address| match window(address) {
        SHARED_WINDOW => Space::Shared,
        LOCAL_WINDOW => Space::Local,
        _ => Space::Global,
    };
    let at = *at;
    let parts = match space {
        Space::Generic => vec![Space::Global, Space::Shared, Space::Local],
        space => vec![space],
    };
    parts.into_iter().filter_map(move |part| {
        if space != Space::Generic {
            return Some((part, exec, at));
        }
        let mask = exec & crate::alu::lanes_where(|lane| of(at[lane]) == part);
        let base = generic(part, 0);
        (mask != 0).then(|| (part, mask, map1(&at, |address| address.wrapping_sub(base))))
    })
}

fn count(
    cx: &mut Context,
    site: Site,
    shared: bool,
    at: &WideLanes,
    log_width: u32,
    pattern: &Pattern,
) {
    let counts = &mut cx.counts[site.pc];
    if shared {
        count_wavefronts(counts, at, site.exec, log_width, pattern);
    } else {
        count_sectors(counts, at, site.exec, log_width, pattern);
    }
}

impl Warp {
    fn denied(&self, cx: &Context, denied: Denied, place: &Place, lane: usize) -> Box<Trap> {
        let Denied { mut kind, other } = denied;
        let code = cx.program.entry.code();
        let by_copy = |&(stamp, access): &(Stamp, Access)| {
            let op = code
                .get(order::pc(stamp))
                .map(|instruction| &instruction.op);
            access == Access::Write && matches!(op, Some(Op::CpAsync { .. }))
        };
        let from_copy = matches!(
            code[order::pc(place.stamp).min(code.len() - 1)].op,
            Op::CpAsync { .. }
        );
        if kind == FaultKind::SharedRace && !from_copy && other.as_ref().is_some_and(by_copy) {
            kind = FaultKind::AsyncBeforeWait;
        }
        let bytes = 1u64 << place.log_width;
        let verb = match place.access {
            Access::Read => "a read",
            Access::Write => "a write",
            Access::Atomic => "an atomic access",
        };
        let address = match place.shared {
            true => fault::Address::Shared(place.address),
            false => fault::Address::Global(place.address),
        };
        let mut trap = Trap::at(
            kind,
            lane as u32,
            address,
            format!("{verb} of {bytes} bytes"),
        );
        trap.other = other;
        trap
    }

    /// Admits a run of lanes that begins at `lane`, or finds the first lane that is denied.
    #[inline(always)]
    fn admit<'c>(
        &self,
        cx: &'c mut Context,
        place: &Place,
        lane: usize,
    ) -> Result<(&'c mut Region, usize), Box<Trap>> {
        let arrays = &cx.program.shared;
        // The borrow checker does not see that an error ends the borrow; asking twice costs only faults.
        if let Err(denied) = cx.spaces.admit(arrays, place) {
            for i in 0..place.lanes {
                let single = Place {
                    address: place.address.wrapping_add((i as u64) << place.log_width),
                    lanes: 1,
                    stamp: place.stamp + i as Stamp,
                    ..*place
                };
                if let Err(denied) = cx.spaces.admit(arrays, &single) {
                    return Err(self.denied(cx, denied, &single, lane + i));
                }
            }
            return Err(self.denied(cx, denied, place, lane));
        }
        if place.shared {
            let offset = place.address as usize;
            Ok((&mut cx.spaces.shared, offset))
        } else {
            let resolved = cx
                .spaces
                .memory
                .resolve(place.address, place.lanes << place.log_width);
            match resolved {
                Ok((region, _, offset)) => Ok((region, offset)),
                Err(kind) => Err(Trap::new(kind, lane as u32, "an access")),
            }
        }
    }

    pub(crate) fn load(
        &mut self,
        cx: &mut Context,
        site: Site,
        space: Space,
        elements: Elements,
        address: &Address,
        how: (Ordering, bool),
    ) -> Outcome {
        let at = addresses(&self.registers, cx.program, address, space);
        match space {
            Space::Param => return self.load_parameter(cx, site.exec, elements, &at),
            Space::Generic => {}
            space => return self.load_in(cx, site, space, elements, &at, how),
        }
        for (space, exec, at) in by_space(&at, site.exec, space) {
            self.load_in(cx, Site { exec, ..site }, space, elements, &at, how)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn load_in(
        &mut self,
        cx: &mut Context,
        site: Site,
        space: Space,
        elements: Elements,
        at: &WideLanes,
        (order, noncoherent): (Ordering, bool),
    ) -> Outcome {
        let Site { pc, exec } = site;
        let log_width = elements.log_width();
        if space == Space::Local {
            for lane in lanes(exec) {
                let offset = self.local_place(cx, at[lane], log_width, lane, true)?;
                elements.load_lane(
                    &mut self.registers,
                    lane,
                    &self.local[offset..offset + (1 << log_width)],
                );
            }
            return Ok(());
        }
        let shared = space == Space::Shared;
        let pattern = pattern(at, exec, log_width);
        if space != Space::Const {
            count(cx, site, shared, at, log_width, &pattern);
        }
        let first = exec.trailing_zeros() as usize;
        let stamp = cx.spaces.order.stamp(pc, self.index) + first as Stamp;
        let access = match order {
            Ordering::Weak => Access::Read,
            _ => Access::Atomic,
        };
        let mut place = Place::new(shared, at[first], log_width, stamp, access);
        place.noncoherent = noncoherent;
        match pattern {
            Pattern::Run(n) => {
                place.lanes = n;
                let (region, offset) = self.admit(cx, &place, 0)?;
                elements.load_run(
                    &mut self.registers,
                    exec,
                    n,
                    &region.bytes[offset..offset + (n << log_width)],
                );
            }
            Pattern::Same => {
                // Two lanes stand for all: whoever touches the place later differs from one of them.
                let last = 31 - exec.leading_zeros() as usize;
                let stamp = place.stamp + (last - first) as Stamp;
                self.admit(cx, &place, first)?;
                let (region, offset) = self.admit(cx, &Place { stamp, ..place }, last)?;
                let bytes = &region.bytes[offset..offset + (1 << log_width)];
                let size = elements.ty.bytes() as usize;
                for (i, &slot) in elements.slots.iter().enumerate() {
                    let value = element(&bytes[i * size..], elements.ty);
                    match elements.bits {
                        64 => self.registers.set_wide(slot, exec, &[value; 32]),
                        bits => self
                            .registers
                            .set_narrow(slot, exec, &[cut(value, bits); 32]),
                    }
                }
            }
            Pattern::Scattered => {
                let stamp = place.stamp - first as Stamp;
                for lane in lanes(exec) {
                    (place.address, place.stamp) = (at[lane], stamp + lane as Stamp);
                    let (region, offset) = self.admit(cx, &place, lane)?;
                    elements.load_lane(
                        &mut self.registers,
                        lane,
                        &region.bytes[offset..offset + (1 << log_width)],
                    );
                }
            }
        }
        if order != Ordering::Weak && cx.program.fences {
            let now = matches!(order, Ordering::Acquire | Ordering::AcqRel | Ordering::Sc);
            for lane in lanes(exec) {
                cx.spaces
                    .order
                    .acquire(self.thread(lane), key(shared, at[lane]), now);
            }
        }
        Ok(())
    }

    fn load_parameter(
        &mut self,
        cx: &mut Context,
        exec: u32,
        elements: Elements,
        at: &WideLanes,
    ) -> Outcome {
        let bytes = 1usize << elements.log_width();
        for lane in lanes(exec) {
            let start = at[lane] as usize;
            let end = start.saturating_add(bytes);
            let inside = |parameter: &Parameter| {
                let from = parameter.offset as usize;
                from <= start && end <= from + parameter.bytes as usize
            };
            // Between parameters lies what a compiler leaves there, which a driver need not copy.
            let signature = cx.program.entry.signature();
            let found = match cx.parameters.get(start..end) {
                Some(_) if !start.is_multiple_of(bytes) => Err(FaultKind::Misaligned),
                Some(found) if signature.iter().any(inside) => Ok(found),
                _ => Err(FaultKind::OutOfBounds),
            };
            let found = found.map_err(|kind| {
                let what = format!("a read of {bytes} bytes at byte {start} of the parameters");
                Trap::new(kind, lane as u32, what)
            })?;
            if exec == FULL && at.iter().all(|&address| address == at[0]) {
                let size = elements.ty.bytes() as usize;
                for (i, &slot) in elements.slots.iter().enumerate() {
                    let value = element(&found[i * size..], elements.ty);
                    match elements.bits {
                        64 => self.registers.set_wide(slot, exec, &[value; 32]),
                        bits => self
                            .registers
                            .set_narrow(slot, exec, &[cut(value, bits); 32]),
                    }
                }
                return Ok(());
            }
            elements.load_lane(&mut self.registers, lane, found);
        }
        Ok(())
    }

    /// Where a lane's local bytes lie in the warp's.
    fn local_place(
        &self,
        cx: &Context,
        address: u64,
        log_width: u32,
        lane: usize,
        loads: bool,
    ) -> Result<usize, Box<Trap>> {
        let bytes = 1u64 << log_width;
        let inside = |array: &Array| {
            array.range.start <= address && address.saturating_add(bytes) <= array.range.end
        };
        let offset = (address as usize).wrapping_add(lane * cx.program.local_bytes() as usize);
        let kind = if address & (bytes - 1) != 0 {
            FaultKind::Misaligned
        } else if !cx.program.local.iter().any(inside) {
            FaultKind::OutOfBounds
        } else if loads && self.local_written.missing(offset, bytes as usize).is_some() {
            FaultKind::UninitMemory
        } else {
            return Ok(offset);
        };
        let verb = if loads { "a read" } else { "a write" };
        Err(Trap::at(
            kind,
            lane as u32,
            fault::Address::Local(address),
            format!("{verb} of {bytes} bytes"),
        ))
    }

    pub(crate) fn store(
        &mut self,
        cx: &mut Context,
        site: Site,
        space: Space,
        elements: Elements,
        address: &Address,
        (order, scope): (Ordering, Scope),
    ) -> Outcome {
        let at = addresses(&self.registers, cx.program, address, space);
        let log_width = elements.log_width();
        let width = 1 << log_width;
        for (space, exec, at) in by_space(&at, site.exec, space) {
            let site = Site { exec, ..site };
            if space == Space::Local {
                for lane in lanes(exec) {
                    let offset = self.local_place(cx, at[lane], log_width, lane, false)?;
                    self.local[offset..offset + width]
                        .copy_from_slice(&elements.lane(&self.registers, lane)[..width]);
                    self.local_written.set(offset, width);
                }
                continue;
            }
            let shared = space == Space::Shared;
            let pattern = pattern(&at, exec, log_width);
            count(cx, site, shared, &at, log_width, &pattern);
            let stamp = cx.spaces.order.stamp(site.pc, self.index);
            let access = match order {
                Ordering::Weak => Access::Write,
                _ => Access::Atomic,
            };
            let mut place = Place::new(shared, at[0], log_width, stamp, access);
            place.loads = false;
            if let Pattern::Run(n) = pattern {
                place.lanes = n;
                let (region, offset) = self.admit(cx, &place, 0)?;
                elements.store_run(
                    &self.registers,
                    &mut region.bytes[offset..offset + (n << log_width)],
                );
                region.written.set(offset, n << log_width);
            } else {
                let mut last = None;
                let mut increasing = true;
                for lane in lanes(exec) {
                    increasing &= last.is_none_or(|last| last < at[lane]);
                    last = Some(at[lane]);
                }
                for lane in lanes(exec) {
                    let bytes = elements.lane(&self.registers, lane);
                    let earlier = (!increasing)
                        .then(|| {
                            lanes(exec & ((1 << lane) - 1)).find(|&earlier| at[earlier] == at[lane])
                        })
                        .flatten();
                    (place.address, place.stamp) = (at[lane], stamp + lane as Stamp);
                    if let Some(earlier) = earlier {
                        // The same bytes twice are no race; different ones are.
                        if elements.lane(&self.registers, earlier) != bytes
                            && order == Ordering::Weak
                        {
                            let kind = if shared {
                                FaultKind::SharedRace
                            } else {
                                FaultKind::GlobalRace
                            };
                            let other = Some((stamp + earlier as Stamp, Access::Write));
                            return Err(self.denied(cx, Denied { kind, other }, &place, lane));
                        }
                        if order == Ordering::Weak {
                            continue;
                        }
                    }
                    let (region, offset) = self.admit(cx, &place, lane)?;
                    region.bytes[offset..offset + width].copy_from_slice(&bytes[..width]);
                    region.written.set(offset, width);
                }
            }
            if order != Ordering::Weak && cx.program.fences {
                let release = matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::Sc)
                    .then(|| reach(scope));
                for lane in lanes(exec) {
                    cx.spaces.order.release(
                        self.thread(lane),
                        key(shared, at[lane]),
                        release,
                        false,
                    );
                    hold(cx, lane)?;
                }
            }
        }
        Ok(())
    }

    /// `atom` and `red`.
    pub(crate) fn atomic(&mut self, cx: &mut Context, site: Site, op: &Op) -> Outcome {
        let Op::Atomic {
            f,
            space,
            ty,
            d,
            ref address,
            b,
            c,
            order,
            scope,
        } = *op
        else {
            return Ok(());
        };
        let at = addresses(&self.registers, cx.program, address, space);
        let log_width = ty.bytes().ilog2();
        cx.counts[site.pc].atomics += u64::from(site.exec.count_ones());
        let file = ty.file();
        let value = |r: &Registers, slot, lane| r.value(crate::op::Operand { file, slot }, lane);
        for (space, exec, at) in by_space(&at, site.exec, space) {
            let site = Site { exec, ..site };
            let shared = space == Space::Shared;
            let pattern = pattern(&at, exec, log_width);
            count(cx, site, shared, &at, log_width, &pattern);
            let stamp = cx.spaces.order.stamp(site.pc, self.index);
            for lane in lanes(exec) {
                if space == Space::Local {
                    let local = fault::Address::Local(at[lane]);
                    return Err(Trap::at(
                        FaultKind::OutOfBounds,
                        lane as u32,
                        local,
                        "an atomic access to local memory",
                    ));
                }
                let stamp = stamp + lane as Stamp;
                let place = Place::new(shared, at[lane], log_width, stamp, Access::Atomic);
                let (b, c) = (
                    value(&self.registers, b, lane),
                    value(&self.registers, c, lane),
                );
                let (region, offset) = self.admit(cx, &place, lane)?;
                let bytes = &mut region.bytes[offset..offset + (1 << log_width)];
                let old = element(bytes, unsigned(ty));
                let new = modify(f, ty, old, b, c);
                bytes.copy_from_slice(&new.to_le_bytes()[..1 << log_width]);
                if let Some(d) = d {
                    self.registers.set_lane(d, ty.bits() as u8, lane, old);
                }
                if cx.program.fences {
                    let (thread, key) = (self.thread(lane), key(shared, at[lane]));
                    let acquires =
                        matches!(order, Ordering::Acquire | Ordering::AcqRel | Ordering::Sc);
                    let releases =
                        matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::Sc);
                    cx.spaces.order.acquire(thread, key, acquires);
                    cx.spaces
                        .order
                        .release(thread, key, releases.then(|| reach(scope)), true);
                    hold(cx, lane)?;
                }
            }
        }
        Ok(())
    }

    /// `cp.async`.
    pub(crate) fn copy_async(&mut self, cx: &mut Context, site: Site, op: &Op) -> Outcome {
        let Op::CpAsync {
            bytes,
            ref dst,
            ref src,
            src_bytes,
            ignore,
        } = *op
        else {
            return Ok(());
        };
        let Site { pc, exec } = site;
        let bytes = u32::from(bytes);
        let to = addresses(&self.registers, cx.program, dst, Space::Shared);
        let from = addresses(&self.registers, cx.program, src, Space::Global);
        let ignored = ignore.map_or(0, |predicate| self.registers.predicate(predicate));
        let wanted: Lanes = std::array::from_fn(|lane| match src_bytes {
            _ if ignored >> lane & 1 == 1 => 0,
            Some(slot) => self.registers.narrow(slot)[lane],
            None => bytes,
        });
        let log_width = bytes.ilog2();
        count(
            cx,
            site,
            true,
            &to,
            log_width,
            &pattern(&to, exec, log_width),
        );
        let reading = exec & crate::alu::lanes_where(|lane| wanted[lane] > 0);
        if reading != 0 {
            let (site, pattern) = (
                Site {
                    exec: reading,
                    ..site
                },
                pattern(&from, reading, log_width),
            );
            count(cx, site, false, &from, log_width, &pattern);
        }
        let stamp = cx.spaces.order.stamp(pc, self.index);
        for lane in lanes(exec) {
            let stamp = stamp + lane as Stamp;
            let place = Place::new(false, from[lane], log_width, stamp, Access::Read);
            let want = wanted[lane];
            if want > bytes {
                let what = format!("a copy of {want} bytes into {bytes}");
                let address = fault::Address::Global(from[lane]);
                return Err(Trap::at(FaultKind::OutOfBounds, lane as u32, address, what));
            }
            if want > 0 && from[lane] & u64::from(bytes - 1) != 0 {
                return Err(self.denied(
                    cx,
                    Denied {
                        kind: FaultKind::Misaligned,
                        other: None,
                    },
                    &place,
                    lane,
                ));
            }
            let mut done = 0;
            while done < want {
                let part = (want - done).ilog2();
                let address = from[lane].wrapping_add(done.into());
                self.admit(
                    cx,
                    &Place {
                        address,
                        log_width: part,
                        ..place
                    },
                    lane,
                )?;
                done += 1 << part;
            }
            let into = Place::new(true, to[lane], log_width, stamp, Access::Write);
            self.admit(cx, &into, lane)?;
            cx.counts[pc].async_bytes += u64::from(bytes);
            let spaces = &mut cx.spaces;
            spaces.poison.set(to[lane] as usize, bytes as usize);
            spaces.pending += 1;
            spaces.copies[self.index].push(Copy {
                lane: lane as u32,
                group: spaces.committed[self.index][lane],
                bytes,
                src_bytes: want,
                dst: to[lane],
                src: from[lane],
                stamp,
            });
        }
        Ok(())
    }

    pub(crate) fn commit_async(&self, cx: &mut Context, exec: u32) {
        for lane in lanes(exec) {
            cx.spaces.committed[self.index][lane] += 1;
        }
    }

    /// Waits until at most `left` of the committed groups are on their way; all copies end if it is none.
    pub(crate) fn wait_async(
        &self,
        cx: &mut Context,
        exec: u32,
        pc: usize,
        left: Option<u32>,
    ) -> Outcome {
        let now = cx.spaces.order.stamp(pc, self.index);
        for lane in lanes(exec) {
            let committed = cx.spaces.committed[self.index][lane];
            let done =
                |copy: &Copy| left.is_none_or(|left| copy.group < committed.saturating_sub(left));
            let arrays = &cx.program.shared;
            let outcome = cx
                .spaces
                .complete(arrays, self.index, lane as u32, now, done);
            outcome.map_err(|(denied, dst)| {
                let address = fault::Address::Shared(dst);
                let mut trap = Trap::at(denied.kind, lane as u32, address, "the end of a cp.async");
                trap.other = denied.other;
                trap
            })?;
        }
        Ok(())
    }

    pub(crate) fn load_matrix(
        &mut self,
        cx: &mut Context,
        pc: usize,
        trans: bool,
        d: &[Slot],
        space: Space,
        address: &Address,
    ) -> Outcome {
        // Each matrix takes its rows' addresses from eight lanes; before sm_80 every lane must have one.
        let asked = match cx.program.target() {
            ..80 => FULL,
            _ => FULL >> (32 - 8 * d.len()),
        };
        if let Some(Operand { file, slot }) = register(address) {
            let missing = asked & !self.registers.written(file, slot);
            if missing != 0 {
                return Err(self.uninit(cx, file, slot, missing));
            }
        }
        let at = addresses(&self.registers, cx.program, address, space);
        let at = match space {
            Space::Generic => map1(&at, |address| address.wrapping_sub(SHARED_WINDOW)),
            _ => at,
        };
        let stamp = cx.spaces.order.stamp(pc, self.index);
        for (matrix, &slot) in d.iter().enumerate() {
            let mut tile = [[0u8; 16]; 8];
            for (row, bytes) in tile.iter_mut().enumerate() {
                let lane = layout::ldmatrix_address_lane(matrix, row);
                // Words of a row go to four neighbouring lanes.
                let stamp = stamp + 4 * row as Stamp;
                let mut place = Place::new(true, at[lane], 2, stamp, Access::Read);
                place.lanes = 4;
                if at[lane] % 16 != 0 {
                    let place = Place {
                        log_width: 4,
                        ..place
                    };
                    return Err(self.denied(
                        cx,
                        Denied {
                            kind: FaultKind::Misaligned,
                            other: None,
                        },
                        &place,
                        lane,
                    ));
                }
                let (region, offset) = self.admit(cx, &place, 4 * row)?;
                bytes.copy_from_slice(&region.bytes[offset..offset + 16]);
            }
            let members = 0xff << (8 * matrix);
            let counts = &mut cx.counts[pc];
            counts.shared_wavefronts_min += 1;
            counts.shared_wavefronts += wavefronts(&at, members, 4);
            let half = |(row, column): (usize, usize)| {
                u16::from_le_bytes([tile[row][2 * column], tile[row][2 * column + 1]])
            };
            let v: Lanes = std::array::from_fn(|lane| {
                let [low, high] = [0, 1].map(|i| half(layout::ldmatrix(lane, i, trans)));
                half::pack(low, high)
            });
            self.registers.set_narrow(slot, FULL, &v);
        }
        Ok(())
    }

    /// `prefetch`: nothing but the check of the address.
    pub(crate) fn prefetch(&self, cx: &mut Context, exec: u32, address: &Address) -> Outcome {
        let at = addresses(&self.registers, cx.program, address, Space::Global);
        for lane in lanes(exec) {
            if window(at[lane]) != SHARED_WINDOW && window(at[lane]) != LOCAL_WINDOW {
                cx.spaces.memory.resolve(at[lane], 1).map_err(|kind| {
                    Trap::at(
                        kind,
                        lane as u32,
                        fault::Address::Global(at[lane]),
                        "a prefetch",
                    )
                })?;
            }
        }
        Ok(())
    }

    /// `mov` of a variable's address.
    pub(crate) fn address_of(&mut self, cx: &Context, exec: u32, op: &Op) {
        let Op::AddressOf {
            d,
            wide,
            ref address,
            space,
            generic: is_generic,
        } = *op
        else {
            return;
        };
        let at = addresses(&self.registers, cx.program, address, space);
        let at = map1(&at, |address| {
            if is_generic {
                generic(space, address)
            } else {
                address
            }
        });
        match wide {
            true => self.registers.set_wide(d, exec, &at),
            false => self
                .registers
                .set_narrow(d, exec, &map1(&at, |address| address as u32)),
        }
    }
}

/// The name of a place for releases and acquires.
const fn key(shared: bool, address: u64) -> u64 {
    if shared {
        SHARED_WINDOW | address
    } else {
        address
    }
}

pub(crate) const fn reach(scope: Scope) -> order::Scope {
    match scope {
        Scope::Block | Scope::Cluster => order::Scope::Block,
        Scope::Device | Scope::System => order::Scope::Device,
    }
}

const fn unsigned(ty: Type) -> Type {
    match ty.bits() {
        16 => Type::B16,
        64 => Type::B64,
        _ => Type::B32,
    }
}

/// What an atomic function leaves in memory.
fn modify(f: Atomic, ty: Type, old: u64, b: u64, c: u64) -> u64 {
    let [x, y] = [old, b].map(|bits| bits as u32);
    let halves = |add: fn(u16, u16, HalfMode) -> u16| {
        let sum = |a, b| add(a, b, HalfMode::PLAIN);
        match ty.bits() {
            32 => half::packed2(x, y, sum).into(),
            _ => u64::from(sum(x as u16, y as u16)),
        }
    };
    match (f, ty) {
        (Atomic::Exch, _) => b,
        (Atomic::Cas, _) => {
            if old == b {
                c
            } else {
                old
            }
        }
        (Atomic::And, _) => old & b,
        (Atomic::Or, _) => old | b,
        (Atomic::Xor, _) => old ^ b,
        (Atomic::Inc, _) => {
            if x >= y {
                0
            } else {
                u64::from(x + 1)
            }
        }
        (Atomic::Dec, _) => {
            if x == 0 || x > y {
                y.into()
            } else {
                u64::from(x - 1)
            }
        }
        (Atomic::Add, Type::F32) => atomic_add_f32(x, y).into(),
        (Atomic::Add, Type::F64) => float::add_f64(old, b, Rounding::Rn),
        (Atomic::Add, Type::F16 | Type::F16x2) => halves(half::add::<F16>),
        (Atomic::Add, Type::Bf16 | Type::Bf16x2) => halves(half::add::<Bf16>),
        (Atomic::Add, _) if ty.bits() == 64 => old.wrapping_add(b),
        (Atomic::Add, _) => x.wrapping_add(y).into(),
        (Atomic::Min, Type::S32) => (x as i32).min(y as i32) as u32 as u64,
        (Atomic::Max, Type::S32) => (x as i32).max(y as i32) as u32 as u64,
        (Atomic::Min, Type::S64) => (old as i64).min(b as i64) as u64,
        (Atomic::Max, Type::S64) => (old as i64).max(b as i64) as u64,
        (Atomic::Min, _) => old.min(b),
        (Atomic::Max, _) => old.max(b),
    }
}
