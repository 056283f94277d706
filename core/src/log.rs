//! The log: every state it can be in, and every transition.
//!
//! ```text
//!   append ──► batch filling ──► queued ──► Write ──► written ──► Sync ──► durable
//!                                             └── write and sync in one ────┘
//! ```
//!
//! At most two segments are open at a time: the **active** one, at the back, which appends go to,
//! and the one before it, which is **retiring**: its footer is on the way to the disk. All older
//! ones are sealed and durable. The next segment, the **spare**, is made ready in the background.
//!
//! Invariants, which every transition keeps:
//!
//! - `durable <= written <= appended`, and each only grows, but for a rollback (nothing written)
//!   and a truncation (asked for).
//! - Writes to a segment set out only when all writes to the segment before are complete.
//! - A durable write, or a sync, promises no more than was written when it set out.
//! - A segment is rotated into only when the one before the active is sealed, synced and retired.
//! - After the first failed write or sync there are no more commands.
//!
//! What stands here is what changes state. [`commit`] decides on writes and syncs, [`rotate`] on
//! segments, [`retain`] on deletion, truncation and close. [`fast`] is the short way for single
//! records.

mod commit;
mod fast;
mod retain;
mod rotate;

use crate::batch::{Batch, Batches, Buffer};
use crate::command::{Command, CommandId, Done, Lane, Operation, Outcome};
use crate::config::{Config, FsyncPolicy, Level};
use crate::error::{AppendError, Failure, IoError, Poison, RequestError};
use crate::event::{Event, Events};
use crate::id::{LogId, Lsn, Position, SegmentId, Time, Watermark};
use crate::record::Entry;
use crate::wire::checksum::{ChecksumKind, Place};
use crate::wire::frame::{self, Frame};
use crate::wire::header::{Identity, LINK_OFFSET, Link};
use crate::wire::manifest::Manifest;
use crate::wire::name::FileId;
use crate::wire::seal::Index;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use commit::{Flight, Rollback};
use retain::Request;
pub(crate) use retain::durable_place;
use rotate::{Made, NOT_RESERVED, Recyclable, Spare};

pub use rotate::RETRY_AFTER;

/// What a reader needs to know of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentInfo {
    /// Its number.
    pub segment: SegmentId,
    /// Its salt.
    pub salt: u64,
    /// The checksum of its frames.
    pub checksum: ChecksumKind,
    /// The LSN of its first record.
    pub first_lsn: Lsn,
    /// When the log moved into it.
    pub opened: Time,
    /// How it ends; `None` while it may still grow.
    pub end: Option<SegmentEnd>,
}

/// The end of a segment that grows no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentEnd {
    /// Its last record, or the LSN before its first when it has none.
    pub last_lsn: Lsn,
    /// Where its frames end and its footer begins.
    pub frames_end: u64,
    /// Whether a footer may stand there: the file does not end with the frames.
    pub has_footer: bool,
}

/// An append that was taken into the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The LSN of its first record.
    pub first: Lsn,
    /// The LSN of its last record.
    pub last: Lsn,
    /// Where its first record begins.
    pub position: Position,
}

/// Appends that a full disk undid: their records are not in the log, and their LSNs are free again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RolledBack {
    /// The last record that is still in the log.
    pub after: Lsn,
    /// What failed.
    pub failure: Failure,
}

/// A segment that is open.
#[derive(Debug)]
struct Open {
    identity: Identity,
    link: Link,
    /// Since when it has been growing older, by the clock as it is now.
    aged_from: Time,
    /// Whether the link is in a batch, or on the disk.
    is_link_sent: bool,
    /// Where the next frame goes.
    end: u64,
    /// Where the frames with records end; behind it stands a footer once it is sealed.
    frames_end: u64,
    written: Mark,
    synced: Mark,
    /// Up to here its blocks have been written, if only with zeros.
    padded: u64,
    is_syncing: bool,
    /// Up to here the device has been told to begin with what was written.
    written_back: u64,
    is_writing_back: bool,
    /// Up to here its space is reserved; [`NOT_RESERVED`] where it goes without.
    reserved: u64,
    /// More is being reserved, up to here.
    reserving: Option<u64>,
    trim: Step,
    /// The last record, once the segment is sealed.
    sealed: Option<Lsn>,
    index: Index,
}

