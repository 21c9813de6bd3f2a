//! Decoded instructions: what the text says, with registers, constants and targets resolved.
//!
//! Registers are indices into three files. 64-bit registers lie in the wide file, predicates in the predicate file, all others
//! (8, 16, 32 bits, packed halves) in the narrow one, where bits above the register's width are zero. Which file a [`Slot`]
//! belongs to follows from the type beside it. A constant operand is a register too, written before the first instruction
//! ([`Entry::constants`](crate::Entry::constants)), so that every operand is a slot.

pub use crate::layout::Mma;
pub use crate::num::approx::Function;
pub use crate::num::convert::{Byte, How};
pub use crate::num::float::{Extremum, Mode};
pub use crate::num::half::Mode as HalfMode;
pub use crate::num::integer::Prmt;
pub use crate::num::mma::Integers;
pub use crate::num::shuffle::{Redux, Shuffle};
use std::ops::Range;

/// Index of a register in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl Slot {
    /// The index as a `usize`.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The file that a register lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum File {
    /// 32 bits or fewer.
    Narrow,
    /// 64 bits.
    Wide,
    /// One bit.
    Predicate,
}

/// A register with its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// The file.
    pub file: File,
    /// The index.
    pub slot: Slot,
}

/// A predicate that is read, or its opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predicate {
    /// In the predicate file.
    pub slot: Slot,
    /// `!p`.
    pub negated: bool,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// What it does.
    pub op: Op,
    /// `@p` or `@!p`.
    pub guard: Option<Predicate>,
    /// Line in the text, from 1.
    pub line: u32,
    /// The registers it reads besides the guard, constants left out, as a range of [`Entry::operands`](crate::Entry::operands).
    pub reads: Range<u32>,
    /// The registers it writes, as a range of [`Entry::operands`](crate::Entry::operands).
    pub writes: Range<u32>,
}

/// Types of operands.
#[allow(missing_docs)] // They are spelled as in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    E4m3x2,
    E5m2x2,
}

impl Type {
    /// Width in bits; a predicate has 1.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Pred => 1,
            Self::B8 | Self::U8 | Self::S8 => 8,
            Self::B16 | Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 16,
            Self::E4m3x2 | Self::E5m2x2 => 16,
            Self::B32 | Self::U32 | Self::S32 | Self::F32 | Self::Tf32 => 32,
            Self::F16x2 | Self::Bf16x2 => 32,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 => 64,
        }
    }

    /// Width in memory, in bytes.
    pub const fn bytes(self) -> u32 {
        self.bits().div_ceil(8)
    }

    /// The file of a register of this type.
    pub const fn file(self) -> File {
        match self.bits() {
            1 => File::Predicate,
            64 => File::Wide,
            _ => File::Narrow,
        }
    }

    /// `.s8` to `.s64`.
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    /// `.u8` to `.u64` and `.s8` to `.s64`.
    pub const fn is_integer(self) -> bool {
        self.is_signed() || matches!(self, Self::U8 | Self::U16 | Self::U32 | Self::U64)
    }

    /// `.b8` to `.b64`.
    pub const fn is_untyped(self) -> bool {
        matches!(self, Self::B8 | Self::B16 | Self::B32 | Self::B64)
    }

    /// Floating point of any width, packed pairs too.
    pub const fn is_float(self) -> bool {
        !self.is_integer() && !self.is_untyped() && !matches!(self, Self::Pred)
    }
}

/// Direction of rounding. The directions to an integer (`.rni`) are the same four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// To nearest, ties to even.
    Rn,
    /// To nearest, ties away from zero (`cvt` to tf32).
    Rna,
    /// Towards zero.
    Rz,
    /// Towards −∞.
    Rm,
    /// Towards +∞.
    Rp,
}

/// Comparisons of `setp` and `set`. `.lo .ls .hi .hs` are `Lt Le Gt Ge` of an unsigned type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// Equal.
    Eq,
    /// Not equal, false on NaN.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Equal, true on NaN.
    Equ,
    /// Not equal, true on NaN.
    Neu,
    /// Less, true on NaN.
    Ltu,
    /// Less or equal, true on NaN.
    Leu,
    /// Greater, true on NaN.
    Gtu,
    /// Greater or equal, true on NaN.
    Geu,
    /// Neither is NaN.
    Num,
    /// One is NaN.
    Nan,
}

/// Joins two truth values, or two words bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Logic {
    /// Both.
    And,
    /// One or both.
    Or,
    /// One.
    Xor,
}

