//! One sequence: its pages, and per layer the sinks and the window of 16-bit rows.

use crate::{Config, Error, Result, Window, cache::SequenceId, page::PageEntry};
use half::f16;

/// 16-bit rows `[tokens, kv_heads, head_dim]` of the tokens from `start` on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    pub(crate) start: usize,
    pub(crate) rows: Vec<f16>,
}

impl Recent {
    /// The row of one token, `width` values.
    pub(crate) fn row(&self, token: usize, width: usize) -> &[f16] {
        let at = (token - self.start) * width;
        &self.rows[at..at + width]
    }

    /// Forgets the tokens before `token` and gives memory beyond `keep` tokens back.
    pub(crate) fn drop_before(&mut self, token: usize, width: usize, keep: usize) {
        if token > self.start {
            self.rows.drain(..(token - self.start) * width);
            self.start = token;
        }
        self.shrink(keep * width);
    }

    /// Forgets the tokens from `len` on; the next one to come is `len`, or the first after the sinks.
    pub(crate) fn truncate(&mut self, len: usize, sink_len: usize, width: usize) {
        self.rows.truncate(len.saturating_sub(self.start) * width);
        self.start = self.start.min(len.max(sink_len));
    }

    /// Room for `more` tokens of `width` values. Up to `keep` tokens it grows twofold, so that decoding seldom reallocates; a chunk
    /// beyond that gets what it needs.
    pub(crate) fn reserve(&mut self, more: usize, width: usize, keep: usize) {
        let needed = self.rows.len() / width + more;
        let room = if needed <= keep {
            needed.next_power_of_two().min(keep)
        } else {
            needed.next_multiple_of(16)
        };
        self.rows.reserve_exact(room * width - self.rows.len());
    }

    pub(crate) fn shrink(&mut self, keep: usize) {
        if self.rows.capacity() > keep.max(self.rows.len()) {
            self.rows.shrink_to(keep);
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<f16>()
    }
}

/// Keys or values of one layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    /// The first `sink_len` tokens.
    pub(crate) sinks: Vec<f16>,
    /// Tokens `window.start..len`.
    pub(crate) window: Recent,
    /// Tokens `sink_len..coded` have codes; those from `window.start` on exist in both forms.
    pub(crate) coded: usize,
}

impl Side {
    pub(crate) fn heap_bytes(&self) -> usize {
        self.sinks.capacity() * size_of::<f16>() + self.window.heap_bytes()
    }
}

/// Keys and values of one layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerRows {
    pub(crate) len: usize,
    pub(crate) keys: Side,
    pub(crate) values: Side,
}

/// What an append may have to restore: tokens, and for keys and values the capacities of sinks and window.
pub(crate) struct Extent {
    len: usize,
    capacities: [[usize; 2]; 2],
}

impl LayerRows {
    pub(crate) fn extent(&self) -> Extent {
        let capacities = [&self.keys, &self.values]
            .map(|side| [side.sinks.capacity(), side.window.rows.capacity()]);
        Extent {
            len: self.len,
            capacities,
        }
    }

    /// Takes back what was appended since, memory included.
    pub(crate) fn restore(&mut self, extent: Extent, width: usize) {
        self.len = extent.len;
        for (side, [sinks, window]) in [&mut self.keys, &mut self.values]
            .into_iter()
            .zip(extent.capacities)
        {
            side.sinks.truncate(self.len * width);
            side.sinks.shrink_to(sinks);
            let kept = self.len.saturating_sub(side.window.start) * width;
            side.window.rows.truncate(kept);
            side.window.rows.shrink_to(window);
        }
    }
}

/// One sequence.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    /// Contiguous from `sink_len` on, the same for all layers.
    pub(crate) pages: Vec<PageEntry>,
    pub(crate) layers: Vec<LayerRows>,
    /// Blocks of whole groups are counted from here: `sink_len`, or where a block was cut.
    pub(crate) base: usize,
    pub(crate) held: bool,
}

/// Which tokens a query reads from codes: keys below `keys`, values below `values` (sinks apart).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub(crate) keys: usize,
    pub(crate) values: usize,
}

/// `n_K(t)` and `n_V(t)` of query `t` when whole blocks are counted from `base`.
pub(crate) fn boundary(config: &Config, base: usize, t: usize) -> Boundary {
    let group = config.group_size.get();
    match config.window {
        Window::Sliding { residual_len } => {
            let n = base + (t + 1).saturating_sub(base + residual_len) / group * group;
            Boundary { keys: n, values: n }
        }
        Window::SawTooth { residual_len } => Boundary {
            keys: base + t.saturating_sub(base) / residual_len * residual_len,
            values: t.saturating_sub(residual_len).max(config.sink_len),
        },
    }
}

