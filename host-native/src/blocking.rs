//! The log for threads: every call returns when it is done.
//!
//! ```
//! use seawall::{Record, WalConfig, blocking::Wal};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! let (wal, recovery) = Wal::open(WalConfig::in_dir(dir.path()))?;
//! assert!(!recovery.corruption_detected);
//! let position = wal.append(&Record::put(b"user:42", b"alice@example.com"))?;
//! let mut reader = wal.read_from(position)?;
//! let (record, _) = reader.next_record()?.expect("it was just appended");
//! assert_eq!(&record.value[..], b"alice@example.com");
//! wal.close()?;
//! # Ok::<(), seawall::Error>(())
//! ```

use crate::commit::{Ask, Engine, Handle};
use crate::config::WalConfig;
use crate::dir::Dir;
use crate::error::Error;
use crate::inspect;
use crate::prefetch::Prefetch;
use crate::reader::{Advance, Entry, Folder, Reading, Source, Visibility};
use crate::{RecoveryInfo, Stats, prepare};
use seawall_core::config::Level;
use seawall_core::cursor::Start;
use seawall_core::id::{Lsn, Position};
use seawall_core::log::Appended;
use seawall_core::record::Record;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A log that is open for appending. Clones are the same log; it may be used from many threads.
///
/// Close it with [`Wal::close`]. When the last clone is dropped without, what was appended is
/// written, and synced unless the policy is [`Os`](crate::FsyncPolicy::Os), but the log has no
/// clean end. The drop waits for that, and for the log's threads; an error has nobody to go to, but
/// a [`Meter`](crate::Meter). A poisoned log cannot be closed: drop all clones to open it again.
#[derive(Clone)]
pub struct Wal {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").field("dir", &self.config().dir).finish_non_exhaustive()
    }
}

impl Wal {
    /// Opens the log in `config.dir`, recovers it, and makes it first where there is none.
    ///
    /// # Errors
    /// When it is open for writing elsewhere, a setting is out of range, or it cannot be recovered.
    /// Nothing that the log held has been changed then.
    pub fn open(config: WalConfig) -> Result<(Self, RecoveryInfo), Error> {
        // Before the folder is made.
        config.to_core()?;
        let dir = open_dir(&config)?;
        Self::open_dir(dir, config)
    }

    /// Opens the log in a folder that was handed over; `config.dir` only names it in messages.
    /// Nothing outside that folder is touched.
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn open_in(
        folder: cap_std::fs::Dir,
        config: WalConfig,
    ) -> Result<(Self, RecoveryInfo), Error> {
        Self::open_dir(Dir::from_cap_std(folder), config)
    }

    fn open_dir(dir: Dir, config: WalConfig) -> Result<(Self, RecoveryInfo), Error> {
        if !config.create && !dir.holds_log().map_err(Error::io("list the log's folder"))? {
            return Err(Error::NotFound { dir: config.dir });
        }
        let (handle, info) = Engine::open(dir, config)?;
        Ok((Self { handle: Arc::new(handle) }, info))
    }

    /// Opens the log in `config.dir` to read. It changes nothing there, and may be done while
    /// another process writes: see [`ReadOnly`].
    ///
    /// # Errors
    /// When there is no log, or it cannot be read.
    pub fn open_read_only(config: WalConfig) -> Result<(ReadOnly, RecoveryInfo), Error> {
        inspect::open_folder(config).map(|(folder, info)| (ReadOnly { folder }, info))
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        self.handle.engine()
    }

    /// Appends a record, and returns when it has reached the level of the policy: by default
    /// [`Level::Os`], where the end of the process does not touch it, but a loss of power within
    /// the next 5 ms may. Returns where the record begins; [`Wal::append_with`] has its LSN as
    /// well.
    ///
    /// # Errors
    /// When the record is over a limit; when the disk is full or the next segment cannot be made
    /// (nothing of the append stays then); when the log is closed, poisoned, or another process's.
    pub fn append(&self, record: &Record<'_>) -> Result<Position, Error> {
        let level = self.config().fsync_policy.level();
        self.append_with(record, level).map(|appended| appended.position)
    }

