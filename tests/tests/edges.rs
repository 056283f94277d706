//! The core at its edges: answers of a host that come late, short or not at all, questions about
//! what is not there, and requests at the wrong time.

use seawall_core::command::{Command, Folder, Lane, Listed, Operation};
use seawall_core::config::{Config, FsyncPolicy, Level, RecoveryPolicy, RecoveryScan};
use seawall_core::cursor::{Cursor, Footer, Start, StartError, Step, Target, footer, holder};
use seawall_core::error::{AppendError, RequestError};
use seawall_core::event::Event;
use seawall_core::id::{LogId, Lsn, Position, SegmentId, Time};
use seawall_core::log::{Log, SegmentEnd, SegmentInfo};
use seawall_core::record::{Entry, Record};
use seawall_core::recover::{
    Mode, Proof, RangeKind, Recovery, RecoveryError, RecoveryStart, Report,
};
use seawall_core::scan::Hole;
use seawall_core::wire::checksum::ChecksumKind;
use seawall_core::wire::frame::{FrameKind, HEAD_BYTES_MAX, Head, Parsed};
use seawall_core::wire::header::FRAMES_OFFSET;
use seawall_core::wire::known::{KNOWN_BYTES, Known};
use seawall_core::wire::manifest::{MANIFEST_BYTES, Manifest, ManifestState};
use seawall_core::wire::name::{FileId, FileName};
use seawall_tests::disk::{Disk, Fault, Memory, end_of};
use seawall_tests::opening::{Go, Opened, recover, slice, start};
use seawall_tests::records::record_bytes;
use std::collections::BTreeSet;
use std::time::Duration;

fn config() -> Config {
    let config = Config {
        segment_bytes_max: 8 << 10,
        batch_bytes: 4 << 10,
        record_bytes_max: 2 << 10,
        fsync_policy: FsyncPolicy::Always,
        crc: seawall_tests::crc(),
        ..Config::default()
    };
    config.checked().unwrap()
}

fn run(disk: &mut Disk, log: &mut Log<Memory>) {
    run_failing(disk, log, |_| None);
}

/// Runs all that is due, and has fail what `fault` says.
fn run_failing(
    disk: &mut Disk,
    log: &mut Log<Memory>,
    mut fault: impl FnMut(&Command<Memory>) -> Option<Fault>,
) {
    while let Some(command) = log.poll_command() {
        let fault = fault(&command);
        log.complete(disk.execute(command, fault));
    }
}

fn open(disk: &mut Disk) -> Log<Memory> {
    open_with(disk, &config())
}

fn open_with(disk: &mut Disk, config: &Config) -> Log<Memory> {
    let mut log = recovered(disk, config).0;
    run(disk, &mut log);
    log
}

fn recovered(disk: &mut Disk, config: &Config) -> Opened {
    tried(disk, config).unwrap()
}

fn tried(disk: &mut Disk, config: &Config) -> Result<Opened, RecoveryError> {
    recover(disk, start(config, 7, 7), |_, _| Go::On(None)).unwrap()
}

fn append(disk: &mut Disk, log: &mut Log<Memory>, value: &[u8]) -> Result<Lsn, AppendError> {
    let record = Record::put(b"key", value);
    let result = loop {
        match log.append(&Entry::from(&record), Level::Disk) {
            Err(AppendError::Busy) => run(disk, log),
            result => break result,
        }
    };
    run(disk, log);
    result.map(|appended| appended.last)
}

/// A log of several segments, with `last` as its last record.
fn filled(disk: &mut Disk, last: u64) -> Log<Memory> {
    let mut log = open(disk);
    while append(disk, &mut log, &[7; 500]).unwrap() < Lsn::new(last) {}
    log
}

/// Its first segment that has ended.
fn sealed(log: &Log<Memory>) -> (SegmentInfo, SegmentEnd) {
    let info = log.segments().next().unwrap();
    (info, info.end.unwrap())
}

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

/// What a host gives a cursor that asks for bytes of a file.
fn fill(cursor: &mut Cursor<Vec<u8>>, file: &[u8], offset: u64, bytes: u64) {
    let start = usize::try_from(offset).unwrap();
    let end = file.len().min(start + usize::try_from(bytes).unwrap());
    let is_short = ((end - start) as u64) < bytes;
    cursor.fill(offset, file[start..end].to_vec(), is_short);
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

#[test]
fn events_that_nobody_takes_are_dropped_and_counted() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    for _ in 0..300 {
        append(&mut disk, &mut log, b"x").unwrap();
    }
    // One sync for each append, and a rotation for each full segment but the last.
    let told = 300 + log.segments().count() as u64 - 1;
    assert_eq!(log.events_dropped(), told - 256);
    let kept = std::iter::from_fn(|| log.poll_event()).count();
    assert_eq!(kept, 256);
}

#[test]
fn a_segment_ends_at_its_age_and_not_before() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { segment_age_max: Some(Duration::from_micros(100)), ..config() };
    let mut log = open_with(&mut disk, &config);
    append(&mut disk, &mut log, b"x").unwrap();
    let opened = log.segments().next().unwrap().opened;
    let deadline = opened.plus(Duration::from_micros(100));
    assert_eq!(log.next_deadline(), Some(deadline));
    assert!(!log.tick(opened.plus(Duration::from_micros(99))));
    run(&mut disk, &mut log);
    assert_eq!(log.segments().count(), 1);
    assert!(log.tick(deadline), "it says so");
    run(&mut disk, &mut log);
    let segments: Vec<_> = log.segments().collect();
    assert_eq!((segments.len(), segments[0].end.is_some()), (2, true));
    assert_eq!(log.next_deadline(), None, "an empty segment has no age");
    // Nothing falls due while the last segment is still on its way to the disk,
    append(&mut disk, &mut log, b"x").unwrap();
    log.tick(log.next_deadline().unwrap());
    assert_eq!(log.segments().count(), 3);
    let put = |log: &mut Log<Memory>| {
        log.append(&Entry::from(&Record::put(b"key", b"x")), Level::Disk).unwrap();
    };
    put(&mut log);
    assert_eq!(log.next_deadline(), None);
    // nor while there is none to move into,
    run_failing(&mut disk, &mut log, |command| is_header(command).then_some(Fault::NoSpace));
    assert_eq!(log.next_deadline(), None);
    assert!(matches!(log.rotate(), Err(AppendError::DiskFull(_))));
    assert_eq!(log.rotate(), Err(AppendError::Busy));
    run(&mut disk, &mut log);
    assert!(log.next_deadline().is_some());
    // nor in a log that takes nothing more.
    put(&mut log);
    run_failing(&mut disk, &mut log, |_| Some(Fault::Fails));
    assert!(log.poison().is_some() && log.next_deadline().is_none());
}

#[test]
fn a_window_ends_when_it_says() {
    let mut disk = Disk::with_sectors(512);
    let window = Duration::from_micros(100);
    let config = Config { fsync_policy: FsyncPolicy::Batch(window), ..config() };
    let mut log = open_with(&mut disk, &config);
    let start = Time::from_micros(1_000);
    log.tick(start);
    log.append(&Entry::from(&Record::put(b"k", b"v")), Level::Os).unwrap();
    run(&mut disk, &mut log);
    assert_eq!((log.written().lsn, log.durable().lsn), (Lsn::new(1), Lsn::ZERO));
    assert_eq!(log.next_deadline(), Some(start.plus(window)));
    assert!(!log.tick(start.plus(Duration::from_micros(99))));
    run(&mut disk, &mut log);
    assert_eq!(log.durable().lsn, Lsn::ZERO);
    assert!(log.tick(start.plus(window)), "it says so");
    run(&mut disk, &mut log);
    assert_eq!((log.durable().lsn, log.next_deadline()), (Lsn::new(1), None));
    // The next window of what came during a sync begins with that sync.
    let put = |log: &mut Log<Memory>| {
        log.append(&Entry::from(&Record::put(b"k", b"v")), Level::Os).unwrap();
    };
    put(&mut log);
    run(&mut disk, &mut log);
    let mut under_way = None;
    let second = start.plus(window * 2);
    log.tick(second);
    while let Some(command) = log.poll_command() {
        match command {
            Command::Sync(sync) => under_way = Some(sync),
            command => {
                log.complete(disk.execute(command, None));
            }
        }
    }
    log.tick(second.plus(window / 4));
    put(&mut log);
    log.complete(disk.execute(Command::Sync(under_way.unwrap()), None));
    assert_eq!(log.next_deadline(), Some(second.plus(window)));
    log.tick(second.plus(window));
    run(&mut disk, &mut log);
    assert_eq!((log.durable().lsn, log.next_deadline()), (Lsn::new(3), None));
    // Asked for already, it falls due no more.
    log.append(&Entry::from(&Record::put(b"k", b"v")), Level::Buffered).unwrap();
    assert!(log.next_deadline().is_some());
    log.flush(Level::Disk).unwrap();
    assert_eq!(log.next_deadline(), None);
    assert!(!log.tick(second.plus(window * 3)));
}

/// A clock that is set, by hand or by the network, is no reason to wait until it is back where it
/// was.
#[test]
fn who_waits_for_a_time_does_not_wait_longer_where_the_clock_is_set_back() {
    let mut disk = Disk::with_sectors(512);
    let (window, age) = (Duration::from_micros(100), Duration::from_micros(500));
    let config =
        Config { fsync_policy: FsyncPolicy::Batch(window), segment_age_max: Some(age), ..config() };
    let put = |log: &mut Log<Memory>| {
        log.append(&Entry::from(&Record::put(b"k", b"v")), Level::Os).unwrap();
    };
    let mut log = open_with(&mut disk, &config);
    log.tick(Time::from_micros(9_000_000));
    put(&mut log);
    run(&mut disk, &mut log);
    let back = Time::from_micros(5_000);
    assert!(!log.tick(back));
    assert_eq!(log.next_deadline(), Some(back.plus(window)));
    assert!(log.tick(back.plus(window)), "the window");
    run(&mut disk, &mut log);
    assert_eq!(log.durable().lsn, Lsn::new(1));
    assert_eq!(log.next_deadline(), Some(back.plus(age)));
    // The same while a sync is on its way, which began later than it is now.
    put(&mut log);
    run(&mut disk, &mut log);
    log.tick(log.next_deadline().unwrap());
    let mut under_way = None;
    while let Some(command) = log.poll_command() {
        match command {
            Command::Sync(sync) => under_way = Some(sync),
            command => {
                log.complete(disk.execute(command, None));
            }
        }
    }
    put(&mut log);
    let back = Time::from_micros(1_000);
    log.tick(back);
    log.complete(disk.execute(Command::Sync(under_way.unwrap()), None));
    assert_eq!(log.next_deadline(), Some(back.plus(window)));
    log.tick(back.plus(window));
    run(&mut disk, &mut log);
    assert!(log.tick(back.plus(age)), "the age");
    run(&mut disk, &mut log);
    assert_eq!(log.segments().count(), 2);
    // Set back while nobody had the log open.
    put(&mut log);
    log.flush(Level::Disk).unwrap();
    run(&mut disk, &mut log);
    let opened = log.segments().last().unwrap().opened;
    drop(log);
    let log = open_with(&mut disk, &config);
    let deadline = log.next_deadline().unwrap();
    assert!(deadline < opened.plus(age), "{deadline:?}, opened at {opened:?}");
}

#[test]
fn records_have_the_time_of_day_where_another_clock_is_told() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    let ttl = Duration::from_secs(1);
    for (now, time_of_day, later) in
        [(1_000_000, 90_000_000, 91_500_000), (3_000_000, 5_000, 6_000), (4_000_000, 2_000, 2_000)]
    {
        log.tick(Time::from_micros(now));
        log.tell_time_of_day(Time::from_micros(time_of_day));
        // It goes on as the other clock does.
        log.tick(Time::from_micros(now + later - time_of_day));
        let entry = Entry::from(&Record::put_with_ttl(b"k", b"v", ttl));
        log.append_batch(&[entry, entry], Level::Disk).unwrap();
        run(&mut disk, &mut log);
        let (info, limit) = (log.segments().last().unwrap(), log.durable().end.offset);
        let mut cursor = Cursor::new(info, seawall_tests::crc(), 64 << 10, 1 << 20);
        let (file, _) = slice(&disk, info.segment, 0, limit).unwrap();
        let mut last = None;
        loop {
            match cursor.step(limit) {
                Step::Record(record, _) => last = record.written_at,
                Step::Read { offset, bytes } => fill(&mut cursor, file, offset, bytes),
                Step::End => break,
                step => panic!("{step:?}"),
            }
        }
        assert_eq!(last.map(Time::as_millis), Some(later / 1_000));
    }
}

