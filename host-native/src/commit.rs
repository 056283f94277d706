//! The engine: one log, the threads that run its commands, and everybody who waits.
//!
//! ```text
//!   append ─► encode under the lock ─► register ─► lead or park ─► woken with the outcome
//! ```
//!
//! **Who leads.** Whoever waits with a thread of its own and finds a command due runs it, the lock
//! released, so that one writer alone pays for no switch of threads. While it runs, others append,
//! and the next command carries all of them: that is group commit. Who is done and leaves work
//! behind wakes the next who waits.
//!
//! **Who waits.** Each waiter has a slot and stands in a queue by LSN. A completion takes from the
//! front of the queue those whom it satisfies and wakes only them. A waiter that goes away, since
//! its future was dropped, leaves a slot of an older generation behind, which is passed over; its
//! record stays in the log.
//!
//! **The I/O thread** does what nobody waits for: the next segment, trimming, deletion, syncs by
//! deadline; and what tasks wait for, so that no worker of a runtime is ever blocked.

use crate::config::{Injected, WalConfig};
use crate::dir::{Dir, WriterLock};
use crate::error::Error;
use crate::execute::Executor;
use crate::meter::Event;
use crate::reader::Source;
use crate::{RecoveryInfo, SegmentStat, Stats};
use seawall_core::command::{Command, Done, Lane, Operation};
use seawall_core::config::Level;
use seawall_core::cursor::Start;
use seawall_core::error::{AppendError, RequestError};
use seawall_core::event::Event as CoreEvent;
use seawall_core::id::{LogId, Lsn, Position, SegmentId, Time, Watermark};
use seawall_core::log::{Appended, Log, RolledBack, SegmentInfo};
use seawall_core::record::Entry;
use seawall_core::recover::{Mode, Recovery, RecoveryStart};
use seawall_core::wire::name::FileId;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

type Memory = Vec<u8>;

/// Files of so many of the newest segments stay open for writing; more than are ever written to.
const HANDLES_KEPT: u64 = 4;

/// An open log and its I/O thread, which ends when this is dropped.
pub(crate) struct Handle {
    engine: Arc<Engine>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

impl Handle {
    /// Waits until the I/O thread has ended.
    pub(crate) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            // It panicked, and has told so on standard error. The lock is free all the same.
            self.engine.lock().writer_lock = None;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.engine.stop();
        self.join();
    }
}

/// One log in this process.
pub(crate) struct Engine {
    pub(crate) config: WalConfig,
    pub(crate) executor: Executor,
    clock: Clock,
    id: LogId,
    state: Mutex<State>,
    io: Condvar,
    /// Changes when segments go or are cut, so that readers look again.
    epoch: AtomicU64,
    /// Up to here records are durable, for readers.
    durable: AtomicU64,
}

struct State {
    log: Log<Memory>,
    /// Commands for the I/O thread.
    background: VecDeque<Command<Memory>>,
    slots: Slots,
    written: VecDeque<(Lsn, SlotId)>,
    durable: VecDeque<(Lsn, SlotId)>,
    /// Those who wait for anything at all to go on.
    busy: Vec<SlotId>,
    /// Readers who wait for more to be durable.
    followers: Vec<SlotId>,
    request: Option<SlotId>,
    io_sleeps: IoSleep,
    stops: bool,
    has_stopped: bool,
    writer_lock: Option<WriterLock>,
    segments_version: u64,
    counters: Counters,
}

/// What the I/O thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum IoSleep {
    Awake,
    /// Asleep, and wakes by itself at this time.
    Until(Time),
    UntilWoken,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    appends: u64,
    records: u64,
    bytes: u64,
    writes: u64,
    syncs: u64,
    sync_time: Duration,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Reached,
    Append(AppendError),
    Request(RequestError),
}

impl Outcome {
    fn into_result(self) -> Result<(), Error> {
        let error = match self {
            Self::Reached => return Ok(()),
            Self::Append(error) => Error::from_append(error),
            Self::Request(error) => Error::from_request(error),
        };
        error.map_or(Ok(()), Err)
    }
}

/// Who is to be woken, and how.
#[derive(Debug)]
enum Wake {
    Nobody,
    Thread(Thread),
    Task(Waker),
}

