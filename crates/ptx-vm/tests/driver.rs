//! The machine as a driver, and the mistakes of other emulators that it must not make.

mod machine;

use machine::{Machine, module};
use std::sync::Arc;
use whittle_ptx_vm::{Error, FaultKind, Limits, Schedule, Size, open};
use whittle_tensor::device::{Device, DevicePtr, Driver};
use whittle_tensor::kernel::Arg;
use whittle_tensor::{DType, Tensor};

const ADD: &str = ".version 7.0
.target sm_70
.address_size 64
.visible .entry add_f32(.param .u64 x, .param .u64 y, .param .u64 out, .param .u32 n)
{
    .reg .u32 i, block, threads, size;
    .reg .u64 x_at, y_at, out_at, byte;
    .reg .f32 left, right;
    .reg .pred past;
    mov.u32 i, %tid.x;
    mov.u32 block, %ctaid.x;
    mov.u32 threads, %ntid.x;
    mad.lo.u32 i, block, threads, i;
    ld.param.u32 size, [n];
    setp.ge.u32 past, i, size;
    @past exit;
    mul.wide.u32 byte, i, 4;
    ld.param.u64 x_at, [x];
    ld.param.u64 y_at, [y];
    ld.param.u64 out_at, [out];
    add.u64 x_at, x_at, byte;
    add.u64 y_at, y_at, byte;
    add.u64 out_at, out_at, byte;
    ld.global.f32 left, [x_at];
    ld.global.f32 right, [y_at];
    add.rn.f32 left, left, right;
    st.global.f32 [out_at], left;
    exit;
}
";

whittle_tensor::kernels! {
    module "add" in ADD;

    /// `out[i] = x[i] + y[i]` for `i < n`.
    ADD_F32 = "add_f32"(x: Ptr, y: Ptr, out: Ptr, n: U32);
    /// Two parameters of two types swapped.
    SWAPPED = "add_f32"(x: Ptr, y: Ptr, out: U32, n: Ptr);
    /// Another name for a parameter.
    RENAMED = "add_f32"(x: Ptr, y: Ptr, z: Ptr, n: U32);
    /// One parameter less.
    SHORT = "add_f32"(x: Ptr, y: Ptr, out: Ptr);
    /// A kernel that is not there.
    ABSENT = "sub_f32"(x: Ptr);
}

fn message(outcome: whittle_tensor::Result<()>) -> String {
    outcome.unwrap_err().to_string()
}

#[test]
fn tensors_run_kernels_through_the_driver() {
    let vm = open(Limits::checked(80));
    let gpu = Device::Gpu(vm.clone());
    let x = Tensor::from_vec((0..100).map(|i| i as f32).collect(), &[100])
        .unwrap()
        .to_device(&gpu)
        .unwrap();
    let out = Tensor::zeros(&[100], DType::F32, &gpu).unwrap();
    let pointer = |tensor: &Tensor| Arg::Ptr(tensor.device_ptr().unwrap());
    let args = [pointer(&x), pointer(&x), pointer(&out), Arg::U32(100)];
    ADD_F32
        .launch(&*vm, [4, 1, 1], [32, 1, 1], 0, &args)
        .unwrap();
    vm.synchronize().unwrap();
    assert_eq!(
        out.to_vec::<f32>().unwrap(),
        (0..100).map(|i| 2.0 * i as f32).collect::<Vec<_>>()
    );
    let reports = vm.reports();
    let last = reports.last().expect("a report");
    assert_eq!(&*last.kernel, "add_f32");
    // 100 words of three arrays.
    assert_eq!(last.total.global_sectors, 3 * 13);
    let info = vm.info();
    assert_eq!((info.capability, info.shared_memory), ((8, 0), 163 << 10));
}

