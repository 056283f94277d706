//! What callers hold: a log, its cursors, and answers that are under way.

use crate::batch::{Groups, Page};
use crate::error::Error;
use crate::patience::Patience;
use crate::program::Program;
use crate::types;
use crate::worker::{Answered, Append, Job, Restart, Watch, Worker};
use seawall_core::record::{Record, RecordKind};
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use tokio::sync::oneshot;

/// The answer to a call that is under way: to wait for on a thread, or to await. Let go, the call
/// is made nevertheless.
#[must_use = "a call may fail"]
pub struct Pending<T> {
    answer: Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>,
    /// That it takes less time, as a rule, than a thread takes to fall asleep and wake.
    short: Option<Short>,
    was_polled: bool,
}

/// One of a log's short calls that are under way.
struct Short(Arc<AtomicUsize>);

impl Short {
    fn new(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all.clone())
    }

    /// Whether there is no other.
    fn is_alone(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Error>;

    /// Looks for the answer for a moment where it will be there by then: other tasks of the worker
    /// wait so long at most. Where several calls are under way they are to be made together.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let is_first = !std::mem::replace(&mut self.was_polled, true);
        let patience = Patience::new(is_first && self.short.as_ref().is_some_and(Short::is_alone));
        loop {
            match self.answer.as_mut().poll(context) {
                Poll::Pending if patience.is_left() => {}
                polled => return polled,
            }
        }
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<T> Pending<T> {
    fn new(answer: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        Self { answer: Box::pin(answer), short: None, was_polled: false }
    }

    fn short(self, jobs: &Jobs) -> Self {
        Self { short: Some(Short::new(&jobs.short)), ..self }
    }

    /// Blocks this thread until the answer is there.
    ///
    /// # Errors
    /// What the call's own documentation says.
    pub fn wait(mut self) -> Result<T, Error> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let patience = Patience::new(self.short.is_some());
        loop {
            match self.answer.as_mut().poll(&mut context) {
                Poll::Ready(answer) => return answer,
                Poll::Pending if patience.is_left() => {}
                // It returns at once when the answer has come in between.
                Poll::Pending => thread::park(),
            }
        }
    }
}

/// The way to a log's thread.
#[derive(Clone, Debug)]
struct Jobs {
    sender: Sender<Job>,
    /// How many short calls are under way.
    short: Arc<AtomicUsize>,
}

impl Jobs {
    fn send(&self, job: Job) {
        // Where the thread is gone, the answer's other end has gone with the job.
        self.sender.send(job).ok();
    }
}

async fn received<T>(answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
    answer.await.unwrap_or(Err(Error::Stopped))
}

/// A log, written by the component. Threads and tasks share it by reference or [`Arc`].
///
/// Let go without [`Wal::close`], it writes what was buffered, and syncs it unless the policy is
/// `os`; it then waits for its thread, which frees the folder.
#[derive(Debug)]
pub struct Wal {
    jobs: Jobs,
    /// The policy's.
    level: types::Level,
    thread: Option<JoinHandle<()>>,
}

