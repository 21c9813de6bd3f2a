//! The seam around the feed-forward block, for what needs gate and up before their product.

use whittle_tensor::Tensor;

use crate::project::{Dense, Group, Project, ProjectGroup, outputs};
use crate::{Matrix, Result};

/// One input and the feed-forward block that reads it.
#[derive(Clone, Copy)]
pub struct FeedForward<'a> {
    /// Transformer block, from 0.
    pub layer: usize,
    /// `[rows, width]`, F32, already normalised.
    pub x: &'a Tensor,
    /// `[feed_forward, width]`.
    pub gate: &'a Matrix,
    /// `[feed_forward, width]`.
    pub up: &'a Matrix,
    /// `[width, feed_forward]`.
    pub down: &'a Matrix,
    /// The decoder's [`Project`], for the linears inside the block.
    pub project: &'a dyn Project,
}

impl FeedForward<'_> {
    /// `down · (silu(gate · x) ⊙ up · x)`, `[rows, width]`: SwiGLU, what a decoder without a stand-in computes.
    ///
    /// Source: Shazeer, *GLU Variants Improve Transformer*, 2020, arXiv 2002.05202.
    ///
    /// # Errors
    /// Shapes that don't fit, or what the projections report.
    pub fn dense(&self) -> Result<Tensor> {
        let Self { layer, x, .. } = *self;
        let group = ProjectGroup {
            layer,
            group: Group::GateUp,
            x,
            weights: &[self.gate, self.up],
        };
        let [gate, up] = outputs(self.project, &group)?;
        let x = &gate.silu_mul(&up)?;
        let group = ProjectGroup {
            layer,
            group: Group::Down,
            x,
            weights: &[self.down],
        };
        let [down] = outputs(self.project, &group)?;
        Ok(down)
    }
}

/// Computes feed-forward blocks.
pub trait Mlp: Send + Sync {
    /// The block's output `[rows, width]`, before it is added to the residual stream.
    ///
    /// # Errors
    /// Whatever stops the implementation; the decoder hands it on.
    fn feed_forward(&self, block: &FeedForward<'_>) -> Result<Tensor>;
}

impl Mlp for Dense {
    fn feed_forward(&self, block: &FeedForward<'_>) -> Result<Tensor> {
        block.dense()
    }
}
