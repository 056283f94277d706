//! The native log and the component behind one face: what a call gives is told in words that do not
//! depend on who runs it.

use crate::program;
use seawall::blocking;
use seawall::{Injected, WalConfig};
use seawall_core::compress::Compression;
use seawall_core::config::{FsyncPolicy, Level, RecoveryPolicy, RecoveryScan};
use seawall_core::id::{LogId, Lsn, Time};
use seawall_core::record::{Record, RecordKind};
use seawall_core::wire::checksum::ChecksumKind;
use seawall_wasmtime::{Error, Wal, types};
use std::fmt::Write as _;
use std::path::Path;

/// Who runs a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Host {
    Native,
    Component,
}

/// What a log is opened with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) recovery: RecoveryPolicy,
    pub(crate) scan: RecoveryScan,
    pub(crate) checksum: ChecksumKind,
    pub(crate) compression: Compression,
    /// Differs at each opening.
    pub(crate) seed: u64,
}

/// The smallest that shows rotation.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 10;
/// The low and the high half.
const LOG_ID: (u64, u64) = (0x5ea_3a11, 0);
const NOW_MICROS: u64 = 1_790_000_000_000_000;

/// A log, whoever runs it. Results are told in words.
pub(crate) trait Log {
    fn append(&mut self, records: &[Record<'_>], level: Level) -> String;
    fn flush(&mut self, level: Level) -> String;
    fn rotate(&mut self) -> String;
    fn delete_before(&mut self, lsn: u64) -> String;
    fn truncate_after(&mut self, lsn: u64) -> String;
    fn close(&mut self) -> String;
    /// First, last, written and durable LSN, the end, and the segments.
    fn stats(&mut self) -> String;
    /// Where the last frame ends: its segment and offset.
    fn end(&mut self) -> (u64, u64);
    fn cursor(&mut self, lsn: Option<u64>) -> Result<Box<dyn Follow>, String>;
}

/// A cursor.
pub(crate) trait Follow {
    /// All that it is shown now, and how that ends.
    fn read(&mut self) -> Vec<String>;
    fn skip_damage(&mut self);
}

/// Opens a log; what was found, in words.
pub(crate) fn open(host: Host, dir: &Path, setup: Setup) -> Result<(Box<dyn Log>, String), String> {
    match host {
        Host::Native => open_native(dir, setup),
        Host::Component => open_component(dir, setup),
    }
}

fn native_error(error: &seawall::Error) -> String {
    use seawall::{Error as E, RecoveryError};
    match error {
        E::Deleted { first, .. } => format!("deleted up to {first}"),
        E::BeyondEnd { last, .. } => format!("beyond the end, {last}"),
        E::Truncated { last } => format!("truncated after {last}"),
        E::Damaged { position, .. } => {
            format!("damaged at {}:{}", position.segment, position.offset)
        }
        E::TooLarge { bytes, limit_bytes } => format!("{bytes} bytes, {limit_bytes} allowed"),
        E::EmptyBatch => "an empty batch".to_owned(),
        E::Closed => "closed".to_owned(),
        E::Recovery { error: RecoveryError::Damaged(report), .. } => {
            format!("strict: {}", report.damage.as_ref().map_or(String::new(), native_damage))
        }
        E::Recovery { error: RecoveryError::Missing(file), .. } => format!("{file} is missing"),
        E::Recovery { error: RecoveryError::Foreign { file, .. }, .. } => {
            format!("{file} is foreign")
        }
        other => panic!("no scenario brings this about: {other}"),
    }
}

fn native_damage(damage: &seawall::Damage) -> String {
    format!(
        "damage at {}:{}, {} to {} lost, durable to {}, {}",
        damage.position.segment,
        damage.position.offset,
        damage.first_lost,
        damage.last_lost,
        damage.durable,
        damage.proof
    )
}

fn told<T>(result: Result<T, seawall::Error>, words: impl FnOnce(T) -> String) -> String {
    result.map_or_else(|error| native_error(&error), words)
}

struct Native {
    wal: blocking::Wal,
}

fn open_native(dir: &Path, setup: Setup) -> Result<(Box<dyn Log>, String), String> {
    let injected = Injected { log: LogId(log_id()), seed: setup.seed, now: now() };
    let config = WalConfig {
        max_segment_size: SEGMENT_BYTES,
        fsync_policy: FsyncPolicy::Os,
        recovery: setup.recovery,
        scan: setup.scan,
        checksum: setup.checksum,
        compression: setup.compression,
        injected: Some(injected),
        ..WalConfig::in_dir(dir)
    };
    let (wal, info) = blocking::Wal::open(config).map_err(|error| native_error(&error))?;
    let report = info.report;
    let mut ranges: Vec<String> = Vec::new();
    for range in &report.ranges {
        let moved = range.moved_to.map_or_else(String::new, |file| format!(" moved to {file}"));
        let kind = format!("{:?}", range.kind);
        ranges.push(format!("{kind} {} {}..{}{moved}", range.file, range.start, range.end));
    }
    let found = format!(
        "new {}, clean {}, {} to {}, {} records, {} segments, {} scanned, {} cut, end {}:{}, \
         {ranges:?}, {}, strays {:?}",
        report.is_new,
        report.was_clean,
        report.first_lsn,
        report.last_lsn,
        report.records,
        report.segments,
        report.segments_scanned,
        report.bytes_cut(),
        report.end.segment,
        report.end.offset,
        report.damage.as_ref().map_or_else(|| "no damage".to_owned(), native_damage),
        report.strays,
    );
    Ok((Box::new(Native { wal }), found))
}

fn log_id() -> [u8; 16] {
    (u128::from(LOG_ID.0) | u128::from(LOG_ID.1) << 64).to_le_bytes()
}

fn now() -> Time {
    Time::from_micros(NOW_MICROS)
}

impl Log for Native {
    fn append(&mut self, records: &[Record<'_>], level: Level) -> String {
        told(self.wal.append_batch_with(records, level), |appended| {
            let at = appended.position;
            let (segment, offset) = (at.segment, at.offset);
            format!("{} to {} at {segment}:{offset}", appended.first, appended.last)
        })
    }

    fn flush(&mut self, level: Level) -> String {
        let result = match level {
            Level::Disk => self.wal.sync(),
            Level::Os | Level::Buffered => self.wal.flush(),
        };
        told(result, |()| "done".to_owned())
    }

    fn rotate(&mut self) -> String {
        told(self.wal.rotate(), |()| "done".to_owned())
    }

    fn delete_before(&mut self, lsn: u64) -> String {
        told(self.wal.delete_segments_before(Lsn::new(lsn)), |count| format!("{count} gone"))
    }

    fn truncate_after(&mut self, lsn: u64) -> String {
        told(self.wal.truncate_after(Lsn::new(lsn)), |()| "done".to_owned())
    }

    fn close(&mut self) -> String {
        told(self.wal.close(), |()| "done".to_owned())
    }

    fn stats(&mut self) -> String {
        let stats = self.wal.stats();
        let mut words = format!(
            "{} to {}, written {}, durable {}",
            stats.first_lsn, stats.last_lsn, stats.written_lsn, stats.durable_lsn
        );
        for segment in stats.segments {
            let bytes = if segment.is_sealed { segment.bytes } else { stats.end.offset };
            let last = if segment.is_sealed { segment.last_lsn } else { stats.last_lsn };
            let (segment, first) = (segment.segment, segment.first_lsn);
            write!(words, "; {segment} {first} to {last}, {bytes}").expect("a string takes it");
        }
        words
    }

    fn end(&mut self) -> (u64, u64) {
        let end = self.wal.stats().end;
        (end.segment.get(), end.offset)
    }

    fn cursor(&mut self, lsn: Option<u64>) -> Result<Box<dyn Follow>, String> {
        let reader = match lsn {
            Some(lsn) => self.wal.read_from(Lsn::new(lsn)),
            None => self.wal.iter(),
        };
        let reader = reader.map_err(|error| native_error(&error))?;
        Ok(Box::new(NativeReader { reader }))
    }
}

struct NativeReader {
    reader: blocking::Reader,
}

/// A record in words.
fn record(
    (lsn, segment, offset): (u64, u64, u64),
    record: &Record<'_>,
    written_at_millis: Option<u64>,
) -> String {
    let Record { kind, key, value, ttl, .. } = record;
    let (length, sum) = (value.len(), crc32c::crc32c(value));
    format!(
        "{lsn} at {segment}:{offset} {kind:?} {key:02x?} {length} bytes {sum:08x} {ttl:?} \
         {written_at_millis:?}"
    )
}

impl Follow for NativeReader {
    fn read(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        loop {
            match self.reader.next_record() {
                Ok(Some((entry, position))) => {
                    let read = Record {
                        kind: entry.kind,
                        key: &entry.key,
                        value: &entry.value,
                        ttl: entry.ttl,
                        compression: None,
                    };
                    let place = (entry.lsn.get(), position.segment.get(), position.offset);
                    words.push(record(place, &read, entry.written_at.map(Time::as_millis)));
                }
                Ok(None) => return words,
                Err(error) => {
                    words.push(native_error(&error));
                    return words;
                }
            }
        }
    }

    fn skip_damage(&mut self) {
        self.reader.skip_damage();
    }
}

fn component_error(error: &Error) -> String {
    use types::Error as E;
    let Error::Log(error) = error else { panic!("no scenario brings this about: {error}") };
    match error {
        E::Deleted(first) => format!("deleted up to {first}"),
        E::BeyondEnd(last) => format!("beyond the end, {last}"),
        E::Truncated(last) => format!("truncated after {last}"),
        E::Damaged(at) => format!("damaged at {}:{}", at.segment, at.offset),
        E::TooLarge(what) => format!("{} bytes, {} allowed", what.value, what.max),
        E::EmptyBatch => "an empty batch".to_owned(),
        E::Closed => "closed".to_owned(),
        E::DamagedLog(damage) => {
            format!("strict: {}", damage.as_ref().map_or(String::new(), component_damage))
        }
        E::MissingSegment(file) => format!("{file} is missing"),
        E::ForeignSegment(file) => format!("{file} is foreign"),
        other => panic!("no scenario brings this about: {other}"),
    }
}

fn component_damage(damage: &types::Damage) -> String {
    let types::Damage { position, first_lost, last_lost, durable, proof } = damage;
    let (segment, offset) = (position.segment, position.offset);
    format!(
        "damage at {segment}:{offset}, {first_lost} to {last_lost} lost, durable to {durable}, \
         {proof}"
    )
}

struct Component {
    wal: Wal,
}

/// The settings that say the same to the component.
fn component_config(setup: Setup) -> types::Config {
    types::Config {
        segment_bytes_max: SEGMENT_BYTES,
        fsync_policy: types::FsyncPolicy::Os,
        recovery: match setup.recovery {
            RecoveryPolicy::PrefixValid => types::RecoveryPolicy::PrefixValid,
            RecoveryPolicy::Strict => types::RecoveryPolicy::Strict,
            RecoveryPolicy::Salvage => types::RecoveryPolicy::Salvage,
        },
        scan: match setup.scan {
            RecoveryScan::Tail => types::Scan::Tail,
            RecoveryScan::Full => types::Scan::Full,
        },
        checksum: match setup.checksum {
            ChecksumKind::Crc32c => types::Checksum::Crc32c,
            ChecksumKind::Xxh3 => types::Checksum::Xxh3,
        },
        compression: match setup.compression {
            Compression::None => types::Compression::None,
            Compression::Lz4 => types::Compression::Lz4,
            Compression::Zstd => types::Compression::Zstd,
        },
        injected: Some(types::Injected {
            log_id: LOG_ID,
            seed: setup.seed,
            now_micros: NOW_MICROS,
        }),
        ..program().default_config()
    }
}

fn open_component(dir: &Path, setup: Setup) -> Result<(Box<dyn Log>, String), String> {
    let opened = Wal::open(program(), dir, component_config(setup)).wait();
    let (wal, report) = opened.map_err(|error| component_error(&error))?;
    let mut ranges: Vec<String> = Vec::new();
    for range in &report.ranges {
        let moved = range.moved_to.as_ref();
        let moved = moved.map_or_else(String::new, |file| format!(" moved to {file}"));
        let kind = match range.kind {
            types::RangeKind::Zeros => "Zeros",
            types::RangeKind::Torn => "Torn",
            types::RangeKind::Stale => "Stale",
            types::RangeKind::Corrupt => "Corrupt",
            types::RangeKind::Missing => "Missing",
            types::RangeKind::Orphaned => "Orphaned",
        };
        ranges.push(format!("{kind} {} {}..{}{moved}", range.file, range.from, range.to));
    }
    let found = format!(
        "new {}, clean {}, {} to {}, {} records, {} segments, {} scanned, {} cut, end {}:{}, \
         {ranges:?}, {}, strays {:?}",
        report.is_new,
        report.was_clean,
        report.first,
        report.last,
        report.records,
        report.segments,
        report.segments_scanned,
        report.bytes_cut,
        report.end.segment,
        report.end.offset,
        report.damage.as_ref().map_or_else(|| "no damage".to_owned(), component_damage),
        report.strays,
    );
    Ok((Box::new(Component { wal }), found))
}

fn told_by_component<T>(result: Result<T, Error>, words: impl FnOnce(T) -> String) -> String {
    result.map_or_else(|error| component_error(&error), words)
}

impl Log for Component {
    fn append(&mut self, records: &[Record<'_>], level: Level) -> String {
        let level = match level {
            Level::Buffered => types::Level::Buffered,
            Level::Os => types::Level::Os,
            Level::Disk => types::Level::Disk,
        };
        told_by_component(self.wal.append_batch_with(records, level).wait(), |appended| {
            let types::Position { segment, offset } = appended.position;
            format!("{} to {} at {segment}:{offset}", appended.first, appended.last)
        })
    }

    fn flush(&mut self, level: Level) -> String {
        let result = match level {
            Level::Disk => self.wal.sync(),
            Level::Os | Level::Buffered => self.wal.flush(),
        };
        told_by_component(result.wait(), |_| "done".to_owned())
    }

    fn rotate(&mut self) -> String {
        told_by_component(self.wal.rotate().wait(), |()| "done".to_owned())
    }

    fn delete_before(&mut self, lsn: u64) -> String {
        told_by_component(self.wal.delete_before(lsn).wait(), |count| format!("{count} gone"))
    }

    fn truncate_after(&mut self, lsn: u64) -> String {
        told_by_component(self.wal.truncate_after(lsn).wait(), |()| "done".to_owned())
    }

    fn close(&mut self) -> String {
        told_by_component(self.wal.close().wait(), |()| "done".to_owned())
    }

    fn stats(&mut self) -> String {
        let stats = self.wal.stats().wait().expect("it runs");
        let mut words = format!(
            "{} to {}, written {}, durable {}",
            stats.first, stats.last, stats.written, stats.durable
        );
        for segment in stats.segments {
            let types::SegmentStats { segment, first, last, bytes, .. } = segment;
            write!(words, "; {segment} {first} to {last}, {bytes}").expect("a string takes it");
        }
        words
    }

    fn end(&mut self) -> (u64, u64) {
        let end = self.wal.stats().wait().expect("it runs").end;
        (end.segment, end.offset)
    }

    fn cursor(&mut self, lsn: Option<u64>) -> Result<Box<dyn Follow>, String> {
        let start = lsn.map_or(types::Start::First, types::Start::Lsn);
        let cursor = self.wal.read_from(start).wait().map_err(|error| component_error(&error))?;
        Ok(Box::new(ComponentReader { cursor }))
    }
}

struct ComponentReader {
    cursor: seawall_wasmtime::Cursor,
}

impl Follow for ComponentReader {
    fn read(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        loop {
            match self.cursor.read_batch(700).wait() {
                Ok(page) if page.is_empty() => return words,
                Ok(page) => words.extend(page.records().map(|found| {
                    let place = (found.lsn, found.segment, found.offset);
                    record(place, &found.record, found.written_at_millis)
                })),
                Err(error) => {
                    words.push(component_error(&error));
                    return words;
                }
            }
        }
    }

    fn skip_damage(&mut self) {
        self.cursor.skip_damage().wait().expect("it runs");
    }
}

/// A plain put.
pub(crate) fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Record<'a> {
    Record { kind: RecordKind::Put, key, value, ..Record::default() }
}