    /// Appends a record, and returns when it has reached `level`.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn append_with(&self, record: &Record<'_>, level: Level) -> Result<Appended, Error> {
        self.append_batch_with(std::slice::from_ref(record), level)
    }

    /// Appends records as one: after a crash all of them are there or none.
    ///
    /// # Errors
    /// As [`Wal::append`], and when there is no record.
    pub fn append_batch(&self, records: &[Record<'_>]) -> Result<Appended, Error> {
        self.append_batch_with(records, self.config().fsync_policy.level())
    }

    /// Appends records as one, and returns when they have reached `level`.
    ///
    /// # Errors
    /// As [`Wal::append_batch`].
    pub fn append_batch_with(
        &self,
        records: &[Record<'_>],
        level: Level,
    ) -> Result<Appended, Error> {
        prepare(self.config(), records, |entries| self.engine().append_and_block(entries, level))
    }

    /// Returns when the kernel has everything appended before.
    ///
    /// # Errors
    /// When the log is closed or poisoned, or the disk is full and what was buffered has been
    /// undone.
    pub fn flush(&self) -> Result<(), Error> {
        self.engine().flush_and_block(Level::Os)
    }

    /// Returns when everything appended before is durable.
    ///
    /// # Errors
    /// As [`Wal::flush`].
    pub fn sync(&self) -> Result<(), Error> {
        self.engine().flush_and_block(Level::Disk)
    }

    /// Returns when the record `lsn` and all before it are durable. If they are not, a sync sets
    /// out at once, whatever the policy, and takes along everything appended so far. To be told
    /// without that, use [`Meter`](crate::Meter) or a reader.
    ///
    /// # Errors
    /// When there is no such record yet, or, of one that is not durable, as [`Wal::flush`].
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), Error> {
        self.engine().wait_durable(lsn)?.block()
    }

    /// A reader that begins at a record, by its LSN or position. What was appended before this call
    /// is made durable first, so that a reader sees its own thread's writes.
    ///
    /// A poisoned or closed log can still be read, up to what was durable before.
    ///
    /// # Errors
    /// When the log does not reach so far, or no longer does; when the disk is full and what was
    /// buffered has been undone; when a file cannot be read.
    pub fn read_from(&self, from: impl Into<Start>) -> Result<Reader, Error> {
        self.read_from_with(from, Visibility::Durable)
    }

    /// A reader that is shown what `visibility` says.
    ///
    /// # Errors
    /// As [`Wal::read_from`].
    pub fn read_from_with(
        &self,
        from: impl Into<Start>,
        visibility: Visibility,
    ) -> Result<Reader, Error> {
        let level = match visibility {
            Visibility::Durable => Level::Disk,
            Visibility::Written => Level::Os,
        };
        match self.engine().flush_and_block(level) {
            // What was durable before can still be read.
            Ok(()) | Err(Error::Poisoned(_) | Error::Closed) => {}
            Err(error) => return Err(error),
        }
        let source = Source::Live(self.engine().clone());
        Reader::new(source, from.into(), visibility)
    }

    /// A reader that begins at the first record.
    ///
    /// # Errors
    /// As [`Wal::read_from`].
    pub fn iter(&self) -> Result<Reader, Error> {
        self.read_from(Start::First)
    }

    /// Where the next record will begin, if no rotation comes between.
    ///
    /// Not for a process that was forked off the one with the log open: there it may wait for ever.
    pub fn current_position(&self) -> Position {
        self.engine().appended().end
    }

    /// Deletes all segments whose records come before a record, and returns how many they were. The
    /// segment that is being written stays.
    ///
    /// It waits until the files are gone: ext4 took 0.08 to 0.16 s for one of 128 MiB, 0.3 ms with
    /// `recycle_segments` (docs/PERFORMANCE.md). Appends of other threads go on meanwhile.
    ///
    /// # Errors
    /// When it could not be recorded, or the log is closed or poisoned.
    pub fn delete_segments_before(&self, before: impl Into<Start>) -> Result<u64, Error> {
        let (lsn, had) = self.engine().before_deletion(before.into())?;
        self.ask(Ask::DeleteBefore(lsn))?;
        Ok(self.engine().gone(&had))
    }

    /// Takes all records after `lsn` off the log; the next append gets `lsn + 1`. Durable when it
    /// returns.
    ///
    /// # Errors
    /// When `lsn` is past the end or has been deleted, it could not be recorded, or the log is
    /// closed or poisoned.
    pub fn truncate_after(&self, lsn: Lsn) -> Result<(), Error> {
        self.ask(Ask::TruncateAfter(lsn))
    }

    /// Ends the segment being written, if it holds records.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn rotate(&self) -> Result<(), Error> {
        while let Some(wait) = self.engine().rotate()? {
            wait.block()?;
        }
        Ok(())
    }

    /// Makes everything durable and marks a clean end. From now on appends, syncs and requests of
    /// other clones return [`Error::Closed`]; readers go on with what there is. The log may be
    /// opened again at once.
    ///
    /// # Errors
    /// When the log is closed already or poisoned, or the end could not be recorded. When the disk
    /// is full what was buffered has been undone, and the log stays open: close it again.
    pub fn close(&self) -> Result<(), Error> {
        self.ask(Ask::Close)?;
        self.join();
        Ok(())
    }

    /// Waits until the threads of a closed log have ended, and with them the lock.
    pub(crate) fn join(&self) {
        self.handle.join();
    }

    fn ask(&self, ask: Ask) -> Result<(), Error> {
        loop {
            match self.engine().ask(ask)? {
                Ok(wait) => return wait.block(),
                Err(other) => other.block()?,
            }
        }
    }

    /// The settings that the log was opened with.
    pub fn config(&self) -> &WalConfig {
        &self.engine().config
    }

    /// The first record that is retained; the one to come when there is none.
    ///
    /// Not for a process that was forked off the one with the log open: there it may wait for ever.
    pub fn first_lsn(&self) -> Lsn {
        self.engine().extent().0
    }

    /// The last record appended; one less than the first when there is none.
    ///
    /// Not for a process that was forked off the one with the log open: there it may wait for ever.
    pub fn last_lsn(&self) -> Lsn {
        self.engine().extent().1
    }

    /// The last record that the device has.
    ///
    /// Not for a process that was forked off the one with the log open: there it may wait for ever.
    pub fn durable_lsn(&self) -> Lsn {
        self.engine().durable().lsn
    }

    /// Figures about the log at this moment, all of its segments among them.
    ///
    /// Not for a process that was forked off the one with the log open: there it may wait for ever.
    pub fn stats(&self) -> Stats {
        self.engine().stats()
    }
}

