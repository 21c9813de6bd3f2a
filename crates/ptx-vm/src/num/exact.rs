//! Exact arithmetic on significands, rounded once to any binary format in any direction.
//!
//! This is the slow path: directed roundings, and conversions into narrow formats. Operands are f64, which holds every narrower
//! format exactly.

use crate::op::Rounding;

/// A binary floating-point format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of the significand, the hidden one included.
    pub precision: u32,
    /// Bits of the exponent.
    pub exponent: u32,
    /// Bits of the largest finite number.
    pub max: u64,
    /// Bits of the canonical NaN.
    pub nan: u64,
}

impl Format {
    /// Half precision.
    pub const F16: Self = Self::ieee(11, 5);
    /// Brain float.
    pub const BF16: Self = Self::ieee(8, 8);
    /// Nineteen bits, which a register holds in its upper ones.
    pub const TF32: Self = Self::ieee(11, 8);
    /// Single precision.
    pub const F32: Self = Self::ieee(24, 8);
    /// Double precision. Its NaN is the one that hardware makes, with the sign set.
    pub const F64: Self = Self {
        nan: 0xfff8 << 48,
        ..Self::ieee(53, 11)
    };
    /// Eight bits, four of them exponent; no infinity, one NaN.
    pub const E4M3: Self = Self {
        max: 0x7e,
        ..Self::ieee(4, 4)
    };
    /// Eight bits, five of them exponent.
    pub const E5M2: Self = Self::ieee(3, 5);

    const fn ieee(precision: u32, exponent: u32) -> Self {
        let width = precision + exponent - 1;
        Self {
            precision,
            exponent,
            max: (((1 << exponent) - 1) << (precision - 1)) - 1,
            nan: (1 << width) - 1,
        }
    }

    const fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    const fn sign(self, negative: bool) -> u64 {
        (negative as u64) << (self.precision + self.exponent - 1)
    }

    /// The bits of `±significand · 2^exponent`, rounded once.
    ///
    /// The lowest bit of `significand` may stand for any non-zero tail below it, if at least two more bits than the precision are
    /// given.
    pub fn round(
        self,
        negative: bool,
        significand: u128,
        exponent: i32,
        rounding: Rounding,
    ) -> u64 {
        let sign = self.sign(negative);
        if significand == 0 {
            return sign;
        }
        let least = 1 - self.bias();
        let top = (127 - significand.leading_zeros() as i32 + exponent).max(least);
        let drop = top - (self.precision as i32 - 1) - exponent;
        let (kept, rest, half) = match drop {
            ..=0 => (significand << -drop, 0, 1),
            1..=127 => (
                significand >> drop,
                significand & ((1 << drop) - 1),
                1 << (drop - 1),
            ),
            // Less than half a unit in the last place.
            _ => (0, 1, 2),
        };
        let up = match rounding {
            Rounding::Rn => rest > half || rest == half && kept & 1 == 1,
            Rounding::Rna => rest >= half,
            Rounding::Rz => false,
            Rounding::Rm => rest > 0 && negative,
            Rounding::Rp => rest > 0 && !negative,
        };
        // The hidden bit of `kept` adds one to the exponent field.
        let field = u128::from((top - least) as u32) << (self.precision - 1);
        let bits = field + kept + u128::from(up);
        if bits <= u128::from(self.max) {
            return sign | bits as u64;
        }
        let to_max = match rounding {
            Rounding::Rn | Rounding::Rna => false,
            Rounding::Rz => true,
            Rounding::Rm => !negative,
            Rounding::Rp => negative,
        };
        sign | if to_max { self.max } else { self.max + 1 }
    }

    /// A zero whose sign is what an exact sum of opposite numbers has.
    const fn cancelled(self, rounding: Rounding) -> u64 {
        self.sign(matches!(rounding, Rounding::Rm))
    }

    /// A NaN, an infinity or a zero of f64 in this format.
    fn special(self, x: f64) -> u64 {
        if x.is_nan() {
            // Doubles keep the payload of a NaN.
            return if self.precision == 53 {
                x.to_bits()
            } else {
                self.nan
            };
        }
        self.sign(x.is_sign_negative()) | if x == 0.0 { 0 } else { self.max + 1 }
    }
}

