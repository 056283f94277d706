//! What befalls a log, as a list: drawn from a seed, run by [`crate::world`], and made shorter by
//! [`crate::shrink`] when it ends badly.
//!
//! Each step has its own dice, so that a step that is left out changes nothing about the others.

use crate::disk::Fault;
use crate::random::Random;
use alloc::vec::Vec;
use core::time::Duration;
use seawall_core::compress::Compression;
use seawall_core::config::{Config, FsyncPolicy, Level, RecoveryPolicy, RecoveryScan};
use seawall_core::wire::checksum::{ChecksumKind, Crc32cFn};

/// What a seed is to be about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Theme {
    /// Crashes alone.
    Crashes,
    /// Crashes, and operations that fail and say so.
    Faults,
    /// Crashes, and a disk that lies.
    Lies,
}

/// The settings of a log and of the disk under it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// How many bytes of the disk are written at once.
    pub sector_bytes: usize,
    /// [`Config::segment_bytes_max`].
    pub segment_bytes: u64,
    /// [`Config::segment_age_max`].
    pub age: Option<Duration>,
    /// [`Config::fsync_policy`].
    pub policy: FsyncPolicy,
    /// [`Config::preallocate`].
    pub preallocate: bool,
    /// [`Config::recycle_max`].
    pub recycle_max: usize,
    /// [`Config::write_back_bytes`].
    pub write_back_bytes: Option<u64>,
    /// [`Config::reserve_past_end`].
    pub reserve_past_end: bool,
    /// [`Config::recovery`].
    pub recovery: RecoveryPolicy,
    /// [`Config::scan`].
    pub scan: RecoveryScan,
    /// [`Config::checksum`].
    pub checksum: ChecksumKind,
}

impl Setup {
    /// Random, yet small.
    pub fn draw(random: &mut Random, theme: Theme) -> Self {
        let policies =
            [FsyncPolicy::Always, FsyncPolicy::Batch(Duration::from_micros(200)), FsyncPolicy::Os];
        let lenient =
            [RecoveryPolicy::PrefixValid, RecoveryPolicy::Strict, RecoveryPolicy::Salvage];
        let recovery = lenient[random.index(lenient.len())];
        Self {
            segment_bytes: 4_096 << random.below(3),
            age: random.chance(1, 4).then(|| Duration::from_millis(2)),
            policy: policies[random.index(policies.len())],
            preallocate: random.chance(1, 2),
            // Without damage all policies are the same, which half of the seeds hold them to.
            recovery: match theme {
                Theme::Lies => recovery,
                Theme::Crashes | Theme::Faults if random.chance(1, 2) => recovery,
                Theme::Crashes | Theme::Faults => RecoveryPolicy::PrefixValid,
            },
            scan: if random.chance(1, 4) { RecoveryScan::Full } else { RecoveryScan::Tail },
            checksum: if random.chance(1, 4) { ChecksumKind::Xxh3 } else { ChecksumKind::Crc32c },
            sector_bytes: if random.chance(1, 2) { 512 } else { 4_096 },
            // Without numbers of their own, so that older seeds mean what they did.
            recycle_max: random.clone().index(3),
            write_back_bytes: random.clone().number().is_multiple_of(2).then_some(1_024),
            reserve_past_end: random.clone().number().is_multiple_of(3),
        }
    }

    /// The settings as the log takes them.
    pub fn config(&self, crc: Crc32cFn) -> Config {
        Config {
            segment_bytes_max: self.segment_bytes,
            segment_age_max: self.age,
            fsync_policy: self.policy,
            preallocate: self.preallocate,
            reserve_bytes: if self.sector_bytes == 512 { 1_024 } else { self.segment_bytes },
            reserve_past_end: self.reserve_past_end,
            recycle_max: self.recycle_max,
            write_back_bytes: self.write_back_bytes,
            recovery: self.recovery,
            scan: self.scan,
            compression: Compression::None,
            batch_bytes: 4_096,
            checksum: self.checksum,
            crc,
            ..Config::default()
        }
        .checked()
        .expect("the settings hold together")
    }
}

/// How a disk lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// A bit of what is durable turns over.
    Rot,
    /// A sector of what is durable turns to zeros.
    Zeros,
    /// Two sectors of what is durable change places.
    Swap,
    /// The next write is acknowledged and synced, and never reaches the device.
    Lost,
    /// The next write goes to another place of its file or another file.
    Astray,
    /// Space that a file grew by holds bytes of an earlier life after the next crash.
    Stale,
}

