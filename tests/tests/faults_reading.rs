//! Faults of other logs that have to do with reading, deleting and what a caller is told: D19, D20,
//! D23 to D25, D29.

use seawall::blocking::Wal;
use seawall::{
    Call, Error, Fault, FsyncPolicy, Interpose, Level, Lsn, Operation, Record, SegmentId, Start,
    Visibility, WalConfig,
};
use seawall_core::wire::header::Identity;
use seawall_core::wire::name::FileId;
use seawall_tests::descriptors::open_files;
use seawall_tests::interpose::{EIO, Watch, os_error, writes_frames};
use seawall_tests::random::Random;
use seawall_tests::records::{read_all, record_bytes, rest};
use seawall_tests::runner::number;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

fn config(dir: &Path) -> WalConfig {
    WalConfig {
        max_segment_size: 32 << 10,
        fsync_policy: FsyncPolicy::Os,
        ..WalConfig::in_dir(dir)
    }
}

fn log_of(count: u64) -> (tempfile::TempDir, Wal) {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(config(temp.path())).unwrap();
    append(&wal, 1, count);
    (temp, wal)
}

fn append(wal: &Wal, from: u64, count: u64) {
    for number in from..from + count {
        wal.append(&Record::put(b"k", &record_bytes(number, 500))).unwrap();
    }
}

#[test]
fn fault_d19_what_can_be_appended_can_be_read() {
    for map_sealed in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let config = WalConfig { map_sealed, ..WalConfig::in_dir(temp.path()) };
        let (wal, _) = Wal::open(config).unwrap();
        let sizes = [0, 1, 127, 128, 64 << 10, (128 << 10) + 1, 300_000, 5 << 20];
        for size in sizes {
            wal.append(&Record::put(b"k", &record_bytes(size as u64, size))).unwrap();
        }
        wal.rotate().unwrap();
        for (entry, size) in read_all(&wal).iter().zip(sizes) {
            assert_eq!(entry.value, record_bytes(size as u64, size));
        }
    }
}

#[test]
fn fault_d20_a_reader_crosses_segments_and_follows_the_tail() {
    let (_temp, wal) = log_of(500);
    assert!(wal.stats().segments.len() > 5);
    std::thread::scope(|scope| {
        let mut reader = wal.iter().unwrap();
        let following = scope.spawn(move || {
            for number in 1..=1_500 {
                let (entry, _) = reader.wait_record(None).unwrap().expect("the log is open");
                assert_eq!(entry.lsn.get(), number);
                assert_eq!(entry.value, record_bytes(number, 500));
            }
            reader.wait_record(None)
        });
        append(&wal, 501, 1_000);
        wal.sync().unwrap();
        wal.close().unwrap();
        assert!(following.join().unwrap().unwrap().is_none(), "it ends when the log is closed");
    });
}

#[test]
fn fault_d23_a_thread_reads_its_own_writes() {
    let (_temp, wal) = log_of(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let wal = &wal;
            scope.spawn(move || {
                for number in 0..100 {
                    let value = record_bytes(thread << 32 | number, 300);
                    let record = Record::put(b"k", &value);
                    let position = wal.append(&record).unwrap();
                    let mut reader = wal.read_from_with(position, Visibility::Written).unwrap();
                    let (entry, at) = reader.next_record().unwrap().unwrap();
                    assert_eq!((at, &entry.value[..]), (position, &value[..]));
                }
            });
        }
    });
}

#[test]
fn fault_d24_deleting_before_the_current_position_deletes_all_that_is_sealed() {
    let (temp, wal) = log_of(500);
    let before = wal.stats().segments.len();
    let deleted = wal.delete_segments_before(wal.current_position()).unwrap();
    assert_eq!(deleted, before as u64 - 1);
    let segments = wal.stats().segments;
    assert_eq!(segments.len(), 1);
    assert_eq!(rest(wal.iter().unwrap())[0].lsn, segments[0].first_lsn);
    wal.close().unwrap();
    let (wal, info) = Wal::open(config(temp.path())).unwrap();
    assert_eq!(info.report.first_lsn, segments[0].first_lsn);
    assert_eq!(read_all(&wal).last().unwrap().lsn.get(), 500);
}

