//! Hostile and broken files: each gives an error that names the file, the field, what was expected and what was found.

use half::{bf16, f16};
use proptest::prelude::*;
use whittle_llama::{
    Error, Gguf, Tokenizer,
    gguf::{Array, GgmlType, Value, write::Writer},
    tiny::{self, Kinds},
};

/// The bytes of a file, written field by field, and where its length fields are.
#[derive(Clone, Default)]
struct Raw {
    bytes: Vec<u8>,
    lengths: Vec<(&'static str, usize)>,
}

impl Raw {
    /// Everything up to the first metadata key.
    fn header(tensors: u64, keys: u64) -> Self {
        Self::default()
            .put(b"GGUF")
            .u32(3)
            .length("tensor count", tensors)
            .length("metadata count", keys)
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    fn u32(self, number: u32) -> Self {
        self.put(&number.to_le_bytes())
    }

    fn length(mut self, field: &'static str, number: u64) -> Self {
        self.lengths.push((field, self.bytes.len()));
        self.put(&number.to_le_bytes())
    }

    fn string(self, field: &'static str, text: impl AsRef<[u8]>) -> Self {
        self.length(field, text.as_ref().len() as u64)
            .put(text.as_ref())
    }

    fn key(self, key: &str, kind: u32) -> Self {
        self.string("metadata", key).u32(kind)
    }

    fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        self = self.string("tensor", name).u32(dimensions.len() as u32);
        for &dimension in dimensions {
            self = self.length("tensor", dimension);
        }
        self.u32(kind).length("tensor", offset)
    }

    fn align(mut self, alignment: usize) -> Self {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(alignment), 0);
        self
    }

    fn open(&self) -> whittle_llama::Result<Gguf> {
        Gguf::from_bytes("hostile.gguf", self.bytes.clone())
    }

    /// Checks that the file is refused with these words.
    #[track_caller]
    fn refused(&self, field: &str, expected: &str, found: &str) {
        let error = self.open().expect_err("a bad file was accepted");
        assert_eq!(
            error.to_string(),
            format!("hostile.gguf: {field}: expected {expected}, found {found}")
        );
        assert!(matches!(error, Error::Gguf { .. }));
    }
}

/// A good file that has every kind of field: scalars, strings, arrays of numbers, strings and arrays, tensors of all types.
fn complete() -> Raw {
    let mut raw = Raw::header(4, 6)
        .key("number", 4)
        .u32(7)
        .key("text", 8)
        .string("metadata", "word")
        .key("numbers", 9)
        .u32(6)
        .length("metadata", 2)
        .put(&[0; 8])
        .key("texts", 9)
        .u32(8)
        .length("metadata", 2)
        .string("metadata", "a")
        .string("metadata", "\u{e9}")
        .key("nested", 9)
        .u32(9)
        .length("metadata", 2)
        .u32(0)
        .length("metadata", 3)
        .put(&[1, 2, 3])
        .u32(7)
        .length("metadata", 1)
        .put(&[1])
        .key("truth", 7)
        .put(&[0])
        .tensor("f32", &[8], 0, 0)
        .tensor("f16", &[8, 2], 1, 32)
        .tensor("q4_1", &[32, 1], 3, 64)
        .tensor("q8_0", &[32, 2], 8, 96)
        .align(32);
    raw.bytes.extend([0; 96 + 68]);
    raw
}

#[test]
fn the_complete_file_is_good() {
    let gguf = complete().open().unwrap();
    assert_eq!(
        gguf.metadata("nested"),
        Some(&Value::Array(Array::Array(vec![
            Array::U8(vec![1, 2, 3]),
            Array::Bool(vec![true]),
        ])))
    );
    assert_eq!(gguf.tensor("q8_0").unwrap().info().shape, [2, 32]);
    gguf.check_finite().unwrap();
}

#[test]
fn a_file_truncated_at_any_offset_is_an_error() {
    let whole = complete();
    for len in 0..whole.bytes.len() {
        let error = Gguf::from_bytes("cut.gguf", whole.bytes[..len].to_vec())
            .expect_err("a cut file was accepted");
        assert!(
            error.to_string().starts_with("cut.gguf: "),
            "{len}: {error}"
        );
    }
}

