//! Seawall's component in a wasmtime host: the log with the authority of one folder.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use seawall_wasmtime::{Limits, Program, Record, Wal};
//!
//! let program = Program::compile(&std::fs::read("seawall.wasm")?, &Limits::default())?;
//! let (wal, recovery) = Wal::open(&program, "folder", program.default_config()).wait()?;
//! println!("{} records were there", recovery.records);
//! let appended = wal.append(&Record::put(b"user:42", b"alice@example.com")).wait()?;
//! let cursor = wal.read_from(appended.first).wait()?;
//! let page = cursor.read_batch(64 << 10).wait()?;
//! for found in page.records() {
//!     println!("{}: {:?} is {:?}", found.lsn, found.record.key, found.record.value);
//! }
//! wal.close().wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! Every call gives a [`Pending`]: `.wait()` it on a thread, or `.await` it in a task of any
//! runtime. One thread owns the component; what waits for it is appended together, with one sync:
//! group commit. When the component traps (it ran out of fuel or memory, or a function of the host
//! panicked) the calls under way fail with [`Error::Unknown`], and the log is recovered in a new
//! store before the next call, unless it was closed or poisoned.
//!
//! ```text
//!   program   the component, compiled, with what it may use at most
//!   lock      the operating system's lock on the folder, which the native host takes as well
//!   sandbox   a store: one instance, one folder, and what is open in it
//!   worker    the thread that owns it, gathers appends, and recovers after a trap
//!   wal       what callers hold
//!   batch     records as flat memory
//! ```

mod batch;
mod error;
mod lock;
mod patience;
#[expect(unsafe_code, reason = "machine code that is loaded is trusted by whoever loads it")]
mod precompiled;
mod program;
mod sandbox;
mod wal;
mod worker;

/// What is generated from the contract.
mod bindings {
    #![allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "seawall:log/seawall",
        with: { "wasi": wasmtime_wasi::p2::bindings::sync },
        require_store_data_send: true,
    });
}

/// The values of the contract, `seawall:log/types`, which documents them.
pub mod types {
    pub use crate::bindings::exports::seawall::log::types::{
        Appended, Attributes, Batch, Cause, Checksum, Compression, Config, Damage, Deletion,
        Durability, Error, Event, Exclusion, Failure, FsyncPolicy, Injected, Interest, Level,
        Operation, OutOfRange, Position, Preallocation, Range, RangeKind, RecordKind, Recovery,
        RecoveryPolicy, Rotation, Scan, SegmentStats, Start, Stats, Visibility,
    };
}

pub use crate::batch::{Found, Page};
pub use crate::error::Error;
pub use crate::program::{Limits, Program};
pub use crate::wal::{Cursor, Pending, Wal};
pub use crate::worker::Restart;
pub use seawall_core::record::{Record, RecordKind};