/// How far a segment has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    offset: u64,
    lsn: Lsn,
}

/// Something that is done once, in the background.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Due,
    Running,
    Done,
}

/// A buffer that came back keeps this much memory at least: a user who appends batches of 1 MiB has
/// no new memory taken for each, and one of 64 MiB is not held on to.
const KEEP_BYTES_MIN: u64 = 4 << 20;

/// What a command that is on its way is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    Batch,
    /// `began`: when it set out, if it covers all that was appended then.
    Sync {
        segment: SegmentId,
        to: Mark,
        began: Option<Time>,
    },
    WriteBack(SegmentId),
    Allocate(SegmentId),
    Trim(SegmentId),
    Spare,
    /// A file that was kept to be recycled goes.
    Discard,
    Rollback,
    Manifest(ManifestFor),
    Request,
}

/// A command that is on its way.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    id: CommandId,
    job: Job,
    operation: Operation,
    file: Option<FileId>,
}

/// Why the manifest is being written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ManifestFor {
    Spare,
    Request,
}

/// A log: the machine that [`Recovery`](crate::recover::Recovery) hands over.
#[derive(Debug)]
pub struct Log<B> {
    config: Config,
    id: LogId,
    salts: Salts,
    now: Time,
    /// How far the time of day is ahead of `now`, in microseconds, modulo 2^64: it may be behind.
    ahead: u64,
    manifest: Manifest,
    manifest_running: Option<Manifest>,
    /// The spare that the manifest does not name yet.
    manifest_due: bool,
    sealed: VecDeque<SegmentInfo>,
    /// One or two, oldest first: a list is looked through faster than a queue.
    open: Vec<Open>,
    spare: Spare,
    /// Whether an append has come that needs the spare.
    is_spare_wanted: bool,
    recyclable: Recyclable,
    next_segment: SegmentId,
    batches: Batches<B>,
    /// A handful, in the order in which they set out.
    flights: Vec<Flight>,
    rollback: Option<Rollback>,
    appended: Watermark,
    written: Watermark,
    durable: Watermark,
    want_written: Lsn,
    want_durable: Lsn,
    unsynced_since: Option<Time>,
    /// Before then nothing is written back.
    write_back_again: Time,
    request: Request<B>,
    /// The segment that a truncation has ended, until it has its footer.
    cut_segment: Option<Open>,
    request_result: Option<Result<(), RequestError>>,
    is_marked: bool,
    is_closed: bool,
    poison: Option<Poison>,
    events: Events,
    segments_version: u64,
    jobs: Vec<UnderWay>,
    next_command: u64,
}

/// What a log begins with.
#[derive(Debug)]
pub(crate) struct Beginning<B> {
    pub(crate) config: Config,
    pub(crate) manifest: Manifest,
    pub(crate) seed: u64,
    pub(crate) now: Time,
    pub(crate) sealed: VecDeque<SegmentInfo>,
    pub(crate) active: Option<ActiveSegment>,
    /// A segment that is ready to be moved into.
    pub(crate) spare: Option<Identity>,
    pub(crate) next_segment: SegmentId,
    pub(crate) last_lsn: Lsn,
    /// Whether the log ends with a mark: it was closed, and nothing came after.
    pub(crate) is_marked: bool,
    pub(crate) buffers: Vec<B>,
}

/// The segment that appends go on in.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    pub(crate) identity: Identity,
    pub(crate) link: Link,
    pub(crate) end: u64,
    pub(crate) file_bytes: u64,
    pub(crate) index: Index,
}

/// Salts of new segments: a stream of numbers from a seed (SplitMix64; Steele, Lea, Flood, 2014).
#[derive(Debug)]
struct Salts(u64);

