//! Reading: a cursor of the core, fed from files or mappings, handing out values without a copy.
//!
//! A reader sees what is durable, so nothing that it has shown is ever taken back by a crash. It
//! has file handles of its own and takes the log's lock only where a segment or what is durable
//! ends, so it never blocks writers. Whether its records have been deleted or truncated is looked
//! at before each one.

use crate::Zstd;
use crate::commit::Engine;
use crate::config::WalConfig;
use crate::error::Error;
use crate::execute::Executor;
use crate::inspect::Seen;
use crate::sys;
use crate::visited::{AtHand, Content, Footing, Visited};
use bytes::{Bytes, BytesMut};
use seawall_core::compress::{Compression, Decompressor};
use seawall_core::cursor::{
    Cursor, FOOTER_READ_BYTES, Footer, Start, Step, Target, footer, holder,
};
use seawall_core::id::{Lsn, Position, SegmentId, Time, Watermark};
use seawall_core::log::SegmentInfo;
use seawall_core::record::{RecordKind, RecordRef};
use seawall_core::wire::name::FileId;
use seawall_core::wire::seal::Index;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A record that was read. Key and value share the memory that they were read into, and hold all of
/// it, as a rule `WalConfig::read_size`: who keeps a few of many records for long copies them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number.
    pub lsn: Lsn,
    /// Put or delete.
    pub kind: RecordKind,
    /// Its key.
    pub key: Bytes,
    /// Its value, unpacked.
    pub value: Bytes,
    /// When it was appended, to the millisecond; kept only for records with a TTL.
    pub written_at: Option<Time>,
    /// How long it is good for from then on, rounded down to the millisecond.
    pub ttl: Option<Duration>,
}

impl Entry {
    /// When it was appended, as the standard library has it.
    pub fn written_at_time(&self) -> Option<SystemTime> {
        let micros = self.written_at?.as_micros();
        UNIX_EPOCH.checked_add(Duration::from_micros(micros))
    }

    /// Whether the record had outlived its TTL at `now`. One without a TTL never has. The log
    /// itself never drops a record for it.
    pub fn is_expired_at(&self, now: SystemTime) -> bool {
        let (Some(written_at), Some(ttl)) = (self.written_at, self.ttl) else { return false };
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        Time::from_micros(micros) >= written_at.plus(ttl)
    }
}

/// What a reader is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Visibility {
    /// Records that are durable: no crash takes back what was shown.
    #[default]
    Durable,
    /// Records that the kernel has: the loss of power may take back what was shown.
    Written,
}

/// Where a reader's segments come from.
#[derive(Clone)]
pub(crate) enum Source {
    Live(Arc<Engine>),
    /// A log that another process may be writing.
    Folder(Arc<Folder>),
}

/// A log's folder, opened to read.
pub(crate) struct Folder {
    pub(crate) config: WalConfig,
    /// See [`sys::forks`].
    pub(crate) forks: u64,
    pub(crate) executor: Executor,
    pub(crate) seen: Mutex<Seen>,
    pub(crate) visited: Visited,
    /// Held by who looks whether there is more: one at a time.
    pub(crate) look: Mutex<()>,
}

impl Source {
    pub(crate) fn config(&self) -> &WalConfig {
        match self {
            Self::Live(engine) => &engine.config,
            Self::Folder(folder) => &folder.config,
        }
    }

    fn executor(&self) -> &Executor {
        match self {
            Self::Live(engine) => &engine.executor,
            Self::Folder(folder) => &folder.executor,
        }
    }

    fn visited(&self) -> &Visited {
        match self {
            Self::Live(engine) => &engine.visited,
            Self::Folder(folder) => &folder.visited,
        }
    }

    /// The segments, and the first record that is retained.
    fn segments(&self) -> (Vec<SegmentInfo>, Lsn) {
        match self {
            Self::Live(engine) => engine.segments(),
            Self::Folder(folder) => {
                let seen = folder.seen();
                let view = &seen.view;
                let first = view.segments.first().map(|info| info.first_lsn);
                (view.segments.clone(), first.unwrap_or(view.end.lsn.next()))
            }
        }
    }