#[test]
fn signatures_are_checked_against_the_entry() {
    let vm = open(Limits::checked(80));
    let pointer = Arg::Ptr(vm.alloc(4).unwrap());
    let launch = |kernel: &whittle_tensor::kernel::Kernel, args: &[Arg]| {
        message(kernel.launch(&*vm, [1; 3], [1; 3], 0, args))
    };
    for (said, parts) in [
        (
            launch(&SWAPPED, &[pointer, pointer, Arg::U32(1), pointer]),
            ["add_f32", "out", "U32"],
        ),
        (
            launch(&RENAMED, &[pointer, pointer, pointer, Arg::U32(1)]),
            ["add_f32", "z", "out"],
        ),
        (
            launch(&SHORT, &[pointer; 3]),
            ["add_f32", "3 parameters", "4"],
        ),
        (
            launch(&ABSENT, &[pointer]),
            ["sub_f32", "an entry of this name", "add_f32"],
        ),
    ] {
        parts
            .iter()
            .for_each(|part| assert!(said.contains(part), "{said} lacks {part}"));
    }
    let size = Size {
        grid: [1; 3],
        block: [1; 3],
        shared: 0,
    };
    for args in [
        vec![],
        vec![Arg::F32(1.0); 4],
        vec![pointer, pointer, pointer, Arg::F32(1.0)],
    ] {
        let error = vm.run(ADD, "add.ptx", "add_f32", size, &args).unwrap_err();
        assert!(matches!(error, Error::Signature { .. }), "{error}");
    }
}

#[test]
fn faults_come_through_the_driver_with_file_and_line() {
    let vm = open(Limits::checked(80));
    let x = vm.alloc(40).unwrap();
    let args = [Arg::Ptr(x), Arg::Ptr(x), Arg::Ptr(x), Arg::U32(10)];
    let said = message(ADD_F32.launch(&*vm, [1; 3], [32, 1, 1], 0, &args));
    for part in [
        "ptx-vm sm_80",
        "launch",
        "UninitMemory in add_f32 at add.ptx:24",
        "thread (0, 0, 0)",
        "x +0",
    ] {
        assert!(said.contains(part), "{said} lacks {part}");
    }
    vm.upload(x, &[0; 40]).unwrap();
    let args = [Arg::Ptr(x), Arg::Ptr(x), Arg::Ptr(x), Arg::U32(11)];
    let said = message(ADD_F32.launch(&*vm, [1; 3], [32, 1, 1], 0, &args));
    for part in [
        "OutOfBounds",
        "add.ptx:24",
        "thread (10, 0, 0)",
        "lane 10",
        "x +40",
    ] {
        assert!(said.contains(part), "{said} lacks {part}");
    }
}

#[test]
fn memory_is_limited_and_pointers_are_checked() {
    let vm = open(Limits {
        memory_bytes: 1000,
        ..Limits::checked(80)
    });
    let a = vm.alloc(600).unwrap();
    let said = vm.alloc(500).unwrap_err().to_string();
    assert!(said.contains("at most 400 bytes, found 500"), "{said}");
    vm.free(a).unwrap();
    let b = vm.alloc(500).unwrap();
    assert_ne!(a, b, "an address is never given out twice");
    assert!(message(vm.free(a)).contains("given back"));
    assert!(message(vm.free(b.byte_offset(4))).contains("not the start"));
    assert!(message(vm.upload(a, &[0])).contains("given back"));
    assert!(message(vm.upload(b.byte_offset(499), &[0; 2])).contains("outside"));
    assert!(message(vm.download(DevicePtr::new(0), &mut [0])).contains("outside"));
    assert!(vm.alloc(0).is_err());
    let c = vm.alloc(100).unwrap();
    vm.upload(b, &[7; 50]).unwrap();
    vm.copy(b, c, 50).unwrap();
    let mut bytes = [0; 50];
    vm.download(c, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 50]);
}

#[test]
fn a_copy_takes_along_what_was_never_written() {
    let machine = Machine::new(Schedule::InOrder);
    let (a, b, c) = (machine.words(&[1; 8]), machine.empty(32), machine.empty(32));
    let text = module(
        "",
        ".param .u64 a",
        ".reg .u64 at; .reg .u32 x; ld.param.u64 at, [a]; ld.global.u32 x, [at + 28];",
    );
    machine.vm.copy(a, c, 32).unwrap();
    machine.run(&text, 1, 1, &[Arg::Ptr(c)]).unwrap();
    machine.vm.copy(b, c, 32).unwrap();
    let found = machine::fault(machine.run(&text, 1, 1, &[Arg::Ptr(c)]));
    assert_eq!(found.kind, FaultKind::UninitMemory);
}

