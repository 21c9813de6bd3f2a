//! The approximate functions on every input of f32: hashes by which two devices are compared, and how far they are from the
//! nearest result.

use super::machine::Machine;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::thread;
use whittle_ptx_vm::num::approx::{self, Approx, Function};
use whittle_tensor::kernel::{Arg, ArgKind, Kernel, Parameter};
use whittle_tensor::{Driver, Result};

/// Inputs that share a hash.
const BLOCK: usize = 1 << 16;
/// Blocks of inputs in all: 2^32 inputs.
const BLOCKS: usize = 1 << 16;
/// Blocks of a launch where every block is visited: 64 MiB of results.
const RUN: usize = 256;

/// An instruction of one f32.
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    /// As PTX has it.
    pub name: &'static str,
    function: Function,
    ftz: bool,
}

/// The approximate functions of one f32, with and without flush to zero.
pub const INSTRUCTIONS: [Instruction; 15] = {
    const fn of(name: &'static str, function: Function, ftz: bool) -> Instruction {
        Instruction {
            name,
            function,
            ftz,
        }
    }
    [
        of("ex2.approx.f32", Function::Ex2, false),
        of("ex2.approx.ftz.f32", Function::Ex2, true),
        of("lg2.approx.f32", Function::Lg2, false),
        of("lg2.approx.ftz.f32", Function::Lg2, true),
        of("rcp.approx.f32", Function::Rcp, false),
        of("rcp.approx.ftz.f32", Function::Rcp, true),
        of("rsqrt.approx.f32", Function::Rsqrt, false),
        of("rsqrt.approx.ftz.f32", Function::Rsqrt, true),
        of("sqrt.approx.f32", Function::Sqrt, false),
        of("sqrt.approx.ftz.f32", Function::Sqrt, true),
        of("sin.approx.f32", Function::Sin, false),
        of("sin.approx.ftz.f32", Function::Sin, true),
        of("cos.approx.f32", Function::Cos, false),
        of("cos.approx.ftz.f32", Function::Cos, true),
        of("tanh.approx.f32", Function::Tanh, false),
    ]
};

impl Instruction {
    /// Results for the inputs `first`, `first + 1` …, one a thread.
    fn kernel(self) -> Kernel {
        const PARAMETERS: [Parameter; 2] = [
            Parameter {
                name: "y",
                kind: ArgKind::Ptr,
            },
            Parameter {
                name: "first",
                kind: ArgKind::U32,
            },
        ];
        let target = if self.function == Function::Tanh {
            75
        } else {
            70
        };
        let text = format!(
            ".version 7.0\n.target sm_{target}\n.address_size 64\n\
             .visible .entry table(.param .u64 y, .param .u32 first)\n.maxntid 256\n{{\n\
             \x20   .reg .b64 %to, %offset;\n    .reg .b32 %thread, %block, %x;\n    .reg .f32 %value;\n\
             \x20   ld.param.u64 %to, [y];\n    ld.param.u32 %x, [first];\n\
             \x20   mov.u32 %thread, %tid.x;\n    mov.u32 %block, %ctaid.x;\n\
             \x20   mad.lo.u32 %thread, %block, 256, %thread;\n\
             \x20   add.u32 %x, %x, %thread;\n    mov.b32 %value, %x;\n    {} %value, %value;\n\
             \x20   mul.wide.u32 %offset, %thread, 4;\n    add.s64 %to, %to, %offset;\n\
             \x20   st.global.f32 [%to], %value;\n    ret;\n}}\n",
            self.name
        );
        Kernel::new("table", text.leak(), "table", &PARAMETERS)
    }

    /// The exact result, rounded once.
    fn nearest(self, x: u32) -> u32 {
        approx::unary(self.function, x, self.ftz, Approx::Nearest)
    }

    /// Whether the manual bounds the error for `x` by the table's first row: sines and cosines only near zero.
    fn is_bounded(self, x: u32) -> bool {
        match self.function {
            Function::Sin | Function::Cos => f32::from_bits(x).abs() <= std::f32::consts::TAU,
            _ => true,
        }
    }
}

/// Residuals of many results: how many were so many f32 steps from the nearest one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// From -8 to 8 steps.
    steps: [u64; 17],
    /// Beyond 8 steps below and above.
    beyond: [u64; 2],
    /// A number where the nearest result is NaN, or the other way.
    nan: u64,
    /// Inputs for which the manual states no bound.
    unbounded: u64,
}

impl Histogram {
    const EMPTY: Self = Self {
        steps: [0; 17],
        beyond: [0; 2],
        nan: 0,
        unbounded: 0,
    };

