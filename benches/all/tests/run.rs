//! The program itself, with little work: every row runs, and what was written is read back.

use std::path::Path;
use std::process::{Command, Output};

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-all"));
    let output = command.current_dir(dir).args(arguments).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const LITTLE: [&str; 10] = [
    "--quick",
    "--rounds",
    "1",
    "--seconds",
    "0.005",
    "--crashed",
    "1",
    "--read",
    "1",
    "--logs=seawall",
];

#[test]
fn every_row_is_measured() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let rows = text(&run(temp.path(), &["list"])).lines().count();
    let files = ["--json", "all.json", "--svg", "all.svg"];
    let table = text(&run(temp.path(), &[&LITTLE[..], &files].concat()));
    assert!(!table.contains("failed"), "{table}");
    let json = std::fs::read_to_string(temp.path().join("all.json")).expect("it is written");
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let measured = json["rows"].as_array().expect("there are rows");
    assert_eq!(measured.len(), rows, "{table}");
    for row in measured {
        let entries = row["entries"].as_array().expect("there are entries");
        let ours = entries.iter().find(|entry| entry["name"] == "seawall").expect("we take part");
        let read_back = ours["rounds"][0]["read_back"].as_u64();
        assert!(read_back.is_some_and(|count| count > 0), "{row}");
    }
    // What was written is shown and drawn again without measuring.
    let again = text(&run(temp.path(), &["--from", "all.json", "--svg", "again.svg"]));
    assert!(table.contains(again.lines().last().expect("it is shown")), "{again}");
    let read = |name: &str| std::fs::read(temp.path().join(name)).expect("it is drawn");
    assert!(read("all.svg") == read("again.svg"), "the same figures make the same picture");
    let left: Vec<_> = std::fs::read_dir(temp.path()).expect("it is listed").collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_log_grows() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let sizes = ["growth", "--records", "2000", "--segments", "2", "--svg", "growth.svg"];
    let table = text(&run(temp.path(), &sizes));
    assert!(!table.contains("failed"), "{table}");
    let picture = std::fs::read_to_string(temp.path().join("growth.svg")).expect("it is drawn");
    // The floor and Seawall, mapped or not, twice by records; Seawall twice by segments.
    assert_eq!(picture.matches("<polyline").count(), 8, "{picture}");
}

#[test]
fn an_unknown_row_is_an_error() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-all"));
    let output = command.current_dir(temp.path()).args(["--only", "nothing"]).output();
    let output = output.expect("it starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no row is called so"));
}
