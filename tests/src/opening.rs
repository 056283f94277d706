//! Opening a log on a simulated disk, and reading what it holds.

use crate::disk::{Disk, Fault, Memory};
use crate::ensure;
use crate::oracle::{Oracle, Verdict, broken};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use seawall_core::command::{Command, Folder, Listed};
use seawall_core::config::{Config, RecoveryScan};
use seawall_core::cursor::{Cursor, Step};
use seawall_core::id::{LogId, SegmentId, Time, Watermark};
use seawall_core::log::{Log, SegmentInfo};
use seawall_core::recover::{Mode, Recovery, RecoveryError, RecoveryStart, Report};
use seawall_core::wire::checksum::Crc32cFn;
use seawall_core::wire::known::Known;
use seawall_core::wire::name::{FileId, FileName};

/// A log and what its recovery says.
pub type Opened = (Log<Memory>, Report);

/// Buffers for a log.
pub fn buffers() -> Vec<Memory> {
    vec![Vec::new(), Vec::new(), Vec::new()]
}

/// What becomes of a recovery's command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Go {
    /// It is run, or fails.
    On(Option<Fault>),
    /// The recovery ends before it.
    Stop,
}

/// What a recovery begins with.
pub fn start(config: &Config, seed: u64, now: u64) -> RecoveryStart<Memory> {
    RecoveryStart {
        config: config.clone(),
        new_log_id: LogId([7; 16]),
        seed,
        now: Time::from_micros(now),
        buffers: buffers(),
    }
}

/// Recovers the log on a disk; `each` says what becomes of each command. `None`: it was stopped.
pub fn recover(
    disk: &mut Disk,
    start: RecoveryStart<Memory>,
    mut each: impl FnMut(&mut Disk, &Command<Memory>) -> Go,
) -> Option<Result<Opened, RecoveryError>> {
    let mut recovery = Recovery::new(start, Mode::Open);
    while let Some(command) = recovery.poll_command() {
        match each(disk, &command) {
            Go::Stop => return None,
            Go::On(fault) => recovery.complete(disk.execute(command, fault)),
        }
    }
    Some(recovery.finish())
}

/// What a look at a log that changes nothing finds.
type Found = Result<(Vec<SegmentInfo>, Watermark, Report), RecoveryError>;

/// Looks at a log, told what is `known` of its segments; what is known now of those that were read
/// to their end.
fn look(disk: &Disk, config: &Config, knows: bool, known: &[Known]) -> (Found, Vec<Known>) {
    let mut disk = disk.clone();
    disk.knows = knows.then_some(config.crc);
    let mut recovery = Recovery::<Memory>::new(start(config, 7, 7), Mode::Inspect);
    while let Some(command) = recovery.poll_command() {
        recovery.complete(match command {
            Command::List(list) => list.done(Ok(with_known(disk.list(), known))),
            command => disk.execute(command, None),
        });
    }
    let read_whole = recovery.take_read_whole();
    let found = recovery.finish_inspection();
    (found.map(|(view, report)| (view.segments, view.end, report)), read_whole)
}

/// Without what says how much was read.
fn however_read(found: &Found) -> Found {
    found.clone().map(|(segments, end, report)| {
        (segments, end, Report { bytes_read: 0, segments_scanned: 0, last_frame: None, ..report })
    })
}

fn is_well(found: &Found) -> bool {
    found.as_ref().is_ok_and(|(.., report)| !report.is_damaged())
}

/// A recovery finds the same whether or not it is told what an earlier look has found: in headers
/// and footers, and also in all frames of a segment.
///
/// # Errors
/// What differs.
pub fn is_the_same_told(disk: &Disk, config: &Config) -> Verdict {
    let (untold, read_whole) = look(disk, config, false, &[]);
    // What was durable is told by the first frame that says so, and fewer are read.
    let of_frames = if is_well(&untold) { &read_whole[..] } else { &[] };
    let untold = however_read(&untold);
    for known in [&[], of_frames] {
        let told = however_read(&look(disk, config, true, known).0);
        ensure!(told == untold, 8, "{told:?} where it was told, {untold:?} where it was not");
    }
    Ok(())
}

/// Where nothing is amiss a recovery finds the same whether or not it reads everything.
///
/// # Errors
/// What differs.
pub fn is_the_same_by_all(disk: &Disk, config: &Config) -> Verdict {
    let by = |scan| look(disk, &Config { scan, ..config.clone() }, false, &[]).0;
    let (by_tail, by_all) = (by(RecoveryScan::Tail), by(RecoveryScan::Full));
    if is_well(&by_tail) && is_well(&by_all) {
        let (by_tail, by_all) = (however_read(&by_tail), however_read(&by_all));
        ensure!(by_tail == by_all, 8, "{by_all:?} by all frames, {by_tail:?} by footers");
    }
    Ok(())
}

fn with_known(mut names: Vec<Listed>, known: &[Known]) -> Vec<Listed> {
    for listed in names.iter_mut().filter(|listed| listed.folder == Folder::Log) {
        let name = FileName::parse(&listed.name, false);
        let of = |known: &&Known| name == Some(FileId::Segment(known.segment()).name());
        if let Some(known) = known.iter().find(of) {
            listed.known = Some(Box::new(*known));
        }
    }
    names
}

