//! Typed forms of PTX instructions: a kernel of one instruction for each, and operands on which a wrong one shows.

use whittle_tensor::kernel::{ArgKind, Kernel, Parameter};

/// Threads of a block. Forms of a whole warp and of shared memory need full blocks, so there is no tail.
pub const BLOCK: u32 = 128;
/// Threads of a launch: as many sets of operands.
pub const THREADS: u32 = 4096;

const TABLE: &str = include_str!("forms.txt");

/// One instruction with the types of its operands.
#[derive(Clone, Debug)]
pub struct Form {
    /// The instruction as the table has it.
    pub name: String,
    /// The compute capability that it needs, as in `sm_80`.
    pub target: u32,
    /// Not promised to the bit.
    pub reported: bool,
    version: String,
    results: Vec<Operand>,
    operands: Vec<Operand>,
}

/// What stands at one place of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Operand {
    Register(Type),
    Vector(Vec<Type>),
    /// The address of an operand of that type in memory.
    Address(Type),
    Immediate(String),
}

/// A type of the table. Two with one register differ in their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Type {
    name: &'static str,
    register: Register,
    values: Values,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    B16,
    B32,
    B64,
    F32,
    F64,
    Predicate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    Bits(u32),
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    F32,
    F64,
    /// Integers of that width which are neither 0 nor -1.
    Divisor(u32),
    Truth,
}

impl Type {
    fn named(name: &str) -> Result<Self, String> {
        let known = TYPES.iter().find(|(known, ..)| *known == name);
        known
            .map(|&(name, register, values)| Self {
                name,
                register,
                values,
            })
            .ok_or_else(|| format!("forms.txt: expected a type, found `{name}`"))
    }
}

const TYPES: [(&str, Register, Values); 26] = [
    ("f32", Register::F32, Values::F32),
    ("tf32", Register::B32, Values::F32),
    ("f64", Register::F64, Values::F64),
    ("f16", Register::B16, Values::F16),
    ("bf16", Register::B16, Values::Bf16),
    ("f16x2", Register::B32, Values::F16x2),
    ("bf16x2", Register::B32, Values::Bf16x2),
    ("b16", Register::B16, Values::Bits(16)),
    ("u16", Register::B16, Values::Bits(16)),
    ("s16", Register::B16, Values::Bits(16)),
    ("b32", Register::B32, Values::Bits(32)),
    ("u32", Register::B32, Values::Bits(32)),
    ("s32", Register::B32, Values::Bits(32)),
    ("s8x4", Register::B32, Values::Bits(32)),
    ("s4x8", Register::B32, Values::Bits(32)),
    ("b64", Register::B64, Values::Bits(64)),
    ("u64", Register::B64, Values::Bits(64)),
    ("s64", Register::B64, Values::Bits(64)),
    ("u32!", Register::B32, Values::Divisor(32)),
    ("s32!", Register::B32, Values::Divisor(32)),
    ("u64!", Register::B64, Values::Divisor(64)),
    ("s64!", Register::B64, Values::Divisor(64)),
    ("u8", Register::B16, Values::Bits(8)),
    ("s8", Register::B16, Values::Bits(8)),
    ("pred", Register::Predicate, Values::Truth),
    ("p", Register::Predicate, Values::Truth),
];

impl Register {
    /// Type of the register in its declaration.
    fn declared(self) -> &'static str {
        match self {
            Self::B16 => ".b16",
            Self::B32 => ".b32",
            Self::B64 => ".b64",
            Self::F32 => ".f32",
            Self::F64 => ".f64",
            Self::Predicate => ".pred",
        }
    }
}

/// Every form of the table.
///
/// # Errors
/// The line that can't be read.
pub fn forms() -> Result<Vec<Form>, String> {
    let lines = TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut forms = Vec::new();
    for line in lines {
        for (line, _) in expand(line, Vec::new()) {
            forms.push(Form::read(&line).map_err(|error| format!("{error} in `{line}`"))?);
        }
    }
    Ok(forms)
}

