//! What the log must hold, kept outside the disk under test.
//!
//! Numbers are those of the list of invariants: 1 acknowledged records are there, 2 what is there
//! is a contiguous piece of what was appended, 3 batches are whole and nothing is made up, 4
//! nothing comes back from the dead, 5 no number is given twice, 7 acknowledgements are monotone,
//! 18 what a reader saw is not taken back.

use crate::disk::Memory;
use crate::random::Hash;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use seawall_core::log::{Appended, Log};

/// A record's content as the oracle compares it: key and value in one.
pub type Content = Vec<u8>;

/// Something that must hold and does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The number of the invariant.
    pub invariant: u8,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.invariant, self.what)
    }
}

/// Whether all holds.
pub type Verdict<T = ()> = Result<T, Violation>;

/// That invariant `number` is broken.
///
/// # Errors
/// Always.
pub fn broken<T>(number: u8, what: String) -> Verdict<T> {
    Err(Violation { invariant: number, what })
}

/// Unless `$holds`, invariant `$number` is broken, and the rest says how.
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $number:expr, $($what:tt)+) => {
        if !$holds {
            return $crate::oracle::broken($number, alloc::format!($($what)+));
        }
    };
}

/// One append: a record or a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The first record.
    pub first: u64,
    /// The last record.
    pub last: u64,
    /// In which segment.
    pub segment: u64,
    /// From here at the latest.
    pub start: u64,
    /// Up to here.
    pub end: u64,
    /// How far the log had said it was durable at that time.
    pub claim: u64,
}

/// The record of what was asked of a log.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// What was appended and may be there; the first is LSN 1.
    appended: Vec<Arc<[u8]>>,
    /// Every append, in order; the last may have been cut by a truncation.
    frames: Vec<Frame>,
    /// The last record acknowledged at `Disk`.
    durable: u64,
    /// The last record that a reader of durable records was shown.
    shown: u64,
    /// Segments whose records all lie before this may be gone.
    deleted_before: u64,
    /// A truncation that has been asked for and not acknowledged.
    truncating: Option<u64>,
    /// What had to hold before the last truncation, until something durable comes after it.
    before_truncation: Option<Arc<Self>>,
    /// Records that a truncation took off: by which truncation, and their LSN.
    dead: Vec<(u32, u64, Arc<[u8]>)>,
    truncations: u32,
}

fn at(lsn: u64) -> usize {
    usize::try_from(lsn.wrapping_sub(1)).unwrap_or(usize::MAX)
}

impl Frame {
    /// What a log has just taken, of which it had said so much was durable.
    pub fn of(log: &Log<Memory>, appended: &Appended, claim: u64) -> Self {
        Self {
            first: appended.first.get(),
            last: appended.last.get(),
            segment: appended.position.segment.get(),
            start: appended.position.offset,
            end: log.appended().end.offset,
            claim,
        }
    }
}

impl Oracle {
    /// Takes note of an append that the log took in.
    ///
    /// # Errors
    /// When its number was given to another record, or is not the next.
    pub fn append(&mut self, frame: Frame, contents: impl Iterator<Item = Content>) -> Verdict {
        let next = self.last() + 1;
        ensure!(frame.first >= next, 5, "LSN {} was given to two records", frame.first);
        ensure!(frame.first == next, 2, "LSN {} came after {}", frame.first, next - 1);
        self.appended.extend(contents.map(Arc::from));
        ensure!(frame.last == self.last(), 2, "{frame:?} ends at {}", self.last());
        self.frames.push(frame);
        Ok(())
    }

    /// Takes note of what the log says is durable. Returns what it had said before.
    ///
    /// # Errors
    /// When that is less than before, or more than was appended.
    pub fn acknowledge(&mut self, durable: u64) -> Verdict<u64> {
        let before = self.durable;
        let floor = self.truncating.map_or(before, |lsn| before.min(lsn));
        ensure!(durable >= floor, 7, "durable fell from {before} to {durable}, not to {floor}");
        let last = self.last();
        ensure!(durable <= last, 2, "durable is {durable}, the last record appended is {last}");
        self.durable = durable;
        if durable > before {
            self.before_truncation = None;
        }
        Ok(before)
    }

