//! The decision: which files are the log's, where it ends, and what becomes of the rest.
//!
//! Everything here is a function of what was read. First the files are [arranged](Files::arrange):
//!
//! | a segment file                                      | is                                   |
//! |-----------------------------------------------------|--------------------------------------|
//! | older than the manifest's first                     | stale: a deletion was under way      |
//! | between the manifest's cap and the ids after it     | stale: a truncation was under way    |
//! | passed over by the link of the next                 | stale: an earlier truncation left it |
//! | `.new`                                              | stale: it was never finished         |
//! | of another log, misnamed, missing, of a newer format| an error that names it               |
//! | the last, its link unwritten                        | the spare                            |
//! | any other                                           | live                                 |
//!
//! Then, when the live segments have been walked, the log ends at the first place where a frame
//! should stand and none does, or at its last frame. `n` is the last record before that place, and
//! `w` the highest record that anything read claims was durable:
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

use super::act::Act;
use super::footer::Footer;
use super::walk::Walk;
use super::{Damage, Proof, Range, RangeKind, RecoveryError, Report};
use crate::command::{Folder, Listed};
use crate::config::{Config, RecoveryPolicy, RecoveryScan};
use crate::id::{LogId, Lsn, Position, SegmentId, Watermark};
use crate::log::{SegmentEnd, SegmentInfo, durable_place};
use crate::scan::{Hole, ScanReport};
use crate::wire::frame::FrameKind;
use crate::wire::header::{FRAMES_OFFSET, HeaderError, Identity, LINK_OFFSET, Link, LinkState};
use crate::wire::known::KnownEnd;
use crate::wire::manifest::{Cap, MANIFEST_BYTES, Manifest};
use crate::wire::name::{FileId, FileName, Quarantined};
use crate::wire::seal::Index;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// What stands in the folder.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) has_manifest: bool,
    /// By number.
    pub(super) segments: Vec<SegmentFile>,
    unfinished: Vec<(FileName, u64)>,
    strays: Vec<String>,
    /// Above every generation that stands in quarantine.
    generation: u64,
}

/// A segment's file.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentFile {
    segment: SegmentId,
    bytes: u64,
    pub(super) header: Option<Result<Identity, HeaderError>>,
    pub(super) link: LinkState,
    /// Its footer is whole, and says that it ends here; or an earlier look found that it does.
    pub(super) vouched: Option<KnownEnd>,
    /// An earlier look found its frames whole up to here, or its footer; its header as well.
    known_end: Option<KnownEnd>,
}

impl SegmentFile {
    pub(super) const fn name(&self) -> FileName {
        FileId::Segment(self.segment).name()
    }

    fn identity(&self) -> Option<Identity> {
        self.header.and_then(Result::ok)
    }
}

/// The live segments, in order.
#[derive(Debug)]
pub(super) struct Arrangement {
    pub(super) live: Vec<Arranged>,
    pub(super) first_lsn: Lsn,
    stale: Vec<SegmentFile>,
    /// Salvage only: segments that should be there.
    missing: Vec<SegmentId>,
}

/// A live segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arranged {
    pub(super) segment: SegmentId,
    pub(super) file_bytes: u64,
    /// `None`: its header is damaged.
    pub(super) identity: Option<Identity>,
    pub(super) link: LinkState,
    /// Where it ends, as the segment after it says.
    pub(super) end: Option<KnownEnd>,
    /// Where it ends, as its footer says.
    pub(super) vouched: Option<KnownEnd>,
    /// The last record kept of it, if the log was truncated there and nothing came after.
    pub(super) cap: Option<Lsn>,
}

impl Arranged {
    pub(super) const fn is_linked(&self) -> bool {
        matches!(self.link, LinkState::Written(_))
    }
}

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

fn segment_info(identity: &Identity, link: &Link, end: Option<SegmentEnd>) -> SegmentInfo {
    SegmentInfo {
        segment: identity.segment,
        salt: identity.salt,
        checksum: identity.checksum,
        first_lsn: link.first_lsn,
        opened: link.opened,
        end,
    }
}

