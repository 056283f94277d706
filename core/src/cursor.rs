//! Reading, sans-IO: from chunks of a segment's file to records borrowed from them.
//!
//! ```text
//!           Step::Read                 Cursor::fill
//!   step ───────────────► host reads ───────────────► step ──► Step::Record, Record, … , End
//! ```
//!
//! A record is shown only after the checksum of its whole frame has held. A frame that is longer
//! than a chunk asks for a chunk of its own length, which is bounded by the reader's limit. What
//! seems longer than that is summed in chunks: only if its checksum holds is it a frame at all.
//!
//! A cursor stays in one segment. At its end the host says which segment follows.

use crate::id::{Lsn, Position};
use crate::log::{SegmentEnd, SegmentInfo};
use crate::record::RecordRef;
use crate::scan::{Hole, ScanStart, SegmentScan};
use crate::wire::checksum::{Crc32cFn, Place};
use crate::wire::frame::{FrameKind, HEAD_BYTES_MAX, Head, Parsed, Paused, RecordError};
use crate::wire::header::FRAMES_OFFSET;
use crate::wire::seal::{self, INDEX_STRIDE_BYTES, Index};
use alloc::boxed::Box;

/// What a cursor does next.
#[derive(Debug)]
pub enum Step<'a, C> {
    /// A record, and the chunk that it is borrowed from.
    Record(RecordRef<'a>, &'a C),
    /// Read so many bytes of the cursor's segment, or all up to the end of the file, and hand them
    /// to [`Cursor::fill`].
    Read {
        /// From here.
        offset: u64,
        /// So many.
        bytes: u64,
    },
    /// There is nothing more up to the limit.
    End,
    /// What stands here is no frame of the log. [`Cursor::skip_damage`] looks for the next.
    Damaged {
        /// Where.
        position: Position,
        /// The record that should be there.
        lsn: Lsn,
    },
    /// Bytes without a good frame were passed over, as asked.
    Skipped(Hole),
    /// A good frame is longer than the reader's limit; the cursor stays before it.
    TooLong {
        /// Where.
        position: Position,
        /// How long it is.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A record in a good frame cannot be read; the next step goes on after it.
    BadRecord {
        /// The frame.
        position: Position,
        /// Why.
        error: RecordError,
    },
}

/// Where reading a log begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// The first record that is retained.
    First,
    /// The record with this LSN.
    Lsn(Lsn),
    /// The record at this position, or the first after it.
    Position(Position),
}

impl From<Lsn> for Start {
    fn from(lsn: Lsn) -> Self {
        Self::Lsn(lsn)
    }
}

impl From<Position> for Start {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}

/// Why reading cannot begin there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartError {
    /// The records have been deleted.
    Deleted {
        /// What was asked for.
        lsn: Lsn,
        /// The first record that is left.
        first: Lsn,
    },
    /// The log does not reach so far.
    BeyondEnd {
        /// What was asked for.
        lsn: Lsn,
        /// The last record.
        last: Lsn,
    },
    /// There is no such segment.
    NoSuchPosition(Position),
}

/// The index of the segment that holds the record that reading begins with; they are in the order
/// of their numbers. `first` is the first record retained and `last` the last appended; the record
/// to come may be asked for. With no segments the index is 0.
///
/// # Errors
/// When the log does not hold it.
pub fn holder(
    segments: &[SegmentInfo],
    start: Start,
    first: Lsn,
    last: Lsn,
) -> Result<usize, StartError> {
    match start {
        Start::First => Ok(0),
        Start::Lsn(lsn) if lsn < first => Err(StartError::Deleted { lsn, first }),
        Start::Lsn(lsn) if lsn > last.next() => Err(StartError::BeyondEnd { lsn, last }),
        Start::Lsn(lsn) => {
            let after = segments.partition_point(|info| info.first_lsn <= lsn);
            Ok(after.saturating_sub(1))
        }
        Start::Position(position) => {
            let known = segments.binary_search_by_key(&position.segment, |info| info.segment);
            known.map_err(|index| match index {
                0 if !segments.is_empty() => StartError::Deleted { lsn: Lsn::ZERO, first },
                _ => StartError::NoSuchPosition(position),
            })
        }
    }
}

/// What stands where the footer of a segment should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Footer {
    /// The index in it.
    Whole(Index),
    /// It is longer than what was read: so many bytes.
    Longer(u64),
    /// No footer that can be used. The segment can be read without.
    Unusable,
}

/// A footer's first read, in bytes; most are shorter.
pub const FOOTER_READ_BYTES: u64 = 16 << 10;

