//! Threads and tasks at once, with rotation, deletion and readers beside them: everybody is woken,
//! nothing is lost, and a deadline never hangs (invariants 7, 18 to 20).

use seawall::{
    Call, Error, Fault, FsyncPolicy, Interpose, Level, Lsn, Operation, Record, WalConfig, blocking,
};
use seawall_tests::interpose::{EIO, ENOSPC, Watch, os_error, writes_frames};
use seawall_tests::records::{read_all, record_bytes};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TASKS: u64 = 32;
const THREADS: u64 = 4;
const APPENDS: u64 = 150;

fn level_of(number: u64) -> Level {
    [Level::Disk, Level::Os, Level::Buffered][usize::try_from(number % 3).unwrap()]
}

async fn lives(policy: FsyncPolicy) {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig {
        max_segment_size: 32 << 10,
        batch_size: 8 << 10,
        fsync_policy: policy,
        ..WalConfig::in_dir(temp.path())
    };
    let (wal, _) = seawall::Wal::open(config.clone()).await.unwrap();
    let appended = Arc::new(AtomicU64::new(0));
    let mut all = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (wal, appended) = (wal.clone(), appended.clone());
        all.spawn(async move {
            for number in 0..APPENDS {
                let value = record_bytes(task << 32 | number, 300);
                let record = Record::put(b"task", &value);
                wal.append_with(&record, level_of(number)).await.unwrap();
                appended.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for thread in 0..THREADS {
        let (wal, appended) = (wal.blocking().clone(), appended.clone());
        all.spawn_blocking(move || {
            for number in 0..APPENDS {
                let value = record_bytes(1 << 48 | thread << 32 | number, 300);
                let record = Record::put(b"thread", &value);
                wal.append_with(&record, level_of(number)).unwrap();
                appended.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let total = (TASKS + THREADS) * APPENDS;
    let follower = wal.clone();
    all.spawn(async move {
        let mut reader = follower.iter().await.unwrap();
        for number in 1..=total {
            let (entry, _) = reader.wait_record().await.unwrap().expect("the log is open");
            assert_eq!(entry.lsn, Lsn::new(number));
        }
    });
    let rotator = wal.clone();
    all.spawn(async move {
        for _ in 0..20 {
            rotator.rotate().await.unwrap();
            rotator.sync().await.unwrap();
        }
    });
    // What was only buffered becomes durable when somebody asks; the follower waits for it.
    let syncer = wal.clone();
    all.spawn(async move {
        while appended.load(Ordering::Relaxed) < total {
            syncer.sync().await.unwrap();
            tokio::task::yield_now().await;
        }
        syncer.sync().await.unwrap();
    });
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
    wal.close().await.unwrap();
    let (wal, info) = blocking::Wal::open(config).unwrap();
    assert!(info.report.was_clean);
    assert_eq!(read_all(&wal).len() as u64, total);
}

fn within_a_minute(policy: FsyncPolicy) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ended = tokio::time::timeout(Duration::from_mins(1), lives(policy)).await;
        ended.expect("somebody was never woken");
    });
}

/// A process that is being started has copies of all handles until it runs another program.
#[cfg(unix)]
#[test]
fn a_log_that_was_closed_can_be_opened_whoever_starts_a_process_meanwhile() {
    let temp = tempfile::tempdir().unwrap();
    let config = || WalConfig { max_segment_size: 8 << 10, ..WalConfig::in_dir(temp.path()) };
    let is_done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while !is_done.load(Ordering::Acquire) {
                    assert!(std::process::Command::new("true").status().unwrap().success());
                }
            });
        }
        let opened = (0..200).try_for_each(|_| {
            let (wal, _) = blocking::Wal::open(config())?;
            wal.append_with(&Record::put(b"k", b"v"), Level::Os)?;
            wal.close()
        });
        is_done.store(true, Ordering::Release);
        opened.unwrap();
    });
}

/// Counts the segments that a log tells to have deleted.
#[derive(Default)]
struct Deletions(AtomicU64);

impl seawall::Meter for Deletions {
    fn event(&self, event: &seawall::Event<'_>) {
        if let seawall::Event::Deleted { segments, .. } = event {
            self.0.fetch_add(*segments, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_deletion_says_how_many_segments_went_whatever_came_meanwhile() {
    let temp = tempfile::tempdir().unwrap();
    let told = Arc::new(Deletions::default());
    let config = WalConfig {
        max_segment_size: 8 << 10,
        fsync_policy: FsyncPolicy::Os,
        meter: Some(told.clone()),
        ..WalConfig::in_dir(temp.path())
    };
    let (wal, _) = blocking::Wal::open(config).unwrap();
    let (is_done, mut deleted) = (AtomicBool::new(false), 0);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for number in 0..2_000 {
                wal.append(&Record::put(b"k", &record_bytes(number, 1_000))).unwrap();
            }
            is_done.store(true, Ordering::Release);
        });
        while !is_done.load(Ordering::Acquire) {
            deleted += wal.delete_segments_before(wal.stats().durable_lsn).unwrap();
        }
    });
    wal.close().unwrap();
    assert!(deleted > 100, "{deleted}");
    assert_eq!(deleted, told.0.load(Ordering::Relaxed));
}

