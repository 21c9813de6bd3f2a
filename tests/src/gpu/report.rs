//! The parts of a run and the file that they are written to.

use super::agreement;
use super::approx::{self, Plan};
use super::bandwidth::{self, Copy};
use super::form::forms;
use super::library;
use super::machine::{Machine, Recorder};
use super::{resources, sanitizer};
use crate::parity::{self, Body};
use serde_json::{Value, json};
use std::any::Any;
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use whittle_tensor::Device;
use whittle_tensor::gpu::kernels;

/// The parts in the order in which they run.
pub const PARTS: [&str; 6] = [
    "parity",
    "resources",
    "forms",
    "approx",
    "timing",
    "sanitizer",
];

/// A part's result, and whether everything in it is as it should be.
#[derive(Clone, Debug)]
pub struct Part {
    /// What was found.
    pub value: Value,
    /// Findings, each a line.
    pub failures: Vec<String>,
}

/// What the report begins with: the device, the host, and what the figures are worth.
pub fn machine(machine: &Machine, commit: &str) -> Value {
    let info = machine.driver().info();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let mut value = json!({
        "commit": commit,
        "device": info.name,
        "measured": machine.gpu().is_some(),
        "compute_capability": format!("{}.{}", info.capability.0, info.capability.1),
        "multiprocessors": info.multiprocessors,
        "memory_bytes": info.memory,
        "shared_bytes_per_block": info.shared_memory,
        "host_cores": cores,
        "host_load": std::fs::read_to_string("/proc/loadavg").ok().map(|text| text.trim().to_owned()),
    });
    match machine.gpu() {
        None => {
            value["note"] = json!(
                "the virtual machine: its times are the host's, nothing here was measured on a GPU"
            )
        }
        Some(cuda) => {
            let properties = cuda.properties();
            let version = properties.driver_version;
            value["driver_cuda"] = json!(format!("{}.{}", version / 1000, version % 1000 / 10));
            value["driver"] = json!(driver_release());
            value["clock_khz"] = json!(properties.clock_khz);
            value["memory_clock_khz"] = json!(properties.memory_clock_khz);
            value["memory_bus_bits"] = json!(properties.memory_bus_bits);
            value["l2_bytes"] = json!(properties.l2_bytes);
            value["multiprocessor"] = json!({
                "threads": properties.multiprocessor_threads,
                "blocks": properties.multiprocessor_blocks,
                "registers": properties.multiprocessor_registers,
                "shared_bytes": properties.multiprocessor_shared,
                "reserved_shared_bytes_per_block": properties.block_reserved_shared,
            });
        }
    }
    value
}

/// The release of NVIDIA's kernel module, `535.183.01`.
fn driver_release() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let words = text.lines().next()?.split_whitespace();
    words
        .into_iter()
        .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
}

/// Runs a part.
///
/// # Errors
/// What kept it from running at all.
pub fn part(name: &str, machine: &Machine, plan: Plan, folder: &Path) -> Result<Part, String> {
    match name {
        "parity" => Ok(parity_of(&machine.device())),
        "resources" => compiled(machine),
        "forms" => typed_forms(machine),
        "approx" => tables(machine, plan, folder),
        "timing" => timing(machine),
        "sanitizer" => sanitized(machine),
        other => Err(format!(
            "expected one of {}, found `{other}`",
            PARTS.join(", ")
        )),
    }
}

/// Every kernel against its CPU twin and its oracle.
fn parity_of(device: &Device) -> Part {
    let mut failures = Vec::new();
    let mut rows = Vec::new();
    for body in parity::bodies() {
        let outcome = run_body(&body, device);
        rows.push(json!({
            "body": body.name,
            "kernels": body.kernels.iter().map(|kernel| kernel.entry()).collect::<Vec<_>>(),
            "passed": outcome.is_ok(),
            "message": outcome.as_ref().err(),
        }));
        failures.extend(
            outcome
                .err()
                .map(|message| format!("{}: {message}", body.name)),
        );
    }
    if rows.is_empty() {
        failures.push("no parity body ran".to_owned());
    }
    Part {
        value: json!(rows),
        failures,
    }
}

/// A body fails by panic.
fn run_body(body: &Body, device: &Device) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (body.run)(device))).map_err(|panic| words(&*panic))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .to_owned()
}

