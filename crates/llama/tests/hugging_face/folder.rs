//! Folders: the decoder that a GGUF file of the same weights gives, and errors for bad folders.

use crate::WHOLE_MODELS;
use crate::model::{TOKENS, Temporary, both, converted, halves, logits};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use whittle_llama::gguf::{GgmlType, write::Writer};
use whittle_llama::{Decoder, Error, Folder, Gguf, Weights, tiny};
use whittle_tensor::{Pairing, Tensor};
use whittle_tests::data;

#[test]
fn a_folder_gives_the_logits_of_the_gguf_file_of_the_same_weights_to_the_bit() {
    for (i, (kind, tied, shards)) in [
        (GgmlType::F32, true, 1),
        (GgmlType::F16, false, 1),
        (GgmlType::BF16, true, 3),
        (GgmlType::F32, false, 20),
    ]
    .into_iter()
    .enumerate()
    {
        let temporary = Temporary::new(&format!("same-{i}"));
        let (gguf, model) = both(kind, tied);
        model.write(&temporary.0, shards);
        let folder = Folder::open(&temporary.0).unwrap();
        for weights in [Weights::Blocks, Weights::F32] {
            let expected = Decoder::load(&gguf, weights).unwrap();
            let found = Decoder::load_folder(&folder, weights).unwrap();
            assert_eq!(found.config(), expected.config());
            assert_eq!(found.config().pairing, Pairing::Interleaved);
            let (found, expected) = (logits(&found), logits(&expected));
            assert_eq!(found.len(), TOKENS.len() * tiny::VOCAB);
            assert!(expected.iter().any(|logit| logit.abs() > 1.0));
            let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(
                bits(&found) == bits(&expected),
                "{kind} {weights:?} {shards}"
            );
        }
        assert_eq!(folder.bos(), Some(0));
        assert_eq!((folder.tied(), folder.path()), (tied, &*temporary.0));
        assert_eq!(folder.tensors().len(), model.tensors.len());
    }
}

#[test]
fn published_models_give_from_shards_the_logits_of_their_gguf_files_to_the_bit() {
    let test = "published_models_give_from_shards_the_logits_of_their_gguf_files_to_the_bit";
    let _alone = WHOLE_MODELS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    for (i, (file, shards)) in [
        ("stories260K.gguf", 3),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", 4),
    ]
    .into_iter()
    .enumerate()
    {
        let Some(path) = data(test, file) else {
            continue;
        };
        let temporary = Temporary::new(&format!("published-{i}"));
        let gguf = Gguf::open(path).unwrap();
        converted(&gguf).write(&temporary.0, shards);
        let folder = Folder::open(&temporary.0).unwrap();
        let expected = Decoder::load(&gguf, Weights::F32).unwrap();
        let found = Decoder::load_folder(&folder, Weights::F32).unwrap();
        assert_eq!(found.config(), expected.config());
        let (found, expected) = (logits(&found), logits(&expected));
        assert!(expected.iter().any(|logit| logit.abs() > 1.0));
        assert!(found == expected, "{file}");
    }
}

/// The tests above would not see a permutation that does nothing, if the model were one that does not care.
#[test]
fn rows_in_the_wrong_order_make_another_model() {
    let temporary = Temporary::new("order");
    let (gguf, mut model) = both(GgmlType::F32, true);
    for (name, shape, weights) in &mut model.tensors {
        if name.contains("q_proj") {
            // Back into the order of the GGUF file.
            for _ in 0..4 {
                *weights = halves(weights, shape[1], tiny::HEAD_DIM);
            }
        }
    }
    model.write(&temporary.0, 1);
    let folder = Folder::open(&temporary.0).unwrap();
    let found = logits(&Decoder::load_folder(&folder, Weights::F32).unwrap());
    let expected = logits(&Decoder::load(&gguf, Weights::F32).unwrap());
    let worst = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst > 0.1, "differs by {worst}");
}

