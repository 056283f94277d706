//! What was asked of a log, when, and what the log must hold at any moment since.
//!
//! A moment is a number that grows: the length of the log of a [`disk`](crate::disk), say. A call
//! is noted with the moment before it began and the one after it returned. A disk that stands as
//! it did at moment `m` must hold what calls that had returned by `m` promised, may hold what calls
//! under way at `m` asked for, and holds nothing of calls that began after `m`.
//!
//! That is sound whatever the threads do: a call that returned at moment `r` had all that the disk
//! needs for its promise written and flushed before, so among the first `r` entries of the disk's
//! log; and bytes of a call that began at moment `b` are in no entry before `b`. Both moments err
//! to the side of asking for less, never for more.
//!
//! [`Model`] compares; this module decides what it is told.

use crate::model::{Content, Model};
use seawall::blocking::{Reader, Wal};
use seawall::{Appended, Error, Level, Record};
use seawall_tests::random::Random;
use seawall_tests::records::record_bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every key begins with it, so that a block of a disk that holds records is known by it.
pub const MARK: [u8; 8] = *b"Seawall!";
/// After all that was asked for.
pub const END: u64 = u64::MAX - 1;

/// The key and value of a record, from its number.
pub fn content(number: u64) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random::new(number);
    let length = match random.below(20) {
        0 => 0,
        1..=15 => random.below(200),
        16..=18 => random.below(1_200),
        _ => random.below(6_000),
    };
    let key = [MARK, number.to_le_bytes()].concat();
    let length = usize::try_from(length).expect("it is small");
    (key, record_bytes(number, length))
}

fn joined(number: u64) -> Content {
    let (key, value) = content(number);
    [key, value].concat()
}

/// What came of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It did what it should; an append's first LSN.
    Well(u64),
    /// It was refused, and the log promised that nothing of it stays.
    Undone,
    /// Nobody knows.
    Unknown,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Asked {
    /// Records by number.
    Append {
        numbers: Vec<u64>,
        is_durable: bool,
    },
    /// All up to this LSN is to be durable.
    Sync(u64),
    Delete(u64),
    Truncate(u64),
}

#[derive(Clone, Debug)]
struct Call {
    asked: Asked,
    began: u64,
    returned: u64,
    ended: Ended,
}

#[derive(Debug, Default)]
struct Notes {
    /// What the log held when it was opened.
    base: Model,
    calls: Vec<Call>,
    /// Records that an earlier recovery did not show: they must not come back.
    lost: BTreeSet<u64>,
}

/// The history of a log.
#[derive(Debug, Default)]
pub struct History {
    next: AtomicU64,
    refused_for_room: AtomicU64,
    notes: Mutex<Notes>,
}

/// A record as a reader gave it: its LSN and its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    lsn: u64,
    number: u64,
}

impl Found {
    /// A record as it was read.
    ///
    /// # Panics
    /// When it is none of ours.
    pub fn new(lsn: u64, key: &[u8], value: &[u8]) -> Self {
        let number = key.strip_prefix(&MARK).and_then(|rest| rest.try_into().ok());
        let number = number.map(u64::from_le_bytes);
        let Some(number) = number else { panic!("invariant 3: LSN {lsn} has a key of no record") };
        assert!(value == content(number).1, "invariant 3: LSN {lsn} is made up");
        Self { lsn, number }
    }
}

