//! Locks, threads and atomics: the standard library's, or a model checker's in their place.
//!
//! With `--cfg shuttle` every lock taken, every park and every atomic is a point at which the
//! checker may switch threads, so that a test goes through schedules no machine would show it.

use std::sync::PoisonError;
use std::time::Duration;

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle, Thread},
    thread_local,
};
#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle, Thread},
    thread_local,
};

/// Parks, for no longer than `left`.
pub(crate) fn park_timeout(left: Duration) {
    #[cfg(not(shuttle))]
    thread::park_timeout(left);
    // Time passes at will there, and nothing tells how much.
    #[cfg(shuttle)]
    {
        let _ = left;
        thread::yield_now();
    }
}

/// Lets some tens of cycles pass.
pub(crate) fn spin() {
    #[cfg(not(shuttle))]
    std::hint::spin_loop();
    #[cfg(shuttle)]
    thread::yield_now();
}

/// Waits at `condvar` for no longer than `left`, and says whether that was it.
pub(crate) fn wait_timeout<'a, T>(
    condvar: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    left: Duration,
) -> (MutexGuard<'a, T>, bool) {
    #[cfg(not(shuttle))]
    {
        let _ = mutex;
        let waited = condvar.wait_timeout(guard, left);
        let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
        (guard, result.timed_out())
    }
    #[cfg(shuttle)]
    {
        let _ = (condvar, left);
        drop(guard);
        thread::yield_now();
        (mutex.lock().unwrap_or_else(PoisonError::into_inner), true)
    }
}

/// Where many threads sleep and all are woken at once, with one call of the operating system.
///
/// Who opens it wakes those who have looked at [`Gate::turn`] before. A thread that looked and does
/// not sleep yet then does not fall asleep.
#[cfg(not(shuttle))]
#[derive(Debug, Default)]
pub(crate) struct Gate(std::sync::atomic::AtomicU32);

#[cfg(not(shuttle))]
impl Gate {
    pub(crate) fn turn(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Sleeps until the gate has been opened since `turn`, or for no reason at all.
    pub(crate) fn sleep(&self, turn: u32) {
        atomic_wait::wait(&self.0, turn);
    }

    pub(crate) fn open(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
        atomic_wait::wake_all(&raw const self.0);
    }
}

#[cfg(shuttle)]
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<u32>, Condvar);

#[cfg(shuttle)]
impl Gate {
    pub(crate) fn turn(&self) -> u32 {
        *self.0.lock().unwrap()
    }

    pub(crate) fn sleep(&self, turn: u32) {
        let now = self.0.lock().unwrap();
        if *now == turn {
            drop(self.1.wait(now).unwrap());
        }
    }

    pub(crate) fn open(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }
}
