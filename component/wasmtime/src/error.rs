//! Why a call failed.

use crate::types;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a call failed. Of an append, every case but [`Error::Unknown`] and a poisoned log means that
/// nothing of it is in the log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The log says no.
    Log(types::Error),
    /// The component trapped while the call was under way. What was appended may or may not be in
    /// the log, which has been recovered since or will be before the next call, unless it had been
    /// closed or poisoned: read its end.
    Unknown(Arc<str>),
    /// The component trapped before, and the log cannot be opened again, or it could not be
    /// started. The next call tries once more, unless the folder holds another log by now.
    Down(Arc<str>),
    /// Somebody else writes the log in this folder: this process or another, native or not.
    Locked(PathBuf),
    /// The folder, or the lock in it, could not be made or opened.
    Folder(PathBuf, Arc<io::Error>),
    /// No component, not this log's, made for another engine, or it asks for more than a folder,
    /// the time and random numbers.
    Program(Arc<str>),
    /// The log was let go before the call came to its turn. Nothing was done.
    Stopped,
}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        Self::Log(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => write!(f, "{}", Told(error)),
            Self::Unknown(why) => write!(
                f,
                "the component failed while the call was under way, so that it is not known what \
                 came of it; read the end of the log: {why}"
            ),
            Self::Down(why) => write!(f, "the log could not be opened after a failure: {why}"),
            Self::Locked(path) => write!(
                f,
                "{}: somebody else writes this log; it is free when that process ends",
                path.display()
            ),
            Self::Folder(path, why) => write!(f, "{}: {why}", path.display()),
            Self::Program(why) => write!(f, "this is no component of the log: {why}"),
            Self::Stopped => f.write_str("the log was let go before the call came to its turn"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Folder(_, why) => Some(why),
            _ => None,
        }
    }
}

/// What the log said, in words.
struct Told<'a>(&'a types::Error);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use types::Error as E;
        match self.0 {
            E::Invalid(what) | E::TooLarge(what) => write!(
                f,
                "{} is {}, and must be from {} to {}",
                what.name, what.value, what.min, what.max
            ),
            E::MalformedBatch => f.write_str("the batch's lengths, groups or attributes are wrong"),
            E::EmptyBatch => f.write_str("a batch without records"),
            E::DiskFull(why) => write!(f, "the disk is full: {}; make room", Failed(why)),
            E::NoSegment(why) => {
                write!(f, "the next segment cannot be made: {}; append again", Failed(why))
            }
            E::Poisoned(why) => write!(
                f,
                "{}; what was not acknowledged may or may not be there: open the log again",
                Failed(why)
            ),
            E::Closed => f.write_str("the log is closed"),
            E::BeyondEnd(last) => write!(f, "the last record is {last}"),
            E::Deleted(first) => write!(f, "the first record that is left is {first}"),
            E::Truncated(last) => write!(f, "the log was truncated after record {last}"),
            E::NoSuchPosition(at) => write!(f, "no segment holds {}", Place(*at)),
            E::Damaged(at) => {
                write!(f, "{} is not what was written; go on by skip_damage", Place(*at))
            }
            E::Unreadable(at) => write!(f, "the record at {} cannot be unpacked", Place(*at)),
            E::Folder(why) => write!(f, "the folder: {why}"),
            E::Locked(owner) => write!(f, "{owner} owns the log; if it is gone, take it over"),
            E::DirectorySyncRefused => f.write_str(
                "names in the folder cannot be made durable here; set requires_directory_sync to \
                 false to do without",
            ),
            E::DamagedLog(None) => f.write_str("the log is damaged, and the policy is strict"),
            E::DamagedLog(Some(damage)) => write!(
                f,
                "the log is damaged at {}: records {} to {} are lost ({}); open it with \
                 prefix-valid or salvage",
                Place(damage.position),
                damage.first_lost,
                damage.last_lost,
                damage.proof
            ),
            E::MissingSegment(file) => {
                write!(f, "{file} is missing: put it back, or open with salvage")
            }
            E::ForeignSegment(file) => write!(f, "{file} is of another log: move it away"),
            E::UnreadableFile(file) => {
                write!(f, "{file} is of a newer format, or no regular file")
            }
            E::Io(why) => write!(f, "{}", Failed(why)),
            E::Other(why) => f.write_str(why.as_deref().unwrap_or("the log gives no reason")),
        }
    }
}

struct Place(types::Position);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}, byte {}", self.0.segment, self.0.offset)
    }
}

struct Failed<'a>(&'a types::Failure);

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types::Failure { operation, file, cause, code } = self.0;
        let file = file.as_deref().unwrap_or("the folder");
        write!(f, "{file}: {operation:?} failed: {}", code.as_deref().unwrap_or_default())?;
        match cause {
            types::Cause::NoSpace => f.write_str(" (no space)"),
            types::Cause::NotFound => f.write_str(" (not found)"),
            types::Cause::Other => Ok(()),
        }
    }
}
