//! Which steps a command takes: one line each, in the order they run.
//!
//! A new check is a new line in a table here. Most are a cargo command line; what cargo cannot say
//! is a function. Nothing here runs anything: that is `run`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::{component, examples, fuzz, kills, machine, miri, packages, schedules, tidy};

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// With the reason, where the output has not told it already.
    Failed(String),
    /// With what was not checked, and why.
    Skipped(String),
}

/// Several times what a slow machine needs for any step, building included. A test that hangs must
/// not hide what the later steps find.
const LIMIT: Duration = Duration::from_mins(45);

/// What to do when this machine has no standard library for a step's target.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Missing {
    Fails,
    Skips,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    /// A function, which runs in a process of its own: it can be ended with all that it started.
    Call(fn(&Path) -> Outcome),
    /// The arguments of a cargo command line.
    Cargo(&'static [&'static str]),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) action: Action,
    /// Left out by `--fast`.
    pub(crate) slow: bool,
    /// It runs tests: there must be some, and they are counted.
    pub(crate) tests: bool,
    pub(crate) environment: Option<(&'static str, &'static str)>,
    pub(crate) target: Option<(&'static str, Missing)>,
    /// Longer than this is a hang, and a failure.
    pub(crate) limit: Option<Duration>,
}

impl Step {
    const fn new(name: &'static str, action: Action) -> Self {
        Self {
            name,
            action,
            slow: false,
            tests: false,
            environment: None,
            target: None,
            limit: Some(LIMIT),
        }
    }

    const fn call(name: &'static str, function: fn(&Path) -> Outcome) -> Self {
        Self::new(name, Action::Call(function))
    }

