//! Machine code made ahead of time.

use wasmtime::Engine;
use wasmtime::component::Component;

/// Takes machine code as a component.
///
/// # Safety
/// `bytes` must come from this engine's `precompile_component`, unchanged.
pub(crate) unsafe fn component(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the caller vouches for the bytes, as this function's contract says.
    unsafe { Component::deserialize(engine, bytes) }
}
