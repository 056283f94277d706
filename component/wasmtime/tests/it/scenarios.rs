//! One description, run by the native log, by the component, and by both in turn: every answer is
//! the same, and every byte that is left (invariant 21).

use crate::hosts::{self, Follow, Host, Log, SEGMENT_BYTES, Setup, put};
use seawall_core::compress::Compression;
use seawall_core::config::{Level, RecoveryPolicy, RecoveryScan};
use seawall_core::record::Record;
use seawall_core::wire::checksum::ChecksumKind;
use seawall_tests::random::Random;
use seawall_tests::records::record_bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a scenario does.
#[derive(Clone, Debug)]
enum Step {
    Open(RecoveryPolicy, RecoveryScan),
    /// So many records in one batch, their values up to so long.
    Append(u64, usize, Level),
    /// A tombstone, a record with a TTL, one with an empty key, one that packs well.
    AppendKinds(Level),
    /// A record that no segment holds; a batch without records.
    AppendRefused,
    Flush(Level),
    Rotate,
    DeleteBefore(u64),
    TruncateAfter(u64),
    Stats,
    /// All records from an LSN on, or from the first.
    Read(Option<u64>),
    /// Begins to follow from an LSN.
    Follow(u64),
    /// What there is to follow now.
    Followed,
    SkipDamage,
    Close,
    /// Lets the log go without a clean end.
    LetGo,
    /// Zeros so many bytes before the end that the log had.
    Tear(u64),
    /// Changes one byte of a segment.
    Flip(u64, u64),
    Remove(u64),
}

struct Runner<'a> {
    dir: &'a Path,
    hosts: &'a [Host],
    openings: usize,
    checksum: ChecksumKind,
    compression: Compression,
    log: Option<Box<dyn Log>>,
    follow: Option<Box<dyn Follow>>,
    end: (u64, u64),
    random: Random,
    told: Vec<String>,
}

impl Runner<'_> {
    fn log(&mut self) -> &mut dyn Log {
        self.log.as_deref_mut().expect("the scenario has opened the log")
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:020}.wal"))
    }

    fn run(&mut self, step: &Step) {
        let words = match step {
            Step::Open(recovery, scan) => self.open(*recovery, *scan),
            Step::Append(count, bytes, level) => self.append(*count, *bytes, *level),
            Step::AppendKinds(level) => self.append_kinds(*level),
            Step::AppendRefused => {
                let long = vec![7; usize::try_from(SEGMENT_BYTES).unwrap()];
                let refused = self.log().append(&[put(b"k", &long)], Level::Os);
                format!("{refused}; {}", self.log().append(&[], Level::Os))
            }
            Step::Flush(level) => self.log().flush(*level),
            Step::Rotate => self.log().rotate(),
            Step::DeleteBefore(lsn) => self.log().delete_before(*lsn),
            Step::TruncateAfter(lsn) => self.log().truncate_after(*lsn),
            Step::Stats => self.log().stats(),
            Step::Read(lsn) => match self.log().cursor(*lsn) {
                Ok(mut cursor) => format!("{:#?}", cursor.read()),
                Err(error) => error,
            },
            Step::Follow(lsn) => match self.log().cursor(Some(*lsn)) {
                Ok(cursor) => {
                    self.follow = Some(cursor);
                    "following".to_owned()
                }
                Err(error) => error,
            },
            Step::Followed => {
                format!("{:#?}", self.follow.as_mut().expect("it follows").read())
            }
            Step::SkipDamage => {
                self.follow.as_mut().expect("it follows").skip_damage();
                String::new()
            }
            Step::Close => {
                let words = self.log().close();
                self.let_go();
                words
            }
            Step::LetGo => {
                self.end = self.log().end();
                self.let_go();
                String::new()
            }
            Step::Tear(bytes) => self.tear(*bytes),
            Step::Flip(segment, offset) => {
                edit(&self.segment(*segment), |content| content[index(*offset)] ^= 0x40)
            }
            Step::Remove(segment) => {
                std::fs::remove_file(self.segment(*segment)).unwrap();
                String::new()
            }
        };
        self.told.push(format!("{step:?}: {words}"));
    }

    fn let_go(&mut self) {
        self.follow = None;
        self.log = None;
    }

    fn open(&mut self, recovery: RecoveryPolicy, scan: RecoveryScan) -> String {
        let host = self.hosts[self.openings % self.hosts.len()];
        self.openings += 1;
        let (checksum, compression) = (self.checksum, self.compression);
        let seed = self.openings as u64;
        match hosts::open(host, self.dir, Setup { recovery, scan, checksum, compression, seed }) {
            Ok((log, found)) => {
                self.log = Some(log);
                found
            }
            Err(error) => error,
        }
    }

    fn append(&mut self, count: u64, bytes: usize, level: Level) -> String {
        let contents: Vec<Vec<u8>> = (0..count)
            .map(|_| record_bytes(self.random.number(), self.random.index(bytes)))
            .collect();
        let records: Vec<_> =
            contents.iter().map(|content| put(&content[..8], &content[8..])).collect();
        self.log().append(&records, level)
    }

    fn append_kinds(&mut self, level: Level) -> String {
        let long = [b'a'; 2_000];
        let records = [
            Record::delete(b"gone"),
            Record::put_with_ttl(b"short", b"lived", Duration::from_millis(1_234)),
            Record::put(b"", b""),
            Record::put(b"packs", &long).with_compression(Compression::Lz4),
            Record::put(b"well", &long).with_compression(Compression::Zstd),
        ];
        self.log().append(&records, level)
    }

    fn tear(&mut self, bytes: u64) -> String {
        let (segment, end) = self.end;
        edit(&self.segment(segment), |content| content[index(end - bytes)..index(end)].fill(0))
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

fn edit(path: &Path, change: impl FnOnce(&mut [u8])) -> String {
    let mut content = std::fs::read(path).unwrap();
    change(&mut content);
    std::fs::write(path, content).unwrap();
    String::new()
}

/// Every file of a folder, and of the folders in it.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let inner = self::files(&entry.path()).into_iter();
            files.extend(inner.map(|(inner, content)| (format!("{name}/{inner}"), content)));
        } else {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    files
}

