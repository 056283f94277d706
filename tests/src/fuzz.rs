//! What a fuzzer does with its bytes: five targets, each a function that panics when something does
//! not hold.
//!
//! | target       | the bytes are                     | what must hold                          |
//! |--------------|-----------------------------------|-----------------------------------------|
//! | [frame]      | a frame                           | lengths fit; records lie within         |
//! | [scan]       | a segment's frames                | the report is sound, however it is fed  |
//! | [recovery]   | the files of a folder             | it ends; what it shows, it shows again  |
//! | [machine]    | requests, completions and crashes | the oracle's invariants                 |
//! | [decompress] | packed values                     | the length is the one said; round trips |
//!
//! The first byte says, among others, whether checksums are real. Where they are not, all of them
//! are zero: a fuzzer finds those, so that what stands behind the checksums is reached as well.
//!
//! `core/fuzz` feeds them from libFuzzer, `tests/fuzz_corpus.rs` from the corpus that it keeps.

use crate::disk::Disk;
use crate::history::{Event, History, Setup, Step, Theme};
use crate::opening::{Ended, Go, is_the_same_told, read_all, recover, start};
use crate::random::{Hash, Random};
use crate::world::World;
use alloc::vec::Vec;
use seawall_core::compress::{Compression, Compressor, Decompressor};
use seawall_core::config::{Config, Level, RecoveryPolicy, RecoveryScan};
use seawall_core::id::{Lsn, Position, SegmentId};
use seawall_core::record::Record;
use seawall_core::recover::RecoveryError;
use seawall_core::scan::{Found, ScanReport, ScanStart, SegmentScan};
use seawall_core::wire::checksum::{ChecksumKind, Crc32cFn, Place};
use seawall_core::wire::frame::{FRAME_BYTES_MAX, HEAD_BYTES_MAX, Head, Parsed};
use seawall_core::wire::header::{Earlier, FRAMES_OFFSET};
use seawall_core::wire::name::{FileId, FileName};

/// A target: its name and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 5] = [
    ("frame", frame),
    ("scan", scan),
    ("recovery", recovery),
    ("machine", machine),
    ("decompress", decompress),
];

/// No checksum at all.
fn no_crc(_: u32, _: &[u8]) -> u32 {
    0
}

fn crc(flags: u8) -> Crc32cFn {
    if flags & 1 == 0 { no_crc } else { crate::crc() }
}

fn checksum(flags: u8) -> ChecksumKind {
    if flags & 2 == 0 { ChecksumKind::Crc32c } else { ChecksumKind::Xxh3 }
}

/// A frame, and whatever follows it.
pub fn frame(input: &[u8]) {
    let Some((flags, bytes)) = input.split_first() else { return };
    let kind = checksum(*flags);
    let Parsed::Head(head) = Head::parse(bytes, kind) else { return };
    assert!(head.frame_bytes <= FRAME_BYTES_MAX, "a frame of {} bytes", head.frame_bytes);
    assert!(head.head_bytes <= HEAD_BYTES_MAX && head.head_bytes as u64 <= head.frame_bytes);
    let length = usize::try_from(head.frame_bytes).expect("it is at most 1 GiB");
    let Some(frame) = bytes.get(..length) else { return };
    let lsn = head.lsn_from(Lsn::new(1));
    let place = Place { salt: 7, segment: SegmentId::new(1), offset: FRAMES_OFFSET, lsn };
    let holds = head.holds(frame, place, kind, crc(*flags));
    let mut digest = head.digest(&frame[..head.head_bytes], kind, crc(*flags));
    frame[head.head_bytes..].chunks(13).for_each(|piece| digest.update(piece));
    assert_eq!(holds, digest.at(place) == head.checksum, "a checksum in pieces is the same");
    let position = Position::new(SegmentId::new(1), FRAMES_OFFSET);
    let (mut records, mut decompressor) = (0, Decompressor::new());
    for record in head.records(frame, lsn, position) {
        records += 1;
        assert!(records <= head.count.max(1), "more records than the head says");
        let Ok(record) = record else { break };
        assert!(record.lsn.since(lsn) < head.count.max(1), "a number that the frame has not");
        let offset = record.position.offset - FRAMES_OFFSET;
        assert!(offset < head.frame_bytes, "a record beyond its frame");
        assert!(record.key.len() + record.stored.len() <= frame.len());
        let mut value = Vec::new();
        if record.unpack(&mut decompressor, 1 << 16, &mut value).is_ok() {
            assert_eq!(value.len() as u64, record.raw_bytes);
        }
    }
}

