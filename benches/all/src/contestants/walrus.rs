//! walrus-rust, with either of its ways to the file. Its folder and its silence are set by the
//! environment of the process: see `child`.

use crate::contestant::{Ability, Contestant, Log, Outcome, Seen, Setup};
use seawall::Level;
use std::path::Path;
use walrus_rust::{FsyncSchedule, ReadConsistency};

pub(super) struct Walrus {
    /// Whether it writes to a mapping, or with calls.
    pub(super) maps: bool,
}

const TOPIC: &str = "bench";
const READ_BYTES: usize = 1 << 20;

impl Contestant for Walrus {
    fn name(&self) -> &'static str {
        if self.maps { "walrus-rust, mmap" } else { "walrus-rust" }
    }

    fn can(&self, ability: Ability) -> Result<(), &'static str> {
        match ability {
            Ability::Buffered => Err("every append reaches the kernel"),
            Ability::Mixed => Err("all appends ask for the same"),
            Ability::Seek => Err("readers only go on"),
            Ability::Delete => Err("what a reader has taken goes"),
            Ability::Segments => Err("the size of its files is fixed"),
            Ability::Compress => Err("no compression"),
            _ => Ok(()),
        }
    }

    fn durable(&self) -> &'static str {
        if self.maps { "a copy and msync of the whole mapping" } else { "O_SYNC write, then fsync" }
    }

    fn opening(&self) -> &'static str {
        "every record's checksum, in all files"
    }

    fn open(&self, _dir: &Path, setup: &Setup) -> Outcome<Box<dyn Log>> {
        if self.maps {
            walrus_rust::disable_fd_backend();
        } else {
            walrus_rust::enable_fd_backend();
        }
        let schedule = if setup.level == Level::Disk {
            FsyncSchedule::SyncEach
        } else {
            FsyncSchedule::NoFsync
        };
        let log = walrus_rust::Walrus::with_consistency_and_schedule(
            ReadConsistency::AtLeastOnce { persist_every: u32::MAX },
            schedule,
        )?;
        Ok(Box::new(Open { log }))
    }
}

struct Open {
    log: walrus_rust::Walrus,
}

impl Log for Open {
    fn append(&self, _writer: usize, record: &[u8], _level: Level) -> Outcome<()> {
        Ok(self.log.append_for_topic(TOPIC, record)?)
    }

    fn append_batch(&self, _writer: usize, records: &[&[u8]], _level: Level) -> Outcome<()> {
        Ok(self.log.batch_append_for_topic(TOPIC, records)?)
    }

    fn read_all(&self, see: Seen<'_>) -> Outcome<u64> {
        let mut count = 0;
        loop {
            let entries = self.log.batch_read_for_topic(TOPIC, READ_BYTES, true)?;
            if entries.is_empty() {
                return Ok(count);
            }
            for entry in entries {
                see(&[], &entry.data);
                count += 1;
            }
        }
    }

    fn seek(&self, _number: u64) -> Outcome<usize> {
        Err("readers only go on".into())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(())
    }
}
