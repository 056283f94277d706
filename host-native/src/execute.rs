//! The one place where a command of the core becomes a call of the operating system.

use crate::dir::{Access, Dir};
use crate::sys;
use seawall_core::command::{Command, Done, Operation};
use seawall_core::error::{IoError, IoErrorKind};
use seawall_core::id::SegmentId;
use seawall_core::wire::name::{FileId, FileName};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is about to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Which operation.
    pub operation: Operation,
    /// On which file; `None` for the folder.
    pub file: Option<FileId>,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Whether a sync is part of it.
    pub sync: bool,
}

/// How a call is made to fail.
#[derive(Debug)]
pub enum Fault {
    /// It is not made, and this is its result.
    Fails(io::Error),
    /// A write writes so many bytes and then fails.
    Short(u64, io::Error),
    /// A write is made; the sync that goes with it is not, and this is its result.
    SyncFails(io::Error),
}

/// Is asked before each call, from the thread that makes it, whether it is to fail. For tests of what
/// embeds a log: they see every call and make any of them fail without a failing disk.
pub trait Interpose: Send + Sync {
    /// `None`: let it be.
    fn before(&self, call: &Call) -> Option<Fault>;
}

/// Runs commands on the files of one folder. Shared by all threads; no lock is held during I/O.
pub(crate) struct Executor {
    dir: Dir,
    is_read_only: bool,
    interpose: Option<Arc<dyn Interpose>>,
    files: Mutex<HashMap<FileId, Arc<File>>>,
}

impl Executor {
    pub(crate) fn new(dir: Dir, is_read_only: bool, interpose: Option<Arc<dyn Interpose>>) -> Self {
        Self { dir, is_read_only, interpose, files: Mutex::new(HashMap::new()) }
    }

    /// Runs a command.
    pub(crate) fn execute(&self, command: Command<Vec<u8>>) -> Done<Vec<u8>> {
        let fault = self.interpose.as_ref().and_then(|it| it.before(&call_of(&command)));
        match (command, fault) {
            (Command::Write(c), fault) => {
                let result = self.write(c.name, c.data.as_ref(), c.offset, c.sync, fault);
                c.done(result)
            }
            (Command::Sync(c), fault) => {
                let result = fails(fault).and_then(|()| sys::sync_data(&*self.file(c.name)?));
                c.done(result.map_err(sync_error))
            }
            (Command::SyncDir(c), fault) => {
                let result = fails(fault).and_then(|()| self.dir.sync(c.folder));
                c.done(result.map_err(sync_error))
            }
            (Command::Read(mut c), fault) => {
                let result = fails(fault)
                    .and_then(|()| sys::read_at(&*self.file(c.name)?, &mut c.buffer, c.offset));
                c.done(result.map_err(io_error))
            }
            (Command::Create(c), fault) => {
                let result = fails(fault).and_then(|()| self.create(c.name));
                c.done(result.map_err(io_error))
            }
            (Command::Allocate(c), fault) => {
                let result =
                    fails(fault).and_then(|()| sys::allocate(&*self.file(c.name)?, c.from, c.to));
                c.done(result.map_err(io_error))
            }
            (Command::Truncate(c), fault) => {
                let result = fails(fault).and_then(|()| self.file(c.name)?.set_len(c.bytes));
                c.done(result.map_err(io_error))
            }
            (Command::Rename(c), fault) => {
                let result = fails(fault).and_then(|()| self.rename(c.from, c.to));
                c.done(result.map_err(io_error))
            }
            (Command::Remove(c), fault) => {
                let result = fails(fault).and_then(|()| self.remove(c.name));
                c.done(result.map_err(io_error))
            }
            (Command::List(c), fault) => {
                let result = fails(fault).and_then(|()| self.dir.list());
                c.done(result.map_err(io_error))
            }
        }
    }

