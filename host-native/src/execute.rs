//! The one place where a command of the core becomes a call of the operating system.

use crate::catalog::{Catalog, Keeper};
use crate::config::WalConfig;
use crate::dir::{Access, Dir, hold, take};
use crate::sys;
use seawall_core::command::{Command, Done, Listed, Operation, Write};
use seawall_core::error::{IoError, IoErrorKind};
use seawall_core::id::SegmentId;
use seawall_core::wire::is_zero;
use seawall_core::wire::name::{FileId, FileName};
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

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

/// Is asked before each command of the log, from the thread that runs it, whether it is to fail;
/// reads by readers are not commands. For tests of
/// what embeds a log: they see every call and make any of them fail without a failing disk. A panic
/// makes the call fail, too.
pub trait Interpose: Send + Sync {
    /// `None`: let it be.
    fn before(&self, call: &Call) -> Option<Fault>;
}

/// Runs commands on the files of one folder. Shared by all threads; no lock is held during I/O.
pub(crate) struct Executor {
    dir: Dir,
    is_read_only: bool,
    interpose: Option<Arc<dyn Interpose>>,
    maps_appends: bool,
    uring: Option<Uring>,
    /// From the listing on until it is taken.
    keeper: Mutex<Keeper>,
    /// A handful: a look through them is faster than any map.
    files: Mutex<Vec<(FileId, Arc<OpenFile>)>>,
}

/// Where long durable writes go.
struct Uring {
    /// Shorter ones do not.
    bytes_min: usize,
    /// Taken out for a write.
    ring: Mutex<Option<sys::Ring>>,
}

/// The file that the last short write went to, for whoever makes the next: to look for it and to
/// share it takes a twentieth of the time of such a write.
pub(crate) struct LastFile(FileId, Arc<OpenFile>);

/// A file that commands go to.
struct OpenFile {
    file: Arc<File>,
    /// The same past the page cache, opened at the first write that goes there; `None` inside: the
    /// file system has no such thing.
    direct: OnceLock<Option<File>>,
    /// Held for a copy, and while the file's length changes.
    mapping: Mutex<Mapping>,
}

/// A file's mapping for writes that are copied into it.
enum Mapping {
    /// It is made at the first such write.
    NotYet,
    /// It cannot be mapped.
    None,
    Open(sys::Writable),
}

/// Files of so many of the newest segments stay open for writing; more than are ever written to.
const HANDLES_KEPT: u64 = 4;

/// So many files are open at most. A recovery looks into each segment, one after the other, and a
/// process may have no more than some hundred files open.
const OPEN_FILES_MAX: usize = 16;

/// Longer writes cost less as a call than the page faults that they would bring about.
const MAPPED_WRITE_BYTES_MAX: usize = 4 << 10;

/// Less is not worth an operation of the device's own.
const WRITE_BACK_BYTES_MIN: usize = 128 << 10;

/// So far back it is looked whether the device is still at work.
const WRITE_BACK_LOOK_BYTES: u64 = 16 << 20;

impl Uring {
    fn ring(&self) -> MutexGuard<'_, Option<sys::Ring>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenFile {
    fn new(file: Arc<File>) -> Arc<Self> {
        Arc::new(Self { file, direct: OnceLock::new(), mapping: Mutex::new(Mapping::NotYet) })
    }

