//! Space: reserved in steps, given back, or taken over from a segment that was deleted.

use super::{append, config, deleted, name, open_with, recovered, run, run_failing};
use seawall_core::command::{Command, Lane, Operation};
use seawall_core::config::{Config, FsyncPolicy, Level, RecoveryPolicy};
use seawall_core::error::AppendError;
use seawall_core::id::{Lsn, SegmentId};
use seawall_core::log::Log;
use seawall_core::record::{Entry, Record};
use seawall_core::recover::RangeKind;
use seawall_core::wire::checksum::ChecksumKind;
use seawall_core::wire::name::FileId;
use seawall_tests::disk::{Disk, Fault, Memory, end_of};

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

/// Fills segments, with `fault` for each reservation past the end of a file, and gives those: of
/// which segment, from and up to where.
fn reserved_past_end(disk: &mut Disk, log: &mut Log<Memory>, fault: Option<Fault>) -> Vec<Asked> {
    let mut asked = Vec::new();
    let last = log.segments().last().unwrap().segment.get() + 2;
    while log.segments().last().unwrap().segment.get() < last {
        log.append(&Entry::from(&Record::put(b"key", &[7; 200])), Level::Disk).ok();
        let end = log.appended().end;
        while let Some(command) = log.poll_command() {
            let mut fails = None;
            if let Command::Allocate(allocate) = &command
                && allocate.file_bytes == 0
            {
                let is_half_full = end.offset >= 4 << 10;
                assert!(is_half_full || end.segment > SegmentId::FIRST, "{end:?}");
                let before = disk.content(allocate.name).unwrap().len();
                asked.push((allocate.name.file, allocate.from, allocate.to, before));
                fails = fault;
            }
            log.complete(disk.execute(command, fails));
        }
    }
    asked
}

type Asked = (FileId, u64, u64, usize);

#[test]
fn the_rest_of_the_next_segment_is_reserved_behind_its_end_once_half_of_one_is_full() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { reserve_bytes: 1_024, reserve_past_end: true, ..config() };
    let mut log = open_with(&mut disk, &config);
    append(&mut disk, &mut log, b"x").unwrap();
    let asked = reserved_past_end(&mut disk, &mut log, None);
    let of = |segment| (FileId::Segment(SegmentId::new(segment)), 1_024, 8 << 10, 1_024);
    // Behind the first that is full, as soon as it is there.
    assert_eq!(asked, [of(2), of(3), of(4)]);
    // Nothing more is reserved of them.
    let active = log.appended().end.segment;
    while log.appended().end.segment == active {
        log.append(&Entry::from(&Record::put(b"key", &[7; 200])), Level::Disk).ok();
        while let Some(command) = log.poll_command() {
            let is_of_this = command.file() == Some(FileId::Segment(active));
            assert!(!is_of_this || command.operation() != Operation::Allocate, "{command:?}");
            log.complete(disk.execute(command, None));
        }
    }
    // Opened again it has what is there, and goes on in steps.
    let durable = log.durable().lsn;
    drop(log);
    let mut log = open_with(&mut disk, &config);
    assert_eq!(log.durable().lsn, durable);
    assert!(!reserved_past_end(&mut disk, &mut log, None).is_empty());
}

#[test]
fn where_the_rest_cannot_be_reserved_the_next_segment_is_reserved_in_steps() {
    for fault in [Fault::NoSpace, Fault::Fails] {
        let mut disk = Disk::with_sectors(512);
        let config = Config { reserve_bytes: 1_024, reserve_past_end: true, ..config() };
        let mut log = open_with(&mut disk, &config);
        append(&mut disk, &mut log, b"x").unwrap();
        let asked = reserved_past_end(&mut disk, &mut log, Some(fault));
        assert_eq!(asked.len(), 3, "once for each segment: {asked:?}");
        let segment = log.appended().end.segment;
        let name = FileId::Segment(segment).name();
        let mut steps = 0;
        while log.appended().end.segment == segment {
            log.append(&Entry::from(&Record::put(b"key", &[7; 200])), Level::Disk).ok();
            while let Some(command) = log.poll_command() {
                if let Command::Allocate(step) = &command {
                    steps += u32::from(step.name == name && step.file_bytes > 0);
                }
                log.complete(disk.execute(command, None));
            }
        }
        assert!(steps > 1, "{steps}");
    }
}

