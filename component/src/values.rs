//! The contract's values into the core's, and back.

use crate::bindings::exports::seawall::log::types as wit;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use seawall_core::command::Operation;
use seawall_core::compress::Compression;
use seawall_core::config::{Config, ConfigError, FsyncPolicy, Level, RecoveryPolicy, RecoveryScan};
use seawall_core::cursor::{Start, StartError};
use seawall_core::error::{AppendError, Failure, IoErrorKind, RequestError};
use seawall_core::event::Event;
use seawall_core::id::{LogId, Lsn, Position, SegmentId, Time};
use seawall_core::log::Appended;
use seawall_core::record::{Record, RecordKind};
use seawall_core::recover::{Damage, Range, RangeKind, RecoveryError, Report};
use seawall_core::wire::checksum::ChecksumKind;
use seawall_wasi::folder::Refusal;
use seawall_wasi::{
    Exclusion, Injected, OpenError, Page, Preallocation, ReadError, Settings, Visibility, wasi,
};

pub(crate) fn position(position: Position) -> wit::Position {
    wit::Position { segment: position.segment.get(), offset: position.offset }
}

pub(crate) fn level(level: wit::Level) -> Level {
    match level {
        wit::Level::Buffered => Level::Buffered,
        wit::Level::Os => Level::Os,
        wit::Level::Disk => Level::Disk,
    }
}

pub(crate) fn visibility(visibility: wit::Visibility) -> Visibility {
    match visibility {
        wit::Visibility::Durable => Visibility::Durable,
        wit::Visibility::Written => Visibility::Written,
    }
}

pub(crate) fn start(start: wit::Start) -> Start {
    match start {
        wit::Start::First => Start::First,
        wit::Start::Lsn(lsn) => Start::Lsn(Lsn::new(lsn)),
        wit::Start::Position(at) => {
            Start::Position(Position::new(SegmentId::new(at.segment), at.offset))
        }
    }
}

pub(crate) fn appended(appended: Appended) -> wit::Appended {
    wit::Appended {
        first: appended.first.get(),
        last: appended.last.get(),
        position: position(appended.position),
    }
}

fn compression(compression: wit::Compression) -> Compression {
    match compression {
        wit::Compression::None => Compression::None,
        wit::Compression::Lz4 => Compression::Lz4,
        wit::Compression::Zstd => Compression::Zstd,
    }
}

fn log_id((low, high): (u64, u64)) -> LogId {
    LogId(((u128::from(high) << 64) | u128::from(low)).to_le_bytes())
}

fn halves(id: LogId) -> (u64, u64) {
    let [low, high] = [0, 8].map(|at| {
        let mut half = [0; 8];
        half.copy_from_slice(&id.0[at..at + 8]);
        u64::from_le_bytes(half)
    });
    (low, high)
}

/// The settings that a log has when nothing is said.
pub(crate) fn default_config() -> wit::Config {
    let core = Config::default();
    wit::Config {
        segment_bytes_max: core.segment_bytes_max,
        segment_age_millis_max: None,
        fsync_policy: wit::FsyncPolicy::BatchMicros(5_000),
        preallocation: wit::Preallocation::Sparse,
        recovery: wit::RecoveryPolicy::PrefixValid,
        scan: wit::Scan::Tail,
        compression: wit::Compression::None,
        compression_threshold_bytes: core.compression_threshold_bytes,
        record_bytes_max: core.record_bytes_max,
        batch_bytes: core.batch_bytes,
        checksum: wit::Checksum::Crc32c,
        exclusion: wit::Exclusion::Embedder,
        requires_directory_sync: true,
        injected: None,
    }
}

