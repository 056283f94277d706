//! Requests that end parts of the log: delete before, truncate after, close.
//!
//! One runs at a time. Each first records in the manifest what will be, durably, and only then
//! touches files: a crash at any point leaves the log as before or as asked, and recovery removes
//! what is left over. Nothing is rewritten in place, and nothing needs room on the disk.

use super::{Job, Log, ManifestFor, Open, SegmentEnd, SegmentInfo};
use crate::batch::{Batch, Buffer};
use crate::command::{Command, Data, Operation, Read, Remove, Truncate, Write};
use crate::error::{AppendError, Failure, RequestError};
use crate::event::Event;
use crate::id::{Lsn, Position, SegmentId, Watermark};
use crate::log::rotate::Spare;
use crate::scan::{ScanStart, SegmentScan};
use crate::wire::checksum::Place;
use crate::wire::frame::{Frame, FrameKind};
use crate::wire::header::FRAMES_OFFSET;
use crate::wire::manifest::{Cap, Manifest};
use crate::wire::name::{FileId, FileName};
use crate::wire::seal;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The request that runs.
#[derive(Debug)]
pub(super) enum Request<B> {
    Idle,
    Running { kind: Kind, step: RequestStep<B>, is_running: bool },
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Delete the segments before this record, once it is clear which have ended.
    DeleteBefore(Lsn),
    /// Delete this many segments, so that the log begins with this record in this segment.
    Delete {
        count: usize,
        first_segment: SegmentId,
        first_lsn: Lsn,
    },
    /// Keep records up to this one.
    Truncate(Lsn),
    Close,
}

#[derive(Debug)]
pub(super) enum RequestStep<B> {
    /// Everything appended becomes durable, and background work ends.
    Drain,
    /// Truncate: find the end of the frame that holds the last record kept.
    Locate(Box<SegmentScan>, Option<B>),
    /// Close: the mark that ends a log is on its way.
    Mark,
    /// Close: give back the space that the last segment did not use.
    Trim,
    Manifest(Option<CutAt>),
    Remove(VecDeque<FileName>, Option<CutAt>),
    SyncDir(Option<CutAt>),
    /// Truncate: cut the dead bytes off a segment that was not sealed.
    CutTail(CutAt),
    /// Truncate: give it a footer.
    Footer(CutAt),
}

/// Where a truncation ends the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CutAt {
    segment: SegmentId,
    frames_end: u64,
    /// The LSN after the frame that ends there; more than the last record kept plus one when that
    /// frame is a batch which is kept in part.
    next_lsn: Lsn,
    /// Whether that segment has no footer yet.
    is_active: bool,
}

/// What a manifest says is durable, and the first LSN of the segment in which that ends, if it is
/// known. At the beginning of a segment nothing in it is: then it ends in the one before, of which
/// recovery knows so that it was moved into and where it began, should its link get lost.
pub(crate) fn durable_place(
    durable: Watermark,
    segments: impl Iterator<Item = SegmentInfo>,
) -> (Watermark, Lsn) {
    let mut before = None;
    for info in segments {
        if info.segment == durable.end.segment {
            let holder = before.filter(|_| durable.end.offset <= FRAMES_OFFSET);
            let (end, first) = holder.unwrap_or((durable.end, info.first_lsn));
            return (Watermark { end, ..durable }, first);
        }
        before = info.end.map(|end| (Position::new(info.segment, end.frames_end), info.first_lsn));
    }
    (durable, Lsn::ZERO)
}

impl<B> Request<B> {
    pub(super) const fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    pub(super) const fn blocks_appends(&self) -> bool {
        matches!(self, Self::Running { kind: Kind::Truncate(_) | Kind::Close, .. })
    }

    pub(super) const fn wants_sync(&self) -> bool {
        matches!(self, Self::Running { step: RequestStep::Mark, .. })
    }
}

impl<B: Buffer> Log<B> {
    /// Asks for all segments to be deleted whose records all come before `lsn`. The active segment
    /// stays. See [`Log::take_request_result`].
    ///
    /// # Errors
    /// When another request runs, or the log is closed or poisoned.
    pub fn delete_before(&mut self, lsn: Lsn) -> Result<(), RequestError> {
        self.admit_request()?;
        let kind = Kind::DeleteBefore(lsn);
        self.request = Request::Running { kind, step: RequestStep::Drain, is_running: false };
        Ok(())
    }