#[test]
fn launches_have_limits() {
    let vm = open(Limits {
        instructions: 100,
        ..Limits::checked(70)
    });
    let text = module("", ".param .u64 a", "LOOP: bra.uni LOOP;")
        .replace("sm_80", "sm_70")
        .replace("8.0", "7.0");
    let pointer = Arg::Ptr(vm.alloc(4).unwrap());
    let run = |text: &str, grid, block, shared| {
        vm.run(
            text,
            "k.ptx",
            "k",
            Size {
                grid,
                block,
                shared,
            },
            &[pointer],
        )
        .unwrap_err()
    };
    assert!(
        matches!(run(&text, [1; 3], [32, 1, 1], 0), Error::Fault(fault) if fault.kind == FaultKind::InstructionLimit)
    );
    for error in [
        run(&text, [1; 3], [1025, 1, 1], 0),
        run(&text, [1; 3], [1, 1, 65], 0),
        run(&text, [u32::MAX, 1, 1], [1; 3], 0),
        run(&text, [65_535; 3], [1; 3], 0),
        run(&text, [1; 3], [1; 3], 97 << 10),
        run(&text.replace("sm_70", "sm_75"), [1; 3], [1; 3], 0),
        run(
            &text.replace(")\n{", ")\n.maxntid 32, 1, 1\n{"),
            [1; 3],
            [64, 1, 1],
            0,
        ),
    ] {
        assert!(matches!(error, Error::Limit { .. }), "{error}");
    }
    assert!(matches!(
        run(&text, [0, 1, 1], [1; 3], 0),
        Error::Signature { .. }
    ));
    let required = text.replace(")\n{", ")\n.reqntid 32, 1, 1\n{");
    assert!(matches!(
        run(&required, [1; 3], [64, 1, 1], 0),
        Error::Signature { .. }
    ));
}

#[test]
fn time_and_notes_have_limits() {
    let size = Size {
        grid: [4, 1, 1],
        block: [32, 1, 1],
        shared: 0,
    };
    let run = |limits: Limits, body: &str| {
        let vm = open(limits);
        let pointer = vm.alloc(4096).unwrap();
        vm.upload(pointer, &[0; 4096]).unwrap();
        let head = ".reg .u64 at; .reg .u32 x; .reg .pred p; ld.param.u64 at, [a];\n";
        let text = module("", ".param .u64 a", &format!("{head}{body}"));
        machine::fault(vm.run(&text, "k.ptx", "k", size, &[Arg::Ptr(pointer)]))
    };
    let found = run(
        Limits {
            seconds: 0,
            ..Limits::checked(80)
        },
        "LOOP: bra.uni LOOP;",
    );
    assert_eq!(found.kind, FaultKind::TimeLimit);
    // The notes on a page of memory fit; those on what each thread released to each of its words do not.
    let limits = |kib: u64| Limits {
        memory_bytes: kib << 10,
        ..Limits::checked(80)
    };
    let releases = "mov.u32 x, 0;\nLOOP:\nmembar.gl;\nred.global.add.u32 [at], 1;\nadd.u64 at, at, 4;\n\
                    add.u32 x, x, 1;\nsetp.lt.u32 p, x, 1024;\n@p bra LOOP;";
    let found = run(limits(64), releases);
    assert_eq!(found.kind, FaultKind::MemoryLimit, "{found}");
    assert!(found.what.contains("order"), "{found}");
    let found = run(limits(16), "st.global.u32 [at], 0;");
    assert_eq!(found.kind, FaultKind::MemoryLimit, "{found}");
}

#[test]
fn a_parameter_is_read_whole_and_aligned() {
    let machine = Machine::new(Schedule::InOrder);
    let run = |load: &str| {
        let body = format!(".reg .u64 wide, l, h; .reg .u32 x, y;\n{load}");
        let text = module("", ".param .u32 a, .param .u32 b, .param .u64 c", &body);
        machine.run(&text, 1, 32, &[Arg::U32(1), Arg::U32(2), Arg::U64(3)])
    };
    assert!(run("ld.param.u32 x, [b];\nld.param.u64 wide, [c];").is_ok());
    assert!(run("ld.param.u32 x, [c + 4];").is_ok());
    for (load, kind) in [
        ("ld.param.u64 wide, [a];", FaultKind::OutOfBounds),
        ("ld.param.u32 x, [c + 8];", FaultKind::OutOfBounds),
        ("ld.param.u32 x, [c + -16];", FaultKind::OutOfBounds),
        ("ld.param.u32 x, [c + 2];", FaultKind::Misaligned),
        ("ld.param.u64 wide, [b];", FaultKind::Misaligned),
        ("ld.param.v2.u32 {x, y}, [a];", FaultKind::OutOfBounds),
        ("ld.param.v2.u32 {x, y}, [b];", FaultKind::Misaligned),
    ] {
        assert_eq!(machine::fault(run(load)).kind, kind, "{load}");
    }
}

