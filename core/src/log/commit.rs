//! Writes and syncs: when a batch sets out, and what its return means.
//!
//! While a durable write runs, the next batch fills: that is group commit. A batch sets out
//!
//! - as a **durable write** (write and sync in one) when somebody waits for the disk, nothing else
//!   is on its way and it is the last of those waiting;
//! - as a **plain write** when somebody waits for the kernel, or it is full.
//!
//! At most one plain write is on its way at a time, beside at most one durable write. A sync of its
//! own is for what plain writes have left behind.

use super::{Job, Log, Mark, Open, Step};
use crate::batch::{Batch, Buffer};
use crate::command::{Command, CommandId, Data, Operation, Sync, Truncate, Write, WriteBack};
use crate::error::Failure;
use crate::event::Event;
use crate::id::{Lsn, Position, SegmentId, Time, Watermark};
use crate::log::RolledBack;
use crate::log::rotate::{Made, NOT_RESERVED, Spare};
use crate::wire::header::{FRAMES_OFFSET, LINK_OFFSET};
use crate::wire::name::FileId;
use core::time::Duration;

/// A batch on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    id: CommandId,
    segment: SegmentId,
    offset: u64,
    before: Lsn,
    to: Mark,
    durable: Option<Time>,
    /// Whether zeros follow it, to where the next batch goes: that one waits.
    is_padded: bool,
    has_landed: bool,
}

impl Flight {
    /// A batch that is not synced, with no zeros behind it.
    pub(super) const fn plain(id: CommandId, from: Position, before: Lsn, to: Mark) -> Self {
        let Position { segment, offset } = from;
        Self { id, segment, offset, before, to, durable: None, is_padded: false, has_landed: false }
    }

    /// Whether it is this batch of this segment, and not synced.
    pub(super) fn is_plain(&self, id: CommandId, segment: SegmentId) -> bool {
        self.id == id && self.segment == segment && self.durable.is_none()
    }

    pub(super) const fn to(&self) -> Mark {
        self.to
    }
}

/// Zeros behind a batch that is synced make room for so many more batches of the same size,
const PADDED_WRITES: u64 = 16;
/// but are not many more than this: who waits for this one waits for them, too.
const SYNCED_PADDING_BYTES_MAX: u64 = 256 << 10;
/// They go on to a multiple of it.
const SYNCED_PADDING_BYTES_STEP: u64 = 64 << 10;
/// Longer batches get none: they cost little less in pages and blocks that are there.
const PADDED_BYTES_MAX: u64 = 160 << 10;
/// What is written back ends at a multiple of it: what the page cache has behind that, in one piece
/// with the zeros of [`Log::padding`], is still being written to.
const WRITE_BACK_BYTES_STEP: u64 = SYNCED_PADDING_BYTES_STEP;
/// No more is written back, in bytes a second: a burst that the page cache takes at memory's pace
/// has the device, and a processor for it, busy with a part of it only.
const WRITE_BACK_PACE: u64 = 256 << 20;
/// A page of the page cache, on most machines.
const PAGE_BYTES: u64 = 4 << 10;

/// Undoing appends that a full disk did not take: what was written of them is cut off and the cut
/// is synced, so that no crash brings them back, before anyone is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rollback {
    failure: Failure,
    segment: SegmentId,
    offset: u64,
    after: Lsn,
    step: RollbackStep,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RollbackStep {
    /// Other writes, syncs and reservations are still on their way.
    Drain,
    Truncating,
    SyncDue,
    Syncing,
}

impl<B: Buffer> Log<B> {
    pub(super) fn poll_commit(&mut self) -> Option<Command<B>> {
        if self.rollback.is_some() {
            return self.poll_rollback();
        }
        self.poll_write().or_else(|| self.poll_sync())
    }

    fn poll_write(&mut self) -> Option<Command<B>> {
        let is_durable = self.next_write_is_durable()?;
        let batch = self.batches.queued.pop_front().or_else(|| self.batches.filling.take())?;
        let file = FileId::Segment(batch.segment);
        let id = self.issue(Job::Batch, Operation::Write, Some(file));
        let to = Mark { offset: batch.end(), lsn: batch.last };
        if is_durable && let Some(open) = self.open_segment_mut(batch.segment) {
            open.written_back = to.offset;
        }
        let padding = self.padding(&batch, is_durable);
        self.flights.push(Flight {
            id,
            segment: batch.segment,
            offset: batch.offset,
            before: batch.before,
            to,
            durable: is_durable.then_some(self.now),
            is_padded: padding > 0,
            has_landed: false,
        });
        let Batch { mut buffer, offset, .. } = batch;
        buffer.resize(buffer.as_ref().len() + padding);
        let (name, data) = (file.name(), Data::Buffer(buffer));
        Some(Command::Write(Write { id, name, offset, data, sync: is_durable }))
    }

