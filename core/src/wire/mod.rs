//! Bytes to values and back. `docs/FORMAT.md` says the same for writers of other readers.
//!
//! Everything is little-endian. Lengths and offsets are `u32` or `u64`, never `usize`. Reading
//! checks a length before it is used, so nothing here panics on any bytes.

pub mod checksum;
pub mod frame;
pub mod header;
pub mod known;
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
pub fn is_zero(bytes: &[u8]) -> bool {
    // Folding whole blocks of words lets the compiler use vector registers, and loads of eight
    // bytes where there are none, as in WebAssembly; a byte loop with an early exit does neither.
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().all(|block| {
        let (words, _) = block.as_chunks::<8>();
        words.iter().fold(0, |all, word| all | u64::from_le_bytes(*word)) == 0
    }) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_or_two_of_them_are_not_zero() {
        let mut bytes = [0; 150];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in 0..bytes.len() {
            // A word later the same again: they must not cancel out.
            let twin = (at + 8) % bytes.len();
            bytes[at] = 0x40;
            assert!(!is_zero(&bytes), "{at}");
            bytes[twin] = 0x40;
            assert!(!is_zero(&bytes), "{at} and {twin}");
            (bytes[at], bytes[twin]) = (0, 0);
        }
    }
}