impl Wake {
    fn wake(self) {
        match self {
            Self::Nobody => {}
            Self::Thread(thread) => thread.unpark(),
            Self::Task(waker) => waker.wake(),
        }
    }
}

/// A waiter's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SlotId {
    index: usize,
    generation: u64,
}

#[derive(Debug)]
struct Slot {
    generation: u64,
    wake: Wake,
    outcome: Option<Outcome>,
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

impl Slots {
    fn take(&mut self) -> SlotId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(Slot { generation: 0, wake: Wake::Nobody, outcome: None });
            self.all.len() - 1
        });
        SlotId { index, generation: self.all[index].generation }
    }

    fn get(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.all.get_mut(id.index).filter(|slot| slot.generation == id.generation)
    }

    /// The outcome, if there is one; the slot is free then.
    fn outcome(&mut self, id: SlotId) -> Option<Outcome> {
        let outcome = self.get(id)?.outcome?;
        self.release(id);
        Some(outcome)
    }

    fn release(&mut self, id: SlotId) {
        if let Some(slot) = self.get(id) {
            slot.generation += 1;
            slot.wake = Wake::Nobody;
            slot.outcome = None;
            self.free.push(id.index);
        }
    }

    fn finish(&mut self, id: SlotId, outcome: Outcome, wakes: &mut Vec<Wake>) {
        if let Some(slot) = self.get(id) {
            slot.outcome = Some(outcome);
            wakes.push(std::mem::replace(&mut slot.wake, Wake::Nobody));
        }
    }
}

/// The time of day.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// When the log was opened, and how long ago that was: it never goes back.
    Running { opened: Instant, base: Duration },
    /// It stands still.
    Told(Time),
}

impl Clock {
    fn of(config: &WalConfig) -> Self {
        match config.injected {
            Some(Injected { now, .. }) => Self::Told(now),
            None => {
                let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Self::Running { opened: Instant::now(), base }
            }
        }
    }

    fn now(&self) -> Time {
        match self {
            Self::Running { opened, base } => {
                let micros = (*base + opened.elapsed()).as_micros();
                Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
            }
            Self::Told(now) => *now,
        }
    }
}

/// Random bits: the keys of the standard library's hash maps, which the operating system draws.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What is to be told once the lock is released.
#[derive(Default)]
pub(crate) struct Aftermath {
    wakes: Vec<Wake>,
    events: Vec<(CoreEvent, Duration)>,
}

/// A wait that a task or a thread goes through.
pub(crate) struct Wait {
    engine: Arc<Engine>,
    slot: SlotId,
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.engine.lock().slots.release(self.slot);
    }
}

impl Future for Wait {
    type Output = Result<(), Error>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let mut state = self.engine.lock();
        if let Some(outcome) = state.slots.outcome(self.slot) {
            return std::task::Poll::Ready(outcome.into_result());
        }
        if let Some(slot) = state.slots.get(self.slot) {
            match &slot.wake {
                Wake::Task(waker) if waker.will_wake(context.waker()) => {}
                _ => slot.wake = Wake::Task(context.waker().clone()),
            }
        }
        std::task::Poll::Pending
    }
}

impl Wait {
    /// Waits on this thread, and leads where there is something to lead.
    pub(crate) fn block(self) -> Result<(), Error> {
        self.engine.clone().block_on(self.slot, None).unwrap_or(Ok(()))
    }

    /// Waits on this thread for so long at most; `None`: it was too long.
    pub(crate) fn block_for(self, timeout: Duration) -> Option<Result<(), Error>> {
        self.engine.clone().block_on(self.slot, Some(Instant::now() + timeout))
    }
}

/// What an append came to.
pub(crate) enum Admitted {
    /// It is in the log; wait until it has reached its level.
    Taken(Appended, Option<Wait>),
    /// There is no room at the moment: wait and try again.
    Later(Wait),
}

/// A request that ends a part of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    DeleteBefore(Lsn),
    TruncateAfter(Lsn),
    Close,
}

