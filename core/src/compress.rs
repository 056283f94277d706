//! Values in fewer bytes: LZ4 (block format) and Zstd, into scratch memory that is reused.
//!
//! A value that does not shrink is stored plain, so packing never costs space. Unpacking is bounded
//! three times: the record states the unpacked length, which must be within the reader's limit and
//! within what so few bytes can stand for before any memory is taken, and the codec may not write
//! past it.

use crate::record::{Entry, Record};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use lz4_flex::block::CompressTable;
use ruzstd::decoding::FrameDecoder;
use ruzstd::encoding::{CompressionLevel, FrameCompressor, MatchGeneratorDriver};

/// How a value is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Compression {
    /// As it is.
    #[default]
    None = 0,
    /// LZ4, block format.
    Lz4 = 1,
    /// Zstandard, one frame.
    Zstd = 2,
}

/// A library for Zstandard: [`Ruzstd`], or another that a host has.
pub trait Zstd: Default {
    /// Packs `value` into one frame at the start of `packed`, and says how long that is. `None`: it
    /// does not fit.
    fn pack(&mut self, value: &[u8], packed: &mut [u8]) -> Option<usize>;

    /// Unpacks one frame to the start of `value`, and says how long that is, in no more memory than
    /// `value` has and 8 MiB. `None`: it does not fit, or is no frame.
    fn unpack(&mut self, packed: &[u8], value: &mut [u8]) -> Option<usize>;
}

/// Zstandard in Rust, which packs at its fastest level only.
#[derive(Default)]
pub struct Ruzstd {
    /// Long, and moved with what it is in.
    encoder: Option<Box<FrameCompressor<Unread, Vec<u8>, MatchGeneratorDriver>>>,
    decoder: Option<Box<FrameDecoder>>,
}

impl fmt::Debug for Ruzstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ruzstd").finish_non_exhaustive()
    }
}

impl Zstd for Ruzstd {
    fn pack(&mut self, value: &[u8], packed: &mut [u8]) -> Option<usize> {
        let encoder = self.encoder.get_or_insert_with(|| {
            let mut encoder = FrameCompressor::new(CompressionLevel::Fastest);
            encoder.set_source(Unread::default());
            encoder.set_drain(Vec::new());
            Box::new(encoder)
        });
        encoder.source_mut()?.begin(value);
        encoder.drain_mut()?.clear();
        encoder.compress();
        let frame = encoder.drain()?;
        packed.get_mut(..frame.len())?.copy_from_slice(frame);
        Some(frame.len())
    }

    fn unpack(&mut self, packed: &[u8], value: &mut [u8]) -> Option<usize> {
        let decoder = self.decoder.get_or_insert_with(|| Box::new(FrameDecoder::new()));
        // A frame may ask for a window far larger than its content; the content is bounded, so a
        // window over the largest block and the content together is never needed.
        decoder.set_max_window_size((value.len() as u64).max(ZSTD_WINDOW_BYTES_MIN));
        decoder.decode_all(packed, value).ok()
    }
}

/// A copy of a value, since the encoder is kept for longer than any value lives.
#[derive(Default)]
struct Unread {
    value: Vec<u8>,
    next: usize,
}

impl Unread {
    fn begin(&mut self, value: &[u8]) {
        self.value.clear();
        self.value.extend_from_slice(value);
        self.next = 0;
    }
}

impl ruzstd::io::Read for Unread {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, ruzstd::io::Error> {
        let rest = &self.value[self.next..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.next += count;
        Ok(count)
    }
}

/// Packs values. One per thread: it owns the scratch memory that packed bytes go into.
#[derive(Default)]
pub struct Compressor<Z = Ruzstd> {
    scratch: Vec<u8>,
    /// For values of less than 64 KiB, and for longer ones.
    tables: [Option<CompressTable>; 2],
    zstd: Z,
}

impl<Z: fmt::Debug> fmt::Debug for Compressor<Z> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor")
            .field("scratch_bytes", &self.scratch.len())
            .field("zstd", &self.zstd)
            .finish_non_exhaustive()
    }
}

impl Compressor {
    /// A compressor whose scratch memory grows on first use.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<Z: Zstd> Compressor<Z> {
    /// What packs to Zstandard.
    pub const fn zstd_mut(&mut self) -> &mut Z {
        &mut self.zstd
    }

