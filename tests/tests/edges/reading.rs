//! Readers: what is not there, what is damaged, and how much they ask for.

use super::{append, config, fill, filled, open, open_with, run, sealed};
use seawall_core::config::{Config, Level};
use seawall_core::cursor::{Cursor, Footer, Start, StartError, Step, Target, footer, holder};
use seawall_core::id::{Lsn, Position, SegmentId};
use seawall_core::log::{SegmentEnd, SegmentInfo};
use seawall_core::record::{Entry, Record};
use seawall_core::scan::Hole;
use seawall_core::wire::frame::HEAD_BYTES_MAX;
use seawall_core::wire::name::FileId;
use seawall_tests::disk::Disk;
use seawall_tests::opening::start;

#[test]
fn readers_are_told_what_is_not_there() {
    let mut disk = Disk::with_sectors(512);
    let mut log = filled(&mut disk, 60);
    log.delete_before(Lsn::new(40)).unwrap();
    run(&mut disk, &mut log);
    let segments: Vec<_> = log.segments().collect();
    let (first, last) = (log.first_lsn(), log.appended().lsn);
    let ask = |start| holder(&segments, start, first, last);
    assert_eq!(ask(Start::First), Ok(0));
    assert_eq!(ask(Start::Lsn(first)), Ok(0));
    assert_eq!(ask(Start::Lsn(last.next())), Ok(segments.len() - 1));
    let beyond = last.plus(2);
    assert_eq!(ask(Start::Lsn(beyond)), Err(StartError::BeyondEnd { lsn: beyond, last }));
    let gone = first.previous();
    assert_eq!(ask(Start::Lsn(gone)), Err(StartError::Deleted { lsn: gone, first }));
    let at = |segment| Start::Position(Position::new(segment, 128));
    let deleted = Err(StartError::Deleted { lsn: Lsn::ZERO, first });
    assert_eq!(ask(at(SegmentId::FIRST)), deleted);
    assert_eq!(ask(at(segments[0].segment)), Ok(0));
    let nowhere = Position::new(SegmentId::new(99), 128);
    assert_eq!(ask(Start::Position(nowhere)), Err(StartError::NoSuchPosition(nowhere)));
    assert_eq!(holder(&[], at(SegmentId::FIRST), first, last), {
        Err(StartError::NoSuchPosition(Position::new(SegmentId::FIRST, 128)))
    });
}

#[test]
fn only_a_footer_in_its_place_is_one() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 40);
    let (info, end) = sealed(&log);
    let file = disk.content(FileId::Segment(info.segment).name()).unwrap();
    let offset = usize::try_from(end.frames_end).unwrap();
    let crc = seawall_tests::crc();
    let look = |bytes: &[u8]| footer(&info, &end, bytes, crc);
    assert!(matches!(look(&file[offset..]), Footer::Whole(_)));
    let length = (file.len() - offset) as u64;
    assert_eq!(look(&file[offset..file.len() - 1]), Footer::Longer(length));
    for other in [&file[128..], &file[offset + 1..], &[]] {
        assert_eq!(look(other), Footer::Unusable);
    }
    // The head of a seal that says it is 100 MiB long.
    let mut long = vec![3, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x80, 0x80, 0x32];
    long.resize(100, 0);
    assert_eq!(look(&long), Footer::Unusable);
    for at in 0..file.len() - offset {
        let mut bytes = file[offset..].to_vec();
        bytes[at] ^= 0x10;
        assert!(!matches!(look(&bytes), Footer::Whole(_)), "byte {at}");
    }
}

