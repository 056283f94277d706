//! The thread that owns the component: it takes calls in order, appends what waits as one, keeps
//! the clock, and starts over after a trap.

use crate::batch::{Groups, Page};
use crate::error::Error;
use crate::lock::Lock;
use crate::patience::Patience;
use crate::program::Program;
use crate::sandbox::{Called, Sandbox};
use crate::types;
use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use wasmtime::component::ResourceAny;

/// What the thread is asked.
pub(crate) enum Job {
    Append(Append),
    Watch(Watch),
    Call(Box<dyn FnOnce(&mut Worker) + Send>),
    Stop,
}

/// An append that waits for its turn.
pub(crate) struct Append {
    pub(crate) groups: Groups,
    pub(crate) level: types::Level,
    pub(crate) reply: oneshot::Sender<Answered>,
}

/// An append's answer, and its records, to be freed by the thread that took memory for them: where
/// this one frees what the other takes, both wait for the allocator, asleep, and each call anew.
pub(crate) struct Answered {
    pub(crate) result: Result<types::Appended, Error>,
    pub(crate) groups: Groups,
}

impl Append {
    fn answer(self, result: Result<types::Appended, Error>) {
        let Self { groups, reply, .. } = self;
        reply.send(Answered { result, groups }).ok();
    }
}

/// Somebody who waits for records.
pub(crate) struct Watch {
    pub(crate) interest: types::Interest,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
    /// In the store that there is now.
    pub(crate) subscription: Option<ResourceAny>,
    /// A trap may have cost the records that it waits for, and others come in their place: why.
    pub(crate) lost: Option<Arc<str>>,
}

impl Watch {
    pub(crate) const fn new(
        interest: types::Interest,
        reply: oneshot::Sender<Result<(), Error>>,
    ) -> Self {
        Self { interest, reply, subscription: None, lost: None }
    }

    /// The last record that there was, as far as it goes by what it waits for.
    fn last(&self) -> u64 {
        match self.interest {
            types::Interest::Durable(lsn) | types::Interest::RecordsAfter(lsn) => lsn,
        }
    }
}

/// A cursor outlives a trap: it goes on from its next record. What the log was cut to meanwhile the
/// store does not know any more, so that it is kept here.
struct Reading {
    cursor: Option<ResourceAny>,
    next: u64,
    visibility: types::Visibility,
    /// Records that it had shown are gone, and it has yet to say so: the last that was left.
    truncated: Option<u64>,
}

/// The component trapped, and the log was recovered in a new store.
#[derive(Clone, Debug)]
pub struct Restart {
    /// Why it trapped.
    pub cause: Arc<str>,
    /// What recovery found.
    pub recovery: types::Recovery,
}

struct Open {
    sandbox: Sandbox,
    log: ResourceAny,
}

pub(crate) struct Worker {
    program: Program,
    config: types::Config,
    lock: Lock,
    open: Option<Open>,
    /// Why there is none.
    cause: Arc<str>,
    /// What every call says once a trap has cost the store: a log that was closed or poisoned is
    /// not opened again.
    ended: Option<Error>,
    log_id: Option<(u64, u64)>,
    opened: u64,
    /// When the log is to be told the time, at the latest.
    due: Option<Instant>,
    restarts: Vec<Restart>,
    readings: HashMap<u64, Reading>,
    readings_begun: u64,
    watches: Vec<Watch>,
}

/// So much is gathered for one sync at most: what comes meanwhile goes with the next.
const GATHERED_BYTES_MAX: usize = 8 << 20;
const GATHERED_MAX: usize = 4_096;
/// What is gathered takes several times its size in the component, as a list, as records, and as
/// frames, and nobody's append is to fail for the size of others.
const GATHERED_PART_OF_MEMORY: usize = 16;
/// So does a page.
const PAGE_PART_OF_MEMORY: usize = 8;

/// This many restarts are remembered until somebody takes them.
const RESTARTS_KEPT: usize = 64;

