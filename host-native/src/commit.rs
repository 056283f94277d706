//! The engine: one log, the threads that run its commands, and everybody who waits.
//!
//! ```text
//!   append ─► encode under the lock ─► register ─► lead or park ─► woken with the outcome
//! ```
//!
//! **Who leads.** Whoever waits with a thread of its own and finds a command due runs it, the lock
//! released, so that one writer alone pays for no switch of threads. While it runs, others append,
//! and the next command carries all of them: that is group commit. Who is done and leaves work
//! behind hands it over.
//!
//! **Who waits.** Each waiter has a [slot](crate::wait) and stands in a queue by LSN, but for a
//! thread whose append only has to be written and that does so at once. A completion takes from the
//! front of the queue those whom it satisfies and wakes only them. A waiter that goes away, since
//! its future was dropped, is passed over; its record stays in the log.
//!
//! **Two threads of the log's own.** One makes the commits that no thread of the user's leads:
//! those that tasks wait for, so that no worker of a runtime is ever blocked, and those that fall
//! due. The other does the upkeep: the next segment, trimming, deletion. So no commit waits while a
//! segment is made.

mod clock;
mod questions;
mod state;
mod threads;

use crate::config::WalConfig;
use crate::dir::{Dir, WriterLock};
use crate::error::Error;
use crate::execute::{Executor, LastFile};
use crate::gather::Gather;
use crate::meter::{Event, tell};
use crate::reader::Visibility;
use crate::stall::Stall;
use crate::sync::{self, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::visited::Visited;
use crate::wait::{Gates, Outcome, SlotId, Slots, Turns, Wakes};
use crate::{RecoveryInfo, ahead, sys};
use clock::Clock;
use seawall_core::command::{Command, Done, Lane, Operation, Write};
use seawall_core::config::Level;
use seawall_core::error::AppendError;
use seawall_core::event::Event as CoreEvent;
use seawall_core::id::{LogId, Lsn, Time};
use seawall_core::log::{Appended, Log};
use seawall_core::record::Entry;
use seawall_core::recover::{Mode, Recovery, RecoveryStart};
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
pub(crate) use threads::Handle;

type Memory = Vec<u8>;

/// So often who waits for a plain write looks whether it is done before he sleeps: one to three
/// microseconds, as processors go.
const SPINS: u32 = if cfg!(shuttle) { 3 } else { 100 };

/// A task writes no batch that is longer; with zeros behind it, that takes 100 us at most.
const TASK_WRITE_BYTES_MAX: u64 = 64 << 10;
/// A task writes so often at most before it waits or goes.
const TASK_WRITES_MAX: usize = 4;

/// One log in this process.
pub(crate) struct Engine {
    pub(crate) config: WalConfig,
    pub(crate) executor: Executor,
    clock: Clock,
    /// See [`sys::forks`].
    forks: u64,
    id: LogId,
    state: Mutex<State>,
    commits: Condvar,
    upkeep: Condvar,
    pub(crate) visited: Visited,
    gates: Gates,
    stall: Stall,
    /// How far records are written and durable, and how often a full disk has undone some: for
    /// those who do not take the lock. They change under it.
    written: AtomicU64,
    durable: AtomicU64,
    rollbacks: AtomicU64,
}

struct State {
    log: Log<Memory>,
    /// Commands for the upkeep.
    background: VecDeque<Command<Memory>>,
    /// Commands for the thread that removes old segments, and how many are not complete: it is
    /// there while there are any.
    removals: VecDeque<Command<Memory>>,
    removing: usize,
    slots: Slots,
    turns: Turns,
    gather: Gather,
    written: VecDeque<(Lsn, SlotId)>,
    durable: VecDeque<(Lsn, SlotId)>,
    /// Those who wait for anything at all to go on.
    busy: VecDeque<SlotId>,
    /// Readers who wait for more to be written, and those who wait for more to be durable.
    following_written: VecDeque<SlotId>,
    following_durable: VecDeque<SlotId>,
    request: Option<SlotId>,
    commits_sleep: Sleep,
    /// How many threads that wait for a plain write have not gone to sleep yet.
    awake: u32,
    /// How many of the log's own threads have not ended.
    at_work: u32,
    /// How many commands are under way, by whichever thread.
    under_way: u32,
    stops: bool,
    writer_lock: Option<WriterLock>,
    segments_version: u64,
    /// Whoever makes a write of the fast path has it.
    last_file: Option<LastFile>,
    counters: Counters,
}

/// What the thread for commits is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sleep {
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

/// Random bits: the keys of the standard library's hash maps, which the operating system draws.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What is to be told once the lock is released.
#[derive(Default)]
pub(crate) struct Aftermath {
    wakes: Wakes,
    events: Vec<(CoreEvent, Duration)>,
}

/// A wait that a task or a thread goes through.
pub(crate) struct Wait {
    engine: Arc<Engine>,
    /// `None` once it has ended.
    slot: Option<SlotId>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(slot) = self.slot
            && let Ok(mut state) = self.engine.enter()
        {
            let unused = state.slots.release(slot);
            drop(state);
            drop(unused);
        }
    }
}

