//! The host on a folder that fails on order: short writes and reads, interruptions, folders that
//! cannot be synced, full disks, failed syncs, and owners.

use seawall_core::config::{Config, FsyncPolicy, Level};
use seawall_core::cursor::Start;
use seawall_core::error::AppendError;
use seawall_core::id::{LogId, Lsn, Time};
use seawall_core::record::Record;
use seawall_core::recover::Report;
use seawall_wasi::folder::{File, Folder, How, Name, Refusal, RefusalKind};
use seawall_wasi::{
    Exclusion, Injected, OpenError, Preallocation, Reader, Settings, Source, Visibility, Wal,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What goes wrong.
#[derive(Default)]
struct Faults {
    /// No call writes or reads more bytes than this; 0: as many as are asked for.
    bytes_max: Cell<usize>,
    /// Every second call but a sync is interrupted.
    interrupts: Cell<bool>,
    calls: Cell<u64>,
    /// Folders cannot be synced.
    no_folder_sync: Cell<bool>,
    /// The next sync of a file fails so.
    sync: Cell<Option<RefusalKind>>,
    /// Writes fail: there is no room.
    full: Cell<bool>,
    /// A write says that it wrote more than it was given.
    boasts: Cell<bool>,
    syncs: Cell<u64>,
    /// The most handles that there were at a time, those of folders among them.
    handles_most: Cell<usize>,
}

impl Faults {
    fn interrupt(&self) -> Result<(), Refusal> {
        self.calls.set(self.calls.get() + 1);
        if self.interrupts.get() && self.calls.get() % 2 == 1 {
            return Err(Refusal::new(RefusalKind::Interrupted));
        }
        Ok(())
    }

    fn piece(&self, bytes: usize) -> usize {
        match self.bytes_max.get() {
            0 => bytes,
            most => bytes.min(most),
        }
    }
}

type Content = Rc<RefCell<Vec<u8>>>;

/// A folder in memory, and in it one more: the log's files, and `quarantine`.
#[derive(Clone, Default)]
struct Memory {
    prefix: String,
    files: Rc<RefCell<BTreeMap<String, Content>>>,
    folders: Rc<RefCell<Vec<String>>>,
    faults: Rc<Faults>,
}

struct Open(Content, Rc<Faults>);

fn refuse<T>(kind: RefusalKind) -> Result<T, Refusal> {
    Err(Refusal::new(kind))
}

impl Memory {
    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.files.borrow();
        files.iter().map(|(name, content)| (name.clone(), content.borrow().clone())).collect()
    }
}

impl Folder for Memory {
    type File = Open;

