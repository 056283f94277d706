//! `seawall demo`: a real log, loaded by a process that is killed, recovered and verified.
//!
//! ```text
//! parent ──spawns──► child: appends from several threads at Disk
//!   ▲                  │ each acknowledgement, over a pipe
//!   └──────────────────┘
//! parent kills it at a random moment, opens the log, checks all that was acknowledged, again
//! ```

pub(crate) mod child;
mod content;
mod figures;

use crate::output::{Failure, Output, complain, counted, progress};
use child::{Ack, ChildProcess};
use clap::Args;
use content::Content;
use seawall::blocking::Wal;
use seawall::{FsyncPolicy, RecoveryInfo, WalConfig, inspect};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Load a real log from several threads, kill it at random moments, recover and verify it each
/// time, and print figures.
#[derive(Args)]
#[command(after_help = "Examples:
  seawall demo
  seawall demo --rounds 20 --seed 7
  seawall demo --input /etc/services --dir /tmp/demo")]
pub(crate) struct Demo {
    /// Use this folder, which must be empty or not there, and keep it.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Append so many records for each figure, at most.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Kill so many times.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// Append from so many threads.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=256))]
    threads: u64,
    /// The lines of this file are the records.
    #[arg(long)]
    input: Option<PathBuf>,
    /// Where chance comes from; another seed, other moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// No kill waits for more acknowledgements than this.
const ACKS_MAX: u64 = 3_000;

/// The settings of the log that is killed: segments so small that rotation goes on all the time.
fn config(dir: &Path) -> WalConfig {
    WalConfig {
        max_segment_size: 256 << 10,
        fsync_policy: FsyncPolicy::Always,
        ..WalConfig::in_dir(dir)
    }
}

impl Demo {
    pub(crate) fn run(self, out: &mut Output) -> Result<u8, Failure> {
        let mut temporary = None;
        let base = match &self.dir {
            Some(dir) => dir.clone(),
            None => {
                let made = tempfile::tempdir().map_err(Failure::io("make a temporary folder"))?;
                temporary.insert(made).path().to_owned()
            }
        };
        let result = self.run_in(&base, out);
        let is_wrong = result.as_ref().is_err_and(|failure| !failure.is_closed_pipe());
        if let (Some(kept), true) = (temporary, is_wrong) {
            let path = kept.keep();
            complain(format_args!("the log is kept in {}", path.display()));
        }
        result
    }

