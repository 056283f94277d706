//! Going through the segments of a log, oldest first: a footer where one will do, else every frame.

use super::verdict::{Arranged, Arrangement, Walked};
use crate::config::{Config, RecoveryScan};
use crate::id::Lsn;
use crate::scan::{ScanStart, SegmentScan};
use crate::wire::checksum::{Crc32cFn, Place};
use crate::wire::frame::{FrameKind, Head, Parsed};
use crate::wire::header::{FRAMES_OFFSET, LinkState};
use crate::wire::manifest::Manifest;
use crate::wire::name::{FileId, FileName};
use crate::wire::seal::{self, Index};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) arrangement: Arrangement,
    pub(super) manifest: Manifest,
    pub(super) walked: Vec<Walked>,
    pub(super) next_lsn: Lsn,
    crc: Crc32cFn,
    /// Up to here the manifest and the links say that records were durable. A footer vouches only
    /// for a segment that ends before: of one that was being synced when the power failed, the
    /// footer may have reached the disk and what stands before it not.
    durable: Lsn,
    scans_all: bool,
    segment_bytes_max: u64,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The footer of the segment, as far as it has been read.
    Footer {
        offset: u64,
        bytes: Vec<u8>,
        wanted: u64,
    },
    Scan(Box<Scanning>),
    End,
}

/// A segment whose every frame is looked at.
#[derive(Debug)]
struct Scanning {
    scan: SegmentScan,
    index: Index,
}

/// A footer's head is within so many bytes.
const FOOTER_LOOK_BYTES: u64 = 4_096;

impl Walk {
    pub(super) fn new(arrangement: Arrangement, manifest: Manifest, config: &Config) -> Self {
        let links = arrangement.live.iter().filter_map(|arranged| match arranged.link {
            LinkState::Written(link) => Some(link.durable),
            LinkState::Unwritten | LinkState::Broken => None,
        });
        let mut walk = Self {
            durable: links.chain([manifest.durable.lsn]).max().unwrap_or_default(),
            next_lsn: arrangement.first_lsn,
            arrangement,
            manifest,
            walked: Vec::new(),
            crc: config.crc,
            scans_all: config.scan == RecoveryScan::Full,
            segment_bytes_max: config.segment_bytes_max,
            step: Step::End,
        };
        walk.begin();
        walk
    }

    fn current(&self) -> Option<&Arranged> {
        self.arrangement.live.get(self.walked.len())
    }

    /// Which bytes are wanted: of which file, from where, how many at most. `None`: it is over.
    pub(super) fn wants(&mut self) -> Option<(FileName, u64, u64)> {
        let name = FileId::Segment(self.current()?.segment).name();
        match &self.step {
            Step::Footer { offset, bytes, wanted } => {
                let have = bytes.len() as u64;
                Some((name, offset + have, wanted - have))
            }
            Step::Scan(scanning) => {
                scanning.scan.wants().map(|(offset, bytes)| (name, offset, bytes))
            }
            Step::End => None,
        }
    }

    pub(super) fn feed(&mut self, content: &[u8], is_short: bool) {
        match &mut self.step {
            Step::Footer { bytes, wanted, .. } => {
                bytes.extend_from_slice(content);
                if is_short || bytes.len() as u64 >= *wanted {
                    self.look_at_footer(is_short);
                }
            }
            Step::Scan(scanning) => {
                let Scanning { scan, index } = &mut **scanning;
                let wanted = scan.wants();
                scan.feed(content, |found| {
                    if found.head.count > 0 {
                        index.note(found.lsn, found.offset);
                    }
                });
                if is_short && let Some((from, _)) = wanted {
                    scan.ends_at(from + content.len() as u64);
                }
                if scan.wants().is_none() {
                    self.end_scan();
                }
            }
            Step::End => {}
        }
    }

    /// Goes on with the next segment that has bytes to read.
    fn begin(&mut self) {
        while let Some(arranged) = self.current().copied() {
            let (end, first) = (arranged.end, self.first_lsn(&arranged));
            self.next_lsn = first;
            if arranged.identity.is_none() {
                let walked = Walked { first_lsn: first, ..Walked::unread() };
                self.end_segment(walked);
                continue;
            }
            if let Some(end) = end
                && !self.scans_all
                && arranged.is_linked()
                && end.next_lsn.previous() <= self.durable
            {
                let (offset, wanted) = (end.offset, FOOTER_LOOK_BYTES);
                self.step = Step::Footer { offset, bytes: Vec::new(), wanted };
                return;
            }
            if self.begin_scan() {
                return;
            }
        }
        self.step = Step::End;
    }

