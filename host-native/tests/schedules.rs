//! The engine under a scheduler that chooses at random, at every lock, park and atomic, which
//! thread goes on: lost wake-ups, deadlocks and wrong outcomes that no machine shows in a year.
//!
//! ```sh
//! cargo xtask schedules
//! SHUTTLE_RANDOM_SEED=... cargo xtask schedules   # one that failed, with the seed it printed
//! ```
#![cfg(shuttle)]

use seawall::blocking::Wal;
use seawall::{
    Appended, Call, ChecksumKind, Error, Fault, FsyncPolicy, Injected, Interpose, Level, LogId,
    Lsn, Record, Time, Visibility, WalConfig,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner, future, thread};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Schedules of each kind for each test, unless `SEAWALL_SCHEDULES` says otherwise.
const SCHEDULES: usize = 500;

/// How often the schedules of the second kind switch threads when they need not.
const SWITCHES: usize = 3;

/// Goes through schedules drawn evenly, and through such that hold few threads back for long
/// (Burckhardt et al., "A randomized scheduler with probabilistic guarantees of finding bugs",
/// 2010).
fn check(test: fn(&Path)) {
    let schedules = std::env::var("SEAWALL_SCHEDULES").ok();
    let schedules = schedules.and_then(|count| count.parse().ok()).unwrap_or(SCHEDULES);
    let run = move || test(tempfile::tempdir().unwrap().path());
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.max_steps = MaxSteps::FailAfter(200_000);
    Runner::new(RandomScheduler::new(schedules), config.clone()).run(run);
    Runner::new(PctScheduler::new(SWITCHES, schedules), config).run(run);
}

fn config(dir: &Path) -> WalConfig {
    WalConfig {
        fsync_policy: FsyncPolicy::Always,
        max_segment_size: 4 << 10,
        reserve_size: Some(1 << 10),
        max_record_size: 2 << 10,
        batch_size: 4 << 10,
        checksum: ChecksumKind::Xxh3,
        injected: Some(Injected { log: LogId([7; 16]), seed: 7, now: Time::from_micros(7) }),
        ..WalConfig::in_dir(dir)
    }
}

fn open(config: WalConfig) -> Wal {
    Wal::open(config).unwrap().0
}

/// Does the work in a thread for each, all at once.
fn at_once<X: Send + 'static, T: Send + 'static, const N: usize>(
    wal: &Wal,
    each: [X; N],
    work: fn(&Wal, X) -> T,
) -> [T; N] {
    let threads = each.map(|one| {
        let wal = wal.clone();
        thread::spawn(move || work(&wal, one))
    });
    threads.map(|thread| thread.join().unwrap())
}

fn record(value: &[u8]) -> Record<'_> {
    Record::put(b"key", value)
}

#[test]
fn all_writers_are_served_at_every_level() {
    check(|dir| {
        let wal = open(config(dir));
        let levels = [Level::Disk, Level::Disk, Level::Os, Level::Buffered];
        at_once(&wal, levels, |wal, level| {
            for _ in 0..2 {
                let appended = wal.append_with(&record(&[1; 100]), level).unwrap();
                let stats = wal.stats();
                let reached = match level {
                    Level::Buffered => stats.last_lsn,
                    Level::Os => stats.written_lsn,
                    Level::Disk => stats.durable_lsn,
                };
                assert!(reached >= appended.last);
            }
        });
        wal.close().unwrap();
        assert_eq!(wal.stats().durable_lsn, Lsn::new(8));
    });
}

