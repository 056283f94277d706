//! `seawall cat` and `seawall tail`: records, printed.

use crate::append::Format;
use crate::output::{Failure, Output, complain_of_damage, kind_name, printable, record_json};
use clap::Args;
use seawall::blocking::{Reader, Wal};
use seawall::{Entry, Lsn, Position, Start, WalConfig};
use std::path::PathBuf;
use std::time::Duration;

/// Print records.
#[derive(Args)]
#[command(after_help = "Examples:
  seawall cat /tmp/log --from 10 --limit 5
  seawall cat /tmp/log --values-only
  seawall --json cat /tmp/log
In JSON a key or value that is not UTF-8 stands in hexadecimal as key_hex or value_hex.
Exit status: 0 all was printed, 1 the log is damaged and what is before the damage was printed, 2 it
cannot be read.")]
pub(crate) struct Cat {
    /// The log's folder.
    dir: PathBuf,
    /// Begin with this LSN instead of the first.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// Print so many records at most.
    #[arg(long)]
    limit: Option<u64>,
    /// Print the values as they are, told apart as `--format` says, and nothing else.
    #[arg(long)]
    values_only: bool,
    /// With --values-only: how values are told apart.
    #[arg(long, value_enum, default_value_t = Format::Lines, requires = "values_only")]
    format: Format,
}

impl Cat {
    pub(crate) fn run(self, out: &mut Output) -> Result<u8, Failure> {
        if self.values_only && out.is_json {
            let text =
                "--values-only prints values as they are, not as JSON: leave one of the two out";
            return Err(Failure::Other(text.to_owned()));
        }
        let (log, info) = Wal::open_read_only(WalConfig::in_dir(&self.dir))?;
        out.status_known = u8::from(info.corruption_detected);
        let start = self.from.map_or(Start::First, |lsn| Start::Lsn(Lsn::new(lsn)));
        let mut reader = log.read_from(start)?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some((entry, position)) = reader.next_record()?
        {
            left -= 1;
            if self.values_only {
                print_value(out, &entry, self.format)?;
            } else {
                print_record(out, &entry, position)?;
            }
        }
        out.finish()?;
        Ok(complain_of_damage(&self.dir, &info))
    }
}

fn print_value(out: &mut Output, entry: &Entry, format: Format) -> Result<(), Failure> {
    if format == Format::LengthPrefixed {
        let length = u32::try_from(entry.value.len())
            .map_err(|_| Failure::Other(format!("the value of LSN {} is too long", entry.lsn)))?;
        out.bytes(&length.to_le_bytes())?;
        return out.bytes(&entry.value);
    }
    out.bytes(&entry.value)?;
    out.bytes(b"\n")
}

fn print_record(out: &mut Output, entry: &Entry, position: Position) -> Result<(), Failure> {
    if out.is_json {
        return out.json(&record_json(entry, position));
    }
    let (key, value) = (printable(&entry.key), printable(&entry.value));
    out.line(format_args!("{}\t{position}\t{}\t{key}\t{value}", entry.lsn, kind_name(entry.kind)))
}

/// Print the last records, and with -f those that come.
#[derive(Args)]
#[command(after_help = "Examples:
  seawall tail -n 3 /tmp/log
  seawall tail -f /tmp/log")]
pub(crate) struct Tail {
    /// The log's folder.
    dir: PathBuf,
    /// So many records.
    #[arg(short = 'n', default_value_t = 10)]
    count: u64,
    /// Go on with records as they are appended.
    #[arg(short, long)]
    follow: bool,
}

/// How often another process's log is looked at. There is nothing to wait on: it is only files.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Tail {
    pub(crate) fn run(self, out: &mut Output) -> Result<u8, Failure> {
        let (log, info) = Wal::open_read_only(WalConfig::in_dir(&self.dir))?;
        out.status_known = u8::from(info.corruption_detected);
        let stats = log.stats();
        let first = stats.last_lsn.get().saturating_sub(self.count) + 1;
        let first = Lsn::new(first.max(stats.first_lsn.get()));
        let mut reader = log.read_from(first)?;
        print_all(out, &mut reader)?;
        let status = complain_of_damage(&self.dir, &info);
        if !self.follow {
            return Ok(status);
        }
        loop {
            std::thread::sleep(LOOK_AGAIN);
            if log.refresh()? {
                reader.renew()?;
                print_all(out, &mut reader)?;
            }
        }
    }
}

fn print_all(out: &mut Output, reader: &mut Reader) -> Result<(), Failure> {
    while let Some((entry, position)) = reader.next_record()? {
        print_record(out, &entry, position)?;
    }
    out.finish()
}
