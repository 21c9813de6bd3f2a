//! Every kind of fault, planted in small kernels: found at its line, with its name, block and thread; and the same kernel without
//! it runs under every schedule.

mod machine;

use machine::{Machine, fault, module, schedules};
use whittle_ptx_vm::fault::Access;
use whittle_ptx_vm::{FaultKind, Schedule};
use whittle_tensor::device::Driver;
use whittle_tensor::kernel::Arg;

/// A kernel of two blocks of 64 threads. A line of `body` that begins with `-` is in the faulty one alone, one with `+` in the
/// correct one alone; the fault is at the line that ends with `// here`, or with `// there` under another schedule.
struct Case {
    kind: FaultKind,
    block: u32,
    thread: u32,
    body: &'static str,
}

const HEAD: &str = ".const .align 4 .u32 table[4] = {1, 2, 3, 4};
.global .align 4 .u32 counter;";
const PARAMETERS: &str = ".param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n";
/// `a` has 256 words, `b` room for 256, `c` four words, 0 each.
const PREAMBLE: &str = "
    .shared .align 16 .u32 tile[64];
    .shared .align 16 .u32 other[64];
    .local .align 16 .u32 mine[4];
    .reg .u32 tid, block, i, x, y, z, w, unset, at, next, last, lane, bit;
    .reg .u64 a_base, b_base, c_base, a_at, b_at, byte, wide;
    .reg .f32 f, g;
    .reg .pred p, q, unset_p;
    mov.u32 tid, %tid.x;
    mov.u32 lane, %laneid;
    mov.u32 block, %ctaid.x;
    mad.lo.u32 i, block, 64, tid;
    ld.param.u64 a_base, [a];
    ld.param.u64 b_base, [b];
    ld.param.u64 c_base, [c];
    mul.wide.u32 byte, i, 4;
    add.u64 a_at, a_base, byte;
    add.u64 b_at, b_base, byte;
    mov.u32 x, tid;
    mov.u32 at, tile;
    mad.lo.u32 at, tid, 4, at;
    // next: the place of the next thread, last of the one before
    add.u32 next, tid, 1;
    and.b32 next, next, 63;
    shl.b32 next, next, 2;
    mov.u32 z, tile;
    add.u32 next, next, z;
    xor.b32 last, at, 128;";

impl Case {
    fn text(&self, faulty: bool) -> String {
        let keep = |line: &str| match (line.trim_start().chars().next(), faulty) {
            (Some('-'), faulty) => faulty.then(|| line.replacen('-', " ", 1)),
            (Some('+'), faulty) => (!faulty).then(|| line.replacen('+', " ", 1)),
            _ => Some(line.to_owned()),
        };
        let body: Vec<String> = self.body.lines().filter_map(keep).collect();
        module(
            HEAD,
            PARAMETERS,
            &format!("{PREAMBLE}\n{}", body.join("\n")),
        )
    }

    fn run(
        &self,
        faulty: bool,
        schedule: Schedule,
    ) -> Result<whittle_ptx_vm::Report, whittle_ptx_vm::Error> {
        let machine = Machine::new(schedule);
        let a = machine.words(&(0..256).collect::<Vec<_>>());
        let b = machine.empty(1024);
        let c = machine.words(&[0; 4]);
        if self.kind == FaultKind::UseAfterFree && faulty {
            machine.vm.free(c).unwrap();
        }
        let args = [Arg::Ptr(a), Arg::Ptr(b), Arg::Ptr(c), Arg::U32(256)];
        machine.run(&self.text(faulty), 2, 64, &args)
    }
}

