//! A cache that keeps everything and computes in f64: what [`whittle_kivi::Cache`] is held against.
#![allow(dead_code)]

use half::f16;
use whittle_kivi::{Config, Prefill, Scheme, Shape, Window, quantize_group, value_group};
use whittle_tensor::random::Philox4x32;

/// One kv head's row.
type Row = Vec<f64>;

/// One sequence of a single layer.
#[derive(Clone)]
pub struct Naive {
    shape: Shape,
    config: Config,
    base: usize,
    pub held: bool,
    /// `[token][head]`: 16-bit rows, values rotated if the configuration says so.
    keys: Vec<Vec<Row>>,
    values: Vec<Vec<Row>>,
    /// The same from codes, once they exist.
    coded_keys: Vec<Option<Vec<Row>>>,
    coded_values: Vec<Option<Vec<Row>>>,
    /// 16-bit rows before this token are gone, keys and values.
    gone: [usize; 2],
}

/// Deterministic rows `[tokens, heads, head_dim]` with a few loud channels, as keys have.
pub fn rows(seed: u64, tokens: usize, heads: usize, head_dim: usize) -> Vec<f32> {
    let mut random = Philox4x32::new(seed, 9);
    (0..tokens * heads * head_dim)
        .map(|i| {
            let loud = if i % head_dim % 11 == 3 { 4.0 } else { 1.0 };
            loud * random.next_normal() + if i % head_dim % 7 == 1 { 2.0 } else { 0.0 }
        })
        .collect()
}

/// Orthonormal Walsh–Hadamard transform by its definition, in blocks of the largest power of two that divides the length.
pub fn rotate(x: &[f64]) -> Row {
    let n = 1usize << x.len().trailing_zeros();
    x.chunks(n)
        .flat_map(|x| {
            (0..n).map(move |i| {
                let sign = |j: usize| {
                    if (i & j).count_ones().is_multiple_of(2) {
                        1.0
                    } else {
                        -1.0
                    }
                };
                x.iter().enumerate().map(|(j, x)| sign(j) * x).sum::<f64>() / (n as f64).sqrt()
            })
        })
        .collect()
}

fn decoded(scheme: Scheme, group: &[f64]) -> Row {
    let group: Vec<f32> = group.iter().map(|&x| x as f32).collect();
    let mut codes = vec![0; group.len()];
    let found = quantize_group(scheme, &group, &mut codes).unwrap();
    codes
        .iter()
        .map(|&c| f64::from(c) * f64::from(found.scale) + f64::from(found.min))
        .collect()
}