pub(crate) fn settings(config: wit::Config) -> Settings {
    Settings {
        config: Config {
            segment_bytes_max: config.segment_bytes_max,
            segment_age_max: config.segment_age_millis_max.map(Duration::from_millis),
            fsync_policy: match config.fsync_policy {
                wit::FsyncPolicy::Always => FsyncPolicy::Always,
                wit::FsyncPolicy::BatchMicros(micros) => {
                    FsyncPolicy::Batch(Duration::from_micros(micros))
                }
                wit::FsyncPolicy::Os => FsyncPolicy::Os,
            },
            recovery: match config.recovery {
                wit::RecoveryPolicy::PrefixValid => RecoveryPolicy::PrefixValid,
                wit::RecoveryPolicy::Strict => RecoveryPolicy::Strict,
                wit::RecoveryPolicy::Salvage => RecoveryPolicy::Salvage,
            },
            scan: match config.scan {
                wit::Scan::Tail => RecoveryScan::Tail,
                wit::Scan::Full => RecoveryScan::Full,
            },
            compression: compression(config.compression),
            compression_threshold_bytes: config.compression_threshold_bytes,
            record_bytes_max: config.record_bytes_max,
            batch_bytes: config.batch_bytes,
            checksum: match config.checksum {
                wit::Checksum::Crc32c => ChecksumKind::Crc32c,
                wit::Checksum::Xxh3 => ChecksumKind::Xxh3,
            },
            ..Config::default()
        },
        preallocation: match config.preallocation {
            wit::Preallocation::None => Preallocation::None,
            wit::Preallocation::Sparse => Preallocation::Sparse,
            wit::Preallocation::Written => Preallocation::Written,
        },
        exclusion: match config.exclusion {
            wit::Exclusion::Embedder => Exclusion::Embedder,
            wit::Exclusion::Owner(owner) => Exclusion::Owner(owner),
            wit::Exclusion::TakeOver(owner) => Exclusion::TakeOver(owner),
        },
        requires_directory_sync: config.requires_directory_sync,
        injected: config.injected.map(|told| Injected {
            log: log_id(told.log_id),
            seed: told.seed,
            now: Time::from_micros(told.now_micros),
        }),
    }
}

/// The records of a batch, borrowed from its flat memory.
pub(crate) fn records(batch: &wit::Batch) -> Result<Vec<Record<'_>>, wit::Error> {
    let (pairs, odd) = batch.lengths.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(wit::Error::MalformedBatch);
    }
    let mut records = Vec::with_capacity(pairs.len());
    let mut rest = &batch.data[..];
    for [key_bytes, value_bytes] in pairs {
        let mut take = |bytes: u32| {
            let bytes = usize::try_from(bytes).ok()?;
            let (taken, others) = rest.split_at_checked(bytes)?;
            rest = others;
            Some(taken)
        };
        let (Some(key), Some(value)) = (take(*key_bytes), take(*value_bytes)) else {
            return Err(wit::Error::MalformedBatch);
        };
        records.push(Record { key, value, ..Record::default() });
    }
    if !rest.is_empty() {
        return Err(wit::Error::MalformedBatch);
    }
    let mut least = 0;
    for attributes in &batch.attributes {
        let index = usize::try_from(attributes.index).unwrap_or(usize::MAX);
        let record = records.get_mut(index).filter(|_| index >= least);
        let Some(record) = record else { return Err(wit::Error::MalformedBatch) };
        least = index + 1;
        match attributes.kind {
            wit::RecordKind::Put => {}
            wit::RecordKind::Delete if record.value.is_empty() => record.kind = RecordKind::Delete,
            // A tombstone has no value: a value here would be lost.
            wit::RecordKind::Delete => return Err(wit::Error::MalformedBatch),
        }
        record.ttl = attributes.ttl_millis.map(Duration::from_millis);
        record.compression = attributes.compression.map(compression);
    }
    Ok(records)
}

/// How many records each group has; together all of them.
pub(crate) fn groups(groups: &[u32], records: usize) -> Result<Vec<usize>, wit::Error> {
    let mut sum = 0_usize;
    let mut sizes = Vec::with_capacity(groups.len());
    for group in groups {
        let size = usize::try_from(*group).unwrap_or(usize::MAX);
        if size == 0 {
            return Err(wit::Error::EmptyBatch);
        }
        sum = sum.saturating_add(size);
        sizes.push(size);
    }
    if sizes.is_empty() {
        return Err(wit::Error::EmptyBatch);
    }
    if sum == records { Ok(sizes) } else { Err(wit::Error::MalformedBatch) }
}

