//! The 2-bit cache inside a real model on real text: the figures that the method's page states, and what can't be seen in a unit
//! test.

use whittle_benches::quality::{self, Positions, Window as Judged};
use whittle_kivi::{
    Arithmetic, Cache, Config, HeadDim, Policy, Prefill, Shape, Window, llama::KiviStore,
};
use whittle_llama::{
    Decoder, Error, Gguf, KvStore, Result, SequenceId, Span, Tokenizer, Truncated, Visible,
    Weights, cache::PlainStore,
};
use whittle_tensor::{Device, Tensor};
use whittle_tests::data;

const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const NOVEL: &str = "eighty.txt";

fn shape(decoder: &Decoder) -> Shape {
    Shape {
        layers: decoder.config().layers,
        query_heads: decoder.config().query_heads,
        kv_heads: decoder.config().kv_heads,
        head_dim: HeadDim::new(decoder.config().head_dim).unwrap(),
    }
}

fn kivi(decoder: &Decoder, config: Config) -> KiviStore {
    let policy = Policy::uniform(config.with_prefill(Prefill::Streaming));
    KiviStore(Cache::new(shape(decoder), policy, &Device::Cpu).unwrap())
}

fn load(test: &str) -> Option<(Decoder, Vec<u32>)> {
    let gguf = Gguf::open(data(test, MODEL)?).unwrap();
    let decoder = Decoder::load(&gguf, Weights::F32).unwrap();
    let text = std::fs::read_to_string(data(test, NOVEL)?)
        .unwrap()
        .replace("\r\n", "\n");
    let tokens = Tokenizer::from_gguf(&gguf).unwrap().encode(&text).unwrap();
    assert_eq!(tokens.len(), 101_752, "tokens of the novel");
    Some((decoder, tokens))
}

#[test]
fn window_a_reproduces_the_published_divergences() {
    let test = "window_a_reproduces_the_published_divergences";
    let Some((decoder, tokens)) = load(test) else {
        return;
    };
    let window = Judged {
        tokens: &tokens[34_000..34_000 + 1536],
        from: 256,
    };
    let mut f16 = PlainStore::<half::f16>::new(decoder.config().cache_shape()).unwrap();
    let (reference, plain) = quality::reference(&decoder, &mut f16, window).unwrap();
    assert_eq!(plain.kl.len(), 1279);
    assert!(
        (plain.perplexity() / 15.06 - 1.0).abs() <= 0.005,
        "f16: {}",
        plain.perplexity()
    );

    let judge = |config: Config| -> Positions {
        quality::judge(&decoder, &mut kivi(&decoder, config), window, &reference).unwrap()
    };
    let stock = judge(Config::kivi_2()).mean_kl();
    assert!((stock / 0.154 - 1.0).abs() <= 0.1, "stock KIVI-2: {stock}");
    let compact = judge(Config::compact()).mean_kl();
    assert!(compact <= stock / 3.0, "compact {compact}, stock {stock}");
    let small = judge(Config::small()).mean_kl();
    assert!(small <= stock / 2.5, "small {small}, stock {stock}");
    let balanced = judge(Config::balanced()).mean_kl();
    assert!(balanced <= 0.016, "balanced: {balanced}");
    let four = judge(Config::kivi_4()).mean_kl();
    assert!(
        (0.0028..=0.004).contains(&four),
        "stock KIVI-4, published .0031: {four}"
    );
    let sinks = judge(Config::kivi_4().with_sink_len(4)).mean_kl();
    assert!(sinks <= 0.0025, "KIVI-4 with 4 sinks: {sinks}");
}