impl Salts {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// Spreads every bit of `state` over all bits.
pub(crate) const fn mix(state: u64) -> u64 {
    let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl<B: Buffer> Log<B> {
    pub(crate) fn begin(beginning: Beginning<B>) -> Self {
        let Beginning { config, manifest, seed, now, sealed, active, spare, .. } = beginning;
        let last_end = match (&active, sealed.back()) {
            (Some(active), _) => Position::new(active.identity.segment, active.end),
            (None, Some(SegmentInfo { segment, end: Some(end), .. })) => {
                Position::new(*segment, end.frames_end)
            }
            _ => Position::default(),
        };
        let mark = Watermark { lsn: beginning.last_lsn, end: last_end };
        let keep_bytes = config.batch_bytes.max(KEEP_BYTES_MIN);
        let keep_bytes = usize::try_from(keep_bytes).unwrap_or(usize::MAX);
        let mut log = Self {
            id: manifest.log,
            salts: Salts(seed),
            now,
            ahead: 0,
            manifest,
            manifest_running: None,
            manifest_due: false,
            sealed,
            open: Vec::with_capacity(2),
            spare: spare.map_or(Spare::Idle, |spare| Spare::Ready(Made::new(spare, &config))),
            is_spare_wanted: false,
            recyclable: Recyclable::default(),
            next_segment: beginning.next_segment,
            flights: Vec::with_capacity(beginning.buffers.len()),
            batches: Batches::new(beginning.buffers, keep_bytes),
            rollback: None,
            appended: mark,
            written: mark,
            durable: mark,
            want_written: mark.lsn,
            want_durable: mark.lsn,
            unsynced_since: None,
            write_back_again: Time::default(),
            request: Request::Idle,
            cut_segment: None,
            request_result: None,
            is_marked: beginning.is_marked,
            is_closed: false,
            poison: None,
            events: Events::new(),
            segments_version: 1,
            jobs: Vec::with_capacity(16),
            next_command: 1,
            config,
        };
        if let Some(active) = active {
            log.open.push(Open::resumed(active, beginning.last_lsn, now, &log.config));
        }
        log
    }

    /// Takes one record into the log, and wants it to reach `level`. The record is on its way to
    /// the kernel and to the disk as far as commands are run; see [`Log::written`] and
    /// [`Log::durable`].
    ///
    /// # Errors
    /// See [`AppendError`]; nothing of the record is in the log then.
    pub fn append(&mut self, entry: &Entry<'_>, level: Level) -> Result<Appended, AppendError> {
        let frame_bytes = frame::record_frame_bytes_max(entry);
        self.admit(entry.limited_bytes())?;
        let (frame, buffer) = self.reserve(frame_bytes)?;
        let start = buffer.as_ref().len();
        frame.put_record(buffer, entry);
        let written = buffer.as_ref().len() - start;
        Ok(self.take_in(&frame, written as u64, 0, 1, level))
    }

    /// Takes records into the log as one frame: after a crash all of them are there or none.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing of the batch is in the log then.
    pub fn append_batch(
        &mut self,
        entries: &[Entry<'_>],
        level: Level,
    ) -> Result<Appended, AppendError> {
        if entries.is_empty() {
            return Err(AppendError::EmptyBatch);
        }
        for entry in entries {
            self.admit(entry.key.len() as u64 + entry.raw_bytes)?;
        }
        let frame_bytes = frame::batch_frame_bytes_max(entries.iter().copied(), self.time_of_day());
        self.admit(frame_bytes.saturating_sub(frame::HEAD_BYTES_MAX as u64))?;
        let (frame, buffer) = self.reserve(frame_bytes)?;
        let start = buffer.as_ref().len();
        let head_bytes = frame.put_batch(buffer, entries.iter().copied());
        let written = buffer.as_ref().len() - start;
        let count = entries.len() as u64;
        Ok(self.take_in(&frame, written as u64, head_bytes, count, level))
    }

    /// Whether appends are taken at all, and whether one of this size is.
    fn admit(&self, content_bytes: u64) -> Result<(), AppendError> {
        if let Some(poison) = self.poison {
            return Err(AppendError::Poisoned(poison));
        }
        if self.is_closed {
            return Err(AppendError::Closed);
        }
        let limit_bytes = self.config.record_bytes_max;
        if content_bytes > limit_bytes {
            return Err(AppendError::TooLarge { bytes: content_bytes, limit_bytes });
        }
        if self.rollback.is_some() || self.request.blocks_appends() {
            return Err(AppendError::Busy);
        }
        Ok(())
    }

    /// Makes room for a frame: moves into the next segment or takes another buffer where it must.
    fn reserve(&mut self, frame_bytes: u64) -> Result<(Frame, &mut B), AppendError> {
        let fits =
            self.open.last().is_some_and(|active| active.has_room(frame_bytes, &self.config));
        if !fits {
            self.rotate_for_append()?;
        }
        let batch_is_full = self.batches.filling.as_ref().is_some_and(|batch| {
            !batch.is_empty() && batch.bytes() + frame_bytes > self.config.batch_bytes
        });
        if batch_is_full {
            if !self.batches.has_free() {
                return Err(AppendError::Busy);
            }
            self.batches.seal_filling();
        }
        self.fill()?;
        let frame = self.frame();
        match &mut self.batches.filling {
            Some(batch) => Ok((frame, &mut batch.buffer)),
            None => Err(AppendError::Busy),
        }
    }

    /// Sees to it that a batch is being filled. A segment's first batch begins with its link.
    fn fill(&mut self) -> Result<(), AppendError> {
        if self.batches.filling.is_some() {
            return Ok(());
        }
        let active = self.open.last_mut().ok_or(AppendError::Busy)?;
        let mut buffer = self.batches.take_free().ok_or(AppendError::Busy)?;
        let mut offset = active.end;
        if !active.is_link_sent {
            offset = LINK_OFFSET;
            buffer.extend(&active.link.encode(&active.identity, self.config.crc));
            active.is_link_sent = true;
        }
        let last = self.appended.lsn;
        let segment = active.identity.segment;
        self.batches.filling = Some(Batch { buffer, segment, offset, before: last, last });
        Ok(())
    }

    /// How the next frame is to be written.
    fn frame(&self) -> Frame {
        let (segment, salt, checksum, offset) = match self.open.last() {
            Some(Open { identity, end, .. }) => {
                (identity.segment, identity.salt, identity.checksum, *end)
            }
            None => (SegmentId::NONE, 0, self.config.checksum, 0),
        };
        Frame {
            checksum,
            crc: self.config.crc,
            place: Place { salt, segment, offset, lsn: self.appended.lsn.next() },
            durable: self.durable.lsn,
            now: self.time_of_day(),
        }
    }

    /// The time that records and segments are marked with.
    fn time_of_day(&self) -> Time {
        Time::from_micros(self.now.as_micros().wrapping_add(self.ahead))
    }

    /// Counts a frame that was just encoded.
    fn take_in(
        &mut self,
        frame: &Frame,
        frame_bytes: u64,
        head_bytes: u64,
        count: u64,
        level: Level,
    ) -> Appended {
        let Place { segment, offset, lsn: first, .. } = frame.place;
        let last = first.plus(count).previous();
        if let Some(active) = self.open.last_mut() {
            active.end = offset + frame_bytes;
            active.frames_end = active.end;
            if count > 0 {
                active.index.note(first, offset);
            }
        }
        if let Some(batch) = &mut self.batches.filling {
            batch.last = last;
        }
        self.appended = Watermark { lsn: last, end: Position::new(segment, offset + frame_bytes) };
        self.unsynced_since.get_or_insert(self.now);
        self.is_marked = false;
        self.want(last, level);
        Appended { first, last, position: Position::new(segment, offset + head_bytes) }
    }

    /// Wants all records up to `lsn` to reach `level`.
    fn want(&mut self, lsn: Lsn, level: Level) {
        match level {
            Level::Buffered => {}
            Level::Os => self.want_written = self.want_written.max(lsn),
            Level::Disk => self.want_durable = self.want_durable.max(lsn),
        }
    }

    /// Wants everything appended so far to reach `level`, and says up to which LSN that is.
    ///
    /// # Errors
    /// When the log is poisoned or closed.
    pub fn flush(&mut self, level: Level) -> Result<Lsn, AppendError> {
        if let Some(poison) = self.poison {
            return Err(AppendError::Poisoned(poison));
        }
        if self.is_closed {
            return Err(AppendError::Closed);
        }
        let last = self.appended.lsn;
        self.want(last, level);
        Ok(last)
    }

    /// Tells the time, and says whether something has fallen due. It may be the time of day: where
    /// that was set back, what falls due after some time waits for that time again from then on,
    /// and not for the clock to come back to where it was.
    pub fn tick(&mut self, now: Time) -> bool {
        if now < self.now {
            self.set_back(now);
        }
        self.now = now;
        if self.poison.is_some() || self.is_closed {
            return false;
        }
        if self.spare.is_to_be_tried_again(now) {
            self.spare = Spare::Idle;
        }
        let is_past =
            |deadline: Option<Time>| deadline.is_some_and(|deadline| deadline <= self.now);
        let is_sync_due = is_past(self.sync_deadline());
        let is_age_due = is_past(self.age_deadline());
        if is_sync_due {
            self.want_durable = self.appended.lsn;
        }
        if is_age_due {
            self.rotate_for_age();
        }
        is_sync_due || is_age_due
    }

    /// Tells the time of day where [`Log::tick`] is told another, which nobody sets: records with a
    /// TTL are marked with it. It goes on as the other does.
    pub fn tell_time_of_day(&mut self, time_of_day: Time) {
        self.ahead = time_of_day.as_micros().wrapping_sub(self.now.as_micros());
    }

    fn set_back(&mut self, now: Time) {
        self.unsynced_since = self.unsynced_since.map(|since| since.min(now));
        self.write_back_again = self.write_back_again.min(now);
        self.spare.clock_was_set_back(now);
        for open in &mut self.open {
            open.aged_from = open.aged_from.min(now);
        }
    }

    /// When [`Log::tick`] next has something to do, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.poison.is_some() || self.is_closed {
            return None;
        }
        [self.sync_deadline(), self.age_deadline(), self.spare.tried_again()]
            .into_iter()
            .flatten()
            .min()
    }

    fn sync_deadline(&self) -> Option<Time> {
        match self.config.fsync_policy {
            FsyncPolicy::Batch(window) if self.want_durable < self.appended.lsn => {
                self.unsynced_since.map(|since| since.plus(window))
            }
            _ => None,
        }
    }

    /// The next command, from either lane. `None`: there is nothing to do until a completion, a
    /// request or the next deadline.
    pub fn poll_command(&mut self) -> Option<Command<B>> {
        self.poll_lane(Lane::Commit)
            .or_else(|| self.poll_lane(Lane::Background))
            // A request that just found the log quiet may have something to write.
            .or_else(|| self.poll_lane(Lane::Commit))
    }

    /// The next command of one lane.
    pub fn poll_lane(&mut self, lane: Lane) -> Option<Command<B>> {
        if self.poison.is_some() {
            return None;
        }
        match lane {
            Lane::Commit => self.poll_commit(),
            Lane::Background => self.poll_background(),
        }
    }

    fn poll_background(&mut self) -> Option<Command<B>> {
        self.poll_request()
            .or_else(|| self.poll_trim())
            .or_else(|| self.poll_spare())
            .or_else(|| self.poll_write_back())
    }

    /// Takes a command back. Appends that a full disk undid are returned: whoever waits for their
    /// LSNs must be told before anything else is appended.
    ///
    /// What is no command of this log's under way changes nothing.
    pub fn complete(&mut self, done: Done<B>) -> Option<RolledBack> {
        let at = self.jobs.iter().position(|under_way| under_way.id == done.id)?;
        let UnderWay { id, job, operation, file } = self.jobs.swap_remove(at);
        let (result, read) = self.take_buffers(done.outcome);
        let file = file.map(FileId::name);
        let outcome = result.map_err(|error| Failure { operation, file, error });
        match job {
            Job::Batch => self.batch_done(id, outcome),
            Job::Sync { segment, to, began } => self.sync_done(segment, to, began, outcome),
            Job::WriteBack(segment) => self.write_back_done(segment, outcome),
            Job::Allocate(segment) => self.allocate_done(segment, outcome),
            Job::Trim(segment) => self.trim_done(segment, outcome),
            Job::Spare => self.spare_done(outcome),
            Job::Discard => self.discard_done(outcome),
            Job::Rollback => return self.rollback_done(outcome),
            Job::Manifest(purpose) => self.manifest_done(purpose, outcome),
            Job::Request => self.request_done(outcome, read),
        }
        None
    }

    /// Puts a buffer that came back to the others; one that was read into is handed on.
    fn take_buffers(&mut self, outcome: Outcome<B>) -> (Result<(), IoError>, Option<(B, usize)>) {
        match outcome {
            Outcome::Plain(result) => (result, None),
            Outcome::Written(data, result) => {
                if let crate::command::Data::Buffer(buffer) = data {
                    self.batches.give_back(buffer);
                }
                (result, None)
            }
            Outcome::Read(buffer, Ok(bytes)) => (Ok(()), Some((buffer, bytes))),
            Outcome::Read(buffer, Err(error)) => {
                self.batches.give_back(buffer);
                (Err(error), None)
            }
            Outcome::Listed(result) => (result.map(drop), None),
        }
    }

    /// Numbers a command and remembers what it is for.
    fn issue(&mut self, job: Job, operation: Operation, file: Option<FileId>) -> CommandId {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        self.jobs.push(UnderWay { id, job, operation, file });
        id
    }

    /// The first failed write or sync ends everything.
    fn fail(&mut self, failure: Failure) {
        if self.poison.is_none() {
            let poison = Poison(failure);
            self.poison = Some(poison);
            self.events.tell(Event::Poisoned(poison));
            self.batches.discard_unsent();
            self.end_request(Err(RequestError::Poisoned(poison)));
        }
    }

    /// Works out how far everything is written and durable, and tells if more is than before.
    fn raise_watermarks(&mut self) {
        if self.poison.is_some() {
            return;
        }
        let before = self.durable.lsn;
        for open in &self.open {
            if open.written.lsn >= self.written.lsn {
                self.written = open.written.in_segment(open.identity.segment);
            }
            if !(open.sealed.is_some() && open.written.offset == open.end) {
                break;
            }
        }
        for open in &self.open {
            if open.synced.lsn >= self.durable.lsn {
                self.durable = open.synced.in_segment(open.identity.segment);
            }
            if !open.is_retired() {
                break;
            }
        }
        let records = self.durable.lsn.since(before);
        if records > 0 {
            self.events.tell(Event::Synced { lsn: self.durable.lsn, records });
        }
        if self.durable.lsn >= self.appended.lsn {
            self.unsynced_since = None;
        }
        self.retire();
    }

    /// The settings that the log runs with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The log's identity.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// How far records have been taken into memory.
    pub fn appended(&self) -> Watermark {
        self.appended
    }

    /// How far the kernel has them.
    pub fn written(&self) -> Watermark {
        self.written
    }

    /// How far the device has them.
    pub fn durable(&self) -> Watermark {
        self.durable
    }

    /// The first record that is retained; the one to come when there is none.
    pub fn first_lsn(&self) -> Lsn {
        let sealed = self.sealed.front().map(|segment| segment.first_lsn);
        let open = self.open.first().map(|segment| segment.link.first_lsn);
        sealed.or(open).unwrap_or(self.appended.lsn.next())
    }

    /// The first failure, after which nothing is taken any more.
    pub fn poison(&self) -> Option<Poison> {
        self.poison
    }

    /// Whether the log has been closed.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Something that happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// How many events were dropped because nobody took them.
    pub fn events_dropped(&self) -> u64 {
        self.events.dropped()
    }

    /// All segments that hold records or are about to, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = SegmentInfo> + '_ {
        self.sealed.iter().copied().chain(self.open.iter().map(Open::info))
    }

