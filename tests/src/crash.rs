//! Who decides what a crash leaves of what was not synced: the dice, or a count through all there
//! is.

use crate::disk::SECTOR_BYTES_MIN;
use crate::random::Random;
use alloc::vec::Vec;

/// What survives or perishes on its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// A change of a folder's names.
    Name,
    /// A file's length, which has changed so many times.
    Length(usize),
    /// A piece of a file, which has been written so many times.
    Piece {
        /// How many times.
        changes: usize,
        /// How long a piece is.
        bytes: usize,
    },
}

impl Unit {
    /// How many changes of it a crash may keep at most.
    pub const fn changes(self) -> usize {
        match self {
            Self::Name => 1,
            Self::Length(changes) | Self::Piece { changes, .. } => changes,
        }
    }
}

/// How a crash treats what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    /// All of it had reached the device.
    All,
    /// None of it had.
    Nothing,
    /// Of each unit the newest or nothing.
    NewestOrNothing,
    /// Of each unit any version.
    Any,
    /// Names or content, not both.
    OneKind { names: bool },
}

/// A crash by chance.
#[derive(Debug)]
pub struct Dice {
    style: Style,
    random: Random,
    /// How long a piece is: a sector, less where sectors are torn.
    pub grain_bytes: usize,
}

impl Dice {
    /// Throws for how a crash is to be.
    pub fn throw(random: &mut Random, sector_bytes: usize) -> Self {
        let style = match random.below(8) {
            0 => Style::All,
            1 => Style::Nothing,
            2 | 3 => Style::NewestOrNothing,
            4..=6 => Style::Any,
            _ => Style::OneKind { names: random.chance(1, 2) },
        };
        // A write within a sector may also reach the device in parts, the bytes that it does not
        // change staying as they are: rarely pieces are as small as that.
        let grain_bytes = match random.below(8) {
            0 => [1, 8, 64][random.index(3)],
            1..=4 => sector_bytes,
            _ => SECTOR_BYTES_MIN.min(sector_bytes),
        };
        Self { style, random: Random::new(random.number()), grain_bytes }
    }

    /// How many of a unit's changes are on the device.
    pub fn keep(&mut self, unit: Unit) -> usize {
        let changes = unit.changes();
        match self.style {
            Style::All => changes,
            Style::Nothing => 0,
            Style::NewestOrNothing => changes * self.random.index(2),
            Style::Any => self.random.index(changes + 1),
            Style::OneKind { names } => changes * usize::from(names == (unit == Unit::Name)),
        }
    }
}

/// Every outcome that a crash can have, one after the other.
#[derive(Debug)]
pub struct Outcomes {
    radices: Vec<usize>,
    /// Units before this one are drawn by chance, the others are counted through.
    counted_from: usize,
    digits: Vec<usize>,
    is_done: bool,
    /// Outcomes drawn by chance that are left, for units that are too many to count through.
    drawn_left: u32,
    random: Random,
}

/// More outcomes than this are not counted through: all subsets of so many units.
const OUTCOMES_MAX: usize = 1 << 12;
/// How many are drawn besides then.
const DRAWN: u32 = 64;

impl Outcomes {
    /// All versions of all units, where they are no more than the subsets of 12 units have; else
    /// all subsets of the last 12 units, the others newest, and some at random.
    pub fn of(units: &[Unit], seed: u64) -> Self {
        let mut radices: Vec<usize> = units.iter().map(|unit| unit.changes() + 1).collect();
        let product = |radices: &[usize]| {
            radices.iter().try_fold(1_usize, |all, radix| {
                all.checked_mul(*radix).filter(|all| *all <= OUTCOMES_MAX)
            })
        };
        let mut counted_from = 0;
        let mut drawn_left = 0;
        if product(&radices).is_none() {
            // Versions in between are left to chance.
            counted_from = radices.len().saturating_sub(12);
            drawn_left = DRAWN;
        }
        if drawn_left > 0 {
            radices[counted_from..].fill(2);
        }
        let digits = alloc::vec![0; radices.len()];
        Self {
            radices,
            counted_from,
            digits,
            is_done: false,
            drawn_left,
            random: Random::new(seed),
        }
    }

    /// The next outcome: for each unit how many of its changes are kept, in [`keep`]'s terms.
    pub fn next_outcome(&mut self, units: &[Unit]) -> Option<Vec<usize>> {
        let is_drawn = self.drawn_left > 0;
        if self.is_done {
            self.drawn_left = self.drawn_left.checked_sub(1)?;
            let kept = units.iter().map(|unit| self.random.index(unit.changes() + 1));
            return Some(kept.collect());
        }
        let kept = self.digits.iter().enumerate().map(|(at, digit)| {
            let changes = units[at].changes();
            if at < self.counted_from {
                changes
            } else if is_drawn {
                changes * digit
            } else {
                *digit
            }
        });
        let kept: Vec<usize> = kept.collect();
        self.is_done = !self.count();
        Some(kept)
    }

    /// Counts one on; false after the last.
    fn count(&mut self) -> bool {
        for at in self.counted_from..self.digits.len() {
            self.digits[at] += 1;
            if self.digits[at] < self.radices[at] {
                return true;
            }
            self.digits[at] = 0;
        }
        false
    }
}

/// What [`Disk::crash_by`](crate::disk::Disk::crash_by) asks for, from an outcome.
pub fn keep(outcome: &[usize]) -> impl FnMut(Unit) -> usize + '_ {
    let mut kept = outcome.iter();
    move |_| kept.next().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(units: &[Unit]) -> (usize, usize) {
        let mut outcomes = Outcomes::of(units, 1);
        let mut all = Vec::new();
        while let Some(outcome) = outcomes.next_outcome(units) {
            all.push(outcome);
        }
        let drawn = all.len();
        all.sort_unstable();
        all.dedup();
        (drawn, all.len())
    }

    #[test]
    fn every_outcome_comes_once() {
        assert_eq!(count(&[]), (1, 1));
        assert_eq!(count(&[Unit::Name, Unit::Length(2)]), (6, 6));
        assert_eq!(count(&[Unit::Name; 12]), (4_096, 4_096));
        let (drawn, different) = count(&[Unit::Name; 20]);
        assert_eq!(drawn, 4_096 + 64);
        assert!(different > 4_096, "some of those drawn are others");
    }
}
