//! What a user sets, and how it becomes what the core runs with.

use crate::error::Error;
use crate::execute::Interpose;
use crate::meter::Meter;
use crate::sys::fastest_crc32c;
use seawall_core::compress::Compression;
use seawall_core::config::{Config, ConfigError, FsyncPolicy, RecoveryPolicy, RecoveryScan};
use seawall_core::id::{LogId, Time};
use seawall_core::wire::checksum::ChecksumKind;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a log. Start from [`WalConfig::in_dir`] or the default, and change what differs.
///
/// ```
/// use seawall::{FsyncPolicy, WalConfig};
///
/// let config = WalConfig {
///     fsync_policy: FsyncPolicy::Always,
///     max_segment_size: 32 << 20,
///     ..WalConfig::in_dir("/var/lib/queue/wal")
/// };
/// # assert_eq!(config.max_segment_size, 32 << 20);
/// ```
#[derive(Clone)]
pub struct WalConfig {
    /// The folder that the log is in. Default: `wal`.
    pub dir: PathBuf,
    /// Whether to make the folder, and a log in it, where there is none. Default: yes.
    pub create: bool,
    /// No segment's file is longer, in bytes: from 4 KiB to 1 TiB. Default: 128 MiB.
    pub max_segment_size: u64,
    /// A segment that holds records is ended once it is this old. Default: never.
    pub max_segment_age: Option<Duration>,
    /// When records become durable, and what an append waits for. Default: `Batch` of 5 ms.
    pub fsync_policy: FsyncPolicy,
    /// Whether a segment's space is reserved before it is used. Default: yes. Where the file system
    /// writes what is overwritten to new blocks (btrfs, bcachefs, ZFS) it would not be the space
    /// that is used, and none is reserved; a folder of btrfs with the attribute `C` is none of
    /// those.
    pub preallocate: bool,
    /// How much of it is reserved at a time at most, in bytes, at least 512; a file is so much
    /// longer than what it holds. A segment begins with 1 MiB, and each step doubles what it has.
    /// Opening after a crash reads what is reserved and not used.
    ///
    /// Default: 8 MiB; and, on Linux without `map_appends` and `uring_size`, all of a segment
    /// before it is used once the log has filled half of one, where twice as much is free: then
    /// nothing is reserved while it is appended to, and its file is no longer than what it holds
    /// and a few zeros.
    pub reserve_size: Option<u64>,
    /// So many files of deleted segments at most are kept, and become segments again. Default: 0.
    ///
    /// Their blocks are written and their pages often in memory, so that a program that deletes as
    /// fast as it appends writes long batches up to twice as fast. Opening after a crash reads them
    /// as well, about 2 GiB a second. They hold their space until then; a full disk, a close and
    /// the next opening give it back. A file that a reader has open, here or in another process, is
    /// removed as ever. Unix only: elsewhere all are.
    pub recycle_segments: usize,
    /// What to do about damage to what had been durable. Default: end the log before it and keep
    /// what is cut in `quarantine/`.
    pub recovery: RecoveryPolicy,
    /// How much an open reads. Default: the last segment, and of those before headers and footers,
    /// where their files are not as an earlier opening or this log's writer left them.
    pub scan: RecoveryScan,
    /// How values are stored whose record does not say. Default: plain.
    pub compression: Compression,
    /// Values shorter than this, in bytes, are stored plain. Default: 256.
    pub compression_threshold: u64,
    /// The level at which values are packed to Zstd, from 1 to 22. Needs the feature `zstd`, with
    /// which the C library does that, two to five times as fast as the Rust library and into fewer
    /// bytes; without it opening is refused where a level is set. Default: the C library's, 3, or
    /// the only one of the Rust library.
    pub zstd_level: Option<u8>,
    /// No record's key and value together, and no batch, may be longer, in bytes. Default: 65 MiB.
    /// A segment must hold it: a smaller `max_segment_size` lowers it.
    pub max_record_size: u64,
    /// A batch on its way to the disk takes no further record once it has this many bytes: from 4
    /// KiB to 64 MiB. Default: 256 KiB.
    pub batch_size: u64,
    /// How many batches may be filled or under way at a time: from 2 to 1,024. Default: 4. Appends
    /// wait when all are.
    pub buffers: usize,
    /// The checksum of new segments. Default: CRC32C.
    pub checksum: ChecksumKind,
    /// Whether readers map sealed segments into memory. Default: no.
    ///
    /// A file that someone else shortens while it is mapped kills the process at the next read of
    /// the missing part. The log shortens a sealed segment only behind its frames, which readers
    /// never touch, or when a later opening cuts damage off it. Set this only where nothing else
    /// touches the folder, and hold no value of a reader across such an opening. Such a value keeps
    /// the file of its segment open.
    pub map_sealed: bool,
    /// Whether small appends to [`Level::Os`](crate::Level) are copied into the mapped segment in
    /// place of a system call each: 1.5 to 3 times as many a second. Default: no.
    ///
    /// What reaches the mapping is as safe as what a call writes: the kernel has it when the
    /// process ends, and a sync makes it durable. But where a call returns an error, a mapping
    /// kills the process (`SIGBUS`): when someone else shortens the file, when the disk cannot
    /// read back the page that holds the log's end, and on a full disk where the file system has
    /// not really reserved the space that it was asked for. Nothing that was acknowledged is lost
    /// by that. Set this only where such an end is acceptable. Where no space is reserved at all
    /// (see `preallocate`) there is nothing to map, and every append is a call.
    pub map_appends: bool,
    /// Durable writes of so many bytes and more go through io_uring, past the page cache, several
    /// pieces at a time; 512 KiB is a good figure. Needs the feature `io-uring` and a kernel that
    /// allows it; otherwise they are made as all others, and the meter is told
    /// [`Event::NoUring`](crate::Event::NoUring). Default: none.
    ///
    /// Batches of 1 MiB take a fifth to a quarter less of a processor; on some machines they take
    /// less time, on others a third more (docs/PERFORMANCE.md): measure on yours. Readers that
    /// follow fetch them from the device.
    pub uring_size: Option<u64>,
    /// Whenever so many bytes have been written that no sync covers, the device is told to begin
    /// with them, in bytes, from 512 on: no more than 256 MiB a second, and none while it still has
    /// some to do. Default: 1 MiB. `None`: when the kernel sees fit. Linux 6.5 and newer; elsewhere
    /// the same as `None`.
    ///
    /// Nothing is durable by that. But a sync that comes after many appends to
    /// [`Level::Os`](crate::Level), the one at the end of a segment among them, has little left to
    /// wait for, and neither has whoever else syncs to that disk meanwhile.
    pub write_back_size: Option<u64>,
    /// How much a reader reads at a time, in bytes: from 64 KiB to 64 MiB. Default: 256 KiB.
    pub read_size: u64,
    /// Whether a reader that has read several such pieces in a row has the next ones fetched by a
    /// second thread, while it shows the records of one. Default: yes.
    pub prefetch: bool,
    /// Who is told what happens. Default: nobody.
    pub meter: Option<Arc<dyn Meter>>,
    /// Who may make calls fail, for tests. Default: nobody.
    pub interpose: Option<Arc<dyn Interpose>>,
    /// What makes a run repeatable, for tests. Default: the operating system's clock and random
    /// numbers.
    pub injected: Option<Injected>,
}

