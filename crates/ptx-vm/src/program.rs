//! An entry made ready to run: variables laid out, operands of checks resolved.

use crate::memory::{LOCAL_WINDOW, Memory, SHARED_WINDOW};
use crate::module::{Entry, Module, Variable};
use crate::op::{Address, Base, File, Op, Operand, Order, Slot, Space};
use crate::registers::Registers;
use std::ops::Range;

/// Between arrays of shared and local memory: one row of banks, so that bank conflicts stay what they are.
const RED_ZONE: u64 = 128;

/// An array in shared or local memory.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub(crate) name: String,
    pub(crate) range: Range<u64>,
}

/// One entry of a module whose global variables have addresses.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    module: &'a Module,
    pub(crate) entry: &'a Entry,
    /// Addresses of the module's variables, each in its space.
    pub(crate) addresses: Vec<u64>,
    pub(crate) shared: Vec<Array>,
    pub(crate) local: Vec<Array>,
    /// Whether it has fences, acquires or releases.
    pub(crate) fences: bool,
    /// For each instruction, where the marks of the registers lie that it uses.
    pub(crate) uses: Vec<Box<[u32]>>,
}

/// Addresses of a module's variables in global and constant memory, allocated and filled; 0 for the others. All or none.
pub(crate) fn place(module: &Module, memory: &mut Memory) -> Result<Vec<u64>, String> {
    let is_global = |space| matches!(space, Space::Global | Space::Const);
    let mut addresses = Vec::new();
    for variable in module.variables() {
        if !is_global(variable.space) || variable.bytes == 0 {
            addresses.push(0);
            continue;
        }
        match memory.alloc(variable.bytes as usize) {
            Ok(address) => addresses.push(address),
            Err(reason) => {
                for &address in addresses.iter().filter(|&&address| address != 0) {
                    memory.free(address)?;
                }
                return Err(reason);
            }
        }
    }
    for (variable, &address) in module.variables().iter().zip(&addresses) {
        if address == 0 {
            continue;
        }
        let mut bytes = vec![0; variable.bytes as usize];
        bytes[..variable.data.len()].copy_from_slice(&variable.data);
        for pointer in &variable.pointers {
            let target = addresses[pointer.variable as usize].wrapping_add_signed(pointer.offset);
            bytes[pointer.at as usize..pointer.at as usize + 8]
                .copy_from_slice(&target.to_le_bytes());
        }
        memory.upload(address, &bytes)?;
        if variable.space == Space::Const {
            memory.protect(address);
        }
    }
    Ok(addresses)
}

impl<'a> Program<'a> {
    pub(crate) fn new(
        module: &'a Module,
        entry: &'a Entry,
        placed: &[u64],
        dynamic_shared: u32,
    ) -> Self {
        let mut addresses = placed.to_vec();
        let mut lay_out = |space| {
            let mut arrays = Vec::new();
            let mut end = 0u64;
            let of_space = |&index: &u16| module.variables()[index as usize].space == space;
            let (dynamic, fixed): (Vec<u16>, Vec<u16>) = (entry.variables().iter().copied())
                .filter(of_space)
                .partition(|&index| module.variables()[index as usize].dynamic);
            for index in fixed.into_iter().chain(dynamic) {
                let variable = &module.variables()[index as usize];
                let bytes = if variable.dynamic {
                    dynamic_shared.into()
                } else {
                    variable.bytes
                };
                let start = end
                    .checked_next_multiple_of(variable.align.into())
                    .unwrap_or(u64::MAX);
                addresses[index as usize] = start;
                arrays.push(Array {
                    name: variable.name.clone(),
                    range: start..start.saturating_add(bytes),
                });
                // All dynamic arrays share one start.
                if !variable.dynamic {
                    end = start.saturating_add(bytes).saturating_add(RED_ZONE);
                }
            }
            arrays
        };
        let (shared, local) = (lay_out(Space::Shared), lay_out(Space::Local));
        for (index, variable) in module.variables().iter().enumerate() {
            if variable.space == Space::Param {
                addresses[index] = variable.offset.into();
            }
        }
        let marks = Registers::new(entry);
        let uses = |instruction: &crate::op::Instruction| {
            let copied = copied(&instruction.op);
            entry
                .operands(&instruction.reads)
                .iter()
                .filter(|operand| !copied.contains(operand))
                .map(|operand| marks.mark(operand.file, operand.slot) as u32)
                .collect()
        };
        Self {
            module,
            entry,
            addresses,
            shared,
            local,
            fences: entry
                .code()
                .iter()
                .any(|instruction| has_order(&instruction.op)),
            uses: entry.code().iter().map(uses).collect(),
        }
    }

