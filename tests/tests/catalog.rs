//! The catalog beside a log: who opens the log again reads nothing of segments whose files are as
//! they were, all of those that are not, and never believes what the catalog should not say.
#![cfg(unix)]

use seawall::blocking::Wal;
use seawall::{
    Call, Error, Event, FileId, FsyncPolicy, Lsn, Meter, Operation, Record, RecoveryInfo,
    RecoveryPolicy, RecoveryScan, SegmentId, WalConfig,
};
use seawall_tests::golden::copy_folder;
use seawall_tests::interpose::Watch;
use seawall_tests::random::Random;
use seawall_tests::records::{read_all, record_bytes};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

const SEGMENTS: u64 = 6;

fn config(dir: &Path) -> WalConfig {
    WalConfig {
        max_segment_size: 64 << 10,
        fsync_policy: FsyncPolicy::Os,
        recovery: RecoveryPolicy::Strict,
        ..WalConfig::in_dir(dir)
    }
}

fn catalog(dir: &Path) -> PathBuf {
    dir.join("CATALOG")
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(FileId::Segment(SegmentId::new(number)).to_string())
}

/// A log that has ended so many segments and was not closed.
fn fill(dir: &Path) -> Vec<seawall::Entry> {
    let (wal, _) = Wal::open(config(dir)).unwrap();
    for number in 0..SEGMENTS {
        for record in 0..3 {
            let value = record_bytes(number * 3 + record, 1_000);
            wal.append(&Record::put(b"key", &value)).unwrap();
        }
        wal.rotate().unwrap();
    }
    wal.append(&Record::put(b"key", b"last")).unwrap();
    read_all(&wal)
}

/// Opens a log, and says which segments it read that had ended.
fn open(config: WalConfig) -> (Result<(Wal, RecoveryInfo), Error>, BTreeSet<u64>) {
    let watch = Arc::new(Watch::default());
    let opened = Wal::open(WalConfig { interpose: Some(watch.clone()), ..config });
    let read = |call: &Call| match call.file {
        Some(FileId::Segment(segment)) if call.operation == Operation::Read => Some(segment.get()),
        _ => None,
    };
    let read = watch.calls().iter().filter_map(read).filter(|number| *number <= SEGMENTS).collect();
    (opened, read)
}

/// The same where it opens.
fn reads(config: WalConfig) -> BTreeSet<u64> {
    let (opened, read) = open(config);
    opened.unwrap();
    read
}

fn all() -> BTreeSet<u64> {
    (1..=SEGMENTS).collect()
}

#[test]
fn a_log_opened_again_reads_nothing_of_what_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let records = fill(dir);
    let none = BTreeSet::new();
    assert_eq!(reads(config(dir)), none);
    assert_eq!(reads(WalConfig { scan: RecoveryScan::Full, ..config(dir) }), all());
    let (opened, read) = open(config(dir));
    let (wal, info) = opened.unwrap();
    assert_eq!((read, info.report.segments, info.valid_records), (none.clone(), 7, 19));
    assert_eq!(read_all(&wal), records);
    wal.close().unwrap();

    fs::remove_file(catalog(dir)).unwrap();
    assert_eq!(reads(config(dir)), all(), "it is no part of the log");
    assert_eq!(reads(config(dir)), none, "and is there again");

    // Who only looks uses it as well, and leaves it as it is.
    let before = fs::read(catalog(dir)).unwrap();
    let watch = Arc::new(Watch::default());
    let config = WalConfig { interpose: Some(watch.clone()), ..config(dir) };
    let (read_only, _) = Wal::open_read_only(config).unwrap();
    assert!(read_only.refresh().is_ok());
    let is_first = |call: &Call| call.file == Some(FileId::Segment(SegmentId::FIRST));
    assert!(!watch.calls().iter().any(is_first));
    assert_eq!(fs::read(catalog(dir)).unwrap(), before);
}

