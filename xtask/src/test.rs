//! `cargo xtask test`: every check that continuous integration makes, in one command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use crate::arguments::{Command, Flag, Flags};
use crate::clock::Clock;
use crate::failure::{Context, Failure, Result};
use crate::{data, gpu, kernels, mutate, process, tidy};

/// `cargo xtask test`.
pub const COMMAND: Command = Command {
    name: "test",
    summary: "Everything that continuous integration checks; stops at the first step that fails.",
    details: "Steps: format, tidy, kernels, licences, clippy, beside candle, docs, data, tests, compiled, mutants, packages, fuzz targets.\n\
              A test whose data is missing skips loudly; with WHITTLE_REQUIRE_DATA=1 in the environment it fails.",
    flags: &[Flag {
        name: "--full",
        value: None,
        help: "also PTX made by NVIDIA's compiler: 271 MB of tools, once, and a host gcc",
    }],
    run,
};

fn run(flags: &Flags) -> Result<()> {
    let mut clock = Clock::default();
    let mut tests = Tests::default();
    let outcome = steps(&mut clock, &mut tests, flags.has("--full"));
    eprintln!("\n{}", clock.table().trim_end());
    // The closing lines on standard output are the test runner's, for whoever reads only the end of a log.
    if !tests.lines.is_empty() {
        println!("\n{}\n{}", tests.lines.join("\n"), tests.summary());
    }
    outcome
}

fn steps(clock: &mut Clock, tests: &mut Tests, is_full: bool) -> Result<()> {
    clock.phase("format", || {
        process::run(&mut process::cargo(&["fmt", "--all", "--check"]))
    })?;
    clock.phase("tidy", tidy::check)?;
    clock.phase("kernels", kernels::check)?;
    clock.phase("licences", licences)?;
    clock.phase("clippy", || {
        let lints = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ];
        process::run(&mut process::cargo(&lints))
    })?;
    clock.phase("beside candle", gpu::beside_candle)?;
    clock.phase("docs", || {
        let docs = ["doc", "--workspace", "--no-deps", "--all-features"];
        process::run(process::cargo(&docs).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    clock.phase("data", data::fill_all)?;
    clock.phase("tests", || {
        let mut command =
            process::cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
        run_tests(&mut command, tests)
    })?;
    if is_full {
        clock.phase("compiled", || compiled(tests))?;
    } else {
        eprintln!(
            "\n== compiled: left out; --full tests the virtual machine on PTX of NVIDIA's compiler"
        );
    }
    clock.phase("mutants", mutate::quick)?;
    clock.phase("packages", packages)?;
    clock.phase("fuzz targets", fuzz)
}

/// `deny.toml`, as far as it needs no network: licences, refused crates, sources.
fn licences() -> Result<()> {
    if process::works(&mut process::cargo(&["deny", "--version"])) {
        return process::run(&mut process::cargo(&[
            "deny", "check", "bans", "licenses", "sources",
        ]));
    }
    eprintln!("  SKIPPED: cargo-deny is not installed (`cargo install --locked cargo-deny`)");
    Ok(())
}

/// Compiles kernels, and runs the tests that need them. The features are those of the other tests, so nothing is built again.
fn compiled(tests: &mut Tests) -> Result<()> {
    let folder = kernels::compile::compile()?;
    eprintln!("  WHITTLE_COMPILED_PTX={}", folder.display());
    let mut command = process::cargo(&[
        "test",
        "--workspace",
        "--all-features",
        "--test",
        "compiled",
    ]);
    run_tests(command.env("WHITTLE_COMPILED_PTX", folder), tests)
}

fn run_tests(command: &mut Process, tests: &mut Tests) -> Result<()> {
    let success = process::run_lines(command, |line| {
        println!("{line}");
        tests.read(line);
    })?;
    if !success {
        return Err(Failure::new(format!(
            "`{}` failed",
            process::shown(command)
        )));
    }
    if tests.passed == 0 {
        return Err(Failure::new("no test ran"));
    }
    Ok(())
}

/// Packs every published package. They depend on each other, so one command packs them all, with a registry of its own
/// for those that are not published yet; and because it builds what it packed, a file left out of a package is found.
fn packages() -> Result<()> {
    let metadata = process::metadata(&["--no-deps"])?;
    let target = metadata.target_directory.join(PACKAGES);
    let mut command = process::cargo(&["package", "--allow-dirty", "--target-dir"]);
    command.arg(&target);
    let published = metadata
        .packages
        .iter()
        .filter(|package| package.is_published());
    // Cargo takes a package of a registry, its temporary one too, for what it was when it was unpacked and built under this version.
    for package in published {
        command.args(["--package", &package.name]);
        let unpacked = format!("{}-{}", package.name, package.version);
        for registry in folders(&cargo_home().join("registry/src")) {
            // A registry on the network has its host's name before the dash.
            let is_temporary = registry
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('-'));
            if is_temporary {
                remove(&registry.join(&unpacked))?;
            }
        }
        for built in folders(&target.join("debug/.fingerprint")) {
            let name = built.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&package.name) {
                remove(&built)?;
            }
        }
    }
    process::run(&mut command)
}

/// Where packages are built, in the target folder.
const PACKAGES: &str = "packages";

fn cargo_home() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_default().join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}

/// The folders in a folder, none if there is no such folder.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn remove(folder: &Path) -> Result<()> {
    match folder.exists() {
        true => fs::remove_dir_all(folder).context(folder.display()),
        false => Ok(()),
    }
}

/// Builds the fuzz targets: with coverage if cargo-fuzz and a nightly toolchain are there, else as plain programs.
fn fuzz() -> Result<()> {
    if process::works(&mut process::program(
        "cargo",
        &["+nightly", "fuzz", "--version"],
    )) {
        return process::run(&mut process::program(
            "cargo",
            &["+nightly", "fuzz", "build", "--dev"],
        ));
    }
    eprintln!(
        "  NOTICE: cargo-fuzz or a nightly toolchain is missing; the targets are built without coverage"
    );
    // The fuzzer's runtime is C++; it is the only thing in the repository that asks for a C++ compiler.
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if !process::works(Process::new(compiler).arg("--version")) {
        eprintln!("  SKIPPED: no C++ compiler, so the fuzz targets are not built");
        return Ok(());
    }
    // Where the packages' check has left most of their dependencies.
    let target = process::metadata(&["--no-deps"])?
        .target_directory
        .join(PACKAGES);
    let target = target.display().to_string();
    process::run(&mut process::cargo(&[
        "build",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target-dir",
        &target,
    ]))
}

/// The counts in the output of `cargo test`.
#[derive(Default)]
struct Tests {
    lines: Vec<String>,
    passed: usize,
    failed: usize,
}

impl Tests {
    fn read(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        let count = |what: &str| {
            let before = counts
                .split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(what));
            before
                .and_then(|count| count.trim().parse::<usize>().ok())
                .unwrap_or(0)
        };
        self.passed += count(" passed");
        self.failed += count(" failed");
        if count(" passed") + count(" failed") > 0 {
            self.lines.push(line.to_owned());
        }
    }

    fn summary(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_test_binaries_are_added() {
        let mut tests = Tests::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.51s",
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            tests.read(line);
        }
        assert_eq!(tests.summary(), "13 passed, 2 failed");
        assert_eq!(tests.lines.len(), 2);
    }
}
