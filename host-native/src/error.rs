//! What can go wrong, told so that the reader knows which file, where, and what to do.

use seawall_core::compress::DecompressError;
use seawall_core::config::ConfigError;
use seawall_core::cursor::StartError;
use seawall_core::error::{AppendError, Failure, IoError, IoErrorKind, Poison, RequestError};
use seawall_core::id::{Lsn, Position};
use seawall_core::recover::RecoveryError;
use seawall_core::wire::frame::RecordError;
use seawall_core::wire::name::FileId;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Another process, or this one, has the log open for writing.
    Locked {
        /// The log's folder.
        dir: PathBuf,
    },
    /// There is no log here, and none was to be made.
    NotFound {
        /// The folder.
        dir: PathBuf,
    },
    /// A setting is out of its range.
    Config(ConfigError),
    /// A setting asks for what this build leaves out.
    NotBuilt {
        /// The setting.
        setting: &'static str,
        /// The feature of this crate that brings it.
        feature: &'static str,
    },
    /// The log cannot be opened; nothing was changed.
    Recovery {
        /// The log's folder.
        dir: PathBuf,
        /// Why.
        error: RecoveryError,
    },
    /// There is no room on the disk. The append left nothing behind; appends work again when there
    /// is.
    DiskFull(Failure),
    /// The next segment could not be made. The append left nothing behind; the next one tries
    /// again.
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
    /// A write or sync has failed. Nothing appended since is certain; open the log again to see
    /// what the disk holds.
    Poisoned(Poison),
    /// The log has been closed.
    Closed,
    /// This process was forked from the one that opened the log and still uses it.
    Forked,
    /// The records asked for have been deleted.
    Deleted {
        /// What was asked for; 0 if that was a position.
        lsn: Lsn,
        /// The first record that is left.
        first: Lsn,
    },
    /// The log does not reach so far.
    BeyondEnd {
        /// What was asked for.
        lsn: Lsn,
        /// The last record.
        last: Lsn,
    },
    /// The log has no such segment.
    NoSuchPosition {
        /// What was asked for.
        position: Position,
    },
    /// The log was truncated below where the reader was.
    Truncated {
        /// The last record that is left.
        last: Lsn,
    },
    /// What stands here is not what was written.
    Damaged {
        /// Where.
        position: Position,
        /// The record that should be there; 0 where a truncation met it.
        lsn: Lsn,
    },
    /// A frame is longer than this reader takes.
    FrameTooLong {
        /// Where.
        position: Position,
        /// Its length in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// A record in a good frame cannot be read. The reader goes on after it.
    Unreadable {
        /// Its frame.
        position: Position,
        /// Why.
        error: RecordError,
    },
    /// A compressed value cannot be unpacked. The reader goes on after it.
    Decompress {
        /// The record.
        position: Position,
        /// Why.
        error: DecompressError,
    },
    /// A truncation, deletion or close could not be recorded; nothing was changed.
    Failed(Failure),
    /// An operation on a file or folder failed.
    Io {
        /// What was being done, and to what.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { dir } => write!(
                f,
                "the log in {} is open for writing elsewhere: close it there, or open it read-only",
                dir.display()
            ),
            Self::NotFound { dir } => write!(f, "there is no log in {}", dir.display()),
            Self::Config(error) => error.fmt(f),
            Self::NotBuilt { setting, feature } => write!(
                f,
                "{setting} is set, which needs the feature `{feature}`: build the crate seawall \
                 with it, or do not set {setting}"
            ),
            Self::Recovery { dir, error: error @ RecoveryError::Io(failure) } => {
                write!(f, "in {}: {}", dir.display(), in_words(error, failure))
            }
            Self::Recovery { dir, error } => write!(f, "in {}: {error}", dir.display()),
            Self::DiskFull(failure) => AppendError::DiskFull(*failure).fmt(f),
            Self::NoSegment(failure) => in_words(&AppendError::NoSegment(*failure), failure).fmt(f),
            Self::TooLarge { bytes, limit_bytes } => {
                AppendError::TooLarge { bytes: *bytes, limit_bytes: *limit_bytes }.fmt(f)
            }
            Self::EmptyBatch => AppendError::EmptyBatch.fmt(f),
            Self::Poisoned(poison) => in_words(poison, &poison.0).fmt(f),
            Self::Closed => f.write_str("the log has been closed"),
            Self::Forked => f.write_str(
                "the log was opened before this process was forked: it belongs to the process that \
                 opened it; open a log after the fork, in the process that is to write it",
            ),
            Self::Deleted { lsn: Lsn::ZERO, first } => write!(
                f,
                "what was at this position has been deleted: the first record of the log is LSN \
                 {first}"
            ),
            Self::Deleted { lsn, first } => {
                RequestError::Deleted { lsn: *lsn, first: *first }.fmt(f)
            }
            Self::BeyondEnd { lsn, last } => {
                RequestError::BeyondEnd { lsn: *lsn, last: *last }.fmt(f)
            }
            Self::NoSuchPosition { position } => {
                write!(f, "the log has no segment {}", position.segment)
            }
            Self::Truncated { last } => {
                write!(f, "the log was truncated after LSN {last}, before where this reader was")
            }
            Self::Damaged { position, lsn: Lsn::ZERO } => write!(
                f,
                "{} does not hold what was written: nothing was changed; run `seawall verify`, \
                 then `seawall verify --repair`",
                Place(position)
            ),
            Self::Damaged { position, lsn } => write!(
                f,
                "{} does not hold LSN {lsn} as it was written: run `seawall verify`, then \
                 `seawall verify --repair`, or open with the salvage policy to read past it",
                Place(position)
            ),
            Self::FrameTooLong { position, bytes, limit_bytes } => write!(
                f,
                "the frame at {} is {bytes} bytes long, over the limit of {limit_bytes}: raise \
                 max_record_size to read it",
                Place(position)
            ),
            Self::Unreadable { position, error } => write!(f, "at {}: {error}", Place(position)),
            Self::Decompress { position, error } => write!(f, "at {}: {error}", Place(position)),
            Self::Failed(failure) => in_words(&RequestError::Failed(*failure), failure).fmt(f),
            Self::Io { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

/// What the core says of a failure. It knows the system's number for it, and not what that means.
fn in_words(said: &dyn fmt::Display, failure: &Failure) -> String {
    let said = said.to_string();
    match failure.error {
        error @ IoError { kind: IoErrorKind::Other, os_code: Some(code) } => {
            let system = io::Error::from_raw_os_error(code);
            let mut words = system.to_string();
            if system.kind() == io::ErrorKind::FileTooLarge {
                words += ", which the file system or a limit of the process forbids: set a smaller \
                          max_segment_size";
            }
            said.replacen(&error.to_string(), &words, 1)
        }
        _ => said,
    }
}

/// A position as a file and an offset.
struct Place<'a>(&'a Position);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} offset {}", FileId::Segment(self.0.segment), self.0.offset)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Recovery { error, .. } => Some(error),
            Self::Config(error) => Some(error),
            Self::Poisoned(poison) => Some(poison),
            Self::DiskFull(failure) | Self::NoSegment(failure) | Self::Failed(failure) => {
                Some(failure)
            }
            Self::Unreadable { error, .. } => Some(error),
            Self::Decompress { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }

    pub(crate) fn from_start(error: StartError) -> Self {
        match error {
            StartError::Deleted { lsn, first } => Self::Deleted { lsn, first },
            StartError::BeyondEnd { lsn, last } => Self::BeyondEnd { lsn, last },
            StartError::NoSuchPosition(position) => Self::NoSuchPosition { position },
        }
    }

    /// An append's refusal. `None` means to wait and try again.
    pub(crate) fn from_append(error: AppendError) -> Option<Self> {
        Some(match error {
            AppendError::Busy => return None,
            AppendError::DiskFull(failure) => Self::DiskFull(failure),
            AppendError::NoSegment(failure) => Self::NoSegment(failure),
            AppendError::TooLarge { bytes, limit_bytes } => Self::TooLarge { bytes, limit_bytes },
            AppendError::EmptyBatch => Self::EmptyBatch,
            AppendError::Poisoned(poison) => Self::Poisoned(poison),
            AppendError::Closed => Self::Closed,
        })
    }

    /// A request's refusal or failure. `None` means to wait and try again.
    pub(crate) fn from_request(error: RequestError) -> Option<Self> {
        Some(match error {
            RequestError::Busy => return None,
            RequestError::BeyondEnd { lsn, last } => Self::BeyondEnd { lsn, last },
            RequestError::Deleted { lsn, first } => Self::Deleted { lsn, first },
            RequestError::Damaged { segment, offset } => {
                Self::Damaged { position: Position::new(segment, offset), lsn: Lsn::ZERO }
            }
            RequestError::Failed(failure) => Self::Failed(failure),
            RequestError::DiskFull(failure) => Self::DiskFull(failure),
            RequestError::Poisoned(poison) => Self::Poisoned(poison),
            RequestError::Closed => Self::Closed,
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use seawall_core::command::Operation;

    #[test]
    fn what_the_system_means_by_its_number_is_told() {
        let failure = |kind, code| {
            let error = IoError { kind, os_code: Some(code) };
            Failure { operation: Operation::Create, file: Some(FileId::Manifest.new_name()), error }
        };
        let no_file = failure(IoErrorKind::Other, libc::EMFILE);
        // C libraries have words of their own.
        let words = io::Error::from_raw_os_error(libc::EMFILE).to_string();
        assert!(words.ends_with(" (os error 24)"), "{words}");
        let cause = format!("create of MANIFEST.new failed: {words}");
        let recovery = || Error::Recovery { dir: "wal".into(), error: RecoveryError::Io(no_file) };
        for error in [
            Error::NoSegment(no_file),
            Error::Poisoned(Poison(no_file)),
            Error::Failed(no_file),
            recovery(),
        ] {
            assert!(error.to_string().contains(&cause), "{error}");
        }
        let too_long = Error::Poisoned(Poison(failure(IoErrorKind::Other, libc::EFBIG)));
        assert!(too_long.to_string().contains("set a smaller max_segment_size"), "{too_long}");
        let full = Error::Failed(failure(IoErrorKind::NoSpace, libc::ENOSPC)).to_string();
        assert!(
            full.contains("create of MANIFEST.new failed: no space left (os error 28)"),
            "{full}"
        );
    }
}
