//! Writing GGUF files, version 3.

use super::{Array, GgmlType, Value};
use crate::{Error, Result, block};
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

const ALIGNMENT: usize = 32;

/// Collects metadata and tensors, then writes the file.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    kind: GgmlType,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    Weights(Vec<f32>),
    Blocks(Vec<u8>),
}

impl Writer {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata value. The alignment is the format's default, so `general.alignment` can't be given.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Adds a tensor. `shape` is row-major, outermost dimension first; `weights` are stored as `kind`, one of
    /// [`GgmlType::QUANTIZES`].
    #[must_use]
    pub fn tensor(
        self,
        name: impl Into<String>,
        kind: GgmlType,
        shape: &[usize],
        weights: Vec<f32>,
    ) -> Self {
        self.push(name.into(), kind, shape, Data::Weights(weights))
    }

    /// Adds a tensor whose blocks are there already: the bytes of all rows, one after the other.
    #[must_use]
    pub fn blocks(
        self,
        name: impl Into<String>,
        kind: GgmlType,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> Self {
        self.push(name.into(), kind, shape, Data::Blocks(bytes))
    }

    fn push(mut self, name: String, kind: GgmlType, shape: &[usize], data: Data) -> Self {
        self.tensors.push(Tensor {
            name,
            kind,
            shape: shape.to_vec(),
            data,
        });
        self
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] where a tensor's shape does not fit its weights, its blocks or its type, or a weight is not finite in its
    /// type, or the alignment is given; [`Error::Unsupported`] for weights to be stored as a type that they can't be quantised to;
    /// [`Error::Gguf`] where the reader would refuse the file, for a name given twice for example.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        if let Some((_, value)) = self
            .metadata
            .iter()
            .find(|(key, _)| key == "general.alignment")
        {
            return Err(Error::Argument {
                operation: "write",
                argument: "general.alignment",
                expected: format!("no value, the alignment is {ALIGNMENT}"),
                found: value.describe(),
            });
        }
        let mut data = Vec::new();
        let mut offsets = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            offsets.push(data.len());
            data.extend(tensor.blocks()?);
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        }

        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        put_len(&mut out, self.tensors.len());
        put_len(&mut out, self.metadata.len());
        for (key, value) in &self.metadata {
            put_string(&mut out, key);
            out.extend(value.type_id().to_le_bytes());
            put_value(&mut out, value);
        }
        for (tensor, offset) in self.tensors.iter().zip(offsets) {
            put_string(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor
                .shape
                .iter()
                .rev()
                .for_each(|&dimension| put_len(&mut out, dimension));
            out.extend(tensor.kind.id().to_le_bytes());
            put_len(&mut out, offset);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.append(&mut data);
        super::read::contents("the file to write", &out)?;
        Ok(out)
    }

    /// Writes the file so that `path` holds either what it held before or the whole new file: into a temporary file beside it,
    /// which is flushed to the disk and renamed.
    ///
    /// # Errors
    /// Those of [`to_bytes`](Self::to_bytes), and [`Error::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.to_bytes()?;
        replace(path, &bytes).map_err(|source| Error::Io {
            operation: "write",
            file: path.display().to_string(),
            source,
        })
    }
}

impl Tensor {
    fn blocks(&self) -> Result<Vec<u8>> {
        let (found, per_block, unit) = match &self.data {
            Data::Weights(weights) => (weights.len(), self.kind.block_len(), "weights"),
            Data::Blocks(bytes) => (bytes.len(), self.kind.block_bytes(), "bytes of blocks"),
        };
        let len = self.shape.iter().try_fold(1_usize, |product, &dimension| {
            product.checked_mul(dimension)
        });
        let len = len.and_then(|len| (len / self.kind.block_len()).checked_mul(per_block));
        let whole_rows = self
            .shape
            .last()
            .is_some_and(|row| row.is_multiple_of(self.kind.block_len()));
        if len != Some(found) || !whole_rows {
            return Err(Error::Argument {
                operation: "write",
                argument: "shape",
                expected: format!(
                    "the shape of {found} {unit}, rows of a multiple of {} weights",
                    self.kind.block_len()
                ),
                found: format!("{:?} for tensor {:?}", self.shape, self.name),
            });
        }
        match &self.data {
            Data::Weights(weights) => block::quantize(self.kind, weights),
            Data::Blocks(bytes) => Ok(bytes.clone()),
        }
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend((len as u64).to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(value) => out.extend(value.to_le_bytes()),
        Value::I8(value) => out.extend(value.to_le_bytes()),
        Value::U16(value) => out.extend(value.to_le_bytes()),
        Value::I16(value) => out.extend(value.to_le_bytes()),
        Value::U32(value) => out.extend(value.to_le_bytes()),
        Value::I32(value) => out.extend(value.to_le_bytes()),
        Value::F32(value) => out.extend(value.to_le_bytes()),
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::String(text) => put_string(out, text),
        Value::Array(array) => put_array(out, array),
        Value::U64(value) => out.extend(value.to_le_bytes()),
        Value::I64(value) => out.extend(value.to_le_bytes()),
        Value::F64(value) => out.extend(value.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.element_id().to_le_bytes());
    put_len(out, array.len());
    match array {
        Array::U8(values) => out.extend(values),
        Array::I8(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::U16(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I16(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::U32(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I32(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::F32(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::Bool(values) => out.extend(values.iter().map(|&value| u8::from(value))),
        Array::String(texts) => texts.iter().for_each(|text| put_string(out, text)),
        Array::Array(arrays) => arrays.iter().for_each(|array| put_array(out, array)),
        Array::U64(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I64(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::F64(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "expected a file name"))?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let (temporary, mut file) = Temporary::create(folder, name)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary.0, path)?;
    // The rename itself is durable once the folder is.
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Removes the temporary file when writing ends early; after the rename there is nothing to remove.
struct Temporary(PathBuf);

impl Temporary {
    /// A new file under a name that no other write of this process takes. A file of that name that an ended process has left
    /// is passed over: it is not this write's to remove.
    fn create(folder: &Path, name: &OsStr) -> io::Result<(Self, File)> {
        static WRITES: AtomicU64 = AtomicU64::new(0);
        loop {
            let write = WRITES.fetch_add(1, Ordering::Relaxed);
            let mut temporary = OsString::from(".");
            temporary.push(name);
            temporary.push(format!(".{}.{write}.partial", std::process::id()));
            let path = folder.join(temporary);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((Self(path), file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
