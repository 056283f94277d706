//! Doing the work of a row with a log, and the clocks for it.

use crate::contestant::{Contestant, Log, Outcome, Setup};
use crate::machine;
use crate::row::{DELETED_SEGMENT_BYTES, Left, SEALED_SEGMENT_BYTES, Work};
use rustix::time::{ClockId, clock_gettime};
use seawall::Level;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

/// How much is done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Scale {
    /// How long each measurement takes that has no end of its own.
    pub(crate) seconds: f64,
    /// How much a log holds that is opened after a crash.
    pub(crate) crashed_bytes: u64,
    /// How much a log holds that is read.
    pub(crate) read_bytes: u64,
    /// At most so much is appended in one measurement.
    pub(crate) append_bytes: u64,
}

/// What a log holds that was hardly begun.
const LITTLE_BYTES: u64 = 1 << 20;

impl Scale {
    /// Of how many records the log consists that a row reads.
    pub(crate) fn prepared_records(&self, work: Work) -> u64 {
        let bytes = match work {
            Work::OpenCrashed(Left::Little) => LITTLE_BYTES.min(self.crashed_bytes),
            Work::OpenCrashed(_) => self.crashed_bytes,
            Work::OpenSealed { segments } => segments * SEALED_SEGMENT_BYTES,
            _ => self.read_bytes,
        };
        bytes / work.record_bytes() as u64
    }
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// How many records were appended or read, or logs opened.
    pub(crate) count: u64,
    /// How many bytes they held.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Of the process, in the kernel and out of it.
    pub(crate) cpu_seconds: f64,
    /// The median, and what 99 and 99.9 of a hundred do not exceed.
    pub(crate) latency_micros: Option<[f64; 3]>,
    pub(crate) syncs: Option<u64>,
    /// The most memory it took on top of what the process had.
    pub(crate) memory_bytes: Option<u64>,
    /// How many bytes the log made of them.
    pub(crate) stored_bytes: Option<u64>,
    /// Whether the disk was slow before or after.
    #[serde(default)]
    pub(crate) is_disturbed: bool,
    /// How many records were appended, where not all are counted.
    #[serde(default)]
    pub(crate) appended: Option<u64>,
    /// How many records were there when they were read back.
    pub(crate) read_back: Option<u64>,
}

impl Measured {
    pub(crate) fn set_latency(&mut self, mut times: Vec<Duration>) {
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        let of = |thousandths: usize| {
            let at = (times.len() * thousandths / 1_000).min(last);
            times.get(at).map_or(0.0, |time| time.as_nanos() as f64 / 1e3)
        };
        self.latency_micros = Some([of(500), of(990), of(999)]);
    }
}

/// Measures from its making to `stop`.
pub(crate) struct Clock {
    start: Instant,
    cpu: f64,
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
        .as_secs_f64()
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { cpu: cpu_seconds(), start: Instant::now() }
    }

    pub(crate) fn stop(&self, count: u64, bytes: u64) -> Measured {
        let seconds = self.start.elapsed().as_secs_f64();
        let cpu_seconds = cpu_seconds() - self.cpu;
        Measured { count, bytes, seconds, cpu_seconds, ..Measured::default() }
    }
}

/// Ends a loop after a time or after so many bytes; the clock is looked at now and then.
pub(crate) struct Budget {
    end: Instant,
    done: usize,
    record_bytes: usize,
    bytes_max: u64,
    look: usize,
}

impl Budget {
    pub(crate) fn new(scale: &Scale, record_bytes: usize) -> Self {
        // About every 16 KiB: for bare copies, looking at the clock each time would be the work.
        let look = ((16 << 10) / record_bytes).max(1);
        let end = Instant::now() + Duration::from_secs_f64(scale.seconds);
        Self { end, done: 0, record_bytes, bytes_max: scale.append_bytes, look }
    }

    /// Whether to do one more; counts it.
    pub(crate) fn goes_on(&mut self) -> bool {
        let is_over = self.done > 0
            && self.done.is_multiple_of(self.look)
            && (self.bytes() >= self.bytes_max || Instant::now() >= self.end);
        if !is_over {
            self.done += 1;
        }
        !is_over
    }

