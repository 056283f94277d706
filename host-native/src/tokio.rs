//! The log for tasks: the same names as [`crate::blocking`], each to be awaited.

use crate::commit::{Admitted, Ask, Engine};
use crate::config::WalConfig;
use crate::error::Error;
use crate::off_thread::off_thread;
use crate::prefetch::Prefetch;
use crate::reader::{Advance, Entry, Reading, Source, Visibility};
use crate::{RecoveryInfo, Stats, blocking, prepare};
use ::tokio::task::coop;
use seawall_core::config::Level;
use seawall_core::cursor::Start;
use seawall_core::id::{Lsn, Position};
use seawall_core::log::Appended;
use seawall_core::record::Record;
use std::sync::Arc;

/// A log that is open for appending. Clones are the same log. [`blocking::Wal`] says more of each
/// call.
///
/// **Waiting.** Syncs and long writes run on the log's own thread; long reads, and those of what is
/// not in memory, on the runtime's blocking threads. Encoding a record, compressing it if asked,
/// and writing or reading up to 64 KiB of the page cache happen in the call itself: going to
/// another thread takes twenty times as long. Should such a write have to wait all the same, as
/// when the kernel has too much to write back, the next ones are left to the log's thread, for ten
/// times as long as it took and 100 ms at most. Dropping the last clone waits for the disk: close
/// the log before.
///
/// **Cancelling.** A future that is dropped leaves a sound log: its record is in it whole, or not
/// at all. Whether it is, only reading tells.
///
/// **Runtimes.** Tasks of another executor than tokio's may use the log as well: what tokio's
/// blocking threads would do is done by a thread for each such call.
#[derive(Clone, Debug)]
pub struct Wal {
    inner: blocking::Wal,
}

impl Wal {
    /// Opens the log in `config.dir`, recovers it, and makes it first where there is none.
    ///
    /// # Errors
    /// See [`blocking::Wal::open`].
    pub async fn open(config: WalConfig) -> Result<(Self, RecoveryInfo), Error> {
        let (inner, info) = off_thread(move || blocking::Wal::open(config)).await?;
        Ok((Self { inner }, info))
    }

    /// Opens the log in a folder that was handed over. See [`blocking::Wal::open_in`].
    ///
    /// # Errors
    /// See [`blocking::Wal::open`].
    pub async fn open_in(
        folder: cap_std::fs::Dir,
        config: WalConfig,
    ) -> Result<(Self, RecoveryInfo), Error> {
        let (inner, info) = off_thread(move || blocking::Wal::open_in(folder, config)).await?;
        Ok((Self { inner }, info))
    }

    /// Opens the log in `config.dir` to read. See [`blocking::Wal::open_read_only`].
    ///
    /// # Errors
    /// See [`blocking::Wal::open_read_only`].
    pub async fn open_read_only(config: WalConfig) -> Result<(ReadOnly, RecoveryInfo), Error> {
        let opened = off_thread(move || blocking::Wal::open_read_only(config)).await;
        opened.map(|(inner, info)| (ReadOnly { inner }, info))
    }

    /// The same log for threads.
    pub fn blocking(&self) -> &blocking::Wal {
        &self.inner
    }

    fn engine(&self) -> &Arc<Engine> {
        self.inner.engine()
    }

    /// Appends a record, and is done when it has reached the level of the policy.
    ///
    /// # Errors
    /// See [`blocking::Wal::append`].
    pub async fn append(&self, record: &Record<'_>) -> Result<Position, Error> {
        let level = self.config().fsync_policy.level();
        self.append_with(record, level).await.map(|appended| appended.position)
    }

    /// Appends a record, and is done when it has reached `level`.
    ///
    /// # Errors
    /// See [`blocking::Wal::append`].
    pub async fn append_with(&self, record: &Record<'_>, level: Level) -> Result<Appended, Error> {
        self.append_all(std::slice::from_ref(record), level).await
    }