    /// How many zeros a write takes along behind its batch.
    ///
    /// The first write to reserved blocks has the file system note that they hold something now,
    /// and a sync makes that durable too, which takes half as long again as the bytes alone. And
    /// the first write to a page has the page cache make it; many at once cost half of what they
    /// cost one by one, zeros and all. So one write in many makes room for those that follow, where
    /// they are small: zeros are what stands there anyway. Where nothing is synced only the pages
    /// count, and they are not to be too many at once: the file system looks at all that came
    /// together for each write to any of them.
    ///
    /// Where space is not reserved there may be none for zeros.
    ///
    /// In a recycled segment a page that is not in memory would have to be read before a part of it
    /// is written. There longer batches are filled up to the end of their last page.
    fn padding(&mut self, batch: &Batch<B>, is_durable: bool) -> usize {
        let (bytes, end) = (batch.bytes(), batch.end());
        let (limit, plain_step) = (self.config.segment_bytes_max, self.config.padding_bytes);
        let Some(open) = self.open_segment_mut(batch.segment) else { return 0 };
        let is_reserved = open.reserved != NOT_RESERVED;
        if !is_reserved || open.sealed.is_some() || end <= open.padded {
            return 0;
        }
        let (padding, step) = if bytes <= PADDED_BYTES_MAX && is_durable {
            ((bytes * PADDED_WRITES).min(SYNCED_PADDING_BYTES_MAX), SYNCED_PADDING_BYTES_STEP)
        } else if bytes <= PADDED_BYTES_MAX {
            (0, plain_step)
        } else if open.identity.earlier.is_some() {
            (0, PAGE_BYTES)
        } else {
            return 0;
        };
        let limit = limit.min(open.reserved);
        open.padded = (end + padding).next_multiple_of(step).min(limit).max(end);
        usize::try_from(open.padded - end).unwrap_or(0)
    }

    /// Whether the next batch may set out, and if so, whether it is synced as well.
    fn next_write_is_durable(&self) -> Option<bool> {
        let queued = self.batches.queued.front();
        let batch = queued.or(self.batches.filling.as_ref().filter(|batch| !batch.is_empty()))?;
        let for_kernel = queued.is_some() || self.want_written > batch.before;
        let for_disk = self.want_durable > batch.before;
        if !for_kernel && !for_disk {
            return None;
        }
        let reserving = self.open_segment(batch.segment).and_then(|open| open.reserving);
        if reserving.is_some_and(|to| batch.end() > to) {
            return None;
        }
        if let Some(flight) = self.flights.last() {
            let may_follow = flight.segment == batch.segment
                && self.flights.iter().all(|flight| flight.durable.is_some() && !flight.is_padded);
            return (may_follow && for_kernel).then_some(false);
        }
        let is_syncing = self.open_segment(batch.segment).is_some_and(Open::is_on_its_way);
        let is_last = self.batches.queued.len() <= usize::from(queued.is_some())
            && (queued.is_none() || self.batches.filling.is_none());
        match (for_disk && is_last, is_syncing) {
            (true, false) => Some(true),
            // A sync or a write-back is under way; the batch gathers meanwhile and goes next.
            (true, true) if !for_kernel => None,
            _ => Some(false),
        }
    }

    fn poll_sync(&mut self) -> Option<Command<B>> {
        let at = self.next_sync()?;
        let began = self.now;
        let open = &mut self.open[at];
        open.is_syncing = true;
        open.written_back = open.written.offset;
        let (segment, to) = (open.identity.segment, open.written);
        let began = (to.lsn == self.appended.lsn).then_some(began);
        let file = FileId::Segment(segment);
        let id = self.issue(Job::Sync { segment, to, began }, Operation::Sync, Some(file));
        Some(Command::Sync(Sync { id, name: file.name() }))
    }

    /// The open segment that is to be synced next.
    fn next_sync(&self) -> Option<usize> {
        let has_flights = !self.flights.is_empty();
        let is_wanted = self.want_durable > self.durable.lsn
            && (self.written.lsn >= self.want_durable || !has_flights);
        let is_wanted = is_wanted || (self.request.wants_sync() && !has_flights);
        let flight = self.flights.iter().find(|flight| flight.durable.is_some());
        let syncing = flight.map(|flight| flight.segment);
        self.open.iter().position(|open| {
            let is_behind = open.written.offset > open.synced.offset;
            let is_complete = open.sealed.is_some() && open.written.offset == open.end;
            let is_free = !open.is_on_its_way() && syncing != Some(open.identity.segment);
            is_behind && is_free && (is_wanted || is_complete)
        })
    }

