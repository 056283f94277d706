//! Bytes to values and back. `docs/FORMAT.md` says the same for writers of other readers.
//!
//! Everything is little-endian. Lengths and offsets are `u32` or `u64`, never `usize`. Reading
//! checks a length before it is used, so nothing here panics on any bytes.

pub mod checksum;
pub mod frame;
pub mod header;
pub mod manifest;
pub mod name;
pub mod seal;
pub mod varint;

/// The eight bytes at `at`, as a number. The caller has checked that they are there.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// The four bytes at `at`, as a number. The caller has checked that they are there.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// Whether every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Folding whole blocks lets the compiler use vector registers; a byte loop with an early exit
    // does not.
    let mut blocks = bytes.chunks_exact(64);
    blocks.all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
        && bytes[bytes.len() - bytes.len() % 64..].iter().all(|byte| *byte == 0)
}
