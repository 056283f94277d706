//! The component on a file system that forgets what was not synced: power cuts at any change of
//! the file system, in recovery too, and each kind of request failing. Invariants 1 to 8 and 13.
//!
//! `SEAWALL_SEED=n` runs one seed alone, `SEAWALL_PROVE_SECONDS=n` new ones for a share of that.
//! Needs root and FUSE, and `target/component/seawall.wasm`, which `cargo xtask component` makes.
#![cfg(target_os = "linux")]

use seawall_core::compress::Compression;
use seawall_layers::block::{BlockDevice, FORMATS};
use seawall_layers::disk::{Class, Failing, Target, Unflushed};
use seawall_layers::fuse::{CHANGES, Fault, Kind, Volatile};
use seawall_layers::history::{END, Ended, Found, History, MARK};
use seawall_layers::machine::{self, Machine};
use seawall_layers::seeds;
use seawall_layers::volatile::{EIO, ENOSPC};
use seawall_tests::random::Random;
use seawall_wasmtime::{Error, Limits, Program, Record, Wal, types};
use std::path::Path;

/// How many lives a log has, each ended by a power cut.
const LIVES: u64 = 6;
const THREADS: u64 = 3;
const APPENDS: u64 = 20;

/// Mounts, or says why this machine does not.
fn mount() -> Option<(Machine, Volatile)> {
    let mounted = machine::enter().and_then(|machine| {
        let volatile = Volatile::mount(&machine)?;
        Ok((machine, volatile))
    });
    mounted.map_err(|why| println!("skipped: {why}")).ok()
}

fn component() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/component/seawall.wasm");
    std::fs::read(path).expect("`cargo xtask component` makes it")
}

fn program() -> Program {
    Program::compile(&component(), &Limits::default()).expect("it is the component")
}

fn nowhen() -> u64 {
    0
}

/// Random settings, with segments so small that a few appends fill one.
fn config(program: &Program, random: &mut Random) -> types::Config {
    use types::{FsyncPolicy, Preallocation, Scan};
    let policies = [FsyncPolicy::Always, FsyncPolicy::BatchMicros(500), FsyncPolicy::Os];
    let reserved = [Preallocation::None, Preallocation::Sparse, Preallocation::Written];
    types::Config {
        segment_bytes_max: (16 << 10) << random.below(3),
        fsync_policy: policies[random.index(3)],
        preallocation: reserved[random.index(3)],
        scan: if random.chance(1, 2) { Scan::Full } else { Scan::Tail },
        batch_bytes: (4 << 10) << random.below(3),
        ..program.default_config()
    }
}

/// Opens the log and reads all of it.
fn open(
    program: &Program,
    folder: &Path,
    config: types::Config,
) -> Result<(Wal, u64, Vec<Found>), Error> {
    let (wal, recovery) = Wal::open(program, folder, config).wait()?;
    assert!(recovery.damage.is_none(), "invariant 10: no damage was done: {recovery:?}");
    let cursor = wal.read_from(types::Start::First).wait()?;
    let mut found = Vec::new();
    loop {
        let page = cursor.read_batch(16 << 10).wait()?;
        if page.is_empty() {
            break;
        }
        let records = page.records();
        found.extend(records.map(|read| Found::new(read.lsn, read.record.key, read.record.value)));
    }
    assert_eq!(found.len() as u64, recovery.records, "the report counts records: {recovery:?}");
    Ok((wal, recovery.first, found))
}

fn is_poison(error: &Error) -> bool {
    matches!(error, Error::Log(types::Error::Poisoned(_)) | Error::Unknown(_) | Error::Down(_))
}

/// Appends, and takes note; whether the log is whole.
fn append(wal: &Wal, history: &History, count: u64, level: types::Level) -> Result<(), Error> {
    let is_durable = level == types::Level::Disk;
    history.append_by(count, is_durable, nowhen, |records: &[Record<'_>]| {
        match wal.append_batch_with(records, level).wait() {
            Ok(appended) => (Ok(()), Ended::Well(appended.first)),
            Err(error) if is_poison(&error) => (Err(error), Ended::Unknown),
            Err(_) => (Ok(()), Ended::Undone),
        }
    })
}

