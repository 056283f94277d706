//! A disk in memory that forgets what was not synced.
//!
//! Each file has what the device holds and, in order, what was done to it since the last sync. On a
//! crash every sector of every unsynced write on its own survives, is lost or is torn in the
//! middle; so does each change of a file's length and each change of a folder's names. The true
//! bytes, which a process that lives on reads, are kept beside it.

use crate::random::Random;
use seawall_core::command::{Command, Done, Folder, Listed, Operation};
use seawall_core::error::{IoError, IoErrorKind};
use seawall_core::wire::name::{FileId, FileName};
use std::collections::BTreeMap;
use std::string::ToString;

/// The buffers that the simulated host lends.
pub type Memory = Vec<u8>;

/// How an operation goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails and does nothing.
    Fails,
    /// There is no room: a write writes a part and fails.
    NoSpace,
    /// A sync fails, and what it should have synced is forgotten by the device.
    DropsData,
    /// A write writes a part and fails.
    Short,
}

/// What was done to a file since its last sync.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    /// What the device holds for sure.
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// What a read sees.
    content: Vec<u8>,
}

/// A change of a folder's names that is not durable yet.
#[derive(Clone, Debug)]
enum NameChange {
    Set(FileName, usize),
    /// A rename is of a file, whichever of its name's changes survive beside it.
    Move(FileName, FileName, usize),
    Gone(FileName),
}

/// The disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// How many bytes survive or perish together.
    pub sector_bytes: usize,
    files: Vec<File>,
    names: BTreeMap<FileName, usize>,
    durable_names: BTreeMap<FileName, usize>,
    name_changes: Vec<NameChange>,
    /// How many operations were run.
    pub operations: u64,
    /// Files in the folder that are none of the log's.
    pub strays: Vec<String>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            sector_bytes: 512,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            operations: 0,
            strays: Vec::new(),
        }
    }
}

fn folder_of(name: FileName) -> Folder {
    match name.file {
        FileId::Quarantined(_) => Folder::Quarantine,
        FileId::Manifest | FileId::Segment(_) => Folder::Log,
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
        Change::Length(length) => content.resize(*length, 0),
    }
}

const NOT_FOUND: IoError = IoError::new(IoErrorKind::NotFound);

impl Disk {
    /// An empty disk with sectors of this length.
    pub fn with_sectors(sector_bytes: usize) -> Self {
        Self { sector_bytes, ..Self::default() }
    }

    /// Runs a command, or lets it fail.
    pub fn execute(&mut self, command: Command<Memory>, fault: Option<Fault>) -> Done<Memory> {
        self.operations += 1;
        let error = fault.map(|fault| {
            let no_space = fault == Fault::NoSpace;
            let kind = if no_space { IoErrorKind::NoSpace } else { IoErrorKind::Other };
            IoError::new(kind)
        });
        match command {
            Command::Create(c) => {
                if error.is_none() {
                    self.create(c.name);
                }
                c.done(error.map_or(Ok(()), Err))
            }
            Command::Allocate(c) => {
                let to = usize::try_from(c.to).expect("simulated files are small");
                let result = error.map_or_else(|| self.lengthen(c.name, to), Err);
                c.done(result)
            }
            Command::Write(c) => {
                let result = self.write(c.name, c.offset, c.data.as_ref(), c.sync, fault);
                let result = result.and_then(|()| error.map_or(Ok(()), Err));
                c.done(result)
            }
            Command::Sync(c) => {
                let result = self.sync(c.name, fault);
                let result = result.and_then(|()| error.map_or(Ok(()), Err));
                c.done(result)
            }
            Command::Truncate(c) => {
                let bytes = usize::try_from(c.bytes).expect("simulated files are small");
                let result = error.map_or_else(|| self.change(c.name, Change::Length(bytes)), Err);
                c.done(result)
            }
            Command::Rename(c) => {
                let result = error.map_or_else(|| self.rename(c.from, c.to), Err);
                c.done(result)
            }
            Command::Remove(c) => {
                if error.is_none() && self.names.remove(&c.name).is_some() {
                    self.name_changes.push(NameChange::Gone(c.name));
                }
                c.done(error.map_or(Ok(()), Err))
            }
            Command::SyncDir(c) => {
                if error.is_none() {
                    self.sync_folder(c.folder);
                }
                c.done(error.map_or(Ok(()), Err))
            }
            Command::Read(mut c) => {
                let result = error.map_or_else(|| self.read(c.name, c.offset, &mut c.buffer), Err);
                c.done(result)
            }
            Command::List(c) => {
                let result = error.map_or_else(|| Ok(self.list()), Err);
                c.done(result)
            }
        }
    }

