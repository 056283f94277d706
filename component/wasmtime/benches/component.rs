//! What the component costs beside the native log: batches of 1,000 records of 1 KiB, in turn, on
//! the same disk, with the same durability.
//!
//! ```text
//! cargo xtask component
//! cargo bench -p seawall-wasmtime [folder]
//! ```
//!
//! Prints the median of the rounds in microseconds a record, and the ratio to the native log's. A
//! folder says on which disk; without it, the temporary one.

use seawall::blocking;
use seawall::{ChecksumKind, Level, WalConfig};
use seawall_core::record::Record;
use seawall_wasmtime::{Limits, Program, Wal, types};
use std::path::Path;
use std::time::{Duration, Instant};

const RECORDS: u32 = 1_000;
const VALUE_BYTES: usize = 1_008;
/// Of so many batches each; the first round warms up, and is not counted.
const ROUNDS: usize = 9;
const BATCHES: u32 = 16;
const SEGMENT_BYTES: u64 = 64 << 20;

/// Appends a batch.
type Append<'a> = Box<dyn FnMut(&[Record<'_>]) + 'a>;

struct Rival<'a> {
    name: &'static str,
    append: Append<'a>,
    rounds: Vec<Duration>,
}

fn main() {
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let folder = folder.map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    let programs = ["seawall.wasm", "seawall-simd.wasm"].map(program);
    for checksum in [ChecksumKind::Crc32c, ChecksumKind::Xxh3] {
        for level in [Level::Buffered, Level::Os, Level::Disk] {
            measure(&folder, &programs, level, checksum);
        }
    }
}

fn program(name: &str) -> Program {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/component");
    let bytes = std::fs::read(folder.join(name)).expect("`cargo xtask component` makes it");
    Program::compile(&bytes, &Limits::default()).expect("it is the component")
}

fn native(dir: &Path, level: Level, checksum: ChecksumKind) -> Rival<'static> {
    let config = WalConfig { max_segment_size: SEGMENT_BYTES, checksum, ..WalConfig::in_dir(dir) };
    let (wal, _) = blocking::Wal::open(config).expect("an empty folder");
    let append = Box::new(move |records: &[Record<'_>]| {
        wal.append_batch_with(records, level).expect("there is room");
    });
    Rival { name: "native", append, rounds: Vec::new() }
}

fn component(
    dir: &Path,
    (name, program): (&'static str, &Program),
    level: Level,
    checksum: ChecksumKind,
) -> Rival<'static> {
    let config = types::Config {
        segment_bytes_max: SEGMENT_BYTES,
        checksum: match checksum {
            ChecksumKind::Crc32c => types::Checksum::Crc32c,
            ChecksumKind::Xxh3 => types::Checksum::Xxh3,
        },
        ..program.default_config()
    };
    let level = match level {
        Level::Buffered => types::Level::Buffered,
        Level::Os => types::Level::Os,
        Level::Disk => types::Level::Disk,
    };
    let (wal, _) = Wal::open(program, dir, config).wait().expect("an empty folder");
    let append = Box::new(move |records: &[Record<'_>]| {
        wal.append_batch_with(records, level).wait().expect("there is room");
    });
    Rival { name, append, rounds: Vec::new() }
}

fn measure(folder: &Path, programs: &[Program; 2], level: Level, checksum: ChecksumKind) {
    let [plain, simd] = programs;
    let temp = tempfile::tempdir_in(folder).expect("a folder to write in");
    let dir = |name: &str| temp.path().join(name);
    let mut rivals = [
        native(&dir("native"), level, checksum),
        component(&dir("component"), ("component", plain), level, checksum),
        component(&dir("simd"), ("component, SIMD", simd), level, checksum),
    ];
    let value: Vec<u8> = (0..VALUE_BYTES).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
    let keys: Vec<[u8; 16]> = (0..u128::from(RECORDS)).map(u128::to_be_bytes).collect();
    let records: Vec<Record<'_>> = keys.iter().map(|key| Record::put(key, &value)).collect();
    for _ in 0..ROUNDS {
        for rival in &mut rivals {
            let start = Instant::now();
            for _ in 0..BATCHES {
                (rival.append)(&records);
            }
            rival.rounds.push(start.elapsed());
        }
    }
    println!("{level:?}, {checksum:?}: batches of {RECORDS} x 1 KiB, {} rounds", ROUNDS - 1);
    let median = |rounds: &[Duration]| {
        let mut rounds = rounds[1..].to_vec();
        rounds.sort_unstable();
        rounds[rounds.len() / 2] / BATCHES
    };
    let base = median(&rivals[0].rounds);
    for Rival { name, rounds, .. } in &rivals {
        let batch = median(rounds);
        let ratio = batch.as_secs_f64() / base.as_secs_f64();
        let micros = batch.as_secs_f64() * 1e6 / f64::from(RECORDS);
        println!("  {name:<16} {micros:8.3} us a record   {ratio:5.2} times native");
    }
}