    /// The module's target.
    pub(crate) fn target(&self) -> u32 {
        self.module.target()
    }

    /// The space of a variable.
    pub(crate) fn space(&self, variable: u16) -> Space {
        self.module.variables()[variable as usize].space
    }

    /// The module's variables with their addresses in their spaces.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&Variable, u64)> {
        self.module
            .variables()
            .iter()
            .zip(self.addresses.iter().copied())
    }

    /// Bytes of shared memory of a block, red zones included.
    pub(crate) fn shared_bytes(&self) -> u64 {
        self.shared
            .iter()
            .map(|array| array.range.end)
            .max()
            .unwrap_or(0)
    }

    /// Bytes of local memory of a thread, red zones included.
    pub(crate) fn local_bytes(&self) -> u64 {
        self.local
            .iter()
            .map(|array| array.range.end)
            .max()
            .unwrap_or(0)
    }

    /// The operand behind an index into the marks.
    pub(crate) fn operand(&self, mark: u32) -> Operand {
        let [narrow, wide, _] = self.entry.registers().map(|n| n as u32);
        let (file, slot) = match mark {
            mark if mark < narrow => (File::Narrow, mark),
            mark if mark < narrow + wide => (File::Wide, mark - narrow),
            mark => (File::Predicate, mark - narrow - wide),
        };
        Operand {
            file,
            slot: Slot(slot as u16),
        }
    }
}

/// The address of a space as a generic one.
pub(crate) const fn generic(space: Space, address: u64) -> u64 {
    match space {
        Space::Shared => SHARED_WINDOW.wrapping_add(address),
        Space::Local => LOCAL_WINDOW.wrapping_add(address),
        _ => address,
    }
}

/// The register of an address.
pub(crate) const fn register(address: &Address) -> Option<Operand> {
    let (file, slot) = match address.base {
        Base::Narrow(slot) => (File::Narrow, slot),
        Base::Wide(slot) => (File::Wide, slot),
        Base::Zero | Base::Variable(_) => return None,
    };
    Some(Operand { file, slot })
}

/// The operands whose marks an instruction copies, and the address of `ldmatrix`, which not every lane need have.
fn copied(op: &Op) -> Vec<Operand> {
    let of = |file, slots: &[Slot]| slots.iter().map(|&slot| Operand { file, slot }).collect();
    let by_bits = |bits: u32| if bits == 64 { File::Wide } else { File::Narrow };
    match op {
        Op::Mov { ty, a, .. } => of(ty.file(), &[*a]),
        Op::PredicateMov { a, .. } => of(File::Predicate, &[a.slot]),
        Op::Selp { ty, a, b, .. } => of(ty.file(), &[*a, *b]),
        Op::Pack { bits, n, a, .. } => of(by_bits((*bits).into()), &a[..*n as usize]),
        Op::Unpack { bits, n, a, .. } => of(by_bits(u32::from(*bits) * u32::from(*n)), &[*a]),
        Op::Ldmatrix { address, .. } => register(address).into_iter().collect(),
        Op::Shfl { a, b, c, mask, .. } if ![b, c, mask].contains(&a) => of(File::Narrow, &[*a]),
        _ => Vec::new(),
    }
}

fn has_order(op: &Op) -> bool {
    let ordered = |order: &Order| !matches!(order, Order::Weak | Order::Volatile | Order::Relaxed);
    match op {
        Op::Fence { .. } => true,
        Op::Load { order, .. } | Op::Store { order, .. } | Op::Atomic { order, .. } => {
            ordered(order)
        }
        _ => false,
    }
}
