//! What the tests of several packages share: a simulated [disk], the [oracle], and the [world] in
//! which a log lives through the crashes and faults of a [history].
//!
//! ```text
//!   seed ─► history ─► world ─► disk ─► crash ─► opening ─► oracle
//!              ▲         └────► explorer (every crash) ──────┘
//!              └── shrink ◄── a violation
//! ```
//!
//! The simulator builds without an operating system, to be compared and fuzzed; the rest, with the
//! feature `host`, needs one.

#![expect(clippy::missing_panics_doc, reason = "what checks here does so by panicking")]

extern crate alloc;

pub mod crash;
pub mod disk;
pub mod exhaustive;
pub mod explorer;
pub mod fuzz;
pub mod history;
pub mod liar;
pub mod opening;
pub mod oracle;
pub mod random;
pub mod reader;
pub mod records;
pub mod trace;
pub mod world;

#[cfg(feature = "host")]
pub mod descriptors;
#[cfg(feature = "host")]
pub mod golden;
#[cfg(feature = "host")]
pub mod interpose;
#[cfg(feature = "host")]
pub mod runner;
#[cfg(feature = "host")]
pub mod shrink;
#[cfg(feature = "host")]
pub mod small;

/// The fastest CRC32C that there is here; all give the same.
pub fn crc() -> seawall_core::wire::checksum::Crc32cFn {
    #[cfg(not(target_family = "wasm"))]
    let crc = crc32c::crc32c_append;
    #[cfg(target_family = "wasm")]
    let crc = seawall_core::wire::checksum::crc32c;
    crc
}
