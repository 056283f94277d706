//! A disk in memory that forgets what was not synced.
//!
//! ```text
//!   write ──► content (what a read sees)
//!         └─► changes ── sync ──► durable (what the device holds)
//!                     └─ crash ─► for each unit on its own, some version between the two
//! ```
//!
//! A unit is one change of a folder's names, one file's length, or one piece of a file (a sector,
//! or 512 bytes of one where it is torn). Its versions are what it was before the first change
//! since the last sync, after the first, and so on up to the newest; a crash keeps any of them. See
//! [`crate::crash`] for who chooses.

use crate::crash::Unit;
use crate::random::Random;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use seawall_core::command::{Command, Done, Folder, Listed, Operation, Write};
use seawall_core::cursor::{Footer, footer};
use seawall_core::error::{IoError, IoErrorKind};
use seawall_core::id::Position;
use seawall_core::log::{SegmentEnd, SegmentInfo};
use seawall_core::recover::known;
use seawall_core::wire::checksum::Crc32cFn;
use seawall_core::wire::header::{Identity, Link, LinkState};
use seawall_core::wire::known::Known;
use seawall_core::wire::name::{FileId, FileName};

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

/// Where the bytes of a write really go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goes {
    /// Where they should.
    Here,
    /// Nowhere: the device says that it has them, and forgets.
    Nowhere,
    /// To another offset of another file or the same one, over what stands there.
    To(usize, usize),
}

/// What was done to a file since its last sync.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8>, goes: Goes },
    Length(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    /// What the device holds for sure.
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// What a read sees.
    content: Vec<u8>,
    /// A read sees bytes that the device has forgotten.
    is_false: bool,
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
    files: Vec<Arc<File>>,
    names: BTreeMap<FileName, usize>,
    durable_names: BTreeMap<FileName, usize>,
    name_changes: Vec<NameChange>,
    /// How many operations were run.
    pub operations: u64,
    /// Files in the folder that are none of the log's.
    pub strays: Vec<String>,
    /// Where the next write of anything really goes; then writes go where they should again.
    pub next_write: Option<Goes>,
    /// Space that a file grew by and never wrote holds these bytes after a crash, again and again,
    /// where a real file system gives zeros.
    pub stale: Vec<u8>,
    /// A list says what is to be found of sealed segments, as a host does that has looked before.
    pub knows: Option<Crc32cFn>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            sector_bytes: SECTOR_BYTES_MIN,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            operations: 0,
            strays: Vec::new(),
            next_write: None,
            stale: Vec::new(),
            knows: None,
        }
    }
}

/// No device writes less at once; a larger sector that is torn is torn between pieces of this size.
pub const SECTOR_BYTES_MIN: usize = 512;

fn folder_of(name: FileName) -> Folder {
    match name.file {
        FileId::Quarantined(_) => Folder::Quarantine,
        FileId::Manifest | FileId::Segment(_) => Folder::Log,
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes, .. } => put(content, *offset, bytes),
        Change::Length(length) => content.resize(*length, 0),
    }
}

fn small(number: u64) -> usize {
    usize::try_from(number).expect("simulated files are small")
}

const NOT_FOUND: IoError = IoError::new(IoErrorKind::NotFound);

