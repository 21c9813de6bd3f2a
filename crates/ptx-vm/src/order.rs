//! Which accesses come before which: the happens-before order that barriers, fences and atomics give to a launch.
//!
//! Lock-step and the order in which the machine happens to run warps give none. A launch has one clock that ticks at each
//! barrier and fence; an access is stamped with the clock, its instruction and its thread. Another thread has seen it if a
//! barrier or a chain of fences and atomics made everything up to a later tick visible to that thread.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

/// A clock reading, an instruction and a thread of a block, in 32, 22 and 10 bits; 0 is no access.
pub(crate) type Stamp = u64;

const THREADS: u64 = 1023;
const PC_BITS: u32 = 22;

/// The thread of a stamp.
#[inline(always)]
pub(crate) const fn thread(stamp: Stamp) -> u32 {
    (stamp & THREADS) as u32
}

/// The instruction of a stamp.
pub(crate) const fn pc(stamp: Stamp) -> usize {
    (stamp >> 10) as usize & ((1 << PC_BITS) - 1)
}

const fn time(stamp: Stamp) -> u32 {
    (stamp >> 32) as u32
}

/// Whose accesses a [`Clock`] speaks of: all threads of a block, one of its warps, or one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    Block,
    Warp(u32),
    Thread(u32),
}

/// For blocks and their parts: the time up to which their accesses are visible.
#[derive(Debug)]
struct Clock {
    seen: HashMap<(u32, Unit), u32>,
    /// How many times all clocks of the launch hold.
    held: Rc<Cell<u64>>,
}

impl Clock {
    fn new(held: &Rc<Cell<u64>>) -> Self {
        Self {
            seen: HashMap::new(),
            held: held.clone(),
        }
    }

    fn see(&mut self, block: u32, unit: Unit, time: u32) {
        let held = &self.held;
        let seen = self.seen.entry((block, unit)).or_insert_with(|| {
            held.set(held.get() + 1);
            0
        });
        *seen = time.max(*seen);
    }

    fn has_seen(&self, block: u32, unit: Unit, time: u32) -> bool {
        self.seen
            .get(&(block, unit))
            .is_some_and(|&seen| seen >= time)
    }
}

impl Clone for Clock {
    fn clone(&self) -> Self {
        self.held.set(self.held.get() + self.seen.len() as u64);
        Self {
            seen: self.seen.clone(),
            held: self.held.clone(),
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.held.set(self.held.get() - self.seen.len() as u64);
    }
}

fn join(into: &mut Option<Rc<Clock>>, from: &Rc<Clock>) {
    match into {
        None => *into = Some(from.clone()),
        Some(into) if Rc::ptr_eq(into, from) => {}
        Some(into) => {
            let into = Rc::make_mut(into);
            for (&(block, unit), &time) in &from.seen {
                into.see(block, unit, time);
            }
        }
    }
}

fn maximum(into: &mut [u32; 32], from: &[u32; 32]) {
    for (into, &from) in into.iter_mut().zip(from) {
        *into = from.max(*into);
    }
}

/// What a warp had seen and done when it arrived at a barrier without waiting.
#[derive(Debug)]
pub(crate) struct Arrival {
    seen: [u32; 32],
    acquired: Option<Rc<Clock>>,
}

/// How far a fence, release or acquire reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Block,
    Device,
}

/// What a fence makes visible: to everyone, and to the block alone.
#[derive(Clone, Debug, Default)]
struct Published {
    device: Option<Rc<Clock>>,
    block: Option<(u32, Rc<Clock>)>,
}

impl Published {
    fn join(&mut self, other: &Self) {
        if let Some(clock) = &other.device {
            join(&mut self.device, clock);
        }
        match (&mut self.block, &other.block) {
            (Some((mine, clock)), Some((block, more))) if mine == block => {
                let mut joined = Some(clock.clone());
                join(&mut joined, more);
                if let Some(joined) = joined {
                    *clock = joined;
                }
            }
            (mine, Some(theirs)) => *mine = Some(theirs.clone()),
            (_, None) => {}
        }
    }
}

