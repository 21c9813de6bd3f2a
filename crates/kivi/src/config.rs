//! How a cache stores its tokens. Every choice is a field, and there is no default: a configuration is chosen by name.
//!
//! | name | keys, values | window | group | sinks | clip, Hadamard on V | bits at `head_dim` 64 |
//! |---|---|---|---|---|---|---|
//! | [`kivi_2`](Config::kivi_2) | 2, 2 | saw-tooth 128 | 32 | 0 | no | 3.0 |
//! | [`kivi_4`](Config::kivi_4) | 4, 4 | saw-tooth 128 | 32 | 0 | no | 5.0 |
//! | [`small`](Config::small) | 2, 2 | sliding 128 | 64 | 4 | yes | 2.5 |
//! | [`compact`](Config::compact) | 2, 2 | sliding 64 | 32 | 4 | yes | 3.0 |
//! | [`balanced`](Config::balanced) | 3, 2 | sliding 128 | 32 | 4 | yes | 3.5 |
//! | [`safe`](Config::safe) | 4, 4 | sliding 128 | 32 | 4 | no | 5.0 |
//!
//! Bits are those of an element of a full block, the f16 scales and minima included, without window and sinks.

use crate::error::{Error, Result};
use crate::pack::BlockLayout;
use crate::quantize::Scheme;
use crate::shape::{GroupSize, HeadDim, Shape};

/// Bits of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bits {
    /// Codes 0 to 3.
    Two,
    /// Codes 0 to 7.
    Three,
    /// Codes 0 to 15.
    Four,
}

impl Bits {
    /// The number of bits.
    #[must_use]
    pub const fn get(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Three => 3,
            Self::Four => 4,
        }
    }

    /// The largest code, `2^b − 1`.
    #[must_use]
    pub const fn max_code(self) -> u8 {
        (1 << self.get()) - 1
    }
}

/// Which tokens are still in 16 bits. `S` is the number of sinks, `G` the group size, `R` the residual length, `t` the
/// position of a query; token `j` is read from codes if `S ≤ j < n(t)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// The paper's. Keys leave `R` at a time, `n_K(t) = S + ⌊max(0, t−S)/R⌋·R`; values one by one, `n_V(t) = max(S, t−R)`.
    SawTooth {
        /// `R`, a positive multiple of the group size.
        residual_len: usize,
    },
    /// Keys and values leave together by whole blocks, `n(t) = S + ⌊max(0, t+1−S−R)/G⌋·G`, so that between `R` and `R+G−1` of
    /// the newest tokens stay in 16 bits.
    Sliding {
        /// `R`, any length. With 0 a block is read from codes by the query that fills it.
        residual_len: usize,
    },
}

impl Window {
    /// `R`.
    #[must_use]
    pub const fn residual_len(self) -> usize {
        match self {
            Self::SawTooth { residual_len } | Self::Sliding { residual_len } => residual_len,
        }
    }
}

/// What the queries of a prompt see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prefill {
    /// As the paper: they see all tokens of their own append in 16 bits. Takes one append per prompt.
    Exact,
    /// Every query follows the window's table, so one pass over a prompt equals decoding it token by token.
    Streaming,
}

/// Precision of the quantiser's arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Every step is rounded to f16, as in the reference implementation of the paper.
    Half,
    /// f32 steps; the codes come from the scale and minimum as they are stored.
    Native,
}

/// Arithmetic of the products with codes during attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// f32 throughout; the reference.
    F32,
    /// Queries and weights are rounded to two digits of 8 bits per block, sums of products are integers.
    Int8,
}

/// How every sequence of a cache stores its tokens.
///
/// A named configuration is changed by its `with_` methods:
///
/// ```
/// use whittle_kivi::{Bits, Config};
/// let config = Config::balanced().with_value_bits(Bits::Three).with_sink_len(8);
/// config.validate()?;
/// # Ok::<(), whittle_kivi::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Bits of a key's code.
    pub key_bits: Bits,
    /// Bits of a value's code.
    pub value_bits: Bits,
    /// Tokens of a block, which are the tokens of a group of keys and the most channels of a group of values.
    pub group_size: GroupSize,
    /// Which tokens are still in 16 bits.
    pub window: Window,
    /// Tokens at the start of a sequence that stay in 16 bits for ever.
    pub sink_len: usize,
    /// Whether each group tries sixteen clipped ranges and keeps the one of least squared error.
    pub clip_search: bool,
    /// Whether values are stored in the Walsh–Hadamard basis.
    pub rotate_values: bool,
    /// Precision of the quantiser's arithmetic.
    pub rounding: Rounding,
    /// What the queries of a prompt see.
    pub prefill: Prefill,
    /// Arithmetic of the products with codes during attention.
    pub arithmetic: Arithmetic,
}