/// The frames of a segment, walked in one piece and in small ones.
pub fn scan(input: &[u8]) {
    let Some((flags, bytes)) = input.split_first() else { return };
    let limit = FRAMES_OFFSET + bytes.len() as u64;
    let start = ScanStart {
        segment: SegmentId::new(1),
        salt: 7,
        checksum: checksum(*flags),
        earlier: (*flags & 4 != 0).then_some(Earlier {
            segment: SegmentId::new(0),
            salt: 9,
            lsn: Lsn::ZERO,
        }),
        crc: crc(*flags),
        offset: FRAMES_OFFSET,
        lsn: Lsn::new(1),
        limit,
        last_lsn: None,
    };
    let (report, found) = walk(start, bytes, usize::MAX);
    let piece = HEAD_BYTES_MAX + usize::from(*flags >> 2);
    assert_eq!((&report, &found), (&walk(start, bytes, piece).0, &walk(start, bytes, piece).1));
    let mut end = FRAMES_OFFSET;
    for frame in &found {
        assert!(frame.offset >= end && frame.end() <= limit, "frames lie in order: {frame:?}");
        end = frame.end();
    }
    assert_eq!(report.last_end, end);
    let mut end = FRAMES_OFFSET;
    for hole in &report.holes {
        assert!(end <= hole.start && hole.start < hole.end && hole.end <= limit, "{hole:?}");
        end = hole.end;
    }
    let before = found.iter().take_while(|frame| frame.end() <= report.end);
    let records: u64 = before.map(|frame| frame.head.count).sum();
    assert_eq!(records, report.records, "{report:?}");
    assert_eq!(report.next_lsn, Lsn::new(1).plus(records), "no number is left out before a hole");
}

/// Feeds a scan in pieces of so many bytes.
fn walk(start: ScanStart, bytes: &[u8], piece: usize) -> (ScanReport, Vec<Found>) {
    let (mut scan, mut found) = (SegmentScan::new(start), Vec::new());
    while let Some((from, bytes_max)) = scan.wants() {
        let from = usize::try_from(from - FRAMES_OFFSET).expect("the input is short");
        let most = usize::try_from(bytes_max).expect("the input is short").min(piece);
        scan.feed(&bytes[from..from + most], |frame| found.push(*frame));
    }
    (scan.into_report(), found)
}

/// The files that bytes stand for: a name's number, a length of two bytes, and what is in it.
fn files(mut bytes: &[u8]) -> Disk {
    let mut disk = Disk::default();
    while let [number, low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let segment = FileId::Segment(SegmentId::new(u64::from(number % 8)));
        let file = if number % 8 == 0 { FileId::Manifest } else { segment };
        let name = FileName { file, is_new: *number >= 128 };
        disk.place(name, rest[..length].to_vec());
        bytes = &rest[length..];
    }
    disk
}

/// The bytes that stand for files: what makes a corpus of real ones.
pub fn pack(files: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, content) in files {
        let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
        bytes.push(*number);
        bytes.extend(length.to_le_bytes());
        bytes.extend(&content[..usize::from(length)]);
    }
    bytes
}

/// A folder of any content, recovered under any policy, and then once more.
pub fn recovery(input: &[u8]) {
    let Some((flags, bytes)) = input.split_first() else { return };
    let policies = [RecoveryPolicy::PrefixValid, RecoveryPolicy::Strict, RecoveryPolicy::Salvage];
    let config = Config {
        segment_bytes_max: 64 << 10,
        recovery: policies[usize::from(flags >> 3) % 3],
        scan: if flags & 4 == 0 { RecoveryScan::Full } else { RecoveryScan::Tail },
        crc: crc(*flags),
        checksum: checksum(*flags),
        ..Config::default()
    };
    let config = config.checked().expect("the settings hold together");
    let mut disk = files(bytes);
    if flags & 32 != 0
        && let Err(violation) = is_the_same_told(&disk, &config)
    {
        panic!("{violation}");
    }
    let Some((shown, ended)) = open_once(&mut disk, &config, 1) else { return };
    let Some((again, ended_again)) = open_once(&mut disk, &config, 2) else {
        // What one opening has told and kept, a strict one may still refuse.
        assert_eq!(config.recovery, RecoveryPolicy::Strict, "invariant 8: it opens once only");
        return;
    };
    assert_eq!(shown, again, "invariant 8: what was shown is shown again");
    assert_eq!(ended, ended_again);
}