    pub(crate) fn done(&self) -> usize {
        self.done
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.done * self.record_bytes) as u64
    }
}

/// Numbers below `count` in an order that a read-ahead cannot guess, the same in each run.
pub(crate) fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % count.max(1)
    })
}

/// How many different records there are. Each begins with its number.
const POOL: u8 = 64;

/// The records that a row appends in turn.
pub(crate) fn records(work: Work) -> Vec<Vec<u8>> {
    let is_text = matches!(work, Work::AppendText { .. });
    let mut random = shuffled(u64::MAX);
    let make = |number: u8| {
        let mut record = vec![number];
        while record.len() < work.record_bytes() {
            let random = random.next().unwrap_or(0);
            if is_text {
                record.extend_from_slice(text(random).as_bytes());
            } else {
                record.extend_from_slice(&random.to_le_bytes());
            }
        }
        record.truncate(work.record_bytes());
        record
    };
    (0..POOL).map(make).collect()
}

/// A line as services log them.
fn text(random: u64) -> String {
    const PATHS: [&str; 4] = ["/login", "/products/search", "/cart/items", "/api/v1/orders"];
    let path = PATHS[usize::try_from(random % 4).unwrap_or(0)];
    format!(
        "{{\"time\":\"2025-06-{:02}T{:02}:{:02}:{:02}Z\",\"level\":\"info\",\"method\":\"GET\",\
         \"path\":\"{path}\",\"status\":200,\"user\":{},\"micros\":{}}}\n",
        1 + random / 4 % 28,
        random / 128 % 24,
        random / 4096 % 60,
        random / (1 << 18) % 60,
        random / (1 << 24) % 100_000,
        random / (1 << 42) % 50_000,
    )
}

/// Writes the log that a row reads, and returns how many records it has.
pub(crate) fn prepare(
    contestant: &dyn Contestant,
    work: Work,
    dir: &Path,
    scale: &Scale,
) -> Outcome<u64> {
    /// Where a row is about a log that was written in batches.
    const BATCH: usize = 500;
    let log = contestant.open(dir, &work.setup(false, scale))?;
    let records = records(work);
    let count = scale.prepared_records(work);
    let many = if work == Work::OpenCrashed(Left::Batches) { BATCH } else { 1 };
    let batch = batch_of(&records, many);
    let mut left = usize::try_from(count)?;
    while left > 0 {
        match &batch[..many.min(left)] {
            [_] => log.append(0, &records[left % records.len()], Level::Os)?,
            batch => log.append_batch(0, batch, Level::Os)?,
        }
        left -= many.min(left);
    }
    if matches!(work, Work::OpenCrashed(_)) {
        // The process ends with the log as it is.
        std::mem::forget(log);
    } else {
        log.close()?;
    }
    Ok(count)
}

/// Does a row's work with a log.
pub(crate) fn measure(
    contestant: &dyn Contestant,
    work: Work,
    dir: &Path,
    scale: &Scale,
    verifies: bool,
) -> Outcome<Measured> {
    // Whoever has to be compiled first is so from now on: no row measures that.
    for ability in work.needs() {
        contestant.can(ability)?;
    }
    let setup = work.setup(verifies, scale);
    match work {
        Work::Append { .. } | Work::AppendText { .. } => {
            appended(contestant, work, dir, &setup, |log| append(log, work, scale))
        }
        Work::Batch { records, .. } => {
            appended(contestant, work, dir, &setup, |log| append_batches(log, work, records, scale))
        }
        Work::Deleting { records, .. } => {
            appended(contestant, work, dir, &setup, |log| append_batches(log, work, records, scale))
        }
        Work::Behind { .. } => appended(contestant, work, dir, &setup, |log| {
            append_behind(work, scale, |record, level| log.append(0, record, level))
        }),
        Work::Threads { count, .. } => appended(contestant, work, dir, &setup, |log| {
            append_from_threads(log, work, count, scale)
        }),
        Work::AppendTask { .. } => {
            appended(contestant, work, dir, &setup, |log| append_from_one_task(log, work, scale))
        }
        Work::Tasks { count, .. } => appended(contestant, work, dir, &setup, |log| {
            append_from_tasks(log, work, count, scale)
        }),
        Work::OpenCrashed(_) => open_crashed(contestant, work, dir, &setup, scale),
        Work::OpenSealed { .. } => open_sealed(contestant, work, dir, &setup, scale),
        Work::ReadAll => read_all(contestant, work, dir, &setup, scale),
        Work::Seek { .. } => seek(contestant, work, dir, &setup, scale),
    }
}