/// What a sequence of `len` tokens holds as codes alone once it is committed: what the next query reads from codes. Without a
/// window that would count the next token in, which has not come yet.
pub(crate) fn committed(config: &Config, base: usize, len: usize) -> Boundary {
    let next = boundary(config, base, len);
    if next.keys <= len.max(base) {
        next
    } else {
        boundary(config, base, len - 1)
    }
}

impl Sequence {
    pub(crate) fn new(layers: usize, config: &Config) -> Self {
        let side = || Side {
            sinks: vec![],
            window: Recent {
                start: config.sink_len,
                rows: vec![],
            },
            coded: config.sink_len,
        };
        Self {
            pages: vec![],
            layers: (0..layers)
                .map(|_| LayerRows {
                    len: 0,
                    keys: side(),
                    values: side(),
                })
                .collect(),
            base: config.sink_len,
            held: false,
        }
    }

    /// What query `t` of `layer` reads from codes: the rule of [`boundary`], but never a token that has no codes (the prompt of
    /// an exact prefill) and always one that has no 16-bit row any more.
    pub(crate) fn boundary(&self, config: &Config, layer: usize, t: usize) -> Boundary {
        let rule = boundary(config, self.base, t);
        let layer = &self.layers[layer];
        let within = |n: usize, side: &Side| n.min(side.coded).max(side.window.start);
        Boundary {
            keys: within(rule.keys, &layer.keys),
            values: within(rule.values, &layer.values),
        }
    }

    /// Tokens that all layers hold; an error in the middle of a step.
    pub(crate) fn even_len(&self, op: &'static str, sequence: SequenceId) -> Result<usize> {
        let first = self.layers.first().map_or(0, |layer| layer.len);
        match self.layers.iter().position(|layer| layer.len != first) {
            None => Ok(first),
            Some(layer) => Err(Error::LayersDiffer {
                op,
                sequence: sequence.0,
                first,
                layer,
                found: self.layers[layer].len,
            }),
        }
    }

    /// Index of the page that holds `token`'s codes.
    pub(crate) fn page_of(&self, token: usize) -> usize {
        self.pages.partition_point(|page| page.end() <= token)
    }

    /// Start of the whole-group grid beyond all pages.
    pub(crate) fn pages_end(&self) -> usize {
        self.pages.last().map_or(self.base, PageEntry::end)
    }

    /// Heap bytes apart from the pages themselves, as `(sinks and windows, tables)`.
    pub(crate) fn heap_bytes(&self) -> (usize, usize) {
        let rows = self
            .layers
            .iter()
            .map(|l| l.keys.heap_bytes() + l.values.heap_bytes())
            .sum();
        let tables = self.pages.capacity() * size_of::<PageEntry>()
            + self.layers.capacity() * size_of::<LayerRows>();
        (rows, tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeadDim, Shape, page::PageLayout};

    #[test]
    fn the_paper_s_window_is_asymmetric() {
        let config = Config::kivi_2();
        let at = |t| boundary(&config, 0, t);
        assert_eq!(at(127), Boundary { keys: 0, values: 0 });
        assert_eq!(
            at(128),
            Boundary {
                keys: 128,
                values: 0
            }
        );
        assert_eq!(
            at(255),
            Boundary {
                keys: 128,
                values: 127
            }
        );
        assert_eq!(
            at(256),
            Boundary {
                keys: 256,
                values: 128
            }
        );
    }

    #[test]
    fn the_sliding_window_has_one_boundary_and_at_least_its_length() {
        let config = Config::compact();
        for t in 0..1000 {
            let Boundary { keys, values } = boundary(&config, config.sink_len, t);
            assert_eq!(keys, values);
            let window = t + 1 - keys.min(t + 1);
            assert!(
                keys == 4 || (64..64 + 32).contains(&window),
                "query {t}: {window} in 16 bits"
            );
        }
    }

    #[test]
    fn trap_9_positions_and_offsets_go_beyond_32_bits() {
        let config = Config::compact();
        let t = 1usize << 40;
        let Boundary { keys, .. } = boundary(&config, 4, t);
        assert!(keys > t - 96 && keys <= t - 63 && (keys - 4) % 32 == 0);
        let saw = boundary(&Config::kivi_2(), 0, t);
        assert_eq!(
            saw,
            Boundary {
                keys: t,
                values: t - 128
            }
        );
        let head_dim = HeadDim::new(128).unwrap();
        let shape = Shape {
            layers: 4096,
            query_heads: 1024,
            kv_heads: 1024,
            head_dim,
        };
        let layout = PageLayout::new(&shape, &vec![config; 4096]);
        let last = layout.range(4095, 1023);
        assert_eq!(last.end, layout.bytes());
        assert!(last.start > 1 << 33);
    }
}
