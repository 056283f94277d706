//! Disks that lie: bits that turn over, writes that go astray or are lost, bytes of an earlier
//! life. What must hold then is less: what is wrong is told, or it is harmless.
//!
//! What can be told at all is bounded by what was written down. The last records before a crash are
//! vouched for by nothing on the disk, so a lie about those looks like a torn write. From the
//! frames that the lie did not touch it follows how far the log had said that it was durable: loss
//! up to there must be told.

use crate::disk::{Disk, Goes, Memory};
use crate::ensure;
use crate::history::Lie;
use crate::opening::{Allowed, DeadBy, Ended, Go, Opened, contiguous, recover, start};
use crate::oracle::{Verdict, broken};
use crate::random::Random;
use crate::world::World;
use alloc::format;
use alloc::vec::Vec;
use seawall_core::command::Command;
use seawall_core::config::RecoveryPolicy;
use seawall_core::log::Log;
use seawall_core::recover::{RecoveryError, Report};
use seawall_core::wire::frame::HEAD_BYTES_MAX;
use seawall_core::wire::header::FRAMES_OFFSET;
use seawall_core::wire::name::{FileId, FileName};

/// What the disk has lied about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Suspicion {
    /// Bytes that are not what was written.
    pub wrong: Vec<(FileName, u64, u64)>,
    /// A write that has not come yet is to go astray.
    pub is_due: bool,
    /// A recovery since then was ended by a crash: what it found, it has told nobody, and what it
    /// mended already, the next does not find.
    pub was_cut_short: bool,
}

impl Suspicion {
    fn is_about(&self, name: FileName) -> bool {
        self.wrong.iter().any(|(other, ..)| *other == name)
    }

    fn touches(&self, segment: u64, start: u64, end: u64) -> bool {
        self.wrong.iter().any(|(name, from, to)| {
            matches!(name.file, FileId::Segment(id) if id.get() == segment)
                && *from < end
                && start < *to
        })
    }
}

impl World {
    /// The disk lies.
    pub(crate) fn lie(&mut self, lie: Lie) {
        let mut suspicion = Suspicion::default();
        let names: Vec<FileName> = self.disk.names().collect();
        let mut random = self.random.clone();
        let name = names[random.index(names.len())];
        let bytes = self.disk.durable_bytes(name);
        match lie {
            Lie::Stale => {
                let mut random = Random::new(self.random.number());
                let old: Vec<u8> = names
                    .iter()
                    .filter_map(|name| self.disk.content(*name))
                    .flat_map(|content| content.get(128..).unwrap_or_default().to_vec())
                    .collect();
                let from = random.index(old.len() + 1);
                self.disk.stale = old[from..].to_vec();
            }
            Lie::Lost => {
                self.disk.next_write = Some(Goes::Nowhere);
                suspicion.is_due = true;
            }
            Lie::Astray => {
                let at = random.index(bytes + 1);
                let Some(file) = self.disk.file_index(name) else { return };
                self.disk.next_write = Some(Goes::To(file, at));
                suspicion.is_due = true;
                suspicion.wrong.push((name, at as u64, u64::MAX));
            }
            Lie::Rot | Lie::Zeros | Lie::Swap if bytes == 0 => {}
            Lie::Rot => {
                let at = random.index(bytes);
                self.disk.corrupt(name, |bytes| bytes[at] ^= 1 << random.below(8));
                suspicion.wrong.push((name, at as u64, at as u64 + 1));
            }
            Lie::Zeros | Lie::Swap => {
                let sector = self.disk.sector_bytes;
                let sectors = bytes.div_ceil(sector);
                let (one, other) = (random.index(sectors), random.index(sectors));
                let range = |at: usize| (name, (at * sector) as u64, ((at + 1) * sector) as u64);
                suspicion.wrong.push(range(one));
                if lie == Lie::Swap {
                    suspicion.wrong.push(range(other));
                }
                self.disk.corrupt(name, |bytes| spoil(bytes, sector, one, other, lie));
            }
        }
        self.tell(|| format!("lies: {suspicion:?}"));
        self.suspicion = Some(suspicion);
    }