/// Reads the footer of a segment from the bytes of its file at `end.frames_end`.
pub fn footer(info: &SegmentInfo, end: &SegmentEnd, bytes: &[u8], crc: Crc32cFn) -> Footer {
    footer_within(info, end, bytes, seal::bytes_max_at(end.frames_end), crc)
}

/// The same of one that is no longer than `bytes_max`.
pub(crate) fn footer_within(
    info: &SegmentInfo,
    end: &SegmentEnd,
    bytes: &[u8],
    bytes_max: u64,
    crc: Crc32cFn,
) -> Footer {
    let Parsed::Head(head) = Head::parse(bytes, info.checksum) else { return Footer::Unusable };
    if head.kind != FrameKind::Seal || head.frame_bytes > bytes_max {
        return Footer::Unusable;
    }
    let length = usize::try_from(head.frame_bytes).unwrap_or(usize::MAX);
    let Some(frame) = bytes.get(..length) else { return Footer::Longer(head.frame_bytes) };
    let next_lsn = end.last_lsn.next();
    let place =
        Place { salt: info.salt, segment: info.segment, offset: end.frames_end, lsn: next_lsn };
    if !head.holds(frame, place, info.checksum, crc) {
        return Footer::Unusable;
    }
    let seal = frame
        .get(head.head_bytes..)
        .and_then(|body| seal::parse(body, info.first_lsn, end.frames_end))
        .filter(|seal| seal.records == next_lsn.since(info.first_lsn));
    seal.map_or(Footer::Unusable, |seal| Footer::Whole(seal.index))
}

/// Where a cursor begins in its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// At the first record of the segment.
    Start,
    /// At the first record with this LSN or a later one.
    Lsn(Lsn),
    /// At the first record whose bytes begin at this offset or later.
    Offset(u64),
}

/// Reads the records of a segment in order.
#[derive(Debug)]
pub struct Cursor<C> {
    segment: SegmentInfo,
    crc: Crc32cFn,
    chunk_bytes: u64,
    /// How many bytes it asks for next.
    ask_bytes: u64,
    frame_bytes_max: u64,
    target: Target,
    /// Where the next frame begins.
    at: u64,
    /// The LSN that it begins with; after a leap it may be later.
    lsn: Lsn,
    /// Where to go on if no frame begins where a leap went.
    leapt_from: Option<(u64, Lsn)>,
    /// How long the last frame was.
    last_frame_bytes: u64,
    chunk: Option<Chunk<C>>,
    frame: Option<OpenFrame>,
    skipping: Option<Box<SegmentScan>>,
    /// Where a search for the next good frame ends.
    skip_limit: u64,
    skipped: Option<Hole>,
    /// What seems a frame over the limit.
    long: Option<Long>,
}

/// A frame over the reader's limit, or what seems one.
#[derive(Debug)]
struct Long {
    at: u64,
    bytes: u64,
    state: LongState,
}

#[derive(Debug)]
enum LongState {
    Summing(Box<SegmentScan>),
    Good,
    Bad,
}

#[derive(Debug)]
struct Chunk<C> {
    offset: u64,
    bytes: C,
    /// The file ended in it.
    is_short: bool,
}

/// The frame whose records are being shown. Its bytes are in the chunk.
#[derive(Debug)]
struct OpenFrame {
    start: u64,
    bytes: u64,
    records: Paused,
}

/// What a seek reads at a time until it is there: a record stands within 64 KiB of the index entry
/// before it, and half of that on average.
const SEEK_BYTES: u64 = 32 << 10;
/// A leap's first read: records are often as long as the last one, and if that is not known, most
/// are shorter than this.
const LEAP_BYTES: u64 = 4 << 10;
const LEAP_BYTES_MIN: u64 = 512;

/// What the chunk says of the place where the next frame begins.
enum Look {
    /// A frame, and the LSN that it begins with.
    Frame(Head, Lsn),
    Needs {
        offset: u64,
        bytes: u64,
    },
    NoFrame,
    TooLong(u64),
}

impl<C: AsRef<[u8]>> Cursor<C> {
    /// A cursor at the beginning of `segment`. It asks for `chunk_bytes` at a time, and for more
    /// only where a frame is longer, up to `frame_bytes_max`.
    pub fn new(
        segment: SegmentInfo,
        crc: Crc32cFn,
        chunk_bytes: u64,
        frame_bytes_max: u64,
    ) -> Self {
        let chunk_bytes = chunk_bytes.max(HEAD_BYTES_MAX as u64);
        Self {
            at: FRAMES_OFFSET,
            lsn: segment.first_lsn,
            leapt_from: None,
            last_frame_bytes: 0,
            segment,
            crc,
            chunk_bytes,
            ask_bytes: chunk_bytes,
            frame_bytes_max,
            target: Target::Start,
            chunk: None,
            frame: None,
            skipping: None,
            skip_limit: 0,
            skipped: None,
            long: None,
        }
    }

