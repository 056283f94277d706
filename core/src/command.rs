//! What the machine asks its host to do, and what the host says when it is done.
//!
//! A command is an owned value. It is consumed by its completion, `done`, so it cannot be completed
//! twice or with an answer of the wrong kind, and a buffer that set out with it comes back even
//! when the operation failed.
//!
//! Every command that has been polled may run at once, beside the others, in any order: the machine
//! holds a command back until all that it depends on is complete.

use crate::error::IoError;
use crate::wire::known::Known;
use crate::wire::name::{FileId, FileName};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// Tells the commands of one machine apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub(crate) u64);

/// One thing to do.
#[derive(Debug)]
#[must_use = "a command that is dropped never completes, and the log waits for it forever"]
pub enum Command<B> {
    /// Make a file.
    Create(Create),
    /// Reserve space.
    Allocate(Allocate),
    /// Write bytes, and perhaps sync them.
    Write(Write<B>),
    /// Make a file's content durable.
    Sync(Sync),
    /// Begin with what a sync will have to do.
    WriteBack(WriteBack),
    /// Set a file's length.
    Truncate(Truncate),
    /// Give a file another name.
    Rename(Rename),
    /// Remove a file.
    Remove(Remove),
    /// Make the names in a folder durable.
    SyncDir(SyncDir),
    /// Read bytes.
    Read(Read<B>),
    /// List the folder.
    List(List),
}

/// Who should run a command, where a host has more than one thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Somebody waits for it.
    Commit,
    /// It is done ahead of need.
    Background,
}

/// A folder of the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Folder {
    /// The log's own.
    Log,
    /// `quarantine/` inside it.
    Quarantine,
}

/// A command that has run, ready to be handed back to the machine that gave it.
#[derive(Debug)]
#[must_use = "hand it to the machine that gave the command"]
pub struct Done<B> {
    pub(crate) id: CommandId,
    pub(crate) outcome: Outcome<B>,
}

#[derive(Debug)]
pub(crate) enum Outcome<B> {
    Plain(Result<(), IoError>),
    Written(Data<B>, Result<(), IoError>),
    Read(B, Result<usize, IoError>),
    Listed(Result<Vec<Listed>, IoError>),
}

/// Make an empty file under the name `name`; whatever stands there is replaced. Makes the folder
/// `quarantine/` where the name is in it.
#[derive(Debug)]
pub struct Create {
    pub(crate) id: CommandId,
    /// Its name.
    pub name: FileName,
}

/// Reserve the blocks of bytes `from..to` of a file and make it `file_bytes` long; the new bytes
/// read as zeros. Never makes it shorter. Unless its length stays, no write of bytes behind that is
/// under way at the same time.
#[derive(Debug)]
pub struct Allocate {
    pub(crate) id: CommandId,
    /// Its name.
    pub name: FileName,
    /// The first byte.
    pub from: u64,
    /// The byte past the last.
    pub to: u64,
    /// `to`, or 0: the file's length stays, and the blocks are reserved behind its end, if the host
    /// can do that.
    pub file_bytes: u64,
}

/// Write all of `data` at `offset`; when `sync` is set, make the file's content durable after that,
/// as [`Sync`] does.
#[derive(Debug)]
pub struct Write<B> {
    pub(crate) id: CommandId,
    /// Its name.
    pub name: FileName,
    /// Where the first byte goes.
    pub offset: u64,
    /// What to write.
    pub data: Data<B>,
    /// Whether to sync as well.
    pub sync: bool,
}

/// Make all that was written to a file before this command began, and the file's length, durable.
#[derive(Debug)]
pub struct Sync {
    pub(crate) id: CommandId,
    /// Its name.
    pub name: FileName,
}

/// Have the device begin with bytes `from..to` of a file, which were written before this command
/// began, and do not wait for it. Nothing is durable by that: a sync that comes later has less to
/// do. A host that cannot has done it; one that was told of a failure, of which the sync need not
/// hear again, has failed.
#[derive(Debug)]
pub struct WriteBack {
    pub(crate) id: CommandId,
    /// Its name.
    pub name: FileName,
    /// The first byte.
    pub from: u64,
    /// The byte past the last.
    pub to: u64,
}

/// Make a file `bytes` long; bytes past its old end read as zeros.
#[derive(Debug)]
pub struct Truncate {
    pub(crate) id: CommandId,
    /// Its name.
    pub name: FileName,
    /// Its new length.
    pub bytes: u64,
}

/// Give the file `from` the name `to`, and replace what stands there.
///
/// Where one segment's file is to become another's, which [`Config::recycle_max`] asks for, the
/// host refuses as long as anybody may still read the old one.
///
/// [`Config::recycle_max`]: crate::config::Config::recycle_max
#[derive(Debug)]
pub struct Rename {
    pub(crate) id: CommandId,
    /// The old name.
    pub from: FileName,
    /// The new name.
    pub to: FileName,
}

/// Remove a file; that it is already gone is no error.
#[derive(Debug)]
pub struct Remove {
    pub(crate) id: CommandId,
    /// Its name.
    pub name: FileName,
}

