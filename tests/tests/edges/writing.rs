//! Appends: what is written and synced when, by whose wish, and what a failure ends.

use super::{append, config, fill, filled, open, open_with, recovered, run, run_failing};
use seawall_core::command::{Command, Lane, Operation};
use seawall_core::config::{Config, FsyncPolicy, Level};
use seawall_core::cursor::{Cursor, Step};
use seawall_core::error::{AppendError, RequestError};
use seawall_core::event::Event;
use seawall_core::id::{Lsn, SegmentId, Time};
use seawall_core::log::Log;
use seawall_core::record::{Entry, Record};
use seawall_core::wire::header::FRAMES_OFFSET;
use seawall_core::wire::name::FileId;
use seawall_tests::disk::{Disk, Fault, Memory};
use seawall_tests::opening::slice;
use std::time::Duration;

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
    // nor while there is none to move into, but for another try to make it.
    let now = log.next_deadline().unwrap_or(deadline).plus(Duration::from_micros(500));
    log.tick(now);
    run_failing(&mut disk, &mut log, |command| is_header(command).then_some(Fault::NoSpace));
    assert_eq!(log.next_deadline(), Some(now.plus(Duration::from_secs(1))));
    log.tick(now.plus(Duration::from_secs(1)));
    run(&mut disk, &mut log);
    assert!(log.next_deadline().is_some_and(|age| age < now), "it is past its age");
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
        // What is synced, up to a multiple of 64 KiB, and a larger one takes room for sixteen of
        // its length along, up to 256 KiB; what is not, up to a multiple of 32 KiB. What follows
        // fits in there.
        let ends = if level == Level::Disk { [64, 192, 384] } else { [32, 32, 128] };
        let [small, medium, large_end] = ends.map(|kib| (kib << 10) - 72);
        let padded = lengths(large.clone(), &[&[7; 100][..]; 3]);
        assert_eq!(padded, [small, next, next]);
        let padded = lengths(large.clone(), &[&[7; 8_000][..]; 2]);
        assert_eq!(padded, [medium, 14 + 8_000]);
        let value = vec![7; 170_000];
        // Behind a large one there is room for the next only where it was synced.
        let large_bytes = 15 + 100_000;
        let begin = 72 + 56 + large_bytes;
        let second = if level == Level::Disk { large_bytes } else { (224 << 10) - begin };
        let padded = lengths(large.clone(), &[&value[..100_000]; 2]);
        assert_eq!(padded, [large_end, second]);
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

/// The kernel tells a failed write-back once: a sync that runs beside it may not hear of it.
#[test]
fn nothing_is_synced_while_it_is_written_back_nor_the_other_way_round() {
    let put = |log: &mut Log<Memory>, level| {
        log.append(&Entry::from(&Record::put(b"key", &[7; 1_000])), level).unwrap();
    };
    let mut disk = Disk::with_sectors(512);
    let config = Config { write_back_bytes: Some(1 << 10), ..config() };
    let mut log = open_with(&mut disk, &config);
    put(&mut log, Level::Os);
    put(&mut log, Level::Os);
    let mut write_back = None;
    while let Some(command) = log.poll_command() {
        match command {
            Command::WriteBack(_) => write_back = Some(command),
            command => {
                log.complete(disk.execute(command, None));
            }
        }
    }
    // Neither a sync of what is there, nor a write with a sync.
    log.flush(Level::Disk).unwrap();
    assert!(log.poll_lane(Lane::Commit).is_none());
    put(&mut log, Level::Disk);
    assert!(log.poll_lane(Lane::Commit).is_none());
    log.complete(disk.execute(write_back.unwrap(), None));
    let sync = log.poll_lane(Lane::Commit).unwrap();
    assert!(matches!(&sync, Command::Write(write) if write.sync), "{sync:?}");
    // Meanwhile more comes, which is written back once that is over.
    put(&mut log, Level::Os);
    put(&mut log, Level::Os);
    let mut rest = Vec::new();
    while let Some(command) = log.poll_command() {
        assert_ne!(command.operation(), Operation::WriteBack);
        rest.push(command);
    }
    for command in rest.into_iter().chain([sync]) {
        log.complete(disk.execute(command, None));
    }
    assert_eq!(log.durable().lsn, Lsn::new(3));
}

#[test]
fn a_sync_that_ends_after_a_failure_makes_nothing_durable() {
    let mut disk = Disk::with_sectors(512);
    let mut log = filled(&mut disk, 40);
    let durable = log.durable();
    log.append(&Entry::from(&Record::put(b"key", b"y")), Level::Disk).unwrap();
    let write = log.poll_lane(Lane::Commit).unwrap();
    log.delete_before(Lsn::new(30)).unwrap();
    let manifest = log.poll_lane(Lane::Background).filter(is_manifest).unwrap();
    log.complete(disk.execute(manifest, Some(Fault::Fails)));
    assert!(log.poison().is_some());
    log.complete(disk.execute(write, None));
    assert_eq!(log.durable(), durable);
}

