//! Records: what a caller appends, and what a reader gets back.
//!
//! [`Record`] is a caller's wish, borrowed from its memory. [`Entry`] is the same with its value as
//! it will stand in the log, compressed or not. [`RecordRef`] is one found in a verified frame.

use crate::compress::{Compression, DecompressError, Decompressor, Zstd};
use crate::id::{Lsn, Position, Time};
use alloc::vec::Vec;
use core::time::Duration;

/// What a record says about its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RecordKind {
    /// The key has this value.
    #[default]
    Put,
    /// The key is gone: a tombstone. It has no value.
    Delete,
}

/// A record to append. The log keeps it as it is; what a delete or a TTL means is its reader's to
/// say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Record<'a> {
    /// Put or delete.
    pub kind: RecordKind,
    /// The key; it may be empty.
    pub key: &'a [u8],
    /// The value; it may be empty.
    pub value: &'a [u8],
    /// How long the record is good for, from the moment of its appending, rounded down to the
    /// millisecond.
    pub ttl: Option<Duration>,
    /// How to store the value; `None` takes what the log's configuration says.
    pub compression: Option<Compression>,
}

impl<'a> Record<'a> {
    /// `key` has `value`.
    pub fn put(
        key: &'a (impl AsRef<[u8]> + ?Sized),
        value: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> Self {
        Self { key: key.as_ref(), value: value.as_ref(), ..Self::default() }
    }

    /// `key` has `value` for the time `ttl`. The log stores the time of writing and the TTL; it
    /// never drops a record for it.
    pub fn put_with_ttl(
        key: &'a (impl AsRef<[u8]> + ?Sized),
        value: &'a (impl AsRef<[u8]> + ?Sized),
        ttl: Duration,
    ) -> Self {
        Self { ttl: Some(ttl), ..Self::put(key, value) }
    }

    /// `key` is gone.
    pub fn delete(key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { kind: RecordKind::Delete, key: key.as_ref(), ..Self::default() }
    }

    /// How its value is to be stored where that makes it smaller: as it asks, or else as `default`
    /// says.
    pub fn codec(&self, default: Compression) -> Compression {
        self.compression.unwrap_or(default)
    }

    /// The same record, its value to be stored with `compression` where that makes it smaller.
    #[must_use]
    pub fn with_compression(self, compression: Compression) -> Self {
        Self { compression: Some(compression), ..self }
    }
}

/// A record as it will stand in the log. Made by
/// [`Compressor::prepare`](crate::compress::Compressor) or, for a value stored plain, from a
/// [`Record`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    pub(crate) kind: RecordKind,
    pub(crate) key: &'a [u8],
    pub(crate) stored: &'a [u8],
    pub(crate) codec: Compression,
    pub(crate) raw_bytes: u64,
    pub(crate) ttl: Option<Duration>,
}

impl<'a> Entry<'a> {
    /// The value as it will be stored, and how.
    pub const fn value(&self) -> (Compression, &'a [u8]) {
        (self.codec, self.stored)
    }

    /// How many bytes of key and value it stores.
    pub const fn stored_bytes(&self) -> u64 {
        self.key.len() as u64 + self.stored.len() as u64
    }

    /// Whether it is marked with the time of its appending.
    pub const fn is_timed(&self) -> bool {
        self.ttl.is_some()
    }

    /// What the limit for a record bounds: what a reader has to unpack as well as what is stored.
    #[inline]
    pub(crate) fn limited_bytes(&self) -> u64 {
        self.stored_bytes().max(self.key.len() as u64 + self.raw_bytes)
    }
}

impl<'a> From<&Record<'a>> for Entry<'a> {
    /// The record with its value stored plain.
    fn from(record: &Record<'a>) -> Self {
        Self {
            kind: record.kind,
            key: record.key,
            stored: record.value,
            codec: Compression::None,
            raw_bytes: record.value.len() as u64,
            ttl: record.ttl,
        }
    }
}

/// A record in a frame whose checksum held, borrowed from the bytes that were read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordRef<'a> {
    /// Its number.
    pub lsn: Lsn,
    /// Where its bytes begin.
    pub position: Position,
    /// Put or delete.
    pub kind: RecordKind,
    /// Its key.
    pub key: &'a [u8],
    /// Its value as stored; compressed when `codec` says so.
    pub stored: &'a [u8],
    /// How the value is stored.
    pub codec: Compression,
    /// How long the value is when unpacked.
    pub raw_bytes: u64,
    /// When it was appended, to the millisecond; stored only for records with a TTL.
    pub written_at: Option<Time>,
    /// How long it is good for from then on.
    pub ttl: Option<Duration>,
}

impl RecordRef<'_> {
    /// Puts the value to the end of `values`, unpacked where it is compressed.
    ///
    /// # Errors
    /// When the value is longer than `limit_bytes` or its packed bytes do not decode.
    pub fn unpack<Z: Zstd>(
        &self,
        decompressor: &mut Decompressor<Z>,
        limit_bytes: u64,
        values: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        match self.codec {
            Compression::None => {
                values.extend_from_slice(self.stored);
                Ok(())
            }
            codec => decompressor.unpack(codec, self.stored, self.raw_bytes, limit_bytes, values),
        }
    }

    /// Whether the record had outlived its TTL at `now`. One without a TTL never has.
    pub fn is_expired_at(&self, now: Time) -> bool {
        match (self.written_at, self.ttl) {
            (Some(written_at), Some(ttl)) => now >= written_at.plus(ttl),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_expires_at_the_end_of_its_ttl_and_one_without_never_does() {
        let ttl = Duration::from_millis(5);
        let written = Time::from_millis(100);
        let record = Record::put_with_ttl(b"k", b"v", ttl);
        assert_eq!((record.ttl, record.value), (Some(ttl), &b"v"[..]));
        let timed = RecordRef {
            lsn: Lsn::new(1),
            position: Position::default(),
            kind: record.kind,
            key: record.key,
            stored: record.value,
            codec: Compression::None,
            raw_bytes: 1,
            written_at: Some(written),
            ttl: record.ttl,
        };
        assert!(!timed.is_expired_at(Time::from_micros(104_999)));
        assert!(timed.is_expired_at(Time::from_millis(105)));
        let lasting = RecordRef { ttl: None, ..timed };
        assert!(!lasting.is_expired_at(Time::from_micros(u64::MAX)));
    }
}
