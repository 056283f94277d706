//! What may be asked of a log that is open: how far it has come, and where things stand.

use super::Engine;
use crate::error::Error;
use crate::reader::Source;
use crate::{SegmentStat, Stats};
use seawall_core::cursor::Start;
use seawall_core::id::{Lsn, Position, SegmentId, Watermark};
use seawall_core::log::SegmentInfo;
use std::sync::Arc;

impl Engine {
    pub(crate) fn durable(&self) -> Watermark {
        self.lock().log.durable()
    }

    pub(crate) fn written(&self) -> Watermark {
        self.lock().log.written()
    }

    pub(crate) fn appended(&self) -> Watermark {
        self.lock().log.appended()
    }

    /// The first record that is retained, and the last one appended.
    pub(crate) fn extent(&self) -> (Lsn, Lsn) {
        let state = self.lock();
        (state.log.first_lsn(), state.log.appended().lsn)
    }

    /// Whether records may still come.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().end().is_none()
    }

    pub(crate) fn segments(&self) -> (Vec<SegmentInfo>, Lsn) {
        let state = self.lock();
        (state.log.segments().collect(), state.log.first_lsn())
    }

    /// How many of the oldest segments that there were have gone. Meanwhile others may have come.
    pub(crate) fn gone(&self, had: &[SegmentInfo]) -> u64 {
        let first = self.lock().log.segments().next().map(|info| info.segment);
        let is_gone = |info: &&SegmentInfo| first.is_some_and(|first| info.segment < first);
        had.iter().take_while(is_gone).count() as u64
    }

    pub(crate) fn frame_before_lsn(&self, segment: SegmentId, lsn: Lsn) -> Option<(u64, Lsn)> {
        self.lock().log.frame_before_lsn(segment, lsn)
    }

    pub(crate) fn frame_before_offset(&self, at: Position) -> Option<(u64, Lsn)> {
        self.lock().log.frame_before_offset(at.segment, at.offset)
    }

    /// The record that a deletion up to `start` keeps first, at the latest, and the segments that
    /// there are before it.
    pub(crate) fn before_deletion(&self, start: Start) -> Result<(Lsn, Vec<SegmentInfo>), Error> {
        let state = self.enter()?;
        let lsn = match start {
            Start::First => state.log.first_lsn(),
            Start::Lsn(lsn) => lsn,
            Start::Position(at) => {
                let mut segments = state.log.segments();
                let holder = segments.find(|info| info.segment >= at.segment);
                holder.map_or(state.log.appended().lsn.next(), |info| info.first_lsn)
            }
        };
        Ok((lsn, state.log.segments().collect()))
    }

    /// Where the last record begins: see [`position_of`](crate::reader::position_of).
    pub(super) fn last_record_position(
        self: &Arc<Self>,
        near: Option<Position>,
    ) -> Result<Option<Position>, Error> {
        let (last, first) = {
            let state = self.lock();
            (state.log.appended().lsn, state.log.first_lsn())
        };
        if last < first {
            return Ok(None);
        }
        crate::reader::position_of(Source::Live(self.clone()), last, near)
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        let counters = state.counters;
        let appended = state.log.appended();
        let mut segments: Vec<SegmentStat> = state.log.segments().map(SegmentStat::from).collect();
        if let Some(active) = segments.last_mut().filter(|segment| !segment.is_sealed) {
            active.last_lsn = appended.lsn;
            active.bytes = appended.end.offset;
        }
        Stats {
            log: self.id,
            first_lsn: state.log.first_lsn(),
            last_lsn: appended.lsn,
            written_lsn: state.log.written().lsn,
            durable_lsn: state.log.durable().lsn,
            end: appended.end,
            segments,
            appends: counters.appends,
            records: counters.records,
            bytes_appended: counters.bytes,
            writes: counters.writes,
            syncs: counters.syncs,
            sync_time: counters.sync_time,
        }
    }
}
