//! Records of every size: they work, or a documented limit refuses them with a clear error.

use seawall::blocking::Wal;
use seawall::{Compression, Error, Level, Record, WalConfig};
#[cfg(target_os = "linux")]
use seawall::{FileId, Operation, SegmentId};
use seawall_tests::records::{read_all, record_bytes};
#[cfg(target_os = "linux")]
use {
    seawall_tests::descriptors::open_files,
    seawall_tests::interpose::Watch,
    std::sync::Arc,
    std::sync::atomic::{AtomicUsize, Ordering},
};

fn open(config: WalConfig) -> Wal {
    Wal::open(config).unwrap().0
}

#[test]
fn a_record_of_64_mib_and_a_key_of_1_mib_work() {
    let temp = tempfile::tempdir().unwrap();
    let wal = open(WalConfig::in_dir(temp.path()));
    let (key, value) = (record_bytes(1, 1 << 20), record_bytes(2, 64 << 20));
    wal.append(&Record::put(&key, b"short")).unwrap();
    wal.append(&Record::put(b"short", &value)).unwrap();
    wal.append(&Record::put(b"", b"")).unwrap();
    let entries = read_all(&wal);
    assert!(entries[0].key == key && entries[1].value == value);
    assert!(entries[2].key.is_empty() && entries[2].value.is_empty());
    wal.close().unwrap();
    let wal = open(WalConfig::in_dir(temp.path()));
    assert!(read_all(&wal) == entries);
}

#[test]
fn what_is_over_a_limit_is_refused_with_both_numbers() {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig { max_segment_size: 64 << 10, ..WalConfig::in_dir(temp.path()) };
    let wal = open(config);
    let value = record_bytes(1, 70_000);
    let error = wal.append(&Record::put(b"", &value)).unwrap_err();
    let Error::TooLarge { bytes, limit_bytes } = error else { panic!("{error}") };
    assert_eq!(bytes, 70_000);
    assert!(limit_bytes < 64 << 10);
    assert!(error.to_string().contains("70000") && error.to_string().contains("raise"));
    let batch = vec![Record::put(b"k", &value[..1_000]); 100];
    assert!(matches!(wal.append_batch(&batch), Err(Error::TooLarge { .. })));
    assert!(matches!(wal.append_batch(&[]), Err(Error::EmptyBatch)));
    // What a reader would have to unpack is bounded as well.
    let zeros = vec![0; 70_000];
    let packed = Record::put(b"", &zeros).with_compression(Compression::Lz4);
    assert!(matches!(wal.append(&packed), Err(Error::TooLarge { .. })));
    wal.append(&Record::put(b"", &value[..40_000])).unwrap();
    assert_eq!(read_all(&wal).len(), 1);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig { max_segment_size: 10, ..WalConfig::in_dir(temp.path()) };
    let error = Wal::open(config).unwrap_err().to_string();
    assert!(error.contains("max_segment_size is 10;"), "{error}");
}

#[test]
fn a_million_tiny_records_keep_their_numbers() {
    let temp = tempfile::tempdir().unwrap();
    let wal = open(WalConfig { max_segment_size: 8 << 20, ..WalConfig::in_dir(temp.path()) });
    for number in 0..1_000_000_u32 {
        wal.append_with(&Record::put(b"", &number.to_le_bytes()), Level::Buffered).unwrap();
    }
    wal.sync().unwrap();
    let mut reader = wal.iter().unwrap();
    for number in 0..1_000_000_u32 {
        let (entry, _) = reader.next_record().unwrap().expect("it is there");
        assert_eq!(entry.lsn.get(), u64::from(number) + 1);
        assert_eq!(entry.value[..], number.to_le_bytes());
    }
    assert!(reader.next_record().unwrap().is_none());
    let stats = wal.stats();
    let per_record = (stats.segments.iter().map(|segment| segment.bytes).sum::<u64>()) / 1_000_000;
    assert!(per_record <= 4 + 12, "{per_record} bytes for a record of 4");
}

/// A process has 1,024 descriptors, if nobody raised that, and other uses for them.
#[cfg(target_os = "linux")]
#[test]
fn a_log_of_many_segments_opens_few_files() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_path_buf();
    let config = || WalConfig { max_segment_size: 64 << 10, ..WalConfig::in_dir(temp.path()) };
    let wal = open(config());
    for number in 0..50_u32 {
        wal.append_with(&Record::put(b"", &number.to_le_bytes()), Level::Os).unwrap();
        wal.rotate().unwrap();
    }
    wal.close().unwrap();
    // It is to look into each of them.
    std::fs::remove_file(dir.join("CATALOG")).unwrap();
    let (watch, most) = (Arc::new(Watch::default()), Arc::new(AtomicUsize::new(0)));
    let (seen, folder) = (most.clone(), dir.clone());
    watch.set(move |_| {
        seen.fetch_max(open_files(&folder).len(), Ordering::Relaxed);
        None
    });
    let (wal, info) = Wal::open(WalConfig { interpose: Some(watch.clone()), ..config() }).unwrap();
    assert!(info.report.segments >= 50, "{}", info.report.segments);
    let most = most.load(Ordering::Relaxed);
    assert!((16..=24).contains(&most), "{most}");
    assert!(open_files(&dir).len() <= 16, "{:?}", open_files(&dir));
    assert_eq!(read_all(&wal).len(), 50);
}