/// What makes a run repeatable: one thread that makes the same calls writes the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injected {
    /// The identity of a new log.
    pub log: LogId,
    /// Where the salts of new segments come from. Give another at each opening: a salt that comes
    /// again lets the bytes of an earlier life pass for new ones.
    pub seed: u64,
    /// The time. It stands still, so that nothing falls due by itself.
    pub now: Time,
}

impl Default for WalConfig {
    fn default() -> Self {
        let core = Config::default();
        Self {
            dir: PathBuf::from("wal"),
            create: true,
            max_segment_size: core.segment_bytes_max,
            max_segment_age: core.segment_age_max,
            fsync_policy: core.fsync_policy,
            preallocate: core.preallocate,
            reserve_size: None,
            recycle_segments: core.recycle_max,
            recovery: core.recovery,
            scan: core.scan,
            compression: core.compression,
            compression_threshold: core.compression_threshold_bytes,
            zstd_level: None,
            max_record_size: core.record_bytes_max,
            batch_size: core.batch_bytes,
            buffers: 4,
            checksum: core.checksum,
            map_sealed: false,
            map_appends: false,
            uring_size: None,
            write_back_size: Some(WRITE_BACK_SIZE_DEFAULT),
            read_size: READ_SIZE_DEFAULT,
            prefetch: true,
            meter: None,
            interpose: None,
            injected: None,
        }
    }
}

/// Less costs more calls, and more makes whoever syncs meanwhile wait: see docs/PERFORMANCE.md.
const WRITE_BACK_SIZE_DEFAULT: u64 = 1 << 20;

