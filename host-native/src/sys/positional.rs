//! Reads and writes at an offset, whole.
//!
//! On Unix they are bare system calls. The C library's are points at which a thread can be
//! cancelled, which takes two more atomic operations as soon as a process has two threads: 40 of
//! 850 ns (docs/PERFORMANCE.md).

use std::fs::File;
use std::io;

/// Fills `buffer` from `offset` on, up to the end of the file, and says how many bytes there were.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    read_whole(buffer, offset, |buffer, offset| read_some(file, buffer, offset))
}

/// Fills `buffer` from the page cache, without waiting for the disk. `false`: not all of it is
/// there, or nobody can tell.
#[cfg(target_os = "linux")]
pub(crate) fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> bool {
    let length = buffer.len();
    let buffers = &mut [io::IoSliceMut::new(buffer)];
    let read = rustix::io::preadv2(file, buffers, offset, rustix::io::ReadWriteFlags::NOWAIT);
    read.is_ok_and(|read| read == length)
}

/// A platform without such a call.
#[cfg(not(target_os = "linux"))]
pub(crate) fn read_cached(_file: &File, _buffer: &mut [u8], _offset: u64) -> bool {
    false
}

/// A long write is made in pieces that end where the file's pages do, and so do the long stretches
/// of pages that Linux takes at once. Where each piece ended within a page, that page was filled
/// twice, and all others came singly: batches of 1 MiB took 1.6 ms so and 1.0 ms like this
/// (docs/PERFORMANCE.md).
const PIECE_BYTES: u64 = 256 << 10;

/// Writes all of `bytes` at `offset`. A short write goes on; one that takes nothing is an error.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    write_whole(bytes, offset, |bytes, offset| write_some(file, first_piece(bytes, offset), offset))
}

/// The first piece of a write, all of it where it is short.
pub(crate) fn first_piece(bytes: &[u8], offset: u64) -> &[u8] {
    let piece_bytes = usize::try_from(PIECE_BYTES - offset % PIECE_BYTES).unwrap_or(usize::MAX);
    &bytes[..bytes.len().min(piece_bytes)]
}

fn read_whole(
    buffer: &mut [u8],
    offset: u64,
    mut read_some: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read_some(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(bytes) => done += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn write_whole(
    bytes: &[u8],
    offset: u64,
    mut write_some: impl FnMut(&[u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match write_some(&bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pread(file, buffer, offset)?)
}

#[cfg(unix)]
fn write_some(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pwrite(file, bytes, offset)?)
}

#[cfg(windows)]
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
        // ERROR_HANDLE_EOF: past the end.
        Err(error) if error.raw_os_error() == Some(38) => Ok(0),
        result => result,
    }
}

#[cfg(windows)]
fn write_some(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_at_an_offset_is_read_there() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, b"segment", 5).unwrap();
        let mut buffer = [9; 10];
        assert_eq!(read_at(&file, &mut buffer, 5).unwrap(), 7);
        assert_eq!(&buffer[..7], b"segment");
        assert_eq!(read_at(&file, &mut buffer, 100).unwrap(), 0);
        assert_eq!(read_at(&file, &mut [], 0).unwrap(), 0);
        write_all_at(&file, b"", 500).unwrap();
        write_all_at(&file, b"g", 6).unwrap();
        assert_eq!(read_at(&file, &mut buffer, 0).unwrap(), 10);
        assert_eq!(&buffer, b"\0\0\0\0\0sggme");
    }

    #[test]
    fn what_is_read_at_once_is_all_that_was_asked_for() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, b"segment", 5).unwrap();
        let mut buffer = [9; 7];
        // Not every file system can tell.
        if read_cached(&file, &mut buffer, 5) {
            assert_eq!(&buffer, b"segment");
        }
        assert!(!read_cached(&file, &mut buffer, 6) && !read_cached(&file, &mut buffer, 100));
    }

    #[test]
    fn pieces_of_a_long_write_end_where_pages_do() {
        let bytes = vec![7; 1 << 20];
        for (offset, piece_bytes) in [(0, 256 << 10), (5, (256 << 10) - 5), ((512 << 10) - 1, 1)] {
            assert_eq!(first_piece(&bytes, offset).len(), piece_bytes, "{offset}");
        }
        assert_eq!(first_piece(b"short", 5), b"short");
    }

    /// A kernel that a signal interrupts every other time, and that takes three bytes at a time.
    struct Slow {
        calls: u32,
        content: Vec<u8>,
    }

    impl Slow {
        fn give(&mut self, wanted: usize) -> io::Result<usize> {
            self.calls += 1;
            if self.calls % 2 == 1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(wanted.min(3))
        }
    }

    #[test]
    fn short_and_interrupted_calls_go_on() {
        let mut slow = Slow { calls: 0, content: vec![b'.'; 2] };
        let written = write_whole(b"segment", 2, |bytes, offset| {
            let given = slow.give(bytes.len())?;
            assert_eq!(usize::try_from(offset).unwrap(), slow.content.len());
            slow.content.extend_from_slice(&bytes[..given]);
            Ok(given)
        });
        written.unwrap();
        assert_eq!((slow.content.as_slice(), slow.calls), (&b"..segment"[..], 6));
        let mut buffer = [0; 20];
        let read = read_whole(&mut buffer, 1, |buffer, offset| {
            let rest = slow.content[usize::try_from(offset).unwrap()..].to_vec();
            let given = slow.give(buffer.len().min(rest.len()))?;
            buffer[..given].copy_from_slice(&rest[..given]);
            Ok(given)
        });
        assert_eq!(&buffer[..read.unwrap()], b".segment");
    }

    #[test]
    fn a_write_that_takes_nothing_and_any_other_error_end_it() {
        let error = write_whole(b"x", 0, |_, _| Ok(0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        let denied = || io::ErrorKind::PermissionDenied.into();
        let error = write_whole(b"x", 0, |_, _| Err(denied())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let error = read_whole(&mut [0], 0, |_, _| Err(denied())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
