//! One step after the other: output live, then one summary.
//!
//! ```text
//!   step                 result    seconds  tests
//!   tidy                 passed        0.1
//!   tests                FAILED       61.3  211 passed, 1 failed, 0 skipped
//!   windows              skipped       0.9  no target x86_64-pc-windows-gnu: run ...
//!
//!   211 passed, 1 failed, 1 skipped
//! ```
//!
//! The last line adds up tests, with one more `failed` for each step that failed by something
//! other than a test, and one more `skipped` for each step that was skipped: so it never reads
//! `0 failed` when the exit code says otherwise, and names every hole.
//!
//! **Architecture Invariant:** a step that fails, or hangs, stops no other step: each is a process,
//! of cargo or of this program itself, that can be ended. Where a person watches, at a terminal,
//! nothing is ended for being slow: there is Ctrl-C. A step that should run tests and runs none
//! has failed.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::machine;
use crate::steps::{self, Action, Missing, Outcome, Step};
use crate::tally::Tally;

/// How long output may still arrive after cargo itself has ended. A crash test may leave a process
/// behind that holds the pipe open; that must not hang the whole run.
const LATE_OUTPUT: Duration = Duration::from_secs(3);

/// How often a running step is looked at.
const POLL: Duration = Duration::from_millis(20);

type Environment<'a> = &'a [(&'static str, String)];

/// One line of the summary.
struct Row {
    name: &'static str,
    outcome: Outcome,
    elapsed: Duration,
    tally: Option<Tally>,
}

/// Runs a table of steps and prints the summary.
pub(crate) fn all(
    root: &Path,
    steps: &[Step],
    fast: bool,
    environment: Environment<'_>,
) -> ExitCode {
    let watched = io::stderr().is_terminal();
    let mut rows = Vec::new();
    for step in steps.iter().filter(|step| !(fast && step.slow)) {
        println!("\n== {} ==", step.name);
        let start = Instant::now();
        let (outcome, tally) = one(root, step, environment, watched);
        if let Outcome::Failed(why) | Outcome::Skipped(why) = &outcome {
            println!("{}: {why}", step.name);
        }
        rows.push(Row { name: step.name, outcome, elapsed: start.elapsed(), tally });
    }
    let (total, passed) = verdict(&rows);
    print!("\n{}", table(&rows));
    if !rows.iter().any(|row| row.tally.is_some_and(|tally| tally.ran() > 0)) {
        println!("\nno tests ran: that is a failure");
    }
    println!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one step as a command of its own, without a summary.
pub(crate) fn alone(root: &Path, step: &Step) -> ExitCode {
    let (outcome, _) = one(root, step, &[], io::stderr().is_terminal());
    if let Outcome::Failed(why) | Outcome::Skipped(why) = &outcome {
        println!("{}: {why}", step.name);
    }
    if outcome == Outcome::Passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a step's own process ends with when it was skipped. The reason is the last line it prints.
const SKIPPED: u8 = 77;

/// Runs one function in this process.
pub(crate) fn here(root: &Path, function: impl FnOnce(&Path) -> Outcome) -> ExitCode {
    match function(root) {
        Outcome::Passed => ExitCode::SUCCESS,
        Outcome::Failed(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
        Outcome::Skipped(why) => {
            println!("{why}");
            ExitCode::from(SKIPPED)
        }
    }
}

fn one(
    root: &Path,
    step: &Step,
    environment: Environment<'_>,
    watched: bool,
) -> (Outcome, Option<Tally>) {
    if let Some((target, missing)) = step.target
        && let Err(why) = machine::ensure_target(target)
    {
        let outcome = match missing {
            Missing::Fails => Outcome::Failed(why),
            Missing::Skips => Outcome::Skipped(why),
        };
        return (outcome, None);
    }
    let mut command = match step.action {
        Action::Call(_) => {
            let mut command = Command::new(own_program());
            command.args(["step", step.name]);
            command
        }
        Action::Cargo(arguments) => {
            let line = steps::command_line(step, arguments);
            println!("$ cargo {}", line.join(" "));
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut command = Command::new(cargo);
            command.args(line);
            command
        }
    };
    command.current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped());
    command.envs(step.environment);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let limit = if watched { None } else { step.limit };
    if limit.is_some() {
        lead_a_group(&mut command);
    }
    match command.spawn() {
        Ok(child) => follow(child, step, limit),
        Err(error) => (Outcome::Failed(format!("it did not start: {error}")), None),
    }
}

/// This program, also where a newer one has been built in its place meanwhile.
fn own_program() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() { running } else { std::env::current_exe().unwrap_or(running) }
}

/// Shows a child's output as it comes, and counts the tests in it.
fn follow(mut child: Child, step: &Step, limit: Option<Duration>) -> (Outcome, Option<Tally>) {
    let (sender, receiver) = channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || relay(output, &sender));
    }
    let status = wait(&mut child, limit);
    let (tally, last) = collect(&receiver);
    let outcome = match status {
        Ok(Some(status)) => outcome(step, status, tally, last),
        Ok(None) => Outcome::Failed("ended: it ran longer than it may".to_string()),
        Err(error) => Outcome::Failed(format!("lost sight of it: {error}")),
    };
    (outcome, step.tests.then_some(tally))
}

/// What came of a step that ended like this, with so many tests, and said this last.
fn outcome(step: &Step, status: ExitStatus, tally: Tally, last: String) -> Outcome {
    let is_call = matches!(step.action, Action::Call(_));
    match status.code() {
        Some(0) if step.tests && tally.ran() == 0 => Outcome::Failed("no test ran".to_string()),
        Some(0) => Outcome::Passed,
        Some(code) if is_call && code == i32::from(SKIPPED) => Outcome::Skipped(last),
        Some(1) if is_call => Outcome::Failed(last),
        _ => Outcome::Failed(format!("it ended with {status}")),
    }
}

/// How a child ended; nothing, if it had to be ended.
fn wait(child: &mut Child, limit: Option<Duration>) -> io::Result<Option<ExitStatus>> {
    let Some(limit) = limit else { return child.wait().map(Some) };
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(POLL);
    }
    end(child);
    child.wait().map(|_| None)
}