/// State spaces. Generic addresses are told apart when they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Any of the others, by address.
    Generic,
    /// `.global`
    Global,
    /// `.shared`
    Shared,
    /// `.local`
    Local,
    /// `.const`
    Const,
    /// `.param`
    Param,
}

/// Ordering of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// None stated.
    Weak,
    /// `.volatile`
    Volatile,
    /// `.relaxed`
    Relaxed,
    /// `.acquire`
    Acquire,
    /// `.release`
    Release,
    /// `.acq_rel`
    AcqRel,
    /// `.sc`
    Sc,
}

/// The threads that an ordering counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `.cta`
    Block,
    /// `.cluster`: here a block, as no kernel has clusters.
    Cluster,
    /// `.gpu`
    Device,
    /// `.sys`
    System,
}

/// What an address starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A constant address.
    Zero,
    /// A register of the narrow file, for windows below 4 GiB.
    Narrow(Slot),
    /// A register of the wide file.
    Wide(Slot),
    /// A variable, by its index in [`Module::variables`](crate::Module::variables).
    Variable(u16),
}

/// An address in a state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// What it starts from.
    pub base: Base,
    /// Bytes beyond.
    pub offset: i64,
}

/// Integer functions of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integer2 {
    /// Sum modulo 2^width.
    Add,
    /// Sum, clamped (`.s32`).
    AddSat,
    /// Difference modulo 2^width.
    Sub,
    /// Difference, clamped (`.s32`).
    SubSat,
    /// Low half of the product.
    MulLo,
    /// High half of the product.
    MulHi,
    /// Whole product; the destination is twice as wide.
    MulWide,
    /// Low 32 bits of the product of the low 24 bits.
    Mul24Lo,
    /// Bits 16 to 47 of the product of the low 24 bits.
    Mul24Hi,
    /// Quotient towards zero.
    Div,
    /// Remainder.
    Rem,
    /// The lesser.
    Min,
    /// The greater.
    Max,
    /// Left; the count is a `.u32`.
    Shl,
    /// Right, in the sign for signed types; the count is a `.u32`.
    Shr,
}

/// Integer functions of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integer1 {
    /// Absolute value.
    Abs,
    /// Opposite.
    Neg,
    /// Complement.
    Not,
    /// 1 for 0, else 0.
    Cnot,
    /// Bits reversed.
    Brev,
    /// Ones, as a `.u32`.
    Popc,
    /// Leading zeros, as a `.u32`.
    Clz,
    /// Place of the highest bit that is no sign, as a `.u32`.
    Bfind,
    /// `.shiftamt`: how far to shift it left to the top.
    BfindShift,
}

/// Integer functions of three operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integer3 {
    /// a·b + c, low half.
    MadLo,
    /// High half of a·b, plus c.
    MadHi,
    /// The same, clamped (`.s32`).
    MadHiSat,
    /// a·b + c; c and the destination are twice as wide.
    MadWide,
    /// 24-bit product, low, plus c.
    Mad24Lo,
    /// 24-bit product, high, plus c.
    Mad24Hi,
    /// The same, clamped (`.s32`).
    Mad24HiSat,
    /// |a − b| + c.
    Sad,
    /// Bits of `a` from `b` on, `c` of them; both `.u32`.
    Bfe,
}

/// How a carry goes in and out. The flag is one bit per thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carry {
    /// Adds (or takes) the flag.
    pub reads: bool,
    /// Sets the flag.
    pub writes: bool,
}

/// Floating-point functions of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Float2 {
    /// a + b.
    Add,
    /// a − b.
    Sub,
    /// a · b.
    Mul,
    /// a / b, f32 and f64 only.
    Div,
}

/// Properties that `testp` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Testp {
    /// Neither infinite nor NaN.
    Finite,
    /// Infinite.
    Infinite,
    /// No NaN.
    Number,
    /// NaN.
    NotANumber,
    /// Normal.
    Normal,
    /// Subnormal.
    Subnormal,
}

/// Atomic functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Atomic {
    /// Sum. Subnormal f32 become zeros; f64 and halves keep them.
    Add,
    /// The lesser.
    Min,
    /// The greater.
    Max,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// Up by one, to 0 above b.
    Inc,
    /// Down by one, to b from 0 and from above b.
    Dec,
    /// Swap.
    Exch,
    /// c where b was found.
    Cas,
}

