//! The seam fulfilled by `wasi:filesystem` 0.2.

use crate::folder::{File, Folder, How, Name, Refusal, RefusalKind};
use alloc::string::String;
use alloc::vec::Vec;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Advice, Descriptor, DescriptorFlags, DescriptorType, ErrorCode, OpenFlags, PathFlags,
};

/// A host may give less, and gives no more in one call.
const READ_BYTES_MAX: usize = 64 << 10;

/// How often the host is asked to let go of what it caches.
const LET_GO_TRIES: u32 = 4;

/// A folder that the host has handed over.
#[derive(Debug)]
pub struct WasiFolder {
    descriptor: Descriptor,
}

/// An open file.
#[derive(Debug)]
pub struct WasiFile {
    descriptor: Descriptor,
}

/// Why there is no preopened folder to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preopened {
    /// There is not exactly one.
    Count(usize),
    /// It does not open.
    Refused(Refusal),
}

impl WasiFolder {
    /// The one preopened folder, opened again: some hosts neither list nor sync the descriptor that
    /// they hand over.
    ///
    /// # Errors
    /// When there is none, more than one, or it does not open.
    pub fn preopened() -> Result<Self, Preopened> {
        let mut folders = get_directories();
        match (folders.pop(), folders.len()) {
            (Some((descriptor, _)), 0) => open_folder(&descriptor, ".").map_err(Preopened::Refused),
            (last, others) => Err(Preopened::Count(others + usize::from(last.is_some()))),
        }
    }

    /// A folder that a caller lends: opened again, so that it may be kept.
    ///
    /// # Errors
    /// When it is no folder, or may not be written to.
    pub fn lent(directory: &Descriptor) -> Result<Self, Refusal> {
        open_folder(directory, ".")
    }
}

/// A folder to change. A host that knows no such right refuses to be asked for it.
fn open_folder(descriptor: &Descriptor, name: &str) -> Result<WasiFolder, Refusal> {
    match enter(descriptor, name, DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY) {
        Err(ErrorCode::Unsupported) => enter(descriptor, name, DescriptorFlags::READ),
        opened => opened,
    }
    .map_err(refusal)
}

fn enter(
    descriptor: &Descriptor,
    name: &str,
    flags: DescriptorFlags,
) -> Result<WasiFolder, ErrorCode> {
    let descriptor = descriptor.open_at(PathFlags::empty(), name, OpenFlags::DIRECTORY, flags)?;
    Ok(WasiFolder { descriptor })
}

impl Folder for WasiFolder {
    type File = WasiFile;