#[test]
fn a_tiny_model_truncated_anywhere_is_an_error() {
    let bytes = tiny::writer(1, Kinds::Mixed).to_bytes().unwrap();
    let header = 12_000;
    for len in (0..header)
        .step_by(7)
        .chain((header..bytes.len()).step_by(4099))
        .chain([bytes.len() - 1])
    {
        assert!(
            Gguf::from_bytes("cut.gguf", bytes[..len].to_vec()).is_err(),
            "{len}"
        );
    }
}

#[test]
fn lengths_near_two_to_the_63_are_errors_in_every_length_field() {
    let whole = complete();
    assert!(whole.lengths.len() > 25);
    for &(field, at) in &whole.lengths {
        for length in [
            i64::MAX as u64 - 7,
            i64::MAX as u64,
            1 << 63,
            (1 << 63) + 1,
            u64::MAX,
            u64::MAX - 31,
            1 << 62,
            1 << 40,
        ] {
            let mut hostile = whole.clone();
            hostile.bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
            let error = hostile
                .open()
                .expect_err("an impossible length was accepted")
                .to_string();
            assert!(
                error.starts_with(&format!("hostile.gguf: {field}")),
                "{field} at {at}, {length}: {error}"
            );
        }
    }
}

#[test]
fn products_of_dimensions_that_overflow_are_errors() {
    for dimensions in [
        [1 << 32, 1 << 32, 1, 1],
        [1 << 22; 4],
        [u64::MAX, u64::MAX, u64::MAX, 2],
        [1 << 63, 2, 1, 1],
    ] {
        for kind in [0, 1] {
            let raw = Raw::header(1, 0)
                .tensor("t", &dimensions, kind, 0)
                .align(32);
            raw.refused(
                "tensor \"t\": shape",
                "a tensor that fits into the file's 96 bytes",
                &format!("{dimensions:?}"),
            );
        }
    }
}

#[test]
fn files_of_another_kind_are_errors() {
    Raw::default().refused(
        "magic",
        "4 bytes at offset 0",
        "0 until the end of the file",
    );
    Raw::default()
        .put(b"GGML\0\0\0\0")
        .refused("magic", "the bytes \"GGUF\"", "\"GGML\"");
    Raw::default()
        .put(b"\x7fELF")
        .refused("magic", "the bytes \"GGUF\"", "\"\\x7fELF\"");
    // A big-endian file shows its version in the high byte.
    Raw::default()
        .put(b"GGUF\0\0\0\x03")
        .refused("version", "2 or 3, little-endian", "50331648");
}

#[test]
fn bad_utf8_is_an_error_in_keys_strings_and_tokens() {
    let bad = b"ab\xff";
    let raw = Raw::header(0, 1)
        .string("key", bad)
        .u32(7)
        .put(&[0])
        .put(&[0; 8]);
    raw.refused("metadata key 0", "UTF-8", "byte 0xff at offset 34");
    let raw = Raw::header(0, 1).key("k", 8).string("value", bad);
    raw.refused("metadata \"k\"", "UTF-8", "byte 0xff at offset 47");
    let tokens = Raw::header(0, 1)
        .key("tokenizer.ggml.tokens", 9)
        .u32(8)
        .length("length", 2)
        .string("", "a")
        .string("", bad);
    tokens.refused(
        "metadata \"tokenizer.ggml.tokens\": element 1",
        "UTF-8",
        "byte 0xff at offset 88",
    );
    let mut name = Raw::header(1, 0).tensor("abc", &[8], 0, 0).align(32);
    name.bytes[33] = 0xc0;
    name.refused("tensor name 0", "UTF-8", "byte 0xc0 at offset 33");
    // A character that is cut by the end of its string.
    let raw = Raw::header(0, 1).key("k", 8).string("value", b"\xe2\x82");
    raw.refused("metadata \"k\"", "UTF-8", "byte 0xe2 at offset 45");
}

