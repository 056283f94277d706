//! A log on a simulated disk, and everything that can befall it, decided by a seed.

use crate::disk::{Disk, Fault, Memory};
use crate::oracle::{Content, Oracle};
use crate::random::Random;
use seawall_core::command::{Command, Done};
use seawall_core::compress::Compression;
use seawall_core::config::{Config, FsyncPolicy, Level, RecoveryPolicy, RecoveryScan};
use seawall_core::cursor::{Cursor, Step};
use seawall_core::error::{AppendError, RequestError};
use seawall_core::id::{LogId, Lsn, Time};
use seawall_core::log::{Log, SegmentInfo};
use seawall_core::record::{Entry, Record};
use seawall_core::recover::{Mode, Recovery, RecoveryError, RecoveryStart, Report};
use seawall_core::wire::checksum::ChecksumKind;
use seawall_core::wire::name::FileId;
use std::time::Duration;

/// The world of one seed.
#[derive(Debug)]
pub struct World {
    /// The disk.
    pub disk: Disk,
    /// What the log must hold.
    pub oracle: Oracle,
    /// Where chance comes from.
    pub random: Random,
    /// The log's settings.
    pub config: Config,
    /// The log, while it is open.
    pub log: Option<Log<Memory>>,
    /// What happens to operations; faults are drawn one in so many, 0 for never.
    pub fault_one_in: u64,
    now: u64,
    counter: u64,
    waiting: Vec<Command<Memory>>,
    returned: Vec<Done<Memory>>,
    is_truncating: bool,
    is_rolled_back: bool,
    needs_power_cut: bool,
    /// How many times a log was recovered.
    pub recoveries: u64,
    /// Whether to tell every step, for replaying a seed.
    traces: bool,
}

/// Random, yet small, settings.
fn config_from(random: &mut Random) -> Config {
    let policies =
        [FsyncPolicy::Always, FsyncPolicy::Batch(Duration::from_micros(200)), FsyncPolicy::Os];
    Config {
        segment_bytes_max: 4_096 << random.below(3),
        segment_age_max: random.chance(1, 4).then(|| Duration::from_millis(2)),
        fsync_policy: policies[random.index(policies.len())],
        preallocate: random.chance(1, 2),
        recovery: RecoveryPolicy::PrefixValid,
        scan: if random.chance(1, 4) { RecoveryScan::Full } else { RecoveryScan::Tail },
        compression: Compression::None,
        batch_bytes: 4_096,
        checksum: if random.chance(1, 4) { ChecksumKind::Xxh3 } else { ChecksumKind::Crc32c },
        crc: crc32c::crc32c_append,
        ..Config::default()
    }
    .checked()
    .expect("the settings hold together")
}

/// Buffers for a log of the world.
pub fn buffers() -> Vec<Memory> {
    vec![Vec::new(), Vec::new(), Vec::new()]
}

