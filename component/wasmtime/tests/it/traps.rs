//! What becomes of a log whose component traps.

use crate::component;
use seawall_core::compress::Compression;
use seawall_wasmtime::{Error, Limits, Program, Record, Wal, types};
use std::time::Duration;

fn limited(limits: &Limits) -> Program {
    Program::compile(&component("seawall.wasm"), limits).unwrap()
}

const STARVED: Limits =
    Limits { fuel_per_call: 120_000_000, memory_bytes: 512 << 20, table_elements: 10_000 };

/// Brings the component down, where its limits are `STARVED`.
fn trap(wal: &Wal) {
    let value = vec![3; 1_000];
    let packed = Record::put(b"key", &value).with_compression(Compression::Zstd);
    let lost = wal.append_batch(&vec![packed; 10_000]).wait();
    assert!(matches!(lost, Err(Error::Unknown(_))), "{lost:?}");
}

/// A batch that is too much for the limits is lost, and nothing else: the log goes on, its cursors
/// with it.
fn survives(limits: &Limits, records: usize, why: &str) {
    let program = limited(limits);
    let temp = tempfile::tempdir().unwrap();
    let config = types::Config {
        segment_bytes_max: 16 << 20,
        fsync_policy: types::FsyncPolicy::Always,
        ..program.default_config()
    };
    let (wal, _) = Wal::open(&program, temp.path(), config.clone()).wait().unwrap();
    for number in 1..=20_u64 {
        let key = number.to_le_bytes();
        assert_eq!(wal.append(&Record::put(&key, b"before")).wait().unwrap().last, number);
    }
    let cursor = wal.read_from(5).wait().unwrap();
    let shown = cursor.read_batch(60).wait().unwrap().len() as u64;
    assert!(shown > 0 && shown < 16);

    let value = vec![3; 1_000];
    // Packing them takes work; what comes of it is short, and so is reading it again.
    let packed = Record::put(b"key", &value).with_compression(Compression::Zstd);
    let many = vec![packed; records];
    match wal.append_batch(&many).wait() {
        Err(Error::Unknown(cause)) => assert!(cause.contains(why), "{cause}"),
        other => panic!("{other:?}"),
    }
    let restarts = wal.take_restarts().wait().unwrap();
    assert_eq!(restarts.len(), 1, "{restarts:?}");
    assert!(restarts[0].cause.contains(why));
    let last = restarts[0].recovery.last;
    // It is there whole or not at all.
    assert!(last == 20 || last == 20 + records as u64, "{last}");
    assert!(restarts[0].recovery.damage.is_none());

    let appended = wal.append(&Record::put(b"after", b"it")).wait().unwrap();
    assert_eq!(appended.first, last + 1);
    let mut lsns = Vec::new();
    loop {
        let page = cursor.read_batch(10_000).wait().unwrap();
        if page.is_empty() {
            break;
        }
        lsns.extend(page.records().map(|found| found.lsn));
    }
    assert_eq!(lsns, (5 + shown..=last + 1).collect::<Vec<_>>());
    wal.close().wait().unwrap();
    drop(wal);
    let (_, recovery) = Wal::open(&program, temp.path(), config).wait().unwrap();
    assert!(recovery.was_clean);
    assert_eq!(recovery.last, last + 1);
}

#[test]
fn out_of_fuel() {
    survives(&STARVED, 10_000, "fuel");
}

#[test]
fn out_of_memory() {
    survives(&Limits { memory_bytes: 8 << 20, ..Limits::default() }, 20_000, "");
}

/// A log that cannot be opened again says so at each call, and is there again once it can.
#[test]
fn a_log_that_cannot_come_back_says_so() {
    let program = limited(&STARVED);
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("log");
    let config = types::Config { segment_bytes_max: 16 << 20, ..program.default_config() };
    let (wal, _) = Wal::open(&program, &folder, config).wait().unwrap();
    wal.append_with(&Record::put(b"a", b"b"), types::Level::Disk).wait().unwrap();
    let segment = folder.join("00000000000000000001.wal");
    let aside = temp.path().join("aside");
    std::fs::rename(&segment, &aside).unwrap();
    trap(&wal);
    let down = wal.append(&Record::put(b"c", b"d")).wait();
    assert!(matches!(down, Err(Error::Down(_))), "{down:?}");
    std::fs::rename(&aside, &segment).unwrap();
    assert_eq!(wal.append(&Record::put(b"c", b"d")).wait().unwrap().first, 2);
    wal.close().wait().unwrap();
}

