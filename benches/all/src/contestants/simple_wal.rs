//! `simple_wal`: one file.

use crate::contestant::{Ability, Contestant, Log, Outcome, Seen, Setup};
use seawall::Level;
use simple_wal::LogFile;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

pub(super) struct SimpleWal;

impl Contestant for SimpleWal {
    fn name(&self) -> &'static str {
        "simple_wal"
    }

    fn can(&self, ability: Ability) -> Result<(), &'static str> {
        match ability {
            Ability::Buffered => Err("every append is three writes"),
            Ability::Disk | Ability::Mixed | Ability::Delete => Err("its flush does not sync"),
            Ability::Segments => Err("one file"),
            Ability::Compress => Err("no compression"),
            _ => Ok(()),
        }
    }

    fn durable(&self) -> &'static str {
        "none: its flush does nothing"
    }

    fn opening(&self) -> &'static str {
        "the lengths of all records; no checksum"
    }

    fn open(&self, dir: &Path, _setup: &Setup) -> Outcome<Box<dyn Log>> {
        std::fs::create_dir_all(dir)?;
        let log = LogFile::open(dir.join("log")).map_err(|error| error.to_string())?;
        Ok(Box::new(Open { log: Mutex::new(log) }))
    }
}

struct Open {
    log: Mutex<LogFile>,
}

impl Open {
    fn log(&self) -> Outcome<MutexGuard<'_, LogFile>> {
        self.log.lock().map_err(|_| "a writer panicked".into())
    }
}

impl Log for Open {
    fn append(&self, _writer: usize, record: &[u8], level: Level) -> Outcome<()> {
        let mut log = self.log()?;
        log.write(&mut record.to_vec())?;
        if level == Level::Disk {
            log.flush()?;
        }
        Ok(())
    }

    fn read_all(&self, see: Seen<'_>) -> Outcome<u64> {
        let mut count = 0;
        for record in self.log()?.iter(..).map_err(|error| error.to_string())? {
            see(&[], &record.map_err(|error| error.to_string())?);
            count += 1;
        }
        Ok(count)
    }

    fn seek(&self, number: u64) -> Outcome<usize> {
        let mut log = self.log()?;
        let mut records = log.iter(number..).map_err(|error| error.to_string())?;
        let record = records.next().ok_or("no such record")?;
        Ok(record.map_err(|error| error.to_string())?.len())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.log()?.flush()?)
    }
}
