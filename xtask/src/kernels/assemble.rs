//! Assembly: what `ptxas` says of a kernel on each architecture, remembered by the hash of everything that decides it.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tool::Tool;
use crate::failure::{Context, Failure, Result};
use crate::root::root;
use crate::{digest, process};

/// Assemblers at once.
const PARALLEL: usize = 2;

/// One kernel on one architecture by one assembler.
pub struct Job<'a> {
    /// The file, from the root of the repository.
    pub path: &'a str,
    /// Its text.
    pub text: &'a str,
    /// The number behind `sm_`.
    pub architecture: &'static str,
    /// The assembler.
    pub tool: &'a Tool,
}

/// What a kernel takes, per thread and block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// 32-bit registers a thread.
    pub registers: u32,
    /// Bytes of static shared memory a block.
    pub shared: u32,
    /// Barriers a block; the 12.2 assembler doesn't say.
    pub barriers: Option<u32>,
    /// Bytes of local memory a thread.
    pub stack: u32,
    /// Bytes of spilled registers, stores and loads together.
    pub spills: u32,
}

/// Runs the jobs, and returns what each one's kernel takes, in their order.
pub fn assemble(jobs: &[Job<'_>]) -> Vec<Result<Resources>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { return done };
            done.push((at, job.run()));
        }
    };
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_default())
            .collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

impl Job<'_> {
    /// `sm_80, ptxas 13.5`.
    pub fn name(&self) -> String {
        format!("sm_{}, ptxas {}", self.architecture, self.tool.release())
    }

    fn run(&self) -> Result<Resources> {
        let key = [self.tool.version(), self.architecture, self.text].join("\0");
        let memory = verdicts().join(digest::sha256_of(key.as_bytes()));
        if let Ok(said) = fs::read_to_string(&memory) {
            return parse(&said);
        }
        let cubin = memory.with_added_extension(format!("{}.cubin", std::process::id()));
        let said = self.assemble(&cubin);
        if cubin.exists() {
            fs::remove_file(&cubin).context(cubin.display())?;
        }
        let said = said?;
        let resources = parse(&said)?;
        digest::write_whole(&memory, said.as_bytes())?;
        Ok(resources)
    }

    /// Assembles into `cubin` and returns what the assembler said; its complaints are the error.
    pub fn assemble(&self, cubin: &std::path::Path) -> Result<String> {
        let folder = verdicts();
        fs::create_dir_all(&folder).context(folder.display())?;
        let program = self.tool.place().display().to_string();
        let architecture = format!("-arch=sm_{}", self.architecture);
        let cubin = cubin.display().to_string();
        let mut command = process::program(&program, &arguments(&architecture, &cubin, self.path));
        let output = command
            .stdin(Stdio::null())
            .output()
            .context(format!("could not start `{}`", process::shown(&command)))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let complaints: Vec<&str> = said
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with("ptxas info") && !line.is_empty())
            .collect();
        Err(Failure::new(complaints.join("; ")))
    }
}

/// What the assembler is told. It ignores `-maxrregcount` beside `.maxntid`, so that registers are bounded by directives alone.
const fn arguments<'a>(architecture: &'a str, cubin: &'a str, path: &'a str) -> [&'a str; 8] {
    [
        "-v",
        architecture,
        "-Werror",
        "--warn-on-spills",
        "--warn-on-local-memory-usage",
        "--output-file",
        cubin,
        path,
    ]
}

/// Where verdicts are remembered.
pub fn verdicts() -> PathBuf {
    root().join("target/xtask/verdicts")
}

/// Reads the assembler's lines about its only entry.
fn parse(said: &str) -> Result<Resources> {
    let before = |what: &str| -> Option<u32> {
        let at = said.find(what)?;
        said[..at]
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    let missing = |what: &str| {
        Failure::new(format!(
            "ptxas did not say `{what}`; it said: {}",
            said.trim()
        ))
    };
    let need = |what: &str| before(what).ok_or_else(|| missing(what));
    let resources = Resources {
        registers: need(" registers")?,
        shared: before(" bytes smem").unwrap_or(0),
        barriers: before(" barriers"),
        stack: need(" bytes stack frame")?,
        spills: need(" bytes spill stores")? + need(" bytes spill loads")?,
    };
    if resources.stack > 0 || resources.spills > 0 {
        return Err(Failure::new(format!(
            "expected no spills and no stack, found {} and {} bytes",
            resources.spills, resources.stack
        )));
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "ptxas info    : 0 bytes gmem\nptxas info    : Compiling entry function 'a' for 'sm_80'\n\
                       ptxas info    : Function properties for a\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                       ptxas info    : Used 18 registers, used 1 barriers, 2048 bytes smem, 364 bytes cmem[0]\n\
                       ptxas info    : Compile time = 2.503 ms\n";

    #[test]
    fn both_formats_are_read() {
        let mut expected = Resources {
            registers: 18,
            shared: 2048,
            barriers: Some(1),
            ..Resources::default()
        };
        assert_eq!(parse(NEW).unwrap(), expected);
        expected.barriers = None;
        assert_eq!(
            parse(&NEW.replace(", used 1 barriers", "")).unwrap(),
            expected
        );
        expected.shared = 0;
        let old = NEW.replace(", used 1 barriers, 2048 bytes smem", "");
        assert_eq!(parse(&old).unwrap(), expected);
    }

    #[test]
    fn spills_stack_and_silence_are_failures() {
        for (from, to) in [
            ("0 bytes stack", "16 bytes stack"),
            ("0 bytes spill stores", "4 bytes spill stores"),
            ("0 bytes spill loads", "4 bytes spill loads"),
            ("Used 18 registers", "Used"),
        ] {
            assert!(parse(&NEW.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn trap_10_no_option_that_the_assembler_ignores_bounds_registers() {
        let told = arguments("-arch=sm_80", "a.cubin", "a.ptx");
        assert!(told.contains(&"--warn-on-spills") && told.contains(&"-Werror"));
        assert!(
            told.iter()
                .all(|argument| !argument.contains("maxrregcount"))
        );
    }
}
