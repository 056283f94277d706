//! A tree of files and folders that forgets what was not synced.
//!
//! Each file has what the device holds and, in order, what was done to it since the last sync; each
//! folder has the names that the device holds, and the tree keeps every change of a name since. A
//! sync of a file makes its content and length durable, and nothing about its name; a sync of a
//! folder makes its names durable, and nothing about the files. That is the least that POSIX
//! allows; file systems in use give more, and hide what a program forgot.
//!
//! When power is cut every sector of every unsynced write, every change of a length and every
//! change of a name survives or not, as a seed decides.

use seawall_tests::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

/// The folder at the top.
pub const ROOT: u64 = 1;
/// What survives or perishes as a whole, in bytes.
pub const SECTOR_BYTES: usize = 512;
/// Space is counted in blocks of so many bytes.
const BLOCK_BYTES: u64 = 4_096;

/// An error as the kernel numbers it.
pub type Errno = i32;
/// There is no such file.
pub const ENOENT: Errno = 2;
/// The device failed.
pub const EIO: Errno = 5;
/// There is one already.
pub const EEXIST: Errno = 17;
/// A file where a folder was needed.
pub const ENOTDIR: Errno = 20;
/// A folder where a file was needed.
pub const EISDIR: Errno = 21;
/// What was asked for makes no sense.
pub const EINVAL: Errno = 22;
/// No room.
pub const ENOSPC: Errno = 28;
/// The folder holds something.
pub const ENOTEMPTY: Errno = 39;
/// There is no such operation here.
pub const EOPNOTSUPP: Errno = 95;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

/// A file.
#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// What a read sees.
    content: Vec<u8>,
    /// See [`About::changed`].
    changed: u64,
}

type Names = BTreeMap<OsString, u64>;

/// A folder.
#[derive(Clone, Debug, Default)]
struct Folder {
    durable: Names,
    names: Names,
}

#[derive(Clone, Debug)]
enum Node {
    File(File),
    Folder(Folder),
}

/// A name in a folder.
type Place = (u64, OsString);

/// A change of a name that is not durable yet.
#[derive(Clone, Debug)]
enum NameChange {
    Set(Place, u64),
    Move(Place, Place, u64),
    Gone(Place),
}

/// What is to be known of a file or folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct About {
    /// Its number.
    pub node: u64,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Its length in bytes.
    pub bytes: u64,
    /// When a file or its name was last changed: how many changes there had been in the tree. The
    /// device knows it before the change itself, and does not forget it.
    pub changed: u64,
}

/// The tree.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: BTreeMap<u64, Node>,
    name_changes: Vec<NameChange>,
    next: u64,
    /// How many changes of files and of their names there have been.
    changes: u64,
    /// How many bytes there is room for; `None`: as many as you like.
    pub capacity_bytes: Option<u64>,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node::Folder(Folder::default());
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            name_changes: Vec::new(),
            next: ROOT + 1,
            changes: 0,
            capacity_bytes: None,
        }
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => write(content, *offset, bytes),
        Change::Length(length) => content.resize(*length, 0),
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

/// A length or offset that comes from the kernel.
fn index(bytes: u64) -> Result<usize, Errno> {
    usize::try_from(bytes).ok().filter(|bytes| *bytes <= 1 << 32).ok_or(EINVAL)
}

