//! Copy bandwidth by a kernel of our own, and kernels against it.

use super::machine::{Machine, Recorder, median};
use serde_json::{Value, json};
use std::sync::Arc;
use whittle_tensor::kernel::Arg;
use whittle_tensor::{DType, Device, Result, Tensor, kernels};

kernels! {
    module "copy" in include_str!("copy.ptx");

    /// `dst[i] = src[i]` for `n` vectors of 16 bytes.
    COPY = "copy_v4"(src: Ptr, dst: Ptr, n: U32);
}

/// Bandwidth of a copy that no cache holds.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// Bytes read and written by one launch.
    pub bytes: u64,
    /// Microseconds: median of 20 launches.
    pub micros: f64,
    /// Distance between the quartiles of those, in microseconds.
    pub spread: f64,
}

impl Copy {
    /// Bytes a microsecond, over 1000: GB/s.
    pub fn gigabytes(&self) -> f64 {
        self.bytes as f64 / self.micros / 1e3
    }
}

/// Copies a buffer of at least four times the L2 cache, and 256 MiB; 1 MiB on the virtual machine.
///
/// # Errors
/// Those of the driver; a copy that differs from its source.
pub fn copy(machine: &Machine) -> Result<Copy, String> {
    let l2 = machine.gpu().map(|cuda| cuda.properties().l2_bytes);
    let bytes = match l2 {
        Some(l2) => (4 * u64::from(l2)).max(256 << 20),
        None => 1 << 20,
    };
    measure(machine, bytes).map_err(|error| error.to_string())?
}

fn measure(machine: &Machine, bytes: u64) -> Result<Result<Copy, String>> {
    let recorder = Recorder::new(machine, 20);
    let device = Device::Gpu(recorder.clone());
    let words = (bytes / 4) as usize;
    let pattern: Vec<u32> = (0..words as u32)
        .map(|at| at.wrapping_mul(0x9e37_79b9))
        .collect();
    let src = Tensor::from_vec(pattern, &[words])?.to_device(&device)?;
    let dst = Tensor::zeros(&[words], DType::U32, &device)?;
    let n = (bytes / 16) as u32;
    let args = [
        Arg::Ptr(src.device_ptr()?),
        Arg::Ptr(dst.device_ptr()?),
        Arg::U32(n),
    ];
    COPY.launch(&*recorder, [n.div_ceil(1024), 1, 1], [256, 1, 1], 0, &args)?;
    if dst.to_vec::<u32>()? != src.to_vec::<u32>()? {
        return Ok(Err("the copy differs from its source".to_owned()));
    }
    let (micros, spread) = recorder
        .take()
        .first()
        .and_then(|launch| median(&launch.times))
        .unwrap_or((f64::NAN, f64::NAN));
    Ok(Ok(Copy {
        bytes: 2 * bytes,
        micros,
        spread,
    }))
}

/// Brings operands to a device and returns the work to be timed.
pub type Prepare = Box<dyn Fn(&Device) -> Result<Step>>;
/// The work to be timed, once.
pub type Step = Box<dyn FnOnce() -> Result<()>>;

/// A named piece of work whose launches are timed.
pub struct Work {
    /// What it is, with its shape.
    pub name: String,
    /// Only launches of this kernel count; all where there is none.
    pub kernel: Option<&'static str>,
    /// Bytes that it must move, by the header of its kernel.
    pub floor_bytes: Option<u64>,
    /// Floating-point operations, a multiplication with its addition as two.
    pub flops: Option<u64>,
    /// Makes it ready.
    pub prepare: Prepare,
}