/// Sign, significand and exponent of a finite number.
fn unpack(x: f64) -> (bool, u64, i32) {
    let bits = x.to_bits();
    let (field, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    let hidden = u64::from(field != 0) << 52;
    (x.is_sign_negative(), hidden | fraction, field.max(1) - 1075)
}

/// `x` in `format`.
pub fn convert(x: f64, format: Format, rounding: Rounding) -> u64 {
    if !x.is_finite() || x == 0.0 {
        return format.special(x);
    }
    let (negative, significand, exponent) = unpack(x);
    format.round(negative, u128::from(significand), exponent, rounding)
}

/// `a · b`, rounded once.
pub fn mul(a: f64, b: f64, format: Format, rounding: Rounding) -> u64 {
    if !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return format.special(a * b);
    }
    let ((sa, ma, ea), (sb, mb, eb)) = (unpack(a), unpack(b));
    format.round(sa != sb, u128::from(ma) * u128::from(mb), ea + eb, rounding)
}

/// `a + b`, rounded once.
pub fn add(a: f64, b: f64, format: Format, rounding: Rounding) -> u64 {
    fma(a, 1.0, b, format, rounding)
}

/// `a − b`, rounded once.
pub fn sub(a: f64, b: f64, format: Format, rounding: Rounding) -> u64 {
    fma(a, 1.0, if b.is_nan() { b } else { -b }, format, rounding)
}

/// `a · b + c`, rounded once.
pub fn fma(a: f64, b: f64, c: f64, format: Format, rounding: Rounding) -> u64 {
    if !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return format.special(a.mul_add(b, c));
    }
    let ((sa, ma, ea), (sb, mb, eb), (sc, mc, ec)) = (unpack(a), unpack(b), unpack(c));
    let product = u128::from(ma) * u128::from(mb);
    match (product, mc) {
        (0, 0) if (sa != sb) == sc => return format.sign(sc),
        (0, 0) => return format.cancelled(rounding),
        (0, _) => return format.round(sc, u128::from(mc), ec, rounding),
        (_, 0) => return format.round(sa != sb, product, ea + eb, rounding),
        _ => {}
    }
    // Both summands with their highest bit at 125, so that a sum has room and what a shift drops lies 19 bits below the other's
    // last.
    let lift = |significand: u128, exponent: i32| {
        let shift = significand.leading_zeros() as i32 - 2;
        (significand << shift, exponent - shift)
    };
    let (p, c) = (lift(product, ea + eb), lift(u128::from(mc), ec));
    let p_first = (p.1, p.0) >= (c.1, c.0);
    let ((high, exponent), (low, below), negative, low_negative) = if p_first {
        (p, c, sa != sb, sc)
    } else {
        (c, p, sc, sa != sb)
    };
    let shift = (exponent - below) as u32;
    let aligned = match shift {
        0..=127 => low >> shift | u128::from(low & ((1 << shift) - 1) != 0),
        _ => 1,
    };
    if negative == low_negative {
        format.round(negative, high + aligned, exponent, rounding)
    } else if high == aligned {
        format.cancelled(rounding)
    } else {
        format.round(negative, high - aligned, exponent, rounding)
    }
}

/// `a / b`, rounded once.
pub fn div(a: f64, b: f64, format: Format, rounding: Rounding) -> u64 {
    if !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return format.special(a / b);
    }
    let ((sa, ma, ea), (sb, mb, eb)) = (unpack(a), unpack(b));
    let shift = u128::from(ma).leading_zeros() - 1;
    let (dividend, divisor) = (u128::from(ma) << shift, u128::from(mb));
    let tail = u128::from(dividend % divisor != 0);
    let quotient = (dividend / divisor) << 1 | tail;
    format.round(sa != sb, quotient, ea - eb - shift as i32 - 1, rounding)
}

/// `√a`, rounded once.
pub fn sqrt(a: f64, format: Format, rounding: Rounding) -> u64 {
    if !a.is_finite() || a <= 0.0 {
        return format.special(a.sqrt());
    }
    let (_, m, e) = unpack(a);
    let shift = (u128::from(m).leading_zeros() as i32 - 1) & !1 | (e & 1);
    let radicand = u128::from(m) << shift;
    let root = radicand.isqrt();
    let tail = u128::from(root * root != radicand);
    format.round(false, root << 1 | tail, (e - shift) / 2 - 1, rounding)
}
