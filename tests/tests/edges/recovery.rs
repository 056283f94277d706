//! Recoveries: what they read, what they tell, what they cut, and what they cannot do.

use super::{
    append, config, deleted, filled, manifest, name, open, open_with, recovered, run, sealed, tried,
};
use seawall_core::command::{Command, Folder, Lane, Listed, Operation};
use seawall_core::config::{Config, Level, RecoveryPolicy, RecoveryScan};
use seawall_core::id::{LogId, Lsn, Position, SegmentId};
use seawall_core::log::{Log, SegmentInfo};
use seawall_core::record::{Entry, Record};
use seawall_core::recover::{
    Mode, Proof, RangeKind, Recovery, RecoveryError, RecoveryStart, Report,
};
use seawall_core::wire::frame::HEAD_BYTES_MAX;
use seawall_core::wire::header::{FRAMES_OFFSET, HeaderError};
use seawall_core::wire::known::{KNOWN_BYTES, Known};
use seawall_core::wire::name::{FileId, FileName, Quarantined};
use seawall_tests::disk::{Disk, Fault, Memory};
use seawall_tests::opening::{Go, read_all, recover, start};
use seawall_tests::records::record_bytes;
use std::collections::BTreeSet;

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

/// Makes a file so long with bytes in which everywhere a record seems to begin that ends where the
/// file does.
fn fill_with_heads(bytes: &mut Vec<u8>, limit: usize) {
    while bytes.len() + 12 < limit {
        let value_bytes = (limit - bytes.len() - 12) as u64;
        let groups = [value_bytes | 0x80, value_bytes >> 7 | 0x80, value_bytes >> 14];
        bytes.extend([1, 9, 9, 9, 9, 2, 0, 0, 0]);
        bytes.extend(groups.map(|group| group.to_le_bytes()[0]));
    }
    bytes.resize(limit, 0);
}

#[test]
fn what_a_bounded_search_gave_up_is_kept() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { segment_bytes_max: 1 << 20, ..config() };
    let mut log = open_with(&mut disk, &config);
    append(&mut disk, &mut log, b"kept").unwrap();
    let end = log.durable().end;
    drop(log);
    let name = FileId::Segment(end.segment).name();
    let from = usize::try_from(end.offset).unwrap();
    disk.damage(name, |bytes| {
        bytes.truncate(from);
        fill_with_heads(bytes, 800 << 10);
    });
    let wanted = disk.content(name).unwrap()[from..].to_vec();
    let report = recovered(&mut disk, &config).1;
    assert_eq!((report.last_lsn, report.damage), (Lsn::new(1), None));
    let range = report.ranges.iter().find(|range| range.kind == RangeKind::Torn).unwrap();
    assert_eq!(disk.content(range.moved_to.unwrap()).unwrap(), wanted);
    let report = recovered(&mut disk, &config).1;
    assert!(report.ranges.iter().all(|range| range.kind != RangeKind::Torn), "it was cut");
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
    assert_eq!((report.records, report.last_lsn), (2, Lsn::new(2)));
    disk.crash_by(512, |_| 0);
    let report = recovered(&mut disk, &salvage).1;
    assert_eq!((report.records, report.last_lsn), (2, Lsn::new(2)));
}

/// The LSNs of all records that a reader finds, holes passed over.
fn shown(disk: &Disk, log: &Log<Memory>) -> Vec<u64> {
    let mut lsns = Vec::new();
    let each = |lsn, _: &[u8], _: &[u8]| {
        lsns.push(lsn);
        Ok(())
    };
    read_all(disk, log, seawall_tests::crc(), each).unwrap();
    lsns
}