    /// The appends with a record in `after..=upto`.
    pub fn frames_within(&self, after: u64, upto: u64) -> impl Iterator<Item = &Frame> {
        let from = self.frames.partition_point(|frame| frame.last <= after);
        self.frames[from..].iter().take_while(move |frame| frame.first <= upto)
    }

    /// A reader was shown a record; `is_durable`: it may be shown only what no crash takes back.
    ///
    /// # Errors
    /// When it is not what was appended, or not durable.
    pub fn show(&mut self, lsn: u64, content: &[&[u8]], is_durable: bool) -> Verdict {
        self.compare(lsn, content)?;
        if is_durable {
            ensure!(lsn <= self.durable, 18, "LSN {lsn} was shown, durable is {}", self.durable);
            self.shown = self.shown.max(lsn);
        }
        Ok(())
    }

    /// Whether a record is what was appended, given in parts.
    ///
    /// # Errors
    /// When it is not.
    pub fn compare(&self, lsn: u64, parts: &[&[u8]]) -> Verdict {
        let Some(appended) = self.appended.get(at(lsn)) else {
            return broken(4, format!("LSN {lsn} is there and was never appended, or is dead"));
        };
        let mut rest = &appended[..];
        for part in parts {
            let Some(after) = rest.strip_prefix(*part) else {
                return broken(3, format!("LSN {lsn} has other content"));
            };
            rest = after;
        }
        ensure!(rest.is_empty(), 3, "LSN {lsn} lacks its last {} bytes", rest.len());
        Ok(())
    }

    /// What had to hold before the last truncation, if nothing durable has come after it.
    pub fn before_truncation(&self) -> Option<&Self> {
        self.before_truncation.as_deref()
    }

    /// Whether a record is one that a truncation took off; `even_last`: or the last of them.
    pub fn is_dead(&self, lsn: u64, parts: &[&[u8]], even_last: bool) -> bool {
        let content = parts.concat();
        // One that is under way may have taken the place of the last.
        let begun = self.truncations + u32::from(self.truncating.is_some());
        self.dead.iter().any(|(truncation, dead, bytes)| {
            *dead == lsn && **bytes == *content && (even_last || *truncation < begun)
        })
    }

    /// Appends after `after` were undone.
    ///
    /// # Errors
    /// When some had been acknowledged.
    pub fn roll_back(&mut self, after: u64) -> Verdict {
        let durable = self.durable;
        ensure!(after >= durable, 1, "rolled back to {after}, but {durable} was durable");
        self.forget_after(after);
        Ok(())
    }

    /// A deletion was asked for: what lies before may go.
    pub fn delete_before(&mut self, lsn: u64) {
        self.deleted_before = self.deleted_before.max(lsn);
    }

    /// A truncation was asked for.
    pub fn begin_truncation(&mut self, lsn: u64) {
        self.truncating = Some(lsn);
    }

    /// The truncation was acknowledged.
    pub fn end_truncation(&mut self, is_done: bool) {
        if let Some(lsn) = self.truncating.take()
            && is_done
        {
            self.bury_after(lsn);
            self.forget_after(lsn);
        }
    }

    /// Remembers what a truncation takes off. One that takes off nothing writes nothing, and the
    /// one before stays the last.
    fn bury_after(&mut self, lsn: u64) {
        if lsn >= self.last() {
            return;
        }
        self.before_truncation = None;
        self.before_truncation = Some(Arc::new(self.clone()));
        self.truncations += 1;
        let dead = (1..).zip(&self.appended).skip(at(lsn + 1));
        let number = self.truncations;
        self.dead.extend(dead.map(|(lsn, content)| (number, lsn, content.clone())));
    }

