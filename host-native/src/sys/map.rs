//! A file mapped into memory, to read.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// The bytes of a file, mapped. As long as nobody shortens or overwrites the file the bytes do not
/// change; a file that is shortened kills the process at the next read of what is gone. The log
/// guarantees that for the frames of its sealed segments, and its users for everybody else.
pub(crate) struct Mapping {
    start: NonNull<libc::c_void>,
    length: usize,
}

// SAFETY: the mapping is only read, from any thread, and unmapped once, when it is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `length` bytes. `None` for an empty file, which cannot be mapped.
    pub(super) fn new(file: &File, length: usize) -> io::Result<Option<Self>> {
        if length == 0 {
            return Ok(None);
        }
        // SAFETY: a new mapping is asked for, of a descriptor that is open; the kernel chooses a
        // place that nothing else uses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(NonNull::new(start).map(|start| Self { start, length }))
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the kernel mapped `length` readable bytes at `start`, they stay mapped until
        // drop, and the file is not written or shortened there (the condition of this type).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `length` are those of a mapping of ours, which nothing borrows any
        // more.
        unsafe { libc::munmap(self.start.as_ptr(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_mapped_file_reads_as_it_was_written() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(Mapping::new(&file, 0).unwrap().is_none());
        file.write_all(b"frames").unwrap();
        let mapping = Mapping::new(&file, 6).unwrap().unwrap();
        assert_eq!(mapping.as_ref(), b"frames");
    }
}
