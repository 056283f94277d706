//! Threads that append to a log, rotate, delete and truncate, until all is done or the log fails.

use crate::history::{Found, History, read};
use seawall::blocking::Wal;
use seawall::{
    ChecksumKind, Compression, Error, FsyncPolicy, Level, RecoveryInfo, RecoveryScan, WalConfig,
};
use seawall_tests::random::Random;
use std::path::Path;
use std::time::Duration;

/// Random settings, with segments so small that a few appends fill one. Every third log writes
/// through `io_uring` what is at least a block, and two of three recycle what was deleted.
pub fn config(dir: &Path, random: &mut Random) -> WalConfig {
    let window = Duration::from_micros(500);
    let policies = [FsyncPolicy::Always, FsyncPolicy::Batch(window), FsyncPolicy::Os];
    let is_one_in_four = |random: &mut Random| random.chance(1, 4);
    WalConfig {
        max_segment_size: (16 << 10) << random.below(3),
        fsync_policy: policies[random.index(policies.len())],
        preallocate: random.chance(1, 2),
        scan: if random.chance(1, 2) { RecoveryScan::Full } else { RecoveryScan::Tail },
        compression: if is_one_in_four(random) { Compression::Lz4 } else { Compression::None },
        batch_size: (4 << 10) << random.below(3),
        checksum: if is_one_in_four(random) { ChecksumKind::Xxh3 } else { ChecksumKind::Crc32c },
        reserve_size: random.chance(1, 2).then_some(4 << 10),
        uring_size: random.chance(1, 3).then_some(4 << 10),
        recycle_segments: random.index(3),
        write_back_size: random.chance(1, 2).then_some(4 << 10),
        ..WalConfig::in_dir(dir)
    }
}

/// How much is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// How many threads append.
    pub threads: u64,
    /// How often each does.
    pub appends: u64,
    /// Where chance comes from.
    pub seed: u64,
}

/// Appends as planned, with syncs, rotations and deletions in between, and after that, at times, a
/// truncation. Returns whether the log was whole to the end. A full disk stops nothing.
///
/// # Panics
/// When a log that has failed reports success.
pub fn run(wal: &Wal, history: &History, plan: Plan, now: &(impl Fn() -> u64 + Sync)) -> bool {
    let is_whole = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|thread| scope.spawn(move || append_all(wal, history, plan, thread, now)))
            .collect();
        let results = threads.into_iter().map(|thread| thread.join().expect("it checks nothing"));
        let results: Vec<bool> = results.collect();
        results.into_iter().all(|is_whole| is_whole)
    });
    let mut random = Random::new(plan.seed ^ 0x7275_6e63);
    let is_whole = is_whole && (!random.chance(1, 4) || truncate(wal, history, &mut random, now));
    if !is_whole {
        for level in [Level::Os, Level::Disk] {
            let result = history.append(wal, 1, level, now);
            assert!(result.is_err(), "invariant 13: an append succeeds after a failure");
        }
        assert!(history.sync(wal, now).is_err(), "invariant 13: a sync succeeds after a failure");
    }
    is_whole
}

fn truncate(wal: &Wal, history: &History, random: &mut Random, now: &impl Fn() -> u64) -> bool {
    let stats = wal.stats();
    let (first, last) = (stats.first_lsn.get(), stats.last_lsn.get());
    let after = first - 1 + random.below(last + 2 - first);
    if is_poison(history.truncate(wal, after, now).err()) {
        return false;
    }
    for _ in 0..3 {
        if is_poison(history.append(wal, 1, Level::Disk, now).err()) {
            return false;
        }
    }
    true
}

#[expect(clippy::needless_pass_by_value, reason = "it is the end of the error")]
fn is_poison(error: Option<Error>) -> bool {
    matches!(error, Some(Error::Poisoned(_)))
}

fn append_all(
    wal: &Wal,
    history: &History,
    plan: Plan,
    thread: u64,
    now: &impl Fn() -> u64,
) -> bool {
    let mut random = Random::new(plan.seed << 8 | thread);
    for _ in 0..plan.appends {
        let level = if random.chance(1, 2) { Level::Disk } else { Level::Os };
        let count = if random.chance(1, 6) { 2 + random.below(4) } else { 1 };
        if is_poison(history.append(wal, count, level, now).err()) {
            return false;
        }
        let error = match random.below(24) {
            0 => history.sync(wal, now).err(),
            1 => wal.rotate().err(),
            2 => {
                let stats = wal.stats();
                let span = stats.last_lsn.get() - stats.first_lsn.get().min(stats.last_lsn.get());
                let before = stats.first_lsn.get() + random.below(span + 1);
                // A refusal is told by the next append, if it is for good.
                drop(history.delete(wal, before, now));
                None
            }
            _ => None,
        };
        if is_poison(error) {
            return false;
        }
    }
    true
}

/// A log that was opened, and all it holds.
#[derive(Debug)]
pub struct Opened {
    /// What opening it found.
    pub info: RecoveryInfo,
    /// The first record it retains.
    pub first: u64,
    /// What it holds.
    pub found: Vec<Found>,
}

/// Opens the log and reads all of it.
///
/// # Errors
/// Why it does not open, or that the device failed while it was read.
///
/// # Panics
/// When it says that it is damaged, or a record is not what it should be.
pub fn open(config: WalConfig) -> Result<(Wal, Opened), Error> {
    let (wal, info) = Wal::open(config)?;
    assert!(!info.corruption_detected, "invariant 10: no damage was done: {info:?}");
    let found = read(wal.iter()?)?;
    assert_eq!(found.len() as u64, info.valid_records, "the report counts records: {info:?}");
    let first = wal.stats().first_lsn.get();
    Ok((wal, Opened { info, first, found }))
}
