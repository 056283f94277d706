//! Walking through a segment's bytes: which frames stand there, and what lies between them.
//!
//! The scan streams. It is fed whatever bytes it asks for, holds none of them, and sums a frame of
//! any length piece by piece. Where a frame should begin and none does, it searches on, byte by
//! byte, for the next one that stands where it was written: a damaged length hides nothing.
//!
//! ```text
//!            good               bad or zeros
//!   chain ────────► chain  ─────────────►  search ────► chain  (the next good frame: a hole
//!                                             │                 lies between)
//!                                             └───────► end    (nothing good up to the limit)
//! ```
//!
//! A frame is found again by its checksum, tied to its place and its salt; a caller cannot write
//! bytes into a value that look like one. The work of searching is bounded, whatever the bytes:
//! past the bound the rest counts as one hole, and [`ScanReport::is_exhausted`] says so.

use crate::id::{Lsn, Position, SegmentId};
use crate::wire::checksum::{ChecksumKind, Crc32cFn, Digest, Place};
use crate::wire::frame::{BATCH_RECORD_BYTES_MIN, FrameKind, HEAD_BYTES_MAX, Head, Parsed};
use alloc::vec::Vec;

/// Which bytes to scan, and as what.
#[derive(Clone, Copy, Debug)]
pub struct ScanStart {
    /// The segment.
    pub segment: SegmentId,
    /// Its salt.
    pub salt: u64,
    /// Its checksum.
    pub checksum: ChecksumKind,
    /// The CRC32C to use.
    pub crc: Crc32cFn,
    /// Where the first frame begins.
    pub offset: u64,
    /// The LSN that frame begins with.
    pub lsn: Lsn,
    /// The byte past the last one to look at.
    pub limit: u64,
    /// Stop after the frame that holds this record.
    pub last_lsn: Option<Lsn>,
}

/// A frame whose checksum held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Where it begins.
    pub offset: u64,
    /// The LSN of its first record, or of the next record.
    pub lsn: Lsn,
    /// Its head.
    pub head: Head,
}

impl Found {
    /// The byte past it.
    pub const fn end(&self) -> u64 {
        self.offset + self.head.frame_bytes
    }
}

/// Bytes that are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// The first byte.
    pub start: u64,
    /// The byte past the last.
    pub end: u64,
    /// The LSN that the next frame should have had.
    pub lsn: Lsn,
    /// The LSN of the frame after it; `None` where none follows in this segment.
    pub resumes: Option<Lsn>,
    /// Whether all of it is zeros.
    pub is_zero: bool,
}

/// A claim that records up to `durable` were durable, and the frame that makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Up to here.
    pub durable: Lsn,
    /// Made here.
    pub at: Position,
}

/// What a scan found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanReport {
    /// Where the frames that follow each other without a hole end.
    pub end: u64,
    /// The LSN after those frames.
    pub next_lsn: Lsn,
    /// How many records those frames hold.
    pub records: u64,
    /// What the last of those frames is.
    pub last_kind: Option<FrameKind>,
    /// Where the seal stands, if it is the last of those frames.
    pub seal_offset: Option<u64>,
    /// Where the last of those frames that holds records begins.
    pub last_record_frame: Option<u64>,
    /// Where the last good frame of all ends, holes or not.
    pub last_end: u64,
    /// The LSN after the last good frame of all.
    pub last_next_lsn: Lsn,
    /// Records in good frames after the first hole.
    pub records_after: u64,
    /// The holes, in order; the last may reach to the limit.
    pub holes: Vec<Hole>,
    /// The largest claim that any good frame makes.
    pub claim: Option<Claim>,
    /// The search gave up: the last hole may hold good frames.
    pub is_exhausted: bool,
}

/// A scan under way.
#[derive(Debug)]
pub struct SegmentScan {
    start: ScanStart,
    /// Where the next frame begins, or the next place to try.
    at: u64,
    /// The LSN that the next frame should have, at least.
    lsn: Lsn,
    search: Option<Search>,
    summing: Option<Summing>,
    work_left: u64,
    finished: bool,
    report: ScanReport,
}

#[derive(Clone, Copy, Debug)]
struct Search {
    hole_start: u64,
    is_zero: bool,
}

