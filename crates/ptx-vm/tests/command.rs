//! The command `whittle-ptx-vm run`.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

const SCALE: &str = "// out[i] = alpha * x[i] for i < n.
.version 7.0
.target sm_70
.address_size 64
.visible .entry scale(.param .u64 x, .param .u64 out, .param .f32 alpha, .param .u32 n)
{
    .reg .u32 i, size;
    .reg .u64 x_at, out_at, byte;
    .reg .f32 value, factor;
    .reg .pred past;
    mov.u32 i, %tid.x;
    ld.param.u32 size, [n];
    setp.ge.u32 past, i, size;
    @past exit;
    mul.wide.u32 byte, i, 4;
    ld.param.u64 x_at, [x];
    ld.param.u64 out_at, [out];
    add.u64 x_at, x_at, byte;
    add.u64 out_at, out_at, byte;
    ld.global.f32 value, [x_at];
    ld.param.f32 factor, [alpha];
    mul.rn.f32 value, value, factor;
    st.global.f32 [out_at], value;
    exit;
}
";

/// Runs the command in a folder; success, and what it said.
fn run(folder: &Path, args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_whittle-ptx-vm"))
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn a_file_runs_on_files_and_says_what_it_did() {
    let folder = env::temp_dir().join(format!("whittle-ptx-vm-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("scale.ptx"), SCALE).unwrap();
    let floats = |values: &[f32]| {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    fs::write(folder.join("x"), floats(&[1.0, 2.0, 3.0])).unwrap();
    let common = [
        "run",
        "scale.ptx",
        "--entry",
        "scale",
        "--grid",
        "1",
        "--block",
        "32",
        "--arg",
        "in:f32:x",
    ];
    let with = |more: &[&str]| run(&folder, &[&common, more].concat());

    let (ok, said) = with(&["--arg", "out:f32:3:y", "--arg", "f32:2", "--arg", "u32:3"]);
    assert!(
        ok && said.contains("global_sectors") && said.contains("GlobalLoad"),
        "{said}"
    );
    assert_eq!(
        fs::read(folder.join("y")).unwrap(),
        floats(&[2.0, 4.0, 6.0])
    );
    let (ok, said) = with(&[
        "--json",
        "--schedule",
        "7",
        "--arg",
        "out:f32:3:y",
        "--arg",
        "f32:2",
        "--arg",
        "u32:3",
    ]);
    assert!(ok && said.starts_with("{\"kernel\":\"scale\""), "{said}");

    for (args, parts) in [
        (
            vec!["--arg", "out:f32:3:y", "--arg", "f32:2", "--arg", "u32:4"],
            ["OutOfBounds in scale at scale.ptx:20", "thread (3, 0, 0)"],
        ),
        (
            vec!["--arg", "out:f32:3:y", "--arg", "u32:2", "--arg", "u32:3"],
            ["alpha", "U32(2)"],
        ),
        (vec!["--arg", "out:f99:3:y"], ["f99", "bf16"]),
        (vec!["--grid", "1,2,3,4"], ["--grid", "three"]),
        (vec!["--frobnicate", "1"], ["--frobnicate", "usage"]),
        (vec!["--arg", "in:f32:absent"], ["absent", "No such file"]),
    ] {
        let (ok, said) = with(&args);
        assert!(!ok, "{said}");
        parts
            .iter()
            .for_each(|part| assert!(said.contains(part), "{said} lacks {part}"));
    }
    fs::write(
        folder.join("broken.ptx"),
        SCALE.replace(
            "mul.rn.f32 value, value, factor;",
            "mul.rn.f32 value, value;",
        ),
    )
    .unwrap();
    let (ok, said) = run(&folder, &["run", "broken.ptx", "--entry", "scale"]);
    assert!(!ok && said.starts_with("broken.ptx:22:"), "{said}");
    fs::remove_dir_all(folder).unwrap();
}