    fn add(&mut self, instruction: Instruction, x: u32, found: u32) {
        if !instruction.is_bounded(x) {
            self.unbounded += 1;
            return;
        }
        match residual(found, instruction.nearest(x)) {
            None => self.nan += 1,
            Some(steps @ -8..=8) => self.steps[(steps + 8) as usize] += 1,
            Some(steps) => self.beyond[usize::from(steps > 0)] += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        let sum = |into: &mut [u64], from: &[u64]| {
            into.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        };
        sum(&mut self.steps, &other.steps);
        sum(&mut self.beyond, &other.beyond);
        self.nan += other.nan;
        self.unbounded += other.unbounded;
    }

    fn json(&self) -> Value {
        let steps = (-8i32..=8).zip(self.steps).filter(|(_, count)| *count > 0);
        json!({
            "steps": steps.map(|(steps, count)| (steps.to_string(), count)).collect::<std::collections::BTreeMap<_, _>>(),
            "beyond_8_below": self.beyond[0],
            "beyond_8_above": self.beyond[1],
            "nan_differs": self.nan,
            "without_bound": self.unbounded,
        })
    }
}

/// How many f32 lie between a result and the nearest one, the sign telling the side. Both NaN is 0, one NaN is `None`.
fn residual(found: u32, nearest: u32) -> Option<i64> {
    let (f, n) = (f32::from_bits(found), f32::from_bits(nearest));
    if f.is_nan() || n.is_nan() {
        return (f.is_nan() && n.is_nan()).then_some(0);
    }
    // Bits in the order of the numbers; both zeros are 0.
    let order = |bits: u32| {
        let size = i64::from(bits & 0x7fff_ffff);
        if bits >> 31 == 0 { size } else { -size }
    };
    Some(order(found) - order(nearest))
}

/// How much of the inputs is visited.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Every how many-th block of 65,536 inputs is hashed; 1 for all.
    pub every: usize,
    /// Every how many-th of those goes into the histogram, which is the host's work.
    pub residuals_every: usize,
}

/// Runs an instruction over its inputs. Writes `<name>.hashes` (a little-endian u64 for each block, in order) and, but for forms with
/// flush to zero, `<name>.residuals` (the inputs of [1, 2), for square roots of [1, 4), in order, a signed byte each, 127 for more or
/// NaN) into `folder`.
///
/// # Errors
/// Those of the driver and of the files.
pub fn table(
    machine: &Machine,
    instruction: Instruction,
    plan: Plan,
    folder: &Path,
) -> Result<Value, String> {
    let run = if plan.every == 1 { RUN } else { 1 };
    let driver = machine.driver();
    let mut found = Found {
        hashes: Vec::new(),
        histogram: Histogram::EMPTY,
        nearest: 0,
        counted: 0,
    };
    sweep(&*driver, instruction, run, plan.every, |first, results| {
        found.take(instruction, first, results, plan);
    })
    .map_err(|error| error.to_string())?;
    let hashes: Vec<u8> = found
        .hashes
        .iter()
        .flat_map(|hash| hash.to_le_bytes())
        .collect();
    write(
        &folder.join(format!("{}.hashes", instruction.name)),
        &hashes,
    )?;
    if !instruction.ftz {
        let residuals =
            residuals(&*driver, instruction, plan).map_err(|error| error.to_string())?;
        write(
            &folder.join(format!("{}.residuals", instruction.name)),
            &residuals,
        )?;
    }
    Ok(json!({
        "instruction": instruction.name,
        "inputs_hashed": found.hashes.len() * BLOCK,
        "hash": format!("{:016x}", hash(found.hashes.iter().copied())),
        "inputs_compared": found.counted * BLOCK,
        "blocks_equal_to_nearest": found.nearest,
        "residuals": found.histogram.json(),
    }))
}

struct Found {
    hashes: Vec<u64>,
    histogram: Histogram,
    nearest: usize,
    counted: usize,
}

impl Found {
    /// Takes the results of consecutive blocks, the first of which is number `first`; the blocks are shared out to all cores.
    fn take(&mut self, instruction: Instruction, first: usize, results: &[u32], plan: Plan) {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let blocks: Vec<(usize, &[u32])> = (first..).zip(results.chunks(BLOCK)).collect();
        let share = blocks.len().div_ceil(cores);
        let parts: Vec<Vec<(u64, Option<Histogram>)>> = thread::scope(|scope| {
            let workers: Vec<_> = blocks
                .chunks(share)
                .map(|part| {
                    scope.spawn(move || {
                        part.iter()
                            .map(|&(at, block)| {
                                let compared =
                                    (at / plan.every).is_multiple_of(plan.residuals_every);
                                let histogram = compared.then(|| histogram(instruction, at, block));
                                (hash(block.iter().map(|&bits| bits.into())), histogram)
                            })
                            .collect()
                    })
                })
                .collect();
            workers
                .into_iter()
                .filter_map(|worker| worker.join().ok())
                .collect()
        });
        for (hash, histogram) in parts.into_iter().flatten() {
            self.hashes.push(hash);
            if let Some(histogram) = histogram {
                self.counted += 1;
                self.nearest +=
                    usize::from(histogram.steps[8] + histogram.unbounded == BLOCK as u64);
                self.histogram.merge(&histogram);
            }
        }
    }
}

