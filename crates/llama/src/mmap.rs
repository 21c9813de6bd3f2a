//! The memory map: the only unsafe code of the reader.
#![allow(unsafe_code)]

use crate::{Error, Result};
use memmap2::Mmap;
use std::{
    fs::{self, File},
    path::Path,
};

/// Maps a regular file for reading.
///
/// # Errors
/// A path that is missing, unreadable or no regular file.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let error = |operation| {
        move |source| Error::Io {
            operation,
            file: path.display().to_string(),
            source,
        }
    };
    // Opening a pipe would wait for its writer, so the kind of file is asked for first.
    if !fs::metadata(path).map_err(error("open"))?.is_file() {
        let source =
            std::io::Error::new(std::io::ErrorKind::InvalidInput, "expected a regular file");
        return Err(error("open")(source));
    }
    let file = File::open(path).map_err(error("open"))?;
    // SAFETY: the map is read-only and lives as long as the returned value. What Rust can't rule out is another process
    // that shortens or rewrites the file meanwhile: reads beyond a new end then end the process with SIGBUS, and bytes may
    // change between two reads. All readers of the bytes take them as plain numbers, whose every bit pattern is a value, and
    // text is copied out while it is checked; so changed bytes give wrong numbers, never broken memory. `Gguf::open`
    // and `Safetensors::open` document this as the caller's duty.
    unsafe { Mmap::map(&file) }.map_err(error("map"))
}
