//! `seawall dump`: every frame with its offset.

use crate::output::{Failure, Output, complain, record_json};
use clap::Args;
use seawall::{Lsn, WalConfig, inspect};
use serde_json::json;
use std::path::PathBuf;

/// Print every good frame of every segment, and what lies between.
#[derive(Args)]
#[command(after_help = "Examples:
  seawall dump /tmp/log
  seawall --json dump /tmp/log --records
Exit status: 0 all could be looked at, 2 some of it not: what, is told on standard error.")]
pub(crate) struct Dump {
    /// The log's folder.
    dir: PathBuf,
    /// Only this segment.
    #[arg(long)]
    segment: Option<u64>,
    /// Print the records of each frame, too.
    #[arg(long)]
    records: bool,
}

impl Dump {
    pub(crate) fn run(self, out: &mut Output) -> Result<u8, Failure> {
        let mut frames = inspect::frames(&WalConfig::in_dir(&self.dir))?;
        if !out.is_json {
            out.line("segment      offset      bytes kind          LSN    records    durable")?;
        }
        for frame in frames.by_ref() {
            let frame = match frame {
                Ok(frame) => frame,
                // The rest can still be looked at.
                Err(error) => {
                    out.finish()?;
                    complain(error);
                    out.status_known = 2;
                    continue;
                }
            };
            let segment = frame.segment.get();
            if self.segment.is_some_and(|only| only != segment) {
                continue;
            }
            let kind = format!("{:?}", frame.kind).to_lowercase();
            let durable = frame.durable.map(Lsn::get);
            let entries = frame.entries.iter().filter(|_| self.records);
            let records: Vec<_> =
                entries.map(|(entry, position)| record_json(entry, *position)).collect();
            let mut document = json!({
                "segment": segment,
                "offset": frame.offset,
                "bytes": frame.bytes,
                "kind": kind,
                "first_lsn": frame.first_lsn.get(),
                "records": frame.records,
                "durable": durable,
            });
            if self.records {
                document["entries"] = json!(records);
            }
            let claim = durable.map_or("-".to_owned(), |lsn| lsn.to_string());
            out.either(
                format_args!(
                    "{segment:>7} {:>11} {:>10} {kind:<8} {:>8} {:>10} {claim:>10}",
                    frame.offset, frame.bytes, frame.first_lsn, frame.records
                ),
                &document,
            )?;
            if !out.is_json {
                for record in records {
                    out.line(format_args!("        {record}"))?;
                }
            }
        }
        self.print_gaps(&frames, out)?;
        Ok(out.status_known)
    }

    fn print_gaps(&self, frames: &inspect::Frames, out: &mut Output) -> Result<(), Failure> {
        let gaps = frames
            .gaps()
            .iter()
            .filter(|(segment, _)| self.segment.is_none_or(|only| only == segment.get()));
        for (segment, hole) in gaps {
            let what = if hole.is_zero { "zeros" } else { "no frame" };
            out.either(
                format_args!(
                    "{segment:>7} {:>11} {:>10} {what}",
                    hole.start,
                    hole.end - hole.start
                ),
                &json!({
                    "segment": segment.get(),
                    "offset": hole.start,
                    "bytes": hole.end - hole.start,
                    "kind": what,
                }),
            )?;
        }
        Ok(())
    }
}