    /// The record as it will be stored: packed as the record asks or else as `default` says, if its
    /// value is at least `threshold_bytes` long and packing makes it smaller.
    pub fn prepare<'a>(
        &'a mut self,
        record: &Record<'a>,
        default: Compression,
        threshold_bytes: u64,
    ) -> Entry<'a> {
        let packed = self.pack_record(record, default, threshold_bytes, 0);
        self.entry(record, packed)
    }

    /// The same for many records.
    pub fn prepare_all<'a>(
        &'a mut self,
        records: &[Record<'a>],
        default: Compression,
        threshold_bytes: u64,
    ) -> Vec<Entry<'a>> {
        let mut end = 0;
        let pack = |record| {
            let packed = self.pack_record(record, default, threshold_bytes, end);
            end = packed.as_ref().map_or(end, |packed| packed.range.end);
            packed
        };
        let packed: Vec<Option<Packed>> = records.iter().map(pack).collect();
        records.iter().zip(packed).map(|(record, packed)| self.entry(record, packed)).collect()
    }

    /// Gives back what long values needed, once their entries are no longer.
    pub fn trim(&mut self) {
        if self.scratch.len() > SCRATCH_BYTES_KEPT {
            *self = Self::default();
        }
    }

    /// Packs a record's value into the scratch memory from `start` on. `None`: it stays plain.
    fn pack_record(
        &mut self,
        record: &Record<'_>,
        default: Compression,
        threshold_bytes: u64,
        start: usize,
    ) -> Option<Packed> {
        let codec = record.codec(default);
        let value = record.value;
        if codec == Compression::None || (value.len() as u64) < threshold_bytes.max(1) {
            return None;
        }
        let packed_bytes_max = match codec {
            Compression::Lz4 => lz4_flex::block::get_maximum_output_size(value.len()),
            _ => value.len() - 1,
        };
        let end = start + packed_bytes_max;
        if self.scratch.len() < end {
            self.scratch.resize(end, 0);
        }
        let into = &mut self.scratch[start..end];
        let packed_bytes = match codec {
            Compression::None => None,
            Compression::Lz4 => {
                let is_long = value.len() >= usize::from(u16::MAX);
                let new_table = if is_long { CompressTable::large } else { CompressTable::small };
                let table = &mut self.tables[usize::from(is_long)];
                let table = table.get_or_insert_with(new_table);
                lz4_flex::block::compress_into_with_table(value, into, table).ok()
            }
            Compression::Zstd => self.zstd.pack(value, into),
        }?;
        (packed_bytes < value.len()).then(|| Packed { codec, range: start..start + packed_bytes })
    }

    fn entry<'a>(&'a self, record: &Record<'a>, packed: Option<Packed>) -> Entry<'a> {
        let plain = Entry::from(record);
        match packed {
            Some(Packed { codec, range }) => Entry { stored: &self.scratch[range], codec, ..plain },
            None => plain,
        }
    }
}

/// Where a packed value is in the scratch memory.
struct Packed {
    codec: Compression,
    range: Range<usize>,
}

/// So much scratch memory is kept between appends.
const SCRATCH_BYTES_KEPT: usize = 4 << 20;

/// Unpacks values.
#[derive(Debug, Default)]
pub struct Decompressor<Z = Ruzstd> {
    zstd: Z,
}

impl Decompressor {
    /// A decompressor.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<Z: Zstd> Decompressor<Z> {
    /// Unpacks `packed`, which must give exactly `raw_bytes` bytes, to the end of `values`. After
    /// an error that is as it was.
    ///
    /// # Errors
    /// When `raw_bytes` is over `limit_bytes`, or the packed bytes are not what they claim to be.
    pub fn unpack(
        &mut self,
        codec: Compression,
        packed: &[u8],
        raw_bytes: u64,
        limit_bytes: u64,
        values: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        let too_long = DecompressError::TooLong { raw_bytes, limit_bytes };
        if raw_bytes > limit_bytes {
            return Err(too_long);
        }
        // Before any memory is taken for it.
        if raw_bytes > raw_bytes_max(codec, packed.len() as u64) {
            return Err(DecompressError::Malformed);
        }
        let length = usize::try_from(raw_bytes).map_err(|_| too_long)?;
        let start = values.len();
        if start == 0 && values.capacity() < length {
            *values = vec![0; length];
        } else {
            values.resize(start + length, 0);
        }
        let value = &mut values[start..];
        let written = match codec {
            Compression::None => (packed.len() == length).then(|| {
                value.copy_from_slice(packed);
                length
            }),
            Compression::Lz4 => lz4_flex::block::decompress_into(packed, value).ok(),
            Compression::Zstd => self.zstd.unpack(packed, value),
        };
        if written == Some(length) {
            return Ok(());
        }
        values.truncate(start);
        Err(DecompressError::Malformed)
    }
}