impl Tree {
    fn file(&mut self, node: u64) -> Result<&mut File, Errno> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Folder(_)) => Err(EISDIR),
            None => Err(ENOENT),
        }
    }

    fn folder(&mut self, node: u64) -> Result<&mut Folder, Errno> {
        match self.nodes.get_mut(&node) {
            Some(Node::Folder(folder)) => Ok(folder),
            Some(Node::File(_)) => Err(ENOTDIR),
            None => Err(ENOENT),
        }
    }

    /// What is under a name.
    ///
    /// # Errors
    /// `ENOENT` and `ENOTDIR`.
    pub fn lookup(&mut self, folder: u64, name: &OsStr) -> Result<About, Errno> {
        let node = *self.folder(folder)?.names.get(name).ok_or(ENOENT)?;
        self.about(node)
    }

    /// What is to be known of a node.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn about(&self, node: u64) -> Result<About, Errno> {
        let (is_folder, bytes, changed) = match self.nodes.get(&node).ok_or(ENOENT)? {
            Node::File(file) => (false, file.content.len() as u64, file.changed),
            Node::Folder(_) => (true, 0, 0),
        };
        Ok(About { node, is_folder, bytes, changed })
    }

    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// `ENOENT` and `ENOTDIR`.
    pub fn list(&mut self, folder: u64) -> Result<Vec<(OsString, About)>, Errno> {
        let names = self.folder(folder)?.names.clone();
        names.into_iter().map(|(name, node)| Ok((name, self.about(node)?))).collect()
    }

    /// Makes an empty file or folder.
    ///
    /// # Errors
    /// `EEXIST` and `ENOTDIR`.
    pub fn create(&mut self, folder: u64, name: &OsStr, is_folder: bool) -> Result<About, Errno> {
        if self.folder(folder)?.names.contains_key(name) {
            return Err(EEXIST);
        }
        let node = self.next;
        self.next += 1;
        let new =
            if is_folder { Node::Folder(Folder::default()) } else { Node::File(File::default()) };
        self.nodes.insert(node, new);
        self.folder(folder)?.names.insert(name.to_owned(), node);
        self.name_changes.push(NameChange::Set((folder, name.to_owned()), node));
        self.about(node)
    }

    /// Removes a name. Who has the file open keeps it.
    ///
    /// # Errors
    /// `ENOENT`, and what a folder where none should be, or the other way round, leads to.
    pub fn remove(&mut self, folder: u64, name: &OsStr, is_folder: bool) -> Result<(), Errno> {
        let about = self.lookup(folder, name)?;
        match (about.is_folder, is_folder) {
            (true, false) => return Err(EISDIR),
            (false, true) => return Err(ENOTDIR),
            (true, true) if !self.folder(about.node)?.names.is_empty() => return Err(ENOTEMPTY),
            _ => {}
        }
        self.folder(folder)?.names.remove(name);
        self.name_changes.push(NameChange::Gone((folder, name.to_owned())));
        Ok(())
    }

    /// Renames, over what stands under the new name.
    ///
    /// # Errors
    /// `ENOENT`, and what a folder where none should be leads to.
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Errno> {
        let moved = self.lookup(from.0, from.1)?;
        if let Ok(replaced) = self.lookup(to.0, to.1) {
            match (moved.is_folder, replaced.is_folder) {
                _ if moved.node == replaced.node => return Ok(()),
                (false, true) => return Err(EISDIR),
                (true, false) => return Err(ENOTDIR),
                (true, true) if !self.folder(replaced.node)?.names.is_empty() => {
                    return Err(ENOTEMPTY);
                }
                _ => {}
            }
        }
        self.folder(to.0)?.names.insert(to.1.to_owned(), moved.node);
        self.folder(from.0)?.names.remove(from.1);
        let (from, to) = ((from.0, from.1.to_owned()), (to.0, to.1.to_owned()));
        self.name_changes.push(NameChange::Move(from, to, moved.node));
        self.changes += 1;
        let now = self.changes;
        if let Ok(file) = self.file(moved.node) {
            file.changed = now;
        }
        Ok(())
    }

    /// Reads what there is of these bytes.
    ///
    /// # Errors
    /// `EISDIR` and `ENOENT`.
    pub fn read(&mut self, node: u64, offset: u64, bytes: u64) -> Result<&[u8], Errno> {
        let (start, bytes) = (index(offset)?, index(bytes)?);
        let rest = self.file(node)?.content.get(start..).unwrap_or_default();
        Ok(&rest[..rest.len().min(bytes)])
    }

    /// Writes.
    ///
    /// # Errors
    /// `ENOSPC` when there is no room for all of it; then nothing is written.
    pub fn write(&mut self, node: u64, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let offset = index(offset)?;
        self.has_room(node, offset + bytes.len())?;
        self.change(node, Change::Write { offset, bytes: bytes.to_vec() })
    }

    /// Sets a file's length.
    ///
    /// # Errors
    /// `ENOSPC` and the like.
    pub fn set_length(&mut self, node: u64, bytes: u64) -> Result<(), Errno> {
        let length = index(bytes)?;
        self.has_room(node, length)?;
        self.change(node, Change::Length(length))
    }

    /// Reserves space; what is new reads as zeros.
    ///
    /// # Errors
    /// `ENOSPC` and the like.
    pub fn allocate(&mut self, node: u64, to: u64) -> Result<(), Errno> {
        let length = index(to)?;
        self.has_room(node, length)?;
        if self.file(node)?.content.len() < length {
            self.change(node, Change::Length(length))?;
        }
        Ok(())
    }

    fn change(&mut self, node: u64, change: Change) -> Result<(), Errno> {
        self.changes += 1;
        let now = self.changes;
        let file = self.file(node)?;
        apply(&mut file.content, &change);
        file.changes.push(change);
        file.changed = now;
        Ok(())
    }

    fn has_room(&mut self, node: u64, length: usize) -> Result<(), Errno> {
        let have = self.file(node)?.content.len();
        let Some(capacity) = self.capacity_bytes else { return Ok(()) };
        let blocks = |bytes: usize| (bytes as u64).div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
        let more = blocks(length).saturating_sub(blocks(have));
        if more == 0 || self.used_bytes() + more <= capacity { Ok(()) } else { Err(ENOSPC) }
    }

    /// How much room the files that have a name take.
    pub fn used_bytes(&self) -> u64 {
        let mut bytes = 0;
        for node in self.reachable(|folder| folder.names.values()) {
            if let Some(Node::File(file)) = self.nodes.get(&node) {
                bytes += (file.content.len() as u64).div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
            }
        }
        bytes
    }

    fn reachable<'a, I: Iterator<Item = &'a u64>>(
        &'a self,
        names: impl Fn(&'a Folder) -> I,
    ) -> BTreeSet<u64> {
        let (mut found, mut next) = (BTreeSet::new(), vec![ROOT]);
        while let Some(node) = next.pop() {
            if found.insert(node)
                && let Some(Node::Folder(folder)) = self.nodes.get(&node)
            {
                next.extend(names(folder));
            }
        }
        found
    }

    /// Makes a file's content and length durable.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn sync(&mut self, node: u64) -> Result<(), Errno> {
        let file = self.file(node)?;
        for change in std::mem::take(&mut file.changes) {
            apply(&mut file.durable, &change);
        }
        // Not a copy of the content: a sync that failed before may have lost a part of that.
        Ok(())
    }

    /// A sync fails, and the kernel gives up on the pages: it shows them still, and the device
    /// never gets them.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn drop_unsynced(&mut self, node: u64) -> Result<(), Errno> {
        self.file(node)?.changes.clear();
        Ok(())
    }

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// `ENOENT` and `ENOTDIR`.
    pub fn sync_folder(&mut self, node: u64) -> Result<(), Errno> {
        let folder = self.folder(node)?;
        folder.durable = folder.names.clone();
        let mut left = Vec::new();
        for change in std::mem::take(&mut self.name_changes) {
            match change {
                NameChange::Set((folder, _), _) | NameChange::Gone((folder, _))
                    if folder == node => {}
                NameChange::Move(from, to, moved) if from.0 == node && to.0 != node => {
                    left.push(NameChange::Set(to, moved));
                }
                NameChange::Move(from, to, _) if to.0 == node && from.0 != node => {
                    left.push(NameChange::Gone(from));
                }
                NameChange::Move(from, ..) if from.0 == node => {}
                other => left.push(other),
            }
        }
        self.name_changes = left;
        Ok(())
    }

    /// How many changes of content and of names are not durable.
    pub fn unsynced(&self) -> u64 {
        let changes = self.nodes.values().map(|node| match node {
            Node::File(file) => file.changes.len(),
            Node::Folder(_) => 0,
        });
        (changes.sum::<usize>() + self.name_changes.len()) as u64
    }

    /// The power fails. What was synced stays, and of the rest what the dice say.
    pub fn cut_power(&mut self, random: &mut Random) {
        let style = Style::new(random);
        for change in std::mem::take(&mut self.name_changes) {
            if style.survives(random) {
                self.apply_name(change);
            }
        }
        for node in self.nodes.values_mut() {
            match node {
                Node::Folder(folder) => folder.names.clone_from(&folder.durable),
                Node::File(file) => {
                    let changes = std::mem::take(&mut file.changes);
                    cut_file(&mut file.durable, &changes, style, random);
                    file.content.clone_from(&file.durable);
                }
            }
        }
        let found = self.reachable(|folder| folder.names.values());
        self.nodes.retain(|node, _| found.contains(node));
    }

    /// On the device.
    fn apply_name(&mut self, change: NameChange) {
        let (gone, set) = match change {
            NameChange::Set(place, node) => (None, Some((place, node))),
            NameChange::Move(from, to, node) => (Some(from), Some((to, node))),
            NameChange::Gone(place) => (Some(place), None),
        };
        if let Some((folder, name)) = gone
            && let Ok(folder) = self.folder(folder)
        {
            folder.durable.remove(&name);
        }
        if let Some(((folder, name), node)) = set
            && let Ok(folder) = self.folder(folder)
        {
            folder.durable.insert(name, node);
        }
    }
}

