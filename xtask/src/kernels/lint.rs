//! What a kernel's text must be beyond what the assembler asks, each rule with its line.

use std::collections::BTreeMap;

use super::class::Class;
use super::declaration::{self, Declaration};
use super::source::{Statement, statements, without_comments, words};

/// A broken rule: the line, and what was expected and found.
pub type Problem = (usize, String);

/// The parts of a header comment after the text that says what is computed. A part is a line that begins with one of its words;
/// what a block takes of shared memory may stand in any line.
const HEADER: [(&str, &[&str]); 5] = [
    ("grid", &["grid"]),
    ("block", &["block"]),
    ("preconditions", &["needs", "preconditions"]),
    ("floor", &["floor"]),
    ("versions", &["ladder", "versions"]),
];

/// A kernel's text, read once for all rules.
pub struct Kernel<'a> {
    text: &'a str,
    entry: &'a str,
    class: Class,
    statements: Vec<Statement>,
}

impl<'a> Kernel<'a> {
    /// Reads the text of the kernel that its file's name calls `entry`.
    pub fn new(text: &'a str, entry: &'a str, class: Class) -> Self {
        Self {
            text,
            entry,
            class,
            statements: statements(text),
        }
    }

    /// The value of `.target`, empty where there is none.
    pub fn target(&self) -> &str {
        self.directive(".target").map_or("", |(_, value)| value)
    }

    /// Threads of a block, from `.maxntid` or `.reqntid`.
    pub fn threads(&self) -> Option<u32> {
        let head = self.head()?;
        let (_, bound) = [".reqntid", ".maxntid"]
            .iter()
            .find_map(|name| head.text.split_once(name))?;
        let bound = bound.split('.').next().unwrap_or("");
        bound
            .split(',')
            .map(|side| side.trim().parse::<u32>().ok())
            .product()
    }

    /// Every broken rule.
    pub fn problems(&self, declaration: Option<&Declaration>) -> Vec<Problem> {
        let mut problems = Vec::new();
        problems.extend(self.header());
        problems.extend(self.comment());
        problems.extend(self.name_and_signature(declaration));
        problems.extend(self.statements.iter().filter_map(rounding));
        problems.extend(self.statements.iter().filter_map(function));
        problems.extend(self.registers());
        problems.extend(self.lines());
        problems
    }

    fn directive(&self, name: &str) -> Option<(usize, &str)> {
        self.statements.iter().find_map(|statement| {
            let value = statement.text.strip_prefix(name)?.trim();
            Some((statement.line, value))
        })
    }

    fn head(&self) -> Option<&Statement> {
        self.statements
            .iter()
            .find(|statement| statement.text.contains(".entry"))
    }

    fn header(&self) -> Vec<Problem> {
        let wanted = [
            (".version", self.class.versions()),
            (".target", self.class.targets()),
            (".address_size", &["64"]),
        ];
        let mut problems = Vec::new();
        for (name, allowed) in wanted {
            let (line, found) = self.directive(name).unwrap_or((1, "nothing"));
            if !allowed.contains(&found) {
                let expected = allowed.join(" or ");
                let class = self.class;
                problems.push((
                    line,
                    format!(
                        "header: expected {name} {expected} for class {class:?}, found {found}"
                    ),
                ));
            }
        }
        if let Some(head) = self.head()
            && self.threads().is_none_or(|threads| threads == 0)
        {
            let what = "header: expected .maxntid or .reqntid, found neither or no numbers";
            problems.push((head.line, what.to_owned()));
        }
        problems
    }

