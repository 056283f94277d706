//! `cargo xtask component`: the guest, built twice and made into components, and one that uses it.
//!
//! ```text
//!   target/component/seawall.wasm        for every host
//!   target/component/seawall-simd.wasm   with the SIMD instructions of WebAssembly
//!   target/component/counter.wasm        an example that imports the log
//!   target/component/trace.wasm          the simulator, for a test that compares
//! ```

use std::path::Path;
use std::process::Command;

use crate::machine;
use crate::steps::Outcome;

const TARGET: &str = "wasm32-unknown-unknown";

/// No component may be larger: it is loaded over networks and compiled before it runs.
const BYTES_MAX: u64 = 400 << 10;

/// A build of the guest.
struct Build {
    /// The component's file name.
    name: &'static str,
    package: &'static str,
    /// The compiler's flags.
    flags: &'static str,
    /// Where it is built: other flags would throw out what is there.
    folder: &'static str,
}

const BUILDS: &[Build] = &[
    Build { name: "seawall.wasm", package: "seawall-component", flags: "", folder: "target" },
    Build {
        name: "seawall-simd.wasm",
        package: "seawall-component",
        flags: "-Ctarget-feature=+simd128",
        folder: "target/simd",
    },
    Build { name: "counter.wasm", package: "seawall-example-guest", flags: "", folder: "target" },
    Build { name: "trace.wasm", package: "seawall-trace", flags: "", folder: "target" },
];

/// Builds them.
pub(crate) fn build(root: &Path) -> Outcome {
    if let Err(why) = machine::ensure_target(TARGET) {
        return Outcome::Failed(why);
    }
    for build in BUILDS {
        if let Err(why) = build_one(root, build) {
            return Outcome::Failed(format!("{}: {why}", build.name));
        }
    }
    Outcome::Passed
}

fn build_one(root: &Path, build: &Build) -> Result<(), String> {
    let folder = root.join(build.folder);
    let mut guest = cargo(root);
    guest.args(["build", "--package", build.package, "--profile", "wasm"]);
    guest.args(["--target", TARGET, "--target-dir"]).arg(&folder);
    guest.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", build.flags);
    run(guest)?;
    let module = format!("{}.wasm", build.package.replace('-', "_"));
    let module = folder.join(TARGET).join("wasm").join(module);
    let component = root.join("target/component").join(build.name);
    let mut encode = cargo(root);
    encode.args(["run", "--quiet", "--package", "seawall-encode", "--"]);
    encode.arg(module).arg(&component);
    run(encode)?;
    let bytes = std::fs::metadata(&component).map_err(|error| error.to_string())?.len();
    if bytes > BYTES_MAX {
        return Err(format!("it has {bytes} bytes; at most {BYTES_MAX} are allowed"));
    }
    Ok(())
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

fn run(mut command: Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("cargo did not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo ended with {status}")) }
}