/// How a power cut treats what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    /// All of it survives.
    All,
    /// None of it does.
    Nothing,
    /// Each sector shows one of the contents that the cache held, as a device that writes whole
    /// sectors leaves it.
    Versions,
    /// Each part of each write on its own.
    Parts,
}

impl Style {
    fn new(random: &mut Random) -> Self {
        [Self::All, Self::Nothing, Self::Versions, Self::Versions, Self::Parts, Self::Parts]
            [random.index(6)]
    }

    fn survives(self, random: &mut Random) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Versions | Self::Parts => random.chance(1, 2),
        }
    }
}

/// Which sectors a write touches, each with its part of the write.
fn parts(offset: usize, bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut parts = Vec::new();
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
        parts.push((at, part));
        at += part.len();
        rest = after;
    }
    parts
}

fn cut_file(durable: &mut Vec<u8>, changes: &[Change], style: Style, random: &mut Random) {
    let mut versions: BTreeMap<usize, u64> = BTreeMap::new();
    for change in changes {
        if let Change::Write { offset, bytes } = change {
            for (at, _) in parts(*offset, bytes) {
                *versions.entry(at / SECTOR_BYTES).or_default() += 1;
            }
        }
    }
    if style == Style::Versions {
        for left in versions.values_mut() {
            *left = random.below(*left + 1);
        }
    }
    for change in changes {
        match change {
            Change::Length(_) if style.survives(random) => apply(durable, change),
            Change::Length(_) => {}
            Change::Write { offset, bytes } => {
                for (at, part) in parts(*offset, bytes) {
                    let left = versions.entry(at / SECTOR_BYTES).or_default();
                    let survives =
                        if style == Style::Versions { *left > 0 } else { style.survives(random) };
                    *left = left.saturating_sub(1);
                    if survives {
                        write(durable, at, part);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (Tree, u64) {
        let mut tree = Tree::default();
        let file = tree.create(ROOT, OsStr::new("a"), false).unwrap().node;
        (tree, file)
    }

    fn names(tree: &mut Tree) -> Vec<OsString> {
        tree.list(ROOT).unwrap().into_iter().map(|(name, _)| name).collect()
    }

    /// Whether something is so after some power cuts, and not after others.
    fn is_uncertain(tree: &Tree, holds: impl Fn(&mut Tree) -> bool) -> bool {
        let outcomes: BTreeSet<bool> = (0..64)
            .map(|seed| {
                let mut tree = tree.clone();
                tree.cut_power(&mut Random::new(seed));
                holds(&mut tree)
            })
            .collect();
        outcomes.len() == 2
    }

    fn is_certain(tree: &Tree, holds: impl Fn(&mut Tree) -> bool) -> bool {
        (0..64).all(|seed| {
            let mut tree = tree.clone();
            tree.cut_power(&mut Random::new(seed));
            holds(&mut tree)
        })
    }

    #[test]
    fn a_synced_file_without_a_synced_name_may_be_gone() {
        let (mut tree, file) = tree();
        tree.write(file, 0, b"frames").unwrap();
        tree.sync(file).unwrap();
        let is_there = |tree: &mut Tree| names(tree) == ["a"];
        assert!(is_uncertain(&tree, is_there));
        tree.sync_folder(ROOT).unwrap();
        assert!(is_certain(&tree, is_there));
        assert!(is_certain(&tree, |tree| tree.read(file, 0, 9) == Ok(b"frames")));
        assert_eq!(tree.unsynced(), 0);
    }

    #[test]
    fn sectors_of_an_unsynced_write_survive_one_by_one() {
        let (mut tree, file) = tree();
        tree.write(file, 0, &[1; 2 * SECTOR_BYTES]).unwrap();
        tree.sync(file).unwrap();
        tree.sync_folder(ROOT).unwrap();
        tree.write(file, 0, &[2; 2 * SECTOR_BYTES]).unwrap();
        let seen: BTreeSet<Vec<u8>> = (0..200)
            .map(|seed| {
                let mut tree = tree.clone();
                tree.cut_power(&mut Random::new(seed));
                let content = tree.read(file, 0, 4_096).unwrap();
                assert_eq!(content.len(), 2 * SECTOR_BYTES);
                content.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect()
            })
            .collect();
        assert_eq!(seen.len(), 4, "{seen:?}");
    }

    #[test]
    fn a_rename_is_whole_and_uncertain_until_its_folders_are_synced() {
        let (mut tree, file) = tree();
        tree.sync_folder(ROOT).unwrap();
        let folder = tree.create(ROOT, OsStr::new("q"), true).unwrap().node;
        tree.sync_folder(ROOT).unwrap();
        tree.rename((ROOT, OsStr::new("a")), (folder, OsStr::new("b"))).unwrap();
        let moved = |tree: &mut Tree| {
            let old = tree.lookup(ROOT, OsStr::new("a")).is_ok();
            let new = tree.lookup(folder, OsStr::new("b")).is_ok();
            assert!(old != new);
            new
        };
        assert!(is_uncertain(&tree, moved));
        tree.sync_folder(folder).unwrap();
        tree.sync_folder(ROOT).unwrap();
        assert!(is_certain(&tree, moved));
        assert!(tree.about(file).is_ok());
    }

    #[test]
    fn what_a_failed_sync_dropped_stays_readable_and_is_never_durable() {
        let (mut tree, file) = tree();
        tree.sync_folder(ROOT).unwrap();
        tree.write(file, 0, b"lost").unwrap();
        tree.drop_unsynced(file).unwrap();
        tree.sync(file).unwrap();
        assert_eq!(tree.read(file, 0, 9).unwrap(), b"lost");
        assert!(is_certain(&tree, |tree| tree.read(file, 0, 9) == Ok(b"")));
    }

    #[test]
    fn room_is_counted_in_blocks() {
        let (mut tree, file) = tree();
        tree.capacity_bytes = Some(2 * BLOCK_BYTES);
        tree.allocate(file, 5_000).unwrap();
        tree.write(file, 8_000, &[1; 192]).unwrap();
        assert_eq!(tree.write(file, 8_000, &[1; 193]), Err(ENOSPC));
        assert_eq!(tree.allocate(file, 8_193), Err(ENOSPC));
        tree.set_length(file, 100).unwrap();
        let other = tree.create(ROOT, OsStr::new("b"), false).unwrap().node;
        tree.write(other, 0, &[1; 4_096]).unwrap();
        assert_eq!(tree.used_bytes(), 2 * BLOCK_BYTES);
        tree.remove(ROOT, OsStr::new("b"), false).unwrap();
        assert_eq!(tree.used_bytes(), BLOCK_BYTES);
    }
}