impl Future for Wait {
    type Output = Result<(), Error>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let Some(slot) = self.slot else { return std::task::Poll::Ready(Ok(())) };
        let waker = context.waker().clone();
        let mut state = match self.engine.enter() {
            Ok(state) => state,
            Err(error) => return std::task::Poll::Ready(Err(error)),
        };
        if let Some(outcome) = state.slots.outcome(slot) {
            drop(state);
            self.slot = None;
            return std::task::Poll::Ready(outcome.into_result());
        }
        let unused = state.slots.wake_task(slot, waker);
        drop(state);
        drop(unused);
        std::task::Poll::Pending
    }
}

impl Wait {
    /// Waits on this thread, and leads where there is something to lead.
    pub(crate) fn block(mut self) -> Result<(), Error> {
        let Some(slot) = self.slot.take() else { return Ok(()) };
        self.engine.block_on(self.engine.enter()?, slot, None, None).unwrap_or(Ok(()))
    }

    /// Waits on this thread for so long at most; `None`: it was too long.
    pub(crate) fn block_for(self, timeout: Duration) -> Option<Result<(), Error>> {
        let Some(slot) = self.slot else { return Some(Ok(())) };
        // A timeout that no clock reaches is none.
        let deadline = Instant::now().checked_add(timeout);
        match self.engine.enter() {
            Ok(state) => self.engine.block_on(state, slot, None, deadline),
            Err(error) => Some(Err(error)),
        }
    }
}

/// What a thread waits for at a gate.
#[derive(Clone, Copy, Debug)]
struct Goal {
    level: Level,
    lsn: Lsn,
}

/// What an append came to.
pub(crate) enum Admitted {
    /// It is in the log; wait until it has reached its level.
    Taken(Appended, Option<Wait>),
    /// There is no room at the moment: wait and try again.
    Later(Wait),
}

enum Admission {
    Taken(Appended),
    Later(SlotId),
}

/// A request that ends a part of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    DeleteBefore(Lsn),
    TruncateAfter(Lsn),
    Close,
}

