//! Recovery: from a folder of files to a log, and a report of everything that was found.
//!
//! ```text
//!   list ─► manifest ─► headers, footers ─► walk (frames) ─► verdict ─► acts ─► log, report
//! ```
//!
//! Up to the verdict nothing is changed. The acts are ordered so that a crash after any of them
//! leads the next recovery to the same log: what is newest goes first, and what is cut as damage is
//! copied and synced before it is cut. Whatever recovery shows has been synced before it is shown.
//!
//! [`arrange`] says which files are the log's, and [`verdict`] decides; what stands here only
//! fetches bytes and carries out.

mod act;
pub mod arrange;
mod footer;
mod known;
pub mod verdict;
mod walk;

use crate::batch::Buffer;
use crate::command::{Command, CommandId, Done, List, Listed, Operation, Outcome, Read};
use crate::config::{Config, RecoveryScan};
use crate::cursor;
use crate::error::{Failure, IoError, IoErrorKind};
use crate::id::{LogId, Lsn, Position, SegmentId, Time};
use crate::log::{ActiveSegment, Beginning, Log, SegmentInfo};
use crate::wire::frame::HEAD_BYTES_MAX;
use crate::wire::header::{HEADER_BYTES, Identity, Link};
use crate::wire::known::Known;
use crate::wire::manifest::{MANIFEST_BYTES, Manifest, ManifestState};
use crate::wire::name::{FileId, FileName};
use act::Acts;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use arrange::Files;
use core::fmt;
use footer::{FOOTER_LOOK_BYTES, Footer};
pub use known::{is_still, known};
use verdict::{Judged, Kept};
use walk::Walk;

/// What a recovery needs besides the folder.
#[derive(Debug)]
pub struct RecoveryStart<B> {
    /// The settings, [checked](Config::checked).
    pub config: Config,
    /// The identity to give the log if there is none yet. Random, so that no two logs share it.
    pub new_log_id: LogId,
    /// Where the salts of new segments come from. Random, and another at each opening.
    pub seed: u64,
    /// The time.
    pub now: Time,
    /// Memory for batches, at least two. The first is what recovery reads with.
    pub buffers: Vec<B>,
}

/// Whether recovery mends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Mend what is to be mended, and hand over a log to append to.
    Open,
    /// Change nothing: say what an open would find.
    Inspect,
}

/// What the bytes of a range are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeKind {
    /// Never written.
    Zeros,
    /// Written and never known durable: a write that a crash cut short.
    Torn,
    /// Of an earlier life: deleted or truncated records, files that were never finished.
    Stale,
    /// Was known durable, and is not what was written.
    Corrupt,
    /// Was known durable, and is gone.
    Missing,
    /// Good frames that follow a hole and cannot be kept without what stood in it.
    Orphaned,
}

impl fmt::Display for RangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zeros => "zeros",
            Self::Torn => "torn",
            Self::Stale => "stale",
            Self::Corrupt => "corrupt",
            Self::Missing => "missing",
            Self::Orphaned => "orphaned",
        })
    }
}

/// Bytes that are not part of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// What they are.
    pub kind: RangeKind,
    /// In which file.
    pub file: FileName,
    /// The first byte.
    pub start: u64,
    /// The byte past the last.
    pub end: u64,
    /// Where they were moved to.
    pub moved_to: Option<FileName>,
}

/// Damage to what had been durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where it begins.
    pub position: Position,
    /// The first record lost.
    pub first_lost: Lsn,
    /// The last record known to have been there.
    pub last_lost: Lsn,
    /// Up to here records were known durable.
    pub durable: Lsn,
    /// What says so.
    pub proof: Proof,
}

/// What says that records were durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// The watermark in the frame here.
    Frame(Position),
    /// The link in this segment's header.
    Link(SegmentId),
    /// The manifest.
    Manifest,
    /// The header of the segment itself, which is synced before the file gets its name.
    Header,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(at) => {
                write!(f, "the frame at {} of {}", at.offset, FileId::Segment(at.segment))
            }
            Self::Link(segment) => write!(f, "the link of {}", FileId::Segment(*segment)),
            Self::Manifest => f.write_str("the manifest"),
            Self::Header => f.write_str("the header, which was synced before it was named"),
        }
    }
}