fn check(cases: &[Case]) {
    assert!(cases.len() >= 3);
    for case in cases {
        let text = case.text(true);
        let marked = |mark: &str| {
            text.lines()
                .position(|line| line.ends_with(mark))
                .map(|line| line as u32 + 1)
        };
        let here = marked("// here").expect("a mark");
        for schedule in schedules() {
            let outcome = case.run(false, schedule);
            assert!(
                outcome.is_ok(),
                "{schedule:?}: {outcome:?} in\n{}",
                case.text(false)
            );
            let found = fault(case.run(true, schedule));
            assert_eq!(found.kind, case.kind, "{schedule:?}: {found} in\n{text}");
            assert!(
                found.line == here || Some(found.line) == marked("// there"),
                "{schedule:?}: {found}, expected line {here} in\n{text}"
            );
        }
        let found = fault(case.run(true, Schedule::InOrder));
        assert_eq!(found.line, here, "{found} in\n{text}");
        let place = (found.block, found.thread, found.warp, found.lane);
        let expected = (
            [case.block, 0, 0],
            [case.thread, 0, 0],
            case.thread / 32,
            case.thread % 32,
        );
        assert_eq!(place, expected, "{found} in\n{text}");
        assert_eq!((&*found.kernel, &*found.file), ("k", "k.ptx"));
        let shown = found.to_string();
        assert!(
            shown.starts_with(&format!(
                "{:?} in k at k.ptx:{here}, block ({}, 0, 0)",
                case.kind, case.block
            )),
            "{shown}"
        );
        if matches!(case.kind, FaultKind::SharedRace | FaultKind::GlobalRace) {
            let other = found.other.expect("a race has two sides");
            assert!(
                (other.block, other.thread) != (found.block, found.thread),
                "{shown}"
            );
            let touches = |line: u32| {
                let line = text.lines().nth(line as usize - 1).unwrap_or_default();
                let ops = ["ld.", "st.", "atom.", "red.", "cp.async"];
                ops.iter().any(|op| line.contains(op))
            };
            assert!(touches(other.line), "{shown}");
            let reads = text.lines().nth(here as usize - 1).unwrap_or_default();
            let reads = reads.contains("ld.");
            assert!(!reads || other.access != Access::Read, "{shown}");
            let place = found.place.expect("a race has a place");
            let arrays = ["a", "b", "c", "tile", "other", "counter"];
            assert!(
                arrays.contains(&&*place.array) && (0..1024).contains(&place.offset),
                "{shown}"
            );
        }
    }
}

const fn case(kind: FaultKind, block: u32, thread: u32, body: &'static str) -> Case {
    Case {
        kind,
        block,
        thread,
        body,
    }
}

#[test]
fn out_of_bounds() {
    use FaultKind::OutOfBounds as K;
    check(&[
        case(K, 0, 0, "-add.u64 a_at, a_at, 1024;\nld.global.u32 x, [a_at]; // here"),
        case(K, 0, 0, "-ld.global.u32 x, [a_base + -4]; // here\n+ld.global.u32 x, [a_base];"),
        case(K, 1, 62, "-add.u64 b_at, b_at, 520;\nst.global.u32 [b_at], x; // here"),
        case(K, 0, 63, "-add.u32 at, at, 4;\nst.shared.u32 [at], x; // here"),
        case(K, 0, 0, "-add.u32 at, at, -4;\nst.shared.u32 [at], x; // here"),
        case(K, 0, 0, "mov.u32 z, mine;\nst.local.u32 [z + 12], x;\n-ld.local.u32 y, [z + 16]; // here\n+ld.local.u32 y, [z + 12];"),
        case(K, 0, 0, "-ld.const.u32 y, [table + 16]; // here\n+ld.const.u32 y, [table + 12];"),
        case(K, 0, 0, "-atom.global.add.u32 y, [c_base + 16], 1; // here\n+atom.global.add.u32 y, [c_base + 12], 1;"),
        case(K, 0, 0, "-mov.u64 a_at, 0;\nld.u32 x, [a_at]; // here"),
        case(K, 0, 0, "cvta.shared.u64 wide, tile_address;\n-add.u64 wide, wide, 256;\nsetp.eq.u32 p, tid, 0;\n@p st.u32 [wide], 1; // here")
            .with_generic_tile(),
    ]);
}

