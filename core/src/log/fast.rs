//! The fast path: one record and its plain write, where nothing else is to be written; or one more
//! in the batch that is being filled.
//!
//! These are a log's most frequent moments: nothing is due before the record or behind it, so that
//! most of what [`Log::append`], [`Log::poll_lane`] and [`Log::complete`] ask need not be asked.
//! Wherever that is not so the fast path stands aside. It leaves the log just as they do.

use super::commit::Flight;
use super::retain::Request;
use super::rotate::NOT_RESERVED;
use super::{Appended, Job, Log, Mark, Open};
use crate::batch::Buffer;
use crate::command::{Data, Done, Operation, Outcome, Write};
use crate::config::Level;
use crate::id::Position;
use crate::record::Entry;
use crate::wire::frame;
use crate::wire::name::FileId;

impl<B: Buffer> Log<B> {
    /// Takes one record into the log and gives the write for it, as [`Log::append`] for
    /// [`Level::Os`] and the next [`Log::poll_lane`] would. The log need not be told the time
    /// before.
    ///
    /// `None`: there is more to it, and nothing has changed.
    pub fn append_fast(&mut self, entry: &Entry<'_>) -> Option<(Appended, Write<B>)> {
        let frame_bytes = frame::record_frame_bytes_max(entry);
        // It is not the first that is not durable, with which a deadline would come; and another
        // buffer stays, without which no deadline could end the active segment.
        let changes_no_deadline = self.unsynced_since.is_some() && self.batches.has_two_free();
        let is_simple =
            entry.ttl.is_none() && entry.limited_bytes() <= self.config.record_bytes_max;
        if !changes_no_deadline || !is_simple || self.is_anything_due() {
            return None;
        }
        let frame = self.frame();
        let active = self.open.last()?;
        let end_max = active.end + frame_bytes;
        let is_padded = active.reserved == NOT_RESERVED || end_max <= active.padded;
        if !active.is_link_sent || !is_padded || !active.has_room(frame_bytes, &self.config) {
            return None;
        }
        let mut buffer = self.batches.take_free()?;
        frame.put_record(&mut buffer, entry);
        let before = self.appended.lsn;
        let appended = self.take_in(&frame, buffer.as_ref().len() as u64, 0, 1, Level::Os);
        let Position { segment, offset } = appended.position;
        let to = Mark { offset: self.appended.end.offset, lsn: appended.last };
        let file = FileId::Segment(segment);
        let id = self.issue(Job::Batch, Operation::Write, Some(file));
        self.flights.push(Flight::plain(id, appended.position, before, to));
        let (name, data) = (file.name(), Data::Buffer(buffer));
        Some((appended, Write { id, name, offset, data, sync: false }))
    }

    /// Takes one record into the batch that is being filled, as [`Log::append`] would for
    /// [`Level::Buffered`], where nothing becomes due by it. The log need not be told the time
    /// before.
    ///
    /// `None`: there is more to it, and nothing has changed.
    pub fn append_fast_buffered(&mut self, entry: &Entry<'_>) -> Option<Appended> {
        let frame_bytes = frame::record_frame_bytes_max(entry);
        if entry.ttl.is_some() || self.admit(entry.limited_bytes()).is_err() {
            return None;
        }
        let frame = self.frame();
        let active = self.open.last()?;
        let is_reservation_due = self.is_reservation_due(active, active.end + frame_bytes);
        if is_reservation_due || !active.has_room(frame_bytes, &self.config) {
            return None;
        }
        // Those in it have brought a deadline, or are about to be synced, and this one with them.
        let batch = self.batches.filling.as_mut()?;
        if batch.bytes() + frame_bytes > self.config.batch_bytes {
            return None;
        }
        let before = batch.bytes();
        frame.put_record(&mut batch.buffer, entry);
        let written = batch.bytes() - before;
        Some(self.take_in(&frame, written, 0, 1, Level::Buffered))
    }

    /// Takes a plain write back as [`Log::complete`] does, where it succeeded and no other is under
    /// way. Any other comes back.
    ///
    /// # Errors
    /// The completion, which is for [`Log::complete`] then.
    pub fn complete_fast(&mut self, done: Done<B>) -> Result<(), Done<B>> {
        let is_alone = match (&*self.flights, &*self.open) {
            ([flight], [open]) => flight.is_plain(done.id, open.identity.segment),
            _ => false,
        };
        let job = self.jobs.iter().position(|under_way| under_way.id == done.id);
        match (done.outcome, job) {
            (Outcome::Written(Data::Buffer(buffer), Ok(())), Some(job))
                if is_alone && self.rollback.is_none() =>
            {
                self.jobs.swap_remove(job);
                self.batches.give_back(buffer);
                if let (Some(flight), Some(open)) = (self.flights.pop(), self.open.last_mut()) {
                    open.written = flight.to();
                }
                self.raise_watermarks();
                Ok(())
            }
            (outcome, _) => Err(Done { id: done.id, outcome }),
        }
    }

    /// Whether there may be a command to run now, or something to be told.
    pub fn is_anything_due(&self) -> bool {
        let is_settled = |open: &Open| {
            let is_sync_due = self.want_durable > self.durable.lsn && !open.is_syncing;
            !is_sync_due
                && !self.is_reservation_due(open, open.end)
                && self.write_back_due(open).is_none()
        };
        let is_writing = !self.batches.are_idle() || !self.flights.is_empty();
        let has_request = !matches!(self.request, Request::Idle) || self.request_result.is_some();
        let is_over = self.rollback.is_some() || self.poison.is_some() || self.is_closed;
        is_writing
            || has_request
            || is_over
            || !matches!(self.open.as_slice(), [open] if is_settled(open))
            || !self.spare.is_seen_to()
            || self.is_rest_due()
            || self.manifest_due
            || self.recyclable.is_discard_due()
            || !self.events.is_empty()
    }
}
