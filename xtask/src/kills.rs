//! Planted bugs: which layer of tests catches which.
//!
//! ```text
//!   tests/kills/NAME.txt ─► a copy of the tree ─► build ─► every layer ─► docs/PROOF.md
//! ```
//!
//! A bug that no layer catches shows a hole in the tests; so does a layer that catches nothing that
//! another does not. `kills` fills the whole table; `kills --slice` is for every day: it runs a few
//! bugs, other ones each day, each against the cheapest layer that the table says catches it; and
//! `kills --untried` runs what rows lack that are older than a layer.
//!
//! **Architecture Invariant:** the checkout itself is never changed, only copies under `target/`.

mod bug;
mod layers;
mod table;

use bug::Bug;
use layers::{LAYERS, Layer, Verdict, Workshop};
use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use table::{Mark, Row, Table};

use crate::steps::Outcome;

/// How many bugs a slice takes.
const SLICE_BUGS: usize = 6;
/// A slice begins no more bugs after this.
const SLICE_TIME: Duration = Duration::from_secs(100);
/// A layer that takes longer than this and a few times what it takes without a bug hangs.
const PATIENCE: Duration = Duration::from_mins(1);
const PATIENCE_FACTOR: u32 = 5;

/// Which bugs, and how many at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// All when none is named.
    pub(crate) bugs: Vec<String>,
    pub(crate) jobs: usize,
    pub(crate) slice: bool,
    /// Only layers that have not been tried on a bug.
    pub(crate) untried: bool,
}

impl Options {
    pub(crate) const ALL: Self = Self { bugs: Vec::new(), jobs: 1, slice: false, untried: false };
}