    /// Counts the segments before `lsn`, now that none is on its way to being sealed.
    fn begin_deletion(&mut self, lsn: Lsn) {
        let is_before = |info: &&SegmentInfo| info.end.is_some_and(|end| end.last_lsn < lsn);
        let mut count = self.sealed.iter().take_while(is_before).count();
        if self.open.is_empty() {
            // The next segment's link needs one to point at.
            count = count.min(self.sealed.len().saturating_sub(1));
        }
        let first = self.segments().nth(count);
        let Some(first) = first.filter(|_| count > 0) else {
            return self.end_request(Ok(()));
        };
        let (first_segment, first_lsn) = (first.segment, first.first_lsn);
        let kind = Kind::Delete { count, first_segment, first_lsn };
        let step = RequestStep::Manifest(None);
        self.request = Request::Running { kind, step, is_running: false };
    }

    /// Asks for all records after `lsn` to be taken off the log; the next append gets `lsn + 1`. In
    /// the meantime appends are [`AppendError::Busy`]. See [`Log::take_request_result`].
    ///
    /// # Errors
    /// When `lsn` is beyond the end or before the beginning, another request runs, or the log is
    /// closed or poisoned.
    pub fn truncate_after(&mut self, lsn: Lsn) -> Result<(), RequestError> {
        self.admit_request()?;
        let (first, last) = (self.first_lsn(), self.appended.lsn);
        if lsn > last {
            return Err(RequestError::BeyondEnd { lsn, last });
        }
        if lsn.next() < first {
            return Err(RequestError::Deleted { lsn, first });
        }
        if lsn == last {
            self.request_result = Some(Ok(()));
            return Ok(());
        }
        self.begin_request(Kind::Truncate(lsn));
        Ok(())
    }

    /// Asks for a clean end: everything durable, a mark behind it. The log takes no appends from
    /// now on. See [`Log::take_request_result`].
    ///
    /// # Errors
    /// When another request runs, or the log is closed or poisoned.
    pub fn close(&mut self) -> Result<(), RequestError> {
        self.admit_request()?;
        self.begin_request(Kind::Close);
        Ok(())
    }

    /// How the last request ended; `None` while it runs, and when this has been asked already.
    pub fn take_request_result(&mut self) -> Option<Result<(), RequestError>> {
        self.request_result.take()
    }

    fn admit_request(&self) -> Result<(), RequestError> {
        match self.poison {
            Some(poison) => Err(RequestError::Poisoned(poison)),
            None if self.is_closed => Err(RequestError::Closed),
            None if self.request.is_running() || self.request_result.is_some() => {
                Err(RequestError::Busy)
            }
            None => Ok(()),
        }
    }

    fn begin_request(&mut self, kind: Kind) {
        self.request = Request::Running { kind, step: RequestStep::Drain, is_running: false };
        self.want_durable = self.want_durable.max(self.appended.lsn);
    }

    pub(super) fn end_request(&mut self, result: Result<(), RequestError>) {
        if self.request.is_running() {
            self.request = Request::Idle;
            self.request_result = Some(result);
        }
    }

    pub(super) fn poll_request(&mut self) -> Option<Command<B>> {
        if let Request::Running { kind, step: RequestStep::Drain, .. } = self.request
            && self.is_quiet(kind)
        {
            self.begin_quiet(kind);
        }
        let Request::Running { kind, step, is_running: is_running @ false } = &mut self.request
        else {
            return None;
        };
        let kind = *kind;
        match step {
            RequestStep::Drain => return None,
            RequestStep::Mark => {
                let is_durable = self.open.last().is_none_or(|open| open.synced.offset == open.end);
                if !is_durable {
                    return None;
                }
                *step = if self.open.is_empty() {
                    RequestStep::Manifest(None)
                } else {
                    RequestStep::Trim
                };
                return self.poll_request();
            }
            RequestStep::Manifest(_) if self.manifest_running.is_some() => return None,
            _ => *is_running = true,
        }
        self.request_command(kind)
    }

