//! Damage to every part of every file: each is detected or harmless, nothing is lost without a
//! word, and what was cut is kept (invariants 9 to 12).
//!
//! On the simulated disk, where an opening takes some microseconds, so that every single bit can be
//! flipped under every policy.

use seawall_core::config::RecoveryPolicy;
use seawall_core::id::SegmentId;
use seawall_core::recover::{RangeKind, Report};
use seawall_core::wire::header::FRAMES_OFFSET;
use seawall_core::wire::name::{FileId, FileName};
use seawall_tests::disk::Disk;
use seawall_tests::oracle::Frame;
use seawall_tests::small::{Built, append, build, config, content, inspect, open, read, snapshot};
use std::collections::BTreeSet;

const POLICIES: [RecoveryPolicy; 3] =
    [RecoveryPolicy::PrefixValid, RecoveryPolicy::Strict, RecoveryPolicy::Salvage];

/// Records for two segments, and for three, so that one has others on both sides. Of the former
/// every bit can be flipped in good time.
const SHORT: usize = 45;
const LONG: usize = 60;

/// The log's own files, without quarantine.
fn files(disk: &Disk) -> Vec<FileName> {
    disk.names().filter(|name| !matches!(name.file, FileId::Quarantined(_))).collect()
}

/// What is left of a frame.
struct Left {
    frame: Frame,
    /// Where its head begins: where the frame before it ends.
    start: u64,
    /// It is as it was written, and its segment's header is.
    is_whole: bool,
    /// Its segment has no file.
    is_gone: bool,
}

fn left(built: &Built, damaged: &Disk) -> Vec<Left> {
    let mut before = (0, 0);
    let all = built.frames.iter().map(|frame| {
        let start = if before.0 == frame.segment { before.1 } else { FRAMES_OFFSET };
        before = (frame.segment, frame.end);
        let name = FileId::Segment(SegmentId::new(frame.segment)).name();
        let is_same = |from: u64, to: u64| {
            let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
            let now = damaged.content(name).and_then(|bytes| bytes.get(range.clone()));
            now.is_some() && now == built.disk.content(name).unwrap().get(range)
        };
        let is_whole = is_same(0, FRAMES_OFFSET) && is_same(start, frame.end);
        Left { frame: *frame, start, is_whole, is_gone: damaged.content(name).is_none() }
    });
    all.collect()
}

/// Opens a damaged log under every policy and checks what comes of it.
fn check(what: &str, damaged: &Disk, built: &Built) {
    let frames = left(built, damaged);
    for policy in POLICIES {
        let mut disk = damaged.clone();
        let before = snapshot(&disk);
        let found = inspect(&mut disk, config(policy));
        assert!(snapshot(&disk) == before, "{what}, {policy:?}: looking changes nothing");
        let (log, report) = match open(&mut disk, config(policy)) {
            Ok(opened) => opened,
            Err(error) => {
                let text = error.to_string();
                let names_file = text.contains(".wal") || text.contains("MANIFEST");
                assert!(names_file || text.contains("damaged"), "{what}, {policy:?}: {text}");
                assert!(snapshot(&disk) == before, "{what}, {policy:?}: a refusal changes nothing");
                continue;
            }
        };
        let seen = found.expect("what opens can be looked at").1;
        assert_eq!(seen.damage, report.damage, "{what}, {policy:?}: both see the same");
        let segments: Vec<_> = log.segments().collect();
        let end = log.durable().end;
        let salvages = policy == RecoveryPolicy::Salvage;
        let records = read(&disk, &segments, (end.segment, end.offset), salvages);
        let ascends = records.windows(2).all(|pair| pair[0].0 < pair[1].0);
        assert!(ascends, "{what}, {policy:?}: out of order");
        for (lsn, content) in &records {
            let index = usize::try_from(lsn.get()).unwrap() - 1;
            assert!(built.all[index] == *content, "{what}, {policy:?}: LSN {lsn} is made up");
        }
        let there: BTreeSet<u64> = records.iter().map(|(lsn, _)| lsn.get()).collect();
        check_loss(&format!("{what}, {policy:?}"), built, &frames, &there, &report, salvages);
        if salvages {
            continue;
        }
        let last = there.last().copied().unwrap_or(report.last_lsn.get());
        let first = there.first().copied().unwrap_or(last + 1);
        assert_eq!(first, report.first_lsn.get(), "{what}, {policy:?}");
        assert_eq!(last + 1 - first, there.len() as u64, "{what}, {policy:?}: not a prefix");
        drop(log);
        let (again, report) = open(&mut disk, config(policy)).expect("mended once");
        assert!(report.damage.is_none(), "{what}, {policy:?}: mended for good: {report:?}");
        assert_eq!(again.appended().lsn.get(), last, "{what}, {policy:?}");
    }
}

