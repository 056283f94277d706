//! What can go wrong, and whose it is: the caller's (refused arguments), the host's (I/O) or the
//! bytes' (damage, which [`crate::recover`] describes).

use crate::command::Operation;
use crate::id::{Lsn, SegmentId};
use crate::wire::name::FileName;
use core::fmt;

/// Why an operation of the host failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoError {
    /// What the machine needs to know of it.
    pub kind: IoErrorKind,
    /// The operating system's number for it, if it has one.
    pub os_code: Option<i32>,
}

/// Failures that the machine tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoErrorKind {
    /// No room: the disk, the quota or the folder is full.
    NoSpace,
    /// There is no such file.
    NotFound,
    /// Anything else.
    Other,
}

impl IoError {
    /// A failure of this kind without a number.
    pub const fn new(kind: IoErrorKind) -> Self {
        Self { kind, os_code: None }
    }

    /// Whether the reason is want of room.
    pub fn is_no_space(&self) -> bool {
        self.kind == IoErrorKind::NoSpace
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            IoErrorKind::NoSpace => "no space left",
            IoErrorKind::NotFound => "no such file",
            IoErrorKind::Other => "I/O error",
        })?;
        match self.os_code {
            Some(code) => write!(f, " (os error {code})"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for IoError {}

/// A failed operation: what was tried, where, and why it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What was tried.
    pub operation: Operation,
    /// On which file; `None` for a folder.
    pub file: Option<FileName>,
    /// Why it failed.
    pub error: IoError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, file, error } = self;
        match file {
            Some(file) => write!(f, "{operation} of {file} failed: {error}"),
            None => write!(f, "{operation} failed: {error}"),
        }
    }
}

impl core::error::Error for Failure {}

/// The first failure after which nothing more can be promised. It stays: every later call returns
/// it.
///
/// A write or a sync that failed may have left pages that the kernel shows and the disk does not
/// have, and a later sync would report success. Reopening the log reads what the disk holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Poison(pub Failure);

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the log is poisoned: {}; nothing appended since is certain: open it again",
            self.0
        )
    }
}

impl core::error::Error for Poison {}

/// Why an append was refused. Nothing of the append stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendError {
    /// All buffers are full, the next segment is not ready, or a truncation runs: run commands and
    /// try again. A host turns this into waiting; its callers never see it.
    Busy,
    /// There is no room on the disk. Appends work again when there is.
    DiskFull(Failure),
    /// The next segment could not be made, for another reason than a full disk. The next append
    /// tries again.
    NoSegment(Failure),
    /// The record or batch is over a limit.
    TooLarge {
        /// Its length in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// A batch without records.
    EmptyBatch,
    /// A write or sync has failed earlier.
    Poisoned(Poison),
    /// The log has been closed.
    Closed,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the log is busy: run its commands and try again"),
            Self::DiskFull(failure) => {
                write!(
                    f,
                    "disk full: {failure}; the append left nothing behind, make room and retry"
                )
            }
            Self::NoSegment(failure) => {
                write!(
                    f,
                    "the next segment could not be made: {failure}; the append left nothing behind"
                )
            }
            Self::TooLarge { bytes, limit_bytes } => write!(
                f,
                "{bytes} bytes are over the limit of {limit_bytes} for a record or a batch: split \
                 it, or raise the record limit and the segment size"
            ),
            Self::EmptyBatch => f.write_str("a batch needs at least one record"),
            Self::Poisoned(poison) => poison.fmt(f),
            Self::Closed => f.write_str("the log has been closed"),
        }
    }
}

impl core::error::Error for AppendError {}

/// Why a request to delete, truncate or close was refused or failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestError {
    /// Another request runs. One at a time.
    Busy,
    /// The log does not reach so far.
    BeyondEnd {
        /// What was asked for.
        lsn: Lsn,
        /// The last record.
        last: Lsn,
    },
    /// Records that far back have been deleted.
    Deleted {
        /// What was asked for.
        lsn: Lsn,
        /// The first record that is left.
        first: Lsn,
    },
    /// The frames that the request needs to read are damaged; nothing was changed.
    Damaged {
        /// In which segment.
        segment: SegmentId,
        /// Where.
        offset: u64,
    },
    /// It could not be recorded; nothing was changed.
    Failed(Failure),
    /// There was no room for what had been appended and not written: that is undone, and the
    /// request with it. The log goes on as it is.
    DiskFull(Failure),
    /// A write or sync has failed.
    Poisoned(Poison),
    /// The log has been closed.
    Closed,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("another request to delete, truncate or close is running"),
            Self::BeyondEnd { lsn, last } => {
                write!(f, "LSN {lsn} is past the end of the log, which is LSN {last}")
            }
            Self::Deleted { lsn, first } => {
                write!(f, "LSN {lsn} has been deleted: the first record of the log is LSN {first}")
            }
            Self::Damaged { segment, offset } => write!(
                f,
                "{} is damaged at offset {offset}; nothing was changed: verify the log",
                crate::wire::name::FileId::Segment(*segment)
            ),
            Self::Failed(failure) => write!(f, "{failure}; nothing was changed"),
            Self::DiskFull(failure) => write!(
                f,
                "disk full: {failure}; what had not been written is undone, make room and ask again"
            ),
            Self::Poisoned(poison) => poison.fmt(f),
            Self::Closed => f.write_str("the log has been closed"),
        }
    }
}

impl core::error::Error for RequestError {}