/// How reading a log ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// After this record; the log's last, if nothing is amiss.
    After(u64),
    /// A reader was told of damage.
    Damaged,
}

/// Hands every record of a log to `each`: its LSN, key and value.
///
/// # Errors
/// What `each` says.
pub fn read_all(
    disk: &Disk,
    log: &Log<Memory>,
    crc: Crc32cFn,
    each: impl FnMut(u64, &[u8], &[u8]) -> Verdict,
) -> Verdict<Ended> {
    let before = log.first_lsn().previous().get();
    let segments: Vec<SegmentInfo> = log.segments().collect();
    read_segments(disk, &segments, log.durable().end.offset, before, crc, each)
}

fn read_segments(
    disk: &Disk,
    segments: &[SegmentInfo],
    active_end: u64,
    mut last: u64,
    crc: Crc32cFn,
    mut each: impl FnMut(u64, &[u8], &[u8]) -> Verdict,
) -> Verdict<Ended> {
    let mut is_damaged = false;
    for segment in segments {
        let limit = segment.end.map_or(active_end, |end| end.frames_end);
        let mut cursor: Cursor<&[u8]> = Cursor::new(*segment, crc, 4_096, 1 << 20);
        loop {
            match cursor.step(limit) {
                Step::Record(record, _) => {
                    last = record.lsn.get();
                    each(last, record.key, record.stored)?;
                }
                Step::Read { offset, bytes } => {
                    let Some((part, is_short)) = slice(disk, segment.segment, offset, bytes) else {
                        return broken(1, format!("segment {} is not there", segment.segment));
                    };
                    cursor.fill(offset, part, is_short);
                }
                Step::End => break,
                Step::Damaged { .. } => {
                    is_damaged = true;
                    cursor.skip_damage(limit);
                }
                Step::Skipped(_) => {}
                Step::TooLong { .. } | Step::BadRecord { .. } => {
                    return broken(1, format!("a record after {last} cannot be read"));
                }
            }
        }
    }
    Ok(if is_damaged { Ended::Damaged } else { Ended::After(last) })
}

/// Bytes of a segment's file, and whether it ends before all that was asked for.
pub fn slice(disk: &Disk, segment: SegmentId, offset: u64, bytes: u64) -> Option<(&[u8], bool)> {
    let file = disk.content(FileId::Segment(segment).name())?;
    let start = usize::try_from(offset).ok()?.min(file.len());
    let end = start.saturating_add(usize::try_from(bytes).ok()?).min(file.len());
    Some((&file[start..end], (end - start) as u64 != bytes))
}

/// Compares all that a reopened log holds with what it must hold, where the disk did not lie.
/// `written`: as [`Oracle::recovered`] takes it.
///
/// # Errors
/// What does not hold.
pub fn check(
    disk: &Disk,
    oracle: &mut Oracle,
    (log, report): (&Log<Memory>, &Report),
    written: Option<u64>,
) -> Verdict {
    ensure!(!report.is_damaged(), 10, "damage that nobody did: {report:?}");
    let last = contiguous(disk, oracle, log, Allowed::default())?;
    let Ended::After(last) = last else {
        return broken(1, format!("a record cannot be read: {report:?}"));
    };
    let first = log.first_lsn().get();
    ensure!(last == log.appended().lsn.get(), 2, "the log says it ends elsewhere: {report:?}");
    ensure!(last + 1 - first == report.records, 2, "read {first} to {last}: {report:?}");
    if let Some(frame) = report.last_frame {
        let holder = log.segments().filter(|info| info.first_lsn.get() <= last).last();
        let holds = holder.is_some_and(|info| info.segment == frame.segment);
        ensure!(holds, 2, "{last} is in {holder:?}: {report:?}");
    }
    oracle.recovered(first, last, written)
}

/// What may be amiss with the records of a log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Allowed {
    /// From this record on some may be left out: the opening has told of damage.
    pub holes: Option<u64>,
    /// Some may be there that a truncation took off: what says so is damaged, which was told. That
    /// of the last truncation stands in the manifest, of earlier ones in the links.
    pub dead: Option<DeadBy>,
}

/// Which truncations may be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeadBy {
    /// All but the last.
    Earlier,
    /// All.
    Any,
}

/// Compares each record of a log with what was appended, and sees that none is left out but in
/// holes that are told, to whoever reads or at the opening.
///
/// # Errors
/// What does not hold.
pub fn contiguous(
    disk: &Disk,
    oracle: &Oracle,
    log: &Log<Memory>,
    allowed: Allowed,
) -> Verdict<Ended> {
    let mut expected = log.first_lsn().get();
    let mut gap = None;
    let ended = read_all(disk, log, log.config().crc, |lsn, key, value| {
        if lsn != expected {
            gap.get_or_insert((expected, lsn));
        }
        expected = lsn + 1;
        let parts = [key, value];
        let verdict = oracle.compare(lsn, &parts);
        match allowed.dead {
            Some(by) if oracle.is_dead(lsn, &parts, by == DeadBy::Any) => Ok(()),
            _ => verdict,
        }
    })?;
    match gap {
        Some((expected, lsn))
            if lsn < expected
                || allowed.holes.map_or(ended != Ended::Damaged, |from| expected < from) =>
        {
            broken(2, format!("LSN {lsn} comes where {expected} should"))
        }
        _ => Ok(ended),
    }
}