/// Panics whatever it is told, without a word.
struct Panics;

impl seawall::Meter for Panics {
    fn event(&self, _event: &seawall::Event<'_>) {
        std::panic::resume_unwind(Box::new(()));
    }
}

/// The threads of the log's own that others wait for are not theirs to end.
#[test]
fn a_meter_that_panics_keeps_nobody_waiting() {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig {
        max_segment_size: 32 << 10,
        fsync_policy: FsyncPolicy::Batch(Duration::from_millis(1)),
        meter: Some(Arc::new(Panics)),
        ..WalConfig::in_dir(temp.path())
    };
    let (done, ended) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (wal, _) = blocking::Wal::open(config.clone()).unwrap();
        for number in 0..300 {
            let value = record_bytes(number, 1_000);
            wal.append_with(&Record::put(b"thread", &value), level_of(number)).unwrap();
        }
        wal.delete_segments_before(wal.stats().last_lsn).unwrap();
        let tasks = seawall::Wal::from(wal);
        runtime.block_on(async {
            for number in 0..300 {
                let value = record_bytes(number, 1_000);
                let record = Record::put(b"task", &value);
                tasks.append_with(&record, level_of(number)).await.unwrap();
            }
            tasks.truncate_after(Lsn::new(590)).await.unwrap();
            tasks.close().await.unwrap();
        });
        let (wal, _) = blocking::Wal::open(config).unwrap();
        done.send(wal.stats().last_lsn).unwrap();
    });
    let last = ended.recv_timeout(Duration::from_mins(1)).expect("nobody waits for ever");
    assert_eq!(last, Lsn::new(590));
}

#[test]
fn everybody_is_woken_under_always() {
    within_a_minute(FsyncPolicy::Always);
}

#[test]
fn everybody_is_woken_under_batch() {
    within_a_minute(FsyncPolicy::Batch(Duration::from_millis(2)));
}

#[test]
fn everybody_is_woken_under_os() {
    within_a_minute(FsyncPolicy::Os);
}

/// A deletion that finds nothing to delete ends without a command, so nothing completes that would
/// tell whoever waits for it.
#[test]
fn deletions_without_anything_to_delete_return() {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = blocking::Wal::open(WalConfig::in_dir(temp.path())).unwrap();
    wal.append(&Record::put(b"key", b"value")).unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..20_000 {
            assert_eq!(wal.delete_segments_before(Lsn::new(1)).unwrap(), 0);
        }
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(30)).expect("somebody was never woken");
}

/// Holds the next write of frames, once it is told to.
#[derive(Debug, Default)]
struct Hold {
    next: Mutex<Option<(Sender<()>, Receiver<()>)>>,
    /// And those that come meanwhile.
    holds_others: AtomicBool,
    others: Mutex<()>,
}

impl Hold {
    /// The first channel tells that the write has come, and the other lets it go on.
    fn next_write(&self) -> (Receiver<()>, Sender<()>) {
        let (begun, has_begun) = channel();
        let (release, is_released) = channel();
        *self.next.lock().unwrap() = Some((begun, is_released));
        (has_begun, release)
    }

    /// The same, and none passes it.
    fn all_writes(&self) -> (Receiver<()>, Sender<()>) {
        self.holds_others.store(true, Ordering::Relaxed);
        self.next_write()
    }
}

impl Interpose for Hold {
    fn before(&self, call: &Call) -> Option<Fault> {
        let holds_others = writes_frames(call) && self.holds_others.load(Ordering::Relaxed);
        let _others = holds_others.then(|| self.others.lock().unwrap());
        let held = if writes_frames(call) { self.next.lock().unwrap().take() } else { None };
        if let Some((begun, is_released)) = held {
            begun.send(()).unwrap();
            is_released.recv().unwrap();
        }
        None
    }
}

/// Holds removals of files until it is told to let them go on.
struct HeldRemovals {
    begun: Mutex<Sender<()>>,
    is_released: Mutex<Receiver<()>>,
    was_awaited: AtomicBool,
}