    fn open(&self, name: &str, how: How) -> Result<Open, Refusal> {
        self.faults.interrupt()?;
        let mut files = self.files.borrow_mut();
        let path = self.path(name);
        let content = match (files.get(&path), how) {
            (Some(_), How::CreateNew) => return refuse(RefusalKind::Exists),
            (None, How::Read | How::Write) => return refuse(RefusalKind::NotFound),
            (Some(content), How::Read | How::Write) => content.clone(),
            (None, How::CreateNew) => files.entry(path).or_default().clone(),
        };
        let open = Open(content, self.faults.clone());
        let handles = Rc::strong_count(&self.faults);
        self.faults.handles_most.set(self.faults.handles_most.get().max(handles));
        Ok(open)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Refusal> {
        self.faults.interrupt()?;
        let mut files = self.files.borrow_mut();
        let Some(content) = files.remove(&self.path(from)) else {
            return refuse(RefusalKind::NotFound);
        };
        files.insert(self.path(to), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), Refusal> {
        self.faults.interrupt()?;
        let removed = self.files.borrow_mut().remove(&self.path(name));
        removed.map_or(refuse(RefusalKind::NotFound), |_| Ok(()))
    }

    fn list(&self) -> Result<Vec<Name>, Refusal> {
        self.faults.interrupt()?;
        let inside = |path: &str| {
            let name = path.strip_prefix(&self.prefix)?;
            (!name.contains('/')).then(|| name.to_owned())
        };
        let files = self.files.borrow();
        let mut names: Vec<Name> = files
            .iter()
            .filter_map(|(path, content)| {
                let bytes = Some(content.borrow().len() as u64);
                inside(path).map(|name| Name { name, is_folder: false, bytes })
            })
            .collect();
        let folders = self.folders.borrow();
        names.extend(folders.iter().filter_map(|path| {
            inside(path).map(|name| Name { name, is_folder: true, bytes: None })
        }));
        Ok(names)
    }

    fn sync(&self) -> Result<(), Refusal> {
        if self.faults.no_folder_sync.get() { refuse(RefusalKind::Unsupported) } else { Ok(()) }
    }

    fn make_folder(&self, name: &str) -> Result<(), Refusal> {
        self.faults.interrupt()?;
        let path = self.path(name);
        let mut folders = self.folders.borrow_mut();
        if folders.contains(&path) {
            return refuse(RefusalKind::Exists);
        }
        folders.push(path);
        Ok(())
    }

    fn folder(&self, name: &str) -> Result<Self, Refusal> {
        if !self.folders.borrow().contains(&self.path(name)) {
            return refuse(RefusalKind::NotFound);
        }
        Ok(Self { prefix: format!("{}{name}/", self.prefix), ..self.clone() })
    }
}

impl File for Open {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Refusal> {
        self.1.interrupt()?;
        let content = self.0.borrow();
        let offset = usize::try_from(offset).unwrap().min(content.len());
        let bytes = self.1.piece(buffer.len().min(content.len() - offset));
        buffer[..bytes].copy_from_slice(&content[offset..offset + bytes]);
        Ok(bytes)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<usize, Refusal> {
        self.1.interrupt()?;
        if self.1.full.get() {
            return refuse(RefusalKind::NoSpace);
        }
        if self.1.boasts.get() {
            return Ok(bytes.len() + 1);
        }
        let bytes = &bytes[..self.1.piece(bytes.len())];
        let mut content = self.0.borrow_mut();
        let offset = usize::try_from(offset).unwrap();
        let end = offset + bytes.len();
        let length = content.len().max(end);
        content.resize(length, 0);
        content[offset..end].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn sync_data(&self) -> Result<(), Refusal> {
        self.1.syncs.set(self.1.syncs.get() + 1);
        self.1.sync.take().map_or(Ok(()), refuse)
    }

    fn set_bytes(&self, bytes: u64) -> Result<(), Refusal> {
        self.1.interrupt()?;
        self.0.borrow_mut().resize(usize::try_from(bytes).unwrap(), 0);
        Ok(())
    }

    fn bytes(&self) -> Result<u64, Refusal> {
        self.1.interrupt()?;
        Ok(self.0.borrow().len() as u64)
    }
}

fn settings(seed: u64) -> Settings {
    Settings {
        config: Config {
            segment_bytes_max: 8 << 10,
            fsync_policy: FsyncPolicy::Os,
            ..Config::default()
        },
        injected: Some(Injected { log: LogId([9; 16]), seed, now: Time::from_micros(1) }),
        ..Settings::default()
    }
}

const SOURCE: Source = Source { now: || Time::from_micros(1), random: || 4 };

fn open(memory: &Memory, settings: Settings) -> Result<(Wal<Memory>, Report), OpenError> {
    Wal::open(memory.clone(), "", settings, SOURCE)
}

/// Appends 40 records, one by one.
fn fill(wal: &mut Wal<Memory>) {
    for number in 0..40_u64 {
        let (key, value) = (number.to_le_bytes(), vec![7; 500]);
        let groups = wal.append_groups(&[Record::put(&key, &value)], &[1], Level::Disk);
        assert!(groups.error.is_none(), "{:?}", groups.error);
    }
}

fn read(wal: &Wal<Memory>) -> Vec<u64> {
    let mut reader = Reader::new(wal, Start::First, Visibility::Written).unwrap();
    let mut lsns = Vec::new();
    loop {
        let page = reader.read(wal, 2_000).unwrap();
        if page.offsets.is_empty() {
            return lsns;
        }
        lsns.extend((page.first.get()..).take(page.offsets.len()));
    }
}

#[test]
fn short_and_interrupted_calls_change_nothing() {
    let (plain, broken) = (Memory::default(), Memory::default());
    broken.faults.bytes_max.set(7);
    broken.faults.interrupts.set(true);
    for memory in [&plain, &broken] {
        let (mut wal, _) = open(memory, settings(1)).unwrap();
        fill(&mut wal);
        wal.close().unwrap();
        let (wal, report) = open(memory, settings(2)).unwrap();
        assert!(report.was_clean);
        assert_eq!(read(&wal), (1..=40).collect::<Vec<_>>());
    }
    assert_eq!(plain.contents(), broken.contents());
    assert!(plain.contents().len() > 3, "rotation went on");
}

#[test]
fn a_folder_that_cannot_be_synced_is_refused_or_told() {
    let memory = Memory::default();
    memory.faults.no_folder_sync.set(true);
    let refused = open(&memory, settings(1)).map(drop).unwrap_err();
    assert_eq!(refused, OpenError::DirectorySync);
    assert!(memory.contents().is_empty());
    let inner = Wal::open(memory.clone(), "log", settings(1), SOURCE).map(drop).unwrap_err();
    assert_eq!(inner, OpenError::DirectorySync);
    let excused = Settings { requires_directory_sync: false, ..settings(1) };
    let (mut wal, _) = open(&memory, excused).unwrap();
    assert!(!wal.syncs_directories());
    fill(&mut wal);
    wal.close().unwrap();
    memory.faults.no_folder_sync.set(false);
    let (wal, _) = open(&memory, settings(2)).unwrap();
    assert!(wal.syncs_directories());
    assert_eq!(read(&wal).len(), 40);
}

/// What a failed sync should have written may be lost, and a second one may report success.
#[test]
fn a_failed_sync_poisons_and_is_never_tried_again() {
    for kind in [RefusalKind::Other, RefusalKind::Interrupted, RefusalKind::NoSpace] {
        let memory = Memory::default();
        let (mut wal, _) = open(&memory, settings(1)).unwrap();
        fill(&mut wal);
        let record = [Record::put(b"k", b"v")];
        memory.faults.sync.set(Some(kind));
        let before = memory.faults.syncs.get();
        let groups = wal.append_groups(&record, &[1], Level::Disk);
        assert!(groups.appended.is_empty());
        assert!(matches!(groups.error, Some(AppendError::Poisoned(_))), "{:?}", groups.error);
        assert_eq!(memory.faults.syncs.get(), before + 1);
        let groups = wal.append_groups(&record, &[1], Level::Buffered);
        assert!(matches!(groups.error, Some(AppendError::Poisoned(_))), "{:?}", groups.error);
        assert!(wal.flush(Level::Disk).is_err() && wal.rotate().is_err() && wal.close().is_err());
        assert_eq!(memory.faults.syncs.get(), before + 1);
        drop(wal);
        let (wal, report) = open(&memory, settings(2)).unwrap();
        assert!(report.last_lsn.get() >= 40 && !report.is_damaged());
        drop(wal);
    }
}

#[test]
fn a_full_disk_undoes_the_append_and_then_there_is_room_again() {
    let memory = Memory::default();
    let (mut wal, _) = open(&memory, settings(1)).unwrap();
    fill(&mut wal);
    memory.faults.full.set(true);
    let record = [Record::put(b"k", b"v"), Record::delete(b"k")];
    let groups = wal.append_groups(&record, &[1, 1], Level::Os);
    assert!(groups.appended.is_empty());
    assert!(matches!(groups.error, Some(AppendError::DiskFull(_))), "{:?}", groups.error);
    memory.faults.full.set(false);
    let groups = wal.append_groups(&record, &[1, 1], Level::Disk);
    assert!(groups.error.is_none(), "{:?}", groups.error);
    assert_eq!(groups.appended.len(), 2);
    let last = groups.appended[1].last.get();
    wal.close().unwrap();
    drop(wal);
    let (wal, report) = open(&memory, settings(2)).unwrap();
    assert!(report.was_clean);
    assert_eq!(read(&wal), (1..=last).collect::<Vec<_>>());
}

/// What was buffered does not fit any more: whoever rotates is told that it is gone.
#[test]
fn a_rotation_tells_what_a_full_disk_undid() {
    let memory = Memory::default();
    let (mut wal, _) = open(&memory, settings(1)).unwrap();
    fill(&mut wal);
    let record = [Record::put(b"k", b"v")];
    let groups = wal.append_groups(&record, &[1], Level::Buffered);
    assert_eq!(groups.appended[0].last.get(), 41);
    memory.faults.full.set(true);
    let full = wal.rotate();
    assert!(matches!(full, Err(AppendError::DiskFull(_))), "{full:?}");
    assert_eq!(wal.log().appended().lsn.get(), 40);
    memory.faults.full.set(false);
    wal.rotate().unwrap();
    let groups = wal.append_groups(&record, &[1], Level::Disk);
    assert_eq!(groups.appended[0].last.get(), 41);
    assert_eq!(read(&wal), (1..=41).collect::<Vec<_>>());
}

/// What a rotation by age adds meanwhile is none of those that went.
#[test]
fn a_deletion_counts_those_that_went() {
    static NOW: AtomicU64 = AtomicU64::new(1);
    let now = || Time::from_micros(NOW.load(Ordering::Relaxed));
    let mut settings = Settings { injected: None, ..settings(1) };
    settings.config.segment_age_max = Some(Duration::from_secs(1));
    let source = Source { now, ..SOURCE };
    let (mut wal, _) = Wal::open(Memory::default(), "", settings, source).unwrap();
    for _ in 0..3 {
        let groups = wal.append_groups(&[Record::put(b"k", b"v")], &[1], Level::Disk);
        assert!(groups.error.is_none());
        wal.rotate().unwrap();
    }
    let groups = wal.append_groups(&[Record::put(b"k", b"v")], &[1], Level::Disk);
    assert!(groups.error.is_none());
    assert_eq!(wal.segments().len(), 4);
    NOW.store(5_000_000, Ordering::Relaxed);
    assert_eq!(wal.delete_before(Lsn::new(3)).unwrap(), 2);
    assert_eq!(wal.segments().len(), 3, "it rotated");
    assert_eq!(wal.delete_before(Lsn::new(5)).unwrap(), 2);
}

/// A record without key and value takes room all the same.
#[test]
fn a_page_of_empty_records_has_an_end() {
    let memory = Memory::default();
    let mut settings = settings(1);
    settings.config.segment_bytes_max = 16 << 20;
    let (mut wal, _) = open(&memory, settings).unwrap();
    let groups = wal.append_groups(&vec![Record::default(); 300_000], &[300_000], Level::Disk);
    assert!(groups.error.is_none(), "{:?}", groups.error);
    let mut reader = Reader::new(&wal, Start::First, Visibility::Durable).unwrap();
    assert_eq!(reader.read(&wal, 64_000).unwrap().offsets.len(), 1_000);
    assert_eq!(reader.read(&wal, u64::MAX).unwrap().offsets.len(), 1 << 18);
    assert_eq!(reader.read(&wal, 1).unwrap().offsets.len(), 1);
}

/// A host gives out so many handles and no more.
#[test]
fn a_log_of_many_segments_needs_few_handles() {
    let memory = Memory::default();
    let (mut wal, _) = open(&memory, settings(1)).unwrap();
    for _ in 0..60 {
        fill(&mut wal);
    }
    wal.close().unwrap();
    drop(wal);
    memory.faults.handles_most.set(0);
    let (wal, report) = open(&memory, settings(2)).unwrap();
    assert!(report.segments > 140, "{}", report.segments);
    assert!(memory.faults.handles_most.get() <= 20, "{}", memory.faults.handles_most.get());
    assert!(Rc::strong_count(&memory.faults) <= 8, "{}", Rc::strong_count(&memory.faults));
    assert_eq!(read(&wal), (1..=2_400).collect::<Vec<_>>());
}

/// A file system that says it wrote more than it was given is not believed.
#[test]
fn a_write_of_more_than_was_given_is_a_failure() {
    let memory = Memory::default();
    let (mut wal, _) = open(&memory, settings(1)).unwrap();
    memory.faults.boasts.set(true);
    let groups = wal.append_groups(&[Record::put(b"k", b"v")], &[1], Level::Os);
    assert!(groups.appended.is_empty() && groups.error.is_some());
}

#[test]
fn an_owner_is_named_taken_over_and_given_up() {
    let memory = Memory::default();
    let by =
        |owner: &str| Settings { exclusion: Exclusion::Owner(owner.to_owned()), ..settings(1) };
    let (wal, _) = open(&memory, by("one")).unwrap();
    let refused = open(&memory, by("two")).map(drop).unwrap_err();
    assert_eq!(refused, OpenError::Owned("one".to_owned()));
    // Its process ends without a word.
    drop(wal);
    let refused = open(&memory, by("two")).map(drop).unwrap_err();
    assert_eq!(refused, OpenError::Owned("one".to_owned()));
    let take_over = Settings { exclusion: Exclusion::TakeOver("two".to_owned()), ..settings(2) };
    let (mut wal, report) = open(&memory, take_over).unwrap();
    assert!(report.strays.is_empty(), "OWNER is the log's own: {:?}", report.strays);
    assert_eq!(memory.contents()["OWNER"], b"two");
    fill(&mut wal);
    wal.close().unwrap();
    assert!(!memory.contents().contains_key("OWNER"));
    // An opening that fails owns nothing.
    let path = memory.path("00000000000000000001.wal");
    let bytes = memory.files.borrow()[&path].clone();
    bytes.borrow_mut()[20] ^= 1;
    let mut strict = by("three");
    strict.config.recovery = seawall_core::config::RecoveryPolicy::Strict;
    assert!(matches!(open(&memory, strict), Err(OpenError::Recovery(_))));
    assert!(!memory.contents().contains_key("OWNER"));
}

#[test]
fn an_owner_that_cannot_be_named_is_no_owner() {
    let memory = Memory::default();
    memory.faults.full.set(true);
    let settings = Settings { exclusion: Exclusion::Owner("one".to_owned()), ..settings(1) };
    assert!(matches!(open(&memory, settings), Err(OpenError::Owner(_))));
    assert!(memory.contents().is_empty());
}

/// How space is reserved changes no byte that is read.
#[test]
fn every_way_to_reserve_space_gives_the_same_log() {
    let ways = [Preallocation::None, Preallocation::Sparse, Preallocation::Written];
    let [none, sparse, written] = ways.map(|preallocation| {
        let memory = Memory::default();
        let (mut wal, _) = open(&memory, Settings { preallocation, ..settings(1) }).unwrap();
        fill(&mut wal);
        wal.close().unwrap();
        memory.contents()
    });
    assert_eq!(sparse, written);
    assert_eq!(none.keys().collect::<Vec<_>>(), sparse.keys().collect::<Vec<_>>());
    for (name, content) in &none {
        let (short, rest) = sparse[name].split_at(content.len().min(sparse[name].len()));
        assert_eq!(content[..short.len()], *short, "{name}");
        assert!(rest.iter().all(|byte| *byte == 0), "{name}");
    }
}

#[test]
fn a_name_is_one_plain_name() {
    let memory = Memory::default();
    for name in ["..", ".", "a/b", "/a", "a\\b", "a\0b"] {
        let refused = Wal::open(memory.clone(), name, settings(1), SOURCE).map(drop);
        assert_eq!(refused.unwrap_err(), OpenError::Name, "{name}");
    }
    let (wal, _) = Wal::open(memory.clone(), "log", settings(1), SOURCE).unwrap();
    drop(wal);
    assert!(memory.contents().keys().all(|path| path.starts_with("log/")));
}

/// A host's clock may be set back; what is to be durable within a window is all the same.
#[test]
fn a_clock_that_is_set_back_delays_no_sync() {
    static NOW: AtomicU64 = AtomicU64::new(9_000_000_000);
    let now = || Time::from_micros(NOW.load(Ordering::Relaxed));
    let window = Duration::from_millis(5);
    let mut settings = Settings { injected: None, ..settings(1) };
    settings.config.fsync_policy = FsyncPolicy::Batch(window);
    let memory = Memory::default();
    let source = Source { now, ..SOURCE };
    let (mut wal, _) = Wal::open(memory.clone(), "", settings, source).unwrap();
    let put = [Record::put(b"key", b"value")];
    assert!(wal.append_groups(&put, &[1], Level::Os).error.is_none());
    NOW.store(1_000_000, Ordering::Relaxed);
    let due = wal.tick(None).unwrap().unwrap();
    assert!(due <= now().plus(window), "{due:?}");
    let before = memory.faults.syncs.get();
    NOW.store(due.as_micros(), Ordering::Relaxed);
    assert_eq!(wal.tick(None).unwrap(), None);
    assert_eq!(memory.faults.syncs.get(), before + 1);
}