#[test]
fn matrices_have_the_names_and_rows_of_gguf_files() {
    let temporary = Temporary::new("names");
    let (gguf, model) = both(GgmlType::BF16, false);
    model.write(&temporary.0, 2);
    let folder = Folder::open(&temporary.0).unwrap();
    for weights in [Weights::Blocks, Weights::F32] {
        let found = Decoder::load_folder(&folder, weights).unwrap();
        let expected = Decoder::load(&gguf, weights).unwrap();
        let names = gguf.tensors().filter(|info| info.shape.len() == 2);
        for name in names.map(|info| &*info.name) {
            let (found, expected) = (found.matrix(name).unwrap(), expected.matrix(name).unwrap());
            let rows = [0, expected.rows() as u32 - 1, 17, 16];
            for (a, b) in [
                (found.widen().unwrap(), expected.widen().unwrap()),
                (
                    found.gather(&rows).unwrap(),
                    expected.gather(&rows).unwrap(),
                ),
            ] {
                assert_eq!(
                    a.into_vec::<f32>().unwrap(),
                    b.into_vec::<f32>().unwrap(),
                    "{name}"
                );
            }
            // Few rows straight from the blocks, and many through panels.
            for n in [1, 9] {
                let x = (0..n * expected.cols())
                    .map(|i| (i as f32 * 0.37).sin())
                    .collect();
                let x = Tensor::from_vec(x, &[n, expected.cols()]).unwrap();
                let product = |matrix: &whittle_llama::Matrix| {
                    matrix.product(&x).unwrap().into_vec::<f32>().unwrap()
                };
                assert_eq!(product(found), product(expected), "{name}");
            }
        }
    }
}

#[test]
fn a_head_dim_that_does_not_divide_the_rows_is_an_error() {
    let writer = Writer::new().tensor("w", GgmlType::F32, &[12, 2], vec![0.0; 24]);
    let gguf = Gguf::from_bytes("w", writer.to_bytes().unwrap()).unwrap();
    for head_dim in [0, 1, 3, 5, 8, 24] {
        let matrix = whittle_llama::Matrix::interleaved(
            gguf.tensor("w").unwrap(),
            Weights::Blocks,
            head_dim,
        );
        let error = matrix.unwrap_err().to_string();
        let expected = format!(
            "Matrix::interleaved: head_dim: expected an even divisor of the 12 rows, found {head_dim}"
        );
        assert_eq!(error, expected);
    }
}

/// The error of opening, or else of loading.
fn error(folder: &Path) -> String {
    match Folder::open(folder).and_then(|folder| Decoder::load_folder(&folder, Weights::Blocks)) {
        Ok(_) => panic!("a bad folder was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn values_that_no_such_model_can_have_are_named_in_the_error() {
    let temporary = Temporary::new("values");
    let (_, model) = both(GgmlType::BF16, true);
    model.write(&temporary.0, 1);
    let bad = [
        ("model_type", json!("gpt2")),
        ("model_type", json!(null)),
        ("hidden_act", json!("gelu")),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("rope_interleaved", json!(true)),
        ("partial_rotary_factor", json!(0.5)),
        (
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 8.0}),
        ),
        ("quantization_config", json!({"quant_method": "gptq"})),
        ("sliding_window", json!(4096)),
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-1)),
        ("hidden_size", json!(1.5)),
        ("hidden_size", json!(1_u64 << 40)),
        ("hidden_size", json!("128")),
        ("hidden_size", json!([128])),
        ("intermediate_size", json!(null)),
        ("num_hidden_layers", json!(0)),
        ("num_attention_heads", json!(6)),
        ("num_key_value_heads", json!(3)),
        ("num_key_value_heads", json!(0)),
        ("head_dim", json!(33)),
        ("vocab_size", json!(0)),
        ("max_position_embeddings", json!(0)),
        ("rms_norm_eps", json!(-1.0)),
        ("rms_norm_eps", json!(1e300)),
        ("rms_norm_eps", json!(null)),
        ("rope_theta", json!(0)),
        ("rope_theta", json!("1e4")),
        (
            "rope_parameters",
            json!({"rope_type": "yarn", "rope_theta": 1e4}),
        ),
        ("rope_parameters", json!({"rope_type": "default"})),
        ("rope_parameters", json!(7)),
        ("tie_word_embeddings", json!("yes")),
        ("bos_token_id", json!(tiny::VOCAB)),
        ("eos_token_id", json!(-1)),
        ("eos_token_id", json!([1_000_000])),
    ];
    for (key, value) in bad {
        let model = model.clone().set(key, value.clone());
        fs::write(temporary.0.join("config.json"), model.config.to_string()).unwrap();
        let error = error(&temporary.0);
        assert!(
            error.contains(&format!("config.json: {key}")),
            "{key} = {value}: {error}"
        );
    }
}

