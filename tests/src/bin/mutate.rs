//! Judges the mutants of every kernel: `mutate (--quick | --all) [NAME]`. `cargo xtask mutate` starts it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use whittle_tensor::kernel::Kernel;
use whittle_tests::judge::{Bench, Verdict};
use whittle_tests::mutate::{Mutant, mutants};
use whittle_tests::parity::bodies;
use whittle_tests::survivor::Survivors;

/// Mutants of a kernel that `--quick` judges.
const SAMPLE: usize = 24;
/// Mutants of each rule of equivalence and kernel that are judged all the same, to see that it holds. All of them would take hours:
/// what nothing notices runs through every body to its end.
const RULE_SAMPLE: usize = 2;
/// The least number of mutants of a kernel.
const LEAST: usize = 20;
/// The least share of a kernel's mutants that a comparison must notice, of those that must differ.
const KILLED: f64 = 0.95;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (all, only) = match words.as_slice() {
        [how @ ("--quick" | "--all")] => (*how == "--all", ""),
        [how @ ("--quick" | "--all"), only] => (*how == "--all", *only),
        _ => {
            eprintln!("usage: mutate (--quick | --all) [NAME]");
            return ExitCode::from(2);
        }
    };
    match run(all, only) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}

/// A kernel, its tests, and what was made of it.
struct Subject {
    /// The file, from the root of the repository.
    path: String,
    bench: Bench,
    mutants: Vec<Mutant>,
    /// Which of the mutants are judged to see that nothing notices them, as a rule of equivalence says.
    equivalent: BTreeSet<usize>,
    /// How many of all mutants the rules speak of.
    by_rule: usize,
}

/// A mutant that was judged.
struct Judged {
    subject: usize,
    mutant: usize,
    verdict: Verdict,
}