impl Files {
    /// Tells the log's files from strays. Who reads everything is told nothing.
    pub(super) fn sort(names: &[Listed], scan: RecoveryScan) -> Result<Self, RecoveryError> {
        let mut files = Self { generation: 1, ..Self::default() };
        for listed in names {
            let in_quarantine = listed.folder == Folder::Quarantine;
            match (FileName::parse(&listed.name, in_quarantine), listed.bytes) {
                (Some(FileName { file: FileId::Quarantined(quarantined), .. }), _) => {
                    files.generation = files.generation.max(quarantined.generation + 1);
                }
                (Some(name), Some(bytes)) if name.is_new => files.unfinished.push((name, bytes)),
                (Some(FileName { file: FileId::Manifest, .. }), Some(_)) => {
                    files.has_manifest = true;
                }
                (Some(FileName { file: FileId::Segment(segment), .. }), Some(bytes)) => {
                    let known = listed
                        .known
                        .as_deref()
                        .filter(|known| scan == RecoveryScan::Tail && known.segment() == segment);
                    files.segments.push(SegmentFile {
                        segment,
                        bytes,
                        header: known.map(|known| Ok(known.identity)),
                        link: known
                            .map_or(LinkState::Unwritten, |known| LinkState::Written(known.link)),
                        vouched: None,
                        known_end: known.map(|known| known.end),
                    });
                }
                (Some(name), None) if !in_quarantine => return Err(RecoveryError::NotAFile(name)),
                _ => files.strays.push(listed.name.clone()),
            }
        }
        files.segments.sort_by_key(|file| file.segment);
        files.unfinished.sort();
        files.strays.sort();
        Ok(files)
    }

    /// The manifest, or what its segments tell where it is lost.
    pub(super) fn manifest_or_rebuilt(&self, found: Option<Manifest>, new_id: LogId) -> Manifest {
        if let Some(manifest) = found {
            return manifest;
        }
        let Some(first) = self.segments.first() else { return Manifest::initial(new_id) };
        let identity = self.segments.iter().find_map(SegmentFile::identity);
        let log = identity.map_or(new_id, |identity| identity.log);
        let first_lsn = match first.link {
            LinkState::Written(link) => link.first_lsn,
            LinkState::Unwritten | LinkState::Broken => Lsn::FIRST,
        };
        Manifest {
            first_segment: first.segment,
            first_lsn,
            last_segment: self.segments.last().map_or(SegmentId::NONE, |file| file.segment),
            ..Manifest::initial(log)
        }
    }

    /// The footer of the segment before this one, if it is to be read: an earlier look has not
    /// found it where this one says that it is.
    pub(super) fn footer_to_read(&mut self, index: usize) -> Option<Footer> {
        let footer = self.footer_before(index)?;
        let before = &mut self.segments[index - 1];
        if before.known_end != Some(footer.end) {
            return Some(footer);
        }
        before.vouched = Some(footer.end);
        None
    }

    /// The footer of the segment before this one. `None`: this one does not say where it is.
    fn footer_before(&self, index: usize) -> Option<Footer> {
        let (before, after) = (self.segments.get(index.checked_sub(1)?)?, &self.segments[index]);
        let end = known_end(before.segment, after.link)?;
        let (identity, LinkState::Written(link)) = (before.identity()?, before.link) else {
            return None;
        };
        let bytes_max = before.bytes.checked_sub(end.offset)?;
        Some(Footer { info: segment_info(&identity, &link, None), end, bytes_max })
    }