/// What recovery found and did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The log.
    pub log: LogId,
    /// There was no log yet.
    pub is_new: bool,
    /// It had been closed, and nothing was amiss.
    pub was_clean: bool,
    /// The first record retained; one more than `last_lsn` when there is none.
    pub first_lsn: Lsn,
    /// The last record.
    pub last_lsn: Lsn,
    /// How many records the log holds.
    pub records: u64,
    /// How many segments the log has.
    pub segments: u64,
    /// How many segments were read to their end.
    pub segments_scanned: u64,
    /// How many bytes were read.
    pub bytes_read: u64,
    /// The frame that holds the last record, where it was read.
    pub last_frame: Option<Position>,
    /// Where the log's frames end.
    pub end: Position,
    /// Every range of bytes that is not kept.
    pub ranges: Vec<Range>,
    /// Damage to what had been durable, the first of it.
    pub damage: Option<Damage>,
    /// Names in the folder that are none of the log's. They are left alone.
    pub strays: Vec<String>,
}

impl Report {
    /// Whether anything that was durable is damaged or gone, be it records or the log's own facts.
    pub fn is_damaged(&self) -> bool {
        let is_damage =
            |range: &Range| matches!(range.kind, RangeKind::Corrupt | RangeKind::Missing);
        self.damage.is_some() || self.ranges.iter().any(is_damage)
    }

    /// How many bytes that held something were cut, copied away or not, or are holes that stay.
    pub fn bytes_cut(&self) -> u64 {
        let held = |range: &&Range| {
            !matches!(range.kind, RangeKind::Zeros | RangeKind::Stale | RangeKind::Missing)
        };
        self.ranges.iter().filter(held).map(|range| range.end - range.start).sum()
    }
}

/// Why a log cannot be opened. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecoveryError {
    /// An operation failed.
    Io(Failure),
    /// The manifest is of a newer format.
    NewerManifest(u16),
    /// A segment's header cannot be read by this build.
    Unreadable(FileName, crate::wire::header::HeaderError),
    /// A segment is not a regular file.
    NotAFile(FileName),
    /// A segment of another log.
    Foreign {
        /// Its file.
        file: FileName,
        /// The log that it is of.
        found: LogId,
        /// The log that it should be of.
        expected: LogId,
    },
    /// A file whose header names another segment: it was renamed, or copied.
    Misnamed {
        /// Its file.
        file: FileName,
        /// The segment that its header names.
        found: SegmentId,
    },
    /// A segment is missing.
    Missing(FileName),
    /// Damage, under the policy that refuses it.
    Damaged(alloc::boxed::Box<Report>),
    /// Fewer than two buffers were handed in.
    NoBuffers,
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(failure) => failure.fmt(f),
            Self::NewerManifest(version) => write!(
                f,
                "MANIFEST is of format version {version}, newer than this build reads: use a newer \
                 build"
            ),
            Self::Unreadable(file, error) => write!(f, "{file} {error}: use a newer build"),
            Self::NotAFile(file) => write!(f, "{file} is not a regular file: take it away"),
            Self::Foreign { file, found, expected } => write!(
                f,
                "{file} is of log {found}, not of this log, {expected}: move it back to where it \
                 belongs"
            ),
            Self::Misnamed { file, found } => write!(
                f,
                "the header of {file} names segment {found}: it was copied or renamed; give it \
                 back its name or take it away"
            ),
            Self::Missing(file) => write!(
                f,
                "{file} is missing: put it back, or open with the salvage policy to go on without \
                 its records"
            ),
            Self::Damaged(report) => match report.damage {
                Some(Damage { position, first_lost, durable, proof, .. }) => write!(
                    f,
                    "{} is damaged at offset {}: records from LSN {first_lost} were durable up to \
                     LSN {durable} ({proof} says so); open with the prefix or salvage policy, or \
                     restore the file",
                    FileId::Segment(position.segment),
                    position.offset
                ),
                None => f.write_str("the log is damaged"),
            },
            Self::NoBuffers => f.write_str("a log needs at least two buffers"),
        }
    }
}

