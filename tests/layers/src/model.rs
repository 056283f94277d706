//! What the log must hold, as callers know it: by LSN, with gaps.
//!
//! The simulator's oracle sees every command and takes records in order. Callers on real files only
//! see what their calls return: threads learn their LSNs in any order, and what was under way when
//! the power failed may leave a gap below what another caller was told.
//!
//! Numbers in messages are those of the list of invariants: 1 acknowledged records are there, 2
//! what is there is a contiguous piece of what was appended, 3 batches are whole and nothing is
//! made up, 4 nothing comes back from the dead, 5 no number is given twice, 7 acknowledgements are
//! monotone.

use std::collections::BTreeMap;

/// A record's content as it is compared: key and value in one.
pub type Content = Vec<u8>;

/// The record of what was asked of a log.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// What was appended and may be there, by LSN.
    appended: BTreeMap<u64, Content>,
    /// First and last LSN of each batch of more than one.
    batches: BTreeMap<u64, u64>,
    /// The last record acknowledged at `Disk`.
    durable: u64,
    /// Segments whose records all lie before this may be gone.
    deleted_before: u64,
    /// A truncation that has been asked for and not acknowledged.
    truncating: Option<u64>,
}

impl Model {
    /// Takes note of an append that the log took in.
    pub fn append(&mut self, first: u64, contents: Vec<Content>) {
        let last = first + contents.len() as u64 - 1;
        if last > first {
            self.batches.insert(first, last);
        }
        for (lsn, content) in (first..).zip(contents) {
            assert!(
                !self.appended.contains_key(&lsn),
                "invariant 5: LSN {lsn} was given to two records"
            );
            self.appended.insert(lsn, content);
        }
    }

    /// Takes note of what the log says is durable.
    pub fn acknowledge(&mut self, durable: u64) {
        let floor = self.truncating.map_or(self.durable, |lsn| self.durable.min(lsn));
        assert!(
            durable >= floor,
            "invariant 7: durable fell from {} to {durable}, not to {floor}",
            self.durable
        );
        let last = self.appended.keys().next_back().copied().unwrap_or(self.durable);
        assert!(
            durable <= last.max(self.durable),
            "invariant 2: durable is {durable}, but the last record appended is {last}"
        );
        self.durable = durable;
    }

    /// Appends after `after` were undone.
    pub fn roll_back(&mut self, after: u64) {
        assert!(
            after >= self.durable,
            "invariant 1: rolled back to {after}, but {} was durable",
            self.durable
        );
        self.forget_after(after);
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
            self.forget_after(lsn);
            self.durable = self.durable.min(lsn);
        }
    }

    fn forget_after(&mut self, lsn: u64) {
        self.appended.split_off(&(lsn + 1));
        self.batches.retain(|first, last| {
            *last = (*last).min(lsn);
            *first <= lsn
        });
    }

    /// The last record appended.
    pub fn last(&self) -> u64 {
        self.appended.keys().next_back().copied().unwrap_or(self.durable)
    }

    /// The last record acknowledged at `Disk`.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Compares what a reopened log holds: its first LSN, and its records in order. Then takes that
    /// as what was appended from now on.
    pub fn check(&mut self, first: u64, records: &[(u64, Content)]) {
        let last = records.last().map_or(first.saturating_sub(1), |(lsn, _)| *lsn);
        for (expected, (lsn, content)) in (first..).zip(records) {
            assert_eq!(*lsn, expected, "invariant 2: LSNs are not contiguous");
            match self.appended.get(lsn) {
                None => panic!("invariants 3 and 4: LSN {lsn} was never appended"),
                Some(appended) => {
                    assert!(appended == content, "invariant 1: LSN {lsn} has other content");
                }
            }
        }
        let truncated = self.truncating.is_some_and(|lsn| last == lsn);
        if !truncated {
            let durable = self.durable;
            assert!(
                last >= durable,
                "invariant 1: {durable} was acknowledged, recovered only up to {last}"
            );
            for (batch_first, batch_last) in &self.batches {
                let begun = (*batch_first..=*batch_last).any(|lsn| lsn <= last);
                assert!(
                    !begun || last >= *batch_last,
                    "invariant 3: batch {batch_first} to {batch_last} is there in part, to {last}"
                );
            }
        }
        assert!(
            first <= self.deleted_before.max(1),
            "invariant 1: records before {first} are gone, deleted were those before {}",
            self.deleted_before
        );
        self.truncating = None;
        self.forget_after(last);
        self.durable = last;
    }
}
