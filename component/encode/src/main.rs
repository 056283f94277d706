//! Makes a component of a core module: `seawall-encode <module.wasm> <component.wasm>`.
//!
//! The module carries its world in a custom section, which the guest's bindings put there. A
//! package of its own, since what checks the house has no dependencies.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use wit_component::ComponentEncoder;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [module, component] = &arguments[..] else {
        eprintln!("usage: seawall-encode <module.wasm> <component.wasm>");
        return ExitCode::from(2);
    };
    match encode(module, component) {
        Ok(bytes) => {
            println!("{}: {bytes} bytes", component.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("seawall-encode: {}: {error:#}", module.display());
            ExitCode::FAILURE
        }
    }
}

fn encode(module: &PathBuf, component: &PathBuf) -> Result<usize, Box<dyn Error>> {
    let module = std::fs::read(module)?;
    let encoded = ComponentEncoder::default().validate(true).module(&module)?.encode()?;
    if let Some(folder) = component.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Whoever loads it meanwhile sees the old one or the new one.
    let unfinished = component.with_extension("wasm.new");
    std::fs::write(&unfinished, &encoded)?;
    std::fs::rename(&unfinished, component)?;
    Ok(encoded.len())
}
