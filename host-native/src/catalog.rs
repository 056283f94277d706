//! The catalog: what was found of sealed segments, kept in a file beside them, so that an opening
//! reads nothing of those whose files are as they were.
//!
//! Whether one is, its stamp says: the file's number, its length, and when its content and what the
//! file system says of it changed last. Whoever writes to a file, puts another in its place, or
//! copies the folder changes that, and the segment is read again.
//!
//! It is no part of the log. Nobody syncs it; whoever loses or spoils it pays with one opening that
//! reads all headers and footers. Entries are of one length, each with its checksum:
//!
//! ```text
//!  offset  bytes
//!       0    128  the segment's header
//!     128      8  where its frames end
//!     136      8  the LSN after its last
//!     144     32  the stamp
//!     176      4  CRC32C of bytes 0 to 175
//! ```
//!
//! Those of segments that have gone are left out when they have become many.

use crate::dir::{Access, Dir};
use crate::reader::index_of;
use crate::sys;
use cap_std::fs::Metadata;
use seawall_core::batch::Buffer;
use seawall_core::command::Listed;
use seawall_core::id::SegmentId;
use seawall_core::log::{Log, SegmentInfo};
use seawall_core::recover::{is_still, known};
use seawall_core::wire::header::HEADER_BYTES;
use seawall_core::wire::known::{KNOWN_BYTES, Known};
use seawall_core::wire::name::{FileId, FileName};
use std::fs::File;
use std::io;

const STAMP_AT: usize = KNOWN_BYTES;
const CHECKSUM_AT: usize = STAMP_AT + STAMP_BYTES;
const ENTRY_BYTES: usize = CHECKSUM_AT + 4;

/// A longer file is none of ours, or of more segments than anybody has.
const CATALOG_BYTES_MAX: u64 = 64 << 20;

/// So many segments are looked at in a row.
const SEGMENTS_MAX: usize = 64;

/// What a file system says of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp([u8; STAMP_BYTES]);

const STAMP_BYTES: usize = 32;

impl Stamp {
    /// `None`: nothing that would change with the file is known of it.
    #[cfg(unix)]
    pub(crate) fn of(metadata: &Metadata) -> Option<Self> {
        use cap_std::fs::MetadataExt as _;
        let nanoseconds = |seconds: i64, rest: i64| {
            seconds.wrapping_mul(1_000_000_000).wrapping_add(rest).cast_unsigned()
        };
        let changed = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
        let modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
        let mut bytes = [0; STAMP_BYTES];
        let numbers = [metadata.ino(), metadata.len(), modified, changed];
        for (place, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *place = number.to_le_bytes();
        }
        (metadata.ino() != 0 && changed != 0).then_some(Self(bytes))
    }

    /// The platform tells no file from another.
    #[cfg(not(unix))]
    pub(crate) fn of(_metadata: &Metadata) -> Option<Self> {
        None
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    known: Known,
    stamp: Stamp,
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let crc = sys::fastest_crc32c();
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..STAMP_AT].copy_from_slice(&self.known.encode(crc));
        bytes[STAMP_AT..CHECKSUM_AT].copy_from_slice(&self.stamp.0);
        let checksum = crc(0, &bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let (content, checksum) = bytes.split_last_chunk()?;
        let (known, stamp) = content.split_first_chunk()?;
        let crc = sys::fastest_crc32c();
        if crc(0, content) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let known = Known::parse(known, crc)?;
        Some(Self { known, stamp: Stamp(*stamp.first_chunk()?) })
    }
}

/// What the file says.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// By segment.
    entries: Vec<Entry>,
    /// How many entries the file has, good or not.
    in_file: usize,
    /// The stamps of the segments that there are.
    stamps: Vec<(SegmentId, Stamp)>,
}

