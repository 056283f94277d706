//! The two threads of the log's own, one more while old segments are removed, and the handle that
//! ends them.

use super::{Engine, Memory, Sleep, State};
use crate::error::Error;
use crate::meter::{Event, tell};
use crate::sync::{JoinHandle, Mutex, MutexGuard, thread, wait_timeout};
use seawall_core::command::Command;
use seawall_core::config::Level;
use seawall_core::wire::name::FileId;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// An open log and its threads, which end when this is dropped.
pub(crate) struct Handle {
    engine: Arc<Engine>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Handle {
    pub(super) fn new(engine: Arc<Engine>) -> Result<Self, Error> {
        let handle = Self { engine, threads: Mutex::new(Vec::new()) };
        for worker in [Worker::Commits, Worker::Upkeep] {
            let thread = handle.engine.spawn(worker);
            handle.threads().push(thread.map_err(Error::io("start a thread of the log"))?);
            handle.engine.lock().at_work += 1;
        }
        Ok(handle)
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the log's threads have ended. A task's waker or a meter, called by one of them,
    /// may have held the last of the log: then they end by themselves.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut *self.threads());
        let current = thread::current().id();
        if threads.iter().any(|thread| thread.thread().id() == current) {
            return;
        }
        for thread in threads {
            if thread.join().is_err() {
                // It panicked, and has told so on standard error.
                self.engine.leave(self.engine.lock());
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.engine.is_forked() {
            // The log's threads, and with them its locks, are the other process's.
            let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(std::mem::take(threads));
            return;
        }
        self.engine.stop();
        self.join();
    }
}

/// A thread of the log's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Worker {
    Commits,
    Upkeep,
    /// Only while old segments are removed: a file system takes a millisecond for each few MiB,
    /// and nothing else that is done ahead of need is to wait for that.
    Removals,
}

impl Worker {
    const fn name(self) -> &'static str {
        match self {
            Self::Commits => "seawall-commits",
            Self::Upkeep => "seawall-upkeep",
            Self::Removals => "seawall-removes",
        }
    }
}

impl Engine {
    fn spawn(self: &Arc<Self>, worker: Worker) -> io::Result<JoinHandle<()>> {
        let engine = self.clone();
        let thread = thread::Builder::new().name(worker.name().to_owned());
        thread.spawn(move || engine.work(worker))
    }

    /// What a thread of the log's own does.
    fn work(self: &Arc<Self>, worker: Worker) {
        match worker {
            Worker::Commits => self.leave(self.make_commits()),
            Worker::Upkeep => self.leave(self.do_upkeep()),
            Worker::Removals => self.make_removals(),
        }
    }

    fn make_commits(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        loop {
            self.tell_time(&mut state);
            let aftermath = self.after_change(&mut state, Duration::ZERO);
            state = self.tell_unlocked(state, aftermath);
            if let Some(command) = state.next_commit() {
                drop(state);
                state = self.run(command);
                continue;
            }
            // Who reads with a thread of its own may have a commit under way, and leave more.
            if state.log.is_closed() || (state.stops && state.under_way == 0) {
                return state;
            }
            let watch = if state.holds_back() { state.gather.watch() } else { None };
            let now = self.clock.now();
            let over = watch.map(|watch| now.plus(watch.patience));
            let deadline = [over, state.log.next_deadline()].into_iter().flatten().min();
            state.commits_sleep = deadline.map_or(Sleep::UntilWoken, Sleep::Until);
            state = match deadline {
                None => self.commits.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.as_micros().saturating_sub(now.as_micros());
                    let left = Duration::from_micros(left);
                    let (mut state, is_late) =
                        wait_timeout(&self.commits, &self.state, state, left);
                    if let Some(watch) = watch {
                        state.gather.unwatch(watch, is_late && Some(deadline) == over);
                    }
                    state
                }
            };
            state.commits_sleep = Sleep::Awake;
        }
    }

