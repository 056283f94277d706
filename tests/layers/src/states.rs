//! Every state in which a power cut may leave a log on a file system on a disk, one after another.
//!
//! A workload runs once. Then, for moment after moment of the disk's log, the disk is put into
//! the state in which power loss at that moment may leave it; the kernel mounts what it finds
//! there, the log is opened, and what it holds is compared with what had been acknowledged by that
//! moment.

use crate::block::BlockDevice;
use crate::disk::{Entry, Image, Unflushed};
use crate::history::{Found, History};
use crate::workload::{self, Plan, config, open};
use seawall::WalConfig;
use seawall_tests::random::Random;

/// How a disk's writes are torn.
pub const SECTOR_BYTES: [usize; 2] = [512, 4_096];

/// What was seen.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Seen {
    /// States with all that was written, up to a moment.
    pub prefixes: u64,
    /// States with what was flushed by a moment and some of the rest.
    pub torn: u64,
    /// States after a power cut during or after the recovery from another state.
    pub nested: u64,
    /// States torn by sectors of 512 bytes that the file system itself does not mount: its
    /// superblock is longer than that.
    pub unmountable: u64,
    /// How many records all of these logs together were bound to hold.
    pub bound: u64,
}

impl Seen {
    /// How many states there were in which the log was opened.
    pub fn states(&self) -> u64 {
        self.prefixes + self.torn + self.nested
    }
}

/// A workload that has run, and the disk's log of it.
#[derive(Debug)]
pub struct World<'a> {
    block: &'a BlockDevice,
    base: Image,
    /// At which moment of the history the base stands.
    moment: u64,
    log: Vec<Entry>,
    /// What was asked of the log.
    pub history: History,
    random: Random,
    /// What was seen so far.
    pub seen: Seen,
}

/// What is to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Case {
    moment: usize,
    unflushed: Unflushed,
}

impl<'a> World<'a> {
    /// An empty file system.
    pub fn new(block: &'a BlockDevice, base: Image, seed: u64) -> Self {
        Self {
            block,
            base,
            moment: 0,
            log: Vec::new(),
            history: History::default(),
            random: Random::new(seed),
            seen: Seen::default(),
        }
    }

    /// Every third log maps its appends. On a disk that fails that would end the process, on one
    /// that only loses power it must not matter.
    fn settings(&mut self, folder: &std::path::Path) -> WalConfig {
        let config = config(&folder.join("wal"), &mut self.random);
        WalConfig { map_appends: self.random.chance(1, 3), ..config }
    }

    /// Opens the log on the base, lets threads work on it, and keeps the disk's log of that.
    ///
    /// # Panics
    /// When anything fails: nothing of this disk does.
    pub fn work(&mut self, threads: u64, appends: u64) {
        self.block.set_image(&self.base);
        let mounted = self.block.mount().expect("a state that was mounted before");
        let settings = self.settings(mounted.path());
        let (wal, opened) = open(settings).expect("invariant 8: the log opens");
        self.history.check_and_continue(opened.first, &opened.found, self.moment);
        let plan = Plan { threads, appends, seed: self.random.number() };
        let block = self.block;
        let is_whole = workload::run(&wal, &self.history, plan, &|| block.moment());
        assert!(is_whole, "the log failed on a disk that does not");
        if self.random.chance(1, 2) {
            wal.close().expect("the disk does not fail");
        }
        drop(wal);
        mounted.unmount().expect("nobody uses it");
        self.log = self.block.take_log();
    }

    /// Every prefix of the disk's log, and the same moments with what was not flushed torn, in
    /// random order.
    fn cases(&mut self) -> Vec<Case> {
        let mut cases = Vec::new();
        for moment in 0..=self.log.len() {
            cases.push(Case { moment, unflushed: Unflushed::Kept });
            let is_flushed = moment == 0 || matches!(self.log[moment - 1], Entry::Flush);
            for sector_bytes in SECTOR_BYTES {
                let unflushed = Unflushed::Torn { sector_bytes, seed: self.random.number() };
                if !is_flushed {
                    cases.push(Case { moment, unflushed });
                }
            }
        }
        for index in (1..cases.len()).rev() {
            cases.swap(index, self.random.index(index + 1));
        }
        cases
    }

