//! Machine code: how often each instruction stands in what the assembler made of a kernel.

use std::collections::BTreeMap;
use std::fs;

use super::assemble::{Job, verdicts};
use super::tool::Tool;
use crate::failure::{Context, Result};
use crate::{digest, process};

/// Assembles a kernel, takes it apart again, and says what differs from `expected`, which counts instructions by the beginning of
/// their name: `LDG.E.128` counts `LDG.E.128.CONSTANT` too. Loads and stores of local memory are always expected to be absent.
pub fn differences(
    job: &Job<'_>,
    disassembler: &Tool,
    expected: &BTreeMap<String, u32>,
) -> Result<Vec<String>> {
    let key = [job.tool.version(), job.architecture, job.text].join("\0");
    let cubin = verdicts().join(format!("{}.sass.cubin", digest::sha256_of(key.as_bytes())));
    if !cubin.exists() {
        let partial = cubin.with_added_extension(std::process::id().to_string());
        job.assemble(&partial)?;
        fs::rename(&partial, &cubin).context(cubin.display())?;
    }
    let program = disassembler.place().display().to_string();
    let code = process::output(&mut process::program(
        &program,
        &["-c", &cubin.display().to_string()],
    ))?;
    let absent = ["LDL", "STL"].map(|name| (name.to_owned(), 0));
    Ok(absent
        .iter()
        .map(|(name, count)| (name, *count))
        .chain(expected.iter().map(|(name, count)| (name, *count)))
        .filter_map(|(name, count)| {
            let found = count_of(&code, name);
            (found != count).then(|| format!("expected {count} {name}, found {found}"))
        })
        .collect())
}

/// Instructions in a listing of `nvdisasm -c` whose name is `name` or goes on from it after a dot.
fn count_of(code: &str, name: &str) -> u32 {
    let is_counted = |line: &&str| {
        let Some((_, instruction)) = line.split_once("*/") else {
            return false;
        };
        let opcode = instruction
            .split_whitespace()
            .find(|word| !word.starts_with('@'))
            .unwrap_or("");
        opcode
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ';']))
    };
    code.lines().filter(is_counted).map(|_| 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_counted_by_the_beginning_of_their_name() {
        let code = "\t.text.a:\n        /*0000*/                   MOV R1, c[0x0][0x28] ;\n\
                    /*0010*/              @!P0 LDG.E.128.CONSTANT R4, [R2.64] ;\n/*0020*/ LDG.E R5, [R2.64] ;\n\
                    /*0030*/ LDGSTS.E.128 [R4], [R2.64] ;\n/*0040*/ EXIT ;\n";
        for (name, count) in [
            ("LDG", 2),
            ("LDG.E.128", 1),
            ("LDGSTS", 1),
            ("EXIT", 1),
            ("HMMA", 0),
        ] {
            assert_eq!(count_of(code, name), count, "{name}");
        }
    }
}
