//! The core does in WebAssembly what it does natively: the same commands, with the same bytes.

use crate::component;
use seawall_tests::trace::trace_hash;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

/// Crashes, faults and lies in turn.
const SEEDS: u64 = 60;

#[test]
fn a_seed_gives_the_same_trace_natively_and_in_wasm() {
    let engine = Engine::default();
    let tracer = Component::new(&engine, component("trace.wasm")).unwrap();
    // It imports nothing: all that it does follows from the seed.
    let linker = Linker::new(&engine);
    let mut store = Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &tracer).unwrap();
    let trace = instance.get_typed_func::<(u64,), (u64,)>(&mut store, "trace").unwrap();
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let native = trace_hash(seed);
        assert_eq!(native, trace_hash(seed), "seed {seed}, natively, twice");
        let (wasm,) = trace.call(&mut store, (seed,)).unwrap();
        assert_eq!(native, wasm, "seed {seed}, natively and in Wasm");
        hashes.insert(native);
    }
    assert_eq!(hashes.len() as u64, SEEDS, "each seed has a life of its own");
}