/// No packed value of so many bytes is longer than this when unpacked: each byte of an LZ4 block
/// stands for 255 bytes at most, and a block of a Zstd frame has 3 bytes at least and stands for
/// 128 KiB at most (RFC 8878, section 3.1.1.2).
fn raw_bytes_max(codec: Compression, packed_bytes: u64) -> u64 {
    match codec {
        Compression::None => packed_bytes,
        Compression::Lz4 => packed_bytes.saturating_mul(255),
        Compression::Zstd => (packed_bytes / 3).saturating_mul(128 << 10),
    }
}

/// Encoders may name windows of this size for any small content (RFC 8878, section 3.1.1.1.2,
/// recommends that every decoder support 8 MiB).
const ZSTD_WINDOW_BYTES_MIN: u64 = 8 << 20;

/// Why a value could not be unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecompressError {
    /// It is longer than the reader's limit. Raise the limit to read it.
    TooLong {
        /// How long the record says it is, in bytes.
        raw_bytes: u64,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// The packed bytes do not decode to a value of the stated length.
    Malformed,
}

impl fmt::Display for DecompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { raw_bytes, limit_bytes } => write!(
                f,
                "the value unpacks to {raw_bytes} bytes, over the limit of {limit_bytes}: raise \
                 the record limit to read it"
            ),
            Self::Malformed => f.write_str("the packed value does not decode"),
        }
    }
}