    /// Whether nothing is on its way that the request must not cross.
    fn is_quiet(&self, kind: Kind) -> bool {
        if let Kind::DeleteBefore(_) = kind {
            return self.open.len() < 2;
        }
        let is_open_quiet = self.open.len() < 2 && !self.open.iter().any(Open::is_busy);
        self.durable.lsn == self.appended.lsn
            && self.flights.is_empty()
            && self.batches.queued.is_empty()
            && is_open_quiet
            && self.spare.is_settled()
            && self.recyclable.is_settled()
            && self.rollback.is_none()
            && self.manifest_running.is_none()
            && !self.manifest_due
    }

    /// A full disk has undone what came after a record. A request that began with it has not: a
    /// close would say that it is durable, a truncation keep what is not there.
    pub(super) fn request_undone(&mut self, after: Lsn, failure: Failure) {
        let is_concerned = match self.request {
            Request::Running { kind: Kind::Close, step: RequestStep::Drain, .. } => true,
            Request::Running { kind: Kind::Truncate(lsn), step: RequestStep::Drain, .. } => {
                lsn > after
            }
            Request::Running { .. } | Request::Idle => false,
        };
        if is_concerned {
            self.end_request(Err(RequestError::DiskFull(failure)));
        }
    }

    fn begin_quiet(&mut self, kind: Kind) {
        let step = match kind {
            Kind::DeleteBefore(lsn) => return self.begin_deletion(lsn),
            Kind::Delete { .. } => RequestStep::Manifest(None),
            // A full disk has undone all that was to go.
            Kind::Truncate(lsn) if lsn == self.appended.lsn => return self.end_request(Ok(())),
            Kind::Truncate(lsn) => self.locate(lsn),
            Kind::Close => match self.put_mark() {
                Ok(()) => RequestStep::Mark,
                Err(_) => return,
            },
        };
        self.request = Request::Running { kind, step, is_running: false };
    }

    fn put_mark(&mut self) -> Result<(), AppendError> {
        if self.open.is_empty() || self.is_marked {
            return Ok(());
        }
        self.fill()?;
        let frame = self.frame();
        let before = self.batches.filling.as_ref().map_or(0, Batch::bytes);
        if let Some(batch) = &mut self.batches.filling {
            frame.put_body(&mut batch.buffer, FrameKind::Mark, &[]);
        }
        let after = self.batches.filling.as_ref().map_or(0, Batch::bytes);
        self.take_in(&frame, after - before, 0, 0, crate::config::Level::Buffered);
        self.is_marked = true;
        self.batches.seal_filling();
        Ok(())
    }

    /// Where the log ends when `lsn` is its last record, or a scan to find out.
    fn locate(&mut self, lsn: Lsn) -> RequestStep<B> {
        let holder = self.segments().filter(|info| info.first_lsn <= lsn).last();
        let Some(info) = holder.filter(|_| lsn >= self.first_lsn()) else {
            return RequestStep::Manifest(None);
        };
        if let Some(end) = info.end.filter(|end| end.last_lsn == lsn) {
            return RequestStep::Manifest(Some(CutAt {
                segment: info.segment,
                frames_end: end.frames_end,
                next_lsn: lsn.next(),
                is_active: false,
            }));
        }
        let open = self.open_segment(info.segment);
        let limit = info.end.map_or_else(|| self.appended.end.offset, |end| end.frames_end);
        let from = open.and_then(|open| open.index.before_lsn(lsn));
        let scan = SegmentScan::new(ScanStart {
            segment: info.segment,
            salt: info.salt,
            checksum: info.checksum,
            earlier: None,
            crc: self.config.crc,
            offset: from.map_or(FRAMES_OFFSET, |entry| entry.offset),
            lsn: from.map_or(info.first_lsn, |entry| entry.lsn),
            limit,
            last_lsn: Some(lsn),
        });
        RequestStep::Locate(Box::new(scan), self.batches.take_free())
    }

