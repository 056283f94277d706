//! Going through the segments of a log, oldest first, by every frame where no footer will do.

use super::arrange::{Arranged, Arrangement};
use super::verdict::Walked;
use crate::config::Config;
use crate::id::Lsn;
use crate::scan::{ScanStart, SegmentScan};
use crate::wire::checksum::Crc32cFn;
use crate::wire::header::{FRAMES_OFFSET, Identity, LinkState};
use crate::wire::known::Known;
use crate::wire::manifest::Manifest;
use crate::wire::name::{FileId, FileName};
use crate::wire::seal::Index;
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
    segment_bytes_max: u64,
    /// `None`: there is nothing more to scan.
    scanning: Option<Box<Scanning>>,
}

/// A segment whose every frame is looked at.
#[derive(Debug)]
struct Scanning {
    scan: SegmentScan,
    index: Index,
}

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
            segment_bytes_max: config.segment_bytes_max,
            scanning: None,
        };
        walk.begin();
        walk
    }

    fn current(&self) -> Option<&Arranged> {
        self.arrangement.live.get(self.walked.len())
    }

    /// Which bytes are wanted: of which file, from where, how many at most. `None`: it is over.
    pub(super) fn wants(&self) -> Option<(FileName, u64, u64)> {
        let name = FileId::Segment(self.current()?.segment).name();
        self.scanning.as_ref()?.scan.wants().map(|(offset, bytes)| (name, offset, bytes))
    }

    pub(super) fn is_over(&self) -> bool {
        self.wants().is_none()
    }

    pub(super) fn feed(&mut self, content: &[u8], is_short: bool) {
        let Some(mut scanning) = self.scanning.take() else { return };
        let Scanning { scan, index } = &mut *scanning;
        let from = scan.wants().map_or(0, |(from, _)| from);
        scan.feed(content, |found| {
            if found.head.count > 0 {
                index.note(found.lsn, found.offset);
            }
        });
        if is_short {
            scan.ends_at(from + content.len() as u64);
        }
        if scan.wants().is_none() {
            self.end_scan(*scanning);
            self.begin();
        } else {
            self.scanning = Some(scanning);
        }
    }

    /// Segments that have ended, all of whose frames were looked at, and nothing was amiss.
    pub(super) fn read_whole(&self) -> Vec<Known> {
        let segments = self.arrangement.live.iter().zip(&self.walked);
        let read_whole = segments.filter_map(|(arranged, walked)| {
            let (identity, end) = (arranged.identity?, arranged.end?);
            let LinkState::Written(link) = arranged.link else { return None };
            let report = walked.report.as_ref()?;
            let is_whole = report.holes.is_empty()
                && report.end == end.offset
                && report.last_next_lsn >= end.next_lsn;
            is_whole.then_some(Known { identity, link, end })
        });
        read_whole.collect()
    }

    /// Goes on with the next segment that has bytes to read.
    fn begin(&mut self) {
        while let Some(arranged) = self.current().copied() {
            self.next_lsn = self.first_lsn(&arranged);
            let Some(identity) = arranged.identity else {
                self.end_segment(Walked { first_lsn: self.next_lsn, ..Walked::unread() });
                continue;
            };
            if let Some(end) = arranged.end
                && arranged.vouched == Some(end)
                && end.next_lsn.previous() <= self.durable
            {
                self.walked.push(Walked::unread());
                self.next_lsn = end.next_lsn;
                continue;
            }
            if self.begin_scan(&arranged, &identity) {
                return;
            }
        }
    }

    /// The LSN that a segment begins with: its link says it, or what came before.
    fn first_lsn(&self, arranged: &Arranged) -> Lsn {
        match arranged.link {
            LinkState::Written(link) => link.first_lsn,
            LinkState::Unwritten | LinkState::Broken => self.next_lsn,
        }
    }

    /// Scans the current segment; false when it has no bytes to scan.
    fn begin_scan(&mut self, arranged: &Arranged, identity: &Identity) -> bool {
        let file_end = arranged.file_bytes;
        let scan = SegmentScan::new(ScanStart {
            segment: arranged.segment,
            salt: identity.salt,
            checksum: identity.checksum,
            earlier: identity.earlier,
            crc: self.crc,
            offset: FRAMES_OFFSET,
            lsn: self.next_lsn,
            limit: arranged.end.map_or(file_end, |end| end.offset.min(file_end)),
            last_lsn: arranged.cap,
        });
        let room = if arranged.end.is_some() { 0 } else { self.segment_bytes_max };
        let scanning = Scanning { scan, index: Index::with_room_for(room) };
        let has_bytes = scanning.scan.wants().is_some();
        if has_bytes {
            self.scanning = Some(Box::new(scanning));
        } else {
            self.end_scan(scanning);
        }
        has_bytes
    }

    fn end_scan(&mut self, scanning: Scanning) {
        let Scanning { scan, index } = scanning;
        let (first_lsn, report) = (self.next_lsn, Some(scan.into_report()));
        self.end_segment(Walked { first_lsn, report, index });
    }

    fn end_segment(&mut self, walked: Walked) {
        if let Some(report) = &walked.report {
            let kept = self.current().and_then(|arranged| arranged.cap);
            let kept = kept.map_or(report.last_next_lsn, Lsn::next);
            self.next_lsn = report.last_next_lsn.min(kept);
        }
        self.walked.push(walked);
    }
}
