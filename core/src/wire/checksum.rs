//! The two checksums, and what a frame's checksum is tied to.
//!
//! A frame's checksum runs over its bytes and then over its **place**: salt, segment, offset and
//! LSN. The place is not stored with the frame. A frame found anywhere but where it was written, or
//! with another number of records before it, or in an earlier life of the file, does not match.
//!
//! The place comes last so that a frame's own bytes are summed once, however many places are tried.

use crate::id::{Lsn, SegmentId};
use xxhash_rust::xxh3::Xxh3;

/// Which checksum the frames of a segment carry. The segment's header names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum ChecksumKind {
    /// CRC32C (Castagnoli), four bytes.
    #[default]
    Crc32c = 1,
    /// XXH3 with 64 bits, eight bytes.
    Xxh3 = 2,
}

impl ChecksumKind {
    /// The kind that a header's byte names.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Crc32c),
            2 => Some(Self::Xxh3),
            _ => None,
        }
    }

    /// How many bytes a frame spends on it.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Xxh3 => 8,
        }
    }
}

/// Continues a CRC32C over more bytes: `crc32c(crc32c(0, a), b)` is the CRC32C of `a` then `b`.
///
/// The host hands in the fastest it has; [`crc32c`] is the portable one.
pub type Crc32cFn = fn(u32, &[u8]) -> u32;

/// Where a frame stands. Two frames never share a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The salt of the segment.
    pub salt: u64,
    /// The segment.
    pub segment: SegmentId,
    /// Bytes from the start of the segment's file to the frame.
    pub offset: u64,
    /// The LSN of the frame's first record, or of the next record where the frame has none.
    pub lsn: Lsn,
}

impl Place {
    /// What a frame's checksum goes over at its end.
    #[inline]
    pub(crate) fn bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[0..8].copy_from_slice(&self.salt.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.segment.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.lsn.get().to_le_bytes());
        bytes
    }
}

/// A checksum under way.
#[derive(Clone)]
pub enum Digest {
    /// CRC32C: the function, and the sum so far.
    Crc32c(Crc32cFn, u32),
    /// XXH3-64. Boxed: its state is large, and CRC32C is what nearly every log uses.
    Xxh3(alloc::boxed::Box<Xxh3>),
}

impl core::fmt::Debug for Digest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Crc32c(_, sum) => write!(f, "Crc32c({sum:#010x})"),
            Self::Xxh3(_) => f.write_str("Xxh3(..)"),
        }
    }
}

impl Digest {
    /// A checksum that has gone over one byte: a frame's first, which stands apart.
    #[inline]
    pub fn new(kind: ChecksumKind, crc: Crc32cFn, first: u8) -> Self {
        match kind {
            // A look at the table costs a fifth of a call.
            ChecksumKind::Crc32c => Self::Crc32c(crc, !step(u32::MAX, first)),
            ChecksumKind::Xxh3 => {
                let mut state = alloc::boxed::Box::new(Xxh3::new());
                state.update(&[first]);
                Self::Xxh3(state)
            }
        }
    }

    /// Goes on over `bytes`.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32c(crc, sum) => *sum = crc(*sum, bytes),
            Self::Xxh3(state) => state.update(bytes),
        }
    }

    /// The checksum of all so far. CRC32C fills the low four bytes.
    #[inline]
    pub fn sum(&self) -> u64 {
        match self {
            Self::Crc32c(_, sum) => u64::from(*sum),
            Self::Xxh3(state) => state.digest(),
        }
    }

    /// The checksum, with the frame's place added at its end.
    pub fn at(&self, place: Place) -> u64 {
        let mut whole = self.clone();
        whole.update(&place.bytes());
        whole.sum()
    }

    /// The LSN with which the checksum at `place` is `sum`: the one in `place`, or the first after
    /// it with the same low 16 bits, `ahead_max` further at most.
    pub(crate) fn matching_lsn(&self, place: Place, ahead_max: u64, sum: u64) -> Option<Lsn> {
        if self.at(place) == sum {
            return Some(place.lsn);
        }
        if ahead_max < 1 << 16 {
            return None;
        }
        let first = place.lsn.get();
        let last = first.saturating_add(ahead_max);
        match self {
            Self::Crc32c(crc, before) => {
                let before = !crc(*before, &place.bytes()[..26]);
                let end = !u32::try_from(sum).ok()?;
                let lsns = (first >> 32..=last >> 32).filter_map(|high| {
                    let high_bytes = u32::try_from(high).ok()?.to_le_bytes();
                    let middle = bytes_between(before, step_back(end, high_bytes))?;
                    Some(high << 32 | u64::from(middle) << 16 | first & 0xffff)
                });
                let mut matching = lsns.filter(|lsn| (first..=last).contains(lsn));
                matching.next().map(Lsn::new)
            }
            Self::Xxh3(_) => {
                let lsns = (first..=last).step_by(1 << 16).map(Lsn::new);
                let mut matching = lsns.filter(|lsn| self.at(Place { lsn: *lsn, ..place }) == sum);
                matching.next()
            }
        }
    }

    /// What it costs not to find a [matching LSN](Self::matching_lsn), in bytes summed: a sum of
    /// XXH3 begins with some hundred bytes of its own, and each number is tried.
    pub(crate) const fn vain_bytes(&self, ahead_max: u64) -> u64 {
        match self {
            Self::Crc32c(..) => 0,
            Self::Xxh3(_) => ((ahead_max >> 16) + 1).saturating_mul(512),
        }
    }
}

