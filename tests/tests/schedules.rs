//! Kernels write the same bits and count the same in sixteen orders of warps and blocks, at their named shapes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use whittle_ptx_vm::{Counts, Limits, Schedule, Vm};
use whittle_tensor::device::Info;
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::{Device, DevicePtr, Driver, Result};
use whittle_tests::parity::{Shape, shapes};

/// A machine that keeps what its launches leave in memory.
#[derive(Debug)]
struct Witness {
    vm: Arc<Vm>,
    /// Bytes of each allocation.
    sizes: Mutex<BTreeMap<u64, usize>>,
    /// The memory behind the arguments of each launch, after it.
    left: Mutex<Vec<Vec<u8>>>,
}

impl Witness {
    /// An allocation's bytes; those that nobody wrote are 0.
    fn bytes(&self, pointer: DevicePtr) -> Vec<u8> {
        let size = self.sizes.lock().unwrap().get(&pointer.address()).copied();
        let mut bytes = vec![0; size.unwrap_or(0)];
        if self.vm.download(pointer, &mut bytes).is_err() {
            for (at, byte) in bytes.iter_mut().enumerate() {
                let at = DevicePtr::new(pointer.address() + at as u64);
                let _ = self.vm.download(at, std::slice::from_mut(byte));
            }
        }
        bytes
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
        let left = pointers.map(|pointer| self.bytes(pointer));
        self.left.lock().unwrap().extend(left);
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        self.vm.synchronize()
    }

    fn info(&self) -> Info {
        self.vm.info()
    }
}

/// What the launches of a shape leave in memory, and what they count.
fn outcome(shape: &Shape, schedule: Schedule) -> (Vec<Vec<u8>>, Vec<Counts>) {
    let limits = Limits {
        schedule,
        ..Limits::checked(80)
    };
    let witness = Arc::new(Witness {
        vm: whittle_ptx_vm::open(limits),
        sizes: Mutex::default(),
        left: Mutex::default(),
    });
    (shape.run)(&Device::Gpu(witness.clone()));
    let reports = witness.vm.reports();
    let counts = reports.iter().map(|report| report.total).collect();
    let left = std::mem::take(&mut *witness.left.lock().unwrap());
    (left, counts)
}

#[test]
fn bits_and_counts_are_equal_in_sixteen_schedules() {
    let shapes = shapes();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(shape) = shapes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (left, counts) = outcome(shape, Schedule::InOrder);
            assert!(left.iter().any(|bytes| !bytes.is_empty()) && !counts.is_empty());
            let others = (1..15).map(Schedule::Seeded).chain([Schedule::Reverse]);
            for schedule in others {
                let (other_left, other_counts) = outcome(shape, schedule);
                let what = match (left == other_left, counts == other_counts) {
                    (true, true) => continue,
                    (false, _) => "bits",
                    (true, false) => "counts",
                };
                let entry = shape.kernel.entry();
                wrong.push(format!(
                    "{entry} {}: {schedule:?}: other {what}",
                    shape.name
                ));
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
