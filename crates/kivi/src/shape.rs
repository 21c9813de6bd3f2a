//! The sizes that a cache is built for, checked once when they are made.

use crate::error::{Error, Result};

/// Channels of one head: a multiple of 16 from 16 to 1024.
///
/// The packed planes are made of chunks of sixteen channels, so other sizes are refused instead of padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadDim(usize);

impl HeadDim {
    /// # Errors
    /// [`Error::Argument`] unless `head_dim` is a multiple of 16 from 16 to 1024.
    pub fn new(head_dim: usize) -> Result<Self> {
        if head_dim.is_multiple_of(16) && (16..=1024).contains(&head_dim) {
            Ok(Self(head_dim))
        } else {
            Err(Error::Argument {
                argument: "head_dim",
                expected: "a multiple of 16 from 16 to 1024".into(),
                found: head_dim.to_string(),
            })
        }
    }

    /// The number of channels.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

/// Elements that share a scale and a minimum, and tokens of a block: 16, 32, 64 or 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupSize(usize);

impl GroupSize {
    /// Groups of 16.
    pub const G16: Self = Self(16);
    /// Groups of 32, the paper's.
    pub const G32: Self = Self(32);
    /// Groups of 64.
    pub const G64: Self = Self(64);
    /// Groups of 128, the largest.
    pub const G128: Self = Self(128);

    /// # Errors
    /// [`Error::Argument`] unless `group_size` is 16, 32, 64 or 128.
    pub fn new(group_size: usize) -> Result<Self> {
        match group_size {
            16 | 32 | 64 | 128 => Ok(Self(group_size)),
            _ => Err(Error::Argument {
                argument: "group_size",
                expected: "16, 32, 64 or 128".into(),
                found: group_size.to_string(),
            }),
        }
    }

    /// The number of elements.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

/// What a model's attention looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Attention layers of the model.
    pub layers: usize,
    /// Query heads of a layer, a multiple of `kv_heads`.
    pub query_heads: usize,
    /// Heads of keys and values of a layer.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: HeadDim,
}

/// The most layers, and the most heads of a layer.
const MAX_COUNT: usize = 4096;

impl Shape {
    /// # Errors
    /// [`Error::Argument`] where a count is 0 or above 4,096, or `query_heads` is no multiple of `kv_heads`.
    pub fn validate(&self) -> Result<()> {
        for (argument, count) in [
            ("layers", self.layers),
            ("query_heads", self.query_heads),
            ("kv_heads", self.kv_heads),
        ] {
            if !(1..=MAX_COUNT).contains(&count) {
                return Err(Error::Argument {
                    argument,
                    expected: format!("1 to {MAX_COUNT}"),
                    found: count.to_string(),
                });
            }
        }
        if !self.query_heads.is_multiple_of(self.kv_heads) {
            return Err(Error::Argument {
                argument: "query_heads",
                expected: format!("a multiple of kv_heads = {}", self.kv_heads),
                found: self.query_heads.to_string(),
            });
        }
        Ok(())
    }

    /// Query heads that read the same keys and values: `query_heads / kv_heads`.
    ///
    /// Meaningful for a shape that [`validate`](Self::validate) accepts; 0 where `kv_heads` is 0.
    #[must_use]
    pub const fn group(&self) -> usize {
        match self.query_heads.checked_div(self.kv_heads) {
            Some(group) => group,
            None => 0,
        }
    }
}
