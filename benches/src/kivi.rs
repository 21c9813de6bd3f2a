//! The kivi tables: quality of every scheme on real text in a real model, recall, memory and speed.

use crate::{
    machine,
    passkey::{self, Case, DEPTHS},
    peers::{Codec, PeerStore, Rule},
    quality::{self, Judgement, Positions, Reference, Window as Judged},
    report::{Plot, Report, Row, Series},
    work::{self, Finished, Piece},
};
use half::f16;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{path::PathBuf, time::Instant};
use whittle_kivi::{
    Bits, Cache, Config, HeadDim, Policy, Prefill, Rounding, Shape, Window, llama::KiviStore,
};
use whittle_llama::{
    Decoder, Gguf, KvStore, SequenceId, Span, Tokenizer, Visible, Weights, cache::PlainStore,
};
use whittle_tensor::{Device, Tensor};

/// What can go wrong in a benchmark.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the command line asks for.
pub struct Options {
    /// Folder that `cargo xtask data` fills.
    pub data: PathBuf,
    /// Another model than the default one.
    pub model: Option<PathBuf>,
    /// Another text than the default novel.
    pub text: Option<PathBuf>,
    /// Long tables, second text.
    pub full: bool,
    /// Worker threads.
    pub threads: usize,
    /// The commit, for the report.
    pub commit: String,
    /// Where an interrupted `--full` run keeps what it has.
    pub finished: PathBuf,
}

impl Options {
    /// The command that measures the same again.
    fn command(&self) -> String {
        let mut command = format!("cargo xtask bench --only kivi --threads {}", self.threads);
        if self.full {
            command += " --full";
        }
        for (flag, path) in [("--model", &self.model), ("--text", &self.text)] {
            if let Some(path) = path {
                command += &format!(" {flag} {}", path.display());
            }
        }
        command
    }
}

/// Judged positions start here.
const FROM: usize = 256;
/// Tokens of a passkey prompt.
const PASSKEY_TOKENS: usize = 1020;
/// Tokens of a long passkey prompt.
const LONG_PASSKEY_TOKENS: usize = 4000;
/// Passkeys of the long table, each at five depths.
const PASSKEYS: u64 = 20;
/// So many of them at a time.
const PASSKEYS_AT_ONCE: usize = 10;
/// Tokens that are decoded greedily, and those before them.
const GREEDY: (usize, usize) = (128, 512);

/// A cache that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Store {
    F16,
    Kivi(Config),
    Peer(Codec, Rule),
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Reference,
    Peer,
    Paper,
    Ours,
    Ablation,
    Null,
}

struct Scheme {
    name: String,
    role: Role,
    store: Store,
    /// Whether it is in the default passkey table.
    passkey: bool,
}

impl Scheme {
    /// Whether the long passkey table asks it.
    fn recall(&self) -> bool {
        match self.role {
            Role::Reference | Role::Ours | Role::Paper => true,
            Role::Peer => self.name.starts_with("q4_0") || self.name == "per-token int2, G64",
            Role::Null => self.name.starts_with("null: history"),
            Role::Ablation => false,
        }
    }

    /// Bits of a quantised element, metadata included, as `keys/values`.
    fn bits(&self, head_dim: HeadDim) -> (f64, f64) {
        match self.store {
            Store::F16 => (16.0, 16.0),
            Store::Kivi(config) => (
                config.key_bits_per_element(head_dim),
                config.value_bits_per_element(head_dim),
            ),
            Store::Peer(_, Rule::Drop) => (16.0, 16.0),
            Store::Peer(codec, _) => (codec.bits(), codec.bits()),
        }
    }

    /// Bits of an element of a cache of `tokens` tokens, window and sinks included: measured where the cache is real, by its rule
    /// where it is simulated.
    fn bits_at(&self, tokens: usize, bytes: usize, elements: usize) -> f64 {
        match self.store {
            Store::F16 | Store::Kivi(_) => bytes as f64 * 8.0 / elements as f64,
            Store::Peer(codec, rule) => rule.bits_at(tokens, codec.bits()),
        }
    }
}

