//! Does anything cost more in a log that has grown? Time and memory against records and segments.

use crate::chart::{self, Line, Plot};
use crate::child::{self, Order, Phase};
use crate::contestant::{Ability, Contestant, Outcome, Segments, Setup};
use crate::floor::Floor;
use crate::machine::{self, Machine};
use crate::measure::{self, Scale};
use crate::report::short;
use crate::round::remove;
use crate::row::Work;
use seawall::Level;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// What one append to a growing log is.
const WORK: Work = Work::Append { bytes: 128, level: Level::Os };
/// Records that fill segments.
const SEGMENT_WORK: Work = Work::Append { bytes: 1 << 10, level: Level::Os };
/// Small ones, so that a thousand are soon there.
const SEGMENT_BYTES: u64 = 256 << 10;
/// A log is opened so often, and the median counts.
const OPENINGS: usize = 5;
/// Ten million appends take their time.
const LIMIT: Duration = Duration::from_mins(20);

/// How a log was when it had grown so far.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Records, or segments.
    pub(crate) at: u64,
    /// What an append took since the point before, on average.
    pub(crate) append_nanos: f64,
    /// What the process has, less what it had before the log was opened.
    pub(crate) memory_bytes: u64,
    pub(crate) open_millis: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Growth {
    machine: Machine,
    /// By contestant.
    records: BTreeMap<String, Vec<Point>>,
    segments: BTreeMap<String, Vec<Point>>,
}

/// 1, 2, 5, 10, 20, 50 and so on, times `from`.
fn steps(from: u64, to: u64) -> impl Iterator<Item = u64> {
    let decades = std::iter::successors(Some(from.max(1)), |from| from.checked_mul(10));
    decades.flat_map(|from| [from, 2 * from, 5 * from]).take_while(move |step| *step <= to)
}

fn memory() -> u64 {
    machine::memory_bytes("VmRSS").unwrap_or(0)
}

fn grow(to: u64, base: u64, mut append: impl FnMut(usize) -> Outcome<()>) -> Outcome<Vec<Point>> {
    let mut points = Vec::new();
    let mut done = 0;
    for step in steps(1_000, to) {
        let start = Instant::now();
        for at in done..step {
            append(usize::try_from(at)?)?;
        }
        let nanos = start.elapsed().as_secs_f64() * 1e9;
        points.push(Point {
            at: step,
            append_nanos: nanos / (step - done) as f64,
            memory_bytes: memory().saturating_sub(base),
            open_millis: None,
        });
        done = step;
    }
    Ok(points)
}

/// In the child: so many records, one by one.
pub(crate) fn records(
    contestant: &dyn Contestant,
    dir: &Path,
    scale: &Scale,
    to: u64,
) -> Outcome<Vec<Point>> {
    let pool = measure::records(WORK);
    let base = memory();
    let log = contestant.open(dir, &WORK.setup(false, scale))?;
    let points = grow(to, base, |at| log.append(0, &pool[at % pool.len()], Level::Os))?;
    log.close()?;
    Ok(points)
}

/// In the child: the same as bare calls.
pub(crate) fn floor_records(dir: &Path, to: u64) -> Outcome<Vec<Point>> {
    let pool = measure::records(WORK);
    let mut file = File::create(dir.join("floor"))?;
    grow(to, memory(), |at| Ok(file.write_all(&pool[at % pool.len()])?))
}

/// In the child: so many segments.
pub(crate) fn segments(
    contestant: &dyn Contestant,
    dir: &Path,
    scale: &Scale,
    to: u64,
) -> Outcome<Vec<Point>> {
    let setup =
        Setup { segments: Segments::Bytes(SEGMENT_BYTES), ..SEGMENT_WORK.setup(false, scale) };
    let pool = measure::records(SEGMENT_WORK);
    let per_segment = SEGMENT_BYTES / SEGMENT_WORK.record_bytes() as u64;
    let base = memory();
    let mut log = contestant.open(dir, &setup)?;
    let mut points = Vec::new();
    let mut done = 0;
    for step in steps(1, to) {
        let start = Instant::now();
        let many = (step * per_segment).saturating_sub(done);
        for at in 0..many {
            log.append(0, &pool[usize::try_from(at)? % pool.len()], Level::Os)?;
        }
        let nanos = start.elapsed().as_secs_f64() * 1e9;
        done += many;
        let mut times = Vec::new();
        for _ in 0..OPENINGS {
            log.close()?;
            let start = Instant::now();
            log = contestant.open(dir, &setup)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_unstable_by(f64::total_cmp);
        points.push(Point {
            at: step,
            append_nanos: nanos / many.max(1) as f64,
            memory_bytes: memory().saturating_sub(base),
            open_millis: times.get(OPENINGS / 2).copied(),
        });
    }
    log.close()?;
    Ok(points)
}

/// What is grown, and where.
pub(crate) struct Plan<'a> {
    pub(crate) contestants: Vec<&'a dyn Contestant>,
    pub(crate) dir: &'a Path,
    pub(crate) scale: Scale,
    pub(crate) records: u64,
    pub(crate) segments: u64,
}

