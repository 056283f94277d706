//! Looking at a log without opening it for writing: nothing in its folder is changed.

use crate::Zstd;
use crate::ahead;
use crate::catalog::Catalog;
use crate::commit::open_recovery;
use crate::config::WalConfig;
use crate::dir::{Access, Dir};
use crate::error::Error;
use crate::execute::Executor;
use crate::reader::{Entry, Folder, Source, VALUE_BYTES_MAX, entry_of, position_of};
use crate::visited::Visited;
use crate::{RecoveryInfo, SegmentStat, Stats, sys};
use bytes::Bytes;
use seawall_core::command::Listed;
use seawall_core::compress::Decompressor;
use seawall_core::config::{RecoveryPolicy, RecoveryScan};
use seawall_core::id::{LogId, Lsn, Position, SegmentId, Watermark};
use seawall_core::recover::{Mode, View};
use seawall_core::scan::{Found, Hole, ScanStart, SegmentScan};
pub use seawall_core::wire::frame::FrameKind;
use seawall_core::wire::frame::HEAD_BYTES_MAX;
use seawall_core::wire::header::{FRAMES_OFFSET, HEADER_BYTES, Identity, Link, LinkState};
use seawall_core::wire::is_zero;
use seawall_core::wire::manifest::MANIFEST_BYTES;
use seawall_core::wire::name::{FileId, FileName};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often a look at a log is begun again that a writer changed under it.
const TRIES: u32 = 8;

/// Says what opening the log would find, and reads all of it for that. Changes nothing.
///
/// # Errors
/// When there is no log, or it cannot be read at all.
pub fn check(config: &WalConfig) -> Result<RecoveryInfo, Error> {
    let config = WalConfig { scan: RecoveryScan::Full, ..config.clone() };
    open_folder(config).map(|(_, info)| info)
}

/// Opens a folder to read.
pub(crate) fn open_folder(config: WalConfig) -> Result<(Arc<Folder>, RecoveryInfo), Error> {
    let config = WalConfig { create: false, ..config };
    let dir = crate::blocking::open_dir(&config)?;
    if !dir.holds_log().map_err(Error::io("list the log's folder"))? {
        return Err(Error::NotFound { dir: config.dir });
    }
    let executor = Executor::new(dir, true, &config);
    let (view, mut info) = inspect(&executor, &config)?;
    let last = view.end.lsn;
    // Only who looks again needs signs, and has them from then on.
    let seen = Mutex::new(Seen { view, signs: None, behind: Vec::new(), last: None });
    let (visited, look) = (Visited::default(), Mutex::new(()));
    let forks = sys::forks();
    let folder = Arc::new(Folder { config, forks, executor, seen, visited, look });
    if info.valid_records > 0 {
        let source = Source::Folder(folder.clone());
        info.last_valid_position = position_of(source, last, info.report.last_frame)?;
    }
    Ok((folder, info))
}

/// Looks at all of a log, and syncs what grew last so that no crash takes back what is shown.
fn inspect(executor: &Executor, config: &WalConfig) -> Result<(View, RecoveryInfo), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        // A writer may delete segments while we look: what is missing then is not there next time.
        executor.forget_all();
        let mut recovery = open_recovery(config, Mode::Inspect)?;
        ahead::run(&mut recovery, executor, config);
        match recovery.finish_inspection() {
            Ok((view, report)) => {
                sync_newest(executor, &view)?;
                return Ok((view, RecoveryInfo::from(report)));
            }
            Err(_) if tries < TRIES => {}
            Err(error) => return Err(Error::Recovery { dir: config.dir.clone(), error }),
        }
    }
}

/// Makes durable what grew last, so that what is shown is not taken back.
fn sync_newest(executor: &Executor, view: &View) -> Result<(), Error> {
    for info in view.segments.iter().rev().take(2) {
        let name = FileId::Segment(info.segment);
        let synced = executor.open_for_reading(info.segment).and_then(|file| sync_shown(&file));
        synced.map_err(Error::io(format!("sync {name} before it is shown")))?;
    }
    Ok(())
}

fn sync_shown(file: &File) -> io::Result<()> {
    if cfg!(not(unix)) {
        // A file that is open to read cannot be synced there: what a writer beside us has not
        // synced yet is shown all the same.
        return Ok(());
    }
    match sys::sync_data(file) {
        // Nobody writes here, and nothing can be synced; unless the file system has turned
        // read-only with something to write left, which it never will.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            if sys::is_clean(file) == Some(false) { Err(error) } else { Ok(()) }
        }
        synced => synced,
    }
}

