//! A reader that goes from record to record, by number and by position.

use seawall::blocking::{Reader, Wal};
use seawall::{Error, FsyncPolicy, Lsn, Position, Record, SegmentId, Start, WalConfig};
use std::time::Duration;

/// Single records, batches, long ones: 3 segments and more, the last of them open.
fn fill(wal: &Wal) -> Vec<(Lsn, Position, Vec<u8>)> {
    for round in 0_u32..60 {
        let value = |index: u32| {
            let length =
                (round * 7_919 + index * 104_729) % 3_000 + u32::from(round == 50) * 200_000;
            let byte = u8::try_from((round + index) % 251).unwrap();
            vec![byte; usize::try_from(length).unwrap()]
        };
        wal.append(&Record::put(b"alone", &value(0))).unwrap();
        let values: Vec<_> = (1..=round % 9 + 1).map(value).collect();
        let batch: Vec<_> = values.iter().map(|value| Record::put(b"batch", value)).collect();
        wal.append_batch(&batch).unwrap();
        if round == 20 || round == 40 {
            wal.rotate().unwrap();
        }
    }
    let mut reader = wal.iter().unwrap();
    let mut records = Vec::new();
    while let Some((entry, position)) = reader.next_record().unwrap() {
        records.push((entry.lsn, position, entry.value.to_vec()));
    }
    records
}

fn next(reader: &mut Reader) -> Option<(Lsn, Position, Vec<u8>)> {
    let (entry, position) = reader.next_record().unwrap()?;
    Some((entry.lsn, position, entry.value.to_vec()))
}

#[test]
fn a_reader_goes_to_every_record_by_number_and_by_position() {
    for map_sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = WalConfig {
            map_sealed,
            fsync_policy: FsyncPolicy::Os,
            max_segment_size: 2 << 20,
            ..WalConfig::in_dir(dir.path())
        };
        let (wal, _) = Wal::open(config.clone()).unwrap();
        let records = fill(&wal);
        let read_only = Wal::open_read_only(config).unwrap().0;
        for mut reader in [wal.iter().unwrap(), read_only.iter().unwrap()] {
            // Forth and back, and across segments.
            for step in [1, 7, records.len() - 5, records.len() / 2 + 1] {
                for index in (0..records.len()).map(|index| index * step % records.len()) {
                    let (lsn, position, _) = &records[index];
                    for start in [Start::Lsn(*lsn), Start::Position(*position)] {
                        reader.seek(start).unwrap();
                        for expected in records.iter().skip(index).take(2) {
                            assert_eq!(next(&mut reader).as_ref(), Some(expected), "{start:?}");
                        }
                    }
                }
            }
            let last = records.last().unwrap().0;
            reader.seek(last).unwrap();
            let beyond = reader.seek(last.plus(2)).unwrap_err();
            assert!(matches!(beyond, Error::BeyondEnd { .. }), "{beyond}");
            assert_eq!(next(&mut reader).as_ref(), records.last(), "it stays where it was");
            reader.seek(last.next()).unwrap();
            assert_eq!(next(&mut reader), None);
        }
    }
}

#[tokio::test]
async fn a_reader_for_tasks_goes_to_every_record_too() {
    for map_sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = WalConfig { map_sealed, ..WalConfig::in_dir(dir.path()) };
        let (wal, _) = Wal::open(config).unwrap();
        let records = fill(&wal);
        let tasks = seawall::Wal::from(wal);
        let mut reader = tasks.iter().await.unwrap();
        for step in [1, 7, records.len() - 5] {
            for index in (0..records.len()).map(|index| index * step % records.len()) {
                let (lsn, position, _) = &records[index];
                for start in [Start::Lsn(*lsn), Start::Position(*position)] {
                    reader.seek(start).await.unwrap();
                    let mut fresh = tasks.read_from(start).await.unwrap();
                    for expected in records.iter().skip(index).take(2) {
                        for reader in [&mut reader, &mut fresh] {
                            let (entry, at) = reader.next_record().await.unwrap().unwrap();
                            assert_eq!((entry.lsn, at, entry.value.to_vec()), expected.clone());
                        }
                    }
                }
            }
        }
        let last = records.last().unwrap().0;
        let beyond = reader.seek(last.plus(2)).await.unwrap_err();
        assert!(matches!(beyond, Error::BeyondEnd { .. }), "{beyond}");
        reader.seek(last).await.unwrap();
        assert_eq!(reader.next_record().await.unwrap().unwrap().0.lsn, last);
        assert!(reader.next_record().await.unwrap().is_none());
    }
}