/// Appends so many records as durably as the log can, for who counts its system calls.
pub(crate) fn watch(
    contestant: &dyn Contestant,
    work: Work,
    dir: &Path,
    scale: &Scale,
    count: u64,
) -> Outcome<Measured> {
    let log: Arc<dyn Log> = Arc::from(contestant.open(dir, &work.setup(false, scale))?);
    warm_up(&*log, work)?;
    let records = records(work);
    let writers = work.setup(false, scale).writers;
    let each = usize::try_from(count)? / writers;
    let clock = Clock::start();
    let run = |writer: usize| {
        let record = &records[writer % records.len()];
        (0..each).try_for_each(|_| log.append(writer, record, Level::Disk))
    };
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..writers).map(|writer| scope.spawn(move || run(writer))).collect();
        for thread in threads {
            thread.join().map_err(|_| "a writer panicked")??;
        }
        Outcome::Ok(())
    })?;
    let done = (each * writers) as u64;
    Ok(clock.stop(done, done * work.record_bytes() as u64))
}

/// Opens a log, runs what appends to it, and reads it back if asked.
fn appended(
    contestant: &dyn Contestant,
    work: Work,
    dir: &Path,
    setup: &Setup,
    run: impl FnOnce(&Arc<dyn Log>) -> Outcome<Measured>,
) -> Outcome<Measured> {
    let log: Arc<dyn Log> = Arc::from(contestant.open(dir, setup)?);
    warm_up(&*log, work)?;
    let syncs = log.syncs();
    let stored = log.stored_bytes();
    let mut measured = run(&log)?;
    if work.level() == Level::Disk {
        measured.syncs = log.syncs().zip(syncs).map(|(now, before)| now - before);
    }
    measured.stored_bytes = log.stored_bytes().zip(stored).map(|(now, before)| now - before);
    if setup.reads {
        let expected = measured.appended.unwrap_or(measured.count) + WARM_UP as u64;
        measured.read_back = Some(read_back(contestant, work, dir, setup, log, expected)?);
    }
    Ok(measured)
}

/// Appends before the clock starts: the first ones open, make and map.
const WARM_UP: usize = 64;

fn warm_up(log: &dyn Log, work: Work) -> Outcome<()> {
    let records = records(work);
    (0..WARM_UP).try_for_each(|at| log.append(0, &records[at % records.len()], work.level()))?;
    if let Work::Deleting { records: count, .. } = work {
        // Until segments have been deleted, and their files come again where a log does that.
        let batch = batch_of(&records, count);
        let mut deletion = Deletion::new(work, count);
        for _ in 0..deletion.every * DELETED_SEGMENTS_BEFORE {
            log.append_batch(0, &batch, work.level())?;
            deletion.after_batch(log)?;
        }
    }
    log.flush()
}

/// Counts the records of a log, each as one of those appended, after opening it anew where the log
/// can.
fn read_back(
    contestant: &dyn Contestant,
    work: Work,
    dir: &Path,
    setup: &Setup,
    log: Arc<dyn Log>,
    expected: u64,
) -> Outcome<u64> {
    use crate::contestant::Ability;
    let pool = records(work);
    let mut strange = 0_u64;
    let mut see = |first: &[u8], rest: &[u8]| {
        let number = first.first().or(rest.first()).copied().unwrap_or(u8::MAX);
        let is_known = pool.get(usize::from(number)).is_some_and(|record| {
            record.len() == first.len() + rest.len()
                && record.starts_with(first)
                && record.ends_with(rest)
        });
        strange += u64::from(!is_known);
    };
    let found = if contestant.can(Ability::Reopen).is_ok() {
        drop(log);
        contestant.open(dir, setup)?.read_all(&mut see)?
    } else {
        log.read_all(&mut see)?
    };
    // Of what was deleted, as much is left as the log sees fit.
    if strange > 0 || (found != expected && !setup.deletes) {
        return Err(format!(
            "{expected} records were appended, {found} were read back, {strange} of them changed"
        )
        .into());
    }
    Ok(found)
}