    /// Goes to another place in the segment. `near` is the start of a frame at or before it and the
    /// LSN that it begins with, from the segment's index; without it the cursor reads from the
    /// beginning.
    ///
    /// To an offset near an entry of the index it leaps: if a good frame begins there, nothing
    /// before is read. It asks for little at first: who wants one record is done with that, and who
    /// reads on is soon given whole chunks.
    pub fn seek(&mut self, target: Target, near: Option<(u64, Lsn)>) {
        (self.at, self.lsn) = near.unwrap_or((FRAMES_OFFSET, self.segment.first_lsn));
        self.target = target;
        self.leapt_from = None;
        let leap_bytes = match self.last_frame_bytes {
            0 => LEAP_BYTES,
            bytes => bytes.saturating_add(64).clamp(LEAP_BYTES_MIN, SEEK_BYTES),
        };
        let ask_bytes = match target {
            Target::Start => self.chunk_bytes,
            Target::Offset(to) if (self.at + 1..self.at + INDEX_STRIDE_BYTES).contains(&to) => {
                self.leapt_from = Some((self.at, self.lsn));
                self.at = to;
                leap_bytes
            }
            Target::Offset(to) if to == self.at => leap_bytes,
            Target::Lsn(_) | Target::Offset(_) => SEEK_BYTES,
        };
        self.ask_bytes = ask_bytes.min(self.chunk_bytes);
        self.frame = None;
        self.skipping = None;
        self.long = None;
    }

    /// Goes on with the beginning of the segment that follows.
    pub fn enter(&mut self, segment: SegmentInfo) {
        self.segment = segment;
        self.chunk = None;
        self.seek(Target::Start, None);
    }

    /// The segment that the cursor is in, as last told.
    pub fn segment(&self) -> &SegmentInfo {
        &self.segment
    }

    /// Tells that the segment has ended, or was cut.
    pub fn set_segment(&mut self, segment: SegmentInfo) {
        self.segment = segment;
    }

    /// The LSN that the next frame begins with.
    pub fn next_lsn(&self) -> Lsn {
        self.lsn
    }

    /// Where the next frame begins.
    pub fn position(&self) -> Position {
        Position::new(self.segment.segment, self.at)
    }

