//! The front end: what is accepted, what is refused and where, limits, and where divergent paths meet.

use proptest::prelude::*;
use whittle_ptx_vm::op::{Base, File, NEVER, Op, Space, Type};
use whittle_ptx_vm::{Error, Module};

/// A module of one kernel around these lines; the first of them is line 11.
fn text(body: &str) -> String {
    format!(
        ".version 8.2
.target sm_90
.address_size 64
.visible .entry k(.param .u64 P, .param .u32 N)
{{
.shared .align 16 .b8 s[256];
.reg .pred p, q;
.reg .b16 h<4>;
.reg .b32 r<8>; .reg .u32 u; .reg .s32 i; .reg .f32 f<4>;
.reg .b64 d<4>; .reg .f64 e;
{body}
ret;
}}"
    )
}

fn parse(body: &str) -> Result<Module, Error> {
    Module::parse(&text(body))
}

/// The operations of a kernel, without the two exits at its end.
fn ops(body: &str) -> Vec<Op> {
    let module = parse(body).unwrap();
    let code = module.entries()[0].code();
    code[..code.len() - 2]
        .iter()
        .map(|i| i.op.clone())
        .collect()
}

#[track_caller]
fn refused(body: &str, line: u32, column: u32, expected: &str, found: &str) {
    match parse(body) {
        Err(Error::Parse {
            line: l,
            column: c,
            expected: e,
            found: f,
        }) => {
            assert_eq!((l, c), (line, column), "{body}: expected {e}, found {f}");
            assert!(e.contains(expected), "{body}: expected {e}");
            assert!(f.contains(found), "{body}: found {f}");
        }
        other => panic!("{body}: {other:?}"),
    }
}

