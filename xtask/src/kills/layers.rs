//! The layers of tests, and a copy of the tree to run them in.

use super::bug::Bug;
use crate::{run, schedules};
use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// One program of tests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) name: &'static str,
    program: &'static str,
    /// The arguments of cargo that build it.
    target: &'static [&'static str],
    /// Whether it may be ended at the first test that fails.
    ends_early: bool,
    /// Of the compiler, which take a build of their own.
    flags: Option<&'static str>,
}

macro_rules! integration {
    ($name:literal, $ends_early:literal) => {
        Layer {
            name: $name,
            program: $name,
            target: &["--test", $name],
            ends_early: $ends_early,
            flags: None,
        }
    };
}

const fn library(name: &'static str, program: &'static str) -> Layer {
    Layer { name, program, target: &["--lib"], ends_early: true, flags: None }
}

/// The package that the programs of tests are in.
const TESTS: &str = "seawall-tests";

/// In the order of what they cost.
pub(super) const LAYERS: &[Layer] = &[
    library("core", "seawall_core"),
    library("host", "seawall"),
    Layer { flags: Some(schedules::FLAGS), ..integration!("schedules", true) },
    integration!("golden", true),
    integration!("edges", true),
    integration!("fast_path", true),
    integration!("fault_d22", true),
    integration!("faults_recovery", true),
    integration!("faults_reading", true),
    integration!("faults_durability", true),
    integration!("concurrency", true),
    integration!("exhaustive", true),
    // It mounts a file system, which it alone can take away again.
    integration!("limits", false),
    integration!("simulation", true),
    integration!("damage", true),
    integration!("kill", true),
];

/// What came of a layer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All tests passed.
    Survives,
    /// This test failed, or the program did.
    Caught(String),
    /// It did not end in time.
    Hangs,
}

/// A copy of the tree, and the folder that it is built in.
#[derive(Debug)]
pub(super) struct Workshop {
    root: PathBuf,
    home: PathBuf,
    tree: PathBuf,
    target: PathBuf,
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // It may never have been made.
        fs::remove_dir_all(self.temp()).ok();
    }
}

/// Removes the files of a folder that are not among these: they stood there in an earlier copy, and
/// cargo finds tests by their names.
fn remove_others(folder: &Path, known: &BTreeSet<PathBuf>) -> Result<(), String> {
    let failed = |why| format!("{}: {why}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            remove_others(&path, known)?;
        } else if !known.contains(&path) {
            fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}

/// A bug that stands in the copy until this is dropped.
pub(super) struct Planted<'a> {
    workshop: &'a Workshop,
    files: Vec<String>,
}

impl Drop for Planted<'_> {
    fn drop(&mut self) {
        for file in &self.files {
            if let Err(why) = self.workshop.copy(file) {
                // The next copy of the tree puts it right, or fails as well.
                println!("{why}");
            }
        }
    }
}

impl Workshop {
    /// Copies every file that git knows, or would know. What is the same already stays untouched,
    /// so that nothing is built twice.
    pub(super) fn new(root: &Path, number: usize) -> Result<Self, String> {
        let home = root.join(format!("target/kills/{number}"));
        let tree = home.join("tree");
        // Not the checkout's: cargo tells packages apart by where they stand in their workspace,
        // and would take what was built here, bug and all, for the checkout's own.
        let target = root.join("target/kills/target");
        let workshop = Self { root: root.to_path_buf(), home, tree, target };
        for folder in ["logs", "tree"] {
            let path = workshop.home.join(folder);
            fs::create_dir_all(&path).map_err(|why| format!("{}: {why}", path.display()))?;
        }
        let files = crate::tidy::files(root)?;
        for file in &files {
            workshop.copy(file)?;
        }
        let known = files.iter().map(|file| workshop.tree.join(file)).collect();
        remove_others(&workshop.tree, &known)?;
        Ok(workshop)
    }

    fn copy(&self, file: &str) -> Result<(), String> {
        let (from, to) = (self.root.join(file), self.tree.join(file));
        let failed = |why| format!("{file} cannot be copied: {why}");
        let Ok(content) = fs::read(&from) else {
            // Deleted and not committed.
            return match fs::remove_file(&to) {
                Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(failed(why)),
                _ => Ok(()),
            };
        };
        self.put(file, &content)
    }

