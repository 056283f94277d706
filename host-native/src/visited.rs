//! Sealed segments that readers have sought in: their files and indexes stay at hand, for all
//! readers of a log together, so that what is open does not grow with how many they are.

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use bytes::Bytes;
use seawall_core::log::SegmentInfo;
use seawall_core::wire::seal::Index;
use std::fs::File;
use std::sync::{Arc, PoisonError};

/// The bytes of a segment.
#[derive(Clone)]
pub(crate) enum Content {
    File(Arc<File>),
    /// Its frames: what comes behind them may be cut off.
    Mapped(Bytes),
}

/// A segment's index.
#[derive(Clone, Default)]
pub(crate) enum Footing {
    #[default]
    NotRead,
    /// It is not sealed, or its footer is damaged.
    Without,
    Index(Arc<Index>),
}

impl Footing {
    pub(crate) const fn is_due(&self) -> bool {
        matches!(self, Self::NotRead)
    }
}

/// What is at hand of a segment.
#[derive(Clone, Default)]
pub(crate) struct AtHand {
    pub(crate) content: Option<Content>,
    pub(crate) index: Footing,
}

/// So many segments are kept, the latest ones: what is mapped of them has to have its place among
/// the addresses of the process.
const VISITED_MAX: usize = if cfg!(target_pointer_width = "64") { 32 } else { 4 };

/// The segments of one log that are kept.
#[derive(Default)]
pub(crate) struct Visited {
    /// Changes when segments come, go or are cut, so that readers look again.
    version: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    segments: Vec<OneKept>,
    /// How often one was looked for.
    looks: u64,
}

struct OneKept {
    info: SegmentInfo,
    at_hand: AtHand,
    /// At which look it was last found.
    used: u64,
}

impl Visited {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when the log's segments do. Who keeps one says which it was before he was told of
    /// it.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn find(&self, info: &SegmentInfo) -> Option<AtHand> {
        let mut kept = self.kept();
        kept.looks += 1;
        let looks = kept.looks;
        let found = kept.segments.iter_mut().find(|one| one.info.segment == info.segment)?;
        if found.info != *info {
            return None;
        }
        found.used = looks;
        Some(found.at_hand.clone())
    }

    /// Keeps a segment, unless it may have gone since `version`: its file is not to be held then.
    pub(crate) fn keep(&self, version: u64, info: SegmentInfo, at_hand: AtHand) {
        let mut kept = self.kept();
        if self.version() != version {
            return;
        }
        kept.segments.retain(|one| one.info.segment != info.segment);
        if kept.segments.len() >= VISITED_MAX
            && let Some(oldest) = kept.segments.iter().map(|one| one.used).min()
        {
            kept.segments.retain(|one| one.used > oldest);
        }
        let used = kept.looks;
        kept.segments.push(OneKept { info, at_hand, used });
    }

    /// The log's segments have changed to these, which come in order. Lets go of all others, before
    /// their files are removed or used again.
    pub(crate) fn keep_only(&self, segments: impl Iterator<Item = SegmentInfo>) {
        let mut kept = self.kept();
        self.version.fetch_add(1, Ordering::Release);
        if !kept.segments.is_empty() {
            let segments: Vec<_> = segments.collect();
            kept.segments.retain(|one| {
                let at = segments.binary_search_by_key(&one.info.segment, |info| info.segment);
                at.is_ok_and(|at| segments[at] == one.info)
            });
        }
    }
}
