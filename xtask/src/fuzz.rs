//! A minute of fuzzing: `core/fuzz`, built with coverage by the stable compiler.
//!
//! libFuzzer needs a C++ compiler, and of rustc only that it counts which branches are taken. There
//! is no unsafe code to fuzz, so no sanitizer is asked for; `cargo +nightly fuzz run TARGET` in
//! `core/fuzz` adds one. New inputs go to `target/fuzz/corpus`, failures to `target/fuzz/failures`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::kills::lock;
use crate::machine::find;
use crate::steps::Outcome;

const TARGETS: [&str; 5] = ["frame", "scan", "recovery", "machine", "decompress"];

/// Of each target.
const SECONDS: u32 = 12;

const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Builds and runs all targets.
pub(crate) fn run(root: &Path) -> Outcome {
    if !cfg!(target_os = "linux") {
        return Outcome::Skipped("fuzzing is set up for Linux only".to_owned());
    }
    if find("c++").is_none() {
        return Outcome::Skipped("no C++ compiler, which libFuzzer needs (`c++`)".to_owned());
    }
    match build(root).and_then(|folder| fuzz_all(root, &folder)) {
        Ok(()) => Outcome::Passed,
        Err(why) => Outcome::Failed(why),
    }
}

fn build(root: &Path) -> Result<PathBuf, String> {
    let triple = host()?;
    let folder = root.join("target/fuzz");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--manifest-path", "core/fuzz/Cargo.toml"]);
    // With a target named, the flags leave build scripts alone.
    command.args(["--target", &triple, "--target-dir"]).arg(&folder);
    command.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}")).current_dir(root);
    let status = command.status().map_err(|error| format!("cargo did not start: {error}"))?;
    if status.success() {
        Ok(folder.join(triple).join("release"))
    } else {
        Err("the fuzz targets do not build".to_owned())
    }
}

/// The machine that this runs on, as rustc calls it.
fn host() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = Command::new(rustc).arg("-vV").output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc names no host".to_owned())
}

/// Each has one thread: two at a time.
fn fuzz_all(root: &Path, programs: &Path) -> Result<(), String> {
    let failed = Mutex::new(Vec::new());
    for targets in TARGETS.chunks(2) {
        std::thread::scope(|scope| {
            for &target in targets {
                let failed = &failed;
                scope.spawn(move || {
                    if let Err(why) = fuzz(root, programs, target) {
                        println!("{target}: {why}");
                        lock(failed).push(target);
                    }
                });
            }
        });
    }
    let failed = lock(&failed);
    if failed.is_empty() { Ok(()) } else { Err(format!("{} failed", failed.join(", "))) }
}

fn fuzz(root: &Path, programs: &Path, target: &str) -> Result<(), String> {
    let work = root.join("target/fuzz");
    let (found, failures) = (work.join("corpus").join(target), work.join("failures"));
    for folder in [&found, &failures] {
        fs::create_dir_all(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    }
    let prefix = failures.join(format!("{target}-"));
    let mut command = Command::new(programs.join(target));
    command.arg(&found).arg(root.join("core/fuzz/corpus").join(target));
    command.arg(format!("-max_total_time={SECONDS}"));
    command.args(["-print_final_stats=1", "-max_len=8192", "-rss_limit_mb=2048", "-timeout=20"]);
    command.arg(format!("-artifact_prefix={}", prefix.display()));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let ended = command.output().map_err(|error| format!("it did not start: {error}"))?;
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    if !ended.status.success() {
        println!("{told}");
        let program = programs.join(target);
        return Err(format!("replay: {} {}...", program.display(), prefix.display()));
    }
    let stat = |name: &str| {
        let line = told.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    };
    let (runs, rate) = (stat("stat::number_of_executed_units"), stat("stat::average_exec_per_sec"));
    println!("{target}: {runs} inputs, {rate} a second");
    Ok(())
}
