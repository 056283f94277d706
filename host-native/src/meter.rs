//! Telling others what happens: the [`Meter`], and what it is told.

use crate::RecoveryInfo;
use seawall_core::error::{Failure, Poison};
use seawall_core::id::{LogId, Lsn, SegmentId};
use seawall_core::recover::Damage;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Is told what happens in a log, from whichever thread it happens on, with no lock held.
///
/// What it does delays that thread: count, or hand on, and return. Its panics are its own: the log
/// goes on.
pub trait Meter: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// Tells a meter. On a panic of it, which the panic hook has told, nothing hangs: the thread may be
/// one that others wait for.
pub(crate) fn tell(meter: &dyn Meter, event: &Event<'_>) {
    drop(catch_unwind(AssertUnwindSafe(|| meter.event(event))));
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A log was opened.
    Opened {
        /// Its identity.
        log: LogId,
        /// How long that took.
        duration: Duration,
    },
    /// What opening it found.
    Recovered(&'a RecoveryInfo),
    /// There is no io_uring here, though the settings ask for it: writes are made without.
    NoUring(&'a std::io::Error),
    /// What is found of sealed segments cannot be noted: opening the log reads more of them.
    NoCatalog(&'a std::io::Error),
    /// The end of a log was torn by a crash and was cut.
    TornTail {
        /// How many bytes were cut.
        bytes: u64,
    },
    /// What had been durable is damaged.
    Damage(&'a Damage),
    /// The log moved on to another segment.
    Rotated {
        /// The segment that ended.
        from: SegmentId,
        /// The segment that begins.
        to: SegmentId,
        /// The LSN that it begins with.
        first_lsn: Lsn,
    },
    /// More is durable.
    Synced {
        /// Up to here.
        lsn: Lsn,
        /// This many records more than before.
        records: u64,
        /// How long the sync took, with the write that went with it.
        duration: Duration,
    },
    /// Old segments were deleted.
    Deleted {
        /// How many.
        segments: u64,
        /// The first record that is left.
        first_lsn: Lsn,
    },
    /// The end of the log was taken off.
    Truncated {
        /// The last record that is left.
        last_lsn: Lsn,
    },
    /// There is no room on the disk.
    DiskFull(Failure),
    /// Something that is not needed for safety failed.
    Degraded(Failure),
    /// A write or sync failed; the log takes nothing more.
    Poisoned(Poison),
    /// The log was closed cleanly.
    Closed,
}

/// Feeds the crate `tracing`: an event each, under the target `seawall`.
#[cfg(feature = "tracing")]
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingMeter;

#[cfg(feature = "tracing")]
impl Meter for TracingMeter {
    fn event(&self, event: &Event<'_>) {
        use tracing::{debug, error, info, warn};
        match event {
            Event::Opened { log, duration } => {
                info!(target: "seawall", %log, ?duration, "opened");
            }
            Event::Recovered(info) => info!(
                target: "seawall",
                records = info.valid_records,
                segments = info.report.segments,
                bytes_truncated = info.bytes_truncated,
                clean = info.report.was_clean,
                "recovered"
            ),
            Event::NoUring(error) => warn!(target: "seawall", %error, "no io_uring"),
            Event::NoCatalog(error) => warn!(target: "seawall", %error, "no catalog"),
            Event::TornTail { bytes } => warn!(target: "seawall", bytes, "torn tail cut"),
            Event::Damage(damage) => error!(
                target: "seawall",
                position = %damage.position,
                first_lost = %damage.first_lost,
                last_lost = %damage.last_lost,
                "damage"
            ),
            Event::Rotated { from, to, first_lsn } => {
                debug!(target: "seawall", %from, %to, %first_lsn, "rotated");
            }
            Event::Synced { lsn, records, duration } => {
                debug!(target: "seawall", %lsn, records, ?duration, "synced");
            }
            Event::Deleted { segments, first_lsn } => {
                info!(target: "seawall", segments, %first_lsn, "deleted");
            }
            Event::Truncated { last_lsn } => info!(target: "seawall", %last_lsn, "truncated"),
            Event::DiskFull(failure) => error!(target: "seawall", %failure, "disk full"),
            Event::Degraded(failure) => warn!(target: "seawall", %failure, "degraded"),
            Event::Poisoned(poison) => error!(target: "seawall", %poison, "poisoned"),
            Event::Closed => info!(target: "seawall", "closed"),
        }
    }
}

/// Feeds the crate `metrics`: counters, gauges and histograms whose names begin with `seawall_`.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug, Default)]
pub struct MetricsMeter;

#[cfg(feature = "metrics")]
impl Meter for MetricsMeter {
    #[expect(clippy::cast_precision_loss, reason = "gauges and histograms are f64")]
    fn event(&self, event: &Event<'_>) {
        use metrics::{counter, gauge, histogram};
        match event {
            Event::Opened { duration, .. } => {
                histogram!("seawall_open_seconds").record(duration.as_secs_f64());
            }
            Event::Recovered(info) => {
                gauge!("seawall_recovered_records").set(info.valid_records as f64);
            }
            Event::NoUring(_) => counter!("seawall_no_uring_total").increment(1),
            Event::NoCatalog(_) => counter!("seawall_no_catalog_total").increment(1),
            Event::TornTail { bytes } => counter!("seawall_torn_bytes_total").increment(*bytes),
            Event::Damage(_) => counter!("seawall_damage_total").increment(1),
            Event::Rotated { .. } => counter!("seawall_rotations_total").increment(1),
            Event::Synced { lsn, records, duration } => {
                counter!("seawall_syncs_total").increment(1);
                counter!("seawall_durable_records_total").increment(*records);
                histogram!("seawall_sync_seconds").record(duration.as_secs_f64());
                histogram!("seawall_records_per_sync").record(*records as f64);
                gauge!("seawall_durable_lsn").set(lsn.get() as f64);
            }
            Event::Deleted { segments, .. } => {
                counter!("seawall_deleted_segments_total").increment(*segments);
            }
            Event::Truncated { .. } => counter!("seawall_truncations_total").increment(1),
            Event::DiskFull(_) => counter!("seawall_disk_full_total").increment(1),
            Event::Degraded(_) => counter!("seawall_degraded_total").increment(1),
            Event::Poisoned(_) => counter!("seawall_poisoned_total").increment(1),
            Event::Closed => counter!("seawall_closed_total").increment(1),
        }
    }
}
