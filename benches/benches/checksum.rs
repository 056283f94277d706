//! CRC32C: the portable one of core, the crate's, and the one that the native host hands in.

#![forbid(unsafe_code)]

use criterion::{BenchmarkId, Criterion, Throughput};
use seawall_core::wire::checksum;
use std::hint::black_box;

fn crc32c(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc32c");
    for length in [32_u32, 128, 1024, 64 * 1024] {
        let bytes = seawall_benches::noise(length as usize);
        group.throughput(Throughput::Bytes(u64::from(length)));
        group.bench_with_input(BenchmarkId::new("portable", length), &bytes, |bencher, bytes| {
            bencher.iter(|| checksum::crc32c(0, black_box(bytes)));
        });
        group.bench_with_input(BenchmarkId::new("crate", length), &bytes, |bencher, bytes| {
            bencher.iter(|| crc32c::crc32c_append(0, black_box(bytes)));
        });
        let fastest = seawall::fastest_crc32c();
        group.bench_with_input(BenchmarkId::new("host", length), &bytes, |bencher, bytes| {
            bencher.iter(|| fastest(0, black_box(bytes)));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    crc32c(&mut criterion);
    criterion.final_summary();
}