/// What was done to the third segment's file, and whether the log opens as if it had not been.
type Change = (&'static str, fn(&Path), bool);

const CHANGES: [Change; 9] = [
    ("the same written again", |path| rewrite(path, |_| {}), true),
    (
        "a copy in its place",
        |path| {
            let copy = path.with_extension("copy");
            fs::copy(path, &copy).unwrap();
            fs::rename(&copy, path).unwrap();
        },
        true,
    ),
    ("its header damaged", |path| rewrite(path, |bytes| bytes[20] ^= 1), false),
    ("its link damaged", |path| rewrite(path, |bytes| bytes[90] ^= 1), false),
    ("cut to nothing", |path| drop(File::create(path).unwrap()), false),
    (
        "cut short",
        |path| File::options().write(true).open(path).unwrap().set_len(500).unwrap(),
        false,
    ),
    (
        "another segment in its place",
        |path| {
            assert!(fs::copy(segment(path.parent().unwrap(), 2), path).is_ok());
        },
        false,
    ),
    (
        "another log's in its place",
        |path| {
            let other = tempfile::tempdir().unwrap();
            fill(other.path());
            assert!(fs::copy(segment(other.path(), 3), path).is_ok());
        },
        false,
    ),
    ("gone", |path| fs::remove_file(path).unwrap(), false),
];

fn rewrite(path: &Path, change: impl Fn(&mut [u8])) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = [0; 128];
    file.read_exact_at(&mut bytes, 0).unwrap();
    change(&mut bytes);
    file.write_all_at(&bytes, 0).unwrap();
}

#[test]
fn a_file_that_changed_is_read_again() {
    for (what, change, is_well) in CHANGES {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let records = fill(dir);
        change(&segment(dir, 3));
        let (opened, read) = open(config(dir));
        if is_well {
            assert_eq!(read, BTreeSet::from([3]), "{what}");
            assert_eq!(read_all(&opened.unwrap().0), records, "{what}");
        } else {
            let told = opened.expect_err(what).to_string();
            fs::remove_file(catalog(dir)).unwrap();
            let untold = Wal::open(config(dir)).expect_err(what).to_string();
            assert_eq!(told, untold, "{what}");
        }
    }
}

/// Truncated where it had ended, a segment has no footer any more where it ends now: it is read to
/// its end, once.
#[test]
fn a_segment_that_was_truncated_is_read_once() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    fill(dir);
    let once = BTreeSet::from([4]);
    for last in [11, 10] {
        let (wal, _) = Wal::open(config(dir)).unwrap();
        wal.truncate_after(Lsn::new(last)).unwrap();
        wal.append(&Record::put(b"key", b"after")).unwrap();
        wal.rotate().unwrap();
        wal.append(&Record::put(b"key", b"last")).unwrap();
        let records = read_all(&wal);
        drop(wal);
        for expected in [&once, &BTreeSet::new()] {
            let (opened, read) = open(config(dir));
            let (wal, info) = opened.unwrap();
            assert_eq!((&read, info.valid_records), (expected, last + 2), "{last}");
            assert_eq!(read_all(&wal), records);
        }
    }
}