impl Engine {
    /// Opens a log: locks the folder, recovers, and starts the I/O thread.
    pub(crate) fn open(dir: Dir, config: WalConfig) -> Result<(Handle, RecoveryInfo), Error> {
        let started = Instant::now();
        let recovery = open_recovery(&config, Mode::Open)?;
        let locked = dir.lock().map_err(Error::io("lock the log's folder"))?;
        let Some(writer_lock) = locked else {
            return Err(Error::Locked { dir: config.dir });
        };
        let clock = Clock::of(&config);
        let executor = Executor::new(dir, false, config.interpose.clone());
        let (log, report) = recover(&executor, recovery, &config)?;
        let (id, epoch) = (log.id(), AtomicU64::new(0));
        let durable = AtomicU64::new(log.durable().lsn.get());
        let state = Mutex::new(State::new(log, writer_lock));
        let io = Condvar::new();
        let engine = Arc::new(Self { config, executor, clock, id, state, io, epoch, durable });
        let for_thread = engine.clone();
        let thread = thread::Builder::new()
            .name("seawall-io".to_owned())
            .spawn(move || for_thread.run_io())
            .map_err(Error::io("start the I/O thread"))?;
        let handle = Handle { engine, thread: Mutex::new(Some(thread)) };
        let mut info = RecoveryInfo::from(report);
        info.last_valid_position = handle.engine.last_record_position()?;
        handle.engine.tell_opened(&info, started.elapsed());
        Ok((handle, info))
    }