/// Lets a command lead a process group, so that what it starts can be ended with it.
pub(crate) fn lead_a_group(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(not(unix))]
    let _ = command;
}

/// Ends a child that leads a group, with all that it started: cargo alone would leave its tests.
pub(crate) fn end(child: &mut Child) {
    if cfg!(unix) {
        let group = format!("-{}", child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
    }
    // On its own where there are no groups; the group is gone by now where there are.
    let _ = child.kill();
}

/// Passes each line on to our own output and to `sender`.
fn relay(output: ChildStdout, sender: &Sender<String>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    // Bytes, not text: a test may print anything.
    while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        // If our own output is gone, nobody is looking; the counts and the exit code still matter.
        let mut screen = std::io::stdout();
        let _ = screen.write_all(&line).and_then(|()| screen.flush());
        if sender.send(String::from_utf8_lossy(&line).trim_end().to_string()).is_err() {
            return;
        }
        line.clear();
    }
}

/// The tests that were counted in a child's lines, and the last of these.
fn collect(receiver: &Receiver<String>) -> (Tally, String) {
    let (mut sum, mut last) = (Tally::default(), String::new());
    loop {
        match receiver.recv_timeout(LATE_OUTPUT) {
            Ok(line) => {
                sum += Tally::of_line(&line).unwrap_or_default();
                last = line;
            }
            Err(RecvTimeoutError::Disconnected) => return (sum, last),
            Err(RecvTimeoutError::Timeout) => {
                println!("a process that a test left behind still holds the output; going on");
                return (sum, last);
            }
        }
    }
}

/// The counts of the last line, and whether the whole run passed.
fn verdict(rows: &[Row]) -> (Tally, bool) {
    let mut total = Tally::default();
    for row in rows {
        total += row.tally.unwrap_or_default();
    }
    let ran = total.ran() > 0;
    for row in rows {
        match row.outcome {
            Outcome::Passed => {}
            Outcome::Failed(_) => {
                total.failed += u64::from(row.tally.unwrap_or_default().failed == 0);
            }
            Outcome::Skipped(_) => total.skipped += 1,
        }
    }
    if !ran && total.failed == 0 {
        total.failed = 1;
    }
    (total, total.failed == 0)
}

