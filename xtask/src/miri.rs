//! Core's own tests of the format under Miri, which sees every use of memory that is not there.
//!
//! Core forbids unsafe code; its dependencies do not all. The tests of the codecs are left out:
//! they take minutes there.

use std::path::Path;
use std::process::Command;

use crate::machine::{find, succeeds};
use crate::steps::Outcome;

/// Runs them.
pub(crate) fn run(root: &Path) -> Outcome {
    if find("rustup").is_none() {
        return Outcome::Skipped("Miri comes with rustup's nightly, and there is none".to_owned());
    }
    let add = ["component", "add", "miri", "rust-src", "--toolchain", "nightly"];
    if !succeeds("rustup", &add) {
        let how = "`rustup toolchain install nightly --component miri rust-src`";
        return Outcome::Skipped(format!("no Miri: {how}"));
    }
    let mut miri = Command::new("rustup");
    miri.args(["run", "nightly", "cargo", "miri", "test", "--package", "seawall-core", "--lib"]);
    miri.args(["--", "wire"]);
    // Those of the stable cargo that this was started by.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        miri.env_remove(name);
    }
    miri.env("CARGO_TARGET_DIR", root.join("target/miri")).current_dir(root);
    match miri.status() {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(status) => Outcome::Failed(format!("Miri ended with {status}")),
        Err(error) => Outcome::Failed(format!("rustup did not start: {error}")),
    }
}
