//! The forgetful tree as a mount, and the handle that cuts its power and makes it fail.
//!
//! Any program can work in [`Volatile::path`]: a log in this process, in another, or inside a
//! sandbox. The kernel caches nothing: each request comes here, one at a time, in an order that
//! [`Stats::trace`] sums up. From the moment that power is out every request fails, so whatever
//! was acknowledged by then was acknowledged in time.

use crate::machine::{Keeper, Machine, Mounted, open_fuse};
use crate::volatile::{About, EIO, EOPNOTSUPP, Errno, ROOT, Tree};
use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session,
    SessionACL, TimeOrNow, WriteFlags,
};
use nix::mount::MsFlags;
use seawall_tests::random::Random;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A new file or folder.
    Create,
    /// A write to a file.
    Write,
    /// A change of a file's length.
    SetLength,
    /// A reservation of space.
    Allocate,
    /// A sync of a file.
    Sync,
    /// A sync of a folder.
    SyncFolder,
    /// A new name for a file.
    Rename,
    /// The removal of a name.
    Remove,
    /// A read of a file.
    Read,
}

/// The kinds that change something or make it durable: those at which power can be cut.
pub const CHANGES: [Kind; 8] = [
    Kind::Create,
    Kind::Write,
    Kind::SetLength,
    Kind::Allocate,
    Kind::Sync,
    Kind::SyncFolder,
    Kind::Rename,
    Kind::Remove,
];

/// How a request fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It does nothing, and this is its error.
    Fails(Errno),
    /// A sync fails, and what it should have made durable never will be.
    DropsData(Errno),
    /// A sync reports success and does nothing, nor will any later one.
    Lies,
    /// A write does its first half and says so.
    Short,
}

/// What has been asked of the file system.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// How many requests of each kind there were.
    pub requests: BTreeMap<Kind, u64>,
    /// How many of them change something or make it durable.
    pub changes: u64,
    /// How many faults have struck.
    pub faults: u64,
    /// Stands for all of these requests and their order.
    pub trace: u64,
}

#[derive(Debug, Default)]
struct State {
    tree: Tree,
    is_out: bool,
    cut_at: Option<u64>,
    faults: Vec<(Kind, u64, Fault)>,
    stats: Stats,
    listings: BTreeMap<u64, Vec<(OsString, About)>>,
    next_listing: u64,
}

impl State {
    /// Takes note of a request, and says how it is to go wrong.
    fn begin(&mut self, kind: Kind, detail: u64) -> Result<Option<Fault>, Errno> {
        if self.is_out {
            return Err(EIO);
        }
        let requests = self.stats.requests.entry(kind).or_default();
        *requests += 1;
        let (count, changes) = (*requests, kind != Kind::Read);
        if changes {
            let place = (kind as u64) << 56 ^ detail;
            self.stats.trace = Random::new(self.stats.trace ^ place).number();
            self.stats.changes += 1;
            if self.cut_at.is_some_and(|at| self.stats.changes >= at) {
                self.is_out = true;
                return Err(EIO);
            }
        }
        let Some(index) = self.faults.iter().position(|(k, at, _)| *k == kind && *at == count)
        else {
            return Ok(None);
        };
        self.stats.faults += 1;
        match self.faults.swap_remove(index).2 {
            Fault::Fails(error) => Err(error),
            fault => Ok(Some(fault)),
        }
    }

    /// For requests that are neither counted nor made to fail.
    fn look(&mut self) -> Result<&mut Tree, Errno> {
        if self.is_out { Err(EIO) } else { Ok(&mut self.tree) }
    }

    fn change<T>(
        &mut self,
        kind: Kind,
        detail: u64,
        run: impl FnOnce(&mut Tree) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.begin(kind, detail)?;
        run(&mut self.tree)
    }

    fn write(&mut self, node: u64, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let detail = node << 40 ^ offset << 16 ^ bytes.len() as u64;
        let fault = self.begin(Kind::Write, detail)?;
        let taken = match fault {
            Some(Fault::Short) if bytes.len() > 1 => bytes.len() / 2,
            _ => bytes.len(),
        };
        self.tree.write(node, offset, &bytes[..taken])?;
        Ok(taken)
    }

    fn sync(&mut self, node: u64) -> Result<(), Errno> {
        match self.begin(Kind::Sync, node)? {
            Some(Fault::DropsData(error)) => {
                self.tree.drop_unsynced(node)?;
                Err(error)
            }
            Some(Fault::Lies) => self.tree.drop_unsynced(node),
            _ => self.tree.sync(node),
        }
    }

