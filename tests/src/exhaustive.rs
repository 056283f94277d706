//! Every small workload, with every outcome of a crash at every command.
//!
//! A workload is a sequence of a few operations, each run to its end. Its last operation is the one
//! that is crashed: the crashes in the others are those of the shorter workloads that it begins
//! with, which come as well.

use crate::explorer::{Explorer, Tries};
use crate::history::{Event, History, Setup, Step};
use crate::oracle::Verdict;
use crate::world::World;
use alloc::format;
use alloc::vec::Vec;
use seawall_core::config::{FsyncPolicy, Level, RecoveryPolicy, RecoveryScan};
use seawall_core::wire::checksum::ChecksumKind;

/// What a workload is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// One small record, with the kernel.
    Append,
    /// A batch of two.
    Batch,
    /// All becomes durable.
    Sync,
    /// The segment ends.
    Rotate,
    /// What is before the last record is deleted, as far as segments end there.
    Delete,
    /// The last record is taken off.
    Truncate,
    /// The log is closed and opened again.
    Reopen,
}

/// All of them.
pub const ALPHABET: [Op; 7] =
    [Op::Append, Op::Batch, Op::Sync, Op::Rotate, Op::Delete, Op::Truncate, Op::Reopen];

/// The settings that all workloads are run under.
pub fn setups() -> [Setup; 2] {
    let plain = Setup {
        sector_bytes: 512,
        segment_bytes: 4_096,
        age: None,
        policy: FsyncPolicy::Os,
        preallocate: false,
        recycle_max: 0,
        write_back_bytes: Some(512),
        reserve_past_end: false,
        recovery: RecoveryPolicy::Strict,
        scan: RecoveryScan::Tail,
        checksum: ChecksumKind::Crc32c,
    };
    let reserved = Setup {
        preallocate: true,
        recovery: RecoveryPolicy::PrefixValid,
        scan: RecoveryScan::Full,
        ..plain
    };
    [plain, reserved]
}

/// The workload of this number among those of `length` operations.
pub fn workload(length: u32, number: u64) -> Vec<Op> {
    let mut rest = number;
    (0..length)
        .map(|_| {
            let op = ALPHABET[usize::try_from(rest % 7).unwrap_or(0)];
            rest /= 7;
            op
        })
        .collect()
}

/// How many workloads there are of `length` operations.
pub const fn workloads(length: u32) -> u64 {
    7_u64.pow(length)
}

/// What was explored.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Explored {
    /// Workloads.
    pub workloads: u64,
    /// Crashes that were made.
    pub crashes: u64,
    /// Different states after them, all recovered from and checked.
    pub states: u64,
    /// Recoveries.
    pub recoveries: u64,
    /// The deepest nesting of crashes in recoveries.
    pub deepest: u32,
}

/// Runs workloads.
#[derive(Debug)]
pub struct Exhaustive {
    history: History,
    explorer: Option<Explorer>,
    workloads: u64,
}

impl Exhaustive {
    /// Nothing run yet. `depth`: how deep recoveries are crashed.
    pub fn new(setup: Setup, depth: u32) -> Self {
        Self {
            history: History { setup, events: Vec::new() },
            explorer: Some(Explorer::new(Tries::All, depth, 0)),
            workloads: 0,
        }
    }

    /// Runs one workload and crashes its last operation in every way.
    ///
    /// # Errors
    /// What does not hold, and the workload.
    pub fn run(&mut self, ops: &[Op]) -> Verdict {
        self.workloads += 1;
        let mut world = World::new(&self.history);
        let verdict = self.run_in(&mut world, ops);
        if self.explorer.is_none() {
            self.explorer = world.explorer.take();
        }
        verdict.map_err(|mut violation| {
            violation.what = format!("{ops:?}: {}", violation.what);
            violation
        })
    }

    fn run_in(&mut self, world: &mut World, ops: &[Op]) -> Verdict {
        let Some((last, before)) = ops.split_last() else { return Ok(()) };
        take(world, Step::Drain)?;
        take(world, Step::Drain)?;
        for op in before {
            operate(world, *op)?;
        }
        world.explorer = self.explorer.take();
        operate(world, *last)
    }

    /// What was explored so far.
    pub fn explored(&self) -> Explored {
        let workloads = self.workloads;
        self.explorer.as_ref().map_or(Explored { workloads, ..Explored::default() }, |explorer| {
            Explored {
                workloads,
                crashes: explorer.crashes,
                states: explorer.states(),
                recoveries: explorer.recoveries,
                deepest: explorer.deepest,
            }
        })
    }
}

fn take(world: &mut World, step: Step) -> Verdict {
    world.take(&Event { step, dice: 0 })
}

fn operate(world: &mut World, op: Op) -> Verdict {
    // Long enough for a batch to reach from one sector into the next.
    let append = |records| Step::Append { records, bytes: 150, level: Level::Os };
    match op {
        Op::Append => take(world, append(1))?,
        Op::Batch => take(world, append(2))?,
        Op::Sync => take(world, Step::Flush)?,
        Op::Rotate => take(world, Step::Rotate)?,
        Op::Delete => take(world, Step::DeleteBefore(999))?,
        Op::Truncate => take(world, Step::TruncateAfter(600))?,
        Op::Reopen => {
            take(world, Step::Close)?;
            take(world, Step::Drain)?;
            world.fall(false, 0)?;
        }
    }
    take(world, Step::Drain)
}
