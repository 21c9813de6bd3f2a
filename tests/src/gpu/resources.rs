//! Registers, memory and occupancy of compiled kernels against `resources.lock`.

use serde_json::{Value, json};
use whittle_cuda::Resources;

const LOCK: &str = include_str!("../../../ptx/tensor/resources.lock");

/// What `ptxas` made of a kernel for an architecture, by release of ptxas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// The release: `12.2`.
    pub release: String,
    registers: u64,
    shared: u64,
    local: u64,
    /// Blocks of `.maxntid` threads that fit on a multiprocessor.
    blocks: Option<u64>,
}

/// The rows of a kernel for the newest architecture that is not newer than the device's.
///
/// # Errors
/// A file that is not `resources.lock`.
pub fn locked(entry: &str, architecture: u32) -> Result<Vec<Locked>, String> {
    read(LOCK, entry, architecture)
}

fn read(text: &str, entry: &str, architecture: u32) -> Result<Vec<Locked>, String> {
    let file: toml::Table = text
        .parse()
        .map_err(|error| format!("resources.lock: {error}"))?;
    let Some(rows) = file.get(entry).and_then(toml::Value::as_table) else {
        return Ok(Vec::new());
    };
    let rows: Vec<(u32, Locked)> = rows
        .iter()
        .filter_map(|(key, row)| {
            let (target, release) = key.strip_prefix("sm_")?.split_once(' ')?;
            let figure = |name: &str| row.get(name)?.as_integer()?.try_into().ok();
            let locked = Locked {
                release: release.to_owned(),
                registers: figure("registers")?,
                shared: figure("shared")?,
                local: figure("stack")?,
                blocks: figure("blocks"),
            };
            Some((target.trim_end_matches('a').parse().ok()?, locked))
        })
        .filter(|(target, _)| *target <= architecture)
        .collect();
    let newest = rows.iter().map(|(target, _)| *target).max();
    Ok(rows
        .into_iter()
        .filter(|(target, _)| Some(*target) == newest)
        .map(|(_, locked)| locked)
        .collect())
}

/// Threads of the largest block that a kernel's text allows, by `.maxntid` or `.reqntid`.
pub fn threads_max(ptx: &str) -> Option<u32> {
    let sizes = ptx.lines().find_map(|line| {
        let line = line.trim();
        line.strip_prefix(".maxntid")
            .or_else(|| line.strip_prefix(".reqntid"))
    })?;
    let sides = sizes.split(',').map(|side| side.trim().parse::<u32>());
    sides.product::<Result<u32, _>>().ok()
}

/// The driver's figures beside the lock's: equal shared memory, no local memory, and the registers of one of the releases. The
/// driver's compiler is a release of its own, so that registers may be those of none; that is shown, and not an error.
pub fn compare(entry: &str, found: Resources, blocks: Option<u32>, locked: &[Locked]) -> Value {
    let same = locked
        .iter()
        .find(|row| row.registers == u64::from(found.registers));
    let shared = locked
        .first()
        .map(|row| row.shared == u64::from(found.shared_bytes));
    let occupancy = same
        .and_then(|row| row.blocks)
        .zip(blocks)
        .map(|(ours, driver)| ours == u64::from(driver));
    json!({
        "kernel": entry,
        "registers": found.registers,
        "local_bytes": found.local_bytes,
        "shared_bytes": found.shared_bytes,
        "architecture": found.architecture,
        "registers_as_ptxas": same.map(|row| &row.release),
        "registers_locked": locked.iter().map(|row| row.registers).collect::<Vec<_>>(),
        "no_local_memory": found.local_bytes == 0,
        "shared_as_locked": shared,
        "blocks_per_multiprocessor": blocks,
        "blocks_locked": same.and_then(|row| row.blocks),
        "blocks_as_locked": occupancy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [scale]
        "sm_70 12.2" = { registers = 18, shared = 0, stack = 0, spills = 0, blocks = 8, limit = "warps" }
        "sm_80 12.2" = { registers = 20, shared = 512, stack = 0, spills = 0, blocks = 8, limit = "warps" }
        "sm_80 13.5" = { registers = 22, shared = 512, barriers = 1, stack = 0, spills = 0, blocks = 6, limit = "registers" }
        "sm_120 13.5" = { registers = 24, shared = 512, barriers = 1, stack = 0, spills = 0 }
    "#;

    fn found(registers: u32, local_bytes: u32, shared_bytes: u32) -> Resources {
        Resources {
            registers,
            local_bytes,
            shared_bytes,
            threads_max: 256,
            architecture: 80,
        }
    }

    #[test]
    fn rows_are_those_of_the_newest_architecture_that_the_device_has() {
        let releases = |architecture| {
            let rows = read(TEXT, "scale", architecture).unwrap();
            rows.iter()
                .map(|row| (row.release.clone(), row.registers))
                .collect::<Vec<_>>()
        };
        assert_eq!(releases(75), [("12.2".to_owned(), 18)]);
        let ampere = [("12.2".to_owned(), 20), ("13.5".to_owned(), 22)];
        assert_eq!(releases(80), ampere);
        assert_eq!(releases(90), ampere);
        assert_eq!(releases(120), [("13.5".to_owned(), 24)]);
        assert_eq!(read(TEXT, "other", 80), Ok(Vec::new()));
        assert!(
            read("[", "scale", 80)
                .unwrap_err()
                .contains("resources.lock")
        );
    }

    #[test]
    fn the_largest_block_is_read_from_the_text() {
        assert_eq!(threads_max(".entry x()\n.maxntid 32, 8, 1\n{"), Some(256));
        assert_eq!(threads_max("  .reqntid 128\n"), Some(128));
        assert_eq!(threads_max("// no .maxntid"), None);
    }

    #[test]
    fn a_comparison_shows_what_differs() {
        let rows = read(TEXT, "scale", 80).unwrap();
        let same = compare("scale", found(22, 0, 512), Some(6), &rows);
        assert_eq!(same["registers_as_ptxas"], "13.5");
        assert_eq!(same["blocks_as_locked"], true);
        assert_eq!(
            (&same["no_local_memory"], &same["shared_as_locked"]),
            (&true.into(), &true.into())
        );
        let other = compare("scale", found(23, 8, 256), Some(6), &rows);
        assert_eq!(other["registers_as_ptxas"], Value::Null);
        assert_eq!(other["blocks_as_locked"], Value::Null);
        assert_eq!(
            (&other["no_local_memory"], &other["shared_as_locked"]),
            (&false.into(), &false.into())
        );
        let fewer = compare("scale", found(20, 0, 512), Some(7), &rows);
        assert_eq!(fewer["blocks_as_locked"], false);
    }
}