fn run(all: bool, only: &str) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let survivors = read_survivors(&root)?;
    // A body that notices a mutant panics; that is no news.
    std::panic::set_hook(Box::new(|_| {}));
    let mut problems = Vec::new();
    let mut subjects = subjects(&root, only, &survivors, &mut problems)?;
    if subjects.is_empty() && problems.is_empty() {
        return Err(format!("no kernel begins with `{only}`"));
    }
    for subject in &mut subjects {
        let made = subject.mutants.len() - subject.equivalent.len() + subject.by_rule;
        if made < LEAST {
            problems.push(format!(
                "{}: expected at least {LEAST} mutants, found {made}",
                subject.path
            ));
        }
        if !all {
            sample(subject);
        }
    }
    let judged = judge_all(&subjects);
    let mut used = BTreeSet::new();
    println!("{}", table(&subjects, &judged));
    for judged in &judged {
        let subject = &subjects[judged.subject];
        let mutant = &subject.mutants[judged.mutant];
        let is_rule = subject.equivalent.contains(&judged.mutant);
        let what = match (&judged.verdict, mutant.operator.faults) {
            (Verdict::Survived, _) if is_rule => continue,
            (Verdict::Faulted(_) | Verdict::Differed, _) if is_rule => {
                "is not equivalent, as a rule says"
            }
            (Verdict::Refused(_), _) | (Verdict::Faulted(_), _) | (Verdict::Differed, false) => {
                continue;
            }
            (Verdict::Differed, true) => "differs and does not fault",
            (Verdict::Survived, _) => "survives",
        };
        let entry = subject.bench.kernel.entry();
        let reason = survivors
            .survivor
            .iter()
            .position(|survivor| survivor.holds(entry, mutant));
        match reason.filter(|_| !is_rule) {
            Some(at) => {
                used.insert(at);
                println!(
                    "  {}:{mutant} {what}: {}",
                    subject.path, survivors.survivor[at].reason
                );
            }
            None => problems.push(format!("{}:{mutant} {what}", subject.path)),
        }
    }
    if all {
        problems.extend(shares(&subjects, &judged));
        for (at, survivor) in survivors.survivor.iter().enumerate() {
            if only.is_empty() && !used.contains(&at) {
                let (operator, line) = (&survivor.operator, &survivor.line);
                problems.push(format!(
                    "survivors.toml: {operator}: `{line}`: no such survivor"
                ));
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!(
        "mutate: {} problems\n{}",
        problems.len(),
        problems.join("\n")
    ))
}

/// The files of all crates as one.
fn read_survivors(root: &Path) -> Result<Survivors, String> {
    let mut whole = Survivors::default();
    for folder in folders(&root.join("ptx"))? {
        let path = folder.join("survivors.toml");
        if path.exists() {
            let shown = |error: String| format!("{}: {error}", path.display());
            let text = std::fs::read_to_string(&path).map_err(|error| shown(error.to_string()))?;
            let survivors = Survivors::parse(&text).map_err(shown)?;
            whole.equivalent.extend(survivors.equivalent);
            whole.survivor.extend(survivors.survivor);
        }
    }
    Ok(whole)
}

/// The folders in a folder, in order.
fn folders(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    Ok(folders)
}

/// Every kernel that a body judges, with its mutants; one that does not pass as it is becomes a problem.
fn subjects(
    root: &Path,
    only: &str,
    survivors: &Survivors,
    problems: &mut Vec<String>,
) -> Result<Vec<Subject>, String> {
    let mut kernels: BTreeMap<&str, &Kernel> = BTreeMap::new();
    let bodies = bodies();
    for body in &bodies {
        for kernel in body
            .kernels
            .iter()
            .filter(|kernel| kernel.entry().starts_with(only))
        {
            kernels.insert(kernel.entry(), kernel);
        }
    }
    let mut subjects = Vec::new();
    for (entry, kernel) in kernels {
        let name = format!("src/ptx/{entry}.ptx");
        let folder = folders(&root.join("crates"))?
            .into_iter()
            .find(|folder| folder.join(&name).exists())
            .ok_or_else(|| format!("{entry}: expected crates/*/{name}, found no such file"))?;
        let folder = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let path = format!("crates/{folder}/{name}");
        let bench = match Bench::new(kernel, &bodies) {
            Ok(bench) => bench,
            Err(error) => {
                problems.push(format!("{path}: {error}"));
                continue;
            }
        };
        let mut kept = Vec::new();
        let mut equivalent = BTreeSet::new();
        let mut of_rule = vec![0; survivors.equivalent.len()];
        for mutant in mutants(kernel.ptx()) {
            let rules = &survivors.equivalent;
            if let Some(rule) = rules.iter().position(|rule| rule.holds(entry, &mutant)) {
                of_rule[rule] += 1;
                if of_rule[rule] > RULE_SAMPLE {
                    continue;
                }
                equivalent.insert(kept.len());
            }
            kept.push(mutant);
        }
        subjects.push(Subject {
            path,
            bench,
            mutants: kept,
            by_rule: of_rule.iter().sum(),
            equivalent,
        });
    }
    Ok(subjects)
}

/// Keeps some mutants of every operator in turn, each time the same ones.
fn sample(subject: &mut Subject) {
    let mut of: BTreeMap<&str, Vec<(u64, usize)>> = BTreeMap::new();
    for (at, mutant) in subject.mutants.iter().enumerate() {
        if !subject.equivalent.contains(&at) {
            let key = random(subject.path.len() as u64 * 1_000_003 + at as u64);
            of.entry(mutant.operator.name).or_default().push((key, at));
        }
    }
    let mut queues: Vec<Vec<(u64, usize)>> = of.into_values().collect();
    for queue in &mut queues {
        queue.sort_unstable();
    }
    // Operators in an order of the kernel's own, so that all kernels together try all of them.
    queues.sort_by_key(|queue| queue[0].0);
    let mut chosen = BTreeSet::new();
    for turn in 0.. {
        let before = chosen.len();
        for queue in &queues {
            if chosen.len() < SAMPLE {
                chosen.extend(queue.get(turn).map(|(_, at)| *at));
            }
        }
        if chosen.len() == before || chosen.len() >= SAMPLE {
            break;
        }
    }
    subject.mutants = chosen
        .iter()
        .map(|at| subject.mutants[*at].clone())
        .collect();
    subject.equivalent.clear();
}

/// SplitMix64's output function.
fn random(seed: u64) -> u64 {
    let x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Judges every mutant, on as many threads as the machine has.
fn judge_all(subjects: &[Subject]) -> Vec<Judged> {
    let work: Vec<(usize, usize)> = subjects
        .iter()
        .enumerate()
        .flat_map(|(subject, of)| (0..of.mutants.len()).map(move |mutant| (subject, mutant)))
        .collect();
    let next = AtomicUsize::new(0);
    let judge = || {
        let mut judged = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(subject, mutant)) = work.get(at) else {
                return judged;
            };
            if at > 0 && at.is_multiple_of(1000) {
                eprintln!("  {at} of {} mutants", work.len());
            }
            let bench = &subjects[subject].bench;
            let text = subjects[subject].mutants[mutant].text(bench.kernel.ptx());
            let verdict = bench.judge(&text);
            judged.push(Judged {
                subject,
                mutant,
                verdict,
            });
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut judged: Vec<Judged> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(judge)).collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results.flat_map(Result::unwrap_or_default).collect()
    });
    judged.sort_by_key(|judged| (judged.subject, judged.mutant));
    judged
}

