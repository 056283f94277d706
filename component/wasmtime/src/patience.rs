//! Staying awake for what comes soon: a thread that sleeps and is woken loses ten microseconds and
//! more, several times what a call of the component takes that syncs nothing.

use std::time::{Duration, Instant};

/// For so long.
const PATIENCE: Duration = Duration::from_micros(20);

/// Until when to go on looking; `None`: once is enough.
#[derive(Debug)]
pub(crate) struct Patience(Option<Instant>);

impl Patience {
    /// Begins now.
    pub(crate) fn new(is_short: bool) -> Self {
        Self(is_short.then(|| Instant::now() + PATIENCE))
    }

    /// Whether to look again, after a moment that this call takes.
    pub(crate) fn is_left(&self) -> bool {
        std::hint::spin_loop();
        self.0.is_some_and(|until| Instant::now() < until)
    }
}