impl Engine {
    /// Opens a log: locks the folder, recovers, and starts the log's threads.
    pub(crate) fn open(dir: Dir, mut config: WalConfig) -> Result<(Handle, RecoveryInfo), Error> {
        let started = Instant::now();
        config.preallocate &= !dir.copies_on_write();
        let recovery = open_recovery(&config, Mode::Open)?;
        let locked = dir.lock().map_err(Error::io("lock the log's folder"))?;
        let Some(mut writer_lock) = locked else {
            return Err(Error::Locked { dir: config.dir });
        };
        let clock = Clock::of(&config);
        let mut executor = Executor::new(dir, false, &config);
        if let Err(error) = executor.begin_uring(&config)
            && let Some(meter) = &config.meter
        {
            tell(&**meter, &Event::NoUring(&error));
        }
        let (log, report) = recover(&executor, recovery, &config)?;
        if !executor.dir().lock_manifest(&mut writer_lock) {
            return Err(Error::Locked { dir: config.dir });
        }
        executor.forget_before(log.newest_segment());
        let handle = Handle::new(Arc::new(Self {
            id: log.id(),
            forks: sys::forks(),
            gates: Gates::default(),
            stall: Stall::default(),
            written: AtomicU64::new(log.written().lsn.get()),
            durable: AtomicU64::new(log.durable().lsn.get()),
            rollbacks: AtomicU64::new(0),
            visited: Visited::default(),
            state: Mutex::new(State::new(log, writer_lock)),
            commits: Condvar::new(),
            upkeep: Condvar::new(),
            config,
            executor,
            clock,
        }))?;
        let mut info = RecoveryInfo::from(report);
        let last_frame = info.report.last_frame;
        info.last_valid_position = handle.engine().last_record_position(last_frame)?;
        handle.engine().tell_opened(&info, started.elapsed());
        Ok((handle, info))
    }

