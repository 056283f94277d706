//! What an earlier look found of a sealed segment, for a host that can tell that its file is as it
//! was: a recovery need not read it again.

use crate::id::{Lsn, SegmentId};
use crate::wire::checksum::Crc32cFn;
use crate::wire::header::{HEADER_BYTES, IDENTITY_BYTES, Identity, Link, LinkState};
use crate::wire::u64_at;

/// How long a [`Known`] is in bytes.
pub const KNOWN_BYTES: usize = NEXT_LSN_AT + 8;

const END_AT: usize = HEADER_BYTES;
const NEXT_LSN_AT: usize = END_AT + 8;

/// A segment's header, and where its frames end: so its footer says, which is whole, or all frames
/// up to there have been looked at.
///
/// It says what the file's own bytes say, so it holds while those are as they were, and on the
/// device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    pub(crate) identity: Identity,
    pub(crate) link: Link,
    pub(crate) end: KnownEnd,
}

/// Where a segment ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KnownEnd {
    /// Where its frames end.
    pub(crate) offset: u64,
    /// The LSN after its last.
    pub(crate) next_lsn: Lsn,
}

impl Known {
    /// Of which segment it is.
    pub const fn segment(&self) -> SegmentId {
        self.identity.segment
    }

    /// Its bytes: the segment's header, and where its frames end, and the LSN after its last.
    pub fn encode(&self, crc: Crc32cFn) -> [u8; KNOWN_BYTES] {
        let mut bytes = [0; KNOWN_BYTES];
        bytes[..IDENTITY_BYTES].copy_from_slice(&self.identity.encode(crc));
        let link = self.link.encode(&self.identity, crc);
        bytes[IDENTITY_BYTES..END_AT].copy_from_slice(&link);
        bytes[END_AT..NEXT_LSN_AT].copy_from_slice(&self.end.offset.to_le_bytes());
        bytes[NEXT_LSN_AT..].copy_from_slice(&self.end.next_lsn.get().to_le_bytes());
        bytes
    }

    /// Reads what [`Known::encode`] gave. Its last two numbers have no checksum of their own.
    pub fn parse(bytes: &[u8; KNOWN_BYTES], crc: Crc32cFn) -> Option<Self> {
        let identity = Identity::parse(bytes, crc).ok()?;
        let LinkState::Written(link) = Link::parse(bytes, crc) else { return None };
        let next_lsn = Lsn::new(u64_at(bytes, NEXT_LSN_AT));
        let end = KnownEnd { offset: u64_at(bytes, END_AT), next_lsn };
        Some(Self { identity, link, end })
    }
}
