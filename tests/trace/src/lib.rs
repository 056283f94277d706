//! The simulator for WebAssembly: a seed's life gives the same commands and bytes there.
//!
//! `cargo xtask component` builds it into `target/component/trace.wasm`; a test of
//! `seawall-wasmtime` compares.

#[allow(unsafe_code, clippy::all, clippy::pedantic, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "tracer" });
    export!(Tracer);
    pub(crate) struct Tracer;
}

impl bindings::Guest for bindings::Tracer {
    fn trace(seed: u64) -> u64 {
        seawall_tests::trace::trace_hash(seed)
    }
}