/// Grows all logs, prints tables, and returns the figures as JSON and as a picture.
pub(crate) fn run(plan: &Plan<'_>) -> Outcome<(String, String)> {
    let floor = (Floor::Calls.name(), Ok(()), Ok(()));
    let mut logs: Vec<_> = plan
        .contestants
        .iter()
        .map(|one| {
            let to_kernel = one.can(Ability::Os);
            (one.name(), to_kernel, to_kernel.and(one.can(Ability::Segments)))
        })
        .collect();
    logs.insert(logs.len().min(1), floor);
    let mut growth = Growth {
        machine: Machine::of(plan.dir),
        records: BTreeMap::new(),
        segments: BTreeMap::new(),
    };
    println!("{}", growth.machine);
    let mut names = Vec::new();
    for (name, can_grow, can_split) in logs {
        names.push(name);
        println!("\n{name}");
        if let Err(reason) = can_grow {
            println!("  absent: {reason}");
            continue;
        }
        if let Some(points) = points(plan, name, Phase::GrowRecords, plan.records)? {
            growth.records.insert(name.to_owned(), points);
        }
        if can_split.is_ok()
            && name != Floor::Calls.name()
            && let Some(points) = points(plan, name, Phase::GrowSegments, plan.segments)?
        {
            growth.segments.insert(name.to_owned(), points);
        }
    }
    let picture = picture(&growth, &names);
    Ok((serde_json::to_string_pretty(&growth)?, picture))
}

fn points(plan: &Plan<'_>, name: &str, phase: Phase, to: u64) -> Outcome<Option<Vec<Point>>> {
    let dir = plan.dir.join("growth");
    remove(&dir)?;
    let order = Order { count: to, ..Order::new(name, phase, &dir, &plan.scale)? };
    let result: Outcome<Vec<Point>> = child::run_for(&order, LIMIT);
    remove(&dir)?;
    let points = match result {
        Ok(points) => points,
        Err(error) => {
            println!("  failed: {error}");
            return Ok(None);
        }
    };
    let what = if phase == Phase::GrowRecords { "records" } else { "segments" };
    println!("  {what:>10}{:>12}{:>14}{:>10}", "ns/append", "memory MiB", "open ms");
    for point in &points {
        let memory = point.memory_bytes as f64 / f64::from(1 << 20);
        let open = point.open_millis.map_or_else(|| "-".into(), short);
        println!(
            "  {:>10}{:>12}{:>14}{open:>10}",
            point.at,
            short(point.append_nanos),
            short(memory)
        );
    }
    Ok(Some(points))
}

fn picture(growth: &Growth, names: &[&str]) -> String {
    type Points = BTreeMap<String, Vec<Point>>;
    let lines = |of: &Points, value: &dyn Fn(&Point) -> Option<f64>| -> Vec<Line> {
        let curve = |points: &Vec<Point>| {
            points.iter().filter_map(|point| Some((point.at as f64, value(point)?))).collect()
        };
        let named = names.iter().enumerate().filter_map(|(colour, name)| {
            Some(Line { name: (*name).to_owned(), colour, points: curve(of.get(*name)?) })
        });
        named.collect()
    };
    let time = |point: &Point| Some(point.append_nanos);
    let memory = |point: &Point| Some((point.memory_bytes as f64 / f64::from(1 << 20)).max(0.1));
    let plot = |title: &str, x, lines| Plot { title: title.to_owned(), x, lines };
    let plots = [
        plot("Append 128 B to the kernel, ns", "records in the log", lines(&growth.records, &time)),
        plot("Memory, MiB", "records in the log", lines(&growth.records, &memory)),
        plot(
            "Append 1 KiB with rotation, ns",
            "segments of 256 KiB",
            lines(&growth.segments, &time),
        ),
        plot(
            "Open, ms",
            "sealed segments of 256 KiB",
            lines(&growth.segments, &|point| point.open_millis),
        ),
    ];
    chart::plots(&plots, &growth.machine.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_where_told() {
        assert_eq!(steps(1_000, 10_000).collect::<Vec<_>>(), [1_000, 2_000, 5_000, 10_000]);
        assert_eq!(steps(1, 4).collect::<Vec<_>>(), [1, 2]);
    }
}
