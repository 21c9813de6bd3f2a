//! Mutants of a kernel: its text with one change that its tests must notice.
//!
//! A mutant of the first kind takes away something that keeps a kernel within the rules of the machine, and the virtual machine must
//! fault. One of the second kind computes something else, and a comparison must fail. Operators work on lines: a kernel of this
//! repository has at most one instruction a line.

use std::collections::BTreeMap;
use std::fmt;

/// A way to change a kernel.
pub struct Operator {
    /// For reports and for the file of survivors.
    pub name: &'static str,
    /// Whether its mutants must fault; the others must differ in what they compute.
    pub faults: bool,
    /// Texts to put in place of an instruction, each a mutant.
    apply: fn(&Source<'_>, &Instruction<'_>) -> Vec<String>,
}

const fn faults(
    name: &'static str,
    apply: fn(&Source<'_>, &Instruction<'_>) -> Vec<String>,
) -> Operator {
    Operator {
        name,
        faults: true,
        apply,
    }
}

const fn differs(
    name: &'static str,
    apply: fn(&Source<'_>, &Instruction<'_>) -> Vec<String>,
) -> Operator {
    Operator {
        name,
        faults: false,
        apply,
    }
}

/// The operators on instructions.
static OPERATORS: [Operator; 26] = [
    faults("barrier deleted", barrier_deleted),
    faults("commit deleted", commit_deleted),
    faults("wait deleted", wait_deleted),
    faults("wait later", wait_later),
    faults("fence deleted", fence_deleted),
    faults("initialising store deleted", store_deleted),
    faults("offset beyond the array", beyond_array),
    faults("vector offset + 1 element", misaligned_vector),
    faults("tail predicate removed", tail_removed),
    faults("shfl mask narrowed", mask_narrowed),
    faults("under a divergent branch", divergent),
    faults("only write removed", write_removed),
    faults("atomic as load and store", plain_atomic),
    faults("buffer swapped", buffer_swapped),
    differs("lt to le", inclusive),
    differs("shift by one more or less", shifted),
    differs("lop3 bit", truth_table),
    differs("prmt nibble", nibble),
    differs("rn to rz", to_zero),
    differs("rni to rzi", integer_to_zero),
    differs("fma to mul and add", unfused),
    differs("trans", transposed),
    differs("A and B registers", fragments_swapped),
    differs("one ulp of a constant", ulp),
    differs("bfly distance", distance),
    differs("predicate negated", negated),
];

/// Works on the head of an entry and not on an instruction.
static PARAMETERS_SWAPPED: Operator = faults("parameters swapped", |_, _| Vec::new());

/// A kernel with one change.
#[derive(Clone)]
pub struct Mutant {
    /// The line that is changed, from 1.
    pub line: usize,
    /// How.
    pub operator: &'static Operator,
    /// The instruction before.
    pub before: String,
    /// The instruction after; empty where it is deleted.
    pub after: String,
    /// Whole lines by their index.
    edits: Vec<(usize, String)>,
}

impl Mutant {
    /// The mutant of `text`, the kernel that it was made from. Lines keep their numbers.
    pub fn text(&self, text: &str) -> String {
        let mut lines: Vec<&str> = text.lines().collect();
        for (at, edit) in &self.edits {
            lines[*at] = edit;
        }
        lines.join("\n") + "\n"
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.operator.name;
        write!(f, "{}: {name}: `{}`", self.line, self.before)?;
        if self.after.is_empty() {
            return f.write_str(" deleted");
        }
        write!(f, " became `{}`", self.after)
    }
}

/// Every operator.
pub fn operators() -> impl Iterator<Item = &'static Operator> {
    OPERATORS.iter().chain([&PARAMETERS_SWAPPED])
}

/// Every mutant of a kernel's text, in the order of its lines.
pub fn mutants(text: &str) -> Vec<Mutant> {
    let source = Source::new(text);
    let mut found = source.parameters_swapped();
    for instruction in &source.instructions {
        for operator in &OPERATORS {
            for after in (operator.apply)(&source, instruction) {
                found.push(source.mutant(instruction, operator, after));
            }
        }
    }
    found
}

