//! Pages: the packed codes and metadata of `group_size` tokens, all layers and kv heads in one allocation.

use crate::{Config, Shape, pack::BlockLayout};
use bytemuck::{Pod, Zeroable};
use std::{ops::Range, sync::Arc};

/// 64 bytes on a cache line of their own.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Where the blocks of a page lie. The precision may differ from layer to layer, the group size may not.
#[derive(Clone, Debug)]
pub(crate) struct PageLayout {
    /// Byte offset of a layer's first block, and the layout of its blocks.
    layers: Vec<(usize, BlockLayout)>,
    bytes: usize,
}

impl PageLayout {
    pub(crate) fn new(shape: &Shape, layers: &[Config]) -> Self {
        let mut bytes = 0;
        let layers = layers
            .iter()
            .map(|config| {
                let block = config.block_layout(shape.head_dim);
                let offset = bytes;
                bytes += shape.kv_heads * block.bytes();
                (offset, block)
            })
            .collect();
        Self { layers, bytes }
    }

    /// Bytes of one page.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn block(&self, layer: usize) -> &BlockLayout {
        &self.layers[layer].1
    }

    /// The bytes of one block inside its page.
    pub(crate) fn range(&self, layer: usize, kv_head: usize) -> Range<usize> {
        let (offset, block) = &self.layers[layer];
        let start = offset + kv_head * block.bytes();
        start..start + block.bytes()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.layers.capacity() * size_of::<(usize, BlockLayout)>()
    }
}

/// One allocation that never moves. Its codes are written once; a page that two sequences share is copied before the one
/// fills it further.
#[derive(Clone, Debug)]
pub(crate) struct Page(Box<[Line]>);

impl Page {
    /// Heap bytes of a page behind its reference count: the lines, the pointer to them and the two counts.
    pub(crate) fn heap_bytes(layout: &PageLayout) -> usize {
        layout.bytes() + size_of::<Self>() + 2 * size_of::<usize>()
    }

    pub(crate) fn new(layout: &PageLayout) -> Self {
        Self(vec![Line::zeroed(); layout.bytes() / size_of::<Line>()].into_boxed_slice())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// A page as one sequence sees it: tokens `start..start + len`.
#[derive(Clone, Debug)]
pub(crate) struct PageEntry {
    pub(crate) page: Arc<Page>,
    pub(crate) start: usize,
    /// `group_size`, or less where [`truncate`](crate::Cache::truncate) cut a block.
    pub(crate) len: usize,
}

impl PageEntry {
    pub(crate) fn end(&self) -> usize {
        self.start + self.len
    }
}