    const fn cargo(name: &'static str, arguments: &'static [&'static str]) -> Self {
        Self::new(name, Action::Cargo(arguments))
    }

    const fn test(name: &'static str, arguments: &'static [&'static str]) -> Self {
        Self::cargo(name, arguments).tests()
    }

    const fn tests(self) -> Self {
        Self { tests: true, ..self }
    }

    /// For as long as the caller asked for.
    const fn unlimited(self) -> Self {
        Self { limit: None, ..self }
    }

    const fn slow(self) -> Self {
        Self { slow: true, ..self }
    }

    const fn with(self, name: &'static str, value: &'static str) -> Self {
        Self { environment: Some((name, value)), ..self }
    }

    /// Adds `--target` to the cargo command line, and sees to it that the target is there.
    const fn on(self, target: &'static str, missing: Missing) -> Self {
        Self { target: Some((target, missing)), ..self }
    }
}

const CLIPPY: &[&str] = &[
    "clippy",
    "--workspace",
    "--exclude",
    "seawall-bench-all",
    "--all-targets",
    "--all-features",
    "--",
    "-D",
    "warnings",
];

/// Without its features: those bring in every other log, which takes longer to build than all else.
const CLIPPY_BENCH_ALL: &[&str] =
    &["clippy", "--package", "seawall-bench-all", "--all-targets", "--", "-D", "warnings"];

/// Core alone, so that no other package switches on a feature that it needs.
const CORE: &[&str] = &["build", "--package", "seawall-core"];

const TESTS: &[&str] = &["test", "--workspace", "--exclude", "seawall-layers", "--no-fail-fast"];

/// Real file systems and devices, one test at a time, with the figures that they print.
const LAYERS: &[&str] =
    &["test", "--package", "seawall-layers", "--no-fail-fast", "--", "--nocapture", SINGLY];

const LAYERS_PROVED: &[&str] = &[
    "test",
    "--release",
    "--package",
    "seawall-layers",
    "--no-fail-fast",
    "--",
    "--nocapture",
    SINGLY,
];

const SINGLY: &str = "--test-threads=1";

const TESTS_OF_FEATURES: &[&str] =
    &["test", "--package", "seawall", "--all-features", "--no-fail-fast"];

/// Every layer of the simulator and the small workloads on all cores, with a report.
const REPORT: &[&str] = &["run", "--release", "--package", "seawall-tests", "--example", "prove"];

const PROOFS: &[&str] = &["test", "--release", "--package", "seawall-tests", "--no-fail-fast"];

/// The log as a program of 32 bits, which a Linux of 64 runs as it is; musl needs no other linker.
const TESTS_OF_32_BITS: &[&str] = &[
    "test",
    "--package",
    "seawall-core",
    "--package",
    "seawall",
    "--package",
    "seawall-tests",
    "--no-fail-fast",
];

/// The library as a user gets it, and with one feature at a time. Other platforms take the same
/// line: the compiler's opinion, no linker needed.
const CHECK: &[&str] = &["check", "--package", "seawall"];
const CHECK_TRACING: &[&str] = &["check", "--package", "seawall", "--features", "tracing"];
const CHECK_METRICS: &[&str] = &["check", "--package", "seawall", "--features", "metrics"];
const CHECK_URING: &[&str] = &["check", "--package", "seawall", "--features", "io-uring"];
const CHECK_ZSTD: &[&str] = &["check", "--package", "seawall", "--features", "zstd"];

/// Of the packages that clippy was run on, as it was: most of what they need is checked by then.
const DOCS: &[&str] =
    &["doc", "--workspace", "--exclude", "seawall-bench-all", "--all-features", "--no-deps"];

pub(crate) const TEST: &[Step] = &[
    Step::call("prepare", machine::prepare),
    Step::call("tidy", tidy::check),
    Step::cargo("format", &["fmt", "--all", "--check"]),
    Step::cargo("clippy", CLIPPY).slow(),
    Step::cargo("clippy, bench-all", CLIPPY_BENCH_ALL).slow(),
    // There is no std at all here: what pulls one in by accident does not build.
    Step::cargo("core, no std", CORE).on("x86_64-unknown-none", Missing::Fails),
    Step::cargo("core, wasm", CORE).on("wasm32-unknown-unknown", Missing::Fails),
    Step::call("component", component::build),
    Step::call("examples", examples::run).slow(),
    Step::test("tests", TESTS),
    Step::test("tests, all features", TESTS_OF_FEATURES),
    Step::call("miri", miri::run).tests().slow(),
    Step::call("schedules", schedules::slice).tests().slow(),
    Step::call("fuzz", fuzz::run).slow(),
    Step::call("kills, slice", kills::slice).slow(),
    Step::call("file systems", machine::prepare_file_systems).slow(),
    Step::test("layers", LAYERS).slow(),
    Step::cargo("library alone", CHECK).slow(),
    Step::cargo("feature tracing", CHECK_TRACING).slow(),
    Step::cargo("feature metrics", CHECK_METRICS).slow(),
    Step::cargo("feature io-uring", CHECK_URING).slow(),
    Step::cargo("feature zstd", CHECK_ZSTD).slow(),
    Step::cargo("windows", CHECK).on("x86_64-pc-windows-gnu", Missing::Skips).slow(),
    Step::cargo("macos", CHECK).on("aarch64-apple-darwin", Missing::Skips).slow(),
    Step::cargo("docs", DOCS).with("RUSTDOCFLAGS", "-Dwarnings").slow(),
    Step::call("packages", packages::build).slow(),
];

pub(crate) const PROVE: &[Step] = &[
    Step::call("prepare", machine::prepare),
    Step::call("file systems", machine::prepare_file_systems),
    Step::call("component", component::build),
    Step::cargo("prove, report", REPORT).unlimited(),
    Step::test("prove", PROOFS).unlimited(),
    Step::test("prove layers", LAYERS_PROVED).unlimited(),
    Step::test("prove, 32 bits", TESTS_OF_32_BITS)
        .on("i686-unknown-linux-musl", Missing::Skips)
        .unlimited(),
    Step::call("prove schedules", schedules::all).tests().unlimited(),
    Step::call("fuzz", fuzz::run),
    Step::call("prove kills", kills::all).unlimited(),
];

/// The step with this name.
pub(crate) fn named(name: &str) -> Option<&'static Step> {
    TEST.iter().chain(PROVE).find(|step| step.name == name)
}

/// The cargo command line of a step, without `cargo` itself.
///
/// The target goes before a `--`, behind which arguments are no longer cargo's.
pub(crate) fn command_line(step: &Step, arguments: &[&'static str]) -> Vec<&'static str> {
    let mut line = arguments.to_vec();
    if let Some((target, _)) = step.target {
        let end = line.iter().position(|argument| *argument == "--").unwrap_or(line.len());
        line.splice(end..end, ["--target", target]);
    }
    line
}

/// A table as the help shows it.
pub(crate) fn describe(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let what = match step.action {
            Action::Call(_) => "(inside xtask)".to_string(),
            Action::Cargo(arguments) => {
                let line = command_line(step, arguments).join(" ");
                let set = step.environment.map(|(name, value)| format!("{name}={value} "));
                format!("{}cargo {line}", set.unwrap_or_default())
            }
        };
        let slow = if step.slow { "slow" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<20} {slow:<5}{what}", step.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_goes_before_the_double_dash() {
        let step = Step::cargo("x", &[]).on("moon", Missing::Skips);
        assert_eq!(command_line(&step, &["check"]), ["check", "--target", "moon"]);
        assert_eq!(
            command_line(&step, &["clippy", "--", "-D"]),
            ["clippy", "--target", "moon", "--", "-D"]
        );
    }

    #[test]
    fn a_name_means_one_thing() {
        for steps in [TEST, PROVE] {
            let mut names: Vec<_> = steps.iter().map(|step| step.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), steps.len());
        }
        for step in PROVE {
            if let (Action::Call(one), Action::Call(other)) =
                (step.action, named(step.name).unwrap().action)
            {
                assert!(std::ptr::fn_addr_eq(one, other), "{}", step.name);
            }
        }
    }

    #[test]
    fn whatever_runs_tests_has_them_counted() {
        for step in TEST.iter().chain(PROVE) {
            let Action::Cargo(arguments) = step.action else { continue };
            assert_eq!(step.tests, arguments[0] == "test", "{}", step.name);
        }
    }

    #[test]
    fn the_fast_table_still_runs_tests() {
        assert!(TEST.iter().any(|step| !step.slow && step.tests));
    }
}
