//! Values in fewer bytes: LZ4 (block format) and Zstd, into scratch memory that is reused.
//!
//! A value that does not shrink is stored plain, so packing never costs space. Unpacking is bounded
//! twice: the record states the unpacked length, which must be within the reader's limit before any
//! memory is taken, and the codec may not write past it.

use crate::record::{Entry, Record};
use alloc::vec::Vec;
use core::fmt;
use ruzstd::decoding::FrameDecoder;
use ruzstd::encoding::{CompressionLevel, compress};

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

/// Packs values. One per thread: it owns the scratch memory that packed bytes go into.
#[derive(Debug, Default)]
pub struct Compressor {
    scratch: Vec<u8>,
}

impl Compressor {
    /// A compressor whose scratch memory grows on first use.
    pub fn new() -> Self {
        Self::default()
    }

    /// The record as it will be stored: packed as the record asks or else as `default` says, if its
    /// value is at least `threshold_bytes` long and packing makes it smaller.
    pub fn prepare<'a>(
        &'a mut self,
        record: &Record<'a>,
        default: Compression,
        threshold_bytes: u64,
    ) -> Entry<'a> {
        let plain = Entry::from(record);
        let codec = record.compression.unwrap_or(default);
        if codec == Compression::None || plain.raw_bytes < threshold_bytes.max(1) {
            return plain;
        }
        match self.pack(codec, record.value) {
            Some(packed) => Entry { stored: packed, codec, ..plain },
            None => plain,
        }
    }

    fn pack(&mut self, codec: Compression, value: &[u8]) -> Option<&[u8]> {
        let packed_bytes = match codec {
            Compression::None => return None,
            Compression::Lz4 => {
                let bound = lz4_flex::block::get_maximum_output_size(value.len());
                self.scratch.resize(bound, 0);
                lz4_flex::block::compress_into(value, &mut self.scratch).ok()?
            }
            Compression::Zstd => {
                self.scratch.clear();
                compress(value, &mut self.scratch, CompressionLevel::Fastest);
                self.scratch.len()
            }
        };
        (packed_bytes < value.len()).then(|| &self.scratch[..packed_bytes])
    }
}

/// Unpacks values into scratch memory that is reused.
#[derive(Default)]
pub struct Decompressor {
    scratch: Vec<u8>,
    zstd: Option<FrameDecoder>,
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scratch_bytes = self.scratch.len();
        f.debug_struct("Decompressor")
            .field("scratch_bytes", &scratch_bytes)
            .finish_non_exhaustive()
    }
}

impl Decompressor {
    /// A decompressor whose scratch memory grows on first use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Unpacks `packed`, which must give exactly `raw_bytes` bytes.
    ///
    /// # Errors
    /// When `raw_bytes` is over `limit_bytes`, or the packed bytes are not what they claim to be.
    pub fn decompress(
        &mut self,
        codec: Compression,
        packed: &[u8],
        raw_bytes: u64,
        limit_bytes: u64,
    ) -> Result<&[u8], DecompressError> {
        let too_long = DecompressError::TooLong { raw_bytes, limit_bytes };
        if raw_bytes > limit_bytes {
            return Err(too_long);
        }
        let length = usize::try_from(raw_bytes).map_err(|_| too_long)?;
        self.scratch.clear();
        self.scratch.resize(length, 0);
        let written = match codec {
            Compression::None => {
                if packed.len() != length {
                    return Err(DecompressError::Malformed);
                }
                self.scratch.copy_from_slice(packed);
                length
            }
            Compression::Lz4 => lz4_flex::block::decompress_into(packed, &mut self.scratch)
                .map_err(|_| DecompressError::Malformed)?,
            Compression::Zstd => {
                let decoder = self.zstd.get_or_insert_with(FrameDecoder::new);
                // A frame may ask for a window far larger than its content; the content is bounded,
                // so a window over the largest block and the content together is never needed.
                decoder.set_max_window_size(raw_bytes.max(ZSTD_WINDOW_BYTES_MIN));
                decoder
                    .decode_all(packed, &mut self.scratch)
                    .map_err(|_| DecompressError::Malformed)?
            }
        };
        if written == length { Ok(&self.scratch) } else { Err(DecompressError::Malformed) }
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
    use alloc::vec;

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

    #[test]
    fn plain_bytes_are_as_long_as_they_claim() {
        let mut decompressor = Decompressor::new();
        let unpacked = decompressor.decompress(Compression::None, b"plain", 5, 5);
        assert_eq!(unpacked, Ok(&b"plain"[..]));
        for raw_bytes in [4, 6] {
            let unpacked = decompressor.decompress(Compression::None, b"plain", raw_bytes, 9);
            assert_eq!(unpacked, Err(DecompressError::Malformed));
        }
    }

    #[test]
    fn what_shrinks_round_trips_and_what_does_not_stays_plain() {
        let text = b"a log is a list that only grows ".repeat(100);
        let noise: Vec<u8> = (0..4_096_u64).map(|i| (crate::log::mix(i) & 0xff) as u8).collect();
        for codec in [Compression::Lz4, Compression::Zstd] {
            let mut compressor = Compressor::new();
            let record = Record::put(b"k", &text).with_compression(codec);
            let entry = compressor.prepare(&record, Compression::None, 64);
            assert_eq!(entry.codec, codec);
            assert!(entry.stored.len() < text.len());
            let packed = entry.stored.to_vec();
            let mut decompressor = Decompressor::new();
            let raw_bytes = text.len() as u64;
            assert_eq!(
                decompressor.decompress(codec, &packed, raw_bytes, raw_bytes),
                Ok(text.as_slice())
            );
            for (claimed, limit) in [(raw_bytes - 1, raw_bytes), (raw_bytes + 1, raw_bytes + 1)] {
                let result = decompressor.decompress(codec, &packed, claimed, limit);
                assert_eq!(result, Err(DecompressError::Malformed));
            }
            let bomb = decompressor.decompress(codec, &packed, u64::MAX, raw_bytes);
            assert!(matches!(bomb, Err(DecompressError::TooLong { .. })));
            let record = Record::put(b"k", &noise).with_compression(codec);
            let entry = compressor.prepare(&record, Compression::None, 64);
            assert_eq!((entry.codec, entry.stored), (Compression::None, noise.as_slice()));
        }
    }

    #[test]
    fn garbage_never_panics() {
        let mut decompressor = Decompressor::new();
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
                    let raw = decompressor.decompress(codec, packed, 1_000, 1_000);
                    assert_eq!(raw.map_or(1_000, <[u8]>::len), 1_000);
                }
            }
        }
    }
}
