//! raft-engine: each writer appends to a Raft group of its own, as it is meant to be used.

use crate::contestant::{Ability, Contestant, Log, Outcome, Seen, Setup};
use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use seawall::Level;
use std::path::Path;
use std::sync::Mutex;

pub(super) struct RaftEngine;

const SEGMENT_BYTES_DEFAULT: u64 = 128 << 20;
const READ_RECORDS: u64 = 256;
const FIRST_INDEX: u64 = 1;

impl Contestant for RaftEngine {
    fn name(&self) -> &'static str {
        "raft-engine"
    }

    fn can(&self, ability: Ability) -> Result<(), &'static str> {
        match ability {
            Ability::Buffered => Err("every write goes to the kernel"),
            // It packs whole batches over a threshold, not values.
            Ability::Compress => Err("packs batches, not records"),
            _ => Ok(()),
        }
    }

    fn durable(&self) -> &'static str {
        "one write and fdatasync for all who wait"
    }

    fn opening(&self) -> &'static str {
        "headers and indexes of all batches; builds an index in memory"
    }

    fn open(&self, dir: &Path, setup: &Setup) -> Outcome<Box<dyn Log>> {
        let engine = Engine::open(Config {
            dir: dir.to_string_lossy().into_owned(),
            target_file_size: ReadableSize(setup.segments.bytes_or(SEGMENT_BYTES_DEFAULT)),
            purge_threshold: if setup.deletes {
                ReadableSize(2 * setup.segments.bytes_or(SEGMENT_BYTES_DEFAULT))
            } else {
                ReadableSize::gb(100)
            },
            // The records of the other logs are not compressed.
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        })?;
        let next = |group| engine.last_index(group).map_or(FIRST_INDEX, |last| last + 1);
        let groups = (0..setup.writers.max(1) as u64).map(|group| {
            let batch = LogBatch::with_capacity(1);
            Mutex::new(Group { id: group + 1, next: next(group + 1), batch })
        });
        let groups = groups.collect();
        Ok(Box::new(Open { engine, groups }))
    }
}

struct Group {
    id: u64,
    next: u64,
    batch: LogBatch,
}

struct Open {
    engine: Engine,
    groups: Vec<Mutex<Group>>,
}

/// How the engine learns an entry's index. An entry is any protobuf message with a number and
/// bytes.
struct Indexed;

impl MessageExt for Indexed {
    type Entry = UninterpretedOption;

    fn index(entry: &Self::Entry) -> u64 {
        entry.get_positive_int_value()
    }
}

impl Log for Open {
    fn append(&self, writer: usize, record: &[u8], level: Level) -> Outcome<()> {
        self.append_batch(writer, &[record], level)
    }

    fn append_batch(&self, writer: usize, records: &[&[u8]], level: Level) -> Outcome<()> {
        let group = &self.groups[writer % self.groups.len()];
        let mut group = group.lock().map_err(|_| "a writer panicked")?;
        let Group { id, next, batch } = &mut *group;
        let entries: Vec<_> = records
            .iter()
            .zip(*next..)
            .map(|(record, index)| {
                let mut entry = UninterpretedOption::new();
                entry.set_positive_int_value(index);
                entry.set_string_value(record.to_vec());
                entry
            })
            .collect();
        batch.add_entries::<Indexed>(*id, &entries)?;
        self.engine.write(batch, level == Level::Disk)?;
        *next += records.len() as u64;
        Ok(())
    }

    fn delete_old(&self) -> Outcome<()> {
        for group in &self.groups {
            let group = group.lock().map_err(|_| "a writer panicked")?;
            self.engine.compact_to(group.id, group.next);
        }
        self.engine.purge_expired_files()?;
        Ok(())
    }

    fn read_all(&self, see: Seen<'_>) -> Outcome<u64> {
        let mut count = 0;
        for group in self.engine.raft_groups() {
            let Some(first) = self.engine.first_index(group) else { continue };
            let end = self.engine.last_index(group).map_or(first, |last| last + 1);
            let mut from = first;
            let mut entries = Vec::new();
            while from < end {
                let to = end.min(from + READ_RECORDS);
                self.engine.fetch_entries_to::<Indexed>(group, from, to, None, &mut entries)?;
                for entry in entries.drain(..) {
                    see(&[], entry.get_string_value());
                    count += 1;
                }
                from = to;
            }
        }
        Ok(count)
    }

    fn index(&mut self) -> Outcome<u64> {
        let Some(first) = self.engine.first_index(1) else { return Ok(0) };
        Ok(self.engine.last_index(1).map_or(0, |last| last + 1 - first))
    }

    fn seek(&self, number: u64) -> Outcome<usize> {
        let entry = self.engine.get_entry::<Indexed>(1, FIRST_INDEX + number)?;
        Ok(entry.ok_or("no such entry")?.get_string_value().len())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.engine.sync()?)
    }
}