#[test]
fn unknown_value_types_and_truths_are_errors() {
    for kind in [13, 14, 255, u32::MAX] {
        let raw = Raw::header(0, 1).key("k", kind).put(&[0; 8]);
        raw.refused(
            "metadata \"k\"",
            "a value type from 0 to 12",
            &kind.to_string(),
        );
        let raw = Raw::header(0, 1).key("k", 9).u32(kind).length("length", 0);
        raw.refused(
            "metadata \"k\"",
            "a value type from 0 to 12",
            &kind.to_string(),
        );
    }
    Raw::header(0, 1)
        .key("k", 7)
        .put(&[2])
        .refused("metadata \"k\"", "a Bool, 0 or 1", "2");
    let raw = Raw::header(0, 1)
        .key("k", 9)
        .u32(7)
        .length("length", 2)
        .put(&[1, 9]);
    raw.refused("metadata \"k\"", "a Bool, 0 or 1", "9");
}

#[test]
fn names_that_come_twice_are_errors() {
    let raw = Raw::header(0, 2)
        .key("k", 0)
        .put(&[1])
        .key("k", 0)
        .put(&[2]);
    raw.refused("metadata key 1", "a new key", "\"k\" again");
    let mut raw = Raw::header(2, 0)
        .tensor("t", &[8], 0, 0)
        .tensor("t", &[8], 0, 32)
        .align(32);
    raw.bytes.extend([0; 64]);
    raw.refused("tensor name 1", "a new name", "\"t\" again");
}

#[test]
fn names_of_a_wrong_length_are_errors() {
    Raw::header(0, 1)
        .key("", 4)
        .u32(0)
        .refused("metadata key 0", "1 to 65535 bytes", "0 bytes");
    let long = "k".repeat(65_536);
    Raw::header(0, 1).key(&long, 0).put(&[1]).refused(
        "metadata key 0",
        "1 to 65535 bytes",
        "65536 bytes",
    );
    assert!(
        Raw::header(0, 1)
            .key(&long[1..], 0)
            .put(&[1])
            .open()
            .is_ok()
    );
    Raw::header(1, 0)
        .tensor("", &[1], 0, 0)
        .refused("tensor name 0", "1 to 64 bytes", "0 bytes");
    Raw::header(1, 0).tensor(&long[..65], &[1], 0, 0).refused(
        "tensor name 0",
        "1 to 64 bytes",
        "65 bytes",
    );
}

