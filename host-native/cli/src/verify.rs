//! `seawall verify`: all of a log read, and what is not as it was written.

use crate::output::{Failure, Output, counted, damage_text, extent};
use clap::Args;
use seawall::blocking::Wal;
use seawall::{RecoveryInfo, RecoveryPolicy, RecoveryScan, WalConfig, inspect};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

/// Read all of a log and say what is not as it was written. Changes nothing unless told to.
///
/// Exit status: 0 the log is whole (a torn tail after a crash is no damage), 1 it is damaged, 2 it
/// cannot be read.
#[derive(Args)]
#[command(after_help = "Examples:
  seawall verify /tmp/log
  seawall verify --repair /tmp/log")]
pub(crate) struct Verify {
    /// The log's folder.
    dir: PathBuf,
    /// End the log before the damage, after asking; what is cut is kept in quarantine/.
    #[arg(long)]
    repair: bool,
    /// Do not ask.
    #[arg(long, requires = "repair")]
    yes: bool,
}

impl Verify {
    pub(crate) fn run(self, out: &mut Output) -> Result<u8, Failure> {
        out.go_on_unread();
        let config = WalConfig { scan: RecoveryScan::Full, ..WalConfig::in_dir(&self.dir) };
        let info = inspect::check(&config)?;
        print(out, &info)?;
        let nothing_to_do = info.report.ranges.is_empty() && !info.corruption_detected;
        if !self.repair || nothing_to_do {
            return Ok(u8::from(info.corruption_detected));
        }
        if !self.yes && !asks(out)? {
            return Err(Failure::Other("nothing was changed".to_owned()));
        }
        let config = WalConfig { recovery: RecoveryPolicy::PrefixValid, ..config };
        let (wal, info) = Wal::open(config.clone())?;
        wal.close()?;
        for range in &info.report.ranges {
            if let Some(to) = range.moved_to {
                out.note(format_args!(
                    "moved {} {}..{} to {to}",
                    range.file, range.start, range.end
                ))?;
            }
        }
        let info = inspect::check(&config)?;
        print(out, &info)?;
        Ok(u8::from(info.corruption_detected))
    }
}

fn asks(out: &mut Output) -> Result<bool, Failure> {
    out.finish()?;
    if !io::stdin().is_terminal() {
        let text = "nobody can be asked here: give --yes to repair without asking";
        return Err(Failure::Other(text.to_owned()));
    }
    let failed = || Failure::io("ask");
    let question =
        "Cut what is listed above off the log? What was durable is kept in quarantine/. [y/N] ";
    let asked = write!(io::stderr(), "{question}").and_then(|()| io::stderr().flush());
    asked.map_err(failed())?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn print(out: &mut Output, info: &RecoveryInfo) -> Result<(), Failure> {
    let report = &info.report;
    if out.is_json {
        return out.json(&as_json(info));
    }
    for range in &report.ranges {
        let kind = range.kind.to_string();
        out.line(format_args!("{kind:9} {} {}..{}", range.file, range.start, range.end))?;
    }
    if let Some(damage) = &report.damage {
        out.line(damage_text(damage))?;
    }
    for stray in &report.strays {
        out.line(format_args!("stray     {stray}"))?;
    }
    let verdict = match (info.corruption_detected, info.bytes_truncated) {
        (true, _) => "damaged".to_owned(),
        (false, 0) => "whole".to_owned(),
        (false, bytes) => {
            format!("whole, with a torn tail of {bytes} bytes that nobody was promised")
        }
    };
    out.line(format_args!(
        "{verdict}: {}, {}, {} bytes read",
        extent(info.valid_records, report.first_lsn, report.last_lsn),
        counted(report.segments, "segment"),
        report.bytes_read
    ))
}

fn as_json(info: &RecoveryInfo) -> Value {
    let report = &info.report;
    let ranges: Vec<_> = report
        .ranges
        .iter()
        .map(|range| {
            json!({
                "kind": range.kind.to_string(),
                "file": range.file.to_string(),
                "start": range.start,
                "end": range.end,
                "moved_to": range.moved_to.map(|name| name.to_string()),
            })
        })
        .collect();
    let damage = report.damage.as_ref().map(|damage| {
        json!({
            "segment": damage.position.segment.get(),
            "offset": damage.position.offset,
            "first_lost": damage.first_lost.get(),
            "last_lost": damage.last_lost.get(),
            "durable": damage.durable.get(),
            "proof": damage.proof.to_string(),
        })
    });
    json!({
        "damaged": info.corruption_detected,
        "clean": report.was_clean,
        "records": info.valid_records,
        "first_lsn": report.first_lsn.get(),
        "last_lsn": report.last_lsn.get(),
        "segments": report.segments,
        "bytes_read": report.bytes_read,
        "bytes_torn": info.bytes_truncated,
        "ranges": ranges,
        "damage": damage,
        "strays": report.strays,
    })
}