/// Looks whether the log has grown. Whoever follows one does that often: where all that happened is
/// that frames came behind the last one, only those are read.
pub(crate) fn refresh(folder: &Folder) -> Result<bool, Error> {
    folder.refuse_forked()?;
    let _alone = folder.look.lock().unwrap_or_else(PoisonError::into_inner);
    // Before anything is read: what changes meanwhile shows the next time.
    let signs = Signs::of(folder.executor.dir());
    if signs.is_some()
        && signs == folder.seen().signs
        && let Some(has_grown) = grow(folder)
    {
        return Ok(has_grown);
    }
    let config = WalConfig { scan: RecoveryScan::Tail, ..folder.config.clone() };
    let (view, info) = inspect(&folder.executor, &config)?;
    let end = view.end.end;
    let file = folder.executor.open_anew(end.segment, Access::Read).ok();
    let behind = file.as_ref().and_then(|file| read_head(file, end.offset, u64::MAX));
    let last = info.report.last_frame.filter(|last| last.segment == end.segment);
    let last =
        file.zip(last).and_then(|(file, last)| LastFrame::of(&file, last.offset, end.offset));
    let now = Seen { view, signs, behind: behind.unwrap_or_default(), last };
    let mut seen = folder.seen();
    let was = std::mem::replace(&mut *seen, now).view;
    folder.visited.keep_only(seen.view.segments.iter().copied());
    Ok(was.end != seen.view.end || was.segments != seen.view.segments)
}

/// A log as it was last looked at.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) view: View,
    signs: Option<Signs>,
    /// What stood behind the last frame.
    behind: Vec<u8>,
    /// The last frame, if it is known. A full disk may undo what a writer was just writing.
    last: Option<LastFrame>,
}

/// A frame's head, which its checksum is in.
#[derive(Clone, PartialEq, Eq, Debug)]
struct LastFrame {
    offset: u64,
    head: Vec<u8>,
}

impl LastFrame {
    fn of(file: &File, offset: u64, end: u64) -> Option<Self> {
        Some(Self { offset, head: read_head(file, offset, end)? })
    }
}

/// As much as shows that a frame begins, and which, up to `end` at most.
fn read_head(file: &File, offset: u64, end: u64) -> Option<Vec<u8>> {
    let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; HEAD_BYTES_MAX.min(left)];
    let read = sys::read_at(file, &mut bytes, offset).ok()?;
    bytes.truncate(read);
    Some(bytes)
}

/// What changes whenever a writer does more than append to the segment that it is in.
#[derive(PartialEq, Eq, Debug)]
struct Signs {
    names: Vec<Listed>,
    manifest: Vec<u8>,
}

impl Signs {
    /// `None`: nothing can be told by them.
    fn of(dir: &Dir) -> Option<Self> {
        let names = dir.names().ok()?;
        let file = dir.open(FileId::Manifest.name(), Access::Read).ok()?;
        let mut manifest = vec![0; usize::try_from(MANIFEST_BYTES).ok()?];
        let read = sys::read_at(&file, &mut manifest, 0).ok()?;
        manifest.truncate(read);
        Some(Self { names, manifest })
    }
}

/// The first read of a look at what has come; most is less.
const GROWTH_READ_BYTES: usize = 16 << 10;

