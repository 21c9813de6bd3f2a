//! Counts what every kernel does at its named shapes and writes `ptx/<crate>/budgets.toml`. `cargo xtask kernels --bless` starts it.

use std::path::Path;
use std::process::ExitCode;
use whittle_tests::budget::Budgets;
use whittle_tests::parity::shapes;

fn main() -> ExitCode {
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("budgets: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let measured = Budgets::measured(&shapes());
    for (name, place) in whittle_tests::budget::files(&root)? {
        let now = measured.only(|entry| whittle_tests::budget::is_of(&root, &name, entry));
        let former = std::fs::read_to_string(&place).unwrap_or_default();
        let former =
            Budgets::parse(&former).map_err(|error| format!("{}: {error}", place.display()))?;
        let text = now.with_bounds_of(&former).text();
        std::fs::write(&place, text).map_err(|error| format!("{}: {error}", place.display()))?;
    }
    Ok(())
}
