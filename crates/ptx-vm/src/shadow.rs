//! Who touched memory in this launch: for each word, or for each byte once threads touch parts of words, the last writer, the
//! last reader and one more, and the same for atomic operations.

use crate::fault::Access;
use crate::order::{Order, Stamp, View, thread};

/// Calls a function of a constant number of units a lane, so that its loops vectorise.
macro_rules! by_units {
    ($log_units:expr, $f:ident($($arg:expr),*)) => {
        match $log_units {
            0 => $f::<1>($($arg),*),
            1 => $f::<2>($($arg),*),
            2 => $f::<4>($($arg),*),
            3 => $f::<8>($($arg),*),
            _ => $f::<16>($($arg),*),
        }
    };
}

/// Two accesses that nothing orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The lane of the later one.
    pub(crate) lane: usize,
    /// The earlier one.
    pub(crate) other: Stamp,
    /// What the earlier one did.
    pub(crate) access: Access,
}

/// One access of neighbouring lanes to neighbouring places: lane l has `1 << log_units` units from unit `first + l << log_units`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touch {
    pub(crate) first: usize,
    pub(crate) log_units: u32,
    pub(crate) lanes: usize,
    /// The stamp of the first of these lanes.
    pub(crate) stamp: Stamp,
    pub(crate) view: View,
    pub(crate) shared: bool,
}

/// Notes on one page of global memory, or on the shared memory of a block.
#[derive(Debug)]
pub(crate) struct Shadow {
    /// A unit has 1 << this bytes: 4, and once an access is smaller, 2 or 1.
    pub(crate) log_unit: u32,
    units: usize,
    written: Column,
    read: Column,
    read_too: Column,
    atomic: Column,
    atomic_too: Column,
}

/// One stamp a unit, none before the first.
#[derive(Debug, Default)]
struct Column {
    stamps: Vec<Stamp>,
    earliest: Stamp,
    latest: Stamp,
}

impl Column {
    fn make(&mut self, units: usize, stamp: Stamp) -> &mut [Stamp] {
        if self.stamps.is_empty() {
            self.stamps = vec![0; units];
            self.earliest = stamp;
        }
        self.latest = self.latest.max(stamp);
        &mut self.stamps
    }

    /// The first unit whose stamp comes neither before nor from the same thread.
    #[inline(always)]
    fn conflict(&self, touch: &Touch, order: &Order) -> Option<(usize, Stamp)> {
        if touch.view.all_settled(self.earliest, self.latest) {
            return None;
        }
        self.look(touch, order)
    }

    fn look(&self, touch: &Touch, order: &Order) -> Option<(usize, Stamp)> {
        let &Touch {
            first,
            log_units,
            lanes,
            stamp,
            view,
            shared,
        } = touch;
        let stamps = &self.stamps[first..first + (lanes << log_units)];
        let of = |unit: usize| stamp + (unit >> log_units) as Stamp;
        if !view.foreign(self.earliest) && by_units!(log_units, same_threads(stamps, stamp)) {
            return None;
        }
        let mut any = false;
        for (unit, &other) in stamps.iter().enumerate() {
            any |= view.suspect(other, of(unit));
        }
        if !any {
            return None;
        }
        stamps
            .iter()
            .enumerate()
            .find(|&(unit, &other)| {
                view.suspect(other, of(unit)) && !order.before(other, of(unit), shared)
            })
            .map(|(unit, &other)| (unit >> log_units, other))
    }

    fn refine(&mut self, factor: usize) {
        self.stamps = self
            .stamps
            .iter()
            .flat_map(|&stamp| std::iter::repeat_n(stamp, factor))
            .collect();
    }
}

/// Whether all stamps, of one block, are of the threads that touch the units now, or none is set: two sums that answer most
/// questions.
#[inline(always)]
fn same_threads<const N: usize>(stamps: &[Stamp], stamp: Stamp) -> bool {
    let (mut other, mut set) = (0, 0);
    for (lane, units) in stamps.as_chunks::<N>().0.iter().enumerate() {
        for &last in units {
            other |= last ^ stamp.wrapping_add(lane as Stamp);
            set |= last;
        }
    }
    set == 0 || thread(other) == 0
}

#[inline(always)]
fn fill<const N: usize>(stamps: &mut [Stamp], stamp: Stamp) {
    for (lane, units) in stamps.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        *units = [stamp.wrapping_add(lane as Stamp); N];
    }
}

