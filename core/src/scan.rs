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
//! bytes into a value that look like one. But at every third byte of a value without pattern a
//! frame *seems* to begin, of any length. So what seems one waits until the search has come to its
//! end, and is summed where it is followed as a frame is: by the next frame, by unwritten space or
//! by nothing. What is followed by other bytes is summed as well, while there are few of those.
//!
//! Behind the frames of a recycled file stand those of its earlier life. Where one ends the next is
//! tried first, so that they are passed over as fast as they are summed.
//!
//! The work and the memory of searching are bounded, whatever the bytes, and so is what it has read
//! again: where that has kept something from being summed, [`ScanReport::is_exhausted`] says so.

use crate::id::{Lsn, Position, SegmentId};
use crate::wire::checksum::{ChecksumKind, Crc32cFn, Digest, Place};
use crate::wire::frame::{self, BATCH_RECORD_BYTES_MIN, FrameKind, HEAD_BYTES_MAX, Head, Parsed};
use crate::wire::header::Earlier;
use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Range;

/// Which bytes to scan, and as what.
#[derive(Clone, Copy, Debug)]
pub struct ScanStart {
    /// The segment.
    pub segment: SegmentId,
    /// Its salt.
    pub salt: u64,
    /// Its checksum.
    pub checksum: ChecksumKind,
    /// What its file was before.
    pub earlier: Option<Earlier>,
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
    /// From here to its end stands what the file held in an earlier life; the end where nothing
    /// does.
    pub stale_from: u64,
}

impl Hole {
    /// Whether nothing was written there in this life of the file.
    pub const fn is_unwritten(&self) -> bool {
        self.is_zero || self.stale_from <= self.start
    }
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
    /// Not all that seemed a frame was summed: the holes may hold good frames.
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
    work: Work,
    finished: bool,
    report: ScanReport,
}

#[derive(Debug)]
struct Search {
    hole_start: u64,
    /// The byte past the last one so far that is not zero.
    content_end: u64,
    /// What may be frames, until the search comes to their ends.
    candidates: BinaryHeap<Reverse<Candidate>>,
    /// One of them is looked at again.
    resume: Option<Resume>,
    /// A frame of the file's earlier life may begin here.
    is_stale_due: bool,
    /// Where the last frames of that life without anything between them begin and end.
    stale: (u64, u64),
    /// The LSN of the next of them, at least.
    stale_lsn: Lsn,
}

/// How the search goes on if what is looked at again is no frame.
#[derive(Clone, Copy, Debug)]
struct Resume {
    at: u64,
    /// What the search knew of content when it first came to the candidate.
    content_end: u64,
}

/// Bytes that begin as a frame does. The one that ends first comes first, and of those that end
/// together the longest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Candidate {
    end: u64,
    /// The byte past the last one before it that is not zero.
    content_end: u64,
    /// No frame is longer than 1 GiB.
    bytes: u32,
    /// The low 16 bits of the LSN that a frame after it has.
    next_low: u16,
}

/// How many bytes may still be summed in vain.
#[derive(Debug)]
struct Work {
    /// Of what stands where the next frame should.
    chained: u64,
    /// Of candidates that are followed as a frame is.
    fitting: u64,
    /// Of others.
    other: u64,
    /// So many may still be read again, to sum candidates.
    read: u64,
}

impl Work {
    /// The LSN with which the checksum of a frame holds, of those that its head allows: the one in
    /// `first` or at most `ahead_max` further on.
    fn matching_lsn(
        &mut self,
        head: &Head,
        digest: &Digest,
        first: Place,
        ahead_max: u64,
    ) -> Option<Lsn> {
        let lsn = head.lsn_from(first.lsn);
        let ahead_max = ahead_max.checked_sub(lsn.since(first.lsn))?;
        let matching = digest.matching_lsn(Place { lsn, ..first }, ahead_max, head.checksum);
        if matching.is_none() {
            // Whichever kind of candidate it was.
            let bytes = digest.vain_bytes(ahead_max);
            self.fitting = self.fitting.saturating_sub(bytes);
            self.other = self.other.saturating_sub(bytes);
        }
        matching
    }
}

/// A frame whose checksum is being summed up.
#[derive(Debug)]
struct Summing {
    head: Head,
    digest: Digest,
    /// The byte past the last one summed.
    upto: u64,
}

