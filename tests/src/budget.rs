//! `ptx/<crate>/budgets.toml`: what kernels do at named shapes, exactly, as the virtual machine counts it.

use crate::parity::Shape;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use whittle_ptx_vm::{Counts, Limits};
use whittle_tensor::Device;

/// Bytes asked of global memory for each that a kernel must, where its file does not say how many it may.
const BYTES_OVER_FLOOR: f64 = 1.1;

/// The budgets of kernels by entry, and in them the shapes by name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Budgets(BTreeMap<String, Budget>);

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    bytes_over_floor_max: Option<f64>,
    #[serde(default)]
    shape: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Budgets {
    /// Launches every shape on the virtual machine, several at a time.
    ///
    /// # Panics
    /// Where a launch faults, or a shape launches its kernel more or less than once.
    pub fn measured(shapes: &[Shape]) -> Self {
        let budgets = Mutex::new(Self::default());
        let next = Mutex::new(shapes.iter());
        let work = || {
            loop {
                let Some(shape) = next.lock().unwrap().next() else {
                    return;
                };
                let counts = measured(shape);
                budgets.lock().unwrap().insert(shape, &counts);
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        budgets.into_inner().unwrap()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// The budgets of the kernels that `is_of` picks.
    #[must_use]
    pub fn only(&self, is_of: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(entry, _)| is_of(entry));
        Self(
            kept.map(|(entry, budget)| (entry.clone(), budget.clone()))
                .collect(),
        )
    }

    /// Takes over how many bytes each kernel may ask for, as the file `other` says.
    #[must_use]
    pub fn with_bounds_of(mut self, other: &Self) -> Self {
        for (entry, budget) in &mut self.0 {
            let known = other
                .0
                .get(entry)
                .and_then(|other| other.bytes_over_floor_max);
            budget.bytes_over_floor_max = budget
                .bytes_over_floor_max
                .and(known.or(budget.bytes_over_floor_max));
        }
        self
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "# Written by `cargo xtask kernels --bless`: what the virtual machine counts in one launch of each kernel at named shapes;\n\
             # counts that are 0 are left out. `bytes_over_floor_max` bounds 32 · global_sectors ÷ floor_bytes and is kept.\n",
        );
        for (entry, budget) in &self.0 {
            text.push_str(&format!("\n[{entry}]\n"));
            if let Some(most) = budget.bytes_over_floor_max {
                text.push_str(&format!("bytes_over_floor_max = {most}\n"));
            }
            text.push_str(&format!("[{entry}.shape]\n"));
            for (name, counts) in &budget.shape {
                let counts: Vec<String> = ORDER
                    .iter()
                    .filter_map(|name| Some(format!("{name} = {}", counts.get(*name)?)))
                    .collect();
                text.push_str(&format!("\"{name}\" = {{ {} }}\n", counts.join(", ")));
            }
        }
        text
    }

    /// What differs between this file and what is counted now, and which bounds are broken.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let entries: BTreeSet<&String> = self.0.keys().chain(now.0.keys()).collect();
        for entry in entries {
            let none = Budget::default();
            let budget = self.0.get(entry).unwrap_or(&none);
            let counted = now.0.get(entry).unwrap_or(&none);
            let names: BTreeSet<&String> =
                budget.shape.keys().chain(counted.shape.keys()).collect();
            for name in names {
                let (expected, actual) = (budget.shape.get(name), counted.shape.get(name));
                if expected == actual {
                    continue;
                }
                let value = |counts: Option<&BTreeMap<String, u64>>, key: &str| {
                    counts.map_or(0, |counts| counts.get(key).copied().unwrap_or(0))
                };
                for key in ORDER {
                    let (expected, actual) = (value(expected, key), value(actual, key));
                    if expected != actual {
                        found.push(format!(
                            "{entry} {name}: expected {key} = {expected}, found {actual}"
                        ));
                    }
                }
            }
            for (name, counts) in &counted.shape {
                let ratio = counts.get("floor_bytes").map(|floor| {
                    32.0 * counts.get("global_sectors").copied().unwrap_or(0) as f64 / *floor as f64
                });
                let most = budget.bytes_over_floor_max.unwrap_or(BYTES_OVER_FLOOR);
                if let Some(ratio) = ratio.filter(|ratio| *ratio > most) {
                    found.push(format!(
                        "{entry} {name}: expected at most {most} bytes for each of the floor, found {ratio:.3}"
                    ));
                }
            }
        }
        found
    }

    fn insert(&mut self, shape: &Shape, counts: &Counts) {
        let budget = self.0.entry(shape.kernel.entry().to_owned()).or_default();
        let values = [
            shape.elements,
            shape.floor_bytes.unwrap_or(0),
            counts.instructions,
            counts.lanes,
            counts.global_sectors,
            counts.global_sectors_min,
            counts.shared_wavefronts,
            counts.shared_wavefronts_min,
            counts.atomics,
            counts.barriers,
            counts.mma_flops,
            counts.async_bytes,
        ];
        if shape.floor_bytes.is_some() {
            budget.bytes_over_floor_max = Some(BYTES_OVER_FLOOR);
        }
        let counts = ORDER
            .iter()
            .zip(values)
            .filter(|(_, value)| *value > 0)
            .map(|(name, value)| ((*name).to_owned(), value))
            .collect();
        let name = shape.name.clone();
        let former = budget.shape.insert(name, counts);
        assert!(
            former.is_none(),
            "two shapes of {} are {}",
            shape.kernel.entry(),
            shape.name
        );
    }
}

