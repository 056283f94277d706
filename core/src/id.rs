//! Names for places in a log.
//!
//! A record is addressed twice: by its [`Lsn`], which counts records, and by its [`Position`],
//! which says where its bytes are. Both only ever grow; the pair is what an append returns.

use core::fmt;

/// A log sequence number: the first record of a log is 1, the next 2, with no gaps.
///
/// Zero is not the number of any record. It means "nothing yet", so that "durable up to" has a
/// value before the first sync.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first record.
    pub const ZERO: Self = Self(0);
    /// The first record of a new log.
    pub const FIRST: Self = Self(1);

    /// The LSN with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The LSN `count` records later; it stays at the largest number rather than wrap.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The next LSN.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The LSN before this one; [`Lsn::ZERO`] has none before it and stays.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many records lie in `earlier..self`; 0 when `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a segment file. Numbers grow and are never given to a second file while the log
/// can still refer to the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SegmentId(u64);

impl SegmentId {
    /// No segment: the link of a log's first segment points here.
    pub const NONE: Self = Self(0);
    /// The first segment of a new log.
    pub const FIRST: Self = Self(1);

    /// The segment with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next number; it stays at the largest rather than wrap.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number before; [`SegmentId::NONE`] has none before it and stays.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a record's bytes begin: a segment and a byte offset in it.
///
/// Positions of one log compare as its records do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// The segment.
    pub segment: SegmentId,
    /// Bytes from the start of the segment's file.
    pub offset: u64,
}

impl Position {
    /// The position `offset` bytes into `segment`.
    pub const fn new(segment: SegmentId, offset: u64) -> Self {
        Self { segment, offset }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// How far something has come: the last record it covers, and the position just past it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watermark {
    /// The last record covered; [`Lsn::ZERO`] when none is.
    pub lsn: Lsn,
    /// The byte after the last frame covered.
    pub end: Position,
}

/// The 128-bit identity of one log. Every segment carries it, so that a file of another log is
/// told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct LogId(pub [u8; 16]);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A moment, in microseconds since the Unix epoch. The host passes it in; the core has no clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(u64);

impl Time {
    /// The moment `micros` microseconds after the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The moment `millis` milliseconds after the Unix epoch; it stays at the latest rather than
    /// wrap.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// This moment and `duration` more; it stays at the latest rather than wrap.
    #[must_use]
    pub fn plus(self, duration: core::time::Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn ids_are_shown_as_people_and_file_names_have_them() {
        assert_eq!(Position::new(SegmentId::new(12), 345).to_string(), "12:345");
        let mut id = [0; 16];
        (id[0], id[15]) = (0xa, 0xff);
        assert_eq!(LogId(id).to_string(), "0a0000000000000000000000000000ff");
    }

    #[test]
    fn milliseconds_are_whole_and_time_ends() {
        assert_eq!(Time::from_micros(1_234_999).as_millis(), 1_234);
        assert_eq!(Time::from_millis(7).as_micros(), 7_000);
        assert_eq!(Time::from_millis(u64::MAX), Time::from_micros(u64::MAX));
        let last = Time::from_micros(u64::MAX - 1);
        assert_eq!(last.plus(core::time::Duration::from_micros(5)).as_micros(), u64::MAX);
    }
}
