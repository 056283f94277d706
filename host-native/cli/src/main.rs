//! The command `seawall`: see, check, repair and move write-ahead logs, and watch one survive.
//!
//! Exit status: 0 all is well, 1 a log is damaged, or a demo found it not as it should be, 2 what
//! was asked could not be done.

#![forbid(unsafe_code)]

mod append;
mod cat;
mod demo;
mod dump;
mod output;
mod stat;
mod verify;

use clap::{Parser, Subcommand};
use output::{Output, complain};
use std::process::ExitCode;

/// See, check, repair and move write-ahead logs.
#[derive(Parser)]
#[command(version, about, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// Print JSON: one document, or one line for each record or frame.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  seawall demo
  seawall append /tmp/log --file /etc/services
  seawall cat /tmp/log --from 10 --limit 5
  seawall tail -f /tmp/log
  seawall verify /tmp/log
Exit status: 0 all is well, 1 a log is damaged, 2 what was asked could not be done.";

#[derive(Subcommand)]
enum Command {
    /// Load a real log from several threads, kill it, recover it, verify it, and print figures.
    Demo(demo::Demo),
    /// Append records from standard input or a file.
    Append(append::Append),
    /// Print records.
    Cat(cat::Cat),
    /// Print the last records, and with -f those that come.
    Tail(cat::Tail),
    /// Print a log's segments and how far it reaches.
    Stat(stat::Stat),
    /// Read all of a log and say what is not as it was written.
    Verify(verify::Verify),
    /// Print every frame with its offset.
    Dump(dump::Dump),
    /// What the demo runs and kills.
    #[command(hide = true)]
    DemoChild(demo::child::Child),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Output::new(cli.json);
    let result = match cli.command {
        Command::Demo(command) => command.run(&mut out),
        Command::Append(command) => command.run(&mut out),
        Command::Cat(command) => command.run(&mut out),
        Command::Tail(command) => command.run(&mut out),
        Command::Stat(command) => command.run(&mut out),
        Command::Verify(command) => command.run(&mut out),
        Command::Dump(command) => command.run(&mut out),
        Command::DemoChild(command) => command.run(),
    };
    match result.and_then(|status| out.finish().map(|()| status)) {
        Ok(status) => ExitCode::from(status),
        // Whoever read our output has seen enough; what was found until then stands.
        Err(failure) if failure.is_closed_pipe() => ExitCode::from(out.status_known),
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.status())
        }
    }
}
