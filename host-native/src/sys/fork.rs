//! Whether a process came off another, by `fork`, in between: it has a copy of all that is in
//! memory, and of the threads only the one that forked.
#![allow(unsafe_code)]

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many forks lie between this process and the one that counted first.
static FORKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The count, from now on kept.
pub(crate) fn forks() -> u64 {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        // SAFETY: the function is there for as long as the process, or the library that it is in:
        // the C library forgets it with that. It does what a handler may. Should there be no memory
        // to register it, nothing is counted.
        unsafe { libc::pthread_atfork(None, None, Some(count)) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// Whether this process came off the one that counted so many.
pub(crate) fn is_forked_since(forks: u64) -> bool {
    FORKS.load(Ordering::Relaxed) != forks
}
