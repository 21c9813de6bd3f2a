//! The machine that a figure comes from.

use std::{fs, time::Instant};

/// Processor, instruction sets that matter here, cores, threads in use and load average.
pub fn line(threads: usize) -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim())
            .unwrap_or("unknown")
    };
    let known = [
        "avx2",
        "fma",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "amx_bf16",
        "amx_int8",
    ];
    let flags: Vec<&str> = field("flags")
        .split(' ')
        .filter(|flag| known.contains(flag))
        .collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    format!(
        "{}; {}; {cores} cores, {threads} threads; load {load}",
        field("model name"),
        flags.join(" ")
    )
}

/// Read bandwidth in GB/s over a buffer of `bytes`, median of five passes on the calling thread.
pub fn read_bandwidth(bytes: usize) -> f64 {
    let buffer = vec![1u64; bytes / 8];
    let mut passes: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            let mut sums = [0u64; 32];
            for chunk in std::hint::black_box(&buffer).chunks_exact(32) {
                sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum ^= x);
            }
            std::hint::black_box(sums);
            bytes as f64 / start.elapsed().as_secs_f64() / 1e9
        })
        .collect();
    passes.sort_by(f64::total_cmp);
    passes[2]
}
