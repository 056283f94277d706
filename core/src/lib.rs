//! The core of the Seawall write-ahead log: format, machine, recovery and cursor, without I/O.
//!
//! Nothing here opens a file, reads a clock or draws a random number. A [`log::Log`] is asked to
//! append and answers with [`command::Command`]s; a host runs them, in any order, and hands the
//! completions back:
//!
//! ```text
//! while let Some(command) = log.poll_command() {
//!     let done = host.execute(command);
//!     log.complete(done);
//! }
//! ```
//!
//! A [`recover::Recovery`] runs the same way and ends in a log and a report of what was found. The
//! machine is deterministic: the same inputs give the same commands, byte for byte.
//!
//! **Architecture Invariant:** this crate has no I/O, no clock, no randomness, no threads and no
//! unsafe code, and needs only `alloc`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod batch;
pub mod command;
pub mod compress;
pub mod config;
pub mod cursor;
pub mod error;
pub mod event;
pub mod id;
pub mod log;
pub mod record;
pub mod recover;
pub mod scan;
pub mod wire;