impl Catalog {
    /// Reads the file. Where there is none, or it cannot be read, nothing is known.
    pub(crate) fn read(dir: &Dir) -> Self {
        let Ok(file) = dir.open_catalog(Access::Read) else { return Self::default() };
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let mut content = match usize::try_from(bytes) {
            Ok(bytes_there) if bytes <= CATALOG_BYTES_MAX => vec![0; bytes_there],
            _ => return Self { in_file: usize::MAX, ..Self::default() },
        };
        let read = sys::read_at(&file, &mut content, 0).unwrap_or(0);
        let (entries, _) = content[..read].as_chunks();
        let (in_file, stamps) = (entries.len(), Vec::new());
        let mut entries: Vec<_> = entries.iter().filter_map(Entry::parse).collect();
        entries.sort_by_key(|entry| entry.known.segment());
        Self { entries, in_file, stamps }
    }

    /// What is known of a segment's file that has this stamp.
    pub(crate) fn known(&mut self, name: &str, stamp: Option<Stamp>) -> Option<Box<Known>> {
        let name = FileName::parse(name, false).filter(|name| name.is_segment())?;
        let (FileId::Segment(segment), Some(stamp)) = (name.file, stamp) else { return None };
        self.stamps.push((segment, stamp));
        // What was noted last: the log may end the segment elsewhere than it did.
        let entry = self.of(segment).filter(|entry| entry.stamp == stamp).last()?;
        Some(Box::new(entry.known))
    }

    /// The entries of a segment: there are several if its file has changed.
    fn of(&self, segment: SegmentId) -> impl Iterator<Item = &Entry> {
        let first = self.entries.partition_point(|entry| entry.known.segment() < segment);
        self.entries[first..].iter().take_while(move |entry| entry.known.segment() == segment)
    }
}

/// Keeps the catalog while a log is open.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// How many entries the file has, good or not.
    in_file: usize,
    /// What was known when the log was opened, by segment,
    known: Vec<Known>,
    /// the stamps of all segments that there were,
    stamps: Vec<(SegmentId, Stamp)>,
    /// and those of them that were read to their end.
    read_whole: Vec<Known>,
    /// The last segment that was looked at.
    seen: SegmentId,
    has_failed: bool,
}

/// Segments to look at.
#[derive(Debug)]
pub(crate) struct Due {
    segments: Vec<SegmentInfo>,
    /// The log's first segment and its last.
    first: SegmentId,
    newest: SegmentId,
}

impl Due {
    pub(crate) const fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    fn last(&self) -> SegmentId {
        self.segments.last().map_or(SegmentId::NONE, |info| info.segment)
    }
}

impl Keeper {
    /// After a look at the folder by which `names` were found.
    pub(crate) fn new(catalog: Catalog, names: &[Listed]) -> Self {
        let mut known: Vec<_> =
            names.iter().filter_map(|listed| listed.known.as_deref().copied()).collect();
        known.sort_by_key(Known::segment);
        let Catalog { in_file, stamps, .. } = catalog;
        Self { in_file, known, stamps, ..Self::default() }
    }

    /// Opening the log has read these segments to their end.
    pub(crate) fn have_read(&mut self, read_whole: Vec<Known>) {
        self.read_whole = read_whole;
    }

    fn is_noted(&self, info: &SegmentInfo) -> bool {
        let at = self.known.binary_search_by_key(&info.segment, Known::segment);
        at.is_ok_and(|at| is_still(&self.known[at], info))
    }

    /// What a segment's file held that was read to its end. It had this stamp before.
    fn whole(&self, info: &SegmentInfo) -> Option<Entry> {
        let known = *self.read_whole.iter().find(|known| is_still(known, info))?;
        let (_, stamp) = *self.stamps.iter().find(|(of, _)| *of == info.segment)?;
        Some(Entry { known, stamp })
    }

    /// Segments to look at next.
    pub(crate) fn due<B: Buffer>(&self, log: &Log<B>) -> Due {
        let room = if self.has_failed { 0 } else { SEGMENTS_MAX };
        let segments = log.sealed_after(self.seen).take(room).collect();
        let first = log.segments().next().map_or(SegmentId::NONE, |info| info.segment);
        Due { segments, first, newest: log.newest_segment() }
    }

