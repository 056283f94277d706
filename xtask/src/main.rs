//! `cargo xtask`: everything that checks Seawall, in one place.
//!
//! ```text
//!   main       what was asked for
//!   steps      the tables: which steps a command takes, one line each
//!   run        one step after the other, output live, then the summary
//!   tally      test counts, read from what libtest prints
//!   machine    what this machine has: targets, tools
//!   component  the guest, built and made into components
//!   examples   the component from other languages
//!   miri       core's tests under Miri
//!   mutants    core with small changes: do the tests see them?
//!   schedules  the native engine under a random scheduler of threads
//!   tidy       the rules of the house, as a test
//!   fuzz       a minute of fuzzing
//!   kills      planted bugs, and which layer of tests catches each
//!   source     a Rust file as tokens, comments apart; what tidy looks at
//! ```
//!
//! **Architecture Invariant:** no dependencies. The checks must build in seconds, and run on a
//! machine that has nothing but cargo.

#![forbid(unsafe_code)]

mod component;
mod examples;
mod fuzz;
mod kills;
mod machine;
mod miri;
mod mutants;
mod packages;
mod run;
mod schedules;
mod source;
mod steps;
mod tally;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
Checks, tests and proves Seawall.

Usage: cargo xtask <command> [options]

Commands:
  test [--fast]        every step below, in order; a failed step does not stop the later ones
  component            the WebAssembly component, into target/component/
  examples             the programs that load the component from other languages
  fuzz                 a minute of fuzzing
  schedules            the native engine's threads, in orders chosen at random
  tidy                 only the rules of the house: line and function lengths, imports, unsafe
  prove [--seconds N]  the simulator, the crash tests and then the layers (real file systems),
                       optimised, each for about N seconds (60)
  kills [--bug NAME].. plants each bug of tests/kills and writes into docs/PROOF.md which tests
                       catch it; `--jobs N` at a time; `--slice`: a few, as `test` does;
                       `--untried`: only what rows lack that are older than a layer
  mutants [--shard K/N] changes core in small ways with cargo-mutants, a part of it (0/30)

Options:
  --fast               leave out the steps marked slow
  --seconds N          how long to prove; the tests read it as SEAWALL_PROVE_SECONDS
  -h, --help           this text

Examples:
  cargo xtask test                    what CI runs, through .ci/run
  cargo xtask test --fast             while working
  cargo xtask prove --seconds 3600    an hour of looking for trouble
";

/// What the caller asked for, parsed once.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Test {
        fast: bool,
    },
    /// One step of the tables in a process of its own.
    Alone(&'static str),
    /// One step of the tables in this process, which another has started for it.
    Step(String),
    Prove {
        seconds: u64,
    },
    Kills(kills::Options),
    Mutants {
        shard: String,
    },
}

const PROVE_SECONDS_DEFAULT: u64 = 60;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = match parse(&arguments) {
        Ok(command) => command,
        Err(why) => {
            eprintln!("xtask: {why}\nTry `cargo xtask --help`.");
            return ExitCode::from(2);
        }
    };
    let root = root();
    match command {
        Command::Help => {
            print!("{HELP}\nSteps of `test`:\n{}", steps::describe(steps::TEST));
            ExitCode::SUCCESS
        }
        Command::Test { fast } => run::all(&root, steps::TEST, fast, &[]),
        Command::Alone(name) => match steps::named(name) {
            Some(step) => run::alone(&root, step),
            None => no_step(name),
        },
        Command::Step(name) => match steps::named(&name).map(|step| step.action) {
            Some(steps::Action::Call(function)) => run::here(&root, function),
            _ => no_step(&name),
        },
        Command::Prove { seconds } => {
            let environment = [("SEAWALL_PROVE_SECONDS", seconds.to_string())];
            run::all(&root, steps::PROVE, false, &environment)
        }
        Command::Kills(options) => kills::command(&root, &options),
        Command::Mutants { shard } => run::here(&root, |root| mutants::run(root, &shard)),
    }
}

fn no_step(name: &str) -> ExitCode {
    eprintln!("xtask: no function is the step `{name}`");
    ExitCode::from(2)
}