/// `cargo xtask kills`.
pub(crate) fn command(root: &Path, options: &Options) -> ExitCode {
    let result = if options.slice { run_slice(root) } else { run_matrix(root, options) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The step of `test`.
pub(crate) fn slice(root: &Path) -> Outcome {
    run_slice(root).map_or_else(Outcome::Failed, |()| Outcome::Passed)
}

/// The step of `prove`.
pub(crate) fn all(root: &Path) -> Outcome {
    run_matrix(root, &Options::ALL).map_or_else(Outcome::Failed, |()| Outcome::Passed)
}

/// All bugs, each of which can be planted, and the table as it stands.
fn load(root: &Path) -> Result<(Vec<Bug>, Table), String> {
    let bugs = bug::all(root)?;
    for bug in &bugs {
        bug.planted(root)?;
    }
    Ok((bugs, Table::read(root)?))
}

fn run_matrix(root: &Path, options: &Options) -> Result<(), String> {
    let (bugs, table) = load(root)?;
    let chosen: VecDeque<(&Bug, Row)> = bugs
        .iter()
        .filter(|bug| options.bugs.is_empty() || options.bugs.contains(&bug.name))
        .map(|bug| (bug, table.begin_row(bug, options.untried)))
        .filter(|(_, row)| row.untried().next().is_some())
        .collect();
    if chosen.is_empty() {
        return Err("there is no such bug in tests/kills, or nothing left to try".to_string());
    }
    let first = Workshop::new(root, 1)?;
    println!("without a bug:");
    let limits = measure(&first, &chosen)?;
    let (queue, table) = (Mutex::new(chosen), Mutex::new(table));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 1..=options.jobs {
            let (queue, table, failures, limits) = (&queue, &table, &failures, &limits);
            let bugs = &bugs;
            scope.spawn(move || {
                let work = || {
                    let workshop = Workshop::new(root, number)?;
                    while let Some((bug, row)) = lock(queue).pop_front() {
                        if let Err(why) = one(root, &workshop, bug, row, bugs, limits, table) {
                            println!("{why}");
                            lock(failures).push(why);
                        }
                    }
                    Ok::<(), String>(())
                };
                if let Err(why) = work() {
                    lock(failures).push(why);
                }
            });
        }
    });
    let failures = lock(&failures);
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the layers that any row lacks without a bug: all must pass, and it says how long each may
/// take.
fn measure(workshop: &Workshop, chosen: &VecDeque<(&Bug, Row)>) -> Result<Vec<Duration>, String> {
    let is_wanted = |at: &usize| chosen.iter().any(|(_, row)| row.untried().any(|it| it == *at));
    let wanted: Vec<usize> = (0..LAYERS.len()).filter(is_wanted).collect();
    let layers: Vec<&Layer> = wanted.iter().map(|at| &LAYERS[*at]).collect();
    let programs = workshop.build(&layers)?;
    let mut limits = vec![PATIENCE; LAYERS.len()];
    for ((at, layer), program) in wanted.iter().zip(layers).zip(&programs) {
        let start = Instant::now();
        let verdict = workshop.run("none", layer, program, Duration::from_mins(20))?;
        let elapsed = start.elapsed();
        println!("  {:<18} {:>6.1} s", layer.name, elapsed.as_secs_f64());
        if verdict != Verdict::Survives {
            return Err(format!("{} fails without any bug: {verdict:?}", layer.name));
        }
        limits[*at] += elapsed * PATIENCE_FACTOR;
    }
    Ok(limits)
}

/// Plants one bug, runs the layers that its row lacks, and writes it.
fn one(
    root: &Path,
    workshop: &Workshop,
    bug: &Bug,
    mut row: Row,
    bugs: &[Bug],
    limits: &[Duration],
    table: &Mutex<Table>,
) -> Result<(), String> {
    let start = Instant::now();
    let planted = workshop.plant(bug)?;
    let untried: Vec<usize> = row.untried().collect();
    let layers: Vec<&Layer> = untried.iter().map(|at| &LAYERS[*at]).collect();
    let programs = workshop.build(&layers).map_err(|why| format!("{}: {why}", bug.name))?;
    let built = start.elapsed();
    for (at, program) in untried.into_iter().zip(&programs) {
        row.marks[at] = match workshop.run(&bug.name, &LAYERS[at], program, limits[at])? {
            Verdict::Survives => Mark::Missed,
            Verdict::Hangs => Mark::Hangs,
            Verdict::Caught(by) => {
                if !row.marks[..at].contains(&Mark::Caught) {
                    row.test = by;
                }
                Mark::Caught
            }
        };
    }
    drop(planted);
    println!(
        "{:<34} {} built in {:.0} s, {:.0} s in all; {}",
        bug.name,
        row.summary(),
        built.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        row.test
    );
    let is_caught = row.is_caught();
    let mut table = lock(table);
    table.put(row);
    table.write(root, bugs)?;
    if is_caught { Ok(()) } else { Err(format!("{}: no layer catches it", bug.name)) }
}

fn run_slice(root: &Path) -> Result<(), String> {
    let (bugs, table) = load(root)?;
    table.check(root, &bugs)?;
    let start = Instant::now();
    let workshop = Workshop::new(root, 1)?;
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let day = usize::try_from(today.as_secs() / 86_400).unwrap_or(0);
    let mut run = 0;
    for offset in 0..SLICE_BUGS.min(bugs.len()) {
        if start.elapsed() > SLICE_TIME {
            break;
        }
        let bug = &bugs[(day * SLICE_BUGS + offset) % bugs.len()];
        let (layer, mark) = table.cheapest(&bug.name)?;
        let planted = workshop.plant(bug)?;
        let programs = workshop.build(&[layer]).map_err(|why| format!("{}: {why}", bug.name))?;
        // Nobody knows here what it takes without the bug: where a test should fail, there is time.
        let hangs = mark == Mark::Hangs;
        let limit = PATIENCE * if hangs { 2 } else { PATIENCE_FACTOR };
        match workshop.run(&bug.name, layer, &programs[0], limit)? {
            Verdict::Survives => {
                return Err(format!("{}: {} no longer catches it", bug.name, layer.name));
            }
            Verdict::Hangs if !hangs => {
                let why = "hangs, and no test has failed";
                return Err(format!("{}: {} {why}", bug.name, layer.name));
            }
            verdict => println!("{}: {} {verdict:?}", bug.name, layer.name),
        }
        drop(planted);
        run += 1;
    }
    println!("{run} of {} bugs planted and caught; all of them can be planted", bugs.len());
    Ok(())
}