/// What became of a kernel's mutants.
#[derive(Default)]
struct Counts {
    must_fault: usize,
    faulted: usize,
    must_differ: usize,
    noticed: usize,
    refused: usize,
}

fn counts(subject: usize, subjects: &[Subject], judged: &[Judged]) -> Counts {
    let mut counts = Counts::default();
    let of = &subjects[subject];
    for judged in judged.iter().filter(|judged| judged.subject == subject) {
        let faults = of.mutants[judged.mutant].operator.faults;
        let is_rule = of.equivalent.contains(&judged.mutant);
        let is_fault = matches!(judged.verdict, Verdict::Faulted(_));
        match judged.verdict {
            _ if is_rule => {}
            Verdict::Refused(_) => counts.refused += 1,
            _ if faults => {
                counts.must_fault += 1;
                counts.faulted += usize::from(is_fault);
            }
            _ => {
                counts.must_differ += 1;
                counts.noticed += usize::from(judged.verdict != Verdict::Survived);
            }
        }
    }
    counts
}

/// A line for each kernel, and one for all.
fn table(subjects: &[Subject], judged: &[Judged]) -> String {
    let mut text = format!(
        "{:<24}{:>16}{:>16}{:>12}{:>9}\n",
        "kernel", "faulted", "noticed", "equivalent", "refused"
    );
    let mut sum = Counts::default();
    let mut by_rule = 0;
    let mut line = |name: &str, counts: &Counts, by_rule: usize| {
        let faulted = format!("{} of {}", counts.faulted, counts.must_fault);
        let noticed = format!("{} of {}", counts.noticed, counts.must_differ);
        text.push_str(&format!(
            "{name:<24}{faulted:>16}{noticed:>16}{by_rule:>12}{:>9}\n",
            counts.refused
        ));
    };
    for (at, subject) in subjects.iter().enumerate() {
        let counts = counts(at, subjects, judged);
        line(subject.bench.kernel.entry(), &counts, subject.by_rule);
        sum.must_fault += counts.must_fault;
        sum.faulted += counts.faulted;
        sum.must_differ += counts.must_differ;
        sum.noticed += counts.noticed;
        sum.refused += counts.refused;
        by_rule += subject.by_rule;
    }
    line("all", &sum, by_rule);
    let share = |of: usize| 100.0 * sum.noticed as f64 / of.max(1) as f64;
    text.push_str(&format!(
        "noticed: {:.1} %; {:.1} % where those of the rules of equivalence are counted as mutants that nothing notices\n",
        share(sum.must_differ),
        share(sum.must_differ + by_rule)
    ));
    text
}

/// Kernels of whose mutants too few were noticed.
fn shares(subjects: &[Subject], judged: &[Judged]) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, subject) in subjects.iter().enumerate() {
        let Counts {
            must_differ,
            noticed,
            ..
        } = counts(at, subjects, judged);
        if (noticed as f64) < KILLED * must_differ as f64 {
            problems.push(format!(
                "{}: expected {:.0} % of {must_differ} mutants to be noticed, found {noticed}",
                subject.path,
                100.0 * KILLED
            ));
        }
    }
    problems
}