/// What no damage has touched is there: all that stands before it, and with `salvages` all behind
/// it as well. What is lost is told: as damage, with its place and the numbers of what is lost; or,
/// of a log that was not closed, its end as torn.
fn check_loss(
    what: &str,
    built: &Built,
    frames: &[Left],
    there: &BTreeSet<u64>,
    report: &Report,
    salvages: bool,
) {
    let is_kept = |frame: &Frame| (frame.first..=frame.last).all(|lsn| there.contains(&lsn));
    let mut is_before = true;
    for Left { frame, is_whole, .. } in frames {
        is_before &= is_whole;
        let must_be_there = is_before || (salvages && *is_whole);
        assert!(!must_be_there || is_kept(frame), "{what}: {frame:?} is not touched: {report:?}");
    }
    let all = built.all.len() as u64;
    let lost: Vec<u64> = (1..=all).filter(|lsn| !there.contains(lsn)).collect();
    let Some(first_lost) = lost.first() else { return };
    let at = frames.iter().position(|left| left.frame.last >= *first_lost).unwrap();
    let wholes = || frames.iter().filter(|left| left.is_whole);
    let is_there = |kind, file| report.ranges.iter().any(|it| it.kind == kind && it.file == file);
    let Some(damage) = report.damage else {
        let kinds = [RangeKind::Torn, RangeKind::Zeros, RangeKind::Orphaned];
        let is_torn = report.ranges.iter().any(|range| kinds.contains(&range.kind));
        let known = wholes().map(|left| left.frame.claim).max().unwrap_or(0);
        let may_be_torn = !built.is_closed && is_torn && *first_lost > known;
        // With the manifest goes what says where the log begins and ends.
        let is_rebuilt = is_there(RangeKind::Corrupt, FileId::Manifest.name());
        let may_be_elsewhere = is_rebuilt && frames[at].is_gone;
        assert!(may_be_torn || may_be_elsewhere, "{what}: {lost:?} lost: {report:?}");
        return;
    };
    let segment = SegmentId::new(frames[at].frame.segment);
    assert_eq!(damage.first_lost.get(), *first_lost, "{what}: {report:?}");
    let last_whole = wholes().next_back().map_or(0, |left| left.frame.last);
    let last_known = last_whole.max(damage.durable.get());
    let last_lost = damage.last_lost.get();
    assert!((last_known..=all).contains(&last_lost), "{what}: lost to {last_lost}: {report:?}");
    // It begins where the first frame lost does, or before that where a header is broken.
    let place = (damage.position.segment.get(), damage.position.offset);
    assert!(place <= (segment.get(), frames[at].start), "{what}: {report:?}");
    let kept = frames[..at].last().map_or((0, 0), |left| (left.frame.segment, left.frame.end));
    assert!(place >= kept, "{what}: {kept:?} is kept: {report:?}");
}

#[test]
fn every_flipped_bit_of_a_closed_log_is_detected_or_harmless() {
    flip_every_bit(true);
}

#[test]
fn every_flipped_bit_of_a_killed_log_is_detected_or_harmless() {
    flip_every_bit(false);
}

