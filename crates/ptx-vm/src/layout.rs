//! Where the elements of matrix fragments lie: which lane, register and part of a register holds which row and column.
//!
//! The rules are those of the PTX manual's figures for `mma`, `ldmatrix` and `movmatrix`. A host packer calls the same functions
//! as the virtual machine, so that both agree on a layout by construction.

/// Shape and element type of a warp-wide matrix product: A is 16 × K, B is K × 8, C and D are 16 × 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mma {
    /// `m16n8k8`, halves.
    M16n8k8F16,
    /// `m16n8k16`, halves.
    M16n8k16F16,
    /// `m16n8k8`, brain floats.
    M16n8k8Bf16,
    /// `m16n8k16`, brain floats.
    M16n8k16Bf16,
    /// `m16n8k4`, tf32: one element a register, its low 13 bits ignored.
    M16n8k4Tf32,
    /// `m16n8k8`, tf32: one element a register, its low 13 bits ignored.
    M16n8k8Tf32,
    /// `m16n8k16`, 8-bit integers, signed or not.
    M16n8k16S8,
    /// `m16n8k32`, 8-bit integers, signed or not.
    M16n8k32S8,
    /// `m16n8k32`, 4-bit integers, signed or not.
    M16n8k32S4,
    /// `m16n8k64`, 4-bit integers, signed or not.
    M16n8k64S4,
}

impl Mma {
    /// Every shape, for tests and tables.
    pub const ALL: [Self; 10] = [
        Self::M16n8k8F16,
        Self::M16n8k16F16,
        Self::M16n8k8Bf16,
        Self::M16n8k16Bf16,
        Self::M16n8k4Tf32,
        Self::M16n8k8Tf32,
        Self::M16n8k16S8,
        Self::M16n8k32S8,
        Self::M16n8k32S4,
        Self::M16n8k64S4,
    ];

    /// Rows of A and of the result.
    pub const M: usize = 16;
    /// Columns of B and of the result.
    pub const N: usize = 8;

    /// Columns of A and rows of B.
    pub const fn k(self) -> usize {
        match self {
            Self::M16n8k4Tf32 => 4,
            Self::M16n8k8F16 | Self::M16n8k8Bf16 | Self::M16n8k8Tf32 => 8,
            Self::M16n8k16F16 | Self::M16n8k16Bf16 | Self::M16n8k16S8 => 16,
            Self::M16n8k32S8 | Self::M16n8k32S4 => 32,
            Self::M16n8k64S4 => 64,
        }
    }

    /// Elements of A or B in one 32-bit register.
    pub const fn per_register(self) -> usize {
        match self {
            Self::M16n8k4Tf32 | Self::M16n8k8Tf32 => 1,
            Self::M16n8k8F16 | Self::M16n8k16F16 | Self::M16n8k8Bf16 | Self::M16n8k16Bf16 => 2,
            Self::M16n8k16S8 | Self::M16n8k32S8 => 4,
            Self::M16n8k32S4 | Self::M16n8k64S4 => 8,
        }
    }

    /// Registers a lane holds of A: 4, or 2 for the shapes of half the depth.
    pub const fn a_registers(self) -> usize {
        2 * self.b_registers()
    }

    /// Registers a lane holds of B: 2, or 1 for the shapes of half the depth.
    pub const fn b_registers(self) -> usize {
        self.k() / (4 * self.per_register())
    }
}

/// Row and column of A that element `elem` (from the low bits) of a lane's register `reg` holds.
///
/// `lane` < 32, `reg` < [`Mma::a_registers`], `elem` < [`Mma::per_register`].
#[inline(always)]
pub const fn a(mma: Mma, lane: usize, reg: usize, elem: usize) -> (usize, usize) {
    let p = mma.per_register();
    (
        lane / 4 + 8 * (reg % 2),
        p * (lane % 4) + elem + 4 * p * (reg / 2),
    )
}

/// Row (the index along K) and column of B that element `elem` (from the low bits) of a lane's register `reg` holds.
///
/// `lane` < 32, `reg` < [`Mma::b_registers`], `elem` < [`Mma::per_register`].
#[inline(always)]
pub const fn b(mma: Mma, lane: usize, reg: usize, elem: usize) -> (usize, usize) {
    let p = mma.per_register();
    (p * (lane % 4) + elem + 4 * p * reg, lane / 4)
}

/// Row and column of C or D that a lane's 32-bit register `reg` < 4 holds.
#[inline(always)]
pub const fn c(lane: usize, reg: usize) -> (usize, usize) {
    (lane / 4 + 8 * (reg / 2), 2 * (lane % 4) + reg % 2)
}

/// Row and column of C or D that half `elem` < 2 of a lane's register `reg` < 2 holds, where accumulators are f16.
#[inline(always)]
pub const fn c_f16(lane: usize, reg: usize, elem: usize) -> (usize, usize) {
    (lane / 4 + 8 * reg, 2 * (lane % 4) + elem)
}

/// Lane, register and element that hold row `row`, column `k` of A: the inverse of [`a`].
#[inline(always)]
pub const fn place_a(mma: Mma, row: usize, k: usize) -> (usize, usize, usize) {
    let p = mma.per_register();
    (
        4 * (row % 8) + k / p % 4,
        row / 8 + 2 * (k / (4 * p)),
        k % p,
    )
}

/// Lane, register and element that hold row `k`, column `n` of B: the inverse of [`b`].
#[inline(always)]
pub const fn place_b(mma: Mma, k: usize, n: usize) -> (usize, usize, usize) {
    let p = mma.per_register();
    (4 * n + k / p % 4, k / (4 * p), k % p)
}

