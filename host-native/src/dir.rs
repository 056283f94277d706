//! The log's folder as a capability: nothing outside it can be named.
//!
//! It is a `cap_std` directory, so `..`, absolute names and symbolic links that lead out are
//! refused by construction; files of the log are never followed through a link at all.

use crate::catalog::{Catalog, Stamp};
use crate::sys;
use cap_std::ambient_authority;
use cap_std::fs::{Dir as CapDir, DirEntry, OpenOptions, OpenOptionsExt as _};
use seawall_core::command::{Folder, Listed};
use seawall_core::wire::known::Known;
use seawall_core::wire::name::{CATALOG, FileId, FileName, QUARANTINE};
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
#[cfg(unix)]
use std::sync::OnceLock;

/// The file whose lock says who writes. It is empty.
const LOCK: &str = "LOCK";

/// The folder of a log.
#[derive(Debug)]
pub(crate) struct Dir {
    folder: CapDir,
    /// The same as a file, by which it is synced: the handle of a folder may be one that cannot be.
    /// It stays open once it is, since a sync that fails ends the log, and a process may have no
    /// file to spare at times.
    #[cfg(unix)]
    as_file: OnceLock<File>,
    /// Whether the file system counts a file's names, as its lock shows.
    #[cfg(unix)]
    counts_names: OnceLock<bool>,
}

/// The right to write to the log. The operating system frees it when this is dropped and when the
/// process ends, however it ends: the locks are on open files (flock, or `LockFileEx`).
#[derive(Debug)]
pub(crate) struct WriterLock {
    lock: File,
    /// Locked too, where there is one: somebody may take the other file for a leftover and remove
    /// it.
    manifest: Option<File>,
}

impl WriterLock {
    /// Closing the file would not do at once: a process that another thread is just starting has a
    /// copy of the handle until it runs its own program, and with that the lock.
    fn free(file: &File) {
        // Where it fails the file is closed next.
        file.unlock().ok();
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // Others take it last: it goes first.
        if let Some(manifest) = &self.manifest {
            Self::free(manifest);
        }
        Self::free(&self.lock);
    }
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    ReadWrite,
    /// To read past the page cache (`O_DIRECT`): offsets, lengths and memory have to be aligned.
    /// Where there is no such thing it is refused.
    ReadDirect,
    /// The same to write.
    WriteDirect,
}

impl Dir {
    /// Opens a folder by its path, and makes it first where `create` asks for that.
    pub(crate) fn open_path(path: &Path, create: bool) -> io::Result<Self> {
        if create {
            make_folder(path)?;
        }
        Ok(Self::from_cap_std(CapDir::open_ambient_dir(path, ambient_authority())?))
    }

    /// A folder that somebody handed over.
    pub(crate) const fn from_cap_std(folder: CapDir) -> Self {
        Self {
            folder,
            #[cfg(unix)]
            as_file: OnceLock::new(),
            #[cfg(unix)]
            counts_names: OnceLock::new(),
        }
    }

