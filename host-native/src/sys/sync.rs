//! Making files and names durable.
//!
//! On Apple's systems the standard library syncs with `F_FULLFSYNC`, which reaches through the
//! drive's own cache. File systems that do not have it (network shares, some foreign disks) refuse
//! it, and there a plain fsync is the most that can be had.
//!
//! On Linux a success is looked at again. When ext4 cannot write its journal it turns read-only,
//! and from then on fsync and fdatasync return success and do nothing (seen with 6.18): a call that
//! comes after another thread, or the kernel's own commit, has met the failure, is told nothing of
//! it. So a file system that is read-only has synced nothing.
#![cfg_attr(any(target_vendor = "apple", target_os = "linux"), allow(unsafe_code))]

use std::fs::File;
use std::io;

/// Makes a file's content, and as much about the file as is needed to read it back, durable.
///
/// After a failure the page cache may go on showing what the device does not have, to whoever opens
/// the log next as well: so it lets go of the file.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    let synced = or_plainly(file, file.sync_data()).and_then(|()| still_writable(file));
    synced.inspect_err(|_| super::let_go(file))
}

/// Makes the names in a folder durable, where the platform can.
#[cfg(unix)]
pub(crate) fn sync_folder(folder: &File) -> io::Result<()> {
    or_plainly(folder, folder.sync_all())?;
    still_writable(folder)
}

/// How many names a file has.
///
/// Of a file that somebody has asked for its times Linux keeps them to the nanosecond from then on,
/// once for each time asked, and the next write has to change them: asked after each sync, that
/// made a durable append of 1 KiB take 155 us for 105. So nothing else is asked for.
#[cfg(target_os = "linux")]
pub(crate) fn names_of(file: &File) -> io::Result<u64> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let told = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::NLINK)?;
    Ok(told.stx_nlink.into())
}

/// How many names a file has.
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) fn names_of(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(file.metadata()?.nlink())
}

/// Refuses a success of a file system that has turned read-only meanwhile: its cache may hold what
/// the device never will.
#[cfg(target_os = "linux")]
fn still_writable(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut told = std::mem::MaybeUninit::<libc::statvfs64>::uninit();
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call writes no more
    // than the structure that it is given.
    if unsafe { libc::fstatvfs64(file.as_raw_fd(), told.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, and then it has filled the structure.
    let flags = unsafe { told.assume_init() }.f_flag;
    if flags & libc::ST_RDONLY == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EROFS))
    }
}

/// Elsewhere nothing of the kind is known.
#[cfg(not(target_os = "linux"))]
fn still_writable(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Only "there is no such call here" is answered with another: a sync that failed is never
/// repeated, because the second may report success for pages that the first one lost.
#[cfg(target_vendor = "apple")]
fn or_plainly(file: &File, result: io::Result<()>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    match result.as_ref().map_err(io::Error::raw_os_error) {
        Err(Some(libc::ENOTSUP | libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL)) => {}
        _ => return result,
    }
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call takes no
        // pointers.
        if unsafe { libc::fsync(file.as_raw_fd()) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The standard library's call is the one to make.
#[cfg(not(target_vendor = "apple"))]
fn or_plainly(_file: &File, result: io::Result<()>) -> io::Result<()> {
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_are_synced() {
        let temp = tempfile::tempdir().unwrap();
        let file = File::create(temp.path().join("file")).unwrap();
        sync_data(&file).unwrap();
        #[cfg(unix)]
        sync_folder(&File::open(temp.path()).unwrap()).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_cannot_be_synced_says_so() {
        // A pipe refuses fdatasync with EINVAL.
        let (_reader, writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        assert!(sync_data(&file).is_err());
    }
}