/// The lines that a line with groups stands for, and the choice in each group; `$2` becomes the second choice.
fn expand(line: &str, chosen: Vec<String>) -> Vec<(String, Vec<String>)> {
    let group = line.match_indices('{').find_map(|(open, _)| {
        let close = open + line[open..].find('}')?;
        let inside = &line[open + 1..close];
        (inside.contains(',') && !inside.contains(", ")).then_some((open, close))
    });
    let Some((open, close)) = group else {
        let mut line = line.to_owned();
        for (at, choice) in chosen.iter().enumerate() {
            line = line.replace(&format!("${}", at + 1), choice.trim_start_matches('.'));
        }
        return vec![(line, chosen)];
    };
    line[open + 1..close]
        .split(',')
        .flat_map(|choice| {
            let line = format!("{}{choice}{}", &line[..open], &line[close + 1..]);
            let chosen = chosen.iter().cloned().chain([choice.to_owned()]).collect();
            expand(&line, chosen)
        })
        .collect()
}

impl Form {
    fn read(line: &str) -> Result<Self, String> {
        let columns: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let (header, name, results, operands, mark) = match columns[..] {
            [header, name, results] => (header, name, results, "", ""),
            [header, name, results, operands] => (header, name, results, operands, ""),
            [header, name, results, operands, mark] => (header, name, results, operands, mark),
            _ => return Err(format!("expected 3 to 5 columns, found {}", columns.len())),
        };
        if !["", "reported"].contains(&mark) {
            return Err(format!("expected `reported`, found `{mark}`"));
        }
        let (target, version) = header.split_once(' ').ok_or("expected `sm version`")?;
        Ok(Self {
            name: name.to_owned(),
            target: target
                .parse()
                .map_err(|_| format!("expected a target, found `{target}`"))?,
            reported: mark == "reported",
            version: version.to_owned(),
            results: read_operands(&results.replace('|', " "))?,
            operands: read_operands(operands)?,
        })
    }

    /// Whether a device of `capability` has the instruction.
    pub fn runs_on(&self, capability: (u32, u32)) -> bool {
        capability.0 * 10 + capability.1 >= self.target
    }

    /// 64-bit words that a thread reads: one for each operand.
    pub fn inputs(&self) -> usize {
        types(&self.operands).count()
    }

    /// 64-bit words that a thread writes: one for each result.
    pub fn outputs(&self) -> usize {
        types(&self.results).count()
    }

    /// The kernel's PTX text. Operand `k` of thread `i` is the word `in[k][i]`, of which its low bytes count; results likewise.
    pub fn ptx(&self) -> String {
        let mut body = String::new();
        let mut registers = String::new();
        for (letter, list) in [('a', &self.operands), ('d', &self.results)] {
            for (k, kind) in types(list).enumerate() {
                let declared = kind.register.declared();
                registers += &format!("    .reg {declared} %{letter}{k};\n");
                let base = if letter == 'a' { "in" } else { "out" };
                let address = if letter == 'a' { 'g' } else { 'h' };
                registers += &format!("    .reg .b64 %{address}{k};\n");
                let offset = k * THREADS as usize * 8;
                body += &format!("    add.s64 %{address}{k}, %{base}, {offset};\n");
            }
        }
        for (k, kind) in types(&self.operands).enumerate() {
            body += &match kind.register {
                Register::Predicate => {
                    format!("    ld.global.u32 %word, [%g{k}];\n    setp.ne.u32 %a{k}, %word, 0;\n")
                }
                register => format!("    ld.global{} %a{k}, [%g{k}];\n", register.declared()),
            };
        }
        body += &format!("    {}\n", self.instruction());
        for (k, kind) in types(&self.results).enumerate() {
            body += &match kind.register {
                Register::Predicate => {
                    format!("    selp.b32 %word, 1, 0, %d{k};\n    st.global.b32 [%h{k}], %word;\n")
                }
                register => format!("    st.global{} [%h{k}], %d{k};\n", register.declared()),
            };
        }
        format!(
            ".version {}\n.target sm_{}\n.address_size 64\n\
             .visible .entry form(.param .u64 in, .param .u64 out)\n.maxntid {BLOCK}\n{{\n\
             {registers}    .reg .b64 %in, %out, %offset;\n    .reg .b32 %thread, %word, %s;\n\
             \x20   .shared .align 16 .b8 own[{}];\n\
             \x20   ld.param.u64 %in, [in];\n    ld.param.u64 %out, [out];\n\
             \x20   mov.u32 %word, %tid.x;\n    mov.u32 %s, own;\n    mad.lo.u32 %s, %word, 16, %s;\n\
             \x20   mov.u32 %thread, %ctaid.x;\n    mad.lo.u32 %thread, %thread, {BLOCK}, %word;\n\
             \x20   mul.wide.u32 %offset, %thread, 8;\n\
             \x20   add.s64 %in, %in, %offset;\n    add.s64 %out, %out, %offset;\n\
             {body}    ret;\n}}\n",
            self.version,
            self.target,
            BLOCK * 16,
        )
    }

