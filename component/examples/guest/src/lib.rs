//! A component that uses the log: a counter that survives.
//!
//! ```text
//! cargo xtask component
//! wac plug target/component/counter.wasm --plug target/component/seawall.wasm -o joined.wasm
//! ```
//!
//! Joined, it exports `count` and asks its host for what the log asks for: one folder.

#[allow(unsafe_code, clippy::all, clippy::pedantic, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../../wit", "wit"],
        world: "seawall:example/counter",
        generate_all,
    });
    export!(Counter);
    pub(crate) struct Counter;
}

use bindings::seawall::log::log::{Log, default_config};
use bindings::seawall::log::types::{Batch, Error, Level, Start, Visibility};

impl bindings::Guest for bindings::Counter {
    fn count() -> Result<u64, String> {
        count().map_err(|error| format!("{error:?}"))
    }
}

fn count() -> Result<u64, Error> {
    let (log, recovery) = Log::open("counter", &default_config())?;
    let next = recovery.last + 1;
    let number = next.to_le_bytes();
    let lengths = vec![0, 8];
    let batch = Batch { data: number.to_vec(), lengths, attributes: Vec::new() };
    log.append_batch(&batch, Some(Level::Disk))?;
    let page = log.read_from(Start::Lsn(next), Visibility::Durable)?.read_batch(1)?;
    if page.records.data != number {
        return Err(Error::Other(Some("the log gave back another number".to_owned())));
    }
    log.close()?;
    Ok(next)
}