    /// How many bytes of the segment's file are at hand.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk.as_ref().map_or(0, |chunk| chunk.bytes.as_ref().len())
    }

    /// Takes the chunk back, so that its memory can be used again.
    pub fn take_chunk(&mut self) -> Option<C> {
        self.frame = None;
        self.chunk.take().map(|chunk| chunk.bytes)
    }

    /// Takes the bytes of the segment's file from `offset` on; `is_short`: the file ended before as
    /// many were read as had been asked for.
    pub fn fill(&mut self, offset: u64, bytes: C, is_short: bool) {
        if let Some(mut scan) = self.skipping.take() {
            let mut next = None;
            scan.feed(bytes.as_ref(), |found| next = next.or(Some((found.offset, found.lsn))));
            if is_short {
                scan.ends_at(offset + bytes.as_ref().len() as u64);
            }
            if next.is_some() || scan.wants().is_none() {
                self.end_skip(*scan, next);
            } else {
                self.skipping = Some(scan);
            }
        }
        self.chunk = Some(Chunk { offset, bytes, is_short });
        if let Some(long) = &mut self.long {
            long.sum(self.chunk.as_ref());
        }
        let is_on_its_way = match self.target {
            Target::Start => false,
            Target::Lsn(lsn) => self.lsn < lsn,
            Target::Offset(offset) => self.at < offset,
        };
        if !is_on_its_way {
            self.ask_bytes = self.ask_bytes.saturating_mul(4).min(self.chunk_bytes);
        }
    }

    /// After [`Step::Damaged`]: looks for the next good frame up to `limit`.
    pub fn skip_damage(&mut self, limit: u64) {
        self.frame = None;
        self.skip_limit = limit;
        // Behind what was just refused, so that each search gets on.
        let scan = self.scan(self.at.saturating_add(1), limit);
        if scan.wants().is_some() {
            self.skipping = Some(Box::new(scan));
        } else {
            // What was refused is the last byte.
            self.end_skip(scan, None);
        }
    }

    fn scan(&self, offset: u64, limit: u64) -> SegmentScan {
        SegmentScan::new(ScanStart {
            segment: self.segment.segment,
            salt: self.segment.salt,
            checksum: self.segment.checksum,
            earlier: None,
            crc: self.crc,
            offset,
            lsn: self.lsn,
            limit,
            last_lsn: None,
        })
    }

    /// What seems a frame of so many bytes, more than the reader takes whole. Its sum has begun,
    /// with what the chunk has of it.
    fn begin_long(&self, bytes: u64) -> Long {
        let scan = Box::new(self.scan(self.at, self.at.saturating_add(bytes)));
        let mut long = Long { at: self.at, bytes, state: LongState::Summing(scan) };
        long.sum(self.chunk.as_ref());
        long
    }

    /// What is known of a frame over the limit that seems to stand here, if anything.
    fn look_long(&self, limit: u64) -> Option<Look> {
        let long = self.long.as_ref().filter(|long| long.at == self.at)?;
        match &long.state {
            LongState::Summing(scan) => {
                let (offset, bytes) = scan.wants()?;
                Some(Look::Needs { offset, bytes: bytes.min(self.chunk_bytes) })
            }
            LongState::Good if long.bytes <= limit - self.at => Some(Look::TooLong(long.bytes)),
            LongState::Good | LongState::Bad => Some(Look::NoFrame),
        }
    }

    fn end_skip(&mut self, scan: SegmentScan, next: Option<(u64, Lsn)>) {
        let (start, lsn) = (self.at, self.lsn);
        let seen = scan.into_report().holes.first().copied();
        match next {
            Some((offset, lsn)) => (self.at, self.lsn) = (offset, lsn),
            // Nothing good up to the limit; the file may have ended before.
            None => self.at = self.skip_limit,
        }
        let resumes = next.map(|(_, lsn)| lsn);
        let is_zero = seen.is_none_or(|hole| hole.is_zero);
        let (end, stale_from) = (self.at, self.at);
        self.skipped = Some(Hole { start, end, lsn, resumes, is_zero, stale_from });
    }

    /// The next thing to do. `limit`: the offset in this segment up to which frames may be shown.
    pub fn step(&mut self, limit: u64) -> Step<'_, C> {
        if let Some(hole) = self.skipped.take() {
            return Step::Skipped(hole);
        }
        if let Some(scan) = &self.skipping
            && let Some((offset, bytes)) = scan.wants()
        {
            return Step::Read { offset, bytes: bytes.min(self.chunk_bytes) };
        }
        loop {
            if let Some(frame) = &mut self.frame {
                let bytes = slice(self.chunk.as_ref(), frame.start, frame.bytes);
                let (Some(bytes), Some(chunk)) = (bytes, &self.chunk) else {
                    self.frame = None;
                    continue;
                };
                let mut records = frame.records.resume(bytes);
                let item = records.next();
                frame.records = records.pause();
                match item {
                    None => self.frame = None,
                    Some(Ok(record)) if is_past_end(&self.segment, record.lsn) => return Step::End,
                    Some(Ok(record)) if self.target.is_after(&record) => {}
                    Some(Ok(record)) => return Step::Record(record, &chunk.bytes),
                    Some(Err(error)) => {
                        let position = Position::new(self.segment.segment, frame.start);
                        return Step::BadRecord { position, error };
                    }
                }
                continue;
            }
            if self.at >= limit || is_past_end(&self.segment, self.lsn) {
                return Step::End;
            }
            let position = self.position();
            let summed = self.look_long(limit);
            let is_summed = summed.is_some();
            match summed.unwrap_or_else(|| self.look(limit)) {
                Look::Frame(head, lsn) => {
                    self.leapt_from = None;
                    self.last_frame_bytes = head.frame_bytes;
                    self.frame = Some(OpenFrame {
                        start: self.at,
                        bytes: head.frame_bytes,
                        records: head.records(&[], lsn, position).pause(),
                    });
                    self.at += head.frame_bytes;
                    self.lsn = lsn.plus(head.count);
                }
                Look::Needs { offset, bytes } => return Step::Read { offset, bytes },
                refused => {
                    if let Some(start) = self.leapt_from.take() {
                        // The place may be within a frame: goes there frame by frame.
                        (self.at, self.lsn) = start;
                        self.ask_bytes = SEEK_BYTES.min(self.chunk_bytes);
                        continue;
                    }
                    let Look::TooLong(bytes) = refused else {
                        return Step::Damaged { position, lsn: self.lsn };
                    };
                    if is_summed {
                        let limit_bytes = self.frame_bytes_max;
                        return Step::TooLong { position, bytes, limit_bytes };
                    }
                    self.long = Some(self.begin_long(bytes));
                }
            }
        }
    }

    /// Looks at the bytes where the next frame begins.
    fn look(&self, limit: u64) -> Look {
        let left = limit - self.at;
        let is_short = self.chunk.as_ref().is_some_and(|chunk| chunk.is_short);
        let head_bytes = left.min(HEAD_BYTES_MAX as u64);
        // Frames are often as long as the last one: who reads on gets the next with its successor's
        // head.
        let ask_bytes = match self.ask_bytes {
            whole if whole == self.chunk_bytes => {
                whole.max(self.last_frame_bytes.saturating_add(HEAD_BYTES_MAX as u64))
            }
            seeking => seeking,
        };
        let missing = |bytes: u64| {
            if is_short && slice(self.chunk.as_ref(), self.at, 0).is_some() {
                Look::NoFrame
            } else {
                Look::Needs { offset: self.at, bytes: bytes.max(ask_bytes).min(left) }
            }
        };
        let here = slice(self.chunk.as_ref(), self.at, head_bytes);
        // The last frames of a file that ends before the limit may be shorter than the longest
        // head.
        let here = here.or(self.chunk.as_ref().filter(|_| is_short).and_then(|chunk| {
            let start = usize::try_from(self.at.checked_sub(chunk.offset)?).ok()?;
            chunk.bytes.as_ref().get(start..).filter(|rest| !rest.is_empty())
        }));
        let Some(bytes) = here else { return missing(head_bytes) };
        let head = match Head::parse(bytes, self.segment.checksum) {
            Parsed::Head(head) if head.frame_bytes <= left => head,
            _ => return Look::NoFrame,
        };
        let lsn = head.lsn_from(self.lsn);
        if lsn != self.lsn && self.leapt_from.is_none() {
            return Look::NoFrame;
        }
        if head.frame_bytes > self.frame_bytes_max {
            return Look::TooLong(head.frame_bytes);
        }
        let Some(frame) = slice(self.chunk.as_ref(), self.at, head.frame_bytes) else {
            return missing(head.frame_bytes);
        };
        let place =
            Place { salt: self.segment.salt, segment: self.segment.segment, offset: self.at, lsn };
        if head.holds(frame, place, self.segment.checksum, self.crc) {
            Look::Frame(head, lsn)
        } else {
            Look::NoFrame
        }
    }
}

