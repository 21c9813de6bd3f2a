//! Safetensors files: what is written comes back, and hostile ones give errors that name the file, the field, what was expected and
//! what was found.

use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use whittle_llama::safetensors::{Dtype, Safetensors};
use whittle_llama::{Error, gguf::GgmlType};

/// A file of this header and these bytes.
fn file(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

fn open(bytes: Vec<u8>) -> whittle_llama::Result<Safetensors> {
    Safetensors::from_bytes("hostile.safetensors", bytes)
}

/// Checks that the file is refused with these words.
#[track_caller]
fn refused(bytes: Vec<u8>, field: &str, expected: &str, found: &str) {
    let error = open(bytes).expect_err("a bad file was accepted");
    assert_eq!(
        error.to_string(),
        format!("hostile.safetensors: {field}: expected {expected}, found {found}")
    );
    assert!(matches!(error, Error::Safetensors { .. }));
}

/// Checks that the header is refused, for a reason with these words in it.
#[track_caller]
fn header_refused(header: &str, data: &[u8], words: &str) {
    let error = open(file(header, data))
        .expect_err("a bad header was accepted")
        .to_string();
    assert!(
        error.starts_with("hostile.safetensors: header: expected "),
        "{error}"
    );
    assert!(error.contains(words), "{error}");
}

fn tensor(dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

/// A file whose only tensor `t` is this one.
fn single(entry: &str, data: &[u8]) -> Vec<u8> {
    file(format!(r#"{{"t":{entry}}}"#), data)
}

proptest! {
    #[test]
    fn what_is_written_comes_back(
        tensors in prop::collection::btree_map("[a-z.]{1,12}", (prop::sample::select(&Dtype::ALL), prop::collection::vec(0_usize..5, 0..4)), 0..6),
        metadata in prop::collection::btree_map("[a-z_]{1,8}", any::<String>(), 0..4),
        padding in 0_usize..9,
    ) {
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        let mut expected = BTreeMap::new();
        for (name, (dtype, shape)) in &tensors {
            let begin = data.len();
            let size = shape.iter().product::<usize>() * dtype.bytes();
            data.extend((0..size).map(|i| (i * 31 + begin) as u8));
            header.insert(name.clone(), json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [begin, data.len()]}));
            expected.insert(name.clone(), data[begin..].to_vec());
        }
        if !metadata.is_empty() {
            header.insert("__metadata__".into(), json!(metadata));
        }
        // Writers fill the header up with spaces.
        let header = format!("{}{}", serde_json::Value::Object(header), " ".repeat(padding));
        let found = open(file(header, &data)).unwrap();
        prop_assert_eq!(found.tensors().len(), tensors.len());
        for (key, text) in &metadata {
            prop_assert_eq!(found.metadata(key), Some(text.as_str()));
        }
        for entry in found.tensors() {
            let (dtype, shape) = &tensors[&entry.name];
            prop_assert_eq!((entry.dtype, &entry.shape), (*dtype, shape));
            prop_assert_eq!(found.bytes(&entry.name).unwrap(), &expected[&entry.name][..]);
            let weights = dtype.weights().is_some() && !shape.is_empty() && !shape.contains(&0);
            prop_assert_eq!(found.tensor(&entry.name).is_ok(), weights);
        }
    }

    #[test]
    fn any_bytes_as_a_header_never_panic(header in prop::collection::vec(any::<u8>(), 0..200), data in 0_usize..64) {
        let _ = open(file(header, &vec![0; data]));
    }

    /// A good file with some bytes changed.
    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<usize>(), any::<u8>()), 1..5)) {
        let header = format!(
            r#"{{"__metadata__":{{"format":"pt"}},"a":{},"b":{},"c":{}}}"#,
            tensor("F32", "[2,3]", 0, 24), tensor("BF16", "[4]", 24, 32), tensor("I64", "[]", 32, 40),
        );
        let mut bytes = file(header, &[1; 40]);
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let len = bytes.len();
        if let Ok(found) = open(bytes) {
            for entry in found.tensors() {
                prop_assert!(entry.range.end <= len);
                if let Ok(view) = found.tensor(&entry.name) {
                    view.dequantize().unwrap();
                }
            }
        }
    }
}

#[test]
fn weights_are_read_in_three_formats() {
    let header = format!(
        r#"{{"single":{},"half":{},"brain":{}}}"#,
        tensor("F32", "[1,2]", 0, 8),
        tensor("F16", "[2]", 8, 12),
        tensor("BF16", "[2]", 12, 16)
    );
    let data = [
        &1.5_f32.to_le_bytes()[..],
        &(-2.0_f32).to_le_bytes(),
        &half::f16::from_f32(0.25).to_le_bytes(),
        &half::f16::from_f32(-8.0).to_le_bytes(),
        &half::bf16::from_f32(3.0).to_le_bytes(),
        &half::bf16::from_f32(-0.5).to_le_bytes(),
    ]
    .concat();
    let found = open(file(header, &data)).unwrap();
    let expected = [
        ("single", GgmlType::F32, vec![1, 2], [1.5, -2.0]),
        ("half", GgmlType::F16, vec![2], [0.25, -8.0]),
        ("brain", GgmlType::BF16, vec![2], [3.0, -0.5]),
    ];
    for (name, kind, shape, weights) in expected {
        let view = found.tensor(name).unwrap();
        assert_eq!((view.info().kind, &view.info().shape), (kind, &shape));
        assert_eq!(view.dequantize().unwrap(), weights);
        assert_eq!(view.file(), "hostile.safetensors");
        view.check_finite().unwrap();
    }
    let error = found.tensor("other").unwrap_err().to_string();
    assert_eq!(
        error,
        "hostile.safetensors: tensor \"other\": expected a tensor, found none"
    );
}

