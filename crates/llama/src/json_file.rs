//! JSON files of a bounded length whose root is an object.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Length limit of a file whose values are all kept; real ones have about 1 KiB. They take up to 32 times their text in memory.
pub(crate) const MAX_LENGTH: u64 = 1 << 18;

/// A JSON file whose root is an object.
pub(crate) struct JsonFile {
    file: String,
    root: Map<String, Value>,
}

impl JsonFile {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::parse(path.display().to_string(), &read(path, MAX_LENGTH)?)
    }

    /// Reads a text that is no longer than a file may be. `file` stands for it in errors.
    pub(crate) fn parse(file: String, text: &str) -> Result<Self> {
        let refuse = |expected: String, found: String| Error::Json {
            file: file.clone(),
            field: "text".into(),
            expected,
            found,
        };
        if text.len() as u64 > MAX_LENGTH {
            let expected = format!("at most {MAX_LENGTH} bytes");
            return Err(refuse(expected, text.len().to_string()));
        }
        match serde_json::from_str(text) {
            Ok(root) => Ok(Self { file, root }),
            Err(error) => Err(refuse("a JSON object".into(), error.to_string())),
        }
    }

    pub(crate) fn error(
        &self,
        field: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::Json {
            file: self.file.clone(),
            field: field.to_owned(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    pub(crate) fn mismatch(
        &self,
        field: &str,
        expected: impl Into<String>,
        found: Option<&Value>,
    ) -> Error {
        let found = match found {
            None => "no such key".to_owned(),
            Some(Value::Array(values)) => format!("an array of {}", values.len()),
            Some(Value::Object(entries)) => format!("an object of {}", entries.len()),
            Some(Value::String(text)) => shown(text),
            Some(value) => value.to_string(),
        };
        self.error(field, expected, found)
    }

    /// The value of a key, `null` as well.
    pub(crate) fn raw(&self, key: &str) -> Option<&Value> {
        self.root.get(key)
    }

    /// The value of a key; `null` says what a missing key says.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.root.get(key).filter(|value| !value.is_null())
    }

    /// A size of at least 1.
    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        let size = self.get(key).and_then(Value::as_u64);
        match size.and_then(|size| u32::try_from(size).ok()) {
            Some(size @ 1..) => Ok(size as usize),
            _ => Err(self.mismatch(key, format!("1 to {}", u32::MAX), self.raw(key))),
        }
    }

    pub(crate) fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key).map_or(Ok(default), |_| self.size(key))
    }

    /// A finite number in `f32`.
    pub(crate) fn number(&self, key: &str) -> Result<f32> {
        self.finite(key, self.get(key))
    }

    /// `value` as a finite number in `f32`; `field` says where it stands.
    pub(crate) fn finite(&self, field: &str, value: Option<&Value>) -> Result<f32> {
        match value.and_then(Value::as_f64) {
            Some(number) if (number as f32).is_finite() => Ok(number as f32),
            _ => Err(self.mismatch(field, "a finite number", value)),
        }
    }

    /// Refuses a key with another value than the only one that is served; without the key that value holds.
    pub(crate) fn only(&self, key: &str, value: impl Into<Value>) -> Result<()> {
        let value = value.into();
        match self.get(key) {
            Some(other) if *other != value => {
                Err(self.mismatch(key, value.to_string(), Some(other)))
            }
            _ => Ok(()),
        }
    }
}

/// Reads a whole file that may not be longer than `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<String> {
    let error = |operation| {
        move |source| Error::Io {
            operation,
            file: path.display().to_string(),
            source,
        }
    };
    // Opening a pipe would wait for its writer, so the kind of file is asked for first.
    let metadata = fs::metadata(path).map_err(error("open"))?;
    if !metadata.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file");
        return Err(error("open")(source));
    }
    let file = File::open(path).map_err(error("open"))?;
    let mut bytes = Vec::new();
    // One byte more than the limit shows a file that is too long, even one that grows meanwhile.
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(error("read"))?;
    let refuse = |expected: String, found: String| Error::Json {
        file: path.display().to_string(),
        field: "text".into(),
        expected,
        found,
    };
    if bytes.len() as u64 > limit {
        let found = format!("{} or more", bytes.len());
        return Err(refuse(format!("at most {limit} bytes"), found));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let found = format!("byte {:#04x} at offset {at}", error.as_bytes()[at]);
        refuse("UTF-8".into(), found)
    })
}

/// A text of a file as an error shows it, which a hostile file does not make long.
pub(crate) fn shown(text: &str) -> String {
    match text.len() {
        0..=100 => format!("{text:?}"),
        len => format!("a string of {len} bytes"),
    }
}