/// A log of two segments with so many records in each; the manifest was last written before there
/// were any in the second. And where the frames of the first end.
fn of_two_segments(disk: &mut Disk, records: [u64; 2]) -> u64 {
    let mut log = open(disk);
    for (index, count) in records.into_iter().enumerate() {
        for _ in 0..count {
            append(disk, &mut log, &[7; 300]).unwrap();
        }
        if index == 0 {
            log.rotate().unwrap();
            run(disk, &mut log);
        }
    }
    assert_eq!(manifest(disk).durable.lsn, Lsn::new(records[0]));
    sealed(&log).1.frames_end
}

fn salvage() -> Config {
    Config { recovery: RecoveryPolicy::Salvage, ..config() }
}

#[test]
fn a_salvaged_log_appends_where_a_reader_finds_it() {
    for scan in [RecoveryScan::Tail, RecoveryScan::Full] {
        let config = Config { scan, ..salvage() };
        for is_footer_damaged in [false, true] {
            let mut disk = Disk::with_sectors(512);
            let frames_end = usize::try_from(of_two_segments(&mut disk, [10, 14])).unwrap();
            disk.damage(name(2), |bytes| bytes[80] ^= 1);
            if is_footer_damaged {
                disk.damage(name(1), |bytes| bytes[frames_end + 5] ^= 1);
            }
            for last in [24, 26, 28] {
                let (mut log, report) = recovered(&mut disk, &config);
                assert!(report.damage.is_some());
                assert_eq!(report.last_lsn, Lsn::new(last));
                assert_eq!(shown(&disk, &log), (1..=last).collect::<Vec<_>>());
                run(&mut disk, &mut log);
                for next in [last + 1, last + 2] {
                    assert_eq!(append(&mut disk, &mut log, b"x"), Ok(Lsn::new(next)));
                }
                assert_eq!(shown(&disk, &log), (1..=last + 2).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn what_salvage_keeps_is_told_as_kept() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 55);
    assert_eq!(log.segments().count(), 4);
    let frame_bytes = (sealed(&log).1.frames_end - 128) / 15;
    drop(log);
    let full = Config { scan: RecoveryScan::Full, ..salvage() };
    disk.damage(name(2), |bytes| bytes[700] ^= 1);
    disk.damage(name(3), |bytes| bytes[80] ^= 1);
    let (log, report) = recovered(&mut disk, &full);
    let kinds: Vec<_> = report.ranges.iter().map(|range| (range.kind, range.file)).collect();
    let told = [(RangeKind::Corrupt, name(2)), (RangeKind::Corrupt, name(3))];
    assert_eq!(kinds[..2], told);
    assert!(kinds[2..].iter().all(|(kind, _)| *kind == RangeKind::Zeros), "{kinds:?}");
    assert_eq!(report.bytes_cut(), frame_bytes + 56);
    assert_eq!(shown(&disk, &log).len(), 54);
}

#[test]
fn a_damaged_segment_that_the_log_has_passed_over_goes_to_quarantine() {
    let mut disk = Disk::with_sectors(512);
    of_two_segments(&mut disk, [10, 14]);
    // What the segment was, and so its salt, is lost: no frame of it can be told.
    disk.damage(name(2), |bytes| bytes[24] ^= 1);
    let damaged = disk.content(name(2)).unwrap().to_vec();
    let mut log = open_with(&mut disk, &salvage());
    assert_eq!(append(&mut disk, &mut log, b"x"), Ok(Lsn::new(11)));
    drop(log);
    let strict = Config { recovery: RecoveryPolicy::Strict, ..config() };
    assert!(matches!(tried(&mut disk, &strict), Err(RecoveryError::Damaged(_))));
    for config in [salvage(), config()] {
        let mut disk = disk.clone();
        let (log, report) = recovered(&mut disk, &config);
        assert_eq!(shown(&disk, &log), (1..=11).collect::<Vec<_>>());
        let range = report.ranges.iter().find(|range| range.file == name(2)).unwrap();
        assert_eq!((range.kind, range.end), (RangeKind::Corrupt, damaged.len() as u64));
        assert_eq!(disk.content(range.moved_to.unwrap()).unwrap(), damaged);
        assert!(disk.content(name(2)).is_none());
        let (_, report) = recovered(&mut disk, &strict);
        assert_eq!((report.is_damaged(), report.last_lsn), (false, Lsn::new(11)));
    }
}

/// Copies the first segment of another log there under this number, damaged or not.
fn put_foreign(disk: &mut Disk, number: u64, damage: impl FnOnce(&mut [u8])) {
    let mut other = Disk::with_sectors(512);
    let begin = RecoveryStart { new_log_id: LogId([9; 16]), ..start(&config(), 7, 7) };
    let mut log = recover(&mut other, begin, |_, _| Go::On(None)).unwrap().unwrap().0;
    run(&mut other, &mut log);
    append(&mut other, &mut log, b"theirs").unwrap();
    let mut theirs = other.content(name(1)).unwrap().to_vec();
    damage(&mut theirs);
    disk.place(name(number), theirs);
}

#[test]
fn what_is_not_this_logs_is_named_where_a_leftover_would_stand() {
    // Below the first segment, and where a truncation has passed numbers over.
    let mut below = Disk::with_sectors(512);
    drop(deleted(&mut below, &config(), 3));
    let mut between = Disk::with_sectors(512);
    let mut log = filled(&mut between, 40);
    log.truncate_after(Lsn::new(20)).unwrap();
    run(&mut between, &mut log);
    drop(log);
    let cap = manifest(&between).cap.unwrap();
    assert!(cap.segment.next() < cap.resume);
    for (disk, number) in [(below, 1), (between, cap.segment.next().get())] {
        for policy in [RecoveryPolicy::PrefixValid, RecoveryPolicy::Strict, RecoveryPolicy::Salvage]
        {
            let config = Config { recovery: policy, ..config() };
            let mut foreign = disk.clone();
            put_foreign(&mut foreign, number, |_| ());
            match tried(&mut foreign, &config) {
                Err(RecoveryError::Foreign { file, .. }) => assert_eq!(file, name(number)),
                result => panic!("{:?}", result.map(|(_, report)| report)),
            }
            assert!(foreign.content(name(number)).is_some());
            let mut newer = disk.clone();
            put_foreign(&mut newer, number, |bytes| {
                bytes[8] = 9;
                let sum = seawall_tests::crc()(0, &bytes[..68]);
                bytes[68..72].copy_from_slice(&sum.to_le_bytes());
            });
            match tried(&mut newer, &config) {
                Err(RecoveryError::Unreadable(file, HeaderError::NewerFormat(9))) => {
                    assert_eq!(file, name(number));
                }
                result => panic!("{:?}", result.map(|(_, report)| report)),
            }
            assert!(newer.content(name(number)).is_some());
            // What is damaged is none's any more, and the number is this log's.
            let mut damaged = disk.clone();
            put_foreign(&mut damaged, number, |bytes| bytes[24] ^= 1);
            let (_, report) = recovered(&mut damaged, &config);
            assert!(!report.is_damaged() && damaged.content(name(number)).is_none());
        }
    }
}

#[test]
fn copies_that_were_not_finished_go_and_a_number_is_found_for_the_next() {
    let mut disk = Disk::with_sectors(512);
    let log = filled(&mut disk, 40);
    let (info, _) = sealed(&log);
    drop(log);
    let quarantined = |generation, offset| {
        FileId::Quarantined(Quarantined { generation, segment: info.segment, offset })
    };
    let old = quarantined(u64::MAX, Some(128)).name();
    disk.place(old, b"of long ago".to_vec());
    disk.damage(name(info.segment.get()), |bytes| bytes[700] ^= 1);
    let config = Config { scan: RecoveryScan::Full, ..config() };
    let is_new = |name: &FileName| name.is_new;
    for _ in 0..3 {
        let opened = recover(&mut disk, start(&config, 7, 7), |_, command| {
            let copies = command.operation() == Operation::Write
                && matches!(command.file(), Some(FileId::Quarantined(_)));
            Go::On(copies.then_some(Fault::NoSpace))
        });
        assert!(matches!(opened, Some(Err(RecoveryError::Io(_)))));
        assert_eq!(disk.names().filter(is_new).count(), 1, "one is left at most");
    }
    let mut removed = false;
    let opened = recover(&mut disk, start(&config, 7, 7), |_, command| {
        removed |= command.operation() == Operation::Remove;
        let is_first =
            matches!(command, Command::SyncDir(sync) if sync.folder == Folder::Quarantine);
        assert!(removed || !is_first, "the room is back before it is needed");
        Go::On(None)
    });
    let report = opened.unwrap().unwrap().1;
    assert_eq!(disk.names().filter(is_new).count(), 0);
    let range = report.ranges.iter().find(|range| range.kind == RangeKind::Corrupt).unwrap();
    let FileId::Quarantined(to) = range.moved_to.unwrap().file else { panic!("{range:?}") };
    assert_eq!(to.generation, 1, "there is none above");
    assert_eq!(disk.content(old).unwrap(), b"of long ago");
}

#[test]
fn what_salvage_cuts_off_the_end_is_kept() {
    let mut disk = Disk::with_sectors(512);
    let mut log = filled(&mut disk, 5);
    let last = usize::try_from(log.durable().end.offset).unwrap();
    append(&mut disk, &mut log, &[7; 300]).unwrap();
    log.close().unwrap();
    run(&mut disk, &mut log);
    drop(log);
    // The last record and the mark behind it.
    disk.damage(name(1), |bytes| {
        let end = bytes.len();
        bytes[last + 20] ^= 1;
        bytes[end - 1] ^= 1;
    });
    let cut = disk.content(name(1)).unwrap()[last..].to_vec();
    assert!(cut.len() > 310);
    let (mut log, report) = recovered(&mut disk, &salvage());
    assert_eq!((report.last_lsn, report.bytes_cut()), (Lsn::new(5), cut.len() as u64));
    let range = report.ranges.iter().find(|range| range.kind == RangeKind::Corrupt).unwrap();
    assert_eq!(disk.content(range.moved_to.unwrap()).unwrap(), cut);
    // The log knows how long the file is now, and reserves the space that it goes on in.
    let mut reserved = Vec::new();
    let entry = [7; 300];
    log.append(&Entry::from(&Record::put(b"key", &entry)), Level::Disk).unwrap();
    super::run_failing(&mut disk, &mut log, |command| {
        if let Command::Allocate(allocate) = command {
            reserved.push((allocate.name, allocate.from));
        }
        None
    });
    assert_eq!(reserved[0], (name(1), report.end.offset));
    assert_eq!(shown(&disk, &log), (1..=6).collect::<Vec<_>>());
}

#[test]
fn what_a_bounded_search_gave_up_is_kept_of_later_segments_too() {
    let mut disk = Disk::with_sectors(512);
    let config = Config { segment_bytes_max: 1 << 20, ..config() };
    let mut log = open_with(&mut disk, &config);
    append(&mut disk, &mut log, b"kept").unwrap();
    drop(log);
    // The next segment, whose link was torn.
    disk.damage(name(2), |bytes| {
        bytes.truncate(128);
        bytes[72..128].fill(9);
        fill_with_heads(bytes, 800 << 10);
    });
    let wanted = disk.content(name(2)).unwrap()[72..].to_vec();
    let report = recovered(&mut disk, &config).1;
    assert_eq!((report.last_lsn, report.damage), (Lsn::new(1), None));
    let torn = report.ranges.iter().filter(|range| range.kind == RangeKind::Torn);
    let moved: Vec<_> = torn.map(|range| (range.start, range.moved_to.unwrap())).collect();
    assert_eq!(moved.iter().map(|(start, _)| *start).collect::<Vec<_>>(), [72, 128]);
    assert_eq!(disk.content(moved[0].1).unwrap(), wanted);
}
