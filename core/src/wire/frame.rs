//! Frames: what a segment holds after its header.
//!
//! A frame is one append or one batch, and is there whole or not at all.
//!
//! ```text
//!  bytes      field
//!  1          flags: bits 0-2 the frame's kind, bits 3-7 by kind
//!  4 or 8     checksum: CRC32C or XXH3-64 (the segment's header says which)
//!  2          low 16 bits of the LSN of its first record, or of the next record if it has none
//!  varint     lag: how many records before that LSN were not known durable; 2097151 makes no claim
//!
//!             kind 1, record                     kinds 2 to 7: 2 batch, 3 seal, 4 mark
//!  varint     key length                         number of records (seal and mark: 0)
//!  varint     stored value length                body length
//!  varint     [timed] time, milliseconds         body
//!  varint     [timed] TTL, milliseconds
//!  varint     [packed] unpacked value length
//!             key, stored value
//!
//!  flags of a record: bit 3 delete; bit 4 timed; bits 5-6 codec (0 plain, 1 LZ4, 2 Zstd)
//!  flags of all:      bit 7 ignorable: a reader that does not know the kind may pass over it
//! ```
//!
//! The body of a batch is its records one after the other, each as kind 1 is, without checksum, low
//! LSN and lag. A frame never begins with eight bits of which the lowest three are zero, and
//! unwritten space is zero: the end of a log is [`HEAD_BYTES_MIN`] bytes of zeros, or zeros to the
//! segment's end.
//!
//! The checksum runs over all bytes of the frame but its own, and then over the frame's
//! [`Place`]. A lone record with a key and a value under 128 bytes takes at
//! most 12 bytes more than they do: 1 + 4 + 2 + 3 + 1 + 1.

use crate::batch::Buffer;
use crate::compress::Compression;
use crate::id::{Lsn, Position, Time};
use crate::record::{Entry, RecordKind, RecordRef};
use crate::wire::checksum::{ChecksumKind, Crc32cFn, Digest, Place};
use crate::wire::{is_zero, u32_at, u64_at, varint};
use core::time::Duration;

/// No frame's head is longer: flags, checksum, low LSN, lag and five varints.
pub const HEAD_BYTES_MAX: usize = 1 + 8 + 2 + 3 + 5 * varint::VARINT_BYTES_MAX;
/// No frame is shorter.
pub const HEAD_BYTES_MIN: usize = 1 + 4 + 2 + 1 + 1 + 1;
const _: () = assert!(HEAD_BYTES_MAX == 64 && HEAD_BYTES_MIN == 10);
/// No frame is longer, whatever a configuration says: 1 GiB.
pub const FRAME_BYTES_MAX: u64 = 1 << 30;
/// No record in a batch is shorter: flags and two lengths.
pub const BATCH_RECORD_BYTES_MIN: u64 = 3;

const KIND_MASK: u8 = 0b0000_0111;
const DELETE: u8 = 1 << 3;
const TIMED: u8 = 1 << 4;
const CODEC_SHIFT: u32 = 5;
const CODEC_MASK: u8 = 0b11;
const IGNORABLE: u8 = 1 << 7;

const CHECKSUM_AT: usize = 1;
/// The lag that makes no claim, and the largest that three bytes hold.
const LAG_NONE: u64 = (1 << 21) - 1;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// One record.
    Record,
    /// Several records, atomic.
    Batch,
    /// The footer of a segment that has ended.
    Seal,
    /// All before it was durable when it was written; the last frame of a log closed cleanly.
    Mark,
    /// A kind that this build does not know.
    Unknown(u8),
}

impl FrameKind {
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => None,
            1 => Some(Self::Record),
            2 => Some(Self::Batch),
            3 => Some(Self::Seal),
            4 => Some(Self::Mark),
            other => Some(Self::Unknown(other)),
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Record => 1,
            Self::Batch => 2,
            Self::Seal => 3,
            Self::Mark => 4,
            Self::Unknown(bits) => bits,
        }
    }
}

/// What a frame is written with besides its content.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The segment's checksum.
    pub checksum: ChecksumKind,
    /// The CRC32C to use.
    pub crc: Crc32cFn,
    /// Where the frame goes.
    pub place: Place,
    /// What is durable as it is written.
    pub durable: Lsn,
    /// The time, for records that are timed.
    pub now: Time,
}

impl Frame {
    /// Appends a frame of one record to `out`.
    pub fn put_record(&self, out: &mut impl Buffer, entry: &Entry<'_>) {
        let start = out.as_ref().len();
        let head = self.head(entry_flags(entry) | FrameKind::Record.bits());
        put_entry(out, head, entry, self.now);
        self.finish(out, start);
    }

