//! Words of the text, each with its place.

use crate::error::{Error, Result};

/// A place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Line, from 1.
    pub(crate) line: u32,
    /// Column, from 1, in bytes.
    pub(crate) column: u32,
}

impl Span {
    /// An error at this place.
    pub(crate) fn expected(self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Parse {
            line: self.line,
            column: self.column,
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// Something at this place that is not known here.
    pub(crate) fn unsupported(self, what: impl Into<String>) -> Error {
        Error::Unsupported {
            line: self.line,
            what: what.into(),
        }
    }
}

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A name, `_` too.
    Name,
    /// A word behind a dot; the text lacks the dot.
    Dotted,
    /// An integer.
    Integer(u64),
    /// `0f` and eight digits: bits.
    Single(u32),
    /// A decimal number or `0d` and sixteen digits: bits.
    Double(u64),
    /// A string, quotes included.
    Text,
    /// An operator or bracket of one or two characters.
    Sign,
    /// The end of the text.
    End,
}

/// A word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    pub(crate) span: Span,
}

impl Token<'_> {
    /// The word as messages quote it.
    pub(crate) fn describe(&self) -> String {
        match self.kind {
            Kind::End => "the end of the text".to_owned(),
            Kind::Dotted => format!("`.{}`", self.text),
            _ => format!("`{}`", self.text),
        }
    }
}

