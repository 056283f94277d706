//! The host for WebAssembly: the core's commands, run over `wasi:filesystem` 0.2.
//!
//! ```text
//!   component ─► Wal ─► Log, Recovery (core) ─► Command ─► Executor ─► Folder, File ─► WASI
//! ```
//!
//! Everything runs to its end within a call: there is no thread, and no command is left under way
//! when a call returns. What `wasi:filesystem` lacks is done openly:
//!
//! | lacks             | instead                                                                |
//! |-------------------|------------------------------------------------------------------------|
//! | fallocate         | [`Preallocation`]: the length alone, or written zeros                  |
//! | locks             | [`Exclusion`]: the embedder's lock, or a file that names its owner     |
//! | mapping           | reads of at most 64 KiB                                                |
//! | sure name syncs   | [`Wal::syncs_directories`] tells; opening may refuse a host without    |
//!
//! [`folder`] is the seam: what the executor needs of a file system, in a few calls. [`wasi`]
//! fulfils it; tests fulfil it with a folder that fails on order, and WASI 0.3 may one day.
//!
//! **Architecture Invariant:** needs only `alloc`; has no unsafe code; parses no frame and chooses
//! no order, which are the core's.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod execute;
pub mod folder;
mod reader;
mod wal;
pub mod wasi;

pub use execute::Preallocation;
pub use reader::{Attributes, Page, ReadError, Reader, Visibility};
pub use wal::{Exclusion, Groups, Injected, OpenError, Settings, Source, Wal};
