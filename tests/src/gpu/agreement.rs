//! Every typed form on a device against the virtual machine, bit by bit.

use super::form::{BLOCK, Form, THREADS};
use serde_json::{Value, json};
use whittle_tensor::kernel::Arg;
use whittle_tensor::{Driver, Result};

/// What a form did on both.
#[derive(Debug)]
pub struct Outcome {
    /// The instruction.
    pub name: String,
    /// Not promised to the bit.
    pub reported: bool,
    /// Words that differ and the first of them, or why one side did not run.
    pub verdict: Result<Difference, String>,
}

/// Words that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Words compared: results, and operands that the instruction may write.
    pub words: usize,
    /// Words that differ.
    pub differing: usize,
    /// Thread, its operands, the device's word and the virtual machine's, of the first.
    pub first: Option<(usize, Vec<u64>, u64, u64)>,
}

impl Outcome {
    /// Whether both ran, and agree where they have to.
    pub fn is_good(&self) -> bool {
        match &self.verdict {
            Ok(difference) => self.reported || difference.differing == 0,
            Err(_) => false,
        }
    }

    /// For the report.
    pub fn json(&self) -> Value {
        let mut value =
            json!({ "form": self.name, "reported": self.reported, "good": self.is_good() });
        match &self.verdict {
            Err(reason) => value["error"] = json!(reason),
            Ok(difference) => {
                value["words"] = json!(difference.words);
                value["differing"] = json!(difference.differing);
                if let Some((thread, operands, device, vm)) = &difference.first {
                    let hex = |word: &u64| format!("{word:#x}");
                    value["first"] = json!({
                        "thread": thread,
                        "operands": operands.iter().map(hex).collect::<Vec<_>>(),
                        "device": hex(device),
                        "vm": hex(vm),
                    });
                }
            }
        }
        value
    }
}

/// Runs a form on both drivers and compares.
pub fn compare(form: &Form, device: &dyn Driver, vm: &dyn Driver) -> Outcome {
    let verdict = run(form, vm)
        .map_err(|error| format!("virtual machine: {error}"))
        .and_then(|vm| {
            let device = run(form, device).map_err(|error| format!("device: {error}"))?;
            Ok(difference(form, &device, &vm))
        });
    Outcome {
        name: form.instruction(),
        reported: form.reported,
        verdict,
    }
}

/// The words of operands and results after the kernel has run.
fn run(form: &Form, driver: &dyn Driver) -> Result<Vec<u64>> {
    let mut words = form.operands();
    let inputs = words.len();
    words.resize(inputs + form.outputs() * THREADS as usize, 0);
    // A form without operands or results still gets an address.
    let memory = driver.alloc((words.len() * 8).max(8))?;
    let done = (|| {
        driver.upload(memory, bytemuck::cast_slice(&words))?;
        let args = [
            Arg::Ptr(memory),
            Arg::Ptr(memory.byte_offset(inputs as u64 * 8)),
        ];
        let grid = [THREADS / BLOCK, 1, 1];
        form.kernel()
            .launch(driver, grid, [BLOCK, 1, 1], 0, &args)?;
        driver.download(memory, bytemuck::cast_slice_mut(&mut words))
    })();
    driver.free(memory)?;
    done.map(|()| words)
}

fn difference(form: &Form, device: &[u64], vm: &[u64]) -> Difference {
    let operands = form.operands();
    let threads = THREADS as usize;
    let mut differing = (0..device.len()).filter(|&at| device[at] != vm[at]);
    let first = differing.next();
    Difference {
        words: device.len(),
        differing: differing.count() + usize::from(first.is_some()),
        first: first.map(|at| {
            let thread = at % threads;
            let words = (0..form.inputs()).map(|k| operands[k * threads + thread]);
            (thread, words.collect(), device[at], vm[at])
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::form::forms;

    #[test]
    fn one_wrong_word_is_found_with_its_operands() {
        let forms = forms().unwrap();
        let form = forms.iter().find(|form| form.name == "add.rn.f32").unwrap();
        let vm: Vec<u64> = (0..3 * u64::from(THREADS)).collect();
        assert_eq!(difference(form, &vm, &vm).differing, 0);
        let mut device = vm.clone();
        let at = 2 * THREADS as usize + 5;
        device[at] ^= 1;
        let found = difference(form, &device, &vm);
        let words = form.operands();
        let operands = vec![words[5], words[THREADS as usize + 5]];
        assert_eq!(found.first, Some((5, operands, vm[at] ^ 1, vm[at])));
        assert_eq!((found.words, found.differing), (vm.len(), 1));
        let mut outcome = Outcome {
            name: form.name.clone(),
            reported: false,
            verdict: Ok(found),
        };
        assert!(!outcome.is_good());
        assert_eq!(outcome.json()["first"]["thread"], 5);
        outcome.reported = true;
        assert!(outcome.is_good());
        outcome.verdict = Err("device: no".to_owned());
        assert!(!outcome.is_good());
    }
}