/// One thing that befalls a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// An append of so many records, each of up to so many bytes.
    Append {
        /// How many.
        records: u8,
        /// Bytes of the longest.
        bytes: u16,
        /// The level that its appender waits for.
        level: Level,
    },
    /// Somebody waits for all to be durable.
    Flush,
    /// The active segment is ended.
    Rotate,
    /// Deletion of what is before the place so many thousandths into the log.
    DeleteBefore(u16),
    /// Truncation after the place so many thousandths into the log.
    TruncateAfter(u16),
    /// The log is closed.
    Close,
    /// The host does so many things: polls, runs and completes commands in any order.
    Run(u8),
    /// The host does everything there is to do.
    Drain,
    /// Time passes, in microseconds.
    Sleep(u16),
    /// A reader goes on by so many actions.
    Read(u8),
    /// The operation so many from now that this can befall goes wrong.
    Fault(Fault, u8),
    /// The disk lies.
    Lie(Lie),
    /// The process ends at once, and the machine with it if `power`; then the log is opened again,
    /// with so many crashes while it recovers.
    Fall {
        /// Whether what was not synced is lost.
        power: bool,
        /// How many recoveries crash before one ends.
        nested: u8,
    },
}

/// A step and the seed of its dice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What befalls.
    pub step: Step,
    /// What decides all that the step leaves open.
    pub dice: u64,
}

/// A life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// The settings.
    pub setup: Setup,
    /// What befalls, in order.
    pub events: Vec<Event>,
}

impl History {
    /// The history of a seed.
    pub fn draw(theme: Theme, seed: u64, steps: usize) -> Self {
        let mut random = Random::new(seed);
        let setup = Setup::draw(&mut random, theme);
        let mut events = Vec::with_capacity(steps);
        let lies_at = random.index(steps);
        for at in 0..steps {
            // A disk lies about once a life: what can be shown of two lies at once is less.
            let is_lie = theme == Theme::Lies && at == lies_at;
            let step =
                if is_lie { Step::Lie(Lie::draw(&mut random)) } else { draw(&mut random, theme) };
            events.push(Event { step, dice: random.number() });
        }
        Self { setup, events }
    }
}

impl Lie {
    fn draw(random: &mut Random) -> Self {
        let all = [Self::Rot, Self::Zeros, Self::Swap, Self::Lost, Self::Astray, Self::Stale];
        all[random.index(all.len())]
    }
}

fn draw(random: &mut Random, theme: Theme) -> Step {
    match random.below(1_000) {
        380..=699 => Step::Run(1 + small(random, 3)),
        700..=719 => Step::Flush,
        720..=739 => Step::Rotate,
        740..=759 => Step::DeleteBefore(permille(random)),
        760..=769 => Step::TruncateAfter(permille(random)),
        770..=779 => Step::Close,
        780..=839 => Step::Drain,
        840..=879 => Step::Sleep(permille(random)),
        880..=949 => Step::Read(1 + small(random, 12)),
        950..=969 if theme == Theme::Faults => {
            let faults =
                [Fault::Fails, Fault::NoSpace, Fault::NoSpace, Fault::DropsData, Fault::Short];
            Step::Fault(faults[random.index(faults.len())], small(random, 20))
        }
        970.. => {
            let nested = if random.chance(1, 16) { 8 } else { small(random, 4) };
            Step::Fall { power: random.chance(3, 5), nested }
        }
        _ => append(random),
    }
}

fn append(random: &mut Random) -> Step {
    let bytes = match random.below(20) {
        0 => 0,
        1..=15 => random.below(120),
        16..=18 => random.below(900),
        _ => random.below(3_000),
    };
    Step::Append {
        records: if random.chance(1, 4) { 1 + small(random, 8) } else { 1 },
        bytes: u16::try_from(bytes).unwrap_or(0),
        level: [Level::Buffered, Level::Os, Level::Disk][random.index(3)],
    }
}

fn small(random: &mut Random, bound: u64) -> u8 {
    u8::try_from(random.below(bound)).unwrap_or(0)
}

fn permille(random: &mut Random) -> u16 {
    u16::try_from(random.below(1_001)).unwrap_or(0)
}
