//! What kernels compute: control flow, barriers, exchanges, atomics, copies, matrices, under every schedule with equal results and
//! counters.

mod machine;

use machine::{Machine, module, schedules};
use whittle_ptx_vm::{Limits, Report, Schedule, Size};
use whittle_tensor::device::Driver;
use whittle_tensor::kernel::Arg;

/// Runs a kernel of parameters `a`, `b` (pointers) and `n` under every schedule; results and counters must be the same.
fn run(
    text: &str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    a: &[u32],
    n: u32,
    out: usize,
) -> (Vec<u32>, Report) {
    let once = |schedule| {
        let machine = Machine::with(Limits {
            schedule,
            ..Limits::checked(80)
        });
        let from = machine.words(a);
        let to = machine.words(&vec![0; out.max(1)]);
        let args = [Arg::Ptr(from), Arg::Ptr(to), Arg::U32(n)];
        let size = Size {
            grid,
            block,
            shared,
        };
        let report = machine.vm.run(text, "k.ptx", "k", size, &args);
        let report = report.unwrap_or_else(|error| panic!("{schedule:?}: {error}\n{text}"));
        (machine.read(to, out), report)
    };
    let first = once(Schedule::InOrder);
    for schedule in schedules() {
        assert_eq!(once(schedule), first, "{schedule:?}\n{text}");
    }
    first
}

const PARAMETERS: &str = ".param .u64 a, .param .u64 b, .param .u32 n";
const PREAMBLE: &str = "
    .reg .u32 tid, i, x, y, z, w, size, lane, warp, at;
    .reg .b32 r_<16>;
    .reg .f32 f, g, h, sum_<4>;
    .reg .u64 from, to, byte, wide;
    .reg .pred p, q, done;
    mov.u32 tid, %tid.x;
    mov.u32 lane, %laneid;
    mov.u32 x, %ctaid.x;
    mov.u32 y, %ntid.x;
    mad.lo.u32 i, x, y, tid;
    ld.param.u64 from, [a];
    ld.param.u64 to, [b];
    ld.param.u32 size, [n];
    mul.wide.u32 byte, i, 4;
    add.u64 from, from, byte;
    add.u64 to, to, byte;";

fn kernel(head: &str, body: &str) -> String {
    module(head, PARAMETERS, &format!("{PREAMBLE}\n{body}"))
}