    /// Whether this process may look at what the source is of.
    fn check(&self) -> Result<(), Error> {
        match self {
            Self::Live(engine) => engine.refuse_forked(),
            Self::Folder(folder) => folder.refuse_forked(),
        }
    }

    /// How far may be shown.
    fn visible(&self, visibility: Visibility) -> Watermark {
        match (self, visibility) {
            (Self::Live(engine), Visibility::Durable) => engine.durable(),
            (Self::Live(engine), Visibility::Written) => engine.written(),
            (Self::Folder(folder), _) => folder.seen().view.end,
        }
    }

    /// How far may be shown, and the last record appended.
    fn end(&self, visibility: Visibility) -> (Watermark, Lsn) {
        let visible = self.visible(visibility);
        match self {
            Self::Live(engine) => (visible, engine.appended().lsn),
            Self::Folder(_) => (visible, visible.lsn),
        }
    }
}

impl Folder {
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In a process that was forked off, threads that readers wait for are no more.
    pub(crate) fn refuse_forked(&self) -> Result<(), Error> {
        if sys::is_forked_since(self.forks) { Err(Error::Forked) } else { Ok(()) }
    }
}

/// What a reader does next.
pub(crate) enum Advance {
    Record(Entry, Position),
    /// Nothing more for now.
    End,
    /// Bytes are wanted; they may be read on another thread.
    Read(ReadJob),
}

/// Bytes to be read.
pub(crate) struct ReadJob {
    pub(crate) file: Arc<File>,
    pub(crate) segment: SegmentId,
    pub(crate) offset: u64,
    pub(crate) bytes: usize,
    /// Up to here the segment may be shown by now.
    pub(crate) limit: u64,
    /// To be used again.
    memory: BytesMut,
}

/// Bytes that were read.
pub(crate) struct ReadDone {
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    /// The file ended in them.
    pub(crate) is_short: bool,
}

impl ReadDone {
    /// Where they end.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// To read more than this is work for a thread that may wait.
const SHORT_READ_BYTES: usize = 64 << 10;

impl ReadJob {
    /// Reads little that is in memory, so that a task need not go to another thread for it. Any
    /// other job comes back.
    pub(crate) fn run_at_once(mut self) -> Result<ReadDone, Self> {
        if self.bytes > SHORT_READ_BYTES {
            return Err(self);
        }
        self.memory.resize(self.bytes, 0);
        if !sys::read_cached(&self.file, &mut self.memory, self.offset) {
            return Err(self);
        }
        Ok(ReadDone { offset: self.offset, bytes: self.memory.freeze(), is_short: false })
    }

    pub(crate) fn run(mut self) -> Result<ReadDone, Error> {
        self.memory.resize(self.bytes, 0);
        let read = sys::read_at(&self.file, &mut self.memory, self.offset)
            .map_err(|error| unread(self.segment, self.offset, error))?;
        self.memory.truncate(read);
        let bytes = self.memory.freeze();
        Ok(ReadDone { offset: self.offset, bytes, is_short: read < self.bytes })
    }
}

pub(crate) fn unread(segment: SegmentId, offset: u64, error: io::Error) -> Error {
    Error::Io { what: format!("read {} at offset {offset}", FileId::Segment(segment)), error }
}

/// The frames of a segment, mapped, and the file by which they are held: not everywhere does a
/// mapping keep its lock. On overlayfs, which most containers run on, it is one of the file below.
struct Mapped<M> {
    mapping: M,
    _file: Arc<File>,
}

impl<M: AsRef<[u8]>> AsRef<[u8]> for Mapped<M> {
    fn as_ref(&self) -> &[u8] {
        self.mapping.as_ref()
    }
}

/// So much of a mapping is brought in at a time, in bytes.
const MAPPED_CHUNK_BYTES: u64 = 1 << 20;

/// The segments of a log, and where among them a reader is.
struct Segments {
    all: Vec<SegmentInfo>,
    /// The first record that is retained.
    first_lsn: Lsn,
    /// The one that follows the cursor's.
    next: usize,
    /// Which they are, from before: see [`Visited`].
    version: u64,
}

impl Segments {
    fn of(source: &Source) -> Self {
        let version = source.visited().version();
        let (all, first_lsn) = source.segments();
        Self { all, first_lsn, next: 0, version }
    }

