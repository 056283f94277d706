//! The log's settings, parsed once into limits that hold together.

use crate::compress::Compression;
use crate::wire::checksum::{ChecksumKind, Crc32cFn, crc32c};
use crate::wire::frame::{FRAME_BYTES_MAX, HEAD_BYTES_MAX};
use crate::wire::header::HEADER_BYTES;
use core::fmt;
use core::time::Duration;

/// How sure an append is before it returns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// It is in the process's memory. Survives nothing until a flush or sync.
    Buffered,
    /// The kernel has it. Survives a crash of the process.
    Os,
    /// The device has it. Survives power loss.
    Disk,
}

/// When records become durable, and what an append waits for when it asks for nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FsyncPolicy {
    /// An append returns at [`Level::Disk`].
    Always,
    /// An append returns at [`Level::Os`]; a sync that covers it sets out within this time, whether
    /// or not another append comes.
    Batch(Duration),
    /// An append returns at [`Level::Os`]; the log syncs only when asked, and at rotation.
    Os,
}

impl FsyncPolicy {
    /// What an append under this policy waits for by default.
    pub const fn level(self) -> Level {
        match self {
            Self::Always => Level::Disk,
            Self::Batch(_) | Self::Os => Level::Os,
        }
    }
}

/// What to do about damage to bytes that had been durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RecoveryPolicy {
    /// The log ends before the damage; every byte cut is first moved to `quarantine/`.
    #[default]
    PrefixValid,
    /// Refuse to open, and change nothing.
    Strict,
    /// Keep every good frame on both sides of the damage, and report the hole. What is cut off the
    /// end, where no good frame follows, is copied to quarantine first.
    Salvage,
}

/// How much of the log an open reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RecoveryScan {
    /// Headers, footers and the last segment. Damage inside a sealed segment shows when it is read.
    /// Where the host [knows](crate::command::Listed::known) what is in a header and a footer, they
    /// are not read.
    #[default]
    Tail,
    /// Every byte of every segment.
    Full,
}

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct Config {
    /// No segment's file is longer, in bytes.
    pub segment_bytes_max: u64,
    /// A segment that holds records is ended once it is this old.
    pub segment_age_max: Option<Duration>,
    /// When records become durable.
    pub fsync_policy: FsyncPolicy,
    /// Whether a segment's space is reserved before it is used.
    pub preallocate: bool,
    /// How much of it is reserved at a time, in bytes; a segment begins with less, and each step
    /// doubles what it has. What is reserved and not used is read when the log is opened after a
    /// crash. The size of a segment or more: all of it at once.
    pub reserve_bytes: u64,
    /// Whether all of the next segment's space is reserved behind the end of its file once the log
    /// has filled half of one, for a host that can do that. Then nothing is reserved of a segment
    /// while it is appended to, which a file system may hold up; and a recovery has nothing to look
    /// through that was reserved and not used.
    pub reserve_past_end: bool,
    /// Whenever so many bytes have been written that no sync covers, the device is told to begin
    /// with them, so that the sync to come has little left to wait for. `None`: whoever caches them
    /// decides; for a host that cannot tell the device.
    pub write_back_bytes: Option<u64>,
    /// A short write that is not synced takes zeros along up to a multiple of so many bytes, where
    /// space is reserved: the page cache makes one piece of memory of them, for less than many
    /// small ones.
    pub padding_bytes: u64,
    /// The files of so many deleted segments at most are kept, to become segments again: their
    /// blocks are written already. 0: none.
    pub recycle_max: usize,
    /// What to do about damage.
    pub recovery: RecoveryPolicy,
    /// How much to read when opening.
    pub scan: RecoveryScan,
    /// How values are stored whose record does not say.
    pub compression: Compression,
    /// Shorter values are stored plain, in bytes.
    pub compression_threshold_bytes: u64,
    /// No record's key and value together are longer, in bytes. Nor is a batch, which counts the
    /// few bytes before each of its records, too.
    pub record_bytes_max: u64,
    /// A write takes no further frame that would bring it past so many bytes; one frame may.
    pub batch_bytes: u64,
    /// The checksum of new segments.
    pub checksum: ChecksumKind,
    /// The CRC32C to use; the host hands in the fastest it has.
    pub crc: Crc32cFn,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes_max: 128 << 20,
            segment_age_max: None,
            fsync_policy: FsyncPolicy::Batch(Duration::from_millis(5)),
            preallocate: true,
            reserve_bytes: 8 << 20,
            reserve_past_end: false,
            write_back_bytes: None,
            padding_bytes: 32 << 10,
            recycle_max: 0,
            recovery: RecoveryPolicy::default(),
            scan: RecoveryScan::default(),
            compression: Compression::None,
            compression_threshold_bytes: 256,
            record_bytes_max: RECORD_BYTES_MAX_DEFAULT,
            batch_bytes: 256 << 10,
            checksum: ChecksumKind::Crc32c,
            crc: crc32c,
        }
    }
}