/// The most tokens of a window, and the most sinks: beyond any use, and far from where sizes overflow.
const MAX_TOKENS: usize = 1 << 20;

impl Config {
    /// The paper's 2-bit configuration, bit-equal to its reference implementation (but for signed zeros and overflows, see
    /// [`compat`](crate::compat)). Measured as in the README: KL 0.160, passkey 4 of 5.
    #[must_use]
    pub const fn kivi_2() -> Self {
        Self {
            key_bits: Bits::Two,
            value_bits: Bits::Two,
            group_size: GroupSize::G32,
            window: Window::SawTooth { residual_len: 128 },
            sink_len: 0,
            clip_search: false,
            rotate_values: false,
            rounding: Rounding::Half,
            prefill: Prefill::Exact,
            arithmetic: Arithmetic::F32,
        }
    }

    /// The paper's 4-bit configuration, bit-equal to its reference implementation as [`kivi_2`](Self::kivi_2) is. Measured: KL
    /// 0.0031.
    #[must_use]
    pub const fn kivi_4() -> Self {
        Self {
            key_bits: Bits::Four,
            value_bits: Bits::Four,
            ..Self::kivi_2()
        }
    }

    /// 2.5 bits: the smallest, by groups of 64. Measured: KL 0.046.
    #[must_use]
    pub const fn small() -> Self {
        Self {
            key_bits: Bits::Two,
            group_size: GroupSize::G64,
            ..Self::balanced()
        }
    }

    /// 3.0 bits and a window of 64, smaller than the paper's in every respect. Measured: KL 0.042, passkey 5 of 5.
    #[must_use]
    pub const fn compact() -> Self {
        Self {
            key_bits: Bits::Two,
            window: Window::Sliding { residual_len: 64 },
            ..Self::balanced()
        }
    }

    /// 3.5 bits, the recommended configuration: keys are where the error comes from, so they get the third bit. Measured: KL 0.012,
    /// passkey 5 of 5.
    #[must_use]
    pub const fn balanced() -> Self {
        Self {
            key_bits: Bits::Three,
            value_bits: Bits::Two,
            group_size: GroupSize::G32,
            window: Window::Sliding { residual_len: 128 },
            sink_len: 4,
            clip_search: true,
            rotate_values: true,
            rounding: Rounding::Native,
            prefill: Prefill::Streaming,
            arithmetic: Arithmetic::F32,
        }
    }

    /// 5.0 bits: 4-bit codes and sinks, with neither clip search nor rotation. Measured: KL 0.0009.
    #[must_use]
    pub const fn safe() -> Self {
        Self {
            key_bits: Bits::Four,
            value_bits: Bits::Four,
            clip_search: false,
            rotate_values: false,
            ..Self::balanced()
        }
    }

    /// With other bits of keys.
    #[must_use]
    pub const fn with_key_bits(self, key_bits: Bits) -> Self {
        Self { key_bits, ..self }
    }

    /// With other bits of values.
    #[must_use]
    pub const fn with_value_bits(self, value_bits: Bits) -> Self {
        Self { value_bits, ..self }
    }

    /// With another group size.
    #[must_use]
    pub const fn with_group_size(self, group_size: GroupSize) -> Self {
        Self { group_size, ..self }
    }

    /// With another window.
    #[must_use]
    pub const fn with_window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// With another number of sinks.
    #[must_use]
    pub const fn with_sink_len(self, sink_len: usize) -> Self {
        Self { sink_len, ..self }
    }

    /// With or without clip search.
    #[must_use]
    pub const fn with_clip_search(self, clip_search: bool) -> Self {
        Self {
            clip_search,
            ..self
        }
    }

    /// With or without the Walsh–Hadamard rotation of values.
    #[must_use]
    pub const fn with_rotate_values(self, rotate_values: bool) -> Self {
        Self {
            rotate_values,
            ..self
        }
    }

    /// With another precision of the quantiser.
    #[must_use]
    pub const fn with_rounding(self, rounding: Rounding) -> Self {
        Self { rounding, ..self }
    }

    /// With another view of a prompt's queries.
    #[must_use]
    pub const fn with_prefill(self, prefill: Prefill) -> Self {
        Self { prefill, ..self }
    }

    /// With another arithmetic of attention.
    #[must_use]
    pub const fn with_arithmetic(self, arithmetic: Arithmetic) -> Self {
        Self { arithmetic, ..self }
    }

