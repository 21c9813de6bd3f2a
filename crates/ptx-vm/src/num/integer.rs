//! Integer and bit instructions.

/// An integer type of PTX registers.
pub trait Int: Copy + Ord {
    /// Width in bits.
    const BITS: u32;
    /// Whether the top bit is a sign.
    const SIGNED: bool;
    /// Zero.
    const ZERO: Self;
    /// The low bits of a register.
    fn from_bits(bits: u64) -> Self;
    /// The register's bits, zero above the width.
    fn bits(self) -> u64;
    /// The value.
    fn value(self) -> i128;
    /// The value modulo 2^width.
    fn wrap(value: i128) -> Self;
    /// The value, or the nearest of the type.
    fn saturate(value: i128) -> Self;
    /// Sum modulo 2^width.
    fn add(self, other: Self) -> Self;
    /// Difference modulo 2^width.
    fn sub(self, other: Self) -> Self;
    /// Product modulo 2^width.
    fn mul(self, other: Self) -> Self;
    /// Shift right by less than the width, in the sign if there is one.
    fn shift_right(self, count: u32) -> Self;
}

macro_rules! int {
    ($($t:ident as $u:ident),*) => {$(
        impl Int for $t {
            const BITS: u32 = Self::BITS;
            const SIGNED: bool = Self::MIN != 0;
            const ZERO: Self = 0;
            #[inline(always)]
            fn from_bits(bits: u64) -> Self { bits as Self }
            #[inline(always)]
            fn bits(self) -> u64 { (self as $u).into() }
            #[inline(always)]
            fn value(self) -> i128 { self.into() }
            #[inline(always)]
            fn wrap(value: i128) -> Self { value as Self }
            #[inline(always)]
            fn saturate(value: i128) -> Self { value.clamp(Self::MIN.into(), Self::MAX.into()) as Self }
            #[inline(always)]
            fn add(self, other: Self) -> Self { self.wrapping_add(other) }
            #[inline(always)]
            fn sub(self, other: Self) -> Self { self.wrapping_sub(other) }
            #[inline(always)]
            fn mul(self, other: Self) -> Self { self.wrapping_mul(other) }
            #[inline(always)]
            fn shift_right(self, count: u32) -> Self { self >> count }
        }
    )*};
}
int!(
    u8 as u8, i8 as u8, u16 as u16, i16 as u16, u32 as u32, i32 as u32, u64 as u64, i64 as u64
);

/// `add.sat.s32`.
#[inline(always)]
pub fn add_sat(a: i32, b: i32) -> i32 {
    a.saturating_add(b)
}

/// `sub.sat.s32`.
#[inline(always)]
pub fn sub_sat(a: i32, b: i32) -> i32 {
    a.saturating_sub(b)
}

/// `mul.hi`: the upper half of the product.
#[inline(always)]
pub fn mul_hi<T: Int>(a: T, b: T) -> T {
    if T::SIGNED || T::BITS < 64 {
        T::wrap((a.value() * b.value()) >> T::BITS)
    } else {
        T::from_bits(((u128::from(a.bits()) * u128::from(b.bits())) >> 64) as u64)
    }
}

/// `mul.wide`: the whole product of 16- or 32-bit numbers, in a register of twice the width.
#[inline(always)]
pub fn mul_wide<T: Int>(a: T, b: T) -> u64 {
    let product = if T::SIGNED {
        ((a.bits() << (64 - T::BITS)) as i64 >> (64 - T::BITS))
            .wrapping_mul((b.bits() << (64 - T::BITS)) as i64 >> (64 - T::BITS)) as u64
    } else {
        a.bits().wrapping_mul(b.bits())
    };
    if T::BITS == 16 {
        product & 0xffff_ffff
    } else {
        product
    }
}

/// `mad.hi.sat.s32`.
#[inline(always)]
pub fn mad_hi_sat(a: i32, b: i32, c: i32) -> i32 {
    mul_hi(a, b).saturating_add(c)
}

/// `add.cc` and `addc`: the sum with a carry in, and the carry out. The types' signs do not matter.
#[inline(always)]
pub fn add_carry<T: Int>(a: T, b: T, carry: bool) -> (T, bool) {
    let sum = u128::from(a.bits()) + u128::from(b.bits()) + u128::from(carry);
    (T::from_bits(sum as u64), sum >> T::BITS != 0)
}