#[test]
fn initial_addresses_are_of_global_and_constant_memory() {
    let text = module(
        ".shared .align 4 .u32 tile[4];\n.global .u64 at = tile;",
        "",
        "",
    );
    let error = Machine::new(Schedule::InOrder)
        .run(&text, 1, 1, &[])
        .unwrap_err();
    assert!(
        matches!(error, Error::Unsupported { line: 5, .. }),
        "{error}"
    );
}

#[test]
fn variables_that_do_not_fit_leave_the_machine_as_it_was() {
    let vm = open(Limits {
        memory_bytes: 1 << 20,
        ..Limits::checked(80)
    });
    let size = Size {
        grid: [1; 3],
        block: [1; 3],
        shared: 0,
    };
    let head = ".global .b8 first[900000];\n.global .b8 second[900000];";
    for _ in 0..3 {
        let error = vm
            .run(&module(head, "", ""), "k.ptx", "k", size, &[])
            .unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error}");
    }
    assert!(vm.alloc(1 << 20).is_ok());
}

#[test]
fn one_machine_serves_many_threads() {
    let vm = open(Limits::checked(80));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let vm = Arc::clone(&vm);
            scope.spawn(move || {
                let x = vm.alloc(128).unwrap();
                vm.upload(x, &[0; 128]).unwrap();
                let args = [Arg::Ptr(x), Arg::Ptr(x), Arg::Ptr(x), Arg::U32(32)];
                ADD_F32.launch(&*vm, [1; 3], [32, 1, 1], 0, &args).unwrap();
            });
        }
    });
    assert_eq!(vm.reports().len(), 4);
}

fn run_one(body: &str) -> Result<Vec<u32>, Error> {
    let machine = Machine::new(Schedule::InOrder);
    let out = machine.words(&[0; 64]);
    let preamble = ".reg .u32 tid, x, y; .reg .u64 at, byte; .reg .pred p; ld.param.u64 at, [a]; mov.u32 tid, %tid.x; mul.wide.u32 byte, tid, 4; add.u64 at, at, byte;";
    machine.run(
        &module("", ".param .u64 a", &format!("{preamble}\n{body}")),
        1,
        64,
        &[Arg::Ptr(out)],
    )?;
    Ok(machine.read(out, 64))
}

