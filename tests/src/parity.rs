//! Kernels against their CPU twins and their oracles, on any driver: one body for each kernel.
//!
//! A body uploads its inputs, launches the kernel in several ways (whole vectors and tails, aligned and not, one block and several,
//! loops of one trip and of more), downloads the whole output, and compares it
//!
//! 1. with the **oracle**, the formula in f64, within a tolerance that has a reason;
//! 2. with the **twin**, the kernel's own operations in its own order, to the bit: always where a kernel has no approximate
//!    function, else where the driver rounds those to nearest, as the virtual machine can;
//! 3. where the CPU operation promises the same bits, with that.

mod binary;
mod cast;
mod copy;
mod gather;
mod matmul;
mod memory;
mod number;
mod ops;
mod random;
mod reduce;
mod rope;
mod row;
mod spmm;
mod twin;
mod unary;

pub use row::softmax_rows;

use std::io::Write;
use std::sync::Arc;
use whittle_tensor::kernel::Kernel;
use whittle_tensor::{Device, Driver};

/// What checks one or more kernels.
#[derive(Clone)]
pub struct Body {
    /// The kernels that it launches and judges.
    pub kernels: Vec<&'static Kernel>,
    /// What it checks, for messages.
    pub name: &'static str,
    /// Uploads, launches, downloads and compares; panics where something differs or a launch fails.
    pub run: Arc<dyn Fn(&Device) + Send + Sync>,
}

/// One launch at a named shape, of which the virtual machine's counters are kept as a budget.
#[derive(Clone)]
pub struct Shape {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// The shape, unique for the kernel.
    pub name: String,
    /// Elements of the result, or of what is reduced.
    pub elements: u64,
    /// Bytes that the algorithm must ask for without a cache, by the formula on top of the kernel; none for small and prime shapes.
    pub floor_bytes: Option<u64>,
    /// Uploads what the kernel needs and launches it once.
    pub run: Arc<dyn Fn(&Device) + Send + Sync>,
}

impl Body {
    fn new(kernel: &'static Kernel, run: impl Fn(&dyn Driver) + Send + Sync + 'static) -> Self {
        Self {
            kernels: vec![kernel],
            name: kernel.entry(),
            run: Arc::new(move |device| run(driver(device))),
        }
    }
}

impl Shape {
    fn new(
        kernel: &'static Kernel,
        name: impl Into<String>,
        elements: usize,
        floor_bytes: impl Into<Option<usize>>,
        run: impl Fn(&dyn Driver) + Send + Sync + 'static,
    ) -> Self {
        Self {
            kernel,
            name: name.into(),
            elements: elements as u64,
            floor_bytes: floor_bytes.into().map(|bytes| bytes as u64),
            run: Arc::new(move |device| run(driver(device))),
        }
    }
}

/// A body for every kernel.
pub fn bodies() -> Vec<Body> {
    [
        unary::bodies(),
        binary::bodies(),
        cast::bodies(),
        copy::bodies(),
        row::bodies(),
        reduce::bodies(),
        rope::bodies(),
        gather::bodies(),
        spmm::bodies(),
        random::bodies(),
        matmul::bodies(),
    ]
    .concat()
}

/// The named shapes of every kernel.
pub fn shapes() -> Vec<Shape> {
    [
        unary::shapes(),
        binary::shapes(),
        cast::shapes(),
        copy::shapes(),
        row::shapes(),
        reduce::shapes(),
        rope::shapes(),
        gather::shapes(),
        spmm::shapes(),
        random::shapes(),
        matmul::shapes(),
    ]
    .concat()
}

/// The first GPU, for tests that want one.
///
/// Where there is none, this says so on stderr and returns `None`, for the test to end there; with `WHITTLE_REQUIRE_CUDA=1` that is a
/// failure.
///
/// # Panics
/// Where there is no GPU and one is required.
pub fn gpu(test: &str) -> Option<Device> {
    match whittle_cuda::open(0) {
        Ok(cuda) => Some(Device::Gpu(cuda)),
        Err(error) => {
            let missing = format!("{test}: needs a GPU: {error}");
            assert!(
                std::env::var_os("WHITTLE_REQUIRE_CUDA").is_none_or(|value| value != "1"),
                "{missing}"
            );
            // Written past the capture of test output, or a run that skipped would look like one that passed.
            let _ = writeln!(std::io::stderr(), "SKIPPED {missing}");
            None
        }
    }
}

fn driver(device: &Device) -> &dyn Driver {
    match device {
        Device::Gpu(driver) => &**driver,
        Device::Cpu => panic!("expected a device with a driver, found the CPU"),
    }
}
