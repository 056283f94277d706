//! The one place where a command of the core becomes calls of a file system.

use crate::folder::{File, Folder, How, Refusal, RefusalKind, persist, read_all, write_all};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use seawall_core::command::{self, Command, Done, Listed};
use seawall_core::error::{IoError, IoErrorKind};
use seawall_core::id::SegmentId;
use seawall_core::wire::name::{CATALOG, FileId, FileName, QUARANTINE};

/// How the space of a segment is reserved. WASI has no call for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preallocation {
    /// Not at all.
    None,
    /// By the file's length alone.
    #[default]
    Sparse,
    /// By writing zeros.
    Written,
}

/// The name of the file that tells who writes, where [`crate::Exclusion::Owner`] asks for one.
pub(crate) const OWNER: &str = "OWNER";
/// The file that the native host and the wasmtime embedder lock.
const LOCK: &str = "LOCK";

/// How much is written at a time where zeros are written.
const ZEROS_BYTES: usize = 256 << 10;

/// Files of so many of the newest segments stay open; more than are ever written to.
const HANDLES_KEPT: u64 = 4;

/// So many files are open at most. A recovery looks into each segment, one after the other, and a
/// host may give out no more than some hundred handles.
const OPEN_FILES_MAX: usize = 16;

/// Runs commands on the files of one folder.
pub(crate) struct Executor<F: Folder> {
    folder: F,
    preallocation: Preallocation,
    files: RefCell<Vec<(FileId, F::File)>>,
    syncs_directories: Cell<bool>,
    /// Whether a folder that cannot be synced is passed over.
    excuses_directories: Cell<bool>,
    pub(crate) writes: Cell<u64>,
    pub(crate) syncs: Cell<u64>,
}

impl<F: Folder> Executor<F> {
    pub(crate) fn new(folder: F, preallocation: Preallocation) -> Self {
        Self {
            folder,
            preallocation,
            files: RefCell::new(Vec::new()),
            syncs_directories: Cell::new(true),
            excuses_directories: Cell::new(false),
            writes: Cell::new(0),
            syncs: Cell::new(0),
        }
    }

    /// Finds out whether names can be made durable here. A host that cannot says so with one of
    /// several codes, so that any refusal counts; from then on such a sync is passed over, if that
    /// is `excused`.
    pub(crate) fn probe_directory_sync(&self, excused: bool) -> bool {
        let works = self.folder.sync().is_ok();
        self.syncs_directories.set(works);
        self.excuses_directories.set(!works && excused);
        works
    }

    pub(crate) fn syncs_directories(&self) -> bool {
        self.syncs_directories.get()
    }

    /// Runs a command.
    pub(crate) fn execute(&self, command: Command<Vec<u8>>) -> Done<Vec<u8>> {
        match command {
            Command::Write(c) => {
                let result = self.write(&c);
                c.done(result)
            }
            Command::Sync(c) => {
                self.syncs.set(self.syncs.get() + 1);
                let result = self.with(c.name, File::sync_data);
                c.done(result.map_err(sync_error))
            }
            // WASI has no such call; the sync does it all.
            Command::WriteBack(c) => c.done(Ok(())),
            Command::SyncDir(c) => {
                let result = self.sync_folder(c.folder);
                c.done(result.map_err(sync_error))
            }
            Command::Read(mut c) => {
                let offset = c.offset;
                let result = self.with(c.name, |file| read_all(file, &mut c.buffer, offset));
                c.done(result.map_err(io_error))
            }
            Command::Create(c) => {
                let result = self.create(c.name);
                c.done(result.map_err(io_error))
            }
            Command::Allocate(c) => {
                let result = self.with(c.name, |file| self.allocate(file, c.from, c.file_bytes));
                c.done(result.map_err(io_error))
            }
            Command::Truncate(c) => {
                let bytes = c.bytes;
                let result = self.with(c.name, |file| persist(|| file.set_bytes(bytes)));
                c.done(result.map_err(io_error))
            }
            Command::Rename(c) => {
                let result = self.rename(c.from, c.to);
                c.done(result.map_err(io_error))
            }
            Command::Remove(c) => {
                let result = self.remove(c.name);
                c.done(result.map_err(io_error))
            }
            Command::List(c) => {
                let result = self.list();
                c.done(result.map_err(io_error))
            }
        }
    }

