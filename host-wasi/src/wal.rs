//! A log and the run loop that drives it: each call runs commands until it has what it promised.

use crate::execute::{Executor, Preallocation};
use crate::folder::{Folder, Refusal, RefusalKind, persist};
use alloc::string::String;
use alloc::vec::Vec;
use seawall_core::compress::{Compression, Compressor};
use seawall_core::config::{Config, ConfigError, FsyncPolicy, Level};
use seawall_core::error::{AppendError, RequestError};
use seawall_core::event::Event;
use seawall_core::id::{LogId, Lsn, SegmentId, Time, Watermark};
use seawall_core::log::{Appended, Log, RolledBack, SegmentInfo};
use seawall_core::record::{Entry, Record};
use seawall_core::recover::{Mode, Recovery, RecoveryError, RecoveryStart, Report};

/// How a second writer is kept away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exclusion {
    /// The embedder sees to it.
    Embedder,
    /// A file in the folder names this owner.
    Owner(String),
    /// As `Owner`; whoever is named there is gone.
    TakeOver(String),
}

/// What makes a run repeatable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injected {
    /// The identity of a new log.
    pub log: LogId,
    /// Where salts come from.
    pub seed: u64,
    /// The time; it stands still but for [`Wal::tick`].
    pub now: Time,
}

/// Where time and random numbers come from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The time of day.
    pub now: fn() -> Time,
    /// 64 random bits.
    pub random: fn() -> u64,
}

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the core runs with; `preallocate` is set from `preallocation`.
    pub config: Config,
    /// How space is reserved.
    pub preallocation: Preallocation,
    /// How a second writer is kept away.
    pub exclusion: Exclusion,
    /// Whether to refuse a folder whose names cannot be made durable.
    pub requires_directory_sync: bool,
    /// What makes a run repeatable; `None` asks the source.
    pub injected: Option<Injected>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            config: Config::default(),
            preallocation: Preallocation::default(),
            exclusion: Exclusion::Embedder,
            requires_directory_sync: true,
            injected: None,
        }
    }
}

/// Why a log cannot be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// A setting is out of its range.
    Config(ConfigError),
    /// The name is not one plain name.
    Name,
    /// The folder of that name cannot be opened or made.
    Folder(Refusal),
    /// Somebody else owns the log.
    Owned(String),
    /// The owner's file could not be read or written.
    Owner(Refusal),
    /// Names in the folder cannot be made durable.
    DirectorySync,
    /// It could not be recovered.
    Recovery(RecoveryError),
}

/// What became of several appends.
#[derive(Debug)]
pub struct Groups {
    /// Those that have reached the level, in order.
    pub appended: Vec<Appended>,
    /// Why the others have not.
    pub error: Option<AppendError>,
}

/// So many batches are filled or under way. One is written while none is filled, so two would do;
/// the others let a large group gather before it must be written.
const BUFFERS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Clock {
    Host(fn() -> Time),
    Told(Time),
}

impl Clock {
    fn now(self) -> Time {
        match self {
            Self::Host(now) => now(),
            Self::Told(now) => now,
        }
    }
}

/// An open log.
pub struct Wal<F: Folder> {
    pub(crate) log: Log<Vec<u8>>,
    pub(crate) executor: Executor<F>,
    clock: Clock,
    compressor: Compressor,
    owns: bool,
    segments_version: u64,
    appends: u64,
    records: u64,
    /// To which record each truncation since opening went back.
    pub(crate) truncations: Vec<Lsn>,
}

impl<F: Folder> core::fmt::Debug for Wal<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Wal").field("log", &self.log.id()).finish_non_exhaustive()
    }
}

