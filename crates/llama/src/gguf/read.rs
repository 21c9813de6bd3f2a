//! The parser. It trusts no number of the file.

use super::{Array, GgmlType, Strings, TensorInfo, Value};
use crate::{Error, Result};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::{Arguments, Display},
};

/// Length limit of a metadata key, by the format's description.
const MAX_KEY_BYTES: u64 = 65_535;
/// Length limit of a tensor's name, by the format's description.
const MAX_NAME_BYTES: u64 = 64;
/// Dimensions that a tensor may have, by the format's description.
const MAX_DIMENSIONS: u32 = 4;
/// Limits below bound the memory for what is small in a file and larger in memory; real files stay far below them.
const MAX_TENSORS: u64 = 8_192;
const MAX_NESTED_ARRAYS: usize = 4_096;
const MAX_ARRAY_DEPTH: usize = 4;

/// All that a file says.
pub(super) struct Contents {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) by_name: BTreeMap<String, usize>,
}

/// Parses and checks a whole file.
///
/// # Errors
/// [`Error::Gguf`] with the first field that breaks the format, [`Error::UnsupportedType`].
pub(super) fn contents(file: &str, bytes: &[u8]) -> Result<Contents> {
    let mut reader = Reader {
        file,
        bytes,
        at: 0,
        nested: 0,
    };
    let magic = reader.take(4, format_args!("magic"))?;
    if magic != b"GGUF" {
        return Err(reader.error(
            "magic",
            "the bytes \"GGUF\"",
            format!("\"{}\"", magic.escape_ascii()),
        ));
    }
    let version = reader.u32(format_args!("version"))?;
    if !(2..=3).contains(&version) {
        return Err(reader.error("version", "2 or 3, little-endian", version));
    }
    let tensor_count = reader.u64(format_args!("tensor count"))?;
    let key_count = reader.u64(format_args!("metadata count"))?;
    // The smallest entries: an empty string, a type and a byte; an empty string, dimensions, a type and an offset.
    reader.check_count(key_count, 13, format_args!("metadata count"))?;
    reader.check_count(tensor_count, 32, format_args!("tensor count"))?;
    if tensor_count > MAX_TENSORS {
        return Err(reader.error(
            "tensor count",
            format_args!("at most {MAX_TENSORS}"),
            tensor_count,
        ));
    }

    let mut metadata = BTreeMap::new();
    for index in 0..key_count {
        let key = reader.name(MAX_KEY_BYTES, format_args!("metadata key {index}"))?;
        let id = reader.u32(format_args!("metadata {key:?}: type"))?;
        let value = reader.value(id, format_args!("metadata {key:?}"))?;
        match metadata.entry(key.to_owned()) {
            Entry::Vacant(entry) => entry.insert(value),
            Entry::Occupied(_) => {
                return Err(reader.error(
                    format_args!("metadata key {index}"),
                    "a new key",
                    format_args!("{key:?} again"),
                ));
            }
        };
    }
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(Value::U32(alignment)) if alignment.is_power_of_two() => u64::from(*alignment),
        Some(Value::U32(other)) => {
            return Err(reader.error("general.alignment", "a power of two", other));
        }
        Some(other) => return Err(reader.error("general.alignment", "U32", other.describe())),
    };

    let mut tensors = Vec::new();
    let mut by_name = BTreeMap::new();
    for index in 0..tensor_count {
        let tensor = reader.tensor(index, alignment)?;
        if by_name.insert(tensor.name.clone(), tensors.len()).is_some() {
            let found = format!("{:?} again", tensor.name);
            return Err(reader.error(format_args!("tensor name {index}"), "a new name", found));
        }
        tensors.push(tensor);
    }
    reader.place(&mut tensors, alignment)?;
    Ok(Contents {
        metadata,
        tensors,
        by_name,
    })
}