impl HeldRemovals {
    /// The log of a few segments, and the two channels of [`Hold::next_write`].
    fn log(dir: &Path) -> (Arc<Self>, WalConfig, Receiver<()>, Sender<()>) {
        let (begun, has_begun) = channel();
        let (release, is_released) = channel();
        let held = Arc::new(Self {
            begun: Mutex::new(begun),
            is_released: Mutex::new(is_released),
            was_awaited: AtomicBool::new(false),
        });
        let config = WalConfig {
            max_segment_size: 16 << 10,
            batch_size: 8 << 10,
            max_record_size: 8 << 10,
            interpose: Some(held.clone()),
            ..WalConfig::in_dir(dir)
        };
        (held, config, has_begun, release)
    }
}

impl Interpose for HeldRemovals {
    fn before(&self, call: &Call) -> Option<Fault> {
        if call.operation == Operation::Remove {
            self.begun.lock().unwrap().send(()).unwrap();
            // Whoever waits for a removal is let go, so that the test fails and does not hang.
            let is_released = self.is_released.lock().unwrap();
            let patience = Duration::from_secs(20);
            if !self.was_awaited.load(Ordering::Relaxed)
                && is_released.recv_timeout(patience) == Err(RecvTimeoutError::Timeout)
            {
                self.was_awaited.store(true, Ordering::Relaxed);
            }
        }
        None
    }
}

/// So many segments of the log above, all of them durable.
fn append_segments(wal: &blocking::Wal, count: usize) {
    let newest = |wal: &blocking::Wal| wal.stats().segments.last().map_or(0, |it| it.segment.get());
    let last = newest(wal) + count as u64;
    while newest(wal) < last {
        wal.append_with(&Record::put(b"k", &[7; 5 << 10]), Level::Disk).unwrap();
    }
}

/// The file system may take a tenth of a second to remove a long file.
#[test]
fn a_removal_that_takes_long_holds_up_no_append() {
    let temp = tempfile::tempdir().unwrap();
    let (held, config, has_begun, release) = HeldRemovals::log(temp.path());
    let (wal, _) = blocking::Wal::open(config.clone()).unwrap();
    append_segments(&wal, 4);
    let deleting = wal.clone();
    let deleting = std::thread::spawn(move || {
        deleting.delete_segments_before(deleting.current_position()).unwrap()
    });
    has_begun.recv().unwrap();
    append_segments(&wal, 4);
    assert!(!held.was_awaited.load(Ordering::Relaxed), "an append waited for a removal");
    drop(release);
    assert!(deleting.join().unwrap() >= 3);
    wal.close().unwrap();
    drop(wal);
    let (wal, _) = blocking::Wal::open(config).unwrap();
    append_segments(&wal, 1);
}

/// Nobody waits for the deletion any more, and the log is dropped: its folder is free only once no
/// file is removed from it.
#[tokio::test]
async fn a_log_that_is_dropped_ends_what_it_removes() {
    let temp = tempfile::tempdir().unwrap();
    let (_, config, has_begun, release) = HeldRemovals::log(temp.path());
    let (wal, _) = seawall::Wal::open(config.clone()).await.unwrap();
    append_segments(wal.blocking(), 4);
    let mut deletion = Box::pin(wal.delete_segments_before(wal.current_position()));
    let is_pending = std::future::poll_fn(|context| {
        std::task::Poll::Ready(deletion.as_mut().poll(context).is_pending())
    });
    assert!(is_pending.await);
    has_begun.recv().unwrap();
    drop(deletion);
    let other = blocking::Wal::open(config.clone());
    assert!(matches!(other, Err(Error::Locked { .. })), "{other:?}");
    let dropping = std::thread::spawn(move || drop(wal));
    drop(release);
    dropping.join().unwrap();
    let (wal, _) = blocking::Wal::open(config).unwrap();
    append_segments(&wal, 1);
}

/// Which threads wrote frames: their names, in order.
#[derive(Default)]
struct Writers {
    names: Mutex<Vec<String>>,
    /// Each write takes longer than a task waits for one.
    is_slow: AtomicBool,
}

impl Interpose for Writers {
    fn before(&self, call: &Call) -> Option<Fault> {
        if writes_frames(call) {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            self.names.lock().unwrap().push(name);
            let began = Instant::now();
            while self.is_slow.load(Ordering::Relaxed) && began.elapsed() < Duration::from_millis(2)
            {
                std::hint::spin_loop();
            }
        }
        None
    }
}

impl Writers {
    /// Those since the last look.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.names.lock().unwrap())
    }
}

const LOGS_OWN: &str = "seawall-commits";

