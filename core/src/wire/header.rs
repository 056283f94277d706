//! The first 128 bytes of a segment, in two halves.
//!
//! ```text
//!  offset  bytes  identity: written when the file is made ready, ahead of need
//!       0      8  magic "SEAWALL\n"
//!       8      2  format version (1)
//!      10      1  checksum of frames: 1 CRC32C, 2 XXH3-64
//!      11      1  zero
//!      12      4  required features: a reader that does not know a bit refuses the file
//!      16      4  optional features: a reader may pass over bits that it does not know
//!                 (bit 0: recycled, the file was an older segment's)
//!      20      4  recycled: how many segments before this one that was; else zero
//!      24     16  log id
//!      40      8  segment id
//!      48      8  time of creation, microseconds since the Unix epoch
//!      56      8  salt
//!      64      4  recycled: bits 16 to 47 of that segment's first LSN; else zero
//!      68      4  CRC32C of bytes 0 to 67
//!                 link: zeros until the log moves in, then written with its first batch
//!      72      4  magic "LINK"
//!      76      4  records in the segment before; 0 when that is not known
//!      80      8  first LSN
//!      88      8  id of the segment before; 0 when there is none
//!      96      8  where the frames of the segment before end; 0 when there is none
//!     104      8  time at which the log moved in, microseconds since the Unix epoch
//!     112      8  durable LSN at that time
//!     120      4  zero
//!     124      4  CRC32C of bytes 0 to 71 and then 72 to 123
//!     128         the first frame
//! ```
//!
//! A recycled file holds frames of its earlier life behind those of this one. They do not match
//! here, and with what the header says of that life they are known for what they are, so that the
//! end of such a log is told from a torn write. The salt of that life follows from this one's.
//!
//! Two halves, because creating, preallocating, syncing and renaming a file take long and are done
//! before the log needs it, while the link is known only when the segment before has ended.

use crate::id::{LogId, Lsn, Position, SegmentId, Time};
use crate::wire::checksum::{ChecksumKind, Crc32cFn};
use crate::wire::{is_zero, u32_at, u64_at};
use core::fmt;

/// The format version that this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"SEAWALL\n";
const LINK_MAGIC: &[u8; 4] = b"LINK";

const VERSION_AT: usize = MAGIC.len();
const CHECKSUM_KIND_AT: usize = VERSION_AT + 2;
const REQUIRED_AT: usize = CHECKSUM_KIND_AT + 2;
const OPTIONAL_AT: usize = REQUIRED_AT + 4;
const SEGMENTS_BEFORE_AT: usize = OPTIONAL_AT + 4;
const LOG_ID_AT: usize = SEGMENTS_BEFORE_AT + 4;
const SEGMENT_AT: usize = LOG_ID_AT + 16;
const CREATED_AT: usize = SEGMENT_AT + 8;
const SALT_AT: usize = CREATED_AT + 8;
const EARLIER_LSN_AT: usize = SALT_AT + 8;
const IDENTITY_CHECKSUM_AT: usize = EARLIER_LSN_AT + 4;
/// How long the first half is, and where the second begins.
pub const IDENTITY_BYTES: usize = IDENTITY_CHECKSUM_AT + 4;

const PREVIOUS_RECORDS_AT: usize = LINK_MAGIC.len();
const FIRST_LSN_AT: usize = PREVIOUS_RECORDS_AT + 4;
const PREVIOUS_SEGMENT_AT: usize = FIRST_LSN_AT + 8;
const PREVIOUS_END_AT: usize = PREVIOUS_SEGMENT_AT + 8;
const OPENED_AT: usize = PREVIOUS_END_AT + 8;
const DURABLE_AT: usize = OPENED_AT + 8;
const LINK_CHECKSUM_AT: usize = DURABLE_AT + 12;
/// How long the second half is.
pub const LINK_BYTES: usize = LINK_CHECKSUM_AT + 4;

/// How long the whole header is, and where the first frame begins.
pub const HEADER_BYTES: usize = IDENTITY_BYTES + LINK_BYTES;
const _: () = assert!(IDENTITY_BYTES == 72 && HEADER_BYTES == 128);

/// Where the link begins, as a file offset.
pub const LINK_OFFSET: u64 = IDENTITY_BYTES as u64;
/// Where the first frame begins, as a file offset.
pub const FRAMES_OFFSET: u64 = HEADER_BYTES as u64;

/// The optional feature of a file that was another segment's before.
const RECYCLED: u32 = 1;
/// Of an earlier life's first LSN the low bits are not noted, which frames have themselves.
const EARLIER_LSN_SHIFT: u32 = 16;
/// A recycled file's salt is that of its earlier life times this, plus one: any odd number will do,
/// this one is 2^64 over the golden ratio.
const SALT_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// The same backwards: their product is one.
const SALT_INVERSE: u64 = inverse(SALT_FACTOR);