    fn put(&self, file: &str, content: &[u8]) -> Result<(), String> {
        let to = self.tree.join(file);
        if fs::read(&to).is_ok_and(|there| there == content) {
            return Ok(());
        }
        let folder = to.parent().unwrap_or(&self.tree);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&to, content));
        written.map_err(|why| format!("{}: {why}", to.display()))
    }

    /// Puts a bug into the copy.
    pub(super) fn plant(&self, bug: &Bug) -> Result<Planted<'_>, String> {
        let mut planted = Planted { workshop: self, files: Vec::new() };
        for (file, text) in bug.planted(&self.root)? {
            self.put(&file, text.as_bytes())?;
            planted.files.push(file);
        }
        Ok(planted)
    }

    /// Builds the programs of these layers.
    pub(super) fn build(&self, layers: &[&Layer]) -> Result<Vec<PathBuf>, String> {
        let mut programs = vec![PathBuf::new(); layers.len()];
        let mut kinds: Vec<_> = layers.iter().map(|layer| layer.flags).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for flags in kinds {
            let of_kind = |layer: &&&Layer| layer.flags == flags;
            let told = self.cargo(layers.iter().filter(of_kind).copied(), flags)?;
            for (path, layer) in programs.iter_mut().zip(layers) {
                if layer.flags == flags {
                    let found = program(&told, layer.program);
                    let found = found.ok_or_else(|| format!("cargo names no program:\n{told}"))?;
                    *path = self.tree.join(found);
                }
            }
        }
        Ok(programs)
    }

    /// What cargo says while it builds them.
    fn cargo<'a>(
        &self,
        layers: impl Iterator<Item = &'a Layer>,
        flags: Option<&str>,
    ) -> Result<String, String> {
        let mut targets: Vec<&str> = Vec::new();
        for layer in layers {
            if layer.target.len() > 1 || !targets.contains(&layer.target[0]) {
                targets.extend(layer.target);
            }
        }
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args(["test", "--no-run", "-p", "seawall-core", "-p", "seawall", "-p", TESTS])
            .args(targets)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_TERM_COLOR", "never")
            .current_dir(&self.tree)
            .stdin(Stdio::null());
        if let Some(flags) = flags {
            let target = self.target.with_extension("schedules");
            command.env_remove("CARGO_ENCODED_RUSTFLAGS");
            command.env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", target);
        }
        let output = command.output().map_err(|why| format!("cargo did not start: {why}"))?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(told) } else { Err(format!("it does not build:\n{told}")) }
    }

    /// Where tests put their files: in memory where there is such a folder. No test cuts the power
    /// of the machine, and a sync costs nothing there. The same for every run in this checkout, so
    /// that the next one clears away what one that was ended has left.
    fn temp(&self) -> PathBuf {
        let memory = Path::new("/dev/shm");
        let number = self.home.file_name().unwrap_or_default().to_string_lossy();
        if memory.is_dir() {
            let mut checkout = DefaultHasher::new();
            self.root.hash(&mut checkout);
            memory.join(format!("seawall-kills-{:016x}-{number}", checkout.finish()))
        } else {
            self.home.join("temp")
        }
    }

    /// Runs a layer. What it prints goes to a file of its own.
    pub(super) fn run(
        &self,
        bug: &str,
        layer: &Layer,
        program: &Path,
        limit: Duration,
    ) -> Result<Verdict, String> {
        let temp = self.temp();
        // What a program that was ended has left behind.
        fs::remove_dir_all(&temp).ok();
        fs::create_dir_all(&temp).map_err(|why| format!("{}: {why}", temp.display()))?;
        let log = self.home.join(format!("logs/{bug}-{}", layer.name));
        let log = fs::File::create(&log).map_err(|why| format!("{}: {why}", log.display()))?;
        let mut command = Command::new(program);
        command
            .current_dir(self.tree.join("tests"))
            .env("TMPDIR", &temp)
            .env("RUST_BACKTRACE", "0")
            .env_remove("SEAWALL_SEED")
            .env_remove("SEAWALL_PROVE_SECONDS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        run::lead_a_group(&mut command);
        let child = command.spawn().map_err(|why| format!("{}: {why}", program.display()))?;
        watch(child, log, layer.ends_early, limit)
    }
}