#[test]
fn a_copied_log_is_read_again() {
    let (temp, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let records = fill(temp.path());
    copy_folder(temp.path(), other.path()).unwrap();
    let (opened, read) = open(config(other.path()));
    assert_eq!(read, all());
    assert_eq!(read_all(&opened.unwrap().0), records);
}

#[test]
fn a_spoiled_catalog_costs_an_opening_that_reads_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let records = fill(dir);
    let good = fs::read(catalog(dir)).unwrap();
    let entry_bytes = good.len() / usize::try_from(SEGMENTS).unwrap();
    let opens = |what: &str, expected: &[u64]| {
        let (opened, read) = open(config(dir));
        let (wal, info) = opened.unwrap();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), expected, "{what}");
        assert_eq!(info.report.segments, SEGMENTS + 1, "{what}");
        assert_eq!(read_all(&wal), records, "{what}");
    };
    let put = |bytes: &[u8]| fs::write(catalog(dir), bytes).unwrap();
    let everything: Vec<_> = all().into_iter().collect();

    for at in (0..entry_bytes).step_by(3) {
        let mut bytes = good.clone();
        bytes[2 * entry_bytes + at] ^= 1 << (at % 8);
        put(&bytes);
        opens(&format!("byte {at} of the third entry"), &[3]);
    }
    put(&good[..good.len() - 1]);
    opens("an entry that is not all there", &[6]);
    opens("written anew where that stood", &[]);
    put(&[good.as_slice(), &good].concat());
    opens("twice", &[]);
    put(&[&good[entry_bytes..], &good[..entry_bytes]].concat());
    opens("in another order", &[]);
    put(&[]);
    opens("empty", &everything);
    put(&vec![7; 100_000]);
    opens("garbage", &everything);
    let long = catalog(dir).metadata().unwrap().len();
    assert!(long < 10_000, "garbage is not kept: {long}");
    File::create(catalog(dir)).unwrap().set_len(1 << 40).unwrap();
    opens("endless", &everything);
    assert_eq!(catalog(dir).metadata().unwrap().len(), good.len() as u64);

    let other = tempfile::tempdir().unwrap();
    fill(other.path());
    fs::copy(catalog(other.path()), catalog(dir)).unwrap();
    opens("another log's", &everything);

    let outside = other.path().join("outside");
    fs::write(&outside, &good).unwrap();
    fs::remove_file(catalog(dir)).unwrap();
    symlink(&outside, catalog(dir)).unwrap();
    opens("a link to it", &everything);
    assert_eq!(fs::read(&outside).unwrap(), good, "nothing is written through a link");

    fs::remove_file(catalog(dir)).unwrap();
    let made = Command::new("mkfifo").arg(catalog(dir)).status().unwrap();
    assert!(made.success());
    opens("a pipe that nobody writes to", &everything);
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Meter for Count {
    fn event(&self, event: &Event<'_>) {
        if matches!(event, Event::NoCatalog(_)) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_catalog_that_cannot_be_written_is_told_once_and_hinders_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    fs::create_dir(catalog(dir)).unwrap();
    let count = Arc::new(Count::default());
    let (wal, _) = Wal::open(WalConfig { meter: Some(count.clone()), ..config(dir) }).unwrap();
    for _ in 0..SEGMENTS {
        wal.append(&Record::put(b"key", b"value")).unwrap();
        wal.rotate().unwrap();
    }
    drop(wal);
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(reads(config(dir)), all());
}

#[test]
fn a_catalog_does_not_grow_with_what_has_gone() {
    // In one life, and over many.
    for (lives, rotations) in [(1, 400), (20, 20)] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let mut longest = 0;
        for _ in 0..lives {
            let (wal, _) = Wal::open(config(dir)).unwrap();
            for _ in 0..rotations {
                let position = wal.append(&Record::put(b"key", b"value")).unwrap();
                wal.rotate().unwrap();
                wal.delete_segments_before(position).unwrap();
                longest = longest.max(catalog(dir).metadata().map_or(0, |about| about.len()));
            }
        }
        assert!((10_000..30_000).contains(&longest), "{longest} bytes after {lives} lives");
        assert_eq!(reads(config(dir)), BTreeSet::new());
    }
}

#[test]
fn a_catalog_that_says_all_there_is_is_left_alone_however_long() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let (wal, _) = Wal::open(config(dir)).unwrap();
    for _ in 0..300 {
        wal.append(&Record::put(b"key", b"value")).unwrap();
        wal.rotate().unwrap();
    }
    drop(wal);
    let catalog = File::options().write(true).open(catalog(dir)).unwrap();
    assert!(catalog.metadata().unwrap().len() > 300 * 128);
    catalog.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(reads(config(dir)), BTreeSet::new());
    assert_eq!(catalog.metadata().unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH);
}

/// Random lives; after each, the log is opened as it is, and a copy of it, of which nothing is
/// known: both must show the same.
#[test]
fn what_is_known_shows_nothing_else_than_what_is_read() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let recycle_segments = small(random.below(2));
        let config = |dir: &Path| WalConfig { recycle_segments, ..config(dir) };
        for life in 0..6 {
            let copy = tempfile::tempdir().unwrap();
            copy_folder(dir, copy.path()).unwrap();
            let (wal, told) = Wal::open(config(dir)).unwrap();
            let (copied, read) = Wal::open(config(copy.path())).unwrap();
            let about =
                |info: RecoveryInfo| (info.valid_records, info.report.segments, info.report.end);
            assert_eq!(about(told), about(read), "seed {seed}, life {life}");
            assert!(read_all(&wal) == read_all(&copied), "seed {seed}, life {life}");
            for _ in 0..random.below(60) {
                let last = wal.stats().last_lsn.get();
                match random.below(12) {
                    0 => wal.rotate().unwrap(),
                    1 => drop(wal.truncate_after(Lsn::new(last - random.below(last + 1).min(20)))),
                    2 => drop(wal.delete_segments_before(Lsn::new(last / 2)).unwrap()),
                    3 => wal.sync().unwrap(),
                    _ => {
                        let records =
                            vec![Record::put(b"key", &[7; 900]); 1 + small(random.below(30))];
                        wal.append_batch(&records).unwrap();
                    }
                }
            }
            if random.below(2) == 0 {
                wal.close().unwrap();
            }
        }
    }
}

fn small(number: u64) -> usize {
    usize::try_from(number).unwrap()
}
