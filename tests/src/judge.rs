//! Judges mutants: runs the parity bodies of a kernel on the virtual machine with a mutant in the kernel's place.

use crate::parity::Body;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use whittle_ptx_vm::{Limits, Size, Vm};
use whittle_tensor::device::Info;
use whittle_tensor::kernel::{Arg, Kernel};
use whittle_tensor::{Device, DevicePtr, Driver, Error, Result};

/// What came of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The virtual machine faulted, with these words.
    Faulted(String),
    /// The virtual machine does not take the text, with these words: the mutant is no kernel.
    Refused(String),
    /// A comparison failed.
    Differed,
    /// Nobody noticed.
    Survived,
}

/// A kernel and the bodies that judge it.
pub struct Bench {
    /// The kernel as it is.
    pub kernel: Kernel,
    bodies: Vec<Body>,
    /// Warp instructions after which a launch of a mutant ends.
    instructions: u64,
}

impl Bench {
    /// The bodies of a kernel, run once on the kernel itself.
    ///
    /// # Errors
    /// The kernel does not pass.
    pub fn new(kernel: &Kernel, bodies: &[Body]) -> std::result::Result<Self, String> {
        let bodies = bodies
            .iter()
            .filter(|body| body.kernels.iter().any(|of| of.entry() == kernel.entry()))
            .cloned()
            .collect();
        let mut bench = Self {
            kernel: *kernel,
            bodies,
            instructions: Limits::checked(ARCH).instructions,
        };
        let mut most = 0;
        for body in &bench.bodies {
            let (verdict, instructions) = bench.run(body, kernel.ptx());
            if verdict != Verdict::Survived {
                return Err(format!("{}: {verdict:?} without a mutant", body.name));
            }
            most = most.max(instructions);
        }
        // A mutant may be slower, and one that loops is to end soon.
        bench.instructions = 4 * most + 10_000;
        Ok(bench)
    }

    /// Runs the bodies until one notices that the kernel has this text.
    pub fn judge(&self, text: &str) -> Verdict {
        self.bodies
            .iter()
            .map(|body| self.run(body, text).0)
            .find(|verdict| *verdict != Verdict::Survived)
            .unwrap_or(Verdict::Survived)
    }

    /// One body's verdict, and the instructions of the kernel's longest launch.
    fn run(&self, body: &Body, text: &str) -> (Verdict, u64) {
        let limits = Limits {
            instructions: self.instructions,
            ..Limits::checked(ARCH)
        };
        let driver = Arc::new(Substitute {
            vm: whittle_ptx_vm::open(limits),
            entry: self.kernel.entry(),
            text: text.to_owned(),
            noticed: Mutex::new(None),
            longest: AtomicU64::new(0),
        });
        let device = Device::Gpu(driver.clone());
        let passes = catch_unwind(AssertUnwindSafe(|| (body.run)(&device))).is_ok();
        let noticed = driver
            .noticed
            .lock()
            .map_or(None, |noticed| noticed.clone());
        let verdict = match noticed {
            Some(verdict) => verdict,
            None if passes => Verdict::Survived,
            None => Verdict::Differed,
        };
        (verdict, driver.longest.load(Ordering::Relaxed))
    }
}

/// The device of the launches: kernels of the tensor crate need `mma` and `cp.async` at most.
const ARCH: u32 = 80;

/// A machine that runs another text in the place of one kernel.
#[derive(Debug)]
struct Substitute {
    vm: Arc<Vm>,
    entry: &'static str,
    text: String,
    /// What the machine said of the first launch that it refused.
    noticed: Mutex<Option<Verdict>>,
    /// Warp instructions of the kernel's longest launch.
    longest: AtomicU64,
}

