//! What a virtual machine may use, and in which order it runs what may run in any order.

use crate::num::approx::Approx;

/// The limits and choices of a virtual machine. There is no default; [`Limits::checked`] is the usual choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Compute capability times ten: 80 is `sm_80`. Modules for a higher target are refused.
    pub arch: u32,
    /// Bytes of device memory, together with what the machine notes about them while a kernel runs: six bytes for each byte of
    /// a 4096-byte page that a launch touches, more where threads touch single bytes and halves.
    pub memory_bytes: u64,
    /// Warp instructions of one launch.
    pub instructions: u64,
    /// Seconds of one launch, looked at now and then: a bound for hostile text, not a measure.
    pub seconds: u64,
    /// The order of warps and blocks.
    pub schedule: Schedule,
    /// What approximate functions return.
    pub approx: Approx,
}

impl Limits {
    /// 2 GiB, 4·10⁹ warp instructions and an hour a launch, warps and blocks in order, approximate functions rounded to nearest.
    pub const fn checked(arch: u32) -> Self {
        Self {
            arch,
            memory_bytes: 2 << 30,
            instructions: 4_000_000_000,
            seconds: 3600,
            schedule: Schedule::InOrder,
            approx: Approx::Nearest,
        }
    }

    /// The most shared memory that a block can ask for, in bytes.
    pub(crate) const fn shared_bytes(&self) -> u32 {
        let kib = match self.arch {
            ..=74 => 96,
            75..=79 => 64,
            80 | 87 => 163,
            81..=89 | 120..=129 => 99,
            _ => 227,
        };
        kib << 10
    }
}

/// The order in which warps of a block, and blocks of a grid, run. A correct kernel computes the same in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Lowest first; a warp runs to its next barrier.
    InOrder,
    /// Highest first.
    Reverse,
    /// A random order; a warp may be interrupted at each memory access.
    Seeded(u64),
}

/// SplitMix64, the random numbers of a seeded schedule.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// A number below `n` > 0.
    pub(crate) const fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
}
