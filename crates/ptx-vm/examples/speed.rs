//! Warp instructions per second of loops of one kind each, with all checks: `cargo run --release -p whittle-ptx-vm --example speed`,
//! with a part of a name for some of them.

use std::time::Instant;
use whittle_ptx_vm::{Limits, Size, open};
use whittle_tensor::device::Driver;
use whittle_tensor::kernel::Arg;

/// Seconds of processor time that this thread has had, where Linux tells it; a machine may be busy with other things.
fn seconds(since: Instant) -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let told = told.and_then(|told| told.split(' ').next()?.parse::<f64>().ok());
    told.map_or(since.elapsed().as_secs_f64(), |nanoseconds| {
        nanoseconds * 1e-9
    })
}

/// The loop's body; each is repeated eight times.
const LOOPS: [(&str, &str); 12] = [
    ("fma.rn.f32", "fma.rn.f32 f, g, g, f;"),
    (
        "add.rn, mul.rn f32",
        "add.rn.f32 f, f, g;\nmul.rn.f32 h, f, g;",
    ),
    (
        "integer, lop3",
        "add.u32 x, x, y;\nlop3.b32 y, x, y, lane, 0x96;\nshl.b32 z, y, 3;",
    ),
    ("ex2.approx", "ex2.approx.f32 f, g;"),
    ("ld.global", "ld.global.f32 f, [at];"),
    ("ld.global.v4", "ld.global.v4.f32 {f, g, h, e}, [at4];"),
    ("st.global", "st.global.f32 [out], g;"),
    (
        "ld.shared, st.shared",
        "st.shared.f32 [place], g;\nld.shared.f32 h, [place];",
    ),
    ("shfl", "shfl.sync.bfly.b32 x, x, 1, 31, -1;"),
    (
        "mma m16n8k16",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {f, g, h, e}, {x, y, z, x}, {y, z}, {f, g, h, e};",
    ),
    ("ld.global strided", "ld.global.f32 f, [at4];"),
    (
        "dot product",
        "ld.global.f32 g, [at];\nld.global.f32 h, [at + 4096];\nfma.rn.f32 f, g, h, f;\nadd.u64 at, at, 128;",
    ),
];

fn kernel(body: &str) -> String {
    format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 a, .param .u64 b, .param .u32 n) {{
        .shared .align 16 .f32 tile[256];
        .reg .b32 x, y, z; .reg .u32 i, trips, lane, place; .reg .f32 f, g, h, e; .reg .u64 first, second, at, at4, out; .reg .pred p;
        mov.u32 lane, %tid.x; mov.u32 x, lane; mov.u32 y, 1; mov.u32 z, 2; mov.f32 f, 0f3F800000; mov.f32 g, 0f3F000000;
        mov.f32 h, f; mov.f32 e, f; mov.u32 place, tile; mad.lo.u32 place, lane, 4, place;
        ld.param.u64 first, [a]; ld.param.u64 second, [b]; ld.param.u32 trips, [n];
        mad.wide.u32 at, lane, 4, first; mad.wide.u32 at4, lane, 16, first; mad.wide.u32 out, lane, 4, second; mov.u32 i, 0;
        LOOP:\n{}
        and.b64 at, at, 0xffffffffffff7fff;
        and.b64 at4, at4, 0xffffffffffff7fff;
        add.u32 i, i, 1; setp.lt.u32 p, i, trips; @p bra LOOP;
        st.global.f32 [out], f; ret; }}",
        format!("{body}\n").repeat(8)
    )
}

fn main() {
    let epoch = Instant::now();
    let vm = open(Limits::checked(90));
    let zeros = vec![0u8; 1 << 17];
    let [a, b] = [(); 2].map(|()| vm.alloc(zeros.len()).expect("memory"));
    vm.upload(a, &zeros).expect("upload");
    let only = std::env::args().nth(1).unwrap_or_default();
    for (name, body) in LOOPS.into_iter().filter(|(name, _)| name.contains(&only)) {
        let text = kernel(body);
        let size = Size {
            grid: [1; 3],
            block: [32, 1, 1],
            shared: 0,
        };
        let run = |n| {
            let begin = seconds(epoch);
            let report = vm.run(
                &text,
                "k",
                "k",
                size,
                &[Arg::Ptr(a), Arg::Ptr(b), Arg::U32(n)],
            );
            let report = report.unwrap_or_else(|error| panic!("{name}: {error}"));
            report.total.instructions as f64 / (seconds(epoch) - begin) / 1e6
        };
        run(100);
        let mut rates: Vec<f64> = (0..5).map(|_| run(20_000)).collect();
        rates.sort_by(f64::total_cmp);
        println!("{name:<22}{:>8.1} M warp instructions/s", rates[2]);
    }
    let text = kernel("add.u32 x, x, y;");
    let size = Size {
        grid: [1; 3],
        block: [32, 1, 1],
        shared: 0,
    };
    let begin = seconds(epoch);
    for _ in 0..1000 {
        vm.run(
            &text,
            "k",
            "k",
            size,
            &[Arg::Ptr(a), Arg::Ptr(b), Arg::U32(1)],
        )
        .expect("a launch");
    }
    println!(
        "a launch of one warp {:>8.1} us",
        1e3 * (seconds(epoch) - begin)
    );
}
