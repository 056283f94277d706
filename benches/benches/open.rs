//! Opening a log: does it cost more with many sealed segments than with few?

use criterion::{Criterion, criterion_group, criterion_main};
use seawall::blocking::Wal;
use seawall::{Level, Record, WalConfig};
use std::path::Path;

/// So small that a hundred are quickly made; opening reads only their headers and footers.
const SEGMENT_BYTES: u64 = 1 << 20;

fn config(dir: &Path) -> WalConfig {
    WalConfig { max_segment_size: SEGMENT_BYTES, preallocate: false, ..WalConfig::in_dir(dir) }
}

/// A closed log with so many sealed segments.
fn log_with(dir: &Path, segments: usize) -> Result<(), seawall::Error> {
    let (wal, _) = Wal::open(config(dir))?;
    let value = vec![7; 4 << 10];
    while wal.stats().segments.len() <= segments {
        wal.append_with(&Record::put(b"key", &value), Level::Buffered)?;
    }
    wal.close()
}

fn open(criterion: &mut Criterion) {
    for segments in [2, 100] {
        let temp = tempfile::tempdir().expect("a temporary folder");
        log_with(temp.path(), segments).expect("the log is written");
        criterion.bench_function(&format!("look at {segments} sealed segments"), |bencher| {
            bencher.iter(|| Wal::open_read_only(config(temp.path())).expect("it opens"));
        });
        criterion.bench_function(&format!("open and close, {segments} sealed"), |bencher| {
            bencher.iter(|| {
                let (wal, _) = Wal::open(config(temp.path())).expect("it opens");
                wal.close().expect("it closes");
            });
        });
    }
}

criterion_group!(benches, open);
criterion_main!(benches);