fn histogram(instruction: Instruction, block: usize, results: &[u32]) -> Histogram {
    let mut histogram = Histogram::EMPTY;
    let first = (block * BLOCK) as u32;
    for (x, &found) in (first..=u32::MAX).zip(results) {
        histogram.add(instruction, x, found);
    }
    histogram
}

/// Calls `take` with the number of a block and its results, `run` consecutive blocks at a time, every `every`-th run.
fn sweep(
    driver: &dyn Driver,
    instruction: Instruction,
    run: usize,
    every: usize,
    mut take: impl FnMut(usize, &[u32]),
) -> Result<()> {
    let kernel = instruction.kernel();
    let mut results = vec![0u32; run * BLOCK];
    let memory = driver.alloc(4 * results.len())?;
    let grid = [(results.len() / 256) as u32, 1, 1];
    let done = (0..BLOCKS).step_by(run * every).try_for_each(|block| {
        let args = [Arg::Ptr(memory), Arg::U32((block * BLOCK) as u32)];
        kernel.launch(driver, grid, [256, 1, 1], 0, &args)?;
        driver.download(memory, bytemuck::cast_slice_mut(&mut results))?;
        take(block, &results);
        Ok(())
    });
    driver.free(memory)?;
    done
}

/// The residuals of the interval that the others are reduced to; only its first block where not every block is visited.
fn residuals(driver: &dyn Driver, instruction: Instruction, plan: Plan) -> Result<Vec<u8>> {
    let first = 1f32.to_bits();
    let inputs = match instruction.function {
        _ if plan.every > 1 => BLOCK,
        Function::Sqrt | Function::Rsqrt => 1 << 24,
        _ => 1 << 23,
    };
    let kernel = instruction.kernel();
    let mut results = vec![0u32; inputs];
    let memory = driver.alloc(4 * inputs)?;
    let args = [Arg::Ptr(memory), Arg::U32(first)];
    let done = kernel
        .launch(driver, [(inputs / 256) as u32, 1, 1], [256, 1, 1], 0, &args)
        .and_then(|()| driver.download(memory, bytemuck::cast_slice_mut(&mut results)));
    driver.free(memory)?;
    done?;
    let byte = |(x, found)| {
        let steps = residual(found, instruction.nearest(x));
        steps
            .and_then(|steps| i8::try_from(steps).ok())
            .unwrap_or(127)
            .cast_unsigned()
    };
    Ok((first..).zip(results).map(byte).collect())
}

/// A hash of words (FNV-1a on words, mixed at the end); two devices are compared by it, and nobody attacks it.
fn hash(words: impl Iterator<Item = u64>) -> u64 {
    let hash = words.fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
        (hash ^ word).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::File::create(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residuals_count_the_numbers_between() {
        let bits = |x: f32| x.to_bits();
        assert_eq!(residual(bits(1.0), bits(1.0)), Some(0));
        assert_eq!(residual(bits(1.0) + 3, bits(1.0)), Some(3));
        assert_eq!(residual(bits(-1.0) + 3, bits(-1.0)), Some(-3));
        assert_eq!(residual(bits(-0.0), bits(0.0)), Some(0));
        // The smallest number on either side of zero.
        assert_eq!(residual(1, 0x8000_0001), Some(2));
        assert_eq!(residual(bits(f32::NAN), 0x7fff_ffff), Some(0));
        assert_eq!(residual(bits(f32::NAN), bits(1.0)), None);
        assert_eq!(residual(bits(f32::INFINITY), bits(f32::MAX)), Some(1));
    }

    #[test]
    fn one_wrong_bit_changes_the_hash_and_the_histogram() {
        let instruction = INSTRUCTIONS[0];
        let block = (1f32.to_bits() as usize) / BLOCK;
        let first = (block * BLOCK) as u32;
        let mut results: Vec<u32> = (first..)
            .take(BLOCK)
            .map(|x| instruction.nearest(x))
            .collect();
        let of = |results: &[u32]| hash(results.iter().map(|&bits| bits.into()));
        let right = of(&results);
        assert_eq!(
            histogram(instruction, block, &results).steps[8],
            BLOCK as u64
        );
        results[77] += 1;
        assert_ne!(of(&results), right);
        let found = histogram(instruction, block, &results);
        assert_eq!((found.steps[8], found.steps[9]), (BLOCK as u64 - 1, 1));
        results[77] = f32::NAN.to_bits();
        results[78] += 100;
        let found = histogram(instruction, block, &results);
        assert_eq!((found.nan, found.beyond), (1, [0, 1]));
    }

    #[test]
    fn sines_of_large_angles_are_counted_apart() {
        let sin = INSTRUCTIONS
            .iter()
            .find(|i| i.name == "sin.approx.f32")
            .unwrap();
        let mut histogram = Histogram::EMPTY;
        histogram.add(*sin, 1e6f32.to_bits(), 0);
        histogram.add(*sin, 0, 0);
        assert_eq!((histogram.unbounded, histogram.steps[8]), (1, 1));
    }
}
