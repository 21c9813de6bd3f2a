//! The parser. It trusts no number of the file.

use super::{Dtype, Entry};
use crate::Result;
use crate::file_bytes::FileBytes;
use serde::{
    Deserialize,
    de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::collections::BTreeMap;
use std::fmt;

/// Length limit of the header, the reference reader's.
const MAX_HEADER: u64 = 100_000_000;
/// Limits below bound the memory for what is small in a file and larger in memory; real files stay far below them.
const MAX_TENSORS: usize = 8_192;
const MAX_METADATA: usize = 8_192;
const MAX_DIMENSIONS: usize = 8;

/// The key of the header that is no tensor.
const METADATA: &str = "__metadata__";

/// All that a file says.
pub(super) struct Contents {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tensors: Vec<Entry>,
    pub(super) by_name: BTreeMap<String, usize>,
}

/// Parses and checks a whole file.
///
/// # Errors
/// [`Error::Safetensors`](crate::Error::Safetensors) with the first field that breaks the format.
pub(super) fn contents(file: &FileBytes) -> Result<Contents> {
    let bytes = file.bytes();
    let Some((length, rest)) = bytes.split_first_chunk() else {
        let found = format!("a file of {} bytes", bytes.len());
        return Err(file.error("header length", "8 bytes", found));
    };
    let length = u64::from_le_bytes(*length);
    let room = MAX_HEADER.min(rest.len() as u64);
    if length > room {
        let expected = format!("at most {room}, for a file of {} bytes", bytes.len());
        return Err(file.error("header length", expected, length.to_string()));
    }
    let (header, data) = rest.split_at(length as usize);
    let header: Header = serde_json::from_slice(header).map_err(|error| {
        file.error(
            "header",
            "a JSON object of tensors, each with dtype, shape and data_offsets",
            error.to_string(),
        )
    })?;

    let start = bytes.len() - data.len();
    let mut tensors = header
        .tensors
        .into_iter()
        .map(|tensor| entry(file, tensor, start, data.len()))
        .collect::<Result<Vec<_>>>()?;
    // Names decide between tensors without bytes, so that equal files have equal orders.
    tensors.sort_by(|a, b| {
        (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name))
    });
    let mut end = start;
    for tensor in &tensors {
        if tensor.range.start != end {
            return Err(file.error(
                format!("tensor {:?}: data_offsets", tensor.name),
                format!(
                    "a begin of {}, where the tensor before it ends",
                    end - start
                ),
                (tensor.range.start - start).to_string(),
            ));
        }
        end = tensor.range.end;
    }
    if end != bytes.len() {
        return Err(file.error(
            "data",
            format!("the {} bytes that the tensors take", end - start),
            data.len().to_string(),
        ));
    }
    let by_name: BTreeMap<String, usize> = (0..)
        .zip(&tensors)
        .map(|(index, tensor)| (tensor.name.clone(), index))
        .collect();
    if by_name.len() < tensors.len() {
        let twice = (0..)
            .zip(&tensors)
            .find(|(index, tensor)| by_name[&tensor.name] != *index)
            .map_or("", |(_, tensor)| &tensor.name);
        return Err(file.error("header", "names that differ", format!("{twice:?} twice")));
    }
    Ok(Contents {
        metadata: header.metadata,
        tensors,
        by_name,
    })
}

/// Checks what the header says of one tensor against the length of the data.
fn entry(file: &FileBytes, raw: (String, Raw), start: usize, data: usize) -> Result<Entry> {
    let (name, raw) = raw;
    let error = |part: &str, expected: &str, found: String| {
        file.error(format!("tensor {name:?}: {part}"), expected, found)
    };
    let missing = |part| error(part, "a value", "none".into());
    let dtype = raw.dtype.ok_or_else(|| missing("dtype"))?;
    let shape = raw.shape.ok_or_else(|| missing("shape"))?.0;
    let [begin, end] = raw.data_offsets.ok_or_else(|| missing("data_offsets"))?;
    let Some(dtype) = Dtype::from_name(&dtype) else {
        let known = Dtype::ALL.map(Dtype::name).join(", ");
        return Err(error(
            "dtype",
            &format!("one of {known}"),
            format!("{dtype:?}"),
        ));
    };
    if begin > end || end > data as u64 {
        return Err(error(
            "data_offsets",
            &format!("a begin and an end within the {data} bytes of data"),
            format!("[{begin}, {end}]"),
        ));
    }
    let size = shape
        .iter()
        .try_fold(dtype.bytes() as u64, |size, &dimension| {
            size.checked_mul(dimension)
        });
    // A dimension of 0 beside others whose product overflows is no shape either.
    let Some(size) = size else {
        return Err(error(
            "shape",
            &format!("a tensor of the {} bytes of its data_offsets", end - begin),
            format!("{shape:?}"),
        ));
    };
    if size != end - begin {
        return Err(error(
            "data_offsets",
            &format!("{size} bytes, for {dtype} and shape {shape:?}"),
            format!("[{begin}, {end}]"),
        ));
    }
    Ok(Entry {
        shape: shape.iter().map(|&dimension| dimension as usize).collect(),
        range: start + begin as usize..start + end as usize,
        name,
        dtype,
    })
}

/// The header as it is written.
#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Raw)>,
}

/// One tensor as it is written; what is missing is found later, where the error can name the tensor.
#[derive(Deserialize)]
struct Raw {
    dtype: Option<String>,
    shape: Option<Shape>,
    data_offsets: Option<[u64; 2]>,
}

/// Dimensions, of which no more are kept than a tensor may have.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Header, A::Error> {
                let mut header = Header::default();
                let mut metadata = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == METADATA {
                        if metadata.replace(map.next_value::<Texts>()?.0).is_some() {
                            return Err(de::Error::custom("__metadata__ twice"));
                        }
                    } else if header.tensors.len() == MAX_TENSORS {
                        let message = format!("more than {MAX_TENSORS} tensors");
                        return Err(de::Error::custom(message));
                    } else {
                        header.tensors.push((key, map.next_value()?));
                    }
                }
                header.metadata = metadata.unwrap_or_default();
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The free-form metadata.
struct Texts(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Texts, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some((key, text)) = map.next_entry::<String, String>()? {
                    if texts.len() == MAX_METADATA {
                        let message = format!("more than {MAX_METADATA} metadata keys");
                        return Err(de::Error::custom(message));
                    }
                    if let Some(_older) = texts.insert(key, text) {
                        return Err(de::Error::custom("a metadata key twice"));
                    }
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut sequence: A,
            ) -> std::result::Result<Shape, A::Error> {
                let mut shape = Vec::with_capacity(MAX_DIMENSIONS);
                while shape.len() < MAX_DIMENSIONS {
                    match sequence.next_element()? {
                        Some(dimension) => shape.push(dimension),
                        None => return Ok(Shape(shape)),
                    }
                }
                match sequence.next_element::<IgnoredAny>()? {
                    Some(_) => Err(de::Error::invalid_length(MAX_DIMENSIONS + 1, &self)),
                    None => Ok(Shape(shape)),
                }
            }
        }
        deserializer.deserialize_seq(Dimensions)
    }
}
