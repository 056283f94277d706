//! Faults of other logs that have to do with opening one: D11 to D18, D21, D26.

use seawall::blocking::Wal;
use seawall::{
    Compression, Error, Fault, FsyncPolicy, Operation, Record, RecoveryError, RecoveryPolicy,
    RecoveryScan, WalConfig,
};
use seawall_core::id::{Lsn, Position, SegmentId, Time};
use seawall_core::wire::checksum::{ChecksumKind, Place};
use seawall_core::wire::frame::{Frame, FrameKind, Head, Parsed};
use seawall_core::wire::header::{HEADER_BYTES, Identity};
use seawall_tests::interpose::{ENOSPC, Watch, os_error};
use seawall_tests::records::{read_all, record_bytes};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Settings under which 60 records of 200 bytes make several segments.
fn small(dir: &Path) -> WalConfig {
    WalConfig {
        max_segment_size: 4 << 10,
        fsync_policy: FsyncPolicy::Always,
        scan: RecoveryScan::Full,
        ..WalConfig::in_dir(dir)
    }
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.wal"))
}

/// A log of `count` records over several segments, closed.
fn closed_log(count: u64) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(small(temp.path())).unwrap();
    for number in 1..=count {
        wal.append(&Record::put(b"k", &record_bytes(number, 200))).unwrap();
    }
    wal.close().unwrap();
    temp
}

/// What a kill leaves behind: the folder copied while the log is open.
fn killed_log(config: WalConfig, count: u64) -> tempfile::TempDir {
    let (wal, _) = Wal::open(config).unwrap();
    for number in 1..=count {
        wal.append(&Record::put(b"k", &record_bytes(number, 200))).unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    // The manifest first: it may not speak of a segment that was made after the copy of the folder.
    let dir = &wal.config().dir;
    std::fs::copy(dir.join("MANIFEST"), copy.path().join("MANIFEST")).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "MANIFEST" {
            // A segment being made may just have got its final name.
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).ok();
        }
    }
    copy
}

/// The records are the first so many of those appended.
fn assert_prefix(wal: &Wal) -> u64 {
    let entries = read_all(wal);
    for (number, entry) in (1..).zip(&entries) {
        assert_eq!(entry.lsn.get(), number);
        assert_eq!(entry.value, record_bytes(number, 200), "LSN {number}");
    }
    entries.len() as u64
}

fn flip(path: &Path, at: usize) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, &bytes).unwrap();
    bytes
}

#[test]
fn fault_d11_the_log_ends_at_a_flipped_bit_and_nothing_after_it_is_replayed() {
    let temp = closed_log(60);
    let damaged = flip(&segment(temp.path(), 2), 1_000);
    let later = std::fs::read(segment(temp.path(), 3)).unwrap();
    let (wal, info) = Wal::open(small(temp.path())).unwrap();
    let damage = info.report.damage.expect("it is reported");
    assert!(info.corruption_detected);
    assert_eq!(damage.position.segment, SegmentId::new(2));
    assert_eq!((damage.first_lost.get() - 1, damage.last_lost.get()), (assert_prefix(&wal), 60));
    assert_eq!(damage.durable.get(), 60);
    let cut = temp
        .path()
        .join("quarantine")
        .join(format!("000001-{:020}-{}.cut", 2, damage.position.offset));
    let start = usize::try_from(damage.position.offset).unwrap();
    assert_eq!(std::fs::read(cut).unwrap(), &damaged[start..], "byte for byte");
    let whole = temp.path().join("quarantine").join(format!("000001-{:020}.wal", 3));
    assert_eq!(std::fs::read(whole).unwrap(), later, "byte for byte");
    wal.append(&Record::put(b"k", b"goes on")).unwrap();
    wal.close().unwrap();
    let (_, info) = Wal::open(small(temp.path())).unwrap();
    assert!(!info.corruption_detected, "mended once and for all: {info:?}");
}

