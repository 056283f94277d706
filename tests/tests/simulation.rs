//! Seeds, crashes and faults. `SEAWALL_SEED=n cargo test -p seawall-tests --test simulation` runs
//! one seed alone; `SEAWALL_PROVE_SECONDS=n` runs new seeds for so long.

use seawall_tests::world::World;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Steps that each seed lives through.
const STEPS: u64 = 400;
/// Seeds that every run goes through.
const SEEDS: u64 = 3_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn live(seed: u64, fault_one_in: u64) -> u64 {
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed);
        world.fault_one_in = fault_one_in;
        world.live(STEPS);
        world.fault_one_in = 0;
        world.fall(true);
        world.recoveries
    }));
    lived.unwrap_or_else(|_| {
        panic!("seed {seed}: replay with SEAWALL_SEED={seed} and the name of this test")
    })
}

fn run(name: &str, fault_one_in: u64) {
    if let Some(seed) = number("SEAWALL_SEED") {
        live(seed, fault_one_in);
        return;
    }
    let started = Instant::now();
    let seconds = number("SEAWALL_PROVE_SECONDS").map(Duration::from_secs);
    let mut recoveries = 0;
    let mut seed = 0;
    while seed < SEEDS || seconds.is_some_and(|seconds| started.elapsed() < seconds) {
        recoveries += live(seed, fault_one_in);
        seed += 1;
    }
    let elapsed = started.elapsed().as_secs_f64();
    println!("{name}: {seed} seeds, {recoveries} recoveries, {elapsed:.1} s");
}

#[test]
fn crashes_at_any_moment_lose_nothing() {
    run("crashes", 0);
}

#[test]
fn faults_and_crashes_lose_nothing() {
    run("faults", 60);
}