fn rank(level: types::Level) -> u8 {
    match level {
        types::Level::Buffered => 0,
        types::Level::Os => 1,
        types::Level::Disk => 2,
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a function of the host panicked: {}", text.unwrap_or_default())
}

impl Worker {
    /// Takes the lock, starts the component and opens the log.
    pub(crate) fn open(
        program: Program,
        path: &Path,
        config: types::Config,
    ) -> Result<(Self, types::Recovery), Error> {
        let lock = Lock::take(path)?;
        let mut worker = Self {
            program,
            config,
            lock,
            open: None,
            cause: "".into(),
            ended: None,
            log_id: None,
            opened: 0,
            due: None,
            restarts: Vec::new(),
            readings: HashMap::new(),
            readings_begun: 0,
            watches: Vec::new(),
        };
        let recovery = worker.start()?;
        Ok((worker, recovery))
    }

    fn start(&mut self) -> Result<types::Recovery, Error> {
        let config = self.config_now();
        let started = catch_unwind(AssertUnwindSafe(|| {
            let Program { instance, limits, .. } = &self.program;
            let mut sandbox = Sandbox::new(instance, *limits)?;
            let opened = sandbox.open(self.lock.folder()?, &config)?;
            Ok::<_, wasmtime::Error>((sandbox, opened))
        }));
        let (sandbox, opened) = match started {
            Ok(Ok(started)) => started,
            Ok(Err(trap)) => return Err(Error::Down(format!("{trap:#}").into())),
            Err(panic) => return Err(Error::Down(message(&*panic).into())),
        };
        let (log, recovery) = opened?;
        self.lock.lock_manifest()?;
        if self.log_id.is_some_and(|id| id != recovery.log_id || recovery.is_new) {
            // Somebody has taken the files away. What is there now nobody here has asked for.
            let why = "the folder holds another log than before";
            self.ended = Some(Error::Down(why.into()));
            return Err(Error::Down(why.into()));
        }
        self.log_id = Some(recovery.log_id);
        self.open = Some(Open { sandbox, log });
        self.opened += 1;
        self.due = Some(Instant::now());
        Ok(recovery)
    }

    /// The settings for the next opening. The thread holds the lock of the operating system, so an
    /// owner that the folder names is an earlier store of its own; and salts must not come again.
    fn config_now(&self) -> types::Config {
        let mut config = self.config.clone();
        if self.opened > 0 {
            if let types::Exclusion::Owner(owner) = config.exclusion {
                config.exclusion = types::Exclusion::TakeOver(owner);
            }
            if let Some(injected) = &mut config.injected {
                // The golden ratio: seeds that callers count up stay apart.
                let step = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(self.opened);
                injected.seed = injected.seed.wrapping_add(step);
            }
        }
        config
    }

    /// The store is lost, and all that was in it.
    fn fall(&mut self, cause: Arc<str>) {
        self.open = None;
        for reading in self.readings.values_mut() {
            reading.cursor = None;
        }
        for watch in &mut self.watches {
            watch.subscription = None;
        }
        self.cause = cause;
        // Where this fails, the next call tries again and tells.
        self.ensure_open().ok();
    }

    fn ensure_open(&mut self) -> Result<(), Error> {
        if self.open.is_some() {
            return Ok(());
        }
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        let recovery = match self.start() {
            Err(Error::Log(error)) => {
                return Err(Error::Down(Error::Log(error).to_string().into()));
            }
            started => started?,
        };
        self.cut_readings(recovery.last);
        for watch in &mut self.watches {
            if watch.last() > recovery.last {
                watch.lost = Some(self.cause.clone());
            }
        }
        if self.restarts.len() == RESTARTS_KEPT {
            self.restarts.remove(0);
        }
        self.restarts.push(Restart { cause: self.cause.clone(), recovery });
        Ok(())
    }

    /// The log ends with record `last`: cursors that have shown more are to say so.
    fn cut_readings(&mut self, last: u64) {
        let next = last.saturating_add(1);
        for reading in self.readings.values_mut() {
            if reading.next > next {
                (reading.truncated, reading.next) = (Some(last), next);
            }
        }
    }

    /// Makes a call. A trap, or a panic of the host, costs the store.
    fn with<T>(
        &mut self,
        call: impl FnOnce(&mut Sandbox, ResourceAny) -> wasmtime::Result<T>,
    ) -> Result<T, Error> {
        self.ensure_open()?;
        let Some(Open { sandbox, log }) = &mut self.open else {
            return Err(Error::Down(self.cause.clone()));
        };
        let cause: Arc<str> = match catch_unwind(AssertUnwindSafe(|| call(sandbox, *log))) {
            Ok(Ok(result)) => return Ok(result),
            Ok(Err(trap)) => format!("{trap:#}").into(),
            Err(panic) => message(&*panic).into(),
        };
        self.fall(cause.clone());
        Err(Error::Unknown(cause))
    }

    /// As `with`, where the log has a say.
    pub(crate) fn ask<T>(
        &mut self,
        call: impl FnOnce(&mut Sandbox, ResourceAny) -> Called<T>,
    ) -> Result<T, Error> {
        let answer = self.with(call)?;
        answer.map_err(|error| self.heed(error))
    }

    /// A poisoned log stays so, also when a trap costs the store that knows of it.
    fn heed(&mut self, error: types::Error) -> Error {
        if let (types::Error::Poisoned(_), None) = (&error, &self.ended) {
            self.ended = Some(Error::Log(error.clone()));
        }
        Error::Log(error)
    }

    pub(crate) fn tell<T>(
        &mut self,
        call: impl FnOnce(&mut Sandbox, ResourceAny) -> wasmtime::Result<T>,
    ) -> Result<T, Error> {
        self.with(call)
    }

    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.ask(Sandbox::close)?;
        self.ended = Some(Error::Log(types::Error::Closed));
        Ok(())
    }

    pub(crate) fn truncate_after(&mut self, lsn: u64) -> Result<(), Error> {
        self.ask(|sandbox, log| sandbox.truncate_after(log, lsn))?;
        self.cut_readings(lsn);
        Ok(())
    }

    pub(crate) fn take_restarts(&mut self) -> Vec<Restart> {
        std::mem::take(&mut self.restarts)
    }

    /// Takes calls until it is told to stop.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        let mut stashed = None;
        let mut is_short = false;
        while let Some(job) = stashed.take().or_else(|| self.next_job(jobs, is_short)) {
            // Whoever has waited for a sync sleeps, and is not back so soon.
            is_short = !matches!(job, Job::Append(Append { level: types::Level::Disk, .. }));
            // Callers that leave the thread no pause delay nothing that is due.
            let begun = Instant::now();
            if self.due.is_some_and(|due| due <= begun) {
                self.tick();
            }
            match job {
                Job::Append(first) => {
                    stashed = self.append_waiting(first, jobs);
                    self.expect(begun);
                }
                Job::Watch(watch) => self.watches.push(watch),
                Job::Call(call) => call(&mut self),
                Job::Stop => break,
            }
            self.look_after_watches();
        }
        if let Some(Open { mut sandbox, log }) = self.open.take() {
            // Nobody is left to tell: opening the log again tells what is there.
            catch_unwind(AssertUnwindSafe(|| sandbox.release(log).ok())).ok();
        }
    }

    /// The next call; meanwhile it does what falls due. After a short call the next may be near.
    fn next_job(&mut self, jobs: &Receiver<Job>, is_short: bool) -> Option<Job> {
        let patience = Patience::new(is_short);
        loop {
            match jobs.try_recv() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if patience.is_left() => continue,
                Err(TryRecvError::Empty) => {}
            }
            self.tick();
            let received = match self.due {
                Some(due) => jobs.recv_timeout(due.saturating_duration_since(Instant::now())),
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match received {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Appends that were begun at this moment may fall due before what was due until now.
    fn expect(&mut self, begun: Instant) {
        let due = match (self.due, &self.config.fsync_policy) {
            // They are the first since the log said that nothing was: it is asked again.
            (None, _) => begun,
            (Some(due), types::FsyncPolicy::BatchMicros(window)) => {
                begun.checked_add(Duration::from_micros(*window)).map_or(due, |then| then.min(due))
            }
            (Some(due), types::FsyncPolicy::Always | types::FsyncPolicy::Os) => due,
        };
        let has_age = self.config.segment_age_millis_max.is_some();
        let has_window = matches!(self.config.fsync_policy, types::FsyncPolicy::BatchMicros(_));
        self.due = (has_age || has_window).then_some(due);
    }

    /// Tells the log the time, and asks when that is due next. Time that is told by the caller
    /// passes only when the caller says so.
    fn tick(&mut self) {
        self.due = None;
        if self.config.injected.is_some() || self.open.is_none() {
            return;
        }
        // A poisoned or closed log has nothing to do, ever. A trap shows at the next call.
        let time_of_day = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = time_of_day();
        let due = self.ask(|sandbox, log| sandbox.tick(log, None)).ok().flatten();
        self.look_after_watches();
        // The clock may be set while we look, back or on.
        let now = before.max(time_of_day());
        self.due = due.and_then(|due| {
            Instant::now().checked_add(Duration::from_micros(due).saturating_sub(now))
        });
    }

    /// Appends what waits, and returns the first call that is no append, or one too large to go
    /// with the others.
    fn append_waiting(&mut self, first: Append, jobs: &Receiver<Job>) -> Option<Job> {
        let memory = self.program.limits.memory_bytes;
        let bytes_max = GATHERED_BYTES_MAX.min(memory / GATHERED_PART_OF_MEMORY);
        let mut bytes = first.groups.bytes();
        let mut waiting = vec![first];
        let mut stashed = None;
        while bytes < bytes_max && waiting.len() < GATHERED_MAX {
            match jobs.try_recv() {
                Ok(Job::Append(append)) if bytes + append.groups.bytes() <= bytes_max => {
                    bytes += append.groups.bytes();
                    waiting.push(append);
                }
                Ok(other) => {
                    stashed = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        while !waiting.is_empty() {
            waiting = self.append_gathered(waiting);
        }
        stashed
    }

    /// Appends them with one sync, and returns those that are still to be tried.
    fn append_gathered(&mut self, mut waiting: Vec<Append>) -> Vec<Append> {
        let levels = waiting.iter().map(|append| append.level);
        let level = levels.max_by_key(|level| rank(*level)).unwrap_or(types::Level::Disk);
        let gathered;
        let groups = match &waiting[..] {
            [alone] => &alone.groups,
            several => {
                let mut groups = Groups::new();
                for append in several {
                    groups.extend(&append.groups);
                }
                gathered = groups;
                &gathered
            }
        };
        let (appended, error) = match self.ask(|sandbox, log| sandbox.append(log, groups, level)) {
            Ok(result) => (result.appended, result.error),
            // One of them is wrong, nothing was appended, and the others cannot help it.
            Err(Error::Log(types::Error::MalformedBatch | types::Error::EmptyBatch))
                if waiting.len() > 1 =>
            {
                for append in waiting {
                    self.append_gathered(vec![append]);
                }
                return Vec::new();
            }
            Err(error) => {
                answer(waiting, &error);
                return Vec::new();
            }
        };
        let mut rest = waiting.split_off(appended.len().min(waiting.len()));
        for (append, appended) in waiting.into_iter().zip(appended) {
            append.answer(Ok(appended));
        }
        match error {
            // It says nothing about those behind it.
            Some(error @ types::Error::TooLarge(_)) if !rest.is_empty() => {
                let failed = rest.remove(0);
                failed.answer(Err(Error::Log(error)));
                rest
            }
            Some(error) => {
                let error = self.heed(error);
                answer(rest, &error);
                Vec::new()
            }
            None => {
                answer(rest, &Error::Log(types::Error::Other(None)));
                Vec::new()
            }
        }
    }

    /// The list stays where a trap finds it: what is in it goes with the store.
    fn look_after_watches(&mut self) {
        let mut at = 0;
        while at < self.watches.len() {
            let result = match self.look_after(at) {
                Ok(false) => {
                    at += 1;
                    continue;
                }
                result => result.map(|_| ()),
            };
            let watch = self.watches.swap_remove(at);
            watch.reply.send(result).ok();
            if let Some(subscription) = watch.subscription {
                // A trap here shows at the next call.
                self.with(|sandbox, _| sandbox.release(subscription)).ok();
            }
        }
    }

    /// Whether what somebody waits for has come. Whoever has gone away has no need of it.
    fn look_after(&mut self, at: usize) -> Result<bool, Error> {
        let Some(Watch { interest, reply, subscription, lost }) = self.watches.get(at) else {
            return Ok(false);
        };
        if let Some(cause) = lost {
            return Err(Error::Unknown(cause.clone()));
        }
        if reply.is_closed() {
            return Ok(true);
        }
        let (interest, subscription) = (*interest, *subscription);
        let subscription = match subscription {
            Some(subscription) => subscription,
            None => self.with(|sandbox, log| sandbox.subscribe(log, interest))?,
        };
        if let Some(watch) = self.watches.get_mut(at) {
            watch.subscription = Some(subscription);
        }
        self.ask(|sandbox, _| sandbox.is_ready(subscription))
    }

    /// Begins to read; the cursor's number.
    pub(crate) fn begin_reading(
        &mut self,
        start: types::Start,
        visibility: types::Visibility,
    ) -> Result<u64, Error> {
        let cursor = self.new_cursor(start, visibility)?;
        let next = self.with(|sandbox, _| sandbox.next_lsn(cursor))?;
        self.readings_begun += 1;
        let reading = Reading { cursor: Some(cursor), next, visibility, truncated: None };
        self.readings.insert(self.readings_begun, reading);
        Ok(self.readings_begun)
    }

    fn new_cursor(
        &mut self,
        start: types::Start,
        visibility: types::Visibility,
    ) -> Result<ResourceAny, Error> {
        let level = match visibility {
            types::Visibility::Durable => types::Level::Disk,
            types::Visibility::Written => types::Level::Os,
        };
        // `read-from` does the same, and does not tell where that poisons the log.
        match self.ask(|sandbox, log| sandbox.sync(log, level)) {
            Ok(_) | Err(Error::Log(types::Error::Poisoned(_) | types::Error::Closed)) => {}
            Err(error) => return Err(error),
        }
        self.ask(|sandbox, log| sandbox.read_from(log, start, visibility))
    }

    fn cursor(&mut self, number: u64) -> Result<ResourceAny, Error> {
        self.ensure_open()?;
        let Some(reading) = self.readings.get(&number) else { return Err(Error::Stopped) };
        if let Some(cursor) = reading.cursor {
            return Ok(cursor);
        }
        let (start, visibility) = (types::Start::Lsn(reading.next), reading.visibility);
        let cursor = self.new_cursor(start, visibility)?;
        if let Some(reading) = self.readings.get_mut(&number) {
            reading.cursor = Some(cursor);
        }
        Ok(cursor)
    }

    pub(crate) fn read(&mut self, number: u64, bytes_max: u32) -> Result<Page, Error> {
        self.tell_truncation(number)?;
        let cursor = self.cursor(number)?;
        let most = self.program.limits.memory_bytes / PAGE_PART_OF_MEMORY;
        let bytes_max = u32::try_from(most).map_or(bytes_max, |most| bytes_max.min(most));
        let page = self.ask(|sandbox, _| sandbox.read_batch(cursor, bytes_max));
        let next = match &page {
            Ok(page) => page.first + page.offsets.len() as u64,
            // It may have moved over a record that cannot be read.
            Err(Error::Log(_)) => self.with(|sandbox, _| sandbox.next_lsn(cursor))?,
            Err(_) => return page.map(Page::new),
        };
        if let Some(reading) = self.readings.get_mut(&number) {
            reading.next = next;
        }
        page.map(Page::new)
    }

    /// Fails once where records that a cursor has shown are gone. It is begun anew then: that it
    /// tells the same is needed no more.
    fn tell_truncation(&mut self, number: u64) -> Result<(), Error> {
        self.ensure_open()?;
        let Some(reading) = self.readings.get_mut(&number) else { return Err(Error::Stopped) };
        let Some(last) = reading.truncated else { return Ok(()) };
        if let Some(cursor) = reading.cursor.take() {
            self.with(|sandbox, _| sandbox.release(cursor))?;
        }
        if let Some(reading) = self.readings.get_mut(&number) {
            reading.truncated = None;
        }
        Err(Error::Log(types::Error::Truncated(last)))
    }

    pub(crate) fn skip_damage(&mut self, number: u64) -> Result<(), Error> {
        let cursor = self.cursor(number)?;
        let next = self.with(|sandbox, _| {
            sandbox.skip_damage(cursor)?;
            sandbox.next_lsn(cursor)
        })?;
        if let Some(reading) = self.readings.get_mut(&number) {
            reading.next = next;
        }
        Ok(())
    }

    pub(crate) fn next_lsn(&self, number: u64) -> Result<u64, Error> {
        self.readings.get(&number).map(|reading| reading.next).ok_or(Error::Stopped)
    }

    pub(crate) fn end_reading(&mut self, number: u64) {
        if let Some(Reading { cursor: Some(cursor), .. }) = self.readings.remove(&number) {
            // A trap here shows at the next call.
            self.with(|sandbox, _| sandbox.release(cursor)).ok();
        }
    }
}

fn answer(waiting: Vec<Append>, error: &Error) {
    for append in waiting {
        append.answer(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Limits;
    use seawall_core::record::Record;
    use std::sync::mpsc::{Sender, channel};

    fn program(limits: &Limits) -> Program {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/component/seawall.wasm");
        let component = std::fs::read(path).expect("`cargo xtask component` makes it");
        Program::compile(&component, limits).unwrap()
    }

    fn open(path: &Path) -> Worker {
        open_with(&Limits::default(), path, |_| {})
    }

    fn append(
        jobs: &Sender<Job>,
        records: &[Record<'_>],
        level: types::Level,
    ) -> oneshot::Receiver<Answered> {
        let (reply, answer) = oneshot::channel();
        let groups = Groups::of(records).unwrap();
        jobs.send(Job::Append(Append { groups, level, reply })).ok();
        answer
    }

    #[test]
    fn what_waits_shares_one_sync_and_one_that_is_refused_takes_no_other_with_it() {
        let temp = tempfile::tempdir().unwrap();
        let mut worker = open(temp.path());
        // Whatever a log's first append leaves to be done is done.
        let groups = Groups::of(&[Record::put(b"a", b"b")]).unwrap();
        worker.ask(|sandbox, log| sandbox.append(log, &groups, types::Level::Disk)).unwrap();
        worker.ask(|sandbox, log| sandbox.tick(log, None)).unwrap();
        let before = worker.tell(Sandbox::stats).unwrap();
        let (jobs, taken) = channel();
        let long = vec![0; 70 << 20];
        let mut answers = Vec::new();
        for number in 0..100_u32 {
            let key = number.to_le_bytes();
            let records = [Record::put(&key, b"value"), Record::delete(&key)];
            answers.push(append(&jobs, &records, types::Level::Disk));
        }
        let (reply, stats) = oneshot::channel();
        jobs.send(Job::Call(Box::new(move |worker| {
            reply.send(worker.tell(Sandbox::stats)).ok();
        })))
        .ok();
        let first = append(&jobs, &[Record::put(b"a", b"b")], types::Level::Os);
        let refused = append(&jobs, &[Record::put(b"k", &long)], types::Level::Os);
        let last = append(&jobs, &[Record::put(b"c", b"d")], types::Level::Buffered);
        jobs.send(Job::Stop).ok();
        worker.run(&taken);
        for (number, answer) in (0..).zip(answers) {
            let appended = answer.blocking_recv().unwrap().result.unwrap();
            assert_eq!((appended.first, appended.last), (2 * number + 2, 2 * number + 3));
        }
        let after = stats.blocking_recv().unwrap().unwrap();
        assert_eq!(after.durable, 201);
        assert_eq!(after.syncs - before.syncs, 1, "100 appends, one sync");
        assert_eq!(first.blocking_recv().unwrap().result.unwrap().first, 202);
        let refused = refused.blocking_recv().unwrap().result;
        assert!(matches!(refused, Err(Error::Log(types::Error::TooLarge(_)))), "{refused:?}");
        assert_eq!(last.blocking_recv().unwrap().result.unwrap().first, 203);
    }

    #[test]
    fn a_panic_of_the_host_costs_the_store_and_not_the_log() {
        let temp = tempfile::tempdir().unwrap();
        let mut worker = open(temp.path());
        let groups = Groups::of(&[Record::put(b"a", b"b")]).unwrap();
        let level = types::Level::Disk;
        worker.ask(|sandbox, log| sandbox.append(log, &groups, level)).unwrap();
        let lost: Result<(), _> = worker.tell(|_, _| panic!("on purpose"));
        match lost {
            Err(Error::Unknown(cause)) => assert!(cause.contains("on purpose"), "{cause}"),
            other => panic!("{other:?}"),
        }
        let restarts = worker.take_restarts();
        assert_eq!(restarts.len(), 1);
        assert_eq!(restarts[0].recovery.last, 1);
        let result = worker.ask(|sandbox, log| sandbox.append(log, &groups, level)).unwrap();
        assert_eq!(result.appended[0].first, 2);
    }

    #[test]
    fn an_opening_after_a_trap_repeats_no_salt_and_takes_over_its_own_owner() {
        let temp = tempfile::tempdir().unwrap();
        let program = program(&Limits::default());
        let injected = types::Injected { log_id: (1, 2), seed: 7, now_micros: 1 };
        let config = types::Config {
            exclusion: types::Exclusion::Owner("me".to_owned()),
            injected: Some(injected),
            ..program.default_config()
        };
        let (mut worker, _) = Worker::open(program, temp.path(), config).unwrap();
        let first = worker.config.injected.map(|injected| injected.seed);
        let lost: Result<(), _> = worker.tell(|_, _| panic!("on purpose"));
        assert!(matches!(lost, Err(Error::Unknown(_))));
        worker.tell(Sandbox::stats).expect("it is open again, over its own OWNER");
        let next = worker.config_now().injected.map(|injected| injected.seed);
        assert_ne!(first, next);
    }

    fn open_with(limits: &Limits, path: &Path, change: impl FnOnce(&mut types::Config)) -> Worker {
        let program = program(limits);
        let mut config = program.default_config();
        change(&mut config);
        Worker::open(program, path, config).unwrap().0
    }

    /// The figures after a life in which a call is always waiting.
    fn without_pause(worker: Worker, level: types::Level) -> types::Stats {
        let (jobs, taken) = channel();
        let appended = append(&jobs, &[Record::put(b"a", b"b")], level);
        for _ in 0..100 {
            let call = |_: &mut Worker| std::thread::sleep(Duration::from_millis(1));
            jobs.send(Job::Call(Box::new(call))).unwrap();
        }
        let (reply, stats) = oneshot::channel();
        let call = move |worker: &mut Worker| reply.send(worker.tell(Sandbox::stats)).unwrap();
        jobs.send(Job::Call(Box::new(call))).unwrap();
        jobs.send(Job::Stop).unwrap();
        worker.run(&taken);
        appended.blocking_recv().unwrap().result.unwrap();
        stats.blocking_recv().unwrap().unwrap()
    }

    #[test]
    fn callers_that_leave_no_pause_delay_nothing_that_is_due() {
        for level in [types::Level::Buffered, types::Level::Os] {
            let temp = tempfile::tempdir().unwrap();
            let worker = open_with(&Limits::default(), temp.path(), |config| {
                config.fsync_policy = types::FsyncPolicy::BatchMicros(5_000);
            });
            assert_eq!(without_pause(worker, level).durable, 1);
        }
        let temp = tempfile::tempdir().unwrap();
        let worker = open_with(&Limits::default(), temp.path(), |config| {
            config.fsync_policy = types::FsyncPolicy::Os;
            config.segment_age_millis_max = Some(20);
        });
        assert_eq!(without_pause(worker, types::Level::Disk).segments.len(), 2);
    }

    /// Puts records into the log, one by one.
    fn put(worker: &mut Worker, count: u64, value: &[u8], level: types::Level) {
        for _ in 0..count {
            let groups = Groups::of(&[Record::put(b"key", value)]).unwrap();
            let result = worker.ask(|sandbox, log| sandbox.append(log, &groups, level)).unwrap();
            assert!(result.error.is_none(), "{:?}", result.error);
        }
    }

    fn trap(worker: &mut Worker) {
        let lost: Result<(), _> = worker.tell(|_, _| panic!("on purpose"));
        assert!(matches!(lost, Err(Error::Unknown(_))), "{lost:?}");
    }

    #[test]
    fn a_cursor_is_told_once_of_a_truncation_that_a_trap_follows() {
        let temp = tempfile::tempdir().unwrap();
        let mut worker = open(temp.path());
        put(&mut worker, 10, b"old", types::Level::Os);
        let durable = types::Visibility::Durable;
        let far = worker.begin_reading(types::Start::First, durable).unwrap();
        let near = worker.begin_reading(types::Start::First, durable).unwrap();
        let none = worker.begin_reading(types::Start::Lsn(3), durable).unwrap();
        assert_eq!(worker.read(far, 1 << 20).unwrap().len(), 10);
        assert_eq!(worker.read(near, 1).unwrap().len(), 1);
        worker.truncate_after(5).unwrap();
        put(&mut worker, 7, b"new", types::Level::Os);
        trap(&mut worker);
        let told = worker.read(far, 1 << 20);
        assert!(matches!(told, Err(Error::Log(types::Error::Truncated(5)))), "{told:?}");
        for (number, first) in [(far, 6), (near, 2), (none, 3)] {
            let page = worker.read(number, 1 << 20).unwrap();
            // A page is of one segment, and a truncation begins another.
            assert_eq!(page.first(), first);
        }
        let page = worker.read(none, 1 << 20).unwrap();
        assert_eq!((page.first(), page.records().next().unwrap().record.value), (6, &b"new"[..]));
        // The trap may come in the middle of it.
        let lost: Result<(), _> = worker.tell(|sandbox, log| {
            sandbox.truncate_after(log, 3)?.unwrap();
            panic!("on purpose")
        });
        assert!(matches!(lost, Err(Error::Unknown(_))));
        put(&mut worker, 9, b"newest", types::Level::Os);
        for number in [far, none] {
            let told = worker.read(number, 1 << 20);
            assert!(matches!(told, Err(Error::Log(types::Error::Truncated(3)))), "{told:?}");
            assert_eq!(worker.next_lsn(number).unwrap(), 4);
            assert_eq!(worker.read(number, 1 << 20).unwrap().first(), 4);
        }
        // And without a trap as well.
        worker.truncate_after(4).unwrap();
        let told = worker.read(far, 1 << 20);
        assert!(matches!(told, Err(Error::Log(types::Error::Truncated(4)))), "{told:?}");
        assert!(worker.read(far, 1 << 20).unwrap().is_empty());
    }

    #[test]
    fn a_log_in_the_place_of_another_is_not_taken_for_it() {
        let temp = tempfile::tempdir().unwrap();
        let mut worker = open_with(&Limits::default(), temp.path(), |config| {
            config.injected = Some(types::Injected { log_id: (1, 2), seed: 7, now_micros: 1 });
        });
        put(&mut worker, 1, b"value", types::Level::Disk);
        for entry in std::fs::read_dir(temp.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        trap(&mut worker);
        for _ in 0..2 {
            let down = worker.tell(Sandbox::stats);
            assert!(matches!(down, Err(Error::Down(_))), "{down:?}");
        }
    }

    #[test]
    fn a_watch_outlives_a_trap_unless_its_records_did_not() {
        let temp = tempfile::tempdir().unwrap();
        let mut worker = open_with(&Limits::default(), temp.path(), |config| {
            config.fsync_policy = types::FsyncPolicy::Os;
        });
        put(&mut worker, 2, b"value", types::Level::Os);
        put(&mut worker, 1, b"lost", types::Level::Buffered);
        let interests = [
            types::Interest::RecordsAfter(9),
            types::Interest::Durable(2),
            types::Interest::RecordsAfter(2),
            types::Interest::Durable(3),
        ];
        let mut answers: Vec<_> = interests
            .into_iter()
            .map(|interest| {
                let (reply, answer) = oneshot::channel();
                worker.watches.push(Watch::new(interest, reply));
                answer
            })
            .collect();
        worker.look_after_watches();
        assert_eq!(worker.watches.len(), 4);
        // What stands for the log is no subscription: the component traps while it looks.
        worker.watches[0].subscription = worker.open.as_ref().map(|open| open.log);
        worker.look_after_watches();
        assert_eq!(worker.take_restarts().len(), 1);
        put(&mut worker, 1, b"other", types::Level::Os);
        worker.look_after_watches();
        let mut answer = |number: usize| answers[number].try_recv();
        assert!(matches!(answer(0), Ok(Err(Error::Unknown(_)))));
        assert!(matches!(answer(1), Ok(Ok(()))));
        assert!(answer(2).is_err(), "it waits");
        assert!(matches!(answer(3), Ok(Err(Error::Unknown(_)))));
        put(&mut worker, 1, b"other", types::Level::Disk);
        worker.look_after_watches();
        assert!(matches!(answer(2), Ok(Ok(()))));
    }

    #[test]
    fn one_that_is_malformed_takes_no_other_with_it() {
        let temp = tempfile::tempdir().unwrap();
        let worker = open(temp.path());
        let (jobs, taken) = channel();
        let first = append(&jobs, &[Record::put(b"a", b"b")], types::Level::Os);
        let mut groups = Groups::of(&[Record::put(b"c", b"d")]).unwrap();
        groups.records.data.push(0);
        let (reply, malformed) = oneshot::channel();
        jobs.send(Job::Append(Append { groups, level: types::Level::Os, reply })).unwrap();
        let last = append(&jobs, &[Record::put(b"e", b"f")], types::Level::Os);
        jobs.send(Job::Stop).unwrap();
        worker.run(&taken);
        assert_eq!(first.blocking_recv().unwrap().result.unwrap().first, 1);
        let malformed = malformed.blocking_recv().unwrap().result;
        assert!(matches!(malformed, Err(Error::Log(types::Error::MalformedBatch))));
        assert_eq!(last.blocking_recv().unwrap().result.unwrap().first, 2);
    }

    #[test]
    fn no_more_is_gathered_than_the_memory_holds() {
        let temp = tempfile::tempdir().unwrap();
        let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
        let worker = open_with(&limits, temp.path(), |_| {});
        let (jobs, taken) = channel();
        let value = vec![7; 8 << 10];
        let mut answers = Vec::new();
        for _ in 0..1_000 {
            answers.push(append(&jobs, &[Record::put(b"key", &value)], types::Level::Os));
        }
        jobs.send(Job::Stop).unwrap();
        worker.run(&taken);
        for (number, answer) in (1..).zip(answers) {
            assert_eq!(answer.blocking_recv().unwrap().result.unwrap().first, number);
        }
    }
}
