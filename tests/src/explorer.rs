//! Crashing at every command, in recoveries too, with every outcome or with some.
//!
//! ```text
//!   a command ──► during, after ──► each outcome of a crash ──► recovery ──► what is there?
//!                                          ▲                       │
//!                                          └── each command of it ◄┘
//! ```
//!
//! Before a command is after the one before it. A state of the device that has been seen, with the
//! same to be held, is not looked at again, so that the nesting of crashes ends: where every
//! outcome is tried, it goes as deep as there are new states.

use crate::crash::{Dice, Outcomes, keep};
use crate::disk::{Disk, Memory, SECTOR_BYTES_MIN};
use crate::ensure;
use crate::opening::{Go, Opened, check, recover, start};
use crate::oracle::{Frame, Oracle, Verdict, broken};
use crate::random::{Hash, Random};
use alloc::format;
use alloc::vec::Vec;
use seawall_core::command::{Command, Operation};
use seawall_core::config::{Config, Level};
use seawall_core::log::Log;
use seawall_core::record::{Entry, Record};
use std::collections::HashSet;

/// Which outcomes of a crash are tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tries {
    /// All, as [`Outcomes`] counts them.
    All,
    /// None and all of what was not synced, and so many thrown by dice.
    Some(u32),
}

/// What is known of the states that were tried.
#[derive(Debug)]
pub struct Explorer {
    tries: Tries,
    /// How deep recoveries are crashed.
    depth: u32,
    seen: HashSet<u64>,
    random: Random,
    /// Crashes that were made, those that led to a known state with them.
    pub crashes: u64,
    /// Recoveries that ended and were checked.
    pub recoveries: u64,
    /// The deepest nesting.
    pub deepest: u32,
}

/// States kept to be known again; beyond that, those known are forgotten.
const SEEN_MAX: usize = 1 << 24;

/// What is to be explored: the disk before the crash, and what must be there after it.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The disk.
    pub disk: &'a Disk,
    /// What must be there.
    pub oracle: &'a Oracle,
    /// The log's settings.
    pub config: &'a Config,
    /// The time.
    pub now: u64,
}

/// Whether a command changes anything.
pub const fn changes(command: &Command<Memory>) -> bool {
    !matches!(command.operation(), Operation::Read | Operation::List)
}

impl Explorer {
    /// One that has seen nothing.
    pub fn new(tries: Tries, depth: u32, seed: u64) -> Self {
        Self {
            tries,
            depth,
            seen: HashSet::new(),
            random: Random::new(seed),
            crashes: 0,
            recoveries: 0,
            deepest: 0,
        }
    }

