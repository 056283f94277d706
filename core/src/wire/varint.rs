//! Variable-length integers: seven bits a byte, the lowest first, the top bit set on all but the
//! last (LEB128). At most ten bytes; the shortest form is the only one accepted, so that a value
//! has one encoding and a frame one checksum.

use crate::batch::Buffer;

/// The longest encoding of a `u64`.
pub const VARINT_BYTES_MAX: usize = 10;

/// How many bytes `value` takes.
#[inline]
pub const fn len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends `value` to `out`.
pub fn put(out: &mut impl Buffer, value: u64) {
    let mut bytes = [0; VARINT_BYTES_MAX];
    let count = write(&mut bytes, value);
    out.extend(&bytes[..count]);
}

/// Writes `value` to the front of `out`, which has room for it, and says how many bytes it takes.
#[inline]
pub(crate) fn write(out: &mut [u8], value: u64) -> usize {
    let mut rest = value;
    let mut count = 0;
    while rest >= 0x80 {
        out[count] = low_bits(rest) | 0x80;
        rest >>= 7;
        count += 1;
    }
    out[count] = low_bits(rest);
    count + 1
}

/// Reads a value from the front of `bytes`, and says how many bytes it took.
///
/// `None` when the bytes end too early, run over ten, overflow, or are not the shortest form.
pub fn take(bytes: &[u8]) -> Option<(u64, usize)> {
    // Nearly all lengths are so short.
    match *bytes {
        [first @ ..0x80, ..] => return Some((u64::from(first), 1)),
        [first, second @ 1..0x80, ..] => {
            return Some((u64::from(first & 0x7f) | u64::from(second) << 7, 2));
        }
        _ => {}
    }
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == VARINT_BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte < 0x80 {
            let shortest = byte != 0 || index == 0;
            return shortest.then_some((value, index + 1));
        }
    }
    None
}

fn low_bits(value: u64) -> u8 {
    (value & 0x7f) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn every_length_round_trips() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, (1 << shift) + 1] {
                let mut bytes = Vec::new();
                put(&mut bytes, value);
                assert_eq!(bytes.len(), len(value));
                assert_eq!(take(&bytes), Some((value, bytes.len())));
                assert_eq!(take(&bytes[..bytes.len() - 1]), None);
            }
        }
    }

    #[test]
    fn only_the_shortest_form_is_a_value() {
        assert_eq!(take(&[0x80, 0x00]), None);
        assert_eq!(take(&[0xff; 10]), None);
        assert_eq!(take(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
        assert_eq!(take(&[]), None);
    }
}