#[test]
fn fault_d12_a_missing_or_misnamed_segment_is_named() {
    let temp = closed_log(60);
    let (second, third) = (segment(temp.path(), 2), segment(temp.path(), 3));
    let kept = std::fs::read(&second).unwrap();
    std::fs::remove_file(&second).unwrap();
    let error = Wal::open(small(temp.path())).unwrap_err();
    assert!(error.to_string().contains("00000000000000000002.wal is missing"), "{error}");
    std::fs::copy(&third, &second).unwrap();
    let error = Wal::open(small(temp.path())).unwrap_err();
    assert!(error.to_string().contains("names segment 3"), "{error}");
    let other = closed_log(60);
    std::fs::copy(segment(other.path(), 2), &second).unwrap();
    let error = Wal::open(small(temp.path())).unwrap_err();
    assert!(matches!(error, Error::Recovery { error: RecoveryError::Foreign { .. }, .. }));
    std::fs::write(&second, kept).unwrap();
    let (wal, info) = Wal::open(small(temp.path())).unwrap();
    assert!(!info.corruption_detected);
    assert_eq!(assert_prefix(&wal), 60);
}

#[test]
fn fault_d12_the_newest_and_the_oldest_segment_are_missed_too() {
    for which in [1, 4] {
        let temp = closed_log(60);
        std::fs::remove_file(segment(temp.path(), which)).unwrap();
        let error = Wal::open(small(temp.path())).unwrap_err();
        assert!(error.to_string().contains(&format!("{which}.wal is missing")), "{error}");
        let salvage = WalConfig { recovery: RecoveryPolicy::Salvage, ..small(temp.path()) };
        let (wal, info) = Wal::open(salvage).unwrap();
        assert!(info.corruption_detected);
        assert!(!read_all(&wal).is_empty());
    }
}

#[test]
fn fault_d13_a_plain_kill_is_no_corruption() {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig { fsync_policy: FsyncPolicy::Os, ..WalConfig::in_dir(temp.path()) };
    let copy = killed_log(config, 100);
    let (wal, info) = Wal::open(WalConfig::in_dir(copy.path())).unwrap();
    assert!(!info.corruption_detected);
    assert_eq!(info.bytes_truncated, 0, "reserved space is not counted");
    assert_eq!(assert_prefix(&wal), 100);
}

#[test]
fn fault_d14_a_torn_tail_is_cut_on_a_full_disk() {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig { preallocate: false, ..WalConfig::in_dir(temp.path()) };
    let copy = killed_log(config, 100);
    let path = segment(copy.path(), 1);
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 50).unwrap();
    let watch = Arc::new(Watch::default());
    watch.set(|call| {
        let takes_room =
            matches!(call.operation, Operation::Create | Operation::Write | Operation::Allocate);
        takes_room.then(|| Fault::Fails(os_error(ENOSPC)))
    });
    let config = WalConfig { interpose: Some(watch), ..WalConfig::in_dir(copy.path()) };
    let (wal, info) = Wal::open(config).unwrap();
    assert!(!info.corruption_detected);
    assert!(info.bytes_truncated > 0);
    assert_eq!(assert_prefix(&wal), 99);
}

/// A log of one record, and behind it in the file what `put` makes for that place, which is
/// returned.
fn put_behind_one(config: &WalConfig, put: impl FnOnce(Place, &mut Vec<u8>)) -> Position {
    let (wal, _) = Wal::open(config.clone()).unwrap();
    wal.append(&Record::put(b"k", b"before")).unwrap();
    wal.sync().unwrap();
    let end = wal.current_position();
    drop(wal);
    let path = segment(&config.dir, 1);
    let mut content = std::fs::read(&path).unwrap();
    content.truncate(usize::try_from(end.offset).unwrap());
    let identity = Identity::parse(&content[..HEADER_BYTES], crc32c::crc32c_append).unwrap();
    let Identity { salt, segment, .. } = identity;
    put(Place { salt, segment, offset: end.offset, lsn: Lsn::new(2) }, &mut content);
    std::fs::write(&path, &content).unwrap();
    end
}