fn append(log: &Arc<dyn Log>, work: Work, scale: &Scale) -> Outcome<Measured> {
    let records = records(work);
    let clock = Clock::start();
    let mut budget = Budget::new(scale, work.record_bytes());
    while budget.goes_on() {
        log.append(0, &records[budget.done() % records.len()], work.level())?;
    }
    log.flush()?;
    Ok(clock.stop(budget.done() as u64, budget.bytes()))
}

/// So many records for one append.
fn batch_of(records: &[Vec<u8>], count: usize) -> Vec<&[u8]> {
    records.iter().map(Vec::as_slice).cycle().take(count).collect()
}

/// So many segments are filled and deleted before the clock starts.
const DELETED_SEGMENTS_BEFORE: usize = 6;

/// When old segments are deleted.
struct Deletion {
    /// After so many batches; 0: never.
    every: usize,
    left: usize,
}

impl Deletion {
    fn new(work: Work, records: usize) -> Self {
        let batch_bytes = (records * work.record_bytes()) as u64;
        let every = match work {
            Work::Deleting { .. } => DELETED_SEGMENT_BYTES / batch_bytes,
            _ => 0,
        };
        let every = usize::try_from(every).unwrap_or(usize::MAX);
        Self { every, left: every }
    }

    fn after_batch(&mut self, log: &dyn Log) -> Outcome<()> {
        if self.every == 0 {
            return Ok(());
        }
        self.left -= 1;
        if self.left == 0 {
            self.left = self.every;
            log.delete_old()?;
        }
        Ok(())
    }
}

fn append_batches(
    log: &Arc<dyn Log>,
    work: Work,
    count: usize,
    scale: &Scale,
) -> Outcome<Measured> {
    let records = records(work);
    let batch = batch_of(&records, count);
    let mut times = Vec::new();
    let mut deletion = Deletion::new(work, count);
    let clock = Clock::start();
    let mut budget = Budget::new(scale, count * work.record_bytes());
    let start = Instant::now();
    let mut before = Duration::ZERO;
    while budget.goes_on() {
        log.append_batch(0, &batch, work.level())?;
        deletion.after_batch(&**log)?;
        let now = start.elapsed();
        times.push(now.saturating_sub(before));
        before = now;
    }
    log.flush()?;
    let mut measured = clock.stop((budget.done() * count) as u64, budget.bytes());
    measured.set_latency(times);
    Ok(measured)
}

/// So many bytes are appended to the kernel before each durable append,
const BEHIND_BYTES: usize = 10_000_000;
/// in so much time,
const BEHIND_TIME: Duration = Duration::from_millis(100);
/// so many bytes at a time.
const BEHIND_PIECE_BYTES: usize = 64 << 10;