/// A log at `Os` for tasks, of which no write sets out but for an append.
async fn log_for_tasks(dir: &Path) -> (Arc<Writers>, seawall::Wal) {
    let writers = Arc::new(Writers::default());
    let config = WalConfig {
        fsync_policy: FsyncPolicy::Os,
        interpose: Some(writers.clone()),
        ..WalConfig::in_dir(dir)
    };
    let (wal, _) = seawall::Wal::open(config).await.unwrap();
    wal.append_with(&Record::put(b"k", b"first"), Level::Disk).await.unwrap();
    writers.take();
    (writers, wal)
}

#[tokio::test]
async fn a_task_writes_what_is_short_and_syncs_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (writers, wal) = log_for_tasks(temp.path()).await;
    let here = std::thread::current().name().unwrap().to_owned();
    assert_ne!(here, LOGS_OWN);
    // On a busy machine a short write may look like a long one, and the log writes for a while.
    let mut appends = 0_u32;
    for what in 0..3 {
        let mut own = 0;
        while own < 100 {
            match what {
                0 => drop(wal.append(&Record::put(b"k", &appends.to_le_bytes())).await.unwrap()),
                1 => drop(wal.append_batch(&[Record::put(b"k", &[7; 1_000]); 50]).await.unwrap()),
                _ => {
                    wal.append_with(&Record::put(b"k", b"v"), Level::Buffered).await.unwrap();
                    wal.flush().await.unwrap();
                }
            }
            appends += 1;
            assert!(appends < 100_000, "tasks do not write");
            own += writers.take().iter().filter(|name| **name == here).count();
        }
    }
    wal.append_with(&Record::put(b"k", b"synced"), Level::Disk).await.unwrap();
    wal.append(&Record::put(b"k", &vec![7; 65 << 10])).await.unwrap();
    wal.append_batch(&vec![Record::put(b"k", &[7; 1_000]); 70]).await.unwrap();
    assert_eq!(writers.take(), [LOGS_OWN; 3]);
    wal.close().await.unwrap();
    assert_eq!(wal.stats().appends, u64::from(appends) + 1 + 3);
}

#[tokio::test]
async fn after_a_write_that_had_to_wait_tasks_leave_writes_to_the_log() {
    let temp = tempfile::tempdir().unwrap();
    let (writers, wal) = log_for_tasks(temp.path()).await;
    // Should the machine stand still for longer than the log remembers, once more.
    loop {
        writers.is_slow.store(true, Ordering::Relaxed);
        while writers.take().first().is_none_or(|name| name == LOGS_OWN) {
            wal.append(&Record::put(b"k", b"slow")).await.unwrap();
        }
        writers.is_slow.store(false, Ordering::Relaxed);
        wal.append(&Record::put(b"k", b"next")).await.unwrap();
        if writers.take() == [LOGS_OWN] {
            break;
        }
    }
    // And take them up again.
    while writers.take().first().is_none_or(|name| name == LOGS_OWN) {
        wal.append(&Record::put(b"k", b"later")).await.unwrap();
    }
    wal.close().await.unwrap();
}

/// All in one thread: who appends or reads without end must let others have their turn.
#[tokio::test]
async fn a_task_that_goes_on_without_end_lets_others_run() {
    let temp = tempfile::tempdir().unwrap();
    let (_, wal) = log_for_tasks(temp.path()).await;
    let mut reader = wal.iter().await.unwrap();
    for level in [Some(Level::Buffered), Some(Level::Os), None] {
        let told = Arc::new(AtomicBool::new(false));
        let other = tokio::spawn({
            let told = told.clone();
            async move { told.store(true, Ordering::Relaxed) }
        });
        let mut calls = 0;
        while !told.load(Ordering::Relaxed) {
            if let Some(level) = level {
                wal.append_with(&Record::put(b"k", b"v"), level).await.unwrap();
            } else {
                reader.seek(Lsn::new(1)).await.unwrap();
                assert!(reader.next_record().await.unwrap().is_some());
            }
            calls += 1;
            assert!(calls < 10_000, "at {level:?} nobody else had a turn");
        }
        other.await.unwrap();
    }
}

