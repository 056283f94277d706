//! A disk that writes down every write and every flush, in the order in which it took them.
//!
//! Power can be cut after the fact: [`Image::at`] gives the disk as it would stand had power gone
//! out once `moment` entries were taken. What a flush had covered by then is there; of the rest
//! each sector of each write is there or not, as a seed says, or all of it is.

use seawall_tests::random::Random;
use std::collections::HashMap;
use std::sync::Arc;

/// Content is kept in blocks of so many bytes; those of only zeros take no memory.
pub const BLOCK_BYTES: usize = 4_096;
type Block = [u8; BLOCK_BYTES];

/// What was done to the disk.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Bytes were written.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// All that was written before is durable.
    Flush,
}

/// What becomes of writes that no flush covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unflushed {
    /// They are all there: the log's entries up to the moment, and nothing else.
    Kept,
    /// Each piece of so many bytes is there or not, as the seed says; so nothing is in order.
    Torn {
        /// How long a piece is: the disk's sector.
        sector_bytes: usize,
        /// Where chance comes from.
        seed: u64,
    },
}

/// The bytes of a disk.
#[derive(Clone, Debug, Default)]
pub struct Image {
    blocks: HashMap<u64, Arc<Block>>,
}

/// A range of a disk, cut at the borders of blocks: the block, where in it, and how many bytes.
fn pieces(offset: u64, bytes: usize, unit: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut at, mut left) = (offset, bytes);
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let inside = usize::try_from(at % unit as u64).expect("it is below a usize");
        let piece = (at / unit as u64, inside, left.min(unit - inside));
        at += piece.2 as u64;
        left -= piece.2;
        Some(piece)
    })
}

impl Image {
    /// Reads; what was never written is zeros.
    pub fn read(&self, offset: u64, bytes: usize) -> Vec<u8> {
        let mut content = Vec::with_capacity(bytes);
        for (block, start, length) in pieces(offset, bytes, BLOCK_BYTES) {
            match self.blocks.get(&block) {
                Some(block) => content.extend_from_slice(&block[start..start + length]),
                None => content.resize(content.len() + length, 0),
            }
        }
        content
    }

    /// Writes.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (index, start, length) in pieces(offset, bytes.len(), BLOCK_BYTES) {
            let (piece, after) = rest.split_at(length);
            rest = after;
            let is_zero = piece.iter().all(|byte| *byte == 0);
            if is_zero && (length == BLOCK_BYTES || !self.blocks.contains_key(&index)) {
                self.blocks.remove(&index);
                continue;
            }
            let block = self.blocks.entry(index).or_insert_with(|| Arc::new([0; BLOCK_BYTES]));
            Arc::make_mut(block)[start..start + length].copy_from_slice(piece);
        }
    }

    /// How many bytes it takes in memory, about.
    pub fn memory_bytes(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    /// This disk after the first `moment` entries of a log, when power goes out.
    #[must_use]
    pub fn at(&self, log: &[Entry], moment: usize, unflushed: Unflushed) -> Self {
        let log = &log[..moment];
        let flushed = log.iter().rposition(|entry| matches!(entry, Entry::Flush)).unwrap_or(0);
        let mut image = self.clone();
        for (index, entry) in log.iter().enumerate() {
            let Entry::Write { offset, bytes } = entry else { continue };
            match unflushed {
                Unflushed::Torn { sector_bytes, seed } if index >= flushed => {
                    let seed = seed ^ (index as u64) << 32;
                    image.tear(*offset, bytes, sector_bytes, &mut Random::new(seed));
                }
                _ => image.write(*offset, bytes),
            }
        }
        image
    }

    /// A write of which each sector is there or not.
    fn tear(&mut self, offset: u64, bytes: &[u8], sector_bytes: usize, random: &mut Random) {
        // Some writes are whole, some are not there at all, as on a real disk most are.
        let style = random.below(4);
        let mut rest = bytes;
        let mut at = offset;
        for (_, _, length) in pieces(offset, bytes.len(), sector_bytes) {
            let (piece, after) = rest.split_at(length);
            rest = after;
            let survives = match style {
                0 => true,
                1 => false,
                _ => random.chance(1, 2),
            };
            if survives {
                self.write(at, piece);
            }
            at += length as u64;
        }
    }
}

/// What a write is, as far as its bytes tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Records of a log.
    Data,
    /// The file system's journal or log; for btrfs any block of a tree.
    Journal,
    /// The superblock.
    Super,
    /// Anything else.
    Other,
}

/// Which operation of the disk is to fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// A write of this class.
    Write(Class),
    /// A flush.
    Flush,
}

/// Operations that fail: the `nth` match from now, and so many after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failing {
    /// What.
    pub target: Target,
    /// 1 is the next.
    pub nth: u64,
    /// How many in a row.
    pub count: u64,
}

/// A disk and its log.
#[derive(Debug, Default)]
pub struct Disk {
    /// Its bytes.
    pub image: Image,
    /// What was done to it since the log was last taken.
    pub log: Vec<Entry>,
    /// What is to fail.
    pub failing: Vec<Failing>,
    /// How many operations have failed.
    pub failed: u64,
    /// What tells classes apart.
    pub mark: Vec<u8>,
}