/// The families of kernels, the folders of `ptx/`, each with the place of its budgets.
///
/// # Errors
/// The folder can't be read.
pub fn files(root: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let folder = root.join("ptx");
    let entries =
        std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.join("variants.toml").exists())
        .filter_map(|path| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some((name, path.join("budgets.toml")))
        })
        .collect();
    files.sort();
    Ok(files)
}

/// Whether a kernel is one of the family's.
pub fn is_of(root: &Path, family: &str, entry: &str) -> bool {
    root.join(format!("crates/{family}/src/ptx/{entry}.ptx"))
        .exists()
}

/// The order of the counts in a line.
const ORDER: [&str; 12] = [
    "elements",
    "floor_bytes",
    "instructions",
    "lanes",
    "global_sectors",
    "global_sectors_min",
    "shared_wavefronts",
    "shared_wavefronts_min",
    "atomics",
    "barriers",
    "mma_flops",
    "async_bytes",
];

fn measured(shape: &Shape) -> Counts {
    let vm = whittle_ptx_vm::open(Limits::checked(80));
    (shape.run)(&Device::Gpu(vm.clone()));
    let reports = vm.reports();
    let entry = shape.kernel.entry();
    let [report] = reports
        .iter()
        .filter(|report| report.kernel == entry)
        .collect::<Vec<_>>()[..]
    else {
        panic!(
            "{entry} {}: expected one launch, found {}",
            shape.name,
            reports.len()
        );
    };
    report.total
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[a_f32]\nbytes_over_floor_max = 1.25\n[a_f32.shape]\n\
                        \"64\" = { elements = 64, floor_bytes = 320, instructions = 20, global_sectors = 12 }\n";

    fn parsed(text: &str) -> Budgets {
        Budgets::parse(text).unwrap()
    }

    #[test]
    fn a_file_that_was_written_reads_back() {
        let budgets = parsed(FILE);
        assert_eq!(parsed(&budgets.text()), budgets);
        assert_eq!(budgets.differences(&budgets), [] as [String; 0]);
        assert_eq!(budgets.only(|entry| entry != "a_f32"), Budgets::default());
    }

    #[test]
    fn other_counts_a_missing_shape_and_a_broken_bound_are_named() {
        let budgets = parsed(FILE);
        let found = budgets.differences(&parsed(&FILE.replace("sectors = 12", "sectors = 13")));
        assert_eq!(
            found,
            [
                "a_f32 64: expected global_sectors = 12, found 13",
                "a_f32 64: expected at most 1.25 bytes for each of the floor, found 1.300"
            ]
        );
        let found = budgets.differences(&Budgets::default());
        assert_eq!(found.len(), 4);
        assert_eq!(found[0], "a_f32 64: expected elements = 64, found 0");
    }

    #[test]
    fn a_bound_is_kept() {
        let counted = parsed(&FILE.replace("1.25", "1.1"));
        assert_eq!(counted.with_bounds_of(&parsed(FILE)), parsed(FILE));
        let unbound = parsed(&FILE.replace("bytes_over_floor_max = 1.25\n", ""));
        assert_eq!(unbound.clone().with_bounds_of(&parsed(FILE)), unbound);
    }
}
