//! From a history that ends badly to the shortest found that ends badly in the same way.

use crate::disk::Fault;
use crate::history::{Event, History, Step};
use seawall_core::config::Level;
use std::time::{Duration, Instant};

/// Leaves out what can be left out, and makes simpler what can be, while `fails` holds. Ends when
/// nothing gets it further, or when `limit` is over.
pub fn shrink(
    history: &History,
    limit: Duration,
    mut fails: impl FnMut(&History) -> bool,
) -> History {
    let started = Instant::now();
    let mut best = history.clone();
    loop {
        let before = best.clone();
        leave_out(&mut best, started, limit, &mut fails);
        simplify(&mut best, started, limit, &mut fails);
        if best == before || started.elapsed() > limit {
            return best;
        }
    }
}

/// Leaves out runs of events: half of all at once first, single ones last.
fn leave_out(
    best: &mut History,
    started: Instant,
    limit: Duration,
    fails: &mut impl FnMut(&History) -> bool,
) {
    let mut run = best.events.len().div_ceil(2).max(1);
    loop {
        let mut at = best.events.len();
        while at > 0 && started.elapsed() <= limit {
            let from = at.saturating_sub(run);
            let mut shorter = best.clone();
            shorter.events.drain(from..at);
            if fails(&shorter) {
                *best = shorter;
            }
            at = from.min(best.events.len());
        }
        if run == 1 || started.elapsed() > limit {
            return;
        }
        run = run.div_ceil(2);
    }
}

fn simplify(
    best: &mut History,
    started: Instant,
    limit: Duration,
    fails: &mut impl FnMut(&History) -> bool,
) {
    for at in 0..best.events.len() {
        for event in simpler(best.events[at]) {
            if started.elapsed() > limit {
                return;
            }
            let mut shorter = best.clone();
            shorter.events[at] = event;
            if event != best.events[at] && fails(&shorter) {
                *best = shorter;
            }
        }
    }
}

/// Events that are simpler than this one, the simplest first.
fn simpler(event: Event) -> Vec<Event> {
    let with = |step| Event { step, ..event };
    match event.step {
        Step::Append { records, bytes, level } => vec![
            with(Step::Append { records: 1, bytes: 0, level: Level::Disk }),
            with(Step::Append { records: 1, bytes, level }),
            with(Step::Append { records: records.min(2), bytes, level }),
            with(Step::Append { records, bytes: 0, level }),
            with(Step::Append { records, bytes: bytes / 2, level }),
        ],
        Step::Run(count) => {
            vec![with(Step::Drain), with(Step::Run(1)), with(Step::Run(count.saturating_sub(1)))]
        }
        Step::Fall { power, nested } => {
            let fall = |power, nested| with(Step::Fall { power, nested });
            let dice = |dice| Event { dice, ..event };
            vec![
                fall(power, 0),
                fall(power, nested.saturating_sub(1)),
                fall(true, nested),
                dice(0),
                dice(1),
                dice(2),
            ]
        }
        Step::Fault(_, after) => {
            vec![with(Step::Fault(Fault::Fails, after))]
        }
        Step::Read(count) => vec![with(Step::Read(count / 2))],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Theme;

    #[test]
    fn two_events_are_left_of_many() {
        let mut history = History::draw(Theme::Crashes, 7, 300);
        history.events[100].step = Step::Close;
        history.events[200].step = Step::DeleteBefore(1_000);
        let count = |history: &History, step| {
            history.events.iter().position(|event| event.step == step).unwrap_or(usize::MAX)
        };
        let fails = |history: &History| {
            let close = count(history, Step::Close);
            close < usize::MAX
                && history.events[close..]
                    .iter()
                    .any(|event| event.step == Step::DeleteBefore(1_000))
        };
        let shortest = shrink(&history, Duration::from_mins(1), fails);
        assert_eq!(shortest.events.len(), 2);
    }
}