/// Notes an access in a column and, where one that is still unordered would be forgotten, that one in another.
#[inline(always)]
fn note(column: &mut Column, too: &mut Column, touch: &Touch, units: usize) {
    let &Touch {
        first,
        log_units,
        lanes,
        stamp,
        view,
        ..
    } = touch;
    let settled = view.all_settled(column.earliest, column.latest);
    let here = !view.foreign(column.earliest);
    let range = first..first + (lanes << log_units);
    let stamps = &mut column.make(units, stamp)[range.clone()];
    let of = |unit: usize| stamp + (unit >> log_units) as Stamp;
    let quiet = settled || here && by_units!(log_units, same_threads(stamps, stamp));
    if !quiet {
        let mut any = false;
        for (unit, &last) in stamps.iter().enumerate() {
            any |= view.suspect(last, of(unit));
        }
        if any {
            let too = &mut too.make(units, stamp)[range];
            for (unit, (last, too)) in stamps.iter_mut().zip(too).enumerate() {
                let (a, o, u) = (*last, *too, of(unit));
                // Keep whom no later access of this block can have seen, and different warps.
                let keep_new = o == 0
                    || view.settled(o)
                    || !view.foreign(o)
                        && (view.foreign(a)
                            || (thread(o) ^ thread(u)) < 32 && (thread(a) ^ thread(u)) >= 32);
                if view.suspect(a, u) && keep_new {
                    *too = a;
                }
                *last = u;
            }
            return;
        }
    }
    by_units!(log_units, fill(stamps, stamp));
}

impl Shadow {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            log_unit: 2,
            units: bytes.div_ceil(4),
            written: Column::default(),
            read: Column::default(),
            read_too: Column::default(),
            atomic: Column::default(),
            atomic_too: Column::default(),
        }
    }

    /// Bytes that notes of this size can take.
    pub(crate) const fn cost(bytes: usize) -> usize {
        6 * bytes
    }

    /// Splits units into parts of `1 << log_unit` bytes.
    pub(crate) fn refine(&mut self, log_unit: u32) {
        let factor = 1 << (self.log_unit - log_unit);
        for column in [
            &mut self.written,
            &mut self.read,
            &mut self.read_too,
            &mut self.atomic,
            &mut self.atomic_too,
        ] {
            column.refine(factor);
        }
        self.units *= factor;
        self.log_unit = log_unit;
    }

    /// Whether somebody wrote in these units in this launch, and who first.
    pub(crate) fn writer(&self, touch: &Touch) -> Option<Conflict> {
        let units = touch.first..touch.first + (touch.lanes << touch.log_units);
        let columns = [
            (&self.written, Access::Write),
            (&self.atomic, Access::Atomic),
        ];
        columns.into_iter().find_map(|(column, access)| {
            let stamps = column.stamps.get(units.clone())?;
            let unit = stamps.iter().position(|&stamp| stamp != 0)?;
            Some(Conflict {
                lane: unit >> touch.log_units,
                other: stamps[unit],
                access,
            })
        })
    }

    /// Notes an access, unless it conflicts with an earlier one.
    #[inline(always)]
    pub(crate) fn touch(
        &mut self,
        access: Access,
        touch: &Touch,
        order: &Order,
    ) -> Result<(), Conflict> {
        let against = |column: &Column, access| match column.conflict(touch, order) {
            None => Ok(()),
            Some((lane, other)) => Err(Conflict {
                lane,
                other,
                access,
            }),
        };
        against(&self.written, Access::Write)?;
        if access != Access::Read {
            against(&self.read, Access::Read)?;
            against(&self.read_too, Access::Read)?;
        }
        if access != Access::Atomic {
            against(&self.atomic, Access::Atomic)?;
            against(&self.atomic_too, Access::Atomic)?;
        }
        let units = self.units;
        match access {
            Access::Read => note(&mut self.read, &mut self.read_too, touch, units),
            Access::Atomic => note(&mut self.atomic, &mut self.atomic_too, touch, units),
            Access::Write => {
                let stamps = self.written.make(units, touch.stamp);
                let stamps =
                    &mut stamps[touch.first..touch.first + (touch.lanes << touch.log_units)];
                by_units!(touch.log_units, fill(stamps, touch.stamp));
            }
        }
        Ok(())
    }
}