fn parse(arguments: &[String]) -> Result<Command, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words.is_empty() || words.iter().any(|word| matches!(*word, "-h" | "--help" | "help")) {
        return Ok(Command::Help);
    }
    match words[..] {
        ["test"] => Ok(Command::Test { fast: false }),
        ["test", "--fast"] => Ok(Command::Test { fast: true }),
        ["component"] => Ok(Command::Alone("component")),
        ["examples"] => Ok(Command::Alone("examples")),
        ["fuzz"] => Ok(Command::Alone("fuzz")),
        ["schedules"] => Ok(Command::Alone("schedules")),
        ["tidy"] => Ok(Command::Alone("tidy")),
        ["step", name] => Ok(Command::Step(name.to_string())),
        ["prove"] => Ok(Command::Prove { seconds: PROVE_SECONDS_DEFAULT }),
        ["prove", "--seconds", seconds] => parse_seconds(seconds),
        ["prove", option] if option.starts_with("--seconds=") => {
            parse_seconds(&option["--seconds=".len()..])
        }
        ["kills", ref rest @ ..] => parse_kills(rest),
        ["mutants"] => Ok(Command::Mutants { shard: "0/30".to_string() }),
        ["mutants", "--shard", shard] => Ok(Command::Mutants { shard: shard.to_string() }),
        ["test" | "component" | "examples" | "fuzz" | "schedules" | "tidy" | "prove", ..] => {
            Err(format!("`{}` is not an option of `{}`", words[1..].join(" "), words[0]))
        }
        _ => Err(format!("there is no command `{}`", words[0])),
    }
}

fn parse_kills(words: &[&str]) -> Result<Command, String> {
    let mut options = kills::Options::ALL;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
        match *word {
            "--slice" => options.slice = true,
            "--untried" => options.untried = true,
            "--bug" => options.bugs.push((*value()?).to_string()),
            "--jobs" => {
                let jobs = value()?.parse().ok().filter(|jobs| (1..=64).contains(jobs));
                options.jobs = jobs.ok_or("`--jobs`: expected a number from 1 to 64")?;
            }
            _ => return Err(format!("`{word}` is not an option of `kills`")),
        }
    }
    Ok(Command::Kills(options))
}

fn parse_seconds(text: &str) -> Result<Command, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0 => Ok(Command::Prove { seconds }),
        _ => Err(format!("`--seconds {text}`: expected a whole number above zero")),
    }
}

/// The root of the checkout: the folder above this crate's.
///
/// Asked of cargo at run time first, so that a checkout that was moved after the build still works.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map_or_else(|| here.clone(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &Result<Command, &str>) {
        let arguments: Vec<String> = line.split_whitespace().map(String::from).collect();
        let parsed = parse(&arguments);
        assert_eq!(parsed.as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e));
    }

    #[test]
    fn command_lines() {
        check("", &Ok(Command::Help));
        check("test --help", &Ok(Command::Help));
        check("test", &Ok(Command::Test { fast: false }));
        check("test --fast", &Ok(Command::Test { fast: true }));
        for name in ["component", "examples", "fuzz", "schedules", "tidy"] {
            check(name, &Ok(Command::Alone(name)));
            assert!(steps::named(name).is_some());
        }
        check("step miri", &Ok(Command::Step("miri".to_string())));
        check("prove", &Ok(Command::Prove { seconds: 60 }));
        check("prove --seconds 5", &Ok(Command::Prove { seconds: 5 }));
        check("prove --seconds=5", &Ok(Command::Prove { seconds: 5 }));
        check("prove --seconds 0", &Err("`--seconds 0`: expected a whole number above zero"));
        check("test --slow", &Err("`--slow` is not an option of `test`"));
        check("kills", &Ok(Command::Kills(kills::Options::ALL)));
        let one = kills::Options { bugs: vec!["x".to_string()], jobs: 2, ..kills::Options::ALL };
        check("kills --jobs 2 --bug x", &Ok(Command::Kills(one)));
        let rest = kills::Options { untried: true, ..kills::Options::ALL };
        check("kills --untried", &Ok(Command::Kills(rest)));
        check("kills --bug", &Err("`--bug` needs a value"));
        check("kills --all", &Err("`--all` is not an option of `kills`"));
        check("dance", &Err("there is no command `dance`"));
    }
}