impl Wal {
    /// Opens the log in a folder, recovers it, and makes folder and log first where there are none.
    /// Nobody else can write it meanwhile, through this crate or natively: the operating system's
    /// lock on its `LOCK` is held.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Folder`], [`Error::Down`] when the component trapped, or what
    /// `log.open` of the contract says. No record has been lost.
    pub fn open(
        program: &Program,
        path: impl Into<PathBuf>,
        config: types::Config,
    ) -> Pending<(Self, types::Recovery)> {
        let (program, path) = (program.clone(), path.into());
        let level = match config.fsync_policy {
            types::FsyncPolicy::Always => types::Level::Disk,
            types::FsyncPolicy::BatchMicros(_) | types::FsyncPolicy::Os => types::Level::Os,
        };
        let (sender, taken) = std::sync::mpsc::channel();
        let jobs = Jobs { sender, short: Arc::default() };
        let (reply, opened) = oneshot::channel();
        let folder = path.clone();
        let run = move || match Worker::open(program, &path, config) {
            Ok((worker, recovery)) => {
                reply.send(Ok(recovery)).ok();
                worker.run(&taken);
            }
            Err(error) => {
                reply.send(Err(error)).ok();
            }
        };
        let spawned = thread::Builder::new().name("seawall-wasm".to_owned()).spawn(run);
        Pending::new(async move {
            let thread = spawned.map_err(|why| Error::Folder(folder, Arc::new(why)))?;
            let wal = Self { jobs, level, thread: Some(thread) };
            received(opened).await.map(|recovery| (wal, recovery))
        })
    }

    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Worker) -> Result<T, Error> + Send + 'static,
    ) -> Pending<T> {
        ask(&self.jobs, call)
    }

    /// Appends a record at the policy's level.
    ///
    /// # Errors
    /// See [`Wal::append_batch_with`].
    pub fn append(&self, record: &Record<'_>) -> Pending<types::Appended> {
        self.enqueue(std::slice::from_ref(record), None)
    }

    /// Appends a record, and answers when it has reached `level`.
    ///
    /// # Errors
    /// See [`Wal::append_batch_with`].
    pub fn append_with(
        &self,
        record: &Record<'_>,
        level: types::Level,
    ) -> Pending<types::Appended> {
        self.enqueue(std::slice::from_ref(record), Some(level))
    }

    /// Appends records as one, at the policy's level.
    ///
    /// # Errors
    /// See [`Wal::append_batch_with`].
    pub fn append_batch(&self, records: &[Record<'_>]) -> Pending<types::Appended> {
        self.enqueue(records, None)
    }

    /// Appends records as one, and answers when they have reached `level`: after a crash all of
    /// them are there or none. Appends that wait at the same time share one sync.
    ///
    /// # Errors
    /// What `log.append-batch` of the contract says: nothing of it is in the log, but for
    /// `poisoned`. [`Error::Unknown`] when the component trapped meanwhile.
    pub fn append_batch_with(
        &self,
        records: &[Record<'_>],
        level: types::Level,
    ) -> Pending<types::Appended> {
        self.enqueue(records, Some(level))
    }

    fn enqueue(
        &self,
        records: &[Record<'_>],
        level: Option<types::Level>,
    ) -> Pending<types::Appended> {
        let level = level.unwrap_or(self.level);
        let groups = match Groups::of(records) {
            _ if records.is_empty() => return refuse(types::Error::EmptyBatch),
            _ if records.iter().any(has_lost_value) => return refuse(types::Error::MalformedBatch),
            None => return refuse(too_large(records)),
            Some(groups) => groups,
        };
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Append(Append { groups, level, reply }));
        let pending = Pending::new(async {
            let Answered { result, groups } = answer.await.map_err(|_| Error::Stopped)?;
            drop(groups);
            result
        });
        if let types::Level::Disk = level { pending } else { pending.short(&self.jobs) }
    }

    /// Hands all that was appended to the kernel; up to which LSN that is.
    ///
    /// # Errors
    /// What `log.flush` of the contract says, and [`Error::Unknown`].
    pub fn flush(&self) -> Pending<u64> {
        self.call(|worker| worker.ask(|guest, log| guest.sync(log, types::Level::Os)))
            .short(&self.jobs)
    }

    /// Makes all that was appended durable; up to which LSN that is.
    ///
    /// # Errors
    /// What `log.sync` of the contract says, and [`Error::Unknown`].
    pub fn sync(&self) -> Pending<u64> {
        self.call(|worker| worker.ask(|guest, log| guest.sync(log, types::Level::Disk)))
    }

    /// Makes the record `lsn` and all before it durable.
    ///
    /// # Errors
    /// What `log.wait-durable` of the contract says, and [`Error::Unknown`].
    pub fn wait_durable(&self, lsn: u64) -> Pending<()> {
        self.call(move |worker| worker.ask(|guest, log| guest.wait_durable(log, lsn)))
    }

    /// Waits until something has come by itself: it makes nothing durable.
    ///
    /// # Errors
    /// `poisoned` or `closed` when it never will, and [`Error::Unknown`] when the component trapped
    /// and its log then ended before the record that was named: others may come in its place.
    pub fn wait_for(&self, interest: types::Interest) -> Pending<()> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Watch(Watch::new(interest, reply)));
        Pending::new(received(answer))
    }

    /// Reads what is durable, from a record, a position or [`types::Start::First`] on. What was
    /// appended before is made durable first.
    ///
    /// # Errors
    /// What `log.read-from` of the contract says, and [`Error::Unknown`].
    pub fn read_from(&self, start: impl Into<types::Start>) -> Pending<Cursor> {
        self.read_from_with(start, types::Visibility::Durable)
    }

    /// As [`Wal::read_from`], and says what the cursor is shown.
    ///
    /// # Errors
    /// As [`Wal::read_from`].
    pub fn read_from_with(
        &self,
        start: impl Into<types::Start>,
        visibility: types::Visibility,
    ) -> Pending<Cursor> {
        let (start, jobs) = (start.into(), self.jobs.clone());
        // It is one from the beginning: should nobody wait any more, it ends with its answer.
        let begin = move |worker: &mut Worker| {
            let number = worker.begin_reading(start, visibility)?;
            Ok(Cursor { jobs, number })
        };
        self.call(begin).short(&self.jobs)
    }

    /// Tells the time, in microseconds since the Unix epoch, where it was given in the settings:
    /// what is due is done. When the next is. Otherwise the thread looks at the clock itself.
    ///
    /// # Errors
    /// What `log.tick` of the contract says, and [`Error::Unknown`].
    pub fn tick(&self, now_micros: u64) -> Pending<Option<u64>> {
        self.call(move |worker| worker.ask(|guest, log| guest.tick(log, Some(now_micros))))
    }

    /// Ends the segment being written, if it holds records.
    ///
    /// # Errors
    /// What `log.rotate` of the contract says, and [`Error::Unknown`].
    pub fn rotate(&self) -> Pending<()> {
        self.call(|worker| worker.ask(crate::sandbox::Sandbox::rotate))
    }

    /// Deletes the segments whose records all come before `lsn`; how many they were.
    ///
    /// # Errors
    /// What `log.delete-before` of the contract says, and [`Error::Unknown`].
    pub fn delete_before(&self, lsn: u64) -> Pending<u64> {
        self.call(move |worker| worker.ask(|guest, log| guest.delete_before(log, lsn)))
    }

    /// Takes all records after `lsn` off the log.
    ///
    /// # Errors
    /// What `log.truncate-after` of the contract says, and [`Error::Unknown`].
    pub fn truncate_after(&self, lsn: u64) -> Pending<()> {
        self.call(move |worker| worker.truncate_after(lsn))
    }

    /// Makes everything durable and marks a clean end. Calls that would change the log fail with
    /// `closed` from then on; what it holds can still be read, unless the component traps: then
    /// every call fails so.
    ///
    /// # Errors
    /// What `log.close` of the contract says, and [`Error::Unknown`]: it may be closed or not, and
    /// is recovered.
    pub fn close(&self) -> Pending<()> {
        self.call(Worker::close)
    }

    /// Figures about the log.
    ///
    /// # Errors
    /// [`Error::Unknown`] or [`Error::Down`].
    pub fn stats(&self) -> Pending<types::Stats> {
        self.call(|worker| worker.tell(crate::sandbox::Sandbox::stats)).short(&self.jobs)
    }

    /// What happened since the last call, oldest first; the newest 256 are kept.
    ///
    /// # Errors
    /// [`Error::Unknown`] or [`Error::Down`].
    pub fn take_events(&self) -> Pending<Vec<types::Event>> {
        self.call(|worker| worker.tell(crate::sandbox::Sandbox::take_events))
    }

    /// How often the component had to be started anew since the last call, and what recovery found;
    /// the newest 64 are kept.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn take_restarts(&self) -> Pending<Vec<Restart>> {
        self.call(|worker| Ok(worker.take_restarts()))
    }
}

