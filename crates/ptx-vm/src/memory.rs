//! Memory: allocations with a number each, which of their bytes were written, and who touched them in this launch.
//!
//! A global address is `allocation << 40 | offset`, so that a stray pointer never lands in a neighbour. Two numbers at the top
//! are the windows through which generic addresses reach shared and local memory.

use crate::fault::{Access, FaultKind};
use crate::order::{Order, Stamp, View};
use crate::shadow::{Conflict, Shadow, Touch};
use std::collections::BTreeSet;

const OFFSET_BITS: u32 = 40;
const OFFSET: u64 = (1 << OFFSET_BITS) - 1;
/// Generic addresses of shared memory.
pub(crate) const SHARED_WINDOW: u64 = 0xff_ffff << OFFSET_BITS;
/// Generic addresses of local memory.
pub(crate) const LOCAL_WINDOW: u64 = 0xff_fffe << OFFSET_BITS;
const MAX_ALLOCATIONS: usize = 0xff_fff0;
/// Global memory is noted in pages of this many bytes.
const LOG_PAGE: u32 = 12;

/// The allocation or window of an address.
pub(crate) const fn window(address: u64) -> u64 {
    address & !OFFSET
}

/// Which bytes were written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    bits: Vec<u64>,
    all: bool,
}

impl Written {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bits: vec![0; bytes.div_ceil(64)],
            all: false,
        }
    }

    fn words(offset: usize, len: usize) -> impl Iterator<Item = (usize, u64)> {
        let end = offset + len;
        (offset / 64..end.div_ceil(64)).map(move |word| {
            let low = offset.saturating_sub(64 * word);
            let high = (end - 64 * word).min(64);
            (word, u64::MAX >> (64 - (high - low)) << low)
        })
    }

    #[inline]
    pub(crate) fn set(&mut self, offset: usize, len: usize) {
        if self.all || len == 0 {
            return;
        }
        if len == 64 * self.bits.len() {
            self.all = true;
        }
        Self::words(offset, len).for_each(|(word, mask)| self.bits[word] |= mask);
    }

    pub(crate) fn clear(&mut self, offset: usize, len: usize) {
        if len > 0 {
            Self::words(offset, len).for_each(|(word, mask)| self.bits[word] &= !mask);
        }
    }

    /// The first byte of a range that nobody wrote.
    #[inline]
    pub(crate) fn missing(&self, offset: usize, len: usize) -> Option<usize> {
        if self.all || len == 0 {
            return None;
        }
        Self::words(offset, len)
            .find(|&(word, mask)| self.bits[word] & mask != mask)
            .map(|(word, mask)| 64 * word + (!self.bits[word] & mask).trailing_zeros() as usize)
    }

    /// Whether a byte of a range was written.
    #[inline]
    pub(crate) fn any(&self, offset: usize, len: usize) -> bool {
        len > 0 && Self::words(offset, len).any(|(word, mask)| self.bits[word] & mask != 0)
    }
}

/// How much memory there is, and how much of it is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: u64,
    /// Bytes of the launch beside allocations and notes on pages, as last counted.
    launch: u64,
}

/// Neighbouring lanes at neighbouring places of a region: lane l has `1 << log_width` bytes from `offset + l << log_width`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) offset: usize,
    pub(crate) log_width: u32,
    pub(crate) lanes: usize,
    /// The stamp of the first lane.
    pub(crate) stamp: Stamp,
    pub(crate) view: View,
    pub(crate) shared: bool,
}

/// Why an access is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    Race(Conflict),
    /// No memory for notes.
    Memory,
}

/// Bytes with all that is known about them.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) bytes: Vec<u8>,
    pub(crate) written: Written,
    pub(crate) read_only: bool,
    log_page: u32,
    pages: Vec<Option<Box<Shadow>>>,
}

impl Region {
    fn new(bytes: usize, log_page: u32) -> Self {
        Self {
            bytes: vec![0; bytes],
            written: Written::new(bytes),
            read_only: false,
            log_page,
            pages: Vec::new(),
        }
    }

    /// The shared memory of a block.
    pub(crate) fn shared(bytes: usize) -> Self {
        Self::new(bytes, usize::BITS - 1)
    }

    /// Another block begins: nothing is written.
    pub(crate) fn forget(&mut self) {
        self.written.all = false;
        self.written.bits.fill(0);
    }