    fn run_in(&self, base: &Path, out: &mut Output) -> Result<u8, Failure> {
        // It leaves nothing but its log there.
        if base.read_dir().is_ok_and(|mut names| names.next().is_some()) {
            let text = format!("{} is not empty: give another folder", base.display());
            return Err(Failure::Other(text));
        }
        let dir = base.join("log");
        out.note(format_args!("log in {}, seed {}", dir.display(), self.seed))?;
        let content = Content::new(self.input.as_deref())?;
        let mut chance = self.seed;
        let mut known = BTreeMap::new();
        let mut rounds = Vec::new();
        let bar = progress(Some(self.rounds), "killing");
        for round in 0..self.rounds {
            chance = content::spread(chance.wrapping_add(round));
            let moment = 1 + chance % ACKS_MAX;
            rounds.push(self.round(&dir, round, moment, &content, &mut known, out)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let (wal, info) = Wal::open(config(&dir))?;
        wal.close()?;
        let (wal, clean) = Wal::open(config(&dir))?;
        wal.close()?;
        let checked = inspect::check(&config(&dir))?;
        let is_whole = clean.report.was_clean
            && !checked.corruption_detected
            && checked.valid_records == info.valid_records;
        if !is_whole {
            return Err(Failure::Damaged(format!("the closed log is not whole: {checked:?}")));
        }
        let figures = figures::measure(base, self.records, self.threads, out)?;
        let text = format!(
            "verified: {} records survived {} kills, each acknowledged one byte for byte, in order",
            checked.valid_records, self.rounds
        );
        out.either(
            text,
            &json!({
                "verified": true,
                "seed": self.seed,
                "records": checked.valid_records,
                "segments": checked.report.segments,
                "rounds": rounds,
                "figures": figures,
            }),
        )?;
        Ok(0)
    }

    /// Runs the child, kills it after so many acknowledgements, recovers and checks.
    fn round(
        &self,
        dir: &Path,
        round: u64,
        moment: u64,
        content: &Content,
        known: &mut BTreeMap<u64, (String, Vec<u8>)>,
        out: &mut Output,
    ) -> Result<Value, Failure> {
        let child = ChildProcess::start(dir, round, self.threads, self.input.as_deref())?;
        let acks = child.kill_after(moment)?;
        for Ack { lsn, thread, counter } in &acks {
            let (key, value) = content.record(round, *thread, *counter);
            if known.insert(*lsn, (key, value)).is_some() {
                return Err(Failure::Damaged(format!("LSN {lsn} was acknowledged twice")));
            }
        }
        let (wal, info) = Wal::open(config(dir))?;
        let threads = self.threads;
        Expected { content, round, threads, known }.check(&wal, &info)?;
        wal.close()?;
        let report = &info.report;
        out.note(format_args!(
            "round {}: killed after {} acknowledgements; recovered {} records in {}, {} torn bytes \
             cut; all acknowledged are there",
            round + 1,
            acks.len(),
            info.valid_records,
            counted(report.segments, "segment"),
            info.bytes_truncated
        ))?;
        Ok(json!({
            "killed_after": moment,
            "acknowledged": acks.len(),
            "recovered": info.valid_records,
            "segments": report.segments,
            "torn_bytes": info.bytes_truncated,
        }))
    }
}

/// What a log that was killed may hold, and must.
struct Expected<'a> {
    content: &'a Content,
    /// The last round that appended.
    round: u64,
    threads: u64,
    known: &'a mut BTreeMap<u64, (String, Vec<u8>)>,
}

impl Expected<'_> {
    /// Compares what a recovered log holds with what was acknowledged and what can have been
    /// appended. What it holds is known from then on: a later round must find it again.
    fn check(self, wal: &Wal, info: &RecoveryInfo) -> Result<(), Failure> {
        let wrong = |text: String| Failure::Damaged(format!("not verified: {text}"));
        if info.corruption_detected {
            return Err(wrong(format!("a kill is no damage: {:?}", info.report)));
        }
        let mut reader = wal.iter()?;
        let mut found = BTreeMap::new();
        let mut counters = BTreeMap::new();
        while let Some((entry, _)) = reader.next_record()? {
            let lsn = entry.lsn.get();
            if lsn != found.len() as u64 + 1 {
                return Err(wrong(format!("LSN {lsn} follows {}", found.len())));
            }
            let key = String::from_utf8_lossy(&entry.key).into_owned();
            if !self.can_hold(&key, &entry.value, &mut counters) {
                return Err(wrong(format!("LSN {lsn} is not what was appended next: {key}")));
            }
            found.insert(lsn, (key, entry.value.to_vec()));
        }
        if found.len() as u64 != info.valid_records {
            let (read, told) = (found.len(), info.valid_records);
            return Err(wrong(format!("{read} records were read, and recovery told of {told}")));
        }
        for (lsn, record) in &*self.known {
            if found.get(lsn) != Some(record) {
                return Err(wrong(format!("LSN {lsn} was acknowledged and is not as it was")));
            }
        }
        *self.known = found;
        Ok(())
    }

    /// Whether a record is the next that its thread appended in its round, byte for byte. So none
    /// is there twice, none is left out, and none was never appended.
    fn can_hold(&self, key: &str, value: &[u8], counters: &mut BTreeMap<(u64, u64), u64>) -> bool {
        let Some((round, thread, counter)) = Content::parse(key) else { return false };
        let next = counters.entry((round, thread)).or_default();
        let is_next = round <= self.round && thread < self.threads && counter == *next;
        *next += 1;
        let (made, content) = self.content.record(round, thread, counter);
        is_next && made == key && content == value
    }
}
