//! Faults of other logs that have to do with what an acknowledgement is worth: D1 to D10, D27, D28.

use seawall::blocking::Wal;
use seawall::{
    Call, Error, Event, Fault, FileId, FsyncPolicy, Interpose, Level, Lsn, Meter, Operation,
    Record, SegmentId, Start, WalConfig,
};
use seawall_tests::interpose::{EIO, ENOSPC, Watch, os_error, writes_frames};
use seawall_tests::records::{read_all, record_bytes};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn config(dir: &Path, policy: FsyncPolicy, watch: &Arc<Watch>) -> WalConfig {
    WalConfig {
        fsync_policy: policy,
        max_segment_size: 64 << 10,
        interpose: Some(watch.clone()),
        ..WalConfig::in_dir(dir)
    }
}

fn watched(policy: FsyncPolicy) -> (tempfile::TempDir, Arc<Watch>, Wal) {
    let temp = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    let (wal, _) = Wal::open(config(temp.path(), policy, &watch)).unwrap();
    (temp, watch, wal)
}

fn reopened(dir: &Path) -> Vec<Vec<u8>> {
    let config = WalConfig { max_segment_size: 64 << 10, ..WalConfig::in_dir(dir) };
    let (wal, info) = Wal::open(config).unwrap();
    assert!(!info.corruption_detected, "{info:?}");
    let values = read_all(&wal).into_iter().map(|entry| entry.value.to_vec()).collect();
    wal.close().unwrap();
    values
}

/// Fails the `nth` call that `is_meant`, counted from 1.
fn fail_nth(
    nth: u32,
    is_meant: impl Fn(&Call) -> bool + Send + 'static,
    fault: impl Fn() -> Fault + Send + 'static,
) -> impl FnMut(&Call) -> Option<Fault> + Send + 'static {
    let mut seen = 0;
    move |call| {
        seen += u32::from(is_meant(call));
        (is_meant(call) && seen == nth).then(&fault)
    }
}

/// Appends until an error comes; returns how many were acknowledged, and the error.
fn append_until_error(wal: &Wal, most: u32) -> (u32, Option<Error>) {
    for number in 0..most {
        if let Err(error) = wal.append(&Record::put(b"k", &number.to_le_bytes())) {
            return (number, Some(error));
        }
    }
    (most, None)
}

#[test]
fn fault_d01_a_failed_write_is_not_acknowledged() {
    for nth in 1..12 {
        let (temp, watch, wal) = watched(FsyncPolicy::Always);
        watch.set(fail_nth(nth, writes_frames, || Fault::Fails(os_error(EIO))));
        let (acknowledged, error) = append_until_error(&wal, 26);
        assert_eq!(acknowledged, nth - 1);
        assert!(matches!(error, Some(Error::Poisoned(_))), "{error:?}");
        watch.clear();
        assert!(matches!(wal.append(&Record::put(b"k", b"v")), Err(Error::Poisoned(_))));
        drop(wal);
        assert!(reopened(temp.path()).len() >= acknowledged as usize);
    }
}

#[test]
fn fault_d02_nothing_lands_behind_the_garbage_of_a_short_write() {
    for (code, taken) in [(EIO, 7), (ENOSPC, 7), (ENOSPC, 0), (ENOSPC, 1 << 20)] {
        let (temp, watch, wal) = watched(FsyncPolicy::Always);
        watch.set(fail_nth(3, writes_frames, move || Fault::Short(taken, os_error(code))));
        let (acknowledged, error) = append_until_error(&wal, 26);
        assert_eq!(acknowledged, 2);
        let mut expected = 2;
        if code == ENOSPC {
            assert!(matches!(error, Some(Error::DiskFull(_))), "{error:?}");
            let (more, error) = append_until_error(&wal, 10);
            assert!(error.is_none(), "appends work again: {error:?}");
            expected += more;
        } else {
            assert!(matches!(error, Some(Error::Poisoned(_))), "{error:?}");
        }
        drop(wal);
        let records = reopened(temp.path());
        assert_eq!(records.len(), expected as usize, "code {code}, {taken} bytes taken");
    }
}