/// What the driver's compiler made of each kernel.
fn compiled(machine: &Machine) -> Result<Part, String> {
    let Some(cuda) = machine.gpu() else {
        return Ok(Part {
            value: json!("the virtual machine compiles nothing"),
            failures: Vec::new(),
        });
    };
    // The block and the dynamic shared memory of a kernel are its launcher's; a launch of each shape shows them.
    let recorder = Recorder::new(machine, 1);
    let device = Device::Gpu(recorder.clone());
    let mut launches = BTreeMap::new();
    let mut failures = Vec::new();
    for shape in parity::shapes() {
        let run = catch_unwind(AssertUnwindSafe(|| (shape.run)(&device)));
        failures.extend(
            run.err()
                .map(|panic| format!("{}: {}", shape.name, words(&*panic))),
        );
        for launch in recorder.take() {
            launches.insert(launch.kernel.entry(), launch);
        }
    }
    let (major, minor) = machine.driver().info().capability;
    let mut rows = Vec::new();
    for kernel in kernels::ALL {
        let entry = kernel.entry();
        let found = cuda.resources(kernel).map_err(|error| error.to_string())?;
        let launch = launches.get(entry);
        // The lock counts blocks of as many threads as the text allows.
        let full = launch.filter(|launch| {
            resources::threads_max(kernel.ptx()) == Some(launch.block.iter().product())
        });
        let blocks = full
            .map(|launch| cuda.occupancy(kernel, launch.block.iter().product(), launch.shared))
            .transpose()
            .map_err(|error| error.to_string())?;
        let locked = resources::locked(entry, 10 * major + minor)?;
        let row = resources::compare(entry, found, blocks, &locked);
        for check in ["no_local_memory", "shared_as_locked", "blocks_as_locked"] {
            if row[check] == false {
                failures.push(format!("{entry}: {check} is false"));
            }
        }
        rows.push(row);
    }
    Ok(Part {
        value: json!(rows),
        failures,
    })
}

/// Every typed form against the virtual machine.
fn typed_forms(machine: &Machine) -> Result<Part, String> {
    let driver = machine.driver();
    let capability = driver.info().capability;
    let Machine::Vm(vm) = Machine::vm() else {
        return Err("the virtual machine is another device".to_owned());
    };
    let mut missing = 0;
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for form in forms()? {
        if !form.runs_on(capability) {
            missing += 1;
            continue;
        }
        let outcome = agreement::compare(&form, &*driver, &*vm);
        let row = outcome.json();
        if !outcome.is_good() {
            failures.push(row.to_string());
        }
        rows.push(row);
    }
    Ok(Part {
        value: json!({ "not_on_this_device": missing, "forms": rows }),
        failures,
    })
}

/// The approximate functions on all inputs.
fn tables(machine: &Machine, plan: Plan, folder: &Path) -> Result<Part, String> {
    let folder = folder.join("approx");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut rows = Vec::new();
    for instruction in approx::INSTRUCTIONS {
        eprintln!("  {}", instruction.name);
        rows.push(approx::table(machine, instruction, plan, &folder)?);
    }
    Ok(Part {
        value: json!({
            "every_block": plan.every,
            "residuals_of_every_block": plan.residuals_every,
            "tables": rows,
        }),
        failures: Vec::new(),
    })
}

/// Copy bandwidth, kernels against it, and matrix products against the library's.
fn timing(machine: &Machine) -> Result<Part, String> {
    let copy = bandwidth::copy(machine)?;
    let side = if machine.gpu().is_some() { 4096 } else { 64 };
    let library = library::bf16_product(machine, side);
    let flops = 2.0 * (side as f64).powi(3);
    let operations = bandwidth::against(machine, &copy, &bandwidth::operations(machine));
    let mut failures: Vec<String> = operations
        .iter()
        .filter(|row| row.get("error").is_some())
        .map(Value::to_string)
        .collect();
    if machine.gpu().is_some() {
        let rate = library.as_ref().ok().map(|micros| flops / micros / 1e6);
        failures.extend(below_bars(&operations, rate));
    }
    Ok(Part {
        value: json!({
            "clock": if machine.gpu().is_some() { "events on the device" } else { "the host's, around the virtual machine" },
            "copy": {
                "bytes": copy.bytes,
                "micros": copy.micros,
                "micros_quartile_distance": copy.spread,
                "gigabytes_per_second": copy.gigabytes(),
            },
            "library_bf16_product": match &library {
                Ok(micros) => json!({ "side": side, "micros": micros, "teraflops": flops / micros / 1e6 }),
                Err(reason) => json!({ "not_measured": reason }),
            },
            "operations": operations,
            "shapes": named_shapes(machine, &copy),
        }),
        failures,
    })
}