#[test]
fn values_that_the_folder_leaves_out_have_their_defaults() {
    let temporary = Temporary::new("defaults");
    let (_, mut model) = both(GgmlType::F32, true);
    let object = model.config.as_object_mut().unwrap();
    for key in [
        "rope_theta",
        "rope_scaling",
        "hidden_act",
        "attention_bias",
        "bos_token_id",
        "eos_token_id",
    ] {
        object.remove(key);
    }
    model.write(&temporary.0, 1);
    let folder = Folder::open(&temporary.0).unwrap();
    let config = folder.config();
    assert_eq!(
        (config.rope_base, config.eos, folder.bos()),
        (10_000.0, None, None)
    );
    assert_eq!(config.head_dim, tiny::HEAD_DIM);

    let newer = model
        .set(
            "rope_parameters",
            json!({"rope_type": "default", "rope_theta": 5e5}),
        )
        .set("head_dim", json!(tiny::HEAD_DIM))
        .set("eos_token_id", json!(2));
    fs::write(temporary.0.join("config.json"), newer.config.to_string()).unwrap();
    let folder = Folder::open(&temporary.0).unwrap();
    assert_eq!(
        (folder.config().rope_base, folder.config().eos),
        (5e5, Some(2))
    );
}

#[test]
fn tensors_that_do_not_fit_the_config_are_named_in_the_error() {
    let temporary = Temporary::new("tensors");
    let (_, model) = both(GgmlType::F32, true);
    for victim in [
        "model.layers.1.self_attn.k_proj.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.norm.weight",
        "model.embed_tokens.weight",
    ] {
        let at = model
            .tensors
            .iter()
            .position(|tensor| tensor.0 == victim)
            .unwrap();
        let [mut shape, mut missing, mut infinite] = [model.clone(), model.clone(), model.clone()];
        let (_, dimensions, weights) = &mut shape.tensors[at];
        let last = dimensions.last_mut().unwrap();
        weights.truncate(weights.len() / *last * (*last - 1));
        *last -= 1;
        missing.tensors.remove(at);
        infinite.tensors[at].2[3] = f32::INFINITY;
        for (what, model) in [
            ("shape", shape),
            ("missing", missing),
            ("infinite", infinite),
        ] {
            model.write(&temporary.0, 1);
            let error = error(&temporary.0);
            assert!(error.contains(victim), "{what} {victim}: {error}");
        }
    }
    // A bias, a second output matrix or any other tensor that would be ignored makes it another model; frequencies follow from the base.
    for name in [
        "model.layers.0.self_attn.q_proj.bias",
        "lm_head.weight",
        "other",
    ] {
        let mut model = model.clone();
        model.tensors.push((name.into(), vec![4], vec![1.0; 4]));
        model.write(&temporary.0, 1);
        assert!(error(&temporary.0).contains(name), "{name}");
    }
    let mut older = model.clone();
    let frequencies = "model.layers.0.self_attn.rotary_emb.inv_freq";
    older
        .tensors
        .push((frequencies.into(), vec![16], vec![1.0; 16]));
    older.write(&temporary.0, 1);
    Decoder::load_folder(&Folder::open(&temporary.0).unwrap(), Weights::Blocks).unwrap();
}

