//! Once a log has warmed up, an append takes no memory.
#![cfg(not(shuttle))]
#![allow(unsafe_code)]

use seawall::blocking::Wal;
use seawall::{FsyncPolicy, Level, Record, WalConfig};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

struct Counting;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
    static HELD_BYTES: Cell<i64> = const { Cell::new(0) };
}

// SAFETY: every call is handed on as it came; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: as the trait asks.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending is not counted.
        TAKEN.try_with(|taken| taken.set(taken.get() + 1)).ok();
        hold(layout, 1);
        // SAFETY: the caller's own.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as the trait asks.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(layout, -1);
        // SAFETY: the caller's own.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn hold(layout: Layout, sign: i64) {
    let bytes = i64::try_from(layout.size()).unwrap_or(i64::MAX);
    HELD_BYTES.try_with(|held| held.set(held.get() + sign * bytes)).ok();
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn taken(work: impl FnOnce()) -> u64 {
    let before = TAKEN.get();
    work();
    TAKEN.get() - before
}

#[test]
fn appends_take_no_memory() {
    for maps in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let config = WalConfig {
            fsync_policy: FsyncPolicy::Os,
            map_appends: maps,
            ..WalConfig::in_dir(temp.path())
        };
        let (wal, _) = Wal::open(config).unwrap();
        let value = [7; 500];
        let record = Record::put(b"key", &value);
        for level in [Level::Buffered, Level::Os, Level::Disk] {
            let append = || assert!(wal.append_with(&record, level).is_ok());
            // Also past the first entries of the segment's index.
            (0..500).for_each(|_| append());
            let count = taken(|| (0..500).for_each(|_| append()));
            // The index grows by doubling, and a vector of waiters may once.
            assert!(count <= 4, "{level:?}: {count} allocations in 500 appends");
        }
        wal.close().unwrap();
    }
}

#[test]
fn a_batch_takes_memory_for_its_list_alone() {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalConfig::in_dir(temp.path())).unwrap();
    let value = [7; 500];
    let records = [Record::put(b"key", &value); 100];
    let append = || assert!(wal.append_batch_with(&records, Level::Disk).is_ok());
    (0..20).for_each(|_| append());
    let count = taken(|| (0..20).for_each(|_| append()));
    assert!(count <= 24, "{count} allocations in 20 batches");
    wal.close().unwrap();
}

/// Who looks again and again for what does not come leaves nothing behind.
#[test]
fn waiting_for_long_takes_no_memory() {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalConfig::in_dir(temp.path())).unwrap();
    wal.append_with(&Record::put(b"key", b"value"), Level::Disk).unwrap();
    let mut reader = wal.iter().unwrap();
    assert!(reader.next_record().unwrap().is_some());
    let mut look = || assert!(reader.wait_record(Some(Duration::ZERO)).unwrap().is_none());
    (0..100).for_each(|_| look());
    let count = taken(|| (0..10_000).for_each(|_| look()));
    assert!(count <= 4, "{count} allocations in 10,000 looks");
    wal.close().unwrap();
}

/// There may be thousands of them.
#[test]
fn a_follower_that_waits_holds_little() {
    let temp = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(WalConfig::in_dir(temp.path())).unwrap();
    let fill = || {
        for _ in 0..700 {
            wal.append_with(&Record::put(b"key", &[7; 1_000]), Level::Buffered).unwrap();
        }
        wal.sync().unwrap();
    };
    fill();
    let mut reader = wal.iter().unwrap();
    let before = HELD_BYTES.get();
    // What was needed for much is let go, also where little is read with it before the wait.
    for further in [0, 1] {
        let mut records = 0;
        while records < 700 {
            assert!(reader.next_record().unwrap().is_some());
            records += 1;
        }
        for _ in 0..further {
            wal.append_with(&Record::put(b"key", b"value"), Level::Disk).unwrap();
            assert!(reader.next_record().unwrap().is_some());
        }
        assert!(reader.wait_record(Some(Duration::ZERO)).unwrap().is_none());
        let held_bytes = HELD_BYTES.get() - before;
        assert!(held_bytes < 64 << 10, "{held_bytes} bytes, {further} further");
        fill();
    }
    wal.close().unwrap();
}
