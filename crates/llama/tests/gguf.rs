//! Reading and writing: what is written comes back, whatever it is.

use proptest::prelude::*;
use std::fs;
use whittle_llama::{
    Error, Gguf,
    gguf::{Array, GgmlType, Strings, Value, write::Writer},
};

fn array() -> impl Strategy<Value = Array> {
    use prop::collection::vec;
    let flat = prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Array::U8),
        vec(any::<i8>(), 0..9).prop_map(Array::I8),
        vec(any::<u16>(), 0..9).prop_map(Array::U16),
        vec(any::<i16>(), 0..9).prop_map(Array::I16),
        vec(any::<u32>(), 0..9).prop_map(Array::U32),
        vec(any::<i32>(), 0..9).prop_map(Array::I32),
        vec(any::<f32>(), 0..9).prop_map(Array::F32),
        vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        vec(any::<String>(), 0..9).prop_map(|texts| Array::String(texts.iter().collect())),
        vec(any::<u64>(), 0..9).prop_map(Array::U64),
        vec(any::<i64>(), 0..9).prop_map(Array::I64),
        vec(any::<f64>(), 0..9).prop_map(Array::F64),
    ];
    // Depth 3 of nesting makes arrays of at most four levels, the reader's limit.
    flat.prop_recursive(3, 20, 4, |inner| vec(inner, 0..4).prop_map(Array::Array))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(Value::String),
        array().prop_map(Value::Array),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
    ]
}

fn tensor() -> impl Strategy<Value = (GgmlType, Vec<usize>)> {
    (
        prop::sample::select(&GgmlType::QUANTIZES),
        prop::collection::vec(1_usize..5, 1..=4),
    )
        .prop_map(|(kind, mut shape)| {
            *shape.last_mut().unwrap() *= kind.block_len();
            (kind, shape)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_comes_back(
        values in prop::collection::vec(value(), 0..8),
        tensors in prop::collection::vec(tensor(), 0..5),
    ) {
        let mut writer = Writer::new();
        for (i, value) in values.iter().enumerate() {
            writer = writer.metadata(format!("key.{i}"), value.clone());
        }
        for (i, (kind, shape)) in tensors.iter().enumerate() {
            // Few bits, so that F16 keeps them.
            let weights = (0..shape.iter().product()).map(|w| (w % 13) as f32 * 0.25).collect();
            writer = writer.tensor(format!("tensor {i}"), *kind, shape, weights);
        }
        let gguf = Gguf::from_bytes("memory", writer.to_bytes().unwrap()).unwrap();
        prop_assert_eq!(gguf.entries().count(), values.len());
        for (i, value) in values.iter().enumerate() {
            prop_assert_eq!(gguf.metadata(&format!("key.{i}")), Some(value));
        }
        prop_assert_eq!(gguf.tensors().len(), tensors.len());
        for (i, (info, (kind, shape))) in gguf.tensors().zip(&tensors).enumerate() {
            prop_assert_eq!(&info.name, &format!("tensor {i}"));
            prop_assert_eq!((info.kind, &info.shape), (*kind, shape));
            prop_assert_eq!(info.range.start % 32, 0);
            prop_assert_eq!(info.rows() * info.row_len(), info.len());
            prop_assert_eq!(info.rows() * info.row_bytes(), info.range.len());
            let view = gguf.tensor(&info.name).unwrap();
            for (w, weight) in view.dequantize().unwrap().into_iter().enumerate() {
                let exact = (w % 13) as f32 * 0.25;
                // The quantised formats round to steps of at most 3/8.
                let slack = if kind.block_len() == 1 { 0.0 } else { 0.2 };
                prop_assert!((weight - exact).abs() <= slack);
            }
        }
        gguf.check_finite().unwrap();
    }

    #[test]
    fn strings_are_those_that_were_pushed(texts in prop::collection::vec(any::<String>(), 0..20)) {
        let strings: Strings = texts.iter().collect();
        prop_assert_eq!(strings.len(), texts.len());
        prop_assert!(strings.iter().eq(texts.iter().map(String::as_str)));
        for (i, text) in texts.iter().enumerate() {
            prop_assert_eq!(strings.get(i), Some(text.as_str()));
        }
        prop_assert_eq!(strings.get(texts.len()), None);
    }
}

fn small() -> Writer {
    Writer::new().metadata("answer", 42_u32).tensor(
        "t",
        GgmlType::F32,
        &[2, 3],
        vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
    )
}

#[test]
fn versions_two_and_three_are_read_and_no_others() {
    for version in [0, 1, 2, 3, 4, 3 << 24, u32::MAX] {
        let mut bytes = small().to_bytes().unwrap();
        bytes[4..8].copy_from_slice(&u32::to_le_bytes(version));
        match Gguf::from_bytes("memory", bytes) {
            Ok(gguf) => {
                assert!(version == 2 || version == 3);
                assert_eq!(gguf.u32("answer").unwrap(), 42);
            }
            Err(error) => {
                assert!(version != 2 && version != 3);
                let expected =
                    format!("memory: version: expected 2 or 3, little-endian, found {version}");
                assert_eq!(error.to_string(), expected);
            }
        }
    }
}

#[test]
fn a_mapped_file_reads_as_the_same_bytes_in_memory() {
    let folder = Folder::new("mapped");
    let path = folder.0.join("small.gguf");
    small().write(&path).unwrap();
    let mapped = Gguf::open(&path).unwrap();
    assert_eq!(mapped.bytes(), small().to_bytes().unwrap());
    assert_eq!(mapped.name(), path.display().to_string());
    assert_eq!(
        mapped.tensor("t").unwrap().dequantize().unwrap(),
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    );
    assert_eq!(mapped.tensor("t").unwrap().info().shape, [2, 3]);
}

#[test]
fn views_outlive_the_file_handle_they_came_from() {
    let view = Gguf::from_bytes("memory", small().to_bytes().unwrap())
        .unwrap()
        .tensor("t")
        .unwrap();
    assert_eq!(view.bytes()[4..8], 1.0_f32.to_le_bytes());
}

#[test]
fn writing_replaces_a_file_whole_and_leaves_nothing_beside_it() {
    let folder = Folder::new("replace");
    let path = folder.0.join("small.gguf");
    fs::write(&path, "older").unwrap();
    let older = fs::File::open(&path).unwrap();
    small().write(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), small().to_bytes().unwrap());
    // The older file was replaced, not overwritten: who had it open still reads it.
    assert_eq!(std::io::read_to_string(older).unwrap(), "older");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn writes_at_once_to_one_path_all_succeed_and_remove_no_file_but_their_own() {
    let folder = Folder::new("at_once");
    let path = folder.0.join("small.gguf");
    // What an ended process of the same number may have left.
    let left: Vec<_> = (0..40)
        .map(|write| format!(".small.gguf.{}.{write}.partial", std::process::id()))
        .map(|name| folder.0.join(name))
        .collect();
    left.iter()
        .for_each(|path| fs::write(path, "left").unwrap());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..4).for_each(|_| small().write(&path).unwrap()));
        }
    });
    assert_eq!(fs::read(&path).unwrap(), small().to_bytes().unwrap());
    for path in &left {
        assert_eq!(fs::read_to_string(path).unwrap(), "left");
    }
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), left.len() + 1);
}

