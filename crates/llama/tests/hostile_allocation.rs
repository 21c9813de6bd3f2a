//! A length field never makes the reader ask for more memory than the file is long, plus 1 MiB.
#![allow(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use whittle_llama::{
    Gguf, Tokenizer,
    gguf::{Strings, write::Writer},
};

/// Remembers the largest request of the thread.
struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn watch(size: usize) {
    // The thread's own variable may be gone while the thread ends; nothing is measured then.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call goes to the system's allocator unchanged; the counter allocates nothing.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        watch(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        watch(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        watch(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Opens a file and checks what it asked for.
#[track_caller]
fn open(bytes: Vec<u8>) -> whittle_llama::Result<Gguf> {
    let limit = bytes.len() + (1 << 20);
    LARGEST.set(0);
    let result = Gguf::from_bytes("hostile", bytes);
    assert!(
        LARGEST.get() <= limit,
        "{} bytes in one request, the limit is {limit}",
        LARGEST.get()
    );
    result
}

/// A key `k` of that type, with what follows it.
fn key(kind: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(b"k");
    bytes.extend(kind.to_le_bytes());
    bytes.extend(rest);
    bytes
}

const LENGTHS: [u64; 9] = [
    1 << 21,
    1 << 24,
    1 << 31,
    1 << 40,
    1 << 60,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 8,
    u64::MAX,
];

#[test]
fn the_watch_sees_large_requests() {
    LARGEST.set(0);
    std::hint::black_box(vec![1_u8; 3 << 20]);
    assert_eq!(LARGEST.get(), 3 << 20);
}

#[test]
fn impossible_counts_ask_for_nothing() {
    for length in LENGTHS {
        for at in [8, 16] {
            let mut bytes = key(4, &[0; 64]);
            bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
            assert!(open(bytes).is_err());
        }
    }
}

#[test]
fn impossible_strings_and_arrays_ask_for_nothing() {
    for length in LENGTHS {
        assert!(open(key(8, &[&length.to_le_bytes()[..], &[b'a'; 100]].concat())).is_err());
        for element in 0..13_u32 {
            let array = [&element.to_le_bytes()[..], &length.to_le_bytes(), &[0; 100]].concat();
            assert!(open(key(9, &array)).is_err());
            let nested = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &array].concat();
            assert!(open(key(9, &nested)).is_err());
        }
    }
}

#[test]
fn impossible_shapes_ask_for_nothing() {
    for length in LENGTHS {
        for dimensions in [
            vec![length],
            vec![32, length],
            vec![length, length, length, length],
        ] {
            let mut bytes = b"GGUF\x03\0\0\0".to_vec();
            bytes.extend(1_u64.to_le_bytes());
            bytes.extend(0_u64.to_le_bytes());
            bytes.extend(1_u64.to_le_bytes());
            bytes.extend(b"t");
            bytes.extend((dimensions.len() as u32).to_le_bytes());
            dimensions
                .iter()
                .for_each(|dimension| bytes.extend(dimension.to_le_bytes()));
            bytes.extend([0; 64]);
            assert!(open(bytes).is_err());
        }
    }
}

/// What is small in a file and larger in memory: millions of empty strings, thousands of keys, nested arrays, tensors.
#[test]
fn many_small_things_stay_within_the_files_length() {
    let empty = Writer::new()
        .metadata("k", (0..1 << 20).map(|_| "").collect::<Strings>())
        .to_bytes()
        .unwrap();
    assert_eq!(open(empty).unwrap().strings("k").unwrap().len(), 1 << 20);

    let long = Writer::new().metadata(
        "k",
        (0..100_000)
            .map(|i| "x".repeat(i % 97))
            .collect::<Strings>(),
    );
    assert!(open(long.to_bytes().unwrap()).is_ok());

    let keys = (0..50_000_u32).fold(Writer::new(), |writer, i| writer.metadata(i.to_string(), i));
    assert_eq!(
        open(keys.to_bytes().unwrap()).unwrap().entries().count(),
        50_000
    );

    let nested = [
        &9_u32.to_le_bytes()[..],
        &1_000_000_u64.to_le_bytes(),
        &[0; 12_000_000],
    ]
    .concat();
    assert!(open(key(9, &nested)).is_err());
}

#[test]
fn a_tokenizer_of_a_hostile_vocabulary_stays_within_the_files_length() {
    let tokens: Strings = (0..1 << 18).map(|_| "").collect();
    let writer = Writer::new()
        .metadata("tokenizer.ggml.model", "gpt2")
        .metadata("tokenizer.ggml.tokens", tokens);
    let bytes = writer.to_bytes().unwrap();
    let limit = bytes.len() + (1 << 20);
    let gguf = open(bytes).unwrap();
    LARGEST.set(0);
    assert!(Tokenizer::from_gguf(&gguf).is_err());
    assert!(
        LARGEST.get() <= limit,
        "{} bytes in one request, the limit is {limit}",
        LARGEST.get()
    );
}