#[tokio::test]
async fn a_task_is_told_what_became_of_its_own_write() {
    for code in [ENOSPC, EIO] {
        let temp = tempfile::tempdir().unwrap();
        let watch = Arc::new(Watch::default());
        let config = WalConfig {
            fsync_policy: FsyncPolicy::Os,
            interpose: Some(watch.clone()),
            ..WalConfig::in_dir(temp.path())
        };
        let (wal, _) = seawall::Wal::open(config).await.unwrap();
        let append = || async { wal.append(&Record::put(b"k", b"v")).await };
        for _ in 0..100 {
            append().await.unwrap();
        }
        let mut is_first = true;
        watch.set(move |call| {
            let fails = writes_frames(call) && std::mem::replace(&mut is_first, false);
            fails.then(|| Fault::Fails(os_error(code)))
        });
        let error = append().await.unwrap_err();
        let after = append().await;
        if code == ENOSPC {
            assert!(matches!(error, Error::DiskFull(_)), "{error}");
            assert!(after.is_ok(), "{after:?}");
        } else {
            assert!(matches!(error, Error::Poisoned(_)), "{error}");
            assert!(matches!(after, Err(Error::Poisoned(_))), "{after:?}");
        }
        drop(wal);
        let (wal, _) = blocking::Wal::open(WalConfig::in_dir(temp.path())).unwrap();
        assert_eq!(read_all(&wal).len(), 100 + usize::from(code == ENOSPC));
    }
}

/// Who is done while others wait for the next write wakes one of them to make it.
#[test]
fn who_is_done_hands_over() {
    let temp = tempfile::tempdir().unwrap();
    let hold = Arc::new(Hold::default());
    let config = WalConfig {
        fsync_policy: FsyncPolicy::Always,
        interpose: Some(hold.clone()),
        ..WalConfig::in_dir(temp.path())
    };
    let (wal, _) = blocking::Wal::open(config).unwrap();
    let wal = Arc::new(wal);
    // Whatever a log does at its first append is done.
    wal.append(&Record::put(b"k", b"first")).unwrap();
    let (has_begun, release) = hold.next_write();
    let (done, is_done) = channel();
    let appends = |number: u8| {
        let (wal, done) = (wal.clone(), done.clone());
        std::thread::spawn(move || {
            wal.append(&Record::put(b"k", &[number])).unwrap();
            done.send(number).unwrap();
        })
    };
    appends(1);
    has_begun.recv().unwrap();
    for number in 2..=4 {
        appends(number);
    }
    // They are in the batch that comes next, and wait.
    while wal.stats().appends < 5 {
        std::thread::yield_now();
    }
    release.send(()).unwrap();
    let limit = Duration::from_mins(1);
    let mut numbers: Vec<u8> = (0..4).map(|_| is_done.recv_timeout(limit).unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

/// The file is shorter then than it will be.
#[test]
fn a_segment_whose_last_frames_are_not_written_yet_is_not_mapped() {
    let temp = tempfile::tempdir().unwrap();
    let hold = Arc::new(Hold::default());
    let config = WalConfig {
        // What is shown is longer than a read, and what is not yet written than a page.
        max_segment_size: 256 << 10,
        read_size: 64 << 10,
        fsync_policy: FsyncPolicy::Os,
        preallocate: false,
        map_sealed: true,
        interpose: Some(hold.clone()),
        ..WalConfig::in_dir(temp.path())
    };
    let (wal, _) = blocking::Wal::open(config).unwrap();
    let value = |lsn| record_bytes(lsn, 500);
    let append = |lsn, level| wal.append_with(&Record::put(b"", &value(lsn)), level).unwrap();
    for lsn in 1..=200 {
        append(lsn, Level::Os);
    }
    wal.sync().unwrap();
    // It opens its segment at the first record.
    let mut reader = wal.iter().unwrap();
    let (has_begun, release) = hold.all_writes();
    std::thread::scope(|scope| {
        // Dropped should an assertion fail, so that nobody waits for it.
        let release = release;
        scope.spawn(|| append(201, Level::Disk));
        has_begun.recv().unwrap();
        let mut last = 201;
        while wal.stats().segments.len() < 2 {
            last += 1;
            append(last, Level::Buffered);
        }
        for lsn in 1..=200 {
            assert_eq!(reader.next_record().unwrap().unwrap().0.value, value(lsn));
        }
        assert!(reader.next_record().unwrap().is_none());
        release.send(()).unwrap();
        wal.sync().unwrap();
        for lsn in 201..=last {
            assert_eq!(reader.next_record().unwrap().unwrap().0.value, value(lsn));
        }
    });
}

/// The page cache must not keep what stood there before a write went past it. Short writes go
/// through it, into the same blocks.
#[test]
fn readers_follow_writes_that_go_past_the_page_cache() {
    const BATCHES: u64 = 60;
    let value = |number: u64| {
        let length = if number.is_multiple_of(5) { 100 } else { 40_000 + number * 997 % 60_000 };
        record_bytes(number, usize::try_from(length).unwrap())
    };
    for map_sealed in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let config = WalConfig {
            uring_size: Some(64 << 10),
            max_segment_size: 8 << 20,
            map_sealed,
            ..WalConfig::in_dir(temp.path())
        };
        let (wal, _) = blocking::Wal::open(config).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let mut reader = wal.iter().unwrap();
                scope.spawn(move || {
                    for number in 0..BATCHES * 5 {
                        let (entry, _) = reader.wait_record(None).unwrap().unwrap();
                        assert_eq!(entry.lsn, Lsn::new(number + 1));
                        assert!(entry.value == value(number), "{number}");
                    }
                });
            }
            for batch in 0..BATCHES {
                let values: Vec<_> = (batch * 5..batch * 5 + 5).map(value).collect();
                let records: Vec<_> = values.iter().map(|value| Record::put(b"", value)).collect();
                wal.append_with(&records[0], Level::Disk).unwrap();
                wal.append_batch_with(&records[1..], Level::Disk).unwrap();
            }
        });
    }
}

