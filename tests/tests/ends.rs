//! Every setting and every question at the ends of what its type can say: there is an answer, or a
//! refusal.

use seawall::blocking::{Reader, Wal};
use seawall::{
    Compression, Error, FsyncPolicy, Level, Lsn, Position, Record, SegmentId, WalConfig,
};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Sets a setting to a number.
type Set = fn(&mut WalConfig, u64);

/// What may be set to any number.
const NUMBERS: [(&str, Set); 11] = [
    ("max_segment_size", |config, number| config.max_segment_size = number),
    ("max_segment_age", |config, number| {
        config.max_segment_age = Some(Duration::from_millis(number));
    }),
    ("reserve_size", |config, number| config.reserve_size = Some(number)),
    ("recycle_segments", |config, number| {
        config.recycle_segments = usize::try_from(number).unwrap_or(usize::MAX);
    }),
    ("compression_threshold", |config, number| config.compression_threshold = number),
    ("max_record_size", |config, number| config.max_record_size = number),
    ("batch_size", |config, number| config.batch_size = number),
    ("buffers", |config, number| config.buffers = usize::try_from(number).unwrap_or(usize::MAX)),
    ("write_back_size", |config, number| config.write_back_size = Some(number)),
    ("uring_size", |config, number| config.uring_size = Some(number)),
    ("read_size", |config, number| config.read_size = number),
];

fn live(dir: &Path, change: impl Fn(&mut WalConfig)) -> Result<(), Error> {
    let mut config = WalConfig {
        fsync_policy: FsyncPolicy::Os,
        compression: Compression::Lz4,
        max_segment_size: 8 << 20,
        ..WalConfig::in_dir(dir)
    };
    change(&mut config);
    let values = [vec![7; 10], vec![8; 100 << 10], vec![9; 3 << 20]];
    for round in 1..=2 {
        let (wal, _) = Wal::open(config.clone())?;
        let mut reader = wal.iter()?;
        let mut kept = 0;
        for codec in [Compression::None, Compression::Lz4] {
            for value in &values {
                let record = Record::put(b"key", value).with_compression(codec);
                match wal.append_with(&record, Level::Disk) {
                    Ok(appended) => {
                        reader.seek(appended.last)?;
                        assert_eq!(&reader.next_record()?.unwrap().0.value, value);
                        kept += 1;
                    }
                    Err(Error::TooLarge { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        wal.rotate()?;
        let mut reader = wal.iter()?;
        let mut records = 0;
        while reader.next_record()?.is_some() {
            records += 1;
        }
        assert_eq!(records, kept * round);
        wal.close()?;
    }
    Ok(())
}

#[test]
fn every_setting_at_its_ends_works_or_is_refused() {
    for (name, set) in NUMBERS {
        for number in [0, 1, 1 << 12, 1 << 20, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let temp = tempfile::tempdir().unwrap();
            match live(temp.path(), |config| set(config, number)) {
                Ok(()) => {}
                // A setting may be of a type that is shorter than a number here.
                Err(Error::Config(error)) => {
                    assert!([number, usize::MAX as u64].contains(&error.value), "{error}");
                }
                Err(error) => panic!("{name} {number}: {error}"),
            }
        }
    }
}

#[test]
fn every_question_at_its_ends_has_an_answer() {
    let ends = [0, 1, 5, 10, 11, 12, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalConfig::in_dir(temp.path())).unwrap();
    for _ in 0..10 {
        wal.append(&Record::put_with_ttl(b"k", b"v", Duration::MAX)).unwrap();
    }
    let mut reader = wal.iter().unwrap();
    let (entry, _) = reader.next_record().unwrap().unwrap();
    assert!(!entry.is_expired_at(SystemTime::now()), "{:?}", entry.ttl);
    for number in ends {
        let lsn = Lsn::new(number);
        let next = |reader: &mut Reader| reader.next_record().unwrap().map(|(entry, _)| entry.lsn);
        let found = [
            wal.read_from(lsn).map(|mut reader| next(&mut reader)),
            reader.seek(lsn).map(|()| next(&mut reader)),
        ];
        for found in found {
            match number {
                0 => assert!(matches!(found, Err(Error::Deleted { .. })), "{found:?}"),
                1..=10 => assert_eq!(found.unwrap(), Some(lsn)),
                11 => assert_eq!(found.unwrap(), None),
                _ => assert!(matches!(found, Err(Error::BeyondEnd { .. })), "{found:?}"),
            }
        }
        match wal.wait_durable(lsn) {
            Ok(()) => assert!(number <= 10),
            error => assert!(number > 10 && matches!(error, Err(Error::BeyondEnd { .. }))),
        }
        for segment in ends {
            let at = Position::new(SegmentId::new(segment), number);
            let found = reader.seek(at).and_then(|()| reader.next_record());
            match segment {
                0 => assert!(matches!(found, Err(Error::Deleted { .. })), "{at}: {found:?}"),
                1 => assert_eq!(found.unwrap().is_some(), number < 128, "{at}"),
                _ => assert!(matches!(found, Err(Error::NoSuchPosition { .. })), "{at}: {found:?}"),
            }
        }
        assert_eq!(wal.delete_segments_before(lsn).unwrap(), 0);
    }
    for number in ends.into_iter().rev() {
        match wal.truncate_after(Lsn::new(number)) {
            Ok(()) => assert_eq!(wal.stats().last_lsn.get(), number),
            error => assert!(number > 10 && matches!(error, Err(Error::BeyondEnd { .. }))),
        }
    }
}