    fn create(&mut self, name: FileName) {
        self.files.push(File::default());
        self.names.insert(name, self.files.len() - 1);
        self.name_changes.push(NameChange::Set(name, self.files.len() - 1));
    }

    fn file(&mut self, name: FileName) -> Result<&mut File, IoError> {
        // A host keeps its handle when a file is renamed, so a command may name either.
        let twin = FileName { is_new: !name.is_new, ..name };
        let index = self.names.get(&name).or(self.names.get(&twin)).copied();
        index.map(|index| &mut self.files[index]).ok_or(NOT_FOUND)
    }

    fn change(&mut self, name: FileName, change: Change) -> Result<(), IoError> {
        let file = self.file(name)?;
        apply(&mut file.content, &change);
        file.changes.push(change);
        Ok(())
    }

    fn lengthen(&mut self, name: FileName, to: usize) -> Result<(), IoError> {
        if self.file(name)?.content.len() < to {
            self.change(name, Change::Length(to))
        } else {
            Ok(())
        }
    }

    fn write(
        &mut self,
        name: FileName,
        offset: u64,
        bytes: &[u8],
        sync: bool,
        fault: Option<Fault>,
    ) -> Result<(), IoError> {
        let offset = usize::try_from(offset).expect("simulated files are small");
        let bytes = match fault {
            Some(Fault::Short | Fault::NoSpace) => &bytes[..bytes.len() / 2],
            Some(Fault::Fails) => &[],
            Some(Fault::DropsData) | None => bytes,
        };
        if !bytes.is_empty() {
            self.change(name, Change::Write { offset, bytes: bytes.to_vec() })?;
        }
        if sync && matches!(fault, None | Some(Fault::DropsData)) {
            self.sync(name, fault)?;
        }
        Ok(())
    }

    fn sync(&mut self, name: FileName, fault: Option<Fault>) -> Result<(), IoError> {
        let file = self.file(name)?;
        match fault {
            None => {
                file.durable.clone_from(&file.content);
                file.changes.clear();
            }
            // The kernel has given up on the pages: it shows them, and the device never gets them.
            Some(Fault::DropsData) => file.changes.clear(),
            Some(_) => {}
        }
        Ok(())
    }

    fn rename(&mut self, from: FileName, to: FileName) -> Result<(), IoError> {
        let index = self.names.remove(&from).ok_or(NOT_FOUND)?;
        self.names.insert(to, index);
        self.name_changes.push(NameChange::Move(from, to, index));
        Ok(())
    }

    fn sync_folder(&mut self, folder: Folder) {
        let is_there = |name: &FileName| folder_of(*name) == folder;
        self.durable_names.retain(|name, _| !is_there(name));
        let now = self.names.iter().filter(|(name, _)| is_there(name));
        self.durable_names.extend(now.map(|(name, index)| (*name, *index)));
        self.name_changes.retain(|change| match change {
            NameChange::Set(name, _) | NameChange::Gone(name) => !is_there(name),
            NameChange::Move(from, to, _) => !is_there(from) && !is_there(to),
        });
    }

    fn read(&mut self, name: FileName, offset: u64, buffer: &mut Memory) -> Result<usize, IoError> {
        let file = self.file(name)?;
        let start = usize::try_from(offset).expect("simulated files are small");
        let rest = file.content.get(start..).unwrap_or_default();
        let bytes = rest.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        Ok(bytes)
    }

    fn list(&self) -> Vec<Listed> {
        let files = self.names.iter().map(|(name, index)| {
            let text = name.to_string();
            Listed {
                folder: folder_of(*name),
                name: text.rsplit('/').next().unwrap_or_default().to_string(),
                bytes: Some(self.files[*index].content.len() as u64),
            }
        });
        let strays = self.strays.iter().map(|name| Listed {
            folder: Folder::Log,
            name: name.clone(),
            bytes: Some(1),
        });
        files.chain(strays).collect()
    }