impl core::error::Error for DecompressError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_packed_from_the_threshold_on() {
        let text = [b'a'; 200];
        let mut compressor = Compressor::new();
        for (default, threshold_bytes, packs) in [
            (Compression::Lz4, 200, true),
            (Compression::Lz4, 201, false),
            (Compression::Zstd, 0, true),
            (Compression::None, 0, false),
        ] {
            let record = Record::put(b"k", &text);
            let entry = compressor.prepare(&record, default, threshold_bytes);
            let wanted = if packs { default } else { Compression::None };
            assert_eq!((entry.codec, entry.raw_bytes), (wanted, 200), "{threshold_bytes}");
        }
        let nothing = Record::put(b"k", b"").with_compression(Compression::Zstd);
        let entry = compressor.prepare(&nothing, Compression::None, 0);
        assert_eq!(entry, Entry::from(&nothing));
    }

    /// What a value comes to.
    fn unpack(
        codec: Compression,
        packed: &[u8],
        raw_bytes: u64,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, DecompressError> {
        let mut values = b"before".to_vec();
        let mut decompressor = Decompressor::new();
        let unpacked = decompressor.unpack(codec, packed, raw_bytes, limit_bytes, &mut values);
        let value = values.split_off(6);
        assert_eq!(values, b"before");
        assert!(unpacked.is_ok() || value.is_empty(), "nothing is left of what is no value");
        unpacked.map(|()| value)
    }

    #[test]
    fn plain_bytes_are_as_long_as_they_claim() {
        assert_eq!(unpack(Compression::None, b"plain", 5, 5), Ok(b"plain".to_vec()));
        for raw_bytes in [4, 6] {
            let unpacked = unpack(Compression::None, b"plain", raw_bytes, 9);
            assert_eq!(unpacked, Err(DecompressError::Malformed));
        }
    }

    /// Bytes without a pattern.
    fn noise(length: u64) -> Vec<u8> {
        (0..length).map(|i| (crate::log::mix(i) & 0xff) as u8).collect()
    }

    #[test]
    fn what_shrinks_round_trips_and_what_does_not_stays_plain() {
        let text = b"a log is a list that only grows ".repeat(100);
        let noise = noise(4_096);
        for codec in [Compression::Lz4, Compression::Zstd] {
            let mut compressor = Compressor::new();
            let record = Record::put(b"k", &text).with_compression(codec);
            let entry = compressor.prepare(&record, Compression::None, 64);
            assert_eq!(entry.codec, codec);
            assert!(entry.stored.len() < text.len());
            let packed = entry.stored.to_vec();
            let raw_bytes = text.len() as u64;
            assert_eq!(unpack(codec, &packed, raw_bytes, raw_bytes), Ok(text.clone()));
            for (claimed, limit) in [(raw_bytes - 1, raw_bytes), (raw_bytes + 1, raw_bytes + 1)] {
                let result = unpack(codec, &packed, claimed, limit);
                assert_eq!(result, Err(DecompressError::Malformed));
            }
            let bomb = unpack(codec, &packed, u64::MAX, raw_bytes);
            assert!(matches!(bomb, Err(DecompressError::TooLong { .. })));
            let record = Record::put(b"k", &noise).with_compression(codec);
            let entry = compressor.prepare(&record, Compression::None, 64);
            assert_eq!((entry.codec, entry.stored), (Compression::None, noise.as_slice()));
        }
    }

    /// What one value leaves behind in a compressor is in no other's way.
    #[test]
    fn records_packed_together_are_what_each_is_by_itself() {
        let noise = noise(3_000);
        let text = b"the same words come again and again, ".repeat(60);
        let long = b"and in long values, too. ".repeat(if cfg!(miri) { 20 } else { 8_000 });
        let values = [&text[..], &noise, &long, &text[..700], b"", &text, &noise[..90], &long];
        let codecs = [Compression::Zstd, Compression::Lz4, Compression::None, Compression::Zstd];
        let records: Vec<Record<'_>> = values
            .iter()
            .flat_map(|value| codecs.map(|codec| Record::put(b"", value).with_compression(codec)))
            .collect();
        let mut compressor = Compressor::new();
        for _ in 0..2 {
            let together = compressor.prepare_all(&records, Compression::None, 100);
            for (record, entry) in records.iter().zip(together) {
                let mut alone = Compressor::new();
                assert_eq!(entry, alone.prepare(record, Compression::None, 100));
                let raw_bytes = record.value.len() as u64;
                let value = unpack(entry.codec, entry.stored, raw_bytes, raw_bytes);
                assert_eq!(value.as_deref(), Ok(record.value));
            }
            compressor.trim();
        }
    }

    #[test]
    fn memory_that_long_values_needed_is_given_back() {
        for length in [SCRATCH_BYTES_KEPT / 2, 2 * SCRATCH_BYTES_KEPT] {
            let value = vec![b'a'; length];
            let records = [Record::put(b"", &value)];
            let mut compressor = Compressor::new();
            compressor.prepare_all(&records, Compression::Lz4, 1);
            assert!(compressor.scratch.len() > length);
            compressor.trim();
            assert_eq!(compressor.scratch.is_empty(), length > SCRATCH_BYTES_KEPT, "{length}");
        }
    }

    /// A few bytes that claim to be many are refused before memory is taken for those.
    #[test]
    fn a_length_that_no_packed_bytes_reach_takes_no_memory() {
        for (codec, raw_bytes) in [(Compression::Lz4, 5_101), (Compression::Zstd, 786_433)] {
            let mut values = Vec::new();
            let mut decompressor = Decompressor::new();
            let unpacked = decompressor.unpack(codec, &[0; 20], raw_bytes, u64::MAX, &mut values);
            assert_eq!(unpacked, Err(DecompressError::Malformed));
            assert_eq!(values.capacity(), 0);
        }
        // What packs best of all is within.
        let zeros = vec![0; if cfg!(miri) { 3_000 } else { 3 << 20 }];
        for codec in [Compression::Lz4, Compression::Zstd] {
            let mut compressor = Compressor::new();
            let entry = compressor.prepare(&Record::put(b"", &zeros), codec, 1);
            let raw_bytes = zeros.len() as u64;
            assert!(entry.stored.len() < zeros.len() / 100, "{codec:?}");
            let value = unpack(codec, entry.stored, raw_bytes, raw_bytes);
            assert!(value == Ok(zeros.clone()), "{codec:?}");
        }
    }

    #[test]
    fn garbage_never_panics() {
        let mut seed = 1_u64;
        // Miri takes a thousand times as long.
        for length in 0..if cfg!(miri) { 12 } else { 400 } {
            let mut bytes = vec![0; length];
            for byte in &mut bytes {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 56) as u8;
            }
            for codec in [Compression::Lz4, Compression::Zstd] {
                let mut framed = vec![0x28, 0xb5, 0x2f, 0xfd];
                framed.extend_from_slice(&bytes);
                for packed in [&bytes, &framed] {
                    let raw = unpack(codec, packed, 1_000, 1_000);
                    assert_eq!(raw.map_or(1_000, |value| value.len()), 1_000);
                }
            }
        }
    }
}
