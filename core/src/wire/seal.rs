//! The footer of a segment that has ended: the body of its seal frame.
//!
//! ```text
//!  varint  records in the segment
//!  varint  time of sealing, microseconds since the Unix epoch
//!  varint  number of index entries
//!  each:   varint  LSN, less that of the entry before (the first: less the segment's first LSN)
//!          varint  offset, less that of the entry before (the first: less 128)
//! ```
//!
//! An index entry names a frame: its first LSN and where it begins. The first frame of a segment
//! has one, and then each frame that begins at least 64 KiB after the last frame that has one.

use crate::batch::Buffer;
use crate::id::{Lsn, Time};
use crate::wire::header::FRAMES_OFFSET;
use crate::wire::varint;
use alloc::vec::Vec;

/// How far apart index entries are, at least.
pub const INDEX_STRIDE_BYTES: u64 = 64 << 10;

/// A frame that the index names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexEntry {
    /// The LSN of its first record.
    pub lsn: Lsn,
    /// Where it begins in the segment's file.
    pub offset: u64,
}

/// The sparse index of one segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Index {
    entries: Vec<IndexEntry>,
}

impl Index {
    /// An index with room for a segment of `segment_bytes`, so that filling it takes no memory.
    pub fn with_room_for(segment_bytes: u64) -> Self {
        let entries = usize::try_from(segment_bytes / INDEX_STRIDE_BYTES + 2).unwrap_or(0);
        Self { entries: Vec::with_capacity(entries.min(ROOM_ENTRIES_MAX)) }
    }

    /// Forgets all entries and keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Forgets frames that begin at `offset` or later.
    pub(crate) fn cut(&mut self, offset: u64) {
        let kept = self.entries.partition_point(|entry| entry.offset < offset);
        self.entries.truncate(kept);
    }

    /// Takes note of a frame that holds records. Frames come in the order of their offsets.
    #[inline]
    pub fn note(&mut self, lsn: Lsn, offset: u64) {
        let due = match self.entries.last() {
            None => true,
            Some(last) => offset >= last.offset.saturating_add(INDEX_STRIDE_BYTES),
        };
        if due {
            self.entries.push(IndexEntry { lsn, offset });
        }
    }

    /// The last entry whose frame begins at or before the record `lsn`.
    pub fn before_lsn(&self, lsn: Lsn) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.lsn <= lsn);
        after.checked_sub(1).map(|index| self.entries[index])
    }

    /// The last entry whose frame begins at or before `offset`.
    pub fn before_offset(&self, offset: u64) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.offset <= offset);
        after.checked_sub(1).map(|index| self.entries[index])
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// No seal of a segment with this many entries is longer.
    #[inline]
    pub(crate) fn seal_bytes_max(&self) -> u64 {
        // One entry more than now: the frame about to be appended may add it.
        seal_bytes_max(self.entries.len() as u64 + 1)
    }
}

/// No seal of a segment whose frames end at `end` is longer.
pub(crate) fn bytes_max_at(end: u64) -> u64 {
    seal_bytes_max(end / INDEX_STRIDE_BYTES + 1)
}

const fn seal_bytes_max(entries: u64) -> u64 {
    SEAL_HEAD_BYTES_MAX + entries * ENTRY_BYTES_MAX
}

/// A larger segment grows its index as it goes.
const ROOM_ENTRIES_MAX: usize = 1 << 16;
/// Frame head and the three numbers before the entries.
const SEAL_HEAD_BYTES_MAX: u64 = 64 + 3 * varint::VARINT_BYTES_MAX as u64;
const ENTRY_BYTES_MAX: u64 = 2 * varint::VARINT_BYTES_MAX as u64;

/// What a seal says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seal {
    /// How many records the segment holds.
    pub records: u64,
    /// When it was sealed.
    pub sealed: Time,
    /// Its index.
    pub index: Index,
}

/// Appends the body of a seal to `out`.
pub fn encode(out: &mut impl Buffer, first: Lsn, records: u64, sealed: Time, index: &Index) {
    varint::put(out, records);
    varint::put(out, sealed.as_micros());
    varint::put(out, index.entries.len() as u64);
    let mut last = IndexEntry { lsn: first, offset: FRAMES_OFFSET };
    for entry in &index.entries {
        varint::put(out, entry.lsn.since(last.lsn));
        varint::put(out, entry.offset.saturating_sub(last.offset));
        last = *entry;
    }
}

