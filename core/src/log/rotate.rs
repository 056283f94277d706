//! Segments: the next one made ready ahead of need, and the switch to it.
//!
//! ```text
//!   create x.wal.new ─► reserve ─► write identity ─► sync ─► rename x.wal ─► sync folder ─► ready
//! ```
//!
//! Instead of creating a file, that of a deleted segment may be taken: its blocks are written, and
//! often its pages in memory.
//!
//! ```text
//!   rename w.wal x.wal.new ─► sync folder ─► write identity, and zeros over the link ─► as above
//! ```
//!
//! A file with a final name therefore always has a whole identity. Moving in is bookkeeping: the
//! old segment's footer goes with its last batch, the new one's link with its first.

use super::{Job, Log, ManifestFor, Mark, Open, SegmentInfo, Step};
use crate::batch::Buffer;
use crate::command::{
    Allocate, Command, CommandId, Create, Data, Folder, Operation, Remove, Rename, Sync, SyncDir,
    Truncate, Write,
};
use crate::config::Config;
use crate::error::{AppendError, Failure};
use crate::event::Event;
use crate::id::{Position, SegmentId, Time};
use crate::wire::frame::FrameKind;
use crate::wire::header::{Earlier, FRAMES_OFFSET, HEADER_BYTES, Identity, Link};
use crate::wire::manifest::Manifest;
use crate::wire::name::FileId;
use crate::wire::seal::{self, Index};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

/// A segment begins with so much of its space reserved: what a log that holds little has to look
/// through when it is opened.
const RESERVE_BYTES_FIRST: u64 = 1 << 20;

/// A next segment that could not be made is tried again after so long, though no append needs it:
/// the one before may have to end for its age.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How far space is reserved where there is none, and none is to be asked for.
pub(super) const NOT_RESERVED: u64 = u64::MAX;

/// The segment after the active one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spare {
    /// None, and none is being made.
    Idle,
    /// One is being made.
    Making { made: Made, step: MakeStep, is_running: bool },
    /// It can be moved into.
    Ready(Made),
    /// It could not be made, and that is tried again at a time. `is_told`: no append waits to be
    /// refused for it; the next tries again at once.
    Failed { failure: Failure, is_told: bool, again: Time },
}

/// What a segment is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) identity: Identity,
    /// Up to here it has its space; [`NOT_RESERVED`] where it goes without.
    pub(super) reserved: u64,
    /// Reserving the rest of it.
    pub(super) rest: Step,
}

impl Made {
    pub(super) fn new(identity: Identity, config: &Config) -> Self {
        let reserved = if config.preallocate { reserve_step(config, 0) } else { NOT_RESERVED };
        Self { identity, reserved, rest: Step::Due }
    }
}

/// How much is reserved next of a segment that has so much.
#[inline]
fn reserve_step(config: &Config, reserved: u64) -> u64 {
    let (limit, step_max) = (config.segment_bytes_max, config.reserve_bytes);
    if step_max >= limit { limit } else { reserved.max(RESERVE_BYTES_FIRST).min(step_max) }
}

/// What is to be reserved next: see [`Allocate`].
struct Reservation {
    segment: SegmentId,
    from: u64,
    to: u64,
    file_bytes: u64,
}

/// Deleted segments whose files wait to become others. To a recovery they are leftovers of a
/// deletion.
#[derive(Debug, Default)]
pub(super) struct Recyclable {
    segments: VecDeque<SegmentInfo>,
    /// Those that are not wanted any more, or cannot be had.
    unwanted: VecDeque<SegmentId>,
    is_removing: bool,
}

impl Recyclable {
    /// Keeps a segment's file, if it is to be kept and is worth it.
    pub(super) fn keep(&mut self, info: &SegmentInfo, config: &Config) -> bool {
        let limit = config.segment_bytes_max;
        // Of settings with longer segments one would be longer than these allow.
        let is_right_length =
            info.end.is_some_and(|end| (limit / 2..=limit).contains(&end.frames_end));
        let is_kept = self.segments.len() < config.recycle_max
            && is_right_length
            && info.checksum == config.checksum;
        if is_kept {
            self.segments.push_back(*info);
        }
        is_kept
    }