    /// # Errors
    /// [`Error::Argument`] where a saw-tooth's residual length is no positive multiple of the group size, or clip search is asked
    /// of the reference's f16 arithmetic, which has none.
    pub fn validate(&self) -> Result<()> {
        if let Window::SawTooth { residual_len } = self.window
            && (residual_len == 0 || !residual_len.is_multiple_of(self.group_size.get()))
        {
            return Err(Error::Argument {
                argument: "window.residual_len",
                expected: format!(
                    "a positive multiple of group_size = {}",
                    self.group_size.get()
                ),
                found: residual_len.to_string(),
            });
        }
        for (argument, tokens) in [
            ("window.residual_len", self.window.residual_len()),
            ("sink_len", self.sink_len),
        ] {
            if tokens > MAX_TOKENS {
                return Err(Error::Argument {
                    argument,
                    expected: format!("at most {MAX_TOKENS}"),
                    found: tokens.to_string(),
                });
            }
        }
        self.key_scheme().validate()?;
        self.value_scheme().validate()
    }

    /// How groups of keys are quantised.
    #[must_use]
    pub const fn key_scheme(&self) -> Scheme {
        Scheme {
            bits: self.key_bits,
            clip_search: self.clip_search,
            rounding: self.rounding,
        }
    }

    /// How groups of values are quantised.
    #[must_use]
    pub const fn value_scheme(&self) -> Scheme {
        Scheme {
            bits: self.value_bits,
            clip_search: self.clip_search,
            rounding: self.rounding,
        }
    }

    /// Channels of a group of values.
    #[must_use]
    pub const fn value_group(&self, head_dim: HeadDim) -> usize {
        value_group(head_dim, self.group_size)
    }

    /// How a block of this configuration lies in memory.
    #[must_use]
    pub fn block_layout(&self, head_dim: HeadDim) -> BlockLayout {
        BlockLayout::new(head_dim, self.group_size, self.key_bits, self.value_bits)
    }

    /// Bits that a key's element takes in a full block, scales, minima and padding included.
    #[must_use]
    pub fn key_bits_per_element(&self, head_dim: HeadDim) -> f64 {
        self.per_element(self.block_layout(head_dim).key_bytes(), head_dim)
    }

    /// Bits that a value's element takes in a full block, scales, minima and padding included.
    #[must_use]
    pub fn value_bits_per_element(&self, head_dim: HeadDim) -> f64 {
        self.per_element(self.block_layout(head_dim).value_bytes(), head_dim)
    }

    /// Mean of [`key_bits_per_element`](Self::key_bits_per_element) and
    /// [`value_bits_per_element`](Self::value_bits_per_element).
    #[must_use]
    pub fn bits(&self, head_dim: HeadDim) -> f64 {
        (self.key_bits_per_element(head_dim) + self.value_bits_per_element(head_dim)) / 2.0
    }

    fn per_element(&self, bytes: usize, head_dim: HeadDim) -> f64 {
        (bytes * 8) as f64 / (self.group_size.get() * head_dim.get()) as f64
    }
}

/// Channels of a group of values: the largest multiple of 16 that divides `head_dim` and is at most the group size.
///
/// It is the group size itself wherever that divides `head_dim`; `head_dim` 80 and groups of 32 give 16.
#[must_use]
pub const fn value_group(head_dim: HeadDim, group_size: GroupSize) -> usize {
    let mut group = if head_dim.get() < group_size.get() {
        head_dim.get()
    } else {
        group_size.get()
    };
    while !head_dim.get().is_multiple_of(group) {
        group -= 16;
    }
    group
}

/// Bits of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerBits {
    /// Bits of a key's code.
    pub key_bits: Bits,
    /// Bits of a value's code.
    pub value_bits: Bits,
}

/// A configuration for the whole cache, in which the bits may differ from layer to layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    config: Config,
    layers: Option<Vec<LayerBits>>,
}

impl Policy {
    /// The same bits in every layer.
    #[must_use]
    pub const fn uniform(config: Config) -> Self {
        Self {
            config,
            layers: None,
        }
    }

    /// `layers[i]` takes the place of the bits of `config` in layer `i`.
    #[must_use]
    pub const fn layers(config: Config, layers: Vec<LayerBits>) -> Self {
        Self {
            config,
            layers: Some(layers),
        }
    }

    /// What holds for the whole cache. Where the bits differ by layer, [`layer`](Self::layer) prevails.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The configuration of one layer, or `None` beyond the layers that were listed.
    #[must_use]
    pub fn layer(&self, layer: usize) -> Option<Config> {
        match &self.layers {
            None => Some(self.config),
            Some(layers) => layers.get(layer).map(|bits| Config {
                key_bits: bits.key_bits,
                value_bits: bits.value_bits,
                ..self.config
            }),
        }
    }

    /// # Errors
    /// [`Error::Argument`] where the configuration is not valid, or lists another number of layers than the model has.
    pub fn validate(&self, shape: &Shape) -> Result<()> {
        self.config.validate()?;
        match &self.layers {
            Some(layers) if layers.len() != shape.layers => Err(Error::Argument {
                argument: "policy.layers",
                expected: format!("bits for {} layers", shape.layers),
                found: format!("bits for {}", layers.len()),
            }),
            _ => Ok(()),
        }
    }
}
