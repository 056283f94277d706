//! The fuzzer's corpus, replayed without a fuzzer; and each input changed at random, many times.
//!
//! `SEAWALL_SEED=n` changes them as that seed does, and no others; `SEAWALL_PROVE_SECONDS=n` goes
//! on for so long.

use seawall_tests::fuzz::TARGETS;
use seawall_tests::random::Random;
use seawall_tests::runner::number;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Changed inputs of each target in every run.
const CHANGED: u64 = 3_000;

fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/fuzz/corpus").join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus is in the checkout")
        .map(|entry| {
            let path = entry.expect("it can be listed").path();
            (path.display().to_string(), std::fs::read(&path).expect("it can be read"))
        })
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn the_corpus_holds() {
    for (target, run) in TARGETS {
        let inputs = inputs(target);
        assert!(inputs.len() >= 3, "{target} has no corpus");
        for (name, input) in inputs {
            let result = catch_unwind(AssertUnwindSafe(|| run(&input)));
            assert!(result.is_ok(), "{target}: {name}");
        }
    }
}

/// One to eight changes of one input.
fn change(input: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(8) {
        let at = random.index(input.len().max(1));
        let [byte, other, ..] = random.number().to_le_bytes();
        match random.below(6) {
            _ if input.is_empty() => input.push(byte),
            0 => input[at] = byte,
            1 => input[at] ^= 1 << (byte % 8),
            2 => input.truncate(at),
            3 => input.insert(at, byte),
            4 => {
                let end = (at + usize::from(byte)).min(input.len());
                let piece = input[at..end].to_vec();
                let to = random.index(input.len());
                input.splice(to..to, piece);
            }
            _ => {
                let end = (at + usize::from(byte)).min(input.len());
                input[at..end].fill(other);
            }
        }
    }
}

#[test]
fn changed_inputs_hold() {
    let (one, seconds) = (number("SEAWALL_SEED"), number("SEAWALL_PROVE_SECONDS"));
    let share = seconds.map(|seconds| Duration::from_secs(seconds) / 5);
    for (target, run) in TARGETS {
        let inputs = inputs(target);
        let started = Instant::now();
        let mut seed = one.unwrap_or(0);
        let first = seed;
        loop {
            let mut random = Random::new(seed);
            let mut input = inputs[random.index(inputs.len())].1.clone();
            change(&mut input, &mut random);
            let result = catch_unwind(AssertUnwindSafe(|| run(&input)));
            assert!(result.is_ok(), "{target}: replay with SEAWALL_SEED={seed}");
            seed += 1;
            let is_over = match share {
                _ if one.is_some() => true,
                Some(share) => started.elapsed() >= share,
                None => seed - first >= CHANGED,
            };
            if is_over {
                break;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{target}: {} changed inputs in {seconds:.1} s", seed - first);
    }
}
