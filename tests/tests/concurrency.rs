//! Threads and tasks at once, with rotation, deletion and readers beside them: everybody is woken,
//! nothing is lost, and a deadline never hangs (invariants 7, 18 to 20).

use seawall::{FsyncPolicy, Level, Lsn, Record, WalConfig, blocking};
use seawall_tests::records::{read_all, record_bytes};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const TASKS: u64 = 32;
const THREADS: u64 = 4;
const APPENDS: u64 = 150;

fn level_of(number: u64) -> Level {
    [Level::Disk, Level::Os, Level::Buffered][usize::try_from(number % 3).unwrap()]
}

async fn lives(policy: FsyncPolicy) {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig {
        max_segment_size: 32 << 10,
        batch_size: 8 << 10,
        fsync_policy: policy,
        ..WalConfig::in_dir(temp.path())
    };
    let (wal, _) = seawall::Wal::open(config.clone()).await.unwrap();
    let appended = Arc::new(AtomicU64::new(0));
    let mut all = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (wal, appended) = (wal.clone(), appended.clone());
        all.spawn(async move {
            for number in 0..APPENDS {
                let value = record_bytes(task << 32 | number, 300);
                let record = Record::put(b"task", &value);
                wal.append_with(&record, level_of(number)).await.unwrap();
                appended.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for thread in 0..THREADS {
        let (wal, appended) = (wal.blocking().clone(), appended.clone());
        all.spawn_blocking(move || {
            for number in 0..APPENDS {
                let value = record_bytes(1 << 48 | thread << 32 | number, 300);
                let record = Record::put(b"thread", &value);
                wal.append_with(&record, level_of(number)).unwrap();
                appended.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let total = (TASKS + THREADS) * APPENDS;
    let follower = wal.clone();
    all.spawn(async move {
        let mut reader = follower.iter().await.unwrap();
        for number in 1..=total {
            let (entry, _) = reader.wait_record().await.unwrap().expect("the log is open");
            assert_eq!(entry.lsn, Lsn::new(number));
        }
    });
    let rotator = wal.clone();
    all.spawn(async move {
        for _ in 0..20 {
            rotator.rotate().await.unwrap();
            rotator.sync().await.unwrap();
        }
    });
    // What was only buffered becomes durable when somebody asks; the follower waits for it.
    let syncer = wal.clone();
    all.spawn(async move {
        while appended.load(Ordering::Relaxed) < total {
            syncer.sync().await.unwrap();
            tokio::task::yield_now().await;
        }
        syncer.sync().await.unwrap();
    });
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
    wal.close().await.unwrap();
    let (wal, info) = blocking::Wal::open(config).unwrap();
    assert!(info.report.was_clean);
    assert_eq!(read_all(&wal).len() as u64, total);
}

fn within_a_minute(policy: FsyncPolicy) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ended = tokio::time::timeout(Duration::from_mins(1), lives(policy)).await;
        ended.expect("somebody was never woken");
    });
}

#[test]
fn everybody_is_woken_under_always() {
    within_a_minute(FsyncPolicy::Always);
}

#[test]
fn everybody_is_woken_under_batch() {
    within_a_minute(FsyncPolicy::Batch(Duration::from_millis(2)));
}

#[test]
fn everybody_is_woken_under_os() {
    within_a_minute(FsyncPolicy::Os);
}

/// A deletion that finds nothing to delete ends without a command, so nothing completes that would
/// tell whoever waits for it.
#[test]
fn deletions_without_anything_to_delete_return() {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = blocking::Wal::open(WalConfig::in_dir(temp.path())).unwrap();
    wal.append(&Record::put(b"key", b"value")).unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..20_000 {
            assert_eq!(wal.delete_segments_before(Lsn::new(1)).unwrap(), 0);
        }
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(30)).expect("somebody was never woken");
}
