//! `cargo xtask gpu`: one folder that checks and measures the kernels on a machine that has only a driver.

use std::path::Path;
use std::process::Stdio;

use crate::arguments::{Command, Flag, Flags};
use crate::failure::{Context, Failure, Result};
use crate::{bench, process, root};

/// `cargo xtask gpu`.
pub const COMMAND: Command = Command {
    name: "gpu",
    summary: "Build target/whittle/gpu/: a folder that checks and measures the kernels on a machine with a GPU.",
    details: "The folder holds one program with all kernels inside, run.sh and the commit. Copy it to a machine with an NVIDIA driver\n\
              (R535 or newer, no toolkit) and start run.sh there; it writes gpu.json. docs/gpu/README.md explains what is in it.",
    flags: &[Flag {
        name: "--run",
        value: Some("DEVICE"),
        help: "start the folder here, on cuda:N, or on vm, which measures nothing",
    }],
    run,
};

/// The program of the folder.
const PROGRAM: &str = "whittle-gpu";

/// Bytes that the folder may have.
const MAX_BYTES: u64 = 40 << 20;

const SCRIPT: &str = r#"#!/usr/bin/env bash
# Checks and measures whittle's kernels on this machine's GPU: writes gpu.json and approx/, and packs both into gpu.tar.gz.
# Flags are whittle-gpu's; `./whittle-gpu --help` lists them.
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
export WHITTLE_REQUIRE_CUDA=1
./whittle-gpu "$@"
status=$?
[[ -f gpu.json ]] && tar -czf gpu.tar.gz gpu.json $([[ -d approx ]] && echo approx)
exit "$status"
"#;

fn run(flags: &Flags) -> Result<()> {
    let folder = build()?;
    if let Some(device) = flags.value("--run") {
        let script = folder.join("run.sh").display().to_string();
        let mut command = process::program(&script, &["--device", device]);
        eprintln!("\n{}", process::shown(&command));
        process::run_with_stdout(&mut command, Stdio::inherit())?;
    }
    Ok(())
}

fn build() -> Result<std::path::PathBuf> {
    let commit = bench::commit()?;
    let arguments = [
        "build",
        "--release",
        "--package",
        "whittle-tests",
        "--bin",
        PROGRAM,
    ];
    process::run(process::cargo(&arguments).env("WHITTLE_COMMIT", &commit))?;
    let target = process::metadata(&["--no-deps"])?.target_directory;
    let built = target.join("release").join(PROGRAM);
    not_linked(&built)?;

    let folder = root::output().join("gpu");
    std::fs::create_dir_all(&folder).context(folder.display())?;
    let place = folder.join(PROGRAM);
    std::fs::copy(&built, &place).context(place.display())?;
    let script = folder.join("run.sh");
    std::fs::write(&script, SCRIPT).context(script.display())?;
    executable(&script)?;
    let written = folder.join("commit");
    std::fs::write(&written, format!("{commit}\n")).context(written.display())?;

    let bytes = size([&place, &script, &written])?;
    if bytes > MAX_BYTES {
        return Err(Failure::new(format!(
            "{}: expected at most {MAX_BYTES} bytes, found {bytes}",
            folder.display()
        )));
    }
    eprintln!(
        "{}: {:.1} MB; copy it to a machine with a GPU and start run.sh",
        folder.display(),
        bytes as f64 / 1e6
    );
    Ok(folder)
}

/// The driver is opened at run time: a program that linked it would not start without one.
fn not_linked(program: &Path) -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let needed = process::output(&mut process::program(
        "ldd",
        &[&program.display().to_string()],
    ))?;
    match cuda_in(&needed) {
        None => Ok(()),
        Some(library) => Err(Failure::new(format!(
            "{}: expected no CUDA library linked, found {library}",
            program.display()
        ))),
    }
}

/// The first of CUDA's libraries in the output of `ldd`.
fn cuda_in(needed: &str) -> Option<&str> {
    let cuda = ["libcuda", "libcublas", "libcurand", "libnvrtc", "libnvidia"];
    needed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .find(|name| cuda.iter().any(|library| name.starts_with(library)))
}

#[cfg(unix)]
fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).context(path.display())
}

#[cfg(not(unix))]
fn executable(_: &Path) -> Result<()> {
    Ok(())
}

fn size<const N: usize>(paths: [&Path; N]) -> Result<u64> {
    let sizes = paths
        .iter()
        .map(|path| Ok(std::fs::metadata(path).context(path.display())?.len()));
    sizes.sum()
}

/// Whether whittle-cuda compiles in one build with candle's features of cudarc, among which is `dynamic-linking`.
pub fn beside_candle() -> Result<()> {
    // In the workspace's build folder, where most of what it needs is checked already.
    let target = process::metadata(&["--no-deps"])?
        .target_directory
        .display()
        .to_string();
    process::run(&mut process::cargo(&[
        "check",
        "--locked",
        "--manifest-path",
        "ci/beside-candle/Cargo.toml",
        "--target-dir",
        &target,
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_driver_is_found_in_the_list_of_libraries() {
        let plain = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/libgcc_s.so.1 (0x0)\n\tlibc.so.6 => /lib/libc.so.6 (0x0)\n";
        assert_eq!(cuda_in(plain), None);
        let linked = format!("{plain}\tlibcuda.so.1 => not found\n");
        assert_eq!(cuda_in(&linked), Some("libcuda.so.1"));
        assert_eq!(
            cuda_in("\tlibcublas.so.12 => not found\n"),
            Some("libcublas.so.12")
        );
    }
}
