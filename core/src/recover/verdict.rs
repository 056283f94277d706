//! The decision: where the log ends, and what becomes of the rest.
//!
//! Everything here is a function of what was read. When the live segments have been walked, the log
//! ends at the first place where a frame should stand and none does, or at its last frame. `n` is
//! the last record before that place, and `w` the highest record that anything read claims was
//! durable:
//!
//! | a hole | `w > n` | policy  | the log                                                      |
//! |--------|---------|---------|--------------------------------------------------------------|
//! | none   | no      | any     | is whole                                                     |
//! | zeros  | no      | any     | ends there: that space was never written                     |
//! | torn   | no      | any     | ends there; the rest was never known durable and is cut      |
//! | any    | yes     | prefix  | ends there; the rest goes to quarantine, then is cut         |
//! | any    | yes     | strict  | is not opened, and nothing is changed                        |
//! | any    | yes     | salvage | keeps all good frames; the hole stays and is reported        |
//! | none   | yes     | any     | whole frames are missing from its end: as the three above    |
//!
//! Salvage also keeps the frames of a segment whose link is lost, and appends go on in a new
//! segment then. What it cuts is only what stands behind the last good frame, and a copy of that
//! goes to quarantine.

mod acts;

use super::act::Act;
use super::arrange::{Arranged, Files};
use super::walk::Walk;
use super::{Damage, Proof, Range, RangeKind, Report};
use crate::config::{Config, RecoveryPolicy};
use crate::id::{Lsn, Position, SegmentId, Watermark};
use crate::log::{SegmentEnd, SegmentInfo, durable_place};
use crate::scan::{Hole, ScanReport};
use crate::wire::frame::FrameKind;
use crate::wire::header::{FRAMES_OFFSET, Identity, LINK_OFFSET, Link, LinkState};
use crate::wire::manifest::{Cap, MANIFEST_BYTES, Manifest};
use crate::wire::name::FileId;
use crate::wire::seal::Index;
use alloc::vec::Vec;

/// What was read of a live segment.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) first_lsn: Lsn,
    /// `None`: its footer vouched for it, or its header is damaged.
    pub(super) report: Option<ScanReport>,
    pub(super) index: Index,
}

impl Walked {
    pub(super) fn unread() -> Self {
        Self { first_lsn: Lsn::ZERO, report: None, index: Index::default() }
    }
}

/// The verdict.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) report: Report,
    pub(super) manifest: Manifest,
    pub(super) kept: Kept,
    pub(super) acts: Vec<Act>,
}

/// What the log goes on with.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) sealed: Vec<SegmentInfo>,
    pub(super) active: Option<KeptActive>,
    pub(super) spare: Option<Identity>,
    pub(super) next_segment: SegmentId,
    pub(super) last_lsn: Lsn,
    pub(super) is_marked: bool,
}

impl Kept {
    /// Salvage: no segment shows records that one after it has under the same numbers. What a
    /// truncation took off may still stand there, and what said so be damaged.
    fn end_before_successors(&mut self) {
        let mut next = self.active.as_ref().map(|active| active.link.first_lsn);
        for info in self.sealed.iter_mut().rev() {
            if let (Some(next), Some(end)) = (next, &mut info.end) {
                end.last_lsn = end.last_lsn.min(next.previous());
            }
            next = Some(info.first_lsn);
        }
    }
}

/// The segment that appends go on in.
#[derive(Debug)]
pub(super) struct KeptActive {
    pub(super) identity: Identity,
    pub(super) link: Link,
    pub(super) end: u64,
    pub(super) file_bytes: u64,
    pub(super) index: Index,
}

impl KeptActive {
    pub(super) fn info(&self) -> SegmentInfo {
        segment_info(&self.identity, &self.link, None)
    }
}

pub(super) fn segment_info(
    identity: &Identity,
    link: &Link,
    end: Option<SegmentEnd>,
) -> SegmentInfo {
    SegmentInfo {
        segment: identity.segment,
        salt: identity.salt,
        checksum: identity.checksum,
        first_lsn: link.first_lsn,
        opened: link.opened,
        end,
    }
}

/// Where the log ends when it does not go on to its last frame.
#[derive(Clone, Copy, Debug)]
struct Break {
    /// Which live segment.
    index: usize,
    /// Where the good frames of it end; less than a header when none of it can be kept.
    offset: u64,
    /// The LSN that should follow.
    lsn: Lsn,
    /// Whether what stands there is only zeros, or nothing.
    is_empty: bool,
}