#[test]
fn whoever_writes_alone_leaves_nobody_waiting() {
    check(|dir| {
        let wal = open(config(dir));
        // A request returns once there is nothing else to do: from here on writes are alone.
        wal.truncate_after(Lsn::ZERO).unwrap();
        let mut first = wal.append_with(&record(b"first"), Level::Os).unwrap();
        // Nobody else comes by who would wake the one that waits.
        for _ in 0..3 {
            let works: [fn(&Wal); 2] = [
                |wal| assert!(wal.append_with(&record(b"alone"), Level::Os).is_ok()),
                |wal| wal.flush().unwrap(),
            ];
            at_once(&wal, works, |wal, work| work(wal));
        }
        first.last = first.last.plus(3);
        let works: [fn(&Wal); 3] = [
            |wal| {
                for _ in 0..3 {
                    let appended = wal.append_with(&record(b"alone"), Level::Os).unwrap();
                    assert!(wal.stats().written_lsn >= appended.last);
                }
            },
            |wal| wal.flush().unwrap(),
            |wal| {
                let appended = wal.append_with(&record(b"later"), Level::Buffered).unwrap();
                wal.flush().unwrap();
                assert!(wal.stats().written_lsn >= appended.last);
            },
        ];
        at_once(&wal, works, |wal, work| work(wal));
        assert_eq!(wal.stats().written_lsn, first.last.plus(4));
        let works: [fn(&Wal); 2] = [
            |wal| assert!(wal.append_with(&record(b"alone"), Level::Os).is_ok()),
            |wal| wal.wait_durable(Lsn::new(1)).unwrap(),
        ];
        at_once(&wal, works, |wal, work| work(wal));
        wal.close().unwrap();
        assert_eq!(wal.stats().durable_lsn, first.last.plus(5));
    });
}

#[test]
fn writers_go_on_while_segments_are_made() {
    check(|dir| {
        let wal = open(config(dir));
        at_once(&wal, [(); 3], |wal, ()| {
            for _ in 0..3 {
                wal.append(&record(&[1; 1_500])).unwrap();
            }
        });
        wal.sync().unwrap();
        assert_eq!(wal.stats().durable_lsn, Lsn::new(9));
        assert!(wal.stats().segments.len() >= 4);
        drop(wal);
        // The lock is free once the last handle is gone.
        let (wal, info) = Wal::open(config(dir)).unwrap();
        assert_eq!(info.valid_records, 9);
        wal.close().unwrap();
    });
}

#[test]
fn tasks_and_threads_share_a_log_and_tasks_may_go_away() {
    check(|dir| {
        let wal = open(config(dir));
        let tasks = seawall::Wal::from(wal.clone());
        let dropped = tasks.clone();
        let waiting = thread::spawn(move || {
            future::block_on(async {
                tasks.append(&record(b"task")).await.unwrap();
                tasks.append(&record(b"task")).await.unwrap();
            });
        });
        let fleeting = thread::spawn(move || {
            future::block_on(async {
                let value = record(b"gone");
                let mut append = Box::pin(dropped.append(&value));
                let once = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(append.as_mut().poll(context).is_ready())
                });
                once.await
            });
        });
        wal.append(&record(b"thread")).unwrap();
        waiting.join().unwrap();
        fleeting.join().unwrap();
        // The fleeting one's is in the log unless there was no segment yet to take it.
        let last = wal.stats().last_lsn;
        assert!((Lsn::new(3)..=Lsn::new(4)).contains(&last));
        wal.close().unwrap();
    });
}

#[test]
fn tasks_write_for_themselves_and_leave_nobody_waiting() {
    check(|dir| {
        let wal = open(WalConfig { fsync_policy: FsyncPolicy::Os, ..config(dir) });
        // From here on writes are alone.
        wal.truncate_after(Lsn::ZERO).unwrap();
        let works: [fn(&Wal); 3] = [
            |wal| {
                let tasks = seawall::Wal::from(wal.clone());
                future::block_on(async {
                    for _ in 0..3 {
                        let appended =
                            tasks.append_with(&record(b"task"), Level::Os).await.unwrap();
                        assert!(tasks.stats().written_lsn >= appended.last);
                    }
                });
            },
            |wal| {
                let tasks = seawall::Wal::from(wal.clone());
                future::block_on(async {
                    let batch = [record(b"two"), record(b"at once")];
                    let first = tasks.append_batch_with(&batch, Level::Os).await.unwrap();
                    let last = tasks.append_with(&record(b"task"), Level::Buffered).await.unwrap();
                    assert!(tasks.stats().written_lsn >= first.last);
                    tasks.flush().await.unwrap();
                    assert!(tasks.stats().written_lsn >= last.last);
                });
            },
            |wal| {
                let appended = wal.append_with(&record(b"thread"), Level::Disk).unwrap();
                assert!(wal.stats().durable_lsn >= appended.last);
            },
        ];
        at_once(&wal, works, |wal, work| work(wal));
        wal.close().unwrap();
        assert_eq!(wal.stats().durable_lsn, Lsn::new(7));
    });
}

