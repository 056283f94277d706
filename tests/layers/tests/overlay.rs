//! The log on overlayfs, which most containers run on. What a handle of it is lies below: locks,
//! mappings and the page cache are not all of the same file.
#![cfg(target_os = "linux")]

use nix::mount::MsFlags;
use seawall::blocking::Wal;
use seawall::{FsyncPolicy, Record, WalConfig};
use seawall_layers::machine::{self, Machine, Mounted};
use seawall_tests::records::record_bytes;
use std::path::Path;

/// An overlay, over memory.
struct Overlay {
    overlay: Mounted,
    // Dropped behind what lies over it.
    _below: Mounted,
    _folder: tempfile::TempDir,
    _machine: Machine,
}

impl Overlay {
    fn mount() -> Result<Self, String> {
        let machine = machine::enter()?;
        let said = |error: std::io::Error| error.to_string();
        let folder = tempfile::tempdir().map_err(said)?;
        let at = |name: &str| folder.path().join(name);
        let none = MsFlags::empty();
        let below = Mounted::new(Path::new("seawall"), folder.path(), "tmpfs", none, "size=256m")?;
        for name in ["lower", "upper", "work", "overlay"] {
            std::fs::create_dir(at(name)).map_err(said)?;
        }
        let [lower, upper, work] =
            ["lower", "upper", "work"].map(|name| at(name).display().to_string());
        let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let overlay = Mounted::new(Path::new("seawall"), &at("overlay"), "overlay", none, &layers)?;
        Ok(Self { overlay, _below: below, _folder: folder, _machine: machine })
    }
}

#[test]
fn what_a_reader_has_mapped_is_not_used_again() {
    let overlay = match Overlay::mount() {
        Ok(overlay) => overlay,
        Err(why) => return println!("skipped: overlay: {why}"),
    };
    let config = WalConfig {
        max_segment_size: 64 << 10,
        fsync_policy: FsyncPolicy::Os,
        recycle_segments: 2,
        map_sealed: true,
        ..WalConfig::in_dir(overlay.overlay.path().join("log"))
    };
    for elsewhere in [false, true] {
        let (wal, _) = Wal::open(config.clone()).unwrap();
        let fill = |segments: u64| {
            let last = wal.current_position().segment.get() + segments;
            while wal.current_position().segment.get() < last {
                let lsn = wal.stats().last_lsn.next().get();
                wal.append(&Record::put(b"", &record_bytes(lsn, 1_000))).unwrap();
            }
        };
        fill(4);
        let mut reader = if elsewhere {
            Wal::open_read_only(config.clone()).unwrap().0.iter().unwrap()
        } else {
            wal.iter().unwrap()
        };
        let (kept, _) = reader.next_record().unwrap().unwrap();
        drop(reader);
        wal.delete_segments_before(wal.stats().last_lsn).unwrap();
        fill(6);
        let is_the_same = kept.value == record_bytes(kept.lsn.get(), 1_000);
        assert!(is_the_same, "elsewhere: {elsewhere}");
        wal.close().unwrap();
    }
}