/// Opens a log and reads it: a hash of each record. `None`: it was refused.
fn open_once(disk: &mut Disk, config: &Config, seed: u64) -> Option<(Vec<(u64, u64)>, Ended)> {
    let mut commands = 0;
    let opened = recover(disk, start(config, seed, 1), |_, _| {
        commands += 1;
        assert!(commands < 100_000, "invariant 9: recovery does not end");
        Go::On(None)
    });
    let (log, report) = match opened.expect("it was not stopped") {
        Ok(opened) => opened,
        Err(RecoveryError::Io(failure)) => panic!("nothing fails here: {failure}"),
        Err(_) => return None,
    };
    let mut shown: Vec<(u64, u64)> = Vec::new();
    let ended = read_all(disk, &log, config.crc, |lsn, key, value| {
        let mut hash = Hash::default();
        hash.bytes(key);
        hash.bytes(value);
        shown.push((lsn, hash.value()));
        Ok(())
    });
    let rising = shown.windows(2).all(|pair| pair[0].0 < pair[1].0);
    assert!(rising, "invariant 2: LSNs rise: {report:?}");
    // A frame whose checksum holds may still hold nonsense where checksums are not real.
    Some((shown, ended.unwrap_or(Ended::Damaged)))
}

/// Requests, completions, faults and crashes, each from three bytes.
pub fn machine(input: &[u8]) {
    let Some((setup, events)) = input.split_first_chunk::<4>() else { return };
    let seed = u64::from(u32::from_le_bytes(*setup));
    let (events, _) = events.as_chunks::<3>();
    // As many as a life of the simulator has: a longer one finds nothing that two do not.
    let events = events.iter().take(400).enumerate().map(|(number, [step, low, high])| {
        let dice = seed ^ (number as u64) << 32 ^ u64::from(u16::from_le_bytes([*low, *high]));
        Event { step: step_of(*step, *low, *high), dice }
    });
    let setup = Setup::draw(&mut Random::new(seed), Theme::Faults);
    let history = History { setup, events: events.collect() };
    let mut world = World::new(&history);
    if let Err(violation) = world.live(&history) {
        panic!("{violation}");
    }
}

fn step_of(step: u8, low: u8, high: u8) -> Step {
    use crate::disk::Fault;
    let level = [Level::Buffered, Level::Os, Level::Disk][usize::from(high % 3)];
    let faults = [Fault::Fails, Fault::NoSpace, Fault::DropsData, Fault::Short];
    let thousandth = u16::from_le_bytes([low, high]) % 1_001;
    match step % 16 {
        0..=4 => Step::Append { records: 1 + low % 6, bytes: u16::from(high), level },
        5 | 6 => Step::Run(1 + low % 16),
        7 => Step::Drain,
        8 => Step::Flush,
        9 => Step::Rotate,
        10 => Step::DeleteBefore(thousandth),
        11 => Step::TruncateAfter(thousandth),
        12 => Step::Fault(faults[usize::from(high % 4)], low % 16),
        13 => Step::Read(low % 16),
        14 => Step::Fall { power: low & 1 == 0, nested: high % 4 },
        _ if low < 16 => Step::Close,
        _ => Step::Sleep(u16::from_le_bytes([low, high])),
    }
}

/// Packed bytes that were never packed; and a value that is packed and unpacked.
pub fn decompress(input: &[u8]) {
    let Some(([flags, low, high], bytes)) = input.split_first_chunk::<3>() else { return };
    let codecs = [Compression::None, Compression::Lz4, Compression::Zstd];
    let codec = codecs[usize::from(*flags) % 3];
    let raw_bytes = u64::from(u16::from_le_bytes([*low, *high]));
    let limit_bytes = if flags & 0x80 == 0 { 1 << 16 } else { 100 };
    let mut decompressor = Decompressor::new();
    let mut value = Vec::new();
    if decompressor.unpack(codec, bytes, raw_bytes, limit_bytes, &mut value).is_ok() {
        assert!(value.len() as u64 == raw_bytes && raw_bytes <= limit_bytes);
    }
    let (first, last) = bytes.split_at(bytes.len() / 3);
    let records = [first, bytes, last, bytes].map(|value| Record::put(b"", value));
    let mut compressor = Compressor::new();
    let entries = compressor.prepare_all(&records, codec, 1);
    for (record, entry) in records.iter().zip(entries) {
        let (codec, stored) = entry.value();
        assert!(stored.len() <= record.value.len(), "a value that does not shrink stays");
        let raw_bytes = record.value.len() as u64;
        value.clear();
        let unpacked = decompressor.unpack(codec, stored, raw_bytes, raw_bytes, &mut value);
        assert_eq!((unpacked, &value[..]), (Ok(()), record.value), "{codec:?}");
    }
}