/// What reading a sealed segment shows, 1 KiB at a time: the records, and the holes between them.
fn read(info: SegmentInfo, end: SegmentEnd, file: &[u8]) -> (Vec<u64>, Vec<Hole>) {
    let mut cursor = Cursor::new(info, seawall_tests::crc(), 1_024, 1 << 20);
    let (mut seen, mut holes) = (Vec::new(), Vec::new());
    for _ in 0..10_000 {
        match cursor.step(end.frames_end) {
            Step::Read { offset, bytes } => fill(&mut cursor, file, offset, bytes),
            Step::Record(record, _) => seen.push(record.lsn.get()),
            Step::Damaged { position, lsn } => {
                assert_eq!((position.segment, lsn.get()), (info.segment, cursor.next_lsn().get()));
                cursor.skip_damage(end.frames_end);
            }
            Step::Skipped(hole) => holes.push(hole),
            Step::End => return (seen, holes),
            step => panic!("{step:?}"),
        }
    }
    panic!("it does not end");
}

#[test]
fn a_reader_goes_on_behind_a_damaged_frame() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 40);
    let (info, end) = sealed(&log);
    let file = disk.content(FileId::Segment(info.segment).name()).unwrap().to_vec();
    let last = end.last_lsn.get();
    let all: Vec<u64> = (1..=last).collect();
    assert_eq!(read(info, end, &file), (all.clone(), Vec::new()));
    // Frames of one record each: where each begins, and where the frames end.
    let bytes = (end.frames_end - 128) / last;
    for lost in all.iter().copied() {
        let start = 128 + (lost - 1) * bytes;
        let mut damaged = file.clone();
        damaged[usize::try_from(start).unwrap() + 20] ^= 1;
        let (seen, holes) = read(info, end, &damaged);
        let left: Vec<u64> = all.iter().copied().filter(|lsn| *lsn != lost).collect();
        assert_eq!(seen, left);
        let resumes = (lost < last).then(|| Lsn::new(lost + 1));
        let end = start + bytes;
        let lsn = Lsn::new(lost);
        let hole = Hole { start, end, lsn, resumes, is_zero: false, stale_from: end };
        assert_eq!(holes, [hole]);
    }
    // A file that has lost its end.
    let cut = usize::try_from(end.frames_end - bytes / 2).unwrap();
    let (seen, holes) = read(info, end, &file[..cut]);
    assert_eq!(seen, all[..all.len() - 1]);
    assert_eq!((holes.len(), holes[0].resumes), (1, None));
}

#[test]
fn a_frame_over_the_readers_limit_is_named() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 40);
    let (info, end) = sealed(&log);
    let file = disk.content(FileId::Segment(info.segment).name()).unwrap().to_vec();
    let mut cursor = Cursor::new(info, seawall_tests::crc(), 1 << 20, 100);
    let Step::Read { offset: 128, .. } = cursor.step(end.frames_end) else { panic!("it reads") };
    cursor.fill(128, file[128..].to_vec(), true);
    match cursor.step(end.frames_end) {
        Step::TooLong { position, bytes, limit_bytes: 100 } => {
            assert_eq!((position.offset, bytes > 500), (128, true));
            // One of just the limit is read.
            let mut cursor = Cursor::new(info, seawall_tests::crc(), 1 << 20, bytes);
            assert_eq!(asked(&mut cursor, &file, end.frames_end).0, 128);
        }
        step => panic!("{step:?}"),
    }
}

/// What a cursor tells.
#[derive(PartialEq, Eq, Debug)]
enum Told {
    Record(u64),
    Damaged { offset: u64, lsn: u64 },
    Skipped(Hole),
    TooLong(u64),
    End,
}

/// Steps until something is told; in which pieces it read on the way.
fn told(cursor: &mut Cursor<Vec<u8>>, file: &[u8], limit: u64) -> (Told, Vec<u64>) {
    let mut reads = Vec::new();
    loop {
        let told = match cursor.step(limit) {
            Step::Read { offset, bytes } => {
                assert!(reads.len() < 1_000, "it does not end");
                reads.push(bytes);
                fill(cursor, file, offset, bytes);
                continue;
            }
            Step::Record(record, _) => Told::Record(record.lsn.get()),
            Step::Damaged { position, lsn } => {
                Told::Damaged { offset: position.offset, lsn: lsn.get() }
            }
            Step::Skipped(hole) => Told::Skipped(hole),
            Step::TooLong { bytes, .. } => Told::TooLong(bytes),
            Step::End => Told::End,
            step @ Step::BadRecord { .. } => panic!("{step:?}"),
        };
        return (told, reads);
    }
}

