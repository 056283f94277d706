//! Reading: the core's cursor, fed from files, a page of records at a time.

use crate::execute::io_error;
use crate::folder::{Folder, Refusal, read_all};
use crate::wal::Wal;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use seawall_core::command::Operation;
use seawall_core::compress::Decompressor;
use seawall_core::cursor::{
    Cursor, FOOTER_READ_BYTES, Footer, Start, StartError, Step, Target, footer, holder,
};
use seawall_core::error::Failure;
use seawall_core::id::{Lsn, Position, SegmentId, Time};
use seawall_core::log::SegmentInfo;
use seawall_core::record::{RecordKind, RecordRef};
use seawall_core::wire::name::FileId;
use seawall_core::wire::seal::Index;

/// What a reader is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visibility {
    /// What is durable.
    Durable,
    /// What the kernel has.
    Written,
}

/// What sets a record apart from a plain put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Which record of the page.
    pub index: usize,
    /// Put or delete.
    pub kind: RecordKind,
    /// How long it is good for.
    pub ttl: Option<Duration>,
    /// When it was appended.
    pub written_at: Option<Time>,
}

/// Records of one segment, without gaps in their LSNs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// The LSN of the first; of the record to come when there is none.
    pub first: Lsn,
    /// The segment.
    pub segment: SegmentId,
    /// Where each begins.
    pub offsets: Vec<u64>,
    /// Key, value, key, value.
    pub data: Vec<u8>,
    /// The length of each key and value.
    pub lengths: Vec<u32>,
    /// Of those that are not plain puts.
    pub attributes: Vec<Attributes>,
}

/// Why the next record cannot be given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// It cannot begin there, or no longer.
    Start(StartError),
    /// It has been truncated: the last record is this one.
    Truncated(Lsn),
    /// What stands there is not what was written.
    Damaged(Position),
    /// A frame is longer than the limit.
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A record in a good frame cannot be read; the next call goes on after it.
    Unreadable(Position),
    /// A file cannot be read.
    Io(Failure),
}

/// How much is read at a time: four calls of WASI.
const CHUNK_BYTES: u64 = 256 << 10;
/// What is kept of a record beside its key and value counts as so much: without that a page of
/// records which have neither would have no end.
const RECORD_ROOM_BYTES: u64 = 64;
/// No page is longer, but for one record that is: a component's memory is small.
const PAGE_BYTES_MAX: u64 = 16 << 20;
/// What a frame has beside its records' keys and values, at most, as long as those are few.
const FRAME_ROOM_BYTES: u64 = 1 << 20;

/// Reads the records of a log in order.
pub struct Reader<F: Folder> {
    visibility: Visibility,
    start: Start,
    cursor: Option<Cursor<Vec<u8>>>,
    file: Option<F::File>,
    next_lsn: Lsn,
    segments_version: u64,
    truncations: usize,
    decompressor: Decompressor,
    /// What the next call has to tell.
    pending: Option<ReadError>,
}

impl<F: Folder> core::fmt::Debug for Reader<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reader").field("next_lsn", &self.next_lsn).finish_non_exhaustive()
    }
}

impl<F: Folder> Reader<F> {
    /// A reader that begins at `start`.
    ///
    /// # Errors
    /// When the log does not hold that place, or a file cannot be read.
    pub fn new(wal: &Wal<F>, start: Start, visibility: Visibility) -> Result<Self, ReadError> {
        let mut reader = Self {
            visibility,
            start,
            cursor: None,
            file: None,
            next_lsn: wal.log.first_lsn(),
            segments_version: 0,
            truncations: wal.truncations.len(),
            decompressor: Decompressor::new(),
            pending: None,
        };
        reader.locate(wal)?;
        Ok(reader)
    }

    /// The LSN of the record that comes next.
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// After [`ReadError::Damaged`]: goes on with the next good frame.
    pub fn skip_damage(&mut self, wal: &Wal<F>) {
        let limit = self.limit(wal);
        if let Some(cursor) = &mut self.cursor {
            cursor.skip_damage(limit);
        }
    }