/// Cuts a text into words.
#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    line_start: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
            line_start: 0,
        }
    }

    /// The next word.
    pub(crate) fn next(&mut self) -> Result<Token<'a>> {
        self.skip_space()?;
        let (start, span) = (self.at, self.span());
        let kind = match self.peek(0) {
            0 if self.at >= self.text.len() => Kind::End,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'%' if self.is_name() => {
                self.at += 1;
                self.skip_word();
                Kind::Name
            }
            b'0'..=b'9' => self.number(span)?,
            b'.' if self.peek(1).is_ascii_digit() => self.number(span)?,
            b'.' if is_word(self.peek(1)) => {
                self.at += 1;
                self.skip_word();
                while self.rest().starts_with("::") && is_word(self.peek(2)) {
                    self.at += 2;
                    self.skip_word();
                }
                return Ok(self.token(Kind::Dotted, start + 1, span));
            }
            b'"' => {
                let length = self.rest()[1..].find(['"', '\n']);
                match length.map(|length| (length, self.peek(1 + length))) {
                    Some((length, b'"')) => self.at += length + 2,
                    _ => return Err(span.expected("a string that ends on its line", "`\"`")),
                }
                Kind::Text
            }
            _ => self.sign(span)?,
        };
        Ok(self.token(kind, start, span))
    }

    /// Skips to the end of the line.
    pub(crate) fn skip_line(&mut self) {
        self.at += self.rest().find('\n').unwrap_or(self.rest().len());
    }

    fn token(&self, kind: Kind, start: usize, span: Span) -> Token<'a> {
        Token {
            kind,
            text: &self.text[start..self.at],
            span,
        }
    }

    fn span(&self) -> Span {
        Span {
            line: self.line,
            column: (self.at - self.line_start + 1) as u32,
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// A byte ahead, 0 behind the end.
    fn peek(&self, ahead: usize) -> u8 {
        self.text
            .as_bytes()
            .get(self.at + ahead)
            .copied()
            .unwrap_or(0)
    }

    /// `%` by itself is an operator.
    fn is_name(&self) -> bool {
        self.peek(0) != b'%' || is_word(self.peek(1)) && !self.peek(1).is_ascii_digit()
    }

    fn skip_word(&mut self) {
        while is_word(self.peek(0)) {
            self.at += 1;
        }
    }

    fn skip_space(&mut self) -> Result<()> {
        loop {
            match (self.peek(0), self.peek(1)) {
                (b'\n', _) => {
                    self.at += 1;
                    self.line += 1;
                    self.line_start = self.at;
                }
                (b' ' | b'\t' | b'\r' | 0x0b | 0x0c, _) => self.at += 1,
                (b'/', b'/') => self.skip_line(),
                (b'/', b'*') => {
                    let length = self.rest().find("*/").ok_or_else(|| {
                        self.span()
                            .expected("a comment with an end", "`/*` without `*/`")
                    })?;
                    let comment = &self.rest()[..length + 2];
                    self.line += comment.matches('\n').count() as u32;
                    if let Some(last) = comment.rfind('\n') {
                        self.line_start = self.at + last + 1;
                    }
                    self.at += comment.len();
                }
                _ => return Ok(()),
            }
        }
    }

    fn sign(&mut self, span: Span) -> Result<Kind> {
        let rest = self.rest();
        let two = ["<<", ">>", "<=", ">=", "==", "!=", "&&", "||"];
        let length = match rest.chars().next() {
            _ if two.iter().any(|sign| rest.starts_with(sign)) => 2,
            Some(sign) if "()[]{}<>,;:@!|&^~+-*/%?=".contains(sign) => 1,
            found => {
                return Err(span.expected("a word of PTX", format!("`{}`", found.unwrap_or(' '))));
            }
        };
        self.at += length;
        Ok(Kind::Sign)
    }

    fn number(&mut self, span: Span) -> Result<Kind> {
        let start = self.at;
        let digits = |from: usize, radix: u32| {
            self.text.as_bytes()[from..]
                .iter()
                .take_while(|&&byte| char::from(byte).is_digit(radix))
                .count()
        };
        let prefix = (self.peek(0), self.peek(1).to_ascii_lowercase());
        for (letter, length) in [(b'f', 8), (b'd', 16)] {
            if prefix == (b'0', letter) && digits(start + 2, 16) == length {
                self.at += 2 + length;
                let bits = u64::from_str_radix(&self.text[start + 2..self.at], 16);
                let bits = bits.map_err(|_| span.expected("a number", self.text.to_owned()))?;
                return self.end_of_number(
                    span,
                    if length == 8 {
                        Kind::Single(bits as u32)
                    } else {
                        Kind::Double(bits)
                    },
                );
            }
        }
        let whole = digits(start, 10);
        let (skip, radix) = match prefix {
            (b'0', b'x') => (2, 16),
            (b'0', b'b') => (2, 2),
            _ if self.peek(whole) == b'.' || matches!(self.peek(whole), b'e' | b'E') => {
                return self.decimal(span, start, whole);
            }
            (b'0', b'0'..=b'9') => (1, 8),
            _ => (0, 10),
        };
        let length = digits(start + skip, radix);
        self.at += skip + length;
        let text = &self.text[start + skip..self.at];
        let value = u64::from_str_radix(text, radix).map_err(|_| {
            span.expected(
                "an integer of 64 bits",
                format!("`{}`", &self.text[start..self.at]),
            )
        })?;
        if self.peek(0) == b'U' {
            self.at += 1;
        }
        self.end_of_number(span, Kind::Integer(value))
    }

    fn decimal(&mut self, span: Span, start: usize, whole: usize) -> Result<Kind> {
        let skip_digits = |at: &mut usize| {
            while self
                .text
                .as_bytes()
                .get(*at)
                .is_some_and(u8::is_ascii_digit)
            {
                *at += 1;
            }
        };
        let mut at = start + whole;
        if self.text.as_bytes().get(at) == Some(&b'.') {
            at += 1;
            skip_digits(&mut at);
        }
        if matches!(self.text.as_bytes().get(at), Some(b'e' | b'E')) {
            let sign = matches!(self.text.as_bytes().get(at + 1), Some(b'+' | b'-'));
            at += 1 + usize::from(sign);
            skip_digits(&mut at);
        }
        self.at = at;
        let text = &self.text[start..at];
        let value: f64 = text
            .parse()
            .map_err(|_| span.expected("a number", format!("`{text}`")))?;
        self.end_of_number(span, Kind::Double(value.to_bits()))
    }

    /// A number does not run into a word.
    fn end_of_number(&self, span: Span, kind: Kind) -> Result<Kind> {
        if is_word(self.peek(0)) {
            return Err(span.expected(
                "a number",
                format!("a number before `{}`", char::from(self.peek(0))),
            ));
        }
        Ok(kind)
    }
}

/// Whether names can hold the character.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$')
}
