//! Blocks that fail under ext4, xfs and btrfs: for each kind of operation of the disk (the
//! write-back of records, the file system's journal, its superblock, a flush) a failure of the
//! first such operation, then of the second and so on; once, and from then on. Invariants 1, 2, 13
//! and 14.
//!
//! What is expected of each: the log says so or, where the file system made good for it, says
//! nothing; once a call has failed with poison none succeeds; no append that had been acknowledged
//! is missing, neither after a power cut right then nor after the file system has been unmounted
//! and mounted again, and then the log opens and takes appends.
#![cfg(target_os = "linux")]

use seawall::blocking::Wal;
use seawall::{Error, FsyncPolicy, Level, Record, WalConfig};
use seawall_layers::block::{BlockDevice, FORMATS, Format};
use seawall_layers::disk::{Class, Failing, Image, Target, Unflushed};
use seawall_layers::history::{END, History, MARK};
use seawall_layers::workload::open;
use seawall_layers::{machine, seeds};
use std::path::Path;
use std::time::Instant;

const TARGETS: [(&str, Target); 4] = [
    ("data write-back", Target::Write(Class::Data)),
    ("journal write", Target::Write(Class::Journal)),
    ("superblock write", Target::Write(Class::Super)),
    ("flush", Target::Flush),
];

/// What came of one failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// The workload came to its end before there was such an operation.
    NotReached,
    /// The operation failed, and no call of the log did.
    Unnoticed,
    /// The log is poisoned.
    Poisoned,
    /// The file system failed at something that the log can do without, or undo.
    Refused,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Row {
    failures: u64,
    poisoned: u64,
    refused: u64,
    unnoticed: u64,
    kept: u64,
}

fn settings(folder: &Path, nth: u64) -> WalConfig {
    WalConfig {
        max_segment_size: 16 << 10,
        batch_size: 8 << 10,
        preallocate: nth.is_multiple_of(2),
        uring_size: nth.is_multiple_of(3).then_some(4 << 10),
        recycle_segments: usize::from(nth.is_multiple_of(5)),
        fsync_policy: FsyncPolicy::Os,
        ..WalConfig::in_dir(folder.join("wal"))
    }
}

/// Appends, rotations and a deletion, until something fails or all is done.
fn work(wal: &Wal, history: &History, appends: u64) -> Outcome {
    let nowhen = || 0;
    let mut refused = false;
    for append in 0..appends {
        let level = if append % 3 == 2 { Level::Os } else { Level::Disk };
        let mut results = vec![history.append(wal, 1 + append % 3, level, nowhen).map(drop)];
        if append == appends / 2 {
            results.push(wal.rotate());
            let before = wal.stats().first_lsn.get() + 4;
            refused |= history.delete(wal, before, nowhen).is_err();
        }
        for error in results.into_iter().filter_map(Result::err) {
            if matches!(error, Error::Poisoned(_)) {
                for level in [Level::Os, Level::Disk] {
                    let again = history.append(wal, 1, level, nowhen);
                    assert!(again.is_err(), "invariant 13: an append succeeds after a failure");
                }
                let synced = history.sync(wal, nowhen);
                assert!(synced.is_err(), "invariant 13: a sync succeeds after a failure");
                return Outcome::Poisoned;
            }
            refused = true;
        }
    }
    if refused { Outcome::Refused } else { Outcome::Unnoticed }
}

/// Opens a poisoned log again, as its error says, while the file system stays as it is: what it
/// shows then, and acknowledges, is on the disk. A file system that has given up refuses.
fn reopen_in_place(block: &BlockDevice, config: &WalConfig, history: &History) {
    block.with_disk(|disk| disk.failing.clear());
    let Ok((wal, opened)) = open(config.clone()) else { return };
    history.check_and_continue(opened.first, &opened.found, END);
    // Whether it succeeds the history knows.
    history.append(&wal, 1, Level::Disk, || 0).ok();
}

/// Lets one operation fail, and returns what came of it and how many records were kept.
fn fail(block: &BlockDevice, base: &Image, failing: Failing) -> (Outcome, u64) {
    let history = History::default();
    block.set_image(base);
    let mounted = block.mount().expect("nothing fails yet");
    let config = settings(mounted.path(), failing.nth);
    let (wal, opened) = open(config.clone()).expect("nothing fails yet");
    history.check_and_continue(opened.first, &opened.found, END);
    assert_eq!(work(&wal, &history, 6), Outcome::Unnoticed, "nothing fails yet");
    block.with_disk(|disk| {
        disk.failed = 0;
        disk.failing.push(failing);
    });
    let mut outcome = work(&wal, &history, 30);
    drop(wal);
    let failed = block.with_disk(|disk| disk.failed);
    if outcome == Outcome::Poisoned && failing.nth.is_multiple_of(2) {
        reopen_in_place(block, &config, &history);
    }
    // Unmounting may meet the failure still, and may say so.
    if failed == 0 {
        assert_eq!(outcome, Outcome::Unnoticed, "a call fails on a disk that does not");
        outcome = Outcome::NotReached;
    }
    let log = block.with_disk(|disk| {
        disk.failing.clear();
        disk.log.clone()
    });
    mounted.unmount().expect("nobody uses it");
    let unmounted = block.image();
    // Had power gone out before that: flushes that failed cover nothing.
    let unflushed = Unflushed::Torn { sector_bytes: 4_096, seed: failing.nth };
    block.set_image(&base.at(&log, log.len(), unflushed));
    let mounted = block.mount().expect("a file system survives power cuts");
    let (wal, opened) = open(config.clone()).expect("invariant 13: the log opens again");
    history.check(opened.first, &opened.found, END);
    drop(wal);
    mounted.unmount().expect("nobody uses it");
    block.set_image(&unmounted);
    let mounted = block.mount().expect("a disk that works again is mounted");
    let (wal, opened) = open(config).expect("invariant 13: the log opens again");
    let bound = history.check_and_continue(opened.first, &opened.found, END);
    history.append(&wal, 1, Level::Disk, || 0).expect("appends work again");
    wal.close().expect("the disk works again");
    drop(wal);
    mounted.unmount().expect("nobody uses it");
    (outcome, bound)
}