pub(crate) fn open_dir(config: &WalConfig) -> Result<Dir, Error> {
    Dir::open_path(&config.dir, config.create).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return Error::NotFound { dir: config.dir.clone() };
        }
        Error::Io { what: format!("open the folder {}", config.dir.display()), error }
    })
}

/// Reads records in order. As an iterator it gives what [`Reader::next_record`] does.
///
/// ```
/// # let temp = tempfile::tempdir().unwrap();
/// # let (wal, _) = seawall::blocking::Wal::open(seawall::WalConfig::in_dir(temp.path()))?;
/// # wal.append(&seawall::Record::put(b"user:42", b"alice@example.com"))?;
/// for found in wal.iter()? {
///     let (record, position) = found?;
///     println!("{position}: {:?} is {:?}", record.key, record.value);
/// }
/// # Ok::<(), seawall::Error>(())
/// ```
pub struct Reader {
    reading: Reading,
    prefetch: Prefetch,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("next_lsn", &self.reading.next_lsn()).finish_non_exhaustive()
    }
}

impl Reader {
    fn new(source: Source, from: Start, visibility: Visibility) -> Result<Self, Error> {
        let prefetch = Prefetch::new(source.config().prefetch);
        Ok(Self { reading: Reading::new(source, from, visibility)?, prefetch })
    }

    /// The next record and where it begins. `None`: there is no more for now; a later call may find
    /// what has been appended since.
    ///
    /// # Errors
    /// When the record has been deleted or truncated, or cannot be read. After an error about one
    /// record the next call goes on behind it; after damage, see [`Reader::skip_damage`].
    pub fn next_record(&mut self) -> Result<Option<(Entry, Position)>, Error> {
        loop {
            match self.reading.advance()? {
                Advance::Record(entry, position) => return Ok(Some((entry, position))),
                Advance::End => return Ok(None),
                Advance::Read(job) => self.reading.provide(self.prefetch.run(job)?),
            }
        }
    }

