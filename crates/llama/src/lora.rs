//! Low-rank adapters that run beside the weights, read from the folders that PEFT writes.
//!
//! A linear `y = W x` with an adapter gives `y = W x + s B A x`, with `A` of shape `[rank, columns of W]`, `B` of shape
//! `[rows of W, rank]` and the scale `s = alpha / rank`, or `alpha / sqrt(rank)` where the adapter is rank-stabilised. `W` stays as it is,
//! in the blocks of its file too.
//!
//! Sources: Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, arXiv 2106.09685, equation 3; Kalajdzievski, *A
//! Rank Stabilization Scaling Factor for Fine-Tuning with LoRA*, 2023, arXiv 2312.03732.

use crate::json_file::JsonFile;
use crate::project::{Group, Project, ProjectGroup};
use crate::tensor_view::TensorView;
use crate::{Decoder, Error, Result, Safetensors};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use whittle_tensor::{Device, Pairing, Tensor};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// What the names of all tensors of a decoder's blocks begin with.
const PREFIX: &str = "base_model.model.model.layers.";

/// The linears that an adapter may change: the module's name, the matrix's name in a GGUF file, and its place in the seam.
const PARTS: [(&str, &str, Group, usize); 7] = [
    ("self_attn.q_proj", "attn_q", Group::Qkv, 0),
    ("self_attn.k_proj", "attn_k", Group::Qkv, 1),
    ("self_attn.v_proj", "attn_v", Group::Qkv, 2),
    ("self_attn.o_proj", "attn_output", Group::Output, 0),
    ("mlp.gate_proj", "ffn_gate", Group::GateUp, 0),
    ("mlp.up_proj", "ffn_up", Group::GateUp, 1),
    ("mlp.down_proj", "ffn_down", Group::Down, 0),
];

/// A LoRA adapter: the two factors of each linear that it changes, behind a memory map.
///
/// [`Decoder::with_adapter`] puts it beside a decoder's weights.
#[derive(Clone, Debug)]
pub struct Adapter {
    name: String,
    rank: usize,
    scale: f32,
    /// By layer and place in [`PARTS`].
    factors: BTreeMap<(usize, usize), Factors>,
}

/// The factors of one linear.
#[derive(Clone, Debug)]
struct Factors {
    /// `A`, `[rank, columns]`.
    down: TensorView,
    /// `B`, `[rows, rank]`.
    up: TensorView,
}

