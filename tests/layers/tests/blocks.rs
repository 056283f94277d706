//! The log on ext4, xfs and btrfs, on a disk that loses power at any moment: every prefix of what
//! the disk was told, so every flush, and at each the writes that no flush covered torn and
//! reordered, by sectors of 512 and of 4096 bytes. Invariants 1 to 8, 10 and 19.
//!
//! `SEAWALL_SEED=n` runs one seed alone, `SEAWALL_PROVE_SECONDS=n` new ones for a share of that on
//! each file system.
#![cfg(target_os = "linux")]

use seawall_layers::block::{BlockDevice, FORMATS, Format};
use seawall_layers::machine::{self, Machine};
use seawall_layers::seeds;
use seawall_layers::states::World;
use std::time::Instant;

/// How many workloads a log has, one after another.
const LIVES: u64 = 3;
const APPENDS: u64 = 24;

/// A device with this file system, or why this machine has none.
fn device(name: &str) -> Option<(Machine, BlockDevice)> {
    let format: Format = *FORMATS.iter().find(|format| format.name == name)?;
    let made = machine::enter().and_then(|machine| {
        let block = BlockDevice::new(&machine, format)?;
        Ok((machine, block))
    });
    match made {
        Ok(made) => Some(made),
        Err(why) => {
            println!("skipped: {name}: {why}");
            None
        }
    }
}

fn states_of(name: &str) {
    let Some((_machine, block)) = device(name) else { return };
    let base = block.image();
    let (mut unmountable, mut bound) = (0, 0);
    seeds::run(name, 18, |seed, until| {
        let mut world = World::new(&block, base.clone(), seed);
        let threads = [1, 1, 3][(seed % 3) as usize];
        for _ in 0..LIVES {
            world.work(threads, APPENDS / threads);
            world.look(|| Instant::now() < until);
            world.continue_from_some_state();
        }
        unmountable += world.seen.unmountable;
        bound += world.seen.bound;
        world.seen.states()
    });
    println!("{name}: {bound} records asked for; {unmountable} torn states were no {name}");
    assert!(bound > 0, "nothing was acknowledged in any state: nothing was checked");
}

#[test]
fn power_loss_on_ext4() {
    states_of("ext4");
}

#[test]
fn power_loss_on_xfs() {
    states_of("xfs");
}

#[test]
fn power_loss_on_btrfs() {
    states_of("btrfs");
}

/// What the states show is worth something only if a disk that forgets is caught.
#[test]
fn a_disk_that_forgets_a_flush_is_caught() {
    for format in FORMATS {
        let Some((_machine, block)) = device(format.name) else { continue };
        let mut world = World::new(&block, block.image(), 1);
        world.work(1, APPENDS);
        assert!(world.catches_a_forgotten_flush(), "{}: nobody notices", format.name);
    }
}