    /// Appends records as one: after a crash all of them are there or none.
    ///
    /// # Errors
    /// See [`blocking::Wal::append_batch`].
    pub async fn append_batch(&self, records: &[Record<'_>]) -> Result<Appended, Error> {
        self.append_batch_with(records, self.config().fsync_policy.level()).await
    }

    /// Appends records as one, and is done when they have reached `level`.
    ///
    /// # Errors
    /// See [`blocking::Wal::append_batch`].
    pub async fn append_batch_with(
        &self,
        records: &[Record<'_>],
        level: Level,
    ) -> Result<Appended, Error> {
        self.append_all(records, level).await
    }

    async fn append_all(&self, records: &[Record<'_>], level: Level) -> Result<Appended, Error> {
        // Most appends are done at once: who makes many lets others have their turn.
        coop::consume_budget().await;
        loop {
            let admitted =
                prepare(self.config(), records, |entries| self.engine().append(entries, level))?;
            match admitted {
                Admitted::Taken(appended, None) => return Ok(appended),
                Admitted::Taken(appended, Some(wait)) => {
                    wait.await?;
                    return Ok(appended);
                }
                Admitted::Later(wait) => wait.await?,
            }
        }
    }

    /// Is done when the kernel has everything appended before.
    ///
    /// # Errors
    /// See [`blocking::Wal::flush`].
    pub async fn flush(&self) -> Result<(), Error> {
        self.reach(Level::Os).await
    }

    /// Is done when everything appended before is durable.
    ///
    /// # Errors
    /// See [`blocking::Wal::flush`].
    pub async fn sync(&self) -> Result<(), Error> {
        self.reach(Level::Disk).await
    }

    async fn reach(&self, level: Level) -> Result<(), Error> {
        match self.engine().flush(level)? {
            Some(wait) => wait.await,
            None => Ok(()),
        }
    }

    /// Is done when the record `lsn` and all before it are durable.
    ///
    /// # Errors
    /// See [`blocking::Wal::wait_durable`].
    pub async fn wait_durable(&self, lsn: Lsn) -> Result<(), Error> {
        let wait = self.engine().wait_durable(lsn)?;
        wait.await
    }

    /// A reader that begins at a record. See [`blocking::Wal::read_from`].
    ///
    /// # Errors
    /// See [`blocking::Wal::read_from`].
    pub async fn read_from(&self, from: impl Into<Start>) -> Result<Reader, Error> {
        self.read_from_with(from, Visibility::Durable).await
    }

    /// A reader that is shown what `visibility` says.
    ///
    /// # Errors
    /// See [`blocking::Wal::read_from`].
    pub async fn read_from_with(
        &self,
        from: impl Into<Start>,
        visibility: Visibility,
    ) -> Result<Reader, Error> {
        let flushed = match visibility {
            Visibility::Durable => self.sync().await,
            Visibility::Written => self.flush().await,
        };
        match flushed {
            // What was durable before can still be read.
            Ok(()) | Err(Error::Poisoned(_) | Error::Closed) => {}
            Err(error) => return Err(error),
        }
        Reader::begin(Source::Live(self.engine().clone()), from.into(), visibility).await
    }

    /// A reader that begins at the first record.
    ///
    /// # Errors
    /// See [`blocking::Wal::read_from`].
    pub async fn iter(&self) -> Result<Reader, Error> {
        self.read_from(Start::First).await
    }

    /// Where the next record will begin: see [`blocking::Wal::current_position`].
    pub fn current_position(&self) -> Position {
        self.inner.current_position()
    }

    /// Deletes all segments whose records come before a record, and returns how many they were.
    ///
    /// # Errors
    /// See [`blocking::Wal::delete_segments_before`].
    pub async fn delete_segments_before(&self, before: impl Into<Start>) -> Result<u64, Error> {
        let (lsn, had) = self.engine().before_deletion(before.into())?;
        self.ask(Ask::DeleteBefore(lsn)).await?;
        Ok(self.engine().gone(&had))
    }

    /// Takes all records after `lsn` off the log; the next append gets `lsn + 1`.
    ///
    /// # Errors
    /// See [`blocking::Wal::truncate_after`].
    pub async fn truncate_after(&self, lsn: Lsn) -> Result<(), Error> {
        self.ask(Ask::TruncateAfter(lsn)).await
    }

    /// Ends the segment being written, if it holds records.
    ///
    /// # Errors
    /// See [`blocking::Wal::append`].
    pub async fn rotate(&self) -> Result<(), Error> {
        while let Some(wait) = self.engine().rotate()? {
            wait.await?;
        }
        Ok(())
    }

    /// Makes everything durable and marks a clean end. See [`blocking::Wal::close`].
    ///
    /// # Errors
    /// See [`blocking::Wal::close`].
    pub async fn close(&self) -> Result<(), Error> {
        self.ask(Ask::Close).await?;
        let inner = self.inner.clone();
        off_thread(move || {
            inner.join();
            Ok(())
        })
        .await
    }

    async fn ask(&self, ask: Ask) -> Result<(), Error> {
        loop {
            match self.engine().ask(ask)? {
                Ok(wait) => return wait.await,
                Err(other) => other.await?,
            }
        }
    }

    /// The settings that the log was opened with: see [`blocking::Wal::config`].
    pub fn config(&self) -> &WalConfig {
        self.inner.config()
    }

    /// The first record that is retained: see [`blocking::Wal::first_lsn`].
    pub fn first_lsn(&self) -> Lsn {
        self.inner.first_lsn()
    }

    /// The last record appended: see [`blocking::Wal::last_lsn`].
    pub fn last_lsn(&self) -> Lsn {
        self.inner.last_lsn()
    }

    /// The last record that the device has: see [`blocking::Wal::durable_lsn`].
    pub fn durable_lsn(&self) -> Lsn {
        self.inner.durable_lsn()
    }

    /// Figures about the log at this moment: see [`blocking::Wal::stats`].
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }
}

/// The same log, for tasks.
impl From<blocking::Wal> for Wal {
    fn from(inner: blocking::Wal) -> Self {
        Self { inner }
    }
}

/// A log that is open to read. See [`blocking::ReadOnly`].
#[derive(Clone, Debug)]
pub struct ReadOnly {
    inner: blocking::ReadOnly,
}

impl ReadOnly {
    /// A reader that begins at a record, by its LSN or position.
    ///
    /// # Errors
    /// See [`blocking::ReadOnly::read_from`].
    pub async fn read_from(&self, from: impl Into<Start>) -> Result<Reader, Error> {
        Reader::begin(Source::Folder(self.inner.folder().clone()), from.into(), Visibility::Durable)
            .await
    }

    /// A reader that begins at the first record.
    ///
    /// # Errors
    /// See [`blocking::ReadOnly::iter`].
    pub async fn iter(&self) -> Result<Reader, Error> {
        self.read_from(Start::First).await
    }

    /// Looks what a writer has done since, and says whether there is more. Readers take note of it
    /// with [`Reader::renew`].
    ///
    /// # Errors
    /// See [`blocking::ReadOnly::refresh`].
    pub async fn refresh(&self) -> Result<bool, Error> {
        let inner = self.inner.clone();
        off_thread(move || inner.refresh()).await
    }

    /// Figures about the log as it was last seen: see [`blocking::ReadOnly::stats`]. It reads the
    /// header of a segment.
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }
}

/// Reads records in order.
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
    async fn begin(source: Source, from: Start, visibility: Visibility) -> Result<Self, Error> {
        let prefetch = Prefetch::new(source.config().prefetch);
        let reading = go(Reading::nowhere(source, visibility), from).await?;
        Ok(Self { reading, prefetch })
    }