impl Adapter {
    /// Opens a folder with `adapter_config.json` and `adapter_model.safetensors`, the form in which PEFT saves adapters.
    ///
    /// As with [`Safetensors::open`], nobody may shorten the second file while the adapter is open.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that is missing or can't be read, or as [`new`](Self::new).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let config = JsonFile::read(&path.join(CONFIG))?;
        let weights = Safetensors::open(path.join(WEIGHTS))?;
        Self::checked(path.display().to_string(), &config, &weights)
    }

    /// The adapter of this configuration, the text of an `adapter_config.json`, and these weights. `name` stands for both in errors.
    ///
    /// # Errors
    /// [`Error::Json`] for a configuration that is no plain LoRA (DoRA, trained biases or embeddings, ranks by pattern, a changed base).
    /// [`Error::Safetensors`] for a tensor that is missing, has the wrong shape, or would have to be ignored; [`Error::NotFinite`].
    pub fn new(name: impl Into<String>, config: &str, weights: &Safetensors) -> Result<Self> {
        let name = name.into();
        let config = JsonFile::parse(format!("{name}/{CONFIG}"), config)?;
        Self::checked(name, &config, weights)
    }

    fn checked(name: String, config: &JsonFile, weights: &Safetensors) -> Result<Self> {
        let (rank, scale) = scaling(config)?;
        let mut factors = BTreeMap::new();
        for entry in weights.tensors() {
            let Some((layer, part, module)) = place(&entry.name) else {
                return Err(weights.error(
                    format!("tensor {:?}", entry.name),
                    "lora_A.weight or lora_B.weight of a linear of a Llama block",
                    "another tensor",
                ));
            };
            if !targeted(config, module)? {
                let expected = format!("{module:?}, of which the weights have a factor");
                return Err(config.mismatch(
                    "target_modules",
                    expected,
                    config.raw("target_modules"),
                ));
            }
            let factor =
                |which: &str| weights.tensor(&format!("{PREFIX}{module}.lora_{which}.weight"));
            let (down, up) = (factor("A")?, factor("B")?);
            for (view, dimension) in [(&down, 0), (&up, 1)] {
                let shape = &view.info().shape;
                if shape.len() != 2 || shape[dimension] != rank {
                    return Err(view.bad_shape(match dimension {
                        0 => format!("shape [{rank}, columns], for rank {rank}"),
                        _ => format!("shape [rows, {rank}], for rank {rank}"),
                    }));
                }
            }
            factors.entry((layer, part)).or_insert(Factors { down, up });
        }
        if factors.is_empty() {
            return Err(weights.error("tensors", "a factor at least", "none"));
        }
        for Factors { down, up } in factors.values() {
            down.check_finite()?;
            up.check_finite()?;
        }
        Ok(Self {
            name,
            rank,
            scale,
            factors,
        })
    }

    /// The folder's path, or the name given to [`new`](Self::new).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Rows of each `A` and columns of each `B`.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// By what `B A x` is multiplied before it is added.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The matrices that the adapter changes, by their names in GGUF files, as [`Decoder::matrix`] takes them.
    pub fn matrices(&self) -> impl ExactSizeIterator<Item = String> {
        self.factors
            .keys()
            .map(|&(layer, part)| matrix_name(layer, part))
    }

    /// What the adapter adds to `inner` in this decoder.
    pub(crate) fn beside(
        &self,
        inner: Arc<dyn Project>,
        decoder: &Decoder,
        device: &Device,
    ) -> Result<Adapted> {
        let mut pairs = HashMap::new();
        for (&(layer, part), factors) in &self.factors {
            let (_, _, group, index) = PARTS[part];
            let name = matrix_name(layer, part);
            let matrix = decoder.matrix(&name).map_err(|_| {
                Error::argument(
                    "Decoder::with_adapter",
                    "adapter",
                    format!("layers below {}", decoder.config().layers),
                    format!("{name} in {}", self.name),
                )
            })?;
            let (rows, cols) = (matrix.rows(), matrix.cols());
            for (view, shape) in [
                (&factors.down, [self.rank, cols]),
                (&factors.up, [rows, self.rank]),
            ] {
                if view.info().shape != shape {
                    return Err(view.bad_shape(format!("shape {shape:?}, for {name}")));
                }
            }
            let turned = group == Group::Qkv && index < 2;
            let interleaved = decoder.config().pairing == Pairing::Interleaved;
            let head_dim = (turned && interleaved).then_some(decoder.config().head_dim);
            let up = self.scaled(&factors.up, head_dim)?;
            let down = Tensor::from_vec(factors.down.dequantize()?, &[self.rank, cols])?;
            let pair = Pair {
                down: down.transpose(0, 1)?.contiguous()?.to_device(device)?,
                up: Tensor::from_vec(up, &[rows, self.rank])?
                    .transpose(0, 1)?
                    .contiguous()?
                    .to_device(device)?,
            };
            pairs.insert((layer, group, index), pair);
        }
        Ok(Adapted { inner, pairs })
    }

    /// `s B` with its rows in the order of the decoder's matrix: adapters are trained beside rows for half-split rotary pairs, and row
    /// `2i + j` of a head of [`Pairing::Interleaved`] is row `i + j · head_dim / 2` there.
    fn scaled(&self, up: &TensorView, head_dim: Option<usize>) -> Result<Vec<f32>> {
        let mut weights = up.dequantize()?;
        for weight in &mut weights {
            *weight *= self.scale;
        }
        if let Some(at) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(Error::NotFinite {
                file: up.file().to_owned(),
                tensor: up.info().name.clone(),
                block: at,
                part: "weight times the scale",
                found: weights[at],
            });
        }
        let Some(head_dim) = head_dim else {
            return Ok(weights);
        };
        let source = weights.clone();
        for (row, out) in weights.chunks_exact_mut(self.rank).enumerate() {
            let (first, at) = (row / head_dim * head_dim, row % head_dim);
            let from = first + at % 2 * (head_dim / 2) + at / 2;
            out.copy_from_slice(&source[from * self.rank..][..self.rank]);
        }
        Ok(weights)
    }
}