    /// Copies into the mapped file what has its place there; `false`: it has to be written.
    ///
    /// While the length changes nothing is copied: a file system that makes a file longer clears
    /// the rest of what was its last page, and with it what a mapping of the new length has put
    /// there. A write waits for that by itself.
    fn copy(&self, bytes: &[u8], offset: u64) -> bool {
        let mut mapping = match self.mapping.try_lock() {
            Ok(mapping) => mapping,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if let Mapping::NotYet = *mapping {
            *mapping = self.map(offset).map_or(Mapping::None, Mapping::Open);
        }
        match &*mapping {
            Mapping::Open(open) => open.write(bytes, offset),
            Mapping::NotYet | Mapping::None => false,
        }
    }

    /// Maps what a log writes from now on, which is what comes behind `from`.
    fn map(&self, from: u64) -> Option<sys::Writable> {
        let end = self.file.metadata().ok()?.len();
        sys::map_writable(&self.file, from, end).ok()?
    }

    fn mapping(&self) -> MutexGuard<'_, Mapping> {
        self.mapping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the file's length. It is unmapped before: whoever touched a mapping past the end
    /// would kill the process. The next write that is copied maps it anew.
    fn resize(&self, change: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let mut mapping = self.mapping();
        *mapping = Mapping::NotYet;
        change(&self.file)
    }

    /// Lets go of a mapping before its pages are written back. For each of them the kernel would
    /// interrupt every processor, to see whether it is written to meanwhile.
    fn unmap(&self) {
        let mut mapping = self.mapping();
        if let Mapping::Open(_) = &*mapping {
            *mapping = Mapping::NotYet;
        }
    }
}

impl Executor {
    pub(crate) fn new(dir: Dir, is_read_only: bool, config: &WalConfig) -> Self {
        Self {
            dir,
            is_read_only,
            interpose: config.interpose.clone(),
            maps_appends: config.map_appends && !is_read_only,
            uring: None,
            keeper: Mutex::default(),
            files: Mutex::new(Vec::new()),
        }
    }

    /// Takes a ring for long writes, if the settings ask for one.
    ///
    /// # Errors
    /// When there is none; everything works without.
    pub(crate) fn begin_uring(&mut self, config: &WalConfig) -> io::Result<()> {
        if let Some(bytes_min) = config.uring_size {
            let bytes_min = usize::try_from(bytes_min).unwrap_or(usize::MAX);
            self.uring = Some(Uring { bytes_min, ring: Mutex::new(Some(sys::Ring::new()?)) });
        }
        Ok(())
    }

    /// Runs a command.
    pub(crate) fn execute(&self, command: Command<Vec<u8>>) -> Done<Vec<u8>> {
        let fault = self.fault(&command);
        match (command, fault) {
            (Command::Write(c), fault) => self.run_write(c, fault),
            (Command::Sync(c), fault) => {
                let result = fails(fault).and_then(|()| self.sync(&*self.file(c.name)?));
                c.done(result.map_err(sync_error))
            }
            (Command::WriteBack(c), fault) => {
                let result = fails(fault).and_then(|()| self.write_back(c.name, c.from, c.to));
                c.done(result.map_err(sync_error))
            }
            (Command::SyncDir(c), fault) => {
                let result = fails(fault).and_then(|()| self.dir.sync(c.folder));
                c.done(result.map_err(sync_error))
            }
            (Command::Read(mut c), fault) => {
                let result = fails(fault)
                    .and_then(|()| sys::read_at(&self.file(c.name)?.file, &mut c.buffer, c.offset));
                c.done(result.map_err(io_error))
            }
            (Command::Create(c), fault) => {
                let result = fails(fault).and_then(|()| self.create(c.name));
                c.done(result.map_err(io_error))
            }
            (Command::Allocate(c), fault) => {
                let result =
                    fails(fault).and_then(|()| self.allocate(c.name, c.from, c.to, c.file_bytes));
                c.done(result.map_err(io_error))
            }
            (Command::Truncate(c), fault) => {
                let result = fails(fault).and_then(|()| self.truncate(c.name, c.bytes));
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
                let result = fails(fault).and_then(|()| self.list());
                c.done(result.map_err(io_error))
            }
        }
    }

    /// Runs a plain write, as [`Executor::execute`] does.
    pub(crate) fn execute_write(
        &self,
        write: Write<Vec<u8>>,
        last: &mut Option<LastFile>,
    ) -> Done<Vec<u8>> {
        if self.interpose.is_some() || self.is_read_only || write.sync {
            return self.execute(Command::Write(write));
        }
        let wanted = write.name.file;
        if last.as_ref().is_none_or(|LastFile(file, _)| *file != wanted) {
            *last = self.file(write.name).ok().map(|open| LastFile(wanted, open));
        }
        let Some(LastFile(_, open)) = last else { return self.run_write(write, None) };
        let result = self.write_plainly(open, write.data.as_ref(), write.offset);
        write.done(result.map_err(io_error))
    }