/// The highest record that something claims was durable.
#[derive(Clone, Copy, Debug)]
struct Durable {
    lsn: Lsn,
    proof: Proof,
}

impl Walk {
    /// Decides.
    pub(super) fn judge(self, config: &Config, files: &Files, is_rebuilt: bool) -> Judged {
        Judge {
            policy: config.recovery,
            files,
            is_rebuilt,
            durable: self.durable(),
            broken: self.first_break(),
            walk: self,
        }
        .judge()
    }

    fn durable(&self) -> Durable {
        let mut durable = Durable { lsn: self.manifest.durable.lsn, proof: Proof::Manifest };
        let mut claim = |lsn, proof| {
            if lsn > durable.lsn {
                durable = Durable { lsn, proof };
            }
        };
        for (arranged, walked) in self.arrangement.live.iter().zip(&self.walked) {
            if let LinkState::Written(link) = arranged.link {
                claim(link.durable, Proof::Link(arranged.segment));
            }
            if let Some(found) = walked.report.as_ref().and_then(|report| report.claim) {
                claim(found.durable, Proof::Frame(found.at));
            }
        }
        durable
    }

    /// The first place at which a frame should stand and none does.
    fn first_break(&self) -> Option<Break> {
        let last = self.arrangement.live.len().checked_sub(1)?;
        for (index, (arranged, walked)) in
            self.arrangement.live.iter().zip(&self.walked).enumerate()
        {
            let lsn = walked.first_lsn;
            if arranged.identity.is_none() {
                return Some(Break { index, offset: 0, lsn, is_empty: false });
            }
            let report = walked.report.as_ref();
            let is_blank = report.is_none_or(is_blank);
            match arranged.link {
                LinkState::Written(_) => {}
                // A spare: nothing stands in it.
                LinkState::Unwritten if index == last && is_blank => continue,
                LinkState::Unwritten | LinkState::Broken => {
                    let is_empty = arranged.link == LinkState::Unwritten && is_blank;
                    return Some(Break { index, offset: LINK_OFFSET, lsn, is_empty });
                }
            }
            let Some(report) = report else { continue };
            let is_short = arranged
                .end
                .is_some_and(|end| report.end < end.offset || report.next_lsn < end.next_lsn);
            let is_capped = arranged.cap.is_some_and(|cap| report.next_lsn > cap);
            if !is_capped && (!report.holes.is_empty() || is_short) {
                let is_empty =
                    report.holes.iter().all(|hole| hole.is_zero) && report.last_end == report.end;
                let (offset, lsn) = (report.end, report.next_lsn);
                return Some(Break { index, offset, lsn, is_empty });
            }
        }
        None
    }
}

/// Whether a segment holds no frame of its own.
fn is_blank(report: &ScanReport) -> bool {
    report.last_end == FRAMES_OFFSET && report.holes.iter().all(Hole::is_unwritten)
}

/// All that the decision is made from.
struct Judge<'a> {
    policy: RecoveryPolicy,
    files: &'a Files,
    is_rebuilt: bool,
    durable: Durable,
    broken: Option<Break>,
    walk: Walk,
}

