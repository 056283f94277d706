//! The level at which values are packed to Zstd.
#![cfg(not(shuttle))]

use seawall::blocking::Wal;
use seawall::{Compression, Error, WalConfig};
#[cfg(feature = "zstd")]
use seawall::{Level, Record};

fn config(temp: &tempfile::TempDir, zstd_level: Option<u8>) -> WalConfig {
    WalConfig { zstd_level, compression: Compression::Zstd, ..WalConfig::in_dir(temp.path()) }
}

#[cfg(not(feature = "zstd"))]
#[test]
fn a_level_that_this_build_does_not_know_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let refused = Wal::open(config(&temp, Some(3))).unwrap_err();
    assert!(matches!(refused, Error::NotBuilt { .. }), "{refused:?}");
    let message = "zstd_level is set, which needs the feature `zstd`";
    assert!(refused.to_string().starts_with(message), "{refused}");
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "nothing has been made");
}

#[cfg(feature = "zstd")]
#[test]
fn each_log_packs_at_its_own_level() {
    let words = (0_u64..).map(|i| format!("{} {},", i % 97 * 7_919, i * i % 10_007));
    let value: Vec<u8> = words.flat_map(String::into_bytes).take(100_000).collect();
    let records = [Record::put(b"one", &value), Record::put(b"two", &value)];
    let mut stored = Vec::new();
    for zstd_level in [Some(1), Some(19), None] {
        let temp = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(config(&temp, zstd_level)).unwrap();
        wal.append_with(&records[0], Level::Disk).unwrap();
        wal.append_batch_with(&records, Level::Disk).unwrap();
        let mut reader = wal.iter().unwrap();
        for record in [records[0], records[0], records[1]] {
            let (entry, _) = reader.next_record().unwrap().unwrap();
            assert_eq!((&entry.key[..], &entry.value[..]), (record.key, record.value));
        }
        assert!(reader.next_record().unwrap().is_none());
        stored.push(wal.stats().bytes_appended);
        wal.close().unwrap();
    }
    let [fast, small, default] = stored[..] else { panic!("{stored:?}") };
    assert!(small < fast && small < default, "{stored:?}");
    for level in [0, 23, u8::MAX] {
        let temp = tempfile::tempdir().unwrap();
        match Wal::open(config(&temp, Some(level))) {
            Err(Error::Config(error)) => {
                assert_eq!((error.setting, error.value), ("zstd_level", level.into()));
            }
            other => panic!("{level}: {other:?}"),
        }
    }
}