    fn write(
        &self,
        name: FileName,
        bytes: &[u8],
        offset: u64,
        sync: bool,
        fault: Option<Fault>,
    ) -> Result<(), IoError> {
        let file = self.file(name).map_err(io_error)?;
        match fault {
            Some(Fault::Fails(error)) => return Err(io_error(error)),
            Some(Fault::Short(taken, error)) => {
                let taken = usize::try_from(taken).unwrap_or(usize::MAX).min(bytes.len());
                sys::write_all_at(&file, &bytes[..taken], offset).map_err(io_error)?;
                return Err(io_error(error));
            }
            Some(Fault::SyncFails(error)) => {
                sys::write_all_at(&file, bytes, offset).map_err(io_error)?;
                return Err(sync_error(error));
            }
            None => sys::write_all_at(&file, bytes, offset).map_err(io_error)?,
        }
        if sync { sys::sync_data(&file).map_err(sync_error) } else { Ok(()) }
    }

    fn files(&self) -> MutexGuard<'_, HashMap<FileId, Arc<File>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open file, which keeps its handle through a renaming.
    fn file(&self, name: FileName) -> io::Result<Arc<File>> {
        if let Some(file) = self.files().get(&name.file) {
            return Ok(file.clone());
        }
        let access = if self.is_read_only { Access::Read } else { Access::ReadWrite };
        let file = Arc::new(self.dir.open(name, access)?);
        self.files().insert(name.file, file.clone());
        Ok(file)
    }

    fn create(&self, name: FileName) -> io::Result<()> {
        self.files().remove(&name.file);
        let file = Arc::new(self.dir.create(name)?);
        self.files().insert(name.file, file);
        Ok(())
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        self.dir.rename(from, to)?;
        let mut files = self.files();
        if from.file != to.file
            && let Some(file) = files.remove(&from.file)
        {
            files.insert(to.file, file);
        }
        Ok(())
    }

    fn remove(&self, name: FileName) -> io::Result<()> {
        self.files().remove(&name.file);
        self.dir.remove(name)
    }

    /// Closes the files of segments that the log does not write to any more.
    pub(crate) fn forget_all_but(&self, keeps: impl Fn(FileId) -> bool) {
        self.files().retain(|file, _| keeps(*file));
    }

    /// A handle of its own for a reader.
    pub(crate) fn open_for_reading(&self, segment: SegmentId) -> io::Result<Arc<File>> {
        self.dir.open(FileId::Segment(segment).name(), Access::Read).map(Arc::new)
    }

    /// The names in the folder.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }
}

fn fails(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        None => Ok(()),
        Some(Fault::Fails(error) | Fault::Short(_, error) | Fault::SyncFails(error)) => Err(error),
    }
}

fn call_of(command: &Command<Vec<u8>>) -> Call {
    let (offset, bytes, sync) = match command {
        Command::Write(c) => (c.offset, c.data.as_ref().len() as u64, c.sync),
        Command::Read(c) => (c.offset, c.buffer.len() as u64, false),
        Command::Allocate(c) => (c.from, c.to.saturating_sub(c.from), false),
        Command::Truncate(c) => (c.bytes, 0, false),
        Command::Sync(_) | Command::SyncDir(_) => (0, 0, true),
        _ => (0, 0, false),
    };
    Call { operation: command.operation(), file: command.file(), offset, bytes, sync }
}

/// What the core needs to know of a failure.
fn io_error(error: io::Error) -> IoError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => IoErrorKind::NoSpace,
        io::ErrorKind::NotFound => IoErrorKind::NotFound,
        _ => IoErrorKind::Other,
    };
    IoError { kind, os_code: error.raw_os_error() }
}

/// A sync that failed has failed, for whatever reason: what it should have written may be lost, and a
/// second one may report success. Want of room is no excuse.
fn sync_error(error: io::Error) -> IoError {
    IoError { kind: IoErrorKind::Other, os_code: error.raw_os_error() }
}
