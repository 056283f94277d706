//! `seawall append`: records from lines or from lengths and bytes.

use crate::output::{Failure, Output, progress};
use clap::{Args, ValueEnum};
use seawall::blocking::Wal;
use seawall::{Level, Lsn, Record, WalConfig};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::Instant;

/// Append records from standard input or a file.
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

impl Append {
    pub(crate) fn run(self, out: &mut Output) -> Result<u8, Failure> {
        let (wal, _) = Wal::open(WalConfig::in_dir(&self.dir))?;
        let started = Instant::now();
        let mut input: Box<dyn BufRead> = match &self.file {
            Some(file) => {
                let opened = File::open(file).map_err(Failure::io(file.display().to_string()));
                Box::new(BufReader::with_capacity(1 << 20, opened?))
            }
            None => Box::new(io::stdin().lock()),
        };
        let bar = progress(None, "appending");
        let (mut first, mut last, mut count) = (None, None, 0_u64);
        let mut batch = Vec::new();
        loop {
            let record = next_record(&mut *input, self.format)?;
            let is_end = record.is_none();
            batch.extend(record);
            if batch.len() as u64 == self.batch || (is_end && !batch.is_empty()) {
                let records: Vec<_> = batch.iter().map(|bytes| self.record(bytes)).collect();
                // Buffered until the end, and then as sure as was asked for.
                let appended = wal.append_batch_with(&records, Level::Buffered)?;
                first = first.or(Some(appended.first));
                last = Some(appended.last);
                count += records.len() as u64;
                bar.set_position(count);
                batch.clear();
            }
            if is_end {
                break;
            }
        }
        match self.level {
            LevelName::Buffered => {}
            LevelName::Os => wal.flush()?,
            LevelName::Disk => wal.sync()?,
        }
        let seconds = started.elapsed().as_secs_f64();
        bar.finish_and_clear();
        wal.close()?;
        let (first, last) = (first.map_or(0, Lsn::get), last.map_or(0, Lsn::get));
        let text = if count == 0 {
            "no records".to_owned()
        } else {
            format!("{count} records, LSN {first} to {last}, in {seconds:.3} s")
        };
        out.either(
            text,
            &json!({"records": count, "first_lsn": first, "last_lsn": last, "seconds": seconds}),
        )?;
        Ok(0)
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

fn next_record(input: &mut dyn BufRead, format: Format) -> Result<Option<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    let failed = || Failure::io("read the records");
    if format == Format::Lines {
        let read = input.read_until(b'\n', &mut bytes).map_err(failed())?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        return Ok((read > 0).then_some(bytes));
    }
    if input.fill_buf().map_err(failed())?.is_empty() {
        return Ok(None);
    }
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(failed())?;
    let length = u64::from(u32::from_le_bytes(length));
    let read = input.take(length).read_to_end(&mut bytes).map_err(failed())?;
    if (read as u64) < length {
        let text = format!("the last record has {read} bytes of the {length} that it announces");
        return Err(Failure::Other(text));
    }
    Ok(Some(bytes))
}