#[test]
fn fault_d25_a_reader_of_what_is_deleted_is_told_and_no_file_stays_open() {
    let (temp, wal) = log_of(500);
    let mut reader = wal.iter().unwrap();
    reader.next_record().unwrap().unwrap();
    wal.delete_segments_before(Lsn::new(400)).unwrap();
    assert!(matches!(reader.next_record(), Err(Error::Deleted { .. })));
    assert!(matches!(wal.read_from(Lsn::new(3)), Err(Error::Deleted { .. })));
    drop(reader);
    append(&wal, 501, 1);
    for target in open_files(temp.path()) {
        assert!(!target.to_string_lossy().contains("(deleted)"), "{}", target.display());
    }
}

/// However many readers seek in however many segments, few files stay open for them, and none of
/// what is deleted: it is gone, or used again.
#[cfg(target_os = "linux")]
#[test]
fn what_is_kept_for_readers_is_bounded_and_goes_with_its_segment() {
    for recycle_segments in [0, 2] {
        let temp = tempfile::tempdir().unwrap();
        let config = WalConfig { recycle_segments, ..config(temp.path()) };
        let (wal, _) = Wal::open(config).unwrap();
        append(&wal, 1, 4_000);
        assert!(wal.stats().segments.len() > 60);
        let mut readers: Vec<_> = (0..30).map(|_| wal.iter().unwrap()).collect();
        for number in (0..200).map(|step| step * 1_237 % 4_000 + 1).chain([4_000]) {
            for reader in &mut readers {
                reader.seek(Lsn::new(number)).unwrap();
                assert_eq!(reader.next_record().unwrap().unwrap().0.lsn.get(), number);
            }
        }
        // 32 segments, and the handful that the log itself has open, with its lock.
        let kept = if cfg!(target_pointer_width = "64") { 32 } else { 4 };
        assert!((kept + 1..=kept + 8).contains(&open_files(temp.path()).len()));
        wal.delete_segments_before(Lsn::new(4_000)).unwrap();
        for target in open_files(temp.path()) {
            assert!(!target.to_string_lossy().contains("(deleted)"), "{}", target.display());
        }
        append(&wal, 4_001, 200);
        let segments = wal.stats().segments;
        let recycled = segments.iter().filter(|stat| is_recycled(temp.path(), stat.segment));
        assert_eq!(recycled.count(), recycle_segments);
        for reader in &mut readers {
            assert_eq!(reader.next_record().unwrap().unwrap().0.lsn.get(), 4_001);
        }
    }
}

/// Whoever shortens a file waits until the other end is dropped.
struct HeldTrims(Mutex<Receiver<()>>);

impl Interpose for HeldTrims {
    fn before(&self, call: &Call) -> Option<Fault> {
        if call.operation == Operation::Truncate {
            assert!(self.0.lock().unwrap().recv().is_err());
        }
        None
    }
}

/// The space that a segment did not use is given back once it has ended: a mapping of it is not to
/// be looked at there.
#[test]
fn a_segment_that_is_trimmed_while_it_is_read_mapped_is_read_to_its_end() {
    let temp = tempfile::tempdir().unwrap();
    let (let_go, held) = channel();
    let config = WalConfig {
        map_sealed: true,
        max_segment_size: 16 << 20,
        // All at once: how far the thread that does it has come makes no difference.
        reserve_size: Some(16 << 20),
        interpose: Some(Arc::new(HeldTrims(Mutex::new(held)))),
        ..config(temp.path())
    };
    let (wal, _) = Wal::open(config).unwrap();
    append(&wal, 1, 3_000);
    wal.rotate().unwrap();
    append(&wal, 3_001, 1);
    let path = temp.path().join(FileId::Segment(SegmentId::FIRST).name().to_string());
    let mut reader = wal.read_from(Lsn::new(1)).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().0.lsn.get(), 1);
    let reserved = path.metadata().unwrap().len();
    drop(let_go);
    wal.close().unwrap();
    assert!(path.metadata().unwrap().len() + (64 << 10) < reserved, "it was trimmed meanwhile");
    assert_eq!(rest(reader).last().unwrap().lsn.get(), 3_001);
}