    /// The power fails: what was synced stays, and of the rest whatever the dice say.
    pub fn crash(&mut self, random: &mut Random) {
        let style = random.below(4);
        let survives = |random: &mut Random| match style {
            0 => true,
            1 => false,
            _ => random.chance(1, 2),
        };
        let changes = std::mem::take(&mut self.name_changes);
        let mut names = self.durable_names.clone();
        for change in changes {
            if !survives(random) {
                continue;
            }
            match change {
                NameChange::Set(name, index) => drop(names.insert(name, index)),
                NameChange::Gone(name) => drop(names.remove(&name)),
                NameChange::Move(from, to, index) => {
                    names.remove(&from);
                    names.insert(to, index);
                }
            }
        }
        self.names.clone_from(&names);
        self.durable_names = names;
        let sector_bytes = self.sector_bytes;
        for file in &mut self.files {
            for change in std::mem::take(&mut file.changes) {
                match change {
                    Change::Length(_) if survives(random) => apply(&mut file.durable, &change),
                    Change::Length(_) => {}
                    Change::Write { offset, bytes } => {
                        for part in sectors(offset, &bytes, sector_bytes) {
                            crash_sector(&mut file.durable, part, style, random);
                        }
                    }
                }
            }
            file.content.clone_from(&file.durable);
        }
    }

    /// The process is killed: the kernel has all that was written and will write it back some day.
    pub fn kill(&mut self) {}

    /// Changes the bytes of a file behind the log's back, on the device and in the cache.
    pub fn damage(&mut self, name: FileName, change: impl FnOnce(&mut Vec<u8>)) {
        if let Ok(file) = self.file(name) {
            change(&mut file.content);
            file.durable.clone_from(&file.content);
            file.changes.clear();
        }
    }

    /// The bytes of a file, if it is there.
    pub fn content(&self, name: FileName) -> Option<&[u8]> {
        self.names.get(&name).map(|index| self.files[*index].content.as_slice())
    }

    /// All names there are.
    pub fn names(&self) -> impl Iterator<Item = FileName> + '_ {
        self.names.keys().copied()
    }

    /// Gives a file another name, durably, behind the log's back.
    pub fn put_name(&mut self, from: FileName, to: FileName, keeps_old: bool) {
        if let Some(index) = self.names.get(&from).copied() {
            if !keeps_old {
                self.names.remove(&from);
            }
            let copy = self.files[index].clone();
            self.files.push(copy);
            self.names.insert(to, self.files.len() - 1);
            self.durable_names = self.names.clone();
        }
    }

    /// Removes a file, durably, behind the log's back.
    pub fn lose(&mut self, name: FileName) {
        self.names.remove(&name);
        self.durable_names.remove(&name);
    }

    /// Which operation a command is, and whether a fault of this kind can befall it.
    pub const fn can_befall(operation: Operation, fault: Fault) -> bool {
        match fault {
            Fault::Fails => true,
            Fault::NoSpace => {
                matches!(operation, Operation::Write | Operation::Create | Operation::Allocate)
            }
            Fault::DropsData => matches!(operation, Operation::Sync | Operation::Write),
            Fault::Short => matches!(operation, Operation::Write),
        }
    }
}

/// A write cut at the borders of sectors.
fn sectors(offset: usize, bytes: &[u8], sector_bytes: usize) -> Vec<(usize, &[u8])> {
    let mut parts = Vec::new();
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.len().min(sector_bytes - at % sector_bytes));
        parts.push((at, part));
        at += part.len();
        rest = after;
    }
    parts
}

fn crash_sector(
    durable: &mut Vec<u8>,
    (offset, bytes): (usize, &[u8]),
    style: u64,
    random: &mut Random,
) {
    let kept = match (style, random.below(3)) {
        (0, _) => bytes.len(),
        (1, _) | (_, 0) => 0,
        (_, 1) => bytes.len(),
        _ => random.index(bytes.len() + 1),
    };
    if kept > 0 {
        apply(durable, &Change::Write { offset, bytes: bytes[..kept].to_vec() });
    }
}