/// A line with an instruction.
struct Instruction<'a> {
    /// The line's index.
    at: usize,
    /// `@p`, `@!p`, or empty.
    guard: &'a str,
    opcode: &'a str,
    operands: Vec<&'a str>,
    /// The line without comment and semicolon.
    whole: &'a str,
}

impl Instruction<'_> {
    /// The opcode before its first dot.
    fn name(&self) -> &str {
        self.opcode.split('.').next().unwrap_or("")
    }

    fn has(&self, modifier: &str) -> bool {
        self.opcode.split('.').skip(1).any(|part| part == modifier)
    }

    /// The last modifier that is a type.
    fn kind(&self) -> &str {
        self.opcode.rsplit('.').next().unwrap_or("")
    }

    /// The register of the guard.
    fn predicate(&self) -> &str {
        self.guard.trim_start_matches(['@', '!'])
    }

    fn shown(&self, guard: &str, opcode: &str, operands: &[impl AsRef<str>]) -> String {
        let operands: Vec<&str> = operands.iter().map(AsRef::as_ref).collect();
        format!("{guard} {opcode} {};", operands.join(", "))
            .trim_start()
            .replace(" ;", ";")
    }

    /// The same with another opcode.
    fn with_opcode(&self, opcode: &str) -> String {
        self.shown(self.guard, opcode, &self.operands)
    }

    /// The same with another operand.
    fn with_operand(&self, at: usize, operand: &str) -> String {
        let mut operands = self.operands.clone();
        operands[at] = operand;
        self.shown(self.guard, self.opcode, &operands)
    }

    fn writes_nothing(&self) -> bool {
        let is_reduction = self.has("red") && !self.operands.is_empty();
        match self.name() {
            "bar" | "barrier" => !is_reduction,
            "st" | "red" | "bra" | "ret" | "exit" | "fence" | "membar" | "cp" | "prefetch"
            | "trap" | "nanosleep" => true,
            _ => false,
        }
    }

    /// The registers that it writes; a discarded one is none.
    fn destinations(&self) -> Vec<&str> {
        if self.writes_nothing() || self.operands.is_empty() {
            return Vec::new();
        }
        names(self.operands[0])
            .filter(|name| *name != "_")
            .collect()
    }

    /// The operand with an address, and its space where the opcode names one.
    fn address(&self) -> Option<(usize, &str)> {
        let at = self
            .operands
            .iter()
            .position(|operand| operand.starts_with('['))?;
        let space = ["global", "shared", "local", "param", "const"]
            .into_iter()
            .find(|space| {
                self.opcode
                    .split('.')
                    .any(|part| part.split("::").next() == Some(space))
            });
        Some((at, space.unwrap_or("generic")))
    }

    /// The address `bytes` further on.
    fn moved(&self, at: usize, bytes: u64) -> String {
        let inner = self.operands[at].trim_matches(['[', ']']);
        self.with_operand(at, &offset(inner, bytes))
    }
}

/// `[inner + bytes]` with the two offsets made one.
fn offset(inner: &str, bytes: u64) -> String {
    if let Some((base, present)) = inner.split_once('+')
        && let Some(present) = integer(present.trim())
    {
        return format!("[{}+{}]", base.trim(), present + bytes);
    }
    format!("[{inner}+{bytes}]")
}

/// A kernel's lines, read once.
struct Source<'a> {
    lines: Vec<&'a str>,
    instructions: Vec<Instruction<'a>>,
    /// How many instructions write a register.
    writes: BTreeMap<&'a str, usize>,
    /// Bytes of all shared arrays; an array without a length counts as more than a device has.
    shared_bytes: u64,
    /// The line of the opening brace.
    body: usize,
}

