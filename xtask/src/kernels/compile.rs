//! The sources in crates/ptx-vm/tests/compiled through NVIDIA's compiler, for the machine to be tested on what it writes.

use std::fs;
use std::path::{Path, PathBuf};

use super::tool::{Tools, Wheel, download, in_scratch};
use crate::failure::{Context, Failure, Result};
use crate::root::root;
use crate::{digest, process};

const SOURCES: &str = "crates/ptx-vm/tests/compiled";

/// Compiles every source; gives the folder of the PTX. Needs a host gcc.
pub fn compile() -> Result<PathBuf> {
    let compiler = compiler()?.join("bin/nvcc").display().to_string();
    let folder = root().join("target/xtask/compiled");
    if folder.exists() {
        fs::remove_dir_all(&folder).context(folder.display())?;
    }
    fs::create_dir_all(&folder).context(folder.display())?;
    let mut sources = 0;
    for entry in fs::read_dir(root().join(SOURCES)).context(SOURCES)? {
        let source = entry.context(SOURCES)?.path();
        let name = source.file_stem().unwrap_or_default();
        let to = folder
            .join(name)
            .with_extension("ptx")
            .display()
            .to_string();
        let from = source.display().to_string();
        process::run(&mut process::program(
            &compiler,
            &["-ptx", "-arch=sm_80", "-o", &to, &from],
        ))?;
        sources += 1;
    }
    if sources == 0 {
        return Err(Failure::new(format!("{SOURCES}: no sources")));
    }
    eprintln!("  compiled {sources} files of {SOURCES}");
    Ok(folder)
}

/// The compiler's folder; fetched, where it is not there.
fn compiler() -> Result<PathBuf> {
    let wheels = Tools::read()?.compiler;
    let requirements: String = wheels.iter().map(Wheel::requirement).collect();
    // Another list is another folder.
    let name = format!(
        "compiler-{}",
        &digest::sha256_of(requirements.as_bytes())[..12]
    );
    let place = root().join("target/xtask/tools").join(&name);
    if !place.exists() {
        eprintln!(
            "  fetching NVIDIA's compiler from PyPI, {} wheels",
            wheels.len()
        );
        in_scratch(&name, |scratch| unpack(&requirements, scratch, &place))?;
    }
    Ok(place.join("nvidia/cu13"))
}

/// Unzips all wheels into one folder.
fn unpack(requirements: &str, scratch: &Path, place: &Path) -> Result<()> {
    let unpacked = scratch.join("unpacked");
    let to = unpacked.display().to_string();
    let extract = "import sys, zipfile\nfor wheel in sys.argv[2:]: zipfile.ZipFile(wheel).extractall(sys.argv[1])";
    let mut python = process::program("python3", &["-c", extract, &to]);
    process::run(python.args(download(requirements, scratch)?))?;
    // Archives unzipped by Python lose the permission to run.
    let programs = ["bin", "nvvm/bin"].map(|folder| format!("{to}/nvidia/cu13/{folder}"));
    let [tools, back_end] = &programs;
    process::run(&mut process::program(
        "chmod",
        &["-R", "755", tools, back_end],
    ))?;
    let tools = place.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(tools).context(tools.display())?;
    fs::rename(&unpacked, place).context(place.display())
}
