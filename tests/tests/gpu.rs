//! The program of the GPU folder, end to end on the virtual machine: what it writes, and what it says where there is nothing to measure.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn whittle_gpu(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_whittle-gpu"))
        .args(flags)
        .output()
        .unwrap()
}

#[test]
fn every_typed_form_table_and_timing_runs_and_is_written() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gpu");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let out = folder.display().to_string();
    let only = "resources,forms,approx,timing";
    let output = whittle_gpu(&["--device", "vm", "--only", only, "--quick", "--out", &out]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    let text = std::fs::read_to_string(folder.join("gpu.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["machine"]["measured"], false);
    assert!(!folder.join("gpu.json.partial").exists());
    for part in only.split(',') {
        assert_eq!(report[part]["findings"], 0, "{part}: {said}");
    }

    let forms = report["forms"]["result"]["forms"].as_array().unwrap();
    assert!(forms.len() > 600, "{} forms", forms.len());
    assert!(forms.iter().all(|form| form["words"].as_u64() > Some(0)));

    let tables = report["approx"]["result"]["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 15);
    for table in tables {
        // The virtual machine rounds to nearest: every block is the reference.
        let compared = table["inputs_compared"].as_u64().unwrap();
        assert_eq!(table["blocks_equal_to_nearest"], compared >> 16, "{table}");
        let name = table["instruction"].as_str().unwrap();
        let hashes = std::fs::read(folder.join(format!("approx/{name}.hashes"))).unwrap();
        assert_eq!(
            hashes.len() as u64,
            table["inputs_hashed"].as_u64().unwrap() >> 13
        );
        let residuals = folder.join(format!("approx/{name}.residuals"));
        assert_eq!(residuals.exists(), !name.contains("ftz"), "{name}");
    }

    let timing = &report["timing"]["result"];
    assert!(timing["copy"]["gigabytes_per_second"].as_f64() > Some(0.0));
    let operations = timing["operations"].as_array().unwrap();
    assert!(
        operations
            .iter()
            .any(|row| row["percent_of_copy"].is_number())
    );
    assert!(operations.iter().any(|row| row["teraflops"].is_number()));
    assert!(timing["library_bf16_product"]["not_measured"].is_string());
}

#[test]
fn without_the_device_nothing_is_measured_and_the_exit_code_says_so() {
    let output = whittle_gpu(&["--device", "cuda:4096", "--no-report"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("cuda:4096: open failed: "), "{said}");
    assert!(said.contains("nothing was measured"), "{said}");
}

#[test]
fn wrong_flags_are_named_with_the_right_ones() {
    for (flags, named) in [
        (&["--devise", "vm"][..], "unknown flag `--devise`"),
        (&["--only", "all"], "found `all`"),
        (&["--out"], "--out needs a value"),
    ] {
        let output = whittle_gpu(flags);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(named), "{said}");
    }
}