/// Whether the file was another segment's before, as its header says.
#[cfg(target_os = "linux")]
fn is_recycled(dir: &Path, segment: SegmentId) -> bool {
    let bytes = std::fs::read(dir.join(FileId::Segment(segment).name().to_string())).unwrap();
    Identity::parse(&bytes, crc32c::crc32c_append).unwrap().earlier.is_some()
}

/// Readers that live long go to and fro while segments end, go, and are cut.
/// `SEAWALL_SEED=n` and the name of the test run one life alone.
#[test]
fn seeks_find_every_record_whatever_becomes_of_its_segment() {
    let seeds = number("SEAWALL_SEED").map_or(0..12, |seed| seed..seed + 1);
    for seed in seeds {
        println!("replay with SEAWALL_SEED={seed}");
        seek_through_a_life(&mut Random::new(seed));
    }
}

fn seek_through_a_life(random: &mut Random) {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig {
        recycle_segments: random.index(3),
        map_sealed: random.chance(1, 3),
        max_segment_size: 16 << 10,
        ..config(temp.path())
    };
    let (wal, _) = Wal::open(config).unwrap();
    let begin = |from| wal.read_from_with(from, Visibility::Written).unwrap();
    let mut readers: Vec<_> = (0..3).map(|_| begin(Start::First)).collect();
    // By LSN, from `first` on: where it begins, and its value.
    let (mut first, mut model) = (1, Vec::new());
    for step in 0..1_500_u64 {
        let any = |random: &mut Random| first + random.below(model.len().max(1) as u64);
        match random.below(40) {
            0 => wal.rotate().unwrap(),
            1 => {
                let before = any(random);
                wal.delete_segments_before(Lsn::new(before)).unwrap();
                let now = wal.stats().first_lsn.get();
                assert!((first..=before).contains(&now), "{first} first, now {now}, not {before}");
                model.drain(..usize::try_from(now - first).unwrap());
                first = now;
            }
            2 if !model.is_empty() => {
                let last = any(random);
                wal.truncate_after(Lsn::new(last)).unwrap();
                model.truncate(usize::try_from(last - first).unwrap() + 1);
            }
            3..20 => {
                let value = record_bytes(step, random.index(1_500));
                let position = wal.append_with(&Record::put(b"k", &value), Level::Os).unwrap();
                assert_eq!(position.last.get(), first + model.len() as u64);
                model.push((position.position, value));
            }
            _ if model.is_empty() => {}
            _ => {
                let lsn = any(random);
                let (position, value) = &model[usize::try_from(lsn - first).unwrap()];
                let start = if random.chance(1, 2) {
                    Start::from(Lsn::new(lsn))
                } else {
                    (*position).into()
                };
                let which = random.index(readers.len());
                if random.chance(1, 10) {
                    readers[which] = begin(start);
                }
                let reader = &mut readers[which];
                reader.seek(start).unwrap();
                let (entry, at) = reader.next_record().unwrap().unwrap();
                assert_eq!((entry.lsn.get(), at), (lsn, *position));
                assert_eq!(&entry.value[..], value);
                if let Some((_, value)) = model.get(usize::try_from(lsn + 1 - first).unwrap()) {
                    assert_eq!(&reader.next_record().unwrap().unwrap().0.value[..], value);
                } else {
                    assert!(reader.next_record().unwrap().is_none());
                }
            }
        }
    }
}

#[test]
fn a_reader_at_the_end_of_a_segment_goes_on_when_that_is_deleted() {
    let (_temp, wal) = log_of(500);
    let second = wal.stats().segments[1].first_lsn;
    let mut reader = wal.iter().unwrap();
    while reader.next_lsn() < second {
        reader.next_record().unwrap();
    }
    let mut behind = wal.iter().unwrap();
    behind.next_record().unwrap();
    wal.delete_segments_before(second).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().0.lsn, second);
    assert_eq!(rest(reader).last().unwrap().lsn.get(), 500);
    let error = behind.next_record().unwrap_err();
    assert!(matches!(error, Error::Deleted { first, .. } if first == second), "{error}");
    // All is deleted that can be, and the reader has read all of it.
    let mut reader = wal.iter().unwrap();
    let last = wal.stats().segments.last().unwrap().first_lsn;
    while reader.next_lsn() < last {
        reader.next_record().unwrap();
    }
    wal.delete_segments_before(wal.current_position()).unwrap();
    assert_eq!(rest(reader)[0].lsn, last);
}

