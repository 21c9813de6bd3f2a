//! What lanes of a warp tell each other: `shfl`, `vote`, `match`, `redux`.

/// How `shfl` finds the source lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// `lane − b`.
    Up,
    /// `lane + b`.
    Down,
    /// `lane ^ b`.
    Bfly,
    /// `b`.
    Idx,
}

/// The lane that `lane` reads and whether it is in range; where it is not, the lane reads itself and the predicate is false.
///
/// `c` holds the clamp in bits 0–4 and the segment mask in bits 8–12.
#[inline(always)]
pub fn source(how: Shuffle, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let max = lane & segment | clamp & !segment;
    let (j, in_range) = match how {
        Shuffle::Up => (lane.wrapping_sub(b), lane as i32 - b as i32 >= max as i32),
        Shuffle::Down => (lane + b, lane + b <= max),
        Shuffle::Bfly => (lane ^ b, lane ^ b <= max),
        Shuffle::Idx => {
            let j = lane & segment | b & !segment;
            (j, j <= max)
        }
    };
    if in_range {
        (j & 31, true)
    } else {
        (lane, false)
    }
}

/// `vote.ballot`: the lanes of `mask` whose predicate holds.
#[inline(always)]
pub const fn ballot(predicate: u32, mask: u32) -> u32 {
    predicate & mask
}

/// `vote.all`.
#[inline(always)]
pub const fn all(predicate: u32, mask: u32) -> bool {
    predicate & mask == mask
}

/// `vote.any`.
#[inline(always)]
pub const fn any(predicate: u32, mask: u32) -> bool {
    predicate & mask != 0
}

/// `vote.uni`: the predicate is the same in all lanes of `mask`.
#[inline(always)]
pub const fn uniform(predicate: u32, mask: u32) -> bool {
    all(predicate, mask) || !any(predicate, mask)
}

/// `match.any` for one lane: the lanes of `mask` with its value.
#[inline(always)]
pub fn match_any(values: &[u64; 32], mask: u32, lane: usize) -> u32 {
    (0..32).fold(0, |same, other| {
        same | u32::from(values[other] == values[lane]) << other
    }) & mask
}

/// `match.all`: `mask` and true if all its lanes have one value, else 0 and false.
#[inline(always)]
pub fn match_all(values: &[u64; 32], mask: u32) -> (u32, bool) {
    let same = match_any(values, mask, mask.trailing_zeros() as usize & 31) == mask;
    (if same { mask } else { 0 }, same)
}

/// What `redux` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redux {
    /// Sum modulo 2^32.
    Add,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// Bits set in all.
    And,
    /// Bits set in any.
    Or,
    /// Bits set in an odd number.
    Xor,
}

/// `redux`: the values of the lanes of `mask` made one. An empty mask gives 0.
pub fn redux(how: Redux, signed: bool, values: &[u32; 32], mask: u32) -> u32 {
    // Flipping the sign bit orders signed numbers as unsigned ones.
    let flip = if signed { 1 << 31 } else { 0 };
    let of_mask = (0..32)
        .filter(|lane| mask >> lane & 1 == 1)
        .map(|lane| values[lane]);
    of_mask
        .reduce(|a, b| match how {
            Redux::Add => a.wrapping_add(b),
            Redux::Min => (a ^ flip).min(b ^ flip) ^ flip,
            Redux::Max => (a ^ flip).max(b ^ flip) ^ flip,
            Redux::And => a & b,
            Redux::Or => a | b,
            Redux::Xor => a ^ b,
        })
        .unwrap_or(0)
}
