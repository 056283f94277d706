//! The native engine under a scheduler of threads that chooses at random, in a build of its own:
//! `--cfg shuttle` puts the checker's locks and threads in place of the standard library's.

use std::path::Path;
use std::process::Command;

use crate::steps::Outcome;

/// What the compiler is told.
pub(crate) const FLAGS: &str = "--cfg shuttle";

/// How many schedules of each kind `prove` goes through in each test.
const PROVED: &str = "20000";

/// What the tests are about is the order of threads, and they open thousands of logs: so those lie
/// in memory, where Linux has a folder for that and nobody has said where else.
const IN_MEMORY: &str = "/dev/shm";

/// A few hundred schedules for each test, as the tests themselves have it.
pub(crate) fn slice(root: &Path) -> Outcome {
    run(root, None)
}

/// Many more, built for speed.
pub(crate) fn all(root: &Path) -> Outcome {
    run(root, Some(PROVED))
}

fn run(root: &Path, schedules: Option<&str>) -> Outcome {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut tests = Command::new(cargo);
    tests.args(["test", "--package", "seawall", "--test", "schedules"]);
    if let Some(schedules) = schedules {
        tests.arg("--release").env("SEAWALL_SCHEDULES", schedules);
    }
    // These would count for more.
    tests.env_remove("CARGO_ENCODED_RUSTFLAGS");
    tests.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", root.join("target/schedules"));
    if std::env::var_os("TMPDIR").is_none() && Path::new(IN_MEMORY).is_dir() {
        tests.env("TMPDIR", IN_MEMORY);
    }
    match tests.current_dir(root).status() {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(status) => Outcome::Failed(format!("cargo test ended with {status}")),
        Err(error) => Outcome::Failed(format!("cargo did not start: {error}")),
    }
}