impl World {
    /// The world of this seed, its log open.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let config = config_from(&mut random);
        let sector_bytes = if random.chance(1, 2) { 512 } else { 4_096 };
        let mut world = Self {
            disk: Disk::with_sectors(sector_bytes),
            oracle: Oracle::default(),
            random,
            config,
            log: None,
            fault_one_in: 0,
            now: 1_000_000,
            counter: 0,
            waiting: Vec::new(),
            returned: Vec::new(),
            is_truncating: false,
            is_rolled_back: false,
            needs_power_cut: false,
            recoveries: 0,
            traces: std::env::var_os("SEAWALL_TRACE").is_some(),
        };
        world.reopen(None);
        world
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.traces {
            eprintln!("{} {}", self.disk.operations, what());
        }
    }

    /// Lives through `steps` random steps.
    pub fn live(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += self.random.below(300);
        let now = Time::from_micros(self.now);
        let Some(log) = &mut self.log else { return self.reopen(None) };
        log.tick(now);
        if log.poison().is_some() || log.is_closed() {
            let power = self.needs_power_cut || self.random.chance(1, 2);
            return self.fall(power);
        }
        match self.random.below(100) {
            0..=39 => self.append(),
            40..=84 => self.run_one(),
            85..=86 => drop(log.flush(Level::Disk)),
            87..=88 => drop(log.rotate()),
            89..=90 => {
                let span = log.appended().lsn.since(log.first_lsn());
                let lsn = log.first_lsn().plus(self.random.below(span + 2));
                if log.delete_before(lsn).is_ok() {
                    self.oracle.delete_before(lsn.get());
                }
            }
            91 => {
                let (first, last) = (log.first_lsn().get(), log.appended().lsn.get());
                let lsn = first - 1 + self.random.below(last + 2 - first);
                if log.truncate_after(Lsn::new(lsn)).is_ok() {
                    self.trace(|| format!("truncate after {lsn}"));
                    self.oracle.begin_truncation(lsn);
                    self.is_truncating = true;
                }
            }
            92 => drop(log.close()),
            93..=97 => {
                self.run_all();
            }
            98 => self.fall(true),
            _ => self.fall(false),
        }
        self.observe();
    }

    fn content(&mut self) -> Content {
        self.counter += 1;
        let length = match self.random.below(20) {
            0 => 0,
            1..=15 => self.random.below(120),
            16..=18 => self.random.below(900),
            _ => self.random.below(3_000),
        };
        let mut content = self.counter.to_le_bytes().to_vec();
        let mut filler = Random::new(self.counter);
        content.extend((0..length).map(|_| (filler.number() & 0xff) as u8));
        content
    }

    fn append(&mut self) {
        let level = [Level::Buffered, Level::Os, Level::Disk][self.random.index(3)];
        let count = if self.random.chance(1, 4) { 1 + self.random.below(8) } else { 1 };
        let contents: Vec<Content> = (0..count).map(|_| self.content()).collect();
        let records: Vec<Record<'_>> = contents
            .iter()
            .map(|content| {
                let (key, value) = content.split_at(8);
                Record::put(key, value)
            })
            .collect();
        let entries: Vec<Entry<'_>> = records.iter().map(Entry::from).collect();
        let Some(log) = &mut self.log else { return };
        let before = log.appended().lsn;
        let result = match entries.as_slice() {
            [entry] if level != Level::Buffered => log.append(entry, level),
            entries => log.append_batch(entries, level),
        };
        match result {
            Ok(appended) => {
                assert_eq!(appended.first, before.next(), "LSNs are dense");
                self.trace(|| format!("append {appended:?} {level:?}"));
                self.oracle.append(appended.first.get(), contents);
            }
            Err(AppendError::Busy) => {
                if !self.run_one_of_log() {
                    self.now += 100;
                }
            }
            Err(_) => {}
        }
    }

    fn fault(&mut self, command: &Command<Memory>) -> Option<Fault> {
        if self.fault_one_in == 0 || !self.random.chance(1, self.fault_one_in) {
            return None;
        }
        let faults = [Fault::Fails, Fault::NoSpace, Fault::NoSpace, Fault::DropsData, Fault::Short];
        let fault = faults[self.random.index(faults.len())];
        Disk::can_befall(command.operation(), fault).then_some(fault)
    }

    /// Polls, runs or completes one thing, in any order. False when there was nothing to do.
    fn run_one_of_log(&mut self) -> bool {
        let Some(log) = &mut self.log else { return false };
        if let Some(command) = log.poll_command() {
            self.waiting.push(command);
        }
        if !self.returned.is_empty() && (self.waiting.is_empty() || self.random.chance(1, 2)) {
            let done = self.returned.swap_remove(self.random.index(self.returned.len()));
            let rolled_back = self.log.as_mut().and_then(|log| log.complete(done));
            if let Some(rolled_back) = rolled_back {
                self.oracle.roll_back(rolled_back.after.get());
                self.is_rolled_back = true;
            }
            return true;
        }
        if self.waiting.is_empty() {
            return false;
        }
        let command = self.waiting.swap_remove(self.random.index(self.waiting.len()));
        let fault = self.fault(&command);
        self.trace(|| format!("run {command:.60?} {fault:?}"));
        if fault == Some(Fault::DropsData) {
            self.needs_power_cut = true;
        }
        let done = self.disk.execute(command, fault);
        self.returned.push(done);
        true
    }

    fn run_one(&mut self) {
        self.run_one_of_log();
    }

    /// Runs until there is nothing left to do.
    pub fn run_all(&mut self) {
        let mut left = 100_000_u32;
        while self.run_one_of_log() {
            left -= 1;
            assert!(left > 0, "invariant 20: the log does not come to rest");
        }
    }

    /// Takes note of acknowledgements.
    fn observe(&mut self) {
        let Some(log) = &mut self.log else { return };
        let result = log.take_request_result();
        if self.is_truncating
            && let Some(result) = result
        {
            self.is_truncating = false;
            if self.traces {
                eprintln!("truncated {result:?}");
            }
            // One that ended in poison may be on the disk or not.
            if !matches!(result, Err(RequestError::Poisoned(_))) {
                self.oracle.end_truncation(result.is_ok());
            }
        }
        if log.poison().is_none() {
            self.oracle.acknowledge(log.durable().lsn.get());
        }
        assert!(log.durable().lsn <= log.written().lsn, "durable is not past written");
        assert!(log.written().lsn <= log.appended().lsn, "written is not past appended");
        while log.poll_event().is_some() {}
    }

    /// The process ends at once, and the machine with it if `power`; then the log is opened again.
    pub fn fall(&mut self, power: bool) {
        self.observe();
        self.trace(|| format!("fall, power {power}"));
        let log = self.log.take();
        // Commands on their way may or may not have run.
        for command in std::mem::take(&mut self.waiting) {
            if self.random.chance(1, 2) {
                drop(self.disk.execute(command, None));
            }
        }
        self.returned.clear();
        self.is_truncating = false;
        self.needs_power_cut = false;
        let written = log.filter(|log| log.poison().is_none()).map(|log| log.written().lsn.get());
        if power {
            self.disk.crash(&mut self.random);
        }
        let written = if power || self.is_rolled_back { None } else { written };
        self.is_rolled_back = false;
        self.reopen(written);
    }

    fn start(&mut self) -> RecoveryStart<Memory> {
        RecoveryStart {
            config: self.config.clone(),
            new_log_id: LogId([7; 16]),
            seed: self.random.number(),
            now: Time::from_micros(self.now),
            buffers: buffers(),
        }
    }

    /// Recovers, with crashes at random operations of the recovery, and checks what is there.
    fn reopen(&mut self, written: Option<u64>) {
        let mut crashes_left = self.random.below(4);
        loop {
            self.recoveries += 1;
            let crash_at = (crashes_left > 0).then(|| self.random.below(30));
            crashes_left = crashes_left.saturating_sub(1);
            let start = self.start();
            let mut recovery = Recovery::new(start, Mode::Open);
            let mut operations = 0;
            let mut fell = false;
            while let Some(command) = recovery.poll_command() {
                if crash_at == Some(operations) {
                    if self.random.chance(1, 2) {
                        drop(self.disk.execute(command, None));
                    }
                    fell = true;
                    break;
                }
                operations += 1;
                recovery.complete(self.disk.execute(command, None));
            }
            if fell {
                // A process that was only killed leaves what the kernel has to be written back.
                if written.is_none() {
                    self.disk.crash(&mut self.random);
                }
                continue;
            }
            let (log, report) = match recovery.finish() {
                Ok(recovered) => recovered,
                Err(error) => panic!("invariant 8: the log does not open: {error}"),
            };
            assert!(!report.is_damaged(), "invariant 10: no damage was done: {report:?}");
            self.trace(|| format!("recovered {report:?}"));
            self.check(&log, &report, written);
            self.log = Some(log);
            return;
        }
    }

    fn check(&mut self, log: &Log<Memory>, report: &Report, written: Option<u64>) {
        let segments: Vec<SegmentInfo> = log.segments().collect();
        let records = read_all(&self.disk, &segments, log.durable().end.offset);
        assert_eq!(records.len() as u64, report.records, "the report counts records: {report:?}");
        let last = records.last().map_or(log.first_lsn().previous().get(), |(lsn, _)| *lsn);
        assert_eq!(last, log.appended().lsn.get(), "the log ends with its last record");
        self.oracle.check(log.first_lsn().get(), &records, written);
    }

    /// Opens the log once more without changing anything about the world.
    ///
    /// # Errors
    /// Why the log cannot be opened.
    pub fn inspect(&mut self, mode: Mode) -> Result<Report, RecoveryError> {
        let mut recovery = Recovery::new(self.start(), mode);
        while let Some(command) = recovery.poll_command() {
            recovery.complete(self.disk.execute(command, None));
        }
        match mode {
            Mode::Open => recovery.finish().map(|(_, report)| report),
            Mode::Inspect => recovery.finish_inspection().map(|(_, report)| report),
        }
    }
}