#[test]
fn use_after_free() {
    use FaultKind::UseAfterFree as K;
    check(&[
        case(K, 0, 0, "ld.global.u32 x, [c_base]; // here"),
        case(K, 0, 0, "st.global.u32 [c_base], 7; // here").one_thread(),
        case(K, 0, 0, "red.global.add.u32 [c_base + 4], 1; // here"),
        case(K, 0, 0, "ld.v2.u32 {x, y}, [c_base + 8]; // here"),
    ]);
}

#[test]
fn misaligned() {
    use FaultKind::Misaligned as K;
    check(&[
        case(
            K,
            0,
            0,
            "-ld.global.v4.u32 {x, y, z, w}, [a_base + 4]; // here\n+ld.global.v4.u32 {x, y, z, w}, [a_base + 16];",
        ),
        case(
            K,
            0,
            1,
            "-ld.global.u64 wide, [a_at]; // here\n+ld.global.u32 x, [a_at];",
        ),
        case(
            K,
            0,
            0,
            "-add.u32 at, at, 2;\n-st.shared.u16 [at], 1;\n-st.shared.u32 [at], x; // here\n+st.shared.u32 [at], x;",
        ),
        case(
            K,
            0,
            0,
            "mov.u32 z, mine;\n-st.local.v2.u32 [z + 4], {x, x}; // here\n+st.local.v2.u32 [z + 8], {x, x};",
        ),
        case(
            K,
            0,
            0,
            "mov.u32 z, tile;\n-add.u64 a_base, a_base, 4;\nshl.b32 y, tid, 4;\nadd.u32 z, z, y;\nsetp.lt.u32 p, tid, 16;\n@p cp.async.ca.shared.global [z], [a_base], 16; // here\ncp.async.wait_all;",
        ),
    ]);
}

#[test]
fn uninit_memory() {
    use FaultKind::UninitMemory as K;
    check(&[
        case(
            K,
            0,
            0,
            "+st.global.u32 [b_at], x;\nld.global.u32 y, [b_at]; // here",
        ),
        case(
            K,
            0,
            0,
            "+st.shared.u32 [at], x;\nld.shared.u32 y, [at]; // here",
        ),
        case(
            K,
            0,
            0,
            "mov.u32 z, mine;\n+st.local.u32 [z], x;\nld.local.u32 y, [z]; // here",
        ),
        case(
            K,
            0,
            8,
            "-setp.ne.u32 p, tid, 8;\n+setp.ne.u32 p, tid, 99;\n@p st.shared.u32 [at], x;\nld.shared.u32 y, [at]; // here",
        ),
        case(
            K,
            0,
            5,
            "st.shared.u32 [at], x;\nbar.sync 0;\n-add.u32 at, at, 128;\nsetp.eq.u32 p, tid, 5;\n-mov.u32 at, other;\n@p ld.shared.u32 y, [at]; // here",
        ),
        case(
            K,
            0,
            0,
            "-st.shared.u16 [at], 1;\n+st.shared.u32 [at], x;\nld.shared.u32 y, [at]; // here",
        ),
    ]);
}

#[test]
fn uninit_register() {
    use FaultKind::UninitRegister as K;
    check(&[
        case(K, 0, 0, "-add.u32 x, x, unset; // here"),
        // The addresses of one matrix come from eight lanes.
        case(
            K,
            0,
            0,
            "setp.lt.u32 p, lane, 8;\nst.shared.u32 [at], x;\nbar.sync 0;\n-@!p mov.u32 w, tile;\n+@p mov.u32 w, tile;\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {y}, [w]; // here",
        ),
        case(
            K,
            0,
            0,
            "+mov.u32 unset, 1;\nst.global.u32 [b_at], unset; // here",
        ),
        case(
            K,
            0,
            0,
            "+setp.eq.u32 unset_p, tid, 0;\n@unset_p add.u32 x, x, 1; // here",
        ),
        case(
            K,
            0,
            33,
            "-setp.ne.u32 p, tid, 33;\n+setp.ne.u32 p, tid, 64;\n@p mov.u32 unset, 1;\nmul.lo.u32 x, unset, 2; // here",
        ),
        case(
            K,
            0,
            4,
            "-setp.eq.u32 p, tid, 4;\n+setp.eq.u32 p, tid, 64;\nselp.u32 y, unset, x, p;\nmov.u32 z, y;\nadd.u32 z, z, 1; // here",
        ),
        case(
            K,
            0,
            31,
            "setp.eq.u32 p, lane, 0;\n@p mov.u32 unset, 1;\nshfl.sync.down.b32 y, unset, 1, 31, -1;\n-shfl.sync.idx.b32 y, unset, 1, 31, -1;\n+shfl.sync.idx.b32 y, unset, 0, 31, -1;\nsetp.eq.u32 q, lane, 31;\n@q add.u32 y, y, 1; // here",
        ),
    ]);
}

