//! The native host on a file system that forgets what was not synced: power cuts at any change of
//! the file system, in recovery too, and each kind of request failing. Invariants 1 to 8, 13, 15
//! and 16.
//!
//! `SEAWALL_SEED=n` runs one seed alone, `SEAWALL_PROVE_SECONDS=n` new ones for a share of that.
//! The threads of a log run as the kernel lets them, so a seed replays as far as that goes;
//! `lockstep.rs` is the same each time.
#![cfg(target_os = "linux")]

use seawall::Level;
use seawall_layers::fuse::{CHANGES, Fault, Kind, Volatile};
use seawall_layers::history::{END, History, read};
use seawall_layers::machine::{self, Machine};
use seawall_layers::seeds;
use seawall_layers::volatile::{EIO, ENOSPC};
use seawall_layers::workload::{self, Plan, config, open};
use seawall_tests::random::Random;

/// How many lives a log has, each ended by a power cut.
const LIVES: u64 = 6;

/// Mounts, or says why this machine does not.
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

fn nowhen() -> u64 {
    0
}

/// A log through its lives. `fails`: requests fail as well.
fn live(volatile: &mut Volatile, seed: u64, threads: u64, fails: bool) -> u64 {
    let mut random = Random::new(seed);
    let history = History::default();
    let folder = volatile.path().join(format!("wal-{seed}"));
    let mut recoveries = 0;
    for life in 0..LIVES {
        let is_last = life + 1 == LIVES;
        let settings = config(&folder, &mut random);
        // Often in the middle of recovery, or soon after it.
        let changes = if random.chance(1, 3) { random.below(20) } else { random.below(400) };
        if is_last {
            volatile.keep_power();
        } else {
            volatile.cut_after(1 + changes);
        }
        if fails && !is_last {
            arm(volatile, &mut random);
        }
        let may_fail = !is_last;
        let lived = match open(settings) {
            Ok((wal, opened)) => {
                history.check_and_continue(opened.first, &opened.found, END);
                recoveries += 1;
                let plan = Plan { threads, appends: 60 / threads, seed: random.number() };
                let is_whole = workload::run(&wal, &history, plan, &nowhen);
                assert!(is_whole || may_fail, "the log failed on a file system that does not");
                is_whole && random.chance(1, 2) && wal.close().is_ok()
            }
            Err(error) => {
                let why = "invariant 8: the log does not open";
                assert!(volatile.is_out() || volatile.stats().faults > 0, "{why}: {error}");
                false
            }
        };
        volatile.clear_faults();
        // Without a power cut the next life finds what the cache holds, which after a failed sync
        // is not what the disk holds.
        if lived && random.chance(1, 4) && volatile.stats().faults == 0 && !volatile.is_out() {
            continue;
        }
        volatile.cut(random.number()).expect("it mounts again");
    }
    let (wal, opened) = open(config(&folder, &mut random)).expect("invariant 8: it opens");
    history.check_and_continue(opened.first, &opened.found, END);
    drop(wal);
    std::fs::remove_dir_all(&folder).expect("nobody uses it");
    recoveries + 1
}

/// A fault somewhere ahead.
fn arm(volatile: &Volatile, random: &mut Random) {
    for _ in 0..=random.below(2) {
        let kind = CHANGES[random.index(CHANGES.len())];
        let fault = match (kind, random.below(3)) {
            (Kind::Sync, 0 | 1) => Fault::DropsData(EIO),
            (Kind::Write, 0) => Fault::Short,
            (Kind::Write | Kind::Create | Kind::Allocate, 1) => Fault::Fails(ENOSPC),
            _ => Fault::Fails(EIO),
        };
        volatile.fail_next(kind, 1 + random.below(60), fault);
    }
}

#[test]
fn power_cuts_lose_nothing() {
    let Some((_machine, mut volatile)) = mount() else { return };
    seeds::run("volatile, 4 threads", 8, |seed, _| live(&mut volatile, seed, 4, false));
}

#[test]
fn power_cuts_lose_nothing_of_one_thread() {
    let Some((_machine, mut volatile)) = mount() else { return };
    seeds::run("volatile, 1 thread", 5, |seed, _| live(&mut volatile, seed, 1, false));
}

#[test]
fn power_cuts_and_failing_requests_lose_nothing() {
    let Some((_machine, mut volatile)) = mount() else { return };
    seeds::run("volatile, faults", 8, |seed, _| live(&mut volatile, seed, 3, true));
}

/// Invariant 15: what was acknowledged stays readable on a full file system, recovery and deletion
/// work there, and appends work again when there is room.
#[test]
fn a_full_file_system_loses_nothing() {
    let Some((_machine, mut volatile)) = mount() else { return };
    let mut full = 0_u64;
    seeds::run("volatile, full", 3, |seed, _| {
        let mut random = Random::new(seed);
        let history = History::default();
        let folder = volatile.path().join(format!("full-{seed}"));
        volatile.set_capacity(Some((64 << 10) + random.below(200 << 10)));
        volatile.keep_power();
        for _ in 0..3 {
            let (wal, opened) = open(config(&folder, &mut random)).expect("opening needs no room");
            history.check_and_continue(opened.first, &opened.found, END);
            let plan = Plan { threads: 2, appends: 150, seed: random.number() };
            let is_whole = workload::run(&wal, &history, plan, &nowhen);
            assert!(is_whole, "invariant 15: a full disk is no poison");
            let refused = history.append(&wal, 1, Level::Disk, nowhen).is_err();
            let stats = wal.stats();
            let found = read(wal.iter().expect("it reads")).expect("it reads");
            history.check(stats.first_lsn.get(), &found, END);
            if refused && random.chance(1, 2) {
                let last = stats.last_lsn.get();
                history.delete(&wal, last, nowhen).expect("invariant 15: deletion needs no room");
            }
            drop(wal);
            volatile.cut(random.number()).expect("it mounts again");
        }
        full += history.refused_for_room();
        volatile.set_capacity(None);
        let (wal, opened) = open(config(&folder, &mut random)).expect("invariant 8: it opens");
        history.check_and_continue(opened.first, &opened.found, END);
        history.append(&wal, 1, Level::Disk, nowhen).expect("invariant 15: there is room again");
        drop(wal);
        std::fs::remove_dir_all(&folder).expect("nobody uses it");
        4
    });
    println!("volatile, full: {full} appends were refused");
    assert!(full > 0, "the file system was never full");
}