/// A frame whose checksum is being summed up.
#[derive(Debug)]
struct Summing {
    head: Head,
    digest: Digest,
    /// The byte past the last one summed.
    upto: u64,
}

/// The search may sum so many times the bytes it looks at, and a little more for short segments.
const WORK_FACTOR: u64 = 8;
const WORK_BYTES_MIN: u64 = 16 << 20;
/// Holes past this many are joined to the last.
const HOLES_MAX: usize = 1_024;

impl SegmentScan {
    /// A scan that has seen nothing yet.
    pub fn new(start: ScanStart) -> Self {
        let span = start.limit.saturating_sub(start.offset);
        Self {
            start,
            at: start.offset,
            lsn: start.lsn,
            search: None,
            summing: None,
            work_left: span.saturating_mul(WORK_FACTOR).saturating_add(WORK_BYTES_MIN),
            finished: start.offset >= start.limit
                || start.last_lsn.is_some_and(|last| start.lsn > last),
            report: ScanReport {
                end: start.offset,
                next_lsn: start.lsn,
                records: 0,
                last_kind: None,
                seal_offset: None,
                last_record_frame: None,
                last_end: start.offset,
                last_next_lsn: start.lsn,
                records_after: 0,
                holes: Vec::new(),
                claim: None,
                is_exhausted: false,
            },
        }
    }

    /// Which segment it scans.
    pub fn segment(&self) -> SegmentId {
        self.start.segment
    }

    /// The bytes wanted next: from where, and how many there are at most. `None` when it is
    /// finished.
    pub fn wants(&self) -> Option<(u64, u64)> {
        let from = self.summing.as_ref().map_or(self.at, |summing| summing.upto);
        (!self.finished).then(|| (from, self.start.limit.saturating_sub(from)))
    }

    /// The file turned out to end here, before the limit.
    pub fn ends_at(&mut self, limit: u64) {
        self.start.limit = self.start.limit.min(limit);
        if self.summing.take().is_some() || self.at >= self.start.limit {
            // What was being summed runs past the end, so it is no frame.
            self.reject(true);
        }
        if self.at >= self.start.limit {
            self.finish();
        }
    }

    /// Takes bytes that begin where [`wants`](Self::wants) said. Unless they reach the limit there
    /// must be at least [`HEAD_BYTES_MAX`] of them. Calls `on_frame` for each good frame, in order.
    pub fn feed(&mut self, bytes: &[u8], mut on_frame: impl FnMut(&Found)) {
        let Some((base, _)) = self.wants() else { return };
        while !self.finished {
            let from = self.summing.as_ref().map_or(self.at, |summing| summing.upto);
            let input =
                usize::try_from(from.wrapping_sub(base)).ok().and_then(|at| bytes.get(at..));
            let Some(input) = input else { return };
            let room = usize::try_from(self.start.limit.saturating_sub(from)).unwrap_or(usize::MAX);
            let input = &input[..input.len().min(room)];
            let more = match self.summing.take() {
                Some(summing) => self.sum(summing, input, &mut on_frame),
                None => self.look(input, input.len() == room),
            };
            if !more {
                return;
            }
        }
    }

    /// What was found. Before the scan is finished: what was found so far.
    pub fn report(&self) -> &ScanReport {
        &self.report
    }

    /// Ends the scan and gives what was found.
    pub fn into_report(mut self) -> ScanReport {
        self.finish();
        self.report
    }

    /// Looks whether a frame may begin at `at`. `reaches_limit`: nothing follows `input`. Returns
    /// false when it needs more bytes.
    fn look(&mut self, input: &[u8], reaches_limit: bool) -> bool {
        if input.is_empty() {
            if reaches_limit {
                self.finish();
            }
            return reaches_limit;
        }
        if self.search.is_some() {
            let zeros = count_zeros(input);
            if zeros > 0 {
                self.at += zeros as u64;
                return true;
            }
        }
        match Head::parse(input, self.start.checksum) {
            Parsed::Head(head) if self.is_plausible(&head) => {
                self.summing = Some(self.begin_sum(head, input));
            }
            Parsed::Short | Parsed::Zeros if input.len() < HEAD_BYTES_MAX && !reaches_limit => {
                return false;
            }
            _ => self.reject(input[0] != 0),
        }
        true
    }