#[test]
fn shared_race() {
    use FaultKind::SharedRace as K;
    check(&[
        // Another warp's word, without a barrier.
        case(K, 0, 32, "st.shared.u32 [at], x;\nbar.sync 0;\nadd.u32 y, x, 1;\nst.shared.u32 [at], y; // here\n+bar.sync 0;\nld.shared.u32 y, [last]; // there"),
        // Lock-step does not count.
        case(K, 0, 0, "st.shared.u32 [at], x; // there\n+bar.warp.sync -1;\nxor.b32 next, at, 4;\nld.shared.u32 y, [next]; // here"),
        // shfl orders nothing.
        case(K, 0, 0, "st.shared.u32 [at], x; // there\nshfl.sync.bfly.b32 y, x, 1, 31, -1;\n+bar.warp.sync -1;\nxor.b32 next, at, 4;\nld.shared.u32 y, [next]; // here"),
        // A write after others' reads.
        case(K, 0, 32, "st.shared.u32 [at], x;\nbar.sync 0;\nld.shared.u32 y, [last]; // here\n+bar.sync 0;\nst.shared.u32 [at], y; // there"),
        // Two lanes of one store, with different values.
        case(K, 0, 1, "mov.u32 z, other;\nsetp.lt.u32 p, tid, 32;\n+mov.u32 x, 1;\n@p st.shared.u32 [z], x; // here"),
        // An atomic against a plain read.
        case(K, 0, 0, "mov.u32 z, other;\nsetp.eq.u32 p, tid, 0;\n@p st.shared.u32 [z], 0; // there\nbar.sync 0;\nred.shared.add.u32 [z], 1; // there\n+bar.sync 0;\nsetp.eq.u32 p, tid, 0;\n@p ld.shared.u32 y, [z]; // here"),
        // A sum by load and store.
        case(K, 0, 0, "mov.u32 z, other;\nsetp.eq.u32 p, tid, 0;\n@p st.shared.u32 [z], 0; // there\nbar.sync 0;\n-ld.shared.u32 y, [z]; // there\n-add.u32 y, y, 0;\n-mov.u32 y, tid;\n-st.shared.u32 [z], y; // here\n+red.shared.add.u32 [z], 1;"),
        // Bytes of one word race only where they overlap.
        case(K, 0, 1, "mov.u32 z, other;\n+add.u32 z, z, tid;\nst.shared.u8 [z], tid; // here"),
        // One warp waits for the other's arrival.
        case(K, 0, 32, "setp.lt.u32 p, tid, 32;\n@!p bra WRITE;\n+bar.sync 1, 64;\nld.shared.u32 y, [last]; // there\nbra.uni END;\nWRITE:\nst.shared.u32 [at], x; // here\n+bar.arrive 1, 64;\nEND:")
            .reads_after_writes(),
    ]);
}

