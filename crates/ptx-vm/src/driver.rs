//! The machine as a driver: memory, a cache of modules, launches, reports.

use crate::counters::Report;
use crate::error::{Error, Result};
use crate::launch::Launch;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::module::Module;
use crate::program;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use whittle_tensor::device::{DevicePtr, Driver, Info};
use whittle_tensor::kernel::{Arg, Kernel};

/// So many launches are remembered for [`Vm::reports`].
const REPORTS: usize = 4096;

/// Bytes of PTX text of all modules that a machine keeps loaded.
const TEXTS: u64 = 256 << 20;

/// Opens a machine.
pub fn open(limits: Limits) -> Arc<Vm> {
    Arc::new(Vm {
        limits,
        state: Mutex::new(State {
            memory: Memory::new(limits.memory_bytes),
            modules: HashMap::new(),
            texts: 0,
            reports: VecDeque::new(),
        }),
    })
}

/// A virtual GPU: a [`Driver`] that executes PTX on the CPU, with every check.
///
/// A launch that faults ends where the fault is; memory keeps what it had written until then, and the machine goes on.
pub struct Vm {
    limits: Limits,
    state: Mutex<State>,
}

struct State {
    memory: Memory,
    modules: HashMap<String, Arc<Loaded>>,
    /// Bytes of their texts.
    texts: u64,
    reports: VecDeque<Report>,
}

/// A module with its global variables in memory.
struct Loaded {
    module: Module,
    placed: Vec<u64>,
}

/// The sizes of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

impl Vm {
    /// The machine's limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Runs `entry` of the module `text`; `file` is its name in faults.
    ///
    /// # Errors
    /// What [`Module::parse`] says, [`Error::Signature`] for arguments that are not the entry's, [`Error::Limit`],
    /// [`Error::Fault`].
    pub fn run(
        &self,
        text: &str,
        file: &str,
        entry: &str,
        size: Size,
        args: &[Arg],
    ) -> Result<Report> {
        let state = &mut *self.state();
        let loaded = state.load(text, &self.limits)?;
        state.launch(&loaded, file, entry, size, args, &self.limits)
    }

    /// The counters of the launches since the last call, of which the latest 4096 are kept.
    pub fn reports(&self) -> Vec<Report> {
        self.state().reports.drain(..).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked did so between two accesses: the state is whole.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn refuse(&self, op: &'static str, reason: impl fmt::Display) -> whittle_tensor::Error {
        whittle_tensor::Error::Driver {
            driver: self.name(),
            op,
            reason: reason.to_string(),
        }
    }

    fn name(&self) -> String {
        format!("ptx-vm sm_{}", self.limits.arch)
    }
}

impl State {
    fn load(&mut self, text: &str, limits: &Limits) -> Result<Arc<Loaded>> {
        if let Some(loaded) = self.modules.get(text) {
            return Ok(loaded.clone());
        }
        let texts = self.texts + text.len() as u64;
        if texts > TEXTS {
            return Err(Error::Limit {
                what: "bytes of text of the modules of a machine",
                limit: TEXTS,
                found: texts,
            });
        }
        let module = Module::parse(text)?;
        let placed = program::place(&module, &mut self.memory).map_err(|_| Error::Limit {
            what: "bytes of memory for the variables of a module",
            limit: limits.memory_bytes,
            found: module
                .variables()
                .iter()
                .map(|variable| variable.bytes)
                .fold(0, u64::saturating_add),
        })?;
        let loaded = Arc::new(Loaded { module, placed });
        self.modules.insert(text.to_owned(), loaded.clone());
        self.texts = texts;
        Ok(loaded)
    }

    fn launch(
        &mut self,
        loaded: &Loaded,
        file: &str,
        entry: &str,
        size: Size,
        args: &[Arg],
        limits: &Limits,
    ) -> Result<Report> {
        let launch = Launch {
            module: &loaded.module,
            entry: loaded.module.entry(entry)?,
            file,
            placed: &loaded.placed,
            grid: size.grid,
            block: size.block,
            dynamic_shared: size.shared,
            args,
        };
        let report = launch.run(&mut self.memory, limits)?;
        if self.reports.len() == REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back(report.clone());
        Ok(report)
    }
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Driver for Vm {
    fn alloc(&self, bytes: usize) -> whittle_tensor::Result<DevicePtr> {
        let address = self.state().memory.alloc(bytes);
        address
            .map(DevicePtr::new)
            .map_err(|reason| self.refuse("alloc", reason))
    }

    fn free(&self, pointer: DevicePtr) -> whittle_tensor::Result<()> {
        let freed = self.state().memory.free(pointer.address());
        freed.map_err(|reason| self.refuse("free", reason))
    }

    fn upload(&self, dst: DevicePtr, src: &[u8]) -> whittle_tensor::Result<()> {
        let done = self.state().memory.upload(dst.address(), src);
        done.map_err(|reason| self.refuse("upload", reason))
    }

    fn download(&self, src: DevicePtr, dst: &mut [u8]) -> whittle_tensor::Result<()> {
        let done = self.state().memory.download(src.address(), dst);
        done.map_err(|reason| self.refuse("download", reason))
    }

    fn copy(&self, src: DevicePtr, dst: DevicePtr, bytes: usize) -> whittle_tensor::Result<()> {
        let done = self
            .state()
            .memory
            .copy(src.address(), dst.address(), bytes);
        done.map_err(|reason| self.refuse("copy", reason))
    }

    fn launch(
        &self,
        kernel: &Kernel,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[Arg],
    ) -> whittle_tensor::Result<()> {
        let size = Size {
            grid,
            block,
            shared,
        };
        let state = &mut *self.state();
        let outcome = state.load(kernel.ptx(), &self.limits).and_then(|loaded| {
            loaded.module.entry(kernel.entry())?.check(kernel)?;
            let file = format!("{}.ptx", kernel.module());
            state.launch(&loaded, &file, kernel.entry(), size, args, &self.limits)
        });
        outcome
            .map(drop)
            .map_err(|error| self.refuse("launch", error))
    }

    fn synchronize(&self) -> whittle_tensor::Result<()> {
        Ok(())
    }

    fn info(&self) -> Info {
        Info {
            name: self.name(),
            capability: (self.limits.arch / 10, self.limits.arch % 10),
            multiprocessors: 1,
            memory: self.limits.memory_bytes,
            shared_memory: self.limits.shared_bytes(),
        }
    }
}
