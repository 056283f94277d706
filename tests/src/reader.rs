//! A reader beside a log that is written, in small actions between which anything may happen: what
//! it has read may be old when it looks at it.

use crate::disk::{Disk, Memory};
use crate::opening::slice;
use crate::oracle::{Oracle, Verdict, broken};
use alloc::format;
use alloc::vec::Vec;
use seawall_core::cursor::{Cursor, Step, Target};
use seawall_core::id::{Lsn, SegmentId, Watermark};
use seawall_core::log::{Log, SegmentInfo};

/// A reader.
#[derive(Debug)]
pub struct Reader {
    /// Whether it is shown only what is durable.
    pub is_durable: bool,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    cursor: Cursor<Vec<u8>>,
    /// Bytes that were read and not looked at.
    read: Option<(u64, Vec<u8>, bool)>,
    /// The record that comes next.
    next: Lsn,
    version: u64,
}

impl Reader {
    /// A reader that has not begun.
    pub const fn new(is_durable: bool) -> Self {
        Self { is_durable, place: None }
    }

    /// The log that it read is gone.
    pub fn stop(&mut self) {
        self.place = None;
    }

    /// Goes on by one action. `start`: a number from which follows where it begins, if it has not.
    /// False: there is nothing to read for now.
    ///
    /// # Errors
    /// When it is shown what it must not be shown. `is_suspect`: the disk has lied, and damage may
    /// be told.
    pub fn go_on(
        &mut self,
        log: &Log<Memory>,
        disk: &Disk,
        oracle: &mut Oracle,
        start: u64,
        is_suspect: bool,
    ) -> Verdict<bool> {
        let is_durable = self.is_durable;
        let visible = if is_durable { log.durable() } else { log.written() };
        let Some(place) = &mut self.place else {
            self.place = Place::begin(log, start);
            return Ok(self.place.is_some());
        };
        if place.version != log.segments_version() && !place.look_again(log) {
            self.place = None;
            return Ok(true);
        }
        if let Some((offset, bytes, is_short)) = place.read.take() {
            place.cursor.fill(offset, bytes, is_short);
        }
        let segment = *place.cursor.segment();
        let limit = limit(&segment, visible);
        match place.cursor.step(limit) {
            Step::Record(record, _) => {
                let lsn = record.lsn;
                if lsn != place.next {
                    return broken(2, format!("a reader was shown {lsn} after {}", place.next));
                }
                place.next = lsn.next();
                oracle.show(lsn.get(), &[record.key, record.stored], is_durable)?;
                Ok(true)
            }
            Step::Read { offset, bytes } => {
                let Some((part, is_short)) = slice(disk, segment.segment, offset, bytes) else {
                    return broken(18, format!("segment {} is gone", segment.segment));
                };
                place.read = Some((offset, part.to_vec(), is_short));
                Ok(true)
            }
            Step::End => Ok(place.enter_next(log, visible)),
            _ if is_suspect => {
                self.place = None;
                Ok(true)
            }
            step => broken(18, format!("a reader cannot read {}: {step:?}", place.next)),
        }
    }
}

/// Up to where a segment may be shown.
fn limit(segment: &SegmentInfo, visible: Watermark) -> u64 {
    match segment.segment.cmp(&visible.end.segment) {
        core::cmp::Ordering::Less => segment.end.map_or(0, |end| end.frames_end),
        core::cmp::Ordering::Equal => {
            segment.end.map_or(visible.end.offset, |end| end.frames_end.min(visible.end.offset))
        }
        core::cmp::Ordering::Greater => 0,
    }
}

impl Place {
    fn begin(log: &Log<Memory>, start: u64) -> Option<Self> {
        let (first, last) = (log.first_lsn(), log.appended().lsn);
        let next = first.plus(start % (last.next().since(first) + 1));
        let holder = log.segments().filter(|info| info.first_lsn <= next).last()?;
        let crc = log.config().crc;
        let mut cursor = Cursor::new(holder, crc, 64 << (start >> 32 & 7), 1 << 20);
        let near = log.frame_before_lsn(holder.segment, next);
        cursor.seek(Target::Lsn(next), near);
        Some(Self { cursor, read: None, next, version: log.segments_version() })
    }

    /// Looks at where the log's segments end now. False: what comes next is not there any more.
    fn look_again(&mut self, log: &Log<Memory>) -> bool {
        self.version = log.segments_version();
        let here = self.cursor.segment().segment;
        let found = log.segments().find(|info| info.segment == here);
        match found {
            // A full disk may undo the move into a segment, which then begins with another record.
            Some(info) if info.first_lsn == self.cursor.segment().first_lsn => {
                self.cursor.set_segment(info);
                let last = info.end.map_or(log.appended().lsn, |end| end.last_lsn);
                self.next >= log.first_lsn() && self.next <= last.next()
            }
            _ => false,
        }
    }

    /// At the end of a segment that is all shown, goes on with the next.
    fn enter_next(&mut self, log: &Log<Memory>, visible: Watermark) -> bool {
        let here: SegmentId = self.cursor.segment().segment;
        let is_all_shown = self
            .cursor
            .segment()
            .end
            .is_some_and(|end| self.next > end.last_lsn && here < visible.end.segment);
        let next = log.segments().find(|info| info.segment > here);
        match next.filter(|info| is_all_shown && info.first_lsn <= self.next) {
            Some(info) => {
                self.cursor.enter(info);
                self.cursor.seek(Target::Lsn(self.next), None);
                true
            }
            None => false,
        }
    }
}
