//! Writes the golden logs. Run it once for each new version of the format, and never again: the
//! logs it has written are read for ever.
//!
//! ```text
//! cargo run -p seawall-tests --example write_golden -- tests/golden/v1
//! ```

use seawall::blocking::Wal;
use seawall::{ChecksumKind, Compression, Error, FsyncPolicy, Record, WalConfig};
use seawall_tests::golden::{copy_folder, write_expected};
use seawall_tests::records::{read_all, record_bytes};
use std::path::Path;
use std::time::Duration;

fn main() -> Result<(), Error> {
    let base = std::env::args().nth(1).expect("where to write");
    let base = Path::new(&base);
    let config = |name: &str| WalConfig {
        fsync_policy: FsyncPolicy::Always,
        preallocate: false,
        max_segment_size: 4 << 10,
        ..WalConfig::in_dir(base.join(name))
    };
    let (wal, _) = Wal::open(config("plain"))?;
    for number in 0..40 {
        wal.append(&Record::put(b"key", &record_bytes(number, 200)))?;
    }
    finish(&wal)?;
    let (wal, _) = Wal::open(config("kinds"))?;
    kinds(&wal)?;
    finish(&wal)?;
    let (wal, _) = Wal::open(config("compressed"))?;
    for compression in [Compression::Lz4, Compression::Zstd, Compression::None] {
        let value = b"a log is a list that only grows ".repeat(20);
        wal.append(&Record::put(b"key", &value).with_compression(compression))?;
    }
    finish(&wal)?;
    let (wal, _) = Wal::open(WalConfig { checksum: ChecksumKind::Xxh3, ..config("xxh3") })?;
    kinds(&wal)?;
    finish(&wal)?;
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (wal, _) = Wal::open(WalConfig { dir: temp.path().to_owned(), ..config("torn") })?;
    kinds(&wal)?;
    wal.append(&Record::put(b"torn", &record_bytes(99, 300)))?;
    let torn = base.join("torn");
    copy_folder(temp.path(), &torn).expect("copied");
    let last = torn.join("00000000000000000001.wal");
    let length = std::fs::metadata(&last).expect("it is there").len();
    let file = std::fs::OpenOptions::new().write(true).open(last).expect("it opens");
    file.set_len(length - 100).expect("it is cut");
    let mut expected = read_all(&wal);
    expected.pop();
    write_expected(&torn, &expected).expect("written");
    Ok(())
}

/// One record of each kind, alone and in a batch.
fn kinds(wal: &Wal) -> Result<(), Error> {
    wal.append(&Record::put(b"a", b"1"))?;
    wal.append(&Record::delete(b"a"))?;
    wal.append(&Record::put_with_ttl(b"session", b"2", Duration::from_mins(1)))?;
    wal.append(&Record::put(b"", b""))?;
    wal.append_batch(&[
        Record::put(b"b", b"3"),
        Record::delete(b"b"),
        Record::put_with_ttl(b"c", &record_bytes(5, 300), Duration::from_millis(5)),
    ])?;
    Ok(())
}

fn finish(wal: &Wal) -> Result<(), Error> {
    let entries = read_all(wal);
    wal.close()?;
    write_expected(&wal.config().dir, &entries).expect("written");
    Ok(())
}