/// ext4's journal: the magic of jbd2, at the front of its descriptor, commit and revoke blocks.
const JBD2: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];
/// xfs's log: the magic of a record's header.
const XLOG: [u8; 4] = [0xfe, 0xed, 0xba, 0xbe];
/// btrfs: the superblock's magic, 64 bytes in.
const BTRFS: &[u8] = b"_BHRfS_M";

impl Disk {
    /// What these bytes are.
    pub fn class(&self, bytes: &[u8]) -> Class {
        let contains = |bytes: &[u8], what: &[u8]| {
            !what.is_empty() && bytes.windows(what.len()).any(|window| window == what)
        };
        let is_super = bytes.get(64..72) == Some(BTRFS)
            || bytes.starts_with(b"XFSB")
            || bytes.get(1_080..1_082) == Some(&[0x53, 0xef]);
        let mut sectors = bytes.chunks(512);
        if is_super {
            Class::Super
        } else if sectors.any(|sector| sector.starts_with(&JBD2) || sector.starts_with(&XLOG)) {
            Class::Journal
        } else if contains(bytes, &self.mark) {
            Class::Data
        } else if self.is_tree_of_btrfs(bytes) {
            Class::Journal
        } else {
            Class::Other
        }
    }

    /// A block of a btrfs tree: the file system's id stands 32 bytes in, as it does in the
    /// superblock.
    fn is_tree_of_btrfs(&self, bytes: &[u8]) -> bool {
        let superblock = self.image.read(64 << 10, 72);
        superblock[64..72] == *BTRFS && bytes.get(32..48) == Some(&superblock[32..48])
    }

    /// Whether the next operation of this kind fails.
    fn fails(&mut self, target: Target) -> bool {
        let mut fails = false;
        for failing in self.failing.iter_mut().filter(|failing| failing.target == target) {
            failing.nth = failing.nth.saturating_sub(1);
            if failing.nth == 0 && failing.count > 0 {
                failing.count -= 1;
                fails = true;
            }
        }
        self.failed += u64::from(fails);
        fails
    }

    /// Writes; `false` when it fails, and then nothing is written.
    #[must_use]
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> bool {
        if !self.failing.is_empty() {
            let class = self.class(bytes);
            if self.fails(Target::Write(class)) {
                return false;
            }
        }
        self.image.write(offset, bytes);
        self.log.push(Entry::Write { offset, bytes: bytes.into() });
        true
    }

    /// Flushes; `false` when it fails, and then nothing is known durable by it.
    #[must_use]
    pub fn flush(&mut self) -> bool {
        if self.fails(Target::Flush) {
            return false;
        }
        self.log.push(Entry::Flush);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn bytes_are_read_as_they_were_written() {
        let mut image = Image::default();
        image.write(4_000, &[7; 200]);
        assert_eq!(image.read(3_999, 202), [&[0][..], &[7; 200], &[0]].concat());
        image.write(0, &[0; 8_192]);
        assert_eq!(image.memory_bytes(), 0);
        image.write(10, &[1]);
        image.write(10, &[0]);
        assert_eq!(image.read(0, 20), [0; 20]);
    }

    #[test]
    fn what_a_flush_covers_survives_and_the_rest_may() {
        let mut disk = Disk::default();
        assert!(disk.write(0, &[1; 1_024]));
        assert!(disk.flush());
        assert!(disk.write(0, &[2; 1_024]));
        let base = Image::default();
        let at = |moment, unflushed| {
            let image = base.at(&disk.log, moment, unflushed);
            [image.read(0, 1)[0], image.read(512, 1)[0]]
        };
        assert_eq!(at(0, Unflushed::Kept), [0, 0]);
        assert_eq!(at(1, Unflushed::Kept), [1, 1]);
        assert_eq!(at(3, Unflushed::Kept), [2, 2]);
        let torn = |moment, sector_bytes| -> BTreeSet<[u8; 2]> {
            (0..100).map(|seed| at(moment, Unflushed::Torn { sector_bytes, seed })).collect()
        };
        assert_eq!(torn(1, 512).len(), 4);
        assert_eq!(torn(2, 512), BTreeSet::from([[1, 1]]));
        assert_eq!(torn(3, 512), BTreeSet::from([[1, 1], [1, 2], [2, 1], [2, 2]]));
        assert_eq!(torn(3, 4_096), BTreeSet::from([[1, 1], [2, 2]]));
    }

    #[test]
    fn what_is_to_fail_fails_as_often_as_asked() {
        let mut disk = Disk { mark: b"mark".to_vec(), ..Disk::default() };
        let target = Target::Write(Class::Data);
        disk.failing.push(Failing { target, nth: 2, count: 2 });
        let mut write = |bytes: &[u8]| disk.write(0, bytes);
        assert!(write(b"a mark"));
        assert!(write(b"none"));
        assert!(!write(b"a mark"));
        assert!(!write(b"a mark"));
        assert!(write(b"a mark"));
        assert!(disk.flush());
        assert_eq!((disk.failed, disk.log.len()), (2, 4));
    }
}