fn ask<T: Send + 'static>(
    jobs: &Jobs,
    call: impl FnOnce(&mut Worker) -> Result<T, Error> + Send + 'static,
) -> Pending<T> {
    let (reply, answer) = oneshot::channel();
    let job = Job::Call(Box::new(move |worker| {
        // Whoever asked may have gone away.
        reply.send(call(worker)).ok();
    }));
    jobs.send(job);
    Pending::new(received(answer))
}

fn refuse<T: Send + 'static>(error: types::Error) -> Pending<T> {
    Pending::new(std::future::ready(Err(Error::Log(error))))
}

/// A tombstone has no value: here neither.
fn has_lost_value(record: &Record<'_>) -> bool {
    record.kind == RecordKind::Delete && !record.value.is_empty()
}

fn too_large(records: &[Record<'_>]) -> types::Error {
    let bytes = records.iter().map(|record| record.key.len() + record.value.len()).sum::<usize>();
    types::Error::TooLarge(types::OutOfRange {
        name: "bytes of keys and values".to_owned(),
        value: bytes as u64,
        min: 0,
        max: u64::from(u32::MAX),
    })
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.jobs.send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            // It catches what panics in it.
            thread.join().ok();
        }
    }
}

impl From<u64> for types::Start {
    fn from(lsn: u64) -> Self {
        Self::Lsn(lsn)
    }
}

impl From<types::Position> for types::Start {
    fn from(position: types::Position) -> Self {
        Self::Position(position)
    }
}

/// Reads records in order, and follows the log. It outlives a trap of the component.
#[derive(Debug)]
pub struct Cursor {
    jobs: Jobs,
    number: u64,
}

impl Cursor {
    /// The next records, about `bytes_max` of keys and values, at least one if there is one. Each
    /// counts for 64 bytes more, and an eighth of the component's memory, or 16 MiB, is the most.
    ///
    /// # Errors
    /// What `cursor.read-batch` of the contract says, and [`Error::Unknown`]: nothing was skipped.
    pub fn read_batch(&self, bytes_max: u32) -> Pending<Page> {
        let number = self.number;
        ask(&self.jobs, move |worker| worker.read(number, bytes_max)).short(&self.jobs)
    }

    /// After `damaged`: goes on with the next good frame.
    ///
    /// # Errors
    /// [`Error::Unknown`] or [`Error::Down`].
    pub fn skip_damage(&self) -> Pending<()> {
        let number = self.number;
        ask(&self.jobs, move |worker| worker.skip_damage(number))
    }

    /// The LSN of the record that comes next.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the log was let go.
    pub fn next_lsn(&self) -> Pending<u64> {
        let number = self.number;
        ask(&self.jobs, move |worker| worker.next_lsn(number)).short(&self.jobs)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        let number = self.number;
        // Where the thread is gone, so is the cursor.
        self.jobs.send(Job::Call(Box::new(move |worker| worker.end_reading(number))));
    }
}