/// Files of deleted segments that become segments again, and readers who still have them open.
#[cfg(unix)]
mod recycling {
    use seawall::blocking::Wal;
    use seawall::{Error, FsyncPolicy, Lsn, Record, Start, Visibility, WalConfig};
    use seawall_tests::records::{read_all, record_bytes};
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    fn config(dir: &Path) -> WalConfig {
        WalConfig {
            max_segment_size: 64 << 10,
            fsync_policy: FsyncPolicy::Os,
            recycle_segments: 2,
            ..WalConfig::in_dir(dir)
        }
    }

    fn value(lsn: u64) -> Vec<u8> {
        record_bytes(lsn, 1_000)
    }

    /// Appends until the log is in the segment of this number.
    fn append_to(wal: &Wal, segment: u64) {
        loop {
            let lsn = wal.stats().last_lsn.next();
            let position = wal.append(&Record::put(b"", &value(lsn.get()))).unwrap();
            if position.segment.get() >= segment {
                return;
            }
        }
    }

    /// The segments' files: their numbers, and which files they are.
    fn files(dir: &Path) -> Vec<(u64, u64)> {
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .filter_map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                let number = name.strip_suffix(".wal")?.parse().ok()?;
                Some((number, entry.metadata().unwrap().ino()))
            })
            .collect();
        files.sort_unstable();
        files
    }

    fn delete_before_last(wal: &Wal) {
        wal.delete_segments_before(wal.stats().last_lsn).unwrap();
    }

    /// Reads all, and says how many records that were.
    fn read(wal: &Wal) -> u64 {
        let entries = read_all(wal);
        assert!(entries.iter().all(|entry| entry.value == value(entry.lsn.get())));
        entries.len() as u64
    }

    #[test]
    fn files_of_deleted_segments_become_segments_again() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Wal::open(config(dir.path())).unwrap().0;
        append_to(&wal, 4);
        let before = files(dir.path());
        // A file that is open without being held may be recycled, and its number is nobody else's.
        let open =
            |(number, _): &(u64, u64)| File::open(dir.path().join(format!("{number:020}.wal")));
        let _open: Vec<_> = before.iter().map(|file| open(file).unwrap()).collect();
        delete_before_last(&wal);
        append_to(&wal, 8);
        let after = files(dir.path());
        let recycled: Vec<_> = before
            .iter()
            .filter_map(|(old, file)| {
                let now = after.iter().find(|(_, other)| other == file)?.0;
                (now != *old).then_some((*old, now))
            })
            .collect();
        assert_eq!(recycled.len(), 2, "{before:?} {after:?}");
        assert_eq!(recycled[0].0, 1, "the oldest first: {recycled:?}");
        let first = wal.stats().first_lsn;
        assert_eq!(read(&wal), wal.stats().last_lsn.next().since(first));
        // What waits when the log is closed goes.
        delete_before_last(&wal);
        let first = wal.stats().first_lsn;
        let last = wal.stats().last_lsn;
        wal.close().unwrap();
        assert_eq!(files(dir.path()).len(), 1);
        let (wal, info) = Wal::open(config(dir.path())).unwrap();
        assert!(!info.corruption_detected && info.report.was_clean, "{info:?}");
        assert_eq!(read(&wal), last.next().since(first));
    }

    #[test]
    fn a_file_that_somebody_has_open_is_not_recycled() {
        for (map_sealed, elsewhere) in [(false, false), (true, false), (false, true), (true, true)]
        {
            let dir = tempfile::tempdir().unwrap();
            let config = WalConfig { map_sealed, ..config(dir.path()) };
            let wal = Wal::open(config.clone()).unwrap().0;
            append_to(&wal, 4);
            let old = files(dir.path())[0];
            let mut reader = if elsewhere {
                Wal::open_read_only(config).unwrap().0.iter().unwrap()
            } else {
                wal.read_from_with(Start::First, Visibility::Written).unwrap()
            };
            let (kept, _) = reader.next_record().unwrap().unwrap();
            delete_before_last(&wal);
            append_to(&wal, 8);
            let now = files(dir.path());
            assert!(now.iter().all(|(_, file)| *file != old.1), "{old:?} {now:?}");
            if elsewhere {
                let (next, _) = reader.next_record().unwrap().unwrap();
                assert_eq!((next.lsn, &next.value[..]), (Lsn::new(2), &value(2)[..]));
            } else {
                let error = reader.next_record().unwrap_err();
                assert!(matches!(error, Error::Deleted { .. }), "{error}");
            }
            drop(reader);
            // A value that was handed out holds its mapping, and that the file.
            assert_eq!(kept.value, value(1), "mapped {map_sealed}");
            append_to(&wal, 10);
            assert_eq!(kept.value, value(1), "mapped {map_sealed}");
        }
    }

    #[test]
    fn readers_and_deletions_at_once_see_whole_records() {
        let dir = tempfile::tempdir().unwrap();
        for map_sealed in [false, true] {
            let config =
                WalConfig { map_sealed, ..config(&dir.path().join(map_sealed.to_string())) };
            let wal = Wal::open(config).unwrap().0;
            append_to(&wal, 2);
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    for segment in 3..60 {
                        append_to(&wal, segment);
                        delete_before_last(&wal);
                    }
                });
                let mut seen = 0;
                while !writer.is_finished() || seen == 0 {
                    let Ok(mut reader) = wal.iter() else { continue };
                    loop {
                        match reader.next_record() {
                            Ok(Some((entry, _))) => {
                                assert_eq!(entry.value, value(entry.lsn.get()));
                                seen += 1;
                            }
                            Ok(None) | Err(Error::Deleted { .. }) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    }
}

/// Readers that have only the files, as in another process: what they see when they look again.
mod beside {
    use seawall::blocking::{ReadOnly, Reader, Wal};
    use seawall::{Fault, FsyncPolicy, Lsn, Operation, Record, RecoveryPolicy, WalConfig};
    use seawall_tests::interpose::{ENOSPC, Watch, os_error, writes_frames};
    use seawall_tests::random::Random;
    use seawall_tests::records::record_bytes;
    use seawall_tests::runner::number;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn config(dir: &Path) -> WalConfig {
        WalConfig { fsync_policy: FsyncPolicy::Always, ..WalConfig::in_dir(dir) }
    }

    fn watched(dir: &Path) -> (WalConfig, Arc<Watch>) {
        let watch = Arc::new(Watch::default());
        (WalConfig { interpose: Some(watch.clone()), ..config(dir) }, watch)
    }

    fn left(reader: &mut Reader) -> Vec<(u64, Vec<u8>)> {
        let mut left = Vec::new();
        while let Some((entry, _)) = reader.next_record().unwrap() {
            left.push((entry.lsn.get(), entry.value.to_vec()));
        }
        left
    }

    fn shown(log: &ReadOnly) -> Vec<(u64, Vec<u8>)> {
        left(&mut log.iter().unwrap())
    }

    /// One change of a log, and the log, which may have been opened anew.
    fn change(random: &mut Random, wal: Wal, config: &WalConfig) -> Wal {
        let last = wal.stats().last_lsn.get();
        let values: Vec<_> = (0..=random.below(4))
            .map(|ahead| {
                let length = random.below(600) + random.below(2) * random.below(1_000);
                record_bytes(random.below(1_000) + last + ahead, usize::try_from(length).unwrap())
            })
            .collect();
        match random.below(12) {
            0..=5 => drop(wal.append(&Record::put(b"k", &values[0])).unwrap()),
            6..=7 => {
                let records: Vec<_> = values.iter().map(|value| Record::put(b"", value)).collect();
                wal.append_batch(&records).unwrap();
            }
            8 => wal.rotate().unwrap(),
            9 => drop(wal.delete_segments_before(Lsn::new(random.below(last + 1))).unwrap()),
            10 => {
                let first = wal.stats().first_lsn.get();
                let left = random.below(last + 2 - first);
                wal.truncate_after(Lsn::new(last - left)).unwrap();
            }
            _ => {
                if random.chance(1, 2) {
                    wal.close().unwrap();
                }
                drop(wal);
                return Wal::open(config.clone()).unwrap().0;
            }
        }
        wal
    }

    #[test]
    fn who_looks_again_sees_what_a_new_look_sees() {
        let seeds = number("SEAWALL_SEED").map_or(0..10, |seed| seed..seed + 1);
        for seed in seeds {
            println!("replay with SEAWALL_SEED={seed}");
            let dir = tempfile::tempdir().unwrap();
            let mut random = Random::new(seed);
            let policies = [RecoveryPolicy::PrefixValid, RecoveryPolicy::Salvage];
            let config = WalConfig {
                max_segment_size: 8 << 10,
                recycle_segments: random.index(3),
                recovery: policies[random.index(2)],
                ..config(dir.path())
            };
            let mut wal = Wal::open(config.clone()).unwrap().0;
            let (log, _) = Wal::open_read_only(config.clone()).unwrap();
            let mut seen = Vec::new();
            // One reader goes on for as long as what it has read stays.
            let (mut reader, mut followed) = (log.iter().unwrap(), Vec::new());
            for _ in 0..60 {
                wal = change(&mut random, wal, &config);
                let has_grown = log.refresh().unwrap();
                let fresh = shown(&Wal::open_read_only(config.clone()).unwrap().0);
                let now = shown(&log);
                assert!(now == fresh, "{} and {} records", now.len(), fresh.len());
                assert!(has_grown || now == seen);
                assert_eq!(log.stats().last_lsn, wal.stats().last_lsn);
                if reader.renew().is_err() {
                    (reader, followed) = (log.iter().unwrap(), Vec::new());
                }
                followed.extend(left(&mut reader));
                assert!(followed.ends_with(&now), "{} followed", followed.len());
                seen = now;
            }
        }
    }

    /// How often all of the log was looked at.
    fn looks(watch: &Watch) -> usize {
        watch.calls().iter().filter(|call| call.operation == Operation::List).count()
    }

    #[test]
    fn who_looks_again_reads_only_what_has_come() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Wal::open(config(dir.path())).unwrap().0;
        let append = |number| wal.append(&Record::put(b"", &record_bytes(number, 5_000))).unwrap();
        append(1);
        let (reading, watch) = watched(dir.path());
        let (log, _) = Wal::open_read_only(reading).unwrap();
        for number in 2..=60 {
            append(number);
            assert!(log.refresh().unwrap() && !log.refresh().unwrap());
            assert_eq!(shown(&log).len() as u64, number);
        }
        // The segment after this one is made meanwhile: two names and the manifest.
        assert!(looks(&watch) < 8, "{}", looks(&watch));
    }

    /// A truncation is recorded before the file is cut: what stands behind its end is dead by then.
    #[test]
    fn who_looks_again_sees_nothing_that_was_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let (writing, watch) = watched(dir.path());
        let wal = Wal::open(writing).unwrap().0;
        for number in 1..=9 {
            wal.append(&Record::put(b"", &record_bytes(number, 50))).unwrap();
        }
        let (log, _) = Wal::open_read_only(config(dir.path())).unwrap();
        let seen = Arc::new(AtomicU64::new(0));
        let (looks, looker) = (seen.clone(), log.clone());
        watch.set(move |call| {
            if call.operation == Operation::Truncate {
                assert!(looker.refresh().unwrap() && !looker.refresh().unwrap());
                looks.store(looker.stats().last_lsn.get(), Ordering::Relaxed);
            }
            None
        });
        wal.truncate_after(Lsn::new(5)).unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 5);
    }

    /// A full disk takes back what stood whole in the file for a moment.
    #[test]
    fn who_looks_again_sees_what_was_undone() {
        let dir = tempfile::tempdir().unwrap();
        let (writing, watch) = watched(dir.path());
        let wal = Wal::open(writing).unwrap().0;
        let append = |number| wal.append(&Record::put(b"", &record_bytes(number, 500)));
        append(1).unwrap();
        let (log, _) = Wal::open_read_only(config(dir.path())).unwrap();
        append(2).unwrap();
        assert!(log.refresh().unwrap());
        let seen = Arc::new(AtomicU64::new(0));
        let (looks, looker) = (seen.clone(), log.clone());
        watch.set(move |call| {
            if call.operation == Operation::Truncate {
                assert!(looker.refresh().unwrap());
                looks.store(looker.stats().last_lsn.get(), Ordering::Relaxed);
            }
            writes_frames(call).then(|| Fault::Short(call.bytes, os_error(ENOSPC)))
        });
        assert!(append(3).is_err());
        watch.clear();
        assert_eq!(seen.load(Ordering::Relaxed), 3, "it was there");
        assert!(log.refresh().unwrap());
        assert_eq!(shown(&log).len(), 2);
        append(4).unwrap();
        assert!(log.refresh().unwrap());
        assert_eq!(shown(&log)[2].1, record_bytes(4, 500));
    }
}