/// Rows under the bars: 85 % of the copy where an operation has a floor, 40 % of the library's rate for the bf16 product.
fn below_bars(rows: &[Value], library: Option<f64>) -> Vec<String> {
    let share = |row: &Value| {
        let product = row["work"]
            .as_str()
            .is_some_and(|work| work.starts_with("matmul bf16"));
        let of_library = || Some(100.0 * row["teraflops"].as_f64()? / library?);
        match row["percent_of_copy"].as_f64() {
            Some(percent) => Some((percent, 85.0, "the copy's bandwidth")),
            None if product => of_library().map(|percent| (percent, 40.0, "the library's rate")),
            None => None,
        }
    };
    rows.iter()
        .filter_map(|row| {
            let (percent, bar, of) = share(row).filter(|(percent, bar, _)| percent < bar)?;
            let work = row["work"].as_str().unwrap_or_default();
            Some(format!(
                "{work}: {percent:.1} % of {of}, the bar is {bar} %"
            ))
        })
        .collect()
}

/// The shapes of the budgets, which are small.
fn named_shapes(machine: &Machine, copy: &Copy) -> Vec<Value> {
    let works: Vec<bandwidth::Work> = parity::shapes()
        .into_iter()
        .map(|shape| bandwidth::Work {
            name: format!("{} {}", shape.kernel.entry(), shape.name),
            kernel: Some(shape.kernel.entry()),
            floor_bytes: shape.floor_bytes,
            flops: None,
            prepare: Box::new(move |device| {
                let (run, device) = (shape.run.clone(), device.clone());
                Ok(Box::new(move || {
                    run(&device);
                    Ok(())
                }))
            }),
        })
        .collect();
    bandwidth::against(machine, copy, &works)
}

/// The sanitizer's verdicts beside the virtual machine's, which runs the same bodies with its own checks.
fn sanitized(machine: &Machine) -> Result<Part, String> {
    let vm = parity_of(&Machine::vm().device());
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let name = machine.driver().info().name;
    let device = name.split(' ').next().unwrap_or_default();
    let verdicts = machine.gpu().and_then(|_| {
        sanitizer::verdicts(
            &program,
            &["--device", device, "--only", "parity", "--no-report"],
        )
    });
    let failures = verdicts
        .iter()
        .flatten()
        .filter(|verdict| verdict["verdict"] != "clean")
        .map(Value::to_string)
        .collect();
    Ok(Part {
        value: json!({
            "compute_sanitizer": verdicts.map_or_else(|| json!("not installed, or no GPU"), |verdicts| json!(verdicts)),
            "virtual_machine": if vm.failures.is_empty() { json!("clean") } else { json!(vm.failures) },
        }),
        failures,
    })
}

/// Writes the report whole or not at all.
///
/// # Errors
/// The file and what the system says.
pub fn write(path: &Path, report: &Value) -> Result<(), String> {
    let partial = path.with_extension("json.partial");
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    let mut file = std::fs::File::create(&partial).map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misses_a_bar_is_a_finding() {
        let rows = [
            json!({ "work": "silu f32", "percent_of_copy": 84.9 }),
            json!({ "work": "add f32", "percent_of_copy": 85.1 }),
            json!({ "work": "matmul bf16 4096³", "percent_of_copy": null, "teraflops": 39.0 }),
            json!({ "work": "matmul f32 4096³", "percent_of_copy": null, "teraflops": 1.0 }),
            json!({ "work": "softmax f32", "error": "no" }),
        ];
        let found = below_bars(&rows, Some(100.0));
        assert_eq!(
            found,
            [
                "silu f32: 84.9 % of the copy's bandwidth, the bar is 85 %",
                "matmul bf16 4096³: 39.0 % of the library's rate, the bar is 40 %"
            ]
        );
        assert_eq!(below_bars(&rows, None).len(), 1);
        assert_eq!(below_bars(&rows[2..], Some(90.0)), [] as [String; 0]);
    }

    #[test]
    fn a_panic_becomes_its_words() {
        let body = |run: fn(&Device)| Body {
            kernels: Vec::new(),
            name: "body",
            run: std::sync::Arc::new(run),
        };
        let run = |run| run_body(&body(run), &Device::Cpu);
        assert_eq!(run(|_| ()), Ok(()));
        assert_eq!(run(|_| panic!("as said")), Err("as said".to_owned()));
        assert_eq!(
            run(|device| panic!("{}", device.name())),
            Err("cpu".to_owned())
        );
    }

    #[test]
    fn a_report_is_written_whole() {
        let folder = std::env::temp_dir().join(format!("whittle-report-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("gpu.json");
        write(&path, &json!({ "a": 1 })).unwrap();
        write(&path, &json!({ "a": 2 })).unwrap();
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\n  \"a\": 2\n}");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(write(&path, &json!(1)).unwrap_err().contains("gpu.json"));
    }
}
