//! Models in both forms, GGUF file and Hugging Face folder, and the logits that they give.

use half::{bf16, f16};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use whittle_llama::cache::PlainStore;
use whittle_llama::gguf::{GgmlType, write::Writer};
use whittle_llama::{Config, Decoder, Gguf, KvStore, Span, Visible, tiny};

/// A folder that is removed at the end.
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Temporary {
    pub(crate) fn new(test: &str) -> Self {
        let name = format!("whittle-folder-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Name, shape and weights of a tensor.
pub(crate) type Weighted = (String, Vec<usize>, Vec<f32>);

/// The tiny model in Hugging Face's form, before it is written.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) config: Value,
    pub(crate) kind: GgmlType,
    pub(crate) tensors: Vec<Weighted>,
}

/// Rows of a head in the order for half-split pairs: what GGUF converters undo.
pub(crate) fn halves(weights: &[f32], cols: usize, head_dim: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = weights.chunks_exact(cols).collect();
    let half = head_dim / 2;
    rows.chunks_exact(head_dim)
        .flat_map(|head| (0..head_dim).map(|row| head[row % half * 2 + row / half]))
        .flatten()
        .copied()
        .collect()
}

/// Weights that all three formats hold exactly.
pub(crate) fn rounded(weights: Vec<f32>) -> Vec<f32> {
    let round = |weight: f32| bf16::from_f32(f16::from_f32(weight).to_f32()).to_f32();
    // What rounding to one format makes of a weight may have too many bits or too small an exponent for the other.
    weights
        .into_iter()
        .map(|weight| {
            if weight.abs() < 1e-3 {
                0.0
            } else {
                round(weight)
            }
        })
        .collect()
}

/// The same seeded model in both forms.
pub(crate) fn both(kind: GgmlType, tied: bool) -> (Gguf, Model) {
    let source = Gguf::from_bytes("tiny.gguf", tiny::gguf(5)).unwrap();
    let mut writer = source
        .entries()
        .fold(Writer::new(), |writer, (key, value)| {
            writer.metadata(key, value.clone())
        });
    let mut tensors = Vec::new();
    let mut put = |name: &str, shape: &[usize], weights: Vec<f32>| {
        let cols = shape[shape.len() - 1];
        let turned = name.contains("attn_q") || name.contains("attn_k");
        let stored = if turned {
            halves(&weights, cols, tiny::HEAD_DIM)
        } else {
            weights.clone()
        };
        tensors.push((folder_name(name), shape.to_vec(), stored));
        weights
    };
    for info in source.tensors() {
        let weights = source.tensor(&info.name).unwrap().dequantize().unwrap();
        let weights = put(&info.name, &info.shape, rounded(weights));
        writer = writer.tensor(&info.name, kind, &info.shape, weights);
    }
    if !tied {
        let shape = [tiny::VOCAB, tiny::WIDTH];
        let output =
            (0..tiny::VOCAB * tiny::WIDTH).map(|i| ((i * 7919 % 251) as f32 - 125.0) / 512.0);
        let output = put("output.weight", &shape, output.collect());
        writer = writer.tensor("output.weight", kind, &shape, output);
    }
    let gguf = Gguf::from_bytes("both.gguf", writer.to_bytes().unwrap()).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": tiny::WIDTH,
        "intermediate_size": tiny::FEED_FORWARD,
        "num_hidden_layers": tiny::LAYERS,
        "num_attention_heads": tiny::HEADS,
        "num_key_value_heads": tiny::KV_HEADS,
        "vocab_size": tiny::VOCAB,
        "max_position_embeddings": tiny::CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": null,
        "attention_bias": false,
        "tie_word_embeddings": tied,
        "bos_token_id": 0,
        "eos_token_id": [2, 1],
        "torch_dtype": "bfloat16",
    });
    (
        gguf,
        Model {
            config,
            kind,
            tensors,
        },
    )
}