#[test]
fn any_offset_leads_to_the_first_record_from_there_on() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalConfig::in_dir(dir.path())).unwrap();
    let records = fill(&wal);
    let mut reader = wal.iter().unwrap();
    let mut expected = records.iter().peekable();
    let second = SegmentId::new(2);
    while expected.next_if(|(_, position, _)| position.segment < second).is_some() {}
    let start = expected.peek().unwrap().1.offset;
    for offset in start..start + 100_000 {
        let at = Position::new(second, offset);
        while expected.next_if(|(_, position, _)| *position < at).is_some() {}
        reader.seek(at).unwrap();
        assert_eq!(next(&mut reader).as_ref(), expected.peek().copied(), "{offset}");
    }
}

#[test]
fn a_reader_seeks_into_what_has_been_sealed_deleted_and_truncated_since() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalConfig::in_dir(dir.path())).unwrap();
    let records = fill(&wal);
    let mut reader = wal.read_from(records.last().unwrap().0).unwrap();
    next(&mut reader).unwrap();
    // Its segment ends, and the log goes on in the next.
    wal.rotate().unwrap();
    wal.append(&Record::put(b"later", b"later")).unwrap();
    wal.sync().unwrap();
    for index in [records.len() - 30, records.len() - 2] {
        reader.seek(records[index].1).unwrap();
        assert_eq!(next(&mut reader).as_ref(), Some(&records[index]));
    }
    let later = records.last().unwrap().0.next();
    reader.seek(later).unwrap();
    assert_eq!(next(&mut reader).unwrap().2, b"later");
    wal.truncate_after(records[records.len() - 10].0).unwrap();
    let gone = reader.seek(records[records.len() - 2].0).unwrap_err();
    assert!(matches!(gone, Error::BeyondEnd { .. }), "{gone}");
    wal.delete_segments_before(records[records.len() - 20].0).unwrap();
    let gone = reader.seek(records[0].0).unwrap_err();
    assert!(matches!(gone, Error::Deleted { .. }), "{gone}");
    reader.seek(records[records.len() - 12].0).unwrap();
    assert_eq!(next(&mut reader).as_ref(), Some(&records[records.len() - 12]));
}

/// Whoever goes on from where the log ended knows no number for it, only the place.
#[test]
fn a_reader_at_the_end_of_a_log_waits_there_for_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalConfig::in_dir(dir.path())).unwrap();
    for _ in 0..5 {
        wal.append(&Record::put(b"key", b"before")).unwrap();
    }
    let end = wal.current_position();
    let mut reader = wal.read_from(end).unwrap();
    assert_eq!(reader.next_lsn(), Lsn::new(6));
    assert_eq!(next(&mut reader), None);
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| reader.wait_record(Some(Duration::from_mins(1))));
        wal.append(&Record::put(b"key", b"after")).unwrap();
        let (entry, position) = waiting.join().unwrap().unwrap().expect("it waits");
        assert_eq!((entry.lsn, position), (Lsn::new(6), end));
    });
    // The same where the record is there, and not durable yet.
    let level = seawall::Level::Buffered;
    let later = wal.append_with(&Record::put(b"key", b"later"), level).unwrap();
    reader.seek(later.position).unwrap();
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| reader.wait_record(Some(Duration::from_mins(1))));
        wal.sync().unwrap();
        let (entry, _) = waiting.join().unwrap().unwrap().expect("it waits");
        assert_eq!(entry.lsn, later.first);
    });
}