impl<F: Folder> Wal<F> {
    /// Opens the log in the folder `name` inside `parent`, which is made where there is none, or in
    /// `parent` itself when `name` is empty.
    ///
    /// # Errors
    /// See [`OpenError`]; no record has been lost.
    pub fn open(
        parent: F,
        name: &str,
        settings: Settings,
        source: Source,
    ) -> Result<(Self, Report), OpenError> {
        let Settings { mut config, preallocation, exclusion, requires_directory_sync, injected } =
            settings;
        config.preallocate = preallocation != Preallocation::None;
        let config = config.checked().map_err(OpenError::Config)?;
        let folder = enter(parent, name, requires_directory_sync)?;
        let executor = Executor::new(folder, preallocation);
        if !executor.probe_directory_sync(!requires_directory_sync) && requires_directory_sync {
            return Err(OpenError::DirectorySync);
        }
        let owns = own(&executor, &exclusion)?;
        let clock = injected.map_or(Clock::Host(source.now), |told| Clock::Told(told.now));
        let start = RecoveryStart {
            config,
            new_log_id: injected.map_or_else(|| random_id(source), |told| told.log),
            seed: injected.map_or_else(source.random, |told| told.seed),
            now: clock.now(),
            buffers: (0..BUFFERS).map(|_| Vec::new()).collect(),
        };
        let mut recovery = Recovery::new(start, Mode::Open);
        while let Some(command) = recovery.poll_command() {
            recovery.complete(executor.execute(command));
        }
        let (log, report) = match recovery.finish() {
            Ok(finished) => finished,
            Err(error) => {
                if owns {
                    // The error says more than that the owner's file stays.
                    executor.disown().ok();
                }
                return Err(OpenError::Recovery(error));
            }
        };
        executor.forget_before(log.newest_segment());
        let wal = Self {
            segments_version: log.segments_version(),
            log,
            executor,
            clock,
            compressor: Compressor::new(),
            owns,
            appends: 0,
            records: 0,
            truncations: Vec::new(),
        };
        Ok((wal, report))
    }

    /// Runs every command there is. The appends that a full disk undid are returned.
    fn run(&mut self) -> Option<RolledBack> {
        let mut undone: Option<RolledBack> = None;
        while let Some(command) = self.log.poll_command() {
            if let Some(rolled_back) = self.log.complete(self.executor.execute(command)) {
                let is_first = undone.is_none_or(|earlier| rolled_back.after < earlier.after);
                undone = if is_first { Some(rolled_back) } else { undone };
            }
        }
        if self.segments_version != self.log.segments_version() {
            self.segments_version = self.log.segments_version();
            self.executor.forget_before(self.log.newest_segment());
        }
        undone
    }

    /// The level that the policy asks for.
    pub fn level(&self) -> Level {
        self.log.config().fsync_policy.level()
    }

    /// Appends groups of records, each group atomic for itself, with as few syncs as there can be:
    /// one, where all of it fits into the buffers. The groups' sizes must add up to the records;
    /// records beyond them are not appended.
    pub fn append_groups(
        &mut self,
        records: &[Record<'_>],
        groups: &[usize],
        level: Level,
    ) -> Groups {
        self.log.tick(self.clock.now());
        let mut compressor = core::mem::take(&mut self.compressor);
        let config = self.log.config();
        let (default, threshold) = (config.compression, config.compression_threshold_bytes);
        let is_plain = |record: &Record<'_>| record.codec(default) == Compression::None;
        let entries: Vec<Entry<'_>> = if records.iter().all(is_plain) {
            records.iter().map(Entry::from).collect()
        } else {
            compressor.prepare_all(records, default, threshold)
        };
        let mut result = Groups { appended: Vec::with_capacity(groups.len()), error: None };
        let mut rest = &entries[..];
        for size in groups {
            let Some((group, others)) = rest.split_at_checked(*size) else { break };
            rest = others;
            if !self.append_one(group, &mut result) {
                break;
            }
        }
        if level > Level::Buffered && !result.appended.is_empty() {
            match self.log.flush(level) {
                Ok(_) => self.run_for(&mut result),
                Err(error) => result.error = Some(error),
            }
            self.keep_reached(&mut result, level);
        }
        self.compressor = compressor;
        self.compressor.trim();
        self.appends += result.appended.len() as u64;
        self.records +=
            result.appended.iter().map(|done| done.last.since(done.first) + 1).sum::<u64>();
        result
    }