#[test]
fn global_race() {
    use FaultKind::GlobalRace as K;
    check(&[
        case(
            K,
            0,
            1,
            "-mov.u32 y, tid;\n+mov.u32 y, 1;\nsetp.eq.u32 p, block, 0;\n+setp.eq.u32 p, i, 0;\n@p st.global.u32 [b_base], y; // here",
        ),
        case(
            K,
            0,
            0,
            "st.global.u32 [b_at], x; // there\n+bar.sync 0;\nxor.b32 y, i, 1;\nmul.wide.u32 wide, y, 4;\nadd.u64 wide, b_base, wide;\nld.global.u32 y, [wide]; // here",
        ),
        // Blocks have no order.
        case(
            K,
            1,
            0,
            "setp.eq.u32 p, tid, 0;\n-mov.u32 z, 0;\n+mov.u32 z, block;\nmul.wide.u32 wide, z, 4;\nadd.u64 wide, b_base, wide;\n@p st.global.u32 [wide], block; // here",
        ),
        case(
            K,
            1,
            0,
            "setp.eq.u32 p, i, 64;\n-mov.u64 wide, 0;\n+mov.u64 wide, 256;\nadd.u64 wide, a_base, wide;\n@p st.global.u32 [wide], 1; // here\nsetp.eq.u32 q, i, 0;\n@q ld.global.u32 y, [a_base]; // there",
        ),
        // The last block to arrive reads what the others wrote: a fence belongs before and after its ticket.
        case(K, 1, 0, LAST_BLOCK[0]),
        case(K, 1, 0, LAST_BLOCK[1]),
        // Release and acquire; the first block's flag is relaxed.
        case(
            K,
            1,
            0,
            "setp.ne.u32 p, tid, 0;\n@p bra END;\nst.global.u32 [b_at], 5; // there\n-atom.relaxed.gpu.global.add.u32 y, [c_base], 1;\n+atom.acq_rel.gpu.global.add.u32 y, [c_base], 1;\nsetp.eq.u32 p, y, 1;\nsub.u32 z, 1, block;\nmul.wide.u32 wide, z, 256;\nadd.u64 wide, b_base, wide;\n@p ld.global.u32 x, [wide]; // here\nEND:",
        ),
    ]);
}

const LAST_BLOCK: [&str; 2] = [
    "setp.ne.u32 p, tid, 0;\n@p bra END;\nst.global.u32 [b_at], 5; // there\n+fence.acq_rel.gpu;\natom.global.add.u32 y, [c_base], 1;\nfence.acq_rel.gpu;\nsetp.eq.u32 p, y, 1;\nsub.u32 z, 1, block;\nmul.wide.u32 wide, z, 256;\nadd.u64 wide, b_base, wide;\n@p ld.global.u32 x, [wide]; // here\nEND:",
    "setp.ne.u32 p, tid, 0;\n@p bra END;\nst.global.u32 [b_at], 5; // there\nmembar.gl;\natom.global.add.u32 y, [c_base], 1;\n+membar.gl;\nsetp.eq.u32 p, y, 1;\nsub.u32 z, 1, block;\nmul.wide.u32 wide, z, 256;\nadd.u64 wide, b_base, wide;\n@p ld.global.u32 x, [wide]; // here\nEND:",
];

#[test]
fn non_coherent_read() {
    use FaultKind::NonCoherentRead as K;
    check(&[
        case(
            K,
            0,
            0,
            "st.global.u32 [b_at], x;\n-ld.global.nc.u32 y, [b_at]; // here\n+ld.global.u32 y, [b_at];",
        ),
        case(
            K,
            0,
            0,
            "ld.global.nc.u32 y, [a_at];\nst.global.u32 [a_at], y;\n-ld.global.nc.u32 y, [a_at]; // here",
        ),
        case(
            K,
            0,
            0,
            "st.global.u32 [b_at], x;\nbar.sync 0;\nxor.b32 y, i, 32;\nmul.wide.u32 wide, y, 4;\nadd.u64 wide, b_base, wide;\n-ld.global.nc.u32 y, [wide]; // here\n+ld.global.u32 y, [wide];",
        ),
        case(
            K,
            0,
            0,
            "atom.global.add.u32 y, [c_base], 1;\n-ld.global.nc.u32 y, [c_base]; // here",
        ),
    ]);
}

