//! commitlog: segments with an index beside each.

use crate::contestant::{Ability, Contestant, Log, Outcome, Seen, Setup};
use commitlog::message::{HEADER_SIZE, MessageBuf, MessageSet};
use commitlog::{LogOptions, ReadLimit};
use seawall::Level;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

pub(super) struct CommitLog;

const READ_BYTES: usize = 256 << 10;
const SEGMENT_BYTES_DEFAULT: u64 = 1_000_000_000;
const BATCH_BYTES_MAX: usize = 64 << 20;

impl Contestant for CommitLog {
    fn name(&self) -> &'static str {
        "commitlog"
    }

    fn can(&self, ability: Ability) -> Result<(), &'static str> {
        match ability {
            Ability::Buffered => Err("every append is a write"),
            Ability::Disk | Ability::Mixed | Ability::Delete => Err("its flush syncs no records"),
            Ability::Compress => Err("no compression"),
            _ => Ok(()),
        }
    }

    fn durable(&self) -> &'static str {
        "none: flush syncs whole pages of the index only"
    }

    fn opening(&self) -> &'static str {
        "the index; no record's checksum"
    }

    fn open(&self, dir: &Path, setup: &Setup) -> Outcome<Box<dyn Log>> {
        let mut options = LogOptions::new(dir);
        let segment_bytes = setup.segments.bytes_or(SEGMENT_BYTES_DEFAULT);
        options.segment_max_bytes(usize::try_from(segment_bytes)?);
        options.message_max_bytes(BATCH_BYTES_MAX);
        let log = Mutex::new(commitlog::CommitLog::new(options)?);
        Ok(Box::new(Open { log, record_bytes: 0 }))
    }
}

struct Open {
    log: Mutex<commitlog::CommitLog>,
    /// How long a record is that is sought; all have one length.
    record_bytes: usize,
}

impl Open {
    fn log(&self) -> Outcome<MutexGuard<'_, commitlog::CommitLog>> {
        self.log.lock().map_err(|_| "a writer panicked".into())
    }
}

impl Log for Open {
    fn append(&self, _writer: usize, record: &[u8], level: Level) -> Outcome<()> {
        let mut log = self.log()?;
        log.append_msg(record)?;
        if level == Level::Disk {
            log.flush()?;
        }
        Ok(())
    }

    fn append_batch(&self, _writer: usize, records: &[&[u8]], level: Level) -> Outcome<()> {
        let mut batch = MessageBuf::default();
        for record in records {
            batch.push(record).map_err(|_| "a record is too long")?;
        }
        let mut log = self.log()?;
        log.append(&mut batch)?;
        if level == Level::Disk {
            log.flush()?;
        }
        Ok(())
    }

    fn read_all(&self, see: Seen<'_>) -> Outcome<u64> {
        let log = self.log()?;
        let mut next = 0;
        let mut count = 0;
        loop {
            let messages = log.read(next, ReadLimit::max_bytes(READ_BYTES))?;
            let before = count;
            for message in messages.iter() {
                see(&[], message.payload());
                next = message.offset() + 1;
                count += 1;
            }
            if count == before {
                return Ok(count);
            }
        }
    }

    fn index(&mut self) -> Outcome<u64> {
        let log = self.log()?;
        let (count, some) = (log.next_offset(), log.read(0, ReadLimit::max_bytes(READ_BYTES))?);
        drop(log);
        self.record_bytes = some.iter().next().map_or(0, |message| message.payload().len());
        Ok(count)
    }

    fn seek(&self, number: u64) -> Outcome<usize> {
        // One record, not as many as its default of 8 KiB has room for. The last of a segment is
        // found only where the limit is above its length.
        let limit = ReadLimit::max_bytes(HEADER_SIZE + self.record_bytes + 1);
        let messages = self.log()?.read(number, limit)?;
        let message = messages.iter().next().ok_or("no such message")?;
        Ok(message.payload().len())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.log()?.flush()?)
    }
}