    /// The comment on top says what is computed, and then each part of [`HEADER`].
    fn comment(&self) -> Vec<Problem> {
        let lines: Vec<String> = self
            .text
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("//") || line.trim().is_empty())
            .map(|line| line.trim_start_matches('/').trim().to_lowercase())
            .filter(|line| !line.is_empty())
            .collect();
        let begins_with = |line: &str, names: &[&str]| {
            let mut words = words(line);
            words.next().is_some_and(|first| names.contains(&first)) && words.next().is_some()
        };
        let is_part = |line: &str| HEADER.iter().any(|(_, names)| begins_with(line, names));
        let mut problems = Vec::new();
        let mut missing = |what: &str| {
            problems.push((1, format!("comment: expected {what}, found none")));
        };
        if lines.first().is_none_or(|line| is_part(line)) {
            missing("what the kernel computes");
        }
        for (part, names) in HEADER {
            if !lines.iter().any(|line| begins_with(line, names)) {
                missing(&format!("a line `// {}: …` for the {part}", names[0]));
            }
        }
        if !lines
            .iter()
            .any(|line| words(line).any(|word| word == "shared"))
        {
            missing("the bytes of shared memory");
        }
        problems
    }

    fn name_and_signature(&self, declaration: Option<&Declaration>) -> Vec<Problem> {
        let entries: Vec<(usize, _)> = self
            .statements
            .iter()
            .filter_map(|statement| Some((statement.line, declaration::entry(statement)?)))
            .collect();
        let [(line, (name, signature))] = entries.as_slice() else {
            return vec![(
                1,
                format!("entry: expected one in a file, found {}", entries.len()),
            )];
        };
        let mut problems = Vec::new();
        if name != self.entry {
            problems.push((
                *line,
                format!(
                    "entry: expected the file's name {}, found {name}",
                    self.entry
                ),
            ));
        }
        match declaration {
            None => problems.push((
                *line,
                format!("entry: no kernels! declaration of \"{}\"", self.entry),
            )),
            Some(declared) if declared.signature != *signature => problems.push((
                *line,
                format!(
                    "signature: expected {} as at {}, found {}",
                    declaration::shown(&declared.signature),
                    declared.place,
                    declaration::shown(signature)
                ),
            )),
            Some(_) => {}
        }
        problems
    }

    /// Mutation, counters and faults name lines, so an instruction has one of its own.
    fn lines(&self) -> Vec<Problem> {
        let plain = without_comments(self.text);
        let numbered = plain.lines().enumerate().map(|(at, line)| (at + 1, line));
        let crowded = numbered
            .clone()
            .filter(|(_, line)| line.matches(';').count() > 1)
            .map(|(at, _)| (at, "line: expected one instruction, found more".to_owned()));
        let starts: Vec<usize> = self
            .statements
            .iter()
            .filter(|statement| statement.is_instruction())
            .map(|statement| statement.line)
            .collect();
        let broken = numbered
            .filter(|(at, line)| starts.contains(at) && !line.contains(';'))
            .map(|(at, _)| {
                (
                    at,
                    "line: expected a whole instruction, found its beginning".to_owned(),
                )
            });
        crowded.chain(broken).collect()
    }

    /// Registers that are not both written and read, and registers with a compiler's names.
    fn registers(&self) -> Vec<Problem> {
        let mut mentions: BTreeMap<&str, usize> = BTreeMap::new();
        for statement in self
            .statements
            .iter()
            .filter(|statement| statement.is_instruction())
        {
            let guard = statement.guard().unwrap_or("");
            for word in words(guard).chain(words(statement.operands())) {
                *mentions.entry(word).or_insert(0) += 1;
            }
        }
        let mut problems = Vec::new();
        for statement in &self.statements {
            let Some(declared) = statement.text.strip_prefix(".reg ") else {
                continue;
            };
            for name in declared_names(declared) {
                match mentions.get(name.as_str()) {
                    None => {
                        problems.push((statement.line, format!("register: {name} is never used")))
                    }
                    Some(1) => problems.push((
                        statement.line,
                        format!(
                            "register: {name} is named once, so it is not both written and read"
                        ),
                    )),
                    Some(_) => {}
                }
                if is_anonymous(&name) {
                    problems.push((
                        statement.line,
                        format!("register: expected a name by role, found {name}"),
                    ));
                }
            }
        }
        problems
    }
}