    fn tell_opened(&self, info: &RecoveryInfo, duration: Duration) {
        let Some(meter) = &self.config.meter else { return };
        meter.event(&Event::Opened { log: self.id, duration });
        meter.event(&Event::Recovered(info));
        if let Some(damage) = &info.report.damage {
            meter.event(&Event::Damage(damage));
        } else if info.bytes_truncated > 0 {
            meter.event(&Event::TornTail { bytes: info.bytes_truncated });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug of ours; the log itself is poisoned by failed writes
        // only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an append into the log.
    pub(crate) fn append(
        self: &Arc<Self>,
        entries: &[Entry<'_>],
        level: Level,
    ) -> Result<Admitted, Error> {
        let mut state = self.lock();
        state.log.tick(self.clock.now());
        let result = match entries {
            [entry] => state.log.append(entry, level),
            entries => state.log.append_batch(entries, level),
        };
        let admitted = match result {
            Ok(appended) => {
                state.count(&appended, entries);
                let slot = (level != Level::Buffered).then(|| state.register(level, appended.last));
                Admitted::Taken(appended, slot.map(|slot| self.wait(slot)))
            }
            Err(error) => match Error::from_append(error) {
                Some(error) => return Err(error),
                None => {
                    let slot = state.slots.take();
                    state.busy.push(slot);
                    Admitted::Later(self.wait(slot))
                }
            },
        };
        let aftermath = self.after_change(&mut state, Duration::ZERO);
        drop(state);
        self.tell(aftermath);
        Ok(admitted)
    }

    fn wait(self: &Arc<Self>, slot: SlotId) -> Wait {
        Wait { engine: self.clone(), slot }
    }

    /// Wants everything appended so far to reach a level.
    pub(crate) fn flush(self: &Arc<Self>, level: Level) -> Result<Wait, Error> {
        let mut state = self.lock();
        let lsn = state.log.flush(level).map_err(refused)?;
        let slot = state.register(level, lsn);
        let aftermath = self.after_change(&mut state, Duration::ZERO);
        drop(state);
        self.tell(aftermath);
        Ok(self.wait(slot))
    }

    /// Waits until a record is durable, and sees to it that it becomes so.
    pub(crate) fn wait_durable(self: &Arc<Self>, lsn: Lsn) -> Result<Wait, Error> {
        let last = self.lock().log.appended().lsn;
        if lsn > last {
            return Err(Error::BeyondEnd { lsn, last });
        }
        self.flush(Level::Disk)
    }

    /// Ends the active segment. `Some`: wait and try again.
    pub(crate) fn rotate(self: &Arc<Self>) -> Result<Option<Wait>, Error> {
        let mut state = self.lock();
        state.log.tick(self.clock.now());
        let later = match state.log.rotate().map_err(Error::from_append) {
            Ok(()) => None,
            Err(Some(error)) => return Err(error),
            Err(None) => {
                let slot = state.slots.take();
                state.busy.push(slot);
                Some(self.wait(slot))
            }
        };
        let aftermath = self.after_change(&mut state, Duration::ZERO);
        self.wake_io(&mut state);
        drop(state);
        self.tell(aftermath);
        Ok(later)
    }

    /// Begins a request. The first wait is for its end; the second, that another has to end before.
    pub(crate) fn ask(self: &Arc<Self>, ask: Ask) -> Result<Result<Wait, Wait>, Error> {
        let mut state = self.lock();
        let begun = if state.request.is_some() {
            Err(None)
        } else {
            match ask {
                Ask::DeleteBefore(lsn) => state.log.delete_before(lsn),
                Ask::TruncateAfter(lsn) => state.log.truncate_after(lsn),
                Ask::Close => state.log.close(),
            }
            .map_err(Error::from_request)
        };
        let slot = state.slots.take();
        let wait = match begun {
            Ok(()) => {
                state.request = Some(slot);
                Ok(self.wait(slot))
            }
            Err(None) => {
                state.busy.push(slot);
                Err(self.wait(slot))
            }
            Err(Some(error)) => {
                state.slots.release(slot);
                return Err(error);
            }
        };
        let aftermath = self.after_change(&mut state, Duration::ZERO);
        self.wake_io(&mut state);
        drop(state);
        self.tell(aftermath);
        Ok(wait)
    }

    /// Lets the I/O thread run what is due: a task waits for it.
    pub(crate) fn hand_to_io(&self) {
        let mut state = self.lock();
        self.wake_io(&mut state);
    }

    /// Waits for more to be durable than `lsn`. `None`: it is so already, or no more will be.
    pub(crate) fn follow(self: &Arc<Self>, lsn: Lsn) -> Option<Wait> {
        let mut state = self.lock();
        if state.log.durable().lsn > lsn || state.is_over() {
            return None;
        }
        let slot = state.slots.take();
        state.followers.push(slot);
        Some(self.wait(slot))
    }

    /// Parks this thread until the slot has its outcome, and leads meanwhile where there is work.
    fn block_on(&self, slot: SlotId, deadline: Option<Instant>) -> Option<Result<(), Error>> {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.slots.outcome(slot) {
                self.hand_over(&mut state);
                return Some(outcome.into_result());
            }
            if let Some(command) = state.log.poll_lane(Lane::Commit) {
                drop(state);
                state = self.run(command);
                continue;
            }
            if let Some(slot) = state.slots.get(slot) {
                slot.wake = Wake::Thread(thread::current());
            }
            drop(state);
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(left) if left.is_zero() => return None,
                Some(left) => thread::park_timeout(left),
            }
            state = self.lock();
        }
    }

    /// Runs a command without the lock, and completes it.
    fn run(&self, command: Command<Memory>) -> MutexGuard<'_, State> {
        let started = Instant::now();
        let operation = command.operation();
        let syncs = match &command {
            Command::Write(write) => write.sync,
            _ => operation == Operation::Sync,
        };
        let done = self.executor.execute(command);
        let duration = started.elapsed();
        let mut state = self.lock();
        state.counters.writes += u64::from(operation == Operation::Write);
        if syncs {
            state.counters.syncs += 1;
            state.counters.sync_time += duration;
        }
        let aftermath = self.complete(&mut state, done, duration);
        if aftermath.is_empty() {
            return state;
        }
        drop(state);
        self.tell(aftermath);
        self.lock()
    }

    fn complete(&self, state: &mut State, done: Done<Memory>, took: Duration) -> Aftermath {
        let rolled_back = state.log.complete(done);
        state.log.tick(self.clock.now());
        let mut wakes = Vec::new();
        if let Some(rolled_back) = rolled_back {
            state.roll_back(rolled_back, &mut wakes);
        }
        for slot in std::mem::take(&mut state.busy) {
            state.slots.finish(slot, Outcome::Reached, &mut wakes);
        }
        let mut aftermath = self.after_change(state, took);
        aftermath.wakes.append(&mut wakes);
        aftermath
    }