/// The writes of a log that appends these values, each to `level`: how long each is, and whether it
/// is synced with the write.
fn writes_of(config: Config, level: Level, values: &[&[u8]]) -> Vec<(u64, bool)> {
    let mut disk = Disk::with_sectors(512);
    let mut log = open_with(&mut disk, &config.checked().unwrap());
    let mut writes = Vec::new();
    for value in values {
        log.append(&Entry::from(&Record::put(b"key", value)), level).unwrap();
        while let Some(command) = log.poll_lane(Lane::Commit) {
            match &command {
                Command::Write(write) => {
                    writes.push((write.data.as_ref().len() as u64, write.sync));
                }
                command => panic!("{command:?}"),
            }
            log.complete(disk.execute(command, None));
        }
        run(&mut disk, &mut log);
    }
    writes
}

#[test]
fn an_append_is_one_write_and_a_small_one_takes_zeros_along() {
    let large = Config { segment_bytes_max: 1 << 20, record_bytes_max: 200_000, ..config() };
    for level in [Level::Os, Level::Disk] {
        let lengths = |config, values: &[&[u8]]| {
            let writes = writes_of(config, level, values);
            assert_eq!(writes.len(), values.len(), "{level:?}");
            assert!(writes.iter().all(|(_, sync)| *sync == (level == Level::Disk)), "{level:?}");
            writes.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>()
        };
        // The link goes with the first.
        let (first, next) = (56 + 13 + 100, 13 + 100);
        let bare = lengths(Config { preallocate: false, ..large.clone() }, &[&[7; 100][..]; 3]);
        assert_eq!(bare, [first, next, next]);
        // Up to a multiple of 64 KiB; what follows fits in there.
        let padded = lengths(large.clone(), &[&[7; 100][..]; 3]);
        assert_eq!(padded, [(64 << 10) - 72, next, next]);
        // A larger one takes room for sixteen of its length along, up to 256 KiB.
        let larger = lengths(large.clone(), &[&[7; 8_000][..]; 2]);
        assert_eq!(larger, [(192 << 10) - 72, 14 + 8_000]);
        let value = vec![7; 170_000];
        let larger = lengths(large.clone(), &[&value[..100_000]; 2]);
        assert_eq!(larger, [(384 << 10) - 72, 15 + 100_000]);
        let long = lengths(large.clone(), &[&value[..]; 2]);
        assert!(long.iter().all(|bytes| (170_000..170_200).contains(bytes)), "{long:?}");
    }
}

#[test]
fn whatever_changes_of_the_segments_is_told() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    let look = |log: &Log<Memory>| log.segments().collect::<Vec<_>>();
    let mut seen = (log.segments_version(), look(&log));
    let mut changes = 0;
    for round in 0..60 {
        let record = Record::put(b"key", &[7; 500]);
        let appended = log.append(&Entry::from(&record), Level::Disk);
        assert!(matches!(appended, Ok(_) | Err(AppendError::Busy)));
        if round == 30 {
            log.delete_before(Lsn::new(15)).unwrap();
        }
        loop {
            let now = (log.segments_version(), look(&log));
            assert!(now.0 != seen.0 || now.1 == seen.1, "{now:?}, before {seen:?}");
            changes += u32::from(now != seen);
            seen = now;
            let Some(command) = log.poll_command() else { break };
            log.complete(disk.execute(command, None));
        }
    }
    assert!(changes > 5, "{changes}");
}

#[test]
fn a_log_opened_again_has_counted_its_segments_and_finds_its_frames() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { segment_bytes_max: 1 << 20, record_bytes_max: 10_000, ..config() };
    let mut log = open_with(&mut disk, &config);
    for _ in 0..100 {
        append(&mut disk, &mut log, &[7; 5_000]).unwrap();
    }
    log.rotate().unwrap();
    for _ in 0..100 {
        append(&mut disk, &mut log, &[7; 5_000]).unwrap();
    }
    let last = log.appended();
    drop(log);
    let mut pieces = 0;
    let (log, report) = recover(&mut disk, start(&config, 7, 7), |disk, command| {
        if let Command::Read(read) = command
            && read.name.is_segment()
            && read.offset >= 128
        {
            // Pieces of 4 KiB, with the head of a frame before them that the last one had cut.
            let (bytes, file) = (read.buffer.len() as u64, disk.content(read.name).unwrap());
            let end = read.offset + bytes;
            assert!(end.is_multiple_of(4 << 10) || end == file.len() as u64, "{read:?}");
            assert!(bytes <= (4 << 10) + HEAD_BYTES_MAX as u64, "{read:?}");
            pieces += 1;
        }
        Go::On(None)
    })
    .unwrap()
    .unwrap();
    assert!(pieces > 100 && report.bytes_read > 500_000, "{pieces}, {}", report.bytes_read);
    assert_eq!((report.segments, report.records), (2, 200));
    let active = last.end.segment;
    let near = log.frame_before_lsn(active, last.lsn).unwrap();
    assert!(near.0 + (66 << 10) + 5_100 > last.end.offset, "{near:?} of {last:?}");
    assert_eq!(log.frame_before_offset(active, last.end.offset), Some(near));
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
fn requests_at_the_wrong_time_are_refused() {
    let mut disk = Disk::with_sectors(512);
    let mut log = filled(&mut disk, 60);
    log.delete_before(Lsn::new(40)).unwrap();
    assert_eq!(log.truncate_after(Lsn::new(50)), Err(RequestError::Busy));
    run(&mut disk, &mut log);
    assert_eq!(log.close(), Err(RequestError::Busy), "nobody has taken the result");
    assert_eq!(log.take_request_result(), Some(Ok(())));
    let first = log.first_lsn();
    let lsn = Lsn::new(3);
    assert_eq!(log.truncate_after(lsn), Err(RequestError::Deleted { lsn, first }));
    let (lsn, last) = (Lsn::new(1_000), log.appended().lsn);
    assert_eq!(log.truncate_after(lsn), Err(RequestError::BeyondEnd { lsn, last }));
    log.truncate_after(last).unwrap();
    assert_eq!(log.take_request_result(), Some(Ok(())), "there is nothing to do");
    log.close().unwrap();
    run(&mut disk, &mut log);
    assert_eq!(log.take_request_result(), Some(Ok(())));
    assert_eq!(append(&mut disk, &mut log, b"x"), Err(AppendError::Closed));
    assert_eq!(log.rotate(), Err(AppendError::Closed));
    assert_eq!(log.close(), Err(RequestError::Closed));
    assert!(log.poll_command().is_none() && log.next_deadline().is_none());
}

#[test]
fn a_commit_is_due_when_there_is_one() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { fsync_policy: FsyncPolicy::Os, ..config() };
    let mut log = open_with(&mut disk, &config);
    let (mut commits, mut plain_writes) = (0, 0);
    let mut waiting = Vec::new();
    for round in 0..200 {
        let level = [Level::Buffered, Level::Os, Level::Disk][round % 3];
        let appended = log.append(&Entry::from(&Record::put(b"key", &[7; 300])), level);
        assert!(matches!(appended, Ok(_) | Err(AppendError::Busy)), "{appended:?}");
        let (is_due, plain) = (log.is_commit_due(), log.plain_write_due());
        let command = log.poll_lane(Lane::Commit);
        assert_eq!(command.is_some(), is_due, "round {round}");
        let written = match &command {
            Some(Command::Write(write)) if !write.sync => Some(write.data.as_ref()),
            _ => None,
        };
        assert_eq!(plain.is_some(), written.is_some(), "round {round}");
        if let (Some(bytes), Some(data)) = (plain, written) {
            let (records, zeros) = data.split_at(usize::try_from(bytes).unwrap());
            assert!(!records.is_empty() && zeros.iter().all(|byte| *byte == 0), "round {round}");
            plain_writes += 1;
        }
        commits += u32::from(is_due);
        waiting.extend(command);
        // Up to two are under way, and each tenth finds no room.
        if waiting.len() > round % 3 {
            let command = waiting.swap_remove(0);
            let is_full = round % 10 == 9 && command.operation() == Operation::Write;
            log.complete(disk.execute(command, is_full.then_some(Fault::NoSpace)));
        }
        while let Some(command) = log.poll_lane(Lane::Background) {
            log.complete(disk.execute(command, None));
        }
    }
    assert!(commits > 50 && plain_writes > 10, "{plain_writes} of {commits}");
}

#[test]
fn a_record_may_be_as_long_as_the_limit() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    assert_eq!((log.is_closed(), log.poison()), (false, None));
    let value = vec![7; (2 << 10) - 3 + 1];
    let (longest, longer) = (&value[1..], &value[..]);
    assert_eq!(append(&mut disk, &mut log, longest), Ok(Lsn::new(1)));
    let limit_bytes = 2 << 10;
    let refused = AppendError::TooLarge { bytes: limit_bytes + 1, limit_bytes };
    assert_eq!(append(&mut disk, &mut log, longer), Err(refused));
    log.close().unwrap();
    run(&mut disk, &mut log);
    assert!(log.is_closed());
    assert_eq!(append(&mut disk, &mut log, b"x"), Err(AppendError::Closed));
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

#[test]
fn a_recovery_wants_two_buffers_and_its_own_completions() {
    let starved = |count| {
        let mut start = start(&config(), 7, 7);
        start.buffers.truncate(count);
        Recovery::new(start, Mode::Open)
    };
    let mut none = starved(1);
    assert!(none.is_done() && none.poll_command().is_none());
    assert!(matches!(none.finish(), Err(RecoveryError::NoBuffers)));
    let mut disk = Disk::with_sectors(512);
    let (mut one, mut other, mut third) = (starved(2), starved(2), starved(2));
    one.complete(disk.execute(third.poll_command().unwrap(), None));
    assert!(!one.is_done(), "nothing was awaited");
    // The other is further on by one command.
    let done = disk.execute(other.poll_command().unwrap(), None);
    other.complete(done);
    let done = disk.execute(other.poll_command().unwrap(), None);
    let listing = one.poll_command().unwrap();
    assert!(one.poll_command().is_none(), "one at a time");
    one.complete(done);
    assert!(one.poll_command().is_none(), "that was not the one awaited");
    one.complete(disk.execute(listing, None));
    assert!(one.poll_command().is_some());
    assert!(matches!(one.finish(), Err(RecoveryError::NoBuffers)), "it had not ended");
}

#[test]
fn an_inspection_that_cannot_read_says_why() {
    let mut disk = Disk::with_sectors(512);
    filled(&mut disk, 40);
    let mut inspection = Recovery::new(start(&config(), 7, 7), Mode::Inspect);
    while let Some(command) = inspection.poll_command() {
        let fails = command.operation() == Operation::Read;
        inspection.complete(disk.execute(command, fails.then_some(Fault::Fails)));
    }
    match inspection.finish_inspection() {
        Err(RecoveryError::Io(failure)) => assert_eq!(failure.operation, Operation::Read),
        result => panic!("{result:?}"),
    }
}

#[test]
fn no_space_is_reserved_where_it_is_not_wanted_or_there_already() {
    // What is reserved while the log moves on by three segments: of which, and from where on.
    let reserved = |disk: &mut Disk, log: &mut Log<Memory>| {
        let mut asked = Vec::new();
        let last = log.segments().last().unwrap().segment.get() + 3;
        while log.segments().last().unwrap().segment.get() < last {
            // Or there is no segment yet to put it in.
            log.append(&Entry::from(&Record::put(b"key", &[7; 500])), Level::Disk).ok();
            run_failing(disk, log, |command| {
                if let Command::Allocate(allocate) = command {
                    asked.push((allocate.name.file, allocate.from));
                }
                None
            });
        }
        asked
    };
    let mut disk = Disk::with_sectors(512);
    let plain = Config { preallocate: false, ..config() };
    let mut log = open_with(&mut disk, &plain);
    append(&mut disk, &mut log, b"x").unwrap();
    assert_eq!(reserved(&mut disk, &mut log), []);
    let mut disk = Disk::with_sectors(512);
    let recycling = Config { recycle_max: 1, preallocate: true, reserve_bytes: 1_024, ..config() };
    let mut log = deleted(&mut disk, &recycling, 3);
    let asked = reserved(&mut disk, &mut log);
    let of = |segment| {
        let file = FileId::Segment(SegmentId::new(segment));
        asked.iter().filter(move |(asked, _)| *asked == file).map(|(_, from)| *from)
    };
    // The fourth is new; the fifth is the first's file, of which all but a little is there.
    assert!(of(4).any(|from| from < 2_000), "{asked:?}");
    assert!(of(5).all(|from| from > 7_000), "{asked:?}");
}

