//! Checks and measures whittle's kernels on a GPU and writes `gpu.json`; `cargo xtask gpu` makes the folder that it travels in.

use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use whittle_tests::gpu::approx::Plan;
use whittle_tests::gpu::machine::Machine;
use whittle_tests::gpu::report::{self, PARTS};

const HELP: &str = "Usage: whittle-gpu [flags]

  --device NAME   cuda:N (default cuda:0), or vm, which measures nothing
  --only PARTS    comma-separated: parity, resources, forms, approx, timing, sanitizer
  --out FOLDER    where gpu.json and the tables go (default: the current folder)
  --no-report     write nothing; the exit code says it all
  --quick         approximate functions on one block of inputs in 4096

Exit codes: 0 all as it should be, 1 findings, 2 wrong flags, 3 no such device (nothing was measured).";

/// The commit that the program was built from.
const COMMIT: &str = match option_env!("WHITTLE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

struct Flags {
    device: String,
    parts: Vec<String>,
    out: PathBuf,
    writes: bool,
    quick: bool,
}

fn main() -> ExitCode {
    let flags = match read(std::env::args().skip(1)) {
        Ok(Some(flags)) => flags,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("whittle-gpu: {error}");
            return ExitCode::from(2);
        }
    };
    let machine = match Machine::open(&flags.device) {
        Ok(machine) => machine,
        Err(error) => {
            eprintln!("whittle-gpu: {error}\nwhittle-gpu: nothing was measured");
            return ExitCode::from(3);
        }
    };
    match run(&flags, &machine) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(findings) => {
            eprintln!("whittle-gpu: {findings} findings");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("whittle-gpu: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the parts; the report is written after each, so that a run that breaks keeps what it has. Returns the number of findings.
fn run(flags: &Flags, machine: &Machine) -> Result<usize, String> {
    let mut report = json!({ "machine": report::machine(machine, COMMIT) });
    eprintln!("{} (commit {COMMIT})", machine.driver().info().name);
    let mut findings = 0;
    for name in &flags.parts {
        let start = Instant::now();
        eprintln!("{name} …");
        let part = report::part(name, machine, flags.plan(machine), &flags.out)?;
        for failure in &part.failures {
            eprintln!("  FAILED {failure}");
        }
        eprintln!(
            "  {} findings, {:.1} s",
            part.failures.len(),
            start.elapsed().as_secs_f64()
        );
        findings += part.failures.len();
        report[name] = json!({
            "seconds": start.elapsed().as_secs_f64(),
            "findings": part.failures.len(),
            "result": part.value,
        });
        if flags.writes {
            report::write(&flags.out.join("gpu.json"), &report)?;
        }
    }
    if let Some(copy) = report["timing"]["result"].get("copy") {
        if machine.gpu().is_none() {
            println!("the host's time around the virtual machine, no measurement of a GPU:");
        }
        summary(copy, &report["timing"]["result"]["operations"]);
    }
    Ok(findings)
}

/// The table for whoever watches.
fn summary(copy: &Value, operations: &Value) {
    println!(
        "copy: {:.0} GB/s",
        copy["gigabytes_per_second"].as_f64().unwrap_or(f64::NAN)
    );
    for row in operations.as_array().into_iter().flatten() {
        let figure = |name: &str| row[name].as_f64();
        let (Some(work), Some(micros)) = (row["work"].as_str(), figure("micros")) else {
            continue;
        };
        let share = figure("percent_of_copy").map(|share| format!("{share:.1} % of copy"));
        let rate = figure("teraflops").map(|rate| format!("{rate:.2} TFLOP/s"));
        println!(
            "{work:<36} {micros:>10.1} µs  {}",
            share.or(rate).unwrap_or_default()
        );
    }
}

impl Flags {
    fn plan(&self, machine: &Machine) -> Plan {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let whole = machine.gpu().is_some() && !self.quick;
        Plan {
            every: if whole { 1 } else { 4096 },
            // The nearest results are the host's work: about a minute on twelve cores.
            residuals_every: if whole && cores < 12 { 16 } else { 1 },
        }
    }
}

/// `None` asks for help.
fn read(mut words: impl Iterator<Item = String>) -> Result<Option<Flags>, String> {
    let mut flags = Flags {
        device: "cuda:0".to_owned(),
        parts: PARTS.map(str::to_owned).to_vec(),
        out: PathBuf::from("."),
        writes: true,
        quick: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--device" => flags.device = value()?,
            "--out" => flags.out = value()?.into(),
            "--no-report" => flags.writes = false,
            "--quick" => flags.quick = true,
            "--only" => {
                flags.parts = value()?.split(',').map(str::to_owned).collect();
                if let Some(other) = flags
                    .parts
                    .iter()
                    .find(|part| !PARTS.contains(&part.as_str()))
                {
                    return Err(format!(
                        "--only: expected some of {}, found `{other}`",
                        PARTS.join(", ")
                    ));
                }
            }
            _ => return Err(format!("unknown flag `{word}`\n\n{HELP}")),
        }
    }
    Ok(Some(flags))
}