/// What the manifest says now: its newer slot without its generation and checksum and, unless the
/// log was closed, without how far it was durable. The native host works on several things at a
/// time, so that how often it writes a fact down, and what was durable then, depends on the moment.
fn facts(manifest: &[u8]) -> Vec<u8> {
    let slots = [&manifest[..128], &manifest[4_096..4_224]];
    let generation = |slot: &&&[u8]| u64::from_le_bytes(slot[32..40].try_into().expect("8 bytes"));
    let mut facts = slots.iter().max_by_key(generation).expect("there are two").to_vec();
    facts[32..40].fill(0);
    facts.truncate(124);
    if facts[10] == 0 {
        facts[64..88].fill(0);
        facts[112..120].fill(0);
    }
    facts
}

/// What was told, and what is left.
fn run(
    hosts: &[Host],
    steps: &[Step],
    checksum: ChecksumKind,
    compression: Compression,
) -> (Vec<String>, BTreeMap<String, Vec<u8>>) {
    let temp = tempfile::tempdir().unwrap();
    let mut runner = Runner {
        dir: temp.path(),
        hosts,
        openings: 0,
        checksum,
        compression,
        log: None,
        follow: None,
        end: (0, 0),
        random: Random::new(7),
        told: Vec::new(),
    };
    for step in steps {
        runner.run(step);
    }
    runner.let_go();
    let mut left = files(temp.path());
    // The native host's own notes.
    left.remove("CATALOG");
    let manifest = left.get_mut("MANIFEST").expect("a log has one");
    *manifest = facts(manifest);
    (runner.told, left)
}

fn same_for_all(steps: &[Step]) -> Vec<String> {
    use Host::{Component, Native};
    let mut first = Vec::new();
    for (checksum, compression) in [
        (ChecksumKind::Crc32c, Compression::None),
        (ChecksumKind::Xxh3, Compression::Lz4),
        (ChecksumKind::Crc32c, Compression::Zstd),
    ] {
        let (told, left) = run(&[Native], steps, checksum, compression);
        for hosts in [&[Component][..], &[Component, Native], &[Native, Component]] {
            let (others, other_files) = run(hosts, steps, checksum, compression);
            for (told, other) in told.iter().zip(&others) {
                assert_eq!(told, other, "{hosts:?}, {checksum:?}, {compression:?}");
            }
            let (names, other_names) = (left.keys(), other_files.keys());
            assert!(names.eq(other_names), "{hosts:?}: {:?}", other_files.keys());
            for (name, content) in &left {
                let other = &other_files[name];
                let differs = content.iter().zip(other).position(|(byte, other)| byte != other);
                assert_eq!(differs, None, "{hosts:?}, {checksum:?}: {name} differs there");
                assert_eq!(content.len(), other.len(), "{hosts:?}: {name}'s length");
            }
        }
        if first.is_empty() {
            first = told;
        }
    }
    first
}

const OPEN: Step = Step::Open(RecoveryPolicy::PrefixValid, RecoveryScan::Tail);

