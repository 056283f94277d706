//! The core's commands one at a time on a file system that forgets what was not synced: power cuts
//! at any request, in recovery too. Wholly decided by the seed: `SEAWALL_SEED=n` replays one.
#![cfg(target_os = "linux")]

use seawall_layers::fuse::{Fault, Kind, Volatile};
use seawall_layers::lockstep::Lockstep;
use seawall_layers::machine::{self, Machine};
use seawall_layers::seeds;
use seawall_tests::random::Random;
use std::panic::{AssertUnwindSafe, catch_unwind};

const LIVES: u64 = 8;
const STEPS: u64 = 150;

fn mount() -> Option<(Machine, Volatile)> {
    let mounted = machine::enter().and_then(|machine| {
        let volatile = Volatile::mount(&machine)?;
        Ok((machine, volatile))
    });
    match mounted {
        Ok(mounted) => Some(mounted),
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

/// A log through its lives. Returns how often it was recovered, and what stands for all requests
/// that there were.
fn live(volatile: &mut Volatile, seed: u64, lies: bool) -> (u64, u64) {
    let mut random = Random::new(seed ^ 0x6c6f_636b);
    let folder = volatile.path().join("log");
    volatile.keep_power();
    let mut lockstep = Lockstep::new(&folder, seed).expect("nothing fails yet");
    let (mut recoveries, mut trace) = (0, 0);
    for life in 0..LIVES {
        if life + 1 < LIVES {
            let far = if random.chance(1, 3) { 12 } else { 250 };
            volatile.cut_after(1 + random.below(far));
        }
        if lies && random.chance(1, 2) {
            volatile.fail_next(Kind::Sync, 1 + random.below(30), Fault::Lies);
        }
        match lockstep.open() {
            Ok(()) => {
                recoveries += 1;
                lockstep.live(STEPS);
            }
            Err(error) => {
                assert!(volatile.is_out(), "invariant 8: the log does not open: {error}");
            }
        }
        lockstep.close_files();
        trace = Random::new(trace ^ volatile.stats().trace).number();
        volatile.clear_faults();
        volatile.cut(random.number()).expect("it mounts again");
    }
    lockstep.open().expect("invariant 8: the log opens");
    lockstep.close_files();
    trace = Random::new(trace ^ volatile.stats().trace).number();
    std::fs::remove_dir_all(&folder).expect("nobody uses it");
    (recoveries + 1, trace)
}

#[test]
fn power_cuts_in_lockstep_lose_nothing() {
    let Some((_machine, mut volatile)) = mount() else { return };
    seeds::run("volatile, lockstep", 5, |seed, _| live(&mut volatile, seed, false).0);
}

#[test]
fn a_seed_does_the_same_each_time() {
    for seed in 0..5 {
        let traces =
            [(); 2].map(|()| mount().map(|(_machine, mut new)| live(&mut new, seed, false).1));
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}

/// What the other tests show is worth something only if a file system that lies is caught.
#[test]
fn a_sync_that_lies_is_caught() {
    let caught = (0..40).find(|seed| {
        let Some((_machine, mut volatile)) = mount() else { return true };
        catch_unwind(AssertUnwindSafe(|| live(&mut volatile, *seed, true))).is_err()
    });
    assert!(caught.is_some(), "nobody notices");
}
