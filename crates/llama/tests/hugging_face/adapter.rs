//! Adapters: the logits of a model with their products merged into its weights, and errors for bad adapters.

use crate::WHOLE_MODELS;
use crate::model::{Model, Temporary, Weighted, both, converted, folder_name, logits, safetensors};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use whittle_llama::gguf::{GgmlType, write::Writer};
use whittle_llama::{Adapter, Decoder, Error, Folder, Gguf, Result, Safetensors, Weights, tiny};
use whittle_tensor::{Pairing, random::Philox4x32};
use whittle_tests::data;

/// The parts of PEFT's names that stand for the seven linears of a block.
const MODULES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// Largest relative difference of logits: the two sides sum the same products in f32 in another order.
const CLOSE: f32 = 1e-4;

/// A PEFT adapter before it is written.
#[derive(Clone)]
struct Written {
    config: Value,
    kind: GgmlType,
    tensors: Vec<Weighted>,
}

impl Written {
    /// Seeded factors for these linears of the tiny model.
    fn new(seed: u64, rank: usize, modules: &[&str]) -> Self {
        let stream = &mut Philox4x32::new(seed, 0);
        let mut tensors = Vec::new();
        for layer in 0..tiny::LAYERS {
            for module in modules {
                let (rows, cols) = shape(module);
                for (which, shape) in [("A", [rank, cols]), ("B", [rows, rank])] {
                    let name = format!(
                        "base_model.model.model.layers.{layer}.{module}.lora_{which}.weight"
                    );
                    let weights = (0..shape[0] * shape[1]).map(|_| stream.next_normal() * 0.05);
                    tensors.push((name, shape.to_vec(), weights.collect()));
                }
            }
        }
        let targets: Vec<&str> = modules
            .iter()
            .map(|module| module.split_once('.').unwrap().1)
            .collect();
        Self {
            config: json!({
                "peft_type": "LORA",
                "r": rank,
                "lora_alpha": 24,
                "target_modules": targets,
                "bias": "none",
                "use_rslora": false,
                "rank_pattern": {},
            }),
            kind: GgmlType::F32,
            tensors,
        }
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    fn read(&self) -> Result<Adapter> {
        let weights = Safetensors::from_bytes("weights", safetensors(self.kind, &self.tensors))?;
        Adapter::new("adapter", &self.config.to_string(), &weights)
    }

    fn error(&self) -> String {
        let error = self.read().expect_err("a bad adapter was accepted");
        error.to_string()
    }
}

/// Rows and columns of a linear of the tiny model.
fn shape(module: &str) -> (usize, usize) {
    match module {
        "self_attn.q_proj" => (tiny::HEADS * tiny::HEAD_DIM, tiny::WIDTH),
        "self_attn.k_proj" | "self_attn.v_proj" => (tiny::KV_HEADS * tiny::HEAD_DIM, tiny::WIDTH),
        "self_attn.o_proj" => (tiny::WIDTH, tiny::HEADS * tiny::HEAD_DIM),
        "mlp.down_proj" => (tiny::WIDTH, tiny::FEED_FORWARD),
        _ => (tiny::FEED_FORWARD, tiny::WIDTH),
    }
}

/// Adds `scale · B A` to the weights of a folder, by plain loops over Hugging Face's own names and rows.
fn merge(model: &mut Model, factors: &[Weighted], scale: f64) {
    for (name, up_shape, up) in factors {
        let Some(base) = name.strip_suffix(".lora_B.weight") else {
            continue;
        };
        let down = factors
            .iter()
            .find(|(other, ..)| *other == format!("{base}.lora_A.weight"));
        let (_, down_shape, down) = down.unwrap();
        let (rank, cols) = (up_shape[1], down_shape[1]);
        let target = format!("{}.weight", base.strip_prefix("base_model.model.").unwrap());
        let (_, shape, weights) = model
            .tensors
            .iter_mut()
            .find(|(name, ..)| *name == target)
            .unwrap();
        assert_eq!(shape[..], [up_shape[0], cols]);
        for (row, out) in weights.chunks_exact_mut(cols).enumerate() {
            let mut delta = vec![0.0; cols];
            for inner in 0..rank {
                let factor = scale * f64::from(up[row * rank + inner]);
                for (delta, weight) in delta.iter_mut().zip(&down[inner * cols..]) {
                    *delta += factor * f64::from(*weight);
                }
            }
            for (out, delta) in out.iter_mut().zip(delta) {
                *out = (f64::from(*out) + delta) as f32;
            }
        }
    }
}

/// The logits of a folder of this model.
fn folder_logits(folder: &Path, model: &Model) -> Vec<f32> {
    model.write(folder, 2);
    logits(&Decoder::load_folder(&Folder::open(folder).unwrap(), Weights::F32).unwrap())
}

/// The largest difference, relative to the largest logit.
fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().map(|x| x.abs()).fold(0.0, f32::max);
    let pairs = found.iter().zip(expected);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn an_adapter_gives_the_logits_of_merged_weights() {
    let temporary = Temporary::new("adapter-merged");
    let (gguf, model) = both(GgmlType::F32, true);
    let base = Decoder::load(&gguf, Weights::F32).unwrap();
    model.write(&temporary.0, 2);
    let folder = Folder::open(&temporary.0).unwrap();
    let unmerged = Decoder::load_folder(&folder, Weights::F32).unwrap();
    let cases: [(usize, &[&str], bool); 5] = [
        (1, &MODULES, false),
        (3, &MODULES[..1], false),
        (5, &MODULES[1..2], true),
        (8, &[MODULES[0], MODULES[2]], false),
        (33, &MODULES, true),
    ];
    for (i, (rank, modules, stabilised)) in cases.into_iter().enumerate() {
        let written = Written::new(i as u64, rank, modules).set("use_rslora", json!(stabilised));
        let scale = match stabilised {
            true => 24.0 / (rank as f64).sqrt(),
            false => 24.0 / rank as f64,
        };
        let mut merged = model.clone();
        merge(&mut merged, &written.tensors, scale);
        let other = Temporary::new(&format!("adapter-merged-{i}"));
        let expected = folder_logits(&other.0, &merged);
        let adapter = written.read().unwrap();
        assert_eq!((adapter.rank(), adapter.name()), (rank, "adapter"));
        assert!((f64::from(adapter.scale()) - scale).abs() < 1e-5 * scale);
        assert_eq!(adapter.matrices().len(), tiny::LAYERS * modules.len());
        for decoder in [&base, &unmerged] {
            let found = logits(&decoder.clone().with_adapter(&adapter).unwrap());
            let (close, before) = (apart(&found, &expected), apart(&logits(decoder), &expected));
            assert!(close < CLOSE, "rank {rank} of {modules:?}: {close}");
            assert!(
                before > 100.0 * CLOSE,
                "{modules:?} change little: {before}"
            );
        }
    }
}

/// Without blocks that are widened first.
#[test]
fn an_adapter_stands_beside_quantised_blocks() {
    let gguf = tiny::writer(5, tiny::Kinds::Mixed).to_bytes().unwrap();
    let gguf = Gguf::from_bytes("mixed.gguf", gguf).unwrap();
    let adapter = Written::new(1, 4, &MODULES).read().unwrap();
    let [blocks, dense] = [Weights::Blocks, Weights::F32].map(|weights| {
        let decoder = Decoder::load(&gguf, weights).unwrap();
        logits(&decoder.with_adapter(&adapter).unwrap())
    });
    assert!(apart(&blocks, &dense) < CLOSE);
    let base = logits(&Decoder::load(&gguf, Weights::Blocks).unwrap());
    assert!(apart(&blocks, &base) > 100.0 * CLOSE);
}

#[test]
fn rows_stay_in_their_order_where_the_decoder_pairs_halves() {
    let (gguf, mut model) = both(GgmlType::F32, true);
    let written = Written::new(3, 4, &MODULES[..2]);
    let load = |model: &Model| {
        let writer = gguf.entries().fold(Writer::new(), |writer, (key, value)| {
            writer.metadata(key, value.clone())
        });
        // A GGUF file whose converter left the rows as they were.
        let writer = gguf.tensors().fold(writer, |writer, info| {
            let name = folder_name(&info.name);
            let tensor = model.tensors.iter().find(|(other, ..)| *other == name);
            let (_, shape, weights) = tensor.unwrap();
            writer.tensor(&info.name, GgmlType::F32, shape, weights.clone())
        });
        let gguf = Gguf::from_bytes("halves.gguf", writer.to_bytes().unwrap()).unwrap();
        Decoder::load(&gguf, Weights::F32)
            .unwrap()
            .with_pairing(Pairing::HalfSplit)
    };
    let found = load(&model).with_adapter(&written.read().unwrap()).unwrap();
    merge(&mut model, &written.tensors, 6.0);
    assert!(apart(&logits(&found), &logits(&load(&model))) < CLOSE);
}

#[test]
fn published_adapters_give_the_logits_of_merged_weights() {
    let test = "published_adapters_give_the_logits_of_merged_weights";
    let _alone = WHOLE_MODELS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(path) = data(test, "SmolLM2-135M-Instruct.Q4_1.gguf") else {
        return;
    };
    let gguf = Gguf::open(path).unwrap();
    let base = Decoder::load(&gguf, Weights::F32).unwrap();
    let before = logits(&base);
    let mut model = converted(&gguf);
    // What adapters change comes first, so that only the first shard has to be written again.
    model.tensors.sort_by_key(|(name, _, weights)| {
        let changed = name.contains("q_proj") || name.contains("v_proj");
        (!changed, weights.len())
    });
    const SHARDS: usize = 4;
    let temporary = Temporary::new("published-adapters");
    model.write(&temporary.0, SHARDS);
    let first = format!("model-00001-of-{SHARDS:05}.safetensors");
    for adapter in ["5ep-500", "100ep-10000", "100ep-32900"] {
        let folder = format!("lora/smollm135m-med-{adapter}");
        let Some(weights) = data(test, &format!("{folder}/adapter_model.safetensors")) else {
            continue;
        };
        let adapter = Adapter::open(weights.parent().unwrap()).unwrap();
        assert_eq!((adapter.rank(), adapter.scale()), (16, 2.0));
        assert_eq!(adapter.matrices().len(), 60);
        let file = Safetensors::open(&weights).unwrap();
        let factors: Vec<_> = file
            .tensors()
            .map(|entry| {
                let weights = file.tensor(&entry.name).unwrap().dequantize().unwrap();
                (entry.name.clone(), entry.shape.clone(), weights)
            })
            .collect();
        let mut merged = Model {
            config: model.config.clone(),
            kind: model.kind,
            tensors: model.shard(0, SHARDS).to_vec(),
        };
        merge(&mut merged, &factors, 2.0);
        let shard = safetensors(merged.kind, &merged.tensors);
        fs::write(temporary.0.join(&first), shard).unwrap();
        let merged = Folder::open(&temporary.0).unwrap();
        let expected = logits(&Decoder::load_folder(&merged, Weights::F32).unwrap());
        let found = logits(&base.clone().with_adapter(&adapter).unwrap());
        let (close, changed) = (apart(&found, &expected), apart(&before, &expected));
        assert!(close < CLOSE, "{folder}: {close}");
        assert!(changed > 100.0 * CLOSE, "{folder}: {changed}");
        println!(
            "{folder}: relative difference to merged weights {close:.2e}, to the base {changed:.2e}"
        );
    }
}

#[test]
fn two_adapters_add_up_in_either_order() {
    let decoder = Decoder::load(&both(GgmlType::F32, true).0, Weights::F32).unwrap();
    let [first, second] = [1, 2].map(|seed| Written::new(seed, 4, &MODULES).read().unwrap());
    let together = |a: &Adapter, b: &Adapter| {
        let both = decoder.clone().with_adapter(a).unwrap().with_adapter(b);
        logits(&both.unwrap())
    };
    let found = together(&first, &second);
    assert!(apart(&found, &together(&second, &first)) < CLOSE);
    for alone in [&first, &second] {
        let alone = logits(&decoder.clone().with_adapter(alone).unwrap());
        assert!(apart(&found, &alone) > 100.0 * CLOSE);
    }
    // A fresh adapter, whose B is zero, changes no bit.
    let mut fresh = Written::new(1, 4, &MODULES);
    for (name, _, weights) in &mut fresh.tensors {
        if name.contains("lora_B") {
            weights.fill(0.0);
        }
    }
    let fresh = decoder
        .clone()
        .with_adapter(&fresh.read().unwrap())
        .unwrap();
    assert_eq!(logits(&fresh), logits(&decoder));
}

#[test]
fn factors_may_have_half_precision() {
    let decoder = Decoder::load(&both(GgmlType::F32, true).0, Weights::F32).unwrap();
    let mut written = Written::new(1, 4, &MODULES);
    for (.., weights) in &mut written.tensors {
        // In steps that all three types have.
        weights
            .iter_mut()
            .for_each(|weight| *weight = (*weight * 512.0).round() / 512.0);
    }
    let [single, half, brain] = [GgmlType::F32, GgmlType::F16, GgmlType::BF16].map(|kind| {
        written.kind = kind;
        logits(
            &decoder
                .clone()
                .with_adapter(&written.read().unwrap())
                .unwrap(),
        )
    });
    assert_eq!(single, half);
    assert_eq!(single, brain);
}

#[test]
fn a_folder_gives_what_its_two_files_give() {
    let temporary = Temporary::new("adapter-open");
    let written = Written::new(1, 4, &MODULES);
    let error = Adapter::open(&temporary.0).unwrap_err();
    assert!(error.to_string().contains("adapter_config.json"), "{error}");
    assert!(matches!(
        error,
        Error::Io {
            operation: "open",
            ..
        }
    ));
    let config = temporary.0.join("adapter_config.json");
    fs::write(&config, written.config.to_string()).unwrap();
    let error = Adapter::open(&temporary.0).unwrap_err();
    assert!(
        error.to_string().contains("adapter_model.safetensors"),
        "{error}"
    );
    let bytes = safetensors(written.kind, &written.tensors);
    fs::write(temporary.0.join("adapter_model.safetensors"), bytes).unwrap();
    let decoder = Decoder::load(&both(GgmlType::F32, true).0, Weights::F32).unwrap();
    let [opened, read] = [Adapter::open(&temporary.0), written.read()]
        .map(|adapter| logits(&decoder.clone().with_adapter(&adapter.unwrap()).unwrap()));
    assert_eq!(opened, read);
    fs::write(&config, vec![b' '; (1 << 18) + 1]).unwrap();
    let error = Adapter::open(&temporary.0).unwrap_err().to_string();
    assert!(
        error.contains("adapter_config.json: text: expected at most 262144 bytes"),
        "{error}"
    );
}

#[test]
fn configurations_that_are_no_plain_lora_are_named_in_the_error() {
    let written = Written::new(1, 4, &MODULES);
    let bad = [
        ("peft_type", json!("LOHA")),
        ("peft_type", json!(null)),
        ("r", json!(0)),
        ("r", json!(-4)),
        ("r", json!("4")),
        ("r", json!(null)),
        ("lora_alpha", json!(null)),
        ("lora_alpha", json!("16")),
        ("lora_alpha", json!(1e300)),
        ("bias", json!("all")),
        ("bias", json!("lora_only")),
        ("fan_in_fan_out", json!(true)),
        ("lora_bias", json!(true)),
        ("use_dora", json!(true)),
        ("use_qalora", json!(true)),
        ("use_rslora", json!("yes")),
        ("rank_pattern", json!({"q_proj": 8})),
        ("alpha_pattern", json!({"q_proj": 8})),
        ("modules_to_save", json!(["lm_head"])),
        ("layer_replication", json!([[0, 1]])),
        ("target_parameters", json!(["a"])),
        ("trainable_token_indices", json!([1])),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!(7)),
        ("target_modules", json!(["q_proj", "v_proj"])),
        ("target_modules", json!(["proj"])),
        ("target_modules", json!([""])),
        ("target_modules", json!(7)),
    ];
    for (key, value) in bad {
        let error = written.clone().set(key, value.clone()).error();
        let words = format!("adapter/adapter_config.json: {key}: expected ");
        assert!(error.starts_with(&words), "{key} = {value}: {error}");
    }
    for (key, value) in [
        ("target_modules", json!(".*proj")),
        ("target_modules", json!(null)),
        ("init_lora_weights", json!("gaussian")),
        ("modules_to_save", json!([])),
        ("lora_alpha", json!(16.5)),
    ] {
        written.clone().set(key, value).read().unwrap();
    }
    let weights =
        Safetensors::from_bytes("w", safetensors(GgmlType::F32, &written.tensors)).unwrap();
    for (text, words) in [
        ("", "EOF while parsing"),
        ("[]", "invalid type: sequence"),
        ("{", "EOF while parsing"),
    ] {
        let error = Adapter::new("a", text, &weights).unwrap_err().to_string();
        assert!(
            error.starts_with("a/adapter_config.json: text: expected a JSON object"),
            "{error}"
        );
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn tensors_that_are_no_factors_are_named_in_the_error() {
    let written = Written::new(1, 4, &MODULES);
    for name in [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.+1.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.4294967296.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.w_pack.lora_A.weight",
        "base_model.model.model.layers.0.q_proj.lora_C.weight",
        "other",
    ] {
        let mut written = written.clone();
        written.tensors.push((name.into(), vec![4], vec![1.0; 4]));
        let error = written.error();
        assert!(
            error.starts_with(&format!("weights: tensor {name:?}: expected lora_A.weight")),
            "{error}"
        );
    }
    let mut missing = written.clone();
    let (gone, ..) = missing.tensors.remove(5);
    assert_eq!(
        missing.error(),
        format!("weights: tensor {gone:?}: expected a tensor, found none")
    );
    missing.tensors.clear();
    assert_eq!(
        missing.error(),
        "weights: tensors: expected a factor at least, found none"
    );
    for (at, words) in [
        (0, "shape [5, columns], for rank 5"),
        (1, "shape [rows, 5], for rank 5"),
    ] {
        let mut written = written.clone().set("r", json!(5));
        if at == 1 {
            written.tensors[0].1 = vec![5, tiny::WIDTH];
            written.tensors[0].2.resize(5 * tiny::WIDTH, 0.0);
        }
        let name = written.tensors[at].0.clone();
        let error = written.error();
        assert!(
            error.starts_with(&format!(
                "weights: tensor {name:?}: expected {words}, found"
            )),
            "{error}"
        );
    }
    for at in [0, 1] {
        let mut infinite = written.clone();
        infinite.tensors[at].2[7] = f32::NAN;
        let name = &infinite.tensors[at].0;
        let expected =
            format!("weights: tensor {name:?}: block 7: expected a finite weight, found NaN");
        assert_eq!(infinite.error(), expected);
    }
}

#[test]
fn an_adapter_of_another_model_is_an_error_that_names_what_does_not_fit() {
    let decoder = Decoder::load(&both(GgmlType::F32, true).0, Weights::F32).unwrap();
    let error = |written: &Written| {
        let adapted = decoder.clone().with_adapter(&written.read().unwrap());
        adapted.err().expect("it was accepted").to_string()
    };
    let mut deeper = Written::new(1, 4, &MODULES);
    for (name, ..) in &mut deeper.tensors {
        *name = name.replace("layers.1.", "layers.7.");
    }
    assert_eq!(
        error(&deeper),
        "Decoder::with_adapter: adapter: expected layers below 2, found blk.7.attn_q.weight in adapter"
    );
    for (at, shape, found) in [(0, [4, 64], "[4, 64]"), (3, [96, 4], "[96, 4]")] {
        let mut wider = Written::new(1, 4, &MODULES);
        let (name, _, weights) = &mut wider.tensors[at];
        weights.resize(shape[0] * shape[1], 0.0);
        let name = name.clone();
        wider.tensors[at].1 = shape.to_vec();
        let error = error(&wider);
        assert!(
            error.starts_with(&format!("weights: tensor {name:?}: expected shape")),
            "{error}"
        );
        assert!(error.ends_with(&format!("found shape {found}")), "{error}");
    }
    let mut huge = Written::new(1, 1, &MODULES).set("lora_alpha", json!(1e30));
    huge.tensors[1].2[3] = 1e30;
    let error = error(&huge);
    assert!(
        error.contains("q_proj.lora_B.weight") && error.contains("found inf"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A good adapter with some bytes changed.
    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4), header in any::<bool>()) {
        let written = Written::new(1, 2, &MODULES[..3]);
        let mut bytes = safetensors(written.kind, &written.tensors);
        let end = if header { 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize } else { bytes.len() };
        for (at, value) in flips {
            bytes[at % end] = value;
        }
        if let Ok(weights) = Safetensors::from_bytes("flipped", bytes)
            && let Ok(adapter) = Adapter::new("flipped", &written.config.to_string(), &weights)
        {
            let gguf = Gguf::from_bytes("tiny.gguf", tiny::gguf(5)).unwrap();
            let _ = Decoder::load(&gguf, Weights::Blocks).unwrap().with_adapter(&adapter);
        }
    }

    #[test]
    fn configurations_of_any_values_never_panic(key in prop::sample::select(vec!["r", "lora_alpha", "target_modules", "use_rslora", "rank_pattern"]), number in any::<f64>(), text in ".{0,8}") {
        let written = Written::new(1, 2, &MODULES[..1]);
        for value in [json!(number), json!(text), json!([text]), json!({text.clone(): number})] {
            let _ = written.clone().set(key, value).read();
        }
    }
}
