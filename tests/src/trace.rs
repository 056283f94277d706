//! The same inputs give the same commands and bytes, everywhere.
//!
//! What stands here, and all that it needs, is core and alloc, so that it can be built for a
//! machine without an operating system and compared.

use crate::history::{History, Theme};
use crate::world::World;

/// Steps that a seed lives through.
pub const STEPS: usize = 200;

/// The hash of every command, with its bytes, in order, that the life of a seed leads to. Seeds
/// take turns with crashes, faults and lies.
///
/// # Panics
/// When something that must hold did not.
pub fn trace_hash(seed: u64) -> u64 {
    let theme = [Theme::Crashes, Theme::Faults, Theme::Lies];
    let theme = theme[usize::try_from(seed % 3).unwrap_or(0)];
    let history = History::draw(theme, seed, STEPS);
    let mut world = World::new(&history);
    match world.live(&history) {
        Ok(()) => world.hash(),
        Err(violation) => panic!("{theme:?}, seed {seed}: {violation}"),
    }
}
