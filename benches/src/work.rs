//! Independent pieces of work, one thread each, with a progress bar; finished pieces survive an interrupted run.

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Results by key, in a file of JSON lines.
pub struct Finished {
    known: HashMap<String, serde_json::Value>,
    file: Option<Mutex<File>>,
}

impl Finished {
    /// Nothing is known and nothing is kept.
    pub fn forgetful() -> Self {
        Self {
            known: HashMap::new(),
            file: None,
        }
    }

    /// Reads what an interrupted run left; a torn last line is dropped.
    ///
    /// # Errors
    /// A file that can't be read or opened for writing.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut known = HashMap::new();
        if path.exists() {
            for line in BufReader::new(File::open(path)?).lines() {
                if let Ok((key, value)) = serde_json::from_str(&line?) {
                    known.insert(key, value);
                }
            }
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        // A torn last line must not swallow the next one.
        writeln!(file)?;
        Ok(Self {
            known,
            file: Some(Mutex::new(file)),
        })
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_value(self.known.get(key)?.clone()).ok()
    }

    fn put<T: Serialize>(&self, key: &str, value: &T) {
        if let Some(file) = &self.file
            && let Ok(line) = serde_json::to_string(&(key, value))
        {
            // Losing a line costs a repetition, nothing else.
            let _ = writeln!(
                file.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
                "{line}"
            );
        }
    }
}

/// One piece of work.
pub struct Piece<'a, T> {
    /// Names the piece in an interrupted run's file.
    pub key: String,
    /// Its share of the progress bar.
    pub weight: u64,
    /// Does it.
    #[allow(clippy::type_complexity)]
    pub run:
        Box<dyn Fn() -> Result<T, Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'a>,
}

/// Does all pieces, `threads` at a time, each in a pool of one thread, and returns the results in the order of the pieces.
///
/// # Errors
/// The first piece that failed.
pub fn run<T: Serialize + DeserializeOwned + Send>(
    label: &str,
    threads: usize,
    finished: &Finished,
    pieces: &[Piece<'_, T>],
) -> Result<Vec<T>, Box<dyn std::error::Error + Send + Sync>> {
    let bar = ProgressBar::new(pieces.iter().map(|piece| piece.weight).sum());
    if let Ok(style) =
        ProgressStyle::with_template("{msg:24} {wide_bar} {percent:>3} % {elapsed} (left {eta})")
    {
        bar.set_style(style);
    }
    bar.set_message(label.to_owned());
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<T>>> = Mutex::new(pieces.iter().map(|_| None).collect());
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let pool = match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
                    Ok(pool) => pool,
                    Err(error) => {
                        failure
                            .lock()
                            .unwrap_or_else(|p| p.into_inner())
                            .get_or_insert(error.into());
                        return;
                    }
                };
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(piece) = pieces.get(at) else { return };
                    let result = match finished.get(&piece.key) {
                        Some(result) => Ok(result),
                        None => pool
                            .install(|| (piece.run)())
                            .inspect(|result| finished.put(&piece.key, result)),
                    };
                    bar.inc(piece.weight);
                    match result {
                        Ok(result) => {
                            results.lock().unwrap_or_else(|p| p.into_inner())[at] = Some(result)
                        }
                        Err(error) => {
                            next.store(pieces.len(), Ordering::Relaxed);
                            failure
                                .lock()
                                .unwrap_or_else(|p| p.into_inner())
                                .get_or_insert(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    match failure.into_inner().unwrap_or_else(|p| p.into_inner()) {
        Some(error) => Err(error),
        None => Ok(results
            .into_inner()
            .unwrap_or_else(|p| p.into_inner())
            .into_iter()
            .flatten()
            .collect()),
    }
}