#[test]
fn a_folder_in_place_of_a_file_is_named() {
    let mut recovery = Recovery::new(start(&config(), 7, 7), Mode::Open);
    let Some(Command::List(list)) = recovery.poll_command() else { panic!("it lists first") };
    let name = FileId::Segment(SegmentId::FIRST).name();
    let listed = |folder, name: String| Listed::new(folder, name, None);
    recovery.complete(list.done(Ok(vec![
        listed(Folder::Quarantine, name.to_string()),
        listed(Folder::Log, name.to_string()),
    ])));
    match recovery.finish() {
        Err(RecoveryError::NotAFile(named)) => assert_eq!(named, name),
        result => panic!("{result:?}"),
    }
}

/// What an inspection reads of segments, where a list tells what `tell` makes of what is known.
fn reads_where_told(
    disk: &mut Disk,
    config: &Config,
    tell: impl Fn(Box<Known>) -> Option<Box<Known>>,
) -> (Vec<(SegmentId, u64)>, Report) {
    let mut recovery = Recovery::new(start(config, 7, 7), Mode::Inspect);
    let mut reads = Vec::new();
    disk.knows = Some(config.crc);
    while let Some(command) = recovery.poll_command() {
        if let (Command::Read(read), Some(FileId::Segment(segment))) = (&command, command.file()) {
            reads.push((segment, read.offset));
        }
        let done = match command {
            Command::List(list) => {
                let told =
                    |listed: Listed| Listed { known: listed.known.and_then(&tell), ..listed };
                list.done(Ok(disk.list().into_iter().map(told).collect()))
            }
            command => disk.execute(command, None),
        };
        recovery.complete(done);
    }
    (reads, recovery.finish_inspection().unwrap().1)
}

#[test]
fn what_is_known_of_a_sealed_segment_is_not_read_again() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 60);
    let segments: Vec<_> = log.segments().collect();
    let [.., last, active] = segments[..] else { panic!("{segments:?}") };
    let ends: Vec<_> = segments.iter().filter_map(|info| Some(info.end?.frames_end)).collect();
    drop(log);
    let report = |report: Report| Report { bytes_read: 0, ..report };
    let sealed = |reads: &[(SegmentId, u64)]| {
        reads.iter().filter(|(segment, _)| *segment < active.segment).copied().collect::<Vec<_>>()
    };

    let (all, untold) = reads_where_told(&mut disk, &config(), |_| None);
    let untold = report(untold);
    assert!(segments.iter().all(|info| all.contains(&(info.segment, 0))), "{all:?}");
    let (reads, told) = reads_where_told(&mut disk, &config(), Some);
    assert_eq!(sealed(&reads), []);
    assert_eq!(report(told), untold);

    // Of one nothing is known: it is read, and no other.
    let without_last =
        |known: Box<Known>| Some(known).filter(|known| known.segment() != last.segment);
    let (reads, told) = reads_where_told(&mut disk, &config(), without_last);
    let end = ends[ends.len() - 1];
    assert_eq!(sealed(&reads), [(last.segment, 0), (last.segment, end)]);
    assert_eq!(report(told), untold);

    // What is known is of another end than the next segment's link says: the footer is looked at.
    let other_end = |known: Box<Known>| {
        let mut bytes = known.encode(seawall_tests::crc());
        bytes[KNOWN_BYTES - 8] ^= 1;
        Known::parse(&bytes, seawall_tests::crc()).map(Box::new)
    };
    let (reads, told) = reads_where_told(&mut disk, &config(), other_end);
    let footers: Vec<_> = segments.iter().map(|info| info.segment).zip(ends).collect();
    assert_eq!(sealed(&reads), footers);
    assert_eq!(report(told), untold);

    // Of another segment than the file's name says.
    let first = segments[0].segment;
    let known = disk.list().into_iter().find_map(|listed| listed.known).unwrap();
    assert_eq!(known.segment(), first);
    let (reads, told) = reads_where_told(&mut disk, &config(), |_| Some(known.clone()));
    assert!(segments[1..].iter().all(|info| reads.contains(&(info.segment, 0))), "{reads:?}");
    assert_eq!(report(told), untold);

    // Who wants all of it read is told nothing.
    let full = Config { scan: RecoveryScan::Full, ..config() };
    let (reads, _) = reads_where_told(&mut disk, &full, Some);
    let begins = |info: &SegmentInfo| [0, FRAMES_OFFSET].map(|offset| (info.segment, offset));
    assert!(segments.iter().flat_map(begins).all(|read| reads.contains(&read)), "{reads:?}");
}

#[test]
fn a_salvaged_log_goes_on_behind_its_last_record() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 40);
    let (info, _) = sealed(&log);
    drop(log);
    disk.damage(FileId::Segment(info.segment).name(), |bytes| bytes[700] ^= 1);
    let config = Config { recovery: RecoveryPolicy::Salvage, scan: RecoveryScan::Full, ..config() };
    for last in [40, 41, 42] {
        let mut log = open_with(&mut disk, &config);
        assert_eq!((log.first_lsn(), log.appended().lsn), (Lsn::new(1), Lsn::new(last)));
        assert_eq!(append(&mut disk, &mut log, b"on it goes"), Ok(Lsn::new(last + 1)));
    }
}

#[test]
fn a_log_whose_manifest_is_gone_begins_where_it_did() {
    let mut disk = Disk::with_sectors(512);
    let mut log = filled(&mut disk, 60);
    log.delete_before(Lsn::new(40)).unwrap();
    run(&mut disk, &mut log);
    let (first, segments) = (log.first_lsn(), log.segments().count());
    assert!(first > Lsn::new(1));
    drop(log);
    disk.lose(FileId::Manifest.name());
    for last in [60, 61] {
        let mut log = open(&mut disk);
        assert_eq!((log.first_lsn(), log.appended().lsn), (first, Lsn::new(last)));
        assert_eq!(log.segments().count(), segments);
        append(&mut disk, &mut log, b"x").unwrap();
    }
}

/// Who has little in a log touches little memory to open it; who has much reads long pieces.
#[test]
fn a_segment_is_read_in_short_pieces_first() {
    let mut disk = Disk::with_sectors(4_096);
    let config = Config { segment_bytes_max: 64 << 20, record_bytes_max: 1 << 20, ..config() };
    let config = Config { batch_bytes: 256 << 10, preallocate: false, ..config };
    let mut log = open_with(&mut disk, &config);
    for _ in 0..80 {
        append(&mut disk, &mut log, &vec![7; 60 << 10]).unwrap();
    }
    let end = log.appended().end.offset;
    drop(log);
    let mut reads = Vec::new();
    let looks = |_: &mut Disk, command: &Command<Memory>| {
        if let Command::Read(read) = command
            && read.offset >= FRAMES_OFFSET
        {
            reads.push((read.offset, read.offset + read.buffer.len() as u64));
        }
        Go::On(None)
    };
    let (log, _) = recover(&mut disk, start(&config, 7, 7), looks).unwrap().unwrap();
    assert_eq!(log.appended().lsn, Lsn::new(80));
    let early = 4 << 20;
    assert!(end > early + (512 << 10));
    for (from, to) in reads {
        let longest = if from < early { 64 << 10 } else { 256 << 10 };
        assert!(to - from <= longest + 64 && (to % longest == 0 || to == end), "{from}..{to}");
    }
}

#[test]
fn a_footer_longer_than_the_first_look_is_read_whole() {
    let mut disk = Disk::with_sectors(4_096);
    let config = Config { segment_bytes_max: 128 << 20, batch_bytes: 1 << 20, ..config() };
    let config = Config { record_bytes_max: 1 << 20, preallocate: false, ..config };
    let mut log = open_with(&mut disk, &config);
    // An index entry for each record, of five bytes.
    let value = vec![7; 64 << 10];
    for _ in 0..1_100 {
        append(&mut disk, &mut log, &value).unwrap();
    }
    log.rotate().unwrap();
    append(&mut disk, &mut log, b"x").unwrap();
    let (info, end) = sealed(&log);
    drop(log);
    let name = FileId::Segment(info.segment).name();
    let footer_bytes = disk.content(name).unwrap().len() as u64 - end.frames_end;
    assert!(footer_bytes > 4_096, "{footer_bytes}");
    let reopened = |disk: &mut Disk| {
        let (log, report) = recovered(disk, &config);
        (log.appended().lsn, report.segments_scanned, report.is_damaged())
    };
    // One that becomes shorter between two looks at its footer is scanned.
    let mut looks = 0;
    let shrinks = |disk: &mut Disk, command: &Command<Memory>| {
        if let Command::Read(read) = command
            && (read.name, read.offset) == (name, end.frames_end)
        {
            looks += 1;
            assert!(looks <= 2, "it is not looked at again and again");
            disk.damage(name, |bytes| bytes.truncate(bytes.len() - 1));
        }
        Go::On(None)
    };
    let shrunk = recover(&mut disk.clone(), start(&config, 7, 7), shrinks);
    assert_eq!(shrunk.unwrap().unwrap().1.segments_scanned, 3);
    // The active segment and the empty one behind it are scanned, this one is not.
    assert_eq!(reopened(&mut disk.clone()), (Lsn::new(1_101), 2, false));
    // One that is read whole is still found by its index afterwards.
    let full = Config { scan: RecoveryScan::Full, ..config.clone() };
    let log = recovered(&mut disk.clone(), &full).0;
    assert_eq!(sealed(&log), (info, end));
    // With another checksum, or without its last byte, the segment is scanned, and holds what it
    // did; no more is asked for than the file has.
    let checksum = usize::try_from(end.frames_end).unwrap() + 1;
    let mut damaged = disk.clone();
    damaged.damage(name, |bytes| bytes[checksum] ^= 1);
    assert_eq!(reopened(&mut damaged), (Lsn::new(1_101), 3, false));
    disk.damage(name, |bytes| bytes.truncate(bytes.len() - 1));
    let file_bytes = disk.content(name).unwrap().len() as u64;
    let looks = |_: &mut Disk, command: &Command<Memory>| {
        if let Command::Read(read) = command
            && (read.name, read.offset) == (name, end.frames_end)
        {
            assert!(read.offset + read.buffer.len() as u64 <= file_bytes);
        }
        Go::On(None)
    };
    recover(&mut disk.clone(), start(&config, 7, 7), looks).unwrap().unwrap();
    assert_eq!(reopened(&mut disk), (Lsn::new(1_101), 3, false));
}

#[test]
fn the_newest_segment_is_the_last_of_them() {
    let mut disk = Disk::with_sectors(512);
    assert_eq!(open(&mut disk).newest_segment(), SegmentId::NONE);
    let mut log = filled(&mut disk, 40);
    let newest = |log: &Log<Memory>| log.segments().last().map(|info| info.segment);
    assert!(log.newest_segment() > SegmentId::FIRST);
    assert_eq!(Some(log.newest_segment()), newest(&log));
    // All of them are sealed when the log is opened after this.
    log.rotate().unwrap();
    run(&mut disk, &mut log);
    let log = open(&mut disk);
    assert_eq!(Some(log.newest_segment()), newest(&log));
}

#[test]
fn a_segment_begins_with_little_space_and_each_step_doubles_it() {
    let mib = |count: u64| count << 20;
    for (reserve_bytes, expected) in [
        (mib(4), [1, 2, 4, 8, 12, 14].map(mib).to_vec()),
        (mib(14), vec![mib(14)]),
        (u64::MAX, vec![mib(14)]),
        (700 << 10, (1..=20).map(|count| (700 << 10) * count).chain([mib(14)]).collect()),
    ] {
        let mut disk = Disk::with_sectors(512);
        let segment_bytes_max = mib(14);
        let record_bytes_max = 64 << 10;
        let config =
            Config { reserve_bytes, segment_bytes_max, record_bytes_max, ..Config::default() };
        let mut log = open_with(&mut disk, &config);
        let name = FileId::Segment(SegmentId::FIRST).name();
        let mut reserved = vec![disk.content(name).unwrap().len() as u64];
        let value = vec![7; 50_000];
        while log.appended().end.segment <= SegmentId::FIRST {
            log.append(&Entry::from(&Record::put(b"key", &value)), Level::Os).unwrap();
            while let Some(command) = log.poll_command() {
                if let Command::Allocate(allocate) = &command
                    && allocate.name == name
                {
                    assert_eq!(allocate.from, *reserved.last().unwrap());
                    reserved.push(allocate.to);
                }
                log.complete(disk.execute(command, None));
            }
        }
        assert_eq!(reserved, expected);
    }
}

