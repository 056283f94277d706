//! What a host may keep of what it has found of a sealed segment.

use crate::log::SegmentInfo;
use crate::wire::checksum::Crc32cFn;
use crate::wire::header::{Identity, Link, LinkState};
use crate::wire::known::{Known, KnownEnd};

/// What the header of a segment's file says, and where the log says that the segment ends. `None`:
/// the header is damaged, or is not of that segment.
///
/// Who has also found its footer whole may keep it of what
/// [`Log::sealed_after`](crate::log::Log::sealed_after) gives, see
/// [`Listed::known`](crate::command::Listed::known).
pub fn known(info: &SegmentInfo, header: &[u8], crc: Crc32cFn) -> Option<Known> {
    let identity = Identity::parse(header, crc).ok()?;
    let LinkState::Written(link) = Link::parse(header, crc) else { return None };
    let known = Known { identity, link, end: end_of(info)? };
    is_still(&known, info).then_some(known)
}

/// Whether something that is known of a segment is still so, as the log knows it.
pub fn is_still(known: &Known, info: &SegmentInfo) -> bool {
    (known.identity.segment, known.identity.salt, known.link.first_lsn, Some(known.end))
        == (info.segment, info.salt, info.first_lsn, end_of(info))
}

fn end_of(info: &SegmentInfo) -> Option<KnownEnd> {
    info.end.map(|end| KnownEnd { offset: end.frames_end, next_lsn: end.last_lsn.next() })
}
