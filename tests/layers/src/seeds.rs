//! Running seeds for as long as there is time, and telling how to replay the one that failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// How long a test may look for trouble: so many seconds, or, of `SEAWALL_PROVE_SECONDS`, so many
/// hundredths. All tests of this package together have about a hundred.
pub fn budget(seconds: u32) -> Duration {
    match number("SEAWALL_PROVE_SECONDS") {
        Some(all) => Duration::from_secs(all) * seconds / 100,
        None => Duration::from_secs(seconds.into()),
    }
}

/// Runs seeds for as long as [`budget`] says, or the one of `SEAWALL_SEED` alone.
///
/// Each is told until when it may go on, and returns how many states it saw. Prints how many there
/// were a minute.
///
/// # Panics
/// When a seed does.
pub fn run(name: &str, seconds: u32, mut live: impl FnMut(u64, Instant) -> u64) {
    let one = number("SEAWALL_SEED");
    let started = Instant::now();
    // One that is replayed is replayed to its end.
    let until = started + if one.is_some() { Duration::from_hours(1) } else { budget(seconds) };
    let (mut seed, mut states) = (one.unwrap_or(0), 0);
    loop {
        states += catch_unwind(AssertUnwindSafe(|| live(seed, until))).unwrap_or_else(|_| {
            panic!("{name}, seed {seed}: replay with SEAWALL_SEED={seed} and the name of this test")
        });
        seed += 1;
        if one.is_some() || Instant::now() >= until {
            break;
        }
    }
    let elapsed = started.elapsed();
    let a_minute = u128::from(states) * 60_000 / elapsed.as_millis().max(1);
    println!("{name}: {states} states in {:.1} s, {a_minute} a minute", elapsed.as_secs_f64());
}