/// What a reader gives to the end, each record compared with what its number makes it.
///
/// # Errors
/// The device failed.
///
/// # Panics
/// When a record is none of ours, or what stands in its place is none.
pub fn read(mut reader: Reader) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    loop {
        let entry = match reader.next_record() {
            Ok(Some((entry, _))) => entry,
            Ok(None) => return Ok(found),
            Err(error @ Error::Io { .. }) => return Err(error),
            Err(error) => panic!("invariant 1: a record cannot be read: {error}"),
        };
        found.push(Found::new(entry.lsn.get(), &entry.key, &entry.value));
    }
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, asked: Asked, began: u64, returned: u64, ended: Ended) {
        self.lock().calls.push(Call { asked, began, returned, ended });
    }

    /// Appends `count` new records as one, and takes note. `now` tells the moment.
    ///
    /// # Errors
    /// What the append says.
    pub fn append(
        &self,
        wal: &Wal,
        count: u64,
        level: Level,
        now: impl Fn() -> u64,
    ) -> Result<Appended, Error> {
        self.append_by(count, level == Level::Disk, now, |records| {
            let result = match records {
                [record] => wal.append_with(record, level),
                records => wal.append_batch_with(records, level),
            };
            if let Err(Error::DiskFull(_) | Error::NoSegment(_)) = &result {
                self.refused_for_room.fetch_add(1, Ordering::Relaxed);
            }
            let ended = match &result {
                Ok(appended) => Ended::Well(appended.first.get()),
                Err(Error::Poisoned(_)) => Ended::Unknown,
                Err(_) => Ended::Undone,
            };
            (result, ended)
        })
    }

    /// Lets somebody append `count` new records as one, durable or not, and takes note of what came
    /// of it.
    pub fn append_by<T>(
        &self,
        count: u64,
        is_durable: bool,
        now: impl Fn() -> u64,
        append: impl FnOnce(&[Record<'_>]) -> (T, Ended),
    ) -> T {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let numbers: Vec<u64> = (first..first + count).collect();
        let contents: Vec<_> = numbers.iter().map(|number| content(*number)).collect();
        let records: Vec<_> = contents.iter().map(|(key, value)| Record::put(key, value)).collect();
        let began = now();
        let (result, ended) = append(&records);
        self.note(Asked::Append { numbers, is_durable }, began, now(), ended);
        result
    }

    /// Syncs the log, and takes note of what is durable by that.
    ///
    /// # Errors
    /// What the log says.
    pub fn sync(&self, wal: &Wal, now: impl Fn() -> u64) -> Result<(), Error> {
        let last = self.acknowledged();
        let began = now();
        let result = wal.sync();
        let ended = if result.is_ok() { Ended::Well(0) } else { Ended::Unknown };
        self.note(Asked::Sync(last), began, now(), ended);
        result
    }

    /// Deletes the segments before a record, and takes note.
    ///
    /// # Errors
    /// What the log says.
    pub fn delete(&self, wal: &Wal, before: u64, now: impl Fn() -> u64) -> Result<u64, String> {
        self.note_deletion(before, now());
        wal.delete_segments_before(seawall::Lsn::new(before)).map_err(|error| error.to_string())
    }

    /// Takes note of a deletion before it is asked for: a power cut may come while it runs.
    pub fn note_deletion(&self, before: u64, now: u64) {
        self.note(Asked::Delete(before), now, u64::MAX, Ended::Unknown);
    }

    /// Takes note of a truncation.
    pub fn note_truncation(&self, after: u64, began: u64, returned: u64, ended: Ended) {
        self.note(Asked::Truncate(after), began, returned, ended);
    }

    /// Truncates the log; no append may be under way. Takes note.
    ///
    /// # Errors
    /// What the log says.
    pub fn truncate(&self, wal: &Wal, after: u64, now: impl Fn() -> u64) -> Result<(), Error> {
        let began = now();
        let result = wal.truncate_after(seawall::Lsn::new(after));
        let ended = match &result {
            Ok(()) => Ended::Well(0),
            Err(Error::Poisoned(_)) => Ended::Unknown,
            Err(_) => Ended::Undone,
        };
        self.note_truncation(after, began, now(), ended);
        result
    }

    /// The last LSN that any append has been told of.
    pub fn acknowledged(&self) -> u64 {
        let notes = self.lock();
        let mut last = notes.base.last();
        for call in &notes.calls {
            match (&call.asked, call.ended) {
                (Asked::Append { numbers, .. }, Ended::Well(first)) => {
                    last = last.max(first + numbers.len() as u64 - 1);
                }
                (Asked::Truncate(after), Ended::Well(_)) => last = last.min(*after),
                _ => {}
            }
        }
        last
    }

    /// How many appends have been refused for want of room.
    pub fn refused_for_room(&self) -> u64 {
        self.refused_for_room.load(Ordering::Relaxed)
    }

    /// What the model knows at a moment, and the appends that may or may not be there.
    fn at(&self, moment: u64) -> (Model, Vec<Vec<u64>>, BTreeSet<u64>) {
        let notes = self.lock();
        let (mut model, mut floating) = (notes.base.clone(), Vec::new());
        let mut durable = model.durable();
        for call in notes.calls.iter().filter(|call| call.began <= moment) {
            let has_returned = call.returned <= moment;
            match (&call.asked, call.ended) {
                (Asked::Append { .. } | Asked::Truncate(_), Ended::Undone) if has_returned => {}
                (Asked::Append { numbers, is_durable }, Ended::Well(first)) if has_returned => {
                    model.append(first, numbers.iter().map(|number| joined(*number)).collect());
                    if *is_durable {
                        durable = durable.max(first + numbers.len() as u64 - 1);
                    }
                }
                (Asked::Append { numbers, .. }, _) => floating.push(numbers.clone()),
                (Asked::Sync(last), Ended::Well(_)) if has_returned => durable = durable.max(*last),
                (Asked::Sync(_), _) => {}
                (Asked::Delete(before), _) => model.delete_before(*before),
                (Asked::Truncate(after), ended) => {
                    model.begin_truncation(*after);
                    if has_returned && ended == Ended::Well(0) {
                        model.end_truncation(true);
                        durable = durable.min(*after);
                    }
                }
            }
        }
        model.acknowledge(durable);
        (model, floating, notes.lost.clone())
    }

    /// Compares what a log holds with what it must hold at a moment. Returns how many records it
    /// was bound to hold.
    ///
    /// # Panics
    /// With the number of the invariant that is broken.
    pub fn check(&self, first: u64, found: &[Found], moment: u64) -> u64 {
        self.checked(first, found, moment).1
    }

    /// The last record that the log is bound to hold at a moment.
    pub fn bound(&self, moment: u64) -> u64 {
        self.at(moment).0.durable()
    }

    fn checked(&self, first: u64, found: &[Found], moment: u64) -> (Model, u64) {
        let (mut model, floating, lost) = self.at(moment);
        let bound = model.durable();
        let mut floats: BTreeMap<u64, &[u64]> = BTreeMap::new();
        for numbers in &floating {
            floats.insert(numbers[0], numbers);
        }
        let mut seen = BTreeSet::new();
        for Found { lsn, number } in found {
            assert!(seen.insert(*number), "invariant 3: record {number} is there twice");
            assert!(
                !lost.contains(number),
                "invariant 4: record {number}, LSN {lsn}, is back from the dead"
            );
            // A batch goes in whole at its first record; the model then asks for all of it.
            if let Some(numbers) = floats.get(number) {
                model.append(*lsn, numbers.iter().map(|number| joined(*number)).collect());
            }
        }
        let records: Vec<_> = found.iter().map(|found| (found.lsn, joined(found.number))).collect();
        model.check(first, &records);
        (model, bound)
    }

    /// As [`History::check`], and what the log holds is where the history goes on from: no later
    /// crash may take it back, and nothing else of what was asked for so far may come back.
    ///
    /// # Panics
    /// With the number of the invariant that is broken.
    pub fn check_and_continue(&self, first: u64, found: &[Found], moment: u64) -> u64 {
        let (model, bound) = self.checked(first, found, moment);
        let there: BTreeSet<u64> = found.iter().map(|found| found.number).collect();
        let mut notes = self.lock();
        for call in std::mem::take(&mut notes.calls) {
            if let Asked::Append { numbers, .. } = call.asked {
                let gone = numbers.into_iter().filter(|number| !there.contains(number));
                notes.lost.extend(gone);
            }
        }
        notes.base = model;
        bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Appends of one record each: LSN n is record n, begun at moment 10 n, and back 5 later.
    fn history(count: u64) -> History {
        let history = History::default();
        for lsn in 1..=count {
            let asked = Asked::Append { numbers: vec![lsn], is_durable: true };
            history.note(asked, 10 * lsn, 10 * lsn + 5, Ended::Well(lsn));
        }
        history
    }

    fn found(numbers: &[u64]) -> Vec<Found> {
        (1..).zip(numbers).map(|(lsn, number)| Found { lsn, number: *number }).collect()
    }

    fn allows(history: &History, numbers: &[u64], moment: u64) -> bool {
        catch_unwind(AssertUnwindSafe(|| history.check(1, &found(numbers), moment))).is_ok()
    }

    #[test]
    fn what_must_be_there_follows_from_the_moment() {
        let history = history(3);
        assert!(allows(&history, &[1], 15));
        assert!(allows(&history, &[1], 20));
        assert!(allows(&history, &[1, 2], 20));
        assert!(!allows(&history, &[1], 25));
        assert!(!allows(&history, &[1, 2, 3], 25));
        assert!(!allows(&history, &[1, 1], 25));
        assert!(!allows(&history, &[2, 1], 25));
        assert!(!allows(&history, &[], 15));
        assert!(allows(&history, &[], 14));
    }

    #[test]
    fn a_batch_is_there_whole_or_not() {
        let history = history(1);
        let asked = Asked::Append { numbers: vec![7, 8], is_durable: false };
        history.note(asked, 20, 30, Ended::Unknown);
        assert!(allows(&history, &[1], 40));
        assert!(allows(&history, &[1, 7, 8], 40));
        assert!(!allows(&history, &[1, 7], 40));
        assert!(!allows(&history, &[1, 8], 40));
        assert!(!allows(&history, &[1, 7, 8], 19));
    }

    #[test]
    fn what_was_refused_or_cut_must_not_come_back() {
        let history = history(1);
        let asked = Asked::Append { numbers: vec![7], is_durable: false };
        history.note(asked.clone(), 20, 30, Ended::Undone);
        assert!(!allows(&history, &[1, 7], 40));
        history.note(Asked::Append { numbers: vec![9], is_durable: true }, 40, 50, Ended::Unknown);
        history.check_and_continue(1, &found(&[1]), END);
        assert!(allows(&history, &[1], 60));
        assert!(!allows(&history, &[1, 9], 60));
        assert!(!allows(&history, &[], 60));
    }

    #[test]
    fn a_truncation_is_done_or_not() {
        let history = history(3);
        history.note(Asked::Truncate(1), 40, 50, Ended::Well(0));
        assert!(allows(&history, &[1, 2, 3], 45));
        assert!(allows(&history, &[1], 45));
        assert!(!allows(&history, &[1, 2], 45));
        assert!(allows(&history, &[1], 50));
        assert!(!allows(&history, &[1, 2, 3], 50));
    }
}
