//! Reads and writes at an offset, whole.

use std::fs::File;
use std::io;

/// Fills `buffer` from `offset` on, up to the end of the file, and says how many bytes there were.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read_some(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(bytes) => done += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of `bytes` at `offset`. A short write goes on; one that takes nothing is an error.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match write_some(file, &bytes[done..], offset + done as u64) {
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
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(unix)]
fn write_some(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, offset)
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
}