    /// Appends one group to memory, and makes room for it where it must. `false`: it could not be.
    fn append_one(&mut self, group: &[Entry<'_>], result: &mut Groups) -> bool {
        let mut has_run = false;
        loop {
            let appended = match group {
                [entry] => self.log.append(entry, Level::Buffered),
                group => self.log.append_batch(group, Level::Buffered),
            };
            match appended {
                Ok(appended) => {
                    result.appended.push(appended);
                    return true;
                }
                Err(AppendError::Busy) if !has_run => {
                    // All buffers are full, or the next segment is to be made: nothing is left of
                    // that once every command has run.
                    self.make_room(result);
                    if result.error.is_some() {
                        return false;
                    }
                    has_run = true;
                }
                Err(error) => {
                    result.error = Some(error);
                    return false;
                }
            }
        }
    }

    fn make_room(&mut self, result: &mut Groups) {
        match self.log.flush(Level::Os) {
            Ok(_) => self.run_for(result),
            Err(error) => result.error = Some(error),
        }
    }

    /// Runs every command, and takes out of `result` what a full disk undid.
    fn run_for(&mut self, result: &mut Groups) {
        if let Some(RolledBack { after, failure }) = self.run() {
            result.appended.retain(|appended| appended.last <= after);
            result.error = Some(AppendError::DiskFull(failure));
        }
        if let Some(poison) = self.log.poison() {
            result.error = Some(AppendError::Poisoned(poison));
        }
    }

    /// What has not reached the level is not promised.
    fn keep_reached(&self, result: &mut Groups, level: Level) {
        let reached = self.reached(level).lsn;
        result.appended.retain(|appended| appended.last <= reached);
    }

    fn reached(&self, level: Level) -> Watermark {
        match level {
            Level::Buffered => self.log.appended(),
            Level::Os => self.log.written(),
            Level::Disk => self.log.durable(),
        }
    }

    /// Makes everything appended before reach `level`, and says up to which LSN that is.
    ///
    /// # Errors
    /// When the log is poisoned or closed, or the disk is full and what was buffered has been
    /// undone.
    pub fn flush(&mut self, level: Level) -> Result<Lsn, AppendError> {
        if self.log.is_closed() {
            return Err(AppendError::Closed);
        }
        self.log.tick(self.clock.now());
        let lsn = self.log.flush(level)?;
        if let Some(RolledBack { failure, .. }) = self.run() {
            return Err(AppendError::DiskFull(failure));
        }
        match self.log.poison() {
            Some(poison) => Err(AppendError::Poisoned(poison)),
            None => Ok(lsn),
        }
    }

    /// Tells the time, does what is due, and says when there will be something to do again.
    ///
    /// # Errors
    /// When the log is poisoned or closed.
    pub fn tick(&mut self, now: Option<Time>) -> Result<Option<Time>, AppendError> {
        if self.log.is_closed() {
            return Err(AppendError::Closed);
        }
        if let (Clock::Told(told), Some(now)) = (&mut self.clock, now) {
            *told = now.max(*told);
        }
        self.log.tick(now.unwrap_or_else(|| self.clock.now()));
        // What a full disk undoes here nobody waits for; an event tells it.
        self.run();
        match self.log.poison() {
            Some(poison) => Err(AppendError::Poisoned(poison)),
            None => Ok(self.log.next_deadline()),
        }
    }

    /// Ends the active segment, if it holds records.
    ///
    /// # Errors
    /// As an append.
    pub fn rotate(&mut self) -> Result<(), AppendError> {
        self.log.tick(self.clock.now());
        let mut has_run = false;
        loop {
            match self.log.rotate() {
                Err(AppendError::Busy) if !has_run => {
                    self.flush(Level::Os)?;
                    has_run = true;
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    let undone = self.run();
                    return match (self.log.poison(), undone) {
                        (Some(poison), _) => Err(AppendError::Poisoned(poison)),
                        (None, Some(RolledBack { failure, .. })) => {
                            Err(AppendError::DiskFull(failure))
                        }
                        (None, None) => Ok(()),
                    };
                }
            }
        }
    }

    /// Deletes the segments whose records all come before `lsn`, and says how many they were.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn delete_before(&mut self, lsn: Lsn) -> Result<u64, RequestError> {
        let had: Vec<SegmentId> = self.log.segments().map(|info| info.segment).collect();
        self.log.delete_before(lsn)?;
        self.finish_request()?;
        // Meanwhile others may have come, or a full disk may have undone the newest.
        let first = self.log.segments().next().map(|info| info.segment);
        Ok(had.iter().filter(|segment| first.is_some_and(|first| **segment < first)).count() as u64)
    }