    /// What follows from any change: who is satisfied, what there is to tell, what is due.
    fn after_change(&self, state: &mut State, took: Duration) -> Aftermath {
        let mut aftermath = Aftermath::default();
        // Before anybody is told: asking for commands may end a request that needs none.
        while let Some(command) = state.log.poll_lane(Lane::Background) {
            state.background.push_back(command);
        }
        state.settle(&mut aftermath.wakes);
        let durable = state.log.durable().lsn.get();
        if self.durable.swap(durable, Ordering::Release) != durable || state.is_over() {
            for slot in std::mem::take(&mut state.followers) {
                state.slots.finish(slot, Outcome::Reached, &mut aftermath.wakes);
            }
        }
        if state.segments_version != state.log.segments_version() {
            state.segments_version = state.log.segments_version();
            self.epoch.fetch_add(1, Ordering::Release);
            let newest = state.log.segments().last().map_or(0, |info| info.segment.get());
            self.executor.forget_all_but(|file| match file {
                FileId::Segment(segment) => segment.get() + HANDLES_KEPT > newest,
                FileId::Manifest | FileId::Quarantined(_) => true,
            });
        }
        while let Some(event) = state.log.poll_event() {
            if self.config.meter.is_some() {
                aftermath.events.push((event, took));
            }
        }
        let is_full = state.log.is_commit_due() && state.nobody_can_lead();
        let is_late = match (state.io_sleeps, state.log.next_deadline()) {
            (IoSleep::Until(until), Some(deadline)) => deadline < until,
            (IoSleep::UntilWoken, Some(_)) => true,
            _ => false,
        };
        if !state.background.is_empty() || is_full || is_late {
            self.wake_io(state);
        }
        aftermath
    }

    /// Whoever waits next and can lead is woken, if something is left to do.
    fn hand_over(&self, state: &mut State) {
        if !state.log.is_commit_due() {
            return;
        }
        let waiting = state.durable.iter().chain(&state.written).copied();
        for (_, id) in waiting.collect::<Vec<_>>() {
            if let Some(slot) = state.slots.get(id)
                && let Wake::Thread(thread) = &slot.wake
            {
                return thread.unpark();
            }
        }
        self.wake_io(state);
    }

    fn wake_io(&self, state: &mut State) {
        let sleeps = std::mem::replace(&mut state.io_sleeps, IoSleep::Awake);
        if sleeps != IoSleep::Awake {
            self.io.notify_one();
        }
    }

    fn tell(&self, aftermath: Aftermath) {
        for wake in aftermath.wakes {
            wake.wake();
        }
        let Some(meter) = &self.config.meter else { return };
        for (event, duration) in aftermath.events {
            meter.event(&match event {
                CoreEvent::Rotated { from, to, first_lsn } => {
                    Event::Rotated { from, to, first_lsn }
                }
                CoreEvent::Synced { lsn, records } => Event::Synced { lsn, records, duration },
                CoreEvent::Deleted { segments, first_lsn } => {
                    Event::Deleted { segments, first_lsn }
                }
                CoreEvent::Truncated { last_lsn } => Event::Truncated { last_lsn },
                CoreEvent::DiskFull(failure) => Event::DiskFull(failure),
                CoreEvent::Degraded(failure) => Event::Degraded(failure),
                CoreEvent::Poisoned(poison) => Event::Poisoned(poison),
                CoreEvent::Closed => Event::Closed,
            });
        }
    }

    /// The I/O thread.
    fn run_io(&self) {
        let mut state = self.lock();
        loop {
            state.log.tick(self.clock.now());
            let aftermath = self.after_change(&mut state, Duration::ZERO);
            if !aftermath.is_empty() {
                drop(state);
                self.tell(aftermath);
                state = self.lock();
            }
            let next = state.background.pop_front();
            if let Some(command) = next.or_else(|| state.log.poll_lane(Lane::Commit)) {
                drop(state);
                state = self.run(command);
                continue;
            }
            if state.log.is_closed() || (state.stops && !state.has_unfinished_writes()) {
                break;
            }
            let deadline = state.log.next_deadline();
            state.io_sleeps = deadline.map_or(IoSleep::UntilWoken, IoSleep::Until);
            let left = deadline.map(|deadline| {
                let now = self.clock.now().as_micros();
                Duration::from_micros(deadline.as_micros().saturating_sub(now))
            });
            state = match left {
                None => self.io.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.io.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.io_sleeps = IoSleep::Awake;
        }
        state.has_stopped = true;
        state.writer_lock = None;
        let aftermath = self.after_change(&mut state, Duration::ZERO);
        drop(state);
        self.tell(aftermath);
    }

    /// Lets the I/O thread end, once it has written what it has, and made it durable where the
    /// policy promises that.
    fn stop(&self) {
        let mut state = self.lock();
        state.stops = true;
        let level = match self.config.fsync_policy {
            seawall_core::config::FsyncPolicy::Os => Level::Os,
            _ => Level::Disk,
        };
        // A poisoned log has nothing left to write.
        state.log.flush(level).ok();
        state.io_sleeps = IoSleep::Awake;
        self.io.notify_one();
    }

    /// The epoch: see the field.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn durable(&self) -> Watermark {
        self.lock().log.durable()
    }