#[test]
fn fault_d16_a_record_that_cannot_be_decoded_cuts_nothing_after_it() {
    let temp = tempfile::tempdir().unwrap();
    let config = || WalConfig { preallocate: false, ..WalConfig::in_dir(temp.path()) };
    put_behind_one(&config(), |place, content| {
        let (checksum, crc) = (ChecksumKind::Crc32c, crc32c::crc32c_append);
        let frame = Frame { checksum, crc, place, durable: Lsn::new(1), now: Time::default() };
        frame.put_body(content, FrameKind::Unknown(6), b"of a later version");
    });
    let (wal, info) = Wal::open(config()).unwrap();
    assert_eq!((info.corruption_detected, info.bytes_truncated), (false, 0));
    wal.append(&Record::put(b"k", b"after")).unwrap();
    let mut reader = wal.iter().unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().0.value, &b"before"[..]);
    assert!(matches!(reader.next_record(), Err(Error::Unreadable { .. })));
    assert_eq!(reader.next_record().unwrap().unwrap().0.value, &b"after"[..]);
}

/// A record that nobody can read is no reason not to open the log, also where it is the last.
#[test]
fn a_last_record_that_cannot_be_read_has_its_place() {
    let temp = tempfile::tempdir().unwrap();
    let config = || WalConfig { preallocate: false, ..WalConfig::in_dir(temp.path()) };
    let end = put_behind_one(&config(), |place, content| {
        // A record whose value is not what its codec, LZ4, makes of 100 bytes.
        let mut frame = vec![1 | 1 << 5, 0, 0, 0, 0, 2, 0, 0, 1, 4, 100];
        frame.extend_from_slice(b"kxxxx");
        let (checksum, crc) = (ChecksumKind::Crc32c, crc32c::crc32c_append);
        let Parsed::Head(head) = Head::parse(&frame, checksum) else { panic!("a head") };
        let sum = head.digest(&frame, checksum, crc).at(place).to_le_bytes();
        frame[1..5].copy_from_slice(&sum[..4]);
        content.extend_from_slice(&frame);
    });
    let (wal, info) = Wal::open(config()).unwrap();
    assert_eq!((info.valid_records, info.last_valid_position), (2, Some(end)));
    let mut reader = wal.read_from(end).unwrap();
    assert!(matches!(reader.next_record(), Err(Error::Decompress { .. })));
    // One that is longer than the settings allow now.
    wal.append(&Record::put(b"k", &vec![7; 2 << 20])).unwrap();
    wal.close().unwrap();
    let short = WalConfig { max_record_size: 1 << 10, ..small(temp.path()) };
    let (wal, info) = Wal::open(short).unwrap();
    assert_eq!((info.valid_records, info.last_valid_position), (3, None));
    wal.append(&Record::put(b"k", b"after")).unwrap();
}

#[test]
fn fault_d17_strays_do_no_harm_and_leftovers_go() {
    let temp = closed_log(60);
    std::fs::write(temp.path().join("notes.txt"), "mine").unwrap();
    std::fs::create_dir(temp.path().join("backup")).unwrap();
    let leftover = temp.path().join("00000000000000000099.wal.new");
    std::fs::write(&leftover, "half made").unwrap();
    let (wal, info) = Wal::open(small(temp.path())).unwrap();
    assert_eq!(info.report.strays, ["backup", "notes.txt"]);
    assert!(!leftover.exists());
    assert!(temp.path().join("notes.txt").exists());
    assert_eq!(assert_prefix(&wal), 60);
}

