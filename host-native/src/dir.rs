//! The log's folder as a capability: nothing outside it can be named.
//!
//! It is a `cap_std` directory, so `..`, absolute names and symbolic links that lead out are refused by
//! construction; files of the log are never followed through a link at all.

use crate::sys;
use cap_std::ambient_authority;
use cap_std::fs::{Dir as CapDir, OpenOptions, OpenOptionsExt as _};
use seawall_core::command::{Folder, Listed};
use seawall_core::wire::name::{FileId, FileName, QUARANTINE};
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// The file whose lock says who writes. It is empty.
const LOCK: &str = "LOCK";

/// The folder of a log.
#[derive(Debug)]
pub(crate) struct Dir {
    folder: CapDir,
}

/// The right to write to the log. The operating system frees it when this is dropped and when the
/// process ends, however it ends: the lock is on an open file (flock, or `LockFileEx`).
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: File,
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

impl Dir {
    /// Opens a folder by its path, and makes it first where `create` asks for that.
    pub(crate) fn open_path(path: &Path, create: bool) -> io::Result<Self> {
        if create {
            std::fs::create_dir_all(path)?;
            sync_parent(path)?;
        }
        Ok(Self { folder: CapDir::open_ambient_dir(path, ambient_authority())? })
    }

    /// A folder that somebody handed over.
    pub(crate) const fn from_cap_std(folder: CapDir) -> Self {
        Self { folder }
    }

    /// Takes the writer's lock. `None`: somebody has it, in this process or another.
    pub(crate) fn lock(&self) -> io::Result<Option<WriterLock>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        no_follow(&mut options);
        let file = self.folder.open_with(LOCK, &options)?.into_std();
        match file.try_lock() {
            Ok(()) => Ok(Some(WriterLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether there is anything of a log here.
    pub(crate) fn holds_log(&self) -> io::Result<bool> {
        let names = self.list()?;
        Ok(names.iter().any(|listed| FileName::parse(&listed.name, false).is_some()))
    }

    /// The names in the folder and in `quarantine/`, sorted.
    pub(crate) fn list(&self) -> io::Result<Vec<Listed>> {
        let mut names = Vec::new();
        list_folder(&self.folder, Folder::Log, &mut names)?;
        match self.folder.open_dir(QUARANTINE) {
            Ok(quarantine) => list_folder(&quarantine, Folder::Quarantine, &mut names)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        names.sort();
        Ok(names)
    }

    /// Opens a file of the log.
    pub(crate) fn open(&self, name: FileName, access: Access) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::ReadWrite);
        no_follow(&mut options);
        let file = self.folder.open_with(name.to_string(), &options)?.into_std();
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
        }
    }

    /// Makes a file; what stands under its name goes first, so that nobody's open handle is written to.
    pub(crate) fn create(&self, name: FileName) -> io::Result<File> {
        if matches!(name.file, FileId::Quarantined(_)) {
            self.make_quarantine()?;
        }
        self.remove(name)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        Ok(self.folder.open_with(name.to_string(), &options)?.into_std())
    }

    fn make_quarantine(&self) -> io::Result<()> {
        match self.folder.create_dir(QUARANTINE) {
            Ok(()) => self.sync(Folder::Log),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Renames a file, over what stands under the new name.
    pub(crate) fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        self.folder.rename(from.to_string(), &self.folder, to.to_string())
    }

    /// Removes a file; that it is gone already is no error.
    pub(crate) fn remove(&self, name: FileName) -> io::Result<()> {
        match self.folder.remove_file(name.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Makes the names in a folder durable.
    #[cfg(unix)]
    pub(crate) fn sync(&self, folder: Folder) -> io::Result<()> {
        let name = match folder {
            Folder::Log => ".",
            Folder::Quarantine => QUARANTINE,
        };
        // Opened as a file: a directory handle of this crate may be one that cannot be synced.
        sys::sync_folder(&self.folder.open(name)?.into_std())
    }

    /// The platform has no sync for folders; see [`sys`].
    #[cfg(not(unix))]
    pub(crate) fn sync(&self, _folder: Folder) -> io::Result<()> {
        Ok(())
    }
}

/// A folder that was just made is durable only when its parent is synced.
#[cfg(unix)]
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sys::sync_folder(&File::open(parent.unwrap_or_else(|| Path::new(".")))?)
}

#[cfg(not(unix))]
fn sync_parent(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn no_follow(options: &mut OpenOptions) {
    options.custom_flags(libc::O_NOFOLLOW);
}

#[cfg(not(unix))]
fn no_follow(options: &mut OpenOptions) {
    // FILE_FLAG_OPEN_REPARSE_POINT: a link is opened itself, and then is no regular file.
    #[cfg(windows)]
    options.custom_flags(0x0020_0000);
    #[cfg(not(windows))]
    options.read(true);
}

fn list_folder(dir: &CapDir, folder: Folder, names: &mut Vec<Listed>) -> io::Result<()> {
    for entry in dir.entries()? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if folder == Folder::Log && (name == LOCK || name == QUARANTINE) {
            continue;
        }
        let is_file = entry.file_type()?.is_file();
        let bytes = match is_file.then(|| entry.metadata()) {
            None => None,
            Some(Ok(metadata)) => Some(metadata.len()),
            // It has gone since: somebody deletes segments while we look.
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            Some(Err(error)) => return Err(error),
        };
        names.push(Listed { folder, name, bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let (one, two) = (
            Dir::open_path(temp.path(), true).unwrap(),
            Dir::open_path(temp.path(), false).unwrap(),
        );
        let lock = one.lock().unwrap();
        assert!(lock.is_some());
        assert!(two.lock().unwrap().is_none());
        drop(lock);
        assert!(two.lock().unwrap().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let dir = Dir::open_path(temp.path(), true).unwrap();
        let name = FileId::Manifest.name();
        std::os::unix::fs::symlink(outside.path(), temp.path().join("MANIFEST")).unwrap();
        assert!(dir.open(name, Access::ReadWrite).is_err());
        assert_eq!(dir.list().unwrap()[0].bytes, None);
        dir.create(name).unwrap();
        assert!(outside.path().exists());
        assert!(dir.open(name, Access::Read).is_ok());
        dir.remove(name).unwrap();
        dir.remove(name).unwrap();
    }
}
