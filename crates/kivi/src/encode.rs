//! From 16-bit rows to the packed codes and metadata of a page.

use crate::{
    Config, Result, Shape,
    page::PageLayout,
    quantize::{Rows, quantize_keys, quantize_values},
    sequence::Recent,
};
use half::f16;
use std::ops::Range;

/// Quantises and packs the tokens of one layer.
pub(crate) struct Encoder<'a> {
    shape: &'a Shape,
    /// The layer's bits.
    config: &'a Config,
    layout: &'a PageLayout,
    layer: usize,
    codes: Vec<u8>,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(
        shape: &'a Shape,
        config: &'a Config,
        layout: &'a PageLayout,
        layer: usize,
    ) -> Self {
        Self {
            shape,
            config,
            layout,
            layer,
            codes: vec![],
        }
    }

    /// The rows of one kv head of some tokens.
    fn rows<'r>(&self, from: &'r Recent, tokens: Range<usize>, head: usize) -> Rows<'r> {
        let head_dim = self.shape.head_dim.get();
        let stride = self.shape.kv_heads * head_dim;
        let start = (tokens.start - from.start) * stride + head * head_dim;
        Rows {
            data: &from.rows[start..],
            tokens: tokens.len(),
            head_dim,
            stride,
        }
    }

    /// Codes of the keys of a block; a cut block has fewer tokens than a group.
    pub(crate) fn keys(
        &mut self,
        from: &Recent,
        tokens: Range<usize>,
        page: &mut [u8],
    ) -> Result<()> {
        let layout = self.layout.block(self.layer);
        let written = tokens.len() * layout.head_dim();
        self.codes.clear();
        self.codes
            .resize(layout.group_size() * layout.head_dim(), 0);
        for head in 0..self.shape.kv_heads {
            let block = &mut page[self.layout.range(self.layer, head)];
            let (scale, min) = layout.key_metadata_mut(block)?;
            let rows = self.rows(from, tokens.clone(), head);
            let codes = &mut self.codes[..written];
            quantize_keys(self.config.key_scheme(), rows, codes, scale, min)?;
            layout.pack_keys(&self.codes, block)?;
        }
        Ok(())
    }

    /// Codes of the values of some tokens of one block; the first is token `at` of the block.
    pub(crate) fn values(
        &mut self,
        from: &Recent,
        tokens: Range<usize>,
        at: usize,
        page: &mut [u8],
    ) -> Result<()> {
        let layout = self.layout.block(self.layer);
        let (head_dim, groups) = (layout.head_dim(), layout.value_groups());
        self.codes.resize(tokens.len() * head_dim, 0);
        for head in 0..self.shape.kv_heads {
            let block = &mut page[self.layout.range(self.layer, head)];
            let metadata = at * groups..(at + tokens.len()) * groups;
            let (scale, min): (&mut [f16], &mut [f16]) = layout.value_metadata_mut(block)?;
            let (scale, min) = (&mut scale[metadata.clone()], &mut min[metadata]);
            let rows = self.rows(from, tokens.clone(), head);
            quantize_values(
                self.config.value_scheme(),
                rows,
                &mut self.codes,
                scale,
                min,
            )?;
            for (t, codes) in self.codes.chunks_exact(head_dim).enumerate() {
                layout.pack_value(at + t, codes, block)?;
            }
        }
        Ok(())
    }
}