    fn begin_sum(&self, head: Head, input: &[u8]) -> Summing {
        let frame_bytes = usize::try_from(head.frame_bytes).unwrap_or(usize::MAX);
        let here = &input[..input.len().min(frame_bytes)];
        Summing {
            head,
            digest: head.digest(here, self.start.checksum, self.start.crc),
            upto: self.at + here.len() as u64,
        }
    }

    /// Whether the frame fits before the limit and its LSN is one that may stand here.
    fn is_plausible(&self, head: &Head) -> bool {
        let fits = head.frame_bytes <= self.start.limit - self.at;
        fits && head.lsn_from(self.lsn).since(self.lsn) <= self.records_lost_max()
    }

    /// No more records than this can lie between the last good frame and here.
    fn records_lost_max(&self) -> u64 {
        match self.search {
            None => 0,
            Some(search) => (self.at - search.hole_start) / BATCH_RECORD_BYTES_MIN,
        }
    }

    /// Goes on with the sum of a frame. Returns false when it needs more bytes.
    fn sum(
        &mut self,
        mut summing: Summing,
        input: &[u8],
        on_frame: &mut impl FnMut(&Found),
    ) -> bool {
        let end = self.at + summing.head.frame_bytes;
        let left = usize::try_from(end - summing.upto).unwrap_or(usize::MAX);
        if left > 0 {
            if input.is_empty() {
                self.summing = Some(summing);
                return false;
            }
            let here = &input[..input.len().min(left)];
            summing.digest.update(here);
            summing.upto += here.len() as u64;
        }
        if summing.upto < end {
            self.summing = Some(summing);
            return true;
        }
        let Summing { head, digest, .. } = summing;
        match self.lsn_of(&head, &digest) {
            Some(lsn) => {
                let found = Found { offset: self.at, lsn, head };
                self.accept(&found);
                on_frame(&found);
            }
            None => {
                if self.search.is_some() {
                    self.work_left = self.work_left.saturating_sub(head.frame_bytes);
                }
                self.reject(true);
            }
        }
        true
    }

    /// The LSN with which the checksum holds.
    fn lsn_of(&self, head: &Head, digest: &Digest) -> Option<Lsn> {
        let lost_max = self.records_lost_max();
        let mut lsn = head.lsn_from(self.lsn);
        while lsn.since(self.lsn) <= lost_max {
            let place =
                Place { salt: self.start.salt, segment: self.start.segment, offset: self.at, lsn };
            if digest.at(place) == head.checksum {
                return Some(lsn);
            }
            lsn = lsn.plus(1 << 16);
        }
        None
    }

    fn accept(&mut self, found: &Found) {
        let next_lsn = found.lsn.plus(found.head.count);
        if let Some(search) = self.search.take() {
            self.add_hole(search, self.at, Some(found.lsn));
        }
        self.at = found.end();
        self.lsn = next_lsn;
        let report = &mut self.report;
        report.last_end = self.at;
        report.last_next_lsn = next_lsn;
        if report.holes.is_empty() {
            report.end = self.at;
            report.next_lsn = next_lsn;
            report.records += found.head.count;
            report.last_kind = Some(found.head.kind);
            report.seal_offset = (found.head.kind == FrameKind::Seal).then_some(found.offset);
            if found.head.count > 0 {
                report.last_record_frame = Some(found.offset);
            }
        } else {
            report.records_after += found.head.count;
        }
        if let Some(durable) = found.head.durable(found.lsn)
            && report.claim.is_none_or(|claim| durable > claim.durable)
        {
            let at = Position::new(self.start.segment, found.offset);
            report.claim = Some(Claim { durable, at });
        }
        let stop = self.start.last_lsn.is_some_and(|last| next_lsn > last);
        if stop || self.at >= self.start.limit {
            self.finish();
        }
    }

    /// No frame begins at `at`: try the next byte. `is_nonzero`: the byte at `at` is not zero.
    fn reject(&mut self, is_nonzero: bool) {
        let search = self.search.get_or_insert(Search { hole_start: self.at, is_zero: true });
        search.is_zero &= !is_nonzero;
        if self.work_left == 0 {
            self.report.is_exhausted = true;
            search.is_zero = false;
            self.at = self.start.limit;
        } else if self.at < self.start.limit {
            self.at += 1;
            self.work_left -= 1;
        }
    }

