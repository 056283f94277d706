//! Which files are the log's, and in what order: before any frame is read.
//!
//! | a segment file                                      | is                                   |
//! |-----------------------------------------------------|--------------------------------------|
//! | older than the manifest's first                     | stale: a deletion was under way      |
//! | between the manifest's cap and the ids after it     | stale: a truncation was under way    |
//! | passed over by the link of the next                 | stale: an earlier truncation left it |
//! | as that, with its own link or header damaged        | doubtful: it may have been the log's |
//! | `.new`                                              | stale: it was never finished         |
//! | of another log, misnamed, missing, of a newer format| an error that names it               |
//! | the last, its link unwritten                        | the spare                            |
//! | any other                                           | live                                 |

use super::RecoveryError;
use super::footer::Footer;
use super::verdict::segment_info;
use crate::command::{Folder, Listed};
use crate::config::{RecoveryPolicy, RecoveryScan};
use crate::id::{LogId, Lsn, Position, SegmentId};
use crate::wire::header::{FRAMES_OFFSET, HeaderError, Identity, Link, LinkState};
use crate::wire::known::KnownEnd;
use crate::wire::manifest::Manifest;
use crate::wire::name::{FileId, FileName};
use alloc::string::String;
use alloc::vec::Vec;

/// What stands in the folder.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) has_manifest: bool,
    /// By number.
    pub(super) segments: Vec<SegmentFile>,
    pub(super) unfinished: Vec<(FileName, u64)>,
    pub(super) strays: Vec<String>,
    /// None that stands in quarantine, and above them.
    pub(super) generation: u64,
}

/// A segment's file.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentFile {
    pub(super) segment: SegmentId,
    pub(super) bytes: u64,
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

    fn is_damaged(&self) -> bool {
        self.identity().is_none() || self.link == LinkState::Broken
    }
}

/// The live segments, in order.
#[derive(Debug)]
pub(super) struct Arrangement {
    pub(super) live: Vec<Arranged>,
    pub(super) first_lsn: Lsn,
    pub(super) stale: Vec<SegmentFile>,
    /// What a truncation may have left, or a salvage that could not read it.
    pub(super) doubtful: Vec<SegmentFile>,
    /// Salvage only: segments that should be there.
    pub(super) missing: Vec<SegmentId>,
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

impl Files {
    /// Tells the log's files from strays. Who reads everything is told nothing.
    pub(super) fn sort(names: &[Listed], scan: RecoveryScan) -> Result<Self, RecoveryError> {
        let mut files = Self::default();
        let mut generations = Vec::new();
        for listed in names {
            let in_quarantine = listed.folder == Folder::Quarantine;
            match (FileName::parse(&listed.name, in_quarantine), listed.bytes) {
                (Some(name), Some(bytes)) if name.is_new => files.unfinished.push((name, bytes)),
                (Some(FileName { file: FileId::Quarantined(quarantined), .. }), _) => {
                    generations.push(quarantined.generation);
                }
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
        files.generation = free_generation(generations);
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
        // Also of those that are about to go: what this log has left there is its own.
        for file in &self.segments {
            check_header(file, manifest)?;
        }
        let salvages = policy == RecoveryPolicy::Salvage;
        let passed_over = passed_over(&live);
        live.retain(|file| !passed_over.contains(&file.segment));
        let is_passed_over = |file: &&SegmentFile| passed_over.contains(&file.segment);
        let (doubtful, left): (Vec<&SegmentFile>, Vec<&SegmentFile>) =
            self.segments.iter().filter(is_passed_over).partition(|file| file.is_damaged());
        stale.extend(left);
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
        let doubtful = doubtful.into_iter().copied().collect();
        let first_lsn = manifest.first_lsn;
        Ok(Arrangement { live: arranged, first_lsn, stale, doubtful, missing })
    }
}

/// A generation that none has, so that no name in quarantine comes twice: above all, if that can
/// be, whatever numbers somebody has put there.
fn free_generation(mut taken: Vec<u64>) -> u64 {
    taken.sort_unstable();
    let above = taken.last().map_or(Some(1), |last| last.checked_add(1));
    let is_free = |number: &u64| taken.binary_search(number).is_err();
    above.or_else(|| (1..u64::MAX).find(is_free)).unwrap_or(u64::MAX)
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