fn append_all(wal: &Wal, history: &History, seed: u64) -> Result<(), Error> {
    let mut random = Random::new(seed);
    for _ in 0..APPENDS {
        let level = if random.chance(1, 2) { types::Level::Disk } else { types::Level::Os };
        let count = if random.chance(1, 6) { 2 + random.below(4) } else { 1 };
        append(wal, history, count, level)?;
        let result = match random.below(24) {
            0 => wal.sync().wait().map(drop),
            1 => wal.rotate().wait(),
            2 => wal.stats().wait().and_then(|stats| {
                let before = stats.first + random.below(stats.last.saturating_sub(stats.first) + 1);
                history.note_deletion(before, nowhen());
                wal.delete_before(before).wait().map(drop)
            }),
            _ => Ok(()),
        };
        match result {
            Err(error) if is_poison(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Appends from several threads; whether the log was whole to the end.
fn work(wal: &Wal, history: &History, random: &mut Random) -> bool {
    let is_whole = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let seed = random.number();
                scope.spawn(move || append_all(wal, history, seed).is_ok())
            })
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join().expect("it checks nothing"));
        let ended: Vec<bool> = ended.collect();
        ended.into_iter().all(|is_whole| is_whole)
    });
    if is_whole && random.chance(1, 4) {
        return truncate(wal, history, random).is_ok();
    }
    if !is_whole {
        let after = wal.append_with(&Record::put(b"none", b"of ours"), types::Level::Disk).wait();
        assert!(after.is_err(), "invariant 13: an append succeeds after a failure");
    }
    is_whole
}

fn truncate(wal: &Wal, history: &History, random: &mut Random) -> Result<(), Error> {
    let stats = wal.stats().wait()?;
    let after = stats.first - 1 + random.below(stats.last + 2 - stats.first);
    let result = wal.truncate_after(after).wait();
    let ended = match &result {
        Ok(()) => Ended::Well(0),
        Err(error) if is_poison(error) => Ended::Unknown,
        Err(_) => Ended::Undone,
    };
    history.note_truncation(after, nowhen(), nowhen(), ended);
    match result {
        Err(error) if is_poison(&error) => return Err(error),
        _ => {}
    }
    (0..3).try_for_each(|_| append(wal, history, 1, types::Level::Disk))
}

/// A fault somewhere ahead.
fn arm(volatile: &Volatile, random: &mut Random) {
    let kind = CHANGES[random.index(CHANGES.len())];
    let fault = match (kind, random.below(3)) {
        (Kind::Sync, 0 | 1) => Fault::DropsData(EIO),
        (Kind::Write, 0) => Fault::Short,
        (Kind::Write | Kind::Create | Kind::Allocate, 1) => Fault::Fails(ENOSPC),
        _ => Fault::Fails(EIO),
    };
    volatile.fail_next(kind, 1 + random.below(60), fault);
}

/// A log through its lives. `fails`: requests fail as well.
fn live(program: &Program, volatile: &mut Volatile, seed: u64, fails: bool) -> u64 {
    let mut random = Random::new(seed);
    let history = History::default();
    let folder = volatile.path().join(format!("wal-{seed}"));
    let mut recoveries = 0;
    for life in 0..LIVES {
        let is_last = life + 1 == LIVES;
        let settings = config(program, &mut random);
        // Often in the middle of recovery, or soon after it.
        let changes = if random.chance(1, 3) { random.below(20) } else { random.below(400) };
        if is_last {
            volatile.keep_power();
        } else {
            volatile.cut_after(1 + changes);
            if fails {
                arm(volatile, &mut random);
            }
        }
        match open(program, &folder, settings) {
            Ok((wal, first, found)) => {
                history.check_and_continue(first, &found, END);
                recoveries += 1;
                let is_whole = work(&wal, &history, &mut random);
                assert!(is_whole || !is_last, "the log failed on a file system that does not");
                if is_whole && random.chance(1, 2) {
                    // A power cut may come first.
                    wal.close().wait().ok();
                }
            }
            Err(error) => {
                let why = "invariant 8: the log does not open";
                assert!(volatile.is_out() || volatile.stats().faults > 0, "{why}: {error}");
            }
        }
        volatile.clear_faults();
        volatile.cut(random.number()).expect("it mounts again");
    }
    let (wal, first, found) =
        open(program, &folder, config(program, &mut random)).expect("invariant 8: it opens");
    history.check_and_continue(first, &found, END);
    drop(wal);
    std::fs::remove_dir_all(&folder).expect("nobody uses it");
    recoveries + 1
}

