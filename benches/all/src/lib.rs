//! Seawall beside raw floors and beside other logs, measured in one run on one disk.
//!
//! A *row* is a kind of work ([`row`]); a *contestant* is a log that may be able to do it
//! ([`contestant`]); a *floor* is the same work with bare system calls ([`floor`]). Each
//! measurement is a process of its own ([`child`]), so that memory, processor time and panics are
//! that contestant's alone. All contestants of a row run one after another, several rounds over,
//! and each is divided by the floor of its own round: what a shared machine does to one, it does
//! to all. Before and after each the disk is tried, and a turn on a disk that had slowed down is
//! taken again ([`calm`]).
//!
//! No time ever fails anything. What was written is counted when it is read back.

#![forbid(unsafe_code)]
#![expect(clippy::cast_precision_loss, reason = "figures for people have fewer than 53 bits")]

mod calm;
mod chart;
mod child;
mod contestant;
mod contestants;
mod floor;
mod growth;
mod machine;
mod measure;
mod options;
mod report;
mod round;
mod row;
mod syscalls;
mod waiting;

pub use contestant::{Ability, Appending, Contestant, Log, Outcome, Seen, Segments, Setup};
pub use row::Pack;

use std::process::ExitCode;

/// Runs the program, with contestants besides the built-in ones.
pub fn run(others: Vec<Box<dyn Contestant>>) -> ExitCode {
    let mut contestants = contestants::all();
    contestants.extend(others);
    match options::dispatch(&contestants) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-all: {error}");
            ExitCode::FAILURE
        }
    }
}
