//! The core's commands on the files of a folder, one at a time: nothing runs beside anything else,
//! so the same seed gives the same requests in the same order, and the same power cuts.
//!
//! This is the least host there is. It shows what the core asks for, without a host's threads, and
//! a host can be compared with it.

use crate::model::{Content, Model};
use seawall_core::command::{Command, Done, Folder, Listed};
use seawall_core::config::{Config, FsyncPolicy, Level, RecoveryScan};
use seawall_core::cursor::{Cursor, Step};
use seawall_core::error::{IoError, IoErrorKind, RequestError};
use seawall_core::id::{LogId, Lsn, Time};
use seawall_core::log::{Log, SegmentInfo};
use seawall_core::record::{Entry, Record};
use seawall_core::recover::{Mode, Recovery, RecoveryStart};
use seawall_core::wire::name::{FileId, FileName, QUARANTINE};
use seawall_tests::random::Random;
use seawall_tests::records::record_bytes;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs commands on the files of a folder.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    open: HashMap<FileId, File>,
}

impl Files {
    fn path(&self, name: FileName) -> PathBuf {
        self.folder.join(name.to_string())
    }

    fn file(&mut self, name: FileName) -> io::Result<&File> {
        let path = self.path(name);
        match self.open.entry(name.file) {
            std::collections::hash_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                Ok(vacant.insert(OpenOptions::new().read(true).write(true).open(path)?))
            }
        }
    }

    fn execute(&mut self, command: Command<Vec<u8>>) -> Done<Vec<u8>> {
        match command {
            Command::Create(c) => {
                let result = self.create(c.name);
                c.done(result.map_err(error))
            }
            Command::Allocate(c) => {
                let result = self.allocate(c.name, c.file_bytes);
                c.done(result.map_err(error))
            }
            Command::Write(c) => {
                let result = self.write(c.name, c.offset, c.data.as_ref(), c.sync);
                c.done(result)
            }
            Command::Sync(c) => {
                let result = self.file(c.name).and_then(File::sync_data);
                c.done(result.map_err(sync_error))
            }
            Command::Truncate(c) => {
                let result = self.file(c.name).and_then(|file| file.set_len(c.bytes));
                c.done(result.map_err(error))
            }
            Command::Rename(c) => {
                let result = fs::rename(self.path(c.from), self.path(c.to));
                if result.is_ok() && c.from.file != c.to.file {
                    self.open.remove(&c.from.file);
                    self.open.remove(&c.to.file);
                }
                c.done(result.map_err(error))
            }
            Command::Remove(c) => {
                self.open.remove(&c.name.file);
                let result = gone_is_gone(fs::remove_file(self.path(c.name)));
                c.done(result.map_err(error))
            }
            Command::WriteBack(c) => c.done(Ok(())),
            Command::SyncDir(c) => {
                let folder = match c.folder {
                    Folder::Log => self.folder.clone(),
                    Folder::Quarantine => self.folder.join(QUARANTINE),
                };
                let result = File::open(folder).and_then(|folder| folder.sync_all());
                c.done(result.map_err(sync_error))
            }
            Command::Read(mut c) => {
                let result =
                    self.file(c.name).and_then(|file| read_at(file, &mut c.buffer, c.offset));
                c.done(result.map_err(error))
            }
            Command::List(c) => {
                let result = self.list();
                c.done(result.map_err(error))
            }
        }
    }

    fn create(&mut self, name: FileName) -> io::Result<()> {
        self.open.remove(&name.file);
        let path = self.path(name);
        if matches!(name.file, FileId::Quarantined(_)) {
            fs::create_dir_all(self.folder.join(QUARANTINE))?;
            File::open(&self.folder)?.sync_all()?;
        }
        gone_is_gone(fs::remove_file(&path))?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        self.open.insert(name.file, file);
        Ok(())
    }

    /// There is no reserving here, only lengths.
    fn allocate(&mut self, name: FileName, to: u64) -> io::Result<()> {
        let file = self.file(name)?;
        if file.metadata()?.len() < to { file.set_len(to) } else { Ok(()) }
    }

    fn write(
        &mut self,
        name: FileName,
        offset: u64,
        bytes: &[u8],
        sync: bool,
    ) -> Result<(), IoError> {
        let file = self.file(name).map_err(error)?;
        file.write_all_at(bytes, offset).map_err(error)?;
        if sync { file.sync_data().map_err(sync_error) } else { Ok(()) }
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        let mut names = Vec::new();
        for folder in [Folder::Log, Folder::Quarantine] {
            let path = match folder {
                Folder::Log => self.folder.clone(),
                Folder::Quarantine => self.folder.join(QUARANTINE),
            };
            let entries = match fs::read_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let about = entry.metadata()?;
                if name != QUARANTINE {
                    let bytes = about.is_file().then_some(about.len());
                    names.push(Listed::new(folder, name, bytes));
                }
            }
        }
        Ok(names)
    }
}

