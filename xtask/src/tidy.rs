//! `cargo xtask tidy`: the house rules that no compiler checks, each as code with its reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::arguments::{Command, Flags};
use crate::failure::{Context, Failure, Result};
use crate::{process, root};

/// `cargo xtask tidy`.
pub const COMMAND: Command = Command {
    name: "tidy",
    summary: "Check the house rules: module docs, SAFETY comments, links, licences, names, sizes, budgets.",
    details: "Looks at every file that git tracks or would track. Prints `path:line: rule: what is wrong`.",
    flags: &[],
    run: |_: &Flags| check(),
};

/// A file of the repository.
struct File {
    path: String,
    bytes: u64,
    /// Empty for a file that is not UTF-8.
    text: String,
}

/// A rule about a single file.
struct Rule {
    name: &'static str,
    /// Why the rule is there, printed when it is broken.
    why: &'static str,
    /// The lines (from 1; 0 for the whole file) that break it, with what was found.
    check: fn(&File) -> Vec<(usize, String)>,
}

const RULES: [Rule; 7] = [
    Rule {
        name: "module-docs",
        why: "a reader opens a file to learn what it holds; the first line says it",
        check: module_docs,
    },
    Rule {
        name: "safety",
        why: "an unsafe block is sound by an argument, and the argument stands above it",
        check: safety,
    },
    Rule {
        name: "unfinished",
        why: "what is not done is an issue, not a mark in the code",
        check: unfinished,
    },
    Rule {
        name: "machine-path",
        why: "a path of one machine is wrong on every other",
        check: machine_path,
    },
    Rule {
        name: "size",
        why: "a clone stays small; models and data come through `cargo xtask data`",
        check: size,
    },
    Rule {
        name: "name",
        why: "a file has one noun, and these names hold everything and nothing",
        check: name,
    },
    Rule {
        name: "link",
        why: "a link that leads nowhere costs each reader a search",
        check: link,
    },
];

/// The largest file that git may track.
const MAX_BYTES: u64 = 1 << 20;

/// Packages that somebody who adds whittle-kivi without features compiles, itself included.
const DEPENDENCIES: usize = 60;

/// Lines of Rust, without blank lines and comments: a package that outgrows its number is split, trimmed, or gets a new number
/// in a change that says why.
const LINES: [(&str, usize); 9] = [
    ("crates/tensor", 9_000),
    // Half of it is the instructions' typed forms, their exact arithmetic and its references.
    ("crates/ptx-vm", 16_500),
    ("crates/cuda", 2_500),
    ("crates/cuda-cust", 800),
    ("crates/llama", 14_500),
    ("crates/kivi", 9_000),
    ("benches", 5_000),
    ("tests", 9_900),
    ("xtask", 6_000),
];

/// Checks every rule.
pub fn check() -> Result<()> {
    let files = files()?;
    let mut problems = Vec::new();
    for rule in &RULES {
        let found = files
            .iter()
            .flat_map(|file| (rule.check)(file).into_iter().map(move |at| (file, at)));
        let before = problems.len();
        problems
            .extend(found.map(|(file, (line, what))| {
                format!("{}:{line}: {}: {what}", file.path, rule.name)
            }));
        if problems.len() > before {
            problems.push(format!("  ({}: {})", rule.name, rule.why));
        }
    }
    let packages = process::metadata(&["--no-deps"])?.packages;
    problems.extend(packages.iter().flat_map(manifest));
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if !files.iter().any(|file| file.path == licence) {
            problems.push(format!("{licence}: licence: the file is missing"));
        }
    }

    let arguments = [
        "tree",
        "--edges",
        "normal",
        "--package",
        "whittle-kivi",
        "--no-default-features",
        "--prefix",
        "none",
    ];
    let tree = process::output(&mut process::cargo(&arguments))?;
    let count = packages_in(&tree);
    eprintln!(
        "  dependencies of whittle-kivi: {count} of {DEPENDENCIES} (`cargo {}`)",
        arguments.join(" ")
    );
    if count > DEPENDENCIES {
        problems.push(format!(
            "crates/kivi: dependencies: expected at most {DEPENDENCIES}, found {count}"
        ));
    }
    for (package, lines) in lines(&files) {
        let Some((_, budget)) = LINES.iter().find(|(name, _)| *name == package) else {
            problems.push(format!(
                "{package}: lines: has no budget in xtask/src/tidy.rs"
            ));
            continue;
        };
        eprintln!("  lines of {package:<14} {lines:>5} of {budget}");
        if lines > *budget {
            problems.push(format!(
                "{package}: lines: expected at most {budget}, found {lines}"
            ));
        }
    }

    if problems.is_empty() {
        eprintln!(
            "  tidy: {} files, {} rules, nothing found",
            files.len(),
            RULES.len()
        );
        return Ok(());
    }
    Err(Failure::new(format!("tidy:\n{}", problems.join("\n"))))
}