fn schemes(full: bool) -> Vec<Scheme> {
    let scheme = |name: &str, role, store| Scheme {
        name: name.into(),
        role,
        store,
        passkey: matches!(store, Store::F16)
            || matches!(name, "KIVI-2 (stock)" | "compact" | "balanced"),
    };
    let streaming = |config: Config| Store::Kivi(config.with_prefill(Prefill::Streaming));
    let windowed = Rule::SlidingWithSinks { residual_len: 128 };
    let saw_tooth = Rule::SawTooth { residual_len: 128 };
    let sliding = Window::Sliding { residual_len: 128 };
    let mut schemes = vec![scheme("f16", Role::Reference, Store::F16)];
    let mut peer = |name: &str, codec, shipped| {
        schemes.push(scheme(name, Role::Peer, Store::Peer(codec, shipped)));
        schemes.push(scheme(
            &format!("{name} + our window, sinks"),
            Role::Peer,
            Store::Peer(codec, windowed),
        ));
    };
    if full {
        peer("q8_0", Codec::Q8_0, Rule::Everything);
    }
    peer("q4_0", Codec::Q4_0, Rule::Everything);
    peer("q4_0 + Hadamard", Codec::Q4_0Hadamard, Rule::Everything);
    if full {
        peer(
            "per-token int4, G64",
            Codec::PerToken(Bits::Four),
            saw_tooth,
        );
    }
    peer("per-token int2, G64", Codec::PerToken(Bits::Two), saw_tooth);
    for (name, config) in [("KIVI-2", Config::kivi_2()), ("KIVI-4", Config::kivi_4())] {
        schemes.push(scheme(
            &format!("{name} (stock)"),
            Role::Paper,
            streaming(config),
        ));
        // With KIVI-4 this is `safe`, up to the rounding of its scales.
        if full || name == "KIVI-2" {
            let windowed = config.with_sink_len(4).with_window(sliding);
            schemes.push(scheme(
                &format!("{name} + our window, sinks"),
                Role::Paper,
                streaming(windowed),
            ));
        }
    }
    let sinks = Config::kivi_4().with_sink_len(4);
    schemes.push(scheme("KIVI-4 + 4 sinks", Role::Paper, streaming(sinks)));
    for (name, config) in [
        ("small", Config::small()),
        ("compact", Config::compact()),
        ("balanced", Config::balanced()),
        ("safe", Config::safe()),
    ] {
        schemes.push(scheme(name, Role::Ours, streaming(config)));
    }
    if full {
        let compact = Config::compact();
        for (name, config) in [
            ("compact, no sinks", compact.with_sink_len(0)),
            ("compact, no clip search", compact.with_clip_search(false)),
            ("compact, no Hadamard", compact.with_rotate_values(false)),
            (
                "compact, neither",
                compact.with_clip_search(false).with_rotate_values(false),
            ),
            ("compact, window 128", compact.with_window(sliding)),
            (
                "compact, saw-tooth 128",
                compact.with_window(Window::SawTooth { residual_len: 128 }),
            ),
            (
                "compact, integer path",
                compact.with_arithmetic(whittle_kivi::Arithmetic::Int8),
            ),
            (
                "KIVI-2, native rounding",
                Config::kivi_2().with_rounding(Rounding::Native),
            ),
        ] {
            schemes.push(scheme(name, Role::Ablation, streaming(config)));
        }
    }
    schemes.push(scheme(
        "null: history dropped, bytes of compact",
        Role::Null,
        Store::Peer(Codec::Q8_0, Rule::Drop),
    ));
    schemes.push(scheme(
        "null: random codes",
        Role::Null,
        Store::Peer(Codec::RandomCodes, windowed),
    ));
    schemes
}

/// The model, the text and how to make caches for them.
struct Setup {
    decoder: Decoder,
    tokenizer: Tokenizer,
    novel: Vec<u32>,
    second: Option<Vec<u32>>,
    shape: Shape,
}

impl Setup {
    fn load(options: &Options) -> Result<Self, Failure> {
        let model = options
            .model
            .clone()
            .unwrap_or_else(|| options.data.join("SmolLM2-135M-Instruct.Q4_1.gguf"));
        let gguf = Gguf::open(&model)?;
        let tokenizer = Tokenizer::from_gguf(&gguf)?;
        let decoder = Decoder::load(&gguf, Weights::F32)?;
        let text = options
            .text
            .clone()
            .unwrap_or_else(|| options.data.join("eighty.txt"));
        // The novel is stored with CRLF; its tokens are counted with LF, the leading U+FEFF kept.
        let read = |path: &PathBuf| -> Result<Vec<u32>, Failure> {
            let text = std::fs::read_to_string(path).map_err(|error| {
                format!("{}: {error}; `cargo xtask data` brings it", path.display())
            })?;
            Ok(tokenizer.encode(&text.replace("\r\n", "\n"))?)
        };
        let novel = read(&text)?;
        let second = options
            .full
            .then(|| read(&options.data.join("wikitext2/test.txt")))
            .transpose()?;
        let shape = Shape {
            layers: decoder.config().layers,
            query_heads: decoder.config().query_heads,
            kv_heads: decoder.config().kv_heads,
            head_dim: HeadDim::new(decoder.config().head_dim)?,
        };
        Ok(Self {
            decoder,
            tokenizer,
            novel,
            second,
            shape,
        })
    }