    fn run_write(&self, c: Write<Vec<u8>>, fault: Option<Fault>) -> Done<Vec<u8>> {
        let result = self.write(c.name, c.data.as_ref(), c.offset, c.sync, fault);
        c.done(result)
    }

    fn fault(&self, command: &Command<Vec<u8>>) -> Option<Fault> {
        // The core changes nothing when it only looks; this holds whatever the core does.
        if self.is_read_only && changes(command.operation()) {
            return Some(Fault::Fails(io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        let interpose = self.interpose.as_deref()?;
        // The command is on its way, and somebody waits for it.
        let asked = catch_unwind(AssertUnwindSafe(|| interpose.before(&call_of(command))));
        asked
            .unwrap_or_else(|_| Some(Fault::Fails(io::Error::other("whoever interposes panicked"))))
    }

    fn write(
        &self,
        name: FileName,
        bytes: &[u8],
        offset: u64,
        sync: bool,
        fault: Option<Fault>,
    ) -> Result<(), IoError> {
        let open = self.file(name).map_err(io_error)?;
        let file = &*open.file;
        match fault {
            Some(Fault::Fails(error)) => return Err(io_error(error)),
            Some(Fault::Short(taken, error)) => {
                let taken = usize::try_from(taken).unwrap_or(usize::MAX).min(bytes.len());
                sys::write_all_at(file, &bytes[..taken], offset).map_err(io_error)?;
                return Err(io_error(error));
            }
            Some(Fault::SyncFails(error)) => {
                sys::write_all_at(file, bytes, offset).map_err(io_error)?;
                return Err(sync_error(error));
            }
            None if !sync => return self.write_plainly(&open, bytes, offset).map_err(io_error),
            None => {
                if !self.write_past(name, &open, bytes, offset).map_err(io_error)? {
                    write_to_sync(file, bytes, offset)?;
                }
            }
        }
        if sync { self.sync(&open).map_err(sync_error) } else { Ok(()) }
    }

    fn write_plainly(&self, open: &OpenFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        let is_short = bytes.len() <= MAPPED_WRITE_BYTES_MAX;
        if self.maps_appends && is_short && open.copy(bytes, offset) {
            return Ok(());
        }
        sys::write_all_at(&open.file, bytes, offset)
    }

    fn sync(&self, open: &OpenFile) -> io::Result<()> {
        if self.maps_appends {
            open.unmap();
        }
        self.dir.sync_file(&open.file)
    }

    /// A device that has not done what it was told before is told no more: whoever asks for more
    /// than it takes is held, and the upkeep has other things to do.
    fn write_back(&self, name: FileName, from: u64, to: u64) -> io::Result<()> {
        let open = self.file(name)?;
        let before = from.saturating_sub(WRITE_BACK_LOOK_BYTES);
        if sys::is_under_write_back(&open.file, before, to - before) != Some(false) {
            return Ok(());
        }
        if self.maps_appends {
            open.unmap();
        }
        let bytes = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        sys::begin_write_back(&open.file, from, bytes)
    }

    /// Writes whole blocks past the page cache, what is before and behind them through it. `false`:
    /// it has to be written otherwise.
    fn write_past(
        &self,
        name: FileName,
        open: &OpenFile,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<bool> {
        let uring = self.uring.as_ref().filter(|uring| bytes.len() >= uring.bytes_min);
        let Some(uring) = uring else { return Ok(false) };
        // The next writes go into the padding behind a small batch: its pages are to stay.
        if bytes.last_chunk::<{ sys::BLOCK_BYTES }>().is_none_or(|end| is_zero(end)) {
            return Ok(false);
        }
        let direct = open.direct.get_or_init(|| self.dir.open(name, Access::WriteDirect).ok());
        let block = sys::BLOCK_BYTES;
        let into = usize::try_from(offset % block as u64).unwrap_or(0);
        let before = (block - into) % block;
        // The last block is written by a call even if it is whole: the next write may begin in it,
        // and its page is to be there then.
        let whole = bytes.len().saturating_sub(before + 1) / block * block;
        let (Some(direct), 1..) = (direct, whole) else { return Ok(false) };
        let Some(mut ring) = uring.ring().take() else { return Ok(false) };
        let (head, rest) = bytes.split_at(before);
        let (blocks, tail) = rest.split_at(whole);
        let start = offset + before as u64;
        let written = ring.write(direct, &open.file, blocks, start);
        if ring.is_idle() {
            *uring.ring() = Some(ring);
        }
        match written {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(false),
            written => written?,
        }
        sys::write_all_at(&open.file, head, offset)?;
        sys::write_all_at(&open.file, tail, start + whole as u64)?;
        Ok(true)
    }

    /// Reads without asking who interposes.
    pub(crate) fn read_alone(
        &self,
        name: FileName,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<usize, IoError> {
        let open = self.file(name).map_err(io_error)?;
        sys::read_at(&open.file, buffer, offset).map_err(io_error)
    }

    /// Has all of a file begun to be written back that is to be synced soon, unless nothing is to
    /// be changed.
    pub(crate) fn begin_write_back(&self, file: &File) -> Result<(), IoError> {
        if self.is_read_only {
            return Ok(());
        }
        sys::begin_write_back(file, 0, 0).map_err(sync_error)
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        let mut catalog = Catalog::read(&self.dir);
        let names = self.dir.list(&mut catalog)?;
        if !self.is_read_only {
            *self.keeper() = Keeper::new(catalog, &names);
        }
        Ok(names)
    }

    /// Whoever keeps the catalog from now on.
    pub(crate) fn take_keeper(&self) -> Keeper {
        std::mem::take(&mut *self.keeper())
    }

    pub(crate) fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, Vec<(FileId, Arc<OpenFile>)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open file, which keeps its handle through a renaming.
    fn file(&self, name: FileName) -> io::Result<Arc<OpenFile>> {
        if let Some(file) = self.found(name.file) {
            return Ok(file);
        }
        let access = if self.is_read_only { Access::Read } else { Access::ReadWrite };
        let file = OpenFile::new(Arc::new(self.dir.open(name, access)?));
        self.keep(name.file, file.clone());
        Ok(file)
    }

    /// The file, if it is open.
    fn found(&self, wanted: FileId) -> Option<Arc<OpenFile>> {
        let files = self.files();
        files.iter().find(|(id, _)| *id == wanted).map(|(_, file)| file.clone())
    }

    /// Only a recovery, which runs one command at a time, has so many open that one is closed.
    fn keep(&self, id: FileId, file: Arc<OpenFile>) {
        let mut files = self.files();
        files.retain(|(other, _)| *other != id);
        if files.len() == OPEN_FILES_MAX
            && let Some(oldest) = files.iter().position(|(id, _)| matches!(id, FileId::Segment(_)))
        {
            files.remove(oldest);
        }
        files.push((id, file));
    }

    fn forget(&self, id: FileId) {
        self.files().retain(|(other, _)| *other != id);
    }

    fn create(&self, name: FileName) -> io::Result<()> {
        self.forget(name.file);
        let file = Arc::new(self.dir.create(name)?);
        self.keep(name.file, OpenFile::new(file));
        Ok(())
    }

    fn truncate(&self, name: FileName, bytes: u64) -> io::Result<()> {
        self.file(name)?.resize(|file| file.set_len(bytes))
    }

    fn allocate(&self, name: FileName, from: u64, to: u64, file_bytes: u64) -> io::Result<()> {
        let open = self.file(name)?;
        if file_bytes == 0 {
            return sys::allocate_past_end(&open.file, from, to);
        }
        open.resize(|file| sys::allocate(file, from, to))
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        if from.is_segment() && matches!(to.file, FileId::Segment(_)) {
            return self.recycle(from, to);
        }
        self.dir.rename(from, to)?;
        if from.file != to.file {
            // What was open under the new name is another file now, and must not be written to.
            let mut files = self.files();
            files.retain(|(id, _)| *id != to.file);
            if let Some((id, _)) = files.iter_mut().find(|(id, _)| *id == from.file) {
                *id = to.file;
            }
        }
        Ok(())
    }

    /// Makes a deleted segment's file another's, if nobody else has it open.
    fn recycle(&self, from: FileName, to: FileName) -> io::Result<()> {
        // Whoever shares the handle that is open holds the file by it, and not by a new one.
        self.forget(from.file);
        let file = self.dir.open(from, Access::ReadWrite)?;
        take(&file)?;
        self.dir.rename(from, to)?;
        file.unlock()?;
        self.keep(to.file, OpenFile::new(Arc::new(file)));
        Ok(())
    }

    fn remove(&self, name: FileName) -> io::Result<()> {
        self.forget(name.file);
        self.dir.remove(name)
    }

    /// Closes the files of segments that the log does not write to any more.
    pub(crate) fn forget_before(&self, newest: SegmentId) {
        self.files().retain(|(id, _)| match id {
            FileId::Segment(segment) => segment.get() + HANDLES_KEPT > newest.get(),
            FileId::Manifest | FileId::Quarantined(_) => true,
        });
    }

    /// Closes all files.
    pub(crate) fn forget_all(&self) {
        self.files().clear();
    }

    /// A handle for a reader: that of a segment which the log has open anyway, or its own.
    pub(crate) fn open_for_reading(&self, segment: SegmentId) -> io::Result<Arc<File>> {
        let wanted = FileId::Segment(segment);
        match self.found(wanted) {
            Some(open) => hold(&open.file).map(|()| open.file.clone()),
            None => self.dir.open(wanted.name(), Access::Read).map(Arc::new),
        }
    }

    /// A handle that nobody else uses.
    pub(crate) fn open_anew(&self, segment: SegmentId, access: Access) -> io::Result<File> {
        self.dir.open(FileId::Segment(segment).name(), access)
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }
}

/// Writes what is synced next. Of a long write the device takes the first pieces while the next are
/// copied.
fn write_to_sync(file: &File, bytes: &[u8], offset: u64) -> Result<(), IoError> {
    let (mut copied, mut begun) = (0, 0);
    while copied < bytes.len() {
        let at = offset + copied as u64;
        let piece = sys::first_piece(&bytes[copied..], at);
        sys::write_all_at(file, piece, at).map_err(io_error)?;
        copied += piece.len();
        // The sync itself begins with the last.
        if copied < bytes.len() && copied - begun >= WRITE_BACK_BYTES_MIN {
            let from = offset + begun as u64;
            sys::begin_write_back(file, from, copied - begun).map_err(sync_error)?;
            begun = copied;
        }
    }
    Ok(())
}

/// Whether an operation changes the folder or a file in it.
const fn changes(operation: Operation) -> bool {
    match operation {
        Operation::Create
        | Operation::Allocate
        | Operation::Write
        | Operation::Truncate
        | Operation::Rename
        | Operation::Remove => true,
        Operation::Sync
        | Operation::WriteBack
        | Operation::SyncDir
        | Operation::Read
        | Operation::List => false,
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
        Command::WriteBack(c) => (c.from, c.to.saturating_sub(c.from), false),
        Command::Sync(_) | Command::SyncDir(_) => (0, 0, true),
        _ => (0, 0, false),
    };
    Call { operation: command.operation(), file: command.file(), offset, bytes, sync }
}

/// What the core needs to know of a failure.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
pub(crate) fn io_error(error: io::Error) -> IoError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => IoErrorKind::NoSpace,
        io::ErrorKind::NotFound => IoErrorKind::NotFound,
        _ => IoErrorKind::Other,
    };
    IoError { kind, os_code: error.raw_os_error() }
}

/// A sync that failed has failed, for whatever reason: what it should have written may be lost, and
/// a second one may report success. Want of room is no excuse.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn sync_error(error: io::Error) -> IoError {
    IoError { kind: IoErrorKind::Other, os_code: error.raw_os_error() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::open_recovery;
    use crate::config::WalConfig;
    use seawall_core::recover::{Mode, RecoveryError};
    use seawall_core::wire::name::Quarantined;

    const FIRST: FileId = FileId::Segment(SegmentId::FIRST);

    /// Fails the calls of one kind.
    struct Failing(Operation, fn() -> Fault);

    impl Interpose for Failing {
        fn before(&self, call: &Call) -> Option<Fault> {
            (call.operation == self.0).then(self.1)
        }
    }

    /// Keeps what it is told.
    #[derive(Default)]
    struct Telling(Mutex<Vec<Call>>);

    impl Interpose for Telling {
        fn before(&self, call: &Call) -> Option<Fault> {
            self.0.lock().unwrap().push(*call);
            None
        }
    }

    fn full() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    fn executor(
        path: &std::path::Path,
        is_read_only: bool,
        interpose: Option<Arc<dyn Interpose>>,
    ) -> Executor {
        let config = WalConfig { interpose, ..WalConfig::in_dir(path) };
        Executor::new(Dir::open_path(path, true).unwrap(), is_read_only, &config)
    }

    /// Makes a new log, by way of every kind of call that needs.
    fn recover(executor: &Executor) -> Result<(), RecoveryError> {
        let mut recovery = open_recovery(&WalConfig::default(), Mode::Open).unwrap();
        while let Some(command) = recovery.poll_command() {
            recovery.complete(executor.execute(command));
        }
        recovery.finish().map(drop)
    }

    fn contents(executor: &Executor, name: FileName) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        let read = sys::read_at(&executor.file(name).unwrap().file, &mut bytes, 0).unwrap();
        bytes.truncate(read);
        bytes
    }

    #[test]
    fn failures_are_told_apart_and_a_sync_is_never_excused() {
        for (kind, expected) in [
            (io::ErrorKind::StorageFull, IoErrorKind::NoSpace),
            (io::ErrorKind::QuotaExceeded, IoErrorKind::NoSpace),
            (io::ErrorKind::NotFound, IoErrorKind::NotFound),
            (io::ErrorKind::PermissionDenied, IoErrorKind::Other),
            (io::ErrorKind::WouldBlock, IoErrorKind::Other),
            (io::ErrorKind::WriteZero, IoErrorKind::Other),
        ] {
            assert_eq!(io_error(kind.into()).kind, expected, "{kind}");
            assert_eq!(sync_error(kind.into()).kind, IoErrorKind::Other, "{kind}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_copied_into_a_file_whose_length_changes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100).unwrap();
        let open = OpenFile::new(Arc::new(file));
        assert!(open.copy(b"before", 0));
        open.resize(|file| {
            assert!(!open.copy(b"meanwhile", 50));
            file.set_len(200)
        })
        .unwrap();
        assert!(open.copy(b"behind", 150));
        assert!(!open.copy(b"past the end", 195));
    }

    #[cfg(unix)]
    #[test]
    fn a_sync_lets_go_of_the_mapping_and_the_next_copy_makes_another() {
        let temp = tempfile::tempdir().unwrap();
        let config = WalConfig { map_appends: true, ..WalConfig::in_dir(temp.path()) };
        let executor = Executor::new(Dir::open_path(temp.path(), true).unwrap(), false, &config);
        executor.create(FIRST.name()).unwrap();
        executor.allocate(FIRST.name(), 0, 60, 60).unwrap();
        let open = executor.file(FIRST.name()).unwrap();
        let is_mapped = || matches!(&*open.mapping(), Mapping::Open(_));
        let write = |bytes: &[u8], offset, sync| {
            executor.write(FIRST.name(), bytes, offset, sync, None).unwrap();
        };
        for offset in [0, 20, 40] {
            write(b"copied", offset, false);
            assert!(is_mapped());
            if offset == 20 {
                executor.sync(&open).unwrap();
            } else {
                write(b"durable", offset + 10, true);
            }
            assert!(!is_mapped());
        }
        let found = contents(&executor, FIRST.name());
        let parts: Vec<_> =
            found.split(|byte| *byte == 0).filter(|part| !part.is_empty()).collect();
        assert_eq!(parts, [b"copied" as &[u8], b"durable", b"copied", b"copied", b"durable"]);
    }

    #[test]
    fn a_long_write_that_is_synced_arrives_whole() {
        let content: Vec<u8> = (0..1_200_000_u32).map(|at| (at / 7 % 251) as u8).collect();
        for (offset, length) in
            [(0, 0), (0, 5), (77, 262_144), (262_143, 2), (4_096, 1_200_000), (99_999, 1_048_576)]
        {
            let file = tempfile::tempfile().unwrap();
            write_to_sync(&file, &content[..length], offset).unwrap();
            let mut found = vec![0; length + 1];
            assert_eq!(sys::read_at(&file, &mut found, offset).unwrap(), length);
            assert!(found[..length] == content[..length], "{length} bytes at {offset}");
            assert_eq!(
                file.metadata().unwrap().len(),
                if length == 0 { 0 } else { offset + length as u64 }
            );
        }
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("file"), b"").unwrap();
        let read_only = File::open(temp.path().join("file")).unwrap();
        assert!(write_to_sync(&read_only, &content, 0).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_device_is_given_what_was_written_as_far_as_is_said() {
        let temp = tempfile::tempdir().unwrap();
        for map_appends in [false, true] {
            let config = WalConfig { map_appends, ..WalConfig::in_dir(temp.path()) };
            let dir = Dir::open_path(temp.path(), true).unwrap();
            let executor = Executor::new(dir, false, &config);
            executor.create(FIRST.name()).unwrap();
            executor.allocate(FIRST.name(), 0, 2 << 20, 2 << 20).unwrap();
            for page in 0..512 {
                executor.write(FIRST.name(), &[7; 4 << 10], page << 12, false, None).unwrap();
            }
            let open = executor.file(FIRST.name()).unwrap();
            let dirty = || sys::dirty(&open.file);
            if dirty().is_none_or(|pages| pages < 500) {
                println!("skipped: the file system does not tell, or has written them already");
                return;
            }
            executor.write_back(FIRST.name(), 0, 1 << 20).unwrap();
            assert!(dirty().unwrap() <= 256, "{map_appends}: {:?} pages are left", dirty());
            executor.sync(&open).unwrap();
            assert_eq!(
                (sys::is_under_write_back(&open.file, 0, 2 << 20), dirty()),
                (Some(false), Some(0))
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_system_tells_its_number() {
        let full = || io::Error::from_raw_os_error(libc::ENOSPC);
        let os_code = Some(libc::ENOSPC);
        assert_eq!(io_error(full()), IoError { kind: IoErrorKind::NoSpace, os_code });
        assert_eq!(sync_error(full()), IoError { kind: IoErrorKind::Other, os_code });
        let quota = io::Error::from_raw_os_error(libc::EDQUOT);
        assert!(io_error(quota).is_no_space());
    }

    #[test]
    fn a_write_tells_which_half_of_it_failed() {
        let temp = tempfile::tempdir().unwrap();
        let executor = executor(temp.path(), false, None);
        executor.create(FIRST.name()).unwrap();
        let write = |bytes: &[u8], fault| executor.write(FIRST.name(), bytes, 0, true, fault);

        assert_eq!(write(b"whole", None), Ok(()));
        assert_eq!(contents(&executor, FIRST.name()), b"whole");

        let error = write(b"WHOLE", Some(Fault::Fails(full()))).unwrap_err();
        assert_eq!(error.kind, IoErrorKind::NoSpace);
        assert_eq!(contents(&executor, FIRST.name()), b"whole");

        let error = write(b"WHOLE", Some(Fault::Short(2, full()))).unwrap_err();
        assert_eq!(error.kind, IoErrorKind::NoSpace);
        assert_eq!(contents(&executor, FIRST.name()), b"WHole");

        let error = write(b"WHOLE", Some(Fault::SyncFails(full()))).unwrap_err();
        assert_eq!(error.kind, IoErrorKind::Other);
        assert_eq!(contents(&executor, FIRST.name()), b"WHOLE");

        let error = write(b"x", Some(Fault::Short(u64::MAX, full()))).unwrap_err();
        assert_eq!(error.kind, IoErrorKind::NoSpace);
    }

    #[test]
    fn a_file_that_is_not_there_is_told_as_that() {
        let temp = tempfile::tempdir().unwrap();
        let executor = executor(temp.path(), false, None);
        let error = executor.write(FIRST.name(), b"x", 0, false, None).unwrap_err();
        assert_eq!(error.kind, IoErrorKind::NotFound);
        let error = executor.open_for_reading(SegmentId::FIRST).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        executor.remove(FIRST.name()).unwrap();
    }

    #[test]
    fn a_handle_follows_its_file() {
        let temp = tempfile::tempdir().unwrap();
        let executor = executor(temp.path(), false, None);
        executor.create(FIRST.new_name()).unwrap();
        let made = executor.file(FIRST.new_name()).unwrap();
        executor.rename(FIRST.new_name(), FIRST.name()).unwrap();
        assert!(Arc::ptr_eq(&made, &executor.file(FIRST.name()).unwrap()));

        // What is made in its place is another file: the old handle must not reach it.
        executor.create(FIRST.name()).unwrap();
        sys::write_all_at(&made.file, b"stale", 0).unwrap();
        assert_eq!(contents(&executor, FIRST.name()), b"");

        let quarantined = Quarantined { generation: 1, segment: SegmentId::FIRST, offset: None };
        let quarantined = FileId::Quarantined(quarantined).name();
        executor.create(quarantined).unwrap();
        let replaced = executor.file(quarantined).unwrap();
        executor.forget_before(SegmentId::new(1 + HANDLES_KEPT));
        executor.rename(FIRST.name(), quarantined).unwrap();
        assert!(!Arc::ptr_eq(&replaced, &executor.file(quarantined).unwrap()));
        executor.remove(quarantined).unwrap();
        assert!(executor.file(quarantined).is_err());
    }

    #[test]
    fn every_call_is_told_before_it_is_made() {
        let temp = tempfile::tempdir().unwrap();
        let telling = Arc::new(Telling::default());
        recover(&executor(temp.path(), false, Some(telling.clone()))).unwrap();
        let calls = telling.0.lock().unwrap();
        assert_eq!(calls[0].operation, Operation::List);
        for operation in
            [Operation::Create, Operation::Write, Operation::Rename, Operation::SyncDir]
        {
            assert!(calls.iter().any(|call| call.operation == operation), "{operation}");
        }
        let written = calls.iter().find(|call| call.operation == Operation::Write).unwrap();
        assert_eq!(written.file, Some(FileId::Manifest));
        assert!(written.bytes > 0);
    }

    #[test]
    fn every_kind_of_call_can_be_made_to_fail() {
        let fails: fn() -> Fault = || Fault::Fails(full());
        let sync_fails: fn() -> Fault = || Fault::SyncFails(full());
        for (operation, fault, kind) in [
            (Operation::List, fails, IoErrorKind::NoSpace),
            (Operation::Create, fails, IoErrorKind::NoSpace),
            (Operation::Write, fails, IoErrorKind::NoSpace),
            (Operation::Write, sync_fails, IoErrorKind::Other),
            (Operation::Rename, fails, IoErrorKind::NoSpace),
            (Operation::SyncDir, fails, IoErrorKind::Other),
        ] {
            let temp = tempfile::tempdir().unwrap();
            let failing = Arc::new(Failing(operation, fault));
            match recover(&executor(temp.path(), false, Some(failing))) {
                Err(RecoveryError::Io(failure)) => {
                    assert_eq!((failure.operation, failure.error.kind), (operation, kind));
                }
                result => panic!("{operation}: {result:?}"),
            }
            recover(&executor(temp.path(), false, None)).unwrap();
        }
    }

    #[test]
    fn whoever_may_only_read_changes_nothing() {
        let temp = tempfile::tempdir().unwrap();
        match recover(&executor(temp.path(), true, None)) {
            Err(RecoveryError::Io(failure)) => assert!(changes(failure.operation)),
            result => panic!("{result:?}"),
        }
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
        executor(temp.path(), false, None).create(FIRST.name()).unwrap();
        let reading = executor(temp.path(), true, None);
        assert!(reading.write(FIRST.name(), b"x", 0, false, None).is_err());
        assert_eq!(contents(&reading, FIRST.name()), b"");
    }
}