#[test]
fn numbers_that_are_not_finite_are_errors_that_name_tensor_and_place() {
    for (dtype, bytes) in [
        ("F32", f32::NAN.to_le_bytes().to_vec()),
        ("F16", half::f16::NAN.to_le_bytes().to_vec()),
        ("BF16", half::bf16::NAN.to_le_bytes().to_vec()),
    ] {
        let size = bytes.len();
        let data = [vec![0; size], bytes].concat();
        let found = open(single(&tensor(dtype, "[2]", 0, 2 * size as u64), &data)).unwrap();
        let error = found.tensor("t").unwrap().check_finite().unwrap_err();
        assert_eq!(
            error.to_string(),
            "hostile.safetensors: tensor \"t\": block 1: expected a finite weight, found NaN"
        );
    }
}

#[test]
fn types_and_shapes_that_are_no_weights_are_errors() {
    let error = |entry: &str, data: &[u8]| {
        let found = open(single(entry, data)).unwrap();
        found.tensor("t").unwrap_err().to_string()
    };
    assert_eq!(
        error(&tensor("I64", "[1]", 0, 8), &[0; 8]),
        "hostile.safetensors: tensor \"t\": dtype: expected F32, F16 or BF16, found I64"
    );
    for (shape, size) in [("[]", 4), ("[1,1,1,1,1]", 4), ("[2,0]", 0)] {
        let found = shape.replace(',', ", ");
        assert_eq!(
            error(&tensor("F32", shape, 0, size), &vec![0; size as usize]),
            format!(
                "hostile.safetensors: tensor \"t\": shape: expected one to four dimensions of at least 1, found {found}"
            )
        );
    }
}

#[test]
fn files_without_a_whole_header_are_errors() {
    for len in 0..8 {
        refused(
            vec![0; len],
            "header length",
            "8 bytes",
            &format!("a file of {len} bytes"),
        );
    }
    let whole = single(&tensor("U8", "[3]", 0, 3), &[0; 3]);
    let header = whole.len() - 11;
    for len in 8..8 + header {
        refused(
            whole[..len].to_vec(),
            "header length",
            &format!("at most {}, for a file of {len} bytes", len - 8),
            &header.to_string(),
        );
    }
    for len in 8 + header..whole.len() {
        let words = format!("within the {} bytes of data", len - 8 - header);
        let error = open(whole[..len].to_vec()).unwrap_err().to_string();
        assert!(error.contains(&words), "{error}");
    }
    for length in [1 << 27, 1 << 31, 1 << 60, 1 << 63, u64::MAX] {
        let mut bytes = file("{}", &[]);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        refused(
            bytes,
            "header length",
            "at most 2, for a file of 10 bytes",
            &length.to_string(),
        );
    }
}

