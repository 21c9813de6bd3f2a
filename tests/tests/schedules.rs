//! Kernels write the same bits, ask the same of memory and agree with twin and oracle in sixteen orders of warps and blocks, on random
//! inputs of every shape that their bodies launch.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use whittle_ptx_vm::{Counts, Limits, Schedule, Vm};
use whittle_tensor::device::Info;
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::{Device, DevicePtr, Driver, Result};
use whittle_tests::parity::{Body, bodies};

/// A machine that keeps what its launches leave in memory.
#[derive(Debug)]
struct Witness {
    vm: Arc<Vm>,
    /// Bytes of each allocation.
    sizes: Mutex<BTreeMap<u64, usize>>,
    /// Digests of the memory behind the arguments of each launch, after it.
    left: Mutex<Vec<u64>>,
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Witness {
    /// The bytes of the allocation into which a pointer points.
    fn bytes(&self, pointer: DevicePtr) -> Result<Vec<u8>> {
        let sizes = self.sizes.lock().unwrap();
        let (&start, &size) = sizes.range(..=pointer.address()).next_back().unwrap();
        let mut bytes = vec![0; size];
        self.vm.download(DevicePtr::new(start), &mut bytes)?;
        Ok(bytes)
    }
}

impl Driver for Witness {
    fn alloc(&self, bytes: usize) -> Result<DevicePtr> {
        let pointer = self.vm.alloc(bytes)?;
        self.sizes.lock().unwrap().insert(pointer.address(), bytes);
        Ok(pointer)
    }

    fn free(&self, pointer: DevicePtr) -> Result<()> {
        self.vm.free(pointer)
    }

    fn upload(&self, dst: DevicePtr, src: &[u8]) -> Result<()> {
        self.vm.upload(dst, src)
    }

    fn download(&self, src: DevicePtr, dst: &mut [u8]) -> Result<()> {
        self.vm.download(src, dst)
    }

    fn copy(&self, src: DevicePtr, dst: DevicePtr, bytes: usize) -> Result<()> {
        self.vm.copy(src, dst, bytes)
    }

    fn launch(
        &self,
        kernel: &Kernel,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[Arg],
    ) -> Result<()> {
        self.vm.launch(kernel, grid, block, shared, args)?;
        let pointers = args.iter().filter_map(|arg| match arg {
            Arg::Ptr(pointer) => Some(*pointer),
            _ => None,
        });
        for pointer in pointers {
            let bytes = self.bytes(pointer)?;
            self.left.lock().unwrap().push(digest(&bytes));
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        self.vm.synchronize()
    }

    fn info(&self) -> Info {
        self.vm.info()
    }
}

/// What the launches of a body leave in memory, and what they count.
fn outcome(body: &Body, schedule: Schedule) -> (Vec<u64>, Vec<Counts>) {
    let limits = Limits {
        schedule,
        ..Limits::checked(80)
    };
    let witness = Arc::new(Witness {
        vm: whittle_ptx_vm::open(limits),
        sizes: Mutex::default(),
        left: Mutex::default(),
    });
    (body.run)(&Device::Gpu(witness.clone()));
    let reports = witness.vm.reports();
    let counts = reports.iter().map(|report| report.total).collect();
    let left = std::mem::take(&mut *witness.left.lock().unwrap());
    (left, counts)
}

#[test]
fn bits_and_counts_are_equal_in_sixteen_schedules() {
    let bodies = bodies();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (left, counts) = outcome(body, Schedule::InOrder);
            assert!(!left.is_empty() && !counts.is_empty());
            let others = (1..15).map(Schedule::Seeded).chain([Schedule::Reverse]);
            for schedule in others {
                let (other_left, other_counts) = outcome(body, schedule);
                let what = match (left == other_left, counts == other_counts) {
                    (true, true) => continue,
                    (false, _) => "bits",
                    (true, false) => "counts",
                };
                wrong.push(format!("{}: {schedule:?}: other {what}", body.name));
            }
        }
        wrong
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