#[test]
fn fault_d29_a_record_with_a_ttl_expires_by_the_time_of_its_writing() {
    let (_temp, wal) = log_of(0);
    let before = SystemTime::now();
    wal.append(&Record::put_with_ttl(b"session", b"1", Duration::from_mins(1))).unwrap();
    let entry = read_all(&wal).remove(0);
    assert_eq!(entry.ttl, Some(Duration::from_mins(1)));
    assert!(entry.written_at.is_some());
    assert!(!entry.is_expired_at(before));
    assert!(!entry.is_expired_at(before + Duration::from_secs(59)));
    assert!(entry.is_expired_at(SystemTime::now() + Duration::from_secs(61)));
}

#[test]
fn fault_d29_a_removal_that_fails_leaves_no_hole() {
    let temp = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    let config = || WalConfig { interpose: Some(watch.clone()), ..config(temp.path()) };
    let (wal, _) = Wal::open(config()).unwrap();
    append(&wal, 1, 500);
    let mut removals = 0;
    watch.set(move |call| {
        removals += u32::from(call.operation == Operation::Remove);
        let fails = call.operation == Operation::Remove && removals == 2;
        fails.then(|| Fault::Fails(os_error(EIO)))
    });
    wal.delete_segments_before(Lsn::new(400)).unwrap();
    drop(wal);
    let (wal, info) = Wal::open(config()).unwrap();
    assert!(!info.corruption_detected, "{info:?}");
    let entries = read_all(&wal);
    assert!(entries[0].lsn.get() > 1 && entries[0].lsn.get() <= 400);
    assert_eq!(entries.len() as u64, 501 - entries[0].lsn.get());
}

#[test]
fn truncating_keeps_what_comes_before_and_tells_readers() {
    for kept in [1, 57, 58, 499, 500, 0] {
        let (temp, wal) = log_of(500);
        let mut reader = wal.read_from(Lsn::new(500)).unwrap();
        reader.next_record().unwrap().unwrap();
        wal.truncate_after(Lsn::new(kept)).unwrap();
        if kept < 500 {
            let error = reader.next_record();
            assert!(matches!(error, Err(Error::Truncated { .. })), "{kept}: {error:?}");
        }
        let value = record_bytes(7_000, 100);
        let next = wal.append_with(&Record::put(b"k", &value), Level::Disk).unwrap();
        assert_eq!(next.first.get(), kept + 1);
        for reopened in [false, true] {
            let entries = if reopened {
                let copy = config(temp.path());
                let (again, info) = Wal::open(copy).unwrap();
                assert!(!info.corruption_detected, "{info:?}");
                read_all(&again)
            } else {
                read_all(&wal)
            };
            assert_eq!(entries.len() as u64, kept + 1);
            assert_eq!(entries.last().unwrap().value, value);
            if !reopened {
                wal.close().unwrap();
            }
        }
    }
}

#[test]
fn a_truncation_inside_a_batch_keeps_its_beginning() {
    let (temp, wal) = log_of(3);
    let values: Vec<_> = (10..20).map(|number| record_bytes(number, 40)).collect();
    let records: Vec<_> = values.iter().map(|value| Record::put(b"b", value)).collect();
    wal.append_batch(&records).unwrap();
    wal.truncate_after(Lsn::new(8)).unwrap();
    wal.append(&Record::put(b"k", b"nine")).unwrap();
    let entries = read_all(&wal);
    assert_eq!(entries.len(), 9);
    wal.close().unwrap();
    let (wal, _) = Wal::open(config(temp.path())).unwrap();
    assert_eq!(read_all(&wal), entries);
    let mut reader = wal.read_from(Start::Lsn(Lsn::new(8))).unwrap();
    assert_eq!(reader.next_lsn(), Lsn::new(8));
    assert_eq!(reader.next_record().unwrap().unwrap().0.lsn, Lsn::new(8));
    assert_eq!(reader.next_lsn(), Lsn::new(9));
}