#[tokio::test]
async fn fault_d03_a_dropped_append_leaves_a_sound_log() {
    let (temp, _, wal) = async_log(64 << 10).await;
    for number in 0..200_u32 {
        let (key, value) = (number.to_le_bytes(), vec![7; 300]);
        let record = Record::put(&key, &value);
        let append = wal.append_with(&record, Level::Disk);
        // Polled once, then dropped.
        tokio::select! {
            biased;
            _ = append => {}
            () = std::future::ready(()) => {}
        }
    }
    let mut positions = Vec::new();
    for _ in 0..10 {
        positions.push(wal.append_with(&Record::put(b"kept", b"kept"), Level::Disk).await.unwrap());
    }
    let first_kept = positions[0].first.get();
    drop(wal);
    let records = reopened(temp.path());
    assert_eq!(records.len() as u64, first_kept + 9);
    assert!(records.iter().rev().take(10).all(|value| value == b"kept"));
}

async fn async_log(segment: u64) -> (tempfile::TempDir, Arc<Watch>, seawall::Wal) {
    let temp = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    let config =
        WalConfig { max_segment_size: segment, ..config(temp.path(), FsyncPolicy::Always, &watch) };
    let (wal, _) = seawall::Wal::open(config).await.unwrap();
    (temp, watch, wal)
}

#[tokio::test]
async fn fault_d04_a_future_dropped_inside_a_rotation_harms_nothing() {
    let (temp, _, wal) = async_log(4 << 10).await;
    let mut acknowledged = 0;
    for number in 0..300_u32 {
        let value = record_bytes(u64::from(number), 500);
        let record = Record::put(b"k", &value);
        let append = wal.append(&record);
        if number % 2 == 0 {
            tokio::select! {
                biased;
                _ = append => {}
                () = std::future::ready(()) => {}
            }
        } else {
            append.await.unwrap();
            acknowledged += 1;
        }
        if number % 10 == 0 {
            tokio::select! {
                biased;
                _ = wal.rotate() => {}
                () = std::future::ready(()) => {}
            }
        }
    }
    drop(wal);
    let records = reopened(temp.path());
    assert!(records.len() >= acknowledged, "{} of {acknowledged}", records.len());
}

#[test]
fn fault_d05_a_second_writer_is_refused_and_the_first_goes_on() {
    let (temp, watch, wal) = watched(FsyncPolicy::Always);
    append_until_error(&wal, 10);
    let second = Wal::open(config(temp.path(), FsyncPolicy::Always, &watch));
    assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
    append_until_error(&wal, 100);
    drop(wal);
    assert_eq!(reopened(temp.path()).len(), 110);
}

#[test]
fn fault_d06_a_sync_covers_what_slipped_into_a_segment_being_sealed() {
    let (temp, watch, wal) = watched(FsyncPolicy::Os);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| append_until_error(&wal, 400));
        }
        scope.spawn(|| {
            for _ in 0..20 {
                wal.rotate().unwrap();
            }
        });
    });
    wal.sync().unwrap();
    assert_eq!(watch.unsynced(), Vec::new());
    drop(wal);
    assert_eq!(reopened(temp.path()).len(), 1_200);
}

#[test]
fn fault_d07_a_failed_sync_is_never_forgotten() {
    let (_temp, watch, wal) = watched(FsyncPolicy::Always);
    append_until_error(&wal, 5);
    watch.set(fail_nth(1, writes_frames, || Fault::SyncFails(os_error(ENOSPC))));
    let first = wal.append(&Record::put(b"k", b"v")).unwrap_err().to_string();
    watch.clear();
    for _ in 0..3 {
        let again = wal.append(&Record::put(b"k", b"v")).unwrap_err().to_string();
        assert_eq!(again, first, "the first cause stays");
        assert!(wal.sync().is_err());
        assert!(wal.rotate().is_err());
        assert!(wal.close().is_err());
    }
}