    fn forget_after(&mut self, lsn: u64) {
        self.appended.truncate(at(lsn + 1));
        let kept = self.frames.partition_point(|frame| frame.first <= lsn);
        self.frames.truncate(kept);
        if let Some(frame) = self.frames.last_mut() {
            frame.last = frame.last.min(lsn);
        }
        self.durable = self.durable.min(lsn);
        self.shown = self.shown.min(lsn);
    }

    /// The last record appended.
    pub fn last(&self) -> u64 {
        self.appended.len() as u64
    }

    /// The last record acknowledged at `Disk`.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The first record that no deletion may take.
    pub fn first_kept(&self) -> u64 {
        self.deleted_before.max(1)
    }

    /// Compares what a reopened log holds: its first LSN and its last, each record having been
    /// [compared](Self::compare). Then takes that as what was appended from now on. `written`:
    /// everything up to this record must be there as well, since only the process was killed.
    ///
    /// # Errors
    /// When it holds too little.
    pub fn recovered(&mut self, first: u64, last: u64, written: Option<u64>) -> Verdict {
        if !self.may_be_truncated_to(last) {
            let durable = self.durable;
            ensure!(last >= durable, 1, "{durable} was acknowledged, {last} is the last there");
            let shown = self.shown;
            ensure!(last >= shown, 18, "{shown} had been shown, {last} is the last there");
            let written = written.unwrap_or(0);
            ensure!(last >= written, 1, "{written} was with the kernel, {last} is the last there");
            self.batches_are_whole(last)?;
        }
        ensure!(last <= self.last(), 4, "{last} is there, {} the last appended", self.last());
        let floor = self.first_kept();
        ensure!(first <= floor, 1, "records before {first} are gone, deleted: before {floor}");
        if self.may_be_truncated_to(last) {
            self.bury_after(last);
        }
        self.truncating = None;
        self.forget_after(last);
        self.durable = last;
        Ok(())
    }

    /// Whether a truncation was on its way that ends the log at this record.
    pub fn may_be_truncated_to(&self, last: u64) -> bool {
        self.truncating == Some(last)
    }

    /// No append ends in the middle of what is there up to `last`.
    ///
    /// # Errors
    /// When one does.
    pub fn batches_are_whole(&self, last: u64) -> Verdict {
        match self.frames_within(last.saturating_sub(1), last).next() {
            Some(frame) if last > 0 && frame.last > last && frame.first <= last => {
                broken(3, format!("batch {} to {} is there up to {last}", frame.first, frame.last))
            }
            _ => Ok(()),
        }
    }

    /// Reopening found damage that was done on purpose: what is there from now on ends at `last`.
    pub fn accept_loss(&mut self, last: u64) {
        if self.may_be_truncated_to(last) {
            self.bury_after(last);
        }
        self.truncating = None;
        self.forget_after(last);
    }

    /// Hashes what must hold.
    pub fn state_hash(&self) -> u64 {
        let mut hash = Hash::default();
        for number in [self.last(), self.durable, self.shown, self.deleted_before] {
            hash.number(number);
        }
        hash.number(self.truncating.map_or(0, |lsn| lsn + 1));
        // What is in a record follows from its number, in its first bytes, and its length.
        for content in &self.appended {
            hash.bytes(&content[..content.len().min(8)]);
            hash.number(content.len() as u64);
        }
        for frame in &self.frames {
            hash.number(frame.last);
        }
        hash.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_truncation_that_takes_off_nothing_leaves_the_one_before_the_last() {
        let mut oracle = Oracle::default();
        let frame = Frame { first: 1, last: 3, segment: 1, start: 128, end: 200, claim: 0 };
        oracle.append(frame, (0..3).map(|number| vec![number])).unwrap();
        oracle.acknowledge(3).unwrap();
        for _ in 0..2 {
            oracle.begin_truncation(1);
            oracle.end_truncation(true);
            assert_eq!(oracle.last(), 1);
            assert_eq!(oracle.before_truncation().map(Oracle::last), Some(3));
        }
        assert!(!oracle.is_dead(2, &[&[1]], false) && oracle.is_dead(2, &[&[1]], true));
    }
}
