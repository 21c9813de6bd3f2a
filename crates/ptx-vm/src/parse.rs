//! Recursive descent from words to a tree.

use crate::ast::{Entry, Instruction, Item, Module, Operand, Statement, Value, Variable};
use crate::error::{Error, Result};
use crate::lexer::{Kind, Lexer, Span, Token};
use crate::op::{Space, Type};

/// The longest text, in bytes.
const TEXT: usize = 8 << 20;

/// The most statements, declared names and initial values, together.
const PARTS: u64 = 1 << 20;

/// The deepest nesting of blocks or of brackets.
const DEPTH: u64 = 64;

/// The most modifiers of an instruction, and operands of one or elements of a vector.
const WORDS: u64 = 24;

/// Reads a file.
pub(crate) fn module(text: &str) -> Result<Module<'_>> {
    limit("bytes of PTX text", TEXT as u64, text.len() as u64)?;
    let mut lexer = Lexer::new(text);
    let token = lexer.next()?;
    Parser {
        lexer,
        token,
        parts: 0,
    }
    .module()
}

/// An error if there are more of something than allowed.
pub(crate) fn limit(what: &'static str, limit: u64, found: u64) -> Result<()> {
    if found > limit {
        return Err(Error::Limit { what, limit, found });
    }
    Ok(())
}

/// A scalar type by its name.
pub(crate) fn scalar(name: &str) -> Option<Type> {
    Some(match name {
        "pred" => Type::Pred,
        "b8" => Type::B8,
        "b16" => Type::B16,
        "b32" => Type::B32,
        "b64" => Type::B64,
        "u8" => Type::U8,
        "u16" => Type::U16,
        "u32" => Type::U32,
        "u64" => Type::U64,
        "s8" => Type::S8,
        "s16" => Type::S16,
        "s32" => Type::S32,
        "s64" => Type::S64,
        "f16" => Type::F16,
        "f16x2" => Type::F16x2,
        "bf16" => Type::Bf16,
        "bf16x2" => Type::Bf16x2,
        "tf32" => Type::Tf32,
        "f32" => Type::F32,
        "f64" => Type::F64,
        "e4m3x2" => Type::E4m3x2,
        "e5m2x2" => Type::E5m2x2,
        _ => return None,
    })
}

/// The text, one word ahead.
struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    parts: u64,
}

