//! Seeds, crashes, faults and lies. A failure prints the shortest history found, and the command
//! that shows it again: `SEAWALL_SEED=n SEAWALL_TRACE=1` and the name of the test.

use seawall_tests::runner::{Layer, test};
use seawall_tests::trace::trace_hash;

#[test]
fn crashes() {
    test(Layer::Crashes, 3_000);
}

#[test]
fn faults() {
    test(Layer::Faults, 3_000);
}

#[test]
fn lies() {
    test(Layer::Lies, 10_000);
}

#[test]
fn every_command() {
    test(Layer::Every, 150);
}

#[test]
fn the_same_seed_gives_the_same_commands_and_bytes() {
    let mut different = std::collections::BTreeSet::new();
    for seed in 0..3_000 {
        let hash = trace_hash(seed);
        assert_eq!(hash, trace_hash(seed), "seed {seed}");
        different.insert(hash);
    }
    assert!(different.len() > 2_990, "the hash tells one life from another");
}
