//! Records as flat memory, as they cross into the component and come back.

use crate::bindings::exports::seawall::log::types as wit;
use seawall_core::compress::Compression;
use seawall_core::record::{Record, RecordKind};
use std::time::Duration;

/// Appends that go over together.
#[derive(Debug)]
pub(crate) struct Groups {
    pub(crate) records: wit::Batch,
    /// How many records each has.
    pub(crate) sizes: Vec<u32>,
}

/// A record's lengths, attributes and slices.
const RECORD_BYTES: usize = 64;

impl Groups {
    pub(crate) fn new() -> Self {
        let records = wit::Batch { data: Vec::new(), lengths: Vec::new(), attributes: Vec::new() };
        Self { records, sizes: Vec::new() }
    }

    /// One batch. `None`: there are more records, or longer ones, than the contract can tell, and
    /// than any log takes.
    pub(crate) fn of(records: &[Record<'_>]) -> Option<Self> {
        let mut groups = Self::new();
        let bytes = records.iter().map(|record| record.key.len() + record.value.len()).sum();
        groups.records.data.reserve_exact(bytes);
        groups.records.lengths.reserve_exact(2 * records.len());
        for (index, record) in records.iter().enumerate() {
            for part in [record.key, record.value] {
                groups.records.data.extend_from_slice(part);
                groups.records.lengths.push(u32::try_from(part.len()).ok()?);
            }
            let is_plain = record.kind == RecordKind::Put
                && record.ttl.is_none()
                && record.compression.is_none();
            if !is_plain {
                groups.records.attributes.push(attributes(u32::try_from(index).ok()?, record));
            }
        }
        groups.sizes.push(u32::try_from(records.len()).ok()?);
        Some(groups)
    }

    /// About how many bytes it takes: keys and values, and what is kept of each record beside them.
    pub(crate) fn bytes(&self) -> usize {
        self.records.data.len() + self.records.lengths.len() / 2 * RECORD_BYTES
    }

    /// Adds another's, behind its own.
    pub(crate) fn extend(&mut self, other: &Self) {
        // Two lengths each. What is gathered stays far below what a number of the contract holds.
        let before = u32::try_from(self.records.lengths.len() / 2).unwrap_or(u32::MAX);
        self.records.data.extend_from_slice(&other.records.data);
        self.records.lengths.extend_from_slice(&other.records.lengths);
        let later = other.records.attributes.iter();
        self.records.attributes.extend(later.map(|attributes| wit::Attributes {
            index: before.saturating_add(attributes.index),
            ..*attributes
        }));
        self.sizes.extend_from_slice(&other.sizes);
    }
}

fn attributes(index: u32, record: &Record<'_>) -> wit::Attributes {
    wit::Attributes {
        index,
        kind: match record.kind {
            RecordKind::Put => wit::RecordKind::Put,
            RecordKind::Delete => wit::RecordKind::Delete,
        },
        ttl_millis: record.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        written_at_millis: None,
        compression: record.compression.map(|compression| match compression {
            Compression::None => wit::Compression::None,
            Compression::Lz4 => wit::Compression::Lz4,
            Compression::Zstd => wit::Compression::Zstd,
        }),
    }
}

/// Records that were read, in order, without gaps in their LSNs.
#[derive(Clone, Debug)]
pub struct Page {
    page: wit::Page,
}

/// A record that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found<'a> {
    /// Its number.
    pub lsn: u64,
    /// The number of its segment.
    pub segment: u64,
    /// Where in that segment's file its bytes begin.
    pub offset: u64,
    /// Its key, its value and its TTL.
    pub record: Record<'a>,
    /// When it was appended, in milliseconds since the Unix epoch; told of records with a TTL.
    pub written_at_millis: Option<u64>,
}

impl Page {
    pub(crate) const fn new(page: wit::Page) -> Self {
        Self { page }
    }

    /// How many records there are. None: there are no more for now.
    pub fn len(&self) -> usize {
        self.page.offsets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.page.offsets.is_empty()
    }

    /// The LSN of the first record; of the record to come when there is none.
    pub fn first(&self) -> u64 {
        self.page.first
    }

    /// The records.
    pub fn records(&self) -> impl Iterator<Item = Found<'_>> {
        let wit::Page { first, segment, offsets, records } = &self.page;
        let mut data = &records.data[..];
        let mut attributes = records.attributes.iter().peekable();
        let (lengths, _) = records.lengths.as_chunks::<2>();
        let mut take = move |bytes: u32| {
            let (taken, rest) = data.split_at(data.len().min(bytes as usize));
            data = rest;
            taken
        };
        (0_u32..).zip(offsets).zip(lengths).map(move |((index, offset), [key, value])| {
            let told = attributes.next_if(|attributes| attributes.index == index);
            let is_delete = told.is_some_and(|told| told.kind == wit::RecordKind::Delete);
            let record = Record {
                kind: if is_delete { RecordKind::Delete } else { RecordKind::Put },
                key: take(*key),
                value: take(*value),
                ttl: told.and_then(|told| told.ttl_millis).map(Duration::from_millis),
                compression: None,
            };
            let written_at_millis = told.and_then(|told| told.written_at_millis);
            let lsn = first + u64::from(index);
            Found { lsn, segment: *segment, offset: *offset, record, written_at_millis }
        })
    }
}