    /// Which of them holds the record.
    fn holder(&self, start: Start, last: Lsn) -> Result<usize, Error> {
        holder(&self.all, start, self.first_lsn, last).map_err(Error::from_start)
    }

    /// The next one; the one after it is the next then.
    fn step(&mut self) -> Option<SegmentInfo> {
        let info = self.all.get(self.next).copied()?;
        self.next += 1;
        Some(info)
    }
}

/// The part of a reader that blocking and async have in common.
pub(crate) struct Reading {
    source: Source,
    visibility: Visibility,
    cursor: Cursor<Bytes>,
    /// What is at hand of the cursor's segment.
    at_hand: AtHand,
    /// The log's segments as it was last told of them.
    segments: Segments,
    /// Up to here the cursor's segment may be shown.
    limit: u64,
    /// The last record that could be shown when that was looked at.
    visible: Lsn,
    /// The record that comes next, if it is still there; of one that was asked for by its position
    /// no more than where its segment begins, until it is read.
    next_lsn: Lsn,
    decompressor: Decompressor<Zstd>,
    /// There is no segment yet to begin in.
    waits_for_segment: bool,
}

impl Reading {
    pub(crate) fn new(source: Source, start: Start, visibility: Visibility) -> Result<Self, Error> {
        let mut reading = Self::nowhere(source, visibility);
        reading.seek(start)?;
        Ok(reading)
    }

    /// One that has to be told where to begin.
    pub(crate) fn nowhere(source: Source, visibility: Visibility) -> Self {
        let config = source.config();
        let longest = config.max_segment_size.max(config.max_record_size);
        let frame_bytes_max = longest.saturating_add(1 << 20);
        let blank = SegmentInfo {
            segment: SegmentId::NONE,
            salt: 0,
            checksum: config.checksum,
            first_lsn: Lsn::ZERO,
            opened: Time::default(),
            end: None,
        };
        let crc = sys::fastest_crc32c();
        Self {
            visibility,
            cursor: Cursor::new(blank, crc, config.read_size, frame_bytes_max),
            at_hand: AtHand::default(),
            segments: Segments::of(&source),
            limit: 0,
            visible: Lsn::ZERO,
            next_lsn: Lsn::ZERO,
            decompressor: Decompressor::default(),
            waits_for_segment: true,
            source,
        }
    }

    /// Goes to another record. What is open of a segment stays open if it is in there.
    pub(crate) fn seek(&mut self, start: Start) -> Result<(), Error> {
        self.source.check()?;
        let start = self.without_end(start);
        if !self.is_at_hand(start) {
            self.find(start)?;
        }
        let info = *self.cursor.segment();
        self.next_lsn = match start {
            Start::Lsn(lsn) => lsn,
            Start::First | Start::Position(_) => info.first_lsn,
        };
        if !self.waits_for_segment {
            self.go_to(&info, start)?;
        }
        Ok(())
    }

    /// The end of what may be shown is where the record to come will be, whatever its position.
    fn without_end(&self, start: Start) -> Start {
        let Start::Position(at) = start else { return start };
        let visible = self.source.visible(self.visibility);
        if at == visible.end { Start::Lsn(visible.lsn.next()) } else { start }
    }