    /// Notes which write the lie is about.
    pub(crate) fn note_lie(&mut self, command: &Command<Memory>) {
        if let (Some(suspicion), Command::Write(write)) = (&mut self.suspicion, command)
            && suspicion.is_due
        {
            suspicion.is_due = false;
            let bytes = write.data.as_ref().len() as u64;
            // A file that is being made is known by its last name later.
            let name = write.name.file.name();
            suspicion.wrong.push((name, write.offset, write.offset + bytes));
            for (_, from, to) in suspicion.wrong.iter_mut().filter(|(.., to)| *to == u64::MAX) {
                *to = *from + bytes;
            }
        }
    }

    /// What may be amiss if damage was told.
    fn allowed(&self, is_told: bool) -> Allowed {
        let wrong = self.suspicion.iter().flat_map(|suspicion| &suspicion.wrong);
        let mut wrong = wrong.into_iter();
        let dead = if self.is_manifest_suspect() {
            Some(DeadBy::Any)
        } else {
            wrong.any(|(_, from, _)| *from < FRAMES_OFFSET).then_some(DeadBy::Earlier)
        };
        Allowed { holes: is_told.then(|| self.intact() + 1), dead: dead.filter(|_| is_told) }
    }

    /// The last durable record before the first frame that a lie has touched, or the header of
    /// whose segment it has.
    fn intact(&self) -> u64 {
        let durable = self.oracle.durable();
        let Some(suspicion) = &self.suspicion else { return durable };
        let mut frames = self.oracle.frames_within(0, durable);
        let first = frames.find(|frame| {
            let start = frame.start.saturating_sub(HEAD_BYTES_MAX as u64);
            suspicion.touches(frame.segment, 0, FRAMES_OFFSET)
                || suspicion.touches(frame.segment, start, frame.end)
        });
        first.map_or(durable, |frame| frame.first - 1)
    }

    /// Whether all that is amiss is that what says of records that they are dead was lied about.
    fn may_be_dead(&self, log: &Log<Memory>, is_told: bool) -> bool {
        let was_cut_short = self.suspicion.as_ref().is_some_and(|lie| lie.was_cut_short);
        let allowed = self.allowed(is_told || was_cut_short);
        let holds = |oracle| contiguous(&self.disk, oracle, log, allowed).is_ok();
        // Until something is appended after it, a truncation stands in the manifest alone, and a
        // manifest that was lost looks like one that was never written.
        let before = self.oracle.before_truncation().filter(|_| self.is_manifest_suspect());
        holds(&self.oracle) || before.is_some_and(holds)
    }

    fn is_manifest_suspect(&self) -> bool {
        let wrong = self.suspicion.iter().flat_map(|suspicion| &suspicion.wrong);
        wrong.into_iter().any(|(name, ..)| name.file == FileId::Manifest)
    }

    /// What the frames that no lie has touched say of how far the log was durable.
    fn floor(&self) -> u64 {
        let Some(suspicion) = &self.suspicion else { return self.oracle.durable() };
        let intact = self.oracle.frames_within(0, self.oracle.durable()).filter(|frame| {
            // A batch begins with its head, before its first record.
            let start = frame.start.saturating_sub(HEAD_BYTES_MAX as u64);
            let is_hit = suspicion.touches(frame.segment, start, frame.end);
            frame.last <= self.oracle.durable() && !is_hit
        });
        intact.map(|frame| frame.claim).max().unwrap_or(0)
    }