/// The number that gives one when multiplied with `odd`, by Newton's method: each step doubles the
/// bits that are right, of which there are three at first.
const fn inverse(odd: u64) -> u64 {
    let (mut inverse, mut bits) = (odd, 3);
    while bits < u64::BITS {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse
}

/// The life of a file before it became this segment's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Earlier {
    /// The segment that it was.
    pub segment: SegmentId,
    /// Its salt then.
    pub salt: u64,
    /// No LSN in it is lower, and its first less than 2^16 higher.
    pub lsn: Lsn,
}

impl Earlier {
    /// What a header can say of the life of `segment`, whose first LSN is `first`, in the file that
    /// is to be `next`. `None`: it has no room for these numbers.
    pub fn of(segment: SegmentId, salt: u64, first: Lsn, next: SegmentId) -> Option<Self> {
        u32::try_from(first.get() >> EARLIER_LSN_SHIFT).ok()?;
        u32::try_from(next.get().checked_sub(segment.get())?).ok()?;
        let lsn = Lsn::new(first.get() >> EARLIER_LSN_SHIFT << EARLIER_LSN_SHIFT);
        Some(Self { segment, salt, lsn })
    }

    /// The salt of the life after this one.
    pub const fn next_salt(&self) -> u64 {
        self.salt.wrapping_mul(SALT_FACTOR).wrapping_add(1)
    }
}

/// The first half of a header: which file this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The checksum that the segment's frames carry.
    pub checksum: ChecksumKind,
    /// Features that a reader may pass over, and that this build does not know.
    pub optional_features: u32,
    /// The log that the segment is of.
    pub log: LogId,
    /// The segment's number; its file name says the same.
    pub segment: SegmentId,
    /// When the file was made.
    pub created: Time,
    /// Mixed into every frame's checksum. Of a recycled file it is [`Earlier::next_salt`].
    pub salt: u64,
    /// What the file was before.
    pub earlier: Option<Earlier>,
}

/// The second half of a header: what came before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The LSN of the first record in this segment.
    pub first_lsn: Lsn,
    /// The segment before, and where its frames end. [`SegmentId::NONE`] when there is none.
    pub previous_end: Position,
    /// How many records that segment holds, which says where it began when its own link is lost.
    /// Zero: not known.
    pub previous_records: u32,
    /// When the log moved into this segment.
    pub opened: Time,
    /// What was durable at that time.
    pub durable: Lsn,
}

/// What the second half of a header holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// Zeros: the segment is ready, and the log has not moved in.
    Unwritten,
    /// A link whose checksum holds.
    Written(Link),
    /// Neither.
    Broken,
}

/// Why the first half of a header cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// The file is shorter than the first half of a header.
    TooShort,
    /// It does not begin with the magic bytes: not a segment of any version.
    NotASegment,
    /// Its checksum does not match.
    Checksum {
        /// The checksum that stands there.
        found: u32,
        /// The checksum of the bytes that stand there.
        computed: u32,
    },
    /// A newer format.
    NewerFormat(u16),
    /// A required feature that this build does not know, by its bits.
    UnknownFeatures(u32),
    /// A checksum algorithm that this build does not know.
    UnknownChecksum(u8),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => {
                write!(f, "shorter than the {IDENTITY_BYTES} bytes that name a segment")
            }
            Self::NotASegment => f.write_str("does not begin as a segment does"),
            Self::Checksum { found, computed } => {
                write!(f, "header checksum is {found:#010x}, its bytes give {computed:#010x}")
            }
            Self::NewerFormat(version) => write!(
                f,
                "format version {version} is newer than {FORMAT_VERSION}, the newest that this \
                 build reads"
            ),
            Self::UnknownFeatures(bits) => {
                write!(f, "needs features that this build does not know (bits {bits:#010x})")
            }
            Self::UnknownChecksum(byte) => {
                write!(f, "names a checksum that this build does not know ({byte})")
            }
        }
    }
}

