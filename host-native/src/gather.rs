//! Whether a sync waits for those who are about to append.
//!
//! Writers that one sync has served come back at nearly the same moment. Without this the first of
//! them sets the next sync off, and the others wait for the one after: two groups take turns, and
//! each sync carries half of what it could. So a sync waits until as many wait for it as the last
//! has shown there to be; whoever completes the number leads.
//!
//! The wait has an end, which somebody who waits keeps. Writers that do not come back are not
//! waited for twice: after a wait in vain the next syncs set out at once, more of them each time.

use std::time::Duration;

/// More writers than this are not waited for: one group appends while the other's sync runs then,
/// and one thread makes all commits. Processors, not syncs, are what limits; see
/// docs/PERFORMANCE.md.
const EXPECTED_MAX: usize = 64;

/// After a wait in vain this many syncs at most set out without another.
const SKIPS_MAX: u32 = 256;

/// So many times the last sync's length: past its own end at the latest, so that who keeps the time
/// is nearly always woken by the sync and not by the clock.
const PATIENCE: u32 = 2;

#[derive(Debug, Default)]
pub(crate) struct Gather {
    window: Option<Window>,
    windows: u64,
    /// So many syncs set out at once.
    skips: u32,
    /// How often in a row a wait was in vain.
    misses: u32,
}

#[derive(Debug)]
struct Window {
    number: u64,
    expected: usize,
    patience: Duration,
    is_watched: bool,
}

/// For whoever keeps the time of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Watch {
    number: u64,
    pub(crate) patience: Duration,
}

impl Gather {
    /// A sync that took so long has served so many, and so many others wait already.
    pub(crate) fn served(&mut self, served: usize, waiting: usize, took: Duration) {
        let expected = served + waiting;
        self.window = None;
        if served == 0 || !(2..=EXPECTED_MAX).contains(&expected) {
            return;
        }
        if self.skips > 0 {
            self.skips -= 1;
            return;
        }
        self.windows += 1;
        let (number, patience) = (self.windows, took * PATIENCE);
        self.window = Some(Window { number, expected, patience, is_watched: false });
    }

    /// Whether the next sync waits for more, where so many wait for it.
    pub(crate) fn holds(&self, waiting: usize) -> bool {
        self.window.as_ref().is_some_and(|window| waiting < window.expected)
    }

    /// The one who asks is to keep the time; `None`: another does.
    pub(crate) fn watch(&mut self) -> Option<Watch> {
        let window = self.window.as_mut().filter(|window| !window.is_watched)?;
        window.is_watched = true;
        Some(Watch { number: window.number, patience: window.patience })
    }

    /// Whether somebody keeps the time.
    pub(crate) fn is_watched(&self) -> bool {
        self.window.as_ref().is_some_and(|window| window.is_watched)
    }

    /// Who has kept the time does so no longer, and says whether it is over.
    pub(crate) fn unwatch(&mut self, watch: Watch, is_over: bool) {
        let Some(window) = self.window.as_mut().filter(|window| window.number == watch.number)
        else {
            return;
        };
        window.is_watched = false;
        if is_over {
            self.window = None;
            self.misses = (self.misses + 1).min(SKIPS_MAX.ilog2());
            self.skips = 1 << self.misses;
        }
    }

    /// The next sync sets out at once, whoever is expected.
    pub(crate) fn give_up(&mut self) {
        self.window = None;
    }

    /// A sync sets out.
    pub(crate) fn set_out(&mut self) {
        if self.window.take().is_some() {
            self.misses = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_micros(100);

    #[test]
    fn a_lone_writer_never_waits() {
        let mut gather = Gather::default();
        assert!(!gather.holds(0));
        gather.served(1, 0, SYNC);
        assert!(!gather.holds(0));
        gather.served(0, 5, SYNC);
        assert!(!gather.holds(0), "nobody was served, so nobody is about to come back");
    }

    #[test]
    fn as_many_are_waited_for_as_there_were() {
        let mut gather = Gather::default();
        gather.served(3, 2, SYNC);
        assert!(gather.holds(2) && gather.holds(4));
        assert!(!gather.holds(5));
        let watch = gather.watch().unwrap();
        assert_eq!(watch.patience, 2 * SYNC);
        assert_eq!(gather.watch(), None, "one is enough");
        gather.unwatch(watch, false);
        assert!(gather.holds(4) && !gather.is_watched());
        assert_eq!(gather.watch(), Some(watch), "another takes over");
        gather.set_out();
        assert!(!gather.holds(0));
        gather.served(EXPECTED_MAX, 0, SYNC);
        assert!(gather.holds(EXPECTED_MAX - 1) && !gather.holds(EXPECTED_MAX));
        gather.served(EXPECTED_MAX, 1, SYNC);
        assert!(!gather.holds(0), "that many are served better in two groups");
    }

    #[test]
    fn a_sync_that_falls_due_waits_for_nobody_and_holds_it_against_nobody() {
        let mut gather = Gather::default();
        gather.served(4, 0, SYNC);
        let watch = gather.watch().unwrap();
        gather.give_up();
        assert!(!gather.holds(1));
        gather.unwatch(watch, true);
        gather.served(4, 0, SYNC);
        assert!(gather.holds(1), "that was no wait in vain");
    }

    #[test]
    fn who_does_not_come_back_is_waited_for_less_and_less() {
        let mut gather = Gather::default();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let mut pause = 0;
            loop {
                gather.served(2, 0, SYNC);
                if gather.holds(1) {
                    break;
                }
                pause += 1;
            }
            pauses.push(pause);
            let watch = gather.watch().unwrap();
            gather.unwatch(watch, true);
        }
        assert_eq!(pauses, [0, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
        // Once they do, they are waited for again.
        for _ in 0..256 {
            gather.served(2, 0, SYNC);
        }
        gather.served(2, 0, SYNC);
        assert!(gather.holds(1));
        gather.set_out();
        gather.served(2, 0, SYNC);
        let old = gather.watch().unwrap();
        gather.served(2, 0, SYNC);
        gather.unwatch(old, true);
        assert!(gather.holds(1), "that was the wait before");
        let watch = gather.watch().unwrap();
        gather.unwatch(watch, true);
        gather.served(2, 0, SYNC);
        gather.served(2, 0, SYNC);
        assert!(!gather.holds(1));
        gather.served(2, 0, SYNC);
        assert!(gather.holds(1));
    }
}