/// What a thread knows by fences and atomics, beyond barriers.
#[derive(Debug, Default)]
struct Knowledge {
    /// What is visible to it.
    acquired: Option<Rc<Clock>>,
    /// What its last fence would release.
    fenced: Published,
    /// What its atomics have met since; the next fence acquires it.
    met: Published,
}

/// The order of one launch.
#[derive(Debug)]
pub(crate) struct Order {
    now: u32,
    /// The time at which the current block began. Blocks run one after the other.
    start: u32,
    /// All threads of the block have seen each other up to here.
    floor: u32,
    block: u32,
    /// The time up to which warps have seen warps: `seen[a][b]` of b by a, `seen[a][a]` for the lanes of a.
    seen: Vec<[u32; 32]>,
    /// The same for lanes of a warp, once masks of `bar.warp.sync` are partial.
    lanes: Vec<Option<Box<[[u32; 32]; 32]>>>,
    /// When each block began.
    starts: Vec<(u32, u32)>,
    /// Whether the kernel has fences, acquires or releases.
    fences: bool,
    known: HashMap<u32, Knowledge>,
    published: HashMap<u64, Published>,
    /// How many times all clocks hold.
    held: Rc<Cell<u64>>,
}

/// What is settled at an access: stamps that need no closer look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    start: u64,
    span: u64,
}

impl View {
    /// Whether `a` may be unordered with the access of stamp `b`.
    #[inline(always)]
    pub(crate) const fn suspect(self, a: Stamp, b: Stamp) -> bool {
        (a != 0) & !self.settled(a) & !(((a ^ b) & THREADS == 0) & (a >= self.start))
    }

    /// Whether every thread of the block has seen `a`.
    #[inline(always)]
    pub(crate) const fn settled(self, a: Stamp) -> bool {
        a.wrapping_sub(self.start) < self.span
    }

    /// Whether `a` is of an earlier block.
    #[inline(always)]
    pub(crate) const fn foreign(self, a: Stamp) -> bool {
        a < self.start
    }

    /// Whether stamps between these two need no look at all.
    #[inline(always)]
    pub(crate) const fn all_settled(self, earliest: Stamp, latest: Stamp) -> bool {
        latest == 0 || (earliest >= self.start && self.settled(latest))
    }
}

impl Order {
    pub(crate) fn new(fences: bool) -> Self {
        Self {
            now: 0,
            start: 0,
            floor: 0,
            block: 0,
            seen: Vec::new(),
            lanes: Vec::new(),
            starts: Vec::new(),
            fences,
            known: HashMap::new(),
            published: HashMap::new(),
            held: Rc::default(),
        }
    }

    /// Bytes of its notes, which grow with blocks, fences and the addresses of atomics.
    pub(crate) fn bytes(&self) -> u64 {
        let entries = 16 * self.starts.len() + 128 * (self.published.len() + self.known.len());
        entries as u64 + 32 * self.held.get()
    }

    /// A block begins, with nothing seen.
    pub(crate) fn begin_block(&mut self, block: u32, warps: usize) {
        self.now = self.now.saturating_add(1);
        (self.start, self.floor, self.block) = (self.now, self.now - 1, block);
        self.seen.clear();
        self.seen.resize(warps, [0; 32]);
        self.lanes.clear();
        self.lanes.resize_with(warps, || None);
        self.starts.push((self.now, block));
        self.known.clear();
    }

    /// Whether the clock has run out, after four milliards of barriers and fences.
    pub(crate) const fn exhausted(&self) -> bool {
        self.now == u32::MAX
    }

    /// The stamp of lane 0 of a warp; lane l's is l more.
    #[inline(always)]
    pub(crate) fn stamp(&self, pc: usize, warp: usize) -> Stamp {
        let pc = pc.min((1 << PC_BITS) - 1) as u64;
        u64::from(self.now) << 32 | pc << 10 | (warp as u64 * 32)
    }

    /// For shared memory, where earlier blocks do not matter.
    #[inline(always)]
    pub(crate) const fn shared_view(&self) -> View {
        View {
            start: 0,
            span: (self.floor as u64 + 1) << 32,
        }
    }