#[test]
fn a_mapped_reader_that_meets_a_segment_being_sealed_reads_all_of_it() {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig {
        map_sealed: true,
        preallocate: false,
        max_segment_size: 4 << 10,
        ..config(temp.path())
    };
    let (wal, _) = Wal::open(config).unwrap();
    wal.append(&Record::put(b"k", &record_bytes(1, 500))).unwrap();
    let mut reader = wal.iter().unwrap();
    std::thread::scope(|scope| {
        let following = scope.spawn(move || {
            for number in 1..=400 {
                // No clock reaches that: it is no timeout, and no overflow either.
                let next = reader.wait_record(Some(Duration::MAX)).unwrap();
                let (entry, _) = next.expect("the log is open");
                assert_eq!(entry.value, record_bytes(number, 500));
            }
        });
        for number in 2..=400 {
            let level = if number % 3 == 0 { Level::Disk } else { Level::Buffered };
            wal.append_with(&Record::put(b"k", &record_bytes(number, 500)), level).unwrap();
        }
        wal.sync().unwrap();
        following.join().unwrap();
    });
}

/// A reader is shown what its visibility says, no less and no more, across rotations.
#[test]
fn a_reader_is_shown_what_no_crash_takes_back_or_what_the_kernel_has() {
    let (_temp, wal) = log_of(0);
    let mut durable = wal.read_from_with(Start::First, Visibility::Durable).unwrap();
    let mut written = wal.read_from_with(Start::First, Visibility::Written).unwrap();
    for number in 1..=6_u64 {
        let key = number.to_le_bytes();
        wal.append_with(&Record::put(&key, b"v"), Level::Buffered).unwrap();
        assert!(written.next_record().unwrap().is_none(), "{number} is in memory only");
        wal.flush().unwrap();
        let (entry, _) = written.next_record().unwrap().expect("the kernel has it");
        assert_eq!(entry.lsn.get(), number);
        assert!(durable.next_record().unwrap().is_none(), "{number} is not durable");
        wal.sync().unwrap();
        let (entry, _) = durable.next_record().unwrap().expect("it is durable");
        assert_eq!(entry.lsn.get(), number);
        if number % 2 == 0 {
            wal.rotate().unwrap();
        }
    }
}

/// Who is shown what the kernel has need not wait for the disk.
#[test]
fn a_follower_of_what_is_written_waits_for_no_sync() {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig { fsync_policy: FsyncPolicy::Os, ..WalConfig::in_dir(temp.path()) };
    let (wal, _) = Wal::open(config).unwrap();
    let mut reader = wal.read_from_with(Start::First, Visibility::Written).unwrap();
    std::thread::scope(|threads| {
        let following = threads.spawn(move || {
            let mut found = 0;
            while let Some((entry, _)) = reader.wait_record(Some(Duration::from_secs(10))).unwrap()
            {
                found = entry.lsn.get();
                if found == 100 {
                    break;
                }
            }
            found
        });
        append(&wal, 1, 100);
        assert_eq!(following.join().unwrap(), 100);
        assert!(wal.stats().durable_lsn.get() < 100, "nobody has synced");
    });
}

/// Who waits for what will never come is told so, and what is durable can be read all the same.
#[test]
fn a_follower_of_a_log_that_fails_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    let config = WalConfig { interpose: Some(watch.clone()), ..WalConfig::in_dir(temp.path()) };
    let (wal, _) = Wal::open(config).unwrap();
    wal.append_with(&Record::put(b"k", b"kept"), Level::Disk).unwrap();
    for visibility in [Visibility::Durable, Visibility::Written] {
        let mut reader = wal.read_from_with(Start::First, visibility).unwrap();
        assert!(reader.next_record().unwrap().is_some());
        std::thread::scope(|threads| {
            let following = threads.spawn(|| reader.wait_record(None));
            watch.set(|call| writes_frames(call).then(|| Fault::Fails(os_error(EIO))));
            wal.append_with(&Record::put(b"k", b"lost"), Level::Disk).unwrap_err();
            let told = following.join().unwrap();
            assert!(matches!(told, Err(Error::Poisoned(_))), "{told:?}");
        });
        assert!(matches!(reader.wait_record(None), Err(Error::Poisoned(_))));
        reader.seek(Start::First).unwrap();
        assert!(reader.wait_record(None).unwrap().is_some());
    }
    drop(wal);
}