/// A file may be shorter than what was reserved of it once, and the log goes on in it.
#[test]
fn what_is_reserved_at_once_is_so_in_a_file_that_was_cut() {
    let mut disk = Disk::with_sectors(512);
    let short = Config { segment_bytes_max: 14 << 20, preallocate: false, ..Config::default() };
    let mut log = open_with(&mut disk, &short);
    append(&mut disk, &mut log, &[7; 500]).unwrap();
    drop(log);
    let whole = Config { preallocate: true, reserve_bytes: u64::MAX, ..short };
    let mut log = open_with(&mut disk, &whole);
    append(&mut disk, &mut log, &[7; 500]).unwrap();
    let name = FileId::Segment(SegmentId::FIRST).name();
    assert_eq!(disk.content(name).unwrap().len(), 14 << 20);
}

#[test]
fn space_is_reserved_in_steps_and_nothing_is_written_behind_one_under_way() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { reserve_bytes: 1_024, ..config() };
    let mut log = open_with(&mut disk, &config);
    let name = FileId::Segment(SegmentId::FIRST).name();
    assert_eq!(disk.content(name).unwrap().len(), 1_024, "no more is reserved than asked for");
    let (mut reserved, mut steps) = (1_024, 0);
    while log.appended().end.segment <= SegmentId::FIRST {
        let record = Record::put(b"key", &[7; 200]);
        log.append(&Entry::from(&record), Level::Disk).unwrap();
        while let Some(command) = log.poll_command() {
            let allocate = match command {
                Command::Allocate(allocate) if allocate.name == name => allocate,
                command => {
                    log.complete(disk.execute(command, None));
                    continue;
                }
            };
            assert_eq!(allocate.from, reserved);
            let end = log.appended().end.offset;
            // The first is asked for by the time that three quarters of what there was are used.
            assert!(steps > 0 || (768..768 + 213).contains(&end), "{end}");
            assert!(allocate.to >= (end + 1_024).min(8 << 10) && allocate.to <= 8 << 10);
            (reserved, steps) = (allocate.to, steps + 1);
            // Meanwhile more is appended than is being reserved.
            let mut appended = 0;
            while appended < 9 && log.append(&Entry::from(&record), Level::Disk).is_ok() {
                appended += 1;
            }
            while let Some(command) = log.poll_lane(Lane::Commit) {
                if let Command::Write(write) = &command {
                    let end = end_of(write);
                    assert!(end <= allocate.to, "{end} is behind {}", allocate.to);
                }
                log.complete(disk.execute(command, None));
            }
            log.complete(disk.execute(Command::Allocate(allocate), None));
        }
    }
    run(&mut disk, &mut log);
    assert!(steps > 1);
    assert_eq!(log.durable().lsn, log.appended().lsn);
}

#[test]
fn space_that_cannot_be_reserved_is_asked_for_once_in_a_segment() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { reserve_bytes: 1_024, ..config() };
    let mut log = open_with(&mut disk, &config);
    let mut asked = 0;
    while log.appended().lsn < Lsn::new(30) {
        let record = Record::put(b"key", &[7; 200]);
        log.append(&Entry::from(&record), Level::Disk).unwrap();
        while let Some(command) = log.poll_command() {
            let is_step = matches!(&command, Command::Allocate(step) if step.from > 0);
            asked += u32::from(is_step);
            let fault = is_step.then_some(Fault::NoSpace);
            log.complete(disk.execute(command, fault));
        }
    }
    assert_eq!((asked, log.durable().lsn), (1, Lsn::new(30)));
}

/// The segment that a full disk takes the log out of again may have space reserved meanwhile.
#[test]
fn an_undone_move_waits_for_what_is_reserved() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { reserve_bytes: 1_024, preallocate: true, ..config() };
    let mut log = open_with(&mut disk, &config);
    let record = Record::put(b"key", &[7; 800]);
    let put = |log: &mut Log<Memory>| log.append(&Entry::from(&record), Level::Buffered);
    append(&mut disk, &mut log, b"x").unwrap();
    // A write of the first segment and a reservation of the second do not return yet.
    let (mut write, mut reservation) = (None, None);
    while reservation.is_none() {
        put(&mut log).unwrap();
        log.flush(Level::Os).unwrap();
        while let Some(command) = log.poll_command() {
            let is_of = |segment| command.file() == Some(FileId::Segment(SegmentId::new(segment)));
            match &command {
                Command::Allocate(allocate) if is_of(2) && allocate.from > 0 => {
                    reservation = Some((allocate.to, command));
                }
                Command::Write(_) if log.segments().count() == 2 && write.is_none() => {
                    write = Some(command);
                }
                _ => {
                    log.complete(disk.execute(command, None));
                }
            }
        }
    }
    log.complete(disk.execute(write.unwrap(), Some(Fault::NoSpace)));
    let version = log.segments_version();
    let (to, reservation) = reservation.unwrap();
    for _ in 0..20 {
        while let Some(command) = log.poll_command() {
            if let Command::Write(write) = &command
                && write.name.file == FileId::Segment(SegmentId::new(2))
            {
                assert!(end_of(write) <= to, "it goes behind");
            }
            log.complete(disk.execute(command, None));
        }
        // Until the rollback is over there is no room.
        assert!(matches!(put(&mut log), Ok(_) | Err(AppendError::Busy)));
        log.flush(Level::Os).unwrap();
    }
    log.complete(disk.execute(reservation, None));
    run(&mut disk, &mut log);
    assert!(log.segments_version() > version, "whoever reads has to look again");
    let last = append(&mut disk, &mut log, b"on it goes").unwrap();
    assert_eq!(log.durable().lsn, last);
}

#[test]
fn a_header_broken_behind_a_torn_tail_is_damage() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    append(&mut disk, &mut log, b"first").unwrap();
    let first = FileId::Segment(SegmentId::FIRST).name();
    log.rotate().unwrap();
    let record = Record::put(b"key", b"second");
    log.append(&Entry::from(&record), Level::Disk).unwrap();
    // Nothing but the frame itself says that the record is durable.
    while let Some(command) = log.poll_lane(Lane::Commit) {
        log.complete(disk.execute(command, None));
    }
    assert_eq!(log.durable().lsn, Lsn::new(2));
    drop(log);
    let second = name(2);
    disk.damage(second, |bytes| bytes[24] ^= 1);
    // The segment before ends in zeros, as when a crash takes its trimming back.
    disk.damage(first, |bytes| bytes.resize(8 << 10, 0));
    let report = recovered(&mut disk, &config()).1;
    let damage = report.damage.unwrap();
    assert_eq!(damage.position, Position::new(SegmentId::new(2), 0));
    assert_eq!((report.last_lsn, damage.first_lost), (Lsn::new(1), Lsn::new(2)));
    let moved = report.ranges.iter().find(|range| range.file == second).unwrap().moved_to;
    assert!(disk.content(moved.unwrap()).is_some(), "the segment is kept in quarantine");
}

/// The name of the segment with this number.
fn name(segment: u64) -> FileName {
    FileId::Segment(SegmentId::new(segment)).name()
}

#[test]
fn a_segment_that_is_gone_or_of_another_log_is_named() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 55);
    let spare = log.segments().last().unwrap().segment.next();
    drop(log);
    // The last one with records is named by no link; that it is gone is damage.
    let mut without_last = disk.clone();
    without_last.lose(name(4));
    let damage = recovered(&mut without_last, &config()).1.damage.unwrap();
    assert_eq!((damage.first_lost, damage.proof), (Lsn::new(46), Proof::Manifest));
    for gone in [1, 2, spare.get()] {
        let mut disk = disk.clone();
        disk.lose(name(gone));
        let refused = tried(&mut disk, &config());
        match refused {
            Err(RecoveryError::Missing(named)) => assert_eq!(named, name(gone)),
            result => panic!("{gone}: {:?}", result.map(|(_, report)| report)),
        }
        let salvage = Config { recovery: RecoveryPolicy::Salvage, ..config() };
        let report = recovered(&mut disk, &salvage).1;
        let missing = report.ranges.iter().filter(|range| range.kind == RangeKind::Missing);
        assert_eq!(missing.map(|range| range.file).collect::<Vec<_>>(), [name(gone)]);
        assert!(report.damage.is_some(), "{gone}");
    }
    let mut other = Disk::with_sectors(512);
    let begin = RecoveryStart { new_log_id: LogId([9; 16]), ..start(&config(), 7, 7) };
    let mut log = recover(&mut other, begin, |_, _| Go::On(None)).unwrap().unwrap().0;
    run(&mut other, &mut log);
    while log.segments().count() < 4 {
        append(&mut other, &mut log, &[7; 500]).unwrap();
    }
    let theirs = other.content(name(2)).unwrap().to_vec();
    disk.damage(name(2), |bytes| bytes.copy_from_slice(&theirs));
    let refused = tried(&mut disk, &config());
    match refused {
        Err(RecoveryError::Foreign { file, found, expected }) => {
            assert_eq!((file, found), (name(2), LogId([9; 16])));
            assert_eq!(expected, LogId([7; 16]));
        }
        result => panic!("{:?}", result.map(|(_, report)| report)),
    }
}

#[test]
fn what_a_truncation_could_not_remove_does_not_come_back() {
    let mut disk = Disk::with_sectors(512);
    let mut log = filled(&mut disk, 55);
    log.truncate_after(Lsn::new(20)).unwrap();
    run_failing(&mut disk, &mut log, |command| {
        (command.operation() == Operation::Remove).then_some(Fault::Fails)
    });
    assert_eq!(log.take_request_result(), Some(Ok(())));
    let last = append(&mut disk, &mut log, b"on").unwrap();
    drop(log);
    for has_manifest in [true, false] {
        let mut disk = disk.clone();
        if !has_manifest {
            disk.lose(FileId::Manifest.name());
        }
        let report = recovered(&mut disk, &config()).1;
        assert_eq!((report.first_lsn, report.last_lsn), (Lsn::new(1), last));
        assert_eq!((report.damage, report.bytes_cut()), (None, 0), "{has_manifest}");
        assert!(disk.content(name(3)).is_none());
    }
}

/// What the recovery of a damaged log says is not there any more: in which segments, what, and from
/// where to where.
fn told(disk: &Disk, damage: impl FnOnce(&mut Disk)) -> Vec<(u64, RangeKind, u64, u64)> {
    let mut disk = disk.clone();
    damage(&mut disk);
    let config = Config { scan: RecoveryScan::Full, ..config() };
    let report = recovered(&mut disk, &config).1;
    assert!(report.damage.is_some());
    report
        .ranges
        .iter()
        .filter_map(|range| match range.file.file {
            FileId::Segment(segment) => Some((segment.get(), range.kind, range.start, range.end)),
            _ => None,
        })
        .collect()
}

#[test]
fn what_is_lost_is_told_to_the_byte() {
    use RangeKind::{Corrupt, Missing, Orphaned, Torn, Zeros};
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 55);
    let last = log.durable().end.offset;
    let full = sealed(&log).1.frames_end;
    assert_eq!(log.segments().count(), 4);
    drop(log);
    // Frames of one record each.
    let frame_bytes = (full - 128) / 15;
    let (start, end) = (128 + 3 * frame_bytes, 128 + 4 * frame_bytes);
    let at = |offset: u64| usize::try_from(offset).unwrap();
    let rest = [
        (3, Orphaned, 128, full),
        (4, Orphaned, 128, last),
        (4, Zeros, last, 8 << 10),
        (5, Zeros, 128, 8 << 10),
    ];
    let with_rest = |first: &[_]| [first, &rest].concat();
    let flip = |segment, offset: u64| {
        told(&disk, move |disk| disk.damage(name(segment), |bytes| bytes[at(offset)] ^= 1))
    };
    let behind = (2, Orphaned, end, full);
    assert_eq!(flip(2, start + 30), with_rest(&[(2, Corrupt, start, end), behind]));
    // Zeros in place of one frame, then of all that follow.
    let zeroed = told(&disk, |disk| {
        disk.damage(name(2), |bytes| bytes[at(start)..at(end)].fill(0));
    });
    assert_eq!(zeroed, with_rest(&[(2, Corrupt, start, end), behind]));
    let zeroed = told(&disk, |disk| disk.damage(name(2), |bytes| bytes[at(start)..].fill(0)));
    assert_eq!(zeroed, with_rest(&[(2, Missing, start, full)]));
    // With the link too: what stood behind it was durable.
    let zeroed = told(&disk, |disk| disk.damage(name(2), |bytes| bytes[72..].fill(0)));
    assert_eq!(zeroed, with_rest(&[(2, Missing, 128, full)]));
    let cut = told(&disk, |disk| disk.damage(name(2), |bytes| bytes.truncate(at(start) + 9)));
    let gone = [(2, Corrupt, start, start + 9), (2, Missing, start + 9, full)];
    assert_eq!(cut, with_rest(&gone));
    assert_eq!(flip(2, 24), with_rest(&[(2, Corrupt, 0, full + 15)]));
    let link = [(2, Corrupt, 72, 128), (2, Orphaned, 128, full)];
    assert_eq!(flip(2, 80), with_rest(&link));
    // In the last segment that was moved into: what was never written is not missing.
    let (start, end) = (last - 2 * frame_bytes, last - frame_bytes);
    let spare = (5, Zeros, 128, 8 << 10);
    let behind = [(4, Orphaned, end, last), (4, Zeros, last, 8 << 10), spare];
    assert_eq!(flip(4, start + 30), [&[(4, Corrupt, start, end)][..], &behind].concat());
    // What a crash can do to the last frame is no damage.
    let mut torn = disk.clone();
    torn.damage(name(4), |bytes| bytes[at(last) - 1] ^= 1);
    let report = recovered(&mut torn, &config()).1;
    let kinds: Vec<_> = report.ranges.iter().map(|range| (range.kind, range.start)).collect();
    assert_eq!((report.damage, kinds[0]), (None, (Torn, end)));
}