/// A sync of one segment says nothing of what waits in the next.
#[test]
fn a_sync_that_does_not_cover_all_leaves_the_window_as_it_is() {
    let mut disk = Disk::with_sectors(512);
    let window = Duration::from_micros(100);
    let config = Config { fsync_policy: FsyncPolicy::Batch(window), ..config() };
    let put = |log: &mut Log<Memory>, level| {
        log.append(&Entry::from(&Record::put(b"k", b"v")), level).unwrap();
    };
    let mut log = open_with(&mut disk, &config);
    let start = Time::from_micros(1_000);
    log.tick(start);
    put(&mut log, Level::Os);
    run(&mut disk, &mut log);
    log.flush(Level::Disk).unwrap();
    let later = start.plus(window / 10);
    log.tick(later);
    put(&mut log, Level::Buffered);
    log.tick(start.plus(window * 9 / 10));
    let sync = log.poll_lane(Lane::Commit).unwrap();
    assert_eq!(sync.operation(), Operation::Sync);
    log.complete(disk.execute(sync, None));
    assert_eq!(log.durable().lsn, Lsn::new(1));
    assert!(log.next_deadline().unwrap() <= later.plus(window), "{:?}", log.next_deadline());
}

/// Though no append needs it yet: its segment may have to end for its age.
#[test]
fn a_segment_that_could_not_be_made_is_tried_again_after_a_second() {
    let mut disk = Disk::with_sectors(512);
    let age = Duration::from_millis(1);
    let config = Config { segment_age_max: Some(age), ..config() };
    let (mut log, _) = recovered(&mut disk, &config);
    log.append(&Entry::from(&Record::put(b"k", b"v")), Level::Disk).err();
    let no_space = |command: &Command<Memory>| {
        (command.operation() == Operation::Create
            && command.file() == Some(FileId::Segment(SegmentId::new(2))))
        .then_some(Fault::NoSpace)
    };
    run_failing(&mut disk, &mut log, no_space);
    log.append(&Entry::from(&Record::put(b"k", b"v")), Level::Disk).unwrap();
    run_failing(&mut disk, &mut log, no_space);
    let second = Duration::from_secs(1);
    let again = log.next_deadline().unwrap();
    assert!(!log.tick(again.plus(second)), "that nobody waits for");
    run(&mut disk, &mut log);
    log.tick(again.plus(second * 2));
    run(&mut disk, &mut log);
    assert_eq!(log.segments().count(), 2, "it was past its age");
}

/// An append that needs the next segment is told of a failure of now, not of one long ago.
#[test]
fn an_append_is_not_refused_for_an_old_failure() {
    let mut disk = Disk::with_sectors(512);
    let (mut log, _) = recovered(&mut disk, &config());
    let create = |command: &Command<Memory>| {
        (command.operation() == Operation::Create
            && command.file() == Some(FileId::Segment(SegmentId::new(2))))
        .then_some(Fault::NoSpace)
    };
    let put = |log: &mut Log<Memory>| {
        log.append(&Entry::from(&Record::put(b"key", &[7; 500])), Level::Disk)
    };
    // The second segment cannot be made as long as the first has room.
    while log.appended().end.offset < 7 << 10 {
        put(&mut log).ok();
        run_failing(&mut disk, &mut log, create);
    }
    // Then there is room again.
    while log.segments().count() < 2 {
        assert!(matches!(put(&mut log), Ok(_) | Err(AppendError::Busy)));
        run(&mut disk, &mut log);
    }
    // Where there is not, the append that waits for it is refused, and the next asks again.
    let (mut refusals, mut tries) = (0, 0);
    while refusals < 3 {
        tries += 1;
        refusals += u32::from(matches!(put(&mut log), Err(AppendError::DiskFull(_))));
        run_failing(&mut disk, &mut log, |command| {
            (command.operation() == Operation::Create).then_some(Fault::NoSpace)
        });
        assert!(tries < 100);
    }
}

#[test]
fn a_poisoned_log_ends_no_segment_for_its_age() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { segment_age_max: Some(Duration::from_micros(100)), ..config() };
    let mut log = open_with(&mut disk, &config);
    append(&mut disk, &mut log, b"x").unwrap();
    let deadline = log.next_deadline().unwrap();
    log.append(&Entry::from(&Record::put(b"key", b"y")), Level::Disk).unwrap();
    run_failing(&mut disk, &mut log, |_| Some(Fault::Fails));
    while log.poll_event().is_some() {}
    assert!(!log.tick(deadline.plus(Duration::from_secs(1))));
    assert_eq!((log.segments().count(), log.poll_event()), (1, None));
}