    /// Appends a frame of several records to `out`, and says how long its head is: the first record
    /// begins there.
    pub fn put_batch<'a>(
        &self,
        out: &mut impl Buffer,
        entries: impl Iterator<Item = Entry<'a>> + Clone,
    ) -> u64 {
        let (mut count, mut body_bytes) = (0, 0);
        for entry in entries.clone() {
            count += 1;
            body_bytes += entry_bytes(&entry, self.now);
        }
        let start = out.as_ref().len();
        let mut head = self.head(FrameKind::Batch.bits());
        head.put_varint(count);
        head.put_varint(body_bytes);
        let head_bytes = head.put_out(out);
        for entry in entries {
            let head = Fields::new(entry_flags(&entry) | FrameKind::Record.bits());
            put_entry(out, head, &entry, self.now);
        }
        self.finish(out, start);
        head_bytes as u64
    }

    /// Appends a frame without records, a seal or a mark, to `out`.
    pub fn put_body(&self, out: &mut impl Buffer, kind: FrameKind, body: &[u8]) {
        let start = out.as_ref().len();
        let mut head = self.head(kind.bits());
        head.put_varint(0);
        head.put_varint(body.len() as u64);
        head.put_out(out);
        out.extend(body);
        self.finish(out, start);
    }

    /// What all frames begin with; the checksum is filled in at the end.
    #[inline]
    fn head(&self, flags: u8) -> Fields {
        let mut head = Fields::new(flags);
        let [low, high, ..] = self.place.lsn.get().to_le_bytes();
        match self.checksum {
            ChecksumKind::Crc32c => head.put([0, 0, 0, 0, low, high]),
            ChecksumKind::Xxh3 => head.put([0, 0, 0, 0, 0, 0, 0, 0, low, high]),
        }
        head.put_varint(self.place.lsn.previous().since(self.durable).min(LAG_NONE));
        head
    }

    fn finish(&self, out: &mut impl Buffer, start: usize) {
        let end = out.as_ref().len();
        // For as long as it is summed the frame has its place behind it: one call does for both.
        out.extend(&self.place.bytes());
        let frame = &mut out.as_mut()[start..];
        let body_at = CHECKSUM_AT + self.checksum.bytes();
        let mut digest = Digest::new(self.checksum, self.crc, frame[0]);
        digest.update(&frame[body_at..]);
        let sum = digest.sum().to_le_bytes();
        frame[CHECKSUM_AT..body_at].copy_from_slice(&sum[..self.checksum.bytes()]);
        out.resize(end);
    }
}

/// A frame of this one record is at most this long.
#[inline]
pub fn record_frame_bytes_max(entry: &Entry<'_>) -> u64 {
    (HEAD_BYTES_MAX + entry.key.len()) as u64 + entry.stored.len() as u64
}

/// A frame of these records is at most this long.
pub fn batch_frame_bytes_max<'a>(entries: impl Iterator<Item = Entry<'a>>, now: Time) -> u64 {
    HEAD_BYTES_MAX as u64 + entries.map(|entry| entry_bytes(&entry, now)).sum::<u64>()
}

fn entry_flags(entry: &Entry<'_>) -> u8 {
    let delete = if entry.kind == RecordKind::Delete { DELETE } else { 0 };
    let timed = if entry.ttl.is_some() { TIMED } else { 0 };
    delete | timed | (entry.codec as u8) << CODEC_SHIFT
}

fn ttl_millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

/// How long an entry is in a batch.
fn entry_bytes(entry: &Entry<'_>, now: Time) -> u64 {
    let (key_bytes, stored_bytes) = (entry.key.len() as u64, entry.stored.len() as u64);
    let mut head = 1 + varint::len(key_bytes) + varint::len(stored_bytes);
    if let Some(ttl) = entry.ttl {
        head += varint::len(now.as_millis()) + varint::len(ttl_millis(ttl));
    }
    if entry.codec != Compression::None {
        head += varint::len(entry.raw_bytes);
    }
    head as u64 + key_bytes + stored_bytes
}

/// The fields before a frame's content, or before a record's in a batch. They are short: put
/// together here they go out in one piece.
struct Fields {
    bytes: [u8; HEAD_BYTES_MAX],
    length: usize,
}

impl Fields {
    fn new(flags: u8) -> Self {
        let mut bytes = [0; HEAD_BYTES_MAX];
        bytes[0] = flags;
        Self { bytes, length: 1 }
    }

