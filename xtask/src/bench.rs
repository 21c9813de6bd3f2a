//! `cargo xtask bench`: data, build, measurement and report, each timed apart.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::arguments::{Command, Flag, Flags};
use crate::clock::Clock;
use crate::failure::{Context, Failure, Result};
use crate::report::Report;
use crate::{data, digest, page, process, root};

/// `cargo xtask bench`.
pub const COMMAND: Command = Command {
    name: "bench",
    summary: "Run the systems on a real model and real text, print their tables, write the report.",
    details: "Writes target/whittle/report/: index.html with plots, and one JSON file a system. Without flags a system takes at\n\
              most 75 s after downloads and the build. The measuring program can be started by hand with the printed command.",
    flags: &[
        Flag {
            name: "--only",
            value: Some("SYSTEM"),
            help: "only these systems, comma-separated: kivi",
        },
        Flag {
            name: "--full",
            value: None,
            help: "the long tables and the second text (up to 60 minutes a system)",
        },
        Flag {
            name: "--model",
            value: Some("PATH"),
            help: "another GGUF model than the default SmolLM2-135M-Instruct",
        },
        Flag {
            name: "--text",
            value: Some("PATH"),
            help: "another text than the default novel",
        },
        Flag {
            name: "--threads",
            value: Some("N"),
            help: "worker threads (default: all cores)",
        },
        Flag {
            name: "--device",
            value: Some("NAME"),
            help: "where to run: cpu",
        },
        Flag {
            name: "--json",
            value: None,
            help: "print the reports as one JSON array; tables go to standard error",
        },
    ],
    run,
};

/// The systems that have a benchmark.
const SYSTEMS: [&str; 1] = ["kivi"];
const DEVICES: [&str; 1] = ["cpu"];

fn run(flags: &Flags) -> Result<()> {
    let systems = flags.choice("--only", &SYSTEMS)?;
    let handed_on = handed_on(flags)?;
    let mut clock = Clock::default();

    clock.phase("data", || data::fill(&needed(flags)))?;
    let program = clock.phase("build", build)?;
    let commit = commit()?;
    let folder = root::output().join("report");
    std::fs::create_dir_all(&folder).context(folder.display())?;
    for system in &systems {
        let report = json(&folder, system);
        let mut command = process::program(&program.display().to_string(), &[system]);
        command
            .arg("--data")
            .arg(root::data())
            .arg("--json")
            .arg(&report);
        command.args(["--commit", &commit]).args(&handed_on);
        eprintln!("\n{}", process::shown(&command));
        let stdout = if flags.has("--json") {
            Stdio::from(std::io::stderr())
        } else {
            Stdio::inherit()
        };
        clock.phase(system, || process::run_with_stdout(&mut command, stdout))?;
    }
    let index = folder.join("index.html");
    clock.phase("report", || write_page(&folder, &index))?;

    if flags.has("--json") {
        let reports: Vec<serde_json::Value> = systems
            .iter()
            .map(|system| read_json(&json(&folder, system)))
            .collect::<Result<_>>()?;
        println!(
            "{}",
            serde_json::to_string_pretty(&reports).context("reports")?
        );
    }
    eprintln!(
        "\n{}\nreport: {}",
        clock.table().trim_end(),
        index.display()
    );
    Ok(())
}

/// The flags that the measuring program takes as they are; paths become absolute, because it runs in the repository's root.
fn handed_on(flags: &Flags) -> Result<Vec<String>> {
    let mut words = Vec::new();
    if flags.has("--full") {
        words.push("--full".to_owned());
    }
    for name in ["--model", "--text"] {
        if let Some(path) = flags.value(name) {
            let whole = std::path::absolute(path).context(name)?;
            if !whole.is_file() {
                return Err(Failure::usage(format!(
                    "{name}: expected a file; found nothing at {}",
                    whole.display()
                )));
            }
            words.extend([name.to_owned(), whole.display().to_string()]);
        }
    }
    if let Some(count) = flags.value("--threads") {
        if !count.parse::<usize>().is_ok_and(|count| count > 0) {
            return Err(Failure::usage(format!(
                "--threads: expected a number above 0; found `{count}`"
            )));
        }
        words.extend(["--threads".to_owned(), count.to_owned()]);
    }
    if flags.value("--device").is_some() {
        let devices = flags.choice("--device", &DEVICES)?;
        words.extend(["--device".to_owned(), devices.join(",")]);
    }
    Ok(words)
}

