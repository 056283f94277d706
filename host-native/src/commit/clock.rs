//! What time it is: for deadlines a clock that nobody sets, for records the time of day.

use crate::config::{Injected, WalConfig};
use seawall_core::id::Time;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What time it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// When the log was opened, and what time of day it was then, in microseconds.
    Running { opened: Instant, base: u64 },
    /// It stands still.
    Told(Time),
}

impl Clock {
    pub(super) fn of(config: &WalConfig) -> Self {
        match config.injected {
            Some(Injected { now, .. }) => Self::Told(now),
            None => Self::Running { opened: Instant::now(), base: since_epoch() },
        }
    }

    /// The time that deadlines are in: nobody sets it, and it does not pass while the machine
    /// sleeps.
    pub(super) fn now(&self) -> Time {
        match self {
            Self::Running { opened, base } => {
                Time::from_micros(base.saturating_add(micros(opened.elapsed())))
            }
            Self::Told(now) => *now,
        }
    }

    /// The time that others read from a clock.
    pub(super) fn time_of_day(&self) -> Time {
        match self {
            Self::Running { .. } => Time::from_micros(since_epoch()),
            Self::Told(now) => *now,
        }
    }
}

/// The system's time of day, in microseconds.
fn since_epoch() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Without 128-bit numbers, which [`Duration::as_micros`] has.
fn micros(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000);
    seconds.saturating_add(u64::from(duration.subsec_micros()))
}
