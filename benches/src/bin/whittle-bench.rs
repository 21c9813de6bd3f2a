//! Measures one system and writes its report: what `cargo xtask bench` runs.

use std::{path::PathBuf, process::ExitCode};
use whittle_benches::kivi::{self, Failure, Options};

const USAGE: &str = "usage: whittle-bench kivi --data DIR --json FILE --commit HASH [--full] [--model PATH] [--text PATH] \
                     [--threads N] [--device cpu]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("whittle-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("kivi") => {}
        other => {
            return Err(format!(
                "system: expected kivi, found {}\n{USAGE}",
                other.unwrap_or("nothing")
            )
            .into());
        }
    }
    let (mut data, mut json, mut commit, mut model, mut text) = (None, None, None, None, None);
    let (mut full, mut threads) = (
        false,
        std::thread::available_parallelism().map_or(1, usize::from),
    );
    while let Some(word) = words.next() {
        if word == "--full" {
            full = true;
            continue;
        }
        let value = words
            .next()
            .ok_or_else(|| format!("{word}: expected a value, found nothing\n{USAGE}"))?;
        match word.as_str() {
            "--data" => data = Some(PathBuf::from(value)),
            "--json" => json = Some(PathBuf::from(value)),
            "--commit" => commit = Some(value),
            "--model" => model = Some(PathBuf::from(value)),
            "--text" => text = Some(PathBuf::from(value)),
            "--threads" => {
                threads = value.parse().ok().filter(|&n| n > 0).ok_or_else(|| {
                    format!("--threads: expected a number above 0, found {value}")
                })?;
            }
            "--device" if value == "cpu" => {}
            "--device" => return Err(format!("--device: expected cpu, found {value}").into()),
            _ => return Err(format!("unknown flag {word}\n{USAGE}").into()),
        }
    }
    let missing = |flag: &str| format!("{flag}: expected a value, found nothing\n{USAGE}");
    let json = json.ok_or_else(|| missing("--json"))?;
    let options = Options {
        data: data.ok_or_else(|| missing("--data"))?,
        model,
        text,
        full,
        threads,
        commit: commit.ok_or_else(|| missing("--commit"))?,
        finished: json.with_extension("finished"),
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    let report = kivi::run(&options)?;
    let temporary = json.with_extension("part");
    std::fs::write(&temporary, serde_json::to_vec_pretty(&report)?)?;
    std::fs::rename(&temporary, &json)?;
    Ok(())
}
