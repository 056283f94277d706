//! What goes on after a log was closed, and what a log that is only read can do.
#![cfg(not(shuttle))]

use seawall::blocking::Wal;
use seawall::{Error, FsyncPolicy, Level, Lsn, Record, WalConfig};
use std::error::Error as _;
use std::time::Duration;

#[test]
fn a_closed_log_takes_nothing_and_is_read_on() {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalConfig::in_dir(temp.path())).unwrap();
    assert_eq!(
        (wal.first_lsn(), wal.last_lsn(), wal.durable_lsn()),
        (Lsn::FIRST, Lsn::ZERO, Lsn::ZERO)
    );
    let record = Record::put(b"key", b"value");
    let at = wal.append(&record).unwrap();
    let other = wal.clone();
    wal.close().unwrap();
    let refused = [
        other.append_with(&record, Level::Buffered).map(drop),
        other.append(&record).map(drop),
        other.append_batch(&[record; 2]).map(drop),
        other.flush(),
        other.sync(),
        other.rotate(),
        other.truncate_after(Lsn::ZERO),
        other.delete_segments_before(Lsn::FIRST).map(drop),
        other.close(),
    ];
    for (number, result) in refused.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::Closed)), "{number}: {result:?}");
    }
    other.wait_durable(Lsn::FIRST).expect("it is durable");
    let beyond = other.wait_durable(Lsn::new(2));
    assert!(matches!(beyond, Err(Error::BeyondEnd { .. })), "{beyond:?}");
    assert_eq!((other.first_lsn(), other.last_lsn()), (Lsn::FIRST, Lsn::FIRST));
    assert_eq!(other.durable_lsn(), Lsn::FIRST);
    let mut reader = other.read_from(at).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().0.lsn, Lsn::FIRST);
    assert!(reader.wait_record(None).unwrap().is_none(), "no more will come");
}

#[tokio::test]
async fn tasks_follow_a_log_that_is_open_to_read() {
    let temp = tempfile::tempdir().unwrap();
    let config = || WalConfig::in_dir(temp.path());
    let missing = seawall::Wal::open_read_only(config()).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    let (wal, _) = seawall::Wal::open(config()).await.unwrap();
    let ttl = Duration::from_micros(1_900);
    wal.append(&Record::put_with_ttl(b"key", b"value", ttl)).await.unwrap();
    wal.sync().await.unwrap();
    let (log, recovery) = seawall::Wal::open_read_only(config()).await.unwrap();
    assert_eq!((recovery.valid_records, log.stats().last_lsn), (1, Lsn::FIRST));
    let mut reader = log.iter().await.unwrap();
    let (entry, _) = reader.next_record().await.unwrap().unwrap();
    assert_eq!(entry.ttl, Some(Duration::from_millis(1)), "rounded down");
    let age = entry.written_at_time().unwrap().elapsed().unwrap_or_default();
    assert!(age < Duration::from_hours(1), "{age:?}");
    assert_eq!(reader.next_lsn(), Lsn::new(2));
    // Nothing tells it of what comes, so it does not wait.
    assert!(reader.wait_record().await.unwrap().is_none());
    wal.append_with(&Record::delete(b"key"), Level::Disk).await.unwrap();
    assert!(log.refresh().await.unwrap());
    reader.renew().unwrap();
    let (entry, position) = reader.next_record().await.unwrap().unwrap();
    assert_eq!(entry.lsn, Lsn::new(2));
    let mut again = log.read_from(position).await.unwrap();
    assert_eq!(again.next_record().await.unwrap().unwrap().0, entry);
}

#[test]
fn settings_and_errors_say_what_holds() {
    let temp = tempfile::tempdir().unwrap();
    let small = WalConfig {
        max_segment_size: 4 << 10,
        fsync_policy: FsyncPolicy::Os,
        ..WalConfig::in_dir(temp.path())
    };
    let (wal, _) = Wal::open(small.clone()).unwrap();
    let longer = wal.append(&Record::put(b"key", &[7; 4 << 10])).unwrap_err();
    let Error::TooLarge { limit_bytes, .. } = longer else { panic!("{longer}") };
    assert!(limit_bytes < 4 << 10, "what a segment can hold: {limit_bytes}");
    let value = vec![7; usize::try_from(limit_bytes).unwrap()];
    wal.append(&Record::put(b"", &value)).unwrap();
    let refused = Wal::open(WalConfig { buffers: 0, ..small }).unwrap_err();
    let cause = refused.source().map(ToString::to_string);
    assert!(cause.is_some_and(|cause| cause.contains("buffers")), "{refused}");
}
