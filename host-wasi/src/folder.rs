//! What the executor needs of a file system: the part of `wasi:filesystem` that it uses.

use alloc::string::String;
use alloc::vec::Vec;

/// Why a call was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What the host needs to know of it.
    pub kind: RefusalKind,
    /// The number of the WASI error code, if there is one: see [`crate::wasi::code_name`].
    pub code: Option<u8>,
}

/// Refusals that the host tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalKind {
    /// A signal came first; nothing was done.
    Interrupted,
    /// The disk, the quota or the folder is full.
    NoSpace,
    /// There is no such name.
    NotFound,
    /// The name is taken.
    Exists,
    /// The file system cannot do this at all.
    Unsupported,
    /// Anything else.
    Other,
}

impl Refusal {
    /// A refusal without a number.
    pub const fn new(kind: RefusalKind) -> Self {
        Self { kind, code: None }
    }
}

/// How a file is opened. A symbolic link is never followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// To read.
    Read,
    /// To read and write.
    Write,
    /// Made anew, to read and write; refused where the name is taken.
    CreateNew,
}

/// A name in a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// The name.
    pub name: String,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// The length in bytes of a regular file; `None` for anything else.
    pub bytes: Option<u64>,
}

/// A folder, held as a capability: nothing outside it can be named.
pub trait Folder: Sized {
    /// A file in it.
    type File: File;

    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be, or is no regular file.
    fn open(&self, name: &str, how: How) -> Result<Self::File, Refusal>;

    /// Renames a file, over what stands under the new name.
    ///
    /// # Errors
    /// When it could not be done.
    fn rename(&self, from: &str, to: &str) -> Result<(), Refusal>;

    /// Removes a file.
    ///
    /// # Errors
    /// When it could not be done, also where there is none.
    fn remove(&self, name: &str) -> Result<(), Refusal>;

    /// The names in it, in no order.
    ///
    /// # Errors
    /// When it could not be done.
    fn list(&self) -> Result<Vec<Name>, Refusal>;

    /// Makes its names durable.
    ///
    /// # Errors
    /// When it could not be done.
    fn sync(&self) -> Result<(), Refusal>;

    /// Makes a folder in it.
    ///
    /// # Errors
    /// When it could not be done; [`RefusalKind::Exists`] where the name is taken.
    fn make_folder(&self, name: &str) -> Result<(), Refusal>;

    /// A folder in it.
    ///
    /// # Errors
    /// When there is none of this name, or it is a symbolic link or no folder.
    fn folder(&self, name: &str) -> Result<Self, Refusal>;
}

/// An open file.
pub trait File {
    /// Fills `buffer` from `offset` on as far as one call does; 0 at the end of the file.
    ///
    /// # Errors
    /// When it could not be done.
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Refusal>;

    /// Writes some of `bytes` at `offset`, and says how many.
    ///
    /// # Errors
    /// When it could not be done.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<usize, Refusal>;

    /// Makes its content and length durable.
    ///
    /// # Errors
    /// When it could not be done.
    fn sync_data(&self) -> Result<(), Refusal>;

    /// Sets its length; new bytes read as zeros.
    ///
    /// # Errors
    /// When it could not be done.
    fn set_bytes(&self, bytes: u64) -> Result<(), Refusal>;

    /// Its length.
    ///
    /// # Errors
    /// When it could not be done.
    fn bytes(&self) -> Result<u64, Refusal>;
}

/// How often an interrupted call is made again before it counts as failed.
const ATTEMPTS_MAX: u32 = 1_000;

/// Makes a call again while signals interrupt it. Not for syncs: one that failed has failed.
///
/// # Errors
/// The last refusal.
pub fn persist<T>(mut call: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let mut attempts = 0;
    loop {
        match call() {
            Err(Refusal { kind: RefusalKind::Interrupted, .. }) if attempts < ATTEMPTS_MAX => {
                attempts += 1;
            }
            result => return result,
        }
    }
}

/// Writes all of `bytes`, in as many calls as it takes.
///
/// # Errors
/// When a call fails, or writes nothing.
pub fn write_all(file: &impl File, mut bytes: &[u8], mut offset: u64) -> Result<(), Refusal> {
    while !bytes.is_empty() {
        let written = persist(|| file.write(bytes, offset))?;
        // More than was handed over is a fault of the file system; it is not believed.
        let Some(rest) = bytes.get(written..).filter(|_| written > 0) else {
            return Err(Refusal::new(RefusalKind::Other));
        };
        bytes = rest;
        offset += written as u64;
    }
    Ok(())
}

/// Fills `buffer` up to the end of the file, and says how far it came.
///
/// # Errors
/// When a call fails.
pub fn read_all(file: &impl File, buffer: &mut [u8], offset: u64) -> Result<usize, Refusal> {
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = &mut buffer[filled..];
        let room = rest.len();
        let read = persist(|| file.read(rest, offset + filled as u64))?;
        if read == 0 {
            break;
        }
        filled += read.min(room);
    }
    Ok(filled)
}
