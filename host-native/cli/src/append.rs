//! `seawall append`: records from lines or from lengths and bytes.

use crate::output::{Failure, Output, complain, extent, progress, refusal};
use clap::{Args, ValueEnum};
use seawall::blocking::Wal;
use seawall::{Level, Lsn, Record, RecoveryPolicy, WalConfig};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Append records from standard input or a file. A log that is damaged is left as it is.
#[derive(Args)]
#[command(after_help = "Examples:
  seawall append /tmp/log --file /etc/services
  printf 'a=1\\nb=2\\n' | seawall append /tmp/log --separator =")]
pub(crate) struct Append {
    /// The log's folder; it is made where it is not there.
    dir: PathBuf,
    /// Read from this file instead of standard input.
    #[arg(long)]
    file: Option<PathBuf>,
    /// How records are told apart.
    #[arg(long, value_enum, default_value_t = Format::Lines)]
    format: Format,
    /// The key of every record.
    #[arg(long, default_value = "", conflicts_with = "separator")]
    key: String,
    /// Each record's key is what comes before this; a record without it has an empty key.
    #[arg(long)]
    separator: Option<String>,
    /// How sure the last append is when the command ends.
    #[arg(long, value_enum, default_value_t = LevelName::Disk)]
    level: LevelName,
    /// So many records are one atomic batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    batch: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A record is a line, without its end.
    Lines,
    /// A record is its length, four bytes little-endian, and so many bytes.
    LengthPrefixed,
}

#[derive(Clone, Copy, ValueEnum)]
enum LevelName {
    Buffered,
    Os,
    Disk,
}

/// What has been appended.
#[derive(Default)]
struct Appended {
    count: u64,
    first: Option<Lsn>,
    last: Option<Lsn>,
}

impl Append {
    pub(crate) fn run(self, out: &mut Output) -> Result<u8, Failure> {
        // The input first: without it, no log is made.
        let mut input = Input::open(self.file.as_deref(), self.format)?;
        // What had been durable is cut by `seawall verify --repair` alone, never in passing.
        let config = WalConfig { recovery: RecoveryPolicy::Strict, ..WalConfig::in_dir(&self.dir) };
        let (wal, info) = Wal::open(config).map_err(refusal(&self.dir))?;
        if info.bytes_truncated > 0 {
            let torn = info.bytes_truncated;
            complain(format_args!("cut a torn tail of {torn} bytes that nobody was promised"));
        }
        let started = Instant::now();
        let mut appended = Appended::default();
        let result = self.append_all(&wal, &mut input, &mut appended);
        let settled = self.settle(&wal);
        let seconds = started.elapsed().as_secs_f64();
        let (first, last) = (appended.first.unwrap_or_default(), appended.last.unwrap_or_default());
        let extent = extent(appended.count, first, last);
        match (&result, &settled) {
            (Err(Failure::Log(_)), _) => {
                complain(
                    "what was appended before this failure may be there in part: `seawall stat`",
                );
            }
            (Err(_), Ok(())) => complain(format_args!("before this failure: {extent} appended")),
            _ => {}
        }
        result.and(settled)?;
        #[expect(clippy::cast_precision_loss, reason = "a rate is read to three digits")]
        let rate = appended.count as f64 / seconds.max(1e-9);
        out.either(
            format_args!("{extent}, in {seconds:.3} s, {rate:.0} a second"),
            &json!({
                "records": appended.count,
                "first_lsn": first.get(),
                "last_lsn": last.get(),
                "seconds": seconds,
                "records_per_second": rate,
                "torn_bytes_cut": info.bytes_truncated,
            }),
        )?;
        Ok(0)
    }