    fn tell_opened(&self, info: &RecoveryInfo, duration: Duration) {
        let Some(meter) = self.config.meter.as_deref() else { return };
        tell(meter, &Event::Opened { log: self.id, duration });
        tell(meter, &Event::Recovered(info));
        if let Some(damage) = &info.report.damage {
            tell(meter, &Event::Damage(damage));
        } else if info.bytes_truncated > 0 {
            tell(meter, &Event::TornTail { bytes: info.bytes_truncated });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug of ours; the log itself is poisoned by failed writes
        // only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, for whoever comes from outside.
    fn enter(&self) -> Result<MutexGuard<'_, State>, Error> {
        self.refuse_forked()?;
        Ok(self.lock())
    }

    /// Before the lock is taken, and by whoever holds something of the log's: in a process that was
    /// forked off, a thread that is no more may have it.
    pub(crate) fn refuse_forked(&self) -> Result<(), Error> {
        if self.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// Whether this is a copy, in a process that came off the one that opened the log.
    fn is_forked(&self) -> bool {
        sys::is_forked_since(self.forks)
    }

    /// Takes an append into the log, for a task. What is short is written at once.
    pub(crate) fn append(
        self: &Arc<Self>,
        entries: &[Entry<'_>],
        level: Level,
    ) -> Result<Admitted, Error> {
        let mut state = self.enter()?;
        if entries.first().is_some_and(|entry| self.writes_in_task(entry.stored_bytes()))
            && let Some((appended, write, last)) = state.begin_fast(entries, level)
        {
            drop(state);
            let goal = Goal { level, lsn: appended.last };
            let left = self.stall.watch(|| self.run_fast(write, last, goal));
            let Some((mut state, aftermath)) = left else {
                return Ok(Admitted::Taken(appended, None));
            };
            let slot = (!self.has_reached(goal)).then(|| state.register(level, goal.lsn));
            let state = self.tell_unlocked(state, aftermath);
            return Ok(Admitted::Taken(appended, self.help(state, slot, level)?));
        }
        if let Some(appended) = state.buffer_fast(entries, level) {
            return Ok(Admitted::Taken(appended, None));
        }
        match self.admit(&mut state, entries, level)? {
            Admission::Taken(appended) if level == Level::Buffered => {
                self.leave_work(state);
                Ok(Admitted::Taken(appended, None))
            }
            Admission::Taken(appended) => {
                let slot = state.register(level, appended.last);
                Ok(Admitted::Taken(appended, self.help(state, Some(slot), level)?))
            }
            Admission::Later(slot) => {
                self.leave_work(state);
                Ok(Admitted::Later(self.wait(slot)))
            }
        }
    }

    /// Appends, and waits on this thread until the records have reached `level`.
    pub(crate) fn append_and_block(
        &self,
        entries: &[Entry<'_>],
        level: Level,
    ) -> Result<Appended, Error> {
        let mut state = self.enter()?;
        if let Some((appended, write, last)) = state.begin_fast(entries, level) {
            drop(state);
            let goal = Goal { level, lsn: appended.last };
            if let Some((state, aftermath)) = self.run_fast(write, last, goal) {
                self.end_lead(state, aftermath, goal)?;
            }
            return Ok(appended);
        }
        if let Some(appended) = state.buffer_fast(entries, level) {
            return Ok(appended);
        }
        loop {
            match self.admit(&mut state, entries, level)? {
                Admission::Taken(appended) => {
                    let goal = Goal { level, lsn: appended.last };
                    match level {
                        Level::Buffered => self.leave_work(state),
                        Level::Os => self.lead(state, goal)?,
                        Level::Disk => self.wait_for(state, goal)?,
                    }
                    return Ok(appended);
                }
                Admission::Later(slot) => {
                    self.block_on(state, slot, None, None).unwrap_or(Ok(()))?;
                    state = self.lock();
                }
            }
        }
    }

    /// Runs a write of the core's fast path. Nearly always nothing is to be seen to then: `None`.
    fn run_fast(
        &self,
        write: Write<Memory>,
        mut last: Option<LastFile>,
        goal: Goal,
    ) -> Option<(MutexGuard<'_, State>, Aftermath)> {
        let done = self.executor.execute_write(write, &mut last);
        let mut state = self.lock();
        state.last_file = last;
        state.counters.writes += 1;
        let aftermath = match state.log.complete_fast(done) {
            Ok(()) if state.is_calm() => {
                self.written.store(goal.lsn.get(), Ordering::Release);
                return None;
            }
            Ok(()) => {
                // The append has not told it, and what is due by it may depend on it.
                state.tick(self.clock.now());
                self.after_completion(&mut state, Duration::ZERO, Aftermath::default())
            }
            Err(done) => self.complete(&mut state, done, Duration::ZERO),
        };
        Some((state, aftermath))
    }

    fn admit(
        &self,
        state: &mut State,
        entries: &[Entry<'_>],
        level: Level,
    ) -> Result<Admission, Error> {
        state.tick(self.clock.now());
        if entries.iter().any(Entry::is_timed) {
            state.log.tell_time_of_day(self.clock.time_of_day());
        }
        let result = match entries {
            [entry] => state.log.append(entry, level),
            entries => state.log.append_batch(entries, level),
        };
        match result {
            Ok(appended) => {
                state.count(&appended, entries);
                Ok(Admission::Taken(appended))
            }
            Err(error) => state.later(Error::from_append(error)).map(Admission::Later),
        }
    }

    /// Sees to what a change has brought about, where this thread does not go on itself.
    fn leave_work(&self, mut state: MutexGuard<'_, State>) {
        let aftermath = self.after_change(&mut state, Duration::ZERO);
        self.go(state, aftermath);
    }

    fn wait(self: &Arc<Self>, slot: SlotId) -> Wait {
        Wait { engine: self.clone(), slot: Some(slot) }
    }

    /// Wants everything appended so far to reach a level. `None`: it has.
    pub(crate) fn flush(self: &Arc<Self>, level: Level) -> Result<Option<Wait>, Error> {
        let mut state = self.enter()?;
        let lsn = state.log.flush(level).map_err(refused)?;
        let slot = state.register(level, lsn);
        self.help(state, Some(slot), level)
    }

    /// As [`Engine::flush`], and waits on this thread.
    pub(crate) fn flush_and_block(&self, level: Level) -> Result<(), Error> {
        let mut state = self.enter()?;
        let lsn = state.log.flush(level).map_err(refused)?;
        self.wait_for(state, Goal { level, lsn })
    }

    /// Waits until a record is durable, and sees to it that it becomes so.
    pub(crate) fn wait_durable(self: &Arc<Self>, lsn: Lsn) -> Result<Wait, Error> {
        let mut state = self.enter()?;
        let last = state.log.appended().lsn;
        if lsn > last {
            return Err(Error::BeyondEnd { lsn, last });
        }
        if state.log.durable().lsn >= lsn {
            return Ok(Wait { engine: self.clone(), slot: None });
        }
        if let Some(error) = state.end() {
            return Err(refused(error));
        }
        state.log.flush(Level::Disk).map_err(refused)?;
        let slot = state.register(Level::Disk, lsn);
        self.leave_work(state);
        Ok(self.wait(slot))
    }

    /// Ends the active segment. `Some`: wait and try again.
    pub(crate) fn rotate(self: &Arc<Self>) -> Result<Option<Wait>, Error> {
        let mut state = self.enter()?;
        self.tell_time(&mut state);
        let later = match state.log.rotate() {
            Ok(()) => None,
            Err(error) => Some(self.wait(state.later(Error::from_append(error))?)),
        };
        self.leave_work(state);
        Ok(later)
    }

    /// Begins a request. The first wait is for its end; the second, that another has to end before.
    pub(crate) fn ask(self: &Arc<Self>, ask: Ask) -> Result<Result<Wait, Wait>, Error> {
        let mut state = self.enter()?;
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
                state.put_busy(slot);
                Err(self.wait(slot))
            }
            Err(Some(error)) => {
                drop(state.slots.release(slot));
                return Err(error);
            }
        };
        self.leave_work(state);
        Ok(wait)
    }

    /// Waits for more than `lsn` to be visible. `None`: it is so already, or the log was closed.
    pub(crate) fn follow(
        self: &Arc<Self>,
        lsn: Lsn,
        visibility: Visibility,
    ) -> Result<Option<Wait>, Error> {
        let mut state = self.enter()?;
        let visible = match visibility {
            Visibility::Written => state.log.written(),
            Visibility::Durable => state.log.durable(),
        };
        if visible.lsn > lsn {
            return Ok(None);
        }
        match state.end() {
            Some(AppendError::Closed) => return Ok(None),
            Some(error) => return Err(refused(error)),
            None => {}
        }
        let slot = state.slots.take();
        let State { slots, following_written, following_durable, .. } = &mut *state;
        let following = match visibility {
            Visibility::Written => following_written,
            Visibility::Durable => following_durable,
        };
        slots.make_room(following, |follower| *follower);
        following.push_back(slot);
        Ok(Some(self.wait(slot)))
    }

    /// Waits on this thread until the records of a goal have reached it.
    fn wait_for<'a>(&'a self, mut state: MutexGuard<'a, State>, goal: Goal) -> Result<(), Error> {
        let slot = state.register(goal.level, goal.lsn);
        if goal.level == Level::Os && state.log.is_writing_plainly() {
            state = self.stay_awake(state);
        }
        self.block_on(state, slot, Some(goal), None).unwrap_or(Ok(()))
    }

    /// The same for records that were appended under this very lock and are to be written: who can
    /// do that at once takes no slot.
    ///
    /// Until his command is back nothing undoes them: before a full disk undoes anything, all that
    /// is on its way comes back. Whatever he finds then, he finds under the lock.
    fn lead(&self, mut state: MutexGuard<'_, State>, goal: Goal) -> Result<(), Error> {
        let Some(command) = state.set_out() else { return self.wait_for(state, goal) };
        drop(state);
        let (state, aftermath) = self.execute(command);
        self.end_lead(state, aftermath, goal)
    }

    /// Goes once the goal has been reached, or waits for it.
    fn end_lead(
        &self,
        mut state: MutexGuard<'_, State>,
        aftermath: Aftermath,
        goal: Goal,
    ) -> Result<(), Error> {
        if self.has_reached(goal) {
            self.go(state, aftermath);
            return Ok(());
        }
        let slot = state.register(goal.level, goal.lsn);
        let state = self.tell_unlocked(state, aftermath);
        self.block_on(state, slot, Some(goal), None).unwrap_or(Ok(()))
    }

    /// What a task does before it waits, in a slot, or goes: it writes what is short, and looks
    /// whether another is done with that, for about as long as it takes. It syncs nothing. `None`:
    /// it need not wait.
    fn help<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        slot: Option<SlotId>,
        level: Level,
    ) -> Result<Option<Wait>, Error> {
        if level == Level::Os {
            // Where several wait, one write takes all of them along: theirs is to come together.
            if slot.is_some() && state.log.is_writing_plainly() && state.written.len() == 1 {
                state = self.stay_awake(state);
            }
            state = self.write_short(state);
            let outcome = match slot {
                Some(slot) => state.slots.outcome(slot),
                None => Some(Outcome::Reached),
            };
            if let Some(outcome) = outcome {
                self.go(state, Aftermath::default());
                return outcome.into_result().map(|()| None);
            }
        }
        self.leave_work(state);
        Ok(slot.map(|slot| self.wait(slot)))
    }

    /// Writes what is due and short, on a task's thread.
    fn write_short<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        for _ in 0..TASK_WRITES_MAX {
            let due = state.log.plain_write_due().filter(|bytes| self.writes_in_task(*bytes));
            let Some(command) = due.and_then(|_| state.set_out()) else { break };
            drop(state);
            let (now, aftermath) = self.stall.watch(|| self.execute(command));
            state = self.tell_unlocked(now, aftermath);
        }
        state
    }

