//! nano-wal: it gives out references to records and keeps none.

use crate::contestant::{Ability, Contestant, Log, Outcome, Seen, Setup};
use nano_wal::{EntryRef, Segment, Wal, WalOptions, WriteEntry};
use seawall::Level;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(super) struct NanoWal;

/// Segments end by the clock; this is one that does not move.
const NOW_MS: i64 = 4_000_000_000_000;
/// A batch is one writev with five pieces a record, and the kernel takes 1,024 pieces.
const BATCH_RECORDS: usize = 200;

impl Contestant for NanoWal {
    fn name(&self) -> &'static str {
        "nano-wal"
    }

    fn can(&self, ability: Ability) -> Result<(), &'static str> {
        match ability {
            Ability::Buffered => Err("every append is a write"),
            Ability::Reopen | Ability::Read | Ability::Seek => {
                Err("it cannot find records without the references it gave out")
            }
            Ability::Segments | Ability::Delete => Err("segments end and go by the clock"),
            Ability::Compress => Err("no compression"),
            _ => Ok(()),
        }
    }

    fn durable(&self) -> &'static str {
        "write and fdatasync under its lock"
    }

    fn opening(&self) -> &'static str {
        "nothing; it has no checksums"
    }

    fn open(&self, dir: &Path, setup: &Setup) -> Outcome<Box<dyn Log>> {
        let hour = Duration::from_hours(1);
        let wal = Wal::new(dir, "log", WalOptions { retention: hour, segment_duration: hour })?;
        let segment = wal.ensure_segment(NOW_MS)?;
        let kept = setup.reads.then(|| Mutex::new(Vec::new()));
        Ok(Box::new(Open { wal, segment, kept }))
    }
}

struct Open {
    wal: Wal,
    segment: Arc<Segment>,
    kept: Option<Mutex<Vec<EntryRef>>>,
}

impl Open {
    fn keep(&self, references: impl IntoIterator<Item = EntryRef>) -> Outcome<()> {
        if let Some(kept) = &self.kept {
            kept.lock().map_err(|_| "a writer panicked")?.extend(references);
        }
        Ok(())
    }
}

impl Log for Open {
    fn append(&self, _writer: usize, record: &[u8], level: Level) -> Outcome<()> {
        self.keep([self.wal.append(None, record, NOW_MS, level == Level::Disk)?])
    }

    fn append_batch(&self, _writer: usize, records: &[&[u8]], level: Level) -> Outcome<()> {
        let pieces = records.chunks(BATCH_RECORDS);
        let last = pieces.len() - 1;
        for (at, piece) in pieces.enumerate() {
            let entries: Vec<WriteEntry<'_>> =
                piece.iter().map(|content| WriteEntry { header: None, content }).collect();
            let durable = at == last && level == Level::Disk;
            self.keep(self.wal.append_batch(&entries, NOW_MS, durable)?)?;
        }
        Ok(())
    }

    fn read_all(&self, see: Seen<'_>) -> Outcome<u64> {
        let Some(kept) = &self.kept else { return Ok(0) };
        let kept = kept.lock().map_err(|_| "a writer panicked")?;
        for reference in &*kept {
            let record =
                self.wal.read_at(&self.segment, reference.file_offset, reference.byte_size)?;
            see(&[], &record.content);
        }
        Ok(kept.len() as u64)
    }

    fn seek(&self, _number: u64) -> Outcome<usize> {
        Err("it cannot find records without the references it gave out".into())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.wal.shutdown()?)
    }
}