impl Identity {
    /// The bytes of the first half.
    pub fn encode(&self, crc: Crc32cFn) -> [u8; IDENTITY_BYTES] {
        let mut bytes = [0; IDENTITY_BYTES];
        bytes[..VERSION_AT].copy_from_slice(MAGIC);
        bytes[VERSION_AT..CHECKSUM_KIND_AT].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[CHECKSUM_KIND_AT] = self.checksum as u8;
        let mut optional = self.optional_features;
        if let Some(earlier) = self.earlier {
            optional |= RECYCLED;
            let before = self.segment.get().wrapping_sub(earlier.segment.get());
            let lsn = earlier.lsn.get() >> EARLIER_LSN_SHIFT;
            put_u32(&mut bytes, SEGMENTS_BEFORE_AT, before);
            put_u32(&mut bytes, EARLIER_LSN_AT, lsn);
        }
        bytes[OPTIONAL_AT..OPTIONAL_AT + 4].copy_from_slice(&optional.to_le_bytes());
        bytes[LOG_ID_AT..SEGMENT_AT].copy_from_slice(&self.log.0);
        bytes[SEGMENT_AT..CREATED_AT].copy_from_slice(&self.segment.get().to_le_bytes());
        bytes[CREATED_AT..SALT_AT].copy_from_slice(&self.created.as_micros().to_le_bytes());
        bytes[SALT_AT..SALT_AT + 8].copy_from_slice(&self.salt.to_le_bytes());
        let checksum = crc(0, &bytes[..IDENTITY_CHECKSUM_AT]);
        bytes[IDENTITY_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the first half from the front of a file.
    ///
    /// # Errors
    /// See [`HeaderError`]. The checksum is looked at before the version: every version keeps the
    /// length of this half and the place of its checksum, so that damage is not taken for a newer
    /// format.
    pub fn parse(bytes: &[u8], crc: Crc32cFn) -> Result<Self, HeaderError> {
        if bytes.len() < IDENTITY_BYTES {
            return Err(HeaderError::TooShort);
        }
        if &bytes[..VERSION_AT] != MAGIC {
            return Err(HeaderError::NotASegment);
        }
        let computed = crc(0, &bytes[..IDENTITY_CHECKSUM_AT]);
        let found = u32_at(bytes, IDENTITY_CHECKSUM_AT);
        if found != computed {
            return Err(HeaderError::Checksum { found, computed });
        }
        let version = u16::from_le_bytes([bytes[VERSION_AT], bytes[VERSION_AT + 1]]);
        if version != FORMAT_VERSION {
            return Err(HeaderError::NewerFormat(version));
        }
        let required = u32_at(bytes, REQUIRED_AT);
        if required != 0 {
            return Err(HeaderError::UnknownFeatures(required));
        }
        let kind = bytes[CHECKSUM_KIND_AT];
        let mut log = [0; 16];
        log.copy_from_slice(&bytes[LOG_ID_AT..SEGMENT_AT]);
        let segment = SegmentId::new(u64_at(bytes, SEGMENT_AT));
        let salt = u64_at(bytes, SALT_AT);
        let optional = u32_at(bytes, OPTIONAL_AT);
        let before = u64::from(u32_at(bytes, SEGMENTS_BEFORE_AT));
        let earlier = segment.get().checked_sub(before).filter(|_| optional & RECYCLED != 0);
        Ok(Self {
            checksum: ChecksumKind::from_byte(kind).ok_or(HeaderError::UnknownChecksum(kind))?,
            optional_features: optional & !RECYCLED,
            log: LogId(log),
            segment,
            created: Time::from_micros(u64_at(bytes, CREATED_AT)),
            salt,
            earlier: earlier.map(|segment| Earlier {
                segment: SegmentId::new(segment),
                salt: salt.wrapping_sub(1).wrapping_mul(SALT_INVERSE),
                lsn: Lsn::new(u64::from(u32_at(bytes, EARLIER_LSN_AT)) << EARLIER_LSN_SHIFT),
            }),
        })
    }
}

/// Puts the low half of a number, which holds all of it.
fn put_u32(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes()[..4]);
}

impl Link {
    /// The bytes of the second half, tied to the first.
    pub fn encode(&self, identity: &Identity, crc: Crc32cFn) -> [u8; LINK_BYTES] {
        let mut bytes = [0; LINK_BYTES];
        bytes[..PREVIOUS_RECORDS_AT].copy_from_slice(LINK_MAGIC);
        bytes[PREVIOUS_RECORDS_AT..FIRST_LSN_AT]
            .copy_from_slice(&self.previous_records.to_le_bytes());
        let numbers = [
            (FIRST_LSN_AT, self.first_lsn.get()),
            (PREVIOUS_SEGMENT_AT, self.previous_end.segment.get()),
            (PREVIOUS_END_AT, self.previous_end.offset),
            (OPENED_AT, self.opened.as_micros()),
            (DURABLE_AT, self.durable.get()),
        ];
        for (at, number) in numbers {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc(crc(0, &identity.encode(crc)), &bytes[..LINK_CHECKSUM_AT]);
        bytes[LINK_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the second half of the header that `bytes` begin with; its first half has been parsed.
    /// A file without space reserved may end after the first half: its link is unwritten.
    pub fn parse(bytes: &[u8], crc: Crc32cFn) -> LinkState {
        let (identity, link) = bytes.split_at(bytes.len().min(IDENTITY_BYTES));
        let link = &link[..link.len().min(LINK_BYTES)];
        if is_zero(link) {
            return LinkState::Unwritten;
        }
        if link.len() < LINK_BYTES {
            return LinkState::Broken;
        }
        let computed = crc(crc(0, identity), &link[..LINK_CHECKSUM_AT]);
        if &link[..LINK_MAGIC.len()] != LINK_MAGIC || u32_at(link, LINK_CHECKSUM_AT) != computed {
            return LinkState::Broken;
        }
        let previous = SegmentId::new(u64_at(link, PREVIOUS_SEGMENT_AT));
        LinkState::Written(Self {
            first_lsn: Lsn::new(u64_at(link, FIRST_LSN_AT)),
            previous_end: Position::new(previous, u64_at(link, PREVIOUS_END_AT)),
            previous_records: u32_at(link, PREVIOUS_RECORDS_AT),
            opened: Time::from_micros(u64_at(link, OPENED_AT)),
            durable: Lsn::new(u64_at(link, DURABLE_AT)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::crc32c;

    fn sample() -> (Identity, Link) {
        let identity = Identity {
            checksum: ChecksumKind::Xxh3,
            optional_features: 4,
            log: LogId([7; 16]),
            segment: SegmentId::new(3),
            created: Time::from_micros(11),
            salt: 0x0123_4567_89ab_cdef,
            earlier: None,
        };
        let link = Link {
            first_lsn: Lsn::new(100),
            previous_end: Position::new(SegmentId::new(2), 4_711),
            previous_records: 17,
            opened: Time::from_micros(12),
            durable: Lsn::new(98),
        };
        (identity, link)
    }

    fn encoded() -> [u8; HEADER_BYTES] {
        let (identity, link) = sample();
        let mut bytes = [0; HEADER_BYTES];
        bytes[..IDENTITY_BYTES].copy_from_slice(&identity.encode(crc32c));
        bytes[IDENTITY_BYTES..].copy_from_slice(&link.encode(&identity, crc32c));
        bytes
    }

    #[test]
    fn both_halves_round_trip() {
        let (identity, link) = sample();
        let mut bytes = encoded();
        assert_eq!(Identity::parse(&bytes, crc32c), Ok(identity));
        assert_eq!(Link::parse(&bytes, crc32c), LinkState::Written(link));
        bytes[IDENTITY_BYTES..].fill(0);
        assert_eq!(Link::parse(&bytes, crc32c), LinkState::Unwritten);
        assert_eq!(Link::parse(&bytes[..IDENTITY_BYTES], crc32c), LinkState::Unwritten);
        let bytes = encoded();
        assert_eq!(Link::parse(&bytes[..HEADER_BYTES - 1], crc32c), LinkState::Broken);
        assert_eq!(Identity::parse(&bytes[..71], crc32c), Err(HeaderError::TooShort));
    }

    #[test]
    fn a_recycled_file_names_its_earlier_life() {
        let lsn = Lsn::new(0x1234_5678_9abc);
        for salt in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let earlier = Earlier::of(SegmentId::new(1), salt, lsn, SegmentId::new(3)).unwrap();
            assert_eq!(earlier.lsn, Lsn::new(0x1234_5678_0000));
            let salt = earlier.next_salt();
            let identity = Identity { salt, earlier: Some(earlier), ..sample().0 };
            assert_eq!(Identity::parse(&identity.encode(crc32c), crc32c), Ok(identity));
        }
        let of = |first, next| Earlier::of(SegmentId::new(4), 7, Lsn::new(first), next);
        assert_eq!(of(1 << 48, SegmentId::new(5)), None, "no room for its LSN");
        assert_eq!(of(1, SegmentId::new(4 + (1 << 32))), None, "no room for its distance");
        assert_eq!(of(1, SegmentId::new(3)), None, "it comes later");
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = encoded();
        for bit in (0..HEADER_BYTES * 8).step_by(if cfg!(miri) { 31 } else { 1 }) {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            if bit / 8 < IDENTITY_BYTES {
                assert!(Identity::parse(&bytes, crc32c).is_err(), "bit {bit}");
            }
            assert_eq!(Link::parse(&bytes, crc32c), LinkState::Broken, "bit {bit}");
        }
    }

    #[test]
    fn what_this_build_does_not_know_is_refused_by_name() {
        let cases: [(usize, u8, HeaderError); 3] = [
            (VERSION_AT, 2, HeaderError::NewerFormat(2)),
            (REQUIRED_AT, 4, HeaderError::UnknownFeatures(4)),
            (CHECKSUM_KIND_AT, 9, HeaderError::UnknownChecksum(9)),
        ];
        for (at, byte, error) in cases {
            let mut bytes = encoded();
            bytes[at] = byte;
            let checksum = crc32c(0, &bytes[..IDENTITY_CHECKSUM_AT]);
            bytes[IDENTITY_CHECKSUM_AT..IDENTITY_BYTES].copy_from_slice(&checksum.to_le_bytes());
            assert_eq!(Identity::parse(&bytes, crc32c), Err(error));
        }
    }
}