    pub(crate) fn written(&self) -> Watermark {
        self.lock().log.written()
    }

    pub(crate) fn appended(&self) -> Watermark {
        self.lock().log.appended()
    }

    pub(crate) fn segments(&self) -> (Vec<SegmentInfo>, Lsn) {
        let state = self.lock();
        (state.log.segments().collect(), state.log.first_lsn())
    }

    pub(crate) fn frame_before_lsn(&self, segment: SegmentId, lsn: Lsn) -> Option<(u64, Lsn)> {
        self.lock().log.frame_before_lsn(segment, lsn)
    }

    pub(crate) fn frame_before_offset(&self, at: Position) -> Option<(u64, Lsn)> {
        self.lock().log.frame_before_offset(at.segment, at.offset)
    }

    /// The record that a deletion up to `start` keeps first, at the latest.
    pub(crate) fn lsn_of(&self, start: Start) -> Lsn {
        let state = self.lock();
        match start {
            Start::First => state.log.first_lsn(),
            Start::Lsn(lsn) => lsn,
            Start::Position(at) => {
                let mut segments = state.log.segments();
                let holder = segments.find(|info| info.segment >= at.segment);
                holder.map_or(state.log.appended().lsn.next(), |info| info.first_lsn)
            }
        }
    }

    /// Where the last record begins.
    fn last_record_position(self: &Arc<Self>) -> Result<Option<Position>, Error> {
        let (last, first) = {
            let state = self.lock();
            (state.log.appended().lsn, state.log.first_lsn())
        };
        if last < first {
            return Ok(None);
        }
        let source = Source::Live(self.clone());
        crate::reader::position_of(source, last)
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        let counters = state.counters;
        let appended = state.log.appended();
        let mut segments: Vec<SegmentStat> = state.log.segments().map(SegmentStat::from).collect();
        if let Some(active) = segments.last_mut().filter(|segment| !segment.is_sealed) {
            active.last_lsn = appended.lsn;
            active.bytes = appended.end.offset;
        }
        Stats {
            log: self.id,
            first_lsn: state.log.first_lsn(),
            last_lsn: appended.lsn,
            written_lsn: state.log.written().lsn,
            durable_lsn: state.log.durable().lsn,
            end: appended.end,
            segments,
            appends: counters.appends,
            records: counters.records,
            bytes_appended: counters.bytes,
            writes: counters.writes,
            syncs: counters.syncs,
            sync_time: counters.sync_time,
        }
    }
}

fn new_log_id() -> LogId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random().to_le_bytes());
    id[8..].copy_from_slice(&random().to_le_bytes());
    LogId(id)
}

fn refused(error: AppendError) -> Error {
    Error::from_append(error).unwrap_or(Error::Closed)
}

/// A recovery that is about to begin.
pub(crate) fn open_recovery(config: &WalConfig, mode: Mode) -> Result<Recovery<Memory>, Error> {
    let start = RecoveryStart {
        config: config.to_core()?,
        new_log_id: config.injected.map_or_else(new_log_id, |injected| injected.log),
        seed: config.injected.map_or_else(random, |injected| injected.seed),
        now: Clock::of(config).now(),
        buffers: config.new_buffers(),
    };
    Ok(Recovery::new(start, mode))
}

