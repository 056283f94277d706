//! The log joined with a component that uses it, as `wac plug` does: by the library that is in it.

use crate::component;
use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions, plug};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

struct Room(WasiCtx, ResourceTable);

impl WasiView for Room {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.0, table: &mut self.1 }
    }
}

fn join() -> Vec<u8> {
    let mut graph = CompositionGraph::new();
    let [log, counter] = ["seawall", "counter"].map(|name| {
        let bytes = component(&format!("{name}.wasm"));
        let package = Package::from_bytes(name, None, bytes, graph.types_mut()).unwrap();
        graph.register_package(package).unwrap()
    });
    plug(&mut graph, vec![log], counter).unwrap();
    graph.encode(EncodeOptions::default()).unwrap()
}

#[test]
fn a_joined_component_counts_in_a_log() {
    let temp = tempfile::tempdir().unwrap();
    let engine = Engine::default();
    let joined = Component::new(&engine, join()).unwrap();
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker).unwrap();
    for expected in 1..=3 {
        // A new store each time: what it counts is in the folder.
        let mut context = WasiCtxBuilder::new();
        context.preopened_dir(temp.path(), "/", FsPerms::ReadWrite).unwrap();
        let mut store = Store::new(&engine, Room(context.build(), ResourceTable::new()));
        let instance = linker.instantiate(&mut store, &joined).unwrap();
        let count =
            instance.get_typed_func::<(), (Result<u64, String>,)>(&mut store, "count").unwrap();
        let (counted,) = count.call(&mut store, ()).unwrap();
        assert_eq!(counted, Ok(expected));
    }
    let config = seawall::WalConfig::in_dir(temp.path().join("counter"));
    let (wal, info) = seawall::blocking::Wal::open(config).unwrap();
    assert_eq!(info.valid_records, 3);
    wal.close().unwrap();
}