#[test]
fn fault_d08_a_segment_is_not_used_before_its_name_is_synced() {
    let (_temp, watch, wal) = watched(FsyncPolicy::Always);
    for number in 0..400 {
        wal.append(&Record::put(b"k", &record_bytes(number, 700))).unwrap();
    }
    let mut pending = None;
    let mut used = 0;
    for call in watch.calls() {
        match (call.operation, call.file) {
            (Operation::Rename, file) => pending = file,
            (Operation::SyncDir, _) => pending = None,
            (Operation::Write, file) if writes_frames(&call) => {
                used += 1;
                assert_ne!(file, pending, "written before its name was durable");
            }
            _ => {}
        }
    }
    assert!(used > 100);
}

/// Tells what happens through a channel.
struct Tell(Mutex<Sender<String>>);

impl Meter for Tell {
    fn event(&self, event: &Event<'_>) {
        let text = match event {
            Event::Synced { lsn, .. } => format!("synced {lsn}"),
            Event::Degraded(failure) => format!("degraded {failure}"),
            Event::DiskFull(failure) => format!("full {failure}"),
            Event::Poisoned(poison) => format!("poisoned: {poison}"),
            _ => return,
        };
        // Nobody listens any more once the test has seen enough.
        self.0.lock().unwrap().send(text).ok();
    }
}

#[test]
fn fault_d09_the_window_is_kept_with_no_further_append() {
    let temp = tempfile::tempdir().unwrap();
    let (tell, told) = channel();
    let config = WalConfig {
        fsync_policy: FsyncPolicy::Batch(Duration::from_millis(5)),
        meter: Some(Arc::new(Tell(Mutex::new(tell)))),
        ..WalConfig::in_dir(temp.path())
    };
    let (wal, _) = Wal::open(config).unwrap();
    append_until_error(&wal, 50);
    let patience = Duration::from_secs(10);
    while told.recv_timeout(patience).expect("a sync by itself") != "synced 50" {}
    assert_eq!(wal.stats().durable_lsn.get(), 50);
    // By now there is nothing else to do that would bring the sync about in passing.
    for last in 51..=53 {
        wal.append(&Record::put(b"k", b"alone")).unwrap();
        let synced = format!("synced {last}");
        while told.recv_timeout(patience).expect("a sync by itself") != synced {}
    }
}

#[test]
fn fault_d10_under_os_the_kernel_has_what_was_acknowledged() {
    let (temp, _, wal) = watched(FsyncPolicy::Os);
    let path = temp.path().join("00000000000000000001.wal");
    for number in 0..300_u64 {
        let value = record_bytes(number, 40);
        wal.append(&Record::put(b"k", &value)).unwrap();
        let file = std::fs::read(&path).unwrap();
        assert!(file.windows(value.len()).any(|window| window == value), "record {number}");
    }
}

#[test]
fn fault_d27_a_full_disk_is_told_and_not_hidden_by_preallocation() {
    let temp = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    watch.set(|call| {
        (call.operation == Operation::Allocate).then(|| Fault::Fails(os_error(ENOSPC)))
    });
    let (tell, told) = channel();
    let config = WalConfig {
        meter: Some(Arc::new(Tell(Mutex::new(tell)))),
        ..config(temp.path(), FsyncPolicy::Always, &watch)
    };
    let (wal, _) = Wal::open(config).unwrap();
    append_until_error(&wal, 5);
    assert!(told.iter().next().unwrap().contains("degraded"), "it is told");
    watch.set(|call| {
        let takes_room = matches!(call.operation, Operation::Allocate | Operation::Create);
        (takes_room || writes_frames(call)).then(|| Fault::Fails(os_error(ENOSPC)))
    });
    for _ in 0..3 {
        let error = wal.append(&Record::put(b"k", b"refused")).unwrap_err();
        assert!(matches!(error, Error::DiskFull(_)), "{error}");
    }
    assert_eq!(read_all(&wal).len(), 5, "what was acknowledged stays readable");
    watch.clear();
    let (more, error) = append_until_error(&wal, 500);
    assert!(error.is_none(), "appends work again when room returns: {error:?}");
    wal.close().unwrap();
    assert_eq!(reopened(temp.path()).len() as u64, 5 + u64::from(more));
}

