//! `cargo xtask kernels`: PTX from templates, held to the house rules, the `kernels!` declarations, the pinned assemblers and the
//! locked resources.

mod assemble;
mod budget;
mod class;
pub mod compile;
mod conformance;
mod declaration;
mod lint;
mod lock;
mod occupancy;
mod sass;
mod source;
mod tool;
mod variants;

use std::collections::BTreeMap;
use std::fs;

use crate::arguments::{Command, Flag, Flags};
use crate::digest;
use crate::failure::{Context, Failure, Result};
use crate::root::root;
use assemble::{Job, Resources};
use budget::{Budget, Budgets};
use lint::Kernel;
use lock::Row;
use tool::{Tool, Tools};
use variants::{Family, Variant};

/// `cargo xtask kernels`.
pub const COMMAND: Command = Command {
    name: "kernels",
    summary: "Expand the PTX templates, lint them, assemble them for every target, compare registers and occupancy.",
    details: "Reads ptx/<crate>/variants.toml, writes crates/<crate>/src/ptx/<entry>.ptx, and compares what the assemblers of\n\
              ptx/tools.toml say with ptx/<crate>/resources.lock. The assemblers come from PyPI (about 100 MB, once); without them\n\
              assembly is skipped with a notice, and with CI=true in the environment that is a failure.\n\
              Needs: python3 with pip, x86-64 Linux.",
    flags: &[
        Flag {
            name: "--check",
            value: None,
            help: "write nothing; a made file that differs from its template is a failure",
        },
        Flag {
            name: "--bless",
            value: None,
            help: "write resources.lock and budgets.toml as they are now",
        },
        Flag {
            name: "--only",
            value: Some("NAME"),
            help: "only kernels whose entry or template begins with NAME",
        },
        Flag {
            name: "--conformance",
            value: None,
            help: "only make ptx/conformance.tsv, the assemblers' verdicts on single instructions",
        },
    ],
    run,
};

fn run(flags: &Flags) -> Result<()> {
    if flags.has("--conformance") {
        return conformance::write();
    }
    let mode = match (flags.has("--check"), flags.has("--bless")) {
        (true, true) => return Err(Failure::usage("--check and --bless exclude each other")),
        (true, false) => Mode::Check,
        (false, true) => Mode::Bless,
        (false, false) => Mode::Write,
    };
    kernels(mode, flags.value("--only"))
}

/// `cargo xtask kernels --check`.
pub fn check() -> Result<()> {
    kernels(Mode::Check, None)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Check,
    Write,
    Bless,
}

/// A kernel with its text and what the assemblers said.
struct Made<'a> {
    variant: &'a Variant,
    path: String,
    text: String,
    threads: u32,
    target: String,
    resources: Vec<(&'static str, &'a Tool, Resources)>,
}

fn kernels(mode: Mode, only: Option<&str>) -> Result<()> {
    let tools = Tools::read()?;
    let families = Family::all()?;
    let chosen = |variant: &&Variant| {
        only.is_none_or(|name| {
            variant.entry.starts_with(name) || variant.template.starts_with(name)
        })
    };
    let mut problems = Vec::new();
    let mut made = Vec::new();
    for family in &families {
        let mut kernels = Vec::new();
        for variant in family.variants.iter().filter(chosen) {
            match expand(family, variant, mode) {
                Ok(kernel) => kernels.push(kernel),
                Err(failure) => problems.push(failure.to_string()),
            }
        }
        problems.extend(stale(family, mode)?);
        problems.extend(lint(family, &mut kernels, only.is_none())?);
        made.push((family, kernels));
    }
    if made.iter().all(|(_, kernels)| kernels.is_empty()) && problems.is_empty() {
        let which = only.map_or_else(
            || "ptx/*/variants.toml".to_owned(),
            |name| format!("--only {name}"),
        );
        return Err(Failure::new(format!("{which}: no kernel")));
    }
    let assemblers = available(tools.assemblers(), mode)?;
    let disassembler = available([tools.disassembler()?].into_iter(), mode)?;
    for (family, kernels) in &mut made {
        problems.extend(assemble_all(kernels, &assemblers));
        if let (Some(assembler), Some(disassembler)) = (assemblers.last(), disassembler.first()) {
            problems.extend(machine_code(kernels, assembler, disassembler)?);
        }
        if problems.is_empty() {
            problems.extend(locked(family, kernels, mode)?);
        }
    }
    if mode == Mode::Bless && only.is_none() && problems.is_empty() {
        budget::write()?;
    }
    for (family, kernels) in &made {
        let budgets = budget::read(&family.name)?;
        if only.is_none() {
            problems.extend(budgeted(family, &budgets));
        }
        println!("{}", table(family, kernels, &budgets));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("kernels:\n{}", problems.join("\n"))))
}