impl<'a> Source<'a> {
    fn new(text: &'a str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let instructions: Vec<Instruction<'_>> = lines
            .iter()
            .enumerate()
            .filter_map(|(at, line)| read(at, line))
            .collect();
        let mut source = Self {
            body: lines
                .iter()
                .position(|line| line.trim() == "{")
                .unwrap_or(0),
            shared_bytes: lines.iter().map(|line| shared_bytes(line)).sum(),
            lines,
            instructions: Vec::new(),
            writes: BTreeMap::new(),
        };
        for instruction in &instructions {
            if !instruction.writes_nothing() && !instruction.operands.is_empty() {
                for name in names(instruction.operands[0]) {
                    *source.writes.entry(name).or_insert(0) += 1;
                }
            }
        }
        source.instructions = instructions;
        source
    }

    fn mutant(
        &self,
        instruction: &Instruction<'_>,
        operator: &'static Operator,
        after: String,
    ) -> Mutant {
        let mut edits = vec![(instruction.at, after.clone())];
        let declarations: String = TEMPORARIES
            .iter()
            .filter(|(name, _)| after.contains(name))
            .map(|(name, kind)| format!(" .reg .{kind} {name};"))
            .collect();
        if !declarations.is_empty() {
            edits.push((self.body, format!("{{{declarations}")));
        }
        Mutant {
            line: instruction.at + 1,
            operator,
            before: format!("{};", instruction.whole),
            after,
            edits,
        }
    }

    /// Every pair of parameters of different types, swapped.
    fn parameters_swapped(&self) -> Vec<Mutant> {
        let parameters: Vec<(usize, &str, &str)> = self
            .lines
            .iter()
            .enumerate()
            .filter_map(|(at, line)| {
                let declared = line.split("//").next()?.trim().strip_prefix(".param ")?;
                let (kind, name) = declared.trim_end_matches(',').trim().split_once(' ')?;
                Some((at, kind, name))
            })
            .collect();
        let mut found = Vec::new();
        for (i, (at, kind, name)) in parameters.iter().enumerate() {
            for (other_at, other_kind, other_name) in &parameters[i + 1..] {
                if kind == other_kind {
                    continue;
                }
                let comma = if self.lines[*other_at].contains(',') {
                    ","
                } else {
                    ""
                };
                found.push(Mutant {
                    line: at + 1,
                    operator: &PARAMETERS_SWAPPED,
                    before: format!("{kind} {name}"),
                    after: format!("{other_kind} {other_name}"),
                    edits: vec![
                        (*at, format!(".param {other_kind} {other_name},")),
                        (*other_at, format!(".param {kind} {name}{comma}")),
                    ],
                });
            }
        }
        found
    }

    fn is_earlier(
        &self,
        instruction: &Instruction<'_>,
        is: impl Fn(&Instruction<'_>) -> bool,
    ) -> bool {
        self.instructions
            .iter()
            .take_while(|earlier| earlier.at < instruction.at)
            .any(is)
    }

    /// Whether a branch goes down to a line further on.
    fn is_forward(&self, instruction: &Instruction<'_>) -> bool {
        let Some(label) = instruction.operands.first() else {
            return matches!(instruction.name(), "ret" | "exit");
        };
        let label = format!("{label}:");
        let at = self.lines.iter().position(|line| line.trim() == label);
        instruction.name() == "bra" && at.is_some_and(|at| at > instruction.at)
    }
}

/// Registers that a mutant may need.
const TEMPORARIES: [(&str, &str); 5] = [
    ("mutant_lane", "b32"),
    ("mutant_upper", "pred"),
    ("mutant_16", "b16"),
    ("mutant_32", "b32"),
    ("mutant_64", "b64"),
];

/// A name of [`TEMPORARIES`] for a value of the type.
fn temporary(kind: &str) -> &'static str {
    match kind {
        "f64" | "b64" | "u64" | "s64" => "mutant_64",
        "f16" | "bf16" | "b16" | "u16" | "s16" => "mutant_16",
        _ => "mutant_32",
    }
}

fn read(at: usize, line: &str) -> Option<Instruction<'_>> {
    let code = line.split("//").next()?.trim();
    let whole = code.strip_suffix(';')?.trim();
    if whole.starts_with(['.', '{', '}']) || whole.contains(';') {
        return None;
    }
    let (guard, rest) = match whole.split_once(' ') {
        Some((guard, rest)) if guard.starts_with('@') => (guard, rest.trim()),
        _ => ("", whole),
    };
    let (opcode, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some(Instruction {
        at,
        guard,
        opcode,
        operands: split(operands),
        whole,
    })
}

