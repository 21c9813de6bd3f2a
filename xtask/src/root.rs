//! Where things lie in the repository.

use std::path::PathBuf;

/// The root of the repository.
pub fn root() -> PathBuf {
    // `cargo run` sets the variable, so a repository that was moved after the build is still found.
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut path = PathBuf::from(package);
    path.pop();
    path
}

/// Models and texts, git-ignored.
pub fn data() -> PathBuf {
    root().join("data")
}

/// What the tasks write: reports, and scratch folders of the fetches.
pub fn output() -> PathBuf {
    root().join("target").join("whittle")
}