/// Goes on from the last frame that was seen, and says whether there are more. `None`: nothing can
/// be said by that.
fn grow(folder: &Folder) -> Option<bool> {
    let (last, end, was_behind, last_frame) = {
        let seen = folder.seen();
        let Seen { view, behind, last, .. } = &*seen;
        (*view.segments.last()?, view.end, behind.clone(), last.clone())
    };
    // Behind the end of one that has ended, by a truncation maybe, nothing is the log's.
    if last.end.is_some() || end.end.segment != last.segment {
        return None;
    }
    let (file, identity, _) = open_segment(folder.executor.dir(), last.segment).ok()?;
    if identity.salt != last.salt {
        return None;
    }
    let is_there = |frame: &LastFrame| {
        LastFrame::of(&file, frame.offset, end.end.offset).as_ref() == Some(frame)
    };
    if !last_frame.as_ref().is_none_or(is_there) {
        return None;
    }
    let behind = read_head(&file, end.end.offset, u64::MAX)?;
    let is_same = behind == was_behind;
    if is_same && is_zero(&behind) {
        return Some(false);
    }
    let mut scan = SegmentScan::new(ScanStart {
        segment: last.segment,
        salt: last.salt,
        checksum: last.checksum,
        earlier: None,
        crc: sys::fastest_crc32c(),
        offset: end.end.offset,
        lsn: end.lsn.next(),
        limit: file.metadata().ok()?.len(),
        last_lsn: None,
    });
    let mut piece_bytes = GROWTH_READ_BYTES;
    let mut bytes = Vec::new();
    let mut newest = None;
    while let Some((from, _)) = scan.wants().filter(|_| !scan.is_searching()) {
        bytes.resize(piece_bytes, 0);
        let read = sys::read_at(&file, &mut bytes, from).ok()?;
        scan.feed(&bytes[..read], |found| newest = Some(found.offset));
        if read < bytes.len() {
            scan.ends_at(from + read as u64);
        }
        piece_bytes = usize::try_from(folder.config.read_size).ok()?;
    }
    let report = scan.into_report();
    if report.seal_offset.is_some() {
        return None;
    }
    if report.end == end.end.offset {
        // A write may be under way, or have been cut off by a crash: the one is whole the next
        // time, the other is the same. Behind a hole only a look at everything finds more.
        let is_final = is_same && folder.config.recovery != RecoveryPolicy::Salvage;
        return is_final.then_some(false);
    }
    sync_shown(&file).ok()?;
    let behind = read_head(&file, report.end, u64::MAX)?;
    let newest = newest.and_then(|offset| LastFrame::of(&file, offset, report.end));
    let end = Position::new(last.segment, report.end);
    let mut seen = folder.seen();
    (seen.behind, seen.last) = (behind, newest);
    seen.view.end = Watermark { lsn: report.next_lsn.previous(), end };
    Some(true)
}

pub(crate) fn stats(folder: &Folder) -> Stats {
    let log = folder.log_id();
    let seen = folder.seen();
    let view = &seen.view;
    let mut segments: Vec<SegmentStat> =
        view.segments.iter().copied().map(SegmentStat::from).collect();
    if let Some(active) = segments.last_mut().filter(|segment| !segment.is_sealed) {
        active.last_lsn = view.end.lsn;
        active.bytes = view.end.end.offset;
    }
    let first = view.segments.first().map(|info| info.first_lsn);
    Stats {
        log,
        first_lsn: first.unwrap_or(view.end.lsn.next()),
        last_lsn: view.end.lsn,
        written_lsn: view.end.lsn,
        durable_lsn: view.end.lsn,
        end: view.end.end,
        segments,
        appends: 0,
        records: 0,
        bytes_appended: 0,
        writes: 0,
        syncs: 0,
        sync_time: Duration::ZERO,
    }
}

impl Folder {
    /// The log's identity, from its newest segment; zeros where there is none yet.
    fn log_id(&self) -> LogId {
        let newest = self.seen().view.segments.last().map(|info| info.segment);
        let opened = newest.and_then(|segment| open_segment(self.executor.dir(), segment).ok());
        opened.map(|(_, identity, _)| identity.log).unwrap_or_default()
    }
}

/// Opens a segment's file and reads its header.
fn open_segment(dir: &Dir, segment: SegmentId) -> Result<(File, Identity, LinkState), Error> {
    let name = FileId::Segment(segment).name();
    let failed = |error| Error::Io { what: format!("read {name}"), error };
    let file = dir.open(name, Access::Read).map_err(failed)?;
    let mut bytes = [0; HEADER_BYTES];
    let read = sys::read_at(&file, &mut bytes, 0).map_err(failed)?;
    let crc = sys::fastest_crc32c();
    let identity = Identity::parse(&bytes[..read], crc).map_err(|error| {
        let what = format!("{name} {error}: run `seawall verify`");
        Error::Io { what, error: io::ErrorKind::InvalidData.into() }
    })?;
    Ok((file, identity, Link::parse(&bytes[..read], crc)))
}

/// A frame of a segment.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The segment.
    pub segment: SegmentId,
    /// Where the frame begins in its file.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// What it is.
    pub kind: FrameKind,
    /// The LSN of its first record, or of the next record where it has none.
    pub first_lsn: Lsn,
    /// How many records it holds.
    pub records: u64,
    /// What was known durable when it was written; `None` where it makes no claim.
    pub durable: Option<Lsn>,
    /// Its records. One in a form that this build does not know is left out: see
    /// [`Frame::records`].
    pub entries: Vec<(Entry, Position)>,
}