impl Long {
    /// Goes on with the sum, where the chunk has what it wants.
    fn sum<C: AsRef<[u8]>>(&mut self, chunk: Option<&Chunk<C>>) {
        let (LongState::Summing(scan), Some(chunk)) = (&mut self.state, chunk) else { return };
        let from = scan.wants().and_then(|(from, _)| from.checked_sub(chunk.offset));
        let bytes = chunk.bytes.as_ref();
        let here = from.and_then(|from| bytes.get(usize::try_from(from).ok()?..));
        let Some(here) = here else { return };
        let mut is_good = false;
        scan.feed(here, |found| is_good |= found.offset == self.at);
        if chunk.is_short {
            scan.ends_at(chunk.offset.saturating_add(bytes.len() as u64));
        }
        if is_good {
            self.state = LongState::Good;
        } else if scan.is_searching() || scan.wants().is_none() {
            self.state = LongState::Bad;
        }
    }
}

impl Target {
    fn is_after(self, record: &RecordRef<'_>) -> bool {
        match self {
            Self::Start => false,
            Self::Lsn(lsn) => record.lsn < lsn,
            Self::Offset(offset) => record.position.offset < offset,
        }
    }
}

/// Whether `lsn` is not a record of the segment any more.
fn is_past_end(segment: &SegmentInfo, lsn: Lsn) -> bool {
    segment.end.is_some_and(|end| lsn > end.last_lsn)
}

/// The bytes `from..from + bytes` of the file, if the chunk has all of them.
fn slice<C: AsRef<[u8]>>(chunk: Option<&Chunk<C>>, from: u64, bytes: u64) -> Option<&[u8]> {
    let chunk = chunk?;
    let start = usize::try_from(from.checked_sub(chunk.offset)?).ok()?;
    let end = start.checked_add(usize::try_from(bytes).ok()?)?;
    chunk.bytes.as_ref().get(start..end)
}