pub(crate) fn page(page: Page) -> wit::Page {
    let attributes = page.attributes.iter().map(|found| wit::Attributes {
        // A page has fewer records than bytes, and less than 4 GiB of those.
        index: u32::try_from(found.index).unwrap_or(u32::MAX),
        kind: match found.kind {
            RecordKind::Put => wit::RecordKind::Put,
            RecordKind::Delete => wit::RecordKind::Delete,
        },
        ttl_millis: found.ttl.map(millis),
        written_at_millis: found.written_at.map(Time::as_millis),
        compression: None,
    });
    let attributes = attributes.collect();
    wit::Page {
        first: page.first.get(),
        segment: page.segment.get(),
        offsets: page.offsets,
        records: wit::Batch { data: page.data, lengths: page.lengths, attributes },
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn failure(failure: Failure) -> wit::Failure {
    wit::Failure {
        operation: match failure.operation {
            Operation::Create => wit::Operation::Create,
            Operation::Allocate => wit::Operation::Preallocate,
            Operation::Write => wit::Operation::Write,
            // Nobody here asks for write-backs; whoever loses one has lost what it was to sync.
            Operation::Sync | Operation::WriteBack => wit::Operation::Sync,
            Operation::Truncate => wit::Operation::Truncate,
            Operation::Rename => wit::Operation::Rename,
            Operation::Remove => wit::Operation::Remove,
            Operation::SyncDir => wit::Operation::DirectorySync,
            Operation::Read => wit::Operation::Read,
            Operation::List => wit::Operation::List,
        },
        file: failure.file.map(|file| file.to_string()),
        cause: match failure.error.kind {
            IoErrorKind::NoSpace => wit::Cause::NoSpace,
            IoErrorKind::NotFound => wit::Cause::NotFound,
            IoErrorKind::Other => wit::Cause::Other,
        },
        code: failure.error.os_code.and_then(wasi::code_name),
    }
}

fn too_large(bytes: u64, limit_bytes: u64) -> wit::Error {
    let name = "bytes of keys and values".to_owned();
    wit::Error::TooLarge(wit::OutOfRange { name, value: bytes, min: 0, max: limit_bytes })
}

pub(crate) fn append_error(error: AppendError) -> wit::Error {
    match error {
        // Every command has run, and still there is no room: no state of a log is like that.
        AppendError::Busy => wit::Error::Other(Some("the log is busy".to_owned())),
        AppendError::DiskFull(cause) => wit::Error::DiskFull(failure(cause)),
        AppendError::NoSegment(cause) => wit::Error::NoSegment(failure(cause)),
        AppendError::TooLarge { bytes, limit_bytes } => too_large(bytes, limit_bytes),
        AppendError::EmptyBatch => wit::Error::EmptyBatch,
        AppendError::Poisoned(poison) => wit::Error::Poisoned(failure(poison.0)),
        AppendError::Closed => wit::Error::Closed,
    }
}

pub(crate) fn request_error(error: RequestError) -> wit::Error {
    match error {
        RequestError::Busy => wit::Error::Other(Some("another request runs".to_owned())),
        RequestError::BeyondEnd { last, .. } => wit::Error::BeyondEnd(last.get()),
        RequestError::Deleted { first, .. } => wit::Error::Deleted(first.get()),
        RequestError::Damaged { segment, offset } => {
            wit::Error::Damaged(position(Position::new(segment, offset)))
        }
        RequestError::Failed(cause) => wit::Error::Io(failure(cause)),
        RequestError::DiskFull(cause) => wit::Error::DiskFull(failure(cause)),
        RequestError::Poisoned(poison) => wit::Error::Poisoned(failure(poison.0)),
        RequestError::Closed => wit::Error::Closed,
    }
}

pub(crate) fn read_error(error: ReadError) -> wit::Error {
    match error {
        ReadError::Start(StartError::Deleted { first, .. }) => wit::Error::Deleted(first.get()),
        ReadError::Start(StartError::BeyondEnd { last, .. }) => wit::Error::BeyondEnd(last.get()),
        ReadError::Start(StartError::NoSuchPosition(at)) => {
            wit::Error::NoSuchPosition(position(at))
        }
        ReadError::Truncated(last) => wit::Error::Truncated(last.get()),
        ReadError::Damaged(at) => wit::Error::Damaged(position(at)),
        ReadError::TooLong { bytes, limit_bytes } => too_large(bytes, limit_bytes),
        ReadError::Unreadable(at) => wit::Error::Unreadable(position(at)),
        ReadError::Io(cause) => wit::Error::Io(failure(cause)),
    }
}

pub(crate) fn open_error(error: OpenError) -> wit::Error {
    match error {
        OpenError::Config(ConfigError { setting, value, min, max }) => {
            let name = setting.to_owned();
            wit::Error::Invalid(wit::OutOfRange { name, value, min, max })
        }
        OpenError::Name => wit::Error::Folder(
            "its name must be empty or one plain name, not `.` or `..`, without `/`".to_owned(),
        ),
        OpenError::Folder(refusal) => {
            wit::Error::Folder(format!("it cannot be opened: {}", code_of(refusal)))
        }
        OpenError::Owned(owner) => wit::Error::Locked(owner),
        OpenError::Owner(refusal) => {
            wit::Error::Folder(format!("OWNER cannot be written or read: {}", code_of(refusal)))
        }
        OpenError::DirectorySync => wit::Error::DirectorySyncRefused,
        OpenError::Recovery(error) => recovery_error(error),
    }
}

fn code_of(refusal: Refusal) -> String {
    let code = refusal.code.and_then(|code| wasi::code_name(i32::from(code)));
    code.unwrap_or_else(|| "it is no folder, or no regular file".to_owned())
}

fn recovery_error(error: RecoveryError) -> wit::Error {
    match error {
        RecoveryError::Io(cause) => wit::Error::Io(failure(cause)),
        RecoveryError::NewerManifest(_) => wit::Error::UnreadableFile("MANIFEST".to_owned()),
        RecoveryError::Unreadable(file, _) | RecoveryError::NotAFile(file) => {
            wit::Error::UnreadableFile(file.to_string())
        }
        RecoveryError::Foreign { file, .. } | RecoveryError::Misnamed { file, .. } => {
            wit::Error::ForeignSegment(file.to_string())
        }
        RecoveryError::Missing(file) => wit::Error::MissingSegment(file.to_string()),
        RecoveryError::Damaged(report) => {
            wit::Error::DamagedLog(report.damage.as_ref().map(damage))
        }
        RecoveryError::NoBuffers => wit::Error::Other(Some(error.to_string())),
    }
}

pub(crate) fn recovery(report: &Report) -> wit::Recovery {
    wit::Recovery {
        log_id: halves(report.log),
        is_new: report.is_new,
        was_clean: report.was_clean,
        first: report.first_lsn.get(),
        last: report.last_lsn.get(),
        records: report.records,
        segments: report.segments,
        segments_scanned: report.segments_scanned,
        bytes_cut: report.bytes_cut(),
        end: position(report.end),
        ranges: report.ranges.iter().map(range).collect(),
        damage: report.damage.as_ref().map(damage),
        strays: report.strays.clone(),
    }
}

fn damage(damage: &Damage) -> wit::Damage {
    wit::Damage {
        position: position(damage.position),
        first_lost: damage.first_lost.get(),
        last_lost: damage.last_lost.get(),
        durable: damage.durable.get(),
        proof: damage.proof.to_string(),
    }
}

fn range(range: &Range) -> wit::Range {
    wit::Range {
        kind: match range.kind {
            RangeKind::Zeros => wit::RangeKind::Zeros,
            RangeKind::Torn => wit::RangeKind::Torn,
            RangeKind::Stale => wit::RangeKind::Stale,
            RangeKind::Corrupt => wit::RangeKind::Corrupt,
            RangeKind::Missing => wit::RangeKind::Missing,
            RangeKind::Orphaned => wit::RangeKind::Orphaned,
        },
        file: range.file.to_string(),
        from: range.start,
        to: range.end,
        moved_to: range.moved_to.map(|file| file.to_string()),
    }
}

pub(crate) fn event(event: Event) -> wit::Event {
    match event {
        Event::Rotated { from, to, first_lsn } => wit::Event::Rotated(wit::Rotation {
            from: from.get(),
            to: to.get(),
            first: first_lsn.get(),
        }),
        Event::Synced { lsn, records } => {
            wit::Event::Synced(wit::Durability { lsn: lsn.get(), records })
        }
        Event::Deleted { segments, first_lsn } => {
            wit::Event::Deleted(wit::Deletion { segments, first: first_lsn.get() })
        }
        Event::Truncated { last_lsn } => wit::Event::Truncated(last_lsn.get()),
        Event::DiskFull(cause) => wit::Event::DiskFull(failure(cause)),
        Event::Degraded(cause) => wit::Event::Degraded(failure(cause)),
        Event::Poisoned(poison) => wit::Event::Poisoned(failure(poison.0)),
        Event::Closed => wit::Event::Closed,
    }
}