    /// Has the device begin with what plain writes have left behind, each time that it is so much.
    /// Otherwise it begins where the kernel sees fit, some seconds later, or with the sync, which
    /// then takes as long as the device does for all of it, and so does every other log's on it.
    ///
    /// Of what comes faster than that most is left to the kernel, and all as long as the segment
    /// before is being synced: appends may have to wait for that.
    ///
    /// A segment is never written back and synced at the same time: the kernel tells a failure
    /// once, and a sync that did not hear of it would promise what is lost.
    pub(super) fn poll_write_back(&mut self) -> Option<Command<B>> {
        let is_syncing = self.open.last().is_some_and(|open| open.is_syncing)
            || self.flights.iter().any(|flight| flight.durable.is_some());
        let is_allowed = self.rollback.is_none()
            && !is_syncing
            && !self.request.blocks_appends()
            && !self.is_closed;
        let to =
            self.open.last().filter(|_| is_allowed).and_then(|open| self.write_back_due(open))?;
        let is_too_soon = self.now < self.write_back_again || self.open.len() > 1;
        let open = self.open.last_mut()?;
        let from = core::mem::replace(&mut open.written_back, to);
        if is_too_soon {
            return None;
        }
        open.is_writing_back = true;
        let pause_micros = (to - from).saturating_mul(1_000_000) / WRITE_BACK_PACE;
        self.write_back_again = self.now.plus(Duration::from_micros(pause_micros));
        let segment = open.identity.segment;
        let file = FileId::Segment(segment);
        let id = self.issue(Job::WriteBack(segment), Operation::WriteBack, Some(file));
        Some(Command::WriteBack(WriteBack { id, name: file.name(), from, to }))
    }

    /// Up to where a segment is to be written back, where that is to begin. Of one that has ended
    /// the sync has begun.
    pub(super) fn write_back_due(&self, open: &Open) -> Option<u64> {
        let bytes = self.config.write_back_bytes?;
        let (written, least) = (open.written.offset, open.written_back.saturating_add(bytes));
        if written < least || open.is_writing_back || open.sealed.is_some() {
            return None;
        }
        let to = written - written % bytes.min(WRITE_BACK_BYTES_STEP);
        (to >= least).then_some(to)
    }

    pub(super) fn write_back_done(&mut self, segment: SegmentId, outcome: Result<(), Failure>) {
        if let Some(open) = self.open_segment_mut(segment) {
            open.is_writing_back = false;
        }
        match outcome {
            Ok(()) => self.retire(),
            // The next sync may not be told of it.
            Err(failure) => self.fail(failure),
        }
    }

    /// How many bytes of records the next command of [`Lane::Commit`](crate::command::Lane::Commit)
    /// writes, if it is a write and syncs nothing.
    pub fn plain_write_due(&self) -> Option<u64> {
        let is_over = self.rollback.is_some() || self.poison.is_some();
        let is_due = !is_over && self.next_write_is_durable() == Some(false);
        let batch = self.batches.queued.front().or(self.batches.filling.as_ref());
        batch.filter(|_| is_due).map(Batch::bytes)
    }

    /// Whether bytes are on their way to the kernel and no further.
    pub fn is_writing_plainly(&self) -> bool {
        self.flights.last().is_some_and(|flight| flight.durable.is_none())
    }

    /// Whether [`Lane::Commit`](crate::command::Lane::Commit) has a command now.
    pub fn is_commit_due(&self) -> bool {
        let is_due = match self.rollback {
            Some(rollback) => self.next_rollback(rollback).is_some(),
            None => self.next_write_is_durable().is_some() || self.next_sync().is_some(),
        };
        is_due && self.poison.is_none()
    }

    pub(super) fn batch_done(&mut self, id: CommandId, outcome: Result<(), Failure>) {
        let Some(at) = self.flights.iter().position(|flight| flight.id == id) else { return };
        match outcome {
            Ok(()) => self.flights[at].has_landed = true,
            Err(failure) if failure.error.is_no_space() => {
                let flight = self.flights.remove(at);
                self.begin_rollback(flight, failure);
            }
            Err(failure) => self.fail(failure),
        }
        while let Some(flight) = self.flights.first().copied()
            && flight.has_landed
        {
            self.flights.remove(0);
            self.land(&flight);
        }
        self.raise_watermarks();
    }

    /// A batch has reached the kernel, and all before it have.
    fn land(&mut self, flight: &Flight) {
        // What follows a batch that was undone is undone with it.
        let is_undone = self.rollback.is_some_and(|rollback| {
            (rollback.segment, rollback.offset) <= (flight.segment, flight.offset)
        });
        if is_undone {
            return;
        }
        let Some(open) = self.open_segment_mut(flight.segment) else { return };
        open.written = flight.to;
        if let Some(began) = flight.durable {
            open.synced = flight.to;
            self.restart_window(began);
        }
    }