/// A trap opens no log again whose sync has failed: nothing told from then on would be sure.
#[test]
fn a_poisoned_log_stays_poisoned_after_a_trap() {
    let Some((_machine, volatile)) = mount() else { return };
    let starved = Limits { fuel_per_call: 120_000_000, ..Limits::default() };
    let program = Program::compile(&component(), &starved).expect("it is the component");
    let folder = volatile.path().join("poisoned");
    let config = types::Config { segment_bytes_max: 16 << 20, ..program.default_config() };
    let record = Record::put(b"key", b"value");
    let is_poisoned = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Log(types::Error::Poisoned(_)))), "{result:?}");
    };
    for reads in [false, true] {
        let (wal, _) = Wal::open(&program, &folder, config.clone()).wait().expect("it opens");
        wal.append_with(&record, types::Level::Disk).wait().expect("it is sound");
        wal.append_with(&record, types::Level::Buffered).wait().expect("it is sound");
        volatile.fail_next(Kind::Sync, 1, Fault::Fails(EIO));
        if reads {
            // What was durable before can still be read.
            let cursor = wal.read_from(types::Start::First).wait().expect("it reads");
            assert!(!cursor.read_batch(100).wait().expect("it reads").is_empty());
        } else {
            is_poisoned(wal.append_with(&record, types::Level::Disk).wait().map(drop));
        }
        let value = vec![3; 1_000];
        let packed = Record::put(b"key", &value).with_compression(Compression::Zstd);
        let lost = wal.append_batch(&vec![packed; 10_000]).wait();
        assert!(matches!(lost, Err(Error::Unknown(_))), "{lost:?}");
        is_poisoned(wal.append(&record).wait().map(drop));
        is_poisoned(wal.sync().wait().map(drop));
        assert!(wal.take_restarts().wait().expect("its thread lives").is_empty());
        drop(wal);
        volatile.clear_faults();
    }
}

/// What the page cache shows after a failed sync the device does not have: on ext4, xfs and btrfs
/// over blocks that fail, as it is on the FUSE file system there is none.
#[test]
fn a_poisoned_log_that_is_opened_again_shows_what_the_device_has() {
    let program = program();
    let value = MARK.repeat(60_000 / MARK.len());
    for format in FORMATS {
        let mut failures = 0;
        let tried = machine::enter().and_then(|machine| {
            let block = BlockDevice::new(&machine, format)?;
            let base = block.image();
            for nth in 1..=4 {
                block.set_image(&base);
                let mounted = block.mount()?;
                let folder = mounted.path().join("wal");
                let append = |wal: &Wal, value: &[u8]| {
                    wal.append_with(&Record::put(b"key", value), types::Level::Disk).wait()
                };
                let (wal, _) = open_default(&program, &folder);
                append(&wal, b"sound").expect("nothing fails yet");
                block.with_disk(|disk| {
                    disk.failed = 0;
                    let target = Target::Write(Class::Data);
                    disk.failing.push(Failing { target, nth, count: 1 });
                });
                let appended = append(&wal, &value);
                let has_failed = block.with_disk(|disk| {
                    disk.failing.clear();
                    disk.failed > 0
                });
                assert!(!has_failed || appended.is_err(), "{}: {appended:?}", format.name);
                drop(wal);
                let (wal, recovery) = open_default(&program, &folder);
                let shown = recovery.last;
                failures += u32::from(has_failed);
                let last = append(&wal, b"after").expect("it is sound").last;
                assert_eq!(last, shown + 1);
                drop(wal);
                let log = block.with_disk(|disk| disk.log.clone());
                mounted.unmount()?;
                // The power goes right then.
                block.set_image(&base.at(
                    &log,
                    log.len(),
                    Unflushed::Torn { sector_bytes: 4_096, seed: nth },
                ));
                let mounted = block.mount()?;
                let (wal, recovery) = open_default(&program, &mounted.path().join("wal"));
                let place = format!("{}, write {nth}, failed {has_failed}", format.name);
                assert_eq!((recovery.last, recovery.damage.is_some()), (last, false), "{place}");
                drop(wal);
                mounted.unmount()?;
            }
            Ok(())
        });
        if let Err(why) = tried {
            println!("skipped: {}: {why}", format.name);
        } else {
            assert!(failures > 0, "{}: nothing came of failures", format.name);
        }
    }
}

/// Whoever made the folder may not have made its name durable.
#[test]
fn a_log_in_a_folder_that_was_there_outlives_the_power() {
    let Some((_machine, mut volatile)) = mount() else { return };
    let program = program();
    for seed in 0..8 {
        let folder = volatile.path().join(format!("made-{seed}"));
        std::fs::create_dir(&folder).expect("there is room");
        let (wal, _) = open_default(&program, &folder);
        wal.append_with(&Record::put(b"key", b"value"), types::Level::Disk)
            .wait()
            .expect("it is sound");
        drop(wal);
        volatile.cut(seed).expect("it mounts again");
        let (wal, recovery) = open_default(&program, &folder);
        assert_eq!(recovery.last, 1);
        drop(wal);
    }
}

fn open_default(program: &Program, folder: &Path) -> (Wal, types::Recovery) {
    Wal::open(program, folder, program.default_config()).wait().expect("it opens")
}

#[test]
fn power_cuts_lose_nothing() {
    let Some((_machine, mut volatile)) = mount() else { return };
    let program = program();
    seeds::run("component", 8, |seed, _| live(&program, &mut volatile, seed, false));
}

#[test]
fn power_cuts_and_failing_requests_lose_nothing() {
    let Some((_machine, mut volatile)) = mount() else { return };
    let program = program();
    seeds::run("component, faults", 8, |seed, _| live(&program, &mut volatile, seed, true));
}