    fn page(
        &mut self,
        offset: usize,
        log_width: u32,
        budget: &mut Budget,
    ) -> Result<&mut Shadow, Refusal> {
        let page = offset >> self.log_page;
        if self.pages.is_empty() {
            self.pages
                .resize_with(((self.bytes.len() - 1) >> self.log_page) + 1, || None);
        }
        let bytes = self.bytes.len().min(1 << self.log_page);
        let shadow = match &mut self.pages[page] {
            Some(shadow) => shadow,
            empty => {
                budget
                    .take(Shadow::cost(bytes) as u64)
                    .ok_or(Refusal::Memory)?;
                empty.insert(Box::new(Shadow::new(bytes)))
            }
        };
        if shadow.log_unit > log_width {
            let more = (Shadow::cost(bytes) << (2 - log_width))
                - (Shadow::cost(bytes) << (2 - shadow.log_unit));
            budget.take(more as u64).ok_or(Refusal::Memory)?;
            shadow.refine(log_width);
        }
        Ok(shadow)
    }

    /// Applies `f` to the page of each part of an access that lies in one.
    #[inline(always)]
    fn in_pages<T>(
        &mut self,
        reach: &Reach,
        budget: &mut Budget,
        mut f: impl FnMut(&mut Shadow, &Touch) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let page_bytes = 1usize << self.log_page;
        let mut lane = 0;
        while lane < reach.lanes {
            let offset = reach.offset + (lane << reach.log_width);
            let within = offset & (page_bytes - 1);
            let lanes = (reach.lanes - lane).min((page_bytes - within) >> reach.log_width);
            let shadow = self.page(offset, reach.log_width, budget)?;
            let touch = Touch {
                first: within >> shadow.log_unit,
                log_units: reach.log_width - shadow.log_unit,
                lanes,
                stamp: reach.stamp + lane as Stamp,
                view: reach.view,
                shared: reach.shared,
            };
            if let Some(found) = f(shadow, &touch) {
                return Ok(Some(found));
            }
            lane += lanes;
        }
        Ok(None)
    }

    /// Notes an access, unless it races with an earlier one.
    #[inline(always)]
    pub(crate) fn touch(
        &mut self,
        access: Access,
        reach: &Reach,
        order: &Order,
        budget: &mut Budget,
    ) -> Result<(), Refusal> {
        let conflict = self.in_pages(reach, budget, |shadow, touch| {
            shadow
                .touch(access, touch, order)
                .err()
                .map(|conflict| Conflict {
                    lane: conflict.lane + (touch.stamp - reach.stamp) as usize,
                    ..conflict
                })
        })?;
        conflict.map_or(Ok(()), |conflict| Err(Refusal::Race(conflict)))
    }

    /// Who wrote here in this launch.
    pub(crate) fn writer(
        &mut self,
        reach: &Reach,
        budget: &mut Budget,
    ) -> Result<Option<Conflict>, Refusal> {
        self.in_pages(reach, budget, |shadow, touch| shadow.writer(touch))
    }
}

impl Budget {
    fn take(&mut self, bytes: u64) -> Option<()> {
        if bytes > self.left() {
            return None;
        }
        self.used += bytes;
        Some(())
    }

    /// Counts anew what the launch holds beside allocations and notes on pages.
    pub(crate) fn hold(&mut self, bytes: u64) -> Option<()> {
        self.launch = bytes;
        (self.used.saturating_add(bytes) <= self.limit).then_some(())
    }

    /// Bytes that are left.
    const fn left(&self) -> u64 {
        self.limit
            .saturating_sub(self.used)
            .saturating_sub(self.launch)
    }
}

/// The memory of a device.
#[derive(Debug)]
pub(crate) struct Memory {
    /// None for what was given back.
    allocations: Vec<Option<Box<Region>>>,
    live: BTreeSet<usize>,
    pub(crate) budget: Budget,
}

impl Memory {
    pub(crate) const fn new(limit: u64) -> Self {
        Self {
            allocations: Vec::new(),
            live: BTreeSet::new(),
            budget: Budget {
                limit,
                used: 0,
                launch: 0,
            },
        }
    }

    /// A new allocation's address.
    pub(crate) fn alloc(&mut self, bytes: usize) -> Result<u64, String> {
        if bytes == 0 {
            return Err("expected more than 0 bytes".to_owned());
        }
        if self.allocations.len() >= MAX_ALLOCATIONS || bytes as u64 > OFFSET >> 1 {
            return Err(format!(
                "expected at most {MAX_ALLOCATIONS} allocations of less than 2^39 bytes"
            ));
        }
        let left = self.left();
        self.budget
            .take(bytes as u64)
            .ok_or_else(|| format!("expected at most {left} bytes, found {bytes}"))?;
        self.live.insert(self.allocations.len());
        self.allocations
            .push(Some(Box::new(Region::new(bytes, LOG_PAGE))));
        Ok((self.allocations.len() as u64) << OFFSET_BITS)
    }

