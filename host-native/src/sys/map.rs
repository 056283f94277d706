//! Files mapped into memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// A part of a file, mapped. A file that is shortened kills the process when it next touches
/// what is gone; so does a page that the kernel cannot read or make room for.
struct Pages {
    start: NonNull<libc::c_void>,
    length: usize,
}

impl Pages {
    /// `None` for no bytes, which cannot be mapped.
    fn map(
        file: &File,
        offset: u64,
        length: usize,
        protection: libc::c_int,
    ) -> io::Result<Option<Self>> {
        if length == 0 {
            return Ok(None);
        }
        let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let offset = libc::off_t::try_from(offset).map_err(too_far)?;
        // SAFETY: a new mapping is asked for, of a descriptor that is open; the kernel chooses a
        // place that nothing else uses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
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
        Ok(Pages::map(file, 0, length, libc::PROT_READ)?.map(Self))
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the kernel mapped `length` readable bytes at `start`, they stay mapped until
        // drop, and the file is not written or shortened there (the condition of this type).
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr().cast(), self.0.length) }
    }
}

/// Brings mapped bytes into memory with one call, where touching them would take one for every few
/// pages. What the disk cannot read is an error here; touched, it would kill the process.
#[cfg(target_os = "linux")]
pub(super) fn bring_in(bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    // SAFETY: the call has no arguments and no effect.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
    let start = bytes.as_ptr();
    let before = start.addr() % page.max(1);
    // SAFETY: the range lies in the pages of memory that `bytes` borrows, which hold still while
    // it does; reading them in changes none of them.
    let result = unsafe {
        let start = start.cast_mut().wrapping_sub(before).cast();
        libc::madvise(start, bytes.len() + before, libc::MADV_POPULATE_READ)
    };
    match (result, io::Error::last_os_error()) {
        (0, _) => Ok(()),
        // A kernel before 5.14 does not know it.
        (_, error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        (_, error) => Err(error),
    }
}

/// The bytes of a file from some place on, to write. It is never read, and no reference to its
/// bytes is given out: what others write to the file, or read of it, at the same time cannot be
/// unsound.
pub(crate) struct Writable {
    pages: Pages,
    /// Where in the file it begins.
    base: u64,
}

/// A mapping begins at a multiple of this: of any system's pages.
const BASE_BYTES: u64 = 64 << 10;

// SAFETY: the mapping is only copied to, from any thread; the log hands no two writes out that
// overlap, and if it did, both would be plain copies into memory that nothing here reads. It is
// unmapped once, when it is dropped.
unsafe impl Send for Writable {}
// SAFETY: as above.
unsafe impl Sync for Writable {}

impl Writable {
    /// Maps the bytes from `from`, or a little before, up to `end`. `None` if there are none.
    pub(super) fn new(file: &File, from: u64, end: u64) -> io::Result<Option<Self>> {
        let base = from / BASE_BYTES * BASE_BYTES;
        let length = usize::try_from(end.saturating_sub(base)).unwrap_or(0);
        let pages = Pages::map(file, base, length, libc::PROT_READ | libc::PROT_WRITE)?;
        let Some(pages) = pages else { return Ok(None) };
        // What comes behind a page that is written to is not wanted: nothing stands there yet. The
        // kernel would read ahead as much as it does for readers, where that is 8 MiB for 20 ms of
        // one append (docs/PERFORMANCE.md).
        // SAFETY: the range is that of the mapping, whose bytes the hint does not change. What it
        // returns says only whether it was taken.
        unsafe { libc::madvise(pages.start.as_ptr(), pages.length, libc::MADV_RANDOM) };
        Ok(Some(Self { pages, base }))
    }

    /// Writes all of `bytes` at `offset`; `false`, and nothing, if they are not all mapped.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> bool {
        let length = self.pages.length;
        let start = offset.checked_sub(self.base).and_then(|start| usize::try_from(start).ok());
        let Some(start) = start.filter(|start| *start <= length) else { return false };
        if bytes.len() > length - start {
            return false;
        }
        // SAFETY: `start + bytes.len() <= length`, and the kernel mapped `length` writable bytes,
        // which stay mapped until drop. `bytes` is ordinary memory: no reference into a mapping
        // that can be written is ever made, so the two do not overlap.
        unsafe {
            let to = self.pages.start.as_ptr().cast::<u8>().add(start);
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

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_mapping_lacks_is_an_error_when_it_is_brought_in() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(20_000).unwrap();
        let mapping = Mapping::new(&file, 20_000).unwrap().unwrap();
        let bytes = mapping.as_ref();
        for range in [0..0, 0..1, 5_000..5_001, 4_095..20_000] {
            bring_in(&bytes[range]).unwrap();
        }
        file.set_len(4_096).unwrap();
        bring_in(&bytes[..4_096]).unwrap();
        assert_eq!(bring_in(&bytes[9_000..9_001]).unwrap_err().raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn what_is_copied_into_a_mapping_is_in_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"......").unwrap();
        let mapping = Writable::new(&file, 3, 6).unwrap().unwrap();
        assert!(mapping.write(b"ab", 0) && mapping.write(b"ef", 4) && mapping.write(b"", 6));
        for (bytes, offset) in [(&b"g"[..], 6), (b"fg", 5), (b"", 7), (b"x", u64::MAX)] {
            assert!(!mapping.write(bytes, offset), "{offset}");
        }
        drop(mapping);
        let mut bytes = [0; 7];
        assert_eq!(crate::sys::read_at(&file, &mut bytes, 0).unwrap(), 6);
        assert_eq!(&bytes[..6], b"ab..ef");
        file.set_len(200_000).unwrap();
        let mapping = Writable::new(&file, 150_000, 200_000).unwrap().unwrap();
        assert!(!mapping.write(b"x", 100_000) && !mapping.write(b"xy", 199_999));
        assert!(mapping.write(b"x", 2 * BASE_BYTES) && mapping.write(b"y", 199_999));
        for (offset, expected) in [(2 * BASE_BYTES, b"x"), (199_999, b"y")] {
            let mut byte = [0];
            assert_eq!(crate::sys::read_at(&file, &mut byte, offset).unwrap(), 1);
            assert_eq!(&byte, expected, "{offset}");
        }
        assert!(Writable::new(&file, 300_000, 200_000).unwrap().is_none());
    }

    /// 8 MiB of reserved space were made pages of before an append went on.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_copied_into_a_mapping_brings_in_nothing_behind_it() {
        use crate::sys::{Cached, allocate, cached};
        let file = tempfile::tempfile().unwrap();
        allocate(&file, 0, 32 << 20).unwrap();
        if cached(&file, 0, 32 << 20) != Some(Cached::Nothing) {
            println!("skipped: temporary files are in memory here, or nobody can tell");
            return;
        }
        let mapping = Writable::new(&file, 0, 32 << 20).unwrap().unwrap();
        // One after the other, as appends are, and each on a page of its own.
        for offset in (0..1 << 20).step_by(256 << 10) {
            assert!(mapping.write(b"frame", offset));
        }
        assert_eq!(cached(&file, 0, 1 << 20), Some(Cached::Part));
        assert_eq!(cached(&file, 1 << 20, 31 << 20), Some(Cached::Nothing));
    }
}