/// Every good frame of every segment of a log, in order. A segment that cannot be opened is an
/// error, and so is a frame with a value that cannot be unpacked; the next call goes on behind it.
#[derive(Debug)]
pub struct Frames {
    dir: Dir,
    left: std::vec::IntoIter<(SegmentId, u64)>,
    current: Option<Segment>,
    next_lsn: Lsn,
    decompressor: Decompressor<Zstd>,
    gaps: Vec<(SegmentId, Hole)>,
}

/// A segment whose frames have been found.
#[derive(Debug)]
struct Segment {
    segment: SegmentId,
    bytes: Bytes,
    frames: std::vec::IntoIter<Found>,
}

/// The frames of a log, good files and bad. One segment at a time is held in memory.
///
/// # Errors
/// When there is no log.
pub fn frames(config: &WalConfig) -> Result<Frames, Error> {
    let config = WalConfig { create: false, ..config.clone() };
    let dir = crate::blocking::open_dir(&config)?;
    let names = dir.list(&mut Catalog::default()).map_err(Error::io("list the log's folder"))?;
    let segments = names.iter().filter_map(|listed| {
        let name = FileName::parse(&listed.name, false)?;
        match (name.file, listed.bytes) {
            (FileId::Segment(segment), Some(bytes)) if !name.is_new => Some((segment, bytes)),
            _ => None,
        }
    });
    let mut left: Vec<_> = segments.collect();
    if left.is_empty() && !dir.holds_log().map_err(Error::io("list the log's folder"))? {
        return Err(Error::NotFound { dir: config.dir });
    }
    left.sort_unstable();
    Ok(Frames {
        dir,
        left: left.into_iter(),
        current: None,
        next_lsn: Lsn::FIRST,
        decompressor: Decompressor::default(),
        gaps: Vec::new(),
    })
}

impl Frames {
    /// The bytes passed over so far that are no frame, by segment.
    pub fn gaps(&self) -> &[(SegmentId, Hole)] {
        &self.gaps
    }

    fn open(&mut self, segment: SegmentId, length: u64) -> Result<Segment, Error> {
        let (file, identity, link) = open_segment(&self.dir, segment)?;
        if let LinkState::Written(link) = link {
            self.next_lsn = link.first_lsn;
        }
        let name = FileId::Segment(segment).name();
        let failed = |error| Error::Io { what: format!("read {name}"), error };
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = sys::read_at(&file, &mut bytes, 0).map_err(failed)?;
        bytes.truncate(read);
        let mut scan = SegmentScan::new(ScanStart {
            segment,
            salt: identity.salt,
            checksum: identity.checksum,
            earlier: identity.earlier,
            crc: sys::fastest_crc32c(),
            offset: FRAMES_OFFSET,
            lsn: self.next_lsn,
            limit: bytes.len() as u64,
            last_lsn: None,
        });
        let mut found = Vec::new();
        while let Some((from, _)) = scan.wants() {
            let rest = usize::try_from(from).ok().and_then(|from| bytes.get(from..));
            scan.feed(rest.unwrap_or_default(), |frame| found.push(*frame));
        }
        let report = scan.into_report();
        self.next_lsn = report.last_next_lsn;
        self.gaps.extend(report.holes.iter().map(|hole| (segment, *hole)));
        Ok(Segment { segment, bytes: bytes.into(), frames: found.into_iter() })
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(current) = &mut self.current
                && let Some(found) = current.frames.next()
            {
                return Some(current.frame(&found, &mut self.decompressor));
            }
            let (segment, length) = self.left.next()?;
            match self.open(segment, length) {
                Ok(opened) => self.current = Some(opened),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Segment {
    fn frame(&self, found: &Found, decompressor: &mut Decompressor<Zstd>) -> Result<Frame, Error> {
        let Found { offset, lsn, head } = *found;
        let range = |at| usize::try_from(at).unwrap_or(usize::MAX).min(self.bytes.len());
        let frame = self.bytes.slice(range(offset)..range(found.end()));
        let position = Position::new(self.segment, offset);
        let mut entries = Vec::new();
        for record in head.records(&frame, lsn, position).flatten() {
            let at = record.position;
            entries.push((entry_of(&record, &frame, decompressor, VALUE_BYTES_MAX)?, at));
        }
        Ok(Frame {
            segment: self.segment,
            offset,
            bytes: head.frame_bytes,
            kind: head.kind,
            first_lsn: lsn,
            records: head.count,
            durable: head.durable(lsn),
            entries,
        })
    }
}