    /// Whether the record is in the cursor's segment for certain.
    fn is_at_hand(&self, start: Start) -> bool {
        if self.waits_for_segment || self.has_to_look() {
            return false;
        }
        let info = self.cursor.segment();
        let last_lsn = match info.end {
            Some(end) => end.last_lsn,
            None => {
                let visible = self.source.visible(self.visibility);
                if visible.end.segment != info.segment {
                    return false;
                }
                visible.lsn
            }
        };
        match start {
            Start::First => false,
            Start::Lsn(lsn) => (info.first_lsn..=last_lsn).contains(&lsn),
            Start::Position(at) => at.segment == info.segment,
        }
    }

    /// Whether [`seek`](Self::seek) reads nothing.
    pub(crate) fn seeks_at_once(&self, start: Start) -> bool {
        let has_footer = |info: &SegmentInfo| info.end.is_some_and(|end| end.has_footer);
        if start == Start::First || self.source.check().is_err() {
            return true;
        }
        if self.is_at_hand(start) {
            return !self.at_hand.index.is_due() || !has_footer(self.cursor.segment());
        }
        if !self.knows_segments() {
            return false;
        }
        let (_, last) = self.source.end(self.visibility);
        let holder = self.segments.holder(start, last).ok();
        let info = holder.and_then(|at| self.segments.all.get(at));
        info.is_some_and(|info| !has_footer(info) || self.source.visited().find(info).is_some())
    }

    /// Whether the segments are still those that it was told of.
    fn knows_segments(&self) -> bool {
        self.segments.version == self.source.visited().version()
    }

    /// Whether it is to look again before the next record. Who reads a folder is told when.
    fn has_to_look(&self) -> bool {
        matches!(self.source, Source::Live(_)) && !self.knows_segments()
    }

    /// Finds the segment that holds the record, and enters it.
    fn find(&mut self, start: Start) -> Result<(), Error> {
        let (visible, last) = self.source.end(self.visibility);
        if self.knows_segments() {
            self.segments.next = self.segments.holder(start, last)?;
        } else {
            let mut segments = Segments::of(&self.source);
            segments.next = segments.holder(start, last)?;
            self.segments = segments;
        }
        let Some(info) = self.segments.step() else {
            let nowhere =
                SegmentInfo { first_lsn: self.segments.first_lsn, ..*self.cursor.segment() };
            self.cursor.set_segment(nowhere);
            return Ok(());
        };
        self.waits_for_segment = false;
        if info != *self.cursor.segment() {
            self.enter(info, visible);
            self.at_hand = self.source.visited().find(&info).unwrap_or_default();
        }
        Ok(())
    }

    /// The record that comes next.
    pub(crate) fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// Whether more may come.
    pub(crate) fn is_of_open_log(&self) -> bool {
        matches!(&self.source, Source::Live(engine) if engine.is_open())
    }