#[test]
fn fault_d28_others_append_while_a_sync_runs() {
    let temp = tempfile::tempdir().unwrap();
    let (began, has_begun) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let watch = Arc::new(Watch::default());
    let hold = Hold { watch: watch.clone(), began, may_go_on: Mutex::new(may_go_on) };
    let config = WalConfig {
        interpose: Some(Arc::new(hold)),
        ..config(temp.path(), FsyncPolicy::Os, &watch)
    };
    let (slow, _) = Wal::open(config).unwrap();
    slow.append(&Record::put(b"k", b"first")).unwrap();
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| slow.sync());
        has_begun.recv().unwrap();
        for _ in 0..100 {
            slow.append(&Record::put(b"k", b"meanwhile")).unwrap();
        }
        assert_eq!(slow.stats().written_lsn.get(), 101);
        drop(go_on);
        syncing.join().unwrap().unwrap();
    });
    let mut reader = slow.read_from(Start::First).unwrap();
    assert!(reader.next_record().unwrap().is_some());
}

/// Holds the syncs of segment 1, once it has frames, until the channel closes.
struct Hold {
    watch: Arc<Watch>,
    began: Sender<()>,
    may_go_on: Mutex<Receiver<()>>,
}

impl Interpose for Hold {
    fn before(&self, call: &Call) -> Option<Fault> {
        let has_frames = self.watch.calls().iter().any(writes_frames);
        let fault = self.watch.before(call);
        let first = FileId::Segment(SegmentId::FIRST);
        if call.operation == Operation::Sync && call.file == Some(first) && has_frames {
            // The test ends both channels when it has seen what it wants.
            self.began.send(()).ok();
            self.may_go_on.lock().unwrap().recv().ok();
        }
        fault
    }
}

#[test]
fn every_kind_of_call_may_fail_and_nothing_acknowledged_is_lost() {
    let operations = [
        Operation::Create,
        Operation::Allocate,
        Operation::Write,
        Operation::Sync,
        Operation::WriteBack,
        Operation::Truncate,
        Operation::Rename,
        Operation::Remove,
        Operation::SyncDir,
        Operation::Read,
        Operation::List,
    ];
    for operation in operations {
        let fails = |code| (1..=12).take_while(move |nth| one_call_fails(operation, code, *nth));
        let failed = [EIO, ENOSPC].into_iter().flat_map(fails).count();
        println!("{operation}: {failed} calls failed");
        assert!(failed > 0, "{operation}: none failed");
    }
}

/// What was asked of a log in which a call fails, and what came of it.
#[derive(Default)]
struct Asked {
    /// By LSN, what is there; but not where it was deleted.
    acknowledged: BTreeMap<u64, Vec<u8>>,
    /// What may be there or not: of appends that failed, and of a truncation that did.
    unknown: Vec<Vec<u8>>,
    /// What is before this may be gone.
    deleted_before: u64,
}

impl Asked {
    fn append(&mut self, wal: &Wal, number: u64, level: Level) {
        let value = record_bytes(number, 500);
        match wal.append_with(&Record::put(b"k", &value), level) {
            Ok(appended) => {
                let before = self.acknowledged.insert(appended.first.get(), value);
                assert!(before.is_none(), "{appended:?} was given twice");
            }
            Err(_) => self.unknown.push(value),
        }
    }

    fn delete_before(&mut self, wal: &Wal, lsn: u64) {
        self.deleted_before = lsn;
        // It may fail; what matters is what is there afterwards.
        drop(wal.delete_segments_before(Lsn::new(lsn)));
    }