/// Nobody comes after them who would see to what is left.
#[test]
fn tasks_that_append_once_leave_nobody_waiting() {
    check(|dir| {
        let wal = open(WalConfig { fsync_policy: FsyncPolicy::Os, ..config(dir) });
        wal.truncate_after(Lsn::ZERO).unwrap();
        wal.append_with(&record(b"first"), Level::Os).unwrap();
        for _ in 0..5 {
            at_once(&wal, [(); 2], |wal, ()| {
                let tasks = seawall::Wal::from(wal.clone());
                future::block_on(async { tasks.append(&record(b"task")).await.unwrap() });
            });
        }
        assert_eq!(wal.stats().written_lsn, Lsn::new(11));
        wal.close().unwrap();
    });
}

#[test]
fn whoever_has_nothing_to_wait_for_keeps_no_time_for_others() {
    check(|dir| {
        let wal = open(config(dir));
        at_once(&wal, [(); 2], |wal, ()| {
            for _ in 0..3 {
                wal.append(&record(b"x")).unwrap();
            }
        });
        // All is durable, and two writers are expected.
        wal.sync().unwrap();
        wal.append(&record(b"alone")).unwrap();
        wal.close().unwrap();
    });
}

fn follows_to_the_end(dir: &Path, visibility: Visibility, level: Level) {
    let wal = open(config(dir));
    let follower = wal.clone();
    let follower = thread::spawn(move || {
        let mut reader = follower.read_from_with(Lsn::new(1), visibility).unwrap();
        let mut seen = 0;
        while let Some((entry, _)) = reader.wait_record(None).unwrap() {
            seen += 1;
            assert_eq!(entry.lsn, Lsn::new(seen));
        }
        seen
    });
    let writer = wal.clone();
    let writer = thread::spawn(move || {
        for _ in 0..2 {
            writer.append_with(&record(b"seen"), level).unwrap();
        }
    });
    writer.join().unwrap();
    wal.close().unwrap();
    assert_eq!(follower.join().unwrap(), 2);
}

#[test]
fn followers_see_every_record_and_the_end() {
    check(|dir| follows_to_the_end(dir, Visibility::Durable, Level::Disk));
    check(|dir| follows_to_the_end(dir, Visibility::Written, Level::Os));
}

/// No sync wakes them.
#[test]
fn followers_of_what_is_written_wait_for_no_sync() {
    check(|dir| {
        let wal = open(WalConfig { fsync_policy: FsyncPolicy::Os, ..config(dir) });
        let mut reader = wal.read_from_with(Lsn::new(1), Visibility::Written).unwrap();
        let follower = thread::spawn(move || {
            for _ in 0..2 {
                assert!(reader.wait_record(None).unwrap().is_some());
            }
        });
        for _ in 0..2 {
            wal.append_with(&record(b"seen"), Level::Os).unwrap();
        }
        follower.join().unwrap();
        wal.close().unwrap();
    });
}

#[test]
fn a_reader_sees_all_that_is_durable_while_segments_end() {
    check(|dir| {
        let wal = open(config(dir));
        wal.append(&record(&[1; 1_500])).unwrap();
        let mut reader = wal.iter().unwrap();
        let reading = wal.clone();
        let reading = thread::spawn(move || {
            let mut seen = 0;
            for _ in 0..6 {
                let durable = reading.stats().durable_lsn.get();
                while let Some((entry, _)) = reader.next_record().unwrap() {
                    seen += 1;
                    assert_eq!(entry.lsn, Lsn::new(seen));
                }
                assert!(seen >= durable, "{durable} are durable, and it says that {seen} are all");
            }
        });
        for _ in 0..5 {
            wal.append(&record(&[1; 1_500])).unwrap();
        }
        reading.join().unwrap();
        wal.close().unwrap();
    });
}

