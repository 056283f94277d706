//! Floors: the same work with bare system calls, and nothing that a log has to do besides.

use crate::contestant::Outcome;
use crate::measure::{Budget, Clock, Measured, Scale, append_behind, records, shuffled};
use crate::row::Work;
use crate::waiting;
use rustix::fs::{FallocateFlags, fallocate};
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
    /// Into space that is reserved and was never written, as a log that grows has it.
    Growing,
    /// A thread or a task waits for each record.
    Waiting,
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
    pub(crate) const ALL: [Self; 5] =
        [Self::Calls, Self::Framed, Self::Memory, Self::Growing, Self::Waiting];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Calls => "floor",
            Self::Framed => "floor + 12 B",
            Self::Memory => "floor in memory",
            Self::Growing => "floor, growing",
            Self::Waiting => "floor, waiting",
        }
    }

    /// What it does in this work; `None`: there is no such floor.
    pub(crate) fn does(self, work: Work) -> Option<&'static str> {
        match (self, work) {
            (
                Self::Calls,
                Work::Append { .. } | Work::AppendTask { .. } | Work::AppendText { .. },
            ) => Some("one write(2) for each record"),
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
            (Self::Calls, Work::Behind { .. }) => {
                Some("one write(2) for each record, fdatasync after the last")
            }
            (Self::Calls, Work::Threads { .. } | Work::Tasks { .. }) => {
                Some("pwrite + fdatasync with a record of every writer, in a written file")
            }
            (Self::Calls, Work::OpenCrashed(_) | Work::ReadAll) => {
                Some("read from the page cache and CRC32C, in pieces of 64 KiB")
            }
            (Self::Calls, Work::Seek { .. }) => Some("pread and CRC32C of one record"),
            (
                Self::Growing,
                Work::Batch { level: Level::Disk, .. }
                | Work::Deleting { .. }
                | Work::Threads { .. }
                | Work::Tasks { .. },
            ) => Some("the same, into blocks that are reserved and were never written"),
            (Self::Waiting, Work::Threads { count: 2.., .. } | Work::Tasks { count: 2.., .. }) => {
                Some("the same, and each writer sleeps until his record is durable")
            }
            (Self::Calls, Work::OpenSealed { .. })
            | (Self::Framed | Self::Memory | Self::Growing | Self::Waiting, _) => None,
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
            Work::Append { .. } | Work::AppendTask { .. } | Work::AppendText { .. } => {
                self.append(work, dir, scale)
            }
            Work::Batch { records, bytes, level: Level::Disk }
            | Work::Deleting { records, bytes } => {
                self.synced(records * bytes, dir, scale)?.run(records)
            }
            Work::Batch { .. } => batches(work, dir, scale),
            Work::Behind { .. } => behind(work, dir, scale),
            Work::Threads { bytes, count } | Work::Tasks { bytes, count } => {
                let synced = self.synced(count * bytes, dir, scale)?;
                match (self, work) {
                    (Self::Waiting, Work::Threads { .. }) => waiting::threads(synced, count),
                    (Self::Waiting, _) => waiting::tasks(synced, count),
                    _ => synced.run(count),
                }
            }
            Work::OpenCrashed(_) | Work::ReadAll => read(work, dir),
            Work::Seek { .. } => seek(work, dir, scale),
            Work::OpenSealed { .. } => Err("there is no such floor".into()),
        }
    }

    fn synced(self, bytes: usize, dir: &Path, scale: &Scale) -> Outcome<Synced> {
        if self == Self::Growing {
            Synced::in_reserved_blocks(bytes, dir, scale)
        } else {
            Synced::in_written_blocks(bytes, dir, scale)
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
            if self != Self::Memory {
                file.write_all(record)?;
                continue;
            }
            if gathered.len() + record.len() > GATHERED_BYTES {
                file.write_all(&gathered)?;
                gathered.clear();
            }
            gathered.extend_from_slice(record);
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

fn behind(work: Work, dir: &Path, scale: &Scale) -> Outcome<Measured> {
    let file = File::create(dir.join("floor"))?;
    append_behind(work, scale, |record, level| {
        (&file).write_all(record)?;
        if level == Level::Disk {
            file.sync_data()?;
        }
        Ok(())
    })
}

/// One sync after another, each with so many bytes.
pub(crate) struct Synced {
    file: File,
    data: Vec<u8>,
    /// So many times they have room.
    places: u64,
    /// Whether they go over what stands there once there is no more room.
    goes_round: bool,
    length: Duration,
    start: Instant,
    /// How long each took.
    times: Vec<Duration>,
    before: Duration,
}

impl Synced {
    fn new(bytes: usize, dir: &Path, scale: &Scale) -> Outcome<Self> {
        let options = OpenOptions::new().create(true).truncate(true).write(true).clone();
        Ok(Self {
            file: options.open(dir.join("floor"))?,
            data: vec![7; bytes],
            places: 0,
            goes_round: true,
            length: Duration::from_secs_f64(scale.seconds),
            start: Instant::now(),
            times: Vec::new(),
            before: Duration::ZERO,
        })
    }

    fn in_written_blocks(bytes: usize, dir: &Path, scale: &Scale) -> Outcome<Self> {
        let mut synced = Self::new(bytes, dir, scale)?;
        let written = WRITTEN_BYTES_MAX.min(scale.append_bytes / 8);
        synced.places = (written / bytes as u64).clamp(1, 4096);
        for _ in 0..synced.places {
            synced.file.write_all(&synced.data)?;
        }
        synced.file.sync_all()?;
        Ok(synced)
    }

    fn in_reserved_blocks(bytes: usize, dir: &Path, scale: &Scale) -> Outcome<Self> {
        let mut synced = Self::new(bytes, dir, scale)?;
        synced.places = (scale.append_bytes / bytes as u64).max(1);
        synced.goes_round = false;
        fallocate(&synced.file, FallocateFlags::empty(), 0, synced.places * bytes as u64)?;
        synced.file.sync_all()?;
        Ok(synced)
    }

    /// Begins to measure.
    pub(crate) fn begin(&mut self) -> Clock {
        self.start = Instant::now();
        Clock::start()
    }

    /// Writes and syncs the bytes once. `false`: it was the last time.
    pub(crate) fn step(&mut self) -> Outcome<bool> {
        let at = self.times.len() as u64 % self.places;
        self.file.write_all_at(&self.data, at * self.data.len() as u64)?;
        self.file.sync_data()?;
        let now = self.start.elapsed();
        self.times.push(now.saturating_sub(self.before));
        self.before = now;
        let has_room = self.goes_round || (self.times.len() as u64) < self.places;
        Ok(now < self.length && has_room)
    }

    /// What was measured, where each sync carried so many records.
    pub(crate) fn end(self, clock: &Clock, records: usize) -> Measured {
        let syncs = self.times.len() as u64;
        let mut measured = clock.stop(syncs * records as u64, syncs * self.data.len() as u64);
        measured.set_latency(self.times);
        measured.syncs = Some(syncs);
        measured
    }

    fn run(mut self, records: usize) -> Outcome<Measured> {
        let clock = self.begin();
        while self.step()? {}
        Ok(self.end(&clock, records))
    }
}

fn read(work: Work, dir: &Path) -> Outcome<Measured> {
    let mut file = File::open(dir.join("floor"))?;
    let mut piece = vec![0; PIECE_BYTES];
    let crc = seawall::fastest_crc32c();
    let mut checksum = 0;
    let mut bytes = 0;
    let clock = Clock::start();
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        checksum = crc(checksum, &piece[..read]);
        bytes += read as u64;
    }
    black_box(checksum);
    Ok(clock.stop(bytes / work.record_bytes() as u64, bytes))
}

fn seek(work: Work, dir: &Path, scale: &Scale) -> Outcome<Measured> {
    let mut file = File::open(dir.join("floor"))?;
    let mut record = vec![0; work.record_bytes()];
    let count = file.seek(SeekFrom::End(0))? / record.len() as u64;
    let crc = seawall::fastest_crc32c();
    let clock = Clock::start();
    let mut budget = Budget::new(scale, record.len());
    let mut numbers = shuffled(count);
    while budget.goes_on() {
        let number = numbers.next().unwrap_or(0);
        let start = number * record.len() as u64;
        file.read_exact_at(&mut record, start)?;
        black_box(crc(0, &record));
    }
    Ok(clock.stop(budget.done() as u64, budget.bytes()))
}
