//! What changes under the lock: who waits for what, and who is satisfied.

use super::{Counters, Memory, Sleep, State};
use crate::dir::WriterLock;
use crate::error::Error;
use crate::execute::LastFile;
use crate::gather::Gather;
use crate::wait::{Outcome, SlotId, Slots, Turns, Wakes};
use seawall_core::command::{Command, Lane, Write};
use seawall_core::config::Level;
use seawall_core::error::AppendError;
use seawall_core::id::{Lsn, Time};
use seawall_core::log::{Appended, Log, RolledBack};
use seawall_core::record::Entry;
use std::collections::VecDeque;

impl State {
    pub(super) fn new(log: Log<Memory>, writer_lock: WriterLock) -> Self {
        Self {
            segments_version: log.segments_version(),
            last_file: None,
            log,
            background: VecDeque::new(),
            removals: VecDeque::new(),
            removing: 0,
            slots: Slots::default(),
            turns: Turns::default(),
            gather: Gather::default(),
            written: VecDeque::new(),
            durable: VecDeque::new(),
            busy: VecDeque::new(),
            following_written: VecDeque::new(),
            following_durable: VecDeque::new(),
            request: None,
            commits_sleep: Sleep::Awake,
            awake: 0,
            at_work: 0,
            under_way: 0,
            stops: false,
            writer_lock: Some(writer_lock),
            counters: Counters::default(),
        }
    }

    pub(super) fn count(&mut self, appended: &Appended, entries: &[Entry<'_>]) {
        self.counters.appends += 1;
        self.counters.records += appended.last.since(appended.first) + 1;
        self.counters.bytes += entries.iter().map(Entry::stored_bytes).sum::<u64>();
    }

    /// Takes a record on the core's fast path and gives its write, which sets out, and the file
    /// that the last one went to.
    pub(super) fn begin_fast(
        &mut self,
        entries: &[Entry<'_>],
        level: Level,
    ) -> Option<(Appended, Write<Memory>, Option<LastFile>)> {
        let ([entry], Level::Os) = (entries, level) else { return None };
        let (appended, write) = self.log.append_fast(entry)?;
        self.count(&appended, entries);
        self.turns.pass(true, false);
        Some((appended, write, self.last_file.take()))
    }

    /// Takes a record on the core's fast path, to be written later.
    pub(super) fn buffer_fast(&mut self, entries: &[Entry<'_>], level: Level) -> Option<Appended> {
        let ([entry], Level::Buffered) = (entries, level) else { return None };
        let appended = self.log.append_fast_buffered(entry)?;
        self.count(&appended, entries);
        Some(appended)
    }

    /// Whether there is nothing to do and nobody to tell.
    pub(super) fn is_calm(&self) -> bool {
        !self.log.is_anything_due()
            && self.written.is_empty()
            && self.busy.is_empty()
            && self.following_written.is_empty()
            && self.segments_version == self.log.segments_version()
    }

    /// A slot to wait in for anything to go on, where an append cannot be taken just now.
    pub(super) fn later(&mut self, refusal: Option<Error>) -> Result<SlotId, Error> {
        match refusal {
            Some(error) => Err(error),
            None => {
                let slot = self.slots.take();
                self.put_busy(slot);
                Ok(slot)
            }
        }
    }

    pub(super) fn put_busy(&mut self, slot: SlotId) {
        self.slots.make_room(&mut self.busy, |waiter| *waiter);
        self.busy.push_back(slot);
    }

    pub(super) fn register(&mut self, level: Level, lsn: Lsn) -> SlotId {
        let slot = self.slots.take();
        let queue = if level == Level::Disk { &mut self.durable } else { &mut self.written };
        self.slots.make_room(queue, |(_, waiter)| *waiter);
        // In order of LSN; nearly always that is the end.
        let at = queue.iter().rposition(|(other, _)| *other <= lsn).map_or(0, |at| at + 1);
        queue.insert(at, (lsn, slot));
        slot
    }

    /// Tells the log the time. A sync that falls due does not wait for anybody.
    pub(super) fn tick(&mut self, now: Time) {
        if self.log.tick(now) {
            self.gather.give_up();
        }
    }

    /// Whether the next sync waits for more who want it, and nothing else is wanted.
    pub(super) fn holds_back(&self) -> bool {
        self.gather.holds(self.durable.len())
            && self.written.is_empty()
            && self.request.is_none()
            && !self.stops
            && self.log.poison().is_none()
    }

    /// What is to be written or synced now.
    pub(super) fn next_commit(&mut self) -> Option<Command<Memory>> {
        if self.holds_back() { None } else { self.set_out() }
    }

    /// What is to be written or synced now, whoever is expected. Nothing sets out once the log's
    /// threads have ended: another may have its lock.
    pub(super) fn set_out(&mut self) -> Option<Command<Memory>> {
        if self.stops && self.at_work == 0 {
            return None;
        }
        let command = self.log.poll_lane(Lane::Commit)?;
        self.under_way += 1;
        let (is_write, is_sync) = match &command {
            Command::Write(write) => (true, write.sync),
            _ => (false, true),
        };
        self.turns.pass(is_write, is_sync);
        if is_sync {
            self.gather.set_out();
        }
        Some(command)
    }

    /// Something to do for the upkeep.
    pub(super) fn next_upkeep(&mut self) -> Option<Command<Memory>> {
        let command = self.background.pop_front()?;
        self.under_way += 1;
        Some(command)
    }

    /// Tells those whose records have got as far as they want.
    pub(super) fn settle(&mut self, wakes: &mut Wakes) {
        let (written, durable) = (self.log.written().lsn, self.log.durable().lsn);
        for (queue, reached) in [(&mut self.written, written), (&mut self.durable, durable)] {
            while let Some((lsn, slot)) = queue.front().copied()
                && lsn <= reached
            {
                queue.pop_front();
                self.slots.finish(slot, Outcome::Reached, wakes);
            }
        }
        if let Some(result) = self.log.take_request_result() {
            let outcome = result.map_or_else(Outcome::Request, |()| Outcome::Reached);
            if let Some(slot) = self.request.take() {
                self.slots.finish(slot, outcome, wakes);
            }
            for slot in std::mem::take(&mut self.busy) {
                self.slots.finish(slot, Outcome::Reached, wakes);
            }
        }
        if let Some(error) = self.end() {
            for (_, slot) in self.written.drain(..).chain(self.durable.drain(..)) {
                self.slots.finish(slot, Outcome::Append(error), wakes);
            }
            for slot in self.busy.drain(..).chain(self.request.take()) {
                self.slots.finish(slot, Outcome::Append(error), wakes);
            }
        }
    }

    /// Why nothing more will happen, if so.
    pub(super) fn end(&self) -> Option<AppendError> {
        match self.log.poison() {
            Some(poison) => Some(AppendError::Poisoned(poison)),
            None if self.log.is_closed() || (self.stops && self.at_work == 0) => {
                Some(AppendError::Closed)
            }
            None => None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.end().is_some()
    }

    /// Tells those whose records a full disk undid.
    pub(super) fn roll_back(&mut self, rolled_back: RolledBack, wakes: &mut Wakes) {
        let RolledBack { after, failure } = rolled_back;
        let outcome = Outcome::Append(AppendError::DiskFull(failure));
        for queue in [&mut self.written, &mut self.durable] {
            while let Some((lsn, slot)) = queue.back().copied()
                && lsn > after
            {
                queue.pop_back();
                self.slots.finish(slot, outcome, wakes);
            }
        }
    }
}
