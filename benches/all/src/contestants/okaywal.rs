//! okaywal: every entry is synced, and records are seen only while it opens.

use crate::contestant::{Ability, Contestant, Log, Outcome, Seen, Setup};
use okaywal::{
    Configuration, Entry, EntryId, LogManager, ReadChunkResult, SegmentReader, WriteAheadLog,
};
use seawall::Level;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) struct Okaywal;

impl Contestant for Okaywal {
    fn name(&self) -> &'static str {
        "okaywal"
    }

    fn can(&self, ability: Ability) -> Result<(), &'static str> {
        match ability {
            Ability::Buffered | Ability::Os | Ability::Mixed => Err("it syncs every entry"),
            Ability::Read | Ability::Seek => Err("it shows its records while opening"),
            Ability::Segments => Err("segments end by checkpoints, which remove records"),
            Ability::Compress => Err("no compression"),
            Ability::Disk | Ability::Batch | Ability::Delete | Ability::Reopen => Ok(()),
        }
    }

    fn durable(&self) -> &'static str {
        "write and fdatasync, shared with who waits"
    }

    fn opening(&self) -> &'static str {
        "every record, read and checked"
    }

    fn open(&self, dir: &Path, setup: &Setup) -> Outcome<Box<dyn Log>> {
        let found = Arc::new(AtomicU64::new(0));
        // A checkpoint takes records away; other logs keep them unless they are told, and so does
        // this one here. It makes room by writing zeros: those of a whole segment as it opens,
        // which the syncs before the clock starts take along. What is measured goes over written
        // blocks, as the floor does, and as its own users have it in segments of 1 MiB that
        // checkpoints let it use again and again. With those and no checkpoints it would run out
        // of written blocks within a moment, which it is not made for.
        let segment_bytes = setup.segments.bytes_or(128 << 20);
        let checkpoint_bytes = if setup.deletes { segment_bytes } else { u64::MAX };
        let config = Configuration::default_for(dir)
            .preallocate_bytes(u32::try_from(segment_bytes)?)
            .checkpoint_after_bytes(checkpoint_bytes);
        let log = config.open(Count { found: found.clone() })?;
        Ok(Box::new(Open { log, found }))
    }
}

#[derive(Debug)]
struct Count {
    found: Arc<AtomicU64>,
}

impl LogManager for Count {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            chunk.read_all()?;
            if !chunk.check_crc()? {
                return Err(io::Error::other("a bad checksum"));
            }
            self.found.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _wal: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

struct Open {
    log: WriteAheadLog,
    found: Arc<AtomicU64>,
}

impl Log for Open {
    fn append(&self, writer: usize, record: &[u8], level: Level) -> Outcome<()> {
        self.append_batch(writer, &[record], level)
    }

    fn append_batch(&self, _writer: usize, records: &[&[u8]], _level: Level) -> Outcome<()> {
        let mut entry = self.log.begin_entry()?;
        for record in records {
            entry.write_chunk(record)?;
        }
        entry.commit()?;
        Ok(())
    }

    fn read_all(&self, _see: Seen<'_>) -> Outcome<u64> {
        Ok(self.found.load(Ordering::Relaxed))
    }

    fn seek(&self, _number: u64) -> Outcome<usize> {
        Err("it has no numbers to seek by".into())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.log.shutdown()?)
    }
}
