//! Looks for trouble for as long as it is told to, on every core, and writes down what it did.
//!
//! `SEAWALL_PROVE_SECONDS` says how long (60), `SEAWALL_PROVE_REPORT` where the report goes
//! (`target/prove-report.md`). `cargo xtask prove` sets both.

use seawall_tests::exhaustive::{Exhaustive, Explored, setups};
use seawall_tests::runner::{Failure, LAYERS, Layer, Tally, commit, number, run_seeds, run_small};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Operations of the longest workloads that are run one and all.
const OPERATIONS_MAX: u32 = 7;
/// Each layer of the simulator gets as much time, and so do the small workloads.
const PARTS: u32 = 5;
/// How deep recoveries are crashed there.
const DEPTH: u32 = 4;

fn main() -> ExitCode {
    let seconds = number("SEAWALL_PROVE_SECONDS").unwrap_or(60);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // A seed of one's own begins elsewhere than the last time; 0 begins where the tests do.
    let first = number("SEAWALL_PROVE_FIRST").unwrap_or(1_000_000);
    let part = Duration::from_secs(seconds) / PARTS;
    let mut report = format!(
        "# What was proved\n\nCommit {}, {} {}, {cores} cores, {seconds} s asked for, \
         seeds from {first}.\n\n\
         | layer | seeds | recoveries | each core and second | states | nested | told |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
        commit(),
        std::env::consts::OS,
        std::env::consts::ARCH,
    );
    let mut failures = Vec::new();
    for layer in LAYERS {
        let started = Instant::now();
        let (tally, failed) = on_all_cores(layer, first, cores, part);
        failures.extend(failed.iter().map(ToString::to_string));
        let rate = each_core(tally.recoveries, started.elapsed(), cores);
        let Tally { seeds, recoveries, states, deepest, told } = tally;
        let line = format!(
            "| {} | {seeds} | {recoveries} | {rate} | {states} | {deepest} | {told} |",
            layer.name()
        );
        println!("{line}");
        let _ = writeln!(report, "{line}");
    }
    report += "\nSmall workloads, every outcome of every crash:\n\n\
               | settings | workloads | all up to | crashes | states | recoveries | each second |\n\
               | --- | --- | --- | --- | --- | --- | --- |\n";
    for (line, failed) in small(part) {
        println!("{line}");
        let _ = writeln!(report, "{line}");
        failures.extend(failed);
    }
    let _ = writeln!(report, "\nFailures: {}\n", failures.len());
    for failure in &failures {
        println!("{failure}");
        let _ = writeln!(report, "```text\n{failure}\n```\n");
    }
    write_report(&report);
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn each_core(count: u64, elapsed: Duration, cores: usize) -> u64 {
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000_000) / micros / cores as u64
}

fn on_all_cores(layer: Layer, first: u64, cores: usize, limit: Duration) -> (Tally, Vec<Failure>) {
    let started = Instant::now();
    std::thread::scope(|scope| {
        let stride = cores as u64;
        let runs: Vec<_> = (first..first + stride)
            .map(|first| {
                scope
                    .spawn(move || run_seeds(layer, (first, stride), |_| started.elapsed() > limit))
            })
            .collect();
        let mut all = (Tally::default(), Vec::new());
        for run in runs {
            let (tally, failure) = run.join().expect("what panics in a world is caught");
            all.0 += tally;
            all.1.extend(failure.map(|failure| *failure));
        }
        all
    })
}

/// Small workloads under each of their settings, side by side.
fn small(limit: Duration) -> Vec<(String, Option<String>)> {
    std::thread::scope(|scope| {
        let runs: Vec<_> = setups()
            .map(|setup| {
                scope.spawn(move || {
                    let started = Instant::now();
                    let mut exhaustive = Exhaustive::new(setup, DEPTH);
                    let ended = run_small(&mut exhaustive, OPERATIONS_MAX, limit);
                    let Explored { workloads, crashes, states, recoveries, .. } =
                        exhaustive.explored();
                    let rate = each_core(recoveries, started.elapsed(), 1);
                    let reserved = if setup.preallocate { "reserved" } else { "plain" };
                    let all = ended.as_ref().map_or_else(|_| "-".to_owned(), u32::to_string);
                    let line = format!(
                        "| {reserved} | {workloads} | {all} | {crashes} | {states} | \
                         {recoveries} | {rate} |"
                    );
                    (line, ended.err())
                })
            })
            .into_iter()
            .collect();
        let join = |run: std::thread::ScopedJoinHandle<'_, _>| run.join().expect("caught inside");
        runs.into_iter().map(join).collect()
    })
}

fn write_report(report: &str) {
    let path = std::env::var("SEAWALL_PROVE_REPORT")
        .unwrap_or_else(|_| "target/prove-report.md".to_owned());
    if let Some(folder) = std::path::Path::new(&path).parent() {
        // If it cannot be made, writing says so.
        let _ = std::fs::create_dir_all(folder);
    }
    std::fs::write(&path, report).unwrap_or_else(|error| panic!("{path}: {error}"));
    println!("report: {path}");
}