/// One flipped bit makes a short frame seem a long one: that is damage, whatever the limit.
#[test]
fn a_damaged_length_over_the_readers_limit_is_damage() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { segment_bytes_max: 8 << 20, record_bytes_max: 2 << 20, ..config() };
    let mut log = open_with(&mut disk, &config);
    for value_bytes in [300, 1 << 20, 800_000, 300] {
        append(&mut disk, &mut log, &vec![7; value_bytes]).unwrap();
    }
    let (info, limit) = (log.segments().next().unwrap(), log.durable().end.offset);
    let file = disk.content(FileId::Segment(info.segment).name()).unwrap().to_vec();
    let cursor = || Cursor::new(info, seawall_tests::crc(), 4 << 10, 1 << 20);
    // A good one is summed piece by piece, once.
    let mut whole = cursor();
    assert_eq!(told(&mut whole, &file, limit).0, Told::Record(1));
    let (long, reads) = told(&mut whole, &file, limit);
    assert_eq!(long, Told::TooLong((1 << 20) + 15));
    assert!(reads.len() > 250 && reads.iter().all(|read| *read <= 4 << 10), "{reads:?}");
    assert_eq!(told(&mut whole, &file, limit), (long, Vec::new()));
    // One that has been cut off is none.
    assert!(matches!(told(&mut whole, &file, 900_000).0, Told::Damaged { lsn: 2, .. }));
    // The length of the first record's value, with the key's first byte as a part of it.
    let mut damaged = file;
    assert_eq!(damaged[137..140], [0xac, 0x02, b'k']);
    damaged[138] ^= 0x80;
    for (file, is_whole) in [(&damaged[..], true), (&damaged[..900_000], false)] {
        let mut cursor = cursor();
        let (damage, reads) = told(&mut cursor, file, limit);
        assert_eq!(damage, Told::Damaged { offset: 128, lsn: 1 });
        assert!(reads.iter().all(|read| *read <= 4 << 10), "{reads:?}");
        cursor.skip_damage(limit);
        let Told::Skipped(hole) = told(&mut cursor, file, limit).0 else { panic!("a hole") };
        assert_eq!(hole.resumes, is_whole.then_some(Lsn::new(2)));
    }
}

#[test]
fn damage_to_the_last_byte_is_passed_over() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 40);
    let (info, end) = sealed(&log);
    let file = disk.content(FileId::Segment(info.segment).name()).unwrap();
    let mut cursor = Cursor::new(info, seawall_tests::crc(), 1 << 20, 1 << 20);
    cursor.seek(Target::Start, Some((end.frames_end, end.last_lsn)));
    // The next segment's link says that this one ends one byte further on.
    let limit = end.frames_end + 1;
    let lsn = end.last_lsn.get();
    let damage = Told::Damaged { offset: end.frames_end, lsn };
    assert_eq!(told(&mut cursor, file, limit).0, damage);
    cursor.skip_damage(limit);
    let Told::Skipped(hole) = told(&mut cursor, file, limit).0 else { panic!("a hole") };
    assert_eq!((hole.start, hole.end, hole.resumes), (end.frames_end, limit, None));
    assert_eq!(told(&mut cursor, file, limit).0, Told::End);
}

