//! `ptx/<crate>/budgets.toml`: what each kernel does at named shapes, as the virtual machine counted it. The tests hold the counts to
//! what the kernels do now; here they are shown, and held to what each kernel must do at least.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;

use crate::failure::{Context, Result};
use crate::process;
use crate::root::root;

/// The budgets of a crate's kernels, by entry.
pub type Budgets = BTreeMap<String, Budget>;

/// The budget of one kernel. Counts that only the tests look at are left out here.
#[derive(Deserialize)]
pub struct Budget {
    /// How many bytes it may ask of global memory for each that its algorithm must.
    pub bytes_over_floor_max: Option<f64>,
    /// By the shape's name.
    #[serde(default)]
    pub shape: BTreeMap<String, Shape>,
}

/// The counts of one launch; those that are 0 are left out of the file.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Shape {
    elements: u64,
    instructions: u64,
    global_sectors: u64,
    shared_wavefronts: u64,
    shared_wavefronts_min: u64,
    floor_bytes: Option<u64>,
}

/// Reads the file; no file is no budgets.
pub fn read(family: &str) -> Result<Budgets> {
    let path = format!("ptx/{family}/budgets.toml");
    let place = root().join(&path);
    if !place.exists() {
        return Ok(Budgets::new());
    }
    toml::from_str(&fs::read_to_string(&place).context(&path)?).context(&path)
}

/// Has the virtual machine count again, and writes the files.
pub fn write() -> Result<()> {
    // With the features and the profile of `cargo test`, which has built it then.
    let program = ["run", "--quiet", "--all-features", "--bin", "budgets"];
    process::run(&mut process::cargo(&program))
}

impl Budget {
    /// Bytes asked of global memory ÷ floor, the worst of the shapes that have a floor.
    pub fn bytes_over_floor(&self) -> Option<f64> {
        self.shape
            .values()
            .filter_map(|shape| {
                Some((32 * shape.global_sectors) as f64 / shape.floor_bytes? as f64)
            })
            .max_by(f64::total_cmp)
    }

    /// Wavefronts of shared memory beyond the least, in all shapes together.
    pub fn conflicts(&self) -> u64 {
        self.shape
            .values()
            .map(|shape| {
                shape
                    .shared_wavefronts
                    .saturating_sub(shape.shared_wavefronts_min)
            })
            .sum()
    }

    /// Instructions of a thread ÷ elements, of the shape with the most elements.
    pub fn instructions_per_element(&self) -> Option<f64> {
        let largest = self.shape.values().max_by_key(|shape| shape.elements)?;
        (largest.elements > 0).then(|| (32 * largest.instructions) as f64 / largest.elements as f64)
    }

    /// What is wrong with the budget.
    pub fn problem(&self) -> Option<String> {
        if self.shape.is_empty() {
            return Some("expected a shape, found none".to_owned());
        }
        let (found, most) = (self.bytes_over_floor()?, self.bytes_over_floor_max);
        match most {
            None => {
                Some("expected bytes_over_floor_max, as a shape has a floor; found none".to_owned())
            }
            Some(most) if found > most => Some(format!(
                "expected at most {most} bytes for each of the floor, found {found:.3}"
            )),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[a_f32]\nbytes_over_floor_max = 1.1\n\n[a_f32.shape]\n\
                        \"64\" = { elements = 64, floor_bytes = 320, instructions = 20, global_sectors = 11, \
                        shared_wavefronts = 4, shared_wavefronts_min = 2, atomics = 0 }\n\
                        \"7\" = { elements = 7, instructions = 20, global_sectors = 2 }\n";

    fn budget(text: &str) -> Budget {
        let mut budgets: Budgets = toml::from_str(text).unwrap();
        budgets.remove("a_f32").unwrap()
    }

    #[test]
    fn figures_come_from_the_counts() {
        let budget = budget(FILE);
        assert_eq!(budget.bytes_over_floor(), Some(1.1));
        assert_eq!(budget.conflicts(), 2);
        assert_eq!(budget.instructions_per_element(), Some(10.0));
        assert_eq!(budget.problem(), None);
    }

    #[test]
    fn too_many_bytes_and_no_shape_are_problems() {
        let more = budget(&FILE.replace("sectors = 11", "sectors = 12")).problem();
        assert!(more.unwrap().ends_with("found 1.200"));
        let unbound = budget(&FILE.replace("bytes_over_floor_max = 1.1\n", "")).problem();
        assert!(
            unbound
                .unwrap()
                .starts_with("expected bytes_over_floor_max")
        );
        assert!(budget("[a_f32]\n").problem().unwrap().contains("shape"));
    }
}
