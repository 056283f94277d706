//! The operating system's locks on a log's folder: those that the native host takes.

use crate::error::Error;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file whose lock says who writes. It is empty.
const LOCK: &str = "LOCK";
const MANIFEST: &str = "MANIFEST";

/// The right to write to the log. The operating system frees it when this is dropped, and when the
/// process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    folder: Dir,
    lock: File,
    /// Locked too, where there is one: somebody may take the other file for a leftover and remove
    /// it.
    manifest: Option<File>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Others take it last: it goes first.
        if let Some(manifest) = &self.manifest {
            free(manifest);
        }
        free(&self.lock);
    }
}

/// Closing the file would not do at once: a process that another thread is just starting has a copy
/// of the handle until it runs its own program, and with that the lock.
fn free(file: &File) {
    // Where it fails the file is closed next.
    file.unlock().ok();
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
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut lock = Self { path: path.to_owned(), folder, lock: file, manifest: None };
        lock.lock_manifest()?;
        Ok(lock)
    }

    /// The folder itself: whatever its name leads to by now, it is the one that is locked.
    pub(crate) fn folder(&self) -> io::Result<File> {
        Ok(self.folder.try_clone()?.into_std_file())
    }

    /// Extends the lock to the manifest, which an opening may have made, or made anew.
    pub(crate) fn lock_manifest(&mut self) -> Result<(), Error> {
        // Ours would keep us from it.
        if let Some(manifest) = self.manifest.take() {
            free(&manifest);
        }
        // Elsewhere a lock keeps everybody from the file, and the component writes to it.
        if !cfg!(unix) {
            return Ok(());
        }
        // Whatever else is wrong with it the opening tells.
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let Ok(manifest) = self.folder.open_with(MANIFEST, &options) else { return Ok(()) };
        let manifest = manifest.into_std();
        match manifest.try_lock() {
            Ok(()) => self.manifest = Some(manifest),
            Err(TryLockError::WouldBlock) => return Err(Error::Locked(self.path.clone())),
            // A file system without locks on such files: the first has to do.
            Err(TryLockError::Error(_)) => {}
        }
        Ok(())
    }
}

/// As `mkdir -p`, each new name made durable, from the top down. So is the folder's own where it
/// was there: whoever made it may not have come to that.
fn make_folder(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            make_folder(parent)?;
        }
        match std::fs::create_dir(path) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            result => result?,
        }
    }
    sync_parent(path)
}

/// A parent that we may not read cannot be synced. Folders are often handed over that way, and
/// whoever made them has made them durable or not, long before.
fn sync_parent(path: &Path) -> io::Result<()> {
    // Windows has no such call; its file systems keep names by themselves.
    if cfg!(windows) {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match File::open(parent) {
        Ok(parent) => parent.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}
