//! Any text as kernels that run: whatever they do, the machine ends within its limits, and goes on after a fault.
//!
//! Good files to start from are our kernels: `mkdir -p fuzz/corpus/ptx_run && cp crates/tensor/src/ptx/*.ptx fuzz/corpus/ptx_run`, then
//! `cargo +nightly fuzz run ptx_run -- -max_total_time=600 -max_len=8192 -rss_limit_mb=2048 -malloc_limit_mb=256 -dict=fuzz/ptx.dict`
#![no_main]

use libfuzzer_sys::fuzz_target;
use whittle_ptx_vm::op::Type;
use whittle_ptx_vm::{Limits, Module, Schedule, Size, open};
use whittle_tensor::device::Driver;
use whittle_tensor::kernel::Arg;

const BYTES: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(module) = Module::parse(text) else {
        return;
    };
    let schedules = [Schedule::InOrder, Schedule::Reverse, Schedule::Seeded(1)];
    for entry in module.entries().iter().take(2) {
        let vm = open(Limits {
            memory_bytes: 8 << 20,
            instructions: 20_000,
            seconds: 5,
            schedule: schedules[bytes.len() % schedules.len()],
            ..Limits::checked(120)
        });
        let mut args = Vec::new();
        for parameter in entry.signature() {
            args.push(match parameter.ty {
                Type::U64 | Type::B64 => {
                    let pointer = vm.alloc(BYTES).expect("memory for a small argument");
                    vm.upload(pointer, &[1; BYTES]).expect("an upload");
                    Arg::Ptr(pointer)
                }
                Type::S64 => Arg::U64(3),
                Type::F32 => Arg::F32(1.5),
                Type::S32 => Arg::I32(-3),
                _ => Arg::U32(67),
            });
            if args.len() > 64 {
                return;
            }
        }
        let size = Size {
            grid: [2, 1, 1],
            block: entry.required_threads().unwrap_or([67, 1, 1]),
            shared: 1024,
        };
        let report = vm.run(text, "fuzz.ptx", entry.name(), size, &args);
        if let Ok(report) = report {
            assert!(report.total.instructions <= 20_000);
        }
        assert!(vm.alloc(1).is_ok(), "the machine goes on");
    }
});