    /// Looks at states for as long as `goes_on` says, or at all there are.
    ///
    /// # Panics
    /// With the number of the invariant that is broken.
    pub fn look(&mut self, mut goes_on: impl FnMut() -> bool) {
        for case in self.cases() {
            if !goes_on() {
                return;
            }
            let nested = self.random.chance(1, 4);
            self.look_at(case, nested);
        }
    }

    fn look_at(&mut self, case: Case, nested: bool) {
        let image = self.base.at(&self.log, case.moment, case.unflushed);
        let moment = case.moment as u64;
        let Some(found) = self.open_and_check(&image, moment, case.unflushed) else { return };
        match case.unflushed {
            Unflushed::Kept => self.seen.prefixes += 1,
            Unflushed::Torn { .. } => self.seen.torn += 1,
        }
        if nested {
            self.cut_recovery(&image, moment, &found);
        }
    }

    /// Power goes out in the middle of the recovery that has just run, or after it.
    fn cut_recovery(&mut self, image: &Image, moment: u64, found: &Opened) {
        let log = self.block.take_log();
        let at = self.random.index(log.len() + 1);
        let unflushed = if self.random.chance(1, 2) {
            Unflushed::Kept
        } else {
            Unflushed::Torn { sector_bytes: 4_096, seed: self.random.number() }
        };
        let image = image.at(&log, at, unflushed);
        let Some(again) = self.open_and_check(&image, moment, unflushed) else { return };
        self.seen.nested += 1;
        if at as u64 >= found.shown {
            let why = "invariant 6: what a recovery has shown is not what the next one shows";
            assert!(again.first == found.first && again.found == found.found, "{why}");
        }
    }

    /// `None`: the file system does not mount.
    fn open_and_check(
        &mut self,
        image: &Image,
        moment: u64,
        unflushed: Unflushed,
    ) -> Option<Opened> {
        self.block.set_image(image);
        let mounted = match self.block.mount() {
            Ok(mounted) => mounted,
            Err(why) => {
                let is_torn = matches!(unflushed, Unflushed::Torn { sector_bytes: 512, .. });
                assert!(is_torn, "the disk that we made is no disk: {why}");
                self.seen.unmountable += 1;
                return None;
            }
        };
        let settings = self.settings(mounted.path());
        let (wal, opened) = open(settings).expect("invariant 8: the log opens");
        let shown = self.block.moment();
        drop(wal);
        mounted.unmount().expect("nobody uses it");
        self.seen.bound += self.history.check(opened.first, &opened.found, moment);
        Some(Opened { first: opened.first, found: opened.found, shown })
    }

    /// Power went out at a random moment, and the next workload runs on what that left.
    pub fn continue_from_some_state(&mut self) {
        let cases = self.cases();
        let kept = cases.iter().find(|case| case.unflushed == Unflushed::Kept);
        let case = kept.expect("there is a prefix of any log");
        self.base = self.base.at(&self.log, case.moment, case.unflushed);
        self.moment = case.moment as u64;
    }

    /// Whether a disk is caught that forgot what its last flush before some moment covered.
    pub fn catches_a_forgotten_flush(&mut self) -> bool {
        let flushes: Vec<usize> =
            (0..self.log.len()).filter(|index| matches!(self.log[*index], Entry::Flush)).collect();
        flushes.windows(2).any(|pair| {
            let image = self.base.at(&self.log, pair[0], Unflushed::Kept);
            let (before, after) = (pair[0] as u64, pair[1] as u64 + 1);
            if self.history.bound(before) == self.history.bound(after) {
                return false;
            }
            self.block.set_image(&image);
            let Ok(mounted) = self.block.mount() else { return false };
            let settings = config(&mounted.path().join("wal"), &mut self.random);
            let Ok((_wal, opened)) = open(settings) else { return false };
            (opened.found.len() as u64) < self.history.bound(after)
        })
    }
}

/// What a log held when it was opened.
#[derive(Debug)]
struct Opened {
    first: u64,
    found: Vec<Found>,
    /// The moment at which its recovery was done.
    shown: u64,
}