/// Lane and 32-bit register that hold row `row`, column `n` of C or D: the inverse of [`c`].
#[inline(always)]
pub const fn place_c(row: usize, n: usize) -> (usize, usize) {
    (4 * (row % 8) + n / 2, 2 * (row / 8) + n % 2)
}

/// The lane that gives the address of row `row` < 8 of matrix `matrix` < 4 to `ldmatrix`.
#[inline(always)]
pub const fn ldmatrix_address_lane(matrix: usize, row: usize) -> usize {
    8 * matrix + row
}

/// Row and column of an 8 × 8 matrix of 16-bit elements that half `elem` < 2 of a lane's register holds after `ldmatrix`, or
/// after `ldmatrix.trans` when `transposed`.
#[inline(always)]
pub const fn ldmatrix(lane: usize, elem: usize, transposed: bool) -> (usize, usize) {
    let (row, column) = (lane / 4, 2 * (lane % 4) + elem);
    if transposed {
        (column, row)
    } else {
        (row, column)
    }
}

/// Row of a row-major 16 × 16 tile of halves, and first column, whose address a lane gives to `ldmatrix.x4` to have the registers
/// of an A fragment.
#[inline(always)]
pub const fn ldmatrix_a_tile(lane: usize) -> (usize, usize) {
    (lane % 16, 8 * (lane / 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often each cell of a matrix is named.
    fn cover(rows: usize, columns: usize, cells: impl Iterator<Item = (usize, usize)>) -> Vec<u32> {
        let mut seen = vec![0; rows * columns];
        for (row, column) in cells {
            assert!(row < rows && column < columns, "({row}, {column})");
            seen[row * columns + column] += 1;
        }
        seen
    }

    #[test]
    fn fragments_hold_each_element_once() {
        for mma in Mma::ALL {
            let p = mma.per_register();
            let places = |registers: usize| {
                (0..32).flat_map(move |l| {
                    (0..registers).flat_map(move |r| (0..p).map(move |h| (l, r, h)))
                })
            };
            let of_a = places(mma.a_registers()).map(|(l, r, h)| a(mma, l, r, h));
            assert!(cover(16, mma.k(), of_a).iter().all(|&n| n == 1), "{mma:?}");
            let of_b = places(mma.b_registers()).map(|(l, r, h)| b(mma, l, r, h));
            assert!(cover(mma.k(), 8, of_b).iter().all(|&n| n == 1), "{mma:?}");
        }
        for (lane, reg) in (0..32).flat_map(|l| (0..4).map(move |r| (l, r))) {
            let (row, n) = c(lane, reg);
            assert_eq!(place_c(row, n), (lane, reg));
            for mma in Mma::ALL {
                for h in 0..mma.per_register() {
                    let (row, k) = a(mma, lane, reg, h);
                    assert_eq!(place_a(mma, row, k), (lane, reg, h));
                    let (k, n) = b(mma, lane, reg, h);
                    assert_eq!(place_b(mma, k, n), (lane, reg, h));
                }
            }
        }
        let of_c = (0..32).flat_map(|l| (0..4).map(move |r| c(l, r)));
        assert!(cover(16, 8, of_c).iter().all(|&n| n == 1));
        let of_half = (0..32).flat_map(|l| (0..4).map(move |i| c_f16(l, i / 2, i % 2)));
        assert!(cover(16, 8, of_half).iter().all(|&n| n == 1));
    }

    #[test]
    fn fragments_lie_where_the_manual_draws_them() {
        // Lane 13 is group 3, thread 1 of its group.
        let mma = Mma::M16n8k16F16;
        assert_eq!(a(mma, 13, 0, 1), (3, 3));
        assert_eq!(a(mma, 13, 1, 0), (11, 2));
        assert_eq!(a(mma, 13, 2, 0), (3, 10));
        assert_eq!(b(mma, 13, 1, 1), (11, 3));
        assert_eq!((c(13, 0), c(13, 3)), ((3, 2), (11, 3)));
        assert_eq!(c_f16(13, 1, 1), (11, 3));
        assert_eq!(a(Mma::M16n8k8F16, 13, 1, 1), (11, 3));
        assert_eq!(a(Mma::M16n8k8Tf32, 13, 3, 0), (11, 5));
        assert_eq!(b(Mma::M16n8k32S8, 13, 1, 2), (22, 3));
        assert_eq!(a(Mma::M16n8k64S4, 13, 2, 7), (3, 47));
    }

    #[test]
    fn ldmatrix_gives_the_fragments_of_mma() {
        let mma = Mma::M16n8k16F16;
        for lane in 0..32 {
            for reg in 0..4 {
                for elem in 0..2 {
                    // Matrix `reg` of x4 has its rows from lanes 8·reg…8·reg + 7.
                    let (row, column) = ldmatrix(lane, elem, false);
                    let (top, left) = ldmatrix_a_tile(ldmatrix_address_lane(reg, row));
                    assert_eq!((top, left + column), a(mma, lane, reg, elem));
                    // B stored as [n][k] takes the plain form, as [k][n] the transposed one.
                    if reg < 2 {
                        let (k, n) = b(mma, lane, reg, elem);
                        assert_eq!((row, column + 8 * reg), (n, k));
                        let (row, column) = ldmatrix(lane, elem, true);
                        assert_eq!((row + 8 * reg, column), (k, n));
                    }
                }
            }
        }
        assert_eq!(ldmatrix(13, 0, true), (2, 3));
        assert_eq!(ldmatrix(13, 1, true), (3, 3));
    }
}
