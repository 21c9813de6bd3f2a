//! The seam around linear layers.
//!
//! Linears that read the same input come as one group, because what stands in for them often works on that input once: a
//! shared sampling plan, a low-rank adapter, a statistic of the activations.

use whittle_tensor::Tensor;

use crate::{Error, Matrix, Result};

/// Which linears of a transformer block belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Query, key and value projections of the attention, in this order.
    Qkv,
    /// Output projection of the attention.
    Output,
    /// Gate and up projections of the feed-forward block, in this order.
    GateUp,
    /// Down projection of the feed-forward block.
    Down,
}

/// One input and the linears that read it.
#[derive(Clone, Copy, Debug)]
pub struct ProjectGroup<'a> {
    /// Transformer block, from 0.
    pub layer: usize,
    /// What the weights are.
    pub group: Group,
    /// `[rows, columns of each weight]`, F32.
    pub x: &'a Tensor,
    /// In the order that [`Group`] names.
    pub weights: &'a [&'a Matrix],
}

impl ProjectGroup<'_> {
    /// `x · wᵀ` for each weight: what a decoder without a stand-in computes.
    ///
    /// # Errors
    /// Shapes that don't fit.
    pub fn dense(&self) -> Result<Vec<Tensor>> {
        self.weights
            .iter()
            .map(|weight| weight.product(self.x))
            .collect()
    }
}

/// Computes groups of linears.
pub trait Project: Send + Sync {
    /// One output `[rows, rows of the weight]` for each weight of the group.
    ///
    /// # Errors
    /// Whatever stops the implementation; the decoder hands it on.
    fn project(&self, group: &ProjectGroup<'_>) -> Result<Vec<Tensor>>;
}

/// The default of both seams: the weights as the file holds them.
#[derive(Clone, Copy, Debug)]
pub struct Dense;

impl Project for Dense {
    fn project(&self, group: &ProjectGroup<'_>) -> Result<Vec<Tensor>> {
        group.dense()
    }
}

/// The outputs of a group, as many as it has weights.
pub(crate) fn outputs<const N: usize>(
    project: &dyn Project,
    group: &ProjectGroup<'_>,
) -> Result<[Tensor; N]> {
    let outputs = project.project(group)?;
    <[Tensor; N]>::try_from(outputs).map_err(|outputs| {
        Error::argument(
            "Project::project",
            "outputs",
            format!("{N} for {:?} of layer {}", group.group, group.layer),
            outputs.len(),
        )
    })
}