/// `sub.cc` and `subc`: the difference with a borrow in, and the borrow out.
#[inline(always)]
pub fn sub_borrow<T: Int>(a: T, b: T, borrow: bool) -> (T, bool) {
    let (a, b) = (a.bits(), u128::from(b.bits()) + u128::from(borrow));
    (T::from_bits(a.wrapping_sub(b as u64)), u128::from(a) < b)
}

/// `div`; none for a zero divisor, whose result is unspecified. The least number by −1 wraps.
#[inline(always)]
pub fn div<T: Int>(a: T, b: T) -> Option<T> {
    (b != T::ZERO).then(|| T::wrap(a.value() / b.value()))
}

/// `rem`; none for a zero divisor.
#[inline(always)]
pub fn rem<T: Int>(a: T, b: T) -> Option<T> {
    (b != T::ZERO).then(|| T::wrap(a.value() % b.value()))
}

/// `abs`; the least number wraps to itself.
#[inline(always)]
pub fn abs<T: Int>(a: T) -> T {
    if a < T::ZERO { T::ZERO.sub(a) } else { a }
}

/// `shl`: counts of the width or more give 0.
#[inline(always)]
pub fn shl<T: Int>(a: T, count: u32) -> T {
    if count >= T::BITS {
        T::ZERO
    } else {
        T::from_bits(a.bits() << count)
    }
}

/// `shr`: counts of the width or more give 0, or the sign everywhere.
#[inline(always)]
pub fn shr<T: Int>(a: T, count: u32) -> T {
    match (count >= T::BITS, T::SIGNED) {
        (true, false) => T::ZERO,
        _ => a.shift_right(count.min(T::BITS - 1)),
    }
}

/// `shf.l`: the upper word of `high:low` shifted left; counts are taken modulo 32, or at most 32.
#[inline(always)]
pub fn shf_l(low: u32, high: u32, count: u32, wrap: bool) -> u32 {
    let count = if wrap { count & 31 } else { count.min(32) };
    (((u64::from(high) << 32 | u64::from(low)) << count) >> 32) as u32
}

/// `shf.r`: the lower word of `high:low` shifted right; counts are taken modulo 32, or at most 32.
#[inline(always)]
pub fn shf_r(low: u32, high: u32, count: u32, wrap: bool) -> u32 {
    let count = if wrap { count & 31 } else { count.min(32) };
    ((u64::from(high) << 32 | u64::from(low)) >> count) as u32
}

/// The `len` lowest bits.
#[inline(always)]
const fn ones(len: u32) -> u64 {
    if len >= 64 { u64::MAX } else { (1 << len) - 1 }
}

/// `bfe`: `len` bits of `a` from `pos`, extended by zeros, or by the sign: the field's top bit, or `a`'s where the field goes
/// beyond. Only the low 8 bits of `pos` and `len` count.
#[inline(always)]
pub fn bfe<T: Int>(a: T, pos: u32, len: u32) -> T {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if len == 0 {
        return T::ZERO;
    }
    let shifted = if pos >= 64 { 0 } else { a.bits() >> pos };
    // Bits of the field that exist in `a`.
    let held = len.min(T::BITS.saturating_sub(pos));
    let field = shifted & ones(held);
    let top = (pos + len - 1).min(T::BITS - 1);
    if T::SIGNED && a.bits() >> top & 1 == 1 {
        T::from_bits(field | !ones(held))
    } else {
        T::from_bits(field)
    }
}

/// `bfi`: `b` with `len` bits from `pos` replaced by the low bits of `a`. Only the low 8 bits of `pos` and `len` count.
#[inline(always)]
pub fn bfi<T: Int>(a: T, b: T, pos: u32, len: u32) -> T {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if pos >= T::BITS {
        return b;
    }
    let mask = ones(len) << pos;
    T::from_bits(b.bits() & !mask | a.bits() << pos & mask)
}

/// `bmsk`: `width` ones from bit `pos`; both modulo 32 (`wrap`), or nothing from bit 32 on.
#[inline(always)]
pub fn bmsk(pos: u32, width: u32, wrap: bool) -> u32 {
    let (pos, width) = if wrap {
        (pos & 31, width & 31)
    } else {
        (pos.min(32), width.min(32))
    };
    (ones(width) << pos) as u32
}

