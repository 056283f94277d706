//! Seawall: an embeddable write-ahead log.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), seawall::Error> {
//! use seawall::{Record, Wal, WalConfig};
//!
//! # let temp = tempfile::tempdir().unwrap();
//! # let config = WalConfig::in_dir(temp.path());
//! let (wal, recovery) = Wal::open(config).await?;
//! let position = wal.append(&Record::put(b"user:42", b"alice@example.com")).await?;
//! let mut reader = wal.read_from(position).await?;
//! while let Some((record, position)) = reader.next_record().await? {
//!     println!("{position}: {:?} is {:?}", record.key, record.value);
//! }
//! wal.close().await?;
//! # assert!(recovery.report.is_new);
//! # Ok(())
//! # }
//! ```
//!
//! [`Wal`] is for tasks (tokio), [`blocking::Wal`] for threads; both are the same log. What an
//! append promises when it returns is its [`Level`]: the [`FsyncPolicy`] sets it, and any append
//! may ask for another. By default that is [`Level::Os`], and a sync follows within 5 ms; set
//! [`FsyncPolicy::Always`] where each append is to be durable when it returns.
//!
//! A failed write or sync poisons the log for good: every later append, sync or request returns the
//! first cause. What was durable before can still be read, and reopening reads what the disk holds.
//!
//! An open log has two threads of its own, a third while segments are being deleted, and
//! `buffers` x `batch_size` of memory (1 MiB by default).
//!
//! | feature    | gives                                                                      |
//! |------------|----------------------------------------------------------------------------|
//! | `tracing`  | `TracingMeter`, which feeds the crate `tracing`                            |
//! | `metrics`  | `MetricsMeter`, which feeds the crate `metrics`                            |
//! | `io-uring` | long durable writes through it, if [`WalConfig::uring_size`] asks (Linux)  |
//! | `zstd`     | Zstd by its C library, at the level that [`WalConfig::zstd_level`] asks    |

/// The examples of the README are tests, too.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// And those of the recipes.
#[cfg(doctest)]
#[doc = include_str!("../../docs/RECIPES.md")]
struct Recipes;

mod ahead;
pub mod blocking;
mod catalog;
mod commit;
mod config;
mod dir;
mod error;
mod execute;
mod gather;
pub mod inspect;
mod meter;
mod off_thread;
mod prefetch;
mod reader;
mod stall;
mod sync;
mod sys;
mod tokio;
mod visited;
mod wait;
#[cfg(feature = "zstd")]
mod zstd;

pub use crate::config::{Injected, WalConfig};
pub use crate::error::Error;
pub use crate::execute::{Call, Fault, Interpose};
#[cfg(feature = "metrics")]
pub use crate::meter::MetricsMeter;
#[cfg(feature = "tracing")]
pub use crate::meter::TracingMeter;
pub use crate::meter::{Event, Meter};
pub use crate::reader::{Entry, Visibility};
pub use crate::sys::fastest_crc32c;
pub use crate::tokio::{ReadOnly, Reader, Wal};
pub use cap_std::fs::Dir;
pub use seawall_core::command::Operation;
pub use seawall_core::compress::{Compression, DecompressError};
pub use seawall_core::config::{ConfigError, FsyncPolicy, Level, RecoveryPolicy, RecoveryScan};
pub use seawall_core::cursor::Start;
pub use seawall_core::error::{Failure, IoError, IoErrorKind, Poison};
pub use seawall_core::id::{LogId, Lsn, Position, SegmentId, Time};
pub use seawall_core::log::Appended;
pub use seawall_core::record::{Record, RecordKind};
pub use seawall_core::recover::{Damage, Proof, Range, RangeKind, RecoveryError, Report};
pub use seawall_core::wire::checksum::ChecksumKind;
pub use seawall_core::wire::frame::RecordError;
pub use seawall_core::wire::name::{FileId, FileName};

use seawall_core::compress::Compressor;
use seawall_core::log::SegmentInfo;
use seawall_core::record::Entry as Prepared;
use std::cell::RefCell;
use std::time::Duration;

