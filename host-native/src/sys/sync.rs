//! Making files and names durable.
//!
//! On Apple's systems the standard library syncs with `F_FULLFSYNC`, which reaches through the
//! drive's own cache. File systems that do not have it (network shares, some foreign disks) refuse
//! it, and there a plain fsync is the most that can be had.
#![cfg_attr(target_vendor = "apple", allow(unsafe_code))]

use std::fs::File;
use std::io;

/// Makes a file's content, and as much about the file as is needed to read it back, durable.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    or_plainly(file, file.sync_data())
}

/// Makes the names in a folder durable, where the platform can.
#[cfg(unix)]
pub(crate) fn sync_folder(folder: &File) -> io::Result<()> {
    or_plainly(folder, folder.sync_all())
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
