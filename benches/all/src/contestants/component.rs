//! Seawall as a WebAssembly component, in wasmtime.

use super::seawall::record;
use crate::contestant::{Ability, Appending, Contestant, Log, Outcome, Seen, Setup};
use crate::row::Pack;
use seawall::{Level, Record};
use seawall_wasmtime::{Found, Limits, Program, Wal, types};
use std::path::Path;
use std::sync::OnceLock;

/// As `cargo xtask component` builds it.
#[derive(Default)]
pub(super) struct Component {
    /// Compiled once, when somebody first asks what it can do. `None`: it is not there.
    program: OnceLock<Option<Program>>,
}

/// A reader is given so many bytes at a time.
const PAGE_BYTES: u32 = 256 << 10;
const NOT_BUILT: &str = "`cargo xtask component` has not built it";

impl Component {
    fn program(&self) -> Option<&Program> {
        let compile = || {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/component");
            let bytes = std::fs::read(folder.join("seawall-simd.wasm")).ok()?;
            Program::compile(&bytes, &Limits::default()).ok()
        };
        self.program.get_or_init(compile).as_ref()
    }
}

impl Contestant for Component {
    fn name(&self) -> &'static str {
        "seawall in wasm"
    }

    fn can(&self, _ability: Ability) -> Result<(), &'static str> {
        self.program().map(drop).ok_or(NOT_BUILT)
    }

    fn durable(&self) -> &'static str {
        "a write and sync-data for all who wait"
    }

    fn opening(&self) -> &'static str {
        "every frame's checksum, in the last segment, once it is compiled"
    }

    fn open(&self, dir: &Path, setup: &Setup) -> Outcome<Box<dyn Log>> {
        let program = self.program().ok_or(NOT_BUILT)?;
        let default = program.default_config();
        let config = types::Config {
            segment_bytes_max: setup.segments.bytes_or(default.segment_bytes_max),
            fsync_policy: if setup.level == Level::Disk {
                default.fsync_policy
            } else {
                types::FsyncPolicy::Os
            },
            compression: match setup.pack {
                Pack::Plain => types::Compression::None,
                Pack::Lz4 => types::Compression::Lz4,
                Pack::Zstd => types::Compression::Zstd,
            },
            ..default
        };
        let (wal, _) = Wal::open(program, dir, config).wait()?;
        Ok(Box::new(Open { wal, starts: Vec::new() }))
    }
}

struct Open {
    wal: Wal,
    /// Where each record begins, once somebody is to seek.
    starts: Vec<types::Position>,
}

impl Open {
    fn pages(&self, mut see: impl FnMut(&Found<'_>)) -> Outcome<u64> {
        let first = self.wal.stats().wait()?.first;
        let cursor = self.wal.read_from(first).wait()?;
        let mut count = 0;
        loop {
            let page = cursor.read_batch(PAGE_BYTES).wait()?;
            if page.is_empty() {
                return Ok(count);
            }
            for found in page.records() {
                see(&found);
                count += 1;
            }
        }
    }
}

const fn level_of(level: Level) -> types::Level {
    match level {
        Level::Buffered => types::Level::Buffered,
        Level::Os => types::Level::Os,
        Level::Disk => types::Level::Disk,
    }
}

impl Log for Open {
    fn append(&self, _writer: usize, bytes: &[u8], level: Level) -> Outcome<()> {
        self.wal.append_with(&record(bytes), level_of(level)).wait()?;
        Ok(())
    }

    fn append_batch(&self, _writer: usize, records: &[&[u8]], level: Level) -> Outcome<()> {
        let records: Vec<Record<'_>> = records.iter().map(|bytes| record(bytes)).collect();
        self.wal.append_batch_with(&records, level_of(level)).wait()?;
        Ok(())
    }

    fn append_task<'a>(&'a self, bytes: &'a [u8], level: Level) -> Option<Appending<'a>> {
        Some(Box::pin(async move {
            self.wal.append_with(&record(bytes), level_of(level)).await?;
            Ok(())
        }))
    }

    fn flush(&self) -> Outcome<()> {
        self.wal.flush().wait()?;
        Ok(())
    }

    fn delete_old(&self) -> Outcome<()> {
        let last = self.wal.stats().wait()?.last;
        self.wal.delete_before(last).wait()?;
        Ok(())
    }

    fn read_all(&self, see: Seen<'_>) -> Outcome<u64> {
        self.pages(|found| see(found.record.key, found.record.value))
    }

    fn index(&mut self) -> Outcome<u64> {
        let mut starts = Vec::new();
        let count = self.pages(|Found { segment, offset, .. }| {
            starts.push(types::Position { segment: *segment, offset: *offset });
        })?;
        self.starts = starts;
        Ok(count)
    }

    fn seek(&self, number: u64) -> Outcome<usize> {
        let start = *self.starts.get(usize::try_from(number)?).ok_or("no such record")?;
        let page = self.wal.read_from(start).wait()?.read_batch(1).wait()?;
        let found = page.records().next().ok_or("no such record")?;
        Ok(found.record.key.len() + found.record.value.len())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.wal.close().wait()?)
    }
}
