//! The process that hosts the component is killed with SIGKILL while it appends, 100 times.
//! Invariants 1 to 8.
//!
//! The child is this same program, started with `SEAWALL_KILL_DIR` set. It reports each
//! acknowledged append on its standard error, one write each, so that a report is whole or absent.

use crate::load;
use seawall::blocking;
use seawall_core::record::Record;
use seawall_tests::random::Random;
use seawall_tests::records::{record_bytes, rest};
use seawall_wasmtime::{Program, Wal, types};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

const KILLS: u64 = 100;
/// A fresh log each so many kills, so that checking all of it stays quick.
const KILLS_PER_LOG: u64 = 25;
const THREADS: u64 = 3;
/// First LSN, last LSN, thread, counter.
const REPORT_BYTES: usize = 32;

fn config(program: &Program) -> types::Config {
    types::Config {
        segment_bytes_max: 16 << 10,
        fsync_policy: types::FsyncPolicy::Always,
        ..program.default_config()
    }
}

/// What thread, round and counter make: the key says which, the value follows from the key.
fn content(round: u64, thread: u64, counter: u64) -> (Vec<u8>, Vec<u8>) {
    let number = round << 32 | thread << 24 | counter;
    let length = usize::try_from(Random::new(number).below(400)).unwrap();
    (number.to_le_bytes().to_vec(), record_bytes(number, length))
}

#[test]
fn child() {
    let Some(dir) = std::env::var_os("SEAWALL_KILL_DIR") else { return };
    let code = std::env::var_os("SEAWALL_KILL_CODE").unwrap();
    let round: u64 = std::env::var("SEAWALL_KILL_ROUND").unwrap().parse().unwrap();
    let program = load::load(Path::new(&code));
    let (wal, _) = Wal::open(&program, dir, config(&program)).wait().unwrap();
    let reports = Mutex::new(std::io::stderr());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (wal, reports) = (&wal, &reports);
            scope.spawn(move || append_forever(wal, reports, round, thread));
        }
    });
}

fn append_forever(wal: &Wal, reports: &Mutex<std::io::Stderr>, round: u64, thread: u64) {
    let mut random = Random::new(round << 8 | thread);
    let mut counter = 0;
    loop {
        let count = if random.chance(1, 8) { 5 } else { 1 };
        let contents: Vec<_> =
            (counter..counter + count).map(|counter| content(round, thread, counter)).collect();
        let records: Vec<_> = contents.iter().map(|(key, value)| Record::put(key, value)).collect();
        let appended = wal.append_batch(&records).wait().unwrap();
        let mut report = [0; REPORT_BYTES];
        let numbers = [appended.first, appended.last, thread, counter];
        for (place, number) in report.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        reports.lock().unwrap().write_all(&report).unwrap();
        counter += count;
    }
}

/// Runs the child until `reports` appends are acknowledged, kills it, and returns all it reported.
fn run_and_kill(dir: &Path, code: &Path, round: u64, reports: u64) -> Vec<[u64; 4]> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["kill::child", "--exact", "--nocapture", "--test-threads=1"])
        .env("SEAWALL_KILL_DIR", dir)
        .env("SEAWALL_KILL_CODE", code)
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

/// What the log holds: what was acknowledged is there, whole, once, and nothing else.
fn check(dir: &Path, round: u64, known: &mut BTreeMap<u64, Vec<u8>>) -> usize {
    let config = seawall::WalConfig {
        max_segment_size: 16 << 10,
        recovery: seawall::RecoveryPolicy::Strict,
        ..seawall::WalConfig::in_dir(dir)
    };
    let (wal, _) = blocking::Wal::open(config).unwrap();
    let entries = rest(wal.iter().unwrap());
    let mut found = BTreeMap::new();
    for (expected, entry) in (1..).zip(&entries) {
        assert_eq!(entry.lsn.get(), expected, "round {round}: LSNs are dense");
        let number = u64::from_le_bytes(entry.key[..].try_into().unwrap());
        let (round, thread, counter) = (number >> 32, number >> 24 & 0xff, number & 0xff_ffff);
        let (key, value) = content(round, thread, counter);
        assert_eq!(entry.value, value, "round {round}: LSN {expected} is made up");
        found.insert(expected, [key, value].concat());
    }
    for (lsn, content) in &*known {
        assert_eq!(found.get(lsn), Some(content), "round {round}: LSN {lsn} was acknowledged");
    }
    let distinct: BTreeSet<_> = found.values().collect();
    assert_eq!(distinct.len(), found.len(), "round {round}: a record is there twice");
    *known = found;
    wal.stats().segments.len()
}

#[test]
fn the_host_is_killed_100_times() {
    let codes = tempfile::tempdir().unwrap();
    let code = codes.path().join("code");
    load::precompile(&code);
    let mut random = Random::new(0xdead);
    let mut segments = 0;
    for log in 0..KILLS / KILLS_PER_LOG {
        let temp = tempfile::tempdir().unwrap();
        let mut known: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for kill in 0..KILLS_PER_LOG {
            let round = log * KILLS_PER_LOG + kill;
            let reports = run_and_kill(temp.path(), &code, round, 1 + random.below(60));
            for [first, last, thread, counter] in reports {
                for (lsn, counter) in (first..=last).zip(counter..) {
                    let (key, value) = content(round, thread, counter);
                    let before = known.insert(lsn, [key, value].concat());
                    assert!(before.is_none(), "round {round}: LSN {lsn} was given twice");
                }
            }
            segments = check(temp.path(), round, &mut known);
        }
    }
    println!("{KILLS} kills");
    assert!(segments > 5, "rotation goes on: {segments} segments");
}
