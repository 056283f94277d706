//! All small workloads, crashed at every command with every outcome.
//!
//! `SEAWALL_OPERATIONS=5` runs those of up to five operations; `cargo xtask prove` goes on to them.

use seawall_tests::exhaustive::{Exhaustive, setups};
use seawall_tests::runner::{number, run_small};
use std::time::{Duration, Instant};

/// Operations of the longest workloads in every run.
const OPERATIONS: u32 = 4;
/// How deep recoveries are crashed.
const DEPTH: u32 = 3;

fn run(which: usize) {
    let operations = number("SEAWALL_OPERATIONS").and_then(|n| u32::try_from(n).ok());
    let started = Instant::now();
    let mut exhaustive = Exhaustive::new(setups()[which], DEPTH);
    let operations = operations.unwrap_or(OPERATIONS);
    let ended = run_small(&mut exhaustive, operations, Duration::MAX);
    let seconds = started.elapsed().as_secs_f64();
    println!("up to {operations} operations: {:?} in {seconds:.1} s", exhaustive.explored());
    assert_eq!(ended, Ok(operations));
    assert!(exhaustive.explored().deepest == DEPTH, "recoveries were crashed in recoveries");
}

#[test]
fn every_crash_of_every_small_workload() {
    run(0);
}

#[test]
fn every_crash_of_every_small_workload_in_reserved_space() {
    run(1);
}