/// Times the durable appends alone.
pub(crate) fn append_behind(
    work: Work,
    scale: &Scale,
    append: impl Fn(&[u8], Level) -> Outcome<()>,
) -> Outcome<Measured> {
    let (records, bytes) = (records(work), work.record_bytes());
    let (each, piece) = (BEHIND_BYTES / bytes, BEHIND_PIECE_BYTES / bytes);
    let mut times = Vec::new();
    let clock = Clock::start();
    let start = Instant::now();
    while times.is_empty() || start.elapsed().as_secs_f64() < scale.seconds {
        let begun = Instant::now();
        for at in 0..each {
            if at % piece == 0 {
                let due = BEHIND_TIME.mul_f64(at as f64 / each as f64);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            append(&records[at % records.len()], Level::Os)?;
        }
        let asked = Instant::now();
        append(&records[0], Level::Disk)?;
        times.push(asked.elapsed());
    }
    let count = times.len() as u64;
    let mut measured = clock.stop(count, count * bytes as u64);
    measured.seconds = times.iter().sum::<Duration>().as_secs_f64();
    measured.appended = Some(count * (each as u64 + 1));
    measured.set_latency(times);
    Ok(measured)
}

fn append_from_threads(
    log: &Arc<dyn Log>,
    work: Work,
    count: usize,
    scale: &Scale,
) -> Outcome<Measured> {
    let records = records(work);
    let barrier = Barrier::new(count);
    let clock = OnceLock::new();
    let length = Duration::from_secs_f64(scale.seconds);
    let run = |writer: usize| -> Outcome<Vec<Duration>> {
        let record = &records[writer % records.len()];
        let mut times = Vec::with_capacity(4096);
        barrier.wait();
        // The first to go on starts it; others may have to wait for a core.
        clock.get_or_init(Clock::start);
        let start = Instant::now();
        let mut before = Duration::ZERO;
        while before < length {
            log.append(writer, record, Level::Disk)?;
            let now = start.elapsed();
            times.push(now.saturating_sub(before));
            before = now;
        }
        Ok(times)
    };
    let times = std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..count).map(|at| scope.spawn(move || run(at))).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| "a writer panicked")??);
        }
        Outcome::Ok(all)
    })?;
    let clock = clock.into_inner().ok_or("nobody wrote")?;
    let appended = times.len() as u64;
    let mut measured = clock.stop(appended, appended * work.record_bytes() as u64);
    measured.set_latency(times);
    Ok(measured)
}

