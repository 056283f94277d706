//! The component compiled ahead of time, as a host would do that starts often.

use crate::component;
use seawall_wasmtime::{Limits, Program};
use std::path::Path;

/// Writes machine code to a file.
pub(crate) fn precompile(path: &Path) {
    let code = Program::precompile(&component("seawall.wasm")).expect("it is a component");
    std::fs::write(path, code).unwrap();
}

/// Loads it.
#[expect(unsafe_code, reason = "this test has made the machine code itself")]
pub(crate) fn load(path: &Path) -> Program {
    let code = std::fs::read(path).unwrap();
    // SAFETY: `precompile` wrote it into this test's own folder.
    unsafe { Program::load(&code, &Limits::default()) }.expect("it was made for this engine")
}

#[test]
fn what_was_compiled_ahead_runs_and_nothing_else_does() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("code");
    precompile(&file);
    let program = load(&file);
    let (wal, recovery) =
        seawall_wasmtime::Wal::open(&program, temp.path().join("log"), program.default_config())
            .wait()
            .unwrap();
    assert!(recovery.is_new);
    wal.close().wait().unwrap();
    let refused = Program::compile(&std::fs::read(&file).unwrap(), &Limits::default());
    assert!(refused.unwrap_err().to_string().contains("no component of the log"));
}