fn bits(values: impl IntoIterator<Item = f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn vector_add_of_awkward_sizes() {
    let text = kernel(
        "",
        "setp.ge.u32 p, i, size;\n@p bra END;\nld.global.f32 f, [from];\nadd.rn.f32 f, f, f;\nst.global.f32 [to], f;\nEND:",
    );
    for n in [1u32, 31, 32, 33, 127, 128, 257] {
        let values = bits((0..n).map(|i| i as f32 / 3.0));
        let (found, report) = run(
            &text,
            [n.div_ceil(64), 1, 1],
            [64, 1, 1],
            0,
            &values,
            n,
            n as usize,
        );
        assert_eq!(found, bits((0..n).map(|i| i as f32 / 3.0 * 2.0)));
        // Loads and stores of neighbouring words request no sector twice.
        assert_eq!(report.total.global_sectors, report.total.global_sectors_min);
        assert_eq!(report.total.global_sectors, 2 * u64::from(n).div_ceil(8));
    }
}

#[test]
fn divergent_paths_meet_at_the_post_dominator() {
    // Three ways by lane % 3, one of them through a nested branch; then all lanes vote.
    let body = "rem.u32 x, tid, 3;
        setp.eq.u32 p, x, 0;
        @p bra ZERO;
        setp.eq.u32 p, x, 1;
        @p bra ONE;
        mov.u32 y, 30;
        bra.uni MET;
        ONE: mov.u32 y, 20;
        bra.uni MET;
        ZERO:
        setp.lt.u32 p, tid, 16;
        @p bra LOW;
        mov.u32 y, 11;
        bra.uni MET;
        LOW: mov.u32 y, 10;
        MET:
        activemask.b32 z;
        vote.sync.ballot.b32 w, p, -1;
        mad.lo.u32 y, y, 100, tid;
        setp.eq.u32 q, z, -1;
        @!q mov.u32 y, 0;
        st.global.u32 [to], y;";
    let (found, report) = run(&kernel("", body), [1; 3], [32, 1, 1], 0, &[0; 32], 0, 32);
    let expected = |tid: u32| match (tid % 3, tid < 16) {
        (0, true) => 1000 + tid,
        (0, false) => 1100 + tid,
        (1, _) => 2000 + tid,
        _ => 3000 + tid,
    };
    assert_eq!(found, (0..32).map(expected).collect::<Vec<_>>());
    let store = report.lines.last_chunk::<2>().expect("lines")[0].1;
    assert_eq!((store.instructions, store.lanes), (1, 32));
}

#[test]
fn loops_of_different_length_end_where_they_meet() {
    // Lane l sums 1 to l by a loop with l turns.
    let body = "mov.u32 x, 0;
        mov.u32 y, 0;
        setp.eq.u32 done, tid, 0;
        @done bra END;
        LOOP:
        add.u32 y, y, 1;
        add.u32 x, x, y;
        setp.lt.u32 p, y, tid;
        @p bra LOOP;
        END:
        shfl.sync.bfly.b32 z, x, 1, 31, -1;
        st.global.u32 [to], z;";
    let (found, _) = run(
        &kernel("", body),
        [2, 1, 1],
        [64, 1, 1],
        0,
        &[0; 128],
        0,
        128,
    );
    let sum = |tid: u32| tid * (tid + 1) / 2;
    assert_eq!(
        found,
        (0..128).map(|i| sum((i % 64) ^ 1)).collect::<Vec<_>>()
    );
}

#[test]
fn a_lane_that_spins_on_another_lets_it_run() {
    // Lane 1 waits for a flag that lane 0 raises on the other path.
    let body = ".shared .u32 flag;
        setp.eq.u32 p, tid, 0;
        @p st.shared.u32 [flag], 0;
        bar.warp.sync -1;
        setp.ne.u32 q, tid, 0;
        @!q bra RAISE;
        SPIN:
        ld.volatile.shared.u32 x, [flag];
        setp.eq.u32 p, x, 0;
        @p bra SPIN;
        bra.uni END;
        RAISE:
        st.volatile.shared.u32 [flag], 7;
        mov.u32 x, 7;
        END:
        st.global.u32 [to], x;";
    let machine = Machine::new(Schedule::InOrder);
    let (from, to) = (machine.words(&[0; 32]), machine.words(&[0; 32]));
    machine
        .run(
            &kernel("", body),
            1,
            32,
            &[Arg::Ptr(from), Arg::Ptr(to), Arg::U32(0)],
        )
        .unwrap();
    assert_eq!(machine.read(to, 32), [7; 32]);
}

#[test]
fn a_block_sums_by_shfl_and_shared_memory() {
    let body = ".shared .align 4 .f32 parts[32];
        mov.f32 f, 0f00000000;
        setp.lt.u32 p, i, size;
        @p ld.global.f32 f, [from];
        shfl.sync.down.b32 g, f, 16, 31, -1; add.rn.f32 f, f, g;
        shfl.sync.down.b32 g, f, 8, 31, -1; add.rn.f32 f, f, g;
        shfl.sync.down.b32 g, f, 4, 31, -1; add.rn.f32 f, f, g;
        shfl.sync.down.b32 g, f, 2, 31, -1; add.rn.f32 f, f, g;
        shfl.sync.down.b32 g, f, 1, 31, -1; add.rn.f32 f, f, g;
        shr.u32 warp, tid, 5;
        shl.b32 at, warp, 2;
        mov.u32 x, parts;
        add.u32 at, at, x;
        setp.eq.u32 p, lane, 0;
        @p st.shared.f32 [at], f;
        bar.sync 0;
        setp.ne.u32 done, tid, 0;
        @done bra END;
        ld.shared.v4.f32 {sum_0, sum_1, sum_2, sum_3}, [parts];
        add.rn.f32 sum_0, sum_0, sum_1;
        add.rn.f32 sum_2, sum_2, sum_3;
        add.rn.f32 sum_0, sum_0, sum_2;
        st.global.f32 [to], sum_0;
        END:"
        .replace("parts[32]", "parts[4]")
        .replace(".align 4 .f32", ".align 16 .f32");
    for n in [1u32, 33, 100, 128] {
        let (found, report) = run(
            &kernel("", &body),
            [1; 3],
            [128, 1, 1],
            0,
            &bits((0..n).map(|i| i as f32)),
            n,
            1,
        );
        assert_eq!(f32::from_bits(found[0]), (n * (n - 1) / 2) as f32);
        assert_eq!(report.total.barriers, 4);
    }
}

#[test]
fn barriers_count_and_reduce() {
    let body = "mov.u32 x, 64;
        setp.lt.u32 p, tid, 5;
        bar.red.popc.u32 y, 1, x, p;
        bar.red.or.pred q, 2, p;
        bar.red.and.pred done, 2, p;
        selp.u32 z, 100, 0, q;
        @done add.u32 z, z, 1000;
        add.u32 y, y, z;
        st.global.u32 [to], y;";
    let (found, report) = run(&kernel("", body), [1; 3], [64, 1, 1], 0, &[0; 64], 0, 64);
    assert_eq!(found, [105; 64]);
    assert_eq!(report.total.barriers, 6);
}

#[test]
fn warps_hand_over_by_arrive_and_sync() {
    // Three turns of a ring of one: the first warp fills and arrives, the second waits and empties.
    let body = ".shared .align 4 .u32 ring[32];
        mov.u32 y, 0;
        mov.u32 w, 0;
        shl.b32 at, lane, 2;
        mov.u32 x, ring;
        add.u32 at, at, x;
        setp.lt.u32 p, tid, 32;
        @!p bra EMPTY;
        FILL:
        add.u32 z, w, lane;
        st.shared.u32 [at], z;
        bar.arrive 1, 64;
        bar.sync 2, 64;
        add.u32 w, w, 1;
        setp.lt.u32 q, w, 3;
        @q bra FILL;
        bra.uni END;
        EMPTY:
        bar.sync 1, 64;
        ld.shared.u32 z, [at];
        add.u32 y, y, z;
        bar.arrive 2, 64;
        add.u32 w, w, 1;
        setp.lt.u32 q, w, 3;
        @q bra EMPTY;
        END:
        st.global.u32 [to], y;";
    let (found, _) = run(&kernel("", body), [1; 3], [64, 1, 1], 0, &[0; 64], 0, 64);
    assert_eq!(
        found,
        (0..64)
            .map(|i| if i < 32 { 0 } else { 3 * (i - 32) + 3 })
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_histogram_by_atomics() {
    let body = ".shared .align 4 .u32 bins[16];
        mov.u32 z, bins;
        shl.b32 at, tid, 2;
        add.u32 at, at, z;
        setp.lt.u32 p, tid, 16;
        @p st.shared.u32 [at], 0;
        bar.sync 0;
        ld.global.u32 x, [from];
        and.b32 x, x, 15;
        mad.lo.u32 z, x, 4, z;
        red.shared.add.u32 [z], 1;
        bar.sync 0;
        @!p bra END;
        ld.shared.u32 y, [at];
        mad.wide.u32 wide, tid, 4, 0;
        ld.param.u64 to, [b];
        add.u64 to, to, wide;
        atom.global.add.u32 z, [to], y;
        END:"
        .replace("mad.wide.u32 wide, tid, 4, 0", "mul.wide.u32 wide, tid, 4");
    let values: Vec<u32> = (0..256u32).map(|i| i * i / 7).collect();
    let (found, report) = run(&kernel("", &body), [4, 1, 1], [64, 1, 1], 0, &values, 0, 16);
    let mut expected = vec![0; 16];
    values
        .iter()
        .for_each(|value| expected[*value as usize % 16] += 1);
    assert_eq!(found, expected);
    assert_eq!(report.total.atomics, 256 + 4 * 16);
}

#[test]
fn atomics_of_every_kind() {
    // One thread; what was there comes back, what is left is stored.
    for (op, start, operands, left) in [
        ("add.u32", 5, "7", 12),
        ("min.s32", -3i32 as u32, "2", -3i32 as u32),
        ("min.u32", -3i32 as u32, "2", 2),
        ("max.s32", -3i32 as u32, "2", 2),
        ("and.b32", 12, "10", 8),
        ("or.b32", 12, "10", 14),
        ("xor.b32", 12, "10", 6),
        ("inc.u32", 3, "3", 0),
        ("inc.u32", 2, "3", 3),
        ("dec.u32", 0, "9", 9),
        ("dec.u32", 4, "9", 3),
        ("exch.b32", 4, "9", 9),
        ("cas.b32", 4, "4, 8", 8),
        ("cas.b32", 5, "4, 8", 5),
    ] {
        let body = format!(
            "ld.global.u32 x, [from];\nst.global.u32 [to + 4], x;\nadd.u64 from, to, 4;\natom.global.{op} y, [from], {operands};\nst.global.u32 [to], y;"
        );
        let (found, _) = run(&kernel("", &body), [1; 3], [1; 3], 0, &[start], 0, 2);
        assert_eq!(found, [start, left], "{op}");
    }
    let body = "mov.f32 f, 0f3F800000;\nred.global.add.f32 [to], f;\nred.global.add.f32 [to], f;";
    assert_eq!(
        run(&kernel("", body), [1; 3], [1; 3], 0, &[0], 0, 1).0,
        bits([2.0])
    );
}

#[test]
fn a_double_buffer_of_async_copies() {
    // Sums four tiles; tile t + 1 is on its way while tile t is read.
    let body = ".shared .align 16 .f32 tiles[128];
        mov.f32 sum_0, 0f00000000;
        shl.b32 at, tid, 2;
        mov.u32 x, tiles;
        add.u32 at, at, x;
        cp.async.ca.shared.global [at], [from], 4;
        cp.async.commit_group;
        mov.u32 w, 0;
        LOOP:
        add.u64 from, from, 256;
        xor.b32 z, w, 1;
        and.b32 z, z, 1;
        mad.lo.u32 y, z, 256, at;
        setp.lt.u32 p, w, 3;
        @p cp.async.ca.shared.global [y], [from], 4;
        cp.async.commit_group;
        cp.async.wait_group 1;
        bar.sync 0;
        and.b32 z, w, 1;
        mad.lo.u32 y, z, 256, at;
        sub.u32 y, y, x;
        xor.b32 y, y, 4;
        add.u32 y, y, x;
        ld.shared.f32 f, [y];
        add.rn.f32 sum_0, sum_0, f;
        bar.sync 0;
        add.u32 w, w, 1;
        setp.lt.u32 p, w, 4;
        @p bra LOOP;
        st.global.f32 [to], sum_0;";
    let values: Vec<f32> = (0..256).map(|i| i as f32 / 4.0).collect();
    let (found, report) = run(
        &kernel("", body),
        [1; 3],
        [64, 1, 1],
        0,
        &bits(values.clone()),
        0,
        64,
    );
    let expected = (0..64).map(|i: usize| (0..4).map(|tile| values[64 * tile + (i ^ 1)]).sum());
    assert_eq!(found, bits(expected));
    assert_eq!(report.total.async_bytes, 4 * 256);
}

#[test]
fn async_copies_fill_with_zeros_and_come_late() {
    // The source changes between copy and wait: the copy brings what is there at the wait.
    let body = ".shared .align 16 .u32 tile[4];
        cp.async.cg.shared.global [tile], [from], 16, size;
        st.global.u32 [from], 99;
        cp.async.wait_all;
        ld.shared.v4.u32 {x, y, z, w}, [tile];
        st.global.v4.u32 [to], {x, y, z, w};";
    for (size, expected) in [
        (16, [99, 2, 3, 4]),
        (8, [99, 2, 0, 0]),
        (6, [99, 2, 0, 0]),
        (0, [0; 4]),
    ] {
        let (found, _) = run(&kernel("", body), [1; 3], [1; 3], 0, &[1, 2, 3, 4], size, 4);
        assert_eq!(found, expected, "{size}");
    }
}

#[test]
fn ldmatrix_and_mma_multiply_a_tile() {
    // a: 16 × 16 halves, row-major, then b: 16 × 8 halves, row-major. c = a · b in f32, 16 × 8.
    let body = ".shared .align 16 .b8 a_tile[512];
        .shared .align 16 .b8 b_tile[256];
        mov.u32 x, a_tile;
        mul.lo.u32 y, tid, 16;
        add.u32 x, x, y;
        mul.wide.u32 byte, tid, 12;
        add.u64 from, from, byte;
        ld.global.v4.b32 {r_0, r_1, r_2, r_3}, [from];
        st.shared.v4.b32 [x], {r_0, r_1, r_2, r_3};
        ld.param.u64 from, [a];
        mul.wide.u32 byte, tid, 8;
        add.u64 from, from, byte;
        ld.global.v2.b32 {r_0, r_1}, [from + 512];
        mov.u32 x, b_tile;
        mad.lo.u32 x, tid, 8, x;
        st.shared.v2.b32 [x], {r_0, r_1};
        bar.warp.sync -1;
        and.b32 y, lane, 15;
        shl.b32 y, y, 5;
        shr.u32 z, lane, 4;
        mad.lo.u32 y, z, 16, y;
        mov.u32 x, a_tile;
        add.u32 x, x, y;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {r_0, r_1, r_2, r_3}, [x];
        and.b32 y, lane, 15;
        shl.b32 y, y, 4;
        mov.u32 x, b_tile;
        add.u32 x, x, y;
        ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {r_4, r_5}, [x];
        mov.f32 sum_0, 0f00000000; mov.f32 sum_1, sum_0; mov.f32 sum_2, sum_0; mov.f32 sum_3, sum_0;
        mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {sum_0, sum_1, sum_2, sum_3}, {r_0, r_1, r_2, r_3}, {r_4, r_5}, {sum_0, sum_1, sum_2, sum_3};
        shr.u32 x, lane, 2;
        and.b32 y, lane, 3;
        mad.lo.u32 x, x, 4, y;
        mul.wide.u32 byte, x, 8;
        ld.param.u64 to, [b];
        add.u64 to, to, byte;
        st.global.v2.f32 [to], {sum_0, sum_1};
        st.global.v2.f32 [to + 256], {sum_2, sum_3};";
    let a = |row: usize, k: usize| ((row * 7 + k * 3) % 11) as f32 - 5.0;
    let b = |k: usize, n: usize| ((k * 5 + n * 2) % 13) as f32 - 6.0;
    let halves: Vec<u16> = (0..256)
        .map(|i| a(i / 16, i % 16))
        .chain((0..128).map(|i| b(i / 8, i % 8)))
        .map(|value| half::f16::from_f32(value).to_bits())
        .collect();
    let words: Vec<u32> = halves
        .chunks(2)
        .map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16)
        .collect();
    let (found, report) = run(&kernel("", body), [1; 3], [32, 1, 1], 0, &words, 0, 128);
    let product = |i: usize| (0..16).map(|k| a(i / 8, k) * b(k, i % 8)).sum();
    assert_eq!(found, bits((0..128).map(product)));
    assert_eq!(report.total.mma_flops, 2 * 16 * 8 * 16);
}

#[test]
fn constants_locals_and_vectors() {
    let head = ".const .align 8 .u32 table[8] = {10, 11, 12, 13, 14, 15, 16, 17};\n.global .align 4 .u32 seed = 5;";
    let body = ".local .align 16 .u32 mine[8];
        .reg .u64 address;
        and.b32 x, tid, 7;
        shl.b32 x, x, 2;
        cvt.u64.u32 address, x;
        mov.u64 wide, table;
        add.u64 address, address, wide;
        ld.const.u32 y, [address];
        mov.u32 z, mine;
        st.local.v4.u32 [z + 16], {y, tid, lane, size};
        ld.local.u32 w, [z + 20];
        ld.local.u32 z, [z + 16];
        add.u32 z, z, w;
        ld.global.u32 w, [seed];
        add.u32 z, z, w;
        st.global.u32 [to], z;";
    let (found, _) = run(
        &kernel(head, body),
        [2, 1, 1],
        [33, 1, 1],
        0,
        &[0; 66],
        0,
        66,
    );
    assert_eq!(
        found,
        (0..66)
            .map(|i| 10 + i % 33 % 8 + i % 33 + 5)
            .collect::<Vec<_>>()
    );
    // Eight lanes a vector of 16 bytes; narrow types extend.
    let body = "ld.global.v4.u8 {x, y, z, w}, [from];\nmad.lo.u32 x, y, 256, x;\nmad.lo.u32 z, w, 256, z;\nmad.lo.u32 x, z, 65536, x;\nst.global.u32 [to], x;";
    let values: Vec<u32> = (0..32).map(|i| 0x0403_8281 + i).collect();
    assert_eq!(
        run(&kernel("", body), [1; 3], [32, 1, 1], 0, &values, 0, 32).0,
        values
    );
    let body = "ld.global.s8 x, [from];\nst.global.u32 [to], x;";
    let extended: Vec<u32> = values
        .iter()
        .map(|&value| value as i8 as i32 as u32)
        .collect();
    let body = body
        .replace("ld.global.s8 x", ".reg .s32 s;\nld.global.s8 s")
        .replace("st.global.u32 [to], x", "st.global.s32 [to], s");
    assert_eq!(
        run(&kernel("", &body), [1; 3], [32, 1, 1], 0, &values, 0, 32).0,
        extended
    );
}

#[test]
fn generic_addresses_reach_every_space() {
    let body = ".shared .align 4 .u32 tile[32];
        .local .align 4 .u32 mine[1];
        .reg .u64 s, l;
        mov.u64 s, tile; cvta.shared.u64 s, s;
        mul.wide.u32 wide, tid, 4; add.u64 s, s, wide;
        mov.u64 l, mine; cvta.local.u64 l, l;
        ld.u32 x, [from];
        st.u32 [s], x;
        st.u32 [l], x;
        ld.u32 y, [s];
        ld.u32 z, [l];
        isspacep.shared p, s; isspacep.local q, l;
        add.u32 x, y, z;
        @p add.u32 x, x, 1000;
        @q add.u32 x, x, 2000;
        cvta.to.shared.u64 s, s;
        cvt.u32.u64 w, s;
        ld.shared.u32 y, [w];
        add.u32 x, x, y;
        st.u32 [to], x;";
    let (found, _) = run(
        &kernel("", body),
        [1; 3],
        [32, 1, 1],
        0,
        &(0..32).collect::<Vec<_>>(),
        0,
        32,
    );
    assert_eq!(found, (0..32).map(|i| 3 * i + 3000).collect::<Vec<_>>());
}

#[test]
fn dynamic_shared_memory_and_grids_of_three_axes() {
    let head = ".extern .shared .align 16 .b8 dynamic[];";
    let body = "mov.u32 x, %tid.x; mov.u32 y, %tid.y; mad.lo.u32 x, y, 4, x; mov.u32 y, %tid.z; mad.lo.u32 tid, y, 8, x;
        mov.u32 x, %ctaid.x; mov.u32 y, %ctaid.y; mad.lo.u32 x, y, 2, x; mov.u32 y, %ctaid.z; mad.lo.u32 x, y, 6, x;
        mov.u32 at, dynamic; mad.lo.u32 at, tid, 4, at;
        st.shared.u32 [at], x;
        bar.sync 0;
        ld.shared.u32 y, [at];
        mad.lo.u32 z, x, 24, tid;
        mul.wide.u32 byte, z, 4;
        ld.param.u64 to, [b];
        add.u64 to, to, byte;
        mov.u32 w, %dynamic_smem_size;
        mad.lo.u32 z, z, 1000, w;
        st.global.u32 [to], z;";
    let (found, _) = run(&kernel(head, body), [2, 3, 2], [4, 2, 3], 96, &[0], 0, 288);
    assert_eq!(found, (0..288).map(|i| 1000 * i + 96).collect::<Vec<_>>());
}

#[test]
fn counters_know_strides_and_bank_conflicts() {
    // Words a stride apart: sectors of global memory, banks of shared memory.
    let body = |stride: u32| {
        format!(
            ".shared .align 16 .u32 tile[1024];
            mov.u32 x, tile;
            mad.lo.u32 x, tid, {bytes}, x;
            st.shared.u32 [x], tid;
            ld.param.u64 from, [a];
            mul.wide.u32 byte, tid, {bytes};
            add.u64 from, from, byte;
            ld.global.u32 y, [from];
            st.global.u32 [to], y;",
            bytes = 4 * stride
        )
    };
    for (stride, sectors, wavefronts) in [
        (1, 4, 1),
        (2, 8, 2),
        (4, 16, 4),
        (8, 32, 8),
        (31, 32, 1),
        (32, 32, 32),
    ] {
        let (_, report) = run(
            &kernel("", &body(stride)),
            [1; 3],
            [32, 1, 1],
            0,
            &vec![1; 1024],
            0,
            32,
        );
        assert_eq!(
            (report.total.global_sectors, report.total.global_sectors_min),
            (sectors + 4, 8),
            "{stride}"
        );
        assert_eq!(
            (
                report.total.shared_wavefronts,
                report.total.shared_wavefronts_min
            ),
            (wavefronts, 1),
            "{stride}"
        );
        assert_eq!(report.bank_conflicts, [wavefronts - 1, 0, 0]);
    }
    // Vectors go by half and quarter warps, whose words lie in all banks.
    let body = ".shared .align 16 .u32 tile[128];
        mov.u32 x, tile;
        mad.lo.u32 y, tid, 8, x;
        st.shared.v2.u32 [y], {tid, tid};
        bar.warp.sync -1;
        mad.lo.u32 y, tid, 16, x;
        st.shared.v4.u32 [y], {tid, tid, tid, tid};";
    let (_, report) = run(&kernel("", body), [1; 3], [32, 1, 1], 0, &[0; 32], 0, 1);
    assert_eq!(
        (
            report.total.shared_wavefronts,
            report.total.shared_wavefronts_min
        ),
        (6, 6)
    );
    let json = report.json();
    assert!(
        json.contains("\"kernel\":\"k\"") && json.contains("\"shared_wavefronts\":6"),
        "{json}"
    );
    assert!(report.to_string().contains("SharedStore"), "{report}");
}

#[test]
fn warp_exchanges_among_parts_of_a_warp() {
    // Two halves of a warp, on two paths, exchange among themselves; then all together.
    let body = "setp.lt.u32 p, lane, 16;
        @!p bra HIGH;
        shfl.sync.idx.b32 x, lane, 3, 0x101f, 0x0000ffff;
        redux.sync.add.u32 y, lane, 0x0000ffff;
        bra.uni MET;
        HIGH:
        shfl.sync.idx.b32 x, lane, 5, 0x101f, 0xffff0000;
        redux.sync.add.u32 y, lane, 0xffff0000;
        MET:
        match.any.sync.b32 z, x, -1;
        vote.sync.any.pred q, p, -1;
        popc.b32 z, z;
        mad.lo.u32 x, x, 1000, y;
        mad.lo.u32 x, x, 100, z;
        st.global.u32 [to], x;";
    let (found, _) = run(&kernel("", body), [1; 3], [32, 1, 1], 0, &[0; 32], 0, 32);
    let expected = |i: u32| {
        if i < 16 {
            (3 * 1000 + 120) * 100 + 16
        } else {
            (21 * 1000 + 376) * 100 + 16
        }
    };
    assert_eq!(found, (0..32).map(expected).collect::<Vec<_>>());
}

#[test]
fn lanes_of_a_sync_instruction_are_awaited_at_the_same_place() {
    // One instruction, reached on two paths at two times.
    let body = "setp.lt.u32 p, lane, 16;
        mov.u32 y, 1;
        @p bra CALL;
        mov.u32 y, 2;
        add.u32 y, y, 3;
        CALL:
        shfl.sync.bfly.b32 x, y, 16, 31, -1;
        st.global.u32 [to], x;";
    let (found, _) = run(&kernel("", body), [1; 3], [32, 1, 1], 0, &[0; 32], 0, 32);
    assert_eq!(
        found,
        (0..32)
            .map(|i| if i < 16 { 5 } else { 1 })
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_launch_leaves_memory_as_the_schedule_that_ran_it_found_it() {
    // What one launch wrote, the next may read without a fence.
    let machine = Machine::new(Schedule::InOrder);
    let (a, b) = (
        machine.words(&(0..64).collect::<Vec<_>>()),
        machine.empty(256),
    );
    let text = kernel(
        "",
        "ld.global.nc.u32 x, [from];\nadd.u32 x, x, 1;\nst.global.u32 [to], x;",
    );
    machine
        .run(&text, 1, 64, &[Arg::Ptr(a), Arg::Ptr(b), Arg::U32(0)])
        .unwrap();
    machine
        .run(&text, 1, 64, &[Arg::Ptr(b), Arg::Ptr(a), Arg::U32(0)])
        .unwrap();
    assert_eq!(machine.read(a, 64), (2..66).collect::<Vec<_>>());
    assert_eq!(machine.vm.reports().len(), 2);
    assert!(machine.vm.reports().is_empty());
    machine.vm.free(a).unwrap();
}