#[test]
fn async_before_wait() {
    use FaultKind::AsyncBeforeWait as K;
    check(&[
        case(
            K,
            0,
            0,
            "cp.async.ca.shared.global [at], [a_at], 4; // there\ncp.async.commit_group;\n+cp.async.wait_group 0;\nld.shared.u32 y, [at]; // here",
        ),
        case(
            K,
            0,
            0,
            "cp.async.ca.shared.global [at], [a_at], 4; // there\n+cp.async.commit_group;\ncp.async.wait_group 0;\nld.shared.u32 y, [at]; // here",
        ),
        case(
            K,
            0,
            0,
            "cp.async.ca.shared.global [at], [a_at], 4; // there\ncp.async.commit_group;\n-cp.async.wait_group 1;\n+cp.async.wait_group 0;\nld.shared.u32 y, [at]; // here",
        ),
        // Waited for, but another thread's.
        case(
            K,
            0,
            0,
            "cp.async.ca.shared.global [at], [a_at], 4; // there\ncp.async.wait_all;\n+bar.sync 0;\nxor.b32 next, at, 4;\nld.shared.u32 y, [next]; // here",
        ),
        // Overwritten on its way.
        case(
            K,
            0,
            0,
            "cp.async.ca.shared.global [at], [a_at], 4; // there\ncp.async.commit_group;\n+cp.async.wait_all;\nst.shared.u32 [at], x; // here",
        ),
    ]);
}

#[test]
fn barrier_divergence() {
    use FaultKind::BarrierDivergence as K;
    check(&[
        case(
            K,
            0,
            0,
            "setp.lt.u32 p, lane, 16;\n-@p bar.sync 0; // here\n+bar.sync 0;",
        ),
        case(
            K,
            0,
            16,
            "setp.lt.u32 p, lane, 16;\n@p bra SKIP;\n-bar.sync 0; // here\nSKIP:\n+bar.sync 0;",
        ),
        case(
            K,
            0,
            0,
            "-mov.u32 z, 48;\n+mov.u32 z, 64;\nbar.sync 0, z; // here",
        ),
        case(
            K,
            0,
            32,
            "setp.lt.u32 p, tid, 32;\n@p bra FIRST;\n-bar.sync 2, 96; // here\n+bar.sync 2, 64;\nbra.uni END;\nFIRST:\nbar.sync 2, 64; // there\nEND:",
        ),
        case(
            K,
            0,
            32,
            "setp.lt.u32 p, tid, 32;\n@p bra FIRST;\n-bar.red.popc.u32 y, 0, p; // here\n+bar.sync 0;\nbra.uni END;\nFIRST:\nbar.sync 0; // there\nEND:",
        ),
    ]);
}

#[test]
fn sync_mask() {
    use FaultKind::SyncMask as K;
    check(&[
        case(
            K,
            0,
            16,
            "-shfl.sync.bfly.b32 y, x, 1, 31, 0xffff; // here\n+shfl.sync.bfly.b32 y, x, 1, 31, -1;",
        ),
        case(
            K,
            0,
            0,
            "setp.lt.u32 p, lane, 8;\n@!p bra END;\n-vote.sync.ballot.b32 y, p, -1; // here\n+vote.sync.ballot.b32 y, p, 0xff;\nEND:",
        ),
        case(
            K,
            0,
            8,
            "setp.lt.u32 p, lane, 8;\n@p bra END;\n-bar.warp.sync 0xffffff0f; // here\n+bar.warp.sync 0xffffff00;\nEND:",
        ),
        // In range, but not taking part.
        case(
            K,
            0,
            7,
            "setp.lt.u32 p, lane, 8;\n-@p shfl.sync.down.b32 y, x, 1, 31, 0xff; // here\n+@p shfl.sync.down.b32 y, x, 1, 0x1807, 0xff;",
        ),
        case(
            K,
            0,
            1,
            "setp.eq.u32 p, lane, 0;\nmov.u32 z, -1;\n@p mov.u32 z, 1;\n-redux.sync.add.s32 y, x, z; // here\n+redux.sync.add.s32 y, x, -1;",
        ),
        case(
            K,
            0,
            0,
            "setp.eq.u32 p, lane, 31;\n+setp.eq.u32 p, lane, 32;\nmov.b32 z, 0;\n@p bra END;\nmatch.any.sync.b32 y, x, -1; // here\nEND:\nadd.u32 z, z, 1;",
        ),
    ]);
}