    #[inline]
    fn put<const COUNT: usize>(&mut self, bytes: [u8; COUNT]) {
        self.bytes[self.length..][..COUNT].copy_from_slice(&bytes);
        self.length += COUNT;
    }

    #[inline]
    fn put_varint(&mut self, value: u64) {
        self.length += varint::write(&mut self.bytes[self.length..], value);
    }

    /// Appends them to `out`, and says how long they are.
    fn put_out(&self, out: &mut impl Buffer) -> usize {
        out.extend(&self.bytes[..self.length]);
        self.length
    }
}

/// Appends `head`, which holds what stands before an entry's lengths, and the entry.
fn put_entry(out: &mut impl Buffer, mut head: Fields, entry: &Entry<'_>, now: Time) {
    head.put_varint(entry.key.len() as u64);
    head.put_varint(entry.stored.len() as u64);
    if let Some(ttl) = entry.ttl {
        head.put_varint(now.as_millis());
        head.put_varint(ttl_millis(ttl));
    }
    if entry.codec != Compression::None {
        head.put_varint(entry.raw_bytes);
    }
    head.put_out(out);
    out.extend(entry.key);
    out.extend(entry.stored);
}

/// The lengths and times that stand before a record's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct EntryHead {
    flags: u8,
    key_bytes: u64,
    stored_bytes: u64,
    written_millis: u64,
    ttl_millis: u64,
    raw_bytes: u64,
    /// How long the head is, without the flags.
    bytes: usize,
}

impl EntryHead {
    /// Reads what follows the flags (and, in a frame of its own, checksum, low LSN and lag).
    fn parse(flags: u8, bytes: &[u8]) -> Option<Self> {
        let mut at = 0;
        let mut number = || {
            let (value, bytes) = varint::take(bytes.get(at..)?)?;
            at += bytes;
            Some(value)
        };
        let (key_bytes, stored_bytes) = (number()?, number()?);
        let timed = flags & TIMED != 0;
        let (written_millis, ttl_millis) = if timed { (number()?, number()?) } else { (0, 0) };
        let packed = flags >> CODEC_SHIFT & CODEC_MASK != 0;
        let raw_bytes = if packed { number()? } else { stored_bytes };
        Some(Self {
            flags,
            key_bytes,
            stored_bytes,
            written_millis,
            ttl_millis,
            raw_bytes,
            bytes: at,
        })
    }

    fn content_bytes(&self) -> Option<u64> {
        self.key_bytes.checked_add(self.stored_bytes)
    }

    /// The record whose key begins `content`.
    fn record<'a>(&self, content: &'a [u8], lsn: Lsn, position: Position) -> Option<RecordRef<'a>> {
        let key_bytes = usize::try_from(self.key_bytes).ok()?;
        let stored_bytes = usize::try_from(self.stored_bytes).ok()?;
        let (key, rest) = content.split_at_checked(key_bytes)?;
        let codec = match self.flags >> CODEC_SHIFT & CODEC_MASK {
            0 => Compression::None,
            1 => Compression::Lz4,
            2 => Compression::Zstd,
            _ => return None,
        };
        let timed = self.flags & TIMED != 0;
        let delete = self.flags & DELETE != 0;
        Some(RecordRef {
            lsn,
            position,
            kind: if delete { RecordKind::Delete } else { RecordKind::Put },
            key,
            stored: rest.get(..stored_bytes)?,
            codec,
            raw_bytes: self.raw_bytes,
            written_at: timed.then(|| Time::from_millis(self.written_millis)),
            ttl: timed.then(|| Duration::from_millis(self.ttl_millis)),
        })
    }
}

/// What the bytes at a frame's place begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// A head. Nothing of it is to be trusted until the checksum has been compared.
    Head(Head),
    /// Zeros, as unwritten space has.
    Zeros,
    /// More bytes are needed to say; there are fewer than [`HEAD_BYTES_MAX`].
    Short,
    /// No frame begins so.
    Bad,
}

/// The head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// What the frame is.
    pub kind: FrameKind,
    /// Whether a reader that does not know the kind may pass over it.
    pub is_ignorable: bool,
    /// The checksum that stands in it.
    pub checksum: u64,
    /// The low 16 bits of its LSN.
    pub lsn_low: u16,
    /// How many records it holds: as many LSNs are taken.
    pub count: u64,
    /// How long the frame is, head and all.
    pub frame_bytes: u64,
    /// How long its head is.
    pub head_bytes: usize,
    /// `None`: it makes no claim.
    lag: Option<u64>,
    entry: Option<EntryHead>,
}