    /// More than this has to be visible before there is another record.
    pub(crate) fn waits_behind(&self) -> Lsn {
        self.visible.max(self.next_lsn.previous())
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn visibility(&self) -> Visibility {
        self.visibility
    }

    /// Goes to the record within the cursor's segment.
    fn go_to(&mut self, info: &SegmentInfo, start: Start) -> Result<(), Error> {
        if self.at_hand.index.is_due() && start != Start::First {
            // Should the footer not be read, this is right as well.
            let target = match start {
                Start::Lsn(lsn) => Target::Lsn(lsn),
                Start::First | Start::Position(_) => Target::Start,
            };
            self.cursor.seek(target, None);
            let index = self.footer(info)?.map(Arc::new);
            self.at_hand.index = index.map_or(Footing::Without, Footing::Index);
            if self.at_hand.content.is_some() && self.is_complete() {
                self.source.visited().keep(self.segments.version, *info, self.at_hand.clone());
            }
        }
        let index = match &self.at_hand.index {
            Footing::Index(index) => Some(&**index),
            Footing::NotRead | Footing::Without => None,
        };
        let (target, near) = match (start, &self.source) {
            (Start::Lsn(lsn), Source::Live(engine)) if index.is_none() => {
                (Target::Lsn(lsn), engine.frame_before_lsn(info.segment, lsn))
            }
            (Start::Position(at), Source::Live(engine))
                if index.is_none() && at.segment == info.segment =>
            {
                (Target::Offset(at.offset), engine.frame_before_offset(at))
            }
            (Start::Lsn(lsn), _) => {
                let entry = index.and_then(|index| index.before_lsn(lsn));
                (Target::Lsn(lsn), entry.map(|entry| (entry.offset, entry.lsn)))
            }
            (Start::Position(at), _) if at.segment == info.segment => {
                let entry = index.and_then(|index| index.before_offset(at.offset));
                (Target::Offset(at.offset), entry.map(|entry| (entry.offset, entry.lsn)))
            }
            (Start::First | Start::Position(_), _) => (Target::Start, None),
        };
        self.cursor.seek(target, near);
        Ok(())
    }

    /// The index in the footer of a sealed segment. A footer that is damaged is done without.
    fn footer(&mut self, info: &SegmentInfo) -> Result<Option<Index>, Error> {
        if info.end.is_none_or(|end| !end.has_footer) {
            return Ok(None);
        }
        let file = match &self.at_hand.content {
            Some(Content::File(file)) => file.clone(),
            Some(Content::Mapped(_)) => self.open(info)?,
            None => {
                let file = self.open(info)?;
                self.at_hand.content = Some(self.content_of(file.clone())?);
                file
            }
        };
        let what = || format!("read the footer of {}", FileId::Segment(info.segment));
        index_of(&file, info).map_err(Error::io(what()))
    }

    fn open(&self, info: &SegmentInfo) -> Result<Arc<File>, Error> {
        let opened = self.source.executor().open_for_reading(info.segment);
        opened.map_err(|error| {
            let (_, first) = self.source.segments();
            if error.kind() == io::ErrorKind::NotFound && info.first_lsn < first {
                return Error::Deleted { lsn: info.first_lsn, first };
            }
            Error::Io { what: format!("open {}", FileId::Segment(info.segment)), error }
        })
    }

    /// The frames of the cursor's segment, mapped where that is asked for.
    fn content_of(&self, file: Arc<File>) -> Result<Content, Error> {
        let info = self.cursor.segment();
        let end = info.end.filter(|_| self.source.config().map_sealed && self.is_complete());
        if let Some(length) = end.and_then(|end| usize::try_from(end.frames_end).ok())
            && let Some(mapping) = sys::map_read_only(&file, length)
                .map_err(Error::io(format!("map {}", FileId::Segment(info.segment))))?
        {
            return Ok(Content::Mapped(Bytes::from_owner(Mapped { mapping, _file: file })));
        }
        sys::advise(&file, sys::Readahead::Most);
        Ok(Content::File(file))
    }

    /// Whether the cursor's segment has ended, and all of it is visible: one that was sealed just
    /// now may still be on its way to the disk.
    fn is_complete(&self) -> bool {
        self.cursor.segment().end.is_some_and(|end| self.limit >= end.frames_end)
    }

    /// The next record, or what has to be done before.
    pub(crate) fn advance(&mut self) -> Result<Advance, Error> {
        self.source.check()?;
        loop {
            if self.has_to_look() {
                self.look_again()?;
            }
            if self.waits_for_segment {
                return Ok(Advance::End);
            }
            if self.at_hand.content.is_none() {
                let file = self.open(self.cursor.segment())?;
                self.at_hand.content = Some(self.content_of(file)?);
            }
            match self.cursor.step(self.limit) {
                Step::Record(record, chunk) => {
                    let limit = self.source.config().max_segment_size.max(VALUE_BYTES_MAX);
                    let position = record.position;
                    self.next_lsn = record.lsn.next();
                    let entry = entry_of(&record, chunk, &mut self.decompressor, limit)?;
                    return Ok(Advance::Record(entry, position));
                }
                Step::Read { offset, bytes } => {
                    if let Some(job) = self.read_job(offset, bytes)? {
                        return Ok(Advance::Read(job));
                    }
                }
                Step::End => {
                    self.next_lsn = self.next_lsn.max(self.cursor.next_lsn());
                    if !self.go_on()? {
                        return Ok(Advance::End);
                    }
                }
                Step::Damaged { position, lsn } => {
                    return Err(Error::Damaged { position, lsn });
                }
                Step::Skipped(_) => {}
                Step::TooLong { position, bytes, limit_bytes } => {
                    return Err(Error::FrameTooLong { position, bytes, limit_bytes });
                }
                Step::BadRecord { position, error } => {
                    return Err(Error::Unreadable { position, error });
                }
            }
        }
    }

    /// After [`Error::Damaged`]: goes on with the next good frame of the segment, or with the next
    /// segment.
    pub(crate) fn skip_damage(&mut self) {
        self.cursor.skip_damage(self.limit);
    }

    /// What to read; `None` where the bytes are mapped and have been handed over.
    fn read_job(&mut self, offset: u64, bytes: u64) -> Result<Option<ReadJob>, Error> {
        match &self.at_hand.content {
            Some(Content::Mapped(mapped)) => {
                // A small read is a seek's, and most of those want one record.
                let is_seek = bytes < self.source.config().read_size;
                let bytes = if is_seek { bytes } else { bytes.max(MAPPED_CHUNK_BYTES) };
                let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
                let start = place(offset).min(mapped.len());
                let end = place(offset.saturating_add(bytes)).min(mapped.len());
                let chunk = mapped.slice(start..end);
                let segment = self.cursor.segment().segment;
                sys::bring_in(&chunk).map_err(|error| unread(segment, offset, error))?;
                self.cursor.fill(offset, chunk, end == mapped.len());
                Ok(None)
            }
            Some(Content::File(file)) => {
                let length = usize::try_from(bytes).unwrap_or(0);
                // The memory of the last chunk serves again unless a record of it is still held, or
                // far less is wanted: who follows may hold it for long.
                let last = self.cursor.take_chunk().and_then(|chunk| chunk.try_into_mut().ok());
                let last = last.filter(|memory| {
                    memory.capacity() <= length.max(RESTING_BYTES_MAX).saturating_mul(2)
                });
                Ok(Some(ReadJob {
                    file: file.clone(),
                    segment: self.cursor.segment().segment,
                    offset,
                    bytes: length,
                    limit: self.limit,
                    memory: last.unwrap_or_default(),
                }))
            }
            None => Ok(None),
        }
    }

    /// Lets go of what has been read and shown, before what may be a long wait. What is short
    /// stays: who follows closely needs its memory again soon.
    pub(crate) fn rest(&mut self) {
        if self.cursor.chunk_bytes() > RESTING_BYTES_MAX {
            self.cursor.take_chunk();
        }
    }

    pub(crate) fn provide(&mut self, done: ReadDone) {
        self.cursor.fill(done.offset, done.bytes, done.is_short);
    }

    /// Begins with the first of the segments, or waits until there is one.
    fn enter_first(&mut self) {
        self.segments.next = 0;
        if let Some(info) = self.segments.step() {
            self.waits_for_segment = false;
            self.enter(info, self.source.end(self.visibility).0);
        }
    }

    /// Segments came, went or were cut: is what comes next still there?
    fn look_again(&mut self) -> Result<(), Error> {
        self.source.check()?;
        self.segments = Segments::of(&self.source);
        let Segments { all, first_lsn: first, .. } = &self.segments;
        let (next_lsn, first) = (self.next_lsn, *first);
        let current = self.cursor.segment().segment;
        if self.waits_for_segment {
            self.enter_first();
            return Ok(());
        }
        let next = all.partition_point(|info| info.segment <= current);
        let found = next.checked_sub(1).map(|at| all[at]).filter(|info| info.segment == current);
        self.segments.next = next;
        let Some(info) = found else {
            if next_lsn < first {
                return Err(Error::Deleted { lsn: next_lsn, first });
            }
            let follows = self.segments.all.first().is_some_and(|info| info.segment > current);
            if next_lsn > first || !follows {
                return Err(Error::Truncated { last: self.source.end(self.visibility).1 });
            }
            // All of the segment had been read when it was deleted.
            self.enter_first();
            return Ok(());
        };
        if info.end != self.cursor.segment().end {
            let (_, last) = self.source.end(self.visibility);
            if next_lsn > last.next() {
                return Err(Error::Truncated { last });
            }
            self.cursor.set_segment(info);
            self.at_hand.index = Footing::NotRead;
        }
        self.limit = self.limit_now();
        Ok(())
    }

    fn limit_now(&mut self) -> u64 {
        let visible = self.source.visible(self.visibility);
        self.visible = visible.lsn;
        self.limit_at(visible)
    }

    fn limit_at(&self, visible: Watermark) -> u64 {
        let info = self.cursor.segment();
        let frames_end = info.end.map_or(u64::MAX, |end| end.frames_end);
        match visible.end.segment.cmp(&info.segment) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => visible.end.offset.min(frames_end),
            std::cmp::Ordering::Greater => info.end.map_or(self.limit, |end| end.frames_end),
        }
    }

