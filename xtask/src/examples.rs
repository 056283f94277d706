//! The programs in `component/examples` that load the component from other languages.
//!
//! ```text
//!   python   component/examples/python, with the package that its requirements.txt names
//!   node     component/examples/node, with the packages that its package.json names
//! ```
//!
//! What is installed goes under `target/examples/`. A language that this machine has not, or whose
//! packages cannot be had, is skipped, and said to be; a program that fails is a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::find;
use crate::steps::Outcome;

enum Ran {
    Passed,
    Skipped(String),
}

type Example = fn(&Path) -> Result<Ran, String>;

/// Runs them all, on the component that was built before.
pub(crate) fn run(root: &Path) -> Outcome {
    let examples: [(&str, Example); 2] = [("python", python), ("node", node)];
    let (mut failed, mut skipped) = (Vec::new(), Vec::new());
    for (name, example) in examples {
        match example(root) {
            Ok(Ran::Passed) => println!("{name}: passed"),
            Ok(Ran::Skipped(why)) => skipped.push(format!("{name}: {why}")),
            Err(why) => failed.push(format!("{name}: {why}")),
        }
    }
    if !failed.is_empty() {
        Outcome::Failed(failed.join("; "))
    } else if !skipped.is_empty() {
        Outcome::Skipped(skipped.join("; "))
    } else {
        Outcome::Passed
    }
}

fn component(root: &Path, name: &str) -> PathBuf {
    root.join("target/component").join(name)
}

/// A folder of the example's own, and in it an empty one for its log.
fn workshop(root: &Path, name: &str) -> Result<(PathBuf, PathBuf), String> {
    let shop = root.join("target/examples").join(name);
    let log = shop.join("log");
    if log.exists() {
        fs::remove_dir_all(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    }
    fs::create_dir_all(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    Ok((shop, log))
}

fn succeeds(command: &mut Command) -> Result<bool, String> {
    let status = command.status();
    status.map(|status| status.success()).map_err(|error| format!("it did not start: {error}"))
}

fn must(command: &mut Command) -> Result<Ran, String> {
    if succeeds(command)? { Ok(Ran::Passed) } else { Err(format!("{command:?} failed")) }
}

fn python(root: &Path) -> Result<Ran, String> {
    let Some(python) = find("python3") else {
        return Ok(Ran::Skipped("no python3".to_owned()));
    };
    let (shop, log) = workshop(root, "python")?;
    let source = root.join("component/examples/python");
    let own = shop.join("venv/bin/python");
    let mut prepare = Command::new(python);
    prepare.args(["-m", "venv"]).arg(shop.join("venv"));
    let mut install = Command::new(&own);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    install.arg("--requirement").arg(source.join("requirements.txt"));
    if !(succeeds(&mut prepare)? && own.exists() && succeeds(&mut install)?) {
        return Ok(Ran::Skipped("its package wasmtime cannot be installed".to_owned()));
    }
    let component = component(root, "seawall.wasm");
    must(Command::new(own).arg(source.join("main.py")).args([component, log]))
}

fn node(root: &Path) -> Result<Ran, String> {
    let (Some(node), Some(npm)) = (find("node"), find("npm")) else {
        return Ok(Ran::Skipped("no node, or no npm".to_owned()));
    };
    let (shop, log) = workshop(root, "node")?;
    let source = root.join("component/examples/node");
    for file in ["package.json", "main.mjs"] {
        fs::copy(source.join(file), shop.join(file)).map_err(|error| format!("{file}: {error}"))?;
    }
    let mut install = Command::new(npm);
    install.args(["install", "--silent", "--no-audit", "--no-fund"]).current_dir(&shop);
    if !succeeds(&mut install)? {
        return Ok(Ran::Skipped("its packages jco and preview2-shim cannot be had".to_owned()));
    }
    let mut transpile = Command::new(shop.join("node_modules/.bin/jco"));
    transpile.arg("transpile").arg(component(root, "seawall.wasm"));
    transpile.args(["--quiet", "--name", "seawall", "-o", "out"]).current_dir(&shop);
    must(&mut transpile)?;
    must(Command::new(node).arg("main.mjs").arg(log).current_dir(&shop))
}