#[test]
fn an_index_that_does_not_fit_its_files_is_an_error() {
    let temporary = Temporary::new("index");
    let (_, model) = both(GgmlType::BF16, true);
    model.write(&temporary.0, 2);
    let path = temporary.0.join("model.safetensors.index.json");
    let good: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let norm = "model.norm.weight";
    let (first, last) = (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    );
    assert_eq!(good["weight_map"][norm], last);
    let with = |tensor: &str, file: Value| {
        let mut index = good.clone();
        index["weight_map"][tensor] = file;
        index
    };
    let mut without = good.clone();
    without["weight_map"].as_object_mut().unwrap().remove(norm);
    let bad = [
        (
            with(norm, json!(first)),
            "which has the tensor, found \"model-00001-of-00002.safetensors\"",
        ),
        (without, "which has the tensor, found no entry"),
        (
            with("other", json!(last)),
            "expected a file that has the tensor",
        ),
        (
            with(norm, json!("absent.safetensors")),
            "absent.safetensors",
        ),
        (
            with(norm, json!(7)),
            "file name, found invalid type: integer `7`",
        ),
        (
            with(norm, json!("../secret.safetensors")),
            "expected a file of this folder",
        ),
        (
            with(norm, json!("/etc/secret.safetensors")),
            "expected a file of this folder",
        ),
        (
            with(norm, json!("a\\b.safetensors")),
            "expected a file of this folder",
        ),
        (
            with(norm, json!("a\u{0}.safetensors")),
            "expected a file of this folder",
        ),
        (
            with(norm, json!(".safetensors")),
            "expected a file of this folder",
        ),
        (
            with(norm, json!("weights.bin")),
            "expected a file of this folder",
        ),
        (
            json!({"weight_map": {}}),
            "expected 1 to 1024 files, found 0",
        ),
        (
            json!({"weight_map": []}),
            "invalid type: sequence, expected a map",
        ),
        (json!({}), "missing field `weight_map`"),
        (
            json!([]),
            "index.json: text: expected an object whose weight_map gives",
        ),
    ];
    for (index, words) in bad {
        fs::write(&path, index.to_string()).unwrap();
        let error = error(&temporary.0);
        assert!(error.contains(words), "{words}: {error}");
    }
    let names: serde_json::Map<String, Value> = (0..1025)
        .map(|i| (i.to_string(), json!(format!("{i}.safetensors"))))
        .collect();
    fs::write(&path, json!({"weight_map": names}).to_string()).unwrap();
    assert!(error(&temporary.0).contains("expected 1 to 1024 files, found 1025"));
}

#[test]
fn texts_that_are_no_json_object_are_errors_that_name_the_file() {
    let temporary = Temporary::new("texts");
    let (_, model) = both(GgmlType::BF16, true);
    model.write(&temporary.0, 1);
    let config = temporary.0.join("config.json");
    let nested = "[".repeat(1 << 17);
    let bad: [(&[u8], &str); 6] = [
        (b"", "EOF while parsing"),
        (b"{", "EOF while parsing"),
        (b"[1]", "invalid type: sequence"),
        (
            b"{\"a\": \xff}",
            "expected UTF-8, found byte 0xff at offset 6",
        ),
        (b"{} {}", "trailing characters"),
        (nested.as_bytes(), "column"),
    ];
    for (text, words) in bad {
        fs::write(&config, text).unwrap();
        let error = error(&temporary.0);
        assert!(error.contains("config.json: text: expected "), "{error}");
        assert!(error.contains(words), "{words}: {error}");
    }
    fs::write(&config, vec![b' '; (1 << 18) + 1]).unwrap();
    assert!(error(&temporary.0).contains("expected at most 262144 bytes, found 262145 or more"));
    fs::remove_file(&config).unwrap();
    let error = Folder::open(&temporary.0).unwrap_err();
    assert!(matches!(
        error,
        Error::Io {
            operation: "open",
            ..
        }
    ));
    fs::create_dir(&config).unwrap();
    assert!(matches!(Folder::open(&temporary.0), Err(Error::Io { .. })));
}

#[test]
fn a_folder_without_weights_says_which_file_it_wants() {
    let temporary = Temporary::new("empty");
    let (_, model) = both(GgmlType::BF16, true);
    fs::write(temporary.0.join("config.json"), model.config.to_string()).unwrap();
    let error = error(&temporary.0);
    assert!(
        error.starts_with("open ") && error.contains("model.safetensors"),
        "{error}"
    );
}