    /// The next record and where it begins. `None`: there is no more for now.
    ///
    /// A future that is dropped loses no record: the next call returns what it would have.
    ///
    /// # Errors
    /// See [`blocking::Reader::next_record`].
    pub async fn next_record(&mut self) -> Result<Option<(Entry, Position)>, Error> {
        // Most records are at hand: as for appends.
        coop::consume_budget().await;
        loop {
            match self.reading.advance()? {
                Advance::Record(entry, position) => return Ok(Some((entry, position))),
                Advance::End => return Ok(None),
                Advance::Read(job) => {
                    let job = match job.run_at_once() {
                        Ok(done) => {
                            self.reading.provide(done);
                            continue;
                        }
                        Err(job) => job,
                    };
                    // Should the future be dropped, the next call begins anew.
                    let mut prefetch = self.prefetch.take();
                    let read = move || prefetch.run(job).map(|done| (prefetch, done));
                    let (prefetch, done) = off_thread(read).await?;
                    self.prefetch = prefetch;
                    self.reading.provide(done);
                }
            }
        }
    }

    /// The next record, waited for if there is none yet. `None`: the log was closed, or is only
    /// open to read. For a limit to the wait drop the future, as `tokio::time::timeout` does.
    ///
    /// # Errors
    /// See [`blocking::Reader::wait_record`].
    pub async fn wait_record(&mut self) -> Result<Option<(Entry, Position)>, Error> {
        loop {
            if let Some(found) = self.next_record().await? {
                return Ok(Some(found));
            }
            let Source::Live(engine) = self.reading.source() else { return Ok(None) };
            let last = self.reading.waits_behind();
            let Some(wait) = engine.follow(last, self.reading.visibility())? else {
                match self.next_record().await? {
                    None if !self.reading.is_of_open_log() => return Ok(None),
                    None => continue,
                    found => return Ok(found),
                }
            };
            self.reading.rest();
            self.prefetch.rest();
            wait.await?;
        }
    }

    /// Goes to another record, by its LSN or position; it comes next.
    ///
    /// # Errors
    /// See [`blocking::Reader::seek`].
    pub async fn seek(&mut self, to: impl Into<Start>) -> Result<(), Error> {
        let to = to.into();
        if self.reading.seeks_at_once(to) {
            return self.reading.seek(to);
        }
        // Should the future be dropped, the reader stays as it is.
        let (source, visibility) = (self.reading.source().clone(), self.reading.visibility());
        self.reading = go(Reading::nowhere(source, visibility), to).await?;
        Ok(())
    }

    /// After [`Error::Damaged`]: goes on with the next good frame.
    pub fn skip_damage(&mut self) {
        self.reading.skip_damage();
    }

    /// The LSN of the record that comes next: see [`blocking::Reader::next_lsn`].
    pub fn next_lsn(&self) -> Lsn {
        self.reading.next_lsn()
    }

    /// Takes note of what [`ReadOnly::refresh`] has found.
    ///
    /// # Errors
    /// See [`blocking::Reader::renew`].
    pub fn renew(&mut self) -> Result<(), Error> {
        self.reading.renew()
    }
}

/// Goes to a record.
async fn go(mut reading: Reading, to: Start) -> Result<Reading, Error> {
    let reads = !reading.seeks_at_once(to);
    let seek = move || reading.seek(to).map(|()| reading);
    if reads { off_thread(seek).await } else { seek() }
}
