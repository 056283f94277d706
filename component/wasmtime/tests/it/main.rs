//! The component in a wasmtime host: the same as the native log, killed, confined and starved.
//!
//! They run on `target/component/seawall.wasm`, which `cargo xtask component` makes.

mod contract;
mod determinism;
mod hosts;
mod joined;
mod kill;
mod load;
mod sandbox;
mod scenarios;
mod traps;

use seawall_wasmtime::{Limits, Program};
use std::path::PathBuf;
use std::sync::OnceLock;

/// The bytes of the component under test.
fn component(name: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("target/component").join(name);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; `cargo xtask component` makes it", path.display())
    })
}

/// Compiled once for all tests.
fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        Program::compile(&component("seawall.wasm"), &Limits::default()).expect("it is a component")
    })
}