    /// The kernel. Its text is never given back, as a kernel is a constant.
    pub fn kernel(&self) -> Kernel {
        const PARAMETERS: [Parameter; 2] = [
            Parameter {
                name: "in",
                kind: ArgKind::Ptr,
            },
            Parameter {
                name: "out",
                kind: ArgKind::Ptr,
            },
        ];
        Kernel::new("form", self.ptx().leak(), "form", &PARAMETERS)
    }

    /// The operands of all threads, `[operand][thread]`: special values against each other first, then random ones.
    pub fn operands(&self) -> Vec<u64> {
        let kinds: Vec<Type> = types(&self.operands).collect();
        let threads = THREADS as usize;
        let mut words = vec![0; kinds.len() * threads];
        let mut random = Random::seeded(&self.name);
        for thread in 0..threads {
            // Two operands go through every pair of specials; more than two mix at random.
            let mut pair = thread;
            for (k, kind) in kinds.iter().enumerate() {
                let special = kind.values.special();
                let word = &mut words[k * threads + thread];
                *word = if thread >= threads / 2 {
                    kind.values.random(&mut random)
                } else if k < 2 {
                    let at = pair % special.len();
                    pair /= special.len();
                    special[at]
                } else {
                    special[random.below(special.len())]
                };
            }
        }
        words
    }

    /// The instruction with its registers, `add.rn.f32 %d0, %a0, %a1;`.
    pub fn instruction(&self) -> String {
        if self.name.contains('%') {
            return self.name.clone();
        }
        let mut next = 0;
        let results = written(&self.results, 'd', &mut next).join("|");
        let mut next = 0;
        let operands = written(&self.operands, 'a', &mut next);
        let list = Some(results).filter(|results| !results.is_empty());
        let list: Vec<String> = list.into_iter().chain(operands).collect();
        format!("{} {};", self.name, list.join(", "))
    }
}

/// The types behind operands that have a word.
fn types(operands: &[Operand]) -> impl Iterator<Item = Type> {
    operands.iter().flat_map(|operand| match operand {
        Operand::Register(kind) | Operand::Address(kind) => vec![*kind],
        Operand::Vector(kinds) => kinds.clone(),
        Operand::Immediate(_) => Vec::new(),
    })
}

fn written(operands: &[Operand], letter: char, next: &mut usize) -> Vec<String> {
    let mut register = |prefix: char| {
        *next += 1;
        format!("%{prefix}{}", *next - 1)
    };
    operands
        .iter()
        .map(|operand| match operand {
            Operand::Register(_) => register(letter),
            Operand::Vector(kinds) => {
                let list: Vec<String> = kinds.iter().map(|_| register(letter)).collect();
                format!("{{{}}}", list.join(", "))
            }
            Operand::Address(_) => format!("[{}]", register('g')),
            Operand::Immediate(value) => value.clone(),
        })
        .collect()
}

