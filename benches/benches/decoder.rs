//! Prefill and decoding of the default model with each form of the weights, one after the other in each round, so that what slows
//! the machine down meets all of them.
//!
//! `cargo bench -p whittle-benches --bench decoder -- [rounds] [threads]`; `data/` has to hold the model.

use std::path::Path;
use std::time::Instant;
use whittle_benches::machine;
use whittle_llama::{Decoder, Gguf, KvStore, Result, SequenceId, Weights, cache::PlainStore};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Tokens of a prompt that is timed, as one chunk of 512 after the other.
const PREFILL: usize = 1024;
/// Contexts that decoding starts from.
const CONTEXTS: [usize; 2] = [128, 1500];
/// Tokens that are decoded and timed together.
const DECODE: usize = 16;

/// A model in one form, with a sequence at each context.
struct Subject {
    name: &'static str,
    decoder: Decoder,
    store: PlainStore<half::f16>,
    sequences: Vec<(usize, SequenceId)>,
    /// Tokens a second of prefill, then of decoding at each context.
    speeds: Vec<Vec<f64>>,
}

impl Subject {
    fn new(name: &'static str, gguf: &Gguf, weights: Weights) -> Result<Self> {
        let decoder = Decoder::load(gguf, weights)?;
        let mut store = PlainStore::new(decoder.config().cache_shape())?;
        let mut sequences = vec![];
        for context in CONTEXTS {
            let sequence = store.sequence()?;
            decoder.prefill(&mut store, sequence, &tokens(context), 512, &mut |_| ())?;
            sequences.push((context, sequence));
        }
        Ok(Self {
            name,
            decoder,
            store,
            sequences,
            speeds: vec![vec![]; 1 + CONTEXTS.len()],
        })
    }

    fn round(&mut self) -> Result<()> {
        let sequence = self.store.sequence()?;
        let start = Instant::now();
        let prompt = tokens(PREFILL);
        let hidden = self
            .decoder
            .prefill(&mut self.store, sequence, &prompt, 512, &mut |_| ())?;
        self.decoder.logits(&hidden)?;
        self.speeds[0].push(PREFILL as f64 / start.elapsed().as_secs_f64());
        self.store.free(sequence)?;
        for (&(context, sequence), speeds) in self.sequences.iter().zip(&mut self.speeds[1..]) {
            let start = Instant::now();
            for &token in &tokens(DECODE) {
                self.decoder.step(&mut self.store, &[(sequence, token)])?;
            }
            speeds.push(DECODE as f64 / start.elapsed().as_secs_f64());
            self.store.truncate(sequence, context)?;
        }
        Ok(())
    }
}

/// Any tokens: the work does not depend on them.
fn tokens(len: usize) -> Vec<u32> {
    (0..len as u32)
        .map(|i| (i * 7919 + i * i * 31) % 49_000)
        .collect()
}

/// Median, least and greatest.
fn summary(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (
        sorted[sorted.len() / 2],
        sorted[0],
        sorted[sorted.len() - 1],
    )
}

fn main() -> Result<(), Failure> {
    // Cargo adds flags of its own.
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|word| word.parse().ok());
    let rounds: usize = numbers.next().unwrap_or(7);
    let threads: usize = numbers
        .next()
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        eprintln!(
            "SKIPPED decoder: needs {}; run `cargo xtask data`",
            path.display()
        );
        return Ok(());
    }
    let gguf = Gguf::open(&path)?;
    let mut subjects = [
        Subject::new("blocks", &gguf, Weights::Blocks)?,
        Subject::new("f32", &gguf, Weights::F32)?,
        Subject::new("integer", &gguf, Weights::Integer)?,
    ];
    println!("machine: {}", machine::line(threads));
    for round in 0..=rounds {
        for subject in &mut subjects {
            subject.round()?;
            if round == 0 {
                // What is loaded and allocated the first time is not measured.
                subject.speeds.iter_mut().for_each(Vec::clear);
            }
        }
    }
    println!("machine: {}", machine::line(threads));
    println!(
        "{:<22} {:<8} {:>9} {:>19} {:>9}",
        "", "weights", "tokens/s", "least…most", "× blocks"
    );
    for at in 0..=CONTEXTS.len() {
        let what = match at.checked_sub(1) {
            None => format!("prefill of {PREFILL}"),
            Some(context) => format!("decode at {}", CONTEXTS[context]),
        };
        let (blocks, ..) = summary(&subjects[0].speeds[at]);
        for subject in &subjects {
            let (median, least, most) = summary(&subject.speeds[at]);
            println!(
                "{what:<22} {:<8} {median:>9.1} {:>19} {:>9.2}",
                subject.name,
                format!("{least:.1}…{most:.1}"),
                median / blocks
            );
        }
    }
    Ok(())
}