    /// Takes all records after `lsn` off the log.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn truncate_after(&mut self, lsn: Lsn) -> Result<(), RequestError> {
        self.log.truncate_after(lsn)?;
        self.finish_request()?;
        self.truncations.push(lsn);
        Ok(())
    }

    /// Makes everything durable and marks a clean end.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn close(&mut self) -> Result<(), RequestError> {
        self.log.close()?;
        self.finish_request()?;
        if self.owns {
            self.owns = false;
            // The log is closed and whole; what is left is a name that the next opening reports.
            self.executor.disown().ok();
        }
        Ok(())
    }

    fn finish_request(&mut self) -> Result<(), RequestError> {
        self.log.tick(self.clock.now());
        self.run();
        // A request ends when all of its commands have; that none is left says that it has.
        self.log.take_request_result().unwrap_or(Err(RequestError::Busy))
    }

    /// How far the log has come, as a cursor may be shown it.
    pub fn visible(&self, visibility: crate::Visibility) -> Watermark {
        match visibility {
            crate::Visibility::Durable => self.log.durable(),
            crate::Visibility::Written => self.log.written(),
        }
    }

    /// The machine, to look at.
    pub fn log(&self) -> &Log<Vec<u8>> {
        &self.log
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.log.segments().collect()
    }

    /// Something that happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.log.poll_event()
    }

    /// Whether the host makes names durable.
    pub fn syncs_directories(&self) -> bool {
        self.executor.syncs_directories()
    }

    /// How many appends there were, and how many records they held.
    pub fn appends(&self) -> (u64, u64) {
        (self.appends, self.records)
    }

    /// How many writes and how many syncs were made.
    pub fn calls(&self) -> (u64, u64) {
        (self.executor.writes.get(), self.executor.syncs.get())
    }

    /// What a log that is let go does: it hands over what it has, as its policy says.
    pub fn let_go(&mut self) {
        let level = match self.log.config().fsync_policy {
            FsyncPolicy::Os => Level::Os,
            FsyncPolicy::Always | FsyncPolicy::Batch(_) => Level::Disk,
        };
        // There is nobody left to tell; opening the log again tells what is there.
        self.flush(level).ok();
    }
}

fn random_id(source: Source) -> LogId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(source.random)().to_le_bytes());
    id[8..].copy_from_slice(&(source.random)().to_le_bytes());
    LogId(id)
}

/// The folder `name` inside `parent`.
fn enter<F: Folder>(parent: F, name: &str, must_sync: bool) -> Result<F, OpenError> {
    if name.is_empty() {
        return Ok(parent);
    }
    if name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
        return Err(OpenError::Name);
    }
    match persist(|| parent.make_folder(name)) {
        Err(refusal) if refusal.kind != RefusalKind::Exists => {
            return Err(OpenError::Folder(refusal));
        }
        _ => {}
    }
    let folder = persist(|| parent.folder(name)).map_err(OpenError::Folder)?;
    // Also where it was there: whoever made it may not have come to that.
    if parent.sync().is_err() && must_sync {
        return Err(OpenError::DirectorySync);
    }
    Ok(folder)
}

fn own<F: Folder>(executor: &Executor<F>, exclusion: &Exclusion) -> Result<bool, OpenError> {
    let (owner, takes_over) = match exclusion {
        Exclusion::Embedder => return Ok(false),
        Exclusion::Owner(owner) => (owner, false),
        Exclusion::TakeOver(owner) => (owner, true),
    };
    match executor.own(owner, takes_over) {
        Ok(()) => Ok(true),
        Err(Ok(other)) => Err(OpenError::Owned(other)),
        Err(Err(refusal)) => Err(OpenError::Owner(refusal)),
    }
}
