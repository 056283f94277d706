//! A log beside a clock that is set: the system's own cannot be, so this program has its own.
#![cfg(all(target_os = "linux", target_pointer_width = "64", not(shuttle)))]
#![allow(unsafe_code)]

use seawall::blocking::{Reader, Wal};
use seawall::{FsyncPolicy, Level, Record, WalConfig};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// How far the time of day is ahead of the system's.
static AHEAD_SECONDS: AtomicI64 = AtomicI64::new(0);

/// Stands in for the C library's, which the standard library asks for the time.
///
/// # Safety
/// `time` is a place for a time, as the C library wants it.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    // SAFETY: the caller's own place, which the kernel fills in.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if result == 0 && clock == libc::CLOCK_REALTIME {
        // SAFETY: the call has succeeded, and then it has filled in the time.
        unsafe { (*time).tv_sec += AHEAD_SECONDS.load(Ordering::Relaxed) };
    }
    if result == 0 { 0 } else { -1 }
}

const HOUR: i64 = 3_600;

#[test]
fn records_follow_a_clock_that_is_set_and_syncs_do_not() {
    let temp = tempfile::tempdir().unwrap();
    let real = SystemTime::now();
    AHEAD_SECONDS.store(HOUR, Ordering::Relaxed);
    let shift = SystemTime::now().duration_since(real).unwrap();
    assert!(shift >= Duration::from_mins(59), "the clock of this program is its own");
    let window = Duration::from_millis(5);
    let config =
        WalConfig { fsync_policy: FsyncPolicy::Batch(window), ..WalConfig::in_dir(temp.path()) };
    let (wal, _) = Wal::open(config).unwrap();
    let mut reader = wal.iter().unwrap();
    for ahead in [2 * HOUR, 0, -5 * HOUR, HOUR] {
        AHEAD_SECONDS.store(ahead, Ordering::Relaxed);
        let ttl = Duration::from_mins(1);
        wal.append_with(&Record::put_with_ttl(b"key", b"value", ttl), Level::Os).unwrap();
        let written_at = wait(&mut reader).written_at.unwrap().as_millis();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        let age = now.abs_diff(u128::from(written_at));
        assert!(age < 30_000, "{ahead} s ahead: {age} ms");
        // This one's time nobody asks for.
        wal.append_with(&Record::put(b"key", b"value"), Level::Os).unwrap();
        wait(&mut reader);
    }
}

/// The next record, which becomes durable by itself.
fn wait(reader: &mut Reader) -> seawall::Entry {
    reader.wait_record(Some(Duration::from_mins(1))).unwrap().expect("a sync within a minute").0
}