/// Follows a program of tests to its end, or to the first failure.
fn watch(
    mut child: Child,
    mut log: fs::File,
    ends_early: bool,
    limit: Duration,
) -> Result<Verdict, String> {
    let (sender, lines) = channel();
    let output = child.stdout.take().ok_or("it has no output")?;
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    let mut failed = None;
    let ended = loop {
        match lines.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(line) => {
                // The file is for people; the verdict does not hang on it.
                writeln!(log, "{line}").ok();
                failed = failed.or_else(|| failed_test(&line));
                if failed.is_some() && ends_early {
                    break false;
                }
            }
            Err(RecvTimeoutError::Timeout) => break false,
            Err(RecvTimeoutError::Disconnected) => break true,
        }
    };
    if !ended {
        run::end(&mut child);
    }
    let status = child.wait().map_err(|why| format!("lost sight of it: {why}"))?;
    Ok(match failed {
        Some(test) => Verdict::Caught(test),
        None if !ended => Verdict::Hangs,
        None if status.success() => Verdict::Survives,
        None => Verdict::Caught(format!("the program: {status}")),
    })
}

/// The test that a line of libtest's says has failed.
fn failed_test(line: &str) -> Option<String> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    Some(name.trim_end_matches(" - should panic").to_string())
}

/// The path of a program that cargo says it has built.
fn program(told: &str, name: &str) -> Option<PathBuf> {
    told.lines().find_map(|line| {
        let path =
            line.trim().strip_prefix("Executable ")?.rsplit_once('(')?.1.strip_suffix(')')?;
        let file = Path::new(path).file_stem()?.to_str()?;
        (file.rsplit_once('-')?.0 == name).then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_their_whole_name() {
        let told = "   Compiling seawall v0.1.0\n  Executable unittests src/lib.rs \
                    (/x/deps/seawall_core-0a1b)\n  Executable unittests src/lib.rs \
                    (/x/deps/seawall-2c)\n  Executable tests/kill.rs (/x/deps/kill-3d)\n";
        for (name, path) in [("seawall", "/x/deps/seawall-2c"), ("kill", "/x/deps/kill-3d")] {
            assert_eq!(program(told, name), Some(PathBuf::from(path)));
        }
        assert_eq!(program(told, "core"), None);
    }

    #[test]
    fn what_is_gone_goes_from_the_copy() {
        let folder = std::env::temp_dir().join(format!("seawall-copy-{}", std::process::id()));
        let (kept, gone) = (folder.join("tests/edges/main.rs"), folder.join("tests/edges.rs"));
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        for file in [&kept, &gone] {
            fs::write(file, "").unwrap();
        }
        remove_others(&folder, &BTreeSet::from([kept.clone()])).unwrap();
        assert!(kept.exists() && !gone.exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn failures_are_seen() {
        assert_eq!(failed_test("test a::b ... FAILED").as_deref(), Some("a::b"));
        assert_eq!(failed_test("test a::b ... ok"), None);
        assert_eq!(failed_test("test result: FAILED. 1 passed"), None);
    }

    #[cfg(unix)]
    fn verdict_of(script: &str, ends_early: bool) -> Verdict {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        run::lead_a_group(&mut command);
        let log = tempfile();
        watch(command.spawn().unwrap(), log, ends_early, Duration::from_millis(400)).unwrap()
    }

    #[cfg(unix)]
    fn tempfile() -> fs::File {
        fs::OpenOptions::new().write(true).open("/dev/null").unwrap()
    }

    #[cfg(unix)]
    #[test]
    fn verdicts() {
        let caught = |test: &str| Verdict::Caught(test.to_string());
        assert_eq!(verdict_of("echo 'test a ... ok'", true), Verdict::Survives);
        assert_eq!(verdict_of("sleep 600", true), Verdict::Hangs);
        assert_eq!(verdict_of("echo 'test a ... FAILED'; sleep 600", true), caught("a"));
        assert_eq!(verdict_of("echo 'test a ... FAILED'; exit 1", false), caught("a"));
        assert!(matches!(verdict_of("exit 3", true), Verdict::Caught(why) if why.contains('3')));
    }
}
