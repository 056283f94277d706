//! `seawall stat`: a log's segments and how far it reaches.

use crate::output::{Failure, Output, complain_of_damage, extent};
use clap::Args;
use seawall::WalConfig;
use seawall::blocking::Wal;
use serde_json::json;
use std::path::PathBuf;

/// Print a log's segments and how far it reaches.
#[derive(Args)]
#[command(after_help = "Example:
  seawall stat /tmp/log")]
pub(crate) struct Stat {
    /// The log's folder.
    dir: PathBuf,
}

impl Stat {
    pub(crate) fn run(self, out: &mut Output) -> Result<u8, Failure> {
        out.go_on_unread();
        let (log, info) = Wal::open_read_only(WalConfig::in_dir(&self.dir))?;
        let stats = log.stats();
        let segments: Vec<_> = stats
            .segments
            .iter()
            .map(|segment| {
                json!({
                    "segment": segment.segment.get(),
                    "first_lsn": segment.first_lsn.get(),
                    "last_lsn": segment.last_lsn.get(),
                    "bytes": segment.bytes,
                    "sealed": segment.is_sealed,
                })
            })
            .collect();
        if out.is_json {
            out.json(&json!({
                "log": stats.log.to_string(),
                "records": info.valid_records,
                "first_lsn": stats.first_lsn.get(),
                "last_lsn": stats.last_lsn.get(),
                "durable_lsn": stats.durable_lsn.get(),
                "damaged": info.corruption_detected,
                "end": {"segment": stats.end.segment.get(), "offset": stats.end.offset},
                "clean": info.report.was_clean,
                "segments": segments,
            }))?;
            out.finish()?;
            return Ok(complain_of_damage(&self.dir, &info));
        }
        out.line(format_args!("log      {}", stats.log))?;
        let extent = extent(info.valid_records, stats.first_lsn, stats.last_lsn);
        out.line(format_args!("holds    {extent}"))?;
        out.line(format_args!("durable  LSN {}", stats.durable_lsn))?;
        out.line(format_args!("end      {}", stats.end))?;
        let ending = match (info.corruption_detected, info.report.was_clean) {
            (true, _) => "damaged",
            (false, true) => "clean",
            (false, false) => "not closed",
        };
        out.line(format_args!("ending   {ending}"))?;
        out.line("segment       bytes    first LSN     last LSN")?;
        for segment in &stats.segments {
            let state = if segment.is_sealed { "sealed" } else { "active" };
            out.line(format_args!(
                "{:>7} {:>11} {:>12} {:>12}  {state}",
                segment.segment, segment.bytes, segment.first_lsn, segment.last_lsn
            ))?;
        }
        out.finish()?;
        Ok(complain_of_damage(&self.dir, &info))
    }
}
