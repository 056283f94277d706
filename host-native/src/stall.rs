//! Whether tasks make short writes themselves.
//!
//! A short write to the page cache takes about a microsecond; to have a thread of the log's own
//! make it takes twenty, for two switches of threads. But a kernel that has much to write back lets
//! writers wait, and no worker of a runtime is to be held for long. So tasks write until a write
//! has taken long, and leave writes to the log's thread for a while then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A write that takes longer holds its writer; what a busy machine does to a thread is shorter.
const STALL: Duration = Duration::from_millis(1);
/// Tasks leave writes alone for so many times as long as it took: a worker is held for a tenth of
/// its time at most,
const PAUSES: u32 = 10;
/// and for so long at most: a second such write tells soon enough that it goes on.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The last stall, while it matters.
#[derive(Debug)]
pub(crate) struct Stall {
    start: Instant,
    /// When it no longer matters, in microseconds after `start`; 0: there was none.
    over: AtomicU64,
}

impl Default for Stall {
    fn default() -> Self {
        Self { start: Instant::now(), over: AtomicU64::new(0) }
    }
}

impl Stall {
    fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether tasks are to leave writes alone. Looks at the clock only where there was a stall.
    pub(crate) fn is_on(&self) -> bool {
        let over = self.over.load(Ordering::Relaxed);
        over > 0 && self.micros() < over
    }

    /// Makes a task's write, and sees how long it takes.
    pub(crate) fn watch<T>(&self, write: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let written = write();
        self.see(began.elapsed());
        written
    }

    fn see(&self, took: Duration) {
        if let Some(pause) = pause_after(took) {
            let pause = u64::try_from(pause.as_micros()).unwrap_or(0);
            self.over.store(self.micros().saturating_add(pause), Ordering::Relaxed);
        }
    }
}

/// How long tasks leave writes alone after one that took so long.
fn pause_after(took: Duration) -> Option<Duration> {
    (took >= STALL).then(|| took.saturating_mul(PAUSES).min(PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_leave_writes_alone_after_one_that_took_long() {
        let stall = Stall::default();
        stall.see(STALL / 2);
        assert!(!stall.is_on());
        stall.see(STALL);
        assert!(stall.over.load(Ordering::Relaxed) >= 10_000);
        stall.over.store(u64::MAX, Ordering::Relaxed);
        stall.see(Duration::ZERO);
        assert!(stall.is_on(), "a short one does not end it");
        for (took, pause) in [
            (STALL / 2, None),
            (STALL, Some(10 * STALL)),
            (3 * STALL, Some(30 * STALL)),
            (50 * STALL, Some(PAUSE_MAX)),
            (Duration::MAX, Some(PAUSE_MAX)),
        ] {
            assert_eq!(pause_after(took), pause, "{took:?}");
        }
        stall.over.store(1, Ordering::Relaxed);
        while stall.micros() < 1 {
            std::hint::spin_loop();
        }
        assert!(!stall.is_on());
    }
}
