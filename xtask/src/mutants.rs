//! Core, changed in a small way at a time by cargo-mutants: do the tests see it?
//!
//! Only the quick programs of tests are run, one after the other, until one fails. All of core
//! takes hours on two cores; a part of it, `--shard 3/30`, says about as much.

use std::path::Path;
use std::process::Command;

use crate::machine::find;
use crate::steps::Outcome;

/// Programs of tests that need no more than a few seconds each.
const PROGRAMS: &[&str] = &[
    "--lib",
    "--test=edges",
    "--test=messages",
    "--test=golden",
    "--test=exhaustive",
    "--test=faults_recovery",
    "--test=simulation",
    "--test=damage",
];

/// Changes a part of core: `3/30` is the fourth of thirty. What came of it is in
/// `target/mutants/mutants.out`.
pub(crate) fn run(root: &Path, shard: &str) -> Outcome {
    if find("cargo-mutants").is_none() {
        let how = "`cargo install --locked cargo-mutants`";
        return Outcome::Skipped(format!("cargo-mutants is not installed: {how}"));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut mutants = Command::new(cargo);
    mutants
        .args(["mutants", "--workspace", "--file=core/src/**", "--baseline=skip", "--profile=dev"])
        .args(["--test-package=seawall-core", "--test-package=seawall-tests", "--timeout=120"])
        .args(["--sharding=round-robin", "--shard", shard, "--output", "target/mutants", "--"])
        .args(PROGRAMS)
        .env("SEAWALL_PROVE_SECONDS", "1")
        .current_dir(root);
    match mutants.status() {
        Ok(status) if status.success() => Outcome::Passed,
        // Both are in its summary.
        Ok(status) if matches!(status.code(), Some(2 | 3)) => {
            Outcome::Failed("some changes were not seen, or ran out of time".to_owned())
        }
        Ok(status) => Outcome::Failed(format!("cargo mutants ended with {status}")),
        Err(error) => Outcome::Failed(format!("cargo did not start: {error}")),
    }
}