    /// A log on a disk that has lied was opened, or not: it tells, or it is as if nothing was.
    /// `before` is what the recovery found.
    pub(crate) fn judge_suspect(
        &mut self,
        opened: Result<Opened, RecoveryError>,
        before: &Disk,
    ) -> Verdict {
        let (log, report) = match opened {
            Ok(opened) => opened,
            Err(RecoveryError::Io(failure)) => {
                return broken(9, format!("the log does not open: {failure}"));
            }
            Err(error) => {
                self.tell(|| format!("told: {error}"));
                self.told += 1;
                self.is_over = true;
                return Ok(());
            }
        };
        self.tell(|| format!("recovered {report:?}"));
        // Whatever was told: nothing that is shown is wrong.
        // A recovery that a crash ended had nobody to tell, but it has kept what it cut.
        let is_kept = self.disk.names().any(|name| matches!(name.file, FileId::Quarantined(_)));
        let is_told = report.is_damaged() || is_kept;
        let strictly = Allowed { dead: None, ..self.allowed(is_told) };
        let ended = match contiguous(&self.disk, &self.oracle, &log, strictly) {
            Ok(ended) => ended,
            Err(violation) if self.may_be_dead(&log, is_told) => {
                self.tell(|| format!("allowed: {violation}"));
                self.is_over = true;
                return Ok(());
            }
            Err(violation) => return Err(violation),
        };
        let last = log.appended().lsn.get();
        if is_told || ended == Ended::Damaged {
            let is_strict = self.config.recovery == RecoveryPolicy::Strict;
            let refuses = is_strict && report.is_damaged();
            ensure!(!refuses, 10, "a strict recovery opened what it found damaged: {report:?}");
            let intact = self.intact();
            ensure!(last >= intact, 1, "{intact} is before all lies, {last} is left: {report:?}");
            let (first, floor) = (log.first_lsn().get(), self.oracle.first_kept());
            let may_begin_later = first <= floor || intact < floor;
            ensure!(may_begin_later, 1, "{floor} is before all lies, {first} first: {report:?}");
            self.told += 1;
            self.is_over = true;
            self.opens_again(last)?;
            return self.quarantine_holds(before, &report);
        }
        ensure!(ended == Ended::After(last), 2, "{ended:?}, but it says {last}");
        if !self.oracle.may_be_truncated_to(last) {
            let floor = self.floor();
            ensure!(last >= floor, 10, "{floor} was known durable, {last} is left: {report:?}");
            self.oracle.batches_are_whole(last)?;
        }
        self.oracle.accept_loss(last);
        self.oracle.recovered(log.first_lsn().get(), last, None)?;
        self.log = Some(log);
        Ok(())
    }

    /// After a loss of power as well, every byte that was cut as damage is in quarantine.
    fn quarantine_holds(&self, before: &Disk, report: &Report) -> Verdict {
        for range in &report.ranges {
            let (Some(to), Some(old)) = (range.moved_to, before.content(range.file)) else {
                continue;
            };
            let FileId::Quarantined(quarantined) = to.file else {
                return broken(10, format!("{to} is not in quarantine"));
            };
            // A write of the recovery's own may have been the one that was lied about.
            if self.suspicion.as_ref().is_some_and(|lie| lie.is_about(to)) {
                continue;
            }
            let within = |at: u64| usize::try_from(at).map_or(old.len(), |at| at.min(old.len()));
            let old = &old[within(range.start)..within(range.end)];
            // Zeros at the end say nothing and need not be kept.
            let said = old.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let old = &old[..said];
            let from = range.start - quarantined.offset.unwrap_or(0).min(range.start);
            let kept = self.disk.content(to).and_then(|kept| {
                let from = usize::try_from(from).ok()?;
                kept.get(from..from + old.len())
            });
            ensure!(kept == Some(old), 10, "{range:?} is not all in quarantine");
        }
        Ok(())
    }

    /// What a recovery has left opens again, and holds the same.
    fn opens_again(&mut self, last: u64) -> Verdict {
        self.recoveries += 1;
        self.disk.crash_by(self.disk.sector_bytes, |_| 0);
        let start = start(&self.config, self.random.number(), self.now);
        let Some(Ok((log, report))) = recover(&mut self.disk, start, |_, _| Go::On(None)) else {
            return broken(8, "what was mended does not open".into());
        };
        let again = log.appended().lsn.get();
        ensure!(again == last, 8, "{last} was the last record, now {again}: {report:?}");
        contiguous(&self.disk, &self.oracle, &log, self.allowed(true)).map(drop)
    }
}

fn spoil(bytes: &mut [u8], sector: usize, one: usize, other: usize, lie: Lie) {
    let end = bytes.len().min((one + 1) * sector);
    if lie == Lie::Zeros {
        bytes[one * sector..end].fill(0);
        return;
    }
    for at in 0..sector {
        let (one, other) = (one * sector + at, other * sector + at);
        if one < bytes.len() && other < bytes.len() {
            bytes.swap(one, other);
        }
    }
}