    /// Those that came after `segment` and have ended, oldest first. They are durable, and so are
    /// their footers, but for those that a truncation has left without one.
    pub fn sealed_after(&self, segment: SegmentId) -> impl Iterator<Item = SegmentInfo> + '_ {
        let first = self.sealed.partition_point(|info| info.segment <= segment);
        self.sealed.range(first..).copied()
    }

    /// The last of them, or none.
    pub fn newest_segment(&self) -> SegmentId {
        let open = self.open.last().map(Open::info);
        open.or(self.sealed.back().copied()).map_or(SegmentId::NONE, |info| info.segment)
    }

    /// A frame of an open segment that begins at or before this record, from its index: its offset
    /// and its first LSN. Sealed segments have their index in their footer.
    pub fn frame_before_lsn(&self, segment: SegmentId, lsn: Lsn) -> Option<(u64, Lsn)> {
        let entry = self.open_segment(segment)?.index.before_lsn(lsn)?;
        Some((entry.offset, entry.lsn))
    }

    /// A frame of an open segment that begins at or before this offset, as
    /// [`Log::frame_before_lsn`] gives it.
    pub fn frame_before_offset(&self, segment: SegmentId, offset: u64) -> Option<(u64, Lsn)> {
        let entry = self.open_segment(segment)?.index.before_offset(offset)?;
        Some((entry.offset, entry.lsn))
    }

    /// Changes whenever [`Log::segments`] does.
    pub fn segments_version(&self) -> u64 {
        self.segments_version
    }
}