fn append_from_tasks(
    log: &Arc<dyn Log>,
    work: Work,
    count: usize,
    scale: &Scale,
) -> Outcome<Measured> {
    // A log that blocks has a thread for each append under way; the runtime's default is no more
    // than 512.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().max_blocking_threads(count.max(512)).build()?;
    let length = Duration::from_secs_f64(scale.seconds);
    let records: Arc<[Vec<u8>]> = records(work).into();
    let clock = Clock::start();
    let start = Instant::now();
    let times = runtime.block_on(async {
        let tasks: Vec<_> = (0..count)
            .map(|writer| {
                let (log, records) = (log.clone(), records.clone());
                tokio::spawn(async move {
                    let mut times = Vec::with_capacity(1024);
                    let mut before = start.elapsed();
                    while before < length {
                        append_from_task(&log, writer, &records, Level::Disk).await?;
                        let now = start.elapsed();
                        times.push(now.saturating_sub(before));
                        before = now;
                    }
                    Outcome::Ok(times)
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await??);
        }
        Outcome::Ok(all)
    })?;
    let appended = times.len() as u64;
    let mut measured = clock.stop(appended, appended * work.record_bytes() as u64);
    measured.set_latency(times);
    Ok(measured)
}

fn append_from_one_task(log: &Arc<dyn Log>, work: Work, scale: &Scale) -> Outcome<Measured> {
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let records: Arc<[Vec<u8>]> = records(work).into();
    let (log, scale) = (log.clone(), *scale);
    let task = runtime.spawn(async move {
        let clock = Clock::start();
        let mut budget = Budget::new(&scale, work.record_bytes());
        while budget.goes_on() {
            append_from_task(&log, budget.done(), &records, work.level()).await?;
        }
        Outcome::Ok(clock.stop(budget.done() as u64, budget.bytes()))
    });
    runtime.block_on(task)?
}

/// One append: as a future if the log has one; else by a call, on a blocking thread if it waits for
/// the device. What goes to the page cache takes less than to hand it to another thread.
async fn append_from_task(
    log: &Arc<dyn Log>,
    writer: usize,
    records: &Arc<[Vec<u8>]>,
    level: Level,
) -> Outcome<()> {
    let at = writer % records.len();
    if let Some(appending) = log.append_task(&records[at], level) {
        return appending.await;
    }
    if level != Level::Disk {
        return log.append(writer, &records[at], level);
    }
    let (log, records) = (log.clone(), records.clone());
    let work = move || log.append(writer, &records[at], level);
    tokio::task::spawn_blocking(work).await?
}

fn expect(found: u64, scale: &Scale, work: Work) -> Outcome<u64> {
    let expected = scale.prepared_records(work);
    if found != expected {
        return Err(format!("{expected} records were appended, {found} are there").into());
    }
    Ok(found)
}

fn open_crashed(
    contestant: &dyn Contestant,
    work: Work,
    dir: &Path,
    setup: &Setup,
    scale: &Scale,
) -> Outcome<Measured> {
    machine::reset_peak();
    let before = machine::memory_bytes("VmRSS");
    let clock = Clock::start();
    let mut log = contestant.open(dir, setup)?;
    let mut measured = clock.stop(1, 0);
    let peak = machine::memory_bytes("VmHWM");
    measured.memory_bytes = peak.zip(before).map(|(peak, before)| peak.saturating_sub(before));
    measured.read_back = Some(expect(log.index()?, scale, work)?);
    // The next round finds it as this one did.
    std::mem::forget(log);
    Ok(measured)
}

fn open_sealed(
    contestant: &dyn Contestant,
    work: Work,
    dir: &Path,
    setup: &Setup,
    scale: &Scale,
) -> Outcome<Measured> {
    let end = Instant::now() + Duration::from_secs_f64(scale.seconds);
    let mut times = Vec::new();
    let mut measured = Measured::default();
    while times.is_empty() || Instant::now() < end {
        let clock = Clock::start();
        let mut log = contestant.open(dir, setup)?;
        measured = clock.stop(1, 0);
        times.push(Duration::from_secs_f64(measured.seconds));
        if times.len() == 1 {
            measured.read_back = Some(expect(log.index()?, scale, work)?);
        }
        log.close()?;
    }
    times.sort_unstable();
    measured.seconds = times[times.len() / 2].as_secs_f64();
    measured.read_back = Some(scale.prepared_records(work));
    Ok(measured)
}

fn read_all(
    contestant: &dyn Contestant,
    work: Work,
    dir: &Path,
    setup: &Setup,
    scale: &Scale,
) -> Outcome<Measured> {
    let log = contestant.open(dir, setup)?;
    let mut bytes = 0;
    let clock = Clock::start();
    let found = log.read_all(&mut |first, rest| {
        bytes += (black_box(first).len() + black_box(rest).len()) as u64;
    })?;
    let mut measured = clock.stop(found, bytes);
    measured.read_back = Some(expect(found, scale, work)?);
    log.close()?;
    Ok(measured)
}

fn seek(
    contestant: &dyn Contestant,
    work: Work,
    dir: &Path,
    setup: &Setup,
    scale: &Scale,
) -> Outcome<Measured> {
    let mut log = contestant.open(dir, setup)?;
    let count = expect(log.index()?, scale, work)?;
    let mut numbers = shuffled(count);
    let clock = Clock::start();
    let mut budget = Budget::new(scale, work.record_bytes());
    // A seek may take long: the clock is looked at each time.
    budget.look_each_time();
    while budget.goes_on() {
        let length = log.seek(numbers.next().unwrap_or(0))?;
        if length != work.record_bytes() {
            return Err(format!("a record of {length} bytes was read").into());
        }
    }
    let mut measured = clock.stop(budget.done() as u64, budget.bytes());
    measured.read_back = Some(count);
    log.close()?;
    Ok(measured)
}

impl Budget {
    fn look_each_time(&mut self) {
        self.look = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Pack;

    #[test]
    fn latencies_are_of_the_sorted_times() {
        let mut measured = Measured::default();
        measured.set_latency((1..=1000).rev().map(Duration::from_micros).collect());
        assert_eq!(measured.latency_micros, Some([501.0, 991.0, 1000.0]));
        measured.set_latency(Vec::new());
        assert_eq!(measured.latency_micros, Some([0.0; 3]));
    }

    #[test]
    fn records_are_as_long_as_asked_and_say_their_number() {
        for work in [Work::ReadAll, Work::AppendText { bytes: 4096, pack: Pack::Plain }] {
            for (number, record) in records(work).iter().enumerate() {
                assert_eq!(record.len(), work.record_bytes());
                assert_eq!(usize::from(record[0]), number);
            }
        }
    }

    #[test]
    fn a_budget_ends_by_bytes() {
        let scale =
            Scale { seconds: 60.0, crashed_bytes: 0, read_bytes: 0, append_bytes: 64 << 10 };
        let mut budget = Budget::new(&scale, 1 << 10);
        while budget.goes_on() {}
        assert_eq!(budget.bytes(), 64 << 10);
    }
}