fn read_operands(text: &str) -> Result<Vec<Operand>, String> {
    let mut operands = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = if rest.starts_with('{') {
            rest.find('}').ok_or("a vector without end")? + 1
        } else {
            rest.find(' ').unwrap_or(rest.len())
        };
        let (word, later) = rest.split_at(end);
        rest = later.trim_start();
        operands.push(if let Some(value) = word.strip_prefix('#') {
            Operand::Immediate(value.to_owned())
        } else if let Some(list) = word.strip_prefix('{') {
            let kinds = list.trim_end_matches('}').split(", ").map(Type::named);
            Operand::Vector(kinds.collect::<Result<_, _>>()?)
        } else if let Some(name) = word.strip_prefix('[') {
            Operand::Address(Type::named(name.trim_end_matches(']'))?)
        } else {
            Operand::Register(Type::named(word)?)
        });
    }
    Ok(operands)
}

impl Values {
    /// Where rounding, sign, range and special cases show.
    fn special(self) -> Vec<u64> {
        const F16: [u64; 20] = [
            0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x3c00, 0xbc00, 0x3c01, 0x3bff, 0x3800,
            0x3e00, 0x4100, 0x6400, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0x7d01,
        ];
        const F32: [u32; 30] = [
            0x0000_0000,
            0x8000_0000,
            0x0000_0001,
            0x8000_0001,
            0x007f_ffff,
            0x0080_0000,
            0x8080_0000,
            0x3f80_0000,
            0xbf80_0000,
            0x3f80_0001,
            0x3f7f_ffff,
            0x3f00_0000,
            0x3fc0_0000,
            0x4020_0000,
            0xc020_0000,
            0x4b00_0001,
            0x4b80_0000,
            0x4f00_0000,
            0xcf00_0000,
            0x4f80_0000,
            0x5f80_0000,
            0x477f_f000,
            0x3300_0000,
            0x7f7f_ffff,
            0xff7f_ffff,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0x7f80_0001,
            0xffc1_2345,
        ];
        let integers = |width: u32| -> Vec<u64> {
            let top = 1u64 << (width - 1);
            let mask = u64::MAX >> (64 - width);
            let small = [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 127, 128, 255];
            let wide = [
                0x7fff,
                0x8000,
                0xffff,
                0x10000,
                0x8000_0000,
                0x7fff_ffff,
                0xff00ff,
            ];
            small
                .into_iter()
                .chain(wide)
                .chain([top, top - 1, top + 1, mask, mask - 1, 0xa5a5_5a5a_c3c3_3c3c])
                .map(|value| value & mask)
                .collect()
        };
        match self {
            Self::Bits(width) => integers(width),
            Self::Divisor(width) => {
                let mask = u64::MAX >> (64 - width);
                let mut values = integers(width);
                values.retain(|&value| value != 0 && value != mask);
                values
            }
            Self::F16 => F16.to_vec(),
            Self::Bf16 => F32.map(|bits| u64::from(bits >> 16)).to_vec(),
            // Each special beside another one.
            Self::F16x2 | Self::Bf16x2 => {
                let halves = if self == Self::F16x2 {
                    Self::F16
                } else {
                    Self::Bf16
                }
                .special();
                let beside = halves.iter().cycle().skip(7);
                halves
                    .iter()
                    .zip(beside)
                    .map(|(low, high)| low | high << 16)
                    .collect()
            }
            Self::F32 => F32.map(u64::from).to_vec(),
            Self::F64 => {
                let single = F32.map(|bits| f64::from(f32::from_bits(bits)).to_bits());
                // Halfway between two f32, and what f32 can't hold.
                let double = [
                    0x3ff0_0000_1000_0000,
                    0x3ff0_0000_3000_0000,
                    0x380f_ffff_ffff_ffff,
                ];
                let range = [
                    0x47ef_ffff_f000_0000,
                    0x7fef_ffff_ffff_ffff,
                    1,
                    0x3690_0000_0000_0000,
                ];
                single.into_iter().chain(double).chain(range).collect()
            }
            Self::Truth => vec![0, 1],
        }
    }

