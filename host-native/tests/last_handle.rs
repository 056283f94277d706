//! Where the last handle of a log goes: on one of the log's own threads, while another thread runs
//! a command, or with a task that nobody but the log holds any more.
#![cfg(not(shuttle))]

use seawall::blocking::Wal;
use seawall::{
    Call, Error, Event, Fault, FileId, FsyncPolicy, Interpose, Level, Meter, Operation, Record,
    WalConfig,
};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// Longer than anything here takes, unless it takes for ever.
const LIMIT: Duration = Duration::from_mins(1);

type Future = Pin<Box<dyn std::future::Future<Output = ()> + Send>>;

/// Once nobody has the log any more it can be opened again, a moment later.
fn opens_again(dir: &Path) -> Wal {
    let started = std::time::Instant::now();
    loop {
        match Wal::open(WalConfig::in_dir(dir)) {
            Ok((wal, _)) => return wal,
            Err(Error::Locked { .. }) if started.elapsed() < LIMIT => thread::yield_now(),
            Err(error) => panic!("after {:?}: {error}", started.elapsed()),
        }
    }
}

/// Holds a durable write of a segment up until it is told to go on.
struct Gate {
    is_armed: AtomicBool,
    /// Only writes that this thread makes.
    only: Option<ThreadId>,
    reached: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
}

impl Gate {
    fn new(only: Option<ThreadId>) -> (Arc<Self>, Receiver<()>, Sender<()>) {
        let ((reached, is_reached), (go, go_on)) = (channel(), channel());
        let is_armed = AtomicBool::new(false);
        let gate = Self { is_armed, only, reached: Mutex::new(reached), go_on: Mutex::new(go_on) };
        (Arc::new(gate), is_reached, go)
    }

    fn arm(&self) {
        self.is_armed.store(true, Ordering::SeqCst);
    }
}

impl Interpose for Gate {
    fn before(&self, call: &Call) -> Option<Fault> {
        let is_batch = call.operation == Operation::Write
            && call.sync
            && matches!(call.file, Some(FileId::Segment(_)));
        let is_wanted = self.only.is_none_or(|only| only == thread::current().id());
        if is_batch && is_wanted && self.is_armed.swap(false, Ordering::SeqCst) {
            self.reached.lock().unwrap().send(()).unwrap();
            self.go_on.lock().unwrap().recv_timeout(LIMIT).unwrap();
        }
        None
    }
}

/// A log whose durable writes the gate may hold up; whatever its first append needs is there.
fn gated(dir: &Path, gate: &Arc<Gate>) -> Wal {
    let interpose: Arc<dyn Interpose> = gate.clone();
    let config = WalConfig {
        fsync_policy: FsyncPolicy::Always,
        interpose: Some(interpose),
        ..WalConfig::in_dir(dir)
    };
    let (wal, _) = Wal::open(config).unwrap();
    wal.append(&Record::put(b"key", b"first")).unwrap();
    wal
}