/// Zeros behind a short plain write go on to a multiple of it, by measurement; in a mapping each
/// such write is a call that appends have not got otherwise.
const PADDING_BYTES: u64 = 32 << 10;
const MAPPED_PADDING_BYTES: u64 = 64 << 10;
const READ_SIZE_DEFAULT: u64 = 256 << 10;
const READ_SIZE_MIN: u64 = 64 << 10;
const READ_SIZE_MAX: u64 = 64 << 20;

const BUFFERS_MIN: u64 = 2;
const BUFFERS_MAX: u64 = 1_024;

const ZSTD_LEVEL_MAX: u64 = 22;

impl WalConfig {
    /// The default settings, for a log in this folder.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), ..Self::default() }
    }

    /// What the core runs with.
    pub(crate) fn to_core(&self) -> Result<Config, Error> {
        let config = Config {
            segment_bytes_max: self.max_segment_size,
            segment_age_max: self.max_segment_age,
            fsync_policy: self.fsync_policy,
            preallocate: self.preallocate,
            reserve_bytes: self.reserve_size.unwrap_or(Config::default().reserve_bytes),
            // An append to a mapping wants the file to be there, and a direct write one that does
            // not grow; and who says how much wants no more.
            reserve_past_end: cfg!(target_os = "linux")
                && self.reserve_size.is_none()
                && self.uring_size.is_none()
                && !self.map_appends,
            write_back_bytes: self.write_back_size,
            padding_bytes: if self.map_appends { MAPPED_PADDING_BYTES } else { PADDING_BYTES },
            recycle_max: self.recycle_segments,
            recovery: self.recovery,
            scan: self.scan,
            compression: self.compression,
            compression_threshold_bytes: self.compression_threshold,
            record_bytes_max: self.max_record_size,
            batch_bytes: self.batch_size,
            checksum: self.checksum,
            crc: fastest_crc32c(),
        };
        if self.zstd_level.is_some() && !cfg!(feature = "zstd") {
            return Err(Error::NotBuilt { setting: "zstd_level", feature: "zstd" });
        }
        self.check().and_then(|()| config.checked()).map_err(|error| {
            Error::Config(ConfigError { setting: name_here(error.setting), ..error })
        })
    }

    /// Checks what the core does not know.
    fn check(&self) -> Result<(), ConfigError> {
        let buffers = u64::try_from(self.buffers).unwrap_or(u64::MAX);
        ConfigError::within("buffers", buffers, BUFFERS_MIN, BUFFERS_MAX)?;
        ConfigError::within("read_size", self.read_size, READ_SIZE_MIN, READ_SIZE_MAX)?;
        let level = self.zstd_level.unwrap_or(1);
        ConfigError::within("zstd_level", level.into(), 1, ZSTD_LEVEL_MAX)
    }

    pub(crate) fn new_buffers(&self) -> Vec<Vec<u8>> {
        let bytes = usize::try_from(self.batch_size).unwrap_or(0);
        (0..self.buffers).map(|_| Vec::with_capacity(bytes)).collect()
    }
}

/// What a setting of the core is called here.
fn name_here(setting: &'static str) -> &'static str {
    match setting {
        "segment_bytes_max" => "max_segment_size",
        "segment_age_max in milliseconds" => "max_segment_age in milliseconds",
        "record_bytes_max" => "max_record_size",
        "batch_bytes" => "batch_size",
        "reserve_bytes" => "reserve_size",
        "write_back_bytes" => "write_back_size",
        same => same,
    }
}

impl fmt::Debug for WalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalConfig")
            .field("dir", &self.dir)
            .field("create", &self.create)
            .field("max_segment_size", &self.max_segment_size)
            .field("max_segment_age", &self.max_segment_age)
            .field("fsync_policy", &self.fsync_policy)
            .field("preallocate", &self.preallocate)
            .field("reserve_size", &self.reserve_size)
            .field("recycle_segments", &self.recycle_segments)
            .field("recovery", &self.recovery)
            .field("scan", &self.scan)
            .field("compression", &self.compression)
            .field("compression_threshold", &self.compression_threshold)
            .field("zstd_level", &self.zstd_level)
            .field("max_record_size", &self.max_record_size)
            .field("batch_size", &self.batch_size)
            .field("buffers", &self.buffers)
            .field("checksum", &self.checksum)
            .field("map_sealed", &self.map_sealed)
            .field("map_appends", &self.map_appends)
            .field("uring_size", &self.uring_size)
            .field("write_back_size", &self.write_back_size)
            .field("read_size", &self.read_size)
            .field("prefetch", &self.prefetch)
            .field("meter", &self.meter.is_some())
            .field("interpose", &self.interpose.is_some())
            .field("injected", &self.injected)
            .finish()
    }
}