    fn request_command(&mut self, kind: Kind) -> Option<Command<B>> {
        let Request::Running { step, .. } = &mut self.request else { return None };
        match step {
            RequestStep::Drain | RequestStep::Mark => None,
            RequestStep::Locate(scan, buffer) => {
                let (offset, bytes) = scan.wants()?;
                let mut buffer = buffer.take()?;
                let wanted = bytes.min(self.config.batch_bytes);
                buffer.resize(usize::try_from(wanted).unwrap_or(0));
                let file = FileId::Segment(scan.segment());
                let id = self.issue(Job::Request, Operation::Read, Some(file));
                Some(Command::Read(Read { id, name: file.name(), offset, buffer }))
            }
            RequestStep::Trim => {
                let active = self.open.last()?;
                let (name, bytes) = (FileId::Segment(active.identity.segment).name(), active.end);
                let id = self.issue(Job::Request, Operation::Truncate, Some(name.file));
                Some(Command::Truncate(Truncate { id, name, bytes }))
            }
            RequestStep::Manifest(cut) => {
                let cut = *cut;
                Some(self.request_manifest(kind, cut))
            }
            RequestStep::Remove(names, _) => {
                let name = *names.front()?;
                let id = self.issue(Job::Request, Operation::Remove, Some(name.file));
                Some(Command::Remove(Remove { id, name }))
            }
            RequestStep::SyncDir(_) => Some(self.sync_log_folder(Job::Request)),
            RequestStep::CutTail(cut) => {
                let (name, bytes) = (FileId::Segment(cut.segment).name(), cut.frames_end);
                let id = self.issue(Job::Request, Operation::Truncate, Some(name.file));
                Some(Command::Truncate(Truncate { id, name, bytes }))
            }
            RequestStep::Footer(cut) => {
                let cut = *cut;
                self.footer_command(cut)
            }
        }
    }

    fn request_manifest(&mut self, kind: Kind, cut: Option<CutAt>) -> Command<B> {
        let durable = self.durable;
        let next_segment = self.next_segment;
        let last_open = self.segments().last().map_or(SegmentId::NONE, |info| info.segment);
        self.write_manifest(ManifestFor::Request, |manifest| match (kind, cut) {
            (Kind::DeleteBefore(_), _) => manifest,
            (Kind::Delete { first_segment, first_lsn, .. }, _) => {
                Manifest { first_segment, first_lsn, durable, ..manifest }
            }
            (Kind::Truncate(lsn), Some(cut)) => Manifest {
                last_segment: cut.segment,
                durable: Watermark { lsn, end: Position::new(cut.segment, cut.frames_end) },
                cap: Some(Cap { segment: cut.segment, lsn, resume: next_segment }),
                ..manifest
            },
            (Kind::Truncate(lsn), None) => Manifest {
                first_segment: next_segment,
                first_lsn: lsn.next(),
                last_segment: SegmentId::NONE,
                durable: Watermark { lsn, end: Position::default() },
                cap: None,
                ..manifest
            },
            (Kind::Close, _) => {
                Manifest { last_segment: last_open, durable, is_clean: true, ..manifest }
            }
        })
    }

    /// A write of the changed manifest over its older slot.
    pub(super) fn write_manifest(
        &mut self,
        purpose: ManifestFor,
        change: impl FnOnce(Manifest) -> Manifest,
    ) -> Command<B> {
        let manifest = change(Manifest {
            generation: self.manifest.generation + 1,
            is_clean: false,
            ..self.manifest
        });
        let (durable, durable_first) = durable_place(manifest.durable, self.segments());
        let manifest = Manifest { durable, durable_first, ..manifest };
        self.manifest_running = Some(manifest);
        let file = FileId::Manifest;
        let id = self.issue(Job::Manifest(purpose), Operation::Write, Some(file));
        Command::Write(Write {
            id,
            name: file.name(),
            offset: manifest.slot_offset(),
            data: Data::small(&manifest.encode(self.config.crc)),
            sync: true,
        })
    }

    pub(super) fn manifest_done(&mut self, purpose: ManifestFor, outcome: Result<(), Failure>) {
        let written = self.manifest_running.take();
        match (outcome, purpose) {
            (Ok(()), _) => {
                self.manifest = written.unwrap_or(self.manifest);
                if purpose == ManifestFor::Request {
                    self.manifest_recorded();
                }
            }
            // A file system that needs room even to overwrite: what was to be recorded is not.
            (Err(failure), ManifestFor::Spare) if failure.error.is_no_space() => {
                self.events.tell(Event::Degraded(failure));
            }
            (Err(failure), ManifestFor::Request) if failure.error.is_no_space() => {
                self.events.tell(Event::DiskFull(failure));
                self.end_request(Err(RequestError::Failed(failure)));
            }
            (Err(failure), _) => self.fail(failure),
        }
    }

