//! Deletions, truncations and closes: at the wrong time, cut short, and what they leave.

use super::{
    append, config, filled, manifest, name, open, open_with, recovered, run, run_failing, sealed,
};
use seawall_core::command::{Command, Operation};
use seawall_core::config::{Config, FsyncPolicy, Level};
use seawall_core::error::{AppendError, RequestError};
use seawall_core::id::{Lsn, SegmentId};
use seawall_core::log::Log;
use seawall_core::record::{Entry, Record};
use seawall_core::wire::checksum::ChecksumKind;
use seawall_core::wire::frame::{FrameKind, Head, Parsed};
use seawall_core::wire::name::FileId;
use seawall_tests::disk::{Disk, Fault, Memory};
use std::time::Duration;

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

type Ask<'a> = &'a dyn Fn(&mut Log<Memory>) -> Result<(), RequestError>;

/// A full disk undoes what a request was to make durable first.
#[test]
fn a_request_for_what_a_full_disk_undoes_ends_and_says_so() {
    let put = |log: &mut Log<Memory>| {
        log.append(&Entry::from(&Record::put(b"key", b"value")), Level::Buffered).unwrap();
    };
    let full = |command: &Command<Memory>| {
        matches!(command, Command::Write(write) if write.name.is_segment())
            .then_some(Fault::NoSpace)
    };
    // Of the first segment nothing is left, or something is.
    for durable in [0, 1] {
        let asked: [(Ask<'_>, bool); 4] = [
            (&|log| log.truncate_after(Lsn::new(5)), true),
            (&|log| log.close(), true),
            (&|log| log.truncate_after(Lsn::new(durable)), false),
            (&|log| log.delete_before(Lsn::new(5)), false),
        ];
        for (ask, is_refused) in asked {
            let mut disk = Disk::with_sectors(512);
            let mut log = open(&mut disk);
            // There is a segment to write to.
            while log.rotate() == Err(AppendError::Busy)
                || log.append(&Entry::from(&Record::put(b"k", b"")), Level::Disk).is_err()
            {
                run(&mut disk, &mut log);
            }
            if durable == 0 {
                run_failing(&mut disk, &mut log, full);
            }
            run(&mut disk, &mut log);
            assert_eq!(log.durable().lsn, Lsn::new(durable));
            for _ in 0..10 {
                put(&mut log);
            }
            ask(&mut log).unwrap();
            run_failing(&mut disk, &mut log, full);
            // A deletion needs nothing durable.
            let result = log.take_request_result().expect("it ends");
            let is_full = matches!(result, Err(RequestError::DiskFull(_)));
            assert_eq!(is_full, is_refused, "{result:?}");
            assert!(is_full || result == Ok(()), "{result:?}");
            // The log goes on.
            let before = log.appended().lsn;
            assert_eq!(append(&mut disk, &mut log, b"on"), Ok(before.next()));
            log.close().unwrap();
            run(&mut disk, &mut log);
            assert_eq!(log.take_request_result(), Some(Ok(())));
        }
    }
}