    /// Takes the writer's lock. `None`: somebody has it, in this process or another.
    pub(crate) fn lock(&self) -> io::Result<Option<WriterLock>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        no_follow(&mut options, 0);
        let file = self.folder.open_with(LOCK, &options)?.into_std();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        #[cfg(unix)]
        {
            let counts = sys::names_of(&file).is_ok_and(|names| names > 0);
            self.counts_names.get_or_init(|| counts);
        }
        let mut lock = WriterLock { lock: file, manifest: None };
        Ok(self.lock_manifest(&mut lock).then_some(lock))
    }

    /// Extends a writer's lock to the manifest, which a recovery may have made, or made anew.
    /// `false`: somebody else has it.
    pub(crate) fn lock_manifest(&self, lock: &mut WriterLock) -> bool {
        // Ours would keep us from it.
        if let Some(manifest) = lock.manifest.take() {
            WriterLock::free(&manifest);
        }
        if !LOCKS_ARE_ADVISORY {
            return true;
        }
        // Whatever is wrong with it recovery tells.
        let Ok(manifest) = self.open(FileId::Manifest.name(), Access::ReadWrite) else {
            return true;
        };
        match manifest.try_lock() {
            Ok(()) => lock.manifest = Some(manifest),
            Err(TryLockError::WouldBlock) => return false,
            // A file system without such locks: the first has to do.
            Err(TryLockError::Error(_)) => {}
        }
        true
    }

    /// Whether there is anything of a log here.
    pub(crate) fn holds_log(&self) -> io::Result<bool> {
        let names = self.names()?;
        Ok(names.iter().any(|listed| FileName::parse(&listed.name, false).is_some()))
    }

    /// The names in the folder and in `quarantine/`, sorted, how long files are, and what the
    /// catalog knows of them.
    pub(crate) fn list(&self, catalog: &mut Catalog) -> io::Result<Vec<Listed>> {
        self.entries(Some(catalog))
    }

    /// The same without lengths. Who looks often asks no file for them: a writer's next write to it
    /// would cost more, and there may be many.
    pub(crate) fn names(&self) -> io::Result<Vec<Listed>> {
        self.entries(None)
    }

    /// Without a catalog no file is asked for anything.
    fn entries(&self, mut catalog: Option<&mut Catalog>) -> io::Result<Vec<Listed>> {
        let mut names = Vec::new();
        list_folder(&self.folder, Folder::Log, catalog.as_deref_mut(), &mut names)?;
        match self.has_quarantine() {
            Ok(true) => {
                let quarantine = self.folder.open_dir(QUARANTINE)?;
                list_folder(&quarantine, Folder::Quarantine, catalog, &mut names)?;
            }
            // Something else has its name. It is a stray until something must be put there.
            Ok(false) => {
                names.push(Listed::new(Folder::Log, QUARANTINE.to_owned(), None));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        names.sort_by(|a, b| (a.folder, &a.name).cmp(&(b.folder, &b.name)));
        Ok(names)
    }

    /// Opens a file of the log.
    pub(crate) fn open(&self, name: FileName, access: Access) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let writes = matches!(access, Access::ReadWrite | Access::WriteDirect);
        options.read(true).write(writes);
        let flags = match access {
            Access::Read | Access::ReadWrite => 0,
            Access::ReadDirect | Access::WriteDirect => DIRECT.ok_or(io::ErrorKind::Unsupported)?,
        };
        let opened = self.open_regular(&name.to_string(), options, flags)?;
        #[cfg(unix)]
        {
            if access == Access::Read && name.is_segment() {
                self.hold(&opened.0, &opened.1, name)?;
            }
        }
        Ok(opened.0)
    }

    /// Opens the catalog; to write, it is made.
    pub(crate) fn open_catalog(&self, access: Access) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let writes = access == Access::ReadWrite;
        options.read(true).write(writes).create(writes);
        Ok(self.open_regular(CATALOG, options, NO_WAIT)?.0)
    }

    fn open_regular(
        &self,
        name: &str,
        mut options: OpenOptions,
        flags: i32,
    ) -> io::Result<(File, std::fs::Metadata)> {
        no_follow(&mut options, flags);
        let file = self.folder.open_with(name, &options)?.into_std();
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok((file, metadata))
    }

    /// Makes a file's content durable. With a file that somebody has removed it would go all the
    /// same: that is refused.
    pub(crate) fn sync_file(&self, file: &File) -> io::Result<()> {
        sys::sync_data(file)?;
        #[cfg(unix)]
        {
            let counts = self.counts_names.get() == Some(&true);
            if counts && sys::names_of(file)? == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
        }
        Ok(())
    }

    /// Keeps a segment's file from being recycled for as long as the handle lives, or a mapping of
    /// it: whoever recycles a file has it to himself first.
    #[cfg(unix)]
    fn hold(&self, file: &File, metadata: &std::fs::Metadata, name: FileName) -> io::Result<()> {
        use cap_std::fs::MetadataExt as _;
        use std::os::unix::fs::MetadataExt as _;
        hold(file)?;
        // It may have been recycled before it was held.
        let named = self.folder.symlink_metadata(name.to_string())?;
        let is_named = (metadata.dev(), metadata.ino()) == (named.dev(), named.ino());
        if is_named { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Makes a file; what stands under its name goes first, so that nobody's open handle is written
    /// to.
    pub(crate) fn create(&self, name: FileName) -> io::Result<File> {
        if matches!(name.file, FileId::Quarantined(_)) {
            self.make_quarantine()?;
        }
        self.remove(name)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        Ok(self.folder.open_with(name.to_string(), &options)?.into_std())
    }

    /// Its own name is made durable each time: whoever made the folder may not have come to that.
    fn make_quarantine(&self) -> io::Result<()> {
        match self.folder.create_dir(QUARANTINE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !self.has_quarantine()? {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
            }
            result => result?,
        }
        self.sync(Folder::Log)
    }

    /// Whether the quarantine is a folder. A link to one is not: nothing is moved through a link.
    fn has_quarantine(&self) -> io::Result<bool> {
        Ok(self.folder.symlink_metadata(QUARANTINE)?.is_dir())
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
        match folder {
            Folder::Log => sys::sync_folder(self.as_file()?),
            Folder::Quarantine => sys::sync_folder(&self.folder.open(QUARANTINE)?.into_std()),
        }
    }

    #[cfg(unix)]
    fn as_file(&self) -> io::Result<&File> {
        if let Some(file) = self.as_file.get() {
            return Ok(file);
        }
        let file = self.folder.open(".")?.into_std();
        Ok(self.as_file.get_or_init(|| file))
    }

    /// Whether what is overwritten here goes to new blocks, those of the log's files too.
    pub(crate) fn copies_on_write(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.as_file().is_ok_and(sys::copies_on_write);
        #[cfg(not(target_os = "linux"))]
        return false;
    }

    /// The platform has no sync for folders; see [`sys`].
    #[cfg(not(unix))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "as on other platforms")]
    pub(crate) fn sync(&self, _folder: Folder) -> io::Result<()> {
        Ok(())
    }
}

/// Where a lock keeps nobody from reading and writing, and so tells who has a file open. Elsewhere
/// nothing is recycled.
const LOCKS_ARE_ADVISORY: bool = cfg!(unix);

/// Holds an open segment's file, see [`Dir::open`].
pub(crate) fn hold(file: &File) -> io::Result<()> {
    if !LOCKS_ARE_ADVISORY {
        return Ok(());
    }
    match file.try_lock_shared() {
        // A file system without locks: nobody can have a file to himself, to recycle it.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Takes an open segment's file for ourselves, until it is unlocked or closed.
pub(crate) fn take(file: &File) -> io::Result<()> {
    if !LOCKS_ARE_ADVISORY {
        return Err(io::ErrorKind::Unsupported.into());
    }
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::ErrorKind::ResourceBusy.into(),
        TryLockError::Error(error) => error,
    })
}

/// Makes a folder, and those above it that are missing, each durable by a sync of its parent. The
/// parent of a folder that is there already is synced too: whoever made it may not have come to
/// that.
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
#[cfg(unix)]
fn sync_parent(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match File::open(parent) {
        Ok(parent) => sys::sync_folder(&parent),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "it can fail on other platforms")]
fn sync_parent(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// How a file is opened past the page cache, where that is known.
#[cfg(target_os = "linux")]
const DIRECT: Option<i32> = Some(libc::O_DIRECT);
#[cfg(not(target_os = "linux"))]
const DIRECT: Option<i32> = None;

/// Whoever opens a pipe, where a file should be, waits for nobody to write to it.
#[cfg(unix)]
const NO_WAIT: i32 = libc::O_NONBLOCK;
#[cfg(not(unix))]
const NO_WAIT: i32 = 0;

#[cfg(unix)]
fn no_follow(options: &mut OpenOptions, flags: i32) {
    options.custom_flags(libc::O_NOFOLLOW | flags);
}

#[cfg(not(unix))]
fn no_follow(options: &mut OpenOptions, _flags: i32) {
    // FILE_FLAG_OPEN_REPARSE_POINT: a link is opened itself, and then is no regular file.
    #[cfg(windows)]
    options.custom_flags(0x0020_0000);
    #[cfg(not(windows))]
    options.read(true);
}

/// How long a file is, and what is known of it. No length: it is no file.
fn look_at(
    entry: &DirEntry,
    name: &str,
    catalog: &mut Catalog,
) -> io::Result<(Option<u64>, Option<Box<Known>>)> {
    if !entry.file_type()?.is_file() {
        return Ok((None, None));
    }
    let metadata = entry.metadata()?;
    Ok((Some(metadata.len()), catalog.known(name, Stamp::of(&metadata))))
}

fn list_folder(
    dir: &CapDir,
    folder: Folder,
    mut catalog: Option<&mut Catalog>,
    names: &mut Vec<Listed>,
) -> io::Result<()> {
    for entry in dir.entries()? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if folder == Folder::Log && [LOCK, CATALOG, QUARANTINE].contains(&name.as_str()) {
            continue;
        }
        let looked = match &mut catalog {
            Some(catalog) => look_at(&entry, &name, catalog),
            None => Ok((None, None)),
        };
        match looked {
            Ok((bytes, known)) => names.push(Listed { folder, name, bytes, known }),
            // It has gone since: somebody deletes segments while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_core::id::SegmentId;
    use seawall_core::wire::name::Quarantined;
    use std::fs;

    fn temp() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_path(temp.path(), true).unwrap();
        (temp, dir)
    }

    fn quarantined() -> FileName {
        let segment = SegmentId::new(7);
        FileId::Quarantined(Quarantined { generation: 1, segment, offset: Some(64) }).name()
    }

    fn listed(dir: &Dir) -> Vec<(Folder, String, Option<u64>)> {
        let names = dir.list(&mut Catalog::default()).unwrap();
        names.into_iter().map(|listed| (listed.folder, listed.name, listed.bytes)).collect()
    }

    #[test]
    fn one_writer_at_a_time() {
        let (temp, one) = temp();
        let two = Dir::open_path(temp.path(), false).unwrap();
        let lock = one.lock().unwrap();
        assert!(lock.is_some());
        assert!(two.lock().unwrap().is_none());
        assert!(one.lock().unwrap().is_none());
        drop(lock);
        assert!(two.lock().unwrap().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_that_somebody_removes_still_keeps_others_away() {
        let (temp, one) = temp();
        let two = Dir::open_path(temp.path(), false).unwrap();
        one.create(FileId::Manifest.name()).unwrap();
        let mut lock = one.lock().unwrap().unwrap();
        let keeps_others_away = || {
            fs::remove_file(temp.path().join(LOCK)).unwrap();
            two.lock().unwrap().is_none()
        };
        assert!(keeps_others_away());
        // Also where the manifest is another file by now.
        one.create(FileId::Manifest.name()).unwrap();
        assert!(one.lock_manifest(&mut lock) && one.lock_manifest(&mut lock));
        assert!(keeps_others_away());
        drop(lock);
        assert!(two.lock().unwrap().is_some());
    }

    #[test]
    fn folders_are_made_only_when_asked() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b/c");
        let error = Dir::open_path(&path, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        Dir::open_path(&path, true).unwrap();
        Dir::open_path(&path, true).unwrap();
        fs::write(temp.path().join("file"), "").unwrap();
        assert!(Dir::open_path(&temp.path().join("file"), true).is_err());
    }

    #[test]
    fn names_are_listed_with_their_folders() {
        let (temp, dir) = temp();
        let _lock = dir.lock().unwrap().unwrap();
        assert_eq!(listed(&dir), []);
        dir.create(FileId::Manifest.name()).unwrap().set_len(9).unwrap();
        dir.create(quarantined()).unwrap();
        fs::create_dir(temp.path().join("folder")).unwrap();
        let cut = "000001-00000000000000000007-64.cut".to_owned();
        let expected = [
            (Folder::Log, "MANIFEST".to_owned(), Some(9)),
            (Folder::Log, "folder".to_owned(), None),
            (Folder::Quarantine, cut, Some(0)),
        ];
        assert_eq!(listed(&dir), expected);
        dir.sync(Folder::Log).unwrap();
        dir.sync(Folder::Quarantine).unwrap();
    }

    #[test]
    fn a_file_that_is_created_again_is_another_file() {
        let (_temp, dir) = temp();
        let name = FileId::Segment(SegmentId::FIRST);
        let old = dir.create(name.new_name()).unwrap();
        let new = dir.create(name.new_name()).unwrap();
        new.set_len(5).unwrap();
        assert_eq!(old.metadata().unwrap().len(), 0);
        dir.rename(name.new_name(), name.name()).unwrap();
        assert_eq!(dir.open(name.name(), Access::Read).unwrap().metadata().unwrap().len(), 5);
        let error = dir.open(name.new_name(), Access::Read).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        dir.remove(name.name()).unwrap();
        dir.remove(name.name()).unwrap();
    }

    #[test]
    fn only_regular_files_are_opened() {
        let (temp, dir) = temp();
        fs::create_dir(temp.path().join("MANIFEST")).unwrap();
        assert!(dir.open(FileId::Manifest.name(), Access::Read).is_err());
        assert!(dir.open(FileId::Manifest.name(), Access::ReadWrite).is_err());
    }

    #[test]
    fn a_stray_in_place_of_the_quarantine_matters_only_when_that_is_needed() {
        let (temp, dir) = temp();
        fs::write(temp.path().join(QUARANTINE), "mine").unwrap();
        assert_eq!(listed(&dir), [(Folder::Log, QUARANTINE.to_owned(), None)]);
        assert_eq!(dir.create(quarantined()).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        use std::os::unix::fs::symlink;
        let (temp, dir) = temp();
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("target");
        fs::write(&target, "theirs").unwrap();
        let name = FileId::Manifest.name();
        for target in [&target, Path::new("other")] {
            fs::write(temp.path().join("other"), "").unwrap();
            symlink(target, temp.path().join("MANIFEST")).unwrap();
            assert!(dir.open(name, Access::Read).is_err());
            assert!(dir.open(name, Access::ReadWrite).is_err());
            assert_eq!(listed(&dir)[0], (Folder::Log, "MANIFEST".to_owned(), None));
            dir.create(name).unwrap();
            assert!(dir.open(name, Access::Read).is_ok());
            dir.remove(name).unwrap();
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "theirs");
        symlink(&target, temp.path().join(LOCK)).unwrap();
        assert!(dir.lock().is_err());
        for target in [outside.path(), Path::new(".")] {
            symlink(target, temp.path().join(QUARANTINE)).unwrap();
            assert!(listed(&dir).contains(&(Folder::Log, QUARANTINE.to_owned(), None)));
            assert!(dir.create(quarantined()).is_err());
            fs::remove_file(temp.path().join(QUARANTINE)).unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_no_text_is_listed_all_the_same() {
        use std::os::unix::ffi::OsStrExt;
        let (temp, dir) = temp();
        fs::write(temp.path().join(std::ffi::OsStr::from_bytes(b"\xffx")), "ab").unwrap();
        assert_eq!(listed(&dir), [(Folder::Log, "\u{fffd}x".to_owned(), Some(2))]);
    }
}
