//! D22: 64 KiB read for each record. Alone in its program, since the kernel counts what a process
//! reads.

#![cfg(target_os = "linux")]

use seawall::blocking::Wal;
use seawall::{Level, Record, WalConfig};

/// How many bytes this process has read, as the kernel counts them.
fn bytes_read() -> u64 {
    let counts = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = counts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn fault_d22_reading_all_reads_each_byte_about_once() {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig { max_segment_size: 1 << 20, ..WalConfig::in_dir(temp.path()) };
    let (wal, _) = Wal::open(config).unwrap();
    for _ in 0..20_000 {
        wal.append_with(&Record::put(b"key", &[7; 200]), Level::Buffered).unwrap();
    }
    wal.sync().unwrap();
    let stored: u64 = wal.stats().segments.iter().map(|segment| segment.bytes).sum();
    let before = bytes_read();
    let mut reader = wal.iter().unwrap();
    let mut records = 0;
    while reader.next_record().unwrap().is_some() {
        records += 1;
    }
    let read = bytes_read() - before;
    assert_eq!(records, 20_000);
    assert!(read < stored + stored / 10, "{read} bytes read for {stored} stored");
}