    /// Gives back what the files hold: others need the room.
    pub(super) fn give_up(&mut self) {
        self.unwanted.extend(self.segments.drain(..).map(|info| info.segment));
    }

    /// Keeps none any more, and says which there were.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = SegmentId> {
        self.give_up();
        self.unwanted.drain(..)
    }

    /// Whether a file is to be removed.
    pub(super) fn is_discard_due(&self) -> bool {
        !self.unwanted.is_empty()
    }

    /// Whether no command for them is on its way.
    pub(super) const fn is_settled(&self) -> bool {
        !self.is_removing
    }

    /// The life of the file that is to become `next`, and how long it is.
    fn take(&mut self, next: SegmentId) -> Option<(Earlier, u64)> {
        let SegmentInfo { segment, salt, first_lsn, end, .. } = self.segments.pop_front()?;
        let earlier = Earlier::of(segment, salt, first_lsn, next);
        if earlier.is_none() {
            self.unwanted.push_back(segment);
        }
        Some((earlier?, end?.frames_end))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum MakeStep {
    /// Take the file of a deleted segment.
    Recycle(SegmentId),
    /// What happens to that file from now on happens to it under its new name.
    SyncRecycled,
    Create,
    Allocate,
    Header,
    Sync,
    Rename,
    SyncDir,
    /// Something failed: take away what there is.
    CleanUp(Failure),
}

impl Spare {
    /// Whether it is there, the command that makes it is on its way, or its time will come.
    pub(super) const fn is_seen_to(&self) -> bool {
        matches!(self, Self::Ready(_) | Self::Making { is_running: true, .. } | Self::Failed { .. })
    }

    /// When it is to be tried again, if it could not be made.
    pub(super) const fn tried_again(&self) -> Option<Time> {
        match self {
            Self::Failed { again, .. } => Some(*again),
            Self::Idle | Self::Making { .. } | Self::Ready(_) => None,
        }
    }

    pub(super) fn is_to_be_tried_again(&self, now: Time) -> bool {
        self.tried_again().is_some_and(|again| again <= now)
    }

    pub(super) fn clock_was_set_back(&mut self, now: Time) {
        if let Self::Failed { again, .. } = self {
            *again = (*again).min(now.plus(RETRY_AFTER));
        }
    }

    /// Whether it is neither being made, nor more of it being reserved.
    pub(super) const fn is_settled(&self) -> bool {
        !matches!(self, Self::Making { .. } | Self::Ready(Made { rest: Step::Running, .. }))
    }
}

impl<B: Buffer> Log<B> {
    /// Ends the active segment now, if it holds records, and moves on to the next.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn rotate(&mut self) -> Result<(), AppendError> {
        self.admit(0)?;
        match self.open.last() {
            Some(active) if self.appended.lsn >= active.link.first_lsn => self.rotate_for_append(),
            _ => Ok(()),
        }
    }

    /// Moves into the next segment, or says why that cannot be done now.
    pub(super) fn rotate_for_append(&mut self) -> Result<(), AppendError> {
        if self.open.len() > 1 {
            return Err(AppendError::Busy);
        }
        match self.spare {
            Spare::Ready(made) => self.move_into(made),
            Spare::Idle | Spare::Making { .. } => {
                self.is_spare_wanted = true;
                Err(AppendError::Busy)
            }
            Spare::Failed { failure, is_told: false, again } => {
                self.spare = Spare::Failed { failure, is_told: true, again };
                Err(if failure.error.is_no_space() {
                    AppendError::DiskFull(failure)
                } else {
                    AppendError::NoSegment(failure)
                })
            }
            Spare::Failed { .. } => {
                self.spare = Spare::Idle;
                self.is_spare_wanted = true;
                Err(AppendError::Busy)
            }
        }
    }

    pub(super) fn age_deadline(&self) -> Option<Time> {
        let age = self.config.segment_age_max?;
        let active = self.open.last()?;
        let holds_records = self.appended.lsn >= active.link.first_lsn;
        let can_rotate = self.open.len() == 1
            && matches!(self.spare, Spare::Ready(_))
            && (self.batches.filling.is_some() || self.batches.has_free());
        let is_allowed = self.rollback.is_none() && !self.request.blocks_appends();
        (holds_records && can_rotate && is_allowed).then(|| active.aged_from.plus(age))
    }

    pub(super) fn rotate_for_age(&mut self) {
        if let Spare::Ready(made) = self.spare
            && self.move_into(made).is_err()
        {
            // There is no buffer for the footer just now; the deadline is not due without one, and
            // comes back.
            debug_assert!(!self.batches.has_free());
        }
    }

    fn move_into(&mut self, made: Made) -> Result<(), AppendError> {
        let Made { identity, reserved, rest } = made;
        let mut from = self.sealed.back().map_or(Position::default(), |info| {
            Position::new(info.segment, info.end.map_or(0, |end| end.frames_end))
        });
        if self.open.last().is_some() {
            from = self.seal_active()?;
        }
        let first_lsn = self.appended.lsn.next();
        let previous = self.segments().last().map_or(first_lsn, |info| info.first_lsn);
        let start = Mark { offset: FRAMES_OFFSET, lsn: self.appended.lsn };
        self.open.push(Open {
            identity,
            link: Link {
                first_lsn,
                previous_end: from,
                previous_records: u32::try_from(first_lsn.since(previous)).unwrap_or(0),
                opened: self.time_of_day(),
                durable: self.durable.lsn,
            },
            aged_from: self.now,
            is_link_sent: false,
            end: start.offset,
            frames_end: start.offset,
            written: start,
            synced: start,
            padded: 0,
            is_syncing: false,
            written_back: start.offset,
            is_writing_back: false,
            reserved,
            reserving: (rest == Step::Running).then_some(self.config.segment_bytes_max),
            trim: Step::Due,
            sealed: None,
            index: Index::with_room_for(self.config.segment_bytes_max),
        });
        self.spare = Spare::Idle;
        self.is_spare_wanted = false;
        self.segments_version += 1;
        if from.segment != SegmentId::NONE {
            let (from, to) = (from.segment, identity.segment);
            self.events.tell(Event::Rotated { from, to, first_lsn });
        }
        Ok(())
    }

    /// Ends the active segment with a footer, and says where its frames end.
    fn seal_active(&mut self) -> Result<Position, AppendError> {
        self.fill()?;
        let frame = self.frame();
        let (now, last) = (self.time_of_day(), self.appended.lsn);
        let (Some(active), Some(batch)) = (self.open.last_mut(), &mut self.batches.filling) else {
            return Err(AppendError::Busy);
        };
        let first = active.link.first_lsn;
        let mut body = Vec::new();
        seal::encode(&mut body, first, last.next().since(first), now, &active.index);
        frame.put_body(&mut batch.buffer, FrameKind::Seal, &body);
        active.frames_end = active.end;
        active.end = batch.end();
        active.sealed = Some(last);
        let from = Position::new(active.identity.segment, active.frames_end);
        self.batches.seal_filling();
        Ok(from)
    }

    pub(super) fn poll_spare(&mut self) -> Option<Command<B>> {
        if self.manifest_due && self.manifest_running.is_none() {
            self.manifest_due = false;
            let durable = self.durable;
            let last_segment = self.next_segment.previous();
            return Some(self.write_manifest(ManifestFor::Spare, |manifest| Manifest {
                last_segment,
                durable,
                ..manifest
            }));
        }
        if let Some(command) = self.poll_allocation().or_else(|| self.poll_discard()) {
            return Some(command);
        }
        if matches!(self.spare, Spare::Idle) {
            self.begin_spare();
        }
        let Spare::Making { made, step, is_running: false } = self.spare else { return None };
        self.spare = Spare::Making { made, step, is_running: true };
        Some(self.make_command(&made.identity, step))
    }

    /// Removes a file that is not to be recycled after all.
    fn poll_discard(&mut self) -> Option<Command<B>> {
        if self.recyclable.is_removing || self.request.blocks_appends() {
            return None;
        }
        let name = FileId::Segment(self.recyclable.unwanted.pop_front()?).name();
        self.recyclable.is_removing = true;
        let id = self.issue(Job::Discard, Operation::Remove, Some(name.file));
        Some(Command::Remove(Remove { id, name }))
    }

    pub(super) fn discard_done(&mut self, outcome: Result<(), Failure>) {
        self.recyclable.is_removing = false;
        self.tell_degraded(outcome);
    }

    /// Reserves more of the active segment's space before what is reserved has been used. Until
    /// that is done nothing is written behind it: not every host can make a file longer that
    /// another write makes longer still.
    fn poll_allocation(&mut self) -> Option<Command<B>> {
        if self.is_closed || self.request.blocks_appends() || self.rollback.is_some() {
            return None;
        }
        let due = self.begin_step().or_else(|| self.begin_rest());
        let Reservation { segment, from, to, file_bytes } = due?;
        let file = FileId::Segment(segment);
        let id = self.issue(Job::Allocate(segment), Operation::Allocate, Some(file));
        Some(Command::Allocate(Allocate { id, name: file.name(), from, to, file_bytes }))
    }

    /// The next step of the active segment.
    fn begin_step(&mut self) -> Option<Reservation> {
        let open = self.open.last()?;
        if !self.is_reservation_due(open, open.end) {
            return None;
        }
        let limit = self.config.segment_bytes_max;
        let open = self.open.last_mut()?;
        let step = reserve_step(&self.config, open.reserved);
        let from = open.reserved;
        let to = open.end.max(from).saturating_add(step).min(limit);
        open.reserving = Some(to);
        Some(Reservation { segment: open.identity.segment, from, to, file_bytes: to })
    }

    /// The rest of the next segment, behind the end of its file.
    fn begin_rest(&mut self) -> Option<Reservation> {
        if !self.is_rest_due() {
            return None;
        }
        let Spare::Ready(made) = &mut self.spare else { return None };
        made.rest = Step::Running;
        let (segment, from) = (made.identity.segment, made.reserved);
        Some(Reservation { segment, from, to: self.config.segment_bytes_max, file_bytes: 0 })
    }

    /// Whether more of a segment's space is to be reserved where it is filled up to `end`.
    pub(super) fn is_reservation_due(&self, open: &Open, end: u64) -> bool {
        let step = reserve_step(&self.config, open.reserved);
        open.reserving.is_none()
            && open.sealed.is_none()
            && open.reserved < self.config.segment_bytes_max
            && end.saturating_add(step / 4) >= open.reserved
    }

    /// Whether the rest of the next segment is to be reserved: a log that has filled half of this
    /// one, or of the one before, is likely to need it. A recycled one has its blocks.
    #[inline]
    pub(super) fn is_rest_due(&self) -> bool {
        let limit = self.config.segment_bytes_max;
        let is_wanted = |made: &Made| {
            made.rest == Step::Due && made.reserved < limit && made.identity.earlier.is_none()
        };
        let is_long = |end: u64| end >= limit / 2;
        let last_end = || self.sealed.back().and_then(|info| info.end);
        self.config.reserve_past_end
            && matches!(&self.spare, Spare::Ready(made) if is_wanted(made))
            && (self.open.iter().any(|open| is_long(open.end))
                || last_end().is_some_and(|end| is_long(end.frames_end)))
    }

    pub(super) fn allocate_done(&mut self, segment: SegmentId, outcome: Result<(), Failure>) {
        if let Spare::Ready(made) = &mut self.spare
            && made.identity.segment == segment
        {
            made.rest = Step::Done;
            if outcome.is_ok() {
                made.reserved = self.config.segment_bytes_max;
            }
        } else if let Some(open) = self.open_segment_mut(segment) {
            let reserved = open.reserving.take().filter(|_| outcome.is_ok());
            // One failure is enough: the segment goes on without.
            open.reserved = reserved.unwrap_or(NOT_RESERVED);
        }
        self.tell_degraded(outcome);
    }

    fn begin_spare(&mut self) {
        let is_allowed =
            self.open.len() < 2 && self.rollback.is_none() && !self.request.blocks_appends();
        if !is_allowed || self.is_closed {
            return;
        }
        let recycled = self.recyclable.take(self.next_segment);
        let (made, step) = match recycled {
            Some((earlier, recycled_bytes)) => {
                let mut made = Made::new(self.new_identity(Some(earlier)), &self.config);
                if self.config.preallocate {
                    made.reserved = recycled_bytes;
                }
                (made, MakeStep::Recycle(earlier.segment))
            }
            None => (Made::new(self.new_identity(None), &self.config), MakeStep::Create),
        };
        self.spare = Spare::Making { made, step, is_running: false };
    }

    fn new_identity(&mut self, earlier: Option<Earlier>) -> Identity {
        Identity {
            checksum: self.config.checksum,
            optional_features: 0,
            log: self.id,
            segment: self.next_segment,
            created: self.time_of_day(),
            salt: earlier.map_or_else(|| self.salts.next(), |earlier| earlier.next_salt()),
            earlier,
        }
    }

    fn make_command(&mut self, identity: &Identity, step: MakeStep) -> Command<B> {
        let file = FileId::Segment(identity.segment);
        let name = file.new_name();
        let mut issue = |operation| self.issue(Job::Spare, operation, Some(file));
        match step {
            MakeStep::Recycle(segment) => {
                let from = FileId::Segment(segment).name();
                Command::Rename(Rename { id: issue(Operation::Rename), from, to: name })
            }
            MakeStep::Create => Command::Create(Create { id: issue(Operation::Create), name }),
            MakeStep::Allocate => {
                let id = issue(Operation::Allocate);
                let to = reserve_step(&self.config, 0);
                Command::Allocate(Allocate { id, name, from: 0, to, file_bytes: to })
            }
            MakeStep::Header => {
                let id = issue(Operation::Write);
                let identity_bytes = identity.encode(self.config.crc);
                let mut header = [0; HEADER_BYTES];
                header[..identity_bytes.len()].copy_from_slice(&identity_bytes);
                let is_recycled = identity.earlier.is_some();
                let data = Data::small(if is_recycled { &header } else { &identity_bytes });
                Command::Write(Write { id, name, offset: 0, data, sync: false })
            }
            MakeStep::Sync => Command::Sync(Sync { id: issue(Operation::Sync), name }),
            MakeStep::Rename => {
                let id = issue(Operation::Rename);
                Command::Rename(Rename { id, from: name, to: file.name() })
            }
            MakeStep::SyncDir | MakeStep::SyncRecycled => self.sync_log_folder(Job::Spare),
            MakeStep::CleanUp(_) => Command::Remove(Remove { id: issue(Operation::Remove), name }),
        }
    }

    pub(super) fn sync_log_folder(&mut self, job: Job) -> Command<B> {
        let id: CommandId = self.issue(job, Operation::SyncDir, None);
        Command::SyncDir(SyncDir { id, folder: Folder::Log })
    }

    pub(super) fn spare_done(&mut self, outcome: Result<(), Failure>) {
        let Spare::Making { mut made, step, .. } = self.spare else { return };
        let step = match (step, outcome) {
            (MakeStep::Recycle(_), Ok(())) => MakeStep::SyncRecycled,
            (MakeStep::Recycle(segment), Err(_)) => {
                // Somebody still reads it, or its name cannot be changed.
                self.recyclable.unwanted.push_back(segment);
                made = Made::new(self.new_identity(None), &self.config);
                MakeStep::Create
            }
            (MakeStep::CleanUp(failure), _) => {
                if failure.error.is_no_space() {
                    self.recyclable.give_up();
                    self.events.tell(Event::DiskFull(failure));
                } else {
                    self.events.tell(Event::Degraded(failure));
                }
                let is_told = !core::mem::take(&mut self.is_spare_wanted);
                let again = self.now.plus(RETRY_AFTER);
                self.spare = Spare::Failed { failure, is_told, again };
                return;
            }
            (MakeStep::Create, Ok(())) if self.config.preallocate => MakeStep::Allocate,
            (MakeStep::Create | MakeStep::SyncRecycled, Ok(())) => MakeStep::Header,
            (MakeStep::Allocate, outcome) => {
                // Without its space reserved a segment is slower, and a full disk shows later: when
                // it is written to, which is then undone.
                if outcome.is_err() {
                    made.reserved = NOT_RESERVED;
                }
                self.tell_degraded(outcome);
                MakeStep::Header
            }
            (MakeStep::Header, Ok(())) => MakeStep::Sync,
            (MakeStep::Sync, Ok(())) => MakeStep::Rename,
            (MakeStep::Rename, Ok(())) => MakeStep::SyncDir,
            (MakeStep::SyncDir, Ok(())) => {
                self.next_segment = made.identity.segment.next();
                self.manifest_due = true;
                self.spare = Spare::Ready(made);
                return;
            }
            (MakeStep::Create | MakeStep::Rename, Err(failure)) => MakeStep::CleanUp(failure),
            (MakeStep::Header, Err(failure)) if failure.error.is_no_space() => {
                MakeStep::CleanUp(failure)
            }
            (
                MakeStep::Header | MakeStep::Sync | MakeStep::SyncDir | MakeStep::SyncRecycled,
                Err(failure),
            ) => {
                return self.fail(failure);
            }
        };
        self.spare = Spare::Making { made, step, is_running: false };
    }

    /// Gives back what a sealed segment did not use of its space.
    pub(super) fn poll_trim(&mut self) -> Option<Command<B>> {
        let open = self.open.first_mut()?;
        let is_due = open.is_retired() && !open.is_busy() && open.trim == Step::Due;
        if !is_due {
            return None;
        }
        open.trim = Step::Running;
        let (segment, bytes) = (open.identity.segment, open.end);
        let name = FileId::Segment(segment).name();
        let id = self.issue(Job::Trim(segment), Operation::Truncate, Some(name.file));
        Some(Command::Truncate(Truncate { id, name, bytes }))
    }

    pub(super) fn trim_done(&mut self, segment: SegmentId, outcome: Result<(), Failure>) {
        if let Some(open) = self.open_segment_mut(segment) {
            open.trim = Step::Done;
        }
        self.tell_degraded(outcome);
        self.retire();
    }

    /// Moves a segment that is sealed, durable and trimmed to the sealed ones.
    pub(super) fn retire(&mut self) {
        let is_done = self.open.len() > 1
            && self.open.first().is_some_and(|open| {
                open.is_retired() && !open.is_busy() && open.trim == Step::Done
            });
        if is_done {
            let open = self.open.remove(0);
            self.sealed.push_back(open.info());
            self.segments_version += 1;
        }
    }

    pub(super) fn tell_degraded(&mut self, outcome: Result<(), Failure>) {
        if let Err(failure) = outcome {
            if failure.error.is_no_space() {
                self.recyclable.give_up();
            }
            self.events.tell(Event::Degraded(failure));
        }
    }
}
