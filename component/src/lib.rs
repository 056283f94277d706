//! The log as a WebAssembly component: `wit/` on the outside, `seawall-wasi` on the inside.
//!
//! What stands here translates: the contract's values into the core's and back, in `values`, and
//! its resources into a log and its readers, in `guest`. It decides nothing.
//!
//! **Architecture Invariant:** imports `wasi:filesystem`, `wasi:io`, `wasi:clocks` and
//! `wasi:random`, and nothing else: no standard library, no environment, no standard streams.

// Elsewhere it is only looked at by the compiler, and std brings allocator and panics.
#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

mod guest;
mod values;

/// What `wit/` says, in Rust.
#[allow(unsafe_code, clippy::all, clippy::pedantic, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "seawall",
        with: {
            "wasi:io/error@0.2.12": wasip2::io::error,
            "wasi:io/poll@0.2.12": wasip2::io::poll,
            "wasi:io/streams@0.2.12": wasip2::io::streams,
            "wasi:clocks/wall-clock@0.2.12": wasip2::clocks::wall_clock,
            "wasi:filesystem/types@0.2.12": wasip2::filesystem::types,
            "wasi:filesystem/preopens@0.2.12": wasip2::filesystem::preopens,
            "wasi:random/random@0.2.12": wasip2::random::random,
        },
    });
    export!(Component);
    pub(crate) struct Component;
}

#[cfg(target_family = "wasm")]
mod runtime {
    //! What a program without the standard library brings along itself.

    #[global_allocator]
    static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

    /// A panic is a bug of ours: it traps, and the embedder opens the log again.
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        core::arch::wasm32::unreachable()
    }
}
