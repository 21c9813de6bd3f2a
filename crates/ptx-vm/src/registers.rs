//! The registers of a warp, and which lanes wrote them.

use crate::module::Entry;
use crate::num::{Lanes, WideLanes};
use crate::op::{File, Operand, Predicate, Slot};

/// All 32 lanes.
pub(crate) const FULL: u32 = u32::MAX;

/// Lane indices of a mask.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> + Clone {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros();
        rest &= rest.wrapping_sub(1);
        (lane < 32).then_some(lane as usize)
    })
}

/// The three register files.
#[derive(Debug)]
pub(crate) struct Registers {
    narrow: Vec<Lanes>,
    wide: Vec<WideLanes>,
    predicates: Vec<u32>,
    /// Lanes that wrote a register, the files one behind the other.
    pub(crate) written: Vec<u32>,
    /// The carry flag.
    pub(crate) carry: u32,
    pub(crate) carry_written: u32,
}

impl Registers {
    pub(crate) fn new(entry: &Entry) -> Self {
        let [narrow, wide, predicates] = entry.registers();
        let mut registers = Self {
            narrow: vec![[0; 32]; narrow],
            wide: vec![[0; 32]; wide],
            predicates: vec![0; predicates],
            written: vec![0; narrow + wide + predicates],
            carry: 0,
            carry_written: 0,
        };
        let constants = entry.constants();
        for &(slot, value) in &constants.narrow {
            registers.narrow[slot.index()] = [value; 32];
        }
        for &(slot, value) in &constants.wide {
            registers.wide[slot.index()] = [value; 32];
        }
        for &(slot, value) in &constants.predicates {
            registers.predicates[slot.index()] = if value { FULL } else { 0 };
        }
        registers
    }

    /// Nothing is written but the constants.
    pub(crate) fn forget(&mut self, entry: &Entry) {
        self.written.fill(0);
        (self.carry, self.carry_written) = (0, 0);
        let constants = entry.constants();
        let (wide, predicates) = (self.narrow.len(), self.narrow.len() + self.wide.len());
        let narrow = constants.narrow.iter().map(|(slot, _)| slot.index());
        let wide = constants.wide.iter().map(|(slot, _)| wide + slot.index());
        let predicates = constants
            .predicates
            .iter()
            .map(|(slot, _)| predicates + slot.index());
        for index in narrow.chain(wide).chain(predicates) {
            self.written[index] = FULL;
        }
    }

    /// Where a register's mark is in `written`.
    pub(crate) fn mark(&self, file: File, slot: Slot) -> usize {
        slot.index()
            + match file {
                File::Narrow => 0,
                File::Wide => self.narrow.len(),
                File::Predicate => self.narrow.len() + self.wide.len(),
            }
    }

    /// The lanes that wrote a register.
    pub(crate) fn written(&self, file: File, slot: Slot) -> u32 {
        self.written[self.mark(file, slot)]
    }

    /// Marks a register as written in `marked` of the lanes in `exec`.
    pub(crate) fn set_mark(&mut self, file: File, slot: Slot, exec: u32, marked: u32) {
        let index = self.mark(file, slot);
        let mark = &mut self.written[index];
        *mark = *mark & !exec | marked & exec;
    }

    #[inline(always)]
    pub(crate) fn narrow(&self, slot: Slot) -> &Lanes {
        &self.narrow[slot.index()]
    }

    #[inline(always)]
    pub(crate) fn wide(&self, slot: Slot) -> &WideLanes {
        &self.wide[slot.index()]
    }

    /// The lanes in which a predicate holds.
    #[inline(always)]
    pub(crate) fn predicate(&self, predicate: Predicate) -> u32 {
        let lanes = self.predicates[predicate.slot.index()];
        if predicate.negated { !lanes } else { lanes }
    }

    /// One lane's value, of a narrow or wide register.
    #[inline(always)]
    pub(crate) fn value(&self, operand: Operand, lane: usize) -> u64 {
        match operand.file {
            File::Narrow => self.narrow[operand.slot.index()][lane].into(),
            File::Wide => self.wide[operand.slot.index()][lane],
            File::Predicate => (self.predicates[operand.slot.index()] >> lane & 1).into(),
        }
    }

    #[inline(always)]
    pub(crate) fn set_narrow(&mut self, d: Slot, exec: u32, values: &Lanes) {
        let index = d.index();
        self.written[index] |= exec;
        blend(&mut self.narrow[index], values, exec);
    }

    #[inline(always)]
    pub(crate) fn set_wide(&mut self, d: Slot, exec: u32, values: &WideLanes) {
        let index = d.index();
        self.written[self.narrow.len() + index] |= exec;
        blend(&mut self.wide[index], values, exec);
    }

    #[inline(always)]
    pub(crate) fn set_predicate(&mut self, d: Slot, exec: u32, lanes: u32) {
        let index = d.index();
        self.written[self.narrow.len() + self.wide.len() + index] |= exec;
        let predicate = &mut self.predicates[index];
        *predicate = *predicate & !exec | lanes & exec;
    }

    /// A register to fill lane by lane; the lanes in `exec` count as written.
    #[inline(always)]
    pub(crate) fn fill_narrow(&mut self, d: Slot, exec: u32) -> &mut Lanes {
        self.written[d.index()] |= exec;
        &mut self.narrow[d.index()]
    }

    #[inline(always)]
    pub(crate) fn fill_wide(&mut self, d: Slot, exec: u32) -> &mut WideLanes {
        self.written[self.narrow.len() + d.index()] |= exec;
        &mut self.wide[d.index()]
    }

    /// The value of one lane of a register of `bits` bits.
    #[inline(always)]
    pub(crate) fn set_lane(&mut self, d: Slot, bits: u8, lane: usize, value: u64) {
        if bits == 64 {
            self.fill_wide(d, 1 << lane)[lane] = value;
        } else {
            self.fill_narrow(d, 1 << lane)[lane] = cut(value, bits);
        }
    }
}

/// The low `bits` ≤ 32 bits.
#[inline(always)]
pub(crate) const fn cut(value: u64, bits: u8) -> u32 {
    (value & (u64::MAX >> (64 - bits as u32))) as u32
}

#[inline(always)]
fn blend<T: Copy>(register: &mut [T; 32], values: &[T; 32], exec: u32) {
    if exec == FULL {
        *register = *values;
        return;
    }
    for (lane, (register, &value)) in register.iter_mut().zip(values).enumerate() {
        if exec >> lane & 1 == 1 {
            *register = value;
        }
    }
}