/// The batched pass of the quality tables is decoding: 300 tokens at once and one by one. Matrix products of 1 and of 300 rows differ
/// in their last bits, and a code at a tie may fall the other way for it, so predictions are compared; that given rows give equal
/// bits is the next test's.
#[test]
fn one_batched_pass_predicts_what_decoding_token_by_token_does() {
    let test = "one_batched_pass_predicts_what_decoding_token_by_token_does";
    let Some((decoder, tokens)) = load(test) else {
        return;
    };
    let tokens = &tokens[34_000..34_300];
    let vocab = decoder.config().vocab;
    for config in [
        Config::kivi_2(),
        Config::compact().with_window(Window::Sliding { residual_len: 32 }),
    ] {
        let mut store = kivi(&decoder, config);
        let sequence = store.sequence().unwrap();
        let spans = [Span {
            sequence,
            tokens: tokens.len(),
        }];
        let hidden = decoder
            .forward(&mut store, &spans, tokens, Visible::Causal)
            .unwrap();
        let batched = decoder.logits(&hidden).unwrap().log_softmax(1).unwrap();
        let batched = batched.to_vec::<f32>().unwrap();
        let mut store = kivi(&decoder, config);
        let sequence = store.sequence().unwrap();
        let mut kl = 0.0;
        for (row, &token) in batched.chunks_exact(vocab).zip(tokens) {
            let single = decoder.step(&mut store, &[(sequence, token)]).unwrap();
            let single = single.log_softmax(1).unwrap().to_vec::<f32>().unwrap();
            let terms = row.iter().zip(&single);
            kl += terms
                .map(|(&p, &q)| f64::from(p).exp() * f64::from(p - q))
                .sum::<f64>();
        }
        let kl = kl / tokens.len() as f64;
        // A tenth of what the coarsest of these caches itself costs; a boundary off by one would cost more.
        assert!(
            kl <= 4e-3,
            "mean divergence of one pass from decoding: {kl}"
        );
        let coded = store
            .0
            .quantised(0, whittle_kivi::SequenceId(sequence.0))
            .unwrap();
        assert!(coded.0 >= 128);
        println!("mean divergence {kl:.6}");
    }
}

#[test]
fn what_packed_blocks_can_not_serve_is_a_typed_error() {
    let gguf = Gguf::from_bytes("tiny.gguf", whittle_llama::tiny::gguf(3)).unwrap();
    let decoder = Decoder::load(&gguf, Weights::Blocks).unwrap();
    let mut store = kivi(&decoder, Config::compact());
    let sequence = store.sequence().unwrap();
    let spans = [Span {
        sequence,
        tokens: 2,
    }];
    let tree = [None, Some(0)];
    let error = decoder
        .forward(&mut store, &spans, &[1, 2], Visible::Tree(&tree))
        .unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(matches!(
        store.retain(sequence, 0, &[]),
        Err(Error::Unsupported { .. })
    ));
}

/// stories260K has heads of 8 channels.
#[test]
fn head_dimensions_outside_the_range_are_a_clear_error() {
    let error = HeadDim::new(8).unwrap_err().to_string();
    assert!(
        error.contains("head_dim") && error.contains('8') && error.contains("16"),
        "{error}"
    );
}

/// Keys, values and queries of a real pass, by layer.
struct Recorder {
    inner: PlainStore<f32>,
    rows: Vec<[Vec<f32>; 3]>,
}

impl KvStore for Recorder {
    fn append(&mut self, layer: usize, spans: &[Span], k: &Tensor, v: &Tensor) -> Result<()> {
        let [keys, values, _] = &mut self.rows[layer];
        keys.extend(k.to_vec::<f32>()?);
        values.extend(v.to_vec::<f32>()?);
        self.inner.append(layer, spans, k, v)
    }

    fn attend(
        &mut self,
        layer: usize,
        spans: &[Span],
        q: &Tensor,
        scale: f32,
        visible: Visible<'_>,
    ) -> Result<Tensor> {
        self.rows[layer][2].extend(q.to_vec::<f32>()?);
        self.inner.attend(layer, spans, q, scale, visible)
    }