/// What threads say at a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vote {
    /// True for all.
    All,
    /// True for one or more.
    Any,
    /// The same for all.
    Uni,
    /// One bit per thread.
    Ballot,
}

/// What a barrier does beside waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Waits.
    Sync,
    /// Is counted, and does not wait.
    Arrive,
    /// Waits, and gives the number of threads whose predicate is true.
    Popc {
        /// Narrow, the number.
        d: Slot,
        /// What is counted.
        a: Predicate,
    },
    /// Waits, and joins the predicates of all threads by `And` or `Or`.
    Reduce {
        /// How.
        f: Logic,
        /// Predicate, the result.
        d: Slot,
        /// What is joined.
        a: Predicate,
    },
}

/// Special registers.
#[allow(missing_docs)] // They are spelled as in the text; axes are 0 to 2 for x, y, z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NwarpId,
    SmId,
    NsmId,
    /// `%gridid`, 64 bits (read into 32 it is cut).
    GridId,
    LanemaskEq,
    LanemaskLt,
    LanemaskLe,
    LanemaskGt,
    LanemaskGe,
    Clock,
    ClockHi,
    /// `%clock64`, 64 bits.
    Clock64,
    /// `%globaltimer`, 64 bits.
    GlobalTimer,
    GlobalTimerLo,
    GlobalTimerHi,
    DynamicSharedSize,
    TotalSharedSize,
}

/// Accumulator type of a floating-point matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accumulator {
    /// Two registers of packed f16.
    F16,
    /// Four registers of f32.
    F32,
    /// Four registers of s32.
    S32(Integers),
}

/// An instruction's index, of targets and of where divergent paths meet again.
pub type Pc = u32;

/// "Nowhere": paths that meet only when the threads have left the kernel.
pub const NEVER: Pc = Pc::MAX;

/// What an instruction does. Slots are read before any is written. `ty` names the instruction's type and with it the files.
#[rustfmt::skip] // A table.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // Operands have the names that the manual gives them: d, a, b, c.
pub enum Op {
    /// `mov` of one register, of any type but `.pred`.
    Mov { ty: Type, d: Slot, a: Slot },
    /// `mov.pred` and `not.pred`.
    PredicateMov { d: Slot, a: Predicate },
    /// `and`, `or`, `xor` of predicates.
    PredicateLogic { f: Logic, d: Slot, a: Predicate, b: Predicate },
    /// `mov` from a special register; `wide` if the destination has 64 bits.
    Special { d: Slot, wide: bool, from: Special },
    /// `mov` of a variable's address within its space, or with `generic` its generic address; `wide` if the destination has 64 bits.
    AddressOf { d: Slot, wide: bool, address: Address, space: Space, generic: bool },
    /// `mov d, {a, …}`: `n` pieces of `bits` bits, the first lowest.
    Pack { bits: u8, n: u8, d: Slot, a: [Slot; 4] },
    /// `mov {d, …}, a`.
    Unpack { bits: u8, n: u8, d: [Slot; 4], a: Slot },
    /// `selp`: a if the predicate holds, else b.
    Selp { ty: Type, d: Slot, a: Slot, b: Slot, p: Predicate },
    /// `slct`: a if c ≥ 0, else b; `by` is the type of c.
    Slct { ty: Type, by: Type, ftz: bool, d: Slot, a: Slot, b: Slot, c: Slot },