/// Expands one kernel, and compares or writes its file.
fn expand<'a>(family: &Family, variant: &'a Variant, mode: Mode) -> Result<Made<'a>> {
    let text = family.expand(variant)?;
    let path = family.place(variant);
    let place = root().join(&path);
    let present = fs::read_to_string(&place).unwrap_or_default();
    if present != text {
        if mode == Mode::Check {
            let line = present
                .lines()
                .zip(text.lines())
                .take_while(|(a, b)| a == b)
                .count()
                + 1;
            return Err(Failure::new(format!(
                "{path}:{line}: drift: differs from what {} makes; run `cargo xtask kernels`",
                family.template(variant)
            )));
        }
        digest::write_whole(&place, text.as_bytes())?;
    }
    let (threads, target) = {
        let kernel = Kernel::new(&text, &variant.entry, variant.class);
        (kernel.threads().unwrap_or(0), kernel.target().to_owned())
    };
    Ok(Made {
        variant,
        path,
        text,
        threads,
        target,
        resources: Vec::new(),
    })
}

/// Made files that no variant makes any more: removed, or reported by `--check`.
fn stale(family: &Family, mode: Mode) -> Result<Vec<String>> {
    let folder = family.folder();
    let mut problems = Vec::new();
    if !root().join(&folder).exists() {
        return Ok(problems);
    }
    for entry in fs::read_dir(root().join(&folder)).context(&folder)? {
        let name = entry
            .context(&folder)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        let path = format!("{folder}/{name}");
        if family
            .variants
            .iter()
            .any(|variant| family.place(variant) == path)
        {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).context(&path)?;
        let is_made = text.starts_with("// Generated from ");
        if mode == Mode::Check || !is_made {
            problems.push(format!(
                "{path}:1: drift: ptx/{}/variants.toml has no such kernel",
                family.name
            ));
        } else {
            fs::remove_file(root().join(&path)).context(&path)?;
        }
    }
    Ok(problems)
}

/// The house rules and the signatures; where `all` kernels are looked at, also declarations without a kernel.
fn lint(family: &Family, kernels: &mut [Made<'_>], all: bool) -> Result<Vec<String>> {
    let declarations = declaration::declarations(&format!("crates/{}/src", family.name))?;
    let mut problems = Vec::new();
    for made in kernels.iter() {
        let kernel = Kernel::new(&made.text, &made.variant.entry, made.variant.class);
        let found = kernel.problems(declarations.get(&made.variant.entry));
        problems.extend(
            found
                .into_iter()
                .map(|(line, what)| format!("{}:{line}: {what}", made.path)),
        );
    }
    for (entry, declaration) in declarations.iter().filter(|_| all) {
        if !family
            .variants
            .iter()
            .any(|variant| variant.entry == *entry)
        {
            let place = &declaration.place;
            problems.push(format!(
                "{place}: entry: no kernel \"{entry}\" in ptx/{}/variants.toml",
                family.name
            ));
        }
    }
    Ok(problems)
}

/// The tools that are there or can be fetched. A missing one is a notice; a failure in continuous integration, and when the
/// whole lock is to be written.
fn available<'a>(tools: impl Iterator<Item = &'a Tool>, mode: Mode) -> Result<Vec<&'a Tool>> {
    let mut present = Vec::new();
    for tool in tools {
        match tool.get() {
            Ok(()) => present.push(tool),
            Err(failure)
                if mode == Mode::Bless || std::env::var("CI").is_ok_and(|ci| ci == "true") =>
            {
                return Err(failure);
            }
            Err(failure) => eprintln!("  SKIPPED: {} {}: {failure}", tool.name(), tool.version()),
        }
    }
    Ok(present)
}