    /// Whether a task makes a plain write of so many bytes itself.
    fn writes_in_task(&self, bytes: u64) -> bool {
        bytes <= TASK_WRITE_BYTES_MAX && !self.stall.is_on()
    }

    /// Waits, without sleep, for about as long as a short write takes: a switch of threads takes
    /// several times that.
    fn stay_awake<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let before = self.written.load(Ordering::Acquire);
        state.awake += 1;
        drop(state);
        for _ in 0..SPINS {
            if self.written.load(Ordering::Acquire) != before {
                break;
            }
            sync::spin();
        }
        let mut state = self.lock();
        state.awake -= 1;
        state
    }

    /// Waits on this thread until the slot has its outcome, which frees it, and leads meanwhile
    /// where there is work. `None`: the deadline has come first, and the slot is still taken.
    fn block_on<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        slot: SlotId,
        goal: Option<Goal>,
        deadline: Option<Instant>,
    ) -> Option<Result<(), Error>> {
        loop {
            if let Some(outcome) = state.slots.outcome(slot) {
                self.go(state, Aftermath::default());
                return Some(outcome.into_result());
            }
            // Before he runs one more command: others may have them run without end.
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.go(state, Aftermath::default());
                return None;
            }
            if let Some(command) = state.next_commit() {
                drop(state);
                state = self.run(command);
                continue;
            }
            let aftermath = self.after_change(&mut state, Duration::ZERO);
            if !aftermath.is_empty() {
                // Who is told may be code of the user's, which may append in its turn.
                drop(state);
                self.tell(aftermath);
                state = self.lock();
                continue;
            }
            if !state.slots.is_waiting(slot) {
                continue;
            }
            let watch = if state.holds_back() { state.gather.watch() } else { None };
            if let Some(watch) = watch {
                let parker = state.slots.wake_thread(slot);
                drop(state);
                let patience = Instant::now().checked_add(watch.patience);
                let is_told = parker.park(patience.into_iter().chain(deadline).min());
                state = self.lock();
                let is_over = patience.is_some_and(|patience| patience <= Instant::now());
                state.gather.unwatch(watch, !is_told && is_over);
                continue;
            }
            if let Some(goal) = goal {
                let gate = state.turns.gate(goal.level);
                state.slots.wake_at(slot, gate);
                let gate = self.gates.gate(gate);
                let (turn, rollbacks) = (gate.turn(), self.rollbacks());
                drop(state);
                gate.sleep(turn);
                if self.has_reached(goal) && self.rollbacks() == rollbacks {
                    return Some(Ok(()));
                }
            } else {
                let parker = state.slots.wake_thread(slot);
                drop(state);
                parker.park(deadline);
            }
            state = self.lock();
        }
    }

    /// Whoever goes leaves nothing undone that nobody else would do.
    fn go(&self, mut state: MutexGuard<'_, State>, mut aftermath: Aftermath) {
        self.hand_over(&mut state, &mut aftermath.wakes);
        drop(state);
        self.tell(aftermath);
    }

    fn has_reached(&self, Goal { level, lsn }: Goal) -> bool {
        let watermark = if level == Level::Disk { &self.durable } else { &self.written };
        watermark.load(Ordering::Acquire) >= lsn.get()
    }

    /// After any of them an LSN may stand for another record.
    fn rollbacks(&self) -> u64 {
        self.rollbacks.load(Ordering::Acquire)
    }

    /// Runs a command without the lock, completes it, and tells what follows.
    fn run(&self, command: Command<Memory>) -> MutexGuard<'_, State> {
        let (state, aftermath) = self.execute(command);
        self.tell_unlocked(state, aftermath)
    }

    /// Tells what there is to tell, without the lock: who is told may be code of the user's.
    fn tell_unlocked<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        aftermath: Aftermath,
    ) -> MutexGuard<'a, State> {
        if aftermath.is_empty() {
            return state;
        }
        drop(state);
        self.tell(aftermath);
        self.lock()
    }

    /// Runs a command without the lock, and completes it.
    fn execute(&self, command: Command<Memory>) -> (MutexGuard<'_, State>, Aftermath) {
        let operation = command.operation();
        let syncs = match &command {
            Command::Write(write) => write.sync,
            _ => operation == Operation::Sync,
        };
        let started = syncs.then(Instant::now);
        let done = self.executor.execute(command);
        let duration = started.map(|started| started.elapsed()).unwrap_or_default();
        let mut state = self.lock();
        state.under_way -= 1;
        if (state.stops || state.log.is_closed()) && state.under_way == 0 {
            self.nothing_is_under_way(&mut state);
        }
        state.counters.writes += u64::from(operation == Operation::Write);
        if syncs {
            state.counters.syncs += 1;
            state.counters.sync_time += duration;
        }
        let aftermath = self.complete(&mut state, done, duration);
        (state, aftermath)
    }

    fn complete(&self, state: &mut State, done: Done<Memory>, took: Duration) -> Aftermath {
        let waited = state.durable.len();
        let rolled_back = state.log.complete(done);
        if !took.is_zero() {
            self.tell_time(state);
        }
        let mut aftermath = Aftermath::default();
        if let Some(rolled_back) = rolled_back {
            self.rollbacks.fetch_add(1, Ordering::AcqRel);
            state.roll_back(rolled_back, &mut aftermath.wakes);
        }
        aftermath = self.after_completion(state, took, aftermath);
        if !took.is_zero() {
            let waiting = state.durable.len();
            state.gather.served(waited.saturating_sub(waiting), waiting, took);
        }
        aftermath
    }

    /// What follows from a completion, besides who is told already.
    fn after_completion(
        &self,
        state: &mut State,
        took: Duration,
        mut aftermath: Aftermath,
    ) -> Aftermath {
        for slot in state.busy.drain(..) {
            state.slots.finish(slot, Outcome::Reached, &mut aftermath.wakes);
        }
        self.see_to_change(state, took, &mut aftermath);
        aftermath
    }

    /// What follows from any change: who is satisfied, what there is to tell, what is due.
    fn after_change(&self, state: &mut State, took: Duration) -> Aftermath {
        let mut aftermath = Aftermath::default();
        self.see_to_change(state, took, &mut aftermath);
        aftermath
    }

    fn see_to_change(&self, state: &mut State, took: Duration, aftermath: &mut Aftermath) {
        // Before anybody is told: asking for commands may end a request that needs none.
        while let Some(command) = state.log.poll_lane(Lane::Background) {
            state.background.push_back(command);
        }
        state.settle(&mut aftermath.wakes);
        let is_over = state.is_over();
        let State { log, slots, following_written, following_durable, .. } = &mut *state;
        for (known, now, following) in [
            (&self.written, log.written(), following_written),
            (&self.durable, log.durable(), following_durable),
        ] {
            let now = now.lsn.get();
            if known.swap(now, Ordering::Release) != now || is_over {
                for slot in following.drain(..) {
                    slots.finish(slot, Outcome::Reached, &mut aftermath.wakes);
                }
            }
        }
        if state.segments_version != state.log.segments_version() {
            state.segments_version = state.log.segments_version();
            // It may be a deleted segment's, whose space goes when nobody has it open.
            state.last_file = None;
            self.executor.forget_before(state.log.newest_segment());
            self.visited.keep_only(state.log.segments());
        }
        while let Some(event) = state.log.poll_event() {
            if self.config.meter.is_some() {
                aftermath.events.push((event, took));
            }
        }
        let is_late = match (state.commits_sleep, state.log.next_deadline()) {
            (Sleep::Until(until), Some(deadline)) => deadline < until,
            (Sleep::UntilWoken, Some(_)) => true,
            _ => false,
        };
        if is_late || state.log.is_closed() {
            self.wake_commits(state);
        }
        if !state.background.is_empty() || state.log.is_closed() {
            self.upkeep.notify_one();
        }
    }

    /// If a commit is due, somebody else is to make it: the only thread that waits, which is spared
    /// a second switch so, or else the log's own, which goes on for as long as there are more.
    fn hand_over(&self, state: &mut State, wakes: &mut Wakes) {
        // Who is awake looks for it before he sleeps or goes.
        if state.awake > 0
            || !state.log.is_commit_due()
            || (state.holds_back() && state.gather.is_watched())
        {
            return;
        }
        let mut waiting = state.durable.iter().chain(&state.written);
        if let (Some((_, slot)), None) = (waiting.next(), waiting.next())
            && state.slots.has_lead(*slot, wakes)
        {
            return;
        }
        self.wake_commits(state);
    }

    fn wake_commits(&self, state: &mut State) {
        let sleep = std::mem::replace(&mut state.commits_sleep, Sleep::Awake);
        if sleep != Sleep::Awake {
            self.commits.notify_one();
        }
    }

    fn tell(&self, aftermath: Aftermath) {
        if aftermath.is_empty() {
            return;
        }
        aftermath.wakes.wake(&self.gates);
        let Some(meter) = self.config.meter.as_deref() else { return };
        for (event, duration) in aftermath.events {
            let event = match event {
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
            };
            tell(meter, &event);
        }
    }

    /// Tells the log the time and the time of day, which somebody may have set. What is no record
    /// with a TTL is not worth a second look at a clock for each append.
    fn tell_time(&self, state: &mut State) {
        state.tick(self.clock.now());
        state.log.tell_time_of_day(self.clock.time_of_day());
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
    ahead::run(&mut recovery, executor, config);
    executor.keeper().have_read(recovery.take_read_whole());
    let failed = |error| Error::Recovery { dir: PathBuf::from(&config.dir), error };
    recovery.finish().map_err(failed)
}

impl Aftermath {
    fn is_empty(&self) -> bool {
        self.wakes.is_empty() && self.events.is_empty()
    }
}
