//! Each measurement is a process of its own: this program again, which prints its result as a line.

use crate::contestant::{Contestant, Outcome};
use crate::floor::Floor;
use crate::growth;
use crate::measure::{self, Measured, Scale};
use crate::row::{Work, rows};
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// What a child does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Phase {
    /// Writes the log that a row reads.
    Prepare,
    /// Measures.
    Measure,
    /// Appends so many records and ends, to be watched from outside.
    Watch,
    /// Grows a log, record by record.
    GrowRecords,
    /// Grows a log, segment by segment.
    GrowSegments,
}

/// What a child is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct Order {
    /// The row; for some phases it does not matter.
    #[arg(long, default_value = "")]
    pub(crate) row: String,
    /// Who does the work.
    #[arg(long)]
    pub(crate) contestant: String,
    #[arg(long)]
    pub(crate) phase: Phase,
    /// An empty folder, or one that was prepared.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// As JSON.
    #[arg(long)]
    pub(crate) scale: String,
    /// Read back and count what was written.
    #[arg(long)]
    pub(crate) verify: bool,
    /// How many records to append, or how many to grow to.
    #[arg(long, default_value_t = 0)]
    pub(crate) count: u64,
}

impl Order {
    pub(crate) fn new(contestant: &str, phase: Phase, dir: &Path, scale: &Scale) -> Outcome<Self> {
        Ok(Self {
            row: String::new(),
            contestant: contestant.to_owned(),
            phase,
            dir: dir.to_owned(),
            scale: serde_json::to_string(scale)?,
            verify: false,
            count: 0,
        })
    }

    /// The command line that gives this order.
    pub(crate) fn command(&self) -> Outcome<Command> {
        self.command_under(Command::new(std::env::current_exe()?))
    }

    /// The same, as arguments of a command that starts it.
    pub(crate) fn command_under(&self, mut command: Command) -> Outcome<Command> {
        let phase = self.phase.to_possible_value().ok_or("a phase without a name")?;
        command.args(["child", "--row", &self.row, "--contestant", &self.contestant]);
        command.args(["--phase", phase.get_name(), "--scale", &self.scale]);
        command.args(["--count", &self.count.to_string()]).arg("--dir").arg(&self.dir);
        if self.verify {
            command.arg("--verify");
        }
        // Walrus takes its folder from here, and prints what it does unless told not to.
        command.env("WALRUS_DATA_DIR", self.dir.join("walrus")).env("WALRUS_QUIET", "1");
        Ok(command)
    }
}

/// Carries an order out, in the child. The process is to end at once afterwards.
pub(crate) fn obey(contestants: &[Box<dyn Contestant>], order: &Order) -> Outcome<()> {
    std::fs::create_dir_all(&order.dir)?;
    let scale: Scale = serde_json::from_str(&order.scale)?;
    let work = rows().into_iter().find(|row| row.id == order.row).map(|row| row.work);
    let work = work.ok_or("no such row");
    let floor = Floor::ALL.into_iter().find(|floor| floor.name() == order.contestant);
    let contestant = contestants.iter().find(|one| one.name() == order.contestant);
    if let Some(floor) = floor {
        return obey_as_floor(floor, order, &scale, work.ok());
    }
    let contestant = &**contestant.ok_or_else(|| format!("no such log: {}", order.contestant))?;
    match order.phase {
        Phase::Prepare => print(&measure::prepare(contestant, work?, &order.dir, &scale)?),
        Phase::Measure => {
            print(&measure::measure(contestant, work?, &order.dir, &scale, order.verify)?)
        }
        Phase::Watch => print(&measure::watch(contestant, work?, &order.dir, &scale, order.count)?),
        Phase::GrowRecords => print(&growth::records(contestant, &order.dir, &scale, order.count)?),
        Phase::GrowSegments => {
            print(&growth::segments(contestant, &order.dir, &scale, order.count)?)
        }
    }
}

fn obey_as_floor(floor: Floor, order: &Order, scale: &Scale, work: Option<Work>) -> Outcome<()> {
    let work = work.ok_or("no such row");
    match order.phase {
        Phase::Prepare => print(&Floor::prepare(work?, &order.dir, scale)?),
        Phase::Measure => print(&floor.measure(work?, &order.dir, scale)?),
        Phase::GrowRecords => print(&growth::floor_records(&order.dir, order.count)?),
        Phase::Watch | Phase::GrowSegments => Err("floors do not do this".into()),
    }
}

fn print(result: &impl serde::Serialize) -> Outcome<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}

/// How long a child may take. Longer is a hang, of a log or of this program.
pub(crate) const LIMIT: Duration = Duration::from_mins(10);

/// Runs a child and returns what it measured.
pub(crate) fn run(order: &Order) -> Outcome<Measured> {
    run_for(order, LIMIT)
}

/// Runs a child and returns its result.
pub(crate) fn run_for<T: DeserializeOwned>(order: &Order, limit: Duration) -> Outcome<T> {
    let mut command = order.command()?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (sender, receiver) = mpsc::channel();
    let mut output = child.stdout.take().ok_or("no output")?;
    let mut errors = child.stderr.take().ok_or("no output")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        // What cannot be read shows below: there is no result then.
        let _ = output.read_to_string(&mut text);
        let _ = sender.send(text);
    });
    let error_reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = errors.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let answer = receiver.recv_timeout(limit);
    if answer.is_err() {
        stop(&mut child);
    }
    let status = child.wait()?;
    let _ = reader.join();
    let errors = error_reader.join().unwrap_or_default();
    let text = answer.map_err(|_| format!("no answer in {} s", limit.as_secs()))?;
    if !status.success() {
        let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        return Err(format!("{last} ({status})").into());
    }
    let line = text.lines().last().ok_or("no result")?;
    Ok(serde_json::from_str(line)?)
}

fn stop(child: &mut Child) {
    // It may have ended just now.
    let _ = child.kill();
}