impl Head {
    /// Reads a head from the front of `bytes`.
    pub fn parse(bytes: &[u8], checksum: ChecksumKind) -> Parsed {
        let Some(&flags) = bytes.first() else { return Parsed::Short };
        let Some(kind) = FrameKind::from_bits(flags & KIND_MASK) else {
            let head = &bytes[..bytes.len().min(HEAD_BYTES_MIN)];
            return if is_zero(head) { Parsed::Zeros } else { Parsed::Bad };
        };
        match Self::parse_kind(bytes, flags, kind, checksum) {
            Some(head) if head.frame_bytes <= FRAME_BYTES_MAX => Parsed::Head(head),
            None if bytes.len() < HEAD_BYTES_MAX => Parsed::Short,
            _ => Parsed::Bad,
        }
    }

    fn parse_kind(
        bytes: &[u8],
        flags: u8,
        kind: FrameKind,
        checksum: ChecksumKind,
    ) -> Option<Self> {
        let lsn_low = lsn_low(bytes, checksum)?;
        let sum = match checksum {
            ChecksumKind::Crc32c => u64::from(u32_at(bytes, CHECKSUM_AT)),
            ChecksumKind::Xxh3 => u64_at(bytes, CHECKSUM_AT),
        };
        let lag_at = CHECKSUM_AT + checksum.bytes() + 2;
        let (lag, lag_bytes) = varint::take(&bytes[lag_at..])?;
        if lag > LAG_NONE {
            return None;
        }
        let rest = &bytes[lag_at + lag_bytes..];
        let (count, head_rest, content_bytes, entry) = if kind == FrameKind::Record {
            let entry = EntryHead::parse(flags, rest)?;
            (1, entry.bytes, entry.content_bytes()?, Some(entry))
        } else {
            let (count, count_bytes) = varint::take(rest)?;
            let (body_bytes, length_bytes) = varint::take(&rest[count_bytes..])?;
            (count, count_bytes + length_bytes, body_bytes, None)
        };
        let head_bytes = lag_at + lag_bytes + head_rest;
        Some(Self {
            kind,
            is_ignorable: flags & IGNORABLE != 0,
            checksum: sum,
            lsn_low,
            count,
            frame_bytes: content_bytes.checked_add(head_bytes as u64)?,
            head_bytes,
            lag: (lag != LAG_NONE).then_some(lag),
            entry,
        })
        .filter(Self::is_consistent)
    }

    /// Whether the number of records suits the kind and the length.
    fn is_consistent(&self) -> bool {
        let body_bytes = self.frame_bytes - self.head_bytes as u64;
        match self.kind {
            FrameKind::Record => true,
            FrameKind::Batch => self.count > 0 && self.count <= body_bytes / BATCH_RECORD_BYTES_MIN,
            FrameKind::Seal | FrameKind::Mark => self.count == 0,
            FrameKind::Unknown(_) => self.count <= body_bytes,
        }
    }

    /// What was durable when the frame was written, given the LSN of its first record. `None` when
    /// it makes no claim.
    pub fn durable(&self, lsn: Lsn) -> Option<Lsn> {
        self.lag.map(|lag| Lsn::new(lsn.previous().get().saturating_sub(lag)))
    }

    /// Starts the checksum over `head`, the frame's bytes from its start on; at least its head is
    /// there. Whatever of the frame is not in `head` must be added with [`Digest::update`].
    pub fn digest(&self, head: &[u8], checksum: ChecksumKind, crc: Crc32cFn) -> Digest {
        let mut digest = Digest::new(checksum, crc, head[0]);
        digest.update(&head[CHECKSUM_AT + checksum.bytes()..]);
        digest
    }

    /// Whether `frame`, all of the frame's bytes, is what was written at `place`.
    pub fn holds(&self, frame: &[u8], place: Place, checksum: ChecksumKind, crc: Crc32cFn) -> bool {
        self.digest(frame, checksum, crc).at(place) == self.checksum
    }

    /// The smallest LSN from `expected` on that has this frame's low 16 bits.
    pub fn lsn_from(&self, expected: Lsn) -> Lsn {
        let [low, high, ..] = expected.get().to_le_bytes();
        let ahead = self.lsn_low.wrapping_sub(u16::from_le_bytes([low, high]));
        expected.plus(u64::from(ahead))
    }

    /// The records of `frame`, all of the bytes of a frame whose checksum held.
    pub fn records<'a>(&self, frame: &'a [u8], lsn: Lsn, position: Position) -> Records<'a> {
        let state = match (self.kind, self.entry) {
            (FrameKind::Record, Some(entry)) => State::Lone(entry, self.head_bytes),
            (FrameKind::Batch, _) => State::Batch { at: self.head_bytes, left: self.count },
            (FrameKind::Seal | FrameKind::Mark, _) => State::Done,
            _ if self.is_ignorable => State::Done,
            _ => State::Unknown,
        };
        Records { frame, lsn, position, state }
    }
}