/// Also of a segment that is as long as one may be.
#[test]
fn a_footer_is_as_long_as_its_segment_allows() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 40);
    let (info, end) = sealed(&log);
    // The head of a seal of 130 million bytes.
    let head = [3, 0, 0, 0, 0, 1, 0, 0, 0, 0x80, 0xc9, 0xfe, 0x3d];
    let of = |frames_end| {
        let end = SegmentEnd { frames_end, ..end };
        footer(&info, &end, &head, seawall_tests::crc())
    };
    assert!(matches!(of(1 << 40), Footer::Longer(bytes) if bytes > 130_000_000));
    assert_eq!(of(1 << 30), Footer::Unusable);
}

#[test]
fn a_seek_without_an_index_goes_to_any_offset() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { segment_bytes_max: 1 << 20, record_bytes_max: 10_000, ..config() };
    let mut log = open_with(&mut disk, &config);
    for _ in 0..100 {
        append(&mut disk, &mut log, &[7; 5_000]).unwrap();
    }
    let info = log.segments().next().unwrap();
    let file = disk.content(FileId::Segment(info.segment).name()).unwrap();
    let limit = log.durable().end.offset;
    let mut cursor = Cursor::new(info, seawall_tests::crc(), 64 << 10, 1 << 20);
    for target in [300_000, 128, 129, 65_663, 65_664, 70_000, 400_000, 5_000] {
        cursor.seek(Target::Offset(target), None);
        let (found, _) = asked(&mut cursor, file, limit);
        assert!((target..target + 5_100).contains(&found), "{target}: {found}");
    }
}

