//! Logs that earlier builds wrote are read for ever; and a reader in another language, written from
//! `docs/FORMAT.md` alone, agrees with ours.

use seawall::blocking::Wal;
use seawall::{FsyncPolicy, Lsn, Record, WalConfig};
use seawall_tests::golden::{copy_folder, expected};
use seawall_tests::records::{read_all, record_bytes};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn golden() -> Vec<PathBuf> {
    let mut folders: Vec<_> = std::fs::read_dir(here().join("golden/v1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    folders
}

#[test]
fn golden_logs_of_version_1_open() {
    let folders = golden();
    assert_eq!(folders.len(), 5);
    for folder in folders {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&folder, copy.path()).unwrap();
        let (wal, info) = Wal::open(WalConfig::in_dir(copy.path())).unwrap();
        assert!(!info.corruption_detected, "{}: {info:?}", folder.display());
        let records = std::fs::read_to_string(folder.join("records.txt")).unwrap();
        assert_eq!(expected(&read_all(&wal)), records, "{}", folder.display());
    }
}

/// What the other reader prints; `None` where there is no Python.
fn other_reader(dir: &Path) -> Option<String> {
    let script = here().join("format/read_segments.py");
    let Ok(output) = Command::new("python3").arg(script).arg(dir).output() else {
        println!("skipped: python3 is not installed");
        return None;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", dir.display());
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_reader_written_from_the_page_agrees_on_golden_logs() {
    for folder in golden() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        // It unpacks nothing, and knows CRC32C only.
        if name == "xxh3" || name == "compressed" {
            continue;
        }
        let Some(printed) = other_reader(&folder) else { return };
        let records = std::fs::read_to_string(folder.join("records.txt")).unwrap();
        assert_eq!(printed, records, "{name}");
    }
}

#[test]
fn a_reader_written_from_the_page_agrees_on_a_log_that_has_lived() {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig {
        max_segment_size: 64 << 10,
        fsync_policy: FsyncPolicy::Os,
        ..WalConfig::in_dir(temp.path())
    };
    let (wal, _) = Wal::open(config.clone()).unwrap();
    for number in 0..3_000_u64 {
        let value = record_bytes(number, usize::try_from(number % 200).unwrap());
        let key = number.to_le_bytes();
        let batch = [
            Record::put(&key, &value),
            Record::delete(&key),
            Record::put_with_ttl(b"t", b"", Duration::from_millis(number)),
        ];
        if number % 3 == 0 {
            wal.append_batch(&batch).unwrap();
        } else {
            wal.append(&batch[0]).unwrap();
        }
        if number == 1_500 {
            wal.truncate_after(Lsn::new(2_000)).unwrap();
        }
    }
    wal.delete_segments_before(Lsn::new(1_000)).unwrap();
    wal.sync().unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_folder(temp.path(), copy.path()).unwrap();
    let ours = expected(&read_all(&wal));
    wal.close().unwrap();
    for dir in [copy.path(), temp.path()] {
        let Some(printed) = other_reader(dir) else { return };
        assert_eq!(printed, ours);
    }
}