#[test]
fn fault_d18_the_last_valid_position_is_that_of_a_record() {
    for (count, batch) in [(1, false), (60, false), (13, true)] {
        let temp = closed_log(count);
        let mut last = record_bytes(count, 200);
        if batch {
            let (wal, _) = Wal::open(small(temp.path())).unwrap();
            let values: Vec<_> = (0..5).map(|number| record_bytes(900 + number, 30)).collect();
            let records: Vec<_> = values.iter().map(|value| Record::put(b"b", value)).collect();
            wal.append_batch(&records).unwrap();
            last.clone_from(&values[4]);
        }
        let (wal, info) = Wal::open(small(temp.path())).unwrap();
        let position = info.last_valid_position.expect("there are records");
        let mut reader = wal.read_from(position).unwrap();
        let (entry, at) = reader.next_record().unwrap().unwrap();
        assert_eq!((at, &entry.value[..]), (position, &last[..]));
        assert!(reader.next_record().unwrap().is_none());
    }
}

/// What recovery saw last is what stands before the hole; the last record is behind it.
#[test]
fn the_last_position_of_a_salvaged_log_is_behind_its_hole() {
    let log = closed_log(12);
    let mut content = std::fs::read(segment(log.path(), 1)).unwrap();
    content[1_000] ^= 1;
    std::fs::write(segment(log.path(), 1), content).unwrap();
    let salvage = || WalConfig { recovery: RecoveryPolicy::Salvage, ..small(log.path()) };
    let (wal, info) = Wal::open(salvage()).unwrap();
    assert!(info.corruption_detected);
    let position = info.last_valid_position.expect("there are records");
    let first = wal.read_from(position).unwrap().next_record().unwrap().unwrap();
    assert_eq!((first.0.lsn, first.1), (Lsn::new(12), position));
    drop(wal);
    let (_, info) = Wal::open_read_only(salvage()).unwrap();
    assert_eq!(info.last_valid_position, Some(position));
}

#[test]
fn fault_d21_a_bad_length_in_the_middle_is_no_clean_end() {
    let temp = closed_log(60);
    let tail = WalConfig { scan: RecoveryScan::Tail, ..small(temp.path()) };
    let (wal, _) = Wal::open(tail.clone()).unwrap();
    let mut reader = wal.iter().unwrap();
    let (_, first) = reader.next_record().unwrap().unwrap();
    drop(wal);
    // Flags, checksum, low LSN and lag come first; then the key's length.
    let at = usize::try_from(first.offset).unwrap() + 8;
    let mut bytes = std::fs::read(segment(temp.path(), 1)).unwrap();
    bytes[at] = 100;
    std::fs::write(segment(temp.path(), 1), bytes).unwrap();
    let (wal, _) = Wal::open(tail).unwrap();
    let mut reader = wal.iter().unwrap();
    assert!(matches!(reader.next_record(), Err(Error::Damaged { .. })));
    reader.skip_damage();
    assert_eq!(reader.next_record().unwrap().unwrap().0.lsn.get(), 2, "nothing is hidden");
    drop(wal);
    let (_, info) = Wal::open(small(temp.path())).unwrap();
    let damage = info.report.damage.expect("a full scan reports it");
    assert_eq!(damage.position, first);
}

#[test]
fn fault_d26_there_are_as_many_segments_as_are_due() {
    let temp = tempfile::tempdir().unwrap();
    let config = || WalConfig { max_segment_size: 64 << 10, ..WalConfig::in_dir(temp.path()) };
    for round in 0..20_u64 {
        let (wal, _) = Wal::open(config()).unwrap();
        for number in 1..=80 {
            wal.append(&Record::put(b"k", &record_bytes(round * 80 + number, 1_000))).unwrap();
        }
        if round % 2 == 0 {
            wal.close().unwrap();
        }
    }
    let (wal, _) = Wal::open(config()).unwrap();
    let due = 20 * 80 * 1_016 / (64 << 10) + 1;
    let have = wal.stats().segments.len() as u64;
    assert!(have <= due + 1, "{have} segments where {due} are due");
    assert_eq!(read_all(&wal).len(), 1_600);
}

