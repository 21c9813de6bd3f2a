//! `cargo xtask kernels --conformance`: what the pinned assemblers accept and refuse, one instruction at a time.
//!
//! `ptx/conformance.txt` holds patterns; `ptx/conformance.tsv` the kernels that they stand for, with a verdict each. The virtual
//! machine's tests compare its own verdicts with the table.

use std::collections::HashSet;
use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tool::{Tool, Tools};
use crate::failure::{Context, Failure, Result};
use crate::root::root;
use crate::{digest, process};

const PATTERNS: &str = "ptx/conformance.txt";
const TABLE: &str = "ptx/conformance.tsv";

/// Assemblers at once.
const PARALLEL: usize = 2;

/// Asks every assembler about every body and writes the table.
pub fn write() -> Result<()> {
    let tools = Tools::read()?;
    let assemblers: Vec<&Tool> = tools.assemblers().collect();
    for tool in &assemblers {
        tool.get()?;
    }
    let patterns = Patterns::read()?;
    let bodies = patterns.bodies()?;
    eprintln!(
        "  asking {} assemblers about {} kernels, a few minutes",
        assemblers.len(),
        bodies.len()
    );
    let next = AtomicUsize::new(0);
    let work = |worker: usize| -> Result<Vec<(usize, String)>> {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(body) = bodies.get(at) else {
                return Ok(done);
            };
            match verdicts(&assemblers, &patterns.module(body), worker) {
                Ok(verdicts) => done.push((at, verdicts)),
                Err(failure) => {
                    // The other workers stop too.
                    next.store(bodies.len(), Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
    };
    let parts: Vec<Result<Vec<(usize, String)>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..PARALLEL)
            .map(|worker| scope.spawn(move || work(worker)))
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err(Failure::new("a thread panicked")))
            })
            .collect()
    });
    let mut rows = Vec::new();
    for part in parts {
        rows.extend(part?);
    }
    rows.sort_unstable();
    let releases: Vec<&str> = assemblers.iter().map(|tool| tool.release()).collect();
    let mut table = format!(
        "# Made from {PATTERNS} by cargo xtask kernels --conformance; do not edit.\n\
         # Verdict (+ accepted, - refused) of ptxas {}, and what stands for @ in this module, whose version and target\n\
         # are those in brackets where there are some:\n",
        releases.join(", ")
    );
    for line in patterns.module.lines() {
        table.push_str(&format!("| {line}\n"));
    }
    for (at, verdicts) in rows {
        table.push_str(&format!("{verdicts}\t{}\n", bodies[at]));
    }
    digest::write_whole(&root().join(TABLE), table.as_bytes())
}

/// A sign for each assembler: `+` if it accepts the module.
fn verdicts(assemblers: &[&Tool], text: &str, worker: usize) -> Result<String> {
    let folder = root().join("target/xtask/conformance");
    fs::create_dir_all(&folder).context(folder.display())?;
    let file = folder.join(format!("{worker}.ptx"));
    fs::write(&file, text).context(file.display())?;
    let target = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(".target sm_"))
        .ok_or_else(|| Failure::new(format!("{PATTERNS}: the module has no .target")))?;
    let file = file.display().to_string();
    let cubin = folder.join(format!("{worker}.cubin")).display().to_string();
    let mut signs = String::new();
    for tool in assemblers {
        let program = tool.place().display().to_string();
        // An assembler takes the text for an older target than its oldest architecture.
        let known = tool.architectures.iter().any(|known| known == target);
        let oldest = tool.architectures.first().map_or("", String::as_str);
        let architecture = format!("-arch=sm_{}", if known { target } else { oldest });
        let mut command =
            process::program(&program, &[&architecture, "--output-file", &cubin, &file]);
        let output = command
            .stdin(Stdio::null())
            .output()
            .context(process::shown(&command))?;
        let said = String::from_utf8_lossy(&output.stderr);
        signs.push(match output.status.code() {
            Some(0) => '+',
            Some(_) if said.contains("error") || said.contains("fatal") => '-',
            _ => {
                return Err(Failure::new(format!(
                    "ptxas {}: {}; it said: {said}\n{text}",
                    tool.release(),
                    output.status
                )));
            }
        });
    }
    Ok(signs)
}

/// `ptx/conformance.txt`, which says itself how it is read.
struct Patterns {
    module: String,
    lines: Vec<String>,
}

impl Patterns {
    fn read() -> Result<Self> {
        let text = fs::read_to_string(root().join(PATTERNS)).context(PATTERNS)?;
        let (mut module, mut lines) = (String::new(), Vec::new());
        for line in text.lines() {
            match line.strip_prefix("| ") {
                Some(line) => module.push_str(&format!("{line}\n")),
                None if line.is_empty() || line.starts_with('#') => {}
                None => lines.push(line.to_owned()),
            }
        }
        Ok(Self { module, lines })
    }

