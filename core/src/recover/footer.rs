//! A segment's footer, looked at through what the segment after it says.

use crate::cursor::{self, footer_within};
use crate::log::{SegmentEnd, SegmentInfo};
use crate::wire::checksum::Crc32cFn;
use crate::wire::known::KnownEnd;
use crate::wire::seal;

/// A footer's head is within so many bytes, and most footers are.
pub(super) const FOOTER_LOOK_BYTES: u64 = 4_096;

/// Where a footer should be, and of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Footer {
    pub(super) info: SegmentInfo,
    pub(super) end: KnownEnd,
    /// The file has so many bytes from there on.
    pub(super) bytes_max: u64,
}

impl Footer {
    pub(super) fn look(&self, bytes: &[u8], crc: Crc32cFn) -> cursor::Footer {
        let KnownEnd { offset: frames_end, next_lsn } = self.end;
        let end = SegmentEnd { last_lsn: next_lsn.previous(), frames_end, has_footer: true };
        let bytes_max = self.bytes_max.min(seal::bytes_max_at(frames_end));
        footer_within(&self.info, &end, bytes, bytes_max, crc)
    }
}
