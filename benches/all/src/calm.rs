//! Is the disk itself? Disks of virtual machines slow down for a while after much has been written,
//! to a fraction of their speed; a measurement then says nothing about the log.

use crate::contestant::Outcome;
use crate::report::median;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A file to try the disk with, and the best that it has shown.
pub(crate) struct Disk {
    file: File,
    best_seconds: f64,
    /// How much longer the run may wait for the disk, all in all.
    patience: Duration,
}

const TRIES: u64 = 15;
const PIECE: [u8; 1 << 10] = [7; 1 << 10];
/// More than so many times the best is not calm.
const SLOWER: f64 = 2.5;
/// For one measurement it waits so long at most.
const WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

impl Disk {
    pub(crate) fn new(dir: &Path, patience: Duration) -> Outcome<Self> {
        let path = dir.join("disk");
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        for at in 0..TRIES {
            file.write_all_at(&PIECE, at * PIECE.len() as u64)?;
        }
        file.sync_all()?;
        let mut disk = Self { file, best_seconds: f64::MAX, patience };
        for _ in 0..5 {
            disk.is_calm()?;
        }
        Ok(disk)
    }

    /// Tries it with a few small synced writes.
    pub(crate) fn is_calm(&mut self) -> Outcome<bool> {
        let mut times = Vec::new();
        for at in 0..TRIES {
            let start = Instant::now();
            self.file.write_all_at(&PIECE, at * PIECE.len() as u64)?;
            self.file.sync_data()?;
            times.push(start.elapsed().as_secs_f64());
        }
        let now = median(times).unwrap_or(0.0);
        self.best_seconds = self.best_seconds.min(now);
        Ok(now <= self.best_seconds * SLOWER)
    }

    /// Waits until it is calm, or for long enough.
    pub(crate) fn wait(&mut self) -> Outcome<()> {
        let start = Instant::now();
        let limit = WAIT.min(self.patience);
        while !self.is_calm()? && start.elapsed() < limit {
            std::thread::sleep(PAUSE);
        }
        self.patience = self.patience.saturating_sub(start.elapsed());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_not_waited_for_forever() {
        let temp = tempfile::tempdir().unwrap();
        let mut disk = Disk::new(temp.path(), Duration::from_millis(1)).unwrap();
        // No disk is so fast: it never looks calm again.
        disk.best_seconds = 1e-12;
        disk.wait().unwrap();
        disk.best_seconds = 1e-12;
        disk.wait().unwrap();
        assert_eq!(disk.patience, Duration::ZERO);
    }
}
