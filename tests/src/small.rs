//! A small log on a simulated disk, to damage in every way.

use crate::disk::{Disk, Memory};
use crate::opening::buffers;
use crate::oracle::{Content, Frame};
use seawall_core::config::{Config, FsyncPolicy, Level, RecoveryPolicy, RecoveryScan};
use seawall_core::cursor::{Cursor, Step};
use seawall_core::error::AppendError;
use seawall_core::id::{LogId, Lsn, SegmentId, Time};
use seawall_core::log::{Log, SegmentInfo};
use seawall_core::record::{Entry, Record};
use seawall_core::recover::{Mode, Recovery, RecoveryError, RecoveryStart, Report, View};
use seawall_core::wire::name::{FileId, FileName};

/// Settings under which every byte is read at opening.
pub fn config(recovery: RecoveryPolicy) -> Config {
    Config {
        segment_bytes_max: 4_096,
        fsync_policy: FsyncPolicy::Always,
        preallocate: false,
        recovery,
        scan: RecoveryScan::Full,
        batch_bytes: 4_096,
        crc: crc32c::crc32c_append,
        ..Config::default()
    }
    .checked()
    .expect("the settings hold together")
}

fn start(config: Config) -> RecoveryStart<Memory> {
    RecoveryStart {
        config,
        new_log_id: LogId([9; 16]),
        seed: 42,
        now: Time::from_millis(1),
        buffers: buffers(),
    }
}

/// Opens the log on a disk.
///
/// # Errors
/// Why it cannot be opened.
pub fn open(disk: &mut Disk, config: Config) -> Result<(Log<Memory>, Report), RecoveryError> {
    let mut recovery = Recovery::new(start(config), Mode::Open);
    while let Some(command) = recovery.poll_command() {
        recovery.complete(disk.execute(command, None));
    }
    recovery.finish()
}

/// Looks at the log on a disk.
///
/// # Errors
/// Why it cannot be read.
pub fn inspect(disk: &mut Disk, config: Config) -> Result<(View, Report), RecoveryError> {
    let mut recovery = Recovery::new(start(config), Mode::Inspect);
    while let Some(command) = recovery.poll_command() {
        recovery.complete(disk.execute(command, None));
    }
    recovery.finish_inspection()
}

/// Runs a log's commands until there are none.
pub fn drive(log: &mut Log<Memory>, disk: &mut Disk) {
    while let Some(command) = log.poll_command() {
        log.complete(disk.execute(command, None));
    }
}

/// The content of a record: its number, and bytes that follow from it.
pub fn content(number: u64, length: usize) -> Content {
    crate::records::record_bytes(number, length.max(8))
}

/// Appends contents as one append, at `Disk`. Where they stand, the frame's head not counted.
pub fn append(log: &mut Log<Memory>, disk: &mut Disk, contents: &[Content]) -> Frame {
    let records: Vec<Record<'_>> =
        contents.iter().map(|content| Record::put(&content[..8], &content[8..])).collect();
    let entries: Vec<Entry<'_>> = records.iter().map(Entry::from).collect();
    let claim = log.durable().lsn.get();
    let mut taken = log.append_batch(&entries, Level::Disk);
    if taken == Err(AppendError::Busy) {
        // The next segment is being made.
        drive(log, disk);
        taken = log.append_batch(&entries, Level::Disk);
    }
    let appended = taken.expect("it is taken in");
    drive(log, disk);
    assert_eq!(log.durable(), log.appended());
    Frame::of(log, &appended, claim)
}

/// A log on a disk, and what was appended to it.
#[derive(Clone, Debug)]
pub struct Built {
    /// The disk.
    pub disk: Disk,
    /// The contents, from LSN 1 on.
    pub all: Vec<Content>,
    /// Where they stand.
    pub frames: Vec<Frame>,
    /// The log was closed; otherwise its process was killed.
    pub is_closed: bool,
}

/// A log of about so many lone records and records in batches, closed or not. 22 fill a segment.
pub fn build(records: usize, is_closed: bool) -> Built {
    let mut disk = Disk::with_sectors(512);
    let (mut log, _) =
        open(&mut disk, config(RecoveryPolicy::PrefixValid)).expect("a new log opens");
    let (mut all, mut frames) = (Vec::new(), Vec::new());
    while all.len() < records {
        let count = if all.len() % 7 == 3 { 4 } else { 1 };
        let from = all.len() as u64 + 1;
        let contents: Vec<_> = (from..from + count)
            .map(|number| content(number, (number * 53 % 300) as usize))
            .collect();
        frames.push(append(&mut log, &mut disk, &contents));
        all.extend(contents);
    }
    if is_closed {
        log.close().expect("nothing else runs");
        drive(&mut log, &mut disk);
        assert!(log.is_closed());
    }
    Built { disk, all, frames, is_closed }
}

/// Every record that can be read, holes passed over if `skips`; a record that cannot be read ends
/// it otherwise.
pub fn read(
    disk: &Disk,
    segments: &[SegmentInfo],
    end: (SegmentId, u64),
    skips: bool,
) -> Vec<(Lsn, Content)> {
    let mut records = Vec::new();
    for segment in segments {
        let active_end = if segment.segment == end.0 { end.1 } else { 0 };
        let limit = segment.end.map_or(active_end, |end| end.frames_end);
        let mut cursor: Cursor<Vec<u8>> =
            Cursor::new(*segment, crc32c::crc32c_append, 1_024, 1 << 20);
        let name = FileId::Segment(segment.segment).name();
        let file = disk.content(name).unwrap_or_default();
        loop {
            match cursor.step(limit) {
                Step::Record(record, _) => {
                    records.push((record.lsn, [record.key, record.stored].concat()));
                }
                Step::Read { offset, bytes } => {
                    let start = usize::try_from(offset).unwrap_or(0).min(file.len());
                    let stop = (start + usize::try_from(bytes).unwrap_or(0)).min(file.len());
                    let is_short = (stop - start) as u64 != bytes;
                    cursor.fill(offset, file[start..stop].to_vec(), is_short);
                }
                Step::End => break,
                Step::Damaged { .. } if skips => cursor.skip_damage(limit),
                Step::Skipped(_) => {}
                _ => return records,
            }
        }
    }
    records
}

/// All files with their bytes, to see whether anything changed.
pub fn snapshot(disk: &Disk) -> Vec<(FileName, Vec<u8>)> {
    disk.names().map(|name| (name, disk.content(name).unwrap_or_default().to_vec())).collect()
}