/// Reads the body of a seal of the segment that begins with `first` and whose frames end at `end`.
///
/// `None` when it is not one: too short, too long, or its entries do not grow within the segment.
pub fn parse(body: &[u8], first: Lsn, end: u64) -> Option<Seal> {
    let mut rest = body;
    let mut number = || {
        let (value, bytes) = varint::take(rest)?;
        rest = &rest[bytes..];
        Some(value)
    };
    let records = number()?;
    let sealed = Time::from_micros(number()?);
    let count = number()?;
    // An entry takes at least two bytes, so a count that the body cannot hold takes no memory.
    if count > body.len() as u64 / 2 {
        return None;
    }
    let mut entries = Vec::with_capacity(usize::try_from(count).ok()?);
    let mut last = IndexEntry { lsn: first, offset: FRAMES_OFFSET };
    for index in 0..count {
        let lsn = Lsn::new(last.lsn.get().checked_add(number()?)?);
        let offset = last.offset.checked_add(number()?)?;
        let grows = index == 0 || (lsn > last.lsn && offset > last.offset);
        if !grows || offset >= end || lsn.since(first) >= records {
            return None;
        }
        last = IndexEntry { lsn, offset };
        entries.push(last);
    }
    rest.is_empty().then_some(Seal { records, sealed, index: Index { entries } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_round_trips_and_finds() {
        let first = Lsn::new(10);
        let mut index = Index::with_room_for(1 << 20);
        for step in 0..40 {
            index.note(first.plus(step * 7), FRAMES_OFFSET + step * 20_000);
        }
        let mut body = Vec::new();
        encode(&mut body, first, 280, Time::from_micros(5), &index);
        let end = FRAMES_OFFSET + 800_000;
        let seal = parse(&body, first, end).unwrap();
        assert_eq!(seal, Seal { records: 280, sealed: Time::from_micros(5), index });
        assert_eq!(seal.index.before_lsn(first.previous()), None);
        assert_eq!(seal.index.before_lsn(first).unwrap().offset, FRAMES_OFFSET);
        let entry = seal.index.before_lsn(first.plus(100)).unwrap();
        assert!((first.plus(73)..=first.plus(100)).contains(&entry.lsn));
        assert_eq!(seal.index.before_offset(entry.offset), Some(entry));
        for cut in (0..body.len()).step_by(if cfg!(miri) { 17 } else { 1 }) {
            assert_eq!(parse(&body[..cut], first, end), None);
        }
        assert_eq!(parse(&body, first, FRAMES_OFFSET + 700_000), None);
    }

    #[test]
    fn an_index_has_an_entry_for_each_stride_and_forgets_what_is_cut() {
        let mut index = Index::with_room_for(1 << 20);
        let room = index.entries.capacity();
        assert!((18..=32).contains(&room), "{room} for 17 entries");
        let half = INDEX_STRIDE_BYTES / 2;
        for (step, lsn) in (0..).zip(1..=33) {
            index.note(Lsn::new(lsn), FRAMES_OFFSET + step * half);
        }
        let lsns: Vec<_> = index.entries().iter().map(|entry| entry.lsn.get()).collect();
        assert_eq!(lsns, (1..=33).step_by(2).collect::<Vec<_>>());
        assert_eq!(index.entries.capacity(), room);
        let mut body = Vec::new();
        encode(&mut body, Lsn::new(1), 33, Time::from_micros(u64::MAX), &index);
        let bytes = body.len() as u64;
        let bytes_max = index.seal_bytes_max();
        assert!(bytes + 64 <= bytes_max && bytes_max <= 64 + 30 + 18 * 20, "{bytes_max}");
        let at_end = bytes_max_at(FRAMES_OFFSET + 32 * half + 1);
        assert_eq!(at_end, bytes_max - ENTRY_BYTES_MAX, "no room for one more");
        let third = index.entries()[2].offset;
        for (offset, left) in [(third + 1, 3), (third, 2)] {
            index.cut(offset);
            assert_eq!(index.entries().len(), left);
        }
        index.clear();
        assert_eq!((index.entries(), index.before_offset(u64::MAX)), (&[][..], None));
    }

    #[test]
    fn entries_that_do_not_grow_within_the_segment_are_refused() {
        let (first, end) = (Lsn::new(10), FRAMES_OFFSET + 1_000);
        let parses = |records: u64, entries: &[(u64, u64)]| {
            let mut body = Vec::new();
            varint::put(&mut body, records);
            varint::put(&mut body, 5);
            varint::put(&mut body, entries.len() as u64);
            for (lsns, bytes) in entries {
                varint::put(&mut body, *lsns);
                varint::put(&mut body, *bytes);
            }
            parse(&body, first, end).is_some()
        };
        assert!(parses(9, &[(0, 0), (8, 999)]));
        assert!(parses(0, &[]));
        for (records, entries) in [
            (9, [(0, 0), (0, 999)]),
            (9, [(0, 0), (8, 0)]),
            (9, [(0, 0), (8, 1_000)]),
            (8, [(0, 0), (8, 999)]),
            (9, [(9, 0), (1, 1)]),
            (9, [(u64::MAX, 0), (1, 1)]),
            (9, [(0, u64::MAX), (1, 1)]),
        ] {
            assert!(!parses(records, &entries), "{records} {entries:?}");
        }
    }
}