    pub(crate) fn free(&mut self, address: u64) -> Result<(), String> {
        let index = ((address >> OFFSET_BITS) as usize).wrapping_sub(1);
        match self.allocations.get_mut(index) {
            Some(None) => Err(format!("{address:#x} was given back before")),
            Some(slot) if address & OFFSET == 0 => {
                if let Some(region) = slot.take() {
                    self.budget.used -= region.bytes.len() as u64;
                }
                self.live.remove(&index);
                Ok(())
            }
            _ => Err(format!(
                "{address:#x} is not the start of a live allocation"
            )),
        }
    }

    /// The region and offset of `bytes` bytes, or what is wrong with the address.
    #[inline]
    pub(crate) fn resolve(
        &mut self,
        address: u64,
        bytes: usize,
    ) -> Result<(&mut Region, &mut Budget, usize), FaultKind> {
        let offset = (address & OFFSET) as usize;
        match self
            .allocations
            .get_mut(((address >> OFFSET_BITS) as usize).wrapping_sub(1))
        {
            Some(Some(region)) if offset + bytes <= region.bytes.len() => {
                Ok((region, &mut self.budget, offset))
            }
            Some(None) => Err(FaultKind::UseAfterFree),
            _ => Err(FaultKind::OutOfBounds),
        }
    }

    fn range(&mut self, address: u64, bytes: usize) -> Result<(&mut Region, usize), String> {
        match self.resolve(address, bytes) {
            Ok((region, _, offset)) => Ok((region, offset)),
            Err(FaultKind::UseAfterFree) => Err(format!("{address:#x} was given back")),
            Err(_) => Err(format!(
                "{bytes} bytes at {address:#x} are outside of every live allocation"
            )),
        }
    }

    pub(crate) fn upload(&mut self, address: u64, src: &[u8]) -> Result<(), String> {
        let (region, offset) = self.range(address, src.len())?;
        region.bytes[offset..offset + src.len()].copy_from_slice(src);
        region.written.set(offset, src.len());
        if src.len() == region.bytes.len() {
            region.written.all = true;
        }
        Ok(())
    }

    pub(crate) fn download(&mut self, address: u64, dst: &mut [u8]) -> Result<(), String> {
        let (region, offset) = self.range(address, dst.len())?;
        dst.copy_from_slice(&region.bytes[offset..offset + dst.len()]);
        Ok(())
    }

    /// Copies bytes together with whether they were written.
    pub(crate) fn copy(&mut self, src: u64, dst: u64, bytes: usize) -> Result<(), String> {
        let (region, offset) = self.range(src, bytes)?;
        let copied = region.bytes[offset..offset + bytes].to_vec();
        let known: Vec<bool> = (offset..offset + bytes)
            .map(|byte| region.written.missing(byte, 1).is_none())
            .collect();
        let whole = known.iter().all(|&known| known);
        let (region, offset) = self.range(dst, bytes)?;
        region.bytes[offset..offset + bytes].copy_from_slice(&copied);
        if whole {
            region.written.set(offset, bytes);
            return Ok(());
        }
        if std::mem::take(&mut region.written.all) {
            region.written.bits.fill(u64::MAX);
        }
        for (byte, known) in (offset..).zip(known) {
            match known {
                true => region.written.set(byte, 1),
                false => region.written.clear(byte, 1),
            }
        }
        Ok(())
    }

    /// Makes an allocation one that kernels only read.
    pub(crate) fn protect(&mut self, address: u64) {
        if let Ok((region, ..)) = self.resolve(address, 0) {
            region.read_only = true;
        }
    }

    /// A launch is over: everything that it did comes before all that follows.
    pub(crate) fn forget_launch(&mut self) {
        (self.budget.used, self.budget.launch) = (0, 0);
        for &index in &self.live {
            if let Some(region) = &mut self.allocations[index] {
                region.pages = Vec::new();
                self.budget.used += region.bytes.len() as u64;
            }
        }
    }

    /// Bytes that are left.
    pub(crate) const fn left(&self) -> u64 {
        self.budget.left()
    }
}