#[cfg(feature = "zstd")]
use crate::zstd::Libzstd as Zstd;
#[cfg(not(feature = "zstd"))]
use seawall_core::compress::Ruzstd as Zstd;

/// What opening a log found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveryInfo {
    /// How many records the log holds.
    pub valid_records: u64,
    /// How many segments were read to their end.
    pub segments_scanned: u64,
    /// How many bytes that held something were cut. Space that was only reserved does not count.
    pub bytes_truncated: u64,
    /// Where the last record begins; `None` when there is no record, or its frame is longer than
    /// the settings allow or of a kind that this build does not know.
    pub last_valid_position: Option<Position>,
    /// Whether anything that had been durable is damaged or gone. A torn tail is not.
    pub corruption_detected: bool,
    /// Everything else: each range that is not kept, with what it is, and the damage with its
    /// proof.
    pub report: Report,
}

impl From<Report> for RecoveryInfo {
    fn from(report: Report) -> Self {
        Self {
            valid_records: report.records,
            segments_scanned: report.segments_scanned,
            bytes_truncated: report.bytes_cut(),
            last_valid_position: None,
            corruption_detected: report.is_damaged(),
            report,
        }
    }
}

/// Figures about a log at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Its identity.
    pub log: LogId,
    /// The first record that is retained.
    pub first_lsn: Lsn,
    /// The last record appended.
    pub last_lsn: Lsn,
    /// The last record that the kernel has.
    pub written_lsn: Lsn,
    /// The last record that the device has.
    pub durable_lsn: Lsn,
    /// Where the last frame appended ends.
    pub end: Position,
    /// The segments, oldest first.
    pub segments: Vec<SegmentStat>,
    /// How many appends there were since the log was opened; a batch is one.
    pub appends: u64,
    /// How many records they held.
    pub records: u64,
    /// How many bytes of keys and values they stored.
    pub bytes_appended: u64,
    /// How many writes were made.
    pub writes: u64,
    /// How many syncs were made, alone or with a write.
    pub syncs: u64,
    /// How long those took together.
    pub sync_time: Duration,
}

/// Figures about a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentStat {
    /// Its number.
    pub segment: SegmentId,
    /// Its first record.
    pub first_lsn: Lsn,
    /// Its last record; one less than the first when it has none.
    pub last_lsn: Lsn,
    /// Where its frames end, in bytes from the start of its file.
    pub bytes: u64,
    /// Whether it grows no more.
    pub is_sealed: bool,
    /// When the log moved into it.
    pub opened: Time,
}

impl From<SegmentInfo> for SegmentStat {
    fn from(info: SegmentInfo) -> Self {
        let end = info.end;
        Self {
            segment: info.segment,
            first_lsn: info.first_lsn,
            last_lsn: end.map_or(info.first_lsn.previous(), |end| end.last_lsn),
            bytes: end.map_or(0, |end| end.frames_end),
            is_sealed: end.is_some(),
            opened: info.opened,
        }
    }
}

thread_local! {
    /// Each thread packs into scratch memory of its own, before any lock is taken.
    static COMPRESSOR: RefCell<Compressor<Zstd>> = RefCell::default();
}

/// Packs the values of records as they or the settings ask, and hands the result on.
fn prepare<T>(
    config: &WalConfig,
    records: &[Record<'_>],
    append: impl FnOnce(&[Prepared<'_>]) -> T,
) -> T {
    let (default, threshold) = (config.compression, config.compression_threshold);
    if records.iter().all(|record| record.codec(default) == Compression::None) {
        return match records {
            [record] => append(&[Prepared::from(record)]),
            records => append(&records.iter().map(Prepared::from).collect::<Vec<_>>()),
        };
    }
    // Taken out of its cell, so that whatever is called from here may append as well.
    let mut compressor = COMPRESSOR.take();
    #[cfg(feature = "zstd")]
    compressor.zstd_mut().set_level(config.zstd_level);
    let result = match records {
        [record] => append(&[compressor.prepare(record, default, threshold)]),
        records => append(&compressor.prepare_all(records, default, threshold)),
    };
    compressor.trim();
    COMPRESSOR.set(compressor);
    result
}