struct Reader<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Arrays inside arrays, met so far.
    nested: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, field: impl Display, expected: impl Display, found: impl Display) -> Error {
        Error::Gguf {
            file: self.file.to_owned(),
            field: field.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, len: u64, field: Arguments<'_>) -> Result<&'a [u8]> {
        let taken = usize::try_from(len)
            .ok()
            .and_then(|len| self.bytes[self.at..].get(..len));
        let Some(taken) = taken else {
            let found = format_args!("{} until the end of the file", self.remaining());
            return Err(self.error(
                field,
                format_args!("{len} bytes at offset {}", self.at),
                found,
            ));
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: Arguments<'_>) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, field)?);
        Ok(array)
    }

    fn u32(&mut self, field: Arguments<'_>) -> Result<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: Arguments<'_>) -> Result<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Checks that `count` entries of at least `smallest` bytes each fit into the rest of the file.
    fn check_count(&self, count: u64, smallest: u64, field: Arguments<'_>) -> Result<()> {
        let room = self.remaining() as u64 / smallest;
        if count > room {
            return Err(self.error(
                field,
                format_args!("at most {room}, for which the file has room"),
                count,
            ));
        }
        Ok(())
    }

    fn string(&mut self, field: Arguments<'_>) -> Result<&'a str> {
        let len = self.u64(format_args!("{field}: length"))?;
        let start = self.at;
        let bytes = self.take(len, field)?;
        std::str::from_utf8(bytes).map_err(|error| {
            let at = start + error.valid_up_to();
            self.error(
                field,
                "UTF-8",
                format_args!("byte {:#04x} at offset {at}", self.bytes[at]),
            )
        })
    }

    fn name(&mut self, max: u64, field: Arguments<'_>) -> Result<&'a str> {
        let name = self.string(field)?;
        if name.is_empty() || name.len() as u64 > max {
            return Err(self.error(
                field,
                format_args!("1 to {max} bytes"),
                format_args!("{} bytes", name.len()),
            ));
        }
        Ok(name)
    }

    fn value(&mut self, id: u32, field: Arguments<'_>) -> Result<Value> {
        Ok(match id {
            0 => Value::U8(u8::from_le_bytes(self.array(field)?)),
            1 => Value::I8(i8::from_le_bytes(self.array(field)?)),
            2 => Value::U16(u16::from_le_bytes(self.array(field)?)),
            3 => Value::I16(i16::from_le_bytes(self.array(field)?)),
            4 => Value::U32(u32::from_le_bytes(self.array(field)?)),
            5 => Value::I32(i32::from_le_bytes(self.array(field)?)),
            6 => Value::F32(f32::from_le_bytes(self.array(field)?)),
            7 => {
                let [byte] = self.array(field)?;
                Value::Bool(self.truth(byte, field)?)
            }
            8 => Value::String(self.string(field)?.to_owned()),
            9 => Value::Array(self.values(1, field)?),
            10 => Value::U64(u64::from_le_bytes(self.array(field)?)),
            11 => Value::I64(i64::from_le_bytes(self.array(field)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(field)?)),
            _ => return Err(self.unknown_type(id, field)),
        })
    }

    fn values(&mut self, depth: usize, field: Arguments<'_>) -> Result<Array> {
        if depth > MAX_ARRAY_DEPTH {
            return Err(self.error(
                field,
                format_args!("arrays nested at most {MAX_ARRAY_DEPTH} deep"),
                "a deeper one",
            ));
        }
        let id = self.u32(format_args!("{field}: element type"))?;
        let count = self.u64(format_args!("{field}: length"))?;
        Ok(match id {
            0 => Array::U8(self.numbers(count, u8::from_le_bytes, field)?),
            1 => Array::I8(self.numbers(count, i8::from_le_bytes, field)?),
            2 => Array::U16(self.numbers(count, u16::from_le_bytes, field)?),
            3 => Array::I16(self.numbers(count, i16::from_le_bytes, field)?),
            4 => Array::U32(self.numbers(count, u32::from_le_bytes, field)?),
            5 => Array::I32(self.numbers(count, i32::from_le_bytes, field)?),
            6 => Array::F32(self.numbers(count, f32::from_le_bytes, field)?),
            7 => {
                let bytes = self.take(count, field)?;
                Array::Bool(
                    bytes
                        .iter()
                        .map(|&byte| self.truth(byte, field))
                        .collect::<Result<_>>()?,
                )
            }
            8 => Array::String(self.strings(count, field)?),
            9 => Array::Array(self.arrays(count, depth, field)?),
            10 => Array::U64(self.numbers(count, u64::from_le_bytes, field)?),
            11 => Array::I64(self.numbers(count, i64::from_le_bytes, field)?),
            12 => Array::F64(self.numbers(count, f64::from_le_bytes, field)?),
            _ => return Err(self.unknown_type(id, field)),
        })
    }

    fn numbers<T, const N: usize>(
        &mut self,
        count: u64,
        from: fn([u8; N]) -> T,
        field: Arguments<'_>,
    ) -> Result<Vec<T>> {
        self.check_count(count, N as u64, format_args!("{field}: length"))?;
        let (chunks, _) = self.take(count * N as u64, field)?.as_chunks::<N>();
        Ok(chunks.iter().map(|chunk| from(*chunk)).collect())
    }

    fn strings(&mut self, count: u64, field: Arguments<'_>) -> Result<Strings> {
        self.check_count(count, 8, format_args!("{field}: length"))?;
        // The first pass checks and measures, so that the second one allocates what is needed and no more.
        let start = self.at;
        for index in 0..count {
            self.string(format_args!("{field}: element {index}"))?;
        }
        let count = count as usize;
        let mut strings = Strings::with_capacity(count, self.at - start - 8 * count);
        self.at = start;
        for index in 0..count {
            strings.push(self.string(format_args!("{field}: element {index}"))?);
        }
        Ok(strings)
    }

    fn arrays(&mut self, count: u64, depth: usize, field: Arguments<'_>) -> Result<Vec<Array>> {
        self.check_count(count, 12, format_args!("{field}: length"))?;
        self.nested = self.nested.saturating_add(count as usize);
        if self.nested > MAX_NESTED_ARRAYS {
            let expected = format_args!("at most {MAX_NESTED_ARRAYS} arrays inside arrays");
            return Err(self.error(field, expected, self.nested));
        }
        (0..count)
            .map(|index| self.values(depth + 1, format_args!("{field}: element {index}")))
            .collect()
    }

    fn truth(&self, byte: u8, field: Arguments<'_>) -> Result<bool> {
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.error(field, "a Bool, 0 or 1", byte)),
        }
    }

    fn unknown_type(&self, id: u32, field: Arguments<'_>) -> Error {
        self.error(field, "a value type from 0 to 12", id)
    }

    /// Reads what the file says about one tensor; the range is still relative to the start of the tensors' data.
    fn tensor(&mut self, index: u64, alignment: u64) -> Result<TensorInfo> {
        let name = self.name(MAX_NAME_BYTES, format_args!("tensor name {index}"))?;
        let field = |part: &str| format!("tensor {name:?}: {part}");
        let dimensions = self.u32(format_args!("{}", field("number of dimensions")))?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(self.error(
                field("number of dimensions"),
                format_args!("1 to {MAX_DIMENSIONS}"),
                dimensions,
            ));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(self.u64(format_args!("{}", field("shape")))?);
        }
        let id = self.u32(format_args!("{}", field("type")))?;
        let offset = self.u64(format_args!("{}", field("offset")))?;
        let Some(kind) = GgmlType::from_id(id) else {
            return Err(Error::UnsupportedType {
                file: self.file.to_owned(),
                tensor: name.to_owned(),
                found: GgmlType::describe(id),
            });
        };
        if shape.contains(&0) {
            return Err(self.error(
                field("shape"),
                "dimensions of at least 1",
                format_args!("{shape:?}"),
            ));
        }
        let block_len = kind.block_len() as u64;
        if !shape[0].is_multiple_of(block_len) {
            let expected = format_args!("rows of a multiple of {block_len} weights, for {kind}");
            return Err(self.error(field("shape"), expected, shape[0]));
        }
        let Some(size) = shape
            .iter()
            .try_fold(1_u64, |product, &dimension| product.checked_mul(dimension))
            .and_then(|len| (len / block_len).checked_mul(kind.block_bytes() as u64))
            .filter(|&size| size <= self.bytes.len() as u64)
        else {
            let expected = format_args!(
                "a tensor that fits into the file's {} bytes",
                self.bytes.len()
            );
            return Err(self.error(field("shape"), expected, format_args!("{shape:?}")));
        };
        if !offset.is_multiple_of(alignment) {
            return Err(self.error(
                field("offset"),
                format_args!("a multiple of the alignment {alignment}"),
                offset,
            ));
        }
        if offset > self.bytes.len() as u64 {
            return Err(self.error(
                field("offset"),
                format_args!("at most the file's {} bytes", self.bytes.len()),
                offset,
            ));
        }
        // All numbers are at most the file's length from here on, so they fit into usize and their sums don't overflow u64.
        let range = offset as usize..(offset + size) as usize;
        Ok(TensorInfo {
            name: name.to_owned(),
            kind,
            shape: shape.iter().rev().map(|&n| n as usize).collect(),
            range,
        })
    }

    /// Makes the ranges absolute and checks that they lie in the file and apart from each other.
    fn place(&self, tensors: &mut [TensorInfo], alignment: u64) -> Result<()> {
        let start = (self.at as u64).next_multiple_of(alignment) as usize;
        for tensor in tensors.iter_mut() {
            tensor.range = start + tensor.range.start..start + tensor.range.end;
            if tensor.range.end > self.bytes.len() {
                let field = format_args!("tensor {:?}: data", tensor.name);
                let found = format_args!("a file of {} bytes", self.bytes.len());
                return Err(self.error(field, format_args!("bytes {:?}", tensor.range), found));
            }
        }
        let mut order: Vec<&TensorInfo> = tensors.iter().collect();
        order.sort_by_key(|tensor| tensor.range.start);
        for pair in order.windows(2) {
            if pair[1].range.start < pair[0].range.end {
                let field = format_args!("tensor {:?}: data", pair[1].name);
                let expected = format_args!(
                    "bytes from {} on, after tensor {:?}",
                    pair[0].range.end, pair[0].name
                );
                return Err(self.error(field, expected, format_args!("bytes {:?}", pair[1].range)));
            }
        }
        Ok(())
    }
}