/// `szext`: the low `width` bits, extended by their sign or by zeros; `width` modulo 32 (`wrap`), or everything from 32 on.
#[inline(always)]
pub fn szext(a: u32, width: u32, signed: bool, wrap: bool) -> u32 {
    let width = if wrap { width & 31 } else { width.min(32) };
    match (width, signed) {
        (0, _) => 0,
        (_, true) => ((a << (32 - width)) as i32 >> (32 - width)) as u32,
        (_, false) => a & ones(width) as u32,
    }
}

/// `popc`.
#[inline(always)]
pub fn popc<T: Int>(a: T) -> u32 {
    a.bits().count_ones()
}

/// `clz`.
#[inline(always)]
pub fn clz<T: Int>(a: T) -> u32 {
    a.bits().leading_zeros() - (64 - T::BITS)
}

/// `brev`.
#[inline(always)]
pub fn brev<T: Int>(a: T) -> T {
    T::from_bits(a.bits().reverse_bits() >> (64 - T::BITS))
}

/// `bfind`: the highest bit that differs from the sign (from 0 where unsigned), all ones if there is none; `.shiftamt` gives the
/// shift that brings it to the top.
#[inline(always)]
pub fn bfind<T: Int>(a: T, shift_amount: bool) -> u32 {
    let bits = if a < T::ZERO {
        !a.bits() & ones(T::BITS)
    } else {
        a.bits()
    };
    match (bits, shift_amount) {
        (0, _) => u32::MAX,
        (_, false) => 63 - bits.leading_zeros(),
        (_, true) => T::BITS + bits.leading_zeros() - 64,
    }
}

/// How `prmt` reads its selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prmt {
    /// Four nibbles choose a byte each; bit 3 of a nibble replicates the byte's sign.
    Index,
    /// Four bytes forward from the selected one.
    F4e,
    /// Four bytes backward from the selected one.
    B4e,
    /// The selected byte four times.
    Rc8,
    /// Bytes clamped from the left edge.
    Ecl,
    /// Bytes clamped from the right edge.
    Ecr,
    /// The selected 16 bits twice.
    Rc16,
}

/// `prmt`: four of the eight bytes of `b:a`.
#[inline(always)]
pub fn prmt(a: u32, b: u32, selector: u32, mode: Prmt) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let s = selector & 3;
    let mut d = 0;
    for i in 0..4 {
        let index = match mode {
            Prmt::Index => selector >> (4 * i) & 7,
            Prmt::F4e => (s + i) & 7,
            Prmt::B4e => s.wrapping_sub(i) & 7,
            Prmt::Rc8 => s,
            Prmt::Ecl => s.max(i),
            Prmt::Ecr => s.min(i),
            Prmt::Rc16 => (s & 1) * 2 + (i & 1),
        };
        let byte = (bytes >> (8 * index)) as u8;
        let byte = if mode == Prmt::Index && selector >> (4 * i + 3) & 1 == 1 {
            (byte as i8 >> 7) as u8
        } else {
            byte
        };
        d |= u32::from(byte) << (8 * i);
    }
    d
}

/// `lop3`: bit i of the result is bit `a[i] << 2 | b[i] << 1 | c[i]` of the table.
#[inline(always)]
pub fn lop3(a: u32, b: u32, c: u32, table: u8) -> u32 {
    (0..8).fold(0, |d, row| {
        let of = |x: u32, bit: u32| if row >> bit & 1 == 1 { x } else { !x };
        let chosen = if table >> row & 1 == 1 { u32::MAX } else { 0 };
        d | of(a, 2) & of(b, 1) & of(c, 0) & chosen
    })
}

#[inline(always)]
fn byte(x: u32, index: u32, signed: bool) -> i32 {
    let byte = (x >> (8 * index)) as u8;
    if signed {
        (byte as i8).into()
    } else {
        byte.into()
    }
}

/// `dp4a`: `c` plus the dot product of four bytes.
#[inline(always)]
pub fn dp4a(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool) -> u32 {
    (0..4).fold(c, |sum, i| {
        sum.wrapping_add((byte(a, i, a_signed) * byte(b, i, b_signed)) as u32)
    })
}

/// `dp2a`: `c` plus the dot product of two 16-bit numbers and the lower or upper two bytes of `b`.
#[inline(always)]
pub fn dp2a(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool, high: bool) -> u32 {
    (0..2).fold(c, |sum, i| {
        let half = (a >> (16 * i)) as u16;
        let half = if a_signed {
            (half as i16).into()
        } else {
            i32::from(half)
        };
        sum.wrapping_add((half * byte(b, i + 2 * u32::from(high), b_signed)) as u32)
    })
}
