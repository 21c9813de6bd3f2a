//! Whether the machine has an NVIDIA driver, found out before the first call that would panic without one.

use libloading::Library;
use std::sync::OnceLock;

/// The driver's library on Linux, as the driver installs it and as a toolkit links it, and on Windows.
const NAMES: [&str; 3] = ["libcuda.so.1", "libcuda.so", "nvcuda.dll"];

/// Loads the driver's library and keeps it loaded, as cudarc does when it finds it again.
///
/// cudarc has a function for this, but not when another crate of the build asks it to link the driver.
///
/// # Errors
/// Every name that was tried and what the system's loader said of it.
pub fn find() -> Result<(), String> {
    static FOUND: OnceLock<Library> = OnceLock::new();
    if FOUND.get().is_some() {
        return Ok(());
    }
    let library = first(&NAMES)?;
    // A thread that came first has loaded the same one.
    let _ = FOUND.set(library);
    Ok(())
}

/// The first of the libraries that the system's loader finds.
fn first(names: &[&str]) -> Result<Library, String> {
    let mut tried = Vec::new();
    for &name in names {
        // SAFETY: loading a library runs its initialisers. The names are NVIDIA's driver, whose initialisers ask nothing of the
        // caller; a program that linked it would run the same ones.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(library),
            Err(error) => tried.push(format!("{name} ({})", words(&error))),
        }
    }
    Err(format!(
        "no NVIDIA driver found; looked for {}",
        tried.join(", ")
    ))
}

/// The loader's own words, which stand in the error's source.
fn words(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_an_error_that_lists_every_name() {
        let names = ["libwhittle-missing.so.1", "whittle-missing.dll"];
        let error = first(&names).unwrap_err();
        assert!(error.starts_with("no NVIDIA driver found; looked for libwhittle-missing.so.1 ("));
        assert!(error.contains("), whittle-missing.dll ("), "{error}");
    }
}
