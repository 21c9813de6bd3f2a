//! What a kernel did wrong, where, and by which thread.

use std::fmt;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// An access outside of every allocation or array of its space.
    OutOfBounds,
    /// An access to memory that was given back.
    UseAfterFree,
    /// An address that is not a multiple of the access's size; a vector aligns to its whole size.
    Misaligned,
    /// A load of a byte that nobody wrote.
    UninitMemory,
    /// A use, other than by `mov`, `selp` or `shfl`, of a register that the thread did not write.
    UninitRegister,
    /// Two threads touch the same shared bytes, at least one writes, not both are atomic, and no barrier orders them.
    SharedRace,
    /// The same in global memory, where between blocks only fence and atomic, or release and acquire, give order.
    GlobalRace,
    /// `ld.global.nc` of bytes that this launch wrote.
    NonCoherentRead,
    /// A touch of the destination of a `cp.async` before the wait (or, by another thread, before the barrier after it).
    AsyncBeforeWait,
    /// A barrier that only a part of a warp executes, or one that threads use in two ways at a time.
    BarrierDivergence,
    /// A `.sync` instruction whose mask lacks a thread that executes it, or has one that cannot.
    SyncMask,
    /// Every thread waits.
    Deadlock,
    /// The launch executed more warp instructions than the limit allows.
    InstructionLimit,
    /// The launch took longer than the limit allows.
    TimeLimit,
    /// No memory is left for what the machine notes about the accesses of a launch.
    MemoryLimit,
    /// An integer division by zero, which has no specified result.
    DivisionByZero,
    /// A store to constant memory.
    ReadOnly,
    /// The kernel executed `trap`.
    Trap,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How a thread touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A plain load.
    Read,
    /// A plain store.
    Write,
    /// An atomic operation, or a volatile, relaxed, acquiring or releasing load or store.
    Atomic,
}

/// The other side of a race.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its line in the PTX text.
    pub line: u32,
    /// Its block's index in the grid.
    pub block: [u32; 3],
    /// Its index in the block.
    pub thread: [u32; 3],
    /// What it did.
    pub access: Access,
}

/// A place in memory, by names the kernel knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The array: a parameter that points to it, a variable, or the allocation's number.
    pub array: String,
    /// Bytes from its start.
    pub offset: i64,
}

/// A fault: the first wrong thing that a launch did. The launch ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub kind: FaultKind,
    /// The kernel's entry.
    pub kernel: String,
    /// The file that holds the PTX text, or the module's name.
    pub file: String,
    /// The line in it.
    pub line: u32,
    /// The block's index in the grid.
    pub block: [u32; 3],
    /// The thread's index in the block.
    pub thread: [u32; 3],
    /// The thread's warp.
    pub warp: u32,
    /// The thread's lane in its warp.
    pub lane: u32,
    /// What was touched, if memory was.
    pub place: Option<Place>,
    /// The other thread, if the fault takes two.
    pub other: Option<Party>,
    /// What happened, in words.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        write!(
            f,
            "{} in {} at {}:{}, block ({bx}, {by}, {bz}), thread ({tx}, {ty}, {tz}), warp {}, lane {}: {}",
            self.kind, self.kernel, self.file, self.line, self.warp, self.lane, self.what
        )?;
        if let Some(Place { array, offset }) = &self.place {
            write!(f, ", {array} {offset:+}")?;
        }
        if let Some(other) = &self.other {
            let ([bx, by, bz], [tx, ty, tz]) = (other.block, other.thread);
            write!(
                f,
                "; against the {:?} at line {} by block ({bx}, {by}, {bz}), thread ({tx}, {ty}, {tz})",
                other.access, other.line
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// A fault before names are known: what an instruction finds.
#[derive(Debug)]
pub(crate) struct Trap {
    pub(crate) kind: FaultKind,
    pub(crate) lane: u32,
    /// Where the address points, if memory was touched.
    pub(crate) address: Option<Address>,
    /// The other side's stamp and access.
    pub(crate) other: Option<(u64, Access)>,
    pub(crate) what: String,
    /// The instruction, where it is not the one that the warp executes.
    pub(crate) pc: Option<usize>,
}

/// An address in a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Global(u64),
    Shared(u64),
    Local(u64),
}

impl Trap {
    pub(crate) fn new(kind: FaultKind, lane: u32, what: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            kind,
            lane,
            address: None,
            other: None,
            what: what.into(),
            pc: None,
        })
    }

    pub(crate) fn at(
        kind: FaultKind,
        lane: u32,
        address: Address,
        what: impl Into<String>,
    ) -> Box<Self> {
        Box::new(Self {
            address: Some(address),
            ..*Self::new(kind, lane, what)
        })
    }
}