/// Steps until a record is shown: where it stands, and what was asked for on the way.
fn asked(cursor: &mut Cursor<Vec<u8>>, file: &[u8], limit: u64) -> (u64, Vec<(u64, u64)>) {
    let mut asked = Vec::new();
    loop {
        match cursor.step(limit) {
            Step::Read { offset, bytes } => {
                asked.push((offset, bytes));
                fill(cursor, file, offset, bytes);
            }
            Step::Record(record, _) => return (record.position.offset, asked),
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn a_seek_asks_for_what_it_needs_and_reading_on_for_whole_chunks() {
    const CHUNK: u64 = 1 << 20;
    let mut disk = Disk::with_sectors(512);
    let config = Config { segment_bytes_max: 2 << 20, record_bytes_max: 10_000, ..config() };
    let mut log = open_with(&mut disk, &config);
    for _ in 0..300 {
        append(&mut disk, &mut log, &[7; 5_000]).unwrap();
    }
    let info = log.segments().next().unwrap();
    let file = disk.content(FileId::Segment(info.segment).name()).unwrap();
    let limit = log.durable().end.offset;
    let new = || Cursor::new(info, seawall_tests::crc(), CHUNK, 1 << 20);
    let mut cursor = new();
    assert_eq!(asked(&mut cursor, file, limit), (128, vec![(128, CHUNK)]));
    let frame_bytes = asked(&mut cursor, file, limit).0 - 128;
    let frame = |number: u64| 128 + number * frame_bytes;
    let near = Some((frame(20), Lsn::new(21)));
    // Where a frame begins, nothing before it is read: 4 KiB at first, then four times as
    // much.
    for number in [20, 21, 32] {
        let mut cursor = new();
        cursor.seek(Target::Offset(frame(number)), near);
        let (found, reads) = asked(&mut cursor, file, limit);
        assert_eq!((found, reads[0]), (frame(number), (found, 4 << 10)));
        assert_eq!(reads[1..], [(found, 16 << 10)]);
        // The next seek knows how long the frames are.
        cursor.seek(Target::Offset(frame(28)), near);
        let reads = asked(&mut cursor, file, limit);
        assert_eq!(reads, (frame(28), vec![(frame(28), frame_bytes + 64)]));
    }
    // Further from the frame that is known than two entries of an index are, and to an LSN, it goes
    // from frame to frame, 32 KiB at a time.
    for (target, number) in [
        (Target::Offset(frame(20) + (64 << 10)), 34),
        (Target::Offset(frame(34)), 34),
        (Target::Lsn(Lsn::new(35)), 34),
    ] {
        let mut cursor = new();
        cursor.seek(target, near);
        let (found, reads) = asked(&mut cursor, file, limit);
        assert_eq!(found, frame(number), "{target:?}");
        assert_eq!(reads[0], (frame(20), 32 << 10), "{target:?}");
        assert!(reads.iter().all(|(_, bytes)| *bytes == 32 << 10), "{target:?}: {reads:?}");
    }
    // Within a frame none begins: back to the one that is known.
    let mut cursor = new();
    cursor.seek(Target::Offset(frame(25) + 1), near);
    let (found, reads) = asked(&mut cursor, file, limit);
    assert_eq!(found, frame(26));
    assert_eq!(reads[..2], [(frame(25) + 1, 4 << 10), (frame(20), 32 << 10)]);
    // Once there, it asks for four times as much each time, up to a chunk, and no further than the
    // end.
    cursor.seek(Target::Lsn(Lsn::new(21)), near);
    let mut reads = Vec::new();
    for _ in 20..300 {
        reads.extend(asked(&mut cursor, file, limit).1);
    }
    let bytes: Vec<u64> = reads.iter().map(|(_, bytes)| *bytes).collect();
    let last = limit - reads[3].0;
    assert_eq!(bytes, [32 << 10, 128 << 10, 512 << 10, last], "{reads:?}");
    assert_eq!(cursor.take_chunk().map(|chunk| chunk.len() as u64), Some(last));
    assert!(cursor.take_chunk().is_none());
    // Another segment is read from its beginning.
    cursor.enter(info);
    assert_eq!(asked(&mut cursor, file, limit), (128, vec![(128, CHUNK)]));
}

#[test]
fn frames_longer_than_a_chunk_are_asked_for_once() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { segment_bytes_max: 2 << 20, record_bytes_max: 200_000, ..config() };
    let mut log = open_with(&mut disk, &config);
    let value = vec![7; 100_000];
    for _ in 0..5 {
        append(&mut disk, &mut log, &value).unwrap();
    }
    append(&mut disk, &mut log, b"short").unwrap();
    let info = log.segments().next().unwrap();
    let file = disk.content(FileId::Segment(info.segment).name()).unwrap();
    let limit = log.durable().end.offset;
    let mut cursor = Cursor::new(info, seawall_tests::crc(), 64 << 10, 1 << 20);
    let (start, first) = asked(&mut cursor, file, limit);
    assert_eq!((start, first.len()), (128, 2), "how long it is shows in what was read");
    let frame_bytes = first[1].1;
    for number in 1..5 {
        let (start, reads) = asked(&mut cursor, file, limit);
        let wanted = (frame_bytes + HEAD_BYTES_MAX as u64).min(limit - start);
        assert_eq!((start, reads), (128 + number * frame_bytes, vec![(start, wanted)]));
    }
    assert_eq!(asked(&mut cursor, file, limit).1, [], "it came with the last");
}

#[test]
fn a_batch_begins_where_its_position_says() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    assert_eq!(log.id(), start(&config(), 7, 7).new_log_id);
    append(&mut disk, &mut log, b"before").unwrap();
    let entries = [Entry::from(&Record::put(&[1; 200], &[2; 400])); 3];
    let appended = log.append_batch(&entries, Level::Disk).unwrap();
    run(&mut disk, &mut log);
    let info = log.segments().next().unwrap();
    let file = disk.content(FileId::Segment(info.segment).name()).unwrap();
    let limit = log.durable().end.offset;
    let mut cursor = Cursor::new(info, seawall_tests::crc(), 4_096, 1 << 20);
    cursor.seek(Target::Offset(appended.position.offset), None);
    assert_eq!(asked(&mut cursor, file, limit).0, appended.position.offset);
    assert_eq!((appended.first, appended.last), (Lsn::new(2), Lsn::new(4)));
    assert_eq!(cursor.next_lsn(), Lsn::new(5));
}
