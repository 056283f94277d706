//! What happened, for meters and logs. Nothing in the machine depends on anyone reading them: the
//! queue is bounded, and the oldest are dropped and counted.

use crate::error::{Failure, Poison};
use crate::id::{Lsn, SegmentId};
use alloc::collections::VecDeque;

/// Something that happened in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The log moved on to another segment.
    Rotated {
        /// The segment that ended.
        from: SegmentId,
        /// The segment that begins.
        to: SegmentId,
        /// The first LSN of the segment that begins.
        first_lsn: Lsn,
    },
    /// More is durable.
    Synced {
        /// Up to here.
        lsn: Lsn,
        /// This many records more than before.
        records: u64,
    },
    /// Old segments were deleted.
    Deleted {
        /// How many.
        segments: u64,
        /// The first record that is left.
        first_lsn: Lsn,
    },
    /// The end of the log was cut at a caller's request.
    Truncated {
        /// The last record that is left.
        last_lsn: Lsn,
    },
    /// There was no room. Appends work again when there is.
    DiskFull(Failure),
    /// Something that is not needed for safety failed; the log goes on without it.
    Degraded(Failure),
    /// A write or sync failed; the log takes nothing more.
    Poisoned(Poison),
    /// The log was closed cleanly.
    Closed,
}

/// How many events wait at most.
const WAITING_MAX: usize = 256;

/// Events on their way to the host.
#[derive(Debug, Default)]
pub(crate) struct Events {
    waiting: VecDeque<Event>,
    dropped: u64,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { waiting: VecDeque::with_capacity(WAITING_MAX), dropped: 0 }
    }

    pub(crate) fn tell(&mut self, event: Event) {
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(event);
    }

    pub(crate) fn poll(&mut self) -> Option<Event> {
        self.waiting.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}