/// The byte past the last that a write writes.
pub fn end_of(write: &Write<Memory>) -> u64 {
    write.offset + write.data.as_ref().len() as u64
}

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
                let result = error.map_or_else(|| self.lengthen(c.name, small(c.file_bytes)), Err);
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
                let change = Change::Length(small(c.bytes));
                let result = error.map_or_else(|| self.change(c.name, change), Err);
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
            // What it has begun with may be on the device after a crash, as anything else that was
            // written.
            Command::WriteBack(c) => c.done(error.map_or(Ok(()), Err)),
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

    /// What a command has done when it has begun and not returned: the kernel has the bytes of a
    /// write, and nobody has synced them. Any part of that may be on the device after a crash.
    pub fn begin(&mut self, command: &Command<Memory>) {
        if let Command::Write(write) = command {
            // A file that is not there fails the command itself as well.
            let _ = self.write(write.name, write.offset, write.data.as_ref(), false, None);
        }
    }

    fn create(&mut self, name: FileName) {
        self.files.push(Arc::default());
        self.names.insert(name, self.files.len() - 1);
        self.name_changes.push(NameChange::Set(name, self.files.len() - 1));
    }

    fn index(&self, name: FileName) -> Result<usize, IoError> {
        // A host keeps its handle when a file is renamed, so a command may name either.
        let twin = FileName { is_new: !name.is_new, ..name };
        self.names.get(&name).or(self.names.get(&twin)).copied().ok_or(NOT_FOUND)
    }

    fn file(&mut self, name: FileName) -> Result<&mut File, IoError> {
        let index = self.index(name)?;
        Ok(Arc::make_mut(&mut self.files[index]))
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
        let bytes = match fault {
            Some(Fault::Short | Fault::NoSpace) => &bytes[..bytes.len() / 2],
            Some(Fault::Fails) => &[],
            Some(Fault::DropsData) | None => bytes,
        };
        if !bytes.is_empty() {
            let goes = self.next_write.take().unwrap_or(Goes::Here);
            let (offset, bytes) = (small(offset), bytes.to_vec());
            self.change(name, Change::Write { offset, bytes, goes })?;
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
                let changes = core::mem::take(&mut file.changes);
                let mut astray = Vec::new();
                for change in &changes {
                    match change {
                        Change::Write { goes: Goes::Nowhere, .. } => {}
                        Change::Write { bytes, goes: Goes::To(file, offset), .. } => {
                            astray.push((*file, *offset, bytes));
                        }
                        Change::Write { .. } | Change::Length(_) => {
                            apply(&mut file.durable, change);
                        }
                    }
                }
                // What did not arrive leaves a gap that reads as zeros.
                let length = file.content.len();
                file.durable.resize(length, 0);
                for (victim, offset, bytes) in astray {
                    let victim = Arc::make_mut(&mut self.files[victim]);
                    overwrite(&mut victim.durable, offset, bytes);
                }
            }
            // The kernel has given up on the pages: it shows them, and the device never gets them.
            Some(Fault::DropsData) => {
                file.changes.clear();
                file.is_false = true;
            }
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
        let file = &self.files[self.index(name)?];
        let rest = file.content.get(small(offset)..).unwrap_or_default();
        let bytes = rest.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        Ok(bytes)
    }

    /// The names in the folder and in `quarantine/`.
    pub fn list(&self) -> Vec<Listed> {
        let files = self.names.iter().map(|(name, index)| {
            let text = name.to_string();
            let last = text.rsplit('/').next().unwrap_or_default().to_string();
            let bytes = self.files[*index].content.len() as u64;
            let known = self.knows.and_then(|crc| self.known(*name, crc)).map(Box::new);
            Listed { known, ..Listed::new(folder_of(*name), last, Some(bytes)) }
        });
        let strays = self.strays.iter();
        let strays = strays.map(|name| Listed::new(Folder::Log, name.clone(), Some(1)));
        files.chain(strays).collect()
    }

    /// What a look at a segment finds whose end the link of another names.
    fn known(&self, name: FileName, crc: Crc32cFn) -> Option<Known> {
        let content = self.content(name).filter(|_| name.is_segment())?;
        let identity = Identity::parse(content, crc).ok()?;
        let LinkState::Written(link) = Link::parse(content, crc) else { return None };
        let end = self.names.keys().find_map(|other| {
            let LinkState::Written(next) = Link::parse(self.content(*other)?, crc) else {
                return None;
            };
            let Position { segment, offset } = next.previous_end;
            let last_lsn = next.first_lsn.previous();
            let end = SegmentEnd { last_lsn, frames_end: offset, has_footer: true };
            (segment == identity.segment).then_some(end)
        })?;
        let info = SegmentInfo {
            segment: identity.segment,
            salt: identity.salt,
            checksum: identity.checksum,
            first_lsn: link.first_lsn,
            opened: link.opened,
            end: Some(end),
        };
        let bytes = content.get(small(end.frames_end)..)?;
        let is_whole = matches!(footer(&info, &end, bytes, crc), Footer::Whole(_));
        known(&info, content, crc).filter(|_| is_whole)
    }

    /// The power fails: what was synced stays, and of the rest whatever the dice say.
    pub fn crash(&mut self, random: &mut Random) {
        let mut dice = crate::crash::Dice::throw(random, self.sector_bytes);
        self.crash_by(dice.grain_bytes, |unit| dice.keep(unit));
    }

    /// The power fails: what was synced stays, and of the rest what `keep` says: for each unit, how
    /// many of its changes are on the device. Asks in the same order each time, whatever was
    /// answered before.
    pub fn crash_by(&mut self, grain_bytes: usize, mut keep: impl FnMut(Unit) -> usize) {
        let changes = core::mem::take(&mut self.name_changes);
        let mut names = core::mem::take(&mut self.durable_names);
        for change in changes {
            if keep(Unit::Name) == 0 {
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
        let stale = core::mem::take(&mut self.stale);
        for file in &mut self.files {
            if file.changes.is_empty() && !file.is_false && file.content == file.durable {
                continue;
            }
            let file = Arc::make_mut(file);
            let changes = core::mem::take(&mut file.changes);
            crash_file(&mut file.durable, &changes, grain_bytes, &mut keep, &stale);
            file.content.clone_from(&file.durable);
            file.is_false = false;
        }
        // Files without a name are gone.
        let mut files = Vec::with_capacity(names.len());
        for index in names.values_mut() {
            files.push(Arc::clone(&self.files[*index]));
            *index = files.len() - 1;
        }
        self.files = files;
        self.names.clone_from(&names);
        self.durable_names = names;
        self.next_write = None;
    }

    /// The units that a crash would decide on, in order.
    pub fn units(&self, grain_bytes: usize) -> Vec<Unit> {
        let mut units = Vec::new();
        if !self.name_changes.is_empty() || self.files.iter().any(|file| !file.changes.is_empty()) {
            self.clone().crash_by(grain_bytes, |unit| {
                units.push(unit);
                0
            });
        }
        units
    }

    /// The process is killed: the kernel has all that was written and will write it back some day.
    /// Pages that it has given up on are read from the device again.
    pub fn kill(&mut self) {
        for file in self.files.iter_mut().filter(|file| file.is_false) {
            let file = Arc::make_mut(file);
            file.content.clone_from(&file.durable);
            for change in &file.changes {
                apply(&mut file.content, change);
            }
            file.is_false = false;
        }
    }

    /// Puts a file there, durable.
    pub fn place(&mut self, name: FileName, content: Vec<u8>) {
        let file = File { durable: content.clone(), content, ..File::default() };
        self.names.insert(name, self.files.len());
        self.durable_names.insert(name, self.files.len());
        self.files.push(Arc::new(file));
    }

    /// Changes the bytes of a file behind the log's back, on the device and in the cache.
    pub fn damage(&mut self, name: FileName, change: impl FnOnce(&mut Vec<u8>)) {
        if let Ok(file) = self.file(name) {
            change(&mut file.content);
            file.durable.clone_from(&file.content);
            file.changes.clear();
        }
    }

    /// Changes bytes of a file on the device. A read sees that, but for what was written since and
    /// not synced.
    pub fn corrupt(&mut self, name: FileName, change: impl FnOnce(&mut [u8])) {
        if let Ok(file) = self.file(name) {
            change(&mut file.durable);
            if !file.is_false {
                file.content.clone_from(&file.durable);
                for change in &file.changes {
                    apply(&mut file.content, change);
                }
            }
        }
    }

    /// The bytes of a file, if it is there.
    pub fn content(&self, name: FileName) -> Option<&[u8]> {
        self.names.get(&name).map(|index| self.files[*index].content.as_slice())
    }

    /// How many bytes of a file the device holds for sure.
    pub fn durable_bytes(&self, name: FileName) -> usize {
        self.names.get(&name).map_or(0, |index| self.files[*index].durable.len())
    }

    /// All names there are.
    pub fn names(&self) -> impl Iterator<Item = FileName> + '_ {
        self.names.keys().copied()
    }

    /// Whether a crash that keeps nothing unsynced would keep these bytes of a file, as a read sees
    /// them now, under this name.
    pub fn holds(&self, name: FileName, start: u64, end: u64) -> bool {
        let (Ok(index), range) = (self.index(name), small(start)..small(end)) else { return false };
        let file = &self.files[index];
        let is_named = self.durable_names.get(&name) == Some(&index);
        let (durable, content) = (file.durable.get(range.clone()), file.content.get(range));
        is_named && durable.is_some() && durable == content
    }

    /// Which file stands under a name, for [`Goes::To`].
    pub fn file_index(&self, name: FileName) -> Option<usize> {
        self.names.get(&name).copied()
    }

    /// Hashes what stands on the device after a crash.
    pub fn state_hash(&self) -> u64 {
        let mut hash = crate::random::Hash::default();
        for (name, index) in &self.durable_names {
            let (kind, number, offset) = match name.file {
                FileId::Manifest => (0, 0, None),
                FileId::Segment(segment) => (1, segment.get(), None),
                FileId::Quarantined(quarantined) => {
                    hash.number(quarantined.generation);
                    (2, quarantined.segment.get(), quarantined.offset)
                }
            };
            hash.number(kind * 2 + u64::from(name.is_new));
            hash.number(number);
            hash.number(offset.map_or(0, |offset| offset + 1));
            hash.bytes(&self.files[*index].durable);
        }
        hash.value()
    }

    /// Gives a file another name, durably, behind the log's back.
    pub fn put_name(&mut self, from: FileName, to: FileName, keeps_old: bool) {
        if let Some(index) = self.names.get(&from).copied() {
            if !keeps_old {
                self.names.remove(&from);
            }
            let copy = Arc::clone(&self.files[index]);
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

/// Puts bytes over others, as far as there are any.
fn overwrite(content: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(rest) = content.get_mut(offset..) {
        let length = rest.len().min(bytes.len());
        rest[..length].copy_from_slice(&bytes[..length]);
    }
}

/// A piece of a file: how often it was changed, how many changes of it are kept, and how many have
/// been passed.
struct Piece {
    number: usize,
    changes: usize,
    kept: usize,
    passed: usize,
}

fn crash_file(
    durable: &mut Vec<u8>,
    changes: &[Change],
    grain_bytes: usize,
    keep: &mut impl FnMut(Unit) -> usize,
    stale: &[u8],
) {
    // How long the file is after each change of its length.
    let mut lengths = Vec::new();
    let mut length = durable.len();
    let mut pieces: Vec<Piece> = Vec::new();
    for change in changes {
        let after = match change {
            Change::Write { offset, bytes, goes } => {
                for (number, ..) in cut(*offset, bytes, grain_bytes) {
                    match pieces.iter_mut().find(|piece| piece.number == number) {
                        _ if *goes != Goes::Here => {}
                        Some(piece) => piece.changes += 1,
                        None => pieces.push(Piece { number, changes: 1, kept: 0, passed: 0 }),
                    }
                }
                length.max(offset + bytes.len())
            }
            Change::Length(length) => *length,
        };
        if after != length {
            lengths.push(after);
            length = after;
        }
    }
    let lengths_kept = if lengths.is_empty() { 0 } else { keep(Unit::Length(lengths.len())) };
    let final_length = lengths_kept.checked_sub(1).map_or(durable.len(), |last| lengths[last]);
    for piece in &mut pieces {
        piece.kept = keep(Unit::Piece { changes: piece.changes, bytes: grain_bytes });
    }
    let mut lengths_passed = 0;
    let mut length = durable.len();
    let written_before = durable.len();
    for change in changes {
        let after = match change {
            Change::Write { offset, bytes, goes } => {
                for (number, at, part) in cut(*offset, bytes, grain_bytes) {
                    let piece = pieces.iter_mut().find(|piece| piece.number == number);
                    let Some(piece) = piece.filter(|_| *goes == Goes::Here) else { continue };
                    if piece.passed < piece.kept {
                        put(durable, at, part);
                    }
                    piece.passed += 1;
                }
                length.max(offset + bytes.len())
            }
            Change::Length(to) => {
                if lengths_passed < lengths_kept {
                    durable.resize(*to, 0);
                }
                *to
            }
        };
        lengths_passed += usize::from(after != length);
        length = after;
    }
    durable.resize(final_length, 0);
    if !stale.is_empty() && durable.len() > written_before {
        spoil(&mut durable[written_before..], stale);
    }
}

/// Fills what is still zero with bytes of an earlier life.
fn spoil(grown: &mut [u8], stale: &[u8]) {
    let zeros = grown.iter().rev().take_while(|byte| **byte == 0).count();
    let from = grown.len() - zeros;
    for (byte, stale) in grown[from..].iter_mut().zip(stale.iter().cycle()) {
        *byte = *stale;
    }
}

/// A write cut at the borders of pieces: each piece's number, and where its bytes go.
fn cut(
    offset: usize,
    bytes: &[u8],
    grain_bytes: usize,
) -> impl Iterator<Item = (usize, usize, &[u8])> {
    let (mut at, mut rest) = (offset, bytes);
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (part, after) = rest.split_at(rest.len().min(grain_bytes - at % grain_bytes));
        let item = (at / grain_bytes, at, part);
        at += part.len();
        rest = after;
        Some(item)
    })
}
