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
            let many = entries.len();
            for at in 0..many {
                // Somebody else begins each round: who comes after a heavy one pays for it.
                let entry = &mut entries[(at + round) % many];
                if !entry.takes_part() {
                    continue;
                }
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