    /// The LSN that a segment begins with: its link says it, or what came before.
    fn first_lsn(&self, arranged: &Arranged) -> Lsn {
        match arranged.link {
            LinkState::Written(link) => link.first_lsn,
            LinkState::Unwritten | LinkState::Broken => self.next_lsn,
        }
    }

    /// Scans the current segment; false when it has no bytes to scan.
    fn begin_scan(&mut self) -> bool {
        let Some(arranged) = self.current() else { return false };
        let Some(identity) = arranged.identity else { return false };
        let file_end = arranged.file_bytes;
        let scan = SegmentScan::new(ScanStart {
            segment: arranged.segment,
            salt: identity.salt,
            checksum: identity.checksum,
            crc: self.crc,
            offset: FRAMES_OFFSET,
            lsn: self.next_lsn,
            limit: arranged.end.map_or(file_end, |end| end.offset.min(file_end)),
            last_lsn: arranged.cap,
        });
        let room = if arranged.end.is_some() { 0 } else { self.segment_bytes_max };
        let has_bytes = scan.wants().is_some();
        let index = Index::with_room_for(room);
        self.step = Step::Scan(Box::new(Scanning { scan, index }));
        if !has_bytes {
            self.end_scan_at();
        }
        has_bytes
    }

    fn end_scan(&mut self) {
        self.end_scan_at();
        self.begin();
    }

    fn end_scan_at(&mut self) {
        let Step::Scan(scanning) = core::mem::replace(&mut self.step, Step::End) else {
            return;
        };
        let Scanning { scan, index } = *scanning;
        let first_lsn = self.next_lsn;
        let walked =
            Walked { first_lsn, report: Some(scan.into_report()), index, has_footer: false };
        self.end_segment(walked);
    }

    fn end_segment(&mut self, walked: Walked) {
        if let Some(report) = &walked.report {
            let kept = self.current().and_then(|arranged| arranged.cap);
            let kept = kept.map_or(report.last_next_lsn, Lsn::next);
            self.next_lsn = report.last_next_lsn.min(kept);
        }
        self.walked.push(walked);
    }

    /// Takes the segment as it is if its footer is whole, and scans it otherwise.
    fn look_at_footer(&mut self, is_short: bool) {
        let Some(arranged) = self.current().copied() else { return };
        let (Some(end), Some(identity)) = (arranged.end, arranged.identity) else { return };
        let Step::Footer { offset, bytes, wanted } = &mut self.step else { return };
        let head = match Head::parse(bytes, identity.checksum) {
            Parsed::Head(head) if head.kind == FrameKind::Seal => head,
            _ => return self.scan_instead(),
        };
        if (bytes.len() as u64) < head.frame_bytes {
            let is_there = !is_short && *offset + head.frame_bytes <= arranged.file_bytes;
            if is_there && *wanted < head.frame_bytes {
                *wanted = head.frame_bytes;
                return;
            }
            return self.scan_instead();
        }
        let frame = &bytes[..usize::try_from(head.frame_bytes).unwrap_or(0)];
        let place = Place {
            salt: identity.salt,
            segment: arranged.segment,
            offset: *offset,
            lsn: end.next_lsn,
        };
        let first = self.next_lsn;
        let seal = seal::parse(&frame[head.head_bytes.min(frame.len())..], first, end.offset);
        let is_whole = head.holds(frame, place, identity.checksum, self.crc)
            && seal.is_some_and(|seal| seal.records == end.next_lsn.since(first));
        if !is_whole {
            return self.scan_instead();
        }
        self.next_lsn = end.next_lsn;
        self.step = Step::End;
        self.walked.push(Walked { first_lsn: first, has_footer: true, ..Walked::unread() });
        self.begin();
    }

    fn scan_instead(&mut self) {
        if !self.begin_scan() {
            self.begin();
        }
    }
}
