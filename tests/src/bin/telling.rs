//! Prints the rows of softmax that tell of each instruction: `cargo run --release --bin telling > tests/src/parity/softmax.tsv`, a few
//! minutes.

fn main() {
    print!("{}", whittle_tests::parity::softmax_rows());
}
