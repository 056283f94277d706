//! What a log must do to take part.
//!
//! To add one: a file in `contestants/` with the two traits, and a line in `contestants::all`. It
//! says what it cannot do and why, and is left out of those rows, with that reason in the table.

use crate::row::Pack;
use seawall::Level;
use std::error::Error;
use std::path::Path;
use std::pin::Pin;

/// A result, whatever may go wrong in whichever log.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Is shown a record that was read: its beginning and the rest, as they lie in memory.
pub type Seen<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

/// Something that a row needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ability {
    /// An append that returns when the record is in the process's memory.
    Buffered,
    /// An append that returns when the kernel has the record.
    Os,
    /// An append that returns when the device has the record.
    Disk,
    /// Appends of which each says which of these two it asks for.
    Mixed,
    /// Many records with one call and one sync.
    Batch,
    /// Such appends, while old segments are deleted.
    Delete,
    /// Finding its records again after the process has ended.
    Reopen,
    /// Reading all records in order, apart from opening.
    Read,
    /// Reading a record by its number.
    Seek,
    /// Segments of a given size.
    Segments,
    /// Compressing values as it appends.
    Compress,
}

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How many threads will append.
    pub writers: usize,
    /// How long its segments are.
    pub segments: Segments,
    /// How values are stored.
    pub pack: Pack,
    /// Whether tasks will append.
    pub tasks: bool,
    /// What appends will ask for: some logs fix that when they open.
    pub level: Level,
    /// Whether old segments will be deleted.
    pub deletes: bool,
    /// Whether what is appended will be read back.
    pub reads: bool,
}

/// How long a log's segments are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Segments {
    /// As a user gets them.
    #[default]
    Default,
    /// One holds so many bytes of records, and there will be no second.
    One(u64),
    /// So many bytes.
    Bytes(u64),
}

impl Segments {
    /// In bytes, given the log's own default.
    #[must_use]
    pub fn bytes_or(self, default: u64) -> u64 {
        match self {
            Self::Default => default,
            // What a log adds to each record, a kilobyte long or so, fits as well.
            Self::One(bytes) => bytes + bytes / 4 + (1 << 20),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// A log that takes part.
pub trait Contestant: Send + Sync {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// `Err` with the reason: it is left out of rows that need this.
    ///
    /// # Errors
    /// When it cannot.
    fn can(&self, ability: Ability) -> Result<(), &'static str>;

    /// What its most durable append does.
    fn durable(&self) -> &'static str;

    /// What it looks at when it opens after a crash.
    fn opening(&self) -> &'static str;

    /// Opens the log in a folder, and makes it first where there is none.
    ///
    /// # Errors
    /// Whatever the log says.
    fn open(&self, dir: &Path, setup: &Setup) -> Outcome<Box<dyn Log>>;
}

/// An append under way.
pub type Appending<'a> = Pin<Box<dyn Future<Output = Outcome<()>> + Send + 'a>>;

/// An open log.
pub trait Log: Send + Sync {
    /// Appends a record for one of the writers, and returns when it has reached the level.
    ///
    /// # Errors
    /// Whatever the log says.
    fn append(&self, writer: usize, record: &[u8], level: Level) -> Outcome<()>;

    /// Appends records with one call, or what comes nearest, and returns when all have reached the
    /// level.
    ///
    /// # Errors
    /// Whatever the log says.
    fn append_batch(&self, writer: usize, records: &[&[u8]], level: Level) -> Outcome<()> {
        let (last, rest) = records.split_last().ok_or("an empty batch")?;
        let before = if level == Level::Disk { Level::Os } else { level };
        rest.iter().try_for_each(|record| self.append(writer, record, before))?;
        self.append(writer, last, level)
    }

    /// Lets go of all that is older than what was appended last, as far as it can.
    ///
    /// # Errors
    /// Whatever the log says.
    fn delete_old(&self) -> Outcome<()> {
        Ok(())
    }

    /// An append for a task; `None`: it blocks, and one to the device runs on a blocking thread.
    fn append_task<'a>(&'a self, _record: &'a [u8], _level: Level) -> Option<Appending<'a>> {
        None
    }

    /// Returns when the kernel has everything.
    ///
    /// # Errors
    /// Whatever the log says.
    fn flush(&self) -> Outcome<()> {
        Ok(())
    }

    /// How many syncs there were, if it counts them.
    fn syncs(&self) -> Option<u64> {
        None
    }

    /// How many bytes of keys and values it stored, if it counts them.
    fn stored_bytes(&self) -> Option<u64> {
        None
    }

    /// Shows all records, and returns how many they are.
    ///
    /// # Errors
    /// Whatever the log says.
    fn read_all(&self, see: Seen<'_>) -> Outcome<u64>;

    /// Prepares for seeking, if it has to, and returns how many records there are.
    ///
    /// # Errors
    /// Whatever the log says.
    fn index(&mut self) -> Outcome<u64> {
        self.read_all(&mut |_, _| {})
    }

    /// Reads the record with this number, from 0, and returns its length.
    ///
    /// # Errors
    /// Whatever the log says.
    fn seek(&self, number: u64) -> Outcome<usize>;

    /// Ends the log as it wants to be ended.
    ///
    /// # Errors
    /// Whatever the log says.
    fn close(self: Box<Self>) -> Outcome<()>;
}