fn gone_is_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => break,
            bytes => done += bytes,
        }
    }
    Ok(done)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn error(error: io::Error) -> IoError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull => IoErrorKind::NoSpace,
        io::ErrorKind::NotFound => IoErrorKind::NotFound,
        _ => IoErrorKind::Other,
    };
    IoError { kind, os_code: error.raw_os_error() }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn sync_error(error: io::Error) -> IoError {
    IoError { kind: IoErrorKind::Other, os_code: error.raw_os_error() }
}

/// A log in a folder, whose every step a seed decides.
#[derive(Debug)]
pub struct Lockstep {
    files: Files,
    config: Config,
    random: Random,
    log: Option<Log<Vec<u8>>>,
    is_truncating: bool,
    /// What the log must hold.
    pub model: Model,
    counter: u64,
    now: u64,
}

impl Lockstep {
    /// A log that is still to be opened.
    ///
    /// # Errors
    /// When the folder cannot be made durable.
    ///
    /// # Panics
    /// When the settings do not hold together.
    pub fn new(folder: &Path, seed: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        if let Some(parent) = folder.parent() {
            File::open(parent)?.sync_all()?;
        }
        let mut random = Random::new(seed);
        let window = Duration::from_micros(200);
        let policies = [FsyncPolicy::Always, FsyncPolicy::Batch(window), FsyncPolicy::Os];
        let config = Config {
            segment_bytes_max: 4_096 << random.below(3),
            fsync_policy: policies[random.index(policies.len())],
            preallocate: random.chance(1, 2),
            reserve_bytes: 2_048,
            recycle_max: random.index(3),
            reserve_past_end: random.chance(1, 2),
            write_back_bytes: Some(1_024),
            scan: if random.chance(1, 4) { RecoveryScan::Full } else { RecoveryScan::Tail },
            batch_bytes: 4_096,
            crc: crc32c::crc32c_append,
            ..Config::default()
        };
        Ok(Self {
            files: Files { folder: folder.to_owned(), open: HashMap::new() },
            config: config.checked().expect("the settings hold together"),
            random,
            log: None,
            is_truncating: false,
            model: Model::default(),
            counter: 0,
            now: 1_000_000,
        })
    }

    /// Recovers the log and checks what is there.
    ///
    /// # Errors
    /// Why it does not open, or cannot be read: only when the files fail.
    ///
    /// # Panics
    /// With the number of the invariant that is broken.
    pub fn open(&mut self) -> Result<(), String> {
        self.close_files();
        let start = RecoveryStart {
            config: self.config.clone(),
            new_log_id: LogId([7; 16]),
            seed: self.random.number(),
            now: Time::from_micros(self.now),
            buffers: vec![Vec::new(), Vec::new(), Vec::new()],
        };
        let mut recovery = Recovery::new(start, Mode::Open);
        while let Some(command) = recovery.poll_command() {
            recovery.complete(self.files.execute(command));
        }
        let (log, report) = recovery.finish().map_err(|error| error.to_string())?;
        assert!(!report.is_damaged(), "invariant 10: no damage was done: {report:?}");
        let records = self.read(&log).map_err(|error| error.to_string())?;
        assert_eq!(records.len() as u64, report.records, "the report counts records: {report:?}");
        self.model.check(log.first_lsn().get(), &records);
        self.log = Some(log);
        Ok(())
    }

    /// Lets go of the log and its files: the process ends.
    pub fn close_files(&mut self) {
        self.log = None;
        self.is_truncating = false;
        self.files.open.clear();
    }