    /// The next records: as many as come to `bytes_max`, and one at least. Key and value count, and
    /// 64 bytes for each record; 16 MiB are the most.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&mut self, wal: &Wal<F>, bytes_max: u64) -> Result<Page, ReadError> {
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        if self.segments_version != wal.log.segments_version() {
            self.look_again(wal)?;
        }
        let mut page = Page { first: self.next_lsn, ..Page::default() };
        loop {
            let limit = self.limit(wal);
            let Some(cursor) = &mut self.cursor else { return Ok(page) };
            let segment = cursor.segment().segment;
            let is_empty = page.offsets.is_empty();
            match cursor.step(limit) {
                Step::Record(record, _) => {
                    if is_empty {
                        (page.first, page.segment) = (record.lsn, segment);
                    }
                    self.next_lsn = record.lsn.next();
                    self.start = Start::Lsn(self.next_lsn);
                    let value_bytes_max = wal.log.config().record_bytes_max;
                    if page.put(&record, &mut self.decompressor, value_bytes_max) {
                        if page.bytes() >= bytes_max.min(PAGE_BYTES_MAX) {
                            return Ok(page);
                        }
                        continue;
                    }
                    self.pending = Some(ReadError::Unreadable(record.position));
                }
                Step::Read { offset, bytes } => {
                    self.fill(offset, bytes)?;
                    continue;
                }
                Step::End => {
                    if is_empty && self.enter_next(wal)? {
                        continue;
                    }
                    page.first = if is_empty { self.next_lsn } else { page.first };
                    return Ok(page);
                }
                Step::Skipped(_) if is_empty => continue,
                // The next call goes on behind it: a page has no gaps.
                Step::Skipped(_) => return Ok(page),
                Step::Damaged { position, .. } => {
                    let error = ReadError::Damaged(position);
                    return if is_empty { Err(error) } else { Ok(page) };
                }
                Step::TooLong { bytes, limit_bytes, .. } => {
                    let error = ReadError::TooLong { bytes, limit_bytes };
                    return if is_empty { Err(error) } else { Ok(page) };
                }
                Step::BadRecord { position, .. } => {
                    self.pending = Some(ReadError::Unreadable(position));
                }
            }
            return match self.pending.take() {
                Some(error) if page.offsets.is_empty() => Err(error),
                pending => {
                    self.pending = pending;
                    Ok(page)
                }
            };
        }
    }

    fn fill(&mut self, offset: u64, bytes: u64) -> Result<(), ReadError> {
        let (Some(cursor), Some(file)) = (&mut self.cursor, &self.file) else { return Ok(()) };
        let segment = cursor.segment().segment;
        let mut buffer = cursor.take_chunk().unwrap_or_default();
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
        buffer.resize(wanted, 0);
        let read =
            read_all(file, &mut buffer, offset).map_err(|refusal| failed(segment, refusal))?;
        buffer.truncate(read);
        cursor.fill(offset, buffer, read < wanted);
        Ok(())
    }

    /// Up to where the cursor's segment may be shown.
    fn limit(&self, wal: &Wal<F>) -> u64 {
        let Some(cursor) = &self.cursor else { return 0 };
        let visible = wal.visible(self.visibility).end;
        let info = cursor.segment();
        let frames_end = info.end.map_or(u64::MAX, |end| end.frames_end);
        match visible.segment.cmp(&info.segment) {
            core::cmp::Ordering::Less => 0,
            core::cmp::Ordering::Equal => visible.offset.min(frames_end),
            core::cmp::Ordering::Greater => info.end.map_or(0, |end| end.frames_end),
        }
    }

    /// Goes into the segment that follows, if the cursor's has ended and been shown whole.
    fn enter_next(&mut self, wal: &Wal<F>) -> Result<bool, ReadError> {
        let limit = self.limit(wal);
        let Some(cursor) = &mut self.cursor else { return Ok(false) };
        let info = *cursor.segment();
        let Some(end) = info.end else { return Ok(false) };
        if limit < end.frames_end && cursor.next_lsn() <= end.last_lsn {
            return Ok(false);
        }
        let mut segments = wal.log.segments();
        let Some(next) = segments.find(|later| later.segment > info.segment) else {
            return Ok(false);
        };
        let opened = wal.executor.open_for_reading(next.segment);
        self.file = Some(opened.map_err(|refusal| failed(next.segment, refusal))?);
        self.next_lsn = self.next_lsn.max(next.first_lsn);
        self.start = Start::Lsn(self.next_lsn);
        cursor.enter(next);
        Ok(true)
    }

    /// Segments came, went or were cut: is what comes next still there?
    fn look_again(&mut self, wal: &Wal<F>) -> Result<(), ReadError> {
        let cuts = wal.truncations.get(self.truncations..).unwrap_or_default();
        let lowest = cuts.iter().min().copied();
        self.truncations = wal.truncations.len();
        if let Some(last) = lowest.filter(|last| self.next_lsn > last.next()) {
            self.next_lsn = last.next();
            self.start = Start::Lsn(self.next_lsn);
            return Err(ReadError::Truncated(last));
        }
        self.locate(wal)
    }

    /// Goes to where reading begins.
    fn locate(&mut self, wal: &Wal<F>) -> Result<(), ReadError> {
        let segments = wal.segments();
        let (first, last) = (wal.log.first_lsn(), wal.log.appended().lsn);
        let index = holder(&segments, self.start, first, last).map_err(ReadError::Start)?;
        self.segments_version = wal.log.segments_version();
        let Some(info) = segments.get(index).copied() else {
            self.cursor = None;
            return Ok(());
        };
        self.next_lsn = match self.start {
            Start::Lsn(lsn) => lsn,
            Start::First | Start::Position(_) => info.first_lsn,
        };
        let opened = wal.executor.open_for_reading(info.segment);
        let file = opened.map_err(|refusal| failed(info.segment, refusal))?;
        let (target, near) = match self.start {
            Start::First => (Target::Start, None),
            Start::Lsn(lsn) => {
                let entry = match find_index(&info, &file, wal)? {
                    Some(index) => index.before_lsn(lsn).map(|entry| (entry.offset, entry.lsn)),
                    None => wal.log.frame_before_lsn(info.segment, lsn),
                };
                (Target::Lsn(lsn), entry)
            }
            Start::Position(at) => {
                let entry = match find_index(&info, &file, wal)? {
                    Some(index) => {
                        index.before_offset(at.offset).map(|entry| (entry.offset, entry.lsn))
                    }
                    None => wal.log.frame_before_offset(info.segment, at.offset),
                };
                (Target::Offset(at.offset), entry)
            }
        };
        let frame_bytes_max = wal.log.config().record_bytes_max.saturating_add(FRAME_ROOM_BYTES);
        let mut cursor = Cursor::new(info, wal.log.config().crc, CHUNK_BYTES, frame_bytes_max);
        cursor.seek(target, near);
        self.cursor = Some(cursor);
        self.file = Some(file);
        Ok(())
    }
}