/// A log that is faster than the file system may be in the next segment before.
#[test]
fn a_move_does_not_wait_for_the_rest_to_be_reserved_and_a_request_does() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { reserve_bytes: 1_024, reserve_past_end: true, ..config() };
    let mut log = open_with(&mut disk, &config);
    let mut rest = Vec::new();
    let mut put = |log: &mut Log<Memory>, rest: &mut Vec<Command<Memory>>| {
        log.append(&Entry::from(&Record::put(b"key", &[7; 200])), Level::Disk).ok();
        while let Some(command) = log.poll_command() {
            if matches!(&command, Command::Allocate(allocate) if allocate.file_bytes == 0) {
                rest.push(command);
            } else {
                log.complete(disk.execute(command, None));
            }
        }
    };
    while log.durable().end.segment < SegmentId::new(2) || log.durable().end.offset < 3_000 {
        put(&mut log, &mut rest);
    }
    log.close().unwrap();
    put(&mut log, &mut rest);
    assert!(!log.is_closed());
    assert_eq!(rest.len(), 2, "of the second segment, and of the third");
    for command in rest {
        assert!(!log.is_closed());
        log.complete(disk.execute(command, None));
        run(&mut disk, &mut log);
    }
    assert!(log.is_closed());
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

/// What was reserved and not used is cut off with what a full disk did not take.
#[test]
fn what_a_rollback_has_cut_is_reserved_again() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { reserve_bytes: 4 << 10, preallocate: true, ..config() };
    let mut log = open_with(&mut disk, &config);
    append(&mut disk, &mut log, b"x").unwrap();
    log.append(&Entry::from(&Record::put(b"key", &[7; 500])), Level::Disk).unwrap();
    run_failing(&mut disk, &mut log, |command| {
        let is_batch = matches!(command, Command::Write(write) if write.name.is_segment());
        is_batch.then_some(Fault::NoSpace)
    });
    let end = log.appended().end.offset;
    assert_eq!(log.appended().lsn, Lsn::new(1));
    let reserved = disk.content(name(1)).unwrap().len() as u64;
    assert!(reserved >= end + (2 << 10), "{reserved}, {end}");
    // Where none can be had, the log goes without, and without zeros.
    let mut disk = Disk::with_sectors(512);
    let mut log = open_with(&mut disk, &config);
    append(&mut disk, &mut log, b"x").unwrap();
    log.append(&Entry::from(&Record::put(b"key", &[7; 500])), Level::Disk).unwrap();
    let full = |command: &Command<Memory>| {
        let is_batch = matches!(command, Command::Write(write) if write.name.is_segment());
        (is_batch || command.operation() == Operation::Allocate).then_some(Fault::NoSpace)
    };
    run_failing(&mut disk, &mut log, full);
    append(&mut disk, &mut log, b"y").unwrap();
    assert_eq!(disk.content(name(1)).unwrap().len() as u64, log.appended().end.offset);
}

#[test]
fn a_segment_of_longer_settings_is_not_recycled() {
    let mut disk = Disk::with_sectors(512);
    let long = Config { segment_bytes_max: 64 << 10, recycle_max: 2, ..config() };
    let log = filled_to(&mut disk, &long, 3);
    drop(log);
    let short = Config { segment_bytes_max: 8 << 10, ..long };
    let mut log = open_with(&mut disk, &short);
    log.delete_before(log.appended().lsn).unwrap();
    move_on(&mut disk, &mut log, 3);
    assert_eq!(log.take_request_result(), Some(Ok(())));
    for info in log.segments().filter(|info| info.segment > SegmentId::new(3)) {
        let file = disk.content(FileId::Segment(info.segment).name()).unwrap();
        assert!(file.len() <= 8 << 10, "{info:?} is {} bytes long", file.len());
    }
}

/// A log of so many segments.
fn filled_to(disk: &mut Disk, config: &Config, segments: usize) -> Log<Memory> {
    let mut log = open_with(disk, config);
    while log.segments().count() < segments {
        append(disk, &mut log, &[7; 500]).unwrap();
    }
    log
}