#[test]
fn a_sealed_segment_with_nothing_but_its_header_is_damage() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 40);
    let (info, end) = sealed(&log);
    drop(log);
    disk.damage(FileId::Segment(info.segment).name(), |bytes| bytes.truncate(128));
    let damage = recovered(&mut disk, &config()).1.damage.unwrap();
    assert_eq!((damage.first_lost, damage.last_lost), (Lsn::new(1), Lsn::new(40)));
    assert!(damage.durable >= end.last_lsn);
}

#[test]
fn a_copy_to_quarantine_that_fails_is_made_again() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 40);
    let (info, end) = sealed(&log);
    drop(log);
    let name = FileId::Segment(info.segment).name();
    disk.damage(name, |bytes| bytes[700] ^= 1);
    let wanted = disk.content(name).unwrap().to_vec();
    let is_copy = |command: &Command<Memory>| {
        let is_write = command.operation() == Operation::Write;
        is_write && matches!(command.file(), Some(FileId::Quarantined(_)))
    };
    let config = Config { scan: RecoveryScan::Full, ..config() };
    for fault in [Some(Fault::Fails), Some(Fault::NoSpace), None] {
        let opened = recover(&mut disk, start(&config, 7, 7), |_, command| {
            Go::On(fault.filter(|_| is_copy(command)))
        });
        assert_eq!(opened.unwrap().is_ok(), fault.is_none());
    }
    let mut kept = disk.names().filter(|name| matches!(name.file, FileId::Quarantined(_)));
    let kept = kept.find(|name| {
        matches!(name.file, FileId::Quarantined(of) if of.segment == info.segment) && !name.is_new
    });
    let kept = disk.content(kept.unwrap()).unwrap();
    let from = wanted.windows(kept.len()).position(|window| window == kept);
    assert!(from.is_some_and(|from| from <= 700 && from + kept.len() > 700));
    assert!(kept.len() as u64 > end.frames_end - 1_300);
}

/// Segments that stand in quarantine whole.
fn moved(disk: &Disk) -> BTreeSet<SegmentId> {
    let whole = disk.names().filter_map(|name| match name.file {
        FileId::Quarantined(of) if of.offset.is_none() && !name.is_new => Some(of.segment),
        _ => None,
    });
    whole.collect()
}

#[test]
fn a_move_to_quarantine_may_be_cut_short_anywhere() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 60);
    let (info, _) = sealed(&log);
    let later: BTreeSet<_> = log.segments().skip(1).map(|later| later.segment).collect();
    assert!(later.len() > 2);
    drop(log);
    disk.damage(FileId::Segment(info.segment).name(), |bytes| bytes[700] ^= 1);
    let config = Config { scan: RecoveryScan::Full, ..config() };
    let kept = recovered(&mut disk.clone(), &config).0.appended().lsn;
    for stop in 0.. {
        let mut disk = disk.clone();
        let mut commands = 0..stop;
        let ended = recover(&mut disk, start(&config, 7, 7), |_, _| {
            commands.next().map_or(Go::Stop, |_| Go::On(None))
        });
        disk.kill();
        let log = recovered(&mut disk, &config).0;
        assert_eq!(log.appended().lsn, kept, "cut short before command {stop}");
        assert_eq!(moved(&disk), later, "cut short before command {stop}");
        if ended.is_some() {
            break;
        }
    }
}

/// A kill within a request and the loss of the manifest leave what has no gap.
fn cut_short_without_manifest(request: fn(&mut Log<Memory>) -> Result<(), RequestError>) {
    let mut disk = Disk::with_sectors(512);
    drop(filled(&mut disk, 60));
    for stop in 0.. {
        let mut disk = disk.clone();
        let mut log = open(&mut disk);
        request(&mut log).unwrap();
        let mut left = stop;
        while left > 0
            && let Some(command) = log.poll_command()
        {
            log.complete(disk.execute(command, None));
            left -= 1;
        }
        drop(log);
        disk.kill();
        disk.lose(FileId::Manifest.name());
        let (log, report) = recovered(&mut disk, &config());
        let records = log.appended().lsn.next().since(log.first_lsn());
        assert_eq!((report.records, report.damage), (records, None), "before command {stop}");
        if left > 0 {
            break;
        }
    }
}

#[test]
fn a_deletion_cut_short_leaves_no_gap_without_the_manifest() {
    cut_short_without_manifest(|log| log.delete_before(Lsn::new(60)));
}

#[test]
fn a_truncation_cut_short_leaves_no_gap_without_the_manifest() {
    cut_short_without_manifest(|log| log.truncate_after(Lsn::new(10)));
}

/// Recovers with every read of segments from `from` on cut short there: the file was longer when
/// it was listed.
fn recover_short(disk: &mut Disk, config: &Config, from: u64) -> Result<(Lsn, bool), String> {
    let mut recovery = Recovery::new(start(config, 7, 7), Mode::Open);
    let mut commands = 0;
    while let Some(command) = recovery.poll_command() {
        commands += 1;
        assert!(commands < 10_000, "it does not end");
        let done = match command {
            Command::Read(mut read) if matches!(read.name.file, FileId::Segment(_)) => {
                let file = disk.content(read.name).unwrap();
                let start = usize::try_from(read.offset).unwrap().min(file.len());
                let end = file.len().min(usize::try_from(from).unwrap().max(start));
                let bytes = (end - start).min(read.buffer.len());
                read.buffer[..bytes].copy_from_slice(&file[start..start + bytes]);
                read.done(Ok(bytes))
            }
            command => disk.execute(command, None),
        };
        recovery.complete(done);
    }
    let (log, report) = recovery.finish().map_err(|error| error.to_string())?;
    Ok((log.appended().lsn, report.is_damaged()))
}

#[test]
fn a_file_that_ends_before_its_listed_length_is_no_trap() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 40);
    let (_, end) = sealed(&log);
    for scan in [RecoveryScan::Tail, RecoveryScan::Full] {
        for recovery in [RecoveryPolicy::PrefixValid, RecoveryPolicy::Salvage] {
            let config = Config { scan, recovery, ..config() };
            // From within the frames to within the footer, and past both.
            for from in (200..end.frames_end + 200).step_by(61) {
                let (last, is_damaged) =
                    recover_short(&mut disk.clone(), &config, from).unwrap_or((Lsn::ZERO, true));
                assert!(last == Lsn::new(40) || is_damaged, "cut at {from}: {last}");
            }
        }
    }
}

#[test]
fn a_truncation_that_cannot_read_its_segment_cuts_nothing() {
    let mut disk = Disk::with_sectors(512);
    let mut log = filled(&mut disk, 40);
    log.truncate_after(Lsn::new(10)).unwrap();
    while let Some(command) = log.poll_command() {
        let done = match command {
            Command::Read(mut read) => {
                // A part of what was asked for, and then the file has ended.
                let file = disk.content(read.name).unwrap();
                let start = usize::try_from(read.offset).unwrap();
                let bytes = read.buffer.len().min(600);
                read.buffer[..bytes].copy_from_slice(&file[start..start + bytes]);
                read.done(Ok(bytes))
            }
            command => disk.execute(command, None),
        };
        log.complete(done);
    }
    let result = log.take_request_result().unwrap();
    assert!(matches!(result, Err(RequestError::Damaged { .. })), "{result:?}");
    assert_eq!(log.appended().lsn, Lsn::new(40));
    append(&mut disk, &mut log, b"on it goes").unwrap();
    drop(log);
    assert_eq!(open(&mut disk).appended().lsn, Lsn::new(41));
}

#[test]
fn damage_to_a_long_value_is_no_torn_tail() {
    let config = Config {
        segment_bytes_max: 8 << 20,
        batch_bytes: 1 << 20,
        record_bytes_max: 1 << 20,
        ..config()
    };
    let mut disk = Disk::with_sectors(512);
    let mut log = open_with(&mut disk, &config);
    let mut ends = Vec::new();
    for seed in 1..=5 {
        append(&mut disk, &mut log, &record_bytes(seed, 300 << 10)).unwrap();
        ends.push(log.durable().end.offset);
    }
    drop(log);
    // The length of the third record's value: of the first ones the manifest knows.
    let broken = usize::try_from(ends[1]).unwrap() + 9;
    disk.damage(FileId::Segment(SegmentId::FIRST).name(), |bytes| bytes[broken] ^= 1);
    let strict = Config { recovery: RecoveryPolicy::Strict, ..config };
    let refused = tried(&mut disk, &strict);
    assert!(matches!(refused, Err(RecoveryError::Damaged(_))), "{refused:?}");
    let salvage = Config { recovery: RecoveryPolicy::Salvage, ..config };
    let report = recovered(&mut disk, &salvage).1;
    let damage = report.damage.unwrap();
    let seen = (report.last_lsn, damage.first_lost, damage.durable);
    assert_eq!(seen, (Lsn::new(5), Lsn::new(3), Lsn::new(4)));
}

#[test]
fn what_a_bounded_search_gave_up_is_kept() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { segment_bytes_max: 1 << 20, ..config() };
    let mut log = open_with(&mut disk, &config);
    append(&mut disk, &mut log, b"kept").unwrap();
    let end = log.durable().end;
    drop(log);
    // Behind the last frame: everywhere a record seems to begin that ends where the file does.
    let name = FileId::Segment(end.segment).name();
    let from = usize::try_from(end.offset).unwrap();
    disk.damage(name, |bytes| {
        bytes.resize(800 << 10, 0);
        let limit = bytes.len();
        for at in (from..limit - 12).step_by(12) {
            let value_bytes = (limit - at - 12) as u64;
            let groups = [value_bytes | 0x80, value_bytes >> 7 | 0x80, value_bytes >> 14];
            bytes[at..at + 9].copy_from_slice(&[1, 9, 9, 9, 9, 2, 0, 0, 0]);
            bytes[at + 9..at + 12].copy_from_slice(&groups.map(|group| group.to_le_bytes()[0]));
        }
    });
    let wanted = disk.content(name).unwrap()[from..].to_vec();
    let report = recovered(&mut disk, &config).1;
    assert_eq!((report.last_lsn, report.damage), (Lsn::new(1), None));
    let range = report.ranges.iter().find(|range| range.kind == RangeKind::Torn).unwrap();
    assert_eq!(disk.content(range.moved_to.unwrap()).unwrap(), wanted);
    let report = recovered(&mut disk, &config).1;
    assert!(report.ranges.iter().all(|range| range.kind != RangeKind::Torn), "it was cut");
}

/// A log that had so many segments, of which all but the last were deleted.
fn deleted(disk: &mut Disk, config: &Config, segments: usize) -> Log<Memory> {
    let mut log = open_with(disk, config);
    while log.segments().count() < segments {
        append(disk, &mut log, &[7; 500]).unwrap();
    }
    log.delete_before(log.appended().lsn).unwrap();
    run(disk, &mut log);
    assert_eq!(log.take_request_result(), Some(Ok(())));
    log
}

/// Appends until the log has moved on so many times.
fn move_on(disk: &mut Disk, log: &mut Log<Memory>, segments: u64) {
    let active = |log: &Log<Memory>| log.segments().last().unwrap().segment.get();
    let wanted = active(log) + segments;
    while active(log) < wanted {
        append(disk, log, &[8; 500]).unwrap();
    }
}

