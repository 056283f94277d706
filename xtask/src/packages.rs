//! What would be published, packed and built as its users would.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::steps::Outcome;

const PACKAGES: [&str; 3] = ["seawall-core", "seawall", "seawall-cli"];

/// Packs them and builds what was packed. All else that they need is there by then.
pub(crate) fn build(root: &Path) -> Outcome {
    // Cargo keeps a package that another of these needs by the path of this folder, its name and
    // its version, and takes it for the same the next time: each run has a folder of its own.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let folder = root.join(format!("target/packages-{}", now.as_nanos()));
    let mut pack = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    pack.args(["package", "--offline", "--allow-dirty", "--target-dir"]).arg(&folder);
    for package in PACKAGES {
        pack.args(["--package", package]);
    }
    let ended = pack.current_dir(root).status();
    // What cannot be removed is in nobody's way.
    fs::remove_dir_all(&folder).ok();
    match ended {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(status) => Outcome::Failed(format!("cargo package ended with {status}")),
        Err(error) => Outcome::Failed(format!("cargo did not start: {error}")),
    }
}
