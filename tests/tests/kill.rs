//! A process that appends is killed with SIGKILL, 200 times under each policy, with rotation going
//! on. Invariants 1 to 10, and 17: a killed writer's lock is free.
//!
//! The child is this same program, started with `SEAWALL_KILL_DIR` set. It reports each
//! acknowledged append on its standard error, one write each, so that a report is whole or absent,
//! and each deletion before it asks for it.

use seawall::blocking::Wal;
use seawall::{FsyncPolicy, Level, Lsn, Record, WalConfig};
use seawall_tests::random::Random;
use seawall_tests::records::{record_bytes, rest};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const KILLS: u64 = 200;
/// A fresh log each so many kills, so that checking all of it stays quick.
const KILLS_PER_LOG: u64 = 25;
const THREADS: u64 = 3;
/// First LSN, last LSN, thread, counter.
const REPORT_BYTES: usize = 32;
/// In place of a thread: what is before the first LSN may go.
const DELETES: u64 = u64::MAX;

fn policy(name: &str) -> FsyncPolicy {
    match name {
        "always" | "uring" | "recycled" => FsyncPolicy::Always,
        "batch" => FsyncPolicy::Batch(Duration::from_millis(1)),
        _ => FsyncPolicy::Os,
    }
}

fn config(dir: &Path, policy_name: &str) -> WalConfig {
    let segment_size = if deletes(policy_name) { 5 << 10 } else { 16 << 10 };
    WalConfig {
        max_segment_size: segment_size * scale(policy_name),
        reserve_size: Some((5 << 10) * scale(policy_name)),
        batch_size: 8 << 10,
        fsync_policy: policy(policy_name),
        map_appends: policy_name == "mapped",
        recycle_segments: if deletes(policy_name) { 2 } else { 0 },
        uring_size: (policy_name == "uring").then_some(4 << 10),
        ..WalConfig::in_dir(dir)
    }
}

/// Whether old segments are deleted, so that their files come again.
fn deletes(policy_name: &str) -> bool {
    policy_name == "recycled"
}

/// What goes through io_uring has to be longer.
fn scale(policy_name: &str) -> u64 {
    if policy_name == "uring" { 40 } else { 1 }
}

/// What thread, round and counter make: the key says which, the value follows from the key.
fn content(scale: u64, round: u64, thread: u64, counter: u64) -> (Vec<u8>, Vec<u8>) {
    let number = round << 32 | thread << 24 | counter;
    let length = usize::try_from(Random::new(number).below(400) * scale).unwrap();
    (number.to_le_bytes().to_vec(), record_bytes(number, length))
}

#[test]
fn child() {
    let Some(dir) = std::env::var_os("SEAWALL_KILL_DIR") else { return };
    let policy_name = std::env::var("SEAWALL_KILL_POLICY").unwrap();
    let round: u64 = std::env::var("SEAWALL_KILL_ROUND").unwrap().parse().unwrap();
    let (wal, _) = Wal::open(config(Path::new(&dir), &policy_name)).unwrap();
    let reports = Mutex::new(std::io::stderr());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (wal, reports) = (&wal, &reports);
            let (scale, deletes) = (scale(&policy_name), deletes(&policy_name));
            scope.spawn(move || append_forever(wal, reports, scale, deletes, round, thread));
        }
    });
}

fn append_forever(
    wal: &Wal,
    reports: &Mutex<std::io::Stderr>,
    scale: u64,
    deletes: bool,
    round: u64,
    thread: u64,
) {
    let mut random = Random::new(round << 8 | thread);
    let mut counter = 0;
    loop {
        let count = if random.chance(1, 8) { 5 } else { 1 };
        let contents: Vec<_> = (counter..counter + count)
            .map(|counter| content(scale, round, thread, counter))
            .collect();
        counter += count;
        let records: Vec<_> = contents.iter().map(|(key, value)| Record::put(key, value)).collect();
        let level =
            if random.chance(1, 4) { Level::Disk } else { wal.config().fsync_policy.level() };
        let appended = wal.append_batch_with(&records, level).unwrap();
        let report = |numbers: [u64; 4]| {
            let bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
            reports.lock().unwrap().write_all(&bytes).unwrap();
        };
        report([appended.first.get(), appended.last.get(), thread, counter - count]);
        if deletes && thread == 0 && random.chance(1, 16) {
            report([appended.first.get(), 0, DELETES, 0]);
            wal.delete_segments_before(appended.first).unwrap();
        }
    }
}

