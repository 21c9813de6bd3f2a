//! `cargo xtask mutate`: changes the kernels one instruction at a time and asks whether their tests notice.

use std::process::Stdio;

use crate::arguments::{Command, Flag, Flags};
use crate::failure::{Failure, Result};
use crate::process;

/// `cargo xtask mutate`.
pub const COMMAND: Command = Command {
    name: "mutate",
    summary: "Change kernels one instruction at a time: the virtual machine must fault, or a comparison must fail.",
    details: "Prints a table of the kernels and every survivor with its line. A survivor is a missing test, or has a written reason in\n\
              ptx/<crate>/survivors.toml. --quick takes a seeded sample (at most 3 minutes), --all every mutant (at most an hour).",
    flags: &[
        Flag {
            name: "--quick",
            value: None,
            help: "a sample of each kernel's mutants; so without a flag",
        },
        Flag {
            name: "--all",
            value: None,
            help: "every mutant",
        },
        Flag {
            name: "--only",
            value: Some("NAME"),
            help: "only kernels whose entry begins with NAME",
        },
    ],
    run,
};

fn run(flags: &Flags) -> Result<()> {
    if flags.has("--quick") && flags.has("--all") {
        return Err(Failure::usage("--quick and --all exclude each other"));
    }
    let how = if flags.has("--all") {
        "--all"
    } else {
        "--quick"
    };
    mutate(how, flags.value("--only"))
}

/// `cargo xtask mutate --quick`.
pub fn quick() -> Result<()> {
    mutate("--quick", None)
}

fn mutate(how: &str, only: Option<&str>) -> Result<()> {
    // With the features and the profile of `cargo test`, which has built it then.
    let mut command = process::cargo(&[
        "run",
        "--quiet",
        "--all-features",
        "--bin",
        "mutate",
        "--",
        how,
    ]);
    command.args(only);
    process::run_with_stdout(&mut command, Stdio::inherit())
}
