//! NVIDIA's compute-sanitizer over the parity bodies, where it is installed.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Its tools: addresses, shared-memory races, uninitialised memory, barriers.
const TOOLS: [&str; 4] = ["memcheck", "racecheck", "initcheck", "synccheck"];

/// The exit code that means a finding and nothing else.
const FINDING: i32 = 77;

/// Runs `program arguments…` under every tool. `None` where the sanitizer is not installed.
pub fn verdicts(program: &Path, arguments: &[&str]) -> Option<Vec<Value>> {
    let sanitizer = find()?;
    let verdict = |tool: &&str| {
        let output = Command::new(&sanitizer)
            .args(["--tool", tool, "--error-exitcode", &FINDING.to_string()])
            .arg(program)
            .args(arguments)
            .output();
        match output {
            Err(error) => json!({ "tool": tool, "error": error.to_string() }),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                verdict_of(tool, output.status.code(), &text)
            }
        }
    };
    Some(TOOLS.iter().map(verdict).collect())
}

/// The verdict with the sanitizer's last lines, which count its findings.
fn verdict_of(tool: &str, code: Option<i32>, text: &str) -> Value {
    let findings = text.lines().filter(|line| line.starts_with("========="));
    let last: Vec<&str> = findings.collect();
    let verdict = match code {
        Some(0) => "clean",
        Some(FINDING) => "findings",
        _ => "did not finish",
    };
    json!({
        "tool": tool,
        "verdict": verdict,
        "exit_code": code,
        "last_lines": last[last.len().saturating_sub(20)..],
    })
}

/// In the path, or where toolkits put it.
fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/cuda/bin", "/opt/cuda/bin"].map(PathBuf::from))
        .map(|folder| folder.join("compute-sanitizer"))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_findings_from_a_run_that_broke() {
        let text =
            "parity: 12 bodies\n========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 1 error\n";
        let of = |code| verdict_of("memcheck", code, text);
        assert_eq!(of(Some(0))["verdict"], "clean");
        assert_eq!(of(Some(FINDING))["verdict"], "findings");
        assert_eq!(of(Some(1))["verdict"], "did not finish");
        assert_eq!(of(None)["verdict"], "did not finish");
        let lines = of(Some(0))["last_lines"].as_array().unwrap().len();
        assert_eq!(lines, 2);
    }
}