    /// Sees whether more may be shown by now, here or in the next segment. It decides all by one
    /// look at the end: between two the segment may have ended.
    fn go_on(&mut self) -> Result<bool, Error> {
        let visible = self.source.visible(self.visibility);
        self.visible = visible.lsn;
        let current = self.cursor.segment();
        if visible.end.segment > current.segment && current.end.is_none() {
            // The log has moved on since its segments were last looked at.
            self.look_again()?;
            return Ok(self.cursor.segment().end.is_some());
        }
        let limit = self.limit_at(visible);
        if limit > self.limit {
            self.limit = limit;
            return Ok(true);
        }
        let has_ended =
            self.cursor.segment().end.is_some_and(|end| {
                limit >= end.frames_end || self.cursor.next_lsn() > end.last_lsn
            });
        if !has_ended || visible.end.segment <= self.cursor.segment().segment {
            return Ok(false);
        }
        match self.segments.step() {
            Some(info) => {
                self.enter(info, visible);
                Ok(true)
            }
            None => {
                self.look_again()?;
                Ok(self.segments.next < self.segments.all.len())
            }
        }
    }

    /// Enters a segment, with a handle of its own: who reads on is not to share what the kernel
    /// knows of where he reads.
    fn enter(&mut self, info: SegmentInfo, visible: Watermark) {
        self.at_hand = AtHand::default();
        self.cursor.enter(info);
        self.limit = 0;
        self.limit = self.limit_at(visible);
    }

