//! Staying awake for what comes soon: a thread that sleeps and is woken loses ten microseconds and
//! more, several times what a call of the component takes that syncs nothing.

use std::time::{Duration, Instant};

/// For so long.
const PATIENCE: Duration = Duration::from_micros(20);

/// How long to go on looking, from the first look on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    None,
    Fresh,
    Until(Instant),
}

impl Patience {
    pub(crate) const fn new() -> Self {
        Self::Fresh
    }

    pub(crate) const fn none() -> Self {
        Self::None
    }

    /// Whether to look again, after a moment that this call takes.
    pub(crate) fn is_left(&mut self) -> bool {
        let now = Instant::now();
        let until = match *self {
            Self::None => return false,
            Self::Fresh => now + PATIENCE,
            Self::Until(until) => until,
        };
        *self = if now < until { Self::Until(until) } else { Self::None };
        std::hint::spin_loop();
        now < until
    }
}