    fn append_all(
        &self,
        wal: &Wal,
        input: &mut Input,
        appended: &mut Appended,
    ) -> Result<(), Failure> {
        let bar = progress(None, "appending");
        let limit = wal.config().max_record_size;
        let mut batch = Vec::new();
        loop {
            let record = input.next_record(limit)?;
            let is_end = record.is_none();
            batch.extend(record);
            if batch.len() as u64 == self.batch || (is_end && !batch.is_empty()) {
                let records: Vec<_> = batch.iter().map(|bytes| self.record(bytes)).collect();
                // Buffered until the end, and then as sure as was asked for.
                let done = wal.append_batch_with(&records, Level::Buffered)?;
                appended.first = appended.first.or(Some(done.first));
                appended.last = Some(done.last);
                appended.count += records.len() as u64;
                bar.set_position(appended.count);
                batch.clear();
            }
            if is_end {
                bar.finish_and_clear();
                return Ok(());
            }
        }
    }

    /// Makes what was appended as sure as was asked for, and closes the log.
    fn settle(&self, wal: &Wal) -> Result<(), Failure> {
        match self.level {
            LevelName::Buffered => {}
            LevelName::Os => wal.flush()?,
            LevelName::Disk => wal.sync()?,
        }
        Ok(wal.close()?)
    }

    fn record<'a>(&'a self, bytes: &'a [u8]) -> Record<'a> {
        let Some(separator) = &self.separator else { return Record::put(&self.key, bytes) };
        let separator = separator.as_bytes();
        let at = bytes.windows(separator.len().max(1)).position(|window| window == separator);
        match at {
            Some(at) => Record::put(&bytes[..at], &bytes[at + separator.len()..]),
            None => Record::put(b"", bytes),
        }
    }
}

/// Where records come from, and how far it has been read.
struct Input {
    reader: Box<dyn BufRead>,
    format: Format,
    name: String,
    offset: u64,
}

impl Input {
    fn open(file: Option<&Path>, format: Format) -> Result<Self, Failure> {
        let name = file.map_or("standard input".to_owned(), |file| file.display().to_string());
        let reader: Box<dyn BufRead> = match file {
            Some(file) => {
                let opened = File::open(file).map_err(Failure::io(&name))?;
                Box::new(BufReader::with_capacity(1 << 20, opened))
            }
            None => Box::new(io::stdin().lock()),
        };
        Ok(Self { reader, format, name, offset: 0 })
    }

    /// Up to so many bytes, and whether there were as many.
    fn read(&mut self, count: u64, into: &mut Vec<u8>) -> Result<bool, Failure> {
        let read = match self.format {
            Format::Lines => (&mut self.reader).take(count).read_until(b'\n', into),
            Format::LengthPrefixed => (&mut self.reader).take(count).read_to_end(into),
        };
        let failed = Failure::io(format!("read {} at offset {}", self.name, self.offset));
        let read = read.map_err(failed)? as u64;
        self.offset += read;
        Ok(read == count)
    }

    /// The next record; `None` at the end. No more than `limit` bytes are held for it.
    fn next_record(&mut self, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        let (start, mut bytes) = (self.offset, Vec::new());
        let wrong = |name: &str, what: String| {
            Err(Failure::Other(format!("{name}, the record at offset {start}: {what}")))
        };
        if self.format == Format::Lines {
            if self.read(limit.saturating_add(2), &mut bytes)? {
                return wrong(&self.name, format!("a line over the limit of {limit} bytes"));
            }
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            return Ok((self.offset > start).then_some(bytes));
        }
        self.read(4, &mut bytes)?;
        let Ok(length) = <[u8; 4]>::try_from(&bytes[..]) else {
            let is_end = bytes.is_empty();
            let what = format!("{} bytes of the 4 of its length", bytes.len());
            return if is_end { Ok(None) } else { wrong(&self.name, what) };
        };
        let length = u64::from(u32::from_le_bytes(length));
        if length > limit {
            let what = format!("{length} bytes, over the limit of {limit}");
            return wrong(&self.name, what);
        }
        bytes.clear();
        if !self.read(length, &mut bytes)? {
            let what = format!("only {} bytes of the {length} that it announces", bytes.len());
            return wrong(&self.name, what);
        }
        Ok(Some(bytes))
    }
}
