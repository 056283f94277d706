//! Throughput and latency, measured on a log of their own beside the one that was killed.

use crate::output::{Failure, Output, counted};
use seawall::blocking::Wal;
use seawall::{Level, Record, WalConfig};
use serde_json::{Value, json};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// No figure takes longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a value is, in bytes.
const VALUE_BYTES: usize = 1_024;

/// Durable appends by one thread and by several, appends to the kernel, durable batches, reading.
pub(crate) fn measure(
    base: &Path,
    records: u64,
    threads: u64,
    out: &mut Output,
) -> Result<Value, Failure> {
    let dir = base.join("figures");
    let (wal, _) = Wal::open(WalConfig::in_dir(&dir))?;
    let value = vec![7; VALUE_BYTES];
    let record = Record::put(b"key", &value);
    let mut figures = Vec::new();
    out.note(format_args!("{VALUE_BYTES} byte values; latency in microseconds"))?;
    out.note("what                       records/s       p50       p99     p99.9")?;
    let mut tell = |name: String, mut run: Run| {
        let (rate, [p50, p99, p999]) = (run.rate(), run.percentiles());
        out.note(format_args!("{name:<24} {rate:>11.0} {p50:>9} {p99:>9} {p999:>9}"))?;
        figures.push(json!({
            "what": name, "records_per_second": rate,
            "p50_us": p50, "p99_us": p99, "p99_9_us": p999,
        }));
        Ok::<(), Failure>(())
    };
    for writers in if threads == 1 { vec![1] } else { vec![1, threads] } {
        let run = together(writers, records, || wal.append_with(&record, Level::Disk).map(|_| 1))?;
        tell(format!("durable, {}", counted(writers, "thread")), run)?;
    }
    let run = together(1, records, || wal.append_with(&record, Level::Os).map(|_| 1))?;
    tell("to the kernel, 1 thread".into(), run)?;
    let batch = vec![record; 1_000];
    let run = together(1, records, || wal.append_batch_with(&batch, Level::Disk).map(|_| 1_000))?;
    tell("durable batches of 1000".into(), run)?;
    wal.sync()?;
    let mut reader = wal.iter()?;
    let started = Instant::now();
    let next = || Ok(u64::from(reader.next_record()?.is_some()));
    let (records, latencies) = alone(u64::MAX, started, next)?;
    let run = Run { records, elapsed: started.elapsed(), latencies };
    tell("read".into(), run)?;
    wal.close()?;
    std::fs::remove_dir_all(&dir).map_err(Failure::io("remove the figures' log"))?;
    Ok(json!(figures))
}

/// What a measurement saw.
struct Run {
    records: u64,
    elapsed: Duration,
    latencies: Vec<Duration>,
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "a rate is read to three digits")]
    fn rate(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that half, 99 % and 99.9 % of the calls stay within, in microseconds.
    fn percentiles(&mut self) -> [u128; 3] {
        self.latencies.sort_unstable();
        [500, 990, 999].map(|per_mille| {
            let at = self.latencies.len().saturating_sub(1) * per_mille / 1_000;
            self.latencies.get(at).map_or(0, Duration::as_micros)
        })
    }
}

/// Calls `work` until it has done so many records, does no more, or patience ends; from several
/// threads if `work` can be shared.
fn together<W>(threads: u64, records: u64, work: W) -> Result<Run, Failure>
where
    W: FnMut() -> Result<u64, seawall::Error> + Clone + Send,
{
    let started = Instant::now();
    let share = (records / threads).max(1);
    let runs = thread::scope(|scope| {
        let spawned: Vec<_> = (0..threads)
            .map(|_| {
                let work = work.clone();
                scope.spawn(move || alone(share, started, work))
            })
            .collect();
        let joined = spawned.into_iter().map(|thread| {
            thread.join().map_err(|_| Failure::Other("a thread died".into()))?.map_err(Failure::Log)
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    let elapsed = started.elapsed();
    let records = runs.iter().map(|(records, _)| records).sum();
    Ok(Run { records, elapsed, latencies: runs.into_iter().flat_map(|(_, all)| all).collect() })
}

fn alone(
    records: u64,
    started: Instant,
    mut work: impl FnMut() -> Result<u64, seawall::Error>,
) -> Result<(u64, Vec<Duration>), seawall::Error> {
    let (mut done, mut latencies) = (0, Vec::new());
    let mut last = started.elapsed();
    while done < records && last < PATIENCE {
        let count = work()?;
        let now = started.elapsed();
        if count == 0 {
            break;
        }
        latencies.push(now.saturating_sub(last));
        last = now;
        done += count;
    }
    Ok((done, latencies))
}
