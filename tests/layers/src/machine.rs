//! What this machine lets a test do, and that all of it is undone.
//!
//! Every mount is made in a mount namespace of the test's own thread and those that it starts, and
//! every loop device frees itself when nobody has it open. So whatever ends a test, SIGKILL
//! included, the kernel undoes the rest: no mount and no device of an earlier run is ever left.
//!
//! For that the connections of our file systems must close when their threads end, also while
//! another thread of the process is stuck in a call that waits for them: an unmount, say. Threads
//! share their open files, and those stay open until the last thread has ended. Therefore one
//! thread, the keeper, begins with a table of open files of its own, and opens and serves all
//! connections.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// This machine, as long as a test has it to itself: tests of one process take turns.
#[derive(Debug)]
pub struct Machine {
    keeper: Keeper,
    _turn: MutexGuard<'static, ()>,
}

/// The thread that has the connections of our file systems open.
#[derive(Clone, Debug)]
pub struct Keeper(Sender<Job>);

static TURN: Mutex<()> = Mutex::new(());

/// Waits for this test's turn, and gives this thread and those that it starts mounts of their own.
///
/// # Errors
/// Why this machine does not let us.
pub fn enter() -> Result<Machine, String> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if !nix::unistd::geteuid().is_root() {
        return Err("mounting needs root".to_owned());
    }
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|error| format!("no mount namespace of our own: {error}"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|error| format!("mounts cannot be kept to ourselves: {error}"))?;
    open_fuse()?;
    Ok(Machine { keeper: Keeper::start()?, _turn: turn })
}

impl Machine {
    /// The keeper of this test.
    pub fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }
}

impl Keeper {
    fn start() -> Result<Self, String> {
        let (jobs, todo) = channel::<Job>();
        let keeper = Self(jobs);
        std::thread::spawn(move || todo.into_iter().for_each(|job| job()));
        keeper.run(|| {
            unshare(CloneFlags::CLONE_FILES)
                .map_err(|error| format!("no open files of our own: {error}"))
        })??;
        Ok(keeper)
    }

    /// Runs something on the keeper's thread.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let (done, result) = channel();
        let job = Box::new(move || drop(done.send(job())));
        let ended = "the thread that serves file systems has ended";
        self.0.send(job).map_err(|_| ended.to_owned())?;
        result.recv().map_err(|_| ended.to_owned())
    }
}

/// A new connection to the kernel's FUSE.
pub(crate) fn open_fuse() -> Result<File, String> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|error| format!("/dev/fuse: {error}"))
}

/// A folder that something is mounted on. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    /// Mounts.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(
        source: &Path,
        path: &Path,
        kind: &str,
        flags: MsFlags,
        data: &str,
    ) -> Result<Self, String> {
        mount(Some(source), path, Some(kind), flags, Some(data))
            .map_err(|error| format!("{kind} does not mount: {error}"))?;
        Ok(Self { path: path.to_owned(), is_mounted: true })
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts for good: nobody has anything on it open.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unmount(mut self) -> Result<(), String> {
        self.is_mounted = false;
        let result = umount2(&self.path, MntFlags::empty());
        if result.is_err() {
            self.is_mounted = true;
        }
        result.map_err(|error| format!("{} does not unmount: {error}", self.path.display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted
            && let Err(error) = umount2(&self.path, MntFlags::MNT_DETACH)
        {
            eprintln!("{} does not unmount: {error}", self.path.display());
        }
    }
}

/// Runs a program of the system.
///
/// # Errors
/// That it is missing, or what it says.
pub fn run(program: &str, arguments: &[&str]) -> Result<Output, String> {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", search_path())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), why.trim()))
}

/// Tools of the administrator are not on everybody's path.
fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}