    /// For global memory.
    #[inline(always)]
    pub(crate) const fn global_view(&self) -> View {
        let start = (self.start as u64) << 32;
        View {
            start,
            span: ((self.floor as u64 + 1) << 32) - start,
        }
    }

    /// The block of a stamp.
    pub(crate) fn block_of(&self, stamp: Stamp) -> u32 {
        let next = self
            .starts
            .partition_point(|&(start, _)| start <= time(stamp));
        self.starts[next.saturating_sub(1)].1
    }

    /// Whether the access `a` comes before that of stamp `b`, which happens now; `shared` memory dies with its block.
    pub(crate) fn before(&self, a: Stamp, b: Stamp, shared: bool) -> bool {
        let (at, ta, tb) = (time(a), thread(a), thread(b));
        let (wa, wb) = (ta as usize / 32, tb as usize / 32);
        let foreign = at < self.start;
        if a == 0 || foreign && shared {
            return true;
        }
        if !foreign {
            let by_lanes = |seen: &[[u32; 32]; 32]| seen[tb as usize % 32][ta as usize % 32] >= at;
            if ta == tb
                || at <= self.floor
                || at <= self.seen[wb][wa]
                || wa == wb && self.lanes[wb].as_deref().is_some_and(by_lanes)
            {
                return true;
            }
        }
        let block = self.block_of(a);
        let acquired = self
            .known
            .get(&tb)
            .and_then(|known| known.acquired.as_ref());
        acquired.is_some_and(|clock| {
            [Unit::Block, Unit::Warp(wa as u32), Unit::Thread(ta)]
                .iter()
                .any(|&unit| clock.has_seen(block, unit, at))
        })
    }

    fn tick(&mut self) {
        self.now = self.now.saturating_add(1);
    }

    /// A barrier of all the block's threads.
    pub(crate) fn block_barrier(&mut self) {
        self.floor = self.now;
        self.tick();
        let threads = 0..32 * self.seen.len() as u32;
        let mut acquired = None;
        self.collect(threads.clone(), &mut acquired);
        self.spread(threads, acquired);
    }

    /// A warp arrives at a barrier at which it does not wait.
    pub(crate) fn arrive(&mut self, warp: usize) -> Arrival {
        let mut seen = self.seen[warp];
        seen[warp] = self.now;
        // What the warp does from here on is not part of it.
        self.tick();
        let mut acquired = None;
        self.collect(32 * warp as u32..32 * warp as u32 + 32, &mut acquired);
        Arrival { seen, acquired }
    }

    /// A barrier of some warps: those that wait see all that these and the merely arriving ones have seen and done.
    pub(crate) fn warp_barrier(&mut self, waiting: u32, arrived: &[Arrival]) {
        let members: Vec<usize> = (0..self.seen.len())
            .filter(|&warp| waiting >> warp & 1 == 1)
            .collect();
        let threads = || {
            members
                .iter()
                .flat_map(|&warp| 32 * warp as u32..32 * warp as u32 + 32)
        };
        let (mut seen, mut acquired) = ([0u32; 32], None);
        for &warp in &members {
            maximum(&mut seen, &self.seen[warp]);
            seen[warp] = self.now;
        }
        for arrival in arrived {
            maximum(&mut seen, &arrival.seen);
            if let Some(clock) = &arrival.acquired {
                join(&mut acquired, clock);
            }
        }
        for &warp in &members {
            maximum(&mut self.seen[warp], &seen);
        }
        self.tick();
        self.collect(threads(), &mut acquired);
        self.spread(threads(), acquired);
    }

    /// `bar.warp.sync` of the lanes in `mask`; `whole` when these are all that have not exited.
    pub(crate) fn warp_sync(&mut self, warp: usize, mask: u32, whole: bool) {
        if whole {
            self.seen[warp][warp] = self.now;
        } else {
            let seen = self.lanes[warp].get_or_insert_with(|| Box::new([[0; 32]; 32]));
            let members = || (0..32).filter(move |lane| mask >> lane & 1 == 1);
            let mut joined = [0u32; 32];
            for lane in members() {
                maximum(&mut joined, &seen[lane]);
            }
            members().for_each(|lane| joined[lane] = self.now);
            members().for_each(|lane| seen[lane] = joined);
        }
        self.tick();
        let first = 32 * warp as u32;
        let threads = (first..first + 32).filter(|thread| mask >> (thread % 32) & 1 == 1);
        let mut acquired = None;
        self.collect(threads.clone(), &mut acquired);
        self.spread(threads, acquired);
    }

