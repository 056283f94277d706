//! The facts about the machine, so that figures can be compared with care; this process's memory.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::Path;

/// What the figures of a run depend on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Type and options of the file system that the folder is on.
    pub(crate) file_system: String,
    /// How many processes wanted a core before the run, on average over a minute.
    pub(crate) load: String,
}

impl Machine {
    pub(crate) fn of(dir: &Path) -> Self {
        let field = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let whole = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field("/proc/cpuinfo", "model name"),
            memory_bytes: kibibytes(&field("/proc/meminfo", "MemTotal")).unwrap_or(0),
            kernel: whole("/proc/sys/kernel/osrelease"),
            file_system: file_system(dir, &whole("/proc/self/mountinfo")),
            load: whole("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cores ({}), {} GiB of memory, Linux {}, {}, load before: {}",
            self.cores,
            self.processor,
            self.memory_bytes >> 30,
            self.kernel,
            self.file_system,
            self.load
        )
    }
}

/// The file system of the longest mount point above the folder.
fn file_system(dir: &Path, mounts: &str) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let found = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut mount = mount.split(' ');
        let (point, options) = (mount.nth(4)?, mount.next()?);
        let kind = kind.split(' ').next()?;
        dir.starts_with(point).then(|| (point.len(), format!("{kind} ({options})")))
    });
    // Of several mounts at one point the last is seen.
    found.max_by_key(|(length, _)| *length).map_or_else(|| "unknown".into(), |(_, name)| name)
}

fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

/// A figure of this process: `VmRSS` for now, `VmHWM` for the most since [`reset_peak`]. `None`
/// where the system does not tell.
pub(crate) fn memory_bytes(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    kibibytes(line.split_once(':')?.1.trim())
}

/// Forgets the most memory that this process had. Where that is not allowed, the most since its
/// start counts.
pub(crate) fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts = "1 0 8:1 / / rw,noatime shared:1 - ext4 /dev/a rw\n\
                      2 1 0:2 / /proc rw - proc proc rw\n\
                      3 1 8:2 / /nowhere/data rw,relatime - xfs /dev/b rw";
        assert_eq!(file_system(Path::new("/nowhere/data/x"), mounts), "xfs (rw,relatime)");
        assert_eq!(file_system(Path::new("/nowhere/else"), mounts), "ext4 (rw,noatime)");
    }
}
