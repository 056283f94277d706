//! A log on a simulated disk, and everything that befalls it in a [`History`].
//!
//! The world is the log's host: it polls commands, runs them in any order and completes them in any
//! order. Beside it stand appenders that wait for their level, and readers. After each step it
//! looks at what the log says and at the disk, and at each recovery at all that is there.

use crate::disk::{Disk, Fault, Memory, end_of};
use crate::ensure;
use crate::explorer::{Explorer, Scene, changes};
use crate::history::{Event, History, Step};
use crate::liar::Suspicion;
use crate::opening::{Go, check, is_the_same_by_all, is_the_same_told, recover, start};
use crate::oracle::{Content, Frame, Oracle, Verdict, broken};
use crate::random::{Hash, Random};
use crate::reader::Reader;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use seawall_core::command::{Command, Done};
use seawall_core::config::{Config, FsyncPolicy, Level};
use seawall_core::error::{AppendError, RequestError};
use seawall_core::id::{Lsn, Time};
use seawall_core::log::{Log, RETRY_AFTER};
use seawall_core::record::{Entry, Record};
use seawall_core::wire::name::FileId;

/// The world of one history.
#[derive(Debug)]
pub struct World {
    /// The disk.
    pub disk: Disk,
    /// What the log must hold.
    pub oracle: Oracle,
    /// What tries every crash on the way, if anything does.
    pub explorer: Option<Explorer>,
    /// How many times a log was recovered.
    pub recoveries: u64,
    /// How many of them found damage, of a disk that lied, and said so.
    pub told: u64,
    /// What the disk has lied about.
    pub(crate) suspicion: Option<Suspicion>,
    pub(crate) config: Config,
    pub(crate) log: Option<Log<Memory>>,
    /// The dice of the step that is being taken.
    pub(crate) random: Random,
    pub(crate) now: u64,
    /// Nothing falls due later than so long from now.
    longest: Duration,
    counter: u64,
    waiting: Vec<Command<Memory>>,
    returned: Vec<Done<Memory>>,
    /// Operations that are to go wrong: how, and how many that it can befall come before.
    faults: Vec<(Fault, u8)>,
    appenders: Vec<(u64, Level)>,
    readers: [Reader; 3],
    is_truncating: bool,
    is_rolled_back: bool,
    /// Bytes that the kernel had are gone without a loss of power.
    has_dropped: bool,
    /// A disk that lied was found out: nothing more is to be seen here.
    pub(crate) is_over: bool,
    hash: Hash,
    /// Whether to tell every step, for replaying a seed.
    traces: bool,
}

impl World {
    /// The world with these settings, its log not open.
    pub fn new(history: &History) -> Self {
        let window = match history.setup.policy {
            FsyncPolicy::Batch(window) => window,
            FsyncPolicy::Always | FsyncPolicy::Os => Duration::ZERO,
        };
        Self {
            longest: window.max(history.setup.age.unwrap_or_default()),
            disk: Disk::with_sectors(history.setup.sector_bytes),
            oracle: Oracle::default(),
            explorer: None,
            recoveries: 0,
            told: 0,
            suspicion: None,
            config: history.setup.config(crate::crc()),
            log: None,
            random: Random::new(0),
            now: 1_000_000,
            counter: 0,
            waiting: Vec::new(),
            returned: Vec::new(),
            faults: Vec::new(),
            appenders: Vec::new(),
            readers: [Reader::new(true), Reader::new(true), Reader::new(false)],
            is_truncating: false,
            is_rolled_back: false,
            has_dropped: false,
            is_over: false,
            hash: Hash::default(),
            traces: false,
        }
    }

