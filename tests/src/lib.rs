//! Tests that cross crates, on real models and data. This library finds the data, and makes mutants of kernels.

pub mod budget;
pub mod gpu;
pub mod judge;
pub mod mutate;
pub mod parity;
pub mod survivor;

use std::io::Write;
use std::path::{Path, PathBuf};

/// The file `data/<file>` of the workspace for the test of that name.
///
/// Where it is missing, this says so on stderr and returns `None`, for the test to end there; with `WHITTLE_REQUIRE_DATA=1`
/// a missing file is a failure.
///
/// # Panics
/// Where the file is missing and required.
pub fn data(test: &str, file: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../data")
        .join(file);
    if path.exists() {
        return Some(path);
    }
    let missing = format!("{test}: needs data/{file}; run `cargo xtask data`");
    assert!(
        std::env::var_os("WHITTLE_REQUIRE_DATA").is_none_or(|value| value != "1"),
        "{missing}"
    );
    // Written past the capture of test output, or a run that skipped would look like one that passed.
    let _ = writeln!(std::io::stderr(), "SKIPPED {missing}");
    None
}
