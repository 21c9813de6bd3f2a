//! Project tasks: `cargo xtask {bench, test, data, kernels, gpu, mutate, tidy}`.
//!
//! This program only orchestrates. It links no crate of the workspace, so it builds in seconds, and what it measures or
//! checks runs in processes of its own that can be started by hand with the command that it prints.

mod arguments;
mod bench;
mod clock;
mod data;
mod digest;
mod failure;
mod gpu;
mod kernels;
mod mutate;
mod page;
mod plot;
mod process;
mod report;
mod root;
mod test;
mod tidy;

use std::process::ExitCode;

use arguments::Command;
use failure::{Failure, Result};

/// The commands, in the order in which the help lists them.
const COMMANDS: [&Command; 7] = [
    &bench::COMMAND,
    &test::COMMAND,
    &data::COMMAND,
    &kernels::COMMAND,
    &gpu::COMMAND,
    &mutate::COMMAND,
    &tidy::COMMAND,
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nxtask: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(words: &[String]) -> Result<()> {
    let Some((name, rest)) = words.split_first() else {
        println!("{}", help());
        return Ok(());
    };
    if matches!(name.as_str(), "--help" | "-h" | "help") {
        println!("{}", help());
        return Ok(());
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        let known: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
        return Err(Failure::usage(format!(
            "unknown command `{name}`; expected one of: {}",
            known.join(", ")
        )));
    };
    if rest.iter().any(|word| word == "--help" || word == "-h") {
        println!("{}", command.help());
        return Ok(());
    }
    (command.run)(&command.parse(rest)?)
}

fn help() -> String {
    let mut text = String::from("Usage: cargo xtask <command> [flags]\n\nCommands:\n");
    for command in COMMANDS {
        text.push_str(&format!("  {:<7}{}\n", command.name, command.summary));
    }
    text.push_str("\n`cargo xtask <command> --help` lists a command's flags.");
    text
}
