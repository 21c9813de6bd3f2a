//! Rounding by comparison of exact numbers: slow, and written another way than the code it judges. Random operands.

use std::cmp::Ordering;
use whittle_ptx_vm::num::Lanes;
use whittle_ptx_vm::op::Rounding;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A register of random bits.
    pub fn lanes(&mut self) -> Lanes {
        std::array::from_fn(|_| self.next() as u32)
    }
}

/// Bits below the point: products of the least doubles fit.
const POINT: i32 = 2240;
const WORDS: usize = 70;

/// A fixed-point number with a sign.
#[derive(Clone)]
struct Fixed {
    negative: bool,
    magnitude: [u64; WORDS],
}

impl Fixed {
    /// `a · b`.
    fn product(a: f64, b: f64) -> Self {
        let parts = |x: f64| {
            let (field, fraction) = (x.to_bits() >> 52 & 0x7ff, x.to_bits() & ((1 << 52) - 1));
            let hidden = if field == 0 { 0 } else { 1 << 52 };
            (u128::from(fraction | hidden), field.max(1) as i32 - 1075)
        };
        let ((ma, ea), (mb, eb)) = (parts(a), parts(b));
        let (significand, at) = (ma * mb, (ea + eb + POINT) as usize);
        let mut magnitude = [0; WORDS];
        for (i, part) in [significand as u64, (significand >> 64) as u64]
            .iter()
            .enumerate()
        {
            let wide = u128::from(*part) << (at % 64);
            magnitude[at / 64 + i] |= wide as u64;
            magnitude[at / 64 + i + 1] |= (wide >> 64) as u64;
        }
        Self {
            negative: a.is_sign_negative() != b.is_sign_negative(),
            magnitude,
        }
    }

    fn plus(mut self, mut other: Self) -> Self {
        if self.negative == other.negative {
            let mut carry = false;
            for (a, b) in self.magnitude.iter_mut().zip(other.magnitude) {
                let (sum, over) = a.overflowing_add(b);
                let (sum, over_again) = sum.overflowing_add(carry.into());
                (*a, carry) = (sum, over || over_again);
            }
            return self;
        }
        if self.magnitude.iter().rev().lt(other.magnitude.iter().rev()) {
            std::mem::swap(&mut self, &mut other);
        }
        let mut borrow = false;
        for (a, b) in self.magnitude.iter_mut().zip(other.magnitude) {
            let (difference, under) = a.overflowing_sub(b);
            let (difference, under_again) = difference.overflowing_sub(borrow.into());
            (*a, borrow) = (difference, under || under_again);
        }
        self
    }

    fn sign(&self) -> Ordering {
        match (self.magnitude.iter().all(|&word| word == 0), self.negative) {
            (true, _) => Ordering::Equal,
            (_, true) => Ordering::Less,
            (_, false) => Ordering::Greater,
        }
    }
}

/// The sign of `Σ a · b`.
fn sign_of(products: &[(f64, f64)]) -> Ordering {
    let sum = products
        .iter()
        .map(|&(a, b)| Fixed::product(a, b))
        .reduce(Fixed::plus);
    sum.map_or(Ordering::Equal, |sum| sum.sign())
}

/// An operation whose exact result is not zero, on finite operands.
#[derive(Clone, Copy, Debug)]
pub enum Exact {
    /// `a · b + c`.
    Fma(f64, f64, f64),
    /// `a / b`.
    Div(f64, f64),
    /// `√a`.
    Sqrt(f64),
}

impl Exact {
    /// Where `y` lies, seen from the exact result.
    fn place(self, y: f64) -> Ordering {
        match self {
            Self::Fma(a, b, c) => sign_of(&[(y, 1.0), (-a, b), (-c, 1.0)]),
            Self::Div(a, b) if b < 0.0 => sign_of(&[(y, -b), (a, 1.0)]),
            Self::Div(a, b) => sign_of(&[(y, b), (-a, 1.0)]),
            Self::Sqrt(_) if y < 0.0 => Ordering::Less,
            Self::Sqrt(a) => sign_of(&[(y, y), (-a, 1.0)]),
        }
    }

    /// Bits of the result in the format of `width` (32 or 64) bits. To nearest only for 32.
    pub fn round(self, width: u32, rounding: Rounding) -> u64 {
        let (infinity, top) = match width {
            32 => (0x7f80_0000u64, 1u64 << 31),
            _ => (0x7ff << 52, 1 << 63),
        };
        let value = |rank: i128| {
            let sign = if rank < 0 { -1.0 } else { 1.0 };
            sign * match (rank.unsigned_abs() as u64, width) {
                (rank, 32) if rank == infinity => 2f64.powi(128),
                (rank, 32) => f64::from(f32::from_bits(rank as u32)),
                (rank, _) => f64::from_bits(rank),
            }
        };
        // The greatest finite rank at or below the result, or the one of −∞.
        let (mut below, mut above) = (-i128::from(infinity), i128::from(infinity));
        while above - below > 1 {
            let middle = below + (above - below) / 2;
            if self.place(value(middle)) == Ordering::Greater {
                above = middle;
            } else {
                below = middle;
            }
        }
        let positive = self.place(0.0) == Ordering::Less;
        let exact = below > -i128::from(infinity) && self.place(value(below)) == Ordering::Equal;
        let rank = match rounding {
            _ if exact => below,
            Rounding::Rm => below,
            Rounding::Rp => above,
            Rounding::Rz => {
                if positive {
                    below
                } else {
                    above
                }
            }
            _ => {
                let middle = (value(below) + value(above)) / 2.0;
                match self.place(middle) {
                    Ordering::Less => above,
                    Ordering::Greater => below,
                    Ordering::Equal => below + (below & 1),
                }
            }
        };
        rank.unsigned_abs() as u64 | if positive { 0 } else { top }
    }
}