/// 64 MiB of value and 1 MiB of key fit; so do two such records in a default segment less the
/// header.
const RECORD_BYTES_MAX_DEFAULT: u64 = (64 << 20) + (1 << 20);

/// The smallest segment: one page.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// The largest segment: 1 TiB.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 40;
/// The smallest batch.
pub const BATCH_BYTES_MIN: u64 = 4 << 10;
/// The largest batch.
pub const BATCH_BYTES_MAX: u64 = 64 << 20;

/// The least that is reserved at a time: a sector.
pub const RESERVE_BYTES_MIN: u64 = 512;

/// The least that is written back at a time: a sector.
pub const WRITE_BACK_BYTES_MIN: u64 = 512;

/// The least and the most that zeros go on to a multiple of: a page, and what a write makes long.
pub const PADDING_BYTES_MIN: u64 = 4 << 10;
/// See [`PADDING_BYTES_MIN`].
pub const PADDING_BYTES_MAX: u64 = 1 << 20;

/// Room that a segment keeps for the footer of a segment with one index entry.
pub(crate) const FOOTER_BYTES: u64 = 160;

impl Config {
    /// The settings, if they hold together. `record_bytes_max` is lowered to what a segment can
    /// hold.
    ///
    /// # Errors
    /// Names the setting, its value and what it must be.
    pub fn checked(mut self) -> Result<Self, ConfigError> {
        let within = ConfigError::within;
        let segment_bytes = self.segment_bytes_max;
        within("segment_bytes_max", segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)?;
        within("batch_bytes", self.batch_bytes, BATCH_BYTES_MIN, BATCH_BYTES_MAX)?;
        within("reserve_bytes", self.reserve_bytes, RESERVE_BYTES_MIN, u64::MAX)?;
        if let Some(bytes) = self.write_back_bytes {
            within("write_back_bytes", bytes, WRITE_BACK_BYTES_MIN, u64::MAX)?;
        }
        within("padding_bytes", self.padding_bytes, PADDING_BYTES_MIN, PADDING_BYTES_MAX)?;
        within("record_bytes_max", self.record_bytes_max, 1, u64::MAX)?;
        if let FsyncPolicy::Batch(window) = self.fsync_policy {
            let micros = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
            within("fsync_policy window in microseconds", micros, 1, 3_600_000_000)?;
        }
        if let Some(age) = self.segment_age_max {
            let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            within("segment_age_max in milliseconds", millis, 1, u64::MAX)?;
        }
        let room = self.frame_bytes_max() - HEAD_BYTES_MAX as u64;
        self.record_bytes_max = self.record_bytes_max.min(room);
        Ok(self)
    }

    /// No frame that this configuration writes is longer.
    pub(crate) fn frame_bytes_max(&self) -> u64 {
        let room = self.segment_bytes_max.saturating_sub(HEADER_BYTES as u64 + FOOTER_BYTES);
        room.min(FRAME_BYTES_MAX)
    }
}

/// A setting that is out of its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// Which.
    pub setting: &'static str,
    /// What it was.
    pub value: u64,
    /// The least that it may be.
    pub min: u64,
    /// The most that it may be.
    pub max: u64,
}

impl ConfigError {
    /// Checks a setting.
    ///
    /// # Errors
    /// When its value is out of the range from `min` to `max`.
    pub fn within(setting: &'static str, value: u64, min: u64, max: u64) -> Result<(), Self> {
        let fits = (min..=max).contains(&value);
        if fits { Ok(()) } else { Err(Self { setting, value, min, max }) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, value, min, max } = self;
        write!(f, "{setting} is {value}; it must be from {min} to {max}")
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The setting that is refused.
    fn refused(config: Config) -> Option<&'static str> {
        config.checked().err().map(|error| error.setting)
    }

    #[test]
    fn settings_have_the_bounds_that_are_documented() {
        let (kib, mib, tib) = (1 << 10, 1 << 20, 1 << 40);
        let segment = |bytes| Config { segment_bytes_max: bytes, ..Config::default() };
        let batch = |bytes| Config { batch_bytes: bytes, ..Config::default() };
        let settings: [(_, &dyn Fn(u64) -> Config, _); 2] =
            [("segment_bytes_max", &segment, tib), ("batch_bytes", &batch, 64 * mib)];
        for (setting, config, max) in settings {
            for (bytes, is_refused) in
                [(4 * kib - 1, true), (4 * kib, false), (max, false), (max + 1, true)]
            {
                assert_eq!(refused(config(bytes)), is_refused.then_some(setting), "{bytes}");
            }
        }
    }

    #[test]
    fn the_default_takes_the_record_that_is_promised_and_a_segment_limits_it() {
        let default = Config::default().checked().unwrap();
        assert_eq!(default.record_bytes_max, 65 << 20);
        let small = Config { segment_bytes_max: 4 << 10, ..Config::default() }.checked().unwrap();
        // The header, the footer and the longest head of a frame are taken off.
        let room = (4 << 10) - HEADER_BYTES as u64 - FOOTER_BYTES - HEAD_BYTES_MAX as u64;
        assert_eq!(small.record_bytes_max, room);
    }
}