    /// How many different states there were.
    pub fn states(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Crashes while this command runs: it has begun, and not returned.
    ///
    /// # Errors
    /// What does not hold.
    pub fn during(&mut self, scene: Scene<'_>, command: &Command<Memory>) -> Verdict {
        self.during_at(scene, command, 0)
    }

    fn during_at(&mut self, scene: Scene<'_>, command: &Command<Memory>, depth: u32) -> Verdict {
        if !matches!(command, Command::Write(_)) {
            return Ok(());
        }
        let mut disk = scene.disk.clone();
        disk.begin(command);
        self.crash_at(Scene { disk: &disk, ..scene }, depth)
    }

    /// Crashes now.
    ///
    /// # Errors
    /// What does not hold.
    pub fn crash(&mut self, scene: Scene<'_>) -> Verdict {
        self.crash_at(scene, 0)
    }

    fn crash_at(&mut self, scene: Scene<'_>, depth: u32) -> Verdict {
        if depth > self.depth {
            return Ok(());
        }
        self.deepest = self.deepest.max(depth);
        match self.tries {
            Tries::All => {
                let units = scene.disk.units(SECTOR_BYTES_MIN);
                let mut outcomes = Outcomes::of(&units, self.random.number());
                while let Some(outcome) = outcomes.next_outcome(&units) {
                    let mut disk = scene.disk.clone();
                    disk.crash_by(SECTOR_BYTES_MIN, keep(&outcome));
                    self.survive(scene, disk, depth)?;
                }
            }
            Tries::Some(count) => {
                for kept in [0, usize::MAX] {
                    let mut disk = scene.disk.clone();
                    disk.crash_by(SECTOR_BYTES_MIN, |unit| unit.changes().min(kept));
                    self.survive(scene, disk, depth)?;
                }
                for _ in 0..count {
                    let mut disk = scene.disk.clone();
                    let mut dice = Dice::throw(&mut self.random, disk.sector_bytes);
                    disk.crash_by(dice.grain_bytes, |unit| dice.keep(unit));
                    self.survive(scene, disk, depth)?;
                }
            }
        }
        Ok(())
    }

    /// The machine is back: recovers, unless that was seen.
    fn survive(&mut self, scene: Scene<'_>, mut disk: Disk, depth: u32) -> Verdict {
        self.crashes += 1;
        let mut hash = Hash::default();
        hash.number(disk.state_hash());
        hash.number(scene.oracle.state_hash());
        hash.number(scene.config.segment_bytes_max ^ u64::from(scene.config.preallocate));
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        if !self.seen.insert(hash.value()) {
            return Ok(());
        }
        let Scene { oracle, config, now, .. } = scene;
        let mut verdict = Ok(());
        let start = start(config, hash.value(), now);
        let opened = recover(&mut disk, start, |disk, command| {
            if changes(command) && depth < self.depth {
                // What the commands before left behind, and then this one half done.
                let scene = Scene { disk, oracle, config, now };
                verdict = self
                    .crash_at(scene, depth + 1)
                    .and_then(|()| self.during_at(scene, command, depth + 1));
            }
            if verdict.is_ok() { Go::On(None) } else { Go::Stop }
        });
        verdict?;
        self.recoveries += 1;
        match opened {
            Some(Ok((log, report))) => {
                let mut oracle = oracle.clone();
                check(&disk, &mut oracle, (&log, &report), None)?;
                self.live_on(&scene, disk, oracle, (log, report))
            }
            Some(Err(error)) => broken(8, format!("the log does not open: {error}")),
            None => Ok(()),
        }
    }

    /// A log that recovered must go on as a sound one: one more record, and the worst crash.
    fn live_on(
        &mut self,
        scene: &Scene<'_>,
        mut disk: Disk,
        mut oracle: Oracle,
        (mut log, _): Opened,
    ) -> Verdict {
        let number = u64::MAX - oracle.last();
        append_and_drain(&mut log, &mut disk, &mut oracle, number)?;
        drop(log);
        disk.crash_by(SECTOR_BYTES_MIN, |_| 0);
        let start = start(scene.config, number, scene.now);
        let opened = recover(&mut disk, start, |_, _| Go::On(None));
        self.recoveries += 1;
        match opened {
            Some(Ok((log, report))) => check(&disk, &mut oracle, (&log, &report), None),
            _ => broken(8, format!("the log does not open again: {opened:?}")),
        }
    }
}

/// Appends one record at `Disk` and runs all commands.
fn append_and_drain(
    log: &mut Log<Memory>,
    disk: &mut Disk,
    oracle: &mut Oracle,
    number: u64,
) -> Verdict {
    let key = number.to_le_bytes();
    let record = Record::put(&key, b"after");
    for _ in 0..3 {
        while let Some(command) = log.poll_command() {
            log.complete(disk.execute(command, None));
        }
        let claim = log.durable().lsn.get();
        let Ok(appended) = log.append(&Entry::from(&record), Level::Disk) else { continue };
        let frame = Frame::of(log, &appended, claim);
        let content: Vec<u8> = [record.key, record.value].concat();
        oracle.append(frame, core::iter::once(content))?;
        while let Some(command) = log.poll_command() {
            log.complete(disk.execute(command, None));
        }
        ensure!(log.durable() == log.appended(), 20, "an append after recovery does not end");
        oracle.acknowledge(log.durable().lsn.get())?;
        return Ok(());
    }
    broken(20, "no append is taken after recovery".into())
}