/// The folder is the one that was locked, whatever its name leads to by then.
#[test]
fn a_log_is_found_again_where_its_folder_was_moved() {
    let program = limited(&STARVED);
    let temp = tempfile::tempdir().unwrap();
    let (folder, moved) = (temp.path().join("log"), temp.path().join("moved"));
    let config = types::Config { segment_bytes_max: 16 << 20, ..program.default_config() };
    let (wal, _) = Wal::open(&program, &folder, config).wait().unwrap();
    wal.append_with(&Record::put(b"a", b"b"), types::Level::Disk).wait().unwrap();
    std::fs::rename(&folder, &moved).unwrap();
    std::fs::create_dir(&folder).unwrap();
    trap(&wal);
    assert_eq!(wal.append(&Record::put(b"c", b"d")).wait().unwrap().first, 2);
    wal.close().wait().unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

/// A trap opens no log again that was closed: its end stays clean, and nobody owns it.
#[test]
fn a_log_that_was_closed_stays_closed() {
    let program = limited(&STARVED);
    let temp = tempfile::tempdir().unwrap();
    let config = types::Config {
        segment_bytes_max: 16 << 20,
        exclusion: types::Exclusion::Owner("me".to_owned()),
        ..program.default_config()
    };
    let (wal, _) = Wal::open(&program, temp.path(), config.clone()).wait().unwrap();
    wal.append(&Record::put(b"a", b"b")).wait().unwrap();
    let cursor = wal.read_from(1).wait().unwrap();
    wal.close().wait().unwrap();
    assert_eq!(cursor.read_batch(100).wait().unwrap().len(), 1);
    trap(&wal);
    let closed = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Log(types::Error::Closed))), "{result:?}");
    };
    closed(wal.append(&Record::put(b"c", b"d")).wait().map(drop));
    closed(cursor.read_batch(100).wait().map(drop));
    closed(wal.close().wait());
    assert!(wal.take_restarts().wait().unwrap().is_empty());
    assert!(!temp.path().join("OWNER").exists());
    drop(wal);
    let (_, recovery) = Wal::open(&program, temp.path(), config).wait().unwrap();
    assert!(recovery.was_clean);
    assert_eq!(recovery.last, 1);
}

/// A tombstone has no value. Whoever gives it one hears of it, and nobody else does.
#[test]
fn a_tombstone_with_a_value_is_refused() {
    let program = limited(&Limits::default());
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(&program, temp.path(), program.default_config()).wait().unwrap();
    let odd = Record { value: b"x", ..Record::delete(b"key") };
    let refused = wal.append_batch(&[Record::put(b"a", b"b"), odd]).wait();
    assert!(matches!(refused, Err(Error::Log(types::Error::MalformedBatch))), "{refused:?}");
    assert_eq!(wal.append(&Record::delete(b"key")).wait().unwrap().first, 1);
    wal.close().wait().unwrap();
}

/// Tasks and threads wait for the same thing.
#[test]
fn tasks_append_and_are_woken() {
    let program = limited(&Limits::default());
    let temp = tempfile::tempdir().unwrap();
    let config = types::Config {
        fsync_policy: types::FsyncPolicy::BatchMicros(2_000),
        ..program.default_config()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (wal, _) = Wal::open(&program, temp.path(), config).await.unwrap();
        let follower = wal.wait_for(types::Interest::RecordsAfter(0));
        let appended = wal.append(&Record::put(b"a", b"b")).await.unwrap();
        assert_eq!((appended.first, appended.last), (1, 1));
        // Durable by itself, since the policy says so.
        follower.await.unwrap();
        assert_eq!(wal.stats().await.unwrap().durable, 1);
        let never = wal.wait_for(types::Interest::Durable(100));
        wal.close().await.unwrap();
        assert!(matches!(never.await, Err(Error::Log(types::Error::Closed))));
        let closed = wal.append(&Record::put(b"a", b"b")).await;
        assert!(matches!(closed, Err(Error::Log(types::Error::Closed))), "{closed:?}");
    });
}

/// What callers hold outlives the log, and says so.
#[test]
fn a_cursor_without_its_log_has_stopped() {
    let program = limited(&Limits::default());
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(&program, temp.path(), program.default_config()).wait().unwrap();
    let ttl = Record::put_with_ttl(b"a", b"b", Duration::from_secs(1));
    wal.append(&ttl).wait().unwrap();
    let cursor = wal.read_from(1).wait().unwrap();
    drop(wal);
    assert!(matches!(cursor.read_batch(10).wait(), Err(Error::Stopped)));
}
