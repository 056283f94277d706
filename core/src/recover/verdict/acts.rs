//! What the decision has done to the files, in order: a crash after any of it leads the next
//! recovery to the same log.

use super::{Break, Judge, Kept, is_blank};
use crate::command::Folder;
use crate::config::RecoveryPolicy;
use crate::id::SegmentId;
use crate::recover::Range;
use crate::recover::act::Act;
use crate::wire::header::{FRAMES_OFFSET, LINK_OFFSET};
use crate::wire::manifest::Manifest;
use crate::wire::name::{FileId, FileName, Quarantined};
use alloc::vec;
use alloc::vec::Vec;
use core::ops;

impl Judge<'_> {
    /// What is to be done, in order, and the manifest that stands in the end.
    pub(super) fn acts(
        &self,
        is_new: bool,
        is_damage: bool,
        mut manifest: Manifest,
        kept: &Kept,
        ranges: &mut [Range],
    ) -> (Vec<Act>, Manifest) {
        let unfinished = self.files.unfinished.iter().map(|(name, _)| *name);
        let mut acts: Vec<Act> = unfinished.clone().map(Act::Remove).collect();
        if unfinished.into_iter().any(|name| matches!(name.file, FileId::Quarantined(_))) {
            acts.push(Act::SyncDir(Folder::Quarantine));
        }
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
        for file in &self.walk.arrangement.doubtful {
            self.move_whole(file.segment, &mut acts, ranges);
        }
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
                self.quarantine_exhausted(broken, &mut acts, ranges);
                acts.extend(self.reset_later(broken, kept));
                acts.extend(self.cut(broken));
            }
            None if is_damage && cuts => {
                manifest = damage_manifest;
                acts.push(write_manifest(manifest));
            }
            _ => {
                if let Some(active) = kept.active.as_ref().filter(|_| is_damage) {
                    let segment = active.identity.segment;
                    self.quarantine_rest(segment, active.end, &mut acts, ranges);
                    acts.push(Act::Truncate(segment, active.end));
                }
            }
        }
        // What is shown must survive the next crash: the segment that grew last, and the one before
        // it, whose footer may not have been synced.
        let recent = kept.sealed.iter().rev().take(1).map(|info| info.segment);
        let active = kept.active.as_ref().map(|active| active.identity.segment);
        let spare = kept.spare.map(|identity| identity.segment);
        // A salvaged log also shows segments without a link, and those before them may be as new.
        let live = self.walk.arrangement.live.iter().zip(&self.walk.walked);
        let counted = live.filter(|(_, walked)| !cuts && walked.report.is_some());
        let counted = counted.map(|(arranged, _)| arranged.segment);
        let recent = recent.chain(active).chain(spare).chain(counted);
        acts.extend(recent.map(|segment| Act::Sync(FileId::Segment(segment).name())));
        (acts, manifest)
    }

    /// Copies what is about to be cut where good frames may stand in it that the bounded search did
    /// not find, though nothing says that any of it had been durable.
    fn quarantine_exhausted(&self, broken: Break, acts: &mut Vec<Act>, ranges: &mut [Range]) {
        let live = self.walk.arrangement.live.iter().zip(&self.walk.walked).enumerate();
        for (index, (arranged, walked)) in live.skip(broken.index) {
            let is_first = index == broken.index;
            let start = if is_first { broken.offset.max(LINK_OFFSET) } else { LINK_OFFSET };
            let report = walked.report.as_ref();
            if report.is_some_and(|report| report.is_exhausted && !is_blank(report)) {
                self.quarantine_rest(arranged.segment, start, acts, ranges);
            }
        }
    }

    /// Copies what a segment holds from `start` on into quarantine.
    fn quarantine_rest(
        &self,
        segment: SegmentId,
        start: u64,
        acts: &mut Vec<Act>,
        ranges: &mut [Range],
    ) {
        let mut live = self.walk.arrangement.live.iter().zip(&self.walk.walked);
        let Some((arranged, walked)) = live.find(|(live, _)| live.segment == segment) else {
            return;
        };
        let file_bytes = arranged.file_bytes;
        let unwritten = walked
            .report
            .as_ref()
            .and_then(|report| report.holes.last())
            .filter(|hole| hole.end >= file_bytes)
            .map(|hole| if hole.is_zero { hole.start } else { hole.stale_from });
        let end = unwritten.unwrap_or(file_bytes);
        if end <= start {
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
        mark_moved(ranges, segment, start..end, to.name());
    }

    /// Moves everything from the break on into quarantine: the rest of its segment by copy, later
    /// segments whole, the newest first.
    fn quarantine(&self, broken: Break, kept: &Kept, acts: &mut Vec<Act>, ranges: &mut [Range]) {
        let live = &self.walk.arrangement.live;
        let spare = kept.spare.map(|identity| identity.segment);
        let keeps_some = broken.offset >= FRAMES_OFFSET;
        if keeps_some {
            self.quarantine_rest(live[broken.index].segment, broken.offset, acts, ranges);
        }
        let whole_from = broken.index + usize::from(keeps_some);
        let later = live.iter().skip(whole_from).rev().map(|arranged| arranged.segment);
        for segment in later.filter(|segment| Some(*segment) != spare) {
            self.move_whole(segment, acts, ranges);
        }
    }

    /// Moves a segment's file into quarantine.
    fn move_whole(&self, segment: SegmentId, acts: &mut Vec<Act>, ranges: &mut [Range]) {
        let (generation, offset) = (self.files.generation, None);
        let name = FileId::Segment(segment).name();
        let to = FileId::Quarantined(Quarantined { generation, segment, offset });
        // The folder may not be there yet: making a file in it makes it. What is moved may be known
        // to the kernel alone.
        acts.extend([
            Act::Sync(name),
            Act::Create(to.new_name()),
            Act::Remove(to.new_name()),
            Act::Rename(name, to.name()),
            Act::SyncDir(Folder::Quarantine),
            Act::SyncDir(Folder::Log),
        ]);
        mark_moved(ranges, segment, 0..u64::MAX, to.name());
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

/// Notes where bytes of a segment have gone.
fn mark_moved(ranges: &mut [Range], segment: SegmentId, moved: ops::Range<u64>, to: FileName) {
    let file = FileId::Segment(segment).name();
    let is_moved = |range: &&mut Range| {
        range.file == file && range.start >= moved.start && range.end <= moved.end
    };
    for range in ranges.iter_mut().filter(is_moved) {
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
