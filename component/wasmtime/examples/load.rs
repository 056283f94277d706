//! Loads the component: the README's ten lines.

use seawall_wasmtime::{Error, Limits, Program, Record, Wal};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: load <folder>")?;
    Ok(run(&std::fs::read("target/component/seawall.wasm")?, &folder)?)
}

fn run(component: &[u8], folder: &str) -> Result<(), Error> {
    let program = Program::compile(component, &Limits::default())?;
    let (wal, recovery) = Wal::open(&program, folder, program.default_config()).wait()?;
    println!("{} records were there", recovery.records);
    let appended = wal.append(&Record::put(b"user:42", b"alice@example.com")).wait()?;
    for found in wal.read_from(appended.first).wait()?.read_batch(64 << 10).wait()?.records() {
        println!("{}: {:?} is {:?}", found.lsn, found.record.key, found.record.value);
    }
    wal.close().wait()
}