/// Every file that git tracks or would track.
fn files() -> Result<Vec<File>> {
    let arguments = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let list = process::output(&mut process::program("git", &arguments))?;
    let mut files = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        let place = root::root().join(path);
        // A file that was removed but is still in the index.
        if !place.exists() {
            continue;
        }
        let contents = fs::read(&place).context(path)?;
        let bytes = contents.len() as u64;
        files.push(File {
            path: path.to_owned(),
            bytes,
            text: String::from_utf8(contents).unwrap_or_default(),
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

fn is_rust(file: &File) -> bool {
    file.path.ends_with(".rs")
}

fn module_docs(file: &File) -> Vec<(usize, String)> {
    let first = file
        .text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("");
    // A crate's README may be its front page.
    if is_rust(file) && !first.starts_with("//!") && !first.starts_with("#![doc = include_str!(") {
        return vec![(1, "expected a `//!` comment first".into())];
    }
    Vec::new()
}

fn safety(file: &File) -> Vec<(usize, String)> {
    if !is_rust(file) {
        return Vec::new();
    }
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let opens = |line: &str| {
        let code = line.split("//").next().unwrap_or("");
        code.contains(concat!("unsafe", " {")) || code.contains(concat!("unsafe", " impl"))
    };
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate().filter(|(_, line)| opens(line)) {
        let mut proven = line.contains("SAFETY:");
        for above in lines[..i].iter().rev() {
            if above.starts_with("//") {
                proven |= above.contains("SAFETY:");
            } else if above.is_empty()
                || (above.ends_with([';', '{', '}', ',']) && !above.starts_with("#["))
            {
                break;
            }
        }
        if !proven {
            found.push((i + 1, "expected a `// SAFETY:` comment above".into()));
        }
    }
    found
}

fn unfinished(file: &File) -> Vec<(usize, String)> {
    if !is_rust(file) {
        return Vec::new();
    }
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    find_lines(&file.text, |line| {
        marks
            .into_iter()
            .find(|mark| line.contains(mark))
            .map(|mark| format!("found `{mark}`"))
    })
}

fn machine_path(file: &File) -> Vec<(usize, String)> {
    let folders = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/t", "mp/"),
        concat!("/Us", "ers/"),
    ];
    let starts = |line: &str, folder: &str| {
        line.match_indices(folder).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| c.is_whitespace() || "\"'`(<[=:,/".contains(c))
        })
    };
    find_lines(&file.text, |line| {
        folders
            .into_iter()
            .find(|folder| starts(line, folder))
            .map(|folder| format!("found a path in {folder}"))
    })
}

fn size(file: &File) -> Vec<(usize, String)> {
    if file.bytes > MAX_BYTES {
        return vec![(
            0,
            format!("expected at most {MAX_BYTES} bytes, found {}", file.bytes),
        )];
    }
    Vec::new()
}

fn name(file: &File) -> Vec<(usize, String)> {
    let refused = [
        "util", "utils", "common", "helper", "helpers", "misc", "prelude",
    ];
    let parts = Path::new(&file.path)
        .iter()
        .filter_map(|part| Path::new(part).file_stem()?.to_str());
    parts
        .filter(|part| refused.contains(part))
        .map(|part| (0, format!("found `{part}` in the path")))
        .collect()
}

