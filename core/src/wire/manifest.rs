//! The manifest: the log's small facts, which must not get lost with the files that they are about.
//!
//! The file is 8192 bytes, two slots of which the one at `generation % 2 * 4096` is the newer. A
//! change is written over the older slot and synced, so that it needs no room on a full disk, and a
//! torn write leaves the fact before it.
//!
//! ```text
//!  offset  bytes  slot
//!       0      8  magic "SEAMANIF"
//!       8      2  format version (1)
//!      10      1  1 when the log was closed cleanly at the durable position, else 0
//!      11      5  zero
//!      16     16  log id
//!      32      8  generation
//!      40      8  first segment that is retained
//!      48      8  first LSN that is retained
//!      56      8  last segment known to exist; 0 when none is
//!      64      8  durable: segment
//!      72      8  durable: offset of the end
//!      80      8  durable: LSN
//!      88      8  cap: segment that the log was truncated in; 0 when it was not
//!      96      8  cap: last LSN that was kept
//!     104      8  cap: first segment id given after the truncation
//!     112      8  durable: first LSN of that segment; 0 when it is not known
//!     120      4  zero
//!     124      4  CRC32C of bytes 0 to 123
//! ```

use crate::id::{LogId, Lsn, Position, SegmentId, Watermark};
use crate::wire::checksum::Crc32cFn;
use crate::wire::header::FORMAT_VERSION;
use crate::wire::{u32_at, u64_at};

const MAGIC: &[u8; 8] = b"SEAMANIF";

const VERSION_AT: usize = MAGIC.len();
const CLEAN_AT: usize = VERSION_AT + 2;
const LOG_ID_AT: usize = CLEAN_AT + 6;
const GENERATION_AT: usize = LOG_ID_AT + 16;
const FIRST_SEGMENT_AT: usize = GENERATION_AT + 8;
const FIRST_LSN_AT: usize = FIRST_SEGMENT_AT + 8;
const LAST_SEGMENT_AT: usize = FIRST_LSN_AT + 8;
const DURABLE_SEGMENT_AT: usize = LAST_SEGMENT_AT + 8;
const DURABLE_OFFSET_AT: usize = DURABLE_SEGMENT_AT + 8;
const DURABLE_LSN_AT: usize = DURABLE_OFFSET_AT + 8;
const CAP_SEGMENT_AT: usize = DURABLE_LSN_AT + 8;
const CAP_LSN_AT: usize = CAP_SEGMENT_AT + 8;
const CAP_RESUME_AT: usize = CAP_LSN_AT + 8;
const DURABLE_FIRST_AT: usize = CAP_RESUME_AT + 8;
const CHECKSUM_AT: usize = DURABLE_FIRST_AT + 12;
/// How long a slot is.
pub const SLOT_BYTES: usize = CHECKSUM_AT + 4;
const _: () = assert!(SLOT_BYTES == 128);

/// How far the second slot is from the first: a page, so that one torn write cannot touch both.
pub const SLOT_STRIDE: u64 = 4_096;
/// How long the file is.
pub const MANIFEST_BYTES: u64 = 2 * SLOT_STRIDE;

/// No log gets there, however often its manifest changes: what adds to a generation that is lower
/// never comes to the end of the numbers.
const GENERATION_MAX: u64 = u64::MAX >> 1;

/// Where the log was truncated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cap {
    /// The segment that holds the last record kept.
    pub segment: SegmentId,
    /// The last record kept.
    pub lsn: Lsn,
    /// Segments after `segment` and before this one are no longer part of the log.
    pub resume: SegmentId,
}

/// The facts of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The log.
    pub log: LogId,
    /// Grows by one with each change.
    pub generation: u64,
    /// The oldest segment that is retained; those before it may be gone.
    pub first_segment: SegmentId,
    /// The first record that is retained.
    pub first_lsn: Lsn,
    /// The last segment known to exist.
    pub last_segment: SegmentId,
    /// What was durable when the slot was written. It ends in a segment in which something is.
    pub durable: Watermark,
    /// The first LSN of the segment that `durable` ends in, which says where the log before it ends
    /// when the segment's own link is lost. Zero: not known.
    pub durable_first: Lsn,
    /// Whether the log was closed, with its end at `durable`.
    pub is_clean: bool,
    /// The truncation that new segments do not yet show.
    pub cap: Option<Cap>,
}