    /// Puts the segments in order, or says why that cannot be done.
    pub(super) fn arrange(
        &self,
        manifest: &Manifest,
        policy: RecoveryPolicy,
    ) -> Result<Arrangement, RecoveryError> {
        let is_stale = |file: &&SegmentFile| {
            let capped = manifest
                .cap
                .is_some_and(|cap| file.segment > cap.segment && file.segment < cap.resume);
            file.segment < manifest.first_segment || capped
        };
        let (mut stale, mut live): (Vec<&SegmentFile>, Vec<&SegmentFile>) =
            self.segments.iter().partition(is_stale);
        for file in &live {
            check_header(file, manifest)?;
        }
        let salvages = policy == RecoveryPolicy::Salvage;
        let passed_over = passed_over(&live);
        live.retain(|file| !passed_over.contains(&file.segment));
        stale.extend(self.segments.iter().filter(|file| passed_over.contains(&file.segment)));
        let missing = find_missing(&live, manifest);
        if let (Some(segment), false) = (missing.first(), salvages) {
            return Err(RecoveryError::Missing(FileId::Segment(*segment).name()));
        }
        let mut arranged: Vec<Arranged> = live
            .iter()
            .map(|file| Arranged {
                segment: file.segment,
                file_bytes: file.bytes,
                identity: file.identity(),
                link: file.link,
                end: None,
                vouched: file.vouched,
                cap: None,
            })
            .collect();
        for index in 1..arranged.len() {
            let (before, after) = (arranged[index - 1].segment, arranged[index].link);
            arranged[index - 1].end = known_end(before, after);
        }
        if let Some(cap) = manifest.cap
            && let Some(holder) = arranged.iter_mut().find(|file| file.segment == cap.segment)
            && holder.end.is_none()
        {
            holder.cap = Some(cap.lsn);
        }
        end_before_lost_links(&mut arranged, manifest);
        let stale = stale.into_iter().copied().collect();
        let first_lsn = manifest.first_lsn;
        Ok(Arrangement { live: arranged, first_lsn, stale, missing })
    }
}

/// Where a segment ends, if the link of the one after it names it.
fn known_end(segment: SegmentId, after: LinkState) -> Option<KnownEnd> {
    let LinkState::Written(link) = after else { return None };
    let Position { segment: named, offset } = link.previous_end;
    (named == segment).then_some(KnownEnd { offset, next_lsn: link.first_lsn })
}

/// Ends the segment before one whose link is lost where something else says that this one began, or
/// before what certainly came later: what stands behind may have been truncated.
fn end_before_lost_links(arranged: &mut [Arranged], manifest: &Manifest) {
    for index in 1..arranged.len() {
        if arranged[index].is_linked() {
            continue;
        }
        let segment = arranged[index].segment;
        let later = arranged[index + 1..].iter().find_map(|later| match later.link {
            LinkState::Written(link) => Some(link),
            LinkState::Unwritten | LinkState::Broken => None,
        });
        let is_next = |link: &Link| link.previous_end.segment == segment;
        let first = match later {
            Some(link) if is_next(&link) => {
                let records = u64::from(link.previous_records);
                Some(Lsn::new(link.first_lsn.get().saturating_sub(records)))
            }
            Some(link) => Some(link.first_lsn),
            None => {
                let Position { segment: durable, offset } = manifest.durable.end;
                let is_known = durable == segment && offset > FRAMES_OFFSET;
                Some(manifest.durable_first).filter(|first| is_known && *first > Lsn::ZERO)
            }
        };
        let before = &mut arranged[index - 1];
        before.cap = before.cap.into_iter().chain(first.map(Lsn::previous)).min();
    }
}

/// Refuses what is not this log's, and what this build cannot read. Damage is for later.
fn check_header(file: &SegmentFile, manifest: &Manifest) -> Result<(), RecoveryError> {
    match file.header {
        Some(Ok(identity)) if identity.log != manifest.log => Err(RecoveryError::Foreign {
            file: file.name(),
            found: identity.log,
            expected: manifest.log,
        }),
        Some(Ok(identity)) if identity.segment != file.segment => {
            Err(RecoveryError::Misnamed { file: file.name(), found: identity.segment })
        }
        Some(Err(
            error @ (HeaderError::NewerFormat(_)
            | HeaderError::UnknownFeatures(_)
            | HeaderError::UnknownChecksum(_)),
        )) => Err(RecoveryError::Unreadable(file.name(), error)),
        _ => Ok(()),
    }
}