fn table(rows: &[Row]) -> String {
    let mut text = format!("{:<20} {:<8} {:>8}  {}\n", "step", "result", "seconds", "tests");
    for row in rows {
        let result = match row.outcome {
            Outcome::Passed => "passed",
            Outcome::Failed(_) => "FAILED",
            Outcome::Skipped(_) => "skipped",
        };
        let why = match &row.outcome {
            Outcome::Passed => "",
            Outcome::Failed(why) | Outcome::Skipped(why) => why,
        };
        let detail = match row.tally {
            Some(Tally { passed, failed, skipped }) => {
                let counts = format!("{passed} passed, {failed} failed, {skipped} skipped");
                // A failure that no test accounts for needs its reason: a crash, say, or a build.
                if failed == 0 && !why.is_empty() { format!("{counts}; {why}") } else { counts }
            }
            None => why.to_string(),
        };
        let seconds = row.elapsed.as_secs_f64();
        let line = format!("{:<20} {result:<8} {seconds:>8.1}  {detail}", row.name);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(outcome: Outcome, counts: Option<(u64, u64, u64)>) -> Row {
        let tally = counts.map(|(passed, failed, skipped)| Tally { passed, failed, skipped });
        Row { name: "step", outcome, elapsed: Duration::from_millis(1500), tally }
    }

    fn check(rows: &[Row], counts: (u64, u64, u64), passed: bool) {
        let (total, verdict) = verdict(rows);
        assert_eq!((total.passed, total.failed, total.skipped), counts);
        assert_eq!(verdict, passed);
    }

    fn failed() -> Outcome {
        Outcome::Failed("why".to_string())
    }

    #[test]
    fn verdicts() {
        let skipped = || Outcome::Skipped("why".to_string());
        // All is well.
        check(
            &[row(Outcome::Passed, None), row(Outcome::Passed, Some((5, 0, 1)))],
            (5, 0, 1),
            true,
        );
        // A test failed: counted once, not again for its step.
        check(&[row(failed(), Some((5, 2, 0)))], (5, 2, 0), false);
        // A step without tests failed: it shows in the count.
        check(&[row(failed(), None), row(Outcome::Passed, Some((5, 0, 0)))], (5, 1, 0), false);
        // The tests did not build.
        check(&[row(failed(), Some((0, 0, 0)))], (0, 1, 0), false);
        // A skipped step is a hole, not a failure.
        check(&[row(skipped(), None), row(Outcome::Passed, Some((5, 0, 0)))], (5, 0, 1), true);
        // Nothing ran, so nothing is known.
        check(
            &[row(Outcome::Passed, None), row(Outcome::Passed, Some((0, 0, 3)))],
            (0, 1, 3),
            false,
        );
    }

    #[cfg(unix)]
    #[test]
    fn what_hangs_is_ended_with_all_that_it_started() {
        let mut command = Command::new("sh");
        // The inner shell holds the output open, as a hanging test would.
        command.args(["-c", "sh -c 'echo started; sleep 600; true'; true"]);
        command.stdout(Stdio::piped());
        lead_a_group(&mut command);
        let start = Instant::now();
        let child = command.spawn().unwrap();
        let step = steps::named("component").unwrap();
        let (outcome, tally) = follow(child, step, Some(Duration::from_millis(300)));
        assert!(matches!(outcome, Outcome::Failed(why) if why.contains("longer")));
        assert_eq!(tally, None);
        // Sooner than LATE_OUTPUT: nothing was left that could hold the output open.
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[cfg(unix)]
    #[test]
    fn a_step_says_why_and_runs_tests_where_it_should() {
        let outcome = |code: u8, step, passed| {
            let exit = Command::new("sh").args(["-c", &format!("exit {code}")]).status().unwrap();
            let tally = Tally { passed, ..Tally::default() };
            outcome(steps::named(step).unwrap(), exit, tally, "why".to_string())
        };
        let no_test = Outcome::Failed("no test ran".to_string());
        assert_eq!(outcome(0, "component", 0), Outcome::Passed);
        assert_eq!(outcome(SKIPPED, "miri", 0), Outcome::Skipped("why".to_string()));
        assert_eq!(outcome(1, "schedules", 0), failed());
        assert!(matches!(outcome(9, "miri", 1), Outcome::Failed(why) if why.contains('9')));
        assert!(matches!(outcome(1, "tests", 1), Outcome::Failed(why) if why.contains('1')));
        for step in ["miri", "schedules", "tests", "layers"] {
            assert_eq!(outcome(0, step, 0), no_test);
            assert_eq!(outcome(0, step, 1), Outcome::Passed);
        }
    }

    #[test]
    fn the_table_tells_why() {
        let text = table(&[
            row(Outcome::Passed, Some((5, 0, 0))),
            row(failed(), None),
            row(failed(), Some((5, 0, 0))),
        ]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "step                 passed        1.5  5 passed, 0 failed, 0 skipped"
        );
        assert_eq!(lines[2], "step                 FAILED        1.5  why");
        assert!(lines[3].ends_with("5 passed, 0 failed, 0 skipped; why"));
    }
}