/// Whether a frame of a kind that this build knows begins with this byte, as it writes them.
pub(crate) fn is_flags(byte: u8) -> bool {
    IS_FLAGS[usize::from(byte)]
}

static IS_FLAGS: [bool; 256] = flags();

const fn flags() -> [bool; 256] {
    let mut is_flags = [false; 256];
    let mut byte = 0_u8;
    loop {
        is_flags[byte as usize] = match FrameKind::from_bits(byte & KIND_MASK) {
            Some(FrameKind::Record) => {
                let codec = byte >> CODEC_SHIFT & CODEC_MASK;
                byte & IGNORABLE == 0 && codec <= Compression::Zstd as u8
            }
            Some(FrameKind::Batch | FrameKind::Seal | FrameKind::Mark) => byte & !KIND_MASK == 0,
            Some(FrameKind::Unknown(_)) | None => false,
        };
        if byte == u8::MAX {
            return is_flags;
        }
        byte += 1;
    }
}

/// The low 16 bits of the LSN in what begins as a frame does. `None`: it does not, or is too short.
pub(crate) fn lsn_low(bytes: &[u8], checksum: ChecksumKind) -> Option<u16> {
    let low_at = CHECKSUM_AT + checksum.bytes();
    let begins = bytes.first().is_some_and(|flags| flags & KIND_MASK != 0);
    let low = bytes.get(low_at..)?.first_chunk().filter(|_| begins)?;
    Some(u16::from_le_bytes(*low))
}

/// Why a record in a frame whose checksum held cannot be read.
///
/// The frames around it can: this is no reason to end a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// It is of a kind that this build does not know and may not pass over.
    UnknownKind,
    /// Its lengths do not fit its frame.
    Malformed,
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::UnknownKind => {
                "a record of a kind that this build does not know and may not pass over"
            }
            Self::Malformed => "a record whose lengths do not fit its frame",
        })
    }
}

impl core::error::Error for RecordError {}

/// The records of one frame. Records of a kind that may be passed over are.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    frame: &'a [u8],
    lsn: Lsn,
    position: Position,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Lone(EntryHead, usize),
    Batch { at: usize, left: u64 },
    Unknown,
    Done,
}

/// A record of a batch, or one of a kind that may be passed over.
enum BatchRecord<'a> {
    Shown(Result<RecordRef<'a>, RecordError>),
    PassedOver,
}

impl Records<'_> {
    /// Where the frame's bytes are to be read on from, to go on later with [`Records::resume`].
    pub(crate) fn pause(&self) -> Paused {
        Paused { lsn: self.lsn, position: self.position, state: self.state }
    }
}

/// A [`Records`] without its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paused {
    lsn: Lsn,
    position: Position,
    state: State,
}

impl Paused {
    pub(crate) fn resume(self, frame: &[u8]) -> Records<'_> {
        Records { frame, lsn: self.lsn, position: self.position, state: self.state }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordRef<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.state {
                State::Done => return None,
                State::Unknown => {
                    self.state = State::Done;
                    return Some(Err(RecordError::UnknownKind));
                }
                State::Lone(entry, head_bytes) => {
                    self.state = State::Done;
                    let content = self.frame.get(head_bytes..).unwrap_or_default();
                    let record = entry.record(content, self.lsn, self.position);
                    return Some(record.ok_or(RecordError::Malformed));
                }
                State::Batch { left: 0, .. } => self.state = State::Done,
                State::Batch { at, left } => match self.batch_record(at, left) {
                    Some(BatchRecord::PassedOver) => {}
                    Some(BatchRecord::Shown(item)) => return Some(item),
                    None => {
                        self.state = State::Done;
                        return Some(Err(RecordError::Malformed));
                    }
                },
            }
        }
    }
}