    /// The manifest says what will be: now it is so.
    fn manifest_recorded(&mut self) {
        let Request::Running { kind, step: RequestStep::Manifest(cut), .. } = &self.request else {
            return;
        };
        let (kind, cut) = (*kind, *cut);
        let mut names = VecDeque::new();
        match kind {
            Kind::DeleteBefore(_) => {}
            Kind::Delete { count, .. } => {
                for info in self.sealed.drain(..count) {
                    if !self.recyclable.keep(&info, &self.config) {
                        names.push_back(info.segment);
                    }
                }
            }
            Kind::Truncate(lsn) => names = self.cut_after(lsn, cut),
            Kind::Close => {
                if let Spare::Ready(made) = self.spare {
                    names.push_back(made.identity.segment);
                    self.spare = Spare::Idle;
                }
                names.extend(self.recyclable.drain());
            }
        }
        self.segments_version += 1;
        let names = names.into_iter().map(|segment| FileId::Segment(segment).name()).collect();
        self.go_on(kind, RequestStep::Remove(names, cut));
    }

    /// Takes everything after `lsn` out of the log's memory, and says which segments go.
    fn cut_after(&mut self, lsn: Lsn, cut: Option<CutAt>) -> VecDeque<SegmentId> {
        let mut gone = VecDeque::new();
        if let Spare::Ready(made) = self.spare {
            gone.push_back(made.identity.segment);
        }
        self.spare = Spare::Idle;
        let kept = cut.map_or(SegmentId::NONE, |cut| cut.segment);
        if let Some(open) = self.open.pop() {
            let info = open.info();
            if info.segment == kept {
                self.sealed.push_back(info);
                self.cut_segment = Some(open);
            } else {
                gone.push_back(info.segment);
            }
        }
        while let Some(info) = self.sealed.back()
            && info.segment > kept
        {
            gone.push_back(info.segment);
            self.sealed.pop_back();
        }
        if let (Some(info), Some(cut)) = (self.sealed.back_mut(), cut) {
            let has_footer = info.end.is_some_and(|end| end.has_footer);
            let frames_end = cut.frames_end;
            info.end = Some(SegmentEnd { last_lsn: lsn, frames_end, has_footer });
        }
        let offset = cut.map_or(0, |cut| cut.frames_end);
        let mark = Watermark { lsn, end: Position::new(kept, offset) };
        (self.appended, self.written, self.durable) = (mark, mark, mark);
        (self.want_written, self.want_durable) = (lsn, lsn);
        self.unsynced_since = None;
        self.is_marked = false;
        gone
    }

    fn footer_command(&mut self, cut: CutAt) -> Option<Command<B>> {
        let mut buffer = self.batches.take_free()?;
        let open = self.cut_segment.take()?;
        let Open { identity, link, mut index, .. } = open;
        index.cut(cut.frames_end);
        let mut body = Vec::new();
        let records = cut.next_lsn.since(link.first_lsn);
        seal::encode(&mut body, link.first_lsn, records, self.time_of_day(), &index);
        let frame = Frame {
            checksum: identity.checksum,
            crc: self.config.crc,
            place: Place {
                salt: identity.salt,
                segment: identity.segment,
                offset: cut.frames_end,
                lsn: cut.next_lsn,
            },
            durable: self.durable.lsn,
            now: self.time_of_day(),
        };
        frame.put_body(&mut buffer, FrameKind::Seal, &body);
        let file = FileId::Segment(cut.segment);
        let id = self.issue(Job::Request, Operation::Write, Some(file));
        let (name, data) = (file.name(), Data::Buffer(buffer));
        Some(Command::Write(Write { id, name, offset: cut.frames_end, data, sync: true }))
    }

    fn go_on(&mut self, kind: Kind, step: RequestStep<B>) {
        let step = match step {
            RequestStep::Remove(names, cut) if names.is_empty() => RequestStep::SyncDir(cut),
            step => step,
        };
        self.request = Request::Running { kind, step, is_running: false };
    }