#[test]
fn trap_1_unknown_opcodes_are_errors_that_name_them() {
    for (body, name) in [
        ("wgmma.fence.sync.aligned;", "wgmma"),
        ("mbarrier.init.shared.b64 [0], 1;", "mbarrier"),
        ("cp.async.bulk.commit_group;", "cp.async.bulk"),
        ("vadd.u32.u32.u32 x, x, x;", "vadd"),
    ] {
        let error = run_one(body).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn trap_2_sync_masks_count() {
    let body = "mov.u32 x, tid;\nshfl.sync.bfly.b32 y, x, 1, 31, MASK;\nst.global.u32 [at], y;";
    let found = run_one(&body.replace("MASK", "-1")).unwrap();
    assert_eq!(found, (0..64).map(|i| i ^ 1).collect::<Vec<_>>());
    let found =
        machine::fault(run_one(&body.replace("MASK", "0x7fffffff")).map(|_| unreachable!()));
    assert_eq!((found.kind, found.lane), (FaultKind::SyncMask, 31));
}

#[test]
fn trap_6_out_of_bounds_is_an_error_and_the_machine_goes_on() {
    let machine = Machine::new(Schedule::InOrder);
    let out = machine.words(&[3; 4]);
    let text = |offset: i64| {
        module(
            "",
            ".param .u64 a",
            &format!(
                ".reg .u64 at; .reg .u32 x; ld.param.u64 at, [a]; ld.global.u32 x, [at + {offset}]; st.global.u32 [at], x;"
            ),
        )
    };
    for offset in [16, -4, 1 << 20, i32::MAX as i64 - 3] {
        let found = machine::fault(machine.run(&text(offset), 1, 1, &[Arg::Ptr(out)]));
        assert_eq!(found.kind, FaultKind::OutOfBounds);
        assert_eq!(
            found.place.map(|place| (place.array, place.offset)),
            Some(("a".to_owned(), offset))
        );
    }
    assert!(machine.run(&text(12), 1, 1, &[Arg::Ptr(out)]).is_ok());
}

#[test]
fn trap_7_a_deleted_barrier_does_not_pass() {
    let body = ".shared .align 4 .u32 tile[64];\nmov.u32 x, tile;\nmad.lo.u32 x, tid, 4, x;\nst.shared.u32 [x], tid;\nbar.sync 0;\nxor.b32 x, x, 128;\nld.shared.u32 y, [x];\nst.global.u32 [at], y;";
    assert_eq!(
        run_one(body).unwrap(),
        (0..64).map(|i| i ^ 32).collect::<Vec<_>>()
    );
    let found = machine::fault(run_one(&body.replace("bar.sync 0;\n", "")).map(|_| unreachable!()));
    assert!(
        matches!(found.kind, FaultKind::SharedRace | FaultKind::UninitMemory),
        "{found}"
    );
}

#[test]
fn hostile_declarations_take_no_memory() {
    let vm = open(Limits {
        memory_bytes: 1 << 20,
        ..Limits::checked(80)
    });
    let size = Size {
        grid: [1; 3],
        block: [1024, 1, 1],
        shared: 0,
    };
    for body in [
        ".local .b8 big[1073741824];",
        ".local .b8 big[4611686018427387904]; .local .b8 more[4611686018427387904];",
        ".shared .b8 big[1073741824];",
    ] {
        let text = module("", ".param .u64 a", body);
        let outcome = vm.run(&text, "k.ptx", "k", size, &[Arg::U64(0)]);
        assert!(outcome.is_err(), "{body}");
    }
    let text = module(".global .b8 big[1073741824];", ".param .u64 a", "");
    let error = vm
        .run(&text, "k.ptx", "k", size, &[Arg::U64(0)])
        .unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

#[test]
fn addresses_at_the_ends_of_the_range_are_out_of_bounds() {
    let machine = Machine::new(Schedule::InOrder);
    let head = ".shared .align 16 .b8 tile[64];";
    for (space, width) in [
        ("global", "u32"),
        ("shared", "u32"),
        ("local", "u32"),
        ("const", "u32"),
        ("global", "v4.u32"),
    ] {
        let registers = if width == "u32" {
            "x"
        } else {
            "{x, x1, x2, x3}"
        };
        for address in [
            0,
            4,
            u64::MAX - 15,
            1 << 63,
            0xff_ffff << 40,
            0xff_fffe << 40,
        ] {
            let body = format!(
                ".reg .u64 at, start; .reg .u32 x, x1, x2, x3;\nmov.u64 start, tile;\nld.param.u64 at, [a];\nld.{space}.{width} {registers}, [at];"
            );
            let outcome = machine.run(
                &module(head, ".param .u64 a", &body),
                1,
                32,
                &[Arg::U64(address)],
            );
            let found = machine::fault(outcome);
            let expected = match (space, address) {
                ("shared", 0 | 4) => FaultKind::UninitMemory,
                _ => FaultKind::OutOfBounds,
            };
            let misaligned = width != "u32" && address == 4;
            assert!(
                found.kind == expected || misaligned && found.kind == FaultKind::Misaligned,
                "{space} {address:#x}: {found}"
            );
        }
    }
    let found = machine::fault(machine.run(
        &module(
            head,
            ".param .u64 a",
            ".reg .u64 at; ld.param.u64 at, [a];\ncp.async.ca.shared.global [tile], [at], 16;",
        ),
        1,
        1,
        &[Arg::U64(u64::MAX - 15)],
    ));
    assert_eq!(found.kind, FaultKind::OutOfBounds);
}