impl<'a> Records<'a> {
    /// The next record of a batch; `None` when its lengths do not fit the frame.
    fn batch_record(&mut self, at: usize, left: u64) -> Option<BatchRecord<'a>> {
        let bytes: &'a [u8] = self.frame.get(at..)?;
        let flags = *bytes.first()?;
        let entry = EntryHead::parse(flags, &bytes[1..])?;
        let content_at = 1 + entry.bytes;
        let content_bytes = usize::try_from(entry.content_bytes()?).ok()?;
        let content = bytes.get(content_at..content_at.checked_add(content_bytes)?)?;
        let position = Position::new(self.position.segment, self.position.offset + at as u64);
        let lsn = self.lsn;
        self.lsn = lsn.next();
        self.state = State::Batch { at: at + content_at + content_bytes, left: left - 1 };
        Some(if flags & KIND_MASK == FrameKind::Record.bits() {
            let record = entry.record(content, lsn, position).ok_or(RecordError::Malformed);
            BatchRecord::Shown(record)
        } else if flags & IGNORABLE != 0 {
            BatchRecord::PassedOver
        } else {
            BatchRecord::Shown(Err(RecordError::UnknownKind))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SegmentId;
    use crate::record::Record;
    use alloc::vec::Vec;

    /// The head of a batch of one record whose body is so long, and zeros.
    fn head_of(body_bytes: u64) -> Vec<u8> {
        let mut bytes = alloc::vec![FrameKind::Batch.bits(), 0, 0, 0, 0, 0, 0, 0, 1];
        varint::put(&mut bytes, body_bytes);
        bytes.resize(HEAD_BYTES_MAX, 0);
        bytes
    }

    fn frame() -> Frame {
        Frame {
            checksum: ChecksumKind::Crc32c,
            crc: crate::wire::checksum::crc32c,
            place: Place { salt: 1, segment: SegmentId::FIRST, offset: 128, lsn: Lsn::new(9) },
            durable: Lsn::new(8),
            now: Time::from_micros(5_000_000),
        }
    }

    /// What the records of a frame's bytes are: their LSN and value, or what is wrong.
    fn shown(bytes: &[u8]) -> Vec<Result<(u64, Vec<u8>), RecordError>> {
        let Parsed::Head(head) = Head::parse(bytes, ChecksumKind::Crc32c) else {
            panic!("no frame")
        };
        assert_eq!(head.frame_bytes, bytes.len() as u64);
        let records = head.records(bytes, Lsn::new(9), Position::new(SegmentId::FIRST, 128));
        records
            .map(|record| record.map(|record| (record.lsn.get(), record.stored.to_vec())))
            .collect()
    }

    fn batch(out: &mut Vec<u8>) -> usize {
        let packed = Entry {
            codec: Compression::Lz4,
            raw_bytes: 1_000,
            ..Entry::from(&Record::put(b"k", b"packed"))
        };
        assert_eq!(packed.stored_bytes(), 7);
        let timed = Record::put_with_ttl(b"k", b"timed", Duration::from_secs(1));
        let entries = [Entry::from(&Record::put(b"k", b"plain")), packed, Entry::from(&timed)];
        let entries = entries.iter().copied();
        let bytes_max = batch_frame_bytes_max(entries.clone(), frame().now);
        let head = frame().put_batch(out, entries);
        assert!(out.len() as u64 <= bytes_max);
        usize::try_from(head).unwrap()
    }

    #[test]
    fn a_search_looks_for_every_frame_that_is_written() {
        let mut written = alloc::collections::BTreeSet::new();
        let mut note = |put: &dyn Fn(&Frame, &mut Vec<u8>)| {
            let mut bytes = Vec::new();
            put(&frame(), &mut bytes);
            written.insert(bytes[0]);
        };
        for kind in [RecordKind::Put, RecordKind::Delete] {
            for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
                for ttl in [None, Some(Duration::from_secs(1))] {
                    let record = Record::put(b"k", b"v");
                    let entry = Entry { kind, codec, ttl, ..Entry::from(&record) };
                    note(&|frame, bytes| frame.put_record(bytes, &entry));
                    note(&|frame, bytes| {
                        frame.put_batch(bytes, [entry].into_iter());
                    });
                }
            }
        }
        note(&|frame, bytes| frame.put_body(bytes, FrameKind::Seal, b"index"));
        note(&|frame, bytes| frame.put_body(bytes, FrameKind::Mark, b""));
        let looked_for: Vec<u8> = (0..=u8::MAX).filter(|byte| is_flags(*byte)).collect();
        assert_eq!(looked_for, written.into_iter().collect::<Vec<_>>());
        assert_eq!(flags(), IS_FLAGS);
    }

    #[test]
    fn the_low_bits_of_a_number_stand_behind_the_checksum() {
        for checksum in [ChecksumKind::Crc32c, ChecksumKind::Xxh3] {
            let mut bytes = Vec::new();
            let place = Place { lsn: Lsn::new(0x0009_1234), ..frame().place };
            let frame = Frame { checksum, place, ..frame() };
            frame.put_record(&mut bytes, &Entry::from(&Record::put(b"k", b"v")));
            assert_eq!(lsn_low(&bytes, checksum), Some(0x1234));
            let whole = 1 + checksum.bytes() + 2;
            assert_eq!(lsn_low(&bytes[..whole], checksum), Some(0x1234));
            assert_eq!(lsn_low(&bytes[..whole - 1], checksum), None);
            bytes[0] = 0xf8;
            assert_eq!(lsn_low(&bytes, checksum), None);
        }
    }

    #[test]
    fn a_batch_holds_plain_packed_and_timed_records() {
        let mut bytes = Vec::new();
        batch(&mut bytes);
        let values = [&b"plain"[..], b"packed", b"timed"];
        let wanted = (9..).zip(values).map(|(lsn, value)| Ok((lsn, value.to_vec())));
        assert_eq!(shown(&bytes), wanted.collect::<Vec<_>>());
    }

    #[test]
    fn every_record_of_a_batch_is_where_its_position_says() {
        let mut bytes = Vec::new();
        let first = batch(&mut bytes);
        let Parsed::Head(head) = Head::parse(&bytes, ChecksumKind::Crc32c) else { panic!() };
        let records = head.records(&bytes, Lsn::new(9), Position::new(SegmentId::FIRST, 128));
        let offsets: Vec<_> = records.map(|record| record.unwrap().position.offset - 128).collect();
        // Flags and two lengths, a key and five bytes; two bytes more of length, a key and six.
        assert_eq!(offsets, [first, first + 9, first + 21].map(|at| at as u64));
    }

    #[test]
    fn a_deleted_key_comes_back_as_that() {
        let mut bytes = Vec::new();
        frame().put_record(&mut bytes, &Entry::from(&Record::delete(b"gone")));
        let Parsed::Head(head) = Head::parse(&bytes, ChecksumKind::Crc32c) else { panic!() };
        let mut records = head.records(&bytes, Lsn::new(9), Position::new(SegmentId::FIRST, 128));
        let record = records.next().unwrap().unwrap();
        assert_eq!(
            (record.kind, record.key, record.stored.len()),
            (RecordKind::Delete, &b"gone"[..], 0)
        );
    }

    /// Records of every kind, packed in every way, with and without a TTL.
    fn all_kinds() -> Vec<Entry<'static>> {
        let mut all = Vec::new();
        for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
            for record in [Record::put(b"key", b"value of it"), Record::delete(b"key")] {
                for ttl in [None, Some(Duration::from_mins(5))] {
                    let entry = Entry { codec, ttl, ..Entry::from(&record) };
                    let is_plain = codec == Compression::None;
                    let raw_bytes = if is_plain { entry.raw_bytes } else { 1_000 };
                    all.push(Entry { raw_bytes, ..entry });
                }
            }
        }
        all
    }

    /// What the frame in `bytes` holds, put together as it went in.
    fn entries_of(bytes: &[u8]) -> Vec<Entry<'_>> {
        let Parsed::Head(head) = Head::parse(bytes, ChecksumKind::Crc32c) else { panic!() };
        assert!(head.holds(bytes, frame().place, ChecksumKind::Crc32c, frame().crc));
        let elsewhere = Place { offset: 129, ..frame().place };
        assert!(!head.holds(bytes, elsewhere, ChecksumKind::Crc32c, frame().crc));
        assert_eq!(head.durable(frame().place.lsn), Some(frame().durable));
        let records = head.records(bytes, Lsn::new(9), Position::new(SegmentId::FIRST, 128));
        records
            .map(|record| {
                let RecordRef { kind, key, stored, codec, raw_bytes, written_at, ttl, .. } =
                    record.unwrap();
                assert_eq!(written_at, ttl.map(|_| frame().now));
                Entry { kind, key, stored, codec, raw_bytes, ttl }
            })
            .collect()
    }

    #[test]
    fn all_of_a_record_comes_back() {
        let all = all_kinds();
        for entry in &all {
            let mut bytes = Vec::new();
            frame().put_record(&mut bytes, entry);
            assert_eq!(entries_of(&bytes), [*entry]);
            let bytes_max = record_frame_bytes_max(entry);
            assert_eq!(bytes_max, HEAD_BYTES_MAX as u64 + entry.stored_bytes());
            assert!(bytes.len() as u64 <= bytes_max);
            let content_bytes = usize::try_from(entry.stored_bytes()).unwrap();
            for cut in 0..bytes.len() - content_bytes {
                assert_eq!(Head::parse(&bytes[..cut], ChecksumKind::Crc32c), Parsed::Short);
            }
        }
        let mut bytes = Vec::new();
        let bytes_max = batch_frame_bytes_max(all.iter().copied(), frame().now);
        let head_bytes = frame().put_batch(&mut bytes, all.iter().copied());
        assert_eq!(entries_of(&bytes), all);
        assert_eq!(bytes.len() as u64 - head_bytes, bytes_max - HEAD_BYTES_MAX as u64);
    }

    #[test]
    fn a_frame_far_ahead_of_what_is_durable_makes_no_claim() {
        for (lag, is_claim) in [(LAG_NONE - 1, true), (LAG_NONE, false), (LAG_NONE + 1, false)] {
            let lsn = Lsn::new(9 + lag);
            let place = Place { lsn, ..frame().place };
            let mut bytes = Vec::new();
            let record = Record::put(b"k", b"v");
            Frame { place, ..frame() }.put_record(&mut bytes, &Entry::from(&record));
            let Parsed::Head(head) = Head::parse(&bytes, ChecksumKind::Crc32c) else { panic!() };
            assert_eq!(head.durable(lsn), is_claim.then_some(Lsn::new(8)), "{lag}");
        }
        assert_eq!(LAG_NONE.next_power_of_two().trailing_zeros(), 21, "what three bytes hold");
    }

    #[test]
    fn a_frame_without_records_shows_none() {
        for kind in [FrameKind::Seal, FrameKind::Mark] {
            let mut bytes = Vec::new();
            frame().put_body(&mut bytes, kind, b"what it says");
            assert!(bytes.ends_with(b"what it says"));
            assert_eq!(entries_of(&bytes), []);
        }
    }

    #[test]
    fn a_batch_that_cannot_hold_its_records_is_none() {
        // Flags, checksum, low LSN, lag; then how many records, and how long they are.
        for (records, body_bytes, is_one) in
            [(2, 6, true), (3, 6, false), (2, 5, false), (0, 6, false)]
        {
            let head = [2, 0, 0, 0, 0, 9, 0, 0, records, body_bytes];
            let bytes = [&head[..], &[0; HEAD_BYTES_MAX]].concat();
            let parsed = Head::parse(&bytes, ChecksumKind::Crc32c);
            assert_eq!(matches!(parsed, Parsed::Head(_)), is_one, "{records} in {body_bytes}");
        }
    }

    #[test]
    fn records_of_an_unknown_kind_are_told_or_passed_over() {
        let mut bytes = Vec::new();
        let first = batch(&mut bytes);
        bytes[first] = bytes[first] & !KIND_MASK | 7;
        let records = shown(&bytes);
        assert_eq!(records[0], Err(RecordError::UnknownKind));
        assert_eq!(records[1], Ok((10, b"packed".to_vec())));
        bytes[first] |= IGNORABLE;
        assert_eq!(shown(&bytes), records[1..], "it may be passed over, and keeps its LSN");
        // A key that is longer than the frame.
        bytes[first + 1] = 100;
        assert_eq!(shown(&bytes), [Err(RecordError::Malformed)]);
    }

    #[test]
    fn a_frame_of_an_unknown_kind_is_told_or_passed_over() {
        // Flags, checksum, low LSN, lag, how many records, how long they are.
        let frame = |flags: u8, records| [7 | flags, 0, 0, 0, 0, 9, 0, 0, records, 2, b'?', b'?'];
        assert_eq!(shown(&frame(0, 2)), [Err(RecordError::UnknownKind)]);
        assert_eq!(shown(&frame(IGNORABLE, 2)), []);
        let too_many = [&frame(IGNORABLE, 3)[..], &[0; HEAD_BYTES_MAX]].concat();
        assert_eq!(Head::parse(&too_many, ChecksumKind::Crc32c), Parsed::Bad);
        for error in [RecordError::UnknownKind, RecordError::Malformed] {
            assert!(alloc::format!("{error}").starts_with("a record"));
        }
    }

    #[test]
    fn a_frame_longer_than_any_is_none() {
        let head_bytes = 9 + 5;
        let longest = FRAME_BYTES_MAX - head_bytes;
        let parsed = Head::parse(&head_of(longest), ChecksumKind::Crc32c);
        let Parsed::Head(head) = parsed else { panic!("{parsed:?}") };
        assert_eq!(head.frame_bytes, FRAME_BYTES_MAX);
        for body_bytes in [longest + 1, u64::from(u32::MAX), u64::MAX - head_bytes, u64::MAX] {
            let parsed = Head::parse(&head_of(body_bytes), ChecksumKind::Crc32c);
            assert_eq!(parsed, Parsed::Bad, "{body_bytes}");
        }
    }
}
