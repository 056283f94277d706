//! Records that can be told from each other, and reading them back.

use crate::random::Random;
use alloc::vec::Vec;
#[cfg(feature = "host")]
use seawall::Entry;
#[cfg(feature = "host")]
use seawall::blocking::{Reader, Wal};

/// The bytes that belong to `number`: the same each time, and unlike those of any other.
pub fn record_bytes(number: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(number);
    let mut bytes = number.to_le_bytes().to_vec();
    while bytes.len() < length {
        bytes.extend_from_slice(&random.number().to_le_bytes());
    }
    bytes.truncate(length.max(8));
    bytes
}

/// Every record of an open log.
///
/// # Panics
/// When one cannot be read.
#[cfg(feature = "host")]
pub fn read_all(wal: &Wal) -> Vec<Entry> {
    rest(wal.iter().expect("the log can be read"))
}

/// Every record that a reader has still to give.
///
/// # Panics
/// When one cannot be read.
#[cfg(feature = "host")]
pub fn rest(reader: Reader) -> Vec<Entry> {
    reader.map(|found| found.expect("the record can be read").0).collect()
}
