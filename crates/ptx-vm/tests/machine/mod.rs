//! A machine with some memory, for tests.
#![allow(dead_code)] // Each test file uses a part.

use std::sync::Arc;
use whittle_ptx_vm::{Approx, Error, Fault, Limits, Report, Schedule, Size, Vm, open};
use whittle_tensor::device::{DevicePtr, Driver};
use whittle_tensor::kernel::Arg;

/// The orders that correct kernels must not notice.
pub fn schedules() -> Vec<Schedule> {
    let seeded = (0..14).map(Schedule::Seeded);
    [Schedule::InOrder, Schedule::Reverse]
        .into_iter()
        .chain(seeded)
        .collect()
}

pub struct Machine {
    pub vm: Arc<Vm>,
}

impl Machine {
    pub fn new(schedule: Schedule) -> Self {
        Self::with(Limits {
            schedule,
            memory_bytes: 64 << 20,
            instructions: 1_000_000,
            approx: Approx::Nearest,
            ..Limits::checked(90)
        })
    }

    pub fn with(limits: Limits) -> Self {
        Self { vm: open(limits) }
    }

    /// Memory that holds these words.
    pub fn words(&self, words: &[u32]) -> DevicePtr {
        let pointer = self.empty(4 * words.len());
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.vm.upload(pointer, &bytes).unwrap();
        pointer
    }

    pub fn floats(&self, values: &[f32]) -> DevicePtr {
        self.words(
            &values
                .iter()
                .map(|value| value.to_bits())
                .collect::<Vec<_>>(),
        )
    }

    /// Memory that nobody wrote.
    pub fn empty(&self, bytes: usize) -> DevicePtr {
        self.vm.alloc(bytes).unwrap()
    }

    pub fn read(&self, pointer: DevicePtr, words: usize) -> Vec<u32> {
        let mut bytes = vec![0; 4 * words];
        self.vm.download(pointer, &mut bytes).unwrap();
        bytes
            .chunks(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect()
    }

    pub fn read_floats(&self, pointer: DevicePtr, values: usize) -> Vec<f32> {
        self.read(pointer, values)
            .into_iter()
            .map(f32::from_bits)
            .collect()
    }

    /// Runs the entry `k`.
    pub fn run(&self, text: &str, grid: u32, block: u32, args: &[Arg]) -> Result<Report, Error> {
        let size = Size {
            grid: [grid, 1, 1],
            block: [block, 1, 1],
            shared: 0,
        };
        self.vm.run(text, "k.ptx", "k", size, args)
    }
}

/// A module with one kernel `k`; `head` comes before it, `parameters` are in PTX.
pub fn module(head: &str, parameters: &str, body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n{head}\n.visible .entry k({parameters})\n{{\n{body}\nret;\n}}\n"
    )
}

pub fn fault(outcome: Result<Report, Error>) -> Fault {
    match outcome {
        Err(Error::Fault(fault)) => *fault,
        other => panic!("expected a fault, found {other:?}"),
    }
}