fn link(file: &File) -> Vec<(usize, String)> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let folder = root::root().join(&file.path);
    let folder = folder.parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    let mut fenced = false;
    for (i, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split([')', ' ', '#']).next().unwrap_or("");
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !folder.join(target).exists() {
                found.push((i + 1, format!("found no file for the link `{target}`")));
            }
        }
    }
    found
}

/// What a package's manifest must say.
fn manifest(package: &process::Package) -> Vec<String> {
    let mut problems = Vec::new();
    if package.license.as_deref() != Some("MIT OR Apache-2.0") {
        problems.push(format!(
            "licence: expected MIT OR Apache-2.0, found {:?}",
            package.license
        ));
    }
    if package.description.is_none() {
        problems.push("description: expected one line, found none".into());
    }
    if package.is_published() && package.readme.is_none() {
        problems.push("readme: a published package has one, found none".into());
    }
    problems
        .into_iter()
        .map(|what| format!("{}: {what}", package.name))
        .collect()
}

/// The number of distinct packages in the output of `cargo tree --prefix none`.
fn packages_in(tree: &str) -> usize {
    let mut names: Vec<String> = tree
        .lines()
        .map(|line| {
            line.split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    names.dedup();
    names.len()
}

/// Lines of Rust in each package, without blank lines and comments.
fn lines(files: &[File]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for file in files.iter().filter(|file| is_rust(file)) {
        let parts = if file.path.starts_with("crates/") {
            2
        } else {
            1
        };
        let package = file
            .path
            .split('/')
            .take(parts)
            .collect::<Vec<_>>()
            .join("/");
        // Outside the workspace, a few lines each: fuzz targets and the build beside candle.
        if ["fuzz", "ci"].contains(&package.as_str()) {
            continue;
        }
        let code = file
            .text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("//"));
        *counts.entry(package).or_insert(0) += code.count();
    }
    counts
}

fn find_lines(text: &str, check: impl Fn(&str) -> Option<String>) -> Vec<(usize, String)> {
    text.lines()
        .enumerate()
        .filter_map(|(i, line)| Some((i + 1, check(line)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.into(),
            bytes: text.len() as u64,
            text: text.into(),
        }
    }

    /// The lines that break the rule.
    fn broken(check: fn(&File) -> Vec<(usize, String)>, path: &str, text: &str) -> Vec<usize> {
        check(&file(path, text))
            .into_iter()
            .map(|(line, _)| line)
            .collect()
    }

    #[test]
    fn a_module_without_docs_is_caught() {
        assert_eq!(broken(module_docs, "a.rs", "use std::fs;\n"), [1]);
        assert_eq!(broken(module_docs, "a.rs", "// Not a doc comment.\n"), [1]);
        assert_eq!(broken(module_docs, "a.rs", ""), [1]);
        assert_eq!(
            broken(module_docs, "a.rs", "\n//! Docs.\nuse std::fs;\n"),
            [] as [usize; 0]
        );
        let readme = "#![doc = include_str!(\"../README.md\")]\n";
        assert_eq!(broken(module_docs, "lib.rs", readme), [] as [usize; 0]);
        assert_eq!(broken(module_docs, "a.txt", "text"), [] as [usize; 0]);
    }

    #[test]
    fn an_unsafe_block_without_proof_is_caught() {
        let open = concat!("unsafe", " {");
        assert_eq!(
            broken(
                safety,
                "a.rs",
                &format!("fn f() {{\n    {open} g() }}\n}}\n")
            ),
            [2]
        );
        assert_eq!(
            broken(
                safety,
                "a.rs",
                &format!("// SAFETY: old.\nh();\n{open} g() }}\n")
            ),
            [3]
        );
        assert_eq!(
            broken(safety, "a.rs", concat!("unsafe", " impl Send for A {}\n")),
            [1]
        );
        for proven in [
            format!("// SAFETY: g has no conditions.\n{open} g() }}\n"),
            format!(
                "// SAFETY: as above,\n// in two lines.\n#[inline]\nlet x =\n    {open} g() }};\n"
            ),
            format!("f(); // says {open}\n"),
        ] {
            assert_eq!(
                broken(safety, "a.rs", &proven),
                [] as [usize; 0],
                "{proven}"
            );
        }
    }

    #[test]
    fn unfinished_work_is_caught() {
        let text = [
            concat!("todo", "!();"),
            concat!("let x = dbg", "!(1);"),
            concat!("unimplemented", "!()"),
            concat!("// TO", "DO: later"),
            concat!("// FIX", "ME"),
            "let finished = true;",
        ];
        assert_eq!(
            broken(unfinished, "a.rs", &text.join("\n")),
            [1, 2, 3, 4, 5]
        );
    }

    #[test]
    fn a_machine_path_is_caught() {
        let text = [
            concat!("cd /ho", "me/ann/whittle"),
            concat!("let path = \"/t", "mp/x\";"),
            concat!("PATH=/ro", "ot/bin"),
            concat!("see [it](/Us", "ers/ann)"),
            concat!("https://example.org/ho", "me/page and target/t", "mp/x"),
        ];
        assert_eq!(broken(machine_path, "a.md", &text.join("\n")), [1, 2, 3, 4]);
    }

    #[test]
    fn a_large_file_is_caught() {
        let of = |bytes| File {
            path: "a.bin".into(),
            bytes,
            text: String::new(),
        };
        assert_eq!(size(&of(MAX_BYTES)).len(), 0);
        assert_eq!(size(&of(MAX_BYTES + 1)).len(), 1);
    }

    #[test]
    fn a_name_that_says_nothing_is_caught() {
        assert_eq!(broken(name, "crates/tensor/src/utils.rs", ""), [0]);
        assert_eq!(broken(name, "crates/tensor/src/common/mod.rs", ""), [0]);
        assert_eq!(
            broken(name, "crates/tensor/src/commonality.rs", ""),
            [] as [usize; 0]
        );
    }

    #[test]
    fn a_dead_link_is_caught() {
        let text = "[a](Cargo.toml) [b](no-such-file.md)\n[c](https://example.org) [d](#part) [e](Cargo.toml#part)\n\
                    ```\n[f](no-such-file.md)\n```\n[g](xtask/no-such-folder/)\n";
        assert_eq!(broken(link, "README.md", text), [1, 6]);
    }

    #[test]
    fn an_incomplete_manifest_is_caught() {
        let package = |license: Option<&str>, publish: Option<Vec<String>>| process::Package {
            name: "sample".into(),
            version: "0.1.0".into(),
            license: license.map(str::to_owned),
            description: Some("a sample".into()),
            readme: None,
            manifest_path: "Cargo.toml".into(),
            publish,
        };
        assert_eq!(
            manifest(&package(Some("MIT OR Apache-2.0"), Some(Vec::new()))),
            [] as [&str; 0]
        );
        assert_eq!(manifest(&package(Some("MIT OR Apache-2.0"), None)).len(), 1);
        assert_eq!(manifest(&package(None, Some(Vec::new()))).len(), 1);
        assert_eq!(manifest(&package(Some("GPL-3.0"), None)).len(), 2);
    }

    #[test]
    fn packages_are_counted_once() {
        assert_eq!(
            packages_in(
                "a v1.0.0\nb v1.0.0 (proc-macro)\nb v1.0.0 (proc-macro) (*)\na v2.0.0 (path)\n\n"
            ),
            3
        );
    }

    #[test]
    fn only_code_is_counted() {
        let files = [
            file(
                "crates/kivi/src/a.rs",
                "//! Docs.\n\nfn f() {\n    // Why.\n}\n",
            ),
            file("crates/kivi/src/b.rs", "fn g() {}\n"),
            file("xtask/src/main.rs", "fn main() {}\n"),
            file("README.md", "text\n"),
        ];
        let counts: Vec<(String, usize)> = lines(&files).into_iter().collect();
        assert_eq!(
            counts,
            [("crates/kivi".to_owned(), 3), ("xtask".to_owned(), 1)]
        );
    }
}