    fn open_listing(&mut self, folder: u64) -> Result<u64, Errno> {
        let names = self.look()?.list(folder)?;
        self.next_listing += 1;
        self.listings.insert(self.next_listing, names);
        Ok(self.next_listing)
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    out: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what a request asks for, and tells whoever waits for the power to go.
    fn with<T>(&self, run: impl FnOnce(&mut State) -> Result<T, Errno>) -> Result<T, fuser::Errno> {
        let mut state = self.lock();
        let result = run(&mut state);
        if state.is_out {
            self.out.notify_all();
        }
        result.map_err(fuser::Errno::from_i32)
    }
}

/// A mounted file system that forgets what was not synced when its power is cut.
#[derive(Debug)]
pub struct Volatile {
    // Unmounted first, so that removing the folder does not remove what is in it.
    mounted: Option<Mounted>,
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
    keeper: Keeper,
}

impl Volatile {
    /// Mounts an empty one.
    ///
    /// # Errors
    /// Why it cannot be mounted.
    pub fn mount(machine: &Machine) -> Result<Self, String> {
        let folder = tempfile::Builder::new()
            .prefix("seawall-volatile-")
            .tempdir()
            .map_err(|error| format!("no folder to mount on: {error}"))?;
        let mut volatile =
            Self { mounted: None, folder, shared: Arc::default(), keeper: machine.keeper() };
        volatile.mount_tree(Tree::default())?;
        Ok(volatile)
    }

    fn mount_tree(&mut self, tree: Tree) -> Result<(), String> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { tree, ..State::default() }),
            out: Condvar::new(),
        });
        let glue = Glue { shared: shared.clone() };
        self.mounted = Some(serve(&self.keeper, glue, self.folder.path(), "seawall-volatile")?);
        self.shared = shared;
        Ok(())
    }

    /// The folder to work in.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Power goes out at the `changes`th request from now that changes something or makes it
    /// durable: that one fails, and so does all that comes after it. 1 is the next.
    pub fn cut_after(&self, changes: u64) {
        let mut state = self.shared.lock();
        state.cut_at = Some(state.stats.changes + changes.max(1));
    }

    /// Power stays on, whatever was planned.
    pub fn keep_power(&self) {
        self.shared.lock().cut_at = None;
    }

    /// Power goes out now, if it is not out already.
    pub fn cut_now(&self) {
        self.shared.lock().is_out = true;
        self.shared.out.notify_all();
    }

    /// Whether power is out.
    pub fn is_out(&self) -> bool {
        self.shared.lock().is_out
    }

    /// Waits until power is out, at most so long, and says whether it is.
    pub fn wait_until_out(&self, at_most: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.out.wait_timeout_while(state, at_most, |state| !state.is_out);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_out
    }

    /// Cuts the power, forgets what was not synced as the seed says, and mounts the rest.
    ///
    /// Files that are still open keep failing.
    ///
    /// # Errors
    /// Why it cannot be mounted again.
    pub fn cut(&mut self, seed: u64) -> Result<(), String> {
        self.cut_now();
        let mut tree = std::mem::take(&mut self.shared.lock().tree);
        tree.cut_power(&mut Random::new(seed));
        self.mounted = None;
        self.mount_tree(tree)
    }

    /// The `nth` request of a kind from now fails, 1 being the next.
    pub fn fail_next(&self, kind: Kind, nth: u64, fault: Fault) {
        let mut state = self.shared.lock();
        let so_far = state.stats.requests.get(&kind).copied().unwrap_or(0);
        state.faults.push((kind, so_far + nth.max(1), fault));
    }

    /// What has not failed yet will not.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// From now on there is room for so many bytes.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.lock().tree.capacity_bytes = bytes;
    }

    /// How much room is taken.
    pub fn used_bytes(&self) -> u64 {
        self.shared.lock().tree.used_bytes()
    }

    /// How many changes a power cut would put at stake.
    pub fn unsynced(&self) -> u64 {
        self.shared.lock().tree.unsynced()
    }

    /// What has been asked of it since it was mounted last.
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats.clone()
    }
}

/// Mounts a file system and serves it until it is unmounted and nobody has a file of it open.
pub(crate) fn serve(
    keeper: &Keeper,
    filesystem: impl Filesystem,
    path: &Path,
    name: &'static str,
) -> Result<Mounted, String> {
    let path = path.to_owned();
    keeper.run(move || {
        let device = OwnedFd::from(open_fuse()?);
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        let mounted = Mounted::new(Path::new(name), &path, "fuse", flags, &data)?;
        let session = Session::from_fd(filesystem, device, SessionACL::All, Config::default());
        let session: io::Result<BackgroundSession> = session.and_then(Session::spawn);
        // Nobody joins the thread: it ends with the connection, which ends with the last open file.
        session.map_err(|error| format!("the file system is not served: {error}"))?;
        Ok(mounted)
    })?
}

/// What the kernel asks, as it asks it.
#[derive(Debug)]
struct Glue {
    shared: Arc<Shared>,
}

/// Nothing is cached: the kernel asks each time.
pub(crate) const NOT_CACHED: Duration = Duration::ZERO;