#[test]
fn a_failed_write_leaves_the_older_file_and_nothing_beside_it() {
    let folder = Folder::new("failed");
    let path = folder.0.join("small.gguf");
    fs::write(&path, "older").unwrap();
    assert!(
        small()
            .tensor("t", GgmlType::F32, &[1], vec![0.0])
            .write(&path)
            .is_err()
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "older");
    // A folder can't be replaced by a file: the rename fails after all bytes were written.
    let blocked = folder.0.join("folder");
    fs::create_dir(&blocked).unwrap();
    assert!(matches!(
        small().write(&blocked),
        Err(Error::Io {
            operation: "write",
            ..
        })
    ));
    assert!(matches!(
        small().write(folder.0.join("no/such/folder")),
        Err(Error::Io { .. })
    ));
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2);
}

#[test]
fn blocks_are_written_as_they_are() {
    for kind in GgmlType::ALL {
        let bytes: Vec<u8> = (0..6 * kind.block_bytes())
            .map(|i| (i * 41) as u8)
            .collect();
        let shape = [2, 3 * kind.block_len()];
        let writer = small().blocks("raw", kind, &shape, bytes.clone());
        let gguf = Gguf::from_bytes("memory", writer.to_bytes().unwrap()).unwrap();
        let raw = gguf.tensor("raw").unwrap();
        assert_eq!(raw.bytes(), bytes, "{kind}");
        assert_eq!((raw.info().kind, &raw.info().shape[..]), (kind, &shape[..]));
    }
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let tensor = |shape: &[usize], kind, len| {
        Writer::new()
            .tensor("t", kind, shape, vec![0.0; len])
            .to_bytes()
    };
    assert!(matches!(
        tensor(&[2, 2], GgmlType::F32, 5),
        Err(Error::Argument { .. })
    ));
    assert!(matches!(
        tensor(&[2, 48], GgmlType::Q8_0, 96),
        Err(Error::Argument { .. })
    ));
    assert!(matches!(
        tensor(&[], GgmlType::F32, 1),
        Err(Error::Argument { .. })
    ));
    assert!(matches!(
        tensor(&[usize::MAX, 2], GgmlType::F32, 2),
        Err(Error::Argument { .. })
    ));
    assert!(matches!(
        tensor(&[1; 5], GgmlType::F32, 1),
        Err(Error::Gguf { .. })
    ));
    assert!(matches!(
        tensor(&[0], GgmlType::F32, 0),
        Err(Error::Gguf { .. })
    ));
    assert!(matches!(
        tensor(&[1, 256], GgmlType::Q4_K, 256),
        Err(Error::Unsupported { .. })
    ));
    for (shape, len) in [
        (&[2, 256][..], 287),
        (&[2, 256][..], 289),
        (&[2, 128][..], 144),
        (&[2][..], 0),
    ] {
        let blocks = Writer::new().blocks("t", GgmlType::Q4_K, shape, vec![0; len]);
        assert!(
            matches!(blocks.to_bytes(), Err(Error::Argument { .. })),
            "{shape:?}"
        );
    }
    let twice = Writer::new().metadata("a", 1_u32).metadata("a", 2_u32);
    assert!(matches!(twice.to_bytes(), Err(Error::Gguf { .. })));
    let aligned = small().metadata("general.alignment", 16_u32);
    assert!(matches!(
        aligned.to_bytes(),
        Err(Error::Argument {
            argument: "general.alignment",
            ..
        })
    ));
}

#[test]
fn paths_that_are_no_readable_file_are_errors_that_name_them() {
    let folder = Folder::new("paths");
    for path in [folder.0.join("missing.gguf"), folder.0.clone()] {
        let error = Gguf::open(&path).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Io {
                    operation: "open",
                    ..
                }
            ),
            "{error}"
        );
        assert!(
            error.to_string().contains(&path.display().to_string()),
            "{error}"
        );
    }
    let empty = folder.0.join("empty.gguf");
    fs::write(&empty, "").unwrap();
    assert!(matches!(Gguf::open(&empty), Err(Error::Gguf { .. })));
}

/// A folder of one test, removed at its end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("whittle-gguf-{test}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
