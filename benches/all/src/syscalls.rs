//! What "durable" is worth: the system calls of durable appends, counted from outside with strace.

use crate::child::{Order, Phase};
use crate::contestant::{Contestant, Outcome};
use crate::measure::Scale;
use crate::round::remove;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// Calls that write or sync.
const CALLS: [&str; 9] = [
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "fsync",
    "fdatasync",
    "msync",
    "sync_file_range",
    "io_uring_enter",
];

/// How many appends are watched.
const APPENDS: u64 = 100;

/// Prints a table for each contestant.
pub(crate) fn show(contestants: &[&dyn Contestant], dir: &Path, scale: &Scale) {
    let is_there = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    if !is_there.is_ok_and(|status| status.success()) {
        println!("skipped: strace is not installed");
        return;
    }
    for (row, threads, count) in
        [("durable-1024-1", 1, APPENDS), ("durable-1024-64", 64, 64 * APPENDS)]
    {
        println!("\nSystem calls of {count} durable appends of 1 KiB by {threads} threads:\n");
        print!("  {:<18}", "");
        for call in CALLS {
            print!("{call:>16}");
        }
        println!("  its most durable append");
        for contestant in contestants {
            match count_calls(*contestant, row, count, dir, scale) {
                Ok(calls) => {
                    print!("  {:<18}", contestant.name());
                    for call in CALLS {
                        print!("{:>16}", calls.get(call).copied().unwrap_or(0));
                    }
                    println!("  {}", contestant.durable());
                }
                Err(error) => println!("  {:<18}skipped: {error}", contestant.name()),
            }
        }
    }
    println!(
        "\nThe calls of opening and of the first appends are taken off. Where a log uses O_SYNC, \
         each write is a sync as well."
    );
}

/// The calls of so many appends: those of a process that makes them, less those of one that only
/// opens.
fn count_calls(
    contestant: &dyn Contestant,
    row: &str,
    count: u64,
    dir: &Path,
    scale: &Scale,
) -> Outcome<BTreeMap<String, i64>> {
    let folder = dir.join("syscalls");
    let watch = |count| -> Outcome<_> {
        remove(&folder)?;
        let order = Order {
            row: row.to_owned(),
            count,
            ..Order::new(contestant.name(), Phase::Watch, &folder, scale)?
        };
        let output = dir.join("strace.txt");
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-e", &format!("trace={}", CALLS.join(",")), "-o"]);
        command.arg(&output).arg(std::env::current_exe()?);
        let result = order.command_under(command)?.stderr(Stdio::piped()).output()?;
        remove(&folder)?;
        if !result.status.success() {
            let text = String::from_utf8_lossy(&result.stderr);
            return Err(text.lines().last().unwrap_or("strace failed").to_owned().into());
        }
        Ok(parse(&std::fs::read_to_string(&output)?))
    };
    let mut calls = watch(count)?;
    for (call, count) in watch(0)? {
        *calls.entry(call).or_default() -= count;
    }
    Ok(calls)
}

/// The table that `strace -c` prints: the number of calls stands fourth, the name last.
fn parse(table: &str) -> BTreeMap<String, i64> {
    let counted = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = *fields.last()?;
        let count = fields.get(3)?.parse().ok()?;
        CALLS.contains(&name).then(|| (name.to_owned(), count))
    });
    counted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace_is_read() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                      95.15    0.009868          98       100           fdatasync\n\
                       4.85    0.000503           4       101         2 pwrite64\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.010371          51       201         2 total\n";
        let calls = parse(table);
        assert_eq!(calls.get("fdatasync"), Some(&100));
        assert_eq!(calls.get("pwrite64"), Some(&101));
        assert_eq!(calls.len(), 2);
    }
}
