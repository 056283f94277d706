//! What waiting costs at least: the floor of durable appends once more, where a thread or a task
//! sleeps until its record is durable. All of them are there before each sync, nobody takes a lock
//! but to join, and what can be woken with one call is.

use crate::contestant::Outcome;
use crate::floor::Synced;
use crate::measure::{Clock, Measured};
use rustix::thread::futex::{self, Flags};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};

/// Threads, the last of which to come makes the sync.
struct Threads {
    writers: u32,
    /// How many have come.
    joined: AtomicU32,
    /// How many syncs there were.
    round: AtomicU32,
    is_over: AtomicBool,
    synced: Mutex<Synced>,
    /// Behind this all threads have been started.
    started: Barrier,
    clock: OnceLock<Clock>,
}

impl Threads {
    fn synced(&self) -> MutexGuard<'_, Synced> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> Outcome<()> {
        self.started.wait();
        // The first to go on starts it.
        self.clock.get_or_init(|| self.synced().begin());
        while !self.is_over.load(Ordering::Acquire) {
            let round = self.round.load(Ordering::Acquire);
            if self.joined.fetch_add(1, Ordering::AcqRel) + 1 < self.writers {
                while self.round.load(Ordering::Acquire) == round {
                    // Whoever is woken for nothing looks again.
                    let _ = futex::wait(&self.round, Flags::PRIVATE, round, None);
                }
                continue;
            }
            let went_on = self.synced().step();
            self.joined.store(0, Ordering::Relaxed);
            self.is_over.store(!matches!(went_on, Ok(true)), Ordering::Release);
            self.round.store(round + 1, Ordering::Release);
            futex::wake(&self.round, Flags::PRIVATE, u32::MAX >> 1)?;
            went_on?;
        }
        Ok(())
    }
}

pub(crate) fn threads(synced: Synced, writers: usize) -> Outcome<Measured> {
    let threads = Threads {
        writers: u32::try_from(writers)?,
        joined: AtomicU32::new(0),
        round: AtomicU32::new(0),
        is_over: AtomicBool::new(false),
        synced: Mutex::new(synced),
        started: Barrier::new(writers),
        clock: OnceLock::new(),
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..writers).map(|_| scope.spawn(|| threads.write())).collect();
        all.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a writer panicked")?)
    })?;
    let clock = threads.clock.into_inner().ok_or("nobody wrote")?;
    let synced = threads.synced.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(synced.end(&clock, writers))
}

/// Tasks, for which a thread of its own makes the syncs.
#[derive(Default)]
struct Tasks {
    /// Those who have come.
    joined: Mutex<Vec<Waker>>,
    has_joined: Condvar,
    round: AtomicU32,
    is_over: AtomicBool,
}

impl Tasks {
    async fn write(&self, writers: usize) {
        while !self.is_over.load(Ordering::Acquire) {
            let round = self.round.load(Ordering::Acquire);
            let mut has_joined = false;
            poll_fn(|context| {
                if self.round.load(Ordering::Acquire) != round {
                    return Poll::Ready(());
                }
                if !std::mem::replace(&mut has_joined, true) {
                    let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
                    joined.push(context.waker().clone());
                    if joined.len() == writers {
                        self.has_joined.notify_one();
                    }
                }
                Poll::Pending
            })
            .await;
        }
    }

    fn sync(&self, synced: &mut Synced, writers: usize) -> Outcome<()> {
        loop {
            let joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
            let all = self.has_joined.wait_while(joined, |joined| joined.len() < writers);
            let woken = std::mem::take(&mut *all.unwrap_or_else(PoisonError::into_inner));
            let went_on = synced.step();
            let is_over = !matches!(went_on, Ok(true));
            self.is_over.store(is_over, Ordering::Release);
            self.round.fetch_add(1, Ordering::Release);
            woken.into_iter().for_each(Waker::wake);
            if is_over {
                return went_on.map(|_| ());
            }
        }
    }
}

pub(crate) fn tasks(mut synced: Synced, writers: usize) -> Outcome<Measured> {
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let tasks = Arc::new(Tasks::default());
    let clock = synced.begin();
    for _ in 0..writers {
        let tasks = tasks.clone();
        runtime.spawn(async move { tasks.write(writers).await });
    }
    tasks.sync(&mut synced, writers)?;
    Ok(synced.end(&clock, writers))
}