/// A log that recycles, and has just moved into a file that was its first segment's. It writes no
/// zeros over what stands there.
fn recycled(disk: &mut Disk, checksum: ChecksumKind) -> (Config, Log<Memory>) {
    let config = Config { recycle_max: 1, preallocate: false, checksum, ..config() };
    let mut log = deleted(disk, &config, 3);
    // The next one is ready already; the one after that is made of the first.
    move_on(disk, &mut log, 2);
    (config, log)
}

#[test]
fn a_crash_in_a_recycled_segment_leaves_no_more_than_in_a_new_one() {
    for checksum in [ChecksumKind::Crc32c, ChecksumKind::Xxh3] {
        let mut disk = Disk::with_sectors(512);
        let (config, mut log) = recycled(&mut disk, checksum);
        let last = append(&mut disk, &mut log, b"the last").unwrap();
        let end = log.durable().end;
        drop(log);
        let name = FileId::Segment(end.segment).name();
        let content = disk.content(name).unwrap();
        let behind = usize::try_from(end.offset).unwrap();
        assert!(content.len() > 4_000 && content[behind..].iter().any(|byte| *byte != 0));
        let strict = Config { recovery: RecoveryPolicy::Strict, ..config };
        let report = recovered(&mut disk, &strict).1;
        assert_eq!((report.last_lsn, report.damage), (last, None));
        let kinds: Vec<_> = report
            .ranges
            .iter()
            .filter(|range| range.file == name)
            .map(|range| (range.kind, range.end - range.start < 520))
            .collect();
        // The rest of the frame that was written into, and whole frames of the earlier life.
        assert_eq!(kinds, [(RangeKind::Torn, true), (RangeKind::Stale, false)]);
        let mut log = open_with(&mut disk, &strict);
        assert_eq!(append(&mut disk, &mut log, b"on it goes"), Ok(last.next()));
    }
}

#[test]
fn a_segment_whose_space_could_not_be_reserved_gets_no_zeros() {
    // The first reservation, as the segment is made, or one of the later ones.
    for first_fails in [true, false] {
        let mut disk = Disk::with_sectors(512);
        let config = Config {
            segment_bytes_max: 8 << 20,
            reserve_bytes: 1 << 20,
            record_bytes_max: 200_000,
            batch_bytes: 256 << 10,
            preallocate: true,
            ..config()
        };
        let config = config.checked().unwrap();
        let mut log = recovered(&mut disk, &config).0;
        let (mut failed, mut longest) = (false, 0);
        let mut fault = |command: &Command<Memory>| match command {
            Command::Allocate(step) if (step.from == 0) == first_fails => {
                failed = true;
                Some(Fault::NoSpace)
            }
            Command::Write(write) if failed && write.name.is_segment() => {
                longest = longest.max(write.data.as_ref().len());
                None
            }
            _ => None,
        };
        run_failing(&mut disk, &mut log, &mut fault);
        let value = vec![7; 30_000];
        for _ in 0..40 {
            log.append(&Entry::from(&Record::put(b"key", &value)), Level::Os).unwrap();
            run_failing(&mut disk, &mut log, &mut fault);
        }
        assert!(failed && (30_000..31_000).contains(&longest), "{first_fails}: {longest}");
    }
}

#[test]
fn no_page_of_a_recycled_segment_is_written_in_part_only() {
    let mut disk = Disk::with_sectors(512);
    let config = Config {
        segment_bytes_max: 1 << 20,
        batch_bytes: 256 << 10,
        record_bytes_max: 200_000,
        recycle_max: 1,
        preallocate: true,
        ..config()
    };
    let config = config.checked().unwrap();
    let mut log = deleted(&mut disk, &config, 3);
    move_on(&mut disk, &mut log, 2);
    let mut lengths = Vec::new();
    let value = vec![7; 170_000];
    for value in [&value[..], &value, &value[..5_000], &value[..100]] {
        let from = log.appended().end.offset;
        log.append(&Entry::from(&Record::put(b"key", value)), Level::Disk).unwrap();
        run_failing(&mut disk, &mut log, |command| {
            if let Command::Write(write) = command {
                let end = write.offset + write.data.as_ref().len() as u64;
                lengths.push((end - from - value.len() as u64, end));
            }
            None
        });
    }
    let [long, longer, short, shorter] = lengths[..] else { panic!("{lengths:?}") };
    for (more, end) in [long, longer] {
        assert!((15..15 + (4 << 10)).contains(&more) && end % (4 << 10) == 0, "{lengths:?}");
    }
    assert!(short.0 >= 64 << 10 && short.1 % (64 << 10) == 0, "{lengths:?}");
    assert_eq!(shorter.0, 13, "there is room already");
    // Behind the zeros stands what the file held before, and counts for nothing.
    let (last, end) = (log.appended().lsn, log.durable().end);
    drop(log);
    let name = FileId::Segment(end.segment).name();
    let content = disk.content(name).unwrap();
    let zeros_end = usize::try_from(short.1).unwrap();
    assert!(content[zeros_end..].iter().any(|byte| *byte != 0));
    let strict = Config { recovery: RecoveryPolicy::Strict, ..config };
    let report = recovered(&mut disk, &strict).1;
    let kinds: Vec<_> =
        report.ranges.iter().filter(|range| range.file == name).map(|range| range.kind).collect();
    assert_eq!((report.last_lsn, report.damage), (last, None));
    assert_eq!(kinds, [RangeKind::Torn, RangeKind::Stale]);
}

#[test]
fn damage_in_a_recycled_segment_is_told() {
    let mut disk = Disk::with_sectors(512);
    let (config, mut log) = recycled(&mut disk, ChecksumKind::Crc32c);
    let broken = append(&mut disk, &mut log, b"broken").unwrap();
    let at = log.durable().end;
    append(&mut disk, &mut log, b"behind").unwrap();
    let last = append(&mut disk, &mut log, b"the last").unwrap();
    drop(log);
    let offset = usize::try_from(at.offset).unwrap() - 1;
    disk.damage(FileId::Segment(at.segment).name(), |bytes| bytes[offset] ^= 1);
    let salvage = Config { recovery: RecoveryPolicy::Salvage, ..config };
    let report = recovered(&mut disk, &salvage).1;
    let damage = report.damage.unwrap();
    assert_eq!((damage.first_lost, damage.durable), (broken, last.previous()));
    assert_eq!(report.last_lsn, last);
}

#[test]
fn a_recycled_segment_that_was_never_moved_into_is_a_spare() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { recycle_max: 1, preallocate: true, ..config() };
    let mut log = deleted(&mut disk, &config, 3);
    move_on(&mut disk, &mut log, 1);
    let (active, last) = (log.segments().last().unwrap().segment, log.durable().lsn);
    drop(log);
    let spare = FileId::Segment(active.next()).name();
    let before = disk.content(spare).unwrap().to_vec();
    assert!(before.len() > 4_000, "it is the first segment's file");
    let strict = Config { recovery: RecoveryPolicy::Strict, ..config };
    let report = recovered(&mut disk, &strict).1;
    assert_eq!((report.last_lsn, report.bytes_cut()), (last, 0));
    assert_eq!(disk.content(spare).unwrap(), before, "it is left as it is");
}

#[test]
fn what_waits_to_be_recycled_goes_when_the_disk_is_full_or_it_cannot_be_had() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { recycle_max: 2, ..config() };
    let mut log = deleted(&mut disk, &config, 5);
    let names = disk.names().filter(|name| name.is_segment()).count();
    assert_eq!(names, 2 + 2, "four were deleted, two are kept beside the last and the next");
    // A reader has the first of them open.
    let record = Record::put(b"key", &[8; 500]);
    let mut refused = 0;
    while refused == 0 {
        // Or there is no segment yet to put it in.
        log.append(&Entry::from(&record), Level::Disk).ok();
        run_failing(&mut disk, &mut log, |command| {
            let is_recycling = matches!(command, Command::Rename(c) if c.from.is_segment());
            refused += u32::from(is_recycling);
            is_recycling.then_some(Fault::Fails)
        });
    }
    assert_eq!(refused, 1, "one segment is made at a time");
    assert!(disk.content(FileId::Segment(SegmentId::FIRST).name()).is_none());
    let second = name(2);
    assert!(disk.content(second).is_some());
    // The disk is full: what is held for later is given back.
    let appended = loop {
        match log.append(&Entry::from(&record), Level::Disk) {
            Err(AppendError::Busy) => run(&mut disk, &mut log),
            result => break result.unwrap(),
        }
    };
    while let Some(command) = log.poll_lane(Lane::Commit) {
        let is_write = command.operation() == Operation::Write;
        log.complete(disk.execute(command, is_write.then_some(Fault::NoSpace)));
    }
    run(&mut disk, &mut log);
    assert!(log.durable().lsn < appended.first);
    assert!(disk.content(second).is_none());
}

#[test]
fn appends_share_a_write_until_it_is_full() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    append(&mut disk, &mut log, b"the link goes first").unwrap();
    let record = Record::put(b"key", &[7; 1_000]);
    for _ in 0..5 {
        log.append(&Entry::from(&record), Level::Buffered).unwrap();
    }
    log.append(&Entry::from(&Record::put(b"key", b"")), Level::Disk).unwrap();
    let mut lengths = Vec::new();
    while let Some(command) = log.poll_command() {
        if let Command::Write(write) = &command {
            lengths.push((write.data.as_ref().len(), write.sync));
        }
        log.complete(disk.execute(command, None));
    }
    // Five of 1,014 bytes, of which three are under 4 KiB and the head that a frame may have, and
    // one of 13.
    assert_eq!(lengths, [(3 * 1_014, false), (2 * 1_014 + 13, true)]);
}

#[test]
fn a_manifest_that_cannot_be_written_ends_the_log() {
    for (fault, is_end) in [(Fault::Fails, true), (Fault::NoSpace, false)] {
        let mut disk = Disk::with_sectors(512);
        let mut log = filled(&mut disk, 40);
        log.delete_before(Lsn::new(30)).unwrap();
        run_failing(&mut disk, &mut log, |command| {
            (command.file() == Some(FileId::Manifest)).then_some(fault)
        });
        let result = log.take_request_result().unwrap();
        assert_eq!(matches!(result, Err(RequestError::Poisoned(_))), is_end, "{result:?}");
        let refused = log.append(&Entry::from(&Record::put(b"k", b"")), Level::Disk);
        assert_eq!(matches!(refused, Err(AppendError::Poisoned(_))), is_end, "{refused:?}");
    }
}

#[test]
fn what_is_cut_is_counted_to_the_byte() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 5);
    let end = log.durable().end;
    drop(log);
    let name = FileId::Segment(end.segment).name();
    let from = usize::try_from(end.offset).unwrap();
    disk.damage(name, |bytes| {
        bytes.resize(from, 0);
        bytes.extend([9; 77]);
    });
    let report = recovered(&mut disk, &config()).1;
    assert_eq!((report.bytes_cut(), report.last_lsn), (77, Lsn::new(5)));
    assert_eq!(disk.content(name).unwrap().len(), from);
}

#[test]
fn a_link_that_is_gone_lets_nothing_truncated_come_back() {
    lose_a_link(None);
}

#[test]
fn nor_where_the_log_went_on_in_a_third_segment() {
    lose_a_link(Some(Level::Disk));
}

#[test]
fn nor_where_what_came_then_was_lost_with_the_power() {
    lose_a_link(Some(Level::Os));
}

/// Truncates inside a batch, appends, truncates that and, it may be, appends again: then power
/// fails, and the link of the second segment goes.
fn lose_a_link(goes_on: Option<Level>) {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    append(&mut disk, &mut log, b"1").unwrap();
    let entries = [Entry::from(&Record::put(b"key", b"a batch")); 5];
    log.append_batch(&entries, Level::Disk).unwrap();
    run(&mut disk, &mut log);
    let truncate = |disk: &mut Disk, log: &mut Log<Memory>, last: u64| {
        log.truncate_after(Lsn::new(last)).unwrap();
        run(disk, log);
        assert_eq!(log.take_request_result(), Some(Ok(())));
    };
    // The batch stays, of which two records are kept. Others take the numbers of the rest.
    truncate(&mut disk, &mut log, 3);
    for value in [b"4", b"5", b"6"] {
        append(&mut disk, &mut log, value).unwrap();
    }
    let second = FileId::Segment(log.durable().end.segment).name();
    truncate(&mut disk, &mut log, 5);
    if let Some(level) = goes_on {
        let third = Entry::from(&Record::put(b"key", b"a third segment"));
        log.append(&third, level).unwrap();
        // Another segment is made meanwhile, and the manifest says so.
        run(&mut disk, &mut log);
    }
    drop(log);
    disk.crash_by(512, |_| 0);
    disk.damage(second, |bytes| bytes[72..128].fill(0));
    let strict = Config { recovery: RecoveryPolicy::Strict, ..config() };
    let refused = tried(&mut disk, &strict);
    assert!(matches!(refused, Err(RecoveryError::Damaged(_))), "{refused:?}");
    let report = recovered(&mut disk, &config()).1;
    let damage = report.damage.expect("two records are gone");
    assert_eq!((report.last_lsn, damage.first_lost), (Lsn::new(3), Lsn::new(4)));
    let durable = Lsn::new(5 + u64::from(goes_on == Some(Level::Disk)));
    assert_eq!((damage.last_lost, damage.durable), (durable, durable));
    // Nor does the next opening show them, with or without an append in between.
    for last in [3, 4] {
        let mut log = open_with(&mut disk, &strict);
        assert_eq!(log.appended().lsn, Lsn::new(last));
        assert_eq!(append(&mut disk, &mut log, b"on it goes"), Ok(Lsn::new(last + 1)));
    }
}