    pub(super) fn sync_done(
        &mut self,
        segment: SegmentId,
        to: Mark,
        began: Option<Time>,
        outcome: Result<(), Failure>,
    ) {
        if let Some(open) = self.open_segment_mut(segment) {
            open.is_syncing = false;
        }
        if let Err(failure) = outcome {
            return self.fail(failure);
        }
        if let Some(open) = self.open_segment_mut(segment)
            && to.offset > open.synced.offset
        {
            open.synced = to;
        }
        if let Some(began) = began {
            self.restart_window(began);
        }
        self.raise_watermarks();
    }

    /// What is not durable yet was appended after the sync that just returned set out: it covered
    /// all there was.
    fn restart_window(&mut self, began: Time) {
        if let Some(since) = &mut self.unsynced_since {
            // The clock may have been set back meanwhile.
            *since = began.max(*since).min(self.now);
        }
    }

    fn begin_rollback(&mut self, flight: Flight, failure: Failure) {
        let earlier = self.rollback.is_some_and(|rollback| {
            (rollback.segment, rollback.offset) <= (flight.segment, flight.offset)
        });
        if !earlier {
            self.rollback = Some(Rollback {
                failure,
                segment: flight.segment,
                offset: flight.offset,
                after: flight.before,
                step: RollbackStep::Drain,
            });
        }
        self.batches.discard_unsent();
        self.recyclable.give_up();
        self.events.tell(Event::DiskFull(failure));
    }

    /// What a rollback does next, and the step that it is in then.
    fn next_rollback(&self, rollback: Rollback) -> Option<(Operation, RollbackStep)> {
        let is_busy = || self.open.iter().any(Open::is_busy);
        match rollback.step {
            RollbackStep::Drain if self.flights.is_empty() && !is_busy() => {
                Some((Operation::Truncate, RollbackStep::Truncating))
            }
            RollbackStep::SyncDue => Some((Operation::Sync, RollbackStep::Syncing)),
            RollbackStep::Drain | RollbackStep::Truncating | RollbackStep::Syncing => None,
        }
    }

    fn poll_rollback(&mut self) -> Option<Command<B>> {
        let rollback = self.rollback?;
        let (operation, step) = self.next_rollback(rollback)?;
        let name = FileId::Segment(rollback.segment).name();
        self.rollback = Some(Rollback { step, ..rollback });
        let id = self.issue(Job::Rollback, operation, Some(name.file));
        Some(match operation {
            Operation::Sync => Command::Sync(Sync { id, name }),
            _ => Command::Truncate(Truncate { id, name, bytes: rollback.offset }),
        })
    }

    pub(super) fn rollback_done(&mut self, outcome: Result<(), Failure>) -> Option<RolledBack> {
        if let Err(failure) = outcome {
            self.fail(failure);
            return None;
        }
        let rollback = self.rollback.as_mut()?;
        if rollback.step == RollbackStep::Truncating {
            rollback.step = RollbackStep::SyncDue;
            return None;
        }
        let Rollback { failure, segment, offset, after, .. } = self.rollback.take()?;
        // Nothing was written to a segment that came after: it is ready to be moved into again.
        while let Some(open) = self.open.pop_if(|open| open.identity.segment > segment) {
            let Open { identity, reserved, .. } = open;
            self.spare = Spare::Ready(Made { identity, reserved, rest: Step::Done });
        }
        if let Some(open) = self.open.last_mut() {
            open.undo_from(offset);
            self.appended = Watermark { lsn: after, end: Position::new(segment, open.end) };
        }
        self.want_written = self.want_written.min(after);
        self.want_durable = self.want_durable.min(after);
        self.segments_version += 1;
        self.raise_watermarks();
        self.request_undone(after, failure);
        Some(RolledBack { after, failure })
    }

    pub(super) fn open_segment(&self, segment: SegmentId) -> Option<&Open> {
        self.open.iter().find(|open| open.identity.segment == segment)
    }

    pub(super) fn open_segment_mut(&mut self, segment: SegmentId) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.identity.segment == segment)
    }
}

impl Open {
    /// Forgets what was encoded for the bytes from `offset` on, which were never written.
    fn undo_from(&mut self, offset: u64) {
        if offset == LINK_OFFSET {
            self.is_link_sent = false;
        }
        self.end = offset.max(FRAMES_OFFSET);
        self.frames_end = self.end;
        self.sealed = None;
        self.written_back = self.written_back.min(self.end);
        self.trim = Step::Due;
        self.index.cut(self.end);
        self.file_was_cut(offset);
    }

    /// What was reserved and padded behind the cut is gone with it.
    pub(super) fn file_was_cut(&mut self, to: u64) {
        self.padded = 0;
        if self.reserved != NOT_RESERVED {
            self.reserved = self.reserved.min(to);
        }
    }
}
