//! The device that is measured: a GPU, or the virtual machine in its place.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use whittle_cuda::{Cuda, Timer};
use whittle_ptx_vm::Limits;
use whittle_tensor::device::Info;
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::{Device, DevicePtr, Driver, Result};

/// An opened device.
#[derive(Clone, Debug)]
pub enum Machine {
    /// A GPU, timed by events on the device.
    Gpu(Arc<Cuda>),
    /// The virtual machine, timed by the host's clock: it shows that every part runs, and measures nothing.
    Vm(Arc<dyn Driver>),
}

impl Machine {
    /// Opens `cuda:N` or `vm`.
    ///
    /// # Errors
    /// Another name, or what [`whittle_cuda::open`] says.
    pub fn open(name: &str) -> std::result::Result<Self, String> {
        if name == "vm" {
            return Ok(Self::vm());
        }
        let ordinal = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        let ordinal = ordinal.ok_or_else(|| format!("expected cuda:N or vm, found `{name}`"))?;
        whittle_cuda::open(ordinal)
            .map(Self::Gpu)
            .map_err(|error| error.to_string())
    }

    /// The virtual machine with every check.
    pub fn vm() -> Self {
        Self::Vm(whittle_ptx_vm::open(Limits::checked(90)))
    }

    /// The GPU, where it is one.
    pub fn gpu(&self) -> Option<&Arc<Cuda>> {
        match self {
            Self::Gpu(cuda) => Some(cuda),
            Self::Vm(_) => None,
        }
    }

    /// What runs the kernels.
    pub fn driver(&self) -> Arc<dyn Driver> {
        match self {
            Self::Gpu(cuda) => cuda.clone(),
            Self::Vm(vm) => vm.clone(),
        }
    }

    /// Where its tensors are.
    pub fn device(&self) -> Device {
        Device::Gpu(self.driver())
    }

    /// Microseconds that `work` takes, by events on a GPU.
    ///
    /// # Errors
    /// Those of `work` and of the driver.
    pub fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        match self {
            Self::Gpu(cuda) => Timer::new(cuda)?.time(work),
            Self::Vm(vm) => {
                let start = Instant::now();
                work()?;
                vm.synchronize()?;
                Ok(start.elapsed().as_secs_f64() * 1e6)
            }
        }
    }
}

/// One launch that a [`Recorder`] saw.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel.
    pub kernel: Kernel,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Microseconds of each timed run of the launch.
    pub times: Vec<f64>,
}

/// A driver that runs each launch several times and notes how long it took. Kernels that write over their operands then compute
/// something else, so results are not to be read.
#[derive(Debug)]
pub struct Recorder {
    machine: Machine,
    driver: Arc<dyn Driver>,
    samples: usize,
    launches: Mutex<Vec<Launch>>,
}

/// Microseconds that a sample takes at least, so that the time between two launches does not show.
const SAMPLE: f64 = 200.0;

impl Recorder {
    /// Records launches on `machine`, `samples` times each.
    pub fn new(machine: &Machine, samples: usize) -> Arc<Self> {
        Arc::new(Self {
            machine: machine.clone(),
            driver: machine.driver(),
            samples,
            launches: Mutex::default(),
        })
    }

    /// The launches since the last call.
    pub fn take(&self) -> Vec<Launch> {
        std::mem::take(&mut *self.launches.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Driver for Recorder {
    fn alloc(&self, bytes: usize) -> Result<DevicePtr> {
        self.driver.alloc(bytes)
    }

    fn free(&self, pointer: DevicePtr) -> Result<()> {
        self.driver.free(pointer)
    }

    fn upload(&self, dst: DevicePtr, src: &[u8]) -> Result<()> {
        self.driver.upload(dst, src)
    }

    fn download(&self, src: DevicePtr, dst: &mut [u8]) -> Result<()> {
        self.driver.download(src, dst)
    }

    fn copy(&self, src: DevicePtr, dst: DevicePtr, bytes: usize) -> Result<()> {
        self.driver.copy(src, dst, bytes)
    }

    fn launch(
        &self,
        kernel: &Kernel,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[Arg],
    ) -> Result<()> {
        let once = || self.driver.launch(kernel, grid, block, shared, args);
        let mut times = Vec::new();
        if self.machine.gpu().is_some() {
            // The first launch compiles the kernel, the second says how long one takes.
            once()?;
            let single = self.machine.time(once)?;
            let repeats = (SAMPLE / single).clamp(1.0, 200.0) as u32;
            for _ in 0..self.samples {
                let all = self
                    .machine
                    .time(|| (0..repeats).try_for_each(|_| once()))?;
                times.push(all / f64::from(repeats));
            }
        } else {
            times.push(self.machine.time(once)?);
        }
        let launch = Launch {
            kernel: *kernel,
            grid,
            block,
            shared,
            times,
        };
        self.launches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(launch);
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        self.driver.synchronize()
    }

    fn info(&self) -> Info {
        self.driver.info()
    }
}

/// The middle value, and the distance between the quartiles; of the larger middle two where there are two.
pub fn median(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |part: usize| sorted.get(sorted.len() * part / 4).copied();
    Some((at(2)?, at(3)? - at(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_has_a_spread_and_an_empty_list_none() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some((3.0, 0.0)));
        assert_eq!(median(&[5.0, 1.0, 2.0, 4.0, 3.0]), Some((3.0, 2.0)));
    }

    #[test]
    fn an_unknown_device_is_an_error_that_names_the_known_ones() {
        for name in ["cpu", "cuda", "cuda:x", ""] {
            let error = Machine::open(name).unwrap_err();
            assert!(error.contains("cuda:N or vm"), "{error}");
        }
    }
}