    fn finish(&mut self) {
        if let Some(search) = self.search.take() {
            self.add_hole(search, self.start.limit, None);
        }
        self.summing = None;
        self.finished = true;
    }

    fn add_hole(&mut self, search: Search, end: u64, resumes: Option<Lsn>) {
        let Search { hole_start, is_zero } = search;
        let holes = &mut self.report.holes;
        let is_full = holes.len() == HOLES_MAX;
        match holes.last_mut() {
            Some(last) if is_full => {
                last.end = end;
                last.resumes = resumes;
                last.is_zero = false;
            }
            _ => {
                let lsn = self.report.last_next_lsn;
                holes.push(Hole { start: hole_start, end, lsn, resumes, is_zero });
            }
        }
    }
}

fn count_zeros(input: &[u8]) -> usize {
    let mut blocks = input.chunks_exact(4_096);
    let whole = blocks.by_ref().take_while(|block| crate::wire::is_zero(block)).count() * 4_096;
    whole + input[whole..].iter().take_while(|byte| **byte == 0).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Time;
    use crate::record::{Entry, Record};
    use crate::wire::checksum::crc32c;
    use crate::wire::frame::Frame;
    use alloc::vec;

    fn start(limit: u64) -> ScanStart {
        ScanStart {
            segment: SegmentId::FIRST,
            salt: 1,
            checksum: ChecksumKind::Crc32c,
            crc: crc32c,
            offset: 0,
            lsn: Lsn::new(1),
            limit,
            last_lsn: None,
        }
    }

    fn scan(bytes: &[u8], piece: usize) -> ScanReport {
        let mut scan = SegmentScan::new(start(bytes.len() as u64));
        while let Some((from, _)) = scan.wants() {
            let from = usize::try_from(from).unwrap();
            scan.feed(&bytes[from..bytes.len().min(from + piece)], |_| {});
        }
        scan.into_report()
    }

    /// So many frames of one record, each followed by a byte that is none.
    fn frames_with_holes(count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for lsn in (1..=count).map(Lsn::new) {
            let offset = bytes.len() as u64;
            let frame = Frame {
                checksum: ChecksumKind::Crc32c,
                crc: crc32c,
                place: Place { salt: 1, segment: SegmentId::FIRST, offset, lsn },
                durable: Lsn::ZERO,
                now: Time::default(),
            };
            frame.put_record(&mut bytes, &Entry::from(&Record::put(b"k", b"v")));
            bytes.push(0xff);
        }
        bytes
    }

    #[test]
    fn holes_past_the_bound_are_joined_and_frames_behind_them_found() {
        let count = HOLES_MAX as u64 + 50;
        let bytes = frames_with_holes(count);
        let report = scan(&bytes, 4_096);
        assert_eq!((report.records, report.records_after), (1, count - 1));
        assert_eq!(report.last_next_lsn, Lsn::new(count + 1));
        assert_eq!((report.holes.len(), report.is_exhausted), (HOLES_MAX, false));
        let last = report.holes.last().unwrap();
        assert_eq!((last.end, last.resumes, last.is_zero), (bytes.len() as u64, None, false));
        // However the bytes come in, it is the same.
        assert_eq!(scan(&bytes, 97), report);
    }

    #[test]
    fn a_scan_that_has_ended_takes_no_more() {
        let bytes = frames_with_holes(2);
        let mut scan = SegmentScan::new(start(bytes.len() as u64));
        scan.feed(&bytes, |_| {});
        assert_eq!(scan.wants(), None);
        let before = scan.report().clone();
        scan.feed(&bytes, |found| panic!("{found:?}"));
        assert_eq!(*scan.report(), before);
    }

    #[test]
    fn bytes_made_to_be_summed_again_and_again_are_given_up() {
        // At every byte a frame of 127 bytes and more seems to begin.
        let bytes = vec![0x7f; 300 << 10];
        let report = scan(&bytes, 64 << 10);
        assert!(report.is_exhausted);
        assert_eq!((report.end, report.holes.len()), (0, 1));
        let hole = report.holes[0];
        assert_eq!((hole.start, hole.end, hole.is_zero), (0, bytes.len() as u64, false));
    }
}
