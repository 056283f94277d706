//! Files mapped into memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// A file's first bytes, mapped. A file that is shortened kills the process when it next touches
/// what is gone; so does a page that the kernel cannot read or make room for.
struct Pages {
    start: NonNull<libc::c_void>,
    length: usize,
}

impl Pages {
    /// `None` for no bytes, which cannot be mapped.
    fn map(file: &File, length: usize, protection: libc::c_int) -> io::Result<Option<Self>> {
        if length == 0 {
            return Ok(None);
        }
        // SAFETY: a new mapping is asked for, of a descriptor that is open; the kernel chooses a
        // place that nothing else uses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
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

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `start` and `length` are those of a mapping of ours, which nothing borrows any
        // more.
        unsafe { libc::munmap(self.start.as_ptr(), self.length) };
    }
}

/// The bytes of a file, to read. As long as nobody shortens or overwrites the file they do not
/// change. The log guarantees that for the frames of its sealed segments, and its users for
/// everybody else.
pub(crate) struct Mapping(Pages);

// SAFETY: the mapping is only read, from any thread, and unmapped once, when it is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `length` bytes. `None` for an empty file, which cannot be mapped.
    pub(super) fn new(file: &File, length: usize) -> io::Result<Option<Self>> {
        Ok(Pages::map(file, length, libc::PROT_READ)?.map(Self))
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the kernel mapped `length` readable bytes at `start`, they stay mapped until
        // drop, and the file is not written or shortened there (the condition of this type).
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr().cast(), self.0.length) }
    }
}

/// The bytes of a file, to write. It is never read, and no reference to its bytes is given out:
/// what others write to the file, or read of it, at the same time cannot be unsound.
pub(crate) struct Writable(Pages);

// SAFETY: the mapping is only copied to, from any thread; the log hands no two writes out that
// overlap, and if it did, both would be plain copies into memory that nothing here reads. It is
// unmapped once, when it is dropped.
unsafe impl Send for Writable {}
// SAFETY: as above.
unsafe impl Sync for Writable {}

impl Writable {
    /// Maps the first `length` bytes. `None` for an empty file, which cannot be mapped.
    pub(super) fn new(file: &File, length: usize) -> io::Result<Option<Self>> {
        Ok(Pages::map(file, length, libc::PROT_READ | libc::PROT_WRITE)?.map(Self))
    }

    /// Writes all of `bytes` at `offset`; `false`, and nothing, if they are not all mapped.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> bool {
        let length = self.0.length;
        let Some(start) = usize::try_from(offset).ok().filter(|start| *start <= length) else {
            return false;
        };
        if bytes.len() > length - start {
            return false;
        }
        // SAFETY: `start + bytes.len() <= length`, and the kernel mapped `length` writable bytes,
        // which stay mapped until drop. `bytes` is ordinary memory: no reference into a mapping
        // that can be written is ever made, so the two do not overlap.
        unsafe {
            let to = self.0.start.as_ptr().cast::<u8>().add(start);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        true
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

    #[test]
    fn what_is_copied_into_a_mapping_is_in_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"......").unwrap();
        let mapping = Writable::new(&file, 6).unwrap().unwrap();
        assert!(mapping.write(b"ab", 0) && mapping.write(b"ef", 4) && mapping.write(b"", 6));
        for (bytes, offset) in [(&b"g"[..], 6), (b"fg", 5), (b"", 7), (b"x", u64::MAX)] {
            assert!(!mapping.write(bytes, offset), "{offset}");
        }
        drop(mapping);
        let mut bytes = [0; 7];
        assert_eq!(crate::sys::read_at(&file, &mut bytes, 0).unwrap(), 6);
        assert_eq!(&bytes[..6], b"ab..ef");
    }
}
