//! The operating system's lock on a log's folder: the one that the native host takes.

use crate::error::Error;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The file whose lock says who writes. It is empty.
const LOCK: &str = "LOCK";

/// The right to write to the log. The operating system frees it when this is dropped, and when the
/// process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock; makes the folder first where there is none, its name durable.
    pub(crate) fn take(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::Folder(path.to_owned(), Arc::new(error));
        make_folder(path).map_err(failed)?;
        let folder = Dir::open_ambient_dir(path, ambient_authority()).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        // A link that leads out of the folder is refused.
        let file = folder.open_with(LOCK, &options).map_err(failed)?.into_std();
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// As `mkdir -p`, each new name made durable, from the top down.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    make_folder(parent)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Windows has no such call; its file systems keep names by themselves.
    if cfg!(windows) { Ok(()) } else { File::open(parent)?.sync_all() }
}
