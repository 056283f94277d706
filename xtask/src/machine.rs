//! What this machine has, and how to get what it has not: targets, tools.
//!
//! **Architecture Invariant:** something is installed only where that needs no question: a target
//! through rustup, and a Debian package when we are root, as CI is. Everyone else is told what
//! will be skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::steps::Outcome;

/// What the tests would miss without strace.
const STRACE_SKIPS: &str = "strace is missing: tests that watch or break system calls will skip";

/// Installs the tools the tests look for, or says what will be skipped.
pub(crate) fn prepare(_root: &Path) -> Outcome {
    if !cfg!(target_os = "linux") {
        return Outcome::Skipped("strace is for Linux only: its tests will skip".to_string());
    }
    if find("strace").is_some() {
        println!("strace: found");
        return Outcome::Passed;
    }
    if find("apt-get").is_none() || !is_root() {
        return Outcome::Skipped(format!("{STRACE_SKIPS} (`apt-get install strace` as root)"));
    }
    let installed = succeeds("apt-get", &["update"])
        && succeeds("apt-get", &["install", "-y", "strace"])
        && find("strace").is_some();
    if installed {
        Outcome::Passed
    } else {
        Outcome::Skipped(format!("{STRACE_SKIPS} (apt-get could not install it)"))
    }
}

/// What makes file systems and loop devices, and the package that it comes with.
const FILE_SYSTEM_TOOLS: &[(&str, &str)] = &[
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("losetup", "mount"),
];

/// Installs what the layers need to make file systems, or says what will be skipped.
pub(crate) fn prepare_file_systems(_root: &Path) -> Outcome {
    if !cfg!(target_os = "linux") {
        return Outcome::Skipped("mounts are those of Linux: the layers will skip".to_string());
    }
    if !is_root() {
        return Outcome::Skipped("mounting needs root: the layers will skip".to_string());
    }
    let missing = || FILE_SYSTEM_TOOLS.iter().filter(|(tool, _)| !is_installed(tool));
    if missing().next().is_some() && find("apt-get").is_some() {
        let packages = missing().map(|(_, package)| *package);
        let install: Vec<&str> = ["install", "-y"].into_iter().chain(packages).collect();
        let _installed = succeeds("apt-get", &["update"]) && succeeds("apt-get", &install);
    }
    let left: Vec<&str> = missing().map(|(tool, _)| *tool).collect();
    if left.is_empty() {
        return Outcome::Passed;
    }
    Outcome::Skipped(format!("no {}: the layers that need it will skip", left.join(", ")))
}

/// Tools of the administrator are not on everybody's path.
fn is_installed(tool: &str) -> bool {
    let folders = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
    find(tool).is_some() || folders.iter().any(|folder| Path::new(folder).join(tool).is_file())
}

/// Sees to it that the standard library of a target is there; says what to do if it cannot be.
///
/// Asks rustc, not rustup: a distribution's Rust has targets, but no rustup.
pub(crate) fn ensure_target(target: &str) -> Result<(), String> {
    if has_target(target) {
        return Ok(());
    }
    let added = find("rustup").is_some() && succeeds("rustup", &["target", "add", target]);
    if added && has_target(target) {
        return Ok(());
    }
    Err(format!("no target {target}: run `rustup target add {target}`, or install its std"))
}

/// Whether rustc's library folder for the target holds a core library.
///
/// The folder alone says little: rustup may leave it behind, empty.
fn has_target(target: &str) -> bool {
    let asked = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "target-libdir", "--target", target])
        .output();
    let Ok(answer) = asked else { return false };
    let folder = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
    let Ok(entries) = folder.read_dir() else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// A program on the search path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths)
        .map(|folder| folder.join(format!("{program}{}", std::env::consts::EXE_SUFFIX)))
        .find(|candidate| candidate.is_file())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|answer| answer.stdout.trim_ascii() == b"0")
}

pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    println!("$ {program} {}", arguments.join(" "));
    Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there_and_nothing_else() {
        assert!(find("cargo").is_some());
        assert!(find("no-such-program-on-any-machine").is_none());
        assert!(!has_target("no-such-target"));
    }
}