    fn write(&self, command: &command::Write<Vec<u8>>) -> Result<(), IoError> {
        let bytes = command.data.as_ref();
        self.writes.set(self.writes.get() + 1);
        self.with(command.name, |file| write_all(file, bytes, command.offset)).map_err(io_error)?;
        if !command.sync {
            return Ok(());
        }
        self.syncs.set(self.syncs.get() + 1);
        self.with(command.name, File::sync_data).map_err(sync_error)
    }

    /// The open file, which keeps its handle through a renaming.
    fn with<T>(
        &self,
        name: FileName,
        call: impl FnOnce(&F::File) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let known = self.files.borrow().iter().any(|(file, _)| *file == name.file);
        if !known {
            let file = persist(|| self.folder.open(&name.to_string(), How::Write))?;
            self.keep(name.file, file);
        }
        let files = self.files.borrow();
        let found = files.iter().find(|(file, _)| *file == name.file);
        found.map_or(Err(Refusal::new(RefusalKind::NotFound)), |(_, file)| call(file))
    }

    fn keep(&self, id: FileId, file: F::File) {
        self.forget(id);
        let mut files = self.files.borrow_mut();
        if files.len() == OPEN_FILES_MAX
            && let Some(oldest) = files.iter().position(|(id, _)| matches!(id, FileId::Segment(_)))
        {
            files.remove(oldest);
        }
        files.push((id, file));
    }

    fn forget(&self, id: FileId) {
        self.files.borrow_mut().retain(|(file, _)| *file != id);
    }

    /// Closes the files of segments that the log does not write to any more.
    pub(crate) fn forget_before(&self, newest: SegmentId) {
        self.files.borrow_mut().retain(|(file, _)| match file {
            FileId::Segment(segment) => segment.get() + HANDLES_KEPT > newest.get(),
            FileId::Manifest => true,
            FileId::Quarantined(_) => false,
        });
    }

    /// What stands under the name goes first, so that nobody's open handle is written to.
    fn create(&self, name: FileName) -> Result<(), Refusal> {
        if matches!(name.file, FileId::Quarantined(_)) {
            self.make_quarantine()?;
        }
        self.remove(name)?;
        let file = persist(|| self.folder.open(&name.to_string(), How::CreateNew))?;
        self.keep(name.file, file);
        Ok(())
    }

    /// Its own name is made durable each time: whoever made the folder may not have come to that.
    fn make_quarantine(&self) -> Result<(), Refusal> {
        match persist(|| self.folder.make_folder(QUARANTINE)) {
            Err(refusal) if refusal.kind != RefusalKind::Exists => return Err(refusal),
            _ => {}
        }
        self.folder.folder(QUARANTINE)?;
        self.sync_folder(command::Folder::Log)
    }

    fn sync_folder(&self, folder: command::Folder) -> Result<(), Refusal> {
        if self.excuses_directories.get() {
            return Ok(());
        }
        match folder {
            command::Folder::Log => self.folder.sync(),
            command::Folder::Quarantine => self.folder.folder(QUARANTINE)?.sync(),
        }
    }

    fn allocate(&self, file: &F::File, from: u64, to: u64) -> Result<(), Refusal> {
        let length = persist(|| file.bytes())?;
        match self.preallocation {
            Preallocation::None => {}
            Preallocation::Sparse if length >= to => {}
            Preallocation::Sparse => persist(|| file.set_bytes(to))?,
            Preallocation::Written => {
                // What is within the file may be anything; what is behind it reads as zeros
                // whether it is written or not.
                let mut at = from.max(length);
                let zeros = vec![0; ZEROS_BYTES];
                while at < to {
                    let piece = usize::try_from(to - at).unwrap_or(ZEROS_BYTES).min(ZEROS_BYTES);
                    write_all(file, &zeros[..piece], at)?;
                    at += piece as u64;
                }
            }
        }
        Ok(())
    }