/// The names in `.f32 sum, part<4>`, ranges written out.
fn declared_names(declared: &str) -> Vec<String> {
    let list = declared
        .split_whitespace()
        .skip_while(|word| word.starts_with('.'))
        .collect::<String>();
    list.split(',')
        .flat_map(|name| {
            let range = name.split_once('<').and_then(|(stem, count)| {
                Some((stem, count.strip_suffix('>')?.parse::<usize>().ok()?))
            });
            match range {
                Some((stem, count)) => (0..count).map(|at| format!("{stem}{at}")).collect(),
                None => vec![name.to_owned()],
            }
        })
        .collect()
}

/// Whether a compiler could have made the name: its prefixes and a number.
fn is_anonymous(name: &str) -> bool {
    let stem = name
        .trim_start_matches('%')
        .trim_end_matches(|c: char| c.is_ascii_digit());
    stem.len() < name.trim_start_matches('%').len()
        && ["r", "rd", "rs", "rh", "f", "fd", "h", "hh", "p"].contains(&stem)
}

/// Without a rounding mode the assembler may fuse a product with a sum, and no bits can be promised.
fn rounding(statement: &Statement) -> Option<Problem> {
    if !statement.is_instruction() {
        return None;
    }
    let opcode = statement.opcode();
    let mut parts = opcode.split('.');
    let fuses = ["add", "sub", "mul"].contains(&parts.next()?);
    let modifiers: Vec<&str> = parts.collect();
    let is_float = ["f16", "f16x2", "bf16", "bf16x2", "f32", "f64"].contains(modifiers.last()?);
    let is_rounded = modifiers
        .iter()
        .any(|part| ["rn", "rz", "rm", "rp"].contains(part));
    (fuses && is_float && !is_rounded).then(|| {
        (
            statement.line,
            format!("rounding: expected .rn, found {opcode}"),
        )
    })
}

