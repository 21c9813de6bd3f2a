//! The front end against the pinned assemblers: each one-instruction kernel of `ptx/conformance.tsv` is accepted and refused as
//! they do, unless the machine does not know the instruction, which is counted apart.

use std::collections::BTreeMap;
use whittle_ptx_vm::{Error, Module};

/// What assemblers accept and this machine does not know: first words of the kernels, and how many there are of each. They are
/// modifiers and instructions of sm_90, of clusters, of 16-bit carries, of f64 and sparse matrices, and mbarriers.
const UNSUPPORTED: &str = "add 1, addc 2, barrier 2, brkpt 1, cp 1, cvt 5, discard 1, elect 2, fence 3, ld 1, ldmatrix 7, \
    madc 2, max 1, mbarrier 6, min 1, mma 4, mov 4, red 2, reg 2, stmatrix 1, subc 2";

#[test]
fn the_front_end_accepts_and_refuses_what_the_assemblers_do() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ptx/conformance.tsv");
    let table = std::fs::read_to_string(path).unwrap();
    let module: String = table
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| ")?.to_owned() + "\n"))
        .collect();
    let (mut compared, mut wrong) = (0, Vec::new());
    let mut unsupported: BTreeMap<&str, usize> = BTreeMap::new();
    for (verdicts, body) in table.lines().filter_map(|line| line.split_once('\t')) {
        let accepted = verdicts.contains('+');
        assert!(
            !accepted || !verdicts.contains('-'),
            "the assemblers differ on {body}"
        );
        match (Module::parse(&whole(&module, body)), accepted) {
            (Ok(_), true) | (Err(_), false) => {}
            (Err(Error::Unsupported { .. }), true) => {
                let word = body.split(['.', ' ', ';']).find(|word| !word.is_empty());
                *unsupported.entry(word.unwrap_or_default()).or_insert(0) += 1;
                continue;
            }
            (Ok(_), false) => wrong.push(format!("accepted: {body}")),
            (Err(error), true) => wrong.push(format!("refused: {body}: {error}")),
        }
        compared += 1;
    }
    assert!(
        wrong.is_empty(),
        "{} of {compared}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(compared > 4000, "{compared} compared");
    let unsupported: Vec<String> = unsupported
        .iter()
        .map(|(word, count)| format!("{word} {count}"))
        .collect();
    assert_eq!(unsupported.join(", "), UNSUPPORTED);
}

/// The module with a body, which may name another version and target before it: `[7.0 sm_80] `.
fn whole(module: &str, body: &str) -> String {
    let header = body
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "));
    let Some((header, body)) = header else {
        return module.replacen('@', body, 1);
    };
    let (version, target) = header.split_once(' ').unwrap();
    let headed = module.lines().map(|line| match line.split(' ').next() {
        Some(".version") => format!(".version {version}\n"),
        Some(".target") => format!(".target {target}\n"),
        _ => format!("{line}\n"),
    });
    headed.collect::<String>().replacen('@', body, 1)
}
