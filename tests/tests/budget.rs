//! Kernels do what their budgets say, to the instruction and the sector.

use std::path::Path;
use whittle_tests::budget::{self, Budgets};
use whittle_tests::parity::shapes;

#[test]
fn every_kernel_keeps_its_budget() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let measured = Budgets::measured(&shapes());
    for (family, place) in budget::files(&root).unwrap() {
        let text = std::fs::read_to_string(&place).unwrap();
        let expected = Budgets::parse(&text).unwrap();
        let now = measured.only(|entry| budget::is_of(&root, &family, entry));
        let found = expected.differences(&now);
        assert!(
            found.is_empty(),
            "ptx/{family}/budgets.toml:\n{}\n(`cargo xtask kernels --bless` writes the new counts)",
            found.join("\n")
        );
    }
}
