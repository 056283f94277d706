//! Floors: the same work with bare system calls, and nothing that a log has to do besides.

use crate::contestant::Outcome;
use crate::measure::{Budget, Clock, Measured, Scale, records, shuffled};
use crate::row::Work;
use seawall::Level;
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The floors, in the order of the table. Ratios are to the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Floor {
    /// System calls as the work is defined.
    Calls,
    /// The same with twelve bytes more a record: what a log needs at least to find and check it.
    Framed,
    /// Records are gathered in memory, and one call takes many.
    Memory,
}

/// So much is gathered in memory before a call takes it; as much as a batch of Seawall holds.
const GATHERED_BYTES: usize = 256 << 10;
/// What a log needs at least besides a record: lengths, a number, a checksum.
const FRAME_BYTES: usize = 12;
/// Pieces that a log is read in.
const PIECE_BYTES: usize = 64 << 10;
/// How long the file is at most that durable floors write over and over.
const WRITTEN_BYTES_MAX: u64 = 64 << 20;

impl Floor {
    pub(crate) const ALL: [Self; 3] = [Self::Calls, Self::Framed, Self::Memory];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Calls => "floor",
            Self::Framed => "floor + 12 B",
            Self::Memory => "floor in memory",
        }
    }

    /// What it does in this work; `None`: there is no such floor.
    pub(crate) fn does(self, work: Work) -> Option<&'static str> {
        match (self, work) {
            (Self::Calls, Work::Append { .. } | Work::AppendText { .. }) => {
                Some("one write(2) for each record")
            }
            (Self::Framed, Work::Append { level: Level::Os, .. } | Work::AppendText { .. }) => {
                Some("one write(2) for each, with 12 bytes more")
            }
            (Self::Memory, Work::Append { level: Level::Buffered, .. }) => {
                Some("copy to memory, one write(2) for each 256 KiB")
            }
            (Self::Calls, Work::Batch { level: Level::Disk, .. } | Work::Deleting { .. }) => {
                Some("pwrite + fdatasync of each batch, in a written file")
            }
            (Self::Calls, Work::Batch { .. }) => Some("one write(2) for each batch"),
            (Self::Calls, Work::Threads { .. } | Work::Tasks { .. }) => {
                Some("pwrite + fdatasync with a record of every writer, in a written file")
            }
            (Self::Calls, Work::OpenCrashed(_) | Work::ReadAll) => {
                Some("read from the page cache and CRC32C, in pieces of 64 KiB")
            }
            (Self::Calls, Work::Seek) => Some("pread and CRC32C of one record"),
            (Self::Calls, Work::OpenSealed { .. }) | (Self::Framed | Self::Memory, _) => None,
        }
    }

    /// Writes what is read later.
    pub(crate) fn prepare(work: Work, dir: &Path, scale: &Scale) -> Outcome<u64> {
        let records = records(work);
        let mut file = File::create(dir.join("floor"))?;
        let count = scale.prepared_records(work);
        for at in 0..count {
            file.write_all(&records[usize::try_from(at)? % records.len()])?;
        }
        Ok(count)
    }

    /// Does the work.
    pub(crate) fn measure(self, work: Work, dir: &Path, scale: &Scale) -> Outcome<Measured> {
        match work {
            Work::Append { .. } | Work::AppendText { .. } => self.append(work, dir, scale),
            Work::Batch { records, bytes, level: Level::Disk }
            | Work::Deleting { records, bytes } => {
                synced(records * bytes, records as u64, dir, scale)
            }
            Work::Batch { .. } => batches(work, dir, scale),
            Work::Threads { bytes, count } | Work::Tasks { bytes, count } => {
                synced(count * bytes, count as u64, dir, scale)
            }
            Work::OpenCrashed(_) | Work::ReadAll => read(work, dir),
            Work::Seek => seek(work, dir, scale),
            Work::OpenSealed { .. } => Err("there is no such floor".into()),
        }
    }

    fn append(self, work: Work, dir: &Path, scale: &Scale) -> Outcome<Measured> {
        let mut records = records(work);
        if self == Self::Framed {
            for record in &mut records {
                record.extend_from_slice(&[7; FRAME_BYTES]);
            }
        }
        let mut file = File::create(dir.join("floor"))?;
        let mut gathered = Vec::with_capacity(GATHERED_BYTES);
        let clock = Clock::start();
        let mut budget = Budget::new(scale, work.record_bytes());
        while budget.goes_on() {
            let record = &records[budget.done() % records.len()];
            match self {
                Self::Calls | Self::Framed => file.write_all(record)?,
                Self::Memory => {
                    if gathered.len() + record.len() > GATHERED_BYTES {
                        file.write_all(&gathered)?;
                        gathered.clear();
                    }
                    gathered.extend_from_slice(record);
                }
            }
        }
        file.write_all(&gathered)?;
        Ok(clock.stop(budget.done() as u64, budget.bytes()))
    }
}