/// Make durable which names stand in a folder.
#[derive(Debug)]
pub struct SyncDir {
    pub(crate) id: CommandId,
    /// Which.
    pub folder: Folder,
}

/// Fill `buffer` from `offset` on, up to the end of the file.
#[derive(Debug)]
pub struct Read<B> {
    pub(crate) id: CommandId,
    /// The file's name.
    pub name: FileName,
    /// Where the first byte is.
    pub offset: u64,
    /// As long as the number of bytes wanted.
    pub buffer: B,
}

/// List the log's folder and, where there is one, `quarantine/`.
#[derive(Debug)]
pub struct List {
    pub(crate) id: CommandId,
}

/// A name in a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// In which folder.
    pub folder: Folder,
    /// The name; a name that is not UTF-8 may be given with replacement characters.
    pub name: String,
    /// The length in bytes of a regular file; `None` for anything else (folders, links, devices).
    pub bytes: Option<u64>,
    /// What an earlier look found of a segment, if nobody can have touched its file since; a host
    /// that cannot tell says `None`.
    pub known: Option<Box<Known>>,
}

impl Listed {
    /// A name of which nothing is known.
    pub const fn new(folder: Folder, name: String, bytes: Option<u64>) -> Self {
        Self { folder, name, bytes, known: None }
    }
}

/// Bytes to write: a buffer of the host's, or a few of the core's own.
#[derive(Debug)]
pub enum Data<B> {
    /// The whole of a buffer.
    Buffer(B),
    /// A page of the manifest or a header: rare, and small.
    Small(Box<[u8]>),
}

impl<B> Data<B> {
    pub(crate) fn small(bytes: &[u8]) -> Self {
        Self::Small(bytes.into())
    }
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Data<B> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Buffer(buffer) => buffer.as_ref(),
            Self::Small(bytes) => bytes,
        }
    }
}

macro_rules! plain_commands {
    ($($name:ident)*) => {$(
        impl $name {
            /// It has been done, or it failed.
            pub fn done<B>(self, result: Result<(), IoError>) -> Done<B> {
                Done { id: self.id, outcome: Outcome::Plain(result) }
            }
        }
    )*};
}

plain_commands!(Create Allocate Sync WriteBack Truncate Rename Remove SyncDir);

impl<B> Write<B> {
    /// All bytes were written (and synced, if asked), or it failed.
    pub fn done(self, result: Result<(), IoError>) -> Done<B> {
        Done { id: self.id, outcome: Outcome::Written(self.data, result) }
    }
}

impl<B> Read<B> {
    /// So many bytes were read, fewer than wanted only at the end of the file; or it failed.
    pub fn done(self, result: Result<usize, IoError>) -> Done<B> {
        Done { id: self.id, outcome: Outcome::Read(self.buffer, result) }
    }
}

impl List {
    /// These names stand in the folders, in any order, or it failed.
    pub fn done<B>(self, result: Result<Vec<Listed>, IoError>) -> Done<B> {
        Done { id: self.id, outcome: Outcome::Listed(result) }
    }
}

impl<B> Command<B> {
    /// The name of the operation, as errors tell it.
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Create(_) => Operation::Create,
            Self::Allocate(_) => Operation::Allocate,
            Self::Write(_) => Operation::Write,
            Self::Sync(_) => Operation::Sync,
            Self::WriteBack(_) => Operation::WriteBack,
            Self::Truncate(_) => Operation::Truncate,
            Self::Rename(_) => Operation::Rename,
            Self::Remove(_) => Operation::Remove,
            Self::SyncDir(_) => Operation::SyncDir,
            Self::Read(_) => Operation::Read,
            Self::List(_) => Operation::List,
        }
    }

    /// The file that the command is about, if it is about one.
    pub const fn file(&self) -> Option<FileId> {
        match self {
            Self::Create(Create { name, .. })
            | Self::Allocate(Allocate { name, .. })
            | Self::Write(Write { name, .. })
            | Self::Sync(Sync { name, .. })
            | Self::WriteBack(WriteBack { name, .. })
            | Self::Truncate(Truncate { name, .. })
            | Self::Rename(Rename { from: name, .. })
            | Self::Remove(Remove { name, .. })
            | Self::Read(Read { name, .. }) => Some(name.file),
            Self::SyncDir(_) | Self::List(_) => None,
        }
    }
}

/// The kinds of operations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operation {
    /// [`Create`].
    Create,
    /// [`Allocate`].
    Allocate,
    /// [`Write`].
    Write,
    /// [`Sync`].
    Sync,
    /// [`WriteBack`].
    WriteBack,
    /// [`Truncate`].
    Truncate,
    /// [`Rename`].
    Rename,
    /// [`Remove`].
    Remove,
    /// [`SyncDir`].
    SyncDir,
    /// [`Read`].
    Read,
    /// [`List`].
    List,
}

impl core::fmt::Display for Operation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Allocate => "preallocate",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::WriteBack => "write-back",
            Self::Truncate => "truncate",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::SyncDir => "directory sync",
            Self::Read => "read",
            Self::List => "list",
        })
    }
}