/// Operations at sizes that fill a GPU, small ones for the virtual machine.
pub fn operations(machine: &Machine) -> Vec<Work> {
    // [rows, columns] of the memory-bound operations, and the side of the matrix products.
    let (rows, columns, side) = match machine {
        Machine::Gpu(_) => (16_384, 4_096, 4_096),
        Machine::Vm(_) => (8, 256, 64),
    };
    let elements = (rows * columns) as u64;
    let mut works = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let random = move |device: &Device, shape: &[usize], seed| {
            Tensor::randn(shape, seed, 0, &Device::Cpu)?
                .to_dtype(dtype)?
                .to_device(device)
        };
        // An operation on a matrix and a row, or on that matrix alone.
        let mut add =
            |name: &str, operands: u64, operation: fn(&Tensor, &Tensor) -> Result<Tensor>| {
                works.push(Work {
                    name: format!("{name} {dtype} [{rows}, {columns}]"),
                    kernel: None,
                    floor_bytes: Some(operands * dtype.size_in_bytes() as u64),
                    flops: None,
                    prepare: Box::new(move |device| {
                        let x = random(device, &[rows, columns], 1)?;
                        let row = random(device, &[columns], 2)?;
                        Ok(Box::new(move || operation(&x, &row).map(drop)))
                    }),
                });
            };
        let (column, row) = (rows as u64, columns as u64);
        // Both operands are one tensor, which is read twice.
        add("add", 3 * elements, |x, _| x.add(x));
        add("silu", 2 * elements, |x, _| x.silu());
        add("softmax", 2 * elements, |x, _| x.softmax(1));
        add("rms_norm", 2 * elements + row, |x, row| {
            x.rms_norm(row, 1e-5)
        });
        add("sum", elements + column, |x, _| x.sum(1));
        add("matvec", elements + row + column, |x, row| x.matvec(row));
        works.push(Work {
            name: format!("matmul {dtype} {side}³"),
            kernel: None,
            floor_bytes: None,
            flops: Some(2 * (side as u64).pow(3)),
            prepare: Box::new(move |device| {
                let (a, b) = (
                    random(device, &[side, side], 1)?,
                    random(device, &[side, side], 2)?,
                );
                Ok(Box::new(move || a.matmul(&b).map(drop)))
            }),
        });
    }
    works
}

/// Times the launches of each piece of work and holds them against the copy: a row a launch.
pub fn against(machine: &Machine, copy: &Copy, works: &[Work]) -> Vec<Value> {
    let recorder = Recorder::new(machine, 20);
    works
        .iter()
        .flat_map(|work| rows(&recorder, copy, work))
        .collect()
}

fn rows(recorder: &Arc<Recorder>, copy: &Copy, work: &Work) -> Vec<Value> {
    let done = (work.prepare)(&Device::Gpu(recorder.clone())).and_then(|step| {
        // Launches that only made the operands.
        recorder.take();
        step()
    });
    let mut launches = recorder.take();
    launches.retain(|launch| {
        work.kernel
            .is_none_or(|entry| entry == launch.kernel.entry())
    });
    if let Err(error) = done {
        return vec![json!({ "work": work.name, "error": error.to_string() })];
    }
    // The floor is of the whole work; it says something of a launch only where there is one.
    let alone = launches.len() == 1;
    let rows = launches.iter().filter_map(|launch| {
        let (micros, spread) = median(&launch.times)?;
        let floor = work.floor_bytes.filter(|_| alone);
        let rate = floor.map(|bytes| bytes as f64 / micros / 1e3);
        // What the floor would take at the bandwidth of the copy.
        let modelled = floor.map(|bytes| bytes as f64 / copy.gigabytes() / 1e3);
        let flops = work.flops.filter(|_| alone);
        Some(json!({
            "work": work.name,
            "kernel": launch.kernel.entry(),
            "grid": launch.grid,
            "block": launch.block,
            "shared_bytes": launch.shared,
            "micros": micros,
            "micros_quartile_distance": spread,
            "floor_bytes": floor,
            "gigabytes_per_second": rate,
            "percent_of_copy": rate.map(|rate| 100.0 * rate / copy.gigabytes()),
            "modelled_micros": modelled,
            "measured_over_modelled": modelled.map(|modelled| micros / modelled),
            "teraflops": flops.map(|flops| flops as f64 / micros / 1e6),
        }))
    });
    rows.collect()
}