/// A scan may sum so many times the bytes it looks at in vain, and a little more for short
/// segments; its search as many.
const WORK_FACTOR: u64 = 8;
const WORK_BYTES_MIN: u64 = 16 << 20;
/// The search may have so many times the bytes it looks at read again, and a little more for short
/// segments: a candidate that begins before the bytes at hand takes all of them.
const READ_FACTOR: u64 = 4;
const READ_BYTES_MIN: u64 = 64 << 20;
/// No more candidates wait at a time: they take 12 MiB then.
const CANDIDATES_MAX: usize = 1 << 19;
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
            work: Work {
                chained: span.saturating_mul(WORK_FACTOR).saturating_add(WORK_BYTES_MIN),
                fitting: span.saturating_mul(WORK_FACTOR).saturating_add(WORK_BYTES_MIN),
                other: (span / 4).saturating_add(WORK_BYTES_MIN),
                read: span.saturating_mul(READ_FACTOR).saturating_add(READ_BYTES_MIN),
            },
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

    /// Whether it has come to bytes that are no frame, and looks for the next.
    pub fn is_searching(&self) -> bool {
        self.search.is_some()
    }

    /// The file turned out to end here, before the limit.
    pub fn ends_at(&mut self, limit: u64) {
        self.start.limit = self.start.limit.min(limit);
        if self.summing.take().is_some() || self.at >= self.start.limit {
            // What was being summed runs past the end, so it is no frame.
            self.reject(true);
        }
        if self.at >= self.start.limit && !self.looks_back(&[], &(self.at..self.at)) {
            self.finish();
        }
    }

    /// Takes bytes that begin where [`wants`](Self::wants) said. Unless they reach the limit there
    /// must be at least [`HEAD_BYTES_MAX`] of them. Calls `on_frame` for each good frame, in order.
    pub fn feed(&mut self, bytes: &[u8], mut on_frame: impl FnMut(&Found)) {
        let Some((base, _)) = self.wants() else { return };
        let at_hand = base..base.saturating_add(bytes.len() as u64);
        while !self.finished {
            let from = self.summing.as_ref().map_or(self.at, |summing| summing.upto);
            let input =
                usize::try_from(from.wrapping_sub(base)).ok().and_then(|at| bytes.get(at..));
            let Some(input) = input else { return };
            let room = usize::try_from(self.start.limit.saturating_sub(from)).unwrap_or(usize::MAX);
            let input = &input[..input.len().min(room)];
            let more = match self.summing.take() {
                Some(summing) => self.sum(summing, input, &mut on_frame),
                None if self.follows(input, &mut on_frame) => true,
                None => self.look(input, input.len() == room, &at_hand),
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

    /// Whether the next frame follows the last one, and all of it is here: the usual case.
    fn follows(&mut self, input: &[u8], on_frame: &mut impl FnMut(&Found)) -> bool {
        let ScanStart { segment, salt, checksum, crc, .. } = self.start;
        if self.search.is_some() {
            return false;
        }
        let Parsed::Head(head) = Head::parse(input, checksum) else { return false };
        let frame = usize::try_from(head.frame_bytes).ok().and_then(|bytes| input.get(..bytes));
        let place = Place { salt, segment, offset: self.at, lsn: self.lsn };
        let holds = head.lsn_from(self.lsn) == self.lsn
            && head.frame_bytes <= self.work.chained
            && frame.is_some_and(|frame| head.holds(frame, place, checksum, crc));
        if holds {
            let found = Found { offset: self.at, lsn: self.lsn, head };
            self.accept(&found);
            on_frame(&found);
        }
        holds
    }

    /// Looks whether a frame may begin at `at`. `reaches_limit`: nothing follows `input`. What is
    /// `at_hand` need not be read again. Returns false when it needs more bytes.
    fn look(&mut self, input: &[u8], reaches_limit: bool, at_hand: &Range<u64>) -> bool {
        if input.len() < HEAD_BYTES_MAX && !reaches_limit && self.search.is_some() {
            return false;
        }
        // Not while it looks at a candidate again.
        let is_searching = self.search.as_ref().is_some_and(|search| search.resume.is_none());
        if is_searching
            && (self.looks_back(input, at_hand)
                || self.passes_zeros(input)
                || self.passes_content(input))
        {
            return true;
        }
        if input.is_empty() {
            if reaches_limit {
                self.finish();
            }
            return reaches_limit;
        }
        match Head::parse(input, self.start.checksum) {
            Parsed::Head(head) if is_searching => {
                if self.tries_stale(&head) {
                    self.summing = Some(self.begin_sum(head, input));
                } else if self.is_plausible(&head) {
                    self.put_off(&head, input);
                } else {
                    self.reject(true);
                }
            }
            Parsed::Head(head) if self.is_plausible(&head) => {
                if self.search.is_some() || head.frame_bytes <= self.work.chained {
                    self.summing = Some(self.begin_sum(head, input));
                } else {
                    self.report.is_exhausted = true;
                    self.reject(true);
                }
            }
            Parsed::Short | Parsed::Zeros if input.len() < HEAD_BYTES_MAX && !reaches_limit => {
                return false;
            }
            _ => self.reject(input[0] != 0),
        }
        true
    }

    /// Whether what begins here is to be summed at once: the last frame of the file's earlier life
    /// has just ended.
    fn tries_stale(&mut self, head: &Head) -> bool {
        let bytes = head.frame_bytes;
        let is_due = self.search.as_ref().is_some_and(|search| search.is_stale_due)
            && bytes <= self.start.limit - self.at
            && bytes <= self.work.fitting;
        if is_due {
            self.work.fitting -= bytes;
        }
        is_due
    }

    /// Keeps what may be a frame until the search comes to its end, unless it is clear already that
    /// it would not be summed.
    fn put_off(&mut self, head: &Head, input: &[u8]) {
        let Some(search) = &mut self.search else { return };
        let candidate = Candidate {
            end: self.at + head.frame_bytes,
            content_end: search.content_end,
            bytes: u32::try_from(head.frame_bytes).unwrap_or(u32::MAX),
            next_low: next_low(head),
        };
        let behind = usize::try_from(head.frame_bytes).ok().and_then(|bytes| {
            let (frame, behind) = input.split_at_checked(bytes)?;
            (behind.len() >= HEAD_BYTES_MAX).then_some((behind, frame.last() != Some(&0)))
        });
        let is_hopeless = self.work.other < head.frame_bytes
            && behind.is_some_and(|(behind, is_content)| {
                !candidate.is_followed(behind, is_content, &self.start)
            });
        if !is_hopeless {
            self.report.is_exhausted |= !search.keep(candidate);
        }
        self.reject(true);
    }

    /// Goes back to a candidate that ends here, if `input`, which follows it, or the bytes that may
    /// be summed in vain, make it worth that. One that begins before the bytes `at_hand` has all of
    /// those read again.
    fn looks_back(&mut self, input: &[u8], at_hand: &Range<u64>) -> bool {
        let Some(search) = &mut self.search else { return false };
        while let Some(candidate) = search.pop_ended(self.at) {
            if candidate.end < self.at {
                // What it reached into has turned out to be something else.
                continue;
            }
            let bytes = u64::from(candidate.bytes);
            let is_content = candidate.end == search.content_end;
            let is_fitting = candidate.is_followed(input, is_content, &self.start);
            let start = candidate.end - bytes;
            let read = if start < at_hand.start { at_hand.end - start } else { 0 };
            let left = if is_fitting { &mut self.work.fitting } else { &mut self.work.other };
            if *left >= bytes && self.work.read >= read {
                *left -= bytes;
                self.work.read -= read;
                let content_end = candidate.content_end;
                search.resume = Some(Resume { at: self.at, content_end });
                self.at = start;
                return true;
            }
            self.report.is_exhausted |= is_fitting;
        }
        false
    }

    /// Passes over zeros, up to where a candidate ends.
    fn passes_zeros(&mut self, input: &[u8]) -> bool {
        if input.first() != Some(&0) {
            return false;
        }
        let zeros = count_zeros(&input[..input.len().min(self.room_in_search())]);
        self.at += zeros as u64;
        zeros > 0
    }

    /// Passes over bytes that begin no frame, up to where a candidate ends.
    fn passes_content(&mut self, input: &[u8]) -> bool {
        let room = self.room_in_search();
        let Some(search) = &mut self.search else { return false };
        let begins = |byte: &u8| frame::is_flags(*byte) || *byte == 0;
        let input = &input[..input.len().min(room)];
        let content = input.iter().position(begins).unwrap_or(input.len());
        if content > 0 {
            self.at += content as u64;
            search.content_end = self.at;
            search.is_stale_due = false;
        }
        content > 0
    }

    /// How many bytes there are up to where a candidate ends.
    fn room_in_search(&self) -> usize {
        let next = self.search.as_ref().and_then(|search| search.candidates.peek());
        let next_end = next.map_or(u64::MAX, |Reverse(next)| next.end);
        usize::try_from(next_end - self.at).unwrap_or(usize::MAX)
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

    /// Whether the frame fits before the limit and its LSN is one that may stand here. Of the
    /// file's earlier life nearly any may.
    fn is_plausible(&self, head: &Head) -> bool {
        let fits = head.frame_bytes <= self.start.limit - self.at;
        let may_be_stale = self.start.earlier.is_some() && self.search.is_some();
        let is_near = || head.lsn_from(self.lsn).since(self.lsn) <= self.records_lost_max();
        fits && (may_be_stale || is_near())
    }

    /// No more records than this can lie between the last good frame and here.
    fn records_lost_max(&self) -> u64 {
        match &self.search {
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
        if self.passes_stale(&head, &digest) {
            return true;
        }
        match self.lsn_of(&head, &digest) {
            Some(lsn) => {
                let found = Found { offset: self.at, lsn, head };
                self.accept(&found);
                on_frame(&found);
            }
            None => {
                if self.search.is_none() {
                    self.work.chained = self.work.chained.saturating_sub(head.frame_bytes);
                }
                self.reject(true);
            }
        }
        true
    }

    /// Passes over a frame of the file's earlier life. That is asked before whether it is one of
    /// this life: of so many frames, one might match by chance.
    fn passes_stale(&mut self, head: &Head, digest: &Digest) -> bool {
        let (Some(search), Some(earlier)) = (&mut self.search, self.start.earlier) else {
            return false;
        };
        let Earlier { segment, salt, .. } = earlier;
        let first = Place { salt, segment, offset: self.at, lsn: search.stale_lsn };
        // The earlier life's first LSN is known but for its low bits.
        let ahead_max = self.at / BATCH_RECORD_BYTES_MIN + (1 << 16);
        let matching = self.work.matching_lsn(head, digest, first, ahead_max);
        let Some(lsn) = matching else { return false };
        let end = self.at + head.frame_bytes;
        let from = if search.stale.1 == self.at { search.stale.0 } else { self.at };
        search.stale = (from, end);
        search.stale_lsn = lsn.plus(head.count);
        search.is_stale_due = true;
        search.resume = None;
        search.content_end = end;
        self.at = end;
        true
    }

    /// The LSN with which the checksum holds.
    fn lsn_of(&mut self, head: &Head, digest: &Digest) -> Option<Lsn> {
        let ScanStart { salt, segment, .. } = self.start;
        let first = Place { salt, segment, offset: self.at, lsn: self.lsn };
        let ahead_max = self.records_lost_max();
        self.work.matching_lsn(head, digest, first, ahead_max)
    }

    fn accept(&mut self, found: &Found) {
        let next_lsn = found.lsn.plus(found.head.count);
        if let Some(mut search) = self.search.take() {
            if let Some(resume) = search.resume {
                search.content_end = resume.content_end;
            }
            self.add_hole(&search, self.at, Some(found.lsn));
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
        let Some(search) = &mut self.search else {
            let mut search = Search::new(self.at, self.start.earlier);
            if !search.is_stale_due {
                search.pass_byte(&mut self.at, self.start.limit, is_nonzero);
            }
            self.search = Some(search);
            return;
        };
        match search.resume.take() {
            Some(resume) => self.at = resume.at.min(self.start.limit),
            None => search.pass_byte(&mut self.at, self.start.limit, is_nonzero),
        }
    }

    fn finish(&mut self) {
        if let Some(search) = self.search.take() {
            self.add_hole(&search, self.start.limit, None);
        }
        self.summing = None;
        self.finished = true;
    }

    fn add_hole(&mut self, search: &Search, end: u64, resumes: Option<Lsn>) {
        let hole_start = search.hole_start;
        let is_zero = search.content_end <= hole_start;
        let (stale_from, stale_end) = search.stale;
        let is_stale = stale_end > stale_from && stale_end >= search.content_end;
        let stale_from = if is_stale { stale_from } else { end };
        let holes = &mut self.report.holes;
        let is_full = holes.len() == HOLES_MAX;
        match holes.last_mut() {
            Some(last) if is_full => {
                last.end = end;
                last.resumes = resumes;
                last.is_zero = false;
                last.stale_from = end;
            }
            _ => {
                let lsn = self.report.last_next_lsn;
                holes.push(Hole { start: hole_start, end, lsn, resumes, is_zero, stale_from });
            }
        }
    }
}

impl Search {
    fn new(hole_start: u64, earlier: Option<Earlier>) -> Self {
        Self {
            hole_start,
            content_end: hole_start,
            candidates: BinaryHeap::new(),
            resume: None,
            is_stale_due: earlier.is_some(),
            stale: (hole_start, hole_start),
            stale_lsn: earlier.map_or(Lsn::ZERO, |earlier| earlier.lsn),
        }
    }

    /// Goes on to the next byte.
    fn pass_byte(&mut self, at: &mut u64, limit: u64, is_nonzero: bool) {
        if is_nonzero {
            self.content_end = *at + 1;
        }
        self.is_stale_due = false;
        *at = (*at + 1).min(limit);
    }

    /// Keeps a candidate. False: there are so many that some were forgotten, the longest.
    fn keep(&mut self, candidate: Candidate) -> bool {
        let has_room = self.candidates.len() < CANDIDATES_MAX;
        if !has_room {
            let mut all = core::mem::take(&mut self.candidates).into_vec();
            all.select_nth_unstable_by_key(CANDIDATES_MAX / 2, |Reverse(each)| each.bytes);
            all.truncate(CANDIDATES_MAX / 2);
            self.candidates = all.into();
        }
        self.candidates.push(Reverse(candidate));
        has_room
    }

    /// A candidate that ends at `at`.
    fn pop_ended(&mut self, at: u64) -> Option<Candidate> {
        self.candidates.peek().filter(|Reverse(next)| next.end <= at)?;
        self.candidates.pop().map(|Reverse(next)| next)
    }
}

impl Candidate {
    /// Whether `behind` is what stands behind a frame and hardly ever elsewhere. `is_content`: its
    /// own last byte is not zero. Among zeros anything may seem to end; where they begin, hardly.
    fn is_followed(&self, behind: &[u8], is_content: bool, start: &ScanStart) -> bool {
        // Nearly always this says it at once.
        if frame::lsn_low(behind, start.checksum).is_some_and(|low| low != self.next_low) {
            return false;
        }
        match Head::parse(behind, start.checksum) {
            Parsed::Head(next) => {
                next.lsn_low == self.next_low && next.frame_bytes <= start.limit - self.end
            }
            Parsed::Zeros => is_content,
            Parsed::Short => behind.is_empty(),
            Parsed::Bad => false,
        }
    }
}

/// The low 16 bits of the LSN that follows a frame.
const fn next_low(head: &Head) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
    head.lsn_low.wrapping_add(head.count as u16)
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
    use crate::wire::varint;
    use alloc::vec;
    use core::sync::atomic::{AtomicU64, Ordering};

    fn start(limit: u64) -> ScanStart {
        ScanStart {
            segment: SegmentId::FIRST,
            salt: 1,
            checksum: ChecksumKind::Crc32c,
            earlier: None,
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
            frame_at(bytes.len() as u64, lsn)
                .put_record(&mut bytes, &Entry::from(&Record::put(b"k", b"v")));
            bytes.push(0xff);
        }
        bytes
    }

    fn frame_at(offset: u64, lsn: Lsn) -> Frame {
        Frame {
            checksum: ChecksumKind::Crc32c,
            crc: crc32c,
            place: Place { salt: 1, segment: SegmentId::FIRST, offset, lsn },
            durable: Lsn::ZERO,
            now: Time::default(),
        }
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
    fn of_all_claims_the_largest_counts_and_of_equal_ones_the_first() {
        let mut bytes = Vec::new();
        let mut offsets = Vec::new();
        for (lsn, durable) in [(5, 2), (6, 4), (7, 4), (8, 1)] {
            offsets.push(bytes.len() as u64);
            let frame = frame_at(bytes.len() as u64, Lsn::new(lsn));
            let frame = Frame { durable: Lsn::new(durable), ..frame };
            frame.put_record(&mut bytes, &Entry::from(&Record::put(b"k", b"v")));
        }
        let limit = bytes.len() as u64;
        let mut scan = SegmentScan::new(ScanStart { lsn: Lsn::new(5), ..start(limit) });
        scan.feed(&bytes, |_| {});
        let at = Position::new(SegmentId::FIRST, offsets[1]);
        assert_eq!(scan.into_report().claim, Some(Claim { durable: Lsn::new(4), at }));
    }

    #[test]
    fn a_hole_hides_no_more_records_than_fit_in_it() {
        let hole_bytes = 300;
        let most = hole_bytes / BATCH_RECORD_BYTES_MIN;
        for (lost, is_found) in [(1, true), (most, true), (most + 1, false)] {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, 1, 1);
            bytes.resize(bytes.len() + usize::try_from(hole_bytes).unwrap(), 0xff);
            put_frame(&mut bytes, 1, 2 + lost);
            let report = scan(&bytes, bytes.len());
            assert_eq!(report.records_after, u64::from(is_found), "{lost} of {most}");
        }
    }

    #[test]
    fn zeros_are_counted_across_blocks() {
        for zeros in [0, 1, 4_095, 4_096, 4_097, 8_192, 10_000] {
            let mut bytes = vec![0; zeros];
            assert_eq!(count_zeros(&bytes), zeros);
            bytes.extend([7, 0, 0]);
            assert_eq!(count_zeros(&bytes), zeros);
        }
    }

    #[test]
    fn a_file_may_end_before_it_should() {
        let bytes = random_frames(3, 200);
        let frame_bytes = bytes.len() / 3;
        for cut in 0..=bytes.len() {
            let mut scan = SegmentScan::new(start(bytes.len() as u64 + 100));
            for piece in bytes[..cut].chunks(90) {
                scan.feed(piece, |_| {});
            }
            scan.ends_at(cut as u64);
            while let Some((from, _)) = scan.wants() {
                scan.feed(&bytes[usize::try_from(from).unwrap()..cut], |_| {});
            }
            let report = scan.into_report();
            let whole = cut / frame_bytes;
            // What is missing is a hole, also where nothing is left of it.
            let hole = report.holes[0];
            let place = (hole.start, hole.end, hole.resumes);
            assert_eq!(place, ((whole * frame_bytes) as u64, cut as u64, None), "{cut}");
            assert_eq!((report.records, report.holes.len()), (whole as u64, 1), "{cut}");
        }
    }

    /// A frame of one record that was written with this salt.
    fn put_frame(bytes: &mut Vec<u8>, salt: u64, lsn: u64) -> u64 {
        let offset = bytes.len() as u64;
        let frame = frame_at(offset, Lsn::new(lsn));
        let place = Place { salt, ..frame.place };
        Frame { place, ..frame }.put_record(bytes, &Entry::from(&Record::put(b"key", b"value")));
        offset
    }

    fn scan_recycled(bytes: &[u8]) -> ScanReport {
        let earlier = Earlier { segment: SegmentId::FIRST, salt: 7, lsn: Lsn::new(100) };
        let start = ScanStart { earlier: Some(earlier), ..start(bytes.len() as u64) };
        let mut scan = SegmentScan::new(start);
        scan.feed(bytes, |_| {});
        scan.into_report()
    }

    #[test]
    fn frames_of_an_earlier_life_hide_none_of_this_one() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 1, 1);
        let hole_start = bytes.len() as u64;
        for lsn in 200..210 {
            put_frame(&mut bytes, 7, lsn);
        }
        let hole_end = put_frame(&mut bytes, 1, 2);
        let report = scan_recycled(&bytes);
        assert_eq!((report.records, report.records_after), (1, 1));
        let hole = report.holes[0];
        let place = (hole.start, hole.end, hole.stale_from);
        assert_eq!(place, (hole_start, hole_end, hole_start));
        assert!(hole.is_unwritten() && !hole.is_zero);
        // Bytes that are neither are what they are.
        bytes[usize::try_from(hole_start).unwrap() + 12] ^= 1;
        let hole = scan_recycled(&bytes).holes[0];
        assert!(hole.stale_from > hole_start && hole.stale_from < hole_end && !hole.is_unwritten());
    }

    #[test]
    fn a_hole_of_zeros_holds_no_earlier_life() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 1, 1);
        bytes.resize(1_000, 0);
        put_frame(&mut bytes, 1, 2);
        for report in [scan_recycled(&bytes), scan(&bytes, 64 << 10)] {
            let hole = report.holes[0];
            assert_eq!(
                (hole.is_zero, hole.end, hole.stale_from),
                (true, 1_000, 1_000),
                "{report:?}"
            );
        }
    }

    #[test]
    fn an_earlier_life_is_known_by_numbers_that_it_can_have() {
        // From the first on 64 Ki are open, and as many as fit before the frame.
        let most = 20_000 / BATCH_RECORD_BYTES_MIN + (1 << 16);
        for (ahead, is_stale) in [(0, true), (70_000, true), (most, true), (most + 1, false)] {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, 1, 1);
            bytes.resize(20_000, 0xff);
            // One that is known leads to the next.
            put_frame(&mut bytes, 7, 100 + ahead);
            let report = scan_recycled(&bytes);
            assert_eq!(report.holes[0].stale_from < bytes.len() as u64, is_stale, "{ahead}");
        }
    }

    #[test]
    fn a_seal_is_known_where_it_is_the_last() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 1, 1);
        assert_eq!(scan(&bytes, 64 << 10).seal_offset, None);
        let offset = bytes.len() as u64;
        frame_at(offset, Lsn::new(2)).put_body(&mut bytes, FrameKind::Seal, b"index");
        assert_eq!(scan(&bytes, 64 << 10).seal_offset, Some(offset));
        put_frame(&mut bytes, 1, 2);
        assert_eq!(scan(&bytes, 64 << 10).seal_offset, None);
    }

    #[test]
    fn a_search_where_numbers_end_comes_to_an_end() {
        let mut bytes = random_frames(3, 2_000);
        bytes[9] ^= 1;
        let lsn = Lsn::new(u64::MAX - 9);
        let earlier = Earlier { segment: SegmentId::FIRST, salt: 7, lsn };
        for earlier in [None, Some(earlier)] {
            let limit = bytes.len() as u64;
            let mut scan = SegmentScan::new(ScanStart { earlier, lsn, ..start(limit) });
            scan.feed(&bytes, |found| panic!("{found:?}"));
            assert_eq!(scan.into_report().records, 0);
        }
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
        // Every 12 bytes a record seems to begin that reaches to the end.
        let mut bytes = Vec::new();
        let limit: u32 = 300 << 10;
        while bytes.len() + 12 < 300 << 10 {
            bytes.extend_from_slice(&[1, 9, 9, 9, 9, 1, 0, 0, 0]);
            let value_bytes = limit - u32::try_from(bytes.len()).unwrap() - 3;
            let groups = [value_bytes | 0x80, value_bytes >> 7 | 0x80, value_bytes >> 14];
            bytes.extend(groups.map(|group| group.to_le_bytes()[0]));
        }
        bytes.resize(300 << 10, 7);
        let report = scan(&bytes, 64 << 10);
        assert!(report.is_exhausted);
        assert_eq!((report.end, report.holes.len()), (0, 1));
        let hole = report.holes[0];
        assert_eq!((hole.start, hole.end, hole.is_zero), (0, bytes.len() as u64, false));
    }

    /// What begins as a record does that ends there, with the number of the first.
    fn put_head(bytes: &mut Vec<u8>, end: u64) {
        let start = bytes.len() as u64;
        bytes.extend([1, 9, 9, 9, 9, 1, 0, 0, 0]);
        varint::put(bytes, end - start - 12);
    }

    /// Scans in pieces that end at multiples of their length, as a recovery reads them, and says
    /// how many bytes that took.
    fn scan_reading(bytes: &[u8], piece: u64) -> (ScanReport, u64) {
        let mut scan = SegmentScan::new(start(bytes.len() as u64));
        let mut read = 0;
        while let Some((from, _)) = scan.wants() {
            let end = (from + HEAD_BYTES_MAX as u64) / piece * piece + piece;
            let end = end.min(bytes.len() as u64);
            read += end - from;
            let [from, end] = [from, end].map(|at| usize::try_from(at).unwrap());
            scan.feed(&bytes[from..end], |_| {});
        }
        (scan.into_report(), read)
    }

    /// Before the end of each piece frames seem to begin that end behind it, so that each is to be
    /// read again.
    #[test]
    fn bytes_made_to_be_read_again_and_again_are_given_up() {
        let (piece, pieces) = (64 << 10, 64);
        let mut bytes = Vec::new();
        for boundary in (1..pieces).map(|number| number * piece) {
            bytes.resize(boundary - 160 * 12, 5);
            for number in 1..=160_u64 {
                put_head(&mut bytes, boundary as u64 + 20 + number);
            }
        }
        bytes.resize(pieces * piece, 5);
        let (report, read) = scan_reading(&bytes, piece as u64);
        assert_eq!((report.records, report.holes.len()), (0, 1));
        let bytes = bytes.len() as u64;
        assert!(read <= (1 + READ_FACTOR) * bytes + READ_BYTES_MIN, "{read} of {bytes}");
    }

    /// Good frames, and behind each what seems one and reaches to the end.
    #[test]
    fn what_follows_good_frames_is_not_summed_again_and_again() {
        static SUMMED: AtomicU64 = AtomicU64::new(0);
        fn crc(sum: u32, bytes: &[u8]) -> u32 {
            SUMMED.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            crc32c(sum, bytes)
        }
        let limit = 300 << 10;
        let mut bytes = Vec::new();
        for _ in 0..2_000 {
            // Marks take no number.
            frame_at(bytes.len() as u64, Lsn::new(1)).put_body(&mut bytes, FrameKind::Mark, b"");
            put_head(&mut bytes, limit);
        }
        bytes.resize(usize::try_from(limit).unwrap(), 0);
        for piece in [64 << 10, 300 << 10] {
            let mut scan = SegmentScan::new(ScanStart { crc, ..start(limit) });
            while let Some((from, _)) = scan.wants() {
                let from = usize::try_from(from).unwrap();
                scan.feed(&bytes[from..bytes.len().min(from + piece)], |_| {});
            }
            assert!(scan.report().is_exhausted);
            let summed = SUMMED.swap(0, Ordering::Relaxed);
            assert!(summed < 3 * (WORK_FACTOR * limit + WORK_BYTES_MIN), "{summed} bytes");
        }
    }

    /// How many sums, and of how many bytes, a scan takes that begins far into a recycled file and
    /// finds nothing there.
    fn sums_far_behind(bytes: &[u8], checksum: ChecksumKind) -> ([u64; 2], Work) {
        static SUMS: AtomicU64 = AtomicU64::new(0);
        static SUMMED: AtomicU64 = AtomicU64::new(0);
        fn crc(sum: u32, bytes: &[u8]) -> u32 {
            SUMS.fetch_add(1, Ordering::Relaxed);
            SUMMED.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            crc32c(sum, bytes)
        }
        let offset = 1 << 40;
        let earlier = Earlier { segment: SegmentId::FIRST, salt: 7, lsn: Lsn::new(100) };
        let limit = offset + bytes.len() as u64;
        let start = ScanStart { earlier: Some(earlier), offset, checksum, crc, ..start(limit) };
        let mut scan = SegmentScan::new(start);
        scan.feed(bytes, |found| panic!("{found:?}"));
        assert_eq!(scan.wants(), None);
        let sums = [&SUMS, &SUMMED].map(|count| count.swap(0, Ordering::Relaxed));
        (sums, scan.work)
    }

    /// What an older frame was cut off from has been overwritten. At every byte of the rest a frame
    /// of twelve bytes seems to begin, whose number may be any of millions.
    #[test]
    fn the_rest_of_an_older_frame_costs_little_however_far_into_the_file() {
        let bytes = vec![1; 100 << 10];
        let ([sums, summed], _) = sums_far_behind(&bytes, ChecksumKind::Crc32c);
        assert!(sums > 100 << 10 && sums <= 4 * (100 << 10), "{sums}");
        assert!(summed < 100 * (100 << 10), "{summed}");
        // With XXH3 all have to be tried: that is work as well, and there is an end to it.
        let (_, work) = sums_far_behind(&bytes, ChecksumKind::Xxh3);
        assert_eq!((work.fitting, work.other), (0, 0));
    }

    /// One of a later version, right behind damage, goes with it; what follows does not.
    #[test]
    fn a_search_looks_for_frames_of_known_kinds() {
        for (kind, is_found) in [(FrameKind::Mark, true), (FrameKind::Unknown(6), false)] {
            let mut bytes = vec![0xa5; 300];
            frame_at(300, Lsn::new(2)).put_body(&mut bytes, kind, b"");
            let end = bytes.len() as u64;
            put_frame(&mut bytes, 1, 2);
            let report = scan(&bytes, 97);
            assert_eq!(report.holes[0].end, if is_found { 300 } else { end }, "{kind:?}");
            assert_eq!((report.holes.len(), report.records_after), (1, 1));
        }
    }

    /// Records of values without pattern.
    fn random_frames(count: u64, value_bytes: usize) -> Vec<u8> {
        let (mut bytes, mut state) = (Vec::new(), 0);
        for lsn in (1..=count).map(Lsn::new) {
            let value: Vec<u8> = (0..value_bytes)
                .map(|_| {
                    state += 1;
                    crate::log::mix(state).to_le_bytes()[0]
                })
                .collect();
            frame_at(bytes.len() as u64, lsn)
                .put_record(&mut bytes, &Entry::from(&Record::put(b"k", &value)));
        }
        bytes
    }

    #[test]
    fn damage_to_a_long_value_hides_no_frame_behind_it() {
        for (count, value_bytes, zeros) in
            [(40, 50 << 10, 0), (3, 700 << 10, 0), (2, 300 << 10, 0), (2, 300 << 10, 4 << 20)]
        {
            let mut bytes = random_frames(count, value_bytes);
            let whole_bytes = bytes.len();
            bytes.resize(whole_bytes + zeros, 0);
            bytes[8] ^= 1;
            for piece in [bytes.len(), 64 << 10] {
                let report = scan(&bytes, piece);
                let seen = (report.records_after, report.last_end, report.is_exhausted);
                assert_eq!(seen, (count - 1, whole_bytes as u64, false), "{count} {value_bytes}");
            }
        }
    }

    #[test]
    fn a_last_frame_that_ends_in_zeros_is_found_before_zeros() {
        let mut bytes = random_frames(1, 10 << 10);
        bytes[8] ^= 1;
        let mut value = vec![7; 4_096];
        value[100..].fill(0);
        let record = Record::put(b"k", &value);
        frame_at(bytes.len() as u64, Lsn::new(2)).put_record(&mut bytes, &Entry::from(&record));
        let whole_bytes = bytes.len() as u64;
        bytes.resize(bytes.len() + (1 << 20), 0);
        let report = scan(&bytes, 64 << 10);
        assert_eq!((report.records_after, report.last_end), (1, whole_bytes));
    }

    #[test]
    fn candidates_are_bounded_and_the_shortest_kept() {
        let mut search = Search::new(0, None);
        let max = CANDIDATES_MAX as u64;
        let bytes_of = |number| u32::try_from(2 * max - number).unwrap();
        let candidate = |number| Candidate {
            end: 2 * max + number,
            content_end: 0,
            bytes: bytes_of(number),
            next_low: 0,
        };
        assert!((0..max).all(|start| search.keep(candidate(start))));
        assert!(!search.keep(candidate(max)));
        assert_eq!(search.candidates.len(), CANDIDATES_MAX / 2 + 1);
        assert!(search.candidates.iter().all(|Reverse(each)| each.bytes <= bytes_of(max / 2)));
        assert!(search.keep(candidate(max + 1)));
    }
}