impl Driver for Substitute {
    fn alloc(&self, bytes: usize) -> Result<DevicePtr> {
        self.vm.alloc(bytes)
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
        if kernel.entry() != self.entry {
            return self.vm.launch(kernel, grid, block, shared, args);
        }
        let size = Size {
            grid,
            block,
            shared,
        };
        let error = match self
            .vm
            .run(&self.text, kernel.module(), self.entry, size, args)
        {
            Ok(report) => {
                self.longest
                    .fetch_max(report.total.instructions, Ordering::Relaxed);
                return Ok(());
            }
            Err(error) => error,
        };
        let said = error.to_string();
        let verdict = match error {
            whittle_ptx_vm::Error::Parse { .. } | whittle_ptx_vm::Error::Unsupported { .. } => {
                Verdict::Refused(said.clone())
            }
            _ => Verdict::Faulted(said.clone()),
        };
        if let Ok(mut noticed) = self.noticed.lock() {
            noticed.get_or_insert(verdict);
        }
        Err(Error::Driver {
            driver: self.info().name,
            op: "launch",
            reason: said,
        })
    }

    fn synchronize(&self) -> Result<()> {
        self.vm.synchronize()
    }

    fn info(&self) -> Info {
        self.vm.info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whittle_tensor::kernel::{ArgKind, Parameter};

    const PTX: &str = ".version 7.0
.target sm_70
.address_size 64
.visible .entry double_u32(
    .param .u64 x,
    .param .u32 n
)
.maxntid 64
{
    .reg .u32 thread, size, value;
    .reg .u64 at;
    .reg .pred is_outside;
    ld.param.u32 size, [n];
    ld.param.u64 at, [x];
    mov.u32 thread, %tid.x;
    setp.ge.u32 is_outside, thread, size;
    @is_outside bra done;
    mad.wide.u32 at, thread, 4, at;
    ld.global.u32 value, [at];
    add.u32 value, value, value;
    st.global.u32 [at], value;
done:
    ret;
}
";

    static DOUBLE: Kernel = Kernel::new(
        "double",
        PTX,
        "double_u32",
        &[
            Parameter {
                name: "x",
                kind: ArgKind::Ptr,
            },
            Parameter {
                name: "n",
                kind: ArgKind::U32,
            },
        ],
    );

    fn check(device: &Device) {
        let Device::Gpu(driver) = device else {
            panic!("no driver")
        };
        let x = driver.alloc(4 * 33).unwrap();
        let before: Vec<u32> = (1..34).collect();
        driver.upload(x, bytemuck::cast_slice(&before)).unwrap();
        let args = [Arg::Ptr(x), Arg::U32(33)];
        DOUBLE
            .launch(&**driver, [1; 3], [64, 1, 1], 0, &args)
            .unwrap();
        let mut after = vec![0u32; 33];
        driver
            .download(x, bytemuck::cast_slice_mut(&mut after))
            .unwrap();
        assert!(after.iter().zip(&before).all(|(a, b)| *a == 2 * b));
    }

    fn bodies() -> [Body; 1] {
        [Body {
            kernels: vec![&DOUBLE],
            name: "double",
            run: Arc::new(check),
        }]
    }

    #[test]
    fn each_verdict_has_its_mutant() {
        let bench = Bench::new(&DOUBLE, &bodies()).unwrap();
        let verdict = |from: &str, to: &str| bench.judge(&PTX.replacen(from, to, 1));
        assert_eq!(verdict("", ""), Verdict::Survived);
        assert_eq!(
            verdict("add.u32 value", "mul.lo.u32 value"),
            Verdict::Differed
        );
        let faults = [
            ("mov.u32 thread, %tid.x;", "", "UninitRegister"),
            ("@is_outside bra done;", "", "OutOfBounds"),
            (
                "done:\n",
                "    bra done;\ndone:\n    bra done;\n",
                "InstructionLimit",
            ),
            (".param .u32 n", ".param .f32 n", "expected"),
        ];
        for (from, to, name) in faults {
            match verdict(from, to) {
                Verdict::Faulted(said) => assert!(said.contains(name), "{said}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert!(matches!(
            verdict("add.u32", "addd.u32"),
            Verdict::Refused(_)
        ));
    }

    #[test]
    fn a_kernel_that_fails_as_it_is_is_no_bench() {
        let broken = Kernel::new("double", "no kernel", DOUBLE.entry(), DOUBLE.parameters());
        assert!(
            Bench::new(&broken, &bodies())
                .err()
                .unwrap()
                .contains("double")
        );
    }
}