    fn do_upkeep(self: &Arc<Self>) -> MutexGuard<'_, State> {
        let mut keeper = self.executor.take_keeper();
        let mut state = self.lock();
        loop {
            let aftermath = self.after_change(&mut state, Duration::ZERO);
            state = self.tell_unlocked(state, aftermath);
            if let Some(command) = state.next_upkeep() {
                state = if removes_old(&state, &command) {
                    self.remove_apart(state, command)
                } else {
                    drop(state);
                    self.leave_work(self.run(command));
                    self.lock()
                };
                continue;
            }
            // The last commits may leave something to do, and so may the last removal.
            let is_over = state.log.is_closed() || (state.stops && state.at_work == 1);
            let is_last = is_over && state.removing == 0;
            let due = keeper.due(&state.log);
            if due.is_empty() && !is_last {
                state = self.upkeep.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if !due.is_empty() {
                drop(state);
                let noted = keeper.look_at(self.executor.dir(), &due);
                if let (Err(error), Some(meter)) = (noted, self.config.meter.as_deref()) {
                    tell(meter, &Event::NoCatalog(&error));
                }
                state = self.lock();
            }
            if is_last {
                return state;
            }
        }
    }

    /// Has a thread remove an old segment, which ends once there are no more.
    fn remove_apart<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        command: Command<Memory>,
    ) -> MutexGuard<'a, State> {
        let has_thread = state.removing > 0;
        state.removals.push_back(command);
        state.removing += 1;
        drop(state);
        if !has_thread && self.spawn(Worker::Removals).is_err() {
            // Everything else waits then.
            self.make_removals();
        }
        self.lock()
    }

    fn make_removals(&self) {
        let mut state = self.lock();
        while let Some(command) = state.removals.pop_front() {
            drop(state);
            let (now, aftermath) = self.execute(command);
            state = now;
            // Before anybody is told: whoever is may drop the log, which waits for the upkeep, and
            // that for this.
            state.removing -= 1;
            let is_last = state.removing == 0;
            self.upkeep.notify_one();
            self.leave_work(self.tell_unlocked(state, aftermath));
            if is_last {
                return;
            }
            state = self.lock();
        }
    }

    /// A thread of the log's own has ended. Nothing more happens once all have, and the lock is
    /// free then.
    fn leave(&self, mut state: MutexGuard<'_, State>) {
        state.at_work = state.at_work.saturating_sub(1);
        self.upkeep.notify_one();
        if state.at_work > 0 {
            return;
        }
        state.free_lock();
        let aftermath = self.after_change(&mut state, Duration::ZERO);
        drop(state);
        self.tell(aftermath);
    }

    /// The last command that was under way in a log that ends is complete: whoever has waited for
    /// that goes on.
    pub(super) fn nothing_is_under_way(&self, state: &mut State) {
        state.free_lock();
        self.wake_commits(state);
        self.upkeep.notify_one();
    }

    /// Lets the log's threads end, once they have written what there is, and made it durable where
    /// the policy promises that.
    fn stop(&self) {
        let mut state = self.lock();
        state.stops = true;
        let level = match self.config.fsync_policy {
            seawall_core::config::FsyncPolicy::Os => Level::Os,
            _ => Level::Disk,
        };
        // A poisoned log has nothing left to write.
        state.log.flush(level).ok();
        self.wake_commits(&mut state);
        self.upkeep.notify_one();
    }
}

impl State {
    /// Frees the writer's lock, once none of the log's threads is left and no command is under way.
    fn free_lock(&mut self) {
        if self.at_work == 0 && self.under_way == 0 {
            self.writer_lock = None;
        }
    }
}

/// Whether a command removes a segment that others came after. Of what else is removed none is
/// long, or the log does not go on meanwhile.
fn removes_old(state: &State, command: &Command<Memory>) -> bool {
    let Command::Remove(remove) = command else { return false };
    matches!(remove.name.file, FileId::Segment(segment) if segment < state.log.newest_segment())
}
