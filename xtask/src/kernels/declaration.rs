//! `kernels!` declarations in a crate's sources, and entries in PTX texts: two signatures that must be the same one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::source::{Statement, words};
use crate::failure::{Context, Result};
use crate::root::root;

/// The parameters of a kernel: name and PTX type.
pub type Signature = Vec<(String, String)>;

/// A declaration and where it stands.
pub struct Declaration {
    /// `path:line` of the entry's name.
    pub place: String,
    /// As PTX would have it.
    pub signature: Signature,
}

/// The declarations in all Rust sources under a folder, by entry.
pub fn declarations(folder: &str) -> Result<BTreeMap<String, Declaration>> {
    let mut found = BTreeMap::new();
    search(folder, &mut found)?;
    Ok(found)
}

fn search(folder: &str, found: &mut BTreeMap<String, Declaration>) -> Result<()> {
    for entry in fs::read_dir(root().join(folder)).context(folder)? {
        let entry = entry.context(folder)?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            search(&path, found)?;
        } else if Path::new(&path)
            .extension()
            .is_some_and(|extension| extension == "rs")
        {
            let text = fs::read_to_string(entry.path()).context(&path)?;
            for (line, entry, signature) in parse(&text) {
                let place = format!("{path}:{line}");
                found.insert(entry, Declaration { place, signature });
            }
        }
    }
    Ok(())
}

/// Finds `NAME = "entry"(parameter: Kind, …)`, which no other Rust looks like, with its line.
fn parse(text: &str) -> Vec<(usize, String, Signature)> {
    let code: String = text
        .lines()
        .map(|line| {
            let comment = line.trim_start().starts_with("//");
            if comment {
                "\n".to_owned()
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("= \"") {
        let rest = &code[at + 3..];
        let Some((entry, rest)) = rest.split_once('"') else {
            continue;
        };
        let Some((parameters, _)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'))
        else {
            continue;
        };
        let line = code[..at].matches('\n').count() + 1;
        if let Some(signature) = signature(parameters) {
            found.push((line, entry.to_owned(), signature));
        }
    }
    found
}

fn signature(parameters: &str) -> Option<Signature> {
    parameters
        .split(',')
        .map(str::trim)
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| {
            let (name, kind) = parameter.split_once(':')?;
            let kind = match kind.trim() {
                "Ptr" | "U64" => "u64",
                "U32" => "u32",
                "I32" => "s32",
                "F32" => "f32",
                _ => return None,
            };
            Some((name.trim().to_owned(), kind.to_owned()))
        })
        .collect()
}

/// The name and the parameters of an entry's head: `.visible .entry name(.param .u64 x, …) .maxntid 256`.
pub fn entry(head: &Statement) -> Option<(String, Signature)> {
    let (_, rest) = head.text.split_once(".entry")?;
    let (name, rest) = rest.split_once('(').unwrap_or((rest, ""));
    let (parameters, _) = rest.split_once(')').unwrap_or((rest, ""));
    let types = [
        "u64", "u32", "s32", "f32", "s64", "f64", "u16", "s16", "u8", "s8", "b8", "b16", "b32",
        "b64",
    ];
    let parameters = parameters
        .split(',')
        .filter(|parameter| !parameter.trim().is_empty())
        .map(|parameter| {
            let kind = words(parameter).find(|word| types.contains(word));
            let name = words(parameter).last();
            (name.unwrap_or("").to_owned(), kind.unwrap_or("").to_owned())
        })
        .collect();
    Some((words(name).next()?.to_owned(), parameters))
}

/// A signature as it stands in PTX.
pub fn shown(signature: &Signature) -> String {
    let parameters: Vec<String> = signature
        .iter()
        .map(|(name, kind)| format!(".{kind} {name}"))
        .collect();
    format!("({})", parameters.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_one_kernel_read_the_same() {
        let rust = "kernels! {\n    module \"scale\" in include_str!(\"ptx/scale.ptx\");\n\n    /// Not `A = \"b\"(x: Ptr)`.\n    \
                    SCALE = \"scale_f32\"(\n        x: Ptr, n: U32, by: I32,\n        alpha: F32, seed: U64,\n    );\n}\nlet a = \"b\";\n";
        let found = parse(rust);
        assert_eq!(found.len(), 1);
        let (line, name, declared) = &found[0];
        assert_eq!((*line, name.as_str()), (5, "scale_f32"));
        let head = Statement {
            line: 1,
            text: ".visible .entry scale_f32( .param .u64 x, .param .u32 n, .param .s32 by, .param .f32 alpha, \
                   .param .u64 seed ) .maxntid 256, 1, 1"
                .to_owned(),
        };
        let (name, written) = entry(&head).unwrap();
        assert_eq!((name.as_str(), &written), ("scale_f32", declared));
        assert_eq!(
            shown(&written),
            "(.u64 x, .u32 n, .s32 by, .f32 alpha, .u64 seed)"
        );
    }

    #[test]
    fn an_entry_may_have_no_parameters() {
        let of = |text: &str| {
            entry(&Statement {
                line: 1,
                text: text.to_owned(),
            })
        };
        assert_eq!(of(".entry f"), Some(("f".to_owned(), Vec::new())));
        assert_eq!(
            of(".visible .entry f( )"),
            Some(("f".to_owned(), Vec::new()))
        );
        assert_eq!(of(".reg .pred p"), None);
        let array = of(".entry f(.param .align 8 .b8 x[16])").unwrap().1;
        assert_eq!(array, [("16".to_owned(), "b8".to_owned())]);
    }
}