/// A task of an executor that has ended: only its wakers hold it, and where one is called the task
/// goes.
struct Task {
    future: Mutex<Option<Future>>,
    dropped: Mutex<Sender<Option<String>>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Task {
    fn drop(&mut self) {
        drop(self.future.get_mut().unwrap().take());
        let name = thread::current().name().map(str::to_owned);
        self.dropped.lock().unwrap().send(name).unwrap();
    }
}

fn task(future: Future) -> (Arc<Task>, Receiver<Option<String>>) {
    let (dropped, is_dropped) = channel();
    let task = Task { future: Mutex::new(Some(future)), dropped: Mutex::new(dropped) };
    (Arc::new(task), is_dropped)
}

fn poll(task: &Arc<Task>, waker: &Waker) {
    let mut future = task.future.lock().unwrap();
    let polled = future.as_mut().unwrap().as_mut().poll(&mut Context::from_waker(waker));
    assert!(polled.is_pending());
}

async fn append(wal: seawall::Wal) {
    wal.append_with(&Record::put(b"key", b"value"), Level::Disk).await.unwrap();
}

#[test]
fn a_task_that_goes_on_the_thread_that_wakes_it_may_have_the_last_handle() {
    let temp = tempfile::tempdir().unwrap();
    let (gate, is_reached, go_on) = Gate::new(None);
    let wal = gated(temp.path(), &gate);
    gate.arm();
    let (task, is_dropped) = task(Box::pin(append(wal.into())));
    poll(&task, &Waker::from(task.clone()));
    is_reached.recv_timeout(LIMIT).unwrap();
    drop(task);
    go_on.send(()).unwrap();
    let thread = is_dropped.recv_timeout(LIMIT).expect("it waits for ever");
    assert_eq!(thread.as_deref(), Some("seawall-commits"));
    opens_again(temp.path());
}

/// Has the last handle until a sync is told on the log's own thread.
struct Holder(Mutex<Option<Wal>>);

impl Meter for Holder {
    fn event(&self, event: &Event<'_>) {
        let is_own = thread::current().name().is_some_and(|name| name.starts_with("seawall-"));
        if is_own && matches!(event, Event::Synced { .. }) {
            let held = self.0.lock().unwrap().take();
            drop(held);
        }
    }
}

#[test]
fn a_meter_may_have_the_last_handle() {
    let temp = tempfile::tempdir().unwrap();
    let holder = Arc::new(Holder(Mutex::new(None)));
    let config = WalConfig { meter: Some(holder.clone()), ..WalConfig::in_dir(temp.path()) };
    let (wal, _) = Wal::open(config).unwrap();
    *holder.0.lock().unwrap() = Some(wal.clone());
    wal.append(&Record::put(b"key", b"value")).unwrap();
    drop(wal);
    opens_again(temp.path());
}

/// A reader is no handle, but the thread that waits with it makes commits.
#[test]
fn the_lock_is_held_until_a_commit_that_a_reader_makes_has_come_back() {
    let temp = tempfile::tempdir().unwrap();
    let (gate, is_reached, go_on) = Gate::new(Some(thread::current().id()));
    let wal = gated(temp.path(), &gate);
    let mut appended = 1;
    let mut reader = wal.iter().unwrap();
    while reader.next_record().unwrap().is_some() {}
    let held = Mutex::new(Some(wal));
    thread::scope(|scope| {
        let (held, dir) = (&held, temp.path());
        scope.spawn(move || {
            is_reached.recv_timeout(LIMIT).unwrap();
            let wal = held.lock().unwrap().take();
            let dropping = thread::spawn(move || drop(wal));
            // The write is under way, and stays so for as long as this takes.
            for _ in 0..200 {
                let second = Wal::open(WalConfig::in_dir(dir));
                assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
                thread::yield_now();
            }
            go_on.send(()).unwrap();
            dropping.join().unwrap();
        });
        gate.arm();
        // Whoever gets to it makes the commit: this thread, or the log's own.
        while gate.is_armed.load(Ordering::SeqCst) {
            let Some(wal) = held.lock().unwrap().clone() else { break };
            let (task, _dropped) = task(Box::pin(append(wal.into())));
            poll(&task, Waker::noop());
            appended += 1;
            // The other thread has the last handle then.
            drop(task);
            reader.wait_record(Some(LIMIT)).unwrap();
        }
    });
    drop(reader);
    let wal = opens_again(temp.path());
    assert_eq!(wal.stats().last_lsn.get(), appended, "all of it is durable");
}

/// What waits is polled by another task: the first one's waker goes, and with it that task, which
/// waits for the same log.
#[test]
fn a_waker_that_is_replaced_may_hold_another_wait() {
    let temp = tempfile::tempdir().unwrap();
    let (gate, is_reached, go_on) = Gate::new(None);
    let wal = gated(temp.path(), &gate);
    let wal = seawall::Wal::from(wal);
    gate.arm();
    let mut shared: Future = Box::pin(append(wal.clone()));
    let (first, is_dropped) = task(Box::pin(append(wal.clone())));
    poll(&first, Waker::noop());
    let waker = Waker::from(first);
    assert!(shared.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    is_reached.recv_timeout(LIMIT).unwrap();
    // Only the log has it now.
    drop(waker);
    let polling = thread::spawn(move || {
        let _done = shared.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    });
    is_dropped.recv_timeout(LIMIT).expect("it waits for ever");
    polling.join().unwrap();
    go_on.send(()).unwrap();
}

#[test]
fn a_setting_out_of_range_makes_no_folder() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("a/b");
    let config = WalConfig { batch_size: 1, ..WalConfig::in_dir(&dir) };
    assert!(matches!(Wal::open(config), Err(Error::Config(_))));
    assert!(!temp.path().join("a").exists());
}
