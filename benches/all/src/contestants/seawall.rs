//! Seawall on the native host.

use crate::contestant::{Ability, Appending, Contestant, Log, Outcome, Seen, Setup};
use crate::report::{OURS, OURS_MAPPED, OURS_RECYCLED, OURS_RECYCLED_URING, OURS_URING};
use crate::row::Pack;
use seawall::blocking::{Reader, Wal};
use seawall::{Compression, FsyncPolicy, Level, Position, Record, WalConfig};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// As users add it.
pub(super) enum Native {
    Plain,
    /// Small appends are copied into the mapped segment, and sealed ones read mapped.
    Mapped,
    /// Long durable writes go through `io_uring`, past the page cache.
    Uring,
    /// The files of deleted segments are used again.
    Recycled,
    /// Both.
    RecycledUring,
}

/// So many files wait to be used again.
const RECYCLED_SEGMENTS: usize = 2;
/// Durable writes as long as this go through `io_uring`, if it is asked for.
const URING_BYTES: u64 = 512 << 10;
/// So many bytes of a record are its key.
const KEY_BYTES: usize = 8;

impl Contestant for Native {
    fn name(&self) -> &'static str {
        match self {
            Self::Plain => OURS,
            Self::Mapped => OURS_MAPPED,
            Self::Uring => OURS_URING,
            Self::Recycled => OURS_RECYCLED,
            Self::RecycledUring => OURS_RECYCLED_URING,
        }
    }

    fn can(&self, ability: Ability) -> Result<(), &'static str> {
        match (self, ability) {
            (Self::Plain, _)
            | (Self::Mapped, Ability::Os | Ability::Mixed | Ability::Reopen | Ability::Read)
            | (Self::Uring, Ability::Disk | Ability::Batch | Ability::Delete | Ability::Reopen)
            | (Self::Recycled | Self::RecycledUring, Ability::Delete) => Ok(()),
            (Self::Recycled | Self::RecycledUring, _) => Err("it is the same where nothing goes"),
            (Self::Mapped, _) => Err("it is the same without the mapping"),
            (Self::Uring, _) => Err("it is the same without io_uring"),
        }
    }

    fn durable(&self) -> &'static str {
        "one write and fdatasync for all who wait"
    }

    fn opening(&self) -> &'static str {
        "every frame's checksum, in the last segment"
    }

    fn open(&self, dir: &Path, setup: &Setup) -> Outcome<Box<dyn Log>> {
        let default = WalConfig::in_dir(dir);
        let config = WalConfig {
            max_segment_size: setup.segments.bytes_or(default.max_segment_size),
            // The other logs and the floors have no sync in the background either.
            fsync_policy: if setup.level == Level::Disk {
                default.fsync_policy
            } else {
                FsyncPolicy::Os
            },
            compression: match setup.pack {
                Pack::Plain => Compression::None,
                Pack::Lz4 => Compression::Lz4,
                Pack::Zstd => Compression::Zstd,
            },
            map_appends: matches!(self, Self::Mapped),
            map_sealed: matches!(self, Self::Mapped),
            uring_size: matches!(self, Self::Uring | Self::RecycledUring).then_some(URING_BYTES),
            recycle_segments: match self {
                Self::Recycled | Self::RecycledUring => RECYCLED_SEGMENTS,
                Self::Plain | Self::Mapped | Self::Uring => default.recycle_segments,
            },
            ..default
        };
        if !setup.tasks {
            let (wal, _) = Wal::open(config)?;
            return Ok(Box::new(Open::new(wal, None)));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (tasks, _) = runtime.block_on(seawall::Wal::open(config))?;
        Ok(Box::new(Open::new(tasks.blocking().clone(), Some(tasks))))
    }
}

struct Open {
    wal: Wal,
    tasks: Option<seawall::Wal>,
    /// Where each record begins, as who keeps an index has it.
    starts: Vec<Position>,
    reader: Mutex<Option<Reader>>,
}

impl Open {
    fn new(wal: Wal, tasks: Option<seawall::Wal>) -> Self {
        Self { wal, tasks, starts: Vec::new(), reader: Mutex::default() }
    }
}

pub(super) fn record(bytes: &[u8]) -> Record<'_> {
    let (key, value) = bytes.split_at(KEY_BYTES.min(bytes.len()));
    Record::put(key, value)
}

impl Log for Open {
    fn append(&self, _writer: usize, bytes: &[u8], level: Level) -> Outcome<()> {
        self.wal.append_with(&record(bytes), level)?;
        Ok(())
    }

    fn append_batch(&self, _writer: usize, records: &[&[u8]], level: Level) -> Outcome<()> {
        let records: Vec<Record<'_>> = records.iter().map(|bytes| record(bytes)).collect();
        self.wal.append_batch_with(&records, level)?;
        Ok(())
    }

    fn delete_old(&self) -> Outcome<()> {
        self.wal.delete_segments_before(self.wal.current_position())?;
        Ok(())
    }

    fn append_task<'a>(&'a self, bytes: &'a [u8], level: Level) -> Option<Appending<'a>> {
        let tasks = self.tasks.as_ref()?;
        Some(Box::pin(async move {
            tasks.append_with(&record(bytes), level).await?;
            Ok(())
        }))
    }

    fn flush(&self) -> Outcome<()> {
        Ok(self.wal.flush()?)
    }

    fn syncs(&self) -> Option<u64> {
        Some(self.wal.stats().syncs)
    }

    fn stored_bytes(&self) -> Option<u64> {
        Some(self.wal.stats().bytes_appended)
    }

    fn read_all(&self, see: Seen<'_>) -> Outcome<u64> {
        let mut reader = self.wal.iter()?;
        let mut count = 0;
        while let Some((entry, _)) = reader.next_record()? {
            see(&entry.key, &entry.value);
            count += 1;
        }
        Ok(count)
    }

    fn index(&mut self) -> Outcome<u64> {
        self.starts.clear();
        let mut reader = self.wal.iter()?;
        while let Some((_, position)) = reader.next_record()? {
            self.starts.push(position);
        }
        self.reader = Mutex::new(Some(reader));
        Ok(self.starts.len() as u64)
    }

    fn seek(&self, number: u64) -> Outcome<usize> {
        let start = self.starts.get(usize::try_from(number)?).ok_or("no such record")?;
        let mut kept = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = kept.as_mut().ok_or("it was not prepared for seeking")?;
        reader.seek(*start)?;
        let (entry, _) = reader.next_record()?.ok_or("no such record")?;
        Ok(entry.key.len() + entry.value.len())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        if self.wal.config().map_sealed {
            self.wal.rotate()?;
        }
        Ok(self.wal.close()?)
    }
}