    /// Integer functions of one operand; of `Popc` to `BfindShift` the destination is narrow.
    Integer1 { f: Integer1, ty: Type, d: Slot, a: Slot },
    /// Integer functions of two operands.
    Integer2 { f: Integer2, ty: Type, d: Slot, a: Slot, b: Slot },
    /// Integer functions of three operands.
    Integer3 { f: Integer3, ty: Type, d: Slot, a: Slot, b: Slot, c: Slot },
    /// `add.cc`, `addc`, `sub.cc`, `subc`; `ty` is 32 or 64 bits wide.
    AddCarry { subtract: bool, carry: Carry, ty: Type, d: Slot, a: Slot, b: Slot },
    /// `mad.lo.cc`, `madc.hi` and the like.
    MadCarry { high: bool, carry: Carry, ty: Type, d: Slot, a: Slot, b: Slot, c: Slot },
    /// `and`, `or`, `xor` of words.
    Logic { f: Logic, ty: Type, d: Slot, a: Slot, b: Slot },
    /// `lop3.b32`. With `predicate` the result also joins `q` into a predicate: p = (d ≠ 0) f q.
    Lop3 { table: u8, d: Slot, a: Slot, b: Slot, c: Slot, predicate: Option<(Slot, Logic, Predicate)> },
    /// `prmt.b32`, c the selector.
    Prmt { f: Prmt, d: Slot, a: Slot, b: Slot, c: Slot },
    /// `shf`: a is the low word, b the high one, c the count.
    Shf { left: bool, wrap: bool, d: Slot, a: Slot, b: Slot, c: Slot },
    /// `bfi`: `len` low bits of a put into b at `pos`.
    Bfi { ty: Type, d: Slot, a: Slot, b: Slot, pos: Slot, len: Slot },
    /// `bmsk.b32`: b bits from a on.
    Bmsk { wrap: bool, d: Slot, a: Slot, b: Slot },
    /// `szext`: a cut to b bits and extended.
    Szext { wrap: bool, signed: bool, d: Slot, a: Slot, b: Slot },
    /// `dp4a`.
    Dp4a { a_signed: bool, b_signed: bool, d: Slot, a: Slot, b: Slot, c: Slot },
    /// `dp2a`, `high`: with the upper bytes of b.
    Dp2a { a_signed: bool, b_signed: bool, high: bool, d: Slot, a: Slot, b: Slot, c: Slot },

    /// `add sub mul div` with rounding, f32 and f64.
    Float2 { f: Float2, ty: Type, mode: Mode, d: Slot, a: Slot, b: Slot },
    /// `fma`, f32 and f64.
    Fma { ty: Type, mode: Mode, d: Slot, a: Slot, b: Slot, c: Slot },
    /// `rcp.rn`, f32 and f64.
    Rcp { ty: Type, mode: Mode, d: Slot, a: Slot },
    /// `sqrt.rn`, f32 and f64.
    Sqrt { ty: Type, mode: Mode, d: Slot, a: Slot },
    /// `add sub mul` of halves, single or packed.
    Half2 { f: Float2, ty: Type, mode: HalfMode, d: Slot, a: Slot, b: Slot },
    /// `fma` of halves, single or packed.
    HalfFma { ty: Type, mode: HalfMode, d: Slot, a: Slot, b: Slot, c: Slot },
    /// `min`, `max` of any floating-point type.
    Extremum { how: Extremum, ftz: bool, ty: Type, d: Slot, a: Slot, b: Slot },
    /// `abs` of any floating-point type.
    FloatAbs { ftz: bool, ty: Type, d: Slot, a: Slot },
    /// `neg` of any floating-point type.
    FloatNeg { ftz: bool, ty: Type, d: Slot, a: Slot },
    /// The approximate functions, f32; `ex2` and `tanh` of halves too.
    Approx { f: Function, ftz: bool, ty: Type, d: Slot, a: Slot },
    /// `div.approx.f32` and `div.full.f32`.
    DivApprox { full: bool, ftz: bool, d: Slot, a: Slot, b: Slot },
    /// `copysign`: the sign of a, the magnitude of b.
    Copysign { ty: Type, d: Slot, a: Slot, b: Slot },
    /// `testp`.
    Testp { f: Testp, ty: Type, d: Slot, a: Slot },

    /// `setp`: t = a ? b; d = t f c, q = !t f c.
    Setp { how: Compare, ftz: bool, ty: Type, d: Slot, q: Option<Slot>, a: Slot, b: Slot, join: Option<(Logic, Predicate)> },
    /// `setp` of packed halves: d is of the low halves, q of the high ones.
    SetpPacked { how: Compare, ftz: bool, ty: Type, d: Slot, q: Slot, a: Slot, b: Slot, join: Option<(Logic, Predicate)> },
    /// `set`: all ones, or 1.0 of a floating-point `to`, for true; packed halves each by themselves.
    Set { how: Compare, ftz: bool, to: Type, ty: Type, d: Slot, a: Slot, b: Slot, join: Option<(Logic, Predicate)> },

