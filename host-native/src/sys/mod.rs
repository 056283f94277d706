//! What the platforms have each their own call for. The only unsafe code of the project stands
//! here.
//!
//! | what                 | Linux     | macOS                  | Windows          | others   |
//! |----------------------|-----------|------------------------|------------------|----------|
//! | data sync            | fdatasync | `F_FULLFSYNC`, or fsync | FlushFileBuffers | fsync    |
//! | reserve space        | fallocate | `F_PREALLOCATE`        | set the length   | the same |
//! | sync of names        | fsync     | fsync                  | none             | fsync    |
//! | map a file           | mmap      | mmap                   | none             | unix     |
//! | past the page cache  | O_DIRECT  | none                   | none             | none     |
//! | what the cache has   | cachestat | none                   | none             | none     |
//! | read what it has     | preadv2   | none                   | none             | none     |
//! | begin to write back  | `sync_file_range` | none            | none             | none     |
//! | let go of the cache  | `posix_fadvise` | none              | none             | none     |
//! | many writes at once  | io_uring  | none                   | none             | none     |
//!
//! On Windows a folder cannot be synced: NTFS journals names on its own, and a new segment's name
//! may be lost with the last moments before a loss of power.

mod aligned;
mod allocate;
mod cache;
mod crc;
#[cfg(unix)]
mod fork;
#[cfg(unix)]
mod map;
mod positional;
mod sync;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
mod uring;

pub(crate) use aligned::{Aligned, BLOCK_BYTES};
#[cfg(target_os = "linux")]
pub(crate) use allocate::copies_on_write;
pub(crate) use allocate::{allocate, allocate_past_end};
#[cfg(all(test, target_os = "linux"))]
pub(crate) use cache::tests::dirty;
pub(crate) use cache::{
    Cached, Readahead, advise, begin_write_back, cached, is_clean, is_under_write_back, let_go,
};
pub use crc::fastest_crc32c;
#[cfg(unix)]
pub(crate) use fork::{forks, is_forked_since};
pub(crate) use positional::{first_piece, read_at, read_cached, write_all_at};
pub(crate) use sync::sync_data;
#[cfg(unix)]
pub(crate) use sync::{names_of, sync_folder};
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub(crate) use uring::Ring;

use std::fs::File;
use std::io;

/// A file mapped into memory.
#[cfg(unix)]
pub(crate) use map::{Mapping, Writable};

/// Maps `length` bytes of a file to read. `None` where the platform has no such thing, or the file
/// is empty.
#[cfg(unix)]
pub(crate) fn map_read_only(file: &File, length: usize) -> io::Result<Option<Mapping>> {
    Mapping::new(file, length)
}

/// A platform without mappings.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "it can fail on other platforms")]
pub(crate) fn map_read_only(_file: &File, _length: usize) -> io::Result<Option<Vec<u8>>> {
    Ok(None)
}

/// Maps the bytes of a file from `from` up to `end` to write. `None` where the platform has no such
/// thing, or there are none.
#[cfg(unix)]
pub(crate) fn map_writable(file: &File, from: u64, end: u64) -> io::Result<Option<Writable>> {
    Writable::new(file, from, end)
}

/// A platform without mappings.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "it can fail on other platforms")]
pub(crate) fn map_writable(_file: &File, _from: u64, _end: u64) -> io::Result<Option<Writable>> {
    Ok(None)
}

/// There is none on such a platform, or without the feature.
#[cfg(not(all(target_os = "linux", feature = "io-uring")))]
pub(crate) enum Ring {}

#[cfg(not(all(target_os = "linux", feature = "io-uring")))]
impl Ring {
    pub(crate) fn new() -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "built without the feature io-uring"))
    }

    pub(crate) fn write(
        &mut self,
        _direct: &File,
        _file: &File,
        _bytes: &[u8],
        _offset: u64,
    ) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn is_idle(&self) -> bool {
        match *self {}
    }
}

/// There is no fork on such a platform.
#[cfg(not(unix))]
pub(crate) fn forks() -> u64 {
    0
}

/// There is no fork on such a platform.
#[cfg(not(unix))]
pub(crate) fn is_forked_since(_forks: u64) -> bool {
    false
}

/// There is none on such a platform.
#[cfg(not(unix))]
pub(crate) enum Writable {}

#[cfg(not(unix))]
impl Writable {
    pub(crate) fn write(&self, _bytes: &[u8], _offset: u64) -> bool {
        match *self {}
    }
}

/// Brings the bytes of a mapping into memory.
#[cfg(target_os = "linux")]
pub(crate) fn bring_in(bytes: &[u8]) -> io::Result<()> {
    map::bring_in(bytes)
}

/// A platform without such a call brings them in as they are touched.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "it can fail on Linux")]
pub(crate) fn bring_in(_bytes: &[u8]) -> io::Result<()> {
    Ok(())
}