impl Manifest {
    /// The facts of a log that has no segment yet.
    pub const fn initial(log: LogId) -> Self {
        Self {
            log,
            generation: 0,
            first_segment: SegmentId::FIRST,
            first_lsn: Lsn::FIRST,
            last_segment: SegmentId::NONE,
            durable: Watermark { lsn: Lsn::ZERO, end: Position::new(SegmentId::NONE, 0) },
            durable_first: Lsn::ZERO,
            is_clean: false,
            cap: None,
        }
    }

    /// Where in the file these facts go.
    pub const fn slot_offset(&self) -> u64 {
        self.generation % 2 * SLOT_STRIDE
    }

    /// The bytes of the slot.
    pub fn encode(&self, crc: Crc32cFn) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..VERSION_AT].copy_from_slice(MAGIC);
        bytes[VERSION_AT..CLEAN_AT].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[CLEAN_AT] = u8::from(self.is_clean);
        bytes[LOG_ID_AT..GENERATION_AT].copy_from_slice(&self.log.0);
        let none = Cap { segment: SegmentId::NONE, lsn: Lsn::ZERO, resume: SegmentId::NONE };
        let cap = self.cap.unwrap_or(none);
        let numbers = [
            (GENERATION_AT, self.generation),
            (FIRST_SEGMENT_AT, self.first_segment.get()),
            (FIRST_LSN_AT, self.first_lsn.get()),
            (LAST_SEGMENT_AT, self.last_segment.get()),
            (DURABLE_SEGMENT_AT, self.durable.end.segment.get()),
            (DURABLE_OFFSET_AT, self.durable.end.offset),
            (DURABLE_LSN_AT, self.durable.lsn.get()),
            (CAP_SEGMENT_AT, cap.segment.get()),
            (CAP_LSN_AT, cap.lsn.get()),
            (CAP_RESUME_AT, cap.resume.get()),
            (DURABLE_FIRST_AT, self.durable_first.get()),
        ];
        for (at, number) in numbers {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc(0, &bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads both slots of the file, and returns the newer that is whole.
    pub fn parse(file: &[u8], crc: Crc32cFn) -> ManifestState {
        let slot = |at: u64| {
            let start = usize::try_from(at).ok()?;
            Self::parse_slot(file.get(start..start + SLOT_BYTES)?, crc)
        };
        match (slot(0), slot(SLOT_STRIDE)) {
            // Also where the other slot is ours: it holds the facts before those.
            (Some(Err(version)), _) | (_, Some(Err(version))) => ManifestState::Newer(version),
            (Some(Ok(a)), Some(Ok(b))) => {
                ManifestState::Whole(if a.generation > b.generation { a } else { b })
            }
            (Some(Ok(one)), None) | (None, Some(Ok(one))) => ManifestState::Whole(one),
            (None, None) => ManifestState::Broken,
        }
    }

    /// `None`: damaged. `Some(Err(version))`: whole, and of a newer version.
    fn parse_slot(bytes: &[u8], crc: Crc32cFn) -> Option<Result<Self, u16>> {
        let whole = &bytes[..VERSION_AT] == MAGIC
            && u32_at(bytes, CHECKSUM_AT) == crc(0, &bytes[..CHECKSUM_AT]);
        if !whole {
            return None;
        }
        let version = u16::from_le_bytes([bytes[VERSION_AT], bytes[VERSION_AT + 1]]);
        if version != FORMAT_VERSION {
            return Some(Err(version));
        }
        let generation = u64_at(bytes, GENERATION_AT);
        if generation > GENERATION_MAX {
            return None;
        }
        let segment = |at| SegmentId::new(u64_at(bytes, at));
        let lsn = |at| Lsn::new(u64_at(bytes, at));
        let mut log = [0; 16];
        log.copy_from_slice(&bytes[LOG_ID_AT..GENERATION_AT]);
        let cap = Cap {
            segment: segment(CAP_SEGMENT_AT),
            lsn: lsn(CAP_LSN_AT),
            resume: segment(CAP_RESUME_AT),
        };
        Some(Ok(Self {
            log: LogId(log),
            generation,
            first_segment: segment(FIRST_SEGMENT_AT),
            first_lsn: lsn(FIRST_LSN_AT),
            last_segment: segment(LAST_SEGMENT_AT),
            durable: Watermark {
                lsn: lsn(DURABLE_LSN_AT),
                end: Position::new(segment(DURABLE_SEGMENT_AT), u64_at(bytes, DURABLE_OFFSET_AT)),
            },
            durable_first: lsn(DURABLE_FIRST_AT),
            is_clean: bytes[CLEAN_AT] == 1,
            cap: (cap.segment != SegmentId::NONE).then_some(cap),
        }))
    }
}

/// What a manifest's file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ManifestState {
    /// At least one slot is whole.
    Whole(Manifest),
    /// No slot is of a version that this build knows; this is the version of one.
    Newer(u16),
    /// No slot is whole.
    Broken,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::crc32c;
    use alloc::vec;

    #[test]
    fn a_slot_of_a_newer_format_is_refused_whatever_the_other_holds() {
        let ours = Manifest::initial(LogId([1; 16]));
        let mut theirs = Manifest { generation: 1, ..ours }.encode(crc32c);
        theirs[VERSION_AT] = 2;
        let sum = crc32c(0, &theirs[..CHECKSUM_AT]);
        theirs[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
        for other in [[0; SLOT_BYTES], ours.encode(crc32c)] {
            let mut file = vec![0; usize::try_from(MANIFEST_BYTES).unwrap()];
            let stride = usize::try_from(SLOT_STRIDE).unwrap();
            file[..SLOT_BYTES].copy_from_slice(&other);
            file[stride..stride + SLOT_BYTES].copy_from_slice(&theirs);
            assert_eq!(Manifest::parse(&file, crc32c), ManifestState::Newer(2));
        }
    }

    #[test]
    fn a_slot_at_the_end_of_all_generations_is_none() {
        let one = Manifest::initial(LogId([1; 16]));
        let mut file = vec![0; usize::try_from(MANIFEST_BYTES).unwrap()];
        for (generation, is_whole) in [(GENERATION_MAX, true), (u64::MAX, false)] {
            let one = Manifest { generation, ..one };
            file[..SLOT_BYTES].copy_from_slice(&one.encode(crc32c));
            let wanted = if is_whole { ManifestState::Whole(one) } else { ManifestState::Broken };
            assert_eq!(Manifest::parse(&file, crc32c), wanted);
        }
    }

    #[test]
    fn the_newer_whole_slot_counts() {
        let older = Manifest::initial(LogId([1; 16]));
        let newer = Manifest {
            generation: 1,
            last_segment: SegmentId::new(4),
            is_clean: true,
            durable_first: Lsn::new(7),
            cap: Some(Cap {
                segment: SegmentId::new(2),
                lsn: Lsn::new(9),
                resume: SegmentId::new(5),
            }),
            ..older
        };
        let mut file = vec![0; usize::try_from(MANIFEST_BYTES).unwrap()];
        assert_eq!(Manifest::parse(&file, crc32c), ManifestState::Broken);
        for facts in [older, newer] {
            let at = usize::try_from(facts.slot_offset()).unwrap();
            file[at..at + SLOT_BYTES].copy_from_slice(&facts.encode(crc32c));
            assert_eq!(Manifest::parse(&file, crc32c), ManifestState::Whole(facts));
        }
        let stride = usize::try_from(SLOT_STRIDE).unwrap();
        for bit in 0..SLOT_BYTES * 8 {
            let mut torn = file.clone();
            torn[stride + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Manifest::parse(&torn, crc32c), ManifestState::Whole(older));
        }
        assert_eq!(Manifest::parse(&[], crc32c), ManifestState::Broken);
    }
}
