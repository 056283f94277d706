//! The command line.

use crate::calm::Disk;
use crate::chart;
use crate::child::{self, Order};
use crate::contestant::{Contestant, Outcome};
use crate::growth;
use crate::machine::Machine;
use crate::measure::Scale;
use crate::report::{OURS, Report};
use crate::round;
use crate::row::{Row, rows};
use crate::syscalls;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// How long a run waits for the disk to recover, all in all.
const PATIENCE: Duration = Duration::from_mins(10);
const PATIENCE_QUICK: Duration = Duration::from_secs(20);

/// Seawall beside raw floors and beside other logs: one run, one disk, several rounds in turn.
#[derive(Debug, Parser)]
#[command(name = "bench-all", args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How time and memory grow with the log.
    Growth(Grow),
    /// Names all rows.
    List,
    /// One measurement; for this program itself.
    #[command(hide = true)]
    Child(Order),
}

/// Where it runs and who takes part.
#[derive(Debug, Args)]
struct Place {
    /// A temporary folder is made in this one. Its disk is the one that is measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Only these logs, by parts of their names.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    logs: Vec<String>,
    /// Write everything measured here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw it here.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    place: Place,
    /// Everybody's turns in each row.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only rows whose id contains one of these.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    only: Vec<String>,
    /// Small sizes: about a minute in all.
    #[arg(long)]
    quick: bool,
    /// How long each measurement takes that has no end of its own.
    #[arg(long)]
    seconds: Option<f64>,
    /// How much a log holds that is opened after a crash.
    #[arg(long, value_name = "MIB")]
    crashed: Option<u64>,
    /// How much a log holds that is read.
    #[arg(long, value_name = "MIB")]
    read: Option<u64>,
    /// Count the system calls of durable appends instead.
    #[arg(long)]
    syscalls: bool,
    /// Show or draw what an earlier run wrote as JSON, instead of measuring.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Grow {
    #[command(flatten)]
    place: Place,
    /// To so many records.
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// To so many segments.
    #[arg(long, default_value_t = 1_000)]
    segments: u64,
}

/// Does what the command line says.
pub(crate) fn dispatch(contestants: &[Box<dyn Contestant>]) -> Outcome<()> {
    let options = Options::parse();
    match options.command {
        Some(Command::Child(order)) => {
            child::obey(contestants, &order)?;
            // As a crash would end it: nothing is closed that was left open on purpose.
            std::process::exit(0);
        }
        Some(Command::List) => {
            for row in rows() {
                println!("{:<24}{}", row.id, row.title);
            }
            Ok(())
        }
        Some(Command::Growth(grow)) => grow.run(contestants),
        None => options.run.run(contestants),
    }
}

impl Place {
    fn contestants<'a>(&self, all: &'a [Box<dyn Contestant>]) -> Vec<&'a dyn Contestant> {
        let is_wanted = |name: &str| {
            self.logs.is_empty() || self.logs.iter().any(|part| name.contains(part.as_str()))
        };
        let wanted = all.iter().filter(|one| one.name() == OURS || is_wanted(one.name()));
        wanted.map(|one| &**one).collect()
    }

    fn temporary(&self) -> Outcome<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix("bench-all-").tempdir_in(&self.dir)?)
    }

    fn write(&self, json: &str, svg: &str) -> Outcome<()> {
        for (path, text) in [(&self.json, json), (&self.svg, svg)] {
            if let Some(path) = path {
                std::fs::write(path, text)?;
            }
        }
        Ok(())
    }
}

impl Run {
    fn scale(&self) -> Scale {
        let full = Scale {
            seconds: 0.3,
            crashed_bytes: 1 << 30,
            read_bytes: 256 << 20,
            append_bytes: 128 << 20,
        };
        let quick = Scale {
            seconds: 0.05,
            crashed_bytes: 128 << 20,
            read_bytes: 32 << 20,
            append_bytes: 64 << 20,
        };
        let base = if self.quick { quick } else { full };
        let mebibytes = |given: Option<u64>, base| given.map_or(base, |given| given << 20);
        Scale {
            seconds: self.seconds.unwrap_or(base.seconds),
            crashed_bytes: mebibytes(self.crashed, base.crashed_bytes),
            read_bytes: mebibytes(self.read, base.read_bytes),
            ..base
        }
    }

    fn is_wanted(&self, id: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| id.contains(part.as_str()))
    }

    fn rows(&self) -> Outcome<Vec<Row>> {
        let rows: Vec<Row> = rows().into_iter().filter(|row| self.is_wanted(&row.id)).collect();
        if rows.is_empty() {
            return Err("no row is called so; `bench-all list` names all".into());
        }
        Ok(rows)
    }

    fn run(&self, contestants: &[Box<dyn Contestant>]) -> Outcome<()> {
        if let Some(path) = &self.from {
            return self.show(serde_json::from_str(&std::fs::read_to_string(path)?)?);
        }
        let temporary = self.place.temporary()?;
        let chosen = self.place.contestants(contestants);
        if self.syscalls {
            syscalls::show(&chosen, temporary.path(), &self.scale());
            return Ok(());
        }
        let plan = round::Plan {
            contestants: chosen,
            dir: temporary.path(),
            scale: self.scale(),
            rounds: self.rounds.unwrap_or(if self.quick { 3 } else { 5 }).max(1),
        };
        let machine = Machine::of(temporary.path());
        println!("{machine}");
        println!(
            "{} rounds of {} s; medians of the rounds; cpu us: for each record; opened after a \
             crash: {} MiB in one unsealed segment; read: {} MiB",
            plan.rounds,
            plan.scale.seconds,
            plan.scale.crashed_bytes >> 20,
            plan.scale.read_bytes >> 20
        );
        if contestants.len() == 1 {
            println!("Other logs are not built in: --features peers, or `cargo bench-all`.");
        }
        let patience = if self.quick { PATIENCE_QUICK } else { PATIENCE };
        let mut disk = Disk::new(temporary.path(), patience)?;
        let mut report = Report { machine, scale: plan.scale, rows: Vec::new() };
        for row in self.rows()? {
            let measured = plan.row(&row, &mut disk)?;
            print!("{}", measured.table());
            report.rows.push(measured);
        }
        print!("{}{}", report.verdict(), report.notes());
        self.place.write(&serde_json::to_string_pretty(&report)?, &chart::bars(&report))
    }

    fn show(&self, mut report: Report) -> Outcome<()> {
        report.rows.retain(|row| self.is_wanted(&row.id));
        println!("{}", report.machine);
        for row in &report.rows {
            print!("{}", row.table());
        }
        print!("{}{}", report.verdict(), report.notes());
        self.place.write(&serde_json::to_string_pretty(&report)?, &chart::bars(&report))
    }
}

impl Grow {
    fn run(&self, contestants: &[Box<dyn Contestant>]) -> Outcome<()> {
        let temporary = self.place.temporary()?;
        let plan = growth::Plan {
            contestants: self.place.contestants(contestants),
            dir: temporary.path(),
            scale: Scale { seconds: 0.0, crashed_bytes: 0, read_bytes: 0, append_bytes: 0 },
            records: self.records,
            segments: self.segments,
        };
        let (json, svg) = growth::run(&plan)?;
        self.place.write(&json, &svg)
    }
}