    /// Joins what threads acquired.
    fn collect(&self, threads: impl Iterator<Item = u32>, into: &mut Option<Rc<Clock>>) {
        if self.known.is_empty() {
            return;
        }
        for thread in threads {
            if let Some(clock) = self
                .known
                .get(&thread)
                .and_then(|known| known.acquired.as_ref())
            {
                join(into, clock);
            }
        }
    }

    /// Threads that meet at a barrier have acquired what each of them did.
    fn spread(&mut self, threads: impl Iterator<Item = u32>, acquired: Option<Rc<Clock>>) {
        if let Some(clock) = acquired {
            for thread in threads {
                join(&mut self.known.entry(thread).or_default().acquired, &clock);
            }
        }
    }

    /// All that `thread` has done and seen.
    fn snapshot(&mut self, thread: u32, scope: Scope) -> Published {
        let warp = thread as usize / 32;
        let mut clock = self
            .known
            .get(&thread)
            .and_then(|known| known.acquired.as_deref().cloned())
            .unwrap_or_else(|| Clock::new(&self.held));
        clock.see(self.block, Unit::Block, self.floor);
        for (other, &seen) in self.seen[warp].iter().enumerate() {
            if seen > self.floor {
                clock.see(self.block, Unit::Warp(other as u32), seen);
            }
        }
        if let Some(lanes) = &self.lanes[warp] {
            for (lane, &seen) in lanes[thread as usize % 32].iter().enumerate() {
                let other = Unit::Thread((warp * 32 + lane) as u32);
                if seen > self.floor {
                    clock.see(self.block, other, seen);
                }
            }
        }
        clock.see(self.block, Unit::Thread(thread), self.now);
        // What the thread does from here on is not part of it.
        self.tick();
        match scope {
            Scope::Device => Published {
                device: Some(Rc::new(clock)),
                block: None,
            },
            Scope::Block => Published {
                device: None,
                block: Some((self.block, Rc::new(clock))),
            },
        }
    }

    /// A fence: what the thread's atomics met before is acquired, what it did before can be released.
    pub(crate) fn fence(&mut self, thread: u32, scope: Scope) {
        let met = std::mem::take(&mut self.known.entry(thread).or_default().met);
        self.acquire_now(thread, &met);
        self.known.entry(thread).or_default().fenced = self.snapshot(thread, scope);
    }

    fn acquire_now(&mut self, thread: u32, met: &Published) {
        let block = self.block;
        let known = self.known.entry(thread).or_default();
        if let Some(clock) = &met.device {
            join(&mut known.acquired, clock);
        }
        if let Some((of, clock)) = &met.block
            && *of == block
        {
            join(&mut known.acquired, clock);
        }
    }

    /// An atomic read of `address`: what was released there is acquired, now or by the next fence.
    pub(crate) fn acquire(&mut self, thread: u32, address: u64, now: bool) {
        if !self.fences {
            return;
        }
        let Some(published) = self.published.get(&address).cloned() else {
            return;
        };
        if now {
            self.acquire_now(thread, &published);
        } else {
            self.known.entry(thread).or_default().met.join(&published);
        }
    }

    /// An atomic write to `address`, which releases all so far where `release` gives a scope, else what the last fence covered. A
    /// read-modify-write goes on with what was released there before.
    pub(crate) fn release(&mut self, thread: u32, address: u64, release: Option<Scope>, rmw: bool) {
        if !self.fences {
            return;
        }
        let published = match release {
            Some(scope) => self.snapshot(thread, scope),
            None => self
                .known
                .get(&thread)
                .map(|known| known.fenced.clone())
                .unwrap_or_default(),
        };
        let entry = self.published.entry(address).or_default();
        if rmw {
            entry.join(&published);
        } else {
            *entry = published;
        }
    }
}
