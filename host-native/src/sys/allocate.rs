//! Reserving space.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

/// Reserves the blocks of `from..to` and makes the file at least `to` bytes long. Never shortens
/// it.
///
/// Where the file system cannot reserve, the file is only made longer.
///
/// # Errors
/// When there is no room, or the file cannot be made longer.
pub(crate) fn allocate(file: &File, from: u64, to: u64) -> io::Result<()> {
    if reserve(file, from, to)? { Ok(()) } else { lengthen(file, to) }
}

/// Reserves the blocks of `from..to` and leaves the file's length as it is, where twice as many are
/// free: what a failed call has taken stays taken.
///
/// Where the file system cannot reserve, nothing is done.
///
/// # Errors
/// When there is no room.
#[cfg(target_os = "linux")]
pub(crate) fn allocate_past_end(file: &File, from: u64, to: u64) -> io::Result<()> {
    let told = rustix::fs::fstatvfs(file)?;
    let free = told.f_bavail.saturating_mul(told.f_frsize);
    // Some file systems say nothing, of what there is in all neither.
    if told.f_blocks > 0 && free / 2 < to.saturating_sub(from) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    fallocate(file, libc::FALLOC_FL_KEEP_SIZE, from, to).map(drop)
}

/// No way to do that.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "it can fail on other platforms")]
pub(crate) fn allocate_past_end(_file: &File, _from: u64, _to: u64) -> io::Result<()> {
    Ok(())
}

/// Whether a file system writes what is overwritten to new blocks, in the files of this folder. A
/// block that is reserved there, or was written, is not the one that the next write takes.
#[cfg(target_os = "linux")]
pub(crate) fn copies_on_write(folder: &File) -> bool {
    use rustix::fs::{IFlags, fstatfs, ioctl_getflags};
    /// btrfs, bcachefs and ZFS, by their magic numbers.
    const KINDS: [u32; 3] = [0x9123_683e, 0xca45_1a4e, 0x2fc1_2fc1];
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it has 32 bits")]
    let is_such = |told: rustix::fs::StatFs| KINDS.contains(&(told.f_type as u32));
    let overwrites = || ioctl_getflags(folder).is_ok_and(|flags| flags.contains(IFlags::NOCOW));
    fstatfs(folder).is_ok_and(is_such) && !overwrites()
}

fn lengthen(file: &File, to: u64) -> io::Result<()> {
    if file.metadata()?.len() < to { file.set_len(to) } else { Ok(()) }
}

/// Whether the blocks were reserved and the length is set; `false` where that cannot be done.
#[cfg(target_os = "linux")]
fn reserve(file: &File, from: u64, to: u64) -> io::Result<bool> {
    fallocate(file, 0, from, to)
}

/// Whether the file system can do it.
#[cfg(target_os = "linux")]
fn fallocate(file: &File, mode: libc::c_int, from: u64, to: u64) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = libc::off64_t::try_from(from).map_err(too_long)?;
    let length = libc::off64_t::try_from(to.saturating_sub(from)).map_err(too_long)?;
    if length == 0 {
        return Ok(false);
    }
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call takes no
        // pointers.
        if unsafe { libc::fallocate64(file.as_raw_fd(), mode, offset, length) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(false),
            _ => return Err(error),
        }
    }
}

/// Whether the blocks were reserved; the length is always set by the caller.
#[cfg(target_os = "macos")]
fn reserve(file: &File, _from: u64, to: u64) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let have = file.metadata()?.len();
    let more = libc::off_t::try_from(to.saturating_sub(have)).unwrap_or(0);
    for flags in [libc::F_ALLOCATECONTIG, libc::F_ALLOCATEALL] {
        let mut store = libc::fstore_t {
            fst_flags: flags,
            fst_posmode: libc::F_PEOFPOSMODE,
            fst_offset: 0,
            fst_length: more,
            fst_bytesalloc: 0,
        };
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and `store` outlives
        // the call that it is handed to.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_PREALLOCATE, &mut store) };
        if more == 0 || result != -1 {
            break;
        }
    }
    Ok(false)
}

/// No way to reserve.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
#[allow(clippy::unnecessary_wraps, reason = "it can fail on other platforms")]
fn reserve(_file: &File, _from: u64, _to: u64) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_lengthened_and_never_shortened() {
        let file = tempfile::tempfile().unwrap();
        allocate(&file, 0, 10_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10_000);
        for (from, to) in [(0, 5_000), (9_000, 10_000), (10_000, 10_000), (7, 3), (20_000, 9)] {
            allocate(&file, from, to).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 10_000, "{from}..{to}");
        }
        allocate(&file, 5_000, 20_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 20_000);
        allocate(&file, 30_000, 30_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 30_000);
    }

    #[test]
    fn the_way_without_reserving_never_shortens_either() {
        let file = tempfile::tempfile().unwrap();
        for (to, length) in [(10, 10), (5, 10), (0, 10), (12, 12)] {
            lengthen(&file, to).unwrap();
            assert_eq!(file.metadata().unwrap().len(), length);
        }
    }

    #[test]
    fn what_is_there_stays_and_what_is_new_is_zero() {
        let file = tempfile::tempfile().unwrap();
        crate::sys::write_all_at(&file, b"frames", 0).unwrap();
        allocate(&file, 3, 12).unwrap();
        let mut bytes = [1; 12];
        assert_eq!(crate::sys::read_at(&file, &mut bytes, 0).unwrap(), 12);
        assert_eq!(&bytes, b"frames\0\0\0\0\0\0");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_reserved_past_the_end_is_not_seen_and_goes_with_a_cut() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile().unwrap();
        let blocks = || file.metadata().unwrap().blocks() * 512;
        crate::sys::write_all_at(&file, b"frames", 0).unwrap();
        allocate_past_end(&file, 4_096, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 6);
        // Nothing is reserved where the file system cannot do it.
        assert!(blocks() <= 4_096 || blocks() >= (1 << 20), "{}", blocks());
        crate::sys::write_all_at(&file, b"more", 300_000).unwrap();
        file.set_len(300_004).unwrap();
        assert!(blocks() < 1 << 19, "{}", blocks());
        let refused = allocate_past_end(&file, 0, 1 << 60).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert!(blocks() < 1 << 19, "{}", blocks());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn lengths_that_no_file_has_are_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(allocate(&file, 0, u64::MAX).is_err());
        assert!(allocate(&file, u64::MAX, u64::MAX).is_err());
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
