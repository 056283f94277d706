//! The disk as a block device, and a file system on it.
//!
//! A mount of ours holds one file, the disk; a loop device is backed by it. The loop device hands
//! on every write of the file system above it as a write of that file, and every flush as a sync
//! of it. It has no cache of its own (direct I/O), and nothing in between reorders: a write or
//! flush that the file system was told is done stands in the disk's log.

use crate::disk::{Disk, Entry, Image};
use crate::fuse::{NOT_CACHED, attributes, serve};
use crate::history::MARK;
use crate::machine::{self, Machine, Mounted};
use crate::volatile::{About, ROOT};
use fuser::{
    Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::mount::MsFlags;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// A file system that a log can stand on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// As the kernel calls it.
    pub name: &'static str,
    disk_bytes: u64,
    make: &'static [&'static str],
    options: &'static str,
}

/// The file systems there are. What makes them writes everything at once, so that nothing is left
/// to be done in the background.
pub const FORMATS: [Format; 3] = [
    Format {
        name: "ext4",
        disk_bytes: 64 << 20,
        make: &[
            "mkfs.ext4",
            "-q",
            "-F",
            "-J",
            "size=4",
            "-E",
            "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
        ],
        options: "",
    },
    Format {
        name: "xfs",
        disk_bytes: 320 << 20,
        make: &["mkfs.xfs", "-q", "-f", "-K"],
        options: "",
    },
    Format {
        name: "btrfs",
        disk_bytes: 160 << 20,
        make: &["mkfs.btrfs", "-q", "-f", "-K", "-m", "single", "-d", "single"],
        options: "",
    },
];

#[derive(Debug, Default)]
struct Shared(Mutex<Disk>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A block device whose every write and flush is known.
#[derive(Debug)]
pub struct BlockDevice {
    format: Format,
    shared: Arc<Shared>,
    // In the order in which they are let go: the loop device frees itself with its last open file.
    device: File,
    device_path: PathBuf,
    _backing: Mounted,
    folder: tempfile::TempDir,
}

impl BlockDevice {
    /// A device with an empty file system on it.
    ///
    /// # Errors
    /// Why this machine has none.
    pub fn new(machine: &Machine, format: Format) -> Result<Self, String> {
        let folder = tempfile::Builder::new()
            .prefix("seawall-block-")
            .tempdir()
            .map_err(|error| format!("no folder to mount on: {error}"))?;
        let backing_path = folder.path().join("backing");
        for path in [&backing_path, &folder.path().join("mount")] {
            std::fs::create_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let shared = Arc::new(Shared::default());
        shared.lock().mark = MARK.to_vec();
        let glue = Glue { shared: shared.clone(), bytes: format.disk_bytes };
        let backing = serve(&machine.keeper(), glue, &backing_path, "seawall-disk")?;
        let (device, device_path) = attach(&backing_path.join(NAME))?;
        let block = Self { format, shared, device, device_path, _backing: backing, folder };
        let path = block.device_path.display().to_string();
        let (program, arguments) = format.make.split_first().expect("it is not empty");
        machine::run(program, &[arguments, &[path.as_str()]].concat())?;
        block.take_log();
        Ok(block)
    }

    /// Its file system.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The disk's bytes as they are.
    pub fn image(&self) -> Image {
        self.shared.lock().image.clone()
    }

    /// Puts other bytes in their place. The file system must not be mounted.
    ///
    /// # Panics
    /// When the kernel still shows other bytes.
    pub fn set_image(&self, image: &Image) {
        let check = |image: &Image| {
            let mut seen = vec![0; 128 << 10];
            self.device.read_exact_at(&mut seen, 0).expect("the device can be read");
            seen == image.read(0, seen.len())
        };
        {
            let mut disk = self.shared.lock();
            disk.image = image.clone();
            disk.log.clear();
            disk.failing.clear();
        }
        // What the kernel has cached of the device is of the other bytes.
        let forget = || {
            posix_fadvise(&self.device, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
                .expect("the device has a cache");
        };
        forget();
        assert!(check(image), "the device shows bytes of another image");
        forget();
    }

    /// How many entries the log has: the moment that it is.
    pub fn moment(&self) -> u64 {
        self.shared.lock().log.len() as u64
    }

    /// The log since it was last taken.
    pub fn take_log(&self) -> Vec<Entry> {
        std::mem::take(&mut self.shared.lock().log)
    }

    /// What is to fail, how often it did, and the bytes.
    pub fn with_disk<T>(&self, run: impl FnOnce(&mut Disk) -> T) -> T {
        run(&mut self.shared.lock())
    }

    /// Mounts the file system.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mount(&self) -> Result<Mounted, String> {
        let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let path = self.folder.path().join("mount");
        Mounted::new(&self.device_path, &path, self.format.name, flags, self.format.options)
    }
}

/// The name of the disk's file.
const NAME: &str = "disk.img";
const NODE: u64 = ROOT + 1;

/// Makes a loop device of a file. It frees itself when nobody has it open any more.
fn attach(file: &Path) -> Result<(File, PathBuf), String> {
    let file = file.display().to_string();
    let arguments = ["--find", "--show", "--direct-io=on", &file];
    let output = machine::run("losetup", &arguments)
        // One that cannot bypass the cache of a file that is never cached loses nothing by it.
        .or_else(|_| machine::run("losetup", &["--find", "--show", &file]))?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    // Detached while it is open, it goes when it is closed, however that comes about.
    machine::run("losetup", &["--detach", &path])?;
    Ok((opened.map_err(|error| format!("{path}: {error}"))?, PathBuf::from(path)))
}

/// A folder with one file in it.
#[derive(Debug)]
struct Glue {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Glue {
    fn about(&self, node: u64) -> Option<About> {
        match node {
            ROOT => Some(About { node, is_folder: true, bytes: 0, changed: 0 }),
            NODE => Some(About { node, is_folder: false, bytes: self.bytes, changed: 0 }),
            _ => None,
        }
    }
}

impl Filesystem for Glue {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        config.set_max_write(1 << 20).map(drop).map_err(|_| io::ErrorKind::InvalidInput.into())
    }

    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.about(NODE) {
            Some(about) if name == NAME => {
                reply.entry(&NOT_CACHED, &attributes(about), Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.about(ino.0) {
            Some(about) => reply.attr(&NOT_CACHED, &attributes(about)),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Times are not kept, and the length does not change.
    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.getattr(req, ino, fh, reply);
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = u64::from(size).min(self.bytes.saturating_sub(offset));
        let bytes = usize::try_from(bytes).unwrap_or(0);
        let content = self.shared.lock().image.read(offset, bytes);
        reply.data(&content);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if self.shared.lock().write(offset, data) {
            reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
        } else {
            reply.error(Errno::EIO);
        }
    }

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
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        if self.shared.lock().flush() {
            reply.ok();
        } else {
            reply.error(Errno::EIO);
        }
    }
}
