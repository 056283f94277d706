//! Which files this process has open.

use std::path::{Path, PathBuf};

/// What the descriptors of this process that lead into a folder name; a file that was removed ends
/// in "(deleted)".
pub fn open_files(dir: &Path) -> Vec<PathBuf> {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("the kernel tells what is open");
    descriptors
        // One may have been closed since it was listed.
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with(dir) && target != dir)
        .collect()
}
