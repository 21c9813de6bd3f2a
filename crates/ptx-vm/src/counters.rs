//! What a launch did: warp instructions, memory traffic against its minimum, and the rest of what budgets are made of.

use crate::module::Entry;
use crate::op::{Op, Space, Type};
use std::fmt;

/// Declares [`Counts`] with the names of its fields.
macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of one instruction, one line or one launch.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Names and values.
            fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }

            const fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    /// Warp instructions.
    instructions,
    /// Lanes that executed them.
    lanes,
    /// Sectors of 32 bytes that loads, stores, atomics and `cp.async` requested of global memory, without any cache.
    global_sectors,
    /// Sectors that hold as many bytes as were asked for.
    global_sectors_min,
    /// Passes over the 32 banks of shared memory.
    shared_wavefronts,
    /// Passes without bank conflicts.
    shared_wavefronts_min,
    /// Lanes' atomic operations.
    atomics,
    /// Warps' arrivals at block barriers.
    barriers,
    /// Operations of `mma`: two for each product.
    mma_flops,
    /// Bytes that `cp.async` copied.
    async_bytes,
}

impl Counts {
    /// Wavefronts that bank conflicts cost.
    pub const fn bank_conflicts(&self) -> u64 {
        self.shared_wavefronts - self.shared_wavefronts_min
    }

    fn json(&self) -> String {
        let fields = self
            .fields()
            .map(|(name, value)| format!("\"{name}\":{value}"));
        fields.collect::<Vec<_>>().join(",")
    }
}

