//! What the platforms have each their own call for. The only unsafe code of the project stands here.
//!
//! | what                     | Linux        | macOS                    | Windows          | others   |
//! |--------------------------|--------------|--------------------------|------------------|----------|
//! | data sync                | fdatasync    | `F_FULLFSYNC`, or fsync  | FlushFileBuffers | fsync    |
//! | reserve space            | fallocate    | `F_PREALLOCATE`          | set the length   | the same |
//! | sync of a folder's names | fsync        | fsync                    | none             | fsync    |
//! | map a file               | mmap         | mmap                     | none             | unix     |
//!
//! On Windows a folder cannot be synced: NTFS journals names on its own, and a new segment's name may be
//! lost with the last moments before a loss of power.

mod allocate;
#[cfg(unix)]
mod map;
mod positional;

pub(crate) use allocate::allocate;
pub(crate) use positional::{read_at, write_all_at};

use std::fs::File;
use std::io;

/// A file mapped into memory.
#[cfg(unix)]
pub(crate) use map::Mapping;

/// Maps `length` bytes of a file to read. `None` where the platform has no such thing, or the file is
/// empty.
#[cfg(unix)]
pub(crate) fn map_read_only(file: &File, length: usize) -> io::Result<Option<Mapping>> {
    Mapping::new(file, length)
}

/// A platform without mappings.
#[cfg(not(unix))]
pub(crate) fn map_read_only(_file: &File, _length: usize) -> io::Result<Option<Vec<u8>>> {
    Ok(None)
}

/// Makes a file's content, and as much about the file as is needed to read it back, durable.
///
/// On macOS the standard library uses `F_FULLFSYNC`, which reaches through the drive's own cache.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Makes the names in a folder durable, where the platform can.
#[cfg(unix)]
pub(crate) fn sync_folder(folder: &File) -> io::Result<()> {
    folder.sync_all()
}

/// Tells the kernel that a file will be read from front to back. A hint: it cannot fail.
#[cfg(target_os = "linux")]
pub(crate) fn advise_sequential(file: &File) {
    allocate::advise_sequential(file);
}

/// A platform without the hint.
#[cfg(not(target_os = "linux"))]
pub(crate) fn advise_sequential(_file: &File) {}