    /// A random value: any bits, or with numbers of like size, so that sums do not lose one of them.
    fn random(self, random: &mut Random) -> u64 {
        let bits = random.next();
        let near = random.next() & 1 == 0;
        match self {
            Self::Bits(width) => bits >> (64 - width),
            Self::Divisor(width) => (bits >> (64 - width) | 1) & !2,
            Self::F16 if near => bits & 0x83ff | 0x3800 | bits >> 32 & 0x0400,
            Self::Bf16 if near => bits & 0x807f | 0x3f00 | bits >> 32 & 0x0080,
            Self::F16 | Self::Bf16 => bits & 0xffff,
            Self::F16x2 => Self::F16.random(random) | Self::F16.random(random) << 16,
            Self::Bf16x2 => Self::Bf16.random(random) | Self::Bf16.random(random) << 16,
            Self::F32 if near => bits & 0x807f_ffff | 0x3f00_0000 | bits >> 32 & 0x0180_0000,
            Self::F32 => bits & 0xffff_ffff,
            // In the range of f32, where a conversion has to round.
            Self::F64 if near => bits & 0x800f_ffff_ffff_ffff | 0x3fe0_0000_0000_0000,
            Self::F64 => bits,
            Self::Truth => bits & 1,
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// A stream of its own for each name.
    fn seeded(name: &str) -> Self {
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn groups_expand_and_choices_are_named_by_number() {
        let lines: Vec<String> = expand("min{,.ftz}.{f16,f32} | {b32, b32} | $2", Vec::new())
            .into_iter()
            .map(|(line, _)| line)
            .collect();
        assert_eq!(
            lines,
            [
                "min.f16 | {b32, b32} | f16",
                "min.f32 | {b32, b32} | f32",
                "min.ftz.f16 | {b32, b32} | f16",
                "min.ftz.f32 | {b32, b32} | f32"
            ]
        );
    }

    #[test]
    fn the_table_is_read_whole_and_names_no_form_twice() {
        let forms = forms().unwrap();
        assert!(forms.len() > 220, "{} forms", forms.len());
        let names: BTreeSet<String> = forms.iter().map(Form::instruction).collect();
        assert_eq!(names.len(), forms.len());
        let shfl = forms
            .iter()
            .find(|form| form.name == "shfl.sync.up.b32")
            .unwrap();
        assert_eq!(
            shfl.instruction(),
            "shfl.sync.up.b32 %d0|%d1, %a0, %a1, 0x001f, 0xffffffff;"
        );
        assert_eq!((shfl.inputs(), shfl.outputs()), (2, 2));
        let mma = forms
            .iter()
            .find(|form| form.name.contains("m16n8k32"))
            .unwrap();
        assert!(mma.instruction().ends_with(
            " {%d0, %d1, %d2, %d3}, {%a0, %a1, %a2, %a3}, {%a4, %a5}, {%a6, %a7, %a8, %a9};"
        ));
        assert!(!mma.runs_on((7, 5)) && mma.runs_on((8, 0)) && mma.runs_on((12, 0)));
    }

    #[test]
    fn operands_hold_every_pair_of_specials_and_no_zero_divisor() {
        let forms = forms().unwrap();
        let add = forms.iter().find(|form| form.name == "add.rn.f32").unwrap();
        let words = add.operands();
        let (a, b) = words.split_at(THREADS as usize);
        let pairs: BTreeSet<(u64, u64)> = a.iter().copied().zip(b.iter().copied()).collect();
        let special = Values::F32.special();
        for &x in &special {
            for &y in &special {
                assert!(pairs.contains(&(x, y)), "{x:#x} {y:#x}");
            }
        }
        let div = forms.iter().find(|form| form.name == "div.s32").unwrap();
        let words = div.operands();
        let divisors = &words[THREADS as usize..];
        assert!(
            divisors
                .iter()
                .all(|&word| word != 0 && word != 0xffff_ffff)
        );
        assert!(words.iter().all(|&word| word <= 0xffff_ffff));
    }
}