/// The two bytes that take a CRC32C from one register to another, if any do.
///
/// A step shifts eight bits out and adds what the table has for them. So of two steps the table's
/// part stands in `to` where the upper half of `from` does not, and by it the lower half of `from`
/// is known, with the two bytes added.
fn bytes_between(from: u32, to: u32) -> Option<u16> {
    let added = step_back(to ^ from >> 16, [0; 2]);
    let added = u16::try_from(added).ok()?;
    let [first, second, ..] = from.to_le_bytes();
    Some(added ^ u16::from_le_bytes([first, second]))
}

/// The register of a CRC32C before it went over `bytes`: of the table's entries no two have the
/// same highest byte, so that by it each step is known.
fn step_back<const COUNT: usize>(register: u32, bytes: [u8; COUNT]) -> u32 {
    bytes.iter().rev().fold(register, |register, byte| {
        let [.., high] = register.to_le_bytes();
        let index = INDEXES[usize::from(high)];
        (register ^ TABLES[0][usize::from(index)]) << 8 | u32::from(index ^ byte)
    })
}

/// CRC32C without the processor's help: sixteen tables, sixteen bytes a step ("slicing-by-16",
/// after Kounavis and Berry, 2005).
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let mut state = !crc;
    let mut chunks = bytes.chunks_exact(16);
    for chunk in &mut chunks {
        let low = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) ^ state;
        let [a, b, c, d] = low.to_le_bytes();
        state = TABLES[15][usize::from(a)]
            ^ TABLES[14][usize::from(b)]
            ^ TABLES[13][usize::from(c)]
            ^ TABLES[12][usize::from(d)]
            ^ TABLES[11][usize::from(chunk[4])]
            ^ TABLES[10][usize::from(chunk[5])]
            ^ TABLES[9][usize::from(chunk[6])]
            ^ TABLES[8][usize::from(chunk[7])]
            ^ TABLES[7][usize::from(chunk[8])]
            ^ TABLES[6][usize::from(chunk[9])]
            ^ TABLES[5][usize::from(chunk[10])]
            ^ TABLES[4][usize::from(chunk[11])]
            ^ TABLES[3][usize::from(chunk[12])]
            ^ TABLES[2][usize::from(chunk[13])]
            ^ TABLES[1][usize::from(chunk[14])]
            ^ TABLES[0][usize::from(chunk[15])];
    }
    for &byte in chunks.remainder() {
        state = step(state, byte);
    }
    !state
}

fn step(state: u32, byte: u8) -> u32 {
    let [low, ..] = state.to_le_bytes();
    (state >> 8) ^ TABLES[0][usize::from(low ^ byte)]
}

/// The Castagnoli polynomial, its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

static TABLES: [[u32; 256]; 16] = tables();
/// Where in the first table the entry with this highest byte stands.
static INDEXES: [u8; 256] = indexes();

const fn indexes() -> [u8; 256] {
    let table = tables()[0];
    let mut indexes = [0_u8; 256];
    let mut index = 0_u8;
    loop {
        indexes[(table[index as usize] >> 24) as usize] = index;
        if index == u8::MAX {
            return indexes;
        }
        index += 1;
    }
}

