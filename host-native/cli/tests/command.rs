//! The command, run as a user runs it.

use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn seawall(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let fed = child.stdin.take().unwrap().write_all(input);
    // What is refused may end before it has read anything; its status tells.
    assert!(fed.is_ok() || fed.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe));
    child.wait_with_output().unwrap()
}

/// What it prints when all is well.
fn prints(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let output = seawall(arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    output.stdout
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn log_with(lines: &[u8]) -> (tempfile::TempDir, String) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log").to_string_lossy().into_owned();
    prints(&["append", &dir], lines);
    (temp, dir)
}

fn flip_a_bit(dir: &str) {
    let path = Path::new(dir).join("00000000000000000001.wal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[140] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_appended_is_printed() {
    let lines = b"one\ntwo\n\nfour \xff\n".as_slice();
    let (_temp, dir) = log_with(lines);
    assert_eq!(prints(&["cat", &dir, "--values-only"], b""), lines);
    let framed = prints(&["cat", &dir, "--values-only", "--format", "length-prefixed"], b"");
    let (_other, copy) = log_with(b"");
    prints(&["append", &copy, "--format", "length-prefixed", "--batch", "3"], &framed);
    assert_eq!(prints(&["cat", &copy, "--values-only"], b""), lines);
    let records = json_lines(&prints(&["--json", "cat", &dir, "--from", "3"], b""));
    assert_eq!(records.len(), 2);
    assert_eq!((&records[0]["lsn"], &records[0]["value"]), (&3.into(), &"".into()));
    assert_eq!(records[1]["value_hex"], "666f757220ff");
    let last = prints(&["tail", "-n", "1", &dir], b"");
    assert!(String::from_utf8(last).unwrap().ends_with("put\t\tfour \\xff\n"));
}

#[test]
fn every_view_of_a_log_agrees() {
    let lines: Vec<_> = (0..5_000).map(|number| format!("line {number}")).collect();
    let lines = lines.join("\n");
    let (_temp, dir) = log_with(lines.as_bytes());
    let stat = &json_lines(&prints(&["--json", "stat", &dir], b""))[0];
    let verify = &json_lines(&prints(&["--json", "verify", &dir], b""))[0];
    let cat = json_lines(&prints(&["--json", "cat", &dir], b""));
    let frames = json_lines(&prints(&["--json", "dump", &dir], b""));
    let dumped: u64 = frames.iter().filter_map(|frame| frame["records"].as_u64()).sum();
    assert_eq!(cat.len(), 5_000);
    assert_eq!((&stat["records"], &verify["records"]), (&5_000.into(), &5_000.into()));
    assert_eq!(dumped, 5_000);
    assert_eq!((&stat["clean"], &verify["damaged"]), (&true.into(), &false.into()));
    let end = frames.last().unwrap();
    let frames_end = end["offset"].as_u64().unwrap() + end["bytes"].as_u64().unwrap();
    assert_eq!(stat["end"]["offset"], frames_end);
    assert_eq!(end["kind"], "mark");
}

#[test]
fn verify_tells_by_its_exit_status() {
    let (_temp, dir) = log_with(b"one\ntwo\nthree\n");
    assert_eq!(seawall(&["verify", &dir], b"").status.code(), Some(0));
    flip_a_bit(&dir);
    let damaged = seawall(&["verify", &dir], b"");
    assert_eq!(damaged.status.code(), Some(1));
    let text = String::from_utf8(damaged.stdout).unwrap();
    assert!(text.contains("LSN 1 to 3 lost") && text.contains("LSN 3 was durable"), "{text}");
    let unasked = seawall(&["verify", "--repair", &dir], b"");
    assert_eq!(unasked.status.code(), Some(2), "nobody can be asked");
    assert_eq!(seawall(&["verify", &dir], b"").status.code(), Some(1), "nothing was changed");
    assert_eq!(seawall(&["verify", "--repair", "--yes", &dir], b"").status.code(), Some(0));
    assert_eq!(seawall(&["verify", &dir], b"").status.code(), Some(0));
    assert_eq!(std::fs::read_dir(Path::new(&dir).join("quarantine")).unwrap().count(), 1);
    let missing = seawall(&["verify", "/nowhere/at/all"], b"");
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("there is no log in"));
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let lines = "a line that fills the pipe before long\n".repeat(20_000);
    let (_temp, dir) = log_with(lines.as_bytes());
    let mut child = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(["cat", &dir])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdout.take().unwrap();
    pipe.read_exact(&mut [0; 10]).unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}

#[test]
fn who_reads_the_output_changes_nothing_of_the_status() {
    let (_temp, dir) = log_with(b"one\ntwo\n");
    flip_a_bit(&dir);
    for arguments in [&["verify", &dir] as &[_], &["stat", &dir], &["cat", &dir], &["tail", &dir]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_seawall"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(1), "{arguments:?}");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(["verify", "--repair", "--yes", &dir])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0), "it is repaired");
    assert_eq!(seawall(&["verify", &dir], b"").status.code(), Some(0));
}

#[test]
fn the_demo_touches_no_folder_that_holds_anything() {
    let temp = tempfile::tempdir().unwrap();
    let kept = temp.path().join("figures/plot.svg");
    std::fs::create_dir(temp.path().join("figures")).unwrap();
    std::fs::write(&kept, "a plot").unwrap();
    let refused = seawall(&["demo", "--dir", &temp.path().to_string_lossy()], b"");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("is not empty"));
    assert_eq!(std::fs::read(kept).unwrap(), b"a plot");
}

#[test]
fn the_demo_verifies_a_log_that_it_kills() {
    let temp = tempfile::tempdir().unwrap();
    let input = temp.path().join("input.txt");
    std::fs::write(&input, "real\nlines\nof a file\n").unwrap();
    for extra in [vec![], vec!["--input", input.to_str().unwrap()]] {
        let mut arguments = vec!["--json", "demo", "--rounds", "2", "--records", "2000"];
        arguments.extend(extra);
        let report = &json_lines(&prints(&arguments, b""))[0];
        assert_eq!(report["verified"], true);
        let known: u64 = report["rounds"][1]["acknowledged"].as_u64().unwrap();
        assert!(report["records"].as_u64().unwrap() >= known);
        assert_eq!(report["figures"].as_array().unwrap().len(), 5);
    }
}

#[test]
fn damage_is_told_by_every_command_and_cut_by_none() {
    let (_temp, dir) = log_with(b"one\ntwo\nthree\n");
    flip_a_bit(&dir);
    let damaged = std::fs::read(Path::new(&dir).join("00000000000000000001.wal")).unwrap();
    for arguments in
        [vec!["cat"], vec!["tail"], vec!["stat"], vec!["--json", "stat"], vec!["append"]]
    {
        let output = seawall(&[&arguments[..], &[&dir]].concat(), b"");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains("LSN 1 to 3 lost") && text.contains("--repair"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    assert_eq!(seawall(&["append", &dir], b"more\n").status.code(), Some(1));
    let after = std::fs::read(Path::new(&dir).join("00000000000000000001.wal")).unwrap();
    assert_eq!(after, damaged, "what is damaged is left as it is");
}

#[test]
fn a_torn_tail_is_no_damage_and_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log").to_string_lossy().into_owned();
    // A log whose writer is killed has no clean end.
    let mut child = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(["append", &dir])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(b"one\ntwo\n").unwrap();
    let has_both = || {
        let cat = seawall(&["cat", &dir, "--values-only"], b"").stdout;
        cat == b"one\ntwo\n"
    };
    while !has_both() {}
    child.kill().unwrap();
    child.wait().unwrap();
    let stat = &json_lines(&prints(&["--json", "stat", &dir], b""))[0];
    assert_eq!((&stat["clean"], &stat["damaged"]), (&false.into(), &false.into()));
    let path = Path::new(&dir).join("00000000000000000001.wal");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = usize::try_from(stat["end"]["offset"].as_u64().unwrap()).unwrap();
    bytes.truncate(end);
    bytes.extend(b"half of a frame");
    std::fs::write(&path, bytes).unwrap();
    let verdict = String::from_utf8(prints(&["verify", &dir], b"")).unwrap();
    assert!(verdict.contains("with a torn tail of 15 bytes"), "{verdict}");
    let appended = seawall(&["append", &dir], b"three\n");
    assert_eq!(appended.status.code(), Some(0));
    assert!(String::from_utf8(appended.stderr).unwrap().contains("cut a torn tail of 15 bytes"));
    assert_eq!(prints(&["cat", &dir, "--values-only"], b""), b"one\ntwo\nthree\n");
}

#[test]
fn dump_goes_on_after_a_file_that_it_cannot_read() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().to_string_lossy().into_owned();
    let report =
        prints(&["--json", "demo", "--rounds", "1", "--records", "1", "--dir", &base], b"");
    assert!(json_lines(&report)[0]["segments"].as_u64().unwrap() > 1);
    let dir = temp.path().join("log");
    std::fs::write(dir.join("00000000000000000001.wal"), b"nonsense").unwrap();
    let output = seawall(&["--json", "dump", &dir.to_string_lossy()], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("00000000000000000001.wal"));
    assert_eq!(json_lines(&output.stdout)[0]["segment"], 2);
}

#[test]
fn input_that_is_wrong_is_told_with_its_place() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log").to_string_lossy().into_owned();
    let missing = seawall(&["append", &dir, "--file", "/nowhere/at/all"], b"");
    assert_eq!(missing.status.code(), Some(2));
    assert!(!Path::new(&dir).exists(), "no log is made for no input");
    let cases: [(&[u8], &str); 3] = [
        (b"\x01\0\0\0a\x05\0\0\0ab", "offset 5: only 2 bytes of the 5"),
        (b"\x01\0\0\0a\x05\0", "offset 5: 2 bytes of the 4"),
        (b"\x01\0\0\0a\xff\xff\xff\xff", "offset 5: 4294967295 bytes, over the limit"),
    ];
    for (number, (input, told)) in (1..).zip(cases) {
        let output = seawall(&["append", &dir, "--format", "length-prefixed"], input);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(told) && text.contains("1 record, LSN"), "{text}");
        assert_eq!(json_lines(&prints(&["--json", "cat", &dir], b"")).len(), number);
    }
    assert_eq!(json_lines(&prints(&["--json", "stat", &dir], b""))[0]["clean"], true);
}