impl core::error::Error for RecoveryError {}

/// A recovery under way.
#[derive(Debug)]
pub struct Recovery<B> {
    config: Config,
    mode: Mode,
    new_log_id: LogId,
    seed: u64,
    now: Time,
    buffers: Vec<B>,
    stage: Stage,
    acts: Acts<B>,
    pending: Option<(CommandId, Failure)>,
    next_command: u64,
    manifest: Option<Manifest>,
    files: Files,
    judged: Option<Judged>,
    read_whole: Vec<Known>,
    bytes_read: u64,
}

/// So much of a segment is read in short pieces: whoever has little to read touches little memory,
/// which costs more than what is read into it.
const EARLY_BYTES: u64 = 4 << 20;
/// Longer pieces make it no faster until a second thread of the host's reads them.
const EARLY_PIECE_BYTES: u64 = 64 << 10;

#[derive(Debug)]
enum Stage {
    List,
    Manifest,
    Header(usize),
    /// So many bytes of the footer of the segment before this one, whose link says where it is. The
    /// file of that one was read just now, and need not be opened again.
    FooterBefore(usize, Footer, u64),
    Walk(alloc::boxed::Box<Walk>),
    Act,
    Done,
    Failed(RecoveryError),
}

/// A log's segments as an inspection found them.
#[derive(Debug)]
pub struct View {
    /// The segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Where the log ends, and the last record.
    pub end: crate::id::Watermark,
}

impl<B: Buffer> Recovery<B> {
    /// A recovery that has seen nothing yet.
    pub fn new(start: RecoveryStart<B>, mode: Mode) -> Self {
        let RecoveryStart { config, new_log_id, seed, now, buffers } = start;
        let stage =
            if buffers.len() < 2 { Stage::Failed(RecoveryError::NoBuffers) } else { Stage::List };
        Self {
            config,
            mode,
            new_log_id,
            seed,
            now,
            buffers,
            stage,
            acts: Acts::new(Vec::new()),
            pending: None,
            next_command: 1,
            manifest: None,
            files: Files::default(),
            judged: None,
            read_whole: Vec::new(),
            bytes_read: 0,
        }
    }

    /// The next command. `None` while one is on its way, and when recovery has ended.
    pub fn poll_command(&mut self) -> Option<Command<B>> {
        if self.pending.is_some() {
            return None;
        }
        match &mut self.stage {
            Stage::List => {
                let id = self.issue(Operation::List, None);
                Some(Command::List(List { id }))
            }
            Stage::Manifest => self.read(FileId::Manifest.name(), 0, MANIFEST_BYTES),
            Stage::Header(index) => {
                let name = self.files.segments[*index].name();
                self.read(name, 0, HEADER_BYTES as u64)
            }
            Stage::FooterBefore(index, footer, bytes) => {
                let name = self.files.segments[*index - 1].name();
                let (offset, bytes) = (footer.end.offset, *bytes);
                self.read(name, offset, bytes)
            }
            Stage::Walk(walk) => {
                let (name, offset, bytes) = walk.wants()?;
                // Reads end at multiples of a piece, also where one begins with the head of a frame
                // that the last one had cut: a host can tell what comes next.
                let longest = if offset < EARLY_BYTES { EARLY_PIECE_BYTES } else { u64::MAX };
                let piece_bytes = self.config.batch_bytes.min(longest);
                let ended = (offset + HEAD_BYTES_MAX as u64) / piece_bytes * piece_bytes;
                self.read(name, offset, bytes.min(ended + piece_bytes - offset))
            }
            Stage::Act => self.poll_act(),
            Stage::Done | Stage::Failed(_) => None,
        }
    }

