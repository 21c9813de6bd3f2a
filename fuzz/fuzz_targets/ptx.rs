//! Any text as PTX: lexer, parser, types, control flow. Nothing may panic, and what is decoded names only what exists.
//!
//! Good files to start from are our kernels: `mkdir -p fuzz/corpus/ptx && cp crates/tensor/src/ptx/*.ptx fuzz/corpus/ptx`, then
//! `cargo +nightly fuzz run ptx -- -max_total_time=600 -max_len=8192 -rss_limit_mb=2048 -malloc_limit_mb=256 -dict=fuzz/ptx.dict`
#![no_main]

use libfuzzer_sys::fuzz_target;
use whittle_ptx_vm::op::{File, NEVER, Op};
use whittle_ptx_vm::{Error, Module};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let lines = text.lines().count() as u32 + 1;
    let module = match Module::parse(text) {
        Ok(module) => module,
        Err(Error::Parse { line, column, .. }) => {
            assert!((1..=lines).contains(&line) && column > 0);
            return;
        }
        Err(_) => return,
    };
    for entry in module.entries() {
        let [narrow, wide, predicates] = entry.registers();
        let code = entry.code();
        assert!(matches!(code.last().map(|last| &last.op), Some(Op::Exit)));
        for instruction in code {
            for range in [&instruction.reads, &instruction.writes] {
                for operand in entry.operands(range) {
                    let count = match operand.file {
                        File::Narrow => narrow,
                        File::Wide => wide,
                        File::Predicate => predicates,
                    };
                    assert!(operand.slot.index() < count);
                }
            }
            let (targets, meet) = match &instruction.op {
                Op::Bra { target, meet } => (std::slice::from_ref(target), *meet),
                Op::BrxIdx { targets, meet, .. } => (&targets[..], *meet),
                _ => continue,
            };
            assert!(targets.iter().all(|&target| (target as usize) < code.len()));
            assert!(meet == NEVER || (meet as usize) < code.len());
        }
        for &variable in entry.variables() {
            assert!(usize::from(variable) < module.variables().len());
        }
    }
});