/// Kernels are flat: a call hides registers and memory from the budget.
fn function(statement: &Statement) -> Option<Problem> {
    let is_call =
        statement.is_instruction() && statement.opcode().split('.').next() == Some("call");
    let is_function =
        statement.text.starts_with('.') && words(&statement.text).any(|word| word == "func");
    (is_call || is_function).then(|| {
        (
            statement.line,
            format!("function: found `{}`", statement.text),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "// Generated from ptx/a/t.ptx by cargo xtask kernels; do not edit.
// Doubles x.
//
// Grid: ceil(n / 256)
// Block: 256
// Shared: 0
// Preconditions: none
// Floor: 8 n bytes, n FLOPs
// Versions: one
.version 7.0
.target sm_70
.address_size 64

.visible .entry double(
    .param .u64 x,
    .param .u32 n
)
.maxntid 256, 1, 1
{
    .reg .b32 thread, pair<2>;
    .reg .pred outside;
    mov.u32 thread, %tid.x;
    setp.ge.u32 outside, thread, 3;
    @outside ret;
    mov.u32 pair0, thread;
    add.u32 pair1, pair0, pair0;
    add.rn.f32 pair1, pair1, pair1;
    ret;
}
";

    fn problems(text: &str) -> Vec<Problem> {
        let declared = Declaration {
            place: "crates/a/src/a.rs:1".to_owned(),
            signature: vec![
                ("x".to_owned(), "u64".to_owned()),
                ("n".to_owned(), "u32".to_owned()),
            ],
        };
        Kernel::new(text, "double", Class::Plain).problems(Some(&declared))
    }

    #[test]
    fn a_good_kernel_has_no_problems() {
        assert_eq!(problems(GOOD), []);
        let kernel = Kernel::new(GOOD, "double", Class::Plain);
        assert_eq!((kernel.target(), kernel.threads()), ("sm_70", Some(256)));
    }

    #[test]
    fn trap_8_a_version_that_drivers_in_use_refuse_is_a_problem() {
        for newer in ["8.3", "8.8", "9.0"] {
            let text = GOOD.replace(".version 7.0", &format!(".version {newer}"));
            for class in [Class::Plain, Class::Tensor, Class::Hopper] {
                let found = Kernel::new(&text, "double", class).problems(None);
                let refused = |(line, what): &Problem| *line == 10 && what.contains(".version");
                assert!(found.iter().any(refused), "{class:?}: {found:?}");
            }
        }
    }

    #[test]
    fn each_rule_is_broken_at_its_line() {
        let cases = [
            (
                ".version 7.0",
                ".version 8.3",
                10,
                "header: expected .version 7.0",
            ),
            (
                ".target sm_70",
                ".target sm_80",
                11,
                "header: expected .target sm_70",
            ),
            (
                ".address_size 64\n",
                "\n",
                1,
                "header: expected .address_size 64",
            ),
            (
                ".maxntid 256, 1, 1",
                "",
                14,
                "header: expected .maxntid or .reqntid",
            ),
            (
                "// Doubles x.",
                "//",
                1,
                "comment: expected what the kernel computes",
            ),
            (
                "// Floor: 8 n bytes, n FLOPs",
                "// Floor:",
                1,
                "comment: expected a line `// floor: …` for the floor",
            ),
            (
                "// Shared: 0",
                "//",
                1,
                "comment: expected the bytes of shared memory",
            ),
            (
                "entry double(",
                "entry twice(",
                14,
                "entry: expected the file's name double",
            ),
            (
                ".u32 n",
                ".f32 n",
                14,
                "signature: expected (.u64 x, .u32 n) as at crates/a/src/a.rs:1",
            ),
            (
                ".u64 x",
                ".u64 y",
                14,
                "signature: expected (.u64 x, .u32 n) as at",
            ),
            (
                "add.rn.f32",
                "add.f32",
                27,
                "rounding: expected .rn, found add.f32",
            ),
            (
                "add.rn.f32",
                "@outside mul.ftz.f16x2",
                27,
                "rounding: expected .rn, found mul.ftz.f16x2",
            ),
            (
                "add.u32 pair1",
                "call f; add.u32 pair1",
                26,
                "function: found `call f`",
            ),
            (
                ".visible",
                ".func f { ret; }\n.visible",
                14,
                "function: found `.func f`",
            ),
            ("pair<2>", "pair<3>", 20, "register: pair2 is never used"),
            (
                "thread, pair",
                "%r1, thread, pair",
                20,
                "register: expected a name by role, found %r1",
            ),
            (
                "add.u32 pair1, pair0, pair0",
                "mov.u32 pair1, 0",
                20,
                "register: pair0 is named once",
            ),
        ];
        for (from, to, line, what) in cases {
            let found = problems(&GOOD.replacen(from, to, 1));
            assert!(
                found
                    .iter()
                    .any(|(at, problem)| *at == line && problem.starts_with(what)),
                "{to}: {found:?}"
            );
        }
    }

    #[test]
    fn an_undeclared_kernel_and_a_second_entry_are_problems() {
        let kernel = Kernel::new(GOOD, "double", Class::Plain);
        assert!(
            kernel.problems(None)[0]
                .1
                .contains("no kernels! declaration")
        );
        let two = format!("{GOOD}.visible .entry other() {{ ret; }}\n");
        assert!(
            problems(&two)[0]
                .1
                .contains("expected one in a file, found 2")
        );
    }

    #[test]
    fn names_by_role_may_end_in_a_digit() {
        for name in ["a0", "acc12", "row1", "%sum", "x", "b1"] {
            assert!(!is_anonymous(name), "{name}");
        }
        for name in ["%r1", "f12", "%rd3", "p0", "%rs10"] {
            assert!(is_anonymous(name), "{name}");
        }
    }
}
