//! Other programs: run with the terminal handed on, and with errors that name the command.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::failure::{Context, Failure, Result};
use crate::root::root;

/// `cargo` in the root of the repository, through the toolchain that runs this program.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Any other program, in the root of the repository.
pub fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root()).args(arguments);
    command
}

/// Runs a program whose whole output is progress: it all goes to standard error, so that standard output keeps to results.
pub fn run(command: &mut Command) -> Result<()> {
    run_with_stdout(command, Stdio::from(std::io::stderr()))
}

/// Runs a program with its standard output sent to `stdout`.
pub fn run_with_stdout(command: &mut Command, stdout: Stdio) -> Result<()> {
    let line = shown(command);
    let status = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .status()
        .context(format!("could not start `{line}`"))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("`{line}` failed ({status})")))
    }
}

/// Runs a program, hands each line of its standard output to `each`, and says whether it succeeded.
pub fn run_lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<bool> {
    let line = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context(format!("could not start `{line}`"))?;
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| Failure::new(format!("`{line}`: no standard output")))?;
    for text in BufReader::new(stdout).split(b'\n') {
        each(&String::from_utf8_lossy(
            &text.context(format!("output of `{line}`"))?,
        ));
    }
    Ok(child.wait().context(format!("`{line}`"))?.success())
}

/// The standard output of a program.
pub fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .context(format!("could not start `{line}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!(
            "`{line}` failed ({}): {}",
            output.status,
            stderr.trim()
        )));
    }
    String::from_utf8(output.stdout).context(format!("output of `{line}`"))
}

/// What `cargo metadata` says; `arguments` follow its format.
pub fn metadata(arguments: &[&str]) -> Result<Metadata> {
    let mut command = cargo(&["metadata", "--format-version", "1"]);
    let text = output(command.args(arguments))?;
    serde_json::from_str(&text).context("cargo metadata")
}

/// The part of `cargo metadata` that the tasks read.
#[derive(Deserialize)]
pub struct Metadata {
    /// The packages of the workspace, or of the whole graph.
    pub packages: Vec<Package>,
    /// Where cargo builds.
    pub target_directory: PathBuf,
}

/// A package in `cargo metadata`.
#[derive(Deserialize)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// The package's version.
    pub version: String,
    /// The SPDX expression.
    pub license: Option<String>,
    /// The line for the registry.
    pub description: Option<String>,
    /// The readme, relative to the manifest.
    pub readme: Option<PathBuf>,
    /// The package's `Cargo.toml`.
    pub manifest_path: PathBuf,
    /// The registries that it may be published to; `None` is any, an empty list none.
    pub publish: Option<Vec<String>>,
}

impl Package {
    /// Whether the package is for the registry.
    pub fn is_published(&self) -> bool {
        self.publish
            .as_ref()
            .is_none_or(|registries| !registries.is_empty())
    }
}

/// Whether the program starts and ends well; its output is dropped.
pub fn works(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command as one line that a person can paste, with paths inside the repository shown relative to its root.
pub fn shown(command: &Command) -> String {
    let root = format!("{}/", root().display());
    let program = command.get_program().to_string_lossy();
    let program = if std::env::var_os("CARGO").is_some_and(|cargo| cargo == command.get_program()) {
        "cargo".into()
    } else {
        program.replace(&root, "")
    };
    let mut line = program;
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy().replace(&root, ""));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command() {
        let failure = run(&mut cargo(&["no-such-command"]))
            .unwrap_err()
            .to_string();
        assert!(
            failure.starts_with("`cargo no-such-command` failed"),
            "{failure}"
        );
        let failure = output(&mut program("no-such-program", &[]))
            .unwrap_err()
            .to_string();
        assert!(
            failure.starts_with("could not start `no-such-program`"),
            "{failure}"
        );
    }

    #[test]
    fn lines_arrive_one_by_one() {
        let mut lines = Vec::new();
        assert!(
            run_lines(&mut cargo(&["--version"]), |line| lines
                .push(line.to_owned()))
            .unwrap()
        );
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("cargo "));
    }
}
