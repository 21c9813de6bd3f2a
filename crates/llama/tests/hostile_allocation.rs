//! A length field never makes a reader ask for more memory than the file is long, plus 1 MiB; JSON takes a stated multiple.
#![allow(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use whittle_llama::{
    Adapter, Decoder, Folder, Gguf, Safetensors, Tokenizer, Weights,
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

/// A safetensors header may be copied once into a buffer that doubles as it grows.
#[test]
fn a_hostile_safetensors_header_stays_within_twice_the_files_length() {
    let escaped = format!(r#"{{"{}":{{}}}}"#, r"\u0041".repeat(1 << 20));
    let long = format!(r#"{{"{}":{{}}}}"#, "a".repeat(4 << 20));
    let shape = format!(r#"{{"t":{{"shape":[{}1]}}}}"#, "1,".repeat(2 << 20));
    let names: Vec<String> = (0..1 << 18).map(|i| format!(r#""{i}":{{}}"#)).collect();
    let names = format!("{{{}}}", names.join(","));
    let texts = format!(
        r#"{{"__metadata__":{{{}}}}}"#,
        (0..1 << 18)
            .map(|i| format!(r#""{i}":"""#))
            .collect::<Vec<_>>()
            .join(",")
    );
    let unknown = format!(r#"{{"t":{{"other":[{}1]}}}}"#, "1,".repeat(2 << 20));
    let deep = format!(r#"{{"t":{{"other":{}"#, "[".repeat(4 << 20));
    for header in [&escaped, &long, &shape, &names, &texts, &unknown, &deep] {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        let limit = 2 * bytes.len() + (1 << 20);
        LARGEST.set(0);
        assert!(Safetensors::from_bytes("hostile", bytes).is_err());
        assert!(
            LARGEST.get() <= limit,
            "{} bytes in one request, the limit is {limit}",
            LARGEST.get()
        );
    }
    for length in LENGTHS {
        LARGEST.set(0);
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        assert!(Safetensors::from_bytes("hostile", bytes).is_err());
        assert!(LARGEST.get() <= 1 << 20);
    }
}

/// Writes a folder and opens it as a model; returns the length of its files and the error.
fn open_folder(name: &str, files: &[(&str, &[u8])]) -> (usize, String) {
    let path = std::env::temp_dir().join(format!("whittle-{name}-{}", std::process::id()));
    std::fs::create_dir(&path).unwrap();
    for (file, bytes) in files {
        std::fs::write(path.join(file), bytes).unwrap();
    }
    LARGEST.set(0);
    let result = Folder::open(&path).and_then(|folder| Decoder::load_folder(&folder, Weights::F32));
    let error = result.err().map(|error| error.to_string());
    std::fs::remove_dir_all(&path).unwrap();
    (
        files.iter().map(|(_, bytes)| bytes.len()).sum(),
        error.expect("a hostile folder was accepted"),
    )
}

fn config(size: u32) -> String {
    format!(
        r#"{{"model_type":"llama","hidden_size":{size},"intermediate_size":{size},"num_hidden_layers":{size},
        "num_attention_heads":1,"vocab_size":{size},"max_position_embeddings":{size},"rms_norm_eps":1e-5,"head_dim":{size}}}"#
    )
}

#[test]
fn a_hostile_config_stays_within_32_times_its_length() {
    let configs = [
        format!(r#"{{"a":[{}0]}}"#, "0,".repeat(130_000)),
        format!(r#"{{"a":[{}{{}}]}}"#, "{},".repeat(80_000)),
        format!(r#"{{"{}":0}}"#, r"\u0041".repeat(40_000)),
        format!(r#"{{"a":{}"#, "[".repeat(250_000)),
        format!(r#"{{{}"a":0}}"#, "\"\":0,".repeat(50_000)),
    ];
    for config in configs {
        let (len, _) = open_folder("config", &[("config.json", config.as_bytes())]);
        assert!(
            LARGEST.get() <= 32 * len + (1 << 20),
            "{} bytes in one request for {len}",
            LARGEST.get()
        );
    }
}

#[test]
fn a_hostile_index_stays_within_twice_its_length() {
    let names: Vec<String> = (0..1 << 18)
        .map(|i| format!(r#""{i}":"{i}.safetensors""#))
        .collect();
    let indices = [
        format!(r#"{{"weight_map":{{{}}}}}"#, names.join(",")),
        format!(
            r#"{{"weight_map":{{"{}":"a"}}}}"#,
            r"\u0041".repeat(1 << 20)
        ),
        format!(
            r#"{{"weight_map":{{"a":"{}"}}}}"#,
            r"\u0041".repeat(1 << 20)
        ),
        format!(
            r#"{{"metadata":[{}0],"weight_map":{{}}}}"#,
            "0,".repeat(4 << 20)
        ),
        format!(r#"{{"weight_map":[{}0]}}"#, "0,".repeat(4 << 20)),
        format!(r#"{{"metadata":{}"#, "[".repeat(4 << 20)),
    ];
    let config = config(64);
    for index in indices {
        let (len, _) = open_folder(
            "index",
            &[
                ("config.json", config.as_bytes()),
                ("model.safetensors.index.json", index.as_bytes()),
            ],
        );
        assert!(
            LARGEST.get() <= 2 * len + (1 << 20),
            "{} bytes in one request for {len}",
            LARGEST.get()
        );
    }
}

#[test]
fn sizes_that_a_config_claims_are_not_allocated() {
    let header = br#"{"model.layers.0.input_layernorm.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header);
    weights.extend(1_f32.to_le_bytes());
    for size in [2, 1 << 20, u32::MAX - 1] {
        let config = config(size);
        let files: [(&str, &[u8]); 2] = [
            ("config.json", config.as_bytes()),
            ("model.safetensors", &weights),
        ];
        let (len, error) = open_folder("sizes", &files);
        let expected = format!("expected shape [{size}], found shape [1]");
        assert!(error.contains(&expected), "{error}");
        assert!(LARGEST.get() <= len + (1 << 20));
    }
}

#[test]
fn a_rank_that_an_adapter_claims_is_not_allocated() {
    let module = "base_model.model.model.layers.0.self_attn.q_proj";
    for rank in [1_u64, 1 << 20, u64::from(u32::MAX), 1 << 40] {
        let config = format!(
            r#"{{"peft_type":"LORA","r":{rank},"lora_alpha":1,"a":[{}0]}}"#,
            "0,".repeat(100_000)
        );
        let shapes = [format!("[{rank},128]"), format!("[128,{rank}]")];
        for shapes in [shapes, ["[1,128]".into(), "[128,1]".into()]] {
            let entries: Vec<String> = ["A", "B"]
                .iter()
                .zip(&shapes)
                .enumerate()
                .map(|(i, (which, shape))| {
                    let begin = 512 * i;
                    format!(
                        r#""{module}.lora_{which}.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{}]}}"#,
                        begin + 512
                    )
                })
                .collect();
            let header = format!("{{{}}}", entries.join(","));
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend([0; 1024]);
            let limit = 32 * config.len() + 2 * bytes.len() + (1 << 20);
            LARGEST.set(0);
            let adapter = Safetensors::from_bytes("hostile", bytes)
                .and_then(|weights| Adapter::new("hostile", &config, &weights));
            assert_eq!(adapter.is_ok(), rank == 1);
            assert!(
                LARGEST.get() <= limit,
                "{} bytes in one request, the limit is {limit}",
                LARGEST.get()
            );
        }
    }
}

#[test]
fn a_hostile_tokenizer_json_stays_within_eight_times_its_length() {
    let model = |vocab: &str, merges: &str| {
        format!(
            r#"{{"pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false}},"model":{{"vocab":{vocab},"merges":{merges}}}}}"#
        )
    };
    let numbered = |entry: &dyn Fn(usize) -> String, count: usize| {
        let entries: Vec<String> = (0..count).map(entry).collect();
        entries.join(",")
    };
    let steps = r#"{"type":"Sequence","pretokenizers":["#;
    let texts = [
        model(
            &format!("{{{}}}", numbered(&|_| r#""":0"#.into(), 1 << 19)),
            "[]",
        ),
        model(
            &format!(
                "{{{}}}",
                numbered(&|i| format!(r#""{i}":{}"#, i + 1), 1 << 19)
            ),
            "[]",
        ),
        model(
            &format!("{{{}}}", numbered(&|_| r#""":0"#.into(), (1 << 20) + 1)),
            "[]",
        ),
        model(r#"{"a":4294967295}"#, "[]"),
        model(
            r#"{"a":0}"#,
            &format!("[{}]", numbered(&|_| r#""a ""#.into(), 1 << 19)),
        ),
        model(&format!(r#"{{"{}":1}}"#, r"\u0041".repeat(1 << 19)), "[]"),
        model(&format!(r#"{{"{}":1}}"#, "a".repeat(4 << 20)), "[]"),
        format!(
            r#"{{"added_tokens":[{}"#,
            numbered(&|_| r#"{"id":0,"content":""}"#.into(), 1 << 18)
        ),
        format!(r#"{{"pre_tokenizer":{}"#, steps.repeat(100_000)),
        format!(
            r#"{{"post_processor":[{}0],"model":7}}"#,
            "0,".repeat(2 << 20)
        ),
        format!(r#"{{"post_processor":{}"#, "[".repeat(4 << 20)),
    ];
    for text in texts {
        let limit = 8 * text.len() + (1 << 20);
        LARGEST.set(0);
        assert!(Tokenizer::from_json("hostile", &text).is_err());
        assert!(
            LARGEST.get() <= limit,
            "{} bytes in one request, the limit is {limit}: {}",
            LARGEST.get(),
            &text[..100]
        );
    }
}