#[test]
fn a_salvaged_log_counts_no_record_that_the_next_crash_takes_back() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    append(&mut disk, &mut log, b"durable").unwrap();
    log.append(&Entry::from(&Record::put(b"key", b"with the kernel")), Level::Os).unwrap();
    run(&mut disk, &mut log);
    drop(log);
    disk.corrupt(FileId::Segment(SegmentId::FIRST).name(), |bytes| bytes[100] ^= 1);
    let salvage = Config { recovery: RecoveryPolicy::Salvage, ..config() };
    let report = recovered(&mut disk, &salvage).1;
    assert_eq!((report.records, report.last_lsn), (0, Lsn::new(2)));
    disk.crash_by(512, |_| 0);
    let report = recovered(&mut disk, &salvage).1;
    assert_eq!((report.records, report.last_lsn), (0, Lsn::new(2)));
}

#[test]
fn a_close_makes_all_durable_before_it_calls_the_end_clean() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open_with(&mut disk, &Config { fsync_policy: FsyncPolicy::Os, ..config() });
    for value in [b"one", b"two"] {
        log.append(&Entry::from(&Record::put(b"key", value)), Level::Buffered).unwrap();
    }
    log.close().unwrap();
    // Syncs take their time: all else that may be done is done before.
    let mut syncs = std::collections::VecDeque::new();
    loop {
        let command = match log.poll_command() {
            Some(command @ Command::Sync(_)) => {
                syncs.push_back(command);
                continue;
            }
            Some(command) => command,
            None => match syncs.pop_front() {
                Some(sync) => sync,
                None => break,
            },
        };
        let is_manifest = command.file() == Some(FileId::Manifest);
        assert!(!is_manifest || syncs.is_empty(), "the end is called clean before it is durable");
        log.complete(disk.execute(command, None));
    }
    assert_eq!(log.take_request_result(), Some(Ok(())));
    disk.crash_by(512, |_| 0);
    let report = recovered(&mut disk, &config()).1;
    assert_eq!((report.last_lsn, report.was_clean), (Lsn::new(2), true));
}

/// How a log took a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    Poisoned,
    DiskFull,
    Degraded,
}

fn is_footer(command: &Command<Memory>) -> bool {
    matches!(command, Command::Write(write) if write.name.is_segment() && write.offset > 128)
}

fn is_manifest(command: &Command<Memory>) -> bool {
    command.operation() == Operation::Write && command.file() == Some(FileId::Manifest)
}

fn is_header(command: &Command<Memory>) -> bool {
    matches!(command, Command::Write(write) if write.name.is_new)
}

/// Does something to a log of several segments, of which the first such command fails, and says
/// how the log took it.
fn taken(
    act: fn(&mut Log<Memory>) -> Result<(), RequestError>,
    is_one: fn(&Command<Memory>) -> bool,
    fault: Fault,
) -> Taken {
    let mut disk = Disk::with_sectors(512);
    let mut log = filled(&mut disk, 40);
    while log.poll_event().is_some() {}
    act(&mut log).unwrap();
    let mut has_failed = false;
    let fail_first = |has_failed: &mut bool, command: &_| {
        let fails = !*has_failed && is_one(command);
        *has_failed |= fails;
        fails.then_some(fault)
    };
    run_failing(&mut disk, &mut log, |command| fail_first(&mut has_failed, command));
    let record = Record::put(b"key", &[7; 500]);
    while !has_failed {
        log.append(&Entry::from(&record), Level::Disk).unwrap();
        run_failing(&mut disk, &mut log, |command| fail_first(&mut has_failed, command));
    }
    let told = std::iter::from_fn(|| log.poll_event()).find_map(|event| match event {
        Event::Poisoned(_) => Some(Taken::Poisoned),
        Event::DiskFull(_) => Some(Taken::DiskFull),
        Event::Degraded(_) => Some(Taken::Degraded),
        _ => None,
    });
    let told = told.expect("a failure is told");
    assert_eq!(log.poison().is_some(), told == Taken::Poisoned);
    if told == Taken::Poisoned {
        return told;
    }
    log.take_request_result();
    // It goes on, and what comes now is there when it is opened again. That there was no room for
    // the next segment is told to one append.
    let appended = (0..100).map(|_| append(&mut disk, &mut log, &[8; 500]));
    let refused: Vec<_> = appended.filter_map(Result::err).collect();
    assert!(refused.len() <= usize::from(told == Taken::DiskFull), "{refused:?}");
    let last = log.appended().lsn;
    drop(log);
    assert_eq!(recovered(&mut disk, &config()).1.last_lsn, last);
    told
}

#[test]
fn a_command_that_fails_ends_the_log_only_where_it_must() {
    use Fault::{Fails, NoSpace};
    let grow = |_: &mut Log<Memory>| Ok(());
    let is_trim = |command: &Command<Memory>| command.operation() == Operation::Truncate;
    let is_removal = |command: &Command<Memory>| command.operation() == Operation::Remove;
    // The next segment.
    assert_eq!(taken(grow, is_header, Fails), Taken::Poisoned);
    assert_eq!(taken(grow, is_header, NoSpace), Taken::DiskFull);
    assert_eq!(taken(grow, is_manifest, Fails), Taken::Poisoned);
    assert_eq!(taken(grow, is_manifest, NoSpace), Taken::Degraded);
    assert_eq!(taken(grow, is_trim, Fails), Taken::Degraded);
    assert_eq!(taken(grow, is_trim, NoSpace), Taken::Degraded);
    let delete = |log: &mut Log<Memory>| log.delete_before(Lsn::new(30));
    assert_eq!(taken(delete, is_manifest, Fails), Taken::Poisoned);
    assert_eq!(taken(delete, is_manifest, NoSpace), Taken::DiskFull);
    assert_eq!(taken(delete, is_removal, Fails), Taken::Degraded);
    let truncate = |log: &mut Log<Memory>| log.truncate_after(log.appended().lsn.previous());
    assert_eq!(taken(truncate, is_manifest, Fails), Taken::Poisoned);
    assert_eq!(taken(truncate, is_manifest, NoSpace), Taken::DiskFull);
    assert_eq!(taken(truncate, is_trim, Fails), Taken::Poisoned);
    assert_eq!(taken(truncate, is_footer, Fails), Taken::Poisoned);
    assert_eq!(taken(truncate, is_footer, NoSpace), Taken::Degraded);
}

/// Carries a request out: the commands on files that it takes.
fn changes_of(disk: &mut Disk, log: &mut Log<Memory>) -> Vec<(Operation, FileId)> {
    let mut changes = Vec::new();
    run_failing(disk, log, |command| {
        changes.extend(command.file().map(|file| (command.operation(), file)));
        None
    });
    assert_eq!(log.take_request_result(), Some(Ok(())));
    changes
}

#[test]
fn a_truncation_ends_its_segment_with_a_footer_where_it_can() {
    let mut disk = Disk::with_sectors(512);
    let mut log = filled(&mut disk, 40);
    let entries = [Entry::from(&Record::put(b"key", b"a batch")); 5];
    log.append_batch(&entries, Level::Disk).unwrap();
    run(&mut disk, &mut log);
    let active = FileId::Segment(log.appended().end.segment);
    let (first, end) = sealed(&log);
    let truncated = |to: Lsn| {
        let mut disk = disk.clone();
        let mut log = open(&mut disk);
        log.truncate_after(to).unwrap();
        let changes = changes_of(&mut disk, &mut log);
        let last = log.segments().last().unwrap().end.unwrap();
        let at = log.appended();
        assert_eq!((last.last_lsn, at.lsn, at.end.offset), (to, to, last.frames_end));
        // Opened again it ends there too, and goes on.
        drop(log);
        let mut log = open(&mut disk);
        assert_eq!((log.appended(), log.segments().last().unwrap().end), (at, Some(last)));
        assert_eq!(append(&mut disk, &mut log, b"on"), Ok(to.next()));
        let length = disk.content(FileId::Segment(at.end.segment).name()).unwrap().len() as u64;
        (changes, last.has_footer, length > last.frames_end)
    };
    // After a record of the active segment: what follows is cut off, and a footer put there.
    let last = log.appended().lsn;
    let (changes, has_footer, is_longer) = truncated(Lsn::new(last.get() - 5));
    assert!(changes.contains(&(Operation::Truncate, active)), "{changes:?}");
    assert!(changes.contains(&(Operation::Write, active)) && has_footer && is_longer);
    // Within a batch: no footer, which would count all of it.
    let (changes, has_footer, _) = truncated(last.previous());
    assert!(changes.contains(&(Operation::Truncate, active)), "{changes:?}");
    assert!(!changes.contains(&(Operation::Write, active)) && !has_footer);
    // At the end of a segment that has one: nothing is done to it.
    let (changes, has_footer, _) = truncated(end.last_lsn);
    let first = FileId::Segment(first.segment);
    assert!(changes.iter().all(|(_, file)| *file != first), "{changes:?}");
    assert!(has_footer);
}

#[test]
fn a_log_may_be_truncated_to_nothing_where_it_begins() {
    let mut disk = Disk::with_sectors(512);
    let mut log = filled(&mut disk, 40);
    log.delete_before(Lsn::new(30)).unwrap();
    run(&mut disk, &mut log);
    assert_eq!(log.take_request_result(), Some(Ok(())));
    let first = log.first_lsn();
    assert!(first > Lsn::new(1));
    // Nothing comes before it: nothing is done.
    log.delete_before(first).unwrap();
    assert_eq!(changes_of(&mut disk, &mut log), []);
    log.truncate_after(first.previous()).unwrap();
    run(&mut disk, &mut log);
    assert_eq!(log.take_request_result(), Some(Ok(())));
    for lsn in [first, first.next()] {
        drop(log);
        log = open(&mut disk);
        assert_eq!((log.first_lsn(), log.appended().lsn), (first, lsn.previous()));
        assert_eq!(append(&mut disk, &mut log, b"x"), Ok(lsn));
    }
}

#[test]
fn a_deletion_counts_a_segment_that_is_just_ending() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    append(&mut disk, &mut log, b"x").unwrap();
    log.rotate().unwrap();
    log.delete_before(Lsn::new(2)).unwrap();
    run(&mut disk, &mut log);
    assert_eq!(log.take_request_result(), Some(Ok(())));
    let left: Vec<_> = log.segments().map(|info| info.segment).collect();
    assert_eq!((log.first_lsn(), left), (Lsn::new(2), vec![SegmentId::new(2)]));
}

/// What the manifest says.
fn manifest(disk: &Disk) -> Manifest {
    let bytes = disk.content(FileId::Manifest.name()).unwrap();
    assert_eq!(bytes.len() as u64, MANIFEST_BYTES);
    match Manifest::parse(bytes, seawall_tests::crc()) {
        ManifestState::Whole(manifest) => manifest,
        state => panic!("{state:?}"),
    }
}

#[test]
fn the_manifest_knows_the_next_segment_and_what_was_durable_at_a_request() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    append(&mut disk, &mut log, b"x").unwrap();
    log.rotate().unwrap();
    let last = append(&mut disk, &mut log, b"y").unwrap();
    // The third is made ready, before anything can stand in it.
    assert_eq!(manifest(&disk).last_segment, SegmentId::new(3));
    log.delete_before(last).unwrap();
    run(&mut disk, &mut log);
    assert_eq!(log.take_request_result(), Some(Ok(())));
    let told = manifest(&disk);
    assert_eq!((told.durable, told.first_lsn, told.is_clean), (log.durable(), last, false));
    log.close().unwrap();
    run(&mut disk, &mut log);
    assert!(manifest(&disk).is_clean);
    // Opened again it is not, before there is room for anything to be appended.
    drop(log);
    open(&mut disk);
    assert!(!manifest(&disk).is_clean);
}