/// Runs a recovery to its end.
fn recover(
    executor: &Executor,
    mut recovery: Recovery<Memory>,
    config: &WalConfig,
) -> Result<(Log<Memory>, seawall_core::recover::Report), Error> {
    while let Some(command) = recovery.poll_command() {
        recovery.complete(executor.execute(command));
    }
    let failed = |error| Error::Recovery { dir: PathBuf::from(&config.dir), error };
    recovery.finish().map_err(failed)
}

impl Aftermath {
    fn is_empty(&self) -> bool {
        self.wakes.is_empty() && self.events.is_empty()
    }
}

impl State {
    fn new(log: Log<Memory>, writer_lock: WriterLock) -> Self {
        Self {
            segments_version: log.segments_version(),
            log,
            background: VecDeque::new(),
            slots: Slots::default(),
            written: VecDeque::new(),
            durable: VecDeque::new(),
            busy: Vec::new(),
            followers: Vec::new(),
            request: None,
            io_sleeps: IoSleep::Awake,
            stops: false,
            has_stopped: false,
            writer_lock: Some(writer_lock),
            counters: Counters::default(),
        }
    }

    fn count(&mut self, appended: &Appended, entries: &[Entry<'_>]) {
        self.counters.appends += 1;
        self.counters.records += appended.last.since(appended.first) + 1;
        self.counters.bytes += entries.iter().map(Entry::stored_bytes).sum::<u64>();
    }

    fn register(&mut self, level: Level, lsn: Lsn) -> SlotId {
        let slot = self.slots.take();
        let queue = if level == Level::Disk { &mut self.durable } else { &mut self.written };
        queue.push_back((lsn, slot));
        slot
    }

    /// Tells those whose records have got as far as they want.
    fn settle(&mut self, wakes: &mut Vec<Wake>) {
        let (written, durable) = (self.log.written().lsn, self.log.durable().lsn);
        for (queue, reached) in [(&mut self.written, written), (&mut self.durable, durable)] {
            while let Some((lsn, slot)) = queue.front().copied()
                && lsn <= reached
            {
                queue.pop_front();
                self.slots.finish(slot, Outcome::Reached, wakes);
            }
        }
        if let Some(result) = self.log.take_request_result() {
            let outcome = result.map_or_else(Outcome::Request, |()| Outcome::Reached);
            if let Some(slot) = self.request.take() {
                self.slots.finish(slot, outcome, wakes);
            }
            for slot in std::mem::take(&mut self.busy) {
                self.slots.finish(slot, Outcome::Reached, wakes);
            }
        }
        if let Some(error) = self.end() {
            for (_, slot) in self.written.drain(..).chain(self.durable.drain(..)) {
                self.slots.finish(slot, Outcome::Append(error), wakes);
            }
            for slot in self.busy.drain(..).chain(self.request.take()) {
                self.slots.finish(slot, Outcome::Append(error), wakes);
            }
        }
    }

    /// Why nothing more will happen, if so.
    fn end(&self) -> Option<AppendError> {
        match self.log.poison() {
            Some(poison) => Some(AppendError::Poisoned(poison)),
            None if self.log.is_closed() || self.has_stopped => Some(AppendError::Closed),
            None => None,
        }
    }

    fn is_over(&self) -> bool {
        self.end().is_some()
    }

    /// Tells those whose records a full disk undid.
    fn roll_back(&mut self, rolled_back: RolledBack, wakes: &mut Vec<Wake>) {
        let RolledBack { after, failure } = rolled_back;
        let outcome = Outcome::Append(AppendError::DiskFull(failure));
        for queue in [&mut self.written, &mut self.durable] {
            while let Some((lsn, slot)) = queue.back().copied()
                && lsn > after
            {
                queue.pop_back();
                self.slots.finish(slot, outcome, wakes);
            }
        }
    }

    /// Whether no thread waits that would run what is due.
    fn nobody_can_lead(&mut self) -> bool {
        let waiting = self.durable.front().or(self.written.front()).copied();
        match waiting.and_then(|(_, id)| self.slots.get(id)) {
            Some(slot) => matches!(slot.wake, Wake::Task(_)),
            None => true,
        }
    }

    fn has_unfinished_writes(&self) -> bool {
        let wanted = self.log.is_commit_due() || !self.background.is_empty();
        self.log.poison().is_none() && wanted
    }
}