/// The data that the run reads.
fn needed(flags: &Flags) -> Vec<&'static str> {
    let mut names = Vec::new();
    if flags.value("--model").is_none() {
        names.push(data::MODEL);
    }
    if flags.value("--text").is_none() {
        names.push(data::TEXT);
    }
    if flags.has("--full") {
        names.push(data::SECOND_TEXT);
    }
    names
}

fn build() -> Result<PathBuf> {
    process::run(&mut process::cargo(&[
        "build",
        "--release",
        "--package",
        "whittle-benches",
        "--bin",
        "whittle-bench",
    ]))?;
    let target = process::metadata(&["--no-deps"])?.target_directory;
    Ok(target
        .join("release")
        .join(format!("whittle-bench{}", std::env::consts::EXE_SUFFIX)))
}

/// The commit of the sources, with `-dirty` where tracked files were changed; `unknown` outside a clone.
pub fn commit() -> Result<String> {
    let git = |arguments: &[&str]| process::output(&mut process::program("git", arguments));
    let Ok(hash) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return Ok("unknown".to_owned());
    };
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Ok(format!(
        "{}{}",
        hash.trim(),
        if changed { "-dirty" } else { "" }
    ))
}

/// The page shows every system that has a report, also those of earlier runs.
fn write_page(folder: &Path, index: &Path) -> Result<()> {
    let reports: Vec<Report> = SYSTEMS
        .iter()
        .map(|system| json(folder, system))
        .filter(|path| path.exists())
        .map(|path| Report::read(&path))
        .collect::<Result<_>>()?;
    digest::write_whole(index, page::html(&reports)?.as_bytes())
}

fn json(folder: &Path, system: &str) -> PathBuf {
    folder.join(format!("{system}.json"))
}

fn read_json(path: &Path) -> Result<serde_json::Value> {
    serde_json::from_str(&std::fs::read_to_string(path).context(path.display())?)
        .context(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(words: &[&str]) -> Flags {
        COMMAND
            .parse(
                &words
                    .iter()
                    .map(|word| (*word).to_owned())
                    .collect::<Vec<_>>(),
            )
            .unwrap()
    }

    #[test]
    fn only_what_the_run_reads_is_fetched() {
        assert_eq!(needed(&flags(&[])), [data::MODEL, data::TEXT]);
        assert_eq!(
            needed(&flags(&["--full"])),
            [data::MODEL, data::TEXT, data::SECOND_TEXT]
        );
        assert_eq!(
            needed(&flags(&["--model", "a", "--text", "b"])),
            [] as [&str; 0]
        );
    }

    #[test]
    fn flags_are_handed_on_and_checked_before_anything_runs() {
        let manifest = root::root().join("Cargo.toml").display().to_string();
        let given = flags(&[
            "--full",
            "--model",
            &manifest,
            "--threads",
            "2",
            "--device",
            "cpu",
        ]);
        assert_eq!(
            handed_on(&given).unwrap(),
            [
                "--full",
                "--model",
                &manifest,
                "--threads",
                "2",
                "--device",
                "cpu"
            ]
        );
        assert_eq!(handed_on(&flags(&[])).unwrap(), [] as [&str; 0]);
        for (words, part) in [
            (["--threads", "0"], "found `0`"),
            (["--threads", "two"], "found `two`"),
            (["--device", "cuda:0"], "expected one or more of cpu"),
            (["--text", "no/such/file"], "found nothing at"),
        ] {
            let failure = handed_on(&flags(&words)).unwrap_err();
            assert!(failure.to_string().contains(part), "{failure}");
            assert_eq!(failure.exit_code(), 2);
        }
    }
}