const fn tables() -> [[u32; 256]; 16] {
    let mut tables = [[0_u32; 256]; 16];
    let mut index: u32 = 0;
    while index < 256 {
        let mut value = index;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][index as usize] = value;
        index += 1;
    }
    let mut table = 1;
    while table < 16 {
        let mut index = 0;
        while index < 256 {
            let before = tables[table - 1][index];
            tables[table][index] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            index += 1;
        }
        table += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_portable_crc_is_crc32c() {
        // The check value of CRC-32/ISCSI in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        let bytes: Vec<u8> = (0..=255).cycle().take(1_000).collect();
        for split in [0, 1, 7, 8, 9, 500, 1_000] {
            let both = crc32c(crc32c(0, &bytes[..split]), &bytes[split..]);
            assert_eq!(both, ::crc32c::crc32c(&bytes));
        }
    }

    #[test]
    fn tables_are_the_same_whenever_they_are_made() {
        assert_eq!(core::hint::black_box(tables as fn() -> _)(), TABLES);
    }

    #[test]
    fn the_matching_number_is_the_one_that_trying_all_finds() {
        let mut state = 0;
        let mut random = || {
            state += 1;
            crate::log::mix(state)
        };
        let rounds = if cfg!(miri) { 8 } else { 2_000 };
        for kind in [ChecksumKind::Crc32c, ChecksumKind::Xxh3] {
            for round in 0..rounds {
                let mut digest = Digest::new(kind, crc32c, random().to_le_bytes()[0]);
                digest.update(&random().to_le_bytes());
                // Near multiples of 2^32 and of 2^16, and near the end of all numbers.
                let first = match round % 4 {
                    0 => random() >> (random() % 64),
                    1 => (random() << 32).wrapping_sub(random() >> 40),
                    2 => u64::MAX - (random() >> 40),
                    _ => random() % 100,
                };
                let (salt, segment, offset) = (random(), SegmentId::new(random()), random());
                let place = |lsn| Place { salt, segment, offset, lsn: Lsn::new(lsn) };
                let ahead_max = random() % (200 << 16);
                let ahead = (random() % (220 << 16)) & !0xffff;
                // Most of these numbers exist, and some of them are within reach.
                let sum = match first.checked_add(ahead) {
                    Some(lsn) => digest.at(place(lsn)),
                    None => digest.at(place(first)) ^ 1,
                };
                let tried = (0..=ahead_max).step_by(1 << 16).find_map(|ahead| {
                    let lsn = first.checked_add(ahead)?;
                    (digest.at(place(lsn)) == sum).then_some(Lsn::new(lsn))
                });
                assert_eq!(digest.matching_lsn(place(first), ahead_max, sum), tried, "{round}");
                assert!(tried.is_some() || ahead > ahead_max || first.checked_add(ahead).is_none());
            }
        }
        let digest = Digest::new(ChecksumKind::Crc32c, crc32c, 1);
        let place = Place { salt: 1, segment: SegmentId::FIRST, offset: 2, lsn: Lsn::FIRST };
        let sum = digest.at(place);
        assert_eq!(digest.matching_lsn(place, u64::MAX, sum | 1 << 32), None);
        let digest = Digest::new(ChecksumKind::Xxh3, crc32c, 1);
        let vain_bytes = [0, 65_535, 65_536].map(|ahead| digest.vain_bytes(ahead));
        assert_eq!(vain_bytes, [512, 512, 1_024]);
    }

    #[test]
    fn every_part_of_a_place_counts() {
        let home = Place { salt: 1, segment: SegmentId::new(2), offset: 3, lsn: Lsn::new(4) };
        let others = [
            Place { salt: 2, ..home },
            Place { segment: SegmentId::new(3), ..home },
            Place { offset: 4, ..home },
            Place { lsn: Lsn::new(5), ..home },
        ];
        for kind in [ChecksumKind::Crc32c, ChecksumKind::Xxh3] {
            let mut digest = Digest::new(kind, crc32c, b'f');
            digest.update(b"rame");
            for other in others {
                assert_ne!(digest.at(home), digest.at(other));
            }
            let whole = [&b"frame"[..], &home.bytes()].concat();
            let sum = match kind {
                ChecksumKind::Crc32c => u64::from(crc32c(0, &whole)),
                ChecksumKind::Xxh3 => xxhash_rust::xxh3::xxh3_64(&whole),
            };
            assert_eq!(digest.at(home), sum);
        }
    }
}
