//! PTX text as statements with their lines: as much of the grammar as lints need.

/// A directive, a label or an instruction, without comments and the closing semicolon, runs of blanks made one.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// The line of its first character, from 1.
    pub line: usize,
    /// What it says. A label keeps its colon; the head of an entry reaches to the opening brace.
    pub text: String,
}

impl Statement {
    /// Whether this is an instruction.
    pub fn is_instruction(&self) -> bool {
        !self.text.starts_with('.') && !self.text.ends_with(':')
    }

    /// The guard `@p` or `@!p`, where there is one.
    pub fn guard(&self) -> Option<&str> {
        self.text
            .starts_with('@')
            .then(|| self.text.split(' ').next())?
    }

    /// The instruction's name with its modifiers: `add.rn.f32`.
    pub fn opcode(&self) -> &str {
        self.after_guard().split(' ').next().unwrap_or("")
    }

    /// What follows the opcode.
    pub fn operands(&self) -> &str {
        self.after_guard()
            .split_once(' ')
            .map_or("", |(_, operands)| operands)
    }

    fn after_guard(&self) -> &str {
        match self.text.split_once(' ') {
            Some((guard, rest)) if guard.starts_with('@') => rest,
            _ => &self.text,
        }
    }
}

/// The words of a text that can be names: letters, digits, `_`, `$`, `%`.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "_$%".contains(c)))
        .filter(|word| !word.is_empty())
}

/// The statements of a PTX text.
pub fn statements(text: &str) -> Vec<Statement> {
    let mut reader = Reader::default();
    let plain = without_comments(text);
    let mut characters = plain.chars().peekable();
    let mut line = 1;
    while let Some(c) = characters.next() {
        match c {
            '\n' => {
                if reader.is_header_directive() {
                    reader.close();
                } else {
                    reader.push(' ', line);
                }
                line += 1;
            }
            ';' => reader.close(),
            '{' if reader.opens_a_scope() => reader.close(),
            '}' if reader.text.trim().is_empty() => reader.text.clear(),
            ':' if reader.is_name() && characters.peek() != Some(&':') => {
                reader.push(':', line);
                reader.close();
            }
            c => reader.push(c, line),
        }
    }
    reader.close();
    reader.statements
}

/// The text with every comment replaced by blanks, so that lines and columns stay.
pub fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("//").into_iter().chain(rest.find("/*")).min() {
        plain.push_str(&rest[..at]);
        let comment = &rest[at..];
        let end = if comment.starts_with("//") {
            comment.find('\n').unwrap_or(comment.len())
        } else {
            comment.find("*/").map_or(comment.len(), |end| end + 2)
        };
        plain.extend(
            comment[..end]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' }),
        );
        rest = &comment[end..];
    }
    plain + rest
}

#[derive(Default)]
struct Reader {
    statements: Vec<Statement>,
    text: String,
    line: usize,
}

impl Reader {
    fn push(&mut self, c: char, line: usize) {
        if self.text.is_empty() {
            if c.is_whitespace() {
                return;
            }
            self.line = line;
        }
        self.text.push(c);
    }

    fn close(&mut self) {
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.text.clear();
        if !text.is_empty() {
            self.statements.push(Statement {
                line: self.line,
                text,
            });
        }
    }

    /// These three end with their line, not with a semicolon.
    fn is_header_directive(&self) -> bool {
        [".version", ".target", ".address_size"]
            .iter()
            .any(|name| self.text.starts_with(name))
    }

    fn opens_a_scope(&self) -> bool {
        self.text.is_empty() || self.text.contains(".entry") || self.text.contains(".func")
    }

    fn is_name(&self) -> bool {
        !self.text.is_empty()
            && self
                .text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_$%".contains(c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_keep_their_lines() {
        let text = "// Head.\n.version 7.0\n.target sm_70\n.visible .entry f(\n  .param .u64 x\n)\n.maxntid 32\n{\n  \
                    .reg .pred p; /* two\n lines */ ld.shared::cta.v2.f32 {a,\n b}, [x];\nloop:\n  @!p bra  loop; { ret; }\n}\n";
        let found: Vec<(usize, String)> = statements(text)
            .into_iter()
            .map(|statement| (statement.line, statement.text))
            .collect();
        let expected = [
            (2, ".version 7.0"),
            (3, ".target sm_70"),
            (4, ".visible .entry f( .param .u64 x ) .maxntid 32"),
            (9, ".reg .pred p"),
            (10, "ld.shared::cta.v2.f32 {a, b}, [x]"),
            (12, "loop:"),
            (13, "@!p bra loop"),
            (13, "ret"),
        ];
        assert_eq!(
            found,
            expected.map(|(line, text)| (line, text.to_owned())),
            "{found:#?}"
        );
    }

    #[test]
    fn an_instruction_has_guard_opcode_and_operands() {
        let of = |text: &str| Statement {
            line: 1,
            text: text.to_owned(),
        };
        let guarded = of("@!p add.rn.f32 a, b, c");
        assert_eq!(guarded.guard(), Some("@!p"));
        assert_eq!(guarded.opcode(), "add.rn.f32");
        assert_eq!(guarded.operands(), "a, b, c");
        assert!(guarded.is_instruction());
        let plain = of("ret");
        assert_eq!(
            (plain.guard(), plain.opcode(), plain.operands()),
            (None, "ret", "")
        );
        assert!(!of("loop:").is_instruction() && !of(".reg .pred p").is_instruction());
        assert_eq!(
            words("[%x+4], {a_1, b}").collect::<Vec<_>>(),
            ["%x", "4", "a_1", "b"]
        );
    }
}