/// The index in the footer of a sealed segment. A footer that is damaged is done without.
fn find_index<F: Folder>(
    info: &SegmentInfo,
    file: &F::File,
    wal: &Wal<F>,
) -> Result<Option<Index>, ReadError> {
    let Some(end) = info.end.filter(|end| end.has_footer) else { return Ok(None) };
    let mut wanted = FOOTER_READ_BYTES;
    loop {
        let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(0)];
        let read = read_all(file, &mut bytes, end.frames_end)
            .map_err(|refusal| failed(info.segment, refusal))?;
        match footer(info, &end, &bytes[..read], wal.log.config().crc) {
            Footer::Whole(index) => return Ok(Some(index)),
            Footer::Longer(bytes) if bytes > wanted => wanted = bytes,
            Footer::Longer(_) | Footer::Unusable => return Ok(None),
        }
    }
}

fn failed(segment: SegmentId, refusal: Refusal) -> ReadError {
    ReadError::Io(Failure {
        operation: Operation::Read,
        file: Some(FileId::Segment(segment).name()),
        error: io_error(refusal),
    })
}

impl Page {
    /// About how many bytes it takes.
    fn bytes(&self) -> u64 {
        self.data.len() as u64 + self.offsets.len() as u64 * RECORD_ROOM_BYTES
    }

    /// Adds a record. `false`: its value cannot be unpacked.
    fn put(
        &mut self,
        record: &RecordRef<'_>,
        decompressor: &mut Decompressor,
        value_bytes_max: u64,
    ) -> bool {
        let lengths = (u32::try_from(record.key.len()), u32::try_from(record.raw_bytes));
        let (Ok(key_bytes), Ok(value_bytes)) = lengths else { return false };
        let start = self.data.len();
        self.data.extend_from_slice(record.key);
        if record.unpack(decompressor, value_bytes_max, &mut self.data).is_err() {
            self.data.truncate(start);
            return false;
        }
        if record.kind != RecordKind::Put || record.ttl.is_some() {
            self.attributes.push(Attributes {
                index: self.offsets.len(),
                kind: record.kind,
                ttl: record.ttl,
                written_at: record.written_at,
            });
        }
        self.offsets.push(record.position.offset);
        self.lengths.extend([key_bytes, value_bytes]);
        true
    }
}
