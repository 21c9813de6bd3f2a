//! Occupancy: how many blocks of a kernel fit on one multiprocessor, and what stops the next one.

/// What one multiprocessor has.
struct Multiprocessor {
    architecture: &'static str,
    warps: u32,
    blocks: u32,
    /// Shared memory in bytes.
    shared: u32,
    /// Shared memory that the system takes from each block, in bytes.
    reserve: u32,
}

const fn multiprocessor(
    architecture: &'static str,
    warps: u32,
    blocks: u32,
    shared_kib: u32,
    reserve_kib: u32,
) -> Multiprocessor {
    Multiprocessor {
        architecture,
        warps,
        blocks,
        shared: shared_kib << 10,
        reserve: reserve_kib << 10,
    }
}

/// From NVIDIA's tables of compute capabilities. Architectures that are not listed have no occupancy here.
const MULTIPROCESSORS: [Multiprocessor; 7] = [
    multiprocessor("70", 64, 32, 96, 0),
    multiprocessor("75", 32, 16, 64, 0),
    multiprocessor("80", 64, 32, 164, 1),
    multiprocessor("86", 48, 16, 100, 1),
    multiprocessor("89", 48, 24, 100, 1),
    multiprocessor("90", 64, 32, 228, 1),
    multiprocessor("90a", 64, 32, 228, 1),
];

/// 32-bit registers of a multiprocessor.
const REGISTERS: u32 = 65_536;
/// Registers are given to a warp in units of this many.
const REGISTER_UNIT: u32 = 256;
/// Warps that fit into the registers are a multiple of the multiprocessor's four schedulers.
const SCHEDULERS: u32 = 4;
/// Shared memory is given to a block in units of this many bytes.
const SHARED_UNIT: u32 = 128;

/// Blocks on one multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Blocks at once.
    pub blocks: u32,
    /// What runs out first: `registers`, `shared`, `warps` or `blocks`.
    pub limit: &'static str,
}

/// The occupancy of a kernel with `threads` threads a block, `registers` a thread and `shared` bytes a block; `None` for an
/// architecture whose limits are not listed.
pub fn occupancy(
    architecture: &str,
    threads: u32,
    registers: u32,
    shared: u32,
) -> Option<Occupancy> {
    let on = MULTIPROCESSORS
        .iter()
        .find(|on| on.architecture == architecture)?;
    let warps = threads.div_ceil(32).max(1);
    let per_warp = (32 * registers.max(1)).next_multiple_of(REGISTER_UNIT);
    let register_warps = REGISTERS / per_warp / SCHEDULERS * SCHEDULERS;
    let per_block = (shared + on.reserve).next_multiple_of(SHARED_UNIT);
    let limits = [
        ("warps", on.warps / warps),
        ("blocks", on.blocks),
        ("registers", register_warps / warps),
        (
            "shared",
            on.shared.checked_div(per_block).unwrap_or(u32::MAX),
        ),
    ];
    let (limit, blocks) = limits.into_iter().min_by_key(|(_, blocks)| *blocks)?;
    Some(Occupancy { blocks, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(architecture: &str, threads: u32, registers: u32, shared: u32) -> (u32, &'static str) {
        let found = occupancy(architecture, threads, registers, shared).unwrap();
        (found.blocks, found.limit)
    }

    #[test]
    fn each_resource_can_be_the_limit() {
        // 32 registers a thread: 64 warps, 8 blocks of 8 warps.
        assert_eq!(of("80", 256, 32, 0), (8, "warps"));
        assert_eq!(of("80", 32, 32, 0), (32, "blocks"));
        // 40 registers: 1,280 a warp, 51 warps, rounded down to 48: 6 blocks of 8.
        assert_eq!(of("80", 256, 40, 0), (6, "registers"));
        // 168 registers: 5,376 a warp, 12 warps: 1 block of 8.
        assert_eq!(of("80", 256, 168, 0), (1, "registers"));
        // 48 KiB and 1 KiB of reserve: 3 of them in 164 KiB, 2 in 100 KiB, and 2 in 96 KiB without a reserve.
        assert_eq!(of("80", 128, 32, 48 << 10), (3, "shared"));
        assert_eq!(of("86", 128, 32, 48 << 10), (2, "shared"));
        assert_eq!(of("70", 128, 32, 48 << 10), (2, "shared"));
        assert_eq!(of("75", 1024, 64, 0), (1, "warps"));
    }

    #[test]
    fn an_unlisted_architecture_has_none() {
        assert_eq!(occupancy("100", 256, 32, 0), None);
    }
}
