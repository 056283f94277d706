//! wal-db: a file or segments, positions as record numbers.

use crate::contestant::{Ability, Contestant, Log, Outcome, Seen, Segments, Setup};
use seawall::Level;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use wal_db::{Lsn, SegmentedStore, Wal, WalStore};

pub(super) struct WalDb;

/// It has no default; this is Seawall's.
const SEGMENT_BYTES: u64 = 128 << 20;

impl Contestant for WalDb {
    fn name(&self) -> &'static str {
        "wal-db"
    }

    fn can(&self, ability: Ability) -> Result<(), &'static str> {
        match ability {
            Ability::Buffered => Err("every append is a write"),
            Ability::Compress => Err("no compression"),
            _ => Ok(()),
        }
    }

    fn durable(&self) -> &'static str {
        "a write each, fdatasync shared with who waits"
    }

    fn opening(&self) -> &'static str {
        "every record's checksum, in all segments"
    }

    fn open(&self, dir: &Path, setup: &Setup) -> Outcome<Box<dyn Log>> {
        let bytes = setup.segments.bytes_or(SEGMENT_BYTES);
        if matches!(setup.segments, Segments::One(_)) {
            std::fs::create_dir_all(dir)?;
            return Ok(Box::new(Open::new(Wal::open(dir.join("log"))?)));
        }
        let wal: Wal<SegmentedStore> = Wal::open_segmented(dir, bytes)?;
        Ok(Box::new(Open::new(wal)))
    }
}

struct Open<S: WalStore> {
    wal: Wal<S>,
    /// Where each record begins: it seeks by position only.
    starts: Vec<Lsn>,
    /// Where the last one begins.
    last: AtomicU64,
}

impl<S: WalStore> Open<S> {
    const fn new(wal: Wal<S>) -> Self {
        Self { wal, starts: Vec::new(), last: AtomicU64::new(0) }
    }
}

impl<S: WalStore + 'static> Log for Open<S> {
    fn append(&self, _writer: usize, record: &[u8], level: Level) -> Outcome<()> {
        let last = if level == Level::Disk {
            self.wal.append_and_sync(record)?
        } else {
            self.wal.append(record)?
        };
        self.last.store(last.get(), Ordering::Relaxed);
        Ok(())
    }

    fn delete_old(&self) -> Outcome<()> {
        let _: Lsn = self.wal.truncate_before(Lsn::new(self.last.load(Ordering::Relaxed)))?;
        Ok(())
    }

    fn read_all(&self, see: Seen<'_>) -> Outcome<u64> {
        let mut count = 0;
        for record in self.wal.iter()? {
            see(&[], record?.data());
            count += 1;
        }
        Ok(count)
    }

    fn index(&mut self) -> Outcome<u64> {
        self.starts.clear();
        for record in self.wal.iter()? {
            self.starts.push(record?.lsn());
        }
        Ok(self.starts.len() as u64)
    }

    fn seek(&self, number: u64) -> Outcome<usize> {
        let start = self.starts.get(usize::try_from(number)?).ok_or("no such record")?;
        Ok(self.wal.iter_from(*start)?.next().ok_or("no such record")??.len())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.wal.sync()?)
    }
}