    fn truncate_after(&mut self, wal: &Wal, lsn: u64) {
        let result = wal.truncate_after(Lsn::new(lsn));
        if matches!(result, Ok(()) | Err(Error::Poisoned(_))) {
            let cut = self.acknowledged.split_off(&(lsn + 1)).into_values();
            // One that ended in poison may be on the disk or not.
            self.unknown.extend(cut.filter(|_| result.is_err()));
        }
    }

    fn check(&self, what: &str, wal: &Wal) {
        let entries = read_all(wal);
        let first = wal.stats().first_lsn.get();
        assert!(first <= self.deleted_before.max(1), "{what}: {first} is the first");
        for (lsn, entry) in (first..).zip(&entries) {
            assert_eq!(entry.lsn.get(), lsn, "{what}: a gap");
            let value = entry.value.to_vec();
            let may_be_there = match self.acknowledged.get(&lsn) {
                Some(acknowledged) => *acknowledged == value,
                None => self.unknown.contains(&value),
            };
            assert!(may_be_there, "{what}: LSN {lsn} is another record");
        }
        let last = self.acknowledged.keys().next_back().copied().unwrap_or(0);
        let end = first + entries.len() as u64;
        assert!(last < end, "{what}: {last} was acknowledged, {first} up to {end} are there");
    }
}

/// Whether there was an `nth` call to fail, in a log's life or as it is opened again.
fn one_call_fails(operation: Operation, code: i32, nth: u32) -> bool {
    let temp = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    // Only what is not synced is written back.
    let (level, max_segment_size) = match operation {
        Operation::WriteBack => (Level::Os, 256 << 10),
        _ => (Level::Disk, 8 << 10),
    };
    let config = WalConfig {
        max_segment_size,
        write_back_size: Some(4 << 10),
        ..config(temp.path(), FsyncPolicy::Always, &watch)
    };
    let (wal, _) = Wal::open(config.clone()).unwrap();
    let has_failed = Arc::new(AtomicBool::new(false));
    let mut fail = fail_nth(
        nth,
        move |call| call.operation == operation,
        move || Fault::Fails(os_error(code)),
    );
    let tells = has_failed.clone();
    watch.set(move |call| {
        let fault = fail(call);
        tells.fetch_or(fault.is_some(), Ordering::Relaxed);
        fault
    });
    let mut asked = Asked::default();
    for number in 0..60 {
        asked.append(&wal, number, level);
        match number {
            20 => asked.delete_before(&wal, 5),
            40 => {
                let last = wal.stats().last_lsn.get();
                asked.truncate_after(&wal, last.saturating_sub(1));
            }
            _ => {}
        }
    }
    drop(wal.close());
    drop(wal);
    let what = format!("{operation} number {nth} failed with {code}");
    let (wal, info) = Wal::open(config.clone()).unwrap_or_else(|_| {
        assert!(has_failed.load(Ordering::Relaxed), "{what}: it does not open");
        watch.clear();
        Wal::open(config).expect(&what)
    });
    assert!(!info.corruption_detected, "{what}: {info:?}");
    asked.check(&what, &wal);
    has_failed.load(Ordering::Relaxed)
}

/// A log that is let go writes what it has and, unless its policy is `Os`, syncs it.
#[test]
fn a_log_that_is_let_go_syncs_what_it_has() {
    let policies = [FsyncPolicy::Always, FsyncPolicy::Batch(Duration::from_hours(1))];
    for policy in policies {
        for level in [Level::Buffered, Level::Os] {
            let (temp, watch, wal) = watched(policy);
            wal.append_with(&Record::put(b"k", b"let go"), level).unwrap();
            drop(wal);
            assert_eq!(watch.unsynced(), [], "{policy:?}, {level:?}");
            assert_eq!(reopened(temp.path()), [b"let go".to_vec()]);
        }
    }
}