/// A published model in Hugging Face's form, in F32.
pub(crate) fn converted(source: &Gguf) -> Model {
    let config = Config::from_gguf(source).unwrap();
    let tensors = source.tensors().map(|info| {
        let weights = source.tensor(&info.name).unwrap().dequantize().unwrap();
        let turned = info.name.contains("attn_q") || info.name.contains("attn_k");
        let weights = if turned {
            halves(&weights, info.shape[1], config.head_dim)
        } else {
            weights
        };
        (folder_name(&info.name), info.shape.clone(), weights)
    });
    Model {
        kind: GgmlType::F32,
        tensors: tensors.collect(),
        config: json!({
            "model_type": "llama",
            "hidden_size": config.width,
            "intermediate_size": config.feed_forward,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.query_heads,
            "num_key_value_heads": config.kv_heads,
            "vocab_size": config.vocab,
            "max_position_embeddings": config.context,
            "rms_norm_eps": config.norm_eps,
            "rope_theta": config.rope_base,
            "tie_word_embeddings": !source.has_tensor("output.weight"),
            "eos_token_id": config.eos,
        }),
    }
}

pub(crate) fn folder_name(name: &str) -> String {
    let parts = [
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ];
    if name == "output.weight" {
        return "lm_head.weight".into();
    }
    let name = name.replace("blk.", "model.layers.");
    let (from, to) = parts.iter().find(|(from, _)| name.contains(from)).unwrap();
    name.replace(from, to)
}

/// A safetensors file of these tensors, in the order of their names.
pub(crate) fn safetensors(kind: GgmlType, tensors: &[Weighted]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape, weights) in tensors {
        let begin = data.len();
        for &weight in weights {
            match kind {
                GgmlType::F16 => data.extend(f16::from_f32(weight).to_le_bytes()),
                GgmlType::BF16 => data.extend(bf16::from_f32(weight).to_le_bytes()),
                _ => data.extend(weight.to_le_bytes()),
            }
        }
        let offsets = [begin, data.len()];
        let entry = json!({"dtype": kind.to_string(), "shape": shape, "data_offsets": offsets});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

impl Model {
    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Writes the weights into one file, or into as many as there are shards.
    pub(crate) fn write(&self, folder: &Path, shards: usize) {
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        if shards == 1 {
            let bytes = safetensors(self.kind, &self.tensors);
            fs::write(folder.join("model.safetensors"), bytes).unwrap();
            return;
        }
        let mut map = serde_json::Map::new();
        for shard in 0..shards {
            let tensors = self.shard(shard, shards);
            let name = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
            fs::write(folder.join(&name), safetensors(self.kind, tensors)).unwrap();
            map.extend(
                tensors
                    .iter()
                    .map(|tensor| (tensor.0.clone(), name.clone().into())),
            );
        }
        let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
        fs::write(
            folder.join("model.safetensors.index.json"),
            index.to_string(),
        )
        .unwrap();
    }

    /// The tensors of one of several shards.
    pub(crate) fn shard(&self, shard: usize, shards: usize) -> &[Weighted] {
        let len = self.tensors.len().div_ceil(shards);
        let first = (shard * len).min(self.tensors.len());
        &self.tensors[first..(first + len).min(self.tensors.len())]
    }
}

pub(crate) const TOKENS: [u32; 19] = [
    0, 31, 7, 280, 100, 31, 31, 2, 200, 150, 3, 4, 5, 286, 17, 1, 99, 98, 97,
];

/// Logits of every token: a prompt in one chunk and then tokens one by one.
pub(crate) fn logits(decoder: &Decoder) -> Vec<f32> {
    let mut store = PlainStore::<f32>::new(decoder.config().cache_shape()).unwrap();
    let sequence = store.sequence().unwrap();
    let span = Span {
        sequence,
        tokens: 12,
    };
    let hidden = decoder
        .forward(&mut store, &[span], &TOKENS[..12], Visible::Causal)
        .unwrap();
    let mut logits = decoder.logits(&hidden).unwrap().into_vec::<f32>().unwrap();
    for &token in &TOKENS[12..] {
        let step = decoder.step(&mut store, &[(sequence, token)]).unwrap();
        logits.extend(step.as_slice::<f32>().unwrap());
    }
    logits
}