#[test]
fn a_request_waits_for_space_being_reserved() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { reserve_bytes: 1_024, preallocate: true, ..config() };
    let mut log = open_with(&mut disk, &config);
    let mut reservation = None;
    while reservation.is_none() {
        log.append(&Entry::from(&Record::put(b"key", &[7; 200])), Level::Disk).unwrap();
        while let Some(command) = log.poll_command() {
            match command {
                Command::Allocate(allocate) if allocate.from > 0 => reservation = Some(allocate),
                command => {
                    log.complete(disk.execute(command, None));
                }
            }
        }
    }
    log.truncate_after(Lsn::new(1)).unwrap();
    assert!(log.poll_command().is_none() && log.take_request_result().is_none());
    log.complete(disk.execute(Command::Allocate(reservation.unwrap()), None));
    run(&mut disk, &mut log);
    assert_eq!(log.take_request_result(), Some(Ok(())));
    assert_eq!(log.appended().lsn, Lsn::new(1));
}

#[test]
fn a_close_leaves_a_mark_and_nothing_behind_it() {
    let close = |disk: &mut Disk, log: &mut Log<Memory>| {
        log.close().unwrap();
        run(disk, log);
        assert_eq!(log.take_request_result(), Some(Ok(())));
        assert!(log.is_closed() && log.next_deadline().is_none());
    };
    let age = Some(Duration::from_micros(100));
    let config = Config { segment_age_max: age, preallocate: true, ..config() };
    // A log without a segment has none to put a mark in.
    let mut disk = Disk::with_sectors(512);
    let mut log = open_with(&mut disk, &config);
    close(&mut disk, &mut log);
    for is_rotated in [false, true] {
        let mut disk = Disk::with_sectors(512);
        let mut log = open_with(&mut disk, &config);
        append(&mut disk, &mut log, b"x").unwrap();
        if is_rotated {
            log.rotate().unwrap();
            run(&mut disk, &mut log);
        }
        let before = log.appended().end;
        close(&mut disk, &mut log);
        let end = log.appended().end;
        let name = FileId::Segment(end.segment).name();
        let file = disk.content(name).unwrap().to_vec();
        assert_eq!(file.len() as u64, end.offset, "what was reserved is given back");
        let start = if is_rotated { 128 } else { usize::try_from(before.offset).unwrap() };
        match Head::parse(&file[start..], ChecksumKind::Crc32c) {
            Parsed::Head(head) => {
                assert_eq!(head.kind, FrameKind::Mark);
                assert_eq!(start as u64 + head.frame_bytes, end.offset);
            }
            parsed => panic!("{parsed:?}"),
        }
        // Opened and closed again, it has no second one.
        drop(log);
        let mut log = open_with(&mut disk, &config);
        close(&mut disk, &mut log);
        assert_eq!(disk.content(name).unwrap(), file);
    }
}

#[test]
fn a_segment_without_records_is_not_ended() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    append(&mut disk, &mut log, b"x").unwrap();
    for _ in 0..3 {
        log.rotate().unwrap();
        run(&mut disk, &mut log);
        assert_eq!(log.segments().count(), 2);
    }
}

#[test]
fn what_a_segment_did_not_use_is_given_back_once_it_is_synced() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { fsync_policy: FsyncPolicy::Os, ..config() };
    let mut log = open_with(&mut disk, &config);
    log.append(&Entry::from(&Record::put(b"key", b"x")), Level::Os).unwrap();
    run(&mut disk, &mut log);
    log.rotate().unwrap();
    let (mut is_synced, mut trims) = (false, 0);
    loop {
        // Whenever something is done, all that follows in the background.
        while let Some(command) = log.poll_lane(Lane::Background) {
            if command.operation() == Operation::Truncate {
                assert!(is_synced, "it is written, not synced");
                trims += 1;
            }
            log.complete(disk.execute(command, None));
        }
        let Some(command) = log.poll_lane(Lane::Commit) else { break };
        is_synced |= command.operation() == Operation::Sync;
        log.complete(disk.execute(command, None));
    }
    assert_eq!(trims, 1);
}

#[test]
fn a_short_segment_is_not_kept_to_be_recycled() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { recycle_max: 2, ..config() };
    let mut log = open_with(&mut disk, &config);
    // The first is almost empty, the second full.
    append(&mut disk, &mut log, b"x").unwrap();
    log.rotate().unwrap();
    move_on(&mut disk, &mut log, 2);
    let last = log.appended().lsn;
    log.delete_before(last).unwrap();
    run(&mut disk, &mut log);
    let is_there = |id| disk.content(name(id)).is_some();
    assert!(!is_there(1) && is_there(2), "{:?}", disk.names().collect::<Vec<_>>());
}

#[test]
fn only_what_somebody_waits_for_is_written_and_a_sync_under_way_gathers() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open(&mut disk);
    append(&mut disk, &mut log, b"x").unwrap();
    let record = Record::put(b"key", b"value");
    let put = |log: &mut Log<Memory>, level| {
        log.append(&Entry::from(&record), level).unwrap();
    };
    let poll = |log: &mut Log<Memory>| log.poll_lane(Lane::Commit);
    put(&mut log, Level::Buffered);
    assert!(poll(&mut log).is_none(), "nobody waits");
    put(&mut log, Level::Os);
    let Some(Command::Write(write)) = poll(&mut log) else { panic!("it is written") };
    assert!(!write.sync);
    log.complete(disk.execute(Command::Write(write), None));
    assert!(poll(&mut log).is_none(), "nobody waits for the disk");
    log.flush(Level::Disk).unwrap();
    let sync = poll(&mut log).expect("a sync");
    assert_eq!(sync.operation(), Operation::Sync);
    // Meanwhile what is for the disk gathers, and what is for the kernel goes there.
    put(&mut log, Level::Disk);
    assert!(poll(&mut log).is_none(), "it goes with the next sync");
    put(&mut log, Level::Os);
    let Some(Command::Write(write)) = poll(&mut log) else { panic!("it is written") };
    assert!(!write.sync);
    assert!(poll(&mut log).is_none(), "one sync at a time");
    log.complete(disk.execute(sync, None));
    assert!(poll(&mut log).is_none(), "the write comes first");
    log.complete(disk.execute(Command::Write(write), None));
    let sync = poll(&mut log).expect("the next sync");
    assert_eq!(sync.operation(), Operation::Sync);
    log.complete(disk.execute(sync, None));
    assert_eq!(log.durable(), log.appended());
    // A sync waits for the writes that it is for, and for no others.
    put(&mut log, Level::Os);
    let write = poll(&mut log).expect("a write");
    log.complete(disk.execute(write, None));
    put(&mut log, Level::Os);
    let write = poll(&mut log).expect("a write");
    log.flush(Level::Disk).unwrap();
    assert!(poll(&mut log).is_none(), "it would have to be made again");
    log.complete(disk.execute(write, None));
    put(&mut log, Level::Os);
    let write = poll(&mut log).expect("writes come first");
    assert_eq!(write.operation(), Operation::Write);
    let sync = poll(&mut log).expect("a sync of what is written");
    assert_eq!(sync.operation(), Operation::Sync);
    log.complete(disk.execute(sync, None));
    assert_eq!(log.durable().lsn, log.appended().lsn.previous());
    log.complete(disk.execute(write, None));
    log.flush(Level::Disk).unwrap();
    run(&mut disk, &mut log);
    let written = log.written().lsn;
    // A durable write under way lets others pass to the kernel behind it, but no second sync.
    put(&mut log, Level::Disk);
    let Some(Command::Write(first)) = poll(&mut log) else { panic!("it is written") };
    assert!(first.sync);
    put(&mut log, Level::Disk);
    assert!(poll(&mut log).is_none());
    put(&mut log, Level::Os);
    let Some(Command::Write(second)) = poll(&mut log) else { panic!("it is written") };
    assert!(!second.sync);
    log.complete(disk.execute(Command::Write(second), None));
    assert_eq!(log.written().lsn, written, "what comes before it is not there yet");
    log.complete(disk.execute(Command::Write(first), None));
    run(&mut disk, &mut log);
    assert_eq!(log.durable(), log.appended());
}

/// Appends a record so long to the kernel, at this time, and runs what is due but for what the log
/// has written back, which is returned.
fn write_plainly(disk: &mut Disk, log: &mut Log<Memory>, micros: u64) -> Vec<Command<Memory>> {
    log.tick(Time::from_micros(micros));
    log.append(&Entry::from(&Record::put(b"key", &[7; 400])), Level::Os).unwrap();
    let mut begun = Vec::new();
    while let Some(command) = log.poll_command() {
        match command {
            Command::WriteBack(_) => begun.push(command),
            other => drop(log.complete(disk.execute(other, None))),
        }
    }
    begun
}

fn writing_back() -> Config {
    let segment_bytes_max = 64 << 10;
    let (fsync_policy, write_back_bytes) = (FsyncPolicy::Os, Some(1_024));
    Config { segment_bytes_max, fsync_policy, write_back_bytes, preallocate: false, ..config() }
}

/// From where to where.
fn range(command: &Command<Memory>) -> (u64, u64) {
    match command {
        Command::WriteBack(c) => (c.from, c.to),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_plain_writes_leave_is_written_back_once_and_in_steps() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open_with(&mut disk, &writing_back());
    let (mut from, mut micros) = (FRAMES_OFFSET, 1_000);
    for _ in 0..50 {
        micros += 1_000;
        for command in write_plainly(&mut disk, &mut log, micros) {
            let (begun, to) = range(&command);
            assert_eq!(begun, from, "nothing twice, nothing left out");
            assert!(to - begun >= 1_024 && to % 1_024 == 0, "{begun}..{to}");
            assert!(to <= log.written().end.offset && log.written().end.offset - to < 2_048);
            log.complete(disk.execute(command, None));
            from = to;
        }
    }
    assert!(from > 18 << 10, "{from} of {:?}", log.written());
    // What a sync has taken needs no more.
    log.flush(Level::Disk).unwrap();
    run(&mut disk, &mut log);
    let synced = log.durable().end.offset;
    let begun: Vec<_> =
        (0..6).flat_map(|_| write_plainly(&mut disk, &mut log, micros + 1_000)).collect();
    assert_eq!(begun.iter().map(range).map(|(from, _)| from).next(), Some(synced));
    // While one is under way there is no other, and the log neither cuts the segment nor ends.
    for _ in 0..10 {
        micros += 1_000;
        assert!(write_plainly(&mut disk, &mut log, micros).is_empty());
    }
    log.truncate_after(Lsn::new(5)).unwrap();
    run(&mut disk, &mut log);
    assert_eq!(log.take_request_result(), None);
    for command in begun {
        log.complete(disk.execute(command, None));
    }
    run(&mut disk, &mut log);
    assert_eq!(log.take_request_result(), Some(Ok(())));
    assert_eq!(log.appended().lsn, Lsn::new(5));
}

#[test]
fn a_burst_is_written_back_in_part_and_durable_writes_not_at_all() {
    let mut disk = Disk::with_sectors(512);
    let mut log = open_with(&mut disk, &writing_back());
    // 100 records within a microsecond: 256 MiB a second would be 268 bytes.
    let mut begun = 0;
    for _ in 0..100 {
        for command in write_plainly(&mut disk, &mut log, 1_000) {
            begun += 1;
            log.complete(disk.execute(command, None));
        }
    }
    assert_eq!(begun, 1);
    // The clock is set back; that holds up nothing.
    let begun: Vec<_> = (0..6).flat_map(|_| write_plainly(&mut disk, &mut log, 1)).collect();
    assert_eq!(begun.len(), 1);

    let mut disk = Disk::with_sectors(512);
    let mut log = open_with(&mut disk, &writing_back());
    for at in 0..50 {
        log.tick(Time::from_micros(1_000 * at));
        append(&mut disk, &mut log, &[7; 400]).unwrap();
        assert!(log.poll_command().is_none());
    }
}

#[test]
fn a_write_back_that_fails_has_lost_what_a_sync_may_not_tell() {
    for fault in [Fault::Fails, Fault::NoSpace] {
        let mut disk = Disk::with_sectors(512);
        let mut log = open_with(&mut disk, &writing_back());
        let begun: Vec<_> =
            (1..7).flat_map(|at| write_plainly(&mut disk, &mut log, 1_000 * at)).collect();
        for command in begun {
            log.complete(disk.execute(command, Some(fault)));
        }
        let poison = log.poison().expect("it failed");
        assert_eq!(poison.0.operation, Operation::WriteBack);
        assert_eq!(log.poll_command().map(|command| command.operation()), None);
        assert!(matches!(log.flush(Level::Disk), Err(AppendError::Poisoned(_))));
    }
}