/// What the kernel is told of a file or folder.
pub(crate) fn attributes(about: About) -> FileAttr {
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(about.changed);
    FileAttr {
        ino: INodeNo(about.node),
        size: about.bytes,
        blocks: about.bytes.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: kind_of(about),
        perm: if about.is_folder { 0o777 } else { 0o666 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4_096,
        flags: 0,
    }
}

fn kind_of(about: About) -> FileType {
    if about.is_folder { FileType::Directory } else { FileType::RegularFile }
}

fn reply_empty(reply: ReplyEmpty, result: Result<(), fuser::Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn reply_entry(reply: ReplyEntry, result: Result<About, fuser::Errno>) {
    match result {
        Ok(about) => reply.entry(&NOT_CACHED, &attributes(about), Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn reply_attributes(reply: ReplyAttr, result: Result<About, fuser::Errno>) {
    match result {
        Ok(about) => reply.attr(&NOT_CACHED, &attributes(about)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Glue {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Many small requests are as good as few large ones, and take less memory.
        config.set_max_write(1 << 20).map(drop).map_err(|_| io::ErrorKind::InvalidInput.into())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply_entry(reply, self.shared.with(|state| state.look()?.lookup(parent.0, name)));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply_attributes(reply, self.shared.with(|state| state.look()?.about(ino.0)));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let result = self.shared.with(|state| {
            if let Some(bytes) = size {
                let detail = ino.0 << 40 ^ bytes;
                state.change(Kind::SetLength, detail, |tree| tree.set_length(ino.0, bytes))?;
            }
            state.look()?.about(ino.0)
        });
        reply_attributes(reply, result);
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let create = |tree: &mut Tree| tree.create(parent.0, name, true);
        reply_entry(reply, self.shared.with(|state| state.change(Kind::Create, 1, create)));
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let create = |tree: &mut Tree| tree.create(parent.0, name, false);
        match self.shared.with(|state| state.change(Kind::Create, 0, create)) {
            Ok(about) => reply.created(
                &NOT_CACHED,
                &attributes(about),
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = |tree: &mut Tree| tree.remove(parent.0, name, false);
        reply_empty(reply, self.shared.with(|state| state.change(Kind::Remove, 0, remove)));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = |tree: &mut Tree| tree.remove(parent.0, name, true);
        reply_empty(reply, self.shared.with(|state| state.change(Kind::Remove, 1, remove)));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((parent.0, name), (newparent.0, newname));
        let result = self.shared.with(|state| {
            if !flags.is_empty() {
                return Err(EOPNOTSUPP);
            }
            state.change(Kind::Rename, 0, |tree| tree.rename(from, to))
        });
        reply_empty(reply, result);
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.shared.with(|state| state.look().map(drop)) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let result = self.shared.with(|state| {
            let read = |tree: &mut Tree| Ok(tree.read(ino.0, offset, size.into())?.to_vec());
            state.change(Kind::Read, 0, read)
        });
        match result {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.shared.with(|state| state.write(ino.0, offset, data)) {
            Ok(taken) => reply.written(u32::try_from(taken).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    /// A close makes nothing durable, and never fails.
    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.shared.with(|state| state.sync(ino.0)));
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let sync = |tree: &mut Tree| tree.sync_folder(ino.0);
        reply_empty(reply, self.shared.with(|state| state.change(Kind::SyncFolder, ino.0, sync)));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.shared.with(|state| state.open_listing(ino.0)) {
            Ok(listing) => reply.opened(FileHandle(listing), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let result = self.shared.with(|state| {
            state.look()?;
            Ok(state.listings.get(&fh.0).cloned().unwrap_or_default())
        });
        let names = match result {
            Ok(names) => names,
            Err(error) => return reply.error(error),
        };
        let folder = |name: &str| (OsString::from(name), FileType::Directory, ino.0.max(ROOT));
        let entries = [folder("."), folder("..")]
            .into_iter()
            .chain(names.into_iter().map(|(name, about)| (name, kind_of(about), about.node)));
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (name, kind, node)) in (1..).zip(entries).skip(skipped) {
            if reply.add(INodeNo(node), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.shared.lock().listings.remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let state = self.shared.lock();
        let blocks = state.tree.capacity_bytes.unwrap_or(1 << 40) / 4_096;
        let free = blocks.saturating_sub(state.tree.used_bytes() / 4_096);
        drop(state);
        reply.statfs(blocks, free, free, 1 << 20, 1 << 20, 4_096, 255, 4_096);
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let result = self.shared.with(|state| {
            if mode != 0 {
                return Err(EOPNOTSUPP);
            }
            let to = offset.saturating_add(length);
            state.change(Kind::Allocate, ino.0 << 40 ^ to, |tree| tree.allocate(ino.0, to))
        });
        reply_empty(reply, result);
    }
}