#[test]
fn a_request_that_waits_for_another_is_served() {
    check(|dir| {
        let wal = open(config(dir));
        for _ in 0..4 {
            wal.append(&record(&[1; 1_500])).unwrap();
        }
        let deleting = wal.clone();
        let deleting =
            thread::spawn(move || deleting.delete_segments_before(Lsn::new(3)).map(drop));
        let cutting = wal.clone();
        let cutting = thread::spawn(move || cutting.truncate_after(Lsn::new(3)));
        let appending = wal.clone();
        let appending = thread::spawn(move || appending.append(&record(b"x")).map(drop));
        for result in [deleting.join(), cutting.join(), appending.join()] {
            result.unwrap().unwrap();
        }
        wal.close().unwrap();
    });
}

/// Fails one of the writes of whole records, counted from 0.
struct FailsOnce {
    at: u64,
    seen: AtomicU64,
    fault: fn() -> Fault,
}

impl FailsOnce {
    fn second(fault: fn() -> Fault) -> Arc<dyn Interpose> {
        Arc::new(Self { at: 1, seen: AtomicU64::new(0), fault })
    }
}

impl Interpose for FailsOnce {
    fn before(&self, call: &Call) -> Option<Fault> {
        let is_record = call.bytes >= 1_000 && call.operation == seawall::Operation::Write;
        let at = if is_record { self.seen.fetch_add(1, Ordering::Relaxed) } else { u64::MAX };
        (at == self.at).then(|| (self.fault)())
    }
}

#[test]
fn after_a_failed_write_everybody_is_told_and_nobody_succeeds() {
    check(|dir| {
        let fault = || Fault::Fails(io::Error::from_raw_os_error(5));
        let wal = open(WalConfig { interpose: Some(FailsOnce::second(fault)), ..config(dir) });
        let told = at_once(&wal, [Level::Disk, Level::Disk, Level::Os], |wal, level| {
            let mut acknowledged = Lsn::default();
            loop {
                match wal.append_with(&record(&[1; 1_000]), level) {
                    Ok(appended) if level == Level::Disk => acknowledged = appended.last,
                    Ok(_) => {}
                    Err(Error::Poisoned(_)) => return acknowledged,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let durable = wal.stats().durable_lsn;
        assert!(told.iter().all(|lsn| *lsn <= durable));
        assert!(matches!(wal.append(&record(b"x")), Err(Error::Poisoned(_))));
        assert!(wal.close().is_err());
    });
}

#[test]
fn a_full_disk_undoes_what_it_did_not_take_and_appends_go_on() {
    check(|dir| appends_on_a_full_disk(dir, [Level::Disk; 3]));
}

#[test]
fn a_full_disk_undoes_what_was_only_to_be_written_too() {
    check(|dir| appends_on_a_full_disk(dir, [Level::Os, Level::Os, Level::Disk]));
}

#[test]
fn a_full_disk_undoes_what_tasks_wrote() {
    check(|dir| {
        let append = |wal: &Wal, level| {
            let tasks = seawall::Wal::from(wal.clone());
            future::block_on(async { tasks.append_with(&record(&[1; 1_000]), level).await })
        };
        appends_on_a_full_disk_by(dir, [Level::Os, Level::Os, Level::Disk], append);
    });
}

fn appends_on_a_full_disk(dir: &Path, levels: [Level; 3]) {
    let append = |wal: &Wal, level| wal.append_with(&record(&[1; 1_000]), level);
    appends_on_a_full_disk_by(dir, levels, append);
}

fn appends_on_a_full_disk_by(
    dir: &Path,
    levels: [Level; 3],
    append: fn(&Wal, Level) -> Result<Appended, Error>,
) {
    let fault = || Fault::Short(300, io::ErrorKind::StorageFull.into());
    let wal = open(WalConfig { interpose: Some(FailsOnce::second(fault)), ..config(dir) });
    let kept = at_once(&wal, levels.map(|level| (level, append)), |wal, (level, append)| {
        let append = || match append(wal, level) {
            Ok(_) => 1,
            Err(Error::DiskFull(_)) => 0,
            Err(error) => panic!("{error}"),
        };
        append() + append()
    });
    let kept: u64 = kept.iter().sum();
    assert!(kept < 6, "nobody was refused");
    wal.sync().unwrap();
    assert_eq!(wal.stats().durable_lsn, Lsn::new(kept));
    wal.close().unwrap();
}