/// Operands at the commas outside of braces and brackets.
fn split(operands: &str) -> Vec<&str> {
    let mut depth = 0;
    operands
        .split(|c: char| {
            match c {
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|operand| !operand.is_empty())
        .collect()
}

/// The names in an operand.
fn names(operand: &str) -> impl Iterator<Item = &str> {
    operand
        .split(|c: char| !(c.is_ascii_alphanumeric() || "_$%".contains(c)))
        .filter(|word| word.starts_with(|c: char| !c.is_ascii_digit()))
}

/// The bytes of the shared array that a line declares.
fn shared_bytes(line: &str) -> u64 {
    let code = line.split("//").next().unwrap_or("").trim();
    let is_shared = code.starts_with(".shared") || code.starts_with(".extern .shared");
    let Some((head, rest)) = code.split_once('[').filter(|_| is_shared) else {
        return 0;
    };
    let bytes = ["8", "16", "32", "64"]
        .into_iter()
        .find(|bits| {
            head.split(['.', ' ']).any(|word| {
                word.len() > 1 && &word[1..] == *bits && !word.starts_with(char::is_numeric)
            })
        })
        .map_or(1, |bits| bits.parse::<u64>().unwrap_or(8) / 8);
    match rest.split(']').next().unwrap_or("").trim() {
        "" => 1 << 18,
        count => count.parse::<u64>().unwrap_or(0) * bytes,
    }
}

fn integer(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn deleted(is: bool) -> Vec<String> {
    if is { vec![String::new()] } else { Vec::new() }
}

fn is_barrier(at: &Instruction<'_>) -> bool {
    matches!(at.name(), "bar" | "barrier")
}

fn barrier_deleted(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    deleted(is_barrier(at))
}

fn commit_deleted(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    deleted(at.opcode == "cp.async.commit_group")
}

fn wait_deleted(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    deleted(at.opcode.starts_with("cp.async.wait"))
}

/// One group more may still be on its way.
fn wait_later(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    if at.opcode != "cp.async.wait_group" {
        return Vec::new();
    }
    let groups = at.operands.first().and_then(|groups| integer(groups));
    groups
        .map(|groups| at.with_operand(0, &(groups + 1).to_string()))
        .into_iter()
        .collect()
}

fn fence_deleted(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    deleted(matches!(at.name(), "fence" | "membar"))
}

/// A store to shared memory is initialising where no earlier one in the text has its address.
fn store_deleted(source: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let is_store = |at: &Instruction<'_>| at.name() == "st" && at.has("shared");
    let is_same =
        |earlier: &Instruction<'_>| is_store(earlier) && earlier.operands[0] == at.operands[0];
    deleted(is_store(at) && !source.is_earlier(at, is_same))
}

/// Shared memory beyond all arrays of the kernel; global memory a gibibyte further.
fn beyond_array(source: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let is_access = matches!(at.name(), "ld" | "st" | "atom" | "red" | "ldmatrix");
    match at.address().filter(|_| is_access) {
        Some((operand, "shared")) => vec![at.moved(operand, source.shared_bytes)],
        Some((operand, "global" | "generic")) => vec![at.moved(operand, 1 << 30)],
        _ => Vec::new(),
    }
}

fn misaligned_vector(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let is_vector = matches!(at.name(), "ld" | "st") && (at.has("v2") || at.has("v4"));
    let bits = at.kind().trim_start_matches(char::is_alphabetic);
    let bytes = bits.parse::<u64>().unwrap_or(32) / 8;
    match at.address().filter(|_| is_vector) {
        Some((operand, _)) => vec![at.moved(operand, bytes)],
        None => Vec::new(),
    }
}

/// A tail predicate comes from an order of two integers, and keeps an access to global memory or a way ahead.
fn tail_removed(source: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let predicate = at.predicate();
    let is_order = |setp: &Instruction<'_>| {
        setp.name() == "setp"
            && setp.destinations().contains(&predicate)
            && !setp.kind().starts_with('f')
            && ORDERS.iter().any(|(order, _)| setp.has(order))
    };
    if predicate.is_empty() || !source.instructions.iter().any(is_order) {
        return Vec::new();
    }
    if source.is_forward(at) {
        return deleted(true);
    }
    let is_access = at.address().is_some_and(|(_, space)| space == "global");
    if is_access {
        return vec![at.shown("", at.opcode, &at.operands)];
    }
    Vec::new()
}

fn mask_narrowed(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let last = at.operands.len().saturating_sub(1);
    let is_full = at.name() == "shfl"
        && matches!(
            at.operands.get(last).copied(),
            Some("0xffffffff" | "0xFFFFFFFF" | "-1")
        );
    if is_full {
        vec![at.with_operand(last, "0x7fffffff")]
    } else {
        Vec::new()
    }
}

/// Only lanes 0 to 15 come by.
fn divergent(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    if !(is_barrier(at) || at.name() == "shfl") {
        return Vec::new();
    }
    let whole = at.whole;
    vec![format!(
        "mov.u32 mutant_lane, %laneid; setp.gt.u32 mutant_upper, mutant_lane, 15; @mutant_upper bra mutant_skip; {whole}; mutant_skip:"
    )]
}

fn write_removed(source: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let destinations = at.destinations();
    let is_only = |name: &&str| source.writes.get(name) == Some(&1);
    deleted(!destinations.is_empty() && at.name() != "atom" && destinations.iter().all(is_only))
}

fn plain_atomic(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let (address, destination) = match at.name() {
        "atom" => (1, Some(at.operands[0])),
        "red" => (0, None),
        _ => return Vec::new(),
    };
    let operation = ["add", "min", "max", "and", "or", "xor"]
        .into_iter()
        .find(|operation| at.has(operation));
    let (Some(operation), Some((_, space))) = (operation, at.address()) else {
        return Vec::new();
    };
    let (kind, space) = (at.kind(), if space == "generic" { "" } else { space });
    let space = if space.is_empty() {
        String::new()
    } else {
        format!(".{space}")
    };
    let rounding = if operation == "add" && kind.starts_with('f') {
        ".rn"
    } else {
        ""
    };
    let (memory, operand) = (at.operands[address], at.operands[address + 1]);
    let sum = temporary(kind);
    let old = destination.filter(|name| *name != "_").unwrap_or(sum);
    let guard = at.guard;
    vec![
        format!(
            "{guard} ld{space}.{kind} {old}, {memory}; {guard} {operation}{rounding}.{kind} {sum}, {old}, {operand}; \
             {guard} st{space}.{kind} {memory}, {sum};"
        )
        .trim_start()
        .replace("  ", " "),
    ]
}

/// Registers that hold the places of two buffers.
const BUFFERS: [(&str, &str); 2] = [("buffer", "other"), ("read", "write")];

fn buffer_swapped(source: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let mut swapped = Vec::new();
    if at.name() == "mov" || at.writes_nothing() {
        return swapped;
    }
    for (one, two) in BUFFERS {
        if !(source.writes.contains_key(one) && source.writes.contains_key(two)) {
            continue;
        }
        for (operand, name) in at.operands.iter().enumerate().skip(1) {
            let other = match *name {
                name if name == one => two,
                name if name == two => one,
                _ => continue,
            };
            if at.operands[0] != one && at.operands[0] != two {
                swapped.push(at.with_operand(operand, other));
            }
        }
    }
    swapped
}

/// An order, and the one that differs where both sides are equal.
const ORDERS: [(&str, &str); 12] = [
    ("lt", "le"),
    ("le", "lt"),
    ("gt", "ge"),
    ("ge", "gt"),
    ("lo", "ls"),
    ("ls", "lo"),
    ("hi", "hs"),
    ("hs", "hi"),
    ("ltu", "leu"),
    ("leu", "ltu"),
    ("gtu", "geu"),
    ("geu", "gtu"),
];

fn inclusive(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let parts: Vec<&str> = at.opcode.split('.').collect();
    let order = parts.get(1).copied().unwrap_or("");
    ORDERS
        .iter()
        .filter(|(from, _)| matches!(at.name(), "setp" | "set") && *from == order)
        .map(|(from, to)| {
            at.with_opcode(
                &at.opcode
                    .replacen(&format!(".{from}"), &format!(".{to}"), 1),
            )
        })
        .collect()
}

fn shifted(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let count = at.operands.get(2).and_then(|count| integer(count));
    let Some(count) = count.filter(|_| matches!(at.name(), "shl" | "shr")) else {
        return Vec::new();
    };
    [count.checked_sub(1), Some(count + 1)]
        .into_iter()
        .flatten()
        .map(|count| at.with_operand(2, &count.to_string()))
        .collect()
}

fn truth_table(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let table = at.operands.get(4).and_then(|table| integer(table));
    let Some(table) = table.filter(|_| at.name() == "lop3") else {
        return Vec::new();
    };
    (0..8)
        .map(|bit| at.with_operand(4, &format!("0x{:02x}", table ^ 1 << bit)))
        .collect()
}

fn nibble(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let selector = at.operands.get(3).and_then(|selector| integer(selector));
    let Some(selector) = selector.filter(|_| at.name() == "prmt") else {
        return Vec::new();
    };
    (0..4)
        .map(|at| 4 * at)
        .map(|shift| {
            let byte = (((selector >> shift) & 7) + 1) & 7;
            let selector = selector & !(7 << shift) | byte << shift;
            at.with_operand(3, &format!("0x{selector:04x}"))
        })
        .collect()
}

fn to_zero(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    if at.has("rn") {
        vec![at.with_opcode(&at.opcode.replacen(".rn", ".rz", 1))]
    } else {
        Vec::new()
    }
}

fn integer_to_zero(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    if at.has("rni") {
        vec![at.with_opcode(&at.opcode.replacen(".rni", ".rzi", 1))]
    } else {
        Vec::new()
    }
}

fn unfused(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let &[to, a, b, c] = at.operands.as_slice() else {
        return Vec::new();
    };
    if at.name() != "fma" {
        return Vec::new();
    }
    let product = temporary(at.kind());
    let (mul, add) = (
        at.opcode.replacen("fma", "mul", 1),
        at.opcode.replacen("fma", "add", 1),
    );
    vec![format!(
        "{} {}",
        at.shown(at.guard, &mul, &[product, a, b]),
        at.shown(at.guard, &add, &[to, product, c])
    )]
}

fn transposed(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    if at.name() != "ldmatrix" {
        return Vec::new();
    }
    let opcode = if at.has("trans") {
        at.opcode.replacen(".trans", "", 1)
    } else {
        at.opcode.replacen(".shared", ".trans.shared", 1)
    };
    vec![at.with_opcode(&opcode)]
}

/// The first registers of A and all of B change places.
fn fragments_swapped(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let &[to, a, b, c] = at.operands.as_slice() else {
        return Vec::new();
    };
    if at.name() != "mma" {
        return Vec::new();
    }
    let (mut a, mut b): (Vec<&str>, Vec<&str>) = (names(a).collect(), names(b).collect());
    for (a, b) in a.iter_mut().zip(&mut b) {
        std::mem::swap(a, b);
    }
    let (a, b) = (
        format!("{{{}}}", a.join(", ")),
        format!("{{{}}}", b.join(", ")),
    );
    vec![at.shown(at.guard, at.opcode, &[to, &a, &b, c])]
}

/// The next number up, and the one below infinity.
fn ulp(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for (operand, text) in at.operands.iter().enumerate() {
        let bits = text
            .strip_prefix("0f")
            .or_else(|| text.strip_prefix("0F"))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if let Some(bits) = bits {
            let is_infinite = f32::from_bits(bits).is_infinite();
            let next = if is_infinite { bits - 1 } else { bits + 1 };
            found.push(at.with_operand(operand, &format!("0f{next:08X}")));
        }
    }
    found
}

fn distance(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let lanes = at.operands.get(2).and_then(|lanes| integer(lanes));
    match lanes.filter(|_| at.name() == "shfl" && at.has("bfly")) {
        Some(1) => vec![at.with_operand(2, "2")],
        Some(lanes) => vec![at.with_operand(2, &(lanes / 2).to_string())],
        None => Vec::new(),
    }
}

fn negated(_: &Source<'_>, at: &Instruction<'_>) -> Vec<String> {
    let guard = match at.guard.strip_prefix("@!") {
        Some(predicate) => format!("@{predicate}"),
        None => at.guard.replacen('@', "@!", 1),
    };
    if guard.is_empty() {
        return Vec::new();
    }
    vec![at.shown(&guard, at.opcode, &at.operands)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "// Sample.
.version 7.0
.target sm_80
.address_size 64
.visible .entry sample(
    .param .u64 x,
    .param .u32 n
)
.maxntid 64
{
    .reg .b32 i, size, word;
    .shared .align 16 .b8 buffers[1024]; // two of them
    .shared .f32 sums[32];
    ld.param.u32  size, [n];
    mov.u32       i, %tid.x;
    setp.ge.u32   done, i, size;
    @done bra     end;
    ld.global.v4.f32 {a, b, c, d}, [at+16];
    st.shared.f32 [sums], a;
    st.shared.f32 [sums], b;
    bar.sync      0;
    cp.async.commit_group;
    cp.async.wait_group 1;
    fence.acq_rel.gpu;
    shfl.sync.bfly.b32 word, i, 16, 31, 0xffffffff;
    shl.b32       word, i, 1;
    lop3.b32      word, i, size, word, 0x96;
    prmt.b32      word, i, size, 0x5410;
    add.rn.f32    a, a, 0f3F800000;
    mov.f32       b, 0fFF800000;
    cvt.rni.s32.f32 word, a;
    fma.rn.f32    a, b, c, a;
    @!done red.global.add.u32 [at], i;
    atom.shared.max.f32 b, [sums+4], a;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {a, b, c, d}, [i];
    mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {s, t}, {a, b, c, d}, {e, f}, {s, t};
    add.u32       word, buffer, size;
    mov.u32       buffer, 0;
    mov.u32       other, 0;
end:
    ret;
}
";

    /// What the operator makes of the only line that begins so.
    fn made(operator: &str, line: &str) -> Vec<String> {
        mutants(KERNEL)
            .into_iter()
            .filter(|mutant| mutant.operator.name == operator && mutant.before.starts_with(line))
            .map(|mutant| mutant.after)
            .collect()
    }

    #[test]
    fn each_operator_makes_what_its_name_says() {
        let divergent = "mov.u32 mutant_lane, %laneid; setp.gt.u32 mutant_upper, mutant_lane, 15; @mutant_upper bra mutant_skip; \
                         bar.sync      0; mutant_skip:";
        let cases: [(&str, &str, &[&str]); 35] = [
            ("barrier deleted", "bar.sync", &[""]),
            ("commit deleted", "cp.async.commit", &[""]),
            ("wait deleted", "cp.async.wait", &[""]),
            ("wait later", "cp.async.wait", &["cp.async.wait_group 2;"]),
            ("fence deleted", "fence", &[""]),
            (
                "initialising store deleted",
                "st.shared.f32 [sums], a",
                &[""],
            ),
            ("initialising store deleted", "st.shared.f32 [sums], b", &[]),
            (
                "offset beyond the array",
                "st.shared.f32 [sums], a",
                &["st.shared.f32 [sums+1152], a;"],
            ),
            (
                "offset beyond the array",
                "atom",
                &["atom.shared.max.f32 b, [sums+1156], a;"],
            ),
            (
                "offset beyond the array",
                "ld.global",
                &["ld.global.v4.f32 {a, b, c, d}, [at+1073741840];"],
            ),
            ("offset beyond the array", "ld.param", &[]),
            (
                "vector offset + 1 element",
                "ld.global",
                &["ld.global.v4.f32 {a, b, c, d}, [at+20];"],
            ),
            ("tail predicate removed", "@done bra", &[""]),
            (
                "tail predicate removed",
                "@!done red",
                &["red.global.add.u32 [at], i;"],
            ),
            (
                "shfl mask narrowed",
                "shfl",
                &["shfl.sync.bfly.b32 word, i, 16, 31, 0x7fffffff;"],
            ),
            ("under a divergent branch", "bar.sync", &[divergent]),
            ("only write removed", "mov.u32       i", &[""]),
            ("only write removed", "shl", &[]),
            ("only write removed", "atom", &[]),
            (
                "atomic as load and store",
                "@!done red",
                &[
                    "@!done ld.global.u32 mutant_32, [at]; @!done add.u32 mutant_32, mutant_32, i; @!done st.global.u32 [at], mutant_32;",
                ],
            ),
            (
                "atomic as load and store",
                "atom",
                &[
                    "ld.shared.f32 b, [sums+4]; max.f32 mutant_32, b, a; st.shared.f32 [sums+4], mutant_32;",
                ],
            ),
            ("buffer swapped", "add.u32", &["add.u32 word, other, size;"]),
            ("parameters swapped", ".u64 x", &[".u32 n"]),
            ("lt to le", "setp", &["setp.gt.u32 done, i, size;"]),
            (
                "shift by one more or less",
                "shl",
                &["shl.b32 word, i, 0;", "shl.b32 word, i, 2;"],
            ),
            ("rn to rz", "add.rn", &["add.rz.f32 a, a, 0f3F800000;"]),
            ("rni to rzi", "cvt", &["cvt.rzi.s32.f32 word, a;"]),
            (
                "fma to mul and add",
                "fma",
                &["mul.rn.f32 mutant_32, b, c; add.rn.f32 a, mutant_32, a;"],
            ),
            (
                "trans",
                "ldmatrix",
                &["ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {a, b, c, d}, [i];"],
            ),
            (
                "A and B registers",
                "mma",
                &[
                    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {s, t}, {e, f, c, d}, {a, b}, {s, t};",
                ],
            ),
            (
                "one ulp of a constant",
                "add.rn",
                &["add.rn.f32 a, a, 0f3F800001;"],
            ),
            (
                "one ulp of a constant",
                "mov.f32",
                &["mov.f32 b, 0fFF7FFFFF;"],
            ),
            (
                "bfly distance",
                "shfl",
                &["shfl.sync.bfly.b32 word, i, 8, 31, 0xffffffff;"],
            ),
            (
                "predicate negated",
                "@!done red",
                &["@done red.global.add.u32 [at], i;"],
            ),
            ("predicate negated", "@done bra", &["@!done bra end;"]),
        ];
        for (operator, line, after) in cases {
            assert_eq!(made(operator, line), after, "{operator}: {line}");
        }
        assert_eq!(made("lop3 bit", "lop3").len(), 8);
        assert_eq!(
            made("lop3 bit", "lop3")[7],
            "lop3.b32 word, i, size, word, 0x16;"
        );
        let nibbles = made("prmt nibble", "prmt");
        assert_eq!(nibbles.len(), 4);
        assert_eq!(nibbles[3], "prmt.b32 word, i, size, 0x6410;");
        for operator in operators() {
            let any = mutants(KERNEL)
                .iter()
                .any(|mutant| mutant.operator.name == operator.name);
            assert!(any, "{} makes nothing of the sample", operator.name);
        }
    }

    #[test]
    fn a_mutant_differs_in_its_lines_and_declares_what_it_needs() {
        for mutant in mutants(KERNEL) {
            let text = mutant.text(KERNEL);
            let lines: Vec<(&str, &str)> = KERNEL.lines().zip(text.lines()).collect();
            assert_eq!(lines.len(), text.lines().count());
            assert_ne!(
                lines[mutant.line - 1].0,
                lines[mutant.line - 1].1,
                "{mutant}"
            );
            let others = lines
                .iter()
                .enumerate()
                .filter(|(at, (a, b))| at + 1 != mutant.line && a != b);
            assert!(others.count() <= 1, "{mutant}");
            for (name, kind) in TEMPORARIES {
                let declaration = format!(".reg .{kind} {name};");
                assert_eq!(
                    mutant.after.contains(name),
                    text.contains(&declaration),
                    "{mutant}"
                );
            }
        }
    }
}