#[test]
fn headers_that_are_no_object_of_tensors_are_errors() {
    for (header, words) in [
        ("", "EOF while parsing"),
        ("[]", "invalid type: sequence"),
        ("7", "invalid type: integer"),
        ("{", "EOF while parsing"),
        ("{} x", "trailing characters"),
        (r#"{"t":[]}"#, "column"),
        (r#"{"t":7}"#, "invalid type: integer"),
        (r#"{"t":{"dtype":7}}"#, "invalid type: integer"),
        (r#"{"t":{"shape":7}}"#, "an array of dimensions"),
        (r#"{"t":{"shape":[-1]}}"#, "invalid value: integer `-1`"),
        (r#"{"t":{"shape":[1.5]}}"#, "invalid type: floating point"),
        (r#"{"t":{"shape":[1,1,1,1,1,1,1,1,1]}}"#, "invalid length 9"),
        (
            r#"{"t":{"shape":[18446744073709551616]}}"#,
            "invalid type: floating point",
        ),
        (r#"{"t":{"data_offsets":[0]}}"#, "invalid length 1"),
        (r#"{"t":{"data_offsets":[0,1,2]}}"#, "trailing"),
        (r#"{"__metadata__":{"a":1}}"#, "invalid type: integer"),
        (
            r#"{"__metadata__":{"a":"b","a":"c"}}"#,
            "a metadata key twice",
        ),
        (
            r#"{"__metadata__":{},"__metadata__":{}}"#,
            "__metadata__ twice",
        ),
    ] {
        header_refused(header, &[], words);
    }
    let bytes = file(b"{\"\xff\":{}}", &[]);
    assert!(open(bytes).is_err());
    // What is skipped is skipped without recursion.
    let deep = format!(r#"{{"t":{{"x":{}"#, "[".repeat(100_000));
    header_refused(&deep, &[], "EOF while parsing");
}

#[test]
fn missing_parts_are_named_with_their_tensor() {
    for (entry, part) in [
        (r#"{"shape":[1],"data_offsets":[0,1]}"#, "dtype"),
        (r#"{"dtype":"U8","data_offsets":[0,1]}"#, "shape"),
        (r#"{"dtype":"U8","shape":[1]}"#, "data_offsets"),
    ] {
        refused(
            single(entry, &[0]),
            &format!("tensor \"t\": {part}"),
            "a value",
            "none",
        );
    }
}

#[test]
fn unknown_types_are_errors_that_list_the_known_ones() {
    let error = open(single(&tensor("F4", "[2]", 0, 1), &[0])).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("hostile.safetensors: tensor \"t\": dtype: expected one of BOOL, U8"),
        "{error}"
    );
    assert!(error.ends_with("found \"F4\""), "{error}");
}

#[test]
fn offsets_outside_the_data_are_errors() {
    for (begin, end) in [(0, 5), (5, 5), (3, 2), (0, u64::MAX), (u64::MAX, 0)] {
        refused(
            single(&tensor("U8", "[4]", begin, end), &[0; 4]),
            "tensor \"t\": data_offsets",
            "a begin and an end within the 4 bytes of data",
            &format!("[{begin}, {end}]"),
        );
    }
}

#[test]
fn shapes_that_do_not_fit_their_offsets_are_errors() {
    refused(
        single(&tensor("F32", "[2]", 0, 4), &[0; 4]),
        "tensor \"t\": data_offsets",
        "8 bytes, for F32 and shape [2]",
        "[0, 4]",
    );
    for shape in [
        "[4294967296, 4294967296]",
        "[18446744073709551615]",
        "[18446744073709551615, 18446744073709551615, 0]",
    ] {
        refused(
            single(&tensor("F32", shape, 0, 4), &[0; 4]),
            "tensor \"t\": shape",
            "a tensor of the 4 bytes of its data_offsets",
            shape,
        );
    }
}

#[test]
fn overlaps_and_holes_are_errors() {
    let two = |a: (u64, u64), b: (u64, u64)| {
        let entry =
            |(begin, end): (u64, u64)| tensor("U8", &format!("[{}]", end - begin), begin, end);
        file(format!(r#"{{"a":{},"b":{}}}"#, entry(a), entry(b)), &[0; 8])
    };
    assert!(open(two((0, 3), (3, 8))).is_ok());
    assert!(open(two((3, 8), (0, 3))).is_ok());
    let field = "tensor \"b\": data_offsets";
    let after = |end: u64| format!("a begin of {end}, where the tensor before it ends");
    refused(two((0, 4), (3, 8)), field, &after(4), "3");
    refused(two((0, 3), (4, 8)), field, &after(3), "4");
    // The same place, one inside the other, and a hole at the start.
    for (a, b) in [((0, 8), (0, 8)), ((0, 8), (2, 4)), ((1, 4), (4, 8))] {
        assert!(open(two(a, b)).is_err(), "{a:?} {b:?}");
    }
    refused(
        two((0, 3), (3, 7)),
        "data",
        "the 7 bytes that the tensors take",
        "8",
    );
}

#[test]
fn names_that_come_twice_are_errors() {
    let header = format!(
        r#"{{"t":{},"t":{}}}"#,
        tensor("U8", "[1]", 0, 1),
        tensor("U8", "[1]", 1, 2)
    );
    refused(
        file(header, &[0; 2]),
        "header",
        "names that differ",
        "\"t\" twice",
    );
}

#[test]
fn more_tensors_than_the_limit_are_an_error() {
    let entry = tensor("U8", "[0]", 0, 0);
    let header = |count: usize| {
        let entries: Vec<String> = (0..count).map(|i| format!(r#""{i}":{entry}"#)).collect();
        format!("{{{}}}", entries.join(","))
    };
    assert_eq!(open(file(header(8192), &[])).unwrap().tensors().len(), 8192);
    header_refused(&header(8193), &[], "more than 8192 tensors");
    let texts: Vec<String> = (0..8193).map(|i| format!(r#""{i}":"""#)).collect();
    let header = format!(r#"{{"__metadata__":{{{}}}}}"#, texts.join(","));
    header_refused(&header, &[], "more than 8192 metadata keys");
}

#[test]
fn paths_that_are_no_readable_file_are_errors_that_name_them() {
    let folder = std::env::temp_dir();
    for path in [folder.join("whittle-no-such.safetensors"), folder] {
        let error = Safetensors::open(&path).unwrap_err();
        assert!(matches!(
            error,
            Error::Io {
                operation: "open",
                ..
            }
        ));
        assert!(error.to_string().contains(&path.display().to_string()));
    }
}