    fn read(&mut self, log: &Log<Vec<u8>>) -> io::Result<Vec<(u64, Content)>> {
        let segments: Vec<SegmentInfo> = log.segments().collect();
        let mut records = Vec::new();
        for segment in segments {
            let limit = segment.end.map_or(log.durable().end.offset, |end| end.frames_end);
            let mut cursor = Cursor::new(segment, crc32c::crc32c_append, 1_024, 1 << 20);
            let name = FileId::Segment(segment.segment).name();
            loop {
                match cursor.step(limit) {
                    Step::Record(record, _) => {
                        records.push((record.lsn.get(), [record.key, record.stored].concat()));
                    }
                    Step::Read { offset, bytes } => {
                        let mut buffer = vec![0; usize::try_from(bytes).expect("it is small")];
                        let have = read_at(self.files.file(name)?, &mut buffer, offset)?;
                        let is_short = have < buffer.len();
                        buffer.truncate(have);
                        cursor.fill(offset, buffer, is_short);
                    }
                    Step::End => break,
                    other => panic!("invariant 1: a record cannot be read: {other:?}"),
                }
            }
        }
        Ok(records)
    }

    /// Takes random steps; `false` when the log has failed or been closed before that.
    ///
    /// # Panics
    /// With the number of the invariant that is broken.
    pub fn live(&mut self, steps: u64) -> bool {
        for _ in 0..steps {
            self.now += self.random.below(300);
            let Some(log) = &mut self.log else { return false };
            log.tick(Time::from_micros(self.now));
            if log.poison().is_some() || log.is_closed() {
                return false;
            }
            self.step();
            self.observe();
        }
        true
    }

    fn step(&mut self) {
        let chance = self.random.below(100);
        let Some(log) = &mut self.log else { return };
        match chance {
            0..=44 => self.append(),
            45..=84 => drop(self.run_one()),
            85..=86 => drop(log.flush(Level::Disk)),
            87..=88 => drop(log.rotate()),
            89..=90 => {
                let span = log.appended().lsn.since(log.first_lsn());
                let lsn = log.first_lsn().plus(self.random.below(span + 2));
                if log.delete_before(lsn).is_ok() {
                    self.model.delete_before(lsn.get());
                }
            }
            91 => {
                let (first, last) = (log.first_lsn().get(), log.appended().lsn.get());
                let lsn = first - 1 + self.random.below(last + 2 - first);
                if log.truncate_after(Lsn::new(lsn)).is_ok() {
                    self.model.begin_truncation(lsn);
                    self.is_truncating = true;
                }
            }
            92 if self.random.chance(1, 4) => drop(log.close()),
            _ => while self.run_one() {},
        }
    }

    fn append(&mut self) {
        let level = [Level::Buffered, Level::Os, Level::Disk][self.random.index(3)];
        let count = if self.random.chance(1, 4) { 1 + self.random.below(6) } else { 1 };
        let contents: Vec<Content> = (0..count)
            .map(|_| {
                self.counter += 1;
                record_bytes(self.counter, self.random.index(700))
            })
            .collect();
        let records: Vec<Record<'_>> =
            contents.iter().map(|content| Record::put(&content[..8], &content[8..])).collect();
        let entries: Vec<Entry<'_>> = records.iter().map(Entry::from).collect();
        let Some(log) = &mut self.log else { return };
        if let Ok(appended) = log.append_batch(&entries, level) {
            self.model.append(appended.first.get(), contents);
        } else {
            self.run_one();
        }
    }

    /// Runs the next command; `false` when there is none.
    fn run_one(&mut self) -> bool {
        let Some(log) = &mut self.log else { return false };
        let Some(command) = log.poll_command() else { return false };
        if let Some(rolled_back) = log.complete(self.files.execute(command)) {
            self.model.roll_back(rolled_back.after.get());
        }
        self.observe();
        true
    }

    fn observe(&mut self) {
        let Some(log) = &mut self.log else { return };
        if self.is_truncating
            && let Some(result) = log.take_request_result()
        {
            self.is_truncating = false;
            // One that ended in poison may be on the disk or not.
            if !matches!(result, Err(RequestError::Poisoned(_))) {
                self.model.end_truncation(result.is_ok());
            }
        }
        if log.poison().is_none() {
            self.model.acknowledge(log.durable().lsn.get());
        }
        while log.poll_event().is_some() {}
    }
}
