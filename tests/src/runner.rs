//! Runs seeds, counts, and tells of a failure all that is needed to see it again.

use crate::exhaustive::{Exhaustive, workload, workloads};
use crate::explorer::{Explorer, Tries};
use crate::history::{History, Theme};
use crate::oracle::{Verdict, Violation};
use crate::shrink::shrink;
use crate::world::World;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

/// A way to look for trouble with a seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    /// Crashes by chance.
    Crashes,
    /// Crashes by chance, and operations that fail.
    Faults,
    /// Crashes by chance, and a disk that lies.
    Lies,
    /// A crash at every command, in recoveries too.
    Every,
}

/// All layers.
pub const LAYERS: [Layer; 4] = [Layer::Crashes, Layer::Faults, Layer::Lies, Layer::Every];

impl Layer {
    /// Its name; the test's as well.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crashes => "crashes",
            Self::Faults => "faults",
            Self::Lies => "lies",
            Self::Every => "every_command",
        }
    }

    /// What a seed is to live through.
    pub fn history(self, seed: u64) -> History {
        match self {
            Self::Crashes => History::draw(Theme::Crashes, seed, 400),
            Self::Faults => History::draw(Theme::Faults, seed, 400),
            Self::Lies => History::draw(Theme::Lies, seed, 200),
            Self::Every => History::draw(Theme::Crashes, seed, 120),
        }
    }
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Seeds.
    pub seeds: u64,
    /// Recoveries that were checked or crashed.
    pub recoveries: u64,
    /// Different states of a disk that were recovered from, where they are told apart.
    pub states: u64,
    /// Damage that was told.
    pub told: u64,
    /// The deepest nesting of crashes in recoveries, where it is counted.
    pub deepest: u32,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.recoveries += other.recoveries;
        self.states += other.states;
        self.told += other.told;
        self.deepest = self.deepest.max(other.deepest);
    }
}

/// A seed that ended badly.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The layer.
    pub layer: Layer,
    /// The seed.
    pub seed: u64,
    /// What did not hold.
    pub violation: Violation,
    /// The shortest history found that breaks the same invariant.
    pub shortest: History,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, seed, violation, shortest } = self;
        let name = layer.name();
        writeln!(f, "{name}, seed {seed}, commit {}: {violation}", commit())?;
        writeln!(
            f,
            "replay: SEAWALL_SEED={seed} SEAWALL_TRACE=1 cargo test --release -p seawall-tests \
             --test simulation {name} -- --exact --nocapture"
        )?;
        writeln!(f, "the shortest history found, of {} events:", shortest.events.len())?;
        writeln!(f, "  {:?}", shortest.setup)?;
        for event in &shortest.events {
            writeln!(f, "  {:?}, dice {:#x}", event.step, event.dice)?;
        }
        Ok(())
    }
}

/// The commit under test, if it is known.
pub fn commit() -> String {
    let asked = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let known = asked.ok().filter(|answer| answer.status.success());
    let text = known.map(|answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned());
    text.unwrap_or_else(|| "unknown".to_owned())
}

thread_local! {
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what a panic says to itself while this thread catches it.
fn catch_quietly<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHES.get() {
                CAUGHT.with_borrow_mut(|text| *text = info.to_string());
            } else {
                usual(info);
            }
        }));
    });
    CATCHES.set(true);
    let result = catch_unwind(AssertUnwindSafe(what));
    CATCHES.set(false);
    result.map_err(|_| CAUGHT.take())
}

/// Lives through a history. A panic breaks invariant 9.
fn live(layer: Layer, history: &History, traces: bool) -> (Tally, Verdict) {
    let lived = catch_quietly(|| {
        let mut world = World::new(history);
        if traces {
            world.trace();
        }
        if layer == Layer::Every {
            world.explorer = Some(Explorer::new(Tries::Some(1), 3, 0));
        }
        let verdict = world.live(history);
        let mut tally = Tally { seeds: 1, told: world.told, ..Tally::default() };
        tally.recoveries = world.recoveries;
        if let Some(explorer) = &world.explorer {
            tally.recoveries += explorer.recoveries;
            tally.states = explorer.states();
            tally.deepest = explorer.deepest;
        }
        (tally, verdict)
    });
    lived.unwrap_or_else(|what| (Tally::default(), Err(Violation { invariant: 9, what })))
}

/// How long to look for a shorter history.
const SHRINK_FOR: Duration = Duration::from_secs(20);

/// Lives through a seed.
///
/// # Errors
/// What did not hold, with the shortest history found.
pub fn run_seed(layer: Layer, seed: u64, traces: bool) -> Result<Tally, Box<Failure>> {
    let history = layer.history(seed);
    let (tally, verdict) = live(layer, &history, false);
    let Err(violation) = verdict else {
        if traces {
            drop(live(layer, &history, true));
        }
        return Ok(tally);
    };
    let fails = |history: &History| {
        live(layer, history, false).1.is_err_and(|found| found.invariant == violation.invariant)
    };
    let shortest = shrink(&history, SHRINK_FOR, fails);
    let violation = live(layer, &shortest, traces).1.err().unwrap_or(violation);
    Err(Box::new(Failure { layer, seed, violation, shortest }))
}

/// Runs seeds from `first` on, one in `stride`, until `is_enough` says so. Ends at the first that
/// ends badly.
///
/// # Errors
/// That one, and what was done before.
pub fn run_seeds(
    layer: Layer,
    (first, stride): (u64, u64),
    mut is_enough: impl FnMut(&Tally) -> bool,
) -> (Tally, Option<Box<Failure>>) {
    let mut tally = Tally::default();
    let mut seed = first;
    while !is_enough(&tally) {
        match run_seed(layer, seed, false) {
            Ok(one) => tally += one,
            Err(failure) => return (tally, Some(failure)),
        }
        seed += stride;
    }
    (tally, None)
}

/// Runs all workloads of up to `operations` operations, the shorter first, until `limit` is over.
/// Returns how many operations those have that were all run.
///
/// # Errors
/// What does not hold.
pub fn run_small(
    exhaustive: &mut Exhaustive,
    operations: u32,
    limit: Duration,
) -> Result<u32, String> {
    let started = Instant::now();
    for length in 1..=operations {
        for number in 0..workloads(length) {
            if started.elapsed() > limit {
                return Ok(length - 1);
            }
            let ops = workload(length, number);
            let lived = catch_quietly(|| exhaustive.run(&ops));
            let verdict = lived.unwrap_or_else(|what| Err(Violation { invariant: 9, what }));
            verdict.map_err(|violation| format!("{violation}, commit {}", commit()))?;
        }
    }
    Ok(operations)
}

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A test: the seeds below `seeds`, or the one that `SEAWALL_SEED` names. `SEAWALL_TRACE` tells
/// every step of it, of the shortest history found where it ends badly.
///
/// # Panics
/// When one ends badly.
pub fn test(layer: Layer, seeds: u64) {
    let started = Instant::now();
    let (tally, failure) = match number("SEAWALL_SEED") {
        Some(seed) => match run_seed(layer, seed, std::env::var_os("SEAWALL_TRACE").is_some()) {
            Ok(tally) => (tally, None),
            Err(failure) => (Tally::default(), Some(failure)),
        },
        None => run_seeds(layer, (0, 1), |tally| tally.seeds >= seeds),
    };
    let seconds = started.elapsed().as_secs_f64();
    println!("{}: {tally:?} in {seconds:.1} s", layer.name());
    if let Some(failure) = failure {
        panic!("after {seconds:.1} s and {} recoveries:\n{failure}", tally.recoveries);
    }
}
