//! The log on real file systems: what the kernel, a file system and a block device make of it.
//!
//! ```text
//!   volatile, fuse   a file system of our own that forgets what was not synced, as a mount
//!   disk, block      a disk that writes down every write and flush, as a block device
//!   states           all states in which power loss may leave such a disk
//!   history          what was asked of a log and when, and what it must hold at any moment
//!   model            what a log must hold, by LSN, as its callers know it
//!   workload         threads that append to a log, rotate, delete and truncate
//!   lockstep         the core's commands on a folder, one at a time: the same each time
//!   seeds            running seeds, and replaying one
//!   machine          what this machine lets us do, and that all of it is undone
//! ```
//!
//! All of it needs root, and Linux. Where something is missing a test prints "skipped: why".

#![cfg(target_os = "linux")]
#![expect(clippy::missing_panics_doc, reason = "what checks here does so by panicking")]

pub mod block;
pub mod disk;
pub mod fuse;
pub mod history;
pub mod lockstep;
pub mod machine;
pub mod model;
pub mod seeds;
pub mod states;
pub mod volatile;
pub mod workload;
