//! The program. See the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // Logs that cannot be dependencies of the workspace are handed over here.
    seawall_bench_all::run(Vec::new())
}