impl<'a> Parser<'a> {
    /// Takes the word ahead.
    fn next(&mut self) -> Result<Token<'a>> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn is(&self, sign: &str) -> bool {
        self.token.kind == Kind::Sign && self.token.text == sign
    }

    fn is_dotted(&self, word: &str) -> bool {
        self.token.kind == Kind::Dotted && self.token.text == word
    }

    /// Takes the sign ahead if it is this one.
    fn take(&mut self, sign: &str) -> Result<bool> {
        let is = self.is(sign);
        if is {
            self.next()?;
        }
        Ok(is)
    }

    /// Takes the dotted word ahead if it is this one.
    fn take_dotted(&mut self, word: &str) -> Result<bool> {
        let is = self.is_dotted(word);
        if is {
            self.next()?;
        }
        Ok(is)
    }

    fn found<T>(&self, expected: &str) -> Result<T> {
        Err(self.token.span.expected(expected, self.token.describe()))
    }

    fn sign(&mut self, sign: &str) -> Result<()> {
        if self.take(sign)? {
            return Ok(());
        }
        self.found(&format!("`{sign}`"))
    }

    fn name(&mut self, what: &str) -> Result<Token<'a>> {
        match self.token.kind {
            Kind::Name => self.next(),
            _ => self.found(what),
        }
    }

    fn count(&mut self) -> Result<()> {
        self.parts += 1;
        limit("statements, names and initial values", PARTS, self.parts)
    }

    /// An integer of 32 bits.
    fn small(&mut self, what: &str) -> Result<u32> {
        let (span, text) = (self.token.span, self.token.describe());
        let Kind::Integer(value) = self.token.kind else {
            return self.found(what);
        };
        self.next()?;
        u32::try_from(value).map_err(|_| span.expected(what, text))
    }

    fn module(mut self) -> Result<Module<'a>> {
        if !self.take_dotted("version")? {
            return self.found("`.version`");
        }
        let number = self.next()?;
        let parts = number.text.split_once('.');
        let version = parts.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let version =
            version.ok_or_else(|| number.span.expected("a version", number.describe()))?;
        if !self.take_dotted("target")? {
            return self.found("`.target`");
        }
        let target = self.target(version)?;
        let mut items = Vec::new();
        while self.token.kind != Kind::End {
            self.count()?;
            self.item(&mut items)?;
        }
        Ok(Module {
            version,
            target,
            items,
        })
    }

    fn target(&mut self, version: (u32, u32)) -> Result<u32> {
        let name = self.name("a target")?;
        let unknown = || name.span.expected("a target", name.describe());
        let number = name.text.strip_prefix("sm_").ok_or_else(unknown)?;
        let target: u32 = number
            .trim_end_matches(['a', 'f'])
            .parse()
            .map_err(|_| unknown())?;
        let since = match target {
            0..70 => return Err(name.span.unsupported(format!("target {}", name.text))),
            70 => (6, 0),
            72 => (6, 1),
            75 => (6, 3),
            80 => (7, 0),
            86 => (7, 1),
            87 => (7, 4),
            89 | 90 => (7, 8),
            100 | 101 => (8, 6),
            120 => (8, 7),
            _ => (9, 0),
        };
        if version < since {
            return Err(name.span.expected(
                format!(
                    "`.version {}.{}` or later for {}",
                    since.0, since.1, name.text
                ),
                format!("{}.{}", version.0, version.1),
            ));
        }
        while self.take(",")? {
            let option = self.name("a target option")?;
            if !matches!(
                option.text,
                "debug" | "texmode_independent" | "texmode_unified"
            ) {
                return Err(option.span.unsupported(format!("target {}", option.text)));
            }
        }
        Ok(target)
    }

    fn item(&mut self, items: &mut Vec<Item<'a>>) -> Result<()> {
        if self.debug()? {
            return Ok(());
        }
        let token = self.token;
        if token.kind != Kind::Dotted {
            return self.found("a directive");
        }
        match token.text {
            "address_size" => {
                self.next()?;
                let span = self.token.span;
                match self.small("64")? {
                    64 => Ok(()),
                    32 => Err(span.unsupported(".address_size 32")),
                    _ => Err(span.expected("`.address_size 64`", "another size")),
                }
            }
            "visible" | "weak" | "extern" | "common" => {
                self.next()?;
                let external = token.text == "extern";
                match self.token.text {
                    "entry" if !external => self.entry(items),
                    _ => self.variables(external, |variable| items.push(Item::Variable(variable))),
                }
            }
            "entry" => self.entry(items),
            "global" | "const" | "shared" => {
                self.variables(false, |variable| items.push(Item::Variable(variable)))
            }
            other => Err(token.span.unsupported(format!("directive .{other}"))),
        }
    }

    /// Skips what is there for debuggers and tools; whether there was anything.
    fn debug(&mut self) -> Result<bool> {
        if self.token.kind != Kind::Dotted {
            return Ok(false);
        }
        match self.token.text {
            "loc" => {
                self.lexer.skip_line();
                self.next()?;
            }
            "file" => {
                self.next()?;
                self.small("a file number")?;
                while self.token.kind == Kind::Text || self.is(",") || self.is_integer() {
                    self.next()?;
                }
            }
            "pragma" => {
                self.next()?;
                loop {
                    if self.token.kind != Kind::Text {
                        return self.found("a string");
                    }
                    self.next()?;
                    if !self.take(",")? {
                        break;
                    }
                }
                self.sign(";")?;
            }
            "section" => {
                self.next()?;
                while !self.take("}")? {
                    if self.token.kind == Kind::End {
                        return self.found("`}`");
                    }
                    self.next()?;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn is_integer(&self) -> bool {
        matches!(self.token.kind, Kind::Integer(_))
    }

    /// Declarations of variables in one state space, up to the semicolon.
    fn variables(&mut self, external: bool, mut push: impl FnMut(Variable<'a>)) -> Result<()> {
        let directive = self.token;
        let space = match (directive.kind, directive.text) {
            (Kind::Dotted, "global") => Space::Global,
            (Kind::Dotted, "const") => Space::Const,
            (Kind::Dotted, "shared") => Space::Shared,
            (Kind::Dotted, "local") => Space::Local,
            (Kind::Dotted, other) => {
                return Err(directive.span.unsupported(format!("directive .{other}")));
            }
            _ => return self.found("a state space"),
        };
        self.next()?;
        let (align, vector, ty) = self.type_of_variable()?;
        loop {
            push(self.variable(space, external, align, vector, ty)?);
            if !self.take(",")? {
                return self.sign(";");
            }
        }
    }

    /// Alignment, elements of a vector, type.
    fn type_of_variable(&mut self) -> Result<(Option<u32>, u32, Type)> {
        let (mut align, mut vector) = (None, 1);
        loop {
            let token = self.token;
            match (token.kind, token.text) {
                (Kind::Dotted, "align") => {
                    self.next()?;
                    let span = self.token.span;
                    let value = self.small("an alignment")?;
                    if !value.is_power_of_two() || value > 1 << 20 {
                        return Err(span.expected("a power of two", value.to_string()));
                    }
                    align = Some(value);
                }
                (Kind::Dotted, "v2") => {
                    self.next()?;
                    vector = 2;
                }
                (Kind::Dotted, "v4") => {
                    self.next()?;
                    vector = 4;
                }
                (Kind::Dotted, name) => {
                    let ty = scalar(name)
                        .filter(|ty| {
                            !matches!(
                                ty,
                                Type::Pred
                                    | Type::Bf16
                                    | Type::Bf16x2
                                    | Type::Tf32
                                    | Type::E4m3x2
                                    | Type::E5m2x2
                            )
                        })
                        .ok_or_else(|| {
                            token
                                .span
                                .unsupported(format!("type .{name} of a variable"))
                        })?;
                    self.next()?;
                    return Ok((align, vector, ty));
                }
                _ => return self.found("a type"),
            }
        }
    }

    fn variable(
        &mut self,
        space: Space,
        external: bool,
        align: Option<u32>,
        vector: u32,
        ty: Type,
    ) -> Result<Variable<'a>> {
        self.count()?;
        let name = self.name("a name")?;
        let (mut elements, mut array) = (Some(u64::from(vector)), false);
        while self.take("[")? {
            let span = self.token.span;
            if self.take("]")? {
                if array {
                    return Err(span.expected("a size", "`]`"));
                }
                elements = None;
            } else {
                let size = self.integer()?;
                let size = u64::try_from(size).ok().filter(|&size| size > 0);
                let size = size.ok_or_else(|| span.expected("a size above 0", "none"))?;
                elements = elements.map(|elements| elements.saturating_mul(size));
                self.sign("]")?;
            }
            array = true;
        }
        let natural = ty.bytes() * vector;
        let mut init = Vec::new();
        if self.is("=") {
            let span = self.next()?.span;
            if !matches!(space, Space::Global | Space::Const) {
                return Err(span.expected("no initial value in this state space", "`=`"));
            }
            self.initial(&mut init, 0)?;
            elements = elements.or(Some(init.len() as u64));
        }
        if elements.is_none() && !external {
            return Err(name.span.expected("an array with a size", name.describe()));
        }
        if external && (space != Space::Shared || elements.is_some()) {
            return Err(name.span.unsupported("variable of another module"));
        }
        Ok(Variable {
            span: name.span,
            space,
            align: align.unwrap_or(1).max(natural),
            ty,
            name: name.text,
            elements,
            init,
        })
    }

    /// Initial values, in braces or not.
    fn initial(&mut self, init: &mut Vec<Operand<'a>>, depth: u64) -> Result<()> {
        limit("nested braces", DEPTH, depth)?;
        if !self.take("{")? {
            self.count()?;
            init.push(self.operand()?);
            return Ok(());
        }
        while !self.take("}")? {
            self.initial(init, depth + 1)?;
            if !self.is("}") {
                self.sign(",")?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, items: &mut Vec<Item<'a>>) -> Result<()> {
        self.next()?;
        let name = self.name("the entry's name")?;
        let mut entry = Entry {
            span: name.span,
            name: name.text,
            parameters: Vec::new(),
            max_threads: None,
            required_threads: None,
            body: Vec::new(),
        };
        if self.take("(")? && !self.take(")")? {
            loop {
                entry.parameters.push(self.parameter()?);
                if !self.take(",")? {
                    break;
                }
            }
            self.sign(")")?;
        }
        while self.token.kind == Kind::Dotted {
            if self.debug()? {
                continue;
            }
            let directive = self.next()?;
            match directive.text {
                "maxntid" => entry.max_threads = Some(self.axes()?),
                "reqntid" => entry.required_threads = Some(self.axes()?),
                "minnctapersm" | "maxnreg" | "maxnctapersm" => {
                    self.small("a number")?;
                }
                other => return Err(directive.span.unsupported(format!("directive .{other}"))),
            }
        }
        self.sign("{")?;
        self.body(&mut entry.body)?;
        items.push(Item::Entry(entry));
        Ok(())
    }

    /// One to three sizes; those left out are 1.
    fn axes(&mut self) -> Result<[u32; 3]> {
        let mut axes = [1; 3];
        for (at, axis) in axes.iter_mut().enumerate() {
            if at > 0 && !self.take(",")? {
                break;
            }
            *axis = self.small("a number of threads")?;
        }
        Ok(axes)
    }

    fn parameter(&mut self) -> Result<Variable<'a>> {
        self.count()?;
        if !self.take_dotted("param")? {
            return self.found("`.param`");
        }
        let (align, vector, ty) = self.type_of_variable()?;
        if self.take_dotted("ptr")? {
            for space in ["global", "shared", "const", "local"] {
                if self.take_dotted(space)? {
                    break;
                }
            }
            if self.take_dotted("align")? {
                self.small("an alignment")?;
            }
        }
        self.variable(Space::Param, false, align, vector, ty)
    }

    /// Statements up to the brace that closes the entry.
    fn body(&mut self, body: &mut Vec<Statement<'a>>) -> Result<()> {
        let mut depth = 1;
        loop {
            self.count()?;
            if self.take("{")? {
                depth += 1;
                limit("nested blocks", DEPTH, depth)?;
                body.push(Statement::Open);
            } else if self.take("}")? {
                depth -= 1;
                if depth == 0 {
                    return Ok(());
                }
                body.push(Statement::Close);
            } else if !self.debug()? {
                self.statement(body)?;
            }
        }
    }

    fn statement(&mut self, body: &mut Vec<Statement<'a>>) -> Result<()> {
        let token = self.token;
        match token.kind {
            Kind::Dotted => match token.text {
                "reg" => self.registers(body),
                _ => self.variables(false, |variable| body.push(Statement::Variable(variable))),
            },
            Kind::Name => {
                self.next()?;
                if !self.take(":")? {
                    let instruction = self.instruction(token, None)?;
                    body.push(Statement::Instruction(instruction));
                } else if self.take_dotted("branchtargets")? {
                    let mut targets = Vec::new();
                    loop {
                        self.count()?;
                        targets.push(self.name("a label")?.text);
                        if !self.take(",")? {
                            break;
                        }
                    }
                    self.sign(";")?;
                    body.push(Statement::Targets(token.span, token.text, targets));
                } else {
                    body.push(Statement::Label(token.span, token.text));
                }
                Ok(())
            }
            Kind::Sign if token.text == "@" => {
                self.next()?;
                let negated = self.take("!")?;
                let guard = self.name("a predicate")?;
                let name = self.name("an instruction")?;
                let guard = (guard.span, guard.text, negated);
                let instruction = self.instruction(name, Some(guard))?;
                body.push(Statement::Instruction(instruction));
                Ok(())
            }
            _ => self.found("a statement"),
        }
    }

    fn registers(&mut self, body: &mut Vec<Statement<'a>>) -> Result<()> {
        self.next()?;
        let token = self.token;
        let ty = match token.kind {
            Kind::Dotted => scalar(token.text),
            _ => return self.found("a type"),
        };
        let ty = match (ty, token.text) {
            (None, "v2" | "v4" | "b128") => {
                return Err(token
                    .span
                    .unsupported(format!("registers of type .{}", token.text)));
            }
            (
                None | Some(Type::Bf16 | Type::Bf16x2 | Type::Tf32 | Type::E4m3x2 | Type::E5m2x2),
                _,
            ) => {
                return self.found("a type of registers");
            }
            (Some(ty), _) => ty,
        };
        self.next()?;
        loop {
            self.count()?;
            let name = self.name("a register's name")?;
            let mut count = None;
            if self.take("<")? {
                count = Some(self.small("a number of registers")?);
                self.sign(">")?;
            }
            body.push(Statement::Register {
                span: name.span,
                ty,
                name: name.text,
                count,
            });
            if !self.take(",")? {
                return self.sign(";");
            }
        }
    }

    fn instruction(
        &mut self,
        name: Token<'a>,
        guard: Option<(Span, &'a str, bool)>,
    ) -> Result<Instruction<'a>> {
        let (mut modifiers, mut operands) = (Vec::new(), Vec::new());
        while self.token.kind == Kind::Dotted {
            modifiers.push(self.next()?.text);
            limit("modifiers of an instruction", WORDS, modifiers.len() as u64)?;
        }
        while !self.is(";") {
            if !operands.is_empty() {
                self.sign(",")?;
            }
            operands.push(self.operand()?);
            limit("operands of an instruction", WORDS, operands.len() as u64)?;
        }
        self.next()?;
        Ok(Instruction {
            span: name.span,
            guard,
            name: name.text,
            modifiers,
            operands,
        })
    }

    fn operand(&mut self) -> Result<Operand<'a>> {
        let span = self.token.span;
        let value = if self.take("{")? {
            let mut parts = Vec::new();
            loop {
                let span = self.token.span;
                let value = self.value()?;
                parts.push(Operand { span, value });
                limit("elements of a vector", WORDS, parts.len() as u64)?;
                if !self.take(",")? {
                    break;
                }
            }
            self.sign("}")?;
            Value::Vector(parts)
        } else if self.take("[")? {
            let address = match self.token.kind {
                Kind::Name => {
                    let name = self.next()?.text;
                    let offset = if self.take("+")? { self.integer()? } else { 0 };
                    Value::Address(Some(name), offset)
                }
                _ => Value::Address(None, self.integer()?),
            };
            self.sign("]")?;
            address
        } else {
            self.value()?
        };
        Ok(Operand { span, value })
    }

    /// An operand without brackets.
    fn value(&mut self) -> Result<Value<'a>> {
        match self.token.kind {
            Kind::Name if self.token.text != "WARP_SZ" => {
                let name = self.next()?.text;
                if self.token.kind == Kind::Dotted {
                    return Ok(Value::Name(name, Some(self.next()?.text)));
                }
                if self.take("|")? {
                    return Ok(Value::Pair(name, self.name("a name")?.text));
                }
                if self.take("+")? {
                    return Ok(Value::Sum(name, self.integer()?));
                }
                if name == "generic" && self.take("(")? {
                    let name = self.name("a name")?.text;
                    self.sign(")")?;
                    return Ok(Value::Generic(name));
                }
                Ok(Value::Name(name, None))
            }
            Kind::Single(bits) => {
                self.next()?;
                Ok(Value::Single(bits))
            }
            Kind::Double(bits) => {
                self.next()?;
                Ok(Value::Double(bits))
            }
            Kind::Sign if self.is("-") => {
                self.next()?;
                if let (Kind::Double(bits), false) =
                    (self.token.kind, self.token.text.starts_with("0d"))
                {
                    self.next()?;
                    return Ok(Value::Double((-f64::from_bits(bits)).to_bits()));
                }
                let negative = self.unary(1)?.wrapping_neg();
                Ok(Value::Integer(self.binary(negative, 0, 1)? as u64))
            }
            Kind::Sign if self.is("!") => {
                self.next()?;
                if self.token.kind == Kind::Name {
                    return Ok(Value::Not(self.next()?.text));
                }
                let not = i64::from(self.unary(1)? == 0);
                Ok(Value::Integer(self.binary(not, 0, 1)? as u64))
            }
            _ => Ok(Value::Integer(self.integer()? as u64)),
        }
    }

    /// A constant expression of integers.
    fn integer(&mut self) -> Result<i64> {
        let first = self.unary(0)?;
        self.binary(first, 0, 0)
    }

    fn unary(&mut self, depth: u64) -> Result<i64> {
        limit("nested expressions", DEPTH, depth)?;
        let span = self.token.span;
        match self.token.kind {
            Kind::Integer(value) => {
                self.next()?;
                Ok(value as i64)
            }
            Kind::Name if self.token.text == "WARP_SZ" => {
                self.next()?;
                Ok(32)
            }
            Kind::Sign => match self.next()?.text {
                "-" => Ok(self.unary(depth + 1)?.wrapping_neg()),
                "+" => self.unary(depth + 1),
                "~" => Ok(!self.unary(depth + 1)?),
                "!" => Ok(i64::from(self.unary(depth + 1)? == 0)),
                "(" => {
                    let first = self.unary(depth + 1)?;
                    let value = self.binary(first, 0, depth + 1)?;
                    self.sign(")")?;
                    Ok(value)
                }
                other => Err(span.expected("an operand", format!("`{other}`"))),
            },
            Kind::Dotted => {
                let what = format!("cast to .{} in a constant", self.token.text);
                Err(span.unsupported(what))
            }
            _ => self.found("an operand"),
        }
    }

    /// The rest of an expression behind its first operand, of operators that bind as strongly as `least`.
    fn binary(&mut self, mut a: i64, least: u8, depth: u64) -> Result<i64> {
        limit("nested expressions", DEPTH, depth)?;
        loop {
            let binds = match self.token.text {
                _ if self.token.kind != Kind::Sign => return Ok(a),
                "|" => 1,
                "^" => 2,
                "&" => 3,
                "<<" | ">>" => 4,
                "+" | "-" => 5,
                "*" | "/" | "%" => 6,
                "?" | "<" | ">" | "<=" | ">=" | "==" | "!=" | "&&" | "||" => {
                    let what = format!("operator {} in a constant", self.token.text);
                    return Err(self.token.span.unsupported(what));
                }
                _ => return Ok(a),
            };
            if binds <= least {
                return Ok(a);
            }
            let sign = self.next()?;
            let b = self.unary(depth + 1)?;
            let b = self.binary(b, binds, depth + 1)?;
            let nonzero = || match b {
                0 => Err(sign.span.expected("a divisor other than 0", "0")),
                b => Ok(b),
            };
            a = match sign.text {
                "|" => a | b,
                "^" => a ^ b,
                "&" => a & b,
                "<<" => u32::try_from(b)
                    .ok()
                    .and_then(|b| a.checked_shl(b))
                    .unwrap_or(0),
                ">>" => a >> b.clamp(0, 63),
                "+" => a.wrapping_add(b),
                "-" => a.wrapping_sub(b),
                "*" => a.wrapping_mul(b),
                "/" => a.wrapping_div(nonzero()?),
                _ => a.wrapping_rem(nonzero()?),
            };
        }
    }
}