#[cfg(unix)]
#[test]
fn errors_that_nobody_reads_are_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(["cat", "/nowhere/at/all"])
        .stderr(writer)
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn tail_follows_another_process() {
    let (_temp, dir) = log_with(b"one\ntwo\n");
    let mut child = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(["--json", "tail", "-f", "-n", "1", &dir])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["value"], "two");
    for value in ["three", "four"] {
        prints(&["append", &dir], value.as_bytes());
        assert_eq!(next()["value"], value);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Errors of real system calls, from a tracer that injects them.
#[cfg(target_os = "linux")]
#[test]
fn a_system_call_that_fails_is_never_success() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    for (call, error) in [("fdatasync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC")] {
        // The tracer counts each thread's calls apart.
        let mut failed = 0;
        for nth in 1..=6 {
            let temp = tempfile::tempdir().unwrap();
            let (dir, trace) = (temp.path().join("log"), temp.path().join("trace"));
            let inject = format!("inject={call}:error={error}:when={nth}+");
            let output = Command::new("strace")
                .args(["-f", "-qq", "-e", &format!("trace={call}"), "-e", &inject, "-o"])
                .arg(&trace)
                .arg(env!("CARGO_BIN_EXE_seawall"))
                .arg("append")
                .arg(&dir)
                .args(["--file", "/proc/self/status", "--batch", "7"])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            if std::fs::read_to_string(&trace).unwrap().contains("INJECTED") {
                failed += 1;
                assert_eq!(output.status.code(), Some(2), "{inject}: {text}");
                assert!(text.contains("failed") || text.contains("disk full"), "{inject}: {text}");
            } else {
                assert_eq!(output.status.code(), Some(0), "{inject}: {text}");
            }
            let after = seawall(&["verify", &dir.to_string_lossy()], b"");
            assert_ne!(after.status.code(), Some(1), "{inject}: no damage");
        }
        assert!(failed >= 3, "{call}: only {failed} calls were made to fail");
    }
}
