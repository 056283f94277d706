//! What the log does otherwise on some kinds of file systems.
#![cfg(target_os = "linux")]

use seawall::blocking::Wal;
use seawall::{Level, Record, WalConfig};
use seawall_layers::block::{BlockDevice, FORMATS};
use seawall_layers::machine;
use std::os::unix::fs::MetadataExt as _;

/// Where overwritten blocks move, what is reserved is not what is used: btrfs wrote appends of 16
/// KiB half as fast with it (docs/PERFORMANCE.md).
#[test]
fn what_copies_on_write_reserves_nothing() {
    for format in FORMATS {
        let tried = machine::enter().and_then(|machine| {
            let block = BlockDevice::new(&machine, format)?;
            let mounted = block.mount()?;
            let reserved_bytes = |name: &str| {
                let folder = mounted.path().join(name);
                let (wal, _) = Wal::open(WalConfig::in_dir(&folder)).expect("there is room");
                wal.append_with(&Record::put(b"key", b"value"), Level::Disk)
                    .expect("there is room");
                let segment = folder.join("00000000000000000001.wal");
                let file_bytes = std::fs::metadata(segment).expect("it is there").size();
                assert_eq!(wal.config().preallocate, file_bytes > 4_096, "{}", format.name);
                file_bytes
            };
            let copies = format.name == "btrfs";
            assert_eq!(reserved_bytes("log") < 4_096, copies, "{}", format.name);
            if copies {
                let folder = mounted.path().join("overwritten");
                std::fs::create_dir(&folder).expect("there is room");
                machine::run("chattr", &["+C", &folder.display().to_string()])?;
                assert!(reserved_bytes("overwritten") >= 1 << 20, "{}", format.name);
            }
            mounted.unmount()
        });
        if let Err(why) = tried {
            println!("skipped: {}: {why}", format.name);
        }
    }
}