#[test]
fn arrays_nest_four_deep_and_no_deeper() {
    for depth in 1..8 {
        let mut raw = Raw::header(0, 1).key("k", 9);
        for _ in 1..depth {
            raw = raw.u32(9).length("length", 1);
        }
        raw = raw.u32(0).length("length", 1).put(&[5]);
        match raw.open() {
            Ok(_) => assert!(depth <= 4, "{depth}"),
            Err(error) => {
                assert!(depth > 4, "{depth}: {error}");
                assert!(
                    error
                        .to_string()
                        .contains("expected arrays nested at most 4 deep"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn many_arrays_inside_an_array_are_an_error() {
    let mut raw = Raw::header(0, 1).key("k", 9).u32(9).length("length", 4097);
    for _ in 0..4097 {
        raw = raw.u32(0).length("length", 0);
    }
    raw.refused(
        "metadata \"k\"",
        "at most 4096 arrays inside arrays",
        "4097",
    );
}

#[test]
fn alignments_that_are_no_power_of_two_are_errors() {
    for alignment in [0, 3, 24, 33, u32::MAX] {
        let raw = Raw::header(0, 1).key("general.alignment", 4).u32(alignment);
        raw.refused(
            "general.alignment",
            "a power of two",
            &alignment.to_string(),
        );
    }
    Raw::header(0, 1)
        .key("general.alignment", 8)
        .string("", "32")
        .refused("general.alignment", "U32", "String");
    for alignment in [1, 8, 64, 1 << 31] {
        assert!(
            Raw::header(0, 1)
                .key("general.alignment", 4)
                .u32(alignment)
                .open()
                .is_ok()
        );
    }
}

#[test]
fn other_alignments_place_the_data_accordingly() {
    for alignment in [1, 8, 64, 4096] {
        let mut raw = Raw::header(1, 1)
            .key("general.alignment", 4)
            .u32(alignment)
            .tensor("t", &[1], 0, 0);
        raw = raw.align(alignment as usize).put(&2.5_f32.to_le_bytes());
        assert_eq!(
            raw.open()
                .unwrap()
                .tensor("t")
                .unwrap()
                .dequantize()
                .unwrap(),
            [2.5]
        );
    }
}

#[test]
fn numbers_of_dimensions_other_than_one_to_four_are_errors() {
    for dimensions in [&[][..], &[1; 5], &[1; 200]] {
        let raw = Raw::header(1, 0).tensor("t", dimensions, 0, 0).align(32);
        raw.refused(
            "tensor \"t\": number of dimensions",
            "1 to 4",
            &dimensions.len().to_string(),
        );
    }
    let raw = Raw::header(1, 0).tensor("t", &[4, 0], 0, 0).align(32);
    raw.refused("tensor \"t\": shape", "dimensions of at least 1", "[4, 0]");
}

#[test]
fn rows_that_are_no_whole_number_of_blocks_are_errors() {
    for kind in GgmlType::ALL {
        let len = kind.block_len() as u64;
        for ragged in [1, len / 2, len - 1, len + 1, 2 * len - 1] {
            if len == 1 || ragged == 0 {
                continue;
            }
            let mut raw = Raw::header(1, 0)
                .tensor("t", &[ragged, 2], kind.id(), 0)
                .align(32);
            raw.bytes.extend([0; 1024]);
            let expected = format!("rows of a multiple of {len} weights, for {kind}");
            raw.refused("tensor \"t\": shape", &expected, &ragged.to_string());
        }
    }
}

#[test]
fn unknown_tensor_types_are_errors_that_name_the_type() {
    for (kind, name) in [
        (4, "unknown type 4"),
        (6, "Q5_0 (6)"),
        (10, "Q2_K (10)"),
        (28, "F64 (28)"),
        (31, "unknown type 31"),
        (u32::MAX, "unknown type 4294967295"),
    ] {
        let error = Raw::header(1, 0)
            .tensor("blk.0.attn_q.weight", &[32], kind, 0)
            .open()
            .unwrap_err();
        assert!(matches!(error, Error::UnsupportedType { .. }));
        let expected = format!(
            "hostile.gguf: tensor \"blk.0.attn_q.weight\": expected type F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q5_K or Q6_K, found {name}"
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn offsets_off_the_alignment_are_errors() {
    let mut raw = Raw::header(1, 0).tensor("t", &[1], 0, 16).align(32);
    raw.bytes.extend([0; 64]);
    raw.refused(
        "tensor \"t\": offset",
        "a multiple of the alignment 32",
        "16",
    );
}

#[test]
fn tensors_that_leave_the_file_are_errors() {
    let mut raw = Raw::header(1, 0).tensor("t", &[9], 0, 32).align(32);
    raw.bytes.extend([0; 64]);
    raw.refused("tensor \"t\": data", "bytes 96..132", "a file of 128 bytes");
    Raw::header(1, 0)
        .tensor("t", &[1], 0, 1 << 20)
        .align(32)
        .refused(
            "tensor \"t\": offset",
            "at most the file's 64 bytes",
            "1048576",
        );
}

#[test]
fn overlapping_tensors_are_errors() {
    // The same place, one inside the other, and the end of one over the start of the next, in either order.
    for (first, second) in [((0, 8), (0, 8)), ((0, 24), (32, 8)), ((32, 8), (0, 9))] {
        let mut raw = Raw::header(2, 0)
            .tensor("a", &[first.1], 0, first.0)
            .tensor("b", &[second.1], 0, second.0)
            .align(32);
        raw.bytes.extend([0; 128]);
        let error = raw
            .open()
            .expect_err("overlapping tensors were accepted")
            .to_string();
        assert!(
            error.starts_with("hostile.gguf: tensor ")
                && error.contains(": data: expected bytes from "),
            "{error}"
        );
    }
    let mut raw = Raw::header(2, 0)
        .tensor("a", &[9], 0, 0)
        .tensor("b", &[8], 0, 32)
        .align(32);
    raw.bytes.extend([0; 128]);
    raw.refused(
        "tensor \"b\": data",
        "bytes from 132 on, after tensor \"a\"",
        "bytes 128..160",
    );
}

#[test]
fn more_tensors_than_the_limit_are_an_error() {
    let mut raw = Raw::header(8193, 0);
    for i in 0..8193 {
        raw = raw.tensor(&i.to_string(), &[1], 0, 0);
    }
    raw.refused("tensor count", "at most 8192", "8193");
}

/// A file whose tensor `t`, the last one, has four blocks.
fn with_tensor(kind: GgmlType) -> Vec<u8> {
    let len = 4 * kind.block_len();
    let blocks = vec![1; 4 * kind.block_bytes()];
    Writer::new()
        .blocks("other", kind, &[len], blocks.clone())
        .blocks("t", kind, &[4, kind.block_len()], blocks)
        .to_bytes()
        .unwrap()
}

#[test]
fn truncated_blocks_are_errors_that_name_file_tensor_and_bytes() {
    for kind in GgmlType::ALL {
        let whole = with_tensor(kind);
        let gguf = Gguf::from_bytes("whole", whole.clone()).unwrap();
        let range = gguf.tensor("t").unwrap().info().range.clone();
        for end in [
            range.start + 1,
            range.end - kind.block_bytes(),
            range.end - 1,
        ] {
            let error = Gguf::from_bytes("cut.gguf", whole[..end].to_vec()).unwrap_err();
            let expected = format!(
                "cut.gguf: tensor \"t\": data: expected bytes {range:?}, found a file of {end} bytes"
            );
            assert_eq!(error.to_string(), expected, "{kind}");
        }
        assert!(Gguf::from_bytes("whole", whole[..range.end].to_vec()).is_ok());
    }
}

#[test]
fn nan_and_infinite_numbers_are_errors_that_name_tensor_and_block() {
    let half = |number: f32| f16::from_f32(number).to_le_bytes().to_vec();
    let single = |number: f32| number.to_le_bytes().to_vec();
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let fields = [
            (GgmlType::F32, 0, "weight", single(number)),
            (GgmlType::F16, 0, "weight", half(number)),
            (
                GgmlType::BF16,
                0,
                "weight",
                bf16::from_f32(number).to_le_bytes().to_vec(),
            ),
            (GgmlType::Q4_0, 0, "scale", half(number)),
            (GgmlType::Q4_K, 0, "scale", half(number)),
            (GgmlType::Q4_K, 2, "minimum", half(number)),
            (GgmlType::Q5_K, 0, "scale", half(number)),
            (GgmlType::Q5_K, 2, "minimum", half(number)),
            (GgmlType::Q6_K, 208, "scale", half(number)),
            (GgmlType::Q8_0, 0, "scale", half(number)),
            (GgmlType::Q4_1, 0, "scale", half(number)),
            (GgmlType::Q4_1, 2, "minimum", half(number)),
        ];
        for (kind, place, part, bytes) in fields {
            for block in 0..4 {
                let mut file = with_tensor(kind);
                let start = Gguf::from_bytes("good", file.clone())
                    .unwrap()
                    .tensor("t")
                    .unwrap()
                    .info()
                    .range
                    .start;
                let at = start + block * kind.block_bytes() + place;
                file[at..at + bytes.len()].copy_from_slice(&bytes);
                let gguf = Gguf::from_bytes("bad.gguf", file).unwrap();
                for result in [
                    gguf.check_finite(),
                    gguf.tensor("t").unwrap().check_finite(),
                ] {
                    let expected = format!(
                        "bad.gguf: tensor \"t\": block {block}: expected a finite {part}, found {number}"
                    );
                    assert_eq!(result.unwrap_err().to_string(), expected);
                }
                gguf.tensor("other").unwrap().check_finite().unwrap();
            }
        }
    }
}

#[test]
fn getters_say_which_key_has_which_type() {
    let bytes = Writer::new()
        .metadata("number", 1_u32)
        .metadata("wide", 1_u64)
        .metadata("real", 1.0_f32)
        .metadata("truth", true)
        .metadata("text", "one")
        .metadata("numbers", vec![1_i32, 2])
        .to_bytes()
        .unwrap();
    let gguf = Gguf::from_bytes("m.gguf", bytes).unwrap();
    let message = |error: Error| error.to_string();
    assert_eq!(
        message(gguf.u32("wide").unwrap_err()),
        "m.gguf: wide: expected U32, found U64"
    );
    assert_eq!(
        message(gguf.u32("text").unwrap_err()),
        "m.gguf: text: expected U32, found String"
    );
    assert_eq!(
        message(gguf.f32("number").unwrap_err()),
        "m.gguf: number: expected F32, found U32"
    );
    assert_eq!(
        message(gguf.bool("real").unwrap_err()),
        "m.gguf: real: expected Bool, found F32"
    );
    assert_eq!(
        message(gguf.string("truth").unwrap_err()),
        "m.gguf: truth: expected String, found Bool"
    );
    let found = "found Array of 2 I32";
    assert_eq!(
        message(gguf.strings("numbers").unwrap_err()),
        format!("m.gguf: numbers: expected Array of String, {found}")
    );
    assert_eq!(
        message(gguf.f32s("numbers").unwrap_err()),
        format!("m.gguf: numbers: expected Array of F32, {found}")
    );
    assert_eq!(
        message(gguf.i32s("text").unwrap_err()),
        "m.gguf: text: expected Array of I32, found String"
    );
    assert_eq!(
        message(gguf.u32("absent").unwrap_err()),
        "m.gguf: absent: expected U32, found no such key"
    );
    assert_eq!(
        message(gguf.tensor("absent").unwrap_err()),
        "m.gguf: tensor \"absent\": expected a tensor, found none"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn flipped_bytes_never_panic(
        // Two thirds of the flips fall into the header, where they matter most.
        flips in prop::collection::vec((prop_oneof![2 => 0_usize..10_000, 1 => 0_usize..1 << 20], any::<u8>()), 1..6),
    ) {
        thread_local! {
            static GOOD: Vec<u8> = tiny::writer(3, Kinds::Mixed).to_bytes().unwrap();
        }
        let mut bytes = GOOD.with(Clone::clone);
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(gguf) = Gguf::from_bytes("flipped", bytes) {
            let finite = gguf.check_finite().is_ok();
            for info in gguf.tensors() {
                let weights = gguf.tensor(&info.name).unwrap().dequantize().unwrap();
                prop_assert!(!finite || weights.iter().all(|weight| weight.is_finite()));
            }
            if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf)
                && let Ok(ids) = tokenizer.encode_special("<|im_start|>the end, and 42")
            {
                tokenizer.decode(&ids).unwrap();
            }
        }
    }

    #[test]
    fn arbitrary_bytes_after_the_magic_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(bytes);
        let _ = Gguf::from_bytes("arbitrary", file);
    }

    /// Blocks of any bits: either a scale is refused, or every weight and every product is a number.
    #[test]
    fn blocks_of_any_bits_give_numbers_or_an_error(
        kind in prop::sample::select(&GgmlType::ALL),
        seed in any::<u64>(),
    ) {
        let mut state = seed;
        let mut bytes = vec![0; 2 * kind.block_bytes()];
        for byte in &mut bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        let file = Writer::new().blocks("t", kind, &[2, kind.block_len()], bytes).to_bytes().unwrap();
        let tensor = Gguf::from_bytes("any.gguf", file).unwrap().tensor("t").unwrap();
        let weights = tensor.dequantize().unwrap();
        match tensor.check_finite() {
            Ok(()) => prop_assert!(weights.iter().all(|weight| weight.is_finite()), "{}", kind),
            Err(error) => {
                prop_assert!(weights.iter().any(|weight| !weight.is_finite()), "{}: {}", kind, error);
                prop_assert!(error.to_string().starts_with("any.gguf: tensor \"t\": block "), "{}", error);
            }
        }
    }
}
