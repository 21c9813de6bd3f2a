//! Every kernel against its twin and its oracle: on the virtual machine in several orders and with perturbed approximate functions,
//! and on a GPU where there is one.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use whittle_ptx_vm::{Approx, Limits, Schedule};
use whittle_tensor::Device;
use whittle_tensor::gpu::kernels;
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

#[test]
fn the_order_of_warps_and_blocks_does_not_matter() {
    let bodies = parity::bodies();
    run(&bodies, || vm(Schedule::Reverse, Approx::Nearest));
    run(&bodies, || vm(Schedule::Seeded(7), Approx::Nearest));
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