/// Where space is not reserved every append takes the short way, on which nobody tells the log the
/// time.
#[test]
fn write_backs_go_on_where_nothing_but_short_appends_comes() {
    let temp = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch::default());
    let config = WalConfig {
        preallocate: false,
        write_back_size: Some(4 << 10),
        max_segment_size: 1 << 30,
        ..config(temp.path(), FsyncPolicy::Os, &watch)
    };
    let (wal, _) = Wal::open(config).unwrap();
    let (told, hears) = channel();
    watch.set(move |call| {
        if call.operation == Operation::WriteBack {
            told.send(()).ok();
        }
        None
    });
    let mut begun = 0;
    for _ in 0..200_000 {
        wal.append(&Record::put(b"k", &[7; 500])).unwrap();
        begun += hears.try_iter().count();
        if begun >= 10 {
            return;
        }
    }
    panic!("{begun} in 100 MB");
}

/// The kernel may lose bytes as it begins with them, and tell whoever had it begin, not the sync.
#[test]
fn what_is_lost_in_a_write_back_is_not_acknowledged_by_the_sync_behind_it() {
    for maps in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let watch = Arc::new(Watch::default());
        let (tell, told) = channel();
        let config = WalConfig {
            meter: Some(Arc::new(Tell(Mutex::new(tell)))),
            map_appends: maps && cfg!(unix),
            write_back_size: Some(4 << 10),
            max_segment_size: 1 << 20,
            ..config(temp.path(), FsyncPolicy::Os, &watch)
        };
        let (wal, _) = Wal::open(config).unwrap();
        watch.set(fail_nth(
            3,
            |call| call.operation == Operation::WriteBack,
            || Fault::Fails(os_error(EIO)),
        ));
        // The third is asked for when the log says so, by its own thread.
        let error =
            (0..1_000_000).find_map(|_| wal.append(&Record::put(b"k", &[7; 500])).err()).unwrap();
        let poisoned = told.iter().find(|told| told.contains("poisoned")).unwrap();
        assert!(matches!(error, Error::Poisoned(_)), "{error}");
        assert!(matches!(wal.sync(), Err(Error::Poisoned(_))));
        let begun: Vec<_> = watch
            .calls()
            .into_iter()
            .filter(|call| call.operation == Operation::WriteBack)
            .collect();
        assert_eq!(begun.len(), 3);
        let file = begun[2].file.unwrap().name();
        assert!(poisoned.contains(&format!("write-back of {file} failed")), "{poisoned}");
        for call in begun {
            assert!(call.bytes >= 4 << 10 && !call.sync, "{call:?}");
        }
    }
}

/// Who removes the files of a log that is open is told at the next sync, not at the next opening.
#[cfg(target_os = "linux")]
#[test]
fn what_goes_to_a_file_that_was_removed_is_not_acknowledged() {
    let append = |wal: &Wal| wal.append_with(&Record::put(b"k", b"v"), Level::Disk);
    for what in ["00000000000000000001.wal", "MANIFEST", "."] {
        for uring_size in [None, Some(4 << 10)] {
            let temp = tempfile::tempdir().unwrap();
            let dir = temp.path().join("wal");
            let config =
                WalConfig { uring_size, max_segment_size: 64 << 10, ..WalConfig::in_dir(&dir) };
            let (wal, _) = Wal::open(config).unwrap();
            append(&wal).unwrap();
            match what {
                // The next segment may just be made.
                "." => while std::fs::remove_dir_all(&dir).is_err() {},
                file => std::fs::remove_file(dir.join(file)).unwrap(),
            }
            let result = if what == "MANIFEST" {
                // It is written at each rotation.
                wal.truncate_after(Lsn::ZERO)
            } else {
                let long = vec![7; 20 << 10];
                wal.append_with(&Record::put(b"k", &long), Level::Disk).map(|_| ())
            };
            let Err(error @ Error::Poisoned(_)) = result else { panic!("{what}: {result:?}") };
            let cause = " failed: No such file or directory (os error 2)";
            let file = if what == "." { String::new() } else { format!("write of {what}") };
            assert!(error.to_string().contains(&(file + cause)), "{error}");
            assert!(matches!(append(&wal), Err(Error::Poisoned(_))));
        }
    }
}