fn table_of(block: &BlockDevice, seconds: u32) {
    let base = block.image();
    let name = block.format().name;
    let often = |(what, target)| [(what, target, 1), (what, target, u64::MAX)];
    let rows = TARGETS.map(often).concat();
    let budget = seeds::budget(seconds) / u32::try_from(rows.len()).expect("a few");
    let mut hits = 0;
    for (what, target, count) in rows {
        let (started, mut row, mut nth) = (Instant::now(), Row::default(), 0);
        while started.elapsed() < budget {
            nth += 1;
            let (outcome, kept) = fail(block, &base, Failing { target, nth, count });
            match outcome {
                Outcome::NotReached => break,
                Outcome::Unnoticed => row.unnoticed += 1,
                Outcome::Poisoned => row.poisoned += 1,
                Outcome::Refused => row.refused += 1,
            }
            row.failures += 1;
            row.kept += kept;
        }
        let often = if count == 1 { "once" } else { "from then on" };
        if row.failures == 0 {
            println!("{name:<6} {what:<17} {often:<13} there was none to fail");
            continue;
        }
        let Row { failures, poisoned, refused, unnoticed, kept } = row;
        println!(
            "{name:<6} {what:<17} {often:<13} {failures:>4} failures: {poisoned:>4} poisoned, \
             {refused:>3} refused, {unnoticed:>3} unnoticed; {kept} acknowledged records, all kept"
        );
        hits += usize::from(row.poisoned > 0);
    }
    // Data and flushes, once and from then on, whatever the file system does about the rest.
    assert!(hits >= 4, "{name}: nothing came of failures");
}

fn failures_of(name: &str) {
    let format: Option<&Format> = FORMATS.iter().find(|format| format.name == name);
    let format = *format.expect("it is one of ours");
    let tried = machine::enter().and_then(|machine| {
        table_of(&BlockDevice::new(&machine, format)?, 6);
        Ok(())
    });
    if let Err(why) = tried {
        println!("skipped: {name}: {why}");
    }
}

#[test]
fn failing_blocks_under_ext4() {
    failures_of("ext4");
}

#[test]
fn failing_blocks_under_xfs() {
    failures_of("xfs");
}

#[test]
fn failing_blocks_under_btrfs() {
    failures_of("btrfs");
}

/// The kernel is asked to write the first pieces of a long write before its sync is asked for, and
/// the sync has to hear of each that fails.
#[test]
fn a_long_write_of_which_a_piece_fails_is_not_acknowledged() {
    let value = MARK.repeat(1_000 / MARK.len());
    let records = vec![Record::put(b"", &value); 1_000];
    for format in FORMATS {
        let tried = machine::enter().and_then(|machine| {
            let block = BlockDevice::new(&machine, format)?;
            let base = block.image();
            let mut poisoned = 0;
            for nth in 1..=5 {
                block.set_image(&base);
                let mounted = block.mount()?;
                let (wal, _) = Wal::open(WalConfig {
                    max_segment_size: 8 << 20,
                    fsync_policy: FsyncPolicy::Os,
                    ..WalConfig::in_dir(mounted.path().join("wal"))
                })
                .expect("nothing fails yet");
                wal.append_batch_with(&records, Level::Disk).expect("nothing fails yet");
                block.with_disk(|disk| {
                    disk.failed = 0;
                    disk.failing.push(Failing {
                        target: Target::Write(Class::Data),
                        nth,
                        count: 1,
                    });
                });
                let appended = wal.append_batch_with(&records, Level::Disk);
                let has_failed = block.with_disk(|disk| disk.failed > 0);
                match &appended {
                    Err(Error::Poisoned(_)) => poisoned += 1,
                    result => assert!(!has_failed, "{}, write {nth}: {result:?}", format.name),
                }
                block.with_disk(|disk| disk.failing.clear());
                drop(wal);
                mounted.unmount()?;
            }
            println!("{}: {poisoned} of 5 poisoned", format.name);
            assert!(poisoned > 0, "{}: nothing came of failures", format.name);
            Ok(())
        });
        if let Err(why) = tried {
            println!("skipped: {}: {why}", format.name);
        }
    }
}
