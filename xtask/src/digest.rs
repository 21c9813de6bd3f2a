//! SHA-256 of files, and copies that are whole or not there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use crate::failure::{Context, Failure, Result};

/// Files above this size show a bar while they are read.
const BAR_FROM: u64 = 16 << 20;

/// The SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    read_through(path, |_| Ok(()))
}

/// The SHA-256 of bytes, in hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String {
    hexadecimal(Sha256::new_with_prefix(bytes))
}

/// Copies `from` to `to`, checking its length and SHA-256 on the way. `to` is written beside its place, synced and renamed, so it
/// is never half a file.
pub fn copy_checked(from: &Path, to: &Path, bytes: u64, sha: &str) -> Result<()> {
    let found = fs::metadata(from).context(from.display())?.len();
    if found != bytes {
        return Err(Failure::new(format!(
            "{}: expected {bytes} bytes, found {found}",
            from.display()
        )));
    }
    let folder = to
        .parent()
        .ok_or_else(|| Failure::new(format!("{}: has no folder", to.display())))?;
    fs::create_dir_all(folder).context(folder.display())?;
    let partial = to.with_added_extension("partial");
    let mut file = File::create(&partial).context(partial.display())?;
    let found = read_through(from, |chunk| {
        file.write_all(chunk).context(partial.display())
    })?;
    if found != sha {
        fs::remove_file(&partial).context(partial.display())?;
        return Err(Failure::new(format!(
            "{}: expected SHA-256 {sha}, found {found}",
            from.display()
        )));
    }
    file.sync_all().context(partial.display())?;
    fs::rename(&partial, to).context(to.display())
}

/// Writes a small file in one step: beside its place, synced, renamed.
pub fn write_whole(path: &Path, contents: &[u8]) -> Result<()> {
    let folder = path
        .parent()
        .ok_or_else(|| Failure::new(format!("{}: has no folder", path.display())))?;
    fs::create_dir_all(folder).context(folder.display())?;
    let partial = path.with_added_extension("partial");
    let mut file = File::create(&partial).context(partial.display())?;
    file.write_all(contents).context(partial.display())?;
    file.sync_all().context(partial.display())?;
    fs::rename(&partial, path).context(path.display())
}

fn read_through(path: &Path, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<String> {
    let mut file = File::open(path).context(path.display())?;
    let length = file.metadata().context(path.display())?.len();
    let bar = if length < BAR_FROM {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(length)
    };
    bar.set_style(
        ProgressStyle::with_template("  checking {msg} [{bar:30}] {bytes}/{total_bytes}")
            .context("progress bar")?
            .progress_chars("=> "),
    );
    bar.set_message(
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    );
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 18];
    loop {
        let n = file.read(&mut chunk).context(path.display())?;
        if n == 0 {
            break;
        }
        hash.update(&chunk[..n]);
        each(&chunk[..n])?;
        bar.inc(n as u64);
    }
    bar.finish_and_clear();
    Ok(hexadecimal(hash))
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of the three bytes `abc` (FIPS 180-4, appendix B.1 of the 2002 edition).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn folder(name: &str) -> std::path::PathBuf {
        let path = crate::root::output().join("unit").join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_copy_is_whole_or_not_there() {
        let folder = folder("copy");
        let (from, to) = (folder.join("from"), folder.join("deep").join("to"));
        write_whole(&from, b"abc").unwrap();
        assert_eq!(sha256(&from).unwrap(), ABC);
        assert_eq!(sha256_of(b"abc"), ABC);

        let wrong = copy_checked(&from, &to, 3, &ABC.replace('b', "c"))
            .unwrap_err()
            .to_string();
        assert!(
            wrong.contains("expected SHA-256 ca78") && wrong.contains(ABC),
            "{wrong}"
        );
        let short = copy_checked(&from, &to, 4, ABC).unwrap_err().to_string();
        assert!(short.ends_with("expected 4 bytes, found 3"), "{short}");
        assert_eq!(fs::read_dir(folder.join("deep")).unwrap().count(), 0);

        copy_checked(&from, &to, 3, ABC).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"abc");
        assert_eq!(fs::read_dir(folder.join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_file_is_named() {
        let failure = sha256(&folder("missing").join("nothing"))
            .unwrap_err()
            .to_string();
        assert!(failure.contains("nothing"), "{failure}");
    }
}