#[test]
fn deadlock() {
    use FaultKind::Deadlock as K;
    check(&[
        case(K, 0, 0, "-bar.sync 1, 96; // here\n+bar.sync 1, 64;"),
        case(
            K,
            0,
            0,
            "setp.lt.u32 p, tid, 32;\n@p bra FIRST;\n-bar.sync 2; // there\n+bar.sync 1;\nbra.uni END;\nFIRST:\nbar.sync 1; // here\nEND:",
        ),
        case(
            K,
            0,
            32,
            "setp.lt.u32 p, tid, 32;\n-@p exit;\nbar.sync 0, 64; // here",
        ),
        case(
            K,
            0,
            0,
            "setp.lt.u32 p, tid, 32;\n@!p bra LAST;\nbar.sync 3, 64; // here\nbra.uni END;\nLAST:\n+bar.arrive 3, 64;\nEND:",
        ),
    ]);
}

#[test]
fn instruction_limit() {
    use FaultKind::InstructionLimit as K;
    // Which instruction of the loop comes last does not matter.
    for body in [
        "LOOP:\nbra.uni LOOP;",
        "LOOP:\nld.volatile.global.u32 y, [c_base];\nsetp.eq.u32 p, y, 0;\n@p bra LOOP;",
        "mov.u32 y, 1;\nLOOP:\nadd.u32 y, y, 1;\nsetp.ne.u32 p, y, 0;\n@p bra LOOP;",
    ] {
        let case = case(K, 0, 0, body);
        let text = case.text(true);
        let first = text.lines().position(|line| line == "LOOP:").unwrap() as u32 + 1;
        for schedule in [Schedule::InOrder, Schedule::Seeded(1)] {
            let found = fault(case.run(true, schedule));
            assert_eq!(found.kind, K);
            assert!((first..first + 5).contains(&found.line), "{found}");
        }
    }
}

#[test]
fn division_by_zero_read_only_and_trap() {
    check(&[
        case(
            FaultKind::DivisionByZero,
            0,
            0,
            "-div.u32 y, x, tid; // here\n+div.u32 y, tid, 3;",
        ),
        case(
            FaultKind::DivisionByZero,
            0,
            1,
            "sub.u32 y, tid, 1;\n-rem.s32 y, x, y; // here",
        ),
        case(
            FaultKind::Trap,
            0,
            3,
            "setp.eq.u32 p, tid, 3;\n-@p trap; // here",
        ),
        case(
            FaultKind::ReadOnly,
            0,
            0,
            "cvta.const.u64 wide, table_address;\n-st.u32 [wide], 1; // here\n+ld.u32 y, [wide];",
        )
        .with_generic_table(),
    ]);
}

impl Case {
    fn with(self, old: &str, new: &str) -> Self {
        Self {
            body: self.body.replace(old, new).leak(),
            ..self
        }
    }

    fn with_generic_tile(self) -> Self {
        self.with(
            "cvta.shared.u64 wide, tile_address;",
            "mov.u64 wide, tile;\ncvta.shared.u64 wide, wide;",
        )
    }

    fn with_generic_table(self) -> Self {
        self.with(
            "cvta.const.u64 wide, table_address;",
            "mov.u64 wide, table;\ncvta.const.u64 wide, wide;",
        )
    }

    /// Only the first thread of the grid stores.
    fn one_thread(self) -> Self {
        self.with("st.global", "setp.eq.u32 p, i, 0;\n@p st.global")
    }

    /// The second warp's words were written before.
    fn reads_after_writes(self) -> Self {
        Self {
            body: format!("st.shared.u32 [at], x;\nbar.sync 0;\n{}", self.body).leak(),
            ..self
        }
    }
}