    fn rename(&self, from: FileName, to: FileName) -> Result<(), Refusal> {
        persist(|| self.folder.rename(&from.to_string(), &to.to_string()))?;
        if from.file != to.file {
            // What was open under the new name is another file now, and must not be written to.
            self.forget(to.file);
            for (file, _) in &mut *self.files.borrow_mut() {
                if *file == from.file {
                    *file = to.file;
                }
            }
        }
        Ok(())
    }

    fn remove(&self, name: FileName) -> Result<(), Refusal> {
        self.forget(name.file);
        match persist(|| self.folder.remove(&name.to_string())) {
            Err(Refusal { kind: RefusalKind::NotFound, .. }) => Ok(()),
            result => result,
        }
    }

    fn list(&self) -> Result<Vec<Listed>, Refusal> {
        let mut names = Vec::new();
        for found in persist(|| self.folder.list())? {
            if [LOCK, OWNER, CATALOG].contains(&found.name.as_str()) {
                continue;
            }
            if found.name == QUARANTINE && found.is_folder {
                let quarantine = self.folder.folder(QUARANTINE)?;
                let folder = command::Folder::Quarantine;
                for found in persist(|| quarantine.list())? {
                    names.push(Listed::new(folder, found.name, found.bytes));
                }
                continue;
            }
            let folder = command::Folder::Log;
            names.push(Listed::new(folder, found.name, found.bytes));
        }
        Ok(names)
    }

    /// A handle of its own for a reader.
    pub(crate) fn open_for_reading(&self, segment: SegmentId) -> Result<F::File, Refusal> {
        persist(|| self.folder.open(&FileId::Segment(segment).name().to_string(), How::Read))
    }

    /// Writes who owns the log. `Err(Ok(owner))`: somebody does already.
    pub(crate) fn own(&self, owner: &str, takes_over: bool) -> Result<(), Result<String, Refusal>> {
        if takes_over {
            match persist(|| self.folder.remove(OWNER)) {
                Err(refusal) if refusal.kind != RefusalKind::NotFound => return Err(Err(refusal)),
                _ => {}
            }
        }
        match persist(|| self.folder.open(OWNER, How::CreateNew)) {
            Ok(file) => {
                let named = write_all(&file, owner.as_bytes(), 0).and_then(|()| file.sync_data());
                if named.is_err() {
                    // The refusal says more than that an owner without a name stays.
                    self.disown().ok();
                }
                named.map_err(Err)
            }
            Err(Refusal { kind: RefusalKind::Exists, .. }) => Err(self.owner()),
            Err(refusal) => Err(Err(refusal)),
        }
    }

    fn owner(&self) -> Result<String, Refusal> {
        let file = persist(|| self.folder.open(OWNER, How::Read))?;
        let mut name = [0; OWNER_BYTES_MAX];
        let length = read_all(&file, &mut name, 0)?;
        Ok(String::from_utf8_lossy(&name[..length]).into_owned())
    }

    /// Gives the log up.
    pub(crate) fn disown(&self) -> Result<(), Refusal> {
        persist(|| self.folder.remove(OWNER))
    }
}

/// More of an owner's name is not shown.
const OWNER_BYTES_MAX: usize = 256;

/// What the core needs to know of a refusal.
pub(crate) fn io_error(refusal: Refusal) -> IoError {
    let kind = match refusal.kind {
        RefusalKind::NoSpace => IoErrorKind::NoSpace,
        RefusalKind::NotFound => IoErrorKind::NotFound,
        _ => IoErrorKind::Other,
    };
    IoError { kind, os_code: refusal.code.map(i32::from) }
}

/// A sync that failed has failed, for whatever reason: what it should have written may be lost, and
/// a second one may report success. Want of room is no excuse.
fn sync_error(refusal: Refusal) -> IoError {
    IoError { kind: IoErrorKind::Other, os_code: refusal.code.map(i32::from) }
}