    fn store(&self, store: Store) -> Result<Box<dyn KvStore + Send>, Failure> {
        Ok(match store {
            Store::F16 => Box::new(PlainStore::<f16>::new(self.decoder.config().cache_shape())?),
            Store::Kivi(config) => Box::new(KiviStore(Cache::new(
                self.shape,
                Policy::uniform(config),
                &Device::Cpu,
            )?)),
            Store::Peer(codec, rule) => Box::new(PeerStore::new(
                self.shape.layers,
                self.shape.kv_heads,
                self.shape.head_dim,
                codec,
                rule,
            )),
        })
    }

    /// Elements of keys and values of `tokens` tokens.
    fn elements(&self, tokens: usize) -> usize {
        2 * tokens * self.shape.layers * self.shape.kv_heads * self.shape.head_dim.get()
    }
}

/// A stretch of text that schemes are judged on.
struct Text {
    name: &'static str,
    /// What it is, for the report.
    description: String,
    windows: Vec<Vec<u32>>,
}

fn texts(setup: &Setup, full: bool) -> Result<Vec<Text>, Failure> {
    // (name, of the second text, first tokens, tokens)
    let mut plan: Vec<(&'static str, bool, &[usize], usize)> = vec![("A", false, &[34_000], 1536)];
    if full {
        plan.push(("B", false, &[2_000, 66_000], 1536));
        plan.push(("C", false, &[20_000], 4096));
        plan.push(("8k", false, &[40_000], 8192));
        plan.push(("wiki", true, &[34_000], 1536));
    }
    let mut texts = vec![];
    for (name, second, starts, tokens) in plan {
        let text = if second {
            setup.second.as_ref()
        } else {
            Some(&setup.novel)
        };
        let Some(text) = text else { continue };
        let windows = starts
            .iter()
            .map(|&start| {
                text.get(start..start + tokens)
                    .map(<[u32]>::to_vec)
                    .ok_or_else(|| {
                        format!(
                            "text: expected at least {} tokens, found {}",
                            start + tokens,
                            text.len()
                        )
                    })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let description = format!(
            "{} tokens from {starts:?} of {}",
            tokens,
            if second {
                "WikiText-2 test"
            } else {
                "the text"
            }
        );
        texts.push(Text {
            name,
            description,
            windows,
        });
    }
    Ok(texts)
}

/// What one piece of work brings.
#[derive(Serialize, Deserialize)]
enum Outcome {
    Quality(Positions),
    Passkey(Vec<bool>),
}

/// Runs everything, prints the tables and returns the report.
///
/// # Errors
/// Missing or bad model and text, a text that is too short, any failure of a cache.
pub fn run(options: &Options) -> Result<Report, Failure> {
    let start = Instant::now();
    println!("machine: {}", machine::line(options.threads));
    let setup = Setup::load(options)?;
    println!(
        "model: {} layers, {}/{} heads of {}; text: {} tokens; loaded in {:.1} s",
        setup.shape.layers,
        setup.shape.query_heads,
        setup.shape.kv_heads,
        setup.shape.head_dim.get(),
        setup.novel.len(),
        start.elapsed().as_secs_f64()
    );
    let finished = if options.full && !options.commit.ends_with("-dirty") {
        Finished::open(&options.finished)?
    } else {
        Finished::forgetful()
    };
    let schemes = schemes(options.full);
    let command = options.command();
    let mut report = Report {
        system: "kivi".into(),
        commit: options.commit.clone(),
        machine: machine::line(options.threads),
        rows: vec![],
        plots: vec![],
    };

    let mut recall: Vec<(usize, Vec<bool>)> = vec![];
    for text in texts(&setup, options.full)? {
        // The short run asks for one passkey beside text A; the long one asks for many, in tables of their own.
        let with_passkey = text.name == "A" && !options.full;
        let cases = if with_passkey {
            cases(&setup, 1, PASSKEY_TOKENS)?
        } else {
            vec![]
        };
        let quality = measure(&setup, options, &finished, &schemes, &text, &cases)?;
        if with_passkey {
            recall = quality.recall;
        }
        let recall = if with_passkey { recall.as_slice() } else { &[] };
        print_quality(&setup, &schemes, &text, &quality.positions, recall);
        print_bars(&schemes, &text, &quality.positions);
        report_quality(
            &setup,
            &schemes,
            &text,
            &quality.positions,
            recall,
            &command,
            &mut report,
        );
    }
    if options.full {
        let some: Vec<&Scheme> = schemes.iter().filter(|scheme| scheme.passkey).collect();
        let many: Vec<&Scheme> = schemes.iter().filter(|scheme| scheme.recall()).collect();
        for (schemes, keys, tokens, prefill) in [
            (&many, PASSKEYS, PASSKEY_TOKENS, Prefill::Streaming),
            (&some, PASSKEYS / 2, PASSKEY_TOKENS, Prefill::Exact),
            (&some, PASSKEYS / 5, LONG_PASSKEY_TOKENS, Prefill::Streaming),
        ] {
            let cases = cases(&setup, keys, tokens)?;
            let asked = Asked {
                schemes,
                cases: &cases,
                tokens,
                prefill,
            };
            passkeys(&setup, options, &finished, &asked, &command, &mut report)?;
        }
        greedy(&setup, options, &finished, &schemes, &command, &mut report)?;
    }
    memory_and_speed(&setup, options.full, &command, &mut report)?;
    println!("\nall in {:.1} s", start.elapsed().as_secs_f64());
    Ok(report)
}

struct Quality {
    /// One a scheme.
    positions: Vec<Positions>,
    /// `(scheme, answers)` of those that were asked.
    recall: Vec<(usize, Vec<bool>)>,
}

/// Passkey prompts of about `tokens` tokens, each key at five depths.
fn cases(setup: &Setup, keys: u64, tokens: usize) -> Result<Vec<Case>, Failure> {
    Ok((0..keys)
        .map(|number| Case::new(&setup.tokenizer, &setup.novel, tokens, number))
        .collect::<Result<_, _>>()?)
}

fn measure(
    setup: &Setup,
    options: &Options,
    finished: &Finished,
    schemes: &[Scheme],
    text: &Text,
    cases: &[Case],
) -> Result<Quality, Failure> {
    let mut positions: Vec<Positions> = schemes.iter().map(|_| Positions::default()).collect();
    let mut recall: Vec<(usize, Vec<bool>)> = vec![];
    for (w, tokens) in text.windows.iter().enumerate() {
        let window = Judged { tokens, from: FROM };
        let mut store = setup.store(Store::F16)?;
        let (reference, of_reference) = quality::reference(&setup.decoder, &mut *store, window)?;
        let reference: &Reference = &reference;
        let mut pieces: Vec<Piece<'_, Outcome>> = vec![];
        let mut owners = vec![];
        if w == 0 {
            for (s, scheme) in schemes.iter().enumerate() {
                if !scheme.passkey {
                    continue;
                }
                for (c, cases) in cases.chunks(1).enumerate() {
                    owners.push(s);
                    pieces.push(Piece {
                        key: key(options, &format!("passkey {c}"), scheme),
                        weight: PASSKEY_TOKENS as u64 * 3,
                        run: Box::new(move || {
                            let mut store = setup.store(scheme.store)?;
                            let (decoder, prefill) = (&setup.decoder, Prefill::Streaming);
                            let answers = passkey::answers(cases, decoder, &mut *store, prefill)?;
                            Ok(Outcome::Passkey(answers.concat()))
                        }),
                    });
                }
            }
        }
        for (s, scheme) in schemes
            .iter()
            .enumerate()
            .filter(|(_, s)| s.store != Store::F16)
        {
            owners.push(s);
            pieces.push(Piece {
                key: key(options, &format!("text {} {w}", text.name), scheme),
                weight: tokens.len() as u64,
                run: Box::new(move || {
                    let mut store = setup.store(scheme.store)?;
                    let positions = quality::judge(&setup.decoder, &mut *store, window, reference)?;
                    Ok(Outcome::Quality(positions))
                }),
            });
        }
        let label = format!("text {}", text.name);
        let outcomes = work::run(&label, options.threads, finished, &pieces)?;
        positions[0].extend(of_reference);
        for (s, outcome) in owners.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Quality(found) => positions[s].extend(found),
                Outcome::Passkey(answers) => match recall.iter_mut().find(|(of, _)| *of == s) {
                    Some((_, all)) => all.extend(answers),
                    None => recall.push((s, answers)),
                },
            }
        }
    }
    Ok(Quality { positions, recall })
}

fn key(options: &Options, what: &str, scheme: &Scheme) -> String {
    format!(
        "{} {:?} {:?} {what} {}",
        options.commit, options.model, options.text, scheme.name
    )
}

/// Answers of a scheme on the cases that f16 answers, and f16's own there.
fn valid(answers: &[bool], reference: &[bool]) -> Vec<bool> {
    answers
        .iter()
        .zip(reference)
        .filter(|(_, reference)| **reference)
        .map(|(a, _)| *a)
        .collect()
}

fn print_quality(
    setup: &Setup,
    schemes: &[Scheme],
    text: &Text,
    positions: &[Positions],
    recall: &[(usize, Vec<bool>)],
) {
    println!(
        "\ntext {}: {}; teacher forcing, streaming, {} predictions from position {FROM} of each window on; f16 perplexity {}",
        text.name,
        text.description,
        positions[0].kl.len(),
        positions[0]
            .perplexities()
            .iter()
            .map(|perplexity| format!("{perplexity:.2}"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    let reference = recall
        .iter()
        .find(|(s, _)| *s == 0)
        .map(|(_, answers)| answers);
    if let Some(reference) = reference {
        let answered = reference.iter().filter(|&&right| right).count();
        let enough = answered * 10 >= reference.len() * 9;
        println!(
            "passkey: {PASSKEY_TOKENS} tokens, {} depths; f16 answers {answered} of {}{}",
            DEPTHS.len(),
            reference.len(),
            if enough {
                ""
            } else {
                ": too few, the column is not valid"
            }
        );
    }
    println!(
        "{:<40} {:>9} {:>7} {:>8} {:>8} {:>17} {:>7} {:>6} {:>8}",
        "scheme", "bits K/V", "bits@T", "ΔPPL %", "KL", "95 % CI", "p99", "top-1", "passkey"
    );
    for (s, (scheme, found)) in schemes.iter().zip(positions).enumerate() {
        let (k, v) = scheme.bits(setup.shape.head_dim);
        let Judgement { tokens, bytes, .. } = found.windows.last().copied().unwrap_or_default();
        let (low, high) = found.kl_interval();
        let passkey = reference
            .zip(recall.iter().find(|(of, _)| *of == s))
            .map(|(reference, (_, answers))| {
                let valid = valid(answers, reference);
                format!(
                    "{}/{}",
                    valid.iter().filter(|&&right| right).count(),
                    valid.len()
                )
            })
            .unwrap_or_default();
        println!(
            "{:<40} {:>9} {:>7.2} {:>+8.2} {:>8.4} {:>17} {:>7.3} {:>6.1} {:>8}",
            scheme.name,
            format!("{k}/{v}"),
            scheme.bits_at(tokens, bytes, setup.elements(tokens)),
            100.0 * (found.perplexity() / positions[0].perplexity() - 1.0),
            found.mean_kl(),
            format!("{low:.4}…{high:.4}"),
            found.p99_kl(),
            100.0 * found.top_1(),
            passkey
        );
    }
}

fn report_quality(
    setup: &Setup,
    schemes: &[Scheme],
    text: &Text,
    positions: &[Positions],
    recall: &[(usize, Vec<bool>)],
    command: &str,
    report: &mut Report,
) {
    let stock = schemes
        .iter()
        .position(|scheme| scheme.name == "KIVI-2 (stock)")
        .unwrap_or(0);
    let mut clouds: Vec<(Role, &str, Vec<Vec<serde_json::Value>>)> = vec![
        (Role::Peer, "peers", vec![]),
        (
            Role::Paper,
            "KIVI as published, and with our window",
            vec![],
        ),
        (Role::Ours, "ours", vec![]),
        (Role::Ablation, "ablations", vec![]),
        (Role::Null, "null baselines", vec![]),
    ];
    for (s, (scheme, found)) in schemes.iter().zip(positions).enumerate() {
        let Judgement { tokens, bytes, .. } = found.windows.last().copied().unwrap_or_default();
        let bits = scheme.bits_at(tokens, bytes, setup.elements(tokens));
        let (low, high) = found.kl_interval();
        let (k, v) = scheme.bits(setup.shape.head_dim);
        let parameters = json!({
            "scheme": scheme.name, "text": text.description, "from": FROM, "predictions": found.kl.len(),
            "bits_keys": k, "bits_values": v, "bits_with_window": bits, "kl_low": low, "kl_high": high,
            "store": format!("{:?}", scheme.store),
        });
        let mut row = |what: &str, unit: &str, value: f64, peer: f64| {
            let beside = (s != stock).then_some(peer);
            report.rows.push(Row {
                name: format!("{what}, text {}, {}", text.name, scheme.name),
                value,
                unit: unit.into(),
                peer: beside.map(|_| schemes[stock].name.clone()),
                peer_value: beside,
                ratio: beside.filter(|peer| *peer != 0.0).map(|peer| value / peer),
                parameters: parameters.clone(),
                seed: 0,
                command: command.into(),
            });
        };
        let beside = &positions[stock];
        row("KL", "nats", found.mean_kl(), beside.mean_kl());
        row("p99 KL", "nats", found.p99_kl(), beside.p99_kl());
        row("top-1", "share", found.top_1(), beside.top_1());
        row("perplexity", "", found.perplexity(), beside.perplexity());
        if let Some(cloud) = clouds.iter_mut().find(|(role, _, _)| *role == scheme.role) {
            cloud.2.push(vec![
                json!(bits),
                json!(found.mean_kl()),
                json!(scheme.name),
            ]);
        }
    }
    let answers = |s: usize| {
        recall
            .iter()
            .find(|(of, _)| *of == s)
            .map(|(_, answers)| answers)
    };
    if let (Some(reference), Some(peer)) = (answers(0), answers(stock)) {
        for (s, found) in recall {
            let (found, peer) = (valid(found, reference), valid(peer, reference));
            let count = |answers: &[bool]| answers.iter().filter(|&&right| right).count() as f64;
            report.rows.push(Row {
                name: format!("passkey, {}", schemes[*s].name),
                value: count(&found),
                unit: format!("right of {} that f16 answers", found.len()),
                peer: (*s != stock).then(|| schemes[stock].name.clone()),
                peer_value: (*s != stock).then(|| count(&peer)),
                ratio: None,
                parameters: json!({
                    "tokens": PASSKEY_TOKENS, "depths": DEPTHS, "keys": reference.len() / DEPTHS.len(),
                    "prefill": "streaming", "mcnemar_p_against_peer": passkey::mcnemar(&found, &peer),
                }),
                seed: 0,
                command: command.into(),
            });
        }
    }
    report.plots.push(Plot {
        title: format!(
            "Divergence from the f16 cache against bits, text {}",
            text.name
        ),
        x_label: "bits an element, window and sinks included".into(),
        y_label: "mean KL, nats".into(),
        x_log: false,
        y_log: true,
        series: clouds
            .into_iter()
            .filter(|(_, _, points)| !points.is_empty())
            .map(|(_, name, points)| Series {
                name: name.into(),
                points,
            })
            .collect(),
    });
}

/// One passkey table.
struct Asked<'a> {
    /// The first is f16.
    schemes: &'a [&'a Scheme],
    cases: &'a [Case],
    tokens: usize,
    prefill: Prefill,
}

fn passkeys(
    setup: &Setup,
    options: &Options,
    finished: &Finished,
    asked: &Asked<'_>,
    command: &str,
    report: &mut Report,
) -> Result<(), Failure> {
    let Asked {
        schemes,
        cases,
        tokens,
        prefill,
    } = *asked;
    let mut pieces: Vec<Piece<'_, Vec<Vec<bool>>>> = vec![];
    for scheme in schemes {
        let store = match scheme.store {
            Store::Kivi(config) => Store::Kivi(config.with_prefill(prefill)),
            other => other,
        };
        // Cases of a piece share the text before the key.
        for (c, cases) in cases.chunks(PASSKEYS_AT_ONCE).enumerate() {
            pieces.push(Piece {
                key: key(
                    options,
                    &format!("passkeys {tokens} {prefill:?} {c}"),
                    scheme,
                ),
                weight: cases.len() as u64,
                run: Box::new(move || {
                    let mut store = setup.store(store)?;
                    Ok(passkey::answers(
                        cases,
                        &setup.decoder,
                        &mut *store,
                        prefill,
                    )?)
                }),
            });
        }
    }
    let label = format!("passkey, {tokens} tokens");
    let answers = work::run(&label, options.threads, finished, &pieces)?;
    let all: Vec<Vec<bool>> = answers
        .chunks(cases.len().div_ceil(PASSKEYS_AT_ONCE))
        .map(|of_scheme| of_scheme.concat().concat())
        .collect();
    let answered = all[0].iter().filter(|&&right| right).count();
    let is_valid = answered * 10 >= all[0].len() * 9;
    println!(
        "\npasskey: {tokens} tokens, {} keys × {} depths, {prefill:?} prefill; f16 answers {answered} of {}{}; of those:",
        cases.len(),
        DEPTHS.len(),
        all[0].len(),
        if is_valid {
            ""
        } else {
            " (too few: not valid)"
        }
    );
    let of = |name: &str| schemes.iter().position(|scheme| scheme.name == name);
    let beside: Vec<(&str, usize)> = [
        "KIVI-2 (stock)",
        "q4_0 + Hadamard",
        "null: history dropped, bytes of compact",
    ]
    .into_iter()
    .filter_map(|name| of(name).map(|at| (name, at)))
    .collect();
    for (scheme, found) in schemes.iter().zip(&all) {
        let mine = valid(found, &all[0]);
        let right = mine.iter().filter(|&&right| right).count();
        let tests: Vec<(String, f64)> = beside
            .iter()
            .filter(|(name, _)| *name != scheme.name)
            .map(|&(name, at)| {
                (
                    name.to_owned(),
                    passkey::mcnemar(&mine, &valid(&all[at], &all[0])),
                )
            })
            .collect();
        let shown: Vec<String> = tests
            .iter()
            .map(|(name, p)| format!("{name} p={p:.3}"))
            .collect();
        println!(
            "{:<40} {right:>3}/{:<3}  McNemar: {}",
            scheme.name,
            mine.len(),
            shown.join(", ")
        );
        report.rows.push(Row {
            name: format!("passkey, {tokens} tokens, {prefill:?}, {}", scheme.name),
            value: right as f64,
            unit: format!("right of {} that f16 answers", mine.len()),
            peer: None,
            peer_value: None,
            ratio: None,
            parameters: json!({
                "tokens": tokens, "depths": DEPTHS, "keys": cases.len(), "prefill": format!("{prefill:?}"),
                "valid": is_valid, "mcnemar_p": tests, "store": format!("{:?}", scheme.store),
            }),
            seed: 0,
            command: command.into(),
        });
    }
    Ok(())
}

/// How many greedily decoded tokens stay those of the f16 cache.
fn greedy(
    setup: &Setup,
    options: &Options,
    finished: &Finished,
    schemes: &[Scheme],
    command: &str,
    report: &mut Report,
) -> Result<(), Failure> {
    let (tokens, prompt) = GREEDY;
    let start = 34_000;
    let prompt = setup
        .novel
        .get(start..start + prompt)
        .ok_or("text: too short for a prompt")?;
    let pieces: Vec<Piece<'_, Vec<u32>>> = schemes
        .iter()
        .map(|scheme| Piece {
            key: key(options, "greedy", scheme),
            weight: 1,
            run: Box::new(move || {
                let mut store = setup.store(scheme.store)?;
                Ok(quality::greedy(
                    &setup.decoder,
                    &mut *store,
                    prompt,
                    tokens,
                )?)
            }),
        })
        .collect();
    let all = work::run("greedy decoding", options.threads, finished, &pieces)?;
    println!(
        "\ngreedy decoding of {tokens} tokens after {} tokens: equal to f16 up to",
        prompt.len()
    );
    for (scheme, found) in schemes.iter().zip(&all) {
        let equal = found
            .iter()
            .zip(&all[0])
            .take_while(|(a, b)| a == b)
            .count();
        println!("{:<40} {equal:>4}", scheme.name);
        report.rows.push(Row {
            name: format!("greedy divergence length, {}", scheme.name),
            value: equal as f64,
            unit: format!("of {tokens} tokens"),
            peer: None,
            peer_value: None,
            ratio: None,
            parameters: json!({"prompt": prompt.len(), "from": start, "store": format!("{:?}", scheme.store)}),
            seed: 0,
            command: command.into(),
        });
    }
    Ok(())
}

/// What the method promises on a text, and whether it holds.
fn print_bars(schemes: &[Scheme], text: &Text, positions: &[Positions]) {
    let find = |name: &str| schemes.iter().position(|scheme| scheme.name == name);
    let kl = |name: &str| find(name).map_or(f64::NAN, |s| positions[s].mean_kl());
    let p99 = |name: &str| find(name).map_or(f64::NAN, |s| positions[s].p99_kl());
    let bar = |what: &str, figure: f64, holds: bool| {
        println!(
            "  {what}: {figure:.4} {}",
            if holds { "holds" } else { "MISSED" }
        );
    };
    let (stock, null) = ("KIVI-2 (stock)", "null: history dropped, bytes of compact");
    let published = match text.name {
        "A" => 0.154,
        "B" => 0.205,
        "C" => 0.257,
        _ => return,
    };
    println!("bars on text {}:", text.name);
    let ratio = kl(stock) / published;
    bar(
        "stock KIVI-2 over its published KL, within 10 %",
        ratio,
        (ratio - 1.0).abs() <= 0.1,
    );
    let ratio = kl("compact") / kl(stock);
    let most = if text.name == "C" { 0.25 } else { 1.0 / 3.0 };
    bar(
        &format!("compact over stock KIVI-2, at most {most:.3}"),
        ratio,
        ratio <= most,
    );
    if text.name == "A" {
        let ratio = kl("small") / kl(stock);
        bar("small over stock KIVI-2, at most 0.4", ratio, ratio <= 0.4);
        for (name, most) in [
            ("balanced", 0.016),
            ("KIVI-4 (stock)", 0.004),
            ("KIVI-4 + 4 sinks", 0.0025),
        ] {
            bar(
                &format!("{name}, at most {most}"),
                kl(name),
                kl(name) <= most,
            );
        }
    }
    for name in ["small", "compact", "balanced", "safe"] {
        let holds = kl(name) < kl(null) && p99(name) < p99(null);
        bar(
            &format!("{name} over the null (KL; p99 below it too)"),
            kl(name) / kl(null),
            holds,
        );
    }
}

/// Bytes against context, and the time of one decoding step's attention, on random rows in the model's shape.
fn memory_and_speed(
    setup: &Setup,
    full: bool,
    command: &str,
    report: &mut Report,
) -> Result<(), Failure> {
    let context = if full { 8192 } else { 4096 };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let stores = [
        ("f16", Store::F16),
        (
            "KIVI-2 (stock)",
            Store::Kivi(Config::kivi_2().with_prefill(Prefill::Streaming)),
        ),
        ("compact", Store::Kivi(Config::compact())),
        ("balanced", Store::Kivi(Config::balanced())),
    ];
    let mut curves = vec![];
    let mut lines = vec![];
    let bar = indicatif::ProgressBar::new(stores.len() as u64).with_message("memory and speed");
    for (name, kind) in stores {
        let mut store = setup.store(kind)?;
        let sequence = store.sequence()?;
        let mut points = vec![];
        // Each store on all threads while it grows, on one while it is timed.
        while store.len(sequence)? < context {
            grow(setup, &mut *store, sequence, 512)?;
            points.push((store.len(sequence)?, store.bytes()));
        }
        let before = store.bytes();
        let mut steps = vec![];
        for _ in 0..5 {
            steps.push(pool.install(|| step(setup, &mut *store, sequence))?);
        }
        steps.sort_by(f64::total_cmp);
        lines.push((name, before, steps[2], steps[0], steps[4]));
        curves.push(Series {
            name: name.into(),
            points: points
                .into_iter()
                .map(|(tokens, bytes)| vec![json!(tokens), json!(bytes as f64 / 1e6)])
                .collect(),
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let bandwidth = machine::read_bandwidth(lines[0].1);
    println!(
        "\nmemory at {context} tokens and attention of one decoding step, all layers, one thread; read bandwidth of the same \
         thread over {:.0} MB: {bandwidth:.1} GB/s",
        lines[0].1 as f64 / 1e6
    );
    println!(
        "{:<40} {:>9} {:>7} {:>9} {:>17} {:>7} {:>11} {:>6}",
        "scheme", "MB", "× less", "ms", "min…max", "GB/s", "% bandwidth", "× f16"
    );
    let (f16_bytes, f16_ms) = (lines[0].1 as f64, lines[0].2);
    for &(name, bytes, ms, low, high) in &lines {
        let speed = bytes as f64 / ms / 1e6;
        println!(
            "{name:<40} {:>9.1} {:>7.2} {ms:>9.2} {:>17} {speed:>7.2} {:>11.0} {:>6.2}",
            bytes as f64 / 1e6,
            f16_bytes / bytes as f64,
            format!("{low:.2}…{high:.2}"),
            100.0 * speed / bandwidth,
            f16_ms / ms
        );
        let mut row = |what: &str, unit: &str, value: f64, peer: f64, parameters| {
            report.rows.push(Row {
                name: format!("{what}, {name}"),
                value,
                unit: unit.into(),
                peer: Some("f16".into()),
                peer_value: Some(peer),
                ratio: Some(value / peer),
                parameters,
                seed: 0,
                command: command.into(),
            });
        };
        row(
            "bytes",
            "bytes",
            bytes as f64,
            f16_bytes,
            json!({"tokens": context}),
        );
        row(
            "attention of one step",
            "ms",
            ms,
            f16_ms,
            json!({
                "tokens": context, "layers": setup.shape.layers, "threads": 1, "min": low, "max": high,
                "read_bandwidth_gb_s": bandwidth, "footprint_bytes": bytes,
            }),
        );
    }
    println!(
        "these caches fit in a large last-level cache, and attention is not tuned yet: read the times as they are"
    );
    report.plots.push(Plot {
        title: "Memory against context, all layers".into(),
        x_label: "tokens".into(),
        y_label: "MB".into(),
        x_log: false,
        y_log: false,
        series: curves,
    });
    Ok(())
}

fn rows(setup: &Setup, tokens: usize, heads: usize, seed: u64) -> Result<Tensor, Failure> {
    let shape = [tokens, heads, setup.shape.head_dim.get()];
    Ok(Tensor::randn(&shape, seed, 0, &Device::Cpu)?)
}

/// Appends random rows to all layers.
fn grow(
    setup: &Setup,
    store: &mut (dyn KvStore + Send),
    sequence: SequenceId,
    tokens: usize,
) -> Result<(), Failure> {
    let spans = [Span { sequence, tokens }];
    let seed = store.len(sequence)? as u64;
    let (k, v) = (
        rows(setup, tokens, setup.shape.kv_heads, seed)?,
        rows(setup, tokens, setup.shape.kv_heads, !seed)?,
    );
    let one = rows(setup, 0, setup.shape.query_heads, seed)?;
    for layer in 0..setup.shape.layers {
        store.append(layer, &spans, &k, &v)?;
        // No queries: attention is where a cache lets go of what left its window.
        store.attend(
            layer,
            &[Span {
                sequence,
                tokens: 0,
            }],
            &one,
            0.125,
            Visible::Causal,
        )?;
    }
    Ok(())
}

/// Milliseconds of attention of one more token, over all layers; its append is not timed.
fn step(
    setup: &Setup,
    store: &mut (dyn KvStore + Send),
    sequence: SequenceId,
) -> Result<f64, Failure> {
    let spans = [Span {
        sequence,
        tokens: 1,
    }];
    let (k, q) = (
        rows(setup, 1, setup.shape.kv_heads, 7)?,
        rows(setup, 1, setup.shape.query_heads, 8)?,
    );
    let mut seconds = 0.0;
    for layer in 0..setup.shape.layers {
        store.append(layer, &spans, &k, &k)?;
        let start = Instant::now();
        store.attend(layer, &spans, &q, 0.125, Visible::Causal)?;
        seconds += start.elapsed().as_secs_f64();
    }
    Ok(seconds * 1e3)
}
