//! What the page cache has of a file, and what it is to fetch.
#![cfg_attr(target_os = "linux", allow(unsafe_code))]

use std::fs::File;

/// How much of some bytes the page cache has.
#[allow(dead_code, reason = "there are platforms on which nobody knows")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cached {
    Nothing,
    Part,
    All,
}

/// What the page cache fetches of a file beside what is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Readahead {
    /// As much as it can: the file is read from front to back.
    Most,
    Nothing,
}

/// Tells the page cache what to fetch for whoever reads by this handle. A hint: it cannot fail.
#[cfg(target_os = "linux")]
pub(crate) fn advise(file: &File, readahead: Readahead) {
    use std::os::fd::AsRawFd;
    let advice = match readahead {
        Readahead::Most => libc::POSIX_FADV_SEQUENTIAL,
        Readahead::Nothing => libc::POSIX_FADV_RANDOM,
    };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call takes no
    // pointers. What it returns says only whether the hint was taken.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, advice) };
}

/// A platform without the hint.
#[cfg(not(target_os = "linux"))]
pub(crate) fn advise(_file: &File, _readahead: Readahead) {}

/// How much of some bytes of a file the page cache has. `None`: nobody knows.
///
/// It may have changed by the time that this returns; what a read returns does not depend on it.
#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
pub(crate) fn cached(file: &File, offset: u64, bytes: u64) -> Option<Cached> {
    use std::os::fd::AsRawFd;

    /// `cachestat` of Linux 6.5 and newer; the crate has no name for it on all of these.
    const CACHESTAT: libc::c_long = 451;
    /// Where pages are longer, all that is cached may be told as a part.
    const PAGE_BYTES: u64 = 4 << 10;

    /// The kernel's `struct cachestat_range`.
    #[repr(C)]
    struct Range {
        offset: u64,
        length: u64,
    }

    /// The kernel's `struct cachestat`: pages.
    #[repr(C)]
    #[derive(Default)]
    struct Pages {
        cached: u64,
        dirty: u64,
        under_writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }

    let (range, mut pages) = (Range { offset, length: bytes }, Pages::default());
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the kernel reads the one
    // structure and writes the other, which are laid out as it wants them and outlive the call. A
    // kernel that does not know the call touches neither.
    let result = unsafe {
        libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut pages, 0_u32)
    };
    if result != 0 {
        return None;
    }
    Some(match pages.cached {
        0 => Cached::Nothing,
        // The pages of both ends may hold more than is asked for.
        cached if cached * PAGE_BYTES >= bytes => Cached::All,
        _ => Cached::Part,
    })
}

/// Nobody knows.
#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
)))]
pub(crate) fn cached(_file: &File, _offset: u64, _bytes: u64) -> Option<Cached> {
    None
}

#[cfg(all(test, target_os = "linux"))]
pub(crate) mod tests {
    use super::*;
    use crate::sys::write_all_at;

    /// Takes out of the page cache what it has of a file and what has been synced.
    ///
    /// One call leaves pages that another processor has just put there, so there are some more.
    pub(crate) fn evict(file: &File) {
        use std::os::fd::AsRawFd;
        let bytes = file.metadata().unwrap().len();
        for _ in 0..16 {
            // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call takes
            // no pointers.
            let result =
                unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
            assert_eq!(result, 0);
            if matches!(cached(file, 0, bytes), None | Some(Cached::Nothing)) {
                break;
            }
        }
    }

    #[test]
    fn what_was_written_is_cached_and_a_hole_is_not() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        write_all_at(&file, &vec![7; 1 << 20], 1 << 20).unwrap();
        let of_file = |offset, bytes| cached(&file, offset, bytes);
        match of_file(1 << 20, 1 << 20) {
            None => println!("skipped: a kernel before 6.5 does not know"),
            Some(Cached::Nothing) => {
                println!("skipped: here, as on overlayfs, another file's pages are cached");
            }
            Some(_) => {
                assert_eq!(of_file(2 << 20, 2 << 20), Some(Cached::Nothing));
                assert_eq!(of_file(1 << 20, 1 << 20), Some(Cached::All));
                assert_eq!(of_file((1 << 20) + 77, 4_096), Some(Cached::All));
                assert_eq!(of_file(1 << 20, 2 << 20), Some(Cached::Part));
            }
        }
    }
}