fn batches(work: Work, dir: &Path, scale: &Scale) -> Outcome<Measured> {
    let Work::Batch { records, bytes, .. } = work else { return Err("not a batch".into()) };
    let mut file = File::create(dir.join("floor"))?;
    let batch = vec![7; records * bytes];
    let clock = Clock::start();
    let mut budget = Budget::new(scale, batch.len());
    while budget.goes_on() {
        file.write_all(&batch)?;
    }
    Ok(clock.stop((budget.done() * records) as u64, budget.bytes()))
}

/// One sync after another, each with so many bytes.
fn synced(bytes: usize, records: u64, dir: &Path, scale: &Scale) -> Outcome<Measured> {
    let options = OpenOptions::new().create(true).truncate(true).write(true).clone();
    let mut file = options.open(dir.join("floor"))?;
    let written = WRITTEN_BYTES_MAX.min(scale.append_bytes / 8);
    let pieces = (written / bytes as u64).clamp(1, 4096);
    let data = vec![7; bytes];
    for _ in 0..pieces {
        file.write_all(&data)?;
    }
    file.sync_all()?;
    let mut times = Vec::new();
    let end = Duration::from_secs_f64(scale.seconds);
    let clock = Clock::start();
    let start = Instant::now();
    let mut before = Duration::ZERO;
    while before < end {
        let at = times.len() as u64 % pieces;
        file.write_all_at(&data, at * bytes as u64)?;
        file.sync_data()?;
        let now = start.elapsed();
        times.push(now.saturating_sub(before));
        before = now;
    }
    let syncs = times.len() as u64;
    let mut measured = clock.stop(syncs * records, syncs * bytes as u64);
    measured.set_latency(times);
    measured.syncs = Some(syncs);
    Ok(measured)
}

fn read(work: Work, dir: &Path) -> Outcome<Measured> {
    let mut file = File::open(dir.join("floor"))?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut checksum = 0;
    let mut bytes = 0;
    let clock = Clock::start();
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        checksum = crc32c::crc32c_append(checksum, &piece[..read]);
        bytes += read as u64;
    }
    black_box(checksum);
    Ok(clock.stop(bytes / work.record_bytes() as u64, bytes))
}

fn seek(work: Work, dir: &Path, scale: &Scale) -> Outcome<Measured> {
    let mut file = File::open(dir.join("floor"))?;
    let mut record = vec![0; work.record_bytes()];
    let count = file.seek(SeekFrom::End(0))? / record.len() as u64;
    let clock = Clock::start();
    let mut budget = Budget::new(scale, record.len());
    let mut numbers = shuffled(count);
    while budget.goes_on() {
        let number = numbers.next().unwrap_or(0);
        let start = number * record.len() as u64;
        file.read_exact_at(&mut record, start)?;
        black_box(crc32c::crc32c(&record));
    }
    Ok(clock.stop(budget.done() as u64, budget.bytes()))
}