fn flip_every_bit(closed: bool) {
    let built = build(SHORT, closed);
    let disk = &built.disk;
    let mut flips = 0;
    for name in files(disk) {
        let bytes = disk.content(name).unwrap().len();
        for bit in 0..bytes * 8 {
            // The manifest is two slots of 128 bytes in empty pages, which nothing reads.
            let is_empty = name.file == FileId::Manifest && bit / 8 % 4_096 >= 128;
            if is_empty && bit % 64 != 0 {
                continue;
            }
            let mut damaged = disk.clone();
            damaged.damage(name, |content| content[bit / 8] ^= 1 << (bit % 8));
            check(&format!("{name} bit {bit}, closed {closed}"), &damaged, &built);
            flips += 1;
        }
    }
    println!("{flips} bits flipped, each opened under 3 policies");
}

#[test]
fn a_lost_link_takes_no_record_from_a_salvaged_log() {
    for closed in [true, false] {
        let Built { disk, mut all, .. } = build(SHORT, closed);
        let segments = files(&disk).into_iter().filter(|name| name.is_segment());
        // The next segment has no link yet.
        let bits = segments.flat_map(|name| {
            let bytes = disk.content(name).unwrap().len().min(128);
            (72 * 8..bytes * 8).map(move |bit| (name, bit))
        });
        for (name, bit) in bits {
            let what = format!("{name} bit {bit}, closed {closed}");
            let mut disk = disk.clone();
            disk.damage(name, |content| content[bit / 8] ^= 1 << (bit % 8));
            // Nor does it take any of what is appended then.
            let count = all.len();
            for number in count..count + 3 {
                let (mut log, _) = open(&mut disk, config(RecoveryPolicy::Salvage)).unwrap();
                let (segments, end): (Vec<_>, _) = (log.segments().collect(), log.durable().end);
                let shown = read(&disk, &segments, (end.segment, end.offset), true);
                let shown: Vec<_> = shown.into_iter().map(|(_, content)| content).collect();
                assert!(shown == all, "{what}: {} of {number}", shown.len());
                all.push(content(number as u64, 50));
                append(&mut log, &mut disk, &all[number..]);
            }
            all.truncate(count);
        }
    }
}

#[test]
fn every_zeroed_or_swapped_block_is_detected_or_harmless() {
    for closed in [true, false] {
        let built = build(LONG, closed);
        let disk = &built.disk;
        for name in files(disk) {
            let length = disk.content(name).unwrap().len();
            for one in (0..length).step_by(512) {
                let mut damaged = disk.clone();
                damaged.damage(name, |content| {
                    let end = content.len().min(one + 512);
                    content[one..end].fill(0);
                });
                check(&format!("{name} zeroed at {one}, closed {closed}"), &damaged, &built);
                for other in (one + 512..length.saturating_sub(511)).step_by(512) {
                    let mut damaged = disk.clone();
                    damaged.damage(name, |content| {
                        let (front, back) = content.split_at_mut(other);
                        front[one..one + 512].swap_with_slice(&mut back[..512]);
                    });
                    let what = format!("{name} {one} swapped with {other}, closed {closed}");
                    check(&what, &damaged, &built);
                }
            }
        }
    }
}

#[test]
fn blocks_of_another_segment_are_detected() {
    let built = build(LONG, true);
    let disk = &built.disk;
    let segment = |number| FileId::Segment(SegmentId::new(number)).name();
    let other = disk.content(segment(2)).unwrap().to_vec();
    for at in (0..3_072).step_by(512) {
        let mut damaged = disk.clone();
        damaged.damage(segment(1), |content| {
            content[at..at + 512].copy_from_slice(&other[at..at + 512]);
        });
        check(&format!("block {at} of segment 2 in segment 1"), &damaged, &built);
    }
}

