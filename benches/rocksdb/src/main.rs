//! The program `bench-all`, in which `RocksDB` takes part as well.
//!
//! That is a store whose log serves its tables: each write goes to the log and to a table in
//! memory. What is measured is that write; what is read is the log.

#![forbid(unsafe_code)]

use rocksdb::{DB, Options, WriteBatch, WriteBatchIterator, WriteOptions};
use seawall::Level;
use seawall_bench_all::{Ability, Contestant, Log, Outcome, Seen, Setup};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

fn main() -> ExitCode {
    seawall_bench_all::run(vec![Box::new(RocksDb)])
}

struct RocksDb;

/// No row writes so much: tables stay in memory, and the log whole.
const TABLE_BYTES: usize = 8 << 30;

impl Contestant for RocksDb {
    fn name(&self) -> &'static str {
        "rocksdb"
    }

    fn can(&self, ability: Ability) -> Result<(), &'static str> {
        match ability {
            Ability::Seek => Err("it finds keys, not records of its log"),
            Ability::Segments | Ability::Delete => Err("log files end with tables"),
            Ability::Compress => Err("its log is not compressed by record"),
            _ => Ok(()),
        }
    }

    fn durable(&self) -> &'static str {
        "one write and fdatasync for all who wait"
    }

    fn opening(&self) -> &'static str {
        "every record's checksum; builds a table in memory"
    }

    fn open(&self, dir: &Path, setup: &Setup) -> Outcome<Box<dyn Log>> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(TABLE_BYTES);
        options.set_db_write_buffer_size(TABLE_BYTES);
        options.set_max_total_wal_size(TABLE_BYTES as u64);
        options.set_avoid_unnecessary_blocking_io(true);
        options.set_manual_wal_flush(setup.level == Level::Buffered);
        options.set_wal_ttl_seconds(3600);
        let db = DB::open(&options, dir)?;
        let next = AtomicU64::new(db.latest_sequence_number() + 1);
        Ok(Box::new(Open { db, next }))
    }
}

struct Open {
    db: DB,
    next: AtomicU64,
}

impl Open {
    fn key(&self) -> [u8; 8] {
        self.next.fetch_add(1, Ordering::Relaxed).to_le_bytes()
    }
}

fn how(level: Level) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(level == Level::Disk);
    options
}

impl Log for Open {
    fn append(&self, _writer: usize, record: &[u8], level: Level) -> Outcome<()> {
        Ok(self.db.put_opt(self.key(), record, &how(level))?)
    }

    fn append_batch(&self, _writer: usize, records: &[&[u8]], level: Level) -> Outcome<()> {
        let mut batch = WriteBatch::default();
        for record in records {
            batch.put(self.key(), record);
        }
        Ok(self.db.write_opt(batch, &how(level))?)
    }

    fn flush(&self) -> Outcome<()> {
        Ok(self.db.flush_wal(false)?)
    }

    fn read_all(&self, see: Seen<'_>) -> Outcome<u64> {
        let mut values = Values { see, count: 0 };
        for update in self.db.get_updates_since(0)? {
            update?.1.iterate(&mut values);
        }
        Ok(values.count)
    }

    fn index(&mut self) -> Outcome<u64> {
        Ok(self.db.latest_sequence_number())
    }

    fn seek(&self, _number: u64) -> Outcome<usize> {
        Err("it finds keys, not records of its log".into())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.db.flush_wal(true)?)
    }
}

struct Values<'a> {
    see: Seen<'a>,
    count: u64,
}

impl WriteBatchIterator for Values<'_> {
    fn put(&mut self, _key: &[u8], value: &[u8]) {
        (self.see)(&[], value);
        self.count += 1;
    }

    fn delete(&mut self, _key: &[u8]) {}
}