    /// The kernel with this body, of the version and target that it names.
    fn module(&self, body: &str) -> String {
        let header = body
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("] "))
            .and_then(|(header, body)| Some((header.split_once(' ')?, body)));
        let Some(((version, target), body)) = header else {
            return self.module.replacen('@', body, 1);
        };
        let headed = self
            .module
            .lines()
            .map(|line| match line.split(' ').next() {
                Some(".version") => format!(".version {version}\n"),
                Some(".target") => format!(".target {target}\n"),
                _ => format!("{line}\n"),
            });
        headed.collect::<String>().replacen('@', body, 1)
    }

    /// Every body once, in the order of the patterns.
    fn bodies(&self) -> Result<Vec<String>> {
        let (mut bodies, mut seen) = (Vec::new(), HashSet::new());
        for line in &self.lines {
            let number = line
                .split_once(':')
                .and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest)));
            let all = expand(number.map_or(line, |(_, rest)| rest))
                .map_err(|what| Failure::new(format!("{PATTERNS}: {what}: {line}")))?;
            let kept = number.map_or(all.len(), |(number, _)| number.min(all.len()));
            let chosen = (0..kept).map(|i| &all[i * all.len() / kept]);
            bodies.extend(chosen.filter(|body| seen.insert((*body).clone())).cloned());
        }
        Ok(bodies)
    }
}

/// The texts that a pattern stands for.
fn expand(pattern: &str) -> std::result::Result<Vec<String>, &'static str> {
    let (mut depth, mut open, mut starts) = (0, 0, Vec::new());
    let mut escaped = false;
    for (at, byte) in pattern.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'<' => {
                depth += 1;
                if depth == 1 {
                    open = at;
                    starts.push(at + 1);
                }
            }
            b'|' if depth == 1 => starts.push(at + 1),
            b'>' if depth == 0 => return Err("`>` without `<`"),
            b'>' => {
                depth -= 1;
                if depth > 0 {
                    continue;
                }
                let ends = starts.iter().skip(1).map(|start| start - 1).chain([at]);
                let mut texts = Vec::new();
                for (start, end) in starts.iter().zip(ends) {
                    let rest = format!("{}{}", &pattern[*start..end], &pattern[at + 1..]);
                    for text in expand(&rest)? {
                        texts.push(format!("{}{text}", plain(&pattern[..open])));
                    }
                }
                return Ok(texts);
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err("`<` without `>`");
    }
    Ok(vec![plain(pattern)])
}

/// Without the backslashes in front of `<`, `>` and `|`.
fn plain(text: &str) -> String {
    ["<", ">", "|"].iter().fold(text.to_owned(), |text, sign| {
        text.replace(&format!("\\{sign}"), sign)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_every_choice() {
        assert_eq!(
            expand("a<|b<c|d>>e"),
            Ok(vec!["ae".into(), "abce".into(), "abde".into()])
        );
        assert_eq!(
            expand("a\\|b <x\\<4\\>|y>"),
            Ok(vec!["a|b x<4>".into(), "a|b y".into()])
        );
        assert_eq!(expand("<a"), Err("`<` without `>`"));
        assert_eq!(expand("a>"), Err("`>` without `<`"));
    }

    #[test]
    fn a_body_may_name_its_version_and_target() {
        let patterns = Patterns {
            module: ".version 8.2\n.target sm_90\n{ @ }\n".into(),
            lines: Vec::new(),
        };
        let text = patterns.module("[7.0 sm_75] @%p1 ret;");
        assert_eq!(text, ".version 7.0\n.target sm_75\n{ @%p1 ret; }\n");
        let text = patterns.module("ret;");
        assert_eq!(text, ".version 8.2\n.target sm_90\n{ ret; }\n");
    }

    #[test]
    fn the_table_is_of_the_committed_patterns_and_the_assemblers_agree() {
        let table = fs::read_to_string(root().join(TABLE)).unwrap();
        let rows: Vec<(&str, &str)> = table
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .collect();
        let bodies = Patterns::read().unwrap().bodies().unwrap();
        assert!(rows.len() >= 1500);
        assert_eq!(
            rows.iter().map(|(_, body)| *body).collect::<Vec<_>>(),
            bodies
        );
        let accepted = rows
            .iter()
            .filter(|(verdicts, _)| *verdicts == "+++")
            .count();
        let refused = rows
            .iter()
            .filter(|(verdicts, _)| *verdicts == "---")
            .count();
        assert!(accepted > 1000 && refused > 1000);
    }
}