    /// Whether there is nothing more to do.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Failed(_))
    }

    fn read(&mut self, name: FileName, offset: u64, bytes: u64) -> Option<Command<B>> {
        let mut buffer = self.buffers.pop()?;
        buffer.resize(usize::try_from(bytes).unwrap_or(0));
        let id = self.issue(Operation::Read, Some(name));
        Some(Command::Read(Read { id, name, offset, buffer }))
    }

    fn issue(&mut self, operation: Operation, file: Option<FileName>) -> CommandId {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        let error = IoError::new(IoErrorKind::Other);
        self.pending = Some((id, Failure { operation, file, error }));
        id
    }

    /// Takes a command back. A completion that is not of the command on its way changes nothing.
    pub fn complete(&mut self, done: Done<B>) {
        let Some((id, mut failure)) = self.pending else { return };
        if id != done.id {
            return;
        }
        self.pending = None;
        let mut fail = |error| {
            failure.error = error;
            RecoveryError::Io(failure)
        };
        match done.outcome {
            Outcome::Listed(Ok(names)) => self.listed(&names),
            Outcome::Read(buffer, Ok(bytes)) => {
                let bytes = bytes.min(buffer.as_ref().len());
                self.bytes_read += bytes as u64;
                self.have_read(buffer, bytes);
            }
            Outcome::Plain(Ok(())) => self.acted(None),
            Outcome::Written(data, Ok(())) => self.acted(Some(data)),
            Outcome::Read(buffer, Err(error)) => {
                self.buffers.push(buffer);
                self.stage = Stage::Failed(fail(error));
            }
            Outcome::Written(data, Err(error)) => {
                if let crate::command::Data::Buffer(buffer) = data {
                    self.buffers.push(buffer);
                }
                self.stage = Stage::Failed(fail(error));
            }
            Outcome::Plain(Err(error)) | Outcome::Listed(Err(error)) => {
                self.stage = Stage::Failed(fail(error));
            }
        }
    }

    fn listed(&mut self, names: &[Listed]) {
        match Files::sort(names, self.config.scan) {
            Err(error) => self.stage = Stage::Failed(error),
            Ok(files) => {
                self.files = files;
                if self.files.has_manifest {
                    self.stage = Stage::Manifest;
                } else {
                    self.next_header(0);
                }
            }
        }
    }

    fn have_read(&mut self, buffer: B, bytes: usize) {
        let crc = self.config.crc;
        let wanted = buffer.as_ref().len();
        let content = &buffer.as_ref()[..bytes];
        let next = match &mut self.stage {
            Stage::Manifest => match Manifest::parse(content, crc) {
                ManifestState::Newer(version) => Err(RecoveryError::NewerManifest(version)),
                ManifestState::Whole(manifest) => {
                    self.manifest = Some(manifest);
                    Ok(Some(0))
                }
                ManifestState::Broken => Ok(Some(0)),
            },
            Stage::Header(index) => {
                let file = &mut self.files.segments[*index];
                file.header = Some(Identity::parse(content, crc));
                file.link = Link::parse(content, crc);
                let index = *index;
                Ok(if self.begin_footer(index) { None } else { Some(index + 1) })
            }
            Stage::FooterBefore(index, footer, looked) => match footer.look(content, crc) {
                cursor::Footer::Longer(needed) if needed > *looked => {
                    *looked = needed;
                    Ok(None)
                }
                state => {
                    let is_whole = matches!(state, cursor::Footer::Whole(_));
                    self.files.segments[*index - 1].vouched = is_whole.then_some(footer.end);
                    Ok(Some(*index + 1))
                }
            },
            Stage::Walk(walk) => {
                walk.feed(content, bytes < wanted);
                Ok(None)
            }
            Stage::Act => {
                self.acts.have_read(buffer, bytes);
                return;
            }
            Stage::List | Stage::Done | Stage::Failed(_) => Ok(None),
        };
        self.buffers.push(buffer);
        match next {
            Err(error) => self.stage = Stage::Failed(error),
            Ok(Some(index)) => self.next_header(index),
            Ok(None) => self.judge_if_walked(),
        }
    }

    /// Whether the footer of the segment before this one is to be read, as it is from now on.
    fn begin_footer(&mut self, index: usize) -> bool {
        if self.config.scan == RecoveryScan::Full {
            return false;
        }
        let Some(footer) = self.files.footer_to_read(index) else { return false };
        let bytes = footer.bytes_max.min(FOOTER_LOOK_BYTES);
        self.stage = Stage::FooterBefore(index, footer, bytes);
        true
    }

    fn next_header(&mut self, mut index: usize) {
        while index < self.files.segments.len() {
            if self.files.segments[index].header.is_none() {
                self.stage = Stage::Header(index);
                return;
            }
            if self.begin_footer(index) {
                return;
            }
            index += 1;
        }
        let manifest = self.files.manifest_or_rebuilt(self.manifest, self.new_log_id);
        match self.files.arrange(&manifest, self.config.recovery) {
            Err(error) => self.stage = Stage::Failed(error),
            Ok(arrangement) => {
                let walk = Walk::new(arrangement, manifest, &self.config);
                self.stage = Stage::Walk(alloc::boxed::Box::new(walk));
                self.judge_if_walked();
            }
        }
    }

    fn judge_if_walked(&mut self) {
        let walk = match core::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Walk(walk) if walk.is_over() => walk,
            stage => {
                self.stage = stage;
                return;
            }
        };
        self.read_whole = walk.read_whole();
        let is_rebuilt = self.manifest.is_none();
        let judged = walk.judge(&self.config, &self.files, is_rebuilt);
        let refuses = self.config.recovery == crate::config::RecoveryPolicy::Strict;
        if self.mode == Mode::Open && judged.report.is_damaged() && refuses {
            let report = alloc::boxed::Box::new(judged.report.clone());
            self.stage = Stage::Failed(RecoveryError::Damaged(report));
        } else if self.mode == Mode::Open {
            self.begin_acts(judged.acts.clone());
        }
        self.judged = Some(judged);
    }

    /// What is known now of segments that have ended and of which every frame was looked at, as it
    /// is done where a truncation has left no footer. A host may keep it, as what [`known`] gives.
    pub fn take_read_whole(&mut self) -> Vec<Known> {
        core::mem::take(&mut self.read_whole)
    }

    /// The log, ready for appends, and the report.
    ///
    /// # Errors
    /// Why the log cannot be opened. Nothing that was durable has been lost.
    pub fn finish(self) -> Result<(Log<B>, Report), RecoveryError> {
        let (judged, mut buffers) = match (self.stage, self.judged) {
            (Stage::Failed(error), _) => return Err(error),
            (Stage::Done, Some(judged)) => (judged, self.buffers),
            _ => return Err(RecoveryError::NoBuffers),
        };
        let keep_bytes = usize::try_from(self.config.batch_bytes).unwrap_or(usize::MAX);
        for buffer in &mut buffers {
            buffer.reset(keep_bytes);
        }
        let mut report = judged.report;
        report.bytes_read = self.bytes_read;
        let Kept { sealed, active, spare, next_segment, last_lsn, is_marked } = judged.kept;
        let log = Log::begin(Beginning {
            config: self.config,
            manifest: judged.manifest,
            seed: self.seed,
            now: self.now,
            sealed: sealed.into_iter().collect::<VecDeque<_>>(),
            active: active.map(|active| ActiveSegment {
                identity: active.identity,
                link: active.link,
                end: active.end,
                file_bytes: active.file_bytes,
                index: active.index,
            }),
            spare,
            next_segment,
            last_lsn,
            is_marked,
            buffers,
        });
        Ok((log, report))
    }

    /// What an inspection found.
    ///
    /// # Errors
    /// Why the log cannot be read at all.
    pub fn finish_inspection(self) -> Result<(View, Report), RecoveryError> {
        let judged = match (self.stage, self.judged) {
            (Stage::Failed(error), _) => return Err(error),
            (_, Some(judged)) => judged,
            _ => return Err(RecoveryError::NoBuffers),
        };
        let mut report = judged.report;
        report.bytes_read = self.bytes_read;
        let Kept { mut sealed, active, last_lsn, .. } = judged.kept;
        if let Some(active) = &active {
            sealed.push(active.info());
        }
        let end = crate::id::Watermark { lsn: last_lsn, end: report.end };
        Ok((View { segments: sealed, end }, report))
    }
}