/// The segments that lie between a segment and the one that its link names: a truncation took them
/// off the log, and their removal failed or was cut short.
fn passed_over(live: &[&SegmentFile]) -> Vec<SegmentId> {
    let mut passed = Vec::new();
    let mut successor: Option<&SegmentFile> = None;
    for file in live.iter().rev() {
        let named = successor.and_then(|successor| match successor.link {
            LinkState::Written(link) => Some(link.previous_end.segment),
            LinkState::Unwritten | LinkState::Broken => None,
        });
        if named.is_some_and(|named| named < file.segment) {
            passed.push(file.segment);
        } else {
            successor = Some(file);
        }
    }
    passed
}

/// The segments that the manifest and the links name and that are not there.
fn find_missing(live: &[&SegmentFile], manifest: &Manifest) -> Vec<SegmentId> {
    let mut missing = Vec::new();
    let promises_first = manifest.last_segment >= manifest.first_segment;
    let first = live.first().map(|file| file.segment);
    if promises_first && first != Some(manifest.first_segment) {
        missing.push(manifest.first_segment);
    }
    for pair in live.windows(2) {
        let LinkState::Written(link) = pair[1].link else { continue };
        let named = link.previous_end.segment;
        if named > pair[0].segment {
            missing.push(named);
        }
    }
    let last = live.last().map_or(SegmentId::NONE, |file| file.segment);
    if last < manifest.last_segment && !missing.contains(&manifest.last_segment) {
        missing.push(manifest.last_segment);
    }
    missing
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
        self.broken_ranges(damage.is_some(), &mut ranges);
        let (kept, end) = self.kept(cuts);
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

    /// What is not kept from the break on.
    fn broken_ranges(&self, is_damage: bool, ranges: &mut Vec<Range>) {
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
                if end > start || kind == RangeKind::Missing {
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
            // Where a segment's link is lost none of its frames can be kept.
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
        let mut usable: Vec<usize> = (0..count)
            .filter(|index| live[*index].identity.is_some() && live[*index].is_linked())
            .collect();
        let last = usable.pop();
        for index in usable {
            let info = self.sealed_info(&live[index], index, None);
            kept.sealed.extend(info);
        }
        if let Some(index) = last {
            let arranged = &live[index];
            let report = self.walk.walked[index].report.as_ref();
            let frames_end = match report {
                Some(report) if cuts => report.end,
                Some(report) => report.last_end,
                None => arranged.end.map_or(FRAMES_OFFSET, |end| end.offset),
            };
            let ends_sealed = report.is_none_or(|report| report.last_kind == Some(FrameKind::Seal));
            let is_cut =
                self.broken.is_some_and(|broken| broken.index == index && cuts && !broken.is_empty);
            if arranged.cap.is_some() || ends_sealed {
                let frames_end = self.frames_end(index, frames_end);
                end = Position::new(arranged.segment, frames_end);
                kept.sealed.extend(self.sealed_info(arranged, index, Some(kept.last_lsn)));
            } else if let (Some(identity), LinkState::Written(link)) =
                (arranged.identity, arranged.link)
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
            }
        }
        kept.spare = self.spare(count, kept.active.as_ref(), cuts);
        kept.end_before_successors();
        (kept, end)
    }

    /// Where the frames of a segment end that may end with its footer.
    fn frames_end(&self, index: usize, end: u64) -> u64 {
        let report = self.walk.walked[index].report.as_ref();
        report
            .filter(|report| report.last_kind == Some(FrameKind::Seal))
            .and_then(|report| report.seal_offset)
            .unwrap_or(end)
    }

    fn sealed_info(
        &self,
        arranged: &Arranged,
        index: usize,
        last: Option<Lsn>,
    ) -> Option<SegmentInfo> {
        let (Some(identity), LinkState::Written(link)) = (arranged.identity, arranged.link) else {
            return None;
        };
        let walked = &self.walk.walked[index];
        let (report, known) = (walked.report.as_ref(), arranged.end);
        let read_end = report.map(|report| report.end);
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

    /// What is to be done, in order, and the manifest that stands in the end.
    fn acts(
        &self,
        is_new: bool,
        is_damage: bool,
        mut manifest: Manifest,
        kept: &Kept,
        ranges: &mut [Range],
    ) -> (Vec<Act>, Manifest) {
        let unfinished = self.files.unfinished.iter().map(|(name, _)| Act::Remove(*name));
        let mut acts: Vec<Act> = unfinished.collect();
        if is_new || self.is_rebuilt {
            acts.extend(create_manifest(&manifest));
            if is_new {
                return (acts, manifest);
            }
        } else {
            // What is acted on must not be forgotten by a crash.
            acts.push(Act::Sync(FileId::Manifest.name()));
        }
        let stale = self.walk.arrangement.stale.iter().map(|file| Act::Remove(file.name()));
        acts.extend(stale);
        acts.push(Act::SyncDir(Folder::Log));
        let cuts = self.policy != RecoveryPolicy::Salvage || !is_damage;
        if cuts && manifest.last_segment < self.walk.manifest.last_segment {
            // Segments are about to go: from now on they are not missed.
            let last_segment = manifest.last_segment;
            manifest.generation += 1;
            acts.push(write_manifest(Manifest {
                last_segment,
                generation: manifest.generation,
                ..self.walk.manifest
            }));
        }
        let damage_manifest = Manifest { generation: manifest.generation + 1, ..manifest };
        match self.broken {
            Some(broken) if is_damage && cuts => {
                self.quarantine(broken, kept, &mut acts, ranges);
                manifest = damage_manifest;
                acts.push(write_manifest(manifest));
                acts.extend(self.cut(broken));
            }
            Some(broken) if cuts => {
                if self.is_exhausted(broken) {
                    self.quarantine_rest(broken, &mut acts, ranges);
                }
                acts.extend(self.reset_later(broken, kept));
                acts.extend(self.cut(broken));
            }
            None if is_damage && cuts => {
                manifest = damage_manifest;
                acts.push(write_manifest(manifest));
            }
            _ => {
                if let Some(active) = kept.active.as_ref().filter(|_| is_damage) {
                    acts.push(Act::Truncate(active.identity.segment, active.end));
                }
            }
        }
        // What is shown must survive the next crash: the segment that grew last, and the one before
        // it, whose footer may not have been synced.
        let recent = kept.sealed.iter().rev().take(1).map(|info| info.segment);
        let active = kept.active.as_ref().map(|active| active.identity.segment);
        let spare = kept.spare.map(|identity| identity.segment);
        // A salvaged log also goes on behind the numbers of records that it does not show.
        let live = self.walk.arrangement.live.iter().zip(&self.walk.walked);
        let counted = live.filter(|(_, walked)| !cuts && walked.report.is_some());
        let counted = counted.map(|(arranged, _)| arranged.segment);
        let recent = recent.chain(active).chain(spare).chain(counted);
        acts.extend(recent.map(|segment| Act::Sync(FileId::Segment(segment).name())));
        (acts, manifest)
    }

    /// Whether good frames may stand behind the break that the bounded search did not find. What
    /// is cut then is kept, though nothing says that any of it had been durable.
    fn is_exhausted(&self, broken: Break) -> bool {
        let report = self.walk.walked[broken.index].report.as_ref();
        report.is_some_and(|report| report.is_exhausted)
    }

    /// Copies the rest of the segment with the break into quarantine.
    fn quarantine_rest(&self, broken: Break, acts: &mut Vec<Act>, ranges: &mut [Range]) {
        let Arranged { segment, file_bytes, .. } = self.walk.arrangement.live[broken.index];
        let report = self.walk.walked[broken.index].report.as_ref();
        let unwritten = report
            .and_then(|report| report.holes.last())
            .filter(|hole| hole.end >= file_bytes)
            .map(|hole| if hole.is_zero { hole.start } else { hole.stale_from });
        let (start, end) = (broken.offset, unwritten.unwrap_or(file_bytes));
        if start < FRAMES_OFFSET || end <= start {
            return;
        }
        let (generation, offset) = (self.files.generation, Some(start));
        let to = FileId::Quarantined(Quarantined { generation, segment, offset });
        acts.extend([
            Act::Create(to.new_name()),
            Act::Copy { from: segment, start, end, to: to.new_name() },
            Act::Sync(to.new_name()),
            Act::Rename(to.new_name(), to.name()),
            Act::SyncDir(Folder::Quarantine),
        ]);
        mark_moved(ranges, segment, end, to.name());
    }

    /// Moves everything from the break on into quarantine: the rest of its segment by copy, later
    /// segments whole, the newest first.
    fn quarantine(&self, broken: Break, kept: &Kept, acts: &mut Vec<Act>, ranges: &mut [Range]) {
        let generation = self.files.generation;
        let live = &self.walk.arrangement.live;
        let spare = kept.spare.map(|identity| identity.segment);
        let whole_from = broken.index + usize::from(broken.offset >= FRAMES_OFFSET);
        self.quarantine_rest(broken, acts, ranges);
        let later = live.iter().skip(whole_from).rev().map(|arranged| arranged.segment);
        for segment in later.filter(|segment| Some(*segment) != spare) {
            let name = FileId::Segment(segment).name();
            let to = FileId::Quarantined(Quarantined { generation, segment, offset: None });
            // The folder may not be there yet: making a file in it makes it. What is moved may be
            // known to the kernel alone.
            acts.extend([
                Act::Sync(name),
                Act::Create(to.new_name()),
                Act::Remove(to.new_name()),
                Act::Rename(name, to.name()),
                Act::SyncDir(Folder::Quarantine),
                Act::SyncDir(Folder::Log),
            ]);
            mark_moved(ranges, segment, u64::MAX, to.name());
        }
    }

    /// Cuts the segment with the break, if it keeps anything.
    fn cut(&self, broken: Break) -> Vec<Act> {
        let segment = self.walk.arrangement.live[broken.index].segment;
        if broken.offset < FRAMES_OFFSET || broken.is_empty {
            return Vec::new();
        }
        let name = FileId::Segment(segment).name();
        vec![Act::Truncate(segment, broken.offset), Act::Sync(name)]
    }

    /// Empties the segments after a torn end, of which nothing was ever known durable; the newest
    /// first. The first of them is the next spare.
    fn reset_later(&self, broken: Break, kept: &Kept) -> Vec<Act> {
        let first = broken.index + usize::from(broken.offset >= FRAMES_OFFSET);
        let spare = kept.spare.map(|identity| identity.segment);
        let mut acts = Vec::new();
        for arranged in self.walk.arrangement.live.iter().skip(first).rev() {
            let name = FileId::Segment(arranged.segment).name();
            if Some(arranged.segment) == spare && self.is_blank_spare(arranged) {
                continue;
            } else if Some(arranged.segment) == spare {
                acts.extend([Act::Truncate(arranged.segment, LINK_OFFSET), Act::Sync(name)]);
            } else {
                acts.extend([Act::Remove(name), Act::SyncDir(Folder::Log)]);
            }
        }
        acts
    }
}

/// Notes where the bytes of a segment up to `end` have gone.
fn mark_moved(ranges: &mut [Range], segment: SegmentId, end: u64, to: FileName) {
    let file = FileId::Segment(segment).name();
    for range in ranges.iter_mut().filter(|range| range.file == file && range.end <= end) {
        range.moved_to = Some(to);
    }
}

/// Overwrites the older slot.
fn write_manifest(manifest: Manifest) -> Act {
    Act::WriteManifest(manifest, FileId::Manifest.name())
}

fn create_manifest(manifest: &Manifest) -> [Act; 5] {
    let new = FileId::Manifest.new_name();
    [
        Act::CreateManifest,
        Act::WidenManifest,
        Act::WriteManifest(*manifest, new),
        Act::Rename(new, FileId::Manifest.name()),
        Act::SyncDir(Folder::Log),
    ]
}