    fn sequence(&mut self) -> Result<SequenceId> {
        self.inner.sequence()
    }
    fn len(&self, sequence: SequenceId) -> Result<usize> {
        self.inner.len(sequence)
    }
    fn bytes(&self) -> usize {
        self.inner.bytes()
    }
    fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId> {
        self.inner.fork(sequence)
    }
    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<Truncated> {
        self.inner.truncate(sequence, len)
    }
    fn retain(&mut self, sequence: SequenceId, from: usize, rows: &[usize]) -> Result<()> {
        self.inner.retain(sequence, from, rows)
    }
    fn hold(&mut self, sequence: SequenceId) -> Result<()> {
        self.inner.hold(sequence)
    }
    fn commit(&mut self, sequence: SequenceId) -> Result<()> {
        self.inner.commit(sequence)
    }
    fn free(&mut self, sequence: SequenceId) -> Result<()> {
        self.inner.free(sequence)
    }
}

/// Attention output of one layer's recorded rows, fed in chunks.
fn replay(shape: Shape, config: Config, rows: &[Vec<f32>; 3], chunk: usize) -> Vec<f32> {
    let one = Shape { layers: 1, ..shape };
    let policy = Policy::uniform(config.with_prefill(Prefill::Streaming));
    let mut cache = Cache::new(one, policy, &Device::Cpu).unwrap();
    let sequence = cache.sequence().unwrap();
    let [k, v, q] = rows;
    let (kv, queries) = (
        shape.kv_heads * shape.head_dim.get(),
        shape.query_heads * shape.head_dim.get(),
    );
    let mut out = vec![0.0; q.len()];
    let chunks = k
        .chunks(chunk * kv)
        .zip(v.chunks(chunk * kv))
        .zip(q.chunks(chunk * queries));
    for (((k, v), q), out) in chunks.zip(out.chunks_mut(chunk * queries)) {
        let spans = [whittle_kivi::Span {
            sequence,
            tokens: k.len() / kv,
        }];
        cache.append_rows(0, &spans, k, v).unwrap();
        cache.attend_rows(0, &spans, q, 0.125, out).unwrap();
    }
    out
}

fn recorded(test: &str, tokens: usize) -> Option<(Shape, Vec<[Vec<f32>; 3]>)> {
    let (decoder, text) = load(test)?;
    let mut recorder = Recorder {
        inner: PlainStore::new(decoder.config().cache_shape()).unwrap(),
        rows: vec![Default::default(); decoder.config().layers],
    };
    let sequence = recorder.sequence().unwrap();
    let part = &text[34_000..34_000 + tokens];
    decoder
        .prefill(&mut recorder, sequence, part, tokens, &mut |_| ())
        .unwrap();
    Some((shape(&decoder), recorder.rows))
}

/// Given real keys, values and queries, one pass and token-by-token decoding agree to the bit.
#[test]
fn real_rows_at_once_and_one_by_one_give_the_same_bits() {
    let Some((shape, rows)) = recorded("real_rows_at_once_and_one_by_one", 300) else {
        return;
    };
    for config in [Config::kivi_2(), Config::compact(), Config::balanced()] {
        for layer in [0, 13, 29] {
            let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let at_once = bits(replay(shape, config, &rows[layer], 300));
            assert_eq!(
                bits(replay(shape, config, &rows[layer], 1)),
                at_once,
                "layer {layer}"
            );
        }
    }
}

/// The integer path on real keys, values and queries: its error over all layers, in the L2 norm against the f32 path.
#[test]
fn the_integer_path_on_real_rows_stays_near_the_f32_path() {
    let Some((shape, rows)) = recorded("the_integer_path_on_real_rows", 512) else {
        return;
    };
    for (name, config) in [
        ("compact", Config::compact()),
        ("balanced", Config::balanced()),
    ] {
        let (mut error, mut size) = (0.0f64, 0.0f64);
        for rows in &rows {
            let exact = replay(shape, config, rows, 512);
            let rounded = replay(shape, config.with_arithmetic(Arithmetic::Int8), rows, 512);
            error += exact
                .iter()
                .zip(&rounded)
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum::<f64>();
            size += exact.iter().map(|&a| f64::from(a).powi(2)).sum::<f64>();
        }
        let relative = (error / size).sqrt();
        println!("{name}: {relative:.6}");
        assert!(relative <= 1e-3, "{name}: {relative}");
    }
}
