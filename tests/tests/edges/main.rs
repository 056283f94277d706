//! The core at its edges: answers of a host that come late, short or not at all, questions about
//! what is not there, and requests at the wrong time.

mod reading;
mod recovery;
mod requests;
mod space;
mod writing;

use seawall_core::command::Command;
use seawall_core::config::{Config, FsyncPolicy, Level};
use seawall_core::cursor::Cursor;
use seawall_core::error::AppendError;
use seawall_core::id::{Lsn, SegmentId};
use seawall_core::log::{Log, SegmentEnd, SegmentInfo};
use seawall_core::record::{Entry, Record};
use seawall_core::recover::RecoveryError;
use seawall_core::wire::manifest::{MANIFEST_BYTES, Manifest, ManifestState};
use seawall_core::wire::name::{FileId, FileName};
use seawall_tests::disk::{Disk, Fault, Memory};
use seawall_tests::opening::{Go, Opened, recover, start};

fn config() -> Config {
    let config = Config {
        segment_bytes_max: 8 << 10,
        batch_bytes: 4 << 10,
        record_bytes_max: 2 << 10,
        fsync_policy: FsyncPolicy::Always,
        crc: seawall_tests::crc(),
        ..Config::default()
    };
    config.checked().unwrap()
}

fn run(disk: &mut Disk, log: &mut Log<Memory>) {
    run_failing(disk, log, |_| None);
}

/// Runs all that is due, and has fail what `fault` says.
fn run_failing(
    disk: &mut Disk,
    log: &mut Log<Memory>,
    mut fault: impl FnMut(&Command<Memory>) -> Option<Fault>,
) {
    while let Some(command) = log.poll_command() {
        let fault = fault(&command);
        log.complete(disk.execute(command, fault));
    }
}

fn open(disk: &mut Disk) -> Log<Memory> {
    open_with(disk, &config())
}

fn open_with(disk: &mut Disk, config: &Config) -> Log<Memory> {
    let mut log = recovered(disk, config).0;
    run(disk, &mut log);
    log
}

fn recovered(disk: &mut Disk, config: &Config) -> Opened {
    tried(disk, config).unwrap()
}

fn tried(disk: &mut Disk, config: &Config) -> Result<Opened, RecoveryError> {
    recover(disk, start(config, 7, 7), |_, _| Go::On(None)).unwrap()
}

fn append(disk: &mut Disk, log: &mut Log<Memory>, value: &[u8]) -> Result<Lsn, AppendError> {
    let record = Record::put(b"key", value);
    let result = loop {
        match log.append(&Entry::from(&record), Level::Disk) {
            Err(AppendError::Busy) => run(disk, log),
            result => break result,
        }
    };
    run(disk, log);
    result.map(|appended| appended.last)
}

/// A log of several segments, with `last` as its last record.
fn filled(disk: &mut Disk, last: u64) -> Log<Memory> {
    let mut log = open(disk);
    while append(disk, &mut log, &[7; 500]).unwrap() < Lsn::new(last) {}
    log
}

/// Its first segment that has ended.
fn sealed(log: &Log<Memory>) -> (SegmentInfo, SegmentEnd) {
    let info = log.segments().next().unwrap();
    (info, info.end.unwrap())
}

/// What a host gives a cursor that asks for bytes of a file.
fn fill(cursor: &mut Cursor<Vec<u8>>, file: &[u8], offset: u64, bytes: u64) {
    let start = usize::try_from(offset).unwrap();
    let end = file.len().min(start + usize::try_from(bytes).unwrap());
    let is_short = ((end - start) as u64) < bytes;
    cursor.fill(offset, file[start..end].to_vec(), is_short);
}

/// The name of the segment with this number.
fn name(segment: u64) -> FileName {
    FileId::Segment(SegmentId::new(segment)).name()
}

/// A log that had so many segments, of which all but the last were deleted.
fn deleted(disk: &mut Disk, config: &Config, segments: usize) -> Log<Memory> {
    let mut log = open_with(disk, config);
    while log.segments().count() < segments {
        append(disk, &mut log, &[7; 500]).unwrap();
    }
    log.delete_before(log.appended().lsn).unwrap();
    run(disk, &mut log);
    assert_eq!(log.take_request_result(), Some(Ok(())));
    log
}

/// What the manifest says.
fn manifest(disk: &Disk) -> Manifest {
    let bytes = disk.content(FileId::Manifest.name()).unwrap();
    assert_eq!(bytes.len() as u64, MANIFEST_BYTES);
    match Manifest::parse(bytes, seawall_tests::crc()) {
        ManifestState::Whole(manifest) => manifest,
        state => panic!("{state:?}"),
    }
}