#[test]
fn append_batch_rotate_and_read() {
    use Level::{Buffered, Disk, Os};
    let told = same_for_all(&[
        OPEN,
        Step::Stats,
        Step::Append(1, 300, Disk),
        Step::Append(1, 300, Os),
        Step::Append(5, 300, Buffered),
        Step::AppendKinds(Disk),
        Step::AppendRefused,
        Step::Read(None),
        Step::Rotate,
        Step::Append(3, 300, Disk),
        Step::Append(40, 900, Disk),
        Step::Append(40, 900, Os),
        Step::Flush(Os),
        Step::Flush(Disk),
        Step::Stats,
        Step::Read(Some(9)),
        Step::Read(Some(1_000)),
        Step::Close,
        OPEN,
        Step::Read(None),
        Step::Append(1, 30, Disk),
        Step::Close,
    ]);
    assert!(told[0].contains("new true"), "{}", told[0]);
    assert!(told[18].contains("clean true"), "{}", told[18]);
}

#[test]
fn delete_truncate_and_follow() {
    use Level::{Buffered, Disk, Os};
    let told = same_for_all(&[
        OPEN,
        Step::Append(10, 100, Disk),
        Step::Follow(5),
        Step::Followed,
        Step::Append(2, 100, Disk),
        Step::Followed,
        Step::Append(30, 900, Disk),
        Step::Append(30, 900, Disk),
        Step::Append(30, 900, Disk),
        Step::Followed,
        Step::DeleteBefore(50),
        Step::Stats,
        Step::Read(Some(1)),
        Step::Read(None),
        Step::TruncateAfter(80),
        Step::Followed,
        Step::TruncateAfter(500),
        Step::TruncateAfter(1),
        Step::Append(3, 100, Disk),
        Step::Read(None),
        Step::LetGo,
        OPEN,
        Step::TruncateAfter(60),
        Step::Append(3, 100, Os),
        Step::Append(3, 100, Buffered),
        Step::Read(None),
        Step::DeleteBefore(10_000),
        Step::Stats,
        Step::Close,
        OPEN,
        Step::Read(None),
    ]);
    assert!(told[10].contains("gone") && !told[10].contains("0 gone"), "{}", told[10]);
    assert!(told[15].contains("truncated after 80"), "{}", told[15]);
}

#[test]
fn torn_tails() {
    for torn in [1, 9, 60, 400] {
        let told = same_for_all(&[
            OPEN,
            Step::Append(4, 100, Level::Disk),
            Step::Append(1, 900, Level::Os),
            Step::LetGo,
            Step::Tear(torn),
            Step::Open(RecoveryPolicy::Strict, RecoveryScan::Full),
            Step::Read(None),
            Step::Append(2, 100, Level::Disk),
            Step::Close,
            OPEN,
            Step::Read(None),
            Step::Close,
        ]);
        assert!(told[5].contains("no damage"), "{}", told[5]);
    }
}

#[test]
fn damage_is_told_and_kept_apart() {
    let damaged = [
        OPEN,
        Step::Append(10, 400, Level::Disk),
        Step::Append(1, 400, Level::Disk),
        Step::Append(20, 900, Level::Disk),
        Step::Append(20, 900, Level::Disk),
        Step::Append(1, 900, Level::Disk),
        Step::Close,
        Step::Flip(1, 3_000),
    ];
    for policy in [RecoveryPolicy::PrefixValid, RecoveryPolicy::Salvage, RecoveryPolicy::Strict] {
        let mut steps = damaged.to_vec();
        steps.extend([
            Step::Open(RecoveryPolicy::Strict, RecoveryScan::Full),
            Step::Open(policy, RecoveryScan::Full),
        ]);
        if policy != RecoveryPolicy::Strict {
            steps.extend([
                Step::Read(None),
                Step::Append(2, 100, Level::Disk),
                Step::Close,
                OPEN,
                Step::Read(None),
                Step::Close,
            ]);
        }
        let told = same_for_all(&steps);
        assert!(told[8].contains("strict: damage"), "{}", told[8]);
    }
    let mut steps = damaged.to_vec();
    steps.extend([
        OPEN,
        Step::Read(None),
        Step::Follow(1),
        Step::Followed,
        Step::SkipDamage,
        Step::Followed,
        Step::Close,
    ]);
    let told = same_for_all(&steps);
    assert!(told[11].contains("damaged at 1:"), "{}", told[11]);
}

#[test]
fn a_missing_segment_is_told() {
    let mut steps = vec![OPEN];
    for _ in 0..6 {
        steps.push(Step::Append(10, 1_500, Level::Disk));
    }
    steps.extend([
        Step::Close,
        Step::Remove(2),
        OPEN,
        Step::Open(RecoveryPolicy::Salvage, RecoveryScan::Tail),
        Step::Read(None),
        Step::Close,
    ]);
    let told = same_for_all(&steps);
    assert!(told[9].contains("missing"), "{}", told[9]);
}