/// A decoder's projections with what an adapter adds to them.
pub(crate) struct Adapted {
    inner: Arc<dyn Project>,
    pairs: HashMap<(usize, Group, usize), Pair>,
}

/// The factors of one linear as they are multiplied with rows of inputs.
struct Pair {
    /// `Aᵀ`, `[columns, rank]`.
    down: Tensor,
    /// `s Bᵀ`, `[rank, rows]`.
    up: Tensor,
}

impl Project for Adapted {
    fn project(&self, group: &ProjectGroup<'_>) -> Result<Vec<Tensor>> {
        let mut outputs = self.inner.project(group)?;
        for (index, output) in outputs.iter_mut().enumerate() {
            if let Some(pair) = self.pairs.get(&(group.layer, group.group, index)) {
                let added = group.x.matmul(&pair.down)?.matmul(&pair.up)?;
                *output = output.add(&added)?;
            }
        }
        Ok(outputs)
    }
}

fn matrix_name(layer: usize, part: usize) -> String {
    format!("blk.{layer}.{}.weight", PARTS[part].1)
}

/// Layer, place in [`PARTS`] and module path of the linear that a tensor is a factor of.
fn place(name: &str) -> Option<(usize, usize, &str)> {
    let rest = name.strip_prefix(PREFIX)?;
    let module = ["A", "B"]
        .iter()
        .find_map(|which| rest.strip_suffix(&format!(".lora_{which}.weight")))?;
    let (layer, path) = module.split_once('.')?;
    let number: u32 = layer.parse().ok()?;
    // A sign or a leading zero would make two names of one layer.
    if number.to_string() != layer {
        return None;
    }
    let part = PARTS.iter().position(|(module, ..)| *module == path)?;
    Some((number as usize, part, module))
}

/// Rank and scale of a plain LoRA adapter; anything else is refused, because it would compute something else.
fn scaling(config: &JsonFile) -> Result<(usize, f32)> {
    if config.get("peft_type") != Some(&Value::from("LORA")) {
        return Err(config.mismatch("peft_type", "\"LORA\"", config.raw("peft_type")));
    }
    config.only("bias", "none")?;
    for key in [
        "fan_in_fan_out",
        "lora_bias",
        "use_dora",
        "use_qalora",
        "use_bdlora",
    ] {
        config.only(key, false)?;
    }
    // What trains or replaces more than the linears, or scales them one by one.
    for key in [
        "rank_pattern",
        "alpha_pattern",
        "modules_to_save",
        "layer_replication",
        "target_parameters",
        "trainable_token_indices",
        "alora_invocation_tokens",
        "arrow_config",
    ] {
        let empty = match config.get(key) {
            None => true,
            Some(Value::Array(values)) => values.is_empty(),
            Some(Value::Object(entries)) => entries.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return Err(config.mismatch(key, "null or empty", config.get(key)));
        }
    }
    // The other ways to begin take something off the base's weights.
    let beginnings = ["gaussian", "orthogonal", "eva"];
    match config.get("init_lora_weights") {
        None | Some(Value::Bool(_)) => {}
        Some(Value::String(way)) if beginnings.contains(&way.as_str()) => {}
        other => {
            let expected = format!("a truth value or one of {}", beginnings.join(", "));
            return Err(config.mismatch("init_lora_weights", expected, other));
        }
    }
    let stabilised = match config.get("use_rslora") {
        None => false,
        Some(Value::Bool(stabilised)) => *stabilised,
        other => return Err(config.mismatch("use_rslora", "a truth value", other)),
    };
    let rank = config.size("r")?;
    let alpha = config.number("lora_alpha")?;
    let divisor = match stabilised {
        true => (rank as f32).sqrt(),
        false => rank as f32,
    };
    Ok((rank, alpha / divisor))
}

/// Whether the configuration names the module, or has a pattern, which the tensors then decide.
fn targeted(config: &JsonFile, module: &str) -> Result<bool> {
    let targets = match config.get("target_modules") {
        None | Some(Value::String(_)) => return Ok(true),
        Some(Value::Array(targets)) => targets,
        other => {
            return Err(config.mismatch(
                "target_modules",
                "an array of names, or a pattern",
                other,
            ));
        }
    };
    let path = format!("model.layers.{module}");
    Ok(targets.iter().filter_map(Value::as_str).any(|target| {
        path.strip_suffix(target)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }))
}
