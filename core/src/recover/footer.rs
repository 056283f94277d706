//! A segment's footer, looked at through what the segment after it says, or what a log knows.

use super::verdict::KnownEnd;
use crate::id::Lsn;
use crate::log::SegmentInfo;
use crate::wire::checksum::{Crc32cFn, Place};
use crate::wire::frame::{FrameKind, Head, Parsed};
use crate::wire::header::{Identity, Link, LinkState};
use crate::wire::known::Known;
use crate::wire::seal;

/// A footer's head is within so many bytes, and most footers are.
pub(super) const FOOTER_LOOK_BYTES: u64 = 4_096;

/// Where a footer should be, and of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Footer {
    pub(super) identity: Identity,
    pub(super) first_lsn: Lsn,
    pub(super) end: KnownEnd,
    /// The file has so many bytes from there on.
    pub(super) bytes_max: u64,
}

/// What the first bytes of a footer say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FooterState {
    Whole,
    /// It has so many bytes.
    Longer(u64),
    Broken,
}

impl Footer {
    pub(super) fn look(&self, bytes: &[u8], crc: Crc32cFn) -> FooterState {
        let Self { identity, first_lsn, end, bytes_max } = self;
        let head = match Head::parse(bytes, identity.checksum) {
            Parsed::Head(head) if head.kind == FrameKind::Seal => head,
            _ => return FooterState::Broken,
        };
        if head.frame_bytes > (*bytes_max).min(seal::bytes_max_at(end.offset)) {
            return FooterState::Broken;
        }
        if (bytes.len() as u64) < head.frame_bytes {
            return FooterState::Longer(head.frame_bytes);
        }
        let frame = &bytes[..usize::try_from(head.frame_bytes).unwrap_or(0)];
        let (segment, salt) = (identity.segment, identity.salt);
        let place = Place { salt, segment, offset: end.offset, lsn: end.next_lsn };
        let body = &frame[head.head_bytes.min(frame.len())..];
        let is_whole = head.holds(frame, place, identity.checksum, crc)
            && seal::parse(body, *first_lsn, end.offset)
                .is_some_and(|seal| seal.records == end.next_lsn.since(*first_lsn));
        if is_whole { FooterState::Whole } else { FooterState::Broken }
    }
}

/// Where in a sealed segment's file its footer begins, and how long it can be. `None`: it has none.
pub fn footer_place(info: &SegmentInfo) -> Option<(u64, u64)> {
    let end = info.end.filter(|end| end.has_footer)?;
    Some((end.frames_end, seal::bytes_max_at(end.frames_end)))
}

/// Whether something that is known of a segment is still so, as the log knows it.
pub fn is_still(known: &Known, info: &SegmentInfo) -> bool {
    let end = info.end.map(|end| (end.frames_end, end.last_lsn.next()));
    (known.identity.segment, known.identity.salt, known.link.first_lsn)
        == (info.segment, info.salt, info.first_lsn)
        && end == Some((known.frames_end, known.next_lsn))
}

/// What the header of a segment's file and the bytes of its footer, or more, say. `None`: anything
/// is amiss with them, or the log knows the segment otherwise.
///
/// A host may keep it of what [`Log::sealed_after`](crate::log::Log::sealed_after) gives, see
/// [`Listed::known`](crate::command::Listed::known).
pub fn known(info: &SegmentInfo, header: &[u8], footer: &[u8], crc: Crc32cFn) -> Option<Known> {
    let identity = Identity::parse(header, crc).ok()?;
    let LinkState::Written(link) = Link::parse(header, crc) else { return None };
    let (frames_end, next_lsn) = info.end.map(|end| (end.frames_end, end.last_lsn.next()))?;
    let known = Known { identity, link, frames_end, next_lsn };
    let end = KnownEnd { offset: frames_end, next_lsn };
    let bytes_max = footer.len() as u64;
    let place = Footer { identity, first_lsn: link.first_lsn, end, bytes_max };
    let is_whole = is_still(&known, info) && place.look(footer, crc) == FooterState::Whole;
    is_whole.then_some(known)
}