    pub(super) fn request_done(&mut self, outcome: Result<(), Failure>, read: Option<(B, usize)>) {
        let request = core::mem::replace(&mut self.request, Request::Idle);
        let Request::Running { kind, step, .. } = request else {
            if let Some((buffer, _)) = read {
                self.batches.give_back(buffer);
            }
            return;
        };
        match step {
            RequestStep::Locate(scan, _) => self.located(kind, scan, outcome, read),
            RequestStep::Trim => {
                if let (Ok(()), Some(open)) = (outcome, self.open.last_mut()) {
                    open.file_was_cut(open.end);
                }
                self.tell_degraded(outcome);
                self.go_on(kind, RequestStep::Manifest(None));
            }
            RequestStep::Remove(mut names, cut) => {
                // A file that stays is removed by the next recovery.
                self.tell_degraded(outcome);
                names.pop_front();
                self.go_on(kind, RequestStep::Remove(names, cut));
            }
            RequestStep::SyncDir(cut) => {
                self.request =
                    Request::Running { kind, step: RequestStep::Drain, is_running: true };
                match (outcome, cut) {
                    (Err(failure), _) => self.fail(failure),
                    (Ok(()), Some(cut)) if cut.is_active => {
                        self.go_on(kind, RequestStep::CutTail(cut));
                    }
                    (Ok(()), _) => self.finish_request(kind),
                }
            }
            RequestStep::CutTail(cut) => {
                self.request =
                    Request::Running { kind, step: RequestStep::Drain, is_running: true };
                let Kind::Truncate(lsn) = kind else { return };
                if let Err(failure) = outcome {
                    self.fail(failure);
                } else if cut.next_lsn == lsn.next() {
                    self.go_on(kind, RequestStep::Footer(cut));
                } else {
                    // A batch that is kept in part would make the footer count too much.
                    self.cut_segment = None;
                    self.finish_request(kind);
                }
            }
            RequestStep::Footer(_) => {
                self.request =
                    Request::Running { kind, step: RequestStep::Drain, is_running: true };
                self.footer_done(kind, outcome);
            }
            RequestStep::Drain | RequestStep::Mark | RequestStep::Manifest(_) => {}
        }
    }

    fn footer_done(&mut self, kind: Kind, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => {
                if let Some(end) = self.sealed.back_mut().and_then(|info| info.end.as_mut()) {
                    end.has_footer = true;
                }
            }
            // Without a footer the segment is scanned at each open, and that is all.
            Err(failure) if failure.error.is_no_space() => {
                self.events.tell(Event::Degraded(failure));
            }
            Err(failure) => return self.fail(failure),
        }
        self.finish_request(kind);
    }

    fn located(
        &mut self,
        kind: Kind,
        mut scan: Box<SegmentScan>,
        outcome: Result<(), Failure>,
        read: Option<(B, usize)>,
    ) {
        self.request = Request::Running { kind, step: RequestStep::Drain, is_running: true };
        let (Ok(()), Some((buffer, bytes))) = (outcome, read) else {
            let error = outcome.map_or_else(RequestError::Failed, |()| RequestError::Busy);
            return self.end_request(Err(error));
        };
        let wanted = buffer.as_ref().len();
        scan.feed(&buffer.as_ref()[..bytes.min(wanted)], |_| {});
        if bytes < wanted
            && let Some((from, _)) = scan.wants()
        {
            scan.ends_at(from);
        }
        if scan.wants().is_some() && scan.report().holes.is_empty() {
            return self.go_on(kind, RequestStep::Locate(scan, Some(buffer)));
        }
        self.batches.give_back(buffer);
        let segment = scan.segment();
        let report = scan.into_report();
        let is_active = self.open.last().is_some_and(|open| open.identity.segment == segment);
        let reaches = matches!(kind, Kind::Truncate(lsn) if report.next_lsn > lsn);
        if !report.holes.is_empty() || !reaches {
            let error = RequestError::Damaged { segment, offset: report.end };
            return self.end_request(Err(error));
        }
        let (frames_end, next_lsn) = (report.end, report.next_lsn);
        let cut = CutAt { segment, frames_end, next_lsn, is_active };
        self.go_on(kind, RequestStep::Manifest(Some(cut)));
    }

    fn finish_request(&mut self, kind: Kind) {
        self.events.tell(match kind {
            Kind::DeleteBefore(_) => return self.end_request(Ok(())),
            Kind::Delete { count, first_lsn, .. } => {
                Event::Deleted { segments: count as u64, first_lsn }
            }
            Kind::Truncate(lsn) => Event::Truncated { last_lsn: lsn },
            Kind::Close => {
                self.is_closed = true;
                Event::Closed
            }
        });
        self.end_request(Ok(()));
    }
}
