//! A launch: its grid, block after block, on one thread.

use crate::access::Spaces;
use crate::block::Block;
use crate::counters::{Counts, Report};
use crate::error::{Error, Result};
use crate::fault::{Address, Fault, FaultKind, Party, Place, Trap};
use crate::limits::{Limits, Random, Schedule};
use crate::memory::{Memory, window};
use crate::module::{Entry, Module};
use crate::num::approx::Approx;
use crate::op::{Space, Type};
use crate::order;
use crate::program::{Array, Program};
use crate::warp::{Next, Stop};
use std::time::{Duration, Instant};
use whittle_tensor::kernel::Arg;

/// What all warps of a launch share.
pub(crate) struct Context<'a> {
    pub(crate) program: &'a Program<'a>,
    pub(crate) spaces: Spaces<'a>,
    /// One for each instruction.
    pub(crate) counts: Vec<Counts>,
    /// Warp instructions that may still run, and how many might at first.
    pub(crate) left: u64,
    pub(crate) limit: u64,
    /// When the launch must have ended.
    pub(crate) deadline: Option<Instant>,
    pub(crate) schedule: Schedule,
    pub(crate) random: Random,
    pub(crate) approx: Approx,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) block_index: [u32; 3],
    /// Threads of a block.
    pub(crate) threads: u32,
    pub(crate) parameters: Vec<u8>,
    pub(crate) dynamic_shared: u32,
    pub(crate) shared_bytes: u32,
}

/// Warp instructions between two looks at the clock.
pub(crate) const CHECKED_AFTER: u64 = 1 << 16;

impl Context<'_> {
    /// Whether the launch has used up its time.
    #[cold]
    pub(crate) fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() > deadline)
    }

    /// After a memory access, a seeded schedule may let another warp run.
    #[inline(always)]
    pub(crate) fn after_access(&mut self) -> Next {
        match self.schedule {
            Schedule::Seeded(_) if self.random.below(4) == 0 => Next::Stop(Stop::Yield),
            _ => Next::Step,
        }
    }
}

/// What is launched.
pub(crate) struct Launch<'a> {
    pub(crate) module: &'a Module,
    pub(crate) entry: &'a Entry,
    /// The file of the text, for faults.
    pub(crate) file: &'a str,
    /// Addresses of the module's variables.
    pub(crate) placed: &'a [u64],
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) dynamic_shared: u32,
    pub(crate) args: &'a [Arg],
}

/// Bytes of a thread's registers.
fn registers_bytes(entry: &Entry) -> u64 {
    let [narrow, wide, predicates] = entry.registers().map(|n| n as u64);
    4 * narrow + 8 * wide + predicates
}

/// The product of three sizes.
fn volume(of: [u32; 3]) -> u64 {
    of.iter()
        .fold(1, |product: u64, &size| product.saturating_mul(size.into()))
}

/// The index in a grid or block of size `of` behind a number.
fn index(number: u32, [x, y, _]: [u32; 3]) -> [u32; 3] {
    [number % x, number / x % y, number / x / y]
}