/// Declares [`Class`] with the list of all.
macro_rules! classes {
    ($($name:ident)*) => {
        /// Classes of instructions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)] // The names say it.
        pub enum Class {
            $($name,)*
        }

        impl Class {
            /// All classes, in the order of [`Report::classes`].
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

classes! {
    Integer Logic Float32 Float64 Half Special Convert Compare Move Branch Parameter GlobalLoad GlobalStore SharedLoad
    SharedStore Local Constant Atomic Async Fence Barrier Warp Matrix
}

impl Class {
    /// The class of an instruction. Generic accesses count as global ones.
    pub const fn of(op: &Op) -> Self {
        match op {
            Op::Integer1 { .. }
            | Op::Integer2 { .. }
            | Op::Integer3 { .. }
            | Op::AddCarry { .. }
            | Op::MadCarry { .. }
            | Op::Bfi { .. }
            | Op::Bmsk { .. }
            | Op::Szext { .. }
            | Op::Dp4a { .. }
            | Op::Dp2a { .. }
            | Op::Shf { .. } => Self::Integer,
            Op::Logic { .. } | Op::PredicateLogic { .. } | Op::Lop3 { .. } | Op::Prmt { .. } => {
                Self::Logic
            }
            Op::Approx { .. } | Op::DivApprox { .. } => Self::Special,
            Op::Half2 { .. } | Op::HalfFma { .. } => Self::Half,
            Op::Float2 { ty, .. }
            | Op::Fma { ty, .. }
            | Op::Rcp { ty, .. }
            | Op::Sqrt { ty, .. }
            | Op::Extremum { ty, .. }
            | Op::FloatAbs { ty, .. }
            | Op::FloatNeg { ty, .. }
            | Op::Copysign { ty, .. } => match ty {
                Type::F64 => Self::Float64,
                Type::F32 => Self::Float32,
                _ => Self::Half,
            },
            Op::Testp { .. } | Op::Setp { .. } | Op::SetpPacked { .. } | Op::Set { .. } => {
                Self::Compare
            }
            Op::Cvt { .. }
            | Op::CvtPair { .. }
            | Op::CvtBytes { .. }
            | Op::CvtHalvesToBytes { .. }
            | Op::CvtBytesToHalves { .. }
            | Op::CvtPack16 { .. }
            | Op::CvtPack8 { .. } => Self::Convert,
            Op::Mov { .. }
            | Op::PredicateMov { .. }
            | Op::Special { .. }
            | Op::AddressOf { .. }
            | Op::Pack { .. }
            | Op::Unpack { .. }
            | Op::Selp { .. }
            | Op::Slct { .. }
            | Op::Cvta { .. }
            | Op::IsSpace { .. }
            | Op::Nop => Self::Move,
            Op::Bra { .. } | Op::BrxIdx { .. } | Op::Exit | Op::Trap => Self::Branch,
            Op::Load { space, .. } => match space {
                Space::Generic | Space::Global => Self::GlobalLoad,
                Space::Shared => Self::SharedLoad,
                Space::Local => Self::Local,
                Space::Const => Self::Constant,
                Space::Param => Self::Parameter,
            },
            Op::Store { space, .. } => match space {
                Space::Shared => Self::SharedStore,
                Space::Local => Self::Local,
                _ => Self::GlobalStore,
            },
            Op::Prefetch { .. } => Self::GlobalLoad,
            Op::Ldmatrix { .. } => Self::SharedLoad,
            Op::Atomic { .. } => Self::Atomic,
            Op::Fence { .. } => Self::Fence,
            Op::CpAsync { .. }
            | Op::CpAsyncCommit
            | Op::CpAsyncWait { .. }
            | Op::CpAsyncWaitAll => Self::Async,
            Op::Mma { .. } => Self::Matrix,
            Op::Movmatrix { .. }
            | Op::Shfl { .. }
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::Redux { .. }
            | Op::ActiveMask { .. }
            | Op::BarWarp { .. } => Self::Warp,
            Op::Barrier { .. } => Self::Barrier,
        }
    }
}

/// Bytes of a lane's access to shared memory: 0 for an instruction that makes none.
fn shared_width(op: &Op) -> u32 {
    match op {
        Op::Load { ty, n, .. } | Op::Store { ty, n, .. } => ty.bytes() * u32::from(*n),
        Op::Atomic { ty, .. } => ty.bytes(),
        Op::Ldmatrix { .. } => 16,
        Op::CpAsync { bytes, .. } => u32::from(*bytes),
        _ => 0,
    }
}

/// The counters of one launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kernel's entry.
    pub kernel: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of shared memory of a block, static and dynamic.
    pub shared_bytes: u32,
    /// All lines together.
    pub total: Counts,
    /// Warp instructions by class; the classes that are not here have none.
    pub classes: Vec<(Class, u64)>,
    /// Wavefronts that bank conflicts cost, by bytes of a lane's access: up to 4, 8 and 16.
    pub bank_conflicts: [u64; 3],
    /// The lines that were executed, in order.
    pub lines: Vec<(u32, Counts)>,
}

impl Report {
    pub(crate) fn new(
        entry: &Entry,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        counts: &[Counts],
    ) -> Self {
        let mut report = Self {
            kernel: entry.name().to_owned(),
            grid,
            block,
            shared_bytes,
            total: Counts::default(),
            classes: Vec::new(),
            bank_conflicts: [0; 3],
            lines: Vec::new(),
        };
        let mut classes = [0; Class::ALL.len()];
        for (instruction, counts) in entry.code().iter().zip(counts) {
            if counts.instructions == 0 {
                continue;
            }
            report.total.add(counts);
            classes[Class::of(&instruction.op) as usize] += counts.instructions;
            let width = shared_width(&instruction.op).max(4);
            report.bank_conflicts[width.ilog2() as usize - 2] += counts.bank_conflicts();
            match report.lines.last_mut() {
                Some((line, of_line)) if *line == instruction.line => of_line.add(counts),
                _ => report.lines.push((instruction.line, *counts)),
            }
        }
        let used = Class::ALL.iter().copied().zip(classes);
        let used = used.filter(|&(_, count)| count > 0);
        report.classes = used.collect();
        report
    }

    /// The counters as one JSON object.
    pub fn json(&self) -> String {
        let triple = |[x, y, z]: [u32; 3]| format!("[{x},{y},{z}]");
        let join = |parts: Vec<String>| parts.join(",");
        let classes = self
            .classes
            .iter()
            .map(|(class, count)| format!("\"{class:?}\":{count}"));
        let lines = self
            .lines
            .iter()
            .map(|(line, counts)| format!("{{\"line\":{line},{}}}", counts.json()));
        let [narrow, double, quad] = self.bank_conflicts;
        format!(
            "{{\"kernel\":\"{}\",\"grid\":{},\"block\":{},\"shared_bytes\":{},{},\"bank_conflicts\":[{narrow},{double},{quad}],\"classes\":{{{}}},\"lines\":[{}]}}",
            self.kernel,
            triple(self.grid),
            triple(self.block),
            self.shared_bytes,
            self.total.json(),
            join(classes.collect()),
            join(lines.collect()),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([gx, gy, gz], [bx, by, bz]) = (self.grid, self.block);
        writeln!(
            f,
            "{}: grid ({gx}, {gy}, {gz}), block ({bx}, {by}, {bz}), {} bytes of shared memory",
            self.kernel, self.shared_bytes
        )?;
        for (name, value) in self.total.fields() {
            if value > 0 {
                writeln!(f, "  {name:<22}{value:>14}")?;
            }
        }
        for (width, conflicts) in [4, 8, 16].iter().zip(self.bank_conflicts) {
            if conflicts > 0 {
                writeln!(f, "  bank conflicts, {width:>2} bytes{conflicts:>13}")?;
            }
        }
        for (class, count) in &self.classes {
            writeln!(f, "    {:<20}{count:>14}", format!("{class:?}"))?;
        }
        Ok(())
    }
}