impl Open {
    fn resumed(active: ActiveSegment, last_lsn: Lsn, now: Time, config: &Config) -> Self {
        let ActiveSegment { identity, link, end, file_bytes, index } = active;
        let mark = Mark { offset: end, lsn: last_lsn };
        Self {
            identity,
            link,
            // The clock may have been set back since.
            aged_from: link.opened.min(now),
            is_link_sent: true,
            end,
            frames_end: end,
            written: mark,
            synced: mark,
            padded: 0,
            is_syncing: false,
            written_back: end,
            is_writing_back: false,
            reserved: if config.preallocate { file_bytes } else { NOT_RESERVED },
            reserving: None,
            trim: Step::Due,
            sealed: None,
            index,
        }
    }

    /// Whether a frame so long has its place here, and the footer behind it.
    fn has_room(&self, frame_bytes: u64, config: &Config) -> bool {
        self.end + frame_bytes + self.index.seal_bytes_max() <= config.segment_bytes_max
    }

    /// Whether it has ended and all of it is durable.
    fn is_retired(&self) -> bool {
        self.sealed.is_some() && self.synced.offset == self.end
    }

    /// Whether a command is on its way that has the device take what was written.
    fn is_on_its_way(&self) -> bool {
        self.is_syncing || self.is_writing_back
    }

    /// Whether a command for it is on its way that its length must not change under, nor its name.
    fn is_busy(&self) -> bool {
        self.is_on_its_way() || self.reserving.is_some()
    }

    fn info(&self) -> SegmentInfo {
        SegmentInfo {
            segment: self.identity.segment,
            salt: self.identity.salt,
            checksum: self.identity.checksum,
            first_lsn: self.link.first_lsn,
            opened: self.link.opened,
            end: self.sealed.map(|last_lsn| SegmentEnd {
                last_lsn,
                frames_end: self.frames_end,
                has_footer: true,
            }),
        }
    }
}

impl Mark {
    fn in_segment(self, segment: SegmentId) -> Watermark {
        Watermark { lsn: self.lsn, end: Position::new(segment, self.offset) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_are_the_numbers_of_splitmix64() {
        // The first numbers of the generator's published code, from the seed 1234567.
        let mut salts = Salts(1_234_567);
        for number in [6_457_827_717_110_365_317, 3_203_168_211_198_807_973] {
            assert_eq!(salts.next(), number);
        }
    }
}
