//! A process that forks while it has a log open.
#![cfg(all(unix, not(shuttle)))]
#![allow(unsafe_code)]

use seawall::blocking::{ReadOnly, Reader, Wal};
use seawall::{Error, Level, Record, WalConfig};
use std::sync::atomic::{AtomicBool, Ordering};

/// What goes wrong in the child, as its exit status; 0 when nothing does.
fn use_in_child(wal: Wal, mut reader: Reader) -> i32 {
    let record = Record::put(b"key", b"child");
    for level in [Level::Buffered, Level::Os, Level::Disk] {
        for batch in [false, true] {
            let appended = if batch {
                wal.append_batch_with(&[record; 2], level)
            } else {
                wal.append_with(&record, level)
            };
            if !matches!(appended, Err(Error::Forked)) {
                return 1;
            }
        }
    }
    let refused = [
        wal.flush(),
        wal.sync(),
        wal.rotate(),
        wal.wait_durable(seawall::Lsn::new(1)),
        wal.truncate_after(seawall::Lsn::new(1)),
        wal.delete_segments_before(seawall::Lsn::new(1)).map(|_| ()),
        wal.iter().map(|_| ()),
        wal.close(),
    ];
    if refused.iter().any(|result| !matches!(result, Err(Error::Forked))) {
        return 2;
    }
    let read = [reader.next_record().map(|_| ()), reader.seek(seawall::Lsn::new(1))];
    if read.iter().any(|result| !matches!(result, Err(Error::Forked))) {
        return 3;
    }
    // It waits for no thread, and frees no lock.
    drop((wal, reader));
    0
}

/// What a child that runs this ends with.
fn in_a_child(run: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child calls nothing but the log, takes memory, as the C library allows, and ends.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: should the log wait for ever, the signal ends the child, and that is told.
        unsafe { libc::alarm(60) };
        let status = run();
        // SAFETY: nothing of the parent's is run or flushed by this.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's own, and the status a place on the stack.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

#[test]
fn a_log_stays_with_the_process_that_opened_it() {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalConfig::in_dir(temp.path())).unwrap();
    let append = || wal.append_with(&Record::put(b"key", b"parent"), Level::Disk).unwrap();
    append();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // It has the log's lock most of the time, and so nearly each time that a child comes off.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                wal.stats();
            }
        });
        for _ in 0..10 {
            let mut reader = wal.iter().unwrap();
            while reader.next_record().unwrap().is_some() {}
            let status = in_a_child(|| use_in_child(wal.clone(), reader));
            if status != 0 {
                is_over.store(true, Ordering::Relaxed);
            }
            assert_eq!(status, 0, "the child's status");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let again = Wal::open(WalConfig::in_dir(temp.path()));
    assert!(matches!(again, Err(Error::Locked { .. })), "the lock is held: {again:?}");
    append();
    wal.close().unwrap();
    let (wal, recovery) = Wal::open(WalConfig::in_dir(temp.path())).unwrap();
    assert_eq!(recovery.valid_records, 2);
    assert!(!recovery.corruption_detected && recovery.report.was_clean);
    wal.close().unwrap();
}

/// In the middle of what it has read, and with a thread of the parent's that reads ahead.
#[test]
fn a_reader_in_the_middle_of_a_log_stays_with_its_process_too() {
    let temp = tempfile::tempdir().unwrap();
    let config = || WalConfig { read_size: 64 << 10, ..WalConfig::in_dir(temp.path()) };
    let (wal, _) = Wal::open(config()).unwrap();
    for _ in 0..8_000 {
        wal.append_with(&Record::put(b"key", &[7; 1_000]), Level::Buffered).unwrap();
    }
    wal.sync().unwrap();
    let is_refused = |mut reader: Reader, log: Option<ReadOnly>| {
        for _ in 0..1_000 {
            reader.next_record().unwrap().unwrap();
        }
        in_a_child(|| {
            let read = reader.next_record().map(|_| ());
            let looked = log.map(|log| [log.refresh().map(|_| ()), log.iter().map(|_| ())]);
            let results = std::iter::once(read).chain(looked.into_iter().flatten());
            i32::from(!results.into_iter().all(|result| matches!(result, Err(Error::Forked))))
        })
    };
    assert_eq!(is_refused(wal.iter().unwrap(), None), 0, "the child's status");
    let (log, _) = Wal::open_read_only(config()).unwrap();
    assert_eq!(is_refused(log.iter().unwrap(), Some(log.clone())), 0, "the child's status");
}