impl Naive {
    pub fn new(shape: Shape, config: Config) -> Self {
        Self {
            shape,
            config,
            base: config.sink_len,
            held: false,
            keys: vec![],
            values: vec![],
            coded_keys: vec![],
            coded_values: vec![],
            gone: [config.sink_len; 2],
        }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Tokens that have codes, keys and values.
    pub fn coded(&self) -> (usize, usize) {
        let count = |of: &[Option<Vec<Row>>]| of.iter().filter(|row| row.is_some()).count();
        (count(&self.coded_keys), count(&self.coded_values))
    }

    fn rule(&self, t: usize) -> [usize; 2] {
        let (base, sinks, group) = (
            self.base,
            self.config.sink_len,
            self.config.group_size.get(),
        );
        match self.config.window {
            Window::Sliding { residual_len } => {
                let free = (t as i64 + 1 - base as i64 - residual_len as i64).max(0) as usize;
                [base + free / group * group; 2]
            }
            Window::SawTooth { residual_len } => {
                let full = (t as i64 - base as i64).max(0) as usize / residual_len;
                let left = (t as i64 - residual_len as i64).max(sinks as i64) as usize;
                [base + full * residual_len, left]
            }
        }
    }

    /// What is coded after `len` tokens: as the next query wants it, but only tokens that exist.
    fn after(&self, len: usize) -> [usize; 2] {
        let next = self.rule(len);
        if next[0] > len.max(self.base) {
            self.rule(len - 1)
        } else {
            next
        }
    }

    pub fn append(&mut self, k: &[f32], v: &[f32]) {
        let prompt = self.len() == 0;
        let (heads, head_dim) = (self.shape.kv_heads, self.shape.head_dim.get());
        let round = |x: f32| f64::from(f16::from_f32(x));
        for (k, v) in k.chunks(heads * head_dim).zip(v.chunks(heads * head_dim)) {
            self.keys.push(
                k.chunks(head_dim)
                    .map(|k| k.iter().map(|&x| round(x)).collect())
                    .collect(),
            );
            let value = |v: &[f32]| -> Row {
                if !self.config.rotate_values {
                    return v.iter().map(|&x| round(x)).collect();
                }
                // In f32 and in the order of the cache, so that the 16-bit rounding meets the same numbers.
                let mut v = v.to_vec();
                whittle_kivi::hadamard(&mut v, self.shape.head_dim);
                v.into_iter().map(round).collect()
            };
            self.values.push(v.chunks(head_dim).map(value).collect());
            self.coded_keys.push(None);
            self.coded_values.push(None);
        }
        // The prompt of an exact prefill attends to itself in 16 bits.
        if !(prompt && self.config.prefill == Prefill::Exact) {
            self.code(self.rule(self.len() - 1));
        }
    }

    fn code(&mut self, due: [usize; 2]) {
        let (heads, head_dim, group) = (
            self.shape.kv_heads,
            self.shape.head_dim.get(),
            self.config.group_size.get(),
        );
        let sinks = self.config.sink_len;
        let first = |of: &[Option<Vec<Row>>]| (sinks..of.len()).find(|&t| of[t].is_none());
        while let Some(start) = first(&self.coded_keys).filter(|&t| t < due[0]) {
            let scheme = self.config.key_scheme();
            let keys = &self.keys;
            // `[head][channel][token of the block]`
            let columns: Vec<Vec<Row>> = (0..heads)
                .map(|head| {
                    let column = |d: usize| {
                        (0..group)
                            .map(|t| keys[start + t][head][d])
                            .collect::<Row>()
                    };
                    (0..head_dim).map(|d| decoded(scheme, &column(d))).collect()
                })
                .collect();
            for t in 0..group {
                let row = columns
                    .iter()
                    .map(|head| head.iter().map(|column| column[t]).collect());
                self.coded_keys[start + t] = Some(row.collect());
            }
        }
        let channels = value_group(self.shape.head_dim, self.config.group_size);
        while let Some(t) = first(&self.coded_values).filter(|&t| t < due[1]) {
            let scheme = self.config.value_scheme();
            let code = |v: &Row| {
                v.chunks(channels)
                    .flat_map(|g| decoded(scheme, g))
                    .collect()
            };
            self.coded_values[t] = Some(self.values[t].iter().map(code).collect());
        }
    }

    /// Attention of the newest `queries` tokens, `q` `[queries, query_heads, head_dim]`, with the cache's commit after it.
    pub fn attend(&mut self, q: &[f32], queries: usize, scale: f32) -> Vec<f64> {
        let (head_dim, group) = (self.shape.head_dim.get(), self.shape.group());
        let first = self.len() - queries;
        let mut out = vec![];
        for (row, q) in q.chunks(head_dim).enumerate() {
            let (t, head) = (
                first + row / self.shape.query_heads,
                row % self.shape.query_heads / group,
            );
            let n = self.rule(t);
            let pick =
                |side: usize, j: usize, exact: &[Vec<Row>], coded: &[Option<Vec<Row>>]| -> Row {
                    let from_codes = j >= self.config.sink_len
                        && j < n[side].max(self.gone[side])
                        && coded[j].is_some();
                    if from_codes {
                        coded[j].as_ref().unwrap()[head].clone()
                    } else {
                        exact[j][head].clone()
                    }
                };
            let scores: Row = (0..=t)
                .map(|j| {
                    let key = pick(0, j, &self.keys, &self.coded_keys);
                    q.iter()
                        .zip(&key)
                        .map(|(&q, k)| f64::from(q) * k)
                        .sum::<f64>()
                        * f64::from(scale)
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Row = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mut value = vec![0.0; head_dim];
            for (j, w) in weights.iter().enumerate() {
                let row = pick(1, j, &self.values, &self.coded_values);
                value
                    .iter_mut()
                    .zip(&row)
                    .for_each(|(o, v)| *o += w / sum * v);
            }
            out.extend(if self.config.rotate_values {
                rotate(&value)
            } else {
                value
            });
        }
        if !self.held {
            self.commit();
        }
        out
    }

    pub fn commit(&mut self) {
        self.held = false;
        self.code(self.after(self.len()));
        let sinks = self.config.sink_len;
        for (gone, coded) in self
            .gone
            .iter_mut()
            .zip([&self.coded_keys, &self.coded_values])
        {
            *gone = (sinks..coded.len())
                .find(|&t| coded[t].is_none())
                .unwrap_or(coded.len())
                .max(sinks);
        }
    }

    pub fn truncate(&mut self, len: usize) {
        let sinks = self.config.sink_len;
        if len < self.base {
            self.base = sinks;
        }
        let rule = self.after(len);
        self.keys.truncate(len);
        self.values.truncate(len);
        let mut coded = 0;
        for (side, of) in [&mut self.coded_keys, &mut self.coded_values]
            .into_iter()
            .enumerate()
        {
            of.truncate(len);
            self.gone[side] = self.gone[side].min(len.max(sinks));
            // Codes that were made early and are not the only form left are forgotten.
            of.iter_mut()
                .skip(rule[side].max(self.gone[side]))
                .for_each(|row| *row = None);
            if side == 0 {
                coded = (sinks..of.len())
                    .find(|&t| of[t].is_none())
                    .unwrap_or(of.len())
                    .max(sinks);
            }
        }
        if coded < self.base || !(coded - self.base).is_multiple_of(self.config.group_size.get()) {
            self.base = coded;
        }
    }
}
