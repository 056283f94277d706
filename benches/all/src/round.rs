//! Runs rows: everybody in turn, several rounds over.

use crate::calm::Disk;
use crate::child::{self, Order, Phase};
use crate::contestant::{Contestant, Outcome};
use crate::floor::Floor;
use crate::measure::{Measured, Scale};
use crate::report::{Entry, RowReport};
use crate::row::Row;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A measurement is made so often at most until the disk is calm all the while.
const TURNS: usize = 3;

/// How a run is made.
pub(crate) struct Plan<'a> {
    pub(crate) contestants: Vec<&'a dyn Contestant>,
    pub(crate) dir: &'a Path,
    pub(crate) scale: Scale,
    pub(crate) rounds: usize,
}

impl Plan<'_> {
    /// Measures one row.
    pub(crate) fn row(&self, row: &Row, disk: &mut Disk) -> Outcome<RowReport> {
        let mut entries = self.entries(row);
        for entry in entries.iter_mut().filter(|entry| entry.takes_part()) {
            if row.work.is_prepared() {
                entry.failed = self.prepare(row, entry).err().map(|error| error.to_string());
            }
        }
        for round in 0..self.rounds {
            let present: Vec<usize> =
                (0..entries.len()).filter(|at| entries[*at].takes_part()).collect();
            for turn in 0..present.len() {
                let entry = &mut entries[present[whose(turn, round, present.len())]];
                match self.measure_calmly(row, entry, round == 0, disk) {
                    Ok(measured) => entry.rounds.push(measured),
                    Err(error) => entry.failed = Some(error.to_string()),
                }
            }
        }
        for entry in &entries {
            remove(&self.folder(row, &entry.name))?;
        }
        Ok(RowReport {
            id: row.id.clone(),
            title: row.title.clone(),
            reach: row.reach,
            is_opening: row.work.is_opening(),
            entries,
        })
    }

    fn entries(&self, row: &Row) -> Vec<Entry> {
        let floors = Floor::ALL.into_iter().filter_map(|floor| {
            let does = floor.does(row.work)?;
            Some(Entry { is_floor: true, ..Entry::new(floor.name(), does) })
        });
        let logs = self.contestants.iter().map(|contestant| {
            let missing = row.work.needs().into_iter().find_map(|need| contestant.can(need).err());
            let about =
                if row.work.is_opening() { contestant.opening() } else { contestant.durable() };
            let absent = missing.map(str::to_owned);
            Entry { absent, ..Entry::new(contestant.name(), about) }
        });
        floors.chain(logs).collect()
    }

    fn folder(&self, row: &Row, name: &str) -> PathBuf {
        self.dir.join(&row.id).join(name.replace([' ', ','], "-"))
    }

    fn order(&self, row: &Row, entry: &Entry, phase: Phase) -> Outcome<Order> {
        let dir = self.folder(row, &entry.name);
        Ok(Order { row: row.id.clone(), ..Order::new(&entry.name, phase, &dir, &self.scale)? })
    }

    fn prepare(&self, row: &Row, entry: &Entry) -> Outcome<()> {
        let order = self.order(row, entry, Phase::Prepare)?;
        let _: u64 = child::run_for(&order, child::LIMIT)?;
        // Nothing is left to be written while others are measured.
        sync_all(&order.dir)
    }

    /// Measures again when the disk was not calm before and after; in the end takes what it got.
    fn measure_calmly(
        &self,
        row: &Row,
        entry: &Entry,
        verify: bool,
        disk: &mut Disk,
    ) -> Outcome<Measured> {
        let mut left = TURNS;
        loop {
            disk.wait()?;
            let before = disk.is_calm()?;
            let mut measured = self.measure(row, entry, verify)?;
            measured.is_disturbed = !(before && disk.is_calm()?);
            left -= 1;
            if !measured.is_disturbed || left == 0 {
                return Ok(measured);
            }
        }
    }

    fn measure(&self, row: &Row, entry: &Entry, verify: bool) -> Outcome<Measured> {
        let order = Order { verify, ..self.order(row, entry, Phase::Measure)? };
        if !row.work.is_prepared() {
            remove(&order.dir)?;
        }
        let result = child::run(&order);
        if !row.work.is_prepared() {
            remove(&order.dir)?;
        }
        result
    }
}

/// Whose turn it is among `many`. Who comes after a heavy one pays for it, so in as many rounds
/// each of an even number comes once after each other, and of an odd number at most twice
/// (Williams, "Experimental designs balanced for the estimation of residual effects of
/// treatments", 1949).
const fn whose(turn: usize, round: usize, many: usize) -> usize {
    let to_and_fro = if turn.is_multiple_of(2) { turn / 2 } else { many - turn.div_ceil(2) };
    (to_and_fro + round) % many
}

/// Removes a folder, if it is there.
pub(crate) fn remove(dir: &Path) -> Outcome<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn sync_all(dir: &Path) -> Outcome<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn everybody_has_a_turn_in_each_round_and_comes_after_all_others() {
        for many in 1..=13 {
            let mut after = BTreeMap::new();
            for round in 0..many {
                let turns: Vec<usize> = (0..many).map(|turn| whose(turn, round, many)).collect();
                for pair in turns.windows(2) {
                    *after.entry((pair[0], pair[1])).or_insert(0) += 1;
                }
                let mut all = turns;
                all.sort_unstable();
                assert_eq!(all, (0..many).collect::<Vec<_>>());
            }
            let most = 1 + many % 2;
            assert!(after.values().all(|times| *times <= most), "{many}: {after:?}");
            if many % 2 == 0 {
                assert_eq!(after.len(), many * (many - 1));
            }
        }
    }
}
