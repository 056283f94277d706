//! What the page cache has of a file, what it is to fetch, and what it is to write.
#![cfg_attr(target_os = "linux", allow(unsafe_code))]

use std::fs::File;
use std::io;

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

/// Has the page cache begin to write some bytes of a file to the device, 0 for all from there on,
/// and does not wait for it. Nothing is durable by that; a sync that follows has less to wait for.
///
/// # Errors
/// What the file system says when it is to find them a place. That sync need not hear of it again,
/// so it has failed with this call. A system that does not have the call, or does not allow it,
/// is no error, nor is a signal.
#[cfg(target_os = "linux")]
pub(crate) fn begin_write_back(file: &File, offset: u64, bytes: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = libc::off64_t::try_from(offset).map_err(too_far)?;
    let length = libc::off64_t::try_from(bytes).map_err(too_far)?;
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call takes no
    // pointers.
    let result = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE)
    };
    match (result, io::Error::last_os_error()) {
        (0, _) => Ok(()),
        (_, error) if has_begun_nothing(&error) => Ok(()),
        (_, error) => {
            let_go(file);
            Err(error)
        }
    }
}

/// Whether a call was not made at all, so that nothing is lost by it.
#[cfg(target_os = "linux")]
fn has_begun_nothing(error: &io::Error) -> bool {
    use libc::{EAGAIN, EINTR, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESPIPE};
    let such = [ENOSYS, EOPNOTSUPP, EPERM, EINVAL, ESPIPE, EINTR, EAGAIN];
    error.raw_os_error().is_some_and(|code| such.contains(&code))
}

/// A platform without such a call.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "it can fail on Linux")]
pub(crate) fn begin_write_back(_file: &File, _offset: u64, _bytes: usize) -> io::Result<()> {
    Ok(())
}

/// One call leaves pages that another processor has just put there.
#[cfg(target_os = "linux")]
const LET_GO_TRIES: u32 = 16;

/// Has the page cache let go of a file of which a sync has failed. Linux takes the pages that it
/// could not write for written from then on, and shows them to all who read the file (seen with
/// 6.18 on ext4, xfs and btrfs): read again, they come from the device.
///
/// What cannot be let go is what is dirty still, which a later sync writes or fails on, and what
/// somebody has mapped.
#[cfg(target_os = "linux")]
pub(crate) fn let_go(file: &File) {
    use std::os::fd::AsRawFd;
    for _ in 0..LET_GO_TRIES {
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call takes no
        // pointers. It is a hint, and there is nothing else to be tried.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if pages(file, 0, 0).is_some_and(|pages| pages.cached == 0) {
            break;
        }
    }
}

/// A platform without such a call.
#[cfg(not(target_os = "linux"))]
pub(crate) fn let_go(_file: &File) {}

/// Whether the device has all of a file, and is at work on none of it. `None`: nobody knows.
pub(crate) fn is_clean(file: &File) -> Option<bool> {
    let pages = pages(file, 0, 0)?;
    Some(pages.dirty == 0 && pages.under_writeback == 0)
}

/// Where pages are longer, all that is cached may be told as a part.
const PAGE_BYTES: u64 = 4 << 10;

/// How much of some bytes of a file the page cache has. `None`: nobody knows.
///
/// It may have changed by the time that this returns; what a read returns does not depend on it.
pub(crate) fn cached(file: &File, offset: u64, bytes: u64) -> Option<Cached> {
    Some(match pages(file, offset, bytes)?.cached {
        0 => Cached::Nothing,
        // The pages of both ends may hold more than is asked for.
        cached if cached * PAGE_BYTES >= bytes => Cached::All,
        _ => Cached::Part,
    })
}

/// Whether the device is still at work on some bytes of a file. `None`: nobody knows.
pub(crate) fn is_under_write_back(file: &File, offset: u64, bytes: u64) -> Option<bool> {
    Some(pages(file, offset, bytes)?.under_writeback > 0)
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

#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
fn pages(file: &File, offset: u64, bytes: u64) -> Option<Pages> {
    use std::os::fd::AsRawFd;

    /// `cachestat` of Linux 6.5 and newer; the crate has no name for it on all of these.
    const CACHESTAT: libc::c_long = 451;

    /// The kernel's `struct cachestat_range`.
    #[repr(C)]
    struct Range {
        offset: u64,
        length: u64,
    }

    let (range, mut pages) = (Range { offset, length: bytes }, Pages::default());
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the kernel reads the one
    // structure and writes the other, which are laid out as it wants them and outlive the call. A
    // kernel that does not know the call touches neither.
    let result = unsafe {
        libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut pages, 0_u32)
    };
    (result == 0).then_some(pages)
}

/// Nobody knows.
#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
)))]
fn pages(_file: &File, _offset: u64, _bytes: u64) -> Option<Pages> {
    None
}

#[cfg(all(test, target_os = "linux"))]
pub(crate) mod tests {
    use super::*;
    use crate::sys::write_all_at;

    /// How many pages the device does not have, nor has begun with.
    pub(crate) fn dirty(file: &File) -> Option<u64> {
        Some(pages(file, 0, file.metadata().unwrap().len())?.dirty)
    }

    #[test]
    fn writing_back_is_begun_where_that_is_possible() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, &[7; 10_000], 0).unwrap();
        for (offset, bytes) in [(0, 10_000), (5_000, 0), (1 << 40, 1)] {
            begin_write_back(&file, offset, bytes).unwrap();
        }
        let (reader, _writer) = io::pipe().unwrap();
        begin_write_back(&File::from(std::os::fd::OwnedFd::from(reader)), 0, 5).unwrap();
        let error = begin_write_back(&file, u64::MAX, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
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
