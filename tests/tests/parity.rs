//! Every kernel against its twin and its oracle: on the virtual machine in several orders and with perturbed approximate functions,
//! and on a GPU where there is one.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use whittle_ptx_vm::{Approx, Limits, Schedule};
use whittle_tensor::device::Info;
use whittle_tensor::gpu::kernels;
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::{Device, DevicePtr, Driver, Result};
use whittle_tests::parity::{self, Body};

fn vm(schedule: Schedule, approx: Approx) -> Device {
    let limits = Limits {
        schedule,
        approx,
        ..Limits::checked(80)
    };
    Device::Gpu(whittle_ptx_vm::open(limits))
}

/// Runs bodies on two threads, each body on a device of its own, and says of each that fails why.
fn run(bodies: &[Body], device: impl Fn() -> Device + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
            let device = device();
            if catch_unwind(AssertUnwindSafe(|| (body.run)(&device))).is_err() {
                failures.push(body.name);
            }
        }
        failures
    };
    let failures: Vec<&str> = std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn every_kernel_has_a_body_and_named_shapes() {
    let of_bodies: BTreeSet<&str> = parity::bodies()
        .iter()
        .flat_map(|body| body.kernels.iter().map(|kernel| kernel.entry()))
        .collect();
    let of_shapes: BTreeSet<&str> = parity::shapes()
        .iter()
        .map(|shape| shape.kernel.entry())
        .collect();
    for kernel in kernels::ALL {
        assert!(
            of_bodies.contains(kernel.entry()),
            "{} has no body",
            kernel.entry()
        );
        assert!(
            of_shapes.contains(kernel.entry()),
            "{} has no shape",
            kernel.entry()
        );
    }
}

#[test]
fn kernels_agree_with_twin_and_oracle() {
    run(&parity::bodies(), || vm(Schedule::InOrder, Approx::Nearest));
}

/// A device on which nothing is ever computed: what is read from it is zeros.
#[derive(Debug)]
struct Idle;

impl Driver for Idle {
    fn alloc(&self, _bytes: usize) -> Result<DevicePtr> {
        Ok(DevicePtr::new(1 << 40))
    }

    fn free(&self, _pointer: DevicePtr) -> Result<()> {
        Ok(())
    }

    fn upload(&self, _dst: DevicePtr, _src: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&self, _src: DevicePtr, dst: &mut [u8]) -> Result<()> {
        dst.fill(0);
        Ok(())
    }

    fn copy(&self, _src: DevicePtr, _dst: DevicePtr, _bytes: usize) -> Result<()> {
        Ok(())
    }

    fn launch(
        &self,
        _kernel: &Kernel,
        _grid: [u32; 3],
        _block: [u32; 3],
        _shared: u32,
        _args: &[Arg],
    ) -> Result<()> {
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn info(&self) -> Info {
        whittle_ptx_vm::open(Limits::checked(80)).info()
    }
}

#[test]
fn trap_9_a_body_whose_device_computes_nothing_is_red() {
    let idle = Device::Gpu(Arc::new(Idle));
    let passes = |body: &Body| catch_unwind(AssertUnwindSafe(|| (body.run)(&idle))).is_ok();
    let green: Vec<&str> = parity::bodies()
        .iter()
        .filter(|body| passes(body))
        .map(|body| body.name)
        .collect();
    assert!(green.is_empty(), "{green:?}");
}

#[test]
fn any_result_that_approximate_functions_may_have_is_near_enough() {
    let bodies = parity::bodies();
    run(&bodies, || vm(Schedule::InOrder, Approx::Perturb(1)));
    run(&bodies, || vm(Schedule::Seeded(2), Approx::Perturb(2)));
}

#[test]
fn kernels_agree_on_a_gpu() {
    let Some(device) = parity::gpu("kernels_agree_on_a_gpu") else {
        return;
    };
    run(&parity::bodies(), || device.clone());
}