#[test]
fn every_cut_end_of_a_closed_log_is_detected() {
    let built = build(LONG, true);
    let disk = &built.disk;
    for name in files(disk) {
        let length = disk.content(name).unwrap().len();
        // The manifest is mostly empty pages.
        let step = if name.file == FileId::Manifest { 61 } else { 5 };
        for kept in (0..length).step_by(step) {
            let mut damaged = disk.clone();
            damaged.damage(name, |content| content.truncate(kept));
            check(&format!("{name} cut to {kept}"), &damaged, &built);
        }
        let mut damaged = disk.clone();
        damaged.damage(name, |content| content.extend_from_slice(&[0xaa; 700]));
        check(&format!("{name} with garbage behind"), &damaged, &built);
    }
}

#[test]
fn the_last_whole_frames_removed_from_a_closed_log_are_missed() {
    let Built { disk, .. } = build(LONG, true);
    let last = files(&disk).into_iter().max().unwrap();
    let mut damaged = disk.clone();
    // The mark is the last frame, ten bytes long.
    damaged.damage(last, |content| content.truncate(content.len() - 10));
    let (_, report) = inspect(&mut damaged, config(RecoveryPolicy::PrefixValid)).unwrap();
    assert!(report.damage.is_none(), "no record is missing, only the mark");
    assert!(!report.was_clean);
    let (_, whole) = inspect(&mut disk.clone(), config(RecoveryPolicy::PrefixValid)).unwrap();
    let frame = usize::try_from(whole.last_frame.unwrap().offset).unwrap();
    damaged.damage(last, |content| content.truncate(frame));
    let (_, report) = inspect(&mut damaged, config(RecoveryPolicy::PrefixValid)).unwrap();
    let damage = report.damage.expect("a record is missing");
    assert_eq!(damage.durable, whole.last_lsn);
    assert!(report.ranges.iter().any(|range| range.kind == RangeKind::Missing));
    assert!(open(&mut damaged.clone(), config(RecoveryPolicy::Strict)).is_err());
}

#[test]
fn files_that_are_gone_or_elsewhere_are_named() {
    let built = build(LONG, true);
    let disk = &built.disk;
    for name in files(disk) {
        let mut damaged = disk.clone();
        damaged.lose(name);
        check(&format!("{name} lost"), &damaged, &built);
        for target in files(disk).into_iter().filter(|target| *target != name) {
            let mut damaged = disk.clone();
            damaged.put_name(name, target, true);
            check(&format!("{name} copied over {target}"), &damaged, &built);
            let mut damaged = disk.clone();
            damaged.put_name(name, target, false);
            check(&format!("{name} renamed to {target}"), &damaged, &built);
        }
    }
}

#[test]
fn a_batch_torn_at_every_byte_never_shows_a_part_of_itself() {
    let config = || seawall_core::config::Config {
        segment_bytes_max: 1 << 20,
        record_bytes_max: 1 << 16,
        ..config(RecoveryPolicy::PrefixValid)
    };
    let mut disk = Disk::with_sectors(512);
    let (mut log, _) = open(&mut disk, config()).unwrap();
    append(&mut log, &mut disk, &[content(1, 50)]);
    let start = usize::try_from(log.appended().end.offset).unwrap();
    let batch: Vec<_> = (2..1_002).map(|number| content(number, 16)).collect();
    append(&mut log, &mut disk, &batch);
    let end = usize::try_from(log.appended().end.offset).unwrap();
    let name = FileId::Segment(SegmentId::FIRST).name();
    for at in start..end {
        for fill in [None, Some(0), Some(0xaa)] {
            let mut torn = disk.clone();
            torn.damage(name, |content| match fill {
                None => content.truncate(at),
                // Only a part of it was written.
                Some(byte) => content[at..end].fill(byte),
            });
            let same = torn.content(name) == disk.content(name);
            let (log, report) = open(&mut torn, config()).unwrap();
            let expected = if same { 1_001 } else { 1 };
            assert_eq!(log.appended().lsn.get(), expected, "torn at {at} with {fill:?}");
            assert!(report.damage.is_none(), "it was not known durable: {report:?}");
        }
    }
}
