//! The component, compiled once, for any number of logs.

use crate::bindings::SeawallPre;
use crate::error::Error;
use crate::sandbox::{Room, Sandbox};
use crate::types;
use std::fmt;
use std::sync::Arc;
use wasmtime::component::{Component, HasData, Linker, ResourceTable};
use wasmtime::{Config, Engine};
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{clocks, filesystem, random, sync};
use wasmtime_wasi::random::WasiRandom;

/// What one log may use at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of memory. A batch and its copy on its way to the disk have to fit, and a frame that
    /// is read.
    pub memory_bytes: usize,
    /// Entries of the table of functions. The component has a few hundred.
    pub table_elements: usize,
    /// Fuel for one call: about one unit an instruction. Opening a log is one call, which reads as
    /// much of it as [`types::Scan`] says. A call that uses it up traps.
    pub fuel_per_call: u64,
}

impl Default for Limits {
    /// 512 MiB, 10,000 entries, 10¹² units (minutes).
    fn default() -> Self {
        Self { memory_bytes: 512 << 20, table_elements: 10_000, fuel_per_call: 1_000_000_000_000 }
    }
}

/// The component, compiled and linked with what it may ask for: files in one folder, the time and
/// random numbers. Cheap to clone.
#[derive(Clone)]
pub struct Program {
    pub(crate) instance: SeawallPre<Room>,
    pub(crate) limits: Limits,
    default_config: Arc<types::Config>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The table in which the host keeps what it has handed to the component.
struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

pub(crate) fn no_program(why: &wasmtime::Error) -> Error {
    Error::Program(format!("{why:#}").into())
}

pub(crate) fn engine() -> Result<Engine, Error> {
    let mut config = Config::new();
    config.consume_fuel(true);
    // Nothing in the component waits for two things at once, and calls cost half without it.
    config.concurrency_support(false);
    Engine::new(&config).map_err(|why| no_program(&why))
}

impl Program {
    /// Compiles `seawall.wasm` or `seawall-simd.wasm`: a fraction of a second.
    ///
    /// # Errors
    /// [`Error::Program`] when it is no such component, or asks for anything else than files, the
    /// time and random numbers.
    pub fn compile(component: &[u8], limits: &Limits) -> Result<Self, Error> {
        let engine = engine()?;
        let component = Component::new(&engine, component).map_err(|why| no_program(&why))?;
        Self::link(&engine, &component, *limits)
    }

    /// Compiles ahead of time: what it returns is for [`Program::load`], on machines like this one
    /// and with the same build of this crate.
    ///
    /// # Errors
    /// [`Error::Program`] when it is no component.
    pub fn precompile(component: &[u8]) -> Result<Vec<u8>, Error> {
        engine()?.precompile_component(component).map_err(|why| no_program(&why))
    }

    /// Links only what the component needs, so that one which asks for more is refused.
    pub(crate) fn link(
        engine: &Engine,
        component: &Component,
        limits: Limits,
    ) -> Result<Self, Error> {
        let instance = linker(engine)
            .and_then(|linker| linker.instantiate_pre(component))
            .and_then(SeawallPre::new)
            .map_err(|why| no_program(&why))?;
        let default_config = Sandbox::new(&instance, limits)
            .and_then(|mut sandbox| sandbox.default_config())
            .map_err(|why| no_program(&why))?;
        Ok(Self { instance, limits, default_config: Arc::new(default_config) })
    }

    /// The default settings: segments of 128 MiB, durable within 5 ms unless an append asks for
    /// more, sparse preallocation, prefix-valid recovery, no compression.
    pub fn default_config(&self) -> types::Config {
        types::Config::clone(&self.default_config)
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<Room>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    sync::filesystem::types::add_to_linker::<Room, WasiFilesystem>(l, Room::filesystem)?;
    filesystem::preopens::add_to_linker::<Room, WasiFilesystem>(l, Room::filesystem)?;
    wasmtime_wasi::p2::bindings::io::error::add_to_linker::<Room, Table>(l, |r| r.ctx().table)?;
    sync::io::poll::add_to_linker::<Room, Table>(l, |r| r.ctx().table)?;
    sync::io::streams::add_to_linker::<Room, Table>(l, |r| r.ctx().table)?;
    clocks::wall_clock::add_to_linker::<Room, WasiClocks>(l, Room::clocks)?;
    random::random::add_to_linker::<Room, WasiRandom>(l, |r| r.ctx().ctx.random())?;
    Ok(linker)
}