    /// A folder's view has been renewed.
    pub(crate) fn renew(&mut self) -> Result<(), Error> {
        self.look_again()
    }
}

/// A reader that waits keeps a chunk of so many bytes at most.
const RESTING_BYTES_MAX: usize = 16 << 10;

/// No value unpacks to more, unless a segment may be larger.
pub(crate) const VALUE_BYTES_MAX: u64 = 1 << 30;

/// The index in the footer of a sealed segment. `None`: there is no footer, or none that is whole.
pub(crate) fn index_of(file: &File, info: &SegmentInfo) -> io::Result<Option<Index>> {
    let Some(end) = info.end.filter(|end| end.has_footer) else { return Ok(None) };
    let mut bytes = Vec::new();
    let mut wanted = FOOTER_READ_BYTES;
    loop {
        bytes.resize(usize::try_from(wanted).unwrap_or(0), 0);
        let read = sys::read_at(file, &mut bytes, end.frames_end)?;
        match footer(info, &end, &bytes[..read], sys::fastest_crc32c()) {
            Footer::Whole(index) => return Ok(Some(index)),
            Footer::Longer(bytes) if bytes > wanted => wanted = bytes,
            Footer::Longer(_) | Footer::Unusable => return Ok(None),
        }
    }
}

/// Where the record `lsn` begins, which is in the frame `near` or behind it: behind a hole, where a
/// log was salvaged. Without `near` it is looked for by its number. `None`: its frame is longer
/// than the settings allow, or of a kind that this build does not know.
pub(crate) fn position_of(
    source: Source,
    lsn: Lsn,
    near: Option<Position>,
) -> Result<Option<Position>, Error> {
    let start = near.map_or(Start::Lsn(lsn), Start::Position);
    let mut reading = Reading::new(source, start, Visibility::Durable)?;
    loop {
        match reading.advance() {
            Ok(Advance::Record(entry, _)) if entry.lsn < lsn => {}
            Ok(Advance::Record(_, position)) => return Ok(Some(position)),
            Ok(Advance::Read(job)) => reading.provide(job.run()?),
            Err(Error::Damaged { .. }) => reading.skip_damage(),
            // It has its place all the same.
            Err(Error::Decompress { position, .. }) if reading.next_lsn() > lsn => {
                return Ok(Some(position));
            }
            Err(Error::Decompress { .. } | Error::Unreadable { .. }) => {}
            Ok(Advance::End) | Err(Error::FrameTooLong { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// The record with its key and value as parts of the chunk, or unpacked.
pub(crate) fn entry_of(
    record: &RecordRef<'_>,
    chunk: &Bytes,
    decompressor: &mut Decompressor<Zstd>,
    limit_bytes: u64,
) -> Result<Entry, Error> {
    let value = if record.codec == Compression::None {
        chunk.slice_ref(record.stored)
    } else {
        let mut value = Vec::new();
        let unpacked = record.unpack(decompressor, limit_bytes, &mut value);
        unpacked.map_err(|error| Error::Decompress { position: record.position, error })?;
        Bytes::from(value)
    };
    Ok(Entry {
        lsn: record.lsn,
        kind: record.kind,
        key: chunk.slice_ref(record.key),
        value,
        written_at: record.written_at,
        ttl: record.ttl,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocking::Wal;
    use crate::{FsyncPolicy, Record, WalConfig};

    #[test]
    fn a_segment_that_ends_between_two_looks_is_not_the_logs_end() {
        let temp = tempfile::tempdir().unwrap();
        let config = WalConfig {
            fsync_policy: FsyncPolicy::Always,
            max_segment_size: 4 << 10,
            max_record_size: 2 << 10,
            batch_size: 4 << 10,
            ..WalConfig::in_dir(temp.path())
        };
        let (wal, _) = Wal::open(config).unwrap();
        let append = || wal.append(&Record::put(b"k", &[1; 1_500])).unwrap();
        append();
        let source = Source::Live(wal.engine().clone());
        let mut reading = Reading::new(source, Start::First, Visibility::Durable).unwrap();
        let next = |reading: &mut Reading| loop {
            match reading.advance().unwrap() {
                Advance::Record(entry, _) => return Some(entry.lsn),
                Advance::Read(job) => reading.provide(job.run().unwrap()),
                Advance::End => return None,
            }
        };
        assert_eq!(next(&mut reading), Some(Lsn::new(1)));
        assert_eq!(next(&mut reading), None);
        // Segments end behind the look at whether there are others, and before that at the end.
        for _ in 2..8 {
            append();
        }
        assert!(wal.stats().segments.len() > 2);
        assert!(reading.go_on().unwrap(), "7 are durable, and it says that 1 is all");
        for lsn in 2..8 {
            assert_eq!(next(&mut reading), Some(Lsn::new(lsn)));
        }
        wal.close().unwrap();
    }
}