    /// `cvt` between scalars. The destination may be wider than `to` (`wide` if it has 64 bits, else `bits`).
    Cvt { to: Type, from: Type, how: How, bits: u8, d: Slot, a: Slot },
    /// `cvt.rn.f16x2.f32 d, a, b` and bf16x2: a goes into the upper half.
    CvtPair { to: Type, how: How, d: Slot, a: Slot, b: Slot },
    /// `cvt.rn.satfinite.e4m3x2.f32`: a goes into the upper byte.
    CvtBytes { to: Byte, relu: bool, d: Slot, a: Slot, b: Slot },
    /// `cvt.rn.satfinite.e4m3x2.f16x2`.
    CvtHalvesToBytes { to: Byte, relu: bool, d: Slot, a: Slot },
    /// `cvt.rn.f16x2.e4m3x2`.
    CvtBytesToHalves { from: Byte, relu: bool, d: Slot, a: Slot },
    /// `cvt.pack.sat.{u16,s16}.s32`.
    CvtPack16 { signed: bool, d: Slot, a: Slot, b: Slot },
    /// `cvt.pack.sat.{u8,s8}.s32.b32`.
    CvtPack8 { signed: bool, d: Slot, a: Slot, b: Slot, c: Slot },
    /// `cvta.space`: an address of the space made generic; with `back` (`cvta.to.space`) the other way.
    Cvta { space: Space, back: bool, wide: bool, d: Slot, a: Slot },
    /// `isspacep`: whether the generic address a is in the space.
    IsSpace { space: Space, wide: bool, d: Slot, a: Slot },

    /// `ld`: `n` elements of type `ty` in memory, into registers of `bits` bits, extended by the type.
    Load { space: Space, ty: Type, n: u8, bits: u8, d: [Slot; 4], address: Address, order: Order, scope: Scope, noncoherent: bool },
    /// `st`: `n` elements of type `ty`, the low bits of registers of `bits` bits.
    Store { space: Space, ty: Type, n: u8, bits: u8, a: [Slot; 4], address: Address, order: Order, scope: Scope },
    /// `atom`, or `red` without d.
    Atomic { f: Atomic, space: Space, ty: Type, d: Option<Slot>, address: Address, b: Slot, c: Slot, order: Order, scope: Scope },
    /// `prefetch`, of a global or generic address.
    Prefetch { address: Address },
    /// `fence` and `membar`: `sc` for `.sc` and `membar`.
    Fence { sc: bool, scope: Scope },
    /// `cp.async`: `bytes` from global to shared memory, of which `src_bytes` are read and the rest are zeros; with `ignore` true none is read.
    CpAsync { bytes: u8, dst: Address, src: Address, src_bytes: Option<Slot>, ignore: Option<Predicate> },
    /// `cp.async.commit_group`.
    CpAsyncCommit,
    /// `cp.async.wait_group n`: at most n groups are left.
    CpAsyncWait { groups: u32 },
    /// `cp.async.wait_all`.
    CpAsyncWaitAll,

    /// `ldmatrix`: `n` matrices.
    Ldmatrix { n: u8, trans: bool, d: [Slot; 4], address: Address, space: Space },
    /// `movmatrix.trans`.
    Movmatrix { d: Slot, a: Slot },
    /// `mma`: unused places hold any slot.
    Mma { shape: Mma, accumulator: Accumulator, d: [Slot; 4], a: [Slot; 4], b: [Slot; 2], c: [Slot; 4] },

    /// `shfl.sync`.
    Shfl { how: Shuffle, d: Slot, p: Option<Slot>, a: Slot, b: Slot, c: Slot, mask: Slot },
    /// `vote.sync`: d is narrow for a ballot, else a predicate.
    Vote { how: Vote, d: Slot, a: Predicate, mask: Slot },
    /// `match.any.sync`, `match.all.sync`.
    Match { all: bool, wide: bool, d: Slot, p: Option<Slot>, a: Slot, mask: Slot },
    /// `redux.sync`.
    Redux { how: Redux, signed: bool, d: Slot, a: Slot, mask: Slot },
    /// `activemask`.
    ActiveMask { d: Slot },
    /// `bar.warp.sync`.
    BarWarp { mask: Slot },
    /// `bar` and `barrier` of a block: id and thread count are narrow. Without `aligned` warps may come in parts.
    Barrier { f: Barrier, id: Slot, threads: Option<Slot>, aligned: bool },

    /// `bra`; `meet` is where the paths meet again.
    Bra { target: Pc, meet: Pc },
    /// `brx.idx`.
    BrxIdx { index: Slot, targets: Box<[Pc]>, meet: Pc },
    /// `exit` and `ret`.
    Exit,
    /// `trap`: the launch ends with a fault.
    Trap,
    /// `nanosleep`, `pmevent`: nothing that a kernel can see.
    Nop,
}