/// Assembles every kernel for its architectures by every assembler that knows them.
fn assemble_all<'a>(kernels: &mut [Made<'a>], assemblers: &[&'a Tool]) -> Vec<String> {
    let mut places = Vec::new();
    let mut jobs = Vec::new();
    for (at, made) in kernels.iter().enumerate() {
        for &architecture in made.variant.class.architectures(&made.target) {
            for &tool in assemblers {
                if tool.architectures.iter().any(|known| known == architecture) {
                    places.push((at, architecture, tool));
                    jobs.push(Job {
                        path: &made.path,
                        text: &made.text,
                        architecture,
                        tool,
                    });
                }
            }
        }
    }
    let results = assemble::assemble(&jobs);
    let mut problems: Vec<String> = Vec::new();
    for (job, result) in jobs.iter().zip(&results) {
        if let Err(failure) = result {
            problems.push(format!(
                "{}: assemble ({}): {failure}",
                job.path,
                job.name()
            ));
        }
    }
    for ((at, architecture, tool), result) in places.into_iter().zip(results) {
        if let Ok(resources) = result {
            kernels[at].resources.push((architecture, tool, resources));
        }
    }
    problems
}

/// Counts machine instructions of the kernels that ask for it.
fn machine_code(
    kernels: &[Made<'_>],
    assembler: &Tool,
    disassembler: &Tool,
) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for made in kernels.iter().filter(|made| !made.variant.sass.is_empty()) {
        let architecture = made.variant.class.shown();
        if !made.resources.iter().any(|(on, _, _)| *on == architecture) {
            continue;
        }
        let job = Job {
            path: &made.path,
            text: &made.text,
            architecture,
            tool: assembler,
        };
        let found = sass::differences(&job, disassembler, &made.variant.sass)?;
        problems.extend(
            found
                .into_iter()
                .map(|what| format!("{}: machine code ({}): {what}", made.path, job.name())),
        );
    }
    Ok(problems)
}