    fn open(&self, name: &str, how: How) -> Result<WasiFile, Refusal> {
        let (open, flags) = match how {
            How::Read => (OpenFlags::empty(), DescriptorFlags::READ),
            How::Write => (OpenFlags::empty(), DescriptorFlags::READ | DescriptorFlags::WRITE),
            How::CreateNew => (
                OpenFlags::CREATE | OpenFlags::EXCLUSIVE,
                DescriptorFlags::READ | DescriptorFlags::WRITE,
            ),
        };
        let opened = self.descriptor.open_at(PathFlags::empty(), name, open, flags);
        let descriptor = opened.map_err(refusal)?;
        if descriptor.get_type().map_err(refusal)? == DescriptorType::RegularFile {
            Ok(WasiFile { descriptor })
        } else {
            Err(Refusal::new(RefusalKind::Other))
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Refusal> {
        self.descriptor.rename_at(from, &self.descriptor, to).map_err(refusal)
    }

    fn remove(&self, name: &str) -> Result<(), Refusal> {
        self.descriptor.unlink_file_at(name).map_err(refusal)
    }

    fn list(&self) -> Result<Vec<Name>, Refusal> {
        let entries = self.descriptor.read_directory().map_err(refusal)?;
        let mut names = Vec::new();
        loop {
            let entry = match entries.read_directory_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(names),
                // This one has gone since, or its name is no text, as all of the log's are.
                Err(ErrorCode::NoEntry | ErrorCode::IllegalByteSequence) => continue,
                Err(code) => return Err(refusal(code)),
            };
            let stat = match self.descriptor.stat_at(PathFlags::empty(), &entry.name) {
                Ok(stat) => stat,
                // It has gone since: somebody else looks after the folder as well.
                Err(ErrorCode::NoEntry) => continue,
                Err(code) => return Err(refusal(code)),
            };
            names.push(Name {
                name: entry.name,
                is_folder: stat.type_ == DescriptorType::Directory,
                bytes: (stat.type_ == DescriptorType::RegularFile).then_some(stat.size),
            });
        }
    }

    fn sync(&self) -> Result<(), Refusal> {
        // Opened anew: some hosts refuse to sync the preopened descriptor itself.
        self.descriptor.sync().map_err(refusal)
    }

    fn make_folder(&self, name: &str) -> Result<(), Refusal> {
        self.descriptor.create_directory_at(name).map_err(refusal)
    }

    fn folder(&self, name: &str) -> Result<Self, Refusal> {
        open_folder(&self.descriptor, name)
    }
}

impl File for WasiFile {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Refusal> {
        let wanted = buffer.len().min(READ_BYTES_MAX);
        let (bytes, _) = self.descriptor.read(wanted as u64, offset).map_err(refusal)?;
        let read = bytes.len().min(wanted);
        buffer[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<usize, Refusal> {
        let written = self.descriptor.write(bytes, offset).map_err(refusal)?;
        Ok(usize::try_from(written).unwrap_or(usize::MAX))
    }

    fn sync_data(&self) -> Result<(), Refusal> {
        let synced = self.descriptor.sync_data().map_err(refusal);
        if synced.is_err() {
            // The host may go on showing what the device does not have. One call leaves what
            // another processor has just put there; there is nothing else to be tried.
            for _ in 0..LET_GO_TRIES {
                self.descriptor.advise(0, 0, Advice::DontNeed).ok();
            }
        }
        synced
    }

    fn set_bytes(&self, bytes: u64) -> Result<(), Refusal> {
        self.descriptor.set_size(bytes).map_err(refusal)
    }

    fn bytes(&self) -> Result<u64, Refusal> {
        Ok(self.descriptor.stat().map_err(refusal)?.size)
    }
}

fn refusal(code: ErrorCode) -> Refusal {
    let kind = match code {
        ErrorCode::Interrupted => RefusalKind::Interrupted,
        ErrorCode::InsufficientSpace | ErrorCode::Quota => RefusalKind::NoSpace,
        ErrorCode::NoEntry => RefusalKind::NotFound,
        ErrorCode::Exist => RefusalKind::Exists,
        ErrorCode::Unsupported => RefusalKind::Unsupported,
        _ => RefusalKind::Other,
    };
    Refusal { kind, code: Some(code as u8) }
}

/// The name of the WASI error code with this number, as `wasi:filesystem` spells it.
pub fn code_name(code: i32) -> Option<String> {
    let all = [
        ErrorCode::Access,
        ErrorCode::WouldBlock,
        ErrorCode::Already,
        ErrorCode::BadDescriptor,
        ErrorCode::Busy,
        ErrorCode::Deadlock,
        ErrorCode::Quota,
        ErrorCode::Exist,
        ErrorCode::FileTooLarge,
        ErrorCode::IllegalByteSequence,
        ErrorCode::InProgress,
        ErrorCode::Interrupted,
        ErrorCode::Invalid,
        ErrorCode::Io,
        ErrorCode::IsDirectory,
        ErrorCode::Loop,
        ErrorCode::TooManyLinks,
        ErrorCode::MessageSize,
        ErrorCode::NameTooLong,
        ErrorCode::NoDevice,
        ErrorCode::NoEntry,
        ErrorCode::NoLock,
        ErrorCode::InsufficientMemory,
        ErrorCode::InsufficientSpace,
        ErrorCode::NotDirectory,
        ErrorCode::NotEmpty,
        ErrorCode::NotRecoverable,
        ErrorCode::Unsupported,
        ErrorCode::NoTty,
        ErrorCode::NoSuchDevice,
        ErrorCode::Overflow,
        ErrorCode::NotPermitted,
        ErrorCode::Pipe,
        ErrorCode::ReadOnly,
        ErrorCode::InvalidSeek,
        ErrorCode::TextFileBusy,
        ErrorCode::CrossDevice,
    ];
    all.iter().find(|known| **known as i32 == code).map(|known| known.name().into())
}