/// Every record of these segments, read as a reader reads them.
///
/// # Panics
/// When a record cannot be read.
pub fn read_all(disk: &Disk, segments: &[SegmentInfo], active_end: u64) -> Vec<(u64, Content)> {
    let mut records = Vec::new();
    for segment in segments {
        let limit = segment.end.map_or(active_end, |end| end.frames_end);
        let mut cursor: Cursor<Vec<u8>> =
            Cursor::new(*segment, crc32c::crc32c_append, 1_024, 1 << 20);
        loop {
            match cursor.step(limit) {
                Step::Record(record, _) => {
                    let mut content = record.key.to_vec();
                    content.extend_from_slice(record.stored);
                    records.push((record.lsn.get(), content));
                }
                Step::Read { offset, bytes } => {
                    let name = FileId::Segment(segment.segment).name();
                    let file = disk.content(name).expect("a live segment's file is there");
                    let start = usize::try_from(offset).expect("small").min(file.len());
                    let end = (start + usize::try_from(bytes).expect("small")).min(file.len());
                    let is_short = (end - start) as u64 != bytes;
                    cursor.fill(offset, file[start..end].to_vec(), is_short);
                }
                Step::End => break,
                other => panic!("invariant 1: a record cannot be read: {other:?}"),
            }
        }
    }
    records
}