    /// Looks at segments and notes what is found.
    ///
    /// # Errors
    /// When it cannot be noted. No more is tried then.
    pub(crate) fn look_at(&mut self, dir: &Dir, due: &Due) -> io::Result<()> {
        let found: Vec<Entry> = due
            .segments
            .iter()
            .filter(|info| !self.is_noted(info))
            // What cannot be read now a recovery reads, and tells.
            .filter_map(|info| look(dir, info).ok().flatten().or_else(|| self.whole(info)))
            .collect();
        self.seen = due.last();
        let noted = self.note(dir, &found, due);
        self.has_failed = noted.is_err();
        if due.segments.len() < SEGMENTS_MAX {
            // Those that there were have been passed.
            (self.known, self.stamps, self.read_whole) = Default::default();
        }
        noted
    }

    fn note(&mut self, dir: &Dir, found: &[Entry], due: &Due) -> io::Result<()> {
        let segments = due.newest.get().saturating_sub(due.first.get());
        let is_long = self.in_file as u64 > segments.saturating_mul(2) + SEGMENTS_MAX as u64;
        if found.is_empty() && !is_long {
            return Ok(());
        }
        let file = dir.open_catalog(Access::ReadWrite)?;
        if is_long {
            let mut kept = Catalog::read(dir).entries;
            kept.retain(|entry| entry.known.segment() >= due.first);
            // Of each what was noted last.
            kept.reverse();
            kept.dedup_by_key(|entry| entry.known.segment());
            kept.reverse();
            file.set_len(0)?;
            append(&file, &kept)?;
            self.in_file = kept.len();
        }
        self.in_file += found.len();
        append(&file, found)
    }
}

/// Writes entries behind those that there are. If the last is not all there it goes.
fn append(file: &File, entries: &[Entry]) -> io::Result<()> {
    let end = file.metadata()?.len() / ENTRY_BYTES as u64 * ENTRY_BYTES as u64;
    let bytes: Vec<u8> = entries.iter().flat_map(Entry::encode).collect();
    sys::write_all_at(file, &bytes, end)
}

/// Reads what a recovery would. `None`: that is not as it should be.
fn look(dir: &Dir, info: &SegmentInfo) -> io::Result<Option<Entry>> {
    let file = dir.open(FileId::Segment(info.segment).name(), Access::Read)?;
    // Before what it holds: if that changes meanwhile, so does the stamp.
    let Some(stamp) = Stamp::of(&Metadata::from_file(&file)?) else { return Ok(None) };
    if index_of(&file, info)?.is_none() {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES];
    sys::read_at(&file, &mut header, 0)?;
    let known = known(info, &header, sys::fastest_crc32c());
    Ok(known.map(|known| Entry { known, stamp }))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::blocking::Wal;
    use crate::{Record, WalConfig};
    use std::time::SystemTime;

    #[test]
    fn what_is_known_is_of_one_file_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(WalConfig::in_dir(temp.path())).unwrap();
        for _ in 0..3 {
            wal.append(&Record::put(b"key", b"value")).unwrap();
            wal.rotate().unwrap();
        }
        drop(wal);
        let dir = Dir::open_path(temp.path(), false).unwrap();
        let mut catalog = Catalog::read(&dir);
        let name = |number| FileId::Segment(SegmentId::new(number)).to_string();
        let stamp = |number| {
            let file = File::open(temp.path().join(name(number))).unwrap();
            Stamp::of(&Metadata::from_file(&file).unwrap())
        };
        let mut known = |number| catalog.known(&name(number), stamp(number));
        for number in 1..=3 {
            assert_eq!(known(number).unwrap().segment(), SegmentId::new(number));
        }
        assert_eq!(known(4), None, "it has not ended");
        let file = File::options().write(true).open(temp.path().join(name(2))).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(known(2), None, "it was touched");
        let old = file.metadata().unwrap().len();
        file.set_len(old + 1).unwrap();
        file.set_len(old).unwrap();
        assert_eq!(known(2), None, "nothing brings it back");
        assert!(known(1).is_some() && known(3).is_some());
        assert_eq!(catalog.known(&name(1), stamp(2)), None);
        assert_eq!(catalog.known(&name(1), None), None);
        assert_eq!(catalog.known("MANIFEST", stamp(1)), None);
    }
}