#[test]
fn fault_d15_values_are_not_unpacked_to_open_a_log() {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalConfig::in_dir(temp.path())).unwrap();
    let value = vec![7; 1 << 20];
    for compression in [Compression::Lz4, Compression::Zstd] {
        wal.append(&Record::put(b"k", &value).with_compression(compression)).unwrap();
    }
    wal.close().unwrap();
    assert!(std::fs::metadata(segment(temp.path(), 1)).unwrap().len() < 16 << 10);
    let (wal, info) = Wal::open(WalConfig::in_dir(temp.path())).unwrap();
    assert!(info.report.bytes_read < 64 << 10, "{}", info.report.bytes_read);
    assert!(read_all(&wal).iter().all(|entry| entry.value == value));
}

/// Without a manifest, what stands in the folder is all that tells where the log begins: a first
/// segment whose header is broken is still the first.
#[test]
fn a_first_segment_with_a_broken_header_is_missed_without_a_manifest() {
    let log = closed_log(60);
    std::fs::remove_file(log.path().join("MANIFEST")).unwrap();
    let first = segment(log.path(), 1);
    let mut content = std::fs::read(&first).unwrap();
    content[..HEADER_BYTES].fill(0xa5);
    std::fs::write(&first, content).unwrap();
    let strict = WalConfig { recovery: RecoveryPolicy::Strict, ..small(log.path()) };
    let refused = Wal::open(strict).unwrap_err();
    assert!(matches!(refused, Error::Recovery { .. }), "{refused}");
    let salvage = WalConfig { recovery: RecoveryPolicy::Salvage, ..small(log.path()) };
    let (wal, info) = Wal::open(salvage).unwrap();
    let damage = info.report.damage.expect("it is told");
    assert_eq!((damage.position.segment, damage.first_lost), (SegmentId::new(1), Lsn::FIRST));
    // The records of the other segments, and all of them.
    let lsns: Vec<u64> = read_all(&wal).iter().map(|entry| entry.lsn.get()).collect();
    assert!(lsns[0] > 1 && lsns.last() == Some(&60), "{lsns:?}");
    assert!(lsns.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{lsns:?}");
}

/// Segments that a truncation took off and that could not be removed stay dead when a second
/// truncation takes the first one's place in the manifest.
#[test]
fn what_two_truncations_left_behind_stays_dead() {
    let temp = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    let config = || WalConfig { interpose: Some(watch.clone()), ..small(temp.path()) };
    let (wal, _) = Wal::open(config()).unwrap();
    let append = |wal: &Wal, number: u64| {
        wal.append(&Record::put(b"k", &record_bytes(number, 200))).unwrap();
    };
    (1..=60).for_each(|number| append(&wal, number));
    watch.set(|call| (call.operation == Operation::Remove).then(|| Fault::Fails(os_error(5))));
    wal.truncate_after(Lsn::new(5)).unwrap();
    (106..=120).for_each(|number| append(&wal, number));
    wal.truncate_after(Lsn::new(10)).unwrap();
    append(&wal, 211);
    drop(wal);
    watch.clear();
    assert!(segment(temp.path(), 2).exists(), "it could not be removed");
    for policy in [RecoveryPolicy::Strict, RecoveryPolicy::Salvage] {
        let (wal, info) = Wal::open(WalConfig { recovery: policy, ..config() }).unwrap();
        assert!(!info.corruption_detected, "{policy:?}: {info:?}");
        let values: Vec<_> = read_all(&wal).into_iter().map(|entry| entry.value).collect();
        let numbers = (1..=5).chain(106..=110).chain([211]);
        let expected: Vec<_> = numbers.map(|number| record_bytes(number, 200)).collect();
        assert_eq!(values, expected, "{policy:?}");
    }
}