impl Judge<'_> {
    fn judge(mut self) -> Judged {
        let is_new = !self.files.has_manifest && self.files.segments.is_empty();
        let damage = self.damage();
        let cuts = damage.is_none() || self.policy != RecoveryPolicy::Salvage;
        let mut ranges = self.stale_ranges();
        ranges.extend(self.doubtful_ranges());
        self.broken_ranges(damage.is_some(), cuts, &mut ranges);
        let (kept, end) = self.kept(cuts);
        let damage = damage.map(|damage| self.starting_at_missing(damage, &kept));
        let manifest = self.new_manifest(&kept, end, damage.is_some());
        if self.is_rebuilt && !is_new {
            let (file, is_there) = (FileId::Manifest.name(), self.files.has_manifest);
            let kind = if is_there { RangeKind::Corrupt } else { RangeKind::Missing };
            let end = if is_there { MANIFEST_BYTES } else { 0 };
            ranges.push(Range { kind, file, start: 0, end, moved_to: None });
        }
        let (acts, manifest) = self.acts(is_new, damage.is_some(), manifest, &kept, &mut ranges);
        let was_clean = damage.is_none()
            && self.broken.is_none_or(|broken| broken.is_empty)
            && self.walk.arrangement.doubtful.is_empty()
            && self.walk.manifest.is_clean
            && self.walk.manifest.durable.end == end;
        let first_lsn = kept.sealed.first().map(|info| info.first_lsn);
        let first_lsn = first_lsn
            .or(kept.active.as_ref().map(|active| active.link.first_lsn))
            .unwrap_or(kept.last_lsn.next());
        let last_frame = self.last_frame();
        let scanned = self.walk.walked.iter().filter(|walked| walked.report.is_some()).count();
        let segments = kept.sealed.len() + usize::from(kept.active.is_some());
        let report = Report {
            log: self.walk.manifest.log,
            is_new,
            was_clean: was_clean && !is_new,
            first_lsn,
            last_lsn: kept.last_lsn,
            records: kept.last_lsn.next().since(first_lsn),
            segments: segments as u64,
            segments_scanned: scanned as u64,
            bytes_read: 0,
            last_frame,
            end,
            ranges,
            damage,
            strays: self.files.strays.clone(),
        };
        Judged { report, manifest, kept, acts }
    }

    /// The last record before the break, or of the log.
    fn last_good(&self) -> Lsn {
        match self.broken {
            Some(broken) => broken.lsn.previous(),
            None => self.end_lsn(),
        }
    }

    /// The last record of the last live segment.
    fn end_lsn(&self) -> Lsn {
        self.walk.next_lsn.previous()
    }

    /// Whether anything that was durable is gone.
    fn damage(&self) -> Option<Damage> {
        let last_good = self.last_good();
        let Durable { lsn: durable, proof } = self.durable;
        // Behind a torn tail too: a file has its name only once its header is durable, and what was
        // in it nobody can say.
        let from = self.broken.map_or(usize::MAX, |broken| broken.index);
        let later = self.walk.arrangement.live.iter().skip(from);
        let header = later.into_iter().find(|arranged| arranged.identity.is_none());
        let missing = self.walk.arrangement.missing.first();
        let is_whole = durable <= last_good && header.is_none() && missing.is_none();
        if is_whole && !self.lacks_link() {
            return None;
        }
        let position = match (self.broken, missing) {
            (Some(_), _)
                if durable <= last_good
                    && let Some(arranged) = header =>
            {
                Position::new(arranged.segment, 0)
            }
            (Some(broken), _) => {
                let segment = self.walk.arrangement.live[broken.index].segment;
                Position::new(segment, broken.offset)
            }
            (None, Some(segment)) => Position::new(*segment, 0),
            (None, None) => self.end_of_last(),
        };
        let seen = self.walk.next_lsn.previous().max(durable).max(last_good);
        Some(Damage {
            position,
            first_lost: last_good.next(),
            last_lost: seen,
            durable,
            proof: if durable > last_good { proof } else { Proof::Header },
        })
    }

    /// Of a log that is whole but for a missing segment, what is lost begins behind what is kept
    /// before that one.
    fn starting_at_missing(&self, damage: Damage, kept: &Kept) -> Damage {
        let (None, Some(missing)) = (self.broken, self.walk.arrangement.missing.first()) else {
            return damage;
        };
        let before = kept.sealed.iter().rev().find(|info| info.segment < *missing);
        let last = before.and_then(|info| info.end).map(|end| end.last_lsn);
        Damage { first_lost: last.map_or(self.walk.manifest.first_lsn, Lsn::next), ..damage }
    }

    /// Whether the segment in which the log had been durable, as the manifest says, was never moved
    /// into, as its link says. The records that were in it may seem to be there, if a truncation
    /// took others with their numbers off the segment before.
    fn lacks_link(&self) -> bool {
        let end = self.walk.manifest.durable.end;
        let live = self.walk.arrangement.live.iter();
        end.offset > FRAMES_OFFSET
            && live.into_iter().any(|live| live.segment == end.segment && !live.is_linked())
    }

    fn end_of_last(&self) -> Position {
        let live = self.walk.arrangement.live.iter().zip(&self.walk.walked);
        let mut ended = live.filter_map(|(arranged, walked)| {
            let end = walked.report.as_ref().map(|report| report.last_end);
            let end = end.or(arranged.end.map(|end| end.offset))?;
            arranged.is_linked().then_some(Position::new(arranged.segment, end))
        });
        ended.next_back().unwrap_or_default()
    }

    fn stale_ranges(&self) -> Vec<Range> {
        let stale = self.walk.arrangement.stale.iter().map(|file| (file.name(), file.bytes));
        stale
            .chain(self.files.unfinished.iter().copied())
            .map(|(file, end)| Range {
                kind: RangeKind::Stale,
                file,
                start: 0,
                end,
                moved_to: None,
            })
            .collect()
    }

    /// Segments of which nobody can say whether they are the log's.
    fn doubtful_ranges(&self) -> impl Iterator<Item = Range> {
        self.walk.arrangement.doubtful.iter().map(|file| Range {
            kind: RangeKind::Corrupt,
            file: file.name(),
            start: 0,
            end: file.bytes,
            moved_to: None,
        })
    }

    /// What is not kept from the break on. Where nothing is cut, good frames are.
    fn broken_ranges(&self, is_damage: bool, cuts: bool, ranges: &mut Vec<Range>) {
        for segment in &self.walk.arrangement.missing {
            let file = FileId::Segment(*segment).name();
            let kind = RangeKind::Missing;
            ranges.push(Range { kind, file, start: 0, end: 0, moved_to: None });
        }
        let live = self.walk.arrangement.live.iter().zip(&self.walk.walked);
        let from = self.broken.map_or(usize::MAX, |broken| broken.index);
        // Zeros where the log breaks off: were there records?
        let lacks_records = self.durable.lsn > self.last_good();
        for (index, (arranged, walked)) in live.enumerate() {
            let file = FileId::Segment(arranged.segment).name();
            let mut push = |kind, start, end| {
                let is_kept = kind == RangeKind::Orphaned && !cuts;
                if (end > start || kind == RangeKind::Missing) && !is_kept {
                    ranges.push(Range { kind, file, start, end, moved_to: None });
                }
            };
            let lost = if is_damage { RangeKind::Corrupt } else { RangeKind::Torn };
            let Some(report) = &walked.report else {
                if index >= from && arranged.identity.is_none() {
                    push(RangeKind::Corrupt, 0, arranged.file_bytes);
                } else if index > from {
                    push(RangeKind::Orphaned, 0, arranged.file_bytes);
                }
                continue;
            };
            if index >= from && arranged.link == LinkState::Broken {
                push(lost, LINK_OFFSET, FRAMES_OFFSET);
            }
            // Where a segment's link is lost none of its frames are kept, unless nothing is cut.
            let is_kept = index <= from && arranged.is_linked();
            let kept_end = if is_kept { report.end } else { FRAMES_OFFSET };
            let mut at = kept_end;
            for hole in &report.holes {
                push(RangeKind::Orphaned, at, hole.start);
                let is_unwritten = hole.is_zero && hole.resumes.is_none();
                let is_break = index == from && hole.start == kept_end;
                let kind = match (is_unwritten, lacks_records && is_break) {
                    (true, false) => RangeKind::Zeros,
                    (true, true) => RangeKind::Missing,
                    (false, _) => lost,
                };
                push(kind, hole.start, hole.stale_from);
                push(RangeKind::Stale, hole.stale_from, hole.end);
                at = hole.end;
            }
            if index >= from {
                push(RangeKind::Orphaned, at.min(report.last_end), report.last_end);
            }
            // In a torn tail these bytes were never known durable, and there are none to report.
            let end = arranged.end.filter(|end| is_damage && end.offset > arranged.file_bytes);
            if let Some(end) = end {
                push(RangeKind::Missing, arranged.file_bytes, end.offset);
            }
        }
        if self.broken.is_none() && is_damage && self.walk.arrangement.missing.is_empty() {
            let at = self.end_of_last();
            let file = FileId::Segment(at.segment).name();
            let mark = self.walk.manifest.durable.end;
            let end = if mark.segment == at.segment { mark.offset } else { at.offset };
            let (kind, start) = (RangeKind::Missing, at.offset);
            ranges.push(Range { kind, file, start, end: end.max(start), moved_to: None });
        }
    }

    /// How many live segments are kept, and where the last of them ends if it is cut.
    fn kept_segments(&self, cuts: bool) -> usize {
        let live = &self.walk.arrangement.live;
        match self.broken {
            Some(broken) if cuts => broken.index + usize::from(broken.offset >= FRAMES_OFFSET),
            _ => live.len(),
        }
    }

    fn kept(&mut self, cuts: bool) -> (Kept, Position) {
        let count = self.kept_segments(cuts);
        let live = self.walk.arrangement.live.clone();
        let mut kept = Kept {
            sealed: Vec::new(),
            active: None,
            spare: None,
            next_segment: self.next_segment(),
            last_lsn: if cuts { self.last_good() } else { self.salvaged_end() },
            is_marked: false,
        };
        let mut end = Position::default();
        let mut usable: Vec<usize> =
            (0..count).filter(|index| self.is_usable(*index, cuts)).collect();
        let last = usable.pop();
        for index in usable {
            let info = self.sealed_info(index, None, cuts);
            kept.sealed.extend(info);
        }
        if let Some(index) = last {
            let arranged = &live[index];
            let report = self.walk.walked[index].report.as_ref();
            let (frames_end, next_lsn) = match report {
                Some(report) if cuts => (report.end, report.next_lsn),
                Some(report) => (report.last_end, report.last_next_lsn),
                None => (arranged.end.map_or(FRAMES_OFFSET, |end| end.offset), Lsn::ZERO),
            };
            let ends_sealed = report.is_none_or(|report| report.last_kind == Some(FrameKind::Seal));
            // Appends go on right behind the last record. Where that is in no frame of this
            // segment, nobody would read here what comes after it.
            let goes_on =
                arranged.cap.is_none() && !ends_sealed && next_lsn == kept.last_lsn.next();
            let is_cut = !cuts
                || self.broken.is_some_and(|broken| broken.index == index && !broken.is_empty);
            if let (true, Some(identity), LinkState::Written(link)) =
                (goes_on, arranged.identity, arranged.link)
            {
                end = Position::new(arranged.segment, frames_end);
                kept.is_marked = report
                    .is_some_and(|report| report.last_kind == Some(FrameKind::Mark))
                    && self.broken.is_none_or(|broken| broken.is_empty);
                let mut frames = core::mem::take(&mut self.walk.walked[index].index);
                // Frames behind a hole have been noted as well, and may be cut with it.
                frames.cut(frames_end);
                kept.active = Some(KeptActive {
                    identity,
                    link,
                    end: frames_end,
                    file_bytes: if is_cut { frames_end } else { arranged.file_bytes },
                    index: frames,
                });
            } else {
                end = Position::new(arranged.segment, self.frames_end(index, frames_end));
                let last = cuts.then_some(kept.last_lsn);
                kept.sealed.extend(self.sealed_info(index, last, cuts));
            }
        }
        kept.spare = self.spare(count, kept.active.as_ref(), cuts);
        kept.end_before_successors();
        (kept, end)
    }

    /// Whether a segment's records can be shown. Where nothing is cut that takes no link: a frame
    /// is where it was written, and is the record that it was.
    fn is_usable(&self, index: usize, cuts: bool) -> bool {
        let arranged = &self.walk.arrangement.live[index];
        let report = self.walk.walked[index].report.as_ref();
        let holds_frames = report.is_some_and(|report| report.last_end > FRAMES_OFFSET);
        arranged.identity.is_some() && (arranged.is_linked() || (!cuts && holds_frames))
    }

    /// Where the frames of a segment end that may end with its footer.
    fn frames_end(&self, index: usize, end: u64) -> u64 {
        let report = self.walk.walked[index].report.as_ref();
        report
            .filter(|report| report.last_kind == Some(FrameKind::Seal))
            .and_then(|report| report.seal_offset)
            .unwrap_or(end)
    }

    fn sealed_info(&self, index: usize, last: Option<Lsn>, cuts: bool) -> Option<SegmentInfo> {
        let (arranged, walked) = (&self.walk.arrangement.live[index], &self.walk.walked[index]);
        let identity = arranged.identity?;
        let link = match arranged.link {
            LinkState::Written(link) => link,
            LinkState::Unwritten | LinkState::Broken => Link {
                first_lsn: walked.first_lsn,
                previous_end: Position::default(),
                previous_records: 0,
                opened: identity.created,
                durable: Lsn::ZERO,
            },
        };
        let (report, known) = (walked.report.as_ref(), arranged.end);
        let read_end = report.map(|report| if cuts { report.end } else { report.last_end });
        let frames_end = match (known, read_end) {
            (Some(known), _) => known.offset,
            (None, Some(end)) => self.frames_end(index, end),
            (None, None) => FRAMES_OFFSET,
        };
        let known_last = known.map(|known| known.next_lsn.previous());
        let last_lsn = last
            .or(known_last)
            .or(report.map(|report| report.last_next_lsn.previous()))
            .unwrap_or(walked.first_lsn.previous());
        // What a truncation took off stays dead, also where what came after it is damaged.
        let last_lsn = arranged.cap.map_or(last_lsn, |cap| last_lsn.min(cap));
        let has_footer = arranged.file_bytes > frames_end;
        Some(segment_info(&identity, &link, Some(SegmentEnd { last_lsn, frames_end, has_footer })))
    }

    /// The last record of a log whose holes are kept.
    fn salvaged_end(&self) -> Lsn {
        self.end_lsn().max(self.last_good())
    }

    /// A segment that can be moved into: the last, if nothing stands in it or will not for long.
    fn spare(&self, kept: usize, active: Option<&KeptActive>, cuts: bool) -> Option<Identity> {
        let live = &self.walk.arrangement.live;
        let candidate = match self.broken {
            Some(_) if cuts && self.damage().is_some() => {
                live.last().filter(|arranged| self.is_blank_spare(arranged))
            }
            Some(_) if cuts => live.get(kept),
            _ => live.last().filter(|arranged| self.is_blank_spare(arranged)),
        };
        let taken = active.map(|active| active.identity.segment);
        candidate
            .filter(|arranged| Some(arranged.segment) != taken)
            .and_then(|arranged| arranged.identity)
    }

    fn is_blank_spare(&self, arranged: &Arranged) -> bool {
        let mut live = self.walk.arrangement.live.iter().zip(&self.walk.walked);
        let walked = live.find(|(live, _)| live.segment == arranged.segment);
        let report = walked.and_then(|(_, walked)| walked.report.as_ref());
        arranged.link == LinkState::Unwritten && report.is_none_or(is_blank)
    }

    fn next_segment(&self) -> SegmentId {
        let manifest = &self.walk.manifest;
        let resume = manifest.cap.map_or(SegmentId::NONE, |cap| cap.resume.previous());
        let seen = self.files.segments.last().map_or(SegmentId::NONE, |file| file.segment);
        let known = manifest.last_segment.max(manifest.first_segment.previous());
        seen.max(known).max(resume).next()
    }

    fn new_manifest(&self, kept: &Kept, end: Position, is_damage: bool) -> Manifest {
        let segments =
            kept.sealed.iter().copied().chain(kept.active.as_ref().map(KeptActive::info));
        let durable = Watermark { lsn: kept.last_lsn, end };
        let (durable, durable_first) = durable_place(durable, segments);
        let mut manifest =
            Manifest { durable, durable_first, is_clean: false, ..self.walk.manifest };
        let segments = kept.sealed.iter().map(|info| info.segment);
        let last = segments.chain(kept.active.as_ref().map(|active| active.identity.segment)).max();
        let spare = kept.spare.map(|identity| identity.segment);
        manifest.last_segment = last.max(spare).unwrap_or(SegmentId::NONE);
        let salvages = self.policy == RecoveryPolicy::Salvage;
        let first = kept.sealed.first().map(|info| (info.segment, info.first_lsn));
        let first = first.or(kept
            .active
            .as_ref()
            .map(|active| (active.identity.segment, active.link.first_lsn)));
        if is_damage && !salvages {
            // What an earlier truncation took off stays dead, unless the log now ends before that.
            manifest.cap =
                manifest.cap.filter(|cap| last >= Some(cap.segment) && kept.last_lsn >= cap.lsn);
            let mut live = self.walk.arrangement.live.iter();
            let ended = live.find(|live| Some(live.segment) == last && live.cap.is_some());
            manifest.cap = manifest.cap.or(ended.map(|ended| Cap {
                segment: ended.segment,
                lsn: kept.last_lsn,
                resume: spare.unwrap_or(kept.next_segment),
            }));
            if first.is_none() {
                manifest.first_segment = spare.unwrap_or(kept.next_segment);
                manifest.first_lsn = kept.last_lsn.next();
            }
        }
        manifest
    }

    /// The frame that holds the last record, if that was read.
    fn last_frame(&self) -> Option<Position> {
        let live = self.walk.arrangement.live.iter().zip(&self.walk.walked);
        let count = self.broken.map_or(usize::MAX, |broken| broken.index + 1);
        for (arranged, walked) in live.take(count).rev() {
            let Some(report) = &walked.report else {
                if arranged.vouched.is_some() {
                    return None;
                }
                continue;
            };
            if let (Some(offset), true) = (report.last_record_frame, arranged.is_linked()) {
                return Some(Position::new(arranged.segment, offset));
            }
        }
        None
    }
}