const fn greatest_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Launch<'_> {
    /// Runs all blocks.
    pub(crate) fn run(&self, memory: &mut Memory, limits: &Limits) -> Result<Report> {
        let shared_bytes = self.check(limits)?;
        let parameters = self.parameters()?;
        let program = Program::new(self.module, self.entry, self.placed, self.dynamic_shared);
        let threads = volume(self.block) as u32;
        let thread = program
            .local_bytes()
            .saturating_add(registers_bytes(self.entry));
        let state = thread
            .saturating_mul(32 * u64::from(threads.div_ceil(32)))
            .saturating_add(program.shared_bytes());
        if state > memory.left() {
            return Err(Error::Limit {
                what: "bytes of registers, local and shared memory of a block",
                limit: memory.left(),
                found: state,
            });
        }
        let mut cx = Context {
            spaces: Spaces::new(memory, &program, threads.div_ceil(32) as usize, state),
            program: &program,
            counts: vec![Counts::default(); self.entry.code().len()],
            left: limits.instructions,
            limit: limits.instructions,
            deadline: Instant::now().checked_add(Duration::from_secs(limits.seconds)),
            schedule: limits.schedule,
            random: Random::new(match limits.schedule {
                Schedule::Seeded(seed) => seed,
                Schedule::InOrder | Schedule::Reverse => 0,
            }),
            approx: limits.approx,
            grid: self.grid,
            block: self.block,
            block_index: [0; 3],
            threads,
            parameters,
            dynamic_shared: self.dynamic_shared,
            shared_bytes,
        };
        let outcome = self.blocks(&mut cx);
        let counts = std::mem::take(&mut cx.counts);
        memory.forget_launch();
        outcome?;
        Ok(Report::new(
            self.entry,
            self.grid,
            self.block,
            shared_bytes,
            &counts,
        ))
    }

    fn blocks(&self, cx: &mut Context) -> Result<()> {
        let n = volume(self.grid);
        // Every number below n once: in order, or in steps that share no divisor with n.
        let (mut stride, mut at) = (1, 0);
        if let Schedule::Seeded(_) = cx.schedule {
            at = cx.random.next() % n;
            stride = cx.random.next() % n;
            while greatest_divisor(stride, n) != 1 {
                stride = (stride + 1) % n.max(2);
            }
        }
        let mut block = Block::new(cx);
        for i in 0..n {
            let number = match cx.schedule {
                Schedule::InOrder => i,
                Schedule::Reverse => n - 1 - i,
                Schedule::Seeded(_) => at,
            } as u32;
            at = (at + stride) % n;
            cx.block_index = index(number, self.grid);
            cx.spaces.begin_block(number);
            cx.spaces.hold().ok_or_else(|| Error::Limit {
                what: "bytes of notes on the blocks of a launch",
                limit: cx.spaces.memory.left(),
                found: cx.spaces.order.bytes(),
            })?;
            if i % 64 == 63 && cx.is_late() {
                let what = format!("{i} of {n} blocks ended in time");
                let trap = Trap::new(FaultKind::TimeLimit, 0, what);
                return Err(Error::Fault(Box::new(self.fault(cx, 0, *trap))));
            }
            block
                .run(cx)
                .map_err(|(warp, trap)| Error::Fault(Box::new(self.fault(cx, warp, *trap))))?;
            if cx.spaces.order.exhausted() {
                return Err(Error::Limit {
                    what: "barriers and fences of a launch",
                    limit: u32::MAX.into(),
                    found: u64::from(u32::MAX) + 1,
                });
            }
        }
        Ok(())
    }

    /// Checks sizes; gives the bytes of shared memory of a block, without red zones.
    fn check(&self, limits: &Limits) -> Result<u32> {
        let within = |what, limit: u64, found: u64| match found <= limit {
            true => Ok(()),
            false => Err(Error::Limit { what, limit, found }),
        };
        within(
            "the target of the module",
            limits.arch.into(),
            self.module.target().into(),
        )?;
        let threads = volume(self.block);
        within("threads of a block", 1024, threads)?;
        within("threads of a block along z", 64, self.block[2].into())?;
        if threads == 0 || volume(self.grid) == 0 {
            return Err(self.mismatch(
                "a grid and a block without zeros",
                format!("{:?} {:?}", self.grid, self.block),
            ));
        }
        within("blocks along x", i32::MAX as u64, self.grid[0].into())?;
        within(
            "blocks along y and z",
            65_535,
            self.grid[1].max(self.grid[2]).into(),
        )?;
        within("blocks of a grid", u32::MAX.into(), volume(self.grid))?;
        if let Some(most) = self.entry.max_threads() {
            within("threads of a block (.maxntid)", volume(most), threads)?;
        }
        if let Some(required) = self.entry.required_threads()
            && required != self.block
        {
            return Err(self.mismatch(
                &format!("a block of {required:?} threads"),
                format!("{:?}", self.block),
            ));
        }
        let mut shared = 0u64;
        for &variable in self.entry.variables() {
            let variable = &self.module.variables()[variable as usize];
            if variable.space == Space::Shared && !variable.dynamic {
                shared = shared
                    .next_multiple_of(variable.align.into())
                    .saturating_add(variable.bytes);
            }
        }
        let shared = shared + u64::from(self.dynamic_shared);
        within(
            "bytes of shared memory of a block",
            limits.shared_bytes().into(),
            shared,
        )?;
        Ok(shared as u32)
    }

    fn mismatch(&self, expected: &str, found: String) -> Error {
        Error::Signature {
            kernel: self.entry.name().to_owned(),
            expected: expected.to_owned(),
            found,
        }
    }

    /// The bytes of the parameters.
    fn parameters(&self) -> Result<Vec<u8>> {
        let signature = self.entry.signature();
        if signature.len() != self.args.len() {
            return Err(self.mismatch(
                &format!("{} arguments", signature.len()),
                self.args.len().to_string(),
            ));
        }
        let end = signature
            .iter()
            .map(|parameter| parameter.offset + parameter.bytes)
            .max();
        let mut bytes = vec![0; end.unwrap_or(0) as usize];
        for (parameter, arg) in signature.iter().zip(self.args) {
            // A compiler declares `int` as .u32; a kernel's own declaration is checked by [`Entry::check`].
            let word = matches!(parameter.ty, Type::U32 | Type::S32 | Type::B32);
            let (value, fits) = match *arg {
                Arg::Ptr(pointer) => (
                    pointer.address(),
                    matches!(parameter.ty, Type::U64 | Type::B64),
                ),
                Arg::U64(value) => (
                    value,
                    matches!(parameter.ty, Type::U64 | Type::B64 | Type::S64),
                ),
                Arg::U32(value) => (value.into(), word),
                Arg::I32(value) => (value as u32 as u64, word),
                Arg::F32(value) => (
                    value.to_bits().into(),
                    matches!(parameter.ty, Type::F32 | Type::B32),
                ),
            };
            let size = parameter.ty.bytes() as usize;
            if !fits || parameter.bytes as usize != size {
                let expected = format!(
                    "{} of type {:?}, {} bytes",
                    parameter.name, parameter.ty, parameter.bytes
                );
                return Err(self.mismatch(&expected, format!("{arg:?}")));
            }
            let start = parameter.offset as usize;
            bytes[start..start + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        Ok(bytes)
    }

    fn fault(&self, cx: &Context, warp: usize, trap: Trap) -> Fault {
        let line = |pc: usize| {
            self.entry
                .code()
                .get(pc)
                .map_or(self.entry.line(), |instruction| instruction.line)
        };
        let other = trap.other.map(|(stamp, access)| Party {
            line: line(order::pc(stamp)),
            block: index(cx.spaces.order.block_of(stamp), self.grid),
            thread: index(order::thread(stamp), self.block),
            access,
        });
        Fault {
            kind: trap.kind,
            kernel: self.entry.name().to_owned(),
            file: self.file.to_owned(),
            line: line(trap.pc.unwrap_or(0)),
            block: cx.block_index,
            thread: index(32 * warp as u32 + trap.lane, self.block),
            warp: warp as u32,
            lane: trap.lane,
            place: trap.address.map(|address| match address {
                Address::Global(address) => self.global_place(cx, address),
                Address::Shared(address) => {
                    array_place(&cx.program.shared, "shared memory", address)
                }
                Address::Local(address) => array_place(&cx.program.local, "local memory", address),
            }),
            other,
            what: trap.what,
        }
    }

    /// A global address by the parameter or variable that points into its allocation, or that it lies shortly before.
    fn global_place(&self, cx: &Context, address: u64) -> Place {
        let pointers =
            self.entry
                .signature()
                .iter()
                .zip(self.args)
                .filter_map(|(parameter, arg)| match arg {
                    Arg::Ptr(pointer) => Some((&parameter.name, pointer.address())),
                    _ => None,
                });
        let variables = cx.program.variables().filter(|(variable, start)| {
            *start != 0 && matches!(variable.space, Space::Global | Space::Const)
        });
        let variables = variables.map(|(variable, start)| (&variable.name, start));
        let offset = |start: u64| address.wrapping_sub(start) as i64;
        // Half an allocation's range before it is still its own.
        let near = |&(_, start): &(&String, u64)| {
            window(start) == window(address) || (-(1 << 39)..0).contains(&offset(start))
        };
        let nearest = pointers
            .chain(variables)
            .filter(near)
            .min_by_key(|&(_, start)| offset(start).unsigned_abs());
        match nearest {
            Some((name, start)) => Place {
                array: name.clone(),
                offset: offset(start),
            },
            None => Place {
                array: format!("address {address:#x}"),
                offset: 0,
            },
        }
    }
}

/// An address by the array that holds it or ends before it.
fn array_place(arrays: &[Array], space: &str, address: u64) -> Place {
    let before = arrays
        .iter()
        .filter(|array| array.range.start <= address)
        .max_by_key(|array| array.range.start);
    let (array, start) = match before {
        Some(array) => (array.name.clone(), array.range.start),
        None => (space.to_owned(), 0),
    };
    Place {
        array,
        offset: address.wrapping_sub(start) as i64,
    }
}