    /// Tells every step from now on.
    pub fn trace(&mut self) {
        self.traces = true;
    }

    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.traces {
            std::eprintln!("{:>6} {}", self.disk.operations, what());
        }
    }

    /// The hash of all commands so far, with their bytes, in order.
    pub const fn hash(&self) -> u64 {
        self.hash.value()
    }

    /// Lives through a history, and then until all is at rest, with one more crash.
    ///
    /// # Errors
    /// What did not hold.
    pub fn live(&mut self, history: &History) -> Verdict {
        self.reopen(0, None)?;
        for event in &history.events {
            self.take(event)?;
            if self.is_over {
                return Ok(());
            }
        }
        self.faults.clear();
        self.random = Random::new(1);
        self.drain()?;
        self.fall(true, 1)
    }

    /// Takes one step.
    ///
    /// # Errors
    /// What did not hold.
    pub fn take(&mut self, event: &Event) -> Verdict {
        self.random = Random::new(event.dice);
        self.now += self.random.below(100);
        // Somebody sets the clock back. No number is drawn for that: old seeds stay what they are.
        if event.dice % 37 == 1 {
            self.now = self.now.saturating_sub(event.dice % 20_000);
        }
        let now = Time::from_micros(self.now);
        let Some(log) = &mut self.log else { return self.reopen(0, None) };
        log.tick(now);
        let longest = now.plus(self.longest);
        let deadline = log.next_deadline().filter(|deadline| *deadline > longest);
        ensure!(deadline.is_none(), 20, "at {now:?} what falls due waits until {deadline:?}");
        if log.poison().is_some() || log.is_closed() {
            let power = self.random.chance(1, 2);
            return self.fall(power, 1);
        }
        self.tell(|| format!("{:?}", event.step));
        match event.step {
            Step::Append { records, bytes, level } => self.append(records, bytes, level)?,
            Step::Run(count) => {
                for _ in 0..count {
                    self.run_one()?;
                }
            }
            Step::Drain => self.drain()?,
            Step::Sleep(micros) => self.now += u64::from(micros),
            Step::Read(count) => self.read(count)?,
            Step::Fault(fault, after) => {
                self.faults.push((fault, after));
                // A segment may not be made, and is tried again after so long.
                self.longest = self.longest.max(RETRY_AFTER);
            }
            Step::Lie(lie) => self.lie(lie),
            Step::Fall { power, nested } => return self.fall(power, nested),
            request => self.request(request),
        }
        self.observe()
    }

    /// Asks the log for something.
    fn request(&mut self, step: Step) {
        let Some(log) = &mut self.log else { return };
        let (first, last) = (log.first_lsn().get(), log.appended().lsn.get());
        // From the record before the first to the one after the last.
        let place = |permille: u16| first - 1 + (last + 2 - first) * u64::from(permille) / 1_000;
        match step {
            Step::Flush => {
                if let Ok(lsn) = log.flush(Level::Disk) {
                    self.appenders.push((lsn.get(), Level::Disk));
                }
            }
            // What is refused changes nothing.
            Step::Rotate => drop(log.rotate()),
            Step::DeleteBefore(permille) => {
                let lsn = place(permille);
                if log.delete_before(Lsn::new(lsn)).is_ok() {
                    self.oracle.delete_before(lsn);
                }
            }
            Step::TruncateAfter(permille) => {
                let lsn = place(permille);
                if log.truncate_after(Lsn::new(lsn)).is_ok() {
                    self.tell(|| format!("truncates after {lsn}"));
                    self.oracle.begin_truncation(lsn);
                    self.is_truncating = true;
                }
            }
            Step::Close => drop(log.close()),
            _ => {}
        }
    }

    fn content(&mut self, bytes: u16) -> Content {
        self.counter += 1;
        let length = self.random.index(usize::from(bytes) + 1);
        let mut content = self.counter.to_le_bytes().to_vec();
        let mut filler = Random::new(self.counter);
        while content.len() < length + 8 {
            content.extend_from_slice(&filler.number().to_le_bytes());
        }
        content.truncate(length + 8);
        content
    }

    fn append(&mut self, records: u8, bytes: u16, level: Level) -> Verdict {
        let contents: Vec<Content> = (0..records).map(|_| self.content(bytes)).collect();
        let records: Vec<Record<'_>> =
            contents.iter().map(|content| Record::put(&content[..8], &content[8..])).collect();
        let entries: Vec<Entry<'_>> = records.iter().map(Entry::from).collect();
        let Some(log) = &mut self.log else { return Ok(()) };
        let claim = log.durable().lsn.get();
        // Every other record by itself goes by the fast path, where there is one.
        let fast = match (entries.as_slice(), level) {
            _ if self.counter.is_multiple_of(2) => None,
            ([entry], Level::Os) => log.append_fast(entry).map(|(appended, write)| {
                self.waiting.push(Command::Write(write));
                appended
            }),
            ([entry], Level::Buffered) => log.append_fast_buffered(entry),
            _ => None,
        };
        let result = match (entries.as_slice(), fast) {
            (_, Some(appended)) => Ok(appended),
            ([entry], None) if level != Level::Buffered => log.append(entry, level),
            (entries, None) => log.append_batch(entries, level),
        };
        match result {
            Ok(appended) => {
                let frame = Frame::of(log, &appended, claim);
                self.tell(|| format!("appended {frame:?}"));
                self.appenders.push((frame.last, level));
                self.oracle.append(frame, contents.into_iter())
            }
            Err(AppendError::Busy) => self.run_one().map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Whether a command goes wrong, and how.
    fn fault(&mut self, command: &Command<Memory>) -> Option<Fault> {
        let operation = command.operation();
        let mut due = None;
        for (at, (fault, after)) in self.faults.iter_mut().enumerate() {
            if Disk::can_befall(operation, *fault) {
                if *after == 0 && due.is_none() {
                    due = Some((at, *fault));
                } else {
                    *after = after.saturating_sub(1);
                }
            }
        }
        let (at, fault) = due?;
        self.faults.swap_remove(at);
        Some(fault)
    }

    /// Polls, runs or completes one thing, in any order. False when there was nothing to do.
    fn run_one(&mut self) -> Verdict<bool> {
        let Some(log) = &mut self.log else { return Ok(false) };
        let is_anything_due = log.is_anything_due();
        if let Some(command) = log.poll_command() {
            ensure!(is_anything_due, 20, "{} was not due", describe(&command));
            for other in &self.waiting {
                let is_kept = !writes_past(&command, other) && !writes_past(other, &command);
                ensure!(is_kept, 1, "{} beside {}", describe(&command), describe(other));
            }
            self.waiting.push(command);
        }
        if !self.returned.is_empty() && (self.waiting.is_empty() || self.random.chance(1, 2)) {
            let done = self.returned.swap_remove(self.random.index(self.returned.len()));
            let rolled_back = match log.complete_fast(done) {
                Ok(()) => None,
                Err(done) => log.complete(done),
            };
            if let Some(rolled_back) = rolled_back {
                let after = rolled_back.after.get();
                self.tell(|| format!("rolled back to {after}"));
                self.appenders.retain(|(last, _)| *last <= after);
                self.oracle.roll_back(after)?;
                self.is_rolled_back = true;
            }
            self.observe()?;
            return Ok(true);
        }
        if self.waiting.is_empty() {
            return Ok(false);
        }
        let command = self.waiting.swap_remove(self.random.index(self.waiting.len()));
        let fault = self.fault(&command);
        self.tell(|| format!("run {} {fault:?}", describe(&command)));
        note(&mut self.hash, &command);
        self.note_lie(&command);
        self.explore(Some(&command))?;
        self.has_dropped |= fault == Some(Fault::DropsData);
        let is_change = changes(&command);
        let done = self.disk.execute(command, fault);
        if is_change {
            self.explore(None)?;
        }
        self.returned.push(done);
        Ok(true)
    }

    /// Tries every crash while a command runs, or now.
    fn explore(&mut self, during: Option<&Command<Memory>>) -> Verdict {
        let Some(explorer) = &mut self.explorer else { return Ok(()) };
        let (disk, oracle, config, now) = (&self.disk, &self.oracle, &self.config, self.now);
        let scene = Scene { disk, oracle, config, now };
        match during {
            Some(command) => explorer.during(scene, command),
            None => explorer.crash(scene),
        }
    }

    /// Runs until there is nothing left to do. Then nobody waits any more.
    fn drain(&mut self) -> Verdict {
        let mut left = 100_000_u32;
        while self.run_one()? {
            left -= 1;
            ensure!(left > 0, 20, "the log does not come to rest");
        }
        self.observe()?;
        let is_poisoned = self.log.as_ref().is_none_or(|log| log.poison().is_some());
        let (lsn, level) = match self.appenders.iter().find(|(_, level)| *level > Level::Buffered) {
            Some(appender) if !is_poisoned => *appender,
            _ => return Ok(()),
        };
        broken(20, format!("nothing is left to do, and somebody waits for {lsn} at {level:?}"))
    }

    fn read(&mut self, actions: u8) -> Verdict {
        let reader = self.random.index(self.readers.len());
        for _ in 0..actions {
            let start = self.random.number();
            let is_suspect = self.suspicion.is_some();
            let (Some(log), reader) = (&self.log, &mut self.readers[reader]) else { break };
            if !reader.go_on(log, &self.disk, &mut self.oracle, start, is_suspect)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes note of acknowledgements.
    fn observe(&mut self) -> Verdict {
        let Some(log) = &mut self.log else { return Ok(()) };
        let result = log.take_request_result();
        let (durable, written) = (log.durable().lsn.get(), log.written().lsn.get());
        let appended = log.appended().lsn.get();
        let is_poisoned = log.poison().is_some();
        while log.poll_event().is_some() {}
        if self.is_truncating
            && let Some(result) = result
        {
            self.is_truncating = false;
            self.tell(|| format!("truncated {result:?}"));
            // One that ended in poison may be on the disk or not.
            if !matches!(result, Err(RequestError::Poisoned(_))) {
                self.oracle.end_truncation(result.is_ok());
                self.appenders.retain(|(last, _)| *last <= self.oracle.last());
            }
        }
        ensure!(durable <= written, 7, "durable is {durable}, written {written}");
        ensure!(written <= appended, 7, "written is {written}, appended {appended}");
        if is_poisoned {
            self.appenders.clear();
            return Ok(());
        }
        let before = self.oracle.acknowledge(durable)?;
        if durable > before && self.suspicion.is_none() {
            self.look_at_device(before, durable)?;
        }
        self.appenders.retain(|(last, level)| match level {
            Level::Buffered => false,
            Level::Os => *last > written,
            Level::Disk => *last > durable,
        });
        Ok(())
    }

    /// What was acknowledged just now is on the device, under its name.
    fn look_at_device(&self, after: u64, upto: u64) -> Verdict {
        for frame in self.oracle.frames_within(after, upto) {
            let name = FileId::Segment(seawall_core::id::SegmentId::new(frame.segment)).name();
            let is_there = self.disk.holds(name, frame.start, frame.end);
            ensure!(is_there, 1, "{frame:?} was acknowledged and is not on the device");
        }
        Ok(())
    }

    /// The process ends at once, and the machine with it if `power`; then the log is opened again.
    ///
    /// # Errors
    /// What did not hold.
    pub fn fall(&mut self, power: bool, nested: u8) -> Verdict {
        self.observe()?;
        self.tell(|| format!("falls, power {power}, nested {nested}"));
        let log = self.log.take();
        // Commands on their way may have run, or half, or not at all.
        for command in core::mem::take(&mut self.waiting) {
            self.tell(|| format!("on its way: {}", describe(&command)));
            let goes = self.random.below(3);
            if goes > 0 {
                self.note_lie(&command);
            }
            match goes {
                0 => {}
                1 => self.disk.begin(&command),
                _ => drop(self.disk.execute(command, None)),
            }
        }
        self.returned.clear();
        self.appenders.clear();
        self.readers.iter_mut().for_each(Reader::stop);
        self.is_truncating = false;
        let log = log.filter(|log| log.poison().is_none());
        let written = log.map(|log| log.written().lsn.get());
        let is_kept = !power && !self.is_rolled_back && !self.has_dropped;
        let written = written.filter(|_| is_kept);
        (self.is_rolled_back, self.has_dropped) = (false, false);
        if power {
            self.disk.crash(&mut self.random);
        } else {
            self.disk.kill();
        }
        self.reopen(nested, written)
    }

    /// Recovers, with crashes at random operations of the recovery, and checks what is there.
    fn reopen(&mut self, nested: u8, mut written: Option<u64>) -> Verdict {
        let power = written.is_none();
        let mut crashes_left = nested;
        loop {
            self.recoveries += 1;
            let mut left = (crashes_left > 0).then(|| self.random.below(30));
            crashes_left = crashes_left.saturating_sub(1);
            let start = start(&self.config, self.random.number(), self.now);
            let mut disk = core::mem::take(&mut self.disk);
            if self.recoveries.is_multiple_of(8) {
                is_the_same_told(&disk, &self.config)?;
                is_the_same_by_all(&disk, &self.config)?;
            }
            disk.knows = self.recoveries.is_multiple_of(2).then_some(self.config.crc);
            let before = self.suspicion.is_some().then(|| disk.clone());
            let mut has_failed = false;
            let mut verdict = Ok(());
            let opened = recover(&mut disk, start, |disk, command| {
                note(&mut self.hash, command);
                if left == Some(0) {
                    if self.random.chance(1, 2) {
                        self.note_lie(command);
                        disk.begin(command);
                    }
                    return Go::Stop;
                }
                self.note_lie(command);
                left = left.map(|left| left - 1);
                let fault = self.fault(command);
                has_failed |= fault.is_some();
                self.tell(|| format!("recover: {} {fault:?}", describe(command)));
                if let Some(explorer) = self.explorer.as_mut().filter(|_| changes(command)) {
                    let (oracle, config, now) = (&self.oracle, &self.config, self.now);
                    let scene = Scene { disk, oracle, config, now };
                    verdict = explorer.crash(scene).and_then(|()| explorer.during(scene, command));
                }
                if verdict.is_ok() { Go::On(fault) } else { Go::Stop }
            });
            self.disk = disk;
            verdict?;
            let opened = match opened {
                None => {
                    self.tell(|| format!("recovery falls, power {power}"));
                    if let Some(suspicion) = &mut self.suspicion {
                        suspicion.was_cut_short = true;
                    }
                    // A process that was only killed leaves what the kernel has to be written back.
                    if power {
                        self.disk.crash(&mut self.random);
                    }
                    continue;
                }
                Some(Err(_)) if has_failed => {
                    // A sync that failed may have lost what only the kernel had.
                    written = None;
                    self.disk.kill();
                    continue;
                }
                Some(opened) => opened,
            };
            if let Some(before) = before {
                return self.judge_suspect(opened, &before);
            }
            let (log, report) = match opened {
                Ok(opened) => opened,
                Err(error) => return broken(8, format!("the log does not open: {error}")),
            };
            self.tell(|| format!("recovered {report:?}"));
            check(&self.disk, &mut self.oracle, (&log, &report), written)?;
            self.log = Some(log);
            return Ok(());
        }
    }
}

/// Takes a command into a hash, with its bytes.
fn note(hash: &mut Hash, command: &Command<Memory>) {
    hash.number(command.operation() as u64);
    match command.file() {
        None | Some(FileId::Manifest) => hash.number(0),
        Some(FileId::Segment(segment)) => hash.number(segment.get()),
        Some(FileId::Quarantined(quarantined)) => {
            hash.number(quarantined.generation);
            hash.number(quarantined.segment.get());
        }
    }
    match command {
        Command::Write(write) => {
            hash.number(write.offset * 2 + u64::from(write.sync));
            hash.bytes(write.data.as_ref());
        }
        Command::Allocate(allocate) => {
            hash.number(allocate.to);
            hash.number(allocate.file_bytes);
        }
        Command::Truncate(truncate) => hash.number(truncate.bytes),
        Command::Read(read) => {
            hash.number(read.offset);
            hash.number(read.buffer.len() as u64);
        }
        _ => {}
    }
}

/// Whether a write goes behind where a reservation ends its file. Not every host can make a file
/// longer that another write makes longer still; some lose what was written.
fn writes_past(write: &Command<Memory>, reservation: &Command<Memory>) -> bool {
    match (write, reservation) {
        (Command::Write(write), Command::Allocate(allocate)) => {
            let length = allocate.file_bytes;
            write.name.file == allocate.name.file && length > 0 && end_of(write) > length
        }
        _ => false,
    }
}

/// A command in a few words.
fn describe(command: &Command<Memory>) -> String {
    let name = |name: &dyn core::fmt::Display| format!("{} {name}", command.operation());
    match command {
        Command::Write(write) => {
            let bytes = write.data.as_ref().len();
            let (from, sync) = (write.offset, if write.sync { ", synced" } else { "" });
            format!("{} {from}..{}{sync}", name(&write.name), from + bytes as u64)
        }
        Command::Truncate(truncate) => format!("{} to {}", name(&truncate.name), truncate.bytes),
        Command::Read(read) => {
            let (from, bytes) = (read.offset, read.buffer.len());
            format!("{} {from}..{}", name(&read.name), from + bytes as u64)
        }
        Command::Rename(rename) => format!("{} to {}", name(&rename.from), rename.to),
        Command::Create(create) => name(&create.name),
        Command::Remove(remove) => name(&remove.name),
        Command::Sync(sync) => name(&sync.name),
        Command::WriteBack(c) => format!("{} {}..{}", name(&c.name), c.from, c.to),
        Command::Allocate(allocate) => format!("{} to {}", name(&allocate.name), allocate.to),
        Command::SyncDir(_) | Command::List(_) => format!("{}", command.operation()),
    }
}