/// A process may have all its files open for a while; that is no fault of the disk.
#[cfg(target_os = "linux")]
#[test]
fn who_has_no_file_to_spare_waits_for_the_next_segment_and_loses_nothing() {
    const FEW_FILES: &str = "SEAWALL_FEW_FILES";
    if std::env::var_os(FEW_FILES).is_none() {
        // By a shell, which can lower the limit of this program and not of the other tests.
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "who_has_no_file_to_spare_waits_for_the_next_segment_and_loses_nothing",
            ])
            .env(FEW_FILES, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let hoard = || std::iter::from_fn(|| std::fs::File::open("/dev/null").ok());
    let temp = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    let wal = open(WalConfig {
        max_segment_size: 32 << 10,
        interpose: Some(watch.clone()),
        ..WalConfig::in_dir(temp.path())
    });
    let value = record_bytes(1, 1_000);
    let append = || wal.append_with(&Record::put(b"k", &value), Level::Disk);
    append().unwrap();
    // None is left just when a folder is synced.
    let mut hoarded = Vec::new();
    watch.set(move |call| {
        match call.operation {
            Operation::SyncDir => hoarded.extend(hoard()),
            Operation::Create => hoarded.clear(),
            _ => {}
        }
        None
    });
    for _ in 0..3 {
        wal.rotate().unwrap();
        append().unwrap();
    }
    wal.truncate_after(wal.stats().last_lsn.previous()).unwrap();
    watch.clear();
    for _ in 0..3 {
        let mut hoarded = Vec::new();
        let refused = loop {
            // Also what the log closes meanwhile.
            hoarded.extend(hoard());
            assert!(hoarded.len() < 64, "the limit holds");
            if let Err(error) = append() {
                break error;
            }
        };
        assert!(matches!(refused, Error::NoSegment(_)), "{refused}");
        drop(hoarded);
        // The first may still be told.
        append().or_else(|_| append()).unwrap();
    }
    let last = wal.stats().last_lsn.get();
    assert_eq!(read_all(&wal).len() as u64, last);
    wal.close().unwrap();
}

/// ENOSPC from a real file system; needs root, to mount one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_file_system_refuses_appends_and_takes_them_again_when_there_is_room() {
    let temp = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "seawall-test"])
        .arg(temp.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: a small tmpfs cannot be mounted here");
        return;
    }
    let result = std::panic::catch_unwind(|| fill_and_free(temp.path()));
    let unmounted = std::process::Command::new("umount").arg("-l").arg(temp.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    result.unwrap();
}

#[cfg(target_os = "linux")]
fn fill_and_free(dir: &std::path::Path) {
    let config = || WalConfig { max_segment_size: 32 << 10, ..WalConfig::in_dir(dir.join("log")) };
    let wal = open(config());
    let append =
        |number| wal.append_with(&Record::put(b"k", &record_bytes(number, 1_000)), Level::Disk);
    let (mut acknowledged, mut refused) = (0, 0);
    // What the background gives back after the first refusal may hold some more.
    while refused < 5 {
        match append(acknowledged + 1) {
            Ok(_) => (acknowledged, refused) = (acknowledged + 1, 0),
            Err(Error::DiskFull(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(acknowledged > 100, "{acknowledged}");
    assert_eq!(read_all(&wal).len() as u64, acknowledged, "what was acknowledged can be read");
    wal.truncate_after(seawall::Lsn::new(acknowledged - 1)).expect("truncation needs no room");
    assert!(wal.delete_segments_before(wal.current_position()).unwrap() > 3);
    // The first may still be told of the segment that could not be made.
    let again = append(7).or_else(|_| append(7)).expect("there is room again");
    assert_eq!(again.first.get(), acknowledged);
    wal.close().unwrap();
    let wal = open(config());
    assert_eq!(read_all(&wal).last().unwrap().lsn.get(), acknowledged);
}

/// What is reserved behind a file's end does not show in its length.
#[cfg(target_os = "linux")]
#[test]
fn a_segment_has_its_space_before_it_is_used_and_keeps_none_that_it_did_not_use() {
    use std::os::unix::fs::MetadataExt;
    let temp = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    let wal = open(WalConfig {
        max_segment_size: 16 << 20,
        interpose: Some(watch.clone()),
        ..WalConfig::in_dir(temp.path())
    });
    let value = record_bytes(1, 60_000);
    while wal.current_position().segment.get() < 4 {
        wal.append_with(&Record::put(b"k", &value), Level::Os).unwrap();
    }
    wal.close().unwrap();
    let reserved = |segment| {
        let is_of_it = move |file: FileId| file == FileId::Segment(SegmentId::new(segment));
        let calls = watch.calls().into_iter();
        let calls = calls.filter(|call| call.operation == Operation::Allocate);
        let calls = calls.filter(move |call| call.file.is_some_and(is_of_it));
        calls.map(|call| (call.offset, call.bytes)).collect::<Vec<_>>()
    };
    assert!(reserved(1).len() > 3, "in steps: {:?}", reserved(1));
    for segment in [3, 4] {
        assert_eq!(reserved(segment), [(0, 1 << 20), (1 << 20, 15 << 20)], "{segment}");
    }
    let files = std::fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().metadata());
    let segments = files.map(Result::unwrap).filter(|file| file.len() > 50_000);
    let held = segments.map(|file| (file.len(), file.blocks() * 512)).collect::<Vec<_>>();
    assert_eq!(held.len(), 4, "{held:?}");
    assert!(held.iter().all(|(length, held)| *held < length + (128 << 10)), "{held:?}");
}