/// Compares with `resources.lock`, or writes it. Rows that were not made now (other kernels, a missing assembler) are kept as long
/// as their kernel exists.
fn locked(family: &Family, kernels: &[Made<'_>], mode: Mode) -> Result<Vec<String>> {
    let path = format!("ptx/{}/resources.lock", family.name);
    let place = root().join(&path);
    let text = fs::read_to_string(&place).unwrap_or_default();
    let locked = lock::read(&text);
    let now: Vec<Row> = kernels.iter().flat_map(rows).collect();
    let made: BTreeMap<&str, ()> = kernels
        .iter()
        .map(|made| (made.variant.entry.as_str(), ()))
        .collect();
    let mut all = Vec::new();
    for variant in &family.variants {
        let fresh = made.contains_key(variant.entry.as_str());
        let source = if fresh && mode == Mode::Bless {
            &now
        } else {
            &locked
        };
        all.extend(
            source
                .iter()
                .filter(|row| row.entry == variant.entry)
                .cloned(),
        );
    }
    let whole = lock::write(&all);
    if mode == Mode::Bless {
        if whole != text {
            digest::write_whole(&place, whole.as_bytes())?;
        }
        return Ok(Vec::new());
    }
    let mut problems: Vec<String> = lock::differences(&locked, &now)
        .into_iter()
        .map(|what| format!("{path}: {what}"))
        .collect();
    if problems.is_empty() && whole != text {
        problems.push(format!(
            "{path}: expected the kernels of variants.toml in its order, found others"
        ));
    }
    if !problems.is_empty() {
        problems.push("  (`cargo xtask kernels --bless` writes the new figures)".to_owned());
    }
    Ok(problems)
}

fn rows(made: &Made<'_>) -> Vec<Row> {
    made.resources
        .iter()
        .map(|(architecture, tool, resources)| {
            let shared = resources.shared + made.variant.dynamic_shared;
            let occupancy =
                occupancy::occupancy(architecture, made.threads, resources.registers, shared);
            Row::new(
                &made.variant.entry,
                architecture,
                tool.release(),
                *resources,
                occupancy,
            )
        })
        .collect()
}

/// Kernels without a budget, and budgets that are not kept.
fn budgeted(family: &Family, budgets: &Budgets) -> Vec<String> {
    let path = format!("ptx/{}/budgets.toml", family.name);
    if budgets.is_empty() {
        return vec![format!(
            "{path}: expected the budgets of {} kernels, found none",
            family.variants.len()
        )];
    }
    let mut problems = Vec::new();
    for variant in &family.variants {
        let entry = &variant.entry;
        match budgets.get(entry) {
            None => problems.push(format!("{path}: {entry}: expected a budget, found none")),
            Some(budget) => {
                problems.extend(
                    budget
                        .problem()
                        .map(|what| format!("{path}: {entry}: {what}")),
                );
            }
        }
    }
    let known = |entry: &&String| {
        !family
            .variants
            .iter()
            .any(|variant| variant.entry == **entry)
    };
    for entry in budgets.keys().filter(known) {
        problems.push(format!("{path}: {entry}: no such kernel"));
    }
    problems
}

/// The table's columns, and whether they are numbers.
const COLUMNS: [(&str, bool); 11] = [
    ("kernel", false),
    ("entry", false),
    ("target", false),
    ("registers", true),
    ("all", true),
    ("shared", true),
    ("blocks/SM", true),
    ("limit", false),
    ("bytes/floor", true),
    ("conflicts", true),
    ("instr/element", true),
];

/// The table of a crate's kernels, with the figures of the newest assembler on the class's first common architecture.
fn table(family: &Family, kernels: &[Made<'_>], budgets: &Budgets) -> String {
    let mut lines = vec![COLUMNS.map(|(name, _)| name.to_owned())];
    lines.extend(
        kernels
            .iter()
            .map(|made| line(made, budgets.get(&made.variant.entry))),
    );
    let mut text = format!("ptx/{}: {} kernels\n", family.name, kernels.len());
    for line in &lines {
        let cells: Vec<String> = COLUMNS
            .iter()
            .enumerate()
            .map(|(column, (_, is_number))| {
                let width = lines
                    .iter()
                    .map(|line| line[column].len())
                    .max()
                    .unwrap_or(0);
                let cell = &line[column];
                if *is_number {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        text.push_str(&format!("  {}\n", cells.join("  ").trim_end()));
    }
    text
}

/// A kernel's line; a dash where nothing is known.
fn line(made: &Made<'_>, budget: Option<&Budget>) -> [String; COLUMNS.len()] {
    let shown = made.variant.class.shown();
    let on = made
        .resources
        .iter()
        .rfind(|(architecture, _, _)| *architecture == shown);
    let resources = on.map(|(_, _, resources)| *resources);
    let shared = resources.map(|resources| resources.shared + made.variant.dynamic_shared);
    let fit = resources.zip(shared).and_then(|(resources, shared)| {
        occupancy::occupancy(shown, made.threads, resources.registers, shared)
    });
    let registers = || {
        made.resources
            .iter()
            .map(|(_, _, resources)| resources.registers)
    };
    let range = registers().min().zip(registers().max());
    let dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
    let (over_floor, per_element) = match budget {
        Some(budget) => (budget.bytes_over_floor(), budget.instructions_per_element()),
        None => (None, None),
    };
    [
        made.variant.template.clone(),
        made.variant.entry.clone(),
        format!("sm_{shown}"),
        dash(resources.map(|resources| resources.registers.to_string())),
        dash(range.map(|(least, most)| format!("{least}-{most}"))),
        dash(shared.map(|shared| shared.to_string())),
        dash(fit.map(|fit| fit.blocks.to_string())),
        dash(fit.map(|fit| fit.limit.to_owned())),
        dash(over_floor.map(|ratio| format!("{ratio:.3}"))),
        dash(budget.map(|budget| budget.conflicts().to_string())),
        dash(per_element.map(|count| format!("{count:.1}"))),
    ]
}
