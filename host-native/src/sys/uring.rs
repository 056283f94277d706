//! Long writes through io_uring: several pieces of one write under way at a time, past the page
//! cache. While the device takes one piece, the next is copied to where it can be taken from.
#![allow(unsafe_code)]

use super::aligned::{Aligned, BLOCK_BYTES};
use super::write_all_at;
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;

/// So many pieces are under way at a time.
const PIECES: usize = 4;
/// For reserved space each piece costs the file system a note that it is written, so that long ones
/// pay: 1 MiB took 1.5 ms in pieces of 64 KiB and 0.7 in these (docs/PERFORMANCE.md).
const PIECE_BYTES: usize = 512 << 10;

/// A queue of writes to the kernel, and the memory that they are made from.
pub(crate) struct Ring {
    ring: IoUring,
    /// The kernel reads from it until a write has completed, so it is not freed before.
    pieces: ManuallyDrop<Vec<Aligned>>,
    free: Vec<usize>,
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.free.len() == PIECES {
            // SAFETY: this is the only place that drops the pieces, and they are not used after.
            unsafe { ManuallyDrop::drop(&mut self.pieces) };
        }
    }
}

/// A piece under way: where it is in the bytes, and how long.
#[derive(Clone, Copy, Default)]
struct Piece {
    start: usize,
    length: usize,
}

impl Ring {
    /// Asks the kernel for a queue.
    ///
    /// # Errors
    /// When it has none, or none for this process.
    pub(crate) fn new() -> io::Result<Self> {
        let ring = IoUring::new(u32::try_from(PIECES).unwrap_or(1))?;
        let pieces = (0..PIECES).map(|_| Aligned::new(PIECE_BYTES)).collect();
        Ok(Self { ring, pieces: ManuallyDrop::new(pieces), free: (0..PIECES).collect() })
    }

    /// Writes all of `bytes` at `offset`, both whole blocks. `direct` was opened to write past the
    /// page cache; where a piece is not taken whole, `file`, the same without that, takes the rest.
    ///
    /// # Errors
    /// The first that a piece meets. [`io::ErrorKind::InvalidInput`] where the file system does not
    /// write past the page cache. If something is under way then, the ring is not to be used again:
    /// see [`is_idle`](Self::is_idle).
    pub(crate) fn write(
        &mut self,
        direct: &File,
        file: &File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        debug_assert!(bytes.len().is_multiple_of(BLOCK_BYTES));
        let mut under_way = [Piece::default(); PIECES];
        let mut at = 0;
        let mut result = Ok(());
        while at < bytes.len() || self.free.len() < PIECES {
            while at < bytes.len()
                && result.is_ok()
                && let Some(slot) = self.free.pop()
            {
                let length = PIECE_BYTES.min(bytes.len() - at);
                under_way[slot] = Piece { start: at, length };
                let place = offset + at as u64;
                result = self.begin(direct, &bytes[at..at + length], place, slot);
                at += length;
            }
            if result.is_err() {
                at = bytes.len();
            }
            if self.free.len() < PIECES {
                self.wait()?;
            }
            while let Some((slot, taken)) = self.completed() {
                self.free.push(slot);
                let Piece { start, length } = under_way[slot];
                let finished = taken.and_then(|taken| {
                    let rest = start + taken.min(length)..start + length;
                    let place = offset + rest.start as u64;
                    if rest.is_empty() { Ok(()) } else { write_all_at(file, &bytes[rest], place) }
                });
                result = result.and(finished);
            }
        }
        result
    }

    /// Hands a piece to the kernel.
    fn begin(&mut self, direct: &File, bytes: &[u8], offset: u64, slot: usize) -> io::Result<()> {
        let memory = &mut self.pieces[slot].bytes()[..bytes.len()];
        memory.copy_from_slice(bytes);
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        let write = opcode::Write::new(types::Fd(direct.as_raw_fd()), memory.as_ptr(), length)
            .offset(offset)
            .build()
            .user_data(slot as u64);
        // SAFETY: the memory is this ring's, is not touched while its slot is not free, and is
        // freed only when all slots are; the descriptor is open when the kernel is given it, which
        // then holds the file itself.
        let pushed = unsafe { self.ring.submission().push(&write) };
        if let Err(error) = pushed {
            self.free.push(slot);
            return Err(io::Error::other(error));
        }
        // What fails here fails again with the call that waits.
        self.ring.submit().ok();
        Ok(())
    }

    /// Waits for a piece.
    fn wait(&mut self) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if passes(&error) => {}
                result => return result.map(drop),
            }
        }
    }

    /// A piece that has completed, and how much of it was taken.
    fn completed(&mut self) -> Option<(usize, io::Result<usize>)> {
        let entry = self.ring.completion().next()?;
        let slot = usize::try_from(entry.user_data()).ok().filter(|slot| *slot < PIECES)?;
        let result = entry.result();
        let taken = usize::try_from(result);
        Some((slot, taken.map_err(|_| io::Error::from_raw_os_error(-result))))
    }

    /// Whether all that was begun has completed.
    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == PIECES
    }
}

/// Whether a call is to be made again.
fn passes(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::read_at;
    use std::os::unix::fs::OpenOptionsExt;

    /// A file, and the same past the page cache.
    fn files() -> Option<(tempfile::TempDir, File, File)> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let direct = File::options().write(true).custom_flags(libc::O_DIRECT).open(&path);
        match direct {
            Ok(direct) => Some((temp, file, direct)),
            Err(error) => {
                println!("skipped: temporary files cannot be written past the cache: {error}");
                None
            }
        }
    }

    fn ring() -> Option<Ring> {
        Ring::new().inspect_err(|error| println!("skipped: no io_uring here: {error}")).ok()
    }

    #[test]
    fn every_length_arrives_where_it_should() {
        let (Some((_temp, file, direct)), Some(mut ring)) = (files(), ring()) else { return };
        for blocks in [1, 2, 127, 128, 129, 512, 1_000] {
            let bytes: Vec<u8> =
                (0..blocks * BLOCK_BYTES).map(|at| u8::try_from(at / 7 % 251).unwrap()).collect();
            let offset = BLOCK_BYTES as u64 * 3;
            ring.write(&direct, &file, &bytes, offset).unwrap();
            assert!(ring.is_idle());
            let mut found = vec![0; bytes.len()];
            assert_eq!(read_at(&file, &mut found, offset).unwrap(), bytes.len());
            assert!(found == bytes, "{blocks} blocks");
        }
    }

    #[test]
    fn a_write_that_fails_says_so_and_the_ring_goes_on() {
        let (Some((temp, file, direct)), Some(mut ring)) = (files(), ring()) else { return };
        let bytes = vec![7; 3 * PIECE_BYTES];
        let reads = File::open(temp.path().join("file")).unwrap();
        let refused = ring.write(&reads, &reads, &bytes, 0).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
        assert!(ring.is_idle());
        // A file system in memory takes it.
        if let Err(unaligned) = ring.write(&direct, &file, &bytes, 77) {
            assert_eq!(unaligned.kind(), io::ErrorKind::InvalidInput);
        }
        ring.write(&direct, &file, &bytes, 0).unwrap();
        assert!(file.metadata().unwrap().len() >= bytes.len() as u64);
    }
}