#[track_caller]
fn unsupported(body: &str, name: &str) {
    match parse(body) {
        Err(Error::Unsupported { line: 11, what }) => {
            assert!(what.contains(name), "{body}: {what}")
        }
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn errors_name_line_and_column() {
    refused("add.u32 r0, r1;", 11, 1, "3 operands", "2");
    refused(
        "add.u32 r0,\n   r1, f0;",
        12,
        8,
        "type U32",
        "`f0` of type F32",
    );
    refused("add.u32 r0, r1, nope;", 11, 17, "type U32", "`nope`");
    refused("add.u32 r0, r1, r8;", 11, 17, "type U32", "`r8`");
    refused("/* \n */ bra AWAY;", 12, 9, "label", "`AWAY`");
    refused("A: B: A: add.u32 r0, r1, r2;", 11, 7, "new name", "`A`");
    refused("{ .reg .u32 x; } mov.u32 r0, x;", 11, 30, "variable", "`x`");
    refused(".reg .u32 r3;", 11, 11, "new name", "`r3`");
    refused(".reg .u32 x7; .reg .b32 x<8>;", 11, 25, "new name", "`x`");
    refused("@r0 ret;", 11, 2, "predicate", "`r0`");
    refused("mov.u32 r0, 0f3F80000;", 11, 13, "number", "`f`");
    refused("mov.u32 r0, 1/0;", 11, 14, "other than 0", "0");
    refused("add.u32 r0, r1, r2", 12, 1, "`,`", "`ret`");
}

#[test]
fn types_are_checked_as_the_assembler_does() {
    refused("fma.f32 f0, f1, f2, f3;", 11, 1, "`.rn`", "fma.f32");
    refused("div.f32 f0, f1, f2;", 11, 1, "`.rn`", "div.f32");
    refused("cvt.u32.f32 r0, f1;", 11, 1, "`.rni`", "cvt");
    refused("mul.u32 r0, r1, r2;", 11, 1, "type", "mul.u32");
    refused("setp.ltu.u32 p, r0, r1;", 11, 1, "comparison", "setp");
    refused("ld.global.u32 r0, [r1];", 11, 19, "64 bits", "`r1`");
    refused("ld.global.u32 h0, [d1];", 11, 15, "type U32", "B16");
    refused("ld.global.u32 r0, [s];", 11, 19, "Global", "Shared");
    refused(
        "st.global.v4.f64 [d0], {e, e, e, e};",
        11,
        1,
        "16 bytes",
        "st",
    );
    refused("mov.b64 d0, {r0, h1};", 11, 18, "type B32", "B16");
    refused("bar.sync 16;", 11, 10, "0 to 15", "16");
    refused(
        "cp.async.cg.shared.global [r0], [d0], 8;",
        11,
        39,
        "16",
        "8",
    );
    refused(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {f0,f1,f2,f3}, {r0,r1}, {r2,r3}, {f0,f1,f2,f3};",
        11,
        66,
        "a vector of 4",
        "2",
    );
    // A load may fill a wider register, and so may a conversion.
    assert!(matches!(
        ops("ld.global.s8 d0, [d1];")[0],
        Op::Load {
            ty: Type::S8,
            bits: 64,
            ..
        }
    ));
    assert!(matches!(
        ops("cvt.u16.u32 r0, r1;")[0],
        Op::Cvt {
            to: Type::U16,
            bits: 32,
            ..
        }
    ));
}

#[test]
fn what_is_not_known_is_named() {
    unsupported("add.funny.u32 r0, r1, r2;", ".funny of add.funny.u32");
    unsupported("max.relu.s32 r0, r1, r2;", ".relu");
    unsupported("add.rn.u32 r0, r1, r2;", ".rn of add.rn.u32");
    unsupported("wmma r0;", "instruction wmma");
    unsupported("mov.u32 r0, %envreg3;", "%envreg3");
    unsupported(".reg .b128 x;", "b128");
    unsupported(".texref t;", ".texref");
    let function = ".version 7.0 .target sm_80 .func f() { ret; }";
    assert!(matches!(
        Module::parse(function),
        Err(Error::Unsupported { line: 1, .. })
    ));
}

#[test]
fn instructions_need_their_target_and_version() {
    let with = |version: &str, target: &str, body: &str| {
        let text = text(body).replace("8.2", version).replace("sm_90", target);
        match Module::parse(&text) {
            Ok(_) => String::new(),
            Err(Error::Parse { expected, .. }) => expected,
            Err(other) => panic!("{other}"),
        }
    };
    for (body, target, version) in [
        ("max.f16 h0, h1, h2;", "sm_80", "7.0"),
        ("add.bf16x2 r0, r1, r2;", "sm_90", "7.8"),
        ("cp.async.commit_group;", "sm_80", "7.0"),
        ("tanh.approx.f32 f0, f1;", "sm_75", "7.0"),
        ("lop3.or.b32 r0|p, r1, r2, r3, 1, q;", "sm_70", "8.2"),
        ("ld.global.L1::no_allocate.u32 r0, [d0];", "sm_70", "7.4"),
    ] {
        assert_eq!(with("8.2", "sm_90", body), "");
        assert_eq!(with(version, target, body), "", "{body}");
        if target > "sm_70" {
            let found = with("7.0", "sm_70", body);
            assert!(
                found.starts_with(&format!("`.target {target}`")),
                "{body}: {found}"
            );
        }
        if version > "7.0" {
            let found = with("7.0", target, body);
            assert!(
                found.starts_with("`.version 7.8`")
                    || found.starts_with(&format!("`.version {version}`")),
                "{body}: {found}"
            );
        }
    }
    assert!(with("7.0", "sm_90", "ret;").starts_with("`.version 7.8`"));
}

#[test]
fn constants_become_registers_that_are_shared() {
    let module = parse("add.u32 r0, r1, 3*(2+1); add.f32 f0, f1, 1.5; add.s32 r2, r0, 9; add.f64 e, e, 0f3F800000;").unwrap();
    let entry = &module.entries()[0];
    let constants = entry.constants();
    let narrow: Vec<_> = constants.narrow.iter().map(|(_, bits)| *bits).collect();
    assert_eq!(narrow, [9, 1.5f32.to_bits()]);
    assert_eq!(constants.wide[0].1, 1f64.to_bits());
    // A constant is not among the registers whose first write is awaited.
    let reads = entry.operands(&entry.code()[0].reads);
    assert_eq!(reads.len(), 1);
    assert_eq!(
        (reads[0].file, entry.register(reads[0])),
        (File::Narrow, "r1")
    );
    let writes = entry.operands(&entry.code()[0].writes);
    assert_eq!(entry.register(writes[0]), "r0");
}

#[test]
fn variables_lie_in_their_space() {
    let text = "
        .version 7.0 .target sm_80
        .global .align 4 .u32 g[3] = {1, 2};
        .global .u64 at = generic(g);
        .const .f32 c = 2.5;
        .extern .shared .align 16 .b8 dynamic[];
        .visible .entry k(.param .u32 n, .param .align 8 .b8 pair[16]) {
            .local .align 8 .b8 l[24];
            .reg .u32 r; .reg .u64 d;
            ld.u32 r, [g+4];
            st.shared.u32 [dynamic+8], r;
            mov.u64 d, l;
        }";
    let module = Module::parse(text).unwrap();
    let [g, at, c, dynamic, n, pair, l] = module.variables() else {
        panic!()
    };
    assert_eq!((g.bytes, &g.data[..]), (12, &[1, 0, 0, 0, 2, 0, 0, 0][..]));
    assert_eq!((at.pointers[0].at, at.pointers[0].variable), (0, 0));
    assert_eq!(
        (c.space, &c.data[..]),
        (Space::Const, &2.5f32.to_le_bytes()[..])
    );
    assert!(dynamic.dynamic && dynamic.bytes == 0 && dynamic.align == 16);
    assert_eq!((n.offset, pair.offset, pair.bytes, l.align), (0, 8, 16, 8));
    let entry = module.entry("k").unwrap();
    assert!([3, 4, 5, 6].iter().all(|at| entry.variables().contains(at)));
    match &entry.code()[0].op {
        Op::Load {
            space: Space::Global,
            address,
            ..
        } => assert_eq!((address.base, address.offset), (Base::Variable(0), 4)),
        other => panic!("{other:?}"),
    }
    assert_eq!(entry.signature()[1].bytes, 16);
    assert!(matches!(
        module.entry("other"),
        Err(Error::Signature { .. })
    ));
}

#[test]
fn declarations_are_checked_against_the_entry() {
    whittle_tensor::kernels! {
        module "m" in "";
        /// As the entry.
        GOOD = "k"(P: Ptr, N: U32);
        /// Exchanged.
        BAD = "k"(N: U32, P: Ptr);
        /// Another kind.
        KIND = "k"(P: Ptr, N: F32);
        /// Too few.
        FEW = "k"(P: Ptr);
    }
    let module = parse("").unwrap();
    let entry = &module.entries()[0];
    assert!(entry.check(&GOOD).is_ok());
    for bad in [BAD, KIND, FEW] {
        assert!(
            matches!(entry.check(&bad), Err(Error::Signature { .. })),
            "{bad:?}"
        );
    }
}

#[test]
fn hostile_texts_meet_limits() {
    let limited = |body: &str, what: &str| match parse(body) {
        Err(Error::Limit { what: found, .. }) => assert!(found.contains(what), "{found}"),
        other => panic!("{what}: {other:?}"),
    };
    limited(&"{".repeat(100), "nested blocks");
    limited(
        &format!("mov.u32 r0, {}1;", "(".repeat(10_000)),
        "nested expressions",
    );
    limited(
        &format!("mov.u32 r0, {}1;", "-".repeat(10_000)),
        "nested expressions",
    );
    limited(&format!("add{} r0;", ".a".repeat(100)), "modifiers");
    limited(&format!("add.u32 {}r0;", "r0,".repeat(100)), "operands");
    limited(
        &format!("mov.b64 d0, {{{}r0}};", "r0,".repeat(100)),
        "elements",
    );
    limited(&"ret;".repeat(1 << 20), "statements");
    limited(&" ".repeat(8 << 20), "bytes of PTX");
    limited(".shared .b8 big[60000];", "static shared memory");
    limited(".local .b8 big[99999999999999];", "bytes of a variable");
    limited(
        &format!(".global .u64 x[200000] = {{{}1}};", "1,".repeat(199_999)),
        "initial values",
    );
    let registers: String = (0..70_000).map(|i| format!("mov.u32 x{i}, 1;")).collect();
    limited(
        &format!(".reg .u32 x<4294967295>; {registers}"),
        "registers",
    );
    let labels = "L,".repeat(2000);
    let many = "brx.idx r0, t;".repeat(1000);
    limited(
        &format!("L: t: .branchtargets {labels}L; {many}"),
        "branch targets",
    );
    // A range costs nothing until its registers are used.
    assert!(parse(".reg .u32 x<4294967295>; mov.u32 x4294967294, 1;").is_ok());
}

#[test]
fn divergent_paths_meet_at_the_first_common_instruction() {
    let meets = |body: &str| -> Vec<u32> {
        ops(body)
            .iter()
            .filter_map(|op| match op {
                Op::Bra { meet, .. } | Op::BrxIdx { meet, .. } => Some(*meet),
                _ => None,
            })
            .collect()
    };
    // If and else.
    assert_eq!(
        meets("@p bra E; mov.u32 r0, 1; bra J; E: mov.u32 r0, 2; J: mov.u32 r1, 1;"),
        [4, 4]
    );
    // A loop: its end. A jump back alone goes nowhere else.
    assert_eq!(meets("L: mov.u32 r0, 1; @p bra L; mov.u32 r1, 1;"), [2]);
    // One side leaves the kernel: they do not meet.
    assert_eq!(meets("@p bra E; exit; E: mov.u32 r0, 1;"), [NEVER]);
    // A loop without an end.
    assert_eq!(
        meets("@p bra L; bra M; L: bra L; M: mov.u32 r0, 1;")[2],
        NEVER
    );
    assert_eq!(
        meets("t: .branchtargets A, B; brx.idx r0, t; A: mov.u32 r0, 1; B: mov.u32 r0, 2;"),
        [2]
    );
}

/// The post-dominators of a graph by their definition: a node is on every path to the end if the end can't be reached without it.
fn meet_by_definition(next: &[Vec<usize>], from: usize) -> Option<usize> {
    let end = next.len();
    let reaches = |start: usize, without: usize| {
        let (mut seen, mut stack) = (vec![false; end + 1], vec![start]);
        while let Some(at) = stack.pop() {
            if at != without && !std::mem::replace(&mut seen[at], true) && at < end {
                stack.extend(&next[at]);
            }
        }
        seen
    };
    if !reaches(from, usize::MAX)[end] {
        return None;
    }
    let dominates = |at: usize, from: usize| at != from && !reaches(from, at)[end];
    let all: Vec<usize> = (0..end).filter(|&at| dominates(at, from)).collect();
    // The others stand behind the first.
    let first = |&&at: &&usize| all.iter().all(|&other| other == at || dominates(other, at));
    all.iter().find(first).copied()
}

proptest! {
    #[test]
    fn meeting_points_are_post_dominators(jumps in prop::collection::vec((0usize..12, any::<bool>(), any::<bool>()), 1..12)) {
        let count = jumps.len();
        let mut body = String::new();
        let mut next = Vec::new();
        for (at, &(to, guarded, leaves)) in jumps.iter().enumerate() {
            let guard = if guarded { "@p " } else { "" };
            let to = to % count;
            let mut successors = if leaves { vec![count + 1] } else { vec![to] };
            body += &if leaves { format!("L{at}: {guard}exit;\n") } else { format!("L{at}: {guard}bra L{to};\n") };
            if guarded {
                successors.push(at + 1);
            }
            next.push(successors);
        }
        next.push(vec![count + 1]);
        for (at, op) in ops(&body).iter().enumerate() {
            if let Op::Bra { meet, .. } = op {
                let expected = meet_by_definition(&next, at).map_or(NEVER, |at| at as u32);
                prop_assert_eq!(*meet, expected, "{} of\n{}", at, body);
            }
        }
    }

    #[test]
    fn mangled_texts_never_panic(place in 0usize..600, bytes in prop::collection::vec(any::<u8>(), 0..6), skip in 0usize..8) {
        let good = text("@p add.rn.f32 f0, f1, 1.5; ld.global.v2.u32 {r0, _}, [d0+8]; mov.b64 d0, {r0, r1}; L: @!p bra L;");
        let place = place % good.len();
        let end = (place + skip).min(good.len());
        let mangled = [&good.as_bytes()[..place], &bytes, &good.as_bytes()[end..]].concat();
        let _ = Module::parse(&String::from_utf8_lossy(&mangled));
    }
}