/// Runs the child until `reports` appends are acknowledged, kills it, and returns all it reported.
fn run_and_kill(dir: &Path, policy_name: &str, round: u64, reports: u64) -> Vec<[u64; 4]> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env("SEAWALL_KILL_DIR", dir)
        .env("SEAWALL_KILL_POLICY", policy_name)
        .env("SEAWALL_KILL_ROUND", round.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stderr.take().unwrap();
    let mut bytes = vec![0; usize::try_from(reports).unwrap() * REPORT_BYTES];
    let mut have = 0;
    while have < bytes.len() {
        match pipe.read(&mut bytes[have..]).unwrap() {
            // What it says last is why it ended.
            0 => panic!("the child ended: {}", String::from_utf8_lossy(&bytes[..have])),
            read => have += read,
        }
    }
    child.kill().unwrap();
    pipe.read_to_end(&mut bytes).unwrap();
    child.wait().unwrap();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    bytes
        .chunks_exact(REPORT_BYTES)
        .map(|report| std::array::from_fn(|at| number(&report[at * 8..at * 8 + 8])))
        .collect()
}

/// One test at a time starts processes: until it runs its program, a forked process holds what its
/// parent has open, the lock of another test's log with it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn kill_under(policy_name: &str) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut random = Random::new(0xdead);
    let (mut rotations, mut newest) = (0, 0);
    for log in 0..KILLS / KILLS_PER_LOG {
        let temp = tempfile::tempdir().unwrap();
        let mut known: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut deleted_before = 1;
        for kill in 0..KILLS_PER_LOG {
            let round = log * KILLS_PER_LOG + kill;
            let reports = run_and_kill(temp.path(), policy_name, round, 1 + random.below(150));
            for [first, last, thread, counter] in reports {
                if thread == DELETES {
                    deleted_before = deleted_before.max(first);
                    continue;
                }
                for (lsn, counter) in (first..=last).zip(counter..) {
                    let (key, value) = content(scale(policy_name), round, thread, counter);
                    let before = known.insert(lsn, [key, value].concat());
                    assert!(before.is_none(), "round {round}: LSN {lsn} was given twice");
                }
            }
            check(temp.path(), policy_name, round, deleted_before, &mut known);
        }
        let (wal, _) = Wal::open(config(temp.path(), policy_name)).unwrap();
        let segments = wal.stats().segments;
        rotations += segments.len();
        newest += segments.last().unwrap().segment.get();
    }
    println!("{policy_name}: {KILLS} kills, {rotations} segments of {newest}");
    if deletes(policy_name) {
        assert!(newest > 400, "segments come and go: {rotations} of {newest}");
    } else {
        assert!(rotations > 50, "rotation goes on: {rotations} segments");
    }
}

/// Opens the log and compares it with what was acknowledged and not deleted; what it holds is known
/// from then on.
fn check(
    dir: &Path,
    policy_name: &str,
    round: u64,
    deleted_before: u64,
    known: &mut BTreeMap<u64, Vec<u8>>,
) {
    let (wal, info) = Wal::open(config(dir, policy_name)).unwrap();
    assert!(!info.corruption_detected, "round {round}: {info:?}");
    let entries = rest(wal.iter().unwrap());
    let mut found = BTreeMap::new();
    let first = info.report.first_lsn.get();
    assert!(first <= deleted_before, "round {round}: {first} is the first, not {deleted_before}");
    known.retain(|lsn, _| *lsn >= first);
    for (expected, entry) in (first..).zip(&entries) {
        assert_eq!(entry.lsn, Lsn::new(expected), "round {round}: LSNs are dense");
        let number = u64::from_le_bytes(entry.key[..].try_into().unwrap());
        let (round, thread, counter) = (number >> 32, number >> 24 & 0xff, number & 0xff_ffff);
        let (key, value) = content(scale(policy_name), round, thread, counter);
        assert_eq!(entry.value, value, "round {round}: LSN {expected} is made up");
        found.insert(expected, [key, value].concat());
    }
    for (lsn, content) in &*known {
        assert_eq!(found.get(lsn), Some(content), "round {round}: LSN {lsn} was acknowledged");
    }
    let distinct: std::collections::BTreeSet<_> = found.values().collect();
    assert_eq!(distinct.len(), found.len(), "round {round}: a record is there twice");
    *known = found;
}

#[test]
fn kill_200_times_under_always() {
    kill_under("always");
}

#[test]
fn kill_200_times_under_batch() {
    kill_under("batch");
}

#[test]
fn kill_200_times_under_os() {
    kill_under("os");
}

#[test]
fn kill_200_times_under_os_with_appends_to_a_mapping() {
    kill_under("mapped");
}

#[test]
fn kill_200_times_while_files_are_recycled() {
    kill_under("recycled");
}

#[test]
fn kill_200_times_with_long_writes_through_io_uring() {
    kill_under("uring");
}