    /// The next record, waited for if there is none yet: for `timeout` at most, or for as long as
    /// the log is open. `None`: neither has brought one.
    ///
    /// A reader of a [`ReadOnly`] log never waits, since nothing tells it of another process's
    /// appends: it returns what [`Reader::next_record`] would.
    ///
    /// # Errors
    /// As [`Reader::next_record`], and [`Error::Poisoned`] where no more will come.
    pub fn wait_record(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<Option<(Entry, Position)>, Error> {
        // A timeout that no clock reaches is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(found) = self.next_record()? {
                return Ok(Some(found));
            }
            let Source::Live(engine) = self.reading.source() else { return Ok(None) };
            let last = self.reading.waits_behind();
            let Some(wait) = engine.follow(last, self.reading.visibility())? else {
                match self.next_record()? {
                    None if !self.reading.is_of_open_log() => return Ok(None),
                    None => continue,
                    found => return Ok(found),
                }
            };
            self.reading.rest();
            self.prefetch.rest();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match left {
                None => wait.block()?,
                Some(left) => match wait.block_for(left) {
                    Some(result) => result?,
                    None => return Ok(None),
                },
            }
        }
    }

    /// Goes to another record, by its LSN or position; it comes next. Faster than a new reader:
    /// files, mappings and indexes stay at hand, and by its position a record is read without what
    /// stands before it. Unlike [`Wal::read_from`] it makes nothing durable first.
    ///
    /// # Errors
    /// When the log does not reach so far, or no longer does; the reader stays where it was then.
    /// When the segment cannot be opened or read.
    pub fn seek(&mut self, to: impl Into<Start>) -> Result<(), Error> {
        self.reading.seek(to.into())
    }

    /// After [`Error::Damaged`]: goes on with the next good frame.
    pub fn skip_damage(&mut self) {
        self.reading.skip_damage();
    }

    /// The LSN of the record that comes next. Of a record that was asked for by its position this
    /// is known once it has been read; until then it is the first of its segment.
    pub fn next_lsn(&self) -> Lsn {
        self.reading.next_lsn()
    }

    /// Takes note of what [`ReadOnly::refresh`] has found.
    ///
    /// # Errors
    /// When the record that comes next has been deleted or truncated.
    pub fn renew(&mut self) -> Result<(), Error> {
        self.reading.renew()
    }
}

/// Ends where there is no more for now, and may then be asked again.
impl Iterator for Reader {
    type Item = Result<(Entry, Position), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}

/// A log that is open to read. Nothing in its folder is changed, and a writer beside it is not
/// blocked.
///
/// What it shows has been synced before by this process, so that no crash takes it back. It shows
/// the log as it was when it was opened or last refreshed.
#[derive(Clone)]
pub struct ReadOnly {
    folder: Arc<Folder>,
}

impl std::fmt::Debug for ReadOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadOnly").field("dir", &self.folder.config.dir).finish_non_exhaustive()
    }
}

impl ReadOnly {
    pub(crate) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// A reader that begins at a record, by its LSN or position.
    ///
    /// # Errors
    /// When the log does not reach so far, or no longer does.
    pub fn read_from(&self, from: impl Into<Start>) -> Result<Reader, Error> {
        let source = Source::Folder(self.folder.clone());
        Reader::new(source, from.into(), Visibility::Durable)
    }

    /// A reader that begins at the first record.
    ///
    /// # Errors
    /// As [`ReadOnly::read_from`].
    pub fn iter(&self) -> Result<Reader, Error> {
        self.read_from(Start::First)
    }

    /// Looks what a writer has done since, and says whether there is more. Readers take note of it
    /// with [`Reader::renew`].
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn refresh(&self) -> Result<bool, Error> {
        inspect::refresh(&self.folder)
    }

    /// Figures about the log as it was last seen. Counters of a writer are zero.
    pub fn stats(&self) -> Stats {
        inspect::stats(&self.folder)
    }
}
