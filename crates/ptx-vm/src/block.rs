//! A block: its warps, the order in which they run, and the barriers at which they meet.

use crate::fault::{FaultKind, Trap};
use crate::launch::Context;
use crate::limits::Schedule;
use crate::op::{Barrier, Logic, Op};
use crate::order::Arrival;
use crate::warp::{Stop, Warp};

const BARRIERS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// It ran long enough; others come first.
    Yielded,
    /// At the barrier at this instruction.
    Waiting(usize),
    Done,
}

/// A warp that waits at a barrier.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    warp: usize,
    barrier: Barrier,
    exec: u32,
}

/// One of the block's barriers, from the first arrival to the last.
#[derive(Debug, Default)]
struct Resource {
    /// What the first arrival said: the number of threads and the kind.
    terms: Option<(Option<u32>, u8)>,
    waiting: Vec<Waiting>,
    arrived: Vec<Arrival>,
    /// Threads whose predicate holds, of so many.
    holds: u32,
    threads: u32,
}

/// The block that runs; its warps are made once for all blocks of a launch.
#[derive(Debug)]
pub(crate) struct Block {
    warps: Vec<Warp>,
    states: Vec<State>,
    barriers: [Resource; BARRIERS],
}

impl Block {
    pub(crate) fn new(cx: &Context) -> Self {
        let warps = cx.threads.div_ceil(32) as usize;
        Self {
            warps: (0..warps).map(|index| Warp::new(cx, index)).collect(),
            states: vec![State::Ready; warps],
            barriers: Default::default(),
        }
    }

    /// Runs a block to its end. A fault comes with the warp.
    pub(crate) fn run(&mut self, cx: &mut Context) -> Result<(), (usize, Box<Trap>)> {
        self.warps.iter_mut().for_each(|warp| warp.begin(cx));
        self.states.fill(State::Ready);
        self.barriers = Default::default();
        while let Some(warp) = self.next(cx)? {
            let stop = self.warps[warp].run(cx).map_err(|trap| (warp, trap))?;
            match stop {
                Stop::Yield => self.states[warp] = State::Yielded,
                Stop::Barrier(pc, exec) => {
                    self.meet(cx, warp, pc, exec).map_err(|mut trap| {
                        trap.pc = Some(pc);
                        (warp, trap)
                    })?;
                }
                Stop::Done => {
                    self.states[warp] = State::Done;
                    // Barriers do not wait for threads that have exited.
                    (0..BARRIERS).for_each(|id| self.complete(cx, id));
                }
            }
        }
        Ok(())
    }

    /// The warp that runs next; none when all are done.
    fn next(&mut self, cx: &mut Context) -> Result<Option<usize>, (usize, Box<Trap>)> {
        let random = matches!(cx.schedule, Schedule::Seeded(_));
        let can_run = |state: &State| *state == State::Ready || random && *state == State::Yielded;
        if !self.states.iter().any(can_run) {
            let yielded = self
                .states
                .iter_mut()
                .filter(|state| **state == State::Yielded);
            yielded.for_each(|state| *state = State::Ready);
        }
        let ready = self.states.iter().filter(|state| can_run(state)).count();
        if ready > 0 {
            let choice = match cx.schedule {
                Schedule::InOrder => 0,
                Schedule::Reverse => ready - 1,
                Schedule::Seeded(_) => cx.random.below(ready),
            };
            let mut can = (0..self.states.len()).filter(|&warp| can_run(&self.states[warp]));
            return Ok(can.nth(choice));
        }
        for (warp, state) in self.states.iter().enumerate() {
            if let State::Waiting(pc) = *state {
                let lane = self.warps[warp].alive.trailing_zeros();
                let mut trap = Trap::new(
                    FaultKind::Deadlock,
                    lane,
                    "every thread waits at a barrier that others do not reach",
                );
                trap.pc = Some(pc);
                return Err((warp, trap));
            }
        }
        Ok(None)
    }

    /// A warp has come to a barrier.
    fn meet(
        &mut self,
        cx: &mut Context,
        warp: usize,
        pc: usize,
        exec: u32,
    ) -> Result<(), Box<Trap>> {
        let Op::Barrier { f, id, threads, .. } = cx.program.entry.code()[pc].op else {
            return Ok(());
        };
        let lane = exec.trailing_zeros();
        let fault = |what: String| Err(Trap::new(FaultKind::BarrierDivergence, lane, what));
        let runner = &mut self.warps[warp];
        let id = runner.registers.narrow(id)[lane as usize];
        if id as usize >= BARRIERS {
            return fault(format!("barrier {id} of 16"));
        }
        let threads = threads.map(|slot| runner.registers.narrow(slot)[lane as usize]);
        if let Some(threads) = threads
            && (threads == 0 || threads % 32 != 0)
        {
            return fault(format!(
                "a barrier of {threads} threads, which is no multiple of 32"
            ));
        }
        let (kind, predicate) = match f {
            Barrier::Sync | Barrier::Arrive => (0, None),
            Barrier::Popc { a, .. } => (1, Some(a)),
            Barrier::Reduce {
                f: Logic::And, a, ..
            } => (2, Some(a)),
            Barrier::Reduce { a, .. } => (3, Some(a)),
        };
        let resource = &mut self.barriers[id as usize];
        let terms = *resource.terms.get_or_insert((threads, kind));
        if terms != (threads, kind) {
            return fault(format!("barrier {id} is used in two ways at a time"));
        }
        resource.threads += exec.count_ones();
        resource.holds +=
            predicate.map_or(0, |predicate| runner.holds(predicate, exec).count_ones());
        if f == Barrier::Arrive {
            resource.arrived.push(cx.spaces.order.arrive(warp));
        } else {
            self.states[warp] = State::Waiting(pc);
            resource.waiting.push(Waiting {
                warp,
                barrier: f,
                exec,
            });
        }
        self.complete(cx, id as usize);
        Ok(())
    }

    /// Releases a barrier if all have come.
    fn complete(&mut self, cx: &mut Context, id: usize) {
        let resource = &mut self.barriers[id];
        let Some((threads, kind)) = resource.terms else {
            return;
        };
        let running = self
            .states
            .iter()
            .filter(|&&state| state != State::Done)
            .count();
        let come = resource.waiting.len() + resource.arrived.len();
        let complete = match threads {
            None => come >= running,
            Some(threads) => 32 * come as u32 >= threads,
        };
        if !complete {
            return;
        }
        let resource = std::mem::take(resource);
        if resource.waiting.len() == running {
            cx.spaces.order.block_barrier();
        } else {
            let mask = resource
                .waiting
                .iter()
                .fold(0, |mask, waiting| mask | 1 << waiting.warp);
            cx.spaces.order.warp_barrier(mask, &resource.arrived);
        }
        let holds = match kind {
            2 => resource.holds == resource.threads,
            _ => resource.holds > 0,
        };
        for Waiting {
            warp,
            barrier,
            exec,
        } in resource.waiting
        {
            self.warps[warp].answer(barrier, exec, resource.holds, holds);
            self.states[warp] = State::Ready;
        }
    }
}
